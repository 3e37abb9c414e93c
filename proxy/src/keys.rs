//! The keysets of a configuration: opened at start, read again every refresh interval.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use oilskin_config::{self as config, Config};
use oilskin_crypto::document::{self, Policy};
use oilskin_crypto::{self as crypto, FileRoot, FileStore, KeyStore, KeysetHandle, RootKey, Slab, State};

use crate::telemetry::Metrics;

/// How often the store is read again.
const REFRESH: Duration = Duration::from_secs(60);

/// Why no keys are held. No variant holds one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The key library.
    #[error(transparent)]
    Crypto(#[from] crypto::Error),
    /// What this version cannot do yet.
    #[error("{0}")]
    Unsupported(&'static str),
    /// Several of them, none twice.
    #[error("{}", together(.0))]
    Several(Vec<KeyError>),
}

fn together(errors: &[KeyError]) -> String {
    let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
    errors.join("; ")
}

impl KeyError {
    /// All of them as one, if there is any.
    fn all(mut errors: Vec<Self>) -> Result<(), Self> {
        match errors.pop() {
            None => Ok(()),
            Some(only) if errors.is_empty() => Err(only),
            Some(last) => {
                errors.push(last);
                Err(Self::Several(errors))
            }
        }
    }

    /// Whether the configuration, or what it names, must change; else the system failed, perhaps for a moment.
    pub(crate) fn is_configuration(&self) -> bool {
        use crypto::Error::{Document, Memlock, Missing, Root, SlabFull};
        match self {
            Self::Crypto(error) => {
                matches!(error, Document { .. } | Memlock { .. } | Missing(_) | Root { .. } | SlabFull)
            }
            Self::Unsupported(_) => true,
            Self::Several(errors) => errors.iter().any(Self::is_configuration),
        }
    }
}

/// Handles by keyset name.
pub(crate) struct Keyrings {
    source: Option<Source>,
    handles: Mutex<BTreeMap<String, Held>>,
}

struct Source {
    slab: Arc<Slab>,
    roots: Vec<Box<dyn RootKey>>,
    store: Box<dyn KeyStore>,
    policy: Policy,
}

struct Held {
    handle: KeysetHandle,
    /// The document in force: an equal epoch with other bytes is refused.
    bytes: Vec<u8>,
    /// A rule names it.
    expected: bool,
}

impl Keyrings {
    /// Reads roots and all keysets of the store. One that a rule names and that does not open is an error now; later it keeps what
    /// it was. Others may be someone else's: a store can be shared.
    ///
    /// # Errors
    /// [`KeyError`].
    pub(crate) fn open(config: &Config, metrics: &Metrics) -> Result<Arc<Self>, KeyError> {
        let handles = Mutex::default();
        let Some(keys) = &config.keys else { return Ok(Arc::new(Self { source: None, handles })) };
        let slab = Slab::new(config.limits.key_slab, config.unsafe_unlocked_keys)?;
        let (roots, mut wrong) = roots(keys, &slab);
        let store = store(keys);
        let named = named(config);
        let names = store.list().unwrap_or_else(|error| {
            wrong.push(error.into());
            Vec::new()
        });
        if !wrong.is_empty() {
            // By itself no reason to end; but who has to fetch the root fetches the keyset, too.
            let missing = named.iter().filter(|name| !name.contains('{') && !names.iter().any(|held| held == *name));
            wrong.extend(missing.map(|name| crypto::Error::Missing((*name).to_owned()).into()));
        }
        KeyError::all(wrong)?;
        let policy = Policy { development: keys.development, min_epoch: keys.min_epoch, signer: keys.signer };
        let source = Source { slab, roots, store, policy };
        let this = Self { source: None, handles };
        let mut wrong = Vec::new();
        for name in names {
            match this.refresh_one(&source, &name, metrics) {
                Err(error) if named.contains(name.as_str()) => wrong.push(error),
                Err(error) => tracing::warn!(keyset = name, %error, "a keyset that no rule names does not open"),
                Ok(()) => {}
            }
        }
        KeyError::all(wrong)?;
        Ok(Arc::new(Self { source: Some(source), ..this }))
    }

    /// The handle of a keyset that a rule names; it gives nothing while the store has no such keyset.
    pub(crate) fn expected(&self, name: &str) -> KeysetHandle {
        let mut handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        let held = handles.entry(name.to_owned()).or_insert_with(|| Held {
            handle: KeysetHandle::new(name),
            bytes: Vec::new(),
            expected: true,
        });
        held.expected = true;
        held.handle.clone()
    }

    /// The handle of a tenant's keyset, if the store has it.
    pub(crate) fn handle(&self, name: &str) -> Option<KeysetHandle> {
        let handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        handles.get(name).map(|held| held.handle.clone())
    }

    /// Names of keysets that rules need and that are not held.
    pub(crate) fn missing(&self) -> Vec<String> {
        let handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        let missing = handles.iter().filter(|(_, held)| held.expected && held.handle.check().is_err());
        missing.map(|(name, _)| name.clone()).collect()
    }

    /// Reads the store again.
    fn refresh(&self, metrics: &Metrics) -> Result<(), KeyError> {
        let Some(source) = &self.source else { return Ok(()) };
        let mut outcome = Ok(());
        for name in source.store.list()? {
            if let Err(error) = self.refresh_one(source, &name, metrics) {
                tracing::error!(keyset = name, %error, "keyset not taken");
                outcome = Err(error);
            }
        }
        outcome
    }

    fn refresh_one(&self, source: &Source, name: &str, metrics: &Metrics) -> Result<(), KeyError> {
        let stored = source.store.read(name)?;
        let mut handles = self.handles.lock().unwrap_or_else(PoisonError::into_inner);
        let held = handles.get(name);
        if held.is_some_and(|held| held.bytes == stored.bytes) {
            return Ok(());
        }
        let keyset = document::open(&stored.bytes, name, &source.roots, &source.slab, source.policy)?;
        let before = held.and_then(|held| held.handle.epoch());
        if before.is_some_and(|before| keyset.epoch() <= before) {
            // Lower is an old document put back; equal with other bytes is a second history.
            return Err(KeyError::Unsupported("its epoch did not grow, so it was not taken"));
        }
        metrics.keyset_epoch(name, keyset.epoch());
        let held = handles.entry(name.to_owned()).or_insert_with(|| Held {
            handle: KeysetHandle::new(name),
            bytes: Vec::new(),
            expected: false,
        });
        held.handle.store(State::Held(Arc::new(keyset)));
        held.bytes = stored.bytes;
        Ok(())
    }

    /// Reads the store again for as long as the process runs; `changed` is called after each time.
    pub(crate) async fn keep_fresh(self: Arc<Self>, metrics: Arc<Metrics>, changed: impl Fn(Vec<String>)) {
        loop {
            tokio::time::sleep(REFRESH).await;
            let (this, metrics) = (Arc::clone(&self), Arc::clone(&metrics));
            // Files may be on a slow disk: not on the thread that answers health checks.
            let _ = tokio::task::spawn_blocking(move || {
                if let Err(error) = this.refresh(&metrics) {
                    tracing::warn!(%error, "cannot refresh keys");
                }
            })
            .await;
            changed(self.missing());
        }
    }
}

/// The keysets that rules name.
fn named(config: &Config) -> BTreeSet<&str> {
    let phases = config.routes.iter().flat_map(|route| [&route.request, &route.response]);
    phases.flat_map(|phase| &phase.rules).map(|rule| rule.keyset.as_str()).collect()
}

/// The roots of a configuration, and everything that is wrong with them.
fn roots(keys: &config::Keys, slab: &Arc<Slab>) -> (Vec<Box<dyn RootKey>>, Vec<KeyError>) {
    let (mut roots, mut wrong): (Vec<Box<dyn RootKey>>, _) = (Vec::new(), Vec::new());
    if keys.hold != config::Hold::Any && keys.roots.len() > 1 {
        wrong.push(KeyError::Unsupported("keys.hold: this version joins roots by `any` only"));
    }
    for config::Root::File(path) in &keys.roots {
        match FileRoot::read(path, slab) {
            Ok(root) => roots.push(Box::new(root)),
            Err(error) => wrong.push(error.into()),
        }
    }
    (roots, wrong)
}

/// The roots of a configuration.
///
/// # Errors
/// Everything that is wrong with them.
pub(crate) fn all_roots(keys: &config::Keys, slab: &Arc<Slab>) -> Result<Vec<Box<dyn RootKey>>, KeyError> {
    let (roots, wrong) = roots(keys, slab);
    KeyError::all(wrong).map(|()| roots)
}

/// The store of a configuration.
pub(crate) fn store(keys: &config::Keys) -> Box<dyn KeyStore> {
    match &keys.store {
        config::Store::File(folder) => Box::new(FileStore::new(folder)),
    }
}
