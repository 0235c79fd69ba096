//! Against a real OpenSearch under `cargo xtask`: the same promises, with a proxy on the way, and documents read back by
//! Python.
//!
//! What lies in an index is read by a client of a few lines that shares no code with the sink but the connection.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use http::Request;
use hydrant_core::batch::Batch;
use hydrant_core::duration::TimeSpan;
use hydrant_core::{Fault, FaultCode, PieceSink, Timestamp, Verdict};
use hydrant_kit::conformance::{Breakage, PieceWorld, attempt, batch, of as batch_of};
use hydrant_kit::piece_sink_conformance;
use hydrant_kit::proxy::{self, Proxy};
use hydrant_outbound::{Body, Bounds, Client, Options};
use serde_json::{Value, json};

use super::{Known, config, owed};
use crate::OpenSearchSink;
use crate::config::{DocumentId, Rotation, SinkConfig};

/// A real server takes its time, on a busy machine more.
const PATIENCE: TimeSpan = TimeSpan(Duration::from_secs(15));

/// Fields that a document may fail to fit.
fn mappings() -> Value {
    json!({ "properties": {
        "number": { "type": "long" },
        "date": { "type": "date" },
        "object": { "properties": { "inner": { "type": "long" } } },
        "strict": { "dynamic": "strict", "properties": {} },
        "word": { "type": "keyword" },
        "text": { "type": "keyword" },
    } })
}

struct Live {
    address: SocketAddr,
    proxy: Proxy,
    salt: u64,
    client: Client,
    index: String,
    settings: Mutex<SinkConfig>,
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; run by cargo xtask test"))
}

impl Live {
    async fn connect() -> Self {
        let url = variable("HYDRANT_TEST_OPENSEARCH_URL");
        let host = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let address = tokio::net::lookup_host(host).await.unwrap().next().unwrap();
        let proxy = Proxy::start(address).await.unwrap();
        let salt = RandomState::new().hash_one(0);
        let index = format!("conformance-{salt:016x}");
        let settings = Mutex::new(SinkConfig { index: Some(index.clone()), ..good(proxy.address()) });
        let client = Client::new(&Options::default()).unwrap();
        let live = Self { address, proxy, salt, client, index, settings };
        // One for each run, so that runs do not wait for each other; what starts with `missing-` is not made by itself.
        let template = json!({
            "index_patterns": [format!("{}*", live.index)],
            "template": { "settings": { "number_of_replicas": 0 }, "mappings": mappings() },
        });
        live.call("PUT", &format!("/_index_template/{}", live.index), &template).await.unwrap();
        let no_auto = json!({ "persistent": { "action.auto_create_index": "-missing-*,+*" } });
        live.call("PUT", "/_cluster/settings", &no_auto).await.unwrap();
        live
    }

    /// A request straight to the server, which must succeed.
    async fn call(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let body = if body.is_null() { Bytes::new() } else { body.to_string().into() };
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address))
            .header("content-type", "application/json")
            .body(Body::Bytes(body))?;
        let minute = Duration::from_mins(1);
        let bounds = Bounds { stall: minute, whole: minute, answer_bytes_max: 64 << 20 };
        let answer = self.client.send(request, bounds).await?;
        let text = String::from_utf8_lossy(answer.body());
        ensure!(answer.status().is_success(), "{method} {path}: {} {text}", answer.status());
        Ok(serde_json::from_slice(answer.body())?)
    }

    /// An index that is there before the first document, with these settings and what is done to it then.
    async fn make(&self, name: &str, settings: Value) -> Result<String> {
        let index = format!("{}-{name}", self.index);
        self.call("PUT", &format!("/{index}"), &json!({ "settings": settings })).await?;
        Ok(index)
    }

    fn new_sink(&self) -> OpenSearchSink {
        OpenSearchSink::new(&self.settings.lock().unwrap(), &Known::default()).unwrap()
    }

    fn change(&self, change: impl FnOnce(&mut SinkConfig)) {
        change(&mut self.settings.lock().unwrap());
    }
}

