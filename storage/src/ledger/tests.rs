//! Goal: the ledger says after any end of a process what it said before, or says that it cannot. Method: the pure
//! parts alone here; the file on the simulated disk in `disk_tests`; the whole of storage in `storage/tests`.

use hydrant_core::{BatchId, PieceId, Position, Span, Timestamp};
use proptest::prelude::*;

use super::entry::batch as read_batch;
use super::format::{HEAD_BYTES, frame, head, scan};
use super::*;
use crate::fields::Fields;
use crate::outbox::{Content, Found, Header, Letters, SinkMark};
use crate::runs::Runs;

fn batch(number: u8) -> BatchId {
    BatchId::from_bytes([number; 16])
}

fn span(first: u64, count: u64) -> Span {
    Span::new(Position::new(first), count)
}

fn runs(spans: &[Span]) -> Runs {
    spans.iter().copied().collect()
}

fn sealed(number: u8, spans: &[Span]) -> Entry {
    Entry::Sealed { batch: batch(number), pieces: runs(spans) }
}

fn settled(number: u8) -> Entry {
    Entry::Settled { batch: batch(number) }
}

fn after(entries: &[Entry]) -> Checkpoint {
    let mut state = Checkpoint::default();
    for entry in entries {
        state.apply(entry).unwrap();
    }
    state
}

fn refusal() -> Refusal {
    Refusal {
        stage: Stage::Deliver,
        code: "invalid".into(),
        message: "no such column".into(),
        attempts: 2,
        at: Timestamp::from_millis(1_700_000_000_000),
        outcome_unknown: false,
    }
}

fn letters(number: u8, ordinals: &[u32]) -> Vec<Letters> {
    vec![Letters { batch: batch(number), ordinals: ordinals.iter().copied().collect() }]
}

/// One of each kind.
fn one_of_each() -> Vec<Entry> {
    let refused = Refused { ordinals: [1].into_iter().collect(), why: refusal() };
    let mut pieces = runs(&[span(10, 5)]);
    pieces.push(PieceId { position: Position::new(15), sub: 1, of: 3 });
    vec![
        Entry::Sealed { batch: batch(1), pieces },
        sealed(2, &[span(20, 1)]),
        Entry::Answered {
            batch: batch(1),
            answers: Answers { done: [0, 2].into_iter().collect(), refused: vec![refused] },
        },
        Entry::Buried { batch: batch(3), pieces: runs(&[span(11, 1)]), letters: letters(1, &[1]) },
        Entry::Redirected { batch: batch(2), key: "dead/2".into() },
        settled(2),
        Entry::Lost { span: span(30, 2), why: "damaged".into() },
        Entry::Version { number: 3, from: Position::new(21) },
    ]
}

/// A ledger file with one append for each entry.
fn file(number: u64, start: &Checkpoint, entries: &[Entry]) -> Vec<u8> {
    let mut out = head(number, start);
    out.extend(frame(number, 0, &start.encode()).unwrap());
    for (sequence, entry) in (1..).zip(entries) {
        out.extend(frame(number, sequence, &format::entries(std::slice::from_ref(entry))).unwrap());
    }
    out
}

// What entries mean.

#[test]
fn what_is_sealed_counts_until_the_forget_position_passes_it() {
    let mut state = after(&[sealed(1, &[span(1, 5), span(8, 2)]), sealed(2, &[span(6, 2)])]);
    assert_eq!(state.sealed_above, runs(&[span(1, 9)]));
    assert_eq!(state.highest, Position::new(9));
    state.advance(Position::new(9));
    assert_eq!(state.sealed_above, runs(&[span(9, 1)]));
    assert_eq!(as_on_disk(&state).batches[&batch(1)].pieces, runs(&[span(9, 1)]));
    assert_eq!(state.batches[&batch(1)].pieces_sealed, 7);
    assert_eq!(state.batches[&batch(1)].hull, span(1, 9));
    state.advance(Position::new(3));
    assert_eq!(state.forget, Position::new(9), "it never goes back");
}

