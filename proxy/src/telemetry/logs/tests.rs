use std::io;
use std::sync::{Arc, Mutex};

use http::StatusCode;

use super::*;
use crate::error::Code;

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<Vec<u8>>>>);

impl io::Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().push(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The writes that `work` caused.
fn logged(filter: &str, format: Option<LogFormat>, terminal: bool, work: impl FnOnce()) -> Vec<String> {
    let sink = Sink::default();
    let target = sink.clone();
    let log = Log { filter: filter.to_owned(), format };
    let subscriber = subscriber(&log, terminal, move || target.clone()).unwrap();
    tracing::subscriber::with_default(subscriber, work);
    let writes = sink.0.lock().unwrap();
    writes.iter().map(|write| String::from_utf8(write.clone()).unwrap()).collect()
}

fn line(id: &RequestId, status: u16, end: End) -> RequestLine<'_> {
    RequestLine {
        listener: "out",
        method: "PUT",
        route: "customers",
        status,
        end,
        reason: None,
        rule: Some("$..ssn"),
        upstream: None,
        bytes_in: 370,
        bytes_out: 12,
        elapsed: Duration::from_nanos(1_234_567),
        request_id: id,
    }
}

#[test]
fn a_request_is_one_json_object_in_one_write() {
    let id = RequestId::from_static("r1");
    let writes = logged("info", None, false, || line(&id, 400, End::Refused(Code::Malformed)).emit());
    assert_eq!(writes.len(), 1);
    let object: serde_json::Value = serde_json::from_str(&writes[0]).unwrap();
    assert_eq!(object["level"], "INFO");
    assert_eq!(object["target"], "oilskin::request");
    assert_eq!(object["code"], "malformed");
    assert_eq!(object["status"], 400);
    assert_eq!(object["rule"], "$..ssn");
    assert_eq!(object["bytes_in"], 370);
    assert_eq!(object["ms"], 1.235);
    assert_eq!(object["request_id"], "r1");
    assert!(object.get("upstream").is_none());
    assert!(object["time"].as_str().unwrap().ends_with('Z'));
}

#[test]
fn text_has_colour_on_a_terminal_only() {
    let hello = || tracing::info!(a = 1, b = "two words", "hello");
    let piped = logged("info", Some(LogFormat::Text), false, hello);
    assert!(piped[0].ends_with("hello a=1 b=\"two words\"\n"), "{piped:?}");
    assert!(!piped[0].contains('\x1b'));
    assert!(logged("info", None, true, hello)[0].contains('\x1b'));
    assert!(!logged("info", Some(LogFormat::Json), true, hello)[0].contains('\x1b'));
}

#[test]
fn nothing_from_outside_breaks_a_line() {
    let evil = "a\r\n\x1b[31mINFO forged\u{85}\u{2028}\u{202e}\u{7f}\"\\";
    for format in [LogFormat::Text, LogFormat::Json] {
        let writes = logged("info", Some(format), false, || tracing::warn!(evil, also = ?evil, "said {evil}"));
        let body = writes[0].strip_suffix('\n').unwrap();
        assert!(!body.chars().any(|c| c.is_control() || c == '\u{2028}' || c == '\u{202e}'), "{body:?}");
    }
    let writes = logged("info", None, false, || tracing::warn!(evil, "said"));
    let object: serde_json::Value = serde_json::from_str(&writes[0]).unwrap();
    assert_eq!(object["evil"], evil);
}

#[test]
fn plain_success_is_wanted_only_with_an_access_log() {
    let ok = End::Answered(StatusCode::NO_CONTENT);
    logged("info", None, false, || {
        assert!(!RequestLine::wanted(ok, false));
        assert!(RequestLine::wanted(ok, true));
        assert!(RequestLine::wanted(End::Answered(StatusCode::NOT_FOUND), false));
        assert!(RequestLine::wanted(End::Aborted, false));
    });
    logged("off", None, false, || assert!(!RequestLine::wanted(End::Aborted, true)));
}

#[test]
fn cut_and_failed_requests_are_warnings() {
    let id = RequestId::from_static("r1");
    let writes = logged("warn", None, false, || {
        line(&id, 200, End::Answered(StatusCode::OK)).emit();
        line(&id, 200, End::Aborted).emit();
        line(&id, 502, End::Refused(Code::UpstreamClosed)).emit();
    });
    assert_eq!(writes.len(), 2);
    assert!(writes[0].contains("\"code\":\"aborted\""));
}

#[test]
fn refuses_a_filter_that_is_none() {
    let log = Log { filter: "oilskin=loudly".to_owned(), format: None };
    assert!(matches!(subscriber(&log, false, io::sink), Err(LogError::Filter(_))));
}
