//! What only a holder of the root could write, and what is refused all the same.

use super::files::{create, open, opened};
use super::opened::{mac, sealed_aad, sealing_key};
use super::*;
use crate::keyset::Keyset;
use crate::root::FileRoot;
use crate::{Cipher, derive, sodium};

struct Made {
    _folder: tempfile::TempDir,
    slab: Arc<Slab>,
    roots: Vec<FileRoot>,
    document: Document,
    w: Key,
}

const NEW: NewKeyset<'_> =
    NewKeyset { name: "pii", cipher: Cipher::XChaCha20Poly1305, development: false, refresh: 60, now: 1_700_000_000 };

fn made() -> Made {
    let folder = tempfile::tempdir().unwrap();
    let slab = Slab::new(1 << 16, true).unwrap();
    let roots = vec![FileRoot::create(&folder.path().join("root.key"), &slab).unwrap()];
    let bytes = create(NEW, 1, &roots, &slab).unwrap();
    let document = read(&bytes, "pii").unwrap();
    let w = opened(&bytes, "pii", &roots, &slab, Policy::default()).unwrap().w;
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

/// Of two entries of one root the first would be found for both, so one share would be joined twice.
#[test]
fn a_document_names_no_root_twice() {
    let made = made();
    let mut document = made.document.clone();
    let again = RootEntry { x: 2, ..document.roots[0].clone() };
    document.roots.push(again);
    let why = made.open(&document).err().unwrap();
    assert!(why.contains("names one root twice"), "{why}");
    document.roots[1].kind = "vault".to_owned();
    assert!(made.open(&document).is_ok(), "another kind's id is another root's");
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

fn states(document: &Document, line: Line) -> Vec<State> {
    document.versions.iter().filter(|version| version.line == line).map(|version| version.state).collect()
}

#[test]
fn a_version_waits_becomes_active_and_retires_the_one_before() {
    let made = made();
    let bytes = create(NEW, 1, &made.roots, &made.slab).unwrap();
    let mut opened = opened(&bytes, "pii", &made.roots, &made.slab, Policy::default()).unwrap();
    let id = opened.add_pending(Line::Field, Cipher::Aegis256, 5).unwrap();
    assert_eq!(states(opened.document(), Line::Field), [State::Active, State::Pending]);
    assert!(opened.add_pending(Line::Field, Cipher::Aegis256, 6).is_err(), "one at a time");
    let before = opened.keyset(None, 9).unwrap();
    assert_ne!(before.active(Line::Field).unwrap().id, id, "what is pending is not written with");
    assert!(before.version(*id.first_chunk().unwrap()).is_ok(), "and read already");
    opened.promote(&id, 9).unwrap();
    assert!(opened.promote(&id, 9).is_err(), "it is not pending any more");
    assert_eq!(states(opened.document(), Line::Field), [State::Retired, State::Active]);
    assert_eq!(states(opened.document(), Line::Lookup), [State::Active], "the other line is as it was");
    assert_eq!(opened.document().epoch, 3);
    let written = opened.write(None).unwrap();
    let keyset = open(&written, "pii", &made.roots, &made.slab, Policy::default()).unwrap();
    assert_eq!(keyset.active(Line::Field).unwrap().id, id);
    assert_eq!(keyset.epoch(), 3);
}

#[test]
fn under_a_new_w_the_keys_are_the_same_and_a_destroyed_one_is_gone() {
    let made = made();
    let bytes = create(NEW, 1, &made.roots, &made.slab).unwrap();
    let mut old = opened(&bytes, "pii", &made.roots, &made.slab, Policy::default()).unwrap();
    let first = old.document().versions[0].key_id;
    assert!(old.renewed(&[first], 7).is_err(), "an active version is not destroyed");
    assert!(old.renewed(&[[9; 32]], 7).is_err(), "nor one that there is not");
    let second = old.add_pending(Line::Field, Cipher::XChaCha20Poly1305, 5).unwrap();
    old.promote(&second, 6).unwrap();
    let mut new = old.renewed(&[first], 7).unwrap();
    assert_ne!(new.w.bytes(), old.w.bytes());
    assert!(new.write(None).and_then(|bytes| read(&bytes, "pii")).is_err(), "a document without roots is none");
    files::wrap(&mut new, 1, &made.roots).unwrap();
    let written = new.write(None).unwrap();
    let keyset = open(&written, "pii", &made.roots, &made.slab, Policy::default()).unwrap();
    assert!(keyset.version(*first.first_chunk().unwrap()).unwrap().key.is_none());
    assert_eq!(keyset.active(Line::Field).unwrap().id, second);
    let text = String::from_utf8(written).unwrap();
    assert!(text.contains("\"destroyed\":7"), "{text}");
}

/// Every set of roots opens exactly when it holds k of them.
#[test]
fn any_k_roots_open_a_keyset_and_a_bad_share_among_good_ones_does_not_matter() {
    let folder = tempfile::tempdir().unwrap();
    let slab = Slab::new(1 << 16, true).unwrap();
    let path = |n: usize| folder.path().join(format!("{n}.key"));
    let root = |n: usize| FileRoot::read(&path(n), &slab).unwrap();
    let all: Vec<FileRoot> = (0..4).map(|n| FileRoot::create(&path(n), &slab).unwrap()).collect();
    for k in 1..=4_u8 {
        let bytes = create(NEW, k, &all, &slab).unwrap();
        for up in 0..16_u32 {
            let up: Vec<FileRoot> = (0..4).filter(|n| up & (1 << n) != 0).map(root).collect();
            let opens = open(&bytes, "pii", &up, &slab, Policy::default()).is_ok();
            assert_eq!(opens, up.len() >= usize::from(k), "{k} of 4 with {}", up.len());
        }
    }
    // A share that its root opens and that is not of this W: only the MAC tells.
    let mut opened = opened(&create(NEW, 2, &all, &slab).unwrap(), "pii", &all, &slab, Policy::default()).unwrap();
    let mut entries = opened.document().roots.clone();
    let bad = ShareKey(Key::new(&slab, |out| out.fill(9)).unwrap());
    entries[0].wrapped = all[0].wrap_share(&bad, &Share { name: "pii".to_owned(), k: 2, x: 1 }).unwrap();
    opened.set_roots(2, entries).unwrap();
    let written = opened.write(None).unwrap();
    assert!(open(&written, "pii", &all, &slab, Policy::default()).is_ok(), "three good ones are left");
    let first_two: Vec<FileRoot> = (0..2).map(root).collect();
    let refused = open(&written, "pii", &first_two, &slab, Policy::default()).err().unwrap().to_string();
    assert!(refused.contains("MAC"), "{refused}");
}

/// Where a signer is configured sidecars only read; the command that writes signs.
#[test]
fn a_document_is_signed_where_there_is_a_signer() {
    use ring::signature::{Ed25519KeyPair, KeyPair};
    let made = made();
    let signer = Ed25519KeyPair::from_seed_unchecked(&[3; 32]).unwrap();
    let policy = Policy { signer: signer.public_key().as_ref().try_into().ok(), ..Policy::default() };
    let bytes = create(NEW, 1, &made.roots, &made.slab).unwrap();
    assert!(open(&bytes, "pii", &made.roots, &made.slab, policy).is_err());
    let opened = opened(&bytes, "pii", &made.roots, &made.slab, Policy::default()).unwrap();
    assert!(open(&opened.write(Some(&signer)).unwrap(), "pii", &made.roots, &made.slab, policy).is_ok());
}
