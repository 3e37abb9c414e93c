//! The blind index: what lets an upstream search by equality without seeing the value.

use crate::Error;
use crate::base64url;
use crate::derive::{Purpose, length};
use crate::document::Line;
use crate::keyset::KeysetHandle;
use crate::sodium::{KEY, blake2b};
use crate::spec::FieldSpec;

/// What is done to a text before it is indexed, always in this order. No Unicode folding: its tables change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Normalisers {
    /// Take 09 0A 0D 20 off both ends.
    pub trim: bool,
    /// A-Z become a-z.
    pub lower: bool,
    /// Keep 0-9 only.
    pub digits: bool,
}

impl Normalisers {
    fn names(self) -> String {
        let named = [(self.trim, "trim"), (self.lower, "lower"), (self.digits, "digits")];
        let chosen: Vec<&str> = named.into_iter().filter_map(|(on, name)| on.then_some(name)).collect();
        chosen.join(",")
    }

    fn apply(self, text: &str) -> String {
        let space = |c| matches!(c, '\t' | '\n' | '\r' | ' ');
        let text = if self.trim { text.trim_matches(space) } else { text };
        let mut text = text.to_owned();
        if self.lower {
            text.make_ascii_lowercase();
        }
        if self.digits {
            text.retain(|c| c.is_ascii_digit());
        }
        text
    }
}

/// The index of `text` (a decoded string, a number as spelled, `true`, `false`) in the rule's first context: base64url of
/// the first `bits` (16 to 256, whole bytes).
///
/// # Errors
/// [`Error::KeyUnavailable`] without an active lookup version, [`Error::Value`] for other bits.
pub fn index(
    handle: &KeysetHandle,
    spec: &FieldSpec,
    tenant: Option<&str>,
    text: &str,
    bits: usize,
    normalisers: Normalisers,
) -> Result<String, Error> {
    if !(16..=256).contains(&bits) || !bits.is_multiple_of(8) {
        return Err(Error::Value("an index has 16 to 256 bits, in whole bytes"));
    }
    let keyset = handle.keyset()?;
    let version = keyset.active(Line::Lookup).ok_or_else(|| handle.unavailable())?;
    let context = spec.contexts.first().map(String::as_bytes).unwrap_or_default();
    let key = keyset.subkey(version, Purpose::Index, tenant.unwrap_or_default().as_bytes(), context)?;
    let names = normalisers.names();
    let mut hash = [0; KEY];
    blake2b(key.bytes(), &[&length(names.as_bytes()), names.as_bytes(), normalisers.apply(text).as_bytes()], &mut hash);
    Ok(base64url::encode(hash.get(..bits / 8).unwrap_or_default()))
}
