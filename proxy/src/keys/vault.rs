//! Vault and OpenBao: root keys of the transit engine, documents in the KV engine.

mod kv;
mod transit;

use std::sync::Arc;
use std::time::Duration;

pub(super) use kv::Kv;
pub(super) use transit::Transit;

use super::{Failed, Fault};
use crate::vault::{Caller, Client, Error};

/// How long a call waits for the first token: less than a call may take, so that it can say why there is none.
const FIRST: Duration = Duration::from_millis(1_500);

/// One provider's way to Vault, and what it says of its answers.
struct Way {
    caller: Arc<Caller>,
    shown: String,
}

impl Way {
    /// Without a token nothing is said of any key, not even where the login was denied.
    async fn client(&self) -> Result<Client, Failed> {
        let client = self.caller.client_within(FIRST).await;
        client.map_err(|error| self.failed(Fault::Unreachable, format!("no token of Vault's: {}", error.in_full())))
    }

    /// An answer, or what it means.
    async fn ask<T>(
        &self,
        client: &Client,
        asked: impl Future<Output = Result<T, Error>>,
        meaning: impl FnOnce(&Error) -> Option<(Fault, &'static str)>,
    ) -> Result<T, Failed> {
        let answer = asked.await;
        self.caller.notice(answer.as_ref().err());
        let is_denied = answer.as_ref().err().is_some_and(Error::is_denied);
        if is_denied && self.caller.has_ended(client).await == Some(true) {
            let why = "the token of Vault's has ended before its time, perhaps revoked: another is on its way";
            return Err(self.failed(Fault::Unreachable, why));
        }
        answer.map_err(|error| {
            let (fault, advice) = meaning(&error).unwrap_or_else(|| usual(&error));
            // The words of these answers hold no value: they are of paths, policies and keys' names.
            let said = error.in_full();
            self.failed(fault, if advice.is_empty() { said } else { format!("{said}. {advice}") })
        })
    }

    fn failed(&self, fault: Fault, why: impl Into<String>) -> Failed {
        Failed { what: self.shown.clone(), fault, why: why.into() }
    }
}

/// What an answer means where nothing else is known.
fn usual(error: &Error) -> (Fault, &'static str) {
    match error.refused() {
        _ if error.is_denied() => (Fault::Denied, ""),
        Some(404) if error.says("no handler") || error.says("route entry not found") => {
            (Fault::Wrong, "Nothing is mounted there: `vault secrets list` shows what is")
        }
        Some(404) => (Fault::Missing, ""),
        Some(405) => (Fault::Wrong, "Another engine is mounted there: `vault secrets list` shows which"),
        // 412: a standby has not yet seen what it is asked for. 408, 425: later.
        Some(408 | 412 | 425) | None => (Fault::Unreachable, ""),
        Some(_) => (Fault::Wrong, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::usual;
    use crate::keys::Fault;
    use crate::vault::Error;

    #[test]
    fn only_vault_s_own_denial_is_one() {
        let answer = |code, said: &str| Error::answered(code, format!("{{\"errors\":[\"{said}\"]}}").as_bytes());
        let means = |error: &Error| usual(error).0;
        assert_eq!(means(&answer(403, "permission denied")), Fault::Denied);
        for code in [301, 302, 307, 401, 407, 408, 412, 425, 429, 472, 473, 500, 502, 503, 504] {
            assert_eq!(means(&answer(code, "")), Fault::Unreachable, "{code}");
        }
        assert_eq!(means(&Error::answered(403, b"<html>")), Fault::Unreachable);
        assert_eq!(means(&answer(404, "")), Fault::Missing);
        for (code, said) in [(404, "no handler for route x. route entry not found."), (405, ""), (400, ""), (418, "")] {
            assert_eq!(means(&answer(code, said)), Fault::Wrong, "{code}");
        }
    }
}
