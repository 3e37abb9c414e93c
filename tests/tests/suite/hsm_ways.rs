//! How root keys in tokens wrap: profiles, and what a key is called.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use oilskin_tests::hsm::Hsm;
use oilskin_tests::process::Process;
use oilskin_tests::{Upstream, tools};
use serde_json::Value;

use super::hsm::{asked_again, keys, made, serves};

/// A process with this root, once it has its keys.
fn started(hsm: &Hsm, root: &str, upstream: &Upstream) -> Process {
    let mut command = hsm.command();
    command.env("OILSKIN_ROOT_KEY", root);
    let vars = [
        ("OILSKIN_UPSTREAM", upstream.url()),
        ("OILSKIN_FIELDS", "$.ssn".to_owned()),
        ("OILSKIN_KEY_ROOT_CHECK", "1s".to_owned()),
    ];
    let process = Process::start_as(command, &vars.each_ref().map(|(name, value)| (*name, value.as_str())));
    tools::until("keys", || serves(&process).then_some(()));
    process
}

fn document(hsm: &Hsm, name: &str) -> String {
    std::fs::read_to_string(hsm.path(&format!("keys/{name}.json"))).unwrap()
}

/// What a document's first root wrapped, as it stands there and its bytes.
fn wrapped(hsm: &Hsm, name: &str) -> (String, Vec<u8>) {
    let document: Value = serde_json::from_str(document(hsm, name).lines().next().unwrap()).unwrap();
    let text = document["roots"][0]["wrapped"].as_str().unwrap().to_owned();
    let bytes = URL_SAFE_NO_PAD.decode(&text).unwrap();
    (text, bytes)
}

/// A token without AES-GCM, and a root in it that wraps by AES-KW.
fn without_gcm() -> (Hsm, String) {
    let hsm = Hsm::new();
    hsm.add_other_key("kw", "AES:32", &["--sensitive", "--usage-wrap"]);
    hsm.tell("C_EncryptInit 0x70\nC_DecryptInit 0x70\n");
    let root = hsm.uri_of("token=oil;object=kw", &tools::p11_fault(), "&profile=kw");
    (hsm, root)
}

