//! E6: an "invisible salamander" made for real. XChaCha20-Poly1305 does not commit to its key: who knows two keys makes one
//! ciphertext that opens under both (Dodis, Grubbs, Ristenpart, Woodage 2018). Key ids are what stops it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;
use crate::message::place::Aad;

/// A number below 2^130 - 5: its low 128 bits and the two above.
type Field = (u128, u128);

const P: Field = (u128::MAX - 4, 3);

fn reduced((low, high): Field) -> Field {
    if (high, low) < (P.1, P.0) {
        return (low, high);
    }
    let (low, borrow) = low.overflowing_sub(P.0);
    (low, high - P.1 - u128::from(borrow))
}

fn add(a: Field, b: Field) -> Field {
    let (low, carry) = a.0.overflowing_add(b.0);
    reduced((low, a.1 + b.1 + u128::from(carry)))
}

fn sub(a: Field, b: Field) -> Field {
    let (low, borrow) = P.0.overflowing_sub(b.0);
    add(a, reduced((low, P.1 - b.1 - u128::from(borrow))))
}

/// Double and add: slow and short.
fn mul(a: Field, b: Field) -> Field {
    let bit = |at: u32| if at < 128 { b.0 >> at & 1 } else { b.1 >> (at - 128) & 1 };
    (0..130).rev().fold((0, 0), |sum, at| {
        let twice = add(sum, sum);
        if bit(at) == 1 { add(twice, a) } else { twice }
    })
}

fn inverse(a: Field) -> Field {
    // a^(p - 2), whose bits are all ones but for 2^130 - 7 = …11001.
    (0..130).rev().fold((1, 0), |power, at| {
        let square = mul(power, power);
        if matches!(at, 1 | 2) { square } else { mul(square, a) }
    })
}

/// Poly1305's two halves of a one-time key: the first block of ChaCha20 with nonce 0.
fn one_time(subkey: &Key, prefix: &[u8; 16]) -> (Field, u128) {
    let derived = crate::message::place::derived(subkey, prefix).unwrap();
    let mut block = [0; 32];
    sodium::chacha20(derived.bytes(), 0, &mut block);
    let half = |at: usize| u128::from_le_bytes(*block[at..].first_chunk().unwrap());
    ((half(0) & 0x0fff_fffc_0fff_fffc_0fff_fffc_0fff_ffff, 0), half(16))
}

/// What Poly1305 reads behind an AEAD, in blocks: each with a one above its 16 bytes.
fn blocks(aad: &[u8], text: &[u8]) -> Vec<Field> {
    let padded = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        bytes.resize(bytes.len().next_multiple_of(16), 0);
        bytes
    };
    let lengths = [(aad.len() as u64).to_le_bytes(), (text.len() as u64).to_le_bytes()].concat();
    let all = [padded(aad), padded(text), lengths].concat();
    all.as_chunks::<16>().0.iter().map(|block| (u128::from_le_bytes(*block), 1)).collect()
}

fn horner(blocks: &[Field], r: Field) -> Field {
    blocks.iter().fold((0, 0), |sum, block| mul(add(sum, *block), r))
}

/// Two blocks that open under both keys with this authenticated data, and their tag.
fn collide(keys: [&Key; 2], nonce: &[u8; 24], aad: &[u8]) -> Vec<u8> {
    let [(r1, s1), (r2, s2)] = keys.map(|key| one_time(key, nonce.first_chunk().unwrap()));
    for tried in 0_u128..200 {
        let mut text = [tried.to_le_bytes(), [0; 16]].concat();
        // The second block is the unknown: it is multiplied by r twice.
        let mut known = blocks(aad, &text);
        let at = known.len() - 2;
        known[at] = (0, 0);
        let (k1, k2) = (horner(&known, r1), horner(&known, r2));
        let slope = sub(mul(r1, r1), mul(r2, r2));
        // The sums must differ by what the second halves of the keys differ by, up to multiples of 2^128.
        for wraps in 0..4 {
            let x = mul(sub(add(sub((s2, 0), (s1, 0)), sub(k2, k1)), sub((0, 0), (0, wraps))), inverse(slope));
            if x.1 != 1 {
                continue;
            }
            text[16..].copy_from_slice(&x.0.to_le_bytes());
            let whole = blocks(aad, &text);
            let tag = |r, s: u128| horner(&whole, r).0.wrapping_add(s);
            if tag(r1, s1) == tag(r2, s2) {
                return [text, tag(r1, s1).to_le_bytes().to_vec()].concat();
            }
        }
    }
    panic!("no ciphertext found");
}

#[test]
fn a_ciphertext_of_two_keys_opens_under_the_one_that_its_id_names() {
    let [first, second] = [0, 50].map(|start| keyset(Cipher::XChaCha20Poly1305, false, start));
    let subkey = |keyset: &Keyset| keyset.subkey(&keyset.versions[0], derive::Purpose::Random, b"", b"ssn").unwrap();
    let keys = [subkey(&first), subkey(&second)];
    let mut nonce = [9; 24];
    // With the counter at 0 the inner nonce is 0, which our stream function has.
    nonce[16..].fill(0);
    let id = first.versions[0].id;
    let mut aad = Aad::new(1, id.first_chunk().unwrap(), b"", b"ssn");
    let aad = aad.with(1, Bound::default()).to_vec();
    let sealed = collide([&keys[0], &keys[1]], &nonce, &aad);
    for key in &keys {
        assert!(
            sodium::xchacha_decrypt(key.bytes(), &nonce, &aad, &sealed, &mut [0; 32]),
            "the cipher alone takes both"
        );
    }
    let token = |id: &[u8]| {
        let bytes = [&[1, 1][..], &id[..8], &nonce, &sealed].concat();
        format!("oil1.{}", URL_SAFE_NO_PAD.encode(bytes)).into_bytes()
    };
    let other = second.versions[0].id;
    let (first, second) = (KeysetHandle::of(first), KeysetHandle::of(second));
    // Its tag is right here, and what comes out is no UTF-8.
    assert_eq!(reason(&first, &spec("ssn"), &token(&id), Bound::default()), DecryptReason::Content);
    assert_eq!(reason(&second, &spec("ssn"), &token(&id), Bound::default()), DecryptReason::UnknownKey);
    assert_eq!(reason(&second, &spec("ssn"), &token(&other), Bound::default()), DecryptReason::Tag);
}
