//! Limits and deadlines: each breach has its code and status, over both protocols, and leaves nothing upstream.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use oilskin_tests::frames::{End, code, kind};
use oilskin_tests::upstream::{Then, respond};
use oilskin_tests::{Client, Message, Proxy, Upstream, Wire, hpack, tools};

use crate::upstreams::{before, h2c};

const JSON: (&str, &str) = ("content-type", "application/json");

fn told(answer: &Message) -> (u16, String) {
    (answer.status(), answer.code())
}

/// Status and code of an answer over HTTP/2.
fn told_h2(answer: &oilskin_tests::frames::Side) -> (u16, String) {
    let text = answer.text();
    let code = text.split("\"code\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
    (answer.status(), code.to_owned())
}

fn problem(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[test]
fn a_head_over_its_size_or_number_of_fields_is_refused() {
    let upstream = Upstream::echo();
    let proxy = before(&upstream.url()).start();
    let long = format!("X-Long: {}\r\n", "a".repeat(17_000));
    let many: String = (0..101).map(|n| format!("X-{n}: a\r\n")).collect();
    for fields in [&long, &many] {
        let mut client = proxy.client();
        client.send(format!("GET /open/x HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        let answer = client.response("GET");
        assert_eq!(answer.status(), 431, "{}", answer.head);
        assert!(client.rest().is_empty(), "and closed");
    }
    let long = "a".repeat(17_000);
    let mut wire = Wire::connect(proxy.address());
    let stream = wire.begin("GET", "/open/x", &[("x-long", &long)], true);
    let answer = wire.ended(stream);
    assert!(answer.status() == 431 || answer.end != Some(End::Whole), "{answer:?}");
    let names: Vec<String> = (0..101).map(|n| format!("x-{n}")).collect();
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), "a")).collect();
    let answer = Wire::connect(proxy.address()).request("GET", "/open/x", &many, b"");
    assert_eq!(told_h2(&answer), problem(431, "head_too_large"));
    assert!(upstream.seen().is_empty());
    // Just below both.
    let fields: Vec<_> = names[..90].iter().map(|name| (name.as_str(), "a")).collect();
    assert_eq!(proxy.client().request("GET", "/open/x", &fields, b"").status(), 200);
    assert_eq!(Wire::connect(proxy.address()).request("GET", "/open/x", &fields, b"").status(), 200);
}

#[test]
fn an_upstream_s_head_over_the_limits_is_a_502() {
    let long = "a".repeat(17_000);
    let many: String = (0..101).map(|n| format!("X-{n}: a\r\n")).collect();
    let upstream = Upstream::scripted(move |request, stream| {
        let fields = if request.target().ends_with("long") { format!("X-Long: {long}\r\n") } else { many.clone() };
        let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{fields}\r\n").as_bytes());
        Then::Keep
    });
    let two = oilskin_tests::frames::upstream(|mut wire, _| {
        let long = "a".repeat(17_000);
        let names: Vec<String> = (0..101).map(|n| format!("x-{n}")).collect();
        while let Some(stream) = wire.begun() {
            let request = wire.ended(stream);
            let mut fields = vec![(":status", "200")];
            match request.header(":path") {
                Some(path) if path.ends_with("long") => fields.push(("x-long", &long)),
                _ => fields.extend(names.iter().map(|name| (name.as_str(), "a"))),
            }
            wire.headers(stream, &fields, true);
        }
    });
    for proxy in [before(&upstream.url()).start(), h2c(two).start()] {
        for path in ["/open/many", "/x/many", "/open/long"] {
            let answer = proxy.json("GET", path, "");
            assert_eq!(answer.status(), 502, "{path}");
            assert!(
                ["upstream_invalid", "upstream_closed"].contains(&answer.code().as_str()),
                "{path} {}",
                answer.code()
            );
        }
    }
}

#[test]
fn a_stream_beyond_the_concurrent_ones_is_refused_without_harm_to_the_others() {
    let (leave, left) = channel::<()>();
    let left = Mutex::new(left);
    let upstream = Upstream::scripted(move |_, stream| {
        left.lock().unwrap().recv().unwrap();
        respond(stream, "200 OK", &[JSON], b"{}")
    });
    let proxy = before(&upstream.url()).start();
    let mut wire = Wire::connect(proxy.address());
    let streams: Vec<u32> = (0..100).map(|_| wire.begin("GET", "/open/x", &[], true)).collect();
    let beyond = wire.begin("GET", "/open/x", &[], true);
    assert_eq!(wire.ended(beyond).end, Some(End::Reset(code::REFUSED_STREAM)));
    assert_eq!(wire.max_streams, Some(100), "as it was announced");
    for _ in &streams {
        leave.send(()).unwrap();
    }
    for stream in streams {
        assert_eq!(wire.ended(stream).status(), 200);
    }
    assert_eq!(upstream.seen().len(), 100);
}

#[test]
fn connections_beyond_the_limit_wait_outside_until_one_leaves() {
    let upstream = Upstream::echo();
    let proxy = before(&upstream.url()).env("OILSKIN_LIMITS_CONNECTIONS", "3").start();
    let mut inside: Vec<Client> = (0..3).map(|_| proxy.client()).collect();
    for client in &mut inside {
        assert_eq!(client.request("GET", "/open/x", &[], b"").status(), 200);
    }
    let mut outside = proxy.client();
    outside.send("GET /open/outside HTTP/1.1\r\nHost: a\r\n\r\n");
    // Those inside are served while it waits.
    for client in &mut inside {
        for _ in 0..20 {
            assert_eq!(client.request("GET", "/open/x", &[], b"").status(), 200);
        }
    }
    assert!(upstream.seen().iter().all(|request| request.target() != "/open/outside"));
    assert!(proxy.metrics().contains("oilskin_connections{side=\"app\"} 3"), "{}", proxy.metrics());
    drop(inside.pop());
    assert_eq!(outside.response("GET").status(), 200);
}

#[test]
fn a_limit_of_connections_below_the_sockets_that_accept_is_refused_at_the_start() {
    let config = |connections: &str| {
        let vars = [
            ("OILSKIN_UPSTREAM", "http://127.0.0.1:1"),
            ("OILSKIN_LISTEN", "127.0.0.1:0"),
            ("OILSKIN_INGRESS_LISTEN", "127.0.0.1:0"),
            ("OILSKIN_APP", "http://127.0.0.1:1"),
            ("OILSKIN_ADMIN_LISTEN", "off"),
            ("OILSKIN_METRICS_LISTEN", "off"),
            ("OILSKIN_HEALTH_LISTEN", "off"),
            ("OILSKIN_WORKERS", "2"),
            ("OILSKIN_LIMITS_CONNECTIONS", connections),
        ];
        let vars = vars.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect();
        oilskin_tests::config::parse(&vars).unwrap()
    };
    // Each worker holds a permit for each listener before it accepts: with fewer, one of them would never do.
    let error = oilskin::App::check(&config("3")).unwrap_err().to_string();
    assert!(error.contains("limits.connections") && error.contains('4'), "{error}");
    assert!(oilskin::App::check(&config("4")).is_ok());
}

#[test]
fn depth_body_field_and_window_have_their_codes_on_both_sides() {
    let deep = format!("{}1{}", "[".repeat(129), "]".repeat(129));
    let fits = format!("{}1{}", "[".repeat(128), "]".repeat(128));
    let body = format!("{{\"x\":\"{}\"}}", "y".repeat(3000));
    let field = format!("{{\"ssn\":\"{}\"}}", "y".repeat(3000));
    let upstream = Upstream::echo();
    let proxy =
        before(&upstream.url()).env("OILSKIN_LIMITS_MAX_BODY", "2KiB").env("OILSKIN_LIMITS_MAX_FIELD", "1KiB").start();
    let ask = |proxy: &Proxy, path: &str, body: &str| {
        let one = told(&proxy.json("POST", path, body));
        let two = told_h2(&Wire::connect(proxy.address()).request("POST", path, &[JSON], body.as_bytes()));
        assert_eq!(one, two, "both protocols agree on {path}");
        one
    };
    assert_eq!(ask(&proxy, "/x", &deep), problem(413, "too_deep"));
    assert_eq!(ask(&proxy, "/x", &body), problem(413, "too_large"));
    assert_eq!(ask(&proxy, "/open/x", &body), problem(413, "too_large"));
    let small = format!("{{\"ssn\":\"{}\"}}", "y".repeat(1500));
    assert_eq!(ask(&proxy, "/x", &small), problem(413, "too_large"));
    // Without a length it shows only on the way, and what is held is refused all the same.
    let mut client = proxy.client();
    let head = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.send(format!("{head}{:x}\r\n{body}\r\n0\r\n\r\n", body.len()));
    assert_eq!(told(&client.response("POST")), problem(413, "too_large"));
    // An open route's body without a length is cut on its way, a protected one's is held: nothing of it was forwarded.
    assert!(upstream.seen().iter().all(|request| request.target() == "/open/x" && !request.complete));
    assert_eq!(ask(&proxy, "/x", &fits).0, 200);
    // The same in answers.
    let answers = Upstream::scripted(move |request, stream| {
        let answer = match request.target() {
            "/x/deep" => &deep,
            "/x/field" => &field,
            _ => &body,
        };
        respond(stream, "200 OK", &[JSON], answer.as_bytes())
    });
    let proxy =
        before(&answers.url()).env("OILSKIN_LIMITS_MAX_BODY", "3005B").env("OILSKIN_LIMITS_MAX_FIELD", "1KiB").start();
    let ask = |path: &str| told(&proxy.json("GET", path, ""));
    assert_eq!(ask("/x/deep"), problem(502, "too_deep"));
    assert_eq!(ask("/x/body"), problem(502, "too_large"));
    assert_eq!(ask("/open/body"), problem(502, "too_large"));
}

#[test]
fn a_record_that_is_longer_than_the_bind_window_is_refused() {
    let yaml = |url: &str| {
        format!(
            "listeners: [{{name: out, bind: 127.0.0.1:0, direction: egress}}]\nupstreams: {{up: {{url: \"{url}\"}}}}\nroutes:\n\
             - name: all\n  match: {{listener: out, path: \"/{{*rest}}\"}}\n  upstream: up\n\
             \x20 fields: [{{select: \"$[*].ssn\", context: ssn, bind: {{id: [\"@.id\"]}}}}]\nlimits: {{bind_window: 4KiB}}\n"
        )
    };
    let upstream = Upstream::echo();
    let proxy = Proxy::yaml(&yaml(&upstream.url())).start();
    let fits = format!("[{{\"ssn\":\"1\",\"x\":\"{}\",\"id\":1}}]", "y".repeat(2000));
    assert_eq!(proxy.json("POST", "/", &fits).text(), fits);
    let far = format!("\"z\":\"{}\",\"id\"", "y".repeat(3000));
    let over = fits.replace("\"id\"", &far);
    assert_eq!(told(&proxy.json("POST", "/", &over)), problem(413, "too_large"));
    assert_eq!(upstream.seen().len(), 1);
    let stored: &'static str = Box::leak(upstream.one().text().replace("\"id\"", &far).into_boxed_str());
    let reader = Proxy::yaml(&yaml(&Upstream::json(stored).url())).start();
    assert_eq!(told(&reader.json("GET", "/", "")), problem(502, "too_large"));
}

#[test]
fn what_fits_the_hold_is_sent_with_its_length_and_what_does_not_streams() {
    let upstream = Upstream::echo();
    let proxy = before(&upstream.url()).env("OILSKIN_LIMITS_HOLD_BYTES", "4KiB").start();
    for (bytes, held) in [(1000, true), (20_000, false)] {
        let body = format!("{{\"ssn\":\"1\",\"x\":\"{}\"}}", "y".repeat(bytes));
        let answer = proxy.json("POST", "/x", &body);
        assert_eq!(answer.text(), body);
        let sent = upstream.seen().pop().unwrap();
        for message in [&answer, &sent] {
            assert_eq!(message.header("content-length").is_some(), held, "{bytes} {}", message.head);
            assert_eq!(message.header("transfer-encoding").is_some(), !held, "{bytes} {}", message.head);
        }
    }
}

/// An address that takes no connection: its queue is full.
fn full() -> (SocketAddr, Vec<TcpStream>) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&any.into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let mut kept = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(500)) {
        kept.push(stream);
    }
    // It stays bound for the process' life.
    std::mem::forget(socket);
    (address, kept)
}

