//! Records on their way to an HTTP endpoint, which is the kit's strict receiver: crashes and lost answers between the two,
//! an endpoint that turns us away, is slow, is not there, or is swamped, and one to which requests are too large.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use hydrant_kit::receiver::{Receiver, Rules, Script, refusal};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::server::{Server, free_port, objects_in, wait_until};

const ACCESS_KEY: &str = "it-endpoint-key";

const SECOND: Duration = Duration::from_secs(1);

/// The receiver, and what runs it. What it takes lies in a folder of its own, a file for each request id.
struct Endpoint {
    _runtime: Runtime,
    receiver: Receiver,
    folder: tempfile::TempDir,
}

impl Endpoint {
    fn start() -> Self {
        Self::start_on(0)
    }

    fn start_on(port: u16) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let rules = Rules { access_key: Some(ACCESS_KEY.to_owned()), is_gzip: Some(true), ..Rules::default() };
        let receiver = runtime.block_on(Receiver::start_on(port, rules, Some(folder.path().to_owned()))).unwrap();
        Self { _runtime: runtime, receiver, folder }
    }

    fn following(script: Script) -> Self {
        let endpoint = Self::start();
        endpoint.receiver.follow(script);
        endpoint
    }

    fn url(&self) -> String {
        format!("http://{}/ingest", self.receiver.address())
    }

    /// How often each record has arrived. A record ends with a semicolon.
    fn arrived(&self) -> BTreeMap<String, usize> {
        let mut arrived = BTreeMap::new();
        for (_, bytes) in objects_in(self.folder.path()) {
            for record in String::from_utf8(bytes).unwrap().split_terminator(';') {
                *arrived.entry(record.to_owned()).or_default() += 1;
            }
        }
        arrived
    }

    /// These records are there, each once, and nothing else is.
    #[track_caller]
    fn holds_once(&self, expected: &[String]) {
        let arrived = self.arrived();
        for name in expected {
            assert_eq!(arrived.get(name), Some(&1), "{name}");
        }
        assert_eq!(arrived.len(), expected.len(), "nothing was invented");
        assert_eq!(self.receiver.violations(), [""; 0]);
    }
}

/// Streams to these addresses, and their dead letters in the server's own folder. An answer may take so long.
fn streams(addresses: &[(&str, String)], timeout: Duration) -> String {
    let seconds = timeout.as_secs();
    let each = addresses.iter().map(|(name, url)| {
        format!(
            "  {name}:\n    hints: {{ size: 1MiB, interval: 1s }}\n    sink:\n      http:\n        url: {url}\n        \
             access_key: {{ env: IT_ENDPOINT_KEY }}\n        compression: gzip\n        timeout: {seconds}s\n    \
             dead_letter: {{ store: refused, error_prefix: {name}/, hints: {{ interval: 1s }} }}\n",
        )
    });
    let stores = "stores:\n  refused: { file: { path: $FOLDER/refused } }\nstreams:\n";
    [stores.to_owned()].into_iter().chain(each).collect()
}

fn server(addresses: &[(&str, String)], timeout: Duration) -> Server {
    Server::start_with(&streams(addresses, timeout), &[("IT_ENDPOINT_KEY", ACCESS_KEY)])
}

/// Puts `count` records whose names begin with `prefix`.
fn put(server: &Server, stream: &str, prefix: &str, count: usize) -> Vec<String> {
    let names: Vec<String> = (0..count).map(|number| format!("{prefix}-{number}")).collect();
    let records: Vec<String> = names.iter().map(|name| format!("{name};")).collect();
    server.put(stream, &records.iter().map(String::as_bytes).collect::<Vec<&[u8]>>());
    names
}

/// Waits until a stream is degraded for this reason; what it says of that.
#[track_caller]
fn degraded(server: &Server, stream: &str, code: &str) -> String {
    wait_until(&format!("{stream} is degraded"), || server.state_of(stream)["state"] == "degraded");
    let state = server.state_of(stream);
    assert_eq!(state["code"], code, "{state}");
    state["message"].as_str().unwrap().to_owned()
}

