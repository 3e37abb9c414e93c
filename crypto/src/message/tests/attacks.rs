//! Rows E3 to E10 of the attack catalogue, as far as one token decides them.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;

/// E3: one answer for all of them.
#[test]
fn every_flipped_bit_every_cut_and_every_extension_is_refused() {
    for cipher in [Cipher::XChaCha20Poly1305, Cipher::Aegis256] {
        let handle = handle(cipher);
        for spec in [spec("ssn"), spec("ssn").deterministic(true), spec("ssn").pad(Some(16))] {
            let token = sealed(&handle, &spec, Value::String(b"\"123-45-6789\""), Bound::default());
            for at in 0..token.len() {
                for bit in 0..8 {
                    let mut bad = token.clone();
                    bad[at] ^= 1 << bit;
                    let mut out = Vec::new();
                    let opened = Message::new(&handle, None, 0).decrypt(&spec, &bad, Bound::default(), &mut out);
                    assert!(matches!(opened, Err(Error::Decrypt(_))), "byte {at} bit {bit}");
                }
                reason(&handle, &spec, &token[..at], Bound::default());
            }
            for more in [&b"A"[..], b"AA", b"AAAA", b"=", b" ", b"\n"] {
                reason(&handle, &spec, &[&token, more].concat(), Bound::default());
            }
        }
    }
}

/// E5.
#[test]
fn a_token_of_another_context_tenant_record_keyset_or_mode_is_refused() {
    let handle = handle(Cipher::XChaCha20Poly1305);
    let here = spec("ssn").binds(true);
    let bound = [(&b"record"[..], &b"42"[..])];
    let value = Value::String(b"\"secret\"");
    let token = sealed(&handle, &here, value, Bound(&bound));
    let other = [(&b"record"[..], &b"43"[..])];
    let renamed = [(&b"rekord"[..], &b"42"[..])];
    assert_eq!(reason(&handle, &spec("email"), &token, Bound(&bound)), DecryptReason::Tag);
    assert_eq!(reason(&handle, &here, &token, Bound(&other)), DecryptReason::Tag);
    assert_eq!(reason(&handle, &here, &token, Bound(&renamed)), DecryptReason::Tag);
    assert_eq!(reason(&handle, &here, &token, Bound::default()), DecryptReason::Tag);
    let foreign = KeysetHandle::of(keyset(Cipher::XChaCha20Poly1305, false, 7));
    assert_eq!(reason(&foreign, &here, &token, Bound(&bound)), DecryptReason::UnknownKey);
    let mut out = Vec::new();
    let tenant = Message::new(&handle, Some("acme".into()), 0).decrypt(&here, &token, Bound(&bound), &mut out);
    assert!(matches!(tenant, Err(Error::Decrypt(DecryptReason::Tag))));
    let lookup = sealed(&handle, &spec("ssn").deterministic(true), value, Bound::default());
    assert_eq!(reason(&handle, &here, &lookup, Bound(&bound)), DecryptReason::WrongLine);
}

/// E4, E10.
#[test]
fn a_key_that_signs_for_another_line_is_refused() {
    // A random token under the lookup key: made here by calling the lookup version a field one.
    let mut swapped = keyset(Cipher::XChaCha20Poly1305, false, 0);
    swapped.versions[1].line = Line::Field;
    swapped.active_field = Some(1);
    let token = sealed(&KeysetHandle::of(swapped), &spec("ssn"), Value::Null, Bound::default());
    assert_eq!(
        reason(&handle(Cipher::XChaCha20Poly1305), &spec("ssn"), &token, Bound::default()),
        DecryptReason::WrongLine
    );
}

fn bytes_of(token: &[u8]) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(&token[5..]).unwrap()
}

fn token_of(bytes: &[u8]) -> Vec<u8> {
    format!("oil1.{}", URL_SAFE_NO_PAD.encode(bytes)).into_bytes()
}

