//! libsodium's C calls whose safe wrappers allocate, copy keys or hide errors; one safe function a call.
//!
//! Why not sodiumoxide: it is deprecated (RUSTSEC-2021-0137), stuck on libsodium 1.0.18, and has no AEGIS.
#![expect(unsafe_code, reason = "the C boundary; each call states why it is sound")]

use std::ptr;
use std::sync::Once;

use libsodium_sys as ffi;

/// Bytes of every key and of BLAKE2b-256.
pub(crate) const KEY: usize = 32;

/// Bytes of an AEGIS-256 tag; libsodium makes no shorter one.
pub(crate) const AEGIS_TAG: usize = 32;

/// Bytes of an AEGIS-256 nonce.
pub(crate) const AEGIS_NONCE: usize = 32;

fn init() {
    static ONCE: Once = Once::new();
    // SAFETY: may be called any number of times; `Once` only saves the cost.
    ONCE.call_once(|| unsafe {
        ffi::sodium_init();
    });
}

/// HChaCha20 with the default constant: 16 bytes in, a subkey out.
pub(crate) fn hchacha20(key: &[u8; KEY], input: &[u8; 16], out: &mut [u8; KEY]) {
    init();
    // SAFETY: lengths are `crypto_core_hchacha20`'s, fixed by the types; a null constant is the default one.
    unsafe { ffi::crypto_core_hchacha20(out.as_mut_ptr(), input.as_ptr(), key.as_ptr(), ptr::null()) };
}

/// Argon2id 1.3 with one lane; false where its memory cannot be had, or a bound of libsodium's is not kept (1 pass, 8 KiB).
#[must_use]
pub(crate) fn argon2id(out: &mut [u8; KEY], passphrase: &[u8], salt: &[u8; 16], passes: u32, memory_kib: u32) -> bool {
    init();
    let Ok(memory) = usize::try_from(u64::from(memory_kib) * 1024) else { return false };
    // SAFETY: lengths are those of the slices, and the salt's is `crypto_pwhash_SALTBYTES`.
    let outcome = unsafe {
        ffi::crypto_pwhash(
            out.as_mut_ptr(),
            KEY as u64,
            passphrase.as_ptr().cast(),
            passphrase.len() as u64,
            salt.as_ptr(),
            passes.into(),
            memory,
            ffi::crypto_pwhash_ALG_ARGON2ID13 as i32,
        )
    };
    outcome == 0
}

/// AEGIS-256 in place; the tag apart.
pub(crate) fn aegis256_encrypt(
    key: &[u8; KEY],
    nonce: &[u8; AEGIS_NONCE],
    aad: &[u8],
    message: &mut [u8],
) -> [u8; AEGIS_TAG] {
    init();
    let mut tag = [0; AEGIS_TAG];
    // SAFETY: libsodium allows c == m; both have `message.len()` bytes; tag, nonce and key have their fixed lengths.
    unsafe {
        ffi::crypto_aead_aegis256_encrypt_detached(
            message.as_mut_ptr(),
            tag.as_mut_ptr(),
            ptr::null_mut(),
            message.as_ptr(),
            message.len() as u64,
            aad.as_ptr(),
            aad.len() as u64,
            ptr::null(),
            nonce.as_ptr(),
            key.as_ptr(),
        );
    }
    tag
}

/// AEGIS-256 in place; false, and `message` wiped by libsodium, when the tag does not fit.
#[must_use]
pub(crate) fn aegis256_decrypt(
    key: &[u8; KEY],
    nonce: &[u8; AEGIS_NONCE],
    aad: &[u8],
    message: &mut [u8],
    tag: &[u8; AEGIS_TAG],
) -> bool {
    init();
    // SAFETY: as for encryption.
    let status = unsafe {
        ffi::crypto_aead_aegis256_decrypt_detached(
            message.as_mut_ptr(),
            ptr::null_mut(),
            message.as_ptr(),
            message.len() as u64,
            tag.as_ptr(),
            aad.as_ptr(),
            aad.len() as u64,
            nonce.as_ptr(),
            key.as_ptr(),
        )
    };
    status == 0
}

/// BLAKE2b-256 keyed with `key` over the concatenation of `parts` (libsodium's `crypto_generichash`).
pub(crate) fn blake2b(key: &[u8; KEY], parts: &[&[u8]], out: &mut [u8; KEY]) {
    init();
    let mut state = ffi::crypto_generichash_state { opaque: [0; 384] };
    // SAFETY: the state lives on this stack frame, is aligned by its type, initialised before it is updated; key and
    // output lengths are within libsodium's bounds (16 to 64).
    unsafe {
        ffi::crypto_generichash_init(&mut state, key.as_ptr(), KEY, KEY);
        for part in parts {
            ffi::crypto_generichash_update(&mut state, part.as_ptr(), part.len() as u64);
        }
        ffi::crypto_generichash_final(&mut state, out.as_mut_ptr(), KEY);
        // The state holds the key.
        ffi::sodium_memzero((&raw mut state).cast(), size_of_val(&state));
    }
}

/// Writes zeros, whoever reads them.
pub(crate) fn wipe(bytes: &mut [u8]) {
    // SAFETY: the slice is ours to write.
    unsafe { ffi::sodium_memzero(bytes.as_mut_ptr().cast(), bytes.len()) };
}

/// libsodium's own XChaCha20-Poly1305, not in place: for sealing keys, and the function that the fast path is held against.
pub(crate) fn xchacha_encrypt(key: &[u8; KEY], nonce: &[u8; 24], aad: &[u8], message: &[u8]) -> Vec<u8> {
    init();
    let mut out = vec![0; message.len() + 16];
    // SAFETY: `out` has message + tag bytes; nonce and key have their fixed lengths.
    unsafe {
        ffi::crypto_aead_xchacha20poly1305_ietf_encrypt(
            out.as_mut_ptr(),
            ptr::null_mut(),
            message.as_ptr(),
            message.len() as u64,
            aad.as_ptr(),
            aad.len() as u64,
            ptr::null(),
            nonce.as_ptr(),
            key.as_ptr(),
        );
    }
    out
}

/// The reverse; `out` has `sealed.len() - 16` bytes. False, and `out` without meaning, when it does not open.
#[must_use]
pub(crate) fn xchacha_decrypt(key: &[u8; KEY], nonce: &[u8; 24], aad: &[u8], sealed: &[u8], out: &mut [u8]) -> bool {
    init();
    if sealed.len() != out.len() + 16 {
        return false;
    }
    // SAFETY: lengths checked above; libsodium writes `sealed.len() - 16` bytes.
    let status = unsafe {
        ffi::crypto_aead_xchacha20poly1305_ietf_decrypt(
            out.as_mut_ptr(),
            ptr::null_mut(),
            ptr::null_mut(),
            sealed.as_ptr(),
            sealed.len() as u64,
            aad.as_ptr(),
            aad.len() as u64,
            nonce.as_ptr(),
            key.as_ptr(),
        )
    };
    status == 0
}

/// ChaCha20's stream under `key` with nonce 0, from block `block` on.
pub(crate) fn chacha20(key: &[u8; KEY], block: u64, out: &mut [u8]) {
    init();
    out.fill(0);
    // SAFETY: in and out may be the same; both have `out.len()` bytes; the nonce has 8 and the key 32.
    unsafe {
        ffi::crypto_stream_chacha20_xor_ic(
            out.as_mut_ptr(),
            out.as_ptr(),
            out.len() as u64,
            [0; 8].as_ptr(),
            block,
            key.as_ptr(),
        );
    }
}
