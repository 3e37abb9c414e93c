//! The folder that an authority is kept in. One process at a time is in it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{FlockOperation, flock};
use rustls::crypto::CryptoProvider;

use super::CLIENT as CLIENT_LIFE;
use super::authority::{Authority, Purpose};
use crate::tls::material::{self, Certificate, Refused};

/// Key and certificate of the authority.
const AUTHORITY: &str = "authority.pem";

/// The certificate alone, for those who check ours.
pub(super) const CA: &str = "ca.pem";

pub(super) const CLIENT: &str = "client.pem";
pub(super) const CLIENT_KEY: &str = "client.key";

const MEND: &str = "nothing here is replaced: put back what was there, or remove the folder to have another authority made, whose ca.pem \
                    all must take then";

/// A folder, locked.
pub(super) struct Folder {
    path: PathBuf,
    /// The lock is this descriptor's, and ends with it, however we end.
    _lock: File,
}

fn failed(path: &Path, error: &io::Error) -> Refused {
    Refused::new("file", format!("{}: {error}", path.display()))
}

impl Folder {
    /// Makes it if it is not there, and waits until no other process is in it: none stays longer than a few files take.
    pub(super) fn open(path: &Path) -> Result<Self, Refused> {
        let open = || {
            DirBuilder::new().recursive(true).mode(0o700).create(path)?;
            let lock = File::open(path)?;
            flock(&lock, FlockOperation::LockExclusive)?;
            Ok(lock)
        };
        let lock = open().map_err(|error| failed(path, &error))?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    fn has(&self, file: &str) -> bool {
        self.path.join(file).exists()
    }

    /// The authority that is kept here, if there is one.
    ///
    /// # Errors
    /// It is broken, or others may read it.
    pub(super) fn authority(&self, provider: &CryptoProvider) -> Result<Option<Authority>, Refused> {
        let path = self.path.join(AUTHORITY);
        let wrong = |what: &str| Refused::new("authority", format!("{}: {what}; {MEND}", path.display()));
        if !path.exists() {
            return match self.has(CA) {
                true => Err(wrong("it is gone, and its certificate, ca.pem, is still there")),
                false => Ok(None),
            };
        }
        let mode = std::fs::metadata(&path).map_err(|error| failed(&path, &error))?.mode() & 0o777;
        if mode & 0o077 != 0 {
            let text = format!("{}: its mode is {mode:03o}; others must not read it: chmod 600", path.display());
            return Err(Refused::new("authority", text));
        }
        let text = zeroize::Zeroizing::new(material::read(&path)?);
        Authority::read(&text, provider).map(Some).map_err(|refused| wrong(&refused.text))
    }

    /// Keeps a new one.
    pub(super) fn keep(&self, authority: &Authority) -> Result<(), Refused> {
        self.write(".gitignore", "*\n")?;
        // First: killed between the two, we leave no certificate that is not the authority's.
        match std::fs::remove_file(self.path.join(CA)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&self.path.join(CA), &error)),
            _ => {}
        }
        self.write(AUTHORITY, &authority.kept())
    }

    /// Puts the authority's certificate where others can take it.
    ///
    /// # Errors
    /// `authority`: another one lies there.
    pub(super) fn show(&self, authority: &Authority) -> Result<(), Refused> {
        if !self.has(CA) {
            return self.write(CA, &authority.pem);
        }
        let path = self.path.join(CA);
        let wrong = |what: &str| Refused::new("authority", format!("{}: {what}; {MEND}", path.display()));
        let shown = material::certificates(&material::read(&path)?).map_err(|refused| wrong(&refused.text))?;
        match shown.as_slice() == std::slice::from_ref(&authority.certificate) {
            true => Ok(()),
            false => Err(wrong("it is not the certificate of authority.pem beside it")),
        }
    }

    /// A pair for a client such as curl. Nobody is hurt if it is made anew, so that is done whenever it is not good.
    pub(super) fn keep_client(
        &self,
        authority: &Authority,
        now: SystemTime,
        provider: &CryptoProvider,
    ) -> Result<(), Refused> {
        let lasts =
            |pair: Certificate| pair.facts.issuer == authority.name && pair.facts.not_after > now + CLIENT_LIFE / 2;
        if self.client(provider).is_ok_and(lasts) {
            return Ok(());
        }
        let (certificate, key) = authority.sign(&[], Purpose::Client, now, CLIENT_LIFE)?;
        self.write(CLIENT_KEY, &zeroize::Zeroizing::new(key.serialize_pem()))?;
        self.write(CLIENT, &certificate.pem())
    }

    fn client(&self, provider: &CryptoProvider) -> Result<Certificate, Refused> {
        let chain = material::certificates(&material::read(&self.path.join(CLIENT))?)?;
        let key = zeroize::Zeroizing::new(material::read(&self.path.join(CLIENT_KEY))?);
        Certificate::new(chain, material::private_key(&key)?, provider)
    }

    /// Under another name first: nobody finds half a file.
    fn write(&self, file: &str, text: &str) -> Result<(), Refused> {
        let (path, partial) = (self.path.join(file), self.path.join(format!(".{file}.new")));
        let write = || {
            let mut out = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
            out.write_all(text.as_bytes())?;
            out.sync_all()?;
            std::fs::rename(&partial, &path)
        };
        write().map_err(|error| failed(&path, &error))
    }
}
