//! `oilskin keys`: the documents of the configured store.

mod destroy;
mod export;
mod init;
mod list;
mod rewrap;
mod rotate;
#[cfg(feature = "k8s")]
mod sealed;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand, ValueEnum};
use oilskin_config::{Bind, Keys, Vars, Vault};
use oilskin_crypto::document::{Document, Line, RootEntry};
use oilskin_crypto::{Cipher, Slab};
use ring::signature::{Ed25519KeyPair, KeyPair};
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use serde_json::Value;

pub(super) use init::{Beside, make};

use super::{Exit, Printer, read_file};
use crate::keys::{self, Away, Changer, KeyError, Reach, Root, Store, unix_now as now};
use crate::telemetry::Metrics;

/// The keyset that rules use unless they name another.
const DEFAULT_NAME: &str = "default";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a keyset; its root key too, where that is a file which does not exist yet.
    Init(Init),
    /// Show the store's keysets, their versions and states.
    List,
    /// Make a new version and write with it once every replica holds it, which takes three refresh intervals.
    Rotate(Rotate),
    /// Wrap a keyset anew, for other roots or the same; data is not touched.
    Rewrap(Rewrap),
    /// Destroy a version: what was encrypted with it becomes unreadable.
    Destroy(Destroy),
    /// Print a keyset's document, its keys wrapped.
    Export(Export),
    /// Put a document into the store, if its keys open here.
    Import(Import),
}

