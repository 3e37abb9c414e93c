//! Encrypting one field.

use super::Message;
use super::place::{Aad, SealKeys, SealPlace, derived, derives};
use crate::Error;
use crate::aead::{seal_aegis, seal_chacha};
use crate::base64url;
use crate::derive::{Purpose, length};
use crate::document::Line;
use crate::header::{Algorithm, Cipher, HEADER, NONCE, PREFIX, Type};
use crate::keyset::Keyset;
use crate::slab::Key;
use crate::sodium::{KEY, blake2b};
use crate::spec::{Bound, FieldSpec, Value};
use crate::text::{self, Bad};

/// Bytes before the plaintext.
const BEFORE: usize = HEADER + NONCE;

pub(super) fn seal(
    message: &mut Message,
    spec: &FieldSpec,
    value: Value<'_>,
    bound: Bound<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    check_bound(spec, bound)?;
    let at = match message.seal.iter().position(|place| place.spec == spec.id) {
        Some(at) => at,
        None => prepare(message, spec)?,
    };
    message.work.clear();
    message.work.resize(BEFORE, 0);
    let kind = padded(value, spec, &mut message.work, &mut message.text)?;
    let place = message.seal.get_mut(at).ok_or(Error::TooLarge)?;
    let length = message.work.len() + place.algorithm.cipher.tag();
    if PREFIX.len() + base64url::length(length) > spec.max_token {
        return Err(Error::TooLarge);
    }
    let random = message.random;
    write_token(place, kind, bound, &mut message.work, &|nonce| random.fill(nonce))?;
    out.extend_from_slice(PREFIX);
    base64url::push(&message.work, out);
    Ok(())
}

pub(crate) fn check_bound(spec: &FieldSpec, bound: Bound<'_>) -> Result<(), Error> {
    if bound.0.is_empty() {
        return Ok(());
    }
    if spec.deterministic {
        return Err(Error::Value("deterministic mode binds nothing"));
    }
    let fits = bound.0.len() <= 255
        && bound.0.iter().all(|(name, value)| (1..=255).contains(&name.len()) && (1..=256).contains(&value.len()));
    match fits {
        true => Ok(()),
        false => Err(Error::Value("a bound value is empty or too long")),
    }
}

/// Appends the plaintext, padded where the rule says so, and says its type.
pub(crate) fn padded(value: Value<'_>, spec: &FieldSpec, out: &mut Vec<u8>, text: &mut Vec<u8>) -> Result<Type, Error> {
    let start = out.len();
    let inner = plaintext(value, spec.deterministic, out, text)?;
    let Some(pad) = spec.pad else { return Ok(inner) };
    out.insert(start, inner as u8);
    out.push(0x80);
    let length = (out.len() - start).next_multiple_of(pad);
    out.resize(start + length, 0);
    Ok(Type::Opaque)
}

/// Appends the plaintext and says its type.
fn plaintext(value: Value<'_>, canonical_only: bool, out: &mut Vec<u8>, text: &mut Vec<u8>) -> Result<Type, Error> {
    let (kind, bytes) = match value {
        Value::String(lexeme) => return string(lexeme, canonical_only, out, text),
        Value::Text(text) => (Type::String, text.as_bytes()),
        Value::Number(lexeme) => (Type::Number, lexeme),
        Value::Boolean(true) => (Type::Boolean, &[1][..]),
        Value::Boolean(false) => (Type::Boolean, &[0][..]),
        Value::Null => (Type::Null, &[][..]),
        Value::Array(whole) => (Type::Array, whole),
        Value::Object(whole) => (Type::Object, whole),
    };
    out.extend_from_slice(bytes);
    Ok(kind)
}

fn string(lexeme: &[u8], canonical_only: bool, out: &mut Vec<u8>, text: &mut Vec<u8>) -> Result<Type, Error> {
    let body = match lexeme {
        [b'"', body @ .., b'"'] => body,
        _ => return Err(Error::Value("not a JSON string")),
    };
    if !body.contains(&b'\\') {
        out.extend_from_slice(body);
        return Ok(Type::String);
    }
    text.clear();
    text::unescape(body, text).map_err(|bad| match bad {
        Bad::Syntax => Error::Value("not a JSON string"),
        Bad::LoneSurrogate => Error::Value("half of a surrogate pair"),
    })?;
    if canonical_only || text::is_canonical(body, text) {
        out.extend_from_slice(text);
        return Ok(Type::String);
    }
    out.extend_from_slice(body);
    Ok(Type::RawString)
}