#[test]
fn an_upstream_that_does_not_let_us_connect_is_a_502_at_the_connect_deadline() {
    let (address, _queue) = full();
    let proxy = before(&format!("http://{address}")).env("OILSKIN_TIMEOUTS_CONNECT", "300ms").start();
    assert_eq!(told(&proxy.json("GET", "/x", "")), problem(502, "upstream_unreachable"));
    let answer = Wire::connect(proxy.address()).request("GET", "/open/x", &[], b"");
    assert_eq!(told_h2(&answer), problem(502, "upstream_unreachable"));
}

#[test]
fn heads_and_idle_connections_have_their_deadlines_over_http_2() {
    let upstream = Upstream::echo();
    let proxy =
        before(&upstream.url()).env("OILSKIN_TIMEOUTS_IDLE", "400ms").env("OILSKIN_TIMEOUTS_HEAD", "400ms").start();
    let mut half = proxy.client();
    half.send("PRI * HTTP/2.0\r\n\r\nSM");
    assert!(String::from_utf8(half.rest()).unwrap().starts_with("HTTP/1.1 408"), "half a preface");
    let mut wire = Wire::connect(proxy.address());
    assert_eq!(wire.request("GET", "/open/x", &[], b"").status(), 200);
    wire.to_the_end();
    assert_eq!(wire.goaway.map(|(_, code)| code), Some(code::NO_ERROR), "idle");
    let mut idle = proxy.client();
    assert_eq!(idle.request("GET", "/open/x", &[], b"").status(), 200);
    assert!(idle.rest().is_empty(), "idle over HTTP/1.1");
    // A head that never ends: HEADERS without END_HEADERS.
    let mut wire = Wire::connect(proxy.address());
    let block = hpack::encode(&[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/open/y")]);
    wire.send(kind::HEADERS, 1, 1, &block);
    wire.to_the_end();
    assert!(wire.closed);
    assert!(upstream.seen().iter().all(|request| request.target() != "/open/y"));
}

#[test]
fn bodies_that_stop_coming_are_told_by_their_side_over_both_protocols() {
    let upstream = Upstream::scripted(|request, stream| {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 400000\r\n\r\n{\"x\":\"";
        let more = if request.target().ends_with("long") { 200_000 } else { 10 };
        let _ = stream.write_all(format!("{head}{}", "y".repeat(more)).as_bytes());
        Then::Keep
    });
    let proxy = before(&upstream.url()).env("OILSKIN_TIMEOUTS_BODY_IDLE", "300ms").start();
    // A request: 408.
    let mut wire = Wire::connect(proxy.address());
    let stream = wire.begin("POST", "/x", &[JSON], false);
    wire.data(stream, b"{\"ssn\":", false);
    assert_eq!(told_h2(&wire.until(stream, |side| side.text().contains("request_id"))), problem(408, "body_timeout"));
    let mut client = proxy.client();
    client.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 30\r\n\r\n{\"ssn\":");
    assert_eq!(told(&client.response("POST")), problem(408, "body_timeout"));
    assert!(upstream.seen().is_empty());
    // An answer: 504, or a cut where it has begun.
    assert_eq!(told(&proxy.json("GET", "/x/short", "")), problem(504, "upstream_timeout"));
    let answer = Wire::connect(proxy.address()).request("GET", "/x/short", &[], b"");
    assert_eq!(told_h2(&answer), problem(504, "upstream_timeout"));
    for path in ["/x/long", "/open/long"] {
        let answer = proxy.json("GET", path, "");
        assert!(answer.status() == 200 && !answer.complete, "{path}");
        let answer = Wire::connect(proxy.address()).request("GET", path, &[], b"");
        assert_eq!((answer.status(), answer.end), (200, Some(End::Reset(code::CANCEL))), "{path}");
    }
}

#[test]
fn an_answer_that_does_not_begin_is_a_504_over_http_2_and_its_stream_is_reset() {
    let (say, said) = channel();
    let say = Mutex::new(say);
    let address = oilskin_tests::frames::upstream(move |mut wire, _| {
        while let Some(stream) = wire.begun() {
            while !wire.closed && !wire.reset_by_peer(stream) {
                wire.pump();
            }
            say.lock().unwrap().send(wire.reset_by_peer(stream)).unwrap();
        }
    });
    let proxy = h2c(address).env("OILSKIN_TIMEOUTS_TOTAL", "300ms").start();
    let answer = Wire::connect(proxy.address()).request("POST", "/x", &[JSON], b"{\"ssn\":1}");
    assert_eq!(told_h2(&answer), problem(504, "upstream_timeout"));
    assert!(said.recv().unwrap(), "the upstream is told that no one waits any more");
}

#[test]
fn a_body_that_drips_is_refused_after_its_grace() {
    let upstream = Upstream::echo();
    let proxy = before(&upstream.url()).env("OILSKIN_LIMITS_MIN_BODY_RATE", "10KiB").start();
    let mut client = proxy.client();
    client.send(
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{\"x\":\"",
    );
    let mut dripping = TcpStream::try_clone(client.socket()).unwrap();
    let drip = std::thread::spawn(move || {
        for _ in 0..120 {
            tools::pause(Duration::from_millis(500));
            if dripping.write_all(b"yyyyyyyyyy").is_err() {
                return;
            }
        }
    });
    assert_eq!(told(&client.response("POST")), problem(408, "body_timeout"));
    drop(client);
    drip.join().unwrap();
    assert!(upstream.seen().is_empty());
}

/// A listener that no one serves is no upstream either.
#[test]
fn an_upstream_that_closes_at_once_is_a_502_that_says_so() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            drop(stream)
        }
    });
    let proxy = before(&format!("http://{address}")).start();
    let answer = proxy.json("GET", "/x", "");
    assert_eq!(answer.status(), 502);
    assert_eq!(answer.code(), "upstream_closed");
}