/// What an open makes of it.
fn as_on_disk(state: &Checkpoint) -> Checkpoint {
    Checkpoint::decode(&state.encode()).unwrap()
}

#[test]
fn of_a_batch_that_cannot_be_read_the_log_gives_what_it_still_has_and_the_rest_is_lost() {
    let before = {
        let mut state =
            after(&[sealed(1, &[span(1, 5), span(8, 2)]), sealed(2, &[span(6, 2)]), sealed(3, &[span(12, 2)])]);
        state.advance(Position::new(10));
        state
    };
    let kept_from = |kept_from| {
        let mut state = before.clone();
        let given = state.give_back(batch(1), Position::new(kept_from)).unwrap();
        assert!(!state.batches.contains_key(&batch(1)));
        assert_eq!((given.hull, given.again.len() + given.lost), (span(1, 9), 7));
        assert_eq!(state.lost_records, given.lost);
        assert_eq!(as_on_disk(&state).forget, state.forget);
        (state.forget.get(), state.sealed_above, given.again)
    };
    assert_eq!(kept_from(1), (1, runs(&[span(6, 2), span(12, 2)]), runs(&[span(1, 5), span(8, 2)])));
    assert_eq!(kept_from(4), (4, runs(&[span(6, 2), span(12, 2)]), runs(&[span(4, 2), span(8, 2)])));
    assert_eq!(kept_from(9), (9, runs(&[span(12, 2)]), runs(&[span(9, 1)])));
    assert_eq!(kept_from(10), (10, runs(&[span(12, 2)]), Runs::new()));
}

#[test]
fn only_a_batch_that_is_owed_is_given_back() {
    let mut state = after(&[sealed(1, &[span(1, 5)]), settled(1)]);
    assert_eq!(state.give_back(batch(2), Position::FIRST), None);
    assert_eq!(state.give_back(batch(1), Position::FIRST), None);
    assert_eq!((state.lost_records, state.forget), (0, Position::ZERO));
}

#[test]
fn a_settled_batch_is_not_owed_but_known_until_its_unlink_is_durable() {
    let mut state = after(&[sealed(1, &[span(1, 5)]), settled(1)]);
    assert_eq!(state.owed().count(), 0);
    assert!(state.batches[&batch(1)].settled);
    assert_eq!(state.sealed_above, runs(&[span(1, 5)]), "its records are not processed again");
    state.apply(&settled(1)).unwrap();
    state.unlinked(batch(1));
    assert!(state.batches.is_empty());
    assert_eq!(state.apply(&settled(1)), Err(Contradiction::UnknownBatch(batch(1))));
}

#[test]
fn answers_add_up_and_a_redirection_holds() {
    let mut state = after(&one_of_each()[..3]);
    let answers = |state: &Checkpoint| state.batches[&batch(1)].answers.clone();
    assert_eq!(answers(&state).done, [0, 2].into_iter().collect());
    assert_eq!((answers(&state).unburied(), state.batches[&batch(1)].left()), (1, 4));
    let refused = Refused { ordinals: [4].into_iter().collect(), why: refusal() };
    let more = Answers { done: [3].into_iter().collect(), refused: vec![refused] };
    state.apply(&Entry::Answered { batch: batch(1), answers: more }).unwrap();
    assert_eq!(answers(&state).done, [0, 2, 3].into_iter().collect());
    assert_eq!(answers(&state).refused.len(), 1, "those with the same reason lie together");
    assert_eq!(answers(&state).answered(), (0..5).collect());
    assert_eq!(as_on_disk(&state), state);
    let state = after(&one_of_each()[..5]);
    assert_eq!(state.batches[&batch(2)].redirected.as_deref(), Some("dead/2"));
}

