//! Load generator and oracle together, against a service of a few lines that is honest or is not: who kills a server and
//! then believes the verdict must know that the verdict can be bad.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use super::bench;
use super::put::Target;
use super::witnessed::{Orders, run};
use crate::oracle::{Delimiter, PlacePlan, Plan, Records, StreamPlan, Verdict, Witness, serve};

/// What the service does with every seventh request. The others it stores and acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manners {
    Honest,
    /// Acknowledges and forgets.
    Forgetful,
    /// Stores twice.
    Doubling,
    /// Stores and hangs up instead of answering.
    Silent,
    /// Says that it does not take the records, and stores them.
    Lying,
}

struct Service {
    manners: Manners,
    folder: PathBuf,
    requests: AtomicU64,
}

impl Service {
    /// Starts it; its address.
    fn start(manners: Manners, folder: &Path) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let service = Arc::new(Self { manners, folder: folder.to_owned(), requests: AtomicU64::new(0) });
        thread::spawn(move || {
            for stream in listener.incoming() {
                let service = Arc::clone(&service);
                thread::spawn(move || while service.request(stream.as_ref().unwrap()).is_some() {});
            }
        });
        address
    }

    /// Serves one request; nothing when the connection is over.
    fn request(&self, mut stream: &TcpStream) -> Option<()> {
        let body = read_body(&mut BufReader::with_capacity(1, stream))?;
        let request: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let single = request.get("Record").is_some();
        let records =
            if single { vec![request["Record"].clone()] } else { request["Records"].as_array().unwrap().clone() };
        let data =
            |record: &serde_json::Value| base64_simd::STANDARD.decode_to_vec(record["Data"].as_str().unwrap()).unwrap();
        let bytes: Vec<u8> = records.iter().flat_map(data).collect();

        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let manners = if number % 7 == 6 { self.manners } else { Manners::Honest };
        let object = self.folder.join(request["DeliveryStreamName"].as_str().unwrap()).join(number.to_string());
        fs::create_dir_all(object.parent().unwrap()).unwrap();
        if manners != Manners::Forgetful {
            // Whole or not at all, as the oracle reads while we write.
            fs::write(object.with_file_name(format!(".{number}")), &bytes).unwrap();
            fs::rename(object.with_file_name(format!(".{number}")), &object).unwrap();
        }
        if manners == Manners::Doubling {
            fs::copy(&object, object.with_extension("again")).unwrap();
        }
        let (status, answer) = match manners {
            Manners::Silent => return None,
            Manners::Lying => ("500 Internal Server Error", r#"{"__type":"ServiceUnavailableException"}"#.to_owned()),
            _ if single => ("200 OK", r#"{"RecordId":"x","Encrypted":false}"#.to_owned()),
            _ => {
                let entries = vec![r#"{"RecordId":"x"}"#; records.len()].join(",");
                ("200 OK", format!(r#"{{"FailedPutCount":0,"RequestResponses":[{entries}]}}"#))
            }
        };
        let len = answer.len();
        stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: {len}\r\n\r\n{answer}").as_bytes()).ok()
    }
}

/// The body of the next request. The reader buffers nothing, so that what follows stays in the socket.
fn read_body(from: &mut impl BufRead) -> Option<Vec<u8>> {
    let mut len = None;
    loop {
        let mut line = String::new();
        if from.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            break;
        }
        if let Some(value) = line.strip_prefix("content-length: ") {
            len = value.trim().parse().ok();
        }
    }
    let mut body = vec![0; len?];
    from.read_exact(&mut body).ok()?;
    Some(body)
}

fn target(endpoint: String) -> Target {
    let [region, access_key_id, secret_access_key] = ["us-east-1", "a", "b"].map(str::to_owned);
    Target { endpoint, region, access_key_id, secret_access_key }
}

/// Loads a service with these manners for a while; what the oracle says.
fn verdict(manners: Manners) -> Verdict {
    let folder = tempfile::tempdir().unwrap();
    let stream = |name: &str| StreamPlan {
        name: name.to_owned(),
        records: Records::Frames,
        delimiter: Delimiter::None,
        letters: None,
        places: vec![PlacePlan::Folder(folder.path().join(name))],
    };
    let plan = Plan { seed: 3, streams: vec![stream("one"), stream("two")] };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let oracle = listener.local_addr().unwrap().to_string();
    thread::spawn(move || serve(plan, &listener));
    let endpoint = Service::start(manners, folder.path());

    let orders = Orders {
        target: target(endpoint),
        oracle: oracle.clone(),
        connections_per_stream: 2,
        pause: Duration::from_millis(1),
    };
    let stop = AtomicBool::new(false);
    let report = thread::scope(|scope| {
        let load = scope.spawn(|| run(&orders, &stop).unwrap());
        while fs::read_dir(folder.path().join("two")).map_or(0, Iterator::count) < 30 {
            thread::yield_now();
        }
        stop.store(true, Ordering::Relaxed);
        load.join().unwrap()
    });
    let mut witness = Witness::connect(&oracle).unwrap();
    witness.poll().unwrap();
    let verdict = witness.verdict().unwrap();
    assert_eq!((verdict.total.obliged, verdict.total.refused), (report.acked, report.refused));
    assert!(report.acked > 100, "{report:?}");
    verdict
}

#[test]
fn an_honest_service_is_found_honest() {
    let verdict = verdict(Manners::Honest);
    assert!(verdict.ok, "{verdict:#?}");
}

#[test]
fn records_whose_answer_was_lost_may_be_there() {
    let verdict = verdict(Manners::Silent);
    assert!(verdict.ok && verdict.total.indeterminate > 0, "{verdict:#?}");
    assert!(verdict.total.arrived > verdict.total.obliged - verdict.total.invisible, "{verdict:#?}");
}

#[test]
fn a_service_that_forgets_doubles_or_lies_is_found_out() {
    let wrong = verdict(Manners::Forgetful).total;
    assert!(wrong.lost > 0 && wrong.wrong() == wrong.lost, "{wrong:?}");
    let wrong = verdict(Manners::Doubling).total;
    assert!(wrong.duplicated > 0 && wrong.lost == 0, "{wrong:?}");
    let wrong = verdict(Manners::Lying).total;
    assert!(wrong.invented > 0 && wrong.lost == 0, "{wrong:?}");
}

#[test]
fn a_bench_counts_what_was_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let plan = bench::Plan {
        target: target(Service::start(Manners::Honest, folder.path())),
        streams: vec!["one".to_owned()],
        connections: 2,
        record_bytes: 1024,
        batch: 100,
        until: bench::Until::Records(1000),
        mb_per_second_max: None,
        seed: 1,
    };
    let report = bench::run(&plan).unwrap();
    assert!((1000..=1200).contains(&report.records), "{report:?}");
    assert_eq!((report.bytes, report.requests), (report.records * 1024, report.records / 100));
    assert!(report.ack_ms.p50 > 0.0 && report.ack_ms.max >= report.ack_ms.p99, "{report:?}");
    assert_eq!((report.failed, report.throttled), (0, 0));
}
