//! TLS on our listeners, and our own certificate towards upstreams: who gets in, and what is told of it.

use std::process::Output;

use oilskin_tests::certificates::{Authority, Wish};
use oilskin_tests::keys::Keys;
use oilskin_tests::process::{self, Process};
use oilskin_tests::{Nginx, Proxy, Upstream, tools};

pub(super) const BODY: &str = r#"{"ssn":"123-45-6789"}"#;

/// Everything that a test of a listener needs.
pub(super) struct Bench {
    pub(super) authority: Authority,
    pub(super) upstream: Upstream,
    pub(super) keys: Keys,
}

impl Bench {
    pub(super) fn new() -> Self {
        let authority = Authority::new();
        authority.issue("server", &Wish::default());
        authority.issue(
            "client",
            &Wish { names: "URI:spiffe://mesh.test/ns/shop/sa/web", usage: "clientAuth", ..Wish::default() },
        );
        Self { authority, upstream: Upstream::echo(), keys: Keys::new() }
    }

    pub(super) fn start(&self, more: &[(&str, &str)]) -> Process {
        let (certificate, key) = (self.authority.path("server.pem"), self.authority.path("server.key"));
        let url = self.upstream.url();
        let mut vars = vec![
            ("OILSKIN_UPSTREAM", url.as_str()),
            ("OILSKIN_FIELDS", "$.ssn"),
            ("OILSKIN_TLS_CERT_FILE", &certificate),
            ("OILSKIN_TLS_KEY_FILE", &key),
        ];
        vars.extend_from_slice(more);
        Process::start(&self.keys, &vars)
    }

    /// One whose listener speaks TLS 1.2, too.
    pub(super) fn tls12(&self, more: &[(&str, &str)]) -> Process {
        let yaml = format!(
            "listeners: [{{name: out, bind: 127.0.0.1:0, tls: {{cert_file: {}, key_file: {}, min_version: '1.2'}}}}]\n\
             upstreams: {{up: {{url: \"{}\"}}}}\nroutes: [{{name: all, match: {{listener: out, path: \"/{{*rest}}\"}}, upstream: up}}]\n",
            self.authority.path("server.pem"),
            self.authority.path("server.key"),
            self.upstream.url()
        );
        Process::start(&self.keys, &[&[("OILSKIN_CONFIG_YAML", yaml.as_str())], more].concat())
    }

    /// curl over TLS, as the client of that name.
    pub(super) fn curl(&self, process: &Process, client: Option<(&Authority, &str)>, more: &[&str]) -> Output {
        let mut curl = tools::program("curl");
        curl.args(["-sS", "--max-time", "20", "--cacert", &self.authority.path("ca.pem")]);
        if let Some((authority, name)) = client {
            curl.args([
                "--cert",
                &authority.path(&format!("{name}.pem")),
                "--key",
                &authority.path(&format!("{name}.key")),
            ]);
        }
        curl.args(["-H", "content-type: application/json", "-d", BODY]).args(more);
        curl.arg(format!("https://localhost:{}/x", process.address().port())).output().unwrap()
    }
}

pub(super) fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_listener_speaks_tls_with_either_protocol_and_fields_are_encrypted_behind_it() {
    let bench = Bench::new();
    let process = bench.start(&[]);
    for (flag, protocol) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let answer = bench.curl(&process, None, &[flag, "-w", " %{http_version}"]);
        assert_eq!(text(&answer), format!("{BODY} {protocol}"), "{answer:?}");
    }
    for seen in bench.upstream.seen() {
        assert!(seen.text().contains("oil1.") && !seen.text().contains("123-45-6789"), "{}", seen.text());
    }
    let page = process.metrics_page();
    assert!(page.contains("oilskin_tls_handshakes_total{side=\"app\",version=\"1.3\",group=\"X25519"), "{page}");
    assert!(page.contains("oilskin_cert_expiration_timestamp_seconds{source="), "{page}");
}

