//! Documents whose every root is a file: opened and made at once, with nothing to wait for.

use std::sync::Arc;

use super::{NewKeyset, Opened, Policy, RootEntry, Unopened};
use crate::keyset::{DEFAULT_MAX_USES, Keyset};
use crate::slab::Slab;
use crate::{Error, FileRoot};

/// Checks a document and opens its keys, in this order: signature, shares, MAC, epoch, versions.
///
/// # Errors
/// [`Error::Document`] for what is wrong with it, [`Error::Root`] where its share does not open.
pub fn open(bytes: &[u8], name: &str, roots: &[FileRoot], slab: &Arc<Slab>, policy: Policy) -> Result<Keyset, Error> {
    opened(bytes, name, roots, slab, policy)?.keyset(None, DEFAULT_MAX_USES)
}

/// The same up to its W, for changes.
///
/// # Errors
/// As [`open`].
pub fn opened(bytes: &[u8], name: &str, roots: &[FileRoot], slab: &Arc<Slab>, policy: Policy) -> Result<Opened, Error> {
    let unopened = Unopened::read(bytes, name, policy)?;
    let mut unwrapped = Vec::new();
    let mut refused = None;
    for entry in &unopened.document().roots {
        let Some(root) = roots.iter().find(|root| root.wraps(entry)) else { continue };
        match root.unwrap_share(&entry.wrapped, &unopened.share(entry), slab) {
            Ok(share) => unwrapped.push((entry.x, share)),
            Err(error) => refused = Some(error),
        }
    }
    match refused {
        Some(error) if unwrapped.len() < usize::from(unopened.document().k) => Err(error),
        _ => unopened.join(&unwrapped, slab),
    }
}

/// Makes a keyset that any `k` of these roots open.
///
/// # Errors
/// As [`Opened::create`] and [`Opened::shares`].
pub fn create(new: NewKeyset<'_>, k: u8, roots: &[FileRoot], slab: &Arc<Slab>) -> Result<Vec<u8>, Error> {
    let mut opened = Opened::create(new, slab)?;
    wrap(&mut opened, k, roots)?;
    opened.write(None)
}

/// Wraps the shares of an opened document's W by these roots.
///
/// # Errors
/// As [`Opened::shares`].
pub fn wrap(opened: &mut Opened, k: u8, roots: &[FileRoot]) -> Result<(), Error> {
    let n = u8::try_from(roots.len()).unwrap_or(u8::MAX);
    let mut entries = Vec::new();
    for ((share, key), root) in opened.shares(k, n)?.into_iter().zip(roots) {
        let wrapped = root.wrap_share(&key, &share)?;
        entries.push(RootEntry { id: root.id().to_vec(), kind: FileRoot::KIND.to_owned(), x: share.x, wrapped });
    }
    opened.set_roots(k, entries)
}
