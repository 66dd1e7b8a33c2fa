//! Anthropic's Messages as a door: its requests read into the hub, the hub's answers written as its messages and events.

mod answer;
mod clean;
mod count;
mod parts;
mod read;
mod stream;
pub mod wire;

pub use clean::clean_history;
pub use count::count_answer;

use serde::Serialize;

use crate::answer::{Answer, Finish, OwnedDetail};
use crate::chat::json;
use crate::door::{ClientError, Door, Meta, Writer};
use crate::envelope::Envelope;
use crate::order::InOrder;
use crate::usage::{Usage, sum};
use crate::{Dialect, Error, carry};

/// Anthropic's Messages.
#[derive(Debug)]
pub struct Messages;

impl Door for Messages {
    fn dialect(&self) -> Dialect {
        Dialect::Messages
    }

    fn read(&self, request: &Envelope, warnings: &mut Vec<String>) -> Result<Vec<u8>, Error> {
        read::read(request.body(), warnings)
    }

    fn answer(&self, answer: &Answer, meta: &Meta) -> Vec<u8> {
        answer::write(answer, meta)
    }

    fn writer(&self, meta: Meta) -> Box<dyn Writer> {
        Box::new(InOrder::new(stream::Events::new(meta)))
    }

    fn error(&self, error: &ClientError) -> Vec<u8> {
        #[derive(Serialize)]
        struct Body<'a> {
            r#type: &'static str,
            error: Inner<'a>,
        }
        #[derive(Serialize)]
        struct Inner<'a> {
            r#type: &'static str,
            message: &'a str,
        }
        let mut out = Vec::with_capacity(200);
        json(&mut out, &Body { r#type: "error", error: Inner { r#type: error.kind.anthropic_type(), message: &error.message } });
        out
    }

    fn error_event(&self, error: &ClientError) -> Vec<u8> {
        let mut out = b"event: error\ndata: ".to_vec();
        out.extend_from_slice(&self.error(error));
        out.extend_from_slice(b"\n\n");
        out
    }
}

/// The message's id: Anthropic's own, or another provider's under Anthropic's prefix.
fn message_id(id: &str, meta: &Meta) -> String {
    match id {
        "" => format!("msg_{}", meta.id),
        id if id.starts_with("msg_") => id.to_owned(),
        id => format!("msg_{id}"),
    }
}

/// A call's id for the client. Claude's thinking travels in blocks of its own here, so its seal comes off; what another
/// provider sealed stays.
fn call_id(id: &str) -> &str {
    match carry::unseal(id) {
        (bare, Some((carry::ANTHROPIC, _))) => bare,
        _ => id,
    }
}

/// A block of another provider's reasoning as the signature of a thinking block: only this door can read it back.
fn sealed(detail: &OwnedDetail) -> String {
    let mut text = Vec::with_capacity(256);
    json(&mut text, detail);
    carry::seal("", detail.format, &String::from_utf8_lossy(&text))
}

/// Whether a signature, or an id, has a seal in it.
fn is_sealed(text: &str) -> bool {
    carry::may_carry(text.as_bytes())
}

/// The `stop_reason`.
fn stop_reason(finish: Finish) -> &'static str {
    match finish {
        Finish::Stop => "end_turn",
        Finish::Length => "max_tokens",
        Finish::ToolCalls => "tool_use",
        Finish::ContentFilter => "refusal",
    }
}

/// Usage as Anthropic counts it: what was read from and written to caches stands beside `input_tokens`.
#[derive(Serialize)]
struct UsageBody {
    input_tokens: u64,
    cache_creation_input_tokens: u64,
    cache_read_input_tokens: u64,
    cache_creation: CacheCreation,
    output_tokens: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_tokens_details: Option<OutputDetails>,
}

#[derive(Serialize)]
struct CacheCreation {
    ephemeral_5m_input_tokens: u64,
    ephemeral_1h_input_tokens: u64,
}

#[derive(Serialize)]
struct OutputDetails {
    thinking_tokens: u64,
}

impl From<Usage> for UsageBody {
    fn from(usage: Usage) -> Self {
        UsageBody {
            input_tokens: sum([usage.input, usage.input_audio]),
            cache_creation_input_tokens: sum([usage.cache_write, usage.cache_write_1h]),
            cache_read_input_tokens: usage.cache_read,
            cache_creation: CacheCreation { ephemeral_5m_input_tokens: usage.cache_write, ephemeral_1h_input_tokens: usage.cache_write_1h },
            output_tokens: usage.completion(),
            output_tokens_details: (usage.reasoning > 0).then_some(OutputDetails { thinking_tokens: usage.reasoning }),
        }
    }
}
