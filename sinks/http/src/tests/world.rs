//! An endpoint, the way to it, and every way in which it, or the way, can fail.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use hydrant_core::batch::Batch;
use hydrant_core::compression::{Compression, GzipLevel};
use hydrant_core::delimiter::Delimiter;
use hydrant_core::duration::TimeSpan;
use hydrant_core::{FaultCode, PieceSink};
use hydrant_kit::conformance::{Breakage, PieceWorld};
use hydrant_kit::piece_sink_conformance;
use hydrant_kit::proxy::{Fault, Proxy};
use hydrant_kit::receiver::{Answer, Form, REQUEST_ID, Receiver, Rules, Script, digest, refusal, success};

use super::{Known, SOURCE, closed_port, env, known};
use crate::{Format, HttpSink, SinkConfig};

/// What comes with each request, and must never be shown.
pub(super) const ACCESS_KEY: &str = "canary-of-an-access-key";

/// Where the answer does not come: long enough for the request to arrive on a busy machine.
const SHORT: TimeSpan = TimeSpan(Duration::from_millis(2_500));

/// Where it comes, or the connection ends.
const LONG: TimeSpan = TimeSpan(Duration::from_secs(30));

/// Longer than any check.
const PATIENT: TimeSpan = TimeSpan(Duration::from_mins(5));

/// The receiver, the way to it, and how to build what is tested.
pub(super) struct World {
    pub(super) receiver: Receiver,
    pub(super) proxy: Proxy,
    closed: SocketAddr,
    good: SinkConfig,
    settings: Mutex<(SinkConfig, Known)>,
}

impl World {
    /// An endpoint that speaks the service's protocol.
    pub(super) async fn firehose(compression: Compression) -> Self {
        let common_attributes = [("stage".to_owned(), "tëst".to_owned())];
        let rules = Rules {
            form: Form::Firehose,
            access_key: Some(ACCESS_KEY.to_owned()),
            common_attributes: common_attributes.clone().into(),
            is_gzip: Some(compression != Compression::None),
        };
        let config = SinkConfig {
            access_key: Some(env("KEY")),
            common_attributes: common_attributes.into(),
            compression,
            ..SinkConfig::to("")
        };
        Self::start(rules, config).await
    }

    /// An endpoint that takes plain requests.
    async fn plain(form: Form, format: Format) -> Self {
        let delimiter = if format == Format::Raw { Delimiter::Newline } else { Delimiter::None };
        let compression = Compression::Gzip(GzipLevel::Fast);
        let config = SinkConfig { format, delimiter, compression, ..SinkConfig::to("") };
        Self::start(Rules { form, is_gzip: Some(true), ..Rules::default() }, config).await
    }

    async fn start(rules: Rules, config: SinkConfig) -> Self {
        let receiver = Receiver::start(rules, None).await.unwrap();
        let proxy = Proxy::start(receiver.address()).await.unwrap();
        let url = format!("http://{}/ingest?from=hydrant", proxy.address());
        let good = SinkConfig { timeout: LONG, ..with_url(config, url) };
        let settings = Mutex::new((good.clone(), known(&[("KEY", ACCESS_KEY)])));
        Self { receiver, proxy, closed: closed_port().await, good, settings }
    }

    pub(super) fn sink_with(&self, change: impl FnOnce(SinkConfig) -> SinkConfig) -> HttpSink {
        let (config, secrets) = &*self.settings.lock().unwrap();
        HttpSink::new(&change(config.clone()), SOURCE, secrets).unwrap()
    }
}

fn with_url(config: SinkConfig, url: String) -> SinkConfig {
    SinkConfig { url: SinkConfig::to(url).url, ..config }
}

/// How each breakage is brought about.
#[derive(Clone, Debug)]
enum How {
    Settings(fn(&World, &mut SinkConfig, &mut Known)),
    Way(Fault),
    Endpoint(Script),
}

