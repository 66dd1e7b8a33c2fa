//! A client that takes nothing is given up after a while, so that nobody holds an answer, and what is reserved for it, by not
//! reading. Without it an answer waits for as long as the other side keeps its connection open. A connection of HTTP/1 is watched
//! as a whole; of HTTP/2 each answer, since one can stand still while others go on, and a body that is not taken is not polled.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::{Instant, Sleep, timeout};

use crate::body::{Body, BodyError};

/// A connection, with the patience that writing to it has.
pub struct Stall<S> {
    inner: S,
    patience: Duration,
    /// Made when the client is first waited for: most take what they are given.
    timer: Option<Pin<Box<Sleep>>>,
    /// Whether the client is being waited for.
    waiting: bool,
}

impl<S> Stall<S> {
    /// A client that may take nothing for so long.
    pub fn new(inner: S, patience: Duration) -> Self {
        Stall { inner, patience, timer: None, waiting: false }
    }

    fn watch<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.waiting = false;
            return result;
        }
        let patience = self.patience;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        if !self.waiting {
            self.waiting = true;
            timer.as_mut().reset(Instant::now() + patience);
        }
        timer.as_mut().poll(cx).map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, STALLED)))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stall<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Stall<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.watch(cx, result)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.inner).poll_write_vectored(cx, pieces);
        self.watch(cx, result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_flush(cx);
        self.watch(cx, result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let result = Pin::new(&mut self.inner).poll_shutdown(cx);
        self.watch(cx, result)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

/// What is said of a client that is given up.
const STALLED: &str = "the client takes nothing";

/// A stream that is pulled by a task of its own, for a client that may take nothing for so long. Other bodies wait for nobody.
#[must_use]
pub fn pulled(body: Body, patience: Duration) -> Body {
    let Body::Stream(body) = body else { return body };
    let (room, pieces) = channel(1);
    tokio::spawn(pull(body, room, patience));
    Body::Stream(Box::pin(Pulled { pieces, over: false }))
}

type Piece = Result<Frame<Bytes>, BodyError>;

/// Pulls a body piece by piece, as they are taken. Ends without a word where nobody takes them.
async fn pull(mut body: Pin<Box<dyn HttpBody<Data = Bytes, Error = BodyError> + Send>>, pieces: Sender<Option<Piece>>, patience: Duration) {
    loop {
        let Ok(Ok(room)) = timeout(patience, pieces.reserve()).await else { return };
        let piece = tokio::select! {
            piece = poll_fn(|cx| body.as_mut().poll_frame(cx)) => piece,
            () = pieces.closed() => return,
        };
        let last = piece.is_none();
        room.send(piece);
        if last {
            return;
        }
    }
}

/// The client's end of a body that is pulled.
struct Pulled {
    pieces: Receiver<Option<Piece>>,
    over: bool,
}

impl HttpBody for Pulled {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Piece>> {
        if self.over {
            return Poll::Ready(None);
        }
        let piece = ready!(self.pieces.poll_recv(cx));
        self.over = matches!(piece, None | Some(None));
        // An end that was not said is none.
        Poll::Ready(piece.unwrap_or_else(|| Some(Err(STALLED.into()))))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const PATIENCE: Duration = Duration::from_millis(800);

    #[tokio::test]
    async fn who_takes_nothing_is_given_up_and_who_takes_slowly_is_not() {
        let (ours, mut theirs) = tokio::io::duplex(4);
        let mut ours = Stall::new(ours, PATIENCE);
        let slow = tokio::spawn(async move {
            for _ in 0..5 {
                tokio::time::sleep(PATIENCE / 4).await;
                theirs.read_exact(&mut [0; 4]).await.unwrap();
            }
            theirs
        });
        ours.write_all(&[0; 20]).await.unwrap();
        let theirs = slow.await.unwrap();
        ours.write_all(&[0; 4]).await.unwrap();
        let began = Instant::now();
        assert_eq!(ours.write_all(b"more").await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() >= PATIENCE);
        drop(theirs);
    }
}
