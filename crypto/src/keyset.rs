//! An opened keyset, and the handle under which the data path asks for it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use arc_swap::{ArcSwap, Cache};

use crate::derive::{self, Purpose};
use crate::document::{self, Line};
use crate::header::Algorithm;
use crate::slab::{Key, Slab};
use crate::{DecryptReason, Error};

/// Subkeys kept at most; contexts times tenants times versions in use.
const MAX_SUBKEYS: usize = 768;

/// Messages that one process writes with one version, at most: 2^40.
pub const DEFAULT_MAX_USES: u64 = 1 << 40;

/// One key version, opened.
pub(crate) struct Version {
    pub(crate) id: [u8; 32],
    pub(crate) algorithm: Algorithm,
    pub(crate) line: Line,
    pub(crate) state: document::State,
    /// None where it was destroyed.
    pub(crate) key: Option<Key>,
    /// Outlives the document it was read from: the next one's version of this id goes on with it.
    pub(crate) usage: Arc<Usage>,
}

/// What this process did with a version.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    /// Messages that were written with it.
    sealed: AtomicU64,
    /// Messages in which tokens of it were read.
    opened: AtomicU64,
}

impl Version {
    /// Counts a message that is written with it.
    pub(crate) fn seals(&self, max_uses: u64) -> bool {
        let before = self.usage.sealed.fetch_add(1, Ordering::Relaxed);
        if before >= max_uses {
            self.usage.sealed.fetch_sub(1, Ordering::Relaxed);
        }
        before < max_uses
    }

    /// Counts a message in which tokens of it are read.
    pub(crate) fn opens(&self) {
        self.usage.opened.fetch_add(1, Ordering::Relaxed);
    }
}

/// A version as this process knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InUse {
    /// The first eight bytes of its id, which tokens carry.
    pub key_id: [u8; 8],
    /// Its line.
    pub line: Line,
    /// Its state.
    pub state: document::State,
    /// Messages of this process that were written with it.
    pub sealed: u64,
    /// Messages of this process in which tokens of it were read.
    pub opened: u64,
}

/// An opened keyset.
pub struct Keyset {
    pub(crate) name: String,
    pub(crate) epoch: u64,
    pub(crate) development: bool,
    pub(crate) versions: Vec<Version>,
    pub(crate) active_field: Option<usize>,
    pub(crate) active_lookup: Option<usize>,
    pub(crate) slab: Arc<Slab>,
    pub(crate) subkeys: RwLock<HashMap<Box<[u8]>, Arc<Key>>>,
    /// Messages that one process may write with one version.
    pub(crate) max_uses: u64,
}

impl Keyset {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The epoch of the document it was opened from.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Its versions, as this process uses them.
    pub fn versions(&self) -> impl Iterator<Item = InUse> {
        self.versions.iter().map(|version| InUse {
            key_id: version.id.first_chunk().copied().unwrap_or_default(),
            line: version.line,
            state: version.state,
            sealed: version.usage.sealed.load(Ordering::Relaxed),
            opened: version.usage.opened.load(Ordering::Relaxed),
        })
    }

    /// The version that writes on a line.
    pub(crate) fn active(&self, line: Line) -> Option<&Version> {
        let index = match line {
            Line::Field => self.active_field,
            Line::Lookup => self.active_lookup,
        };
        self.versions.get(index?)
    }

    /// The one version of that id.
    pub(crate) fn version(&self, id: [u8; 8]) -> Result<&Version, DecryptReason> {
        self.versions.iter().find(|version| version.id.starts_with(&id)).ok_or(DecryptReason::UnknownKey)
    }

