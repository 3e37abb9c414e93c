//! Aborts: a message that is not whole must look so at the other side, whatever protocol is spoken there.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};

use oilskin_tests::frames::{self, End, Side, code};
use oilskin_tests::upstream::{Then, respond};
use oilskin_tests::{Message, Proxy, Upstream, Wire, proxy, tools};

use crate::upstreams::{before, h2c};

const JSON: (&str, &str) = ("content-type", "application/json");

/// The beginning of a document, so long that it streams.
fn filling(bytes: usize) -> String {
    format!("{{\"x\":\"{}", "y".repeat(bytes))
}

/// What an upstream tells of a request: that it has begun, and how it ended.
enum Told<T> {
    Begun,
    Ended(T),
}

fn ended<T>(told: &Receiver<Told<T>>) -> T {
    loop {
        if let Told::Ended(message) = told.recv().unwrap() {
            return message;
        }
    }
}

/// An HTTP/1.1 upstream that tells how each request ended; it answers those that end.
fn telling_h1() -> (SocketAddr, Receiver<Told<Message>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (say, said) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let say = say.clone();
            std::thread::spawn(move || {
                let mut writer = stream.try_clone().unwrap();
                let mut reader = BufReader::new(stream);
                while reader.fill_buf().is_ok_and(|bytes| !bytes.is_empty()) {
                    say.send(Told::Begun).unwrap();
                    let request = Message::read_request(&mut reader).unwrap();
                    let complete = request.complete;
                    say.send(Told::Ended(request)).unwrap();
                    if !complete {
                        return;
                    }
                    respond(&mut writer, "200 OK", &[JSON], b"{}");
                }
            });
        }
    });
    (address, said)
}

/// The same over HTTP/2.
fn telling_h2() -> (SocketAddr, Receiver<Told<Side>>) {
    let (say, said) = channel();
    let say = Mutex::new(say);
    let address = frames::upstream(move |mut wire, _| {
        while let Some(stream) = wire.begun() {
            say.lock().unwrap().send(Told::Begun).unwrap();
            let request = wire.ended(stream);
            let whole = request.whole();
            say.lock().unwrap().send(Told::Ended(request)).unwrap();
            if whole {
                wire.headers(stream, &[(":status", "200"), JSON], false);
                wire.data(stream, b"{}", true);
            }
        }
    });
    (address, said)
}

/// Sends half of a long request over HTTP/1.1 and lets `end` finish it; what the app was answered.
fn half_h1(proxy: &Proxy, path: &str, end: impl FnOnce(&mut oilskin_tests::Client)) -> Option<Message> {
    let mut client = proxy.client();
    let body = filling(300_000);
    client.send(format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n",
        body.len()
    ));
    end(&mut client);
    client.try_response("POST").ok()
}

/// Lets an app leave in the middle, over both protocols; `begun` waits for the upstream, `cut` looks at what it saw.
fn leave(proxy: &Proxy, begun: impl Fn(), cut: impl Fn(&str)) {
    for path in ["/x", "/open/x"] {
        half_h1(proxy, path, |client| {
            begun();
            client.finish();
        });
        cut(path);
        let mut wire = Wire::connect(proxy.address());
        let stream = wire.begin("POST", path, &[JSON], false);
        wire.data(stream, filling(300_000).as_bytes(), false);
        begun();
        wire.reset(stream, code::CANCEL);
        cut(path);
        // The app's connection lives on.
        assert_eq!(wire.request("GET", "/open/next", &[], b"").status(), 200);
        begun();
    }
}

#[test]
fn an_app_that_leaves_in_its_body_cuts_the_request_at_the_upstream() {
    let (one, told) = telling_h1();
    let proxy = before(&format!("http://{one}")).start();
    let cut = |path: &str| loop {
        let request = ended(&told);
        if request.method() == "POST" {
            assert!(!request.complete && !request.raw.ends_with(b"0\r\n\r\n"), "{path}: {}", request.head);
            break;
        }
    };
    let waiting = || while !matches!(told.recv().unwrap(), Told::Begun) {};
    leave(&proxy, waiting, cut);
    let (two, told) = telling_h2();
    let proxy = h2c(two).start();
    let cut = |path: &str| loop {
        let request = ended(&told);
        if request.header(":method") == Some("POST") {
            assert_eq!(request.end, Some(End::Reset(code::CANCEL)), "{path}");
            break;
        }
    };
    let waiting = || while !matches!(told.recv().unwrap(), Told::Begun) {};
    leave(&proxy, waiting, cut);
}

