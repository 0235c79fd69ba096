//! Rows: room for libraries that take all bytes in one row and give them back in one. Kept between objects.

use bytes::Bytes;

use super::parts::total;

/// Room for an object and for what it becomes.
#[derive(Default)]
pub(super) struct Rows {
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Rows {
    /// All bytes of an object in a row, copied only when there is more than one part; and room for what they become, of
    /// as many bytes as `bound` says for their number.
    pub(super) fn of<'a>(
        &'a mut self,
        parts: &'a [Bytes],
        bound: impl FnOnce(usize) -> usize,
    ) -> (&'a [u8], &'a mut [u8]) {
        let Self { input, output } = self;
        let raw: &[u8] = if let [only] = parts {
            only
        } else {
            input.clear();
            input.reserve_exact(total(parts));
            for part in parts {
                input.extend_from_slice(part);
            }
            input
        };
        let bound = bound(raw.len());
        if output.len() < bound {
            *output = Vec::new(); // first, so that there are never two
            *output = vec![0; bound];
        }
        (raw, output)
    }
}
