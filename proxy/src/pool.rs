//! A worker's pool of upstream connections. Not `Send`: nothing here is shared between threads.
//!
//! It holds `hyper::client::conn` senders, keyed by upstream and identity generation. An HTTP/1.1 sender is taken out for
//! one exchange and comes back when the response body has ended; an HTTP/2 one serves many at once.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::client::conn::{http1, http2};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::body::Body;
use crate::snapshot::Upstream;

/// Bounds of a pool.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    pub(crate) connections: usize,
    pub(crate) idle: Duration,
    pub(crate) age: Duration,
    pub(crate) wait: Duration,
}

/// Connections of one worker.
pub(crate) struct Pool {
    slots: RefCell<HashMap<(usize, u64), Rc<Slot>>>,
}

/// Connections to one upstream under one identity.
pub(crate) struct Slot {
    bounds: Bounds,
    idle: RefCell<Vec<H1>>,
    h2: RefCell<Vec<H2>>,
    open: Arc<Semaphore>,
    /// One HTTP/2 connection is made at a time; the others wait for it.
    pub(crate) connecting: Arc<Semaphore>,
    /// Set once ALPN or the configuration has said HTTP/2.
    pub(crate) speaks_h2: Cell<bool>,
}

/// An HTTP/1.1 connection.
pub(crate) struct H1 {
    sender: http1::SendRequest<Body>,
    born: Instant,
    idle_since: Instant,
}

struct H2 {
    sender: http2::SendRequest<Body>,
    born: Instant,
    /// When it was last asked for a stream. Streams under way outlive its place here.
    used: Cell<Instant>,
}

/// An HTTP/1.1 connection that goes back to its slot when [`Lent::give_back`] is called and is closed otherwise.
pub(crate) struct Lent {
    connection: H1,
    slot: Rc<Slot>,
    _permit: OwnedSemaphorePermit,
}

impl Lent {
    pub(crate) fn sender(&mut self) -> &mut http1::SendRequest<Body> {
        &mut self.connection.sender
    }

    /// The exchange is over: the next may have the connection.
    pub(crate) fn give_back(mut self) {
        if !self.connection.sender.is_closed() {
            self.connection.idle_since = Instant::now();
            self.slot.idle.borrow_mut().push(self.connection);
        }
    }
}

impl Pool {
    pub(crate) fn new() -> Self {
        Self { slots: RefCell::new(HashMap::new()) }
    }

    pub(crate) fn slot(&self, upstream: &Upstream, bounds: Bounds) -> Rc<Slot> {
        let mut slots = self.slots.borrow_mut();
        let slot =
            slots.entry((upstream.id, upstream.generation())).or_insert_with(|| Rc::new(Slot::new(bounds, upstream)));
        Rc::clone(slot)
    }

    /// Closes what has been idle or alive for too long or is of an identity of before, and forgets slots that hold nothing.
    pub(crate) fn sweep(&self) {
        let now = Instant::now();
        let mut slots = self.slots.borrow_mut();
        let mut newest: HashMap<usize, u64> = HashMap::new();
        for (id, generation) in slots.keys() {
            let held = newest.entry(*id).or_default();
            *held = (*held).max(*generation);
        }
        slots.retain(|(id, generation), slot| {
            if newest.get(id).is_some_and(|newest| generation < newest) {
                slot.idle.borrow_mut().clear();
                slot.h2.borrow_mut().clear();
            }
            slot.idle.borrow_mut().retain(|h1| slot.fresh(h1, now));
            slot.h2.borrow_mut().retain(|h2| slot.young(h2, now));
            let unused = Rc::strong_count(slot) == 1;
            let empty = slot.idle.borrow().is_empty() && slot.h2.borrow().is_empty();
            !(unused && empty)
        });
    }
}

impl Slot {
    fn new(bounds: Bounds, upstream: &Upstream) -> Self {
        Self {
            bounds,
            idle: RefCell::default(),
            h2: RefCell::default(),
            open: Arc::new(Semaphore::new(bounds.connections)),
            connecting: Arc::new(Semaphore::new(1)),
            speaks_h2: Cell::new(upstream.speaks_h2()),
        }
    }

    fn fresh(&self, h1: &H1, now: Instant) -> bool {
        !h1.sender.is_closed()
            && now.duration_since(h1.idle_since) < self.bounds.idle
            && now.duration_since(h1.born) < self.bounds.age
    }

    fn young(&self, h2: &H2, now: Instant) -> bool {
        !h2.sender.is_closed()
            && now.duration_since(h2.used.get()) < self.bounds.idle
            && now.duration_since(h2.born) < self.bounds.age
    }

    /// Leave to use one more HTTP/1.1 connection: waits at most `pool_wait`. Connections in use never exceed the bound,
    /// and an idle one is used before a new one is made, so neither do open ones.
    pub(crate) async fn permit(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.open).try_acquire_owned() {
            return Some(permit);
        }
        let waiting = Arc::clone(&self.open).acquire_owned();
        tokio::time::timeout(self.bounds.wait, waiting).await.ok()?.ok()
    }

    /// The most recently used HTTP/1.1 connection that is ready now.
    pub(crate) fn idle_h1(self: &Rc<Self>, permit: OwnedSemaphorePermit) -> Result<Lent, OwnedSemaphorePermit> {
        let now = Instant::now();
        let mut held = self.idle.borrow_mut();
        for at in (0..held.len()).rev() {
            let Some(h1) = held.get(at) else { break };
            if !self.fresh(h1, now) {
                held.swap_remove(at);
            } else if h1.sender.is_ready() {
                let connection = held.swap_remove(at);
                return Ok(self.lend(connection, permit));
            }
        }
        Err(permit)
    }

    /// An HTTP/2 connection that takes streams, made since then where a time is given.
    pub(crate) fn ready_h2(&self, since: Option<Instant>) -> Option<http2::SendRequest<Body>> {
        let now = Instant::now();
        let mut held = self.h2.borrow_mut();
        held.retain(|h2| self.young(h2, now));
        let made = |h2: &H2| since.is_none_or(|since| h2.born >= since);
        let ready = held.iter().find(|h2| h2.sender.is_ready() && made(h2))?;
        ready.used.set(now);
        Some(ready.sender.clone())
    }

    pub(crate) fn adopt_h1(self: &Rc<Self>, sender: http1::SendRequest<Body>, permit: OwnedSemaphorePermit) -> Lent {
        let born = Instant::now();
        let idle_since = born;
        self.lend(H1 { sender, born, idle_since }, permit)
    }

    pub(crate) fn adopt_h2(&self, sender: &http2::SendRequest<Body>) {
        self.speaks_h2.set(true);
        let born = Instant::now();
        let sender = sender.clone();
        self.h2.borrow_mut().push(H2 { sender, born, used: Cell::new(born) });
    }

    fn lend(self: &Rc<Self>, connection: H1, permit: OwnedSemaphorePermit) -> Lent {
        let slot = Rc::clone(self);
        Lent { connection, slot, _permit: permit }
    }
}
