//! AWS's binary event stream: frames with a prelude, headers, a payload and two checksums.

use std::borrow::Cow;

use crate::Error;
use crate::sse::Event;

/// A frame larger than this is broken or hostile (AWS's own limit is 16 MiB of payload and 128 KiB of headers).
const MAX_FRAME: usize = 17 * 1024 * 1024;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame<'a> {
    /// `event`, `exception` or `error`.
    pub message_type: &'a str,
    /// `:event-type`, `:exception-type` or `:error-code`.
    pub name: &'a str,
    /// The payload.
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The frame as an event. An exception is named `exception`; its own name stands in the data, beside its payload.
    ///
    /// # Errors
    /// When the payload is not UTF-8.
    pub fn event(&self) -> Result<Event<'a>, Error> {
        let data = std::str::from_utf8(self.payload).map_err(|_| Error::answer("a frame's payload is not valid UTF-8"))?;
        if self.message_type == "event" {
            return Ok(Event { name: self.name, data: Cow::Borrowed(data) });
        }
        // The name has to say that it is an exception, and an event has only one name: the message is made JSON with both.
        let name = if self.name.is_empty() { self.message_type } else { self.name };
        let body = serde_json::json!({ "exception": name, "payload": data });
        Ok(Event { name: "exception", data: Cow::Owned(body.to_string()) })
    }
}

/// Reads the first frame of `bytes`: how long it is, and what it says. `None` while it is incomplete.
///
/// # Errors
/// A checksum that does not match, or lengths that make no sense.
pub fn read(bytes: &[u8]) -> Result<Option<(usize, Frame<'_>)>, Error> {
    let Some(prelude) = bytes.first_chunk::<12>() else { return Ok(None) };
    let word = |at: usize| u32::from_be_bytes([prelude[at], prelude[at + 1], prelude[at + 2], prelude[at + 3]]);
    let (total, headers) = (word(0) as usize, word(4) as usize);
    if crc32fast::hash(&prelude[..8]) != word(8) {
        return Err(Error::answer("a frame's prelude fails its checksum"));
    }
    if total > MAX_FRAME || headers + 16 > total {
        return Err(Error::answer("a frame's lengths make no sense"));
    }
    let Some(frame) = bytes.get(..total) else { return Ok(None) };
    let (content, checksum) = frame.split_at(total - 4);
    if checksum != crc32fast::hash(content).to_be_bytes() {
        return Err(Error::answer("a frame fails its checksum"));
    }
    let (mut message_type, mut name) = ("event", "");
    let mut rest = &content[12..12 + headers];
    while !rest.is_empty() {
        let (key, value, after) = header(rest).ok_or_else(|| Error::answer("a frame's headers cannot be read"))?;
        match key {
            ":message-type" => message_type = value,
            ":event-type" | ":exception-type" | ":error-code" => name = value,
            _ => {}
        }
        rest = after;
    }
    Ok(Some((total, Frame { message_type, name, payload: &content[12 + headers..] })))
}

/// One header: its name, its value if that is a string (else empty), and what follows.
fn header(bytes: &[u8]) -> Option<(&str, &str, &[u8])> {
    let (&length, rest) = bytes.split_first()?;
    let (name, rest) = rest.split_at_checked(length as usize)?;
    let (&kind, rest) = rest.split_first()?;
    let name = std::str::from_utf8(name).ok()?;
    let fixed = match kind {
        0 | 1 => 0,
        2 => 1,
        3 => 2,
        4 => 4,
        5 | 8 => 8,
        9 => 16,
        6 | 7 => {
            let (size, rest) = rest.split_first_chunk::<2>()?;
            let (value, rest) = rest.split_at_checked(u16::from_be_bytes(*size) as usize)?;
            return Some((name, if kind == 7 { std::str::from_utf8(value).ok()? } else { "" }, rest));
        }
        _ => return None,
    };
    Some((name, "", rest.get(fixed..)?))
}

/// Writes a frame: what a mock upstream and the fixtures need.
#[must_use]
pub fn write(message_type: &str, name: &str, payload: &[u8]) -> Vec<u8> {
    let kind = if message_type == "event" { ":event-type" } else { ":exception-type" };
    let mut headers = Vec::new();
    for (key, value) in [(kind, name), (":content-type", "application/json"), (":message-type", message_type)] {
        headers.push(key.len() as u8);
        headers.extend_from_slice(key.as_bytes());
        headers.push(7);
        headers.extend_from_slice(&(value.len() as u16).to_be_bytes());
        headers.extend_from_slice(value.as_bytes());
    }
    let total = (headers.len() + payload.len() + 16) as u32;
    let mut out = Vec::with_capacity(total as usize);
    out.extend_from_slice(&total.to_be_bytes());
    out.extend_from_slice(&(headers.len() as u32).to_be_bytes());
    out.extend_from_slice(&crc32fast::hash(&out).to_be_bytes());
    out.extend_from_slice(&headers);
    out.extend_from_slice(payload);
    let checksum = crc32fast::hash(&out);
    out.extend_from_slice(&checksum.to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_read_back_and_broken_ones_refused() {
        let bytes = write("event", "contentBlockDelta", br#"{"a":1}"#);
        let (length, frame) = read(&bytes).unwrap().unwrap();
        assert_eq!((length, frame.name, frame.payload), (bytes.len(), "contentBlockDelta", br#"{"a":1}"#.as_slice()));
        for end in 0..bytes.len() {
            assert_eq!(read(&bytes[..end]).unwrap(), None);
        }
        for at in 0..bytes.len() {
            let mut broken = bytes.clone();
            broken[at] ^= 1;
            assert!(read(&broken).is_err(), "byte {at}");
        }
    }

    #[test]
    fn an_exception_keeps_its_name() {
        let bytes = write("exception", "throttlingException", br#"{"message":"slow down"}"#);
        let event = read(&bytes).unwrap().unwrap().1.event().unwrap();
        assert_eq!(event.name, "exception");
        assert!(event.data.contains("throttlingException") && event.data.contains("slow down"));
    }
}
