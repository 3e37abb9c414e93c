//! `file:DIR`: DIR/NAME.json, written by lock, temporary file, fsync and rename.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::{create_folder, sync_folder};
use crate::Error;
use crate::document::is_name;

/// Documents larger than this are not read, and so not written.
const MAX_BYTES: u64 = 1 << 20;

/// Documents in a folder.
#[derive(Debug, Clone)]
pub struct FileStore {
    folder: PathBuf,
}

impl FileStore {
    /// A store in that folder; it is made at the first write.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    fn path(&self, name: &str) -> Result<PathBuf, Error> {
        match is_name(name) {
            true => Ok(self.folder.join(format!("{name}.json"))),
            false => Err(Error::Document { name: name.to_owned(), why: "this is no keyset's name" }),
        }
    }

    /// Held by one writer at a time, in whichever process; given up by the system when a process dies.
    fn lock(&self) -> Result<File, Error> {
        let cannot = Error::io("cannot lock the key store");
        create_folder(&self.folder).map_err(Error::io("cannot make the key store's folder"))?;
        let path = self.folder.join(".lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
        file.and_then(|file| file.lock().map(|()| file)).map_err(cannot)
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
        // One name for all documents: what a writer that died left is removed by whichever comes next. The lock says that
        // there is no other writer.
        let partial = path.with_file_name(".new");
        let _ = std::fs::remove_file(&partial);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
        let written =
            file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| std::fs::rename(&partial, path));
        // On a full disk half of one would only take room.
        written.inspect_err(|_| drop(std::fs::remove_file(&partial)))?;
        sync_folder(path)
    }
}

impl FileStore {
    /// Names of the keysets it holds, sorted.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn list(&self) -> Result<Vec<String>, Error> {
        let entries = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(Error::Io("cannot read the key store's folder", error)),
        };
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter_map(|file| file.strip_suffix(".json").map(str::to_owned))
            .filter(|name| is_name(name))
            .collect();
        names.sort();
        Ok(names)
    }

    /// Reads a document.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Io`], [`Error::Document`] for one longer than 1 MiB or a name that is none.
    pub fn read(&self, name: &str) -> Result<Vec<u8>, Error> {
        let path = self.path(name)?;
        let too_long = std::fs::metadata(&path).is_ok_and(|metadata| metadata.len() > MAX_BYTES);
        if too_long {
            return Err(Error::Document { name: name.to_owned(), why: "it is longer than 1 MiB" });
        }
        match std::fs::read(&path) {
            Ok(bytes) => Ok(bytes),
            Err(error) if error.kind() == ErrorKind::NotFound => Err(Error::Missing(name.to_owned())),
            Err(error) => Err(Error::Io("cannot read a keyset document", error)),
        }
    }

    /// Writes a document, if the store still holds `before` (none: if it holds no such document).
    ///
    /// # Errors
    /// [`Error::Conflict`] or [`Error::Exists`] when it does not, [`Error::Document`] for one longer than 1 MiB, [`Error::Io`]. After an
    /// error the old document stands, whole.
    pub fn write(&self, name: &str, before: Option<&[u8]>, bytes: &[u8]) -> Result<(), Error> {
        let path = self.path(name)?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(Error::Document { name: name.to_owned(), why: "it is longer than 1 MiB" });
        }
        let _lock = self.lock()?;
        match (self.read(name), before) {
            (Err(Error::Missing(_)), None) => {}
            (Ok(found), Some(before)) if found == before => {}
            (Ok(_), None) => return Err(Error::Exists(name.to_owned())),
            (Ok(_) | Err(Error::Missing(_)), _) => return Err(Error::Conflict(name.to_owned())),
            (Err(error), _) => return Err(error),
        }
        self.replace(&path, bytes).map_err(Error::io("cannot write a keyset document"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_needs_what_was_read() {
        let folder = tempfile::tempdir().unwrap();
        let store = FileStore::new(&folder.path().join("keys"));
        assert!(store.list().unwrap().is_empty());
        assert!(matches!(store.read("a"), Err(Error::Missing(_))));
        store.write("a", None, b"1").unwrap();
        assert!(matches!(store.write("a", None, b"2"), Err(Error::Exists(_))));
        let read = store.read("a").unwrap();
        store.write("a", Some(&read), b"2").unwrap();
        assert!(matches!(store.write("a", Some(&read), b"3"), Err(Error::Conflict(_))));
        assert!(matches!(store.write("../a", None, b""), Err(Error::Document { .. })));
        let longest = vec![b'x'; 1 << 20];
        store.write("a", Some(b"2"), &longest).unwrap();
        assert!(matches!(
            store.write("a", Some(&longest), &[&longest[..], b"x"].concat()),
            Err(Error::Document { .. })
        ));
        assert_eq!(store.read("a").unwrap(), longest);
        assert_eq!(store.list().unwrap(), ["a"]);
    }

    #[test]
    fn what_a_dead_writer_left_is_no_document() {
        let folder = tempfile::tempdir().unwrap();
        let store = FileStore::new(folder.path());
        store.write("a", None, b"whole").unwrap();
        std::fs::write(folder.path().join(".new"), b"ha").unwrap();
        assert_eq!(store.read("a").unwrap(), b"whole");
        assert_eq!(store.list().unwrap(), ["a"]);
        store.write("b", None, b"x").unwrap();
        let read = store.read("a").unwrap();
        store.write("a", Some(&read), b"next").unwrap();
        assert_eq!(store.read("a").unwrap(), b"next");
    }
}