#[test]
fn each_record_arrives_under_one_request_id_over_lost_answers_and_crashes() {
    let endpoint = Endpoint::start();
    let mut server = server(&[("web", endpoint.url())], 30 * SECOND);
    let mut expected = Vec::new();
    for round in 0..3 {
        endpoint.receiver.follow(Script::TakeThenReset);
        expected.extend(put(&server, "web", &format!("unheard-{round}"), 200));
        let before = endpoint.receiver.requests();
        wait_until("a request whose answer is lost", || endpoint.receiver.requests() > before);
        server.kill();
        endpoint.receiver.follow(Script::Serve);
        server.run();
        expected.extend(put(&server, "web", &format!("heard-{round}"), 200));
    }
    server.drain();
    endpoint.holds_once(&expected);
    let requests = endpoint.receiver.requests();
    assert!(requests > endpoint.receiver.ids() as u64, "some requests came again: {requests}");
}

#[test]
fn an_endpoint_that_turns_us_away_costs_no_record_and_is_gone_back_to_when_mended() {
    let cases = [(401, "unauthenticated"), (403, "forbidden"), (404, "not-found"), (400, "invalid")];
    let names = cases.map(|(status, _)| format!("answers-{status}"));
    let endpoints = cases.map(|(status, _)| Endpoint::following(Script::Answer(refusal(status, "not now"))));
    let addresses: Vec<_> = names.iter().zip(&endpoints).map(|(name, it)| (name.as_str(), it.url())).collect();
    let server = server(&addresses, 30 * SECOND);
    let expected: Vec<_> = names.iter().map(|name| put(&server, name, "early", 3)).collect();
    for ((status, code), name) in cases.iter().zip(&names) {
        let said = degraded(&server, name, code);
        assert!(said.contains(&status.to_string()), "{said}");
        assert!(!said.contains("not now"), "what the endpoint says is not repeated: {said}");
        assert!(server.log().contains(&format!("the endpoint answered {status}")), "the log says why");
        let metrics = String::from_utf8(server.get("/metrics").unwrap().body).unwrap();
        assert!(metrics.contains(&format!("hydrant_stream_degraded{{stream=\"{name}\"}} 1")), "{metrics}");
    }
    for ((endpoint, name), expected) in endpoints.iter().zip(&names).zip(&expected) {
        assert!(endpoint.arrived().is_empty());
        endpoint.receiver.follow(Script::Serve);
        wait_until("the records", || endpoint.arrived().len() == expected.len());
        wait_until("healthy", || server.state_of(name)["state"] == "healthy");
        endpoint.holds_once(expected);
    }
    assert_eq!(objects_in(&server.path("refused")), [], "nothing is a dead letter");
}

#[test]
fn an_endpoint_that_is_not_there_yet_is_found_when_it_comes() {
    let port = free_port();
    let server = server(&[("web", format!("http://127.0.0.1:{port}/ingest"))], 30 * SECOND);
    let expected = put(&server, "web", "early", 3);
    degraded(&server, "web", "unreachable");
    let endpoint = Endpoint::start_on(port);
    server.drain();
    endpoint.holds_once(&expected);
    wait_until("healthy", || server.state_of("web")["state"] == "healthy");
    assert_eq!(objects_in(&server.path("refused")), [], "nothing is a dead letter");
}

#[test]
fn a_host_that_nobody_knows_costs_no_record_and_batches_go_where_the_address_then_points() {
    let mut server = server(&[("web", "https://no-such-host.invalid/".to_owned())], 30 * SECOND);
    let expected = put(&server, "web", "early", 3);
    let said = degraded(&server, "web", "unreachable");
    assert!(said.contains("no connection"), "{said}");
    server.terminate();

    let endpoint = Endpoint::start();
    let folder = server.path("").to_str().unwrap().to_owned();
    server.use_configuration(&streams(&[("web", endpoint.url())], 30 * SECOND).replace("$FOLDER", &folder));
    server.run();
    server.drain();
    endpoint.holds_once(&expected);
    assert_eq!(objects_in(&server.path("refused")), [], "nothing is a dead letter");
}

