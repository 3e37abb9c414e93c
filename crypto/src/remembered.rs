//! A bounded cache of what was decrypted elsewhere, in locked memory.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::Error;
use crate::derive::length;
use crate::nonce::{Random, System};
use crate::slab::{Key, Slab};
use crate::sodium::{KEY, blake2b};

/// How long a plaintext is remembered: whoever loses the right to read it reads it no longer than that.
const AGE: Duration = Duration::from_secs(60);

/// Longest plaintext that is remembered, in bytes.
const LONGEST: usize = 4 << 10;

/// Plaintexts by a keyed hash of what they were asked for with. No `Debug`.
pub struct Remembered {
    slab: Arc<Slab>,
    /// What hashes are made with: nobody who reads this memory can try what they stand for.
    secret: Key,
    entries: HashMap<[u8; KEY], Entry>,
    /// The oldest first.
    order: VecDeque<[u8; KEY]>,
}

struct Entry {
    parts: Vec<Key>,
    length: usize,
    since: Instant,
}

impl Remembered {
    /// Room for `bytes` of plaintext, in slots of 32.
    ///
    /// # Errors
    /// As [`Slab::new`], and [`Error::Random`].
    pub fn new(bytes: usize, unlocked_is_fine: bool) -> Result<Self, Error> {
        let slab = Slab::new(bytes, unlocked_is_fine)?;
        let mut filled = Ok(());
        let secret = Key::new(&slab, |key| filled = System.fill(key))?;
        filled?;
        Ok(Self { slab, secret, entries: HashMap::new(), order: VecDeque::new() })
    }

    fn name(&self, parts: &[&[u8]]) -> [u8; KEY] {
        let lengths: Vec<[u8; 4]> = parts.iter().map(|part| length(part)).collect();
        let all: Vec<&[u8]> = parts.iter().zip(&lengths).flat_map(|(part, length)| [length.as_slice(), part]).collect();
        let mut name = [0; KEY];
        blake2b(self.secret.bytes(), &all, &mut name);
        name
    }

    /// Appends what was remembered under these parts, if it is not too old. Returns whether there was anything.
    pub fn recall(&self, parts: &[&[u8]], now: Instant, out: &mut Vec<u8>) -> bool {
        let found = self.entries.get(&self.name(parts));
        let Some(entry) = found.filter(|entry| now.duration_since(entry.since) < AGE) else { return false };
        let start = out.len();
        for part in &entry.parts {
            out.extend_from_slice(part.bytes());
        }
        out.truncate(start + entry.length);
        true
    }

    /// Remembers a plaintext under these parts, in the place of the oldest ones where there is no room.
    pub fn remember(&mut self, parts: &[&[u8]], plain: &[u8], now: Instant) {
        let slots = plain.len().div_ceil(KEY).max(1);
        if plain.len() > LONGEST || slots >= self.slab.room().1 {
            return;
        }
        let name = self.name(parts);
        self.entries.remove(&name);
        while self.slab.room().0 < slots {
            let Some(oldest) = self.order.pop_front() else { return };
            self.entries.remove(&oldest);
        }
        let part = |chunk: &[u8]| {
            Key::new(&self.slab, |slot| {
                for (to, from) in slot.iter_mut().zip(chunk) {
                    *to = *from;
                }
            })
        };
        let chunks = if plain.is_empty() { vec![&[][..]] } else { plain.chunks(KEY).collect() };
        let Ok(parts) = chunks.into_iter().map(part).collect::<Result<Vec<_>, _>>() else { return };
        self.entries.insert(name, Entry { parts, length: plain.len(), since: now });
        self.order.push_back(name);
        // Names of what was renewed stand there twice.
        if self.order.len() > 2 * self.entries.len() + 16 {
            let entries = &self.entries;
            let mut seen = std::collections::HashSet::new();
            let mut order: VecDeque<_> = self
                .order
                .iter()
                .rev()
                .filter(|name| entries.contains_key(*name) && seen.insert(**name))
                .copied()
                .collect();
            order.make_contiguous().reverse();
            self.order = order;
        }
    }

    /// Forgets everything.
    pub fn forget(&mut self) {
        self.entries.clear();
        self.order.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use proptest::prelude::*;

    use super::{AGE, LONGEST, Remembered};

    fn recalled(cache: &Remembered, parts: &[&[u8]], now: Instant) -> Option<Vec<u8>> {
        let mut out = b"before".to_vec();
        cache.recall(parts, now, &mut out).then(|| out.split_off(6))
    }

    #[test]
    fn what_is_remembered_is_known_by_all_of_its_parts_and_not_for_long() {
        let (mut cache, now) = (Remembered::new(4096, true).unwrap(), Instant::now());
        cache.remember(&[b"ab", b"c"], b"plain", now);
        assert_eq!(recalled(&cache, &[b"ab", b"c"], now).unwrap(), b"plain");
        assert_eq!(recalled(&cache, &[b"a", b"bc"], now), None, "parts are told apart by their lengths");
        assert_eq!(recalled(&cache, &[b"ab", b"c"], now + AGE), None);
        cache.remember(&[b"e"], b"", now);
        assert_eq!(recalled(&cache, &[b"e"], now).unwrap(), b"");
        cache.forget();
        assert_eq!(recalled(&cache, &[b"ab", b"c"], now), None);
        assert_eq!(cache.slab.room(), (127, 128), "all but the secret is free again");
    }

    #[test]
    fn the_oldest_make_room_and_what_is_too_long_is_left_out() {
        let (mut cache, now) = (Remembered::new(4096, true).unwrap(), Instant::now());
        for at in 0..200_u8 {
            cache.remember(&[&[at]], &[at; 40], now);
        }
        assert_eq!(recalled(&cache, &[&[199]], now).unwrap(), [199; 40]);
        assert_eq!(recalled(&cache, &[&[0]], now), None);
        cache.remember(&[b"long"], &vec![0; LONGEST + 1], now);
        cache.remember(&[b"slab"], &vec![0; 4096], now);
        assert!(recalled(&cache, &[b"long"], now).is_none() && recalled(&cache, &[b"slab"], now).is_none());
        assert!(recalled(&cache, &[&[199]], now).is_some());
    }

    proptest! {
        #[test]
        fn it_only_ever_recalls_what_was_last_remembered(
            steps in prop::collection::vec((0_u8..20, prop::collection::vec(any::<u8>(), 0..200), 0_u64..5), 1..200),
        ) {
            let (mut cache, begun) = (Remembered::new(4096, true).unwrap(), Instant::now());
            let mut truth = std::collections::HashMap::new();
            let mut now = begun;
            for (name, plain, later) in steps {
                now += Duration::from_secs(later);
                cache.remember(&[&[name]], &plain, now);
                truth.insert(name, plain);
                for (name, plain) in &truth {
                    if let Some(found) = recalled(&cache, &[&[*name]], now) {
                        prop_assert_eq!(&found, plain);
                    }
                }
                prop_assert!(cache.order.len() <= 2 * cache.entries.len() + 17);
            }
        }
    }
}
