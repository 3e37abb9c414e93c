//! Everything that is derived by BLAKE2b, with its label.

use crate::sodium::{KEY, blake2b};

/// What a subkey is for; one byte in its derivation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Purpose {
    Random = 1,
    Deterministic = 2,
    SyntheticNonce = 3,
    Index = 4,
}

/// `lp(x)`'s first half: the length as 32-bit big-endian.
pub(crate) fn length(bytes: &[u8]) -> [u8; 4] {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes()
}

/// The 32 bytes that name a key version; tokens carry the first eight.
pub(crate) fn key_id(data_key: &[u8; KEY], alg: u8) -> [u8; KEY] {
    let mut id = [0; KEY];
    blake2b(data_key, &[b"oil1 key id", &[alg]], &mut id);
    id
}

/// The key that messages meet, of one purpose, tenant and context.
pub(crate) fn subkey(
    data_key: &[u8; KEY],
    purpose: Purpose,
    alg: u8,
    tenant: &[u8],
    context: &[u8],
    out: &mut [u8; KEY],
) {
    let label = [purpose as u8, alg];
    blake2b(data_key, &[b"oil1 subkey", &label, &length(tenant), tenant, &length(context), context], out);
}

/// Appends `lp(x)`.
pub(crate) fn push_lp(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&length(bytes));
    out.extend_from_slice(bytes);
}
