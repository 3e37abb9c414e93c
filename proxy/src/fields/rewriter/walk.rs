//! Walks a piece byte by byte: validates, keeps the path, tells which values are wanted.

use std::sync::Arc;

use super::{Expect, Key, Rewriter, Token, Want};
use crate::fields::automaton::{DEAD, Node};
use crate::fields::bound::MAX_SPELLED;
use crate::fields::lexer::{Text, unescape};
use crate::fields::{BindError, Error, Resolver};

/// A piece and where we are in it.
pub(super) struct Piece<'p> {
    pub(super) input: &'p [u8],
    pub(super) at: usize,
    /// From here on nothing was appended yet.
    pub(super) run: usize,
    /// Where the wanted value begins in this piece.
    pub(super) start: usize,
    /// Where the member name being read begins in this piece.
    pub(super) key: usize,
}

impl<'p> Piece<'p> {
    pub(super) fn since_start(&self) -> &'p [u8] {
        self.input.get(self.start..self.at).unwrap_or_default()
    }

    pub(super) fn since_run(&self) -> &'p [u8] {
        self.input.get(self.run..self.at).unwrap_or_default()
    }
}

impl Rewriter {
    pub(super) fn walk<R: Resolver>(
        &mut self,
        input: &[u8],
        r: &mut R,
        out: &mut Vec<u8>,
    ) -> Result<usize, Error<R::Error>> {
        let mut piece = Piece { input, at: 0, run: 0, start: 0, key: 0 };
        let program = Arc::clone(&self.program);
        while piece.at < input.len() {
            if self.queue.late() >= self.limits.holes || self.queue.held() >= self.limits.hole_bytes {
                break;
            }
            if matches!(self.token, Token::None) && !self.separating {
                self.lane(&program.nodes, &mut piece).map_err(Error::Malformed)?;
                if piece.at >= input.len() {
                    break;
                }
            }
            match self.token {
                Token::None => self.next(&mut piece, r, out)?,
                _ => self.go_on(&mut piece, r, out)?,
            }
        }
        self.end_of_piece(&mut piece, out)?;
        Ok(piece.at)
    }

    /// Keeps what the next piece needs of this one.
    fn end_of_piece<E>(&mut self, piece: &mut Piece<'_>, out: &mut Vec<u8>) -> Result<(), Error<E>> {
        if let Token::Key(_) = self.token {
            self.carry_key(piece.input.get(piece.key..piece.at).unwrap_or_default());
        }
        match self.want {
            Want::Field { rule, .. } => {
                self.held.extend_from_slice(piece.since_start());
                piece.run = piece.at;
                if self.held.len() > self.longest_field() {
                    return Err(Error::TooLarge { rule });
                }
            }
            // One byte more than any value that can be bound is kept: enough to see that it is longer.
            Want::Watched { .. } if self.held.len() <= MAX_SPELLED => {
                let room = MAX_SPELLED + 1 - self.held.len();
                let piece = piece.since_start();
                self.held.extend_from_slice(piece.get(..room).unwrap_or(piece));
            }
            _ => {}
        }
        if self.separating {
            self.hold_separators(piece)?;
        } else {
            self.emit(piece, out);
        }
        self.check_window(piece)
    }

    /// What a record holds back for a bound value is bounded. Looked at wherever a piece ends and before anything is released,
    /// so that it does not matter how the document was cut.
    pub(super) fn check_window<E>(&self, piece: &Piece<'_>) -> Result<(), Error<E>> {
        let Some(pending) = self.pending.first() else { return Ok(()) };
        match self.queue.held() + self.separators.len() + piece.since_run().len() > self.limits.bind_window {
            true => Err(Error::Bind { rule: pending.rule, reason: BindError::Window }),
            false => Ok(()),
        }
    }

    /// Appends everything up to here.
    pub(super) fn emit(&mut self, piece: &mut Piece<'_>, out: &mut Vec<u8>) {
        self.queue.bytes(piece.since_run(), out);
        piece.run = piece.at;
    }

    pub(super) fn hold_separators<E>(&mut self, piece: &mut Piece<'_>) -> Result<(), Error<E>> {
        self.separators.extend_from_slice(piece.since_run());
        piece.run = piece.at;
        match self.separators.len() > self.limits.field {
            true => Err(Error::Malformed("a member name is too long")),
            false => Ok(()),
        }
    }

