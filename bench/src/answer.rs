//! Reads HTTP/1.1 answers as far as the bench's own clients need: status, and where the answer ends.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use memchr::memmem;

const LARGEST: usize = 1 << 20;
const PATIENCE: Duration = Duration::from_secs(60);

/// Bytes of the first answer in `bytes`; none while its end is not there.
///
/// # Errors
/// An answer that is no 200, or whose end cannot be told.
pub(crate) fn whole(bytes: &[u8]) -> Result<Option<usize>> {
    let Some(head) = memmem::find(bytes, b"\r\n\r\n") else {
        ensure!(bytes.len() < LARGEST, "a head without an end");
        return Ok(None);
    };
    let body = head + 4;
    let head = String::from_utf8_lossy(bytes.get(..head).unwrap_or_default()).to_ascii_lowercase();
    ensure!(head.starts_with("http/1.1 200"), "not 200: {}", String::from_utf8_lossy(bytes));
    if let Some(length) = field(&head, "content-length") {
        let length: usize = length.parse().context("content-length")?;
        return Ok(Some(body + length).filter(|end| *end <= bytes.len()));
    }
    if field(&head, "transfer-encoding") == Some("chunked") {
        return chunked(bytes, body);
    }
    bail!("an answer that has no end: {head}");
}

fn field<'head>(head: &'head str, name: &str) -> Option<&'head str> {
    let of = |line: &'head str| line.split_once(':').filter(|(found, _)| *found == name);
    head.lines().find_map(of).map(|(_, value)| value.trim())
}

fn chunked(bytes: &[u8], mut at: usize) -> Result<Option<usize>> {
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let Some(line) = memmem::find(rest, b"\r\n") else { return Ok(None) };
        let size = std::str::from_utf8(rest.get(..line).unwrap_or_default())?;
        let size = usize::from_str_radix(size, 16).context("chunk size")?;
        at += line + 2 + size + 2;
        if at > bytes.len() {
            return Ok(None);
        }
        if size == 0 {
            return Ok(Some(at));
        }
    }
}

/// A blocking client: one connection, one request after the other.
pub(crate) struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    /// Sends a request and reads its answer to the end.
    pub(crate) fn ask(&mut self, request: &[u8]) -> Result<&[u8]> {
        self.stream.write_all(request)?;
        self.buffer.clear();
        self.answer()
    }

    fn answer(&mut self) -> Result<&[u8]> {
        let mut piece = [0; 16 << 10];
        while whole(&self.buffer)?.is_none() {
            let read = self.stream.read(&mut piece)?;
            ensure!(read > 0, "closed before the end of an answer");
            self.buffer.extend_from_slice(piece.get(..read).unwrap_or_default());
        }
        Ok(&self.buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_ends_where_its_length_says() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP";
        assert_eq!(whole(answer).unwrap(), Some(answer.len() - 4));
        for cut in 0..answer.len() - 4 {
            assert_eq!(whole(&answer[..cut]).unwrap(), None, "{cut}");
        }
    }

    #[test]
    fn an_answer_ends_with_its_last_chunk() {
        let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
        assert_eq!(whole(answer).unwrap(), Some(answer.len()));
        for cut in 0..answer.len() {
            assert_eq!(whole(&answer[..cut]).unwrap(), None, "{cut}");
        }
    }

    #[test]
    fn what_is_no_200_is_an_error() {
        assert!(whole(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n").is_err());
        assert!(whole(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
