//! Certificates from OpenBao's PKI, and the token that they are asked for with.

use std::process::Output;

use oilskin_tests::certificates::{Authority, Wish};
use oilskin_tests::keys::Keys;
use oilskin_tests::process::{self, Process};
use oilskin_tests::vault::{ROOT, Vault};
use oilskin_tests::{Upstream, client, tools};

const POLICY: &str = r#"path "pki/issue/web" { capabilities = ["update"] }"#;

/// The source of most tests.
const SOURCE: &str = "vault:pki/issue/web?common_name=localhost&ttl=1h";

struct Bench {
    authority: Authority,
    vault: Vault,
    upstream: Upstream,
    keys: Keys,
}

impl Bench {
    fn new() -> Self {
        let authority = Authority::new();
        authority.issue("server", &Wish::default());
        authority.issue("us", &Wish { names: "DNS:us", usage: "clientAuth", ..Wish::default() });
        let vault = Vault::start(&authority);
        vault.pki();
        let upstream = Upstream::scripted(|_, stream| oilskin_tests::upstream::respond(stream, "200 OK", &[], b""));
        Self { authority, vault, upstream, keys: Keys::new() }
    }

    fn start(&self, source: &str, more: &[(&str, &str)]) -> Process {
        let url = self.upstream.url();
        Process::start(
            &self.keys,
            &[&[("OILSKIN_UPSTREAM", url.as_str()), ("OILSKIN_TLS_SOURCE", source)], more].concat(),
        )
    }

    /// With the root's token, in clear text.
    fn plain(&self, source: &str, more: &[(&str, &str)]) -> Process {
        let url = self.vault.url();
        self.start(source, &[&[("VAULT_ADDR", url.as_str()), ("VAULT_TOKEN", ROOT)], more].concat())
    }

    /// By `AppRole`, over mTLS.
    fn by_role(&self, source: &str, life: &str, longest: &str, more: &[(&str, &str)]) -> Process {
        let role = self.vault.app_role(POLICY, life, longest);
        let (ca, cert, key) =
            (self.authority.path("ca.pem"), self.authority.path("us.pem"), self.authority.path("us.key"));
        let (address, secret) = (self.vault.tls_url(), self.vault.path("secret_id"));
        let vars = [
            ("VAULT_ADDR", address.as_str()),
            ("VAULT_CACERT", &ca),
            // The address names another host than the certificate.
            ("VAULT_TLS_SERVER_NAME", "localhost"),
            ("VAULT_CLIENT_CERT", &cert),
            ("VAULT_CLIENT_KEY", &key),
            ("OILSKIN_VAULT_AUTH", "approle"),
            ("OILSKIN_VAULT_ROLE_ID", &role),
            ("OILSKIN_VAULT_SECRET_ID_FILE", &secret),
        ];
        self.start(source, &[vars.as_slice(), more].concat())
    }

    /// curl that trusts the root alone, as the client of that name.
    fn curl(&self, process: &Process, client: Option<&str>) -> Output {
        let mut curl = tools::program("curl");
        curl.args(["-sS", "--max-time", "20", "--cacert", &self.vault.path("root.pem")]);
        if let Some(name) = client {
            let file = |end: &str| self.vault.path(&format!("{name}.{end}"));
            curl.args(["--cert", &file("pem"), "--key", &file("key")]);
        }
        curl.args(["-w", "%{http_code}", &format!("https://localhost:{}/x", process.address().port())])
            .output()
            .unwrap()
    }

    fn gets_in(&self, process: &Process, client: Option<&str>) -> bool {
        self.curl(process, client).stdout == b"200"
    }
}

fn ready(process: &Process) -> String {
    client::json(process.health, "GET", "/ready", "").text()
}

fn until_ready(process: &Process) {
    tools::until("readiness", || ready(process).contains("true").then_some(()));
}

/// How many calls of a kind ended so.
fn calls(process: &Process, op: &str, result: &str) -> u64 {
    let page = process.metrics_page();
    let labels = format!("oilskin_provider_requests_total{{provider=\"vault\",op=\"{op}\",result=\"{result}\"}} ");
    page.lines().find_map(|line| line.strip_prefix(labels.as_str())).map_or(0, |count| count.parse().unwrap())
}

fn until_calls(process: &Process, op: &str, result: &str, count: u64) {
    tools::until(&format!("{count} calls of {op} to end {result}"), || {
        (calls(process, op, result) >= count).then_some(())
    });
}

