//! Bodies that pass in Gemini's own dialect: what names the model moves into the path, and what this gateway sealed into a
//! history comes out again.
#![allow(unreachable_pub, reason = "`open!` declares public structs")]

use crate::carry;
use crate::envelope::Edit;
use crate::wire::{Str, open};
use crate::{Dialect, Error, Operation};

use super::contents::FOREIGN_SIGNATURE;
use super::model::Model;

open! {
    /// A request inside a request.
    Inner {
        /// The model, as `models/NAME`.
        "model" model: Str<'a>,
    }
}

open! {
    /// A turn.
    Content {
        /// Its parts.
        "parts" parts: Vec<Part<'a>>,
    }
}

open! {
    /// A part of a turn.
    Part {
        /// A call.
        "functionCall" call: Named<'a>,
        /// A result.
        "functionResponse" result: Named<'a>,
        /// The signature.
        "thoughtSignature" signature: Str<'a>,
    }
}

open! {
    /// A call or a result, as far as it has an id.
    Named {
        /// The id.
        "id" id: Str<'a>,
    }
}

/// Changes what has to be changed in a body that passes.
pub(crate) fn adapt(operation: Operation, edit: &mut Edit<'_>, model: &str) -> Result<(), Error> {
    let envelope = edit.envelope();
    // The gateway puts both there for its own sake; to Google one is a stranger and the other would contradict the path.
    edit.remove("model");
    edit.remove("stream");
    let name = |inner: &mut Inner<'_>| inner.model = Some(Str::from(format!("models/{model}")));
    match operation {
        Operation::Chat(Dialect::Generate) if carry::request_may_carry(envelope) => {
            if let Some(mut contents) = envelope.parse::<Vec<Content<'_>>>("contents")? {
                contents.iter_mut().for_each(|content| clean(content, Model::of(model)));
                edit.set("contents", text(&contents));
            }
        }
        Operation::CountGenerate => {
            if let Some(mut inner) = envelope.parse::<Inner<'_>>("generateContentRequest")? {
                name(&mut inner);
                edit.set("generateContentRequest", text(&inner));
            }
        }
        Operation::BatchEmbedContents => {
            if let Some(mut requests) = envelope.parse::<Vec<Inner<'_>>>("requests")? {
                requests.iter_mut().for_each(name);
                edit.set("requests", text(&requests));
            }
        }
        _ => {}
    }
    Ok(())
}

/// Vertex counts a plain request: what the Gemini API wraps in `generateContentRequest` is put at the top.
pub(crate) fn unwrap_count(edit: &mut Edit<'_>) -> Result<(), Error> {
    if let Some(inner) = edit.envelope().parse::<Inner<'_>>("generateContentRequest")? {
        edit.remove("generateContentRequest");
        for (key, value) in &inner.extra {
            edit.set(key, value.get());
        }
    }
    Ok(())
}

fn text<T: serde::Serialize + ?Sized>(value: &T) -> String {
    // What was read a moment ago can be written.
    serde_json::to_string(value).unwrap_or_default()
}

/// Takes the seals off the ids of a turn's calls and results. A sealed call without Gemini's signature was made by another
/// model: it gets what newer models accept in the place of one.
fn clean(content: &mut Content<'_>, model: Model<'_>) {
    let parts = content.parts.get_or_insert_default();
    let mut foreign = None;
    for (at, part) in parts.iter_mut().enumerate() {
        if let Some(id) = part.result.as_mut().and_then(|r| r.id.as_mut()) {
            *id = carry::bare(id);
        }
        let Some(id) = part.call.as_mut().and_then(|c| c.id.as_mut()) else { continue };
        let (bare, seal) = carry::unseal(id);
        if bare.len() == id.len() {
            continue;
        }
        match seal {
            Some((carry::GEMINI, signature)) => part.signature = Some(signature.into()),
            _ => foreign = foreign.or(Some(at)),
        }
        *id = carry::bare(id);
    }
    let signed = parts.iter().any(|p| p.call.is_some() && p.signature.is_some());
    if let Some(at) = foreign.filter(|_| !signed && model.wants_signatures()) {
        parts[at].signature = Some(FOREIGN_SIGNATURE.into());
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::envelope::Envelope;

    fn passed(operation: Operation, body: &str, model: &str) -> String {
        let envelope = Envelope::read(Bytes::copy_from_slice(body.as_bytes())).unwrap();
        let mut edit = envelope.edit();
        adapt(operation, &mut edit, model).unwrap();
        String::from_utf8(edit.finish().into_bytes().to_vec()).unwrap()
    }

    #[test]
    fn nothing_but_the_model_is_touched() {
        let generate = Operation::Chat(Dialect::Generate);
        let plain = r#"{"contents":[{"parts":[{"text":"hi"}]}] ,"generationConfig":{"seed":1}}"#;
        assert_eq!(passed(generate, plain, "gemini-3.8-flash"), plain);
        assert_eq!(passed(generate, r#"{"model":"fast","contents":[],"stream":true}"#, "m"), r#"{"contents":[]}"#);
        assert_eq!(
            passed(Operation::CountGenerate, r#"{"generateContentRequest":{"model":"models/fast","contents":[{"parts":[]}]}}"#, "gemini-3.8-flash"),
            r#"{"generateContentRequest":{"model":"models/gemini-3.8-flash","contents":[{"parts":[]}]}}"#
        );
        assert_eq!(
            passed(Operation::BatchEmbedContents, r#"{"requests":[{"model":"models/e","content":{"parts":[{"text":"a"}]}},{"content":{}}]}"#, "gemini-embedding-2"),
            r#"{"requests":[{"model":"models/gemini-embedding-2","content":{"parts":[{"text":"a"}]}},{"model":"models/gemini-embedding-2","content":{}}]}"#
        );
    }

    #[test]
    fn a_history_of_other_models_loses_its_seals_and_gets_what_stands_for_a_signature() {
        let generate = Operation::Chat(Dialect::Generate);
        let claude = carry::seal("toolu_1", carry::ANTHROPIC, "sig");
        let body = format!(
            r#"{{"contents":[{{"role":"model","parts":[{{"functionCall":{{"id":"{claude}","name":"f","args":{{"n":123456789012345678901234567890}}}}}}]}},{{"role":"user","parts":[{{"functionResponse":{{"id":"{claude}","name":"f","response":{{}}}}}}]}}]}}"#
        );
        assert_eq!(
            passed(generate, &body, "gemini-4-argon"),
            r#"{"contents":[{"parts":[{"functionCall":{"id":"toolu_1","name":"f","args":{"n":123456789012345678901234567890}},"thoughtSignature":"skip_thought_signature_validator"}],"role":"model"},{"parts":[{"functionResponse":{"id":"toolu_1","name":"f","response":{}}}],"role":"user"}]}"#
        );
        let own = carry::seal("c1", carry::GEMINI, "c2ln");
        let body = format!(r#"{{"contents":[{{"parts":[{{"functionCall":{{"id":"{own}","name":"f"}}}}]}}]}}"#);
        assert_eq!(passed(generate, &body, "gemini-4-argon"), r#"{"contents":[{"parts":[{"functionCall":{"id":"c1","name":"f"},"thoughtSignature":"c2ln"}]}]}"#);
    }
}
