//! A worker: one thread, one `current_thread` runtime, its own listeners and its own pool. Nothing moves between workers.

use std::cell::RefCell;
use std::io;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use oilskin_crypto::Remembered;
use tokio::sync::{Semaphore, watch};
use tokio::task::LocalSet;

use crate::gate::{GateState, Order};
use crate::listen::{Bound, Listening};
use crate::names::Names;
use crate::pool::Pool;
use crate::serve::serve;
use crate::snapshot::Snapshot;
use crate::telemetry::{Metrics, Peer, RequestIds};
use crate::tls::{self, Judged};
use crate::transit::{Lanes, Memory};
use crate::vault::{Caller, Vault};

/// How often connections are compared with their deadlines.
const SWEEP: Duration = Duration::from_millis(250);

/// How long the sweep keeps the worker from its requests at once: with new authorities every peer's chain is checked again, which for
/// thousands of them takes a large part of a second.
const SLICE: Duration = Duration::from_micros(250);

/// After a failed accept (no descriptors left, say): not at once again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a drain waits for permits to serve who is still queued.
const QUEUED: Duration = Duration::from_millis(500);

/// What all workers share, read only.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(crate) names: Arc<Names>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) connections: Arc<Semaphore>,
    pub(crate) stop: watch::Receiver<Stop>,
    /// TLS of each listener.
    pub(crate) tls: Arc<[Option<Arc<tls::Server>>]>,
    /// Where fields may be asked for.
    pub(crate) vault: Option<Arc<Vault>>,
    /// How often Vault has denied anything.
    pub(crate) denials: Arc<AtomicU64>,
}

/// How far the process is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    Serve,
    /// No new connections; what is in work ends until then.
    DrainUntil(Instant),
    Now,
}

/// One worker's own things.
pub(crate) struct Worker {
    pub(crate) id: usize,
    pub(crate) shared: Shared,
    pub(crate) pool: Pool,
    pub(crate) ids: RequestIds,
    /// Fields on their way to Vault.
    pub(crate) lanes: Option<Rc<Lanes>>,
    /// TLS handshakes in progress.
    pub(crate) handshakes: Semaphore,
    connections: RefCell<Vec<Weak<GateState>>>,
    /// Connections to upstreams.
    upstreams: RefCell<Vec<Weak<GateState>>>,
}

impl Worker {
    /// The configuration in force now.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.snapshot.load_full()
    }

    /// The state of a new connection to an upstream, which the sweep looks at from now on.
    pub(crate) fn towards_upstream(&self) -> Rc<GateState> {
        let state = GateState::new();
        self.upstreams.borrow_mut().push(Rc::downgrade(&state));
        state
    }
}

/// Runs a worker on this thread until it is stopped; returns how many connections were cut.
///
/// # Errors
/// What the system says when the runtime cannot be built or a socket not be registered.
pub(crate) fn run(
    id: usize,
    shared: Shared,
    listeners: Vec<Bound>,
    remembered: Option<Remembered>,
) -> io::Result<usize> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let handshakes = Semaphore::new(shared.snapshot.load().limits.handshakes.get());
    let lanes =
        shared.vault.as_ref().map(|vault| Lanes::new(Caller::new(vault), Memory::new(remembered, &shared.denials)));
    let worker = Rc::new(Worker {
        id,
        shared,
        lanes,
        pool: Pool::new(),
        ids: RequestIds::new(),
        handshakes,
        connections: RefCell::default(),
        upstreams: RefCell::default(),
    });
    let local = LocalSet::new();
    local.block_on(&runtime, async {
        let mut accepting = Vec::new();
        for (index, bound) in listeners.into_iter().enumerate() {
            let listening = Listening::new(bound)?;
            accepting.push(tokio::task::spawn_local(accept(Rc::clone(&worker), index, listening)));
        }
        let sweeping = tokio::task::spawn_local(sweep(Rc::clone(&worker)));
        let cut = drain(&worker, accepting).await;
        sweeping.abort();
        Ok(cut)
    })
}

