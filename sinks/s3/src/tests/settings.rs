//! What users write: problems with their place, defaults, and what a build makes of it.

use hydrant_core::ObjectSink;
use hydrant_core::problem::{DocPath, Problems};
use hydrant_core::secret::SecretRef;

use super::{Known, keys};
use crate::{CustomerEncryption, S3Sink, SinkConfig, Sse, StoreConfig};

fn good() -> StoreConfig {
    StoreConfig {
        bucket: "events".to_owned(),
        region: Some("eu-central-1".to_owned()),
        access_key_id: Some(SecretRef::Env("ID".to_owned())),
        secret_access_key: Some(SecretRef::Env("SECRET".to_owned())),
        ..StoreConfig::default()
    }
}

fn problems(change: impl FnOnce(&mut StoreConfig)) -> Vec<String> {
    let mut config = good();
    change(&mut config);
    let mut problems = Problems::default();
    config.validate(&DocPath::root().field("s3"), &keys("id", "secret"), &mut problems);
    problems.into_vec().into_iter().map(|it| format!("{}: {}", it.at, it.message)).collect()
}

#[test]
fn each_problem_of_a_store_is_told_with_its_place() {
    let nothing: [&str; 0] = [];
    assert_eq!(problems(|_| {}), nothing);
    assert_eq!(problems(|it| it.region = None), ["s3.region: region is missing"]);
    assert_eq!(problems(|it| it.region = Some("eu central".to_owned())), ["s3.region: `eu central` is not a region"]);
    assert_eq!(problems(|it| it.secret_access_key = None), ["s3.secret_access_key: secret_access_key is missing"]);
    assert_eq!(problems(|it| it.access_key_id = None), ["s3.access_key_id: access_key_id is missing"]);
    assert_eq!(
        problems(|it| it.session_token = Some(SecretRef::Env("TOKEN".to_owned()))),
        ["s3.session_token: environment variable TOKEN is not set"],
    );
    assert_eq!(
        problems(|it| it.profile = Some("p".to_owned())),
        ["s3.profile: profile has no effect beside an access key"],
    );
    assert_eq!(
        problems(|it| it.bucket = "my.bucket".to_owned()),
        ["s3.bucket: `my.bucket` holds a dot, which no certificate covers in a host name"],
    );
    assert_eq!(
        problems(|it| {
            it.bucket = "a_b".to_owned();
            it.endpoint = Some("minio:9000".to_owned());
        })
        .len(),
        2,
        "all problems come at once",
    );
}

/// Base64 of 32 bytes.
const CUSTOMER_KEY: &str = "aHlkcmFudCB0ZXN0IGtleSwgZ3VhcmRzIG5vdGhpbmc=";

#[test]
fn a_customer_key_is_32_bytes_and_never_crosses_the_network_in_the_clear() {
    let encryption = Some(CustomerEncryption { customer_key: SecretRef::Env("ID".to_owned()) });
    let problems = |key: &str, endpoint: Option<&str>| {
        let endpoint = endpoint.map(str::to_owned);
        let config = StoreConfig { encryption: encryption.clone(), endpoint, ..good() };
        let mut problems = Problems::default();
        config.validate(&DocPath::root().field("s3"), &keys(key, "secret"), &mut problems);
        problems.into_vec().into_iter().map(|it| format!("{}: {}", it.at, it.message)).collect::<Vec<_>>()
    };
    let nothing: [&str; 0] = [];
    assert_eq!(problems(CUSTOMER_KEY, None), nothing);
    assert_eq!(problems(CUSTOMER_KEY, Some("https://s3.example.net")), nothing);
    assert_eq!(
        problems(CUSTOMER_KEY, Some("http://127.0.0.1:9000")),
        ["s3.encryption.customer_key: the key would cross the network in the clear"],
    );
    for short in ["aHlkcmFudA==", "hydrant test key, guards nothing", "not base64"] {
        let told = ["s3.encryption.customer_key: environment variable ID does not hold 32 bytes in base64"];
        assert_eq!(problems(short, None), told, "{short}");
    }
}

