//! Against a real store over TLS: encryption with a key that the store does not keep, and an authority of our own.
//!
//! What lies in the bucket is read by a client of a few lines that shares no code with the sink but the connection.

use std::path::PathBuf;

use anyhow::Result;
use bytes::Bytes;
use http::{Request, Response};
use hydrant_core::secret::SecretRef;
use hydrant_core::{FaultCode, Object, ObjectSink, ObjectSource, Verdict};
use hydrant_kit::conformance::object;
use hydrant_kit::signature::{Signer, Unsigned, amz_date};
use hydrant_outbound::{Body, Bounds, Client, Options};

use super::live::{NOTHING_SHA256, encode, variable};
use super::{Known, PATIENCE, keys};
use crate::config::CustomerEncryption;
use crate::multipart::Sizes;
use crate::{S3Sink, S3Source, Sse, StoreConfig};

/// The key of the objects, base64 of 32 bytes, and the base64 of its MD5.
const KEY: &str = "aHlkcmFudCB0ZXN0IGtleSwgZ3VhcmRzIG5vdGhpbmc=";
const KEY_MD5: &str = "AdhR4+hMrnZoUu+RwsV8ag==";

/// Another one.
const WRONG_KEY: &str = "aHlkcmFudCB0ZXN0IGtleSwgZ3VhcmRzIG5vdGhpbmg=";

/// As small as the store takes.
const SIZES: Sizes = Sizes { whole_bytes_max: 1 << 20, part_bytes: 5 << 20 };

fn store(key: &str) -> (StoreConfig, Known) {
    let reference = |name: &str| Some(SecretRef::Env(name.to_owned()));
    let config = StoreConfig {
        bucket: variable("HYDRANT_TEST_S3_BUCKET"),
        endpoint: Some(variable("HYDRANT_TEST_S3_TLS_ENDPOINT")),
        ca_file: Some(variable("HYDRANT_TEST_S3_TLS_CA")),
        access_key_id: reference("ID"),
        secret_access_key: reference("SECRET"),
        encryption: Some(CustomerEncryption { customer_key: SecretRef::Env("KEY".to_owned()) }),
        ..StoreConfig::default()
    };
    let Known(mut known) = keys(&variable("HYDRANT_TEST_S3_ACCESS_KEY"), &variable("HYDRANT_TEST_S3_SECRET_KEY"));
    known.insert("KEY", key.to_owned());
    (config, Known(known))
}

fn sink((config, secrets): &(StoreConfig, Known)) -> S3Sink {
    S3Sink::with(config, &Sse::None, secrets, PATIENCE, SIZES).unwrap()
}

/// The answer to a request for an object, with a key or without.
async fn fetch(key: &str, customer: Option<(&str, &str)>) -> Result<Response<Bytes>> {
    let endpoint = variable("HYDRANT_TEST_S3_TLS_ENDPOINT");
    let host = endpoint.trim_start_matches("https://");
    let path = format!("/{}/{}", variable("HYDRANT_TEST_S3_BUCKET"), encode(key));
    let date = amz_date(jiff::Timestamp::now());
    let mut headers = vec![("host", host), ("x-amz-content-sha256", NOTHING_SHA256), ("x-amz-date", &date)];
    if let Some((key, md5)) = customer {
        headers.push(("x-amz-server-side-encryption-customer-algorithm", "AES256"));
        headers.push(("x-amz-server-side-encryption-customer-key", key));
        headers.push(("x-amz-server-side-encryption-customer-key-md5", md5));
    }
    let unsigned = Unsigned { method: "GET", path: &path, query: "", headers: &headers, body_sha256: NOTHING_SHA256 };
    let (id, secret) = (variable("HYDRANT_TEST_S3_ACCESS_KEY"), variable("HYDRANT_TEST_S3_SECRET_KEY"));
    let authorization = Signer::new(&id, &secret, "us-east-1", "s3").authorization(&unsigned, &date);
    let mut request = Request::get(format!("{endpoint}{path}")).header("authorization", authorization);
    for (name, value) in headers.into_iter().filter(|(name, _)| *name != "host") {
        request = request.header(name, value);
    }
    let options = Options { ca_file: Some(PathBuf::from(variable("HYDRANT_TEST_S3_TLS_CA"))), ..Options::default() };
    let bounds = Bounds { stall: PATIENCE.base, whole: PATIENCE.base, answer_bytes_max: 64 << 20 };
    Ok(Client::new(&options)?.send(request.body(Body::Bytes(Bytes::new()))?, bounds).await?)
}

async fn bytes_of(object: &Object) -> Bytes {
    object.body.read_at(0, usize::MAX).await.unwrap()
}

#[tokio::test]
#[ignore = "needs the services of cargo xtask"]
async fn what_is_encrypted_with_our_key_is_read_with_it_and_not_without() -> Result<()> {
    let salt = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0);
    let store = store(KEY);
    // In one request, and in two parts.
    for (len, seed) in [(1000, 1), (6 << 20, 2)] {
        let object = object(salt, seed, len);
        assert_eq!(sink(&store).place(&object).await, Verdict::Delivered, "{len} bytes");
        assert_eq!(sink(&store).place(&object).await, Verdict::Delivered, "{len} bytes, again");

        let read = fetch(&object.key, Some((KEY, KEY_MD5))).await?;
        assert!(read.status() == 200 && *read.body() == bytes_of(&object).await, "{len} bytes: {}", read.status());
        let refused = fetch(&object.key, None).await?;
        assert_eq!(refused.status(), 400, "{len} bytes, without the key");

        let source = S3Source::new(&store.0, &store.1).unwrap();
        let stored = source.open(&object.key).await?;
        assert!(stored.body.read_at(0, len).await? == bytes_of(&object).await, "{len} bytes, by the source");
    }
    Ok(())
}

#[tokio::test]
#[ignore = "needs the services of cargo xtask"]
async fn another_key_reads_nothing() -> Result<()> {
    let salt = std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0);
    let object = object(salt, 1, 1000);
    assert_eq!(sink(&store(KEY)).place(&object).await, Verdict::Delivered);
    let (config, secrets) = store(WRONG_KEY);
    assert!(S3Source::new(&config, &secrets).unwrap().open(&object.key).await.is_err());
    Ok(())
}

#[tokio::test]
#[ignore = "needs the services of cargo xtask"]
async fn an_authority_that_is_not_named_is_not_trusted() {
    let (config, secrets) = store(KEY);
    let stranger = sink(&(StoreConfig { ca_file: None, ..config }, secrets));
    let verdict = stranger.place(&object(0, 1, 10)).await;
    assert!(matches!(&verdict, Verdict::Retry(fault) if fault.code == FaultCode::Unreachable), "{verdict:?}");
}
