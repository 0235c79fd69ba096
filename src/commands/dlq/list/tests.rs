use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};

use clap::Parser;

use super::*;
use crate::commands::{Format, Kind};
use crate::encode::intended::Intended;

#[derive(Parser)]
struct CommandLine {
    #[command(flatten)]
    args: LsArgs,
}

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn dlq(folder: &Path, detail: Detail, format: Format, more: &[&str]) -> (String, Result<(), Failure>) {
    let config = folder.join("hydrant.yaml").display().to_string();
    let words = [&["ls", "web", "--config", &config], more].concat();
    let args = CommandLine::try_parse_from(words).unwrap().args;
    let written = Written::default();
    let result = run(&args.of, detail, &mut Output::to(format, written.clone()));
    let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
    (text, result)
}

const LETTERS: &str = "postgres-failed/2026/11/21/12/web-1-2026-11-21-12-00-00-07070707-0707-4707-8707-070707070707";
const WHOLE: &str = "delivery-failed/2026/11/21/11/web-1-2026-11-21-11-00-00-08080808-0808-4808-8808-080808080808.gz";

fn line(code: &str, stage: &str, record: &[u8]) -> String {
    let data = base64_simd::STANDARD.encode_to_string(record);
    format!(
        "{{\"attemptsMade\":1,\"arrivalTimestamp\":1795262400000,\"errorCode\":\"{code}\",\"errorMessage\":\"not \\u001b[1m this\\nat all\",\
         \"attemptEndingTimestamp\":1795262401000,\"rawData\":\"{data}\",\"subsequenceNumber\":0,\"dataId\":\"17.0\",\"pieceId\":\"17\",\
         \"stage\":\"{stage}\",\"outcomeUnknown\":{},\"batchId\":\"x\",\"ordinal\":3}}\n",
        code == "timed-out"
    )
}

/// A configuration, a folder of dead letters with these lines, and an object that went there whole.
fn folder(lines: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let dead = folder.path().join("dead");
    let yaml = format!(
        "stores:\n  spare:\n    file: {{ path: {} }}\nstreams:\n  web:\n    sink:\n      postgres: {{ host: 127.0.0.1, \
         database: x, user: x, table: t }}\n    dead_letter: {{ store: spare }}\n",
        dead.display()
    );
    std::fs::write(folder.path().join("hydrant.yaml"), yaml).unwrap();
    let put = |path: PathBuf, bytes: &[u8]| {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    put(dead.join(LETTERS), lines.as_bytes());
    put(dead.join(WHOLE), b"some bytes");
    let intended = Intended { store: "s3://lake".to_owned(), key: "web/1.gz".to_owned() };
    let metadata = json!({ "content_type": null, "content_encoding": "gzip", "metadata": intended.metadata() });
    put(dead.join(".hydrant/metadata").join(WHOLE), metadata.to_string().as_bytes());
    folder
}

#[test]
fn a_listing_is_a_table_below_each_object() {
    let folder = folder(&(line("invalid", "encode", b"{}") + &line("timed-out", "deliver", b"two")));
    let (text, result) = dlq(folder.path(), Detail::Row, Format::Text, &[]);
    assert!(result.is_ok(), "{result:?}");
    let expected = format!(
        "  LINE  REFUSED               STAGE    CODE                BYTES  ATTEMPTS  MESSAGE\n\
         {WHOLE}\n     -  2026-11-21T11:00:00Z  object   -                      10         -  meant for s3://lake as web/1.gz\n\
         {LETTERS}\n     1  2026-11-21T12:00:01Z  encode   invalid                 2         1  not \\u{{1b}}[1m this at all\n     \
         2  2026-11-21T12:00:01Z  deliver  timed-out               3         1  not \\u{{1b}}[1m this at all (the destination may have it)\n"
    );
    assert_eq!(text, expected);
}

#[test]
fn a_page_tells_all_that_is_known_and_a_program_gets_the_bytes() {
    let record = b"a \xff\x1b[2J\nb";
    let folder = folder(&line("invalid", "deliver", record));
    let (text, result) = dlq(folder.path(), Detail::Page, Format::Text, &["--kind", "invalid"]);
    assert!(result.is_ok(), "{result:?}");
    let expected = format!(
        "object   {LETTERS}\nline     1\nrecord   17, 9 bytes, arrived 2026-11-21T12:00:00Z\nrefused  2026-11-21T12:00:01Z in stage \
         deliver after 1 attempt\nerror    invalid: not \\u{{1b}}[1m this at all\na \u{fffd}\\u{{1b}}[2J\nb\n\n"
    );
    assert_eq!(text, expected);
    let (text, _) = dlq(folder.path(), Detail::Page, Format::Json, &[]);
    let told: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&told[0]["intended_key"], &told[0]["stage"]), (&"web/1.gz".into(), &"object".into()));
    let data = base64_simd::STANDARD.encode_to_string(record);
    assert_eq!((&told[1]["data"], &told[1]["line"], &told[1]["object"]), (&data.into(), &1.into(), &LETTERS.into()));
}

#[test]
fn only_what_is_asked_for_is_told_and_a_limit_says_that_there_may_be_more() {
    let lines =
        [line("invalid", "encode", b"one"), line("invalid", "deliver", b"two"), line("too-large", "encode", b"three")];
    let folder = folder(&lines.concat());
    let rows = |more: &[&str]| dlq(folder.path(), Detail::Row, Format::Json, more).0.lines().count();
    for (more, count) in [
        (&[][..], 4),
        (&["--kind", "invalid"], 2),
        (&["--kind", "encode", "--match", "t"], 1),
        (&["--kind", "object"], 1),
        (&["--match", "four"], 0),
        (&["--limit", "2"], 2),
        (&["--limit", "0"], 4),
        (&["--since", "1h"], 0),
        (&["--since", "40000d"], 4),
    ] {
        assert_eq!(rows(more), count, "{more:?}");
    }
    assert_eq!(dlq(folder.path(), Detail::Row, Format::Text, &["--match", "four"]).0, "no dead letters\n");
}

#[test]
fn what_is_no_dead_letter_is_told_and_is_damage_and_the_others_are_told_all_the_same() {
    let folder =
        folder(&(line("invalid", "encode", b"one") + "{\"rawData\":1}\n" + &line("invalid", "encode", b"three")));
    let (text, result) = dlq(folder.path(), Detail::Row, Format::Json, &["--kind", "encode"]);
    assert_eq!(text.lines().count(), 3, "{text}");
    assert!(text.lines().any(|line| line.contains("\"damaged\"") && line.contains("\"line\":2")), "{text}");
    assert_eq!(result.unwrap_err().kind(), Kind::Damage);
}

#[test]
fn a_stream_or_a_store_that_is_not_there_is_told_by_its_name() {
    let folder = folder("");
    let config = folder.path().join("hydrant.yaml");
    let told = |yaml: &str| {
        std::fs::write(&config, yaml).unwrap();
        let (_, result) = dlq(folder.path(), Detail::Row, Format::Text, &[]);
        result.unwrap_err().render(Format::Text)
    };
    let yaml = std::fs::read_to_string(&config).unwrap();
    let failure = told(&yaml.replace("  web:", "  app:"));
    assert!(failure.ends_with("hydrant.yaml: it declares no stream `web`; it has `app`\n"), "{failure}");
    let failure = told(&yaml.replace("/dead", "/nowhere"));
    assert!(failure.starts_with("error: store `spare`: not-found: "), "{failure}");
}
