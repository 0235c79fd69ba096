//! The promises of a piece sink on a scripted OpenSearch behind a faulty proxy, on a real one, and what is particular to
//! bulk requests.

mod cuts;
mod live;
mod scripted;
mod settings;
mod tls;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use hydrant_core::duration::TimeSpan;
use hydrant_core::secret::{Secret, SecretRef, Secrets};
use hydrant_core::{ByteSize, Verdict};
use hydrant_kit::opensearch::{PASSWORD, USERNAME};

use crate::config::{Basic, Compression, DocumentId, Login, SinkConfig};

/// Short enough for tests, long enough for a busy machine to make progress.
const TIMEOUT: TimeSpan = TimeSpan(Duration::from_millis(1500));

/// Secrets by the name of their variable.
#[derive(Clone, Debug, Default)]
struct Known(BTreeMap<&'static str, String>);

impl Secrets for Known {
    fn resolve(&self, reference: &SecretRef) -> Result<Secret, String> {
        let SecretRef::Env(name) = reference else { return Err(format!("{reference} cannot be read")) };
        self.0.get(name.as_str()).map(Secret::new).ok_or_else(|| format!("{reference} is not set"))
    }
}

fn password(password: &str) -> Known {
    Known([("PASSWORD", password.to_owned())].into())
}

/// The index `web` of the cluster there, as it is by default.
pub(crate) fn config(endpoint: &str) -> SinkConfig {
    SinkConfig {
        endpoint: endpoint.to_owned(),
        index: Some("web".to_owned()),
        data_stream: None,
        rotation: None,
        add_timestamp: false,
        document_id: DocumentId::Stable,
        type_name: None,
        login: Login::None,
        ca_file: None,
        allow_insecure: false,
        compression: Compression::None,
        body_max: ByteSize::mib(5),
        timeout: TIMEOUT,
    }
}

/// The same for the user that the scripted server knows.
fn guarded(address: SocketAddr) -> (SinkConfig, Known) {
    let login = Basic { username: USERNAME.to_owned(), password: SecretRef::Env("PASSWORD".to_owned()) };
    (SinkConfig { login: Login::Basic(login), ..config(&format!("http://{address}")) }, password(PASSWORD))
}

/// An address at which nothing listens: it was free a moment ago.
async fn closed_port() -> SocketAddr {
    let listener = tokio::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    listener.local_addr().unwrap()
}

/// The ordinals that are still owed.
fn owed(verdicts: &BTreeMap<u32, Verdict>) -> Vec<u32> {
    verdicts.iter().filter(|(_, verdict)| matches!(verdict, Verdict::Retry(_))).map(|(ordinal, _)| *ordinal).collect()
}
