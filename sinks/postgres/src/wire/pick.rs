//! Paths into JSON, and one pass over a record that finds what all of them lead to.
//!
//! A path is `$`, the record itself, and then steps: `.key`, `['any key']`, `[0]`. Values are found as they stand in the
//! record and are not copied; what no path leads to is skipped. Of two values under one key the last counts.

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Most steps of a path. Each is a level of the stack.
const STEPS_MAX: usize = 32;

/// The way to a value inside a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Path(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

/// Why a text is no path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NotAPath(pub(crate) String);

impl fmt::Display for NotAPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not a path", self.0)
    }
}

impl Path {
    /// The path that a text names.
    ///
    /// # Errors
    /// When it is none, or has more than 32 steps.
    pub(crate) fn parse(text: &str) -> Result<Self, NotAPath> {
        let fail = || NotAPath(text.to_owned());
        let mut rest = text.strip_prefix('$').ok_or_else(fail)?;
        let mut steps = Vec::new();
        while !rest.is_empty() {
            let (step, behind) = parse_step(rest).ok_or_else(fail)?;
            steps.push(step);
            rest = behind;
        }
        if steps.len() > STEPS_MAX { Err(fail()) } else { Ok(Self(steps)) }
    }

    /// The value of a key of the record itself.
    pub(crate) fn key(name: &str) -> Self {
        Self(vec![Step::Key(name.to_owned())])
    }
}

fn parse_step(text: &str) -> Option<(Step, &str)> {
    if let Some(rest) = text.strip_prefix("['") {
        let (key, rest) = rest.split_once("']")?;
        return Some((Step::Key(key.to_owned()), rest));
    }
    if let Some(rest) = text.strip_prefix('[') {
        let (index, rest) = rest.split_once(']')?;
        return Some((Step::Index(index.parse().ok()?), rest));
    }
    let rest = text.strip_prefix('.')?;
    let end = rest.find(['.', '[']).unwrap_or(rest.len());
    let (key, rest) = rest.split_at_checked(end)?;
    (!key.is_empty()).then(|| (Step::Key(key.to_owned()), rest))
}

/// All paths together, as a tree; each value that one of them leads to has a slot.
#[derive(Debug, Default)]
pub(crate) struct Picker {
    root: Node,
    slots: usize,
}

#[derive(Debug, Default)]
struct Node {
    slot: Option<usize>,
    children: Vec<(Step, Node)>,
}

impl Picker {
    /// The slot of what `path` leads to.
    pub(crate) fn add(&mut self, path: &Path) -> usize {
        let mut node = &mut self.root;
        for step in &path.0 {
            node = node.child_or_new(step);
        }
        *node.slot.get_or_insert_with(|| {
            self.slots += 1;
            self.slots - 1
        })
    }

    /// Fills the slots from a record; those that nothing leads to are empty.
    ///
    /// # Errors
    /// When the record is not one value of JSON. The error's text may quote the record.
    pub(crate) fn pick<'a>(&self, record: &'a str, slots: &mut Vec<Option<&'a RawValue>>) -> serde_json::Result<()> {
        slots.clear();
        slots.resize(self.slots, None);
        pick_in(&self.root, record, slots)
    }
}

impl Node {
    fn child_or_new(&mut self, step: &Step) -> &mut Self {
        let at = self.children.iter().position(|(known, _)| known == step).unwrap_or(self.children.len());
        if at == self.children.len() {
            self.children.push((step.clone(), Self::default()));
        }
        #[expect(clippy::indexing_slicing, reason = "it was found there, or has just been put there")]
        &mut self.children[at].1
    }

    fn under_key(&self, key: &str) -> Option<&Self> {
        self.children.iter().find_map(|(step, node)| matches!(step, Step::Key(own) if own == key).then_some(node))
    }

    fn at_index(&self, index: usize) -> Option<&Self> {
        self.children.iter().find_map(|(step, node)| matches!(step, Step::Index(own) if *own == index).then_some(node))
    }
}

fn pick_in<'a>(node: &Node, json: &'a str, slots: &mut [Option<&'a RawValue>]) -> serde_json::Result<()> {
    let mut reader = serde_json::Deserializer::from_str(json);
    Pick { node, slots }.deserialize(&mut reader)?;
    reader.end()
}

/// Reads one value: keeps it if a path ends here, and looks into it if paths go on.
struct Pick<'n, 's, 'a> {
    node: &'n Node,
    slots: &'s mut [Option<&'a RawValue>],
}

impl<'a> DeserializeSeed<'a> for Pick<'_, '_, 'a> {
    type Value = ();

    fn deserialize<D: Deserializer<'a>>(self, reader: D) -> Result<(), D::Error> {
        let Self { node, slots } = self;
        let Some(slot) = node.slot else { return reader.deserialize_any(Look { node, slots }) };
        let value: &'a RawValue = Deserialize::deserialize(reader)?;
        if let Some(slot) = slots.get_mut(slot) {
            *slot = Some(value);
        }
        if node.children.is_empty() || !value.get().starts_with(['{', '[']) {
            return Ok(());
        }
        let again = &mut serde_json::Deserializer::from_str(value.get());
        again.deserialize_any(Look { node, slots }).map_err(D::Error::custom)
    }
}

/// Looks into a value for what the node's children lead to. Where it is neither an object nor a list, that is nothing.
struct Look<'n, 's, 'a> {
    node: &'n Node,
    slots: &'s mut [Option<&'a RawValue>],
}

impl<'a> Visitor<'a> for Look<'_, '_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of JSON")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(child) = map.next_key_seed(Key(self.node))? {
            match child {
                Some(node) => map.next_value_seed(Pick { node, slots: self.slots })?,
                None => map.next_value::<IgnoredAny>().map(drop)?,
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'a>>(self, mut list: A) -> Result<(), A::Error> {
        for index in 0.. {
            let more = match self.node.at_index(index) {
                Some(node) => list.next_element_seed(Pick { node, slots: self.slots })?,
                None => list.next_element::<IgnoredAny>()?.map(|_| ()),
            };
            if more.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

/// Reads a key: which child it leads to, if any does.
struct Key<'n>(&'n Node);

impl<'a, 'n> DeserializeSeed<'a> for Key<'n> {
    type Value = Option<&'n Node>;

    fn deserialize<D: Deserializer<'a>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_str(self)
    }
}

impl<'n> Visitor<'_> for Key<'n> {
    type Value = Option<&'n Node>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.0.under_key(key))
    }
}
