//! One key and one operation on one worker: what waits, and the calls under way.
//!
//! A call leaves at once where none is under way, but behind whatever else is ready to run now, so that messages that came together
//! go together. Else it leaves when it is full, when its oldest item has waited for [`Times::linger`], or when a call comes back.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::{spawn_local, yield_now};
use tokio::time::{sleep, timeout_at};

use super::breaker::Breaker;
use super::queue::{Queue, Size, Waiting};
use super::{Item, ItemResult, Key, Mailbox, Memory, Missed, Operation, Outcome, Service, parts};
use crate::backoff;
use crate::vault::Error;

/// What a lane's calls may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    /// How long an item waits for company while another call is under way.
    linger: Duration,
    /// How long a call may take, its repetitions in it.
    pub(super) patience: Duration,
    /// Longest wait before the second attempt; before the third it is three times that.
    pause: Duration,
}

impl Times {
    pub(super) const USUAL: Self =
        Self { linger: Duration::from_millis(2), patience: Duration::from_secs(2), pause: Duration::from_millis(60) };

    /// Shorter, for tests.
    #[cfg(test)]
    pub(super) const SHORT: Self = Self {
        linger: Duration::from_millis(2),
        patience: Duration::from_millis(150),
        pause: Duration::from_millis(5),
    };
}

/// Calls of a lane at once.
const CALLS: usize = 4;

/// Attempts at a call.
const ATTEMPTS: u32 = 3;

/// OpenBao takes a thousand strings in a request, of which one is the list's own name.
const STRINGS: usize = 999;

/// Most bytes of a call, unless one item has more: what goes over a slow road within [`Times::patience`]. Vault's limit is 32 MiB.
const BYTES: usize = 2 << 20;

pub(super) struct Lane<S> {
    key: Arc<Key>,
    operation: Operation,
    service: Rc<S>,
    breaker: Rc<Breaker>,
    queue: RefCell<Queue>,
    /// Since when the oldest waits; none while nothing does.
    oldest: Cell<Option<Instant>>,
    under_way: Cell<usize>,
    /// A task will look at it.
    woken: Cell<bool>,
    /// A timer will.
    armed: Cell<bool>,
    /// Strings that this Vault takes in a request, as far as is known.
    strings: Cell<usize>,
    remembered: Rc<Memory>,
    times: Times,
}

/// A call's items, and who waits for each.
struct Call {
    items: Vec<Item>,
    to: Vec<(Weak<Mailbox>, u64)>,
}

/// What came of a call.
enum Ended {
    Answered(Vec<ItemResult>),
    /// It may go better in two halves.
    Halve,
    Missed(Missed),
}

impl<S: Service> Lane<S> {
    pub(super) fn new(
        key: Arc<Key>,
        operation: Operation,
        (service, breaker, remembered): (Rc<S>, Rc<Breaker>, Rc<Memory>),
        times: Times,
    ) -> Rc<Self> {
        Rc::new(Self {
            key,
            operation,
            service,
            breaker,
            queue: RefCell::default(),
            oldest: Cell::new(None),
            under_way: Cell::new(0),
            woken: Cell::new(false),
            armed: Cell::new(false),
            strings: Cell::new(STRINGS),
            remembered,
            times,
        })
    }

    pub(super) fn is(&self, key: &Arc<Key>, operation: Operation) -> bool {
        Arc::ptr_eq(&self.key, key) && self.operation == operation
    }

    pub(super) fn ask(self: &Rc<Self>, tenant: Option<&Arc<str>>, mailbox: &Rc<Mailbox>, items: Vec<(u64, Item)>) {
        if let Err(items) = self.queue.borrow_mut().push(tenant, mailbox, items) {
            for (ticket, _) in items {
                mailbox.put(ticket, Err(Missed::Full));
            }
            return;
        }
        if self.oldest.get().is_none() {
            self.oldest.set(Some(Instant::now()));
        }
        if !self.woken.replace(true) {
            let lane = Rc::clone(self);
            spawn_local(async move {
                yield_now().await;
                lane.woken.set(false);
                lane.leave();
            });
        }
    }

    /// How large a call may be.
    fn most(&self) -> Size {
        Size { strings: self.strings.get(), bytes: BYTES }
    }

    /// Sends what is due.
    fn leave(self: &Rc<Self>) {
        while let Some(oldest) = self.oldest.get() {
            let waited = oldest.elapsed();
            let linger = self.times.linger;
            let due = self.under_way.get() == 0 || waited >= linger || self.queue.borrow().fills(self.most());
            if self.under_way.get() >= CALLS {
                // One of them comes back.
                return;
            }
            if !due {
                return self.arm(linger - waited);
            }
            let taken = self.queue.borrow_mut().take(self.most());
            // What is left came while others were taken: it is not older than now by much.
            self.oldest.set((!self.queue.borrow().is_empty()).then(Instant::now));
            if !taken.is_empty() {
                self.send(taken);
            }
        }
    }

    fn arm(self: &Rc<Self>, after: Duration) {
        if !self.armed.replace(true) {
            let lane = Rc::clone(self);
            spawn_local(async move {
                sleep(after).await;
                lane.armed.set(false);
                lane.leave();
            });
        }
    }

