//! Root keys in files, and a folder of documents, as providers.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use oilskin_crypto::document::{Share, ShareKey};
use oilskin_crypto::{self as crypto, FileRoot, FileStore, Slab};

use super::provider::{Answer, KeyStore, RootKey, Stored};
use super::{Failed, Fault};

/// A root key in a file. It is read once, into locked memory.
pub(super) struct RootInFile {
    root: FileRoot,
    slab: Arc<Slab>,
    shown: String,
}

impl RootInFile {
    /// # Errors
    /// As [`FileRoot::open`].
    pub(super) fn open(
        path: &Path,
        passphrase: Option<&[u8]>,
        shown: String,
        slab: &Arc<Slab>,
    ) -> Result<Self, crypto::Error> {
        Ok(Self { root: FileRoot::open(path, passphrase, slab)?, slab: Arc::clone(slab), shown })
    }

    fn failed(&self, error: &crypto::Error) -> Failed {
        let fault = if error.is_retryable() { Fault::Unreachable } else { Fault::Wrong };
        Failed { what: self.shown.clone(), fault, why: error.to_string() }
    }
}

impl RootKey for RootInFile {
    fn id(&self) -> Vec<u8> {
        self.root.id().to_vec()
    }

    fn wrap<'a>(&'a self, share: &'a [u8; 32], bound: &'a Share) -> Answer<'a, Vec<u8>> {
        Box::pin(async move {
            let mut copy = ShareKey::blank(&self.slab).map_err(|error| self.failed(&error))?;
            copy.bytes_mut().copy_from_slice(share);
            self.root.wrap_share(&copy, bound).map_err(|error| self.failed(&error))
        })
    }

    fn unwrap<'a>(&'a self, wrapped: &'a [u8], bound: &'a Share, into: &'a mut [u8; 32]) -> Answer<'a, ()> {
        Box::pin(async move {
            let share = self.root.unwrap_share(wrapped, bound, &self.slab).map_err(|error| self.failed(&error))?;
            into.copy_from_slice(share.bytes());
            Ok(())
        })
    }
}

/// A folder of documents. Disks can be slow: each call takes a thread of the pool for blocking ones.
pub(super) struct Folder {
    store: FileStore,
    shown: String,
}

impl Folder {
    pub(super) fn new(folder: &Path, shown: String) -> Self {
        Self { store: FileStore::new(folder), shown }
    }

    fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&FileStore) -> Result<T, crypto::Error> + Send + 'static,
    ) -> Answer<'_, T> {
        let store = self.store.clone();
        Box::pin(async move {
            let failed = |fault, why| Failed { what: self.shown.clone(), fault, why };
            match tokio::task::spawn_blocking(move || call(&store)).await {
                Ok(Ok(done)) => Ok(done),
                Ok(Err(error)) => Err(failed(fault(&error), error.to_string())),
                Err(_) => Err(failed(Fault::Unreachable, "the call was given up".to_owned())),
            }
        })
    }
}

fn fault(error: &crypto::Error) -> Fault {
    use crypto::Error::{Conflict, Exists, Io, Missing};
    match error {
        Missing(_) => Fault::Missing,
        Conflict(_) | Exists(_) => Fault::Conflict,
        Io(..) => Fault::Unreachable,
        _ => Fault::Wrong,
    }
}

/// What became of a document.
enum Written {
    Now,
    /// The folder is someone else's, or mounted so.
    Never,
}

fn is_read_only(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied)
}

impl KeyStore for Folder {
    fn list(&self) -> Answer<'_, Vec<String>> {
        self.call(FileStore::list)
    }

    fn read<'a>(&'a self, name: &'a str) -> Answer<'a, Stored> {
        let name = name.to_owned();
        self.call(move |store| store.read(&name).map(|bytes| Stored { bytes, version: String::new() }))
    }

    fn write<'a>(&'a self, name: &'a str, before: Option<&'a Stored>, bytes: &'a [u8]) -> Answer<'a, ()> {
        let (name, before, bytes) = (name.to_owned(), before.map(|stored| stored.bytes.clone()), bytes.to_vec());
        Box::pin(async move {
            let written = self.call(move |store| {
                Ok(match store.write(&name, before.as_deref(), &bytes) {
                    Err(crypto::Error::Io(_, error)) if is_read_only(&error) => Written::Never,
                    written => written.map(|()| Written::Now)?,
                })
            });
            match written.await? {
                Written::Now => Ok(()),
                Written::Never => {
                    let why = "it is only read here; `--out FILE` writes the new document to a file, for whoever makes this folder";
                    Err(Failed { what: self.shown.clone(), fault: Fault::ReadOnly, why: why.to_owned() })
                }
            }
        })
    }

    fn forget<'a>(&'a self, _: &'a str) -> Answer<'a, Vec<String>> {
        // A rename leaves nothing of the document before, but what others copied.
        Box::pin(async move { Ok(vec![format!("backups and snapshots of {}", self.shown)]) })
    }
}
