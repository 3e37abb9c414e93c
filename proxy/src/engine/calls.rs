//! Fields whose key is Vault's: gathered while a message is read, asked for together, answered later.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use base64_simd::STANDARD;
use oilskin_crypto::{Bound, DecryptReason, Value, Wiped};
use tokio::time::{Instant, Sleep, sleep_until};

use super::work::{Refused, decrypt_refused, encrypt_refused, lenient};
use crate::error::Code;
use crate::fields::{Answer, Field};
use crate::rules::{FieldRule, Transit};
use crate::telemetry::FieldResult;
use crate::transit::{Item, Key, Lanes, Mailbox, Missed, Operation, Outcome};

/// How long a message waits for its next answer. A call itself has 2 s, and tells more of why it came to nothing.
const PATIENCE: Duration = Duration::from_millis(2_500);

/// Items that are sent although more may come: about a call.
const MANY: usize = 249;

/// What every ciphertext of transit begins with.
const PREFIX: &[u8] = b"vault:v";

/// What an item is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Encrypt,
    Decrypt,
    /// Whether a ciphertext that the app sends is its own.
    Own,
    /// An old ciphertext becomes a new one, without its plaintext being seen here.
    Rewrap,
    /// The same where what it is bound to, another context or another backend asks for its plaintext: this is the first half.
    Renew,
    /// And this the second.
    Again,
}

impl Purpose {
    fn operation(self) -> Operation {
        match self {
            Self::Encrypt | Self::Again => Operation::Encrypt,
            Self::Decrypt | Self::Own | Self::Renew => Operation::Decrypt,
            Self::Rewrap => Operation::Rewrap,
        }
    }
}

/// A field that was asked for.
struct Asked {
    rule: usize,
    purpose: Purpose,
    /// Which of the rule's contexts.
    context: usize,
    /// As it stood in the message; empty while encrypting.
    raw: Vec<u8>,
    associated: Option<Arc<str>>,
    /// What it is bound to, where local keys write it next.
    bound: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What is asked for together.
struct Gathered {
    key: Arc<Key>,
    operation: Operation,
    items: Vec<(u64, Item)>,
}

/// The calls of one message.
pub(super) struct Calls {
    lanes: Rc<Lanes>,
    tenant: Option<Arc<str>>,
    mailbox: Rc<Mailbox>,
    gathered: Vec<Gathered>,
    /// By its hole. They come in order, so this is cheaper than to hash them.
    asked: BTreeMap<u64, Asked>,
    patience: Option<Pin<Box<Sleep>>>,
    /// What keys are derived from, in Base64, by rule and which of its contexts.
    contexts: Vec<((usize, usize), Arc<str>)>,
    /// A framed value, kept for its room.
    plain: Wiped,
}

/// What came of an answer.
pub(super) enum Came {
    /// It goes into the message.
    Answer { rule: usize, raw: Vec<u8>, outcome: Result<(Answer, FieldResult), Refused> },
    /// The value is there, and local keys are to write it.
    Plain { rule: usize, bound: Vec<(Vec<u8>, Vec<u8>)> },
    /// It was asked for once more.
    Again,
}

impl Calls {
    pub(super) fn new(lanes: &Rc<Lanes>, tenant: Option<&Arc<str>>) -> Self {
        Self {
            lanes: Rc::clone(lanes),
            tenant: tenant.cloned(),
            mailbox: Mailbox::new(),
            gathered: Vec::new(),
            asked: BTreeMap::new(),
            patience: None,
            contexts: Vec::new(),
            plain: Wiped::default(),
        }
    }

    /// Answers still to come.
    pub(super) fn open(&self) -> usize {
        self.asked.len()
    }

    /// Whether so many were gathered that they are better sent.
    pub(super) fn are_many(&self) -> bool {
        self.gathered.iter().any(|gathered| gathered.items.len() >= MANY)
    }

    /// Sends what was gathered.
    pub(super) fn send(&mut self) {
        for Gathered { key, operation, items } in self.gathered.drain(..) {
            self.lanes.ask(&key, operation, self.tenant.as_ref(), &self.mailbox, items);
        }
    }

