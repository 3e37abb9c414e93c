//! `oilskin keys rewrap`: other roots, or a new wrapping key; data is not touched.

use std::sync::Arc;

use oilskin_config::{Hold, Keys};
use serde_json::json;

use super::{Desk, Rewrap, now, root_named};
use crate::cli::Printer;
use crate::keys::{KeyError, Root};

pub(super) async fn rewrap(words: &Rewrap, desk: &Desk, printer: &Printer) -> Result<(), KeyError> {
    let before = desk.roots()?;
    let signer = desk.signer(words.signer_key.as_deref())?;
    let changer = desk.changer(&before, signer.as_ref());
    let (roots, keys) = new_roots(words, desk, &before)?;
    let (k, now) = (keys.k(), now());
    let (was, epoch) = changer.renew(&words.name, (k, &roots), now, |_| Some(Vec::new())).await?;
    let removed = was.roots.iter().filter(|entry| !roots.iter().any(|root| root.wraps(entry)));
    let removed: Vec<String> = removed.map(|entry| root_named(entry, &before)).collect();
    let copies = desk.forget_earlier(&words.name, printer).await;
    let shown: Vec<&str> = roots.iter().map(|root| root.shown()).collect();
    let mut text = format!("keyset {}: any {k} of {} open it now, epoch {epoch}", words.name, shown.join(", "));
    if !removed.is_empty() {
        text.push_str(&format!(
            "\nRemoved: {}. With an older copy of the document they still open every key that was in it: to end that, rotate, \
             re-encrypt the data (`oilskin rewrap`) and destroy the old versions. Copies that this command cannot reach:",
            removed.join(", ")
        ));
        for copy in &copies {
            text.push_str(&format!("\n  {copy}"));
        }
    }
    if words.roots.is_some() {
        text.push_str("\nSet OILSKIN_ROOT_KEY and OILSKIN_ROOT_HOLD to this everywhere.");
    }
    let result = json!({"ok": true, "keyset": words.name, "epoch": epoch, "k": k, "roots": shown, "removed": removed, "copies": copies});
    printer.result(text, &result);
    Ok(())
}

/// The roots that are to open it, and how many of them it takes.
fn new_roots(words: &Rewrap, desk: &Desk, before: &[Arc<Root>]) -> Result<(Vec<Arc<Root>>, Keys), KeyError> {
    let mut keys = desk.keys.clone();
    if let Some(hold) = &words.hold {
        keys.hold = oilskin_config::parse_hold(hold).map_err(KeyError::Settings)?;
    }
    let Some(text) = &words.roots else { return Ok((before.to_vec(), keys)) };
    let roots: Result<Vec<_>, _> = text.split_whitespace().map(oilskin_config::parse_root).collect();
    keys.roots = roots.map_err(KeyError::Settings)?;
    if keys.roots.is_empty() || matches!(keys.hold, Hold::Quorum(k) if k.get() > keys.roots.len()) {
        return Err(KeyError::Unsupported("--hold asks for more roots than --roots names"));
    }
    let roots = desk.roots_of(&keys)?;
    Ok((roots, keys))
}
