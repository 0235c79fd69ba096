//! The promises, and each way to break a database that an operator can mend.

use std::fmt::Write as _;
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use bytes::Bytes;
use hydrant_core::batch::Batch;
use hydrant_core::{FaultCode, PieceSink};
use hydrant_kit::conformance::{Breakage, PieceWorld};
use hydrant_kit::piece_sink_conformance;
use hydrant_kit::proxy::Fault;

use super::password;
use super::world::{Ground, PASSWORD, PATIENCE, attempt};
use crate::sink::Patience;
use crate::{PostgresSink, SinkConfig};

/// Refuses by CHECK, by a generated column's type, and by a trigger that quotes the record.
const COLUMNS: &str = "data jsonb NOT NULL CHECK (data->>'kind' IS DISTINCT FROM 'forbidden'), \
                       number integer GENERATED ALWAYS AS ((data->>'number')::integer) STORED";

struct Live {
    ground: Ground,
    /// The configuration and the password that sinks are made with.
    settings: Mutex<(SinkConfig, String)>,
    /// What makes good what the server was told.
    mended: Mutex<Option<&'static str>>,
    /// A session that holds a lock.
    lock: Mutex<Option<Child>>,
    /// How many bytes of answers a connection carries up to the one that says that a batch of the conformance suite is
    /// committed.
    answer_bytes: u64,
}

impl Live {
    async fn connect() -> Self {
        let ground = Ground::new(COLUMNS).await;
        let settings = Mutex::new((ground.config(), PASSWORD.to_owned()));
        let mut live = Self { ground, settings, mended: Mutex::default(), lock: Mutex::default(), answer_bytes: 0 };
        live.answer_bytes = live.measure_answers().await;
        live
    }

    /// The least that an answer may be cut to so that the attempt still hears of its success.
    async fn measure_answers(&self) -> u64 {
        // The first delivery makes the guard table.
        assert_eq!(attempt(&*self.sink(), &self.ground.batch(1, ["{}"])).await.delivered, [0]);
        let (mut short, mut enough) = (0_u64, 4096);
        while enough - short > 1 {
            let bytes = short.midpoint(enough);
            self.ground.proxy.choose(Fault::ResetAnswerAfter(bytes));
            let said = attempt(&*self.sink(), &self.ground.batch(1000 + bytes, ["{}"])).await;
            *(if said.delivered.is_empty() { &mut short } else { &mut enough }) = bytes;
        }
        self.ground.proxy.choose(Fault::None);
        enough
    }

    fn sink_with(&self, patience: Patience) -> Arc<dyn PieceSink> {
        let (config, secret) = &*self.settings.lock().unwrap();
        Arc::new(PostgresSink::with(config, &self.ground.name, &password(secret), patience).unwrap())
    }
}

/// How a breakage is brought about: by settings, by what the server is told, by a fault on the way.
enum How {
    Settings(fn(&mut SinkConfig, &mut String)),
    Told { broken: &'static str, mended: &'static str },
    Lock,
    Way(Fault),
    AnswerCut,
}

fn breakages() -> Vec<(Breakage, How)> {
    let settings = |name, code, change| (Breakage::new(name, code), How::Settings(change));
    let told = |name, code, broken, mended| (Breakage::new(name, code), How::Told { broken, mended });
    let way = |name, code, fault| (Breakage::new(name, code), How::Way(fault));
    vec![
        settings("nothing listens", FaultCode::Unreachable, |config, _| config.port = 9),
        settings("unknown host", FaultCode::Unreachable, |config, _| config.host = "no-such-host.invalid".to_owned()),
        settings("wrong password", FaultCode::Unauthenticated, |_, secret| *secret = "another-secret".to_owned()),
        settings("no password", FaultCode::Unauthenticated, |config, _| config.password = None),
        settings("unknown user", FaultCode::Unauthenticated, |config, _| {
            config.user = "nobody-of-this-name".to_owned();
        }),
        settings("no such database", FaultCode::NotFound, |config, _| config.database = "no-such-database".to_owned()),
        settings("no such table", FaultCode::NotFound, |config, _| config.table += "_of_another_name"),
        settings("not trusted", FaultCode::Unreachable, |config, _| config.tls = Some(crate::TlsMode::VerifyFull)),
        told(
            "missing column",
            FaultCode::NotFound,
            "ALTER TABLE events RENAME data TO other",
            "ALTER TABLE events RENAME other TO data",
        ),
        told(
            "expired password",
            FaultCode::Unauthenticated,
            "ALTER ROLE $R VALID UNTIL '2001-01-01'",
            "ALTER ROLE $R VALID UNTIL 'infinity'",
        ),
        told("revoked grant", FaultCode::Forbidden, "REVOKE ALL ON events FROM $R", "GRANT ALL ON events TO $R"),
        told(
            "read-only",
            FaultCode::Forbidden,
            "ALTER ROLE $R SET default_transaction_read_only = on",
            "ALTER ROLE $R RESET default_transaction_read_only",
        ),
        told(
            "too many connections",
            FaultCode::Throttled,
            "ALTER ROLE $R CONNECTION LIMIT 0",
            "ALTER ROLE $R CONNECTION LIMIT -1",
        ),
        (Breakage::new("locked table", FaultCode::Conflict), How::Lock),
        way("reset while logging in", FaultCode::Interrupted, Fault::ResetRequestAfter(70)),
        way("reset in the rows", FaultCode::Interrupted, Fault::ResetRequestAfter(2_500)),
        way("silent from the start", FaultCode::TimedOut, Fault::StallAnswer),
        (Breakage::unheard("the answer is lost", FaultCode::Interrupted), How::AnswerCut),
    ]
}

