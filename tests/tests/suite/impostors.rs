//! Certificates that only look right: whom a listener, and we ourselves, turn away.

use std::io::Write;

use oilskin_tests::certificates::{Authority, Wish};
use oilskin_tests::keys::Keys;
use oilskin_tests::process::Process;
use oilskin_tests::{Nginx, client, tools};

use super::mtls::{BODY, Bench, text};

/// A client's certificate with its chain in one file, the leaf's key beside it.
fn with_chain(authority: &Authority, name: &str, chain: &[&str]) {
    let mut file = std::fs::OpenOptions::new().append(true).open(authority.path(&format!("{name}.pem"))).unwrap();
    for link in chain {
        file.write_all(&std::fs::read(authority.path(&format!("{link}.pem"))).unwrap()).unwrap();
    }
}

/// An authority below `issuer`, or a leaf where `extensions` says so.
fn below(authority: &Authority, name: &str, issuer: &str, extensions: &str, digest: &str) {
    let file = authority.path(&format!("{name}.cnf"));
    std::fs::write(file, format!("[e]\n{extensions}\n")).unwrap();
    authority.openssl(|openssl| {
        openssl.args(["req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]).args([
            "-subj",
            &format!("/CN={name}"),
            "-keyout",
            &format!("{name}.key"),
            "-out",
            &format!("{name}.csr"),
        ])
    });
    authority.openssl(|openssl| {
        openssl
            .args(["x509", "-req", "-in", &format!("{name}.csr"), "-CA", &format!("{issuer}.pem")])
            .args(["-CAkey", &format!("{issuer}.key"), "-CAcreateserial", "-days", "30", digest])
            .args(["-extfile", &format!("{name}.cnf"), "-extensions", "e", "-out", &format!("{name}.pem")])
    });
}

const LEAF: &str = "subjectAltName=DNS:good.test\nextendedKeyUsage=clientAuth\nbasicConstraints=critical,CA:false";
const ISSUER: &str = "basicConstraints=critical,CA:true\nkeyUsage=critical,keyCertSign,cRLSign";

