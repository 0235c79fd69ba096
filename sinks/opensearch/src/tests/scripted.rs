//! Against the scripted server: every way in which OpenSearch, or the way to it, can fail.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use bytes::Bytes;
use hydrant_core::batch::Batch;
use hydrant_core::duration::TimeSpan;
use hydrant_core::secret::SecretRef;
use hydrant_core::{ByteSize, FaultCode, PieceSink, Verdict};
use hydrant_kit::conformance::{Breakage, PieceWorld, attempt, batch, of as batch_of};
use hydrant_kit::opensearch::{
    ACCESS_KEY_ID, API_KEY, Answer, NUMBER_FIELD, PASSWORD, REGION, SECRET_ACCESS_KEY, Script, ScriptedOpenSearch,
    USERNAME, error,
};
use hydrant_kit::piece_sink_conformance;
use hydrant_kit::proxy::{Fault, Proxy};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Known, closed_port, guarded, owed, password};
use crate::OpenSearchSink;
use crate::config::{Compression, DocumentId, Login, Rotation, Service, Sigv4, SinkConfig};

/// The server, the way to it, and how to build what is tested.
pub(super) struct Scripted {
    pub(super) server: ScriptedOpenSearch,
    pub(super) proxy: Proxy,
    closed: SocketAddr,
    good: (SinkConfig, Known),
    settings: Mutex<(SinkConfig, Known)>,
    /// Whether it is also broken in ways that only show when time is over: the same for all settings.
    is_patient: bool,
}

impl Scripted {
    pub(super) async fn start() -> Self {
        Self { is_patient: true, ..Self::with(|_| {}).await }
    }

    async fn with(change: fn(&mut SinkConfig)) -> Self {
        let server = ScriptedOpenSearch::start_guarded().await.unwrap();
        let proxy = Proxy::start(server.address()).await.unwrap();
        let mut good = guarded(proxy.address());
        change(&mut good.0);
        let settings = Mutex::new(good.clone());
        Self { server, proxy, closed: closed_port().await, good, settings, is_patient: false }
    }

    pub(super) fn new_sink(&self) -> OpenSearchSink {
        let (config, secrets) = &*self.settings.lock().unwrap();
        OpenSearchSink::new(config, secrets).unwrap()
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut SinkConfig)) {
        change(&mut self.settings.lock().unwrap().0);
    }
}

/// How each breakage is brought about.
#[derive(Clone, Debug)]
enum How {
    Settings(fn(&Scripted, &mut SinkConfig, &mut Known)),
    Way(Fault),
    Server(Script),
}

/// An error of items, which quotes the document.
fn item(kind: &str, reason: &str) -> Value {
    json!({ "type": kind, "reason": format!("{reason} [DOCUMENT] DOCUMENT") })
}

fn items_of(answer: &mut Value) -> &mut Vec<Value> {
    answer["items"].as_array_mut().unwrap()
}

fn breakages() -> Vec<(Breakage, How)> {
    let mut all = on_the_way();
    all.extend(of_requests());
    all.extend(of_items());
    all
}

fn on_the_way() -> Vec<(Breakage, How)> {
    let settings = |name, code, change| (Breakage::new(name, code), How::Settings(change));
    let way = |name, code, fault| (Breakage::new(name, code), How::Way(fault));
    let unheard = |name, code, fault| (Breakage::unheard(name, code), How::Way(fault));
    vec![
        settings("nothing listens", FaultCode::Unreachable, |world, config, _| {
            config.endpoint = format!("http://{}", world.closed);
        }),
        settings("wrong password", FaultCode::Unauthenticated, |_, _, secrets| *secrets = password("another-password")),
        way("reset in the head", FaultCode::Interrupted, Fault::ResetRequestAfter(20)),
        way("reset in the body", FaultCode::Interrupted, Fault::ResetRequestAfter(400)),
        way("stalled after the head", FaultCode::TimedOut, Fault::StallRequestAfter(400)),
        way("one byte a second", FaultCode::TimedOut, Fault::TrickleRequest(Duration::from_secs(1))),
        unheard("the answer is held back", FaultCode::TimedOut, Fault::StallAnswer),
        unheard("the answer is lost", FaultCode::Interrupted, Fault::ResetAnswerAfter(0)),
        unheard("the answer is cut in its head", FaultCode::Interrupted, Fault::ResetAnswerAfter(12)),
        unheard("the answer is cut in its items", FaultCode::Interrupted, Fault::ResetAnswerAfter(250)),
    ]
}

