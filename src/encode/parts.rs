//! Bytes that come in parts: the raw content of an object as a buffer holds it. Cutting them copies nothing.

use bytes::Bytes;

/// How many bytes there are in all parts.
pub(super) fn total(parts: &[Bytes]) -> usize {
    parts.iter().map(Bytes::len).sum()
}

/// The same bytes, cut into runs of `len` bytes; the last may be shorter. At least one run, if an empty one.
pub(super) fn cut(parts: &[Bytes], len: usize) -> Vec<Vec<Bytes>> {
    let mut runs = Vec::new();
    let (mut run, mut room) = (Vec::new(), len);
    for part in parts {
        let mut rest = part.clone();
        while !rest.is_empty() {
            let piece = rest.split_to(room.min(rest.len()));
            room -= piece.len();
            run.push(piece);
            if room == 0 {
                runs.push(std::mem::take(&mut run));
                room = len;
            }
        }
    }
    if !run.is_empty() || runs.is_empty() {
        runs.push(run);
    }
    runs
}

/// The last `len` bytes, or all if there are fewer.
pub(super) fn tail(parts: &[Bytes], len: usize) -> Bytes {
    let mut missing = len;
    let mut pieces: Vec<Bytes> = Vec::new();
    for part in parts.iter().rev() {
        let piece = part.slice(part.len().saturating_sub(missing)..);
        missing -= piece.len();
        pieces.push(piece);
        if missing == 0 {
            break;
        }
    }
    pieces.reverse();
    match pieces.as_slice() {
        [only] => only.clone(),
        pieces => pieces.concat().into(),
    }
}
