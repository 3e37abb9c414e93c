//! The long variants of what `make test` tries shortly; `make soak` runs them optimised.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a tool of tests")]

use std::hint::black_box;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use oilskin_crypto::{Bound, Cipher, FieldSpec, KeysetHandle, Message, Value};
use oilskin_tests::fuzz::{Generator, TARGETS, corpus};
use oilskin_tests::keys::Keys;

fn main() {
    let seed = std::env::args().nth(1).and_then(|seed| seed.parse().ok()).unwrap_or(1);
    nonces();
    timing();
    generated(seed);
}

/// E1: ten million nonces over threads, messages and long messages.
fn nonces() {
    const THREADS: usize = 4;
    let handle = Keys::with(Cipher::Aegis256, false).handle("default");
    let threads: Vec<_> = (0..THREADS)
        .map(|worker| {
            let handle = handle.clone();
            std::thread::spawn(move || collect(&handle, worker, 10_000_000 / THREADS))
        })
        .collect();
    let mut seen: Vec<[u8; 24]> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    let count = seen.len();
    seen.sort_unstable();
    seen.dedup();
    println!("nonces: {count} made over {THREADS} threads, {} repeated", count - seen.len());
    assert_eq!(seen.len(), count);
}

fn collect(handle: &KeysetHandle, worker: usize, count: usize) -> Vec<[u8; 24]> {
    let spec = FieldSpec::new(vec!["a".to_owned()]);
    let mut seen = Vec::with_capacity(count);
    // Mostly short messages, now and then one past the 2^16 fields after which a sequence is made anew.
    let lengths = std::iter::repeat_n(5, 40_000).chain([70_000]).cycle();
    let mut token = Vec::new();
    for length in lengths {
        let mut message = Message::new(handle, None, worker);
        for _ in 0..length {
            if seen.len() == count {
                return seen;
            }
            token.clear();
            message.encrypt(&spec, Value::Null, Bound::default(), &mut token).unwrap();
            let bytes = URL_SAFE_NO_PAD.decode(&token[5..]).unwrap();
            seen.push(*bytes[10..].first_chunk().unwrap());
        }
    }
    seen
}

/// E8: times of refusals among tokens of a known key id, by Welch's t against the one whose last byte is wrong (dudect:
/// Reparaz, Balasch, Verbauwhede 2017). |t| below 4.5 is no evidence of a difference. Printed, not asserted: a busy machine
/// is no defect of ours.
fn timing() {
    const ROUNDS: usize = 100_000;
    for cipher in [Cipher::XChaCha20Poly1305, Cipher::Aegis256] {
        let handle = Keys::with(cipher, false).handle("default");
        let spec = FieldSpec::new(vec!["ssn".to_owned()]);
        let seal = |context: &str, tenant: Option<&str>| {
            let spec = FieldSpec::new(vec![context.to_owned()]);
            let mut token = Vec::new();
            let mut message = Message::new(&handle, tenant.map(Into::into), 0);
            message.encrypt(&spec, Value::String(b"\"123-45-6789\""), Bound::default(), &mut token).unwrap();
            token
        };
        let good = seal("ssn", None);
        let flipped = |from_end: usize| {
            let mut bytes = URL_SAFE_NO_PAD.decode(&good[5..]).unwrap();
            let at = bytes.len() - from_end;
            bytes[at] ^= 1;
            format!("oil1.{}", URL_SAFE_NO_PAD.encode(bytes)).into_bytes()
        };
        let kinds = [
            ("tag's last byte", flipped(1)),
            ("tag's last byte again", flipped(1)),
            ("tag's first byte", flipped(cipher.tag())),
            ("ciphertext", flipped(cipher.tag() + 1)),
            ("nonce", flipped(cipher.tag() + 11 + 1)),
            ("another context", seal("email", None)),
            ("another tenant", seal("ssn", Some("acme"))),
        ];
        let mut times: Vec<Vec<f64>> = vec![Vec::with_capacity(ROUNDS); kinds.len()];
        let mut order = Generator::new(8, vec![Vec::new()]);
        let mut out = Vec::new();
        // All from one place: how a text lies in memory differs by more than what is looked for.
        let mut text = Vec::with_capacity(256);
        for _ in 0..ROUNDS * kinds.len() {
            let kind = order.below(kinds.len());
            text.clear();
            text.extend_from_slice(&kinds[kind].1);
            let start = Instant::now();
            let refused = Message::new(&handle, None, 0).decrypt(&spec, &text, Bound::default(), &mut out);
            times[kind].push(start.elapsed().as_nanos() as f64);
            assert!(black_box(refused).is_err());
        }
        let first = cropped(&times[0]);
        for ((what, _), times) in kinds.iter().zip(&times).skip(1) {
            let t = welch(&first, &cropped(times));
            let verdict = if t.abs() < 4.5 { "no difference seen" } else { "A DIFFERENCE" };
            println!("timing {cipher:?}: {what} against {}: t = {t:+.2}, {verdict}", kinds[0].0);
        }
    }
}

/// Without the slowest tenth, which is interrupts and neighbours.
fn cropped(times: &[f64]) -> Vec<f64> {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.truncate(sorted.len() * 9 / 10);
    sorted
}

fn welch(a: &[f64], b: &[f64]) -> f64 {
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
    let spread = |x: &[f64], mean: f64| {
        x.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (x.len() as f64 - 1.0) / x.len() as f64
    };
    let (mean_a, mean_b) = (mean(a), mean(b));
    (mean_a - mean_b) / (spread(a, mean_a) + spread(b, mean_b)).sqrt()
}

/// A million generated inputs for each fuzz target.
fn generated(seed: u64) {
    const CASES: usize = 1_000_000;
    for (name, target) in TARGETS {
        let start = Instant::now();
        let corpus = corpus(name).into_iter().map(|(_, data)| data).collect();
        let mut generator = Generator::new(seed, corpus);
        for _ in 0..CASES {
            target(&generator.make());
        }
        println!("fuzz {name}: {CASES} inputs from seed {seed} in {} s", start.elapsed().as_secs());
    }
}
