//! The keyset document: what it says, how it is sealed, what is checked before a byte of it is believed.
//!
//! Line 1 is JSON, line 2 the MAC, line 3 (if signed) the signature, each ended by LF. MAC and signature are over the bytes
//! of line 1, so there is no canonical JSON.

mod text;

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use ring::signature::{ED25519, UnparsedPublicKey};
use subtle::ConstantTimeEq;

pub use text::{Document, Line, RootEntry, State, Times, VersionEntry};

use crate::derive::{self, push_lp};
use crate::header::Algorithm;
use crate::keyset::{Keyset, Version};
use crate::root::{RootKey, Share};
use crate::slab::{Key, Slab};
use crate::sodium::{self, KEY, blake2b};
use crate::{Error, base64url, nonce};

/// Longest name of a keyset.
const MAX_NAME: usize = 128;

/// Bytes of a sealed key: nonce, ciphertext, tag.
pub(crate) const SEALED: usize = 24 + KEY + 16;

/// What a reader insists on.
#[derive(Debug, Clone, Copy, Default)]
pub struct Policy {
    /// Development documents are fine.
    pub development: bool,
    /// Lowest epoch taken.
    pub min_epoch: u64,
    /// Ed25519 public key that must have signed it.
    pub signer: Option<[u8; 32]>,
}

/// Whether a name may be a keyset's: `[a-z0-9][a-z0-9._-]{0,127}`, since names become paths of stores.
pub fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    let starts = bytes.next().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    starts
        && name.len() <= MAX_NAME
        && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-'))
}

/// A document's lines, split but not believed.
struct Lines<'a> {
    json: &'a str,
    mac: Vec<u8>,
    signature: Option<Vec<u8>>,
}

fn split<'a>(bytes: &'a [u8], name: &str) -> Result<Lines<'a>, Error> {
    let wrong = |why| Error::Document { name: name.to_owned(), why };
    let text = std::str::from_utf8(bytes).map_err(|_| wrong("not UTF-8"))?;
    let text = text.strip_suffix('\n').ok_or_else(|| wrong("cut short: its last line does not end"))?;
    let mut lines = text.split('\n');
    let json = lines.next().unwrap_or_default();
    let decode = |line: &str| base64url::decode(line).ok_or_else(|| wrong("a line is not base64url"));
    let mac = decode(lines.next().ok_or_else(|| wrong("it has no MAC"))?)?;
    let signature = lines.next().map(decode).transpose()?;
    match lines.next() {
        None => Ok(Lines { json, mac, signature }),
        Some(_) => Err(wrong("it has more than three lines")),
    }
}

/// Reads what a document says, without roots: for `keys list`, and to be fuzzed. Nothing of it is proven.
///
/// # Errors
/// [`Error::Document`].
pub fn read(bytes: &[u8], name: &str) -> Result<Document, Error> {
    Document::parse(split(bytes, name)?.json, name)
}

/// Checks a document and opens its keys, in this order: signature, shares, MAC, epoch, versions.
///
/// # Errors
/// [`Error::Document`] for what is wrong with it, [`Error::Root`] where no root opens it.
pub fn open(
    bytes: &[u8],
    name: &str,
    roots: &[Box<dyn RootKey>],
    slab: &Arc<Slab>,
    policy: Policy,
) -> Result<Keyset, Error> {
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
    let w = unwrap(&document, roots, slab)?;
    if !bool::from(mac(&w, name, lines.json)?.ct_eq(lines.mac.as_slice())) {
        return Err(wrong("its MAC does not verify: it was altered, or its root key is another"));
    }
    if document.epoch < policy.min_epoch {
        return Err(wrong("its epoch is below OILSKIN_KEYSET_MIN_EPOCH: an old document was put back"));
    }
    if document.development && !policy.development {
        return Err(wrong("it holds development keys; make production keys with `oilskin keys init`"));
    }
    let versions = versions(&document, &w, slab)?;
    let active =
        |line| document.versions.iter().position(|version| version.line == line && version.state == State::Active);
    Ok(Keyset {
        name: name.to_owned(),
        epoch: document.epoch,
        development: document.development,
        active_field: active(Line::Field),
        active_lookup: active(Line::Lookup),
        versions,
        slab: Arc::clone(slab),
        subkeys: RwLock::new(HashMap::new()),
    })
}

