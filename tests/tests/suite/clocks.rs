//! Certificates and time: too early, ended, a clock that is set, a source that is gone for long.

use std::path::Path;

use oilskin_tests::certificates::{Authority, Wish};
use oilskin_tests::clock::Clock;
use oilskin_tests::process::{self, Process};
use oilskin_tests::sds::{Sds, certificate, trust};
use oilskin_tests::secured::{Open, served};
use oilskin_tests::{Nginx, Upstream, client, tools};

use super::mtls::{BODY, Bench, text};

const CLIENT: Wish<'_> =
    Wish { names: "URI:spiffe://mesh.test/ns/shop/sa/web", usage: "clientAuth", days: 30, key: "ec:P-256" };

const SERVER: Wish<'_> = Wish { names: "DNS:localhost", usage: "serverAuth", days: 30, key: "ec:P-256" };

fn start(clock: &Clock, bench: &Bench, more: &[(&str, &str)]) -> Process {
    let clock = clock.vars();
    let mut vars: Vec<(&str, &str)> = clock.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    vars.extend_from_slice(more);
    bench.start(&vars)
}

/// Copies, in one rename each, a pair of the authority's into the place of the server's.
fn put(authority: &Authority, name: &str) {
    for kind in ["key", "pem"] {
        let next = authority.path("next");
        std::fs::copy(authority.path(&format!("{name}.{kind}")), &next).unwrap();
        std::fs::rename(next, authority.path(&format!("server.{kind}"))).unwrap();
    }
}

