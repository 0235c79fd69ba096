//! The loader as its users meet it: the text of each error (`tests/golden/config`), the examples of `config/`, and
//! documents of every kind.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use hydrant_core::ByteSize;
use hydrant_core::compression::{Compression, GzipLevel};
use hydrant_core::secret::{Secret, SecretRef};
use proptest::prelude::*;

use super::super::report::{FINDINGS_MAX, Look};
use super::super::secrets::{AnySecrets, LocalSecrets};
use super::super::spec::{Delimiter, RetryFor, SinkSpec, StreamSpec};
use super::*;

/// Where the golden documents lie, each beside the text that is expected of it.
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/config");

const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config");

/// What no text may ever show. The golden documents hold it wherever a secret could stand.
const SECRET: &str = "hunter2";

#[derive(Debug)]
struct Map(BTreeMap<&'static str, &'static str>);

impl Secrets for Map {
    fn resolve(&self, reference: &SecretRef) -> Result<Secret, String> {
        let found = match reference {
            SecretRef::Env(name) => self.0.get(name.as_str()),
            SecretRef::File(_) => None,
        };
        found.map(|value| Secret::new(*value)).ok_or_else(|| format!("{reference} is not set"))
    }
}

fn secrets() -> Map {
    Map([("SECRET", SECRET)].into())
}

fn documents(folder: &str) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = entries
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap()))
        .collect();
    found.sort();
    assert!(!found.is_empty(), "no documents in {folder}");
    found
}

fn told(name: &str, bytes: &[u8]) -> String {
    match parse(name, bytes, &secrets()) {
        Ok(loaded) if loaded.warnings.is_empty() => "valid\n".to_owned(),
        Ok(loaded) => format!("{}{}\n", loaded.warnings.render(Look::Plain), loaded.warnings.summary()),
        Err(report) => format!("{}{}\n", report.render(Look::Plain), report.summary()),
    }
}

fn spec(text: &str) -> Spec {
    parse("test.yaml", text.as_bytes(), &secrets())
        .unwrap_or_else(|report| panic!("{}", report.render(Look::Plain)))
        .spec
}

fn stream(text: &str) -> StreamSpec {
    let stores = "stores: { main: { file: { path: ./objects } }, spare: { file: { path: ./spare } }, \
                  cloud: { s3: { bucket: events, region: eu-west-1 } } }\n";
    spec(&format!("{stores}streams: {{ web: {text} }}")).streams.remove("web").unwrap()
}

/// Goal: a user who reads the text knows what to do. Change a text, look at the difference, and accept it with
/// `UPDATE=1 cargo test --release config`.
#[test]
fn errors_read_as_they_did() {
    let update = std::env::var_os("UPDATE").is_some();
    let mut differing = Vec::new();
    for (name, bytes) in documents(GOLDEN) {
        let told = told(&name, &bytes);
        let path = format!("{GOLDEN}/{}", name.replace(".yaml", ".txt"));
        if update {
            fs::write(&path, &told).unwrap();
        } else if fs::read_to_string(&path).unwrap_or_default() != told {
            differing.push(format!("=== {name}\n{told}"));
        }
    }
    assert!(differing.is_empty(), "these differ from {GOLDEN} (UPDATE=1 accepts):\n{}", differing.join("\n"));
}

#[test]
fn no_text_shows_a_secret() {
    let mut held = 0;
    for (name, bytes) in documents(GOLDEN) {
        held += usize::from(String::from_utf8_lossy(&bytes).contains(SECRET));
        let outcome = parse(&name, &bytes, &secrets());
        let texts = match &outcome {
            Ok(Loaded { spec, warnings }) => vec![format!("{spec:?}"), warnings.render(Look::Fancy)],
            Err(report) => vec![
                report.render(Look::Plain),
                report.render(Look::Fancy),
                report.to_json().to_string(),
                format!("{report:?} {:?}", LoadError::Invalid(report.clone())),
            ],
        };
        for text in texts {
            assert!(!text.contains(SECRET), "{name} shows the secret:\n{text}");
        }
    }
    assert!(held >= 8, "only {held} golden documents hold the secret");
}

