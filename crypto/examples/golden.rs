//! Prints tests/vectors/golden.json anew. Not for keeping it in step: what that file holds must open for ever, so it is
//! written once for each wire format, and the next format gets a file of its own.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a tool for developers")]

use std::sync::Arc;

use oilskin_crypto::document::{self, NewKeyset, Policy};
use oilskin_crypto::{Bound, Cipher, FieldSpec, FileRoot, KeysetHandle, Message, Slab, Value};
use serde_json::{Map, Value as Json, json};

const VALUES: [(&str, &str); 9] = [
    ("string", r#""Zoë \"\\ 😀\u0001""#),
    ("empty string", r#""""#),
    ("raw string", r#""caf\u00e9 \/""#),
    ("number", "-1.10e+400"),
    ("boolean", "true"),
    ("boolean", "false"),
    ("null", "null"),
    ("array", r#"[1 , {"a":"é"}]"#),
    ("object", r#"{ "a":[] }"#),
];

/// Deterministic, pad, bound.
const MODES: [(bool, Option<usize>, bool); 8] = [
    (false, None, false),
    (false, None, true),
    (false, Some(1), false),
    (false, Some(16), false),
    (false, Some(64), true),
    (true, None, false),
    (true, Some(1), false),
    (true, Some(16), false),
];

fn value(lexeme: &str) -> Value<'_> {
    let bytes = lexeme.as_bytes();
    match bytes[0] {
        b'"' => Value::String(bytes),
        b't' => Value::Boolean(true),
        b'f' => Value::Boolean(false),
        b'n' => Value::Null,
        b'[' => Value::Array(bytes),
        b'{' => Value::Object(bytes),
        _ => Value::Number(bytes),
    }
}

fn tokens(name: &str, handle: &KeysetHandle) -> Vec<Json> {
    let mut all = Vec::new();
    let bound: [(&[u8], &[u8]); 2] = [(b"record", b"42"), (b"region", "é".as_bytes())];
    for (kind, lexeme) in VALUES {
        for (deterministic, pad, binds) in MODES {
            for tenant in [None, Some("acmé")] {
                let spec =
                    FieldSpec::new(vec!["golden.ünit".to_owned()]).deterministic(deterministic).pad(pad).binds(binds);
                let bound = if binds { Bound(&bound) } else { Bound::default() };
                let mut token = Vec::new();
                let mut message = Message::new(handle, tenant.map(Arc::from), 0);
                message.encrypt(&spec, value(lexeme), bound, &mut token).unwrap();
                let mut opened = Vec::new();
                message.decrypt(&spec, &token, bound, &mut opened).unwrap();
                all.push(json!({
                    "keyset": name, "what": kind, "context": "golden.ünit", "tenant": tenant, "deterministic": deterministic,
                    "pad": pad, "bind": if binds { json!({"record": "42", "region": "é"}) } else { json!({}) },
                    "opens_to": String::from_utf8(opened).unwrap(), "token": String::from_utf8(token).unwrap(),
                }));
            }
        }
    }
    all
}

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("root.key");
    let slab = Slab::new(1 << 16, true).unwrap();
    let roots = vec![FileRoot::create(&path, &slab).unwrap()];
    let root: String = std::fs::read(&path).unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
    let mut documents = Map::new();
    let mut lines = Vec::new();
    for (name, cipher, development) in [
        ("xchacha", Cipher::XChaCha20Poly1305, false),
        ("aegis", Cipher::Aegis256, false),
        ("xchacha-dev", Cipher::XChaCha20Poly1305, true),
        ("aegis-dev", Cipher::Aegis256, true),
    ] {
        let new = NewKeyset { name, cipher, development, refresh: 60, now: 1_700_000_000 };
        let made = document::files::create(new, 1, &roots, &slab).unwrap();
        let policy = Policy { development: true, ..Policy::default() };
        let handle = KeysetHandle::of(document::files::open(&made, name, &roots, &slab, policy).unwrap());
        documents.insert(name.to_owned(), String::from_utf8(made).unwrap().into());
        lines.extend(tokens(name, &handle).iter().map(Json::to_string));
    }
    let provenance = "Made by examples/golden.rs of this crate at version 0.1.0, the first with wire format 1, with keys made for \
                      this file alone. Must open for ever; never made anew.";
    println!("{{\n\"provenance\": {},\n\"root_file\": \"{root}\",", Json::from(provenance));
    println!("\"documents\": {},\n\"tokens\": [\n{}\n]\n}}", Json::from(documents), lines.join(",\n"));
}
