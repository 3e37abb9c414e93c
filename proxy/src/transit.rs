//! Vault's transit engine as what holds the keys of fields: fields of many messages share a call.
//!
//! A worker has lanes, one for each key and operation. Messages put items into a lane and find answers in their `mailbox`; the lane's
//! `queue` lets tenants and messages take turns, `breaker` keeps calls from a Vault that does not answer, `key` is what is known of a
//! key, and `watch` learns it. Nothing here knows JSON or HTTP messages.
#![cfg_attr(not(feature = "vault"), allow(dead_code, reason = "in a build without it nothing is asked of Vault"))]

mod breaker;
mod key;
mod lane;
mod mailbox;
mod queue;
mod watch;

use std::cell::{Cell, RefCell};
use std::num::NonZeroU32;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use std::time::Instant;

use bytes::Bytes;
use oilskin_config::VaultKey;
use oilskin_crypto::{Remembered, Wiped};

#[cfg(feature = "vault")]
pub(crate) use key::About;
pub(crate) use key::{Key, Keys};
pub(crate) use mailbox::{Mailbox, Outcome};
pub(crate) use watch::keep_known;

use crate::vault::{Caller, Error};
use breaker::Breaker;
use lane::{Lane, Times};

/// What is asked of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Plaintext to ciphertext.
    Encrypt,
    /// Ciphertext to plaintext.
    Decrypt,
    /// An old version's ciphertext to the latest one's.
    Rewrap,
}

impl Operation {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Encrypt => "encrypt",
            Self::Decrypt => "decrypt",
            Self::Rewrap => "rewrap",
        }
    }
}

/// One field of a call. Plaintext and what it is bound to are in Base64.
pub(crate) struct Item {
    /// Plaintext, or ciphertext.
    pub(crate) text: Wiped,
    pub(crate) context: Arc<str>,
    pub(crate) associated: Option<Arc<str>>,
    /// The version to write with; none is the latest.
    pub(crate) version: Option<NonZeroU32>,
}

impl Item {
    /// Strings that it brings into a call, names and values: OpenBao counts them (by default a thousand in a request).
    pub(crate) fn strings(&self) -> usize {
        4 + 2 * usize::from(self.associated.is_some()) + usize::from(self.version.is_some())
    }

    /// About how long it is in a call, in bytes.
    pub(crate) fn size(&self) -> usize {
        self.text.len() + self.context.len() + self.associated.as_ref().map_or(0, |bound| bound.len()) + 80
    }
}

/// What became of one item: what was asked for, as a part of the call's answer, or a word for log and metric.
pub(crate) type ItemResult = Result<Bytes, &'static str>;

/// Why an item has no answer of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missed {
    /// Vault has answered about it: it does not open, or may not be written so.
    Refused(&'static str),
    /// The call came to nothing.
    Unavailable(&'static str),
    /// Too much waits already.
    Full,
}

/// Who calls Vault. Tests have others than [`Caller`].
pub(crate) trait Service: 'static {
    /// One call; as many results as items, in their order.
    fn call(
        &self,
        key: &VaultKey,
        operation: Operation,
        items: &[Item],
    ) -> impl Future<Output = Result<Vec<ItemResult>, Error>>;

    /// A call was given up, because it took too long.
    fn given_up(&self, _: Operation, _: &Error) {}
}

impl Service for Caller {
    async fn call(&self, key: &VaultKey, operation: Operation, items: &[Item]) -> Result<Vec<ItemResult>, Error> {
        self.batch(key, operation, items).await
    }

    fn given_up(&self, operation: Operation, error: &Error) {
        self.ended(operation, Some(error));
    }
}

/// One worker's lanes.
pub(crate) struct Lanes<S = Caller> {
    service: Rc<S>,
    breaker: Rc<Breaker>,
    lanes: RefCell<Vec<Rc<Lane<S>>>>,
    /// What was decrypted lately, where that is remembered at all.
    remembered: Rc<Memory>,
    times: Times,
}

impl<S: Service> Lanes<S> {
    pub(crate) fn new(service: S, remembered: Memory) -> Rc<Self> {
        Self::with(service, remembered, Times::USUAL)
    }

    fn with(service: S, remembered: Memory, times: Times) -> Rc<Self> {
        Rc::new(Self {
            times,
            service: Rc::new(service),
            breaker: Rc::default(),
            lanes: RefCell::default(),
            remembered: Rc::new(remembered),
        })
    }

    /// What a ciphertext was lately decrypted to; in Base64, as Vault answers it.
    pub(crate) fn recall(&self, key: &Key, item: &Item) -> Option<Bytes> {
        let mut plain = Wiped::default();
        let recall = |memory: &mut Remembered| memory.recall(&parts(key, item), Instant::now(), &mut plain);
        self.remembered.with(recall)?.then(|| Bytes::from_owner(plain))
    }

    /// Puts items of one message into the lane; answers come by `mailbox`, each under its ticket. Must be called within a `LocalSet`.
    pub(crate) fn ask(
        &self,
        key: &Arc<Key>,
        operation: Operation,
        tenant: Option<&Arc<str>>,
        mailbox: &Rc<Mailbox>,
        items: Vec<(u64, Item)>,
    ) {
        self.lane(key, operation).ask(tenant, mailbox, items);
    }

    fn lane(&self, key: &Arc<Key>, operation: Operation) -> Rc<Lane<S>> {
        let mut lanes = self.lanes.borrow_mut();
        if let Some(lane) = lanes.iter().find(|lane| lane.is(key, operation)) {
            return Rc::clone(lane);
        }
        let shared = (Rc::clone(&self.service), Rc::clone(&self.breaker), Rc::clone(&self.remembered));
        let lane = Lane::new(Arc::clone(key), operation, shared, self.times);
        lanes.push(Rc::clone(&lane));
        lane
    }
}

/// What a worker remembers of Vault's answers. Whatever is denied to one worker, all forget.
#[derive(Default)]
pub(crate) struct Memory {
    cache: RefCell<Option<Remembered>>,
    /// How often anything was denied in this process, and how much of that this worker has heard of.
    denials: Arc<AtomicU64>,
    heard: Cell<u64>,
}

impl Memory {
    pub(crate) fn new(cache: Option<Remembered>, denials: &Arc<AtomicU64>) -> Self {
        Self { cache: RefCell::new(cache), denials: Arc::clone(denials), heard: Cell::default() }
    }

    fn with<T>(&self, work: impl FnOnce(&mut Remembered) -> T) -> Option<T> {
        let mut cache = self.cache.borrow_mut();
        let cache = cache.as_mut()?;
        let denials = self.denials.load(Ordering::Acquire);
        if self.heard.replace(denials) != denials {
            cache.forget();
        }
        Some(work(cache))
    }

    /// Perhaps for good: nothing that was allowed before counts any more.
    fn denied(&self) {
        self.denials.fetch_add(1, Ordering::AcqRel);
        self.with(|_| ());
    }
}

/// All that a plaintext depends on. The mount and the key's name stand for the backend: there is one.
fn parts<'a>(key: &'a Key, item: &'a Item) -> [&'a [u8]; 5] {
    let bound = item.associated.as_deref().map_or(&b""[..], str::as_bytes);
    let name = key.name();
    [name.mount.as_bytes(), name.key.as_bytes(), item.context.as_bytes(), bound, &item.text]
}

#[cfg(test)]
mod tests;
