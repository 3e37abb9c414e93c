//! HTTP/2, frame by frame, as client and as server: what a peer really said, down to its error codes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crate::hpack::{Decoder, Fields, encode};

/// Frame types (RFC 9113, section 6).
pub mod kind {
    #![allow(missing_docs, reason = "the names of RFC 9113")]
    pub const DATA: u8 = 0;
    pub const HEADERS: u8 = 1;
    pub const RST_STREAM: u8 = 3;
    pub const SETTINGS: u8 = 4;
    pub const PING: u8 = 6;
    pub const GOAWAY: u8 = 7;
    pub const WINDOW_UPDATE: u8 = 8;
    pub const CONTINUATION: u8 = 9;
}

/// Error codes (RFC 9113, section 7).
pub mod code {
    #![allow(missing_docs, reason = "the names of RFC 9113")]
    pub const NO_ERROR: u32 = 0;
    pub const PROTOCOL_ERROR: u32 = 1;
    pub const INTERNAL_ERROR: u32 = 2;
    pub const REFUSED_STREAM: u32 = 7;
    pub const CANCEL: u32 = 8;
}

const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const ACK: u8 = 1;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;

/// Largest frame we send; every peer takes it.
const FRAME: usize = 16384;

/// One frame.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream.
    pub stream: u32,
    /// Its payload.
    pub payload: Vec<u8>,
}

/// How a peer ended its side of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// END_STREAM.
    Whole,
    /// RST_STREAM with this code.
    Reset(u32),
    /// The connection went.
    Closed,
}

/// What a peer sent on one stream.
#[derive(Debug, Clone, Default)]
pub struct Side {
    /// Its head.
    pub head: Fields,
    /// Its body.
    pub body: Vec<u8>,
    /// Its trailers.
    pub trailers: Fields,
    /// How it ended, if it did.
    pub end: Option<End>,
}

impl Side {
    /// A field of its head.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }

    /// The status of a response.
    pub fn status(&self) -> u16 {
        self.header(":status").and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Whether it ended, and ended whole.
    pub fn whole(&self) -> bool {
        self.end == Some(End::Whole)
    }
}

/// A connection.
#[derive(Debug)]
pub struct Wire {
    reader: BufReader<TcpStream>,
    decoder: Decoder,
    streams: BTreeMap<u32, Side>,
    taken: BTreeSet<u32>,
    resets: BTreeMap<u32, u32>,
    window: i64,
    windows: BTreeMap<u32, i64>,
    first_window: i64,
    next: u32,
    /// The peer's GOAWAY: its last stream and its code.
    pub goaway: Option<(u32, u32)>,
    /// The peer's SETTINGS_MAX_CONCURRENT_STREAMS.
    pub max_streams: Option<u32>,
    /// The peer has closed the connection.
    pub closed: bool,
}

impl Wire {
    /// Connects as a client by prior knowledge.
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap()
    }

    /// Connects to what may not be there.
    ///
    /// # Errors
    /// What the socket says.
    pub fn try_connect(address: SocketAddr) -> io::Result<Self> {
        let mut wire = Self::over(TcpStream::connect(address)?);
        wire.reader.get_mut().write_all(PREFACE)?;
        wire.send(kind::SETTINGS, 0, 0, &[]);
        Ok(wire)
    }

    /// Takes a connection as a server.
    ///
    /// # Errors
    /// It does not begin with HTTP/2's preface.
    pub fn accept(stream: TcpStream) -> io::Result<Self> {
        let mut wire = Self::over(stream);
        let mut preface = [0; 24];
        wire.reader.read_exact(&mut preface)?;
        if preface != *PREFACE {
            return Err(io::ErrorKind::InvalidData.into());
        }
        wire.send(kind::SETTINGS, 0, 0, &[]);
        Ok(wire)
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Self {
            reader: BufReader::new(stream),
            decoder: Decoder::default(),
            streams: BTreeMap::new(),
            taken: BTreeSet::new(),
            resets: BTreeMap::new(),
            window: 65535,
            windows: BTreeMap::new(),
            first_window: 65535,
            next: 1,
            goaway: None,
            max_streams: None,
            closed: false,
        }
    }

