//! What can go wrong. No error holds a key, a plaintext or a token.

use std::io;

/// Errors of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A token that does not open here, whatever the cause: the peer is told nothing more.
    #[error("cannot decrypt")]
    Decrypt(DecryptReason),
    /// No usable key: the store or the roots could not be reached, or no version is active.
    #[error("no usable key in keyset {0}")]
    KeyUnavailable(String),
    /// A token would be longer than `max_field`, or is.
    #[error("a field is longer than allowed")]
    TooLarge,
    /// The value cannot be encrypted as asked.
    #[error("a value cannot be encrypted: {0}")]
    Value(&'static str),
    /// The system gives no randomness: nothing may be encrypted.
    #[error("the system gives no random bytes")]
    Random,
    /// Keys cannot be locked in memory.
    #[error(
        "cannot lock {bytes} bytes for keys: raise the memlock limit (`ulimit -l`, LimitMEMLOCK=, CAP_IPC_LOCK) or set OILSKIN_UNSAFE_UNLOCKED_KEYS=true"
    )]
    Memlock {
        /// Bytes asked for.
        bytes: usize,
    },
    /// The slab has no free slot.
    #[error("the locked memory for keys is full: raise limits.key_slab")]
    SlabFull,
    /// A keyset document that is not taken.
    #[error("keyset {name}: {why}")]
    Document {
        /// Keyset's name.
        name: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A root key that cannot be used.
    #[error("root key {what}: {why}")]
    Root {
        /// Which one.
        what: String,
        /// What is wrong and what to do.
        why: String,
    },
    /// A root key's file that is there already.
    #[error("root key {0} exists already")]
    RootExists(String),
    /// A write met a document that had changed since it was read.
    #[error("keyset {0} was changed by someone else; read it again")]
    Conflict(String),
    /// A keyset that is not in the store.
    #[error(
        "keyset {0} does not exist in the store: restore a copy (`oilskin keys import`) if it ever did, else make it (`oilskin keys init`)"
    )]
    Missing(String),
    /// A keyset that is there already.
    #[error("keyset {0} exists already")]
    Exists(String),
    /// The system.
    #[error("{0}: {1}")]
    Io(&'static str, #[source] io::Error),
}

/// Why a token did not open: for log and metric, never for the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DecryptReason {
    /// Not a token where one was expected.
    PlaintextRefused,
    /// Looks like a token and is none: prefix, alphabet, length, header.
    Malformed,
    /// Made with development keys.
    Development,
    /// Key id not in the keyset.
    UnknownKey,
    /// The version was destroyed.
    DestroyedKey,
    /// Its mode does not fit its version's line, or the rule.
    WrongLine,
    /// The tag does not verify: another context, tenant, record or keyset, or altered.
    Tag,
    /// A synthetic nonce that is not the value's.
    Nonce,
    /// What was opened does not fit its type.
    Content,
    /// Longer than `max_field`.
    TooLong,
}

impl DecryptReason {
    /// Label for log and metric.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PlaintextRefused => "plaintext_refused",
            Self::Malformed => "token_malformed",
            Self::Development => "development_token",
            Self::UnknownKey => "unknown_key",
            Self::DestroyedKey => "destroyed_key",
            Self::WrongLine => "wrong_line",
            Self::Tag => "tag",
            Self::Nonce => "synthetic_nonce",
            Self::Content => "content",
            Self::TooLong => "too_long",
        }
    }
}

impl Error {
    /// Whether the same call may succeed later without anyone changing anything.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::KeyUnavailable(_) | Self::Conflict(_) | Self::Random)
    }

    pub(crate) fn io(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io(what, error)
    }
}

impl From<DecryptReason> for Error {
    fn from(reason: DecryptReason) -> Self {
        Self::Decrypt(reason)
    }
}
