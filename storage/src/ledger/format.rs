//! Layout of a ledger file: a head, a frame with the checkpoint, then a frame for each append. Pure;
//! `docs/formats/ledger.md` has the byte tables.
//!
//! ```text
//!   ┌──────┬──────────────────┬──────────┬──────────┬───────────────────────┐
//!   │ head │ frame 0          │ frame 1  │ frame 2  │ zeros: allocated room │
//!   │      │ the checkpoint   │ entries  │ entries  │                       │
//!   └──────┴──────────────────┴──────────┴──────────┴───────────────────────┘
//! ```
//!
//! One append is one frame with one CRC, so it is there or it is not. Each append was durable before the next was
//! written: bytes that are no frame are a torn tail if no frame follows them, and damage if one does.

use super::checkpoint::{Checkpoint, Contradiction};
use super::entry::Entry;
use crate::fields::{Fields, Malformed, crc32c};

pub(crate) const HEAD_BYTES: usize = 24;
const MAGIC: [u8; 8] = *b"HYDLEDGR";
/// The version of a file whose checkpoint names no redriven objects. Every program reads it.
const PLAIN: u32 = 1;
/// The version of a file whose checkpoint may name some.
const REDRIVEN: u32 = 2;
const FRAME_HEAD_BYTES: usize = 20;
const MARK: [u8; 4] = *b"HLFR";

/// Largest ledger file that is read. A checkpoint of 100,000 batches with a hundred runs each stays below.
pub(crate) const FILE_BYTES_MAX: u64 = 256 << 20;

/// Why a ledger cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The file does not start as a ledger of its number does.
    #[error("not a ledger file of this number")]
    Head,
    /// It was written in a way that this program does not know.
    #[error("version {0} of the format is not known")]
    Version(u32),
    /// It is larger than a ledger gets.
    #[error("larger than {FILE_BYTES_MAX} bytes")]
    TooLarge,
    /// The checkpoint is not what was written.
    #[error("checksum of the checkpoint does not match")]
    Checkpoint,
    /// An append is not what was written, but a later one is whole.
    #[error("an invalid entry lies before a valid one")]
    Gap,
    /// The checksum is right, the content is not.
    #[error("{0}")]
    Malformed(#[from] Malformed),
    /// An entry cannot be true after the ones before it.
    #[error("{0}")]
    Contradiction(#[from] Contradiction),
}

/// What a ledger file says, and how far it can be believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scanned {
    /// The checkpoint with all entries applied.
    pub(crate) state: Checkpoint,
    /// How many frames there are, the checkpoint's included: the number of the next one.
    pub(crate) frames: u64,
    /// Where the checkpoint's frame ends.
    pub(crate) checkpoint_end: usize,
    /// Where the last whole frame ends and the next one goes.
    pub(crate) end: usize,
    /// Where the torn tail behind it ends; equal to `end` when there is none.
    pub(crate) torn_end: usize,
}

/// The head of the ledger file of this number that starts with this checkpoint. It has the lowest version that will do, so
/// that an older program reads the ledger of every stream into which nothing was redriven, and no other.
pub(crate) fn head(number: u64, checkpoint: &Checkpoint) -> Vec<u8> {
    head_of(number, if checkpoint.redriven.is_empty() { PLAIN } else { REDRIVEN })
}

fn head_of(number: u64, version: u32) -> Vec<u8> {
    let fields = [MAGIC.as_slice(), &version.to_le_bytes(), &number.to_le_bytes()].concat();
    let crc = crc32c([fields.as_slice()]);
    [fields.as_slice(), &crc.to_le_bytes()].concat()
}

/// The bytes of frame `sequence` in the ledger file of this number. `None` when the body is longer than a file.
pub(crate) fn frame(number: u64, sequence: u64, body: &[u8]) -> Option<Vec<u8>> {
    let len = u32::try_from(body.len()).ok().filter(|&len| u64::from(len) < FILE_BYTES_MAX)?.to_le_bytes();
    let crc = frame_crc(number, len, sequence, body).to_le_bytes();
    Some([MARK.as_slice(), &len, &sequence.to_le_bytes(), &crc, body].concat())
}

