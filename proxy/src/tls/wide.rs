//! A socket under TLS, read a whole record at a time: rustls asks for 4 kB, which would be four or five calls for each record of a body.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Bytes read at once: a record is 16 kB and a little.
const ROOM: usize = 32 << 10;

type Room = Box<[u8]>;

thread_local! {
    /// One that nobody uses: connections hold none while they wait, so thousands of them cost nothing.
    static SPARE: Cell<Option<Room>> = const { Cell::new(None) };
}

/// A socket with what was read from it and not asked for yet.
pub(crate) struct Wide {
    tcp: TcpStream,
    ahead: Option<Ahead>,
}

struct Ahead {
    room: Room,
    from: usize,
    to: usize,
}

impl Ahead {
    /// Gives what fits, and itself back where something is left.
    fn give(mut self, buf: &mut ReadBuf<'_>) -> Option<Self> {
        let left = self.room.get(self.from..self.to).unwrap_or_default();
        let taken = left.len().min(buf.remaining());
        buf.put_slice(left.get(..taken).unwrap_or_default());
        self.from += taken;
        if self.from < self.to {
            return Some(self);
        }
        SPARE.set(Some(self.room));
        None
    }
}

impl Wide {
    pub(crate) fn new(tcp: TcpStream) -> Self {
        Self { tcp, ahead: None }
    }
}

impl AsyncRead for Wide {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Some(ahead) = self.ahead.take() {
            self.ahead = ahead.give(buf);
            return Poll::Ready(Ok(()));
        }
        if buf.remaining() >= ROOM {
            return Pin::new(&mut self.tcp).poll_read(cx, buf);
        }
        let mut room = SPARE.take().unwrap_or_else(|| vec![0; ROOM].into_boxed_slice());
        let mut into = ReadBuf::new(&mut room);
        let polled = Pin::new(&mut self.tcp).poll_read(cx, &mut into);
        let to = into.filled().len();
        let ahead = Ahead { room, from: 0, to };
        if polled.is_ready() {
            self.ahead = ahead.give(buf);
        } else {
            SPARE.set(Some(ahead.room));
        }
        ready!(polled)?;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wide {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn bytes_come_whole_and_in_order_whatever_is_asked_for_and_then_the_end() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut wide = Wide::new(listener.accept().await.unwrap().0);
        let sent: Vec<u8> = (0..3 * ROOM).map(|at| (at % 251) as u8).collect();
        let (writes, reads) = (far.write_all(&sent), async {
            let mut read = Vec::new();
            for size in [1, 4096, 7, ROOM + 1, 100].into_iter().cycle() {
                let mut piece = vec![0; size.min(sent.len() - read.len())];
                if piece.is_empty() {
                    return read;
                }
                let count = wide.read(&mut piece).await.unwrap();
                assert!(count > 0);
                read.extend_from_slice(&piece[..count]);
            }
            read
        });
        let (written, read) = tokio::join!(writes, reads);
        written.unwrap();
        assert!(read == sent);
        drop(far);
        assert_eq!(wide.read(&mut [0; 9]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn who_waits_or_has_taken_all_holds_no_room() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut wide = Wide::new(listener.accept().await.unwrap().0);
        far.write_all(b"abc").await.unwrap();
        assert_eq!(wide.read_u8().await.unwrap(), b'a');
        assert!(wide.ahead.is_some());
        wide.read_exact(&mut [0; 2]).await.unwrap();
        assert!(wide.ahead.is_none());
        let mut room = [0; 9];
        let mut waiting = Box::pin(wide.read(&mut room));
        assert!(std::future::poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx).is_pending())).await);
        drop(waiting);
        assert!(wide.ahead.is_none());
    }
}
