//! base64url without padding (RFC 4648, section 5), decoded strictly: this alphabet only, spare bits zero.
//!
//! By vector instructions where the processor has them: with a general decoder a token's text costs more than its cipher.

use base64_simd::{AsOut as _, URL_SAFE_NO_PAD};

/// Characters of `bytes` bytes.
pub(crate) fn length(bytes: usize) -> usize {
    URL_SAFE_NO_PAD.encoded_length(bytes)
}

/// Appends the text of `bytes`.
pub(crate) fn push(bytes: &[u8], out: &mut Vec<u8>) {
    URL_SAFE_NO_PAD.encode_append(bytes, out);
}

/// The text of `bytes`.
pub(crate) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode_to_string(bytes)
}

/// Replaces what `out` holds by what `text` means; false, and `out` without meaning, where it is no such text.
#[must_use]
pub(crate) fn read(text: &[u8], out: &mut Vec<u8>) -> bool {
    out.resize(text.len() / 4 * 3 + 3, 0);
    let decoded = URL_SAFE_NO_PAD.decode(text, out.as_mut_slice().as_out()).ok().map(|bytes| bytes.len());
    out.truncate(decoded.unwrap_or_default());
    decoded.is_some()
}

/// What `text` means.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    read(text.as_bytes(), &mut bytes).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_are_spelled_as_another_library_spells_them(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let text = encode(&bytes);
            prop_assert_eq!(&text, &URL_SAFE_NO_PAD.encode(&bytes));
            prop_assert_eq!(text.len(), length(bytes.len()));
            prop_assert_eq!(decode(&text), Some(bytes));
        }

        #[test]
        fn text_is_judged_as_another_library_judges_it(text in "[A-Za-z0-9_-]{0,140}", at in 0..140_usize, other in any::<u8>()) {
            let mut bytes = text.clone().into_bytes();
            prop_assert_eq!(decode(&text), URL_SAFE_NO_PAD.decode(&text).ok());
            if let Some(byte) = bytes.get_mut(at) {
                *byte = other;
            }
            let mut ours = vec![1; 3];
            let good = read(&bytes, &mut ours);
            prop_assert_eq!(good.then_some(ours), URL_SAFE_NO_PAD.decode(&bytes).ok());
        }
    }
}