#[test]
fn every_example_is_valid() {
    for (name, bytes) in documents(EXAMPLES) {
        let loaded = parse(&name, &bytes, &AnySecrets);
        let loaded = loaded.unwrap_or_else(|report| panic!("{}", report.render(Look::Plain)));
        assert!(loaded.warnings.is_empty(), "{}", loaded.warnings.render(Look::Plain));
        assert!(!loaded.spec.streams.is_empty(), "{name} declares no stream");
    }
}

/// Goal: what the starter shows commented out is valid too. Method: take the `#` away where a key or an item follows.
#[test]
fn the_starter_is_valid_with_its_choices_taken() {
    let starter = fs::read_to_string(format!("{EXAMPLES}/starter.yaml")).unwrap();
    let is_choice = |line: &str| {
        let rest = line.trim_start().strip_prefix("# ").unwrap_or_default().trim_start().trim_start_matches("- ");
        let key = rest.split(':').next().unwrap_or_default();
        rest.contains(':')
            && !line.starts_with('#')
            && key.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit())
    };
    let mut taken = 0;
    let mut prefixes = 0;
    let lines = starter.lines().filter(|line| {
        prefixes += usize::from(line.contains("# prefix:"));
        !(line.contains("# sse:") || line.contains("# prefix:") && prefixes == 2)
    });
    let text: String = lines
        .map(|line| {
            taken += usize::from(is_choice(line));
            (if is_choice(line) { line.replacen("# ", "", 1) } else { line.to_owned() }) + "\n"
        })
        .collect();
    assert!(taken >= 20, "only {taken} choices were taken:\n{text}");
    let loaded = parse("starter.yaml", text.as_bytes(), &AnySecrets);
    let loaded = loaded.unwrap_or_else(|report| panic!("{}\n{text}", report.render(Look::Plain)));
    assert_eq!(loaded.spec.server.credentials.len(), 1);
}

#[test]
fn defaults_fill_what_is_not_said() {
    let spec =
        spec("stores: { main: { file: { path: ./objects } } }\nstreams: { web: { sink: { file: { store: main } } } }");
    assert_eq!(spec.server.listen, "127.0.0.1:4573".parse().unwrap());
    assert_eq!(spec.server.data, PathBuf::from("./hydrant-data"));
    assert_eq!((spec.server.memory, spec.server.disk), (ByteSize::mib(128), ByteSize::gib(20)));
    assert_eq!((spec.server.disk_per_stream, spec.server.grace), (ByteSize::gib(5), Duration::from_secs(25)));
    assert_eq!((spec.server.region.as_str(), spec.server.account.as_str()), ("us-east-1", "000000000000"));
    assert!(spec.server.credentials.is_empty() && !spec.server.drain_on_stop);
    let web = &spec.streams["web"];
    assert_eq!((web.hints.size, web.hints.interval), (ByteSize::mib(5), Duration::from_mins(5)));
    assert_eq!(web.retry_for, RetryFor::Forever);
    let SinkSpec::Objects(objects) = &web.sink else { panic!("{:?}", web.sink) };
    assert_eq!((objects.kind, objects.prefix.as_str()), ("file", ""));
    assert_eq!((objects.compression, objects.delimiter), (Compression::None, Delimiter::None));
    assert_eq!((web.dead_letter.store.name.as_str(), web.dead_letter.error_prefix.as_str()), ("main", ""));
    assert_eq!(web.dead_letter.hints.interval, Duration::from_mins(1));
}

#[test]
fn what_is_said_is_what_is_true() {
    let web = stream(
        "{ hints: { size: 1MiB, interval: 0 }, retry_for: 90s, \
           sink: { file: { store: main, prefix: logs/, compression: { gzip: fast }, delimiter: newline } }, \
           dead_letter: { store: spare, error_prefix: errors/, hints: { size: 2MiB, interval: 5s } } }",
    );
    assert_eq!((web.hints.size, web.hints.interval), (ByteSize::mib(1), Duration::ZERO));
    assert_eq!(web.retry_for, RetryFor::AtMost(Duration::from_secs(90)));
    let SinkSpec::Objects(objects) = &web.sink else { panic!("{:?}", web.sink) };
    assert_eq!((objects.compression, objects.delimiter), (Compression::Gzip(GzipLevel::Fast), Delimiter::Newline));
    assert_eq!((web.dead_letter.store.name.as_str(), web.dead_letter.error_prefix.as_str()), ("spare", "errors/"));
    assert_eq!(
        (web.dead_letter.hints.size, web.dead_letter.hints.interval),
        (ByteSize::mib(2), Duration::from_secs(5))
    );
}

