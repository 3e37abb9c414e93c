//! Walks a piece byte by byte: validates, keeps the path, tells which values are wanted.

use std::sync::Arc;

use super::{Expect, Key, Rewriter, Token, Want};
use crate::fields::automaton::{DEAD, Node, ROOT};
use crate::fields::bound::{Each, Frame, MAX_SPELLED};
use crate::fields::lexer::{Number, Text, Word, unescape};
use crate::fields::queue::Separator;
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
    fn since_start(&self) -> &'p [u8] {
        self.input.get(self.start..self.at).unwrap_or_default()
    }

    fn since_run(&self) -> &'p [u8] {
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
                if self.held.len() > self.limits.field {
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
    fn check_window<E>(&self, piece: &Piece<'_>) -> Result<(), Error<E>> {
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

    fn hold_separators<E>(&mut self, piece: &mut Piece<'_>) -> Result<(), Error<E>> {
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
    fn go_on<R: Resolver>(
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

    fn node(&self, state: u32) -> Option<&Node> {
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

    /// A value begins.
    fn value<R: Resolver>(
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
            None => node.and_then(|node| node.rule).map(usize::from),
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

    /// A container ends.
    fn close<R: Resolver>(
        &mut self,
        piece: &mut Piece<'_>,
        r: &mut R,
        out: &mut Vec<u8>,
    ) -> Result<(), Error<R::Error>> {
        piece.at += 1;
        if self.dead.pop().is_some() {
            return self.container_ended(piece, r, out);
        }
        let Some(frame) = self.stack.pop() else { return Err(Error::Malformed("a bracket closes nothing")) };
        if frame.drops {
            if std::mem::take(&mut self.separating) {
                // It was empty: white space and the bracket.
                self.separators.extend_from_slice(piece.since_run());
                let bytes = std::mem::take(&mut self.separators);
                self.queue.bytes(&bytes, out);
                piece.run = piece.at;
            } else {
                self.emit(piece, out);
            }
            self.queue.close(frame.serial);
        }
        if !self.pending.is_empty() {
            self.check_window(piece)?;
            self.frame_closed(frame.serial, r, out)?;
        }
        self.container_ended(piece, r, out)
    }

    fn container_ended<R: Resolver>(
        &mut self,
        piece: &mut Piece<'_>,
        r: &mut R,
        out: &mut Vec<u8>,
    ) -> Result<(), Error<R::Error>> {
        self.value_ended();
        match self.want {
            Want::Field { base, .. } if base == self.depth() => self.field_ended(piece, r, out),
            _ => Ok(()),
        }
    }

    fn value_ended(&mut self) {
        self.expect = if self.depth() == 0 { Expect::End } else { Expect::Next };
    }

    /// A string, number or word is whole.
    fn scalar_ended<R: Resolver>(
        &mut self,
        piece: &mut Piece<'_>,
        r: &mut R,
        out: &mut Vec<u8>,
    ) -> Result<(), Error<R::Error>> {
        self.value_ended();
        match self.want {
            Want::Field { base, .. } if base == self.depth() => self.field_ended(piece, r, out),
            Want::Watched { state } => {
                self.want = Want::Nothing;
                self.check_window(piece)?;
                let here = piece.since_start();
                if self.held.is_empty() {
                    return self.watched_scalar(state, here, r, out);
                }
                let mut held = std::mem::take(&mut self.held);
                held.extend_from_slice(here);
                self.watched_scalar(state, &held, r, out)
            }
            _ => Ok(()),
        }
    }

    /// A wanted value is whole.
    fn field_ended<R: Resolver>(
        &mut self,
        piece: &mut Piece<'_>,
        r: &mut R,
        out: &mut Vec<u8>,
    ) -> Result<(), Error<R::Error>> {
        let Want::Field { rule, .. } = std::mem::replace(&mut self.want, Want::Nothing) else { return Ok(()) };
        piece.run = piece.at;
        let here = piece.since_start();
        if self.held.len() + here.len() > self.limits.field {
            return Err(Error::TooLarge { rule });
        }
        if self.held.is_empty() {
            return self.deliver(rule, here, r, out);
        }
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(here);
        let delivered = self.deliver(rule, &held, r, out);
        held.clear();
        self.held = held;
        delivered
    }

    /// The document ended with a number whose last byte came in an earlier piece.
    pub(super) fn end_of_carried<R: Resolver>(&mut self, r: &mut R, out: &mut Vec<u8>) -> Result<(), Error<R::Error>> {
        let mut piece = Piece { input: &[], at: 0, run: 0, start: 0, key: 0 };
        self.scalar_ended(&mut piece, r, out)
    }
}