#[async_trait]
impl PieceWorld for Live {
    fn salt(&self) -> u64 {
        self.ground.salt
    }

    fn sink(&self) -> Arc<dyn PieceSink> {
        self.sink_with(PATIENCE)
    }

    fn patient_sink(&self) -> Arc<dyn PieceSink> {
        let minutes = Duration::from_mins(5);
        self.sink_with(Patience { connect: minutes, answer: minutes })
    }

    async fn arrived(&self, batch: &Batch) -> Result<Vec<u64>> {
        let mut query = "WITH sent (place, record) AS (VALUES ".to_owned();
        let mut counts = vec![0; batch.pieces.len()];
        for (number, (_, piece)) in batch.pieces.iter().enumerate() {
            // What is no JSON lies in no column of JSON.
            if let Ok(text) = str::from_utf8(&piece.data)
                && serde_json::from_str::<serde_json::Value>(text).is_ok()
                && !text.contains("\\u0000")
            {
                let _written = write!(query, "({number}, $record${text}$record$::jsonb), ");
            }
        }
        query.push_str(
            "(-1, NULL::jsonb)) SELECT place, count(data) FROM sent LEFT JOIN events ON data = record GROUP BY place",
        );
        for line in self.ground.one(&query).lines() {
            let (number, count) = line.split_once('|').context("two columns")?;
            if let Ok(number) = number.parse::<usize>() {
                counts[number] = count.parse()?;
            }
        }
        Ok(counts)
    }

    fn attempts(&self) -> u64 {
        self.ground.proxy.opened()
    }

    fn breakages(&self) -> Vec<Breakage> {
        breakages().into_iter().map(|(breakage, _)| breakage).collect()
    }

    async fn break_by(&self, breakage: &Breakage) -> Result<()> {
        let found = breakages().into_iter().find(|(known, _)| known.name == breakage.name);
        match found.context("an unknown breakage")?.1 {
            How::Settings(change) => {
                let (config, secret) = &mut *self.settings.lock().unwrap();
                change(config, secret);
            }
            How::Told { broken, mended } => {
                self.ground.one(&broken.replace("$R", &self.ground.name));
                *self.mended.lock().unwrap() = Some(mended);
            }
            How::Lock => {
                let mut session = Ground::spawn_psql()?;
                let name = &self.ground.name;
                let input = session.stdin.as_mut().context("its input")?;
                std::io::Write::write_all(input, format!("BEGIN; LOCK TABLE {name}.events;\n").as_bytes())?;
                *self.lock.lock().unwrap() = Some(session);
                let locks = format!(
                    "SELECT count(*) FROM pg_locks WHERE relation = '{name}.events'::regclass AND granted \
                     AND mode = 'AccessExclusiveLock'"
                );
                while self.ground.one(&locks) == "0" {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            How::Way(fault) => self.ground.proxy.choose(fault),
            How::AnswerCut => self.ground.proxy.choose(Fault::ResetAnswerAfter(self.answer_bytes - 1)),
        }
        Ok(())
    }

    async fn mend(&self) -> Result<()> {
        *self.settings.lock().unwrap() = (self.ground.config(), PASSWORD.to_owned());
        self.ground.proxy.choose(Fault::None);
        if let Some(mut session) = self.lock.lock().unwrap().take() {
            drop(session.stdin.take());
            session.wait()?;
        }
        if let Some(mended) = self.mended.lock().unwrap().take() {
            self.ground.one(&mended.replace("$R", &self.ground.name));
        }
        Ok(())
    }

    async fn stall(&self) -> Result<()> {
        self.ground.proxy.choose(Fault::StallAnswer);
        Ok(())
    }

    fn unacceptable(&self, text: &str) -> Vec<(Bytes, FaultCode)> {
        let records: [&[u8]; 7] = [
            format!(r#"{{"text":"{text}","fill":"#).leak().as_bytes(),
            format!(r#"{{"text":"{text}\u0000"}}"#).leak().as_bytes(),
            format!(r#"{{"text":"{text}","number":"{text}"}}"#).leak().as_bytes(),
            format!(r#"{{"text":"{text}","number":99999999999}}"#).leak().as_bytes(),
            format!(r#"{{"text":"{text}","kind":"forbidden"}}"#).leak().as_bytes(),
            format!("{text}\n").leak().as_bytes(),
            Box::leak([text.as_bytes(), b"\xff"].concat().into()),
        ];
        records.map(|record| (Bytes::from_static(record), FaultCode::Invalid)).to_vec()
    }

    fn is_transactional(&self) -> bool {
        true
    }

    fn secrets(&self) -> Vec<String> {
        vec![PASSWORD.to_owned(), "another-secret".to_owned()]
    }
}

piece_sink_conformance!(Live::connect(), #[ignore = "needs the services of cargo xtask"]);
