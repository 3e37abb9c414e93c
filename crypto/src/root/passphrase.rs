//! A root key in a file under a passphrase: whoever steals the file alone has to guess.
//!
//! `oil1root` ‖ passes(4) ‖ memory in KiB(4) ‖ salt(16) ‖ nonce(24) ‖ ciphertext ‖ tag, numbers big-endian. The key is Argon2id 1.3 of
//! the passphrase's bytes as they are (no Unicode form is chosen), the AEAD XChaCha20-Poly1305, its additional data all before the nonce.

use std::sync::Arc;

use crate::Error;
use crate::document::{SEALED, open_sealed, seal};
use crate::nonce::{Random, System};
use crate::slab::{Key, Slab};
use crate::sodium::argon2id;

const MAGIC: &[u8; 8] = b"oil1root";

/// Bytes before the nonce.
const HEAD: usize = 8 + 4 + 4 + 16;

/// Bytes of the whole.
pub(super) const WRAPPED: usize = HEAD + SEALED;

/// Argon2id as OWASP's cheat sheet has it at least (2 passes over 19 MiB), and more of both: about 0.1 s, once a start.
const PASSES: u32 = 3;
const MEMORY_KIB: u32 = 64 << 10;

/// A file that asks for more than this is not ours.
const MAX_PASSES: u32 = 64;
const MAX_MEMORY_KIB: u32 = 1 << 20;

/// Wraps a root key.
pub(super) fn wrap(root: &Key, passphrase: &[u8]) -> Result<Vec<u8>, Error> {
    let mut whole = Vec::with_capacity(WRAPPED);
    whole.extend_from_slice(MAGIC);
    whole.extend_from_slice(&PASSES.to_be_bytes());
    whole.extend_from_slice(&MEMORY_KIB.to_be_bytes());
    let mut salt = [0; 16];
    System.fill(&mut salt)?;
    whole.extend_from_slice(&salt);
    let key = stretched(passphrase, &salt, PASSES, MEMORY_KIB, root.slab())?.ok_or(Error::Random)?;
    let wrapped = seal(key.bytes(), root.bytes(), &whole, &System)?;
    whole.extend_from_slice(&wrapped);
    Ok(whole)
}

/// Unwraps it; what is wrong is a sentence.
pub(super) fn unwrap(whole: &[u8], passphrase: &[u8], slab: &Arc<Slab>) -> Result<Result<Key, &'static str>, Error> {
    let Some((head, wrapped)) = whole.split_first_chunk::<HEAD>().filter(|_| whole.len() == WRAPPED) else {
        return Ok(Err("it is cut short"));
    };
    let (magic, rest) = head.split_first_chunk::<8>().unwrap_or((MAGIC, &[]));
    let (passes, rest) = number(rest);
    let (memory, salt) = number(rest);
    let Some(salt) = salt.first_chunk().filter(|_| magic == MAGIC) else { return Ok(Err("it is no root key")) };
    if passes == 0 || passes > MAX_PASSES || !(8..=MAX_MEMORY_KIB).contains(&memory) {
        return Ok(Err("it asks for more work than a root key's file does"));
    }
    let Some(key) = stretched(passphrase, salt, passes, memory, slab)? else {
        return Ok(Err("there is not enough memory to try the passphrase (64 MiB)"));
    };
    match open_sealed(key.bytes(), wrapped, head, slab) {
        Ok(root) => root.map(Ok),
        Err(()) => Ok(Err("the passphrase does not open it")),
    }
}

fn number(bytes: &[u8]) -> (u32, &[u8]) {
    bytes.split_first_chunk().map_or((0, &[]), |(number, rest)| (u32::from_be_bytes(*number), rest))
}

fn stretched(
    passphrase: &[u8],
    salt: &[u8; 16],
    passes: u32,
    memory_kib: u32,
    slab: &Arc<Slab>,
) -> Result<Option<Key>, Error> {
    let mut done = false;
    let key = Key::new(slab, |out| done = argon2id(out, passphrase, salt, passes, memory_kib))?;
    Ok(done.then_some(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_key_comes_back_by_its_passphrase_alone() {
        let slab = Slab::new(4096, true).unwrap();
        let root = Key::new(&slab, |out| out.fill(7)).unwrap();
        let whole = wrap(&root, "Pässwörd 1".as_bytes()).unwrap();
        assert_eq!(whole.len(), 104);
        assert_eq!(unwrap(&whole, "Pässwörd 1".as_bytes(), &slab).unwrap().ok().unwrap().bytes(), root.bytes());
        assert_eq!(unwrap(&whole, b"Passwort 1", &slab).unwrap().err(), Some("the passphrase does not open it"));
        for (at, said) in
            [(0, "no root key"), (8, "more work"), (12, "more work"), (20, "does not open"), (40, "does not open")]
        {
            let mut altered = whole.clone();
            altered[at] ^= 0x80;
            assert!(unwrap(&altered, "Pässwörd 1".as_bytes(), &slab).unwrap().err().unwrap().contains(said), "{at}");
        }
        assert_eq!(unwrap(&whole[..103], b"x", &slab).unwrap().err(), Some("it is cut short"));
    }

    /// From `argon2` of Debian (0~20171227): `echo -n oilskin | argon2 0123456789abcdef -id -t 3 -k 1024 -p 1 -r`.
    #[test]
    fn the_key_is_argon2id_of_the_passphrase() {
        let mut key = [0; 32];
        assert!(argon2id(&mut key, b"oilskin", b"0123456789abcdef", 3, 1024));
        let hex: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, EXPECTED);
    }

    const EXPECTED: &str = "a8218ea211a3a7dd2700fb57a4750f26e4a7883abe52349cfabffd70ed103962";
}
