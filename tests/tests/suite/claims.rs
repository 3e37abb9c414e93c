//! What a client claims, of itself, of where it wants to go and of whom it talks to: none of it is believed.

use oilskin_tests::certificates::Wish;
use oilskin_tests::process::Process;
use oilskin_tests::upstream::respond;
use oilskin_tests::{Proxy, Upstream, tools};

use super::mtls::{BODY, Bench, text};

fn listener(bench: &Bench, more: &str) -> String {
    format!(
        "listeners: [{{name: out, bind: 127.0.0.1:0, tls: {{cert_file: {}, key_file: {}, client_ca_file: {}{more}}}}}]\n\
         upstreams: {{up: {{url: \"{}\"}}}}\nroutes: [{{name: all, match: {{listener: out, path: \"/{{*rest}}\"}}, upstream: up, \
         fields: [{{select: $.ssn}}]}}]\n",
        bench.authority.path("server.pem"),
        bench.authority.path("server.key"),
        bench.authority.path("ca.pem"),
        bench.upstream.url()
    )
}

#[test]
fn a_certificate_that_a_client_only_writes_of_never_passes_however_it_is_written() {
    let bench = Bench::new();
    let process =
        Process::start(&bench.keys, &[("OILSKIN_CONFIG_YAML", &listener(&bench, ", forward_client_cert: true"))]);
    let forged = [
        "X-Forwarded-Client-Cert: Hash=forged",
        "X-Forwarded-Client-Cert: Hash=forged2",
        "X_Forwarded_Client_Cert: Hash=forged",
        "x-forwarded_client-cert: Hash=forged",
        "Client-Cert: :forged:",
        "client_cert: :forged:",
        "Client-Cert-Chain: :forged:",
        "CLIENT_CERT-CHAIN: :forged:",
    ];
    let fields: Vec<&str> = forged.iter().flat_map(|field| ["-H", *field]).collect();
    for protocol in ["--http1.1", "--http2"] {
        let more = [&fields[..], &[protocol, "-H", "Connection: X-Forwarded-Client-Cert"]].concat();
        let more = if protocol == "--http2" { &more[..more.len() - 2] } else { &more };
        let answer = bench.curl(&process, Some((&bench.authority, "client")), more);
        assert_eq!(text(&answer), BODY, "{answer:?}");
        let seen = bench.upstream.seen().pop().unwrap();
        assert!(!seen.head.contains("forged"), "{}", seen.head);
        let told = seen.header("x-forwarded-client-cert").unwrap_or_default();
        assert!(told.starts_with("Hash=") && told.ends_with("URI=spiffe://mesh.test/ns/shop/sa/web"), "{told}");
    }
}

#[test]
fn trailers_carry_no_certificate_either() {
    let upstream = Upstream::echo();
    let proxy = Proxy::before(&upstream).start();
    let names = "X-Forwarded-Client-Cert, client_cert, X-Sum";
    let request = format!(
        "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: {names}\r\n\r\n2\r\n{{}}\r\n0\r\n\
         X-Forwarded-Client-Cert: Hash=forged\r\nclient_cert: :forged:\r\nX-Sum: 7\r\n\r\n"
    );
    assert_eq!(proxy.client().send(request).response("POST").status(), 200);
    let seen = upstream.one();
    let trailers = format!("{:?}", seen);
    assert!(!trailers.contains("forged") && trailers.contains('7'), "{trailers}");
}

