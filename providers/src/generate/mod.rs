//! Gemini's `generateContent` as a door: its requests into the hub, the hub's answers and streams out in its words; and the
//! bodies of `countTokens` and `embedContent` beside it.

mod answer;
mod array;
mod embed;
mod request;
mod schema;
mod stream;
mod turns;

use serde::Serialize;

pub use array::Array;
pub use embed::{read_batch, read_embed, write_batch, write_embed};

use crate::answer::Answer;
use crate::chat::json;
use crate::door::{ClientError, Door, Meta, Writer};
use crate::envelope::Envelope;
use crate::order::InOrder;
use crate::{Dialect, Error};

/// Gemini's `generateContent`. Model and stream flag stand in Google's path, not in the body: the gateway puts them into the
/// body, as `model` and `stream`, before a request is read here.
#[derive(Debug)]
pub struct Generate;

impl Door for Generate {
    fn dialect(&self) -> Dialect {
        Dialect::Generate
    }

    fn read(&self, request: &Envelope, warnings: &mut Vec<String>) -> Result<Vec<u8>, Error> {
        request::read(request.body(), warnings)
    }

    fn answer(&self, answer: &Answer, meta: &Meta) -> Vec<u8> {
        answer::write(answer, meta)
    }

    fn writer(&self, meta: Meta) -> Box<dyn Writer> {
        Box::new(InOrder::new(stream::EventWriter::new(meta)))
    }

    fn error(&self, error: &ClientError) -> Vec<u8> {
        google_error(error)
    }

    fn error_event(&self, error: &ClientError) -> Vec<u8> {
        // Google itself breaks into a stream with the bare body, and its SDKs look for that: the JavaScript one fails on a
        // rest that is no event, where it would skip an event. Plain SSE readers see only the event. So both are sent.
        let body = google_error(error);
        [b"data: ", &*body, b"\n\n", &*body].concat()
    }
}

/// Google's error body.
#[must_use]
pub fn google_error(error: &ClientError) -> Vec<u8> {
    #[derive(Serialize)]
    struct Body<'a> {
        error: Inner<'a>,
    }
    #[derive(Serialize)]
    struct Inner<'a> {
        code: u16,
        message: &'a str,
        status: &'static str,
    }
    let mut out = Vec::with_capacity(200);
    json(&mut out, &Body { error: Inner { code: error.status, message: &error.message, status: error.kind.google_status() } });
    out
}

/// The answer to `countTokens`.
#[must_use]
pub fn count_answer(tokens: u64) -> Vec<u8> {
    format!("{{\"totalTokens\":{tokens}}}").into_bytes()
}
