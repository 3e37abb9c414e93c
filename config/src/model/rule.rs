//! What is done to one field.

use std::num::NonZeroU32;

use crate::{Selector, VaultKey};

/// One rule over fields.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Shown in errors, logs and metrics: the selector as written unless named.
    pub name: String,
    /// What it selects.
    pub select: Selector,
    /// `each:` every leaf below a selected container by itself, instead of the container whole.
    pub each: bool,
    /// Keyset name; may contain `{tenant}` once.
    pub keyset: String,
    /// Contexts: writes use the first, reads try each in order. 1 to 8.
    pub contexts: Vec<String>,
    /// Random or deterministic.
    pub mode: Mode,
    /// Named values bound into the authenticated data, in byte order of names.
    pub bind: Vec<BindValue>,
    /// Hide type and pad the length to a multiple of this (1 to 65,536; `opaque` alone is 1).
    pub pad: Option<NonZeroU32>,
    /// 24 fresh nonce bytes for each field.
    pub unlinkable: bool,
    /// A value that is no token is accepted while decrypting (migration). Unsafe.
    pub plaintext_accepted: bool,
    /// The app may send tokens it read: one that opens for its place passes. Requires `bind`.
    pub accept_tokens: bool,
    /// What a token that does not open becomes.
    pub on_decrypt_error: OnDecryptError,
    /// What writes.
    pub encrypt: Backend,
    /// What reads: each what it wrote, told by a token's prefix. Holds `encrypt`, and at most one key of Vault's.
    pub decrypt: Vec<Backend>,
    /// What stands around a value that Vault encrypts.
    pub frame: Frame,
    /// Version of Vault's key that is written with; none is the latest.
    pub key_version: Option<NonZeroU32>,
}

impl Rule {
    /// Whether local keys write or read it.
    pub fn is_local(&self) -> bool {
        self.backends().any(|backend| *backend == Backend::Local)
    }

    /// The key of Vault's that writes or reads it.
    pub fn vault_key(&self) -> Option<&VaultKey> {
        self.backends().find_map(|backend| match backend {
            Backend::Local => None,
            Backend::Vault(key) => Some(key),
        })
    }

    fn backends(&self) -> impl Iterator<Item = &Backend> {
        std::iter::once(&self.encrypt).chain(&self.decrypt)
    }
}

/// What holds the key of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Backend {
    /// Keysets in this process.
    Local,
    /// Vault's transit engine, which is called for every message.
    Vault(VaultKey),
}

/// What stands around a value that Vault encrypts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// A mark and the value's type.
    Typed,
    /// Nothing: the text of strings, as other clients of Vault write and read it.
    Bare,
}

/// How nonces are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Fresh nonces.
    Random,
    /// Synthetic nonces: equal values give equal tokens.
    Deterministic,
}

/// What a token that does not open becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OnDecryptError {
    /// The message is refused.
    Fail,
    /// The token is left.
    Ciphertext,
    /// `null`.
    Null,
    /// The member or element is left out.
    Drop,
}

/// One named bound value and the places it may stand in.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BindValue {
    /// Name, 1 to 255 bytes.
    pub name: String,
    /// Places, at least one; all present ones must be equal, at least one must be present.
    pub places: Vec<BindPlace>,
}

/// Where a bound value stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BindPlace {
    /// `@.a.b`, `@^.a`, `@^^.a`: below the object that holds the selected member, `up` objects above it.
    Relative {
        /// How many parents up; 0 is the object holding the member.
        up: usize,
        /// Member names below it, at least one.
        names: Vec<String>,
    },
    /// `$.a.b`: below the document, line or event.
    Document(Vec<String>),
    /// `path.x`: a parameter of the route's pattern.
    Path(String),
}
