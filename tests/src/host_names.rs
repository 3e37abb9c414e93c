//! A name of a host that is there, then is not, and is there again: for programs under `libnss_wrapper`, whose resolver reads a file.

use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use crate::tools;

/// The name.
pub const NAME: &str = "provider.test";

/// The resolver sees that its file is another when its time is, which it knows in seconds.
const SEEN: Duration = Duration::from_millis(1_100);

/// What a resolver knows.
#[derive(Debug)]
pub struct HostNames {
    folder: TempDir,
}

impl HostNames {
    /// The name is this machine's.
    pub fn new() -> Self {
        let names = Self { folder: tempfile::tempdir().unwrap() };
        names.write(NAME);
        names
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("hosts")
    }

    fn write(&self, name: &str) {
        std::fs::write(self.file(), format!("127.0.0.1 {name} localhost\n")).unwrap();
    }

    /// What a process needs to see it.
    pub fn vars(&self) -> [(&'static str, String); 2] {
        let library = std::fs::read_dir("/usr/lib").unwrap().filter_map(Result::ok);
        let library = library.map(|folder| folder.path().join("libnss_wrapper.so")).find(|path| path.exists());
        let library = library.unwrap_or_else(|| panic!("libnss-wrapper is not installed: run `make deps`"));
        [("LD_PRELOAD", library.display().to_string()), ("NSS_WRAPPER_HOSTS", self.file().display().to_string())]
    }

    /// Nobody has the name any more.
    pub fn vanish(&self) {
        tools::pause(SEEN);
        self.write("another.test");
    }

    /// This machine has it again.
    pub fn appear(&self) {
        tools::pause(SEEN);
        self.write(NAME);
    }
}

impl Default for HostNames {
    fn default() -> Self {
        Self::new()
    }
}
