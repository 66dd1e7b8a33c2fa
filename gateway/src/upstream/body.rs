//! The body of an upstream's answer: by length, in chunks, or up to the end of the connection. Whatever has arrived is given
//! out in one piece, so that a burst of events costs one piece on its way to the client.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::{Method, StatusCode, header};
use http_body::{Body, Frame, SizeHint};

use super::connection::Connection;
use super::{Back, Error};

/// An answer's body.
pub struct Answer {
    connection: Option<Connection>,
    framing: Framing,
    keep_alive: bool,
    back: Option<Back>,
}

/// How the end of the body is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// So many bytes are left.
    Length(u64),
    /// Chunks, and where in them we are.
    Chunks(Chunk),
    /// The end of the connection.
    Close,
}

/// Where in a chunked body we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunk {
    /// Before a chunk's size.
    Size,
    /// Inside a chunk with so many bytes left.
    Data(u64),
    /// Before the line end behind a chunk.
    End,
    /// In the trailer behind the last chunk.
    Trailer,
    /// Behind everything.
    Done,
}

/// Longest line of a chunk's size or of a trailer.
const LONGEST_LINE: usize = 8 << 10;

impl Answer {
    pub(super) fn new(connection: Connection, head: &http::response::Parts, method: &Method, keep_alive: bool, back: Back) -> Self {
        let bodiless = *method == Method::HEAD || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let chunked = head
            .headers
            .get_all(header::TRANSFER_ENCODING)
            .iter()
            .next_back()
            .is_some_and(|v| v.to_str().is_ok_and(|v| v.rsplit(',').next().is_some_and(|w| w.trim().eq_ignore_ascii_case("chunked"))));
        let mut lengths = head.headers.get_all(header::CONTENT_LENGTH).iter().map(|v| v.to_str().ok().and_then(|v| v.trim().parse::<u64>().ok()));
        let framing = if bodiless {
            Framing::Length(0)
        } else if chunked {
            Framing::Chunks(Chunk::Size)
        } else {
            match (lengths.next(), lengths.next()) {
                (Some(Some(length)), None) => Framing::Length(length),
                _ => Framing::Close,
            }
        };
        let keep_alive = keep_alive && framing != Framing::Close;
        let mut answer = Answer { connection: Some(connection), framing, keep_alive, back: Some(back) };
        if answer.is_over() {
            answer.finish();
        }
        answer
    }

    fn is_over(&self) -> bool {
        matches!(self.framing, Framing::Length(0) | Framing::Chunks(Chunk::Done))
    }

    /// The body has been read: the connection goes back if it can be used again.
    fn finish(&mut self) {
        let (Some(mut connection), Some(back)) = (self.connection.take(), self.back.take()) else { return };
        if self.keep_alive && connection.buffer.is_empty() {
            connection.rest();
            back.give(connection);
        }
    }

    /// What stands in the buffer, cut free of its framing; empty if there is nothing yet.
    fn cut(&mut self) -> Result<Bytes, Error> {
        let Some(connection) = &mut self.connection else { return Ok(Bytes::new()) };
        let buffer = &mut connection.buffer;
        match &mut self.framing {
            Framing::Length(left) => {
                let n = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
                *left -= n as u64;
                Ok(buffer.split_to(n).freeze())
            }
            Framing::Close => Ok(buffer.split().freeze()),
            Framing::Chunks(state) => chunks(state, buffer),
        }
    }
}

/// Takes as many chunks out of the buffer as there are. One is a slice; several are joined, which copies less than their
/// way to the client would cost one by one.
fn chunks(state: &mut Chunk, buffer: &mut BytesMut) -> Result<Bytes, Error> {
    let mut first = Bytes::new();
    let mut joined = BytesMut::new();
    loop {
        match state {
            Chunk::Size => {
                let Some(line) = line(buffer)? else { break };
                let digits = line[..].split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
                let size = std::str::from_utf8(digits).ok().filter(|d| !d.is_empty() && d.len() <= 15).and_then(|d| u64::from_str_radix(d, 16).ok());
                *state = match size.ok_or(Error::Malformed("a chunk has no size"))? {
                    0 => Chunk::Trailer,
                    n => Chunk::Data(n),
                };
            }
            Chunk::Data(left) => {
                if buffer.is_empty() {
                    break;
                }
                let n = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
                let piece = buffer.split_to(n).freeze();
                *left -= n as u64;
                if *left == 0 {
                    *state = Chunk::End;
                }
                if first.is_empty() {
                    first = piece;
                } else {
                    if joined.is_empty() {
                        joined.reserve(first.len() + n + buffer.len());
                        joined.extend_from_slice(&first);
                    }
                    joined.extend_from_slice(&piece);
                }
            }
            Chunk::End => match buffer.get(..2) {
                None => break,
                Some(b"\r\n") => {
                    buffer.advance(2);
                    *state = Chunk::Size;
                }
                Some(_) => return Err(Error::Malformed("a chunk is longer than it says")),
            },
            Chunk::Trailer => {
                let Some(line) = line(buffer)? else { break };
                if line.is_empty() {
                    *state = Chunk::Done;
                }
            }
            Chunk::Done => break,
        }
    }
    Ok(if joined.is_empty() { first } else { joined.freeze() })
}

/// The next line, without its end. `None` while it is incomplete.
fn line(buffer: &mut BytesMut) -> Result<Option<BytesMut>, Error> {
    match memchr::memchr(b'\n', buffer) {
        Some(at) => {
            let mut line = buffer.split_to(at + 1);
            line.truncate(at);
            if line.last() == Some(&b'\r') {
                line.truncate(at - 1);
            }
            Ok(Some(line))
        }
        None if buffer.len() > LONGEST_LINE => Err(Error::Malformed("a line of its framing is too long")),
        None => Ok(None),
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        loop {
            if self.connection.is_none() {
                return Poll::Ready(None);
            }
            let piece = match self.cut() {
                Ok(piece) => piece,
                Err(e) => {
                    self.connection = None;
                    return Poll::Ready(Some(Err(e)));
                }
            };
            if self.is_over() {
                self.finish();
            }
            if !piece.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            let Some(connection) = &mut self.connection else { return Poll::Ready(None) };
            match ready!(connection.poll_fill(cx)) {
                Ok(0) => {
                    self.connection = None;
                    return Poll::Ready(if self.framing == Framing::Close { None } else { Some(Err(Error::Closed)) });
                }
                Ok(_) => {}
                Err(e) => {
                    self.connection = None;
                    return Poll::Ready(Some(Err(e.into())));
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.connection.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match self.framing {
            Framing::Length(left) => SizeHint::with_exact(left),
            Framing::Chunks(Chunk::Done) => SizeHint::with_exact(0),
            Framing::Chunks(_) | Framing::Close => SizeHint::default(),
        }
    }
}
