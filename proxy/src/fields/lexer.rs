//! JSON's tokens (RFC 8259), each a small machine that can stop at any byte and go on in the next piece.

use super::scan::{digits, plain};

/// Inside a string, after its opening quote.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Text {
    escape: Escape,
    /// A backslash was seen.
    pub(super) escaped: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Escape {
    #[default]
    None,
    /// After a backslash.
    Start,
    /// Inside `uXXXX`: digits so far and their value; `low` after a high surrogate.
    Hex { digits: u8, code: u16, low: bool },
    /// After a high surrogate: its partner's backslash must follow.
    Backslash,
    /// … and its `u`.
    LowerU,
}

impl Text {
    /// Reads on from `at`; true when the closing quote was passed.
    #[inline]
    pub(super) fn run(&mut self, input: &[u8], at: &mut usize) -> Result<bool, &'static str> {
        if self.escape == Escape::None {
            *at += plain(input.get(*at..).unwrap_or_default());
            if input.get(*at) == Some(&b'"') {
                *at += 1;
                return Ok(true);
            }
        }
        self.run_on(input, at)
    }

    /// The same where escapes stand, or a piece ends.
    fn run_on(&mut self, input: &[u8], at: &mut usize) -> Result<bool, &'static str> {
        loop {
            if self.escape == Escape::None {
                *at += plain(input.get(*at..).unwrap_or_default());
            }
            let Some(&byte) = input.get(*at) else { return Ok(false) };
            *at += 1;
            if self.escape != Escape::None {
                self.escape = self.escape.next(byte)?;
                continue;
            }
            match byte {
                b'"' => return Ok(true),
                b'\\' => {
                    self.escaped = true;
                    self.escape = Escape::Start;
                }
                _ => return Err("a control character in a string"),
            }
        }
    }
}

impl Escape {
    fn next(self, byte: u8) -> Result<Self, &'static str> {
        match (self, byte) {
            (Self::Start, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => Ok(Self::None),
            (Self::Start, b'u') => Ok(Self::Hex { digits: 0, code: 0, low: false }),
            (Self::Hex { digits, code, low }, _) => {
                let digit = char::from(byte).to_digit(16).ok_or("not a hexadecimal digit")?;
                let code = code << 4 | digit as u16;
                match digits {
                    3 => Self::end(code, low),
                    _ => Ok(Self::Hex { digits: digits + 1, code, low }),
                }
            }
            (Self::Backslash, b'\\') => Ok(Self::LowerU),
            (Self::LowerU, b'u') => Ok(Self::Hex { digits: 0, code: 0, low: true }),
            (Self::Backslash | Self::LowerU, _) => Err("half of a surrogate pair"),
            _ => Err("an unknown escape"),
        }
    }

    fn end(code: u16, low: bool) -> Result<Self, &'static str> {
        match (code, low) {
            (0xDC00..=0xDFFF, true) => Ok(Self::None),
            (_, true) | (0xDC00..=0xDFFF, false) => Err("half of a surrogate pair"),
            (0xD800..=0xDBFF, false) => Ok(Self::Backslash),
            _ => Ok(Self::None),
        }
    }
}

/// Inside a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    Minus,
    Zero,
    Integer,
    Point,
    Fraction,
    E,
    Sign,
    Exponent,
}

impl Number {
    pub(super) fn start(byte: u8) -> Option<Self> {
        match byte {
            b'-' => Some(Self::Minus),
            b'0' => Some(Self::Zero),
            b'1'..=b'9' => Some(Self::Integer),
            _ => None,
        }
    }

    /// The same as [`Number::run`] for the usual spellings, from behind the first byte: false where it is for that to say.
    #[inline]
    pub(super) fn run_plain(self, input: &[u8], at: &mut usize) -> bool {
        if self != Self::Integer {
            return false;
        }
        let mut end = *at + digits(input.get(*at..).unwrap_or_default());
        if input.get(end) == Some(&b'.') {
            let fraction = digits(input.get(end + 1..).unwrap_or_default());
            if fraction == 0 {
                return false;
            }
            end += 1 + fraction;
        }
        let ends = input.get(end).is_some_and(|byte| !matches!(byte, b'.' | b'e' | b'E'));
        if ends {
            *at = end;
        }
        ends
    }

    /// Reads on from `at`; true when a byte was met that is no part of it.
    pub(super) fn run(&mut self, input: &[u8], at: &mut usize) -> Result<bool, &'static str> {
        loop {
            if matches!(self, Self::Integer | Self::Fraction | Self::Exponent) {
                *at += digits(input.get(*at..).unwrap_or_default());
            }
            let Some(&byte) = input.get(*at) else { return Ok(false) };
            *self = match (*self, byte) {
                (Self::Minus, b'0') => Self::Zero,
                (Self::Minus, b'1'..=b'9') => Self::Integer,
                (Self::Zero | Self::Integer, b'.') => Self::Point,
                (Self::Point, b'0'..=b'9') => Self::Fraction,
                (Self::Zero | Self::Integer | Self::Fraction, b'e' | b'E') => Self::E,
                (Self::E, b'+' | b'-') => Self::Sign,
                (Self::E | Self::Sign, b'0'..=b'9') => Self::Exponent,
                _ => {
                    self.check()?;
                    return Ok(true);
                }
            };
            *at += 1;
        }
    }

    /// Whether it may end here.
    pub(super) fn check(self) -> Result<(), &'static str> {
        match self {
            Self::Zero | Self::Integer | Self::Fraction | Self::Exponent => Ok(()),
            _ => Err("not a number"),
        }
    }
}

/// Inside `true`, `false` or `null`: what is still to come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Word(pub(super) &'static [u8]);

impl Word {
    /// Reads on from `at`; true when it is whole.
    pub(super) fn run(&mut self, input: &[u8], at: &mut usize) -> Result<bool, &'static str> {
        while let Some((wanted, rest)) = self.0.split_first() {
            let Some(byte) = input.get(*at) else { return Ok(false) };
            if byte != wanted {
                return Err("not a JSON value");
            }
            *at += 1;
            self.0 = rest;
        }
        Ok(true)
    }
}

/// What a string's inside means; it was validated before.
pub(super) fn unescape(body: &[u8]) -> Vec<u8> {
    let quoted = [b"\"", body, b"\""].concat();
    serde_json::from_slice::<String>(&quoted).map(String::into_bytes).unwrap_or_default()
}
