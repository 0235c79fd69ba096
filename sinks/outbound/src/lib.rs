//! Outbound: the one place that opens outgoing connections for sinks.
//!
//! In: a request whose body may lie in a file, and the bounds of the exchange. Out: the whole answer, or what went
//! wrong, told apart by what the caller must know: was anything sent, and what became of it. Protocols that are not HTTP
//! get a TCP connection from [`connect`] and agree on TLS over it with [`Tls`].
//!
//! Never follows a redirect, never repeats a request, never asks the environment for a proxy, never unpacks an
//! answer, and never reads more of it than it was told. Hosts come from the operator's own configuration and may be
//! private addresses; for hosts that others name there is [`AddressPolicy::PublicOnly`].

mod address;
#[cfg(feature = "aws")]
pub mod aws;
mod body;
mod client;
mod stream;

pub use address::AddressPolicy;
pub use body::Body;
pub use client::{Bounds, BuildError, Client, Options, SendError};
pub use reqwest::Url;
pub use stream::{Tls, connect};

#[cfg(test)]
mod tests;
