//! The fields of one message: encrypts and decrypts, with everything that fields of one message share.

mod open;
mod place;
mod seal;

use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};

use crate::keyset::{Keyset, KeysetHandle, State};
use crate::nonce::{MAX_FIELDS, Random, Sequence, System};
use crate::slab::generation;
use crate::spec::{Bound, FieldSpec, Value};
use crate::{DecryptReason, Error};

use place::{OpenPlace, SealPlace};

pub use open::{Opened, looks_like_token};
pub(crate) use open::{emit_json, unpad};
pub(crate) use seal::{check_bound, padded};

/// One message under one keyset and tenant. Make a new one for each message: headers, query, body and trailers share it.
///
/// It costs nothing until its first field. Not `Clone`, not shared between threads.
pub struct Message {
    handle: KeysetHandle,
    state: Cache<Arc<ArcSwap<State>>, Arc<State>>,
    tenant: Option<Arc<str>>,
    worker: usize,
    random: &'static (dyn Random + Sync),
    keyset: Option<Arc<Keyset>>,
    sequence: Option<Sequence>,
    /// The process that the sequence and the counters of `seal` belong to.
    generation: u64,
    sealed: u32,
    /// Whether the version of each line counts this message already.
    counted: [bool; 2],
    seal: Vec<SealPlace>,
    open: Vec<OpenPlace>,
    work: Vec<u8>,
    text: Vec<u8>,
}

impl Message {
    /// A message whose fields `handle` holds the keys of. `tenant` is 1 to 255 bytes; `worker` tells threads apart.
    pub fn new(handle: &KeysetHandle, tenant: Option<Arc<str>>, worker: usize) -> Self {
        Self {
            handle: handle.clone(),
            state: handle.watch(),
            tenant,
            worker,
            random: &System,
            keyset: None,
            sequence: None,
            generation: 0,
            sealed: 0,
            counted: [false; 2],
            seal: Vec::new(),
            open: Vec::new(),
            work: Vec::new(),
            text: Vec::new(),
        }
    }

    /// Encrypts `value` for its place and appends the token to `out`, without quotes.
    ///
    /// # Errors
    /// [`Error::KeyUnavailable`] without an active version, [`Error::Random`], [`Error::TooLarge`] past the rule's
    /// `max_token`, [`Error::Value`] for a string with half a surrogate pair or bound values out of range. `out` is then
    /// as it was.
    pub fn encrypt(
        &mut self,
        spec: &FieldSpec,
        value: Value<'_>,
        bound: Bound<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        self.refresh(true)?;
        if !spec.deterministic {
            self.leave_to_the_parent();
            self.count_field();
        }
        seal::seal(self, spec, value, bound, out)
    }

    /// Opens the token in `text` (a string's characters without quotes) and appends the JSON value to `out`.
    ///
    /// # Errors
    /// [`Error::Decrypt`] with the reason, [`Error::KeyUnavailable`]. `out` is then as it was.
    pub fn decrypt(
        &mut self,
        spec: &FieldSpec,
        text: &[u8],
        bound: Bound<'_>,
        out: &mut Vec<u8>,
    ) -> Result<Opened, Error> {
        self.refresh(false)?;
        open::open(self, spec, text, bound, out, open::Form::Json)
    }

    /// The same for a place outside JSON: strings come out as text, numbers as spelled, booleans as `true` and `false`.
    /// `header` refuses CR, LF and NUL.
    ///
    /// # Errors
    /// As [`Message::decrypt`]; null, arrays and objects do not open there.
    pub fn decrypt_text(
        &mut self,
        spec: &FieldSpec,
        text: &[u8],
        header: bool,
        out: &mut Vec<u8>,
    ) -> Result<Opened, Error> {
        self.refresh(false)?;
        open::open(self, spec, text, Bound::default(), out, open::Form::Text { header })
    }

    /// Whether its fields are those of this keyset.
    pub fn is_of(&self, handle: &KeysetHandle) -> bool {
        self.handle.is(handle)
    }

    fn tenant(&self) -> &[u8] {
        self.tenant.as_deref().unwrap_or_default().as_bytes()
    }

    /// Asks the handle before every field: keys that were taken away stop a long stream, too.
    fn refresh(&mut self, writes: bool) -> Result<(), Error> {
        let now = match &**self.state.load() {
            State::Held(now) => now,
            State::ReadOnly(now) if !writes => now,
            State::ReadOnly(_) | State::Unavailable(_) => return Err(self.handle.unavailable()),
        };
        if !self.keyset.as_ref().is_some_and(|held| Arc::ptr_eq(held, now)) {
            self.keyset = Some(Arc::clone(now));
            self.counted = [false; 2];
            self.seal.clear();
            self.open.clear();
        }
        Ok(())
    }

    /// In a child after fork(2) the parent goes on with this sequence and these counters, so the child draws its own.
    fn leave_to_the_parent(&mut self) {
        let generation = generation();
        if self.generation != generation {
            self.generation = generation;
            self.sealed = 0;
            self.sequence = None;
            self.seal.clear();
        }
    }

    /// After 2^16 fields a new sequence, and with it new prefixes.
    fn count_field(&mut self) {
        self.sealed += 1;
        if self.sealed > MAX_FIELDS {
            self.sealed = 1;
            self.sequence = None;
            self.seal.clear();
        }
    }

    fn start(&mut self) -> Result<[u8; crate::header::NONCE], Error> {
        loop {
            let sequence = match &mut self.sequence {
                Some(sequence) => sequence,
                none => none.insert(Sequence::new(self.random, self.worker)?),
            };
            match sequence.start() {
                Some(start) => return Ok(start),
                None => self.sequence = None,
            }
        }
    }
}

type Refused = DecryptReason;

#[cfg(test)]
mod tests;
