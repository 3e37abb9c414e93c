//! What passes, and how: heads, framing, streaming, the two protocols.

use std::io::Write;
use std::sync::mpsc;
use std::time::Duration;

use oilskin_tests::upstream::{Then, respond};
use oilskin_tests::{Proxy, Upstream, tools};

#[test]
fn the_upstream_sees_its_own_host_and_no_field_of_the_app_s_connection() {
    let upstream = Upstream::echo();
    let proxy = Proxy::before(&upstream).start();
    let fields = [
        ("Connection", "X-Hop, keep-alive"),
        ("X-Hop", "1"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Connection", "keep-alive"),
        ("TE", "gzip, trailers"),
        ("X-End", "stays"),
        ("Accept-Encoding", "gzip"),
        ("Range", "bytes=0-1"),
    ];
    proxy.client().request("GET", "/a%20b?c=%41;d", &fields, b"");
    let sent = upstream.one();
    assert_eq!(sent.target(), "/a%20b?c=%41;d");
    assert_eq!(sent.header("host"), Some(upstream.address().to_string().as_str()));
    assert_eq!(sent.header("x-end"), Some("stays"));
    assert_eq!(sent.header("te"), Some("trailers"));
    assert_eq!(sent.header("accept-encoding"), Some("gzip"), "nothing is rewritten here");
    assert_eq!(sent.header("range"), Some("bytes=0-1"));
    for gone in ["x-hop", "keep-alive", "proxy-connection", "connection", "expect"] {
        assert_eq!(sent.header(gone), None, "{gone}");
    }
    assert!(sent.header("x-request-id").is_some());
}

#[test]
fn what_a_rewritten_answer_cannot_honour_does_not_go_upstream() {
    let upstream = Upstream::scripted(|_, stream| {
        let fields = [
            ("Content-Type", "application/json"),
            ("ETag", "\"v1\""),
            ("Content-Digest", "sha-256=:AAAA:"),
            ("Repr-Digest", "sha-256=:AAAA:"),
            ("Digest", "x"),
            ("Content-MD5", "x"),
        ];
        respond(stream, "200 OK", &fields, b"{\"a\":1}")
    });
    let proxy = Proxy::before(&upstream).fields("$.ssn").start();
    let fields = [("Accept-Encoding", "gzip, br"), ("Range", "bytes=0-1"), ("If-Range", "\"v1\"")];
    let answer = proxy.client().request("GET", "/", &fields, b"");
    let sent = upstream.one();
    for gone in ["accept-encoding", "range", "if-range"] {
        assert_eq!(sent.header(gone), None, "{gone}");
    }
    assert_eq!(answer.header("etag"), Some("\"v1\""), "decrypting keeps a strong ETag");
    for gone in ["content-digest", "repr-digest", "digest", "content-md5"] {
        assert_eq!(answer.header(gone), None, "{gone}");
    }
    assert_eq!(answer.header("content-length"), Some("7"));
}

#[test]
fn head_and_bodiless_answers_carry_no_length_of_another_representation() {
    let upstream = Upstream::scripted(|request, stream| {
        let status = if request.target() == "/304" { "304 Not Modified" } else { "200 OK" };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: 999\r\nETag: \"a\"\r\n\r\n"
        );
        let _ = stream.write_all(head.as_bytes());
        Then::Keep
    });
    let proxy = Proxy::before(&upstream).fields("$.ssn").start();
    let mut client = proxy.client();
    for (method, target) in [("HEAD", "/"), ("GET", "/304"), ("HEAD", "/")] {
        let answer = client.request(method, target, &[], b"");
        assert_eq!(answer.header("content-length"), None, "{method} {target} {}", answer.head);
        assert_eq!(answer.header("etag"), Some("\"a\""));
    }
    let plain = Proxy::before(&upstream).start();
    assert_eq!(plain.client().request("HEAD", "/", &[], b"").header("content-length"), Some("999"));
}

#[test]
fn an_empty_body_is_always_fine() {
    let upstream = Upstream::scripted(|_, stream| respond(stream, "200 OK", &[("Content-Type", "text/html")], b""));
    let proxy = Proxy::before(&upstream).fields("$.ssn").start();
    let mut client = proxy.client();
    assert_eq!(client.request("DELETE", "/", &[("Content-Type", "text/plain")], b"").status(), 200);
    assert_eq!(client.request("POST", "/", &[("Content-Length", "0")], b"").status(), 200);
}