#[test]
fn refused_records_of_a_prefixed_stream_lie_below_its_prefix_unless_another_store_is_named() {
    let own = stream("{ sink: { file: { store: main, prefix: logs/ } } }");
    assert_eq!(own.dead_letter.error_prefix.as_str(), "logs/");
    let other = stream("{ sink: { file: { store: main, prefix: logs/ } }, dead_letter: { store: spare } }");
    assert_eq!(other.dead_letter.error_prefix.as_str(), "");
    let dated =
        stream("{ sink: { file: { store: main, prefix: \"!{timestamp:yyyy}/\" } }, dead_letter: { store: spare } }");
    assert_eq!(dated.dead_letter.error_prefix.as_str(), "");
}

#[test]
fn the_definition_changes_with_the_meaning_and_with_nothing_else() {
    let plain = stream("{ sink: { s3: { store: cloud } } }").definition;
    let spelled_out = stream(
        "{ dead_letter: { store: cloud, hints: { interval: 1m, size: 5120KiB } }, retry_for: forever, \
           sink: { s3: { sse: none, delimiter: none, compression: none, prefix: '', store: cloud } }, \
           hints: { interval: 5m } }",
    );
    assert_eq!(plain, spelled_out.definition);
    for other in [
        "{ sink: { s3: { store: cloud, prefix: a/ } } }",
        "{ sink: { s3: { store: cloud, compression: gzip } } }",
        "{ sink: { s3: { store: cloud, sse: s3 } } }",
        "{ sink: { file: { store: main } } }",
        "{ sink: { s3: { store: cloud } }, retry_for: 1h }",
        "{ sink: { s3: { store: cloud } }, hints: { size: 6MiB } }",
        "{ sink: { s3: { store: cloud } }, dead_letter: { store: main } }",
        "{ sink: { s3: { store: cloud } }, dead_letter: { error_prefix: e/ } }",
    ] {
        assert_ne!(plain, stream(other).definition, "{other}");
    }
    let at = |bucket: &str| {
        let text = format!(
            "stores: {{ a: {{ s3: {{ bucket: {bucket}, region: eu-west-1, access_key_id: {{ env: SECRET }}, \
             secret_access_key: {{ env: SECRET }} }} }} }}\nstreams: {{ web: {{ sink: {{ s3: {{ store: a }} }} }} }}"
        );
        spec(&text).streams.remove("web").unwrap().definition
    };
    assert_ne!(at("one"), at("two"), "the address of the store belongs to the definition");
    assert!(!at("one").contains(SECRET));
}

#[test]
fn a_document_may_be_as_large_as_it_says_and_no_larger() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.yaml");
    let comment = "#".repeat(usize::try_from(DOCUMENT_BYTES_MAX).unwrap());
    fs::write(&path, &comment).unwrap();
    assert!(matches!(load(&path, None, &AnySecrets), Err(LoadError::Invalid(_))), "it is read, and found empty");
    fs::write(&path, comment + "#").unwrap();
    assert!(matches!(load(&path, None, &AnySecrets), Err(LoadError::Unreadable { .. })));
}

#[expect(clippy::disallowed_methods, reason = "measures the test itself")]
#[test]
fn a_document_that_unfolds_without_end_is_refused_in_time() {
    let lines = |line: &dyn Fn(usize) -> String| (0..60_000).map(line).collect::<Vec<_>>().concat();
    let bomb = (1..20).fold("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned(), |bomb, level| {
        let items = vec![format!("*a{}", level - 1); 10].join(", ");
        format!("{bomb}a{level}: &a{level} [{items}]\n")
    });
    let deep = "[".repeat(100_000);
    let block = "- ".repeat(100_000);
    let wide = "streams:\n".to_owned() + &lines(&|number| format!("  s{number}: 1\n"));
    let unknown = lines(&|number| format!("k{number}: 1\n"));
    let started = std::time::Instant::now();
    for text in [bomb, deep, block, wide, unknown] {
        let report = parse("large.yaml", text.as_bytes(), &AnySecrets).unwrap_err();
        assert!(report.findings().len() <= FINDINGS_MAX);
        assert!(report.render(Look::Plain).len() < 100_000);
    }
    assert!(started.elapsed() < Duration::from_secs(20), "took {:?}", started.elapsed());
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_change_nothing() {
    let text = fs::read_to_string(format!("{EXAMPLES}/starter.yaml")).unwrap();
    let other = format!("\u{feff}{}", text.replace('\n', "\r\n"));
    let loaded = parse("starter.yaml", other.as_bytes(), &AnySecrets).unwrap();
    assert_eq!(loaded.spec.streams["web"].definition, spec(&text).streams["web"].definition);
}

