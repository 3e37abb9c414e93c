//! Root keys in OpenBao's transit engine, keysets in its KV store.

use std::borrow::Borrow;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use oilskin_tests::certificates::{Authority, Wish};
use oilskin_tests::client::json;
use oilskin_tests::keys::Keys;
use oilskin_tests::process::{self, Process};
use oilskin_tests::replicas;
use oilskin_tests::vault::{Durable, ROOT, Vault};
use oilskin_tests::{Upstream, tools};

/// What a replica needs, and no more.
pub(super) const REPLICA: &str = r#"
path "transit/decrypt/root" { capabilities = ["update"] }
path "secret/data/oilskin/*" { capabilities = ["read"] }
"#;

/// A server with the root key `root`, and keysets that are nowhere yet.
pub(super) struct Bench<V = Vault> {
    pub(super) vault: V,
    keys: Keys,
    authority: Authority,
}

fn authority() -> Authority {
    let authority = Authority::new();
    authority.issue("server", &Wish::default());
    authority
}

impl Bench {
    pub(super) fn new() -> Self {
        let authority = authority();
        Self::of(Vault::start(&authority), authority)
    }
}

impl Bench<Durable> {
    pub(super) fn durable() -> Self {
        let authority = authority();
        Self::of(Durable::start(&authority), authority)
    }
}

impl<V: Borrow<Vault>> Bench<V> {
    fn of(vault: V, authority: Authority) -> Self {
        vault.borrow().transit_with("root", "type=aes256-gcm96");
        Self { vault, keys: Keys::new(), authority }
    }

    /// Who made its certificate.
    pub(super) fn authority(&self) -> &Authority {
        &self.authority
    }

    fn vars(&self) -> Vec<(String, String)> {
        let vars = [
            ("OILSKIN_ROOT_KEY", "vault:transit/keys/root".to_owned()),
            ("OILSKIN_KEY_STORE", "vault:secret/oilskin/{keyset}".to_owned()),
            ("OILSKIN_KEY_REFRESH", "1s".to_owned()),
            ("OILSKIN_KEY_ROOT_CHECK", "1s".to_owned()),
            ("VAULT_ADDR", self.vault.borrow().url()),
            ("VAULT_TOKEN", ROOT.to_owned()),
        ];
        vars.map(|(name, value)| (name.to_owned(), value)).into()
    }

    /// With the token that may everything.
    pub(super) fn command(&self) -> Command {
        let mut command = process::command(&self.keys);
        command.envs(self.vars());
        command
    }

    pub(super) fn with(&self, more: &[(&str, &str)], words: &[&str]) -> (Option<i32>, String) {
        let mut command = self.command();
        command.arg("keys").args(words).envs(more.iter().copied());
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    }

    pub(super) fn keys(&self, words: &[&str]) -> (Option<i32>, String) {
        self.with(&[], words)
    }

    /// How tokens of that policy alone are come by, which live so long.
    pub(super) fn role(&self, policy: &str, (life, longest): (&str, &str)) -> Vec<(String, String)> {
        let vars = [
            ("OILSKIN_VAULT_AUTH", "approle".to_owned()),
            ("OILSKIN_VAULT_ROLE_ID", self.vault.borrow().app_role(policy, life, longest)),
            ("OILSKIN_VAULT_SECRET_ID_FILE", self.vault.borrow().path("secret_id")),
        ];
        vars.map(|(name, value)| (name.to_owned(), value)).into()
    }

    /// With such tokens.
    pub(super) fn by_role(&self, policy: &str, lives: (&str, &str)) -> Command {
        let mut command = self.command();
        command.env_remove("VAULT_TOKEN").envs(self.role(policy, lives));
        command
    }

    /// A replica with a token of that policy alone.
    pub(super) fn replica(&self, upstream: &Upstream, policy: &str) -> Process {
        start(self.by_role(policy, ("1h", "2h")), upstream)
    }
}

pub(super) fn start(command: Command, upstream: &Upstream) -> Process {
    Process::start_as(command, &[("OILSKIN_UPSTREAM", &upstream.url()), ("OILSKIN_FIELDS", "$.ssn")])
}

