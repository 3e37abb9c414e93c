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
    use libsodium_rs::crypto_kem::mlkem768::{EncapsulationSeed, encapsulate_deterministic};

    use super::*;

    const X25519_BYTES: usize = 32;

    fn exchange() -> (Vec<u8>, Box<dyn ActiveKeyExchange>) {
        let ours = X25519_MLKEM768.start().unwrap();
        (ours.pub_key().to_vec(), ours)
    }

    /// NIST's known answers as libsodium's tests hold them (`test/default/kem_mlkem768.c`): d and z of the key, m of the
    /// encapsulation, the first 32 bytes of key and ciphertext, the secret.
    const KNOWN: [[&str; 6]; 2] = [
        [
            "7c9935a0b07694aa0c6d10e4db6b1add2fd81a25ccb148032dcd739936737f2d",
            "b505d7cfad1b497499323c8686325e4792f267aafa3f87ca60d01cb54f29202a",
            "eb4a7c66ef4eba2ddb38c88d8bc706b1d639002198172a7b1942eca8f6c001ba",
            "a8e651a1e685f22478a8954f007bc7711b930772c78f092e82878e3e937f3679",
            "3b835a5fa145387a0819c4daa1e65fbe2ba5400afcd640bbddbbe3585f24bedd",
            "ac865f839fef1bf3d528dd7504bed2f64b5502b0fa81d1c32763658e4aac5037",
        ],
        [
            "d60b93492a1d8c1c7ba6fc0b733137f3406cee8110a93f170e7a78658af326d9",
            "588522d326e7f105f11c4e8d97e119e193af42dc28409f4f7572ada538b52c1f",
            "46401015603c5e2174cb94ac742e836b516e2d570f15de0b9d0204d79ac64ba3",
            "93c140f6c47b7e53b96f72bb18447d277cc021c144a0f7a35e30b57386a78ac9",
            "4ddf4e2919943817ab3b4cb085daefe5fec774d83d96c2cee74149e25addd15f",
            "950492e940bfa86ac28183de02efc04017d1755106a854fbb2ac68174f705b41",
        ],
    ];

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    #[test]
    fn a_known_key_and_ciphertext_give_the_known_secret() {
        libsodium_rs::ensure_init().unwrap();
        for known in KNOWN {
            let [d, z, m, key, sent, secret] = known.map(bytes);
            let KeyPair { public_key, secret_key } = KeyPair::from_seed(&[d, z].concat()).unwrap();
            assert_eq!(public_key.as_bytes()[..32], key);
            let seed = EncapsulationSeed::from_bytes(&m).unwrap();
            let (ciphertext, theirs) = encapsulate_deterministic(&public_key, &seed).unwrap();
            assert_eq!(ciphertext.as_bytes()[..32], sent);
            assert_eq!(theirs.as_bytes().as_slice(), secret);
            // And ours, out of the share as it comes over the wire.
            let classical = X25519.start().unwrap();
            let other = X25519.start_and_complete(classical.pub_key()).unwrap();
            let ours = Active { classical, secret_key, share: Vec::new() };
            let got = Box::new(ours).complete(&[ciphertext.as_bytes().as_slice(), &other.pub_key].concat()).unwrap();
            assert_eq!(got.secret_bytes(), [secret.as_slice(), other.secret.secret_bytes()].concat());
        }
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
