//! A client that sends exactly the bytes it is given.

use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use crate::Message;

/// How long a test waits for an answer before it counts as missing.
const PATIENCE: Duration = Duration::from_secs(20);

/// One connection.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    /// Connects.
    pub fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).unwrap())
    }

    /// Over a connection that is there.
    pub fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { reader: BufReader::new(stream) }
    }

    /// The socket.
    pub fn socket(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.reader.get_mut().write_all(bytes.as_ref()).unwrap();
        self
    }

    /// Sends what may meet a closed connection.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes.as_ref())
    }

    /// Reads the response to a request of `method`.
    pub fn response(&mut self, method: &str) -> Message {
        Message::read_response(&mut self.reader, method).unwrap()
    }

    /// Reads the response, or what became of it.
    ///
    /// # Errors
    /// What the socket says.
    pub fn try_response(&mut self, method: &str) -> io::Result<Message> {
        Message::read_response(&mut self.reader, method)
    }

    /// Reads up to and including `end`.
    pub fn read_until(&mut self, end: &[u8], into: &mut Vec<u8>) {
        let mut one = [0];
        while !into.ends_with(end) {
            self.reader.read_exact(&mut one).unwrap();
            into.push(one[0]);
        }
    }

    /// No more bytes from this side.
    pub fn finish(&mut self) {
        self.reader.get_mut().shutdown(Shutdown::Write).unwrap();
    }

    /// Whatever comes until the other side closes.
    pub fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        // A reset ends it as well as a close does.
        let _ = self.reader.read_to_end(&mut rest);
        rest
    }

    /// One request with a body, over this connection.
    pub fn request(&mut self, method: &str, target: &str, fields: &[(&str, &str)], body: &[u8]) -> Message {
        let mut head = format!("{method} {target} HTTP/1.1\r\nHost: app.test\r\n");
        for (name, value) in fields {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        self.send([head.as_bytes(), body].concat());
        self.response(method)
    }
}

/// One JSON request over a fresh connection.
pub fn json(address: SocketAddr, method: &str, target: &str, body: &str) -> Message {
    let fields: &[_] = if body.is_empty() { &[] } else { &[("Content-Type", "application/json")] };
    Client::connect(address).request(method, target, fields, body.as_bytes())
}
