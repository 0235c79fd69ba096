//! The section `server`: where it listens, what it may use, who may call.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use hydrant_core::ByteSize;
use hydrant_core::duration::TimeSpan;
use hydrant_core::problem::{DocPath, Problems};
use hydrant_core::secret::{SecretRef, Secrets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::defaults;
use super::super::mask::quoted;
use super::super::read::Unread;
use super::super::spec::{Credential, ServerSpec, TlsSpec};
use crate::tls::{Tls, TlsError};

/// The server itself.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(in super::super) struct RawServer {
    /// IP address, or `localhost`, and port of the API. Port 0 takes a free one. Without `credentials` it must be a loopback address.
    listen: String,
    /// Speak HTTPS there, with this certificate. Without it plain HTTP. Changed files are taken while the server runs.
    tls: Option<RawTls>,
    /// IP address, or `localhost`, and port for operators: `/health`, `/ready` and `/metrics`, always plain HTTP. With it, the API's own
    /// port answers `/health` only.
    admin: Option<String>,
    /// Most connections of one IPv4 address or IPv6 /64 network, 1 to 12288. Loopback is not limited so.
    connections_per_address: u32,
    /// The folder that holds log, outbox and ledger of all streams, relative to the working directory; `--data` wins.
    data: String,
    /// The region of ARNs and of signatures.
    region: String,
    /// The account of ARNs, twelve digits.
    account: String,
    /// Byte budget for records in flight in all streams. At least 16MiB.
    memory: ByteSize,
    /// Most bytes on disk: log and outbox of all streams.
    disk: ByteSize,
    /// Most bytes on disk of one stream. At least 16MiB, and not more than `disk`.
    disk_per_stream: ByteSize,
    /// How long a stop waits for what is under way.
    grace: TimeSpan,
    /// Whether a stop seals and sends everything first. For disks that do not outlive the process.
    drain_on_stop: bool,
    /// Who may call. None: any signature passes, and only on loopback.
    credentials: Option<Vec<RawCredential>>,
}

/// Certificate and key of the HTTPS listener.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(in super::super) struct RawTls {
    /// A PEM file: the server's certificate first, then those of its issuers.
    certificate: String,
    /// The private key in PEM, unencrypted, by reference: `{ file: PATH }`.
    private_key: SecretRef,
}

/// An access key.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(in super::super) struct RawCredential {
    /// Its public half, as clients send it.
    access_key_id: String,
    /// Its secret half, by reference: `{ env: NAME }` or `{ file: PATH }`.
    secret_access_key: SecretRef,
}

impl Default for RawServer {
    fn default() -> Self {
        Self {
            listen: defaults::LISTEN.to_owned(),
            tls: None,
            admin: None,
            connections_per_address: defaults::CONNECTIONS_PER_ADDRESS,
            data: defaults::DATA.to_owned(),
            region: defaults::REGION.to_owned(),
            account: defaults::ACCOUNT.to_owned(),
            memory: defaults::MEMORY,
            disk: defaults::DISK,
            disk_per_stream: defaults::DISK_PER_STREAM,
            grace: TimeSpan(defaults::GRACE),
            drain_on_stop: false,
            credentials: None,
        }
    }
}

impl RawServer {
    /// The data directory, or `instead`.
    pub(super) fn data_folder(&self, instead: Option<&Path>) -> PathBuf {
        instead.map_or_else(|| self.data.as_str().into(), Path::to_owned)
    }