#[test]
fn a_token_without_aes_gcm_wraps_by_aes_kw() {
    let ((hsm, root), upstream) = (without_gcm(), Upstream::echo());
    let (code, said) = keys(&hsm, Some(&root), &["init"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(wrapped(&hsm, "default").1.len(), 40);
    for words in [["rotate"], ["rewrap"]] {
        let (code, said) = keys(&hsm, Some(&root), &words);
        assert_eq!(code, Some(0), "{said}");
    }
    let process = started(&hsm, &root, &upstream);
    let count = |name: &str| hsm.calls(name, "0x0");
    let before = count("C_UnwrapKey");
    tools::until("roots to be asked", || (count("C_UnwrapKey") > before + 2).then_some(()));
    drop(process);
    // Shares do not stay in the token as keys.
    let made = count("C_CreateObject") + count("C_UnwrapKey") + count("C_GenerateKey");
    assert_eq!(made, count("C_DestroyObject"));
    // The other profiles do not do there, and say so.
    let (code, said) = keys(&hsm, Some(&root.replace("&profile=kw", "")), &["init", "--name", "other"]);
    assert!(code == Some(1) && said.contains("hsm probe"), "{said}");
}

#[test]
fn a_share_that_was_wrapped_by_aes_kw_opens_unaltered_and_in_its_place_alone() {
    let (hsm, root) = without_gcm();
    for name in ["default", "other"] {
        assert_eq!(keys(&hsm, Some(&root), &["init", "--name", name]).0, Some(0));
    }
    let (whole, (own, bytes), (others, _)) =
        (document(&hsm, "default"), wrapped(&hsm, "default"), wrapped(&hsm, "other"));
    let rewrap_of = |share: &str| {
        std::fs::write(hsm.path("keys/default.json"), whole.replace(&own, share)).unwrap();
        keys(&hsm, Some(&root), &["rewrap"])
    };
    for place in [0, 20, 39] {
        let mut altered = bytes.clone();
        altered[place] ^= 1;
        let (code, said) = rewrap_of(&URL_SAFE_NO_PAD.encode(&altered));
        assert!(code == Some(1) && said.contains("does not unwrap"), "{said}");
    }
    // AES-KW binds nothing: another keyset's share unwraps, and then the document does not open by it.
    let unwrapped = hsm.calls("C_UnwrapKey", "0x0");
    let (code, said) = rewrap_of(&others);
    assert_eq!(code, Some(1), "{said}");
    assert!(!said.contains("does not unwrap") && hsm.calls("C_UnwrapKey", "0x0") > unwrapped, "{said}");
    // One that another profile made.
    let (code, said) = rewrap_of(&URL_SAFE_NO_PAD.encode([9; 60]));
    assert!(code == Some(1) && said.contains("another profile"), "{said}");
    let (code, said) = rewrap_of(&own);
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn a_token_whose_aes_kw_is_not_that_is_refused_by_the_self_test() {
    let (hsm, root) = without_gcm();
    let gcm = "C_EncryptInit 0x70\nC_DecryptInit 0x70\n";
    for (fault, text) in [
        ("C_WrapKey 0x70", "does not offer"),
        ("C_CreateObject 0x63", "wrapping by AES-KW"),
        ("C_UnwrapKey sensitive", "can be read"),
        // Another mechanism under the number: by a fixed IV, without a tag.
        ("C_WrapKey number:0x2109:0x1082\nC_UnwrapKey number:0x2109:0x1082", "self-test"),
        ("C_UnwrapKey decoy", "self-test"),
    ] {
        hsm.tell(&format!("{gcm}{fault}\n"));
        let (code, said) = keys(&hsm, Some(&root), &["init"]);
        assert!(code == Some(1) && said.contains(text), "{fault}: {said}");
        assert!(!hsm.path("keys/default.json").exists());
    }
    // Later: an old handle that points to another key. A new session finds the right one.
    hsm.tell(gcm);
    assert_eq!(keys(&hsm, Some(&root), &["init"]).0, Some(0));
    let upstream = Upstream::echo();
    let process = started(&hsm, &root, &upstream);
    let sessions = hsm.calls("C_OpenSession", "0x0");
    hsm.tell(&format!("{gcm}C_UnwrapKey decoy 1\n"));
    tools::until("a new session", || (hsm.calls("C_OpenSession", "0x0") > sessions).then_some(()));
    hsm.tell(gcm);
    let unwrapped = hsm.calls("C_UnwrapKey", "0x0");
    tools::until("roots to be asked", || (hsm.calls("C_UnwrapKey", "0x0") > unwrapped + 2).then_some(()));
    assert!(serves(&process) && !process.log().join("\n").contains("cannot refresh"));
}

/// As AWS CloudHSM does it: what is not zeroes is refused, and what it puts into the buffer is what decrypts.
#[test]
fn a_token_that_takes_zeroes_alone_and_makes_ivs_is_used_so() {
    let (hsm, upstream) = (Hsm::new(), Upstream::echo());
    let root = |profile: &str| hsm.uri_of("token=oil;object=root", &tools::p11_fault(), profile);
    hsm.tell("C_EncryptInit cloudhsm\n");
    let (code, said) = keys(&hsm, Some(&root("&profile=softhsm")), &["init"]);
    assert!(code == Some(1) && said.contains("MechanismParamInvalid") && said.contains("hsm probe"), "{said}");
    assert_eq!(keys(&hsm, Some(&root("&profile=cloudhsm")), &["init"]).0, Some(0));
    let mut ivs = Vec::new();
    for profile in ["&profile=cloudhsm", "", "&profile=cloudhsm"] {
        let (text, bytes) = wrapped(&hsm, "default");
        assert_eq!((&bytes[..4], bytes.len()), (&[7; 4][..], 12 + 32 + 16), "the token's IV is what is stored: {text}");
        ivs.push(bytes[..12].to_vec());
        let (code, said) = keys(&hsm, Some(&root(profile)), &["rewrap"]);
        assert_eq!(code, Some(0), "{said}");
    }
    ivs.dedup();
    assert_eq!(ivs.len(), 3, "each is another");
    let process = started(&hsm, &root("&profile=cloudhsm"), &upstream);
    asked_again(&hsm);
    assert!(serves(&process));
}

/// The same key by other attributes is another root to documents, so a keyset goes under both names before the old one is let go.
#[test]
fn a_key_is_called_otherwise_by_way_of_a_keyset_under_both_names() {
    let (hsm, upstream) = (made(), Upstream::echo());
    let (old, new) = (hsm.uri(), hsm.uri_of("token=oil;object=root;id=%01", &tools::p11_fault(), ""));
    let (code, said) = keys(&hsm, Some(&new), &["rotate"]);
    assert_eq!(code, Some(1), "not under its new name alone: {said}");
    let both = format!("{old} {new}");
    // Two names are no two keys where more than one is asked for.
    let (code, said) = keys(&hsm, Some(&old), &["rewrap", "--roots", &both, "--hold", "all"]);
    assert!(code == Some(1) && said.contains("are one root key: name it once"), "{said}");
    let (code, said) = keys(&hsm, Some(&old), &["rewrap", "--roots", &both]);
    assert_eq!(code, Some(0), "{said}");
    for root in [&old, &new, &both] {
        drop(started(&hsm, root, &upstream));
    }
    let (code, said) = keys(&hsm, Some(&both), &["rewrap", "--roots", &new]);
    assert_eq!(code, Some(0), "{said}");
    drop(started(&hsm, &new, &upstream));
    assert_eq!(keys(&hsm, Some(&new), &["rotate"]).0, Some(0));
    assert_eq!(keys(&hsm, Some(&old), &["rotate"]).0, Some(1), "the old name is forgotten");
}

/// Sessions are few, whatever is asked at once.
#[test]
fn many_keysets_share_a_few_sessions() {
    let (hsm, upstream) = (Hsm::new(), Upstream::echo());
    let names: Vec<String> = (0..20).map(|number| format!("k{number}")).collect();
    for name in &names {
        assert_eq!(keys(&hsm, None, &["init", "--name", name]).0, Some(0));
    }
    let rules: Vec<String> =
        names.iter().map(|name| format!("{{select: \"$.{name}\", context: c, keyset: {name}}}")).collect();
    let yaml = format!(
        "listeners: [{{name: in, bind: 127.0.0.1:0, direction: egress}}]\nupstreams: {{store: {{url: \"{}\"}}}}\n\
         routes: [{{name: all, match: {{listener: in, path: \"/{{*rest}}\"}}, upstream: store, fields: [{}]}}]\n",
        upstream.url(),
        rules.join(", ")
    );
    let (opened, before) = (|| hsm.calls("C_OpenSession", "0x0"), hsm.calls("C_OpenSession", "0x0"));
    let mut command = hsm.command();
    command.env("OILSKIN_KEY_ROOT_CHECK", "1s");
    let process = Process::start_as(command, &[("OILSKIN_CONFIG_YAML", &yaml)]);
    let body = format!("{{{}}}", names.iter().map(|name| format!("\"{name}\":\"1\"")).collect::<Vec<_>>().join(","));
    let ask = || {
        let answer = oilskin_tests::client::json(process.address(), "POST", "/", &body);
        answer.status() == 200 && answer.text() == body
    };
    tools::until("all keysets", || ask().then_some(()));
    for _ in 0..40 {
        asked_again(&hsm);
    }
    assert!(ask());
    assert!((1..=4).contains(&(opened() - before)), "{} sessions were opened", opened() - before);
}
