//! The body rewriter: JSON in, JSON out, streaming; only the bytes of selected values change.
//!
//! A pull machine without I/O: [`Rewriter::push`] takes any piece of a document and appends what may leave to an output;
//! each selected value is handed to a [`Resolver`], which replaces it at once (local keys) or later, in any order (a call
//! out). Output leaves in the document's order. Memory is bounded whatever the document's size.

mod automaton;
mod bound;
mod lexer;
mod program;
mod queue;
mod rewriter;
mod scan;
mod utf8;

#[cfg(test)]
mod tests;

pub use bound::PathValues;
pub use program::{CompileError, JsonRule, Program};
pub use rewriter::Rewriter;

/// Bounds of one document. Sizes in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Brackets that may be open at once.
    pub depth: usize,
    /// The longest selected value that is buffered, without a string's quotes.
    pub field: usize,
    /// What one record may hold back for a bound value that comes later.
    pub bind_window: usize,
    /// Values that may wait for their answer at once (Vault takes 249 a batch with associated data).
    pub holes: usize,
    /// Output that may wait behind them.
    pub hole_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { depth: 128, field: 1 << 20, bind_window: 256 << 10, holes: 249, hole_bytes: 1 << 20 }
    }
}

impl Limits {
    /// Those that a configuration sets.
    pub(crate) fn of(limits: &oilskin_config::Limits) -> Self {
        Self { depth: limits.depth, field: limits.field, bind_window: limits.bind_window, ..Self::default() }
    }
}

/// What kind of JSON value a field is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// With its quotes.
    String,
    /// A number.
    Number,
    /// `true`.
    True,
    /// `false`.
    False,
    /// `null`.
    Null,
    /// From `[` to `]`.
    Array,
    /// From `{` to `}`.
    Object,
}

/// Names a value that waits for its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HoleId(pub(crate) u64);

/// A selected value.
#[derive(Debug)]
pub struct Field<'a> {
    /// Its name, if it is to be answered later.
    pub hole: HoleId,
    /// The rule that selected it, by its place in the program.
    pub rule: usize,
    /// What it is.
    pub kind: Kind,
    /// Its very bytes.
    pub raw: &'a [u8],
    /// The rule's bound values: names in byte order, values as text.
    pub bound: &'a [(&'a [u8], &'a [u8])],
}

/// What becomes of a selected value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Its replacement was appended to the output.
    Written,
    /// It stays as it is.
    Keep,
    /// Its member or element is left out; for rules that may.
    Dropped,
    /// [`Rewriter::answer`] will be called.
    Later,
}

/// What a late answer puts in a hole.
#[derive(Debug, Clone, Copy)]
pub enum Replacement<'a> {
    /// These bytes, one JSON value.
    Bytes(&'a [u8]),
    /// Nothing: the member or element is left out; for rules that may.
    Dropped,
}

/// Replaces selected values.
pub trait Resolver {
    /// Why it does not.
    type Error;

    /// Appends the replacement to `out`, or says otherwise. On an error nothing it appended leaves.
    ///
    /// # Errors
    /// Its own; the document ends there.
    fn resolve(&mut self, field: Field<'_>, out: &mut Vec<u8>) -> Result<Answer, Self::Error>;

    /// The most bytes that a replacement of `raw` bytes may have. A field that waits for a bound value counts as that: whoever
    /// reads the document back holds it as long, and has the same bounds.
    fn longest(&self, _rule: usize, raw: usize) -> usize {
        raw
    }
}

/// What is wrong with a bound value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BindError {
    /// None of its places is present.
    Missing,
    /// Its places differ.
    Differs,
    /// Its member occurs twice.
    Twice,
    /// It is neither string nor number.
    Type,
    /// It has not 1 to 256 bytes.
    Length,
    /// The record holds back more than it may.
    Window,
}

/// Why a document is not rewritten. Nothing of the document may leave any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error<E> {
    /// Not JSON (RFC 8259) in UTF-8; says what.
    Malformed(&'static str),
    /// It ends too early.
    Truncated,
    /// More brackets are open than may.
    TooDeep,
    /// A selected value is longer than may be.
    TooLarge {
        /// The rule that selected it.
        rule: usize,
    },
    /// A bound value.
    Bind {
        /// The rule that binds it.
        rule: usize,
        /// What is wrong.
        reason: BindError,
    },
    /// The resolver.
    Resolver {
        /// The rule whose field it was.
        rule: usize,
        /// What it said.
        error: E,
    },
    /// An answer to no open hole, or a drop by a rule that may not.
    Unasked,
}