fn of_requests() -> Vec<(Breakage, How)> {
    let server = |name, code, script| (Breakage::new(name, code), How::Server(script));
    let unheard = |name, code, script| (Breakage::unheard(name, code), How::Server(script));
    let answer = |name, code, status, kind| server(name, code, Script::Answer(error(status, kind, "canary")));
    let busy = error(429, "circuit_breaking_exception", "too much").header("Retry-After", "7");
    let busy = (
        Breakage::new("429 with a wish", FaultCode::Throttled).asking_for(Duration::from_secs(7)),
        How::Server(Script::Answer(busy)),
    );
    let elsewhere = Answer::status(301).header("location", "http://127.0.0.1:1/");
    vec![
        server("reset before commit", FaultCode::Interrupted, Script::Reset),
        unheard("reset after commit", FaultCode::Interrupted, Script::StoreThenReset),
        server("never answers", FaultCode::TimedOut, Script::Stall),
        unheard("answers a byte a second", FaultCode::TimedOut, Script::StoreThenTrickle(Duration::from_secs(1))),
        unheard(
            "500 after commit",
            FaultCode::Unavailable,
            Script::StoreThenAnswer(error(500, "null_pointer_exception", "canary")),
        ),
        answer("400 of the request", FaultCode::Invalid, 400, "illegal_argument_exception"),
        answer("401", FaultCode::Unauthenticated, 401, "security_exception"),
        answer("403", FaultCode::Forbidden, 403, "security_exception"),
        answer("403 of a block", FaultCode::Forbidden, 403, "cluster_block_exception"),
        answer("404", FaultCode::NotFound, 404, "index_not_found_exception"),
        answer("429", FaultCode::Throttled, 429, "rejected_execution_exception"),
        busy,
        answer("503 without a leader", FaultCode::Unavailable, 503, "master_not_discovered_exception"),
        answer("503 of a block", FaultCode::Unavailable, 503, "cluster_block_exception"),
        answer("503 of a breaker", FaultCode::Throttled, 503, "circuit_breaking_exception"),
        answer("507", FaultCode::Full, 507, "insufficient_storage"),
        server("403 before the body", FaultCode::Forbidden, Script::AnswerEarly(error(403, "security_exception", ""))),
        server("502 of a proxy", FaultCode::Unavailable, Script::Answer(Answer::status(502).body("<html>bad gateway"))),
        server("413 of a proxy", FaultCode::TooLarge, Script::Answer(Answer::status(413).body("<html>too large"))),
        server("elsewhere", FaultCode::NotFound, Script::Answer(elsewhere)),
        server(
            "200 of some other server",
            FaultCode::Protocol,
            Script::Answer(Answer::status(200).body("<html>hello")),
        ),
        server("no HTTP", FaultCode::Protocol, Script::Answer(Answer::garbage("SSH-2.0-OpenSSH_9.2\r\n\r\n"))),
        server("an endless answer", FaultCode::Protocol, Script::Answer(Answer::status(200).body(vec![b' '; 2 << 20]))),
        server("quotes what it was sent", FaultCode::Forbidden, Script::Echo),
        unheard(
            "an item is missing",
            FaultCode::Protocol,
            Script::StoreThenEdit(|answer| drop(items_of(answer).remove(1))),
        ),
        unheard(
            "an item is there twice",
            FaultCode::Protocol,
            Script::StoreThenEdit(|answer| {
                let last = items_of(answer).last().cloned();
                items_of(answer).extend(last);
            }),
        ),
        unheard("items in another order", FaultCode::Protocol, Script::StoreThenEdit(|it| items_of(it).reverse())),
        unheard(
            "an item of another request",
            FaultCode::Protocol,
            Script::StoreThenEdit(|answer| items_of(answer)[0]["create"]["_id"] = "x".into()),
        ),
    ]
}