/// Parts of real documents, so that random ones get beyond the parser.
fn yaml_like() -> impl Strategy<Value = String> {
    let words = [
        "server:",
        "stores:",
        "streams:",
        "  web:",
        "    sink:",
        "      file:",
        "        store: main",
        "    hints:",
        "size: 5MiB",
        "interval: 0",
        "- ",
        "{",
        "}",
        "[",
        "]",
        ", ",
        ": ",
        "\n",
        "  ",
        "\"",
        "'",
        "|\n",
        "&a ",
        "*a ",
        "!!str ",
        "<<: ",
        "# c\n",
        "---\n",
        "credentials:",
        "secret_access_key: ",
        "{ env: SECRET }",
        "!{timestamp:yyyy}",
        "é",
        "\t",
        "\u{0}",
        "~",
        "1e999",
        "listen: ",
        "retry_for: ",
    ];
    proptest::collection::vec(proptest::sample::select(words.to_vec()), 0..60).prop_map(|words| words.concat())
}

proptest! {
    #[test]
    fn no_bytes_make_the_loader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        if let Err(report) = parse("random.yaml", &bytes, &secrets()) {
            prop_assert!(!report.is_empty());
            report.render(Look::Fancy);
        }
    }

    #[test]
    fn no_text_like_yaml_makes_the_loader_panic(text in yaml_like()) {
        if let Err(report) = parse("random.yaml", text.as_bytes(), &secrets()) {
            prop_assert!(report.first_error().is_some());
            report.render(Look::Fancy);
        }
    }
}

