//! `oilskin keys rotate`: a new version, promoted once every replica holds it.

use std::path::Path;
use std::time::Duration;

use oilskin_config::Store;
use oilskin_crypto::Cipher;
use oilskin_crypto::document::{self, Document, Line, Opened};
use serde_json::json;
use tokio::time::sleep;

use super::{Desk, Rotate, hex, now, save};
use crate::cli::Printer;
use crate::keys::{Change, Changer, KeyError, Step, Stored, Watch, boot_now, is_due};

pub(super) async fn rotate(words: &Rotate, desk: &Desk, printer: &Printer) -> Result<(), KeyError> {
    let roots = desk.roots()?;
    let signer = desk.signer(words.signer_key.as_deref())?;
    let changer = desk.changer(&roots, signer.as_ref());
    changer.may_write()?;
    #[cfg(feature = "k8s")]
    if words.sealed.is_asked() && words.out.is_none() {
        return Err(KeyError::Unsupported("--sealed-secret asks for --out: the manifest's file"));
    }
    let rotation = Rotation { words, desk, line: words.line.line(), changer: &changer };
    let (opened, stored) = changer.open(&words.name).await?;
    let document = opened.document();
    if let Some(out) = &words.out {
        rotation.may_write_to(out, document.epoch)?;
    }
    let is_pending = document.pending(rotation.line).is_some();
    if words.if_due && !is_pending && !is_due(document, rotation.line, desk.keys.rotate_after, now()) {
        let text = format!("keyset {}: nothing is due", words.name);
        printer.result(text, &json!({"ok": true, "keyset": words.name, "due": false}));
        return Ok(());
    }
    let cipher = words.alg.map(super::Alg::cipher);
    let id = match document.pending(rotation.line) {
        Some(version) => version.key_id,
        None => rotation.add(opened, cipher).await?,
    };
    let shown = hex(&id[..8]);
    if words.out.is_some() && !is_pending {
        let text = format!(
            "keyset {}: version {shown} is pending in the document written. Put it in its place; once every replica has read it, \
             run this again to promote it",
            words.name
        );
        printer.result(text, &json!({"ok": true, "keyset": words.name, "key_id": shown, "state": "pending"}));
        return Ok(());
    }
    let document = rotation.promote(stored, printer).await?;
    let text = format!("keyset {}: version {shown} is active, epoch {}", words.name, document.epoch);
    let state = document.versions.iter().find(|version| version.key_id == id).map(|version| version.state);
    printer.result(
        text,
        &json!({"ok": true, "keyset": words.name, "key_id": shown, "state": state, "epoch": document.epoch}),
    );
    Ok(())
}

struct Rotation<'a> {
    words: &'a Rotate,
    desk: &'a Desk,
    line: Line,
    changer: &'a Changer<'a>,
}

impl Rotation<'_> {
    /// A document that waits in that file to be put into its place is not made a second time: two of one epoch would be two histories.
    fn may_write_to(&self, out: &Path, epoch: u64) -> Result<(), KeyError> {
        let wrong = |why: String| Err(KeyError::Settings(format!("{}: {why}", out.display())));
        if let Store::File(folder) = &self.desk.keys.store {
            let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            if let (Ok(parent), Ok(folder)) = (parent.canonicalize(), folder.canonicalize())
                && parent == folder
            {
                return wrong("that is the store's own folder: without --out the document goes there".to_owned());
            }
        }
        let waits = match std::fs::read(out) {
            Ok(bytes) => {
                document::read(&bytes, self.name()).map(|held| held.epoch).ok().or_else(|| sealed_epoch(&bytes))
            }
            Err(_) => None,
        };
        match waits.filter(|waits| *waits > epoch) {
            Some(waits) => wrong(format!(
                "a document of epoch {waits} waits there, and the store holds {epoch}: put it into its place, or remove the file"
            )),
            None => Ok(()),
        }
    }

    /// Writes a document to the file that was named.
    fn save(&self, out: &Path, opened: &Opened) -> Result<(), KeyError> {
        let document = opened.write(self.changer.signer)?;
        #[cfg(feature = "k8s")]
        let document = self.words.sealed.formed(self.name(), self.desk, document)?;
        save(out, &document)
    }

    fn name(&self) -> &str {
        &self.words.name
    }

    async fn add(&self, mut opened: Opened, cipher: Option<Cipher>) -> Result<[u8; 32], KeyError> {
        // The cipher stays what it was unless another is asked for.
        let add = |opened: &mut Opened| {
            let before = opened.document().active(self.line).map(|version| version.alg.cipher);
            opened.add_pending(self.line, cipher.or(before).unwrap_or(Cipher::XChaCha20Poly1305), now())
        };
        if let Some(out) = &self.words.out {
            let id = add(&mut opened)?;
            self.save(out, &opened)?;
            return Ok(id);
        }
        self.changer
            .change(self.name(), |opened| {
                let pending = opened.document().pending(self.line).map(|version| version.key_id);
                Ok(match pending {
                    Some(id) => Change::Leave(id),
                    None => Change::Write(add(opened)?),
                })
            })
            .await
    }

    /// Waits until it has held the pending version for long enough, and promotes it unless someone else has.
    async fn promote(&self, mut stored: Stored, printer: &Printer) -> Result<Document, KeyError> {
        let mut watch = Watch::default();
        let (mut opened, mut said) = (None, false);
        loop {
            let read = self.changer.store.read(self.name()).await?;
            if opened.is_none() || read.bytes != stored.bytes {
                (opened, stored) =
                    self.changer.open(self.name()).await.map(|(opened, stored)| (Some(opened), stored))?;
            }
            let Some(held) = opened.as_mut() else { continue };
            match watch.see(held.document(), self.line, boot_now()) {
                // Someone else was faster.
                Step::Idle => return Ok(held.document().clone()),
                Step::Promote(id) => return self.promote_now(held, id).await,
                Step::Hold(left) => {
                    if !std::mem::replace(&mut said, true) {
                        printer.progress(format_args!(
                            "keyset {}: a version is pending; every replica holds it in {} s. Stopping this loses nothing: run it again",
                            self.name(),
                            left.as_secs()
                        ));
                    }
                    let interval = Duration::from_secs(held.document().refresh.max(1));
                    sleep(left.min(interval)).await;
                }
            }
        }
    }

    async fn promote_now(&self, held: &mut Opened, id: [u8; 32]) -> Result<Document, KeyError> {
        if let Some(out) = &self.words.out {
            held.promote(&id, now())?;
            self.save(out, held)?;
            return Ok(held.document().clone());
        }
        self.changer
            .change(self.name(), |opened| {
                let is_pending = opened.document().pending(self.line).is_some_and(|version| version.key_id == id);
                if !is_pending {
                    return Ok(Change::Leave(opened.document().clone()));
                }
                opened.promote(&id, now())?;
                Ok(Change::Write(opened.document().clone()))
            })
            .await
    }
}

/// The epoch of the document in a sealed manifest; none where it is something else.
fn sealed_epoch(bytes: &[u8]) -> Option<u64> {
    #[cfg(feature = "k8s")]
    return super::sealed::epoch(bytes);
    #[cfg(not(feature = "k8s"))]
    {
        let _ = bytes;
        None
    }
}