fn of_items() -> Vec<(Breakage, How)> {
    let fail = |one_in, status, error| How::Server(Script::FailEach { one_in, status, error });
    let some = |name, code, status, error| (Breakage::in_part(name, code), fail(3, status, error));
    let every = |name, code, status, error| (Breakage::new(name, code), fail(1, status, error));
    vec![
        some("some items rejected", FaultCode::Throttled, 429, item("rejected_execution_exception", "rejected")),
        some("some shards missing", FaultCode::Unavailable, 503, item("unavailable_shards_exception", "not active")),
        some("some items of an unknown error", FaultCode::Protocol, 400, item("something_new_exception", "who knows")),
        every(
            "every index read-only",
            FaultCode::Full,
            403,
            item("cluster_block_exception", "blocked by: [FORBIDDEN/12/index read-only / allow delete (api)];"),
        ),
        every("every index blocked", FaultCode::Forbidden, 403, item("cluster_block_exception", "blocked by: [x];")),
        every("every index closed", FaultCode::Forbidden, 400, item("index_closed_exception", "closed")),
        every("no index made", FaultCode::NotFound, 404, item("index_not_found_exception", "no such index [web]")),
        every("no rights to any index", FaultCode::Forbidden, 403, item("security_exception", "no permissions")),
        every(
            "an alias without a write index",
            FaultCode::Invalid,
            400,
            item("illegal_argument_exception", "no write index is defined for alias [web]"),
        ),
        every(
            "too many shards",
            FaultCode::Full,
            400,
            item("validation_exception", "would add [2] total shards, but this cluster has [1]/[1]"),
        ),
    ]
}

#[async_trait]
impl PieceWorld for Scripted {
    fn sink(&self) -> Arc<dyn PieceSink> {
        Arc::new(self.new_sink())
    }

    fn patient_sink(&self) -> Arc<dyn PieceSink> {
        let (config, secrets) = &*self.settings.lock().unwrap();
        let patient = SinkConfig { timeout: TimeSpan(Duration::from_mins(5)), ..config.clone() };
        Arc::new(OpenSearchSink::new(&patient, secrets).unwrap())
    }

    async fn arrived(&self, batch: &Batch) -> Result<Vec<u64>> {
        let mut counts = HashMap::<Bytes, u64>::new();
        for (_, source) in self.server.documents() {
            *counts.entry(source).or_default() += 1;
        }
        let of = |data: &Bytes| counts.get(data).copied().unwrap_or_default();
        Ok(batch.pieces.iter().map(|(_, piece)| of(&piece.data)).collect())
    }

    fn attempts(&self) -> u64 {
        // What the proxy cuts short may not reach the server, and what meets the server may share a connection.
        self.server.requests().max(self.proxy.opened())
    }

    fn breakages(&self) -> Vec<Breakage> {
        // What an answer gets wrong about ids shows only where they are ours.
        let is_stable = self.good.0.document_id == DocumentId::Stable;
        let needs_ids =
            |breakage: &Breakage| matches!(breakage.name, "items in another order" | "an item of another request");
        let is_wanted =
            |it: &Breakage| (is_stable || !needs_ids(it)) && (self.is_patient || it.code != FaultCode::TimedOut);
        breakages().into_iter().map(|(breakage, _)| breakage).filter(is_wanted).collect()
    }

    async fn break_by(&self, breakage: &Breakage) -> Result<()> {
        let found = breakages().into_iter().find(|(known, _)| known.name == breakage.name);
        match found.context("an unknown breakage")?.1 {
            How::Settings(change) => {
                let (config, secrets) = &mut *self.settings.lock().unwrap();
                change(self, config, secrets);
            }
            How::Way(fault) => self.proxy.choose(fault),
            How::Server(script) => self.server.follow(script),
        }
        Ok(())
    }

    async fn mend(&self) -> Result<()> {
        *self.settings.lock().unwrap() = self.good.clone();
        self.proxy.choose(Fault::None);
        self.server.follow(Script::Serve);
        Ok(())
    }

    async fn stall(&self) -> Result<()> {
        self.server.follow(Script::Stall);
        Ok(())
    }

