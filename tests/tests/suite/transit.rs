//! Vault's transit engine, a real OpenBao, as what holds the keys of fields.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oilskin_tests::client::json;
use oilskin_tests::keys::Keys;
use oilskin_tests::process::{self, Process};
use oilskin_tests::transit::{Bench, PII, calls, is_ready, reason, sent, text, without_keys};
use oilskin_tests::vault::ROOT;
use oilskin_tests::{Client, Message, Upstream, tools};
use serde_json::{Value, json};

/// What a sidecar needs, and no more.
const POLICY: &str = r#"
path "transit/keys/pii"    { capabilities = ["read"] }
path "transit/encrypt/pii" { capabilities = ["update"] }
path "transit/decrypt/pii" { capabilities = ["update"] }
"#;

fn lp(parts: &[&str]) -> Vec<u8> {
    parts
        .iter()
        .flat_map(|part| [&u32::try_from(part.len()).unwrap().to_be_bytes()[..], part.as_bytes()].concat())
        .collect()
}

#[test]
fn fields_are_vault_s_ciphertexts_which_its_own_command_line_opens() {
    let (bench, upstream) = (Bench::new(), Upstream::echo());
    let process = bench.before(&upstream);
    let body = r#"{"ssn":"ü-123","list":[1.50,true,null,{"a":[1 ,2]}],"other":"x"}"#;
    let answer = json(process.address(), "POST", "/", body);
    assert_eq!((answer.status(), answer.text()), (200, body.to_owned()), "byte for byte");
    let sent = sent(&upstream);
    assert!(text(&sent, "ssn").starts_with("vault:v1:") && sent["other"] == "x", "{sent}");
    assert!(sent["list"].as_array().unwrap().iter().all(|one| one.as_str().unwrap().starts_with("vault:v1:")));
    assert_eq!((calls(&process, "encrypt"), calls(&process, "decrypt")), (1, 1), "one call for a message");
    // By the command line, with the context that the page documents.
    let context = format!("context={}", STANDARD.encode(lp(&["", "ssn"])));
    let ciphertext = format!("ciphertext={}", text(&sent, "ssn"));
    let plain = bench.vault.data(&["write", "transit/decrypt/pii", &ciphertext, &context]);
    let plain = STANDARD.decode(text(&plain, "plaintext")).unwrap();
    assert_eq!(plain, ["\0oil\u{1}\u{1}".as_bytes(), "ü-123".as_bytes()].concat());
}

