//! RFC 9535 JSONPath selectors, cut to what one forward pass over a document can decide.

/// A parsed, streamable selector.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Selector {
    segments: Vec<Segment>,
    text: String,
}

/// One segment: `.a`, `['a', 0]` (children) or `..a` (the node itself and all below it).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Segment {
    /// Applies to the children of a node.
    Child(Vec<Step>),
    /// Applies to the children of a node and of each of its descendants.
    Descendant(Vec<Step>),
}

/// One way to pick a child.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    /// The member of that (unescaped) name.
    Name(String),
    /// Every member or element.
    Wildcard,
    /// The element of that index, from 0.
    Index(u64),
    /// Elements `start`, `start + step`, … below `end`. `step` 0 picks none (RFC 9535 2.3.4.2.2).
    Slice {
        /// First index.
        start: u64,
        /// First index no longer picked; none is no end.
        end: Option<u64>,
        /// Distance.
        step: u64,
    },
}

/// Why a selector is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// Not RFC 9535.
    #[error("not a JSONPath (RFC 9535): {0}")]
    Syntax(String),
    /// Valid, but no single forward pass can decide it.
    #[error("{0} cannot be decided while streaming")]
    NotStreamable(&'static str),
}

impl Selector {
    /// The segments after `$`; none selects the whole document.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The text it was parsed from.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}
