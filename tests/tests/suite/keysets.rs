//! `oilskin keys init`: beside other keysets, and beside itself; and what `oilskin check` and a start say of keys.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use oilskin_tests::frames::Wire;
use oilskin_tests::keys::{self, Keys};
use oilskin_tests::process::{self, Process};
use oilskin_tests::{Upstream, tools};

fn init(root: &Path, store: &Path, words: &[&str]) -> Command {
    let mut command = tools::oilskin();
    command
        .args(["keys", "init"])
        .args(words)
        .env("OILSKIN_ROOT_KEY", format!("file:{}", root.display()))
        .env("OILSKIN_KEY_STORE", format!("file:{}", store.display()))
        .env("OILSKIN_UNSAFE_UNLOCKED_KEYS", "true")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn ended(output: Output) -> (Option<i32>, String) {
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

#[test]
fn a_wrong_root_key_makes_no_keyset_beside_those_of_another() {
    let (keys, other) = (Keys::new(), Keys::new());
    let (root, store) = (other.folder().join("root.key"), keys.folder().join("keys"));
    let (code, said) = ended(init(&root, &store, &["--name", "cards"]).output().unwrap());
    assert_eq!(code, Some(1), "{said}");
    for part in
        ["the store holds keysets that this root key does not open, such as default", "--another-root", "root.key"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!store.join("cards.json").exists());
    let (code, said) = ended(init(&root, &store, &["--name", "cards", "--another-root"]).output().unwrap());
    assert_eq!(code, Some(0), "{said}");
    // Both roots wrap one of the two now, so each may make more.
    for (root, name) in [(&root, "a"), (&keys.folder().join("root.key"), "b")] {
        let (code, said) = ended(init(root, &store, &["--name", name]).output().unwrap());
        assert_eq!(code, Some(0), "{said}");
    }
}

#[test]
fn a_folder_as_root_key_is_called_one() {
    let folder = tempfile::tempdir().unwrap();
    let (code, said) = ended(init(folder.path(), &folder.path().join("keys"), &[]).output().unwrap());
    assert_eq!(code, Some(1));
    assert!(said.contains("it is a directory") && !said.contains("chmod"), "{said}");
}

/// What two processes say that begin at once, in an empty folder.
fn at_once(words: [&[&str]; 2]) -> (tempfile::TempDir, [(Option<i32>, String); 2]) {
    let folder = tempfile::tempdir().unwrap();
    let (root, store) = (folder.path().join("root.key"), folder.path().join("keys"));
    let children = words.map(|words| init(&root, &store, words).spawn().unwrap());
    let said = children.map(|child| ended(child.wait_with_output().unwrap()));
    let left = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(left, 2, "root.key and keys, no more");
    (folder, said)
}

#[test]
fn of_two_that_begin_at_once_both_have_what_they_asked_for() {
    for _ in 0..40 {
        let (folder, said) = at_once([&["--if-missing"], &["--if-missing"]]);
        assert!(said.iter().all(|(code, _)| *code == Some(0)), "{said:?}");
        let made = |what: &str| said.iter().filter(|(_, said)| said.contains(what)).count();
        assert_eq!((made("made root key"), made("made keyset"), made("exists already")), (1, 1, 1), "{said:?}");
        keys::open(folder.path(), "default");
        let (folder, said) = at_once([&["--name", "a"], &["--name", "b"]]);
        assert!(said.iter().all(|(code, _)| *code == Some(0)), "{said:?}");
        keys::open(folder.path(), "a");
        keys::open(folder.path(), "b");
    }
}

#[test]
fn of_two_that_begin_at_once_the_loser_is_told_that_the_keyset_exists() {
    for _ in 0..40 {
        let (folder, mut said) = at_once([&[], &[]]);
        said.sort();
        let [(won, _), (lost, why)] = &said;
        assert_eq!((*won, *lost), (Some(0), Some(1)), "{said:?}");
        assert_eq!(why, "oilskin: keyset default exists already\n");
        keys::open(folder.path(), "default");
    }
}

fn with_rule(keyset: &str, upstream: &str) -> String {
    format!(
        "listeners: [{{name: out, bind: 127.0.0.1:0, direction: egress}}]\nupstreams: {{up: {{url: \"{upstream}\"}}}}\nroutes:\n\
         - {{name: all, match: {{listener: out, path: \"/{{*rest}}\"}}, upstream: up, fields: [{{select: $.ssn, keyset: {keyset}}}]}}\n"
    )
}

#[test]
fn a_keyset_that_is_not_there_yet_is_a_warning_to_a_check_and_to_a_start() {
    let (keys, upstream) = (Keys::new(), Upstream::echo());
    let document = with_rule("cards", &upstream.url());
    let check = |words: &[&str]| {
        ended(process::command(&keys).args(words).env("OILSKIN_CONFIG_YAML", &document).output().unwrap())
    };
    let (code, said) = check(&["check"]);
    assert_eq!(code, Some(0), "{said}");
    let warning =
        "keyset cards is not in the store: requests that need it get key_unavailable, and /ready says no, until it";
    assert!(said.contains(&format!("\nwarning: {warning}")), "{said}");
    let (_, said) = check(&["check", "--json"]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let warnings = said["warnings"].as_array().unwrap();
    assert!(warnings.iter().any(|said| said.as_str().unwrap().starts_with(warning)), "{said}");
    let process = Process::start(&keys, &[("OILSKIN_CONFIG_YAML", &document)]);
    let mut wire = Wire::connect(process.address());
    let answer = wire.request("POST", "/", &[("content-type", "application/json")], br#"{"ssn":"1"}"#);
    assert_eq!(answer.status(), 503, "{answer:?}");
}

#[test]
fn all_that_is_missing_of_keys_is_named_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let document = with_rule("cards", "http://127.0.0.1:1");
    let at = |name: &str| format!("file:{}", folder.path().join(name).display());
    for word in [Some("check"), None] {
        let mut command = process::command(&Keys::new());
        command.args(word).env("OILSKIN_CONFIG_YAML", &document).env("OILSKIN_KEY_STORE", at("keys"));
        command.env("OILSKIN_ROOT_KEY", format!("{} {}", at("one.key"), at("two.key")));
        let (code, said) = ended(command.output().unwrap());
        assert_eq!(code, Some(78), "{said}");
        for part in ["one.key: there is no such file", "two.key: there is no such file", "keyset cards does not exist"]
        {
            assert_eq!(said.matches(part).count(), 1, "{part}: {said}");
        }
    }
    std::fs::write(folder.path().join("keys"), "").unwrap();
    let mut command = process::command(&Keys::new());
    command.arg("check").env("OILSKIN_CONFIG_YAML", &document).env("OILSKIN_KEY_STORE", at("keys"));
    let (code, said) = ended(command.env("OILSKIN_ROOT_KEY", at("one.key")).output().unwrap());
    assert_eq!(code, Some(78), "{said}");
    assert!(said.contains("one.key") && said.contains("cannot read a keyset document"), "{said}");
}

#[test]
fn a_root_key_under_a_passphrase_opens_by_it_alone() {
    let (keys, upstream) = (Keys::empty(), Upstream::echo());
    let passphrase = keys.folder().join("passphrase");
    std::fs::write(&passphrase, "Pässwörd 1\n").unwrap();
    let file = passphrase.display().to_string();
    let said = |command: &mut Command| ended(command.output().unwrap());
    let made = said(process::command(&keys).args(["keys", "init"]).env("OILSKIN_ROOT_PASSPHRASE_FILE", &file));
    assert_eq!(made.0, Some(0), "{}", made.1);
    assert_eq!(std::fs::metadata(keys.folder().join("root.key")).unwrap().len(), 104);
    let vars = [
        ("OILSKIN_UPSTREAM", upstream.url()),
        ("OILSKIN_FIELDS", "$.ssn".into()),
        ("OILSKIN_ROOT_PASSPHRASE_FILE", file),
    ];
    let vars = vars.each_ref().map(|(name, value)| (*name, value.as_str()));
    let process = Process::start(&keys, &vars);
    let mut wire = Wire::connect(process.address());
    let answer = wire.request("POST", "/", &[("content-type", "application/json")], br#"{"ssn":"1"}"#);
    assert_eq!(answer.status(), 200, "{answer:?}");
    for (name, value, why) in [
        ("OILSKIN_ROOT_PASSPHRASE", "Passwort 1", "the passphrase does not open it"),
        ("OILSKIN_LOG", "info", "it is under a passphrase"),
    ] {
        let mut command = process::command(&keys);
        command.arg("check").envs(vars[..2].iter().copied()).env(name, value);
        let (code, said) = said(&mut command);
        assert!(code == Some(78) && said.contains(why) && !said.contains("Passwort"), "{said}");
    }
    // Who set a passphrase does not believe that a bare file will do.
    let bare = Keys::new();
    let mut command = process::command(&bare);
    command.arg("check").envs(vars.iter().copied());
    let (code, said) = said(&mut command);
    assert!(code == Some(78) && said.contains("this file is not under one"), "{said}");
}
