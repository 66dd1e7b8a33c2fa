//! HTTP/1.1 framing for both ends, without I/O: the mock and the generator share one core, so that what they do not
//! spend is what the process under test can be given.

use memchr::{memchr, memmem};

/// Received bytes that wait to be understood.
pub struct Inbox {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

/// How the end of a body is found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Framing {
    /// So many bytes are still to come.
    Length(u64),
    /// `Transfer-Encoding: chunked`, and where in it we stand.
    Chunked(Part),
}

/// A place in a chunked body.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Part {
    /// Before the line with the size.
    Size,
    /// Inside a chunk, with so many bytes to come.
    Data(u64),
    /// Before the line break that ends a chunk.
    Break,
    /// After the chunk of size nought.
    Trailer,
}

/// The head of a request or an answer.
pub struct Head<'a> {
    /// The first line: a request line or a status line.
    pub line: &'a [u8],
    /// Nothing if neither a length nor chunks were announced.
    pub framing: Option<Framing>,
    /// The other side will close the connection after this message.
    pub close: bool,
}

impl Head<'_> {
    /// The status code, if this is the head of an answer.
    pub fn status(&self) -> Option<u16> {
        let code = self.line.strip_prefix(b"HTTP/1.1 ")?.get(..3)?;
        std::str::from_utf8(code).ok()?.parse().ok()
    }
}

const CAPACITY: usize = 64 * 1024;
const LONGEST_HEAD: usize = 256 * 1024;

impl Default for Inbox {
    fn default() -> Self {
        Self { bytes: vec![0; CAPACITY], start: 0, end: 0 }
    }
}

impl Inbox {
    /// Where the next read may write; never empty.
    pub fn space(&mut self) -> &mut [u8] {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        } else if self.end == self.bytes.len() {
            if self.start > 0 {
                self.bytes.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            } else {
                self.bytes.resize(self.bytes.len() * 2, 0);
            }
        }
        &mut self.bytes[self.end..]
    }

    /// So many bytes were written into `space`.
    pub fn received(&mut self, count: usize) {
        self.end += count;
    }

    /// Forgets what is left, for a new connection.
    pub fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    /// The next head, once it is complete.
    pub fn head(&mut self) -> Result<Option<Head<'_>>, String> {
        let waiting = &self.bytes[self.start..self.end];
        let Some(length) = memmem::find(waiting, b"\r\n\r\n") else {
            return if waiting.len() > LONGEST_HEAD { Err("a head of more than 256 KB".into()) } else { Ok(None) };
        };
        let from = self.start;
        self.start += length + 4;
        read_head(&self.bytes[from..from + length]).map(Some)
    }

    /// Hands the part of the body that has arrived to `sink`; true once the body is complete.
    pub fn body(&mut self, framing: &mut Framing, mut sink: impl FnMut(&[u8])) -> Result<bool, String> {
        loop {
            match framing {
                Framing::Length(left) => {
                    *left -= self.take(*left, &mut sink);
                    return Ok(*left == 0);
                }
                Framing::Chunked(Part::Data(left)) => {
                    *left -= self.take(*left, &mut sink);
                    if *left > 0 {
                        return Ok(false);
                    }
                    *framing = Framing::Chunked(Part::Break);
                }
                Framing::Chunked(part) => {
                    let Some(line) = self.line() else { return Ok(false) };
                    match (*part, line) {
                        (Part::Size, line) => {
                            let size = chunk_size(line)?;
                            *part = if size == 0 { Part::Trailer } else { Part::Data(size) };
                        }
                        (Part::Break, b"") => *part = Part::Size,
                        (Part::Trailer, b"") => return Ok(true),
                        (Part::Trailer, _) => {}
                        _ => return Err("a chunk that does not end where its size says".into()),
                    }
                }
            }
        }
    }

    fn take(&mut self, most: u64, sink: &mut impl FnMut(&[u8])) -> u64 {
        let count = (self.end - self.start).min(usize::try_from(most).unwrap_or(usize::MAX));
        if count > 0 {
            sink(&self.bytes[self.start..self.start + count]);
            self.start += count;
        }
        count as u64
    }

    fn line(&mut self) -> Option<&[u8]> {
        let length = memchr(b'\n', &self.bytes[self.start..self.end])?;
        let line = &self.bytes[self.start..self.start + length];
        self.start += length + 1;
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }
}

fn read_head(head: &[u8]) -> Result<Head<'_>, String> {
    let (line, mut rest) = cut_line(head);
    let (mut framing, mut close) = (None, false);
    while !rest.is_empty() {
        let (field, after) = cut_line(rest);
        rest = after;
        let Some(colon) = memchr(b':', field) else { return Err("a header without a colon".into()) };
        let (name, value) = (&field[..colon], field[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            let length = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            framing = Some(Framing::Length(length.ok_or("a content-length that is no number")?));
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") && value.eq_ignore_ascii_case(b"chunked") {
            framing = Some(Framing::Chunked(Part::Size));
        } else if name.eq_ignore_ascii_case(b"connection") {
            close = value.eq_ignore_ascii_case(b"close");
        }
    }
    Ok(Head { line, framing, close })
}

fn cut_line(text: &[u8]) -> (&[u8], &[u8]) {
    match memmem::find(text, b"\r\n") {
        Some(at) => (&text[..at], &text[at + 2..]),
        None => (text, &[]),
    }
}

fn chunk_size(line: &[u8]) -> Result<u64, String> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or(line).trim_ascii();
    std::str::from_utf8(digits).ok().and_then(|text| u64::from_str_radix(text, 16).ok()).ok_or_else(|| format!("no chunk size: {:?}", String::from_utf8_lossy(line)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(wire: &[u8], step: usize) -> (u16, bool, Vec<u8>) {
        let mut inbox = Inbox::default();
        let (mut status, mut close, mut framing, mut body) = (0, false, None, Vec::new());
        for piece in wire.chunks(step) {
            inbox.space()[..piece.len()].copy_from_slice(piece);
            inbox.received(piece.len());
            if framing.is_none()
                && let Some(head) = inbox.head().unwrap()
            {
                (status, close, framing) = (head.status().unwrap(), head.close, head.framing);
            }
            if let Some(framing) = &mut framing
                && inbox.body(framing, |part| body.extend_from_slice(part)).unwrap()
            {
                return (status, close, body);
            }
        }
        panic!("the message did not end");
    }

    #[test]
    fn bodies_are_read_whatever_the_cuts() {
        let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n5\r\nhello\r\n6;x=1\r\n world\r\n0\r\nx-trailer: 1\r\n\r\n";
        let sized = b"HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 11\r\n\r\nhello world";
        for step in [1, 2, 7, 1000] {
            assert_eq!(read(chunked, step), (200, false, b"hello world".to_vec()));
            assert_eq!(read(sized, step), (404, true, b"hello world".to_vec()));
        }
    }

    #[test]
    fn a_body_larger_than_the_inbox_flows_through() {
        let mut wire = b"HTTP/1.1 200 OK\r\ncontent-length: 300000\r\n\r\n".to_vec();
        wire.resize(wire.len() + 300_000, b'x');
        assert_eq!(read(&wire, 50_000).2.len(), 300_000);
    }

    #[test]
    fn a_wrong_chunk_is_refused() {
        let mut inbox = Inbox::default();
        let wire = b"3\r\nfour\r\n";
        inbox.space()[..wire.len()].copy_from_slice(wire);
        inbox.received(wire.len());
        assert!(inbox.body(&mut Framing::Chunked(Part::Size), |_| {}).is_err());
    }
}
