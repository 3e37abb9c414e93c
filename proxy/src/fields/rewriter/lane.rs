//! The fast lane: one tight loop over everything that is neither wanted nor watched nor may be left out.
//!
//! It reads the same grammar as the walk and stops, at a token's border, wherever something else is needed; the walk
//! takes that token and the lane goes on behind it.

use super::walk::Piece;
use super::{Expect, Rewriter, Token, Want};
use crate::fields::automaton::{DEAD, Node};
use crate::fields::bound::Frame;
use crate::fields::lexer::{Number, Text, Word, unescape};

/// The innermost open container, kept in registers.
#[derive(Clone, Copy)]
struct Inside {
    array: bool,
    /// Its state; DEAD where nothing can match in it.
    state: u32,
    /// The lane may go on in it.
    fast: bool,
}

impl Rewriter {
    fn inside(&self) -> Inside {
        if let Some(closer) = self.dead.last() {
            return Inside { array: *closer == b']', state: DEAD, fast: true };
        }
        match self.stack.last() {
            Some(frame) => {
                Inside { array: frame.array, state: frame.state, fast: frame.each.is_none() && !frame.drops }
            }
            None => Inside { array: false, state: DEAD, fast: false },
        }
    }

    /// Reads as far as it can.
    ///
    /// # Errors
    /// What is wrong with a token; anything else that is wrong is left for the walk to say.
    pub(super) fn lane(&mut self, nodes: &[Node], piece: &mut Piece<'_>) -> Result<(), &'static str> {
        let input = piece.input;
        let mut at = piece.at;
        let mut expect = self.expect;
        let mut member = self.member;
        let mut inside = self.inside();
        // One round is a member or element: name, colon, value and what follows stand one behind the other, so that the
        // processor learns their order.
        while inside.fast {
            let Some(mut byte) = peek(input, &mut at) else { break };
            if byte == b'"' && matches!(expect, Expect::Key | Expect::FirstKey) {
                at += 1;
                let start = at;
                let mut text = Text::default();
                if !text.run(input, &mut at)? {
                    self.begin_key(piece, start);
                    self.token = Token::Key(text);
                    break;
                }
                member = match inside.state {
                    DEAD => DEAD,
                    state => lead(nodes, state, input.get(start..at - 1).unwrap_or_default(), text.escaped),
                };
                expect = Expect::Colon;
                let Some(next) = peek(input, &mut at) else { break };
                byte = next;
            }
            if byte == b':' && expect == Expect::Colon {
                at += 1;
                expect = Expect::Value;
                let Some(next) = peek(input, &mut at) else { break };
                byte = next;
            }
            if matches!(expect, Expect::Value | Expect::FirstElement)
                && !(byte == b']' && expect == Expect::FirstElement)
            {
                let Some(state) = self.lane_state(nodes, inside, member) else { break };
                if matches!(byte, b'{' | b'[') {
                    if self.depth() >= self.limits.depth {
                        break;
                    }
                    self.step(inside);
                    self.lane_open(byte, state);
                    inside = Inside { array: byte == b'[', state, fast: true };
                    expect = if inside.array { Expect::FirstElement } else { Expect::FirstKey };
                    at += 1;
                    continue;
                }
                let cut = scalar(byte, input, &mut at)?;
                self.step(inside);
                if let Some(token) = cut {
                    self.token = token;
                    break;
                }
                expect = Expect::Next;
                let Some(next) = peek(input, &mut at) else { break };
                byte = next;
            }
            match (expect, byte) {
                (Expect::Next, b',') => {
                    at += 1;
                    expect = if inside.array { Expect::Value } else { Expect::Key };
                }
                (Expect::Next | Expect::FirstElement, b']') | (Expect::Next | Expect::FirstKey, b'}') => {
                    if !self.lane_close(byte) {
                        break;
                    }
                    at += 1;
                    expect = if self.depth() == 0 { Expect::End } else { Expect::Next };
                    inside = self.inside();
                }
                _ => break,
            }
        }
        self.expect = expect;
        self.member = member;
        piece.at = at;
        Ok(())
    }

    /// Where the value that begins here leads, if nothing is to be done about it.
    fn lane_state(&self, nodes: &[Node], inside: Inside, member: u32) -> Option<u32> {
        let state = match inside {
            Inside { state: DEAD, .. } => return Some(DEAD),
            Inside { array: false, .. } => member,
            Inside { state, .. } => nodes.get(state as usize)?.element(self.stack.last()?.index),
        };
        (state == DEAD || nodes.get(state as usize)?.inert).then_some(state)
    }

    fn step(&mut self, inside: Inside) {
        if inside.array
            && inside.state != DEAD
            && let Some(frame) = self.stack.last_mut()
        {
            frame.index += 1;
        }
    }

    fn lane_open(&mut self, byte: u8, state: u32) {
        if state == DEAD {
            self.dead.push(byte + 2);
            return;
        }
        self.serial = self.serial.wrapping_add(1);
        self.stack.push(Frame { array: byte == b'[', state, serial: self.serial, ..Frame::default() });
    }

    /// Closes what may be closed without more ado; false leaves it to the walk.
    fn lane_close(&mut self, byte: u8) -> bool {
        if let Some(closer) = self.dead.last() {
            let ends_field = self.dead.len() == 1 && matches!(self.want, Want::Field { .. });
            if byte != *closer || ends_field {
                return false;
            }
            self.dead.pop();
            return true;
        }
        let Some(frame) = self.stack.last() else { return false };
        let closer = if frame.array { b']' } else { b'}' };
        if byte != closer || !self.pending.is_empty() {
            return false;
        }
        self.stack.pop();
        true
    }
}

/// Where a member leads.
fn lead(nodes: &[Node], state: u32, name: &[u8], escaped: bool) -> u32 {
    let Some(node) = nodes.get(state as usize) else { return DEAD };
    match (node.tells_members(), escaped) {
        (false, _) => node.other(),
        (true, false) => node.member(name),
        (true, true) => node.member(&unescape(name)),
    }
}

/// The next byte that is no white space.
#[inline]
fn peek(input: &[u8], at: &mut usize) -> Option<u8> {
    loop {
        let byte = *input.get(*at)?;
        if byte > b' ' || !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
            return Some(byte);
        }
        *at += 1;
    }
}

/// Reads a scalar from its first byte; what it is where the piece ends in it.
#[inline]
fn scalar(byte: u8, input: &[u8], at: &mut usize) -> Result<Option<Token>, &'static str> {
    *at += 1;
    let word = |rest: &'static [u8], at: &mut usize| {
        let mut word = Word(rest);
        Ok(if word.run(input, at)? { None } else { Some(Token::Word(word)) })
    };
    match byte {
        b'"' => {
            let mut text = Text::default();
            Ok(if text.run(input, at)? { None } else { Some(Token::Text(text)) })
        }
        b't' => word(b"rue", at),
        b'f' => word(b"alse", at),
        b'n' => word(b"ull", at),
        _ => {
            let mut number = Number::start(byte).ok_or("not a JSON value")?;
            Ok(if number.run_plain(input, at) || number.run(input, at)? { None } else { Some(Token::Number(number)) })
        }
    }
}