/// Ties a frame to its file and its place in it, so that a stray one never fits.
fn frame_crc(number: u64, len: [u8; 4], sequence: u64, body: &[u8]) -> u32 {
    crc32c([number.to_le_bytes().as_slice(), &len, &sequence.to_le_bytes(), body])
}

/// The body of one append.
pub(crate) fn entries(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        entry.encode(&mut out);
    }
    out
}

/// Reads a whole ledger file.
///
/// # Errors
/// What is wrong and at which byte.
pub(crate) fn scan(bytes: &[u8], number: u64) -> Result<Scanned, (usize, Damage)> {
    let (version, rest) = read_head(bytes, number).map_err(|damage| (0, damage))?;
    let (_, body, rest) =
        read_frame(rest, number).filter(|frame| frame.0 == 0).ok_or((HEAD_BYTES, Damage::Checkpoint))?;
    let mut state = Checkpoint::decode(body).map_err(|malformed| (HEAD_BYTES, malformed.into()))?;
    if version == PLAIN && !state.redriven.is_empty() {
        return Err((HEAD_BYTES, Malformed("redriven objects in a file of this version").into()));
    }
    let checkpoint_end = bytes.len() - rest.len();
    let (mut frames, mut rest) = (1, rest);
    while let Some((_, body, after)) = read_frame(rest, number).filter(|frame| frame.0 == frames) {
        apply(&mut state, body).map_err(|damage| (bytes.len() - rest.len(), damage))?;
        frames += 1;
        rest = after;
    }
    let end = bytes.len() - rest.len();
    if later_frame(rest, number, frames) {
        return Err((end, Damage::Gap));
    }
    state.trim();
    let torn = rest.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    Ok(Scanned { state, frames, checkpoint_end, end, torn_end: end + torn })
}

/// The version, and what follows the head.
fn read_head(bytes: &[u8], number: u64) -> Result<(u32, &[u8]), Damage> {
    let (found, rest) = bytes.split_at_checked(HEAD_BYTES).ok_or(Damage::Head)?;
    let mut fields = Fields::new(found);
    let magic: [u8; 8] = fields.array("magic")?;
    match fields.u32("version")? {
        version @ (PLAIN | REDRIVEN) if found == head_of(number, version) => Ok((version, rest)),
        version if magic == MAGIC && !matches!(version, PLAIN | REDRIVEN) => Err(Damage::Version(version)),
        _ => Err(Damage::Head),
    }
}

/// The frame at the front: its number, its body, and what follows.
fn read_frame(bytes: &[u8], number: u64) -> Option<(u64, &[u8], &[u8])> {
    let (head, rest) = bytes.split_at_checked(FRAME_HEAD_BYTES)?;
    let mut fields = Fields::new(head);
    let mark: [u8; 4] = fields.array("mark").ok()?;
    let len: [u8; 4] = fields.array("length").ok()?;
    let sequence = fields.u64("number").ok()?;
    let crc = fields.u32("checksum").ok()?;
    let (body, rest) = rest.split_at_checked(usize::try_from(u32::from_le_bytes(len)).ok()?)?;
    (mark == MARK && crc == frame_crc(number, len, sequence, body)).then_some((sequence, body, rest))
}

/// Whether a frame that was appended later starts anywhere in `bytes`.
fn later_frame(bytes: &[u8], number: u64, expected: u64) -> bool {
    bytes
        .windows(MARK.len())
        .enumerate()
        .filter(|(_, window)| *window == MARK)
        .filter_map(|(at, _)| read_frame(bytes.get(at..)?, number))
        .any(|(sequence, ..)| sequence >= expected)
}

fn apply(state: &mut Checkpoint, body: &[u8]) -> Result<(), Damage> {
    let mut fields = Fields::new(body);
    while !fields.is_empty() {
        state.apply(&Entry::decode(&mut fields)?)?;
    }
    Ok(())
}
