//! A crowd of idle connections: the server's memory stays bounded, and who has something to say is heard.

use std::time::Duration;

use hydrant_kit::load::idle::{Plan, run};

use crate::server::Server;

/// Connections of the crowd, if this process may have as many.
const CROWD: usize = 10_000;

/// Most memory of the server for all of them, in MiB: 32 KiB each.
const CROWD_MIB: f64 = 312.5;

/// What other tests on this machine may add to an acknowledgement, in milliseconds. `cargo xtask hostile` measures
/// without them.
const NEIGHBOURS_MS: f64 = 500.0;

#[test]
#[ignore = "needs the services of cargo xtask"]
fn ten_thousand_idle_connections_cost_little() {
    let server = Server::start(
        "stores:\n  main:\n    file: { path: $FOLDER/objects }\nstreams:\n  web:\n    sink: { file: { store: main } }\n",
    );
    let plan = Plan {
        target: server.target(),
        stream: "web".to_owned(),
        clients: 4,
        crowd: CROWD,
        time: Duration::from_secs(3),
        server: Some(server.process()),
    };
    let report = run(&plan).unwrap();
    println!("{report:?}");
    assert!(report.held_most > report.crowd / 4, "{report:?}");
    let [before, with] = report.server_rss_mib.unwrap();
    assert!(with - before < CROWD_MIB, "{report:?}");
    assert!(report.ack_ms_crowded.p99 < 2.0 * report.ack_ms_alone.p99 + NEIGHBOURS_MS, "{report:?}");
    assert!(report.failed < report.acknowledged / 10, "{report:?}");
    server.put("web", &[b"afterwards"]);
}
