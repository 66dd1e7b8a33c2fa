//! One connection to an upstream: writes a request, reads the head of its answer, and hands on what comes after it.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::Error;
use super::head::{self, Head};

/// A socket, plain or encrypted.
enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection.
pub(super) struct Connection {
    socket: Socket,
    /// What has been read and not yet been used.
    pub(super) buffer: BytesMut,
    received: bool,
    /// Whether a request was not written to its end: nothing can follow it on this connection.
    cut_short: bool,
}

/// How much is read at a time: enough for a burst of events, or for a good piece of a large answer.
const READ: usize = 16 << 10;

impl Connection {
    pub(super) fn plain(tcp: TcpStream) -> Self {
        Connection { socket: Socket::Plain(tcp), buffer: BytesMut::new(), received: false, cut_short: false }
    }

    pub(super) fn tls(tls: TlsStream<TcpStream>) -> Self {
        Connection { socket: Socket::Tls(Box::new(tls)), buffer: BytesMut::new(), received: false, cut_short: false }
    }

    /// Whether anything has come for the request that was sent last.
    pub(super) fn has_received(&self) -> bool {
        self.received
    }

    /// Whether the connection waits as it should: open, and with nothing to read. One look, without waiting.
    pub(super) fn is_quiet(&mut self) -> bool {
        if !self.buffer.is_empty() {
            return false;
        }
        let tcp = match &self.socket {
            Socket::Plain(tcp) => tcp,
            // A closing message stands encrypted in the socket: bytes to read mean that it is no longer quiet.
            Socket::Tls(tls) => tls.get_ref().0,
        };
        let mut byte = [0u8; 1];
        matches!(tcp.try_read(&mut byte), Err(e) if e.kind() == io::ErrorKind::WouldBlock)
    }

    /// Writes a request and reads the head of its answer.
    pub(super) async fn exchange(&mut self, head: &[u8], body: &[Bytes]) -> Result<Head, Error> {
        self.received = false;
        poll_fn(|cx| self.poll_flush(cx)).await?;
        self.write(head, body).await?;
        loop {
            while let Some(mut answer) = head::read(&mut self.buffer)? {
                answer.keep_alive &= !self.cut_short;
                if !answer.status.is_informational() {
                    return Ok(answer);
                }
            }
            if poll_fn(|cx| self.poll_fill(cx)).await? == 0 {
                return Err(Error::Closed);
            }
            self.received = true;
        }
    }

    /// Writes head and body. An upstream that answers before it has read everything (413, 401) is listened to: the rest is
    /// not written, and an error of the write is only one if no answer has come.
    async fn write(&mut self, head: &[u8], body: &[Bytes]) -> Result<(), Error> {
        let mut parts: Vec<&[u8]> = Vec::with_capacity(body.len() + 1);
        parts.push(head);
        parts.extend(body.iter().map(|b| &**b).filter(|b| !b.is_empty()));
        let mut parts = &mut parts[..];
        poll_fn(|cx| {
            while !parts.is_empty() {
                let wrote = match self.poll_write(cx, parts) {
                    Poll::Ready(Ok(0)) => Err(Error::Closed),
                    Poll::Ready(Ok(n)) => Ok(n),
                    Poll::Ready(Err(e)) => Err(Error::Io(e)),
                    Poll::Pending => {
                        return match self.poll_fill(cx) {
                            Poll::Pending => Poll::Pending,
                            Poll::Ready(Ok(0)) => Poll::Ready(Err(Error::Closed)),
                            Poll::Ready(Ok(_)) => {
                                (self.received, self.cut_short) = (true, true);
                                Poll::Ready(Ok(()))
                            }
                            Poll::Ready(Err(e)) => Poll::Ready(Err(e.into())),
                        };
                    }
                };
                match wrote {
                    Ok(n) => advance(&mut parts, n),
                    // The reason may stand in an answer that is already on its way.
                    Err(e) => {
                        return match self.poll_fill(cx) {
                            Poll::Ready(Ok(n)) if n > 0 => {
                                (self.received, self.cut_short) = (true, true);
                                Poll::Ready(Ok(()))
                            }
                            _ => Poll::Ready(Err(e)),
                        };
                    }
                }
            }
            self.poll_flush(cx).map_err(Error::from)
        })
        .await
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, parts: &[&[u8]]) -> Poll<io::Result<usize>> {
        let mut slices = [IoSlice::new(&[]); 8];
        let count = parts.len().min(slices.len());
        for (slice, part) in slices.iter_mut().zip(parts) {
            *slice = IoSlice::new(part);
        }
        match &mut self.socket {
            Socket::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, &slices[..count]),
            Socket::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, &slices[..count]),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.socket {
            // Nothing is held back above a plain socket.
            Socket::Plain(_) => Poll::Ready(Ok(())),
            Socket::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    /// Reads what there is into the buffer; 0 at the end.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if let Socket::Plain(tcp) = &self.socket {
            // A connection that waits for its upstream to think holds no memory for the answer.
            ready!(tcp.poll_read_ready(cx))?;
        }
        // A buffer that is spent is taken up again if nobody holds on to what was cut from it.
        self.buffer.reserve(READ);
        match &mut self.socket {
            Socket::Plain(tcp) => pin!(tcp.read_buf(&mut self.buffer)).poll(cx),
            Socket::Tls(tls) => pin!(tls.read_buf(&mut self.buffer)).poll(cx),
        }
    }

    /// Makes the connection fit to wait: it holds no memory.
    pub(super) fn rest(&mut self) {
        self.buffer = BytesMut::new();
    }
}

/// Passes over the first `n` bytes of what is to be written.
fn advance(parts: &mut &mut [&[u8]], mut n: usize) {
    while let Some(first) = parts.first_mut() {
        if n < first.len() {
            *first = &first[n..];
            return;
        }
        n -= first.len();
        *parts = &mut std::mem::take(parts)[1..];
    }
}
