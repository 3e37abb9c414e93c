//! What the two halves of one exchange know of each other.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::error::Failure;

/// The body's end of an exchange: dropped before the body was whole, it ends it.
pub(crate) struct Sending(Option<Rc<Exchange>>);

impl Sending {
    pub(crate) fn new(exchange: Rc<Exchange>) -> Self {
        Self(Some(exchange))
    }

    pub(crate) fn count(&self, bytes: usize) {
        if let Some(exchange) = &self.0 {
            exchange.count(bytes);
        }
    }

    pub(crate) fn complete(&mut self) {
        if let Some(exchange) = self.0.take() {
            exchange.end(true);
        }
    }

    pub(crate) fn fail(&mut self, failure: Failure) {
        if let Some(exchange) = self.0.take() {
            exchange.fail(failure);
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        if let Some(exchange) = self.0.take() {
            exchange.end(false);
        }
    }
}

/// Shared by the handler and the request body it has sent off.
#[derive(Default)]
pub(crate) struct Exchange {
    failure: RefCell<Option<Failure>>,
    /// The request body has ended, well or not.
    over: Cell<bool>,
    complete: Cell<bool>,
    bytes: Cell<u64>,
    waker: RefCell<Option<Waker>>,
}

impl Exchange {
    pub(crate) fn new() -> Rc<Self> {
        Rc::default()
    }

    /// The request failed on our side; the first reason stays.
    fn fail(&self, failure: Failure) {
        self.failure.borrow_mut().get_or_insert(failure);
        self.end(false);
    }

    /// The body is gone, whether complete or not.
    fn end(&self, complete: bool) {
        if !self.over.replace(true) {
            self.complete.set(complete);
            if let Some(waker) = self.waker.borrow_mut().take() {
                waker.wake();
            }
        }
    }

    fn count(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.bytes.set(self.bytes.get().saturating_add(bytes));
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    pub(crate) fn take_failure(&self) -> Option<Failure> {
        self.failure.borrow_mut().take()
    }

    /// Ready once the request body has ended: whether all of it was handed on.
    pub(crate) fn poll_over(&self, cx: &Context<'_>) -> Poll<bool> {
        if self.over.get() {
            return Poll::Ready(self.complete.get());
        }
        *self.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}