fn good(address: SocketAddr) -> SinkConfig {
    SinkConfig { rotation: Some(Rotation::None), timeout: PATIENCE, ..config(&format!("http://{address}")) }
}

/// What depends on the server; the scripted one has all that does not.
fn breakages() -> Vec<(Breakage, How)> {
    let unheard = |name, code, fault| (Breakage::unheard(name, code), How::Way(fault));
    let index = |name, code| (Breakage::new(name, code), How::Index);
    vec![
        (Breakage::new("reset in the body", FaultCode::Interrupted), How::Way(proxy::Fault::ResetRequestAfter(400))),
        unheard("the answer is held back", FaultCode::TimedOut, proxy::Fault::StallAnswer),
        unheard("the answer is lost", FaultCode::Interrupted, proxy::Fault::ResetAnswerAfter(0)),
        index("missing", FaultCode::NotFound),
        index("blocked", FaultCode::Forbidden),
        index("flooded", FaultCode::Full),
        index("closed", FaultCode::Forbidden),
        index("ambiguous", FaultCode::Invalid),
        index("piped", FaultCode::Invalid),
    ]
}

/// How a breakage is brought about.
enum How {
    Way(proxy::Fault),
    /// Documents go to an index that is broken in this way.
    Index,
}

impl Live {
    /// An index that is broken in the way of this name.
    async fn broken(&self, name: &str) -> Result<String> {
        let unique = format!("{name}-{:x}", RandomState::new().hash_one(0));
        Ok(match name {
            "missing" => format!("missing-{}", self.index),
            "blocked" => self.make(&unique, json!({ "index.blocks.write": true })).await?,
            "flooded" => self.make(&unique, json!({ "index.blocks.read_only_allow_delete": true })).await?,
            "closed" => {
                let index = self.make(&unique, json!({})).await?;
                self.call("POST", &format!("/{index}/_close"), &Value::Null).await?;
                index
            }
            "ambiguous" => {
                let alias = format!("{}-{unique}", self.index);
                for number in 0..2 {
                    let index = self.make(&format!("{unique}-{number}"), json!({})).await?;
                    self.call("PUT", &format!("/{index}/_alias/{alias}"), &Value::Null).await?;
                }
                alias
            }
            _ => self.make(&unique, json!({ "index.default_pipeline": "nobody-made-it" })).await?,
        })
    }
}

#[async_trait]
impl PieceWorld for Live {
    fn salt(&self) -> u64 {
        self.salt
    }

    fn sink(&self) -> Arc<dyn PieceSink> {
        Arc::new(self.new_sink())
    }

    fn patient_sink(&self) -> Arc<dyn PieceSink> {
        let patient = SinkConfig { timeout: TimeSpan(Duration::from_mins(5)), ..self.settings.lock().unwrap().clone() };
        Arc::new(OpenSearchSink::new(&patient, &Known::default()).unwrap())
    }

    async fn arrived(&self, batch: &Batch) -> Result<Vec<u64>> {
        let ids: Vec<String> = batch.pieces.iter().map(|(ordinal, _)| format!("{}-{ordinal:07}", batch.id)).collect();
        self.call("POST", &format!("/{}*/_refresh", self.index), &Value::Null).await?;
        let query = json!({ "size": 10_000, "query": { "ids": { "values": ids } } });
        let found = self.call("POST", &format!("/{}*/_search", self.index), &query).await?;
        let mut counts = HashMap::<&str, u64>::new();
        let wanted: HashMap<&str, Value> = (ids.iter().map(String::as_str))
            .zip(&batch.pieces)
            .filter_map(|(id, (_, piece))| Some((id, serde_json::from_slice(&piece.data).ok()?)))
            .collect();
        for hit in found["hits"]["hits"].as_array().context("hits")? {
            let id = hit["_id"].as_str().context("an id")?;
            ensure!(wanted.get(id) == Some(&hit["_source"]), "document {id} is another");
            *counts.entry(id).or_default() += 1;
        }
        Ok(ids.iter().map(|id| counts.get(id.as_str()).copied().unwrap_or_default()).collect())
    }

