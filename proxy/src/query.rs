//! Query names and path parts.

use crate::error::{Code, Failure};
use crate::graphql;
use crate::route::unhex;
use crate::rules::PhaseRules;

/// While encrypting, a query parameter named like a protected top-level field would carry its plaintext past the rules.
pub(crate) fn check(query: Option<&str>, rules: &PhaseRules) -> Result<(), Failure> {
    let Some(query) = query.filter(|_| rules.looks_at_queries()) else {
        return Ok(());
    };
    let (mut document, mut variables) = (None, false);
    for pair in query.split(['&', ';']) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = percent_decode(&name.replace('+', " "));
        if let Some(rule) = rules.top_name(&name) {
            return Err(Failure::in_rule(Code::BadRequest, "protected_query_name", rule.clone()));
        }
        match name.as_slice() {
            b"query" => document = Some(value),
            b"variables" => variables = true,
            _ => {}
        }
    }
    match document.filter(|_| rules.graphql_in_queries()) {
        Some(document) if carries_values(document, variables) => {
            Err(Failure::in_rule(Code::BadRequest, "graphql_in_query", "$.query".into()))
        }
        _ => Ok(()),
    }
}

/// GraphQL over GET: with literals or variables it carries values past the rules.
fn carries_values(document: &str, variables: bool) -> bool {
    let document = percent_decode(&document.replace('+', " "));
    let Ok(document) = std::str::from_utf8(&document) else { return true };
    graphql::looks_like_query(document) && (variables || graphql::holds_literals(document))
}

/// Bytes of percent-encoded text; what is no escape stays (`+` is a plus).
pub(crate) fn percent_decode(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = match (byte, bytes.get(at + 1), bytes.get(at + 2)) {
            (b'%', Some(&high), Some(&low)) => unhex(high, low),
            _ => None,
        };
        out.push(escaped.unwrap_or(byte));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::percent_decode;

    #[test]
    fn decodes_escapes_and_leaves_the_rest() {
        assert_eq!(percent_decode("a%20b+%C3%A9%zz%4"), b"a b+\xc3\xa9%zz%4");
    }
}
