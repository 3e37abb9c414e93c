//! The life of a key: rotation, destruction, other roots, by the command line and beside running processes.

use std::process::Command;
use std::time::Duration;

use oilskin_crypto::document::{self, Line, Policy};
use oilskin_crypto::{Bound, Cipher, FieldSpec, FileRoot, FileStore, Message, Slab, Value};
use oilskin_tests::client::json;
use oilskin_tests::clock::Clock;
use oilskin_tests::keys::Keys;
use oilskin_tests::process::{self, Process};
use oilskin_tests::upstream::respond;
use oilskin_tests::{Nginx, Upstream, tools};

/// A refresh every second, so that a rotation takes three.
pub(super) const QUICK: &[(&str, &str)] =
    &[("OILSKIN_KEY_REFRESH", "1s"), ("OILSKIN_KEY_ROOT_CHECK", "1s"), ("OILSKIN_FIELDS", "$.ssn")];

/// Keys whose document asks for that refresh, too.
pub(super) fn quick_keys() -> Keys {
    let keys = Keys::empty();
    let (code, said) = run(&keys, &["init"]);
    assert_eq!(code, Some(0), "{said}");
    keys
}

/// `oilskin keys …` over these keys.
pub(super) fn command(keys: &Keys, words: &[&str]) -> Command {
    let mut command = process::command(keys);
    command.arg("keys").args(words).env("OILSKIN_KEY_REFRESH", "1s").env_remove("OILSKIN_LOG_FORMAT");
    command
}

