//! Vectors, round trips and refusals.

mod attacks;
mod nonces;
mod salamander;
mod vectors;

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;
use crate::document::{self, Line};
use crate::header::{Algorithm, Cipher, Type};
use crate::keyset::{DEFAULT_MAX_USES, Version};
use crate::slab::{Key, Slab};
use crate::{derive, sodium};

const VECTORS: &str = include_str!("../../tests/vectors/tokens.json");

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// A keyset with data key 00 01 … 1f on both lines, which no production document can hold.
fn keyset(cipher: Cipher, development: bool, first: u8) -> Keyset {
    let slab = Slab::new(1 << 16, true).unwrap();
    let algorithm = Algorithm { cipher, development };
    let version = |line, start: u8| {
        let key = Key::new(&slab, |out| out.iter_mut().zip(start..).for_each(|(byte, n)| *byte = n)).unwrap();
        let id = derive::key_id(key.bytes(), algorithm.byte());
        Version { id, algorithm, line, state: document::State::Active, key: Some(key), usage: Arc::default() }
    };
    Keyset {
        name: "pii".to_owned(),
        epoch: 1,
        development,
        versions: vec![version(Line::Field, first), version(Line::Lookup, first + 100)],
        active_field: Some(0),
        active_lookup: Some(1),
        slab: Arc::clone(&slab),
        subkeys: Default::default(),
        max_uses: DEFAULT_MAX_USES,
    }
}

/// The vectors write with one key on either line.
fn on_one_line(cipher: Cipher, development: bool, line: Line) -> KeysetHandle {
    let mut keyset = keyset(cipher, development, 0);
    keyset.versions.truncate(1);
    keyset.versions[0].line = line;
    keyset.active_field = (line == Line::Field).then_some(0);
    keyset.active_lookup = (line == Line::Lookup).then_some(0);
    KeysetHandle::of(keyset)
}

fn handle(cipher: Cipher) -> KeysetHandle {
    KeysetHandle::of(keyset(cipher, false, 0))
}

fn spec(context: &str) -> FieldSpec {
    FieldSpec::new(vec![context.to_owned()])
}

struct Fixed;

impl Random for Fixed {
    fn fill(&self, out: &mut [u8]) -> Result<(), Error> {
        out.iter_mut().zip(0x40..).for_each(|(byte, n)| *byte = n);
        Ok(())
    }
}

fn lexeme(kind: u64, plain: &[u8]) -> Vec<u8> {
    match kind {
        1 | 2 => [b"\"", plain, b"\""].concat(),
        4 => {
            if plain == [1] {
                b"true".to_vec()
            } else {
                b"false".to_vec()
            }
        }
        5 => b"null".to_vec(),
        _ => plain.to_vec(),
    }
}

fn value(kind: u64, lexeme: &[u8]) -> Value<'_> {
    match kind {
        1 | 2 => Value::String(lexeme),
        3 => Value::Number(lexeme),
        4 => Value::Boolean(lexeme == b"true"),
        _ => Value::Null,
    }
}

#[test]
fn the_vectors_hold_byte_for_byte() {
    let vectors: Json = serde_json::from_str(VECTORS).unwrap();
    let tokens = vectors["tokens"].as_array().unwrap();
    assert_eq!(tokens.len(), 9);
    for vector in tokens {
        let what = vector["what"].as_str().unwrap();
        let alg = vector["alg"].as_u64().unwrap() as u8;
        let deterministic = alg & 0x10 != 0;
        let algorithm = Algorithm::from_byte(alg & 0x8F).unwrap();
        let line = if deterministic { Line::Lookup } else { Line::Field };
        let handle = on_one_line(algorithm.cipher, algorithm.development, line);
        let mut bound: Vec<_> = vector["bind"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.as_str().unwrap().as_bytes()))
            .collect();
        bound.sort_unstable();
        let tenant = vector["tenant"].as_str().map(Arc::from);
        let spec = spec(vector["context"].as_str().unwrap())
            .deterministic(deterministic)
            .unlinkable(true)
            .pad(vector["pad"].as_u64().map(|pad| pad as usize));
        let kind = vector["type"].as_u64().unwrap();
        let lexeme = lexeme(kind, &hex(vector["value_hex"].as_str().unwrap()));
        let mut message = Message::new(&handle, tenant.clone(), 0);
        message.random = &Fixed;
        let mut token = Vec::new();
        message.encrypt(&spec, value(kind, &lexeme), Bound(&bound), &mut token).unwrap();
        assert_eq!(std::str::from_utf8(&token).unwrap(), vector["token"].as_str().unwrap(), "{what}");
        let mut opened = Vec::new();
        Message::new(&handle, tenant, 0).decrypt(&spec, &token, Bound(&bound), &mut opened).unwrap();
        assert_eq!(opened, lexeme, "{what}");
    }
}

