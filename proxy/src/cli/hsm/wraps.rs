//! Mechanisms that wrap keys, each tried with keys that are thrown away.

use std::ffi::c_ulong;

use cryptoki::error::Error;
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::aead::GcmParams;
use cryptoki::mechanism::vendor_defined::VendorDefinedMechanism;
use cryptoki::object::{Attribute, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;

use super::found::{Worked, Wrap};
use super::number::{KWP, PKCS7, numbered};

/// A mechanism of `C_WrapKey`.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    Gcm,
    Kw,
    /// A number that means one thing here and another there.
    Pad,
    Number(c_ulong),
    CbcPad,
}

/// All that are tried, with their names.
pub(super) const KINDS: [(&str, Kind); 6] = [
    ("AES-GCM by C_WrapKey", Kind::Gcm),
    ("AES-KW (RFC 3394)", Kind::Kw),
    ("0x210A", Kind::Pad),
    ("0x210B", Kind::Number(KWP)),
    ("0x210C", Kind::Number(PKCS7)),
    ("AES-CBC-PAD", Kind::CbcPad),
];

/// A key and one wrapped by it, as mechanisms do it: RFC 3394, section 4.6, RFC 5649 (KWP), and PKCS#7 padding before RFC 3394.
const OVER: [u8; 32] = [
    0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30,
    31,
];
const KEY: [u8; 32] = [
    0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff, 0, 1, 2, 3, 4, 5,
    6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
];
const MEANINGS: [(&str, &str); 3] = [
    ("RFC 3394 (KW)", "28c9f404c4b810f4cbccb35cfb87f8263f5786e2d80ed326cbc7f0e71a99f43bfb988b9b7a02dd21"),
    ("RFC 5649 (KWP)", "4a8029243027353b0694cf1bd8fc745bb0ce8a739b19b1960b12426d4c39cfeda926d103ab34e9f6"),
    (
        "RFC 3394 behind PKCS#7 padding",
        "bedda2ae2bd4d45a988036805e20310b9ad335f0b4e5ff4990fb044c6f42fb1cd54845d801a044a2bbc7d84a49d48390",
    ),
];

/// Tries one.
pub(super) fn by_wrap_key(session: &Session, name: &str, kind: Kind) -> Wrap {
    let (mut first, mut second) = ([3; 12], [3; 12]);
    let worked = match kind {
        Kind::Gcm => GcmParams::new(&mut first, b"probe", 128.into())
            .and_then(|one| Ok((one, GcmParams::new(&mut second, b"probe", 128.into())?)))
            .and_then(|(one, two)| tried(session, &Mechanism::AesGcm(one), &Mechanism::AesGcm(two)))
            .map(|(worked, length)| (Worked { binds: true, ..worked }, length)),
        kind => tried(session, &plain(kind), &plain(kind)),
    };
    let note = match (&worked, kind) {
        (Ok((_, length)), Kind::Pad | Kind::Number(_)) => Some(format!("here {}", meaning(session, kind, *length))),
        (Ok((_, length)), Kind::Kw) => Some(meaning(session, kind, *length))
            .filter(|other| other != MEANINGS[0].0)
            .map(|other| format!("here {other}")),
        _ => None,
    };
    Wrap { name: name.to_owned(), worked: worked.map(|(worked, _)| worked).map_err(|error| said(&error)), note }
}

fn plain(kind: Kind) -> Mechanism<'static> {
    match kind {
        Kind::Kw | Kind::Gcm => Mechanism::AesKeyWrap,
        Kind::Pad => Mechanism::AesKeyWrapPad,
        Kind::Number(number) => Mechanism::VendorDefined(VendorDefinedMechanism::new::<()>(numbered(number), None)),
        Kind::CbcPad => Mechanism::AesCbcPad([5; 16]),
    }
}

