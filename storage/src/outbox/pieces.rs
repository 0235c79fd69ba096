//! Pieces: the body of a batch for a sink that takes separate pieces. Bytes: `docs/formats/outbox.md`.
//!
//! ```text
//!   ┌──────────────┬──────┬──────────────┬──────┬ …
//!   │ head: length,│ data │ head         │ data │
//!   │ name, arrival│      │              │      │
//!   └──────────────┴──────┴──────────────┴──────┴ …
//! ```
//!
//! Pieces lie in the order of their names, so the n-th of them is also the n-th of the header's runs. Pure. Whatever
//! reads them has checked the blocks before; what is malformed all the same was written by another program.

use bytes::Bytes;
use hydrant_core::{PartitionKeys, Piece, PieceId, Timestamp};

use crate::fields::{Fields, Malformed, put_len, put_text, put_varint};

/// The record was split, and the piece is a share of it.
const IS_SHARE: u8 = 1;
/// Partition values follow.
const HAS_KEYS: u8 = 2;

/// Appends what stands before a piece's data, which is `len` bytes long and must follow.
pub fn put_head(out: &mut Vec<u8>, id: PieceId, arrived_at: Timestamp, keys: &PartitionKeys, len: usize) {
    let is_share = id.of > 1;
    out.push(if is_share { IS_SHARE } else { 0 } | if keys.is_empty() { 0 } else { HAS_KEYS });
    put_varint(out, id.position.get());
    if is_share {
        put_varint(out, u64::from(id.sub));
        put_varint(out, u64::from(id.of));
    }
    put_varint(out, arrived_at.as_millis());
    if !keys.is_empty() {
        put_len(out, keys.iter().count());
        for (name, value) in keys.iter() {
            put_text(out, name);
            put_text(out, value);
        }
    }
    put_len(out, len);
}

/// The most that [`put_head`] writes for a whole record without partition values.
pub const HEAD_BYTES_MAX: usize = 1 + 10 + 10 + 10;

/// The pieces of a body, in order. Their data are slices of it.
///
/// # Errors
/// When it is not what was written.
pub fn read(body: &Bytes) -> Result<Vec<Piece>, Malformed> {
    let mut fields = Fields::new(body);
    let mut pieces = Vec::new();
    while !fields.is_empty() {
        let (id, arrived_at, keys) = read_head(&mut fields)?;
        let len = fields.count(1, "length of a piece")?;
        let data = body.slice_ref(fields.take(len, "data of a piece")?);
        pieces.push(Piece { id, arrived_at, keys, data });
    }
    Ok(pieces)
}

fn read_head(fields: &mut Fields<'_>) -> Result<(PieceId, Timestamp, PartitionKeys), Malformed> {
    let flags = fields.byte("flags of a piece")?;
    if flags & !(IS_SHARE | HAS_KEYS) != 0 {
        return Err(Malformed("flags of a piece"));
    }
    let mut id = PieceId::whole(fields.position("record of a piece")?);
    if flags & IS_SHARE != 0 {
        id.sub = fields.varint_u32("share of a piece")?;
        id.of = fields.varint_u32("number of shares of a piece")?;
        if id.of < 2 || id.sub >= id.of {
            return Err(Malformed("share of a piece"));
        }
    }
    let arrived_at = Timestamp::from_millis(fields.varint("arrival of a piece")?);
    let mut pairs = Vec::new();
    if flags & HAS_KEYS != 0 {
        for _ in 0..fields.count(2, "number of partition values")? {
            pairs.push((fields.text("name of a partition value")?, fields.text("partition value")?));
        }
    }
    Ok((id, arrived_at, PartitionKeys::new(pairs)))
}

#[cfg(test)]
mod tests {
    use hydrant_core::Position;
    use proptest::prelude::*;

    use super::*;

    fn written(pieces: &[Piece]) -> Bytes {
        let mut out = Vec::new();
        for piece in pieces {
            put_head(&mut out, piece.id, piece.arrived_at, &piece.keys, piece.data.len());
            out.extend_from_slice(&piece.data);
        }
        out.into()
    }

    fn piece() -> impl Strategy<Value = Piece> {
        let keys = prop::collection::vec((".{0,5}", ".{0,5}"), 0..3);
        let data = prop::collection::vec(any::<u8>(), 0..300);
        (1_u64..1 << 40, 1_u32..4, any::<u32>(), any::<u64>(), keys, data).prop_map(|(at, of, sub, ms, keys, data)| {
            Piece {
                id: PieceId { position: Position::new(at), sub: sub % of, of },
                arrived_at: Timestamp::from_millis(ms),
                keys: PartitionKeys::new(keys),
                data: data.into(),
            }
        })
    }

    proptest! {
        #[test]
        fn pieces_come_out_as_they_went_in(pieces in prop::collection::vec(piece(), 0..20)) {
            prop_assert_eq!(read(&written(&pieces)), Ok(pieces));
        }

        #[test]
        fn a_body_that_was_cut_is_never_more_than_its_first_pieces(pieces in prop::collection::vec(piece(), 1..6), cut in any::<usize>()) {
            let body = written(&pieces);
            let body = body.slice(..cut % body.len());
            if let Ok(read) = read(&body) {
                prop_assert_eq!(&read[..], &pieces[..read.len()]);
            }
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(read(&bytes.into()));
        }
    }

    #[test]
    fn a_head_has_a_bound() {
        let mut out = Vec::new();
        let id = PieceId::whole(Position::new((1 << 60) - 1));
        put_head(&mut out, id, Timestamp::from_millis(u64::MAX), &PartitionKeys::default(), usize::MAX);
        assert!(out.len() <= HEAD_BYTES_MAX, "{}", out.len());
    }
}
