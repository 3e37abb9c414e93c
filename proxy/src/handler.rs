//! One exchange: route, request, upstream, response.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;

use http::header::HOST;
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::{Body as _, Incoming};

use crate::body::{Body, Passing, Progress, Whole};
use crate::engine::{Engine, Patience};
use crate::error::{Code, Failure, Side};
use crate::exchange::Exchange;
use crate::forward::{Answer, forward};
use crate::gate::GateState;
use crate::headers;
use crate::media::{self, Reading};
use crate::outcome::{Record, Tail};
use crate::query;
use crate::rewrite::{Held, Rewriting, Source, linger};
use crate::route::NoMatch;
use crate::rules::PhaseRules;
use crate::snapshot::{Route, Snapshot};
use crate::tls::Secured;
use crate::worker::Worker;

/// The app's end of a connection.
pub(crate) struct Peer {
    pub(crate) worker: Rc<Worker>,
    pub(crate) listener: usize,
    pub(crate) state: Rc<GateState>,
}

/// What the response must know of its request.
struct Asked {
    route: Arc<Route>,
    params: Vec<Vec<u8>>,
    tenant: Option<Arc<str>>,
    head: bool,
    http10: bool,
    exchange: Option<Rc<Exchange>>,
}

/// Answers one request; every failure has become a problem document.
pub(crate) async fn handle(peer: Rc<Peer>, mut request: Request<Incoming>) -> Response<Body> {
    let work = peer.state.request();
    let snapshot = peer.worker.snapshot();
    let mut record = Record::new(&peer, &snapshot, &mut request);
    match exchange(&peer, &snapshot, request, &mut record).await {
        Ok((head, body)) => {
            record.answered(head.status);
            let tail = Tail::new(record, work);
            body.answer(head, tail)
        }
        Err((side, failure)) => record.refuse(side, failure),
    }
}

type Refusal = (Side, Failure);

/// The body of an answer, before it is tied to its record.
enum Answering {
    Empty,
    Whole(bytes::Bytes, Option<http::HeaderMap>),
    Passing(Incoming, Progress, Option<u64>, Option<crate::pool::Lent>),
    Rewriting(Box<Rewriting>),
}

impl Answering {
    fn answer(self, head: http::response::Parts, mut tail: Box<Tail>) -> Response<Body> {
        let body = match self {
            Self::Empty => {
                tail.complete();
                Body::Empty
            }
            Self::Whole(bytes, trailers) => {
                tail.count(bytes.len());
                Body::Whole(Whole { bytes, trailers, tail: Some(tail) })
            }
            Self::Passing(source, progress, max, lent) => {
                tail.lend(lent);
                Body::Passing(Passing::response(source, progress, max, tail))
            }
            Self::Rewriting(mut rewriting) => {
                rewriting.answers(tail);
                Body::Rewriting(rewriting)
            }
        };
        Response::from_parts(head, body)
    }
}

async fn exchange(
    peer: &Peer,
    snapshot: &Arc<Snapshot>,
    mut request: Request<Incoming>,
    record: &mut Record,
) -> Result<(http::response::Parts, Answering), Refusal> {
    let on_request = |failure| (Side::Request, failure);
    let mut asked = route(peer, snapshot, &request, record).map_err(on_request)?;
    // hyper counts fields on HTTP/1.1 only.
    if request.headers().len() > snapshot.limits.head_fields {
        return Err(on_request(Failure::new(Code::HeadTooLarge, "head_fields")));
    }
    prepare_head(peer, snapshot, &mut request, &asked);
    let exchange = Exchange::new();
    record.asks(&exchange);
    let request = request_body(peer, snapshot, request, &asked, &exchange).await.map_err(on_request)?;
    let streaming = matches!(request.body(), Body::Rewriting(_));
    asked.exchange = streaming.then(|| Rc::clone(&exchange));
    let upstream = Arc::clone(&asked.route.upstream);
    let answer = forward(&peer.worker, snapshot, &upstream, request, &exchange).await.map_err(on_request)?;
    if let Some(exchange) = &asked.exchange
        && answer.response.status().as_u16() < 400
    {
        whole_request(exchange).await?;
    }
    response(peer, snapshot, answer, &asked).await.map_err(|failure| (Side::Response, failure))
}

/// A success is not passed on before all of our request was processed: it may still fail.
async fn whole_request(exchange: &Exchange) -> Result<(), Refusal> {
    let complete = poll_fn(|cx| exchange.poll_over(cx)).await;
    match exchange.take_failure() {
        Some(failure) => Err((Side::Request, failure)),
        None if complete => Ok(()),
        None => Err((Side::Response, Failure::new(Code::UpstreamClosed, "answered_half_a_request"))),
    }
}

