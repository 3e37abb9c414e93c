//! Upstreams: protocols, retries, and the pool's bounds.

use std::io::{BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use oilskin_tests::frames::{self, Side, code, kind};
use oilskin_tests::upstream::{Then, respond};
use oilskin_tests::{Client, Message, Proxy, Upstream, Wire, proxy, tools};

const BODY: &str = r#"{"ssn":"123-45-6789"}"#;

pub(crate) fn before(url: &str) -> proxy::Builder {
    Proxy::yaml(&format!(
        "workers: 1\nlisteners: [{{name: out, bind: 127.0.0.1:0, direction: egress}}]\nupstreams: {{up: {{url: \"{url}\"}}}}\nroutes:\n\
         - {{name: open, match: {{listener: out, path: \"/open/{{*rest}}\"}}, upstream: up}}\n\
         - {{name: all, match: {{listener: out, path: \"/{{*rest}}\"}}, upstream: up, fields: [{{select: $.ssn}}]}}\n"
    ))
}

pub(crate) fn h2c(address: SocketAddr) -> proxy::Builder {
    before(&format!("h2c://{address}"))
}

/// Answers 200 with the body that came, over HTTP/2.
pub(crate) fn echo(wire: &mut Wire, stream: u32, request: &Side) {
    wire.headers(stream, &[(":status", "200"), ("content-type", "application/json")], false);
    wire.data(stream, &request.body, true);
}

fn told<T: Send + 'static>() -> (Mutex<Sender<T>>, Receiver<T>) {
    let (sender, receiver) = channel();
    (Mutex::new(sender), receiver)
}

#[test]
fn an_h2c_upstream_sees_its_own_authority_tokens_and_no_field_of_a_connection() {
    let (seen, requests) = told();
    let address = frames::upstream(move |mut wire, _| {
        while let Some(stream) = wire.begun() {
            let request = wire.ended(stream);
            echo(&mut wire, stream, &request);
            seen.lock().unwrap().send(request).unwrap();
        }
    });
    let proxy = h2c(address).start();
    let fields =
        [("Content-Type", "application/json"), ("Connection", "x-hop"), ("X-Hop", "1"), ("Keep-Alive", "timeout=1")];
    let answer = proxy.client().request("POST", "/a%20b?c=d", &fields, BODY.as_bytes());
    assert_eq!(answer.text(), BODY);
    let request = requests.recv().unwrap();
    let pseudo: Vec<_> = request.head.iter().take_while(|(name, _)| name.starts_with(':')).cloned().collect();
    assert_eq!(pseudo.len(), 4, "{pseudo:?}");
    assert_eq!(request.header(":authority"), Some(address.to_string().as_str()));
    assert_eq!((request.header(":path"), request.header(":scheme")), (Some("/a%20b?c=d"), Some("http")));
    for gone in ["host", "connection", "x-hop", "keep-alive", "transfer-encoding"] {
        assert_eq!(request.header(gone), None, "{gone}");
    }
    assert!(request.text().contains("oil1.") && !request.text().contains("123-45-6789"), "{}", request.text());
}

#[test]
fn an_upstream_on_a_unix_socket_is_spoken_to_like_one_on_a_port() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("up.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let (seen, requests) = told();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        while let Ok(request) = Message::read_request(&mut reader) {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length:";
            stream.write_all(format!("{head} {}\r\n\r\n{}", request.body.len(), request.text()).as_bytes()).unwrap();
            seen.lock().unwrap().send(request).unwrap();
        }
    });
    let proxy = before(&format!("unix:{}", path.display())).start();
    for _ in 0..3 {
        assert_eq!(proxy.json("POST", "/x", BODY).text(), BODY);
        let request = requests.recv().unwrap();
        assert!(request.text().contains("oil1."));
        assert_eq!(request.header("host"), Some("localhost"));
    }
    drop(proxy);
    let gone = before(&format!("unix:{}", folder.path().join("none.sock").display())).start();
    assert_eq!(gone.json("POST", "/x", BODY).code(), "upstream_unreachable");
}

