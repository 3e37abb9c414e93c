//! Joins the rewriter and the field cipher for one message.
//!
//! Local keys answer at once, but for a token of a version that is not known here: its field waits, and with it the message, until the
//! keyset was read again. Fields that Vault is asked for wait for it, and the message goes on being read meanwhile.

mod calls;
mod work;

use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use oilskin_config::Op;
use oilskin_crypto::Bound;
use zeroize::Zeroizing;

use crate::error::{Code, Failure};
use crate::fields::{Answer, BindError, Error, Field, HoleId, Kind, Program, Replacement, Resolver, Rewriter};
use crate::graphql;
use crate::keys::Entry;
use crate::rules::{Action, Compiled, Keyset, PhaseRules};
use crate::telemetry::FieldResult;
use crate::transit::{Lanes, Outcome};
use calls::Came;
#[doc(hidden)]
pub use calls::is_ciphertext as is_vault_ciphertext;
use work::{Refused, Tally, Work, value_of};

pub(crate) use work::Patience;

/// Encrypts or decrypts the fields of one message.
pub(crate) struct Engine {
    op: Op,
    /// Tokens of retired versions and of older contexts become new ones; nothing else is changed.
    rewraps: bool,
    program: Arc<Program>,
    rules: Arc<[Compiled]>,
    work: Work,
}

impl Engine {
    /// An engine for one message. Keys are checked now, so that their absence is told before a body is asked for.
    ///
    /// # Errors
    /// `key_unavailable`.
    pub(crate) fn new(
        rules: &PhaseRules,
        tenant: Option<Arc<str>>,
        (worker, lanes): (usize, Option<&Rc<Lanes>>),
        patience: Patience,
    ) -> Result<Self, Failure> {
        let (Some(program), Some(compiled)) = (rules.program(), rules.rules()) else {
            return Err(Failure::new(Code::KeyUnavailable, "no_rules"));
        };
        let mut before: Option<&Keyset> = None;
        for rule in compiled.iter() {
            let Action::Field(field) = &rule.action else { continue };
            if let Some(reason) = field.lacks(rules.op(), tenant.as_deref(), before) {
                rule.metrics.add(FieldResult::KeyUnavailable, 1);
                return Err(Failure::in_rule(Code::KeyUnavailable, reason, Arc::clone(&rule.name)));
            }
            before = field.keyset.as_ref().or(before);
        }
        Ok(Self {
            op: rules.op(),
            rewraps: false,
            program: Arc::clone(program),
            rules: Arc::clone(compiled),
            work: Work {
                lanes: lanes.cloned(),
                calls: None,
                tenant,
                worker,
                messages: Vec::new(),
                tenanted: Vec::new(),
                text: Vec::new(),
                value: Vec::new(),
                patience,
                late: Vec::new(),
                tally: Tally::default(),
            },
        })
    }

    /// The same for data at rest: tokens of retired versions and of older contexts become new ones; nothing else is changed.
    ///
    /// # Errors
    /// `key_unavailable`.
    pub(crate) fn rewrapping(
        rules: &PhaseRules,
        tenant: Option<Arc<str>>,
        lanes: Option<&Rc<Lanes>>,
    ) -> Result<Self, Failure> {
        let engine = Self::new(rules, tenant, (0, lanes), Patience::None)?;
        Ok(Self { op: Op::Encrypt, rewraps: true, ..engine })
    }

    /// How many tokens of retired versions, or older contexts, it has met, and how many in all.
    pub(crate) fn renewed(&self) -> (u64, u64) {
        (self.work.tally.renewed, self.work.tally.met)
    }

    pub(crate) fn program(&self) -> &Arc<Program> {
        &self.program
    }

    /// Pushes a piece through the rewriter. Returns how much of it was taken: all, unless fields wait.
    ///
    /// # Errors
    /// What the peer is told.
    pub(crate) fn push(&mut self, rewriter: &mut Rewriter, piece: &[u8], out: &mut Vec<u8>) -> Result<usize, Failure> {
        rewriter.push(piece, self, out).map_err(|error| self.told(error))
    }

    /// What fields wait for, if any do. Then [`Engine::settle`] is to be called.
    pub(crate) fn waiting(&self) -> Option<impl Future<Output = ()> + use<>> {
        let mut entries: Vec<Arc<Entry>> = Vec::new();
        for late in &self.work.late {
            if !entries.iter().any(|entry| Arc::ptr_eq(entry, &late.entry)) {
                entries.push(Arc::clone(&late.entry));
            }
        }
        (!entries.is_empty()).then_some(async move {
            for entry in entries {
                entry.refreshed().await;
            }
        })
    }

