//! A YAML document as text: where each key and value stands, and what of it may be shown.
//!
//! In: the text. Out: byte ranges for places ([`DocPath`]) and the text with every secret replaced by `***`.
//!
//! The index is built once from the parser's events, by the same parser that the reader uses. It never fails: of a
//! document that breaks off, it knows the part before. Never judges what the document says.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use hydrant_core::problem::{DocPath, Step};
use serde_saphyr::granit_parser::{ErrorKind, Event, Marker, Parser, ScalarStyle, Span};

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
    broken: Option<Broken>,
}

/// A value and, where it is one of a mapping, its key.
#[derive(Debug, Default)]
struct Node {
    /// The collection that it is in, and where there; nothing for the root.
    parent: Option<(usize, Step)>,
    /// In their order. Of two with the same key both.
    children: Vec<usize>,
    key: Option<Range<usize>>,
    value: Range<usize>,
    kind: Kind,
    /// Whether an alias can stand for it, or for something that it is in.
    anchored: bool,
    /// Whether the end of a collection was seen.
    is_whole: bool,
}

/// What a value is, as far as it shows without knowing what it is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    /// A text, a number, a truth value.
    #[default]
    Scalar,
    /// Nothing: no value at all, or one that means none.
    Nothing,
    Mapping,
    Sequence,
    /// Another value, which stands above. `None` when that one is not indexed.
    Alias(Option<NodeId>),
}

/// A value of one document, and its key if it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct NodeId(usize);

/// Where and why a text stops being YAML.
#[derive(Debug)]
pub(super) struct Broken {
    /// The byte at which reading stopped.
    pub(super) offset: usize,
    /// Why, as the parser tells it.
    pub(super) kind: ErrorKind,
}

