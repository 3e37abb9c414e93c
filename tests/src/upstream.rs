//! An upstream that keeps the raw bytes of what it was sent and answers what a test tells it to.

use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::Message;

/// What becomes of a connection after an answer.
pub enum Then {
    /// It serves the next request.
    Keep,
    /// It is closed.
    Close,
}

type Answer = dyn Fn(&Message, &mut TcpStream) -> Then + Send + Sync;

/// A running upstream; its threads end with the process.
#[derive(Clone)]
pub struct Upstream {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Message>>>,
    connections: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
}

impl Upstream {
    /// Answers every request by `answer`, which may write anything.
    pub fn scripted(answer: impl Fn(&Message, &mut TcpStream) -> Then + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let answer: Arc<Answer> = Arc::new(answer);
        let this = Self { address, seen, connections: Arc::default(), open: Arc::default() };
        let served = this.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (answer, served) = (Arc::clone(&answer), served.clone());
                served.connections.fetch_add(1, Ordering::SeqCst);
                served.open.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || {
                    serve(stream, &*answer, &served.seen);
                    served.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        this
    }

    /// Answers 200 with the body and content type of the request, or `{}` where it had none.
    pub fn echo() -> Self {
        Self::scripted(|request, stream| {
            let body = if request.body.is_empty() { b"{}" } else { request.body.as_slice() };
            let kind = request.header("content-type").unwrap_or("application/json");
            respond(stream, "200 OK", &[("Content-Type", kind)], body)
        })
    }

    /// Answers the same JSON every time.
    pub fn json(body: &'static str) -> Self {
        Self::scripted(move |_, stream| {
            respond(stream, "200 OK", &[("Content-Type", "application/json")], body.as_bytes())
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many connections were ever made to it.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// How many of them are open now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// What it was sent so far.
    pub fn seen(&self) -> Vec<Message> {
        self.seen.lock().unwrap().clone()
    }

    /// The one request it was sent.
    pub fn one(&self) -> Message {
        let seen = self.seen();
        assert_eq!(seen.len(), 1, "the upstream was sent {} requests", seen.len());
        seen.into_iter().next().unwrap()
    }
}

fn serve(stream: TcpStream, answer: &Answer, kept: &Mutex<Vec<Message>>) {
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    while let Ok(request) = Message::read_request(&mut reader) {
        let complete = request.complete;
        kept.lock().unwrap().push(request.clone());
        if !complete {
            return;
        }
        if matches!(answer(&request, &mut writer), Then::Close) {
            let _ = writer.shutdown(std::net::Shutdown::Both);
            return;
        }
    }
}

/// Writes a whole response and keeps the connection.
pub fn respond(stream: &mut TcpStream, status: &str, fields: &[(&str, &str)], body: &[u8]) -> Then {
    let mut head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in fields {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    match stream.write_all(&[head.as_bytes(), body].concat()) {
        Ok(()) => Then::Keep,
        Err(_) => Then::Close,
    }
}
