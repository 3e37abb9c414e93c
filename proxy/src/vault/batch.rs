//! Transit's batch endpoints, which the library does not have: one call for many fields.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use oilskin_config::VaultKey;
use rustify::Endpoint;
use rustify::enums::{RequestMethod, RequestType, ResponseType};
use rustify::errors::ClientError;
use serde::Deserialize;
use serde_json::Value;

use super::caller::Does;
use super::{Caller, Client, Error, Get};
use crate::transit::{Item, ItemResult, Operation};

/// How long a field's call waits for the first token.
const FIRST: Duration = Duration::from_secs(1);

/// Looking a key up.
const LOOK: Duration = Duration::from_secs(2);

/// Longest answer, in bytes, that results are parts of.
const SHARED: usize = 64 << 10;

struct Batch<'a> {
    key: &'a VaultKey,
    operation: Operation,
    items: &'a [Item],
}

impl Endpoint for Batch<'_> {
    type Response = Value;
    const REQUEST_BODY_TYPE: RequestType = RequestType::JSON;
    const RESPONSE_BODY_TYPE: ResponseType = ResponseType::JSON;

    fn path(&self) -> String {
        format!("{}/{}/{}", self.key.mount, self.operation.as_str(), self.key.key)
    }

    /// Mounts and names are of letters that need no escaping; the library's own way takes longer than the rest of a call.
    fn url(&self, base: &str) -> Result<Uri, ClientError> {
        let invalid = |source| ClientError::UrlBuildError { source };
        Uri::from_maybe_shared(format!("{base}/{}", self.path())).map_err(invalid)
    }

    fn method(&self) -> RequestMethod {
        RequestMethod::POST
    }

    /// All of it is Base64 or a ciphertext that was looked at, so nothing needs escaping.
    fn body(&self) -> Result<Option<Vec<u8>>, ClientError> {
        let size = self.items.iter().map(Item::size).sum::<usize>();
        let mut text = Vec::with_capacity(size + 32);
        let mut put = |part: &[u8]| text.extend_from_slice(part);
        let name: &[u8] = if self.operation == Operation::Encrypt { b"plaintext" } else { b"ciphertext" };
        put(b"{\"batch_input\":[");
        for (at, item) in self.items.iter().enumerate() {
            put(if at == 0 { b"{\"" } else { b",{\"" });
            for part in [name, b"\":\"", &item.text, b"\",\"context\":\"", item.context.as_bytes(), b"\""] {
                put(part);
            }
            if let Some(associated) = &item.associated {
                for part in [b",\"associated_data\":\"", associated.as_bytes(), b"\""] {
                    put(part);
                }
            }
            if let Some(version) = item.version {
                put(b",\"key_version\":");
                put(version.to_string().as_bytes());
            }
            put(b"}");
        }
        put(b"]}");
        Ok(Some(text))
    }
}

/// Writes something small.
struct Put(String, &'static str);

impl Endpoint for Put {
    type Response = ();
    const REQUEST_BODY_TYPE: RequestType = RequestType::JSON;
    const RESPONSE_BODY_TYPE: ResponseType = ResponseType::JSON;

    fn path(&self) -> String {
        self.0.clone()
    }

    fn method(&self) -> RequestMethod {
        RequestMethod::POST
    }

    fn body(&self) -> Result<Option<Vec<u8>>, ClientError> {
        Ok(Some(self.1.as_bytes().to_vec()))
    }
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    data: Option<Results<'a>>,
}

#[derive(Deserialize)]
struct Results<'a> {
    #[serde(borrow)]
    batch_results: Vec<One<'a>>,
}

#[derive(Deserialize)]
struct One<'a> {
    #[serde(borrow)]
    plaintext: Option<Text<'a>>,
    #[serde(borrow)]
    ciphertext: Option<Text<'a>>,
    #[serde(borrow)]
    error: Option<Text<'a>>,
}

/// Borrowed where nothing in it is escaped.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Text<'_> {
    /// As a part of the body that it was read from, unless that is large: who is slow to take a field must not hold all of it.
    fn of(self, body: &Bytes) -> Bytes {
        match self.0 {
            Cow::Borrowed(text) if body.len() <= SHARED => body.slice_ref(text.as_bytes()),
            Cow::Borrowed(text) => Bytes::copy_from_slice(text.as_bytes()),
            Cow::Owned(text) => text.into(),
        }
    }
}