#[test]
fn a_request_that_turns_out_malformed_is_cut_at_the_upstream_and_told_to_the_app() {
    let ((one, ended_one), (two, ended_two)) = (telling_h1(), telling_h2());
    let (first, second) = (before(&format!("http://{one}")).start(), h2c(two).start());
    let wrong = |client: &mut oilskin_tests::Client| {
        client.send("3\r\n\"}x\r\n0\r\n\r\n");
    };
    let answer = half_h1(&first, "/x", wrong).unwrap();
    assert_eq!((answer.status(), answer.code().as_str()), (400, "malformed"));
    assert!(!ended(&ended_one).complete);
    let answer = half_h1(&second, "/x", wrong).unwrap();
    assert_eq!((answer.status(), answer.code().as_str()), (400, "malformed"));
    assert_eq!(ended(&ended_two).end, Some(End::Reset(code::CANCEL)));
    // By HTTP/2 in, too.
    let mut wire = Wire::connect(second.address());
    let stream = wire.begin("POST", "/x", &[JSON], false);
    wire.data(stream, filling(300_000).as_bytes(), false);
    wire.data(stream, b"\"}x", true);
    let answer = wire.ended(stream);
    assert_eq!(answer.status(), 400);
    assert!(answer.text().contains("\"code\":\"malformed\""), "{}", answer.text());
    assert_eq!(ended(&ended_two).end, Some(End::Reset(code::CANCEL)));
}

/// Upstreams whose answer ends in the middle, over both protocols: HTTP/2 once by a reset, once with its connection.
fn dying() -> Vec<proxy::Builder> {
    let one = Upstream::scripted(|_, stream| {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
        let body = filling(300_000);
        let _ = stream.write_all(format!("{head}{:x}\r\n{body}\r\n", body.len()).as_bytes());
        Then::Close
    });
    let short = Upstream::scripted(|_, stream| {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 400000\r\n\r\n";
        let _ = stream.write_all(format!("{head}{}", filling(300_000)).as_bytes());
        Then::Close
    });
    let h2 = |reset: bool| {
        frames::upstream(move |mut wire, _| {
            while let Some(stream) = wire.begun() {
                wire.ended(stream);
                wire.headers(stream, &[(":status", "200"), JSON], false);
                wire.data(stream, filling(300_000).as_bytes(), false);
                if !reset {
                    let _ = wire.socket().shutdown(std::net::Shutdown::Both);
                    return;
                }
                wire.reset(stream, code::INTERNAL_ERROR);
            }
        })
    };
    vec![before(&one.url()), before(&short.url()), h2c(h2(true)), h2c(h2(false))]
}

#[test]
fn an_answer_that_is_cut_at_the_upstream_is_cut_at_the_app() {
    for (number, builder) in dying().into_iter().enumerate() {
        let proxy = builder.start();
        for path in ["/x", "/open/x"] {
            let mut client = proxy.client();
            client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
            let answer = client.response("GET");
            assert_eq!(answer.status(), 200, "{number} {path}");
            assert!(!answer.complete && !answer.raw.ends_with(b"0\r\n\r\n"), "{number} {path}: it looks whole");
            assert!(client.rest().is_empty(), "closed");
            let mut wire = Wire::connect(proxy.address());
            let answer = wire.request("GET", path, &[], b"");
            assert_eq!(answer.status(), 200, "{number} {path}");
            assert_eq!(answer.end, Some(End::Reset(code::CANCEL)), "{number} {path}");
        }
        assert!(proxy.metrics().contains("route=\"all\",code=\"aborted\"} 2"), "{}", proxy.metrics());
        let curl = tools::program("curl").args(["-sS", "-o", "/dev/null", &proxy.url("/x")]).output().unwrap();
        assert!(!curl.status.success(), "curl sees that it is cut");
    }
}

