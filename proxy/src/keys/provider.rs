//! The seams: root keys and key stores, with what is the same for all of them: a deadline for every call, a few attempts, a count.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use oilskin_crypto::document::{RootEntry, Share, ShareKey};
use oilskin_crypto::{self as crypto, Slab};
use tokio::time::{sleep, timeout};

use super::{Failed, Fault, KeyError};
use crate::telemetry::ProviderCalls;

/// One attempt at one call.
pub(super) const DEADLINE: Duration = Duration::from_secs(2);

/// Attempts at one call.
const ATTEMPTS: usize = 3;

/// Between the first and the second; to each is added up to itself again.
const WAIT: Duration = Duration::from_millis(100);

/// What a provider will answer.
pub(crate) type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Failed>> + Send + 'a>>;

/// A root key: it wraps shares of W and never leaves its home.
pub(crate) trait RootKey: Send + Sync {
    /// Names it in documents. Two roots of one id are one key. Meaningless until it is known.
    fn id(&self) -> Vec<u8>;

    /// Whether its id is known, which may take a call where it is configured by another name.
    fn is_known(&self) -> bool {
        true
    }

    /// Makes the call that it takes.
    fn resolve(&self) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    /// Whether one key can have several ids: then what another root wrapped is tried, too, before they count as two.
    fn has_other_names(&self) -> bool {
        false
    }

    /// Whether it asks with what a login later than that gave it; where not, one is on its way. Of use where an expired login is answered
    /// like a denial; there is none to wait for elsewhere.
    fn has_login_since(&self, _: Duration) -> bool {
        true
    }

    /// Wraps a share, bound to its place.
    fn wrap<'a>(&'a self, share: &'a [u8; 32], bound: &'a Share) -> Answer<'a, Vec<u8>>;

    /// Unwraps it again, into locked memory.
    fn unwrap<'a>(&'a self, wrapped: &'a [u8], bound: &'a Share, into: &'a mut [u8; 32]) -> Answer<'a, ()>;
}

/// A document as it was read; what a later write is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Its bytes.
    pub(crate) bytes: Vec<u8>,
    /// What the store calls this state of it; empty where the bytes say it.
    pub(crate) version: String,
}

/// Where keyset documents live.
pub(crate) trait KeyStore: Send + Sync {
    /// Names of the keysets it holds, sorted.
    fn list(&self) -> Answer<'_, Vec<String>>;

    /// Reads a document. [`Fault::Missing`] where there is none.
    fn read<'a>(&'a self, name: &'a str) -> Answer<'a, Stored>;

    /// Writes a document if the store still holds `before` (none: if it holds none of that name), else [`Fault::Conflict`]. After an
    /// error it is unclear which of both it holds; never half of one.
    fn write<'a>(&'a self, name: &'a str, before: Option<&'a Stored>, bytes: &'a [u8]) -> Answer<'a, ()>;

    /// Removes what the store keeps of earlier documents. Says which copies of them it knows of and cannot reach.
    fn forget<'a>(&'a self, name: &'a str) -> Answer<'a, Vec<String>>;

    /// As [`RootKey::has_login_since`].
    fn has_login_since(&self, _: Duration) -> bool {
        true
    }
}

/// A provider and what surrounds each call to it.
struct Calls {
    shown: String,
    calls: ProviderCalls,
}

impl Calls {
    /// Asks until there is an answer, a few times.
    async fn ask<'f, T>(&self, operation: &'static str, mut ask: impl FnMut() -> Answer<'f, T>) -> Result<T, Failed> {
        let mut waits =
            ExponentialBuilder::default().with_min_delay(WAIT).with_max_times(ATTEMPTS - 1).with_jitter().build();
        loop {
            let answer = self.once(operation, ask()).await;
            match (&answer, waits.next()) {
                (Err(Failed { fault: Fault::Unreachable, .. }), Some(wait)) => sleep(wait).await,
                _ => return answer,
            }
        }
    }

    async fn once<T>(&self, operation: &'static str, asked: Answer<'_, T>) -> Result<T, Failed> {
        let slow = || self.failed(Fault::Unreachable, format!("no answer within {} s", DEADLINE.as_secs()));
        let answer = timeout(DEADLINE, asked).await.unwrap_or_else(|_| Err(slow()));
        self.calls.ended(operation, answer.as_ref().map_or_else(|failed| failed.fault.as_str(), |_| "ok"));
        answer
    }

    fn failed(&self, fault: Fault, why: String) -> Failed {
        Failed { what: self.shown.clone(), fault, why }
    }
}

/// A root key with its surroundings.
pub(crate) struct Root {
    key: Box<dyn RootKey>,
    kind: &'static str,
    around: Calls,
}

/// Two of these that are one key under two names.
pub(crate) fn twice(roots: &[Arc<Root>]) -> Option<(&Root, &Root)> {
    roots.iter().enumerate().find_map(|(at, root)| {
        let other = roots.iter().skip(at + 1).find(|other| other.is_same(root))?;
        Some((&**root, &**other))
    })
}

impl Root {
    /// `kind` is how its URI begins, `shown` the URI without secrets.
    pub(crate) fn new(key: Box<dyn RootKey>, kind: &'static str, shown: String, calls: ProviderCalls) -> Arc<Self> {
        Arc::new(Self { key, kind, around: Calls { shown, calls } })
    }

