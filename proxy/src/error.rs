//! The error table: every code a peer can see, its status, and the document that says so.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};

use crate::telemetry::{RequestId, X_REQUEST_ID};

/// Which message failed: with equal codes, a request is the app's fault, a response the upstream's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Side {
    /// The request.
    Request,
    /// The response.
    Response,
}

macro_rules! codes {
    ($($variant:ident $name:literal $title:literal $help:literal,)*) => {
        /// Why Oilskin answers by itself. `as_str` is metric label, log field and `docs/errors.md` anchor at once.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub(crate) enum Code {
            $(#[doc = $title] $variant,)*
        }

        impl Code {
            /// Every code, in the order of [`Code::index`].
            pub(crate) const ALL: [Self; [$($name),*].len()] = [$(Self::$variant),*];

            /// The stable name.
            pub(crate) const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The problem document's `title`.
            pub(crate) const fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)* }
            }

            /// One line on what to do.
            pub(crate) const fn help(self) -> &'static str {
                match self { $(Self::$variant => $help,)* }
            }
        }
    };
}

codes! {
    NoRoute "no_route" "No route matches this method and path"
        "Add a route for it; passing unread needs a route that says so.",
    AmbiguousPath "ambiguous_path" "The path could be read in two ways"
        "Send it without escaped unreserved characters, `%2F`, `%5C`, `%00`, `;`, `\\`, empty or dot segments; \
         where only its last slash is in doubt, send it as its route writes it.",
    SignedRequest "signed_request" "The request is signed over a body that would be changed"
        "Let a component behind Oilskin sign, or route it without rules.",
    IndexReserved "index_reserved" "A member reserved for a search index was sent"
        "Leave the member out; Oilskin writes it.",
    BadRequest "bad_request" "The request is not well-formed HTTP"
        "Check its framing, host and headers.",
    HeadTooLarge "head_too_large" "The request head is over a size limit"
        "Send fewer or shorter fields, or raise `limits.head` or `limits.head_fields`.",
    HeadTimeout "head_timeout" "The request head did not arrive in time"
        "Send the head sooner, or raise `timeouts.head`.",
    BodyTimeout "body_timeout" "The request body did not arrive in time"
        "Send the body sooner, or raise `timeouts.body_idle` or lower `limits.min_body_rate`.",
    Overloaded "overloaded" "A limit on concurrent work is reached"
        "Try again later, or raise the limit that the log names.",
    KeyUnavailable "key_unavailable" "A needed key is not available"
        "Try again later; the log says which keyset is missing, or why Vault did not answer.",
    Loop "loop" "The request came back to the proxy that sent it"
        "Point the route's upstream at the real upstream.",
    UnsupportedType "unsupported_type" "No rule's reader can inspect this content type"
        "Send a type the rules read, such as `application/json`, with its `Content-Type`.",
    UnsupportedCoding "unsupported_coding" "The content coding cannot be undone"
        "Send the body without `Content-Encoding`.",
    Malformed "malformed" "The body is not valid for its content type"
        "Send a valid body; nothing of this one was forwarded unless it was already streaming.",
    Truncated "truncated" "The body ended early"
        "Send the whole body.",
    DecryptFailed "decrypt_failed" "A protected field could not be decrypted"
        "The cause stands only in the log and in `oilskin_fields_total`.",
    TooLarge "too_large" "The message is over a size limit"
        "Send less, or raise the limit that the log names.",
    TooDeep "too_deep" "The body is nested too deeply"
        "Nest less, or raise `limits.depth`.",
    UpstreamUnreachable "upstream_unreachable" "The upstream cannot be reached"
        "Check that the upstream runs and that its name resolves.",
    UpstreamClosed "upstream_closed" "The upstream closed the connection before its answer was whole"
        "It is unknown whether the request took effect; look at the upstream's log.",
    UpstreamInvalid "upstream_invalid" "The upstream's answer is not well-formed HTTP"
        "Look at the upstream; its connection was thrown away.",
    RedirectLeaves "redirect_leaves" "The upstream redirects to a place outside the protected routes"
        "Route the target too, or set `redirects: pass`.",
    NotInspected "not_inspected" "The answer has a type that no rule reads"
        "Let the upstream answer with a type the rules read, or drop `require_inspection`.",
    UpstreamTimeout "upstream_timeout" "The upstream did not answer in time"
        "Look at the upstream, or raise `timeouts.total`.",
}

