//! How a root key wraps: by which mechanism, and who makes the IV.

use cryptoki::error::Error;
use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, ObjectHandle};
use cryptoki::session::Session;
use oilskin_config::Pkcs11Profile;
use zeroize::Zeroizing;

use super::gcm::{self, Iv};
use super::kw;
use super::refused::Refused;

/// A way that passed its test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// AES-GCM by `C_Encrypt`, with additional data.
    Gcm(Iv),
    /// AES-KW (RFC 3394) by `C_WrapKey`.
    Kw,
}

impl Way {
    /// Tries the profile's with a key that is thrown away.
    pub(crate) fn test(session: &Session, profile: Pkcs11Profile) -> Result<Self, Refused> {
        let template = match profile {
            Pkcs11Profile::Kw => kw::throw_away(),
            _ => gcm::throw_away().to_vec(),
        };
        let key = session
            .generate_key(&Mechanism::AesKeyGen, &template)
            .map_err(|error| Refused::of("the self-test wants to make a key that is thrown away", &error))?;
        let tested = match profile {
            Pkcs11Profile::Kw => kw::test(session, key).map(|()| Self::Kw),
            _ => gcm::test_with(session, key, profile).map(Self::Gcm),
        };
        let _ = session.destroy_object(key);
        tested
    }

    /// What a key is that is thrown away.
    pub(crate) fn throw_away(self) -> Vec<Attribute> {
        match self {
            Self::Gcm(_) => gcm::throw_away().to_vec(),
            Self::Kw => kw::throw_away(),
        }
    }

    /// The profile that is this and nothing else.
    pub(crate) fn profile(self) -> Pkcs11Profile {
        match self {
            Self::Gcm(Iv::Ours) => Pkcs11Profile::SoftHsm,
            Self::Gcm(Iv::Tokens) => Pkcs11Profile::CloudHsm,
            Self::Kw => Pkcs11Profile::Kw,
        }
    }

    /// Bytes that a share becomes.
    pub(super) fn length(self) -> usize {
        match self {
            Self::Gcm(_) => gcm::LENGTH,
            Self::Kw => kw::WRAPPED,
        }
    }

    /// Wraps 32 bytes, bound to `aad` where the mechanism binds.
    pub(crate) fn wrap(
        self,
        session: &Session,
        key: ObjectHandle,
        plain: &[u8; 32],
        aad: &[u8],
    ) -> Result<Vec<u8>, Refused> {
        match self {
            Self::Gcm(maker) => gcm::encrypt(session, key, maker, plain, aad),
            Self::Kw => kw::wrap(session, key, plain).map_err(|error| Refused::of("wrapping", &error)),
        }
    }

    /// Unwraps what [`Way::wrap`] made.
    pub(crate) fn unwrap(
        self,
        session: &Session,
        key: ObjectHandle,
        wrapped: &[u8],
        aad: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, Error> {
        match self {
            Self::Gcm(_) => gcm::decrypt(session, key, wrapped, aad),
            Self::Kw => kw::unwrap(session, key, wrapped),
        }
    }
}
