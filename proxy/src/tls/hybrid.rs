//! X25519MLKEM768: a key exchange that holds as long as one of its halves does.
//!
//! draft-ietf-tls-ecdhe-mlkem; IANA 0x11EC. ring has no ML-KEM, so its half is libsodium's; the other half is ring's X25519. The
//! client's share is an ML-KEM-768 encapsulation key (1,184 bytes), then X25519 (32); the server's a ciphertext (1,088),
//! then X25519; the secret is ML-KEM's 32 bytes, then X25519's.

use libsodium_rs::crypto_kem::mlkem768::{
    CIPHERTEXTBYTES, Ciphertext, KeyPair, PUBLICKEYBYTES, PublicKey, SecretKey, decapsulate, encapsulate,
};
use rustls::crypto::ring::kx_group::X25519;
use rustls::crypto::{ActiveKeyExchange, CompletedKeyExchange, GetRandomFailed, SharedSecret, SupportedKxGroup};
use rustls::ffdhe_groups::FfdheGroup;
use rustls::{Error, NamedGroup, PeerMisbehaved, ProtocolVersion};
use zeroize::Zeroizing;

/// The group, for a provider's list.
pub(crate) static X25519_MLKEM768: &dyn SupportedKxGroup = &Hybrid;

const INVALID: Error = Error::PeerMisbehaved(PeerMisbehaved::InvalidKeyShare);

#[derive(Debug)]
struct Hybrid;

impl SupportedKxGroup for Hybrid {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let classical = X25519.start()?;
        // It can only fail for want of randomness.
        let KeyPair { public_key, secret_key } = KeyPair::generate().map_err(|_| GetRandomFailed)?;
        let share = [public_key.as_bytes(), classical.pub_key()].concat();
        Ok(Box::new(Active { classical, secret_key, share }))
    }

    fn start_and_complete(&self, theirs: &[u8]) -> Result<CompletedKeyExchange, Error> {
        let (theirs, classical) = split::<PUBLICKEYBYTES>(theirs)?;
        let classical = X25519.start_and_complete(classical)?;
        // libsodium checks the encapsulation key (FIPS 203, 7.2): its coefficients must be reduced.
        let (ciphertext, secret) = encapsulate(&PublicKey::from(*theirs)).map_err(|_| INVALID)?;
        Ok(CompletedKeyExchange {
            group: self.name(),
            pub_key: [ciphertext.as_bytes(), classical.pub_key.as_slice()].concat(),
            secret: joined(secret.as_bytes(), &classical.secret),
        })
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }

    fn usable_for_version(&self, version: ProtocolVersion) -> bool {
        version == ProtocolVersion::TLSv1_3
    }
}

/// Our side of an exchange that we began.
struct Active {
    classical: Box<dyn ActiveKeyExchange>,
    secret_key: SecretKey,
    share: Vec<u8>,
}

impl ActiveKeyExchange for Active {
    fn complete(self: Box<Self>, theirs: &[u8]) -> Result<SharedSecret, Error> {
        let (ciphertext, classical) = split::<CIPHERTEXTBYTES>(theirs)?;
        let classical = self.classical.complete(classical)?;
        // A ciphertext that was made for another key gives another secret, and the handshake fails (implicit rejection).
        let secret = decapsulate(&Ciphertext::from(*ciphertext), &self.secret_key).map_err(|_| INVALID)?;
        Ok(joined(secret.as_bytes(), &classical))
    }

    /// A server without the hybrid takes this half at once; else it would ask for a second hello.
    fn hybrid_component(&self) -> Option<(NamedGroup, &[u8])> {
        Some((self.classical.group(), self.classical.pub_key()))
    }

    fn complete_hybrid_component(self: Box<Self>, theirs: &[u8]) -> Result<SharedSecret, Error> {
        self.classical.complete(theirs)
    }

    fn pub_key(&self) -> &[u8] {
        &self.share
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }
}