#[test]
fn the_key_ids_and_indexes_of_the_vectors_hold() {
    let vectors: Json = serde_json::from_str(VECTORS).unwrap();
    let key: [u8; 32] = hex(vectors["data_key"].as_str().unwrap()).try_into().unwrap();
    for (alg, id) in vectors["key_ids"].as_object().unwrap() {
        let alg = u8::from_str_radix(alg, 16).unwrap();
        assert_eq!(derive::key_id(&key, alg).to_vec(), hex(id.as_str().unwrap()));
    }
    let handle = on_one_line(Cipher::XChaCha20Poly1305, false, Line::Lookup);
    for vector in vectors["index"].as_array().unwrap() {
        let digits = vector["norm"].as_str() == Some("digits");
        let normalisers = crate::Normalisers { digits, ..Default::default() };
        let bits = vector["bits"].as_u64().unwrap() as usize;
        let index = crate::index(&handle, &spec("ssn"), None, "123-45-6789", bits, normalisers).unwrap();
        assert_eq!(index, vector["index"].as_str().unwrap());
    }
}

fn sealed(handle: &KeysetHandle, spec: &FieldSpec, value: Value<'_>, bound: Bound<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    Message::new(handle, None, 0).encrypt(spec, value, bound, &mut out).unwrap();
    out
}

