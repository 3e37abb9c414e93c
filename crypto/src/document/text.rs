//! The JSON of line 1.

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::base64url;
use crate::document::{SEALED, is_name};
use crate::header::Algorithm;

/// Integers of a document are 0 to 2^53 - 1, so that every JSON reader holds them.
const MAX_INTEGER: u64 = (1 << 53) - 1;

/// What a version is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Line {
    /// Random fields; rotates.
    Field = 1,
    /// Deterministic fields and indexes; never by a timer.
    Lookup = 2,
}

/// Where a version is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Readable; not yet written with, because not every replica holds it.
    Pending,
    /// Written with.
    Active,
    /// Readable.
    Retired,
    /// Gone.
    Destroyed,
}

/// When things happened, in Unix seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Times {
    /// The version was made.
    pub made: u64,
    /// It became active later than that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active: Option<u64>,
    /// It was retired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retired: Option<u64>,
    /// It was destroyed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destroyed: Option<u64>,
}

/// A root that wraps W or a share of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootEntry {
    /// The root's id.
    pub id: Vec<u8>,
    /// Its kind, as its URI begins.
    pub kind: String,
    /// The share's number.
    pub x: u8,
    /// The wrapped share.
    pub wrapped: Vec<u8>,
}

/// A key version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionEntry {
    /// All 32 bytes of its id.
    pub key_id: [u8; 32],
    /// Its algorithm.
    pub alg: Algorithm,
    /// Its line.
    pub line: Line,
    /// Its state.
    pub state: State,
    /// Its times.
    pub times: Times,
    /// The sealed data key; none where it was destroyed.
    pub sealed: Option<Vec<u8>>,
}

