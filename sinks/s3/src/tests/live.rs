//! Against a real store, MinIO under `cargo xtask`: the same promises, with a proxy on the way, and encryption read back.
//!
//! What lies in the bucket is read by a client of a few lines that shares no code with the sink but the connection.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use http::Request;
use hydrant_core::{FaultCode, Object, ObjectSink, ObjectSource, Verdict};
use hydrant_kit::conformance::{Breakage, ObjectWorld, folder, object};
use hydrant_kit::object_sink_conformance;
use hydrant_kit::proxy::{Fault, Proxy};
use hydrant_kit::signature::{Signer, Unsigned, amz_date};
use hydrant_outbound::{Body, Bounds, Client, Options};

use super::{Known, PATIENCE, SIZES, closed_port, keys, store};
use crate::multipart::Sizes;
use crate::{S3Sink, S3Source, Sse, StoreConfig};

/// SHA-256 of nothing.
pub(super) const NOTHING_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

struct Live {
    address: SocketAddr,
    proxy: Proxy,
    closed: SocketAddr,
    salt: u64,
    bucket: String,
    id: String,
    secret: String,
    settings: Mutex<(StoreConfig, Known)>,
}

pub(super) fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; run by cargo xtask test"))
}

impl Live {
    async fn connect() -> Self {
        let endpoint = variable("HYDRANT_TEST_S3_ENDPOINT");
        let host = endpoint.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let address = tokio::net::lookup_host(host).await.unwrap().next().unwrap();
        let proxy = Proxy::start(address).await.unwrap();
        let bucket = variable("HYDRANT_TEST_S3_BUCKET");
        let (id, secret) = (variable("HYDRANT_TEST_S3_ACCESS_KEY"), variable("HYDRANT_TEST_S3_SECRET_KEY"));
        let settings = Mutex::new((store(&bucket, proxy.address()), keys(&id, &secret)));
        let salt = RandomState::new().hash_one(0);
        Self { address, proxy, closed: closed_port().await, salt, bucket, id, secret, settings }
    }

    fn good(&self) -> (StoreConfig, Known) {
        (store(&self.bucket, self.proxy.address()), keys(&self.id, &self.secret))
    }

    fn sink_with(&self, sse: &Sse) -> S3Sink {
        let (config, secrets) = &*self.settings.lock().unwrap();
        S3Sink::with(config, sse, secrets, PATIENCE, SIZES).unwrap()
    }

    /// The answer to a request for an object, straight from the store.
    async fn fetch(&self, method: &str, key: &str) -> Result<http::Response<Bytes>> {
        let path = format!("/{}/{}", self.bucket, encode(key));
        let date = amz_date(jiff::Timestamp::now());
        let host = self.address.to_string();
        let headers = [("host", host.as_str()), ("x-amz-content-sha256", NOTHING_SHA256), ("x-amz-date", &date)];
        let unsigned = Unsigned { method, path: &path, query: "", headers: &headers, body_sha256: NOTHING_SHA256 };
        let authorization = Signer::new(&self.id, &self.secret, "us-east-1", "s3").authorization(&unsigned, &date);
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{host}{path}"))
            .header("x-amz-content-sha256", NOTHING_SHA256)
            .header("x-amz-date", &date)
            .header("authorization", authorization)
            .body(Body::Bytes(Bytes::new()))?;
        let bounds = Bounds { stall: PATIENCE.base, whole: PATIENCE.base, answer_bytes_max: 64 << 20 };
        Ok(Client::new(&Options::default())?.send(request, bounds).await?)
    }
}

