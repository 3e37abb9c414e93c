//! A process that runs: its threads, and how they are told to end.

use std::io;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use crate::keys::KeyError;
use crate::listen::SocketFile;
use crate::worker::Stop;

/// Ends a running process' threads.
#[derive(Debug, Clone)]
pub struct Stopper {
    stop: watch::Sender<Stop>,
    drain: Duration,
}

impl Stopper {
    /// Takes nothing new; what is in work may end within the drain time.
    pub fn drain(&self) {
        self.stop.send_replace(Stop::DrainUntil(Instant::now() + self.drain));
    }

    /// Cuts everything.
    pub fn stop(&self) {
        self.stop.send_replace(Stop::Now);
    }

    /// Whether it was told to end already.
    pub(crate) fn is_draining(&self) -> bool {
        *self.stop.borrow() != Stop::Serve
    }

    /// How long a drain may take, in milliseconds.
    pub(crate) fn drain_ms(&self) -> u64 {
        u64::try_from(self.drain.as_millis()).unwrap_or(u64::MAX)
    }
}

/// A running process' threads.
pub struct Running {
    pub(super) files: Vec<SocketFile>,
    pub(super) stop: watch::Sender<Stop>,
    pub(super) workers: Vec<JoinHandle<io::Result<usize>>>,
    /// Control and keys.
    pub(super) others: Vec<JoinHandle<io::Result<()>>>,
    pub(super) keys: oneshot::Receiver<Result<(), KeyError>>,
    pub(super) drain: Duration,
}

impl Running {
    /// Tells it to end while something else waits in [`Running::join`].
    pub fn stopper(&self) -> Stopper {
        Stopper { stop: self.stop.clone(), drain: self.drain }
    }

    /// What came of the first attempt at keys that are not on this machine; ends when there is nothing more to say. To be asked once.
    pub(crate) fn keys(&mut self) -> impl Future<Output = Result<(), KeyError>> + Send + 'static + use<> {
        let (_, none) = oneshot::channel();
        let keys = std::mem::replace(&mut self.keys, none);
        async { keys.await.unwrap_or(Ok(())) }
    }

    /// Waits for the workers, then ends the rest; returns how many connections were cut with a request in work.
    ///
    /// # Errors
    /// What ended a thread early.
    pub fn join(mut self) -> io::Result<usize> {
        let mut cut = 0;
        let mut outcome = Ok(());
        for worker in self.workers.drain(..) {
            match worker.join() {
                Ok(Ok(count)) => cut += count,
                Ok(Err(error)) => outcome = Err(error),
                Err(_) => outcome = Err(io::Error::other("a worker panicked")),
            }
        }
        // Sockets are gone: so are their files.
        self.files.clear();
        self.stop.send_replace(Stop::Now);
        for other in self.others.drain(..) {
            if let Ok(Err(error)) = other.join() {
                outcome = Err(error);
            }
        }
        outcome.map(|()| cut)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.send_replace(Stop::Now);
    }
}
