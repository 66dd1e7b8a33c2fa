//! Takes out of a Messages history what this door made of other providers' answers, before it goes to Anthropic.

use super::is_sealed;
use super::wire::{Block, Content, Message};
use crate::envelope::Envelope;
use crate::wire::Str;
use crate::{Error, carry};

/// The `messages` of a body without what Anthropic would refuse: thinking that it has not signed, sealed call ids, and
/// citations that it cannot look up. `None` where there is nothing of the kind, so that the body passes as it came.
///
/// # Errors
/// When the history cannot be read.
pub fn clean_history(envelope: &Envelope) -> Result<Option<String>, Error> {
    let foreign: [&[u8]; 5] = [b"~sig.", br#""signature":"""#, br#""signature": """#, br#""encrypted_index":"""#, br#""encrypted_index": """#];
    if !envelope.met().may_carry() || !foreign.iter().any(|mark| memchr::memmem::find(envelope.body(), mark).is_some()) {
        return Ok(None);
    }
    let Some(mut messages) = envelope.parse::<Vec<Message<'_>>>("messages")? else { return Ok(None) };
    for message in &mut messages {
        if let Some(Content::Blocks(blocks)) = &mut message.content {
            blocks.retain(|block| !foreign_thinking(block));
            blocks.iter_mut().for_each(clean);
        }
    }
    messages.retain(|m| !matches!(&m.content, Some(Content::Blocks(blocks)) if blocks.is_empty()));
    Ok(serde_json::to_string(&messages).ok())
}

fn foreign_thinking(block: &Block<'_>) -> bool {
    block.kind.as_deref() == Some("thinking") && block.signature.as_deref().is_none_or(|s| s.is_empty() || is_sealed(s))
}

fn clean(block: &mut Block<'_>) {
    for id in [&mut block.id, &mut block.tool_use_id].into_iter().flatten() {
        if is_sealed(id) {
            // Anthropic's ids have no dots and colons, as some hosts' have.
            *id = Str::from(carry::bare(id).chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' }).collect::<String>());
        }
    }
    if block.citations.is_some_and(|c| c.get().contains(r#""encrypted_index":"""#) || c.get().contains(r#""encrypted_index": """#)) {
        block.citations = None;
    }
}