fn breakages(format: Format) -> Vec<(Breakage, How)> {
    let settings = |name, code, change| (Breakage::new(name, code), How::Settings(change));
    let way = |name, code, fault| (Breakage::new(name, code), How::Way(fault));
    let endpoint = |name, code, script| (Breakage::new(name, code), How::Endpoint(script));
    let unheard = |name, code, script| (Breakage::unheard(name, code), How::Endpoint(script));
    let answer = |name, code, status| endpoint(name, code, Script::Answer(refusal(status, "scripted")));
    let second = Duration::from_secs(1);
    let with_wish = |name, status, wish: &str| {
        let answer = refusal(status, "come back").header("date", "Sat, 21 Nov 2026 18:00:00 GMT");
        let code = if status == 429 { FaultCode::Throttled } else { FaultCode::Unavailable };
        let script = Script::Answer(answer.header("retry-after", wish));
        (Breakage::new(name, code).asking_for(Duration::from_secs(7)), How::Endpoint(script))
    };
    let mut breakages = vec![
        settings("nothing listens", FaultCode::Unreachable, |world, config, _| {
            *config = with_url(config.clone(), format!("http://{}/", world.closed));
        }),
        settings("no such host", FaultCode::Unreachable, |_, config, _| {
            *config = with_url(config.clone(), "http://no-such-host.invalid/".to_owned());
        }),
        settings("no TLS over there", FaultCode::Unreachable, |world, config, _| {
            *config = with_url(config.clone(), format!("https://{}/", world.proxy.address()));
        }),
        way("reset in the head", FaultCode::Interrupted, Fault::ResetRequestAfter(20)),
        way("reset in the body", FaultCode::Interrupted, Fault::ResetRequestAfter(700)),
        way("stalled after the head", FaultCode::TimedOut, Fault::StallRequestAfter(620)),
        way("one byte a second", FaultCode::TimedOut, Fault::TrickleRequest(second)),
        (Breakage::unheard("the answer is held back", FaultCode::TimedOut), How::Way(Fault::StallAnswer)),
        (Breakage::unheard("the answer is lost", FaultCode::Interrupted), How::Way(Fault::ResetAnswerAfter(0))),
        endpoint("reset before it is taken", FaultCode::Interrupted, Script::Reset),
        unheard("reset after it was taken", FaultCode::Interrupted, Script::TakeThenReset),
        endpoint("never answers", FaultCode::TimedOut, Script::Stall),
        unheard("stalls in its answer", FaultCode::TimedOut, Script::TakeThenStallAfter(40)),
        unheard("breaks off its answer", FaultCode::Interrupted, Script::TakeThenCutAfter(40)),
        unheard("answers a byte a second", FaultCode::TimedOut, Script::TakeThenTrickle(second)),
        unheard("500 after it was taken", FaultCode::Unavailable, Script::TakeThenAnswer(refusal(500, "oh"))),
        answer("400", FaultCode::Invalid, 400),
        answer("401", FaultCode::Unauthenticated, 401),
        answer("403", FaultCode::Forbidden, 403),
        answer("404", FaultCode::NotFound, 404),
        answer("429", FaultCode::Throttled, 429),
        answer("500", FaultCode::Unavailable, 500),
        answer("503", FaultCode::Unavailable, 503),
        answer("507", FaultCode::Full, 507),
        with_wish("429 with a wish", 429, "7"),
        with_wish("503 with a moment", 503, "Sat, 21 Nov 2026 18:00:07 GMT"),
        endpoint("403 before the body", FaultCode::Forbidden, Script::AnswerEarly(refusal(403, "no"))),
        endpoint("502 of a proxy", FaultCode::Unavailable, Script::Answer(Answer::status(502).body("<html>bad"))),
        endpoint(
            "elsewhere",
            FaultCode::NotFound,
            Script::Answer(Answer::status(307).header("location", "http://127.0.0.1:1/")),
        ),
        endpoint("no HTTP", FaultCode::Protocol, Script::Answer(Answer::garbage("SSH-2.0-OpenSSH_9.2\r\n\r\n"))),
        endpoint(
            "an endless answer",
            FaultCode::Protocol,
            Script::Answer(Answer::status(500).body(vec![b'x'; 2 << 20])),
        ),
        endpoint("quotes what it was sent", FaultCode::Forbidden, Script::Echo),
    ];
    if format == Format::Firehose {
        breakages.extend(of_the_service_s_protocol());
    }
    breakages
}

/// Answers that the service does not take for success.
fn of_the_service_s_protocol() -> Vec<(Breakage, How)> {
    let protocol = |name, script| (Breakage::new(name, FaultCode::Protocol), How::Endpoint(script));
    let unheard =
        |name, answer| (Breakage::unheard(name, FaultCode::Protocol), How::Endpoint(Script::TakeThenAnswer(answer)));
    let to = |status, id: &str| {
        let body = serde_json::json!({ "requestId": id, "timestamp": 1 }).to_string();
        Answer::status(status).header("content-type", "application/json").body(body)
    };
    let welcome = Answer::status(200).header("content-type", "text/html").body("<html>welcome");
    let another_key: fn(&World, &mut SinkConfig, &mut Known) =
        |_, _, secrets| *secrets = known(&[("KEY", "canary-of-another-key")]);
    vec![
        (Breakage::new("another access key", FaultCode::Unauthenticated), How::Settings(another_key)),
        protocol("200 of some other server", Script::Answer(welcome)),
        protocol("200 to another request", Script::Answer(to(200, "other"))),
        unheard("201", to(201, REQUEST_ID)),
        unheard("an empty 200", Answer::status(200)),
        unheard("two content types", success().header("content-type", "application/json")),
    ]
}

