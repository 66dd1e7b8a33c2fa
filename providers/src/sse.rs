//! Server-sent events: finding the end of an event in bytes that arrive in any pieces, and reading its fields.

use std::borrow::Cow;

use memchr::{memchr, memchr_iter};

/// One event of a stream, whatever framed it: SSE, a line of NDJSON, or an AWS frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event<'a> {
    /// The event's name; empty where none was given.
    pub name: &'a str,
    /// Its data; lines joined by a line feed.
    pub data: Cow<'a, str>,
}

/// An event that grew past its limit, or is not UTF-8.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SseError {
    /// Longer than the limit, in bytes.
    #[error("an event of the upstream's stream is longer than {0} bytes")]
    TooLong(usize),
    /// Not text.
    #[error("an event of the upstream's stream is not valid UTF-8")]
    NotUtf8,
}

/// Where the first event in `bytes` ends: the offset behind its blank line. `None` while it is incomplete.
#[must_use]
pub fn end_of_event(bytes: &[u8]) -> Option<usize> {
    for at in memchr_iter(b'\n', bytes) {
        match bytes.get(at + 1) {
            Some(b'\n') => return Some(at + 2),
            Some(b'\r') if bytes.get(at + 2) == Some(&b'\n') => return Some(at + 3),
            _ => {}
        }
    }
    // A stream may also begin with a blank line, which ends an event of nothing.
    match bytes {
        [b'\n', ..] => Some(1),
        [b'\r', b'\n', ..] => Some(2),
        _ => None,
    }
}

/// Where the last complete event in `bytes` ends, 0 if none does.
#[must_use]
pub fn end_of_events(bytes: &[u8]) -> usize {
    for at in memchr::memrchr_iter(b'\n', bytes) {
        if at > 0 && bytes[at - 1] == b'\n' || at > 1 && bytes[at - 1] == b'\r' && bytes[at - 2] == b'\n' {
            return at + 1;
        }
    }
    0
}

/// Reads one event's fields. `None` for an event without data (comments, pings without data, blank lines).
///
/// # Errors
/// [`SseError::NotUtf8`].
pub fn read(event: &[u8]) -> Result<Option<Event<'_>>, SseError> {
    let text = std::str::from_utf8(event).map_err(|_| SseError::NotUtf8)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_start().starts_with('{') {
        // Google, and proxies that fail in mid-stream, write an error as a bare object with no field in front.
        return Ok(Some(Event { name: "error", data: Cow::Borrowed(text.trim()) }));
    }
    let mut name = "";
    let mut data: Option<Cow<'_, str>> = None;
    for line in text.split('\n') {
        let line = line.strip_suffix('\r').unwrap_or(line);
        let (field, value) = match memchr(b':', line.as_bytes()) {
            Some(0) => continue,
            Some(at) => (&line[..at], line[at + 1..].strip_prefix(' ').unwrap_or(&line[at + 1..])),
            None => (line, ""),
        };
        match field {
            "data" => match &mut data {
                None => data = Some(Cow::Borrowed(value)),
                Some(joined) => {
                    let joined = joined.to_mut();
                    joined.push('\n');
                    joined.push_str(value);
                }
            },
            "event" => name = value,
            _ => {}
        }
    }
    Ok(data.map(|data| Event { name, data }))
}

/// JSON text without line breaks, which can only stand between its tokens: in an event they would end its line.
#[must_use]
pub fn one_line(json: &str) -> Cow<'_, str> {
    if json.bytes().any(|b| matches!(b, b'\n' | b'\r')) { json.replace(['\n', '\r'], "").into() } else { json.into() }
}

/// How a stream is cut into events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// `data:` lines and a blank line.
    Sse,
    /// One JSON value per line.
    Ndjson,
    /// AWS's binary frames.
    EventStream,
}

/// Cuts bytes that arrive in any pieces into events. Bytes are copied only where an event is split over pieces.
#[derive(Debug)]
pub struct Cutter {
    framing: Framing,
    rest: Vec<u8>,
    limit: usize,
}

impl Cutter {
    /// A cutter whose events may be `limit` bytes long.
    #[must_use]
    pub fn new(framing: Framing, limit: usize) -> Self {
        Cutter { framing, rest: Vec::new(), limit }
    }