    fn attempts(&self) -> u64 {
        self.proxy.opened()
    }

    fn breakages(&self) -> Vec<Breakage> {
        breakages().into_iter().map(|(breakage, _)| breakage).collect()
    }

    async fn break_by(&self, breakage: &Breakage) -> Result<()> {
        let found = breakages().into_iter().find(|(known, _)| known.name == breakage.name);
        match found.context("an unknown breakage")?.1 {
            How::Way(fault) => self.proxy.choose(fault),
            How::Index => {
                let index = self.broken(breakage.name).await?;
                self.change(|config| config.index = Some(index));
            }
        }
        if breakage.code == FaultCode::TimedOut {
            self.change(|config| config.timeout = super::TIMEOUT);
        }
        Ok(())
    }

    async fn mend(&self) -> Result<()> {
        let good = SinkConfig { index: Some(self.index.clone()), ..good(self.proxy.address()) };
        self.change(|config| *config = good);
        self.proxy.choose(proxy::Fault::None);
        Ok(())
    }

    async fn stall(&self) -> Result<()> {
        self.proxy.choose(proxy::Fault::StallAnswer);
        Ok(())
    }

    fn unacceptable(&self, text: &str) -> Vec<(Bytes, FaultCode)> {
        let records = [text.to_owned(), format!(r#"{{"number":"{text}"}}"#), format!(r#"{{"object":"{text}"}}"#)];
        records.map(|record| (record.into(), FaultCode::Invalid)).to_vec()
    }

    fn secrets(&self) -> Vec<String> {
        Vec::new()
    }
}

piece_sink_conformance!(Live::connect(), #[ignore = "needs the services of cargo xtask"]);

fn refused(verdict: Option<&Verdict>) -> &Fault {
    let Some(Verdict::Refused(fault)) = verdict else { panic!("not refused: {verdict:?}") };
    fault
}

/// Goal: whatever a real server finds wrong with a document is that record's alone, is told in its own words, and
/// without the record's bytes.
#[tokio::test]
#[ignore = "needs the services of cargo xtask"]
async fn each_way_not_to_fit_is_told_without_what_does_not_fit() -> Result<()> {
    let live = Live::connect().await;
    let canary = "canary-canary";
    let long = canary.repeat(4000);
    let many = (0..1100).map(|n| format!(r#","f{n}":"{canary}""#)).collect::<Vec<_>>().concat();
    let cases = [
        (
            format!(r#"{{"number":"{canary}"}}"#),
            "mapper_parsing_exception: failed to parse field [number] of type [long]",
        ),
        (
            format!(r#"{{"number":"{long}"}}"#),
            "mapper_parsing_exception: failed to parse field [number] of type [long]",
        ),
        (format!(r#"{{"number":{{"a":"{canary}"}}}}"#), "mapper_parsing_exception: failed to parse field [number]"),
        (r#"{"number":123456789012345678901234567890}"#.to_owned(), "mapper_parsing_exception: failed to parse field"),
        (format!(r#"{{"date":"{canary}"}}"#), "mapper_parsing_exception: failed to parse field [date] of type [date]"),
        (r#"{"date":"20-13-45"}"#.to_owned(), "mapper_parsing_exception: failed to parse field [date] of type [date]"),
        (
            format!(r#"{{"object":"{canary}"}}"#),
            "mapper_parsing_exception: object mapping for [object] tried to parse field [object] as object, but found a \
             concrete value",
        ),
        (
            format!(r#"{{"strict":{{"other":"{canary}"}}}}"#),
            "strict_dynamic_mapping_exception: mapping set to strict, dynamic introduction of [other] within [strict] is \
             not allowed",
        ),
        (
            format!(r#"{{"word":"{long}"}}"#),
            "illegal_argument_exception: Document contains at least one immense term in field [word]",
        ),
        (format!(r#"{{"number":1{many}}}"#), "illegal_argument_exception: Limit of total fields [1000]"),
        (
            format!(r#"{{"number":1,"number":2,"a":"{canary}"}}"#),
            "mapper_parsing_exception: failed to parse: Duplicate field",
        ),
        (
            format!("{}{}1{}", r#"{"a":"#, r#"{"a":"#.repeat(30), "}".repeat(31)),
            "mapper_parsing_exception: failed to parse: The depth of the field has exceeded the allowed limit of [20]",
        ),
    ];
    let mut records: Vec<Bytes> = cases.iter().map(|(record, _)| Bytes::from(record.clone())).collect();
    records.push(r#"{"number":1}"#.into());
    let batch = batch_of(&live, 1, records);
    let verdicts = attempt(&live.new_sink(), &batch).await?;
    for (ordinal, (record, expected)) in (0..).zip(&cases) {
        let fault = refused(verdicts.get(&ordinal));
        println!("{fault}");
        let record: String = record.chars().take(60).collect();
        assert!(fault.message.starts_with(&format!("400 {expected}")), "{record}: {fault}");
        assert!(!fault.message.contains("canary"), "{record}: {fault}");
        assert_eq!(fault.code, FaultCode::Invalid, "{record}");
    }
    let last = u32::try_from(cases.len())?;
    assert_eq!(verdicts.get(&last), Some(&Verdict::Delivered));
    Ok(())
}

/// A data stream has its rule about time, and takes `create` alone.
#[tokio::test]
#[ignore = "needs the services of cargo xtask"]
async fn a_data_stream_takes_records_that_say_when_or_are_told() -> Result<()> {
    let live = Live::connect().await;
    let name = format!("stream-{}", live.index);
    let template =
        json!({ "index_patterns": [name], "data_stream": {}, "template": { "settings": { "number_of_replicas": 0 } } });
    live.call("PUT", &format!("/_index_template/{name}"), &template).await?;
    live.change(|config| {
        (config.index, config.rotation) = (None, None);
        config.data_stream = Some(name.clone());
    });
    let timed = r#"{"@timestamp":"2026-11-21T13:00:00Z","a":1}"#;
    let batch = batch_of(&live, 1, vec![timed.into(), r#"{"a":2}"#.into()]);
    let verdicts = attempt(&live.new_sink(), &batch).await?;
    assert_eq!(verdicts.get(&0), Some(&Verdict::Delivered));
    let fault = refused(verdicts.get(&1));
    assert!(fault.message.contains("documents must contain a single-valued timestamp field"), "{fault}");

    live.change(|config| config.add_timestamp = true);
    for again in ["first", "again"] {
        let verdicts = attempt(&live.new_sink(), &batch).await?;
        assert!(verdicts.values().all(|verdict| *verdict == Verdict::Delivered), "{again}: {verdicts:?}");
    }
    live.call("POST", &format!("/{name}/_refresh"), &Value::Null).await?;
    let found = live.call("POST", &format!("/{name}/_search"), &json!({ "sort": ["a"] })).await?;
    let sources: Vec<&Value> =
        found["hits"]["hits"].as_array().context("hits")?.iter().map(|hit| &hit["_source"]).collect();
    let arrived = jiff::Timestamp::from_millisecond(1_790_000_000_001)?;
    assert_eq!(
        sources,
        [
            &json!({ "@timestamp": "2026-11-21T13:00:00Z", "a": 1 }),
            &json!({ "@timestamp": arrived.to_string(), "a": 2 })
        ]
    );
    Ok(())
}

/// Reads what the sink wrote with a client and a JSON parser that are not ours.
#[tokio::test]
#[ignore = "needs the services of cargo xtask"]
async fn python_finds_every_record_once_in_the_index_of_its_hour() -> Result<()> {
    let live = Live::connect().await;
    live.change(|config| config.rotation = Some(Rotation::Hour));
    let mut batch = batch(&live, 1, 500, 300);
    for (ordinal, piece) in &mut batch.pieces {
        // 2026-11-21T13:59:59.700Z and on, so the last 200 arrive in the next hour.
        piece.arrived_at = Timestamp::from_millis(1_795_269_599_700 + u64::from(*ordinal));
    }
    for again in ["first", "again"] {
        let verdicts = attempt(&live.new_sink(), &batch).await?;
        assert!(verdicts.values().all(|verdict| *verdict == Verdict::Delivered), "{again}: {verdicts:?}");
    }
    let script = r#"
import json, sys, urllib.request
base, index = sys.argv[1:]
def post(path, body=b""):
    request = urllib.request.Request(base + path, body, {"Content-Type": "application/json"}, method="POST")
    return json.load(urllib.request.urlopen(request, timeout=60))
post(f"/{index}-*/_refresh")
hits = post(f"/{index}-*/_search", b'{"size":10000}')["hits"]["hits"]
for hit in hits:
    print(hit["_index"], hit["_id"], hit["_source"]["text"])
"#;
    let python = Command::new(variable("HYDRANT_TEST_PYTHON"))
        .args(["-c", script, &format!("http://{}", live.address), &live.index])
        .output()?;
    ensure!(python.status.success(), "{}", String::from_utf8_lossy(&python.stderr));
    let mut found: Vec<String> = String::from_utf8(python.stdout)?.lines().map(str::to_owned).collect();
    found.sort();
    let expected = batch.pieces.iter().map(|(ordinal, piece)| {
        let hour = if *ordinal < 300 { 13 } else { 14 };
        let record: Value = serde_json::from_slice(&piece.data)?;
        let text = record["text"].as_str().context("text")?;
        Ok(format!("{}-2026-11-21-{hour} {}-{ordinal:07} {text}", live.index, batch.id))
    });
    assert_eq!(found, expected.collect::<Result<Vec<_>>>()?);
    Ok(())
}

#[tokio::test]
#[ignore = "needs the services of cargo xtask"]
async fn documents_that_the_server_names_arrive_each_time() -> Result<()> {
    let live = Live::connect().await;
    live.change(|config| config.document_id = DocumentId::Server);
    let batch = batch(&live, 1, 3, 100);
    for count in [3, 6] {
        let verdicts = attempt(&live.new_sink(), &batch).await?;
        assert!(verdicts.values().all(|verdict| *verdict == Verdict::Delivered), "{verdicts:?}");
        live.call("POST", &format!("/{}/_refresh", live.index), &Value::Null).await?;
        let found = live.call("GET", &format!("/{}/_count", live.index), &Value::Null).await?;
        assert_eq!(found["count"], count);
    }
    Ok(())
}

/// What an operator forgot holds up the stream and empties it nowhere.
#[tokio::test]
#[ignore = "needs the services of cargo xtask"]
async fn a_type_name_that_the_server_no_longer_knows_is_the_operator_s_to_mend() -> Result<()> {
    let live = Live::connect().await;
    live.change(|config| config.type_name = Some("log".to_owned()));
    let batch = batch(&live, 1, 3, 100);
    let verdicts = attempt(&live.new_sink(), &batch).await?;
    assert_eq!(owed(&verdicts), [0, 1, 2]);
    assert!(
        verdicts.values().all(|verdict| matches!(verdict, Verdict::Retry(fault) if fault.code == FaultCode::Invalid)),
        "{verdicts:?}"
    );
    live.change(|config| config.type_name = None);
    assert_eq!(owed(&attempt(&live.new_sink(), &batch).await?), [0; 0]);
    Ok(())
}