    /// Its URI, for people.
    pub(crate) fn shown(&self) -> &str {
        &self.around.shown
    }

    /// Whether it can say which entries are its own.
    pub(crate) fn is_known(&self) -> bool {
        self.key.is_known()
    }

    /// Finds that out.
    ///
    /// # Errors
    /// The provider's.
    pub(crate) async fn resolve(&self) -> Result<(), Failed> {
        match self.is_known() {
            true => Ok(()),
            false => self.around.ask("resolve", || self.key.resolve()).await,
        }
    }

    /// As [`RootKey::has_login_since`].
    pub(crate) fn has_login_since(&self, moment: Duration) -> bool {
        self.key.has_login_since(moment)
    }

    /// Whether a document's entry is this root's. It says no until the root is resolved.
    pub(crate) fn wraps(&self, entry: &RootEntry) -> bool {
        self.is_known() && entry.kind == self.kind && entry.id == self.key.id()
    }

    /// Whether another is this root under another name. It says no until both are resolved.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let are_known = self.is_known() && other.is_known();
        are_known && self.kind == other.kind && self.key.id() == other.key.id()
    }

    /// Whether this is the key that another root has just wrapped a share with, whatever both are called; `into` is overwritten.
    pub(crate) async fn opens(&self, entry: &RootEntry, bound: &Share, into: &mut ShareKey) -> bool {
        let may = self.kind == entry.kind && self.key.has_other_names();
        may && self.around.once("unwrap", self.key.unwrap(&entry.wrapped, bound, into.bytes_mut())).await.is_ok()
    }

    /// Wraps a share.
    ///
    /// # Errors
    /// The provider's.
    pub(crate) async fn wrap(&self, share: &ShareKey, bound: &Share) -> Result<RootEntry, Failed> {
        let wrapped = self.around.ask("wrap", || self.key.wrap(share.bytes(), bound)).await?;
        Ok(RootEntry { id: self.key.id(), kind: self.kind.to_owned(), x: bound.x, wrapped })
    }

    /// Unwraps it again.
    ///
    /// # Errors
    /// The provider's, or no room in the slab.
    pub(crate) async fn unwrap(&self, wrapped: &[u8], bound: &Share, slab: &Arc<Slab>) -> Result<ShareKey, KeyError> {
        let mut waits =
            ExponentialBuilder::default().with_min_delay(WAIT).with_max_times(ATTEMPTS - 1).with_jitter().build();
        loop {
            // Each attempt into room of its own: one that was given up may have filled half.
            let mut share = ShareKey::blank(slab)?;
            let asked = self.key.unwrap(wrapped, bound, share.bytes_mut());
            match (self.around.once("unwrap", asked).await, waits.next()) {
                (Ok(()), _) => return Ok(share),
                (Err(Failed { fault: Fault::Unreachable, .. }), Some(wait)) => sleep(wait).await,
                (Err(failed), _) => return Err(failed.into()),
            }
        }
    }
}

impl fmt::Debug for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.around.shown)
    }
}

/// A key store with its surroundings.
pub(crate) struct Store {
    store: Box<dyn KeyStore>,
    around: Calls,
}

impl Store {
    /// `shown` is its URI without secrets.
    pub(crate) fn new(store: Box<dyn KeyStore>, shown: String, calls: ProviderCalls) -> Self {
        Self { store, around: Calls { shown, calls } }
    }

    /// Its URI, for people.
    pub(crate) fn shown(&self) -> &str {
        &self.around.shown
    }

    /// As [`RootKey::has_login_since`].
    pub(crate) fn has_login_since(&self, moment: Duration) -> bool {
        self.store.has_login_since(moment)
    }

    /// As [`KeyStore::list`].
    pub(crate) async fn list(&self) -> Result<Vec<String>, KeyError> {
        Ok(self.around.ask("list", || self.store.list()).await?)
    }

    /// As [`KeyStore::read`].
    pub(crate) async fn read(&self, name: &str) -> Result<Stored, KeyError> {
        let read = self.around.ask("read", || self.store.read(name)).await;
        read.map_err(|failed| match failed.fault {
            Fault::Missing => crypto::Error::Missing(name.to_owned()).into(),
            _ => failed.into(),
        })
    }

    /// As [`KeyStore::write`]; after an unclear answer it reads what became of it.
    pub(crate) async fn write(&self, name: &str, before: Option<&Stored>, bytes: &[u8]) -> Result<(), KeyError> {
        // Once: a second attempt after one that arrived would meet its own document and take it for someone else's.
        match self.around.once("write", self.store.write(name, before, bytes)).await {
            Ok(()) => Ok(()),
            Err(Failed { fault: Fault::Conflict, .. }) if before.is_none() => {
                Err(crypto::Error::Exists(name.to_owned()).into())
            }
            Err(Failed { fault: Fault::Conflict, .. }) => Err(crypto::Error::Conflict(name.to_owned()).into()),
            Err(failed) if failed.fault == Fault::Unreachable => match self.read(name).await {
                Ok(stored) if stored.bytes == bytes => Ok(()),
                _ => Err(failed.into()),
            },
            Err(failed) => Err(failed.into()),
        }
    }

    /// As [`KeyStore::forget`].
    pub(crate) async fn forget(&self, name: &str) -> Result<Vec<String>, KeyError> {
        Ok(self.around.ask("forget", || self.store.forget(name)).await?)
    }
}
