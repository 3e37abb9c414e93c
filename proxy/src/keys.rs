//! The keysets of a configuration: opened at start or when a tenant first needs one, and kept fresh.
//!
//! `provider` is the seam to root keys and stores, `files` the ones on this machine; `opening` gets from a document to its keys;
//! `life` says how long they may be used; `keeper` does all of that for one keyset, and `entry` is what the data path sees of it.

#[cfg(feature = "aws")]
pub(crate) mod aws;
mod build;
mod change;
mod entry;
mod error;
mod files;
mod keeper;
#[cfg(feature = "k8s")]
mod kubernetes;
mod life;
mod opening;
#[cfg(feature = "pkcs11")]
pub(crate) mod pkcs11;
mod provider;
mod reach;
mod rotation;
#[cfg(feature = "vault")]
mod vault;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use oilskin_config::{self as config, Config};
use oilskin_crypto::document::{self, Policy};
use oilskin_crypto::{self as crypto, Slab};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

pub(crate) use build::{passphrase, roots, store};
pub(crate) use change::{Change, Changer, no_version};
pub(crate) use entry::{Entry, Unknown};
pub use error::{Failed, Fault, KeyError};
use keeper::Keeper;
#[cfg(feature = "k8s")]
pub(crate) use kubernetes::MEMBER as SECRET_MEMBER;
pub(crate) use life::{Terms, now as boot_now, unix_now};
pub(crate) use opening::{open, resolve, wrap};
pub(crate) use provider::{Root, Store, Stored};
pub(crate) use reach::{Away, Reach};
pub(crate) use rotation::{Step, Watch, is_due, retired_for};

use crate::alloc;
use crate::telemetry::Metrics;

/// Keysets of tenants that are asked for and not begun with.
const DEMANDS: usize = 256;

/// How often it is looked whether messages have ended that hold a tenant's keyset.
const ROOM: Duration = Duration::from_millis(100);

/// How often others are asked to make room for one keyset.
const ROOM_ATTEMPTS: usize = 5;

/// Keys that should still find room in locked memory before a tenant's are fetched.
const SPARE: usize = 128;

/// Where keysets come from.
pub(crate) struct Source {
    slab: Arc<Slab>,
    roots: Vec<Arc<Root>>,
    /// Those configured that could not be used at the start, by their URIs.
    lost: Vec<String>,
    store: Store,
    policy: Policy,
    terms: Terms,
    max_uses: u64,
    rotate_after: Duration,
    sidecars_rotate: bool,
    metrics: Arc<Metrics>,
}

impl Source {
    /// Whether all that is asked is asked with logins later than that.
    fn has_logins_since(&self, moment: Duration) -> bool {
        // Each of them is told, so that all come by one at once.
        let roots = self.roots.iter().filter(|root| !root.has_login_since(moment)).count();
        self.store.has_login_since(moment) && roots == 0
    }
}

/// The keysets of this process by name.
pub(crate) struct Keyrings {
    entries: Mutex<HashMap<String, Arc<Entry>>>,
    settings: Option<Settings>,
    demands: mpsc::Sender<Arc<Entry>>,
    demanded: Mutex<Option<mpsc::Receiver<Arc<Entry>>>>,
}

struct Settings {
    keys: config::Keys,
    slab: Arc<Slab>,
    held: usize,
    idle: Duration,
}

impl Keyrings {
    /// Locks memory for keys; nothing is read yet.
    ///
    /// # Errors
    /// [`KeyError::Crypto`]: the memory cannot be locked.
    pub(crate) fn new(config: &Config) -> Result<Arc<Self>, KeyError> {
        let settings = match &config.keys {
            None => None,
            Some(keys) => Some(Settings {
                keys: keys.clone(),
                slab: Slab::new(config.limits.key_slab, config.unsafe_unlocked_keys)?,
                held: keys.max_held,
                idle: keys.idle,
            }),
        };
        let (demands, demanded) = mpsc::channel(DEMANDS);
        Ok(Arc::new(Self { entries: Mutex::default(), settings, demands, demanded: Mutex::new(Some(demanded)) }))
    }

