//! E14 of the attack catalogue, beside what `hsm` has of it (a token pulled, sessions lost, a wrong PIN, device errors, a hang): the
//! same while a process starts, failures that last, and forks.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use oilskin_tests::client::json;
use oilskin_tests::hsm::Hsm;
use oilskin_tests::process::Process;
use oilskin_tests::{Upstream, tools};

use super::hsm::{keys, made, serves, start, started};

/// Whoever starts while the token fails is up, not ready, refuses to encrypt, and has keys once the token is back.
#[test]
fn a_process_that_starts_while_the_token_fails_waits_for_it() {
    for fault in [
        // Pulled, or what connects to it is not up yet.
        "C_GetSlotList none",
        "C_Initialize 0x30",
        "C_OpenSession 0x30",
        "C_Login 0x30",
        "C_FindObjectsInit 0x32",
        "C_GenerateKey 0x30",
        "C_EncryptInit 0x30",
        "C_DecryptInit 0x31",
        "C_OpenSession hang:12000",
        "C_Initialize hang:12000",
    ] {
        let (hsm, upstream) = (made(), Upstream::echo());
        hsm.tell(&format!("{fault}\n"));
        let process = start(&hsm, &upstream);
        let said = |line: &String| line.contains("cannot refresh keys") && line.contains("unreachable");
        tools::until(fault, || process.log().iter().any(said).then_some(()));
        assert_eq!(json(process.health, "GET", "/live", "").status(), 200, "{fault}");
        assert_eq!(json(process.health, "GET", "/ready", "").status(), 503, "{fault}");
        assert_eq!(json(process.address(), "POST", "/", r#"{"ssn":"1"}"#).code(), "key_unavailable", "{fault}");
        hsm.tell("");
        tools::until(fault, || serves(&process).then_some(()));
        assert_eq!(json(process.health, "GET", "/ready", "").status(), 200, "{fault}");
    }
}

/// A device that fails for as long as it likes costs no request within the budgets, and the token's own PIN counter nothing.
#[test]
fn device_errors_that_last_are_an_outage_and_no_login_is_wasted_on_them() {
    let (hsm, upstream) = (made(), Upstream::echo());
    let process = started(&hsm, &upstream);
    let wrong = |hsm: &Hsm| hsm.calls("C_Login", "") - hsm.calls("C_Login", "0x0");
    for fault in ["C_Decrypt 0x30", "C_OpenSession 0x30\nC_DecryptInit 0x30", "C_Login 0x30\nC_DecryptInit 0xb0"] {
        let before = process.log().len();
        hsm.tell(&format!("{fault}\n"));
        let since = |text: &str| process.log().iter().skip(before).any(|line| line.contains(text));
        tools::until(fault, || since("cannot refresh keys").then_some(()));
        for _ in 0..50 {
            assert!(serves(&process), "{fault}");
        }
        if !fault.contains("C_Login") {
            assert_eq!(wrong(&hsm), 0, "{fault}");
        }
        hsm.tell("");
        tools::until(fault, || since("refreshed again").then_some(()));
    }
    // What hangs in a command ends it with a reason, and changes nothing.
    let document = std::fs::read(hsm.path("keys/default.json")).unwrap();
    drop(process);
    hsm.tell("C_EncryptInit hang:30000\n");
    let (code, said) = keys(&hsm, None, &["rewrap"]);
    assert!(code == Some(1) && said.contains("no answer within 2 s"), "{said}");
    assert!(std::fs::read(hsm.path("keys/default.json")).unwrap() == document);
}

/// PKCS#11 belongs to the process that initialised it. Oilskin has no child that could use it: whoever forks to start it executes it, and
/// all calls come from the process that serves.
#[test]
fn who_starts_it_may_fork_and_the_module_is_called_by_the_one_process_that_serves() {
    let (hsm, upstream) = (made(), Upstream::echo());
    std::fs::remove_file(hsm.path("calls")).unwrap();
    let whole = hsm.command();
    // A shell that stays: the program goes with it, as it ends with this test.
    let script = "setpriv --pdeathsig KILL \"$0\" & echo $! >started; wait";
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(whole.get_program()).env_clear().current_dir(hsm.path("."));
    command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.envs(whole.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let vars = [
        ("OILSKIN_UPSTREAM", upstream.url()),
        ("OILSKIN_FIELDS", "$.ssn".to_owned()),
        ("OILSKIN_KEY_ROOT_CHECK", "1s".to_owned()),
    ];
    let process = Process::start_as(command, &vars.each_ref().map(|(name, value)| (*name, value.as_str())));
    tools::until("keys", || serves(&process).then_some(()));
    super::hsm::asked_again(&hsm);
    tools::pause(Duration::from_millis(100));
    let log = std::fs::read_to_string(hsm.path("calls")).unwrap();
    let callers: BTreeSet<&str> = log.lines().filter_map(|line| line.split(' ').nth(2)).collect();
    let started = std::fs::read_to_string(hsm.path("started")).unwrap();
    assert_eq!(callers.into_iter().collect::<Vec<_>>(), [started.trim()]);
    assert_ne!(started.trim(), process.id().to_string(), "the shell has forked");
}
