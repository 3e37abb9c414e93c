//! `oilskin keys`: the documents of the configured store.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand, ValueEnum};
use oilskin_config::{KeySettings, Keys, Root, Vars};
use oilskin_crypto::document::{self, Document, NewKeyset};
use oilskin_crypto::{Cipher, Error, FileRoot, KeyStore, RootKey, Slab};
use serde_json::{Value, json};

use super::{Exit, Printer, read_file};
use crate::keys::{self, KeyError};

/// Seconds between two reads of the store by a replica.
const REFRESH: u64 = 60;

/// The keyset that rules use unless they name another.
const DEFAULT_NAME: &str = "default";

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a keyset; its root key too, where that is a file which does not exist yet.
    Init(Init),
    /// Show the store's keysets, their versions and states.
    List,
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
    let outcome = match command {
        Command::Init(init) => self::init(init, &settings, printer),
        Command::List => list(&settings.keys, printer),
    };
    match outcome {
        Ok(()) => Exit::Done,
        Err(error) => printer.failed(error),
    }
}

fn init(words: &Init, settings: &KeySettings, printer: &Printer) -> Result<(), KeyError> {
    let there = words.if_missing && keys::store(&settings.keys).read(&words.name).is_ok();
    let made = match there {
        true => Made { roots: Vec::new(), keyset: false },
        false => {
            let slab = Slab::new(settings.slab, settings.unsafe_unlocked_keys)?;
            let beside = if words.another_root { Beside::AnotherRoot } else { Beside::ThisRoot };
            make(&settings.keys, &words.name, words.alg.cipher(), beside, &slab)?
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

/// Whose keysets a new one may stand beside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Beside {
    /// Only those of which its root keys open at least one.
    ThisRoot,
    /// Any.
    AnotherRoot,
}

/// What was not there before.
pub(super) struct Made {
    /// Paths of root key files.
    roots: Vec<String>,
    /// False where the keyset is there already, perhaps made by another process meanwhile.
    keyset: bool,
}

/// Makes a keyset, and root key files that are not there yet.
pub(super) fn make(
    keys: &Keys,
    name: &str,
    cipher: Cipher,
    beside: Beside,
    slab: &Arc<Slab>,
) -> Result<Made, KeyError> {
    let store = keys::store(keys);
    // Before a root is made: a name that is taken or wrong leaves nothing behind.
    match store.read(name) {
        Err(Error::Missing(_)) => {}
        Ok(_) => return Ok(Made { roots: Vec::new(), keyset: false }),
        Err(error) => return Err(error.into()),
    }
    // Before roots are looked for: another process makes its root first, so what it made meanwhile is never a stranger's.
    let others = if beside == Beside::ThisRoot { store.list()? } else { Vec::new() };
    let made = make_roots(keys, &others, slab)?;
    let roots = keys::all_roots(keys, slab)?;
    known_roots(keys, &roots, &*store, &others)?;
    let new = NewKeyset { name, cipher, development: keys.development, refresh: REFRESH, now: now() };
    match store.write(name, None, &document::create(new, &roots, slab)?) {
        Ok(()) => Ok(Made { roots: made, keyset: true }),
        Err(Error::Exists(_)) => Ok(Made { roots: made, keyset: false }),
        Err(error) => Err(error.into()),
    }
}

fn make_roots(keys: &Keys, others: &[String], slab: &Arc<Slab>) -> Result<Vec<String>, KeyError> {
    let mut made = Vec::new();
    for root in &keys.roots {
        let Root::File(path) = root;
        if path.exists() {
            continue;
        }
        // A new root beside keysets of another: more likely a wrong path or an unmounted disk than a wish.
        if !others.is_empty() {
            let why = "it does not exist, but the store holds keysets that another root key wraps; put that one back \
                       (or say --another-root)";
            return Err(Error::Root { what: path.display().to_string(), why: why.to_owned() }.into());
        }
        match FileRoot::create(path, slab) {
            Ok(_) => made.push(path.display().to_string()),
            // Another process was faster; its root is as good.
            Err(Error::RootExists(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(made)
}

/// A keyset under a root that wraps none of the others would be opened by no replica that can read those.
fn known_roots(
    keys: &Keys,
    roots: &[Box<dyn RootKey>],
    store: &dyn KeyStore,
    others: &[String],
) -> Result<(), KeyError> {
    let wraps = |name: &String| {
        let document = store.read(name).and_then(|stored| document::read(&stored.bytes, name));
        let entries = document.map(|document| document.roots).unwrap_or_default();
        entries.iter().any(|entry| roots.iter().any(|root| root.id() == entry.id && root.kind() == entry.kind))
    };
    let Some(first) = others.first().filter(|_| !others.iter().any(wraps)) else { return Ok(()) };
    let paths: Vec<String> = keys.roots.iter().map(|Root::File(path)| path.display().to_string()).collect();
    let why = format!(
        "the store holds keysets that this root key does not open, such as {first}; give the one that does, or another \
         store (or say --another-root)"
    );
    Err(Error::Root { what: paths.join(", "), why }.into())
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn list(keys: &Keys, printer: &Printer) -> Result<(), KeyError> {
    let store = keys::store(keys);
    let mut documents = Vec::new();
    for name in store.list()? {
        documents.push(document::read(&store.read(&name)?.bytes, &name)?);
    }
    let text: Vec<String> = documents.iter().map(text).collect();
    let shown =
        if text.is_empty() { "no keysets; make one with `oilskin keys init`".to_owned() } else { text.join("\n") };
    printer.result(shown, &Value::from(documents.iter().map(value).collect::<Vec<_>>()));
    Ok(())
}

fn text(document: &Document) -> String {
    let kind = if document.development { ", development keys" } else { "" };
    let roots: Vec<&str> = document.roots.iter().map(|root| root.kind.as_str()).collect();
    let mut text = format!("{}  epoch {}, root {}{kind}", document.name, document.epoch, roots.join(" + "));
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
    }
    text
}

fn value(document: &Document) -> Value {
    let versions: Vec<Value> = document
        .versions
        .iter()
        .map(|version| {
            json!({
                "key_id": hex(&version.key_id[..8]),
                "line": version.line,
                "state": version.state,
                "cipher": cipher_name(version.alg.cipher),
                "times": version.times,
            })
        })
        .collect();
    let roots: Vec<&str> = document.roots.iter().map(|root| root.kind.as_str()).collect();
    json!({
        "name": document.name,
        "epoch": document.epoch,
        "development": document.development,
        "roots": roots,
        "versions": versions,
    })
}

fn cipher_name(cipher: Cipher) -> &'static str {
    match cipher {
        Cipher::XChaCha20Poly1305 => "xchacha20-poly1305",
        Cipher::Aegis256 => "aegis-256",
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
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