    /// The socket.
    pub fn socket(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    /// Sends one frame; a peer that is gone shows when reading.
    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        frame.extend_from_slice(&[kind, flags]);
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(payload);
        let _ = self.reader.get_mut().write_all(&frame);
    }

    /// Sends a head or trailers.
    pub fn headers(&mut self, stream: u32, fields: &[(&str, &str)], end: bool) {
        self.windows.entry(stream).or_insert(self.first_window);
        let block = encode(fields);
        let mut pieces = block.chunks(FRAME).peekable();
        let mut kind = kind::HEADERS;
        let mut flags = if end { END_STREAM } else { 0 };
        while let Some(piece) = pieces.next() {
            flags |= if pieces.peek().is_none() { END_HEADERS } else { 0 };
            self.send(kind, flags, stream, piece);
            (kind, flags) = (kind::CONTINUATION, 0);
        }
    }

    /// Begins a request and returns its stream.
    pub fn begin(&mut self, method: &str, path: &str, fields: &[(&str, &str)], end: bool) -> u32 {
        let stream = self.next;
        self.next += 2;
        let mut all = vec![(":method", method), (":scheme", "http"), (":authority", "app.test"), (":path", path)];
        all.extend_from_slice(fields);
        self.headers(stream, &all, end);
        stream
    }

    /// Sends a body, as fast as the peer gives room. Stops early where the peer ends the stream.
    pub fn data(&mut self, stream: u32, bytes: &[u8], end: bool) {
        let mut left = bytes;
        while !left.is_empty() {
            let room = self.window.min(self.windows.get(&stream).copied().unwrap_or(self.first_window));
            if room <= 0 {
                if self.pump().is_none() || self.resets.contains_key(&stream) {
                    return;
                }
                continue;
            }
            let (piece, rest) = left.split_at(left.len().min(FRAME).min(room as usize));
            self.window -= piece.len() as i64;
            *self.windows.entry(stream).or_insert(self.first_window) -= piece.len() as i64;
            left = rest;
            self.send(kind::DATA, if end && rest.is_empty() { END_STREAM } else { 0 }, stream, piece);
        }
        if bytes.is_empty() && end {
            self.send(kind::DATA, END_STREAM, stream, &[]);
        }
    }

    /// Resets a stream.
    pub fn reset(&mut self, stream: u32, code: u32) {
        self.send(kind::RST_STREAM, 0, stream, &code.to_be_bytes());
    }

    /// Says that streams above `last` are not processed.
    pub fn go_away(&mut self, last: u32, code: u32) {
        self.send(kind::GOAWAY, 0, 0, &[last.to_be_bytes(), code.to_be_bytes()].concat());
    }

    /// One whole request, and what came back.
    pub fn request(&mut self, method: &str, path: &str, fields: &[(&str, &str)], body: &[u8]) -> Side {
        let stream = self.begin(method, path, fields, body.is_empty());
        if !body.is_empty() {
            self.data(stream, body, true);
        }
        self.ended(stream)
    }

    /// Reads until the peer has ended this stream.
    pub fn ended(&mut self, stream: u32) -> Side {
        self.until(stream, |side| side.end.is_some())
    }

    /// Reads until what came on this stream is enough, or it ended.
    pub fn until(&mut self, stream: u32, enough: impl Fn(&Side) -> bool) -> Side {
        loop {
            let side = self.streams.entry(stream).or_default();
            if enough(side) || side.end.is_some() {
                return side.clone();
            } else if self.pump().is_none() {
                self.streams.entry(stream).or_default().end.get_or_insert(End::Closed);
            }
        }
    }

    /// Whether a reset of this stream with CANCEL has been read, even behind the end of the peer's message.
    pub fn reset_by_peer(&self, stream: u32) -> bool {
        self.resets.get(&stream) == Some(&code::CANCEL)
    }

    /// Reads until the peer has begun a stream that was not returned before, and returns its number.
    pub fn begun(&mut self) -> Option<u32> {
        loop {
            if let Some(stream) = self.streams.keys().find(|stream| !self.taken.contains(stream)).copied() {
                self.taken.insert(stream);
                return Some(stream);
            }
            self.pump()?;
        }
    }