#[async_trait]
impl PieceWorld for World {
    fn sink(&self) -> Arc<dyn PieceSink> {
        Arc::new(self.sink_with(|config| config))
    }

    fn patient_sink(&self) -> Arc<dyn PieceSink> {
        Arc::new(self.sink_with(|config| SinkConfig { timeout: PATIENT, requests_in_flight: 16, ..config }))
    }

    async fn arrived(&self, batch: &Batch) -> Result<Vec<u64>> {
        let violations = self.receiver.violations();
        ensure!(violations.is_empty(), "the protocol is broken: {violations:?}");
        let Some(kept) = self.receiver.kept(&batch.id.to_string()) else { return Ok(vec![0; batch.pieces.len()]) };
        let sealed_at = batch.sealed_at.as_millis();
        ensure!(kept.timestamp.is_none_or(|timestamp| timestamp == sealed_at), "timestamp {:?}", kept.timestamp);
        let count = |digest| kept.digests.iter().filter(|kept| **kept == digest).count() as u64;
        Ok(batch.pieces.iter().map(|(_, piece)| count(digest(&piece.data))).collect())
    }

    fn attempts(&self) -> u64 {
        // What the proxy cuts short may not reach the receiver, and what meets it may share a connection.
        self.receiver.requests().max(self.proxy.opened())
    }

    /// Those that take their time are the same whatever a request holds.
    fn breakages(&self) -> Vec<Breakage> {
        let is_first = self.good.format == Format::Firehose && self.good.compression == Compression::None;
        let all = breakages(self.good.format).into_iter().map(|(breakage, _)| breakage);
        all.filter(|breakage| is_first || breakage.code != FaultCode::TimedOut).collect()
    }

    async fn break_by(&self, breakage: &Breakage) -> Result<()> {
        if breakage.code == FaultCode::TimedOut {
            self.settings.lock().unwrap().0.timeout = SHORT;
        }
        let found = breakages(self.good.format).into_iter().find(|(known, _)| known.name == breakage.name);
        match found.context("an unknown breakage")?.1 {
            How::Settings(change) => {
                let (config, secrets) = &mut *self.settings.lock().unwrap();
                change(self, config, secrets);
            }
            How::Way(fault) => self.proxy.choose(fault),
            How::Endpoint(script) => self.receiver.follow(script),
        }
        Ok(())
    }

    async fn mend(&self) -> Result<()> {
        *self.settings.lock().unwrap() = (self.good.clone(), known(&[("KEY", ACCESS_KEY)]));
        self.proxy.choose(Fault::None);
        self.receiver.follow(Script::Serve);
        Ok(())
    }

    async fn stall(&self) -> Result<()> {
        self.proxy.choose(Fault::StallAnswer);
        Ok(())
    }

    fn unacceptable(&self, text: &str) -> Vec<(Bytes, FaultCode)> {
        let long = Bytes::from(format!("\"{text}{}\"", " ".repeat(1_024_000)));
        match self.good.format {
            Format::Firehose => vec![(long, FaultCode::TooLarge)],
            Format::Ndjson | Format::JsonArray => vec![
                (Bytes::from(format!("{text} is no JSON")), FaultCode::Invalid),
                (Bytes::from(format!("{{\"a\":\"{text}\"")), FaultCode::Invalid),
                (Bytes::new(), FaultCode::Invalid),
            ],
            Format::Raw => Vec::new(),
        }
    }

    fn secrets(&self) -> Vec<String> {
        vec![ACCESS_KEY.to_owned(), "canary-of-another-key".to_owned(), "from=hydrant".to_owned()]
    }
}

mod in_the_service_s_protocol {
    use super::*;

    piece_sink_conformance!(World::firehose(Compression::None));
}

mod in_the_service_s_protocol_compressed {
    use super::*;

    piece_sink_conformance!(World::firehose(Compression::Gzip(GzipLevel::Fast)));
}

mod as_lines_of_json {
    use super::*;

    piece_sink_conformance!(World::plain(Form::Ndjson, Format::Ndjson));
}

mod as_an_array {
    use super::*;

    piece_sink_conformance!(World::plain(Form::JsonArray, Format::JsonArray));
}

mod as_lines {
    use super::*;

    piece_sink_conformance!(World::plain(Form::Lines, Format::Raw));
}
