//! Key stores that need nothing but this crate: a folder. Those behind a network are the program's.

mod file;

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

pub use file::FileStore;

/// A folder that only its owner enters.
pub(crate) fn create_folder(path: &Path) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// A rename or link lasts only once the folder is on disk too.
pub(crate) fn sync_folder(file: &Path) -> io::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(folder)?.sync_all()
}
