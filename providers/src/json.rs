//! One strict pass over a JSON body before anything else reads it. Refuses what two parsers might read differently
//! (duplicate keys, lone surrogates, NaN), bounds the nesting, and reports the spans of the top-level fields.

use std::borrow::Cow;
use std::hash::BuildHasher;
use std::ops::Range;

use crate::media::Marks;

/// Deepest nesting that is accepted. Below `serde_json`'s own limit of 128, so that a later typed parse never hits it.
pub const MAX_DEPTH: usize = 120;

/// Why a body is not acceptable JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// The bytes are not UTF-8.
    #[error("the body is not valid UTF-8 (at byte {0})")]
    NotUtf8(usize),
    /// The body is empty.
    #[error("the body is empty; a JSON object is expected")]
    Empty,
    /// The outermost value is not an object.
    #[error("the body must be a JSON object")]
    NotAnObject,
    /// A syntax error.
    #[error("the body is not valid JSON: {what} at byte {at}")]
    Syntax {
        /// What was wrong.
        what: &'static str,
        /// Byte offset.
        at: usize,
    },
    /// The body ends in the middle of a value.
    #[error("the body is not valid JSON: it ends in the middle of a value (at byte {0})")]
    Truncated(usize),
    /// An object has the same key twice.
    #[error("the key `{key}` occurs twice in one object (at byte {at}); readers could disagree on which one counts")]
    DuplicateKey {
        /// The key, decoded.
        key: String,
        /// Byte offset of the second occurrence.
        at: usize,
    },
    /// A key, or a short value, in which a letter or digit is written as an escape.
    #[error("letters and digits must be written as they are, and not as `\\u…` escapes, in keys and in words (at byte {0}): readers that look for them must find them")]
    Disguised(usize),
    /// A `\uD800`-style escape without its partner.
    #[error("a string holds a lone surrogate escape (at byte {0}), which is not text")]
    LoneSurrogate(usize),
    /// Nesting deeper than [`MAX_DEPTH`].
    #[error("the body is nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
}

/// Longest value that may be a word that somebody looks for (`"type": "image"`), bytes with its escapes. In longer ones, which
/// are texts, letters may be written as one likes.
const WORD: usize = 64;

/// A top-level field: where its key stands (without the quotes, still escaped) and where its value stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// The key's bytes between the quotes.
    pub key: Range<usize>,
    /// The value's bytes.
    pub value: Range<usize>,
}

/// Checks that `body` is one JSON object by strict rules and returns its top-level fields in order.
///
/// # Errors
/// [`JsonError`], the first problem found.
pub fn scan(body: &[u8]) -> Result<Vec<Field>, JsonError> {
    pass(body, false).map(|(fields, _)| fields)
}

/// Keys that were met anywhere in the body and tell a reader whether it is worth a closer look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Met {
    /// A key of reasoning that came from a provider: `reasoning…`, `signature`, `thoughtSignature`, `encrypted_…`.
    pub reasoning: bool,
    /// A key of tool calls in the history: `tool_calls`, `tool_call_id`, `call_id`, `tool_use_id`, `functionCall`.
    pub calls: bool,
    /// Whether there may be anything beside text.
    pub media: Marks,
}

impl Met {
    /// Whether a history may hold what was carried through a client; see [`crate::carry`].
    #[must_use]
    pub fn may_carry(self) -> bool {
        self.reasoning || self.calls
    }
}

/// As [`scan`], for a request: with what was met on the way, and with keys and words written as they are looked for.
///
/// # Errors
/// [`JsonError`], the first problem found.
pub fn scan_request(body: &[u8]) -> Result<(Vec<Field>, Met), JsonError> {
    pass(body, true)
}

