//! What keys go through: stampedes, limits, killed writers, two histories (rows E2, E11 and E17 of the attack catalogue).

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use oilskin_crypto::document::{self, Policy, Share, ShareKey};
use oilskin_crypto::{Cipher, DEFAULT_BYTES, FileRoot, Slab};
use oilskin_tests::client::json;
use oilskin_tests::keys::Keys;
use oilskin_tests::kubernetes::Kubernetes;
use oilskin_tests::process::{self, Process};
use oilskin_tests::tools::Killed;
use oilskin_tests::{Client, Upstream, tools};

const QUICK: &[(&str, &str)] =
    &[("OILSKIN_KEY_REFRESH", "1s"), ("OILSKIN_KEY_ROOT_CHECK", "1s"), ("OILSKIN_FIELDS", "$.ssn")];

fn command(keys: &Keys, words: &[&str]) -> Command {
    let mut command = process::command(keys);
    command.args(words).env("OILSKIN_KEY_REFRESH", "1s").env_remove("OILSKIN_LOG_FORMAT");
    command
}

fn run(keys: &Keys, words: &[&str]) -> (bool, String) {
    let output = command(keys, words).output().unwrap();
    (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

/// E11: a thousand messages that need the same keys make one call, and what comes of it is nobody else's.
#[test]
fn a_stampede_of_a_new_tenant_is_one_read_of_the_store() {
    let (keys, cluster, upstream) = (Keys::new(), Kubernetes::start(), Upstream::echo());
    let document = format!(
        "listeners: [{{name: out, bind: 127.0.0.1:0, direction: egress}}]\nupstreams: {{up: {{url: \"{}\"}}}}\nroutes:\n\
         - {{name: all, match: {{listener: out, path: \"/{{*rest}}\"}}, upstream: up, tenant: {{header: x-tenant}}, \
         fields: [{{select: $.ssn, keyset: \"t-{{tenant}}\"}}]}}\n",
        upstream.url()
    );
    let with_store = |mut command: Command| {
        command.env("OILSKIN_KEY_STORE", "k8s:crm/{keyset}").env("KUBECONFIG", cluster.config());
        command
    };
    for name in ["t-a", "t-b"] {
        let mut init = with_store(process::command(&keys));
        tools::run(init.args(["keys", "init", "--name", name]));
    }
    let process = Process::start_as(with_store(process::command(&keys)), &[("OILSKIN_CONFIG_YAML", &document)]);
    let before = cluster.seen().len();
    std::thread::scope(|scope| {
        for number in 0..40 {
            let address = process.address();
            scope.spawn(move || {
                let mut client = Client::connect(address);
                for _ in 0..25 {
                    let tenant = if number % 2 == 0 { "a" } else { "b" };
                    let fields = [("Content-Type", "application/json"), ("X-Tenant", tenant)];
                    assert_eq!(client.request("POST", "/", &fields, br#"{"ssn":"1"}"#).status(), 200);
                }
            });
        }
    });
    let asked = cluster.seen().split_off(before);
    assert_eq!(asked.len(), 2, "{asked:?}");
    // A token of one tenant is none of the other's, though the same process holds both keys.
    let token = |tenant: &str| {
        let seen = upstream.seen();
        let of = seen.iter().find(|request| request.header("x-tenant") == Some(tenant)).unwrap().text();
        of.split('"').nth(3).unwrap()[5..17].to_owned()
    };
    assert_ne!(token("a"), token("b"), "key ids differ");
}

/// E2: a version that was used up asks for the next one before, and never writes a message more.
#[test]
fn a_version_that_is_used_up_writes_no_more_until_it_is_rotated() {
    let (keys, upstream) = (Keys::empty(), Upstream::echo());
    assert!(run(&keys, &["keys", "init"]).0);
    let own = [("OILSKIN_KEY_MAX_USES", "10"), ("OILSKIN_UPSTREAM", &upstream.url())];
    let process = Process::start(&keys, &[QUICK, &own].concat());
    let ask = || json(process.address(), "POST", "/", r#"{"ssn":"1"}"#);
    for _ in 0..8 {
        assert_eq!(ask().status(), 200);
    }
    tools::until("the metric", || {
        process.metrics_page().contains("oilskin_keyset_rotation_overdue{keyset=\"default\"} 1").then_some(())
    });
    assert_eq!([ask().status(), ask().status()], [200, 200]);
    for _ in 0..5 {
        let refused = ask();
        assert_eq!((refused.status(), refused.code().as_str()), (503, "key_unavailable"));
    }
    assert_eq!(upstream.seen().len(), 10);
    assert!(run(&keys, &["keys", "rotate"]).0);
    tools::until("the next version", || (ask().status() == 200).then_some(()));
}

/// E17: whoever changes keys may die at any moment; every document that is left opens, with every key that was in it.
#[test]
fn a_writer_that_is_killed_at_any_moment_leaves_every_token_readable() {
    let (keys, upstream) = (Keys::empty(), Upstream::echo());
    assert!(run(&keys, &["keys", "init"]).0);
    let process = Process::start(&keys, &[QUICK, &[("OILSKIN_UPSTREAM", &upstream.url())]].concat());
    let sample = keys.folder().join("sample.ndjson");
    let mut records = String::new();
    for round in 0..40_u64 {
        assert_eq!(json(process.address(), "POST", "/", r#"{"ssn":"1"}"#).status(), 200);
        records.push_str(&upstream.seen().last().unwrap().text());
        records.push('\n');
        let words: &[&str] = if round % 4 == 0 { &["keys", "rotate"] } else { &["keys", "rewrap"] };
        let mut writer = Killed(command(&keys, words).stderr(std::process::Stdio::null()).spawn().unwrap());
        tools::pause(Duration::from_micros(round * 1_300));
        writer.0.kill().unwrap();
        writer.0.wait().unwrap();
        let (good, said) = run(&keys, &["keys", "list"]);
        assert!(good, "{said}");
    }
    std::fs::write(&sample, records).unwrap();
    let mut check = command(&keys, &["rewrap", "--dry-run", sample.to_str().unwrap()]);
    let output = check.env("OILSKIN_FIELDS", "$.ssn").env("OILSKIN_UPSTREAM", "http://127.0.0.1:1").output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success() && said.contains("40 documents"), "{said}");
    // And one that is not killed goes on with whatever was left.
    let (good, said) = run(&keys, &["keys", "rotate"]);
    assert!(good, "{said}");
    assert_eq!(json(process.address(), "POST", "/", r#"{"ssn":"1"}"#).status(), 200);
}

/// Two stores that went apart: a replica that is moved from one to the other believes the one that it knows.
#[test]
fn another_history_of_the_same_epoch_is_not_taken() {
    let (keys, upstream) = (Keys::empty(), Upstream::echo());
    assert!(run(&keys, &["keys", "init"]).0);
    let path = keys.folder().join("keys/default.json");
    let fork = std::fs::read(&path).unwrap();
    assert!(run(&keys, &["keys", "rewrap"]).0);
    let one = std::fs::read(&path).unwrap();
    std::fs::write(&path, fork).unwrap();
    assert!(run(&keys, &["keys", "rewrap"]).0);
    let other = std::fs::read(&path).unwrap();
    std::fs::write(&path, &one).unwrap();
    let process = Process::start(&keys, &[QUICK, &[("OILSKIN_UPSTREAM", &upstream.url())]].concat());
    std::fs::write(&path, &other).unwrap();
    process.logged(|line| line.contains("its epoch did not grow"));
    assert_eq!(json(process.address(), "POST", "/", r#"{"ssn":"1"}"#).status(), 200);
    std::fs::write(&path, &one).unwrap();
    process.logged(|line| line.contains("keys are refreshed again"));
}

/// A controller puts the old document back: the new version's tokens stay readable where it was seen, and it is told.
#[test]
fn what_is_put_back_by_someone_else_is_told_by_who_knows_better() {
    let (keys, upstream) = (Keys::new(), Upstream::echo());
    keys.add("other", Cipher::Aegis256, false);
    let path = keys.folder().join("keys/default.json");
    let process = Process::start(&keys, &[QUICK, &[("OILSKIN_UPSTREAM", &upstream.url())]].concat());
    let asks = || assert_eq!(json(process.address(), "POST", "/", r#"{"ssn":"1"}"#).status(), 200);
    let good = std::fs::read(&path).unwrap();
    let other = std::fs::read(keys.folder().join("keys/other.json")).unwrap();
    let text = String::from_utf8(good.clone()).unwrap();
    for (bytes, said) in [
        (other, "another keyset's"),
        (good[..good.len() / 2].to_vec(), "cut short"),
        (text.replacen("\"epoch\":1", "\"epoch\":2", 1).into_bytes(), "MAC does not verify"),
        (text.replacen("\"v\":1", "\"v\":2", 1).into_bytes(), "newer than this version reads"),
        (vec![b'x'; 2 << 20], "longer than 1 MiB"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        process.logged(|line| line.contains(said));
        asks();
    }
    std::fs::remove_file(&path).unwrap();
    process.logged(|line| line.contains("does not exist in the store"));
    asks();
    assert_eq!(json(process.health, "GET", "/live", "").status(), 200);
    std::fs::write(&path, good).unwrap();
    process.logged(|line| line.contains("keys are refreshed again"));
}

/// Of three shares one unwraps and is wrong: the two others open the keyset, and with it alone nothing does.
#[test]
fn a_bad_share_among_good_ones_is_done_without() {
    let (keys, upstream) = (Keys::empty(), Upstream::echo());
    let slab = Slab::new(DEFAULT_BYTES, true).unwrap();
    let paths: [PathBuf; 3] = ["a", "b", "c"].map(|name| keys.folder().join(name));
    let roots = paths.each_ref().map(|path| FileRoot::create(path, &slab).unwrap());
    let uris = |paths: &[PathBuf]| paths.iter().map(|path| format!("file:{} ", path.display())).collect::<String>();
    let with = |mut command: Command, paths: &[PathBuf]| {
        command.env("OILSKIN_ROOT_KEY", uris(paths)).env("OILSKIN_ROOT_HOLD", "quorum:2");
        command
    };
    tools::run(&mut with(command(&keys, &["keys", "init"]), &paths));
    let path = keys.folder().join("keys/default.json");
    let stored = std::fs::read(&path).unwrap();
    let mut opened = document::files::opened(&stored, "default", &roots, &slab, Policy::default()).unwrap();
    let mut entries = opened.document().roots.clone();
    let mut wrong = ShareKey::blank(&slab).unwrap();
    wrong.bytes_mut().fill(7);
    let share = Share { name: "default".to_owned(), k: 2, x: entries[0].x };
    entries[0].wrapped = roots[0].wrap_share(&wrong, &share).unwrap();
    opened.set_roots(2, entries).unwrap();
    std::fs::write(&path, opened.write(None).unwrap()).unwrap();
    let url = upstream.url();
    let vars = [QUICK, &[("OILSKIN_UPSTREAM", &url)]].concat();
    let process = Process::start_as(with(process::command(&keys), &paths), &vars);
    assert_eq!(json(process.address(), "POST", "/", r#"{"ssn":"1"}"#).status(), 200);
    let output = with(command(&keys, &["keys", "rewrap"]), &paths[..2]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("MAC does not verify"), "{said}");
    // Whoever rewraps is rid of it.
    tools::run(&mut with(command(&keys, &["keys", "rewrap"]), &paths));
    tools::run(&mut with(command(&keys, &["keys", "rotate"]), &paths[..2]));
}

/// "May I destroy this one?": not while a process here reads its tokens.
#[test]
fn what_is_read_in_traffic_shows_and_is_not_destroyed() {
    let (keys, upstream) = (Keys::aged(1), Upstream::echo());
    let admin = process::free_port().to_string();
    let own = [("OILSKIN_ADMIN_LISTEN", admin.as_str()), ("OILSKIN_UPSTREAM", &upstream.url())];
    let short = [("OILSKIN_KEY_STALE_ENCRYPT", "2s"), ("OILSKIN_KEY_STALE_DECRYPT", "2s")];
    let process = Process::start(&keys, &[QUICK, &own, &short].concat());
    assert_eq!(json(process.address(), "POST", "/", r#"{"ssn":"1"}"#).status(), 200);
    let asked = |words: &[&str]| {
        let mut command = command(&keys, words);
        command.env("OILSKIN_ADMIN_LISTEN", &admin).env("OILSKIN_KEY_ROOT_CHECK", "1s").envs(short);
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let (_, said) = asked(&["keys", "list"]);
    assert!(said.contains("written with 1 times here, read 1 times, last 0 s ago"), "{said}");
    let (_, said) = asked(&["keys", "list", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&said).unwrap();
    let first = listed[0]["versions"][0]["key_id"].as_str().unwrap();
    assert!(
        listed[0]["versions"][0]["last_read"].as_u64().is_some() && listed[0]["versions"][1]["last_read"].is_null()
    );
    assert!(asked(&["keys", "rotate"]).0);
    tools::pause(Duration::from_secs(2));
    let (good, said) = asked(&["keys", "destroy", first, "--yes"]);
    assert!(!good && said.contains("were read within a week"), "{said}");
    let (good, said) = asked(&["keys", "destroy", &first[..6], "--yes"]);
    assert!(!good && said.contains("at least 8 characters"), "{said}");
    // What the store has lost and a process holds is to be put back, not made anew.
    let (stored, away) = (keys.folder().join("keys/default.json"), keys.folder().join("away"));
    std::fs::rename(&stored, &away).unwrap();
    for words in [&["keys", "init"][..], &["keys", "init", "--if-missing"]] {
        let (good, said) = asked(words);
        assert!(!good && said.contains("the store has lost its document"), "{said}");
    }
    std::fs::rename(away, stored).unwrap();
    assert!(asked(&["keys", "init", "--if-missing"]).0);
    drop(process);
    let (good, said) = asked(&["keys", "destroy", first, "--yes"]);
    assert!(good && said.contains("No running process was there"), "{said}");
}