#[test]
fn tls_12_is_spoken_only_where_it_is_asked_for() {
    let bench = Bench::new();
    let process = bench.start(&[]);
    let answer = bench.curl(&process, None, &["--tls-max", "1.2"]);
    assert!(!answer.status.success(), "{answer:?}");
    let process = bench.tls12(&[]);
    let answer = bench.curl(&process, None, &["--tls-max", "1.2"]);
    assert_eq!(text(&answer), BODY, "{answer:?}");
    assert!(process.metrics_page().contains("version=\"1.2\""));
}

#[test]
fn with_a_client_ca_only_good_certificates_get_in_and_each_refusal_is_counted_by_its_reason() {
    let bench = Bench::new();
    let (own, stranger) = (&bench.authority, Authority::new());
    let client = Wish { names: "URI:spiffe://mesh.test/ns/shop/sa/web", usage: "clientAuth", ..Wish::default() };
    own.issue("expired", &Wish { days: -1, ..client.clone() });
    own.issue("server_only", &Wish { usage: "serverAuth", ..client.clone() });
    own.issue("weak", &Wish { key: "rsa:1024", ..client.clone() });
    own.issue("other", &Wish { names: "URI:spiffe://mesh.test/ns/shop/sa/batch", ..client.clone() });
    own.issue(
        "two",
        &Wish { names: "URI:spiffe://mesh.test/ns/shop/sa/web,URI:spiffe://mesh.test/ns/a/sa/b", ..client.clone() },
    );
    own.issue("gone", &client);
    own.revoke(&["gone"]);
    stranger.issue("stranger", &client);
    let (ca, crl) = (own.path("ca.pem"), own.path("crl.pem"));
    let process = bench.start(&[
        ("OILSKIN_TLS_CLIENT_CA_FILE", &ca),
        ("OILSKIN_TLS_CRL_FILE", &crl),
        ("OILSKIN_TLS_ALLOW", "spiffe://mesh.test/ns/*/sa/web"),
    ]);
    let answer = bench.curl(&process, Some((own, "client")), &[]);
    assert_eq!(text(&answer), BODY, "{answer:?}");
    let refused = [
        (None, "no_certificate"),
        (Some((own, "expired")), "expired"),
        (Some((own, "server_only")), "purpose"),
        (Some((own, "other")), "not_allowed"),
        (Some((own, "two")), "not_allowed"),
        (Some((own, "gone")), "revoked"),
        (Some((&stranger, "stranger")), "unknown_authority"),
    ];
    for (client, reason) in refused {
        let answer = bench.curl(&process, client, &[]);
        assert!(!answer.status.success(), "{reason}: {answer:?}");
        let counted = format!("outcome=\"{reason}\"");
        assert!(process.metrics_page().contains(&counted), "{reason}: {}", process.metrics_page());
    }
    // OpenSSL itself loads so weak a key only where it is told to before.
    let script = "import socket, ssl, sys\n\
                  c = ssl.create_default_context(cafile=sys.argv[2])\n\
                  c.set_ciphers('DEFAULT:@SECLEVEL=0')\n\
                  c.load_cert_chain(sys.argv[3], sys.argv[4])\n\
                  s = c.wrap_socket(socket.create_connection(('127.0.0.1', int(sys.argv[1]))), server_hostname='localhost')\n\
                  try: print('closed' if s.recv(1) == b'' else 'served')\n\
                  except ssl.SSLError as e: print(e.reason)\n";
    let port = process.address().port().to_string();
    let files = [&port, &ca, &own.path("weak.pem"), &own.path("weak.key")];
    let told = tools::run(tools::python().args(["-c", script]).args(files));
    assert!(told.contains("ALERT"), "{told}");
    let page = process.metrics_page();
    assert!(page.contains("outcome=\"weak_key\"} 1"), "{told}: {page}");
    assert_eq!(bench.upstream.seen().len(), 1, "nothing of the refused got through");
}

