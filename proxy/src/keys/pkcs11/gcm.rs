//! AES-GCM as tokens do it, and the test that they do.

use cryptoki::error::Error;
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::object::{Attribute, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use oilskin_config::Pkcs11Profile;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::refused::{Refused, is_trouble};

/// Bytes of an IV. It stands before what was encrypted with it.
const IV: usize = 12;

/// Bytes of a tag, and its bits as tokens count.
const TAG: usize = 16;
const TAG_BITS: u64 = 128;

/// Bytes that 32 become.
pub(super) const LENGTH: usize = IV + 32 + TAG;

/// Who makes the IV.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Iv {
    /// We do, 12 random bytes.
    Ours,
    /// The token does, into a zeroed buffer.
    Tokens,
}

impl Iv {
    /// As a text goes on.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Tokens => "the token's",
        }
    }
}

/// Random bytes.
pub(crate) fn random<const N: usize>() -> Result<[u8; N], Refused> {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Refused::unreachable("the system has no random bytes"))?;
    Ok(bytes)
}

/// Encrypts: IV ‖ ciphertext ‖ tag.
pub(crate) fn encrypt(
    session: &Session,
    key: ObjectHandle,
    maker: Iv,
    plain: &[u8],
    aad: &[u8],
) -> Result<Vec<u8>, Refused> {
    let given = if maker == Iv::Ours { random()? } else { [0; IV] };
    let (iv, sealed) =
        encrypt_with(session, key, given, plain, aad).map_err(|error| Refused::of("wrapping", &error))?;
    if iv == [0; IV] {
        return Err(zero_iv());
    }
    Ok([iv.as_slice(), &sealed].concat())
}

/// Encrypts with this IV in the buffer. Returns what stands there afterwards: some tokens put theirs there.
pub(crate) fn encrypt_with(
    session: &Session,
    key: ObjectHandle,
    mut iv: [u8; IV],
    plain: &[u8],
    aad: &[u8],
) -> Result<([u8; IV], Vec<u8>), Error> {
    let params = GcmParams::new(&mut iv, aad, TAG_BITS.into())?;
    let sealed = session.encrypt(&Mechanism::AesGcm(params), key, plain)?;
    Ok((iv, sealed))
}

/// Decrypts what [`encrypt`] made.
pub(crate) fn decrypt(
    session: &Session,
    key: ObjectHandle,
    wrapped: &[u8],
    aad: &[u8],
) -> Result<Zeroizing<Vec<u8>>, Error> {
    let (iv, sealed) = wrapped.split_first_chunk::<IV>().ok_or(Error::InvalidValue)?;
    let mut iv = *iv;
    let params = GcmParams::new(&mut iv, aad, TAG_BITS.into())?;
    session.decrypt(&Mechanism::AesGcm(params), key, sealed).map(Zeroizing::new)
}

fn zero_iv() -> Refused {
    Refused::wrong(
        "the token takes an IV of zeroes as it is, so every message would have the same one: that gives the key away. It wants \
         IVs from us: profile=softhsm, or none",
    )
}

/// A key of the session's own: it ends with it.
pub(crate) fn throw_away() -> [Attribute; 9] {
    [
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::ValueLen(32.into()),
        Attribute::Token(false),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Encrypt(true),
        Attribute::Decrypt(true),
    ]
}

/// Tries everything that wrapping relies on. Says who makes the IV.
pub(crate) fn test_with(session: &Session, key: ObjectHandle, profile: Pkcs11Profile) -> Result<Iv, Refused> {
    match profile {
        Pkcs11Profile::SoftHsm => round_trips(session, key, Iv::Ours),
        Pkcs11Profile::CloudHsm => round_trips(session, key, Iv::Tokens),
        // Some refuse an IV that is not theirs to make. Which one made it shows in what comes back.
        Pkcs11Profile::Generic | Pkcs11Profile::Kw => round_trips(session, key, Iv::Ours).or_else(|first| {
            let second = round_trips(session, key, Iv::Tokens);
            second.map_err(|_| first)
        }),
    }
}

fn round_trips(session: &Session, key: ObjectHandle, maker: Iv) -> Result<Iv, Refused> {
    let (plain, aad) = (random::<32>()?, b"oil1 selftest");
    let first = encrypt(session, key, maker, &plain, aad)?;
    let second = encrypt(session, key, maker, &plain, aad)?;
    if first.len() != LENGTH {
        return Err(Refused::wrong(
            "self-test: the token's AES-GCM has another tag than one of 16 bytes behind the text",
        ));
    }
    if first.get(..IV) == second.get(..IV) {
        return Err(Refused::wrong("self-test: the token gave two messages the same IV, which gives the key away"));
    }
    for wrapped in [&first, &second] {
        let back = decrypt(session, key, wrapped, aad).map_err(|error| Refused::of("self-test, unwrapping", &error))?;
        if back.as_slice() != plain {
            return Err(Refused::wrong("self-test: what was unwrapped is not what was wrapped"));
        }
    }
    for (place, name) in [(0, "IV"), (IV, "ciphertext"), (first.len() - 1, "tag")] {
        let mut altered = first.clone();
        altered.iter_mut().skip(place).take(1).for_each(|byte| *byte ^= 1);
        refuses(session, key, &altered, aad, name)?;
    }
    refuses(session, key, &first, b"oil1 selftesT", "authenticated data")?;
    Ok(maker)
}

fn refuses(session: &Session, key: ObjectHandle, altered: &[u8], aad: &[u8], name: &str) -> Result<(), Refused> {
    match decrypt(session, key, altered, aad) {
        Ok(_) => Err(Refused::wrong(format!("self-test: the token unwraps although the {name} was altered"))),
        Err(error) if is_trouble(&error) => Err(Refused::of("self-test, unwrapping", &error)),
        Err(_) => Ok(()),
    }
}