    /// `data` replaces what the document says of the data directory.
    pub(super) fn validate(
        self,
        at: &DocPath,
        data: PathBuf,
        secrets: &dyn Secrets,
        unread: &Unread,
        problems: &mut Problems,
    ) -> Option<ServerSpec> {
        let asks_who_calls = self.credentials.is_some() || unread.touches(&at.field("credentials"));
        let listen = listen(&self.listen, asks_who_calls, &at.field("listen"), problems);
        let tls = match self.tls {
            None => Some(None),
            Some(tls) => tls.validate(&at.field("tls"), secrets, problems).map(Some),
        };
        let admin = match self.admin {
            None => Some(None),
            Some(text) => {
                let clients = listen.filter(|_| !unread.touches(&at.field("listen")));
                admin(&text, clients, &at.field("admin"), problems).map(Some)
            }
        };
        let connections_per_address = problems.range(
            at.field("connections_per_address"),
            self.connections_per_address,
            defaults::CONNECTIONS_PER_ADDRESS_RANGE,
        );
        let region = region(self.region, &at.field("region"), problems);
        let account = account(self.account, &at.field("account"), problems);
        let data = data_folder(data, &at.field("data"), problems);
        let memory = at_least(self.memory, defaults::MEMORY_MIN, at.field("memory"), problems);
        let disk_per_stream =
            at_least(self.disk_per_stream, defaults::DISK_PER_STREAM_MIN, at.field("disk_per_stream"), problems);
        if self.disk_per_stream > self.disk && !unread.touches(&at.field("disk")) {
            problems.add_with_hint(
                at.field("disk_per_stream"),
                format!("{} for one stream is more than {} for all of them", self.disk_per_stream, self.disk),
                "lower it, or raise `server.disk`",
            );
        }
        let (shortest, longest) = (TimeSpan(*defaults::GRACE_RANGE.start()), TimeSpan(*defaults::GRACE_RANGE.end()));
        let grace = problems.range(at.field("grace"), self.grace, shortest..=longest);
        let credentials = credentials(self.credentials, &at.field("credentials"), secrets, problems);
        Some(ServerSpec {
            listen: listen?,
            tls: tls?,
            admin: admin?,
            connections_per_address: usize::try_from(connections_per_address?).ok()?,
            data: data?,
            region: region?,
            account: account?,
            memory: memory?,
            disk: self.disk,
            disk_per_stream: disk_per_stream?,
            grace: grace?.0,
            drain_on_stop: self.drain_on_stop,
            credentials: credentials?,
        })
    }
}

/// The name of this machine to itself. It is not looked up: it always is what RFC 6761 says that it should be.
const LOCALHOST: &str = "localhost";

fn socket_address(text: &str, at: &DocPath, problems: &mut Problems) -> Option<SocketAddr> {
    let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let of_localhost = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let address =
        if host.eq_ignore_ascii_case(LOCALHOST) { port.parse().ok().map(of_localhost) } else { text.parse().ok() };
    if address.is_none() {
        let is_name = host.chars().any(|c| c.is_ascii_alphabetic()) && !host.contains(':');
        let is_port = !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
        let hint = match () {
            () if host.eq_ignore_ascii_case(LOCALHOST) => "a port from 0 to 65535 follows it, as in localhost:4573",
            () if is_port => "write the address, too: 127.0.0.1:4573",
            () if is_name => "names but localhost are not looked up: write the address, such as 127.0.0.1:4573",
            () => "write it as localhost:4573, 127.0.0.1:4573, 0.0.0.0:4573 or [::1]:4573",
        };
        problems.add_with_hint(at.clone(), format!("{} is not an IP address and a port", quoted(text)), hint);
    }
    address
}

fn listen(text: &str, credentials: bool, at: &DocPath, problems: &mut Problems) -> Option<SocketAddr> {
    let address = socket_address(text, at, problems)?;
    if !credentials && !address.ip().is_loopback() {
        problems.add_with_hint(
            at.clone(),
            format!("without credentials anybody who reaches {} could put records", address.ip()),
            "declare `server.credentials`, or listen on 127.0.0.1",
        );
        return None;
    }
    Some(address)
}

/// What is asked there is shown to whoever asks, so any address is the operator's own choice.
fn admin(text: &str, listen: Option<SocketAddr>, at: &DocPath, problems: &mut Problems) -> Option<SocketAddr> {
    let address = socket_address(text, at, problems)?;
    if Some(address) == listen && address.port() != 0 {
        problems.add_with_hint(
            at.clone(),
            "this is `server.listen`",
            "give operators another port, or remove the key to answer both on one",
        );
        return None;
    }
    Some(address)
}

