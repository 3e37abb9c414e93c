//! Which bodies a reader exists for.

use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderValue};

/// How a body is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    /// Rewritten as JSON.
    Json,
    /// No content type: JSON if it begins so.
    Sniff,
    /// No reader takes it.
    Unreadable,
    /// A reader would take it, but not in this coding.
    Coded,
    /// It says twice what it is: its reader may believe the other one.
    Twice,
}

/// Decides by type and coding. More than one of either cannot be trusted to mean what we think.
pub(crate) fn reading(headers: &HeaderMap) -> Reading {
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let readable = match (types.next(), types.next()) {
        (None, _) => Reading::Sniff,
        (Some(one), None) if is_json(one) => Reading::Json,
        (Some(_), Some(_)) => Reading::Twice,
        _ => Reading::Unreadable,
    };
    let coded = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .any(|coding| !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity"));
    match readable {
        Reading::Json | Reading::Sniff if coded => Reading::Coded,
        other => other,
    }
}

/// The media type alone, without parameters.
fn essence(value: &str) -> &str {
    value.split(';').next().unwrap_or_default().trim()
}

/// `application/json`, `text/json`, `…+json`, in UTF-8. `json-patch+json` carries paths in its values and is none.
fn is_json(value: &HeaderValue) -> bool {
    if value.as_bytes() == b"application/json" {
        return true;
    }
    let Ok(value) = value.to_str() else {
        return false;
    };
    let kind = essence(value).to_ascii_lowercase();
    let json = kind == "application/json" || kind == "text/json" || kind.ends_with("+json");
    json && kind != "application/json-patch+json" && charset_is_utf8(value)
}

fn charset_is_utf8(value: &str) -> bool {
    value.split(';').skip(1).filter_map(|parameter| parameter.split_once('=')).all(|(name, value)| {
        let value = value.trim().trim_matches('"');
        !name.trim().eq_ignore_ascii_case("charset")
            || ["utf-8", "utf8", "us-ascii"].iter().any(|known| value.eq_ignore_ascii_case(known))
    })
}

/// Whether the route lists this type as opaque (`image/*`, `application/pdf`).
pub(crate) fn is_opaque(headers: &HeaderMap, opaque: &[String]) -> bool {
    if opaque.is_empty() {
        return false;
    }
    let mut types = headers.get_all(CONTENT_TYPE).iter();
    let (Some(one), None) = (types.next(), types.next()) else {
        return false;
    };
    let Ok(one) = one.to_str() else { return false };
    let kind = essence(one).to_ascii_lowercase();
    opaque.iter().any(|listed| match listed.strip_suffix("/*") {
        Some(family) => kind.split_once('/').is_some_and(|(of, _)| of == family),
        None => kind == *listed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: &str, coding: Option<&str>) -> Reading {
        let mut headers = HeaderMap::new();
        if !kind.is_empty() {
            headers.insert(CONTENT_TYPE, kind.parse().unwrap());
        }
        if let Some(coding) = coding {
            headers.insert(CONTENT_ENCODING, coding.parse().unwrap());
        }
        reading(&headers)
    }

    #[test]
    fn only_json_in_utf8_is_read() {
        for kind in [
            "application/json",
            "Application/JSON; charset=UTF-8",
            "text/json",
            "application/vnd.api+json",
            "application/merge-patch+json",
        ] {
            assert_eq!(of(kind, None), Reading::Json, "{kind}");
        }
        for kind in [
            "application/json-patch+json",
            "application/x-ndjson",
            "text/event-stream",
            "text/html",
            "application/json; charset=utf-16",
            "multipart/form-data; boundary=x",
            "application/x-www-form-urlencoded",
            "json",
            "application/jsonp",
        ] {
            assert_eq!(of(kind, None), Reading::Unreadable, "{kind}");
        }
        assert_eq!(of("", None), Reading::Sniff);
    }

    #[test]
    fn a_coding_is_not_undone_yet() {
        assert_eq!(of("application/json", Some("gzip")), Reading::Coded);
        assert_eq!(of("application/json", Some("identity")), Reading::Json);
        assert_eq!(of("text/html", Some("gzip")), Reading::Unreadable);
    }

    #[test]
    fn opaque_types_are_named_or_a_family() {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, "Image/PNG".parse().unwrap());
        assert!(is_opaque(&headers, &["image/*".to_owned()]));
        assert!(is_opaque(&headers, &["image/png".to_owned()]));
        assert!(!is_opaque(&headers, &["text/*".to_owned()]));
    }
}
