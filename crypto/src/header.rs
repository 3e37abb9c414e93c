//! The bytes before a token's ciphertext.

use crate::DecryptReason;

/// Text in front of every token.
pub const PREFIX: &[u8; 5] = b"oil1.";

/// alg, type, key id.
pub(crate) const HEADER: usize = 10;

/// Nonce bytes in a token.
pub(crate) const NONCE: usize = 24;

/// The same with a synthetic nonce.
const DETERMINISTIC: u8 = 0x10;

/// Made with development keys.
const DEVELOPMENT: u8 = 0x80;

/// The part of the header's alg byte that names the version: cipher and development mark.
const VERSION: u8 = 0x8F;

/// A cipher; a key version has one for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Cipher {
    /// XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03), tag of 16 bytes.
    XChaCha20Poly1305 = 1,
    /// AEGIS-256 (draft-irtf-cfrg-aegis-aead), tag of 32 bytes.
    Aegis256 = 2,
}

impl Cipher {
    /// Bytes of its tag.
    pub fn tag(self) -> usize {
        match self {
            Self::XChaCha20Poly1305 => 16,
            Self::Aegis256 => 32,
        }
    }
}

/// The algorithm byte of a key version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Algorithm {
    /// Its cipher.
    pub cipher: Cipher,
    /// Its development mark.
    pub development: bool,
}

impl Algorithm {
    /// The byte, as documents and key ids have it.
    pub fn byte(self) -> u8 {
        self.cipher as u8 | if self.development { DEVELOPMENT } else { 0 }
    }

    /// Reads it.
    pub fn from_byte(byte: u8) -> Option<Self> {
        let cipher = match byte & !DEVELOPMENT {
            1 => Cipher::XChaCha20Poly1305,
            2 => Cipher::Aegis256,
            _ => return None,
        };
        Some(Self { cipher, development: byte & DEVELOPMENT != 0 })
    }

    /// The byte in a token's header.
    pub(crate) fn header(self, deterministic: bool) -> u8 {
        self.byte() | if deterministic { DETERMINISTIC } else { 0 }
    }
}

/// What a plaintext is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Type {
    /// Type and length are inside.
    Opaque = 0,
    /// Decoded UTF-8.
    String = 1,
    /// The characters between the quotes.
    RawString = 2,
    /// The number's very characters.
    Number = 3,
    /// 01 or 00.
    Boolean = 4,
    /// No bytes.
    Null = 5,
    /// From `[` to `]`.
    Array = 6,
    /// From `{` to `}`.
    Object = 7,
}

impl Type {
    pub(crate) fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Opaque,
            1 => Self::String,
            2 => Self::RawString,
            3 => Self::Number,
            4 => Self::Boolean,
            5 => Self::Null,
            6 => Self::Array,
            7 => Self::Object,
            _ => return None,
        })
    }
}

/// A token's header, read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// The whole byte, as it goes into the AAD.
    pub(crate) alg: u8,
    pub(crate) algorithm: Algorithm,
    pub(crate) deterministic: bool,
    pub(crate) kind: Type,
    pub(crate) key_id: [u8; 8],
}

impl Header {
    /// Reads and checks everything that needs no key: known bits, known type, minimum length, exact length by type.
    pub(crate) fn read(token: &[u8]) -> Result<Self, DecryptReason> {
        let malformed = DecryptReason::Malformed;
        let (&[alg, kind], rest) = token.split_first_chunk().ok_or(malformed)?;
        let (&key_id, rest) = rest.split_first_chunk().ok_or(malformed)?;
        if alg & !(VERSION | DETERMINISTIC) != 0 {
            return Err(malformed);
        }
        let algorithm = Algorithm::from_byte(alg & VERSION).ok_or(malformed)?;
        let deterministic = alg & DETERMINISTIC != 0;
        let kind = Type::from_byte(kind).ok_or(malformed)?;
        let length = rest.len().checked_sub(NONCE + algorithm.cipher.tag()).ok_or(malformed)?;
        let fits = match kind {
            Type::Boolean => length == 1,
            Type::Null => length == 0,
            Type::Opaque => length >= 2,
            Type::RawString => !deterministic,
            _ => true,
        };
        if !fits {
            return Err(malformed);
        }
        Ok(Self { alg, algorithm, deterministic, kind, key_id })
    }
}
