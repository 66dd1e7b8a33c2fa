//! Takes out of a hub request what another door carried along for another dialect: a provider that speaks OpenAI's own
//! words would refuse it. Only for requests that came through such a door; a chat client's own fields pass.

use std::borrow::Cow;

use bytes::Bytes;
use memchr::memmem;

use crate::Error;
use crate::door::once;
use crate::envelope::Envelope;
use crate::wire::{Content, Message, Part, Str};

/// What doors put into the hub that is not OpenAI's.
const MARKS: &[&str] = &["\"cache_control\"", "\"is_error\"", "\"thinking\"", "\"top_k\"", "\"citations\"", "\"context\"", "\"image_url\""];

/// The same request in OpenAI's own words, and what had to be left out for it.
///
/// # Errors
/// When it is no chat request.
pub fn neutral(hub: &Envelope) -> Result<(Envelope, Vec<String>), Error> {
    if !MARKS.iter().any(|mark| memmem::find(hub.body(), mark.as_bytes()).is_some()) {
        return Ok((hub.clone(), Vec::new()));
    }
    let request = hub.chat()?;
    let mut warnings = Vec::new();
    let mut edit = hub.edit();
    // The door has said the same by `reasoning_effort`.
    edit.remove("thinking");
    // OpenAI caches without being told where.
    edit.remove("cache_control");
    if request.top_k.is_some() {
        edit.remove("top_k");
        warnings.push("dropped `top_k`: OpenAI's dialect has no such parameter".to_owned());
    }
    if let Some(messages) = request.messages {
        let plain = messages_of(messages, &mut warnings);
        edit.set("messages", serde_json::to_string(&plain).map_err(Error::answer)?);
    }
    if let Some(mut tools) = request.tools {
        tools.iter_mut().for_each(|tool| tool.cache_control = None);
        edit.set("tools", serde_json::to_string(&tools).map_err(Error::answer)?);
    }
    let body: Bytes = edit.finish().into_bytes();
    Ok((Envelope::read(body)?, warnings))
}

fn messages_of<'a>(messages: Vec<Message<'a>>, warnings: &mut Vec<String>) -> Vec<Message<'a>> {
    let mut out: Vec<Message<'_>> = Vec::with_capacity(messages.len());
    // Images of tool results and of the assistant's: OpenAI takes them from the user only, after all results of the turn.
    let mut images: Vec<Part<'_>> = Vec::new();
    for mut message in messages {
        let tool = message.role.as_deref() == Some("tool");
        if !tool {
            give_images(&mut out, &mut images);
        }
        let failed = message.is_error.take() == Some(true);
        message.cache_control = None;
        for call in message.tool_calls.iter_mut().flatten() {
            call.extra.retain(|(name, _)| &**name != "cache_control");
        }
        if let Some(Content::Parts(parts)) = &mut message.content {
            for part in parts.iter_mut() {
                part.cache_control = None;
                if part.extra.iter().any(|(name, _)| matches!(&**name, "citations" | "context")) {
                    once(warnings, "dropped `citations` and `context` of documents: OpenAI's dialect has neither");
                }
                part.extra.retain(|(name, _)| !matches!(&**name, "citations" | "context" | "title"));
            }
            if tool || message.role.as_deref() == Some("assistant") {
                let (pictures, rest): (Vec<_>, Vec<_>) = std::mem::take(parts).into_iter().partition(|p| p.image_url.is_some());
                images.extend(pictures);
                *parts = rest;
                if parts.is_empty() {
                    message.content = Some(Content::Text("(see the image)".into()));
                }
            }
        }
        if failed {
            say_error(&mut message);
        }
        out.push(message);
    }
    give_images(&mut out, &mut images);
    out
}

fn give_images<'a>(out: &mut Vec<Message<'a>>, images: &mut Vec<Part<'a>>) {
    if !images.is_empty() {
        out.push(Message { role: Some("user".into()), content: Some(Content::Parts(std::mem::take(images))), ..Message::default() });
    }
}

/// A failed call has no flag in OpenAI's schema: the result says so itself.
fn say_error(message: &mut Message<'_>) {
    let text = message.content.as_ref().map(Content::text).unwrap_or(Cow::Borrowed(""));
    message.content = Some(Content::Text(Str(Cow::Owned(format!("Error: {text}")))));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(body: &str) -> (serde_json::Value, Vec<String>) {
        let (envelope, warnings) = neutral(&Envelope::read(Bytes::copy_from_slice(body.as_bytes())).unwrap()).unwrap();
        (serde_json::from_slice(envelope.body()).unwrap(), warnings)
    }

    #[test]
    fn what_other_dialects_need_is_taken_out() {
        let (body, warnings) = run(
            r#"{"model":"m","thinking":{"type":"adaptive"},"top_k":5,"cache_control":{"type":"ephemeral"},"tools":[{"type":"function","function":{"name":"f"},"cache_control":{"type":"ephemeral"}}],"messages":[
            {"role":"system","content":[{"type":"text","text":"s","cache_control":{"type":"ephemeral"}}]},
            {"role":"assistant","content":null,"tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{}"}},{"id":"b","type":"function","function":{"name":"f","arguments":"{}"}}]},
            {"role":"tool","tool_call_id":"a","content":[{"type":"text","text":"t"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AA=="}}]},
            {"role":"tool","tool_call_id":"b","content":"boom","is_error":true},
            {"role":"user","content":[{"type":"text","text":"go on"},{"type":"file","file":{"file_data":"data:application/pdf;base64,AA=="},"citations":{"enabled":true}}]}]}"#,
        );
        let text = body.to_string();
        assert!(!text.contains("cache_control") && !text.contains("is_error") && body.get("thinking").is_none() && body.get("top_k").is_none());
        let roles: Vec<_> = body["messages"].as_array().unwrap().iter().map(|m| m["role"].as_str().unwrap()).collect();
        assert_eq!(roles, ["system", "assistant", "tool", "tool", "user", "user"]);
        assert_eq!(body["messages"][3]["content"], "Error: boom");
        assert_eq!(body["messages"][4]["content"][0]["type"], "image_url");
        assert_eq!(warnings.len(), 2, "{warnings:?}");
    }

    #[test]
    fn an_image_of_the_assistant_s_is_shown_by_the_user() {
        let (body, _) = run(
            r#"{"model":"m","messages":[{"role":"assistant","content":[{"type":"text","text":"Here."},{"type":"image_url","image_url":{"url":"data:image/png;base64,AA=="}}]},{"role":"user","content":"Bigger."}]}"#,
        );
        let messages = &body["messages"];
        assert_eq!((&messages[0]["content"][0]["text"], &messages[1]["role"], &messages[1]["content"][0]["type"]), (&"Here.".into(), &"user".into(), &"image_url".into()));
        assert_eq!(messages[2]["content"], "Bigger.");
    }

    #[test]
    fn a_request_without_them_passes_as_it_is() {
        let body = r#"{"model":"m", "messages":[{"role":"user","content":"hi"}]}"#;
        let envelope = Envelope::read(Bytes::copy_from_slice(body.as_bytes())).unwrap();
        assert_eq!(neutral(&envelope).unwrap().0.body(), body.as_bytes());
    }
}
