//! A request body: its bytes and what one strict scan found at the top level. A body that only needs another `model` is
//! not parsed and not rebuilt: the pieces around the changed fields are handed on as slices of the bytes that came.

use std::ops::Range;

use bytes::Bytes;

use crate::Error;
use crate::json::{Field, Met, scan_request};
use crate::wire::ChatRequest;

/// A JSON request body.
#[derive(Debug, Clone)]
pub struct Envelope {
    body: Bytes,
    fields: Vec<Field>,
    model: Text,
    stream: bool,
    met: Met,
}

/// A decoded string field: where it stands, or its own text if it had escapes.
#[derive(Debug, Clone)]
enum Text {
    None,
    At(Range<usize>),
    Own(String),
}

impl Envelope {
    /// Reads the head of a body.
    ///
    /// # Errors
    /// [`Error::Json`] for what is not strict JSON; [`Error::Invalid`] where `model` or `stream` has the wrong type.
    pub fn read(body: Bytes) -> Result<Self, Error> {
        let (fields, met) = scan_request(&body)?;
        let mut envelope = Envelope { body, fields, model: Text::None, stream: false, met };
        if let Some(span) = envelope.span("model") {
            envelope.model = match envelope.body[span.clone()] {
                [b'"', ref inner @ .., b'"'] if !inner.contains(&b'\\') => Text::At(span.start + 1..span.end - 1),
                [b'"', ..] => Text::Own(envelope.parse("model")?.unwrap_or_default()),
                _ => return Err(Error::invalid("model", "`model` must be a string")),
            };
        }
        envelope.stream = envelope.parse::<Option<bool>>("stream")?.flatten().unwrap_or(false);
        Ok(envelope)
    }

    /// An envelope of nothing, for requests that have no JSON body.
    #[must_use]
    pub fn empty() -> Self {
        Envelope { body: Bytes::from_static(b"{}"), fields: Vec::new(), model: Text::None, stream: false, met: Met::default() }
    }

    /// The bytes as they came.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The model asked for; empty where the body names none.
    #[must_use]
    pub fn model(&self) -> &str {
        match &self.model {
            Text::None => "",
            Text::At(span) => self.text(span.clone()),
            Text::Own(text) => text,
        }
    }

    /// Whether a streamed answer is asked for.
    #[must_use]
    pub fn stream(&self) -> bool {
        self.stream
    }

    /// What the scan met on its way.
    #[must_use]
    pub fn met(&self) -> Met {
        self.met
    }

    /// The names of the top-level fields, with their escapes.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|f| self.text(f.key.clone()))
    }

    /// The JSON text of a top-level field.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.span(name).map(|span| self.text(span))
    }

    /// A top-level field, parsed. `None` if it is absent.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the field if it has the wrong type.
    pub fn parse<'a, T: serde::Deserialize<'a>>(&'a self, name: &str) -> Result<Option<T>, Error> {
        let Some(raw) = self.get(name) else { return Ok(None) };
        serde_json::from_str(raw).map(Some).map_err(|e| Error::invalid(name, format!("`{name}` is not as expected: {}", plain(&e))))
    }

    /// The whole body as the hub's chat request.
    ///
    /// # Errors
    /// [`Error::Invalid`] where a field has the wrong type.
    pub fn chat(&self) -> Result<ChatRequest<'_>, Error> {
        parse_body(&self.body)
    }

    /// Begins a change of top-level fields.
    #[must_use]
    pub fn edit(&self) -> Edit<'_> {
        Edit { envelope: self, changes: Vec::new() }
    }

    fn span(&self, name: &str) -> Option<Range<usize>> {
        self.fields.iter().find(|f| &self.body[f.key.clone()] == name.as_bytes()).map(|f| f.value.clone())
    }

    fn text(&self, span: Range<usize>) -> &str {
        // The scan has checked the whole body to be UTF-8, and spans begin and end at ASCII bytes.
        std::str::from_utf8(&self.body[span]).unwrap_or_default()
    }
}