    /// Reads the next token's first byte.
    fn next<R: Resolver>(
        &mut self,
        piece: &mut Piece<'_>,
        r: &mut R,
        out: &mut Vec<u8>,
    ) -> Result<(), Error<R::Error>> {
        let rest = piece.input.get(piece.at..).unwrap_or_default();
        let space = rest.iter().position(|byte| !matches!(byte, b' ' | b'\n' | b'\r' | b'\t'));
        let Some(space) = space else {
            piece.at = piece.input.len();
            return Ok(());
        };
        piece.at += space;
        let Some(&byte) = piece.input.get(piece.at) else { return Ok(()) };
        match (self.expect, byte) {
            (Expect::Next, b',') => {
                if self.dead.is_empty() && self.stack.last().is_some_and(|frame| frame.drops) {
                    self.emit(piece, out);
                    self.separating = true;
                }
                self.expect = if self.in_array() { Expect::Value } else { Expect::Key };
                piece.at += 1;
                Ok(())
            }
            (Expect::Next | Expect::FirstElement, b']') if self.in_array() => self.close(piece, r, out),
            (Expect::Next | Expect::FirstKey, b'}') if !self.in_array() => self.close(piece, r, out),
            (Expect::FirstKey | Expect::Key, b'"') => {
                piece.at += 1;
                self.begin_key(piece, piece.at);
                self.token = Token::Key(Text::default());
                self.go_on(piece, r, out)
            }
            (Expect::Colon, b':') => {
                self.expect = Expect::Value;
                piece.at += 1;
                Ok(())
            }
            (Expect::Value | Expect::FirstElement, _) => self.value(byte, piece, r, out),
            (Expect::End, _) => Err(Error::Malformed("something follows the document")),
            (Expect::Colon, _) => Err(Error::Malformed("a colon is missing")),
            (Expect::Next, _) => Err(Error::Malformed("a comma or closing bracket is missing")),
            (Expect::FirstKey | Expect::Key, _) => Err(Error::Malformed("a member name is missing")),
        }
    }

    /// Goes on with a token that has begun, here or in an earlier piece.
    pub(super) fn go_on<R: Resolver>(
        &mut self,
        piece: &mut Piece<'_>,
        r: &mut R,
        out: &mut Vec<u8>,
    ) -> Result<(), Error<R::Error>> {
        let (input, at) = (piece.input, &mut piece.at);
        let (token, over) = match self.token {
            Token::None => return Ok(()),
            Token::Key(mut text) => {
                let over = text.run(input, at).map_err(Error::Malformed)?;
                (Token::Key(text), over)
            }
            Token::Text(mut text) => {
                let over = text.run(input, at).map_err(Error::Malformed)?;
                (Token::Text(text), over)
            }
            Token::Number(mut number) => {
                let over = number.run(input, at).map_err(Error::Malformed)?;
                (Token::Number(number), over)
            }
            Token::Word(mut word) => {
                let over = word.run(input, at).map_err(Error::Malformed)?;
                (Token::Word(word), over)
            }
        };
        if !over {
            self.token = token;
            return Ok(());
        }
        self.token = Token::None;
        match token {
            Token::Key(text) => {
                self.name(text, piece);
                Ok(())
            }
            _ => self.scalar_ended(piece, r, out),
        }
    }

    pub(super) fn node(&self, state: u32) -> Option<&Node> {
        self.program.nodes.get(state as usize)
    }

    /// A member's name is whole: where does its value lead?
    fn name(&mut self, text: Text, piece: &Piece<'_>) {
        self.expect = Expect::Colon;
        let state = self.state();
        let Some(node) = self.program.nodes.get(state as usize).filter(|_| state != DEAD) else {
            self.member = DEAD;
            return;
        };
        let raw = piece.input.get(piece.key..piece.at.saturating_sub(1)).unwrap_or_default();
        self.member = if !node.tells_members() || self.key.over {
            node.other()
        } else if !self.key.carried && !text.escaped {
            node.member(raw)
        } else {
            if self.key.carried {
                self.key.bytes.extend_from_slice(raw);
            } else {
                self.key.bytes.clear();
                self.key.bytes.extend_from_slice(raw);
            }
            match text.escaped {
                true => node.member(&unescape(&self.key.bytes)),
                false => node.member(&self.key.bytes),
            }
        };
    }

    pub(super) fn begin_key(&mut self, piece: &mut Piece<'_>, at: usize) {
        piece.key = at;
        self.key = Key { bytes: std::mem::take(&mut self.key.bytes), ..Key::default() };
        self.key.bytes.clear();
    }

    /// Brackets that are open.
    pub(super) fn depth(&self) -> usize {
        self.stack.len() + self.dead.len()
    }

    /// Whether the innermost open container is an array.
    fn in_array(&self) -> bool {
        match self.dead.last() {
            Some(closer) => *closer == b']',
            None => self.stack.last().is_some_and(|frame| frame.array),
        }
    }

    /// The state of the innermost open container.
    fn state(&self) -> u32 {
        match self.dead.is_empty() {
            true => self.stack.last().map_or(DEAD, |frame| frame.state),
            false => DEAD,
        }
    }

    /// Keeps a cut name, but never more of it than could matter.
    fn carry_key(&mut self, bytes: &[u8]) {
        let state = self.state();
        let longest = self.node(state).map_or(0, |node| node.longest() * 6);
        self.key.carried = true;
        match self.key.over || self.key.bytes.len() + bytes.len() > longest {
            true => self.key.over = true,
            false => self.key.bytes.extend_from_slice(bytes),
        }
    }
}