#[test]
fn slow_endpoints_are_given_up_and_come_again_and_hold_up_nobody() {
    let quick = Endpoint::start();
    let slow = [Script::Stall, Script::TakeThenTrickle(SECOND)].map(Endpoint::following);
    let addresses = [("quick", quick.url()), ("stalls", slow[0].url()), ("trickles", slow[1].url())];
    let server = server(&addresses, SECOND);
    let expected = put(&server, "stalls", "early", 300);
    assert_eq!(put(&server, "trickles", "early", 300), expected);
    wait_until("a request to each", || slow.iter().all(|endpoint| endpoint.receiver.requests() > 0));
    let beside = put(&server, "quick", "beside", 300);
    wait_until("what goes elsewhere", || quick.arrived().len() == beside.len());
    wait_until("another request to each", || slow.iter().all(|endpoint| endpoint.receiver.requests() > 1));
    for endpoint in &slow {
        endpoint.receiver.follow(Script::Serve);
    }
    server.drain();
    for endpoint in &slow {
        endpoint.holds_once(&expected);
    }
    quick.holds_once(&beside);
    assert_eq!(objects_in(&server.path("refused")), [], "nothing is a dead letter");
}

/// What asks to wait is asked again after that, and what does not, after waits that double: of 3 s, 10 requests would be
/// many. Each wait is drawn from zero on, so a bound that is never passed is a generous one.
#[test]
fn storms_are_met_with_waits_and_not_with_a_storm() {
    let throttled = Endpoint::following(Script::Answer(refusal(429, "slowly").header("retry-after", "1")));
    let busy = Endpoint::following(Script::Answer(refusal(503, "busy")));
    let server = server(&[("throttled", throttled.url()), ("busy", busy.url())], 30 * SECOND);
    let began = Instant::now();
    let expected = put(&server, "throttled", "early", 300);
    assert_eq!(put(&server, "busy", "early", 300), expected);
    wait_until("four requests", || throttled.receiver.requests() >= 4);
    let requests = busy.receiver.requests();
    let took = began.elapsed();
    assert!(took >= 3 * SECOND, "three waits of a second took {took:?}");
    assert!(requests <= 10 + took.as_secs(), "{requests} requests in {took:?}");
    for endpoint in [&throttled, &busy] {
        endpoint.receiver.follow(Script::Serve);
    }
    server.drain();
    for endpoint in [&throttled, &busy] {
        endpoint.holds_once(&expected);
    }
}

#[test]
fn what_is_too_large_over_there_becomes_dead_letters() {
    let endpoint = Endpoint::following(Script::Answer(refusal(413, "too large")));
    let server = server(&[("web", endpoint.url())], 30 * SECOND);
    let expected = put(&server, "web", "large", 3);
    let mut letters = Vec::new();
    wait_until("the dead letters", || {
        letters = letters_in(&server.path("refused"));
        letters.len() == expected.len()
    });
    for (name, letter) in expected.iter().zip(&letters) {
        let record = base64_simd::STANDARD.decode_to_vec(letter["rawData"].as_str().unwrap()).unwrap();
        assert_eq!(String::from_utf8(record).unwrap(), format!("{name};"));
        assert_eq!(letter["errorCode"], "too-large", "{letter}");
    }
    let keys: Vec<String> = objects_in(&server.path("refused")).into_iter().map(|(key, _)| key).collect();
    assert!(keys.iter().all(|key| key.contains("http-endpoint-failed")), "{keys:?}");
    assert!(endpoint.arrived().is_empty());
}

#[test]
fn what_is_too_large_over_there_is_thrown_away_where_that_is_asked_for() {
    let endpoint = Endpoint::following(Script::Answer(refusal(413, "too large")));
    let yaml = streams(&[("web", endpoint.url())], 30 * SECOND);
    let yaml =
        yaml.replace("compression: gzip", "compression: gzip\n        dead_letter_on: []\n        discard_on: [413]");
    let server = Server::start_with(&yaml, &[("IT_ENDPOINT_KEY", ACCESS_KEY)]);
    put(&server, "web", "large", 3);
    server.drain();
    let metrics = String::from_utf8(server.get("/metrics").unwrap().body).unwrap();
    assert!(metrics.contains("hydrant_stream_records_discarded_total{stream=\"web\"} 3"), "{metrics}");
    assert!(server.log().contains("the endpoint answered 413"));
    assert_eq!(objects_in(&server.path("refused")), [], "nothing is a dead letter");
    assert!(endpoint.arrived().is_empty());
}

/// The dead letters below a folder, in order.
fn letters_in(folder: &Path) -> Vec<Value> {
    let objects = objects_in(folder).into_iter();
    objects
        .flat_map(|(_, bytes)| {
            let lines = String::from_utf8(bytes).unwrap();
            lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>()
        })
        .collect()
}
