//! Is this a JSON value? For what was opened: data from outside, whatever the tag says.

use crate::text;

/// One value, of any type, without white space around it, at most `depth` brackets deep.
pub(crate) fn is_value(bytes: &[u8], depth: usize) -> bool {
    std::str::from_utf8(bytes).is_ok() && Reader { rest: bytes }.whole(depth)
}

/// RFC 8259's number grammar, and nothing beside it.
pub(crate) fn is_number(bytes: &[u8]) -> bool {
    let mut reader = Reader { rest: bytes };
    reader.number() && reader.rest.is_empty()
}

/// The characters between the quotes of a string.
pub(crate) fn is_string_body(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok() && text::unescape(bytes, &mut Vec::new()).is_ok()
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl Reader<'_> {
    fn whole(&mut self, depth: usize) -> bool {
        // An explicit stack: a hostile depth must not be ours.
        let mut open: Vec<u8> = Vec::new();
        loop {
            // A value begins here.
            match self.rest.first() {
                Some(&bracket @ (b'[' | b'{')) => {
                    self.skip(1);
                    if open.len() >= depth {
                        return false;
                    }
                    self.space();
                    if self.rest.first() == Some(&(bracket + 2)) {
                        self.skip(1);
                    } else {
                        open.push(bracket + 2);
                        if bracket == b'{' && !self.key() {
                            return false;
                        }
                        continue;
                    }
                }
                _ => {
                    if !self.scalar() {
                        return false;
                    }
                }
            }
            // A value has ended.
            loop {
                let Some(&close) = open.last() else {
                    return self.rest.is_empty();
                };
                self.space();
                match self.rest.first() {
                    Some(b',') => {
                        self.skip(1);
                        self.space();
                        if close == b'}' && !self.key() {
                            return false;
                        }
                        break;
                    }
                    Some(byte) if *byte == close => {
                        self.skip(1);
                        open.pop();
                    }
                    _ => return false,
                }
            }
        }
    }

    fn skip(&mut self, count: usize) {
        self.rest = self.rest.get(count..).unwrap_or_default();
    }

    fn space(&mut self) {
        let count = self.rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).count();
        self.skip(count);
    }

    /// A member's name, its colon, and the white space behind.
    fn key(&mut self) -> bool {
        if !self.string() {
            return false;
        }
        self.space();
        let colon = self.rest.first() == Some(&b':');
        self.skip(1);
        self.space();
        colon
    }

    fn scalar(&mut self) -> bool {
        match self.rest.first() {
            Some(b'"') => self.string(),
            Some(b't') => self.literal(b"true"),
            Some(b'f') => self.literal(b"false"),
            Some(b'n') => self.literal(b"null"),
            _ => self.number(),
        }
    }

    fn literal(&mut self, word: &[u8]) -> bool {
        let found = self.rest.starts_with(word);
        self.skip(word.len());
        found
    }

    fn string(&mut self) -> bool {
        let Some((b'"', body)) = self.rest.split_first() else {
            return false;
        };
        let mut at = 0;
        loop {
            match body.get(at) {
                None => return false,
                Some(b'\\') => at += 2,
                Some(b'"') => break,
                Some(_) => at += 1,
            }
        }
        let (inside, rest) = body.split_at(at);
        self.rest = rest.get(1..).unwrap_or_default();
        text::unescape(inside, &mut Vec::new()).is_ok()
    }

    fn digits(&mut self) -> usize {
        let count = self.rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.skip(count);
        count
    }

    fn number(&mut self) -> bool {
        if self.rest.first() == Some(&b'-') {
            self.skip(1);
        }
        let zero = self.rest.first() == Some(&b'0');
        let count = self.digits();
        if count == 0 || (zero && count > 1) {
            return false;
        }
        if self.rest.first() == Some(&b'.') {
            self.skip(1);
            if self.digits() == 0 {
                return false;
            }
        }
        if matches!(self.rest.first(), Some(b'e' | b'E')) {
            self.skip(1);
            if matches!(self.rest.first(), Some(b'+' | b'-')) {
                self.skip(1);
            }
            return self.digits() > 0;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_told_from_what_only_looks_like_one() {
        for good in [
            "[]",
            "{}",
            "[1,2 , 3]",
            "{\"a\":[{\"b\":null}],\"c\":\"\\u0041\"}",
            "[ ]",
            "{ }",
            "-0.1e+3",
            "true",
            "\"x\"",
            "[[],{}]",
        ] {
            assert!(is_value(good.as_bytes(), 8), "{good}");
        }
        for bad in [
            "",
            " []",
            "[] ",
            "[1,]",
            "[,1]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "[1 2]",
            "[}",
            "01",
            "1.",
            "1e",
            "-",
            "+1",
            ".5",
            "nul",
            "\"a",
            "\"\\x\"",
            "[\"\\ud800\"]",
            "[]]",
            "{}{}",
            "\"a\" \"b\"",
        ] {
            assert!(!is_value(bad.as_bytes(), 8), "{bad}");
        }
    }

    #[test]
    fn depth_counts_from_the_own_bracket_and_costs_no_stack() {
        let nested = |depth: usize| ["[".repeat(depth), "]".repeat(depth)].concat();
        assert!(is_value(nested(128).as_bytes(), 128));
        assert!(!is_value(nested(129).as_bytes(), 128));
        assert!(!is_value("[".repeat(1_000_000).as_bytes(), 128));
    }

    proptest::proptest! {
        #[test]
        fn the_verdict_is_serde_json_s(
            bytes in proptest::collection::vec(proptest::sample::select(b"{}[]:,\"\\ u0d8e-+.1tfrnalsx\xc3\xa9\n".to_vec()), 0..14),
        ) {
            let expected = serde_json::from_slice::<serde_json::Value>(&bytes);
            // Numbers past its range, and white space outside, which a token's content has none of.
            let decided = !expected.as_ref().is_err_and(|error| error.to_string().contains("out of range"));
            let bare = bytes.trim_ascii().len() == bytes.len();
            if decided && bare {
                proptest::prop_assert_eq!(is_value(&bytes, 128), expected.is_ok(), "{:?}", String::from_utf8_lossy(&bytes));
            }
        }
    }
}
