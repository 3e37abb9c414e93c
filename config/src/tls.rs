//! What TLS asks of a configuration.

use std::fmt;

use crate::Source;

/// What a listener asks of its peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientAuth {
    /// Nothing.
    #[default]
    None,
    /// A certificate may be sent; one that is sent must be good.
    Optional,
    /// No connection without a good certificate.
    Required,
}

/// TLS on a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerTls {
    /// Where its certificates come from; the first serves whoever asks for no name that another one has.
    pub identities: Vec<Source>,
    /// Whether peers must show who they are.
    pub client_auth: ClientAuth,
    /// Who may connect; empty: whoever the authorities vouch for.
    pub allow: Vec<PeerPattern>,
    /// TLS 1.2, too.
    pub tls12: bool,
    /// Set `X-Forwarded-Client-Cert` anew from the peer's certificate.
    pub forward_client_cert: bool,
}

/// TLS towards an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Our certificate, and the authorities that the upstream's is checked against.
    pub identity: Source,
    /// The authorities are those alone, not the system's beside them.
    pub only_own_ca: bool,
    /// The name it is asked for and checked against, where that is not the URL's host.
    pub server_name: Option<String>,
    /// Who the upstream must be; empty: the name decides.
    pub allow: Vec<PeerPattern>,
    /// TLS 1.2, too.
    pub tls12: bool,
}

/// Which names in a certificate are meant.
#[derive(Clone, PartialEq, Eq)]
pub enum PeerPattern {
    /// A SPIFFE ID: its trust domain, and path segments in which `*` stands for one and a last `**` for any number.
    Spiffe {
        /// The trust domain.
        domain: String,
        /// The path's segments.
        path: Vec<String>,
    },
    /// A DNS name; a first label `*` stands for any one label.
    Dns(String),
    /// A URI, exactly.
    Uri(String),
}

impl PeerPattern {
    /// Reads `spiffe://DOMAIN/PATH`, `dns:NAME` or `uri:URI`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(id) = text.strip_prefix("spiffe://") {
            let (domain, path) = spiffe(id, true)?;
            return Ok(Self::Spiffe { domain: domain.to_owned(), path: path.into_iter().map(str::to_owned).collect() });
        }
        if let Some(name) = text.strip_prefix("dns:") {
            return match is_dns_name(name.strip_prefix("*.").unwrap_or(name)) {
                true => Ok(Self::Dns(name.to_ascii_lowercase())),
                false => Err(format!("{name} is no DNS name; a * may only be its whole first label")),
            };
        }
        match text.strip_prefix("uri:") {
            Some(uri) if uri.contains(':') => Ok(Self::Uri(uri.to_owned())),
            _ => Err("must be spiffe://DOMAIN/PATH, dns:NAME or uri:URI".to_owned()),
        }
    }

    /// Whether it means this DNS name of a certificate. A wildcard in the certificate means itself only.
    pub fn is_dns(&self, name: &str) -> bool {
        let Self::Dns(pattern) = self else { return false };
        match pattern.strip_prefix("*.") {
            None => name.eq_ignore_ascii_case(pattern),
            Some(rest) => name
                .split_once('.')
                .is_some_and(|(first, own)| !first.is_empty() && first != "*" && own.eq_ignore_ascii_case(rest)),
        }
    }

    /// Whether it means this URI of a certificate.
    pub fn is_uri(&self, uri: &str) -> bool {
        match self {
            Self::Dns(_) => false,
            Self::Uri(pattern) => uri == pattern,
            Self::Spiffe { domain, path } => {
                let Some(Ok((own, segments))) = uri.strip_prefix("spiffe://").map(|id| spiffe(id, false)) else {
                    return false;
                };
                own == domain && fits(path, &segments)
            }
        }
    }
}

impl fmt::Debug for PeerPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spiffe { domain, path } => {
                write!(f, "spiffe://{domain}")?;
                path.iter().try_for_each(|segment| write!(f, "/{segment}"))
            }
            Self::Dns(name) => write!(f, "dns:{name}"),
            Self::Uri(uri) => write!(f, "uri:{uri}"),
        }
    }
}

/// Labels of letters, digits, dashes and underscores.
pub(crate) fn is_dns_name(name: &str) -> bool {
    let in_label = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    name.len() <= 253 && name.split('.').all(|label| !label.is_empty() && label.bytes().all(in_label))
}

/// The trust domain of a workload's SPIFFE ID; none where the URI is none, or has no path and so means the whole domain.
pub fn trust_domain(uri: &str) -> Option<&str> {
    let (domain, path) = spiffe(uri.strip_prefix("spiffe://")?, false).ok()?;
    (!path.is_empty()).then_some(domain)
}

