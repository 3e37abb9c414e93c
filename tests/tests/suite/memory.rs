//! Where keys lie: in locked memory, and nowhere else.

use std::process::Command;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use oilskin_tests::aws::Aws;
use oilskin_tests::certificates::{Authority, Wish};
use oilskin_tests::client::json;
use oilskin_tests::hsm::Hsm;
use oilskin_tests::keys::Keys;
use oilskin_tests::memory::{self, Found};
use oilskin_tests::process::{self, Process};
use oilskin_tests::vault::{ROOT, Vault};
use oilskin_tests::{Upstream, tools};
use serde_json::json;

/// `oilskin` that leaves a core dump in this folder when it crashes.
fn dumping(keys: &Keys) -> Command {
    let whole = process::command(keys);
    let mut command = Command::new("prlimit");
    command.args(["--core=unlimited", "--"]).arg(whole.get_program()).env_clear().current_dir(keys.folder());
    command.envs(whole.get_envs().filter_map(|(name, value)| Some((name, value?))));
    // The slab must be locked here, or the start fails.
    command.env("OILSKIN_UNSAFE_UNLOCKED_KEYS", "false");
    command
}

#[test]
fn keys_are_in_locked_memory_alone_and_in_no_core_dump() {
    let (keys, upstream) = (Keys::new(), Upstream::echo());
    let vars = [
        ("OILSKIN_UPSTREAM", upstream.url()),
        ("OILSKIN_FIELDS", "$.ssn, $.email".to_owned()),
        ("OILSKIN_KEY_REFRESH", "1s".to_owned()),
        ("OILSKIN_KEY_ROOT_CHECK", "1s".to_owned()),
    ];
    let mut process = Process::start_as(dumping(&keys), &vars.each_ref().map(|(name, value)| (*name, value.as_str())));
    let mut secrets = memory::secrets(&keys, "default");
    assert_eq!(secrets.len(), 3, "W and a data key on each line");
    secrets.push(std::fs::read(keys.folder().join("root.key")).unwrap());
    for turn in 0..200 {
        let body = format!("{{\"ssn\":\"{turn}\",\"email\":\"{turn}@example.org\"}}");
        let answer = json(process.address(), "POST", "/", &body);
        assert_eq!((answer.status(), answer.text()), (200, body));
    }
    // A refresh in which the roots unwrap W anew, and its end.
    tools::pause(Duration::from_secs(2));
    let Found { in_slab, elsewhere } = memory::look(process.id(), &secrets);
    assert!(in_slab >= 3, "both data keys and the root's: {in_slab}");
    assert_eq!(elsewhere, []);
    // What dumps leave out is the kernel's matter; where it hands them to a program there is none to look at, and the flags of the
    // memory, which were looked at above, are all there is to see.
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    if pattern.starts_with(['|', '/']) {
        return;
    }
    let dump = memory::core(keys.folder(), process.id());
    process.ended();
    assert!(memchr::memmem::find(&dump, upstream.url().as_bytes()).is_some(), "a whole dump, {} bytes", dump.len());
    for secret in &secrets {
        assert!(memchr::memmem::find(&dump, secret).is_none());
    }
}

