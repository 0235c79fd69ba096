//! Records that name themselves: the payload of record `id` of a stream is a function of the run's seed and of the id.
//!
//! ```text
//!  0      4          8          16       20
//!  ├──────┼──────────┼──────────┼────────┼───────────────┐
//!  │magic │stream u32│  id u64  │len u32 │ body, len - 20│     integers little-endian, len counts the header too
//!  └──────┴──────────┴──────────┴────────┴───────────────┘
//! ```
//!
//! A reader needs no hash: it makes the payload again from the seed and compares every byte. Some records are empty or
//! have one byte and can name nothing; the first record of a request never is one, so that those stand behind a
//! neighbour that tells who they are.

use crate::random::Random;

/// What each frame begins with. The first byte is below 0x80: a record of one byte never looks like it.
pub const MAGIC: [u8; 4] = [0x01, b'H', b'y', b'F'];

/// Bytes of a header.
pub const HEADER: usize = 20;

/// Largest payload the service takes: 1,000 KiB. Source: `PutRecord`, service API reference.
pub const PAYLOAD_MAX: usize = 1_024_000;

/// Names a record: its stream's number and its number in the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    /// The stream's number in the plan of the run.
    pub stream: u32,
    /// The record's number, given out by the oracle from 0 upward.
    pub id: u64,
}

/// How the payload of a record is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// No byte.
    Empty,
    /// This one byte, 0x80 or above.
    Tiny(u8),
    /// A frame of so many bytes, header included.
    Frame(usize),
}

/// The shape of a record. `leads` says that it is the first of its request, and so a frame.
pub fn shape(seed: u64, name: Name, leads: bool) -> Shape {
    let mut random = Random::of(&[seed, u64::from(name.stream), name.id]);
    let dice = random.below(65_536);
    match dice {
        0..1024 if !leads => Shape::Empty,
        1024..2048 if !leads => Shape::Tiny(0x80 | random.next_u64().to_le_bytes()[0]),
        2048 => Shape::Frame(PAYLOAD_MAX),
        2049..2100 => Shape::Frame(HEADER + random.index(200_000)),
        2100..8192 => Shape::Frame(HEADER + random.index(10_000)),
        _ => Shape::Frame(HEADER + random.index(600)),
    }
}

/// Appends the payload of a record.
pub fn write(seed: u64, name: Name, leads: bool, out: &mut Vec<u8>) {
    match shape(seed, name, leads) {
        Shape::Empty => {}
        Shape::Tiny(byte) => out.push(byte),
        Shape::Frame(len) => {
            out.extend_from_slice(&MAGIC);
            out.extend_from_slice(&name.stream.to_le_bytes());
            out.extend_from_slice(&name.id.to_le_bytes());
            out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
            body(seed, name, out, len - HEADER);
        }
    }
}

/// A quarter of the bodies is noise of all byte values, the rest repeats a phrase: so compression has work to do.
fn body(seed: u64, name: Name, out: &mut Vec<u8>, len: usize) {
    let mut random = Random::of(&[!seed, u64::from(name.stream), name.id]);
    if random.below(4) == 0 {
        random.fill(out, len);
        return;
    }
    let mut phrase = Vec::new();
    random.fill(&mut phrase, 48);
    let end = out.len() + len;
    while out.len() < end {
        let take = phrase.len().min(end - out.len());
        out.extend_from_slice(&phrase[..take]);
    }
}

/// What stands at some place of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item<'a> {
    /// A frame, whole as far as its length says.
    Frame(Name, &'a [u8]),
    /// A record of one byte.
    Tiny(u8),
    /// An empty record. Only seen where records are delimited.
    Empty,
    /// Bytes that are no record: where they start, and how many.
    Broken(usize, usize),
}

/// Reads records one behind the other, as they lie in an object.
#[derive(Clone, Debug)]
pub struct Items<'a> {
    bytes: &'a [u8],
    at: usize,
    delimiter: &'static [u8],
}

impl<'a> Items<'a> {
    /// The records of these bytes, each followed by `delimiter`.
    pub fn new(bytes: &'a [u8], delimiter: &'static [u8]) -> Self {
        Self { bytes, at: 0, delimiter }
    }