#[test]
fn what_lies_in_a_batch_of_dead_letters_is_owed_by_that_one_only() {
    let mut state = after(&one_of_each()[..4]);
    let answers = &state.batches[&batch(1)].answers;
    assert_eq!((answers.done.clone(), answers.unburied()), ((0..3).collect(), 0));
    assert_eq!((state.batches[&batch(1)].left(), state.batches[&batch(3)].left()), (3, 1));
    assert_eq!(state.owed().count(), 3);
    // Should both files be damaged, each gives back its own.
    let of_source = state.give_back(batch(1), Position::FIRST).unwrap();
    let mut expected = runs(&[span(13, 2)]);
    expected.push(PieceId { position: Position::new(15), sub: 1, of: 3 });
    assert_eq!((of_source.again, of_source.lost), (expected, 0));
    let of_letters = state.give_back(batch(3), Position::FIRST).unwrap();
    assert_eq!((of_letters.again, of_letters.lost), (runs(&[span(11, 1)]), 0));
}

#[test]
fn a_batch_of_which_much_is_forgotten_still_knows_what_it_owes() {
    let mut state = after(&[sealed(1, &[span(1, 5), span(8, 2)])]);
    let answers = Answers { done: [0, 4, 6].into_iter().collect(), refused: Vec::new() };
    state.apply(&Entry::Answered { batch: batch(1), answers }).unwrap();
    state.advance(Position::new(5));
    let mut state = as_on_disk(&state);
    let given = state.give_back(batch(1), Position::FIRST).unwrap();
    assert_eq!((given.again, given.lost), (runs(&[span(8, 1)]), 3), "records 2 to 4 were forgotten, 1, 5, 9 are done");
}

#[test]
fn lost_records_are_counted_once_and_only_if_they_were_still_owed() {
    let lost = |first, count| Entry::Lost { span: span(first, count), why: "damaged".into() };
    let mut state = after(&[sealed(1, &[span(3, 2)]), lost(1, 6), lost(1, 6)]);
    assert_eq!(state.lost_records, 4);
    assert_eq!(state.sealed_above, runs(&[span(1, 6)]));
    assert_eq!(state.highest, Position::new(6));
    state.advance(Position::new(7));
    state.apply(&lost(1, 8)).unwrap();
    assert_eq!(state.lost_records, 6);
}

#[test]
fn what_cannot_be_true_is_refused_and_changes_nothing() {
    let state = after(&[sealed(1, &[span(1, 1)]), sealed(2, &[span(2, 1)]), settled(2)]);
    let answered = |number| Entry::Answered { batch: batch(number), answers: Answers::default() };
    let redirected = |number| Entry::Redirected { batch: batch(number), key: String::new() };
    for (entry, why) in [
        (sealed(1, &[span(9, 1)]), Contradiction::SealedTwice(batch(1))),
        (answered(7), Contradiction::UnknownBatch(batch(7))),
        (redirected(7), Contradiction::UnknownBatch(batch(7))),
        (settled(7), Contradiction::UnknownBatch(batch(7))),
        (answered(2), Contradiction::SettledBefore(batch(2))),
        (redirected(2), Contradiction::SettledBefore(batch(2))),
    ] {
        let mut changed = state.clone();
        assert_eq!(changed.apply(&entry), Err(why));
        assert_eq!(changed, state);
    }
}

#[test]
fn a_version_is_kept() {
    let state = after(&[Entry::Version { number: 2, from: Position::new(5) }]);
    assert_eq!((state.version, state.version_from), (2, Position::new(5)));
}

// Bytes.

#[test]
fn entries_and_checkpoints_read_back_as_they_were_written() {
    let entries = one_of_each();
    let bytes = format::entries(&entries);
    let mut fields = Fields::new(&bytes);
    for entry in &entries {
        assert_eq!(Entry::decode(&mut fields).as_ref(), Ok(entry));
    }
    assert!(fields.is_empty());
    let mut state = after(&entries);
    assert_eq!(Checkpoint::decode(&state.encode()), Ok(state.clone()));
    state.redriven.add(batch(9), &[0, 1, 7].into_iter().collect());
    assert_eq!(Checkpoint::decode(&state.encode()), Ok(state));
}

