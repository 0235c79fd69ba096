//! Layout of a batch file: head, body, block table, header. Pure; `docs/formats/outbox.md` has the byte tables.
//!
//! ```text
//!   ┌──────┬──────────────────────────────┬─────────────┬──────────┐
//!   │ head │ body: blocks of 256 KiB      │ block table │ header   │
//!   └──────┴──────────────────────────────┴─────────────┴──────────┘
//!     32 B   CRCs: block table              CRC: its own  CRC: head
//! ```
//!
//! Table and header stand behind the body, so that a body can be written before all of it is known, and before it is
//! known which records it holds; the head, at a fixed place and of a fixed length, is written last. The CRC of the
//! table starts from the head's, so a table of another batch never fits.

use std::io;

use bytes::Bytes;
use crc_fast::{CrcAlgorithm, Digest};

use super::header::Header;
use crate::fields::{Fields, Malformed, crc32c, low_half};

/// Bytes of a body that one CRC covers, and the best unit to read it in. A quarter MiB: 128 MiB need 2 KiB of CRCs,
/// and a reader of any part reads at most one block too much at either end.
pub const BLOCK_BYTES: u32 = 256 << 10;

/// Largest header that is written or read. A hundred times what a batch of 128 MiB with a run of records for each
/// 200 bytes needs.
pub const HEADER_BYTES_MAX: usize = 64 << 20;

pub(crate) const HEAD_BYTES: usize = 32;
/// Where the body starts.
pub(crate) const BODY_AT: u64 = HEAD_BYTES as u64;
const MAGIC: [u8; 8] = *b"HYDBATCH";
const VERSION: u32 = 2;
const TABLE_CRC_BYTES: u64 = 4;

/// Why a batch file is not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// It ends too early, or goes on too long.
    #[error("{found} bytes long instead of {expected}")]
    Length {
        /// As its head says, in bytes.
        expected: u64,
        /// As it is, in bytes.
        found: u64,
    },
    /// It does not start as a batch file does.
    #[error("not a batch file")]
    Magic,
    /// It was written in a way that this program does not know.
    #[error("version {0} of the format is not known")]
    Version(u32),
    /// The head says what no head says.
    #[error("head out of bounds")]
    Head,
    /// Head or header are not what was written.
    #[error("checksum of the header does not match")]
    HeadChecksum,
    /// The header is whole, but not a header.
    #[error("header: {0}")]
    Header(Malformed),
    /// The block table is not what was written.
    #[error("checksum of the block table does not match")]
    TableChecksum,
    /// A block of the body is not what was written.
    #[error("checksum of block {0} of the body does not match")]
    Block(u64),
    /// The header names another batch than the file does.
    #[error("file and header name different batches")]
    Name,
}

impl From<Damage> for io::Error {
    fn from(damage: Damage) -> Self {
        Self::new(io::ErrorKind::InvalidData, damage)
    }
}

/// The first bytes of a batch file: where everything else is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) header_bytes: usize,
    pub(crate) body_bytes: u64,
    pub(crate) block_bytes: u32,
    /// Covers the head up to here, and the header.
    pub(crate) crc: u32,
}

impl Head {
    /// The head for this header and a body of that size.
    pub(crate) fn new(header: &[u8], body_bytes: u64) -> Self {
        let head = Self { header_bytes: header.len(), body_bytes, block_bytes: BLOCK_BYTES, crc: 0 };
        Self { crc: head.checksum(header), ..head }
    }

    fn fields(&self) -> [u8; HEAD_BYTES - 4] {
        let mut out = [0; HEAD_BYTES - 4];
        let header_bytes = u32::try_from(self.header_bytes).unwrap_or(u32::MAX);
        let parts: [&[u8]; 5] = [
            &MAGIC,
            &VERSION.to_le_bytes(),
            &header_bytes.to_le_bytes(),
            &self.body_bytes.to_le_bytes(),
            &self.block_bytes.to_le_bytes(),
        ];
        out.iter_mut().zip(parts.into_iter().flatten()).for_each(|(to, from)| *to = *from);
        out
    }

    fn checksum(&self, header: &[u8]) -> u32 {
        crc32c([self.fields().as_slice(), header])
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        [self.fields().as_slice(), &self.crc.to_le_bytes()].concat()
    }

