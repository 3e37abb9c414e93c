//! Root keys of a keyset: which open it, which take over, and which are lost.

use oilskin_crypto::{FileRoot, Slab};
use oilskin_tests::client::json;
use oilskin_tests::process::{self, Process};
use oilskin_tests::{Upstream, tools};

use super::rotation::{QUICK, command, quick_keys, run};
use super::vault_keys::{Bench, REPLICA, ask, start, until_serving};

/// Every set of roots opens exactly when it holds enough of them, and other roots take over without touching data.
#[test]
fn other_roots_take_over_and_as_many_as_were_asked_for_are_needed() {
    let keys = quick_keys();
    let uri = |name: &str| format!("file:{}", keys.folder().join(name).display());
    let roots = |names: &[&str]| names.iter().map(|name| uri(name)).collect::<Vec<_>>().join(" ");
    for name in ["a", "b", "c"] {
        let slab = Slab::new(4096, true).unwrap();
        FileRoot::create(&keys.folder().join(name), &slab).unwrap();
    }
    let (code, said) = run(&keys, &["rewrap", "--roots", &roots(&["a", "b", "c"]), "--hold", "quorum:4"]);
    assert!(code == Some(1) && said.contains("more roots than"), "{said}");
    let (code, said) = run(&keys, &["rewrap", "--roots", &roots(&["a", "b", "c"]), "--hold", "quorum:2"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("any 2 of") && said.contains("Removed: file") && said.contains("OILSKIN_ROOT_HOLD"),
        "{said}"
    );
    let upstream = Upstream::echo();
    let url = upstream.url();
    for up in
        [&["a"][..], &["b"], &["root.key"], &["a", "b"], &["b", "c"], &["c", "a"], &["a", "b", "c"], &["root.key", "c"]]
    {
        let enough = up.iter().filter(|name| **name != "root.key").count() >= 2;
        let mut check = process::command(&keys);
        check.arg("check").env("OILSKIN_ROOT_KEY", roots(up)).envs(QUICK.iter().copied()).env("OILSKIN_UPSTREAM", &url);
        let output = check.env_remove("OILSKIN_LOG_FORMAT").output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert_eq!(output.status.success(), enough, "{up:?}: {said}");
        assert!(enough || said.contains("too few of the configured root keys"), "{said}");
    }
}

/// A root under two names counts once: as two of a quorum both would find the same share, and nothing would open what was written.
#[test]
fn one_root_under_two_names_is_not_two_of_a_quorum() {
    let keys = quick_keys();
    let uri = |name: &str| format!("file:{}", keys.folder().join(name).display());
    std::fs::copy(keys.folder().join("root.key"), keys.folder().join("copy")).unwrap();
    let document = || std::fs::read(keys.folder().join("keys/default.json")).unwrap();
    let before = document();
    for hold in ["any", "all", "quorum:2"] {
        let (code, said) =
            run(&keys, &["rewrap", "--roots", &format!("{} {}", uri("root.key"), uri("copy")), "--hold", hold]);
        assert!(code == Some(1) && said.contains("are one root key: name it once"), "{hold}: {said}");
    }
    assert_eq!(document(), before);
    let mut init = command(&keys, &["init", "--name", "other"]);
    init.env("OILSKIN_ROOT_KEY", format!("{} {}", uri("copy"), uri("root.key"))).env("OILSKIN_ROOT_HOLD", "all");
    let output = init.output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("are one root key"), "{said}");
    assert!(!keys.folder().join("keys/other.json").exists());
    // A start says the same.
    let mut check = process::command(&keys);
    check.arg("check").env("OILSKIN_ROOT_KEY", format!("{} {}", uri("copy"), uri("root.key")));
    let output = check.env("OILSKIN_UPSTREAM", "http://127.0.0.1:9").env("OILSKIN_FIELDS", "$.ssn").output().unwrap();
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.code() == Some(78) && said.contains("are one root key"), "{said}");
}

#[test]
fn a_root_file_that_is_lost_stops_no_start_where_others_are_enough() {
    let (keys, upstream) = (quick_keys(), Upstream::echo());
    let lost = format!("file:{}", keys.folder().join("lost").display());
    let roots = format!("{} {lost}", keys.root_uri());
    for (hold, starts) in [("any", true), ("all", false)] {
        let mut command = process::command(&keys);
        command.env("OILSKIN_ROOT_KEY", &roots).env("OILSKIN_ROOT_HOLD", hold).env("OILSKIN_FIELDS", "$.ssn");
        command.env("OILSKIN_UPSTREAM", upstream.url());
        if starts {
            let process = Process::start_as(command, &[]);
            process.logged(|line| line.contains("the others go on without it") && line.contains("lost"));
            assert_eq!(json(process.address(), "POST", "/", r#"{"ssn":"1"}"#).status(), 200);
            let line = format!("oilskin_keyset_root_opens{{keyset=\"default\",root=\"{lost}\"}} 0\n");
            tools::until(&line, || process.metrics_page().contains(&line).then_some(()));
        } else {
            let output = command.output().unwrap();
            assert_eq!(output.status.code(), Some(78), "{}", String::from_utf8_lossy(&output.stderr));
        }
    }
}

/// A root that is lost while others are enough is missing when it is needed: it shows, and what is mended shows too.
#[test]
fn a_root_that_opens_nothing_any_more_shows_while_another_does() {
    let (bench, upstream) = (Bench::new(), Upstream::echo());
    let keys = quick_keys();
    let both = format!("{} vault:transit/keys/root", keys.root_uri());
    let own = [("OILSKIN_ROOT_KEY", both.as_str()), ("OILSKIN_ROOT_HOLD", "any")];
    assert_eq!(bench.with(&own, &["init"]).0, Some(0));
    let (_, said) = bench.with(&own, &["list"]);
    assert!(said.contains(&format!("any 1 of 2 roots {}, vault:transit/keys/root", keys.root_uri())), "{said}");
    let (_, said) = bench.with(&own[1..], &["list", "--json"]);
    let listed: serde_json::Value = serde_json::from_str(&said).unwrap();
    let roots = listed[0]["roots"].as_array().unwrap();
    assert!(roots[0]["kind"] == "file" && roots[0]["uri"].is_null(), "not configured here: {said}");
    assert_eq!(roots[1]["uri"], "vault:transit/keys/root", "{said}");
    let mut command = bench.by_role(REPLICA, ("1h", "2h"));
    command.envs(own);
    let process = start(command, &upstream);
    until_serving(&process);
    let opens = |root: &str, opens: u8| {
        let line = format!("oilskin_keyset_root_opens{{keyset=\"default\",root=\"{root}\"}} {opens}\n");
        tools::until(&line, || process.metrics_page().contains(&line).then_some(()));
    };
    opens(&keys.root_uri(), 1);
    opens("vault:transit/keys/root", 1);
    bench.vault.policy(r#"path "secret/data/oilskin/*" { capabilities = ["read"] }"#);
    process.logged(|line| line.contains("which others do: mend it") && line.contains("vault:transit/keys/root"));
    opens("vault:transit/keys/root", 0);
    opens(&keys.root_uri(), 1);
    assert_eq!((ask(&process), process.ready().contains("\"ready\"")), (200, true), "{}", process.ready());
    bench.vault.policy(REPLICA);
    process.logged(|line| line.contains("opens the keyset again"));
    opens("vault:transit/keys/root", 1);
    assert!(!process.log().iter().any(|line| line.contains("denied twice")), "{:?}", process.log());
}
