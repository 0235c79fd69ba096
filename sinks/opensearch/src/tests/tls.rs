//! Over TLS: an authority of our own is trusted when it is named, and nobody else is.

use hydrant_core::{FaultCode, Verdict};
use hydrant_kit::conformance::{attempt, batch};
use hydrant_kit::tls::{CERTIFICATE, OTHER_CERTIFICATE, Terminator};

use super::scripted::Scripted;

#[tokio::test]
async fn a_cluster_must_prove_to_be_who_it_is_called() {
    let world = Scripted::start().await;
    let terminator = Terminator::start(world.server.address()).await.unwrap();
    for (seed, host, ca_file, is_trusted) in [
        (1, "localhost", Some(CERTIFICATE), true),
        (2, "127.0.0.1", Some(CERTIFICATE), true),
        (3, "localhost", None, false),
        (4, "localhost", Some(OTHER_CERTIFICATE), false),
        (5, "127.0.0.2", Some(CERTIFICATE), false),
    ] {
        world.change(|config| {
            config.endpoint = format!("https://{host}:{}", terminator.port());
            config.ca_file = ca_file.map(str::to_owned);
        });
        let verdicts = attempt(&world.new_sink(), &batch(&world, seed, 3, 50)).await.unwrap();
        let is_expected = |verdict: &Verdict| match verdict {
            Verdict::Delivered => is_trusted,
            Verdict::Retry(fault) => !is_trusted && fault.code == FaultCode::Unreachable,
            _ => false,
        };
        assert!(verdicts.values().all(is_expected), "{host} {ca_file:?}: {verdicts:?}");
    }
    assert_eq!(world.server.requests(), 2, "nobody else heard of the records");
}