fn pass(body: &[u8], open: bool) -> Result<(Vec<Field>, Met), JsonError> {
    if simdutf8::basic::from_utf8(body).is_err() {
        let at = std::str::from_utf8(body).err().map_or(0, |e| e.valid_up_to());
        return Err(JsonError::NotUtf8(at));
    }
    let mut scanner = Scanner { body, at: 0, keys: Vec::with_capacity(32), hasher: foldhash::quality::RandomState::default(), open, disguised: false, met: Met::default() };
    let fields = scanner.object_at_top()?;
    Ok((fields, scanner.met))
}

/// One key of an object that is still open, kept until the object closes to find duplicates.
struct Key {
    hash: u64,
    span: Range<usize>,
}

struct Scanner<'a> {
    body: &'a [u8],
    at: usize,
    /// Keys of all open objects, innermost last.
    keys: Vec<Key>,
    /// Seeded per scan: equal hashes cannot be prepared by a sender.
    hasher: foldhash::quality::RandomState,
    /// Whether keys and words must not be disguised.
    open: bool,
    /// Whether the last string has an escape for a letter or digit, which no writer of JSON has a reason for.
    disguised: bool,
    met: Met,
}

/// An open container: an array, or an object with the index of its first key in `Scanner::keys`.
#[derive(Clone, Copy)]
enum Open {
    Array,
    Object(usize),
}

/// Objects up to this size are compared key by key as they grow; larger ones are sorted once when they close.
const LINEAR: usize = 24;