    /// Resolves the fields that waited, for good.
    ///
    /// # Errors
    /// What the peer is told.
    pub(crate) fn settle(&mut self, rewriter: &mut Rewriter, out: &mut Vec<u8>) -> Result<(), Failure> {
        self.work.patience = Patience::None;
        for late in std::mem::take(&mut self.work.late) {
            let bound: Vec<(&[u8], &[u8])> =
                late.bound.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).collect();
            let field = Field { hole: late.hole, rule: late.rule, kind: late.kind, raw: &late.raw, bound: &bound };
            let mut value = Vec::new();
            let wrong = |error| Error::Resolver { rule: late.rule, error };
            let answer = self.resolve(field, &mut value).map_err(|error| self.told(wrong(error)))?;
            let replacement = match answer {
                Answer::Written => Replacement::Bytes(&value),
                Answer::Keep | Answer::Later => Replacement::Bytes(&late.raw),
                Answer::Dropped => Replacement::Dropped,
            };
            rewriter.answer(late.hole, replacement, out).map_err(|error| self.told(error))?;
        }
        Ok(())
    }

    /// Whether fields wait for Vault.
    pub(crate) fn is_asking(&self) -> bool {
        self.work.calls.as_ref().is_some_and(|calls| calls.open() > 0)
    }

    /// Whether so many fields were gathered for Vault that they are better sent.
    pub(crate) fn has_gathered_many(&self) -> bool {
        self.work.calls.as_ref().is_some_and(|calls| calls.are_many())
    }

    /// Asks Vault for what was gathered.
    pub(crate) fn ask(&mut self) {
        if let Some(calls) = &mut self.work.calls {
            calls.send();
        }
    }

    /// Puts Vault's answers into the message; ready once there was one.
    ///
    /// # Errors
    /// What the peer is told.
    pub(crate) fn poll_answers(
        &mut self,
        cx: &mut Context<'_>,
        rewriter: &mut Rewriter,
        out: &mut Vec<u8>,
    ) -> Poll<Result<(), Failure>> {
        let Some(calls) = &mut self.work.calls else { return Poll::Ready(Ok(())) };
        let mut answer = ready!(calls.poll(cx));
        loop {
            let (hole, outcome) = answer.map_err(|refused| Failure::new(refused.0, refused.1))?;
            self.answered(hole, outcome, rewriter, out)?;
            match self.work.calls.as_mut().filter(|calls| calls.open() > 0).map(|calls| calls.poll(cx)) {
                Some(Poll::Ready(next)) => answer = next,
                Some(Poll::Pending) | None => return Poll::Ready(Ok(())),
            }
        }
    }

    fn answered(
        &mut self,
        hole: u64,
        outcome: Outcome,
        rewriter: &mut Rewriter,
        out: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let rules = Arc::clone(&self.rules);
        let rule_of = |at: usize| match &rules.get(at)?.action {
            Action::Field(field) => Some(&**field),
            _ => None,
        };
        let mut value = std::mem::take(&mut self.work.value);
        value.clear();
        let calls = self.work.calls.as_mut().ok_or_else(|| Failure::new(Code::KeyUnavailable, "vault"))?;
        let came = calls.came(hole, outcome, rule_of, &mut value);
        let (at, raw, outcome) = match came.map_err(|refused| Failure::new(refused.0, refused.1))? {
            Came::Again => {
                self.ask();
                return Ok(());
            }
            Came::Answer { rule, raw, outcome } => (rule, raw, outcome),
            Came::Plain { rule, bound } => {
                let plain = Zeroizing::new(std::mem::take(&mut value));
                let field = rule_of(rule).ok_or(Refused(Code::KeyUnavailable, "vault_lost"));
                let bound: Vec<_> = bound.iter().map(|(name, value)| (name.as_slice(), value.as_slice())).collect();
                let written =
                    field.and_then(|field| self.work.write(field, value_of(&plain), Bound(&bound), &mut value));
                (rule, Vec::new(), written.map(|()| (Answer::Written, FieldResult::Stale)))
            }
        };
        let wrong = |error| Error::Resolver { rule: at, error };
        let answer = match rules.get(at) {
            Some(rule) => self.work.tally.counted(rule, outcome),
            None => outcome.map(|(answer, _)| answer),
        };
        let replacement = match answer.map_err(|error| self.told(wrong(error)))? {
            Answer::Written => Replacement::Bytes(&value),
            Answer::Keep | Answer::Later => Replacement::Bytes(&raw),
            Answer::Dropped => Replacement::Dropped,
        };
        let answered = rewriter.answer(HoleId(hole), replacement, out);
        self.work.value = value;
        answered.map_err(|error| self.told(error))
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

impl Resolver for Engine {
    type Error = Refused;

    fn longest(&self, rule: usize, raw: usize) -> usize {
        match (self.op, self.rules.get(rule).map(|rule| &rule.action)) {
            // With its quotes.
            (Op::Encrypt, Some(Action::Field(field))) if field.vault_writes().is_some() => {
                field.spec.longest_ciphertext(raw) + 2
            }
            (Op::Encrypt, Some(Action::Field(field))) => field.spec.longest_token(raw) + 2,
            _ => raw,
        }
    }

    fn resolve(&mut self, field: Field<'_>, out: &mut Vec<u8>) -> Result<Answer, Refused> {
        let Some(rule) = self.rules.get(field.rule) else { return Err(Refused(Code::Malformed, "rule")) };
        let outcome = match (&rule.action, self.op) {
            // What is at rest was judged when it came.
            (Action::Graphql { .. } | Action::GraphqlBatch, _) if self.rewraps => return Ok(Answer::Keep),
            (Action::Graphql { only_if_it_looks_so }, _) => return graphql_query(&field, *only_if_it_looks_so),
            (Action::GraphqlBatch, _) => return Err(Refused(Code::Malformed, "graphql_batch")),
            (Action::Field(action), _) if self.rewraps => self.work.rewrap(action, &field, out),
            (Action::Field(action), Op::Encrypt) => self.work.encrypt(action, &field, out),
            (Action::Field(action), Op::Decrypt) => self.work.decrypt(action, &field, out),
        };
        self.work.tally.counted(rule, outcome)
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
