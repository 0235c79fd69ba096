//! Over TLS: an authority of our own is trusted when it is named, and nobody else is.

use hydrant_core::compression::Compression;
use hydrant_core::{FaultCode, PieceSink, Report, Verdict};
use hydrant_kit::conformance::batch;
use hydrant_kit::tls::{CERTIFICATE, OTHER_CERTIFICATE, Terminator};

use super::world::World;
use crate::SinkConfig;

#[tokio::test]
async fn an_endpoint_must_prove_to_be_who_it_is_called() {
    let world = World::firehose(Compression::None).await;
    let terminator = Terminator::start(world.receiver.address()).await.unwrap();
    let named = |host: &str| format!("https://{host}:{}/", terminator.port());
    for (seed, url, ca_file, is_trusted) in [
        (1, named("localhost"), Some(CERTIFICATE), true),
        (2, named("127.0.0.1"), Some(CERTIFICATE), true),
        (3, named("localhost"), None, false),
        (4, named("localhost"), Some(OTHER_CERTIFICATE), false),
        (5, named("127.0.0.2"), Some(CERTIFICATE), false),
        (6, named("[::ffff:127.0.0.1]"), Some(CERTIFICATE), false),
    ] {
        let sink = world.sink_with(|config| SinkConfig {
            url: SinkConfig::to(url.clone()).url,
            ca_file: ca_file.map(str::to_owned),
            ..config
        });
        let batch = batch(&world, seed, 3, 50);
        match sink.deliver(&batch, &sink.encode(&batch)).await {
            Report::All(Verdict::Delivered) => assert!(is_trusted, "{url} {ca_file:?}"),
            Report::All(Verdict::Retry(fault)) => {
                assert!(!is_trusted && fault.code == FaultCode::Unreachable, "{url} {ca_file:?}: {fault}");
            }
            other => panic!("{url} {ca_file:?}: {other:?}"),
        }
    }
    assert_eq!(world.receiver.ids(), 2);
}
