//! Delivers batches: encodes records as rows, makes one attempt, and says of each record what came of it.
//!
//! ```text
//!   batch ──encode──> rows ──take a session──> [ attempt ] ──> all Delivered
//!                └─> refused                        ├────────> some Refused, the others Retry: nothing is committed
//!                                                   └────────> all Retry
//! ```

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use hydrant_core::batch::Batch;
use hydrant_core::secret::Secrets;
use hydrant_core::sink::Encoded;
use hydrant_core::{ByteSize, Fault, FaultCode, Limits, PieceSink, Report, Timestamp, Verdict};
use hydrant_outbound::Tls;

use crate::config::{SinkConfig, TlsMode};
use crate::connection::{Failure, Pool, Server};
use crate::table::Statements;
use crate::transaction::{Attempt, Ending};
use crate::wire::Layout;

/// Most bytes of a batch. Several lie in memory at once, raw and as rows; a COPY gains nothing beyond a few.
const BODY_BYTES_MAX: ByteSize = ByteSize::mib(16);

/// Most rows of a batch. Bounds the search when all are bad: one COPY each.
const PIECES_MAX: u32 = 10_000;

/// How long before this batch another must have been sealed for its guard to go. Wall clocks jump, though not by days.
const GUARDS_KEPT_MS: u64 = 24 * 3_600 * 1_000;

/// How far the moment must have come up to which guards may go, before it is worth a statement.
const FORGET_EVERY_MS: u64 = 10 * 60 * 1_000;

/// How long a sink waits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// For a connection, logging in included.
    pub(crate) connect: Duration,
    /// For an answer, beyond what the server itself allows a statement.
    pub(crate) answer: Duration,
}

impl Default for Patience {
    /// 10 s for a connection: a lost SYN and its repetitions, and a busy server's time to start a process. 10 s more than
    /// the server takes: it gives up first and can say why.
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), answer: Duration::from_secs(10) }
    }
}

/// Delivers records to a table.
pub struct PostgresSink {
    layout: Layout,
    statements: Statements,
    pub(crate) pool: Pool,
    /// Longest wait for one answer.
    patience: Duration,
    destination: String,
    connections: u32,
    /// Batches sealed before this moment never come again, in milliseconds.
    settled_before: AtomicU64,
    /// Guards of batches sealed before this moment have been removed.
    forgotten_before: AtomicU64,
}

impl PostgresSink {
    /// The sink for this table. `origin` names the lane among all that write to the server, whichever machine they are on:
    /// guards are removed by the lane that put them up. Connects to nothing.
    ///
    /// # Errors
    /// A sentence for the operator: a secret that is missing, a file of authorities that cannot be read.
    pub fn new(config: &SinkConfig, origin: &str, secrets: &dyn Secrets) -> Result<Self, String> {
        Self::with(config, origin, secrets, Patience::default())
    }

    pub(crate) fn with(
        config: &SinkConfig,
        origin: &str,
        secrets: &dyn Secrets,
        patience: Patience,
    ) -> Result<Self, String> {
        let mut login = tokio_postgres::Config::new();
        login.user(&config.user).dbname(&config.database).application_name(&config.application_name);
        if let Some(reference) = &config.password {
            login.password(secrets.resolve(reference)?.expose());
        }
        let tls = match config.tls_mode() {
            TlsMode::Disable => None,
            TlsMode::Require => Some(Tls::unverified()),
            TlsMode::VerifyFull => Some(Tls::verified(config.ca_file.as_deref().map(Path::new))),
        };
        let server = Server {
            host: config.host.clone(),
            port: config.port,
            tls: tls.transpose().map_err(|error| error.to_string())?,
            login,
            connect: patience.connect,
        };
        Ok(Self {
            layout: Layout::new(&config.row).map_err(|reason| reason.to_string())?,
            statements: Statements::new(config, origin),
            pool: Pool::new(server),
            patience: config.statement_timeout.0.max(config.lock_timeout.0) + patience.answer,
            destination: format!("postgres://{}:{}/{}/{}", config.host, config.port, config.database, config.table),
            connections: config.connections,
            settled_before: AtomicU64::new(0),
            forgotten_before: AtomicU64::new(0),
        })
    }

    async fn attempt(&self, batch: &Batch, body: Bytes) -> Result<Ending, Failure> {
        let mut session = self.pool.take().await?;
        let ending = session
            .run(async |client| {
                let (statements, patience) = (&self.statements, self.patience);
                let attempt = Attempt { client, statements, batch, body, patience };
                let ending = attempt.make().await?;
                if let Some(before) = self.forgettable(batch) {
                    // What stays behind does no harm, and the batch is delivered whatever comes of this.
                    let _removed = attempt.say(&self.statements.forget(before)).await;
                }
                Ok(ending)
            })
            .await?;
        self.pool.give_back(session);
        Ok(ending)
    }

    /// The moment before which guards may go, now and then; of several attempts at once one gets it.
    fn forgettable(&self, batch: &Batch) -> Option<Timestamp> {
        let a_day_before = batch.sealed_at.as_millis().saturating_sub(GUARDS_KEPT_MS);
        let before = self.settled_before.load(Ordering::Relaxed).min(a_day_before);
        let forgotten = self.forgotten_before.load(Ordering::Relaxed);
        let is_worth_it = before >= forgotten.saturating_add(FORGET_EVERY_MS);
        let is_ours =
            || self.forgotten_before.compare_exchange(forgotten, before, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        (is_worth_it && is_ours()).then(|| Timestamp::from_millis(before))
    }
}

#[async_trait]
impl PieceSink for PostgresSink {
    fn limits(&self) -> Limits {
        Limits { body_bytes_max: BODY_BYTES_MAX, pieces_max: PIECES_MAX, attempts_in_flight_max: self.connections }
    }

    fn destination(&self) -> String {
        self.destination.clone()
    }

    fn encode(&self, batch: &Batch) -> Encoded {
        self.layout.encode(batch)
    }

    async fn deliver(&self, batch: &Batch, encoded: &Encoded) -> Report {
        let body = match &*encoded.body {
            [body] => body.clone(),
            parts => parts.concat().into(),
        };
        match self.attempt(batch, body).await {
            Ok(Ending::Delivered) => Report::All(Verdict::Delivered),
            Ok(Ending::Refused(mut refused)) => {
                let verdict = |(row, ordinal)| match refused.remove(&row) {
                    Some(fault) => (ordinal, Verdict::Refused(fault)),
                    None => (ordinal, Verdict::Retry(Fault::new(FaultCode::Conflict, BESIDE_REFUSED))),
                };
                Report::Each(sent(batch, encoded).enumerate().map(verdict).collect())
            }
            Err(failure) => Report::All(Verdict::Retry(failure.into_fault())),
        }
    }

    fn error_type(&self) -> &'static str {
        "postgres-failed"
    }

    fn forget_sealed_before(&self, moment: Timestamp) {
        self.settled_before.fetch_max(moment.as_millis(), Ordering::Relaxed);
    }
}

/// Why a good record was not stored.
const BESIDE_REFUSED: &str = "rolled back, as other records of the batch were refused";

/// Ordinals of the records that have a row, in the order of the rows.
fn sent(batch: &Batch, encoded: &Encoded) -> impl Iterator<Item = u32> {
    let mut refused = encoded.refused.iter().map(|(ordinal, _)| *ordinal).peekable();
    batch.pieces.iter().map(|(ordinal, _)| *ordinal).filter(move |ordinal| refused.next_if_eq(ordinal).is_none())
}
