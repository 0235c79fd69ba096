//! A YAML document as text: where each key and value stands, and what of it may be shown.
//!
//! In: the text. Out: byte ranges for places ([`DocPath`]) and the text with every secret replaced by `***`.
//!
//! The index is built once from the parser's events, by the same parser that the reader uses. It never fails: of a
//! document that breaks off, it knows the part before. Never judges what the document says.

use std::collections::HashMap;
use std::ops::Range;

use hydrant_core::problem::{DocPath, Step};
use serde_saphyr::granit_parser::{Event, Marker, Parser, Span};

use super::mask::{self, Masked};

/// Most values and keys that a document may have, and that are indexed. Many times what a megabyte of streams has.
pub(super) const NODES_MAX: usize = 100_000;

/// How deep values may lie in each other; a configuration is six deep.
pub(super) const DEPTH_MAX: usize = 32;

/// A document with its index.
#[derive(Debug)]
pub(super) struct Document {
    name: String,
    text: String,
    /// The root is the first; a parent stands before its children.
    nodes: Vec<Node>,
    children: HashMap<(usize, Step), usize>,
}

/// A value and, where it is one of a mapping, its key.
#[derive(Debug, Default)]
struct Node {
    /// The collection that it is in, and where there; nothing for the root.
    parent: Option<(usize, Step)>,
    children: usize,
    last_child: usize,
    key: Option<Range<usize>>,
    value: Range<usize>,
    kind: Kind,
    /// Whether an alias can stand for it, or for something that it is in.
    anchored: bool,
    /// Whether it is itself an alias.
    alias: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Scalar,
    Collection,
}

/// A place as people count: both from 1, the column in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LineColumn {
    pub(super) line: usize,
    pub(super) column: usize,
}

impl Document {
    /// The document of this text; `name` is what people call it.
    pub(super) fn new(name: impl Into<String>, text: String) -> Self {
        let (nodes, children) = Indexer::index(&text);
        Self { name: name.into(), text, nodes, children }
    }

    /// What people call it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Its text. May hold secrets.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Where a problem with the value at `at` is shown: at the value if that is a scalar, else at its key. Of a
    /// place that does not exist, the nearest above it.
    pub(super) fn value(&self, at: &DocPath) -> Range<usize> {
        let Some(node) = self.nearest(at) else { return 0..0 };
        match (&node.key, node.kind) {
            (Some(key), Kind::Collection) => key.clone(),
            _ => self.first_line_of(&node.value),
        }
    }

    /// Where a problem with the key at `at` is shown.
    pub(super) fn key(&self, at: &DocPath) -> Range<usize> {
        let Some(node) = self.nearest(at) else { return 0..0 };
        node.key.clone().unwrap_or_else(|| self.first_line_of(&node.value))
    }

    /// The key of the mapping at `at`, when there is exactly one.
    pub(super) fn only_key(&self, at: &DocPath) -> Option<&Step> {
        let parent = self.nodes.get(self.find(at)?)?;
        let only = (parent.children == 1).then(|| self.nodes.get(parent.last_child))?;
        only?.parent.as_ref().map(|(_, step)| step)
    }

    /// The innermost place whose key or value holds the byte at `offset`.
    pub(super) fn path_at(&self, offset: usize) -> DocPath {
        let holds = |range: &Range<usize>| range.start <= offset && offset < range.end.max(range.start + 1);
        let innermost = self.nodes.iter().rfind(|node| holds(&node.value) || node.key.as_ref().is_some_and(holds));
        innermost.map_or_else(DocPath::root, |node| self.path(node))
    }

    /// The innermost mapping or sequence that holds the byte at `offset`; of a key, the mapping that it is in.
    pub(super) fn collection_at(&self, offset: usize) -> DocPath {
        let at = self.path_at(offset);
        let node = self.find(&at).and_then(|found| self.nodes.get(found));
        let of_key = node.and_then(|node| node.key.as_ref()).is_some_and(|key| key.contains(&offset));
        match at.steps().split_last() {
            Some((_, above)) if of_key || node.is_some_and(|node| node.kind == Kind::Scalar) => {
                above.iter().cloned().collect()
            }
            _ => at,
        }
    }

