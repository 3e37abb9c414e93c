//! `oilskin hsm probe` over SoftHSM, as it is and with faults.

use std::path::Path;

use oilskin_tests::client::json;
use oilskin_tests::hsm::{Hsm, PIN, SOFTHSM};
use oilskin_tests::process::Process;
use oilskin_tests::{Upstream, tools};
use serde_json::Value;

fn probe(hsm: &Hsm, module: &Path, words: &[&str]) -> (Option<i32>, String, String) {
    let mut command = tools::oilskin();
    hsm.around(&mut command);
    let output = command.args(["hsm", "probe", "--module"]).arg(module).args(words).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn pin(hsm: &Hsm) -> String {
    hsm.path("pin").display().to_string()
}

/// Two commands lead to a keyset whose root never leaves the token: the two that the probe prints.
#[test]
fn what_the_probe_prints_is_all_that_it_takes() {
    let hsm = Hsm::empty();
    hsm.add_token("new one");
    let pin_file = pin(&hsm);
    let (code, page, said) = probe(&hsm, Path::new(SOFTHSM), &["--pin-file", &pin_file, "--count", "20"]);
    assert_eq!(code, Some(0), "{page}{said}");
    for (row, ends) in [
        ("AES-GCM by C_Encrypt", "yes         detected        yes"),
        ("AES-GCM by C_WrapKey", "no: MechanismInvalid"),
        ("AES-KW (RFC 3394)", "yes         detected        none"),
        ("0x210A", "here RFC 5649 (KWP)"),
        ("0x210B", "no: MechanismInvalid"),
        ("one of ours", "taken as it is"),
        ("zeroes", "one IV would serve for ever"),
        ("threads", "round trips/s"),
        ("after a new login", "an old handle is refused"),
    ] {
        let found = page.lines().find(|line| line.trim_start().starts_with(row));
        assert!(found.is_some_and(|line| line.ends_with(ends) || line.contains(ends)), "{row}: {page}");
    }
    assert!(!page.contains(PIN) && !said.contains(PIN));
    let objects = hsm.pkcs11_tool("new one", &["-O"]);
    assert!(!objects.contains("Secret Key"), "nothing is left behind: {objects}");
    assert!(page.contains("&profile=softhsm'"), "who makes the IV was found: {page}");
    as_printed(&hsm, &page);
}

/// Makes the key and a keyset as the page says.
fn as_printed(hsm: &Hsm, page: &str) {
    let line = |begin: &str| page.split_once(begin).unwrap().1.trim_start().to_owned();
    let made = line("Make the key, once:").split("\n\n").next().unwrap().to_owned();
    // The PIN is asked for by a person; here it is given.
    let made = made.replace("--login", &format!("--login --pin {PIN}"));
    let set = line("Then set:");
    let init = format!(
        "{}\nexport OILSKIN_ROOT_KEY OILSKIN_KEY_STORE=file:{}; {} keys init",
        set.trim(),
        hsm.path("keys").display(),
        tools::oilskin().get_program().display()
    );
    for script in [made, init] {
        let mut shell = tools::program("bash");
        hsm.around(&mut shell);
        tools::run(shell.args(["-ec", &script]).env("OILSKIN_UNSAFE_UNLOCKED_KEYS", "true"));
    }
    assert!(hsm.path("keys/default.json").exists());
}

#[test]
fn programs_read_the_same_and_a_token_that_does_not_fit_fails() {
    let hsm = Hsm::new();
    let pin_file = pin(&hsm);
    let fault = tools::p11_fault();
    let words = ["--token", "oil", "--pin-file", &pin_file, "--count", "10", "--json"];
    let (code, page, _) = probe(&hsm, &fault, &words);
    let document: Value = serde_json::from_str(&page).unwrap();
    assert_eq!((code, &document["ok"], &document["token"]["iv"]), (Some(0), &Value::from(true), &Value::from("ours")));
    assert_eq!(document["token"]["latency"].as_array().unwrap().len(), 4);
    for (fault_line, said) in [("C_EncryptInit 0x70", "AES-GCM"), ("C_EncryptInit fixed-iv", "the same IV")] {
        hsm.tell(&format!("{fault_line}\nC_WrapKey 0x70\n"));
        let (code, page, _) = probe(&hsm, &fault, &words);
        let document: Value = serde_json::from_str(&page).unwrap();
        assert_eq!((code, &document["ok"]), (Some(1), &Value::from(false)), "{page}");
        assert!(document["token"]["why_not"].as_str().unwrap().contains(said), "{page}");
    }
}

fn document(hsm: &Hsm, control: &str) -> (Option<i32>, Value, String) {
    hsm.tell(control);
    let words = ["--token", "oil", "--pin-file", &pin(hsm), "--count", "10", "--json"];
    let (code, page, said) = probe(hsm, &tools::p11_fault(), &words);
    (code, serde_json::from_str(&page).unwrap_or_else(|_| panic!("{page}{said}")), page + &said)
}

/// Who makes the IV decides, and a token without AES-GCM may have AES-KW.
#[test]
fn the_profile_that_fits_is_the_one_that_is_recommended() {
    for (control, profile, own, zeroes) in [
        ("C_EncryptInit fill-iv\n", "cloudhsm", "replaced by the token's own", "replaced by the token's own"),
        ("C_EncryptInit cloudhsm\n", "cloudhsm", "refused (MechanismParamInvalid)", "replaced by the token's own"),
        ("C_EncryptInit 0x70\nC_DecryptInit 0x70\n", "kw", "refused (MechanismInvalid)", "refused (MechanismInvalid)"),
    ] {
        let hsm = Hsm::empty();
        hsm.add_token("oil");
        let (code, document, whole) = document(&hsm, control);
        let token = &document["token"];
        assert_eq!(
            (code, &document["ok"], token["profile"].as_str()),
            (Some(0), &Value::from(true), Some(profile)),
            "{whole}"
        );
        assert_eq!((token["own_iv"].as_str(), token["zero_iv"].as_str()), (Some(own), Some(zeroes)), "{whole}");
        assert!(token["root_key"].as_str().unwrap().ends_with(&format!("&profile={profile}")), "{whole}");
        // What it prints works there.
        let words = ["--pin-file", &pin(&hsm), "--count", "10"];
        let (code, page, said) = probe(&hsm, &tools::p11_fault(), &words);
        assert!(code == Some(0) && page.contains(&format!("  profile={profile}: ")), "{page}{said}");
        as_printed(
            &hsm,
            &page.replace(&format!("--module {}", tools::p11_fault().display()), &format!("--module {SOFTHSM}")),
        );
    }
}

/// Numbers that mean one thing in one version of PKCS#11 and another with a vendor: what they do is said, by what becomes of a known key.
#[test]
fn what_a_mechanism_s_number_does_there_is_said() {
    let hsm = Hsm::new();
    let row = |control: &str, mechanism: &str| {
        let (_, document, whole) = document(&hsm, control);
        let rows = document["token"]["wraps"].as_array().unwrap();
        let row = rows.iter().find(|row| row["mechanism"] == mechanism).unwrap_or_else(|| panic!("{whole}")).clone();
        let lists = document["tokens"][0]["lists"].as_array().unwrap().contains(&Value::from(mechanism));
        (row["note"].as_str().map(str::to_owned), row["round_trip"] == true, lists)
    };
    let number = |from: &str, to: &str| {
        ["C_WrapKey", "C_UnwrapKey", "C_GetMechanismInfo"].map(|name| format!("{name} number:{from}:{to}\n")).concat()
    };
    let here = |text: &str| Some(format!("here {text}"));
    assert_eq!(row("", "0x210B"), (None, false, false), "SoftHSM does not have it");
    assert_eq!(row(&number("0x210b", "0x210a"), "0x210B"), (here("RFC 5649 (KWP)"), true, true));
    assert_eq!(row(&number("0x210b", "0x2109"), "0x210B"), (here("RFC 3394 (KW)"), true, true));
    assert_eq!(row(&number("0x210c", "0x2109"), "0x210C"), (here("RFC 3394 (KW)"), true, true));
    assert_eq!(row(&number("0x2109", "0x210a"), "AES-KW (RFC 3394)"), (here("RFC 5649 (KWP)"), true, false));
    // Where no key is taken from outside its length says what can be said.
    let (note, ..) = row(&format!("{}C_CreateObject 0x63\n", number("0x210b", "0x210a")), "0x210B");
    assert_eq!(note, here("RFC 3394 or 5649, by its length"));
}

/// A library that takes its process with it, or does not come back, is a line in the report.
#[test]
fn a_library_that_crashes_or_hangs_is_a_line_in_the_report() {
    let hsm = Hsm::new();
    let words = ["--token", "oil", "--pin-file", &pin(&hsm), "--count", "10", "--deadline", "5"];
    for (control, line) in [
        ("C_Initialize crash", "the library crashed (SIGSEGV) while being loaded"),
        ("C_Initialize hang:600000", "the library did not come back within 5 s while being loaded"),
        ("C_Login exit:3", "the library ended its process (exit code 3) while logging in"),
        ("C_EncryptInit crash", "the library crashed (SIGSEGV) while wrapping by AES-GCM"),
        ("C_UnwrapKey crash", "the library crashed (SIGSEGV) while wrapping by AES-KW (RFC 3394)"),
        ("C_FindObjectsInit hang:600000", "the library did not come back within 5 s while being timed: find a key"),
        ("C_EncryptInit crash 1 300", "the library crashed (SIGSEGV) while being called from 4 sessions at once"),
    ] {
        hsm.tell(&format!("{control}\n"));
        let (code, page, said) = probe(&hsm, &tools::p11_fault(), &words);
        assert!(code == Some(1) && page.trim_end().ends_with(line), "{control}: {page}{said}");
        assert!(!page.contains("OILSKIN_ROOT_KEY"), "nothing is recommended: {page}");
        let begun = control.starts_with("C_Initialize");
        assert_eq!(page.contains("SoftHSM"), !begun, "what was found before is shown: {page}");
        assert_eq!(
            page.contains("AES-GCM by C_Encrypt  yes"),
            !begun && !control.contains("C_Login") && !line.ends_with("by AES-GCM")
        );
        let (code, page, _) = probe(&hsm, &tools::p11_fault(), &[&words[..], &["--json"]].concat());
        let document: Value = serde_json::from_str(&page).unwrap();
        assert_eq!((code, &document["ok"], document["ended"].as_str()), (Some(1), &Value::from(false), Some(line)));
    }
}

/// The library runs apart: neither the process that was started nor one that is left over has it.
#[test]
fn the_library_is_in_a_process_of_its_own_that_ends_with_the_probe() {
    let hsm = Hsm::new();
    let start = |control: &str| {
        hsm.tell(control);
        let _ = std::fs::remove_file(hsm.path("calls"));
        let mut command = tools::oilskin();
        hsm.around(&mut command);
        command.args(["hsm", "probe", "--module"]).arg(tools::p11_fault());
        command.args(["--token", "oil", "--pin-file", &pin(&hsm), "--count", "10"]);
        let quiet = std::process::Stdio::null;
        tools::Killed(command.stdout(quiet()).stderr(quiet()).spawn().unwrap())
    };
    let callers = || {
        let log = std::fs::read_to_string(hsm.path("calls")).unwrap_or_default();
        let mut callers: Vec<u32> = log.lines().map(|line| line.split(' ').nth(2).unwrap().parse().unwrap()).collect();
        callers.dedup();
        callers
    };
    let mut whole = start("");
    assert!(whole.0.wait().unwrap().success());
    assert!(callers().len() == 1 && callers() != [whole.0.id()], "{:?}", callers());
    // Killed while the library hangs: it does not stay.
    let hung = start("C_FindObjectsInit hang:600000\n");
    let hangs = || (hsm.calls("C_GenerateKey", "0x0") > 4).then(|| callers()[0]);
    let caller = tools::until("the library to hang", hangs);
    assert_ne!(caller, hung.0.id());
    drop(hung);
    tools::until("its end", || {
        let state = std::fs::read_to_string(format!("/proc/{caller}/stat")).unwrap_or_default();
        (state.is_empty() || state.contains(") Z ")).then_some(())
    });
}

#[test]
fn without_a_login_it_lists_tokens_and_a_wrong_pin_is_tried_once() {
    let hsm = Hsm::new();
    hsm.add_token("second");
    let fault = tools::p11_fault();
    let (code, page, _) = probe(&hsm, &fault, &[]);
    assert!(
        code == Some(0) && page.contains("oil") && page.contains("second") && page.contains("--pin-file"),
        "{page}"
    );
    assert_eq!(hsm.calls("C_Login", ""), 0);
    let pin_file = pin(&hsm);
    let (code, _, said) = probe(&hsm, &fault, &["--pin-file", &pin_file]);
    assert!(code == Some(1) && said.contains("--token LABEL"), "{said}");
    hsm.write_pin("wrong-000000");
    let (code, _, said) = probe(&hsm, &fault, &["--token", "oil", "--pin-file", &pin_file]);
    assert!(code == Some(1) && said.contains("refused the PIN") && !said.contains("wrong-000000"), "{said}");
    assert_eq!(hsm.calls("C_Login", ""), 1);
    let (code, _, said) = probe(&hsm, Path::new("/etc/hostname"), &[]);
    assert!(code == Some(1) && said.contains("cannot be loaded"), "{said}");
}

/// The page's commands, from a token to a proxy that serves; what is elsewhere here are its folders and ports.
#[test]
fn the_page_leads_from_nothing_to_a_proxy_that_serves() {
    let page = std::fs::read_to_string(tools::top().join("docs/keys.md")).unwrap();
    let section = page.split_once("### An HSM").unwrap().1.split_once("\n### ").unwrap().0;
    let blocks: Vec<&str> = section.split("```sh\n").skip(1).map(|after| after.split_once("```").unwrap().0).collect();
    let [first, second] = blocks[..] else { panic!("a token and a probe, then a key and a start: {blocks:?}") };
    let (hsm, upstream) = (Hsm::empty(), Upstream::echo());
    let here = |text: &str| {
        let keys = hsm.path("keys").display().to_string();
        for path in ["/run/pin", "/var/lib/oilskin/keys", "http://127.0.0.1:16080"] {
            assert!(section.contains(path), "{path}");
        }
        let text = text.replace("/run/pin", &pin(&hsm)).replace("/var/lib/oilskin/keys", &keys);
        text.replace("http://127.0.0.1:16080", &upstream.url())
    };
    // It is installed already: whatever the tests need is.
    let (install, rest) = first.split_once("softhsm2-util").unwrap();
    assert!(install.contains("apt-get install -y softhsm2 opensc\n"));
    for package in ["softhsm2", "opensc"] {
        tools::run(tools::program("dpkg").args(["-s", package]));
    }
    let shell = |script: &str| {
        let mut shell = tools::program("bash");
        hsm.around(&mut shell);
        shell.args(["-ec", script]).env("PATH", tools::path());
        shell.env("OILSKIN_UNSAFE_UNLOCKED_KEYS", "true").env("OILSKIN_ADMIN_LISTEN", "off");
        shell
    };
    std::fs::remove_file(hsm.path("pin")).unwrap();
    let probed = tools::run(&mut shell(&here(&format!("softhsm2-util{rest}"))));
    // What the page says is printed is what is printed, except for figures, and what it says to set is what is said.
    let shown = section.split("```\n").find(|block| block.starts_with("Wrapping ")).unwrap();
    for line in shown.lines().filter(|line| !line.is_empty() && *line != "…" && !line.contains("round trips/s")) {
        assert!(probed.lines().any(|printed| printed == line), "{line}: {probed}");
    }
    let set = second.lines().find(|line| line.starts_with("export OILSKIN_ROOT_KEY=")).unwrap();
    assert!(probed.contains(here(set).strip_prefix("export ").unwrap()), "{set}: {probed}");
    let make = |text: &str| {
        text.split_once("pkcs11-tool")
            .unwrap()
            .1
            .split_once("--usage-decrypt")
            .unwrap()
            .0
            .replace([' ', '\\', '\n', '\''], "")
    };
    assert_eq!(make(second).replace("--pin1234", ""), make(&probed));
    let start = here(second).trim_end().strip_suffix("\noilskin").unwrap().to_owned() + "\nexec oilskin";
    let process = Process::start_as(shell(&start), &[("OILSKIN_LOG_FORMAT", "json")]);
    let body = r#"{"ssn":"123"}"#;
    tools::until("keys", || {
        let answer = json(process.address(), "POST", "/", body);
        (answer.status() == 200 && answer.text() == body).then_some(())
    });
    let document = std::fs::read_to_string(hsm.path("keys/default.json")).unwrap();
    assert!(document.contains("\"kind\":\"pkcs11\""), "{document}");
}
