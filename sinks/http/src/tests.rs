//! The promises of a piece sink on the strict receiver behind a faulty proxy, and what is particular to HTTP.

mod faults;
mod settings;
mod tls;
mod world;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use hydrant_core::secret::{Secret, SecretRef, Secrets};

/// The stream that records come from.
const SOURCE: &str = "arn:aws:firehose:us-east-1:000000000000:deliverystream/web";

/// Secrets by the name of their variable.
#[derive(Clone, Debug, Default)]
struct Known(BTreeMap<&'static str, String>);

impl Secrets for Known {
    fn resolve(&self, reference: &SecretRef) -> Result<Secret, String> {
        let SecretRef::Env(name) = reference else { return Err(format!("{reference} cannot be read")) };
        self.0.get(name.as_str()).map(Secret::new).ok_or_else(|| format!("{reference} is not set"))
    }
}

fn known(secrets: &[(&'static str, &str)]) -> Known {
    Known(secrets.iter().map(|(name, value)| (*name, (*value).to_owned())).collect())
}

fn env(name: &str) -> SecretRef {
    SecretRef::Env(name.to_owned())
}

/// An address at which nothing listens: it was free a moment ago.
async fn closed_port() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    listener.local_addr().unwrap()
}
