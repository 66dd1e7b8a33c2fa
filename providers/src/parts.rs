//! The objects that a conversation is made of, in whatever dialect: messages and their parts, found by one pass over text that
//! the strict scan has accepted. What is free JSON (arguments, results, schemas) is never taken for a part.

use crate::envelope::Envelope;
use crate::json::plain;

/// Top-level fields that hold a conversation, or what is to be embedded.
const BEGINNINGS: &[&str] = &["messages", "contents", "input", "system", "systemInstruction", "system_instruction", "content", "requests"];
/// Fields of an object in a conversation whose values are made of parts again.
const DEEPER: &[&str] = &["content", "parts", "output", "images", "functionResponse", "function_response"];

/// An object of a conversation: its fields but for those that hold other parts.
#[derive(Debug, Default)]
pub(crate) struct Part<'a> {
    fields: Vec<(&'a str, &'a str)>,
}

impl<'a> Part<'a> {
    /// Reads an object's fields; none of what is no object.
    pub(crate) fn read(json: &'a str) -> Self {
        let mut part = Part::default();
        let mut reader = Reader { text: json, at: 0 };
        reader.object(&mut |reader, key| {
            let value = reader.skip();
            part.fields.push((key, value));
        });
        part
    }

    /// The JSON text of a field; nothing of one that is null.
    pub(crate) fn get(&self, name: &str) -> Option<&'a str> {
        self.fields.iter().find(|(key, value)| *key == name && *value != "null").map(|(_, value)| *value)
    }

    /// What stands between the quotes of a field that is a string, escapes and all.
    pub(crate) fn string(&self, name: &str) -> Option<&'a str> {
        self.get(name).and_then(unquoted)
    }

    /// A field that is an object.
    pub(crate) fn object(&self, name: &str) -> Option<Part<'a>> {
        self.get(name).filter(|value| value.starts_with('{')).map(Part::read)
    }

    /// A field that is a place: a string, or an object with a `url`.
    pub(crate) fn place(&self, name: &str) -> Option<&'a str> {
        self.string(name).or_else(|| self.object(name)?.string("url"))
    }

    /// Its `type`.
    pub(crate) fn kind(&self) -> Option<&'a str> {
        self.string("type")
    }

    /// The names of its fields that are set to something.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'a str> {
        self.fields.iter().filter(|(_, value)| *value != "null").map(|(key, _)| *key)
    }
}

/// What stands between the quotes of a JSON string.
pub(crate) fn unquoted(json: &str) -> Option<&str> {
    json.strip_prefix('"')?.strip_suffix('"')
}

/// Shows each object of a request's conversation, inner ones first.
pub(crate) fn each<'a>(request: &'a Envelope, mut show: impl FnMut(&Part<'a>)) {
    for value in BEGINNINGS.iter().filter_map(|name| request.get(name)) {
        Reader { text: value, at: 0 }.walk(&mut show);
    }
}

/// The objects in a list, or the one that stands for a list of one.
pub(crate) fn list(json: &str) -> Vec<Part<'_>> {
    let mut out = Vec::new();
    let mut reader = Reader { text: json, at: 0 };
    match reader.peek() {
        Some(b'[') => reader.array(&mut |reader| out.push(Part::read(reader.skip()))),
        _ => out.push(Part::read(json)),
    }
    out
}

/// How many elements of a list are strings or lists themselves.
pub(crate) fn many(json: &str) -> u64 {
    let mut found = 0;
    Reader { text: json, at: 0 }.array(&mut |reader| found += u64::from(reader.skip().starts_with(['"', '['])));
    found
}

