//! Joins the rewriter and the field cipher for one message.

use std::sync::Arc;

use oilskin_config::{OnDecryptError, Op};
use oilskin_crypto::{self as crypto, Bound, DecryptReason, Message, Value, looks_like_token};

use crate::error::{Code, Failure};
use crate::fields::{Answer, BindError, Error, Field, Kind, Program, Resolver, Rewriter};
use crate::graphql;
use crate::rules::{Action, Compiled, FieldRule, Keyset, PhaseRules};
use crate::telemetry::FieldResult;

/// Encrypts or decrypts the fields of one message.
pub(crate) struct Engine {
    op: Op,
    program: Arc<Program>,
    rules: Arc<[Compiled]>,
    work: Work,
}

/// What fields are worked with, apart from the rules that are borrowed beside it.
struct Work {
    tenant: Option<Arc<str>>,
    worker: usize,
    /// One for each keyset that was asked for.
    messages: Vec<Message>,
    /// A decoded string, kept for its room.
    text: Vec<u8>,
}

impl Engine {
    /// An engine for one message. Keys are checked now, so that their absence is told before a body is asked for.
    ///
    /// # Errors
    /// `key_unavailable`.
    pub(crate) fn new(rules: &PhaseRules, tenant: Option<Arc<str>>, worker: usize) -> Result<Self, Failure> {
        let (Some(program), Some(compiled)) = (rules.program(), rules.rules()) else {
            return Err(Failure::new(Code::KeyUnavailable, "no_rules"));
        };
        let mut before: Option<&Keyset> = None;
        for rule in compiled.iter() {
            let Action::Field(field) = &rule.action else { continue };
            // Rules of one keyset usually follow each other: one look for all of them.
            if !before.is_some_and(|before| before.is(&field.keyset)) && !field.keyset.is_held(tenant.as_deref()) {
                rule.metrics.add(FieldResult::KeyUnavailable, 1);
                return Err(Failure::in_rule(Code::KeyUnavailable, "keyset", Arc::clone(&rule.name)));
            }
            before = Some(&field.keyset);
        }
        Ok(Self {
            op: rules.op(),
            program: Arc::clone(program),
            rules: Arc::clone(compiled),
            work: Work { tenant, worker, messages: Vec::new(), text: Vec::new() },
        })
    }

    pub(crate) fn program(&self) -> &Arc<Program> {
        &self.program
    }

    /// Pushes a piece through the rewriter.
    ///
    /// # Errors
    /// What the peer is told.
    pub(crate) fn push(&mut self, rewriter: &mut Rewriter, piece: &[u8], out: &mut Vec<u8>) -> Result<(), Failure> {
        // Local keys answer at once, so the rewriter always takes all.
        rewriter.push(piece, self, out).map(|_| ()).map_err(|error| self.told(error))
    }

    /// Ends the document.
    ///
    /// # Errors
    /// As [`Engine::push`].
    pub(crate) fn finish(&mut self, rewriter: &mut Rewriter, out: &mut Vec<u8>) -> Result<(), Failure> {
        rewriter.finish(self, out).map_err(|error| self.told(error))
    }

    fn told(&self, error: Error<Refused>) -> Failure {
        let name = |rule: usize| self.rules.get(rule).map(|rule| &rule.name);
        let of = |failure: Failure, rule: usize| match name(rule) {
            Some(rule) => Failure { rule: Some(Arc::clone(rule)), ..failure },
            None => failure,
        };
        match error {
            Error::Malformed(reason) => Failure::new(Code::Malformed, reason),
            Error::Truncated => Failure::new(Code::Truncated, "truncated"),
            Error::TooDeep => Failure::new(Code::TooDeep, "depth"),
            Error::TooLarge { rule } => of(Failure::new(Code::TooLarge, "max_field"), rule),
            Error::Bind { rule, reason } => {
                let code = match (self.op, reason) {
                    (_, BindError::Window) => Code::TooLarge,
                    (Op::Encrypt, _) => Code::Malformed,
                    (Op::Decrypt, _) => Code::DecryptFailed,
                };
                of(Failure::new(code, bind_reason(reason)), rule)
            }
            Error::Resolver { rule, error } => of(Failure::new(error.0, error.1), rule),
            Error::Unasked => Failure::new(Code::Malformed, "unasked"),
        }
    }
}

impl Work {
    fn message(&mut self, rule: &FieldRule) -> Result<&mut Message, Refused> {
        let missing = Refused(Code::KeyUnavailable, "keyset");
        let tenanted;
        let handle = match &rule.keyset {
            Keyset::One(handle) => handle,
            by_tenant => {
                tenanted = by_tenant.handle(self.tenant.as_deref()).ok_or(missing)?;
                &tenanted
            }
        };
        let at = match self.messages.iter().position(|message| message.is_of(handle)) {
            Some(at) => at,
            None => {
                self.messages.push(Message::new(handle, self.tenant.clone(), self.worker));
                self.messages.len() - 1
            }
        };
        self.messages.get_mut(at).ok_or(missing)
    }

    fn encrypt(&mut self, rule: &FieldRule, field: &Field<'_>, out: &mut Vec<u8>) -> Result<FieldResult, Refused> {
        if rule.accept_tokens && self.is_own_token(rule, field)? {
            out.extend_from_slice(field.raw);
            return Ok(FieldResult::TokenKept);
        }
        out.push(b'"');
        self.message(rule)?.encrypt(&rule.spec, value(field), Bound(field.bound), out).map_err(
            |error| match error {
                crypto::Error::TooLarge => Refused(Code::TooLarge, "max_field"),
                crypto::Error::Value(_) => Refused(Code::Malformed, "value"),
                crypto::Error::Random => Refused(Code::KeyUnavailable, "random"),
                _ => Refused(Code::KeyUnavailable, "keyset"),
            },
        )?;
        out.push(b'"');
        Ok(FieldResult::Ok)
    }