    /// The keyset that a rule names.
    pub(crate) fn expected(&self, name: &str) -> Arc<Entry> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.entry(name.to_owned()).or_insert_with(|| Entry::new(name));
        entry.expect();
        Arc::clone(entry)
    }

    /// The keyset of a tenant; asked for where it is not held yet, and none where its name is none or there is no room.
    pub(crate) fn tenant(&self, name: &str) -> Option<Arc<Entry>> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get(name) {
            entry.touch();
            return Some(Arc::clone(entry));
        }
        let room = self.settings.as_ref().is_some_and(|settings| entries.len() < settings.held);
        if !document::is_name(name) || (!room && !evicted(&mut entries)) {
            return None;
        }
        let entry = Entry::new(name);
        // Too many at once, or nobody is there to fetch: refused, and asked for again by the next request.
        self.demands.try_send(Arc::clone(&entry)).ok()?;
        entries.insert(name.to_owned(), Arc::clone(&entry));
        Some(entry)
    }

    /// Keysets that rules need and that are not as they should be, each with the reason.
    pub(crate) fn troubled(&self) -> Vec<(String, String)> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let mut missing: Vec<(String, String)> = entries
            .iter()
            .filter(|(_, entry)| entry.is_expected())
            .filter_map(|(name, entry)| entry.trouble().map(|why| (name.clone(), why)))
            .collect();
        missing.sort();
        missing
    }

    /// What is known of all keysets that are held or should be, without secrets, by name.
    pub(crate) fn document(&self) -> Value {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let mut entries: Vec<&Arc<Entry>> = entries.values().collect();
        entries.sort_by(|one, other| one.handle().name().cmp(other.handle().name()));
        let store = self.settings.as_ref().map(|settings| settings.keys.store.to_string());
        json!({"store": store, "keysets": entries.iter().map(|entry| entry.document()).collect::<Vec<_>>()})
    }

    /// Whether everything is on this machine, so that it is there at once or wrong.
    pub(crate) fn is_local(&self) -> bool {
        self.settings.as_ref().is_none_or(|settings| settings.keys.is_local())
    }

    /// Whether roots and store are such as this build knows; those elsewhere are not asked.
    ///
    /// # Errors
    /// [`KeyError`]: everything that someone has to change.
    pub(crate) fn look(&self, reach: &Reach) -> Result<(), KeyError> {
        let Some(settings) = &self.settings else { return Ok(()) };
        let (_, mut wrong) = build::roots(&settings.keys, &settings.slab, reach);
        wrong.extend(build::store(&settings.keys, reach).err());
        KeyError::all(wrong)
    }

    /// Reads roots and the keysets that rules name. What is missing or out of reach may come later; what is wrong is an error now.
    ///
    /// # Errors
    /// [`KeyError`]: everything that someone has to change.
    pub(crate) async fn begin(&self, reach: &Reach) -> Result<Begun, KeyError> {
        let Some(settings) = &self.settings else { return Ok(Begun { source: None, keepers: Vec::new() }) };
        let (roots, mut wrong) = build::roots(&settings.keys, &settings.slab, reach);
        let store = build::store(&settings.keys, reach)?;
        let named: Vec<Arc<Entry>> = {
            let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
            entries.values().filter(|entry| entry.is_expected()).cloned().collect()
        };
        if let Some((one, other)) = provider::twice(&roots) {
            wrong.push(opening::one_key(one, other));
        }
        // As many as it takes are there: that another one is not is an outage of its own.
        let are_enough = roots.len() >= usize::from(settings.keys.k());
        if are_enough && wrong.iter().all(KeyError::is_of_one_root) {
            for error in wrong.drain(..) {
                tracing::error!(target: "oilskin::keys", "a root key cannot be used, the others go on without it: {error}");
            }
        }
        if !wrong.is_empty() {
            // By itself no reason to end; but who has to fetch the root fetches the keyset, too.
            for entry in &named {
                match store.read(entry.handle().name()).await {
                    Ok(_) => {}
                    Err(error) => {
                        let all_alike = error.fault() != Fault::Missing;
                        wrong.push(error);
                        if all_alike {
                            break;
                        }
                    }
                }
            }
        }
        KeyError::all(wrong)?;
        let source = Arc::new(settings.source(roots, store, reach));
        let mut opening = JoinSet::new();
        for entry in named {
            let mut keeper = Keeper::new(entry, Arc::clone(&source));
            opening.spawn(async move {
                let outcome = keeper.refresh().await;
                (keeper, outcome)
            });
        }
        let (mut keepers, mut wrong) = (Vec::new(), Vec::new());
        for (keeper, outcome) in opening.join_all().await {
            match outcome {
                Err(error) if error.fault() == Fault::Wrong => wrong.push(error),
                outcome => keepers.push((keeper, outcome.map_err(|error| error.fault()))),
            }
        }
        KeyError::all(wrong)?;
        #[cfg(feature = "aws")]
        aws::say_calls(&settings.keys, keepers.iter().map(|(keeper, _)| keeper.longest_interval()));
        Ok(Begun { source: Some(source), keepers })
    }

    /// Keeps everything fresh for as long as it is polled.
    pub(crate) async fn keep_fresh(self: Arc<Self>, begun: Begun) {
        let demanded = self.demanded.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (Some(source), Some(mut demanded)) = (begun.source, demanded) else { return std::future::pending().await };
        let mut kept = JoinSet::new();
        for (keeper, outcome) in begun.keepers {
            kept.spawn(keeper.keep(outcome));
        }
        while let Some(entry) = demanded.recv().await {
            while kept.try_join_next().is_some() {}
            kept.spawn(self.clone().keep_tenant(entry, Arc::clone(&source)));
        }
    }

    /// Keeps a tenant's keyset for as long as messages ask for it; one that does not exist is forgotten soon, so that it can be asked
    /// for again, but not with every message.
    async fn keep_tenant(self: Arc<Self>, entry: Arc<Entry>, source: Arc<Source>) {
        let mut keeper = Keeper::new(Arc::clone(&entry), Arc::clone(&source));
        for _ in 0..ROOM_ATTEMPTS {
            let (free, all) = source.slab.room();
            // Besides what opening it takes, subkeys of those that are held need some.
            if free >= (all / 4).min(SPARE) || !self.make_room(&entry) {
                break;
            }
            // Who makes room has to end first.
            tokio::time::sleep(ROOM).await;
        }
        let outcome = keeper.refresh().await;
        let outcome = outcome.map_err(|error| error.fault());
        let idle = self.settings.as_ref().map(|settings| settings.idle).unwrap_or_default();
        let missing = outcome.is_err();
        let keeping = keeper.keep(outcome);
        tokio::pin!(keeping);
        tokio::select! {
            () = &mut keeping => {}
            () = unused(&entry, idle), if !missing => {}
            () = tokio::time::sleep(entry::NEWEST), if missing => {}
            () = entry.evicted() => {}
        }
        self.forget(&entry);
        // Messages that are on their way end with the keys they began with, and as long as they last those are looked after.
        tokio::select! {
            () = keeping => {}
            () = released(&entry) => {}
        }
        entry.handle().store(crypto::State::Unavailable("not in use"));
    }

    fn forget(&self, entry: &Arc<Entry>) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.get(entry.handle().name()).is_some_and(|held| Arc::ptr_eq(held, entry)) {
            entries.remove(entry.handle().name());
        }
    }

    /// Gives up another tenant's keyset for this one's. False where there is none.
    fn make_room(&self, needed: &Arc<Entry>) -> bool {
        // So that it is not the one that goes.
        needed.touch();
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let held = entries.remove(needed.handle().name());
        // Some at once: who is next needs room, too.
        let some = (entries.len() / 8).max(1);
        let made = (0..some).filter(|_| evicted(&mut entries)).count() > 0;
        entries.extend(held.map(|held| (needed.handle().name().to_owned(), held)));
        made
    }
}

