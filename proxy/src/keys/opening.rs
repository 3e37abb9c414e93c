//! From a document's bytes to its keys: shares are unwrapped by as many roots as it takes, at once.

use std::sync::Arc;
use std::time::Duration;

use oilskin_crypto::Slab;
use oilskin_crypto::document::{Opened, Policy, RootEntry, Share, ShareKey, Unopened};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::provider::{Root, twice};
use super::{Failed, Fault, KeyError};

/// A root that has not answered by then gets company: another one is asked as well.
const COMPANY: Duration = Duration::from_millis(250);

/// Opens a document as far as its W.
///
/// # Errors
/// [`KeyError::Crypto`] for what is wrong with it, [`KeyError::Roots`] where too few roots answered.
pub(crate) async fn open(
    bytes: &[u8],
    name: &str,
    roots: &[Arc<Root>],
    slab: &Arc<Slab>,
    policy: Policy,
) -> Result<Opened, KeyError> {
    open_by_some(bytes, name, roots, slab, policy).await.map(|(opened, _)| opened)
}

/// The same; the roots that it did not take are still to be asked, or not.
///
/// # Errors
/// As [`open`].
pub(super) async fn open_by_some(
    bytes: &[u8],
    name: &str,
    roots: &[Arc<Root>],
    slab: &Arc<Slab>,
    policy: Policy,
) -> Result<(Opened, Others), KeyError> {
    let unopened = Unopened::read(bytes, name, policy)?;
    let entries = &unopened.document().roots;
    // Those that have an entry, and those that do not know yet.
    let may = |root: &Arc<Root>| !root.is_known() || entries.iter().any(|entry| root.wraps(entry));
    let (candidates, strangers): (Vec<_>, Vec<_>) = roots.iter().cloned().partition(may);
    let mut asking = Asking {
        // The configuration says which roots there are, and in which order they are asked.
        left: candidates.into_iter(),
        unopened,
        slab: Arc::clone(slab),
        asked: JoinSet::new(),
        unwrapped: Vec::new(),
        heard: strangers.iter().map(|root| (root.shown().to_owned(), Some(no_share(root)))).collect(),
    };
    let opened = asking.open().await?;
    asking.unwrapped.clear();
    Ok((opened, Others(asking)))
}

/// The roots of a document that is open already: what they say shows whether one could take another's place.
pub(super) struct Others(Asking);

/// What a root said, by its URI: nothing where it unwrapped its share.
pub(super) type Heard = (String, Option<KeyError>);

impl Others {
    /// Asks those that were not asked yet, and waits for all.
    pub(super) async fn heard(self) -> Vec<Heard> {
        let Self(mut asking) = self;
        while asking.left.len() > 0 {
            asking.ask_another();
        }
        while let Some(ended) = asking.asked.join_next().await {
            asking.heard.extend(ended.ok().map(|(root, unwrapped)| (root, unwrapped.err())));
        }
        asking.heard
    }
}

/// Lets every root find out which entries are its own.
///
/// # Errors
/// The first root's that does not.
pub(crate) async fn resolve(roots: &[Arc<Root>]) -> Result<(), KeyError> {
    for root in roots {
        root.resolve().await?;
    }
    Ok(())
}

type Unwrapped = (String, Result<(u8, ShareKey), KeyError>);

/// Lets a root unwrap its share of a document.
async fn unwrapped(root: &Root, shares: &[(RootEntry, Share)], slab: &Arc<Slab>) -> Result<(u8, ShareKey), KeyError> {
    root.resolve().await?;
    let Some((entry, share)) = shares.iter().find(|(entry, _)| root.wraps(entry)) else { return Err(no_share(root)) };
    Ok((entry.x, root.unwrap(&entry.wrapped, share, slab).await?))
}

fn no_share(root: &Root) -> KeyError {
    let why = "it wraps no share of this document: `oilskin keys rewrap` gives it one".to_owned();
    Failed { what: root.shown().to_owned(), fault: Fault::Wrong, why }.into()
}

struct Asking {
    unopened: Unopened,
    slab: Arc<Slab>,
    left: std::vec::IntoIter<Arc<Root>>,
    asked: JoinSet<Unwrapped>,
    unwrapped: Vec<(u8, ShareKey)>,
    heard: Vec<Heard>,
}

