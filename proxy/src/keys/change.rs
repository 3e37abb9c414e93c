//! Changes of a keyset in its store: read, open, change, write, and again where someone else was faster.

use std::sync::Arc;
use std::time::Duration;

use oilskin_crypto::document::{Document, Opened, Policy};
use oilskin_crypto::{Error, Slab};
use ring::signature::Ed25519KeyPair;
use tokio::time::sleep;

use super::opening;
use super::provider::{Root, Store, Stored};
use super::{Fault, KeyError};
use crate::backoff;

/// How often a change is begun anew because someone else was faster.
const ATTEMPTS: usize = 20;

/// Between two of them, on average: all who lost must not come back at once.
const WAIT: Duration = Duration::from_millis(100);

/// Who changes keysets.
pub(crate) struct Changer<'a> {
    pub(crate) store: &'a Store,
    pub(crate) roots: &'a [Arc<Root>],
    pub(crate) slab: &'a Arc<Slab>,
    pub(crate) policy: Policy,
    /// Signs what is written, where documents are signed.
    pub(crate) signer: Option<&'a Ed25519KeyPair>,
}

/// What is to become of a document that was opened.
pub(crate) enum Change<T> {
    /// It is to be written, and the result is this.
    Write(T),
    /// Nothing is to be done any more.
    Leave(T),
}

impl Changer<'_> {
    /// Reads a keyset and opens it.
    ///
    /// # Errors
    /// The store's, the roots', or what is wrong with it.
    pub(crate) async fn open(&self, name: &str) -> Result<(Opened, Stored), KeyError> {
        let stored = self.store.read(name).await?;
        let opened = opening::open(&stored.bytes, name, self.roots, self.slab, self.policy).await?;
        Ok((opened, stored))
    }

    /// Changes a keyset in its store. `change` may be called several times, each time with what the store holds now.
    ///
    /// # Errors
    /// As [`Changer::open`], the change's own, or the store's.
    pub(crate) async fn change<T: Send>(
        &self,
        name: &str,
        mut change: impl FnMut(&mut Opened) -> Result<Change<T>, KeyError> + Send,
    ) -> Result<T, KeyError> {
        self.may_write()?;
        let mut left = ATTEMPTS;
        loop {
            let (mut opened, stored) = self.open(name).await?;
            let done = match change(&mut opened)? {
                Change::Leave(done) => return Ok(done),
                Change::Write(done) => done,
            };
            if self.is_written(name, &stored, &opened, &mut left).await? {
                return Ok(done);
            }
        }
    }

    /// Puts the same keys under a new W that any `k` of `roots` open, without those that `destroyed` names; none leaves everything as it
    /// is. Returns the document as it was, and the epoch that it has now.
    ///
    /// # Errors
    /// As [`Changer::change`], a root that does not wrap, or a version that must not be destroyed.
    pub(crate) async fn renew(
        &self,
        name: &str,
        (k, roots): (u8, &[Arc<Root>]),
        now: u64,
        destroyed: impl Fn(&Document) -> Option<Vec<[u8; 32]>> + Send + Sync,
    ) -> Result<(Document, u64), KeyError> {
        self.may_write()?;
        let mut left = ATTEMPTS;
        loop {
            let (opened, stored) = self.open(name).await?;
            let before = opened.document().clone();
            let Some(destroyed) = destroyed(&before) else {
                let epoch = before.epoch;
                return Ok((before, epoch));
            };
            let mut renewed = opened.renewed(&destroyed, now)?;
            opening::wrap(&mut renewed, k, roots).await?;
            if self.is_written(name, &stored, &renewed, &mut left).await? {
                return Ok((before, renewed.document().epoch));
            }
        }
    }

    /// False where someone else was faster, and it is to be done anew.
    async fn is_written(&self, name: &str, before: &Stored, new: &Opened, left: &mut usize) -> Result<bool, KeyError> {
        // Whoever checks signatures would refuse what follows, and nobody could mend it.
        let is_signed = before.bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count() > 2;
        if is_signed && self.signer.is_none() {
            return Err(KeyError::Unsupported("this keyset is signed: give the signer's key, --signer-key FILE"));
        }
        match self.store.write(name, Some(before), &new.write(self.signer)?).await {
            Ok(()) => Ok(true),
            Err(error) if error.fault() == Fault::Conflict && *left > 0 => {
                *left -= 1;
                sleep(WAIT.mul_f64(2.0 * backoff::share())).await;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Where a signer is configured whoever writes signs.
    ///
    /// # Errors
    /// There is a signer and no key to sign with.
    pub(crate) fn may_write(&self) -> Result<(), KeyError> {
        match (self.policy.signer, self.signer) {
            (Some(_), None) => {
                Err(KeyError::Unsupported("keysets are signed here: give the signer's key, --signer-key FILE"))
            }
            _ => Ok(()),
        }
    }
}

/// There is no such version.
pub(crate) fn no_version(name: &str) -> KeyError {
    Error::Document { name: name.to_owned(), why: "it has no version of that key id; `oilskin keys list` shows them" }
        .into()
}
