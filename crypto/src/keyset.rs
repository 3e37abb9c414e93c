//! An opened keyset, and the handle under which the data path asks for it.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use arc_swap::{ArcSwap, Cache};

use crate::derive::{self, Purpose};
use crate::document::Line;
use crate::header::Algorithm;
use crate::slab::{Key, Slab};
use crate::{DecryptReason, Error};

/// Subkeys kept at most; contexts times tenants times versions in use.
const MAX_SUBKEYS: usize = 768;

/// One key version, opened.
pub(crate) struct Version {
    pub(crate) id: [u8; 32],
    pub(crate) algorithm: Algorithm,
    pub(crate) line: Line,
    /// None where it was destroyed.
    pub(crate) key: Option<Key>,
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
        let made = Key::new(&self.slab, |out| {
            derive::subkey(data_key.bytes(), purpose, alg, tenant, context, out);
        })?;
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
    pub fn held(keyset: Keyset) -> Self {
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

    /// Whether it gives a keyset that can encrypt fields.
    ///
    /// # Errors
    /// [`Error::KeyUnavailable`].
    pub fn check(&self) -> Result<(), Error> {
        match &**self.state.load() {
            State::Held(_) => Ok(()),
            State::Unavailable(_) => Err(self.unavailable()),
        }
    }

    /// Whether both are handles of the same keyset.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.state, &other.state)
    }

    /// The epoch held, if any.
    pub fn epoch(&self) -> Option<u64> {
        self.keyset().ok().map(|keyset| keyset.epoch)
    }

    /// What it gives, to be asked for every field: one atomic load while nothing changes.
    pub(crate) fn watch(&self) -> Cache<Arc<ArcSwap<State>>, Arc<State>> {
        Cache::new(Arc::clone(&self.state))
    }

    pub(crate) fn keyset(&self) -> Result<Arc<Keyset>, Error> {
        match &**self.state.load() {
            State::Held(keyset) => Ok(Arc::clone(keyset)),
            State::Unavailable(_) => Err(self.unavailable()),
        }
    }

    pub(crate) fn unavailable(&self) -> Error {
        Error::KeyUnavailable(self.name.to_string())
    }
}
