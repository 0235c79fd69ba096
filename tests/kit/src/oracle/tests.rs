//! The oracle is proved by lying to it: each kind of wrong must be found, and nothing else.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Mutex;

use super::{Arrivals, Claims, Counts, Delimiter, PlacePlan, Plan, Records, StreamPlan, Verdict};
use crate::document::{self, Fate, fate};
use crate::frame::{Name, Shape, shape, write};

const SEED: u64 = 42;

struct Run {
    folder: tempfile::TempDir,
    claims: Mutex<Claims>,
    arrivals: Arrivals,
    delimiter: Delimiter,
}

impl Run {
    fn new(delimiter: Delimiter) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let places = vec![PlacePlan::Folder(folder.path().to_owned())];
        let (name, records, letters) = ("s".to_owned(), Records::Frames, None);
        let stream = StreamPlan { name, records, delimiter, places, letters };
        Self::of(folder, stream)
    }

    /// A stream of documents whose destination refuses some: what it takes arrives below `s`, what it refuses below
    /// `letters`.
    fn of_documents() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let below = |name| PlacePlan::Folder(folder.path().join(name));
        let (name, records, delimiter) = ("s".to_owned(), Records::Documents, Delimiter::Newline);
        let (places, letters) = (vec![below("s")], Some(below("letters")));
        let stream = StreamPlan { name, records, delimiter, places, letters };
        Self::of(folder, stream)
    }

    fn of(folder: tempfile::TempDir, stream: StreamPlan) -> Self {
        let delimiter = stream.delimiter;
        let plan = Plan { seed: SEED, streams: vec![stream] };
        Self { claims: Mutex::new(Claims::new(&plan)), arrivals: Arrivals::new(&plan).unwrap(), folder, delimiter }
    }

    fn claim(&self, count: u64) -> u64 {
        self.claims.lock().unwrap().claim(0, count).unwrap()
    }

    fn ack(&self, first: u64, count: u64) {
        self.claims.lock().unwrap().acked(0, first, count);
    }

    /// Claims and acknowledges a request.
    fn put(&self, count: u64) -> std::ops::Range<u64> {
        let first = self.claim(count);
        self.ack(first, count);
        first..first + count
    }

    /// The bytes of these records as an object has them; each request must be named by its first id.
    fn bytes(&self, ids: impl IntoIterator<Item = u64>) -> Vec<u8> {
        let mut bytes = Vec::new();
        for id in ids {
            let leads =
                self.claims.lock().unwrap().stream(0).unwrap().request(id).is_none_or(|request| request.first == id);
            write(SEED, Name { stream: 0, id }, leads, &mut bytes);
            bytes.extend_from_slice(self.delimiter.as_bytes());
        }
        bytes
    }

    /// Stores these documents as rows of a transaction.
    fn store_rows(&self, key: &str, ids: impl IntoIterator<Item = u64>) {
        let rows = ids.into_iter().flat_map(|id| [document(id), b"\n".to_vec()].concat());
        self.store(&format!("s/{key}"), &rows.collect::<Vec<u8>>());
    }

    /// Stores these documents as dead letters.
    fn store_letters(&self, key: &str, ids: impl IntoIterator<Item = u64>) {
        let lines = ids.into_iter().map(|id| {
            let data = base64_simd::STANDARD.encode_to_string(document(id));
            format!("{{\"attemptsMade\":1,\"rawData\":\"{data}\"}}\n")
        });
        self.store(&format!("letters/{key}"), lines.collect::<String>().as_bytes());
    }

    fn store(&self, key: &str, bytes: &[u8]) {
        let path = self.folder.path().join(key);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    fn verdict(&mut self) -> Verdict {
        self.arrivals.poll(&self.claims).unwrap();
        self.claims.lock().unwrap().verdict()
    }

    /// The verdict, which must be wrong in this one way.
    #[track_caller]
    fn wrong(&mut self, which: fn(&Counts) -> u64) -> u64 {
        let verdict = self.verdict();
        assert!(!verdict.ok, "{verdict:?}");
        assert_eq!(which(&verdict.total), verdict.total.wrong(), "wrong in another way: {verdict:#?}");
        assert!(!verdict.examples.is_empty() || verdict.total.lost + verdict.total.invented > 0);
        verdict.total.wrong()
    }

    #[track_caller]
    fn right(&mut self) -> Counts {
        let verdict = self.verdict();
        assert!(verdict.ok, "{verdict:#?}");
        verdict.total
    }
}