/// Parses a body into a typed request; an error names the field by its path.
///
/// # Errors
/// [`Error::Invalid`].
pub fn parse_body<'a, T: serde::Deserialize<'a>>(body: &'a [u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|first| {
        // The slow way to the same error, for the path to it.
        let mut reader = serde_json::Deserializer::from_slice(body);
        match serde_path_to_error::deserialize::<_, T>(&mut reader) {
            Err(e) => {
                let param = e.path().to_string();
                let message = plain(e.inner());
                if param == "." { Error::Invalid { param: None, message } } else { Error::Invalid { message: format!("`{param}`: {message}"), param: Some(param) } }
            }
            Ok(_) => Error::Invalid { param: None, message: plain(&first) },
        }
    })
}

/// serde's message without its position, which means nothing to a client.
fn plain(e: &serde_json::Error) -> String {
    let text = e.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(message, _)| message.to_owned())
}

/// A body in pieces, to be written one after the other.
#[derive(Debug, Clone, Default)]
pub struct Payload {
    pieces: Vec<Bytes>,
}

impl Payload {
    /// Bytes to be written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The pieces in order.
    #[must_use]
    pub fn pieces(&self) -> &[Bytes] {
        &self.pieces
    }

    /// All of it in one piece; copies unless it is one already.
    #[must_use]
    pub fn into_bytes(mut self) -> Bytes {
        if self.pieces.len() == 1 {
            return self.pieces.swap_remove(0);
        }
        let mut whole = Vec::with_capacity(self.len());
        self.pieces.iter().for_each(|p| whole.extend_from_slice(p));
        whole.into()
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Payload { pieces: vec![bytes] }
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl FromIterator<Bytes> for Payload {
    fn from_iter<I: IntoIterator<Item = Bytes>>(pieces: I) -> Self {
        Payload { pieces: pieces.into_iter().collect() }
    }
}

/// Changes of top-level fields, applied together.
#[derive(Debug)]
pub struct Edit<'e> {
    envelope: &'e Envelope,
    changes: Vec<(String, Change)>,
}

#[derive(Debug)]
enum Change {
    /// The field's new JSON text.
    Set(String),
    Remove,
    Rename(&'static str),
}

impl<'e> Edit<'e> {
    /// The envelope being changed.
    #[must_use]
    pub fn envelope(&self) -> &'e Envelope {
        self.envelope
    }

    /// Gives a field another value (JSON text), or adds it.
    pub fn set(&mut self, name: &str, json: impl Into<String>) {
        self.push(name, Change::Set(json.into()));
    }

    /// Gives a field a string as its value.
    pub fn set_text(&mut self, name: &str, text: &str) {
        let mut json = String::with_capacity(text.len() + 2);
        quote(&mut json, text);
        self.set(name, json);
    }

    /// Takes a field out.
    pub fn remove(&mut self, name: &str) {
        self.push(name, Change::Remove);
    }

    /// Gives a field another name; its value stays.
    pub fn rename(&mut self, name: &str, to: &'static str) {
        self.push(name, Change::Rename(to));
    }

    fn push(&mut self, name: &str, change: Change) {
        self.changes.retain(|(n, _)| n != name);
        self.changes.push((name.to_owned(), change));
    }

