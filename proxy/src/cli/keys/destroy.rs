//! `oilskin keys destroy`: what was encrypted with a version becomes unreadable for ever.

use std::io::{BufRead, IsTerminal};

use oilskin_crypto::document::{Document, State, VersionEntry};
use serde_json::{Value, json};

use super::list::in_traffic;
use super::{Desk, Destroy, hex, now};
use crate::cli::Printer;
use crate::keys::{self, KeyError, no_version, retired_for};

pub(super) async fn destroy(words: &Destroy, desk: &Desk, printer: &Printer) -> Result<(), KeyError> {
    let roots = desk.roots()?;
    let signer = desk.signer(words.signer_key.as_deref())?;
    let changer = desk.changer(&roots, signer.as_ref());
    changer.may_write()?;
    let (opened, _) = changer.open(&words.name).await?;
    let document = opened.document();
    if words.key_id.len() < SHORTEST {
        return Err(KeyError::Settings(format!("{}: say at least {SHORTEST} characters of the key id", words.key_id)));
    }
    let version = found(document, &words.key_id).ok_or_else(|| no_version(&words.name))?;
    let (id, shown) = (version.key_id, hex(&version.key_id[..8]));
    keys::resolve(&roots).await?;
    desk.knows_all_roots(document, &roots)?;
    let in_use = desk.in_use().await;
    if !words.force {
        may_go(document, version, in_use.as_ref(), desk)?;
    }
    if !words.yes {
        confirmed(&words.name, &shown, printer)?;
    }
    let (k, now) = (desk.keys.k(), now());
    let (_, epoch) = changer
        .renew(&words.name, (k, &roots), now, |document| {
            let found = document.versions.iter().find(|found| found.key_id == id);
            let is_there = found.is_none_or(|found| found.state != State::Destroyed);
            is_there.then(|| vec![id])
        })
        .await?;
    let copies = desk.forget_earlier(&words.name, printer).await;
    let mut text = format!(
        "keyset {}: version {shown} is destroyed, epoch {epoch}. Tokens of it open nowhere any more where this document is held.\n\
         Not shredded: whoever has an older copy of the document and its root key can still open it. Copies that this command \
         cannot reach:",
        words.name
    );
    for copy in &copies {
        text.push_str(&format!("\n  {copy}"));
    }
    if in_use.is_none() {
        text.push_str("\nNo running process was there to say whether its tokens are still read: oilskin_fields_total{result=\"stale\"} of all says.");
    }
    let result = json!({
        "ok": true, "keyset": words.name, "key_id": shown, "state": "destroyed", "epoch": epoch, "shredded": false, "copies": copies,
    });
    printer.result(text, &result);
    Ok(())
}

/// Characters of a key id, at least: what is destroyed must not be meant by chance.
const SHORTEST: usize = 8;

/// A version that was met within this many seconds is still in use.
const LATELY: u64 = 7 * 86_400;

/// The one version whose id begins so.
pub(super) fn found<'a>(document: &'a Document, key_id: &str) -> Option<&'a VersionEntry> {
    let mut found = document.versions.iter().filter(|version| hex(&version.key_id).starts_with(key_id));
    found.next().filter(|_| key_id.len() >= SHORTEST && found.next().is_none())
}

fn may_go(document: &Document, version: &VersionEntry, in_use: Option<&Value>, desk: &Desk) -> Result<(), KeyError> {
    if version.state == State::Active {
        return Err(KeyError::Unsupported("that version is active: `oilskin keys rotate` first"));
    }
    let retired = retired_for(document, &version.key_id, now());
    if retired.is_some_and(|retired| retired < desk.keys.stale_decrypt) {
        return Err(KeyError::Unsupported(
            "that version was retired within stale_decrypt: replicas that are cut off still write with it (--force goes on)",
        ));
    }
    let last = in_traffic(in_use, &document.name, version).and_then(|traffic| traffic.last_read);
    if last.is_some_and(|last| now().saturating_sub(last) < LATELY) {
        return Err(KeyError::Unsupported(
            "tokens of that version were read within a week: `oilskin rewrap` the data first (--force goes on)",
        ));
    }
    Ok(())
}

/// Asks for the keyset's name, typed.
fn confirmed(name: &str, version: &str, printer: &Printer) -> Result<(), KeyError> {
    if !std::io::stdin().is_terminal() {
        return Err(KeyError::Unsupported("nobody is there to confirm it: say --yes"));
    }
    printer.progress(format_args!(
        "Everything encrypted with version {version} of keyset {name} becomes unreadable. `oilskin rewrap` saves what is needed.\n\
         Type the keyset's name to go on:"
    ));
    let mut typed = String::new();
    let read = std::io::stdin().lock().read_line(&mut typed);
    match read.is_ok() && typed.trim() == name {
        true => Ok(()),
        false => Err(KeyError::Unsupported("that is not its name; nothing was changed")),
    }
}
