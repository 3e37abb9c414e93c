//! What is wrong with a configuration, and where.

use std::fmt;
use std::sync::Arc;

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// An environment variable.
    Env(String),
    /// A place in a YAML document.
    Document {
        /// The file's path, or `OILSKIN_CONFIG_YAML`.
        source: Arc<str>,
        /// Line, from 1.
        line: usize,
        /// Column in characters, from 1.
        column: usize,
    },
    /// Nowhere: something is missing altogether.
    Nowhere,
}

/// One thing that is wrong. Never holds a secret's value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where it stands.
    pub place: Place,
    /// Path in the document (`routes[0].fields[1].select`); empty where there is none.
    pub path: String,
    /// The rule broken, and what to do.
    pub message: String,
}

impl Problem {
    pub(crate) fn new(place: &Place, path: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place: place.clone(), path: path.into(), message: message.into() }
    }

    pub(crate) fn env(name: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place: Place::Env(name.into()), path: String::new(), message: message.into() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Env(name) => f.write_str(name),
            Self::Document { source, line, column } => write!(f, "{source}:{line}:{column}"),
            Self::Nowhere => f.write_str("configuration"),
        }
    }
}

/// One line, whatever was typed: a name or a path may hold controls, and a report of problems is read line by line.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = format!("{}: ", self.place);
        // A variable's name says it all; its path in a document nobody wrote would not help.
        if !self.path.is_empty() && !matches!(self.place, Place::Env(_)) {
            line.push_str(&self.path);
            line.push_str(": ");
        }
        line.push_str(&self.message);
        for character in line.chars() {
            match character.is_control() {
                true => write!(f, "{}", character.escape_default())?,
                false => write!(f, "{character}")?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}

/// The nearest of `known` to `unknown`, if near enough to be meant.
pub(crate) fn nearest<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.into_iter().map(|name| (strsim::damerau_levenshtein(unknown, name), name));
    let (distance, name) = scored.min()?;
    (distance <= 2.max(unknown.len() / 4)).then_some(name)
}

/// `; did you mean X?`, or nothing.
pub(crate) fn did_you_mean<'a>(unknown: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    // The distance is quadratic in the length, and no name is that long.
    let near = (unknown.len() <= 128).then(|| nearest(unknown, known)).flatten();
    near.map(|name| format!("; did you mean {name}?")).unwrap_or_default()
}
