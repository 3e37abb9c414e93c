//! `oilskin keys init`.

use std::path::Path;
use std::sync::Arc;

use oilskin_config::{Keys, Root as RootSetting};
use oilskin_crypto::document::{self, NewKeyset, Opened};
use oilskin_crypto::{Cipher, Error, FileRoot, Slab};
use serde_json::{Value, json};

use super::{Desk, Init, now};
use crate::cli::Printer;
use crate::keys::{self, Fault, KeyError, Root};

pub(super) async fn init(words: &Init, desk: &Desk, printer: &Printer) -> Result<(), KeyError> {
    let there = words.if_missing && desk.store.read(&words.name).await.is_ok();
    let made = match there {
        true => Made { roots: Vec::new(), keyset: false },
        false => {
            if !words.force {
                held_elsewhere(&words.name, desk).await?;
            }
            let beside = if words.another_root { Beside::AnotherRoot } else { Beside::ThisRoot };
            make(desk, &words.name, words.alg.cipher(), beside, words.signer_key.as_deref()).await?
        }
    };
    if !made.keyset && !words.if_missing {
        return Err(Error::Exists(words.name.clone()).into());
    }
    let mut text = String::new();
    for root in &made.roots {
        text.push_str(&format!("made root key {root}\n"));
    }
    match made.keyset {
        true => text.push_str(&format!("made keyset {}", words.name)),
        false => text.push_str(&format!("keyset {} exists already", words.name)),
    }
    if !made.roots.is_empty() {
        text.push_str("\nKeep a copy of the root key where this machine cannot lose it: without it nothing opens.");
    }
    let mut document = json!({"ok": true, "keyset": words.name, "roots_made": made.roots});
    if let Some(members) = document.as_object_mut().filter(|_| !made.keyset) {
        members.insert("exists".to_owned(), true.into());
    }
    printer.result(text, &document);
    Ok(())
}

/// A keyset that a running process holds and the store has lost is to be put back: under a new one its tokens would open nowhere.
async fn held_elsewhere(name: &str, desk: &Desk) -> Result<(), KeyError> {
    let in_use = desk.in_use().await;
    // Another process of this machine may have a keyset of that name in a store of its own.
    let in_use = in_use.filter(|in_use| in_use.get("store").and_then(Value::as_str) == Some(desk.store.shown()));
    let keysets = in_use.as_ref().and_then(|in_use| in_use.get("keysets")?.as_array());
    let is_held = keysets.into_iter().flatten().any(|keyset| {
        let versions = keyset.get("versions").and_then(Value::as_array);
        keyset.get("name").and_then(Value::as_str) == Some(name)
            && versions.is_some_and(|versions| !versions.is_empty())
    });
    // A store that does not answer has lost nothing; that it does not is said by whoever writes.
    let is_lost = desk.store.read(name).await.is_err_and(|error| error.fault() == Fault::Missing);
    match is_held && is_lost {
        true => Err(KeyError::Settings(format!(
            "keyset {name}: the process that runs here holds one, so the store has lost its document: put a copy of that back \
             (`oilskin keys import`, or the store's backup), for data written with it opens by no other (or say --force)"
        ))),
        false => Ok(()),
    }
}

/// Whose keysets a new one may stand beside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Beside {
    /// Only those of which its root keys open at least one.
    ThisRoot,
    /// Any.
    AnotherRoot,
}

/// What was not there before.
pub(in crate::cli) struct Made {
    /// Paths of root key files.
    roots: Vec<String>,
    /// False where the keyset is there already, perhaps made by another process meanwhile.
    keyset: bool,
}

/// Makes a keyset, and root key files that are not there yet.
pub(in crate::cli) async fn make(
    desk: &Desk,
    name: &str,
    cipher: Cipher,
    beside: Beside,
    signer_key: Option<&Path>,
) -> Result<Made, KeyError> {
    let signer = desk.signer(signer_key)?;
    desk.changer(&[], signer.as_ref()).may_write()?;
    // Before a root is made: a name that is taken or wrong leaves nothing behind.
    match desk.store.read(name).await {
        Err(error) if error.fault() == Fault::Missing => {}
        Ok(_) => return Ok(Made { roots: Vec::new(), keyset: false }),
        Err(error) => return Err(error),
    }
    // Before roots are looked for: another process makes its root first, so what it made meanwhile is never a stranger's.
    let others = if beside == Beside::ThisRoot { desk.store.list().await? } else { Vec::new() };
    let made = make_roots(&desk.keys, &others, &desk.slab)?;
    let roots = desk.roots()?;
    known_roots(&roots, desk, &others).await?;
    let new = NewKeyset {
        name,
        cipher,
        development: desk.keys.development,
        refresh: desk.keys.refresh.as_secs(),
        now: now(),
    };
    let mut opened = Opened::create(new, &desk.slab)?;
    keys::wrap(&mut opened, desk.keys.k(), &roots).await?;
    match desk.store.write(name, None, &opened.write(signer.as_ref())?).await {
        Ok(()) => Ok(Made { roots: made, keyset: true }),
        Err(error) if error.fault() == Fault::Conflict => Ok(Made { roots: made, keyset: false }),
        Err(error) => Err(error),
    }
}

fn make_roots(settings: &Keys, others: &[String], slab: &Arc<Slab>) -> Result<Vec<String>, KeyError> {
    let mut made = Vec::new();
    let passphrase = keys::passphrase(settings)?;
    for root in &settings.roots {
        let RootSetting::File(path) = root else { continue };
        if path.exists() {
            continue;
        }
        // A new root beside keysets of another: more likely a wrong path or an unmounted disk than a wish.
        if !others.is_empty() {
            let why = "it does not exist, but the store holds keysets that another root key wraps; put that one back \
                       (or say --another-root)";
            return Err(Error::Root { what: path.display().to_string(), why: why.to_owned() }.into());
        }
        match FileRoot::make(path, passphrase.as_ref().map(|text| text.as_slice()), slab) {
            Ok(_) => made.push(path.display().to_string()),
            // Another process was faster; its root is as good.
            Err(Error::RootExists(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(made)
}

/// A keyset under a root that wraps none of the others would be opened by no replica that can read those.
async fn known_roots(roots: &[Arc<Root>], desk: &Desk, others: &[String]) -> Result<(), KeyError> {
    let Some(first) = others.first() else { return Ok(()) };
    keys::resolve(roots).await?;
    for name in others {
        let stored = desk.store.read(name).await;
        let document = stored.and_then(|stored| Ok(document::read(&stored.bytes, name)?));
        let entries = document.map(|document| document.roots).unwrap_or_default();
        if entries.iter().any(|entry| roots.iter().any(|root| root.wraps(entry))) {
            return Ok(());
        }
    }
    let shown: Vec<&str> = roots.iter().map(|root| root.shown()).collect();
    let why = format!(
        "the store holds keysets that this root key does not open, such as {first}; give the one that does, or another \
         store (or say --another-root)"
    );
    Err(Error::Root { what: shown.join(", "), why }.into())
}
