//! AES key wrap (RFC 3394), for tokens without AES-GCM, and the test that it is that.
//!
//! It wraps keys and no bytes, so a share becomes a key of the session for as long as it takes. It binds nothing: the name of a keyset
//! and a share's place are bound by the document's seals and MAC, which a moved share does not open.

use cryptoki::context::Function;
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use zeroize::Zeroizing;

use super::gcm::random;
use super::refused::{Refused, is_trouble};

/// Bytes that 32 become.
pub(super) const WRAPPED: usize = 40;

pub(super) fn wrap(session: &Session, key: ObjectHandle, plain: &[u8]) -> Result<Vec<u8>, Error> {
    let mut template = readable();
    template.push(Attribute::Value(plain.to_vec()));
    let share = session.create_object(&template)?;
    let wrapped = session.wrap_key(&Mechanism::AesKeyWrap, key, share);
    // Whatever fails ends the session, and with it what it holds.
    session.destroy_object(share)?;
    let mut wrapped = wrapped?;
    // Some tokens say how much room they want instead of how long it is.
    wrapped.truncate(WRAPPED);
    Ok(wrapped)
}

pub(super) fn unwrap(session: &Session, key: ObjectHandle, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, Error> {
    let share = session.unwrap_key(&Mechanism::AesKeyWrap, key, wrapped, &readable())?;
    let value = session.get_attributes(share, &[AttributeType::Value]);
    session.destroy_object(share)?;
    match value?.into_iter().next() {
        Some(Attribute::Value(value)) => Ok(Zeroizing::new(value)),
        // Left out of the answer where it may not be read.
        _ => Err(Error::Pkcs11(RvError::AttributeSensitive, Function::GetAttributeValue)),
    }
}

/// A share as a key of the session: it is ours already, and must come back.
fn readable() -> Vec<Attribute> {
    vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::Token(false),
        Attribute::Private(true),
        Attribute::Sensitive(false),
        Attribute::Extractable(true),
    ]
}

/// A root key of the session's own: it ends with it.
pub(crate) fn throw_away() -> Vec<Attribute> {
    vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::ValueLen(32.into()),
        Attribute::Token(false),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Wrap(true),
        Attribute::Unwrap(true),
    ]
}

/// Tries everything that wrapping relies on.
pub(super) fn test(session: &Session, key: ObjectHandle) -> Result<(), Refused> {
    let plain = random::<32>()?;
    let wrapped = wrap(session, key, &plain).map_err(|error| Refused::of("self-test, wrapping by AES-KW", &error))?;
    if wrapped.len() != WRAPPED {
        return Err(Refused::wrong("self-test: the token's AES key wrap does not make 40 bytes of 32"));
    }
    let back = unwrap(session, key, &wrapped)
        .map_err(|error| Refused::of("self-test, unwrapping by AES-KW and reading what came back", &error))?;
    if back.as_slice() != plain {
        return Err(Refused::wrong("self-test: what was unwrapped is not what was wrapped"));
    }
    for place in 0..WRAPPED {
        let mut altered = wrapped.clone();
        altered.iter_mut().skip(place).take(1).for_each(|byte| *byte ^= 1);
        match unwrap(session, key, &altered) {
            Ok(_) => return Err(Refused::wrong("self-test: the token unwraps although what it wrapped was altered")),
            Err(error) if is_trouble(&error) => return Err(Refused::of("self-test, unwrapping", &error)),
            Err(_) => {}
        }
    }
    Ok(())
}
