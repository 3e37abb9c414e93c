//! What Vault's answers mean.
#![cfg_attr(not(feature = "vault"), allow(dead_code, reason = "nobody answers in a build without it"))]

use std::fmt;
use std::time::Duration;

#[cfg(feature = "vault")]
use serde_json::{Map, Value};
#[cfg(feature = "vault")]
use vaultrs::api::EndpointError;

#[cfg(feature = "vault")]
use crate::said::shortened;

/// How long a Vault that asks to be spared is, where it does not say for how long.
const SPARE: Duration = Duration::from_secs(1);

/// Why nothing came of a call. Holds no body and no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Error {
    kind: Kind,
    /// What Vault said; only of calls whose bodies hold nothing that is secret may it be shown.
    said: Option<String>,
    /// How long it asks to be spared for.
    spare: Option<Duration>,
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
    /// 307 of a standby, 472, 473; 412 of one that is behind what was read before.
    Standby,
    /// 429, which a standby's health is, too.
    Throttled,
    /// 401, 407, 408, and what else is 4xx and not in Vault's form: not Vault's answer, but that of something before it.
    Between(u16),
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
    pub(crate) fn slow(deadline: Duration) -> Self {
        Kind::Slow(deadline).into()
    }

    /// What an answer means that is no success.
    #[cfg(feature = "vault")]
    pub(crate) fn answered(code: u16, body: &[u8]) -> Self {
        let errors = serde_json::from_slice::<EndpointError>(body).ok();
        // A deleted secret is answered with JSON that has no errors in it. Whoever takes keys away says so in Vault's words; a
        // firewall's page is nobody's word.
        let is_vault_s = match code {
            403 => errors.is_some(),
            _ => serde_json::from_slice::<Map<String, Value>>(body).is_ok(),
        };
        let kind = match of(code) {
            Kind::Denied | Kind::Refused(_) if !is_vault_s => Kind::Between(code),
            kind => kind,
        };
        Self { spare: None, kind, said: errors.map(|said| shortened(&said.errors.join("; "))) }
    }

    /// No answer came, or not all of it. Of the chain only its end is of use: what the system or TLS says.
    #[cfg(feature = "vault")]
    pub(super) fn unreachable(error: &(dyn std::error::Error + 'static)) -> Self {
        let last = std::iter::successors(Some(error), |error| error.source()).last().unwrap_or(error);
        Self { spare: None, kind: Kind::Unreachable, said: Some(shortened(&last.to_string())) }
    }

    /// An answer that is longer than anything which Vault says.
    #[cfg(feature = "vault")]
    pub(super) fn endless(most: usize) -> Self {
        Self { spare: None, kind: Kind::Unreachable, said: Some(format!("its answer is longer than {most} bytes")) }
    }

    pub(crate) fn malformed() -> Self {
        Kind::Malformed.into()
    }

    pub(super) fn settings(what: impl Into<String>) -> Self {
        Self { kind: Kind::Settings, said: Some(what.into()), spare: None }
    }

    /// A word for metrics.
    pub(crate) fn reason(&self) -> &'static str {
        match self.kind {
            Kind::Unreachable | Kind::Between(_) => "unreachable",
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

    /// The same for a field that came to nothing by it.
    pub(crate) fn in_calls(&self) -> &'static str {
        match self.kind {
            Kind::Unreachable => "vault_unreachable",
            Kind::Slow(_) => "vault_timeout",
            Kind::Denied => "vault_denied",
            Kind::Sealed => "vault_sealed",
            Kind::Standby => "vault_standby",
            Kind::Throttled => "vault_throttled",
            Kind::Refused(_) => "vault_refused",
            Kind::Failed(_) => "vault_failed",
            Kind::Between(_) => "vault_between",
            Kind::Malformed => "vault_malformed",
            Kind::Settings => "vault_settings",
        }
    }

    /// How long Vault asks to be spared for.
    pub(crate) fn spare(&self) -> Option<Duration> {
        self.spare.or((self.kind == Kind::Throttled).then_some(SPARE))
    }

    /// The same with what its headers say of that.
    #[cfg(feature = "vault")]
    pub(super) fn sparing(self, spare: Option<Duration>) -> Self {
        match self.kind {
            Kind::Throttled | Kind::Sealed => Self { spare, ..self },
            _ => self,
        }
    }

    /// An answer with this code, for tests.
    #[cfg(test)]
    pub(crate) fn of_code(code: u16) -> Self {
        of(code).into()
    }

    /// The same with these words of Vault's.
    #[cfg(test)]
    pub(crate) fn said(code: u16, words: &str) -> Self {
        Self { kind: of(code), said: Some(words.to_owned()), spare: None }
    }

    pub(crate) fn is_denied(&self) -> bool {
        self.kind == Kind::Denied
    }

    /// Vault has looked at what was asked and does not do it.
    pub(crate) fn is_answer(&self) -> bool {
        matches!(self.kind, Kind::Denied | Kind::Refused(_))
    }

    /// The code of an answer that refuses what was asked.
    pub(crate) fn refused(&self) -> Option<u16> {
        match self.kind {
            Kind::Refused(code) => Some(code),
            _ => None,
        }
    }

    /// Whether Vault's own words hold these: for what has no code of its own.
    pub(crate) fn says(&self, words: &str) -> bool {
        self.said.as_ref().is_some_and(|said| said.contains(words))
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
        Self { kind, said: None, spare: None }
    }
}