#[test]
fn who_sent_it_first_passes_as_it_was_said_and_decides_nothing() {
    let upstream = Upstream::echo();
    let proxy = Proxy::yaml(&format!(
        "listeners: [{{name: out, bind: 127.0.0.1:0}}]\nupstreams: {{up: {{url: \"{}\"}}}}\nroutes:\n\
         - {{name: inner, match: {{listener: out, path: \"/{{*rest}}\", host: inner.test}}, upstream: up}}\n\
         - {{name: all, match: {{listener: out, path: \"/{{*rest}}\"}}, upstream: up, fields: [{{select: $.ssn}}]}}\n",
        upstream.url()
    ))
    .start();
    let fields = [
        ("X-Forwarded-For", "192.0.2.1"),
        ("X-Forwarded-Host", "inner.test"),
        ("X-Forwarded-Proto", "https"),
        ("X-Original-Host", "inner.test"),
        ("Forwarded", "for=192.0.2.1;host=inner.test"),
        ("X-Real-IP", "192.0.2.1"),
        ("Content-Type", "application/json"),
    ];
    let answer = proxy.client().request("POST", "/x", &fields, BODY.as_bytes());
    assert_eq!(answer.text(), BODY);
    let seen = upstream.one();
    assert!(seen.text().contains("oil1."), "its route is that of its Host: {}", seen.text());
    for (name, value) in &fields[..6] {
        assert_eq!(seen.header(name), Some(*value));
    }
}

#[test]
fn whatever_name_is_asked_for_the_rules_are_the_listener_s() {
    let bench = Bench::new();
    bench.authority.issue("other", &Wish { names: "DNS:other.test", ..Wish::default() });
    let (certificate, key) = (bench.authority.path("other.pem"), bench.authority.path("other.key"));
    let more = format!(", more: [{{cert_file: {certificate}, key_file: {key}}}]");
    let process = Process::start(&bench.keys, &[("OILSKIN_CONFIG_YAML", &listener(&bench, &more))]);
    let port = process.address().port();
    let resolve = format!("other.test:{port}:127.0.0.1");
    let ask = |client: bool, name: &str, host: &str| {
        let mut curl = tools::program("curl");
        curl.args(["-sS", "--max-time", "20", "--cacert", &bench.authority.path("ca.pem"), "--resolve", &resolve]);
        if client {
            let own = |kind: &str| bench.authority.path(&format!("client.{kind}"));
            curl.args(["--cert", &own("pem"), "--key", &own("key")]);
        }
        curl.args(["-H", "content-type: application/json", "-H", host, "-d", BODY]);
        curl.arg(format!("https://{name}:{port}/x")).output().unwrap()
    };
    for (name, host) in
        [("localhost", "Host: other.test"), ("other.test", "Host: localhost"), ("other.test", "Host: x")]
    {
        let answer = ask(true, name, host);
        assert_eq!(text(&answer), BODY, "{name} {host}: {answer:?}");
        assert!(bench.upstream.seen().pop().unwrap().text().contains("oil1."), "{name} {host}");
        assert!(!ask(false, name, host).status.success(), "{name} {host}");
    }
    process.refused("no_certificate", 3);
    assert_eq!(bench.upstream.seen().len(), 3);
}

