//! Does a body still move? One timer a body, and only once it has kept us waiting.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// The rate is judged only after this long.
const GRACE: Duration = Duration::from_secs(10);

/// How a body stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stall {
    /// Nothing came for the body idle time.
    Idle,
    /// Less came than `min_body_rate`.
    Slow,
}

impl Stall {
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Idle => "body_idle",
            Self::Slow => "min_body_rate",
        }
    }
}

/// Watches one body.
pub(crate) struct Progress {
    idle: Duration,
    /// Bytes per second; 0 is no minimum.
    rate: u64,
    bytes: u64,
    started: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    moved: bool,
}

impl Progress {
    pub(crate) fn new(idle: Duration, rate: u64) -> Self {
        Self { idle, rate, bytes: 0, started: None, timer: None, moved: false }
    }

    pub(crate) fn moved(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        self.moved = true;
    }

    /// Whether less came than must, judged when something did.
    pub(crate) fn too_slow(&self) -> bool {
        let Some(started) = self.started.filter(|_| self.rate > 0) else {
            return false;
        };
        let elapsed = started.elapsed();
        elapsed > GRACE && self.bytes < self.rate.saturating_mul(elapsed.as_secs())
    }

    /// Called whenever the source is pending; ready once it has been so for too long.
    pub(crate) fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<Stall> {
        let now = Instant::now();
        self.started.get_or_insert(now);
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(now + self.idle)));
        if std::mem::take(&mut self.moved) {
            timer.as_mut().reset(now + self.idle);
        }
        timer.as_mut().poll(cx).map(|()| Stall::Idle)
    }
}
