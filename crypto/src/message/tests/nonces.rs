//! E1 of the attack catalogue: nonces never repeat, whatever starts anew, and without randomness nothing is written.

use std::collections::HashSet;

use super::*;
use crate::header::{NONCE, PREFIX};

struct Broken;

impl Random for Broken {
    fn fill(&self, _: &mut [u8]) -> Result<(), Error> {
        Err(Error::Random)
    }
}

/// E1: ten million of them are `make soak`'s.
#[test]
fn nonces_never_repeat_over_messages_threads_and_long_messages() {
    let handle = handle(Cipher::Aegis256);
    let seen: HashSet<[u8; NONCE]> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|worker| {
                let handle = handle.clone();
                scope.spawn(move || {
                    let mut seen = Vec::new();
                    for length in std::iter::repeat_n(5, 2_000).chain([(1 << 16) + 10]) {
                        let mut message = Message::new(&handle, None, worker);
                        for _ in 0..length {
                            let mut out = Vec::new();
                            message.encrypt(&spec_a(), Value::Null, Bound::default(), &mut out).unwrap();
                            seen.push(nonce(&out));
                        }
                    }
                    seen
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(seen.len(), 4 * (2_000 * 5 + (1 << 16) + 10));
}

fn spec_a() -> FieldSpec {
    static SPEC: std::sync::OnceLock<FieldSpec> = std::sync::OnceLock::new();
    SPEC.get_or_init(|| spec("a")).clone()
}

#[test]
fn the_prefix_changes_after_two_to_the_sixteen_fields() {
    let handle = handle(Cipher::XChaCha20Poly1305);
    let mut message = Message::new(&handle, None, 0);
    let mut prefixes = HashSet::new();
    let spec = spec("a");
    for field in 0..=MAX_FIELDS {
        let mut out = Vec::new();
        message.encrypt(&spec, Value::Null, Bound::default(), &mut out).unwrap();
        prefixes.insert(nonce(&out)[..16].to_vec());
        assert_eq!(prefixes.len(), if field < MAX_FIELDS { 1 } else { 2 });
    }
}

/// E1.
#[test]
fn a_failing_random_source_refuses_the_message() {
    let handle = handle(Cipher::XChaCha20Poly1305);
    for spec in [spec("a"), spec("a").unlinkable(true)] {
        let mut message = Message::new(&handle, None, 0);
        message.random = &Broken;
        let mut out = Vec::new();
        assert!(matches!(message.encrypt(&spec, Value::Null, Bound::default(), &mut out), Err(Error::Random)));
        assert!(out.is_empty());
    }
}

fn nonce(token: &[u8]) -> [u8; NONCE] {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(&token[PREFIX.len()..]).unwrap();
    bytes[10..34].try_into().unwrap()
}

/// E1: a child after fork(2) holds a copy of its parent's sequence. The suite's `nonces` forks a real one.
#[test]
fn a_sequence_that_was_copied_into_another_process_gives_nothing() {
    let mut sequence = crate::nonce::Sequence::new(&crate::nonce::System, 0).unwrap();
    assert!(sequence.start().is_some());
    sequence.forked();
    assert!(sequence.start().is_none(), "the child's copy is dead");
}

/// E1: fixed randomness, as from a restored snapshot, still gives other nonces: clock, process and counter go in.
#[test]
fn two_messages_with_the_same_random_bytes_have_other_nonces() {
    let mut seen = HashSet::new();
    for worker in [0, 0, 1] {
        let mut sequence = crate::nonce::Sequence::new(&Fixed, worker).unwrap();
        assert!(seen.insert(sequence.start().unwrap()));
    }
}