pub(super) fn run(keys: &Keys, words: &[&str]) -> (Option<i32>, String) {
    let output = command(keys, words).output().unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

fn listed(keys: &Keys) -> serde_json::Value {
    let (code, said) = run(keys, &["list", "--json"]);
    assert_eq!(code, Some(0), "{said}");
    serde_json::from_str::<serde_json::Value>(&said).unwrap()[0].take()
}

/// Key ids of a line by state.
pub(super) fn ids(keys: &Keys, line: &str, state: &str) -> Vec<String> {
    let document = listed(keys);
    let versions = document["versions"].as_array().unwrap().iter();
    let chosen = versions.filter(|version| version["line"] == line && version["state"] == state);
    chosen.map(|version| version["key_id"].as_str().unwrap().to_owned()).collect()
}

/// The bytes of key id that a token carries, as hexadecimal digits.
pub(super) fn key_id(token: &str) -> String {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(token.strip_prefix("oil1.").unwrap()).unwrap();
    bytes[2..10].iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn last_token(upstream: &Upstream) -> String {
    let seen = upstream.seen().last().unwrap().text();
    let document: serde_json::Value = serde_json::from_str(&seen).unwrap();
    document["ssn"].as_str().unwrap().to_owned()
}

/// An upstream that answers `{"ssn": token}` with whatever token is put into it.
fn answering(token: &str) -> Upstream {
    let body = format!("{{\"ssn\":\"{token}\"}}");
    Upstream::scripted(move |_, stream| {
        respond(stream, "200 OK", &[("Content-Type", "application/json")], body.as_bytes())
    })
}

#[test]
fn a_rotation_reaches_a_running_process_and_no_request_fails() {
    let (keys, upstream) = (quick_keys(), Upstream::echo());
    let process = Process::start(&keys, &[QUICK, &[("OILSKIN_UPSTREAM", &upstream.url())]].concat());
    let ask = || {
        let answer = json(process.address(), "POST", "/", r#"{"ssn":"123"}"#);
        assert_eq!((answer.status(), answer.text().as_str()), (200, r#"{"ssn":"123"}"#));
        last_token(&upstream)
    };
    let first = key_id(&ask());
    assert_eq!(ids(&keys, "field", "active"), std::slice::from_ref(&first));
    let mut rotating = command(&keys, &["rotate"]).spawn().unwrap();
    let mut seen = vec![first.clone()];
    let second = tools::until("a token of the new version", || {
        let id = key_id(&ask());
        if seen.last() != Some(&id) {
            seen.push(id);
        }
        (seen.len() > 1).then(|| seen[1].clone())
    });
    assert!(rotating.wait().unwrap().success());
    assert_eq!((ids(&keys, "field", "active"), ids(&keys, "field", "retired")), (vec![second], vec![first]));
    assert_eq!(ids(&keys, "lookup", "active").len(), 1, "the other line is as it was");
    assert!(process.ready().contains("ready"), "{}", process.ready());
}

#[test]
fn a_token_of_a_version_that_is_newer_than_what_is_held_makes_it_be_fetched() {
    let keys = Keys::new();
    let slab = Slab::new(1 << 16, true).unwrap();
    let roots = [FileRoot::read(&keys.folder().join("root.key"), &slab).unwrap()];
    let store = FileStore::new(&keys.folder().join("keys"));
    let before = store.read("default").unwrap();
    let mut opened = document::files::opened(&before, "default", &roots, &slab, Policy::default()).unwrap();
    let id = opened.add_pending(Line::Field, Cipher::XChaCha20Poly1305, 1).unwrap();
    opened.promote(&id, 2).unwrap();
    let after = opened.write(None).unwrap();
    let keyset = document::files::open(&after, "default", &roots, &slab, Policy::default()).unwrap();
    let mut token = Vec::new();
    let spec = FieldSpec::new(vec!["ssn".to_owned()]);
    Message::new(&oilskin_crypto::KeysetHandle::of(keyset), None, 0)
        .encrypt(&spec, Value::Text("123"), Bound::default(), &mut token)
        .unwrap();
    let upstream = answering(std::str::from_utf8(&token).unwrap());
    // It would be read again in a minute.
    let vars = [("OILSKIN_UPSTREAM", upstream.url()), ("OILSKIN_FIELDS", "$.ssn".to_owned())];
    let process = Process::start(&keys, &vars.each_ref().map(|(name, value)| (*name, value.as_str())));
    let ask = || json(process.address(), "GET", "/", "");
    tools::pause(Duration::from_secs(5));
    let refused = ask();
    assert_eq!((refused.status(), refused.code().as_str()), (502, "decrypt_failed"), "a version that nobody has");
    store.write("default", Some(&before), &after).unwrap();
    let refused = ask();
    assert_eq!(
        refused.code(),
        "decrypt_failed",
        "the document was read a moment ago, and is not read with every token"
    );
    tools::pause(Duration::from_secs(5));
    let answer = ask();
    assert_eq!((answer.status(), answer.text().as_str()), (200, r#"{"ssn":"123"}"#), "{}", process.log().join("\n"));
}

#[test]
fn a_token_of_an_unknown_version_is_key_unavailable_where_the_store_is_gone() {
    let keys = quick_keys();
    let foreign = Keys::new();
    let mut token = Vec::new();
    let spec = FieldSpec::new(vec!["ssn".to_owned()]);
    Message::new(&foreign.handle("default"), None, 0)
        .encrypt(&spec, Value::Text("123"), Bound::default(), &mut token)
        .unwrap();
    let upstream = answering(std::str::from_utf8(&token).unwrap());
    let process = Process::start(&keys, &[QUICK, &[("OILSKIN_UPSTREAM", &upstream.url())]].concat());
    assert_eq!(json(process.address(), "GET", "/", "").code(), "decrypt_failed");
    std::fs::rename(keys.folder().join("keys"), keys.folder().join("away")).unwrap();
    process.logged(|line| line.contains("cannot refresh keys"));
    assert_eq!(json(process.address(), "GET", "/", "").code(), "key_unavailable");
    tools::until("not ready", || process.ready().contains("not refreshed").then_some(()));
    std::fs::rename(keys.folder().join("away"), keys.folder().join("keys")).unwrap();
    tools::until("ready again", || (!process.ready().contains("not refreshed")).then_some(()));
    assert_eq!(json(process.address(), "GET", "/", "").code(), "decrypt_failed");
}

/// Store and roots gone: everything is served for as long as was declared, then reading, then nothing; and it comes back.
#[test]
fn an_outage_is_survived_for_as_long_as_was_declared() {
    let (keys, upstream) = (quick_keys(), Upstream::echo());
    let budgets = [("OILSKIN_KEY_STALE_ENCRYPT", "4s"), ("OILSKIN_KEY_STALE_DECRYPT", "8s")];
    let process = Process::start(&keys, &[QUICK, &budgets, &[("OILSKIN_UPSTREAM", &upstream.url())]].concat());
    let ask = |body: &str| json(process.address(), "POST", "/", body);
    assert_eq!(ask(r#"{"ssn":"123"}"#).status(), 200);
    let token = last_token(&upstream);
    let reading = answering(&token);
    let reader = Process::start(&keys, &[QUICK, &budgets, &[("OILSKIN_UPSTREAM", &reading.url())]].concat());
    let read = || json(reader.address(), "GET", "/", "");
    let away = || std::fs::rename(keys.folder().join("keys"), keys.folder().join("away")).unwrap();
    away();
    let gone = std::time::Instant::now();
    let mut served = 0;
    let refused = loop {
        let answer = ask(r#"{"ssn":"123"}"#);
        match answer.status() {
            200 => served += 1,
            _ => break answer,
        }
        assert_eq!(read().status(), 200);
    };
    // From its last answer, which is up to a second older than the outage.
    let after = gone.elapsed();
    assert!(served > 10 && after > Duration::from_millis(2_500), "{served} in {after:?}");
    assert_eq!((refused.status(), refused.code().as_str()), (503, "key_unavailable"));
    assert!(process.metrics_page().contains("oilskin_keyset_left_seconds{keyset=\"default\",op=\"encrypt\"} 0"));
    assert_eq!(read().status(), 200, "what is stored can still be read");
    let refused = tools::until("the end of reading", || Some(read()).filter(|answer| answer.status() != 200));
    assert_eq!((refused.status(), refused.code().as_str()), (503, "key_unavailable"));
    assert!(gone.elapsed() > Duration::from_millis(6_500), "{:?}", gone.elapsed());
    for _ in 0..20 {
        assert_eq!((read().code(), ask(r#"{"ssn":"1"}"#).code()), ("key_unavailable".into(), "key_unavailable".into()));
    }
    assert_eq!(json(reader.health, "GET", "/live", "").status(), 200);
    assert_eq!(json(reader.health, "GET", "/ready", "").status(), 503);
    std::fs::rename(keys.folder().join("away"), keys.folder().join("keys")).unwrap();
    tools::until("keys again", || (read().status() == 200 && ask(r#"{"ssn":"1"}"#).status() == 200).then_some(()));
    tools::until("ready again", || (json(reader.health, "GET", "/ready", "").status() == 200).then_some(()));
}

#[test]
fn a_version_is_destroyed_only_when_it_may_be_and_says_what_is_left() {
    let (keys, upstream) = (quick_keys(), Upstream::echo());
    let process = Process::start(&keys, &[QUICK, &[("OILSKIN_UPSTREAM", &upstream.url())]].concat());
    json(process.address(), "POST", "/", r#"{"ssn":"123"}"#);
    let token = last_token(&upstream);
    let first = key_id(&token);
    let refused = |words: &[&str], why: &str| {
        let (code, said) = run(&keys, words);
        assert!(code == Some(1) && said.contains(why), "{code:?} {said}");
    };
    refused(&["destroy", &first, "--yes"], "is active");
    refused(&["destroy", "0000000000000000", "--yes"], "no version of that key id");
    refused(&["destroy", "00", "--yes"], "at least 8 characters");
    assert_eq!(run(&keys, &["rotate"]).0, Some(0));
    refused(&["destroy", &first, "--yes"], "within stale_decrypt");
    refused(&["destroy", &first, "--force"], "say --yes");
    let (code, said) = run(&keys, &["destroy", &first, "--force", "--yes"]);
    assert_eq!(code, Some(0), "{said}");
    for part in ["is destroyed", "Not shredded", "backups and snapshots"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(ids(&keys, "field", "destroyed"), std::slice::from_ref(&first));
    assert_eq!(run(&keys, &["destroy", &first, "--force", "--yes"]).0, Some(0), "a second time changes nothing");
    let reading = answering(&token);
    let reader = Process::start(&keys, &[QUICK, &[("OILSKIN_UPSTREAM", &reading.url())]].concat());
    assert_eq!(json(reader.address(), "GET", "/", "").code(), "decrypt_failed");
    let text = std::fs::read_to_string(keys.folder().join("keys/default.json")).unwrap();
    assert!(text.contains("\"sealed\":null"), "{text}");
}

fn calls(process: &Process) -> u64 {
    let page = process.metrics_page();
    let lines = page.lines().filter(|line| line.starts_with("oilskin_provider_requests_total{"));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[test]
fn a_hundred_thousand_requests_ask_no_root_and_no_store() {
    let (keys, store) = (Keys::new(), Nginx::store());
    let vars = [("OILSKIN_KEY_REFRESH", "30m"), ("OILSKIN_KEY_ROOT_CHECK", "30m"), ("OILSKIN_FIELDS", "$.ssn, $.name")];
    let process =
        Process::start(&keys, &[&vars[..], &[("OILSKIN_UPSTREAM", &format!("http://{}", store.address()))]].concat());
    let body = r#"{"ssn":"123","name":"Änne","more":[1,2,3]}"#;
    assert!(json(process.address(), "PUT", "/record.json", body).status() < 300);
    assert_eq!(json(process.address(), "GET", "/record.json", "").text(), body);
    let before = calls(&process);
    assert!(before >= 2, "the root and the store, at the start");
    let url = format!("http://{}/record.json", process.address());
    let said = tools::run(tools::program("h2load").args(["--h1", "-n", "100000", "-c", "8", &url]));
    assert!(said.contains("100000 succeeded, 0 failed, 0 errored"), "{said}");
    assert_eq!(calls(&process), before);
}

#[test]
fn what_is_due_shows_and_a_cron_job_rotates_it_once_a_day() {
    let (keys, upstream) = (Keys::aged(1), Upstream::echo());
    let process = Process::start(&keys, &[QUICK, &[("OILSKIN_UPSTREAM", &upstream.url())]].concat());
    let overdue = |value: u8| {
        let line = format!("oilskin_keyset_rotation_overdue{{keyset=\"default\"}} {value}");
        tools::until("the metric", || process.metrics_page().contains(&line).then_some(()));
    };
    overdue(1);
    let (code, said) = run(&keys, &["rotate", "--if-due"]);
    assert!(code == Some(0) && said.contains("is active, epoch 3"), "{said}");
    overdue(0);
    let (code, said) = run(&keys, &["rotate", "--if-due"]);
    assert!(code == Some(0) && said.contains("nothing is due"), "{said}");
}

/// A job that was stopped in the middle of a rotation: the next one goes on.
#[test]
fn a_rotation_that_was_killed_is_gone_on_with() {
    let keys = quick_keys();
    let mut first = tools::Killed(command(&keys, &["rotate"]).spawn().unwrap());
    let pending = tools::until("a pending version", || ids(&keys, "field", "pending").pop());
    first.0.kill().unwrap();
    first.0.wait().unwrap();
    assert_eq!(run(&keys, &["rotate", "--if-due"]).0, Some(0));
    assert_eq!(ids(&keys, "field", "active"), [pending]);
}

#[test]
fn nothing_is_due_of_keys_that_are_young() {
    let keys = quick_keys();
    let (code, said) = run(&keys, &["rotate", "--if-due"]);
    assert!(code == Some(0) && said.contains("nothing is due"), "{said}");
    assert_eq!(run(&keys, &["rotate", "--if-due", "--line", "lookup"]).0, Some(2), "never by a timer");
}

/// A clock makes a rotation due, at most one a day; nothing that is held depends on it.
#[test]
fn a_clock_that_jumps_either_way_takes_no_key_and_makes_one_rotation_at_most() {
    let (keys, upstream, clock) = (quick_keys(), Upstream::echo(), Clock::new());
    let clock_vars = clock.vars();
    let clock_vars: Vec<(&str, &str)> =
        clock_vars.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let own = [("OILSKIN_KEY_ROTATOR", "sidecars"), ("OILSKIN_UPSTREAM", &upstream.url())];
    let process = Process::start(&keys, &[QUICK, &own, &clock_vars].concat());
    let epoch = || listed(&keys)["epoch"].as_u64().unwrap();
    let serves = || {
        // Three refreshes at least.
        for _ in 0..35 {
            assert_eq!(json(process.address(), "POST", "/", r#"{"ssn":"1"}"#).status(), 200);
            tools::pause(Duration::from_millis(100));
        }
        assert!(process.ready().contains("true"), "{}", process.ready());
    };
    clock.set("+1d");
    serves();
    assert_eq!(epoch(), 1, "a day is not ninety");
    clock.set("-1d");
    serves();
    assert_eq!(epoch(), 1);
    clock.set("+100d");
    tools::until("the rotation that is due", || (epoch() == 3).then_some(()));
    // The document is from the future now: whatever the clock says is not believed before that.
    clock.set("+0d");
    serves();
    clock.set("+99d");
    serves();
    assert_eq!(epoch(), 3);
}