#[test]
fn a_file_says_its_checkpoint_with_all_entries_applied_and_where_to_go_on() {
    let (start, later) = (after(&one_of_each()[..2]), &one_of_each()[2..]);
    let mut bytes = file(7, &start, later);
    let end = bytes.len();
    bytes.resize(end + 1000, 0);
    let scanned = scan(&bytes, 7).unwrap();
    assert_eq!(scanned.state, after(&one_of_each()));
    assert_eq!((scanned.frames, scanned.end, scanned.torn_end), (7, end, end));
}

#[test]
fn a_torn_tail_is_told_apart_from_damage() {
    let start = Checkpoint::default();
    let whole = file(1, &start, &one_of_each());
    let before = file(1, &start, &one_of_each()[..7]);
    for keep in before.len()..whole.len() {
        let mut torn = whole[..keep].to_vec();
        torn.resize(whole.len() + 64, 0);
        let scanned = scan(&torn, 1).unwrap();
        assert_eq!((scanned.end, scanned.frames), (before.len(), 8), "kept {keep}");
        assert!(scanned.torn_end <= keep);
        let cut = scan(&whole[..keep], 1).unwrap();
        assert_eq!((cut.end, cut.state), (scanned.end, scanned.state));
    }
    let mut headless = whole.clone();
    headless[before.len()..before.len() + 8].fill(0);
    assert_eq!(scan(&headless, 1).unwrap().end, before.len(), "a tail whose first sector is missing");
}

#[test]
fn every_flipped_byte_is_damage_but_for_the_last_append_which_is_cut() {
    let start = after(&one_of_each()[..1]);
    let entries = &one_of_each()[1..];
    let whole = file(1, &start, entries);
    let before = file(1, &start, &entries[..entries.len() - 1]);
    let without_last = scan(&before, 1).unwrap().state;
    for at in 0..whole.len() {
        for bit in [1, 0x80] {
            let mut flipped = whole.clone();
            flipped[at] ^= bit;
            match scan(&flipped, 1) {
                Ok(scanned) => {
                    assert!(at >= before.len(), "a flip at {at} went unnoticed");
                    assert_eq!(scanned.state, without_last, "byte {at}");
                }
                Err((offset, damage)) => {
                    assert!(at < before.len(), "byte {at}: {damage}");
                    assert!(offset <= at, "byte {at}: reported at {offset}");
                }
            }
        }
    }
    println!("{} flipped bits", 2 * whole.len());
}

#[test]
fn a_file_cut_anywhere_keeps_whole_appends_or_is_damaged_in_its_checkpoint() {
    let entries = one_of_each();
    let whole = file(1, &Checkpoint::default(), &entries);
    let checkpoint_end = file(1, &Checkpoint::default(), &[]).len();
    for len in 0..whole.len() {
        match scan(&whole[..len], 1) {
            Ok(scanned) => {
                let applied = usize::try_from(scanned.frames).unwrap() - 1;
                assert_eq!(scanned.state, after(&entries[..applied]), "cut at {len}");
                assert!(scanned.end <= len);
            }
            Err((_, damage)) => assert!(len < checkpoint_end, "cut at {len}: {damage}"),
        }
    }
    println!("{} cuts", whole.len());
}

