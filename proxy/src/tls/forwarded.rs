//! `X-Forwarded-Client-Cert`, as Envoy writes it: `By=…;Hash=…;Subject="…";URI=…;DNS=…`.

use http::HeaderValue;
use ring::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;
use x509_parser::prelude::{FromDer, X509Certificate};

/// What the app is told of the peer; none where its certificate cannot be told.
pub(super) fn value(leaf: &CertificateDer<'_>, ours: Option<&CertificateDer<'_>>) -> Option<HeaderValue> {
    let mut pairs = Vec::new();
    let own = ours.and_then(|own| EndEntityCert::try_from(own).ok());
    if let Some(uri) = own.as_ref().and_then(|own| own.valid_uri_names().next()) {
        pairs.push(pair("By", uri));
    }
    let hash: String = digest(&SHA256, leaf.as_ref()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    pairs.push(pair("Hash", &hash));
    let (_, parsed) = X509Certificate::from_der(leaf.as_ref()).ok()?;
    pairs.push(format!("Subject=\"{}\"", escaped(&parsed.subject().to_string())));
    let names = EndEntityCert::try_from(leaf).ok()?;
    pairs.extend(names.valid_uri_names().map(|uri| pair("URI", uri)));
    pairs.extend(names.valid_dns_names().map(|name| pair("DNS", name)));
    HeaderValue::from_str(&pairs.join(";")).ok()
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"")
}

/// A value with a separator in it stands in quotes.
fn pair(key: &str, value: &str) -> String {
    match value.contains([',', ';', '=', '"']) {
        true => format!("{key}=\"{}\"", escaped(value)),
        false => format!("{key}={value}"),
    }
}
