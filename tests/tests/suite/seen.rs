//! What is seen from outside: log lines, metrics, and that neither ever holds a value.

use oilskin_tests::client::json;
use oilskin_tests::keys::Keys;
use oilskin_tests::{Client, Message, Process, Upstream, Wire, tools};
use serde_json::Value;

const JSON: (&str, &str) = ("content-type", "application/json");

fn start(upstream: &Upstream, more: &[(&str, &str)]) -> Process {
    let yaml = format!(
        "listeners: [{{name: out, bind: 127.0.0.1:0, direction: egress}}]\nupstreams: {{crm: {{url: \"{}\"}}}}\nroutes:\n\
         - {{name: quiet, match: {{listener: out, path: \"/quiet/{{*rest}}\"}}, upstream: crm, fields: [{{select: $.ssn, name: ssn-rule}}]}}\n\
         - {{name: loud, match: {{listener: out, path: \"/loud/{{*rest}}\"}}, upstream: crm, access_log: true}}\n",
        upstream.url()
    );
    let mut vars = vec![("OILSKIN_CONFIG_YAML", yaml.as_str())];
    vars.extend_from_slice(more);
    Process::start(&Keys::new(), &vars)
}

/// The lines about requests, read as JSON; every line must be readable so.
fn request_lines(process: &Process) -> Vec<Value> {
    let lines = process.log();
    let lines = lines.iter().map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|_| panic!("{line}")));
    lines.filter(|line| line["target"] == "oilskin::request").collect()
}

