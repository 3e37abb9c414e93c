//! Sends one request upstream and waits for the response head.

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::time::{Instant, sleep_until};

use crate::body::Body;
use crate::dial::{Dialled, dial};
use crate::error::{Code, Failure};
use crate::exchange::Exchange;
use crate::pool::{Bounds, Lent, Slot};
use crate::snapshot::{Snapshot, Upstream};
use crate::tls;
use crate::worker::Worker;

/// A response whose body still comes over `lent`.
pub(crate) struct Answer {
    pub(crate) response: Response<Incoming>,
    pub(crate) lent: Option<Lent>,
}

/// One sender, whichever protocol.
enum Sender {
    H1(Lent),
    H2(hyper::client::conn::http2::SendRequest<Body>),
}

/// Sends, and once more on a fresh connection where the first attempt provably left nothing upstream: a failed connect,
/// a request that hyper hands back unsent, and a stream the peer says it did not process.
///
/// # Errors
/// The failure that the app is told; what failed in the request body itself goes first.
pub(crate) async fn forward(
    worker: &Worker,
    snapshot: &Snapshot,
    upstream: &Upstream,
    request: Request<Body>,
    exchange: &Exchange,
) -> Result<Answer, Failure> {
    let attempt = attempts(worker, snapshot, upstream, request);
    let mut attempt = pin!(attempt);
    let total = snapshot.timeouts.total;
    let mut seen = 0;
    let mut deadline = pin!(sleep_until(Instant::now() + total));
    let outcome = poll_fn(|cx| {
        if let Poll::Ready(outcome) = attempt.as_mut().poll(cx) {
            return Poll::Ready(Some(outcome));
        }
        while deadline.as_mut().poll(cx).is_ready() {
            // A long upload that moves is no late answer: the time counts from its last movement on.
            let bytes = exchange.bytes();
            if bytes == std::mem::replace(&mut seen, bytes) {
                return Poll::Ready(None);
            }
            deadline.as_mut().reset(Instant::now() + total);
        }
        Poll::Pending
    })
    .await;
    match outcome {
        Some(Ok(answer)) => Ok(answer),
        Some(Err(failure)) => Err(exchange.take_failure().unwrap_or(failure)),
        None => Err(Failure::new(Code::UpstreamTimeout, "total")),
    }
}

async fn attempts(
    worker: &Worker,
    snapshot: &Snapshot,
    upstream: &Upstream,
    request: Request<Body>,
) -> Result<Answer, Failure> {
    let timeouts = &snapshot.timeouts;
    let bounds = Bounds {
        connections: snapshot.limits.upstream_connections.get(),
        idle: timeouts.idle,
        age: timeouts.upstream_age,
        wait: timeouts.pool_wait,
    };
    let slot = worker.pool.slot(upstream, bounds);
    let mut request = request;
    let spare = if upstream.may_speak_h2() { spare(&request) } else { None };
    let sender = match ready(&slot).await? {
        Ok(sender) => sender,
        Err(permit) => made(worker, snapshot, upstream, &slot, permit, None).await?,
    };
    let first = std::time::Instant::now();
    let again = match send(sender, request, upstream).await {
        Ok(answer) => return Ok(answer),
        Err(Refused::Unsent(unsent)) => unsent,
        Err(Refused::Unprocessed) => match spare {
            Some(spare) => spare,
            None => return Err(Failure::new(Code::UpstreamClosed, "stream_refused")),
        },
        Err(Refused::Failed(failure)) => return Err(failure),
    };
    request = *again;
    let permit = slot.permit().await.ok_or_else(overloaded)?;
    let sender = made(worker, snapshot, upstream, &slot, permit, Some(first)).await?;
    match send(sender, request, upstream).await {
        Ok(answer) => Ok(answer),
        Err(Refused::Failed(failure)) => Err(failure),
        Err(_) => Err(Failure::new(Code::UpstreamClosed, "refused_twice")),
    }
}

fn overloaded() -> Failure {
    Failure::new(Code::Overloaded, "upstream_connections")
}

type Permit = tokio::sync::OwnedSemaphorePermit;

/// A connection held already, or the permit for a new one.
async fn ready(slot: &Rc<Slot>) -> Result<Result<Sender, Permit>, Failure> {
    if slot.speaks_h2.get()
        && let Some(sender) = slot.ready_h2(None)
    {
        return Ok(Ok(Sender::H2(sender)));
    }
    let permit = slot.permit().await.ok_or_else(overloaded)?;
    if slot.speaks_h2.get() {
        return Ok(Err(permit));
    }
    Ok(slot.idle_h1(permit).map(Sender::H1))
}

