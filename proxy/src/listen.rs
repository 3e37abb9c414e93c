//! Sockets we accept from.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener as StdUnixListener;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use oilskin_config::Bind;
use socket2::{Domain, Protocol, Socket, Type};

use crate::stream::Stream;

/// Connections the kernel keeps for us before we accept them.
const BACKLOG: i32 = 1024;

/// A listening socket, bound but not yet tied to a runtime.
#[derive(Debug)]
pub(crate) enum Bound {
    /// TCP.
    Tcp(std::net::TcpListener),
    /// A Unix socket and its path.
    Unix(StdUnixListener, PathBuf),
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(socket) => match socket.local_addr() {
                Ok(address) => address.fmt(f),
                Err(error) => error.fmt(f),
            },
            Self::Unix(_, path) => path.display().fmt(f),
        }
    }
}

impl Bound {
    /// Where a TCP socket really listens; none for a Unix one.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(socket) => socket.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }

    /// A second socket for a further worker: on TCP one of its own at the same address (the kernel spreads connections
    /// by `SO_REUSEPORT`), on Unix the same one.
    pub(crate) fn another(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(socket) => Ok(Self::Tcp(tcp(socket.local_addr()?)?)),
            Self::Unix(socket, path) => Ok(Self::Unix(socket.try_clone()?, path.clone())),
        }
    }
}

/// Binds.
///
/// # Errors
/// What the system says; a Unix path that something still listens on is `AddrInUse`.
pub(crate) fn bind(bind: &Bind) -> io::Result<Bound> {
    match bind {
        Bind::Tcp(address) => first(*address).map(Bound::Tcp),
        Bind::AnyPort(port) => match first((Ipv6Addr::UNSPECIFIED, *port).into()) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(error),
            Err(_) => first((Ipv4Addr::UNSPECIFIED, *port).into()),
            bound => bound,
        }
        .map(Bound::Tcp),
        Bind::Unix(path) => unix(path).map(|socket| Bound::Unix(socket, path.clone())),
    }
}

/// With `SO_REUSEPORT` alone a second process would share the port in silence, and each would get half of the requests.
fn first(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let alone = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    alone.set_reuse_address(true)?;
    alone.bind(&address.into())?;
    drop(alone);
    tcp(address)
}

fn tcp(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A socket file left by a process that is gone is replaced; a live one, or any other file, is not.
fn unix(path: &Path) -> io::Result<StdUnixListener> {
    if let Ok(found) = std::fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file that is no socket stands there"));
        }
        if std::os::unix::net::UnixStream::connect(path).is_ok() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        std::fs::remove_file(path)?;
    }
    let socket = StdUnixListener::bind(path)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Removes a Unix socket's file when the process is done with it.
pub(crate) struct SocketFile(PathBuf);

impl SocketFile {
    pub(crate) fn of(bound: &Bound) -> Option<Self> {
        match bound {
            Bound::Tcp(_) => None,
            Bound::Unix(_, path) => Some(Self(path.clone())),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Already gone is as good.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A listening socket of one worker.
pub(crate) enum Listening {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl Listening {
    pub(crate) fn new(bound: Bound) -> io::Result<Self> {
        match bound {
            Bound::Tcp(socket) => tokio::net::TcpListener::from_std(socket).map(Self::Tcp),
            Bound::Unix(socket, _) => tokio::net::UnixListener::from_std(socket).map(Self::Unix),
        }
    }

    pub(crate) async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(socket) => {
                let (stream, _) = socket.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
            Self::Unix(socket) => Ok(Stream::Unix(socket.accept().await?.0)),
        }
    }
}