/// A key in a path: everything but what never needs it is escaped, byte by byte.
pub(super) fn encode(key: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    key.bytes().map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

type Change = fn(&Live, &mut StoreConfig, &mut Known);

/// How a breakage is brought about: other settings, or a fault on the way.
enum How {
    Settings(Change),
    Way(Fault),
}

fn breakages() -> Vec<(Breakage, How)> {
    let settings = |name, code, change: Change| (Breakage::new(name, code), How::Settings(change));
    let way = |name, code, fault| (Breakage::new(name, code), How::Way(fault));
    vec![
        settings("nothing listens", FaultCode::Unreachable, |live, config, _| {
            config.endpoint = Some(format!("http://{}", live.closed));
        }),
        settings("no such bucket", FaultCode::NotFound, |_, config, _| config.bucket = "no-such-bucket".to_owned()),
        settings("unknown key id", FaultCode::Unauthenticated, |live, _, secrets| {
            *secrets = keys("AKIAUNKNOWN", &live.secret);
        }),
        settings("wrong secret", FaultCode::Unauthenticated, |live, _, secrets| {
            *secrets = keys(&live.id, "another-secret");
        }),
        way("reset in the head", FaultCode::Interrupted, Fault::ResetRequestAfter(20)),
        way("reset in the body", FaultCode::Interrupted, Fault::ResetRequestAfter(1200)),
        way("stalled after the head", FaultCode::TimedOut, Fault::StallRequestAfter(1000)),
        (Breakage::unheard("the answer is held back", FaultCode::TimedOut), How::Way(Fault::StallAnswer)),
        (Breakage::unheard("the answer is lost", FaultCode::Interrupted), How::Way(Fault::ResetAnswerAfter(0))),
    ]
}

#[async_trait]
impl ObjectWorld for Live {
    fn salt(&self) -> u64 {
        self.salt
    }

    fn sink(&self) -> Arc<dyn ObjectSink> {
        Arc::new(self.sink_with(&Sse::None))
    }

    async fn stored(&self, key: &str) -> Result<Option<Bytes>> {
        let answer = self.fetch("GET", key).await?;
        match answer.status().as_u16() {
            200 => Ok(Some(answer.into_body())),
            404 => Ok(None),
            status => anyhow::bail!("the store answered {status}"),
        }
    }

    async fn keys(&self) -> Result<Vec<String>> {
        let (config, secrets) = self.good();
        let listed = S3Source::new(&config, &secrets).unwrap().list(&folder(self.salt), None, 10_000).await?;
        Ok(listed.into_iter().map(|it| it.key).collect())
    }

    fn attempts(&self) -> Option<u64> {
        Some(self.proxy.opened())
    }

    fn breakages(&self) -> Vec<Breakage> {
        breakages().into_iter().map(|(breakage, _)| breakage).collect()
    }

    async fn break_by(&self, breakage: &Breakage) -> Result<()> {
        let found = breakages().into_iter().find(|(known, _)| known.name == breakage.name);
        match found.context("an unknown breakage")?.1 {
            How::Settings(change) => {
                let (config, secrets) = &mut *self.settings.lock().unwrap();
                change(self, config, secrets);
            }
            How::Way(fault) => self.proxy.choose(fault),
        }
        Ok(())
    }

    async fn mend(&self) -> Result<()> {
        *self.settings.lock().unwrap() = self.good();
        self.proxy.choose(Fault::None);
        Ok(())
    }

    fn unacceptable(&self) -> Vec<(Object, FaultCode)> {
        let keys = ["a/../b".to_owned(), format!("{}{}", folder(self.salt), "k".repeat(300))];
        keys.map(|key| (Object { key, ..object(self.salt, 1, 10) }, FaultCode::Invalid)).to_vec()
    }

    fn secrets(&self) -> Vec<String> {
        vec![self.secret.clone(), "another-secret".to_owned(), "AKIAUNKNOWN".to_owned()]
    }
}

object_sink_conformance!(Live::connect(), #[ignore = "needs the services of cargo xtask"]);

#[tokio::test]
#[ignore = "needs the services of cargo xtask"]
async fn the_store_says_how_it_encrypted() {
    let live = Live::connect().await;
    let key = variable("HYDRANT_TEST_S3_KMS_KEY");
    let cases =
        [(Sse::None, None, None), (Sse::S3, Some("AES256"), None), (Sse::Kms(key.clone()), Some("aws:kms"), Some(key))];
    for ((sse, mode, key), seed) in cases.into_iter().zip(1..) {
        let object = object(live.salt, seed, 1000);
        assert_eq!(live.sink_with(&sse).place(&object).await, Verdict::Delivered, "{sse:?}");
        let head = live.fetch("HEAD", &object.key).await.unwrap();
        let header = |name: &str| head.headers().get(name).map(|value| value.to_str().unwrap());
        assert_eq!(header("x-amz-server-side-encryption"), mode, "{sse:?}");
        let stored_key = header("x-amz-server-side-encryption-aws-kms-key-id");
        // The store may answer with an ARN that ends in the key's name.
        assert!(key.is_none_or(|key| stored_key.is_some_and(|stored| stored.ends_with(&key))), "{stored_key:?}");
        assert_eq!(header("content-encoding"), Some("gzip"));
    }
}

#[tokio::test]
#[ignore = "needs the services of cargo xtask"]
async fn a_key_that_is_not_there_is_the_operator_s_to_mend() {
    let live = Live::connect().await;
    let object = object(live.salt, 1, 1000);
    let verdict = live.sink_with(&Sse::Kms("no-such-key".to_owned())).place(&object).await;
    assert!(matches!(verdict, Verdict::Retry(_)), "{verdict:?}");
    assert_eq!(live.sink().place(&object).await, Verdict::Delivered);
}

#[tokio::test]
#[ignore = "needs the services of cargo xtask"]
async fn what_was_placed_is_read_back_by_the_source() -> Result<()> {
    let live = Live::connect().await;
    let metadata = vec![("intended-key".to_owned(), "a/b".to_owned())];
    let placed = Object { metadata: metadata.clone(), ..object(live.salt, 1, 700_000) };
    assert_eq!(live.sink().place(&placed).await, Verdict::Delivered);
    let (config, secrets) = live.good();
    let stored = S3Source::new(&config, &secrets).unwrap().open(&placed.key).await?;
    assert_eq!((stored.metadata, stored.body.len()), (metadata, 700_000));
    assert_eq!(stored.content_type.as_deref(), Some("application/octet-stream"));
    let part = stored.body.read_at(650_000, 100_000).await?;
    ensure!(part == placed.body.read_at(650_000, 100_000).await?, "other bytes");
    Ok(())
}

/// To be told twice that it is there is what a lost answer leads to.
#[tokio::test]
#[ignore = "needs the services of cargo xtask"]
async fn a_large_object_goes_in_parts_and_once() -> Result<()> {
    let live = Live::connect().await;
    let sizes = Sizes { whole_bytes_max: 1 << 20, part_bytes: 5 << 20 };
    let large = object(live.salt, 1, 12 << 20);
    for attempt in ["first", "after a lost answer"] {
        let (config, secrets) = live.good();
        let sink = S3Sink::with(&config, &Sse::None, &secrets, PATIENCE, sizes).unwrap();
        assert_eq!(sink.place(&large).await, Verdict::Delivered, "{attempt}");
        let stored = live.stored(&large.key).await?.context("it is there")?;
        ensure!(stored == large.body.read_at(0, usize::MAX).await?, "{attempt}: other bytes");
        let head = live.fetch("HEAD", &large.key).await?;
        assert_eq!(head.headers().get("content-encoding").unwrap(), "gzip");
        assert!(head.headers().get("etag").unwrap().to_str()?.contains("-3"), "of three parts");
        // The name of another batch's object is never taken.
        let other = Object { key: large.key.clone(), ..object(live.salt, 2, 12 << 20) };
        let verdict = sink.place(&other).await;
        assert!(matches!(&verdict, Verdict::Retry(fault) if fault.code == FaultCode::Conflict), "{verdict:?}");
    }
    Ok(())
}