#[test]
fn an_answer_that_turns_out_wrong_while_it_streams_is_cut_in_both_directions() {
    let (say, said) = channel();
    let say = Mutex::new(say);
    let two = frames::upstream(move |mut wire, _| {
        while let Some(stream) = wire.begun() {
            wire.ended(stream);
            wire.headers(stream, &[(":status", "200"), JSON], false);
            // Goes on until it is stopped.
            wire.data(stream, format!("{}\"}} what is this", filling(300_000)).as_bytes(), false);
            while !wire.closed && !wire.reset_by_peer(stream) {
                wire.pump();
            }
            say.lock().unwrap().send(wire.reset_by_peer(stream)).unwrap();
        }
    });
    let proxy = h2c(two).start();
    let mut wire = Wire::connect(proxy.address());
    assert_eq!(wire.request("GET", "/x", &[], b"").end, Some(End::Reset(code::CANCEL)));
    assert!(said.recv().unwrap(), "the upstream's stream is reset, its connection lives");
}

#[test]
fn an_app_that_leaves_in_its_answer_stops_the_upstream() {
    let (say, stopped) = channel();
    let say = Mutex::new(say);
    let say_two = Mutex::new(say.lock().unwrap().clone());
    let piece = vec![b'y'; 60_000];
    let chunk = [format!("{:x}\r\n", piece.len()).as_bytes(), &piece, b"\r\n"].concat();
    let one = Upstream::scripted(move |_, stream| {
        let _ = stream.write_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[\"\r\n",
        );
        // Ends only by an error: the connection was closed.
        while stream.write_all(&chunk).is_ok() {}
        say.lock().unwrap().send(End::Closed).unwrap();
        Then::Close
    });
    let two = frames::upstream(move |mut wire, _| {
        while let Some(stream) = wire.begun() {
            let said = say_two.lock().unwrap().clone();
            wire.headers(stream, &[(":status", "200"), JSON], false);
            wire.data(stream, b"[\"", false);
            loop {
                wire.data(stream, &piece, false);
                if wire.reset_by_peer(stream) {
                    said.send(End::Reset(code::CANCEL)).unwrap();
                    break;
                }
                if wire.closed {
                    said.send(End::Closed).unwrap();
                    return;
                }
            }
        }
    });
    for (proxy, want) in [(before(&one.url()).start(), End::Closed), (h2c(two).start(), End::Reset(code::CANCEL))] {
        for path in ["/x", "/open/x"] {
            let mut client = proxy.client();
            client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"));
            let mut some = Vec::new();
            client.read_until(b"yyyy", &mut some);
            drop(client);
            assert_eq!(stopped.recv().unwrap(), want, "{path}");
            let mut wire = Wire::connect(proxy.address());
            let stream = wire.begin("GET", path, &[], true);
            wire.until(stream, |side| side.body.len() > 1000);
            wire.reset(stream, code::CANCEL);
            assert_eq!(stopped.recv().unwrap(), want, "{path} by HTTP/2");
            assert!(!wire.closed);
        }
    }
}

#[test]
fn an_answer_may_begin_before_the_request_has_ended() {
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = upstream.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in upstream.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut stream = stream;
                let mut seen = Vec::new();
                let mut byte = [0];
                while !seen.ends_with(b"\r\n\r\n") {
                    stream.read_exact(&mut byte).unwrap();
                    seen.push(byte[0]);
                }
                let status = if seen.starts_with(b"POST /x/error") { "409 Conflict" } else { "200 OK" };
                let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n");
                stream.write_all(format!("{head}{{\"a\":1}}").as_bytes()).unwrap();
                let _ = stream.read_to_end(&mut seen);
            });
        }
    });
    let proxy = before(&format!("http://{address}")).start();
    // What needs no promise of ours comes at once: an open route's answer, and a refusal.
    for (path, status) in [("/open/x", 200), ("/x/error", 409)] {
        let answer = half_h1(&proxy, path, |_| ()).unwrap();
        assert_eq!((answer.status(), answer.text().as_str()), (status, "{\"a\":1}"), "{path}");
    }
    // A success waits until all of the request was processed: this one fails after the upstream's answer came.
    let answer = half_h1(&proxy, "/x/success", |client| {
        client.send("3\r\n\"}x\r\n0\r\n\r\n");
    })
    .unwrap();
    assert_eq!((answer.status(), answer.code().as_str()), (400, "malformed"));
    let answer = half_h1(&proxy, "/x/success", |client| {
        client.send("2\r\n\"}\r\n0\r\n\r\n");
    })
    .unwrap();
    assert_eq!((answer.status(), answer.text().as_str()), (200, "{\"a\":1}"));
}
