//! What is done to one field, with the keys of its message.

use std::rc::Rc;
use std::sync::Arc;

use oilskin_config::OnDecryptError;
use oilskin_crypto::{self as crypto, Bound, DecryptReason, Message, Value, looks_like_token};
use zeroize::Zeroizing;

use crate::error::Code;
use crate::fields::{Answer, Field, HoleId, Kind};
use crate::keys::{Entry, Unknown};
use crate::rules::{Compiled, FieldRule, Keyset};
use crate::telemetry::FieldResult;
use crate::transit::Lanes;

use super::calls::{Calls, Purpose, is_ciphertext, looks_like_ciphertext};

/// What the peer is told, and the reason that only log and metric say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refused(pub(super) Code, pub(super) &'static str);

/// What fields are worked with, apart from the rules that are borrowed beside it.
pub(super) struct Work {
    pub(super) tenant: Option<Arc<str>>,
    pub(super) worker: usize,
    /// One for each keyset that was asked for.
    pub(super) messages: Vec<Message>,
    /// Keysets of its tenant, each by the name that rules have for it.
    pub(super) tenanted: Vec<(String, Arc<Entry>)>,
    /// A decoded string, kept for its room.
    pub(super) text: Vec<u8>,
    /// What a field becomes that was asked for, kept for its room.
    pub(super) value: Vec<u8>,
    /// Whether a field may wait for a refresh.
    pub(super) patience: Patience,
    pub(super) late: Vec<Late>,
    /// The worker's way to Vault, where there is one.
    pub(super) lanes: Option<Rc<Lanes>>,
    /// What Vault is asked for, from the first such field on.
    pub(super) calls: Option<Box<Calls>>,
    pub(super) tally: Tally,
}

/// Whether a field may wait for a refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Once a message.
    Once,
    /// No, or no more.
    None,
}

/// A field that waits for its keyset to be read again.
pub(super) struct Late {
    pub(super) hole: HoleId,
    pub(super) rule: usize,
    pub(super) kind: Kind,
    pub(super) raw: Vec<u8>,
    pub(super) bound: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) entry: Arc<Entry>,
}

impl Work {
    fn calls(&mut self) -> Result<&mut Calls, Refused> {
        let lanes = self.lanes.as_ref().ok_or(Refused(Code::KeyUnavailable, "vault"))?;
        Ok(self.calls.get_or_insert_with(|| Box::new(Calls::new(lanes, self.tenant.as_ref()))))
    }

    fn message(&mut self, rule: &FieldRule) -> Result<&mut Message, Refused> {
        let missing = Refused(Code::KeyUnavailable, "keyset");
        let tenanted;
        let entry = match rule.keyset.as_ref().ok_or(missing)? {
            Keyset::One(entry) => entry,
            by_tenant => {
                tenanted = self.tenanted(by_tenant).ok_or(missing)?;
                &tenanted
            }
        };
        let handle = entry.handle();
        let at = match self.messages.iter().position(|message| message.is_of(handle)) {
            Some(at) => at,
            None => {
                self.messages.push(Message::new(handle, self.tenant.clone(), self.worker));
                self.messages.len() - 1
            }
        };
        self.messages.get_mut(at).ok_or(missing)
    }

    /// The keyset of this message's tenant: the one it began with, though others may have needed its room since.
    fn tenanted(&mut self, keyset: &Keyset) -> Option<Arc<Entry>> {
        let begun = self.tenanted.iter().find(|(template, _)| keyset.template() == Some(template));
        if let Some((_, entry)) = begun {
            return Some(Arc::clone(entry));
        }
        let entry = keyset.entry(self.tenant.as_deref())?;
        self.tenanted.extend(keyset.template().map(|template| (template.to_owned(), Arc::clone(&entry))));
        Some(entry)
    }

