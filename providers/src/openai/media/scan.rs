//! One JSON object that comes in any pieces, of which a few top-level fields are of interest. Strings are stepped over and never
//! kept, but for short ones.

/// Longest value that is kept.
const LONGEST: usize = 4096;
/// Longest string that is kept: names of fields, kinds of events.
const SHORT: usize = 48;

/// What has been seen of an object.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// `usage`, if it is an object.
    pub(super) usage: Option<String>,
    /// `duration`, as it is written.
    pub(super) duration: Option<String>,
    /// How long `text` is.
    pub(super) text: Option<u64>,
    /// How long a piece of a text is: `delta`, or `content` in `choices`.
    pub(super) pieces: Option<u64>,
    /// How many objects `data` has.
    pub(super) pictures: u64,
    /// `type`.
    pub(super) kind: String,
    /// `size`.
    pub(super) size: Option<String>,
    /// `quality`.
    pub(super) quality: Option<String>,
    /// Whether `error` is anything.
    pub(super) failed: bool,
    depth: usize,
    within: Within,
    field: Field,
    /// The beginning of the last string, and how long it is.
    string: Vec<u8>,
    length: u64,
    /// Whether the next string is the value of the field that was just named.
    value: bool,
    /// A value that is kept.
    kept: Vec<u8>,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Within {
    #[default]
    Structure,
    String,
    Escape,
}

/// A top-level field.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Field {
    #[default]
    Other,
    Usage,
    Duration,
    Text,
    Delta,
    Choices,
    Data,
    Kind,
    Size,
    Quality,
    Error,
}

impl Field {
    fn of(name: &[u8]) -> Self {
        match name {
            b"usage" => Field::Usage,
            b"duration" => Field::Duration,
            b"text" => Field::Text,
            b"delta" => Field::Delta,
            b"choices" => Field::Choices,
            b"data" => Field::Data,
            b"type" => Field::Kind,
            b"size" => Field::Size,
            b"quality" => Field::Quality,
            b"error" => Field::Error,
            _ => Field::Other,
        }
    }

    /// Whether its value is kept.
    fn is_kept(self) -> bool {
        matches!(self, Field::Usage | Field::Duration | Field::Error)
    }
}

impl Scan {
    /// Reads the next piece.
    pub(super) fn push(&mut self, piece: &[u8]) {
        let mut at = 0;
        while at < piece.len() {
            let start = at;
            match self.within {
                Within::Structure => {
                    self.token(piece[at]);
                    at += 1;
                }
                Within::Escape => {
                    at += 1;
                    self.take(&piece[start..at]);
                    self.within = Within::String;
                }
                Within::String => {
                    let end = memchr::memchr2(b'"', b'\\', &piece[at..]).map(|n| at + n);
                    self.take(&piece[at..end.unwrap_or(piece.len())]);
                    at = end.map_or(piece.len(), |end| end + 1);
                    match end.map(|end| piece[end]) {
                        Some(b'"') => {
                            self.keep(b"\"");
                            self.within = Within::Structure;
                            self.end_of_string();
                        }
                        Some(_) => {
                            self.take(b"\\");
                            self.within = Within::Escape;
                        }
                        None => {}
                    }
                }
            }
        }
    }

    /// A byte outside of strings.
    fn token(&mut self, byte: u8) {
        match byte {
            b'"' => {
                self.within = Within::String;
                if self.is_named() {
                    self.string.clear();
                }
                self.length = 0;
                self.keep(b"\"");
                return;
            }
            b':' if self.depth == 1 => {
                self.field = Field::of(&self.string);
                self.kept.clear();
            }
            b',' if self.depth == 1 => self.end_of_field(),
            b'{' | b'[' => {
                self.depth += 1;
                self.pictures += u64::from(byte == b'{' && self.depth == 3 && self.field == Field::Data);
                self.keep(&[byte]);
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                if self.depth == 0 {
                    self.end_of_field();
                } else {
                    self.keep(&[byte]);
                }
            }
            b' ' | b'\n' | b'\r' | b'\t' => return,
            _ => self.keep(&[byte]),
        }
        self.value = byte == b':';
    }

    /// Whether the string at hand may take the place of the last name: below the top a field's name is needed until its value
    /// has been read.
    fn is_named(&self) -> bool {
        !self.value || self.depth == 1
    }

    /// A part of a string.
    fn take(&mut self, part: &[u8]) {
        if self.is_named() {
            let room = SHORT.saturating_sub(self.string.len());
            self.string.extend_from_slice(&part[..part.len().min(room)]);
        }
        self.length += part.len() as u64;
        self.keep(part);
    }

    fn keep(&mut self, part: &[u8]) {
        if self.field.is_kept() && self.depth > 0 {
            let room = LONGEST.saturating_sub(self.kept.len());
            self.kept.extend_from_slice(&part[..part.len().min(room)]);
        }
    }

    fn end_of_string(&mut self) {
        let value = std::mem::take(&mut self.value);
        if !value {
            return;
        }
        let short = || String::from_utf8_lossy(&self.string).into_owned();
        match (self.depth, self.field) {
            (1, Field::Text) => self.text = Some(self.length),
            (1, Field::Delta) => self.pieces = Some(self.length),
            (1, Field::Kind) => self.kind = short(),
            (1, Field::Size) => self.size = Some(short()),
            (1, Field::Quality) => self.quality = Some(short()),
            (_, Field::Choices) if self.string == b"content" => *self.pieces.get_or_insert(0) += self.length,
            _ => {}
        }
    }

    fn end_of_field(&mut self) {
        let kept = std::mem::take(&mut self.kept);
        let text = String::from_utf8(kept).ok().filter(|text| text.len() < LONGEST);
        match self.field {
            Field::Usage => self.usage = text.filter(|text| text.starts_with('{')),
            Field::Duration => self.duration = text,
            Field::Error => self.failed = text.is_none_or(|text| text != "null"),
            _ => {}
        }
        self.field = Field::Other;
    }
}