#[test]
fn without_memory_that_can_be_locked_nothing_starts() {
    let keys = Keys::new();
    let whole = process::command(&keys);
    let mut command = Command::new("setpriv");
    // Root locks what it likes, whatever the limit.
    command.args([
        "--bounding-set",
        "-ipc_lock,-sys_resource",
        "--inh-caps",
        "-ipc_lock",
        "prlimit",
        "--memlock=4096:4096",
        "--",
    ]);
    command.arg(whole.get_program()).arg("check").env_clear();
    command.envs(whole.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.env("OILSKIN_UPSTREAM", "http://127.0.0.1:1").env("OILSKIN_FIELDS", "$.ssn");
    let output = command.env("OILSKIN_UNSAFE_UNLOCKED_KEYS", "false").output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(said.contains("raise the memlock limit"), "{said}");
    assert_eq!(output.status.code(), Some(78), "{said}");
}

/// Keys under the file's root, whose W a test can know, and under another, by which alone the process opens them.
fn under_another_root(keys: &Keys, root: &str, around: impl Fn(&mut Command)) {
    let upstream = Upstream::echo();
    let mut rewrap = process::command(keys);
    rewrap.args(["keys", "rewrap", "--roots", &format!("{} {root}", keys.root_uri())]);
    around(&mut rewrap);
    tools::run(&mut rewrap);
    let mut command = process::command(keys);
    around(&mut command);
    command.env("OILSKIN_ROOT_KEY", root).env("OILSKIN_KEY_REFRESH", "1s").env("OILSKIN_KEY_ROOT_CHECK", "1s");
    let vars = [("OILSKIN_UPSTREAM", upstream.url()), ("OILSKIN_FIELDS", "$.ssn".to_owned())];
    let process = Process::start_as(command, &vars.each_ref().map(|(name, value)| (*name, value.as_str())));
    let ask = || json(process.address(), "POST", "/", r#"{"ssn":"1"}"#).status();
    tools::until("keys", || (ask() == 200).then_some(()));
    // Some refreshes in which the root unwraps W anew.
    tools::pause(Duration::from_secs(4));
    let mut secrets = memory::secrets(keys, "default");
    // As answers in JSON have them.
    secrets.extend(secrets.clone().iter().map(|secret| BASE64_STANDARD.encode(secret).into_bytes()));
    let Found { in_slab, elsewhere } = memory::look(process.id(), &secrets);
    assert!(in_slab >= 2, "both data keys: {in_slab}");
    // Which of them, by its number: W is the first, and behind all three stand the same in Base64. A library's heap is looked through, too.
    assert_eq!((secrets.len(), elsewhere), (6, vec![]));
}

#[test]
fn a_library_of_an_hsm_leaves_no_copy_of_a_key() {
    let (keys, hsm) = (Keys::new(), Hsm::new());
    under_another_root(&keys, &hsm.uri(), |command| hsm.around(command));
}

/// Under `profile=kw` a share is a key of the token's session for the time of a call.
#[test]
fn a_share_that_was_a_key_of_a_token_s_session_leaves_no_copy() {
    let (keys, hsm) = (Keys::new(), Hsm::new());
    let root = hsm.uri_of("token=oil;object=root", &tools::p11_fault(), "&profile=kw");
    under_another_root(&keys, &root, |command| hsm.around(command));
    assert!(hsm.calls("C_UnwrapKey", "0x0") > 3);
}

#[test]
fn a_client_of_vault_s_leaves_no_copy_of_a_key() {
    let keys = Keys::new();
    let authority = Authority::new();
    authority.issue("server", &Wish::default());
    let vault = Vault::start(&authority);
    vault.transit_with("root", "type=aes256-gcm96");
    under_another_root(&keys, "vault:transit/keys/root", |command| {
        command.env("VAULT_ADDR", vault.url()).env("VAULT_TOKEN", ROOT);
    });
}

/// The document comes from Secrets Manager, whose answers hold no key, and its share from KMS, whose answers do.
#[test]
fn a_client_of_aws_s_leaves_no_copy_of_a_key() {
    let (keys, aws) = (Keys::new(), Aws::start());
    let root = format!("awskms:///{}", aws.key("root"));
    under_another_root(&keys, &root, |command| {
        command.envs(aws.vars());
        // What was put under the root is what the process gets.
        let document = std::fs::read_to_string(keys.folder().join("keys/default.json")).unwrap();
        if document.contains("awskms") {
            aws.secrets("CreateSecret", &json!({"Name": "oilskin/default", "SecretString": document}));
            command.env("OILSKIN_KEY_STORE", "awssm:oilskin/{keyset}");
        }
    });
    assert!(aws.seen("Decrypt").len() >= 3, "the root was asked again and again");
}
