//! What becomes of an exchange, recorded once when its last piece goes, even when it is cut.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;

use crate::body::Body;
use crate::error::{Failure, Side};
use crate::exchange::Exchange;
use crate::gate::InWork;
use crate::handler::Peer;
use crate::pool::Lent;
use crate::snapshot::{Route, Snapshot};
use crate::telemetry::{End, RequestId, RequestLine, RouteMetrics, X_REQUEST_ID};

/// One exchange, from its request head on.
pub(crate) struct Record {
    snapshot: Arc<Snapshot>,
    listener: usize,
    route: Option<Arc<Route>>,
    method: Method,
    id: RequestId,
    started: Instant,
    end: End,
    /// Zero until there is an answer.
    status: u16,
    failure: Option<Failure>,
    request: Option<Rc<Exchange>>,
    bytes_out: u64,
    complete: bool,
}

impl Record {
    pub(crate) fn new(peer: &Rc<Peer>, snapshot: &Arc<Snapshot>, request: &mut Request<Incoming>) -> Self {
        let id = peer.worker.ids.of(request.headers());
        request.headers_mut().insert(&X_REQUEST_ID, id.header());
        Self {
            snapshot: Arc::clone(snapshot),
            listener: peer.listener,
            route: None,
            method: request.method().clone(),
            id,
            started: Instant::now(),
            end: End::Aborted,
            status: 0,
            failure: None,
            request: None,
            bytes_out: 0,
            complete: false,
        }
    }

    pub(crate) fn routed(&mut self, route: &Arc<Route>) {
        self.route = Some(Arc::clone(route));
    }

    /// The bytes of the request's body are counted there, those of a refused one, too.
    pub(crate) fn asks(&mut self, request: &Rc<Exchange>) {
        self.request = Some(Rc::clone(request));
    }

    /// The upstream's answer goes to the app.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        self.status = status.as_u16();
        self.end = End::Answered(status);
    }

    /// The app gets a problem document.
    pub(crate) fn refuse(mut self, side: Side, failure: Failure) -> Response<Body> {
        let problem = failure.problem(side, self.id.clone()).response();
        self.status = problem.status().as_u16();
        self.bytes_out = problem.body().len() as u64;
        self.end = End::Refused(failure.code);
        self.failure = Some(failure);
        self.complete = true;
        problem.map(|body| Body::whole(body, None))
    }

    fn metrics(&self) -> Option<&Arc<RouteMetrics>> {
        match &self.route {
            Some(route) => Some(&route.metrics),
            None => self.snapshot.unrouted.get(self.listener),
        }
    }

    fn log(&self, end: End) {
        let route = self.route.as_ref();
        if !RequestLine::wanted(end, route.is_some_and(|route| route.access_log)) {
            return;
        }
        let failure = self.failure.as_ref();
        RequestLine {
            listener: self.snapshot.listener_names.get(self.listener).map(|name| &**name).unwrap_or_default(),
            method: self.method.as_str(),
            route: route.map_or("-", |route| &*route.name),
            status: self.status,
            end,
            reason: failure.map(|failure| failure.reason),
            rule: failure.and_then(|failure| failure.rule.as_deref()),
            upstream: route.map(|route| &*route.upstream.name),
            bytes_in: self.request.as_ref().map_or(0, |request| request.bytes()),
            bytes_out: self.bytes_out,
            elapsed: self.started.elapsed(),
            request_id: &self.id,
        }
        .emit();
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let end = if self.complete { self.end } else { End::Aborted };
        if let Some(metrics) = self.metrics() {
            metrics.ended(end, self.started.elapsed());
        }
        self.log(end);
    }
}

/// What goes along with a response body and ends with it.
pub(crate) struct Tail {
    record: Record,
    lent: Option<Lent>,
    _work: InWork,
}

impl Tail {
    pub(crate) fn new(record: Record, work: InWork) -> Box<Self> {
        Box::new(Self { record, lent: None, _work: work })
    }

    pub(crate) fn lend(&mut self, lent: Option<Lent>) {
        self.lent = lent;
    }

    pub(crate) fn count(&mut self, bytes: usize) {
        self.record.bytes_out += bytes as u64;
    }

    /// The response is cut.
    pub(crate) fn abort(&mut self, failure: Failure) {
        self.record.failure.get_or_insert(failure);
    }

    /// The response was handed on whole: the connection it came over is free.
    pub(crate) fn complete(mut self: Box<Self>) {
        self.record.complete = true;
        if let Some(lent) = self.lent.take() {
            lent.give_back();
        }
    }
}
