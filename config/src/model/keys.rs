//! Where keys come from, and how long they are good.

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::{Bind, Root, Secreted, Store, Vault};

/// Key settings.
#[derive(Debug, Clone)]
pub struct Keys {
    /// Root keys, at least one, at most 8.
    pub roots: Vec<Root>,
    /// The passphrase of root keys in files.
    pub passphrase: Option<Secreted>,
    /// How many roots must open a keyset.
    pub hold: Hold,
    /// Where keyset documents live.
    pub store: Store,
    /// Ed25519 public key that must have signed each document.
    pub signer: Option<[u8; 32]>,
    /// Lowest epoch taken at first load.
    pub min_epoch: u64,
    /// Between two reads of the store; 1 s to 1 h.
    pub refresh: Duration,
    /// Between two times that the roots unwrap W anew; never shorter than `refresh`.
    pub root_check: Duration,
    /// How long keys encrypt after store and roots last answered.
    pub stale_encrypt: Duration,
    /// How long they decrypt.
    pub stale_decrypt: Duration,
    /// Age at which a rotation is due.
    pub rotate_after: Duration,
    /// Whether replicas rotate by themselves, too.
    pub sidecars_rotate: bool,
    /// Messages that one process writes with one key version; 1 to 2^48.
    pub max_uses: u64,
    /// Keysets of tenants held at once; 1 to 100,000.
    pub max_held: usize,
    /// A tenant's keyset that nobody asks for is let go after that.
    pub idle: Duration,
    /// Development keys are fine (`dev` only; no setting reaches this).
    pub development: bool,
}

impl Keys {
    /// Whether roots and store are on this machine: they answer at once, or are wrong.
    pub fn is_local(&self) -> bool {
        matches!(self.store, Store::File(_)) && self.roots.iter().all(|root| matches!(root, Root::File(_)))
    }

    /// Whether roots or store are in Vault or OpenBao.
    pub fn asks_vault(&self) -> bool {
        matches!(self.store, Store::Vault(_)) || self.roots.iter().any(|root| matches!(root, Root::Vault(_)))
    }

    /// How many roots must join.
    pub fn k(&self) -> u8 {
        let n = u8::try_from(self.roots.len()).unwrap_or(u8::MAX);
        match self.hold {
            Hold::Any => 1,
            Hold::All => n,
            Hold::Quorum(k) => u8::try_from(k.get()).unwrap_or(n).min(n),
        }
    }
}

/// What a command over keys needs.
#[derive(Debug, Clone)]
pub struct KeySettings {
    /// Roots and store.
    pub keys: Keys,
    /// Vault or OpenBao; none where neither roots nor store are there.
    pub vault: Option<Vault>,
    /// The admin port of a process with these settings.
    pub admin: Option<Bind>,
    /// Bytes of locked memory for keys.
    pub slab: usize,
    /// Go on where keys cannot be locked in memory.
    pub unsafe_unlocked_keys: bool,
    /// What works and perhaps should not be so; for swap a command is too short.
    pub warnings: Vec<String>,
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
