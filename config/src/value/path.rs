//! Path patterns: `/customers/{id}`, `/files/{*rest}`.

use super::Read;

/// A pattern, or why no request could match it as it was meant: what `ambiguous_path` refuses no route takes.
pub(crate) fn pattern(text: &str) -> Read<String> {
    if !text.starts_with('/') {
        return Err("a path pattern begins with /".to_owned());
    }
    parameters(text)?;
    literals(&shape(text))?;
    Ok(text.to_owned())
}

fn parameters(text: &str) -> Read<()> {
    let rule = || "{ and } enclose a parameter: {name}, {*rest}".to_owned();
    let mut names: Vec<&str> = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (inside, tail) = after.split_once('}').ok_or_else(rule)?;
        let name = inside.strip_prefix('*').unwrap_or(inside);
        if before.contains('}') || name.is_empty() || name.contains(['{', '*', '/']) {
            return Err(rule());
        }
        if names.contains(&name) {
            return Err(format!("the parameter {{{name}}} stands twice; give each its own name"));
        }
        names.push(name);
        rest = tail;
    }
    if rest.contains('}') { Err(rule()) } else { Ok(()) }
}

fn literals(shape: &str) -> Read<()> {
    let never = |why: &str| Err(format!("no request could match it: {why}"));
    if shape.contains(['?', '#']) {
        return never("a pattern has no query and no fragment");
    }
    if shape.contains(|c: char| c.is_whitespace() || c.is_control() || matches!(c, '<' | '>' | '`')) {
        return never("blanks, controls, < > ` stand in no path; %20 is a blank");
    }
    if shape.contains([';', '\\']) {
        return never("paths with ; or \\ are refused, as servers read them in two ways");
    }
    let mut segments = shape.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let vanishes = segment.is_empty() && segments.peek().is_some();
        if vanishes || matches!(segment, "." | "..") {
            return never("paths with // or with . or .. as a segment are refused, as servers read them in two ways");
        }
    }
    match shape.split('%').skip(1).all(stays) {
        true => Ok(()),
        false => {
            never("% stands before two hex digits, and of letters, digits, - . _ ~ / \\ and NUL none is written so")
        }
    }
}

/// Whether an escape that begins so is read in one way.
fn stays(escape: &str) -> bool {
    let digits = escape.get(..2).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
    byte.is_some_and(|byte| !byte.is_ascii_alphanumeric() && !b"-._~/\\\0".contains(&byte))
}

/// The parameters of a pattern.
pub(crate) fn params(pattern: &str) -> Vec<String> {
    let opened = pattern.split('{').skip(1);
    opened.filter_map(|part| part.split_once('}')).map(|(name, _)| name.trim_start_matches('*').to_owned()).collect()
}

/// A pattern with its parameters numbered, so that routes may name them differently.
pub(crate) fn shape(pattern: &str) -> String {
    let mut shape = String::new();
    for (index, part) in pattern.split('{').enumerate() {
        match part.split_once('}').filter(|_| index > 0) {
            Some((name, rest)) => {
                let star = if name.starts_with('*') { "*" } else { "" };
                shape.push_str(&format!("{{{star}p{index}}}{rest}"));
            }
            None => shape.push_str(part),
        }
    }
    shape
}