#[derive(Debug, Args)]
pub(super) struct Rotate {
    /// The keyset.
    #[arg(long, default_value = DEFAULT_NAME)]
    name: String,
    /// Which line: `lookup` changes every deterministic token and index, so it is never due by itself.
    #[arg(long, value_enum, default_value_t = LineWord::Field, conflicts_with = "if_due")]
    line: LineWord,
    /// Cipher of the new version; the last one's unless given.
    #[arg(long, value_enum)]
    alg: Option<Alg>,
    /// Do nothing, successfully, before the version is `keys.rotate_after` old: for a CronJob.
    #[arg(long)]
    if_due: bool,
    /// Write the document to this file instead of its store, for stores that something else writes.
    #[arg(long)]
    out: Option<PathBuf>,
    #[cfg(feature = "k8s")]
    #[command(flatten)]
    sealed: sealed::Words,
    /// Ed25519 key (PKCS#8, PEM) that signs it, where keysets are signed.
    #[arg(long)]
    signer_key: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Rewrap {
    /// The keyset.
    #[arg(long, default_value = DEFAULT_NAME)]
    name: String,
    /// Root keys that are to open it from now on, separated by spaces; those configured unless given.
    #[arg(long)]
    roots: Option<String>,
    /// How many of them it takes: any, all, quorum:K; as configured unless given.
    #[arg(long)]
    hold: Option<String>,
    /// Ed25519 key (PKCS#8, PEM) that signs it, where keysets are signed.
    #[arg(long)]
    signer_key: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Destroy {
    /// The version: at least eight characters of its key id.
    key_id: String,
    /// The keyset.
    #[arg(long, default_value = DEFAULT_NAME)]
    name: String,
    /// Do not ask for the keyset's name to be typed.
    #[arg(long)]
    yes: bool,
    /// Destroy it although replicas may still use it.
    #[arg(long)]
    force: bool,
    /// Ed25519 key (PKCS#8, PEM) that signs it, where keysets are signed.
    #[arg(long)]
    signer_key: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct Export {
    /// The keyset.
    #[arg(long, default_value = DEFAULT_NAME)]
    name: String,
    /// Write it to this file.
    #[arg(long)]
    out: Option<PathBuf>,
    #[cfg(feature = "k8s")]
    #[command(flatten)]
    sealed: sealed::Words,
}

#[derive(Debug, Args)]
pub(super) struct Import {
    /// The document.
    file: PathBuf,
    /// The keyset.
    #[arg(long, default_value = DEFAULT_NAME)]
    name: String,
}

/// A line, as it is said on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LineWord {
    /// Random fields.
    Field,
    /// Deterministic fields and indexes.
    Lookup,
}

impl LineWord {
    fn line(self) -> Line {
        match self {
            Self::Field => Line::Field,
            Self::Lookup => Line::Lookup,
        }
    }
}

#[derive(Debug, Args)]
pub(super) struct Init {
    /// Its name.
    #[arg(long, default_value = DEFAULT_NAME)]
    name: String,
    /// Its cipher.
    #[arg(long, value_enum, default_value_t = Alg::Xchacha20Poly1305)]
    alg: Alg,
    /// Do nothing, successfully, where the keyset exists already: for init containers.
    #[arg(long)]
    if_missing: bool,
    /// Make it although this root key opens none of the keysets that the store holds.
    #[arg(long)]
    another_root: bool,
    /// Make it although a running process holds a keyset of this name, which the store has lost.
    #[arg(long)]
    force: bool,
    /// Ed25519 key (PKCS#8, PEM) that signs it, where keysets are signed.
    #[arg(long)]
    signer_key: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Alg {
    /// XChaCha20-Poly1305: fast on every processor.
    #[value(name = "xchacha20-poly1305")]
    Xchacha20Poly1305,
    /// AEGIS-256: faster where the processor has AES instructions.
    #[value(name = "aegis-256")]
    Aegis256,
}

impl Alg {
    fn cipher(self) -> Cipher {
        match self {
            Self::Xchacha20Poly1305 => Cipher::XChaCha20Poly1305,
            Self::Aegis256 => Cipher::Aegis256,
        }
    }
}

pub(super) fn run(command: &Command, vars: &Vars, printer: &Printer) -> Exit {
    let settings = match oilskin_config::parse_keys(vars, &read_file) {
        Ok(settings) => settings,
        Err(problems) => return printer.problems(&problems),
    };
    printer.warns(&settings.warnings);
    let desk = Desk::new(&settings.keys, settings.vault.as_ref(), settings.slab, settings.unsafe_unlocked_keys);
    let (desk, away) = match desk {
        Ok((desk, away)) => (Desk { admin: settings.admin, ..desk }, away),
        Err(error) => return printer.failed(error),
    };
    let work = async {
        match command {
            Command::Init(init) => self::init::init(init, &desk, printer).await,
            Command::List => list::list(&desk, printer).await,
            Command::Rotate(rotate) => self::rotate::rotate(rotate, &desk, printer).await,
            Command::Rewrap(rewrap) => self::rewrap::rewrap(rewrap, &desk, printer).await,
            Command::Destroy(destroy) => self::destroy::destroy(destroy, &desk, printer).await,
            Command::Export(export) => self::export::export(export, &desk, printer).await,
            Command::Import(import) => self::export::import(import, &desk, printer).await,
        }
    };
    match keys::at_once(away.during(work)).and_then(|done| done) {
        Ok(()) => Exit::Done,
        Err(error) => printer.failed(error),
    }
}

/// What a command over keys works with.
pub(super) struct Desk {
    pub(super) keys: Keys,
    pub(super) slab: Arc<Slab>,
    pub(super) store: Store,
    reach: Reach,
    admin: Option<Bind>,
}

impl Desk {
    /// The second has to be there for as long as the first is worked with.
    ///
    /// # Errors
    /// Memory that cannot be locked, or certificates on the way to Vault.
    pub(super) fn new(
        keys: &Keys,
        vault: Option<&Vault>,
        slab: usize,
        unlocked_is_fine: bool,
    ) -> Result<(Self, Away), KeyError> {
        let (away, reach) = Away::open(vault, &Arc::new(Metrics::new()))?;
        let slab = Slab::new(slab, unlocked_is_fine)?;
        let store = keys::store(keys, &reach)?;
        Ok((Self { keys: keys.clone(), slab, store, reach, admin: None }, away))
    }

    /// What a running process with these settings says of its keysets; none where there is none to ask.
    async fn in_use(&self) -> Option<Value> {
        super::admin::ask(self.admin.as_ref()?, "/keys").await.ok()
    }

    /// The configured roots.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    fn roots(&self) -> Result<Vec<Arc<Root>>, KeyError> {
        self.roots_of(&self.keys)
    }

    fn roots_of(&self, keys: &Keys) -> Result<Vec<Arc<Root>>, KeyError> {
        let (roots, wrong) = keys::roots(keys, &self.slab, &self.reach);
        KeyError::all(wrong).map(|()| roots)
    }

    fn changer<'a>(&'a self, roots: &'a [Arc<Root>], signer: Option<&'a Ed25519KeyPair>) -> Changer<'a> {
        let policy = keys::policy(&self.keys);
        Changer { store: &self.store, roots, slab: &self.slab, policy, signer }
    }

