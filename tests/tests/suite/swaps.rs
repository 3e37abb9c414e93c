//! Certificates, authorities and revocation lists that change while traffic flows.

use std::io::Write;

use oilskin_tests::certificates::{Authority, Wish};
use oilskin_tests::keys::Keys;
use oilskin_tests::mounted::Mounted;
use oilskin_tests::process::Process;
use oilskin_tests::secured::{Open, served};
use oilskin_tests::{Client, Nginx, Upstream, client, tools};

pub(super) const CLIENT: Wish<'_> =
    Wish { names: "URI:spiffe://mesh.test/ns/shop/sa/web", usage: "clientAuth", days: 30, key: "ec:P-256" };

pub(super) fn pair(authority: &Authority, name: &str) -> Vec<(&'static str, String)> {
    vec![("tls.crt", authority.path(&format!("{name}.pem"))), ("tls.key", authority.path(&format!("{name}.key")))]
}

fn start(keys: &Keys, upstream: &Upstream, mounted: &Mounted, more: &[(&str, &str)]) -> Process {
    let (certificate, key, url) = (mounted.path("tls.crt"), mounted.path("tls.key"), upstream.url());
    let mut vars = vec![
        ("OILSKIN_UPSTREAM", url.as_str()),
        ("OILSKIN_TLS_CERT_FILE", certificate.as_str()),
        ("OILSKIN_TLS_KEY_FILE", key.as_str()),
    ];
    vars.extend_from_slice(more);
    Process::start(keys, &vars)
}

#[test]
fn kubelet_s_swap_of_a_symlink_is_seen_and_the_new_certificate_served() {
    let (authority, mounted, upstream) = (Authority::new(), Mounted::new(), Upstream::echo());
    for name in ["first", "second"] {
        authority.issue(name, &Wish::default());
    }
    mounted.put(&pair(&authority, "first"));
    let process = start(&Keys::new(), &upstream, &mounted, &[]);
    assert_eq!(served(process.address()), "first");
    mounted.put(&pair(&authority, "second"));
    tools::until("the second certificate", || (served(process.address()) == "second").then_some(()));
    assert!(process.metrics_page().contains("result=\"ok\"} 2"), "{}", process.metrics_page());
}

#[test]
fn a_key_that_does_not_fit_leaves_the_old_certificate_in_place_and_is_told_and_mended() {
    let (authority, mounted, upstream) = (Authority::new(), Mounted::new(), Upstream::echo());
    for name in ["first", "second"] {
        authority.issue(name, &Wish::default());
    }
    mounted.put(&pair(&authority, "first"));
    let admin = oilskin_tests::process::free_port().to_string();
    let process = start(&Keys::new(), &upstream, &mounted, &[("OILSKIN_ADMIN_LISTEN", &admin)]);
    let mixed = vec![("tls.crt", authority.path("second.pem")), ("tls.key", authority.path("first.key"))];
    mounted.put(&mixed);
    let line = process.logged(|line| line.contains("what is held serves on"));
    assert!(line.contains("\"reason\":\"mismatch\"") && line.contains("does not fit"), "{line}");
    assert_eq!(served(process.address()), "first");
    assert!(process.metrics_page().contains("result=\"mismatch\"} 1"), "{}", process.metrics_page());
    let certs = client::json(admin.parse().unwrap(), "GET", "/certs", "").text();
    assert!(certs.contains("\"reason\":\"mismatch\"") && certs.contains("\"days_left\":29"), "{certs}");
    let printed = tools::oilskin()
        .arg("certs")
        .env("OILSKIN_ADMIN_LISTEN", &admin)
        .env("OILSKIN_UPSTREAM", "http://127.0.0.1:1")
        .output()
        .unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert!(printed.contains("DNS:localhost") && printed.contains("refused"), "{printed}");
    mounted.put(&pair(&authority, "second"));
    tools::until("the second certificate", || (served(process.address()) == "second").then_some(()));
    let certs = client::json(admin.parse().unwrap(), "GET", "/certs", "").text();
    assert!(certs.contains("\"last_refusal\":null"), "{certs}");
}