impl RawTls {
    fn validate(self, at: &DocPath, secrets: &dyn Secrets, problems: &mut Problems) -> Option<TlsSpec> {
        let spec = TlsSpec { certificate: self.certificate.into(), key: self.private_key };
        if !secrets.are_real() {
            return Some(spec);
        }
        match Tls::load(&spec, secrets) {
            Ok(_) => return Some(spec),
            Err(TlsError::Certificate(why)) => problems.add_with_hint(
                at.field("certificate"),
                why,
                "name a PEM file with the server's certificate, and behind it those of its issuers",
            ),
            Err(TlsError::Key(why)) => problems.add_with_hint(
                at.field("private_key"),
                why,
                "name the file of its private key: PEM, not encrypted; `hydrant check --skip-secrets` does not look",
            ),
        }
        None
    }
}

fn data_folder(path: PathBuf, at: &DocPath, problems: &mut Problems) -> Option<PathBuf> {
    if path.as_os_str().is_empty() {
        problems.add_with_hint(
            at.clone(),
            "the data directory has no name",
            format!("the default is {}", defaults::DATA),
        );
        return None;
    }
    Some(path)
}

fn region(text: String, at: &DocPath, problems: &mut Problems) -> Option<String> {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.is_empty() || text.len() > 64 || !text.chars().all(allowed) {
        problems.add_with_hint(
            at.clone(),
            format!("{} is not a region", quoted(&text)),
            "allowed are lower-case letters, digits and `-`, as in us-east-1",
        );
        return None;
    }
    Some(text)
}

fn account(text: String, at: &DocPath, problems: &mut Problems) -> Option<String> {
    if text.len() != 12 || !text.chars().all(|c| c.is_ascii_digit()) {
        problems.add_with_hint(
            at.clone(),
            format!("{} is not an account", quoted(&text)),
            "twelve digits, in quotes: \"000000000000\"",
        );
        return None;
    }
    Some(text)
}

fn at_least(value: ByteSize, least: ByteSize, at: DocPath, problems: &mut Problems) -> Option<ByteSize> {
    if value < least {
        problems.add_with_hint(at, format!("{value} is too little"), format!("at least {least}"));
        return None;
    }
    Some(value)
}

/// An empty list is a mistake rather than an open door: who writes `credentials:` wants callers to be checked.
fn credentials(
    declared: Option<Vec<RawCredential>>,
    at: &DocPath,
    secrets: &dyn Secrets,
    problems: &mut Problems,
) -> Option<Vec<Credential>> {
    let Some(declared) = declared else { return Some(Vec::new()) };
    if declared.is_empty() {
        problems.add_with_hint(
            at.clone(),
            "the list is empty",
            "remove the key to accept any signature, on loopback only",
        );
        return None;
    }
    let count = declared.len();
    let mut seen = BTreeSet::new();
    let checked: Vec<Credential> = declared
        .into_iter()
        .enumerate()
        .filter_map(|(index, raw)| {
            let at = at.item(index);
            if !seen.insert(raw.access_key_id.clone()) {
                problems.add(at.field("access_key_id"), "this access key is declared twice");
            }
            raw.validate(&at, secrets, problems)
        })
        .collect();
    (checked.len() == count).then_some(checked)
}

impl RawCredential {
    fn validate(self, at: &DocPath, secrets: &dyn Secrets, problems: &mut Problems) -> Option<Credential> {
        // The id stands between slashes in a signature's credential scope.
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        let id = &self.access_key_id;
        let id_fits = !id.is_empty() && id.len() <= 128 && id.chars().all(allowed);
        if !id_fits {
            problems.add_with_hint(
                at.field("access_key_id"),
                "this cannot be an access key id",
                "allowed are 1 to 128 letters, digits, `_`, `-` and `.`",
            );
        }
        let secret = secrets.resolve(&self.secret_access_key);
        let hint = "it must be there where the server runs; `hydrant check --skip-secrets` does not look";
        let secret = secret.map_err(|why| problems.add_with_hint(at.field("secret_access_key"), why, hint)).ok()?;
        id_fits.then_some(Credential { access_key_id: self.access_key_id, secret_access_key: secret })
    }
}