fn route(peer: &Peer, snapshot: &Snapshot, request: &Request<Incoming>, record: &mut Record) -> Result<Asked, Failure> {
    let no_route = || Failure::new(Code::NoRoute, "no_route");
    let refused = |reason| Failure::new(Code::BadRequest, reason);
    if request.method() == Method::CONNECT {
        return Err(refused("connect"));
    }
    // RFC 9112 3.2: two servers could each believe another one.
    if request.headers().get_all(HOST).iter().nth(1).is_some() {
        return Err(refused("host_twice"));
    }
    let table = snapshot.tables.get(peer.listener).ok_or_else(no_route)?;
    let host = || {
        let authority = request.uri().authority().map(http::uri::Authority::as_str);
        authority.or_else(|| request.headers().get(HOST).and_then(|host| host.to_str().ok()))
    };
    let found = table.find(host, request.method(), request.uri().path()).map_err(|none| match none {
        NoMatch::NoRoute => no_route(),
        NoMatch::Ambiguous => Failure::new(Code::AmbiguousPath, "ambiguous_path"),
        NoMatch::Slash => Failure::new(Code::AmbiguousPath, "last_slash"),
    })?;
    record.routed(found.route);
    let rules = &found.route.request;
    if rules.encrypts() {
        query::check(request.uri().query(), rules)?;
    }
    Ok(Asked {
        params: found.params.iter().map(|part| query::percent_decode(part)).collect(),
        tenant: tenant(found.route, request)?,
        route: Arc::clone(found.route),
        head: request.method() == Method::HEAD,
        http10: request.version() < Version::HTTP_11,
        exchange: None,
    })
}

fn tenant(route: &Route, request: &Request<Incoming>) -> Result<Option<Arc<str>>, Failure> {
    let refused = |reason| Failure::new(Code::BadRequest, reason);
    match &route.tenant {
        None => Ok(None),
        Some(oilskin_config::Tenant::Literal(tenant)) => Ok(Some(tenant.as_str().into())),
        Some(oilskin_config::Tenant::Header(name)) => {
            let mut values = request.headers().get_all(name).iter();
            let one = values.next().ok_or_else(|| refused("tenant_missing"))?;
            if values.next().is_some() {
                return Err(refused("tenant_twice"));
            }
            match std::str::from_utf8(one.as_bytes()) {
                Ok(tenant) if (1..=255).contains(&tenant.len()) => Ok(Some(tenant.into())),
                _ => Err(refused("tenant_invalid")),
            }
        }
    }
}

fn prepare_head(peer: &Peer, snapshot: &Snapshot, request: &mut Request<Incoming>, asked: &Asked) {
    let authority = request.uri().authority().cloned();
    let map = request.headers_mut();
    headers::strip_hop_by_hop(map);
    let behind_mesh = snapshot.behind_mesh.get(peer.listener).copied().unwrap_or(false);
    headers::say_ours(map, behind_mesh, peer.state.secured().and_then(Secured::forwarded));
    headers::join_cookies(map);
    let route = &asked.route;
    if !route.keep_host {
        map.insert(HOST, route.upstream.host.clone());
    } else if let Some(authority) = authority
        && let Ok(host) = http::HeaderValue::from_str(authority.as_str())
    {
        map.insert(HOST, host);
    }
    if route.response.active() {
        headers::strip_for_rewritten_answer(map);
        if route.response.encrypts() {
            headers::strengthen_conditions(map);
        }
    }
}

async fn request_body(
    peer: &Peer,
    snapshot: &Arc<Snapshot>,
    request: Request<Incoming>,
    asked: &Asked,
    exchange: &Rc<Exchange>,
) -> Result<Request<Body>, Failure> {
    if request.body().is_end_stream() {
        return Ok(request.map(|_| Body::Empty));
    }
    let max = snapshot.limits.body;
    fits(max, request.body())?;
    let progress = Progress::new(snapshot.timeouts.body_idle, snapshot.limits.min_body_rate);
    let reading = judge(&asked.route, &asked.route.request, request.headers());
    let (mut head, body) = request.into_parts();
    let reading = match reading {
        Ok(reading) => reading,
        Err(failure) => {
            linger(body);
            return Err(failure);
        }
    };
    let Some(reading) = reading else {
        let body = Passing::request(body, progress, max, Rc::clone(exchange));
        return Ok(Request::from_parts(head, Body::Passing(body)));
    };
    let source = Source { body, progress, max };
    let mut rewriting = start(peer, snapshot, asked, &asked.route.request, source, reading).await?;
    rewriting.asks(Rc::clone(exchange));
    let body = match rewriting.hold().await? {
        Held::Whole(bytes, trailers) => {
            rewritten_head(&mut head.headers, Some(bytes.len()), &trailers);
            Body::whole(bytes, trailers)
        }
        Held::Longer(rewriting) => {
            rewritten_head(&mut head.headers, None, &None);
            Body::Rewriting(rewriting)
        }
        Held::Unread(rewriting) => {
            asked.route.metrics.not_inspected();
            Body::Rewriting(rewriting)
        }
    };
    Ok(Request::from_parts(head, body))
}

/// A body that says itself that it is over the limit is not begun.
fn fits(max: Option<u64>, body: &Incoming) -> Result<(), Failure> {
    match (max, body.size_hint().exact()) {
        (Some(max), Some(length)) if length > max => Err(Failure::new(Code::TooLarge, "max_body")),
        _ => Ok(()),
    }
}

