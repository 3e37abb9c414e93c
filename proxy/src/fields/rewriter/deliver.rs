//! Hands fields to the resolver and keeps what must wait.

use super::Rewriter;
use crate::fields::bound::{self, Pending};
use crate::fields::queue::{Filling, Separator};
use crate::fields::{Answer, BindError, Error, Field, HoleId, Kind, Resolver};

fn kind_of(raw: &[u8]) -> Kind {
    match raw.first() {
        Some(b'"') => Kind::String,
        Some(b't') => Kind::True,
        Some(b'f') => Kind::False,
        Some(b'n') => Kind::Null,
        Some(b'[') => Kind::Array,
        Some(b'{') => Kind::Object,
        _ => Kind::Number,
    }
}

impl Rewriter {
    /// A whole field: resolved now, or held until its bound values are known.
    pub(super) fn deliver<R: Resolver>(
        &mut self,
        rule: usize,
        raw: &[u8],
        r: &mut R,
        out: &mut Vec<u8>,
    ) -> Result<(), Error<R::Error>> {
        let kind = kind_of(raw);
        let hole = HoleId(self.holes);
        self.holes += 1;
        let Some(compiled) = self.program.rules.get(rule) else { return Err(Error::Unasked) };
        let top = self.stack.last();
        let separator = match (compiled.may_drop, top) {
            (true, Some(frame)) if frame.drops => {
                let bytes = std::mem::take(&mut self.separators);
                Some(Separator { container: frame.serial, bytes })
            }
            _ => None,
        };
        if compiled.bind.is_empty() {
            let field = Field { hole, rule, kind, raw, bound: &[] };
            return self.resolve(field, separator, r, out);
        }
        let program = std::sync::Arc::clone(&self.program);
        let Some(compiled) = program.rules.get(rule) else { return Err(Error::Unasked) };
        let wrong = |reason| Error::Bind { rule, reason };
        let holder =
            top.and_then(|frame| frame.each).map_or_else(|| self.holder(), |each| each.holder.map(|at| at as usize));
        bound::mark(rule, compiled, holder, &mut self.stack);
        // Taken out for the time of the call, since the values borrowed from it stand beside `self`.
        let stack = std::mem::take(&mut self.stack);
        let path = std::mem::take(&mut self.path);
        let delivered = match bound::decided(compiled, holder, &stack, &path) {
            Err(reason) => Err(wrong(reason)),
            Ok(Some(bound)) => {
                let field = Field { hole, rule, kind, raw, bound: &bound };
                self.resolve(field, separator, r, out)
            }
            Ok(None) => {
                let counted = raw.len().max(r.longest(rule, raw.len()));
                let field = (hole, rule, kind, raw, counted);
                Pending::new(field, compiled, holder, &stack, &path).map_err(wrong).map(|pending| {
                    self.queue.hole(hole, separator, Filling::Unbound);
                    self.queue.grown(counted);
                    self.pending.push(pending);
                })
            }
        };
        self.stack = stack;
        self.path = path;
        delivered
    }

    /// Asks the resolver and puts its answer in its place.
    fn resolve<R: Resolver>(
        &mut self,
        field: Field<'_>,
        separator: Option<Separator>,
        r: &mut R,
        out: &mut Vec<u8>,
    ) -> Result<(), Error<R::Error>> {
        let (hole, rule, raw) = (field.hole, field.rule, field.raw);
        let failed = |error| Error::Resolver { rule, error };
        if separator.is_some() {
            // Its separators leave only once it is known to stay.
            let mut value = Vec::new();
            let filling = match r.resolve(field, &mut value).map_err(failed)? {
                Answer::Written => Filling::Filled(value),
                Answer::Keep => Filling::Filled(raw.to_vec()),
                Answer::Dropped => Filling::Dropped,
                Answer::Later => Filling::Late,
            };
            self.queue.hole(hole, separator, filling);
            self.queue.flush(out);
            return Ok(());
        }
        let open = self.queue.is_open();
        let target = if open { &mut *out } else { self.queue.tail() };
        let before = target.len();
        let answer = match r.resolve(field, target) {
            Ok(answer) => answer,
            Err(error) => {
                target.truncate(before);
                return Err(failed(error));
            }
        };
        match answer {
            Answer::Written => {}
            Answer::Keep => {
                target.truncate(before);
                target.extend_from_slice(raw);
            }
            Answer::Dropped => return Err(Error::Unasked),
            Answer::Later => {
                target.truncate(before);
                self.queue.hole(hole, None, Filling::Late);
                return Ok(());
            }
        }
        let grown = target.len() - before;
        if !open {
            self.queue.grown(grown);
        }
        Ok(())
    }

