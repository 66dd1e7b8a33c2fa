//! What a request names that only the provider can see, so that nobody here knows how many tokens it has: stored files and
//! conversations, places that the provider reads, tools that it runs itself.

use crate::envelope::Envelope;
use crate::media::head;
use crate::parts::{self, Part};
use crate::{Dialect, Operation};

/// Top-level fields of a chat that bring something into the prompt, or into the answer's cost, that is not in the body.
const FIELDS: &[&str] = &[
    // OpenAI's Responses: what was said before.
    "previous_response_id",
    "conversation",
    // Gemini: a prompt that was stored before.
    "cachedContent",
    "cached_content",
    // Anthropic.
    "mcp_servers",
    "container",
    // Searches: OpenAI, OpenRouter, Cohere, xAI, DashScope, Azure, Groq.
    "web_search_options",
    "plugins",
    "connectors",
    "documents",
    "search_parameters",
    "enable_search",
    "data_sources",
    "search_settings",
    "compound_custom",
    "enable_code_interpreter",
    // OpenRouter: other models, which cost otherwise, and settings that are kept there.
    "models",
    "preset",
    // An answer that is fetched later, so that nobody here is told what it used: OpenAI, xAI.
    "background",
    "deferred",
    // Prompts of the host's own, or of the client's making: Mistral, vLLM.
    "prompt_mode",
    "chat_template",
    "mm_processor_kwargs",
    // Bedrock: a prompt that is kept there.
    "promptVariables",
    "prompt_variables",
];

/// What a tool may hold that the client runs itself.
const TOOL: &[&str] = &[
    "type",
    "function",
    "functionDeclarations",
    "function_declarations",
    "name",
    "description",
    "parameters",
    "input_schema",
    "strict",
    "custom",
    "format",
    "cache_control",
    "input_examples",
    "defer_loading",
    "allowed_callers",
    "eager_input_streaming",
];

/// What may stand in Bedrock's fields for a model; how many tokens they allow is looked at with the bound.
const ADDITIONAL: &[&str] = &["thinking", "reasoning_config", "reasoningConfig", "reasoning_effort", "output_config", "top_k", "max_tokens", "max_new_tokens", "max_gen_len", "maxTokens"];

/// Words in the names of models that search, or read stored files, without being told to.
const SEARCHING: &[&str] = &["sonar", "deep-research", "search-preview", "search-api", "deep-search", ":online", "compound", "qwen-long", "qwen-doc"];

/// Types of parts and of items whose weight is known: all of it is in the body, or it is a picture, or it is looked at below.
const TYPES: &[&str] = &[
    "text",
    "input_text",
    "output_text",
    "summary_text",
    "reasoning_text",
    "refusal",
    "message",
    "thinking",
    "redacted_thinking",
    "reasoning",
    "compaction",
    "image",
    "image_url",
    "input_image",
    "computer_screenshot",
    "image_generation_call",
    "input_audio",
    "audio_url",
    "file",
    "file_url",
    "input_file",
    "document",
    "document_url",
    "search_result",
    "tool_use",
    "server_tool_use",
    "mcp_tool_use",
    "function",
    "function_call",
    "function_call_output",
    "custom_tool_call",
    "custom_tool_call_output",
    "computer_call",
    "computer_call_output",
    "local_shell_call",
    "local_shell_call_output",
    "shell_call",
    "shell_call_output",
    "apply_patch_call",
    "apply_patch_call_output",
    "reference",
];

/// The first thing in a request that only the provider can see, by its name in the request.
#[must_use]
pub fn of(operation: Operation, request: &Envelope) -> Option<String> {
    if matches!(operation, Operation::Chat(_))
        && let Some(name) = field(request).or_else(|| request.get("tools").and_then(tool))
    {
        return Some(name);
    }
    let items = operation == Operation::Chat(Dialect::Responses);
    let mut found = None;
    parts::each(request, |part| {
        if found.is_none() {
            found = in_part(part).or_else(|| if items { stored(part) } else { None });
        }
    });
    found
}

