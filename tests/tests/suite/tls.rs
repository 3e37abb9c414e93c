//! Upstreams over TLS: ALPN, an extra CA file, and what a certificate that cannot be trusted does.

use std::io::Read;
use std::net::TcpListener;
use std::process::Stdio;

use oilskin_tests::certificates::{Authority, Wish};
use oilskin_tests::keys::Keys;
use oilskin_tests::process::{self, Process};
use oilskin_tests::{Nginx, Proxy, Upstream, client, peers, tools};

fn yaml(upstreams: &[(&str, String, &str)]) -> String {
    let mut text = "listeners: [{name: out, bind: 127.0.0.1:0, direction: egress}]\nupstreams:\n".to_owned();
    for (name, url, more) in upstreams {
        text.push_str(&format!("  {name}: {{url: \"{url}\"{more}}}\n"));
    }
    text.push_str("routes:\n");
    for (name, ..) in upstreams {
        text.push_str(&format!(
            "- {{name: {name}, match: {{listener: out, path: \"/{name}/{{*rest}}\"}}, upstream: {name}, fields: [{{select: $.ssn}}]}}\n"
        ));
    }
    text
}

const BODY: &str = r#"{"ssn":"123-45-6789"}"#;

#[test]
fn an_upstream_over_tls_is_spoken_to_as_alpn_says() {
    let authority = Authority::new();
    authority.sign("good", "localhost", 30);
    let (certificate, key) = (authority.path("good.pem"), authority.path("good.key"));
    let origins = [
        ("two", Nginx::tls_store("http2", &certificate, &key), "HTTP/2.0", ""),
        ("one", Nginx::tls_store("", &certificate, &key), "HTTP/1.1", ""),
        ("fixed", Nginx::tls_store("http2", &certificate, &key), "HTTP/1.1", ", protocol: h1"),
    ];
    let ca = authority.path("ca.pem");
    let upstreams: Vec<_> = origins
        .iter()
        .map(|(name, nginx, _, protocol)| {
            let url = format!("https://localhost:{}", nginx.address().port());
            (*name, url, format!(", tls: {{ca_file: \"{ca}\"}}{protocol}"))
        })
        .collect();
    let upstreams: Vec<_> = upstreams.iter().map(|(name, url, more)| (*name, url.clone(), more.as_str())).collect();
    let proxy = Proxy::yaml(&yaml(&upstreams)).start();
    for (name, nginx, speaks, _) in &origins {
        for turn in 0..3 {
            let path = format!("/{name}/{turn}");
            assert_eq!(proxy.json("PUT", &path, BODY).status(), 201, "{path}");
            assert_eq!(proxy.json("GET", &path, "").text(), BODY);
            let stored = String::from_utf8(nginx.stored(&path)).unwrap();
            assert!(stored.contains("oil1.") && !stored.contains("123-45-6789"), "{stored}");
        }
        // nginx writes its log once it has answered.
        tools::until("six requests in nginx' log", || (nginx.requests().matches(speaks).count() == 6).then_some(()));
    }
}

#[test]
fn an_old_certificate_that_nothing_leads_through_does_no_harm() {
    let authority = Authority::new();
    authority.sign("good", "localhost", 30);
    authority.sign("old", "old.test", -1);
    let read = |file: &str| std::fs::read_to_string(authority.path(file)).unwrap();
    std::fs::write(authority.path("both.pem"), read("good.pem") + &read("old.pem")).unwrap();
    let nginx = Nginx::tls_store("", &authority.path("both.pem"), &authority.path("good.key"));
    let url = format!("https://localhost:{}", nginx.address().port());
    let more = format!(", tls: {{ca_file: \"{}\"}}", authority.path("ca.pem"));
    let proxy = Proxy::yaml(&yaml(&[("up", url, &more)])).start();
    for turn in 0..2 {
        assert_eq!(proxy.json("PUT", &format!("/up/{turn}"), BODY).status(), 201);
    }
}

