//! Tokens that an earlier version of this code wrote: they open for ever.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use oilskin_crypto::document::{self, Policy};
use oilskin_crypto::{Bound, FieldSpec, FileRoot, KeysetHandle, Message, Slab};
use serde_json::Value as Json;

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn keysets(golden: &Json) -> BTreeMap<String, KeysetHandle> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("root.key");
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap();
    file.write_all(&hex(golden["root_file"].as_str().unwrap())).unwrap();
    let slab = Slab::new(1 << 16, true).unwrap();
    let roots = vec![FileRoot::read(&path, &slab).unwrap()];
    let policy = Policy { development: true, ..Policy::default() };
    let open = |(name, text): (&String, &Json)| {
        let keyset = document::files::open(text.as_str().unwrap().as_bytes(), name, &roots, &slab, policy).unwrap();
        (name.clone(), KeysetHandle::of(keyset))
    };
    golden["documents"].as_object().unwrap().iter().map(open).collect()
}

/// E16, and the promise of the wire format: both ciphers, development marks, every type, pad, mode, binding and tenant.
#[test]
fn every_golden_token_opens_as_it_did_when_it_was_written() {
    let golden: Json = serde_json::from_str(include_str!("vectors/golden.json")).unwrap();
    let keysets = keysets(&golden);
    let tokens = golden["tokens"].as_array().unwrap();
    assert_eq!((keysets.len(), tokens.len()), (4, 576));
    let mut headers = HashSet::new();
    for token in tokens {
        let handle = &keysets[token["keyset"].as_str().unwrap()];
        let bind = token["bind"].as_object().unwrap();
        let bound: Vec<(&[u8], &[u8])> =
            bind.iter().map(|(name, value)| (name.as_bytes(), value.as_str().unwrap().as_bytes())).collect();
        // As a rule that writes says nothing of it: opening follows the token.
        let spec = FieldSpec::new(vec![token["context"].as_str().unwrap().to_owned()]).binds(!bound.is_empty());
        let tenant: Option<Arc<str>> = token["tenant"].as_str().map(Arc::from);
        let text = token["token"].as_str().unwrap();
        let mut out = Vec::new();
        Message::new(handle, tenant, 0).decrypt(&spec, text.as_bytes(), Bound(&bound), &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), token["opens_to"].as_str().unwrap(), "{}", token["what"]);
        // alg and the type's upper bits.
        headers.insert(&text[5..8]);
        let mut elsewhere = Vec::new();
        let stranger = Message::new(handle, Some("stranger".into()), 0).decrypt(
            &spec,
            text.as_bytes(),
            Bound(&bound),
            &mut elsewhere,
        );
        assert!(stranger.is_err(), "of another tenant");
    }
    assert!(headers.len() >= 4 * 2 * 6, "every algorithm, mode and type: {}", headers.len());
}
