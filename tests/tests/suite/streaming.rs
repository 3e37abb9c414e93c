//! Streaming: trailers, interim answers, old peers, and backpressure.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use oilskin_tests::frames;
use oilskin_tests::keys::Keys;
use oilskin_tests::upstream::Then;
use oilskin_tests::{Client, Process, Proxy, Upstream, Wire, tools};

use crate::upstreams::{before, h2c};

const JSON: (&str, &str) = ("content-type", "application/json");

/// An HTTP/2 upstream that answers the body it got, the request's trailer `x-sum` in `x-was`, and one of its own.
fn trailing_h2() -> SocketAddr {
    frames::upstream(|mut wire, _| {
        while let Some(stream) = wire.begun() {
            let request = wire.ended(stream);
            let sum = request.trailers.iter().find(|(name, _)| name == "x-sum").map_or("none", |(_, value)| value);
            wire.headers(stream, &[(":status", "200"), JSON, ("trailer", "x-sum"), ("x-was", sum)], false);
            wire.data(stream, &request.body, false);
            wire.headers(stream, &[("x-sum", "down"), ("content-length", "5")], true);
        }
    })
}

fn trailing_h1() -> Upstream {
    Upstream::scripted(|request, stream| {
        let sum = request.trailers.split(':').nth(1).map_or("none", str::trim);
        let head =
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n";
        let body =
            format!("{:x}\r\n{}\r\n0\r\nX-Sum: down\r\nContent-Length: 5\r\n\r\n", request.body.len(), request.text());
        let _ = stream.write_all(format!("{head}X-Was: {sum}\r\n\r\n{body}").as_bytes());
        Then::Keep
    })
}

#[test]
fn trailers_pass_both_ways_between_both_protocols_on_open_and_on_protected_routes() {
    let (one, two) = (trailing_h1(), trailing_h2());
    let short = r#"{"ssn":"1"}"#.to_owned();
    let long = format!("{{\"ssn\":\"1\",\"x\":\"{}\"}}", "y".repeat(150_000));
    for proxy in [before(&one.url()).start(), h2c(two).start()] {
        for (path, body) in [("/open/x", &short), ("/open/x", &long), ("/x", &short), ("/x", &long)] {
            let mut client = proxy.client();
            client.send(format!(
                "POST {path} HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\
                 Trailer: X-Sum\r\n\r\n{:x}\r\n{body}\r\n0\r\nX-Sum: up\r\n\r\n",
                body.len()
            ));
            let answer = client.response("POST");
            assert!(answer.text() == *body, "{path} {}", answer.head);
            assert_eq!(answer.header("x-was"), Some("up"), "{path} {}", body.len());
            assert_eq!(answer.trailers.to_lowercase(), "x-sum: down", "{path} {}", body.len());

            let mut wire = Wire::connect(proxy.address());
            let stream = wire.begin("POST", path, &[JSON, ("te", "trailers"), ("trailer", "x-sum")], false);
            wire.data(stream, body.as_bytes(), false);
            wire.headers(stream, &[("x-sum", "up")], true);
            let answer = wire.ended(stream);
            assert!(answer.whole() && answer.text() == *body, "{path} {:?}", answer.head);
            assert_eq!(answer.header("x-was"), Some("up"), "{path} {}", body.len());
            assert_eq!(answer.trailers, [("x-sum".to_owned(), "down".to_owned())], "{path} {}", body.len());
        }
    }
}

#[test]
fn head_over_http_2_has_no_body_and_no_length_of_another_representation() {
    let address = frames::upstream(|mut wire, _| {
        while let Some(stream) = wire.begun() {
            wire.ended(stream);
            wire.headers(stream, &[(":status", "200"), JSON, ("content-length", "999"), ("etag", "\"a\"")], true);
        }
    });
    let proxy = h2c(address).start();
    let mut wire = Wire::connect(proxy.address());
    for (path, length) in [("/x", None), ("/open/x", Some("999"))] {
        let answer = wire.request("HEAD", path, &[], b"");
        assert!(answer.whole() && answer.body.is_empty(), "{answer:?}");
        assert_eq!((answer.status(), answer.header("content-length")), (200, length), "{path}");
        assert_eq!(answer.header("etag"), Some("\"a\""));
    }
}

#[test]
fn curl_sends_its_body_after_100_continue_and_none_of_it_after_a_refusal() {
    let upstream = Upstream::echo();
    let proxy = Proxy::before(&upstream).fields("$.ssn").start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("body");
    let body = format!("{{\"ssn\":\"1\",\"x\":\"{}\"}}", "y".repeat(100_000));
    std::fs::write(&file, &body).unwrap();
    let curl = |kind: &str| {
        let mut command = tools::program("curl");
        command.args(["-sS", "--http1.1", "--expect100-timeout", "60", "-H", "expect: 100-continue", "-H", kind]);
        command.arg("--data-binary").arg(format!("@{}", file.display())).arg("-w").arg("\n%{http_code} %{size_upload}");
        tools::run(command.arg(proxy.url("/x")))
    };
    let said = curl("content-type: application/json");
    assert!(said == format!("{body}\n200 {}", body.len()), "{}", said.len());
    assert_eq!(upstream.one().header("expect"), None);
    let said = curl("content-type: text/plain");
    assert!(said.ends_with("\n415 0"), "the body stays with curl: {said}");
    assert_eq!(upstream.seen().len(), 1);
}