    /// A subkey, from the bounded cache or derived.
    pub(crate) fn subkey(
        &self,
        version: &Version,
        purpose: Purpose,
        tenant: &[u8],
        context: &[u8],
    ) -> Result<Arc<Key>, Error> {
        let mut room = [0; 8 + 1 + 4 + 255 + 255];
        let parts = [&version.id[..8], &[purpose as u8], &derive::length(tenant), tenant, context];
        let name = joined(&parts, &mut room).ok_or(Error::TooLarge)?;
        let held = self.subkeys.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        if let Some(held) = held {
            return Ok(held);
        }
        let data_key = version.key.as_ref().ok_or(DecryptReason::DestroyedKey)?;
        let alg = version.algorithm.byte();
        let derive = || {
            Key::new(&self.slab, |out| {
                derive::subkey(data_key.bytes(), purpose, alg, tenant, context, out);
            })
        };
        let made = match derive() {
            Err(Error::SlabFull) => {
                // Those that no message uses now make room.
                self.subkeys.write().unwrap_or_else(PoisonError::into_inner).clear();
                derive()?
            }
            made => made?,
        };
        let made = Arc::new(made);
        let mut cache = self.subkeys.write().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= MAX_SUBKEYS {
            // Tenants without number: what is in use is derived again at once, and costs 0.5 µs.
            cache.clear();
        }
        cache.insert(name.into(), Arc::clone(&made));
        Ok(made)
    }
}

/// `parts` one behind the other, without an allocation; none where they are longer than the room.
fn joined<'r>(parts: &[&[u8]], room: &'r mut [u8]) -> Option<&'r [u8]> {
    let mut end = 0;
    for part in parts {
        room.get_mut(end..end + part.len())?.copy_from_slice(part);
        end += part.len();
    }
    room.get(..end)
}

/// What a handle gives now.
pub enum State {
    /// A keyset.
    Held(Arc<Keyset>),
    /// A keyset that reads and does not write any more: its roots or its store have not answered for too long.
    ReadOnly(Arc<Keyset>),
    /// None, and why: refused with `key_unavailable` until there is one.
    Unavailable(&'static str),
}

/// A keyset by name, cheap to clone; what it gives changes with one pointer store.
#[derive(Clone)]
pub struct KeysetHandle {
    name: Arc<str>,
    state: Arc<ArcSwap<State>>,
}

impl KeysetHandle {
    /// A handle that gives nothing yet.
    pub fn new(name: &str) -> Self {
        let state = State::Unavailable("not loaded");
        Self { name: name.into(), state: Arc::new(ArcSwap::from_pointee(state)) }
    }

    /// A handle to an opened keyset.
    pub fn of(keyset: Keyset) -> Self {
        let handle = Self::new(&keyset.name);
        handle.store(State::Held(Arc::new(keyset)));
        handle
    }

    /// The keyset's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Replaces what it gives.
    pub fn store(&self, state: State) {
        self.state.store(Arc::new(state));
    }

    /// Whether it gives a keyset that reads, and writes where `writes`.
    pub fn gives(&self, writes: bool) -> bool {
        match &**self.state.load() {
            State::Held(_) => true,
            State::ReadOnly(_) => !writes,
            State::Unavailable(_) => false,
        }
    }

    /// Whether someone else has a clone of it.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.state) > 1
    }

    /// Whether both are handles of the same keyset.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.state, &other.state)
    }

    /// The keyset it gives, for reading or more.
    pub fn held(&self) -> Option<Arc<Keyset>> {
        match &**self.state.load() {
            State::Held(keyset) | State::ReadOnly(keyset) => Some(Arc::clone(keyset)),
            State::Unavailable(_) => None,
        }
    }

    /// What it gives, to be asked for every field: one atomic load while nothing changes.
    pub(crate) fn watch(&self) -> Cache<Arc<ArcSwap<State>>, Arc<State>> {
        Cache::new(Arc::clone(&self.state))
    }

    pub(crate) fn keyset(&self) -> Result<Arc<Keyset>, Error> {
        match &**self.state.load() {
            State::Held(keyset) => Ok(Arc::clone(keyset)),
            State::ReadOnly(_) | State::Unavailable(_) => Err(self.unavailable()),
        }
    }

    pub(crate) fn unavailable(&self) -> Error {
        Error::KeyUnavailable(self.name.to_string())
    }
}