impl Asking {
    async fn open(&mut self) -> Result<Opened, KeyError> {
        let k = usize::from(self.unopened.document().k);
        // Where there are too few roots this says so at once.
        if self.left.len() < k {
            return Ok(self.unopened.join(&[], &self.slab)?);
        }
        (0..k).for_each(|_| self.ask_another());
        let mut mistaken = None;
        loop {
            let ended = tokio::select! {
                ended = self.asked.join_next() => ended,
                () = sleep(COMPANY), if self.left.len() > 0 => {
                    self.ask_another();
                    continue;
                }
            };
            match ended {
                None => return Err(mistaken.unwrap_or_else(|| self.too_few(k))),
                Some(Ok((root, Ok(share)))) => {
                    self.heard.push((root, None));
                    self.unwrapped.push(share);
                    if self.unwrapped.len() < k {
                        continue;
                    }
                    match self.unopened.join(&self.unwrapped, &self.slab) {
                        Ok(opened) => return Ok(opened),
                        // Perhaps one of the shares is bad: the next may take its place.
                        Err(error) => mistaken = Some(error.into()),
                    }
                }
                Some(Ok((root, Err(error)))) => self.heard.push((root, Some(error))),
                Some(Err(_)) => {}
            }
            self.ask_another();
        }
    }

    fn ask_another(&mut self) {
        let Some(root) = self.left.next() else { return };
        let entries = self.unopened.document().roots.iter();
        let shares: Vec<(RootEntry, Share)> =
            entries.map(|entry| (entry.clone(), self.unopened.share(entry))).collect();
        let slab = Arc::clone(&self.slab);
        self.asked.spawn(async move {
            let unwrapped = unwrapped(&root, &shares, &slab).await;
            (root.shown().to_owned(), unwrapped)
        });
    }

    fn too_few(&self, k: usize) -> KeyError {
        let document = self.unopened.document();
        let refused: Vec<&KeyError> = self.heard.iter().filter_map(|(_, error)| error.as_ref()).collect();
        let denied = refused.iter().filter(|error| error.fault() == Fault::Denied).count();
        let wrong = refused.iter().filter(|error| error.fault() == Fault::Wrong).count();
        let all = refused.len() + self.unwrapped.len();
        let said: Vec<String> = refused.iter().map(ToString::to_string).collect();
        let why = format!(
            "{} of the {k} roots that it takes have unwrapped their shares: {}",
            self.unwrapped.len(),
            said.join("; ")
        );
        let name = document.name.clone();
        // A root that unwraps nothing because the share is not its is as good as none, and waiting makes it no better.
        if denied == 0 && all - wrong < k {
            return KeyError::Provider(super::Failed { what: format!("keyset {name}"), fault: Fault::Wrong, why });
        }
        KeyError::Roots { name, denied: all - denied < k, why }
    }
}

/// Wraps the shares of a document's W by all of these roots: what is written must not open by fewer than were asked for.
///
/// # Errors
/// Two names of one root, or the first root that does not wrap its share.
pub(crate) async fn wrap(opened: &mut Opened, k: u8, roots: &[Arc<Root>]) -> Result<(), KeyError> {
    resolve(roots).await?;
    // A file and its copy, a key's alias and its ARN: whoever holds one holds both, so they are not two of a quorum.
    if let Some((root, same)) = twice(roots) {
        return Err(one_key(root, same));
    }
    let n = u8::try_from(roots.len()).unwrap_or(u8::MAX);
    let mut entries = Vec::with_capacity(roots.len());
    for (at, ((share, mut key), root)) in opened.shares(k, n)?.into_iter().zip(roots).enumerate() {
        let entry = root.wrap(&key, &share).await?;
        // Names that ids do not see through, such as two URIs of one token's key. Where any one opens it they do no harm, and that is how
        // a key is called otherwise.
        for other in roots.iter().take(at).filter(|_| k > 1) {
            if other.opens(&entry, &share, &mut key).await {
                return Err(one_key(other, root));
            }
        }
        entries.push(entry);
    }
    Ok(opened.set_roots(k, entries)?)
}

pub(super) fn one_key(root: &Root, other: &Root) -> KeyError {
    KeyError::Settings(format!("{} and {} are one root key: name it once", root.shown(), other.shown()))
}
