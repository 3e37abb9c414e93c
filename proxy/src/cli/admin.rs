//! Asks the running process' admin port.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::HOST;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use oilskin_config::Bind;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

/// How long the process may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Largest answer read, in bytes.
const MOST: usize = 16 << 20;

/// The document at a path.
///
/// # Errors
/// No answer, or one that is none.
pub(super) async fn ask(admin: &Bind, path: &str) -> anyhow::Result<Value> {
    let asking = async {
        let body = match admin {
            Bind::Tcp(address) => get(TcpStream::connect(address).await?, path).await?,
            Bind::AnyPort(port) => get(TcpStream::connect(("localhost", *port)).await?, path).await?,
            Bind::Unix(socket) => get(UnixStream::connect(socket).await?, path).await?,
        };
        Ok(serde_json::from_slice(&body)?)
    };
    timeout(PATIENCE, asking).await?
}

async fn get(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, path: &str) -> anyhow::Result<Bytes> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let asking = async move {
        let request = Request::get(path).header(HOST, "localhost").body(Empty::<Bytes>::new())?;
        let answer = sender.send_request(request).await?;
        anyhow::ensure!(answer.status().is_success(), "it answered {}", answer.status());
        let body = Limited::new(answer.into_body(), MOST).collect().await;
        Ok(body.map_err(|error| anyhow::anyhow!(error))?.to_bytes())
    };
    // What goes wrong with the connection shows in the answer.
    let (answer, _) = tokio::join!(asking, connection);
    answer
}