impl Code {
    /// How many codes there are.
    pub(crate) const COUNT: usize = Self::ALL.len();

    /// Its place in [`Code::ALL`].
    pub(crate) const fn index(self) -> usize {
        self as usize
    }

    /// The status a peer sees. One match without `_`: a new code does not compile until it is mapped.
    pub(crate) const fn status(self, side: Side) -> StatusCode {
        match (self, side) {
            (Self::NoRoute, _) => StatusCode::NOT_FOUND,
            (Self::AmbiguousPath | Self::SignedRequest | Self::IndexReserved | Self::BadRequest, _) => {
                StatusCode::BAD_REQUEST
            }
            (Self::HeadTooLarge, _) => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            (Self::HeadTimeout | Self::BodyTimeout, _) => StatusCode::REQUEST_TIMEOUT,
            (Self::Overloaded | Self::KeyUnavailable, _) => StatusCode::SERVICE_UNAVAILABLE,
            (Self::Loop, _) => StatusCode::LOOP_DETECTED,
            (Self::UnsupportedType | Self::UnsupportedCoding, Side::Request) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            (Self::Malformed | Self::Truncated | Self::DecryptFailed, Side::Request) => StatusCode::BAD_REQUEST,
            (Self::TooLarge | Self::TooDeep, Side::Request) => StatusCode::PAYLOAD_TOO_LARGE,
            (
                Self::UnsupportedType
                | Self::UnsupportedCoding
                | Self::Malformed
                | Self::Truncated
                | Self::DecryptFailed
                | Self::TooLarge
                | Self::TooDeep,
                Side::Response,
            ) => StatusCode::BAD_GATEWAY,
            (
                Self::UpstreamUnreachable
                | Self::UpstreamClosed
                | Self::UpstreamInvalid
                | Self::RedirectLeaves
                | Self::NotInspected,
                _,
            ) => StatusCode::BAD_GATEWAY,
            (Self::UpstreamTimeout, _) => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// Seconds for `Retry-After`; a number where the status is 503.
    pub(crate) const fn retry_after(self) -> Option<u16> {
        match self {
            Self::Overloaded => Some(1),
            // Key services come back in seconds to minutes; 5 s keeps retries from piling up.
            Self::KeyUnavailable => Some(5),
            _ => None,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A failure on the way: what the peer may know (`code`, `rule`) and what only log and metric may (`reason`).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code} ({reason})")]
pub(crate) struct Failure {
    /// The code.
    pub code: Code,
    /// The cause, from a fixed set: never a value.
    pub reason: &'static str,
    /// The name of the rule it happened in.
    pub rule: Option<Arc<str>>,
}

impl Failure {
    /// A failure outside any rule.
    pub(crate) fn new(code: Code, reason: &'static str) -> Self {
        Self { code, reason, rule: None }
    }

    /// A failure in a rule.
    pub(crate) fn in_rule(code: Code, reason: &'static str, rule: Arc<str>) -> Self {
        Self { code, reason, rule: Some(rule) }
    }

    /// What the peer gets; the reason is left behind.
    pub(crate) fn problem(&self, side: Side, request_id: RequestId) -> Problem {
        Problem { code: self.code, side, rule: self.rule.clone(), request_id }
    }
}

impl From<Code> for Failure {
    fn from(code: Code) -> Self {
        Self::new(code, code.as_str())
    }
}

/// An RFC 9457 problem document. Holds names from the configuration only, never a value of a message.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    /// The code.
    pub code: Code,
    /// Which message failed.
    pub side: Side,
    /// The name of the rule.
    pub rule: Option<Arc<str>>,
    /// The message's id.
    pub request_id: RequestId,
}

const PROBLEM_JSON: HeaderValue = HeaderValue::from_static("application/problem+json");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

impl Problem {
    /// The status.
    pub(crate) fn status(&self) -> StatusCode {
        self.code.status(self.side)
    }

    /// The document.
    pub(crate) fn body(&self) -> Bytes {
        let rule = self.rule.as_deref().map(|rule| format!(r#","rule":{}"#, quoted(rule)));
        Bytes::from(format!(
            r#"{{"type":"urn:oilskin:error:{code}","title":{title},"status":{status},"code":"{code}"{rule},"request_id":{id}}}"#,
            code = self.code,
            title = quoted(self.code.title()),
            status = self.status().as_u16(),
            rule = rule.unwrap_or_default(),
            id = quoted(self.request_id.as_str()),
        ))
    }

    /// The whole answer. `Content-Length` is left to the server, which knows about HEAD.
    pub(crate) fn response(&self) -> Response<Bytes> {
        let mut response = Response::new(self.body());
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, PROBLEM_JSON);
        headers.insert(CACHE_CONTROL, NO_STORE);
        headers.insert(&X_REQUEST_ID, self.request_id.header());
        if let Some(seconds) = self.code.retry_after() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The text of `docs/errors.md`.
pub fn page() -> String {
    let mut page = String::from(PAGE_HEAD);
    for code in Code::ALL {
        let (request, response) = (code.status(Side::Request).as_u16(), code.status(Side::Response).as_u16());
        let status = if request == response { format!("{request}") } else { format!("{request}, response {response}") };
        page.push_str(&format!("| <a id=\"{code}\"></a>`{code}` | {status} | {}. | {} |\n", code.title(), code.help()));
    }
    page
}

const PAGE_HEAD: &str = "\
<!-- Generated from proxy/src/error.rs; `OILSKIN_BLESS=1 cargo test -p oilskin errors_page` rewrites it. -->

# Errors

What Oilskin answers by itself is `application/problem+json` (RFC 9457): `type` (`urn:oilskin:error:CODE`), `title`, `status`,
`code`, `rule` (the rule's name, where one was involved) and `request_id` (the same as `x-request-id`). It never holds a value
of a message. `code` is stable and is the log's `code` and the metrics' `code` label too. A 503 has `Retry-After`.

What is no whole HTTP request (`bad_request`, `head_too_large`, `head_timeout`) is answered with a bare 400, 431 or 408 and the connection is closed;
it has a log line and a count in `oilskin_gate_refusals_total` instead of those of a request.

A failure in a response is the upstream's side, so its status differs where two are given. A message that is already
streaming has no status left to change: it is cut instead, and counted as `aborted`.

| code | status | what it means | what to do |
|---|---|---|---|
";

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(code: Code, side: Side, rule: Option<&str>) -> Problem {
        Problem { code, side, rule: rule.map(Arc::from), request_id: RequestId::from_static("req-1") }
    }

    #[test]
    fn index_is_the_place_in_all() {
        for (place, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(code.index(), place);
        }
    }

    #[test]
    fn the_side_decides_the_status() {
        assert_eq!(Code::DecryptFailed.status(Side::Request), 400);
        assert_eq!(Code::DecryptFailed.status(Side::Response), 502);
        assert_eq!(Code::TooDeep.status(Side::Request), 413);
        assert_eq!(Code::UnsupportedCoding.status(Side::Request), 415);
        assert_eq!(Code::KeyUnavailable.status(Side::Response), 503);
    }

    #[test]
    fn retry_after_stands_exactly_at_503() {
        for code in Code::ALL {
            for side in [Side::Request, Side::Response] {
                assert_eq!(code.retry_after().is_some(), code.status(side) == 503, "{code}");
            }
        }
    }

    #[test]
    fn a_problem_is_an_rfc_9457_document() {
        let response = problem(Code::KeyUnavailable, Side::Request, Some("$..\"ssn\"\n")).response();
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["content-type"], "application/problem+json");
        assert_eq!(response.headers()["retry-after"], "5");
        assert_eq!(response.headers()["x-request-id"], "req-1");
        let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(body["type"], "urn:oilskin:error:key_unavailable");
        assert_eq!(body["status"], 503);
        assert_eq!(body["rule"], "$..\"ssn\"\n");
        assert_eq!(body["request_id"], "req-1");
    }

    #[test]
    fn decrypt_failed_looks_the_same_for_every_cause() {
        let answer = |reason| {
            let failure = Failure::in_rule(Code::DecryptFailed, reason, Arc::from("$.a"));
            let response = failure.problem(Side::Response, RequestId::from_static("x")).response();
            (response.status(), response.headers().clone(), response.into_body())
        };
        assert_eq!(answer("unknown_key"), answer("tag_mismatch"));
    }

    #[test]
    fn errors_page_matches_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/errors.md");
        #[expect(clippy::disallowed_methods, reason = "the test's own switch, no setting")]
        let bless = std::env::var_os("OILSKIN_BLESS").is_some();
        if bless {
            std::fs::write(path, page()).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), page(), "run with OILSKIN_BLESS=1");
    }
}
