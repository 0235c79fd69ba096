//! Replay: what may lie on a disk that lost its power, from the record of what it was told.
//!
//! ```text
//!   write write FLUSH write write FLUSH write write │ cut
//!   └──────── all of it ─────────────┘  └ kept, torn, dropped ┘
//! ```
//!
//! Everything before the last flush is there. Of what came later each write is kept, torn or dropped, as a disk with a
//! cache of its own may do it: sectors of 512 bytes are whole, their order is nobody's business.

use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::random::Random;

/// What a disk writes whole. Source: the assumption of docs/formats/disk.md.
const SECTOR: usize = 512;

/// Of ten writes behind the last flush so many are kept, and so many torn; the others are dropped.
const KEPT_OF_TEN: u64 = 4;
const TORN_OF_TEN: u64 = 3;

/// Bytes of an entry before those of a write.
const ENTRY_BYTES: usize = 21;

/// Something that the disk was told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Op {
    /// When, in nanoseconds since 1970.
    pub(super) at: u64,
    pub(super) what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// Bytes for this offset of the disk, which lie at this place of the record.
    Write { offset: u64, len: usize, lies_at: u64 },
    /// All that was written is durable.
    Flush,
}

/// A record, read through.
pub(super) struct Record {
    file: File,
    pub(super) ops: Vec<Op>,
}

impl Record {
    /// Reads the record that the recorder left.
    ///
    /// # Errors
    /// When it cannot be read or is none. An entry that was not finished is left out.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        let mut reader = BufReader::new(File::open(path)?);
        let (mut ops, mut lies_at, mut head) = (Vec::new(), 0, [0; ENTRY_BYTES]);
        let end = file.metadata()?.len();
        while lies_at + (ENTRY_BYTES as u64) <= end {
            reader.read_exact(&mut head)?;
            lies_at += ENTRY_BYTES as u64;
            let (kind, at, offset, len) = entry(&head);
            let what = match kind {
                1 => What::Write { offset, len: usize::try_from(len)?, lies_at },
                2 => What::Flush,
                other => bail!("the record has an entry of kind {other} before byte {lies_at}"),
            };
            lies_at += u64::from(len);
            if lies_at <= end {
                ops.push(Op { at, what });
            }
            reader.seek_relative(i64::from(len))?;
        }
        Ok(Self { file, ops })
    }

    fn bytes(&self, lies_at: u64, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.file.read_exact_at(&mut bytes, lies_at).context("read the record")?;
        Ok(bytes)
    }
}

fn entry(head: &[u8; ENTRY_BYTES]) -> (u8, u64, u64, u32) {
    let number = |from: usize, len: usize| {
        head.iter().skip(from).take(len).rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
    };
    (head[0], number(1, 8), number(9, 8), u32::try_from(number(17, 4)).unwrap_or(u32::MAX))
}

/// Makes images of one record, at later and later cuts.
pub(super) struct Replay<'a> {
    record: &'a Record,
    /// What was durable at the last flush before the cut.
    durable: File,
    /// Operations that are in it.
    applied: usize,
}

/// What an image holds of the writes behind its last flush.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tail {
    pub(super) kept: u64,
    pub(super) torn: u64,
    pub(super) dropped: u64,
}

