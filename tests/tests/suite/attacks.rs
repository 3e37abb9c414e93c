//! Rows E5, E8, E9 and E10 of the attack catalogue, seen from outside: over HTTP, by who can write the store or reads lengths.

use oilskin_crypto::{Bound, Cipher, FieldSpec, Message, Value};
use oilskin_tests::keys::Keys;
use oilskin_tests::upstream::respond;
use oilskin_tests::{Proxy, Upstream};
use serde_json::Value as Json;

fn token(keys: &Keys, context: &str, tenant: Option<&str>, bind: &[(&[u8], &[u8])], deterministic: bool) -> String {
    let spec = FieldSpec::new(vec![context.to_owned()]).deterministic(deterministic);
    let mut out = Vec::new();
    let mut message = Message::new(&keys.handle("default"), tenant.map(Into::into), 0);
    message.encrypt(&spec, Value::String(b"\"123-45-6789\""), Bound(bind), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// An upstream whose path `/N` answers the N-th of these bodies.
fn store(bodies: Vec<String>) -> Upstream {
    Upstream::scripted(move |request, stream| {
        let at: usize = request.target().trim_start_matches('/').parse().unwrap();
        respond(stream, "200 OK", &[("Content-Type", "application/json")], bodies[at].as_bytes())
    })
}

fn yaml(upstream: &Upstream, rest: &str) -> String {
    format!(
        "listeners: [{{name: out, bind: 127.0.0.1:0, direction: egress}}]\nupstreams: {{up: {{url: {}}}}}\nroutes:\n\
         - name: all\n  match: {{listener: out, path: \"/{{*rest}}\"}}\n  upstream: up\n  {rest}\n",
        upstream.url()
    )
}

fn edited(token: &str, at: usize) -> String {
    let mut bytes = token.as_bytes().to_vec();
    bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
    String::from_utf8(bytes).unwrap()
}

/// E8: an answer that says which of many things was wrong would be an oracle.
#[test]
fn every_failure_to_decrypt_is_the_same_answer_to_the_byte() {
    for cipher in [Cipher::XChaCha20Poly1305, Cipher::Aegis256] {
        let (keys, strange, development) =
            (Keys::with(cipher, false), Keys::with(cipher, false), Keys::with(cipher, true));
        let record: &[(&[u8], &[u8])] = &[(b"record", b"42")];
        let here = |keys: &Keys| token(keys, "ssn", None, record, false);
        let good = here(&keys);
        let length = good.len();
        let kinds = [
            ("the tag", edited(&good, length - 3)),
            ("the ciphertext", edited(&good, 5 + 34 * 4 / 3 + 3)),
            ("the nonce", edited(&good, 5 + 20)),
            ("cut", good[..length - 4].to_owned()),
            ("longer", format!("{good}AAAA")),
            ("padded", format!("{good}=")),
            ("upper case", good.replacen("oil1", "OIL1", 1)),
            ("another format", good.replacen("oil1", "oil2", 1)),
            ("another context", token(&keys, "email", None, record, false)),
            ("another record", token(&keys, "ssn", None, &[(b"record", b"43")], false)),
            ("no record", token(&keys, "ssn", None, &[], false)),
            ("another tenant", token(&keys, "ssn", Some("acme"), record, false)),
            ("deterministic", token(&keys, "ssn", None, &[], true)),
            ("an unknown key", here(&strange)),
            ("development keys", here(&development)),
            ("plaintext", "123-45-6789".to_owned()),
        ];
        let mut bodies: Vec<String> = [&good]
            .into_iter()
            .chain(kinds.iter().map(|(_, token)| token))
            .map(|token| format!(r#"{{"id":42,"ssn":"{token}"}}"#))
            .collect();
        bodies.push(r#"{"id":42,"ssn":42}"#.to_owned());
        bodies.push(r#"{"id":42,"ssn":null}"#.to_owned());
        let count = bodies.len();
        let upstream = store(bodies);
        let rule = "fields: [{select: $.ssn, context: ssn, bind: {record: [\"@.id\"]}}]";
        let proxy = Proxy::yaml(&yaml(&upstream, rule)).start_with(keys);
        assert_eq!(proxy.json("GET", "/0", "").text(), r#"{"id":42,"ssn":"123-45-6789"}"#);
        let mut answers = Vec::new();
        for at in 1..count {
            let answer = proxy.json("GET", &format!("/{at}"), "");
            assert_eq!((answer.status(), answer.code().as_str()), (502, "decrypt_failed"), "{at} {}", answer.text());
            let id = answer.header("x-request-id").unwrap().to_owned();
            let head: Vec<&str> =
                answer.head.lines().filter(|line| !line.to_ascii_lowercase().starts_with("date:")).collect();
            answers.push(format!("{}\n\n{}", head.join("\n"), answer.text()).replace(&id, "ID"));
        }
        answers.sort();
        answers.dedup();
        assert_eq!(answers.len(), 1, "{answers:#?}");
    }
}

/// E5: to another field, tenant, record or route.
#[test]
fn a_token_moved_elsewhere_by_who_writes_the_store_does_not_open() {
    let echo = Upstream::echo();
    let rules = "tenant: {header: x-tenant-id}\n  fields:\n  - {select: $.ssn, context: ssn}\n  - {select: $.email, context: email}\n\
                 \x20 - {select: \"$.list[*].x\", context: x, bind: {record: [\"@.id\"]}}";
    let writer = Proxy::yaml(&yaml(&echo, rules)).start();
    let body = r#"{"ssn":"one","email":"two","list":[{"id":1,"x":"three"},{"id":2,"x":"four"}]}"#;
    let ask = |proxy: &Proxy, method: &str, target: &str, tenant: &str, body: &str| {
        let fields = [("Content-Type", "application/json"), ("X-Tenant-Id", tenant)];
        proxy.client().request(method, target, &fields, body.as_bytes())
    };
    assert_eq!(ask(&writer, "PUT", "/", "acme", body).text(), body);
    let stored = echo.one().text();
    let parsed: Json = serde_json::from_str(&stored).unwrap();
    let at = |pointer: &str| parsed.pointer(pointer).unwrap().as_str().unwrap().to_owned();
    let swapped = |a: &str, b: &str| {
        let (a, b) = (at(a), at(b));
        stored.replace(&a, "HOLE").replace(&b, &a).replace("HOLE", &b)
    };
    let other_route = format!(r#"{{"other":"{}"}}"#, at("/ssn"));
    let bodies = vec![stored.clone(), swapped("/ssn", "/email"), swapped("/list/0/x", "/list/1/x"), other_route];
    let upstream = store(bodies);
    let second = "\n- name: other\n  match: {listener: out, path: /3}\n  upstream: up\n  tenant: {header: x-tenant-id}\n\
                  \x20 fields: [{select: $.other, context: other}]";
    let keys = Keys::new();
    for file in ["root.key", "keys/default.json"] {
        std::fs::copy(writer.keys.folder().join(file), keys.folder().join(file)).unwrap();
    }
    let reader = Proxy::yaml(&yaml(&upstream, &format!("{rules}{second}"))).start_with(keys);
    assert_eq!(ask(&reader, "GET", "/0", "acme", "").text(), body);
    for (target, tenant, what) in
        [("/1", "acme", "field"), ("/2", "acme", "record"), ("/0", "other", "tenant"), ("/3", "acme", "route")]
    {
        assert_eq!(ask(&reader, "GET", target, tenant, "").code(), "decrypt_failed", "another {what}");
    }
}

/// E9: with `pad` the upstream learns a bucket, not a length and not a type.
#[test]
fn padded_fields_show_a_bucket_and_unpadded_ones_their_length() {
    let upstream = Upstream::echo();
    let rule = "fields: [{select: $.padded, pad: 64}, {select: $.bare}]";
    let proxy = Proxy::yaml(&yaml(&upstream, rule)).start();
    let mut client = proxy.client();
    for length in 1..=64 {
        let value = "x".repeat(length);
        let body = format!(r#"{{"padded":"{value}","bare":"{value}"}}"#);
        let answer = client.request("POST", "/", &[("Content-Type", "application/json")], body.as_bytes());
        assert_eq!(answer.text(), body);
    }
    let lengths = |name: &str| {
        let mut lengths: Vec<usize> = upstream
            .seen()
            .iter()
            .map(|request| serde_json::from_slice::<Json>(&request.body).unwrap()[name].as_str().unwrap().len())
            .collect();
        lengths.dedup();
        lengths.len()
    };
    // Type, value and the mark behind it: up to 62 bytes fit the first bucket.
    assert_eq!(lengths("padded"), 2);
    assert_eq!(lengths("bare"), 64, "the documented leak");
}

/// E9: a secret beside text that an attacker chooses must not be compressed, by us or because we asked for it.
#[test]
fn nothing_is_compressed_on_a_protected_route_whatever_the_app_accepts() {
    let upstream = Upstream::echo();
    let proxy = Proxy::before(&upstream).fields("$.ssn").start();
    let body = format!(r#"{{"ssn":"123-45-6789","guess":"{}"}}"#, "123-45-6789".repeat(1_000));
    for coding in ["gzip", "gzip, deflate, br, zstd", "*", "identity;q=0, gzip"] {
        let fields = [("Content-Type", "application/json"), ("Accept-Encoding", coding)];
        let answer = proxy.client().request("POST", "/", &fields, body.as_bytes());
        assert_eq!((answer.header("content-encoding"), answer.text() == body), (None, true), "{coding}");
    }
    for request in upstream.seen() {
        assert_eq!((request.header("accept-encoding"), request.header("content-encoding")), (None, None));
        assert!(request.body.len() >= body.len());
    }
}

/// E10: equality shows only where a rule asks for it.
#[test]
fn equal_values_look_equal_only_where_a_rule_says_so() {
    let upstream = Upstream::echo();
    let proxy = Proxy::yaml(&yaml(&upstream, "fields: [$.random, {select: $.equal, mode: deterministic}]")).start();
    for _ in 0..3 {
        proxy.json("POST", "/", r#"{"random":"same","equal":"same"}"#);
    }
    let distinct = |name: &str| {
        let mut tokens: Vec<String> = upstream
            .seen()
            .iter()
            .map(|request| serde_json::from_slice::<Json>(&request.body).unwrap()[name].as_str().unwrap().to_owned())
            .collect();
        tokens.sort();
        tokens.dedup();
        tokens
    };
    assert_eq!((distinct("random").len(), distinct("equal").len()), (3, 1));
    // alg, type and key id: another mode, another key line.
    assert_ne!(distinct("random")[0][..18], distinct("equal")[0][..18]);
}
