//! What users write: problems with their place, defaults, and what a build makes of it.

use hydrant_core::problem::{DocPath, Problems};
use hydrant_core::secret::SecretRef;
use hydrant_core::{ByteSize, PieceSink};

use super::{Known, config, password};
use crate::OpenSearchSink;
use crate::config::{Basic, Compression, DocumentId, Login, Rotation, Service, Sigv4, SinkConfig};

fn good() -> SinkConfig {
    config("https://search.example.net:9200")
}

fn problems(change: impl FnOnce(&mut SinkConfig)) -> Vec<String> {
    let mut config = good();
    change(&mut config);
    let mut problems = Problems::default();
    config.validate(&DocPath::root().field("opensearch"), &password("secret"), &mut problems);
    problems.into_vec().into_iter().map(|it| format!("{}: {}", it.at, it.message)).collect()
}

fn basic(username: &str, variable: &str) -> Login {
    Login::Basic(Basic { username: username.to_owned(), password: SecretRef::Env(variable.to_owned()) })
}

#[test]
fn what_is_left_out_has_its_default() {
    let read: SinkConfig =
        serde_json::from_str(r#"{"endpoint":"https://search.example.net:9200","index":"web"}"#).unwrap();
    assert_eq!(read, SinkConfig { timeout: read.timeout, ..good() });
    assert_eq!(read.rotation(), Rotation::Day);
    assert_eq!(read.document_id, DocumentId::Stable);
    assert_eq!(read.compression, Compression::None);
    assert_eq!(read.timeout.to_string(), "1m");
    let stream = SinkConfig { index: None, data_stream: Some("logs".to_owned()), ..good() };
    assert_eq!((stream.rotation(), stream.target()), (Rotation::None, "logs"));
}

#[test]
fn each_problem_is_told_with_its_place() {
    let nothing: [&str; 0] = [];
    assert_eq!(problems(|_| {}), nothing);
    assert_eq!(problems(|it| it.index = None), ["opensearch.index: index is missing"]);
    assert_eq!(
        problems(|it| it.data_stream = Some("logs".to_owned())),
        ["opensearch.data_stream: index and data_stream exclude each other"],
    );
    let stream = |it: &mut SinkConfig| (it.index, it.data_stream) = (None, Some("logs".to_owned()));
    assert_eq!(problems(stream), nothing);
    assert_eq!(
        problems(|it| {
            stream(it);
            it.rotation = Some(Rotation::Day);
            it.type_name = Some("log".to_owned());
        }),
        [
            "opensearch.rotation: a data stream has no rotation of ours",
            "opensearch.type_name: a data stream has no types",
        ],
    );
    assert_eq!(problems(|it| it.type_name = Some(String::new())), ["opensearch.type_name: type_name is no name"],);
    assert_eq!(problems(|it| it.ca_file = Some(String::new())), ["opensearch.ca_file: ca_file is empty"]);
    assert_eq!(problems(|it| it.body_max = ByteSize::mib(200)), ["opensearch.body_max: 200MiB is out of range"],);
    assert_eq!(problems(|it| it.timeout.0 = std::time::Duration::ZERO), ["opensearch.timeout: 0s is out of range"]);
}

#[test]
fn credentials_are_references_to_what_is_there() {
    let nothing: [&str; 0] = [];
    assert_eq!(problems(|it| it.login = basic("hydrant", "PASSWORD")), nothing);
    assert_eq!(
        problems(|it| it.login = basic("a:b", "OTHER")),
        [
            "opensearch.login.basic.password: environment variable OTHER is not set",
            "opensearch.login.basic.username: username is no name",
        ],
    );
    assert_eq!(
        problems(|it| it.login = Login::ApiKey(SecretRef::Env("OTHER".to_owned()))),
        ["opensearch.login.api_key: environment variable OTHER is not set"],
    );
    let read: Login = serde_json::from_str(r#"{"api_key":{"env":"KEY"}}"#).unwrap();
    assert_eq!(read, Login::ApiKey(SecretRef::Env("KEY".to_owned())));
    assert!(serde_json::from_str::<Login>(r#"{"api_key":"canary"}"#).is_err(), "a secret is no literal");
}

#[test]
fn a_key_of_aws_is_whole_or_left_to_the_chain() {
    let sigv4 = |change: fn(&mut Sigv4)| {
        let mut config: Sigv4 = serde_json::from_str(r#"{"region":"eu-central-1"}"#).unwrap();
        change(&mut config);
        problems(|it| it.login = Login::Sigv4(config))
    };
    let nothing: [&str; 0] = [];
    assert_eq!(sigv4(|_| {}), nothing);
    assert_eq!(sigv4(|it| it.service = Service::Aoss), nothing);
    assert_eq!(
        sigv4(|it| it.region = "eu central".to_owned()),
        ["opensearch.login.sigv4.region: `eu central` is not a region"],
    );
    assert_eq!(
        sigv4(|it| it.access_key_id = Some(SecretRef::Env("PASSWORD".to_owned()))),
        ["opensearch.login.sigv4.secret_access_key: secret_access_key is missing"],
    );
}

#[test]
fn names_of_indices_follow_the_rules() {
    let upper = "W".to_owned();
    let long = "w".repeat(245);
    for name in [
        "", ".", "..", "-web", "_web", "+web", "we b", "a/b", "a\\b", "a*", "a?", "a\"", "<a>", "a|b", "a,b", "a#b",
        "a:b", "a\nb", &upper, &long,
    ] {
        assert_eq!(problems(|it| it.index = Some(name.to_owned())).len(), 1, "{name:?}");
    }
    for name in ["web", "web-2026.11_x", ".web", "wéb", "w+b", &long[..240]] {
        assert_eq!(problems(|it| it.index = Some(name.to_owned())).len(), 0, "{name:?}");
    }
    let whole = |it: &mut SinkConfig| (it.index, it.rotation) = (Some("w".repeat(255)), Some(Rotation::None));
    assert_eq!(problems(whole).len(), 0, "nothing is appended");
}

#[test]
fn nothing_crosses_the_network_in_the_clear_unless_asked() {
    for endpoint in ["http://127.0.0.1:9200", "http://[::1]:9200", "http://localhost:9200", "https://search/path/"] {
        assert_eq!(problems(|it| it.endpoint = endpoint.to_owned()).len(), 0, "{endpoint}");
    }
    for endpoint in ["http://search:9200", "http://10.0.0.1:9200", "http://localhost.example.net"] {
        let clear = "opensearch.endpoint: records and credentials would cross the network in the clear";
        assert_eq!(problems(|it| it.endpoint = endpoint.to_owned()), [clear], "{endpoint}");
        let allowed = |it: &mut SinkConfig| (it.endpoint, it.allow_insecure) = (endpoint.to_owned(), true);
        assert_eq!(problems(allowed).len(), 0, "{endpoint}");
    }
    for endpoint in
        ["", "search:9200", "ftp://search", "https://", "https://a:b@search", "https://search/?a", "https://search/#a"]
    {
        assert_eq!(problems(|it| it.endpoint = endpoint.to_owned()).len(), 1, "{endpoint}");
    }
}

#[test]
fn building_connects_to_nothing_and_shows_no_secret() {
    let config = SinkConfig { login: basic("hydrant", "PASSWORD"), ..good() };
    let sink = OpenSearchSink::new(&config, &password("canary-secret")).unwrap();
    assert_eq!(sink.destination(), "https://search.example.net:9200/web");
    let shown = format!("{sink:?}");
    assert!(!shown.contains("canary-secret") && !shown.contains("aHlkcmFudD"), "{shown}");

    let reason = OpenSearchSink::new(&config, &Known::default()).unwrap_err();
    assert_eq!(reason, "environment variable PASSWORD is not set");
    let key = SinkConfig { login: Login::ApiKey(SecretRef::Env("PASSWORD".to_owned())), ..good() };
    let reason = OpenSearchSink::new(&key, &password("canary\nsecret")).unwrap_err();
    assert_eq!(reason, "environment variable PASSWORD holds what cannot be sent in a header");
    let config = SinkConfig { ca_file: Some("/does/not/exist".to_owned()), ..good() };
    let reason = OpenSearchSink::new(&config, &Known::default()).unwrap_err();
    assert!(reason.starts_with("read certificate authorities from /does/not/exist: No such file"), "{reason}");
}
