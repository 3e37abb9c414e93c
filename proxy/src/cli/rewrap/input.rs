//! What `oilskin rewrap` reads, and how far it came.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use serde_json::{Value, json};

/// Longest line, in bytes.
const MAX_LINE: u64 = 64 << 20;

/// Bytes of a document that are read at once.
const PIECE: usize = 64 << 10;

/// How far a run came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Checkpoint {
    /// Bytes and lines of the input that are done.
    pub(super) read: u64,
    pub(super) lines: u64,
    /// Bytes of the result that they became.
    pub(super) written: u64,
}

impl Checkpoint {
    /// What a run before wrote down; none where there was none.
    pub(super) fn read(path: &Path) -> Result<Option<Self>, String> {
        let wrong = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(|error| wrong(&error))?,
        };
        let value: Value = serde_json::from_str(&text).map_err(|_| wrong(&"it is no checkpoint"))?;
        let number = |name: &str| value.get(name).and_then(Value::as_u64).ok_or_else(|| wrong(&"it is no checkpoint"));
        Ok(Some(Self { read: number("read")?, lines: number("lines")?, written: number("written")? }))
    }

    /// Whole, or as it was.
    pub(super) fn write(&self, path: &Path) -> Result<(), String> {
        let wrong = |error: io::Error| format!("{}: {error}", path.display());
        let partial = path.with_extension("partial");
        let text = json!({"read": self.read, "lines": self.lines, "written": self.written}).to_string();
        std::fs::write(&partial, text).map_err(wrong)?;
        std::fs::rename(&partial, path).map_err(wrong)
    }
}

/// Some bytes of a document.
pub(super) struct Piece<'a>(pub(super) &'a [u8]);

/// A file, or stdin.
pub(super) struct Input {
    from: BufReader<Box<dyn Read>>,
    piece: Vec<u8>,
    read: u64,
    lines: u64,
}

impl Input {
    pub(super) fn open(path: &Path, whole: bool, checkpoint: Option<&Checkpoint>) -> Result<Self, String> {
        let wrong = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
        let (mut read, mut lines) = (0, 0);
        let from: Box<dyn Read> = match (path == Path::new("-"), checkpoint) {
            (true, None) => Box::new(io::stdin()),
            (true, Some(_)) => return Err("stdin cannot go on where it was: give a file".to_owned()),
            (false, checkpoint) => {
                let mut file = File::open(path).map_err(|error| wrong(&error))?;
                if let Some(done) = checkpoint {
                    if whole {
                        return Err("one document cannot go on in its middle: remove the checkpoint".to_owned());
                    }
                    file.seek(SeekFrom::Start(done.read)).map_err(|error| wrong(&error))?;
                    (read, lines) = (done.read, done.lines);
                }
                Box::new(file)
            }
        };
        Ok(Self { from: BufReader::with_capacity(PIECE, from), piece: Vec::new(), read, lines })
    }

    /// The next line, with its end.
    pub(super) fn line(&mut self) -> Result<Option<Vec<u8>>, String> {
        let mut line = Vec::new();
        let read = (&mut self.from).take(MAX_LINE + 1).read_until(b'\n', &mut line);
        let read = read.map_err(|error| format!("cannot read: {error}"))? as u64;
        if read == 0 {
            return Ok(None);
        }
        self.read += read;
        self.lines += 1;
        match read > MAX_LINE {
            true => {
                Err(format!("line {}: longer than 64 MiB; --format json reads one document of any size", self.lines))
            }
            false => Ok(Some(line)),
        }
    }

    /// The next bytes.
    pub(super) fn piece(&mut self) -> Result<Option<Piece<'_>>, String> {
        self.piece.resize(PIECE, 0);
        let read = loop {
            match self.from.read(&mut self.piece) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read.map_err(|error| format!("cannot read: {error}"))?,
            }
        };
        self.read += read as u64;
        Ok(self.piece.get(..read).filter(|piece| !piece.is_empty()).map(Piece))
    }

    /// Bytes read so far, those of earlier runs among them.
    pub(super) fn read(&self) -> u64 {
        self.read
    }

    /// Lines read so far.
    pub(super) fn lines(&self) -> u64 {
        self.lines
    }
}
