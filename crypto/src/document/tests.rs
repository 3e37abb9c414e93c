//! What only a holder of the root could write, and what is refused all the same.

use super::*;
use crate::root::FileRoot;
use crate::{Cipher, sodium};

struct Made {
    _folder: tempfile::TempDir,
    slab: Arc<Slab>,
    roots: Vec<Box<dyn RootKey>>,
    document: Document,
    w: Key,
}

fn made() -> Made {
    let folder = tempfile::tempdir().unwrap();
    let slab = Slab::new(1 << 16, true).unwrap();
    let roots: Vec<Box<dyn RootKey>> =
        vec![Box::new(FileRoot::create(&folder.path().join("root.key"), &slab).unwrap())];
    let new = NewKeyset {
        name: "pii",
        cipher: Cipher::XChaCha20Poly1305,
        development: false,
        refresh: 60,
        now: 1_700_000_000,
    };
    let bytes = create(new, &roots, &slab).unwrap();
    let document = read(&bytes, "pii").unwrap();
    let w = unwrap(&document, &roots, &slab).unwrap();
    Made { _folder: folder, slab, roots, document, w }
}

impl Made {
    /// Opens this document with a MAC that is right.
    fn open(&self, document: &Document) -> Result<Keyset, String> {
        let json = document.json().unwrap();
        let mac = base64url::encode(&mac(&self.w, "pii", &json).unwrap());
        let bytes = format!("{json}\n{mac}\n");
        open(bytes.as_bytes(), "pii", &self.roots, &self.slab, Policy::default()).map_err(|error| error.to_string())
    }

    /// A version that seals this key under an id, right or not.
    fn version(&self, like: &VersionEntry, key: &[u8; KEY], id: [u8; 32]) -> VersionEntry {
        let mut version = VersionEntry { key_id: id, state: State::Retired, ..like.clone() };
        let sealing = sealing_key(&self.w, "pii").unwrap();
        let sealed = seal(sealing.bytes(), key, &sealed_aad("pii", &version), &nonce::System).unwrap();
        version.sealed = Some(sealed.to_vec());
        version
    }
}

/// E6: a ciphertext that opens under two keys needs two keys under one id, and a keyset never holds them, not even by the
/// hand of who holds its root.
#[test]
fn two_keys_with_one_id_never_enter_a_keyset() {
    let made = made();
    assert!(made.open(&made.document).is_ok());
    let first = made.document.versions[0].clone();
    let right = derive::key_id(&[7; KEY], first.alg.byte());
    let with = |version: VersionEntry| {
        let mut document = made.document.clone();
        document.versions.push(version);
        made.open(&document).err()
    };
    assert_eq!(with(made.version(&first, &[7; KEY], right)), None, "another key under its own id");
    let taken = with(made.version(&first, &[7; KEY], first.key_id)).unwrap();
    assert!(taken.contains("one key id"), "{taken}");
    let mut half = right;
    half[..8].copy_from_slice(&first.key_id[..8]);
    let same_start = with(made.version(&first, &[7; KEY], half)).unwrap();
    assert!(same_start.contains("one key id"), "tokens carry eight bytes of it: {same_start}");
    let foreign = with(made.version(&first, &[8; KEY], right)).unwrap();
    assert!(foreign.contains("not the one its id names"), "{foreign}");
    let mut destroyed = made.version(&first, &[7; KEY], first.key_id);
    destroyed.state = State::Destroyed;
    destroyed.sealed = None;
    assert!(with(destroyed).is_some(), "not even as a destroyed one");
}

/// E4: a sealed key is bound to its algorithm and line.
#[test]
fn a_sealed_key_opens_under_no_other_algorithm_line_or_name() {
    let made = made();
    let alter = |change: &dyn Fn(&mut Document)| {
        let mut document = made.document.clone();
        change(&mut document);
        made.open(&document).err()
    };
    assert!(alter(&|document| document.versions[0].alg.cipher = Cipher::Aegis256).is_some());
    assert!(alter(&|document| document.versions[0].line = Line::Lookup).is_some());
    assert!(
        alter(&|document| {
            let sealed = document.versions[1].sealed.clone();
            document.versions[0].sealed = sealed;
        })
        .is_some()
    );
    let sealing = sealing_key(&made.w, "other").unwrap();
    let version = &made.document.versions[0];
    let sealed = version.sealed.as_ref().unwrap();
    let (nonce, text) = sealed.split_first_chunk::<24>().unwrap();
    let aad = sealed_aad("pii", version);
    assert!(!sodium::xchacha_decrypt(sealing.bytes(), nonce, &aad, text, &mut [0; KEY]));
}