/// What a mechanism really is: by a known key and what becomes of it; where the token takes no key from outside, by the length alone.
fn meaning(session: &Session, kind: Kind, length: usize) -> String {
    let wrapped = known(session, kind).unwrap_or_default();
    let text: String = wrapped.iter().map(|byte| format!("{byte:02x}")).collect();
    let same = MEANINGS.iter().find(|(_, known)| *known == text).map(|(name, _)| *name);
    let by_length = || match (length, wrapped.is_empty()) {
        (40, true) => "RFC 3394 or 5649, by its length".to_owned(),
        (48, true) => "RFC 3394 behind PKCS#7 padding, by its length".to_owned(),
        (other, _) => format!("something else that makes {other} bytes of 32"),
    };
    same.map_or_else(by_length, str::to_owned)
}

fn known(session: &Session, kind: Kind) -> Result<Vec<u8>, Error> {
    let key = |value: &[u8; 32], uses: [Attribute; 2]| {
        let mut template = unwrapped();
        template.push(Attribute::Value(value.to_vec()));
        template.extend(uses);
        session.create_object(&template)
    };
    let over = key(&OVER, [Attribute::Wrap(true), Attribute::Extractable(false)])?;
    let wrapped = key(&KEY, [Attribute::Wrap(false), Attribute::Extractable(true)]).and_then(|inner| {
        let wrapped = session.wrap_key(&plain(kind), over, inner);
        let _ = session.destroy_object(inner);
        wrapped
    });
    let _ = session.destroy_object(over);
    wrapped
}

/// Wraps a key, unwraps it, compares what both encrypt; and how many bytes that made.
fn tried(session: &Session, wrapping: &Mechanism, unwrapping: &Mechanism) -> Result<(Worked, usize), Error> {
    let over = session.generate_key(&Mechanism::AesKeyGen, &template(false))?;
    let key = session.generate_key(&Mechanism::AesKeyGen, &template(true))?;
    let outcome = session.wrap_key(wrapping, over, key).and_then(|wrapped| {
        let mut template = unwrapped();
        template.push(Attribute::Extractable(true));
        let unwrap = |bytes: &[u8]| session.unwrap_key(unwrapping, over, bytes, &template);
        let back = unwrap(&wrapped)?;
        // Where nothing else encrypts: two keys that are wrapped alike are one, too.
        let mark = |key| block(session, key).or_else(|_| session.wrap_key(unwrapping, over, key));
        let same = mark(back).and_then(|back| Ok(back == mark(key)?));
        let _ = session.destroy_object(back);
        if !same? {
            return Err(Error::InvalidValue);
        }
        // Everywhere but in the last byte: padding is looked at by mechanisms that detect nothing else.
        let detects = (0..wrapped.len() - 1).all(|place| {
            let mut altered = wrapped.clone();
            altered.iter_mut().skip(place).take(1).for_each(|byte| *byte ^= 1);
            unwrap(&altered).map(|key| session.destroy_object(key)).is_err()
        });
        Ok((Worked { detects, binds: false }, wrapped.len()))
    });
    for key in [over, key] {
        let _ = session.destroy_object(key);
    }
    outcome
}

fn template(extractable: bool) -> Vec<Attribute> {
    let mut template = unwrapped();
    template.extend([
        Attribute::ValueLen(32.into()),
        Attribute::Extractable(extractable),
        Attribute::Wrap(!extractable),
        Attribute::Unwrap(!extractable),
    ]);
    template
}

fn unwrapped() -> Vec<Attribute> {
    vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(KeyType::AES),
        Attribute::Token(false),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Encrypt(true),
        Attribute::Decrypt(true),
    ]
}

/// One block, always the same: two keys that encrypt it alike are one.
pub(super) fn block(session: &Session, key: ObjectHandle) -> Result<Vec<u8>, Error> {
    session.encrypt(&Mechanism::AesCbc([0; 16]), key, &[0; 16])
}

/// A token's answer in a word.
pub(super) fn said(error: &Error) -> String {
    match error {
        Error::Pkcs11(rv, _) => format!("{rv:?}"),
        Error::InvalidValue => "what came back was another key".to_owned(),
        _ => "no such function".to_owned(),
    }
}