    /// The record at the reading place and how long it is, or nothing when there is none.
    fn record(&self) -> Option<(Item<'a>, usize)> {
        let rest = self.bytes.get(self.at..)?;
        if let Some((name, len)) = header(rest) {
            return Some((Item::Frame(name, rest.get(..len)?), len));
        }
        match rest.first()? {
            byte @ 0x80.. => Some((Item::Tiny(*byte), 1)),
            _ if !self.delimiter.is_empty() && rest.starts_with(self.delimiter) => Some((Item::Empty, 0)),
            _ => None,
        }
    }

    /// Goes on at the next frame, if there is one.
    fn skip_broken(&mut self) -> Item<'a> {
        let start = self.at;
        let rest = self.bytes.get(start + 1..).unwrap_or_default();
        let next = rest.windows(MAGIC.len()).position(|window| window == MAGIC);
        self.at = next.map_or(self.bytes.len(), |next| start + 1 + next);
        Item::Broken(start, self.at - start)
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        if self.at >= self.bytes.len() {
            return None;
        }
        let Some((item, len)) = self.record() else { return Some(self.skip_broken()) };
        let behind = self.at + len;
        if !self.bytes.get(behind..).is_some_and(|rest| rest.starts_with(self.delimiter)) {
            return Some(self.skip_broken());
        }
        self.at = behind + self.delimiter.len();
        Some(item)
    }
}

fn header(bytes: &[u8]) -> Option<(Name, usize)> {
    let (magic, rest) = bytes.split_first_chunk::<4>()?;
    let (stream, rest) = rest.split_first_chunk::<4>()?;
    let (id, rest) = rest.split_first_chunk::<8>()?;
    let (len, _) = rest.split_first_chunk::<4>()?;
    let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
    let name = Name { stream: u32::from_le_bytes(*stream), id: u64::from_le_bytes(*id) };
    (*magic == MAGIC && len >= HEADER).then_some((name, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEED: u64 = 11;

    fn name(id: u64) -> Name {
        Name { stream: 3, id }
    }

    #[test]
    fn what_is_written_is_read_again_with_and_without_a_delimiter() {
        for delimiter in [&b""[..], b"\n"] {
            let mut bytes = Vec::new();
            for id in 0..3000 {
                write(SEED, name(id), id % 100 == 0, &mut bytes);
                bytes.extend_from_slice(delimiter);
            }
            let mut ids = 0..3000;
            for item in Items::new(&bytes, delimiter) {
                let id = loop {
                    let id = ids.next().expect("no more records than were written");
                    let visible = !delimiter.is_empty() || shape(SEED, name(id), id % 100 == 0) != Shape::Empty;
                    if visible {
                        break id;
                    }
                };
                match (shape(SEED, name(id), id % 100 == 0), item) {
                    (Shape::Empty, Item::Empty) => {}
                    (Shape::Tiny(want), Item::Tiny(byte)) => assert_eq!(want, byte),
                    (Shape::Frame(len), Item::Frame(of, frame)) => assert_eq!((of, frame.len()), (name(id), len)),
                    (want, got) => panic!("record {id}: {want:?} was read as {got:?}"),
                }
            }
        }
    }

    #[test]
    fn sizes_are_of_all_kinds_and_a_leading_record_is_never_small() {
        let shapes: Vec<Shape> = (0..200_000).map(|id| shape(SEED, name(id), false)).collect();
        let count = |is: fn(&Shape) -> bool| shapes.iter().filter(|shape| is(shape)).count();
        assert!(count(|shape| matches!(shape, Shape::Empty)) > 1000);
        assert!(count(|shape| matches!(shape, Shape::Tiny(_))) > 1000);
        assert!(count(|shape| *shape == Shape::Frame(PAYLOAD_MAX)) > 0);
        assert!((0..200_000).all(|id| matches!(shape(SEED, name(id), true), Shape::Frame(_))));
    }

    #[test]
    fn a_cut_frame_is_broken_and_reading_goes_on_at_the_next() {
        let mut bytes = Vec::new();
        write(SEED, name(0), true, &mut bytes);
        bytes.truncate(bytes.len() - 1);
        let cut = bytes.len();
        write(SEED, name(1), true, &mut bytes);
        let items: Vec<Item<'_>> = Items::new(&bytes, b"\n").collect();
        assert!(matches!(items.first(), Some(Item::Broken(0, _))), "{items:?}");
        // Without a delimiter the first frame swallows a byte of the second, which the comparison of bytes finds.
        let items: Vec<Item<'_>> = Items::new(&bytes[..cut], b"").collect();
        assert_eq!(items, [Item::Broken(0, cut)]);
    }
}