fn reason(handle: &KeysetHandle, spec: &FieldSpec, token: &[u8], bound: Bound<'_>) -> DecryptReason {
    let mut out = b"before".to_vec();
    match Message::new(handle, None, 0).decrypt(spec, token, bound, &mut out) {
        Err(Error::Decrypt(reason)) => {
            assert_eq!(out, b"before", "nothing of what does not open comes out");
            reason
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_destroyed_version_and_development_tokens_are_refused() {
    let token = sealed(&handle(Cipher::Aegis256), &spec("ssn"), Value::Null, Bound::default());
    let mut destroyed = keyset(Cipher::Aegis256, false, 0);
    destroyed.versions[0].key = None;
    let destroyed = KeysetHandle::of(destroyed);
    assert_eq!(reason(&destroyed, &spec("ssn"), &token, Bound::default()), DecryptReason::DestroyedKey);
    let mut out = Vec::new();
    let write = Message::new(&destroyed, None, 0).encrypt(&spec("ssn"), Value::Null, Bound::default(), &mut out);
    assert!(matches!(write, Err(Error::KeyUnavailable(_) | Error::Decrypt(_))), "{write:?}");
    let development = KeysetHandle::of(keyset(Cipher::Aegis256, true, 0));
    let token = sealed(&development, &spec("ssn"), Value::Null, Bound::default());
    assert_eq!(reason(&handle(Cipher::Aegis256), &spec("ssn"), &token, Bound::default()), DecryptReason::Development);
}

#[test]
fn renamed_contexts_read_old_tokens_and_say_so() {
    let handle = handle(Cipher::XChaCha20Poly1305);
    let old = sealed(&handle, &spec("ssn"), Value::Number(b"1.10"), Bound::default());
    let both = FieldSpec::new(vec!["customer.ssn".to_owned(), "ssn".to_owned()]);
    let mut out = Vec::new();
    let mut message = Message::new(&handle, None, 0);
    let opened = message.decrypt(&both, &old, Bound::default(), &mut out).unwrap();
    assert_eq!((opened.kind, opened.renamed, out.as_slice()), (Type::Number, true, &b"1.10"[..]));
    let new = sealed(&handle, &both, Value::Number(b"1.10"), Bound::default());
    assert!(!message.decrypt(&both, &new, Bound::default(), &mut out).unwrap().renamed);
    assert_eq!(reason(&handle, &spec("ssn"), &new, Bound::default()), DecryptReason::Tag);
}

#[test]
fn keys_taken_away_stop_a_message_in_its_middle() {
    let handle = handle(Cipher::XChaCha20Poly1305);
    let mut message = Message::new(&handle, None, 0);
    let mut out = Vec::new();
    message.encrypt(&spec("a"), Value::Null, Bound::default(), &mut out).unwrap();
    handle.store(State::Unavailable("denied"));
    let refused = message.encrypt(&spec("a"), Value::Null, Bound::default(), &mut out);
    assert!(matches!(refused, Err(Error::KeyUnavailable(name)) if name == "pii"));
}

#[test]
fn what_only_resembles_a_token_is_told() {
    for text in ["oil1.x", " \t\r\nOIL2.", "oil1.", "Oil99.abc"] {
        assert!(looks_like_token(text.as_bytes()), "{text}");
    }
    for text in ["", "oil", "oil.", "oilX.", "xoil1.", "oil1", "\u{a0}oil1."] {
        assert!(!looks_like_token(text.as_bytes()), "{text}");
    }
    let handle = handle(Cipher::XChaCha20Poly1305);
    assert_eq!(reason(&handle, &spec("a"), b"plain", Bound::default()), DecryptReason::PlaintextRefused);
    for text in ["OIL1.AQER", " oil1.AQER", "oil2.AQER", "oil1.AQER"] {
        assert_eq!(reason(&handle, &spec("a"), text.as_bytes(), Bound::default()), DecryptReason::Malformed, "{text}");
    }
}

#[test]
fn a_plaintext_that_looks_like_a_token_is_encrypted_again() {
    let handle = handle(Cipher::XChaCha20Poly1305);
    let once = sealed(&handle, &spec("a"), Value::String(b"\"x\""), Bound::default());
    let lexeme = [b"\"", once.as_slice(), b"\""].concat();
    let twice = sealed(&handle, &spec("a"), Value::String(&lexeme), Bound::default());
    let mut out = Vec::new();
    Message::new(&handle, None, 0).decrypt(&spec("a"), &twice, Bound::default(), &mut out).unwrap();
    assert_eq!(out, lexeme);
}

#[test]
fn the_longest_token_is_bounded_both_ways() {
    let handle = handle(Cipher::XChaCha20Poly1305);
    let token = sealed(&handle, &spec("a"), Value::String(b"\"abc\""), Bound::default());
    let fits = spec("a").max_token(token.len());
    assert_eq!(sealed(&handle, &fits, Value::String(b"\"abc\""), Bound::default()).len(), token.len());
    let mut out = Vec::new();
    let longer = Message::new(&handle, None, 0).encrypt(&fits, Value::String(b"\"abcd\""), Bound::default(), &mut out);
    assert!(matches!(longer, Err(Error::TooLarge)));
    let short = spec("a").max_token(token.len() - 1);
    assert_eq!(reason(&handle, &short, &token, Bound::default()), DecryptReason::TooLong);
}

/// Opens what only a holder of the key could have written.
fn forged(kind: u8, plain: &[u8]) -> Result<Vec<u8>, Error> {
    let handle = handle(Cipher::XChaCha20Poly1305);
    let keyset = handle.keyset().unwrap();
    let version = &keyset.versions[0];
    let subkey = keyset.subkey(version, derive::Purpose::Random, b"", b"a").unwrap();
    let mut aad = super::place::Aad::new(1, version.id.first_chunk().unwrap(), b"", b"a");
    let sealed = sodium::xchacha_encrypt(subkey.bytes(), &[9; 24], aad.with(kind, Bound::default()), plain);
    let bytes = [&[1, kind], &version.id[..8], &[9; 24], sealed.as_slice()].concat();
    use base64::Engine as _;
    let token = format!("oil1.{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes));
    let mut out = Vec::new();
    Message::new(&handle, None, 0).decrypt(&spec("a"), token.as_bytes(), Bound::default(), &mut out).map(|_| out)
}

#[test]
fn an_opened_value_cannot_inject_json() {
    for (kind, plain) in [
        (1, &b"\xff"[..]),
        (2, b"a\",\"admin\":true,\"b\":\""),
        (2, b"\\ud800"),
        (2, b"\n"),
        (3, b"1,\"admin\":true"),
        (3, b""),
        (3, b"01"),
        (4, b"\x02"),
        (6, b"[1],[2]"),
        (6, b"{}"),
        (6, b" []"),
        (7, b"{}}"),
        (7, b"{\"a\":1} "),
        (0, b"\x00\x80"),
        (0, b"\x01ab"),
        (0, b"\x00\x00"),
        (0, b"\x03x\x80"),
    ] {
        let opened = forged(kind, plain);
        assert!(matches!(opened, Err(Error::Decrypt(DecryptReason::Content))), "{kind} {plain:?} {opened:?}");
    }
    assert_eq!(forged(1, b"a\",\"admin\":true").unwrap(), b"\"a\\\",\\\"admin\\\":true\"");
    assert_eq!(forged(2, b"canonical").unwrap(), b"\"canonical\"");
    assert_eq!(forged(0, b"\x01ab\x80\x00").unwrap(), b"\"ab\"");
}

#[test]
fn outside_json_only_scalars_come_out() {
    let handle = handle(Cipher::XChaCha20Poly1305);
    let open = |value, header| {
        let token = sealed(&handle, &spec("a"), value, Bound::default());
        let mut out = Vec::new();
        Message::new(&handle, None, 0)
            .decrypt_text(&spec("a"), &token, header, &mut out)
            .map(|_| String::from_utf8(out).unwrap())
    };
    assert_eq!(open(Value::Text("é\""), true).unwrap(), "é\"");
    assert_eq!(open(Value::String(br#""caf\u00e9""#), true).unwrap(), "café");
    assert_eq!(open(Value::Number(b"1.10"), true).unwrap(), "1.10");
    assert_eq!(open(Value::Boolean(true), true).unwrap(), "true");
    assert_eq!(open(Value::Text("a\nb"), false).unwrap(), "a\nb");
    for (value, header) in [
        (Value::Null, false),
        (Value::Array(b"[]"), false),
        (Value::Object(b"{}"), false),
        (Value::Text("a\r\nb"), true),
        (Value::Text("a\0"), true),
    ] {
        assert!(open(value, header).is_err());
    }
}

proptest! {
    #[test]
    fn the_fast_path_is_libsodium_s_own_function(
        key in any::<[u8; 32]>(), nonce in any::<[u8; 24]>(), aad in prop::collection::vec(any::<u8>(), 0..200),
        plain in prop::collection::vec(any::<u8>(), 0..3000),
    ) {
        let slab = Slab::new(4096, true).unwrap();
        let subkey = Key::new(&slab, |out| *out = key).unwrap();
        let derived = super::place::derived(&subkey, nonce.first_chunk().unwrap()).unwrap();
        let mut fast = plain.clone();
        let tag = crate::aead::seal_chacha(&derived, &nonce, &aad, &mut fast).unwrap();
        fast.extend_from_slice(&tag);
        prop_assert_eq!(fast, sodium::xchacha_encrypt(&key, &nonce, &aad, &plain));
    }

    #[test]
    fn every_value_comes_back_as_it_went(
        text in ".*", body in r#"([a-zé/]|\\[\\/bfnrt"]|\\u00[0-9a-fA-F]{2}|\\u[0-9a-cA-C][0-9a-fA-F]{3})*"#,
        number in "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,9})?([eE][+-]?[0-9]{1,3})?",
        tenant in prop::option::of("[a-z]{1,20}"), pad in prop::option::of(1_usize..300), aegis: bool,
        bound in prop::collection::btree_map("[a-z]{1,10}", "[0-9a-z]{1,40}", 0..4),
    ) {
        let handle = handle(if aegis { Cipher::Aegis256 } else { Cipher::XChaCha20Poly1305 });
        let bound: Vec<_> = bound.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        let spec = spec("ctx").pad(pad).binds(!bound.is_empty());
        let quoted = format!("\"{body}\"");
        let array = format!("[{number}, \"{body}\" , null]");
        let canonical = serde_json::to_string(&text).unwrap();
        let values = [
            (Value::String(canonical.as_bytes()), canonical.as_str()), (Value::String(quoted.as_bytes()), &quoted),
            (Value::Number(number.as_bytes()), &number), (Value::Boolean(true), "true"), (Value::Boolean(false), "false"),
            (Value::Null, "null"), (Value::Array(array.as_bytes()), &array), (Value::Object(b"{ }"), "{ }"),
        ];
        let tenant: Option<Arc<str>> = tenant.map(Arc::from);
        let mut writer = Message::new(&handle, tenant.clone(), 0);
        let mut reader = Message::new(&handle, tenant, 1);
        for (value, lexeme) in values {
            let mut token = Vec::new();
            writer.encrypt(&spec, value, Bound(&bound), &mut token).unwrap();
            let mut out = Vec::new();
            reader.decrypt(&spec, &token, Bound(&bound), &mut out).unwrap();
            prop_assert_eq!(std::str::from_utf8(&out).unwrap(), lexeme);
        }
    }
}

/// E2: exactly at the limit, and never a message more.
#[test]
fn a_version_writes_as_many_messages_as_it_may_and_still_reads() {
    let mut limited = keyset(Cipher::XChaCha20Poly1305, false, 0);
    limited.max_uses = 3;
    let handle = KeysetHandle::of(limited);
    let spec = spec("a");
    let mut token = Vec::new();
    for _ in 0..3 {
        let mut message = Message::new(&handle, None, 0);
        for _ in 0..5 {
            token.clear();
            message.encrypt(&spec, Value::Number(b"1"), Bound::default(), &mut token).unwrap();
        }
    }
    let mut message = Message::new(&handle, None, 0);
    for _ in 0..2 {
        let refused = message.encrypt(&spec, Value::Number(b"1"), Bound::default(), &mut Vec::new());
        assert!(matches!(refused, Err(Error::KeyUnavailable(_))));
    }
    assert!(message.decrypt(&spec, &token, Bound::default(), &mut Vec::new()).is_ok());
    let counted: Vec<_> = handle.held().unwrap().versions().map(|version| (version.sealed, version.opened)).collect();
    assert_eq!(counted, [(3, 1), (0, 0)]);
}

#[test]
fn keys_that_only_read_do_not_write_and_a_retired_version_is_told() {
    let mut retired = keyset(Cipher::XChaCha20Poly1305, false, 0);
    let handle = handle(Cipher::XChaCha20Poly1305);
    let spec = spec("a");
    let mut message = Message::new(&handle, None, 0);
    let mut token = Vec::new();
    message.encrypt(&spec, Value::Null, Bound::default(), &mut token).unwrap();
    assert!(!message.decrypt(&spec, &token, Bound::default(), &mut Vec::new()).unwrap().stale);
    retired.versions[0].state = document::State::Retired;
    handle.store(State::ReadOnly(Arc::new(retired)));
    assert!(handle.gives(false) && !handle.gives(true));
    assert!(message.encrypt(&spec, Value::Null, Bound::default(), &mut token).is_err());
    assert!(message.decrypt(&spec, &token, Bound::default(), &mut Vec::new()).unwrap().stale);
    handle.store(State::Unavailable("gone"));
    assert!(message.decrypt(&spec, &token, Bound::default(), &mut Vec::new()).is_err());
}
