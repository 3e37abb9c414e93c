//! What holds a rule's key.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use oilskin_config::{Backend, Config, Frame, Problem, Rule, Vars, VaultKey, parse};

const KEYS: [(&str, &str); 2] = [("OILSKIN_ROOT_KEY", "file:/k/root.key"), ("OILSKIN_KEY_STORE", "file:/k/keys")];
const VAULT: [(&str, &str); 2] = [("VAULT_ADDR", "http://127.0.0.1:8200"), ("VAULT_TOKEN_FILE", "/run/token")];

fn read(pairs: &[&[(&str, &str)]]) -> Result<Config, Vec<Problem>> {
    let vars: Vars = pairs.concat().iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    parse(&vars, &|path| Err(format!("{path}: no such file")))
}

/// A document with one route, whose one rule has these settings.
fn document(settings: &str) -> String {
    format!(
        "listeners: [{{name: out, bind: \"127.0.0.1:0\"}}]\nupstreams: {{a: {{url: \"http://127.0.0.1:1\"}}}}\n\
         routes: [{{name: r, match: {{listener: out, path: \"/{{*rest}}\"}}, upstream: a, fields: [{{select: \"$.ssn\", {settings}}}]}}]\n"
    )
}

fn rule(settings: &str) -> Rule {
    let text = document(settings);
    let config = read(&[&KEYS, &VAULT, &[("OILSKIN_CONFIG_YAML", &text)]]).unwrap();
    config.routes[0].request.rules[0].clone()
}

fn wrong(settings: &str) -> String {
    let text = document(settings);
    let problems = read(&[&KEYS, &VAULT, &[("OILSKIN_CONFIG_YAML", &text)]]).unwrap_err();
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn pii() -> Backend {
    Backend::Vault(VaultKey { mount: "transit".to_owned(), key: "pii".to_owned() })
}

#[test]
fn a_rule_says_what_writes_and_what_reads() {
    let both = rule("backend: \"vault:transit/keys/pii\", frame: bare, key_version: 3");
    assert_eq!((&both.encrypt, both.decrypt.as_slice(), both.frame), (&pii(), [pii()].as_slice(), Frame::Bare));
    assert_eq!((both.key_version.map(|version| version.get()), both.is_local()), (Some(3), false));
    let moving = rule("encrypt: local, decrypt: [\"vault:transit/keys/pii\", local]");
    assert_eq!((&moving.encrypt, moving.decrypt.len(), moving.is_local()), (&Backend::Local, 2, true));
    assert_eq!(moving.vault_key().unwrap().to_string(), "vault:transit/keys/pii");
    let plain = rule("name: x");
    assert_eq!((&plain.encrypt, plain.vault_key(), plain.frame), (&Backend::Local, None, Frame::Typed));
}

#[test]
fn what_cannot_work_is_said() {
    for (settings, why) in [
        ("backend: vault", "must be local or vault:MOUNT/keys/NAME"),
        ("backend: \"vault:transit/pii\"", "must be vault:MOUNT/keys/NAME"),
        ("backend: local, encrypt: local, decrypt: local", "write either it or them"),
        ("encrypt: local", "belong together"),
        ("encrypt: local, decrypt: []", "an empty list"),
        ("encrypt: local, decrypt: [local, local]", "stands here already"),
        ("encrypt: local, decrypt: \"vault:transit/keys/pii\"", "decrypt must name what encrypt names"),
        ("encrypt: \"vault:a/keys/b\", decrypt: [\"vault:a/keys/b\", \"vault:a/keys/c\"]", "two keys of Vault's"),
        ("frame: bare", "frame is for keys of Vault's"),
        ("key_version: 1", "key_version is for keys of Vault's"),
        ("backend: \"vault:a/keys/b\", key_version: 0", "must be 1 or more"),
        ("backend: \"vault:a/keys/b\", keyset: x", "keyset is for local keys"),
        ("backend: \"vault:a/keys/b\", frame: bare, opaque: true", "no room for a type"),
        ("backend: \"vault:a/keys/b\", mode: deterministic, bind: {id: \"@.id\"}", "exclude each other"),
    ] {
        let said = wrong(settings);
        assert!(said.contains(why), "{settings}: {said}");
    }
}

#[test]
fn a_mistake_in_a_backend_is_the_only_one_that_is_told() {
    let problems = read(&[&[
        ("OILSKIN_UPSTREAM", "http://127.0.0.1:1"),
        ("OILSKIN_FIELDS", "$.ssn"),
        ("OILSKIN_BACKEND", "valt:transit/keys/pii"),
    ]])
    .unwrap_err();
    let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(said, ["OILSKIN_BACKEND: must be local or vault:MOUNT/keys/NAME"]);
}

#[test]
fn standbys_are_read_from_where_there_are_some() {
    let with = |address| {
        let own = [("OILSKIN_UPSTREAM", "http://127.0.0.1:1"), ("OILSKIN_FIELDS", "$.ssn"), ("VAULT_ADDR", address)];
        let backend = [("OILSKIN_BACKEND", "vault:transit/keys/pii"), ("OILSKIN_VAULT_STANDBY_READS", "true")];
        read(&[&VAULT[1..], &own, &backend])
    };
    let config = with("http://127.0.0.1:8200,http://127.0.0.1:8210").unwrap();
    assert!(config.vault.unwrap().standby_reads);
    let problems = with("http://127.0.0.1:8200").unwrap_err();
    assert!(problems.len() == 1 && problems[0].message.contains("several addresses"), "{problems:?}");
}

#[test]
fn one_key_is_not_for_equal_and_for_random_ciphertexts() {
    let both = document(
        "backend: \"vault:transit/keys/pii\", mode: deterministic}, {select: \"$.iban\", backend: \"vault:transit/keys/pii\"",
    );
    let problems = read(&[&VAULT, &[("OILSKIN_CONFIG_YAML", &both)]]).unwrap_err();
    assert!(problems.len() == 1 && problems[0].message.contains("name two keys"), "{problems:?}");
    let two = both.replacen("keys/pii", "keys/equal", 1);
    assert!(read(&[&VAULT, &[("OILSKIN_CONFIG_YAML", &two)]]).is_ok());
}

#[test]
fn only_what_is_asked_for_has_to_be_configured() {
    let vault =
        [("OILSKIN_UPSTREAM", "http://a"), ("OILSKIN_FIELDS", "$.ssn"), ("OILSKIN_BACKEND", "vault:transit/keys/pii")];
    let config = read(&[&VAULT, &vault]).unwrap();
    assert!(config.keys.is_none() && config.vault.is_some());
    assert_eq!(config.routes[0].request.rules[0].encrypt, pii());
    let without = read(&[&vault]).unwrap_err();
    assert!(without.iter().any(|problem| problem.to_string().contains("VAULT_ADDR")), "{without:?}");
    let local = read(&[&VAULT, &vault[..2]]).unwrap_err();
    assert!(local[0].to_string().contains("no keys are configured"), "{local:?}");
    let config = read(&[&KEYS, &VAULT, &vault[..2]]).unwrap();
    assert!(config.vault.is_none(), "nobody asks it");
}