/// As many results as were asked for; none where it is no such answer.
fn results(body: &Bytes, operation: Operation, asked: usize) -> Option<Vec<ItemResult>> {
    let answer: Answer<'_> = serde_json::from_slice(body).ok()?;
    let results = answer.data?.batch_results;
    if results.len() != asked {
        return None;
    }
    let one = |one: One<'_>| match (one.error.filter(|error| !error.0.is_empty()), one.plaintext, one.ciphertext) {
        (Some(error), ..) => Some(Err(meaning(&error.0))),
        (None, Some(plain), _) if operation == Operation::Decrypt => Some(Ok(plain.of(body))),
        (None, _, Some(ciphertext)) if operation != Operation::Decrypt => Some(Ok(ciphertext.of(body))),
        _ => None,
    };
    results.into_iter().map(one).collect()
}

/// What an answer's body is taken for as the answer to each operation on so many items. For the fuzz target `vault`.
#[doc(hidden)]
pub fn vault_answers(body: &[u8], asked: usize) -> [Option<Vec<ItemResult>>; 3] {
    let body = Bytes::copy_from_slice(body);
    [Operation::Encrypt, Operation::Decrypt, Operation::Rewrap].map(|operation| results(&body, operation, asked))
}

/// A word for log and metric: Vault's own may repeat what was sent.
fn meaning(error: &str) -> &'static str {
    let says = |words: &str| error.contains(words);
    if says("authentication failed") || says("unable to decrypt") {
        "vault_tag"
    } else if says("disallowed by policy")
        || says("version is too")
        || says("less than the minimum")
        || says("higher than the latest")
    {
        "vault_version"
    } else {
        "vault_item"
    }
}

impl Client {
    /// # Errors
    /// What the answer means, where it is none for each item.
    async fn batch(&self, key: &VaultKey, operation: Operation, items: &[Item]) -> Result<Vec<ItemResult>, Error> {
        let answer = self.answer(&Batch { key, operation, items }).await?;
        let read = || results(&answer.body, operation, items.len());
        match answer.code {
            200 => read().ok_or_else(Error::malformed),
            // One item that is wrong makes the whole answer a 400, with the results of all in it.
            code @ 400..=499 => read().ok_or_else(|| Error::answered(code, &answer.body)),
            code => Err(Error::answered(code, &answer.body)),
        }
    }
}

/// Whatever writes takes the latest version of the key, which a standby hears of later.
fn does(operation: Operation) -> Does {
    match operation {
        Operation::Decrypt => Does::Reads,
        Operation::Encrypt | Operation::Rewrap => Does::Writes,
    }
}

impl Caller {
    /// One call for many fields.
    ///
    /// # Errors
    /// What the answer means, where it is none for each item.
    pub(crate) async fn batch(
        &self,
        key: &VaultKey,
        operation: Operation,
        items: &[Item],
    ) -> Result<Vec<ItemResult>, Error> {
        let asked = async {
            let client = self.client_to(does(operation), FIRST).await?;
            let answer = client.batch(key, operation, items).await;
            answer.map_err(|error| error.sparing(client.seen.spare()))
        };
        let answer = asked.await;
        self.ended(operation, answer.as_ref().err());
        answer
    }

    /// Counts a call, and sees to the token and the address where it came to nothing.
    pub(crate) fn ended(&self, operation: Operation, error: Option<&Error>) {
        self.notice(error);
        self.turn(does(operation), error);
        self.vault.calls.ended(operation.as_str(), error.map_or("ok", Error::reason));
    }