fn unwrap(document: &Document, roots: &[Box<dyn RootKey>], slab: &Arc<Slab>) -> Result<Key, Error> {
    let name = &document.name;
    if document.k != 1 {
        return Err(Error::Document {
            name: name.clone(),
            why: "it needs several roots, which this version cannot join",
        });
    }
    let mut refused = None;
    for entry in &document.roots {
        let Some(root) = roots.iter().find(|root| root.id() == entry.id && root.kind() == entry.kind) else {
            continue;
        };
        match root.unwrap_share(&entry.wrapped, &share(name, document.k, entry.x), slab) {
            Ok(w) => return Ok(w),
            Err(error) => refused = Some(error),
        }
    }
    Err(refused
        .unwrap_or_else(|| Error::Document { name: name.clone(), why: "none of the configured root keys wraps it" }))
}

/// What a wrapped share is bound to.
pub(crate) fn share(name: &str, k: u8, x: u8) -> Share {
    let mut aad = b"oil1 shares".to_vec();
    push_lp(&mut aad, name.as_bytes());
    aad.extend_from_slice(&[k, x]);
    Share { aad }
}

fn mac(w: &Key, name: &str, json: &str) -> Result<[u8; KEY], Error> {
    let key = Key::new(w.slab(), |out| {
        blake2b(w.bytes(), &[b"oil1 docmac", &derive::length(name.as_bytes()), name.as_bytes()], out);
    })?;
    let mut mac = [0; KEY];
    blake2b(key.bytes(), &[json.as_bytes()], &mut mac);
    Ok(mac)
}

fn sealing_key(w: &Key, name: &str) -> Result<Key, Error> {
    Key::new(w.slab(), |out| {
        blake2b(w.bytes(), &[b"oil1 keyset", &derive::length(name.as_bytes()), name.as_bytes()], out);
    })
}

fn sealed_aad(name: &str, version: &VersionEntry) -> Vec<u8> {
    let mut aad = Vec::new();
    push_lp(&mut aad, name.as_bytes());
    aad.extend_from_slice(&version.key_id);
    aad.extend_from_slice(&[version.alg.byte(), version.line as u8]);
    aad
}

fn versions(document: &Document, w: &Key, slab: &Arc<Slab>) -> Result<Vec<Version>, Error> {
    let wrong = |why| Error::Document { name: document.name.clone(), why };
    let sealing = sealing_key(w, &document.name)?;
    let mut opened: Vec<Version> = Vec::with_capacity(document.versions.len());
    for version in &document.versions {
        if opened.iter().any(|other| other.id.first_chunk::<8>() == version.key_id.first_chunk::<8>()) {
            return Err(wrong("two of its versions have one key id"));
        }
        let key = match &version.sealed {
            None => None,
            Some(sealed) => {
                let key = open_sealed(sealing.bytes(), sealed, &sealed_aad(&document.name, version), slab)
                    .map_err(|()| wrong("a sealed key does not open"))??;
                if !bool::from(derive::key_id(key.bytes(), version.alg.byte()).ct_eq(&version.key_id)) {
                    return Err(wrong("a key is not the one its id names"));
                }
                Some(key)
            }
        };
        opened.push(Version { id: version.key_id, algorithm: version.alg, line: version.line, key });
    }
    Ok(opened)
}