/// An upstream that treats its first stream ever by `first` and answers all others; all request bodies are told.
fn once(first: impl Fn(&mut Wire, u32) + Send + Sync + 'static) -> (SocketAddr, Receiver<(usize, String)>) {
    let (seen, requests) = told();
    let count = AtomicUsize::new(0);
    let address = frames::upstream(move |mut wire, connection| {
        while let Some(stream) = wire.begun() {
            let request = wire.ended(stream);
            seen.lock().unwrap().send((connection, request.text())).unwrap();
            match count.fetch_add(1, Ordering::SeqCst) {
                0 => first(&mut wire, stream),
                _ => echo(&mut wire, stream, &request),
            }
        }
    });
    (address, requests)
}

#[test]
fn a_stream_the_upstream_did_not_process_is_sent_once_more_on_a_fresh_connection_with_the_same_bytes() {
    let refusals: [fn(&mut Wire, u32); 4] = [
        |wire, stream| wire.reset(stream, code::REFUSED_STREAM),
        |wire, stream| {
            wire.go_away(stream - 1, code::NO_ERROR);
            let _ = wire.socket().shutdown(std::net::Shutdown::Both);
        },
        |wire, _| {
            wire.go_away(0, code::INTERNAL_ERROR);
            let _ = wire.socket().shutdown(std::net::Shutdown::Both);
        },
        |wire, _| wire.go_away(0, code::PROTOCOL_ERROR),
    ];
    for refuse in refusals {
        let (address, requests) = once(refuse);
        let proxy = h2c(address).start();
        let answer = proxy.json("POST", "/x", BODY);
        assert_eq!((answer.status(), answer.text().as_str()), (200, BODY));
        let (first, again) = (requests.recv().unwrap(), requests.recv().unwrap());
        assert_eq!(first.1, again.1, "the same ciphertext");
        assert_ne!(first.0, again.0, "another connection");
        assert!(requests.try_recv().is_err(), "twice at most");
    }
}

