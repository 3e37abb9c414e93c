//! What stands around a value that something else encrypts: Vault's transit engine knows bytes, and neither types nor places.

use crate::derive::push_lp;
use crate::header::Type;
use crate::message::{check_bound, emit_json, padded, unpad};
use crate::spec::{Bound, FieldSpec, Value};
use crate::text::{self, Bad};
use crate::{DecryptReason, Error};

/// What a framed plaintext begins with; its type follows.
const MARK: [u8; 5] = [0, b'o', b'i', b'l', 1];

/// Bytes that transit adds: a nonce of 12 and a tag of 16.
const ADDED: usize = 28;

/// Characters before the Base64 of a ciphertext: `vault:v`, at most ten digits, a colon.
const BEFORE: usize = 18;

/// How a value becomes the bytes that are encrypted elsewhere. Fixed for a rule, never guessed from what comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame {
    /// `00 'o' 'i' 'l' 01`, the type's byte, the value as in tokens; a padded one has the type 0.
    Typed,
    /// The text of a string alone, as other clients write it.
    Bare,
}

impl Frame {
    /// Appends what is to be encrypted.
    ///
    /// # Errors
    /// [`Error::TooLarge`] where its ciphertext would be longer than the rule's `max_token`, [`Error::Value`] for what has no such
    /// frame. `out` is without meaning then.
    pub fn wrap(self, spec: &FieldSpec, value: Value<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        let before = out.len();
        match self {
            Self::Bare => bare(value, out)?,
            Self::Typed => {
                out.extend_from_slice(&MARK);
                let at = out.len();
                out.push(0);
                let kind = padded(value, spec, out, &mut Vec::new())?;
                if let Some(byte) = out.get_mut(at) {
                    *byte = kind as u8;
                }
            }
        }
        match ciphertext(out.len() - before) > spec.max_token {
            true => Err(Error::TooLarge),
            false => Ok(()),
        }
    }

    /// Appends the JSON value that was wrapped.
    ///
    /// # Errors
    /// [`DecryptReason::Content`]: it is none of this frame, or does not fit its type.
    pub fn unwrap(self, spec: &FieldSpec, plain: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        let (kind, value) = match self {
            Self::Bare => (Type::String, plain),
            Self::Typed => {
                let rest = plain.strip_prefix(&MARK).and_then(<[u8]>::split_first);
                let (&kind, value) = rest.ok_or(DecryptReason::Content)?;
                match Type::from_byte(kind).ok_or(DecryptReason::Content)? {
                    Type::Opaque => unpad(value)?,
                    kind => (kind, value),
                }
            }
        };
        let before = out.len();
        emit_json(kind, value, spec.depth, out).inspect_err(|_| out.truncate(before))
    }
}

fn bare(value: Value<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
    match value {
        Value::Text(text) => out.extend_from_slice(text.as_bytes()),
        Value::String([b'"', body @ .., b'"']) => text::unescape(body, out).map_err(|bad| match bad {
            Bad::Syntax => Error::Value("not a JSON string"),
            Bad::LoneSurrogate => Error::Value("half of a surrogate pair"),
        })?,
        _ => return Err(Error::Value("frame: bare holds strings only")),
    }
    Ok(())
}

/// Characters of the ciphertext of so many bytes.
fn ciphertext(plain: usize) -> usize {
    BEFORE + (plain + ADDED).div_ceil(3) * 4
}

impl FieldSpec {
    /// Characters of the longest ciphertext of transit's that a value of so many bytes may become.
    pub fn longest_ciphertext(&self, value: usize) -> usize {
        let inner = self.pad.map_or(value, |pad| (value + 2).next_multiple_of(pad));
        ciphertext(MARK.len() + 1 + inner)
    }

    /// Characters of the longest token or ciphertext that is taken.
    pub fn longest_taken(&self) -> usize {
        self.max_token
    }

    /// Whether the rule binds its fields to others.
    pub fn is_bound(&self) -> bool {
        self.binds
    }

    /// How many contexts the rule has.
    pub fn contexts(&self) -> usize {
        self.contexts.len()
    }

    /// What keys are derived from for the rule's context of that number, the first one being 0: lp(tenant) ‖ lp(context). None past the
    /// last.
    pub fn derivation(&self, context: usize, tenant: &[u8]) -> Option<Vec<u8>> {
        let context = self.contexts.get(context)?;
        let mut bytes = Vec::with_capacity(8 + tenant.len() + context.len());
        push_lp(&mut bytes, tenant);
        push_lp(&mut bytes, context.as_bytes());
        Some(bytes)
    }

