//! What users write: problems with their place, defaults, and what a build makes of it.

use hydrant_core::compression::Compression;
use hydrant_core::delimiter::Delimiter;
use hydrant_core::problem::{DocPath, Problems};
use hydrant_core::{ByteSize, PieceSink};
use serde_json::json;

use super::{Known, SOURCE, env, known};
use crate::{Format, HttpSink, Method, SinkConfig, Text};

fn good() -> SinkConfig {
    SinkConfig::to("https://logs.example.net/ingest?source=web")
}

fn problems_with(secrets: &Known, change: impl FnOnce(&mut SinkConfig)) -> Vec<String> {
    let mut config = good();
    change(&mut config);
    let mut problems = Problems::default();
    config.validate(&DocPath::root().field("http"), secrets, &mut problems);
    problems.into_vec().into_iter().map(|it| format!("{}: {}", it.at, it.message)).collect()
}

fn problems(change: impl FnOnce(&mut SinkConfig)) -> Vec<String> {
    problems_with(&known(&[("KEY", "hunter2"), ("EMPTY", ""), ("LINES", "hunter2\nhunter3")]), change)
}

const NOTHING: [&str; 0] = [];

fn plain(text: &str) -> Text {
    Text::Plain(text.to_owned())
}

#[test]
fn an_address_is_https_unless_it_stays_on_this_machine() {
    for url in [
        "https://logs.example.net",
        "https://logs.example.net:8443/a/b?c=d",
        "http://127.0.0.1:9000/",
        "http://localhost:9000/",
        "http://[::1]:9000/",
        "http://127.8.9.10/",
    ] {
        assert_eq!(problems(|it| it.url = plain(url)), NOTHING, "{url}");
    }
    for url in ["http://logs.example.net/", "http://10.0.0.1/", "http://localhost.example.net/", "http://0.0.0.0/"] {
        let told = ["http.url: records would cross the network in the clear"];
        assert_eq!(problems(|it| it.url = plain(url)), told, "{url}");
        let allowed = problems(|it| {
            it.url = plain(url);
            it.allow_insecure = true;
        });
        assert_eq!(allowed, NOTHING, "{url}");
    }
    for (url, reason) in [
        ("", "is not a URL"),
        ("logs.example.net", "is not a URL"),
        ("ftp://logs.example.net/", "does not begin with https://"),
        ("https://user:hunter2@logs.example.net/", "holds credentials, which belong in headers"),
        ("https://hunter2@logs.example.net/", "holds credentials, which belong in headers"),
        ("https://logs.example.net/#hunter2", "holds a fragment, which is never sent"),
    ] {
        assert_eq!(problems(|it| it.url = plain(url)), [format!("http.url: the address {reason}")], "{url}");
    }
}

#[test]
fn an_address_that_holds_a_secret_stands_somewhere_else() {
    for name in ["token", "api-key", "X-Amz-Signature", "sig", "auth_token"] {
        let told = problems(|it| it.url = plain(&format!("https://logs.example.net/?a=b&{name}=hunter2")));
        assert_eq!(told.len(), 1, "{name}");
        assert!(told[0].starts_with("http.url: the parameter") && !told[0].contains("hunter2"), "{told:?}");
    }
    let secrets = known(&[("HOOK", "https://hooks.example.net/services/hunter2?token=hunter3"), ("BAD", "hunter2")]);
    assert_eq!(problems_with(&secrets, |it| it.url = Text::Secret(env("HOOK"))), NOTHING);
    assert_eq!(problems_with(&secrets, |it| it.url = Text::Secret(env("BAD"))), ["http.url: the address is not a URL"],);
    assert_eq!(
        problems_with(&secrets, |it| it.url = Text::Secret(env("MISSING"))),
        ["http.url: environment variable MISSING is not set"],
    );
}

/// An option's name, how it is taken, and the formats that have it.
type Choice<'a> = (&'a str, fn(&mut SinkConfig), &'a [Format]);