/// The ML-KEM part of a share, and the rest, whose length X25519 checks.
fn split<const N: usize>(share: &[u8]) -> Result<(&[u8; N], &[u8]), Error> {
    share.split_first_chunk().ok_or(INVALID)
}

fn joined(post_quantum: &[u8], classical: &SharedSecret) -> SharedSecret {
    let both = Zeroizing::new([post_quantum, classical.secret_bytes()].concat());
    SharedSecret::from(both.as_slice())
}

#[cfg(test)]
mod tests {
    use super::*;

    const X25519_BYTES: usize = 32;

    fn exchange() -> (Vec<u8>, Box<dyn ActiveKeyExchange>) {
        let ours = X25519_MLKEM768.start().unwrap();
        (ours.pub_key().to_vec(), ours)
    }

    #[test]
    fn both_sides_get_one_secret() {
        let (share, ours) = exchange();
        assert_eq!(share.len(), PUBLICKEYBYTES + X25519_BYTES);
        let theirs = X25519_MLKEM768.start_and_complete(&share).unwrap();
        assert_eq!(theirs.pub_key.len(), CIPHERTEXTBYTES + X25519_BYTES);
        let secret = ours.complete(&theirs.pub_key).unwrap();
        assert_eq!(secret.secret_bytes(), theirs.secret.secret_bytes());
        assert_eq!(secret.secret_bytes().len(), 64);
    }

    #[test]
    fn a_share_of_any_other_length_is_refused() {
        let (share, _) = exchange();
        let longer = [share.as_slice(), &[0]].concat();
        for length in (0..share.len()).chain([longer.len()]) {
            let told = X25519_MLKEM768.start_and_complete(&longer[..length]).map(|_| ());
            assert_eq!(told, Err(INVALID), "{length} bytes");
        }
        let answer = X25519_MLKEM768.start_and_complete(&share).unwrap().pub_key;
        let longer = [answer.as_slice(), &[0]].concat();
        for length in (0..answer.len()).step_by(7).chain([answer.len() - 1, longer.len()]) {
            let (_, ours) = exchange();
            assert_eq!(ours.complete(&longer[..length]).map(|_| ()), Err(INVALID), "{length} bytes");
        }
    }

    #[test]
    fn an_x25519_part_of_zeroes_is_refused() {
        let (mut share, ours) = exchange();
        let mut answer = X25519_MLKEM768.start_and_complete(&share).unwrap().pub_key;
        share[PUBLICKEYBYTES..].fill(0);
        assert!(X25519_MLKEM768.start_and_complete(&share).is_err());
        answer[CIPHERTEXTBYTES..].fill(0);
        assert!(ours.complete(&answer).is_err());
    }

    #[test]
    fn a_key_with_coefficients_past_the_modulus_is_refused() {
        let (mut share, _) = exchange();
        // Two coefficients of 12 bits, both 4,095; the modulus is 3,329.
        share[..3].fill(0xff);
        assert_eq!(X25519_MLKEM768.start_and_complete(&share).map(|_| ()), Err(INVALID));
    }

    #[test]
    fn a_changed_ciphertext_gives_another_secret() {
        let (share, ours) = exchange();
        let mut theirs = X25519_MLKEM768.start_and_complete(&share).unwrap();
        theirs.pub_key[0] ^= 1;
        let secret = ours.complete(&theirs.pub_key).unwrap();
        assert_ne!(secret.secret_bytes(), theirs.secret.secret_bytes());
    }

    #[test]
    fn its_classical_half_stands_alone() {
        let (_, ours) = exchange();
        let (group, half) = ours.hybrid_component().map(|(group, half)| (group, half.to_vec())).unwrap();
        assert_eq!(group, NamedGroup::X25519);
        let theirs = X25519.start_and_complete(&half).unwrap();
        let secret = ours.complete_hybrid_component(&theirs.pub_key).unwrap();
        assert_eq!(secret.secret_bytes(), theirs.secret.secret_bytes());
    }
}
