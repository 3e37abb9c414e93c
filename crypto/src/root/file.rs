//! A root key in a file, mode 0600: exactly 32 raw bytes, or wrapped under a passphrase. For development and small installations.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, openat};
use rustix::io::Errno;

use super::passphrase;
use crate::Error;
use crate::document::{RootEntry, Share, ShareKey, open_sealed, seal};
use crate::nonce::{Random, System};
use crate::slab::{Key, Slab};
use crate::sodium::{KEY, blake2b};

/// A root key in a file.
pub struct FileRoot {
    key: Key,
    id: [u8; 8],
}

impl FileRoot {
    /// Reads one that no passphrase protects.
    ///
    /// # Errors
    /// As [`FileRoot::open`].
    pub fn read(path: &Path, slab: &Arc<Slab>) -> Result<Self, Error> {
        Self::open(path, None, slab)
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`Error::Root`]: it is not there or a directory, others may read it, it has not 32 bytes, or the passphrase is missing, wrong or
    /// none is needed.
    pub fn open(path: &Path, passphrase: Option<&[u8]>, slab: &Arc<Slab>) -> Result<Self, Error> {
        let wrong = |why: String| Error::Root { what: path.display().to_string(), why };
        let mut file = File::open(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => wrong("there is no such file; make it with `oilskin keys init`".to_owned()),
            _ => wrong(error.to_string()),
        })?;
        let metadata = file.metadata().map_err(|error| wrong(error.to_string()))?;
        if metadata.is_dir() {
            return Err(wrong("it is a directory; name the file in it, such as file:DIR/root.key".to_owned()));
        }
        if metadata.mode() & 0o077 != 0 {
            return Err(wrong(format!(
                "its mode is {:03o}; others must not read it: chmod 600",
                metadata.mode() & 0o777
            )));
        }
        if metadata.len() == passphrase::WRAPPED as u64 {
            let passphrase = passphrase.ok_or_else(|| {
                wrong(
                    "it is under a passphrase: set OILSKIN_ROOT_PASSPHRASE_FILE or OILSKIN_ROOT_PASSPHRASE".to_owned(),
                )
            })?;
            let mut whole = Vec::with_capacity(passphrase::WRAPPED);
            file.read_to_end(&mut whole).map_err(|error| wrong(error.to_string()))?;
            let key = passphrase::unwrap(&whole, passphrase, slab)?.map_err(|why| wrong(why.to_owned()))?;
            return Self::new(key);
        }
        if metadata.len() != KEY as u64 {
            return Err(wrong(format!("it has {} bytes instead of 32", metadata.len())));
        }
        // Who set one believes the file to be worth nothing without it.
        if passphrase.is_some() {
            return Err(wrong("a passphrase is set, and this file is not under one".to_owned()));
        }
        let mut outcome = Ok(());
        let key = Key::new(slab, |out| outcome = file.read_exact(out))?;
        outcome.map_err(|error| wrong(error.to_string()))?;
        Self::new(key)
    }

    /// Makes a new one that no passphrase protects.
    ///
    /// # Errors
    /// As [`FileRoot::make`].
    pub fn create(path: &Path, slab: &Arc<Slab>) -> Result<Self, Error> {
        Self::make(path, None, slab)
    }

    /// Makes a new one. An existing file is never overwritten.
    ///
    /// # Errors
    /// [`Error::RootExists`], [`Error::Root`], [`Error::Random`].
    pub fn make(path: &Path, passphrase: Option<&[u8]>, slab: &Arc<Slab>) -> Result<Self, Error> {
        let wrong = |error: std::io::Error| Error::Root { what: path.display().to_string(), why: error.to_string() };
        let mut outcome = Ok(());
        let key = Key::new(slab, |out| outcome = System.fill(out))?;
        outcome?;
        let wrapped = passphrase.map(|passphrase| passphrase::wrap(&key, passphrase)).transpose()?;
        let bytes = wrapped.as_deref().unwrap_or(key.bytes());
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            crate::store::create_folder(folder).map_err(wrong)?;
        }
        let written =
            unnamed(path, bytes).unwrap_or_else(|| named(path, bytes)).and_then(|()| crate::store::sync_folder(path));
        match written {
            Ok(()) => Self::new(key),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                Err(Error::RootExists(path.display().to_string()))
            }
            Err(error) => Err(wrong(error)),
        }
    }

    /// Its kind in documents.
    pub const KIND: &'static str = "file";

    /// Names it in documents: the first eight bytes of BLAKE2b-256(root, `oil1 rootid`).
    pub fn id(&self) -> &[u8] {
        &self.id
    }

    /// Whether a document's entry is this root's.
    pub fn wraps(&self, entry: &RootEntry) -> bool {
        entry.kind == Self::KIND && entry.id == self.id
    }

    /// Wraps a share.
    ///
    /// # Errors
    /// [`Error::Random`], [`Error::SlabFull`].
    pub fn wrap_share(&self, share: &ShareKey, bound: &Share) -> Result<Vec<u8>, Error> {
        seal(self.wrapping()?.bytes(), share.bytes(), &bound.aad(), &System).map(Vec::from)
    }

    /// Unwraps it again, into the slab.
    ///
    /// # Errors
    /// [`Error::Root`], [`Error::SlabFull`].
    pub fn unwrap_share(&self, wrapped: &[u8], bound: &Share, slab: &Arc<Slab>) -> Result<ShareKey, Error> {
        let opened = open_sealed(self.wrapping()?.bytes(), wrapped, &bound.aad(), slab).unwrap_or_else(|()| {
            Err(Error::Root { what: "file".to_owned(), why: "the wrapped share does not open under it".to_owned() })
        });
        opened.map(ShareKey)
    }

    fn new(key: Key) -> Result<Self, Error> {
        let mut id = [0; KEY];
        blake2b(key.bytes(), &[b"oil1 rootid"], &mut id);
        let id = id.first_chunk().copied().unwrap_or_default();
        Ok(Self { key, id })
    }

    fn wrapping(&self) -> Result<Key, Error> {
        Key::new(self.key.slab(), |out| blake2b(self.key.bytes(), &[b"oil1 shares"], out))
    }
}

/// Writes a file that has no name until it is whole: killed at any moment, it leaves no copy of a key behind. None where the file
/// system has no such files (O_TMPFILE), or no `/proc` is there to name one by.
fn unnamed(path: &Path, bytes: &[u8]) -> Option<io::Result<()>> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let mut file = File::from(openat(CWD, folder, flags, Mode::RUSR | Mode::WUSR).ok()?);
    if let Err(error) = file.write_all(bytes).and_then(|()| file.sync_all()) {
        return Some(Err(error));
    }
    let own = format!("/proc/self/fd/{}", file.as_raw_fd());
    match linkat(CWD, own, CWD, path, AtFlags::SYMLINK_FOLLOW) {
        Err(Errno::NOENT | Errno::OPNOTSUPP | Errno::ACCESS | Errno::PERM) => None,
        linked => Some(linked.map_err(io::Error::from)),
    }
}

/// The same by a name of its own that is linked into place. A process id would not do for it: in containers all are 1, and a
/// killed one leaves its file.
fn named(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut tag = [0; 8];
    System.fill(&mut tag).map_err(|_| io::Error::other("no random bytes"))?;
    let partial = path.with_extension(format!("new.{:016x}", u64::from_ne_bytes(tag)));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
    let written =
        file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| std::fs::hard_link(&partial, path));
    let removed = std::fs::remove_file(&partial);
    written.and(removed)
}
