//! Reasoning blocks inside `encrypted_content`, so that a client which only knows Responses brings them back. They are not
//! secret (the provider has signed or encrypted what must be); the field is used because clients keep it untouched.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::answer::OwnedDetail;
use crate::carry::Detail;
use crate::wire::Str;

/// Base64 of the blocks as JSON. A list of none is sealed too: clients that keep nothing at OpenAI bring back only reasoning
/// that has a seal, and some providers want its text again.
pub(super) fn seal(details: &[OwnedDetail]) -> String {
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(details).unwrap_or_default())
}

/// The blocks that were sealed. `None` for what was not sealed here: OpenAI's own content, most likely.
pub(super) fn open(sealed: &str) -> Option<Vec<Detail<'static>>> {
    let json = URL_SAFE_NO_PAD.decode(sealed.trim_end_matches('=')).ok()?;
    let details: Vec<Detail<'_>> = serde_json::from_slice(&json).ok()?;
    Some(details.into_iter().map(own).collect())
}

fn own(d: Detail<'_>) -> Detail<'static> {
    let own = |text: Option<Str<'_>>| text.map(|t| Str::from(t.0.into_owned()));
    Detail { kind: own(d.kind), format: own(d.format), text: own(d.text), signature: own(d.signature), data: own(d.data), summary: own(d.summary), id: own(d.id), index: d.index, extra: Vec::new() }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::carry;

    #[test]
    fn what_was_sealed_opens_and_nothing_else_does() {
        let block = OwnedDetail { kind: "reasoning.text", format: carry::ANTHROPIC, text: Some("hm \"é\"".into()), signature: Some("c2ln+/=".into()), index: 1, ..OwnedDetail::default() };
        let opened = open(&seal(std::slice::from_ref(&block))).unwrap();
        assert_eq!(serde_json::to_value(&opened).unwrap(), serde_json::to_value([block]).unwrap());
        assert_eq!(open(&seal(&[])).map(|blocks| blocks.len()), Some(0));
        assert!(open("gAAAAABoVyW9_zzzzzzzz").is_none());
        assert!(open("not base64!").is_none());
        assert!(open("e30").is_none());
    }
}
