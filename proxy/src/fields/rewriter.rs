//! The machine itself.

mod begin;
mod deliver;
mod end;
mod lane;
mod walk;

use std::sync::Arc;

use super::automaton::DEAD;
use super::bound::{Frame, PathValues, Pending};
use super::lexer::{Number, Text, Word};
use super::program::Program;
use super::queue::{Filling, Queue};
use super::utf8::Utf8;
use super::{Error, HoleId, Limits, Replacement, Resolver};

/// Rewrites one document.
pub struct Rewriter {
    program: Arc<Program>,
    limits: Limits,
    path: PathValues,
    expect: Expect,
    token: Token,
    /// Open containers in which something can still match.
    stack: Vec<Frame>,
    /// Closing brackets of the open containers above those: nothing can match in them.
    dead: Vec<u8>,
    serial: u32,
    /// Where the value of the member just named leads.
    member: u32,
    key: Key,
    want: Want,
    /// The part of a wanted value that came in earlier pieces.
    held: Vec<u8>,
    /// Separators held back, while in a container whose members may be left out.
    separators: Vec<u8>,
    separating: bool,
    utf8: Utf8,
    /// Bytes to come whose UTF-8 was checked with an earlier piece.
    checked: usize,
    queue: Queue,
    pending: Vec<Pending>,
    holes: u64,
}

/// What may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    Value,
    FirstElement,
    FirstKey,
    Key,
    Colon,
    /// A comma or the closing bracket.
    Next,
    /// White space only.
    End,
}

/// A token that goes on in the next piece.
#[derive(Debug, Clone, Copy)]
enum Token {
    None,
    Key(Text),
    Text(Text),
    Number(Number),
    Word(Word),
}

/// What is done with the value being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    Nothing,
    /// A field; `base` is the depth at which it stands.
    Field {
        rule: usize,
        base: usize,
    },
    /// Its text is bound by some rule; the state names the watches.
    Watched {
        state: u32,
    },
}

/// The member name being read.
#[derive(Default)]
struct Key {
    /// Its part from earlier pieces.
    bytes: Vec<u8>,
    carried: bool,
    /// Longer than any name that matters: its bytes are not kept.
    over: bool,
}

impl Rewriter {
    /// A rewriter at the start of a document.
    pub fn new(program: Arc<Program>, limits: Limits, path: PathValues) -> Self {
        Self {
            program,
            limits,
            path,
            expect: Expect::Value,
            token: Token::None,
            // Room for usual documents at once instead of by turns.
            stack: Vec::with_capacity(8),
            dead: Vec::with_capacity(16),
            serial: 0,
            member: DEAD,
            key: Key::default(),
            want: Want::Nothing,
            held: Vec::new(),
            separators: Vec::new(),
            separating: false,
            utf8: Utf8::default(),
            checked: 0,
            queue: Queue::default(),
            pending: Vec::new(),
            holes: 0,
        }
    }

    /// Takes a piece of the document and appends what may leave. Returns how many bytes it took: all, unless as many
    /// answers are late as may be; push the rest again once some have come.
    ///
    /// # Errors
    /// What is wrong with the document, or what the resolver said. Nothing appended by this call may leave then.
    pub fn push<R: Resolver>(
        &mut self,
        piece: &[u8],
        resolver: &mut R,
        out: &mut Vec<u8>,
    ) -> Result<usize, Error<R::Error>> {
        let fresh = piece.get(self.checked..).unwrap_or_default();
        if !self.utf8.accepts(fresh) {
            return Err(Error::Malformed("not UTF-8"));
        }
        let taken = self.walk(piece, resolver, out)?;
        self.checked = self.checked.max(piece.len()) - taken;
        Ok(taken)
    }

    /// The document has ended. Late answers may still come; [`Rewriter::open_holes`] says how many.
    ///
    /// # Errors
    /// As [`Rewriter::push`].
    pub fn finish<R: Resolver>(&mut self, resolver: &mut R, out: &mut Vec<u8>) -> Result<(), Error<R::Error>> {
        // Only a number at the top has no end of its own.
        if let Token::Number(number) = self.token {
            number.check().map_err(|_| Error::Truncated)?;
            self.token = Token::None;
            self.end_of_carried(resolver, out)?;
        }
        match self.expect == Expect::End && matches!(self.token, Token::None) && self.utf8.is_whole() {
            true => Ok(()),
            false => Err(Error::Truncated),
        }
    }

    /// Answers a hole that was left for later, in any order, and appends what may leave now.
    ///
    /// # Errors
    /// [`Error::Unasked`].
    pub fn answer<E>(&mut self, hole: HoleId, replacement: Replacement<'_>, out: &mut Vec<u8>) -> Result<(), Error<E>> {
        let queue = &mut self.queue;
        let is_filled = match replacement {
            Replacement::Bytes(bytes) => {
                queue.write_first(hole, bytes, out) || queue.fill(hole, Filling::Filled(bytes.to_vec()))
            }
            Replacement::Dropped => queue.fill(hole, Filling::Dropped),
        };
        match is_filled {
            true => {
                queue.flush(out);
                Ok(())
            }
            false => Err(Error::Unasked),
        }
    }

    /// Bytes of output that wait for answers or bound values.
    pub fn held(&self) -> usize {
        self.queue.held()
    }

    /// Answers still to come.
    pub fn open_holes(&self) -> usize {
        self.queue.late()
    }
}
