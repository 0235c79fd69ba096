//! Body: the bytes of a sealed batch, read from its file in parts, each part checked before it is handed out.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use hydrant_core::{BatchId, ByteSize};

use super::format::{BODY_AT, Damage, HEAD_BYTES, Head, as_u64};
use super::header::Header;
use crate::buffers::Buffers;
use crate::fields::crc32c;
use crate::files::{File, Files};

/// How much of a body is read at a time when all of it is checked: a few blocks.
const VERIFY_BYTES: usize = 4 << 20;

/// The body of one sealed batch. Cheap to clone; every clone reads the same open file, which stays readable when
/// the batch is removed meanwhile.
#[derive(Clone)]
pub struct Body {
    inner: Arc<Inner>,
}

struct Inner {
    file: Arc<dyn File>,
    head: Head,
    crcs: Vec<u32>,
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("len", &self.inner.head.body_bytes).finish_non_exhaustive()
    }
}

/// What a batch file turned out to be.
#[derive(Debug)]
pub(crate) enum Opened {
    /// Everything but the body's blocks has been checked; those are as they are read.
    Whole(Header, Body),
    /// Not what was written; with the header, if at least that is whole.
    Damaged(Option<Header>, Damage),
}

/// Opens the batch file of `batch`.
pub(crate) fn open(files: &dyn Files, path: &Path, batch: BatchId) -> io::Result<Opened> {
    let file = files.open_read_only(path)?;
    let file_bytes = file.len()?;
    let (head, header) = match read_header(&*file, file_bytes, batch)? {
        Ok(read) => read,
        Err(damage) => return Ok(Opened::Damaged(None, damage)),
    };
    if file_bytes != head.file_bytes() {
        let damage = Damage::Length { expected: head.file_bytes(), found: file_bytes };
        return Ok(Opened::Damaged(Some(header), damage));
    }
    let table = read_part(&*file, head.table_at(), head.table_bytes(), file_bytes)?.unwrap_or_default();
    Ok(match head.read_table(&table) {
        Ok(crcs) => Opened::Whole(header, Body { inner: Arc::new(Inner { file, head, crcs }) }),
        Err(damage) => Opened::Damaged(Some(header), damage),
    })
}

/// Reads and checks head and header. The outer error is one of reading, the inner one of what was read.
fn read_header(file: &dyn File, file_bytes: u64, batch: BatchId) -> io::Result<Result<(Head, Header), Damage>> {
    let mut head = [0; HEAD_BYTES];
    if file.read_at(0, &mut head)? < HEAD_BYTES {
        return Ok(Err(Damage::Length { expected: as_u64(HEAD_BYTES), found: file_bytes }));
    }
    let head = match Head::decode(&head) {
        Ok(head) => head,
        Err(Damage::Version(version)) => return other_version(file, file_bytes, head, version).map(Err),
        Err(damage) => return Ok(Err(damage)),
    };
    let Some(bytes) = read_part(file, head.header_at(), as_u64(head.header_bytes), file_bytes)? else {
        return Ok(Err(Damage::Length { expected: head.file_bytes(), found: file_bytes }));
    };
    Ok(head.header(&bytes).and_then(
        |header| {
            if header.batch == batch { Ok((head, header)) } else { Err(Damage::Name) }
        },
    ))
}

/// Tells a flipped bit from a file that another version of this program wrote. The latter is whole, and whoever took it for
/// damage would lose what it holds or deliver it twice: it is an error of reading, [`io::ErrorKind::Unsupported`].
fn other_version(file: &dyn File, file_bytes: u64, head: [u8; HEAD_BYTES], version: u32) -> io::Result<Damage> {
    if let Ok(head) = Head::decode(&Head::with_our_version(head))
        && let Some(bytes) = read_part(file, head.header_at(), as_u64(head.header_bytes), file_bytes)?
        && head.header(&bytes).is_ok()
    {
        return Ok(Damage::Head);
    }
    Err(io::Error::new(io::ErrorKind::Unsupported, Damage::Version(version)))
}

/// Exactly these bytes of a file that is `file_bytes` long; `None` when it does not have them. So what a file says
/// of lengths never makes us allocate more than it has.
fn read_part(file: &dyn File, offset: u64, len: u64, file_bytes: u64) -> io::Result<Option<Vec<u8>>> {
    let Some(len) = usize::try_from(len).ok().filter(|_| offset.saturating_add(len) <= file_bytes) else {
        return Ok(None);
    };
    let mut bytes = vec![0; len];
    let read = file.read_at(offset, &mut bytes)?;
    Ok((read == len).then_some(bytes))
}

impl Body {
    /// As [`Blob::read_at`](hydrant_core::Blob::read_at), on the caller's thread.
    ///
    /// # Errors
    /// As [`read_into`](Self::read_into).
    pub fn read(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        self.read_into(offset, len, &Buffers::default())
    }

    /// The same, into memory of these buffers.
    ///
    /// # Errors
    /// When the file cannot be read; [`io::ErrorKind::InvalidData`] around a [`Damage`] when a block it touches is
    /// not what was written.
    pub fn read_into(&self, offset: u64, len: usize, buffers: &Buffers) -> io::Result<Bytes> {
        let Inner { file, head, crcs } = &*self.inner;
        let end = offset.saturating_add(as_u64(len)).min(head.body_bytes);
        if offset >= end {
            return Ok(Bytes::new());
        }
        let block_bytes = u64::from(head.block_bytes);
        let first_block = offset / block_bytes;
        let from = first_block * block_bytes;
        let upto = end.next_multiple_of(block_bytes).min(head.body_bytes);
        let mut blocks = buffers.take(usize::try_from(upto - from).unwrap_or(usize::MAX));
        if file.read_at(BODY_AT + from, &mut blocks)? < blocks.len() {
            return Err(Damage::Length { expected: head.file_bytes(), found: file.len()? }.into());
        }
        for (number, block) in (first_block..).zip(blocks.chunks(head.block_bytes as usize)) {
            let expected = usize::try_from(number).ok().and_then(|number| crcs.get(number));
            if expected != Some(&crc32c([block])) {
                return Err(Damage::Block(number).into());
            }
        }
        let inside = |at: u64| usize::try_from(at - from).unwrap_or(usize::MAX);
        Ok(blocks.freeze().slice(inside(offset)..inside(end)))
    }

    /// Reads all of it and says what is damaged first, if anything is.
    pub(crate) fn verify(&self) -> io::Result<Option<String>> {
        let buffers = Buffers::new(ByteSize::bytes(as_u64(VERIFY_BYTES)));
        for offset in (0..self.bytes()).step_by(VERIFY_BYTES) {
            match self.read_into(offset, VERIFY_BYTES, &buffers) {
                Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(Some(error.to_string())),
                read => read?,
            };
        }
        Ok(None)
    }

    /// How many bytes there are.
    pub fn bytes(&self) -> u64 {
        self.inner.head.body_bytes
    }
}