    /// The changed body. Untouched stretches are slices of the original.
    #[must_use]
    pub fn finish(mut self) -> Payload {
        let body = &self.envelope.body;
        if self.changes.is_empty() {
            return body.clone().into();
        }
        let mut pieces = Vec::with_capacity(5);
        // Text that waits to be written before the next slice.
        let mut pending = String::from("{");
        // An untouched stretch: from its first field's quote to its last field's value.
        let mut run: Option<Range<usize>> = None;
        let mut first = true;
        for field in &self.envelope.fields {
            let change = self.changes.iter().position(|(n, _)| n.as_bytes() == &body[field.key.clone()]).map(|at| self.changes.swap_remove(at));
            let Some((name, change)) = change else {
                match &mut run {
                    Some(run) => run.end = field.value.end,
                    None => {
                        if !first {
                            pending.push(',');
                        }
                        run = Some(field.key.start - 1..field.value.end);
                    }
                }
                first = false;
                continue;
            };
            flush(body, &mut pieces, &mut pending, run.take());
            let (name, value) = match &change {
                Change::Remove => continue,
                Change::Set(json) => (name.as_str(), json.as_str()),
                Change::Rename(to) => (*to, self.envelope.text(field.value.clone())),
            };
            put(&mut pending, &mut first, name, value);
        }
        flush(body, &mut pieces, &mut pending, run);
        for (name, change) in self.changes {
            if let Change::Set(json) = change {
                put(&mut pending, &mut first, &name, &json);
            }
        }
        pending.push('}');
        pieces.push(Bytes::from(pending));
        Payload { pieces }
    }
}

/// Writes a field, with a comma unless it is the first.
fn put(out: &mut String, first: &mut bool, name: &str, json: &str) {
    if !std::mem::take(first) {
        out.push(',');
    }
    quote(out, name);
    out.push(':');
    out.push_str(json);
}

/// Writes a text as a JSON string.
fn quote(out: &mut String, text: &str) {
    if text.bytes().any(|b| b < b' ' || b == b'"' || b == b'\\') {
        out.push_str(&serde_json::Value::from(text).to_string());
        return;
    }
    out.push('"');
    out.push_str(text);
    out.push('"');
}

fn flush(body: &Bytes, pieces: &mut Vec<Bytes>, pending: &mut String, run: Option<Range<usize>>) {
    if let Some(run) = run {
        if !pending.is_empty() {
            pieces.push(Bytes::from(std::mem::take(pending)));
        }
        pieces.push(body.slice(run));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(text: &str) -> Envelope {
        Envelope::read(Bytes::copy_from_slice(text.as_bytes())).unwrap()
    }

    #[test]
    fn the_head_is_read_and_wrong_types_are_named() {
        let e = envelope(r#"{"model":"a\u00fcc","stream":true,"messages":[]}"#);
        assert_eq!((e.model(), e.stream(), e.get("messages")), ("aüc", true, Some("[]")));
        assert_eq!(envelope(r#"{"model":"abc","stream":null}"#).model(), "abc");
        assert_eq!(envelope("{}").model(), "");
        for (body, field) in [(r#"{"model":7}"#, "model"), (r#"{"model":"m","stream":"yes"}"#, "stream")] {
            let error = Envelope::read(Bytes::from_static(body.as_bytes())).unwrap_err();
            assert!(matches!(error, Error::Invalid { param: Some(p), .. } if p == field), "{body}");
        }
    }

    #[test]
    fn edits_change_only_what_they_name() {
        let text = r#"{ "a" : 1 , "model":"m", "big": 12345678901234567890 ,"z":[1, 2]}"#;
        let e = envelope(text);
        assert_eq!(e.edit().finish().into_bytes(), text.as_bytes());

        let mut edit = e.edit();
        edit.set_text("model", "n\"");
        let payload = edit.finish();
        assert_eq!(payload.clone().into_bytes(), r#"{"a" : 1,"model":"n\"","big": 12345678901234567890 ,"z":[1, 2]}"#.as_bytes());
        assert_eq!(payload.len(), payload.into_bytes().len());

        let mut edit = e.edit();
        edit.remove("a");
        edit.rename("z", "y");
        edit.set("new", "{}");
        edit.remove("absent");
        assert_eq!(edit.finish().into_bytes(), r#"{"model":"m", "big": 12345678901234567890,"y":[1, 2],"new":{}}"#.as_bytes());

        let empty = envelope("{}");
        let mut edit = empty.edit();
        edit.set("a", "1");
        edit.set("a", "2");
        assert_eq!(edit.finish().into_bytes(), r#"{"a":2}"#.as_bytes());
    }

    #[test]
    fn a_wrong_type_deep_inside_is_named_by_its_path() {
        let e = envelope(r#"{"model":"m","messages":[{"role":"user","content":7}]}"#);
        let Err(Error::Invalid { param, message }) = e.chat() else { panic!("accepted") };
        assert!(message.contains("string or a list of parts"), "{message}");
        assert_eq!(param.as_deref(), Some("messages[0].content"));
    }
}