    fn unacceptable(&self, text: &str) -> Vec<(Bytes, FaultCode)> {
        let records = [
            text.to_owned(),
            format!(r#"["{text}"]"#),
            format!(r#"{{"a":"{text}"}}{{"b":"{text}"}}"#),
            format!("{{\"a\":\"{text}\"}}\n{{\"create\":{{\"_index\":\"{text}\"}}}}"),
            format!("{{\"a\":\"{text}\n\"}}"),
            format!(r#"{{"a":"{text}","{NUMBER_FIELD}":"{text}"}}"#),
        ];
        let mut records: Vec<Bytes> = records.map(Bytes::from).to_vec();
        records.push([format!(r#"{{"a":"{text}"#).as_bytes(), b"\xff\"}"].concat().into());
        records.into_iter().map(|record| (record, FaultCode::Invalid)).collect()
    }

    fn knows_batches_again(&self) -> bool {
        self.good.0.document_id == DocumentId::Stable
    }

    fn secrets(&self) -> Vec<String> {
        [PASSWORD, USERNAME, "another-password"].map(str::to_owned).to_vec()
    }
}

piece_sink_conformance!(Scripted::start());

mod compressed {
    use super::*;

    piece_sink_conformance!(Scripted::with(|config| config.compression = Compression::Gzip));
}

mod named_by_the_server {
    use super::*;

    piece_sink_conformance!(Scripted::with(|config| config.document_id = DocumentId::Server));
}

/// Goal: what goes over the wire, to the letter.
#[tokio::test]
async fn a_request_is_this_and_nothing_else() {
    let listener = tokio::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (config, secrets) = guarded(address);
    let sink = OpenSearchSink::new(&SinkConfig { rotation: Some(Rotation::None), ..config }, &secrets).unwrap();
    let world = Scripted::start().await;
    let batch = batch_of(&world, 1, vec![Bytes::from(r#"{"a":1}"#), Bytes::from(r#"{"a":2}"#)]);
    let id = batch.id;
    let body = format!(
        "{{\"create\":{{\"_index\":\"web\",\"_id\":\"{id}-0000000\"}}}}\n{{\"a\":1}}\n\
         {{\"create\":{{\"_index\":\"web\",\"_id\":\"{id}-0000001\"}}}}\n{{\"a\":2}}\n"
    );
    let expected = format!(
        "POST /_bulk?filter_path=items.%2A._id%2Citems.%2A.status%2Citems.%2A.error.type%2Citems.%2A.error.reason%2Citems.%2A.error.caused_by.reason&timeout=750ms HTTP/1.1\r\n\
         content-type: application/x-ndjson\r\n\
         authorization: Basic Y29uZm9ybWFuY2UtdXNlcjpjb25mb3JtYW5jZS1wYXNzd29yZA==\r\n\
         content-length: {}\r\naccept: */*\r\nuser-agent: hydrant/{}\r\nhost: {address}\r\n\r\n{body}",
        body.len(),
        env!("CARGO_PKG_VERSION"),
    );
    let server = async {
        let (mut connection, _) = listener.accept().await.unwrap();
        let mut request = vec![0; expected.len()];
        connection.read_exact(&mut request).await.unwrap();
        connection.write_all(b"HTTP/1.1 503 x\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        String::from_utf8(request).unwrap()
    };
    let (request, verdicts) = tokio::join!(server, attempt(&sink, &batch));
    let sorted = |request: &str| {
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        let mut lines: Vec<String> = head.split("\r\n").map(str::to_owned).collect();
        lines[1..].sort();
        (lines, body.to_owned())
    };
    assert_eq!(sorted(&request), sorted(&expected));
    assert_eq!(owed(&verdicts.unwrap()), [0, 1]);
}

#[tokio::test]
async fn an_api_key_is_sent_as_elasticsearch_wants_it() {
    let world = Scripted::start().await;
    world.change(|config| config.login = Login::ApiKey(SecretRef::Env("KEY".to_owned())));
    world.settings.lock().unwrap().1 = Known([("KEY", API_KEY.to_owned())].into());
    let verdicts = attempt(&world.new_sink(), &batch(&world, 1, 2, 100)).await.unwrap();
    assert!(verdicts.values().all(|verdict| *verdict == Verdict::Delivered), "{verdicts:?}");
}

#[tokio::test]
async fn a_request_is_signed_with_a_key_of_aws() {
    let world = Scripted::start().await;
    let sigv4 = |secret: &str| {
        world.settings.lock().unwrap().1 =
            Known([("ID", ACCESS_KEY_ID.to_owned()), ("SECRET", secret.to_owned())].into());
        world.change(|config| {
            config.login = Login::Sigv4(Sigv4 {
                region: REGION.to_owned(),
                service: Service::Es,
                access_key_id: Some(SecretRef::Env("ID".to_owned())),
                secret_access_key: Some(SecretRef::Env("SECRET".to_owned())),
                session_token: None,
                profile: None,
            });
        });
        world.new_sink()
    };
    // More than is hashed at once, and in a form that the sink makes itself.
    for compression in [Compression::None, Compression::Gzip] {
        world.change(|config| config.compression = compression);
        let verdicts = attempt(&sigv4(SECRET_ACCESS_KEY), &batch(&world, 1, 100, 10_000)).await.unwrap();
        assert!(verdicts.values().all(|verdict| *verdict == Verdict::Delivered), "{verdicts:?}");
    }
    let verdicts = attempt(&sigv4("another-secret"), &batch(&world, 2, 2, 100)).await.unwrap();
    let code = |verdict: &Verdict| matches!(verdict, Verdict::Retry(fault) if fault.code == FaultCode::Unauthenticated);
    assert!(verdicts.values().all(code), "{verdicts:?}");
}

#[tokio::test]
async fn a_compressed_request_is_smaller_and_says_the_same() {
    let world = Scripted::with(|config| config.compression = Compression::Gzip).await;
    let batch = batch(&world, 1, 50, 500);
    let verdicts = attempt(&world.new_sink(), &batch).await.unwrap();
    assert!(verdicts.values().all(|verdict| *verdict == Verdict::Delivered), "{verdicts:?}");
    assert_eq!(world.arrived(&batch).await.unwrap(), vec![1; 50]);
    let sent = world.server.last_body().unwrap().len();
    assert!(sent < 50 * 500 / 4, "{sent} bytes");
}

#[tokio::test]
async fn what_failed_is_sent_again_and_nothing_else() {
    let world = Scripted::start().await;
    let error = item("rejected_execution_exception", "rejected");
    world.server.follow(Script::FailEach { one_in: 3, status: 429, error });
    let mut batch = batch(&world, 1, 10, 100);
    let verdicts = attempt(&world.new_sink(), &batch).await.unwrap();
    assert_eq!(owed(&verdicts), [1, 4, 7]);
    world.server.follow(Script::Serve);
    batch.pieces.retain(|(ordinal, _)| owed(&verdicts).contains(ordinal));
    let verdicts = attempt(&world.new_sink(), &batch).await.unwrap();
    assert!(verdicts.values().all(|verdict| *verdict == Verdict::Delivered), "{verdicts:?}");
    let body = world.server.last_body().unwrap();
    assert_eq!(body.split(|byte| *byte == b'\n').count(), 3 * 2 + 1, "three documents");
}

/// Nothing else can be done about it: the record is too long for this cluster, however it is sent.
#[tokio::test]
async fn a_single_record_that_is_too_long_is_refused() {
    let world = Scripted::start().await;
    world.server.follow(Script::Answer(Answer::status(413)));
    let verdicts = attempt(&world.new_sink(), &batch(&world, 1, 1, 100)).await.unwrap();
    assert!(matches!(&verdicts[&0], Verdict::Refused(fault) if fault.code == FaultCode::TooLarge), "{verdicts:?}");
    let verdicts = attempt(&world.new_sink(), &batch(&world, 2, 2, 100)).await.unwrap();
    assert_eq!(owed(&verdicts), [0, 1], "of several, nobody knows which");
}

#[tokio::test]
async fn a_lower_limit_holds_for_batches_that_were_sealed_before() {
    let world = Scripted::start().await;
    world.change(|config| config.body_max = ByteSize::bytes(350));
    let whole = batch(&world, 1, 10, 100);
    let mut rest = whole.clone();
    for attempts in 1.. {
        let verdicts = attempt(&world.new_sink(), &rest).await.unwrap();
        rest.pieces.retain(|(ordinal, _)| owed(&verdicts).contains(ordinal));
        assert!(attempts <= 10, "it ends");
        if rest.pieces.is_empty() {
            assert!(attempts > 1, "it does not fit into one request");
            break;
        }
    }
    assert_eq!(world.arrived(&whole).await.unwrap(), vec![1; 10]);
}

#[tokio::test]
async fn records_the_server_names_are_there_as_often_as_they_are_sent() {
    let world = Scripted::with(|config| config.document_id = DocumentId::Server).await;
    let batch = batch(&world, 1, 2, 100);
    for count in 1..=2 {
        let verdicts = attempt(&world.new_sink(), &batch).await.unwrap();
        assert!(verdicts.values().all(|verdict| *verdict == Verdict::Delivered), "{verdicts:?}");
        assert_eq!(world.arrived(&batch).await.unwrap(), [count; 2]);
    }
}
