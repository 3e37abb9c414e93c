//! A body on its way through the rewriter: held first, streamed when it grows.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame};
use hyper::body::Incoming;
use oilskin_config::Limits;

use crate::body::{Aborted, Progress, Stall};
use crate::engine::Engine;
use crate::error::{Code, Failure};
use crate::exchange::{Exchange, Sending};
use crate::fields::{PathValues, Rewriter};
use crate::forward::cut_body;
use crate::headers;
use crate::media::Reading;
use crate::outcome::Tail;
use crate::pool::Lent;

/// How long a refused body is still read, and how much of it.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 16 << 20;

/// How a body came out of its hold.
pub(crate) enum Held {
    /// It ended: nothing of it can fail any more.
    Whole(Bytes, Option<HeaderMap>),
    /// It goes on, and a later failure aborts it.
    Longer(Box<Rewriting>),
    /// It has no content type and does not begin like JSON: it passes as it is.
    Unread(Box<Rewriting>),
}

/// What is done with the bytes.
enum Machine {
    /// No content type: the first byte decides.
    Undecided(Rewriter, Engine),
    Rewrite(Rewriter, Engine),
    Copy,
}

/// One body, from its source to our output.
pub(crate) struct Rewriting {
    source: Incoming,
    progress: Progress,
    left: Option<u64>,
    machine: Machine,
    out: Vec<u8>,
    ended: bool,
    /// Fields wait for a keyset to be read again; what came after them waits, too.
    waiting: Option<Pin<Box<dyn Future<Output = ()>>>>,
    /// What was read and not taken yet, because fields wait.
    rest: Vec<u8>,
    /// The body has ended, and only fields that wait are missing.
    closing: bool,
    /// Its head has left: what is whole is to follow soon.
    streams: bool,
    trailers: Option<HeaderMap>,
    hold: usize,
    /// Of a request: who waits for its end.
    sending: Option<Sending>,
    /// Of a response: the connection it comes over, and the record of the exchange.
    lent: Option<Lent>,
    tail: Option<Box<Tail>>,
}

/// Where a body comes from and what watches it.
pub(crate) struct Source {
    pub(crate) body: Incoming,
    pub(crate) progress: Progress,
    pub(crate) max: Option<u64>,
}

impl Rewriting {
    pub(crate) fn new(
        source: Source,
        engine: Engine,
        path: PathValues,
        reading: Reading,
        limits: &Limits,
    ) -> Box<Self> {
        let bounds = crate::fields::Limits::of(limits);
        let rewriter = Rewriter::new(Arc::clone(engine.program()), bounds, path);
        let machine = match reading {
            Reading::Sniff => Machine::Undecided(rewriter, engine),
            _ => Machine::Rewrite(rewriter, engine),
        };
        Box::new(Self {
            source: source.body,
            progress: source.progress,
            left: source.max,
            machine,
            out: Vec::new(),
            ended: false,
            waiting: None,
            rest: Vec::new(),
            closing: false,
            streams: false,
            trailers: None,
            hold: limits.hold,
            sending: None,
            lent: None,
            tail: None,
        })
    }

    /// It is a request's.
    pub(crate) fn asks(&mut self, exchange: Rc<Exchange>) {
        self.sending = Some(Sending::new(exchange));
    }

    /// It is a response's and comes over `lent`.
    pub(crate) fn comes_over(&mut self, lent: Option<Lent>) {
        self.lent = lent;
    }

    /// It is sent as the answer that `tail` records.
    pub(crate) fn answers(&mut self, tail: Box<Tail>) {
        self.tail = Some(tail);
    }