/// A cursor in JSON that is known to be right, so that nothing is checked again.
struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\t' | b'\r' | b',' | b':')) {
            self.at += 1;
        }
    }

    fn walk(&mut self, show: &mut impl FnMut(&Part<'a>)) {
        self.space();
        match self.peek() {
            Some(b'[') => self.array(&mut |reader| reader.walk(show)),
            Some(b'{') => {
                let mut part = Part::default();
                self.object(&mut |reader, key| {
                    if DEEPER.contains(&key) {
                        reader.walk(show);
                        return;
                    }
                    let value = reader.skip();
                    part.fields.push((key, value));
                });
                // Anthropic's documents may be made of parts.
                if let Some(inner) = part.object("source").and_then(|source| source.get("content")) {
                    Reader { text: inner, at: 0 }.walk(show);
                }
                show(&part);
            }
            _ => {
                self.skip();
            }
        }
    }

    /// Passes over an object, if one stands here; `field` has to pass over the value of each key.
    fn object(&mut self, field: &mut impl FnMut(&mut Self, &'a str)) {
        self.inside(b'{', b'}', &mut |reader| {
            let key = reader.skip();
            reader.space();
            field(reader, unquoted(key).unwrap_or_default());
        });
    }

    /// Passes over a list, if one stands here; `element` has to pass over each of its elements.
    fn array(&mut self, element: &mut impl FnMut(&mut Self)) {
        self.inside(b'[', b']', element);
    }

    fn inside(&mut self, open: u8, close: u8, one: &mut impl FnMut(&mut Self)) {
        self.space();
        if self.peek() != Some(open) {
            return;
        }
        self.at += 1;
        loop {
            self.space();
            match self.peek() {
                None => return,
                Some(byte) if byte == close => {
                    self.at += 1;
                    return;
                }
                Some(_) => {
                    let before = self.at;
                    one(self);
                    // Right JSON always goes on; wrong JSON must not stand still.
                    self.at = self.at.max(before + 1);
                }
            }
        }
    }

    /// Passes over a value, and gives its text.
    fn skip(&mut self) -> &'a str {
        self.space();
        let start = self.at;
        let mut depth = 0_usize;
        while let Some(byte) = self.peek() {
            match byte {
                b'"' => self.string(),
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' if depth == 0 => break,
                b'}' | b']' => {
                    depth -= 1;
                    self.at += 1;
                }
                // Behind a number or a word.
                b',' | b' ' | b'\n' | b'\t' | b'\r' if depth == 0 => break,
                _ => {
                    self.at += 1;
                    continue;
                }
            }
            if depth == 0 {
                break;
            }
        }
        self.text.get(start..self.at).unwrap_or_default()
    }

    fn string(&mut self) {
        let bytes = self.text.as_bytes();
        self.at += 1;
        while self.at < bytes.len() {
            self.at += plain(&bytes[self.at..]);
            match bytes.get(self.at) {
                Some(b'\\') => self.at += 2,
                Some(_) => {
                    self.at += 1;
                    break;
                }
                None => break,
            }
        }
        self.at = self.at.min(bytes.len());
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn shown(body: &str) -> Vec<String> {
        let request = Envelope::read(Bytes::copy_from_slice(body.as_bytes())).unwrap();
        let mut out = Vec::new();
        each(&request, |part| out.push(part.fields.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(" ")));
        out
    }

    #[test]
    fn messages_and_parts_are_found_and_free_json_is_not() {
        assert_eq!(
            shown(
                r#"{"model":"m", "messages" : [ {"role":"user", "content":[{"type":"text","text":"a \"b\" \\"}, {"type":"x","n":-1.5e3 ,"o":{"content":[{"q":1}]}} ] },{"role":"tool","content":"{\"content\":[]}"}]}"#
            ),
            [r#"type="text" text="a \"b\" \\""#, r#"type="x" n=-1.5e3 o={"content":[{"q":1}]}"#, r#"role="user""#, r#"role="tool""#]
        );
        assert_eq!(
            shown(r#"{"contents":{"parts":{"functionResponse":{"response":{"parts":[{"a":1}]},"parts":[{"inlineData":{}}]}}},"tools":[{"content":[{"a":1}]}]}"#),
            ["inlineData={}", r#"response={"parts":[{"a":1}]}"#, "", ""]
        );
        assert_eq!(shown(r#"{"system":[{"source":{"type":"content","content":[{"a":true}]}}]}"#), ["a=true", r#"source={"type":"content","content":[{"a":true}]}"#]);
        assert!(shown(r#"{"messages":"x","input":[],"contents":null,"system":7}"#).is_empty());
    }

    #[test]
    fn fields_are_read_in_every_form() {
        let part = Part::read(r#"{"type" : "image_url","image_url":{"url":"u","x":null},"n":null,"a":"v"}"#);
        assert_eq!((part.kind(), part.place("image_url"), part.place("a"), part.get("n")), (Some("image_url"), Some("u"), Some("v"), None));
        assert_eq!(part.names().collect::<Vec<_>>(), ["type", "image_url", "a"]);
        assert_eq!((Part::read("7").names().count(), list("[1,{}]").len(), list(r#"{"a":1}"#).len()), (0, 2, 1));
        assert_eq!((many(r#"["a", "b"]"#), many("[[1,2],[3]]"), many("[1,2,3]"), many(r#""a""#), many("[]")), (2, 2, 0, 0, 0));
    }

    #[test]
    fn text_that_is_no_json_is_passed_over() {
        for text in ["", "{", "[", "\"", "\"\\", "{\"a", "{\"a\":", "[1", "{]", "[}", "}}", "{\"a\":}", "[[[", "é", "{é:é}"] {
            Part::read(text);
            list(text);
            many(text);
            Reader { text, at: 0 }.walk(&mut |_| {});
        }
    }
}
