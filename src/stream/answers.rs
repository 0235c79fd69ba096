//! Answers: what an attempt at separate pieces said of each of them. Pure.
//!
//! In: a sink's report, and which pieces were sent. Out: which are confirmed, which are refused or to be thrown away and why,
//! and, if any are left, why these are to be tried again. A piece without a verdict, or with several, is left: nobody knows whether it is
//! stored, and silence never means success. A verdict on a piece that was not sent says nothing.

use std::collections::BTreeMap;

use hydrant_core::{Fault, FaultCode, Report, Timestamp, Verdict};
use hydrant_storage::ledger::{Refusal, Refused, Stage};
use hydrant_storage::ordinals::Ordinals;

use super::send::Tries;

/// Longest sentence of a fault that is kept with each refused piece, in bytes: what a destination says of a piece fits,
/// and a page that it answers with does not fill the ledger.
const MESSAGE_BYTES_MAX: usize = 1024;

/// An attempt's answers, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Confirmed.
    pub delivered: Ordinals,
    /// Never acceptable.
    pub refused: BTreeMap<u32, Fault>,
    /// Never acceptable, and not to be kept.
    pub discarded: BTreeMap<u32, Fault>,
    /// Why the others are to be tried again, if there are others. Of several reasons the one that an operator should see
    /// first, with the longest wait that any of them asks for.
    pub left: Option<Fault>,
}

impl Heard {
    /// Sorts a report on the pieces with these ordinals.
    pub fn new(report: Report, sent: impl IntoIterator<Item = u32>) -> Self {
        let mut heard = Self::default();
        match report {
            Report::All(verdict) => sent.into_iter().for_each(|ordinal| heard.note(ordinal, verdict.clone())),
            Report::Each(verdicts) => {
                let mut said: BTreeMap<u32, Vec<Verdict>> = BTreeMap::new();
                for (ordinal, verdict) in verdicts {
                    said.entry(ordinal).or_default().push(verdict);
                }
                for ordinal in sent {
                    let verdict = match said.get(&ordinal).map_or(&[][..], Vec::as_slice) {
                        [verdict] => verdict.clone(),
                        [] => unclear("no verdict on a piece"),
                        [_, _, ..] => unclear("several verdicts on a piece"),
                    };
                    heard.note(ordinal, verdict);
                }
            }
        }
        heard
    }

    /// What is known when an attempt gave no report.
    pub fn nothing(fault: Fault) -> Self {
        Self { left: Some(fault), ..Self::default() }
    }

    fn note(&mut self, ordinal: u32, verdict: Verdict) {
        match verdict {
            Verdict::Delivered => self.delivered.insert(ordinal),
            Verdict::Refused(fault) => drop(self.refused.insert(ordinal, fault)),
            Verdict::Discarded(fault) => drop(self.discarded.insert(ordinal, fault)),
            Verdict::Retry(fault) => {
                let known = self.left.take();
                self.left = Some(known.map_or(fault.clone(), |known| worse(known, fault)));
            }
        }
    }
}

/// The report does not say one thing about a piece. The fault is our own sink's.
fn unclear(message: &str) -> Verdict {
    Verdict::Retry(Fault::new(FaultCode::Internal, message))
}

fn worse(one: Fault, other: Fault) -> Fault {
    let retry_after = one.retry_after.max(other.retry_after);
    let worse = if one.code.is_for_operators() || !other.code.is_for_operators() { one } else { other };
    Fault { retry_after, ..worse }
}

/// What the ledger keeps of pieces that were refused after these tries; those with the same reason together.
pub fn refusals(
    refused: impl IntoIterator<Item = (u32, Fault)>,
    stage: Stage,
    tries: Tries,
    at: Timestamp,
) -> Vec<Refused> {
    let Tries { failed: attempts, outcome_unknown, .. } = tries;
    let mut by_reason: BTreeMap<(FaultCode, String), Ordinals> = BTreeMap::new();
    for (ordinal, Fault { code, message, .. }) in refused {
        by_reason.entry((code, message)).or_default().insert(ordinal);
    }
    let refused = by_reason.into_iter().map(|((code, message), ordinals)| Refused {
        ordinals,
        why: Refusal { stage, code: code.to_string(), message: shortened(message), attempts, at, outcome_unknown },
    });
    refused.collect()
}