/// What stands where it must not, as in the rows below; none of its parts may be shown.
const CANARY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// Goal: whatever an operator gets wrong about secrets, no report repeats them. Method: `SECRET` is one that no rule
/// takes for a name, `AKID` the public half in a place where it could as well be the other.
#[test]
fn a_secret_in_a_wrong_place_is_shown_nowhere() {
    const SWAPPED: &str = "server: { credentials: [{ access_key_id: SECRET, secret_access_key: { env: AKID } }] }";
    let rows = [
        "server: { credentials: \"AKID:SECRET\" }",
        "server:\n  credentials: \"AKID:SECRET\"\n",
        "server:\n  credentials: [\"AKID:SECRET\"]\n",
        "server:\n  credentials: {AKID: SECRET}\n",
        "server:\n  credentials:\n    - AKID: SECRET\n",
        "server:\n  credentials:\n  - AKID: SECRET\n  - [\n",
        "server:\n  credentials:\n    AKID: SECRET\n",
        SWAPPED,
        "server:\n  credentials:\n    - access_key_id: SECRET\n      secret_access_key: { env: HOME }\n",
        "server:\n  credentials:\n    - access_key_id: \"SECRET\n",
        "stores: {m: \"s3://u:SECRET@h/b\"}",
        "stores: {m: {\"s3://u:SECRET@h/b\": {}}}",
        "stores: {\"s3://u:SECRET@h/b\": {file: {path: ./o}}}",
        "server:\n  credentials:\n    - access_key_id: dev\n      secret_access_key: {env: SECRET}\n",
        "server:\n  credentials:\n    - access_key_id: dev\n      secret_access_key:\n        env: SECRET\n",
        "stores: {m: {s3: {bucket: b, region: r, access_key_id: {env: HOME}, secret_access_key: {env: SECRET}}}}",
        "stores:\n  m:\n    s3:\n      bucket: b\n      endpoint: \"u:SECRET@h:9000\"\n",
        "stores:\n  m:\n    s3:\n      bucket: b\n      endpoint: http://u:SECRET@h:9000\n",
        "stores:\n  m:\n    s3:\n      bucket: b\n      endpoint: \"https://h/b?X-Amz-Credential=SECRET\"\n",
        "server:\n  key: SECRET\n",
        "server:\n  apikey: SECRET\n",
        "server:\n  api_key: SECRET\n",
        "server:\n  auth: SECRET\n",
        "server:\n  pwd: SECRET\n",
        "server:\n  access_key: SECRET\n",
        "server:\n  credentials:\n    - access_key_id: dev\n      secret_access_key SECRET\n",
        "server:\n  credentials:\n    - secret_access_key SECRET\n",
        "stores:\n  m:\n    s3:\n      bucket: b\n      secret_access_key SECRET\n",
        "server:\n  credentials:\n    - access_key_id: dev\n      secret_access_key: \"x\nSECRET\"\n",
        "server:\n  credentials:\n    - access_key_id: dev\n      secret_access_key: '\nSECRET'\n",
        "stores:\n  m:\n    s3:\n      bucket: b\n      secret_access_key: \"\nSECRET\"\n",
        "x: &x SECRET\nserver:\n  credentials:\n    - access_key_id: dev\n      secret_access_key: *x\n",
        "server:\n  credentials:\n    - access_key_id: dev\n      secret_access_key: \"x\nk: SECRET\"\n",
        "server:\n  credentials:\n    - access_key_id: \"x\nk: SECRET\n",
        "stores: {m: {s3: {bucket: b, region: r, endpoint: \"http://u:wJal@r/SECRET@h\"}}}",
        "x: &x [SECRET]\nserver:\n  credentials: *x\n",
        "server:\n  account: SECRET\n  region: SECRET\n  credentials: [SECRET]\n",
    ];
    let parts = ["wJalrXUt", "K7MDENG", "bPxRfiCY", "AKIDEXAMPLE"];
    for row in rows {
        let text = row.replace("AKID", "AKIDEXAMPLE").replace("SECRET", CANARY);
        let Err(report) = parse("row.yaml", text.as_bytes(), &LocalSecrets) else { panic!("valid: {row}") };
        let shown = format!("{}{}", report.render(Look::Plain), report.to_json());
        let public = row == SWAPPED;
        for part in parts.iter().filter(|part| !(public && **part == "AKIDEXAMPLE")) {
            assert!(!shown.contains(part), "{part} is shown of\n{row}\n{shown}");
        }
        assert!(report.findings().iter().all(|finding| !format!("{finding:?}").contains(parts[0])), "{row}");
    }
}

#[test]
fn a_document_does_not_steer_the_terminal() {
    for text in ["\"a\\e[31mb\": 1", "server: { \"\\u009b2J\": 1 }", "a: \u{1b}[31m", "stores: { m: \"\\a\" }"] {
        let report = parse("row.yaml", text.as_bytes(), &LocalSecrets).unwrap_err();
        let shown = format!("{}{:?}", report.render(Look::Plain), report);
        assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{shown:?}");
    }
}

#[test]
fn names_of_dots_alone_are_refused() {
    for name in [".", "..", "..."] {
        let text = format!("stores: {{ \"{name}\": {{ file: {{ path: ./objects }} }} }}");
        assert!(parse("row.yaml", text.as_bytes(), &AnySecrets).is_err(), "{name}");
    }
}

#[test]
fn the_data_directory_that_is_used_is_the_one_that_rules_hold_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hydrant.yaml");
    let objects = folder.path().join("objects");
    let text = format!(
        "server: {{ data: {0}/own }}\nstores: {{ main: {{ file: {{ path: {0}/objects }} }} }}\n\
         streams: {{ web: {{ sink: {{ file: {{ store: main }} }} }} }}",
        folder.path().display()
    );
    fs::write(&path, text).unwrap();
    let data = folder.path().join("other");
    assert_eq!(load(&path, Some(&data), &AnySecrets).unwrap().spec.server.data, data);
    for wrong in [objects.join("data"), objects, folder.path().to_owned(), PathBuf::new()] {
        assert!(load(&path, Some(&wrong), &AnySecrets).is_err(), "{}", wrong.display());
    }
}
