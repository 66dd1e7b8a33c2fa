//! Carries reasoning across turns through a client that knows only OpenAI's schema. A provider's signature travels in
//! `reasoning_details` of the assistant's message (the shape OpenRouter made common) and, because many clients rebuild a
//! message from text and tool calls alone, a second time sealed into the tool call's id. Nothing is kept on this side.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::place::{calls_before, is_place};
use crate::wire::{Str, ToolCall, open};

open! {
    /// One opaque block of reasoning, to be handed back to the provider that made it and to no other.
    Detail {
        /// `reasoning.text` (text with a signature), `reasoning.encrypted` (opaque data), `reasoning.summary`.
        "type" kind: Str<'a>,
        /// Who can read it back: one of the constants in this file.
        "format" format: Str<'a>,
        /// Thinking text.
        "text" text: Str<'a>,
        /// Signature over the text.
        "signature" signature: Str<'a>,
        /// Opaque data.
        "data" data: Str<'a>,
        /// Summary text.
        "summary" summary: Str<'a>,
        /// The tool call it belongs to, or the block's own id: of Claude's thinking, where in its turn it stood.
        "id" id: Str<'a>,
        /// Position among the blocks.
        "index" index: u32,
    }
}

/// Claude's thinking blocks, whoever hosts it.
pub const ANTHROPIC: &str = "anthropic-claude-v1";
/// Gemini's thought signatures.
pub const GEMINI: &str = "google-gemini-v1";
/// Reasoning of models on Amazon Bedrock that are not Claude.
pub const BEDROCK: &str = "bedrock-converse-v1";
/// Reasoning items of OpenAI's Responses API.
pub const OPENAI: &str = "openai-responses-v1";

/// The id under which the signature of an answer's image travels: images have none of their own, but an order.
#[must_use]
pub fn image_id(position: usize) -> String {
    format!("image_{position}")
}

/// What stands between a tool call's own id and what is sealed behind it.
const SEAL: &str = "~sig.";

/// An id with a signature sealed behind it: `id~sig.FORMAT.BASE64`.
#[must_use]
pub fn seal(id: &str, format: &str, signature: &str) -> String {
    format!("{id}{SEAL}{}.{}", tag(format), URL_SAFE_NO_PAD.encode(signature))
}

/// Takes a sealed id apart: the bare id, and format and signature where there is a seal that can be read.
#[must_use]
pub fn unseal(id: &str) -> (&str, Option<(&'static str, String)>) {
    let Some((bare, sealed)) = id.split_once(SEAL) else { return (id, None) };
    let inner = || {
        let (tag, data) = sealed.split_once('.')?;
        let signature = String::from_utf8(URL_SAFE_NO_PAD.decode(data).ok()?).ok()?;
        Some((format_of(tag)?, signature))
    };
    (bare, inner())
}

/// What marks a redacted block among the blocks sealed into a call's id; no letter of base64.
const REDACTED: char = '~';

/// Blocks of thinking to be sealed into the id of the call that comes behind them: a line each, with its place if it has one.
pub(crate) fn seal_block(sealed: &mut String, place: Option<&str>, redacted: bool, data: &str) {
    if !sealed.is_empty() {
        sealed.push('\n');
    }
    if let Some(place) = place {
        sealed.push_str(place);
        sealed.push(' ');
    }
    sealed.extend(redacted.then_some(REDACTED));
    sealed.push_str(data);
}

/// A block of thinking as it came back in a call's id.
pub(crate) struct SealedBlock {
    /// Its number among the message's.
    pub(crate) index: u32,
    pub(crate) place: Option<String>,
    pub(crate) redacted: bool,
    /// A signature, or the data of a redacted block.
    pub(crate) data: String,
}

/// The blocks of Claude's thinking that came back in the ids of a message's calls.
pub(crate) fn sealed_blocks(calls: &[ToolCall<'_>]) -> Vec<SealedBlock> {
    let mut found = Vec::new();
    for (number, call) in calls.iter().enumerate() {
        let Some((ANTHROPIC, sealed)) = call.id.as_deref().and_then(|id| unseal(id).1) else { continue };
        for line in sealed.split('\n') {
            let (place, data) = line.split_once(' ').filter(|(place, _)| is_place(place)).map_or((None, line), |(place, data)| (Some(place), data));
            let redacted = data.starts_with(REDACTED);
            // Only where all calls before it are there too, the place is one of this message.
            let place = place.filter(|p| calls_before(p) == number).map(str::to_owned);
            found.push(SealedBlock { index: found.len() as u32, place, redacted, data: data.trim_start_matches(REDACTED).to_owned() });
        }
    }
    found
}

/// The id without what was sealed behind it.
#[must_use]
pub fn bare<'a>(id: &Str<'a>) -> Str<'a> {
    match &id.0 {
        Cow::Borrowed(text) => Str(Cow::Borrowed(unseal(text).0)),
        Cow::Owned(text) => Str(Cow::Owned(unseal(text).0.to_owned())),
    }
}