#[test]
fn interim_answers_of_the_upstream_are_dropped() {
    let one = Upstream::scripted(|_, stream| {
        let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n";
        let last = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
        let _ = stream.write_all(format!("{interim}{last}").as_bytes());
        Then::Keep
    });
    let two = frames::upstream(|mut wire, _| {
        while let Some(stream) = wire.begun() {
            wire.ended(stream);
            wire.headers(stream, &[(":status", "103"), ("link", "</a>; rel=preload")], false);
            wire.headers(stream, &[(":status", "200"), JSON], false);
            wire.data(stream, b"{}", true);
        }
    });
    for proxy in [before(&one.url()).start(), h2c(two).start()] {
        for path in ["/x", "/open/x"] {
            let mut client = proxy.client();
            client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
            let mut first = Vec::new();
            client.read_until(b"\r\n", &mut first);
            assert_eq!(String::from_utf8_lossy(&first), "HTTP/1.1 200 OK\r\n", "{path}");
            let answer = Wire::connect(proxy.address()).request("GET", path, &[], b"");
            assert_eq!((answer.status(), answer.text().as_str()), (200, "{}"), "{path}");
            assert_eq!(answer.header("link"), None);
        }
    }
}

#[test]
fn an_upstream_that_speaks_http_1_0_ends_its_answer_by_closing_and_a_cut_one_is_told() {
    let upstream = Upstream::scripted(|request, stream| {
        let body = if request.target().ends_with("cut") { r#"{"ssn":nu"# } else { r#"{"a":[1,2]}"# };
        let _ = stream.write_all(format!("HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{body}").as_bytes());
        Then::Close
    });
    let proxy = before(&upstream.url()).start();
    for path in ["/x", "/open/x"] {
        let answer = proxy.json("GET", path, "");
        assert_eq!((answer.status(), answer.text().as_str()), (200, r#"{"a":[1,2]}"#), "{path}");
        assert!(answer.complete);
    }
    let answer = proxy.json("GET", "/cut", "");
    assert_eq!((answer.status(), answer.code().as_str()), (502, "truncated"));
}

#[test]
fn an_http_1_0_app_is_served_and_its_connection_closed() {
    let upstream = Upstream::echo();
    let proxy = Proxy::before(&upstream).fields("$.ssn").start();
    let body = r#"{"ssn":"1"}"#;
    let mut client = proxy.client();
    client.send(format!(
        "POST / HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    let answer = client.response("POST");
    assert_eq!(answer.text(), body);
    assert_eq!(answer.header("transfer-encoding"), None);
    assert!(client.rest().is_empty(), "closed after its answer");
    let said = tools::run(
        tools::program("curl")
            .args(["-sS", "--http1.0", "-d", body, "-H", "content-type: application/json"])
            .arg(proxy.url("/")),
    );
    assert_eq!(said, body);
}

/// Writes until the other side has taken nothing for two seconds, or `most` bytes are written; how many went.
fn write_until_stuck(stream: &mut TcpStream, piece: &[u8], most: usize) -> usize {
    stream.set_write_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut written = 0;
    while written < most {
        match stream.write(&piece[written % piece.len()..]) {
            Ok(count) => written += count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(error) => panic!("{error}"),
        }
    }
    stream.set_write_timeout(None).unwrap();
    written
}

/// What sockets of the system may hold on a way of two hops.
const IN_SOCKETS: usize = 48 << 20;

/// What the process may hold at its most, in its test build.
const MEMORY: u64 = 64 << 20;

/// The longest body, and one that is still longer than the sockets are.
const LONG: usize = 200 << 20;
const ENOUGH: usize = 64 << 20;

/// An upstream that reads nothing of a request until it is told to, and then says how many bytes came.
fn slow_reader() -> (SocketAddr, std::sync::mpsc::Sender<()>, Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (go, told) = channel::<()>();
    let (say, said) = channel();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        told.recv().unwrap();
        let (mut count, mut end) = (0, Vec::new());
        let mut buffer = vec![0; 1 << 20];
        loop {
            let got = stream.read(&mut buffer).unwrap();
            count += got;
            end.extend_from_slice(&buffer[got.saturating_sub(5)..got]);
            end.drain(..end.len().saturating_sub(5));
            if got == 0 || end == b"0\r\n\r\n" {
                break;
            }
        }
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        say.send(count).unwrap();
    });
    (address, go, said)
}

fn process(url: &str) -> Process {
    let yaml = format!(
        "workers: 1\nlisteners: [{{name: out, bind: 127.0.0.1:0, direction: egress}}]\nupstreams: {{up: {{url: \"{url}\"}}}}\nroutes:\n\
         - {{name: open, match: {{listener: out, path: \"/open/{{*rest}}\"}}, upstream: up}}\n\
         - {{name: all, match: {{listener: out, path: \"/{{*rest}}\"}}, upstream: up, fields: [{{select: \"$[*].ssn\"}}]}}\n"
    );
    Process::start(&Keys::new(), &[("OILSKIN_CONFIG_YAML", &yaml)])
}

/// A chunk of records, each with a field to encrypt among a filling.
fn records() -> Vec<u8> {
    let record = format!("{{\"ssn\":\"123-45-6789\",\"x\":\"{}\"}},", "y".repeat(60_000));
    let chunk = format!("{:x}\r\n{record}\r\n", record.len());
    chunk.into_bytes()
}

#[test]
fn a_slow_upstream_stops_a_fast_app_and_memory_stays_bounded() {
    for (path, total) in [("/open/x", ENOUGH), ("/x", LONG)] {
        let (upstream, go, said) = slow_reader();
        let process = process(&format!("http://{upstream}"));
        let mut stream = TcpStream::connect(process.address()).unwrap();
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        );
        stream.write_all(format!("{head}1\r\n[\r\n").as_bytes()).unwrap();
        let chunk = records();
        let written = write_until_stuck(&mut stream, &chunk, total);
        assert!(written < IN_SOCKETS, "{path}: the writer was never stopped ({written} bytes went)");
        go.send(()).unwrap();
        let begun = written % chunk.len();
        stream.write_all(&chunk[begun..]).unwrap();
        for _ in 0..(total - written) / chunk.len() {
            stream.write_all(&chunk).unwrap();
        }
        stream.write_all(b"3\r\n{}]\r\n0\r\n\r\n").unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 204", "{path}");
        assert!(said.recv().unwrap() > total - (1 << 20), "{path}");
        assert!(process.peak_memory() < MEMORY, "{path}: {} bytes", process.peak_memory());
    }
}

#[test]
fn a_slow_app_stops_a_fast_upstream_and_memory_stays_bounded() {
    let total = ENOUGH;
    for (path, version) in [("/open/x", 1), ("/x", 1), ("/x", 2)] {
        let (say, stuck) = channel();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            let head =
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n[\r\n";
            stream.write_all(head.as_bytes()).unwrap();
            let record = format!("{{\"x\":\"{}\"}},", "y".repeat(60_000));
            let chunk = format!("{:x}\r\n{record}\r\n", record.len()).into_bytes();
            let written = write_until_stuck(&mut stream, &chunk, total);
            say.send(written).unwrap();
            stream.write_all(&chunk[written % chunk.len()..]).unwrap();
            for _ in 0..(total - written.min(total)) / chunk.len() {
                stream.write_all(&chunk).unwrap();
            }
            stream.write_all(b"3\r\n{}]\r\n0\r\n\r\n").unwrap();
        });
        let process = process(&format!("http://{address}"));
        let (mut client, mut wire) = (None, None);
        if version == 1 {
            let client = client.insert(Client::connect(process.address()));
            client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
        } else {
            let wire = wire.insert(Wire::connect(process.address()));
            wire.begin("GET", path, &[], true);
        }
        let written = stuck.recv().unwrap();
        assert!(written < IN_SOCKETS, "{path}: the writer was never stopped ({written} bytes went)");
        let length = match (client, wire) {
            (Some(mut client), _) => {
                let answer = client.response("GET");
                assert!(answer.complete);
                answer.body.len()
            }
            (_, Some(mut wire)) => {
                let answer = wire.ended(1);
                assert!(answer.whole());
                answer.body.len()
            }
            _ => 0,
        };
        assert!(length > total - (1 << 20), "{path}: {length}");
        assert!(process.peak_memory() < MEMORY, "{path}: {} bytes", process.peak_memory());
    }
}

#[test]
fn a_string_of_100_mb_passes_unselected_in_little_memory_and_is_refused_where_it_is_selected() {
    let (upstream, go, said) = slow_reader();
    go.send(()).unwrap();
    let process = process(&format!("http://{upstream}"));
    let piece = "y".repeat(1 << 20);
    let chunk = format!("{:x}\r\n{piece}\r\n", piece.len());
    let head = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (name, passes) in [("ssn", false), ("other", true)] {
        let mut client = Client::connect(process.address());
        let start = format!("[{{\"{name}\":\"");
        client.send(format!("{head}{:x}\r\n{start}\r\n", start.len()));
        for _ in 0..100 {
            // What is refused is not read to its end.
            if client.try_send(&chunk).is_err() {
                break;
            }
        }
        let _ = client.try_send("3\r\n\"}]\r\n0\r\n\r\n");
        if passes {
            assert_eq!(client.response("POST").status(), 204);
            assert!(said.recv().unwrap() > 100 << 20);
        } else if let Ok(answer) = client.try_response("POST") {
            assert_eq!((answer.status(), answer.code().as_str()), (413, "too_large"));
        }
    }
    let page = process.metrics_page();
    assert!(page.contains("code=\"too_large\"} 1"), "{page}");
    assert!(process.peak_memory() < MEMORY, "{} bytes", process.peak_memory());
}
