//! The section `server`: where it listens, what it may use, who may call.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use hydrant_core::ByteSize;
use hydrant_core::duration::TimeSpan;
use hydrant_core::problem::{DocPath, Problems};
use hydrant_core::secret::{SecretRef, Secrets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::defaults;
use super::super::mask::quoted;
use super::super::spec::{Credential, ServerSpec};

/// The server itself.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub(in super::super) struct RawServer {
    /// IP address and port of the API. Port 0 takes a free one. Without `credentials` it must be a loopback address.
    listen: String,
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
    /// `data` replaces what the document says of the data directory.
    pub(super) fn validate(
        self,
        at: &DocPath,
        data: Option<&Path>,
        secrets: &dyn Secrets,
        problems: &mut Problems,
    ) -> Option<ServerSpec> {
        let listen = listen(&self.listen, self.credentials.is_some(), &at.field("listen"), problems);
        let region = region(self.region, &at.field("region"), problems);
        let account = account(self.account, &at.field("account"), problems);
        let data = data_folder(data.map_or_else(|| self.data.into(), Path::to_owned), &at.field("data"), problems);
        let memory = at_least(self.memory, defaults::MEMORY_MIN, at.field("memory"), problems);
        let disk_per_stream =
            at_least(self.disk_per_stream, defaults::DISK_PER_STREAM_MIN, at.field("disk_per_stream"), problems);
        if self.disk_per_stream > self.disk {
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

fn listen(text: &str, credentials: bool, at: &DocPath, problems: &mut Problems) -> Option<SocketAddr> {
    let Ok(address) = text.parse::<SocketAddr>() else {
        problems.add_with_hint(
            at.clone(),
            format!("{} is not an IP address and a port", quoted(text)),
            "write it as 127.0.0.1:4573, 0.0.0.0:4573 or [::1]:4573",
        );
        return None;
    };
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
