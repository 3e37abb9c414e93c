//! A value begins: where it leads, whether it is a field, watched, or neither.

use super::walk::Piece;
use super::{Expect, Rewriter, Token, Want};
use crate::fields::automaton::{DEAD, Node, ROOT};
use crate::fields::bound::{Each, Frame};
use crate::fields::lexer::{Number, Text, Word};
use crate::fields::queue::Separator;
use crate::fields::{Error, Resolver};

impl Rewriter {
    /// A value begins.
    pub(super) fn value<R: Resolver>(
        &mut self,
        byte: u8,
        piece: &mut Piece<'_>,
        r: &mut R,
        out: &mut Vec<u8>,
    ) -> Result<(), Error<R::Error>> {
        let token = match byte {
            b'{' | b'[' => None,
            b'"' => Some(Token::Text(Text::default())),
            b't' => Some(Token::Word(Word(b"rue"))),
            b'f' => Some(Token::Word(Word(b"alse"))),
            b'n' => Some(Token::Word(Word(b"ull"))),
            _ => Some(Token::Number(Number::start(byte).ok_or(Error::Malformed("not a JSON value"))?)),
        };
        let state = match self.want {
            // Inside a wanted container nothing else is looked for.
            Want::Field { .. } => DEAD,
            _ if !self.dead.is_empty() => {
                piece.start = piece.at;
                DEAD
            }
            _ => self.arrive(token.is_none(), piece, out)?,
        };
        piece.at += 1;
        match token {
            None => self.open(byte, state, piece, out),
            Some(token) => {
                self.token = token;
                self.go_on(piece, r, out)
            }
        }
    }

    /// Where the value that begins here leads, and whether it is wanted.
    fn arrive<E>(&mut self, container: bool, piece: &mut Piece<'_>, out: &mut Vec<u8>) -> Result<u32, Error<E>> {
        let mut state = self.member;
        let mut each = None;
        match self.stack.last_mut() {
            None => state = ROOT,
            Some(frame) => {
                each = frame.each;
                if frame.array {
                    let index = frame.index;
                    frame.index += 1;
                    let from = frame.state;
                    state = if from == DEAD { DEAD } else { self.node(from).map_or(DEAD, |node| node.element(index)) };
                }
            }
        }
        let node = if state == DEAD { None } else { self.program.nodes.get(state as usize) };
        let selected = match each {
            Some(each) => Some(usize::from(each.rule)),
            None => {
                let rule = |node: &Node| node.rule.or(node.scalar.filter(|_| !container));
                node.and_then(rule).map(usize::from)
            }
        };
        let wanted = selected.filter(|rule| !container || !self.goes_into(*rule));
        let drop = wanted.is_some_and(|rule| self.program.rules.get(rule).is_some_and(|rule| rule.may_drop));
        let watched = node.is_some_and(|node| !node.watched.is_empty());
        if self.separating {
            self.hold_separators(piece)?;
            self.separating = false;
            if !drop && let Some(container) = self.stack.last().map(|frame| frame.serial) {
                let bytes = std::mem::take(&mut self.separators);
                self.queue.item(Separator { container, bytes }, out);
            }
        }
        piece.start = piece.at;
        if watched && selected.is_some() {
            // It is another value on the way back: nothing can be bound to it.
            self.watched_container(state)?;
        }
        if let Some(rule) = wanted {
            self.emit(piece, out);
            self.held.clear();
            self.want = Want::Field { rule, base: self.depth() };
        } else if watched && !container && selected.is_none() {
            self.held.clear();
            self.want = Want::Watched { state };
        } else if watched && selected.is_none() {
            self.watched_container(state)?;
        }
        Ok(state)
    }

    /// Whether a selected container is not a field itself: its leaves are.
    fn goes_into(&self, rule: usize) -> bool {
        self.program.rules.get(rule).is_some_and(|rule| rule.each)
    }

    /// A container opens; the value it is was looked at already.
    fn open<E>(&mut self, byte: u8, state: u32, piece: &mut Piece<'_>, out: &mut Vec<u8>) -> Result<(), Error<E>> {
        if self.depth() >= self.limits.depth {
            return Err(Error::TooDeep);
        }
        let array = byte == b'[';
        self.expect = if array { Expect::FirstElement } else { Expect::FirstKey };
        let above = self.stack.last().and_then(|frame| frame.each);
        let wanted = matches!(self.want, Want::Field { .. });
        if wanted || !self.dead.is_empty() || (state == DEAD && above.is_none()) {
            // An opening bracket and its closing one are two apart in ASCII.
            self.dead.push(byte + 2);
            return Ok(());
        }
        self.serial = self.serial.wrapping_add(1);
        let rule = self.node(state).filter(|_| state != DEAD).and_then(|node| node.rule);
        let each = above.or_else(|| rule.map(|rule| Each { rule, holder: self.holder().map(|at| at as u32) }));
        let drops = match each {
            Some(each) => self.program.rules.get(usize::from(each.rule)).is_some_and(|rule| rule.may_drop),
            None => self.node(state).is_some_and(|node| node.may_drop),
        };
        let state = if each.is_some() { DEAD } else { state };
        if drops {
            self.emit(piece, out);
            self.separators.clear();
            self.separating = true;
        }
        let serial = self.serial;
        let frame = Frame { array, serial, each, drops, state, ..Frame::default() };
        self.stack.push(frame);
        Ok(())
    }

    /// The object that holds the value being looked at: the nearest one that is open.
    pub(super) fn holder(&self) -> Option<usize> {
        self.stack.iter().rposition(|frame| !frame.array)
    }
}
