//! Bodies we hand to hyper, on both sides.

mod progress;

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

pub(crate) use progress::{Progress, Stall};

use crate::error::{Code, Failure};
use crate::exchange::{Exchange, Sending};
use crate::forward::cut_body;
use crate::headers;
use crate::outcome::Tail;
use crate::rewrite::Rewriting;

/// Any body we send.
pub(crate) enum Body {
    Empty,
    /// Held whole.
    Whole(Whole),
    /// Passed as it comes.
    Passing(Passing),
    /// Rewritten as it comes.
    Rewriting(Box<Rewriting>),
}

/// A body held whole.
pub(crate) struct Whole {
    pub(crate) bytes: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
    pub(crate) tail: Option<Box<Tail>>,
}

impl Body {
    pub(crate) fn whole(bytes: Bytes, trailers: Option<HeaderMap>) -> Self {
        Self::Whole(Whole { bytes, trailers, tail: None })
    }

    /// The same body once more, where it is held.
    pub(crate) fn copy(&self) -> Option<Self> {
        match self {
            Self::Empty => Some(Self::Empty),
            Self::Whole(whole) => Some(Self::whole(whole.bytes.clone(), whole.trailers.clone())),
            _ => None,
        }
    }
}

impl Whole {
    fn next(&mut self) -> Option<Frame<Bytes>> {
        if let Some(tail) = self.tail.take() {
            tail.complete();
        }
        if !self.bytes.is_empty() {
            return Some(Frame::data(std::mem::take(&mut self.bytes)));
        }
        self.trailers.take().map(Frame::trailers)
    }
}

/// A message is cut: the peer must see that it is not whole.
///
/// hyper resets an HTTP/2 stream with the reason it finds in the source chain, INTERNAL_ERROR where there is none;
/// on HTTP/1.1 it closes without the last chunk.
#[derive(Debug, thiserror::Error)]
#[error("message aborted")]
pub(crate) struct Aborted(#[source] h2::Error);

impl Aborted {
    pub(crate) fn new() -> Self {
        Self(h2::Error::from(h2::Reason::CANCEL))
    }
}

/// A body that is not rewritten.
pub(crate) struct Passing {
    source: Incoming,
    progress: Progress,
    sending: Option<Sending>,
    tail: Option<Box<Tail>>,
    left: Option<u64>,
}

impl Passing {
    /// A request body on its way to the upstream, at most `max` bytes.
    pub(crate) fn request(source: Incoming, progress: Progress, max: Option<u64>, exchange: Rc<Exchange>) -> Self {
        Self { source, progress, sending: Some(Sending::new(exchange)), tail: None, left: max }
    }

    /// A response body on its way to the app, at most `max` bytes.
    pub(crate) fn response(source: Incoming, progress: Progress, max: Option<u64>, tail: Box<Tail>) -> Self {
        Self { source, progress, sending: None, tail: Some(tail), left: max }
    }

    fn fail(&mut self, failure: Failure) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        match (&mut self.sending, &mut self.tail) {
            (Some(sending), _) => sending.fail(failure),
            (None, Some(tail)) => tail.abort(failure),
            (None, None) => {}
        }
        Poll::Ready(Some(Err(Aborted::new())))
    }

    fn count(&mut self, bytes: usize) -> bool {
        self.progress.moved(bytes);
        if let Some(sending) = &self.sending {
            sending.count(bytes);
        }
        if let Some(tail) = &mut self.tail {
            tail.count(bytes);
        }
        match &mut self.left {
            None => true,
            Some(left) => {
                let enough = u64::try_from(bytes).is_ok_and(|bytes| bytes <= *left);
                *left = left.saturating_sub(u64::try_from(bytes).unwrap_or(u64::MAX));
                enough
            }
        }
    }

    fn end(&mut self) {
        if let Some(sending) = &mut self.sending {
            sending.complete();
        }
        if let Some(tail) = self.tail.take() {
            tail.complete();
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        let frame = match Pin::new(&mut self.source).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                let stall = ready!(self.progress.poll_stalled(cx));
                // A request that stops coming is the app's fault, an answer the upstream's.
                let code = if self.sending.is_some() { Code::BodyTimeout } else { Code::UpstreamTimeout };
                return self.fail(Failure::new(code, stall.reason()));
            }
        };
        match frame {
            None => {
                self.end();
                Poll::Ready(None)
            }
            Some(Err(_)) if self.sending.is_some() => self.fail(Failure::new(Code::Truncated, "client_left")),
            Some(Err(error)) => self.fail(cut_body(&error)),
            Some(Ok(mut frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    headers::clean_trailers(trailers, false);
                }
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                if !self.count(bytes) {
                    return self.fail(Failure::new(Code::TooLarge, "max_body"));
                }
                if self.progress.too_slow() {
                    return self.fail(Failure::new(Code::BodyTimeout, Stall::Slow.reason()));
                }
                if self.source.is_end_stream() {
                    self.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
        }
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        if self.source.is_end_stream() {
            self.end();
        }
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Aborted>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Whole(whole) => Poll::Ready(whole.next().map(Ok)),
            Self::Passing(passing) => passing.poll(cx),
            Self::Rewriting(rewriting) => rewriting.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Whole(whole) => whole.bytes.is_empty() && whole.trailers.is_none(),
            Self::Passing(passing) => passing.source.is_end_stream(),
            Self::Rewriting(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            // With trailers the length is left open, so that the body is sent in chunks and they can follow.
            Self::Whole(whole) if whole.trailers.is_some() => SizeHint::default(),
            Self::Whole(whole) => SizeHint::with_exact(whole.bytes.len() as u64),
            Self::Passing(passing) => passing.source.size_hint(),
            Self::Rewriting(_) => SizeHint::default(),
        }
    }
}