#[test]
fn names_that_only_look_like_allowed_ones_do_not_get_in() {
    let bench = Bench::new();
    let own = &bench.authority;
    let ca = own.path("ca.pem");
    let mut process = bench.start(&[
        ("OILSKIN_TLS_CLIENT_CA_FILE", &ca),
        ("OILSKIN_TLS_ALLOW", "spiffe://mesh.test/ns/shop/sa/web,dns:good.test,dns:*.shop.test"),
    ]);
    let ask = |names: &str| {
        own.leaf("one", &Wish { names, usage: "clientAuth", ..Wish::default() }, -60..3600, &[]);
        bench.curl(&process, Some((own, "one")), &[])
    };
    for names in
        ["URI:spiffe://mesh.test/ns/shop/sa/web", "DNS:GOOD.test", "DNS:a.shop.test", "DNS:no.test,DNS:good.test"]
    {
        let answer = ask(names);
        assert_eq!(text(&answer), BODY, "{names}: {answer:?}");
    }
    let alike = [
        "URI:spiffe://mesh.test.evil/ns/shop/sa/web",
        "URI:spiffe://evil/mesh.test/ns/shop/sa/web",
        "URI:spiffe://MESH.test/ns/shop/sa/web",
        "URI:SPIFFE://mesh.test/ns/shop/sa/web",
        "URI:spiffe://mesh.test:443/ns/shop/sa/web",
        "URI:spiffe://x@mesh.test/ns/shop/sa/web",
        "URI:spiffe://mesh.test/ns/shop/sa/web/",
        "URI:spiffe://mesh.test//ns/shop/sa/web",
        "URI:spiffe://mesh.test/ns/shop/./sa/web",
        "URI:spiffe://mesh.test/ns/shop/sa/%77eb",
        "URI:spiffe://mesh.test/ns/shop/sa/web%00",
        "URI:spiffe://mesh.test/ns/shop/sa/web?a",
        "URI:spiffe://mesh.test/ns/shop/sa/web#a",
        "URI:https://mesh.test/ns/shop/sa/web",
        "URI:spiffe://mesh.test/ns/shop/sa/web,URI:spiffe://mesh.test/ns/shop/sa/web2",
        "DNS:spiffe.mesh.test",
        "URI:good.test",
        "EMAIL:x@good.test",
        "IP:127.0.0.1",
        "DNS:good.test.evil",
        "DNS:agood.test",
        "DNS:*.shop.test",
        "DNS:*.test",
        "DNS:shop.test",
        "DNS:a.b.shop.test",
    ];
    for (at, names) in (1..).zip(alike) {
        assert!(!ask(names).status.success(), "{names}");
        process.refused("not_allowed", at);
    }
    assert_eq!(bench.upstream.seen().len(), 4);
    assert!(process.runs());
}

#[test]
fn nobody_but_the_configuration_says_where_requests_go() {
    let elsewhere = Upstream::echo();
    let target = elsewhere.url();
    let upstream = Upstream::scripted(move |_, stream| {
        respond(stream, "302 Found", &[("Location", &format!("{target}/moved"))], b"")
    });
    for keep in ["", ", host: keep"] {
        let proxy = Proxy::yaml(&format!(
            "listeners: [{{name: out, bind: 127.0.0.1:0}}]\nupstreams: {{up: {{url: \"{}\"}}}}\n\
             routes: [{{name: all, match: {{listener: out, path: \"/{{*rest}}\"}}, upstream: up{keep}}}]\n",
            upstream.url()
        ))
        .start();
        let before = upstream.seen().len();
        let target = elsewhere.address();
        let heads = [
            format!("GET http://{target}/x HTTP/1.1\r\nHost: {target}\r\n\r\n"),
            format!("GET http://169.254.169.254/x HTTP/1.1\r\nHost: {target}\r\n\r\n"),
            "GET http://0xA9FEA9FE/x HTTP/1.1\r\nHost: [::1]\r\n\r\n".to_owned(),
            format!(
                "GET /x HTTP/1.1\r\nHost: {target}\r\nX-Forwarded-Host: {target}\r\nX-Forwarded-Server: {target}\r\n\r\n"
            ),
            format!(
                "GET //{target}/x HTTP/1.1\r\nHost: a\r\nX-Proxy: http://{target}\r\nProxy: http://{target}\r\n\r\n"
            ),
        ];
        for head in &heads {
            let answer = proxy.client().send(head).response("GET");
            // Its Location is told, not followed.
            assert!([302, 400].contains(&answer.status()), "{head}: {}", answer.head);
            if answer.status() == 302 {
                assert_eq!(answer.header("location"), Some(format!("{}/moved", elsewhere.url()).as_str()));
            }
        }
        let seen = &upstream.seen()[before..];
        assert!(seen.len() >= 4, "{}", seen.len());
        assert!(seen.iter().all(|request| request.target().starts_with('/')), "{seen:?}");
        assert_eq!(elsewhere.connections(), 0);
    }
}