    /// Reads a head. Nothing it says is proven before [`header`](Self::header) has passed.
    pub(crate) fn decode(bytes: &[u8; HEAD_BYTES]) -> Result<Self, Damage> {
        let short = |_: Malformed| Damage::Head;
        let mut fields = Fields::new(bytes);
        if fields.array("magic").map_err(short)? != MAGIC {
            return Err(Damage::Magic);
        }
        let version = fields.u32("version").map_err(short)?;
        if version != VERSION {
            return Err(Damage::Version(version));
        }
        let header_bytes = usize::try_from(fields.u32("length of the header").map_err(short)?).ok();
        let header_bytes = header_bytes.filter(|&len| len <= HEADER_BYTES_MAX).ok_or(Damage::Head)?;
        let head = Self {
            header_bytes,
            body_bytes: fields.u64("length of the body").map_err(short)?,
            block_bytes: fields.u32("length of a block").map_err(short)?,
            crc: fields.u32("checksum").map_err(short)?,
        };
        if head.block_bytes != BLOCK_BYTES || head.body_bytes > 1 << 48 { Err(Damage::Head) } else { Ok(head) }
    }

    /// A head as it would be if this version had written it.
    pub(crate) fn with_our_version(mut bytes: [u8; HEAD_BYTES]) -> [u8; HEAD_BYTES] {
        let version = bytes.iter_mut().skip(MAGIC.len());
        version.zip(VERSION.to_le_bytes()).for_each(|(to, from)| *to = from);
        bytes
    }

    /// Checks and reads the header.
    pub(crate) fn header(&self, bytes: &[u8]) -> Result<Header, Damage> {
        if self.checksum(bytes) != self.crc {
            return Err(Damage::HeadChecksum);
        }
        Header::decode(bytes).map_err(Damage::Header)
    }

    pub(crate) fn blocks(&self) -> u64 {
        self.body_bytes.div_ceil(u64::from(self.block_bytes))
    }

    /// Where the block table starts.
    pub(crate) fn table_at(&self) -> u64 {
        BODY_AT + self.body_bytes
    }

    pub(crate) fn table_bytes(&self) -> u64 {
        self.blocks() * 4 + TABLE_CRC_BYTES
    }

    /// Where the header starts.
    pub(crate) fn header_at(&self) -> u64 {
        self.table_at() + self.table_bytes()
    }

    /// How long the whole file is.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.header_at() + as_u64(self.header_bytes)
    }

    /// The block table of a body whose blocks have these CRCs.
    pub(crate) fn table(&self, crcs: &[u32]) -> Vec<u8> {
        let mut table: Vec<u8> = crcs.iter().flat_map(|crc| crc.to_le_bytes()).collect();
        let crc = crc32c([self.crc.to_le_bytes().as_slice(), &table]);
        table.extend_from_slice(&crc.to_le_bytes());
        table
    }

    /// Checks and reads a block table.
    pub(crate) fn read_table(&self, bytes: &[u8]) -> Result<Vec<u32>, Damage> {
        let (table, crc) = bytes.split_last_chunk::<4>().ok_or(Damage::TableChecksum)?;
        if crc32c([self.crc.to_le_bytes().as_slice(), table]) != u32::from_le_bytes(*crc) {
            return Err(Damage::TableChecksum);
        }
        let (crcs, _) = table.as_chunks::<4>();
        Ok(crcs.iter().map(|crc| u32::from_le_bytes(*crc)).collect())
    }
}

/// A CRC for each block of a body that comes in parts, which are cut anywhere.
#[derive(Debug)]
pub(crate) struct BlockCrcs {
    crcs: Vec<u32>,
    digest: Digest,
    room: usize,
}

impl BlockCrcs {
    pub(crate) fn new() -> Self {
        Self { crcs: Vec::new(), digest: Digest::new(CrcAlgorithm::Crc32Iscsi), room: BLOCK_BYTES as usize }
    }

    /// Those of all these parts.
    pub(crate) fn of(body: &[Bytes]) -> Vec<u32> {
        let mut crcs = Self::new();
        for part in body {
            crcs.add(part);
        }
        crcs.finish()
    }

    /// Takes the next part.
    pub(crate) fn add(&mut self, part: &[u8]) {
        let mut rest = part;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rest.len().min(self.room));
            self.digest.update(now);
            self.room -= now.len();
            rest = later;
            if self.room == 0 {
                self.crcs.push(low_half(self.digest.finalize_reset()));
                self.room = BLOCK_BYTES as usize;
            }
        }
    }

    /// All of them, the last block's too, which may be short.
    pub(crate) fn finish(mut self) -> Vec<u32> {
        if self.room < BLOCK_BYTES as usize {
            self.crcs.push(low_half(self.digest.finalize()));
        }
        self.crcs
    }
}

pub(crate) fn as_u64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