#[test]
fn one_line_is_logged_for_each_request_that_is_no_plain_success_and_for_all_where_it_is_asked_for() {
    let upstream = Upstream::echo();
    let process = start(&upstream, &[]);
    let ask = |method: &str, path: &str, body: &str| json(process.address(), method, path, body);
    for _ in 0..3 {
        assert_eq!(ask("POST", "/quiet/a", r#"{"ssn":"1"}"#).status(), 200);
        assert_eq!(ask("POST", "/loud/a", r#"{"ssn":"1"}"#).status(), 200);
    }
    let refused = ask("POST", "/quiet/b", r#"{"ssn":"#);
    assert_eq!(ask("GET", "/nowhere", "").status(), 404);
    let huge = format!("{{\"ssn\":\"{}\"}}", "y".repeat(2 << 20));
    assert_eq!(ask("PUT", "/quiet/c", &huge).status(), 413);
    process.logged(|line| line.contains("too_large"));
    let lines = request_lines(&process);
    assert_eq!(lines.len(), 6, "{lines:#?}");
    for line in &lines[..3] {
        assert_eq!((line["route"].as_str(), line["status"].as_u64()), (Some("loud"), Some(200)));
        assert_eq!((line["level"].as_str(), line["upstream"].as_str()), (Some("INFO"), Some("crm")));
        assert_eq!((line["bytes_in"].as_u64(), line["bytes_out"].as_u64()), (Some(11), Some(11)));
    }
    let line = &lines[3];
    assert_eq!(line["code"], "truncated");
    assert_eq!(line["bytes_in"], 7, "what was read of a refused body");
    assert_eq!(line["request_id"].as_str(), refused.header("x-request-id"));
    for (name, value) in [("listener", "out"), ("method", "POST"), ("route", "quiet")] {
        assert_eq!(line[name], value);
    }
    assert!(line["ms"].is_number() && line["time"].is_string(), "{line}");
    assert_eq!((lines[4]["route"].as_str(), lines[4]["code"].as_str()), (Some("-"), Some("no_route")));
    assert_eq!(lines[5]["rule"], "ssn-rule");
    let read = lines[5]["bytes_in"].as_u64().unwrap();
    assert!((1 << 20..=2 << 21).contains(&read), "{read}");
}

#[test]
fn metrics_have_the_names_and_labels_that_were_promised() {
    let upstream = Upstream::echo();
    let process = start(&upstream, &[]);
    let ask = |path: &str, body: &str| json(process.address(), "POST", path, body);
    for _ in 0..3 {
        ask("/quiet/a", r#"{"ssn":"1"}"#);
    }
    ask("/quiet/a", r#"{"ssn":"#);
    ask("/nowhere", "{}");
    let page = process.metrics_page();
    for line in [
        "oilskin_requests_total{listener=\"out\",route=\"quiet\",code=\"2xx\"} 3",
        "oilskin_requests_total{listener=\"out\",route=\"quiet\",code=\"truncated\"} 1",
        "oilskin_requests_total{listener=\"out\",route=\"-\",code=\"no_route\"} 1",
        "oilskin_fields_total{rule=\"ssn-rule\",op=\"encrypt\",result=\"ok\"} 3",
        "oilskin_fields_total{rule=\"ssn-rule\",op=\"decrypt\",result=\"ok\"} 3",
        "oilskin_bodies_not_inspected_total{route=\"quiet\"} 0",
        "oilskin_request_seconds_count 5",
        "oilskin_config_generation 1",
        "oilskin_config_reload_failed 0",
        "oilskin_keyset_epoch{keyset=\"default\"} 1",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
    }
    for side in ["app", "upstream"] {
        assert!(page.contains(&format!("oilskin_connections{{side=\"{side}\"}} ")), "{page}");
    }
    assert!(page.ends_with("# EOF\n"));
    // Health is a page of its own, and knows no metrics.
    assert_eq!(json(process.health, "GET", "/ready", "").text(), r#"{"ready":true}"#);
    assert_eq!(json(process.health, "GET", "/metrics", "").status(), 404);
    assert_eq!(json(process.metrics, "GET", "/ready", "").status(), 404);
}

#[test]
fn open_connections_are_counted_on_both_sides() {
    let upstream = Upstream::echo();
    let process = start(&upstream, &[("OILSKIN_WORKERS", "1")]);
    let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(process.address())).collect();
    for client in &mut clients {
        assert_eq!(client.request("POST", "/quiet/a", &[JSON], b"{}").status(), 200);
    }
    let page = process.metrics_page();
    assert!(page.contains("oilskin_connections{side=\"app\"} 3\n"), "{page}");
    assert!(page.contains("oilskin_connections{side=\"upstream\"} 1\n"), "{page}");
    drop(clients);
    tools::until("the app's connections to be gone", || {
        process.metrics_page().contains("oilskin_connections{side=\"app\"} 0\n").then_some(())
    });
}

const CANARY: &str = "canary-4c1f9e";

/// Requests that carry the canary in every place, of every outcome.
fn sing(process: &Process, answers: &mut Vec<Message>) {
    let path = |route: &str| format!("/{route}/{CANARY}?q={CANARY}");
    let secret = format!("Bearer {CANARY}");
    let fields = [JSON, ("authorization", secret.as_str()), ("cookie", secret.as_str()), ("x-canary", CANARY)];
    let fine = format!("{{\"ssn\":\"{CANARY}\",\"other\":\"{CANARY}\",\"{CANARY}\":1}}");
    let huge = format!("{{\"ssn\":\"{}\"}}", CANARY.repeat(100_000));
    let bodies = [
        fine.clone(),
        format!("{{\"ssn\":\"{CANARY}"),
        format!("{{\"ssn\":\"{CANARY}\"}} {CANARY}"),
        format!("{{\"{CANARY}\":{CANARY}}}"),
        huge,
    ];
    for route in ["quiet", "loud", "nowhere"] {
        for body in &bodies {
            answers.push(Client::connect(process.address()).request("POST", &path(route), &fields, body.as_bytes()));
            let answer = Wire::connect(process.address()).request("POST", &path(route), &fields, body.as_bytes());
            answers.push(Message { body: answer.body, ..Message::default() });
        }
    }
    let kind = format!("text/{CANARY}");
    answers.push(Client::connect(process.address()).request(
        "POST",
        &path("quiet"),
        &[("content-type", &kind)],
        fine.as_bytes(),
    ));
    // Framing that does not hold, and words that are no HTTP.
    for raw in [
        format!("GET /{CANARY} HTTP/1.1\r\nHost: a\r\n{CANARY}\r\n\r\n"),
        format!("{CANARY} {CANARY}\r\n\r\n"),
        format!("POST /quiet/{CANARY} HTTP/1.1\r\nHost: a\r\nContent-Length: {CANARY}\r\n\r\n"),
    ] {
        let mut client = Client::connect(process.address());
        client.send(raw);
        client.rest();
    }
}

#[test]
fn nothing_of_a_canary_stands_in_logs_at_trace_level_in_metrics_or_in_answers_of_ours() {
    // Answers hold what cannot be opened: a token of other keys, and a plaintext where a token was due.
    let upstream = Upstream::scripted(|request, stream| {
        let token = format!("{{\"ssn\":\"oil1.{CANARY}\",\"x\":\"{CANARY}\"}}");
        let body = if request.text().contains("other") { token } else { format!("{{\"ssn\":\"{CANARY}\"}}") };
        oilskin_tests::upstream::respond(stream, "200 OK", &[JSON, ("x-canary", CANARY)], body.as_bytes())
    });
    let process = start(&upstream, &[("OILSKIN_LOG", "trace")]);
    let mut answers = Vec::new();
    sing(&process, &mut answers);
    let broken: Vec<_> = answers.iter().filter(|answer| answer.text().contains("urn:oilskin")).collect();
    assert!(broken.len() > 15, "{}", broken.len());
    for answer in broken {
        assert!(!answer.text().contains(CANARY), "{}", answer.text());
    }
    process.logged(|line| line.contains("unsupported_type"));
    let page = process.metrics_page();
    assert!(!page.contains(CANARY), "{page}");
    let log = process.log();
    // The libraries show paths and fields there, so they are silent whatever the filter says.
    assert!(!log.iter().any(|line| line.contains("\"target\":\"h2") || line.contains("\"target\":\"hyper")));
    let decimal = CANARY.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ");
    for line in &log {
        assert!(!line.contains(CANARY), "{line}");
        assert!(!line.contains(&decimal), "{line}");
        // Tokens that we made, too.
        assert!(!line.contains("oil1."), "{line}");
    }
    request_lines(&process);
}
