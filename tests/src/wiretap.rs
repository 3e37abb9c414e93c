//! A wire that keeps what passes over it: to see in the clear part of a handshake what neither side tells.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// The random of a ServerHello that asks for another ClientHello (RFC 8446, 4.1.3).
const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2, 0xa2, 0x11,
    0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

/// Its threads end with the process.
#[derive(Debug, Clone)]
pub struct Wiretap {
    address: SocketAddr,
    answers: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Wiretap {
    /// Before a server.
    pub fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let this = Self { address: listener.local_addr().unwrap(), answers: Arc::default() };
        let answers = Arc::clone(&this.answers);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(server) else { continue };
                let place = {
                    let mut answers = answers.lock().unwrap();
                    answers.push(Vec::new());
                    answers.len() - 1
                };
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || pass(from, to, |_| {}));
                let answers = Arc::clone(&answers);
                thread::spawn(move || {
                    pass(server, client, |bytes| answers.lock().unwrap()[place].extend_from_slice(bytes));
                });
            }
        });
        this
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Of each connection so far, whether the server asked for a second hello.
    pub fn retried(&self) -> Vec<bool> {
        let answers = self.answers.lock().unwrap();
        // Record header 5, message header 4, version 2, then the random.
        answers.iter().filter_map(|bytes| bytes.get(11..43)).map(|random| random == RETRY).collect()
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, mut seen: impl FnMut(&[u8])) {
    let mut room = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut room) {
        seen(&room[..count]);
        if to.write_all(&room[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
