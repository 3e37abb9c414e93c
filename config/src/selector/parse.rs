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

/// What is wrong and where, in one line.
///
/// The parser shows its errors as a picture of several lines, and drawing it panics on some texts (an index past the end,
/// a cut inside a wide character; rsonpath-syntax 0.4.2, found by our fuzz targets). Its derived `Debug` cannot.
fn reason(text: &str, error: &rson::error::ParseError) -> String {
    if error.is_nesting_limit_exceeded() {
        return "nested too deeply".to_owned();
    }
    let shown = format!("{error:?}");
    let found = shown.strip_prefix(&format!("ParseError {{ input: {text:?}, inner: Syntax([SyntaxError {{ kind: "));
    let Some(found) = found else { return "cannot be read".to_owned() };
    let kind: String = found.chars().take_while(char::is_ascii_alphabetic).collect();
    let from_end = found.split_once("rev_idx: ").and_then(|(_, rest)| rest.split(',').next()?.parse::<usize>().ok());
    let at = from_end.map_or(0, |from_end| text.len().saturating_sub(from_end)) + 1;
    format!("{} at byte {at}", words(&kind))
}

/// `MissingClosingBracket` as words.
fn words(kind: &str) -> String {
    let mut out = String::with_capacity(kind.len() + 8);
    for character in kind.chars() {
        if character.is_ascii_uppercase() && !out.is_empty() {
            out.push(' ');
        }
        out.push(character.to_ascii_lowercase());
    }
    out
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
