//! The keyset document: what it says, how it is sealed, what is checked before a byte of it is believed.
//!
//! Line 1 is JSON, line 2 the MAC, line 3 (if signed) the signature, each ended by LF. MAC and signature are over the bytes
//! of line 1, so there is no canonical JSON.

//!
//! Reading is two steps, because what unwraps shares may be far away: [`Unopened::read`] checks what needs no key and says which
//! shares there are; [`Unopened::join`] takes what the roots unwrapped and gives an [`Opened`] document, which gives its keyset and
//! takes changes. [`files`] does both at once under root keys in files.

mod change;
pub mod files;
mod opened;
mod shares;
mod text;
mod unopened;

use std::sync::Arc;

pub use change::NewKeyset;
pub use opened::Opened;
pub use shares::{Share, ShareKey};
pub use text::{Document, Line, RootEntry, State, Times, VersionEntry};
pub use unopened::Unopened;

use crate::slab::{Key, Slab};
use crate::sodium::{self, KEY};
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

/// The name that a document says it has, for stores that hold one under a name of their own. Nothing of it is proven.
pub fn name(bytes: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Named {
        name: String,
    }
    let line = bytes.split(|byte| *byte == b'\n').next()?;
    let Named { name } = serde_json::from_slice(line).ok()?;
    is_name(&name).then_some(name)
}

/// Reads what a document says, without roots: for `keys list`, and to be fuzzed. Nothing of it is proven.
///
/// # Errors
/// [`Error::Document`].
pub fn read(bytes: &[u8], name: &str) -> Result<Document, Error> {
    Document::parse(split(bytes, name)?.json, name)
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

/// Fresh random bytes in the slab.
fn fresh(slab: &Arc<Slab>) -> Result<Key, Error> {
    use nonce::Random;
    let mut outcome = Ok(());
    let key = Key::new(slab, |out| outcome = nonce::System.fill(out))?;
    outcome.map(|()| key)
}

#[cfg(test)]
mod tests;