#[test]
fn a_frame_of_another_file_or_place_never_fits() {
    let start = Checkpoint::default();
    let entries = [sealed(1, &[span(1, 1)]), settled(1)];
    assert_eq!(scan(&file(2, &start, &entries), 1).unwrap_err().1, Damage::Head);
    let mut swapped = file(1, &start, &[]);
    let end = swapped.len();
    for (sequence, entry) in [(2, &entries[1]), (1, &entries[0])] {
        swapped.extend(frame(1, sequence, &format::entries(std::slice::from_ref(entry))).unwrap());
    }
    assert_eq!(scan(&swapped, 1), Err((end, Damage::Gap)));
    let mut foreign = file(1, &start, &[]);
    foreign.extend(frame(2, 1, &format::entries(&entries)).unwrap());
    assert_eq!(scan(&foreign, 1).unwrap().frames, 1, "bytes of an older file are no entries");
}

#[test]
fn an_entry_that_contradicts_is_damage_even_with_a_right_checksum() {
    let start = Checkpoint::default();
    let bytes = file(1, &start, &[sealed(1, &[span(1, 1)]), settled(9)]);
    let at = file(1, &start, &[sealed(1, &[span(1, 1)])]).len();
    let contradiction = Contradiction::UnknownBatch(batch(9));
    assert_eq!(scan(&bytes, 1), Err((at, Damage::Contradiction(contradiction))));
}

#[test]
fn another_version_of_the_format_is_named() {
    let mut bytes = file(1, &Checkpoint::default(), &[]);
    bytes[8] = 3;
    assert_eq!(scan(&bytes, 1), Err((0, Damage::Version(3))));
}

/// A change of this dump is a change of the format: it needs another version number and a line in
/// `docs/formats/ledger.md`.
#[test]
fn the_bytes_of_a_ledger_file_are_these() {
    let bytes = file(5, &after(&one_of_each()[..2]), &one_of_each()[2..]);
    let lines: Vec<String> = bytes.chunks(32).map(crate::testing::hex).collect();
    assert_eq!(lines, include_str!("golden.hex").lines().collect::<Vec<_>>(), "\n{}\n", lines.join("\n"));
}

/// Goal: an older program reads the ledger of a stream into which nothing was redriven, and refuses any other instead of
/// forgetting it. Method: the dump above is of version 1; this is the end of a checkpoint of version 2.
#[test]
fn a_ledger_that_names_redriven_objects_has_a_version_of_its_own() {
    let mut state = Checkpoint::default();
    let plain = file(5, &state, &[]);
    state.redriven.add(batch(9), &[0, 1, 7].into_iter().collect());
    let bytes = file(5, &state, &[]);
    assert_eq!((&plain[8..12], &bytes[8..12]), ([1, 0, 0, 0].as_slice(), [2, 0, 0, 0].as_slice()));
    let redriven = ["01", &"09".repeat(16), "02", "00", "02", "05", "01"].concat();
    assert!(crate::testing::hex(&bytes).ends_with(&redriven), "{}", crate::testing::hex(&bytes));
    assert_eq!(scan(&bytes, 5).unwrap().state, state);

    // One that claims to be older is none.
    let frame = frame(5, 0, &state.encode()).unwrap();
    let claims = [head(5, &Checkpoint::default()), frame].concat();
    assert!(matches!(scan(&claims, 5), Err((HEAD_BYTES, Damage::Malformed(_)))));
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..400), whole: bool) {
        let mut start = file(1, &Checkpoint::default(), &[sealed(1, &[span(1, 1)])]);
        if whole {
            start.append(&mut bytes);
        } else {
            start.splice(HEAD_BYTES.., bytes);
        }
        let scanned = scan(&start, 1);
        prop_assert!(scanned.is_err() || scanned.is_ok_and(|scanned| scanned.end <= start.len()));
    }

    #[test]
    fn any_bytes_of_entries_and_checkpoints_are_read_without_a_panic(bytes: Vec<u8>) {
        let mut fields = Fields::new(&bytes);
        while Entry::decode(&mut fields).is_ok() {}
        if let Ok(state) = Checkpoint::decode(&bytes) {
            prop_assert_eq!(Checkpoint::decode(&state.encode()), Ok(state));
        }
        prop_assert_eq!(read_batch(&mut Fields::new(&bytes)).is_ok(), bytes.len() >= 16);
    }
}