/// Trust domain and path segments of a SPIFFE ID without its scheme (SPIFFE-ID, section 2): at most 2,048 bytes, no port, user,
/// query or fragment, no empty segment, `.` or `..`. In a pattern `*` and a last `**` are segments as well.
fn spiffe(id: &str, pattern: bool) -> Result<(&str, Vec<&str>), String> {
    let wrong = |what: &str| Err(format!("spiffe://{id} is no SPIFFE ID: {what}"));
    if id.len() > 2048 - "spiffe://".len() {
        return wrong("it is longer than 2,048 bytes");
    }
    let (domain, path) = match id.split_once('/') {
        None => (id, Vec::new()),
        Some((domain, path)) => (domain, path.split('/').collect()),
    };
    let in_domain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_');
    if domain.is_empty() || domain.len() > 255 || !domain.bytes().all(in_domain) {
        return wrong("its trust domain is lower-case letters, digits, dots, dashes and underscores");
    }
    let in_path = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    for (at, segment) in path.iter().enumerate() {
        let star = *segment == "*" || (*segment == "**" && at + 1 == path.len());
        let plain = !segment.is_empty() && !matches!(*segment, "." | "..") && segment.bytes().all(in_path);
        if !(plain || (pattern && star)) {
            return wrong("a segment of its path is letters, digits, dots, dashes and underscores");
        }
    }
    Ok((domain, path))
}

fn fits(pattern: &[String], path: &[&str]) -> bool {
    match (pattern.split_first(), path.split_first()) {
        (None, None) => true,
        (Some((star, [])), Some(_)) if star == "**" => true,
        (Some((wanted, pattern)), Some((segment, path))) => (wanted == "*" || wanted == segment) && fits(pattern, path),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{PeerPattern, trust_domain};

    fn uri(pattern: &str, uri: &str) -> bool {
        PeerPattern::parse(pattern).unwrap().is_uri(uri)
    }

    #[test]
    fn a_star_is_one_segment_and_two_are_the_rest() {
        assert!(uri("spiffe://a.b/ns/x/sa/y", "spiffe://a.b/ns/x/sa/y"));
        assert!(uri("spiffe://a.b/ns/*/sa/y", "spiffe://a.b/ns/x/sa/y"));
        assert!(uri("spiffe://a.b/ns/**", "spiffe://a.b/ns/x/sa/y"));
        for other in [
            "spiffe://a.b/ns/x/z/sa/y",
            "spiffe://a.b/ns/x/sa/Y",
            "spiffe://a.b.c/ns/x/sa/y",
            "spiffe://A.b/ns/x/sa/y",
            "spiffe://a.b/ns/x/sa/y/",
            "spiffe://a.b/ns//sa/y",
            "spiffe://a.b/ns/../sa/y",
            "spiffe://a.b/ns/%78/sa/y",
            "spiffe://a.b:1/ns/x/sa/y",
            "spiffe://u@a.b/ns/x/sa/y",
            "spiffe://a.b/ns/x/sa/y?q",
            "spiffe://a.b/ns/x/sa/y#f",
            "https://a.b/ns/x/sa/y",
            "SPIFFE://a.b/ns/x/sa/y",
        ] {
            assert!(!uri("spiffe://a.b/ns/*/sa/y", other), "{other}");
        }
        assert!(!uri("spiffe://a.b/ns/**", "spiffe://a.b/ns"));
    }

    #[test]
    fn a_dns_star_is_one_label() {
        let pattern = PeerPattern::parse("dns:*.Example.com").unwrap();
        assert!(pattern.is_dns("a.example.com"));
        for other in
            ["example.com", "a.b.example.com", ".example.com", "*.example.com", "aexample.com", "a.example.com\0"]
        {
            assert!(!pattern.is_dns(other), "{other}");
        }
    }

    #[test]
    fn a_workload_s_id_has_a_domain_and_a_path() {
        assert_eq!(trust_domain("spiffe://a.b/ns/x"), Some("a.b"));
        for other in
            ["spiffe://a.b", "spiffe://a.b/", "spiffe://A.b/x", "spiffe:///x", "https://a.b/x", "spiffe://a.b/*"]
        {
            assert_eq!(trust_domain(other), None, "{other}");
        }
    }

    #[test]
    fn patterns_are_checked() {
        for wrong in [
            "spiffe://",
            "spiffe://A/b",
            "spiffe://a/**/b",
            "spiffe://a/b*",
            "dns:",
            "dns:a.*.b",
            "dns:*",
            "uri:x",
            "x",
        ] {
            assert!(PeerPattern::parse(wrong).is_err(), "{wrong}");
        }
    }
}
