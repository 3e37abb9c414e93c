//! RFC 9535 JSONPath selectors, cut to what one forward pass over a document can decide.

mod overlap;
mod parse;

/// Longest selector taken, in bytes: far past any real one, short enough that reading one stays cheap.
pub(crate) const MAX_LEN: usize = 4096;

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

    /// A selector that was not written, for questions about others.
    pub(crate) fn of(segments: Vec<Segment>) -> Self {
        Self { segments, text: String::new() }
    }

    /// The text it was parsed from.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The context of a rule that names none: the selector's names joined by dots.
    ///
    /// Dots and backslashes inside a name are escaped by a backslash, so `$['a.b']` and `$.a.b` differ. Wildcards,
    /// indices and slices give nothing; a segment of several names gives them in the order written. May be empty.
    pub fn default_context(&self) -> String {
        let names = self.segments.iter().flat_map(Segment::steps).filter_map(Step::name);
        let escaped: Vec<String> = names.map(|name| name.replace('\\', "\\\\").replace('.', "\\.")).collect();
        escaped.join(".")
    }

    /// The most objects that a selected value can lie in; none where `..` leaves it open.
    pub(crate) fn most_objects(&self) -> Option<usize> {
        let names =
            |segment: &&Segment| segment.steps().iter().any(|step| matches!(step, Step::Name(_) | Step::Wildcard));
        let open = self.segments.iter().any(Segment::is_descendant);
        (!open).then(|| self.segments.iter().filter(names).count())
    }

    /// The one name its last segment selects; none where that is a wildcard, an index or several steps.
    pub fn last_name(&self) -> Option<&str> {
        match self.segments.last()?.steps() {
            [Step::Name(name)] => Some(name),
            _ => None,
        }
    }
}

impl Segment {
    /// Its steps, at least one.
    pub fn steps(&self) -> &[Step] {
        match self {
            Self::Child(steps) | Self::Descendant(steps) => steps,
        }
    }

    /// True for `..`.
    pub fn is_descendant(&self) -> bool {
        matches!(self, Self::Descendant(_))
    }
}

impl Step {
    fn name(&self) -> Option<&str> {
        match self {
            Self::Name(name) => Some(name),
            _ => None,
        }
    }
}

impl std::fmt::Display for Selector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::str::FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        Self::parse(text)
    }
}

#[cfg(test)]
mod tests;