#[test]
fn a_store_with_a_customer_key_takes_no_other_encryption_and_shows_no_key() {
    let encryption = Some(CustomerEncryption { customer_key: SecretRef::Env("KEY".to_owned()) });
    let config = StoreConfig { encryption, ..good() };
    let Known(mut secrets) = keys("id", "secret");
    secrets.insert("KEY", CUSTOMER_KEY.to_owned());
    let secrets = Known(secrets);
    S3Sink::new(&config, &Sse::S3, &secrets).unwrap_err();
    let shown = format!("{:?}", S3Sink::new(&config, &Sse::None, &secrets).unwrap());
    assert!(!shown.contains(CUSTOMER_KEY), "{shown}");
}

#[test]
fn bucket_names_follow_the_rules_of_s3() {
    for bucket in ["", "ab", &"b".repeat(64), "Events", "a_b", "-ab", "ab-", ".ab", "a..b", "192.168.5.4", "ä-b"] {
        assert_eq!(problems(|it| it.bucket = bucket.to_owned()).len(), 1, "{bucket:?}");
    }
    for bucket in ["abc", "events-2026", "1-a-1", &"b".repeat(63)] {
        assert_eq!(problems(|it| it.bucket = bucket.to_owned()).len(), 0, "{bucket:?}");
    }
}

#[test]
fn an_endpoint_is_scheme_host_and_port() {
    for endpoint in [
        "",
        "s3.example.net",
        "127.0.0.1:9000",
        "ftp://s3.example.net",
        "http://",
        "https://id:secret@s3.example.net",
        "https://s3.example.net/path",
        "https://s3.example.net/?a=b",
    ] {
        assert_eq!(problems(|it| it.endpoint = Some(endpoint.to_owned())).len(), 1, "{endpoint:?}");
    }
    for endpoint in ["http://127.0.0.1:9000", "https://s3.example.net/", "http://[::1]:9000", "http://minio:9000"] {
        assert_eq!(problems(|it| it.endpoint = Some(endpoint.to_owned())).len(), 0, "{endpoint:?}");
    }
}

#[test]
fn paths_name_the_bucket_where_an_endpoint_is_given() {
    assert!(!good().is_path_style());
    let own = StoreConfig { endpoint: Some("http://minio:9000".to_owned()), region: None, ..good() };
    assert!(own.is_path_style());
    assert_eq!(own.region(), "us-east-1");
    assert!(!StoreConfig { path_style: Some(false), ..own }.is_path_style());
}

#[test]
fn a_kms_key_is_one_word() {
    let check = |key: &str| {
        let config = SinkConfig {
            store: "main".to_owned(),
            prefix: String::new(),
            compression: hydrant_core::compression::Compression::default(),
            delimiter: hydrant_core::delimiter::Delimiter::default(),
            sse: Sse::Kms(key.to_owned()),
        };
        let mut problems = Problems::default();
        config.validate(&DocPath::root().field("s3"), &mut problems);
        problems.into_vec().into_iter().map(|it| it.at.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(check("arn:aws:kms:eu-central-1:000000000000:key/1234"), Vec::<String>::new());
    assert_eq!(check(""), ["s3.sse.kms"]);
    assert_eq!(check("two words"), ["s3.sse.kms"]);
}

#[test]
fn building_connects_to_nothing_and_shows_no_secret() {
    let sink = S3Sink::new(&good(), &Sse::None, &keys("canary-id", "canary-secret")).unwrap();
    assert_eq!(sink.destination(), "s3://events");
    let shown = format!("{sink:?}");
    assert!(!shown.contains("canary-secret"), "{shown}");

    let reason = S3Sink::new(&good(), &Sse::None, &Known::default()).unwrap_err();
    assert_eq!(reason, "environment variable ID is not set");
    let reason = S3Sink::new(&good(), &Sse::None, &keys("id", "canary\nsecret")).unwrap_err();
    assert_eq!(reason, "environment variable SECRET holds no key that can be sent");
    let config = StoreConfig { ca_file: Some("/does/not/exist".to_owned()), ..good() };
    let reason = S3Sink::new(&config, &Sse::None, &keys("id", "secret")).unwrap_err();
    assert!(reason.starts_with("read certificate authorities from /does/not/exist: No such file"), "{reason}");
}
