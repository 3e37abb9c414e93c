//! Key stores: where keyset documents live.

mod file;

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

pub use file::FileStore;

use crate::Error;

/// A document as it was read; what a later write is compared with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// A key store.
pub trait KeyStore: Send + Sync {
    /// Names of the keysets it holds, sorted.
    ///
    /// # Errors
    /// [`Error::Io`].
    fn list(&self) -> Result<Vec<String>, Error>;

    /// Reads a document.
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Io`].
    fn read(&self, name: &str) -> Result<Stored, Error>;

    /// Writes a document, if the store still holds `before` (none: if it holds no such document).
    ///
    /// # Errors
    /// [`Error::Conflict`] or [`Error::Exists`] when it does not, [`Error::Io`]. After an error the old document stands, whole.
    fn write(&self, name: &str, before: Option<&Stored>, bytes: &[u8]) -> Result<(), Error>;
}

/// A folder that only its owner enters.
pub(crate) fn create_folder(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// A rename or link lasts only once the folder is on disk too.
pub(crate) fn sync_folder(file: &Path) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(folder)?.sync_all()
}
