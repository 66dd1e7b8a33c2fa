//! A stream as Google writes it where the client does not ask for events: one JSON array, element by element.

use crate::Error;
use crate::sse::{Cutter, Framing};

/// Makes the elements of an array out of the events of a stream.
#[derive(Debug)]
pub struct Array {
    cutter: Cutter,
    begun: bool,
    failed: bool,
}

impl Array {
    /// An array of a stream whose events may be `limit` bytes long.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Array { cutter: Cutter::new(Framing::Sse, limit), begun: false, failed: false }
    }

    /// Takes what the client would get as events; gives what it gets instead, which may be nothing yet.
    ///
    /// # Errors
    /// When it is no stream of events.
    pub fn push(&mut self, events: &[u8]) -> Result<Vec<u8>, Error> {
        let mut out = Vec::with_capacity(events.len() + 4);
        let (begun, failed) = (&mut self.begun, &mut self.failed);
        self.cutter.push(events, |event| {
            element(&event.data, begun, failed, &mut out);
            Ok::<_, Error>(())
        })?;
        Ok(out)
    }

    /// The end. An array that ends with an error is closed as well: its last element says what happened.
    ///
    /// # Errors
    /// As [`Array::push`].
    pub fn end(&mut self) -> Result<Vec<u8>, Error> {
        let mut out = Vec::new();
        let (begun, failed) = (&mut self.begun, &mut self.failed);
        self.cutter.end(|event| {
            element(&event.data, begun, failed, &mut out);
            Ok::<_, Error>(())
        })?;
        out.extend_from_slice(if self.begun { b"]" } else { b"[]" });
        Ok(out)
    }
}

/// An error is told twice in a stream of events, and nothing follows it.
fn element(json: &str, begun: &mut bool, failed: &mut bool, out: &mut Vec<u8>) {
    if json.is_empty() || *failed {
        return;
    }
    *failed = json.trim_start().strip_prefix('{').is_some_and(|rest| rest.trim_start().starts_with("\"error\""));
    out.extend_from_slice(if std::mem::replace(begun, true) { b",\r\n" } else { b"[" });
    out.extend_from_slice(json.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::door::{ClientError, Door};

    fn array(stream: &[u8], size: usize) -> String {
        let mut array = Array::new(1000);
        let mut out: Vec<u8> = stream.chunks(size).flat_map(|piece| array.push(piece).unwrap()).collect();
        out.extend(array.end().unwrap());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn events_become_elements_however_they_arrive() {
        for size in [1, 7, 1000] {
            assert_eq!(array("data: {\"a\":\"ü\"}\r\n\r\n: ping\n\ndata: {\"error_rate\":1}\n\n".as_bytes(), size), "[{\"a\":\"ü\"},\r\n{\"error_rate\":1}]");
            assert_eq!(array(b"", size), "[]");
        }
        let mut whole = Array::new(100);
        assert_eq!(whole.push(b"data: {}\n\nda").unwrap(), b"[{}");
        assert_eq!(whole.push(b"ta: {}\n\n").unwrap(), b",\r\n{}");
        assert!(whole.push(&[b'x'; 200]).is_err());
    }

    #[test]
    fn an_error_is_the_last_element_and_told_once() {
        let told = super::super::Generate.error_event(&ClientError { status: 503, kind: ErrorKind::Overloaded, message: "no".into(), param: None, code: None });
        let stream = [b"data: {\"candidates\":[]}\n\n".as_slice(), &told].concat();
        for size in [1, 9, 1000] {
            let value: serde_json::Value = serde_json::from_str(&array(&stream, size)).unwrap();
            assert_eq!((value.as_array().unwrap().len(), &value[1]["error"]["status"]), (2, &"UNAVAILABLE".into()));
        }
    }
}
