//! What the fields of one rule in one message share: subkeys, prefixes, the head of their authenticated data.

use std::sync::Arc;

use crate::Error;
use crate::derive::{Purpose, push_lp};
use crate::header::{Algorithm, Cipher, NONCE};
use crate::keyset::{Keyset, Version};
use crate::slab::Key;
use crate::sodium::hchacha20;
use crate::spec::Bound;

/// Offsets of the alg and type bytes in the authenticated data.
const AAD_TYPE: usize = 5;

/// HChaCha20 keys of foreign prefixes remembered in one message.
const DERIVED: usize = 8;

/// `oil1` ‖ alg ‖ type ‖ key_id ‖ lp(tenant) ‖ lp(context) ‖ count ‖ lp(name) ‖ lp(value)…, with the constant part kept.
pub(super) struct Aad {
    bytes: Vec<u8>,
    fixed: usize,
}

impl Aad {
    pub(super) fn new(alg: u8, key_id: &[u8; 8], tenant: &[u8], context: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(96 + tenant.len() + context.len());
        bytes.extend_from_slice(b"oil1");
        bytes.extend_from_slice(&[alg, 0]);
        bytes.extend_from_slice(key_id);
        push_lp(&mut bytes, tenant);
        push_lp(&mut bytes, context);
        let fixed = bytes.len();
        Self { bytes, fixed }
    }

    /// The whole for one field.
    pub(super) fn with(&mut self, kind: u8, bound: Bound<'_>) -> &[u8] {
        self.bytes.truncate(self.fixed);
        if let Some(byte) = self.bytes.get_mut(AAD_TYPE) {
            *byte = kind;
        }
        self.bytes.push(u8::try_from(bound.0.len()).unwrap_or(u8::MAX));
        for (name, value) in bound.0 {
            push_lp(&mut self.bytes, name);
            push_lp(&mut self.bytes, value);
        }
        &self.bytes
    }
}

/// Writing, for one rule.
pub(super) struct SealPlace {
    pub(super) spec: u64,
    pub(super) algorithm: Algorithm,
    pub(super) key_id: [u8; 8],
    pub(super) aad: Aad,
    pub(super) keys: SealKeys,
}

/// The keys a field is written with.
pub(super) enum SealKeys {
    /// A prefix of this message and its counter; `derived` is HChaCha20 of both for XChaCha20.
    Counted { subkey: Arc<Key>, derived: Option<Key>, nonce: [u8; NONCE] },
    /// Fresh or synthetic nonces. `synthetic` is subkey 3 where the mode is deterministic.
    Single { subkey: Arc<Key>, synthetic: Option<Arc<Key>> },
}

impl SealKeys {
    /// The nonce of the next field: the counter is 8 bytes, little-endian, + 1 modulo 2^64 a field.
    pub(super) fn count(nonce: &mut [u8; NONCE]) {
        if let Some(counter) = nonce.last_chunk_mut::<8>() {
            *counter = u64::from_le_bytes(*counter).wrapping_add(1).to_le_bytes();
        }
    }
}

/// Reading, for one rule, version and context.
pub(super) struct OpenPlace {
    pub(super) spec: u64,
    pub(super) context: usize,
    pub(super) version: [u8; 32],
    pub(super) deterministic: bool,
    pub(super) aad: Aad,
    pub(super) subkey: Arc<Key>,
    pub(super) synthetic: Option<Arc<Key>>,
    derived: Vec<([u8; 16], Key)>,
    oldest: usize,
}

impl OpenPlace {
    pub(super) fn new(
        keyset: &Keyset,
        version: &Version,
        deterministic: bool,
        tenant: &[u8],
        (spec, context, name): (u64, usize, &[u8]),
    ) -> Result<Self, Error> {
        let purpose = if deterministic { Purpose::Deterministic } else { Purpose::Random };
        let subkey = keyset.subkey(version, purpose, tenant, name)?;
        let synthetic = match deterministic {
            true => Some(keyset.subkey(version, Purpose::SyntheticNonce, tenant, name)?),
            false => None,
        };
        let key_id = version.id.first_chunk().copied().unwrap_or_default();
        let aad = Aad::new(version.algorithm.header(deterministic), &key_id, tenant, name);
        Ok(Self {
            spec,
            context,
            version: version.id,
            deterministic,
            aad,
            subkey,
            synthetic,
            derived: Vec::new(),
            oldest: 0,
        })
    }

    /// The place's authenticated data, and the key that ChaCha20-Poly1305 runs under for this prefix.
    ///
    /// Tokens of one message usually share a prefix, those of a list of records share a few.
    pub(super) fn parts(&mut self, prefix: &[u8; 16], kind: u8, bound: Bound<'_>) -> Result<(&[u8], &Key), Error> {
        let found = self.derived.iter().position(|(held, _)| held == prefix);
        let at = match found {
            Some(at) => at,
            None => self.derive(prefix)?,
        };
        let (_, key) = self.derived.get(at).ok_or(Error::SlabFull)?;
        Ok((self.aad.with(kind, bound), key))
    }

    fn derive(&mut self, prefix: &[u8; 16]) -> Result<usize, Error> {
        let key = derived(&self.subkey, prefix)?;
        if self.derived.len() < DERIVED {
            self.derived.push((*prefix, key));
            return Ok(self.derived.len() - 1);
        }
        let at = self.oldest % DERIVED;
        self.oldest += 1;
        if let Some(slot) = self.derived.get_mut(at) {
            *slot = (*prefix, key);
        }
        Ok(at)
    }
}

/// HChaCha20 of a subkey and a prefix, in locked memory.
pub(super) fn derived(subkey: &Key, prefix: &[u8; 16]) -> Result<Key, Error> {
    Key::new(subkey.slab(), |out| hchacha20(subkey.bytes(), prefix, out))
}

/// Whether a cipher is run through a derived key.
pub(super) fn derives(algorithm: Algorithm) -> bool {
    algorithm.cipher == Cipher::XChaCha20Poly1305
}