    /// Reads until the body ends or the hold is full.
    ///
    /// # Errors
    /// Anything wrong so far: nothing was sent yet, so it can still be told.
    pub(crate) async fn hold(mut self: Box<Self>) -> Result<Held, Failure> {
        let hold = self.hold;
        if let Err(failure) = poll_fn(|cx| self.poll_fill(cx, hold)).await {
            if self.sending.is_some() {
                linger(self.source);
            }
            return Err(failure);
        }
        if self.ended && !matches!(self.machine, Machine::Copy) {
            if let Some(mut sending) = self.sending.take() {
                sending.complete();
            }
            let trailers = self.trailers.take();
            return Ok(Held::Whole(std::mem::take(&mut self.out).into(), trailers));
        }
        self.streams = true;
        Ok(match self.machine {
            Machine::Copy => Held::Unread(self),
            _ => Held::Longer(self),
        })
    }

    /// Fills `out` to `want` bytes, or to the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>, want: usize) -> Poll<Result<(), Failure>> {
        while !self.ended && self.out.len() < want {
            if let Some(waiting) = &mut self.waiting {
                ready!(waiting.as_mut().poll(cx));
                self.waiting = None;
                self.settle()?;
                continue;
            }
            match self.poll_answers(cx, want) {
                Poll::Ready(Ok(true)) => continue,
                Poll::Ready(other) => drop(other?),
                Poll::Pending => return Poll::Pending,
            }
            let frame = match Pin::new(&mut self.source).poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    if self.streams {
                        self.ask();
                    }
                    let stall = ready!(self.progress.poll_stalled(cx));
                    return Poll::Ready(Err(self.stalled(stall)));
                }
            };
            match frame {
                None => self.end()?,
                Some(Err(error)) => return Poll::Ready(Err(self.cut(&error))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => self.data(&data)?,
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
            }
        }
        Poll::Ready(Ok(()))
    }

    fn cut(&self, error: &hyper::Error) -> Failure {
        match self.sending {
            Some(_) => Failure::new(Code::Truncated, "client_left"),
            None => cut_body(error),
        }
    }

    /// A request that stops coming is the app's fault, an answer the upstream's.
    fn stalled(&self, stall: Stall) -> Failure {
        let code = if self.sending.is_some() { Code::BodyTimeout } else { Code::UpstreamTimeout };
        Failure::new(code, stall.reason())
    }

    fn data(&mut self, data: &[u8]) -> Result<(), Failure> {
        self.progress.moved(data.len());
        if let Some(sending) = &self.sending {
            sending.count(data.len());
        }
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(data.len() as u64).ok_or_else(|| Failure::new(Code::TooLarge, "max_body"))?;
        }
        if self.progress.too_slow() {
            return Err(self.stalled(Stall::Slow));
        }
        self.decide(data);
        self.push(data)
    }

    /// Pushes what was read, and keeps what is not taken yet because fields wait.
    fn push(&mut self, data: &[u8]) -> Result<(), Failure> {
        let Machine::Rewrite(rewriter, engine) = &mut self.machine else {
            self.out.extend_from_slice(data);
            return Ok(());
        };
        // Tokens are longer than what they replace; room for a few at once instead of by turns.
        self.out.reserve(data.len() + data.len() / 2 + 256);
        let taken = engine.push(rewriter, data, &mut self.out)?;
        self.waiting = engine.waiting().map(|waiting| Box::pin(waiting) as _);
        self.rest = data.get(taken..).unwrap_or_default().to_vec();
        Ok(())
    }

    /// Without a content type, a body that begins with `{` or `[` is read as JSON.
    fn decide(&mut self, data: &[u8]) {
        if !matches!(self.machine, Machine::Undecided(..)) {
            return;
        }
        let first = data.iter().find(|byte| !matches!(byte, b' ' | b'\t' | b'\r' | b'\n'));
        let Some(first) = first else { return };
        if let Machine::Undecided(rewriter, engine) = std::mem::replace(&mut self.machine, Machine::Copy)
            && matches!(first, b'{' | b'[')
        {
            self.machine = Machine::Rewrite(rewriter, engine);
        }
    }

    /// Fields have waited for their keyset: they are resolved, and what came after them is read.
    fn settle(&mut self) -> Result<(), Failure> {
        let Machine::Rewrite(rewriter, engine) = &mut self.machine else { return Ok(()) };
        engine.settle(rewriter, &mut self.out)?;
        self.push_rest()?;
        if self.closing { self.close() } else { Ok(()) }
    }

    fn push_rest(&mut self) -> Result<(), Failure> {
        let rest = std::mem::take(&mut self.rest);
        self.push(&rest)
    }

    /// Puts answers of Vault's into the message. Ready with whether there were any; pending where nothing else can be done before the
    /// next one.
    fn poll_answers(&mut self, cx: &mut Context<'_>, want: usize) -> Poll<Result<bool, Failure>> {
        let Machine::Rewrite(rewriter, engine) = &mut self.machine else { return Poll::Ready(Ok(false)) };
        if !engine.is_asking() {
            return Poll::Ready(Ok(false));
        }
        let stuck = self.closing || !self.rest.is_empty();
        // While a message is held anyway its fields are gathered, so that they go in one call.
        if stuck || engine.has_gathered_many() || self.out.len() + rewriter.held() >= want {
            engine.ask();
        }
        match engine.poll_answers(cx, rewriter, &mut self.out) {
            Poll::Ready(answered) => answered?,
            Poll::Pending if stuck => return Poll::Pending,
            Poll::Pending => return Poll::Ready(Ok(false)),
        }
        if !self.rest.is_empty() {
            self.push_rest()?;
        }
        if self.closing {
            self.close()?;
        }
        Poll::Ready(Ok(true))
    }

    fn ask(&mut self) {
        if let Machine::Rewrite(_, engine) = &mut self.machine {
            engine.ask();
        }
    }

    fn end(&mut self) -> Result<(), Failure> {
        if let Machine::Rewrite(rewriter, engine) = &mut self.machine {
            engine.finish(rewriter, &mut self.out)?;
            self.waiting = engine.waiting().map(|waiting| Box::pin(waiting) as _);
        }
        self.close()
    }

    /// The body has ended: so has this, unless fields wait.
    fn close(&mut self) -> Result<(), Failure> {
        let asking = matches!(&self.machine, Machine::Rewrite(_, engine) if engine.is_asking());
        self.closing = self.waiting.is_some() || asking;
        if self.closing { Ok(()) } else { self.over() }
    }

    fn over(&mut self) -> Result<(), Failure> {
        self.ended = true;
        if let Machine::Undecided(..) = self.machine {
            self.machine = Machine::Copy;
        }
        if let Some(trailers) = &mut self.trailers {
            headers::clean_trailers(trailers, !matches!(self.machine, Machine::Copy));
        }
        if let Some(lent) = self.lent.take() {
            lent.give_back();
        }
        Ok(())
    }

    /// The streamed rest.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        if let Err(failure) = ready!(self.poll_fill(cx, 1)) {
            self.fail(failure);
            return Poll::Ready(Some(Err(Aborted::new())));
        }
        if !self.out.is_empty() {
            let bytes = Bytes::from(std::mem::take(&mut self.out));
            if let Some(tail) = &mut self.tail {
                tail.count(bytes.len());
            }
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if let Some(mut sending) = self.sending.take() {
            sending.complete();
        }
        if let Some(tail) = self.tail.take() {
            tail.complete();
        }
        Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn fail(&mut self, failure: Failure) {
        self.ended = true;
        if let Some(mut sending) = self.sending.take() {
            sending.fail(failure);
        } else if let Some(mut tail) = self.tail.take() {
            tail.abort(failure);
        }
    }
}

/// A refused request body is read a little longer: closing at once would reset the connection, and the app might never
/// see why (RFC 9112 9.6).
pub(crate) fn linger(mut body: Incoming) {
    if body.is_end_stream() {
        return;
    }
    // Ends with the body, its bounds, or its connection, whichever is first.
    tokio::task::spawn_local(tokio::time::timeout(LINGER, async move {
        let mut left = LINGER_BYTES;
        while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                return;
            }
        }
    }));
}