    /// Whether it holds nothing at all, or nothing but comments.
    pub(super) fn is_empty(&self) -> bool {
        match self.nodes.as_slice() {
            [] => true,
            [root] => root.kind == Kind::Scalar && root.value.is_empty(),
            _ => false,
        }
    }

    /// The byte offset of a place as people count; the end of the text when it lies behind it.
    pub(super) fn offset(&self, place: LineColumn) -> usize {
        let before: usize = self.text.split_inclusive('\n').take(place.line.saturating_sub(1)).map(str::len).sum();
        let rest = self.text.get(before..).unwrap_or_default();
        before + rest.char_indices().nth(place.column.saturating_sub(1)).map_or(rest.len(), |(at, _)| at)
    }

    /// The place of the byte at `offset` as people count.
    pub(super) fn line_column(&self, offset: usize) -> LineColumn {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = before.matches('\n').count() + 1;
        LineColumn { line, column: before.get(line_start..).unwrap_or_default().chars().count() + 1 }
    }

    /// The end of the value or key that begins at `offset`, as far as the line goes.
    pub(super) fn end_of_word(&self, offset: usize) -> usize {
        let rest = self.text.get(offset..).unwrap_or_default();
        let line = rest.lines().next().unwrap_or_default();
        offset + line.split([' ', '\t', ',']).next().map_or(0, |word| word.trim_end_matches(':').len())
    }

    /// The text with secrets replaced. `secret_keys` are the keys whose values are known to be secrets.
    pub(super) fn masked(&self, secret_keys: &[String]) -> Masked {
        let text_of = |node: &Node| self.text.get(node.value.clone()).unwrap_or_default();
        let is_secret = |node: &Node| mask::is_secret(&self.path(node), text_of(node), secret_keys);
        // Where an alias stands for a secret, whatever an alias can stand for may be that secret.
        let by_alias = self.nodes.iter().any(|node| node.alias && is_secret(node));
        let scalars = self.nodes.iter().filter(|node| node.kind == Kind::Scalar);
        let values = scalars.filter(|node| by_alias && node.anchored || is_secret(node)).map(|node| node.value.clone());
        let keys = self.nodes.iter().filter(|node| node.key.is_some() && mask::is_secret_key(&self.path(node)));
        let keys = keys.filter_map(|node| node.key.clone());
        let known = secret_keys.iter().map(String::as_str);
        Masked::new(&self.text, values.chain(keys).chain(mask::by_text(&self.text, secret_keys)), known)
    }

    fn find(&self, at: &DocPath) -> Option<usize> {
        at.steps().iter().try_fold(0, |node, step| self.children.get(&(node, step.clone())).copied())
    }

    /// The node at `at`, or the lowest above it that exists.
    fn nearest(&self, at: &DocPath) -> Option<&Node> {
        let mut found = 0;
        for step in at.steps() {
            match self.children.get(&(found, step.clone())) {
                Some(child) => found = *child,
                None => break,
            }
        }
        self.nodes.get(found)
    }

    fn path(&self, node: &Node) -> DocPath {
        let up = |(parent, _): &&(usize, Step)| self.nodes.get(*parent)?.parent.as_ref();
        let mut steps: Vec<Step> =
            std::iter::successors(node.parent.as_ref(), up).map(|(_, step)| step.clone()).collect();
        steps.reverse();
        steps.into_iter().collect()
    }

    fn first_line_of(&self, range: &Range<usize>) -> Range<usize> {
        let text = self.text.get(range.clone()).unwrap_or_default();
        range.start..range.start + text.lines().next().map_or(0, |line| line.trim_end().len())
    }
}

/// Walks over events and keeps what is open.
struct Indexer {
    nodes: Vec<Node>,
    children: HashMap<(usize, Step), usize>,
    open: Vec<Open>,
}

/// A collection whose end was not seen yet.
enum Open {
    Mapping {
        node: usize,
        key: Option<(String, Range<usize>)>,
    },
    Sequence {
        node: usize,
        next: usize,
    },
    /// A key that is a collection: nothing below it has a name.
    Nameless,
}

