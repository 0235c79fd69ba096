//! Batches for tests.

use bytes::Bytes;
use hydrant_core::{BatchId, PieceId, Position, Span, Timestamp};

use super::{Content, Header, SinkMark};
use crate::runs::Runs;

/// The header of a batch that a test calls by a number.
pub(crate) fn header(number: u8) -> Header {
    let mut pieces: Runs = [Span::new(Position::new(u64::from(number) * 10), 7)].into_iter().collect();
    pieces.push(PieceId { position: Position::new(u64::from(number) * 10 + 8), sub: 1, of: 3 });
    Header {
        batch: BatchId::from_bytes([number; 16]),
        sealed_at: Timestamp::from_millis(1_700_000_000_000 + u64::from(number)),
        oldest_arrival: Timestamp::from_millis(1_700_000_000_000),
        records: 8,
        raw_bytes: 1234,
        pieces,
        sink: SinkMark { kind: "s3".into(), destination: "s3://events".into(), version: 3 },
        content: Content::Object {
            key: format!("2026/11/21/12/web-{number}.gz"),
            content_type: "application/octet-stream".into(),
            content_encoding: Some("gzip".into()),
            metadata: vec![("stream".into(), "web".into())],
        },
    }
}

/// Bytes that differ in every block, in parts that are cut anywhere.
pub(crate) fn body(number: u8, len: usize) -> Vec<Bytes> {
    let mixed = |at: usize| at ^ (at >> 8) ^ (at >> 16) ^ usize::from(number);
    let bytes: Vec<u8> = (0..len).map(|at| mixed(at).to_le_bytes()[0]).collect();
    let cut = len / 3;
    vec![Bytes::copy_from_slice(&bytes[..cut]), Bytes::new(), Bytes::copy_from_slice(&bytes[cut..])]
}
