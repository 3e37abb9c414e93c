//! `oilskin certs`: asks the running process' admin port and prints what it holds.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::HOST;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use oilskin_config::{Bind, Vars};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::{Exit, Printer, read_file};

/// How long the process may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Largest answer read, in bytes.
const MOST: usize = 16 << 20;

pub(super) fn run(vars: &Vars, printer: &Printer) -> Exit {
    let config = match oilskin_config::parse(vars, &read_file) {
        Ok(config) => config,
        Err(problems) => return printer.problems(&problems),
    };
    let Some(admin) = config.service.admin else {
        return printer.failed("the admin port is off: set OILSKIN_ADMIN_LISTEN for the process and for this command");
    };
    match ask(&admin) {
        Ok(document) => {
            printer.result(text(&document), &document);
            Exit::Done
        }
        Err(error) => {
            let at = crate::app::shown(&admin);
            printer.failed(format_args!(
                "no answer from the admin port ({at}): {error}; is oilskin running with these settings?"
            ))
        }
    }
}

fn ask(admin: &Bind) -> anyhow::Result<Value> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let asking = async {
        let body = match admin {
            Bind::Tcp(address) => get(TcpStream::connect(address).await?).await?,
            Bind::AnyPort(port) => get(TcpStream::connect(("localhost", *port)).await?).await?,
            Bind::Unix(path) => get(UnixStream::connect(path).await?).await?,
        };
        Ok(serde_json::from_slice(&body)?)
    };
    runtime.block_on(async { tokio::time::timeout(PATIENCE, asking).await? })
}

async fn get(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> anyhow::Result<Bytes> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let asking = async move {
        let request = Request::get("/certs").header(HOST, "localhost").body(Empty::<Bytes>::new())?;
        let answer = sender.send_request(request).await?;
        anyhow::ensure!(answer.status().is_success(), "it answered {}", answer.status());
        let body = Limited::new(answer.into_body(), MOST).collect().await;
        Ok(body.map_err(|error| anyhow::anyhow!(error))?.to_bytes())
    };
    // What goes wrong with the connection shows in the answer.
    let (answer, _) = tokio::join!(asking, connection);
    answer
}

/// A paragraph for each source.
fn text(document: &Value) -> String {
    let mut text = String::new();
    let certificates = document.get("certificates").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for certificate in certificates {
        let of = |key: &str| certificate.get(key).and_then(Value::as_str).unwrap_or("-");
        if !text.is_empty() {
            text.push_str("\n\n");
        }
        text.push_str(&Printer::strong(of("source")));
        if let Some(days) = certificate.get("days_left").and_then(Value::as_i64) {
            let names = certificate.get("names").and_then(Value::as_array).into_iter().flatten();
            let names: Vec<&str> = names.filter_map(Value::as_str).collect();
            let _ = write!(text, "\n  names      {}\n  serial     {}", names.join(", "), of("serial"));
            let _ =
                write!(text, "\n  issuer     {}\n  ends       {} ({days} days left)", of("issuer"), of("not_after"));
        }
        let _ = write!(text, "\n  last swap  {}", of("last_swap"));
        if let Some(refusal) = certificate.get("last_refusal").filter(|refusal| !refusal.is_null()) {
            let of = |key: &str| refusal.get(key).and_then(Value::as_str).unwrap_or("-");
            let _ = write!(text, "\n  refused    {}: {} ({})", of("at"), of("text"), of("reason"));
        }
    }
    if text.is_empty() { "no certificate is in use".to_owned() } else { text }
}