fn expiration(process: &Process) -> f64 {
    let page = process.metrics_page();
    let line = page.lines().find(|line| line.starts_with("oilskin_cert_expiration_timestamp_seconds{")).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

fn until_not_ready(process: &Process, why: &str) {
    tools::until(why, || process.ready().contains(why).then_some(()));
}

fn until_ready(process: &Process) {
    tools::until("readiness", || process.ready().contains("true").then_some(()));
}

#[test]
fn a_clock_that_jumps_past_the_end_is_told_everywhere_and_a_new_certificate_mends_it() {
    let (bench, clock) = (Bench::new(), Clock::new());
    let own = &bench.authority;
    own.leaf("later", &SERVER, -60..90 * 86_400, &[]);
    own.leaf("later_client", &CLIENT, -60..90 * 86_400, &[]);
    let other = Authority::new();
    let (admin, ca) = (process::free_port().to_string(), own.path("trust.pem"));
    std::fs::copy(own.path("ca.pem"), &ca).unwrap();
    let mut process = start(&clock, &bench, &[("OILSKIN_ADMIN_LISTEN", &admin), ("OILSKIN_TLS_CLIENT_CA_FILE", &ca)]);
    let certs = || client::json(admin.parse().unwrap(), "GET", "/certs", "").text();
    assert!(process.ready().contains("true") && certs().contains("\"days_left\":29"), "{}", certs());
    let end = expiration(&process);
    let mut open = Open::new(&process, own, &[]);
    assert!(open.asks());
    clock.set("+40d");
    until_not_ready(&process, "has expired");
    assert!(certs().contains("\"days_left\":-11"), "{}", certs());
    assert!((expiration(&process) - end).abs() < 1.0);
    // Whose certificate has ended as well is out, and comes not in.
    tools::until("the open connection's end", || (!open.asks()).then_some(()));
    process.logged(|line| line.contains("a connection is cut"));
    assert!(!bench.curl(&process, Some((own, "client")), &[]).status.success());
    process.refused("expired", 1);
    // Who has a good one is the judge of ours, by its own clock.
    let answer = bench.curl(&process, Some((own, "later_client")), &[]);
    assert_eq!(text(&answer), BODY, "{answer:?} {}", process.metrics_page());
    // Whom we trust is another matter than our own certificate.
    std::fs::copy(other.path("ca.pem"), &ca).unwrap();
    tools::until("the other authority", || {
        (!bench.curl(&process, Some((own, "later_client")), &[]).status.success()).then_some(())
    });
    std::fs::copy(own.path("ca.pem"), &ca).unwrap();
    put(own, "later");
    until_ready(&process);
    tools::until("the first authority", || {
        bench.curl(&process, Some((own, "later_client")), &[]).status.success().then_some(())
    });
    assert_eq!(text(&bench.curl(&process, Some((own, "later_client")), &[])), BODY);
    assert!(certs().contains("\"days_left\":49") && expiration(&process) > end + 86_400.0, "{}", certs());
    clock.set("-1d");
    until_not_ready(&process, "not valid yet");
    clock.set("+0d");
    until_ready(&process);
    assert!(process.runs());
}

#[test]
fn where_the_files_are_gone_what_is_held_serves_until_it_ends() {
    let (bench, clock) = (Bench::new(), Clock::new());
    let process = start(&clock, &bench, &[]);
    let end = expiration(&process);
    for file in ["server.pem", "server.key"] {
        std::fs::remove_file(bench.authority.path(file)).unwrap();
    }
    let line = process.logged(|line| line.contains("what is held serves on"));
    assert!(line.contains("\"reason\":\"file\"") && line.contains("No such file"), "{line}");
    for later in ["+2h", "+20d"] {
        clock.set(later);
        assert!(process.ready().contains("true"), "{later}: {}", process.ready());
        assert_eq!(text(&bench.curl(&process, None, &[])), BODY, "{later}");
        assert!((expiration(&process) - end).abs() < 1.0);
    }
    clock.set("+31d");
    until_not_ready(&process, "has expired");
    assert!((expiration(&process) - end).abs() < 1.0);
}

#[test]
fn a_certificate_that_lives_for_seconds_ends_readiness_and_its_clients_connections_by_itself() {
    let bench = Bench::new();
    let own = &bench.authority;
    // It is built now, not while the certificate ends.
    tools::oilskin();
    own.leaf("server", &SERVER, -60..15, &[]);
    own.leaf("client", &CLIENT, -60..15, &[]);
    let ca = own.path("ca.pem");
    let process = bench.start(&[("OILSKIN_TLS_CLIENT_CA_FILE", &ca)]);
    assert!(process.ready().contains("true"));
    let mut open = Open::new(&process, own, &[]);
    assert!(open.asks());
    until_not_ready(&process, "has expired");
    tools::until("the open connection's end", || (!open.asks()).then_some(()));
    // curl itself no longer takes ours.
    let answer = bench.curl(&process, None, &[]);
    assert!(!answer.status.success() && String::from_utf8_lossy(&answer.stderr).contains("expired"), "{answer:?}");
}

#[test]
fn a_certificate_whose_time_has_not_come_or_is_over_does_not_start() {
    let bench = Bench::new();
    let own = &bench.authority;
    own.leaf("early", &SERVER, 3600..7200, &[]);
    own.leaf("over", &SERVER, -7200..-3600, &[]);
    for (name, says) in [("early", "not valid yet: check this machine's clock"), ("over", "has expired")] {
        let (certificate, key) = (own.path(&format!("{name}.pem")), own.path(&format!("{name}.key")));
        let listener = [("OILSKIN_TLS_CERT_FILE", &certificate), ("OILSKIN_TLS_KEY_FILE", &key)];
        let upstream = [("OILSKIN_UPSTREAM_CERT_FILE", &certificate), ("OILSKIN_UPSTREAM_KEY_FILE", &key)];
        for (vars, url) in [(listener, "http://127.0.0.1:9"), (upstream, "https://127.0.0.1:9")] {
            for command in ["check", "run"] {
                let mut oilskin = process::command(&bench.keys);
                oilskin.args((command == "check").then_some("check")).envs(vars).env("OILSKIN_UPSTREAM", url);
                let told = oilskin.env("OILSKIN_LISTEN", "127.0.0.1:0").output().unwrap();
                let said = String::from_utf8_lossy(&told.stderr).into_owned();
                assert_eq!(told.status.code(), Some(78), "{command} {name}: {said}");
                assert!(said.contains(says) && said.contains(&certificate), "{command} {name}: {said}");
            }
        }
    }
}

#[test]
fn files_that_came_too_early_go_live_when_their_time_has_come() {
    let bench = Bench::new();
    let own = &bench.authority;
    let process = bench.start(&[]);
    own.leaf("early", &SERVER, 10..3600, &[]);
    put(own, "early");
    let line = process.logged(|line| line.contains("what is held serves on"));
    assert!(line.contains("\"reason\":\"early\""), "{line}");
    assert_eq!(served(process.address()), "server");
    assert!(process.ready().contains("true"));
    tools::until("the other certificate", || (served(process.address()) == "early").then_some(()));
}

/// A server of secrets, and a listener that takes its certificate and authorities from it.
fn by_secrets(bench: &Bench, socket: &Path) -> (Sds, Process) {
    let server = Sds::start(socket);
    server.put(vec![certificate("default", &bench.authority, "server", "server"), trust("ROOTCA", &bench.authority)]);
    let source = format!("sds:unix:{}", socket.display());
    let vars = [("OILSKIN_UPSTREAM", bench.upstream.url()), ("OILSKIN_TLS_SOURCE", source)];
    let vars: Vec<_> = vars.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let process = Process::start(&bench.keys, &vars);
    until_ready(&process);
    (server, process)
}

#[test]
fn a_secret_that_came_too_early_goes_live_in_its_time_whether_the_service_is_there_or_not() {
    let upstream = Upstream::scripted(|_, stream| oilskin_tests::upstream::respond(stream, "200 OK", &[], b""));
    let (bench, other) = (Bench { upstream, ..Bench::new() }, Authority::new());
    let folder = tempfile::tempdir().unwrap();
    let (server, process) = by_secrets(&bench, &folder.path().join("sds"));
    other.issue("client", &CLIENT);
    bench.authority.leaf("early", &SERVER, 8..3600, &[]);
    server.put(vec![certificate("default", &bench.authority, "early", "early")]);
    let refusal =
        tools::until("a refusal", || server.requests().into_iter().find(|request| request.error_detail.is_some()));
    assert!(refusal.error_detail.unwrap().message.contains("not valid yet"));
    process.logged(|line| line.contains("what is held serves on") && line.contains("\"reason\":\"early\""));
    assert_eq!(served(process.address()), "server");
    // Authorities that come meanwhile do not wait for it.
    server.put(vec![trust("ROOTCA", &other)]);
    tools::until("the other authority", || Open::new(&process, &other, &[]).asks().then_some(()));
    assert!(!Open::new(&process, &bench.authority, &[]).asks());
    assert_eq!(served(process.address()), "server", "not before its time");
    drop(server);
    process.logged(|line| line.contains("is gone, what is held serves on"));
    tools::until("the other certificate", || (served(process.address()) == "early").then_some(()));
    assert!(Open::new(&process, &other, &[]).asks(), "with the authorities of before");
}

#[test]
fn where_the_service_is_gone_the_metric_tells_the_end_of_what_is_held() {
    let (bench, folder) = (Bench::new(), tempfile::tempdir().unwrap());
    let (server, process) = by_secrets(&bench, &folder.path().join("sds"));
    let end = expiration(&process);
    drop(server);
    process.logged(|line| line.contains("is gone, what is held serves on"));
    assert!(process.ready().contains("true"));
    assert_eq!(text(&bench.curl(&process, Some((&bench.authority, "client")), &[])), BODY);
    assert!((expiration(&process) - end).abs() < 1.0 && end > 0.0);
    assert!(process.metrics_page().contains("result=\"unreachable\"} 1"), "{}", process.metrics_page());
}

#[test]
fn a_connection_ends_with_its_peer_s_certificate_on_both_sides() {
    let bench = Bench::new();
    let own = &bench.authority;
    tools::oilskin();
    own.leaf("client", &CLIENT, -60..8, &[]);
    own.leaf("brief", &SERVER, -60..8, &[]);
    let ca = own.path("ca.pem");
    let process = bench.start(&[("OILSKIN_TLS_CLIENT_CA_FILE", &ca)]);
    let nginx = Nginx::tls_store("http2", &own.path("brief.pem"), &own.path("brief.key"));
    let url = format!("https://localhost:{}", nginx.address().port());
    let outer = Process::start(&bench.keys, &[("OILSKIN_UPSTREAM", &url), ("OILSKIN_UPSTREAM_CA_FILE", &ca)]);
    assert_eq!(client::json(outer.address(), "GET", "/x", "").status(), 404);
    let mut open = Open::new(&process, own, &[]);
    assert!(open.asks());
    // Asked again and again: none of both is idle.
    tools::until("the client's end", || (!open.asks()).then_some(()));
    // The cut may meet a request; the next one finds that no new connection is made, either.
    tools::until("the upstream's end", || {
        client::json(outer.address(), "GET", "/x", "");
        outer.log().iter().any(|line| line.contains("\"reason\":\"expired\"")).then_some(())
    });
    process.logged(|line| line.contains("a connection is cut") && line.contains("\"side\":\"app\""));
    outer.logged(|line| line.contains("a connection is cut") && line.contains("\"side\":\"upstream\""));
}

#[test]
fn what_has_ended_while_it_was_held_is_told_once() {
    let bench = Bench::new();
    let own = &bench.authority;
    tools::oilskin();
    own.leaf("server", &SERVER, -60..6, &[]);
    own.revoke_many(1, 10);
    let (ca, crl) = (own.path("ca.pem"), own.path("crl.pem"));
    let vars = [("OILSKIN_TLS_CLIENT_CA_FILE", ca.as_str()), ("OILSKIN_TLS_CRL_FILE", &crl)];
    let process = bench.start(&vars);
    process.logged(|line| line.contains("cannot be used any more: the certificate has expired"));
    own.issue("server", &SERVER);
    process.logged(|line| line.contains("were changed"));
    process.logged(|line| line.contains("cannot be used any more: a revocation list has ended"));
    until_not_ready(&process, "a revocation list has ended");
    let told = process.log().iter().filter(|line| line.contains("cannot be used any more")).count();
    assert_eq!(told, 2, "{:?}", process.log());
}
