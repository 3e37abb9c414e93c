//! Real clients before the proxy and real stores behind it.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use oilskin_tests::tools::{self, Killed};
use oilskin_tests::{Client, Nginx, Proxy, Upstream, Wire, proxy};

const DOCUMENT: &str = r#"{ "ssn":"123-45-6789", "list":[1.50,{"email":"ada@example.com"}], "note":"caf\u00e9 😀" }"#;

fn before(url: &str) -> proxy::Builder {
    Proxy::yaml(&format!(
        "listeners: [{{name: out, bind: 127.0.0.1:0, direction: egress}}]\nupstreams: {{store: {{url: \"{url}\"}}}}\nroutes:\n\
         - name: all\n  match: {{listener: out, path: \"/{{*rest}}\"}}\n  upstream: store\n\
         \x20 fields: [{{select: $.ssn}}, {{select: $..email}}]\n"
    ))
}

fn curl(version: &str, more: &[&str]) -> String {
    tools::run(tools::program("curl").args(["-sS", version, "--max-time", "60"]).args(more))
}

/// What is kept holds tokens and none of the plaintext.
fn assert_closed(stored: &[u8], tokens: usize) {
    let stored = String::from_utf8(stored.to_vec()).unwrap();
    for plain in ["123-45-6789", "ada@example.com", "in pieces", "MTIzLTQ1"] {
        assert!(!stored.contains(plain), "{plain} in {stored}");
    }
    assert_eq!(stored.matches("\"oil1.").count(), tokens, "{}", &stored[..stored.len().min(500)]);
}

#[test]
fn curl_writes_to_nginx_and_reads_the_same_bytes_while_the_file_holds_tokens() {
    for (nginx, scheme, speaks) in [(Nginx::store(), "http", "HTTP/1.1"), (Nginx::h2c_store(), "h2c", "HTTP/2.0")] {
        let proxy = before(&format!("{scheme}://{}", nginx.address())).start();
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            let path = format!("/curl{version}");
            let url = proxy.url(&path);
            let kind = "content-type: application/json";
            let written = curl(version, &["-w", "%{http_code}", "-X", "PUT", "-d", DOCUMENT, "-H", kind, &url]);
            assert_eq!(written, "201", "{path}");
            assert_eq!(curl(version, &[&url]), DOCUMENT);
            assert_closed(&nginx.stored(&path), 2);
            assert!(nginx.requests().contains(&format!("PUT {path} {speaks}")), "{}", nginx.requests());
        }
        assert_eq!(curl("--http1.1", &["-o", "/dev/null", "-w", "%{http_code}", &proxy.url("/none")]), "404");
    }
}

#[test]
fn requests_and_httpx_read_back_what_they_wrote_to_nginx() {
    let nginx = Nginx::store();
    let proxy = before(&format!("http://{}", nginx.address())).start();
    let said = tools::run(tools::python().arg(tools::top().join("tests/tools/clients.py")).arg(proxy.url("")));
    assert_eq!(said.trim(), "fine");
    for client in ["requests", "httpx"] {
        assert_closed(&nginx.stored(&format!("/{client}/0")), 2);
        assert_closed(&nginx.stored(&format!("/{client}/4")), 2);
        assert_closed(&nginx.stored(&format!("/{client}/pieces")), 1);
        assert!(!nginx.file(&format!("/{client}/refused")).exists());
    }
}

#[test]
fn node_s_fetch_reads_back_what_it_wrote_to_a_python_store() {
    let folder = tempfile::tempdir().unwrap();
    let script = tools::top().join("tests/tools/store.py");
    let child = tools::python().arg(script).arg(folder.path()).stdout(Stdio::piped()).spawn().unwrap();
    let mut child = Killed(child);
    let mut port = String::new();
    BufReader::new(child.0.stdout.take().unwrap()).read_line(&mut port).unwrap();
    let proxy = before(&format!("http://127.0.0.1:{}", port.trim())).start();
    let said = tools::run(tools::node().arg(tools::top().join("tests/tools/fetch.mjs")).arg(proxy.url("")));
    assert_eq!(said.trim(), "fine");
    let stored = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    assert_closed(&stored("node_0"), 2);
    assert_closed(&stored("node_2"), 2);
    assert_closed(&stored("node_pieces"), 1);
    assert!(!folder.path().join("node_refused").exists());
    // The same store by curl's POST, which answers with what it keeps.
    let posted = curl("--http1.1", &["-d", DOCUMENT, "-H", "content-type: application/json", &proxy.url("/posted")]);
    assert_eq!(posted, DOCUMENT);
    assert_closed(&stored("posted"), 2);
}

