//! The log on the disk of this machine, with its threads.

use std::sync::Arc;

use bytes::Bytes;
use hydrant_core::{ByteSize, Position, Span};

use super::world::Standing;
use crate::files::real::RealFiles;
use crate::log::{Committers, Log, Opened, Options, Payloads};
use crate::space::Space;

fn open(dir: &std::path::Path, options: &Options, committers: &Committers) -> Opened {
    let share = Space::new(ByteSize::gib(10)).share(ByteSize::gib(10));
    Log::open(dir, options, Arc::new(RealFiles), Arc::new(Standing), share, committers).unwrap()
}

fn payloads(records: &[&[u8]]) -> Payloads {
    Payloads {
        data: Bytes::from(records.concat()),
        lengths: records.iter().map(|record| u32::try_from(record.len()).unwrap()).collect(),
    }
}

/// All that a reader gives from `from` on, asked for in small slices.
fn read_all(log: &Log, from: Position) -> Vec<(u64, Vec<u8>)> {
    let (mut reader, mut found) = (log.reader(from), Vec::new());
    loop {
        let slice = reader.next(1000).unwrap();
        assert_eq!(slice.lost, []);
        if slice.frames.is_empty() {
            return found;
        }
        for frame in &slice.frames {
            found.extend(frame.records().map(|(position, data)| (position.get(), data.to_vec())));
        }
    }
}

#[tokio::test]
async fn records_are_read_back_in_order_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let committers = Committers::start(2).unwrap();
    let mut options = Options::new(7);
    let Opened { log, lost } = open(&path, &options, &committers);
    assert_eq!(lost, []);
    assert_eq!(log.append(payloads(&[b"a", b"", b"ccc"])).await.unwrap(), Span::new(Position::FIRST, 3));
    let large = vec![7; 300_000];
    for number in 0..10 {
        let span = log.append(payloads(&[&large, b"end"])).await.unwrap();
        assert_eq!(span, Span::new(Position::new(4 + 2 * number), 2));
    }
    log.wait_beyond(Position::new(23)).await;
    let all = read_all(&log, Position::ZERO);
    assert_eq!(all.len(), 23);
    assert_eq!(all[2], (3, b"ccc".to_vec()));
    assert_eq!(all[3], (4, large.clone()));
    assert_eq!(read_all(&log, Position::new(15)), all[14..]);
    assert!(log.usage().segments > 1);
    drop(log);
    options.floor = Position::new(5);
    let Opened { log, lost } = open(&path, &options, &committers);
    assert_eq!(lost, []);
    assert_eq!(log.end(), Position::new(24));
    assert_eq!(read_all(&log, Position::ZERO), all);
    let span = log.append(payloads(&[b"again"])).await.unwrap();
    assert_eq!(span.first, Position::new(24));
    log.forget(Position::new(24)).unwrap();
    assert_eq!(read_all(&log, Position::ZERO), [(24, b"again".to_vec())]);
    assert!(log.usage().spare_bytes > 0);
    drop(committers);
    assert!(log.append(payloads(&[b"late"])).await.is_err());
}