async fn accept(worker: Rc<Worker>, listener: usize, listening: Listening) {
    let mut stop = worker.shared.stop.clone();
    loop {
        // The permit first: a flood beyond the limit waits in the kernel and costs us nothing.
        let Ok(permit) = Arc::clone(&worker.shared.connections).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            biased;
            accepted = listening.accept() => accepted,
            // Only once nothing is queued: closing the socket would reset those who have connected and sent already.
            _ = stop.wait_for(|stop| *stop != Stop::Serve) => return,
        };
        let stream = match accepted {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let state = GateState::new();
        if *stop.borrow() != Stop::Serve {
            state.order(Order::Drain);
        }
        worker.connections.borrow_mut().push(Rc::downgrade(&state));
        let worker = Rc::clone(&worker);
        tokio::task::spawn_local(async move {
            let _counted = worker.shared.metrics.connection(Peer::App);
            serve(worker, listener, stream, state).await;
            drop(permit);
        });
    }
}

/// Compares every connection with its deadlines: one timer a worker instead of one a connection.
async fn sweep(worker: Rc<Worker>) {
    let mut ticks = 0_u32;
    loop {
        tokio::time::sleep(SWEEP).await;
        let snapshot = worker.snapshot();
        let timeouts = &snapshot.timeouts;
        let now = Instant::now();
        let mut slice = now;
        let (clients, upstreams) = (open(&worker.connections), open(&worker.upstreams));
        let mut judged = Judged::default();
        // The deadlines of those towards upstreams are the exchanges' and the pool's.
        let towards = upstreams.iter().map(|state| (state, false));
        for (state, by_stage) in clients.iter().map(|state| (state, true)).chain(towards) {
            match by_stage {
                true => state.check(now, timeouts, &mut judged),
                false => state.judge(now, Duration::MAX, &mut judged),
            }
            if slice.elapsed() >= SLICE {
                tokio::task::yield_now().await;
                slice = Instant::now();
            }
        }
        ticks = ticks.wrapping_add(1);
        if ticks.is_multiple_of(4) {
            worker.pool.sweep();
        }
    }
}

/// The connections that are there; what is gone is forgotten.
fn open(connections: &RefCell<Vec<Weak<GateState>>>) -> Vec<Rc<GateState>> {
    let mut connections = connections.borrow_mut();
    connections.retain(|connection| connection.strong_count() > 0);
    connections.iter().filter_map(Weak::upgrade).collect()
}

/// Waits for the order to stop, drains, cuts what is left.
async fn drain(worker: &Rc<Worker>, accepting: Vec<tokio::task::JoinHandle<()>>) -> usize {
    let mut stop = worker.shared.stop.clone();
    let deadline = loop {
        match *stop.borrow_and_update() {
            Stop::Serve => {}
            Stop::DrainUntil(deadline) => break Some(deadline),
            Stop::Now => break None,
        }
        if stop.changed().await.is_err() {
            break None;
        }
    };
    if let Some(deadline) = deadline {
        order_all(worker, Order::Drain);
        for mut task in accepting {
            // It ends by itself unless it waits for a permit: then what is queued must not hold the drain up.
            if tokio::time::timeout(QUEUED, &mut task).await.is_err() {
                task.abort();
            }
        }
        let until = tokio::time::sleep_until(deadline.into());
        tokio::select! {
            () = until => {}
            () = all_closed(worker) => {}
            _ = stop.wait_for(|stop| *stop == Stop::Now) => {}
        }
    }
    let cut = order_all(worker, Order::Cut);
    // Their tasks run once more to see it, so that sockets close in order.
    let _ = tokio::time::timeout(SWEEP, all_closed(worker)).await;
    cut
}

fn order_all(worker: &Worker, order: Order) -> usize {
    let mut busy = 0;
    for state in worker.connections.borrow().iter().filter_map(Weak::upgrade) {
        busy += usize::from(state.in_work() > 0);
        state.order(order);
    }
    busy
}

async fn all_closed(worker: &Worker) {
    while worker.connections.borrow().iter().any(|connection| connection.strong_count() > 0) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
