//! Redriven: which dead letters were put back into the log. Pure.
//!
//! In: where the records of a frame come from, as the log took them. Out: what of an object of dead letters is in the log,
//! or was and is delivered. Nothing is ever taken out: an object that was written once never changes, and its name never
//! comes back.

use std::collections::BTreeMap;
use std::sync::Arc;

use hydrant_core::BatchId;

use crate::fields::{Fields, Malformed, put_len};
use crate::ordinals::Ordinals;

/// Where the records of a request come from, when they are dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The object of dead letters, by the batch that it was.
    pub object: BatchId,
    /// Which of its lines, from 0: as many as there are records, in their order.
    pub ordinals: Ordinals,
    /// Whether they are what processing made of records, and are not to be processed again.
    pub is_processed: bool,
}

/// Bit 0 of the flags: the records were processed.
const PROCESSED: u8 = 1;

impl Origin {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = vec![if self.is_processed { PROCESSED } else { 0 }];
        out.extend_from_slice(self.object.as_bytes());
        self.ordinals.encode(&mut out);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields::new(bytes);
        let is_processed = match fields.byte("flags of an origin")? {
            0 => false,
            PROCESSED => true,
            _ => return Err(Malformed("flags of an origin")),
        };
        let object = fields.array("object of an origin").map(BatchId::from_bytes)?;
        let ordinals = Ordinals::decode(&mut fields)?;
        fields.end("end of an origin")?;
        Ok(Self { object, ordinals, is_processed })
    }
}

/// All that was put back, by object. A clone costs nothing until one of the two changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Redriven(Arc<BTreeMap<BatchId, Ordinals>>);

impl Redriven {
    /// How many objects it names.
    pub fn objects(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing was ever put back.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this line of an object was put back.
    pub fn holds(&self, object: BatchId, ordinal: u32) -> bool {
        self.0.get(&object).is_some_and(|ordinals| ordinals.contains(ordinal))
    }

    /// The lines of an object that were put back; `None` when none was.
    pub fn of(&self, object: BatchId) -> Option<&Ordinals> {
        self.0.get(&object)
    }

    /// These lines of an object were put back. What is known already changes nothing.
    pub fn add(&mut self, object: BatchId, ordinals: &Ordinals) {
        if ordinals.is_empty() {
            return;
        }
        Arc::make_mut(&mut self.0).entry(object).or_default().add(ordinals);
    }

    /// All that another one holds.
    pub fn add_all(&mut self, other: &Self) {
        for (object, ordinals) in other.0.iter() {
            self.add(*object, ordinals);
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_len(out, self.0.len());
        for (object, ordinals) in self.0.iter() {
            out.extend_from_slice(object.as_bytes());
            ordinals.encode(out);
        }
    }

    pub(crate) fn decode(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        let objects = (0..fields.count(BYTES_MIN, "number of redriven objects")?)
            .map(|_| {
                let object = fields.array("redriven object").map(BatchId::from_bytes)?;
                Ok((object, Ordinals::decode(fields)?))
            })
            .collect::<Result<_, Malformed>>()?;
        Ok(Self(Arc::new(objects)))
    }
}

/// An id, and a set without a run.
const BYTES_MIN: usize = 16 + 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn object(number: u8) -> BatchId {
        BatchId::from_bytes([number; 16])
    }

    proptest! {
        #[test]
        fn what_was_put_back_once_is_held_for_ever_and_reads_back(
            steps: Vec<(u8, Vec<u16>)>, asked: u8, ordinal: u16,
        ) {
            let mut redriven = Redriven::default();
            for (number, ordinals) in &steps {
                redriven.add(object(*number), &ordinals.iter().map(|ordinal| u32::from(*ordinal)).collect());
            }
            let expected = steps.iter().any(|(number, ordinals)| *number == asked && ordinals.contains(&ordinal));
            prop_assert_eq!(redriven.holds(object(asked), ordinal.into()), expected);
            for (number, ordinals) in &steps {
                prop_assert!(ordinals.iter().all(|ordinal| redriven.holds(object(*number), (*ordinal).into())));
            }
            let mut out = Vec::new();
            redriven.encode(&mut out);
            let mut fields = Fields::new(&out);
            prop_assert_eq!(Redriven::decode(&mut fields), Ok(redriven.clone()));
            prop_assert!(fields.is_empty());
            let mut twice = redriven.clone();
            twice.add_all(&redriven);
            prop_assert_eq!(twice, redriven);
        }

        #[test]
        fn an_origin_reads_back_and_any_bytes_are_read_without_a_panic(
            number: u8, ordinals: Vec<u16>, is_processed: bool, bytes: Vec<u8>,
        ) {
            let ordinals = ordinals.into_iter().map(u32::from).collect();
            let origin = Origin { object: object(number), ordinals, is_processed };
            prop_assert_eq!(Origin::decode(&origin.encode()), Ok(origin));
            Origin::decode(&bytes).ok();
            Redriven::decode(&mut Fields::new(&bytes)).ok();
        }
    }

    #[test]
    fn a_clone_stays_as_it_was() {
        let mut redriven = Redriven::default();
        redriven.add(object(1), &[3].into_iter().collect());
        let before = redriven.clone();
        redriven.add(object(1), &[4].into_iter().collect());
        assert!(redriven.holds(object(1), 4) && !before.holds(object(1), 4) && before.holds(object(1), 3));
    }
}