#[test]
fn what_a_client_says_of_its_certificate_never_passes_and_the_truth_does_where_asked_for() {
    let bench = Bench::new();
    let forged =
        ["-H", "X-Forwarded-Client-Cert: Hash=00", "-H", "Client-Cert: :AA==:", "-H", "client-cert-chain: :AA==:"];
    let listener = |more: &str| {
        format!(
            "listeners: [{{name: out, bind: 127.0.0.1:0, tls: {{cert_file: {}, key_file: {}, client_ca_file: {}{more}}}}}]\n\
             upstreams: {{up: {{url: \"{}\"}}}}\nroutes: [{{name: all, match: {{listener: out, path: \"/{{*rest}}\"}}, upstream: up}}]\n",
            bench.authority.path("server.pem"),
            bench.authority.path("server.key"),
            bench.authority.path("ca.pem"),
            bench.upstream.url()
        )
    };
    let process = Process::start(&bench.keys, &[("OILSKIN_CONFIG_YAML", &listener(""))]);
    assert!(bench.curl(&process, Some((&bench.authority, "client")), &forged).status.success());
    let seen = bench.upstream.seen().pop().unwrap();
    for name in ["x-forwarded-client-cert", "client-cert", "client-cert-chain"] {
        assert_eq!(seen.header(name), None, "{name}");
    }
    let process = Process::start(&bench.keys, &[("OILSKIN_CONFIG_YAML", &listener(", forward_client_cert: true"))]);
    assert!(bench.curl(&process, Some((&bench.authority, "client")), &forged).status.success());
    let seen = bench.upstream.seen().pop().unwrap();
    let shown = tools::run(tools::program("openssl").args([
        "x509",
        "-noout",
        "-fingerprint",
        "-sha256",
        "-in",
        &bench.authority.path("client.pem"),
    ]));
    let hash = shown.rsplit('=').next().unwrap().trim().replace(':', "").to_lowercase();
    assert_eq!(
        seen.header("x-forwarded-client-cert"),
        Some(format!("Hash={hash};Subject=\"CN=client\";URI=spiffe://mesh.test/ns/shop/sa/web").as_str())
    );
}

#[test]
fn a_client_certificate_opens_the_door_to_decrypting_in_requests() {
    let bench = Bench::new();
    let (certificate, key, ca) =
        (bench.authority.path("server.pem"), bench.authority.path("server.key"), bench.authority.path("ca.pem"));
    let url = bench.upstream.url();
    let base = [
        ("OILSKIN_APP", url.as_str()),
        ("OILSKIN_INGRESS_LISTEN", "127.0.0.1:0"),
        ("OILSKIN_FIELDS", "$.ssn"),
        ("OILSKIN_INGRESS_TLS_CERT_FILE", &certificate),
        ("OILSKIN_INGRESS_TLS_KEY_FILE", &key),
    ];
    let refused = process::command(&bench.keys).arg("check").envs(base).output().unwrap();
    assert_eq!(refused.status.code(), Some(78), "TLS without client certificates tells nobody apart: {refused:?}");
    let mut vars = base.to_vec();
    vars.push(("OILSKIN_INGRESS_TLS_CLIENT_CA_FILE", &ca));
    let ingress = Process::start(&bench.keys, &vars);
    // The echo's own answer is encrypted again on the way out, and what it saw is plain.
    let plain = Proxy::before(&bench.upstream).fields("$.ssn").start_with(bench.keys.copy());
    assert_eq!(plain.json("POST", "/x", BODY).text(), BODY);
    let token = bench.upstream.seen().pop().unwrap().text();
    let mut curl = tools::program("curl");
    curl.args(["-sS", "--max-time", "20", "--cacert", &ca, "-H", "content-type: application/json", "-d", &token])
        .args(["--cert", &bench.authority.path("client.pem"), "--key", &bench.authority.path("client.key")]);
    let answer = curl.arg(format!("https://localhost:{}/x", ingress.address().port())).output().unwrap();
    assert!(text(&answer).contains("oil1."), "{answer:?}");
    assert_eq!(bench.upstream.seen().pop().unwrap().text(), BODY);
}

