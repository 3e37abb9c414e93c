//! Changes of a keyset: new versions, what becomes of them, a new W. Each is made on an [`Opened`] document and counts only once the
//! store has taken what [`Opened::write`] gives.

use std::sync::Arc;

use super::opened::{sealed_aad, sealing_key};
use super::shares::{self, Share, ShareKey};
use super::{Document, Line, Opened, RootEntry, State, Times, VersionEntry, fresh, is_name, seal};
use crate::header::Algorithm;
use crate::slab::Slab;
use crate::{Cipher, Error, derive, nonce};

/// Most versions of a keyset, destroyed ones too: at four rotations a year enough for sixty years.
const MAX_VERSIONS: usize = 256;

/// What a new keyset is made of.
#[derive(Debug, Clone, Copy)]
pub struct NewKeyset<'a> {
    /// Its name.
    pub name: &'a str,
    /// Cipher of both lines.
    pub cipher: Cipher,
    /// Marked as development keys.
    pub development: bool,
    /// Seconds between two refreshes of a replica, at most.
    pub refresh: u64,
    /// Unix seconds.
    pub now: u64,
}

impl Opened {
    /// A new keyset with one active version on each line. It has no roots yet: see [`Opened::shares`].
    ///
    /// # Errors
    /// [`Error::Document`] for a name that is none, [`Error::Random`], [`Error::SlabFull`].
    pub fn create(new: NewKeyset<'_>, slab: &Arc<Slab>) -> Result<Self, Error> {
        if !is_name(new.name) {
            let why = "a keyset's name is 1 to 128 of a-z, 0-9, '.', '_', '-', and starts with a letter or digit";
            return Err(Error::Document { name: new.name.to_owned(), why });
        }
        let document = Document {
            name: new.name.to_owned(),
            epoch: 1,
            refresh: new.refresh,
            k: 0,
            development: new.development,
            roots: Vec::new(),
            versions: Vec::new(),
        };
        let mut this = Self { document, w: fresh(slab)? };
        for line in [Line::Field, Line::Lookup] {
            this.push(line, new.cipher, State::Active, new.now)?;
        }
        Ok(this)
    }

    /// The shares of W for n roots, any k of which will open the keyset, with what each is bound to.
    ///
    /// # Errors
    /// [`Error::Document`] unless 1 ≤ k ≤ n, [`Error::Random`], [`Error::SlabFull`].
    pub fn shares(&self, k: u8, n: u8) -> Result<Vec<(Share, ShareKey)>, Error> {
        if k == 0 || k > n {
            return Err(self.wrong("it would need more roots than there are"));
        }
        let keys = shares::split(&self.w, k, n)?;
        let share = |x| Share { name: self.document.name.clone(), k, x };
        Ok((1..).map(share).zip(keys.into_iter().map(ShareKey)).collect())
    }

    /// Puts in place what the roots made of the shares.
    ///
    /// # Errors
    /// [`Error::Document`] where they do not make a document.
    pub fn set_roots(&mut self, k: u8, roots: Vec<RootEntry>) -> Result<(), Error> {
        let before = std::mem::replace(&mut self.document.roots, roots);
        let k = std::mem::replace(&mut self.document.k, k);
        self.document.consistent().map_err(|why| {
            self.document.roots = before;
            self.document.k = k;
            self.wrong(why)
        })
    }

    /// The same keys under a new W, one epoch later, without roots: what removed roots opened, and shares of before, open nothing of
    /// it. The keys of `destroyed` versions are left out for ever.
    ///
    /// # Errors
    /// [`Error::Document`] where an active version would be destroyed, or one that does not exist; [`Error::Random`],
    /// [`Error::SlabFull`].
    pub fn renewed(&self, destroyed: &[[u8; 32]], now: u64) -> Result<Self, Error> {
        let keys = self.versions()?;
        let w = fresh(self.w.slab())?;
        let sealing = sealing_key(&w, &self.document.name)?;
        let mut document = self.document.clone();
        document.roots.clear();
        document.k = 0;
        for id in destroyed {
            let version = document.versions.iter_mut().find(|version| version.key_id == *id);
            let version = version.ok_or_else(|| self.wrong("it has no such version"))?;
            if matches!(version.state, State::Active) {
                return Err(self.wrong("that version is active: rotate first, then destroy it"));
            }
            if version.state != State::Destroyed {
                version.state = State::Destroyed;
                version.times.destroyed = Some(now);
            }
        }
        for (version, held) in document.versions.iter_mut().zip(&keys) {
            version.sealed = match &held.key {
                Some(key) if version.state != State::Destroyed => {
                    let aad = sealed_aad(&self.document.name, version);
                    Some(seal(sealing.bytes(), key.bytes(), &aad, &nonce::System)?.to_vec())
                }
                _ => None,
            };
        }
        document.epoch += 1;
        Ok(Self { document, w })
    }

    /// Adds a version that every replica is to hold before one writes with it. One epoch later.
    ///
    /// # Errors
    /// [`Error::Document`] where one is pending already, or there are too many; [`Error::Random`], [`Error::SlabFull`].
    pub fn add_pending(&mut self, line: Line, cipher: Cipher, now: u64) -> Result<[u8; 32], Error> {
        if self.document.pending(line).is_some() {
            return Err(self.wrong("a version is pending already"));
        }
        let id = self.push(line, cipher, State::Pending, now)?;
        self.document.epoch += 1;
        Ok(id)
    }

    /// Makes a pending version the active one, and retires the one that was. One epoch later.
    ///
    /// # Errors
    /// [`Error::Document`] where it is not pending.
    pub fn promote(&mut self, key_id: &[u8; 32], now: u64) -> Result<(), Error> {
        let pending = self.document.versions.iter().position(|version| version.key_id == *key_id);
        let found = pending.and_then(|at| self.document.versions.get(at));
        let Some((at, line)) = pending.zip(found.filter(|it| it.state == State::Pending).map(|it| it.line)) else {
            return Err(self.wrong("that version is not pending"));
        };
        for (other, version) in self.document.versions.iter_mut().enumerate() {
            if other == at {
                version.state = State::Active;
                version.times.active = Some(now);
            } else if version.line == line && version.state == State::Active {
                version.state = State::Retired;
                version.times.retired = Some(now);
            }
        }
        self.document.epoch += 1;
        Ok(())
    }

    fn push(&mut self, line: Line, cipher: Cipher, state: State, now: u64) -> Result<[u8; 32], Error> {
        if self.document.versions.len() >= MAX_VERSIONS {
            return Err(self.wrong("it has as many versions as a keyset can have; make another keyset"));
        }
        let alg = Algorithm { cipher, development: self.document.development };
        let key = fresh(self.w.slab())?;
        let key_id = derive::key_id(key.bytes(), alg.byte());
        let times = Times { made: now, ..Times::default() };
        let mut version = VersionEntry { key_id, alg, line, state, times, sealed: None };
        let aad = sealed_aad(&self.document.name, &version);
        version.sealed = Some(seal(self.sealing_key()?.bytes(), key.bytes(), &aad, &nonce::System)?.to_vec());
        self.document.versions.push(version);
        Ok(key_id)
    }

    fn wrong(&self, why: &'static str) -> Error {
        Error::Document { name: self.document.name.clone(), why }
    }
}