#[test]
fn files_written_in_place_and_piece_by_piece_are_taken_once_they_are_whole() {
    let (authority, upstream) = (Authority::new(), Upstream::echo());
    for name in ["first", "second"] {
        authority.issue(name, &Wish::default());
    }
    let folder = Mounted::new();
    for (name, from) in pair(&authority, "first") {
        std::fs::copy(from, folder.path(name)).unwrap();
    }
    let process = start(&Keys::new(), &upstream, &folder, &[]);
    for (name, from) in pair(&authority, "second") {
        let whole = std::fs::read(from).unwrap();
        let mut file = std::fs::File::create(folder.path(name)).unwrap();
        for piece in whole.chunks(whole.len() / 4 + 1) {
            file.write_all(piece).unwrap();
            file.flush().unwrap();
            tools::pause(std::time::Duration::from_millis(60));
        }
    }
    tools::until("the second certificate", || (served(process.address()) == "second").then_some(()));
    assert!(!process.log().iter().any(|line| line.contains("is refused")), "{:?}", process.log());
}

pub(super) fn empty_answers() -> Upstream {
    Upstream::scripted(|_, stream| oilskin_tests::upstream::respond(stream, "200 OK", &[], b""))
}

#[test]
fn whom_the_new_trust_refuses_is_out_at_once_and_who_it_takes_stays() {
    let (old, new, mounted) = (Authority::new(), Authority::new(), Mounted::new());
    old.issue("server", &Wish::default());
    old.issue("client", &CLIENT);
    new.issue("client", &CLIENT);
    let both = tempfile::NamedTempFile::new().unwrap();
    let read = |path: String| std::fs::read_to_string(path).unwrap();
    std::fs::write(both.path(), read(old.path("ca.pem")) + &read(new.path("ca.pem"))).unwrap();
    let with = |ca: String| [pair(&old, "server"), vec![("ca.crt", ca)]].concat();
    mounted.put(&with(both.path().display().to_string()));
    let ca = mounted.path("ca.crt");
    let process = start(&Keys::new(), &empty_answers(), &mounted, &[("OILSKIN_TLS_CLIENT_CA_FILE", &ca)]);
    let (mut of_old, mut of_new) = (Open::new(&process, &old, &[]), Open::new(&process, &new, &[]));
    assert!(of_old.asks() && of_new.asks());
    mounted.put(&with(new.path("ca.pem")));
    tools::until("the old client's end", || (!of_old.asks()).then_some(()));
    assert!(of_new.asks(), "the new one stays");
    assert!(!Open::new(&process, &old, &[]).asks());
}

/// Asks for a long answer, waits until some of it has come, and takes trust in the upstream away.
fn answer_in_its_middle(protocol: &str) {
    let (authority, mounted) = (Authority::new(), Mounted::new());
    authority.issue("server", &Wish::default());
    authority.revoke(&[]);
    let trust = || vec![("ca.crt", authority.path("ca.pem")), ("crl.pem", authority.path("crl.pem"))];
    mounted.put(&trust());
    let nginx = Nginx::slow_tls_store(protocol, &authority.path("server.pem"), &authority.path("server.key"), "4k");
    std::fs::write(nginx.file("/long"), vec![b' '; 1 << 20]).unwrap();
    std::fs::write(nginx.file("/short"), "{}").unwrap();
    let yaml = format!(
        "listeners: [{{name: out, bind: 127.0.0.1:0}}]\nupstreams: {{up: {{url: \"https://localhost:{}\", tls: {{roots: own, ca_file: {}, \
         crl_file: {}}}}}}}\nroutes: [{{name: all, match: {{listener: out, path: \"/{{*rest}}\"}}, upstream: up}}]\n",
        nginx.address().port(),
        mounted.path("ca.crt"),
        mounted.path("crl.pem")
    );
    let process = Process::start(&Keys::new(), &[("OILSKIN_CONFIG_YAML", &yaml)]);
    assert_eq!(client::json(process.address(), "GET", "/short", "").text(), "{}");
    let mut waiting = Client::connect(process.address());
    waiting.send("GET /long HTTP/1.1\r\nHost: a\r\n\r\n");
    waiting.read_until(b"   ", &mut Vec::new());
    authority.revoke(&["server"]);
    mounted.put(&trust());
    // nginx would go on for minutes.
    let rest = waiting.rest();
    assert!(rest.len() < 1 << 19, "{protocol}: {}", rest.len());
    let line = process.logged(|line| line.contains("a connection is cut"));
    assert!(line.contains("\"side\":\"upstream\""), "{line}");
    process.logged(|line| line.contains("upstream_cut_body"));
    assert_eq!(client::json(process.address(), "GET", "/short", "").status(), 502);
    assert_eq!(process.handshakes("upstream", "", "revoked"), 1, "{}", process.metrics_page());
}

