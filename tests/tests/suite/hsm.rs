//! Root keys in a token: SoftHSM behind a module that fails as it is told. Each test starts the program, so each has a context of its own.

use std::path::Path;
use std::time::{Duration, Instant};

use oilskin_tests::client::json;
use oilskin_tests::hsm::{Hsm, PIN, SOFTHSM};
use oilskin_tests::process::Process;
use oilskin_tests::{Upstream, tools};

/// `oilskin keys …` with this root, or another.
pub(super) fn keys(hsm: &Hsm, root: Option<&str>, words: &[&str]) -> (Option<i32>, String) {
    let mut command = hsm.command();
    command.arg("keys").args(words);
    if let Some(root) = root {
        command.env("OILSKIN_ROOT_KEY", root);
    }
    let output = command.env_remove("OILSKIN_LOG_FORMAT").output().unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

/// A token with a keyset under its key.
pub(super) fn made() -> Hsm {
    let hsm = Hsm::new();
    let (code, said) = keys(&hsm, None, &["init"]);
    assert_eq!(code, Some(0), "{said}");
    hsm
}

pub(super) fn start(hsm: &Hsm, upstream: &Upstream) -> Process {
    let vars = [
        ("OILSKIN_UPSTREAM", upstream.url()),
        ("OILSKIN_FIELDS", "$.ssn".to_owned()),
        ("OILSKIN_KEY_ROOT_CHECK", "1s".to_owned()),
    ];
    Process::start_as(hsm.command(), &vars.each_ref().map(|(name, value)| (*name, value.as_str())))
}

/// The same once it has its keys: it listens before.
pub(super) fn started(hsm: &Hsm, upstream: &Upstream) -> Process {
    let process = start(hsm, upstream);
    tools::until("keys", || serves(&process).then_some(()));
    process
}

pub(super) fn serves(process: &Process) -> bool {
    let answer = json(process.address(), "POST", "/", r#"{"ssn":"123"}"#);
    answer.status() == 200 && answer.text() == r#"{"ssn":"123"}"#
}

/// Waits until roots have been asked anew, successfully.
pub(super) fn asked_again(hsm: &Hsm) {
    let before = hsm.calls("C_Decrypt", "0x0");
    // Two calls each: how long it is, and it.
    tools::until("the roots to be asked", || (hsm.calls("C_Decrypt", "0x0") >= before + 4).then_some(()));
}

/// What a process says that cannot start.
fn ends(hsm: &Hsm, root: &str) -> (Option<i32>, String) {
    let mut command = hsm.command();
    command.env("OILSKIN_ROOT_KEY", root).env("OILSKIN_LISTEN", "127.0.0.1:0");
    command.env("OILSKIN_HEALTH_LISTEN", "off").env("OILSKIN_METRICS_LISTEN", "off");
    command.env("OILSKIN_FIELDS", "$.ssn").env("OILSKIN_UPSTREAM", "http://127.0.0.1:9");
    let output = command.output().unwrap();
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

#[test]
fn a_keyset_under_a_token_is_made_used_rotated_rewrapped_and_opened_after_a_restart() {
    let (hsm, upstream) = (made(), Upstream::echo());
    let process = started(&hsm, &upstream);
    let document = std::fs::read_to_string(hsm.path("keys/default.json")).unwrap();
    assert!(document.contains("\"kind\":\"pkcs11\""), "{document}");
    let (code, said) = keys(&hsm, None, &["rotate"]);
    assert!(code == Some(0) && said.contains("is active"), "{said}");
    let (code, said) = keys(&hsm, None, &["rewrap"]);
    assert_eq!(code, Some(0), "{said}");
    asked_again(&hsm);
    assert!(serves(&process));
    drop(process);
    drop(started(&hsm, &upstream));
    let log = process_log(&hsm);
    assert!(!log.contains(PIN) && !log.contains("extractable"), "{log}");
}

/// A short run's whole log.
fn process_log(hsm: &Hsm) -> String {
    let process = started(hsm, &Upstream::echo());
    process.log().join("\n")
}

#[test]
fn a_process_logs_in_once_and_keeps_its_session() {
    let (hsm, upstream) = (made(), Upstream::echo());
    let before = hsm.calls("C_Login", "");
    let process = started(&hsm, &upstream);
    (0..3).for_each(|_| asked_again(&hsm));
    assert!(serves(&process));
    assert_eq!((hsm.calls("C_Login", "") - before, hsm.calls("C_Login", "0x0")), (1, before + 1));
}

#[test]
fn two_roots_of_one_module_share_it_and_both_are_needed_where_all_are() {
    let hsm = Hsm::new();
    hsm.add_token("second");
    hsm.add_key("second", "root", "01");
    let second = hsm.uri_of("token=second;object=root;id=%01", &tools::p11_fault(), "");
    let both = format!("{} {second}", hsm.uri());
    let all = |roots: &str, words: &[&str]| {
        let mut command = hsm.command();
        command.arg("keys").args(words).env("OILSKIN_ROOT_KEY", roots).env("OILSKIN_ROOT_HOLD", "all");
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let (code, said) = all(&both, &["init"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(all(&both, &["rotate"]).0, Some(0));
    hsm.tell("C_DecryptInit 0x30\n");
    let (code, said) = all(&both, &["rewrap"]);
    assert!(code == Some(1) && said.contains("DeviceError"), "{said}");
}

#[test]
fn a_wrong_pin_is_tried_once_and_again_when_its_file_has_another() {
    let (hsm, upstream) = (made(), Upstream::echo());
    let before = hsm.calls("C_Login", "");
    hsm.write_pin("wrong-999999");
    let process = start(&hsm, &upstream);
    process.logged(|line| line.contains("the token has refused the PIN") || line.contains("the token refused the PIN"));
    // Long enough for several refreshes, each of three attempts.
    tools::pause(Duration::from_secs(4));
    assert_eq!(hsm.calls("C_Login", "") - before, 1, "exactly one attempt");
    assert_eq!(hsm.calls("C_Login", "0xa0"), 1);
    assert_eq!(json(process.health, "GET", "/live", "").status(), 200);
    assert_eq!(json(process.health, "GET", "/ready", "").status(), 503);
    assert_eq!(json(process.address(), "POST", "/", r#"{"ssn":"1"}"#).code(), "key_unavailable");
    // Written again, but the same.
    hsm.write_pin("wrong-999999");
    tools::pause(Duration::from_secs(6));
    assert_eq!(hsm.calls("C_Login", "") - before, 1, "the same PIN again is the same PIN");
    hsm.write_pin(PIN);
    tools::until("keys", || serves(&process).then_some(()));
    assert_eq!(hsm.calls("C_Login", "") - before, 2);
    let log = process.log().join("\n");
    assert!(!log.contains("wrong-999999") && !log.contains(PIN), "{log}");
}

#[test]
fn a_token_whose_pin_is_locked_or_would_be_by_one_more_attempt_is_not_logged_into() {
    let hsm = made();
    let before = hsm.calls("C_Login", "");
    for (word, text) in [("final-try", "would lock the token"), ("locked", "has locked the user's PIN")] {
        hsm.tell(&format!("C_GetTokenInfo {word}\n"));
        let (code, said) = keys(&hsm, None, &["rewrap"]);
        assert!(code == Some(1) && said.contains(text), "{said}");
        let process = start(&hsm, &Upstream::echo());
        process.logged(|line| line.contains(text));
        assert_eq!(json(process.health, "GET", "/ready", "").status(), 503);
    }
    assert_eq!(hsm.calls("C_Login", ""), before);
}

#[test]
fn a_start_with_something_to_change_says_what_and_ends() {
    let hsm = made();
    hsm.add_other_key("plain", "AES:32", &["--usage-decrypt", "--extractable"]);
    hsm.add_other_key("short", "AES:16", &["--sensitive", "--usage-decrypt"]);
    hsm.add_other_key("twice", "AES:32", &["--sensitive", "--usage-decrypt"]);
    hsm.add_other_key("twice", "AES:32", &["--sensitive", "--usage-decrypt"]);
    let fault = tools::p11_fault();
    let key = |name: &str| hsm.uri_of(&format!("token=oil;object={name}"), &fault, "");
    for (root, text) in [
        (hsm.uri_of("token=oil;object=root", Path::new("/nowhere/lib.so"), ""), "there is no PKCS#11 module"),
        (hsm.uri_of("token=oil;object=root", Path::new("/etc/hostname"), ""), "cannot be loaded"),
        (hsm.uri_of("token=else;object=root", &fault, ""), "no such token; it has \\\"oil\\\""),
        (key("none"), "no such secret key"),
        (hsm.uri_of("token=oil;object=root;id=%09", &fault, ""), "no such secret key"),
        (key("plain"), "CKA_SENSITIVE"),
        (key("short"), "AES with 32 bytes"),
        (key("twice"), "2 keys fit"),
    ] {
        // Through `init`, which needs the root, and by a process that starts with it.
        let mut command = hsm.command();
        let output = command.args(["keys", "init", "--name", "other", "--another-root"]).env("OILSKIN_ROOT_KEY", &root);
        let output = output.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap().replace('"', "\\\"");
        assert!(output.status.code() == Some(1) && said.contains(text), "{root}: {said}");
        assert!(!hsm.path("keys/other.json").exists());
    }
    // A root that the document names is asked at the start; there the process ends.
    hsm.tell("C_EncryptInit 0x70\n");
    let (code, said) = ends(&hsm, &hsm.uri());
    assert!(code == Some(78) && said.contains("does not offer AES-GCM") && said.contains("hsm probe"), "{said}");
    hsm.tell("C_FindObjects decoy\n");
    assert_eq!(ends(&hsm, &hsm.uri()).0, Some(78), "the key under that name is another than the one that wrapped");
}

#[test]
fn a_key_that_may_leave_its_token_is_warned_of() {
    let (hsm, upstream) = (Hsm::new(), Upstream::echo());
    hsm.add_other_key("loose", "AES:32", &["--sensitive", "--usage-decrypt", "--extractable"]);
    let root = hsm.uri_of("token=oil;object=loose", &tools::p11_fault(), "");
    let output = hsm.command().args(["keys", "init"]).env("OILSKIN_ROOT_KEY", &root).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(0), "{said}");
    // A person who made a key so should hear it now, not from the proxy's log.
    assert!(said.contains("oilskin: warning: a root key is extractable"), "{said}");
    assert!(said.lines().all(|line| line.starts_with("oilskin: warning: ")), "and nothing else: {said}");
    let mut command = hsm.command();
    command.env("OILSKIN_UNSAFE_UNLOCKED_KEYS", "false");
    let output = command.args(["keys", "init", "--name", "other", "--another-root"]).output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap()), (Some(0), String::new()));
    // A program finds its document alone.
    let output = hsm.command().args(["keys", "rewrap", "--json"]).env("OILSKIN_ROOT_KEY", &root).output().unwrap();
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap()), (Some(0), String::new()));
    let mut command = hsm.command();
    command.env("OILSKIN_ROOT_KEY", root);
    let vars = [("OILSKIN_UPSTREAM", upstream.url()), ("OILSKIN_FIELDS", "$.ssn".to_owned())];
    let process = Process::start_as(command, &vars.each_ref().map(|(name, value)| (*name, value.as_str())));
    process.logged(|line| line.contains("a root key is extractable"));
    tools::until("keys", || serves(&process).then_some(()));
}

#[test]
fn a_profile_that_would_use_one_iv_for_ever_is_refused() {
    let hsm = Hsm::new();
    let (code, said) =
        keys(&hsm, Some(&hsm.uri_of("token=oil;object=root", Path::new(SOFTHSM), "&profile=cloudhsm")), &["init"]);
    assert!(code == Some(1) && said.contains("IV of zeroes"), "{said}");
    let (code, said) = keys(&hsm, Some(&hsm.uri_of("token=oil;object=root", Path::new(SOFTHSM), "")), &["init"]);
    assert_eq!(code, Some(0), "generic finds that IVs are ours to make: {said}");
}

/// A token that makes IVs, as CloudHSM does: what it puts into the buffer is what is stored.
#[test]
fn ivs_that_the_token_makes_are_read_back_and_must_differ() {
    let hsm = Hsm::new();
    let root = |profile: &str| hsm.uri_of("token=oil;object=root", &tools::p11_fault(), profile);
    hsm.tell("C_EncryptInit fill-iv\n");
    for (profile, name) in [("&profile=cloudhsm", "cloud"), ("", "generic")] {
        let (code, said) = keys(&hsm, Some(&root(profile)), &["init", "--name", name, "--another-root"]);
        assert_eq!(code, Some(0), "{said}");
        let document: serde_json::Value = {
            let text = std::fs::read_to_string(hsm.path(&format!("keys/{name}.json"))).unwrap();
            serde_json::from_str(text.lines().next().unwrap()).unwrap()
        };
        use base64::Engine as _;
        let wrapped = document["roots"][0]["wrapped"].as_str().unwrap();
        let wrapped = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(wrapped).unwrap();
        assert_eq!((&wrapped[..4], wrapped.len()), (&[7; 4][..], 12 + 32 + 16));
        assert_eq!(keys(&hsm, Some(&root(profile)), &["rewrap", "--name", name]).0, Some(0));
    }
    hsm.tell("C_EncryptInit fixed-iv\n");
    let (code, said) = keys(&hsm, Some(&root("&profile=cloudhsm")), &["init", "--name", "other", "--another-root"]);
    assert!(code == Some(1) && said.contains("the same IV"), "{said}");
}

/// Each of these once, while the process runs: it logs in again and finds the key again, and no request fails.
#[test]
fn lost_sessions_and_device_errors_are_recovered_from() {
    let (hsm, upstream) = (made(), Upstream::echo());
    let process = started(&hsm, &upstream);
    // Sessions closed for real, then the codes that tokens give.
    let codes = ["0xb0", "0xb3", "0x30", "0x32", "0x60", "0x82", "0xe0", "0x101", "0x5"];
    for action in ["lose"].into_iter().chain(codes) {
        let sessions = hsm.calls("C_OpenSession", "0x0");
        hsm.tell(&format!("C_DecryptInit {action} 1\n"));
        tools::until("a new session", || (hsm.calls("C_OpenSession", "0x0") > sessions).then_some(()));
        hsm.tell("");
        asked_again(&hsm);
        assert!(serves(&process), "{action}");
    }
    let log = process.log().join("\n");
    assert!(!log.contains("cannot refresh"), "{log}");
    assert!(process.ready().contains("ready"), "{}", process.ready());
}

#[test]
fn a_handle_that_points_to_another_key_is_not_used() {
    let (hsm, upstream) = (made(), Upstream::echo());
    let process = started(&hsm, &upstream);
    // The old handle alone: a new session finds the right one.
    let sessions = hsm.calls("C_OpenSession", "0x0");
    hsm.tell("C_DecryptInit decoy 1\n");
    tools::until("a new session", || (hsm.calls("C_OpenSession", "0x0") > sessions).then_some(()));
    asked_again(&hsm);
    assert!(!process.log().join("\n").contains("cannot refresh"));
    // Each new one, too: the canary tells.
    hsm.tell("C_FindObjects decoy\nC_DecryptInit 0xb3 1\n");
    process.logged(|line| line.contains("is not the one it was at the start"));
    assert!(serves(&process), "what is held serves on");
    hsm.tell("");
    process.logged(|line| line.contains("refreshed again"));
}

/// A handle may go stale between the canary and the call, too. What another key wrapped would be lost with the next process.
#[test]
fn what_another_key_wrapped_is_not_stored() {
    let hsm = made();
    let document = || std::fs::read(hsm.path("keys/default.json")).unwrap();
    let wraps = |log: &Hsm| log.calls("C_EncryptInit", "0x0");
    // The self-test encrypts twice and the canary once; then comes the share.
    let (before, begun) = (document(), wraps(&hsm));
    hsm.tell("C_EncryptInit decoy 9 3\n");
    let (code, said) = keys(&hsm, None, &["rewrap"]);
    assert!(code == Some(1) && said.contains("does not unwrap"), "{said}");
    assert!(wraps(&hsm) - begun > 3, "the share was wrapped");
    assert!(document() == before);
    // Once: a new session finds the right one.
    hsm.tell("C_EncryptInit decoy 1 3\n");
    let (code, said) = keys(&hsm, None, &["rewrap"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(document() != before);
    hsm.tell("");
    assert_eq!(keys(&hsm, None, &["rewrap"]).0, Some(0), "the right key had wrapped it");
}

#[test]
fn a_token_that_is_pulled_is_an_outage_and_comes_back() {
    let (hsm, upstream) = (made(), Upstream::echo());
    let process = started(&hsm, &upstream);
    hsm.tell("C_DecryptInit 0xe0\nC_GetSlotList none\n");
    process.logged(|line| line.contains("cannot refresh keys") && line.contains("unreachable"));
    for _ in 0..20 {
        assert!(serves(&process));
    }
    hsm.tell("");
    process.logged(|line| line.contains("refreshed again"));
}

/// The token says no about this key: twice, and its keys are dropped.
#[test]
fn a_key_that_is_deleted_in_the_token_takes_its_keys_with_it() {
    let (hsm, upstream) = (made(), Upstream::echo());
    let process = started(&hsm, &upstream);
    hsm.pkcs11_tool("oil", &["--delete-object", "--type", "secrkey", "--label", "root"]);
    hsm.tell("C_DecryptInit 0xb3 1\n");
    process.logged(|line| line.contains("denied twice"));
    assert_eq!(json(process.address(), "POST", "/", r#"{"ssn":"1"}"#).code(), "key_unavailable");
}

#[test]
fn a_call_that_hangs_holds_up_neither_requests_nor_the_end_of_the_process() {
    let (hsm, upstream) = (made(), Upstream::echo());
    let mut process = started(&hsm, &upstream);
    hsm.tell("C_DecryptInit hang:30000\n");
    process.logged(|line| line.contains("no answer within 2 s"));
    let begun = Instant::now();
    for _ in 0..50 {
        assert!(serves(&process));
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    let threads = std::fs::read_dir(format!("/proc/{}/task", process.id())).unwrap();
    let hung = threads
        .filter(|task| {
            let name = std::fs::read_to_string(task.as_ref().unwrap().path().join("comm"));
            name.is_ok_and(|name| name.trim() == "pkcs11")
        })
        .count();
    assert!((1..=4).contains(&hung), "{hung} threads hang");
    process.signal("TERM");
    let asked = Instant::now();
    assert_eq!(process.ended(), Some(0));
    assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
}

#[test]
fn a_hang_that_ends_is_forgotten() {
    let (hsm, upstream) = (made(), Upstream::echo());
    let process = started(&hsm, &upstream);
    hsm.tell("C_DecryptInit hang:3000\n");
    process.logged(|line| line.contains("no answer within 2 s"));
    hsm.tell("");
    process.logged(|line| line.contains("refreshed again"));
    assert!(serves(&process));
}