/// E4: algorithm, mode, type and key id are proven by the tag or refused before it.
#[test]
fn no_other_header_opens_a_token() {
    for cipher in [Cipher::XChaCha20Poly1305, Cipher::Aegis256] {
        // Two versions that differ in their keys only, so that an id can point at the wrong one.
        let mut keyset = keyset(cipher, false, 0);
        keyset.versions.extend(super::keyset(cipher, false, 50).versions);
        let other = keyset.versions[2].id;
        let handle = KeysetHandle::of(keyset);
        for spec in [spec("ssn"), spec("ssn").deterministic(true), spec("ssn").pad(Some(16))] {
            let token = sealed(&handle, &spec, Value::String(b"\"1\""), Bound::default());
            let bytes = bytes_of(&token);
            for at in 0..2 {
                for byte in (0..=255).filter(|byte| *byte != bytes[at]) {
                    let mut bad = bytes.clone();
                    bad[at] = byte;
                    reason(&handle, &spec, &token_of(&bad), Bound::default());
                }
            }
            let mut bad = bytes.clone();
            bad[2..10].copy_from_slice(&other[..8]);
            let expected = if spec.deterministic { DecryptReason::WrongLine } else { DecryptReason::Tag };
            assert_eq!(reason(&handle, &spec, &token_of(&bad), Bound::default()), expected);
        }
    }
}

/// E6: neither cipher commits to its key, so the key id does: it selects one key, and no other is ever tried.
#[test]
fn a_token_is_tried_under_the_one_key_that_its_id_names() {
    for cipher in [Cipher::XChaCha20Poly1305, Cipher::Aegis256] {
        let mut both = keyset(cipher, false, 0);
        both.versions.extend(keyset(cipher, false, 50).versions);
        let second = both.versions[2].id;
        let token = sealed(&handle(cipher), &spec("ssn"), Value::Null, Bound::default());
        let both = KeysetHandle::of(both);
        let mut out = Vec::new();
        Message::new(&both, None, 0).decrypt(&spec("ssn"), &token, Bound::default(), &mut out).unwrap();
        // The right key is there, and yet a token that names the other one does not open.
        let mut bytes = bytes_of(&token);
        bytes[2..10].copy_from_slice(&second[..8]);
        assert_eq!(reason(&both, &spec("ssn"), &token_of(&bytes), Bound::default()), DecryptReason::Tag);
    }
}

/// E8: what can be altered in a token of a known key id, or be another's, ends at the same place: after one attempt for each
/// context. `make soak` measures that it takes the same time, too.
#[test]
fn every_token_of_a_known_key_fails_at_its_tag() {
    for cipher in [Cipher::XChaCha20Poly1305, Cipher::Aegis256] {
        let handle = handle(cipher);
        let bound = [(&b"record"[..], &b"42"[..])];
        let here = spec("ssn").binds(true);
        let token = sealed(&handle, &here, Value::String(b"\"123-45-6789\""), Bound(&bound));
        let bytes = bytes_of(&token);
        let altered = |at: usize| {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            token_of(&bad)
        };
        let mut kinds = vec![
            ("nonce's prefix", altered(10)),
            ("nonce's counter", altered(33)),
            ("ciphertext", altered(34)),
            ("tag's start", altered(bytes.len() - cipher.tag())),
            ("tag's end", altered(bytes.len() - 1)),
            ("cut by a byte", token_of(&bytes[..bytes.len() - 1])),
            ("longer by a byte", token_of(&[&bytes[..], b"x"].concat())),
            ("another type", altered(1).clone()),
        ];
        // Type 1 with its lowest bit flipped is opaque, which needs two bytes, as there are.
        kinds.push(("another context", sealed(&handle, &spec("email").binds(true), Value::Null, Bound(&bound))));
        kinds.push(("another record", sealed(&handle, &here, Value::Null, Bound(&[(&b"record"[..], &b"43"[..])]))));
        kinds.push(("no record", sealed(&handle, &here, Value::Null, Bound::default())));
        let mut tenants = Vec::new();
        let mut acme = Message::new(&handle, Some("acme".into()), 0);
        acme.encrypt(&here, Value::Null, Bound(&bound), &mut tenants).unwrap();
        kinds.push(("another tenant", tenants));
        for (what, token) in kinds {
            assert_eq!(reason(&handle, &here, &token, Bound(&bound)), DecryptReason::Tag, "{what}");
        }
    }
}

