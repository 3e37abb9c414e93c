//! One connection from an app: tells its protocol, serves it, obeys the worker's orders.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::AsyncWriteExt;

use crate::dial::{Local, MAX_BUFFER, STREAM_WINDOW};
use crate::error::Code;
use crate::gate::{Gate, GateState, Order, Protocol};
use crate::handler::{Peer, handle};
use crate::stream::Stream;
use crate::telemetry::{self, Handshake};
use crate::tls;
use crate::worker::Worker;

/// Serves `stream` until either side is done with it.
pub(crate) async fn serve(worker: Rc<Worker>, listener: usize, stream: Stream, state: Rc<GateState>) {
    let Some(stream) = secure(&worker, listener, stream, &state).await else { return };
    let mut gate = Gate::new(stream, Rc::clone(&state));
    let told = {
        let mut protocol = pin!(gate.protocol());
        // Bytes before orders: a request that has arrived is answered even when the drain began meanwhile.
        poll_fn(|cx| match protocol.as_mut().poll(cx) {
            Poll::Ready(told) => Poll::Ready(told.ok()),
            Poll::Pending if state.poll_order(cx) == Order::None => Poll::Pending,
            Poll::Pending => Poll::Ready(None),
        })
        .await
    };
    let peer = Rc::new(Peer { worker, listener, state });
    match told {
        Some(Protocol::H1) => h1(peer, gate).await,
        Some(Protocol::H2) => h2(peer, gate).await,
        None if peer.state.ordered() == Order::HeadTimeout => refuse_slow_head(&peer, gate).await,
        None => {}
    }
}

/// Shakes hands where the listener speaks TLS; none where that failed, or an order came first.
async fn secure(worker: &Worker, listener: usize, stream: Stream, state: &GateState) -> Option<Stream> {
    let (server, tcp) = match (worker.shared.tls.get(listener)?, stream) {
        (Some(server), Stream::Tcp(tcp)) => (server, tcp),
        (_, stream) => return Some(stream),
    };
    let deadline = worker.snapshot().timeouts.handshake;
    let shaking = async {
        let waiting = tokio::time::timeout(deadline, worker.handshakes.acquire()).await;
        let Ok(Ok(_permit)) = waiting else {
            return Err(Handshake { outcome: "too_many", ..Handshake::default() });
        };
        tls::accept(server, tcp, deadline).await
    };
    let mut shaking = pin!(shaking);
    let shaken = poll_fn(|cx| match shaking.as_mut().poll(cx) {
        Poll::Ready(shaken) => Poll::Ready(Some(shaken)),
        Poll::Pending if state.poll_order(cx) == Order::None => Poll::Pending,
        Poll::Pending => Poll::Ready(None),
    })
    .await?;
    let (done, secured) = match shaken {
        Ok((stream, secured, done)) => (done, Some((stream, secured))),
        Err(failed) => (failed, None),
    };
    worker.shared.metrics.handshake(telemetry::Peer::App, &done);
    let Some((stream, secured)) = secured else {
        let snapshot = worker.snapshot();
        let named = snapshot.listener_names.get(listener).map(AsRef::as_ref).unwrap_or_default();
        tracing::info!(target: "oilskin::tls", listener = named, reason = done.outcome, "a client's handshake failed");
        return None;
    };
    state.secure(secured);
    Some(Stream::Secured(stream))
}

async fn h1(peer: Rc<Peer>, gate: Gate<Stream>) {
    let limits = &peer.worker.snapshot().limits.clone();
    let state = Rc::clone(&peer.state);
    let keeper = Rc::clone(&peer);
    let service = service_fn(move |request| {
        let peer = Rc::clone(&peer);
        async move { Ok::<_, Infallible>(handle(peer, request).await) }
    });
    let connection = http1::Builder::new()
        .half_close(true)
        .max_headers(limits.head_fields)
        .max_header_size(limits.head)
        .max_buf_size(MAX_BUFFER)
        .serve_connection(TokioIo::new(gate), service);
    let mut connection = Box::pin(connection);
    let mut draining = false;
    let mut refused = None;
    let order = poll_fn(|cx| {
        loop {
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                refused = ended.err().as_ref().and_then(refusal);
                return Poll::Ready(Order::None);
            }
            match state.poll_order(cx) {
                Order::Drain if !std::mem::replace(&mut draining, true) => connection.as_mut().graceful_shutdown(),
                Order::None | Order::Drain => return Poll::Pending,
                order => return Poll::Ready(order),
            }
        }
    })
    .await;
    if let Some(code) = refused {
        note_refusal(&keeper, code);
    }
    if order == Order::HeadTimeout {
        let parts = std::pin::Pin::into_inner(connection).into_parts();
        refuse_slow_head(&keeper, parts.io.into_inner()).await;
    }
}

/// What hyper itself refused, with a bare answer where none was under way: no request came of it, so no record tells.
fn refusal(error: &hyper::Error) -> Option<Code> {
    if error.is_parse_too_large() {
        return Some(Code::HeadTooLarge);
    }
    error.is_parse().then_some(Code::BadRequest)
}

/// Nothing of what was sent is told.
fn note_refusal(peer: &Peer, code: Code) {
    peer.worker.shared.metrics.gate_refused(telemetry::Peer::App, code.as_str());
    let snapshot = peer.worker.snapshot();
    let listener = snapshot.listener_names.get(peer.listener).map(|name| &**name);
    tracing::info!(target: "oilskin::gate", listener, code = code.as_str(), "what came is no request");
}

/// A bare answer: there is no request to answer to. Only sent between messages, so it cannot be taken for part of one.
async fn refuse_slow_head(peer: &Peer, mut gate: Gate<Stream>) {
    note_refusal(peer, Code::HeadTimeout);
    let bare = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    // The peer may be gone: then there is no one to tell.
    let _ = gate.write_all(bare).await;
    let _ = gate.shutdown().await;
}

async fn h2(peer: Rc<Peer>, gate: Gate<Stream>) {
    let limits = &peer.worker.snapshot().limits.clone();
    let state = Rc::clone(&peer.state);
    state.framed();
    let service = service_fn(move |request| {
        let peer = Rc::clone(&peer);
        async move { Ok::<_, Infallible>(handle(peer, request).await) }
    });
    let connection = http2::Builder::new(Local)
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(u32::try_from(limits.head).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(STREAM_WINDOW * 4)
        .serve_connection(TokioIo::new(gate), service);
    let mut connection = pin!(connection);
    let mut draining = false;
    poll_fn(|cx| {
        if connection.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        match state.poll_order(cx) {
            Order::None => Poll::Pending,
            Order::Cut => Poll::Ready(()),
            Order::Drain | Order::HeadTimeout => {
                if !std::mem::replace(&mut draining, true) {
                    connection.as_mut().graceful_shutdown();
                    if connection.as_mut().poll(cx).is_ready() {
                        return Poll::Ready(());
                    }
                }
                Poll::Pending
            }
        }
    })
    .await;
}
