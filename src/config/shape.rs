//! The shape of a document: mappings, lists and keys where the schema wants them.
//!
//! In: a document, and the schema. Out: every place where something else stands, all at once, and the values that the
//! types cannot read because of it. What a plain value says is left to its type, and what values mean together to the
//! rules behind it.

use std::collections::BTreeSet;

use hydrant_core::problem::{Problem, Step};

use super::document::{DEPTH_MAX, Document, Kind, NODES_MAX, NodeId};
use super::mask::quoted;
use super::nearest::nearest;
use super::read::ABSENT;
use super::report::{FINDINGS_MAX, Mark, Noted, Severity};
use super::schema::{Form, Keys, Place};

/// What came of the look at a document.
#[derive(Debug, Default)]
pub(super) struct Shape {
    /// What is wrong.
    pub(super) noted: Vec<Noted>,
    /// Values that cannot be read as what they should be.
    pub(super) unreadable: BTreeSet<NodeId>,
}

/// Looks at all of a document, or at what is known of one that breaks off.
pub(super) fn check(document: &Document, keys: &Keys) -> Shape {
    let mut walk = Walk { document, shape: Shape::default(), noted: BTreeSet::new(), left: NODES_MAX };
    if let Some(root) = document.root() {
        walk.visit(root, &keys.root(), 0);
    }
    walk.shape
}

struct Walk<'a> {
    document: &'a Document,
    shape: Shape,
    /// What was told of already: an alias leads to the same value again.
    noted: BTreeSet<NodeId>,
    /// How many values may still be visited: aliases unfold without end.
    left: usize,
}