#[test]
fn expect_is_answered_by_us_and_only_when_the_body_is_wanted() {
    let upstream = Upstream::echo();
    let proxy = Proxy::before(&upstream).fields("$.ssn").start();
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\nExpect: 100-continue\r\n";
    let mut client = proxy.client();
    client.send(format!("{head}Content-Type: application/json\r\n\r\n"));
    // The interim answer comes before any byte of the body was sent.
    let mut interim = Vec::new();
    client.read_until(b"\r\n\r\n", &mut interim);
    assert!(interim.starts_with(b"HTTP/1.1 100"), "{}", String::from_utf8_lossy(&interim));
    client.send(r#"{"ssn":"1"}"#);
    assert_eq!(client.response("POST").text(), r#"{"ssn":"1"}"#);
    assert_eq!(upstream.one().header("expect"), None);
    let mut client = proxy.client();
    client.send(format!("{head}Content-Type: text/plain\r\n\r\n"));
    let mut first = Vec::new();
    client.read_until(b"\r\n", &mut first);
    assert!(first.starts_with(b"HTTP/1.1 415"), "the final status at once: {}", String::from_utf8_lossy(&first));
}

#[test]
fn trailers_pass_both_ways() {
    let upstream = Upstream::scripted(|_, stream| {
        let answer = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, Content-Length\r\n\r\n\
                      2\r\n{}\r\n0\r\nX-Sum: down\r\nContent-Length: 5\r\n\r\n";
        let _ = stream.write_all(answer.as_bytes());
        Then::Keep
    });
    for fields in ["", "$.ssn"] {
        let proxy =
            if fields.is_empty() { Proxy::before(&upstream) } else { Proxy::before(&upstream).fields(fields) }.start();
        let mut client = proxy.client();
        client.send(
            "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
             2\r\n{}\r\n0\r\nX-Sum: up\r\n\r\n",
        );
        let answer = client.response("POST");
        assert_eq!(answer.trailers.to_lowercase(), "x-sum: down", "{fields} {}", answer.head);
        let sent = upstream.seen().pop().unwrap();
        assert_eq!(sent.trailers.to_lowercase(), "x-sum: up", "{fields} {}", sent.head);
    }
}

#[test]
fn a_long_body_streams_while_it_is_still_being_sent() {
    let (first, arrived) = mpsc::channel();
    let first = std::sync::Mutex::new(first);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        use std::io::Read;
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = [0; 1];
        stream.read_exact(&mut buffer).unwrap();
        first.lock().unwrap().send(()).unwrap();
        let mut rest = Vec::new();
        let mut buffer = [0; 65536];
        while !rest.ends_with(b"0\r\n\r\n") {
            let got = stream.read(&mut buffer).unwrap();
            rest.extend_from_slice(&buffer[..got]);
        }
        assert!(!rest.windows(6).any(|window| window == b"secret"));
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
    });
    let proxy = Proxy::yaml(&format!(
        "listeners: [{{name: out, bind: 127.0.0.1:0, direction: egress}}]\nupstreams: {{up: {{url: \"http://{address}\"}}}}\nroutes:\n\
         - {{name: all, match: {{listener: out, path: \"/{{*rest}}\"}}, upstream: up, fields: [{{select: \"$[*].ssn\"}}]}}\n"
    ))
    .start();
    let mut client = proxy.client();
    client.send(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n[\r\n",
    );
    let record = format!("{{\"ssn\":\"secret\",\"x\":\"{}\"}},", "y".repeat(1000));
    let chunk = format!("{:x}\r\n{record}\r\n", record.len());
    for _ in 0..200 {
        client.send(&chunk);
    }
    arrived
        .recv_timeout(Duration::from_secs(10))
        .expect("the upstream got its first byte before the app sent its last");
    client.send("3\r\n{}]\r\n0\r\n\r\n");
    assert_eq!(client.response("POST").status(), 204);
}

#[test]
fn a_hundred_pipelined_requests_are_answered_in_their_order() {
    let upstream = Upstream::echo();
    let proxy = Proxy::before(&upstream).fields("$.ssn").start();
    let mut client = proxy.client();
    let mut all = String::new();
    for n in 0..100 {
        let body = format!("{{\"ssn\":\"{n}\"}}");
        all.push_str(&format!(
            "POST /{n} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
    }
    client.send(all);
    for n in 0..100 {
        assert_eq!(client.response("POST").text(), format!("{{\"ssn\":\"{n}\"}}"));
    }
}

#[test]
fn a_request_split_at_every_byte_is_the_same_request() {
    let upstream = Upstream::echo();
    let proxy = Proxy::before(&upstream).fields("$.ssn").start();
    let body = r#"{"ssn":"caf\u00e9 😀","x":[1,2]}"#;
    let whole = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut client = proxy.client();
    for cut in 1..whole.len() {
        client.send(&whole.as_bytes()[..cut]);
        client.send(&whole.as_bytes()[cut..]);
        assert_eq!(client.response("POST").text(), body, "cut at {cut}");
    }
}

#[test]
fn an_http_1_0_app_gets_held_answers_only() {
    let long: &'static str = Box::leak(format!("{{\"x\":\"{}\"}}", "y".repeat(200_000)).into_boxed_str());
    let upstream = Upstream::json(long);
    let proxy = Proxy::before(&upstream).fields("$.ssn").start();
    let mut client = proxy.client();
    client.send("GET / HTTP/1.0\r\n\r\n");
    let answer = client.response("GET");
    assert_eq!((answer.status(), answer.code().as_str()), (502, "too_large"));
    let short = Upstream::json("{}");
    let proxy = Proxy::before(&short).fields("$.ssn").start();
    let mut client = proxy.client();
    client.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(client.response("GET").text(), "{}");
}

#[test]
fn routes_go_by_path_and_method_and_nothing_passes_by_itself() {
    let (one, two) = (Upstream::json("{\"at\":1}"), Upstream::json("{\"at\":2}"));
    let proxy = Proxy::yaml(&format!(
        "listeners: [{{name: out, bind: 127.0.0.1:0, direction: egress}}]\nupstreams: {{one: {{url: \"{}/base\"}}, two: {{url: \"{}\"}}}}\nroutes:\n\
         - {{name: read, match: {{listener: out, path: \"/c/{{id}}\", methods: [GET]}}, upstream: one}}\n\
         - {{name: write, match: {{listener: out, path: \"/c/{{customer}}\", methods: [PUT]}}, upstream: two, fields: [{{select: $.ssn}}]}}\n\
         - {{name: files, match: {{listener: out, path: \"/files/{{*rest}}\"}}, upstream: two}}\n",
        one.url(),
        two.url()
    ))
    .start();
    assert_eq!(proxy.json("GET", "/c/1", "").text(), "{\"at\":1}");
    assert_eq!(one.one().target(), "/base/c/1", "the upstream's path is a prefix");
    assert_eq!(proxy.json("PUT", "/c/1", "{}").text(), "{\"at\":2}");
    assert_eq!(proxy.json("GET", "/files/a/b", "").status(), 200);
    for (method, target) in [("DELETE", "/c/1"), ("GET", "/"), ("GET", "/c"), ("GET", "/c/1/2")] {
        let answer = proxy.json(method, target, "");
        assert_eq!((answer.status(), answer.code().as_str()), (404, "no_route"), "{method} {target}");
    }
    for target in ["/c/%31", "/c/../c/1", "/c//1", "/c/1%2F2", "/c/1;x", "//c/1"] {
        let answer = proxy.json("GET", target, "");
        assert_eq!((answer.status(), answer.code().as_str()), (400, "ambiguous_path"), "{target}");
    }
    assert_eq!(one.seen().len(), 1);
}

#[test]
fn http_2_works_on_both_sides() {
    let upstream = Upstream::echo();
    let inner = Proxy::before(&upstream).fields("$.ssn").start();
    // The outer one speaks h2c to the inner one: both sides of both protocols.
    let outer = Proxy::yaml(&format!(
        "listeners: [{{name: out, bind: 127.0.0.1:0, direction: egress}}]\nupstreams: {{inner: {{url: \"h2c://{}\"}}}}\nroutes:\n\
         - {{name: all, match: {{listener: out, path: \"/{{*rest}}\"}}, upstream: inner}}\n",
        inner.address()
    ))
    .start();
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let answer = tools::run(tools::program("curl").args([
            "-sS",
            "-i",
            version,
            "-H",
            "content-type: application/json",
            "-d",
            r#"{"ssn":"123"}"#,
            &outer.url("/x"),
        ]));
        assert!(answer.ends_with(r#"{"ssn":"123"}"#), "{answer}");
        let protocol = if version == "--http1.1" { "HTTP/1.1 200" } else { "HTTP/2 200" };
        assert!(answer.starts_with(protocol), "{answer}");
    }
    assert!(upstream.seen().iter().all(|request| !request.text().contains("\"123\"")));
}

#[test]
fn a_unix_socket_serves_like_a_port() {
    let upstream = Upstream::echo();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("oilskin.sock");
    let proxy = Proxy::yaml(&format!(
        "listeners:\n- {{name: out, bind: 127.0.0.1:0, direction: egress}}\n- {{name: sock, bind: \"unix:{}\", direction: egress}}\n\
         upstreams: {{up: {{url: \"{}\"}}}}\nroutes:\n\
         - {{name: all, match: {{listener: sock, path: \"/{{*rest}}\"}}, upstream: up, fields: [{{select: $.ssn}}]}}\n",
        path.display(),
        upstream.url()
    ))
    .start();
    let answer = tools::run(tools::program("curl").args(["-sS", "--unix-socket"]).arg(&path).args([
        "-H",
        "content-type: application/json",
        "-d",
        r#"{"ssn":"123"}"#,
        "http://app/x",
    ]));
    assert_eq!(answer, r#"{"ssn":"123"}"#);
    assert!(upstream.one().text().contains("oil1."));
    drop(proxy);
    assert!(!path.exists(), "the socket file is gone with its listener");
}
