//! The one place that opens outgoing connections.

pub use reqwest::Url;
