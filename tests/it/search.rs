//! Records on their way into OpenSearch: crashes between its answer and what we make of it, documents that do not fit, and
//! whatever an operator has to mend. A real cluster, but for those who ask for a password, which it does not.

use std::collections::BTreeMap;
use std::fs;
use std::net::{SocketAddr, ToSocketAddrs};

use hydrant_kit::client::Connection;
use hydrant_kit::opensearch::{PASSWORD, Script, ScriptedOpenSearch, USERNAME, error};
use hydrant_kit::proxy::{Fault, Proxy};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::server::{PATIENCE, Server, objects_in, wait_until};
use crate::services::variable;

/// A stream into this index of the cluster there, with refused records in the server's own folder.
fn stream(address: &str, index: &str) -> String {
    format!(
        "stores:\n  refused: {{ file: {{ path: $FOLDER/refused }} }}\nstreams:\n  web:\n    \
         hints: {{ size: 1MiB, interval: 1s }}\n    sink:\n      opensearch:\n        endpoint: {address}\n        \
         index: {index}\n        rotation: none\n        timeout: 10s\n        LOGIN\n    \
         dead_letter: {{ store: refused, hints: {{ interval: 1s }} }}\n",
    )
}

/// An index of the test cluster that no other test and no other run has, and a way to it that can fail.
struct Index {
    _runtime: Runtime,
    proxy: Proxy,
    address: SocketAddr,
    name: String,
}

impl Index {
    /// The index is made, with a field `number` that must be one.
    fn make(test: &str) -> Self {
        let index = Self::name(test);
        let mappings = json!({ "properties": { "number": { "type": "long" } } });
        let settings = json!({ "number_of_replicas": 0 });
        index.call("PUT", "", &json!({ "settings": settings, "mappings": mappings }));
        index
    }

    /// Nothing is made.
    fn name(test: &str) -> Self {
        let url = variable("OPENSEARCH_URL");
        let address = url.strip_prefix("http://").unwrap().to_socket_addrs().unwrap().next().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let proxy = runtime.block_on(Proxy::start(address)).unwrap();
        Self { _runtime: runtime, proxy, address, name: format!("it-{test}-{}", std::process::id()) }
    }

    fn server(&self) -> Server {
        self.server_with(&[])
    }

    fn server_with(&self, variables: &[(&str, &str)]) -> Server {
        let yaml = stream(&format!("http://{}", self.proxy.address()), &self.name);
        Server::start_with(&yaml.replace("LOGIN", "login: none"), variables)
    }

