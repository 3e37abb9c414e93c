//! JSON strings: their canonical spelling, and what they mean.
//!
//! Canonical is `\" \\ \b \f \n \r \t`, other controls U+0000-001F as `\u00xx` with lower-case digits, all else raw UTF-8.

/// Why a string is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bad {
    /// Not the inside of a JSON string.
    Syntax,
    /// Half of a surrogate pair.
    LoneSurrogate,
}

/// Appends what the characters between the quotes mean. `body` must be UTF-8.
pub(crate) fn unescape(body: &[u8], out: &mut Vec<u8>) -> Result<(), Bad> {
    let mut rest = body;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\' || *byte < 0x20 || *byte == b'"') {
        let (plain, tail) = rest.split_at(at);
        out.extend_from_slice(plain);
        let [b'\\', kind, after @ ..] = tail else {
            return Err(Bad::Syntax);
        };
        rest = after;
        let byte = match kind {
            b'"' | b'\\' | b'/' => *kind,
            b'b' => 0x08,
            b'f' => 0x0C,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'u' => {
                rest = unicode(after, out)?;
                continue;
            }
            _ => return Err(Bad::Syntax),
        };
        out.push(byte);
    }
    out.extend_from_slice(rest);
    Ok(())
}

/// `uXXXX`, or a pair of them; returns what follows.
fn unicode<'a>(after: &'a [u8], out: &mut Vec<u8>) -> Result<&'a [u8], Bad> {
    let (first, rest) = hex4(after)?;
    let (code, rest) = match first {
        0xD800..=0xDBFF => {
            let [b'\\', b'u', second @ ..] = rest else {
                return Err(Bad::LoneSurrogate);
            };
            let (low, rest) = hex4(second)?;
            if !(0xDC00..=0xDFFF).contains(&low) {
                return Err(Bad::LoneSurrogate);
            }
            (0x10000 + ((first - 0xD800) << 10) + (low - 0xDC00), rest)
        }
        _ => (first, rest),
    };
    let character = char::from_u32(code).ok_or(Bad::LoneSurrogate)?;
    out.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    Ok(rest)
}

fn hex4(bytes: &[u8]) -> Result<(u32, &[u8]), Bad> {
    let (digits, rest) = bytes.split_first_chunk::<4>().ok_or(Bad::Syntax)?;
    let mut code = 0;
    for digit in digits {
        code = code * 16 + char::from(*digit).to_digit(16).ok_or(Bad::Syntax)?;
    }
    Ok((code, rest))
}

/// Appends the canonical spelling, without quotes.
pub(crate) fn escape(text: &[u8], out: &mut Vec<u8>) {
    let special = |byte: u8| (byte < 0x20) | (byte == b'"') | (byte == b'\\');
    let mut rest = text;
    // Most texts hold none: told without a branch a byte.
    if !rest.iter().fold(false, |any, byte| any | special(*byte)) {
        out.extend_from_slice(rest);
        return;
    }
    while let Some(at) = rest.iter().position(|byte| special(*byte)) {
        let (plain, tail) = rest.split_at(at);
        out.extend_from_slice(plain);
        let Some((&byte, after)) = tail.split_first() else {
            return;
        };
        rest = after;
        let short = match byte {
            b'"' | b'\\' => byte,
            0x08 => b'b',
            0x0C => b'f',
            b'\n' => b'n',
            b'\r' => b'r',
            b'\t' => b't',
            _ => {
                let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).map_or(b'0', |digit| digit as u8);
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte & 15)]);
                continue;
            }
        };
        out.extend_from_slice(&[b'\\', short]);
    }
    out.extend_from_slice(rest);
}

/// Whether a string's spelling is the canonical one; `decoded` is what it means.
pub(crate) fn is_canonical(body: &[u8], decoded: &[u8]) -> bool {
    let mut canonical = Vec::with_capacity(body.len());
    escape(decoded, &mut canonical);
    canonical == body
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoded(body: &str) -> Result<String, Bad> {
        let mut out = Vec::new();
        unescape(body.as_bytes(), &mut out).map(|()| String::from_utf8(out).unwrap())
    }

    #[test]
    fn escapes_mean_what_rfc_8259_says() {
        assert_eq!(decoded(r#"a\"\\\/\b\f\n\r\t\u0041\ud83d\ude00"#).unwrap(), "a\"\\/\u{8}\u{c}\n\r\tA😀");
        for body in [r"\ud800", r"\udc00", r"\ud800\u0041", r"\ud800x"] {
            assert_eq!(decoded(body), Err(Bad::LoneSurrogate), "{body}");
        }
        for body in [r"\x", r"\u12", "\u{1}", "\"", "\\"] {
            assert_eq!(decoded(body), Err(Bad::Syntax), "{body:?}");
        }
    }

    #[test]
    fn controls_are_spelled_short_where_they_can() {
        let mut out = Vec::new();
        escape("\u{0}\u{8}\u{1f}\u{7f}/é".as_bytes(), &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "\\u0000\\b\\u001f\u{7f}/é");
    }

    proptest! {
        #[test]
        fn what_is_escaped_unescapes_to_itself(text in ".*") {
            let mut canonical = Vec::new();
            escape(text.as_bytes(), &mut canonical);
            let mut back = Vec::new();
            unescape(&canonical, &mut back).unwrap();
            prop_assert_eq!(&back, text.as_bytes());
            prop_assert!(is_canonical(&canonical, &back));
        }
    }
}