    /// The next answer, or that none came for too long.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(u64, Outcome), Refused>> {
        if let Poll::Ready(answer) = self.mailbox.poll(cx) {
            self.patience = None;
            return Poll::Ready(Ok(answer));
        }
        // What was only gathered is not late.
        if self.gathered.iter().map(|gathered| gathered.items.len()).sum::<usize>() == self.asked.len() {
            return Poll::Pending;
        }
        let timer = self.patience.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + PATIENCE)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(Refused(Code::KeyUnavailable, "vault_timeout")))
    }

    /// Asks for the ciphertext of a value, which is `moved` where it was another backend's.
    pub(super) fn encrypt(
        &mut self,
        rule: &FieldRule,
        vault: &Transit,
        field: &Field<'_>,
        value: Value<'_>,
        moved: bool,
    ) -> Result<(), Refused> {
        self.plain.clear();
        let wrapped = vault.frame.wrap(&rule.spec, value, &mut self.plain);
        wrapped.map_err(|error| encrypt_refused(&error))?;
        let mut text = Wiped::with_capacity(STANDARD.encoded_length(self.plain.len()));
        STANDARD.encode_append(self.plain.as_slice(), &mut *text);
        let associated = associated(rule, field).map_err(|error| encrypt_refused(&error))?;
        let asked = Asked {
            rule: field.rule,
            purpose: if moved { Purpose::Again } else { Purpose::Encrypt },
            context: 0,
            raw: Vec::new(),
            associated,
            bound: Vec::new(),
        };
        self.ask(rule, vault, field.hole.0, text, asked)
    }

    /// Asks for a new ciphertext of the same plaintext, if it is not new. Returns whether it does.
    pub(super) fn rewrap(
        &mut self,
        rule: &FieldRule,
        vault: &Transit,
        field: &Field<'_>,
        ciphertext: &[u8],
    ) -> Result<bool, Refused> {
        let is_first_context = rule.spec.contexts() == 1;
        let is_latest = vault.key.latest().is_some_and(|latest| version(field.raw) == Some(latest));
        if vault.writes && is_latest && is_first_context {
            return Ok(false);
        }
        let whole = vault.writes && is_first_context && !rule.spec.is_bound();
        let purpose = if whole { Purpose::Rewrap } else { Purpose::Renew };
        self.ciphertext(rule, vault, field, ciphertext, purpose).map(|()| true)
    }

    /// Asks for what a ciphertext holds, or whether it opens for this very place.
    pub(super) fn ciphertext(
        &mut self,
        rule: &FieldRule,
        vault: &Transit,
        field: &Field<'_>,
        ciphertext: &[u8],
        purpose: Purpose,
    ) -> Result<(), Refused> {
        let associated = associated(rule, field).map_err(|error| decrypt_refused(&error))?;
        let bound = match purpose {
            Purpose::Renew => field.bound.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
            _ => Vec::new(),
        };
        let asked = Asked { rule: field.rule, purpose, context: 0, raw: field.raw.to_vec(), associated, bound };
        self.ask(rule, vault, field.hole.0, ciphertext.to_vec().into(), asked)
    }

    fn ask(&mut self, rule: &FieldRule, vault: &Transit, hole: u64, text: Wiped, asked: Asked) -> Result<(), Refused> {
        if !vault.key.fits(vault.deterministic) {
            return Err(Refused(Code::KeyUnavailable, "vault_key"));
        }
        let item = Item {
            text,
            context: self.context(rule, &asked),
            associated: asked.associated.clone(),
            version: vault.version.filter(|_| asked.purpose.operation() == Operation::Encrypt),
        };
        let operation = asked.purpose.operation();
        if operation == Operation::Decrypt
            && let Some(plain) = self.lanes.recall(&vault.key, &item)
        {
            self.asked.insert(hole, asked);
            self.mailbox.put(hole, Ok(plain));
            return Ok(());
        }
        let same = |gathered: &&mut Gathered| gathered.operation == operation && Arc::ptr_eq(&gathered.key, &vault.key);
        match self.gathered.iter_mut().find(same) {
            Some(gathered) => gathered.items.push((hole, item)),
            None => self.gathered.push(Gathered { key: Arc::clone(&vault.key), operation, items: vec![(hole, item)] }),
        }
        self.asked.insert(hole, asked);
        Ok(())
    }

    /// What the key of a field is derived from.
    fn context(&mut self, rule: &FieldRule, asked: &Asked) -> Arc<str> {
        let which = (asked.rule, asked.context);
        if let Some((_, context)) = self.contexts.iter().find(|(of, _)| *of == which) {
            return Arc::clone(context);
        }
        let tenant = self.tenant.as_deref().unwrap_or_default().as_bytes();
        let context = rule.spec.derivation(asked.context, tenant).unwrap_or_default();
        let context: Arc<str> = STANDARD.encode_to_string(context).into();
        self.contexts.push((which, Arc::clone(&context)));
        context
    }

    /// What an answer means for its field; appends what the field becomes to `out`.
    pub(super) fn came<'r>(
        &mut self,
        hole: u64,
        outcome: Outcome,
        rule_of: impl FnOnce(usize) -> Option<&'r FieldRule>,
        out: &mut Vec<u8>,
    ) -> Result<Came, Refused> {
        let lost = Refused(Code::KeyUnavailable, "vault_lost");
        let asked = self.asked.remove(&hole).ok_or(lost)?;
        let rule = rule_of(asked.rule).ok_or(lost)?;
        let vault = rule.vault.as_ref().ok_or(lost)?;
        let at = asked.rule;
        let outcome = match (asked.purpose, outcome) {
            (Purpose::Encrypt, Ok(ciphertext)) => {
                written(rule, &ciphertext, out).map(|()| (Answer::Written, FieldResult::Ok))
            }
            (Purpose::Rewrap | Purpose::Again, Ok(ciphertext)) => {
                written(rule, &ciphertext, out).map(|()| (Answer::Written, FieldResult::Stale))
            }
            (Purpose::Renew, Ok(_)) if result(vault, &asked) == FieldResult::Ok => Ok((Answer::Keep, FieldResult::Ok)),
            (Purpose::Renew, Ok(plain)) if vault.writes => {
                let next = Asked { purpose: Purpose::Again, context: 0, ..asked };
                self.ask(rule, vault, hole, plain.to_vec().into(), next)?;
                return Ok(Came::Again);
            }
            (Purpose::Renew, Ok(plain)) => match opened(rule, vault, &plain, out) {
                Ok(()) => return Ok(Came::Plain { rule: at, bound: asked.bound }),
                Err(reason) => Err(Refused(Code::DecryptFailed, reason)),
            },
            (Purpose::Own, Ok(_)) => Ok((Answer::Keep, FieldResult::TokenKept)),
            (Purpose::Decrypt, Ok(plain)) => match opened(rule, vault, &plain, out) {
                Ok(()) => Ok((Answer::Written, result(vault, &asked))),
                Err(reason) => lenient(rule, reason, out),
            },
            (Purpose::Decrypt | Purpose::Own | Purpose::Renew, Err(Missed::Refused("vault_tag")))
                if asked.context + 1 < rule.spec.contexts() =>
            {
                let text = ciphertext_of(&asked.raw).ok_or(lost)?.into_bytes();
                let next = Asked { context: asked.context + 1, ..asked };
                self.ask(rule, vault, hole, text.into(), next)?;
                return Ok(Came::Again);
            }
            (Purpose::Decrypt, Err(Missed::Refused(reason))) => lenient(rule, reason, out),
            (Purpose::Own | Purpose::Rewrap | Purpose::Renew, Err(Missed::Refused(reason))) => {
                Err(Refused(Code::DecryptFailed, reason))
            }
            (Purpose::Encrypt | Purpose::Again, Err(Missed::Refused(reason)))
            | (_, Err(Missed::Unavailable(reason))) => Err(Refused(Code::KeyUnavailable, reason)),
            (_, Err(Missed::Full)) => Err(Refused(Code::Overloaded, "vault_queue")),
        };
        Ok(Came::Answer { rule: at, raw: asked.raw, outcome })
    }
}