/// Whether a model brings what is not in the request by itself, by its name.
#[must_use]
pub fn by_itself(model: &str) -> bool {
    SEARCHING.iter().any(|word| model.contains(word))
}

fn field(request: &Envelope) -> Option<String> {
    let says = |raw: &str| !matches!(raw, "null" | "false" | "[]" | "\"\"");
    if let Some(name) = FIELDS.iter().find(|name| request.get(name).is_some_and(says)) {
        return Some((*name).to_owned());
    }
    // A template of OpenAI's; ours have been put in before.
    if request.get("prompt").is_some_and(|raw| raw.starts_with('{')) {
        return Some("prompt".to_owned());
    }
    // Histories that are cut are no matter; those that are summed up are, by a call of their own.
    if request.get("context_management").is_some_and(|raw| raw.contains("compact") || raw.contains('\\')) {
        return Some("context_management".to_owned());
    }
    for fields in ["additionalModelRequestFields", "additional_model_request_fields"] {
        let more = request.get(fields).map(Part::read).unwrap_or_default();
        if let Some(name) = more.names().find(|name| !ADDITIONAL.contains(name)) {
            return Some(format!("{fields}.{name}"));
        }
    }
    // Where Google's own OpenAI dialect has the fields that only Gemini knows.
    let google = request.get("extra_body").and_then(|raw| Part::read(raw).object("google"))?;
    google.names().find(|name| !matches!(*name, "thinking_config" | "safety_settings")).map(|name| format!("extra_body.google.{name}"))
}

/// The first tool that the provider runs itself.
fn tool(tools: &str) -> Option<String> {
    parts::list(tools).iter().find_map(|tool| match tool.kind() {
        Some("function" | "custom") | None => tool.names().find(|name| !TOOL.contains(name)).map(str::to_owned),
        Some(kind) => Some(kind.to_owned()),
    })
}

/// An item of the Responses API of which the body has less than the provider.
fn stored(part: &Part<'_>) -> Option<String> {
    let whole = match part.kind() {
        // A reference needs no type; a message may do without one too.
        None => part.get("id").is_none() || part.get("role").is_some(),
        Some("reasoning") => part.get("id").is_none() || part.get("encrypted_content").is_some(),
        Some("image_generation_call") => part.get("result").is_some(),
        Some(_) => true,
    };
    (!whole).then(|| part.kind().unwrap_or("id").to_owned())
}

fn in_part(part: &Part<'_>) -> Option<String> {
    let own = |name: &str| Some(name.to_owned());
    let kind = part.kind();
    let (file, source) = (part.object("file"), part.object("source"));
    if [Some(part), file.as_ref(), source.as_ref()].into_iter().flatten().any(|object| object.get("file_id").is_some()) {
        return own("file_id");
    }
    if let Some(name) = ["video_url", "fileData"].into_iter().find(|name| part.get(name).is_some()) {
        return own(name);
    }
    // A string of this name is a file itself; Gemini's is the place of one.
    if part.object("file_data").is_some() {
        return own("file_data");
    }
    let elsewhere = |place: Option<&str>| place.is_some_and(is_place);
    let inner = |name: &str, field: &str| part.object(name).and_then(|object| object.string(field));
    for (name, place) in [
        ("file_url", part.place("file_url")),
        ("document_url", part.place("document_url")),
        ("audio_url", part.place("audio_url")),
        ("file_data", part.string("file_data")),
        ("file_data", inner("file", "file_data")),
        ("input_audio", inner("input_audio", "data")),
    ] {
        if elsewhere(place) {
            return own(name);
        }
    }
    if let Some(source) = &source
        && !matches!(source.kind(), Some("base64" | "text" | "content"))
        && kind != Some("image")
    {
        return own("source");
    }
    // What an assistant has said before, of which the history has only the name.
    if part.object("audio").is_some_and(|audio| audio.get("id").is_some()) {
        return own("audio");
    }
    if is_video(part) {
        return own("video");
    }
    // What a provider's tools have given before is in the body.
    let given = |kind: &str| ["_result", "_result_error", "_output"].iter().any(|end| kind.ends_with(end));
    kind.filter(|kind| !TYPES.contains(kind) && !given(kind)).map(str::to_owned)
}

