//! Keyset documents: only the one that was made opens, whatever else comes.

use std::sync::{Arc, OnceLock};

use oilskin_crypto::document::{self, NewKeyset, Policy};
use oilskin_crypto::{Cipher, DEFAULT_BYTES, FileRoot, Slab};

const NAME: &str = "default";

struct Made {
    slab: Arc<Slab>,
    roots: Vec<FileRoot>,
    bytes: Vec<u8>,
}

// A root key of this process' own, so that nothing in a corpus can be right by having been kept.
fn made() -> Made {
    let folder = tempfile::tempdir().unwrap();
    let slab = Slab::new(DEFAULT_BYTES, true).unwrap();
    let roots = vec![FileRoot::create(&folder.path().join("root.key"), &slab).unwrap()];
    let new = NewKeyset {
        name: NAME,
        cipher: Cipher::XChaCha20Poly1305,
        development: false,
        refresh: 60,
        now: 1_700_000_000,
    };
    let bytes = document::files::create(new, 1, &roots, &slab).unwrap();
    Made { slab, roots, bytes }
}

/// A document, or, after a first byte of 0xFF, edits of the one that was made: place (two bytes) and what to XOR.
pub(super) fn keyset(data: &[u8]) {
    thread_local! {
        static MADE: OnceLock<Made> = const { OnceLock::new() };
    }
    MADE.with(|made| check(made.get_or_init(self::made), data));
}

fn check(made: &Made, data: &[u8]) {
    let mut bytes = data.to_vec();
    if let [0xFF, edits @ ..] = data {
        bytes.clone_from(&made.bytes);
        for edit in edits.chunks_exact(3).take(8) {
            let at = usize::from(u16::from_be_bytes([edit[0], edit[1]])) % bytes.len();
            bytes[at] ^= edit[2];
        }
    }
    let read = document::read(&bytes, NAME);
    let opened = document::files::open(&bytes, NAME, &made.roots, &made.slab, Policy::default());
    match opened {
        // A third line is a signature that nobody asked for.
        Ok(_) => assert!(bytes.starts_with(&made.bytes) && read.is_ok(), "an altered document opens"),
        Err(error) => {
            assert!(bytes != made.bytes, "the document itself does not open: {error}");
            assert!(!error.to_string().contains('\n'));
        }
    }
}
