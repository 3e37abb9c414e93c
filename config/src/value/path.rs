//! Path patterns: `/customers/{id}`, `/files/{*rest}`.

use super::Read;

/// A pattern, or why no request could match it as it was meant.
pub(crate) fn pattern(text: &str) -> Read<String> {
    if !text.starts_with('/') {
        return Err("a path pattern begins with /".to_owned());
    }
    let names = params(text);
    let twice = names.iter().enumerate().find(|(index, name)| names.iter().take(*index).any(|other| other == *name));
    match twice {
        Some((_, name)) => Err(format!("the parameter {{{name}}} stands twice; give each its own name")),
        None => Ok(text.to_owned()),
    }
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