    /// Whether the app sends back a token it read: one that opens for this very place. One that does not is an error.
    fn is_own_token(&mut self, rule: &FieldRule, field: &Field<'_>) -> Result<bool, Refused> {
        let Some(text) = string_text(field, &mut self.text).filter(|text| looks_like_token(text)) else {
            return Ok(false);
        };
        let text = text.to_vec();
        let opened = self.message(rule)?.decrypt(&rule.spec, &text, Bound(field.bound), &mut Vec::new());
        opened.map(|_| true).map_err(|error| decrypt_refused(&error))
    }

    fn decrypt(
        &mut self,
        rule: &FieldRule,
        field: &Field<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(Answer, FieldResult), Refused> {
        let mut text = std::mem::take(&mut self.text);
        let outcome = match string_text(field, &mut text) {
            Some(token) if looks_like_token(token) || !rule.plaintext_accepted => {
                self.message(rule)?.decrypt(&rule.spec, token, Bound(field.bound), out)
            }
            Some(_) => return self.plaintext(text),
            None if rule.plaintext_accepted => return self.plaintext(text),
            None => Err(DecryptReason::PlaintextRefused.into()),
        };
        self.text = text;
        match outcome {
            Ok(opened) if opened.renamed => Ok((Answer::Written, FieldResult::RenamedContext)),
            Ok(_) => Ok((Answer::Written, FieldResult::Ok)),
            Err(crypto::Error::Decrypt(reason)) => lenient(rule, reason, out),
            Err(error) => Err(decrypt_refused(&error)),
        }
    }

    fn plaintext(&mut self, text: Vec<u8>) -> Result<(Answer, FieldResult), Refused> {
        self.text = text;
        Ok((Answer::Keep, FieldResult::PlaintextSeen))
    }
}

/// A token that does not open, where the rule says what it becomes instead of failing.
fn lenient(rule: &FieldRule, reason: DecryptReason, out: &mut Vec<u8>) -> Result<(Answer, FieldResult), Refused> {
    match rule.on_decrypt_error {
        OnDecryptError::Fail => Err(Refused(Code::DecryptFailed, reason.as_str())),
        // It passes tokens on. A plaintext is none: whoever writes the store would set the field.
        OnDecryptError::Ciphertext if reason == DecryptReason::PlaintextRefused => {
            Err(Refused(Code::DecryptFailed, reason.as_str()))
        }
        OnDecryptError::Ciphertext => Ok((Answer::Keep, FieldResult::Failed)),
        OnDecryptError::Drop => Ok((Answer::Dropped, FieldResult::Failed)),
        OnDecryptError::Null => {
            out.extend_from_slice(b"null");
            Ok((Answer::Written, FieldResult::Failed))
        }
    }
}

fn decrypt_refused(error: &crypto::Error) -> Refused {
    match error {
        crypto::Error::Decrypt(reason) => Refused(Code::DecryptFailed, reason.as_str()),
        _ => Refused(Code::KeyUnavailable, "keyset"),
    }
}

/// What the peer is told, and the reason that only log and metric say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refused(Code, &'static str);

impl Resolver for Engine {
    type Error = Refused;

    fn longest(&self, rule: usize, raw: usize) -> usize {
        match (self.op, self.rules.get(rule).map(|rule| &rule.action)) {
            // With its quotes.
            (Op::Encrypt, Some(Action::Field(field))) => field.spec.longest_token(raw) + 2,
            _ => raw,
        }
    }

    fn resolve(&mut self, field: Field<'_>, out: &mut Vec<u8>) -> Result<Answer, Refused> {
        let Some(rule) = self.rules.get(field.rule) else { return Err(Refused(Code::Malformed, "rule")) };
        let outcome = match (&rule.action, self.op) {
            (Action::Graphql { only_if_it_looks_so }, _) => return graphql_query(&field, *only_if_it_looks_so),
            (Action::GraphqlBatch, _) => return Err(Refused(Code::Malformed, "graphql_batch")),
            (Action::Field(action), Op::Encrypt) => {
                self.work.encrypt(action, &field, out).map(|result| (Answer::Written, result))
            }
            (Action::Field(action), Op::Decrypt) => self.work.decrypt(action, &field, out),
        };
        match outcome {
            Ok((answer, result)) => {
                rule.metrics.add(result, 1);
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

/// A string `query` with literals carries values past the rules on its variables.
fn graphql_query(field: &Field<'_>, only_if_it_looks_so: bool) -> Result<Answer, Refused> {
    if field.kind != Kind::String {
        return Ok(Answer::Keep);
    }
    match serde_json::from_slice::<String>(field.raw) {
        Ok(query) if only_if_it_looks_so && !graphql::looks_like_query(&query) => Ok(Answer::Keep),
        Ok(query) if !graphql::holds_literals(&query) => Ok(Answer::Keep),
        _ => Err(Refused(Code::Malformed, "graphql_literal")),
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

fn value<'a>(field: &Field<'a>) -> Value<'a> {
    match field.kind {
        Kind::String => Value::String(field.raw),
        Kind::Number => Value::Number(field.raw),
        Kind::True => Value::Boolean(true),
        Kind::False => Value::Boolean(false),
        Kind::Null => Value::Null,
        Kind::Array => Value::Array(field.raw),
        Kind::Object => Value::Object(field.raw),
    }
}

fn bind_reason(reason: BindError) -> &'static str {
    match reason {
        BindError::Missing => "bind_missing",
        BindError::Differs => "bind_differs",
        BindError::Twice => "bind_twice",
        BindError::Type => "bind_type",
        BindError::Length => "bind_length",
        BindError::Window => "bind_window",
    }
}
