//! HTTP/2 over a Unix socket for one gRPC stream. Everything that runs for it ends with it.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tonic::body::Body;
use tower_service::Service;

/// A service that has stopped keeps its socket open, and a stream on which nothing comes is nothing new: it is asked this often whether
/// it is there …
const ASKED: Duration = Duration::from_secs(10);

/// … and has this long to answer.
const ANSWERED: Duration = Duration::from_secs(5);

/// A connection that requests can be sent on.
pub(super) struct Connection {
    sender: SendRequest<Body>,
    _tasks: Arc<Mutex<JoinSet<()>>>,
}

/// Spawns into the connection's set; weak, since the tasks in it hold this.
#[derive(Clone)]
struct Tasks(Weak<Mutex<JoinSet<()>>>);

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Tasks {
    fn execute(&self, future: F) {
        if let Some(tasks) = self.0.upgrade() {
            tasks.lock().unwrap_or_else(PoisonError::into_inner).spawn(future);
        }
    }
}

/// Connects. The caller sets the deadline.
///
/// # Errors
/// What the system or HTTP/2 says.
pub(super) async fn connect(socket: &Path) -> io::Result<Connection> {
    let stream = UnixStream::connect(socket).await?;
    let tasks = Arc::new(Mutex::new(JoinSet::new()));
    let executor = Tasks(Arc::downgrade(&tasks));
    let handshake = Builder::new(executor.clone())
        .timer(TokioTimer::new())
        .keep_alive_interval(ASKED)
        .keep_alive_timeout(ANSWERED)
        .handshake(TokioIo::new(stream));
    let (sender, connection) = handshake.await.map_err(io::Error::other)?;
    // Its end is seen by the stream on it, with its own error.
    executor.execute(async move { drop(connection.await) });
    Ok(Connection { sender, _tasks: tasks })
}

impl Service<Request<Body>> for Connection {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = hyper::Result<Response<Incoming>>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.sender.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.sender.send_request(request))
    }
}
