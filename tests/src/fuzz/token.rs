//! Tokens: nothing opens but what was made here, and what was made opens to what went in.

use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use oilskin_crypto::{Bound, Cipher, Error, FieldSpec, KeysetHandle, Message, Value};

use crate::keys::Keys;

/// Keys of this process' own, so that no token in a corpus can be right by having been kept.
struct Made {
    handles: [KeysetHandle; 2],
    specs: [FieldSpec; 4],
}

fn made() -> &'static Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    MADE.get_or_init(|| {
        let spec = || FieldSpec::new(vec!["ssn".to_owned()]);
        Made {
            handles: [Cipher::XChaCha20Poly1305, Cipher::Aegis256]
                .map(|cipher| Keys::with(cipher, false).handle("default")),
            specs: [spec(), spec().deterministic(true), spec().pad(Some(16)), spec().binds(true)],
        }
    })
}

/// The first byte picks a cipher, a kind of rule and what the rest is.
pub(super) fn token(data: &[u8]) {
    let Some((&choice, rest)) = data.split_first() else { return };
    let handle = &made().handles[usize::from(choice & 1)];
    let kind = usize::from(choice >> 1 & 3);
    let bound: &[(&[u8], &[u8])] = if kind == 3 { &[(b"record", b"42")] } else { &[] };
    let place = Place { handle, spec: &made().specs[kind], bound: Bound(bound) };
    match choice >> 3 & 3 {
        0 => place.refuses(rest),
        1 => place.refuses(format!("oil1.{}", URL_SAFE_NO_PAD.encode(rest)).as_bytes()),
        2 => place.refuses_all_but_its_own(rest),
        _ => place.gives_back(rest, kind == 1),
    }
}

struct Place<'a> {
    handle: &'a KeysetHandle,
    spec: &'a FieldSpec,
    bound: Bound<'a>,
}

impl Place<'_> {
    fn seal(&self, value: Value<'_>) -> Vec<u8> {
        let mut token = Vec::new();
        Message::new(self.handle, None, 0).encrypt(self.spec, value, self.bound, &mut token).unwrap();
        token
    }

    fn open(&self, token: &[u8]) -> Result<Vec<u8>, Error> {
        let mut out = b"before".to_vec();
        let opened = Message::new(self.handle, None, 0).decrypt(self.spec, token, self.bound, &mut out);
        match opened {
            Ok(_) => Ok(out.split_off(6)),
            Err(error) => {
                assert_eq!(out, b"before", "nothing of what does not open comes out");
                Err(error)
            }
        }
    }

    fn refuses(&self, token: &[u8]) {
        assert!(matches!(self.open(token), Err(Error::Decrypt(_))), "a foreign token opens");
        let mut out = Vec::new();
        let as_text = Message::new(self.handle, None, 0).decrypt_text(self.spec, token, true, &mut out);
        assert!(as_text.is_err() && out.is_empty(), "a foreign token opens as text");
    }

    /// Edits of a token: an even first byte changes its bytes, an odd one its text.
    fn refuses_all_but_its_own(&self, edits: &[u8]) {
        let token = self.seal(Value::String(b"\"123-45-6789\""));
        let Some((mode, edits)) = edits.split_first() else { return };
        let mut bytes = match mode & 1 {
            0 => URL_SAFE_NO_PAD.decode(&token[5..]).unwrap(),
            _ => token.clone(),
        };
        for edit in edits.chunks_exact(2).take(8) {
            let at = usize::from(edit[0]) % bytes.len();
            bytes[at] ^= edit[1];
        }
        let cut = bytes.len() - usize::from(mode >> 1 & 31) % bytes.len();
        bytes.truncate(cut);
        bytes.extend_from_slice(&edits[..usize::from(mode >> 6).min(edits.len())]);
        let edited = match mode & 1 {
            0 => format!("oil1.{}", URL_SAFE_NO_PAD.encode(bytes)).into_bytes(),
            _ => bytes,
        };
        match edited == token {
            true => assert_eq!(self.open(&edited).unwrap(), b"\"123-45-6789\""),
            false => self.refuses(&edited),
        }
    }

    /// Texts, strings and containers come back as they went in; deterministic ones in their canonical spelling.
    fn gives_back(&self, value: &[u8], deterministic: bool) {
        let Ok(text) = std::str::from_utf8(value) else { return };
        let opened = self.open(&self.seal(Value::Text(text))).unwrap();
        assert_eq!(serde_json::from_slice::<String>(&opened).unwrap(), text);
        let quoted = format!("\"{text}\"");
        if let Ok(meant) = serde_json::from_str::<String>(&quoted) {
            let opened = self.open(&self.seal(Value::String(quoted.as_bytes()))).unwrap();
            match deterministic {
                false => assert_eq!(opened, quoted.as_bytes()),
                true => assert_eq!(serde_json::from_slice::<String>(&opened).unwrap(), meant),
            }
        }
        self.gives_back_containers(value);
    }

    /// What is no container, and yet was encrypted as one, is refused when it comes out.
    fn gives_back_containers(&self, value: &[u8]) {
        let kind = match value.first() {
            Some(b'[') => Value::Array(value),
            Some(b'{') => Value::Object(value),
            _ => Value::Number(value),
        };
        let parsed = serde_json::from_slice::<serde_json::Value>(value);
        let trimmed = value.last().is_some_and(|last| !last.is_ascii_whitespace());
        let opened = self.open(&self.seal(kind));
        match parsed {
            Ok(parsed) if trimmed && !(parsed.is_string() || parsed.is_boolean() || parsed.is_null()) => {
                // White space before a number is not its lexeme.
                if !value[0].is_ascii_whitespace() {
                    assert_eq!(opened.unwrap(), value);
                }
            }
            Err(error) if is_undecided(&error) => {}
            _ => assert!(opened.is_err(), "what is no value comes out"),
        }
    }
}

/// Refusals of serde_json that are its own limits and not JSON's.
pub(super) fn is_undecided(error: &serde_json::Error) -> bool {
    let text = error.to_string();
    text.contains("out of range") || text.contains("recursion limit")
}
