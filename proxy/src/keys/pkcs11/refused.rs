//! What a token's answers mean.

use cryptoki::error::{Error, RvError};

use crate::keys::Fault;

/// What did not work, and what that means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) fault: Fault,
    pub(crate) why: String,
}

impl Refused {
    pub(crate) fn wrong(why: impl Into<String>) -> Self {
        Self { fault: Fault::Wrong, why: why.into() }
    }

    pub(crate) fn unreachable(why: impl Into<String>) -> Self {
        Self { fault: Fault::Unreachable, why: why.into() }
    }

    /// While `doing` something with the token.
    pub(crate) fn of(doing: &str, error: &Error) -> Self {
        let (fault, why) = match error {
            Error::Pkcs11(rv, _) => of_answer(*rv),
            Error::LibraryLoading(_) | Error::MissingSymbol(_) => (
                Fault::Wrong,
                "the module cannot be loaded; is module-path a PKCS#11 library for this machine, with what it needs?",
            ),
            Error::NullFunctionPointer | Error::NotSupported => {
                (Fault::Wrong, "the module does not have that function: `oilskin hsm probe` shows what it has")
            }
            _ => (Fault::Unreachable, "the module's answer makes no sense"),
        };
        Self { fault, why: format!("{doing}: {why}{}", named(error)) }
    }
}

fn named(error: &Error) -> String {
    match error {
        // Its text is fixed; nothing that was given to the token is in it.
        Error::Pkcs11(rv, function) => format!(" ({function} said {rv:?})"),
        _ => String::new(),
    }
}

fn of_answer(rv: RvError) -> (Fault, &'static str) {
    use RvError as Rv;
    match rv {
        Rv::MechanismInvalid | Rv::FunctionNotSupported | Rv::MechanismParamInvalid => (
            Fault::Wrong,
            "the token does not offer AES-GCM (or AES-KW) as this profile uses it; `oilskin hsm probe` says which profile fits",
        ),
        Rv::KeyFunctionNotPermitted | Rv::KeyTypeInconsistent | Rv::KeySizeRange => (
            Fault::Wrong,
            "the key may not be used for this; it must be AES with 32 bytes, CKA_ENCRYPT and CKA_DECRYPT (for profile=kw CKA_WRAP and \
             CKA_UNWRAP)",
        ),
        Rv::AttributeSensitive | Rv::TemplateInconsistent | Rv::AttributeValueInvalid | Rv::AttributeReadOnly => (
            Fault::Wrong,
            "the token does not let a share be a key that can be read, so it cannot hold a root key this way",
        ),
        Rv::TokenNotPresent | Rv::DeviceRemoved | Rv::SlotIdInvalid => (Fault::Unreachable, "the token is gone"),
        Rv::UserNotLoggedIn => (Fault::Unreachable, "nobody is logged in any more"),
        Rv::SessionCount => {
            (Fault::Unreachable, "the token has no session left; others must close some, or its limit be raised")
        }
        _ => (Fault::Unreachable, "the token failed"),
    }
}

/// Whether it says nothing of the data: a test that expects a no must not take it for one.
pub(crate) fn is_trouble(error: &Error) -> bool {
    use RvError as Rv;
    match error {
        Error::Pkcs11(rv, _) => matches!(
            rv,
            Rv::DeviceError
                | Rv::DeviceMemory
                | Rv::DeviceRemoved
                | Rv::HostMemory
                | Rv::SessionClosed
                | Rv::SessionHandleInvalid
                | Rv::TokenNotPresent
                | Rv::UserNotLoggedIn
                | Rv::KeyHandleInvalid
                | Rv::ObjectHandleInvalid
                | Rv::WrappingKeyHandleInvalid
                | Rv::UnwrappingKeyHandleInvalid
                | Rv::OperationActive
                | Rv::CryptokiNotInitialized
        ),
        _ => true,
    }
}