/// What the ledger keeps of pieces whose time is over, after these tries.
pub fn given_up(ordinals: Ordinals, fault: Fault, tries: Tries, at: Timestamp) -> Refused {
    let (code, message) = (fault.code.to_string(), shortened(fault.message));
    let Tries { failed: attempts, outcome_unknown, .. } = tries;
    Refused { ordinals, why: Refusal { stage: Stage::Deliver, code, message, attempts, at, outcome_unknown } }
}

fn shortened(mut message: String) -> String {
    message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
    message
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn fault(code: FaultCode) -> Fault {
        Fault::new(code, "scripted")
    }

    fn set(ordinals: &[u32]) -> Ordinals {
        ordinals.iter().copied().collect()
    }

    #[test]
    fn each_piece_has_the_verdict_that_it_was_given() {
        let refused = Verdict::Refused(fault(FaultCode::Invalid));
        let retry = Verdict::Retry(fault(FaultCode::Throttled));
        let discarded = Verdict::Discarded(fault(FaultCode::TooLarge));
        let report = Report::Each(vec![(0, Verdict::Delivered), (2, refused), (3, discarded), (5, retry)]);
        let heard = Heard::new(report, [0, 2, 3, 5]);
        assert_eq!(heard.delivered, set(&[0]));
        assert_eq!(heard.refused, [(2, fault(FaultCode::Invalid))].into());
        assert_eq!(heard.discarded, [(3, fault(FaultCode::TooLarge))].into());
        assert_eq!(heard.left, Some(fault(FaultCode::Throttled)));
        let all = Heard::new(Report::All(Verdict::Delivered), [3, 4]);
        assert_eq!(all, Heard { delivered: set(&[3, 4]), ..Heard::default() });
    }

    #[test]
    fn a_piece_without_a_verdict_or_with_two_is_not_known_to_be_stored() {
        for report in [vec![], vec![(1, Verdict::Delivered), (1, Verdict::Delivered)], vec![(7, Verdict::Delivered)]] {
            let heard = Heard::new(Report::Each(report), [1]);
            assert!(heard.delivered.is_empty() && heard.refused.is_empty());
            assert_eq!(heard.left.unwrap().code, FaultCode::Internal);
        }
    }

    #[test]
    fn a_verdict_on_a_piece_that_was_not_sent_says_nothing() {
        let report = Report::Each(vec![(1, Verdict::Delivered), (9, Verdict::Delivered)]);
        assert_eq!(Heard::new(report, [1]), Heard { delivered: set(&[1]), ..Heard::default() });
    }

    #[test]
    fn of_several_reasons_the_operator_s_is_told_and_the_longest_wait_kept() {
        let busy = fault(FaultCode::Throttled).retry_after(Duration::from_secs(9));
        let report = Report::Each(vec![(0, Verdict::Retry(busy)), (1, Verdict::Retry(fault(FaultCode::Forbidden)))]);
        let left = Heard::new(report, [0, 1]).left.unwrap();
        assert_eq!((left.code, left.retry_after), (FaultCode::Forbidden, Some(Duration::from_secs(9))));
    }

    #[test]
    fn pieces_refused_for_the_same_reason_are_kept_together_and_long_reasons_cut() {
        let long = "ä".repeat(MESSAGE_BYTES_MAX);
        let refused = [(1, "a".to_owned()), (2, long), (3, "a".to_owned())];
        let refused = refused.map(|(ordinal, message)| (ordinal, Fault::new(FaultCode::Invalid, message)));
        let tries = Tries { failed: 2, outcome_unknown: true, ..Tries::default() };
        let kept = refusals(refused, Stage::Deliver, tries, Timestamp::default());
        assert_eq!(kept.iter().map(|kept| kept.ordinals.clone()).collect::<Vec<_>>(), [set(&[1, 3]), set(&[2])]);
        assert_eq!(kept[1].why.message.len(), MESSAGE_BYTES_MAX);
        assert_eq!((kept[0].why.attempts, kept[0].why.outcome_unknown), (2, true));
    }
}
