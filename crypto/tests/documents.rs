//! Keyset documents: the vector, and what is refused.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

use std::path::Path;
use std::sync::Arc;

use oilskin_crypto::document::{self, NewKeyset, Policy};
use oilskin_crypto::{Cipher, Error, FileRoot, FileStore, Slab};

const VECTORS: &str = include_str!("vectors/tokens.json");

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

struct Vector {
    _folder: tempfile::TempDir,
    slab: Arc<Slab>,
    roots: Vec<FileRoot>,
    document: String,
    signer: [u8; 32],
}

fn write_secret(path: &Path, bytes: &[u8]) {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).unwrap().write_all(bytes).unwrap();
}

fn vector() -> Vector {
    let vectors: serde_json::Value = serde_json::from_str(VECTORS).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("root.key");
    write_secret(&path, &hex(vectors["root_file"].as_str().unwrap()));
    let slab = Slab::new(1 << 16, true).unwrap();
    let root = FileRoot::read(&path, &slab).unwrap();
    Vector {
        _folder: folder,
        roots: vec![root],
        slab,
        document: vectors["document"].as_str().unwrap().to_owned(),
        signer: hex(vectors["signer"].as_str().unwrap()).try_into().unwrap(),
    }
}

impl Vector {
    fn open(&self, document: &str, policy: Policy) -> Result<u64, Error> {
        document::files::open(document.as_bytes(), "pii", &self.roots, &self.slab, policy).map(|keyset| keyset.epoch())
    }

    fn refused(&self, document: &str, policy: Policy) -> String {
        self.open(document, policy).unwrap_err().to_string()
    }
}

#[test]
fn the_document_of_the_vectors_opens() {
    let vector = vector();
    let signed = Policy { signer: Some(vector.signer), ..Policy::default() };
    assert_eq!(vector.open(&vector.document, signed).unwrap(), 1);
    assert_eq!(vector.open(&vector.document, Policy::default()).unwrap(), 1);
}

#[test]
fn an_altered_document_is_refused() {
    let vector = vector();
    let signed = Policy { signer: Some(vector.signer), ..Policy::default() };
    let text = &vector.document;
    let (json, rest) = text.split_once('\n').unwrap();
    let (mac, _) = rest.split_once('\n').unwrap();
    let altered = text.replace("\"epoch\":1", "\"epoch\":2");
    assert!(vector.refused(&altered, signed).contains("signature"));
    assert!(vector.refused(&altered, Policy::default()).contains("MAC"));
    assert!(vector.refused(&format!("{json}\n{mac}\n"), signed).contains("not signed"));
    assert!(vector.refused(&text[..text.len() - 1], signed).contains("cut short"));
    assert!(vector.refused(&format!("{json}\n"), Policy::default()).contains("no MAC"));
    assert!(vector.refused(&format!("{text}AAAA\n"), Policy::default()).contains("three lines"));
    let min = Policy { min_epoch: 2, ..Policy::default() };
    assert!(vector.refused(text, min).contains("MIN_EPOCH"));
    for (from, to) in [
        ("\"v\":1,", "\"v\":1,\"v\":1,"),
        ("\"v\":1,", "\"v\":1,\"extra\":1,"),
        ("\"refresh\":60", "\"refresh\":9007199254740992"),
        ("\"refresh\":60", "\"refresh\":-1"),
        ("\"state\":\"active\"", "\"state\":\"destroyed\""),
        ("\"x\":1", "\"x\":0"),
        ("\"k\":1", "\"k\":2"),
        ("\"name\":\"pii\"", "\"name\":\"other\""),
        ("\"alg\":1", "\"alg\":129"),
        ("\"alg\":1", "\"alg\":3"),
    ] {
        assert!(text.contains(from));
        assert!(vector.open(&text.replacen(from, to, 1), Policy::default()).is_err(), "{to}");
    }
}

#[test]
fn a_document_under_another_root_is_refused() {
    let vector = vector();
    let folder = tempfile::tempdir().unwrap();
    let other = FileRoot::create(&folder.path().join("other.key"), &vector.slab).unwrap();
    let roots = vec![other];
    let opened = document::files::open(vector.document.as_bytes(), "pii", &roots, &vector.slab, Policy::default());
    assert!(opened.err().unwrap().to_string().contains("none of the configured root keys"));
}

fn new(development: bool) -> NewKeyset<'static> {
    NewKeyset { name: "default", cipher: Cipher::Aegis256, development, refresh: 60, now: 1_700_000_000 }
}

#[test]
fn what_is_made_opens_and_a_copy_under_another_name_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let slab = Slab::new(1 << 16, true).unwrap();
    let path = folder.path().join("deep/root.key");
    FileRoot::create(&path, &slab).unwrap();
    let again = FileRoot::create(&path, &slab);
    assert!(matches!(again, Err(Error::RootExists(_))), "a root key is never overwritten");
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no partial file is left");
    let roots = vec![FileRoot::read(&path, &slab).unwrap()];
    let store = FileStore::new(&folder.path().join("keys"));
    let made = document::files::create(new(false), 1, &roots, &slab).unwrap();
    store.write("default", None, &made).unwrap();
    let read = store.read("default").unwrap();
    assert!(document::files::open(&read, "default", &roots, &slab, Policy::default()).is_ok());
    let renamed = String::from_utf8(made).unwrap().replace("\"name\":\"default\"", "\"name\":\"pii\"");
    assert!(document::files::open(renamed.as_bytes(), "pii", &roots, &slab, Policy::default()).is_err());
    let development = document::files::create(new(true), 1, &roots, &slab).unwrap();
    let refused = document::files::open(&development, "default", &roots, &slab, Policy::default());
    assert!(refused.err().unwrap().to_string().contains("development keys"));
    let policy = Policy { development: true, ..Policy::default() };
    assert!(document::files::open(&development, "default", &roots, &slab, policy).is_ok());
}

#[test]
fn a_root_file_that_others_read_or_of_another_length_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let slab = Slab::new(4096, true).unwrap();
    let path = folder.path().join("root.key");
    assert!(FileRoot::read(&path, &slab).err().unwrap().to_string().contains("keys init"));
    let directory = FileRoot::read(folder.path(), &slab).err().unwrap().to_string();
    assert!(directory.contains("it is a directory") && !directory.contains("chmod"), "{directory}");
    write_secret(&path, &[1; 31]);
    assert!(FileRoot::read(&path, &slab).err().unwrap().to_string().contains("31 bytes"));
    std::fs::write(&path, [1; 32]).unwrap();
    assert!(FileRoot::read(&path, &slab).is_ok());
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(FileRoot::read(&path, &slab).err().unwrap().to_string().contains("chmod 600"));
}
