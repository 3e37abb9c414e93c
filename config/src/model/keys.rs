//! Where keys come from.

use std::num::NonZeroUsize;
use std::path::PathBuf;

/// Key settings.
#[derive(Debug, Clone)]
pub struct Keys {
    /// Root keys.
    pub roots: Vec<Root>,
    /// How many roots must open a keyset.
    pub hold: Hold,
    /// Where keyset documents live.
    pub store: Store,
    /// Ed25519 public key that must have signed each document.
    pub signer: Option<[u8; 32]>,
    /// Lowest epoch taken at first load.
    pub min_epoch: u64,
    /// Development keys are fine (`dev` only; no setting reaches this).
    pub development: bool,
}

/// What a command over keys needs.
#[derive(Debug, Clone)]
pub struct KeySettings {
    /// Roots and store.
    pub keys: Keys,
    /// Bytes of locked memory for keys.
    pub slab: usize,
    /// Go on where keys cannot be locked in memory.
    pub unsafe_unlocked_keys: bool,
}

/// A root key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// `file:PATH`.
    File(PathBuf),
}

/// How many roots must open a keyset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hold {
    /// Any one.
    Any,
    /// Every one.
    All,
    /// Any k.
    Quorum(NonZeroUsize),
}

/// A key store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Store {
    /// `file:DIR`.
    File(PathBuf),
}
