//! When requests of an open loop are due.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::sync::Semaphore;

/// More than ever wait for the next request.
const WAITING: usize = 1 << 12;

/// What is due when, and who may start the next request.
pub(crate) struct Clock {
    start: Instant,
    interval: Duration,
    requests: u32,
    /// One permit a request that is due.
    due: Semaphore,
    next: AtomicU32,
}

/// The thread that releases requests.
pub(crate) struct Ticks(JoinHandle<Result<()>>);

impl Clock {
    /// Requests are due from now on, `rate` a second for `time`.
    pub(crate) fn start(rate: u32, time: Duration) -> Result<(Arc<Self>, Ticks)> {
        let clock = Arc::new(Self {
            start: Instant::now(),
            interval: Duration::from_secs(1) / rate,
            requests: (time.as_secs_f64() * f64::from(rate)) as u32,
            due: Semaphore::new(0),
            next: AtomicU32::new(0),
        });
        let ticking = Arc::clone(&clock);
        Ok((clock, Ticks(std::thread::Builder::new().spawn(move || ticking.tick())?)))
    }

    /// How many there are in all.
    pub(crate) fn requests(&self) -> u32 {
        self.requests
    }

    /// Waits until the next request is due and tells since when it is; none once all were started.
    pub(crate) async fn next(&self) -> Option<Instant> {
        self.due.acquire().await.ok()?.forget();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        (number < self.requests).then(|| self.start + self.interval * number)
    }

    /// Releases what is due. A thread of its own with a timerfd, because tokio's timers count milliseconds.
    fn tick(&self) -> Result<()> {
        let interval = Timespec::try_from(self.interval)?;
        let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)?;
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &Itimerspec { it_interval: interval, it_value: interval })?;
        let mut released = 0;
        while released < self.requests {
            rustix::io::read(&timer, &mut [0; 8])?;
            let due = self.start.elapsed().as_nanos() / self.interval.as_nanos().max(1);
            let due = u32::try_from(due)?.saturating_add(1).min(self.requests);
            self.due.add_permits((due - released) as usize);
            released = due;
        }
        // Whoever waits now waits for nothing: each finds that all was started.
        self.due.add_permits(WAITING);
        Ok(())
    }
}

impl Ticks {
    /// Waits until all were released.
    pub(crate) fn join(self) -> Result<()> {
        self.0.join().map_err(|_| anyhow::anyhow!("the clock panicked"))?
    }
}
