//! A document before its shares are unwrapped.

use std::sync::Arc;

use ring::signature::{ED25519, UnparsedPublicKey};
use subtle::ConstantTimeEq;

use super::opened::{Opened, mac};
use super::{Document, Policy, RootEntry, Share, ShareKey, shares, split};
use crate::Error;
use crate::slab::Slab;

/// A document of which nothing is proven but its signature, where a signer is configured.
pub struct Unopened {
    document: Document,
    json: String,
    mac: Vec<u8>,
    policy: Policy,
}

impl Unopened {
    /// Checks the signature, where one is asked for, and reads what the document says.
    ///
    /// # Errors
    /// [`Error::Document`].
    pub fn read(bytes: &[u8], name: &str, policy: Policy) -> Result<Self, Error> {
        let wrong = |why| Error::Document { name: name.to_owned(), why };
        let lines = split(bytes, name)?;
        if let Some(signer) = policy.signer {
            let signature =
                lines.signature.as_deref().ok_or_else(|| wrong("it is not signed, and a signer is configured"))?;
            let signed = [b"oil1 docsig", lines.json.as_bytes()].concat();
            UnparsedPublicKey::new(&ED25519, signer)
                .verify(&signed, signature)
                .map_err(|_| wrong("its signature is not the configured signer's"))?;
        }
        let document = Document::parse(lines.json, name)?;
        Ok(Self { document, json: lines.json.to_owned(), mac: lines.mac, policy })
    }

    /// What it says; not proven.
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// What the share of one of its roots is bound to.
    pub fn share(&self, entry: &RootEntry) -> Share {
        Share { name: self.document.name.clone(), k: self.document.k, x: entry.x }
    }

    /// Joins W from k of the unwrapped shares, each with its x. The MAC says whether they were right, so every k of them are tried:
    /// a wrong share joins without a word.
    ///
    /// # Errors
    /// [`Error::Document`]: fewer than k shares, no k of them make a W under which the MAC verifies, or the policy refuses it.
    pub fn join(&self, unwrapped: &[(u8, ShareKey)], slab: &Arc<Slab>) -> Result<Opened, Error> {
        let wrong = |why| Error::Document { name: self.document.name.clone(), why };
        if unwrapped.len() < usize::from(self.document.k) {
            return Err(wrong(match self.document.k {
                1 => "none of the configured root keys wraps it",
                _ => "too few of the configured root keys wrap it",
            }));
        }
        for chosen in shares::choices(unwrapped, usize::from(self.document.k)) {
            let w = shares::join(&chosen, slab)?;
            if bool::from(mac(&w, &self.document.name, &self.json)?.ct_eq(self.mac.as_slice())) {
                self.permitted()?;
                return Ok(Opened { document: self.document.clone(), w });
            }
        }
        Err(wrong("its MAC does not verify: it was altered or cut short, or its root key is another; put a copy back"))
    }

    fn permitted(&self) -> Result<(), Error> {
        let wrong = |why| Error::Document { name: self.document.name.clone(), why };
        if self.document.epoch < self.policy.min_epoch {
            return Err(wrong("its epoch is below OILSKIN_KEYSET_MIN_EPOCH: an old document was put back"));
        }
        if self.document.development && !self.policy.development {
            return Err(wrong("it holds development keys; make production keys with `oilskin keys init`"));
        }
        Ok(())
    }
}