pub(super) fn ask(process: &Process) -> u16 {
    json(process.address(), "POST", "/", r#"{"ssn":"123"}"#).status()
}

pub(super) fn until_serving(process: &Process) {
    tools::until("keys", || (ask(process) == 200).then_some(()));
}

#[test]
fn a_keyset_lives_in_vault_under_a_key_of_vault_s() {
    let (bench, upstream) = (Bench::new(), Upstream::echo());
    let (code, said) = bench.keys(&["init"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(bench.keys(&["init"]).0, Some(1), "it is there already");
    assert_eq!(bench.keys(&["init", "--name", "other"]).0, Some(0));
    let (_, said) = bench.keys(&["list"]);
    assert!(said.contains("default  epoch 1, root vault") && said.contains("other  epoch 1"), "{said}");
    let metadata = bench.vault.data(&["read", "secret/metadata/oilskin/default"]);
    assert_eq!(metadata["cas_required"], true);
    let process = bench.replica(&upstream, REPLICA);
    until_serving(&process);
    let (code, said) = bench.keys(&["rotate"]);
    assert!(code == Some(0) && said.contains("epoch 3"), "{said}");
    tools::until("the new epoch", || {
        process.metrics_page().contains("oilskin_keyset_epoch{keyset=\"default\"} 3").then_some(())
    });
    assert_eq!(ask(&process), 200);
    // A new W: earlier versions of the secret are gone, and what is left is said.
    let (code, said) = bench.keys(&["rewrap"]);
    assert_eq!(code, Some(0), "{said}");
    let metadata = bench.vault.data(&["read", "secret/metadata/oilskin/default"]);
    let versions = metadata["versions"].as_object().unwrap();
    let kept = versions.values().filter(|version| version["destroyed"] == false).count();
    assert_eq!((versions.len(), kept), (4, 1), "{metadata}");
    tools::until("the new epoch", || {
        process.metrics_page().contains("oilskin_keyset_epoch{keyset=\"default\"} 4").then_some(())
    });
    assert_eq!(ask(&process), 200);
    // What a replica may is not enough to write.
    assert!(!process.log().iter().any(|line| line.contains("cannot refresh")), "{:?}", process.log());
}

#[test]
fn a_policy_that_is_taken_away_takes_the_keys_and_one_that_comes_back_brings_them() {
    let (bench, upstream) = (Bench::new(), Upstream::echo());
    assert_eq!(bench.keys(&["init"]).0, Some(0));
    let process = bench.replica(&upstream, REPLICA);
    until_serving(&process);
    let before = std::time::Instant::now();
    bench.vault.policy(r#"path "secret/data/oilskin/*" { capabilities = ["read"] }"#);
    process.logged(|line| line.contains("denied twice"));
    assert!(before.elapsed() >= Duration::from_secs(9), "the second no comes after a new login");
    assert_eq!(ask(&process), 503);
    assert_eq!(json(process.health, "GET", "/live", "").status(), 200);
    bench.vault.policy(REPLICA);
    until_serving(&process);
}

#[test]
fn a_vault_that_is_sealed_or_away_changes_nothing_for_as_long_as_was_declared() {
    let (bench, upstream) = (Bench::new(), Upstream::echo());
    assert_eq!(bench.keys(&["init"]).0, Some(0));
    let process = bench.replica(&upstream, REPLICA);
    until_serving(&process);
    bench.vault.bao(&["operator", "seal"]);
    process.logged(|line| line.contains("cannot refresh keys"));
    for _ in 0..30 {
        assert_eq!(ask(&process), 200);
        tools::pause(Duration::from_millis(100));
    }
    tools::until("not ready", || process.ready().contains("not refreshed").then_some(()));
    // A new one has no keys, and says so; it lives.
    let vars = [("OILSKIN_UPSTREAM", upstream.url()), ("OILSKIN_FIELDS", "$.ssn".to_owned())];
    let late = Process::start_as(bench.command(), &vars.each_ref().map(|(name, value)| (*name, value.as_str())));
    late.logged(|line| line.contains("cannot refresh keys"));
    assert_eq!(ask(&late), 503);
    assert_eq!(json(late.health, "GET", "/live", "").status(), 200);
}

#[test]
fn what_is_wrong_in_vault_is_told_in_a_sentence_that_helps() {
    let bench = Bench::new();
    let refused = |more: &[(&str, &str)], said: &str| {
        let (code, answer) = bench.with(more, &["init"]);
        assert!(code == Some(1) && answer.contains(said), "{more:?}: {answer}");
    };
    refused(&[("OILSKIN_ROOT_KEY", "vault:nowhere/keys/root")], "vault secrets list");
    refused(&[("OILSKIN_ROOT_KEY", "vault:transit/keys/none")], "There is no such key");
    bench.vault.bao(&["write", "-f", "transit/keys/derived", "derived=true"]);
    refused(&[("OILSKIN_ROOT_KEY", "vault:transit/keys/derived")], "the key is derived");
    bench.vault.bao(&["write", "-f", "transit/keys/convergent", "derived=true", "convergent_encryption=true"]);
    refused(&[("OILSKIN_ROOT_KEY", "vault:transit/keys/convergent")], "the key is convergent");
    bench.vault.bao(&["write", "-f", "transit/keys/signs", "type=ed25519"]);
    refused(&[("OILSKIN_ROOT_KEY", "vault:transit/keys/signs")], "does not authenticate");
    bench.vault.bao(&["secrets", "enable", "-path=old", "-version=1", "kv"]);
    refused(&[("OILSKIN_KEY_STORE", "vault:old/oilskin/{keyset}")], "version 1");
    refused(&[("VAULT_TOKEN", "s.wrong")], "no token of Vault's");
    refused(&[("VAULT_ADDR", "http://127.0.0.1:1")], "no token of Vault's");
    let (code, said) = bench.with(&[("VAULT_TOKEN", "s.wrong")], &["list"]);
    assert!(code == Some(1) && !said.contains("s.wrong"), "{said}");
}

/// E17: versions of the root key that Vault does not unwrap with any more.
#[test]
fn a_root_key_whose_old_versions_are_closed_is_told_and_rewrapping_helps() {
    let bench = Bench::new();
    assert_eq!(bench.keys(&["init"]).0, Some(0));
    bench.vault.bao(&["write", "-f", "transit/keys/root/rotate"]);
    bench.vault.bao(&["write", "transit/keys/root/config", "min_decryption_version=2"]);
    let (code, said) = bench.keys(&["rewrap"]);
    assert!(code == Some(1) && said.contains("min_decryption_version was raised"), "{said}");
    bench.vault.bao(&["write", "transit/keys/root/config", "min_decryption_version=1"]);
    assert_eq!(bench.keys(&["rewrap"]).0, Some(0));
    bench.vault.bao(&["write", "transit/keys/root/config", "min_decryption_version=2"]);
    assert_eq!(bench.keys(&["rewrap"]).0, Some(0));
}

#[test]
fn of_several_writers_one_wins_each_time_and_nothing_is_lost() {
    let bench = Bench::new();
    assert_eq!(bench.keys(&["init"]).0, Some(0));
    let start = |_| bench.command().args(["keys", "rotate"]).stderr(std::process::Stdio::null()).spawn().unwrap();
    for child in (0..4).map(start).collect::<Vec<_>>() {
        assert!(child.wait_with_output().unwrap().status.success());
    }
    let (_, said) = bench.keys(&["list", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&said).unwrap();
    let (epoch, versions) = (listed[0]["epoch"].as_u64().unwrap(), listed[0]["versions"].as_array().unwrap().len());
    assert_eq!(epoch, 1 + 2 * (versions as u64 - 2), "{said}");
}

#[test]
fn twenty_replicas_on_vault_read_one_anothers_tokens_while_keys_rotate() {
    twenty_replicas(Duration::from_secs(20));
}

#[test]
#[ignore = "ten minutes: `make soak`"]
fn twenty_replicas_on_vault_for_ten_minutes() {
    twenty_replicas(Duration::from_secs(600));
}

fn twenty_replicas(length: Duration) {
    let bench = Bench::new();
    assert_eq!(bench.keys(&["init"]).0, Some(0));
    let program = Path::new(env!("CARGO_BIN_EXE_replica"));
    let run = replicas::run(program, &bench.vars(), 17, 3, length);
    println!("{run:?}");
    assert!(run.rotations >= 3 && run.written > 1_000 && run.read > 3_000, "{run:?}");
}

/// The page's policies: a replica's, and that of whoever changes keysets, which holds the first.
fn documented() -> (String, String) {
    let page = std::fs::read_to_string(tools::top().join("docs/keys.md")).unwrap();
    let (_, from) = page.split_once("```hcl\n").unwrap();
    let (all, _) = from.split_once("```").unwrap();
    let (replica, _) = all.split_once("\n# keys init").unwrap();
    (replica.to_owned(), all.to_owned())
}

#[test]
fn the_policies_of_the_page_are_enough_for_what_it_says() {
    let (bench, upstream) = (Bench::new(), Upstream::echo());
    let (replica, all) = documented();
    let role = bench.vault.app_role(&all, "1h", "2h");
    let secret = bench.vault.path("secret_id");
    let own = [
        ("VAULT_TOKEN", ""),
        ("OILSKIN_VAULT_AUTH", "approle"),
        ("OILSKIN_VAULT_ROLE_ID", &role),
        ("OILSKIN_VAULT_SECRET_ID_FILE", &secret),
    ];
    let operator = |words: &[&str]| {
        let mut command = bench.command();
        command.arg("keys").args(words).envs(own).env_remove("VAULT_TOKEN");
        tools::run(&mut command)
    };
    operator(&["init"]);
    operator(&["init", "--name", "other"]);
    assert!(operator(&["list"]).contains("other  epoch 1"));
    operator(&["rotate"]);
    let said = operator(&["list", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&said).unwrap();
    let versions = listed[0]["versions"].as_array().unwrap();
    let retired = versions.iter().find(|version| version["state"] == "retired").unwrap();
    let said = operator(&["destroy", retired["key_id"].as_str().unwrap(), "--yes", "--force"]);
    assert!(said.contains("snapshots and backups") && !said.contains("the policy lacks"), "{said}");
    let metadata = bench.vault.data(&["read", "secret/metadata/oilskin/default"]);
    let kept = metadata["versions"].as_object().unwrap().values().filter(|version| version["destroyed"] == false);
    assert_eq!(kept.count(), 1, "{metadata}");
    until_serving(&bench.replica(&upstream, &replica));
}

/// A deleted key is nobody's outage: whoever deletes it means it.
#[test]
fn a_root_key_that_is_deleted_takes_the_keys() {
    let (bench, upstream) = (Bench::new(), Upstream::echo());
    assert_eq!(bench.keys(&["init"]).0, Some(0));
    let process = bench.replica(&upstream, REPLICA);
    until_serving(&process);
    bench.vault.bao(&["write", "transit/keys/root/config", "deletion_allowed=true"]);
    bench.vault.bao(&["delete", "transit/keys/root"]);
    process.logged(|line| line.contains("denied twice"));
    assert_eq!(ask(&process), 503);
}