impl Kind {
    fn is_collection(self) -> bool {
        matches!(self, Self::Mapping | Self::Sequence)
    }
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
        let Indexer { nodes, children, broken, .. } = Indexer::index(&text);
        Self { name: name.into(), text, nodes, children, broken }
    }

    /// What people call it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Its text. May hold secrets.
    #[cfg(test)]
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Where a problem with the value at `at` is shown: at the value if that is a scalar, else at its key. Of a
    /// place that does not exist, the nearest above it.
    pub(super) fn value(&self, at: &DocPath) -> Range<usize> {
        let Some(node) = self.nearest(at) else { return 0..0 };
        match (&node.key, node.kind) {
            (Some(key), kind) if kind.is_collection() => key.clone(),
            _ => self.first_line_of(&node.value),
        }
    }

    /// Where a problem with the key at `at` is shown.
    pub(super) fn key(&self, at: &DocPath) -> Range<usize> {
        let Some(node) = self.nearest(at) else { return 0..0 };
        node.key.clone().unwrap_or_else(|| self.first_line_of(&node.value))
    }

    /// Where the text stops being YAML, if it does.
    pub(super) fn broken(&self) -> Option<&Broken> {
        self.broken.as_ref()
    }

    /// The value that everything else is in. `None` when there is not even that.
    pub(super) fn root(&self) -> Option<NodeId> {
        (!self.nodes.is_empty()).then_some(NodeId(0))
    }

    /// What a value is.
    pub(super) fn kind(&self, node: NodeId) -> Kind {
        self.node(node).map_or(Kind::Nothing, |node| node.kind)
    }

    /// Whether all of a value is known. Not where the text broke off before its end.
    pub(super) fn is_whole(&self, node: NodeId) -> bool {
        self.node(node).is_some_and(|node| node.is_whole || !node.kind.is_collection())
    }

    /// What a collection holds, in its order.
    pub(super) fn members(&self, node: NodeId) -> impl ExactSizeIterator<Item = NodeId> {
        self.node(node).map(|node| node.children.as_slice()).unwrap_or_default().iter().copied().map(NodeId)
    }

    /// The collection that a value is in, and where it is there.
    pub(super) fn place(&self, node: NodeId) -> Option<(NodeId, &Step)> {
        self.node(node)?.parent.as_ref().map(|(parent, step)| (NodeId(*parent), step))
    }

    /// The value at `at`; the first of those with that path.
    pub(super) fn find(&self, at: &DocPath) -> Option<NodeId> {
        at.steps().iter().try_fold(0, |node, step| self.children.get(&(node, step.clone())).copied()).map(NodeId)
    }

    /// The keys that lead to a value.
    pub(super) fn path(&self, node: NodeId) -> DocPath {
        self.node(node).map(|node| self.path_of(node)).unwrap_or_default()
    }

    /// The text of a value, as it is written.
    pub(super) fn written(&self, node: NodeId) -> &str {
        self.node(node).and_then(|node| self.text.get(node.value.clone())).unwrap_or_default()
    }

    /// Where a problem with the key of a value is shown; with the value itself where it has none.
    pub(super) fn key_of(&self, node: NodeId) -> Range<usize> {
        let Some(node) = self.node(node) else { return 0..0 };
        node.key.clone().unwrap_or_else(|| self.first_line_of(&node.value))
    }

    /// The innermost value whose key or text holds the byte at `offset`.
    pub(super) fn at(&self, offset: usize) -> Option<NodeId> {
        let holds = |node: &Node| {
            let extent = self.extent(node);
            extent.start <= offset && offset < extent.end.max(extent.start + 1)
        };
        self.nodes.iter().rposition(holds).map(NodeId)
    }

    /// The path of the innermost value at `offset`.
    pub(super) fn path_at(&self, offset: usize) -> DocPath {
        self.at(offset).map(|node| self.path(node)).unwrap_or_default()
    }

    /// The text with spaces in place of some values and their keys, so that everything else stays where it is. Each
    /// must have a key.
    pub(super) fn without(&self, blank: &BTreeSet<NodeId>) -> String {
        let mut rest = 0;
        let mut text = String::with_capacity(self.text.len());
        for range in blank.iter().filter_map(|node| self.node(*node)).map(|node| self.entry(node)) {
            if range.start < rest {
                continue; // inside one that is gone already: parents come before their children
            }
            text += self.text.get(rest..range.start).unwrap_or_default();
            let gone = self.text.get(range.clone()).unwrap_or_default();
            text.extend(gone.chars().map(|c| if matches!(c, '\n' | '\r') { c } else { ' ' }));
            rest = range.end;
        }
        text + self.text.get(rest..).unwrap_or_default()
    }

    /// Whether it holds nothing at all, or nothing but comments.
    pub(super) fn is_empty(&self) -> bool {
        match self.nodes.as_slice() {
            [] => true,
            [root] => root.kind == Kind::Nothing && root.value.is_empty(),
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

    /// The last tab of the line that leads to `offset`; `offset` where there is none.
    pub(super) fn tab_before(&self, offset: usize) -> usize {
        let before = self.text.get(..offset).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let tab = before.get(line_start..).and_then(|line| line.rfind('\t'));
        tab.map_or(offset, |tab| line_start + tab)
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
        let is_secret = |node: &Node| mask::is_secret(&self.path_of(node), text_of(node), secret_keys);
        // Where an alias stands for a secret, whatever an alias can stand for may be that secret.
        let by_alias = self.nodes.iter().any(|node| matches!(node.kind, Kind::Alias(_)) && is_secret(node));
        let scalars = self.nodes.iter().filter(|node| !node.kind.is_collection());
        let values = scalars.filter(|node| by_alias && node.anchored || is_secret(node)).map(|node| node.value.clone());
        let keys = self.nodes.iter().filter(|node| node.key.is_some() && mask::is_secret_key(&self.path_of(node)));
        let keys = keys.filter_map(|node| node.key.clone());
        let known = secret_keys.iter().map(String::as_str);
        Masked::new(&self.text, values.chain(keys).chain(mask::by_text(&self.text, secret_keys)), known)
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

    fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id.0)
    }

    /// From the first byte of a value's key to the last of its text, the colon between them included.
    fn extent(&self, node: &Node) -> Range<usize> {
        let Some(key) = &node.key else { return node.value.clone() };
        let behind = self.text.get(key.end..).unwrap_or_default();
        let colon = behind.trim_start().starts_with(':').then(|| behind.find(':')).flatten();
        key.start..node.value.end.max(colon.map_or(key.end, |colon| key.end + colon + 1))
    }

    /// The extent of a value and, between braces, the comma behind it.
    fn entry(&self, node: &Node) -> Range<usize> {
        let extent = self.extent(node);
        let behind = self.text.get(extent.end..).unwrap_or_default();
        let comma = behind.trim_start().starts_with(',').then(|| behind.find(',')).flatten();
        extent.start..comma.map_or(extent.end, |comma| extent.end + comma + 1)
    }

    fn path_of(&self, node: &Node) -> DocPath {
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
#[derive(Default)]
struct Indexer {
    nodes: Vec<Node>,
    children: HashMap<(usize, Step), usize>,
    open: Vec<Open>,
    /// What aliases stand for, by the parser's numbers.
    anchors: HashMap<usize, NodeId>,
    broken: Option<Broken>,
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
    fn index(text: &str) -> Self {
        let mut indexer = Self::default();
        for event in Parser::new_from_str(text) {
            let (event, span) = match event {
                Ok(event) => event,
                Err(error) => {
                    let offset = byte(text, *error.marker());
                    indexer.broken = Some(Broken { offset, kind: error.kind().clone() });
                    break;
                }
            };
            indexer.take(&event, &range(text, span));
            let full = indexer.nodes.len() >= NODES_MAX || indexer.open.len() > DEPTH_MAX;
            if full || matches!(event, Event::DocumentEnd) {
                break;
            }
        }
        indexer
    }

    fn take(&mut self, event: &Event<'_>, at: &Range<usize>) {
        match event {
            Event::Scalar(value, style, anchor, _) => {
                let is_nothing = *style == ScalarStyle::Plain && matches!(value.as_ref(), "" | "~" | "null");
                self.leaf(value, if is_nothing { Kind::Nothing } else { Kind::Scalar }, *anchor, at);
            }
            Event::Alias(anchor) => self.leaf("", Kind::Alias(self.anchors.get(anchor).copied()), 0, at),
            Event::MappingStart(_, anchor, _) => {
                let node = self.enter(Kind::Mapping, *anchor, at);
                self.open.push(node.map_or(Open::Nameless, |node| Open::Mapping { node, key: None }));
            }
            Event::SequenceStart(_, anchor, _) => {
                let node = self.enter(Kind::Sequence, *anchor, at);
                self.open.push(node.map_or(Open::Nameless, |node| Open::Sequence { node, next: 0 }));
            }
            Event::MappingEnd | Event::SequenceEnd => {
                if let Some(Open::Mapping { node, .. } | Open::Sequence { node, .. }) = self.open.pop()
                    && let Some(node) = self.nodes.get_mut(node)
                {
                    node.value.end = at.end.max(node.value.start);
                    node.is_whole = true;
                }
            }
            _ => {}
        }
    }

    /// A scalar or an alias: the next key, or a value.
    fn leaf(&mut self, text: &str, kind: Kind, anchor: usize, at: &Range<usize>) {
        if let Some(Open::Mapping { key: key @ None, .. }) = self.open.last_mut() {
            *key = Some((text.to_owned(), at.clone()));
        } else {
            self.add(at, kind, anchor);
        }
    }

    /// A collection begins. `None` when it is a key, or below one.
    fn enter(&mut self, kind: Kind, anchor: usize, at: &Range<usize>) -> Option<usize> {
        if let Some(Open::Mapping { key: key @ None, .. }) = self.open.last_mut() {
            *key = Some((String::new(), at.clone()));
            return None;
        }
        self.add(at, kind, anchor)
    }

    /// Adds a value. `anchor` is 0 where it has none.
    fn add(&mut self, at: &Range<usize>, kind: Kind, anchor: usize) -> Option<usize> {
        let anchored = anchor > 0;
        let (parent, step, key) = match self.open.last_mut() {
            None if self.nodes.is_empty() => {
                self.nodes.push(Node { value: at.clone(), kind, anchored, ..Node::default() });
                self.anchors.insert(anchor, NodeId(0));
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
        above.children.push(index);
        let (parent_step, anchored) = (Some((parent, step.clone())), anchored || above.anchored);
        self.nodes.push(Node { parent: parent_step, key, value: at.clone(), kind, anchored, ..Node::default() });
        self.children.entry((parent, step)).or_insert(index);
        // Without an anchor it is 0, for which no alias asks.
        self.anchors.insert(anchor, NodeId(index));
        Some(index)
    }
}

fn range(text: &str, span: Span) -> Range<usize> {
    let start = byte(text, span.start);
    start..byte(text, span.end).max(start)
}

fn byte(text: &str, marker: Marker) -> usize {
    let of_characters = || text.char_indices().nth(marker.index()).map_or(text.len(), |(at, _)| at);
    marker.byte_offset().unwrap_or_else(of_characters).min(text.len())
}

#[cfg(test)]
mod tests;