    /// For development: mounts transit there and makes a derived key in it, where they are missing.
    ///
    /// # Errors
    /// What the answer means.
    pub(crate) async fn make_key(&self, mount: &str, key: &str) -> Result<(), Error> {
        let mounted = self.put(format!("sys/mounts/{mount}"), r#"{"type":"transit"}"#).await;
        match mounted {
            Err(error) if !error.says("already in use") => return Err(error),
            _ => {}
        }
        self.put(format!("{mount}/keys/{key}"), r#"{"derived":true}"#).await
    }

    async fn put(&self, path: String, body: &'static str) -> Result<(), Error> {
        let asked = async { self.client_within(FIRST).await?.done(Put(path, body)).await };
        self.within(LOOK, "make", asked).await
    }

    /// What Vault says a key is.
    ///
    /// # Errors
    /// What the answer means.
    pub(crate) async fn about(&self, key: &VaultKey) -> Result<Value, Error> {
        let path = format!("{}/keys/{}", key.mount, key.key);
        let asked = async { self.client_within(FIRST).await?.data(Get(path)).await };
        self.within(LOOK, "look", asked).await
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use bytes::Bytes;
    use oilskin_config::VaultKey;
    use rustify::Endpoint;

    use super::{Batch, results};
    use crate::transit::{Item, Operation};

    fn item(text: &str) -> Item {
        Item { text: text.as_bytes().to_vec().into(), context: "Yw==".into(), associated: None, version: None }
    }

    #[test]
    fn a_call_holds_what_is_asked_and_never_a_nonce() {
        let key = VaultKey { mount: "team/transit".to_owned(), key: "pii".to_owned() };
        let items =
            [item("YQ=="), Item { associated: Some("YmI=".into()), version: NonZeroU32::new(2), ..item("Yg==") }];
        let batch = Batch { key: &key, operation: Operation::Encrypt, items: &items };
        let sent = batch.body().unwrap().unwrap();
        assert_eq!(batch.url("http://a:1").unwrap(), "http://a:1/team/transit/encrypt/pii");
        let body: serde_json::Value = serde_json::from_slice(&sent).unwrap();
        let second =
            serde_json::json!({"plaintext": "Yg==", "context": "Yw==", "associated_data": "YmI=", "key_version": 2});
        assert_eq!(body["batch_input"][1], second);
        assert!(sent.len() <= items.iter().map(Item::size).sum::<usize>() + 32, "one allocation is enough");
        let batch = Batch { key: &key, operation: Operation::Rewrap, items: &[item("vault:v1:YQ==")] };
        assert_eq!(batch.path(), "team/transit/rewrap/pii");
        assert_eq!(
            batch.body().unwrap().unwrap(),
            b"{\"batch_input\":[{\"ciphertext\":\"vault:v1:YQ==\",\"context\":\"Yw==\"}]}"
        );
    }

    #[test]
    fn every_item_has_a_result_of_its_own_or_nothing_is_believed() {
        let read = |body: &str, asked| results(&Bytes::copy_from_slice(body.as_bytes()), Operation::Decrypt, asked);
        let answer = r#"{"data":{"batch_results":[{"plaintext":"YQ==","reference":""},
            {"plaintext":"","error":"cipher: message authentication failed"},
            {"error":"ciphertext or signature version is disallowed by policy (too old)"},{"error":"hvs.secret"}]}}"#;
        let four = read(answer, 4).unwrap();
        assert_eq!(four[0].as_ref().unwrap().as_ref(), b"YQ==");
        let errors: Vec<_> = four[1..].iter().map(|result| *result.as_ref().unwrap_err()).collect();
        assert_eq!(errors, ["vault_tag", "vault_version", "vault_item"], "never Vault's own words");
        assert!(read(answer, 3).is_none() && read(answer, 5).is_none());
        let escaped = read(r#"{"data":{"batch_results":[{"plaintext":"YQ\u003d="}]}}"#, 1).unwrap();
        assert_eq!(escaped[0].as_ref().unwrap().as_ref(), b"YQ==");
        for other in ["", "{}", "[]", r#"{"data":{}}"#, r#"{"data":{"batch_results":[{}]}}"#, r#"{"errors":["x"]}"#] {
            assert!(read(other, 1).is_none(), "{other}");
        }
        let ciphertext = r#"{"data":{"batch_results":[{"ciphertext":"vault:v1:YQ=="}]}}"#;
        assert!(read(ciphertext, 1).is_none(), "it is no plaintext");
        assert!(results(&Bytes::from_static(ciphertext.as_bytes()), Operation::Rewrap, 1).unwrap()[0].is_ok());
    }
}
