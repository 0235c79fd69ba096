//! Goal: a set of pieces behaves as a plain set. Method: the same random pushes on both, then every question asked.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn pieces() -> impl Strategy<Value = Vec<PieceId>> {
    let piece = (0_u64..40, 1_u32..4, 0_u32..4).prop_map(|(position, of, sub)| PieceId {
        position: Position::new(position),
        sub: sub % of,
        of,
    });
    prop::collection::vec(piece, 0..120)
}

fn content(runs: &Runs) -> BTreeSet<PieceId> {
    let whole = runs
        .spans()
        .flat_map(|span| (span.first.get()..span.end.get()).map(|position| PieceId::whole(Position::new(position))));
    whole.chain(runs.shares()).collect()
}

fn decode(bytes: &[u8]) -> Result<Runs, Malformed> {
    let mut fields = Fields::new(bytes);
    let runs = Runs::decode(&mut fields)?;
    fields.end("end")?;
    Ok(runs)
}

fn encoded(runs: &Runs) -> Vec<u8> {
    let mut out = Vec::new();
    runs.encode(&mut out);
    out
}

proptest! {
    #[test]
    fn it_holds_what_a_plain_set_holds(pieces in pieces()) {
        let set: BTreeSet<PieceId> = pieces.iter().copied().collect();
        let runs: Runs = pieces.into_iter().collect();
        prop_assert_eq!(content(&runs), set.clone());
        prop_assert_eq!(runs.len(), set.len() as u64);
        for position in (0..40).map(Position::new) {
            prop_assert_eq!(runs.touches(position), set.iter().any(|piece| piece.position == position));
            let complete = (1..4).any(|of| (0..of).all(|sub| set.contains(&PieceId { position, sub, of })));
            prop_assert_eq!(runs.completes(position), complete);
            for of in 1..4 {
                for sub in 0..of {
                    let piece = PieceId { position, sub, of };
                    prop_assert_eq!(runs.contains(piece), set.contains(&piece));
                }
            }
        }
        let hull = runs.hull();
        prop_assert_eq!(hull.is_empty(), set.is_empty());
        if let (Some(first), Some(last)) = (set.first(), set.last()) {
            prop_assert_eq!((hull.first, hull.end), (first.position, last.position.plus(1)));
        }
    }

    #[test]
    fn the_order_of_pushes_does_not_show(pieces in pieces()) {
        let forward: Runs = pieces.iter().copied().collect();
        let backward: Runs = pieces.iter().rev().copied().collect();
        prop_assert_eq!(encoded(&forward), encoded(&backward));
        prop_assert_eq!(forward, backward);
    }

    #[test]
    fn adding_removing_and_forgetting_are_those_of_sets(a in pieces(), b in pieces(), below in 0_u64..45) {
        let (set_a, set_b): (BTreeSet<_>, BTreeSet<_>) = (a.iter().copied().collect(), b.iter().copied().collect());
        let (a, b): (Runs, Runs) = (a.into_iter().collect(), b.into_iter().collect());
        let mut both = a.clone();
        both.add(&b);
        prop_assert_eq!(content(&both), &set_a | &set_b);
        let mut rest = a.clone();
        rest.remove(&b);
        prop_assert_eq!(content(&rest), &set_a - &set_b);
        let mut kept = a.clone();
        kept.forget_below(Position::new(below));
        let expected: BTreeSet<_> = set_a.into_iter().filter(|piece| piece.position.get() >= below).collect();
        prop_assert_eq!(content(&kept), expected);
    }

    #[test]
    fn it_reads_back_as_it_was_written(pieces in pieces()) {
        let runs: Runs = pieces.into_iter().collect();
        prop_assert_eq!(decode(&encoded(&runs)), Ok(runs));
    }

    #[test]
    fn any_bytes_are_refused_or_give_a_set_that_encodes_to_itself(bytes in prop::collection::vec(0_u8..20, 0..40)) {
        if let Ok(runs) = decode(&bytes) {
            prop_assert_eq!(decode(&encoded(&runs)), Ok(runs));
        }
    }
}

#[test]
fn a_run_of_a_million_records_takes_a_few_bytes() {
    let runs: Runs = [Span::new(Position::new(1 << 40), 1_000_000)].into_iter().collect();
    assert!(encoded(&runs).len() < 16);
}

#[test]
fn the_end_of_a_whole_run_is_told_so_that_it_can_be_skipped_at_once() {
    let runs: Runs = [Span::new(Position::new(5), 10)].into_iter().collect();
    assert_eq!(runs.whole_run(Position::new(7)), Some(Position::new(15)));
    assert_eq!(runs.whole_run(Position::new(15)), None);
}

#[test]
#[should_panic(expected = "outside its record")]
fn a_share_that_its_record_does_not_have_is_a_bug() {
    Runs::new().push(PieceId { position: Position::FIRST, sub: 3, of: 3 });
}
