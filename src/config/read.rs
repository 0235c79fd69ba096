//! From a document to what its types say, as far as it can be read.
//!
//! ```text
//!   document ──> shape ──> what cannot be read is blanked ──> types ──> RawConfig
//!                                 ^                             │ a value that its type refuses
//!                                 └─────────────────────────────┘
//! ```
//!
//! A wrong value must not hide what is wrong elsewhere. So it is told, spaces are put in its place, and the rest is
//! read again: everything else stays where it was. The rules behind this must know which values are missing only
//! because of that; [`Unread`] tells them.

use std::collections::BTreeSet;

use hydrant_core::problem::{DocPath, Problem, Step};
use serde_saphyr::options::{AliasLimits, DuplicateKeyPolicy, MergeKeyPolicy};

use super::document::{DEPTH_MAX, Document, NODES_MAX, NodeId};
use super::raw::RawConfig;
use super::report::{FINDINGS_MAX, Noted};
use super::schema::{Form, Keys};
use super::{shape, yaml_error};

/// Most wrong values of which each is told. Every one costs another reading.
const ROUNDS_MAX: usize = 32;

/// The key that its mapping needs and that is read without all the same, so that the rest of a stream is judged.
pub(super) const ABSENT: &str = "sink";

/// What could be read of a document.
#[derive(Debug)]
pub(super) struct Read {
    /// What it says; nothing where it breaks off or is no mapping.
    pub(super) raw: Option<RawConfig>,
    /// What is wrong with it so far.
    pub(super) noted: Vec<Noted>,
    /// What is missing in `raw` because it was not read.
    pub(super) unread: Unread,
}

/// Places of a document that could not be read.
#[derive(Debug, Default)]
pub(super) struct Unread(Vec<DocPath>);

impl Unread {
    /// Whether everything was read.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether something at this place, below it or around it was not read: it may say anything.
    pub(super) fn touches(&self, at: &DocPath) -> bool {
        self.0.iter().any(|unread| unread.steps().starts_with(at.steps())) || self.covers(at)
    }

    /// Whether a problem comes of what was not read: it is about such a place, or about a key that is not there
    /// beside one that was not read.
    pub(super) fn explains(&self, problem: &Problem, document: &Document) -> bool {
        let is_beside = |unread: &DocPath| match (unread.steps(), problem.at.steps()) {
            ([above @ .., _], [around @ .., _]) => above == around,
            _ => false,
        };
        self.covers(&problem.at) || document.find(&problem.at).is_none() && self.0.iter().any(is_beside)
    }

    fn covers(&self, at: &DocPath) -> bool {
        self.0.iter().any(|unread| at.steps().starts_with(unread.steps()))
    }
}

/// Reads as much as there is to read.
pub(super) fn read(document: &Document, keys: &Keys) -> Read {
    let broken = document.broken().map(|broken| yaml_error::explain_syntax(broken, document));
    let shape = shape::check(document, keys);
    let mut noted: Vec<Noted> = broken.into_iter().chain(shape.noted).collect();
    let mut blank = BTreeSet::new();
    let mut goes_on = shape.unreadable.into_iter().all(|node| give_up(node, document, keys, &mut blank));
    let mut raw = None;
    let mut rounds = 0;
    while goes_on && rounds < ROUNDS_MAX && noted.len() <= FINDINGS_MAX {
        rounds += 1;
        match serde_saphyr::from_str_with_options(&document.without(&blank), options()) {
            Ok(read) => {
                raw = Some(read);
                break;
            }
            Err(error) => {
                let fault = yaml_error::explain(&error, document);
                let known = blank.len();
                goes_on = fault.node.is_some_and(|node| give_up(node, document, keys, &mut blank));
                goes_on &= blank.len() > known;
                // What cannot be placed may come of the blanks.
                if goes_on || noted.is_empty() || fault.is_of_document {
                    noted.push(fault.noted);
                }
            }
        }
    }
    // Of two values with one path the first is read.
    let unread = blank.into_iter().map(|node| (node, document.path(node)));
    let unread = unread.filter(|(node, path)| document.find(path) == Some(*node)).map(|(_, path)| path);
    Read { raw, noted, unread: Unread(unread.collect()) }
}

/// Has a value blanked, with as much around it as cannot be read without. `false` when nothing would be left.
fn give_up(node: NodeId, document: &Document, keys: &Keys, blank: &mut BTreeSet<NodeId>) -> bool {
    let mut node = node;
    while let Some((parent, step)) = document.place(node) {
        let place = keys.at(&document.path(parent));
        let is_needed = match (place.form(), step) {
            (Form::Mapping { required, .. }, Step::Key(key)) => key != ABSENT && required.contains(&key.as_str()),
            (_, Step::Key(_)) => false,
            (_, Step::Index(_)) => true,
        };
        let is_last = document.members(parent).all(|member| member == node || blank.contains(&member));
        if !is_needed && (!is_last || place.takes_nothing() || document.root() == Some(parent)) {
            blank.insert(node);
            return true;
        }
        node = parent;
    }
    false
}

/// The document is the operator's own, but an accident with anchors should cost a message and not the memory.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: DEPTH_MAX,
            max_nodes: NODES_MAX,
            max_aliases: 1_000,
            max_anchors: 1_000,
            max_documents: 1,
            max_merge_keys: 0,
        },
        alias_limits: alias_limits(),
        duplicate_keys: DuplicateKeyPolicy::Error,
        merge_keys: MergeKeyPolicy::Error,
        strict_booleans: true,
        with_snippet: false,
    }
}

fn alias_limits() -> AliasLimits {
    serde_saphyr::alias_limits! { max_total_replayed_events: 100_000, max_replay_stack_depth: 8 }
}