#[test]
fn each_option_is_for_its_format() {
    let plain_formats = &[Format::Ndjson, Format::JsonArray, Format::Raw][..];
    let options: [Choice<'_>; 5] = [
        ("access_key", |it| it.access_key = Some(env("KEY")), &[Format::Firehose]),
        (
            "common_attributes",
            |it| it.common_attributes = [("a".to_owned(), "b".to_owned())].into(),
            &[Format::Firehose],
        ),
        ("method", |it| it.method = Method::Put, plain_formats),
        ("success", |it| it.success = vec![202], plain_formats),
        ("delimiter", |it| it.delimiter = Delimiter::Newline, &[Format::Raw]),
    ];
    for (name, set, formats) in options {
        for format in [Format::Firehose, Format::Ndjson, Format::JsonArray, Format::Raw] {
            let told = problems(|it| {
                it.format = format;
                set(it);
            });
            let is_told = told.iter().any(|told| told.starts_with(&format!("http.{name}: ")));
            assert_eq!(is_told, !formats.contains(&format), "{name} {format:?}: {told:?}");
        }
    }
    let zstd: Compression = serde_json::from_value(json!("zstd")).unwrap();
    assert_eq!(problems(|it| it.compression = zstd), ["http.compression: requests are not compressed by zstd"]);
}

#[test]
fn a_key_is_there_and_can_be_sent() {
    let told = |name: &str| problems(|it| it.access_key = Some(env(name)));
    assert_eq!(told("KEY"), NOTHING);
    assert_eq!(told("MISSING"), ["http.access_key: environment variable MISSING is not set"]);
    assert_eq!(told("EMPTY"), ["http.access_key: environment variable EMPTY is empty"]);
    assert_eq!(told("LINES"), ["http.access_key: environment variable LINES holds what no header can carry"]);
}

#[test]
fn headers_that_are_ours_or_secret_are_refused() {
    let told = |format: Format, name: &str, value: Text| {
        problems(|it| {
            it.format = format;
            it.headers = [(name.to_owned(), value)].into();
        })
    };
    for name in ["X-Source", "Content-Type", "User-Agent", "X-Monkey", "Accept"] {
        assert_eq!(told(Format::Ndjson, name, plain("a b")), NOTHING, "{name}");
    }
    assert_eq!(told(Format::Raw, "Authorization", Text::Secret(env("KEY"))), NOTHING);
    for name in ["Host", "content-length", "Transfer-Encoding", "Connection", "Content-Encoding", "Idempotency-Key"] {
        assert_eq!(told(Format::Ndjson, name, plain("a")).len(), 1, "{name}");
    }
    for name in ["X-Amz-Firehose-Request-Id", "Content-Type", "User-Agent", "X-Amzn-Trace-Id"] {
        assert_eq!(told(Format::Firehose, name, plain("a")).len(), 1, "{name}");
    }
    for name in ["Authorization", "X-Api-Key", "DD-API-KEY", "Cookie", "X-Auth-Token"] {
        let told = told(Format::Ndjson, name, plain("hunter2"));
        assert!(told.len() == 1 && told[0].contains("must not stand in this file"), "{told:?}");
        assert!(!told[0].contains("hunter2"), "{told:?}");
    }
    assert_eq!(told(Format::Raw, "a b", plain("a")), ["http.headers.a b: `a b` is no name of a header"]);
    assert_eq!(told(Format::Raw, "X-A", plain("a\nb")), ["http.headers.X-A: X-A cannot be sent with this value"]);
    assert_eq!(told(Format::Raw, "X-A", Text::Secret(env("LINES"))).len(), 1);
    let twice = problems(|it| {
        it.headers = [("X-A".to_owned(), plain("1")), ("x-a".to_owned(), plain("2"))].into();
    });
    assert_eq!(twice, ["http.headers: a header stands here twice, in different letters"]);
}