#[test]
fn bare_frames_are_what_other_clients_write_and_read() {
    let (bench, upstream) = (Bench::new(), Upstream::echo());
    let fields = format!("{{select: \"$.ssn\", backend: \"{PII}\", frame: bare}}");
    let process = bench.start(&[("OILSKIN_CONFIG_YAML", &bench.document(&upstream, &fields))]);
    let context = format!("context={}", STANDARD.encode(lp(&["acme", "ssn"])));
    let mut client = Client::connect(process.address());
    let fields = [("Content-Type", "application/json"), ("X-Tenant", "acme")];
    let answer = client.request("POST", "/", &fields, br#"{"ssn":"a\nb"}"#);
    assert_eq!((answer.status(), answer.text().as_str()), (200, r#"{"ssn":"a\nb"}"#));
    let ciphertext = format!("ciphertext={}", text(&sent(&upstream), "ssn"));
    let plain = bench.vault.data(&["write", "transit/decrypt/pii", &ciphertext, &context]);
    assert_eq!(text(&plain, "plaintext"), STANDARD.encode("a\nb"));
    // The other way round: written by the command line.
    let written = bench.vault.data(&[
        "write",
        "transit/encrypt/pii",
        &format!("plaintext={}", STANDARD.encode("4711")),
        &context,
    ]);
    let theirs = json!({"ssn": text(&written, "ciphertext")}).to_string();
    let upstream = Upstream::scripted(move |_, stream| {
        oilskin_tests::upstream::respond(stream, "200 OK", &[("Content-Type", "application/json")], theirs.as_bytes())
    });
    let fields_of = format!("{{select: \"$.ssn\", backend: \"{PII}\", frame: bare}}");
    let process = bench.start(&[("OILSKIN_CONFIG_YAML", &bench.document(&upstream, &fields_of))]);
    let get = |tenant| Client::connect(process.address()).request("GET", "/", &[("X-Tenant", tenant)], b"");
    assert_eq!(get("acme").text(), r#"{"ssn":"4711"}"#);
    assert_eq!(get("other").status(), 502, "another tenant's key is another one");
    // What is no string has no such frame.
    let number = Client::connect(process.address()).request("POST", "/", &fields, br#"{"ssn":1}"#);
    assert_eq!(
        (number.status(), text(&serde_json::from_slice(&number.body).unwrap(), "code").to_owned()),
        (400, "malformed".to_owned())
    );
}

#[test]
fn what_is_bound_opens_only_where_it_belongs() {
    let bench = Bench::new();
    let (upstream, fields) =
        (Upstream::echo(), format!("{{select: \"$.ssn\", backend: \"{PII}\", bind: {{id: \"@.id\"}}}}"));
    let process = bench.start(&[("OILSKIN_CONFIG_YAML", &bench.document(&upstream, &fields))]);
    let ask = |process: &Process, body: &str| {
        let fields = [("Content-Type", "application/json"), ("X-Tenant", "t")];
        Client::connect(process.address()).request("POST", "/", &fields, body.as_bytes())
    };
    for body in [r#"{"id":7,"ssn":"123"}"#, r#"{"ssn":"123","id":7}"#] {
        assert_eq!(ask(&process, body).text(), body, "before and behind what it is bound to");
    }
    let token = text(&sent(&upstream), "ssn").to_owned();
    for (id, status) in [("7", 200), ("8", 502)] {
        let body = format!("{{\"id\":{id},\"ssn\":\"{token}\"}}");
        let upstream = Upstream::scripted(move |_, stream| {
            oilskin_tests::upstream::respond(stream, "200 OK", &[("Content-Type", "application/json")], body.as_bytes())
        });
        let process = bench.start(&[("OILSKIN_CONFIG_YAML", &bench.document(&upstream, &fields))]);
        assert_eq!(Client::connect(process.address()).request("GET", "/", &[("X-Tenant", "t")], b"").status(), status);
    }
}

#[test]
fn equal_values_have_equal_ciphertexts_under_convergent_keys_alone() {
    let (bench, upstream) = (Bench::new(), Upstream::echo());
    bench.vault.bao(&["write", "-f", "transit/keys/lookup", "derived=true", "convergent_encryption=true"]);
    let fields = format!(
        "{{select: \"$.a\", backend: \"vault:transit/keys/lookup\", mode: deterministic, context: x}}, \
         {{select: \"$.b\", backend: \"vault:transit/keys/lookup\", mode: deterministic, context: x}}, \
         {{select: \"$.c\", backend: \"{PII}\", context: x}}, {{select: \"$.d\", backend: \"{PII}\", context: x}}"
    );
    let process = bench.start(&[("OILSKIN_CONFIG_YAML", &bench.document(&upstream, &fields))]);
    let body = r#"{"a":"1","b":"1","c":"1","d":"1"}"#;
    let headers = [("Content-Type", "application/json"), ("X-Tenant", "t")];
    assert_eq!(Client::connect(process.address()).request("POST", "/", &headers, body.as_bytes()).text(), body);
    let sent = sent(&upstream);
    assert_eq!(sent["a"], sent["b"]);
    assert_ne!(sent["c"], sent["d"]);
}

#[test]
fn a_key_that_does_not_do_what_rules_promise_is_never_used() {
    let (bench, upstream) = (Bench::new(), Upstream::echo());
    bench.vault.bao(&["write", "-f", "transit/keys/plain"]);
    bench.vault.bao(&["write", "-f", "transit/keys/lookup", "derived=true", "convergent_encryption=true"]);
    for (key, why) in [("plain", "derived=true"), ("lookup", "convergent"), ("missing", "no such key")] {
        let key = format!("vault:transit/keys/{key}");
        let vars =
            [("OILSKIN_UPSTREAM", upstream.url()), ("OILSKIN_FIELDS", "$.ssn".to_owned()), ("OILSKIN_BACKEND", key)];
        let vars: Vec<_> = vars.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let process = bench.begin(&vars);
        let ready =
            tools::until("what is wrong with the key", || Some(process.ready()).filter(|ready| ready.contains(why)));
        assert!(ready.contains("keys that cannot be used"), "{ready}");
        let answer = json(process.address(), "POST", "/", r#"{"ssn":"123"}"#);
        assert_eq!((answer.status(), upstream.seen().len()), (503, 0));
        process.logged(|line| line.contains("cannot be used") && line.contains(why));
    }
}

#[test]
fn a_message_of_any_size_goes_through_in_order() {
    let (bench, upstream) = (Bench::new(), Upstream::echo());
    let process = bench.before(&upstream);
    let list: Vec<Value> = (0..5_000).map(|at| json!(format!("value {at}"))).collect();
    let body = json!({"list": list, "ssn": "1"}).to_string();
    let answer = json(process.address(), "POST", "/", &body);
    assert!(answer.text() == body, "{}", answer.status());
    let sent: BTreeSet<String> =
        sent(&upstream)["list"].as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect();
    assert_eq!(sent.len(), 5_000, "no two are equal");
    let (encrypted, decrypted) = (calls(&process, "encrypt"), calls(&process, "decrypt"));
    assert!(encrypted >= 21 && decrypted >= 21, "249 a call: {encrypted} {decrypted}");
}

#[test]
fn a_token_that_does_not_open_fails_its_own_message_alone() {
    let bench = Bench::new();
    let echo = Upstream::echo();
    let process = bench.before(&echo);
    json(process.address(), "POST", "/", r#"{"ssn":"123"}"#);
    let good = text(&sent(&echo), "ssn").to_owned();
    let bad = format!("{}AAAA", &good[..good.len() - 4]);
    let upstream = Upstream::scripted(move |request: &Message, stream| {
        let token = if request.target() == "/good" { &good } else { &bad };
        let body = json!({"ssn": token}).to_string();
        oilskin_tests::upstream::respond(stream, "200 OK", &[("Content-Type", "application/json")], body.as_bytes())
    });
    let process = bench.before(&upstream);
    let address = process.address();
    let clients: Vec<_> = (0..40)
        .map(|at| {
            std::thread::spawn(move || {
                let target = if at % 4 == 0 { "/bad" } else { "/good" };
                for _ in 0..10 {
                    let answer = json(address, "GET", target, "");
                    let want = if at % 4 == 0 { 502 } else { 200 };
                    assert_eq!(answer.status(), want, "{target}: {}", answer.text());
                }
            })
        })
        .collect();
    for client in clients {
        client.join().unwrap();
    }
    assert!(reason(&process, "decrypt_failed").contains("vault_tag"));
    let page = process.metrics_page();
    let failed = page.lines().find(|line| line.contains("oilskin_fields_total") && line.contains("\"failed\""));
    assert!(failed.is_some_and(|line| line.ends_with(" 100")), "{failed:?}");
    // What looks like a ciphertext and is none never gets to Vault.
    for token in ["vault:v1:", "vault:v1:a\\\"b", " vault:v1:YQ=="] {
        let body = format!("{{\"ssn\":\"{token}\"}}");
        let upstream = Upstream::scripted(move |_, stream| {
            oilskin_tests::upstream::respond(stream, "200 OK", &[("Content-Type", "application/json")], body.as_bytes())
        });
        let process = bench.before(&upstream);
        assert_eq!((json(process.address(), "GET", "/", "").status(), calls(&process, "decrypt")), (502, 0), "{token}");
    }
}

#[test]
fn fields_move_from_vault_to_local_keys_and_back_without_a_missed_read() {
    let (bench, upstream) = (Bench::new(), Upstream::echo());
    let keys = Keys::new();
    let rule = |encrypt: &str, decrypt: &str| {
        format!(
            "{{select: \"$.ssn\", encrypt: \"{encrypt}\", decrypt: {decrypt}, context: c}}, {{select: \"$.old\", encrypt: \"{encrypt}\", decrypt: {decrypt}, context: c}}"
        )
    };
    let both = format!("[\"{PII}\", local]");
    let start = |upstream: &Upstream, fields: &str| {
        let mut command = process::command(&keys);
        command.env("VAULT_ADDR", bench.vault.url()).env("VAULT_TOKEN", ROOT);
        let process = Process::start_as(command, &[("OILSKIN_CONFIG_YAML", &bench.document(upstream, fields))]);
        tools::until("ready", || is_ready(&process).then_some(()));
        process
    };
    let ask = |process: &Process, body: &str| {
        let fields = [("Content-Type", "application/json"), ("X-Tenant", "t")];
        Client::connect(process.address()).request("POST", "/", &fields, body.as_bytes())
    };
    let mut tokens = Vec::new();
    for (encrypt, prefix) in [(PII, "vault:v1:"), ("local", "oil1.")] {
        let process = start(&upstream, &rule(encrypt, &both));
        assert_eq!(ask(&process, r#"{"ssn":"123"}"#).text(), r#"{"ssn":"123"}"#);
        let token = text(&sent(&upstream), "ssn").to_owned();
        assert!(token.starts_with(prefix), "{token}");
        tokens.push(token);
    }
    // One message with both kinds: each is read by what wrote it, and what is old is counted.
    let body = format!("{{\"ssn\":\"{}\",\"old\":\"{}\"}}", tokens[1], tokens[0]);
    let mixed = Upstream::scripted(move |_, stream| {
        oilskin_tests::upstream::respond(stream, "200 OK", &[("Content-Type", "application/json")], body.as_bytes())
    });
    let process = start(&mixed, &rule("local", &both));
    let answer = Client::connect(process.address()).request("GET", "/", &[("X-Tenant", "t")], b"");
    assert_eq!(answer.text(), r#"{"ssn":"123","old":"123"}"#);
    let page = process.metrics_page();
    let old = page.lines().find(|line| line.contains("oilskin_fields_total") && line.contains("other_backend"));
    assert!(old.is_some_and(|line| line.ends_with(" 1")), "{old:?}");
    // A rule that does not name what wrote a token does not read it.
    let process = start(&mixed, &rule("local", "local"));
    assert_eq!(Client::connect(process.address()).request("GET", "/", &[("X-Tenant", "t")], b"").status(), 502);
}

#[test]
fn the_app_may_send_back_what_is_its_own() {
    let (bench, upstream) = (Bench::new(), Upstream::echo());
    let fields = format!("{{select: \"$.ssn\", backend: \"{PII}\", bind: {{id: \"@.id\"}}, accept_tokens: true}}");
    let process = bench.start(&[("OILSKIN_CONFIG_YAML", &bench.document(&upstream, &fields))]);
    let ask = |body: &str| {
        let fields = [("Content-Type", "application/json"), ("X-Tenant", "t")];
        Client::connect(process.address()).request("POST", "/", &fields, body.as_bytes())
    };
    assert_eq!(ask(r#"{"id":7,"ssn":"123"}"#).status(), 200);
    let token = text(&sent(&upstream), "ssn").to_owned();
    assert_eq!(ask(&format!("{{\"id\":7,\"ssn\":\"{token}\"}}")).text(), r#"{"id":7,"ssn":"123"}"#);
    assert_eq!(text(&sent(&upstream), "ssn"), token, "as it was");
    assert_eq!(ask(&format!("{{\"id\":8,\"ssn\":\"{token}\"}}")).status(), 400);
}

#[test]
fn rotation_in_vault_loses_nothing_and_a_raised_minimum_is_told() {
    let (bench, upstream) = (Bench::new(), Upstream::echo());
    let process = bench.before(&upstream);
    let address = process.address();
    let ask = move || json(address, "POST", "/", r#"{"ssn":"123","list":["a","b"]}"#);
    let clients: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(move || {
                for _ in 0..100 {
                    assert_eq!(ask().status(), 200);
                }
            })
        })
        .collect();
    let old = text(&sent_once(&upstream), "ssn").to_owned();
    for _ in 0..3 {
        tools::pause(Duration::from_millis(50));
        bench.vault.bao(&["write", "-f", "transit/keys/pii/rotate"]);
    }
    for client in clients {
        client.join().unwrap();
    }
    assert_eq!(ask().status(), 200);
    assert!(text(&sent(&upstream), "ssn").starts_with("vault:v4:"));
    let stored = Upstream::scripted(move |_, stream| {
        let body = json!({"ssn": old}).to_string();
        oilskin_tests::upstream::respond(stream, "200 OK", &[("Content-Type", "application/json")], body.as_bytes())
    });
    let process = bench.before(&stored);
    assert_eq!(json(process.address(), "GET", "/", "").status(), 200);
    let page = process.metrics_page();
    assert!(page.lines().any(|line| line.contains("\"stale\"") && line.ends_with(" 1")), "{page}");
    bench.vault.bao(&["write", "transit/keys/pii/config", "min_decryption_version=4"]);
    assert_eq!(json(process.address(), "GET", "/", "").status(), 502);
    assert!(reason(&process, "decrypt_failed").contains("vault_version"));
}

/// The first thing that the upstream was sent.
fn sent_once(upstream: &Upstream) -> Value {
    let body = tools::until("a request", || upstream.seen().first().map(|request| request.body.clone()));
    serde_json::from_slice(&body).unwrap()
}

#[test]
fn a_policy_is_enough_as_documented_and_one_that_denies_decrypt_is_told() {
    let (bench, upstream) = (Bench::new(), Upstream::echo());
    let start = |policy: &str| {
        let role = bench.vault.app_role(policy, "1h", "2h");
        let mut command = without_keys();
        command.env("VAULT_ADDR", bench.vault.url()).env("OILSKIN_VAULT_AUTH", "approle");
        command.env("OILSKIN_VAULT_ROLE_ID", role).env("OILSKIN_VAULT_SECRET_ID_FILE", bench.vault.path("secret_id"));
        let vars = [
            ("OILSKIN_UPSTREAM", upstream.url()),
            ("OILSKIN_FIELDS", "$.ssn".to_owned()),
            ("OILSKIN_BACKEND", PII.to_owned()),
        ];
        let vars: Vec<_> = vars.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let process = Process::start_as(command, &vars);
        tools::until("ready", || is_ready(&process).then_some(()));
        process
    };
    let process = start(POLICY);
    assert_eq!(json(process.address(), "POST", "/", r#"{"ssn":"123"}"#).status(), 200);
    let process = start(&POLICY.lines().filter(|line| !line.contains("decrypt")).collect::<String>());
    let answer = json(process.address(), "POST", "/", r#"{"ssn":"123"}"#);
    assert_eq!(answer.status(), 503, "written, but not readable: {}", answer.text());
    assert!(reason(&process, "key_unavailable").contains("vault_denied"));
}

#[test]
fn a_vault_that_is_sealed_or_gone_refuses_cleanly_and_comes_back() {
    let (mut bench, upstream) = (Bench::new(), Upstream::echo());
    let process = bench.before(&upstream);
    let ask = || json(process.address(), "POST", "/", r#"{"ssn":"123"}"#);
    assert_eq!(ask().status(), 200);
    bench.vault.bao(&["operator", "seal"]);
    let before = upstream.seen().len();
    for _ in 0..10 {
        assert_eq!(ask().status(), 503);
    }
    assert!(reason(&process, "key_unavailable").contains("vault_sealed"));
    bench.vault.down();
    assert_eq!((ask().status(), upstream.seen().len()), (503, before), "nothing passes in clear text");
    assert_eq!(json(process.health, "GET", "/live", "").status(), 200);
    bench.vault.up();
    bench.vault.transit_with("pii", "derived=true");
    tools::until("Vault again", || (ask().status() == 200).then_some(()));
}

#[test]
fn what_is_larger_than_vault_takes_at_once_goes_in_several_calls() {
    let (bench, upstream) = (Bench::new(), Upstream::echo());
    let process = bench.before(&upstream);
    // 40 MB in Base64: Vault takes 32 MiB in a request.
    let list: Vec<String> = (0..46).map(|at| format!("{at}{}", "x".repeat(700_000))).collect();
    let body = json!({"list": list}).to_string();
    let answer = json(process.address(), "POST", "/", &body);
    assert_eq!((answer.status(), answer.body.len()), (200, body.len()));
    assert!(answer.text() == body, "as it was");
    assert!(calls(&process, "encrypt") >= 20, "2 MiB a call");
}