    fn send(self: &Rc<Self>, taken: Vec<Waiting>) {
        self.under_way.set(self.under_way.get() + 1);
        let (items, to) = taken.into_iter().map(|waiting| (waiting.item, (waiting.to, waiting.ticket))).unzip();
        let lane = Rc::clone(self);
        spawn_local(async move {
            lane.call(Call { items, to }).await;
            lane.under_way.set(lane.under_way.get() - 1);
            lane.leave();
        });
    }

    /// Calls until every item has its answer.
    async fn call(&self, whole: Call) {
        let deadline = Instant::now() + self.times.patience;
        let mut parts = vec![whole];
        while let Some(part) = parts.pop() {
            match self.attempts(&part, deadline).await {
                Ended::Answered(results) => {
                    self.remember(&part, &results);
                    part.answered(results);
                }
                Ended::Missed(missed) => part.missed(missed),
                Ended::Halve => parts.extend(part.halves()),
            }
        }
    }

    async fn attempts(&self, call: &Call, deadline: Instant) -> Ended {
        let mut attempt = 1;
        loop {
            if call.to.iter().all(|(to, _)| to.strong_count() == 0) {
                return Ended::Missed(Missed::Unavailable("vault_nobody"));
            }
            // What was halved again and again is late by our own doing, which says nothing of Vault.
            if Instant::now() >= deadline {
                return Ended::Missed(Missed::Unavailable("vault_timeout"));
            }
            if let Err(reason) = self.breaker.admit(Instant::now()) {
                return Ended::Missed(Missed::Unavailable(reason));
            }
            let probe = Probe(&self.breaker);
            let asked = self.service.call(self.key.name(), self.operation, &call.items);
            let answer = timeout_at(deadline.into(), asked).await.unwrap_or_else(|_| {
                let error = Error::slow(self.times.patience);
                self.service.given_up(self.operation, &error);
                Err(error)
            });
            drop(probe);
            let error = match answer {
                Ok(results) if results.len() == call.items.len() => {
                    self.breaker.answered();
                    return Ended::Answered(results);
                }
                Ok(_) => Error::malformed(),
                Err(error) => error,
            };
            if error.is_answer() {
                self.breaker.answered();
                return self.refused(call, &error);
            }
            let opened = self.breaker.failed(Instant::now(), error.in_calls(), error.spare());
            if opened {
                tracing::error!(
                    target: "oilskin::vault",
                    key = %self.key.name(),
                    reason = error.reason(),
                    "fields wait for Vault in vain, so nobody asks it for a moment: {error}"
                );
            }
            let missed = Ended::Missed(Missed::Unavailable(error.in_calls()));
            if attempt == ATTEMPTS || error.spare().is_some() {
                return missed;
            }
            let pause = (self.times.pause * (2 * attempt - 1)).mul_f64(backoff::share());
            if Instant::now() + pause >= deadline {
                return missed;
            }
            sleep(pause).await;
            attempt += 1;
        }
    }

    /// Remembers what was decrypted, where that is wanted.
    fn remember(&self, call: &Call, results: &[ItemResult]) {
        if self.operation != Operation::Decrypt {
            return;
        }
        let now = Instant::now();
        for (item, plain) in
            call.items.iter().zip(results).filter_map(|(item, result)| Some((item, result.as_ref().ok()?)))
        {
            self.remembered.with(|memory| memory.remember(&parts(&self.key, item), plain, now));
        }
    }

    /// Vault has looked at the call and refuses the whole of it.
    fn refused(&self, call: &Call, error: &Error) -> Ended {
        let missed = Ended::Missed(Missed::Unavailable(error.in_calls()));
        if error.is_denied() {
            self.remembered.denied();
        }
        if error.is_denied() || call.items.len() == 1 {
            return match error.refused() {
                // Not the call but its only item is wrong.
                Some(400) if !error.says("key not found") => Ended::Missed(Missed::Refused("vault_item")),
                _ => missed,
            };
        }
        match error.refused() {
            Some(400) if error.says("number of strings") => {
                let strings: usize = call.items.iter().map(Item::strings).sum();
                self.strings.set((strings / 2).max(6).min(self.strings.get()));
                Ended::Halve
            }
            Some(400) if error.says("key not found") => missed,
            Some(400 | 413) => Ended::Halve,
            _ => missed,
        }
    }
}

/// Ends a breaker's probe that was given up on the way.
struct Probe<'a>(&'a Breaker);

impl Drop for Probe<'_> {
    fn drop(&mut self) {
        self.0.given_up();
    }
}

impl Call {
    fn answered(self, results: Vec<ItemResult>) {
        for ((to, ticket), result) in self.to.into_iter().zip(results) {
            put(&to, ticket, result.map_err(Missed::Refused));
        }
    }

    fn missed(self, missed: Missed) {
        for (to, ticket) in self.to {
            put(&to, ticket, Err(missed));
        }
    }

    fn halves(mut self) -> [Self; 2] {
        let half = self.items.len() / 2;
        let second = Self { items: self.items.split_off(half), to: self.to.split_off(half) };
        [second, self]
    }
}

fn put(to: &Weak<Mailbox>, ticket: u64, outcome: Outcome) {
    if let Some(to) = to.upgrade() {
        to.put(ticket, outcome);
    }
}