impl<'a> Replay<'a> {
    /// Starts with an empty disk of this size in this file.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub(super) fn new(record: &'a Record, durable: &Path, bytes: u64) -> Result<Self> {
        let durable = File::options().create(true).truncate(true).write(true).read(true).open(durable)?;
        durable.set_len(bytes)?;
        Ok(Self { record, durable, applied: 0 })
    }

    /// Goes on to the last flush among the operations up to `cut`, which is not before that of the last call.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub(super) fn advance(&mut self, cut: usize) -> Result<()> {
        let ops = self.record.ops.get(self.applied..=cut).context("a cut behind the last one")?;
        let Some(last) = ops.iter().rposition(|op| op.what == What::Flush) else { return Ok(()) };
        for op in ops.iter().take(last) {
            if let What::Write { offset, len, lies_at } = op.what {
                self.durable.write_all_at(&self.record.bytes(lies_at, len)?, offset)?;
            }
        }
        self.applied += last + 1;
        Ok(())
    }

    /// Writes onto a copy of the durable part what chance left of the rest up to `cut`.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub(super) fn tear(&self, image: &Path, cut: usize, random: &mut Random) -> Result<Tail> {
        let image = File::options().write(true).open(image)?;
        let mut tail = Tail::default();
        for op in self.record.ops.get(self.applied..=cut).unwrap_or_default() {
            let What::Write { offset, len, lies_at } = op.what else { continue };
            match random.below(10) {
                dice if dice < KEPT_OF_TEN => {
                    image.write_all_at(&self.record.bytes(lies_at, len)?, offset)?;
                    tail.kept += 1;
                }
                dice if dice < KEPT_OF_TEN + TORN_OF_TEN => {
                    let bytes = self.record.bytes(lies_at, len)?;
                    for (number, sector) in (0..).zip(bytes.chunks(SECTOR)) {
                        if random.below(2) == 0 {
                            image.write_all_at(sector, offset + number * SECTOR as u64)?;
                        }
                    }
                    tail.torn += 1;
                }
                _ => tail.dropped += 1,
            }
        }
        Ok(tail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: u8, at: u64, offset: u64, bytes: &[u8]) -> Vec<u8> {
        let mut entry = vec![kind];
        entry.extend(at.to_le_bytes());
        entry.extend(offset.to_le_bytes());
        entry.extend(u32::try_from(bytes.len()).unwrap().to_le_bytes());
        entry.extend(bytes);
        entry
    }

    fn folder() -> crate::process::Scratch {
        crate::process::Scratch::new("replay").unwrap()
    }

    #[test]
    fn what_was_flushed_is_there_and_of_the_rest_whole_sectors_are() {
        let scratch = folder();
        let path = |name: &str| scratch.path().join(name);
        let (first, second) = ([1; 1024], [2; 4096]);
        let mut record = [entry(1, 10, 0, &first), entry(2, 11, 0, b"")].concat();
        for number in 0..50 {
            record.extend(entry(1, 12 + number, 8192 * (1 + number), &second));
        }
        record.extend([1, 0, 0]); // not finished
        std::fs::write(path("record"), record).unwrap();
        let record = Record::open(&path("record")).unwrap();
        assert_eq!(record.ops.len(), 52);
        assert_eq!(record.ops[1], Op { at: 11, what: What::Flush });

        let mut replay = Replay::new(&record, &path("durable"), 1 << 20).unwrap();
        replay.advance(0).unwrap();
        assert_eq!(std::fs::read(path("durable")).unwrap()[..4], [0; 4], "nothing was flushed");
        replay.advance(51).unwrap();
        std::fs::copy(path("durable"), path("image")).unwrap();
        let tail = replay.tear(&path("image"), 51, &mut Random::new(3)).unwrap();
        assert!(tail.kept > 0 && tail.torn > 0 && tail.dropped > 0, "{tail:?}");
        let image = std::fs::read(path("image")).unwrap();
        assert_eq!(image[..1024], first);
        let (mut whole, mut torn) = (0, 0);
        for write in 1..=50 {
            let bytes = &image[8192 * write..][..4096];
            assert!(bytes.chunks(SECTOR).all(|sector| sector == [2; SECTOR] || sector == [0; SECTOR]));
            let sectors = bytes.chunks(SECTOR).filter(|sector| sector[0] == 2).count();
            whole += u64::from(sectors == 8);
            torn += u64::from(sectors > 0 && sectors < 8);
        }
        assert!(whole >= tail.kept && torn > 0, "{whole} {torn} {tail:?}");
    }
}