fn result(vault: &Transit, asked: &Asked) -> FieldResult {
    let version = || version(&asked.raw);
    if !vault.writes {
        FieldResult::OtherBackend
    } else if asked.context > 0 {
        FieldResult::RenamedContext
    } else if vault.key.latest().zip(version()).is_some_and(|(latest, version)| version < latest) {
        FieldResult::Stale
    } else {
        FieldResult::Ok
    }
}

fn associated(rule: &FieldRule, field: &Field<'_>) -> Result<Option<Arc<str>>, oilskin_crypto::Error> {
    let bytes = rule.spec.associated(Bound(field.bound))?;
    Ok(bytes.map(|bytes| STANDARD.encode_to_string(bytes).into()))
}

/// A ciphertext as it goes into the message.
fn written(rule: &FieldRule, ciphertext: &[u8], out: &mut Vec<u8>) -> Result<(), Refused> {
    match is_ciphertext(ciphertext) {
        true if ciphertext.len() <= rule.spec.longest_taken() => {
            out.push(b'"');
            out.extend_from_slice(ciphertext);
            out.push(b'"');
            Ok(())
        }
        true => Err(Refused(Code::TooLarge, "max_field")),
        false => Err(Refused(Code::KeyUnavailable, "vault_malformed")),
    }
}

