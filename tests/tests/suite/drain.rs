//! Draining the process: under load nothing that was sent is lost.

use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;

use oilskin_tests::client::json;
use oilskin_tests::frames::{End, code};
use oilskin_tests::keys::Keys;
use oilskin_tests::upstream::respond;
use oilskin_tests::{Message, Process, Upstream, Wire, tools};

const JSON: (&str, &str) = ("content-type", "application/json");
const BODY: &str = r#"{"ssn":"123-45-6789","x":[1,2,3]}"#;

fn start(upstream: &Upstream) -> Process {
    Process::start(&Keys::new(), &[("OILSKIN_UPSTREAM", &upstream.url()), ("OILSKIN_FIELDS", "$.ssn")])
}

/// What the load has seen.
#[derive(Default)]
struct Load {
    /// The signal is on its way.
    signalled: AtomicBool,
    /// The balancer has taken the process out.
    out: AtomicBool,
    answered: AtomicUsize,
    after: AtomicUsize,
}

/// Sends one request and reads its answer byte by byte: how many bytes came, and whether they are the whole right answer.
fn ask(stream: &mut TcpStream, load: &Load) -> (bool, usize, Option<Message>) {
    use std::io::Write;
    let head = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length:";
    let sent = stream.write_all(format!("{head} {}\r\n\r\n{BODY}", BODY.len()).as_bytes()).is_ok();
    // Looked at once all is sent: what was sent before the signal must be answered.
    let before = sent && !load.signalled.load(Ordering::SeqCst);
    let mut counted = Counted(stream, 0);
    let message = Message::read_response(&mut counted, "POST").ok();
    (before, counted.1, message)
}

struct Counted<'a>(&'a mut TcpStream, usize);

impl std::io::Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let got = self.0.read(buffer)?;
        self.1 += got;
        Ok(got)
    }
}

/// A client over HTTP/1.1 that keeps its connection as long as it may.
fn h1(address: SocketAddr, load: &Load) {
    while !load.out.load(Ordering::SeqCst) {
        let Ok(mut stream) = TcpStream::connect(address) else {
            assert!(load.signalled.load(Ordering::SeqCst), "refused before the signal");
            continue;
        };
        loop {
            let (before, bytes, message) = ask(&mut stream, load);
            let Some(message) = message else {
                assert!(!before && bytes == 0, "a request that was sent is lost ({bytes} bytes came)");
                break;
            };
            assert!(message.complete && message.text() == BODY, "{} {}", message.head, message.text());
            load.answered.fetch_add(1, Ordering::SeqCst);
            load.after.fetch_add(usize::from(!before), Ordering::SeqCst);
            if message.header("connection") == Some("close") || load.out.load(Ordering::SeqCst) {
                break;
            }
        }
    }
}

/// A client over HTTP/2 with four streams under way.
fn h2(address: SocketAddr, load: &Load) {
    while !load.out.load(Ordering::SeqCst) {
        let Ok(mut wire) = Wire::try_connect(address) else {
            assert!(load.signalled.load(Ordering::SeqCst), "refused before the signal");
            continue;
        };
        while wire.goaway.is_none() && !wire.closed && !load.out.load(Ordering::SeqCst) {
            let streams: Vec<u32> = (0..4).map(|_| wire.begin("POST", "/x", &[JSON], false)).collect();
            for stream in &streams {
                wire.data(*stream, BODY.as_bytes(), true);
            }
            let before = !load.signalled.load(Ordering::SeqCst);
            for stream in streams {
                let answer = wire.ended(stream);
                // What a GOAWAY leaves out was not processed: a balancer sends it elsewhere.
                let left_out = wire.goaway.is_some_and(|(last, _)| stream > last);
                if !before && (left_out || answer.end == Some(End::Closed) && answer.head.is_empty()) {
                    continue;
                }
                assert!(answer.whole() && answer.text() == BODY, "{answer:?} {:?}", wire.goaway);
                load.answered.fetch_add(1, Ordering::SeqCst);
            }
        }
        if let Some((_, code)) = wire.goaway {
            assert_eq!(code, code::NO_ERROR);
        }
    }
}

#[test]
fn sigterm_under_load_over_both_protocols_loses_no_request() {
    let upstream = Upstream::echo();
    for _ in 0..3 {
        let mut process = start(&upstream);
        let load = Load::default();
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| h1(process.address(), &load));
                scope.spawn(|| h2(process.address(), &load));
            }
            // The balancer takes it out once it says that it is not ready.
            tools::until("load", || (load.answered.load(Ordering::SeqCst) > 300).then_some(()));
            load.signalled.store(true, Ordering::SeqCst);
            process.signal("TERM");
            tools::until("readiness to go off", || {
                let Ok(stream) = TcpStream::connect(process.health) else { return Some(()) };
                let mut client = oilskin_tests::Client::over(stream);
                client.try_send("GET /ready HTTP/1.1\r\nHost: a\r\n\r\n").ok()?;
                let off = client.try_response("GET").map_or(true, |answer| answer.status() == 503);
                off.then_some(())
            });
            load.out.store(true, Ordering::SeqCst);
        });
        assert_eq!(process.ended(), Some(0), "nothing was cut: {:?}", process.log());
    }
}

