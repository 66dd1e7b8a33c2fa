//! The compatible route of the router and of TGI. Both are strict: the providers behind the router refuse fields they do not
//! know, and TGI reads some of OpenAI's in a shape of its own (`stop` as a list only, `response_format` with a `value`).

use serde::Serialize;
use serde_json::value::RawValue;

use super::KIND;
use crate::Error;
use crate::compatible::{PLAIN, Preset};
use crate::envelope::Edit;
use crate::wire::{ChatRequest, Choice, Message};

/// OpenAI's parameters that providers behind the router refuse, and that change nothing in what is said.
const DROPS: &[&str] = &["store", "metadata", "service_tier", "verbosity", "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options", "safety_identifier", "prediction"];

/// What any provider behind the router takes: some of them answer 400 to a key that they do not know.
const BEHIND_THE_ROUTER: Preset = Preset { kind: KIND, message: &["role", "content", "name", "tool_calls", "tool_call_id"], ..PLAIN };

/// Changes what has to be changed beyond OpenAI's own dialect; `tgi` says that it is a TGI server.
pub(super) fn adapt(edit: &mut Edit<'_>, tgi: bool) -> Result<Vec<String>, Error> {
    let envelope = edit.envelope();
    let request = envelope.chat()?;
    let mut warnings = Vec::new();
    let also: &[&str] = if tgi { &["logit_bias", "user", "parallel_tool_calls", "thinking", "top_k"] } else { &["thinking"] };
    for name in DROPS.iter().chain(also) {
        if let Some(value) = envelope.get(name) {
            edit.remove(name);
            if value != "null" {
                warnings.push(format!("dropped `{name}`: huggingface does not take it"));
            }
        }
    }
    if envelope.get("max_completion_tokens").is_some() {
        if envelope.get("max_tokens").is_some_and(|v| v != "null") {
            edit.remove("max_completion_tokens");
        } else {
            edit.remove("max_tokens");
            edit.rename("max_completion_tokens", "max_tokens");
        }
    }
    if !envelope.stream() {
        edit.remove("stream_options");
    }
    if tgi {
        server(edit, &request, &mut warnings)?;
    } else {
        BEHIND_THE_ROUTER.conversation(edit, &mut warnings)?;
    }
    Ok(warnings)
}

fn server(edit: &mut Edit<'_>, request: &ChatRequest<'_>, warnings: &mut Vec<String>) -> Result<(), Error> {
    if request.functions.as_ref().is_some_and(|f| !f.is_empty()) {
        return Err(Error::unsupported(KIND, "functions", "a TGI server knows the present form only: send them as `tools`"));
    }
    if request.n.is_some_and(|n| n > 1) {
        return Err(Error::unsupported(KIND, "n", "a TGI server gives one choice whatever it is asked for"));
    }
    let envelope = edit.envelope();
    if let Some(stop) = request.stop.as_ref().filter(|_| envelope.get("stop").is_some_and(|raw| raw.starts_with('"'))) {
        edit.set("stop", serde_json::to_string(stop).map_err(Error::answer)?);
    }
    if envelope.get("response_format").is_some() {
        match grammar(request)? {
            Some(format) => {
                if request.tools.as_ref().is_some_and(|t| !t.is_empty()) {
                    return Err(Error::unsupported(KIND, "response_format", "a TGI server takes either `tools` or a `response_format`, not both"));
                }
                edit.set("response_format", serde_json::to_string(&format).map_err(Error::answer)?);
            }
            None => edit.remove("response_format"),
        }
    }
    match request.choice()? {
        Some(Choice::Allowed { names, required }) => {
            let mut tools = request.tools.clone().unwrap_or_default();
            tools.retain(|t| t.function.as_ref().and_then(|f| f.name.as_ref()).is_some_and(|name| names.contains(name)));
            edit.set("tools", serde_json::to_string(&tools).map_err(Error::answer)?);
            edit.set_text("tool_choice", if required { "required" } else { "auto" });
        }
        _ if request.tools.as_ref().is_some_and(Vec::is_empty) => edit.remove("tools"),
        _ => {}
    }
    let messages = request.messages.as_deref().unwrap_or_default();
    if messages.iter().any(|m| m.role.as_deref() == Some("developer") || split(m)) {
        let mut messages = messages.to_vec();
        crate::openai::clean(&mut messages);
        for (at, message) in messages.iter_mut().enumerate() {
            if message.role.as_deref() == Some("developer") {
                message.role = Some("system".into());
            }
            if split(message) {
                // TGI reads a message as either text or calls, and takes the text where it has both.
                let said = message.content.take().is_some_and(|c| !c.text().is_empty());
                if said {
                    warnings.push(format!("dropped the text of `messages[{at}]`: TGI takes either text or calls"));
                }
            }
        }
        edit.set("messages", serde_json::to_string(&messages).map_err(Error::answer)?);
    }
    Ok(())
}

fn split(message: &Message<'_>) -> bool {
    message.tool_calls.as_ref().is_some_and(|c| !c.is_empty()) && message.content.is_some()
}

/// What the text is bound to, in TGI's words.
#[derive(Serialize)]
#[serde(tag = "type", content = "value", rename_all = "snake_case")]
pub(super) enum Grammar<'m> {
    /// A JSON Schema.
    Json(&'m RawValue),
}

/// The grammar for a `response_format`; `None` where that is plain text.
pub(super) fn grammar<'m>(request: &'m ChatRequest<'m>) -> Result<Option<Grammar<'m>>, Error> {
    let Some(format) = &request.response_format else { return Ok(None) };
    match format.kind.as_deref() {
        Some("text") | None => Ok(None),
        Some("json_object") => Ok(Some(Grammar::Json(any_object()))),
        Some("json_schema") => match format.json_schema.as_ref().and_then(|s| s.schema) {
            Some(schema) => Ok(Some(Grammar::Json(schema))),
            None => Err(Error::invalid("response_format.json_schema.schema", "`response_format` of type json_schema needs a `schema`")),
        },
        Some(other) => Err(Error::unsupported(KIND, "response_format", format!("it knows json_object and json_schema, not `{other}`"))),
    }
}

fn any_object() -> &'static RawValue {
    // The constant is valid JSON; `null` stands here only to spare a panic.
    serde_json::from_str(r#"{"type":"object"}"#).unwrap_or(RawValue::NULL)
}
