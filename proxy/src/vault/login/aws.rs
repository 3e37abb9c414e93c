//! Who we are in AWS, as Vault asks for it: a request to STS that only we can sign, which Vault sends on.
//!
//! <https://developer.hashicorp.com/vault/docs/auth/aws#iam-auth-method>

use std::time::SystemTime;

use aws_config::BehaviorVersion;
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use base64_simd::STANDARD;
use rustify::Endpoint;
use rustify::enums::{RequestMethod, RequestType, ResponseType};
use rustify::errors::ClientError;
use serde_json::{Map, Value, json};

use tokio::time::timeout;

use super::{DEADLINE, Error};
use crate::keys::aws::http_client;

/// Where Vault sends it unless it is told otherwise, and the region that this belongs to.
const STS: &str = "https://sts.amazonaws.com/";
const HOST: &str = "sts.amazonaws.com";
const REGION: &str = "us-east-1";

const BODY: &str = "Action=GetCallerIdentity&Version=2011-06-15";
const TYPE: &str = "application/x-www-form-urlencoded; charset=utf-8";

/// The login.
pub(super) struct Login {
    mount: String,
    body: Value,
}

impl Endpoint for Login {
    type Response = ();
    const REQUEST_BODY_TYPE: RequestType = RequestType::JSON;
    const RESPONSE_BODY_TYPE: ResponseType = ResponseType::JSON;

    fn path(&self) -> String {
        format!("auth/{}/login", self.mount)
    }

    fn method(&self) -> RequestMethod {
        RequestMethod::POST
    }

    fn body(&self) -> Result<Option<Vec<u8>>, ClientError> {
        Ok(Some(self.body.to_string().into_bytes()))
    }
}

/// Signs a login with the credentials that every SDK of AWS would find.
///
/// # Errors
/// There are none.
pub(super) async fn login(mount: &str, role: Option<&str>, server_id: Option<&str>) -> Result<Login, Error> {
    let none = || Error::settings("no AWS credentials were found: give the pod a role, or set AWS_PROFILE");
    let found = async {
        let defaults = aws_config::defaults(BehaviorVersion::latest());
        let config = defaults.region(REGION).http_client(http_client()).load().await;
        let credentials = config.credentials_provider().ok_or_else(none)?;
        credentials.provide_credentials().await.map_err(|_| none())
    };
    let credentials = timeout(DEADLINE, found).await.map_err(|_| Error::slow(DEADLINE))??;
    let body = signed(credentials, role, server_id, SystemTime::now())
        .ok_or_else(|| Error::settings("the request to STS cannot be signed"))?;
    Ok(Login { mount: mount.to_owned(), body })
}

fn signed(credentials: Credentials, role: Option<&str>, server_id: Option<&str>, now: SystemTime) -> Option<Value> {
    let mut headers = vec![("content-type", TYPE), ("host", HOST)];
    headers.extend(server_id.map(|id| ("x-vault-aws-iam-server-id", id)));
    let identity = credentials.into();
    let params = SigningParams::builder()
        .identity(&identity)
        .region(REGION)
        .name("sts")
        .time(now)
        .settings(SigningSettings::default())
        .build()
        .ok()?;
    let asked =
        SignableRequest::new("POST", STS, headers.iter().copied(), SignableBody::Bytes(BODY.as_bytes())).ok()?;
    let (instructions, _) = sign(asked, &params.into()).ok()?.into_parts();
    let mut all: Map<String, Value> =
        headers.iter().map(|(name, value)| ((*name).to_owned(), json!([value]))).collect();
    all.extend(instructions.headers().map(|(name, value)| (name.to_owned(), json!([value]))));
    let mut body = json!({
        "iam_http_request_method": "POST",
        "iam_request_url": STANDARD.encode_to_string(STS),
        "iam_request_body": STANDARD.encode_to_string(BODY),
        "iam_request_headers": STANDARD.encode_to_string(Value::Object(all).to_string()),
    });
    if let (Some(role), Some(body)) = (role, body.as_object_mut()) {
        body.insert("role".to_owned(), json!(role));
    }
    Some(body)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use aws_credential_types::Credentials;
    use base64_simd::STANDARD;
    use serde_json::Value;

    use super::signed;

    /// What botocore 1.43 signs for these credentials at that time (recorded; made by `tests/tools/vault_aws_login.py`).
    const RECORDED: &str = include_str!("aws_login.json");

    #[test]
    fn a_login_is_signed_as_botocore_signs_it() {
        let recorded: Value = serde_json::from_str(RECORDED).unwrap();
        let credentials = Credentials::new(
            "AKIDEXAMPLE",
            "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            Some("token".to_owned()),
            None,
            "test",
        );
        let now = UNIX_EPOCH + Duration::from_secs(1_795_000_000);
        let body = signed(credentials, Some("web"), Some("vault.example"), now).unwrap();
        for name in ["iam_http_request_method", "iam_request_url", "iam_request_body", "role"] {
            assert_eq!(body[name], recorded[name], "{name}");
        }
        let headers = |body: &Value| -> Value {
            let text = STANDARD.decode_to_vec(body["iam_request_headers"].as_str().unwrap()).unwrap();
            let map: serde_json::Map<String, Value> = serde_json::from_slice(&text).unwrap();
            map.into_iter()
                .map(|(name, value)| (name.to_ascii_lowercase(), value))
                .collect::<serde_json::Map<_, _>>()
                .into()
        };
        let (ours, theirs) = (headers(&body), headers(&recorded));
        assert_eq!(ours, theirs);
    }
}
