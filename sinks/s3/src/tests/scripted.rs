//! Against the scripted server: every way in which S3, or the way to it, can fail.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use bytes::Bytes;
use hydrant_core::{FaultCode, Object, ObjectSink, ObjectSource, Verdict};
use hydrant_kit::conformance::{Breakage, ObjectWorld, object};
use hydrant_kit::object_sink_conformance;
use hydrant_kit::proxy::{Fault, Proxy};
use hydrant_kit::s3::{ACCESS_KEY_ID, Answer, BUCKET, OBJECT_BYTES_MAX, SECRET_ACCESS_KEY, Script, ScriptedS3, Step};

use super::{Known, PATIENCE, SIZES, closed_port, keys, store};
use crate::multipart::Sizes;
use crate::{S3Sink, S3Source, Sse, StoreConfig};

/// The server, the way to it, and how to build what is tested.
pub(super) struct Scripted {
    pub(super) server: ScriptedS3,
    proxy: Proxy,
    closed: SocketAddr,
    settings: Mutex<(StoreConfig, Known)>,
    sizes: Sizes,
    /// Where an upload meets what the script has for it.
    step: Step,
}

impl Scripted {
    async fn start() -> Self {
        Self::with(SIZES, Step::Put).await
    }

    /// A world of objects that go in parts.
    pub(super) async fn in_parts() -> Self {
        Self::with(Sizes { whole_bytes_max: 100, part_bytes: 256 << 10 }, Step::Complete).await
    }

    async fn with(sizes: Sizes, step: Step) -> Self {
        let server = ScriptedS3::start().await.unwrap();
        let proxy = Proxy::start(server.address()).await.unwrap();
        let settings = Mutex::new(good(&proxy));
        Self { server, proxy, closed: closed_port().await, settings, sizes, step }
    }

    pub(super) fn sink_with(&self, sse: &Sse) -> S3Sink {
        let (config, secrets) = &*self.settings.lock().unwrap();
        S3Sink::with(config, sse, secrets, PATIENCE, self.sizes).unwrap()
    }

    fn source(&self) -> S3Source {
        let (config, secrets) = &*self.settings.lock().unwrap();
        S3Source::new(config, secrets).unwrap()
    }
}

fn good(proxy: &Proxy) -> (StoreConfig, Known) {
    (store(BUCKET, proxy.address()), keys(ACCESS_KEY_ID, SECRET_ACCESS_KEY))
}

/// How each breakage is brought about.
#[derive(Clone, Debug)]
enum How {
    Settings(fn(&Scripted, &mut StoreConfig, &mut Known)),
    Way(Fault),
    Server(Script),
}

fn breakages() -> Vec<(Breakage, How)> {
    let settings = |name, code, change| (Breakage::new(name, code), How::Settings(change));
    let way = |name, code, fault| (Breakage::new(name, code), How::Way(fault));
    let server = |name, code, script| (Breakage::new(name, code), How::Server(script));
    let unheard = |name, code, script| (Breakage::unheard(name, code), How::Server(script));
    let answer = |name, code, status, error| server(name, code, Script::Answer(Answer::error(status, error)));
    let second = Duration::from_secs(1);
    let slow_down = Answer::error(503, "SlowDown").header("Retry-After", "7");
    let slow_down = (
        Breakage::new("503 SlowDown with a wish", FaultCode::Throttled).asking_for(Duration::from_secs(7)),
        How::Server(Script::Answer(slow_down)),
    );
    let elsewhere = Answer::error(301, "PermanentRedirect").header("location", "http://127.0.0.1:1/");
    vec![
        settings("nothing listens", FaultCode::Unreachable, |world, config, _| {
            config.endpoint = Some(format!("http://{}", world.closed));
        }),
        settings("no such bucket", FaultCode::NotFound, |_, config, _| config.bucket = "missing".to_owned()),
        settings("unknown key id", FaultCode::Unauthenticated, |_, _, secrets| {
            *secrets = keys("AKIAUNKNOWN", SECRET_ACCESS_KEY);
        }),
        settings("wrong secret", FaultCode::Unauthenticated, |_, _, secrets| {
            *secrets = keys(ACCESS_KEY_ID, "another-secret");
        }),
        way("reset in the head", FaultCode::Interrupted, Fault::ResetRequestAfter(20)),
        way("reset in the body", FaultCode::Interrupted, Fault::ResetRequestAfter(1200)),
        way("stalled after the head", FaultCode::TimedOut, Fault::StallRequestAfter(1000)),
        way("one byte a second", FaultCode::TimedOut, Fault::TrickleRequest(second)),
        (Breakage::unheard("the answer is held back", FaultCode::TimedOut), How::Way(Fault::StallAnswer)),
        (Breakage::unheard("the answer is lost", FaultCode::Interrupted), How::Way(Fault::ResetAnswerAfter(0))),
        (Breakage::unheard("the answer is cut", FaultCode::Interrupted), How::Way(Fault::ResetAnswerAfter(12))),
        server("reset before commit", FaultCode::Interrupted, Script::Reset),
        unheard("reset after commit", FaultCode::Interrupted, Script::StoreThenReset),
        server("never answers", FaultCode::TimedOut, Script::Stall),
        unheard("answers a byte a second", FaultCode::TimedOut, Script::StoreThenTrickle(second)),
        unheard(
            "500 after commit",
            FaultCode::Unavailable,
            Script::StoreThenAnswer(Answer::error(500, "InternalError")),
        ),
        answer("400 of no known kind", FaultCode::Protocol, 400, "SomethingNew"),
        answer("400 ExpiredToken", FaultCode::Unauthenticated, 400, "ExpiredToken"),
        answer("403 AccessDenied", FaultCode::Forbidden, 403, "AccessDenied"),
        answer("404 NoSuchBucket", FaultCode::NotFound, 404, "NoSuchBucket"),
        answer("409 of two at once", FaultCode::Conflict, 409, "ConditionalRequestConflict"),
        answer("429", FaultCode::Throttled, 429, "TooManyRequests"),
        answer("500", FaultCode::Unavailable, 500, "InternalError"),
        answer("503 SlowDown", FaultCode::Throttled, 503, "SlowDown"),
        slow_down,
        answer("507", FaultCode::Full, 507, "XMinioStorageFull"),
        server("403 before the body", FaultCode::Forbidden, Script::AnswerEarly(Answer::error(403, "AccessDenied"))),
        server("502 of a proxy", FaultCode::Unavailable, Script::Answer(Answer::status(502).body("<html>bad gateway"))),
        server("413 of a proxy", FaultCode::TooLarge, Script::Answer(Answer::status(413).body("<html>too large"))),
        server("elsewhere", FaultCode::NotFound, Script::Answer(elsewhere)),
        server(
            "200 of some other server",
            FaultCode::Protocol,
            Script::Answer(Answer::status(200).body("<html>welcome")),
        ),
        server("no HTTP", FaultCode::Protocol, Script::Answer(Answer::garbage("SSH-2.0-OpenSSH_9.2\r\n\r\n"))),
        server("an endless answer", FaultCode::Protocol, Script::Answer(Answer::status(500).body(vec![b'x'; 2 << 20]))),
        server("quotes what it was sent", FaultCode::Forbidden, Script::Echo),
    ]
}

