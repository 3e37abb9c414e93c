//! Opening one token.

use subtle::ConstantTimeEq;

use super::place::OpenPlace;
use super::seal::synthetic_nonce;
use super::{Message, Refused};
use crate::aead::{open_aegis, open_chacha};
use crate::document::{Line, State};
use crate::header::{Cipher, HEADER, Header, NONCE, PREFIX, Type};
use crate::keyset::Keyset;
use crate::spec::{Bound, FieldSpec};
use crate::{Error, base64url, json, text};

/// A token that opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// What came out; never [`Type::Opaque`].
    pub kind: Type,
    /// It was written under an older name of its context.
    pub renamed: bool,
    /// It was written with a version that is retired: written back, it would be encrypted anew.
    pub stale: bool,
}

/// Where the opened value goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Json,
    Text { header: bool },
}

/// Whether a decoded string is to be read as a token: `[ \t\r\n]*oil[0-9]+\.` in any case. Such a string is a token or an
/// error, never a plaintext; a valid token starts exactly with `oil1.`.
pub fn looks_like_token(text: &[u8]) -> bool {
    let start = text.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n'));
    let text = start.and_then(|start| text.get(start..)).unwrap_or_default();
    let Some((name, rest)) = text.split_first_chunk::<3>() else {
        return false;
    };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    name.eq_ignore_ascii_case(b"oil") && digits > 0 && rest.get(digits) == Some(&b'.')
}

pub(super) fn open(
    message: &mut Message,
    spec: &FieldSpec,
    token: &[u8],
    bound: Bound<'_>,
    out: &mut Vec<u8>,
    form: Form,
) -> Result<Opened, Error> {
    if token.len() > spec.max_token {
        return Err(Refused::TooLong.into());
    }
    let Some(text) = token.strip_prefix(PREFIX) else {
        return Err(match looks_like_token(token) {
            true => Refused::Malformed.into(),
            false => Refused::PlaintextRefused.into(),
        });
    };
    decode(text, &mut message.work)?;
    let header = Header::read(&message.work)?;
    // Taken out for the time of the attempts, which change the rest of the message.
    let keyset = message.keyset.take().ok_or_else(|| message.handle.unavailable())?;
    let unlocked = admit(&header, spec, &keyset).and_then(|()| unlock(message, spec, &header, &keyset, bound));
    message.keyset = Some(keyset);
    let (context, length, stale) = unlocked?;
    let plain = message.work.get(HEADER + NONCE..HEADER + NONCE + length).unwrap_or_default();
    let start = out.len();
    let kind = emit(header.kind, plain, spec.depth, form, out).inspect_err(|_| out.truncate(start))?;
    Ok(Opened { kind, renamed: context > 0, stale })
}

/// This alphabet only, no padding, spare bits zero.
fn decode(text: &[u8], work: &mut Vec<u8>) -> Result<(), Error> {
    match base64url::read(text, work) {
        true => Ok(()),
        false => Err(Refused::Malformed.into()),
    }
}

/// What the header alone decides.
fn admit(header: &Header, spec: &FieldSpec, keyset: &Keyset) -> Result<(), Error> {
    if header.algorithm.development && !keyset.development {
        return Err(Refused::Development.into());
    }
    if header.deterministic && spec.binds {
        return Err(Refused::WrongLine.into());
    }
    let version = keyset.version(header.key_id)?;
    if version.algorithm != header.algorithm {
        return Err(Refused::UnknownKey.into());
    }
    if header.deterministic != (version.line == Line::Lookup) {
        return Err(Refused::WrongLine.into());
    }
    match version.key {
        Some(_) => Ok(()),
        None => Err(Refused::DestroyedKey.into()),
    }
}

/// One attempt per listed context; the context that opened it, the plaintext's length, and whether its version is retired.
fn unlock(
    message: &mut Message,
    spec: &FieldSpec,
    header: &Header,
    keyset: &Keyset,
    bound: Bound<'_>,
) -> Result<(usize, usize, bool), Error> {
    let version = keyset.version(header.key_id)?;
    let bound = if header.deterministic { Bound::default() } else { bound };
    // Opening in place destroys the ciphertext, so a further context needs a copy.
    let spare = (spec.contexts.len() > 1).then(|| message.work.clone());
    for (context, name) in spec.contexts.iter().enumerate() {
        if let Some(spare) = spare.as_ref().filter(|_| context > 0) {
            message.work.clone_from(spare);
        }
        let found = message.open.iter().position(|place| {
            place.spec == spec.id
                && place.context == context
                && place.deterministic == header.deterministic
                && place.version == version.id
        });
        let at = match found {
            Some(at) => at,
            None => {
                let named = (spec.id, context, name.as_bytes());
                let place = OpenPlace::new(keyset, version, header.deterministic, message.tenant(), named)?;
                version.opens();
                message.open.push(place);
                message.open.len() - 1
            }
        };
        let place = message.open.get_mut(at).ok_or(Refused::Tag)?;
        match attempt(place, header, bound, &mut message.work) {
            Ok(length) => return Ok((context, length, version.state == State::Retired)),
            Err(Error::Decrypt(_)) => {}
            Err(other) => return Err(other),
        }
    }
    Err(Refused::Tag.into())
}

