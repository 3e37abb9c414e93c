//! PEM files as a source. inotify on their directories is a hint, a poll every 5 s of what the files are is the truth: kubelet swaps
//! the symlink `..data`, others rename, some write in place.

use std::collections::BTreeSet;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use oilskin_config::Files;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustls::crypto::CryptoProvider;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep, timeout_at};

use super::identities::Identities;
use super::material::{self, Certificate, Material, Refused, Trust};

/// How often files are compared with what was read.
const POLL: Duration = Duration::from_secs(5);

/// A change is read after this much quiet …
const QUIET: Duration = Duration::from_millis(20);

/// … or after this, if there is none.
const PATIENCE: Duration = Duration::from_millis(100);

/// Files that do not fit each other are told after this: someone may be half through writing them.
const GRACE: Duration = Duration::from_secs(2);

/// How often they are tried again until then.
const AGAIN: Duration = Duration::from_millis(100);

/// Reads all files.
///
/// # Errors
/// What is wrong with which.
pub(super) fn load(files: &Files, provider: &CryptoProvider) -> Result<Material, Refused> {
    let mut material = Material::default();
    if let Some((chain, key)) = &files.certificate {
        let pem = material::read(chain)?;
        let chain_der = material::certificates(&pem).map_err(|refused| in_file(chain, refused))?;
        let pem = zeroize::Zeroizing::new(material::read(key)?);
        let private = material::private_key(&pem).map_err(|refused| in_file(key, refused))?;
        let whole = Certificate::new(chain_der, private, provider);
        material.certificate = Some(whole.map_err(|refused| match refused.reason {
            "key" => in_file(key, refused),
            "mismatch" => in_file(key, in_file(chain, refused)),
            _ => in_file(chain, refused),
        })?);
    }
    if let Some(path) = &files.ca {
        let pem = material::read(path)?;
        material.trust = Some(Trust::from_pem(&pem).map_err(|refused| in_file(path, refused))?);
    }
    if let Some(path) = &files.crl {
        let pem = material::read(path)?;
        material.crls = material::crls(&pem).map_err(|refused| in_file(path, refused))?;
    }
    Ok(material)
}

pub(super) fn in_file(path: &Path, refused: Refused) -> Refused {
    Refused { text: format!("{}: {}", path.display(), refused.text), ..refused }
}

fn paths(files: &Files) -> Vec<&Path> {
    let pair = files.certificate.iter().flat_map(|(chain, key)| [chain.as_path(), key.as_path()]);
    pair.chain([&files.ca, &files.crl].into_iter().flatten().map(PathBuf::as_path)).collect()
}

/// What a file is, without reading it: device, inode, change and modification times, size; none where there is none.
pub(crate) type Mark = Option<[i128; 5]>;

pub(crate) fn mark(path: &Path) -> Mark {
    let nanoseconds = |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
    let about = std::fs::metadata(path).ok()?;
    Some([
        about.dev().into(),
        about.ino().into(),
        nanoseconds(about.mtime(), about.mtime_nsec()),
        nanoseconds(about.ctime(), about.ctime_nsec()),
        about.size().into(),
    ])
}

/// Those of a source's files.
pub(super) type Marks = Vec<Mark>;

pub(super) fn marks(files: &Files) -> Marks {
    paths(files).into_iter().map(mark).collect()
}

/// Offers every change until the process ends. `known` is what the files were before they were read first.
pub(super) async fn watch(identities: Arc<Identities>, at: usize, files: Files, mut known: Marks) {
    if paths(&files).is_empty() {
        return;
    }
    let hints = Hints::new(&files);
    // Written again before anyone watched.
    let mut wrong = marks(&files) != known && !offer(&identities, at, &files, &mut known, GRACE).await;
    loop {
        if timeout_at(Instant::now() + POLL, hints.next()).await.is_ok() {
            settle(&hints).await;
        }
        if marks(&files) != known {
            wrong = !offer(&identities, at, &files, &mut known, GRACE).await;
        } else if wrong {
            // Time alone may mend it: a certificate becomes valid, a file system comes back.
            wrong = !offer(&identities, at, &files, &mut known, Duration::ZERO).await;
        }
    }
}

/// Waits until nothing happens for a moment, but not for ever.
async fn settle(hints: &Hints) {
    let latest = Instant::now() + PATIENCE;
    while Instant::now() < latest {
        let quiet = (Instant::now() + QUIET).min(latest);
        if timeout_at(quiet, hints.next()).await.is_err() {
            return;
        }
    }
}

/// Reads and offers; what does not fit is tried again for `grace`, since it may be half written. False where it was refused.
async fn offer(identities: &Arc<Identities>, at: usize, files: &Files, known: &mut Marks, grace: Duration) -> bool {
    let until = Instant::now() + grace;
    *known = marks(files);
    loop {
        let reading = {
            let (files, provider) = (files.clone(), Arc::clone(identities.provider()));
            // A file system may hang; the others must not wait for it.
            tokio::task::spawn_blocking(move || load(&files, &provider)).await
        };
        let offered = match reading {
            Ok(read) => read.and_then(|material| identities.offer(at, material)),
            Err(_) => Err(Refused::new("file", "reading the files failed")),
        };
        // What was read while it changed is read again, whatever came of it.
        let now = marks(files);
        let same = now == *known;
        *known = now;
        match offered {
            Ok(()) if same => return true,
            Err(refused) if Instant::now() >= until => {
                identities.refuse(at, &refused);
                return false;
            }
            _ => sleep(AGAIN).await,
        }
    }
}

/// inotify on the directories; where it cannot be had, the poll does alone.
struct Hints(Option<AsyncFd<OwnedFd>>);

impl Hints {
    fn new(files: &Files) -> Self {
        match Self::watching(files) {
            Ok(fd) => Self(Some(fd)),
            Err(error) => {
                tracing::warn!(target: "oilskin::tls", %error, "no inotify: changes of files are seen within 5 s");
                Self(None)
            }
        }
    }

    fn watching(files: &Files) -> io::Result<AsyncFd<OwnedFd>> {
        let fd = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let flags = WatchFlags::CREATE
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::MOVED_TO
            | WatchFlags::MODIFY
            | WatchFlags::ATTRIB
            | WatchFlags::DELETE;
        let directories: BTreeSet<&Path> = paths(files)
            .into_iter()
            .map(|path| path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new(".")))
            .collect();
        for directory in directories {
            inotify::add_watch(&fd, directory, flags)?;
        }
        #[expect(deprecated, reason = "what it asks of its argument an `OwnedFd` keeps; the new function is unsafe")]
        AsyncFd::new(fd)
    }

    /// Waits for the next hint.
    async fn next(&self) {
        let Some(fd) = &self.0 else { return std::future::pending().await };
        loop {
            let Ok(mut ready) = fd.readable().await else { return std::future::pending().await };
            let read = ready.try_io(|fd| {
                let mut room = [MaybeUninit::uninit(); 4096];
                let mut reader = inotify::Reader::new(fd.get_ref(), &mut room);
                reader.next().map(|_| ()).map_err(io::Error::from)
            });
            match read {
                Ok(Ok(())) => return,
                Ok(Err(error)) => {
                    tracing::debug!(target: "oilskin::tls", %error, "reading inotify");
                    return sleep(POLL).await;
                }
                Err(_) => {}
            }
        }
    }
}