/// A new connection. Of many requests that need an HTTP/2 one at once, one makes it and the others, who wait, share it;
/// what was made before `since` has just failed us and is not shared.
async fn made(
    worker: &Worker,
    snapshot: &Snapshot,
    upstream: &Upstream,
    slot: &Rc<Slot>,
    permit: Permit,
    since: Option<std::time::Instant>,
) -> Result<Sender, Failure> {
    let turn = match slot.speaks_h2.get() {
        true => slot.connecting.acquire().await.ok(),
        false => None,
    };
    if turn.is_some()
        && let Some(sender) = slot.ready_h2(since)
    {
        return Ok(Sender::H2(sender));
    }
    let (names, metrics) = (&worker.shared.names, &worker.shared.metrics);
    let state = worker.towards_upstream();
    let dialled = dial(upstream, &state, names, metrics, &snapshot.limits, snapshot.timeouts.connect).await;
    match dialled {
        Ok(Dialled::H1(sender)) => Ok(Sender::H1(slot.adopt_h1(sender, permit))),
        Ok(Dialled::H2(sender)) => {
            slot.adopt_h2(&sender);
            Ok(Sender::H2(sender))
        }
        Err(error) => {
            tracing::debug!(upstream = %upstream.name, %error, "cannot connect");
            Err(Failure::new(Code::UpstreamUnreachable, connect_reason(&error)))
        }
    }
}

fn connect_reason(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::TimedOut => "connect_timeout",
        std::io::ErrorKind::ConnectionRefused => "connect_refused",
        std::io::ErrorKind::InvalidData => tls::reason(error),
        _ => "connect",
    }
}

/// The same request once more, where its body is held whole: the same ciphertext bytes.
fn spare(request: &Request<Body>) -> Option<Box<Request<Body>>> {
    let mut copy = Request::new(request.body().copy()?);
    copy.method_mut().clone_from(request.method());
    copy.uri_mut().clone_from(request.uri());
    copy.headers_mut().clone_from(request.headers());
    Some(Box::new(copy))
}

enum Refused {
    /// hyper hands the request back: nothing of it was written.
    Unsent(Box<Request<Body>>),
    /// REFUSED_STREAM, or GOAWAY below our stream.
    Unprocessed,
    Failed(Failure),
}

async fn send(sender: Sender, mut request: Request<Body>, upstream: &Upstream) -> Result<Answer, Refused> {
    match sender {
        Sender::H1(mut lent) => {
            upstream.address_h1(&mut request);
            match lent.sender().try_send_request(request).await {
                Ok(response) => Ok(Answer { response, lent: Some(lent) }),
                Err(mut error) => Err(refused(error.take_message(), error.error())),
            }
        }
        Sender::H2(mut sender) => {
            upstream.address_h2(&mut request);
            match sender.try_send_request(request).await {
                Ok(response) => Ok(Answer { response, lent: None }),
                Err(mut error) => Err(refused(error.take_message(), error.error())),
            }
        }
    }
}

fn refused(unsent: Option<Request<Body>>, error: &hyper::Error) -> Refused {
    if let Some(request) = unsent {
        return Refused::Unsent(Box::new(request));
    }
    let h2 = of_h2(error);
    if h2.is_some_and(unprocessed) {
        return Refused::Unprocessed;
    }
    Refused::Failed(if h2.is_some_and(breaks_rules) {
        Failure::new(Code::UpstreamInvalid, "http2")
    } else if error.is_parse() {
        Failure::new(Code::UpstreamInvalid, "response_head")
    } else if error.is_incomplete_message() {
        Failure::new(Code::UpstreamClosed, "closed_before_answer")
    } else {
        Failure::new(Code::UpstreamClosed, "connection")
    })
}

/// Why the body of an answer ends early.
pub(crate) fn cut_body(error: &hyper::Error) -> Failure {
    if of_h2(error).is_some_and(breaks_rules) {
        return Failure::new(Code::UpstreamInvalid, "http2");
    }
    Failure::new(Code::UpstreamClosed, "upstream_cut_body")
}

fn of_h2(error: &hyper::Error) -> Option<&h2::Error> {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(h2) = inner.downcast_ref() {
            return Some(h2);
        }
        source = inner.source();
    }
    None
}

/// The peer says that it did not process the stream (RFC 9113 8.7): it refused it, or its GOAWAY, with whatever code, left
/// it out. h2 gives a peer's GOAWAY to streams above its last one only; the others fail when the connection does.
fn unprocessed(error: &h2::Error) -> bool {
    error.is_remote() && (error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM))
}

/// h2 itself ended the stream or the connection, for what the peer sent.
fn breaks_rules(error: &h2::Error) -> bool {
    use h2::Reason;
    let breaches =
        [Reason::PROTOCOL_ERROR, Reason::FRAME_SIZE_ERROR, Reason::FLOW_CONTROL_ERROR, Reason::COMPRESSION_ERROR];
    error.is_library() && error.reason().is_some_and(|reason| breaches.contains(&reason))
}