#[test]
fn one_that_waits_outside_with_its_request_sent_is_answered_when_the_drain_makes_room() {
    let upstream = Upstream::echo();
    let proxy = oilskin_tests::Proxy::before(&upstream)
        .fields("$.ssn")
        .env("OILSKIN_WORKERS", "1")
        .env("OILSKIN_LIMITS_CONNECTIONS", "1")
        .start();
    let mut inside = proxy.client();
    assert_eq!(inside.request("POST", "/x", &[JSON], BODY.as_bytes()).text(), BODY);
    // Connected by the kernel, accepted by no one yet.
    let mut outside = proxy.client();
    let head = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length:";
    outside.send(format!("{head} {}\r\n\r\n{BODY}", BODY.len()));
    proxy.running().stopper().drain();
    let answer = outside.response("POST");
    assert_eq!((answer.text().as_str(), answer.header("connection")), (BODY, Some("close")));
    assert!(inside.rest().is_empty());
    assert_eq!(proxy.drain(), 0);
}

#[test]
fn readiness_goes_off_at_once_while_what_is_in_work_ends_and_liveness_stays() {
    let (enter, inside) = channel();
    let (leave, left) = channel::<()>();
    let (enter, left) = (Mutex::new(enter), Mutex::new(left));
    let upstream = Upstream::scripted(move |request, stream| {
        enter.lock().unwrap().send(()).unwrap();
        left.lock().unwrap().recv().unwrap();
        respond(stream, "200 OK", &[JSON], &request.body)
    });
    let mut process = start(&upstream);
    assert_eq!(json(process.health, "GET", "/ready", "").status(), 200);
    let mut client = oilskin_tests::Client::connect(process.address());
    client.send(format!(
        "POST /x HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{BODY}",
        BODY.len()
    ));
    let mut wire = Wire::connect(process.address());
    let stream = wire.begin("POST", "/x", &[JSON], false);
    wire.data(stream, BODY.as_bytes(), true);
    for _ in 0..2 {
        inside.recv().unwrap();
    }
    process.signal("TERM");
    let unready = tools::until("readiness to go off", || {
        let answer = json(process.health, "GET", "/ready", "");
        (answer.status() == 503).then_some(answer)
    });
    assert!(unready.text().contains("draining"), "{}", unready.text());
    assert_eq!(json(process.health, "GET", "/live", "").status(), 200);
    assert!(process.metrics_page().contains("oilskin_requests_total"));
    tools::until("the listener to close", || TcpStream::connect(process.address()).err());
    assert!(process.runs());
    for _ in 0..2 {
        leave.send(()).unwrap();
    }
    let answer = client.response("POST");
    assert_eq!((answer.text().as_str(), answer.header("connection")), (BODY, Some("close")));
    let answer = wire.ended(stream);
    assert!(answer.whole() && answer.text() == BODY);
    wire.to_the_end();
    assert_eq!(wire.goaway, Some((stream, code::NO_ERROR)), "what was in work is what the GOAWAY names");
    assert_eq!(process.ended(), Some(0));
}

/// A request whose head was taken and whose body is still due.
fn half(process: &Process) -> oilskin_tests::Client {
    let mut client = oilskin_tests::Client::connect(process.address());
    let head =
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length:";
    client.send(format!("{head} {}\r\n\r\n", BODY.len()));
    let mut interim = Vec::new();
    client.read_until(b"\r\n\r\n", &mut interim);
    assert!(interim.starts_with(b"HTTP/1.1 100"));
    client
}

#[test]
fn the_first_signal_lets_a_request_end_whose_body_is_still_due() {
    for signal in ["TERM", "INT"] {
        let mut process = start(&Upstream::echo());
        let mut client = half(&process);
        process.signal(signal);
        process.logged(|line| line.contains("draining"));
        assert!(process.runs(), "it waits for the request");
        client.send(BODY);
        let answer = client.response("POST");
        assert_eq!((answer.status(), answer.text().as_str()), (200, BODY));
        assert_eq!(process.ended(), Some(0));
    }
}

#[test]
fn a_drain_below_a_second_is_told_as_it_is() {
    let upstream = Upstream::echo();
    let vars = [("OILSKIN_UPSTREAM", upstream.url()), ("OILSKIN_DRAIN", "300ms".to_owned())];
    let mut process = Process::start(&Keys::new(), &vars.each_ref().map(|(name, value)| (*name, value.as_str())));
    process.signal("TERM");
    process.logged(|line| line.contains("draining") && line.contains("\"drain_ms\":300"));
    assert_eq!(process.ended(), Some(0));
}

#[test]
fn a_second_signal_cuts_a_request_whose_body_is_still_due() {
    let upstream = Upstream::echo();
    let mut process = start(&upstream);
    let mut client = half(&process);
    process.signal("TERM");
    process.logged(|line| line.contains("draining"));
    process.signal("TERM");
    assert_eq!(process.ended(), Some(1), "something was cut");
    assert!(client.rest().is_empty() && upstream.seen().is_empty());
}

#[test]
fn a_second_signal_cuts_what_is_in_work_over_http_2() {
    let (enter, inside) = channel();
    let enter = Mutex::new(enter);
    let upstream = Upstream::scripted(move |_, stream| {
        enter.lock().unwrap().send(()).unwrap();
        // Never answers: ends with its connection.
        let _ = std::io::copy(stream, &mut std::io::sink());
        oilskin_tests::upstream::Then::Close
    });
    let mut process = start(&upstream);
    let mut wire = Wire::connect(process.address());
    let stream = wire.begin("GET", "/x", &[], true);
    inside.recv().unwrap();
    process.signal("TERM");
    process.logged(|line| line.contains("draining"));
    assert!(process.runs());
    process.signal("TERM");
    assert_eq!(process.ended(), Some(1));
    assert!(!wire.ended(stream).whole());
    process.logged(|line| line.contains("ended with requests in work"));
}
