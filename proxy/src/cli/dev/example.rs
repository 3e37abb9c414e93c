//! The lines to copy, and what is true of them under the rules in force.

use std::net::SocketAddr;

use oilskin_config::Config;
use serde_json::Value;

use crate::{Offline, Phase, StartError};

const CUSTOMER: &str =
    r#"{"name":"Ada","ssn":"123-45-6789","email":"ada@example.com","card":{"number":"4111111111111111"}}"#;

/// What the first route's rules make of the example.
pub(super) enum Example {
    /// An object with ciphertext in these members.
    Encrypted(Vec<String>),
    /// No object any more.
    Whole,
    /// Nothing: the code and the reason.
    Refused(String),
}

impl Example {
    /// Asks the engine itself.
    pub(super) fn of(config: &Config) -> Result<Self, StartError> {
        let mut out = Vec::new();
        if let Err(error) = Offline::new(config, 0)?.rewrite(Phase::Request, [CUSTOMER.as_bytes()], &mut out) {
            return Ok(Self::Refused(error.to_string()));
        }
        let (before, after) = (serde_json::from_str(CUSTOMER), serde_json::from_slice(&out));
        let (Ok(before), Ok(after @ Value::Object(_))) = (before, after) else { return Ok(Self::Whole) };
        let mut members = Vec::new();
        changed("", &before, &after, &mut members);
        Ok(Self::Encrypted(members))
    }

    pub(super) fn text(&self, listen: &str, demo: SocketAddr) -> String {
        let stored = match self {
            Self::Encrypted(members) if members.is_empty() => "plaintext, as no rule selects any of this".to_owned(),
            Self::Encrypted(members) => format!("ciphertext in {}", members.join(", ")),
            Self::Whole => {
                return "\nYour rules make the whole body one token. The built-in store keeps JSON objects only: set OILSKIN_UPSTREAM to \
                        one that takes it.\nCtrl-C ends it.\n"
                    .to_owned();
            }
            Self::Refused(why) => return format!("\nYour settings refuse the example: {why}.\nCtrl-C ends it.\n"),
        };
        format!(
            "\nIn a second terminal, as the app would:\n\n  \
             curl --json '{CUSTOMER}' {listen}/customers/1\n  \
             curl {listen}/customers/1      # what the app reads back: plaintext\n  \
             curl http://{demo}/customers/1      # what the store holds: {stored}\n\n\
             What the store is given appears here. Ctrl-C ends it.\n"
        )
    }
}

/// The members that differ, as dotted names.
fn changed(path: &str, before: &Value, after: &Value, found: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(members), Value::Object(after)) => {
            for (name, before) in members {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                changed(&path, before, after.get(name).unwrap_or(&Value::Null), found);
            }
        }
        _ if before != after => found.push(path.to_owned()),
        _ => {}
    }
}