/// The serial number that is served now.
fn serial(process: &Process) -> String {
    let at = process.address().to_string();
    let mut openssl = tools::program("openssl");
    let shown = openssl
        .args(["s_client", "-connect", &at, "-servername", "localhost", "-showcerts"])
        .stdin(std::process::Stdio::null());
    let shown = String::from_utf8(shown.output().unwrap().stdout).unwrap();
    let (_, from) = shown.split_once("-----BEGIN CERTIFICATE").unwrap();
    let pem = format!("-----BEGIN CERTIFICATE{from}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("leaf.pem");
    std::fs::write(&path, pem).unwrap();
    tools::run(tools::program("openssl").args(["x509", "-noout", "-serial", "-in"]).arg(path))
}

#[test]
fn a_life_that_vault_shortens_is_told() {
    let bench = Bench::new();
    let process = bench.plain("vault:pki/issue/web?common_name=localhost&ttl=100000h", &[]);
    let line = process.logged(|line| line.contains("lives shorter than was asked for"));
    assert!(line.contains("\"asked_seconds\":360000000"), "{line}");
}

#[test]
fn a_certificate_is_issued_over_mtls_by_app_role_and_its_authority_vouches_for_clients() {
    let bench = Bench::new();
    let process = bench.by_role(SOURCE, "1h", "2h", &[("OILSKIN_LOG", "trace")]);
    until_ready(&process);
    bench.vault.client("good", "common_name=good");
    // The chain holds what lies between: curl knows the root alone.
    assert!(bench.gets_in(&process, Some("good")));
    assert!(!bench.gets_in(&process, None));
    bench.authority.issue("stranger", &Wish { names: "DNS:x", usage: "clientAuth", ..Wish::default() });
    for end in ["pem", "key"] {
        std::fs::copy(bench.authority.path(&format!("stranger.{end}")), bench.vault.path(&format!("stranger.{end}")))
            .unwrap();
    }
    assert!(!bench.gets_in(&process, Some("stranger")));
    let page = process.metrics_page();
    assert!(
        page.contains(
            "oilskin_cert_expiration_timestamp_seconds{source=\"vault:pki/issue/web?common_name=localhost&ttl=3600s\"}"
        ),
        "{page}"
    );
    // Nothing of the road is told: no secret, no token, no key, no body.
    let secret = std::fs::read_to_string(bench.vault.path("secret_id")).unwrap();
    let log = process.log().join("");
    for text in [secret.trim(), "PRIVATE KEY", "BEGIN CERT", "client_token"] {
        assert!(!log.contains(text), "{text}: {log}");
    }
    let tokens = log.match_indices("s.").map(|(at, _)| &log[at + 2..]);
    let long = |rest: &str| rest.bytes().take_while(u8::is_ascii_alphanumeric).count() >= 20;
    assert!(!tokens.into_iter().any(long), "{log}");
}

#[test]
fn certificates_are_renewed_before_they_end_and_no_request_fails() {
    let bench = Bench::new();
    let process = bench.by_role("vault:pki/issue/web?common_name=localhost&ttl=12s", "1h", "2h", &[]);
    until_ready(&process);
    bench.vault.client("good", "common_name=good");
    let first = serial(&process);
    let mut seen = std::collections::BTreeSet::from([first]);
    tools::until("three certificates", || {
        assert!(bench.gets_in(&process, Some("good")));
        seen.insert(serial(&process));
        (seen.len() >= 3).then_some(())
    });
    assert!(ready(&process).contains("true"));
}

#[test]
fn a_token_is_renewed_and_come_by_anew_where_it_cannot_be_and_given_back_at_the_end() {
    let bench = Bench::new();
    let mut process = bench.by_role(SOURCE, "3s", "7s", &[]);
    until_ready(&process);
    until_calls(&process, "renew", "ok", 1);
    until_calls(&process, "login", "ok", 2);
    process.signal("TERM");
    assert_eq!(process.ended(), Some(0));
    // Those that were replaced end by themselves; the last one was given back.
    tools::until("no token but root's", || {
        let text = bench.vault.bao(&["list", "-format=json", "auth/token/accessors"]);
        let accessors: Vec<String> = serde_json::from_str(&text).unwrap();
        (accessors.len() == 1).then_some(())
    });
}

#[test]
fn a_token_that_was_taken_away_is_replaced() {
    let bench = Bench::new();
    let process = bench.by_role("vault:pki/issue/web?common_name=localhost&ttl=12s", "1h", "2h", &[]);
    until_ready(&process);
    bench.vault.bao(&["token", "revoke", "-mode=path", "auth/approle"]);
    until_calls(&process, "issue", "denied", 1);
    process.logged(|line| line.contains("permission denied (403)") && line.contains("\"reason\":\"denied\""));
    until_calls(&process, "login", "ok", 2);
    until_calls(&process, "issue", "ok", 2);
}

#[test]
fn a_token_from_a_file_is_read_again_when_the_file_is_written() {
    let bench = Bench::new();
    let file = bench.vault.path("token");
    bench.vault.app_role(POLICY, "1h", "2h");
    let token =
        || bench.vault.bao(&["token", "create", "-field=token", "-policy=oilskin", "-renewable=false", "-ttl=1h"]);
    let first = token();
    std::fs::write(&file, format!("{first}\n")).unwrap();
    let url = bench.vault.url();
    let process = bench.start(
        "vault:pki/issue/web?common_name=localhost&ttl=12s",
        &[("VAULT_ADDR", &url), ("VAULT_TOKEN_FILE", &file)],
    );
    until_ready(&process);
    process.logged(|line| line.contains("cannot be renewed"));
    bench.vault.bao(&["token", "revoke", first.trim()]);
    // Nobody has written another yet: what is held serves on.
    until_calls(&process, "issue", "denied", 1);
    let next = bench.vault.path("next");
    std::fs::write(&next, token()).unwrap();
    std::fs::rename(&next, &file).unwrap();
    until_calls(&process, "issue", "ok", 2);
}

#[test]
fn a_vault_that_is_not_there_is_waited_for_and_one_that_goes_is_not_missed() {
    let mut bench = Bench::new();
    let role = bench.vault.url();
    bench.vault.down();
    let process = bench.start(SOURCE, &[("VAULT_ADDR", &role), ("VAULT_TOKEN", ROOT)]);
    process.logged(|line| line.contains("no token of Vault's: Vault cannot be reached") && line.contains("refused"));
    tools::until("its reason", || ready(&process).contains("Vault cannot be reached").then_some(()));
    bench.vault.up();
    bench.vault.pki();
    until_ready(&process);
    bench.vault.client("good", "common_name=good");
    bench.vault.down();
    assert!(bench.gets_in(&process, Some("good")));
    assert!(ready(&process).contains("true"));
}

#[test]
fn who_is_revoked_is_out_once_the_list_was_read() {
    let bench = Bench::new();
    bench.vault.bao(&["write", "pki/config/crl", "auto_rebuild=false", "expiry=72h"]);
    let process = bench.plain(&format!("{SOURCE}&crl=1s"), &[]);
    until_ready(&process);
    let serial = bench.vault.client("good", "common_name=good");
    bench.vault.client("other", "common_name=other");
    assert!(bench.gets_in(&process, Some("good")));
    bench.vault.bao(&["write", "pki/revoke", &format!("serial_number={serial}")]);
    tools::until("its refusal", || (!bench.gets_in(&process, Some("good"))).then_some(()));
    process.refused("revoked", 1);
    assert!(bench.gets_in(&process, Some("other")));
}

#[test]
fn what_vault_refuses_is_told_in_its_words() {
    let bench = Bench::new();
    bench.vault.bao(&["write", "pki/roles/narrow", "allowed_domains=shop.test", "allow_subdomains=true"]);
    let process = bench.plain("vault:pki/issue/narrow?common_name=evil.test", &[]);
    let line = process.logged(|line| line.contains("certificates are refused"));
    assert!(
        line.contains("\"reason\":\"refused\"") && line.contains("(400)") && line.contains("not allowed by this role"),
        "{line}"
    );
    assert!(ready(&process).contains("not allowed by this role"), "{}", ready(&process));
    assert!(!process.log().join("").contains(ROOT));
    bench.vault.bao(&["operator", "seal"]);
    process.logged(|line| line.contains("Vault is sealed") && line.contains("\"reason\":\"sealed\""));
}

#[test]
fn an_upstream_is_spoken_to_with_an_issued_certificate_and_vault_over_its_socket() {
    let bench = Bench::new();
    let url = bench.vault.socket_url();
    let inner = bench.plain(&format!("{SOURCE}&uri_sans=spiffe://mesh.test/ns/db/sa/store"), &[]);
    until_ready(&inner);
    let upstream = format!("https://localhost:{}", inner.address().port());
    let vars = [
        ("OILSKIN_UPSTREAM", upstream.as_str()),
        ("OILSKIN_UPSTREAM_SOURCE", "vault:pki/issue/web?uri_sans=spiffe://mesh.test/ns/shop/sa/web&ttl=1h"),
        ("OILSKIN_UPSTREAM_ALLOW", "spiffe://mesh.test/ns/db/sa/store"),
        ("VAULT_ADDR", &url),
        ("VAULT_TOKEN", ROOT),
    ];
    let outer = Process::start(&bench.keys, &vars);
    until_ready(&outer);
    assert_eq!(client::json(outer.address(), "GET", "/x", "").status(), 200);
    assert_eq!(inner.handshakes("app", "X25519MLKEM768", "full"), 1);
}

#[test]
fn settings_of_vault_that_cannot_be_are_told_where_something_asks_and_only_there() {
    let keys = Keys::new();
    let run = |vars: &[(&str, &str)]| {
        let mut command = process::command(&keys);
        command.arg("check").env("OILSKIN_UPSTREAM", "http://127.0.0.1:9").envs(vars.iter().copied());
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
    };
    let wrong = [
        ("VAULT_SKIP_VERIFY", "true"),
        ("VAULT_ADDR", "ftp://x"),
        ("VAULT_TOKEN", "s.super secret"),
        ("VAULT_CLIENT_CERT", "/x"),
    ];
    // They are the pod's, and nothing of ours asks Vault.
    let (code, told) = run(&wrong);
    assert_eq!(code, Some(0), "{told}");
    let (code, told) = run(&[&wrong[..], &[("OILSKIN_TLS_SOURCE", SOURCE)]].concat());
    assert_eq!(code, Some(78), "{told}");
    for text in [
        "VAULT_SKIP_VERIFY: there is no switch",
        "VAULT_ADDR: must be https://",
        "VAULT_TOKEN: must be visible ASCII",
        "VAULT_CLIENT_KEY: missing",
    ] {
        assert!(told.contains(text), "{text}: {told}");
    }
    assert!(!told.contains("super"), "{told}");
    let role = [("OILSKIN_TLS_SOURCE", SOURCE), ("VAULT_ADDR", "http://127.0.0.1:9"), ("OILSKIN_VAULT_ROLE_ID", "x")];
    let (code, told) = run(&[&role[..], &[("VAULT_TOKEN", "s.x")]].concat());
    assert_eq!(code, Some(78), "{told}");
    assert!(told.contains("OILSKIN_VAULT_ROLE_ID: is for OILSKIN_VAULT_AUTH (vault.auth) approle"), "{told}");
    let (code, told) = run(&[("OILSKIN_TLS_SOURCE", SOURCE), ("OILSKIN_VAULT_AUTH", "approle")]);
    assert_eq!(code, Some(78), "{told}");
    for text in ["VAULT_ADDR: missing", "OILSKIN_VAULT_ROLE_ID: missing", "OILSKIN_VAULT_SECRET_ID_FILE: missing"] {
        assert!(told.contains(text), "{text}: {told}");
    }
}

#[test]
fn an_answer_without_end_is_not_read_to_its_end() {
    let keys = Keys::new();
    let endless = Upstream::scripted(|_, stream| {
        use std::io::Write;
        let piece = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
        while stream.write_all(&piece).is_ok() {}
        oilskin_tests::upstream::Then::Close
    });
    let url = endless.url();
    let vars = [
        ("OILSKIN_UPSTREAM", "http://127.0.0.1:9"),
        ("OILSKIN_TLS_SOURCE", SOURCE),
        ("VAULT_ADDR", &url),
        ("VAULT_TOKEN", ROOT),
    ];
    let process = Process::start(&keys, &vars);
    process.logged(|line| line.contains("its answer is longer than"));
    assert!(process.peak_memory() < 150 << 20, "{}", process.peak_memory());
}

#[test]
fn a_namespace_is_asked_in() {
    let bench = Bench::new();
    bench.vault.bao(&["namespace", "create", "team"]);
    bench.vault.bao(&["secrets", "enable", "-namespace=team", "pki"]);
    bench.vault.bao(&[
        "write",
        "-namespace=team",
        "pki/root/generate/internal",
        "common_name=team",
        "key_type=ec",
        "key_bits=256",
    ]);
    bench.vault.bao(&[
        "write",
        "-namespace=team",
        "pki/roles/ours",
        "allow_any_name=true",
        "key_type=ec",
        "key_bits=256",
    ]);
    let source = "vault:pki/issue/ours?common_name=localhost&ttl=1h&trust=";
    let process = bench.plain(source, &[("VAULT_NAMESPACE", "team")]);
    until_ready(&process);
    // Outside of it there is no such role.
    let process = bench.plain(source, &[]);
    process.logged(|line| line.contains("certificates are refused, and nothing is held yet"));
}
