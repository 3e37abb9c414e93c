//! What the two halves of one exchange know of each other.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::error::Failure;

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
    pub(crate) fn fail(&self, failure: Failure) {
        self.failure.borrow_mut().get_or_insert(failure);
        self.end(false);
    }

    /// The whole request was handed on.
    pub(crate) fn complete(&self) {
        self.end(true);
    }

    /// The body is gone, whether complete or not.
    pub(crate) fn end(&self, complete: bool) {
        if !self.over.replace(true) {
            self.complete.set(complete);
            if let Some(waker) = self.waker.borrow_mut().take() {
                waker.wake();
            }
        }
    }

    pub(crate) fn count(&self, bytes: usize) {
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