#[test]
fn an_answer_in_its_middle_ends_when_its_upstream_is_revoked() {
    for protocol in ["", "http2"] {
        answer_in_its_middle(protocol);
    }
}

#[test]
fn a_session_of_before_is_not_resumed_after_its_client_was_revoked() {
    let (authority, mounted) = (Authority::new(), Mounted::new());
    authority.issue("server", &Wish::default());
    authority.issue("client", &CLIENT);
    authority.revoke(&[]);
    let files = || {
        let trust = [("ca.crt", authority.path("ca.pem")), ("crl.pem", authority.path("crl.pem"))];
        [pair(&authority, "server"), trust.to_vec()].concat()
    };
    mounted.put(&files());
    let (ca, crl) = (mounted.path("ca.crt"), mounted.path("crl.pem"));
    let vars = [("OILSKIN_TLS_CLIENT_CA_FILE", ca.as_str()), ("OILSKIN_TLS_CRL_FILE", &crl)];
    let process = start(&Keys::new(), &empty_answers(), &mounted, &vars);
    let session = tempfile::NamedTempFile::new().unwrap();
    let session = session.path().to_str().unwrap();
    assert!(Open::new(&process, &authority, &["-sess_out", session]).asks());
    assert!(Open::new(&process, &authority, &["-sess_in", session]).asks());
    assert!(process.metrics_page().contains("outcome=\"resumed\"} 1"), "{}", process.metrics_page());
    authority.revoke(&["client"]);
    mounted.put(&files());
    tools::until("the list in force", || (!Open::new(&process, &authority, &[]).asks()).then_some(()));
    assert!(!Open::new(&process, &authority, &["-sess_in", session]).asks());
    assert!(process.metrics_page().contains("outcome=\"resumed\"} 1"), "{}", process.metrics_page());
}

#[test]
fn a_connection_outlives_a_change_of_our_certificate_for_as_long_as_was_said() {
    let (authority, mounted) = (Authority::new(), Mounted::new());
    for name in ["first", "second"] {
        authority.issue(name, &Wish::default());
    }
    authority.issue("client", &CLIENT);
    mounted.put(&pair(&authority, "first"));
    let upstream = empty_answers();
    for (age, stays) in [("300ms", false), ("1h", true)] {
        let process = start(&Keys::new(), &upstream, &mounted, &[("OILSKIN_TIMEOUTS_IDENTITY_AGE", age)]);
        let before = served(process.address());
        let mut open = Open::new(&process, &authority, &[]);
        assert!(open.asks());
        let next = if before == "first" { "second" } else { "first" };
        mounted.put(&pair(&authority, next));
        tools::until("the other certificate", || (served(process.address()) == next).then_some(()));
        match stays {
            false => tools::until("the connection's end", || (!open.asks()).then_some(())),
            true => {
                // Two rounds of the sweep and more.
                tools::pause(std::time::Duration::from_secs(1));
                assert!(open.asks());
            }
        }
    }
}