#[test]
fn what_the_upstream_may_have_processed_is_never_sent_twice() {
    let cuts: [fn(&mut Wire, u32); 4] = [
        |wire, stream| wire.reset(stream, code::CANCEL),
        |wire, stream| wire.reset(stream, code::INTERNAL_ERROR),
        |wire, stream| wire.go_away(stream, code::INTERNAL_ERROR),
        |_, _| {},
    ];
    for (number, cut) in cuts.into_iter().enumerate() {
        let (address, requests) = once(move |wire, stream| {
            cut(wire, stream);
            if number > 1 {
                let _ = wire.socket().shutdown(std::net::Shutdown::Both);
            }
        });
        let proxy = h2c(address).start();
        let answer = proxy.json("POST", "/x", BODY);
        assert_eq!((answer.status(), answer.code().as_str()), (502, "upstream_closed"), "{number}");
        requests.recv().unwrap();
        // The next request is answered: had the first been sent again, it would be seen before this one.
        assert_eq!(proxy.json("POST", "/x", r#"{"next":1}"#).status(), 200, "{number}");
        assert_eq!(requests.recv().unwrap().1, r#"{"next":1}"#, "{number}");
    }
}

#[test]
fn a_stream_refused_twice_or_with_a_body_under_way_is_a_502() {
    let (seen, streams) = told();
    let address = frames::upstream(move |mut wire, _| {
        while let Some(stream) = wire.begun() {
            wire.until(stream, |side| !side.head.is_empty());
            seen.lock().unwrap().send(()).unwrap();
            wire.reset(stream, code::REFUSED_STREAM);
        }
    });
    let proxy = h2c(address).start();
    let answer = proxy.json("POST", "/x", BODY);
    assert_eq!((answer.status(), answer.code().as_str()), (502, "upstream_closed"));
    assert_eq!(streams.try_iter().count(), 2, "refused twice");
    let long = format!("{{\"ssn\":\"1\",\"x\":\"{}\"}}", "y".repeat(300_000));
    let answer = proxy.json("POST", "/x", &long);
    assert_eq!((answer.status(), answer.code().as_str()), (502, "upstream_closed"));
    assert_eq!(streams.try_iter().count(), 1, "what is not held cannot be sent again");
}

#[test]
fn a_body_under_way_is_not_sent_again_whatever_a_goaway_says() {
    let (seen, streams) = told();
    let address = frames::upstream(move |mut wire, _| {
        while let Some(stream) = wire.begun() {
            wire.until(stream, |side| !side.head.is_empty());
            seen.lock().unwrap().send(()).unwrap();
            wire.go_away(0, code::INTERNAL_ERROR);
        }
    });
    let long = format!("{{\"ssn\":\"1\",\"x\":\"{}\"}}", "y".repeat(300_000));
    let answer = h2c(address).start().json("POST", "/x", &long);
    assert_eq!((answer.status(), answer.code().as_str()), (502, "upstream_closed"));
    assert_eq!(streams.try_iter().count(), 1);
}

#[test]
fn what_breaks_http_2_is_an_invalid_answer_before_its_head_and_within_its_body() {
    let breaches: [fn(&mut Wire, u32); 4] = [
        |wire, _| wire.send(kind::PING, 0, 0, &[0; 7]),
        |wire, _| wire.send(kind::DATA, 0, 0, b"x"),
        // An index that no table has.
        |wire, stream| wire.send(kind::HEADERS, 4, stream, &[0xff, 0xff, 0x0f]),
        |wire, stream| wire.send(kind::WINDOW_UPDATE, 0, stream, &[0; 4]),
    ];
    for (number, breach) in breaches.into_iter().enumerate() {
        let address = frames::upstream(move |mut wire, _| {
            while let Some(stream) = wire.begun() {
                let request = wire.ended(stream);
                if request.header(":path").is_some_and(|path| path.ends_with("/body")) {
                    wire.headers(stream, &[(":status", "200"), ("content-type", "application/json")], false);
                    wire.data(stream, b"{", false);
                }
                breach(&mut wire, stream);
            }
        });
        let proxy = h2c(address).start();
        for path in ["/x/head", "/open/head", "/x/body"] {
            let answer = proxy.json("POST", path, BODY);
            assert_eq!((answer.status(), answer.code().as_str()), (502, "upstream_invalid"), "{number} {path}");
        }
    }
}

/// An upstream that tells when a request is in and answers it when it is told to.
fn holding() -> (Upstream, Receiver<()>, Mutex<Sender<()>>) {
    let (entered, inside) = told();
    let (leave, left) = told();
    let left = Mutex::new(left);
    let upstream = Upstream::scripted(move |_, stream| {
        entered.lock().unwrap().send(()).unwrap();
        left.lock().unwrap().recv().unwrap();
        respond(stream, "200 OK", &[("Content-Type", "application/json")], b"{}")
    });
    (upstream, inside, leave)
}

#[test]
fn requests_beyond_the_pool_s_bound_wait_a_while_and_are_then_told_to_come_back() {
    let (upstream, inside, leave) = holding();
    let proxy = before(&upstream.url())
        .env("OILSKIN_LIMITS_UPSTREAM_CONNECTIONS", "2")
        .env("OILSKIN_TIMEOUTS_POOL_WAIT", "300ms")
        .start();
    let mut held: Vec<Client> = (0..2).map(|_| proxy.client()).collect();
    for client in &mut held {
        client.send("GET /open/x HTTP/1.1\r\nHost: a\r\n\r\n");
        inside.recv().unwrap();
    }
    let third = proxy.json("GET", "/open/x", "");
    assert_eq!((third.status(), third.code().as_str()), (503, "overloaded"));
    assert!(third.header("retry-after").is_some());
    assert_eq!(upstream.connections(), 2);
    for client in &mut held {
        leave.lock().unwrap().send(()).unwrap();
        assert_eq!(client.response("GET").status(), 200);
    }
    // There is room again, on a connection that is there already.
    leave.lock().unwrap().send(()).unwrap();
    assert_eq!(proxy.json("GET", "/open/x", "").status(), 200);
    assert_eq!(upstream.connections(), 2);
}

#[test]
fn one_that_waits_gets_the_connection_that_comes_free() {
    let (upstream, inside, leave) = holding();
    let proxy = before(&upstream.url())
        .env("OILSKIN_LIMITS_UPSTREAM_CONNECTIONS", "1")
        .env("OILSKIN_TIMEOUTS_POOL_WAIT", "20s")
        .start();
    let mut clients: Vec<Client> = (0..4).map(|_| proxy.client()).collect();
    for client in &mut clients {
        client.send("GET /open/x HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    for _ in 0..4 {
        inside.recv().unwrap();
        leave.lock().unwrap().send(()).unwrap();
    }
    for client in &mut clients {
        assert_eq!(client.response("GET").status(), 200);
    }
    assert_eq!(upstream.connections(), 1, "one after the other over one connection");
}

#[test]
fn connections_are_used_again_until_they_are_old_or_were_idle_for_too_long() {
    let upstream = Upstream::echo();
    let proxy = before(&upstream.url()).start();
    for _ in 0..20 {
        assert_eq!(proxy.json("POST", "/x", BODY).text(), BODY);
    }
    assert_eq!(upstream.connections(), 1, "used again");
    for (name, value) in [("OILSKIN_TIMEOUTS_UPSTREAM_AGE", "500ms"), ("OILSKIN_TIMEOUTS_IDLE", "500ms")] {
        let upstream = Upstream::echo();
        let proxy = before(&upstream.url()).env(name, value).start();
        assert_eq!(proxy.json("POST", "/x", BODY).text(), BODY);
        tools::until(name, || (upstream.open() == 0).then_some(()));
        assert_eq!(proxy.json("POST", "/x", BODY).text(), BODY);
        assert_eq!(upstream.connections(), 2, "{name}");
    }
}

#[test]
fn an_http_2_connection_is_shared_and_closed_when_it_is_old_or_idle() {
    for setting in ["", "OILSKIN_TIMEOUTS_UPSTREAM_AGE", "OILSKIN_TIMEOUTS_IDLE"] {
        let made = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&made);
        let (ended, closed) = told();
        let address = frames::upstream(move |mut wire, _| {
            counted.fetch_add(1, Ordering::SeqCst);
            while let Some(stream) = wire.begun() {
                let request = wire.ended(stream);
                echo(&mut wire, stream, &request);
            }
            ended.lock().unwrap().send(()).unwrap();
        });
        if setting.is_empty() {
            let proxy = h2c(address).start();
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| assert_eq!(proxy.json("POST", "/x", BODY).text(), BODY));
                }
            });
            assert_eq!(made.load(Ordering::SeqCst), 1, "one connection for all");
            continue;
        }
        let proxy = h2c(address).env(setting, "500ms").start();
        assert_eq!(proxy.json("POST", "/x", BODY).text(), BODY);
        closed.recv_timeout(std::time::Duration::from_secs(20)).expect(setting);
        assert_eq!(proxy.json("POST", "/x", BODY).text(), BODY);
        assert_eq!(made.load(Ordering::SeqCst), 2, "{setting}");
    }
}

#[test]
fn an_answer_that_came_unasked_is_never_given_to_the_next_request() {
    let upstream = Upstream::scripted(|request, stream| {
        let own = format!("{{\"for\":\"{}\"}}", request.target());
        let poison =
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n{\"for\":\"none\"}";
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length:";
        let _ = stream.write_all(format!("{head} {}\r\n\r\n{own}{poison}", own.len()).as_bytes());
        Then::Keep
    });
    let proxy = before(&upstream.url()).start();
    let mut client = proxy.client();
    for turn in 0..20 {
        for route in ["/open", "/x"] {
            let path = format!("{route}/{turn}");
            let answer = client.request("GET", &path, &[], b"");
            assert_eq!(answer.text(), format!("{{\"for\":\"{path}\"}}"));
        }
    }
}
