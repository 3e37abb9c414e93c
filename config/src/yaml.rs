//! YAML as a tree that knows where everything stands.
//!
//! Built from `saphyr-parser`'s events: its own tree stops at the first duplicate key and expands aliases.

use std::collections::BTreeSet;
use std::sync::Arc;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle};

use crate::problem::{Place, Problem};

/// Far deeper than any setting stands.
const MAX_DEPTH: usize = 32;
/// Largest document, in bytes.
const MAX_LEN: usize = 4 << 20;

/// A value and its place.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) data: Data,
}

#[derive(Debug, Clone)]
pub(crate) enum Data {
    /// Nothing, `~` or `null`.
    Empty,
    Scalar(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_place: Place,
    pub(crate) value: Node,
}

impl Node {
    pub(crate) fn new(place: &Place, data: Data) -> Self {
        Self { place: place.clone(), data }
    }

    pub(crate) fn scalar(place: &Place, text: &str) -> Self {
        Self::new(place, Data::Scalar(text.to_owned()))
    }

    pub(crate) fn map(place: &Place) -> Self {
        Self::new(place, Data::Map(Vec::new()))
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        let Data::Map(entries) = &self.data else {
            return None;
        };
        let found = entries.iter().find(|entry| entry.key == key)?;
        (!matches!(found.value.data, Data::Empty)).then_some(&found.value)
    }

    /// A scalar's text.
    pub(crate) fn as_text(&self) -> Option<&str> {
        match &self.data {
            Data::Scalar(text) => Some(text),
            _ => None,
        }
    }

    /// Sets `path` (names with dots), replacing what stood there.
    pub(crate) fn set(&mut self, path: &str, value: Node) {
        if !matches!(self.data, Data::Map(_)) {
            self.data = Data::Map(Vec::new());
        }
        let Data::Map(entries) = &mut self.data else {
            return;
        };
        let (key, rest) = path.split_once('.').map_or((path, None), |(key, rest)| (key, Some(rest)));
        let at = entries.iter().position(|entry| entry.key == key).unwrap_or(entries.len());
        if at == entries.len() {
            let (key, key_place) = (key.to_owned(), value.place.clone());
            entries.push(Entry { key, key_place, value: Node::map(&value.place) });
        }
        if let Some(entry) = entries.get_mut(at) {
            match rest {
                Some(rest) => entry.value.set(rest, value),
                None => entry.value = value,
            }
        }
    }
}

/// Reads one document. A syntax error is reported alone; all other problems are reported together.
pub(crate) fn parse(source: &str, text: &str, problems: &mut Vec<Problem>) -> Option<Node> {
    let mut builder = Builder::new(source);
    let start = builder.at(Marker::new(0, 1, 0));
    if text.len() > MAX_LEN {
        problems.push(Problem::new(&start, "", "larger than 4 MiB"));
        return None;
    }
    for event in Parser::new_from_str(text) {
        match event {
            Ok((event, span)) => builder.take(event, span.start),
            Err(error) => {
                problems.push(Problem::new(&builder.at(*error.marker()), "", format!("not YAML: {}", error.info())));
                return None;
            }
        }
        if builder.stop {
            break;
        }
    }
    problems.append(&mut builder.problems);
    Some(builder.root.unwrap_or_else(|| Node::new(&start, Data::Empty)))
}

enum Open {
    List(Node),
    /// A map, the key now open, and the keys seen.
    Map(Node, Option<(String, Place)>, BTreeSet<String>),
}

struct Builder {
    source: Arc<str>,
    stack: Vec<Open>,
    root: Option<Node>,
    documents: usize,
    problems: Vec<Problem>,
    stop: bool,
}

impl Builder {
    fn new(source: &str) -> Self {
        Self { source: source.into(), stack: Vec::new(), root: None, documents: 0, problems: Vec::new(), stop: false }
    }

    fn at(&self, marker: Marker) -> Place {
        Place::Document { source: self.source.clone(), line: marker.line(), column: marker.col() + 1 }
    }

    fn problem(&mut self, place: &Place, message: impl Into<String>) {
        self.problems.push(Problem::new(place, "", message));
    }

    fn take(&mut self, event: Event<'_>, marker: Marker) {
        let place = self.at(marker);
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    self.problem(&place, "a second document; only one is read");
                    self.stop = true;
                }
            }
            Event::Alias(_) => {
                self.problem(&place, "aliases (*name) are not read; write the value out");
                self.add(Node::new(&place, Data::Empty));
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_extras(&place, anchor, tag.is_some());
                let empty = style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let data = if empty { Data::Empty } else { Data::Scalar(text.into_owned()) };
                self.add(Node::new(&place, data));
            }
            Event::SequenceStart(anchor, tag) => {
                self.refuse_extras(&place, anchor, tag.is_some());
                self.open(Open::List(Node::new(&place, Data::List(Vec::new()))));
            }
            Event::MappingStart(anchor, tag) => {
                self.refuse_extras(&place, anchor, tag.is_some());
                self.open(Open::Map(Node::map(&place), None, BTreeSet::new()));
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
    }

    fn refuse_extras(&mut self, place: &Place, anchor: usize, tagged: bool) {
        if anchor > 0 {
            self.problem(place, "anchors (&name) are not read; write the value out where it is needed");
        }
        if tagged {
            self.problem(place, "tags (!name) are not read");
        }
    }

    fn open(&mut self, open: Open) {
        if self.stack.len() >= MAX_DEPTH {
            let (Open::List(node) | Open::Map(node, ..)) = &open;
            self.problem(&node.place.clone(), format!("nested deeper than {MAX_DEPTH}"));
            self.stop = true;
        }
        self.stack.push(open);
    }

    fn close(&mut self) {
        if let Some(Open::List(node) | Open::Map(node, ..)) = self.stack.pop() {
            self.add(node);
        }
    }

    /// Adds a whole value to what is open.
    fn add(&mut self, node: Node) {
        match self.stack.last_mut() {
            None => self.root = Some(node),
            Some(Open::List(list)) => {
                if let Data::List(items) = &mut list.data {
                    items.push(node);
                }
            }
            Some(Open::Map(map, open_key, seen)) => match open_key.take() {
                Some((key, key_place)) => {
                    if let Data::Map(entries) = &mut map.data {
                        entries.push(Entry { key, key_place, value: node });
                    }
                }
                None => {
                    let (key, wrong) = match node.data {
                        Data::Scalar(key) if seen.insert(key.clone()) => (key, None),
                        Data::Scalar(key) => (key.clone(), Some(format!("the key {key} stands twice"))),
                        _ => (String::new(), Some("a key must be plain text".to_owned())),
                    };
                    *open_key = Some((key, node.place.clone()));
                    if let Some(message) = wrong {
                        self.problem(&node.place, message);
                    }
                }
            },
        }
    }
}