    /// What a field's ciphertext is bound to: count ‖ lp(name) ‖ lp(value)…; none for rules that bind nothing.
    ///
    /// # Errors
    /// [`Error::Value`] for bound values out of range.
    pub fn associated(&self, bound: Bound<'_>) -> Result<Option<Vec<u8>>, Error> {
        if !self.binds {
            return Ok(None);
        }
        check_bound(self, bound)?;
        let mut bytes = vec![u8::try_from(bound.0.len()).unwrap_or(u8::MAX)];
        for (name, value) in bound.0 {
            push_lp(&mut bytes, name);
            push_lp(&mut bytes, value);
        }
        Ok(Some(bytes))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Frame;
    use crate::spec::{Bound, FieldSpec, Value};

    fn spec() -> FieldSpec {
        FieldSpec::new(vec!["a".to_owned(), "b".to_owned()])
    }

    fn there_and_back(frame: Frame, spec: &FieldSpec, value: Value<'_>) -> String {
        let (mut plain, mut out) = (Vec::new(), Vec::new());
        frame.wrap(spec, value, &mut plain).unwrap();
        frame.unwrap(spec, &plain, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_type_comes_back_byte_for_byte() {
        let all = [
            Value::String(br#""a\u00e9""#),
            Value::String("\"ü\"".as_bytes()),
            Value::Number(b"1.50e3"),
            Value::Boolean(true),
            Value::Boolean(false),
            Value::Null,
            Value::Array(b"[1, 2]"),
            Value::Object(b"{\"a\" :1}"),
        ];
        let texts = [r#""a\u00e9""#, "\"ü\"", "1.50e3", "true", "false", "null", "[1, 2]", "{\"a\" :1}"];
        for spec in [spec(), spec().pad(Some(32))] {
            for (value, text) in all.iter().zip(texts) {
                assert_eq!(there_and_back(Frame::Typed, &spec, *value), text);
            }
        }
        let mut plain = Vec::new();
        Frame::Typed.wrap(&spec().pad(Some(32)), Value::Null, &mut plain).unwrap();
        assert_eq!(plain.len(), 6 + 32, "padded after the mark and the type");
    }

    #[test]
    fn bare_frames_hold_the_text_of_strings_and_nothing_else() {
        let mut plain = Vec::new();
        Frame::Bare.wrap(&spec(), Value::String(br#""a\n\u00e9""#), &mut plain).unwrap();
        assert_eq!(plain, "a\né".as_bytes());
        assert_eq!(there_and_back(Frame::Bare, &spec(), Value::String(br#""a\n\u00e9""#)), "\"a\\né\"");
        assert!(Frame::Bare.wrap(&spec(), Value::Number(b"1"), &mut Vec::new()).is_err());
        assert!(Frame::Bare.wrap(&spec(), Value::String(br#""\ud800""#), &mut Vec::new()).is_err());
        assert!(Frame::Bare.unwrap(&spec(), &[0xff], &mut Vec::new()).is_err());
    }

    #[test]
    fn what_is_of_another_frame_or_does_not_fit_its_type_is_refused() {
        for plain in [
            &b""[..],
            b"plain",
            b"\0oil\x01",
            b"\0oil\x02\x01a",
            b"\0oil\x01\x03x",
            b"\0oil\x01\x06{}",
            b"\0oil\x01\x08",
        ] {
            let mut out = b"before".to_vec();
            assert!(Frame::Typed.unwrap(&spec(), plain, &mut out).is_err(), "{plain:?}");
            assert_eq!(out, b"before");
        }
    }

    #[test]
    fn contexts_and_bound_values_are_told_apart_by_their_lengths() {
        let spec = spec();
        assert_eq!(spec.derivation(0, b"t").unwrap(), [&[0, 0, 0, 1][..], b"t", &[0, 0, 0, 1], b"a"].concat());
        assert_ne!(spec.derivation(0, b"ta"), spec.derivation(0, b"t"));
        assert!(spec.derivation(2, b"").is_none());
        assert_eq!(spec.associated(Bound::default()).unwrap(), None);
        let binds = spec.binds(true);
        let one = binds.associated(Bound(&[(b"id", b"7")])).unwrap().unwrap();
        assert_eq!(one, [&[1, 0, 0, 0, 2][..], b"id", &[0, 0, 0, 1], b"7"].concat());
        assert!(binds.associated(Bound(&[(b"id", b"")])).is_err());
    }

    proptest! {
        #[test]
        fn any_text_comes_back(text in ".*", pad in proptest::option::of(1_usize..64)) {
            let json = serde_json::to_string(&text).unwrap();
            let back = there_and_back(Frame::Typed, &spec().pad(pad), Value::String(json.as_bytes()));
            prop_assert_eq!(serde_json::from_str::<String>(&back).unwrap(), text.clone());
            let bare = there_and_back(Frame::Bare, &spec(), Value::String(json.as_bytes()));
            prop_assert_eq!(serde_json::from_str::<String>(&bare).unwrap(), text);
        }

        #[test]
        fn no_plaintext_makes_it_panic(plain in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut framed = super::MARK.to_vec();
            framed.extend_from_slice(&plain);
            for frame in [Frame::Typed, Frame::Bare] {
                for plain in [&plain, &framed] {
                    let mut out = Vec::new();
                    if frame.unwrap(&spec(), plain, &mut out).is_ok() {
                        prop_assert!(serde_json::from_slice::<serde_json::Value>(&out).is_ok());
                    }
                }
            }
        }
    }
}
