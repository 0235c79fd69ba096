//! What is true: the server and its streams as the rest of the program sees them, whatever they were declared in.
//! A value of these types cannot be wrong; behind it nobody knows a YAML key.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use hydrant_core::ByteSize;
use hydrant_core::compression::Compression;
pub use hydrant_core::delimiter::Delimiter;
use hydrant_core::secret::{Secret, SecretRef};
use hydrant_sinks::{Encryption, SinkConfig, StoreConfig};

use crate::encode::name::{ErrorPrefix, ErrorType, Prefix};

/// Everything that was declared.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The server itself.
    pub server: ServerSpec,
    /// Streams by name.
    pub streams: BTreeMap<String, StreamSpec>,
}

/// The server itself.
#[derive(Clone, Debug)]
pub struct ServerSpec {
    /// Where the API listens.
    pub listen: SocketAddr,
    /// Certificate and key, if it speaks HTTPS there.
    pub tls: Option<TlsSpec>,
    /// Where operators ask, if not where clients do.
    pub admin: Option<SocketAddr>,
    /// Most connections of one address, except loopback.
    pub connections_per_address: usize,
    /// The folder that holds log, outbox and ledger of all streams.
    pub data: PathBuf,
    /// The region of ARNs and signatures.
    pub region: String,
    /// The account of ARNs, twelve digits.
    pub account: String,
    /// Byte budget for records in flight in all streams.
    pub memory: ByteSize,
    /// Most bytes on disk, log and outbox of all streams.
    pub disk: ByteSize,
    /// Most bytes on disk of one stream.
    pub disk_per_stream: ByteSize,
    /// How long a stop waits for what is under way.
    pub grace: Duration,
    /// Whether a stop seals and sends everything first, for disks that do not outlive the process.
    pub drain_on_stop: bool,
    /// Who may call. Empty: any signature passes, and only on loopback.
    pub credentials: Vec<Credential>,
}

impl ServerSpec {
    /// The ARN of a stream.
    pub fn arn_of(&self, stream: &str) -> String {
        stream_arn(&self.region, &self.account, stream)
    }
}

/// The ARN of a stream in this region and account.
pub fn stream_arn(region: &str, account: &str, stream: &str) -> String {
    format!("arn:aws:firehose:{region}:{account}:deliverystream/{stream}")
}

/// Where certificate and key of the HTTPS listener are. They are read again while the server runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSpec {
    /// A PEM file: the server's certificate, then those of its issuers.
    pub certificate: PathBuf,
    /// The private key, PEM.
    pub key: SecretRef,
}

/// An access key.
#[derive(Clone, Debug)]
pub struct Credential {
    /// Its public half.
    pub access_key_id: String,
    /// Its secret half.
    pub secret_access_key: Secret,
}

/// One delivery stream.
#[derive(Clone, Debug)]
pub struct StreamSpec {
    /// 1 to 64 of `[a-zA-Z0-9_.-]`.
    pub name: String,
    /// When a buffer is sealed.
    pub hints: Hints,
    /// How long a batch is tried before it goes to the dead letters.
    pub retry_for: RetryFor,
    /// Where its records go.
    pub sink: SinkSpec,
    /// Where refused records and undeliverable objects go.
    pub dead_letter: DeadLetterSpec,
    /// The stream's part of the document in a canonical form without secrets. Another text is another version.
    pub definition: String,
}

impl StreamSpec {
    /// The stores that it writes to.
    pub fn stores(&self) -> impl Iterator<Item = &StoreSpec> {
        let data = match &self.sink {
            SinkSpec::Objects(objects) => Some(&objects.store),
            SinkSpec::Pieces(_) => None,
        };
        data.into_iter().chain([&self.dead_letter.store])
    }
}

/// Size and age at which a buffer is sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hints {
    /// Bytes before compression, 1 to 128 MiB.
    pub size: ByteSize,
    /// Age of the oldest record, 0 to 900 s. Zero seals whatever there is whenever an attempt may start.
    pub interval: Duration,
}

/// How long a batch is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryFor {
    /// As long as it takes.
    Forever,
    /// This long, counted in each process from the first attempt that failed. Zero means one attempt.
    AtMost(Duration),
}

/// Where records go.
#[derive(Clone, Debug)]
pub enum SinkSpec {
    /// As objects, into a store.
    Objects(ObjectsSpec),
    /// As separate pieces, to a service.
    Pieces(PiecesSpec),
}

impl SinkSpec {
    /// The sink's kind as declared: `s3`, `file`, `http`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Objects(objects) => objects.kind,
            Self::Pieces(pieces) => pieces.kind,
        }
    }
}

/// Which service takes the pieces, and how it is reached.
#[derive(Clone, Debug)]
pub struct PiecesSpec {
    /// The sink's kind as declared.
    pub kind: &'static str,
    /// What was declared of it.
    pub config: SinkConfig,
    /// What the names of its dead letters call them.
    pub error_type: ErrorType,
}

/// How records become objects.
#[derive(Clone, Debug)]
pub struct ObjectsSpec {
    /// The sink's kind as declared: `s3`, `file`.
    pub kind: &'static str,
    /// The store.
    pub store: StoreSpec,
    /// What object keys start with.
    pub prefix: Prefix,
    /// Compression of each object.
    pub compression: Compression,
    /// What is put behind each record.
    pub delimiter: Delimiter,
    /// Server-side encryption of each object.
    pub encryption: Encryption,
}

/// A declared store.
#[derive(Clone, Debug)]
pub struct StoreSpec {
    /// Its name in the document.
    pub name: String,
    /// Where it is and how to reach it.
    pub config: StoreConfig,
}

/// Where dead letters go.
#[derive(Clone, Debug)]
pub struct DeadLetterSpec {
    /// The store; for object sinks their own one unless another was named.
    pub store: StoreSpec,
    /// What keys of dead letters start with.
    pub error_prefix: ErrorPrefix,
    /// When a buffer of dead letters is sealed.
    pub hints: Hints,
}
