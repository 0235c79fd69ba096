//! The promises of an object sink on a scripted S3 server behind a faulty proxy, on a real MinIO, and what is
//! particular to S3.

mod in_parts;
mod live;
mod scripted;
mod settings;
mod tls;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use hydrant_core::secret::{Secret, SecretRef, Secrets};

use crate::StoreConfig;
use crate::multipart::Sizes;
use crate::store::Patience;

/// Short enough for tests, long enough for a busy machine to make progress.
const PATIENCE: Patience = Patience {
    connect: Duration::from_secs(5),
    stall: Duration::from_millis(1200),
    base: Duration::from_secs(10),
    bytes_per_second_min: 1 << 20,
};

/// So that what the conformance suite sends goes in one request.
const SIZES: Sizes = Sizes { whole_bytes_max: 1 << 30, part_bytes: 1 << 20 };

/// Secrets by the name of their variable.
#[derive(Clone, Debug, Default)]
struct Known(BTreeMap<&'static str, String>);

impl Secrets for Known {
    fn resolve(&self, reference: &SecretRef) -> Result<Secret, String> {
        let SecretRef::Env(name) = reference else { return Err(format!("{reference} cannot be read")) };
        self.0.get(name.as_str()).map(Secret::new).ok_or_else(|| format!("{reference} is not set"))
    }
}

fn keys(id: &str, secret: &str) -> Known {
    Known([("ID", id.to_owned()), ("SECRET", secret.to_owned())].into())
}

fn store(bucket: &str, endpoint: SocketAddr) -> StoreConfig {
    StoreConfig {
        bucket: bucket.to_owned(),
        endpoint: Some(format!("http://{endpoint}")),
        access_key_id: Some(SecretRef::Env("ID".to_owned())),
        secret_access_key: Some(SecretRef::Env("SECRET".to_owned())),
        ..StoreConfig::default()
    }
}

/// An address at which nothing listens: it was free a moment ago.
async fn closed_port() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    listener.local_addr().unwrap()
}