#[test]
fn certificates_that_only_look_right_do_not_get_in() {
    let bench = Bench::new();
    let own = &bench.authority;
    // Its own authority, under the real one's name.
    let impostor = Authority::new();
    impostor.issue("client", &Wish { usage: "clientAuth", ..Wish::default() });
    with_chain(&impostor, "client", &["ca"]);
    impostor.openssl(|openssl| {
        openssl
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
                "-nodes",
                "-subj",
                "/CN=tests",
            ])
            .args([
                "-keyout",
                "self.key",
                "-out",
                "self.pem",
                "-addext",
                "extendedKeyUsage=clientAuth",
                "-addext",
                "subjectAltName=DNS:good.test",
            ])
    });
    // A leaf that signs.
    below(own, "leaf", "ca", LEAF, "-sha256");
    below(own, "by_leaf", "leaf", LEAF, "-sha256");
    with_chain(own, "by_leaf", &["leaf"]);
    below(own, "sha1", "ca", LEAF, "-sha1");
    // Constrained to names that it does not keep to.
    let constrained = format!("{ISSUER}\nnameConstraints=critical,permitted;DNS:shop.test");
    below(own, "constrained", "ca", &constrained, "-sha256");
    below(own, "outside", "constrained", LEAF, "-sha256");
    with_chain(own, "outside", &["constrained"]);
    below(own, "inside", "constrained", &LEAF.replace("good.test", "a.shop.test"), "-sha256");
    with_chain(own, "inside", &["constrained"]);
    let uris = format!("{ISSUER}\nnameConstraints=critical,permitted;URI:.shop.test");
    below(own, "of_uris", "ca", &uris, "-sha256");
    below(
        own,
        "outside_uris",
        "of_uris",
        &LEAF.replace("DNS:good.test", "DNS:good.test,URI:spiffe://evil/a"),
        "-sha256",
    );
    with_chain(own, "outside_uris", &["of_uris"]);
    // No authority below this one.
    below(own, "last", "ca", &ISSUER.replace("CA:true", "CA:true,pathlen:0"), "-sha256");
    below(own, "too_many", "last", ISSUER, "-sha256");
    below(own, "by_too_many", "too_many", LEAF, "-sha256");
    with_chain(own, "by_too_many", &["too_many", "last"]);
    // Leaf, eleven between, and the authority.
    let links: Vec<String> = (0..11).map(|at| format!("link{at}")).collect();
    for (at, name) in links.iter().enumerate() {
        below(own, name, if at == 0 { "ca" } else { &links[at - 1] }, ISSUER, "-sha256");
    }
    below(own, "deep", "link10", LEAF, "-sha256");
    with_chain(own, "deep", &links.iter().rev().map(String::as_str).collect::<Vec<_>>());
    below(own, "three", "link2", LEAF, "-sha256");
    with_chain(own, "three", &["link2", "link1", "link0"]);
    let nul = "subjectAltName=DER:3013821173686f702e746573740062632e74657374\nextendedKeyUsage=clientAuth";
    below(own, "nul", "ca", nul, "-sha256");
    let critical = format!("{LEAF}\n1.2.3.4.5=critical,DER:0500");
    below(own, "critical", "ca", &critical, "-sha256");

    let ca = own.path("ca.pem");
    let mut process = bench.start(&[
        ("OILSKIN_TLS_CLIENT_CA_FILE", &ca),
        ("OILSKIN_TLS_ALLOW", "dns:good.test,dns:*.shop.test,dns:shop.test"),
    ]);
    for name in ["leaf", "inside", "three"] {
        let answer = bench.curl(&process, Some((own, name)), &[]);
        assert_eq!(text(&answer), BODY, "{name}: {answer:?}");
    }
    let served = process.handshakes("app", "X25519", "full");
    let cases: [(&Authority, &str, &[&str]); 9] = [
        (&impostor, "client", &["unknown_authority"]),
        (&impostor, "self", &["unknown_authority", "certificate"]),
        (own, "by_leaf", &["certificate", "unknown_authority"]),
        (own, "outside", &["certificate", "name"]),
        (own, "outside_uris", &["certificate", "name"]),
        (own, "by_too_many", &["certificate", "unknown_authority"]),
        (own, "deep", &["certificate"]),
        (own, "nul", &["not_allowed", "certificate"]),
        (own, "critical", &["certificate"]),
    ];
    let mut wrong = Vec::new();
    for (authority, name, outcomes) in cases {
        let count = |process: &Process| outcomes.iter().map(|one| process.handshakes("app", "", one)).sum::<u64>();
        let before = count(&process);
        let answer = bench.curl(&process, Some((authority, name)), &["--ciphers", "DEFAULT@SECLEVEL=0"]);
        tools::until(name, || (count(&process) > before).then_some(()));
        if answer.status.success() || count(&process) != before + 1 {
            wrong.push(format!("{name}: {}", String::from_utf8_lossy(&answer.stderr)));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?} {}", process.metrics_page());
    // curl would not show so weak a signature.
    let before = process.handshakes("app", "", "certificate");
    let script = "import socket,ssl,sys;c=ssl.create_default_context(cafile=sys.argv[1]);\
                  c.set_ciphers('DEFAULT@SECLEVEL=0');c.load_cert_chain(sys.argv[2],sys.argv[3]);\
                  s=c.wrap_socket(socket.create_connection(('127.0.0.1',int(sys.argv[4]))),server_hostname='localhost');\
                  print(s.recv(1))";
    let port = process.address().port().to_string();
    let told = tools::python()
        .args(["-c", script, &ca, &own.path("sha1.pem"), &own.path("sha1.key"), &port])
        .output()
        .unwrap();
    assert!(!told.status.success(), "{told:?}");
    process.refused("certificate", before + 1);
    assert_eq!(process.handshakes("app", "X25519", "full"), served);
    assert!(process.runs());
}

#[test]
fn an_upstream_s_name_is_matched_by_kind_and_to_its_end() {
    let authority = Authority::new();
    let server = |names: &str| format!("subjectAltName={names}\nextendedKeyUsage=serverAuth");
    let cases = [
        ("address", server("IP:127.0.0.1"), "127.0.0.1", true),
        ("address_as_name", server("DNS:127.0.0.1"), "127.0.0.1", false),
        // `localhost`, NUL, `.evil`.
        ("nul", server("DER:3011820f6c6f63616c686f7374002e6576696c"), "localhost", false),
        ("whole", server("DNS:LocalHost"), "localhost", true),
        ("star", server("DNS:*"), "localhost", false),
        ("common_name", "extendedKeyUsage=serverAuth".to_owned(), "localhost", false),
    ];
    let ca = authority.path("ca.pem");
    for (name, extensions, host, taken) in cases {
        below(&authority, name, "ca", &extensions, "-sha256");
        let nginx =
            Nginx::tls_store("", &authority.path(&format!("{name}.pem")), &authority.path(&format!("{name}.key")));
        let url = format!("https://{host}:{}", nginx.address().port());
        let process = Process::start(&Keys::new(), &[("OILSKIN_UPSTREAM", &url), ("OILSKIN_UPSTREAM_CA_FILE", &ca)]);
        let status = client::json(process.address(), "PUT", "/x", BODY).status();
        assert_eq!(status, if taken { 201 } else { 502 }, "{name}: {}", process.metrics_page());
    }
}