/// Nine letters and digits that stand for a text: the same for the same text, so that both ends of a reference meet. For
/// providers that give calls no ids, or that take none but such.
#[must_use]
pub fn short_id(text: &str) -> String {
    // FNV-1a: stable across releases, and an id needs no more.
    let mut hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let digits = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    (0..9)
        .map(|_| {
            let digit = digits[(hash % 62) as usize];
            hash /= 62;
            char::from(digit)
        })
        .collect()
}

/// Whether a text may hold anything that this file put there: a cheap look before it is passed on byte for byte.
#[must_use]
pub fn may_carry(text: &[u8]) -> bool {
    // `reasoning_effort` is a client's own.
    let fields = || memchr::memmem::find_iter(text, b"\"reasoning_").any(|at| [b"content\"", b"details\""].iter().any(|rest| text[at + 11..].starts_with(*rest)));
    memchr::memmem::find(text, SEAL.as_bytes()).is_some() || fields()
}

/// As [`may_carry`], for a whole request: most are told by the keys that the scan met, without another look.
#[must_use]
pub fn request_may_carry(request: &crate::envelope::Envelope) -> bool {
    request.met().may_carry() && may_carry(request.body())
}

fn tag(format: &str) -> &'static str {
    match format {
        ANTHROPIC => "a",
        GEMINI => "g",
        _ => "o",
    }
}

fn format_of(tag: &str) -> Option<&'static str> {
    match tag {
        "a" => Some(ANTHROPIC),
        "g" => Some(GEMINI),
        "o" => Some(OPENAI),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_id_is_the_same_for_the_same_text_only() {
        assert_eq!(short_id("call_1"), short_id("call_1"));
        assert_ne!(short_id("call_1"), short_id("call_2"));
        assert!(["", "call_1", "é"].iter().all(|text| short_id(text).len() == 9 && short_id(text).bytes().all(|b| b.is_ascii_alphanumeric())));
    }

    #[test]
    fn only_what_is_carried_looks_carried() {
        assert!(may_carry(br#"{"reasoning_effort":"low","messages":[{"reasoning_content":"x"}]}"#) && may_carry(br#"{"reasoning_details":[]}"#) && may_carry(b"a~sig.g.AA"));
        assert!(!may_carry(br#"{"reasoning_effort":"low","content":"\"reasoning_"}"#) && !may_carry(b"\"reasoning_"));
    }

    #[test]
    fn a_signature_survives_the_id_and_a_broken_seal_is_only_dropped() {
        let id = seal("call_1", GEMINI, "sig/+=é");
        assert_eq!(unseal(&id), ("call_1", Some((GEMINI, "sig/+=é".to_owned()))));
        assert_eq!(unseal("call_1"), ("call_1", None));
        assert_eq!(unseal("call_1~sig.x.AAAA"), ("call_1", None));
        assert_eq!(unseal("call_1~sig.g.***"), ("call_1", None));
        assert_eq!(unseal("call_1~sig."), ("call_1", None));
    }
}
