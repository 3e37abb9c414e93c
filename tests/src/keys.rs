//! Keys of a test: a root key and a keyset in a folder of their own.

use std::path::Path;
use std::sync::Arc;

use oilskin_crypto::document::{self, NewKeyset, Policy};
use oilskin_crypto::{Cipher, DEFAULT_BYTES, FileRoot, FileStore, KeysetHandle, Slab};
use tempfile::TempDir;

/// A folder with `root.key` and `keys/`.
#[derive(Debug)]
pub struct Keys {
    folder: TempDir,
}

impl Keys {
    /// A new root key and the keyset `default`.
    pub fn new() -> Self {
        Self::with(Cipher::XChaCha20Poly1305, false)
    }

    /// The same with this cipher, perhaps marked as development keys.
    pub fn with(cipher: Cipher, development: bool) -> Self {
        let keys = Self { folder: tempfile::tempdir().unwrap() };
        FileRoot::create(&keys.folder.path().join("root.key"), &slab()).unwrap();
        keys.add("default", cipher, development);
        keys
    }

    /// A folder with nothing in it yet.
    pub fn empty() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// Adds a keyset under the same root.
    pub fn add(&self, name: &str, cipher: Cipher, development: bool) {
        let slab = slab();
        let new = NewKeyset { name, cipher, development, refresh: 60, now: 1_700_000_000 };
        let made = document::files::create(new, 1, &roots(self.folder(), &slab), &slab).unwrap();
        FileStore::new(&self.folder.path().join("keys")).write(name, None, &made).unwrap();
    }

    /// The keyset `default` made years ago, with this refresh interval in seconds.
    pub fn aged(refresh: u64) -> Self {
        let keys = Self::empty();
        let slab = slab();
        let root = FileRoot::create(&keys.folder.path().join("root.key"), &slab).unwrap();
        let cipher = Cipher::XChaCha20Poly1305;
        let new = NewKeyset { name: "default", cipher, development: false, refresh, now: 1_700_000_000 };
        let made = document::files::create(new, 1, &[root], &slab).unwrap();
        FileStore::new(&keys.folder.path().join("keys")).write("default", None, &made).unwrap();
        keys
    }

    /// Adds keysets `PREFIX0`, `PREFIX1` … under the same root; faster than one by one, because nothing is at stake.
    pub fn add_many(&self, prefix: &str, count: usize) {
        let slab = slab();
        let roots = roots(self.folder(), &slab);
        for number in 0..count {
            let name = &format!("{prefix}{number}");
            let cipher = Cipher::XChaCha20Poly1305;
            let new = NewKeyset { name, cipher, development: false, refresh: 60, now: 1_700_000_000 };
            let made = document::files::create(new, 1, &roots, &slab).unwrap();
            std::fs::write(self.folder().join(format!("keys/{name}.json")), made).unwrap();
        }
    }

    /// The same keys in a folder of their own, as another replica holds them.
    #[must_use]
    pub fn copy(&self) -> Self {
        let copy = Self { folder: tempfile::tempdir().unwrap() };
        for entry in std::fs::read_dir(self.folder.path().join("keys")).unwrap() {
            let stored = entry.unwrap().path();
            let name = stored.file_stem().unwrap().to_str().unwrap();
            if stored.extension().is_some_and(|extension| extension == "json") {
                let bytes = std::fs::read(&stored).unwrap();
                FileStore::new(&copy.folder.path().join("keys")).write(name, None, &bytes).unwrap();
            }
        }
        std::fs::copy(self.folder.path().join("root.key"), copy.folder.path().join("root.key")).unwrap();
        copy
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// `OILSKIN_ROOT_KEY`.
    pub fn root_uri(&self) -> String {
        format!("file:{}", self.folder.path().join("root.key").display())
    }

    /// `OILSKIN_KEY_STORE`.
    pub fn store_uri(&self) -> String {
        format!("file:{}", self.folder.path().join("keys").display())
    }

    /// A keyset opened beside the proxy, to look at its tokens with.
    pub fn handle(&self, name: &str) -> KeysetHandle {
        open(self.folder(), name)
    }
}

impl Default for Keys {
    fn default() -> Self {
        Self::new()
    }
}

fn roots(folder: &Path, slab: &Arc<Slab>) -> Vec<FileRoot> {
    vec![FileRoot::read(&folder.join("root.key"), slab).unwrap()]
}

/// Opens a keyset of a folder that another process may have made.
pub fn open(folder: &Path, name: &str) -> KeysetHandle {
    let slab = slab();
    let stored = FileStore::new(&folder.join("keys")).read(name).unwrap();
    let policy = Policy { development: true, ..Policy::default() };
    KeysetHandle::of(document::files::open(&stored, name, &roots(folder, &slab), &slab, policy).unwrap())
}

fn slab() -> Arc<Slab> {
    Slab::new(DEFAULT_BYTES, true).unwrap()
}
