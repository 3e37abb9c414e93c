//! HTTP/1.1 messages, read to the byte.

use std::io::{self, Read};

/// One message as it came.
#[derive(Debug, Clone, Default)]
pub struct Message {
    /// Start line and fields, without the empty line.
    pub head: String,
    /// The body, with its transfer coding undone.
    pub body: Vec<u8>,
    /// Fields behind the last chunk.
    pub trailers: String,
    /// Every byte of it.
    pub raw: Vec<u8>,
    /// It ended as its head said it would.
    pub complete: bool,
}

impl Message {
    /// The status of a response.
    pub fn status(&self) -> u16 {
        self.head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    /// The start line's target.
    pub fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    /// The start line's method.
    pub fn method(&self) -> &str {
        self.head.split(' ').next().unwrap_or_default()
    }

    /// The first field of that name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The `code` of a problem document.
    pub fn code(&self) -> String {
        let text = self.text();
        let after = text.split("\"code\":\"").nth(1).unwrap_or_default();
        after.split('"').next().unwrap_or_default().to_owned()
    }

    /// Reads a response to a request of `method`.
    ///
    /// # Errors
    /// What the socket says; `UnexpectedEof` when it closes before a head.
    pub fn read_response(source: &mut impl Read, method: &str) -> io::Result<Self> {
        let mut message = Self::default();
        loop {
            message.read_head(source)?;
            if !(100..200).contains(&message.status()) {
                break;
            }
            message.head.clear();
        }
        let none = method == "HEAD" || matches!(message.status(), 204 | 304);
        if none {
            message.complete = true;
        } else {
            message.read_body(source, true)?;
        }
        Ok(message)
    }

    /// Reads a request.
    ///
    /// # Errors
    /// As [`Message::read_response`].
    pub fn read_request(source: &mut impl Read) -> io::Result<Self> {
        let mut message = Self::default();
        message.read_head(source)?;
        message.read_body(source, false)?;
        Ok(message)
    }

    fn byte(&mut self, source: &mut impl Read) -> io::Result<u8> {
        let mut one = [0];
        source.read_exact(&mut one)?;
        self.raw.push(one[0]);
        Ok(one[0])
    }

    fn line(&mut self, source: &mut impl Read) -> io::Result<String> {
        let start = self.raw.len();
        while self.byte(source)? != b'\n' {}
        Ok(String::from_utf8_lossy(&self.raw[start..]).trim_end().to_owned())
    }

    fn read_head(&mut self, source: &mut impl Read) -> io::Result<()> {
        let mut lines = Vec::new();
        loop {
            let line = self.line(source)?;
            if line.is_empty() {
                break;
            }
            lines.push(line);
        }
        self.head = lines.join("\n");
        Ok(())
    }

    fn read_body(&mut self, source: &mut impl Read, until_close: bool) -> io::Result<()> {
        let outcome = if self.header("transfer-encoding").is_some() {
            self.read_chunks(source)
        } else if let Some(length) = self.header("content-length").and_then(|length| length.parse().ok()) {
            self.read_exactly(source, length)
        } else if until_close {
            source.read_to_end(&mut self.body).map(|_| ())
        } else {
            Ok(())
        };
        match outcome {
            Ok(()) => self.complete = true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
            // A cut body is what some tests look for.
            Err(_) => {}
        }
        Ok(())
    }

    fn read_exactly(&mut self, source: &mut impl Read, length: usize) -> io::Result<()> {
        let mut left = length;
        let mut buffer = vec![0; 64 * 1024];
        while left > 0 {
            let want = left.min(buffer.len());
            let got = source.read(&mut buffer[..want])?;
            if got == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.raw.extend_from_slice(&buffer[..got]);
            self.body.extend_from_slice(&buffer[..got]);
            left -= got;
        }
        Ok(())
    }

    fn read_chunks(&mut self, source: &mut impl Read) -> io::Result<()> {
        loop {
            let size = self.line(source)?;
            let size = size.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(io::Error::other)?;
            if size == 0 {
                break;
            }
            self.read_exactly(source, size)?;
            self.line(source)?;
        }
        let mut trailers = Vec::new();
        loop {
            let line = self.line(source)?;
            if line.is_empty() {
                break;
            }
            trailers.push(line);
        }
        self.trailers = trailers.join("\n");
        Ok(())
    }
}
