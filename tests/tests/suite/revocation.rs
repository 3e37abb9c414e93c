//! Revocation lists of odd kinds: what they do not say for certain lets nobody in.

use oilskin_tests::certificates::{Authority, Wish};
use oilskin_tests::process::{self, Process};

use super::mtls::{BODY, Bench, text};

const CLIENT: Wish<'_> = Wish { names: "DNS:client.test", usage: "clientAuth", days: 30, key: "ec:P-256" };

const A: &str = "http://lists.test/a";
const B: &str = "http://lists.test/b";

fn started(bench: &Bench, list: &str) -> Process {
    let (ca, crl) = (bench.authority.path("ca.pem"), bench.authority.path(list));
    bench.start(&[("OILSKIN_TLS_CLIENT_CA_FILE", &ca), ("OILSKIN_TLS_CRL_FILE", &crl)])
}

/// Several lists in one file.
fn joined(authority: &Authority, file: &str, lists: &[&str]) {
    let read = |list: &&str| std::fs::read_to_string(authority.path(&format!("{list}.pem"))).unwrap();
    std::fs::write(authority.path(file), lists.iter().map(read).collect::<String>()).unwrap();
}

#[test]
fn a_list_speaks_of_those_alone_that_its_distribution_points_reach() {
    let bench = Bench::new();
    let own = &bench.authority;
    let leaves: [(&str, &[&str]); 6] = [
        ("nowhere", &[]),
        ("at_a", &[A]),
        ("at_b", &[B]),
        ("at_both", &["http://lists.test/other", B]),
        ("by_reasons", &["reasons"]),
        ("by_others", &["indirect"]),
    ];
    for (name, points) in leaves {
        own.leaf(name, &CLIENT, -60..3600, points);
    }
    let all: Vec<&str> = leaves.iter().map(|(name, _)| *name).collect();
    let cases: [(&str, &[&str]); 5] = [
        ("plain", &all),
        ("two_points", &["nowhere", "at_a", "at_b", "at_both"]),
        ("of_a", &["nowhere", "at_a"]),
        ("users", &["nowhere", "at_a"]),
        ("authorities", &[]),
    ];
    for (kind, spoken_of) in cases {
        own.list("good", kind, &[]);
        own.list("bad", kind, &all);
        let (good, mut bad) = (started(&bench, "good.pem"), started(&bench, "bad.pem"));
        let (mut unknown, mut revoked) = (0, 0);
        for name in &all {
            let known = spoken_of.contains(name);
            let answer = bench.curl(&good, Some((own, name)), &[]);
            assert_eq!(text(&answer) == BODY, known, "{kind} {name}: {answer:?}");
            assert!(!bench.curl(&bad, Some((own, name)), &[]).status.success(), "{kind} {name}");
            *if known { &mut revoked } else { &mut unknown } += 1;
        }
        good.refused("revocation_unknown", unknown);
        bad.refused("revocation_unknown", unknown);
        bad.refused("revoked", revoked);
        assert!(bad.runs(), "{kind}");
    }
}

#[test]
fn a_list_that_is_not_understood_is_refused_at_the_start_and_while_running() {
    let bench = Bench::new();
    let own = &bench.authority;
    own.leaf("good", &CLIENT, -60..3600, &[A]);
    own.list("crl", "plain", &[]);
    let (certificate, key) = (own.path("server.pem"), own.path("server.key"));
    let (ca, crl) = (own.path("ca.pem"), own.path("crl.pem"));
    let vars = [
        ("OILSKIN_UPSTREAM", "http://127.0.0.1:9"),
        ("OILSKIN_TLS_CERT_FILE", &certificate),
        ("OILSKIN_TLS_KEY_FILE", &key),
        ("OILSKIN_TLS_CLIENT_CA_FILE", &ca),
        ("OILSKIN_TLS_CRL_FILE", &crl),
    ];
    let mut process = started(&bench, "crl.pem");
    let kinds = [
        "attributes",
        "indirect",
        "reasons",
        "empty_reasons",
        "no_reasons",
        "relative_name",
        "delta",
        "unknown_critical",
    ];
    for kind in kinds {
        own.list("crl", kind, &["good"]);
        let told = process::command(&bench.keys).arg("check").envs(vars).output().unwrap();
        let said = String::from_utf8_lossy(&told.stderr).into_owned();
        assert_eq!(told.status.code(), Some(78), "{kind}: {said}");
        assert!(said.contains("a revocation list cannot be used") && !said.contains("panic"), "{kind}: {said}");
    }
    // The one that was good serves on.
    let line = process.logged(|line| line.contains("what is held serves on"));
    assert!(line.contains("\"reason\":\"crl\""), "{line}");
    assert_eq!(text(&bench.curl(&process, Some((own, "good")), &[])), BODY);
    own.list("crl", "plain", &["good"]);
    oilskin_tests::tools::until("the list in force", || {
        (!bench.curl(&process, Some((own, "good")), &[]).status.success()).then_some(())
    });
    assert!(process.runs() && !process.log().iter().any(|line| line.contains("panic")), "{:?}", process.log());
}

#[test]
fn whom_one_of_an_issuer_s_lists_has_revoked_no_other_lets_in() {
    let bench = Bench::new();
    let own = &bench.authority;
    own.leaf("gone", &CLIENT, -60..3600, &[]);
    own.leaf("good", &CLIENT, -60..3600, &[]);
    for (name, kind, revoked) in
        [("old", "older", &[][..]), ("new", "plain", &["gone"]), ("first", "of_a", &[]), ("second", "of_b", &["gone"])]
    {
        own.list(name, kind, revoked);
    }
    for lists in [["old", "new"], ["new", "old"], ["first", "second"], ["second", "first"]] {
        joined(own, "both.pem", &lists);
        let process = started(&bench, "both.pem");
        assert_eq!(text(&bench.curl(&process, Some((own, "good")), &[])), BODY, "{lists:?}");
        assert!(!bench.curl(&process, Some((own, "gone")), &[]).status.success(), "{lists:?}");
        process.refused("revoked", 1);
    }
}

#[test]
fn lists_of_others_and_forged_ones_let_nobody_in() {
    let bench = Bench::new();
    let (own, other) = (&bench.authority, Authority::new());
    own.leaf("good", &CLIENT, -60..3600, &[]);
    own.list("forged", "forged", &[]);
    // Of the same name, but another's.
    other.list("crl", "plain", &[]);
    std::fs::copy(other.path("crl.pem"), own.path("other.pem")).unwrap();
    for list in ["forged.pem", "other.pem"] {
        let mut process = started(&bench, list);
        assert!(!bench.curl(&process, Some((own, "good")), &[]).status.success(), "{list}");
        process.refused("revocation_unknown", 1);
        assert!(process.runs());
    }
}