#[test]
fn a_certificate_that_cannot_be_trusted_is_a_502_and_nothing_is_forwarded() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    authority.sign("other", "other.test", 30);
    authority.sign("old", "localhost", -1);
    stranger.sign("unknown", "localhost", 30);
    let origins = [
        ("name", Nginx::tls_store("http2", &authority.path("other.pem"), &authority.path("other.key"))),
        ("expired", Nginx::tls_store("http2", &authority.path("old.pem"), &authority.path("old.key"))),
        ("unknown", Nginx::tls_store("", &stranger.path("unknown.pem"), &stranger.path("unknown.key"))),
        ("plain", Nginx::store()),
    ];
    let more = format!(", tls: {{ca_file: \"{}\"}}", authority.path("ca.pem"));
    let upstreams: Vec<_> = origins
        .iter()
        .map(|(name, nginx)| (*name, format!("https://localhost:{}", nginx.address().port()), more.as_str()))
        .collect();
    let keys = Keys::new();
    let process = Process::start(&keys, &[("OILSKIN_CONFIG_YAML", &yaml(&upstreams))]);
    for ((name, nginx), reason) in origins.iter().zip(["name", "expired", "unknown_authority", "protocol"]) {
        let answer = oilskin_tests::client::json(process.address(), "PUT", &format!("/{name}/x"), BODY);
        assert_eq!((answer.status(), answer.code().as_str()), (502, "upstream_unreachable"), "{name}");
        let line = process.logged(|line| line.contains(&format!("\"route\":\"{name}\"")));
        assert!(line.contains(&format!("\"reason\":\"{reason}\"")), "{line}");
        assert!(!nginx.requests().contains("PUT"), "{name}: {}", nginx.requests());
        assert!(!nginx.file(&format!("/{name}/x")).exists());
    }
}

#[test]
fn an_upstream_that_never_ends_its_handshake_is_given_up_at_the_connect_deadline() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://localhost:{}", silent.local_addr().unwrap().port());
    let authority = Authority::new();
    let more = format!(", tls: {{ca_file: \"{}\"}}", authority.path("ca.pem"));
    let proxy = Proxy::yaml(&yaml(&[("up", url, &more)])).env("OILSKIN_TIMEOUTS_CONNECT", "300ms").start();
    let answer = proxy.json("PUT", "/up/x", BODY);
    assert_eq!((answer.status(), answer.code().as_str()), (502, "upstream_unreachable"));
    let (mut stream, _) = silent.accept().unwrap();
    let mut sent = Vec::new();
    stream.read_to_end(&mut sent).unwrap();
    assert_eq!(sent.first(), Some(&0x16), "a TLS hello and nothing else");
    assert!(!sent.windows(4).any(|window| window == b"6789" || window == b"oil1"));
}

#[test]
fn native_roots_are_read_only_where_an_https_upstream_needs_them() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.pem");
    std::fs::write(&empty, "no certificate in here\n").unwrap();
    let missing = folder.path().join("missing.pem");
    let upstream = Upstream::echo();
    let keys = Keys::new();
    for roots in [&empty, &missing] {
        let roots = roots.display().to_string();
        let vars =
            [("SSL_CERT_FILE", roots.as_str()), ("OILSKIN_UPSTREAM", &upstream.url()), ("OILSKIN_FIELDS", "$.ssn")];
        let process = Process::start(&keys, &vars);
        assert_eq!(oilskin_tests::client::json(process.address(), "POST", "/", BODY).text(), BODY);
        let output = process::command(&keys)
            .env("SSL_CERT_FILE", &roots)
            .env("OILSKIN_UPSTREAM", "https://localhost:1")
            .env("OILSKIN_LISTEN", "127.0.0.1:0")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(said.contains("no root certificates") && said.contains("SSL_CERT_FILE"), "{said}");
        assert!(roots.ends_with("empty.pem") || said.contains(&roots), "what cannot be read is named: {said}");
    }
}

#[test]
fn a_ca_file_without_a_certificate_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let keys = Keys::new();
    for (name, content) in [("empty.pem", Some("nothing")), ("missing.pem", None)] {
        let file = folder.path().join(name);
        if let Some(content) = content {
            std::fs::write(&file, content).unwrap();
        }
        let output = process::command(&keys)
            .arg("check")
            .env("OILSKIN_UPSTREAM", "https://localhost:1")
            .env("OILSKIN_UPSTREAM_CA_FILE", &file)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(78), "{said}");
        assert!(said.contains(name), "{said}");
    }
}

#[test]
fn an_upstream_of_tls_1_2_is_spoken_to_only_where_that_is_asked_for() {
    let authority = Authority::new();
    authority.issue("server", &Wish::default());
    let old = peers::openssl(&authority, &["-tls1_2"]);
    let (url, ca) = (format!("https://localhost:{}", old.address().port()), authority.path("ca.pem"));
    let keys = Keys::new();
    let asked = |more: &[(&str, &str)]| {
        let vars = [&[("OILSKIN_UPSTREAM", url.as_str()), ("OILSKIN_UPSTREAM_CA_FILE", &ca)][..], more].concat();
        let process = Process::start(&keys, &vars);
        (client::json(process.address(), "GET", "/x", "").status(), process)
    };
    let (status, process) = asked(&[]);
    assert_eq!(status, 502);
    process.logged(|line| line.contains("\"reason\":\"tls_version\""));
    assert_eq!(asked(&[("OILSKIN_UPSTREAM_MIN_TLS", "1.2")]).0, 200);
}
