//! The two ciphers, in place.

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, Tag, UnboundKey};

use crate::header::NONCE;
use crate::slab::Key;
use crate::sodium::{self, AEGIS_NONCE, AEGIS_TAG};
use crate::{DecryptReason, Error};

/// Bytes of a Poly1305 tag.
pub(crate) const POLY_TAG: usize = 16;

/// The 12-byte nonce of XChaCha20's inner cipher: four zeros, then the last eight of the 24.
fn inner(nonce: &[u8; NONCE]) -> Nonce {
    let mut bytes = [0; 12];
    if let (Some(to), Some(from)) = (bytes.last_chunk_mut::<8>(), nonce.last_chunk::<8>()) {
        *to = *from;
    }
    Nonce::assume_unique_for_key(bytes)
}

/// Made for one call, never kept.
fn key(derived: &Key) -> Result<LessSafeKey, Error> {
    // ring refuses a wrong length only, and this one is fixed.
    UnboundKey::new(&CHACHA20_POLY1305, derived.bytes()).map(LessSafeKey::new).map_err(|_| Error::Random)
}

/// ChaCha20-Poly1305 under HChaCha20's key: with it, XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03, 2.3).
pub(crate) fn seal_chacha(
    derived: &Key,
    nonce: &[u8; NONCE],
    aad: &[u8],
    message: &mut [u8],
) -> Result<[u8; POLY_TAG], Error> {
    let tag =
        key(derived)?.seal_in_place_separate_tag(inner(nonce), Aad::from(aad), message).map_err(|_| Error::TooLarge)?;
    Ok(tag.as_ref().first_chunk().copied().unwrap_or_default())
}

/// The reverse, in place.
pub(crate) fn open_chacha(
    derived: &Key,
    nonce: &[u8; NONCE],
    aad: &[u8],
    message: &mut [u8],
    tag: &[u8; POLY_TAG],
) -> Result<(), Error> {
    let opened = key(derived)?.open_in_place_separate_tag(inner(nonce), Aad::from(aad), Tag::from(*tag), message, 0..);
    opened.map(|_| ()).map_err(|_| DecryptReason::Tag.into())
}

fn aegis_nonce(nonce: &[u8; NONCE]) -> [u8; AEGIS_NONCE] {
    let mut whole = [0; AEGIS_NONCE];
    if let Some(start) = whole.first_chunk_mut::<NONCE>() {
        *start = *nonce;
    }
    whole
}

/// AEGIS-256 with the 24 bytes and eight zeros as its nonce.
pub(crate) fn seal_aegis(subkey: &Key, nonce: &[u8; NONCE], aad: &[u8], message: &mut [u8]) -> [u8; AEGIS_TAG] {
    sodium::aegis256_encrypt(subkey.bytes(), &aegis_nonce(nonce), aad, message)
}

/// The reverse, in place.
pub(crate) fn open_aegis(
    subkey: &Key,
    nonce: &[u8; NONCE],
    aad: &[u8],
    message: &mut [u8],
    tag: &[u8; AEGIS_TAG],
) -> Result<(), Error> {
    match sodium::aegis256_decrypt(subkey.bytes(), &aegis_nonce(nonce), aad, message, tag) {
        true => Ok(()),
        false => Err(DecryptReason::Tag.into()),
    }
}
