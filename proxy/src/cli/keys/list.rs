//! `oilskin keys list`.

use std::sync::Arc;

use oilskin_crypto::Cipher;
use oilskin_crypto::document::{self, Document, VersionEntry};
use serde_json::{Value, json};

use super::{Desk, hex, now, root_named};
use crate::cli::Printer;
use crate::keys::{self, Fault, KeyError, Root};

pub(super) async fn list(desk: &Desk, printer: &Printer) -> Result<(), KeyError> {
    let in_use = desk.in_use().await;
    // What cannot be used here keeps nobody from seeing what there is.
    let (roots, _) = keys::roots(&desk.keys, &desk.slab, &desk.reach);
    let (mut texts, mut values) = (Vec::new(), Vec::new());
    for name in desk.store.list().await? {
        let stored = match desk.store.read(&name).await {
            // Vault lists a secret whose versions are all deleted, and anyone may delete meanwhile.
            Err(error) if error.fault() == Fault::Missing => continue,
            stored => stored?,
        };
        let document = document::read(&stored.bytes, &name)?;
        texts.push(text(&document, &roots, in_use.as_ref()));
        values.push(value(&document, &roots, in_use.as_ref()));
    }
    if texts.is_empty() {
        texts.push("no keysets; make one with `oilskin keys init`".to_owned());
    } else if in_use.is_none() {
        texts.push(
            "(no running process with these settings answers on its admin port: what is read in traffic is not known)"
                .into(),
        );
    }
    printer.result(texts.join("\n"), &Value::from(values));
    Ok(())
}

/// What a running process did with a version, from its `/keys`.
pub(super) struct InTraffic {
    written: u64,
    read: u64,
    /// Unix seconds.
    pub(super) last_read: Option<u64>,
}

/// None where there is no process to ask, or it does not hold the version.
pub(super) fn in_traffic(in_use: Option<&Value>, keyset: &str, version: &VersionEntry) -> Option<InTraffic> {
    let keysets = in_use?.get("keysets")?.as_array()?;
    let found = keysets.iter().find(|found| found.get("name").and_then(Value::as_str) == Some(keyset))?;
    let id = hex(&version.key_id[..8]);
    let versions = found.get("versions")?.as_array()?;
    let found = versions.iter().find(|found| found.get("key_id").and_then(Value::as_str) == Some(id.as_str()))?;
    let number = |name: &str| found.get(name).and_then(Value::as_u64);
    Some(InTraffic {
        written: number("messages_written")?,
        read: number("messages_read")?,
        last_read: number("last_read"),
    })
}

fn text(document: &Document, roots: &[Arc<Root>], in_use: Option<&Value>) -> String {
    let kind = if document.development { ", development keys" } else { "" };
    let roots: Vec<String> = document.roots.iter().map(|entry| root_named(entry, roots)).collect();
    let hold = match (document.k, roots.len()) {
        (_, 1) => format!("root {}", roots.join("")),
        (k, n) => format!("any {k} of {n} roots {}", roots.join(", ")),
    };
    let mut text = format!("{}  epoch {}, {hold}{kind}", document.name, document.epoch);
    for version in &document.versions {
        let (line, state) = (format!("{:?}", version.line), format!("{:?}", version.state));
        text.push_str(&format!(
            "\n  {}  {:<6}  {:<9}  {:<18}  {} old",
            hex(&version.key_id[..8]),
            line.to_lowercase(),
            state.to_lowercase(),
            cipher_name(version.alg.cipher),
            age(now(), version.times.made)
        ));
        if let Some(traffic) = in_traffic(in_use, &document.name, version) {
            let last = traffic.last_read.map_or("never".to_owned(), |last| format!("{} ago", age(now(), last)));
            text.push_str(&format!(
                ", written with {} times here, read {} times, last {last}",
                traffic.written, traffic.read
            ));
        }
    }
    text
}

fn value(document: &Document, roots: &[Arc<Root>], in_use: Option<&Value>) -> Value {
    let versions = document.versions.iter().map(|version| {
        let mut value = json!({
            "key_id": hex(&version.key_id[..8]),
            "line": version.line,
            "state": version.state,
            "cipher": cipher_name(version.alg.cipher),
            "times": version.times,
        });
        if let Some((traffic, members)) = in_traffic(in_use, &document.name, version).zip(value.as_object_mut()) {
            members.insert("messages_written".to_owned(), traffic.written.into());
            members.insert("messages_read".to_owned(), traffic.read.into());
            members.insert("last_read".to_owned(), traffic.last_read.into());
        }
        value
    });
    let roots = document.roots.iter().map(|entry| {
        let uri = roots.iter().find(|root| root.wraps(entry)).map(|root| root.shown());
        json!({"kind": entry.kind, "id": hex(&entry.id), "uri": uri})
    });
    json!({
        "name": document.name,
        "epoch": document.epoch,
        "development": document.development,
        "k": document.k,
        "roots": roots.collect::<Vec<_>>(),
        "versions": versions.collect::<Vec<_>>(),
    })
}

fn cipher_name(cipher: Cipher) -> &'static str {
    match cipher {
        Cipher::XChaCha20Poly1305 => "xchacha20-poly1305",
        Cipher::Aegis256 => "aegis-256",
    }
}

/// How long ago, in the largest unit that is not zero.
fn age(now: u64, then: u64) -> String {
    let seconds = now.saturating_sub(then);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_one_number() {
        for (seconds, shown) in [(0, "0 s"), (59, "59 s"), (61, "1 min"), (7_200, "2 h"), (200_000, "2 d")] {
            assert_eq!(age(1_000_000 + seconds, 1_000_000), shown);
        }
        assert_eq!(age(5, 9), "0 s");
    }
}
