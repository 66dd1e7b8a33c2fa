//! Front-door dialects: what clients speak. A door reads its requests into the hub and writes the hub's answers out in
//! its own words, so that M doors and N providers are N + M pieces of code.

use bytes::Bytes;

use crate::answer::{Answer, Delta};
use crate::envelope::Envelope;
use crate::error::ErrorKind;
use crate::{Dialect, Error};

/// What an answer's writer has to know that is not in the answer.
#[derive(Debug, Clone, Default)]
pub struct Meta {
    /// A name for the answer where the provider gives none; without a prefix.
    pub id: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The model as the client asked for it, where the provider names none.
    pub model: String,
    /// Whether the client asked for usage in the stream.
    pub include_usage: bool,
    /// The client's request as it came: the Responses door repeats parts of it.
    pub request: Bytes,
}

/// An error as a client is told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientError {
    /// HTTP status.
    pub status: u16,
    /// What kind it is.
    pub kind: ErrorKind,
    /// What happened and what to do.
    pub message: String,
    /// The parameter at fault.
    pub param: Option<String>,
    /// A code; the kind's own where `None`.
    pub code: Option<String>,
}

/// A dialect that clients speak.
pub trait Door: Send + Sync {
    /// Which dialect it is.
    fn dialect(&self) -> Dialect;

    /// Reads a request into the hub: the JSON text of an OpenAI chat request. What had to be left out or changed and does no
    /// harm goes into `warnings`, one sentence each.
    ///
    /// # Errors
    /// What is wrong with the request, in terms of this door, and what cannot be left out without changing what was asked.
    fn read(&self, request: &Envelope, warnings: &mut Vec<String>) -> Result<Vec<u8>, Error>;

    /// Writes a whole answer.
    fn answer(&self, answer: &Answer, meta: &Meta) -> Vec<u8>;

    /// Begins to write a stream.
    fn writer(&self, meta: Meta) -> Box<dyn Writer>;

    /// Writes an error body.
    fn error(&self, error: &ClientError) -> Vec<u8>;

    /// Writes an error into a stream that is passed on in this dialect byte for byte.
    fn error_event(&self, error: &ClientError) -> Vec<u8>;
}

/// How many warnings a client can be expected to read; a header does not hold as many.
const MOST: usize = 64;

/// Adds a warning that has not been given yet, as long as there are not too many: a client may send fields without end.
pub(crate) fn once(warnings: &mut Vec<String>, text: impl Into<String>) {
    let text = text.into();
    if warnings.len() < MOST && !warnings.contains(&text) {
        warnings.push(text);
    }
}

/// Writes one stream in a door's dialect.
pub trait Writer: Send {
    /// Writes a piece.
    fn delta(&mut self, delta: &Delta<'_>, out: &mut Vec<u8>);

    /// Writes the clean end.
    fn end(&mut self, out: &mut Vec<u8>);

    /// Writes an error as the last thing; the stream must not look as if it had ended well.
    fn error(&mut self, error: &ClientError, out: &mut Vec<u8>);
}

/// The door of a dialect that chats.
#[must_use]
pub fn door(dialect: Dialect) -> &'static dyn Door {
    match dialect {
        Dialect::Completions => &crate::completions::Completions,
        Dialect::Responses => &crate::responses::Responses,
        Dialect::Generate => &crate::generate::Generate,
        Dialect::Messages => &crate::messages::Messages,
        Dialect::Chat => &crate::chat::Chat,
    }
}