/// What a document says. It holds no key that is not sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The keyset's name.
    pub name: String,
    /// Only grows.
    pub epoch: u64,
    /// Seconds between two refreshes.
    pub refresh: u64,
    /// How many roots must join.
    pub k: u8,
    /// Holds development keys.
    pub development: bool,
    /// Its roots.
    pub roots: Vec<RootEntry>,
    /// Its versions.
    pub versions: Vec<VersionEntry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    v: u64,
    name: String,
    epoch: u64,
    refresh: u64,
    k: u8,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    development: bool,
    roots: Vec<RawRoot>,
    versions: Vec<RawVersion>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRoot {
    id: String,
    kind: String,
    x: u8,
    wrapped: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawVersion {
    key_id: String,
    alg: u8,
    line: Line,
    state: State,
    times: Times,
    sealed: Option<String>,
}

impl Document {
    /// Reads line 1 and checks everything that needs no key.
    pub(super) fn parse(json: &str, name: &str) -> Result<Self, Error> {
        let wrong = |why| Error::Document { name: name.to_owned(), why };
        let raw: Raw = serde_json::from_str(json).map_err(|_| wrong("line 1 is not a keyset document"))?;
        if raw.v != 1 {
            return Err(wrong("its format is newer than this version reads"));
        }
        if raw.name != name || !is_name(&raw.name) {
            return Err(wrong("it is another keyset's"));
        }
        let times = raw.versions.iter().flat_map(|version| {
            let times = version.times;
            [Some(times.made), times.active, times.retired, times.destroyed]
        });
        let mut integers = [raw.epoch, raw.refresh].into_iter().chain(times.flatten());
        if integers.any(|integer| integer > MAX_INTEGER) {
            return Err(wrong("a number is out of range"));
        }
        let roots = raw.roots.into_iter().map(RawRoot::read).collect::<Option<Vec<_>>>();
        let versions = raw.versions.into_iter().map(RawVersion::read).collect::<Option<Vec<_>>>();
        let document = Self {
            name: raw.name,
            epoch: raw.epoch,
            refresh: raw.refresh,
            k: raw.k,
            development: raw.development,
            roots: roots.ok_or_else(|| wrong("a root entry is malformed"))?,
            versions: versions.ok_or_else(|| wrong("a version entry is malformed"))?,
        };
        document.consistent().map(|()| document).map_err(wrong)
    }

    /// The version of a line that waits to become active.
    pub fn pending(&self, line: Line) -> Option<&VersionEntry> {
        self.of(line, State::Pending)
    }

    /// The version that a line is written with.
    pub fn active(&self, line: Line) -> Option<&VersionEntry> {
        self.of(line, State::Active)
    }

    fn of(&self, line: Line, state: State) -> Option<&VersionEntry> {
        self.versions.iter().find(|version| version.line == line && version.state == state)
    }

    pub(super) fn consistent(&self) -> Result<(), &'static str> {
        if self.k == 0 || usize::from(self.k) > self.roots.len() {
            return Err("it asks for more roots than it names");
        }
        let distinct = |at: usize, x: u8| x != 0 && self.roots.iter().skip(at + 1).all(|other| other.x != x);
        if !self.roots.iter().enumerate().all(|(at, root)| distinct(at, root.x)) {
            return Err("its shares' numbers are not distinct");
        }
        // Each root finds its share by its id: two of one id would both find the first one.
        let alone = |at: usize, root: &RootEntry| {
            self.roots.iter().skip(at + 1).all(|other| (&other.kind, &other.id) != (&root.kind, &root.id))
        };
        if !self.roots.iter().enumerate().all(|(at, root)| alone(at, root)) {
            return Err("it names one root twice");
        }
        let active = |line| self.versions.iter().filter(|v| v.line == line && v.state == State::Active).count();
        if active(Line::Field) > 1 || active(Line::Lookup) > 1 {
            return Err("two versions of one line are active");
        }
        if self.versions.iter().any(|version| version.alg.development != self.development) {
            return Err("development and production keys are mixed");
        }
        if self.versions.iter().any(|version| version.sealed.is_none() != (version.state == State::Destroyed)) {
            return Err("a version's state and its sealed key do not fit");
        }
        Ok(())
    }

    /// Writes line 1.
    pub(super) fn json(&self) -> Result<String, Error> {
        let raw = Raw {
            v: 1,
            name: self.name.clone(),
            epoch: self.epoch,
            refresh: self.refresh,
            k: self.k,
            development: self.development,
            roots: self.roots.iter().map(RawRoot::write).collect(),
            versions: self.versions.iter().map(RawVersion::write).collect(),
        };
        serde_json::to_string(&raw).map_err(|error| Error::Io("cannot write a document", error.into()))
    }
}

impl RawRoot {
    fn read(self) -> Option<RootEntry> {
        let id = base64url::decode(&self.id)?;
        let wrapped = base64url::decode(&self.wrapped)?;
        Some(RootEntry { id, kind: self.kind, x: self.x, wrapped })
    }

    fn write(entry: &RootEntry) -> Self {
        Self {
            id: base64url::encode(&entry.id),
            kind: entry.kind.clone(),
            x: entry.x,
            wrapped: base64url::encode(&entry.wrapped),
        }
    }
}

impl RawVersion {
    fn read(self) -> Option<VersionEntry> {
        let key_id = base64url::decode(&self.key_id)?.try_into().ok()?;
        let sealed = self.sealed.map(|sealed| base64url::decode(&sealed).filter(|sealed| sealed.len() == SEALED));
        let sealed = match sealed {
            None => None,
            Some(sealed) => Some(sealed?),
        };
        let alg = Algorithm::from_byte(self.alg)?;
        Some(VersionEntry { key_id, alg, line: self.line, state: self.state, times: self.times, sealed })
    }

    fn write(entry: &VersionEntry) -> Self {
        Self {
            key_id: base64url::encode(&entry.key_id),
            alg: entry.alg.byte(),
            line: entry.line,
            state: entry.state,
            times: entry.times,
            sealed: entry.sealed.as_ref().map(|sealed| base64url::encode(sealed)),
        }
    }
}
