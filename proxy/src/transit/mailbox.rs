//! Where the answers of one message come in.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::Missed;

/// What became of one item.
pub(crate) type Outcome = Result<Bytes, Missed>;

/// The answers of one message. Who drops it is no longer interested, and its items that were not sent yet never are.
#[derive(Default)]
pub(crate) struct Mailbox(RefCell<Inner>);

#[derive(Default)]
struct Inner {
    answers: VecDeque<(u64, Outcome)>,
    waker: Option<Waker>,
}

impl Mailbox {
    pub(crate) fn new() -> Rc<Self> {
        Rc::default()
    }

    /// The next answer with its ticket.
    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<(u64, Outcome)> {
        let mut inner = self.0.borrow_mut();
        match inner.answers.pop_front() {
            Some(answer) => Poll::Ready(answer),
            None => {
                inner.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    pub(crate) fn put(&self, ticket: u64, outcome: Outcome) {
        let waker = {
            let mut inner = self.0.borrow_mut();
            inner.answers.push_back((ticket, outcome));
            inner.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
