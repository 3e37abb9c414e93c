//! What a rule says about its fields, in this crate's words.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::base64url;
use crate::header::{HEADER, NONCE, PREFIX};
use crate::sodium::AEGIS_TAG;

/// How fields of one rule are written and read. Made once, when a configuration is read.
#[derive(Debug, Clone)]
pub struct FieldSpec {
    pub(crate) id: u64,
    pub(crate) contexts: Vec<String>,
    pub(crate) deterministic: bool,
    pub(crate) binds: bool,
    pub(crate) pad: Option<usize>,
    pub(crate) unlinkable: bool,
    pub(crate) max_token: usize,
    pub(crate) depth: usize,
}

impl FieldSpec {
    /// Random mode, no padding, tokens of at most 1 MiB, containers at most 128 brackets deep.
    ///
    /// `contexts` are 1 to 255 bytes each: writes use the first, reads try each in order. None given is one empty context,
    /// which no configuration can ask for.
    pub fn new(contexts: Vec<String>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let contexts = if contexts.is_empty() { vec![String::new()] } else { contexts };
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            contexts,
            deterministic: false,
            binds: false,
            pad: None,
            unlinkable: false,
            max_token: 1 << 20,
            depth: 128,
        }
    }

    /// Synthetic nonces: equal values give equal tokens. Excludes bound values.
    #[must_use]
    pub fn deterministic(mut self, deterministic: bool) -> Self {
        self.deterministic = deterministic;
        self
    }

    /// The rule binds: a deterministic token is refused.
    #[must_use]
    pub fn binds(mut self, binds: bool) -> Self {
        self.binds = binds;
        self
    }

    /// Hide the type and pad to a multiple of this, 1 to 65,536.
    #[must_use]
    pub fn pad(mut self, pad: Option<usize>) -> Self {
        self.pad = pad.filter(|pad| *pad > 0);
        self
    }

    /// 24 fresh nonce bytes for each field.
    #[must_use]
    pub fn unlinkable(mut self, unlinkable: bool) -> Self {
        self.unlinkable = unlinkable;
        self
    }

    /// Longest token in characters, prefix included.
    #[must_use]
    pub fn max_token(mut self, characters: usize) -> Self {
        self.max_token = characters;
        self
    }

    /// Characters of the longest token that a value of so many bytes may become, whatever the cipher.
    pub fn longest_token(&self, value: usize) -> usize {
        // Padding adds the type, one byte 0x80, and zeros up to a multiple.
        let plain = self.pad.map_or(value, |pad| (value + 2).next_multiple_of(pad));
        PREFIX.len() + base64url::length(HEADER + NONCE + plain + AEGIS_TAG)
    }

    /// Brackets an opened container may be deep, its own included.
    #[must_use]
    pub fn depth(mut self, depth: usize) -> Self {
        self.depth = depth;
        self
    }
}

/// Named values bound into a token, in byte order of names: 1-255 bytes each name, 1-256 each value, at most 255.
#[derive(Clone, Copy, Default)]
pub struct Bound<'a>(pub &'a [(&'a [u8], &'a [u8])]);

/// A value as it stands in JSON, or text from elsewhere.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    /// A JSON string with its quotes.
    String(&'a [u8]),
    /// Text from outside JSON (a form, a query, a header).
    Text(&'a str),
    /// A number's characters.
    Number(&'a [u8]),
    /// A boolean.
    Boolean(bool),
    /// `null`.
    Null,
    /// From `[` to `]`.
    Array(&'a [u8]),
    /// From `{` to `}`.
    Object(&'a [u8]),
}
