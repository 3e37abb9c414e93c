//! Upstream names: resolved by the system's resolver off the workers, kept for a while, connected to as RFC 8305 says.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// How long an answer of the resolver's is used; a stale one serves while a lookup fails.
const KEPT: Duration = Duration::from_secs(30);

/// Head start of one address before the next is tried beside it (RFC 8305, section 8).
const HEAD_START: Duration = Duration::from_millis(250);

/// Answers of the resolver, shared by all workers.
#[derive(Default)]
pub(crate) struct Names {
    known: Mutex<HashMap<(String, u16), Known>>,
}

#[derive(Clone)]
struct Known {
    addresses: Vec<SocketAddr>,
    at: Instant,
}

impl Names {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Connects to the first address that answers. After a failure with addresses that were kept, they are looked up again.
    ///
    /// # Errors
    /// The resolver's error, or the last connection's. The caller sets the deadline.
    pub(crate) async fn connect(&self, host: &str, port: u16) -> io::Result<TcpStream> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return connected(TcpStream::connect((address, port)).await?);
        }
        let (addresses, fresh) = self.addresses(host, port, false).await?;
        match first(&addresses).await {
            Err(_) if !fresh => {
                let (addresses, _) = self.addresses(host, port, true).await?;
                first(&addresses).await
            }
            outcome => outcome,
        }
    }

    /// The addresses of a name, and whether they were looked up just now.
    async fn addresses(&self, host: &str, port: u16, anew: bool) -> io::Result<(Vec<SocketAddr>, bool)> {
        let key = (host.to_owned(), port);
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(known) = known.as_ref().filter(|known| !anew && known.at.elapsed() < KEPT) {
            return Ok((known.addresses.clone(), false));
        }
        // getaddrinfo(3) blocks: tokio runs it on a thread of its own.
        match tokio::net::lookup_host((host, port)).await {
            Ok(found) => {
                let addresses = interleaved(found.collect());
                let entry = Known { addresses: addresses.clone(), at: Instant::now() };
                self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(key, entry);
                Ok((addresses, true))
            }
            Err(error) => known.map(|stale| (stale.addresses, true)).ok_or(error),
        }
    }
}

/// Connects to a name that is looked up each time: for who connects seldom.
///
/// # Errors
/// The resolver's, or the last connection's. The caller sets the deadline.
#[cfg(feature = "vault")]
pub(crate) async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    first(&interleaved(tokio::net::lookup_host((host, port)).await?.collect())).await
}

/// Families by turns, starting with the one the resolver put first (RFC 8305, section 4).
fn interleaved(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let mut order = Vec::with_capacity(first.len() + second.len());
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    loop {
        let pair = (first.next(), second.next());
        order.extend(pair.0);
        order.extend(pair.1);
        if matches!(pair, (None, None)) {
            return order;
        }
    }
}

fn connected(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    Ok(stream)
}

async fn first(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut left = addresses.iter().copied();
    let mut attempts = JoinSet::new();
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    loop {
        if let Some(address) = left.next() {
            attempts.spawn(TcpStream::connect(address));
        }
        if attempts.is_empty() {
            return Err(last);
        }
        // The others go on while the next one starts; dropping the set ends them.
        match tokio::time::timeout(HEAD_START, attempts.join_next()).await {
            Ok(Some(Ok(Ok(stream)))) => return connected(stream),
            Ok(Some(Ok(Err(error)))) => last = error,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_take_turns() {
        let addresses =
            |text: &str| text.split(' ').map(|address| address.parse().unwrap()).collect::<Vec<SocketAddr>>();
        assert_eq!(
            interleaved(addresses("[::1]:1 [::2]:1 1.1.1.1:1 [::3]:1")),
            addresses("[::1]:1 1.1.1.1:1 [::2]:1 [::3]:1")
        );
    }

    #[tokio::test]
    async fn a_dead_address_does_not_keep_a_live_one_waiting() {
        let live = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dead = {
            let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            gone.local_addr().unwrap()
        };
        let stream = first(&[dead, live.local_addr().unwrap()]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), live.local_addr().unwrap());
        assert!(first(&[dead]).await.is_err());
        assert!(first(&[]).await.is_err());
    }

    #[tokio::test]
    async fn a_name_is_looked_up_once_and_again_after_a_failure() {
        let names = Names::default();
        let live = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = live.local_addr().unwrap().port();
        names.connect("localhost", port).await.unwrap();
        let stale = Known { addresses: vec!["127.0.0.2:1".parse().unwrap()], at: Instant::now() };
        names.known.lock().unwrap().insert(("localhost".to_owned(), port), stale);
        names.connect("localhost", port).await.unwrap();
    }
}