// Ledger and outbox put together.

fn header(number: u8, spans: &[Span]) -> Header {
    Header {
        batch: batch(number),
        sealed_at: Timestamp::from_millis(u64::from(number)),
        oldest_arrival: Timestamp::default(),
        records: 1,
        raw_bytes: 1,
        pieces: runs(spans),
        sink: SinkMark { kind: "file".into(), destination: "file:///x".into(), version: 1 },
        content: Content::Object {
            key: format!("k{number}"),
            content_type: String::new(),
            content_encoding: None,
            metadata: Vec::new(),
        },
    }
}

fn whole(number: u8, spans: &[Span]) -> Found {
    Found::Whole { summary: header(number, spans).into(), bytes: 1 }
}

fn damaged(number: u8) -> Found {
    Found::Damaged {
        name: format!("{number}"),
        batch: Some(batch(number)),
        bytes: 1,
        summary: None,
        why: "torn".into(),
    }
}

fn owed(recovery: &Recovery) -> Vec<BatchId> {
    recovery.owed.iter().map(|header| header.batch).collect()
}

#[test]
fn a_batch_is_owed_when_the_ledger_says_so_and_its_file_is_whole() {
    let state = after(&[sealed(1, &[span(1, 1)]), sealed(2, &[span(2, 1)])]);
    let recovery = Recovery::new(&state, vec![whole(2, &[span(2, 1)]), whole(1, &[span(1, 1)])]);
    assert_eq!(owed(&recovery), [batch(2), batch(1)], "in the order of the outbox");
    assert!(recovery.adopted.is_empty() && recovery.damaged.is_empty() && recovery.remove.is_empty());
    assert_eq!(recovery.highest, Position::new(2));
}

#[test]
fn a_whole_file_without_an_entry_is_sealed_and_adopted() {
    let recovery = Recovery::new(&Checkpoint::default(), vec![whole(3, &[span(7, 2)])]);
    assert_eq!(recovery.adopted.len(), 1);
    assert_eq!(recovery.highest, Position::new(8), "its positions are not used again");
}

#[test]
fn a_settled_batch_whose_file_is_back_is_removed_again_and_never_sent() {
    let state = after(&[sealed(1, &[span(1, 1)]), settled(1), sealed(2, &[span(2, 1)]), settled(2)]);
    let recovery = Recovery::new(&state, vec![whole(1, &[span(1, 1)])]);
    assert_eq!(recovery.remove, [batch(1)]);
    assert_eq!(recovery.gone, [batch(2)]);
    assert!(recovery.owed.is_empty());
    assert_eq!(Recovery::new(&state, vec![damaged(1)]).remove, [batch(1)], "damage of what is settled is none");
}

#[test]
fn an_owed_batch_without_a_whole_file_is_damage() {
    let state = after(&[sealed(1, &[span(1, 1)]), sealed(2, &[span(2, 1)])]);
    let recovery = Recovery::new(&state, vec![damaged(1)]);
    let of = |at: usize| (recovery.damaged[at].batch, recovery.damaged[at].why.as_str());
    assert_eq!((of(0), of(1)), ((batch(1), "torn"), (batch(2), "its file is missing")));
}

#[test]
fn a_damaged_file_that_the_ledger_never_knew_is_removed_because_the_log_has_its_records() {
    let recovery = Recovery::new(&Checkpoint::default(), vec![damaged(1)]);
    assert_eq!(recovery.remove, [batch(1)]);
    assert!(recovery.damaged.is_empty());
}

#[test]
fn a_file_that_is_no_batch_is_left_alone() {
    let stranger =
        Found::Damaged { name: "notes.txt".into(), batch: None, bytes: 0, summary: None, why: String::new() };
    assert_eq!(Recovery::new(&Checkpoint::default(), vec![stranger]).strangers, ["notes.txt"]);
}
