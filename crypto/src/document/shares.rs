//! W in Shamir shares: GF(256) with 0x11B, each byte apart, W at x = 0. The field and both sides of it are `vsss-rs`'.

use std::convert::Infallible;
use std::sync::Arc;

use rand_core::{TryCryptoRng, TryRng};
use vsss_rs::{Gf256, IdentifierGf256};
use zeroize::{Zeroize, Zeroizing};

use crate::Error;
use crate::derive::push_lp;
use crate::nonce::{Random, System};
use crate::slab::{Key, Slab};
use crate::sodium::KEY;

/// What a wrapped share is bound to, so that a root opens it for this keyset and place alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The keyset's name.
    pub name: String,
    /// How many shares make W.
    pub k: u8,
    /// The share's number, 1 to 255.
    pub x: u8,
}

impl Share {
    /// The authenticated data of every mechanism that takes some: `oil1 shares` ‖ lp(name) ‖ k ‖ x.
    pub fn aad(&self) -> Vec<u8> {
        let mut aad = b"oil1 shares".to_vec();
        push_lp(&mut aad, self.name.as_bytes());
        aad.extend_from_slice(&[self.k, self.x]);
        aad
    }
}

/// A share of W in locked memory, on its way to a root key or from one. What its bytes are copied to on that way, whoever does it
/// wipes.
pub struct ShareKey(pub(crate) Key);

impl ShareKey {
    /// Room for a share that is being unwrapped.
    ///
    /// # Errors
    /// [`Error::SlabFull`].
    pub fn blank(slab: &Arc<Slab>) -> Result<Self, Error> {
        Key::new(slab, |_| {}).map(Self)
    }

    /// Its 32 bytes, to be wrapped.
    pub fn bytes(&self) -> &[u8; KEY] {
        self.0.bytes()
    }

    /// Its 32 bytes, to be filled.
    pub fn bytes_mut(&mut self) -> &mut [u8; KEY] {
        self.0.bytes_mut()
    }
}

/// Splits W so that any k of n shares join it; share i stands at x = i + 1. With k = 1 each is W itself.
pub(super) fn split(w: &Key, k: u8, n: u8) -> Result<Vec<Key>, Error> {
    if k <= 1 {
        return (0..n).map(|_| Key::new(w.slab(), |out| out.copy_from_slice(w.bytes()))).collect();
    }
    let mut source = Source { outcome: Ok(()) };
    let at = (1..=n).map(|x| IdentifierGf256(Gf256(x)));
    let shares = Gf256::split_bytes_with_participant_ids_iter(k.into(), n.into(), w.bytes(), &mut source, at);
    source.outcome?;
    let mut shares = shares.map_err(|_| Error::Random)?;
    let keys = shares.iter().map(|share| match share.split_first_chunk::<1>() {
        Some((_, y)) if y.len() == KEY => Key::new(w.slab(), |out| out.copy_from_slice(y)),
        _ => Err(Error::Random),
    });
    let keys = keys.collect();
    shares.iter_mut().for_each(Zeroize::zeroize);
    keys
}

/// Joins W. Wrong shares join to a wrong W without an error.
pub(super) fn join(shares: &[&(u8, ShareKey)], slab: &Arc<Slab>) -> Result<Key, Error> {
    if let [(_, only)] = shares {
        return Key::new(slab, |out| out.copy_from_slice(only.bytes()));
    }
    let mut texts: Vec<Vec<u8>> = shares
        .iter()
        .map(|(x, key)| {
            let mut text = Vec::with_capacity(1 + KEY);
            text.push(*x);
            text.extend_from_slice(key.bytes());
            text
        })
        .collect();
    let joined = Gf256::combine_bytes(&texts);
    texts.iter_mut().for_each(Zeroize::zeroize);
    let joined = Zeroizing::new(joined.map_err(|_| Error::Random)?);
    let joined: &[u8; KEY] = joined.as_slice().try_into().map_err(|_| Error::Random)?;
    Key::new(slab, |out| out.copy_from_slice(joined))
}

/// Every k of these, in order.
pub(super) fn choices<T>(all: &[T], k: usize) -> Vec<Vec<&T>> {
    let Some(rest) = k.checked_sub(1) else { return vec![Vec::new()] };
    let mut chosen = Vec::new();
    for (at, first) in all.iter().enumerate() {
        for mut others in choices(all.get(at + 1..).unwrap_or_default(), rest) {
            others.insert(0, first);
            chosen.push(others);
        }
    }
    chosen
}

/// The system's random bytes for a library that takes none that may fail: that it did is told afterwards, and nothing of what was
/// made is used.
struct Source {
    outcome: Result<(), Error>,
}

impl Source {
    fn fill(&mut self, out: &mut [u8]) {
        if let Err(error) = System.fill(out) {
            self.outcome = Err(error);
        }
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }
}

impl TryRng for Source {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_ne_bytes(self.bytes()))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_ne_bytes(self.bytes()))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        self.fill(out);
        Ok(())
    }
}

impl TryCryptoRng for Source {}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(slab: &Arc<Slab>, byte: u8) -> Key {
        Key::new(slab, |out| out.iter_mut().zip(byte..).for_each(|(out, byte)| *out = byte)).unwrap()
    }

    #[test]
    fn any_k_shares_join_and_fewer_or_wrong_ones_do_not() {
        let slab = Slab::new(1 << 16, true).unwrap();
        for n in 1..=5_u8 {
            for k in 1..=n {
                let w = key(&slab, 7);
                let shares: Vec<(u8, ShareKey)> =
                    (1..).zip(split(&w, k, n).unwrap().into_iter().map(ShareKey)).collect();
                assert_eq!(shares.len(), usize::from(n));
                for chosen in choices(&shares, k.into()) {
                    assert_eq!(join(&chosen, &slab).unwrap().bytes(), w.bytes(), "{k} of {n}");
                }
                if k > 1 {
                    let few: Vec<_> = shares.iter().take(usize::from(k) - 1).collect();
                    let joined = join(&few, &slab).unwrap();
                    assert_ne!(joined.bytes(), w.bytes(), "{k} of {n}");
                }
            }
        }
    }

    #[test]
    fn shares_of_another_implementation_join() {
        // f(x) = secret + 3x over GF(256) with 0x11B, worked out by hand: 3·1 = 3, 3·2 = 6, 3·0x80 = 0x9b.
        let slab = Slab::new(1 << 16, true).unwrap();
        let share = |y: u8| ShareKey(Key::new(&slab, |out| out.fill(0x5a ^ y)).unwrap());
        let shares = [(1, share(3)), (2, share(6)), (0x80, share(0x9b))];
        for chosen in choices(&shares, 2) {
            assert_eq!(join(&chosen, &slab).unwrap().bytes(), &[0x5a; KEY]);
        }
    }

    #[test]
    fn every_choice_comes_once() {
        assert_eq!(choices(&[1, 2, 3], 2), [[&1, &2], [&1, &3], [&2, &3]]);
        assert_eq!(choices(&[1, 2], 3), Vec::<Vec<&i32>>::new());
        assert_eq!(choices(&[0; 10], 5).len(), 252);
    }
}
