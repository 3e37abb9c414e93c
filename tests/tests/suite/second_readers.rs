//! E16: two implementations of the wire format that share no line with ours, in Python (PyNaCl) and JavaScript (npm's
//! libsodium), open what the proxy wrote and write what it opens: both ciphers, every type, mode and binding, with and
//! without tenant.

use std::process::Command;

use oilskin_crypto::Cipher;
use oilskin_tests::keys::Keys;
use oilskin_tests::{Proxy, Upstream, tools};
use serde_json::{Value as Json, json};

/// Every type; the second is spelled so that only a raw string keeps it.
const VALUES: [(u8, &str, &str); 8] = [
    (1, r#""Zo\"ë\n😀\u0001""#, "Zo\"ë\n😀\u{1}"),
    (2, r#""caf\u00e9 \/""#, r"caf\u00e9 \/"),
    (3, "-1.10e+400", "-1.10e+400"),
    (4, "true", "\u{1}"),
    (4, "false", "\0"),
    (5, "null", ""),
    (6, r#"[1 , {"a":"é"}]"#, r#"[1 , {"a":"é"}]"#),
    (7, r#"{ "a":[] }"#, r#"{ "a":[] }"#),
];

struct Place {
    name: &'static str,
    pad: Option<usize>,
    bind: bool,
    deterministic: bool,
}

const PLACES: [Place; 5] = [
    Place { name: "plain", pad: None, bind: false, deterministic: false },
    Place { name: "padded", pad: Some(32), bind: false, deterministic: false },
    Place { name: "bound", pad: None, bind: true, deterministic: false },
    Place { name: "equal", pad: None, bind: false, deterministic: true },
    Place { name: "equal_padded", pad: Some(16), bind: false, deterministic: true },
];

impl Place {
    /// What a reader must be told of it.
    fn told(&self, tenant: Option<&str>) -> Json {
        json!({
            "context": format!("test.{}", self.name), "tenant": tenant, "pad": self.pad,
            "deterministic": self.deterministic, "bind": if self.bind { json!({"record": "42"}) } else { json!({}) },
        })
    }

    /// The spelling that comes back: a deterministic string's is the canonical one.
    fn expected(&self, lexeme: &'static str) -> &'static str {
        match self.deterministic && lexeme.starts_with("\"caf") {
            true => "\"café /\"",
            false => lexeme,
        }
    }
}

fn yaml(upstream: &Upstream, tenant: bool) -> String {
    let mut text = format!(
        "listeners: [{{name: out, bind: 127.0.0.1:0, direction: egress}}]\nupstreams: {{up: {{url: {}}}}}\nroutes:\n\
         - name: all\n  match: {{listener: out, path: \"/{{*rest}}\"}}\n  upstream: up\n  {}\n  fields:\n",
        upstream.url(),
        if tenant { "tenant: {header: x-tenant-id}" } else { "" }
    );
    for place in &PLACES {
        let pad = place.pad.map(|pad| format!(", pad: {pad}")).unwrap_or_default();
        let bind = if place.bind { ", bind: {record: [\"$.id\"]}" } else { "" };
        let mode = if place.deterministic { ", mode: deterministic" } else { "" };
        let name = place.name;
        text.push_str(&format!("  - {{select: \"$.{name}[*]\", context: test.{name}{pad}{bind}{mode}}}\n"));
    }
    text
}

/// The same values in every place.
fn document(element: impl Fn(&Place, usize) -> String) -> String {
    let places: Vec<String> = PLACES
        .iter()
        .map(|place| {
            let elements: Vec<String> = (0..VALUES.len()).map(|at| element(place, at)).collect();
            format!("\"{}\":[{}]", place.name, elements.join(","))
        })
        .collect();
    format!("{{\"id\":42,{}}}", places.join(","))
}

const ROUNDS: [(Cipher, Option<&str>); 4] = [
    (Cipher::XChaCha20Poly1305, None),
    (Cipher::XChaCha20Poly1305, Some("acme")),
    (Cipher::Aegis256, None),
    (Cipher::Aegis256, Some("acme")),
];

fn ask(proxy: &Proxy, method: &str, tenant: Option<&str>, body: &str) -> String {
    let mut fields = vec![("Content-Type", "application/json")];
    fields.extend(tenant.map(|tenant| ("X-Tenant-Id", tenant)));
    let answer = proxy.client().request(method, "/", &fields, body.as_bytes());
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer.text()
}

fn run(reader: fn() -> Command, mode: &str, keys: &Keys, lines: &[String]) -> Vec<String> {
    let folder = keys.folder();
    let mut command = reader();
    command.arg(mode).arg(folder.join("root.key")).arg(folder.join("keys/default.json")).arg("default");
    let printed = tools::feed(&mut command, lines);
    assert_eq!(printed.len(), lines.len());
    printed
}

fn opens_what_the_proxy_wrote(reader: fn() -> Command) {
    for (cipher, tenant) in ROUNDS {
        let upstream = Upstream::echo();
        let proxy = Proxy::yaml(&yaml(&upstream, tenant.is_some())).start_with(Keys::with(cipher, false));
        ask(&proxy, "PUT", tenant, &document(|_, at| VALUES[at].1.to_owned()));
        let stored: Json = serde_json::from_slice(&upstream.one().body).unwrap();
        let (mut lines, mut expected) = (Vec::new(), Vec::new());
        for place in &PLACES {
            for (at, (_, lexeme, _)) in VALUES.iter().enumerate() {
                let mut told = place.told(tenant);
                told["token"] = stored[place.name][at].clone();
                assert!(told["token"].as_str().unwrap().starts_with("oil1."));
                lines.push(told.to_string());
                expected.push(place.expected(lexeme));
            }
        }
        assert_eq!(run(reader, "open", &proxy.keys, &lines), expected, "{cipher:?} {tenant:?}");
    }
}

fn writes_what_the_proxy_opens(reader: fn() -> Command) {
    for (cipher, tenant) in ROUNDS {
        let keys = Keys::with(cipher, false);
        // The wire format has no deterministic raw string: these are strings.
        let kind = |place: &Place, at: usize| {
            if place.deterministic && at == 1 { (1, "café /") } else { (VALUES[at].0, VALUES[at].2) }
        };
        let mut lines = Vec::new();
        for place in &PLACES {
            for at in 0..VALUES.len() {
                let mut told = place.told(tenant);
                let (kind, text) = kind(place, at);
                told["type"] = kind.into();
                told["text"] = text.into();
                lines.push(told.to_string());
            }
        }
        let tokens = run(reader, "write", &keys, &lines);
        let row = |place: &Place| PLACES.iter().position(|other| other.name == place.name).unwrap();
        let stored = document(|place, at| format!("\"{}\"", tokens[row(place) * VALUES.len() + at]));
        let upstream = Upstream::json(Box::leak(stored.into_boxed_str()));
        let proxy = Proxy::yaml(&yaml(&upstream, tenant.is_some())).start_with(keys);
        let expected = document(|place, at| place.expected(VALUES[at].1).to_owned());
        assert_eq!(ask(&proxy, "GET", tenant, ""), expected, "{cipher:?}");
        // The same deterministic value is the same token, whoever wrote it.
        let echo = Upstream::echo();
        let writer = Proxy::yaml(&yaml(&echo, tenant.is_some()));
        let again = proxy.keys.copy();
        ask(&writer.start_with(again), "PUT", tenant, &document(|_, at| VALUES[at].1.to_owned()));
        let ours: Json = serde_json::from_slice(&echo.one().body).unwrap();
        for place in PLACES.iter().filter(|place| place.deterministic) {
            for at in 0..VALUES.len() {
                assert_eq!(ours[place.name][at].as_str().unwrap(), tokens[row(place) * VALUES.len() + at]);
            }
        }
    }
}

fn pynacl() -> Command {
    let mut command = tools::python();
    command.arg(tools::top().join("tests/second_reader.py"));
    command
}

fn npm() -> Command {
    let mut command = tools::node();
    command.arg(tools::top().join("tests/node/second_reader.mjs"));
    command
}

#[test]
fn pynacl_opens_what_the_proxy_wrote() {
    opens_what_the_proxy_wrote(pynacl);
}

#[test]
fn the_proxy_opens_what_pynacl_wrote() {
    writes_what_the_proxy_opens(pynacl);
}

#[test]
fn npm_s_libsodium_opens_what_the_proxy_wrote() {
    opens_what_the_proxy_wrote(npm);
}

#[test]
fn the_proxy_opens_what_npm_s_libsodium_wrote() {
    writes_what_the_proxy_opens(npm);
}
