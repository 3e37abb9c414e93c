//! Text to [`Selector`]. The grammar is `rsonpath-syntax`'s; what a forward pass cannot decide is refused here.

use rsonpath_syntax as rson;

use super::{MAX_LEN, Segment, Selector, SelectorError, Step};

impl Selector {
    /// Reads one selector, at most 4,096 bytes.
    ///
    /// # Errors
    /// [`SelectorError::Syntax`] for what is no RFC 9535 JSONPath, [`SelectorError::NotStreamable`] for filters,
    /// negative indices, and slices with negative bounds or steps.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        if text.len() > MAX_LEN {
            return Err(SelectorError::Syntax(format!("longer than {MAX_LEN} bytes")));
        }
        let query = rson::parse(text).map_err(|error| SelectorError::Syntax(reason(text, &error)))?;
        let segments = query.segments().iter().map(segment).collect::<Result<_, _>>()?;
        Ok(Self { segments, text: text.to_owned() })
    }
}

/// The parser's report is a picture of several lines; its first lines' words are enough for a one-line problem.
fn reason(text: &str, error: &rson::error::ParseError) -> String {
    // rsonpath-syntax 0.4.2 cuts the text it draws by bytes, and panics inside a wider character: found by our own tests.
    if !text.is_ascii() {
        return "cannot be read".to_owned();
    }
    let report = error.to_string();
    let picked: Vec<&str> = report.lines().map(str::trim).filter(|line| says_something(line)).collect();
    if picked.is_empty() { "cannot be read".to_owned() } else { picked.join("; ") }
}

fn says_something(line: &str) -> bool {
    let line = line.trim_start_matches('^').trim();
    line.starts_with("error:") || line.starts_with("(bytes")
}

fn segment(segment: &rson::Segment) -> Result<Segment, SelectorError> {
    let steps = segment.selectors().as_slice().iter().map(step).collect::<Result<_, _>>()?;
    Ok(if segment.is_descendant() { Segment::Descendant(steps) } else { Segment::Child(steps) })
}

fn step(selector: &rson::Selector) -> Result<Step, SelectorError> {
    match selector {
        rson::Selector::Name(name) => Ok(Step::Name(name.unquoted().to_owned())),
        rson::Selector::Wildcard => Ok(Step::Wildcard),
        rson::Selector::Index(index) => Ok(Step::Index(from_start(*index, "a negative index")?)),
        rson::Selector::Slice(slice) => slice_step(slice),
        rson::Selector::Filter(_) => Err(SelectorError::NotStreamable("a filter")),
    }
}

fn slice_step(slice: &rson::Slice) -> Result<Step, SelectorError> {
    let step = match slice.step() {
        rson::Step::Forward(step) => step.as_u64(),
        rson::Step::Backward(_) => return Err(SelectorError::NotStreamable("a negative slice step")),
    };
    let bound = |index| from_start(index, "a negative slice bound");
    Ok(Step::Slice { start: bound(slice.start())?, end: slice.end().map(bound).transpose()?, step })
}

fn from_start(index: rson::Index, what: &'static str) -> Result<u64, SelectorError> {
    match index {
        rson::Index::FromStart(index) => Ok(index.as_u64()),
        rson::Index::FromEnd(_) => Err(SelectorError::NotStreamable(what)),
    }
}