    pub(super) fn encrypt(
        &mut self,
        rule: &FieldRule,
        field: &Field<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(Answer, FieldResult), Refused> {
        if rule.accept_tokens {
            let mut text = Vec::new();
            if let Some(vault) = rule.vault_reads()
                && let Some(text) = string_text(field, &mut text).filter(|text| is_ciphertext(text))
            {
                self.calls()?.ciphertext(rule, vault, field, text, Purpose::Own)?;
                return Ok((Answer::Later, FieldResult::Ok));
            }
            if rule.reads_local && self.is_own_token(rule, field)? {
                out.extend_from_slice(field.raw);
                return Ok((Answer::Written, FieldResult::TokenKept));
            }
        }
        if let Some(vault) = rule.vault_writes() {
            self.calls()?.encrypt(rule, vault, field, value_of(field.raw), false)?;
            return Ok((Answer::Later, FieldResult::Ok));
        }
        self.write(rule, value_of(field.raw), Bound(field.bound), out)?;
        Ok((Answer::Written, FieldResult::Ok))
    }

    /// A token becomes a new one, if it is not new.
    pub(super) fn rewrap(
        &mut self,
        rule: &FieldRule,
        field: &Field<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(Answer, FieldResult), Refused> {
        let mut text = std::mem::take(&mut self.text);
        if let Some(vault) = rule.vault_reads()
            && let Some(token) = string_text(field, &mut text).filter(|text| looks_like_ciphertext(text))
        {
            if !is_ciphertext(token) {
                return Err(Refused(Code::DecryptFailed, DecryptReason::Malformed.as_str()));
            }
            return Ok(match self.calls()?.rewrap(rule, vault, field, token)? {
                true => (Answer::Later, FieldResult::Ok),
                false => (Answer::Keep, FieldResult::Ok),
            });
        }
        let Some(token) = string_text(field, &mut text).filter(|text| looks_like_token(text)) else {
            return match rule.plaintext_accepted {
                true => Ok((Answer::Keep, FieldResult::PlaintextSeen)),
                false => Err(Refused(Code::DecryptFailed, DecryptReason::PlaintextRefused.as_str())),
            };
        };
        let mut plain = Zeroizing::new(Vec::new());
        let opened = self.message(rule)?.decrypt(&rule.spec, token, Bound(field.bound), &mut plain);
        let opened = opened.map_err(|error| decrypt_refused(&error))?;
        self.text = text;
        if let Some(vault) = rule.vault_writes() {
            self.calls()?.encrypt(rule, vault, field, value_of(&plain), true)?;
            return Ok((Answer::Later, FieldResult::Ok));
        }
        if !opened.stale && !opened.renamed {
            return Ok((Answer::Keep, FieldResult::Ok));
        }
        self.write(rule, value_of(&plain), Bound(field.bound), out)?;
        Ok((Answer::Written, FieldResult::Stale))
    }

    /// Appends a value's token, by local keys.
    pub(super) fn write(
        &mut self,
        rule: &FieldRule,
        value: Value<'_>,
        bound: Bound<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Refused> {
        out.push(b'"');
        let written = self.message(rule)?.encrypt(&rule.spec, value, bound, out);
        out.push(b'"');
        written.map_err(|error| encrypt_refused(&error))
    }

    /// Whether the app sends back a token it read: one that opens for this very place. One that does not is an error.
    fn is_own_token(&mut self, rule: &FieldRule, field: &Field<'_>) -> Result<bool, Refused> {
        let Some(text) = string_text(field, &mut self.text).filter(|text| looks_like_token(text)) else {
            return Ok(false);
        };
        let text = text.to_vec();
        let opened = self.message(rule)?.decrypt(&rule.spec, &text, Bound(field.bound), &mut Vec::new());
        match opened {
            Ok(_) => Ok(true),
            Err(crypto::Error::Decrypt(DecryptReason::UnknownKey)) => {
                let entry = self.entry(rule)?;
                // Another replica's, perhaps, of a version that this one does not know yet: the app's next attempt finds it.
                let foreign = entry.unknown() == Unknown::Foreign;
                entry.want();
                Err(match foreign {
                    true => decrypt_refused(&DecryptReason::UnknownKey.into()),
                    false => Refused(Code::KeyUnavailable, "unknown_key"),
                })
            }
            Err(error) => Err(decrypt_refused(&error)),
        }
    }

    fn entry(&mut self, rule: &FieldRule) -> Result<Arc<Entry>, Refused> {
        let missing = Refused(Code::KeyUnavailable, "keyset");
        match rule.keyset.as_ref().ok_or(missing)? {
            Keyset::One(entry) => Ok(Arc::clone(entry)),
            by_tenant => self.tenanted(by_tenant).ok_or(missing),
        }
    }

    pub(super) fn decrypt(
        &mut self,
        rule: &FieldRule,
        field: &Field<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(Answer, FieldResult), Refused> {
        let mut text = std::mem::take(&mut self.text);
        let outcome = match string_text(field, &mut text) {
            Some(token) if looks_like_ciphertext(token) && rule.vault_reads().is_some() => {
                return self.decrypt_in_vault(rule, field, token, out);
            }
            Some(token) if rule.reads_local && (looks_like_token(token) || !rule.plaintext_accepted) => {
                self.message(rule)?.decrypt(&rule.spec, token, Bound(field.bound), out)
            }
            // The rule does not name what wrote it.
            Some(token) if looks_like_token(token) => Err(DecryptReason::Malformed.into()),
            Some(_) if !rule.plaintext_accepted => Err(DecryptReason::PlaintextRefused.into()),
            Some(_) => return self.plaintext(text),
            None if rule.plaintext_accepted => return self.plaintext(text),
            None => Err(DecryptReason::PlaintextRefused.into()),
        };
        self.text = text;
        let outcome = match outcome {
            Err(crypto::Error::Decrypt(DecryptReason::UnknownKey)) => match self.unknown(rule, field)? {
                Some(late) => {
                    self.late.push(late);
                    return Ok((Answer::Later, FieldResult::Ok));
                }
                None => Err(DecryptReason::UnknownKey.into()),
            },
            outcome => outcome,
        };
        match outcome {
            Ok(_) if rule.vault_writes().is_some() => Ok((Answer::Written, FieldResult::OtherBackend)),
            Ok(opened) if opened.stale => Ok((Answer::Written, FieldResult::Stale)),
            Ok(opened) if opened.renamed => Ok((Answer::Written, FieldResult::RenamedContext)),
            Ok(_) => Ok((Answer::Written, FieldResult::Ok)),
            Err(crypto::Error::Decrypt(reason)) => lenient(rule, reason.as_str(), out),
            Err(error) => Err(decrypt_refused(&error)),
        }
    }

    fn decrypt_in_vault(
        &mut self,
        rule: &FieldRule,
        field: &Field<'_>,
        token: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(Answer, FieldResult), Refused> {
        let vault = rule.vault_reads().ok_or(Refused(Code::KeyUnavailable, "vault"))?;
        if token.len() > rule.spec.longest_taken() {
            return lenient(rule, DecryptReason::TooLong.as_str(), out);
        }
        if !is_ciphertext(token) {
            return lenient(rule, DecryptReason::Malformed.as_str(), out);
        }
        self.calls()?.ciphertext(rule, vault, field, token, Purpose::Decrypt)?;
        Ok((Answer::Later, FieldResult::Ok))
    }

    /// A version that is not known here: none of this keyset's, or one that the field waits for.
    fn unknown(&mut self, rule: &FieldRule, field: &Field<'_>) -> Result<Option<Late>, Refused> {
        let entry = self.entry(rule)?;
        match (entry.unknown(), self.patience) {
            (Unknown::Foreign, _) | (Unknown::Perhaps, Patience::None) => Ok(None),
            (Unknown::CutOff, Patience::None) => Err(Refused(Code::KeyUnavailable, "unknown_key")),
            (_, Patience::Once) => Ok(Some(Late {
                hole: field.hole,
                rule: field.rule,
                kind: field.kind,
                raw: field.raw.to_vec(),
                bound: field.bound.iter().map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
                entry,
            })),
        }
    }

    fn plaintext(&mut self, text: Vec<u8>) -> Result<(Answer, FieldResult), Refused> {
        self.text = text;
        Ok((Answer::Keep, FieldResult::PlaintextSeen))
    }
}

/// A token that does not open, where the rule says what it becomes instead of failing.
pub(super) fn lenient(
    rule: &FieldRule,
    reason: &'static str,
    out: &mut Vec<u8>,
) -> Result<(Answer, FieldResult), Refused> {
    match rule.on_decrypt_error {
        OnDecryptError::Fail => Err(Refused(Code::DecryptFailed, reason)),
        // It passes tokens on. A plaintext is none: whoever writes the store would set the field.
        OnDecryptError::Ciphertext if reason == DecryptReason::PlaintextRefused.as_str() => {
            Err(Refused(Code::DecryptFailed, reason))
        }
        OnDecryptError::Ciphertext => Ok((Answer::Keep, FieldResult::Failed)),
        OnDecryptError::Drop => Ok((Answer::Dropped, FieldResult::Failed)),
        OnDecryptError::Null => {
            out.extend_from_slice(b"null");
            Ok((Answer::Written, FieldResult::Failed))
        }
    }
}

pub(super) fn encrypt_refused(error: &crypto::Error) -> Refused {
    match error {
        crypto::Error::TooLarge => Refused(Code::TooLarge, "max_field"),
        crypto::Error::Value(_) => Refused(Code::Malformed, "value"),
        crypto::Error::Random => Refused(Code::KeyUnavailable, "random"),
        _ => Refused(Code::KeyUnavailable, "keyset"),
    }
}

pub(super) fn decrypt_refused(error: &crypto::Error) -> Refused {
    match error {
        crypto::Error::Decrypt(reason) => Refused(Code::DecryptFailed, reason.as_str()),
        _ => Refused(Code::KeyUnavailable, "keyset"),
    }
}

/// What a JSON string means; none for other kinds.
fn string_text<'a>(field: &'a Field<'_>, room: &'a mut Vec<u8>) -> Option<&'a [u8]> {
    let [b'"', body @ .., b'"'] = field.raw else { return None };
    if memchr::memchr(b'\\', body).is_none() {
        return Some(body);
    }
    *room = serde_json::from_slice::<String>(field.raw).ok()?.into_bytes();
    Some(room)
}

/// A JSON value as the cipher knows it.
pub(super) fn value_of(json: &[u8]) -> Value<'_> {
    match json.first() {
        Some(b'"') => Value::String(json),
        Some(b't') => Value::Boolean(true),
        Some(b'f') => Value::Boolean(false),
        Some(b'n') => Value::Null,
        Some(b'[') => Value::Array(json),
        Some(b'{') => Value::Object(json),
        _ => Value::Number(json),
    }
}

/// What became of the tokens of a message.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Of retired versions, or older contexts.
    pub(super) renewed: u64,
    /// In all.
    pub(super) met: u64,
}

impl Tally {
    /// Counts what became of a field, here and in its rule's metrics.
    pub(super) fn counted(
        &mut self,
        rule: &Compiled,
        outcome: Result<(Answer, FieldResult), Refused>,
    ) -> Result<Answer, Refused> {
        match outcome {
            Ok((Answer::Later, _)) => Ok(Answer::Later),
            Ok((answer, result)) => {
                rule.metrics.add(result, 1);
                if result == FieldResult::Stale {
                    self.renewed += 1;
                }
                if result != FieldResult::PlaintextSeen {
                    self.met += 1;
                }
                Ok(answer)
            }
            Err(refused) => {
                let result = match refused {
                    Refused(Code::KeyUnavailable, _) => FieldResult::KeyUnavailable,
                    Refused(_, "plaintext_refused") => FieldResult::PlaintextRefused,
                    _ => FieldResult::Failed,
                };
                rule.metrics.add(result, 1);
                Err(refused)
            }
        }
    }
}