impl Walk<'_> {
    fn visit(&mut self, node: NodeId, place: &Place<'_>, depth: usize) {
        if self.left == 0 || depth > DEPTH_MAX || self.has_enough() {
            return;
        }
        self.left -= 1;
        match (place.form(), self.document.kind(node)) {
            (_, Kind::Alias(target)) => {
                if let Some(target) = target {
                    self.visit(target, place, depth + 1);
                }
            }
            (Form::Plain, _) => {}
            (_, Kind::Nothing) if place.takes_nothing() => {}
            (Form::Mapping { keys, required }, Kind::Mapping) => self.mapping(node, place, &keys, &required, depth),
            (Form::Choice(kinds), Kind::Mapping) => self.choice(node, place, &kinds, depth),
            (Form::Names, Kind::Mapping) | (Form::List, Kind::Sequence) => {
                for (member, step) in self.members(node) {
                    self.visit(member, &place.below(&step), depth + 1);
                }
            }
            (form, kind) => self.misfit(node, kind, place, &form),
        }
    }

    /// Whether more is found than anybody is shown.
    fn has_enough(&self) -> bool {
        self.shape.noted.len() > FINDINGS_MAX
    }

    /// The members of a collection. Of two with one key the second is told of and left out, as is a merge key.
    fn members(&mut self, node: NodeId) -> Vec<(NodeId, Step)> {
        let document = self.document;
        let mut keys = BTreeSet::new();
        let all = document.members(node).filter_map(|member| Some((member, document.place(member)?.1.clone())));
        all.filter(|(member, step)| {
            let Step::Key(key) = step else { return true };
            let is_first = keys.insert(key.clone());
            if key == "<<" {
                let hint = "write the keys out, or use an alias for a whole value";
                self.unreadable(*member, Mark::Key, "merge keys (`<<`) are not read", hint);
            } else if !is_first {
                self.unreadable(*member, Mark::Key, format!("{} stands here twice", quoted(key)), "remove one of them");
            }
            is_first && key != "<<"
        })
        .collect()
    }

    fn mapping(&mut self, node: NodeId, place: &Place<'_>, keys: &[&str], required: &[&str], depth: usize) {
        let mut present = BTreeSet::new();
        for (member, step) in self.members(node) {
            let Step::Key(key) = &step else { continue };
            if self.has_enough() {
                return;
            }
            present.insert(key.clone());
            if keys.contains(&key.as_str()) {
                self.visit(member, &place.below(&step), depth + 1);
            } else {
                self.unknown_key(member, key, place, keys);
            }
        }
        let missing: Vec<&str> = required.iter().copied().filter(|key| !present.contains(*key)).collect();
        // A merge key may have brought them.
        if missing.is_empty() || !self.document.is_whole(node) || present.len() < self.document.members(node).len() {
            return;
        }
        let names = words(&missing, "and");
        let verb = if missing.len() == 1 { "is" } else { "are" };
        let hints = missing.iter().map(|key| {
            let place = place.below(&Step::Key((*key).to_owned()));
            format!("`{key}`: {}", place.description().unwrap_or_default())
        });
        self.note(node, Mark::Value, format!("{names} {verb} missing"), hints.collect::<Vec<_>>().join("; "));
        if missing != [ABSENT] {
            self.shape.unreadable.insert(node);
        }
    }

    /// A mapping that should have one of several keys.
    fn choice(&mut self, node: NodeId, place: &Place<'_>, kinds: &[&str], depth: usize) {
        let members = self.members(node);
        let Some((first, _)) = members.first() else {
            return self.misfit(node, Kind::Nothing, place, &Form::Choice(kinds.to_vec()));
        };
        let mut chosen: Option<&str> = None;
        for (member, step) in &members {
            let Step::Key(key) = step else { continue };
            if self.has_enough() {
                return;
            }
            let kind = kinds.iter().find(|kind| *kind == key);
            match (kind, chosen) {
                (Some(kind), None) => {
                    chosen = Some(kind);
                    self.visit(*member, &place.below(step), depth + 1);
                }
                (Some(kind), Some(chosen)) => {
                    let message = format!("`{chosen}` and `{kind}` stand here, expected is one of them");
                    self.unreadable(*member, Mark::Key, message, "remove one, or declare two, each with its own name");
                }
                (None, Some(_)) => {
                    self.unknown_key(*member, key, place, kinds);
                    self.shape.unreadable.insert(*member);
                }
                (None, None) => {}
            }
        }
        if chosen.is_none() {
            self.no_kind(*first, place, kinds);
            self.shape.unreadable.insert(node);
        }
    }

    /// A key stands where a kind should.
    fn no_kind(&mut self, member: NodeId, place: &Place<'_>, kinds: &[&str]) {
        let Some((_, Step::Key(key))) = self.document.place(member) else { return };
        let of_kind = |kind: &&&str| {
            let below = place.below(&Step::Key((**kind).to_owned())).form();
            matches!(below, Form::Mapping { keys, .. } if keys.contains(&key.as_str()))
        };
        let hint = match (nearest(key, kinds.iter().copied()), kinds.iter().find(of_kind)) {
            (Some(meant), _) => format!("did you mean `{meant}`?"),
            (None, Some(kind)) => format!("it belongs below one of them: `{kind}: {{ {key}: ... }}`"),
            (None, None) => format!("such as {}", example(place, kinds)),
        };
        let message = format!("{} is not known here; known are {}", quoted(key), words(kinds, "and"));
        self.note(member, Mark::Key, message, hint);
    }

    fn unknown_key(&mut self, node: NodeId, key: &str, place: &Place<'_>, keys: &[&str]) {
        let hint = match (nearest(key, keys.iter().copied()), self.not_indented(node, key, place)) {
            (Some(meant), _) => format!("did you mean `{meant}`?"),
            (None, Some(above)) => format!("if it belongs below `{above}`, indent it deeper"),
            (None, None) => format!("known here: {}", keys.join(", ")),
        };
        self.note(node, Mark::Key, "unknown key", hint);
    }

    /// The key above it that an unknown one was probably meant to stand below: that knows it, or that has nothing.
    fn not_indented(&self, node: NodeId, key: &str, place: &Place<'_>) -> Option<String> {
        let (parent, _) = self.document.place(node)?;
        let above: Vec<NodeId> = self.document.members(parent).take_while(|other| *other < node).collect();
        above.into_iter().rev().find_map(|other| {
            let (_, step) = self.document.place(other)?;
            let takes_it = match place.below(step).form() {
                Form::Mapping { keys, .. } => keys.contains(&key),
                Form::Names | Form::Choice(_) => self.document.kind(other) == Kind::Nothing,
                Form::List | Form::Plain => false,
            };
            match step {
                Step::Key(name) if takes_it => Some(name.clone()),
                _ => None,
            }
        })
    }

    /// Something else than a collection of this form stands here.
    fn misfit(&mut self, node: NodeId, kind: Kind, place: &Place<'_>, form: &Form<'_>) {
        let here = match kind {
            Kind::Nothing => "nothing stands here",
            Kind::Sequence => "a list stands here",
            Kind::Mapping => "a mapping stands here",
            Kind::Scalar | Kind::Alias(_) => "a plain value stands here",
        };
        let written = self.document.written(node);
        let (message, hint) = match (form, kind) {
            (Form::Choice(kinds), Kind::Scalar) if kinds.contains(&written) => (
                format!("`{written}` lacks its settings"),
                format!("write them below it, such as {}", example(place, &[written])),
            ),
            (Form::Choice(kinds), _) => {
                let hint = match kind {
                    Kind::Sequence => "there is only one, so no `- ` before it: ",
                    _ => "such as ",
                };
                (format!("{here}, expected is {}", words(kinds, "or")), format!("{hint}{}", example(place, kinds)))
            }
            (Form::Mapping { keys, .. }, _) => {
                (format!("{here}, expected is a mapping"), towards_mapping(kind, written, keys))
            }
            (Form::List, _) => (format!("{here}, expected is a list"), "begin each of its items with `- `".to_owned()),
            (Form::Names | Form::Plain, _) => {
                (format!("{here}, expected is a mapping"), "write a name before each, as in `main:`".to_owned())
            }
        };
        self.unreadable(node, Mark::Value, message, hint);
    }

    fn unreadable(&mut self, node: NodeId, mark: Mark, message: impl Into<String>, hint: impl Into<String>) {
        self.note(node, mark, message, hint);
        self.shape.unreadable.insert(node);
    }

    fn note(&mut self, node: NodeId, mark: Mark, message: impl Into<String>, hint: impl Into<String>) {
        if !self.noted.insert(node) {
            return;
        }
        // By its place and not by its path, which two keys of the same name share.
        let mark = match mark {
            Mark::Key => {
                let key = self.document.key_of(node);
                Mark::Exactly(key.start, key.end)
            }
            mark => mark,
        };
        let problem = Problem { at: self.document.path(node), message: message.into(), hint: Some(hint.into()) };
        self.shape.noted.push(Noted { severity: Severity::Error, problem, mark });
    }
}

/// What makes a mapping of what stands where one belongs.
fn towards_mapping(kind: Kind, written: &str, keys: &[&str]) -> String {
    let known = keys.join(", ");
    let first = written.split([' ', ':']).next().unwrap_or_default();
    match kind {
        Kind::Sequence => format!("write keys without a `- ` before them: {known}"),
        Kind::Scalar if keys.contains(&first) => format!("a colon and a space go behind `{first}`"),
        _ => format!("keys go below it, indented deeper: {known}"),
    }
}

/// The first of these kinds with what it needs at least.
fn example(place: &Place<'_>, kinds: &[&str]) -> String {
    let kind = kinds.first().copied().unwrap_or_default();
    let needed = match place.below(&Step::Key(kind.to_owned())).form() {
        Form::Mapping { required, .. } => required,
        _ => Vec::new(),
    };
    let needed: Vec<String> = needed.into_iter().map(|key| format!("{key}: ...")).collect();
    format!("`{kind}: {{ {} }}`", needed.join(", "))
}

/// `a`, `b` and `c`.
fn words(words: &[&str], last: &str) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    match quoted.split_last() {
        Some((end, before)) if !before.is_empty() => format!("{} {last} {end}", before.join(", ")),
        _ => quoted.concat(),
    }
}