#[async_trait]
impl ObjectWorld for Scripted {
    fn sink(&self) -> Arc<dyn ObjectSink> {
        Arc::new(self.sink_with(&Sse::None))
    }

    async fn stored(&self, key: &str) -> Result<Option<Bytes>> {
        Ok(self.server.object(key).map(|object| object.bytes))
    }

    async fn keys(&self) -> Result<Vec<String>> {
        Ok(self.server.keys())
    }

    fn attempts(&self) -> Option<u64> {
        // What the proxy cuts short may not reach the server, and what meets the server may share a connection. The
        // requests of one upload in parts are one attempt.
        let opened = if self.step == Step::Put { self.proxy.opened() } else { 0 };
        Some(self.server.uploads().max(opened))
    }

    async fn writes(&self, key: &str) -> Result<Option<u64>> {
        Ok(self.server.object(key).map(|object| object.writes))
    }

    /// Those on the way strike whichever request comes first, which in an upload in parts decides nothing.
    fn breakages(&self) -> Vec<Breakage> {
        let strikes = |how: &How| self.step == Step::Put || !matches!(how, How::Way(_));
        breakages().into_iter().filter(|(_, how)| strikes(how)).map(|(breakage, _)| breakage).collect()
    }

    async fn break_by(&self, breakage: &Breakage) -> Result<()> {
        let found = breakages().into_iter().find(|(known, _)| known.name == breakage.name);
        match found.context("an unknown breakage")?.1 {
            How::Settings(change) => {
                let (config, secrets) = &mut *self.settings.lock().unwrap();
                change(self, config, secrets);
            }
            How::Way(fault) => self.proxy.choose(fault),
            How::Server(script) => self.server.follow_at(self.step, script),
        }
        Ok(())
    }

    async fn mend(&self) -> Result<()> {
        *self.settings.lock().unwrap() = good(&self.proxy);
        self.proxy.choose(Fault::None);
        self.server.follow(Script::Serve);
        Ok(())
    }

    fn unacceptable(&self) -> Vec<(Object, FaultCode)> {
        let keys = ["", "/a", "a//b", "a/../b", "a\nb", &"k".repeat(1025)];
        let mut objects =
            keys.map(|key| (Object { key: key.to_owned(), ..object(0, 1, 10) }, FaultCode::Invalid)).to_vec();
        objects.push((object(0, 2, OBJECT_BYTES_MAX + 1), FaultCode::TooLarge));
        objects
    }

    fn secrets(&self) -> Vec<String> {
        [SECRET_ACCESS_KEY, ACCESS_KEY_ID, "another-secret", "AKIAUNKNOWN"].map(str::to_owned).to_vec()
    }
}

