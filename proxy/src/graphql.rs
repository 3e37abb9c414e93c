//! GraphQL documents: a query that holds literals would carry plaintext past the rules on its variables.

/// Whether a query holds a literal that an app could put a value into: a string, a number, a default value, or a name
/// where a value stands. Variables, and the `true`, `false` and `null` of directives, are none.
///
/// It reads tokens only (GraphQL, October 2021, section 2.1): where a document is not GraphQL at all, what it takes for
/// a literal is refused and what it does not cannot be told from names of fields.
pub(crate) fn holds_literals(query: &str) -> bool {
    let mut scan = Scan::default();
    let mut rest = query.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = match byte {
            b'#' => tail
                .iter()
                .position(|byte| matches!(byte, b'\n' | b'\r'))
                .map_or(&[], |at| tail.get(at..).unwrap_or_default()),
            b'"' | b'=' | b'-' | b'0'..=b'9' => return true,
            b'$' => {
                let length = name_length(tail);
                scan.variable();
                tail.get(length..).unwrap_or_default()
            }
            b'A'..=b'Z' | b'a'..=b'z' | b'_' => {
                let length = name_length(rest);
                let (name, tail) = rest.split_at(length);
                if scan.name(name, tail.trim_ascii_start().first() == Some(&b':')) {
                    return true;
                }
                tail
            }
            other => {
                scan.punctuator(other);
                tail
            }
        };
    }
    false
}

/// Whether a text begins like a GraphQL document: a selection, or an operation or fragment with what may follow its name. For
/// members named `query` that may hold anything else.
pub(crate) fn looks_like_query(text: &str) -> bool {
    let ignored = |text: &mut &str| loop {
        *text = text.trim_start_matches([' ', '\t', '\r', '\n', ',', '\u{feff}']);
        match text.strip_prefix('#') {
            Some(comment) => *text = comment.find(['\n', '\r']).and_then(|end| comment.get(end..)).unwrap_or_default(),
            None => return,
        }
    };
    let mut rest = text;
    ignored(&mut rest);
    if rest.starts_with('{') {
        return true;
    }
    let name = |text: &mut &str| {
        let (name, after) = text.split_at_checked(name_length(text.as_bytes())).unwrap_or_default();
        *text = after;
        name.to_owned()
    };
    if !matches!(name(&mut rest).as_str(), "query" | "mutation" | "subscription" | "fragment") {
        return false;
    }
    ignored(&mut rest);
    let named = name(&mut rest);
    ignored(&mut rest);
    rest.starts_with(['{', '(', '@']) || (rest.starts_with("on") && !named.is_empty())
}

fn name_length(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count()
}

/// What the token before was.
#[derive(Default, PartialEq, Eq, Clone, Copy)]
enum Before {
    #[default]
    Other,
    Name,
    Variable,
    /// A colon after a plain name inside parentheses: a value follows.
    Value,
}

#[derive(Default)]
struct Scan {
    before: Before,
    /// Depth of parentheses: values stand only there.
    parentheses: u32,
    /// Depth of brackets that opened where a value stands: their elements are values.
    list: u32,
}

impl Scan {
    fn variable(&mut self) {
        self.before = Before::Variable;
    }

    /// Whether this name is a literal; one before a colon is the name of a member.
    fn name(&mut self, name: &[u8], before_colon: bool) -> bool {
        let value = self.before == Before::Value || (self.list > 0 && !before_colon);
        self.before = Before::Name;
        value && !matches!(name, b"true" | b"false" | b"null")
    }

    fn punctuator(&mut self, byte: u8) {
        let value = self.before == Before::Value;
        match byte {
            b'(' => self.parentheses += 1,
            b')' => self.parentheses = self.parentheses.saturating_sub(1),
            b'[' if value || self.list > 0 => self.list += 1,
            b']' => self.list = self.list.saturating_sub(1),
            b' ' | b'\t' | b'\n' | b'\r' | b',' => return,
            b':' if self.before == Before::Name && self.parentheses > 0 => {
                self.before = Before::Value;
                return;
            }
            _ => {}
        }
        self.before = Before::Other;
    }
}

#[cfg(test)]
mod tests {
    use super::{holds_literals, looks_like_query};

    #[test]
    fn what_begins_like_a_document_is_told_from_words() {
        for query in [
            "{a}",
            " \u{feff}# {x\n,{a}",
            "query{a}",
            "query Q($a: Int) {a}",
            "mutation M @x {a}",
            "fragment F on C {a}",
        ] {
            assert!(looks_like_query(query), "{query}");
        }
        for words in
            ["", "Ada", "query the 3 rivers", "queries {", "name:\"Ada\"", "(a)", "fragment of stone 3", "# {a}"]
        {
            assert!(!looks_like_query(words), "{words}");
        }
    }

    #[test]
    fn variables_alone_are_no_literals() {
        for query in [
            "query($id: ID!, $tags: [String!]!) { customer(id: $id) { name: fullName ssn } }",
            "mutation M($c: In!) { save(input: $c, also: [$c], deep: {a: $c, b: [$c, {c: $c}]}) @include(if: true) { id } } # \"no\"",
            "{ a { ...F } } fragment F on Customer { b }",
        ] {
            assert!(!holds_literals(query), "{query}");
        }
    }

    #[test]
    fn any_value_written_out_is_a_literal() {
        for query in [
            "{ save(ssn: \"1\") { id } }",
            "{ save(ssn: \"\"\"1\"\"\") { id } }",
            "{ save(n: 42) { id } }",
            "{ save(n: -1) { id } }",
            "query($a: Int = 3) { a }",
            "{ save(name: Smith) { id } }",
            "{ save(in: {name: Smith}) { id } }",
            "{ save(in: [Smith]) { id } }",
            "{ save(in: [{name: Smith}]) { id } }",
        ] {
            assert!(holds_literals(query), "{query}");
        }
    }
}
