//! What Vault's answers mean.

use std::fmt;
use std::time::Duration;

use rustify::errors::ClientError;
use vaultrs::api::EndpointError;

use crate::said::shortened;

/// Why nothing came of a call. Holds no body and no token: the library's errors hold both, and are dropped here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Error {
    kind: Kind,
    /// What Vault said; only of calls whose bodies hold nothing that is secret may it be shown.
    said: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// No connection, or it ended.
    Unreachable,
    /// No answer in time.
    Slow(Duration),
    /// 403: this token may not, or is none any more: both are answered alike.
    Denied,
    /// 503.
    Sealed,
    /// 307 of a standby, 472, 473.
    Standby,
    /// 429, which a standby's health is, too.
    Throttled,
    /// Another 4xx.
    Refused(u16),
    /// Another 5xx.
    Failed(u16),
    /// It makes no sense.
    Malformed,
    /// What is set cannot be used.
    Settings,
}

impl Error {
    pub(super) fn slow(deadline: Duration) -> Self {
        Kind::Slow(deadline).into()
    }

    pub(super) fn malformed() -> Self {
        Kind::Malformed.into()
    }

    pub(super) fn settings(what: impl Into<String>) -> Self {
        Self { kind: Kind::Settings, said: Some(what.into()) }
    }

    /// A word for metrics.
    pub(crate) fn reason(&self) -> &'static str {
        match self.kind {
            Kind::Unreachable => "unreachable",
            Kind::Slow(_) => "timeout",
            Kind::Denied => "denied",
            Kind::Sealed => "sealed",
            Kind::Standby => "standby",
            Kind::Throttled => "throttled",
            Kind::Refused(_) => "refused",
            Kind::Failed(_) => "failed",
            Kind::Malformed => "malformed",
            Kind::Settings => "settings",
        }
    }

    pub(crate) fn is_denied(&self) -> bool {
        self.kind == Kind::Denied
    }

    /// Vault has looked at what was asked and does not do it.
    pub(crate) fn is_answer(&self) -> bool {
        matches!(self.kind, Kind::Denied | Kind::Refused(_))
    }

    /// With Vault's own words.
    pub(crate) fn in_full(&self) -> String {
        match &self.said {
            Some(said) if !said.is_empty() => format!("{self}: {said}"),
            _ => self.to_string(),
        }
    }
}

impl From<Kind> for Error {
    fn from(kind: Kind) -> Self {
        Self { kind, said: None }
    }
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::ServerResponseError { code, content } => {
                let errors = content.and_then(|text| serde_json::from_str::<EndpointError>(&text).ok());
                Self { kind: of(code), said: errors.map(|said| shortened(&said.errors.join("; "))) }
            }
            ClientError::RequestError { source, .. } | ClientError::ResponseError { source } => {
                // Of the chain only its end is of use: what the system or TLS says.
                Self { kind: Kind::Unreachable, said: source.chain().last().map(|cause| shortened(&cause.to_string())) }
            }
            _ => Kind::Malformed.into(),
        }
    }
}

fn of(code: u16) -> Kind {
    match code {
        403 => Kind::Denied,
        307 | 472 | 473 => Kind::Standby,
        429 => Kind::Throttled,
        503 => Kind::Sealed,
        400..=499 => Kind::Refused(code),
        500..=599 => Kind::Failed(code),
        _ => Kind::Malformed,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Unreachable => f.write_str("Vault cannot be reached"),
            Kind::Slow(deadline) => write!(f, "Vault has not answered within {deadline:?}"),
            Kind::Denied => {
                f.write_str("Vault says permission denied (403): the token has ended, or its policy lacks this path")
            }
            Kind::Sealed => f.write_str("Vault is sealed or in maintenance (503)"),
            Kind::Standby => {
                f.write_str("this is a standby of Vault that passes nothing on: name the active one, or let it forward")
            }
            Kind::Throttled => f.write_str("Vault asks to be spared (429)"),
            Kind::Refused(code) => write!(f, "Vault refuses what was asked ({code})"),
            Kind::Failed(code) => write!(f, "Vault has failed ({code})"),
            Kind::Malformed => f.write_str("what answers is no Vault, or of another version"),
            Kind::Settings => f.write_str("the way to Vault cannot be used"),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use rustify::errors::ClientError;

    use super::Error;

    fn answer(code: u16) -> Error {
        let content = format!("{{\"errors\":[\"a\\nb\",\"{}\"]}}", "c".repeat(1000));
        ClientError::ServerResponseError { code, content: Some(content) }.into()
    }

    #[test]
    fn codes_mean_what_vault_means_by_them() {
        let reasons = [
            (403, "denied"),
            (503, "sealed"),
            (429, "throttled"),
            (473, "standby"),
            (307, "standby"),
            (400, "refused"),
            (404, "refused"),
            (500, "failed"),
            (301, "malformed"),
        ];
        for (code, reason) in reasons {
            assert_eq!(answer(code).reason(), reason, "{code}");
        }
        assert!(answer(403).is_answer() && answer(400).is_answer() && !answer(503).is_answer());
    }

    #[test]
    fn vault_s_words_are_short_and_on_one_line_and_only_told_in_full() {
        let error = answer(400);
        assert_eq!(error.to_string(), "Vault refuses what was asked (400)");
        let full = error.in_full();
        assert!(full.starts_with("Vault refuses what was asked (400): a b; ccc"), "{full}");
        assert!(full.len() < 300 && !full.contains('\n'), "{full}");
    }
}
