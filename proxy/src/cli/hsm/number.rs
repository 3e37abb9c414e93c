//! Mechanisms by numbers that `cryptoki` has no name for. Only a probe uses them, in a process of its own.
#![expect(unsafe_code, reason = "cryptoki makes types of the numbers alone that it knows, and of vendors' own")]

use std::ffi::c_ulong;

use cryptoki::mechanism::MechanismType;

/// `CKM_AES_KEY_WRAP_KWP` of PKCS#11 3.0, which was `CKM_AES_KEY_WRAP_PAD` (0x210A) before.
pub(super) const KWP: c_ulong = 0x210B;

/// `CKM_AES_KEY_WRAP_PKCS7` of PKCS#11 3.0.
pub(super) const PKCS7: c_ulong = 0x210C;

/// The mechanism of a number.
pub(super) fn numbered(number: c_ulong) -> MechanismType {
    // SAFETY: `MechanismType` is `repr(transparent)` over a `CK_MECHANISM_TYPE`, a `c_ulong` of which each value is one.
    unsafe { std::mem::transmute::<c_ulong, MechanismType>(number) }
}