fn prepare(message: &mut Message, spec: &FieldSpec) -> Result<usize, Error> {
    let keyset = message.keyset.clone().ok_or_else(|| message.handle.unavailable())?;
    let line = if spec.deterministic { Line::Lookup } else { Line::Field };
    let version = keyset.active(line).ok_or_else(|| message.handle.unavailable())?;
    if let Some(counted) = message.counted.get_mut(usize::from(spec.deterministic)).filter(|counted| !**counted) {
        *counted = version.seals(keyset.max_uses);
        if !*counted {
            return Err(message.handle.unavailable());
        }
    }
    let context = spec.contexts.first().map(String::as_bytes).unwrap_or_default();
    let algorithm = version.algorithm;
    let key_id = version.id.first_chunk().copied().unwrap_or_default();
    let aad = Aad::new(algorithm.header(spec.deterministic), &key_id, message.tenant(), context);
    let subkey = |keyset: &Keyset, purpose| keyset.subkey(version, purpose, message.tenant(), context);
    let keys = if spec.deterministic {
        let synthetic = Some(subkey(&keyset, Purpose::SyntheticNonce)?);
        SealKeys::Single { subkey: subkey(&keyset, Purpose::Deterministic)?, synthetic }
    } else if spec.unlinkable {
        SealKeys::Single { subkey: subkey(&keyset, Purpose::Random)?, synthetic: None }
    } else {
        let subkey = subkey(&keyset, Purpose::Random)?;
        let nonce = message.start()?;
        let derived = match (derives(algorithm), nonce.first_chunk()) {
            (true, Some(prefix)) => Some(derived(&subkey, prefix)?),
            _ => None,
        };
        SealKeys::Counted { subkey, derived, nonce }
    };
    message.seal.push(SealPlace { spec: spec.id, algorithm, key_id, aad, keys });
    Ok(message.seal.len() - 1)
}

type Fill<'a> = &'a dyn Fn(&mut [u8]) -> Result<(), Error>;

/// Turns header room and plaintext in `work` into a whole token.
fn write_token(
    place: &mut SealPlace,
    kind: Type,
    bound: Bound<'_>,
    work: &mut Vec<u8>,
    fill: Fill<'_>,
) -> Result<(), Error> {
    let algorithm = place.algorithm;
    let key_id = place.key_id;
    let aad = place.aad.with(kind as u8, bound);
    let (head, text) = work.split_at_mut_checked(BEFORE).ok_or(Error::TooLarge)?;
    let (nonce, deterministic, tag) = match &mut place.keys {
        SealKeys::Counted { subkey, derived, nonce } => {
            let used = *nonce;
            SealKeys::count(nonce);
            let tag = match derived {
                Some(derived) => Tag::Short(seal_chacha(derived, &used, aad, text)?),
                None => Tag::Long(seal_aegis(subkey, &used, aad, text)),
            };
            (used, false, tag)
        }
        SealKeys::Single { subkey, synthetic: None } => {
            let mut nonce = [0; NONCE];
            fill(&mut nonce)?;
            (nonce, false, whole(algorithm, subkey, &nonce, aad, text)?)
        }
        SealKeys::Single { subkey, synthetic: Some(synthetic) } => {
            let nonce = synthetic_nonce(synthetic, aad, text);
            (nonce, true, whole(algorithm, subkey, &nonce, aad, text)?)
        }
    };
    if let [alg, kind_byte, rest @ ..] = head {
        *alg = algorithm.header(deterministic);
        *kind_byte = kind as u8;
        if let Some((id, room)) = rest.split_first_chunk_mut::<8>() {
            *id = key_id;
            room.copy_from_slice(&nonce);
        }
    }
    match tag {
        Tag::Short(tag) => work.extend_from_slice(&tag),
        Tag::Long(tag) => work.extend_from_slice(&tag),
    }
    Ok(())
}

enum Tag {
    Short([u8; 16]),
    Long([u8; 32]),
}

fn whole(algorithm: Algorithm, subkey: &Key, nonce: &[u8; NONCE], aad: &[u8], text: &mut [u8]) -> Result<Tag, Error> {
    match algorithm.cipher {
        Cipher::Aegis256 => Ok(Tag::Long(seal_aegis(subkey, nonce, aad, text))),
        Cipher::XChaCha20Poly1305 => {
            let prefix = nonce.first_chunk().ok_or(Error::TooLarge)?;
            seal_chacha(&derived(subkey, prefix)?, nonce, aad, text).map(Tag::Short)
        }
    }
}

/// First 24 bytes of BLAKE2b-256(subkey 3, lp(AAD) ‖ what the AEAD gets).
pub(super) fn synthetic_nonce(synthetic: &Key, aad: &[u8], text: &[u8]) -> [u8; NONCE] {
    let mut hash = [0; KEY];
    blake2b(synthetic.bytes(), &[&length(aad), aad, text], &mut hash);
    hash.first_chunk().copied().unwrap_or_default()
}