#[test]
fn an_upstream_that_asks_for_our_certificate_gets_it_and_its_own_identity_is_pinned() {
    let authority = Authority::new();
    authority
        .issue("server", &Wish { names: "DNS:localhost,URI:spiffe://mesh.test/ns/db/sa/store", ..Wish::default() });
    authority.issue(
        "ours",
        &Wish { names: "URI:spiffe://mesh.test/ns/shop/sa/web", usage: "clientAuth", ..Wish::default() },
    );
    let ca = authority.path("ca.pem");
    let nginx = Nginx::mtls_store(&authority.path("server.pem"), &authority.path("server.key"), &ca);
    let url = format!("https://localhost:{}", nginx.address().port());
    let (ours, key) = (authority.path("ours.pem"), authority.path("ours.key"));
    let pinned = |allow: &str| {
        Proxy::yaml(&format!(
            "listeners: [{{name: out, bind: 127.0.0.1:0}}]\nupstreams: {{up: {{url: \"{url}\", tls: {{ca_file: \"{ca}\", \
             roots: own, cert_file: \"{ours}\", key_file: \"{key}\"{allow}}}}}}}\n\
             routes: [{{name: all, match: {{listener: out, path: \"/{{*rest}}\"}}, upstream: up, fields: [{{select: $.ssn}}]}}]\n"
        ))
        .start()
    };
    for (at, (allow, status)) in [
        ("", 201),
        (", allow: [\"spiffe://mesh.test/ns/db/**\"]", 201),
        (", allow: [\"dns:localhost\"]", 201),
        (", allow: [\"spiffe://mesh.test/ns/db/sa/other\"]", 502),
        (", allow: [\"spiffe://mesh.test.evil/ns/db/**\"]", 502),
    ]
    .into_iter()
    .enumerate()
    {
        let proxy = pinned(allow);
        assert_eq!(proxy.json("PUT", &format!("/x{at}"), BODY).status(), status, "{allow}");
    }
    let without = Proxy::yaml(&format!(
        "listeners: [{{name: out, bind: 127.0.0.1:0}}]\nupstreams: {{up: {{url: \"{url}\", tls: {{ca_file: \"{ca}\"}}}}}}\n\
         routes: [{{name: all, match: {{listener: out, path: \"/{{*rest}}\"}}, upstream: up}}]\n"
    ))
    .start();
    assert_eq!(without.json("PUT", "/y", BODY).status(), 400, "nginx: no required certificate was sent");
}

/// `BODY` sent by a program and what came back; `arguments` are the port, the authority, a chain and its key.
fn round_trip(program: &mut std::process::Command, script: &[&str], arguments: &[&str]) -> String {
    tools::run(program.args(script).args(arguments)).trim().to_owned()
}

#[test]
fn python_and_node_write_and_read_over_mtls() {
    let bench = Bench::new();
    let ca = bench.authority.path("ca.pem");
    let process = bench.start(&[("OILSKIN_TLS_CLIENT_CA_FILE", &ca)]);
    let port = process.address().port().to_string();
    let arguments =
        [port.as_str(), &ca, &bench.authority.path("client.pem"), &bench.authority.path("client.key"), BODY];
    let python = "import http.client, ssl, sys\n\
                  c = ssl.create_default_context(cafile=sys.argv[2])\n\
                  c.load_cert_chain(sys.argv[3], sys.argv[4])\n\
                  h = http.client.HTTPSConnection('localhost', int(sys.argv[1]), context=c)\n\
                  for _ in range(2):\n\
                  \x20   h.request('PUT', '/x', sys.argv[5], {'content-type': 'application/json'})\n\
                  \x20   said = h.getresponse().read().decode()\n\
                  print(said, h.sock.version())\n";
    assert_eq!(round_trip(&mut tools::python(), &["-c", python], &arguments), format!("{BODY} TLSv1.3"));
    let node = "const [, port, ca, cert, key, body] = process.argv, fs = require('fs');\n\
                const options = {port, host: 'localhost', path: '/x', method: 'PUT', headers: {'content-type': 'application/json'},\n\
                ca: fs.readFileSync(ca), cert: fs.readFileSync(cert), key: fs.readFileSync(key)};\n\
                require('https').request(options, r => { let said = '', by = r.socket.getProtocol(); r.on('data', d => said += d);\n\
                r.on('end', () => console.log(said, by)); }).end(body);\n";
    assert_eq!(round_trip(&mut tools::node(), &["-e", node], &arguments), format!("{BODY} TLSv1.3"));
    // Node brings an OpenSSL that knows the hybrid; Debian's Python does not.
    assert_eq!(process.handshakes("app", "X25519MLKEM768", "full"), 1);
    assert_eq!(process.handshakes("app", "X25519", "full"), 1);
}
