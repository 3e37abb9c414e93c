//! What a server in the place of AWS may do to a caller besides saying no.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::tools;
use crate::upstream::{Then, respond};

/// Stands in every body of these, and must stand nowhere else.
pub const CANARY: &str = "canary-of-a-hostile-body";

/// One way to harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// This status and error code, as AWS sends them.
    Error(&'static str, &'static str),
    /// This status with a page for people, as something in between sends it.
    Page(&'static str),
    /// No answer.
    Hang,
    /// An answer, a byte at a time.
    Drip,
    /// What is no HTTP.
    Noise,
    /// 200 with what is no JSON.
    NoJson,
    /// 200 with JSON of nothing that was asked for.
    Nothing,
    /// 200 with half of what was announced.
    Half,
    /// 200 with a body that has no end.
    Endless,
}

impl Harm {
    pub(crate) fn done(self, stream: &mut TcpStream) -> Then {
        let json = [("Content-Type", "application/x-amz-json-1.1")];
        let written = match self {
            Self::Error(status, code) => {
                let body = format!("{{\"__type\":\"{code}\",\"message\":\"told to\",\"more\":\"{CANARY}\"}}");
                return respond(stream, status, &[json[0], ("X-Amzn-ErrorType", code)], body.as_bytes());
            }
            Self::Page(status) => {
                let body = format!("<html><body>{CANARY}</body></html>");
                return respond(stream, status, &[("Content-Type", "text/html")], body.as_bytes());
            }
            Self::NoJson => return respond(stream, "200 OK", &json, format!("{{\"{CANARY}").as_bytes()),
            Self::Nothing => return respond(stream, "200 OK", &json, format!("{{\"x\":\"{CANARY}\"}}").as_bytes()),
            // Until the caller goes.
            Self::Hang => stream.read(&mut [0]).map(|_| ()),
            Self::Drip => {
                let head = "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n";
                head.bytes().chain(std::iter::repeat(b' ')).try_for_each(|byte| {
                    tools::pause(Duration::from_millis(10));
                    stream.write_all(&[byte])
                })
            }
            Self::Noise => stream.write_all(&[CANARY.as_bytes(), &[0xff; 64]].concat()),
            Self::Half => {
                stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n{{\"{CANARY}").as_bytes())
            }
            Self::Endless => {
                let piece = format!("{:x}\r\n{}\r\n", 1 << 16, CANARY.repeat(1 << 12).split_at(1 << 16).0);
                let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
                stream.write_all(head.as_bytes()).and_then(|()| {
                    loop {
                        stream.write_all(piece.as_bytes())?;
                    }
                })
            }
        };
        // That the caller went away is the best that can come of it.
        drop(written);
        Then::Close
    }
}