    /// Takes the next piece and calls `each` with every event that it completes.
    ///
    /// # Errors
    /// What `each` returns; an event that is too long, not text, or a broken frame.
    pub fn push<E: From<crate::Error>>(&mut self, piece: &[u8], mut each: impl FnMut(Event<'_>) -> Result<(), E>) -> Result<(), E> {
        if self.rest.is_empty() {
            let used = self.cut(piece, &mut each)?;
            self.rest.extend_from_slice(&piece[used..]);
        } else {
            let mut rest = std::mem::take(&mut self.rest);
            rest.extend_from_slice(piece);
            let used = self.cut(&rest, &mut each)?;
            rest.drain(..used);
            self.rest = rest;
        }
        if self.rest.len() > self.limit {
            return Err(crate::Error::answer(SseError::TooLong(self.limit)).into());
        }
        Ok(())
    }

    /// The stream has ended: an event that lacks only its blank line is given out, as every SSE reader in the field does.
    ///
    /// # Errors
    /// As [`Cutter::push`]; and a frame that was cut short.
    pub fn end<E: From<crate::Error>>(&mut self, mut each: impl FnMut(Event<'_>) -> Result<(), E>) -> Result<(), E> {
        let rest = std::mem::take(&mut self.rest);
        if rest.is_empty() {
            return Ok(());
        }
        match self.framing {
            Framing::Sse => match read(&rest).map_err(crate::Error::answer)? {
                Some(event) => each(event),
                None => Ok(()),
            },
            Framing::Ndjson => line(&rest, &mut each),
            Framing::EventStream => Err(crate::Error::answer("the stream ends inside a frame").into()),
        }
    }

    fn cut<E: From<crate::Error>>(&self, bytes: &[u8], each: &mut impl FnMut(Event<'_>) -> Result<(), E>) -> Result<usize, E> {
        let mut used = 0;
        match self.framing {
            Framing::Sse => {
                while let Some(end) = end_of_event(&bytes[used..]) {
                    if let Some(event) = read(&bytes[used..used + end]).map_err(crate::Error::answer)? {
                        each(event)?;
                    }
                    used += end;
                }
            }
            Framing::Ndjson => {
                while let Some(end) = memchr(b'\n', &bytes[used..]) {
                    line(&bytes[used..used + end], each)?;
                    used += end + 1;
                }
            }
            Framing::EventStream => {
                while let Some((end, frame)) = crate::eventstream::read(&bytes[used..])? {
                    each(frame.event()?)?;
                    used += end;
                }
            }
        }
        Ok(used)
    }
}

fn line<E: From<crate::Error>>(bytes: &[u8], each: &mut impl FnMut(Event<'_>) -> Result<(), E>) -> Result<(), E> {
    let text = std::str::from_utf8(bytes).map_err(|_| crate::Error::answer(SseError::NotUtf8))?.trim();
    if text.is_empty() { Ok(()) } else { each(Event { name: "", data: Cow::Borrowed(text) }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(pieces: &[&[u8]]) -> Vec<(String, String)> {
        let mut cutter = Cutter::new(Framing::Sse, 1000);
        let mut out = Vec::new();
        for piece in pieces {
            cutter
                .push::<crate::Error>(piece, |e| {
                    out.push((e.name.to_owned(), e.data.into_owned()));
                    Ok(())
                })
                .unwrap();
        }
        cutter
            .end::<crate::Error>(|e| {
                out.push((e.name.to_owned(), e.data.into_owned()));
                Ok(())
            })
            .unwrap();
        out
    }

    #[test]
    fn every_way_of_writing_and_splitting_events() {
        let stream = "\u{feff}data:a\r\n\r\n: ping\n\nevent: x\ndata: é\ndata: 2\n\n\nid: 7\ndata\n\ndata: last".as_bytes();
        let whole = cut(&[stream]);
        let expect: Vec<(String, String)> = [("", "a"), ("x", "é\n2"), ("", ""), ("", "last")].map(|(a, b)| (a.into(), b.into())).into();
        assert_eq!(whole, expect);
        for size in 1..=9 {
            assert_eq!(cut(&stream.chunks(size).collect::<Vec<_>>()), expect, "in pieces of {size}");
        }
    }

    #[test]
    fn an_endless_event_is_an_error() {
        let mut cutter = Cutter::new(Framing::Sse, 100);
        let result = (0..10).try_for_each(|_| cutter.push::<crate::Error>(&[b'x'; 50], |_| Ok(())));
        assert!(result.is_err());
    }

    #[test]
    fn the_last_complete_event() {
        assert_eq!(end_of_events(b"data: a\n\ndata: b"), 9);
        assert_eq!(end_of_events(b"data: a\r\n\r\ndata: b\r\n"), 11);
        assert_eq!(end_of_events(b"data: a\n"), 0);
        assert_eq!(end_of_events(b"data: a\n\n"), 9);
    }
}