object_sink_conformance!(Scripted::start());

#[tokio::test]
async fn an_object_comes_with_its_type_encoding_and_metadata() {
    let world = Scripted::start().await;
    let metadata = vec![("intended-key".to_owned(), "a/b".to_owned())];
    let object = Object { metadata, ..object(0, 1, 10) };
    assert_eq!(world.sink().place(&object).await, Verdict::Delivered);
    let stored = world.server.object(&object.key).unwrap();
    for (name, value) in [
        ("content-type", Some("application/octet-stream")),
        ("content-encoding", Some("gzip")),
        ("content-length", Some("10")),
        ("x-amz-meta-intended-key", Some("a/b")),
        ("if-none-match", Some("*")),
        ("x-amz-server-side-encryption", None),
    ] {
        assert_eq!(stored.header(name), value, "{name}");
    }
}

#[tokio::test]
async fn encryption_is_asked_for_with_each_object() {
    let world = Scripted::start().await;
    let cases = [(Sse::S3, "AES256", None), (Sse::Kms("alias/k".to_owned()), "aws:kms", Some("alias/k"))];
    for ((sse, mode, key), seed) in cases.into_iter().zip(1..) {
        let object = object(0, seed, 10);
        assert_eq!(world.sink_with(&sse).place(&object).await, Verdict::Delivered);
        let stored = world.server.object(&object.key).unwrap();
        assert_eq!(stored.header("x-amz-server-side-encryption"), Some(mode));
        assert_eq!(stored.header("x-amz-server-side-encryption-aws-kms-key-id"), key);
    }
}

#[tokio::test]
async fn a_store_without_conditional_writes_is_found_out_once_and_overwritten_from_then_on() {
    let world = Scripted::start().await;
    world.server.follow(Script::Unconditional);
    let sink = world.sink();
    let first = sink.place(&object(0, 1, 10)).await;
    assert!(matches!(&first, Verdict::Retry(fault) if fault.code == FaultCode::Unavailable), "{first:?}");
    for seed in [1, 2, 2] {
        assert_eq!(sink.place(&object(0, seed, 10)).await, Verdict::Delivered);
    }
    assert_eq!(world.server.uploads(), 4, "each attempt is one request");
    let twice = world.server.object(&object(0, 2, 10).key).unwrap();
    assert_eq!((twice.header("if-none-match"), twice.writes), (None, 2));
}

#[tokio::test]
async fn a_store_that_lacks_something_else_is_asked_with_the_condition_again() {
    let world = Scripted::start().await;
    let sink = world.sink();
    world.server.follow(Script::Answer(Answer::error(501, "NotImplemented")));
    for _ in 0..2 {
        assert!(matches!(sink.place(&object(0, 1, 10)).await, Verdict::Retry(_)));
    }
    world.server.follow(Script::Serve);
    assert_eq!(sink.place(&object(0, 1, 10)).await, Verdict::Delivered);
    let stored = world.server.object(&object(0, 1, 10).key).unwrap();
    assert_eq!(stored.header("if-none-match"), Some("*"), "the condition was not what it lacked");
}

#[tokio::test]
async fn a_bucket_is_read_back_page_by_page_and_object_by_range() {
    let world = Scripted::start().await;
    let objects: Vec<Object> = (0..23).map(|seed| object(0, seed, 3000)).collect();
    for object in &objects {
        assert_eq!(world.sink().place(object).await, Verdict::Delivered);
    }
    let source = world.source();
    let mut listed = Vec::new();
    loop {
        let after = listed.last().cloned();
        let page = source.list("conformance/", after.as_deref(), 5).await.unwrap();
        assert!(page.iter().all(|it| it.len == 3000));
        listed.extend(page.iter().map(|it| it.key.clone()));
        if page.len() < 5 {
            break;
        }
    }
    assert_eq!(listed, world.server.keys());
    assert_eq!(source.list("nothing", None, 5).await.unwrap(), []);

    let stored = source.open(&objects[0].key).await.unwrap();
    assert_eq!(stored.content_encoding.as_deref(), Some("gzip"));
    for (offset, len) in [(0, 3000), (1, 1), (2990, 100), (3000, 1)] {
        let expected = objects[0].body.read_at(offset, len).await.unwrap();
        assert_eq!(stored.body.read_at(offset, len).await.unwrap(), expected, "{offset} {len}");
    }
    assert_eq!(source.open("missing").await.unwrap_err().code, FaultCode::NotFound);
}

#[tokio::test]
async fn the_two_versions_of_an_object_are_never_read_as_one() {
    let world = Scripted::start().await;
    let first = object(0, 1, 1000);
    world.sink().place(&first).await;
    let stored = world.source().open(&first.key).await.unwrap();
    world.server.follow(Script::Unconditional);
    let sink = world.sink();
    for _ in 0..2 {
        sink.place(&Object { key: first.key.clone(), ..object(0, 2, 1000) }).await;
    }
    assert!(stored.body.read_at(0, 10).await.is_err());
}
