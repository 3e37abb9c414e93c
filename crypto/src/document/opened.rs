//! A document whose W is in hand and whose MAC is right.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use ring::signature::Ed25519KeyPair;
use subtle::ConstantTimeEq;

use super::{Document, Line, State, VersionEntry, open_sealed};
use crate::derive::{self, push_lp};
use crate::keyset::{Keyset, Version};
use crate::slab::Key;
use crate::sodium::{KEY, blake2b};
use crate::{Error, base64url};

/// A document with its W. Not kept longer than it takes to open its keys or to write its successor.
pub struct Opened {
    pub(super) document: Document,
    pub(super) w: Key,
}

impl Opened {
    /// What it says; proven by its MAC.
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// Opens its keys. What was counted of versions that `before` holds too goes on; one process writes `max_uses` messages with one
    /// version.
    ///
    /// # Errors
    /// [`Error::Document`] where a key does not open or is not the one that its id names, [`Error::SlabFull`].
    pub fn keyset(&self, before: Option<&Keyset>, max_uses: u64) -> Result<Keyset, Error> {
        let mut versions = self.versions()?;
        for version in &mut versions {
            let same = before.and_then(|before| before.versions.iter().find(|other| other.id == version.id));
            if let Some(same) = same {
                version.usage = Arc::clone(&same.usage);
            }
        }
        let active = |line| {
            let is_active = |version: &VersionEntry| version.line == line && version.state == State::Active;
            self.document.versions.iter().position(is_active)
        };
        Ok(Keyset {
            name: self.document.name.clone(),
            epoch: self.document.epoch,
            development: self.document.development,
            active_field: active(Line::Field),
            active_lookup: active(Line::Lookup),
            versions,
            slab: Arc::clone(self.w.slab()),
            subkeys: RwLock::new(HashMap::new()),
            max_uses,
        })
    }

    /// The document as it is stored: with its MAC, and signed where there is a signer.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::SlabFull`].
    pub fn write(&self, signer: Option<&Ed25519KeyPair>) -> Result<Vec<u8>, Error> {
        let json = self.document.json()?;
        let mut text = format!("{json}\n{}\n", base64url::encode(&mac(&self.w, &self.document.name, &json)?));
        if let Some(signer) = signer {
            let signed = [b"oil1 docsig", json.as_bytes()].concat();
            text.push_str(&base64url::encode(signer.sign(&signed).as_ref()));
            text.push('\n');
        }
        Ok(text.into_bytes())
    }

    pub(super) fn sealing_key(&self) -> Result<Key, Error> {
        sealing_key(&self.w, &self.document.name)
    }

    pub(super) fn versions(&self) -> Result<Vec<Version>, Error> {
        let name = &self.document.name;
        let wrong = |why| Error::Document { name: name.clone(), why };
        let sealing = self.sealing_key()?;
        let mut opened: Vec<Version> = Vec::with_capacity(self.document.versions.len());
        for version in &self.document.versions {
            if opened.iter().any(|other| other.id.first_chunk::<8>() == version.key_id.first_chunk::<8>()) {
                return Err(wrong("two of its versions have one key id"));
            }
            let key = match &version.sealed {
                None => None,
                Some(sealed) => {
                    let key = open_sealed(sealing.bytes(), sealed, &sealed_aad(name, version), self.w.slab())
                        .map_err(|()| wrong("a sealed key does not open"))??;
                    if !bool::from(derive::key_id(key.bytes(), version.alg.byte()).ct_eq(&version.key_id)) {
                        return Err(wrong("a key is not the one its id names"));
                    }
                    Some(key)
                }
            };
            opened.push(Version {
                id: version.key_id,
                algorithm: version.alg,
                line: version.line,
                state: version.state,
                key,
                usage: Arc::default(),
            });
        }
        Ok(opened)
    }
}

pub(super) fn mac(w: &Key, name: &str, json: &str) -> Result<[u8; KEY], Error> {
    let key = Key::new(w.slab(), |out| {
        blake2b(w.bytes(), &[b"oil1 docmac", &derive::length(name.as_bytes()), name.as_bytes()], out);
    })?;
    let mut mac = [0; KEY];
    blake2b(key.bytes(), &[json.as_bytes()], &mut mac);
    Ok(mac)
}

pub(super) fn sealing_key(w: &Key, name: &str) -> Result<Key, Error> {
    Key::new(w.slab(), |out| {
        blake2b(w.bytes(), &[b"oil1 keyset", &derive::length(name.as_bytes()), name.as_bytes()], out);
    })
}

pub(super) fn sealed_aad(name: &str, version: &VersionEntry) -> Vec<u8> {
    let mut aad = Vec::new();
    push_lp(&mut aad, name.as_bytes());
    aad.extend_from_slice(&version.key_id);
    aad.extend_from_slice(&[version.alg.byte(), version.line as u8]);
    aad
}
