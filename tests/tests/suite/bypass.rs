//! Encryption is proven by going around the proxy: what the upstream really got is read as raw bytes.

use oilskin_crypto::{Bound, Cipher, FieldSpec, Message};
use oilskin_tests::keys::Keys;
use oilskin_tests::{Proxy, Upstream};

const DOCUMENT: &str = r#"{ "id":42, "ssn" : "123-45-6789","email":"anna@example.com", "card":{"number":"4111 1111 1111 1111","ok":true},
  "note":"caf\u00e9 \/ 😀", "n": 1.10, "big":123456789012345678901234567890, "deep":[{"email":"b\u0040example.com"},{"email":null}] }"#;

/// The values that must not be seen, in every spelling that could carry them.
fn spellings(value: &str) -> Vec<Vec<u8>> {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
    let percent: String = value.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let escaped: String = value.chars().map(|c| format!("\\u{:04x}", c as u32)).collect();
    let mut all = vec![value.as_bytes().to_vec(), percent.into_bytes(), escaped.into_bytes()];
    // Base64 of a value depends on where it begins: all three alignments, without the ends that neighbours touch.
    for shift in 0..3 {
        let shifted = ["x".repeat(shift).as_str(), value].concat();
        let (start, end) = (if shift == 0 { 0 } else { shift + 1 }, shifted.len() * 4 / 3 - 2);
        for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
            all.push(engine.encode(&shifted).as_bytes()[start..end].to_vec());
        }
    }
    all
}

fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn the_upstream_sees_tokens_and_the_app_reads_the_very_bytes_it_wrote() {
    for cipher in [Cipher::XChaCha20Poly1305, Cipher::Aegis256] {
        let upstream = Upstream::echo();
        let proxy =
            Proxy::before(&upstream).fields("$.ssn, $..email, $.card.number").start_with(Keys::with(cipher, false));
        let answer = proxy.json("PUT", "/customers/42", DOCUMENT);
        assert_eq!(answer.status(), 200, "{}", answer.text());
        assert_eq!(answer.text(), DOCUMENT);
        let sent = upstream.one();
        for value in ["123-45-6789", "anna@example.com", "4111 1111 1111 1111", "b@example.com"] {
            for spelling in spellings(value) {
                assert!(!holds(&sent.raw, &spelling), "{value} as {}", String::from_utf8_lossy(&spelling));
            }
        }
        let stored: serde_json::Value = serde_json::from_slice(&sent.body).unwrap();
        let token = stored["ssn"].as_str().unwrap();
        let handle = proxy.keys.handle("default");
        let mut opened = Vec::new();
        let spec = FieldSpec::new(vec!["ssn".to_owned()]);
        Message::new(&handle, None, 0).decrypt(&spec, token.as_bytes(), Bound::default(), &mut opened).unwrap();
        assert_eq!(opened, b"\"123-45-6789\"");
        for at in ["/email", "/card/number", "/deep/0/email", "/deep/1/email"] {
            assert!(stored.pointer(at).unwrap().as_str().unwrap().starts_with("oil1."), "{at}");
        }
        assert_eq!(stored["note"], "café / 😀");
        assert!(holds(&sent.body, b"\"n\": 1.10, \"big\":123456789012345678901234567890"));
    }
}

#[test]
fn the_same_value_has_another_token_each_time() {
    let upstream = Upstream::echo();
    let proxy = Proxy::before(&upstream).fields("$.ssn").start();
    for _ in 0..20 {
        assert_eq!(proxy.json("POST", "/", r#"{"ssn":"1"}"#).text(), r#"{"ssn":"1"}"#);
    }
    let mut seen: Vec<_> = upstream.seen().into_iter().map(|request| request.text()).collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 20);
}

#[test]
fn what_one_replica_wrote_another_reads() {
    let upstream = Upstream::echo();
    let writer = Proxy::before(&upstream).fields("$.ssn").start();
    writer.json("POST", "/", r#"{"ssn":"1"}"#);
    let stored: &'static str = Box::leak(upstream.one().text().into_boxed_str());
    let store = Upstream::json(stored);
    let keys = Keys::new();
    std::fs::copy(writer.keys.folder().join("root.key"), keys.folder().join("root.key")).unwrap();
    std::fs::copy(writer.keys.folder().join("keys/default.json"), keys.folder().join("keys/default.json")).unwrap();
    let reader = Proxy::before(&store).fields("$.ssn").start_with(keys);
    assert_eq!(reader.json("GET", "/", "").text(), r#"{"ssn":"1"}"#);
    let stranger = Proxy::before(&store).fields("$.ssn").start();
    assert_eq!(stranger.json("GET", "/", "").code(), "decrypt_failed");
}

#[test]
fn a_token_moved_to_another_record_does_not_open() {
    let upstream = Upstream::echo();
    let yaml = |upstream: &Upstream| {
        format!(
            "listeners: [{{name: out, bind: 127.0.0.1:0, direction: egress}}]\nupstreams: {{crm: {{url: {}}}}}\nroutes:\n\
             - name: customers\n  match: {{listener: out, path: \"/customers/{{id}}\"}}\n  upstream: crm\n  fields:\n\
             \x20 - {{select: \"$.ssn\", context: customer.ssn, bind: {{record: [\"@.id\", \"path.id\"]}}}}\n",
            upstream.url()
        )
    };
    let proxy = Proxy::yaml(&yaml(&upstream)).start();
    let written = proxy.json("PUT", "/customers/42", r#"{"ssn":"1","id":42}"#);
    assert_eq!(written.text(), r#"{"ssn":"1","id":42}"#, "the bound value may come after the field");
    let stored = upstream.one().text();
    let moved = stored.replace("42", "43");
    assert_ne!(moved, stored);
    let store = Upstream::json(Box::leak(moved.into_boxed_str()));
    let Proxy { ref keys, .. } = proxy;
    let copy = Keys::new();
    std::fs::copy(keys.folder().join("root.key"), copy.folder().join("root.key")).unwrap();
    std::fs::copy(keys.folder().join("keys/default.json"), copy.folder().join("keys/default.json")).unwrap();
    let reader = Proxy::yaml(&yaml(&store)).start_with(copy);
    assert_eq!(reader.json("GET", "/customers/43", "").code(), "decrypt_failed");
    let other_path = proxy.json("PUT", "/customers/43", r#"{"ssn":"1","id":42}"#);
    assert_eq!((other_path.status(), other_path.code().as_str()), (400, "malformed"));
}