/// Waits until no message holds it.
async fn released(entry: &Entry) {
    while entry.handle().is_shared() {
        tokio::time::sleep(ROOM).await;
    }
}

/// Waits until nobody has asked for it for `idle`.
async fn unused(entry: &Entry, idle: Duration) {
    loop {
        let age = life::now().as_secs().saturating_sub(entry.last_used());
        match idle.as_secs().checked_sub(age).filter(|left| *left > 0) {
            None => return,
            Some(left) => tokio::time::sleep(Duration::from_secs(left)).await,
        }
    }
}

/// Gives up the tenant's keyset that was not used for longest. False where there is none.
fn evicted(entries: &mut HashMap<String, Arc<Entry>>) -> bool {
    let oldest = entries.iter().filter(|(_, entry)| !entry.is_expected()).min_by_key(|(_, entry)| entry.last_used());
    let Some(name) = oldest.map(|(name, _)| name.clone()) else { return false };
    if let Some(entry) = entries.remove(&name) {
        entry.evict();
    }
    true
}

/// Runs what needs no other thread to its end.
///
/// # Errors
/// A runtime that cannot be had.
pub(crate) fn at_once<T>(work: impl Future<Output = T>) -> Result<T, KeyError> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().on_thread_start(alloc::wipe_what_is_freed).build();
    let runtime = runtime.map_err(|error| crypto::Error::Io("cannot start a runtime for keys", error))?;
    Ok(alloc::wiping(|| runtime.block_on(work)))
}

/// What was read at the start.
pub(crate) struct Begun {
    source: Option<Arc<Source>>,
    keepers: Vec<(Keeper, Result<(), Fault>)>,
}

impl Settings {
    fn source(&self, roots: Vec<Arc<Root>>, store: Store, reach: &Reach) -> Source {
        let keys = &self.keys;
        let configured = keys.roots.iter().map(ToString::to_string);
        let lost = configured.filter(|shown| !roots.iter().any(|root| root.shown() == shown)).collect();
        Source {
            slab: Arc::clone(&self.slab),
            roots,
            lost,
            store,
            policy: policy(keys),
            terms: Terms {
                refresh: keys.refresh,
                root_check: keys.root_check,
                stale_encrypt: keys.stale_encrypt,
                stale_decrypt: keys.stale_decrypt,
            },
            max_uses: keys.max_uses,
            rotate_after: keys.rotate_after,
            sidecars_rotate: keys.sidecars_rotate,
            metrics: Arc::clone(&reach.metrics),
        }
    }
}

/// What a reader of this configuration insists on.
pub(crate) fn policy(keys: &config::Keys) -> Policy {
    Policy { development: keys.development, min_epoch: keys.min_epoch, signer: keys.signer }
}