fn of(code: u16) -> Kind {
    match code {
        403 => Kind::Denied,
        307 | 412 | 472 | 473 => Kind::Standby,
        429 => Kind::Throttled,
        503 => Kind::Sealed,
        401 | 407 | 408 => Kind::Between(code),
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
            Kind::Between(code) => {
                write!(f, "something between here and Vault answers {code}: a proxy, a load balancer, a firewall")
            }
            Kind::Refused(code) => write!(f, "Vault refuses what was asked ({code})"),
            Kind::Failed(code) => write!(f, "Vault has failed ({code})"),
            Kind::Malformed => f.write_str("what answers is no Vault, or of another version"),
            Kind::Settings => f.write_str("the way to Vault cannot be used"),
        }
    }
}

impl std::error::Error for Error {}

#[cfg(all(test, feature = "vault"))]
mod tests {
    use super::Error;

    fn answer(code: u16) -> Error {
        let content = format!("{{\"errors\":[\"a\\nb\",\"{}\"]}}", "c".repeat(1000));
        Error::answered(code, content.as_bytes())
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
            (401, "unreachable"),
            (407, "unreachable"),
            (408, "unreachable"),
        ];
        for (code, reason) in reasons {
            assert_eq!(answer(code).reason(), reason, "{code}");
            assert_eq!(answer(code).is_denied(), code == 403, "{code}");
        }
        assert!(answer(403).is_answer() && answer(400).is_answer() && !answer(503).is_answer());
    }

    #[test]
    fn a_403_that_is_not_vault_s_denies_nothing() {
        for content in ["", "<html>Forbidden</html>", "{}", "[]", "{\"errors\":1}", "\0"] {
            let error = Error::answered(403, content.as_bytes());
            assert!(!error.is_denied() && !error.is_answer() && error.reason() == "unreachable", "{error:?}");
            assert!(!error.in_full().contains("html"), "{error:?}");
        }
        let missing = |text: &str| Error::answered(404, text.as_bytes());
        for vault_s in ["{\"errors\":[]}", "{\"data\":{\"data\":null,\"metadata\":{\"deletion_time\":\"x\"}}}"] {
            assert_eq!(missing(vault_s).refused(), Some(404), "{vault_s}");
        }
        assert_eq!(missing("<html>").refused(), None);
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