    /// A watched string, number or word was read.
    pub(super) fn watched_scalar<R: Resolver>(
        &mut self,
        state: u32,
        raw: &[u8],
        r: &mut R,
        out: &mut Vec<u8>,
    ) -> Result<(), Error<R::Error>> {
        let value = match raw.len() > bound::MAX_SPELLED {
            true => Err(BindError::Length),
            false => bound::text_of(raw),
        };
        self.note(state, &value)?;
        self.release(r, out)
    }

    /// A watched member is a container: nothing can be bound to it.
    pub(super) fn watched_container<E>(&mut self, state: u32) -> Result<(), Error<E>> {
        self.note(state, &Err(BindError::Type))
    }

    fn note<E>(&mut self, state: u32, value: &Result<Vec<u8>, BindError>) -> Result<(), Error<E>> {
        let program = std::sync::Arc::clone(&self.program);
        let watched = program.nodes.get(state as usize).map(|node| node.watched.as_slice()).unwrap_or_default();
        for &watch in watched {
            let length = program.watches.get(watch as usize).copied().unwrap_or(1);
            // Only members lead there, one a level: the object where the watch began is that many levels up.
            let Some(frame) = self.stack.len().checked_sub(length).and_then(|at| self.stack.get_mut(at)) else {
                continue;
            };
            let serial = frame.serial;
            bound::note(frame, watch, value.clone()).map_err(|(rule, reason)| Error::Bind { rule, reason })?;
            for pending in &mut self.pending {
                let rule = pending.rule;
                if pending.seen(serial, watch, value).map_err(|reason| Error::Bind { rule, reason })?
                    && let Some(slot) = self.stack.iter_mut().find(|frame| frame.serial == serial)
                {
                    bound::use_slot(slot, watch, rule);
                }
            }
        }
        Ok(())
    }

    /// A container has ended: what was not seen in it is absent.
    pub(super) fn frame_closed<R: Resolver>(
        &mut self,
        serial: u32,
        r: &mut R,
        out: &mut Vec<u8>,
    ) -> Result<(), Error<R::Error>> {
        for pending in &mut self.pending {
            pending.closed(serial);
        }
        self.release(r, out)
    }

    /// Resolves what waited and is decided now.
    fn release<R: Resolver>(&mut self, r: &mut R, out: &mut Vec<u8>) -> Result<(), Error<R::Error>> {
        if !self.pending.iter().any(Pending::is_decided) {
            return Ok(());
        }
        let program = std::sync::Arc::clone(&self.program);
        for pending in std::mem::take(&mut self.pending) {
            if !pending.is_decided() {
                self.pending.push(pending);
                continue;
            }
            let rule = pending.rule;
            let Some(compiled) = program.rules.get(rule) else { return Err(Error::Unasked) };
            let bound = pending.bound(compiled).map_err(|reason| Error::Bind { rule, reason })?;
            let mut value = Vec::new();
            let field = Field { hole: pending.hole, rule, kind: pending.kind, raw: &pending.raw, bound: &bound };
            let filling = match r.resolve(field, &mut value).map_err(|error| Error::Resolver { rule, error })? {
                Answer::Written => Filling::Filled(value),
                Answer::Keep => Filling::Filled(pending.raw.clone()),
                Answer::Dropped => Filling::Dropped,
                Answer::Later => Filling::Late,
            };
            self.queue.shrunk(pending.counted);
            if !self.queue.fill(pending.hole, filling) {
                return Err(Error::Unasked);
            }
        }
        self.queue.flush(out);
        Ok(())
    }
}
