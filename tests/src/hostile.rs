//! What stands between us and a server, and behaves as badly as it is told: an address that is good, then is not, and is again.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use crate::{Message, tools};

/// Between two bytes of a slow answer.
const DRIP: Duration = Duration::from_millis(100);

/// How it behaves.
#[derive(Debug, Clone)]
pub enum Mood {
    /// It passes bytes on, to the server that it stands before and back.
    Good,
    /// To another server.
    Elsewhere(SocketAddr),
    /// Every request has this for an answer, and its connection goes on.
    Says(Vec<u8>),
    /// Every request has this and then silence.
    Stops(Vec<u8>),
    /// Every request has a head, then a byte of a body now and then, without end.
    Drips,
    /// Every request has ten gigabytes for an answer.
    Floods,
    /// Every connection has this at once and then its end, whatever is asked.
    Throws(Vec<u8>),
    /// As a machine that is gone: nothing is read, said or ended any more, neither here nor on the connections that there are.
    Dead,
}

/// An address before a server; its threads end with the process.
#[derive(Debug, Clone)]
pub struct Hostile {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    mood: Mood,
    server: SocketAddr,
    open: Vec<Open>,
}

/// A connection under one mood.
#[derive(Debug, Clone)]
struct Open {
    client: Arc<TcpStream>,
    is_dead: Arc<AtomicBool>,
}

impl Open {
    /// No byte passes any more, and nobody hears of it.
    fn is_dead(&self) -> bool {
        self.is_dead.load(Ordering::SeqCst)
    }
}

impl Hostile {
    /// Before that server, and good so far.
    pub fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State { mood: Mood::Good, server, open: Vec::new() }));
        let this = Self { address, state: Arc::clone(&state) };
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let mut state = state.lock().unwrap();
                let open = Open { client: Arc::new(client), is_dead: Arc::default() };
                // Those of before stay as they are for as long as the test runs: whoever waits on them waits in vain.
                state.open.push(open.clone());
                let (mood, server) = (state.mood.clone(), state.server);
                thread::spawn(move || serve(&open, mood, server));
            }
        });
        this
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Behaves so from now on. Connections of before end, but for [`Mood::Dead`], which nobody tells them of.
    pub fn turn(&self, mood: Mood) {
        let mut state = self.state.lock().unwrap();
        for open in &state.open {
            match mood {
                Mood::Dead => open.is_dead.store(true, Ordering::SeqCst),
                _ if open.is_dead() => {}
                _ => drop(open.client.shutdown(Shutdown::Both)),
            }
        }
        state.mood = mood;
    }
}

fn serve(open: &Open, mood: Mood, server: SocketAddr) {
    match mood {
        Mood::Good => splice(open, server),
        Mood::Elsewhere(server) => splice(open, server),
        Mood::Throws(bytes) => {
            let _ = (&*open.client).write_all(&bytes);
            let _ = open.client.shutdown(Shutdown::Both);
        }
        Mood::Dead => open.is_dead.store(true, Ordering::SeqCst),
        Mood::Says(_) | Mood::Stops(_) | Mood::Drips | Mood::Floods => answer(open, &mood),
    }
}

/// Answers requests until that fails.
fn answer(open: &Open, mood: &Mood) {
    let mut stream: &TcpStream = &open.client;
    while let Ok(request) = Message::read_request(&mut stream) {
        if !request.complete || open.is_dead() {
            return;
        }
        let said = match mood {
            Mood::Says(bytes) => stream.write_all(bytes),
            // The thread ends here, the connection does not.
            Mood::Stops(bytes) => return drop(stream.write_all(bytes)),
            Mood::Drips => without_end(stream, b"1\r\n \r\n", DRIP),
            _ => without_end(stream, &[b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat(), Duration::ZERO),
        };
        if said.is_err() {
            return;
        }
    }
}

/// A body of such chunks: until 10 GB or nobody reads.
fn without_end(mut stream: &TcpStream, chunk: &[u8], pause: Duration) -> std::io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    for _ in 0..10_000_000_000 / chunk.len() {
        stream.write_all(chunk)?;
        tools::pause(pause);
    }
    Ok(())
}

fn splice(open: &Open, server: SocketAddr) {
    let Ok(server) = TcpStream::connect(server) else {
        let _ = open.client.shutdown(Shutdown::Both);
        return;
    };
    let server = Arc::new(server);
    let (there, back) = (open.clone(), open.clone());
    let (to, from) = (Arc::clone(&server), server);
    thread::spawn(move || pass(&there.client, &to, &there));
    pass(&from, &back.client, &back);
}

fn pass(mut from: &TcpStream, mut to: &TcpStream, open: &Open) {
    let mut room = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut room) {
        if open.is_dead() {
            return;
        }
        if to.write_all(&room[..count]).is_err() {
            break;
        }
    }
    if !open.is_dead() {
        let _ = to.shutdown(Shutdown::Both);
    }
}
