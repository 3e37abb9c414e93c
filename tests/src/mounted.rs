//! A folder of files as kubelet mounts secrets.

use std::cell::Cell;
use std::path::Path;

/// Names that lead through `..data` to a folder of this version.
#[derive(Debug)]
pub struct Mounted {
    folder: tempfile::TempDir,
    version: Cell<u32>,
}

impl Mounted {
    /// Nothing is in it.
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), version: Cell::new(0) }
    }

    /// A file as who watches knows it.
    pub fn path(&self, file: &str) -> String {
        self.folder.path().join(file).display().to_string()
    }

    /// Another version of all files, live with one rename: names, and where their contents are.
    pub fn put(&self, files: &[(&str, String)]) {
        let version = self.version.replace(self.version.get() + 1);
        let folder = self.folder.path().join(format!("..{version}"));
        std::fs::create_dir(&folder).unwrap();
        for (name, from) in files {
            std::fs::copy(from, folder.join(name)).unwrap();
            let shown = self.folder.path().join(name);
            if !shown.exists() && std::fs::symlink_metadata(&shown).is_err() {
                std::os::unix::fs::symlink(Path::new("..data").join(name), shown).unwrap();
            }
        }
        let next = self.folder.path().join("..data_tmp");
        std::os::unix::fs::symlink(format!("..{version}"), &next).unwrap();
        std::fs::rename(next, self.folder.path().join("..data")).unwrap();
    }
}

impl Default for Mounted {
    fn default() -> Self {
        Self::new()
    }
}