    /// Reads until the peer closes.
    pub fn to_the_end(&mut self) {
        while self.pump().is_some() {}
    }

    /// Reads one frame and does what it asks for; none once the peer has closed.
    pub fn pump(&mut self) -> Option<Frame> {
        let frame = match self.read() {
            Ok(frame) => frame,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                panic!("the peer says nothing")
            }
            Err(_) => {
                self.closed = true;
                return None;
            }
        };
        self.take(&frame);
        Some(frame)
    }

    fn read(&mut self) -> io::Result<Frame> {
        let mut head = [0; 9];
        self.reader.read_exact(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
        let mut payload = vec![0; length as usize];
        self.reader.read_exact(&mut payload)?;
        let mut frame = Frame { kind: head[3], flags: head[4], stream, payload };
        if frame.kind == kind::HEADERS {
            while frame.flags & END_HEADERS == 0 {
                let more = self.read()?;
                frame.flags |= more.flags & END_HEADERS;
                frame.payload.extend_from_slice(&more.payload);
            }
        }
        Ok(frame)
    }

    fn take(&mut self, frame: &Frame) {
        let number =
            |at: usize| frame.payload.get(at..at + 4).map_or(0, |four| u32::from_be_bytes(four.try_into().unwrap()));
        match frame.kind {
            kind::SETTINGS if frame.flags & ACK == 0 => {
                for (name, value) in frame.payload.chunks_exact(6).map(|six| (six[1], &six[2..])) {
                    let value = u32::from_be_bytes(value.try_into().unwrap());
                    match name {
                        3 => self.max_streams = Some(value),
                        4 => {
                            let more = i64::from(value) - self.first_window;
                            self.first_window = i64::from(value);
                            self.windows.values_mut().for_each(|window| *window += more);
                        }
                        _ => {}
                    }
                }
                self.send(kind::SETTINGS, ACK, 0, &[]);
            }
            kind::PING if frame.flags & ACK == 0 => self.send(kind::PING, ACK, 0, &frame.payload),
            kind::GOAWAY => self.goaway = Some((number(0), number(4))),
            kind::WINDOW_UPDATE if frame.stream == 0 => self.window += i64::from(number(0)),
            kind::WINDOW_UPDATE => {
                *self.windows.entry(frame.stream).or_insert(self.first_window) += i64::from(number(0));
            }
            kind::RST_STREAM => {
                self.resets.insert(frame.stream, number(0));
                self.streams.entry(frame.stream).or_default().end.get_or_insert(End::Reset(number(0)));
            }
            kind::DATA | kind::HEADERS => self.message(frame),
            _ => {}
        }
    }

    fn message(&mut self, frame: &Frame) {
        let padding = if frame.flags & PADDED == 0 { 0 } else { usize::from(frame.payload[0]) + 1 };
        let start = usize::from(padding > 0);
        let end = frame.payload.len() - padding.saturating_sub(1);
        let content = &frame.payload[start..end];
        if frame.kind == kind::HEADERS {
            let fields = self.decoder.decode(&content[if frame.flags & PRIORITY == 0 { 0 } else { 5 }..]);
            let side = self.streams.entry(frame.stream).or_default();
            if side.head.is_empty() { side.head = fields } else { side.trailers = fields }
        } else {
            self.streams.entry(frame.stream).or_default().body.extend_from_slice(content);
            if !frame.payload.is_empty() {
                let grant = (frame.payload.len() as u32).to_be_bytes();
                self.send(kind::WINDOW_UPDATE, 0, 0, &grant);
                self.send(kind::WINDOW_UPDATE, 0, frame.stream, &grant);
            }
        }
        if frame.flags & END_STREAM != 0 {
            self.streams.entry(frame.stream).or_default().end.get_or_insert(End::Whole);
        }
    }
}

/// An upstream that speaks HTTP/2 in clear text; each connection is served by `serve`, with its number from 0 on.
pub fn upstream(serve: impl Fn(Wire, usize) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
            let serve = Arc::clone(&serve);
            thread::spawn(move || {
                if let Ok(wire) = Wire::accept(stream) {
                    serve(wire, number);
                }
            });
        }
    });
    address
}