/// How the body of this message is read; none passes it as it is.
fn judge(route: &Route, rules: &PhaseRules, map: &http::HeaderMap) -> Result<Option<Reading>, Failure> {
    if !rules.active() {
        return Ok(None);
    }
    if media::is_opaque(map, &route.opaque) {
        route.metrics.not_inspected();
        return Ok(None);
    }
    match (media::reading(map), rules.encrypts()) {
        (Reading::Json, _) => Ok(Some(Reading::Json)),
        (Reading::Sniff, false) => Ok(Some(Reading::Sniff)),
        (Reading::Twice, _) => Err(Failure::new(Code::UnsupportedType, "type_twice")),
        (Reading::Coded, _) => Err(Failure::new(Code::UnsupportedCoding, "coding")),
        (_, true) => Err(Failure::new(Code::UnsupportedType, "type")),
        (Reading::Unreadable, false) if route.require_inspection => Err(Failure::new(Code::NotInspected, "type")),
        (Reading::Unreadable, false) => {
            route.metrics.not_inspected();
            Ok(None)
        }
    }
}

async fn start(
    peer: &Peer,
    snapshot: &Snapshot,
    asked: &Asked,
    rules: &PhaseRules,
    source: Source,
    reading: Reading,
) -> Result<Box<Rewriting>, Failure> {
    let engine =
        || Engine::new(rules, asked.tenant.clone(), (peer.worker.id, peer.worker.lanes.as_ref()), Patience::Once);
    let engine = match engine() {
        Err(Failure { code: Code::KeyUnavailable, .. }) => {
            rules.loaded(asked.tenant.as_deref()).await;
            engine()?
        }
        made => made?,
    };
    let path = rules.path_values(&asked.route.params, &asked.params);
    Ok(Rewriting::new(source, engine, path, reading, &snapshot.limits))
}

/// The head of a rewritten message: its length where it is known, and nothing that spoke of the old bytes.
fn rewritten_head(map: &mut http::HeaderMap, length: Option<usize>, trailers: &Option<http::HeaderMap>) {
    headers::describe_rewritten_body(map, length.filter(|_| trailers.is_none()));
}

async fn response(
    peer: &Peer,
    snapshot: &Arc<Snapshot>,
    answer: Answer,
    asked: &Asked,
) -> Result<(http::response::Parts, Answering), Failure> {
    let (mut head, body) = answer.response.into_parts();
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        // No `Upgrade` goes upstream.
        return Err(Failure::new(Code::UpstreamInvalid, "upgrade_unasked"));
    }
    if head.headers.len() > snapshot.limits.head_fields {
        return Err(Failure::new(Code::UpstreamInvalid, "head_fields"));
    }
    headers::strip_hop_by_hop(&mut head.headers);
    head.version = Version::HTTP_11;
    let rules = &asked.route.response;
    if body.is_end_stream() {
        if let Some(lent) = answer.lent {
            lent.give_back();
        }
        if rules.active() && (asked.head || head.status == StatusCode::NOT_MODIFIED) {
            unsent_body(&mut head.headers, rules);
        }
        return Ok((head, Answering::Empty));
    }
    let max = snapshot.limits.body;
    fits(max, &body)?;
    let progress = Progress::new(snapshot.timeouts.body_idle, 0);
    let Some(reading) = judge(&asked.route, rules, &head.headers)? else {
        return Ok((head, Answering::Passing(body, progress, max, answer.lent)));
    };
    let source = Source { body, progress, max };
    let mut rewriting = start(peer, snapshot, asked, rules, source, reading).await?;
    rewriting.comes_over(answer.lent);
    let body = match rewriting.hold().await? {
        Held::Whole(bytes, trailers) => {
            rewritten_head(&mut head.headers, Some(bytes.len()), &trailers);
            Answering::Whole(bytes, trailers)
        }
        // To HTTP/1.0 a close looks like an end: a cut could not be told from it.
        Held::Longer(_) if asked.http10 => {
            return Err(Failure::new(Code::TooLarge, "http10_needs_whole"));
        }
        Held::Longer(rewriting) => {
            rewritten_head(&mut head.headers, None, &None);
            Answering::Rewriting(rewriting)
        }
        Held::Unread(_) if asked.route.require_inspection => {
            return Err(Failure::new(Code::NotInspected, "type"));
        }
        Held::Unread(rewriting) => {
            asked.route.metrics.not_inspected();
            return Ok((head, Answering::Rewriting(rewriting)));
        }
    };
    if rules.encrypts() {
        headers::weaken_etag(&mut head.headers);
    }
    Ok((head, body))
}

/// A head that describes a body which is not sent: its length and digests are of the other representation.
fn unsent_body(map: &mut http::HeaderMap, rules: &PhaseRules) {
    headers::describe_rewritten_body(map, None);
    if rules.encrypts() {
        headers::weaken_etag(map);
    }
}