    /// A request about this index, straight to the cluster, which must succeed.
    #[track_caller]
    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        self.ask(method, &format!("/{}{path}", self.name), body)
    }

    #[track_caller]
    fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let mut connection = Connection::to(&format!("http://{}", self.address), PATIENCE).unwrap();
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
             connection: close\r\n\r\n",
            connection.host(),
            body.len()
        );
        let answer = connection.send(head.as_bytes(), body.as_bytes()).unwrap();
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(answer.status < 300, "{method} {path}: {} {text}", answer.status);
        serde_json::from_str(&text).unwrap()
    }

    /// How often each record is there, by its name.
    fn arrived(&self) -> BTreeMap<String, usize> {
        self.call("POST", "/_refresh", &Value::Null);
        let found = self.call("POST", "/_search", &json!({ "size": 10_000 }));
        let mut arrived = BTreeMap::new();
        for hit in found["hits"]["hits"].as_array().unwrap() {
            *arrived.entry(hit["_source"]["name"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        arrived
    }

    #[track_caller]
    fn holds_once(&self, expected: &[String]) {
        let arrived = self.arrived();
        for name in expected {
            assert_eq!(arrived.get(name), Some(&1), "{name}");
        }
        assert_eq!(arrived.len(), expected.len(), "nothing was invented");
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return; // what is there may say why
        }
        self.ask("DELETE", &format!("/{}*", self.name), &Value::Null);
    }
}

/// Puts `count` records whose names begin with `prefix`.
fn put(server: &Server, prefix: &str, count: usize) -> Vec<String> {
    let names: Vec<String> = (0..count).map(|number| format!("{prefix}-{number}")).collect();
    let records: Vec<String> = names.iter().map(|name| json!({ "name": name }).to_string()).collect();
    server.put("web", &records.iter().map(String::as_bytes).collect::<Vec<&[u8]>>());
    names
}

#[test]
#[ignore = "needs the services of cargo xtask"]
fn each_record_is_one_document_over_lost_answers_and_crashes() {
    let index = Index::make("crashes");
    let mut server = index.server();
    let mut expected = Vec::new();
    for round in 0..3 {
        // It is all there, and the process that would have heard so is gone.
        index.proxy.choose(Fault::StallAnswer);
        expected.extend(put(&server, &format!("unheard-{round}"), 200));
        wait_until("documents whose answer is held back", || index.arrived().len() == expected.len());
        server.kill();
        index.proxy.choose(Fault::None);
        server.run();
        expected.extend(put(&server, &format!("heard-{round}"), 200));
    }
    server.drain();
    index.holds_once(&expected);
    assert!(index.proxy.opened() > 3, "requests came again");
}

/// Goal: whatever the ledger has heard of a delivery when the process dies, the documents are there once.
#[test]
#[ignore = "needs the services of cargo xtask"]
fn each_record_is_one_document_wherever_its_settlement_ends() {
    let index = Index::make("settlement");
    let mut expected = Vec::new();
    for point in ["settle.written", "settle.recorded", "settle.unlinked"] {
        let mut server = index.server_with(&[("HYDRANT_CRASH_AT", &format!("{point}:1"))]);
        expected.extend(put(&server, point, 50));
        server.wait_for_end();
        server.forget_variable("HYDRANT_CRASH_AT");
        server.run();
        expected.extend(put(&server, &format!("after-{point}"), 50));
        server.drain();
        index.holds_once(&expected);
    }
}

#[test]
#[ignore = "needs the services of cargo xtask"]
fn what_does_not_fit_is_a_dead_letter_with_opensearch_s_own_reason() {
    let index = Index::make("mixed");
    let server = index.server();
    let mut expected = put(&server, "good", 100);
    let bad = [r#"{"name":"bad","number":"canary"}"#, r#"{"name":"bad"}{}"#, "canary"];
    for (number, record) in bad.iter().enumerate() {
        let name = format!("between-{number}");
        server.put("web", &[json!({ "name": name }).to_string().as_bytes(), record.as_bytes()]);
        expected.push(name);
    }
    server.drain();
    index.holds_once(&expected);

    let mut letters = letters(&server);
    letters.sort_by_key(|letter| raw(letter).len());
    let said: Vec<(String, &str)> =
        letters.iter().map(|letter| (raw(letter), letter["errorMessage"].as_str().unwrap())).collect();
    assert_eq!(
        said,
        [
            (bad[2].to_owned(), "the record is not one JSON object: expected value at line 1 column 1"),
            (bad[1].to_owned(), "the record is not one JSON object: trailing characters at line 1 column 15"),
            (bad[0].to_owned(), "400 mapper_parsing_exception: failed to parse field [number] of type [long]"),
        ]
    );
    for letter in &letters {
        assert_eq!(letter["errorCode"], "invalid", "{letter}");
        assert_eq!(letter["esIndexName"], index.name.as_str(), "{letter}");
        assert_eq!(letter["esDocumentId"].as_str().unwrap().len(), 44, "{letter}");
    }
}

/// The dead letters of a server.
fn letters(server: &Server) -> Vec<Value> {
    let objects = objects_in(&server.path("refused"));
    assert!(objects.iter().all(|(key, _)| key.contains("elasticsearch-failed")), "{objects:?}");
    let lines = objects.into_iter().map(|(_, bytes)| String::from_utf8(bytes).unwrap());
    lines
        .flat_map(|text| text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<Value>>())
        .collect()
}

fn raw(letter: &Value) -> String {
    let bytes = base64_simd::STANDARD.decode_to_vec(letter["rawData"].as_str().unwrap()).unwrap();
    String::from_utf8(bytes).unwrap()
}

/// Waits until the stream is degraded and says why, and that nothing was refused for it.
#[track_caller]
fn is_held_up(server: &Server, code: &str, word: &str) {
    wait_until("degraded", || server.state_of("web")["state"] == "degraded");
    let state = server.state_of("web");
    assert_eq!(state["code"], code, "{state}");
    assert!(state["message"].as_str().is_some_and(|said| said.contains(word)), "{word}: {state}");
}

/// Waits until it goes on, and that nothing was refused meanwhile.
#[track_caller]
fn goes_on(server: &Server, arrived: impl Fn() -> usize, expected: usize) {
    wait_until("the records", || arrived() == expected);
    wait_until("healthy", || server.state_of("web")["state"] == "healthy");
    assert_eq!(objects_in(&server.path("refused")), [], "nothing is a dead letter");
}

#[test]
#[ignore = "needs the services of cargo xtask"]
fn an_index_that_takes_nothing_holds_the_stream_up_until_it_is_mended() {
    let index = Index::make("blocked");
    let server = index.server();
    let mut expected = 0;
    for (setting, code) in [("index.blocks.write", "forbidden"), ("index.blocks.read_only_allow_delete", "full")] {
        index.call("PUT", "/_settings", &json!({ setting: true }));
        expected += put(&server, setting, 3).len();
        is_held_up(&server, code, "cluster_block_exception");
        index.call("PUT", "/_settings", &json!({ setting: null }));
        goes_on(&server, || index.arrived().len(), expected);
    }
}

#[test]
#[ignore = "needs the services of cargo xtask"]
fn an_index_that_nobody_made_is_waited_for() {
    let index = Index::name("missing");
    let automatic = json!({ "persistent": { "action.auto_create_index": "-it-missing-*,-missing-*,+*" } });
    index.ask("PUT", "/_cluster/settings", &automatic);
    let server = index.server();
    let expected = put(&server, "early", 3);
    is_held_up(&server, "not-found", "index_not_found_exception");
    index.call("PUT", "", &json!({ "settings": { "number_of_replicas": 0 } }));
    goes_on(&server, || index.arrived().len(), expected.len());
}

#[test]
#[ignore = "needs the services of cargo xtask"]
fn a_cluster_that_cannot_be_found_is_told_by_name() {
    let index = Index::make("nowhere");
    let address = format!("http://{}", index.proxy.address());
    let yaml = stream("http://nobody.invalid:9200", &index.name).replace("LOGIN", "allow_insecure: true");
    let mut server = Server::start_with(&yaml, &[]);
    let expected = put(&server, "early", 3);
    is_held_up(&server, "unreachable", "");
    assert!(server.state_of("web").to_string().contains("nobody.invalid"), "{}", server.state_of("web"));
    server.terminate();
    let file = server.path("hydrant.yaml");
    fs::write(&file, fs::read_to_string(&file).unwrap().replace("http://nobody.invalid:9200", &address)).unwrap();
    server.run();
    goes_on(&server, || index.arrived().len(), expected.len());
}

#[test]
fn a_user_who_may_not_write_holds_the_stream_up_until_somebody_lets_them() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let cluster = runtime.block_on(ScriptedOpenSearch::start_guarded()).unwrap();
    let basic = format!("login: {{ basic: {{ username: {USERNAME}, password: {{ env: IT_SEARCH_PASSWORD }} }} }}");
    let yaml = stream(&format!("http://{}", cluster.address()), "web").replace("LOGIN", &basic);

    // A password that is wrong, until a start with another.
    let mut server = Server::start_with(&yaml, &[("IT_SEARCH_PASSWORD", "it-wrong-password")]);
    let mut expected = put(&server, "early", 3).len();
    is_held_up(&server, "unauthenticated", "401 security_exception");
    assert!(!server.state_of("web").to_string().contains("it-wrong-password"));
    server.terminate();
    server.set_variable("IT_SEARCH_PASSWORD", PASSWORD);
    server.run();
    goes_on(&server, || cluster.documents().len(), expected);

    // Rights that are taken and given back.
    for (status, code) in [(401, "unauthenticated"), (403, "forbidden")] {
        cluster.follow(Script::Answer(error(status, "security_exception", "canary")));
        expected += put(&server, &format!("at-{status}"), 3).len();
        is_held_up(&server, code, &status.to_string());
        assert!(!server.state_of("web").to_string().contains("canary"), "what the cluster says is not repeated");
        cluster.follow(Script::Serve);
        goes_on(&server, || cluster.documents().len(), expected);
    }
}
