//! Failing: deadlines, retries, draining.

use std::io::Write;
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use oilskin_tests::upstream::{Then, respond};
use oilskin_tests::{Proxy, Upstream, tools};

#[test]
fn an_upstream_that_is_not_there_is_a_502_that_says_so() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let proxy = Proxy::yaml(&format!(
        "listeners: [{{name: out, bind: 127.0.0.1:0, direction: egress}}]\nupstreams: {{up: {{url: \"http://{free}\"}}}}\nroutes:\n\
         - {{name: all, match: {{listener: out, path: \"/{{*rest}}\"}}, upstream: up}}\n"
    ))
    .start();
    let answer = proxy.json("GET", "/", "");
    assert_eq!((answer.status(), answer.code().as_str()), (502, "upstream_unreachable"));
}

#[test]
fn an_upstream_that_does_not_answer_is_a_504_in_time() {
    let upstream = Upstream::scripted(|_, _| Then::Keep);
    let proxy = Proxy::before(&upstream).env("OILSKIN_TIMEOUTS_TOTAL", "300ms").start();
    let answer = proxy.json("GET", "/", "");
    assert_eq!((answer.status(), answer.code().as_str()), (504, "upstream_timeout"));
}

#[test]
fn a_body_that_stops_coming_is_a_408() {
    let upstream = Upstream::echo();
    let proxy = Proxy::before(&upstream).fields("$.ssn").env("OILSKIN_TIMEOUTS_BODY_IDLE", "300ms").start();
    let mut client = proxy.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 30\r\n\r\n{\"ssn\":");
    let answer = client.response("POST");
    assert_eq!((answer.status(), answer.code().as_str()), (408, "body_timeout"));
    assert!(upstream.seen().is_empty());
}

#[test]
fn a_head_that_does_not_end_is_closed_with_a_bare_408() {
    let upstream = Upstream::echo();
    let proxy = Proxy::before(&upstream).env("OILSKIN_TIMEOUTS_HEAD", "300ms").start();
    for start in ["P", "POST / HTTP/1.1\r\nHost: a\r\n"] {
        let mut client = proxy.client();
        client.send(start);
        let rest = String::from_utf8(client.rest()).unwrap();
        assert!(rest.starts_with("HTTP/1.1 408"), "{rest:?}");
    }
    assert!(upstream.seen().is_empty());
}

#[test]
fn a_connection_that_the_upstream_closed_meanwhile_costs_the_app_nothing() {
    // Every answer is followed by a close that the proxy only sees when it wants to send again.
    let upstream = Upstream::scripted(|_, stream| {
        respond(stream, "200 OK", &[("Content-Type", "application/json")], b"{}");
        Then::Close
    });
    let proxy = Proxy::before(&upstream).fields("$.ssn").start();
    let mut client = proxy.client();
    for _ in 0..50 {
        let answer = client.request("POST", "/", &[("Content-Type", "application/json")], br#"{"ssn":1}"#);
        assert_eq!(answer.status(), 200, "{}", answer.text());
        // A close that crosses the next request on its way is another matter: that one may have been processed.
        tools::until("the upstream's close", || (upstream.open() == 0).then_some(()));
    }
}

#[test]
fn a_request_that_may_have_been_processed_is_never_sent_twice() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let upstream = Upstream::scripted(move |_, _| {
        counted.fetch_add(1, Ordering::SeqCst);
        Then::Close
    });
    let proxy = Proxy::before(&upstream).fields("$.ssn").start();
    let answer = proxy.json("POST", "/", r#"{"ssn":1}"#);
    assert_eq!((answer.status(), answer.code().as_str()), (502, "upstream_closed"));
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[test]
fn keys_that_are_not_held_are_a_503_on_protected_routes_only() {
    let upstream = Upstream::echo();
    let proxy = Proxy::yaml(&format!(
        "listeners: [{{name: out, bind: 127.0.0.1:0, direction: egress}}]\nupstreams: {{up: {{url: \"{}\"}}}}\nroutes:\n\
         - {{name: open, match: {{listener: out, path: /open}}, upstream: up}}\n\
         - {{name: shut, match: {{listener: out, path: /shut}}, upstream: up, fields: [{{select: $.ssn, keyset: missing}}]}}\n",
        upstream.url()
    ))
    .start();
    assert_eq!(proxy.json("POST", "/open", r#"{"ssn":"1"}"#).status(), 200);
    let answer = proxy.json("POST", "/shut", r#"{"ssn":"1"}"#);
    assert_eq!((answer.status(), answer.code().as_str()), (503, "key_unavailable"));
    assert!(answer.header("retry-after").is_some());
    assert_eq!(upstream.seen().len(), 1);
}

#[test]
fn a_drain_lets_requests_end_and_takes_no_new_ones() {
    let both = Arc::new(Barrier::new(2));
    let reached = Arc::clone(&both);
    let upstream = Upstream::scripted(move |_, stream| {
        reached.wait();
        // Answered only once the drain has begun.
        reached.wait();
        respond(stream, "200 OK", &[("Content-Type", "application/json")], b"{}")
    });
    // One worker: that it has closed the idle connection says that the other has its order, too.
    let proxy = Proxy::before(&upstream).env("OILSKIN_WORKERS", "1").start();
    let mut client = proxy.client();
    let mut idle = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    both.wait();
    proxy.running().stopper().drain();
    assert!(idle.rest().is_empty(), "an idle connection is closed");
    both.wait();
    let answer = client.response("GET");
    assert_eq!((answer.status(), answer.header("connection")), (200, Some("close")));
    let address = proxy.address();
    assert_eq!(proxy.drain(), 0, "nothing was cut");
    assert!(std::net::TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_err());
}

#[test]
fn what_does_not_end_in_the_drain_time_is_cut_and_counted() {
    let upstream = Upstream::scripted(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
        Then::Keep
    });
    let proxy = Proxy::before(&upstream).env("OILSKIN_DRAIN", "200ms").start();
    let mut client = proxy.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut first = Vec::new();
    client.read_until(b"x\r\n", &mut first);
    assert_eq!(proxy.drain(), 1);
    assert!(!client.rest().ends_with(b"0\r\n\r\n"), "the app sees that it was cut");
}