fn document(id: u64) -> Vec<u8> {
    let mut out = Vec::new();
    document::write(SEED, Name { stream: 0, id }, &mut out);
    out
}

/// Those of the first thousand documents that are taken, and the others.
fn taken_and_refused() -> (Vec<u64>, Vec<u64>) {
    (0..1_000).partition(|id| fate(SEED, Name { stream: 0, id: *id }) == Fate::Taken)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn what_arrived_whole_is_right_however_it_is_cut_into_objects() {
    for delimiter in [Delimiter::None, Delimiter::Newline] {
        for cut in 1..40 {
            let mut run = Run::new(delimiter);
            let ids: Vec<u64> = (0..40).flat_map(|_| run.put(50)).collect();
            for (index, part) in ids.chunks(ids.len() / cut + 1).enumerate() {
                run.store(&format!("s/{index}"), &run.bytes(part.iter().copied()));
            }
            let counts = run.right();
            assert_eq!(counts.obliged, 2000);
            assert_eq!(counts.arrived + counts.invisible, 2000, "cut {cut}, {delimiter:?}");
        }
    }
}

#[test]
fn one_object_per_record_is_right_too() {
    for delimiter in [Delimiter::None, Delimiter::Newline] {
        let mut run = Run::new(delimiter);
        for id in run.put(2000) {
            run.store(&format!("s/{id}"), &run.bytes([id]));
        }
        run.right();
    }
}

#[test]
fn each_record_that_is_missing_is_lost_small_ones_too() {
    for delimiter in [Delimiter::None, Delimiter::Newline] {
        let mut run = Run::new(delimiter);
        let ids = run.put(500);
        let visible: Vec<u64> = ids
            .clone()
            .filter(|id| {
                delimiter == Delimiter::Newline || shape(SEED, Name { stream: 0, id: *id }, *id == 0) != Shape::Empty
            })
            .collect();
        for missing in visible.iter().step_by(3) {
            let mut run = Run::new(delimiter);
            let ids = run.put(500);
            run.store("s/all", &run.bytes(ids.filter(|id| id != missing)));
            assert_eq!(run.wrong(|counts| counts.lost), 1, "record {missing}, {delimiter:?}");
        }
        run.store("s/all", &run.bytes(ids));
        run.right();
    }
}

#[test]
fn what_was_not_answered_may_arrive_or_not() {
    let mut run = Run::new(Delimiter::None);
    let first = run.claim(200);
    assert_eq!(run.right().indeterminate, 200);
    run.store("s/half", &run.bytes(first..first + 100));
    run.right();
}

#[test]
fn what_was_refused_must_not_arrive() {
    let mut run = Run::new(Delimiter::None);
    let first = run.claim(1);
    run.claims.lock().unwrap().refused(0, first, 1);
    run.right();
    run.store("s/refused", &run.bytes([first]));
    assert_eq!(run.wrong(|counts| counts.invented), 1);
}

#[test]
fn what_was_never_issued_is_invented() {
    let mut run = Run::new(Delimiter::None);
    let mut bytes = run.bytes(run.put(3));
    write(SEED, Name { stream: 0, id: 99 }, true, &mut bytes);
    write(SEED, Name { stream: 7, id: 0 }, true, &mut bytes);
    run.store("s/one", &bytes);
    assert_eq!(run.wrong(|counts| counts.invented), 2);
}

#[test]
fn what_is_there_twice_is_duplicated() {
    let mut run = Run::new(Delimiter::None);
    let ids = run.put(1);
    run.store("s/one", &run.bytes(ids.clone()));
    run.store("s/two", &run.bytes(ids));
    assert_eq!(run.wrong(|counts| counts.duplicated), 1);
}

#[test]
fn a_changed_byte_is_torn() {
    let mut run = Run::new(Delimiter::None);
    let ids = run.put(1);
    let mut bytes = run.bytes(ids);
    *bytes.last_mut().unwrap() ^= 1;
    run.store("s/one", &bytes);
    let verdict = run.verdict();
    assert_eq!((verdict.total.torn, verdict.total.lost), (1, 1), "{verdict:?}");
}

#[test]
fn an_object_that_ends_early_or_late_is_torn() {
    type Spoil = fn(Vec<u8>) -> Vec<u8>;
    let cases: [(&str, Spoil); 5] = [
        ("cut.gz", |mut bytes| {
            bytes.truncate(bytes.len() - 1);
            bytes
        }),
        ("two-members.gz", |bytes| [gzip(b""), bytes].concat()),
        ("trailing.gz", |bytes| [bytes, vec![0]].concat()),
        ("not.zst", |bytes| bytes),
        ("empty.gz", |_| Vec::new()),
    ];
    for (key, spoil) in cases {
        let mut run = Run::new(Delimiter::None);
        let bytes = gzip(&run.bytes(run.claim(1)..1));
        run.store(key, &spoil(bytes));
        assert_eq!(run.wrong(|counts| counts.torn), 1, "{key}");
    }
}

#[test]
fn gzip_and_zstd_and_envelopes_are_opened() {
    let mut run = Run::new(Delimiter::None);
    let (one, two, three) = (run.put(10), run.put(10), run.put(1));
    run.store("a.gz", &gzip(&run.bytes(one)));
    run.store("b.zst", &zstd::encode_all(&run.bytes(two)[..], 1).unwrap());
    let data = base64_simd::STANDARD.encode_to_string(run.bytes(three));
    run.store("c", format!("{{\"attemptsMade\":1,\"rawData\":\"{data}\"}}\n").as_bytes());
    run.right();
}

#[test]
fn order_within_a_request_and_between_requests_is_kept() {
    let mut run = Run::new(Delimiter::None);
    let (one, two) = (run.put(1), run.put(1));
    run.store("s/swapped", &run.bytes(two.chain(one)));
    assert_eq!(run.wrong(|counts| counts.misordered), 1);

    let mut run = Run::new(Delimiter::None);
    run.put(2000);
    let frames: Vec<u64> =
        (0..2000).filter(|id| matches!(shape(SEED, Name { stream: 0, id: *id }, *id == 0), Shape::Frame(_))).collect();
    let small: Vec<u64> = (0..2000).filter(|id| !frames.contains(id)).collect();
    for (index, id) in small.iter().enumerate() {
        run.store(&format!("s/small-{index}"), &run.bytes([*id]));
    }
    let mut swapped = frames.clone();
    swapped.swap(5, 6);
    run.store("s/frames", &run.bytes(swapped));
    assert_eq!(run.wrong(|counts| counts.misordered), 1);
}

#[test]
fn requests_under_way_at_the_same_time_may_stand_in_any_order() {
    let mut run = Run::new(Delimiter::None);
    let (one, two) = (run.claim(1), run.claim(1));
    run.ack(one, 1);
    run.ack(two, 1);
    run.store("s/swapped", &run.bytes([two, one]));
    run.right();
}

#[test]
fn an_object_that_changes_or_disappears_is_unstable_and_one_written_again_is_not() {
    let mut run = Run::new(Delimiter::None);
    let ids = run.put(3);
    let bytes = run.bytes(ids);
    run.store("s/one", &bytes);
    run.right();
    touch(&run.folder.path().join("s/one"), &bytes);
    assert_eq!(run.right().rewritten, 1);

    touch(&run.folder.path().join("s/one"), b"other");
    assert_eq!(run.wrong(|counts| counts.unstable), 1);
    fs::remove_file(run.folder.path().join("s/one")).unwrap();
    assert_eq!(run.wrong(|counts| counts.unstable), 2);
    assert_eq!(run.wrong(|counts| counts.unstable), 2, "told once");
}

/// Writes a file again, with another time.
fn touch(path: &Path, bytes: &[u8]) {
    let before = fs::metadata(path).unwrap().modified().unwrap();
    fs::write(path, bytes).unwrap();
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_modified(before + std::time::Duration::from_secs(1)).unwrap();
}

#[test]
fn temporary_files_are_counted_apart_and_only_while_they_are_there() {
    let mut run = Run::new(Delimiter::None);
    run.store("s/.half", b"half");
    run.store("s/.hydrant/temporary/1", b"half");
    assert_eq!(run.right().leftovers, 2);
    fs::remove_file(run.folder.path().join("s/.half")).unwrap();
    assert_eq!(run.right().leftovers, 1);
}

#[test]
fn at_an_earlier_moment_only_what_was_answered_by_then_is_owed() {
    let mut run = Run::new(Delimiter::None);
    let early = run.put(10);
    let moment = run.claims.lock().unwrap().stream(0).unwrap().request(early.start).unwrap().answered;
    let later = run.put(10);
    let bytes = run.bytes(later);
    run.store("objects/later", &bytes);
    let claims = Mutex::new(run.claims.lock().unwrap().as_of(moment));
    run.arrivals.poll(&claims).unwrap();
    let total = claims.lock().unwrap().verdict().total;
    assert_eq!((total.obliged, total.indeterminate, total.invented), (10, 10, 0), "{total:?}");
    assert!(total.lost > 0 && total.lost <= 10, "the early ones are not there: {total:?}");
}

#[test]
fn documents_are_right_where_their_destination_puts_them() {
    let mut run = Run::of_documents();
    run.put(1_000);
    let (taken, mut refused) = taken_and_refused();
    run.store_rows("1", taken[..300].iter().copied());
    run.store_rows("2", taken[300..].iter().copied());
    refused.reverse();
    run.store_letters("1", refused.iter().copied());
    let counts = run.right();
    assert_eq!((counts.arrived, counts.letters), (1_000, refused.len() as u64));
}

#[test]
fn a_document_that_is_missing_is_lost_be_it_taken_or_refused() {
    let (taken, refused) = taken_and_refused();
    for missing in [taken[7], refused[1]] {
        let mut run = Run::of_documents();
        run.put(1_000);
        run.store_rows("1", taken.iter().copied().filter(|id| *id != missing));
        run.store_letters("1", refused.iter().copied().filter(|id| *id != missing));
        assert_eq!(run.wrong(|counts| counts.lost), 1, "{missing}");
    }
}

#[test]
fn a_dead_letter_that_is_there_twice_is_duplicated() {
    let (taken, refused) = taken_and_refused();
    let mut run = Run::of_documents();
    run.put(1_000);
    run.store_rows("1", taken.iter().copied());
    run.store_letters("1", refused.iter().copied());
    run.store_letters("2", [refused[0]]);
    assert_eq!(run.wrong(|counts| counts.duplicated), 1);
}

#[test]
fn a_document_on_the_wrong_side_is_misplaced() {
    let (taken, refused) = taken_and_refused();
    for (row, letter) in [(refused[0], None), (taken[0], Some(taken[1]))] {
        let mut run = Run::of_documents();
        run.put(1_000);
        run.store_rows("1", taken.iter().copied().filter(|id| ![row].contains(id) && Some(*id) != letter));
        run.store_rows("2", [row]);
        run.store_letters("1", refused.iter().copied().filter(|id| *id != row).chain(letter));
        assert_eq!(run.wrong(|counts| counts.misplaced), 1);
    }
}

#[test]
fn a_row_with_other_bytes_is_torn_and_one_that_is_no_document_too() {
    let mut run = Run::of_documents();
    run.put(1_000);
    let (taken, refused) = taken_and_refused();
    run.store_rows("1", taken[1..].iter().copied());
    run.store_letters("1", refused);
    let mut spoiled = document(taken[0]);
    let body = spoiled.len() - 3;
    spoiled[body] ^= 1;
    run.store("s/2", &[&spoiled[..], b"\n", b"who knows\n"].concat());
    let total = run.verdict().total;
    assert_eq!((total.torn, total.lost), (2, 1), "{total:?}");
}

#[test]
fn rows_of_a_transaction_have_an_order_and_dead_letters_have_none() {
    let mut run = Run::of_documents();
    run.put(1_000);
    let (mut taken, mut refused) = taken_and_refused();
    taken.swap(3, 4);
    refused.swap(0, 1);
    run.store_rows("1", taken);
    run.store_letters("1", refused);
    assert_eq!(run.wrong(|counts| counts.misordered), 1);
}