    /// The key that signs documents.
    ///
    /// # Errors
    /// A file that holds none, or another than the configured signer's.
    fn signer(&self, path: Option<&Path>) -> Result<Option<Ed25519KeyPair>, KeyError> {
        let Some(path) = path else { return Ok(None) };
        let wrong = |why: &str| KeyError::Settings(format!("{}: {why}", path.display()));
        let key = PrivatePkcs8KeyDer::from_pem_file(path)
            .map_err(|_| wrong("no private key in it (PKCS#8, PEM); `openssl genpkey -algorithm ed25519` makes one"))?;
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.secret_pkcs8_der())
            .map_err(|_| wrong("its key is not Ed25519"))?;
        let is_other = self.keys.signer.is_some_and(|signer| signer.as_slice() != pair.public_key().as_ref());
        match is_other {
            true => Err(wrong("its public key is not OILSKIN_KEYSET_SIGNER: replicas would refuse what it signs")),
            false => Ok(Some(pair)),
        }
    }

    /// Removes earlier documents, once the new one is written; says which are left. What keeps them fails nothing: the change is made.
    async fn forget_earlier(&self, name: &str, printer: &Printer) -> Vec<String> {
        self.store.forget(name).await.unwrap_or_else(|error| {
            let kept = format!("earlier documents of keyset {name}, which could not be removed: {error}");
            printer.progress(format_args!("The new document is written. Left are {kept}"));
            vec![kept]
        })
    }

    /// A new W is wrapped by the configured roots alone: one that is not configured would silently lose the keyset.
    fn knows_all_roots(&self, document: &Document, roots: &[Arc<Root>]) -> Result<(), KeyError> {
        let known = document.roots.iter().all(|entry| roots.iter().any(|root| root.wraps(entry)));
        match known && document.k == self.keys.k() {
            true => Ok(()),
            false => Err(KeyError::Unsupported(
                "the document's roots are not those configured here: `oilskin keys rewrap` makes them so, or set OILSKIN_ROOT_KEY \
                 and OILSKIN_ROOT_HOLD as they were",
            )),
        }
    }
}

/// A root of a document: as it is configured here, else by its id.
fn root_named(entry: &RootEntry, roots: &[Arc<Root>]) -> String {
    if let Some(root) = roots.iter().find(|root| root.wraps(entry)) {
        return root.shown().to_owned();
    }
    // Paths in Vault and ARNs are text; the others' ids are hashes.
    let id = match std::str::from_utf8(&entry.id) {
        Ok(id) if id.bytes().all(|byte| byte.is_ascii_graphic()) => id.to_owned(),
        _ => hex(entry.id.get(..8).unwrap_or(&entry.id)),
    };
    format!("{}:{id} (not configured here)", entry.kind)
}

/// Writes a file whole or not at all.
fn save(path: &Path, bytes: &[u8]) -> Result<(), KeyError> {
    let failed = |error: std::io::Error| KeyError::Settings(format!("{}: {error}", path.display()));
    let name = path.file_name().ok_or_else(|| failed(std::io::ErrorKind::IsADirectory.into()))?;
    let partial = path.with_file_name(format!(".{}.new", name.display()));
    let written = std::fs::File::create(&partial)
        .and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&partial, path));
    written.map_err(|error| {
        let _ = std::fs::remove_file(&partial);
        failed(error)
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