#[test]
fn thousands_of_requests_by_h2load_all_succeed_over_both_protocols() {
    let upstream = Upstream::echo();
    let proxy = Proxy::before(&upstream).fields("$.ssn").start();
    let folder = tempfile::tempdir().unwrap();
    let body = folder.path().join("body.json");
    std::fs::write(&body, DOCUMENT).unwrap();
    for (protocol, clients) in [("--h1", 16), ("--npn-list=h2c", 8)] {
        let said = tools::run(
            tools::program("h2load")
                .args([
                    "-n",
                    "2000",
                    "-c",
                    &clients.to_string(),
                    // 80 at once: below the 128 connections that the test's upstream lets wait for its accept.
                    "-m",
                    "10",
                    protocol,
                    "-H",
                    "content-type: application/json",
                ])
                .arg("-d")
                .arg(&body)
                .arg(proxy.url("/x")),
        );
        assert!(said.contains("2000 succeeded, 0 failed, 0 errored, 0 timeout"), "{said}");
        assert!(said.contains("status codes: 2000 2xx"), "{said}");
    }
    assert!(
        upstream
            .seen()
            .iter()
            .all(|request| request.text().contains("oil1.") && !request.text().contains("123-45-6789"))
    );
}

/// A body of this client and turn only, in one of many shapes.
fn body_of(id: usize, turn: usize) -> String {
    let mark = format!("{id}-{turn}");
    let long = |bytes: usize| mark.chars().cycle().take(bytes).collect::<String>();
    match (id + turn) % 8 {
        0 => String::new(),
        1 => format!("{{\"ssn\":\"{mark}\"}}"),
        2 => format!("[{{\"email\":\"{mark}\"}},{{\"email\":null}},[],{{}},\"{mark}\"]"),
        3 => format!("{{\"ssn\":{{\"whole\":[\"{mark}\",{turn}]}},\"x\":{{\"email\":{id}.{turn}}}}}"),
        4 => format!("{{\"a\":\"{}\",\"ssn\":\"{mark}\",\"email\":\"{}\"}}", long(70_000), long(3_000)),
        5 => {
            format!("  {{ \"ssn\" : \"\\u0041{mark}\" , \"n\":[{}] }} ", vec![mark.len().to_string(); 2_000].join(","))
        }
        6 => format!("{{\"list\":[{}]}}", vec![format!("{{\"email\":\"{mark}\"}}"); 300].join(",")),
        _ if id.is_multiple_of(8) => format!("{{\"ssn\":\"{mark}\",\"fill\":\"{}\"}}", long(1_000_000)),
        _ => format!("{{\"ssn\":\"{mark}\",\"fill\":\"{}\"}}", long(1_000 * turn)),
    }
}

fn expected(body: &str) -> &str {
    if body.is_empty() { "{}" } else { body }
}

#[test]
fn sixty_four_clients_with_mixed_bodies_over_both_protocols_never_see_each_other_s_data() {
    const TURNS: usize = 16;
    let upstream = Upstream::echo();
    let proxy = Proxy::before(&upstream).fields("$.ssn, $..email").start();
    let address = proxy.address();
    let fields = [("content-type", "application/json")];
    let method = |turn: usize, body: &str| match body {
        "" => "GET",
        _ if turn.is_multiple_of(2) => "POST",
        _ => "PUT",
    };
    std::thread::scope(|scope| {
        for id in 0..64 {
            scope.spawn(move || match id % 2 {
                0 => {
                    let mut client = Client::connect(address);
                    for turn in 0..TURNS {
                        let body = body_of(id, turn);
                        let answer = client.request(method(turn, &body), &format!("/{id}"), &fields, body.as_bytes());
                        assert!(answer.text() == expected(&body), "{id} {turn}: {}", answer.head);
                    }
                }
                _ => {
                    let mut wire = Wire::connect(address);
                    // Two streams under way at once on each connection.
                    for turn in (0..TURNS).step_by(2) {
                        let bodies = [body_of(id, turn), body_of(id, turn + 1)];
                        let streams = [0, 1].map(|at: usize| {
                            let body = &bodies[at];
                            wire.begin(method(turn + at, body), &format!("/{id}"), &fields, body.is_empty())
                        });
                        for (stream, body) in streams.into_iter().zip(&bodies).filter(|(_, body)| !body.is_empty()) {
                            wire.data(stream, body.as_bytes(), true);
                        }
                        for (stream, body) in streams.into_iter().zip(&bodies) {
                            let answer = wire.ended(stream);
                            assert!(
                                answer.whole() && answer.text() == expected(body),
                                "{id} {turn}: {:?}",
                                answer.head
                            );
                        }
                    }
                }
            });
        }
    });
    let seen = upstream.seen();
    assert_eq!(seen.len(), 64 * TURNS);
    let (empty, full): (Vec<_>, Vec<_>) = seen.into_iter().partition(|request| request.body.is_empty());
    assert_eq!(empty.len(), 64 * TURNS / 8);
    assert!(full.iter().all(|request| request.complete && request.text().contains("oil1.")));
}