/// E9.
#[test]
fn padding_hides_type_and_length() {
    let handle = handle(Cipher::XChaCha20Poly1305);
    let spec = spec("a").pad(Some(64));
    let mut lengths = HashSet::new();
    for length in 0..=61 {
        let lexeme = format!("\"{}\"", "x".repeat(length));
        let token = sealed(&handle, &spec, Value::String(lexeme.as_bytes()), Bound::default());
        lengths.insert(token.len());
        let mut out = Vec::new();
        Message::new(&handle, None, 0).decrypt(&spec, &token, Bound::default(), &mut out).unwrap();
        assert_eq!(out, lexeme.as_bytes());
    }
    lengths.insert(sealed(&handle, &spec, Value::Null, Bound::default()).len());
    assert_eq!(lengths.len(), 1);
}

/// E10: deterministic has to be asked for.
#[test]
fn equal_values_give_equal_tokens_in_deterministic_mode_only() {
    let handle = handle(Cipher::Aegis256);
    let spec = spec("a").deterministic(true);
    let token = |text: &str| sealed(&handle, &spec, Value::String(text.as_bytes()), Bound::default());
    assert_eq!(token(r#""caf\u00e9""#), token("\"café\""));
    assert_ne!(token("\"a\""), token("\"b\""));
    let other = self::spec("b").deterministic(true);
    assert_ne!(token("\"a\""), sealed(&handle, &other, Value::String(b"\"a\""), Bound::default()));
    let random = self::spec("a");
    assert_ne!(
        sealed(&handle, &random, Value::String(b"\"a\""), Bound::default()),
        sealed(&handle, &random, Value::String(b"\"a\""), Bound::default())
    );
    let bound = [(&b"x"[..], &b"y"[..])];
    let mut out = Vec::new();
    let refused = Message::new(&handle, None, 0).encrypt(&spec, Value::Null, Bound(&bound), &mut out);
    assert!(matches!(refused, Err(Error::Value(_))));
}

/// E10: the same value under the same context in both modes: other key, other nonce, other authenticated header.
#[test]
fn deterministic_tokens_have_a_key_line_and_a_domain_of_their_own() {
    let handle = handle(Cipher::XChaCha20Poly1305);
    let value = Value::String(b"\"1\"");
    let random = bytes_of(&sealed(&handle, &spec("a"), value, Bound::default()));
    let equal = bytes_of(&sealed(&handle, &spec("a").deterministic(true), value, Bound::default()));
    assert_ne!(random[2..10], equal[2..10], "another key version");
    assert_eq!((random[0], equal[0]), (0x01, 0x11));
    for (bytes, bit) in [(random, 0x10), (equal, 0x10)] {
        let mut bad = bytes.clone();
        bad[0] ^= bit;
        assert_eq!(reason(&handle, &spec("a"), &token_of(&bad), Bound::default()), DecryptReason::WrongLine);
    }
    let keyset = handle.keyset().unwrap();
    let keys: HashSet<[u8; 32]> =
        [derive::Purpose::Random, derive::Purpose::Deterministic, derive::Purpose::SyntheticNonce]
            .map(|purpose| *keyset.subkey(&keyset.versions[0], purpose, b"", b"a").unwrap().bytes())
            .into();
    assert_eq!(keys.len(), 3, "even one data key gives each purpose its own");
}