fn opened(rule: &FieldRule, vault: &Transit, plain: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    let plain = STANDARD.decode_to_vec(plain).map(Wiped::from).map_err(|_| "vault_malformed")?;
    vault.frame.unwrap(&rule.spec, &plain, out).map_err(|error| match error {
        oilskin_crypto::Error::Decrypt(reason) => reason.as_str(),
        _ => DecryptReason::Content.as_str(),
    })
}

/// Whether a decoded string is to be read as a ciphertext: `[ \t\r\n]*vault:v[0-9]`. Such a string opens or is an error, never a plaintext.
pub(super) fn looks_like_ciphertext(text: &[u8]) -> bool {
    let rest = text.trim_ascii_start().strip_prefix(PREFIX);
    rest.and_then(<[u8]>::first).is_some_and(u8::is_ascii_digit)
}

/// `vault:vN:` and Base64: nothing in it needs escaping, here or in a call.
pub fn is_ciphertext(text: &[u8]) -> bool {
    let Some(rest) = text.strip_prefix(PREFIX) else { return false };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let base64 = |byte: &u8| byte.is_ascii_alphanumeric() | (*byte == b'+') | (*byte == b'/') | (*byte == b'=');
    match rest.split_at_checked(digits) {
        // Without a way out in between, so that many are looked at together.
        Some((_, [b':', body @ ..])) => {
            (1..=10).contains(&digits) && !body.is_empty() && body.iter().fold(true, |all, byte| all & base64(byte))
        }
        _ => false,
    }
}

/// The ciphertext that a JSON string means.
fn ciphertext_of(raw: &[u8]) -> Option<String> {
    serde_json::from_slice::<String>(raw).ok()
}

fn version(raw: &[u8]) -> Option<u32> {
    let rest = raw.strip_prefix(b"\"")?.strip_prefix(PREFIX)?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(rest.get(..digits)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::{is_ciphertext, looks_like_ciphertext, version};

    #[test]
    fn ciphertexts_are_told_by_their_beginning_and_taken_only_whole() {
        for text in ["vault:v1:YQ==", "vault:v12:a+/="] {
            assert!(looks_like_ciphertext(text.as_bytes()) && is_ciphertext(text.as_bytes()), "{text}");
        }
        for text in
            ["vault:v1:", "vault:v1", " vault:v1:YQ==", "vault:v1:a\"b", "vault:v12345678901:YQ==", "vault:v1:a\\u0061"]
        {
            assert!(looks_like_ciphertext(text.as_bytes()) && !is_ciphertext(text.as_bytes()), "{text}");
        }
        for text in ["vault:", "vault:vx", "Vault:v1:YQ==", "oil1.abc", ""] {
            assert!(!looks_like_ciphertext(text.as_bytes()) && !is_ciphertext(text.as_bytes()), "{text}");
        }
        assert_eq!((version(b"\"vault:v3:YQ==\""), version(b"\"x\"")), (Some(3), None));
    }
}
