//! Nonces: one sequence a message.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use ring::rand::{SecureRandom, SystemRandom};
use rustix::time::{ClockId, clock_gettime};
use zeroize::Zeroize;

use crate::Error;
use crate::header::NONCE;
use crate::slab::generation;
use crate::sodium::{KEY, blake2b, chacha20};

/// Fields of one message after which a new sequence is drawn.
pub(crate) const MAX_FIELDS: u32 = 1 << 16;

/// Where random bytes come from; tests put a failing one here.
pub(crate) trait Random {
    /// Fills `out`, or fails.
    fn fill(&self, out: &mut [u8]) -> Result<(), Error>;
}

/// The system's: one call each time, never a buffer, which a restored snapshot would replay.
pub(crate) struct System;

impl Random for System {
    fn fill(&self, out: &mut [u8]) -> Result<(), Error> {
        SystemRandom::new().fill(out).map_err(|_| Error::Random)
    }
}

/// Pieces of the stream made at a time: three blocks hold eight.
const BATCH: usize = 8;

/// Draws the prefixes of a message's subkeys. Not `Clone`: two copies would give the same nonces.
///
/// One prefix a subkey and message, then a counter: at most 2^16 fields, enforced by the message that holds it.
pub(crate) struct Sequence {
    seed: [u8; KEY],
    stream: [u8; BATCH * NONCE],
    /// Subkeys served so far; each takes its own bytes of the stream.
    served: usize,
    generation: u64,
}

impl Sequence {
    /// Draws a seed: 32 fresh random bytes over a hash of everything that differs between two copies of this process.
    pub(crate) fn new(random: &dyn Random, worker: usize) -> Result<Self, Error> {
        static MESSAGES: AtomicU64 = AtomicU64::new(0);
        let mut fresh = [0; KEY];
        random.fill(&mut fresh)?;
        let generation = generation();
        let pid = process(generation);
        let mut seed = [0; KEY];
        let parts: [&[u8]; 7] = [
            b"oil1 seed",
            &nanoseconds(ClockId::Realtime),
            &nanoseconds(ClockId::Boottime),
            boot_id(),
            &pid.to_be_bytes(),
            &(worker as u64).to_be_bytes(),
            &MESSAGES.fetch_add(1, Ordering::Relaxed).to_be_bytes(),
        ];
        blake2b(&fresh, &parts, &mut seed);
        fresh.zeroize();
        Ok(Self { seed, stream: [0; BATCH * NONCE], served: 0, generation })
    }

    /// The next subkey's 24 bytes: 16 of prefix and the counter's start. None in a child after fork(2), which holds its
    /// parent's sequence and must draw its own.
    ///
    /// The stream is ChaCha20 with nonce 0 and counter 0 under the seed, cut into pieces of 24 bytes.
    pub(crate) fn start(&mut self) -> Option<[u8; NONCE]> {
        if self.generation != generation() {
            return None;
        }
        let piece = self.served % BATCH;
        if piece == 0 {
            let blocks = self.served / BATCH * (BATCH * NONCE / 64);
            chacha20(&self.seed, blocks as u64, &mut self.stream);
        }
        self.served += 1;
        self.stream.get(piece * NONCE..)?.first_chunk().copied()
    }

    /// As a child after fork(2) holds it.
    #[cfg(test)]
    pub(crate) fn forked(&mut self) {
        self.generation = self.generation.wrapping_add(1);
    }
}

impl Drop for Sequence {
    fn drop(&mut self) {
        self.seed.zeroize();
        self.stream.zeroize();
    }
}

/// The process' id, asked once a process and thread instead of once a message.
fn process(generation: u64) -> u32 {
    thread_local! {
        static KNOWN: Cell<(u64, u32)> = const { Cell::new((0, 0)) };
    }
    let (of, id) = KNOWN.get();
    if of == generation {
        return id;
    }
    let id = std::process::id();
    KNOWN.set((generation, id));
    id
}

fn nanoseconds(clock: ClockId) -> [u8; 16] {
    let now = clock_gettime(clock);
    let nanoseconds = i128::from(now.tv_sec) * 1_000_000_000 + i128::from(now.tv_nsec);
    nanoseconds.to_be_bytes()
}

/// Differs between two boots of one machine image.
fn boot_id() -> &'static [u8] {
    static ID: OnceLock<Vec<u8>> = OnceLock::new();
    ID.get_or_init(|| std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default())
}