/// Opens nonce ‖ ciphertext ‖ tag into the slab; the outer error is "does not open".
pub(crate) fn open_sealed(
    key: &[u8; KEY],
    sealed: &[u8],
    aad: &[u8],
    slab: &Arc<Slab>,
) -> Result<Result<Key, Error>, ()> {
    let (nonce, text) = sealed.split_first_chunk::<24>().ok_or(())?;
    let mut fits = false;
    let opened = Key::new(slab, |out| fits = sodium::xchacha_decrypt(key, nonce, aad, text, out));
    match (fits, opened) {
        (false, Ok(_)) => Err(()),
        (_, opened) => Ok(opened),
    }
}

/// Seals 32 bytes: nonce ‖ ciphertext ‖ tag.
pub(crate) fn seal(
    key: &[u8; KEY],
    secret: &[u8; KEY],
    aad: &[u8],
    random: &dyn nonce::Random,
) -> Result<[u8; SEALED], Error> {
    let mut sealed = [0; SEALED];
    let (nonce, text) = sealed.split_first_chunk_mut::<24>().ok_or(Error::Random)?;
    random.fill(nonce)?;
    text.copy_from_slice(&sodium::xchacha_encrypt(key, nonce, aad, secret));
    Ok(sealed)
}

/// What a new keyset is made of.
#[derive(Debug, Clone, Copy)]
pub struct NewKeyset<'a> {
    /// Its name.
    pub name: &'a str,
    /// Cipher of both lines.
    pub cipher: crate::Cipher,
    /// Marked as development keys.
    pub development: bool,
    /// Seconds between two refreshes of a replica.
    pub refresh: u64,
    /// Unix seconds.
    pub now: u64,
}

/// Makes a keyset with one active version on each line, its W wrapped whole by each of `roots`.
///
/// # Errors
/// [`Error::Random`], [`Error::Root`], [`Error::Document`] for a name that is none.
pub fn create(new: NewKeyset<'_>, roots: &[Box<dyn RootKey>], slab: &Arc<Slab>) -> Result<Vec<u8>, Error> {
    let random = &nonce::System;
    if !is_name(new.name) {
        let why = "a keyset's name is 1 to 128 of a-z, 0-9, '.', '_', '-', and starts with a letter or digit";
        return Err(Error::Document { name: new.name.to_owned(), why });
    }
    let w = fresh(slab, random)?;
    let alg = Algorithm { cipher: new.cipher, development: new.development };
    let sealing = sealing_key(&w, new.name)?;
    let mut versions = Vec::new();
    for line in [Line::Field, Line::Lookup] {
        let key = fresh(slab, random)?;
        let mut version = VersionEntry {
            key_id: derive::key_id(key.bytes(), alg.byte()),
            alg,
            line,
            state: State::Active,
            times: Times { made: new.now, ..Times::default() },
            sealed: None,
        };
        version.sealed = Some(seal(sealing.bytes(), key.bytes(), &sealed_aad(new.name, &version), random)?.to_vec());
        versions.push(version);
    }
    let mut wrapped = Vec::new();
    for (x, root) in (1_u8..).zip(roots) {
        let share = share(new.name, 1, x);
        let entry = RootEntry { id: root.id(), kind: root.kind().to_owned(), x, wrapped: root.wrap_share(&w, &share)? };
        wrapped.push(entry);
    }
    let document = Document {
        name: new.name.to_owned(),
        epoch: 1,
        refresh: new.refresh,
        k: 1,
        development: new.development,
        roots: wrapped,
        versions,
    };
    let json = document.json()?;
    let mac = base64url::encode(&mac(&w, new.name, &json)?);
    Ok(format!("{json}\n{mac}\n").into_bytes())
}

fn fresh(slab: &Arc<Slab>, random: &dyn nonce::Random) -> Result<Key, Error> {
    let mut outcome = Ok(());
    let key = Key::new(slab, |out| outcome = random.fill(out))?;
    outcome.map(|()| key)
}

#[cfg(test)]
mod tests;