#[test]
fn statuses_and_bounds_are_those_that_have_a_meaning() {
    let told = problems(|it| {
        it.format = Format::Raw;
        it.success = vec![200, 302];
        it.dead_letter_on = vec![413, 422, 401, 503];
        it.discard_on = vec![400, 413, 403];
        it.records_max = 0;
        it.requests_in_flight = 33;
        it.body_max = ByteSize::mib(65);
        it.ca_file = Some(String::new());
    });
    let places: Vec<&str> = told.iter().map(|told| told.split(':').next().unwrap()).collect();
    assert_eq!(
        places,
        [
            "http.success[1]",
            "http.dead_letter_on[2]",
            "http.dead_letter_on[3]",
            "http.discard_on[2]",
            "http.discard_on[1]",
            "http.body_max",
            "http.records_max",
            "http.requests_in_flight",
            "http.ca_file",
        ],
    );
    let many = (0..51).map(|number| (number.to_string(), String::new())).collect();
    assert_eq!(problems(|it| it.common_attributes = many), ["http.common_attributes: there are more than 50"]);
    let told = problems(|it| {
        it.common_attributes = [(" ".to_owned(), String::new()), ("a".to_owned(), "b".repeat(1025))].into();
    });
    assert_eq!(told.len(), 2, "{told:?}");
}

#[test]
fn what_is_written_is_read_and_written_again() {
    let read = |value: serde_json::Value| serde_json::from_value::<SinkConfig>(value);
    assert_eq!(read(json!({ "url": "https://logs.example.net/ingest?source=web" })).unwrap(), good());
    let written = json!({
        "url": { "env": "HOOK" },
        "format": "ndjson",
        "method": "put",
        "headers": { "Authorization": { "file": "/run/secrets/hook" }, "X-Source": "web" },
        "success": [202],
        "dead_letter_on": [],
        "discard_on": [413],
        "compression": { "gzip": 1 },
        "timeout": "10s",
        "body_max": "1MiB",
        "allow_insecure": true,
    });
    let config = read(written).unwrap();
    assert_eq!(config.headers["X-Source"], plain("web"));
    assert_eq!(read(serde_json::to_value(&config).unwrap()).unwrap(), config);
    let error = read(json!({ "url": ["hunter2"] })).unwrap_err().to_string();
    assert!(error.contains("{ env: NAME }") && !error.contains("hunter2"), "{error}");
}

#[test]
fn building_connects_to_nothing_and_shows_no_secret() {
    let secrets = known(&[("KEY", "hunter2"), ("HOOK", "https://hooks.example.net:8443/hunter3?token=hunter4")]);
    let build = |config: &SinkConfig| HttpSink::new(config, SOURCE, &secrets);
    let config = SinkConfig {
        access_key: Some(env("KEY")),
        headers: [("Authorization".to_owned(), Text::Secret(env("KEY")))].into(),
        ..good()
    };
    let sink = build(&config).unwrap();
    assert_eq!(sink.destination(), "https://logs.example.net/ingest");
    let hook = build(&SinkConfig { url: Text::Secret(env("HOOK")), ..good() }).unwrap();
    assert_eq!(hook.destination(), "https://hooks.example.net:8443/***");
    let shown = format!("{sink:?} {hook:?} {config:?}");
    assert!(!shown.contains("hunter"), "{shown}");
    assert_eq!(
        build(&SinkConfig { access_key: Some(env("MISSING")), ..good() }).unwrap_err(),
        "environment variable MISSING is not set",
    );
}

#[test]
fn limits_leave_room_for_what_the_form_adds() {
    let limits = |change: fn(&mut SinkConfig)| {
        let mut config = good();
        change(&mut config);
        HttpSink::new(&config, SOURCE, &Known::default()).unwrap().limits()
    };
    let whole = limits(|_| {});
    assert_eq!((whole.pieces_max, whole.attempts_in_flight_max), (10_000, 4));
    assert!(whole.body_bytes_max > ByteSize::mib(47), "{}", whole.body_bytes_max);
    assert!(whole.body_bytes_max < ByteSize::mib(48), "{}", whole.body_bytes_max);
    let small = limits(|it| it.body_max = ByteSize::kib(4));
    assert_eq!(small.pieces_max, 64);
    assert!(small.body_bytes_max > ByteSize::kib(2), "{}", small.body_bytes_max);
    assert_eq!(limits(|it| it.records_max = 1).pieces_max, 1);
}
