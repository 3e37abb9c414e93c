//! Header fields that belong to one connection, and those a rewritten body takes along.

use http::header::{
    ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, COOKIE, ETAG, EXPECT, HeaderName, IF_RANGE, RANGE, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderValue};

/// Never forwarded as they came (RFC 9110 7.6.1, and `Proxy-Connection`, which was never a standard but is sent). Two of them are
/// read first.
static HOP_BY_HOP: [HeaderName; 7] = [
    CONNECTION,
    TE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("http2-settings"),
];

/// Never forwarded from outside: `Expect` is answered by us, and who a client is, certificates say, not the client
/// (Envoy's header, and RFC 9440's).
static OURS_TO_SAY: [HeaderName; 4] = [
    EXPECT,
    X_FORWARDED_CLIENT_CERT,
    HeaderName::from_static("client-cert"),
    HeaderName::from_static("client-cert-chain"),
];

const X_FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");

static NOT_FOR_REWRITTEN_ANSWERS: [HeaderName; 3] = [ACCEPT_ENCODING, RANGE, IF_RANGE];

/// What a `Connection` field may not strip: removing them would change what a message is or who sent it.
static PROTECTED: [HeaderName; 5] = [
    CONTENT_LENGTH,
    http::header::HOST,
    http::header::CONTENT_TYPE,
    http::header::AUTHORIZATION,
    http::header::CONTENT_ENCODING,
];

/// Digests of a body that we change.
static DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("repr-digest"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("content-md5"),
];

/// Fields that never stand in a trailer section (RFC 9110 6.5.1), whatever the sender says.
static NOT_IN_TRAILERS: [HeaderName; 9] = [
    CONTENT_LENGTH,
    TRANSFER_ENCODING,
    TRAILER,
    TE,
    CONNECTION,
    http::header::HOST,
    http::header::AUTHORIZATION,
    http::header::CONTENT_TYPE,
    http::header::CONTENT_ENCODING,
];

/// Of these names a bit each that stands in the head: one pass, since heads are short and looking up each name that is not
/// there by its hash costs more.
fn present(headers: &HeaderMap, names: &[HeaderName]) -> u32 {
    let place = |name| names.iter().position(|listed| listed == name);
    headers.keys().filter_map(place).fold(0, |bits, place| bits | 1 << place)
}

fn remove(headers: &mut HeaderMap, names: &[HeaderName]) {
    let mut bits = present(headers, names);
    while bits != 0 {
        if let Some(name) = names.get(bits.trailing_zeros() as usize) {
            headers.remove(name);
        }
        bits &= bits - 1;
    }
}

/// Removes what belongs to the connection the message came on. `TE: trailers` is kept, nothing else of `TE`.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if present(headers, &HOP_BY_HOP) == 0 {
        return;
    }
    strip_named(headers);
    let te = headers.remove(TE);
    remove(headers, &HOP_BY_HOP);
    let kept = |te: &str| te.split(',').any(|part| part.trim().eq_ignore_ascii_case("trailers"));
    if te.is_some_and(|te| te.to_str().is_ok_and(kept)) {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Removes what `Connection` names.
fn strip_named(headers: &mut HeaderMap) {
    let usual = |value: &HeaderValue| {
        ["keep-alive", "close"].iter().any(|word| value.as_bytes().eq_ignore_ascii_case(word.as_bytes()))
    };
    if headers.get_all(CONNECTION).iter().all(usual) {
        return;
    }
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| !PROTECTED.contains(name) && *name != TE)
        .collect();
    for name in named {
        headers.remove(name);
    }
}

/// HTTP/2 may cut `Cookie` into several fields; HTTP/1.1 servers read one (RFC 9113 8.2.3).
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).iter();
    let (Some(_), Some(_)) = (crumbs.next(), crumbs.next()) else { return };
    let crumbs: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    // Each is a valid value, and so is the separator.
    if let Ok(whole) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        headers.insert(COOKIE, whole);
    }
}

/// Names of ours written with `_`: servers that make variables of fields (CGI, WSGI) read both alike.
fn remove_look_alikes(headers: &mut HeaderMap) {
    let ours = |name: &str| OURS_TO_SAY.iter().any(|ours| *ours == *name.replace('_', "-"));
    let alike: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().contains('_') && ours(name.as_str())).cloned().collect();
    for name in alike {
        headers.remove(name);
    }
}

