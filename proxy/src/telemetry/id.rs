//! Request ids: the app's own where it is usable, else a process-unique one that costs no system call.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

use http::{HeaderMap, HeaderName, HeaderValue};

/// The field that carries it.
pub(crate) static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const MAX: usize = 128;

/// A request id: 1 to 128 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestId(HeaderValue);

impl RequestId {
    /// A fixed id.
    #[cfg(test)]
    pub(crate) fn from_static(id: &'static str) -> Self {
        Self(HeaderValue::from_static(id))
    }

    /// Its characters.
    pub(crate) fn as_str(&self) -> &str {
        // Only visible ASCII comes in, so the fallback is never taken.
        self.0.to_str().unwrap_or_default()
    }

    /// It as a header's value; shares the bytes.
    pub(crate) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

/// Makes the ids of one worker: a random prefix and a counter.
///
/// 64 random bits a worker and start; two workers collide with probability 2^-64 a pair. Ids are no secrets.
#[derive(Debug)]
pub(crate) struct RequestIds {
    /// 16 hexadecimal digits and a hyphen.
    prefix: String,
    next: Cell<u64>,
}

impl RequestIds {
    /// A worker's generator.
    pub(crate) fn new() -> Self {
        // std seeds this from the system's random source; ids need to be distinct, not unguessable.
        Self { prefix: format!("{:016x}-", RandomState::new().hash_one(0_u64)), next: Cell::new(0) }
    }

    /// The app's id if it sent exactly one usable `x-request-id`, else a new one.
    pub(crate) fn of(&self, headers: &HeaderMap) -> RequestId {
        kept(headers).unwrap_or_else(|| self.generate())
    }

    /// A new id, 27 characters up to 2^40 messages.
    pub(crate) fn generate(&self) -> RequestId {
        let count = self.next.get();
        self.next.set(count.wrapping_add(1));
        let mut text = String::with_capacity(33);
        text.push_str(&self.prefix);
        // Ten digits, more where they are needed. By hand: this stands on the road of every request.
        let digits = (64 - count.leading_zeros()).div_ceil(4).max(10);
        text.extend((0..digits).rev().filter_map(|at| char::from_digit((count >> (4 * at)) as u32 & 15, 16)));
        RequestId(HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("-")))
    }
}

impl Default for RequestIds {
    fn default() -> Self {
        Self::new()
    }
}

fn kept(headers: &HeaderMap) -> Option<RequestId> {
    let mut values = headers.get_all(&X_REQUEST_ID).iter();
    let value = values.next()?;
    let bytes = value.as_bytes();
    let usable = values.next().is_none() && (1..=MAX).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic);
    usable.then(|| RequestId(value.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[&[u8]]) -> RequestId {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&X_REQUEST_ID, HeaderValue::from_bytes(value).unwrap());
        }
        RequestIds::new().of(&headers)
    }

    #[test]
    fn keeps_what_the_app_sent() {
        assert_eq!(of(&[b"abc-1"]).as_str(), "abc-1");
        assert_eq!(of(&[&[b'x'; 128]]).as_str().len(), 128);
    }

    #[test]
    fn replaces_what_cannot_be_kept() {
        for bad in [&b""[..], b"a b", b"\xff", b"a\tb", &[b'x'; 129]] {
            assert_ne!(of(&[bad]).header().as_bytes(), bad);
        }
        assert_ne!(of(&[b"one", b"two"]).as_str(), "one");
    }

    #[test]
    fn generated_ids_differ_within_and_between_workers() {
        let (a, b) = (RequestIds::new(), RequestIds::new());
        let ids = [a.generate(), a.generate(), b.generate()];
        assert_ne!(ids[0], ids[1]);
        assert_ne!(ids[0], ids[2]);
        assert_eq!(ids[0].as_str().len(), 27);
    }
}
