//! A wall clock that a test sets, for processes that believe libfaketime.

use tempfile::TempDir;

use crate::tools;

/// The clock of the processes that have its variables.
#[derive(Debug)]
pub struct Clock {
    folder: TempDir,
    library: String,
}

impl Clock {
    /// One that is right.
    pub fn new() -> Self {
        let this = Self { folder: tempfile::tempdir().unwrap(), library: tools::faketime() };
        this.set("+0d");
        this
    }

    fn path(&self) -> String {
        self.folder.path().join("clock").display().to_string()
    }

    /// Sets it: `+40d` from the right time.
    pub fn set(&self, clock: &str) {
        let next = self.folder.path().join("next");
        std::fs::write(&next, clock).unwrap();
        std::fs::rename(next, self.path()).unwrap();
    }

    /// What a process needs to believe it. Deadlines go by the other clock.
    pub fn vars(&self) -> Vec<(String, String)> {
        let vars = [
            ("LD_PRELOAD", self.library.clone()),
            ("FAKETIME_TIMESTAMP_FILE", self.path()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
        ];
        vars.map(|(name, value)| (name.to_owned(), value)).into()
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}