/// Removes what is ours to say, and says who the client is where that is known and asked for. Behind a mesh's proxy its word on
/// the client stands.
pub(crate) fn say_ours(headers: &mut HeaderMap, behind_mesh: bool, client: Option<&HeaderValue>) {
    match behind_mesh {
        true => remove(headers, &OURS_TO_SAY[..1]),
        false => remove(headers, &OURS_TO_SAY),
    }
    remove_look_alikes(headers);
    if let Some(client) = client {
        headers.insert(X_FORWARDED_CLIENT_CERT, client.clone());
    }
}

/// What must not reach the upstream where its answer will be rewritten: codings we cannot undo, parts of bodies.
pub(crate) fn strip_for_rewritten_answer(headers: &mut HeaderMap) {
    remove(headers, &NOT_FOR_REWRITTEN_ANSWERS);
}

/// Of a rewritten body: its length where it is known, and no digest of the old one.
pub(crate) fn describe_rewritten_body(headers: &mut HeaderMap, length: Option<usize>) {
    remove(headers, &DIGESTS);
    match length {
        Some(length) => headers.insert(CONTENT_LENGTH, length.into()),
        None => headers.remove(CONTENT_LENGTH),
    };
}

/// Encrypting with fresh nonces gives other bytes each time: a strong validator would lie.
pub(crate) fn weaken_etag(headers: &mut HeaderMap) {
    let Some(strong) = headers.get(ETAG).filter(|etag| !etag.as_bytes().starts_with(b"W/")) else {
        return;
    };
    let weak = [b"W/", strong.as_bytes()].concat();
    match HeaderValue::from_bytes(&weak) {
        Ok(weak) => headers.insert(ETAG, weak),
        Err(_) => headers.remove(ETAG),
    };
}

/// Takes the `W/` off again that we added: what comes back in a condition is compared by the upstream as strong.
pub(crate) fn strengthen_conditions(headers: &mut HeaderMap) {
    for name in [http::header::IF_MATCH, http::header::IF_NONE_MATCH] {
        let Some(value) = headers.get(&name).and_then(|value| value.to_str().ok()) else {
            continue;
        };
        let strong = without_weak_marks(value);
        if let Ok(strong) = HeaderValue::from_str(&strong) {
            headers.insert(name, strong);
        }
    }
}

/// The entity tags of a list without their `W/`; a comma or `W/` inside quotes is part of a tag.
fn without_weak_marks(list: &str) -> String {
    let mut strong = String::with_capacity(list.len());
    for (at, part) in list.split('"').enumerate() {
        if at > 0 {
            strong.push('"');
        }
        let outside = at % 2 == 0;
        strong.push_str(if outside { part.strip_suffix("W/").unwrap_or(part) } else { part });
    }
    strong
}

/// Drops fields that may not stand in a trailer section, and what is ours to say: some servers add trailers to the head.
pub(crate) fn clean_trailers(trailers: &mut HeaderMap, rewritten: bool) {
    remove(trailers, &NOT_IN_TRAILERS);
    remove(trailers, &OURS_TO_SAY);
    remove_look_alikes(trailers);
    if rewritten {
        remove(trailers, &DIGESTS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_fields_go_but_cannot_take_framing_along() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Hop, content-length, authorization"),
            ("x-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("content-length", "3"),
            ("authorization", "x"),
            ("te", "gzip, trailers"),
            ("x-end", "stays"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        strip_hop_by_hop(&mut headers);
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["authorization", "content-length", "te", "x-end"]);
        assert_eq!(headers["te"], "trailers");
    }

    #[test]
    fn a_weakened_etag_comes_back_strong() {
        let mut headers = HeaderMap::new();
        headers.insert(ETAG, HeaderValue::from_static("\"a\""));
        weaken_etag(&mut headers);
        assert_eq!(headers[ETAG], "W/\"a\"");
        weaken_etag(&mut headers);
        assert_eq!(headers[ETAG], "W/\"a\"");
        let mut request = HeaderMap::new();
        request.insert("if-match", HeaderValue::from_static("W/\"a,W/\", \"b\""));
        strengthen_conditions(&mut request);
        assert_eq!(request["if-match"], "\"a,W/\", \"b\"");
    }
}
