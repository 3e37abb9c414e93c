//! A gRPC service on a Unix socket, in a thread of its own.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixListener;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::body::Body;
use tower_service::Service;

/// A service that listens; it ends with its test.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    /// How often connections were cut; none is the end.
    cuts: watch::Sender<Option<u64>>,
    runtime: Handle,
    thread: Option<JoinHandle<()>>,
}

/// A server that has stopped in the middle of everything, its sockets open; it goes on when this ends.
#[derive(Debug)]
pub struct Frozen {
    _until: std::sync::mpsc::Sender<()>,
}

impl Socket {
    /// Listens at a path that is free.
    pub fn serve<S>(path: &Path, service: S) -> Self
    where
        S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
        S::Future: Send,
    {
        let (cuts, told) = watch::channel(Some(0));
        let (ready, listening) = std::sync::mpsc::channel();
        let own = path.to_owned();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = UnixListener::bind(own).unwrap();
                ready.send(Handle::current()).unwrap();
                serve(listener, service, told).await;
            });
        });
        let runtime = listening.recv().unwrap();
        Self { path: path.to_owned(), cuts, runtime, thread: Some(thread) }
    }

    /// Cuts every connection.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts.as_mut().unwrap() += 1);
    }

    /// Stops as a stopped process does: its one thread waits.
    pub fn freeze(&self) -> Frozen {
        let (until, ends) = std::sync::mpsc::channel::<()>();
        self.runtime.spawn(async move {
            let _ = ends.recv();
        });
        Frozen { _until: until }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.cuts.send_replace(None);
        let _ = self.thread.take().unwrap().join();
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn serve<S>(listener: UnixListener, service: S, mut told: watch::Receiver<Option<u64>>)
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    let mut connections = JoinSet::new();
    let mut cuts = 0;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let service = service.clone();
                let service = service_fn(move |request| service.clone().call(request));
                let io = TokioIo::new(accepted.unwrap().0);
                connections.spawn(async move {
                    // A client that goes away is no news.
                    let _ = http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await;
                });
            }
            changed = told.wait_for(|now| *now != Some(cuts)) => {
                match *changed.unwrap() {
                    Some(cut) => cuts = cut,
                    None => return,
                }
                connections.abort_all();
            }
        }
    }
}
