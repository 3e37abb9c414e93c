//! `oilskin keys export` and `import`: a document, with its keys wrapped, from one store to another.

use oilskin_crypto::document;
use serde_json::json;

use super::{Desk, Export, Import, save};
use crate::cli::Printer;
use crate::keys::{self, Fault, KeyError};

pub(super) async fn export(words: &Export, desk: &Desk, printer: &Printer) -> Result<(), KeyError> {
    let stored = desk.store.read(&words.name).await?;
    // What is not even a document is not passed on.
    let document = document::read(&stored.bytes, &words.name)?;
    #[cfg(feature = "k8s")]
    let bytes = words.sealed.formed(&words.name, desk, stored.bytes)?;
    #[cfg(not(feature = "k8s"))]
    let bytes = stored.bytes;
    match &words.out {
        Some(out) => {
            save(out, &bytes)?;
            let text = format!("keyset {}: written to {}, epoch {}", words.name, out.display(), document.epoch);
            printer.result(text, &json!({"ok": true, "keyset": words.name, "epoch": document.epoch}));
        }
        None => printer.raw(&bytes),
    }
    Ok(())
}

pub(super) async fn import(words: &Import, desk: &Desk, printer: &Printer) -> Result<(), KeyError> {
    let bytes =
        std::fs::read(&words.file).map_err(|error| KeyError::Settings(format!("{}: {error}", words.file.display())))?;
    let roots = desk.roots()?;
    let name = &words.name;
    // Only what opens here replaces what does.
    let opened = keys::open(&bytes, name, &roots, &desk.slab, keys::policy(&desk.keys)).await?;
    let epoch = opened.document().epoch;
    let before = match desk.store.read(name).await {
        Ok(stored) => Some(stored),
        Err(error) if error.fault() == Fault::Missing => None,
        Err(error) => return Err(error),
    };
    if let Some(stored) = &before {
        let held = document::read(&stored.bytes, name)?.epoch;
        if stored.bytes != bytes && held >= epoch {
            return Err(KeyError::Settings(format!(
                "keyset {name}: the store holds epoch {held}, the file {epoch}: replicas would refuse it"
            )));
        }
    }
    if before.as_ref().is_none_or(|stored| stored.bytes != bytes) {
        desk.store.write(name, before.as_ref(), &bytes).await?;
    }
    let text = format!("keyset {name}: epoch {epoch} is in {}", desk.store.shown());
    printer.result(text, &json!({"ok": true, "keyset": name, "epoch": epoch}));
    Ok(())
}