impl Indexer {
    fn index(text: &str) -> (Vec<Node>, HashMap<(usize, Step), usize>) {
        let mut indexer = Self { nodes: Vec::new(), children: HashMap::new(), open: Vec::new() };
        for event in Parser::new_from_str(text) {
            let Ok((event, span)) = event else { break };
            indexer.take(&event, &range(text, span));
            let full = indexer.nodes.len() >= NODES_MAX || indexer.open.len() > DEPTH_MAX;
            if full || matches!(event, Event::DocumentEnd) {
                break;
            }
        }
        (indexer.nodes, indexer.children)
    }

    fn take(&mut self, event: &Event<'_>, at: &Range<usize>) {
        match event {
            Event::Scalar(value, _, anchor, _) => self.leaf(Some(value), *anchor > 0, at),
            Event::Alias(_) => self.leaf(None, false, at),
            Event::MappingStart(_, anchor, _) => {
                let node = self.enter(*anchor > 0, at);
                self.open.push(node.map_or(Open::Nameless, |node| Open::Mapping { node, key: None }));
            }
            Event::SequenceStart(_, anchor, _) => {
                let node = self.enter(*anchor > 0, at);
                self.open.push(node.map_or(Open::Nameless, |node| Open::Sequence { node, next: 0 }));
            }
            Event::MappingEnd | Event::SequenceEnd => {
                if let Some(Open::Mapping { node, .. } | Open::Sequence { node, .. }) = self.open.pop()
                    && let Some(node) = self.nodes.get_mut(node)
                {
                    node.value.end = at.end.max(node.value.start);
                }
            }
            _ => {}
        }
    }

    /// A scalar or an alias: the next key, or a value.
    fn leaf(&mut self, scalar: Option<&str>, anchored: bool, at: &Range<usize>) {
        if let Some(Open::Mapping { key: key @ None, .. }) = self.open.last_mut() {
            *key = Some((scalar.unwrap_or_default().to_owned(), at.clone()));
        } else {
            let node = self.add(at, Kind::Scalar, anchored);
            if let Some(node) = node.and_then(|node| self.nodes.get_mut(node)) {
                node.alias = scalar.is_none();
            }
        }
    }

    /// A collection begins. `None` when it is a key, or below one.
    fn enter(&mut self, anchored: bool, at: &Range<usize>) -> Option<usize> {
        if let Some(Open::Mapping { key: key @ None, .. }) = self.open.last_mut() {
            *key = Some((String::new(), at.clone()));
            return None;
        }
        self.add(at, Kind::Collection, anchored)
    }

    fn add(&mut self, at: &Range<usize>, kind: Kind, anchored: bool) -> Option<usize> {
        let (parent, step, key) = match self.open.last_mut() {
            None if self.nodes.is_empty() => {
                self.nodes.push(Node { value: at.clone(), kind, anchored, ..Node::default() });
                return Some(0);
            }
            None | Some(Open::Nameless) => return None,
            Some(Open::Mapping { node, key }) => {
                let (name, key) = key.take()?;
                (*node, Step::Key(name), Some(key))
            }
            Some(Open::Sequence { node, next }) => {
                *next += 1;
                (*node, Step::Index(*next - 1), None)
            }
        };
        let index = self.nodes.len();
        let above = self.nodes.get_mut(parent)?;
        above.children += 1;
        above.last_child = index;
        let (parent_step, anchored) = (Some((parent, step.clone())), anchored || above.anchored);
        self.nodes.push(Node { parent: parent_step, key, value: at.clone(), kind, anchored, ..Node::default() });
        self.children.entry((parent, step)).or_insert(index);
        Some(index)
    }
}

fn range(text: &str, span: Span) -> Range<usize> {
    let byte = |marker: Marker| {
        let of_characters = || text.char_indices().nth(marker.index()).map_or(text.len(), |(at, _)| at);
        marker.byte_offset().unwrap_or_else(of_characters).min(text.len())
    };
    let start = byte(span.start);
    start..byte(span.end).max(start)
}

#[cfg(test)]
mod tests;
