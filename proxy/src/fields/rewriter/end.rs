//! A value ends: a field goes to the resolver, a watched one to those that wait for it, a container takes its frame along.

use super::walk::Piece;
use super::{Expect, Rewriter, Want};
use crate::fields::{Error, Resolver};

impl Rewriter {
    /// A container ends.
    pub(super) fn close<R: Resolver>(
        &mut self,
        piece: &mut Piece<'_>,
        r: &mut R,
        out: &mut Vec<u8>,
    ) -> Result<(), Error<R::Error>> {
        piece.at += 1;
        if self.dead.pop().is_some() {
            return self.container_ended(piece, r, out);
        }
        let Some(frame) = self.stack.pop() else { return Err(Error::Malformed("a bracket closes nothing")) };
        if frame.drops {
            if std::mem::take(&mut self.separating) {
                // It was empty: white space and the bracket.
                self.separators.extend_from_slice(piece.since_run());
                let bytes = std::mem::take(&mut self.separators);
                self.queue.bytes(&bytes, out);
                piece.run = piece.at;
            } else {
                self.emit(piece, out);
            }
            self.queue.close(frame.serial);
        }
        if !self.pending.is_empty() {
            self.check_window(piece)?;
            self.frame_closed(frame.serial, r, out)?;
        }
        self.container_ended(piece, r, out)
    }

    fn container_ended<R: Resolver>(
        &mut self,
        piece: &mut Piece<'_>,
        r: &mut R,
        out: &mut Vec<u8>,
    ) -> Result<(), Error<R::Error>> {
        self.value_ended();
        match self.want {
            Want::Field { base, .. } if base == self.depth() => self.field_ended(piece, r, out),
            _ => Ok(()),
        }
    }

    fn value_ended(&mut self) {
        self.expect = if self.depth() == 0 { Expect::End } else { Expect::Next };
    }

    /// A string, number or word is whole.
    pub(super) fn scalar_ended<R: Resolver>(
        &mut self,
        piece: &mut Piece<'_>,
        r: &mut R,
        out: &mut Vec<u8>,
    ) -> Result<(), Error<R::Error>> {
        self.value_ended();
        match self.want {
            Want::Field { base, .. } if base == self.depth() => self.field_ended(piece, r, out),
            Want::Watched { state } => {
                self.want = Want::Nothing;
                self.check_window(piece)?;
                let here = piece.since_start();
                if self.held.is_empty() {
                    return self.watched_scalar(state, here, r, out);
                }
                let mut held = std::mem::take(&mut self.held);
                held.extend_from_slice(here);
                self.watched_scalar(state, &held, r, out)
            }
            _ => Ok(()),
        }
    }

    /// Bytes of the longest value that is taken, with a string's quotes.
    pub(super) fn longest_field(&self) -> usize {
        self.limits.field.saturating_add(2)
    }

    /// A wanted value is whole.
    fn field_ended<R: Resolver>(
        &mut self,
        piece: &mut Piece<'_>,
        r: &mut R,
        out: &mut Vec<u8>,
    ) -> Result<(), Error<R::Error>> {
        let Want::Field { rule, .. } = std::mem::replace(&mut self.want, Want::Nothing) else { return Ok(()) };
        piece.run = piece.at;
        let here = piece.since_start();
        if self.held.len() + here.len() > self.longest_field() {
            return Err(Error::TooLarge { rule });
        }
        if self.held.is_empty() {
            return self.deliver(rule, here, r, out);
        }
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(here);
        let delivered = self.deliver(rule, &held, r, out);
        held.clear();
        self.held = held;
        delivered
    }

    /// The document ended with a number whose last byte came in an earlier piece.
    pub(super) fn end_of_carried<R: Resolver>(&mut self, r: &mut R, out: &mut Vec<u8>) -> Result<(), Error<R::Error>> {
        let mut piece = Piece { input: &[], at: 0, run: 0, start: 0, key: 0 };
        self.scalar_ended(&mut piece, r, out)
    }
}
