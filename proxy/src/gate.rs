//! The gate: a byte filter between a socket and hyper, on the app's side and on the upstream's.
//!
//! For now it is transparent: it passes every byte, tells HTTP/1.1 from HTTP/2 by the first ones, and keeps the
//! times that the connection's deadlines stand on. Its rules (what hyper repairs or hides) come later; read and write
//! side share their state already, because a refusal is decided while reading and written while writing.

use std::cell::{Cell, OnceCell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use oilskin_config::Timeouts;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use crate::tls::{Judged, Secured, Verdict};

/// What a connection speaks, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    H1,
    H2,
}

/// RFC 9113 3.4.
const H2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a connection is doing, for its deadlines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Between requests, since then.
    Idle(Instant),
    /// A head has begun, then.
    Head(Instant),
    /// Requests are in work.
    Busy,
}

/// What the worker wants of a connection; only ever raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Order {
    None,
    /// Finish what is in work, take nothing new.
    Drain,
    /// The head took too long.
    HeadTimeout,
    /// Close now: not a byte passes any more.
    Cut,
}

/// State that both directions of one connection, its requests and its worker share.
pub(crate) struct GateState {
    stage: Cell<Stage>,
    in_work: Cell<u32>,
    /// HTTP/2: frames come between requests, so bytes do not mean that a head has begun.
    framed: Cell<bool>,
    order: Cell<Order>,
    waker: RefCell<Option<Waker>>,
    /// Over TLS: who came.
    secured: OnceCell<Secured>,
}

impl GateState {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self {
            stage: Cell::new(Stage::Idle(Instant::now())),
            in_work: Cell::new(0),
            framed: Cell::new(false),
            order: Cell::new(Order::None),
            waker: RefCell::new(None),
            secured: OnceCell::new(),
        })
    }

    fn read_some(&self) {
        if !self.framed.get() && matches!(self.stage.get(), Stage::Idle(_)) {
            self.stage.set(Stage::Head(Instant::now()));
        }
    }

    /// A request has come in whole head; the guard ends with its response.
    pub(crate) fn request(self: &Rc<Self>) -> InWork {
        self.in_work.set(self.in_work.get() + 1);
        self.stage.set(Stage::Busy);
        InWork(Rc::clone(self))
    }

    /// The connection speaks HTTP/2.
    pub(crate) fn framed(&self) {
        self.framed.set(true);
        if self.in_work.get() == 0 {
            self.stage.set(Stage::Idle(Instant::now()));
        }
    }

    /// Not a byte passes after a cut. An error, since the other end of a body must not take what was cut for its end.
    fn passes(&self) -> io::Result<()> {
        match self.order.get() {
            Order::Cut => Err(io::ErrorKind::ConnectionAborted.into()),
            _ => Ok(()),
        }
    }

    pub(crate) fn ordered(&self) -> Order {
        self.order.get()
    }

    pub(crate) fn in_work(&self) -> u32 {
        self.in_work.get()
    }

    /// Raises an order and wakes the connection's task.
    pub(crate) fn order(&self, order: Order) {
        if order > self.order.get() {
            self.order.set(order);
            if let Some(waker) = self.waker.borrow_mut().take() {
                waker.wake();
            }
        }
    }

    /// The order in force; the task is woken when it rises.
    pub(crate) fn poll_order(&self, cx: &Context<'_>) -> Order {
        let mut waker = self.waker.borrow_mut();
        match waker.as_mut() {
            Some(held) => held.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
        self.order.get()
    }

    /// TLS was agreed on.
    pub(crate) fn secure(&self, secured: Secured) {
        // A connection shakes hands once.
        let _ = self.secured.set(secured);
    }

    /// Who came over TLS.
    pub(crate) fn secured(&self) -> Option<&Secured> {
        self.secured.get()
    }

    /// Compares the other side with who it may be.
    pub(crate) fn judge<'c>(&'c self, now: Instant, identity_age: Duration, judged: &mut Judged<'c>) {
        let Some(secured) = self.secured.get() else { return };
        match secured.judge(now, identity_age, judged) {
            Verdict::Stays => {}
            Verdict::Ages => self.order(Order::Drain),
            Verdict::Out => {
                if self.order.get() < Order::Cut {
                    let side = secured.side();
                    tracing::info!(target: "oilskin::tls", side, "a connection is cut: its peer's certificate has ended or is not taken any more");
                }
                self.order(Order::Cut);
            }
        }
    }

    /// Compares the stage with its deadlines, and who came with who may.
    pub(crate) fn check<'c>(&'c self, now: Instant, timeouts: &Timeouts, judged: &mut Judged<'c>) {
        let Timeouts { head, idle, identity_age, .. } = *timeouts;
        self.judge(now, identity_age, judged);
        match self.stage.get() {
            Stage::Idle(since) if now.duration_since(since) > idle => self.order(Order::Drain),
            Stage::Head(since) if now.duration_since(since) > head => {
                self.order(Order::HeadTimeout);
            }
            _ => {}
        }
    }
}

/// A request in work on a connection.
pub(crate) struct InWork(Rc<GateState>);

impl Drop for InWork {
    fn drop(&mut self) {
        let left = self.0.in_work.get().saturating_sub(1);
        self.0.in_work.set(left);
        if left == 0 {
            self.0.stage.set(Stage::Idle(Instant::now()));
        }
    }
}

/// The filter around one socket.
pub(crate) struct Gate<IO> {
    io: IO,
    /// Bytes read to tell the protocol, handed on first.
    first: Vec<u8>,
    state: Rc<GateState>,
}

impl<IO: AsyncRead + AsyncWrite + Unpin> Gate<IO> {
    pub(crate) fn new(io: IO, state: Rc<GateState>) -> Self {
        Self { io, first: Vec::new(), state }
    }

    /// Reads until the first bytes tell HTTP/2's preface from anything else.
    ///
    /// # Errors
    /// What the socket says; `UnexpectedEof` when it closes before that.
    pub(crate) async fn protocol(&mut self) -> io::Result<Protocol> {
        loop {
            let seen = self.first.len().min(H2_PREFACE.len());
            if !H2_PREFACE.starts_with(self.first.get(..seen).unwrap_or_default()) {
                return Ok(Protocol::H1);
            }
            if seen == H2_PREFACE.len() {
                return Ok(Protocol::H2);
            }
            if self.io.read_buf(&mut self.first).await? == 0 {
                return match self.first.is_empty() {
                    true => Err(io::ErrorKind::UnexpectedEof.into()),
                    false => Ok(Protocol::H1),
                };
            }
            self.state.read_some();
        }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Gate<IO> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.state.passes()?;
        if !self.first.is_empty() {
            let take = self.first.len().min(buf.remaining());
            buf.put_slice(self.first.get(..take).unwrap_or_default());
            self.first.drain(..take);
            if self.first.is_empty() {
                self.first = Vec::new();
            }
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.state.read_some();
        }
        polled
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Gate<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.state.passes()?;
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.state.passes()?;
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
