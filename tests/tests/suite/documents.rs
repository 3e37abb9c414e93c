//! Keyset documents: what is not taken, what is not written, and how they go from one place to another.

use std::process::Command;

use oilskin_tests::client::json;
use oilskin_tests::keys::Keys;
use oilskin_tests::process::Process;
use oilskin_tests::{Upstream, tools};

use super::rotation::{QUICK, command, ids, key_id, last_token, quick_keys, run};

#[test]
fn an_older_document_put_back_and_a_second_history_are_not_taken() {
    let (keys, upstream) = (quick_keys(), Upstream::echo());
    let path = keys.folder().join("keys/default.json");
    let old = std::fs::read(&path).unwrap();
    let (code, said) = run(&keys, &["rotate"]);
    assert_eq!(code, Some(0), "{said}");
    let active = ids(&keys, "field", "active");
    let process = Process::start(&keys, &[QUICK, &[("OILSKIN_UPSTREAM", &upstream.url())]].concat());
    std::fs::write(&path, &old).unwrap();
    process.logged(|line| line.contains("its epoch did not grow"));
    assert_eq!(json(process.address(), "POST", "/", r#"{"ssn":"1"}"#).status(), 200);
    assert_eq!([key_id(&last_token(&upstream))], active.as_slice(), "the last good one serves");
}

#[test]
fn a_document_goes_from_one_store_to_another_and_an_older_one_does_not() {
    let keys = quick_keys();
    let out = keys.folder().join("out.json");
    let out = out.to_str().unwrap();
    assert_eq!(run(&keys, &["export", "--out", out]).0, Some(0));
    let (_, printed) = run(&keys, &["export"]);
    assert_eq!(printed.as_bytes(), std::fs::read(out).unwrap());
    std::fs::remove_file(keys.folder().join("keys/default.json")).unwrap();
    let (code, said) = run(&keys, &["import", out]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(run(&keys, &["rotate"]).0, Some(0));
    let (code, said) = run(&keys, &["import", out]);
    assert!(code == Some(1) && said.contains("replicas would refuse it"), "{said}");
    let altered = printed.replacen("\"epoch\":1", "\"epoch\":9", 1);
    std::fs::write(out, altered).unwrap();
    let (code, said) = run(&keys, &["import", out]);
    assert!(code == Some(1) && said.contains("MAC"), "{said}");
}

#[test]
fn what_is_signed_is_written_by_who_has_the_signers_key_alone() {
    let keys = Keys::empty();
    let key = keys.folder().join("signer.pem");
    let key = key.to_str().unwrap();
    tools::run(Command::new("openssl").args(["genpkey", "-algorithm", "ed25519", "-out", key]));
    let output = Command::new("openssl").args(["pkey", "-in", key, "-pubout", "-outform", "DER"]).output().unwrap();
    use base64::Engine as _;
    let public = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(&output.stdout[output.stdout.len() - 32..]);
    let signed = |words: &[&str]| {
        let output = command(&keys, words).env("OILSKIN_KEYSET_SIGNER", &public).output().unwrap();
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let (code, said) = signed(&["init"]);
    assert!(code == Some(1) && said.contains("--signer-key"), "{said}");
    assert_eq!(signed(&["init", "--signer-key", key]).0, Some(0));
    let (code, said) = signed(&["rotate"]);
    assert!(code == Some(1) && said.contains("--signer-key"), "{said}");
    let (code, said) = signed(&["rotate", "--signer-key", key]);
    assert_eq!(code, Some(0), "{said}");
    // Who forgets that it is signed does not write it unsigned.
    let (code, said) = run(&keys, &["rotate"]);
    assert!(code == Some(1) && said.contains("this keyset is signed"), "{said}");
    // Whoever may write the store and unwrap, but not sign, substitutes nothing.
    let out = keys.folder().join("forged.json");
    let forged = run(&keys, &["rotate", "--out", out.to_str().unwrap()]);
    assert_eq!(forged.0, Some(0), "{}", forged.1);
    let (code, said) = signed(&["import", out.to_str().unwrap()]);
    assert!(code == Some(1) && said.contains("not signed"), "{said}");
}

/// Nothing of a write that a full disk breaks is seen: not by who wrote, and not by who reads.
#[test]
fn a_full_disk_leaves_the_old_document_and_says_so() {
    let keys = quick_keys();
    let path = keys.folder().join("keys/default.json");
    let before = std::fs::read(&path).unwrap();
    let full = |words: &str| {
        let plain = command(&keys, &[]);
        let mut shell = Command::new("sh");
        // No file may grow past one block of 512 bytes, and no signal ends who tries.
        let program = plain.get_program().display();
        shell.arg("-c").arg(format!("trap '' XFSZ; ulimit -f 1; exec {program} keys {words}"));
        shell.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let output = shell.output().unwrap();
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let (code, said) = full("rotate");
    assert!(
        code == Some(1) && said.contains("cannot write a keyset document") && said.contains("File too large"),
        "{said}"
    );
    assert_eq!(std::fs::read(&path).unwrap(), before);
    let out = keys.folder().join("out.json");
    let (code, said) = full(&format!("export --out {}", out.display()));
    assert!(code == Some(1) && said.contains("out.json"), "{said}");
    assert!(!out.exists());
    assert_eq!(run(&keys, &["rotate"]).0, Some(0), "with room again");
}

#[test]
fn a_folder_that_is_only_mounted_is_read_and_rotated_into_a_file() {
    use std::os::unix::fs::PermissionsExt;
    let keys = quick_keys();
    let mode =
        |mode| std::fs::set_permissions(keys.folder().join("keys"), std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0o500);
    // Root writes where it likes.
    let plain = command(&keys, &["rotate"]);
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set", "-dac_override,-dac_read_search", "--inh-caps", "-all"]).arg(plain.get_program());
    command.args(["keys", "rotate"]).envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let output = command.output().unwrap();
    mode(0o700);
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(!output.status.success() && said.contains("--out FILE"), "{said}");
}

/// Two documents of one epoch would be two histories, of which replicas take whichever comes first.
#[test]
fn a_document_for_a_store_that_something_else_writes_is_made_once() {
    let keys = quick_keys();
    let (own, out) = (keys.folder().join("keys/default.json"), keys.folder().join("out.json"));
    let before = std::fs::read(&own).unwrap();
    let rotate = |out: &std::path::Path| run(&keys, &["rotate", "--out", out.to_str().unwrap()]);
    let (code, said) = rotate(&own);
    assert!(code == Some(1) && said.contains("the store's own folder"), "{said}");
    assert_eq!(rotate(&out).0, Some(0));
    let made = std::fs::read(&out).unwrap();
    let (code, said) = rotate(&out);
    assert!(code == Some(1) && said.contains("a document of epoch 2 waits there, and the store holds 1"), "{said}");
    assert!(std::fs::read(&out).unwrap() == made && std::fs::read(&own).unwrap() == before);
    std::fs::copy(&out, &own).unwrap();
    let (code, said) = rotate(&out);
    assert!(code == Some(0) && said.contains("epoch 3"), "{said}");
}