fn attempt(place: &mut OpenPlace, header: &Header, bound: Bound<'_>, work: &mut [u8]) -> Result<usize, Error> {
    let (_, rest) = work.split_at_mut_checked(HEADER).ok_or(Refused::Malformed)?;
    let (nonce, rest) = rest.split_first_chunk_mut::<NONCE>().ok_or(Refused::Malformed)?;
    let length = rest.len().checked_sub(header.algorithm.cipher.tag()).ok_or(Refused::Malformed)?;
    let (text, tag) = rest.split_at_mut_checked(length).ok_or(Refused::Malformed)?;
    let kind = header.kind as u8;
    match header.algorithm.cipher {
        Cipher::XChaCha20Poly1305 => {
            let tag = tag.first_chunk().ok_or(Refused::Malformed)?;
            let prefix = nonce.first_chunk().ok_or(Refused::Malformed)?;
            let (aad, key) = place.parts(prefix, kind, bound)?;
            open_chacha(key, nonce, aad, text, tag)?;
        }
        Cipher::Aegis256 => {
            let tag = tag.first_chunk().ok_or(Refused::Malformed)?;
            open_aegis(&place.subkey, nonce, place.aad.with(kind, bound), text, tag)?;
        }
    }
    if let Some(synthetic) = &place.synthetic {
        let right = synthetic_nonce(synthetic, place.aad.with(kind, bound), text);
        if !bool::from(right.ct_eq(nonce)) {
            return Err(Refused::Nonce.into());
        }
    }
    Ok(length)
}

/// What was opened is data from outside: it must fit its type before a byte of it is used.
fn emit(kind: Type, plain: &[u8], depth: usize, form: Form, out: &mut Vec<u8>) -> Result<Type, Error> {
    let (kind, plain) = match kind {
        Type::Opaque => unpad(plain)?,
        kind => (kind, plain),
    };
    match form {
        Form::Json => emit_json(kind, plain, depth, out)?,
        Form::Text { header } => emit_text(kind, plain, header, out)?,
    }
    Ok(kind)
}

/// Strips zeros and one 0x80; the first byte is the type, 1 to 7.
pub(crate) fn unpad(plain: &[u8]) -> Result<(Type, &[u8]), Error> {
    let end = plain.iter().rposition(|byte| *byte != 0).ok_or(Refused::Content)?;
    let (inside, mark) = plain.split_at(end);
    match (mark.first(), inside.split_first()) {
        (Some(0x80), Some((&kind, value))) => match Type::from_byte(kind) {
            None | Some(Type::Opaque) => Err(Refused::Content.into()),
            Some(kind) => Ok((kind, value)),
        },
        _ => Err(Refused::Content.into()),
    }
}

pub(crate) fn emit_json(kind: Type, plain: &[u8], depth: usize, out: &mut Vec<u8>) -> Result<(), Error> {
    let content = |fits: bool| if fits { Ok(()) } else { Err(Refused::Content) };
    match kind {
        Type::String => {
            content(simdutf8::basic::from_utf8(plain).is_ok())?;
            out.push(b'"');
            text::escape(plain, out);
            out.push(b'"');
        }
        Type::RawString => {
            content(json::is_string_body(plain))?;
            out.push(b'"');
            out.extend_from_slice(plain);
            out.push(b'"');
        }
        Type::Number => {
            content(json::is_number(plain))?;
            out.extend_from_slice(plain);
        }
        Type::Boolean => out.extend_from_slice(boolean(plain)?),
        Type::Null => {
            content(plain.is_empty())?;
            out.extend_from_slice(b"null");
        }
        Type::Array | Type::Object => {
            let first = if kind == Type::Array { b'[' } else { b'{' };
            content(plain.first() == Some(&first) && json::is_value(plain, depth))?;
            out.extend_from_slice(plain);
        }
        Type::Opaque => content(false)?,
    }
    Ok(())
}

fn boolean(plain: &[u8]) -> Result<&'static [u8], Error> {
    match plain {
        [1] => Ok(b"true"),
        [0] => Ok(b"false"),
        _ => Err(Refused::Content.into()),
    }
}

fn emit_text(kind: Type, plain: &[u8], header: bool, out: &mut Vec<u8>) -> Result<(), Error> {
    let start = out.len();
    match kind {
        Type::String if simdutf8::basic::from_utf8(plain).is_ok() => out.extend_from_slice(plain),
        Type::RawString if json::is_string_body(plain) => {
            text::unescape(plain, out).map_err(|_| Refused::Content)?;
        }
        Type::Number if json::is_number(plain) => out.extend_from_slice(plain),
        Type::Boolean => out.extend_from_slice(boolean(plain)?),
        _ => return Err(Refused::Content.into()),
    }
    let written = out.get(start..).unwrap_or_default();
    match header && written.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
        true => Err(Refused::Content.into()),
        false => Ok(()),
    }
}