/// Whether a string says where something is, and is not the thing itself: encoded data has no colon, in whichever way it is written.
fn is_place(string: &str) -> bool {
    !string.starts_with("data:") && (memchr::memchr(b':', string.as_bytes()).is_some() || string.contains("\\u"))
}

/// Whether a part is a moving picture: how long it is, its bytes do not tell.
fn is_video(part: &Part<'_>) -> bool {
    let video = |media_type: &str| media_type.get(..5).is_some_and(|head| head.eq_ignore_ascii_case("video"));
    let inline = |name: &str| part.object(name).is_some_and(|data| ["mimeType", "mime_type"].iter().any(|field| data.string(field).is_some_and(video)));
    let named = |place: Option<&str>| place.and_then(head).is_some_and(|(media_type, _)| video(media_type));
    let file = part.object("file");
    inline("inlineData")
        || inline("inline_data")
        || part.get("video").is_some()
        || ["image_url", "imageUrl", "file_data", "file_url"].iter().any(|name| named(part.place(name)))
        || named(file.and_then(|f| f.string("file_data")))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn named(body: &str) -> Option<String> {
        let request = Envelope::read(Bytes::copy_from_slice(body.as_bytes())).unwrap();
        of(Operation::Chat(Dialect::Chat), &request)
    }

    fn part(part: &str) -> Option<String> {
        named(&format!(r#"{{"messages":[{{"role":"user","content":[{{"type":"text","text":"x"}},{part}]}}]}}"#))
    }

    #[test]
    fn parts_that_name_what_is_elsewhere() {
        for (one, name) in [
            (r#"{"type":"file","file":{"file_id":"file-1"}}"#, "file_id"),
            (r#"{"type":"input_image","file_id":"file-1"}"#, "file_id"),
            (r#"{"type":"image","source":{"type":"file","file_id":"file_1"}}"#, "file_id"),
            (r#"{"type":"input_file","file_url":"https://example.com/a.pdf"}"#, "file_url"),
            (r#"{"type":"input_file","file_data":"https:\/\/example.com\/a.pdf"}"#, "file_data"),
            (r#"{"type":"input_file","file_url":"https\u003a//example.com/a.pdf"}"#, "file_url"),
            (r#"{"type":"file","file":{"file_data":"https://example.com/a.pdf"}}"#, "file_data"),
            (r#"{"file_data":{"mime_type":"image/png","file_uri":"gs://a"}}"#, "file_data"),
            (r#"{"type":"audio_url","audio_url":{"url":"https://example.com/a.wav"}}"#, "audio_url"),
            (r#"{"type":"video_url","video_url":{"url":"data:video/mp4;base64,AAAA"}}"#, "video_url"),
            (r#"{"type":"file","file":{"file_data":"data:video/mp4;base64,AAAA"}}"#, "video"),
            (r#"{"type":"image_url","image_url":{"url":"data:video/mp4;base64,AAAA"}}"#, "video"),
            (r#"{"inline_data":{"mime_type":"video/mp4","data":"AAAA"}}"#, "video"),
            (r#"{"type":"tool_result","content":[{"type":"document","source":{"type":"url","url":"https://example.com"}}]}"#, "source"),
            (r#"{"type":"item_reference","id":"x"}"#, "item_reference"),
        ] {
            assert_eq!(part(one).as_deref(), Some(name), "{one}");
        }
        for one in [
            r#"{"type":"image_url","image_url":{"url":"https://example.com/a.png"}}"#,
            r#"{"type":"image","source":{"type":"url","url":"https://example.com/a.png"}}"#,
            r#"{"type":"file","file":{"file_data":"data:application/pdf;base64,AAAA","file_id":null}}"#,
            r#"{"type":"input_audio","input_audio":{"data":"AAAA","format":"wav"}}"#,
            r#"{"type":"document","source":{"type":"content","content":[{"type":"text","text":"x"}]}}"#,
            r#"{"type":"web_search_tool_result","content":[{"type":"web_search_result","url":"https://example.com","encrypted_content":"x"}]}"#,
            r#"{"type":"tool_use","id":"t","name":"f","input":{"file_id":"x","type":"mystery"}}"#,
        ] {
            assert_eq!(part(one), None, "{one}");
        }
    }

    #[test]
    fn fields_and_tools() {
        for (field, name) in [
            (r#""previous_response_id":"resp_1""#, "previous_response_id"),
            (r#""conversation":{"id":"conv_1"}"#, "conversation"),
            (r#""prompt":{"id":"pmpt_1"}"#, "prompt"),
            (r#""enable_search":true"#, "enable_search"),
            (r#""models":["a","b"]"#, "models"),
            (r#""extra_body":{"google":{"thinking_config":{},"cached_content":"c"}}"#, "extra_body.google.cached_content"),
            (r#""tools":[{"type":"function","function":{"name":"f"}},{"type":"mcp","server_url":"https://example.com"}]"#, "mcp"),
            (r#""tools":[{"name":"f","input_schema":{},"googleSearch":{}}]"#, "googleSearch"),
            (r#""tools":[{"type":"function","function":{"name":"f"},"googleSearch":{}}]"#, "googleSearch"),
            (r#""background":true"#, "background"),
            (r#""context_management":{"edits":[{"type":"compact_20260112"}]}"#, "context_management"),
            (r#""additionalModelRequestFields":{"top_k":1,"tools":[]}"#, "additionalModelRequestFields.tools"),
        ] {
            assert_eq!(named(&format!("{{{field}}}")).as_deref(), Some(name), "{field}");
        }
        for field in [
            r#""input":"my conversation","previous_response_id":null,"conversation":null"#,
            r#""prompt":"x","enable_search":false,"plugins":[]"#,
            r#""extra_body":{"google":{"thinking_config":{}}}"#,
            r#""service_tier":"priority","background":false,"context_management":{"edits":[{"type":"clear_tool_uses_20250919"}]}"#,
            r#""serviceTier":"SERVICE_TIER_STANDARD","additionalModelRequestFields":{"thinking":{},"max_tokens":5}"#,
            r#""tools":[{"type":"custom","name":"f"},{"name":"g","input_schema":{}},{"functionDeclarations":[{"name":"h"}],"googleSearch":null}]"#,
        ] {
            assert_eq!(named(&format!("{{{field}}}")), None, "{field}");
        }
        for (item, name) in [
            (r#"{"id":"msg_1"}"#, Some("id")),
            (r#"{"id":"msg_1","type":null}"#, Some("id")),
            (r#"{"type":"reasoning","id":"rs_1","summary":[]}"#, Some("reasoning")),
            (r#"{"type":"image_generation_call","id":"ig_1"}"#, Some("image_generation_call")),
            (r#"{"type":"reasoning","id":"rs_1","summary":[],"encrypted_content":"x"}"#, None),
            (r#"{"role":"assistant","id":"msg_1","content":[{"type":"output_text","text":"x"}]}"#, None),
            (r#"{"type":"function_call","id":"fc_1","call_id":"c","name":"f","arguments":"{}"}"#, None),
        ] {
            let request = Envelope::read(format!(r#"{{"input":[{item}]}}"#).into()).unwrap();
            assert_eq!(of(Operation::Chat(Dialect::Responses), &request).as_deref(), name, "{item}");
        }
        assert!(by_itself("sonar-pro") && by_itself("openai/gpt-5:online") && by_itself("o3-deep-research") && !by_itself("gpt-5-mini"));
        let rerank = Envelope::read(Bytes::from_static(br#"{"query":"q","documents":["a"]}"#)).unwrap();
        assert_eq!(of(Operation::Rerank, &rerank), None);
    }
}