impl Scanner<'_> {
    fn object_at_top(&mut self) -> Result<Vec<Field>, JsonError> {
        self.space();
        match self.peek() {
            None => return Err(JsonError::Empty),
            Some(b'{') => self.at += 1,
            // Tell a syntax error from a value of another type, so that the message helps.
            Some(_) => {
                self.value(1)?;
                return Err(JsonError::NotAnObject);
            }
        }
        let mut fields = Vec::with_capacity(16);
        self.space();
        if self.peek() == Some(b'}') {
            self.at += 1;
        } else {
            loop {
                self.space();
                let key = self.key(0)?;
                let start = self.at;
                self.value(2)?;
                fields.push(Field { key, value: start..self.at });
                self.space();
                match self.next()? {
                    b',' => {}
                    b'}' => break,
                    _ => return Err(self.syntax("expected `,` or `}`")),
                }
            }
            self.close(0)?;
        }
        self.space();
        if self.at < self.body.len() {
            return Err(JsonError::Syntax { what: "something follows after the object", at: self.at });
        }
        Ok(fields)
    }

    /// Passes over one value, iteratively: nesting costs a stack entry here, not a stack frame.
    fn value(&mut self, base: usize) -> Result<(), JsonError> {
        let mut stack: Vec<Open> = Vec::new();
        loop {
            self.space();
            // A value starts here.
            match self.peek() {
                Some(b'{') => {
                    self.at += 1;
                    self.deeper(base, &stack)?;
                    stack.push(Open::Object(self.keys.len()));
                    self.space();
                    if self.peek() == Some(b'}') {
                        self.at += 1;
                        stack.pop();
                    } else {
                        self.key(self.keys.len())?;
                        continue;
                    }
                }
                Some(b'[') => {
                    self.at += 1;
                    self.deeper(base, &stack)?;
                    self.space();
                    if self.peek() == Some(b']') {
                        self.at += 1;
                    } else {
                        stack.push(Open::Array);
                        continue;
                    }
                }
                Some(_) => self.scalar()?,
                None => return Err(JsonError::Truncated(self.at)),
            }
            // A value has ended: go on in the container around it, closing as many as end here.
            loop {
                let Some(open) = stack.last().copied() else { return Ok(()) };
                self.space();
                match (self.next()?, open) {
                    (b',', Open::Array) => break,
                    (b',', Open::Object(first)) => {
                        self.space();
                        self.key(first)?;
                        break;
                    }
                    (b']', Open::Array) => {
                        stack.pop();
                    }
                    (b'}', Open::Object(first)) => {
                        self.close(first)?;
                        stack.pop();
                    }
                    (_, Open::Array) => return Err(self.syntax("expected `,` or `]`")),
                    (_, Open::Object(_)) => return Err(self.syntax("expected `,` or `}`")),
                }
            }
        }
    }

    fn deeper(&self, base: usize, stack: &[Open]) -> Result<(), JsonError> {
        if base + stack.len() > MAX_DEPTH { Err(JsonError::TooDeep) } else { Ok(()) }
    }

    /// Reads `"key" :` and leaves the cursor at the value. `first` is where the keys of this object begin.
    fn key(&mut self, first: usize) -> Result<Range<usize>, JsonError> {
        match self.peek() {
            Some(b'"') => {}
            Some(_) => return Err(JsonError::Syntax { what: "expected a key in quotes", at: self.at }),
            None => return Err(JsonError::Truncated(self.at)),
        }
        let start = self.at + 1;
        let escaped = self.string()?;
        let span = start..self.at - 1;
        if self.disguised && self.open {
            return Err(JsonError::Disguised(start));
        }
        match &self.body[span.clone()] {
            b"tool_calls" | b"tool_call_id" | b"call_id" | b"tool_use_id" | b"functionCall" => self.met.calls = true,
            b"signature" | b"thoughtSignature" => self.met.reasoning = true,
            key if key.starts_with(b"reasoning") || key.starts_with(b"encrypted_") => self.met.reasoning = true,
            key => self.met.media.key(key),
        }
        let hash = if escaped { self.hasher.hash_one(&*self.decoded(&span)) } else { self.hasher.hash_one(self.text(&span)) };
        if self.keys.len() - first < LINEAR {
            for other in &self.keys[first..] {
                if other.hash == hash {
                    self.compare(&other.span, &span)?;
                }
            }
        }
        self.keys.push(Key { hash, span: span.clone() });
        self.space();
        if self.next()? != b':' {
            return Err(self.syntax("expected `:` after a key"));
        }
        self.space();
        Ok(span)
    }

    /// Closes the object whose keys begin at `first`.
    fn close(&mut self, first: usize) -> Result<(), JsonError> {
        if self.keys.len() - first > LINEAR {
            self.keys[first..].sort_unstable_by_key(|k| (k.hash, k.span.start));
            for pair in self.keys[first..].windows(2) {
                if pair[0].hash == pair[1].hash {
                    self.compare(&pair[0].span, &pair[1].span)?;
                }
            }
        }
        self.keys.truncate(first);
        Ok(())
    }

    fn compare(&self, one: &Range<usize>, other: &Range<usize>) -> Result<(), JsonError> {
        let key = self.decoded(other);
        if self.decoded(one) == key {
            return Err(JsonError::DuplicateKey { key: key.chars().take(64).collect(), at: other.start });
        }
        Ok(())
    }

    fn text(&self, span: &Range<usize>) -> &str {
        // The whole body was checked, and a span begins and ends at a quote: this cannot fail.
        std::str::from_utf8(&self.body[span.clone()]).unwrap_or_default()
    }

    fn decoded(&self, span: &Range<usize>) -> Cow<'_, str> {
        let text = self.text(span);
        if !text.contains('\\') {
            return Cow::Borrowed(text);
        }
        let quoted = &self.body[span.start - 1..span.end + 1];
        serde_json::from_slice::<String>(quoted).map_or(Cow::Borrowed(text), Cow::Owned)
    }

    fn scalar(&mut self) -> Result<(), JsonError> {
        match self.peek() {
            Some(b'"') => {
                let open = self.at + 1;
                self.string()?;
                if self.disguised && self.open && self.at - open <= WORD {
                    return Err(JsonError::Disguised(open));
                }
                Ok(())
            }
            Some(b't') => self.word(b"true"),
            Some(b'f') => self.word(b"false"),
            Some(b'n') => self.word(b"null"),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(_) => Err(JsonError::Syntax { what: "expected a value", at: self.at }),
            None => Err(JsonError::Truncated(self.at)),
        }
    }

    fn word(&mut self, word: &'static [u8]) -> Result<(), JsonError> {
        let rest = &self.body[self.at..];
        if rest.starts_with(word) {
            self.at += word.len();
            Ok(())
        } else if word.starts_with(rest) {
            Err(JsonError::Truncated(self.body.len()))
        } else {
            Err(JsonError::Syntax { what: "expected a value", at: self.at })
        }
    }

    fn number(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => self.digits(),
            Some(_) => return Err(JsonError::Syntax { what: "not a number", at: start }),
            None => return Err(JsonError::Truncated(self.at)),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.some_digits(start)?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.some_digits(start)?;
        }
        Ok(())
    }

    fn some_digits(&mut self, start: usize) -> Result<(), JsonError> {
        let from = self.at;
        self.digits();
        if self.at > from {
            Ok(())
        } else if self.at == self.body.len() {
            Err(JsonError::Truncated(self.at))
        } else {
            Err(JsonError::Syntax { what: "not a number", at: start })
        }
    }

    fn digits(&mut self) {
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
    }

    /// Passes over a string from its opening quote to behind its closing one; tells whether it holds an escape.
    fn string(&mut self) -> Result<bool, JsonError> {
        self.at += 1;
        let mut escaped = false;
        self.disguised = false;
        loop {
            self.at += plain(&self.body[self.at..]);
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(escaped);
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return Err(JsonError::Syntax { what: "a control character in a string must be escaped", at: self.at }),
                None => return Err(JsonError::Truncated(self.at)),
            }
        }
    }

    fn escape(&mut self) -> Result<(), JsonError> {
        let start = self.at;
        self.at += 1;
        match self.next()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(()),
            b'u' => match self.hex4()? {
                0xD800..=0xDBFF => {
                    let pair = self.body[self.at..].starts_with(b"\\u");
                    if pair {
                        self.at += 2;
                        if (0xDC00..=0xDFFF).contains(&self.hex4()?) {
                            return Ok(());
                        }
                    }
                    Err(JsonError::LoneSurrogate(start))
                }
                0xDC00..=0xDFFF => Err(JsonError::LoneSurrogate(start)),
                code => {
                    self.disguised |= u8::try_from(code).is_ok_and(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b'$'));
                    Ok(())
                }
            },
            _ => Err(JsonError::Syntax { what: "unknown escape", at: start }),
        }
    }

    fn hex4(&mut self) -> Result<u16, JsonError> {
        let mut code = 0u16;
        for _ in 0..4 {
            let digit = (self.next()? as char).to_digit(16).ok_or_else(|| self.syntax("`\\u` wants four hex digits"))?;
            code = code << 4 | digit as u16;
        }
        Ok(code)
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\t' | b'\r')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.body.get(self.at).copied()
    }

    fn next(&mut self) -> Result<u8, JsonError> {
        let byte = self.peek().ok_or(JsonError::Truncated(self.at))?;
        self.at += 1;
        Ok(byte)
    }

    /// A syntax error at the byte just read.
    fn syntax(&self, what: &'static str) -> JsonError {
        JsonError::Syntax { what, at: self.at.saturating_sub(1) }
    }
}

/// How many bytes from the start need no attention inside a string: no quote, no backslash, no control character. Eight
/// bytes at a time: prose has an escape every line or so, which is too near for the start-up of wider searches.
pub(crate) fn plain(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES * 0x80;
    // The high bit of each byte that is zero; the lowest one set is exact, those above it may be carried over.
    let zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let (words, rest) = bytes.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
        let found = zero(word ^ (ONES * u64::from(b'"'))) | zero(word ^ (ONES * u64::from(b'\\'))) | control;
        if found != 0 {
            return at * 8 + found.trailing_zeros() as usize / 8;
        }
    }
    let special = |b: &u8| matches!(b, b'"' | b'\\' | 0..0x20);
    words.len() * 8 + rest.iter().position(special).unwrap_or(rest.len())
}

#[cfg(test)]
mod tests;
