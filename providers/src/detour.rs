//! What in a client's own body would lead around the model that it asked for: fields by which a host takes another one, or adds
//! what is paid for beside it. Who may use which model at what price is the gateway's to say, and what else is bought the operator's.

use memchr::memmem;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::Error;
use crate::envelope::Envelope;
use crate::wire::Str;

/// The detours that a kind of provider knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Detours {
    /// Fields at the top level, beside those that are refused everywhere.
    pub fields: &'static [&'static str],
    /// How the types of tools begin that run other models, or are paid for by the host's own prices.
    pub tools: &'static [&'static str],
}

/// Fields that are refused everywhere: lists of other models (OpenRouter, Perplexity, LiteLLM, Anthropic; Vercel has one in
/// `providerOptions`), and adapters that change the one that answers (llama.cpp, SGLang).
const EVERYWHERE: &[&str] = &["models", "fallbacks", "providerOptions", "lora", "lora_path"];

impl Detours {
    /// Those that are refused everywhere.
    pub const COMMON: Detours = Detours { fields: &[], tools: &[] };

    /// Refuses a client's body that takes one. A field that says nothing (`null`, `[]`, `{}`, `false`) may stay.
    ///
    /// # Errors
    /// [`Error::Unsupported`], naming the field and what to do.
    pub fn hold(&self, kind: &'static str, body: &Envelope) -> Result<(), Error> {
        for key in body.keys() {
            // Some hosts (those in Go) take a field whatever its case.
            if key != "model" && key.eq_ignore_ascii_case("model") {
                return Err(Error::unsupported(kind, key, "a request names its model once, in `model`"));
            }
            let found = EVERYWHERE.iter().chain(self.fields).find(|name| key.eq_ignore_ascii_case(name));
            if let Some(name) = found.filter(|_| body.get(key).is_some_and(|raw| !says_nothing(raw))) {
                return Err(Error::unsupported(kind, key, remedy(name)));
            }
        }
        let Some(raw) = body.get("tools") else { return Ok(()) };
        // An escape could hide a word from the search.
        let suspicious = self.tools.iter().chain(&["\"model\"", "\\u"]).any(|word| memmem::find(raw.as_bytes(), word.as_bytes()).is_some());
        if suspicious && tools(raw).any(|tool| tool.model.is_some() || self.tools.iter().any(|prefix| tool.is(|kind| kind.starts_with(prefix)))) {
            return Err(Error::unsupported(kind, "tools", "a tool that runs another model, or is paid for beside the tokens, is the operator's to add: `defaults` of the model"));
        }
        Ok(())
    }
}

/// What of a tool says that it is more than a function of the client's.
#[derive(Deserialize)]
pub(crate) struct Tool<'a> {
    #[serde(borrow, rename = "type", default)]
    kind: Option<Str<'a>>,
    /// The model that it runs (Anthropic's advisor, OpenAI's making of images).
    #[serde(default)]
    model: Option<IgnoredAny>,
}

impl Tool<'_> {
    /// Whether its type is such a one.
    pub(crate) fn is(&self, such: impl Fn(&str) -> bool) -> bool {
        self.kind.as_deref().is_some_and(such)
    }
}

/// The tools of a request that are objects with a type, or without.
pub(crate) fn tools(raw: &str) -> impl Iterator<Item = Tool<'_>> {
    let all: Vec<&RawValue> = serde_json::from_str(raw).unwrap_or_default();
    all.into_iter().filter_map(|tool| serde_json::from_str(tool.get()).ok())
}

/// Whether a field might as well not be there.
pub(crate) fn says_nothing(raw: &str) -> bool {
    let bare: String = raw.chars().filter(|c| !c.is_whitespace()).take(6).collect();
    matches!(bare.as_str(), "null" | "false" | "[]" | "{}" | "\"\"")
}

fn remedy(name: &str) -> &'static str {
    match name {
        "models" | "fallbacks" | "route" => "which model takes over is the gateway's to say: the operator names it under `fallback` of the model",
        "plugins" | "safety_model" => "what is paid for beside the model is the operator's to add: `defaults` of the model",
        _ => "it would have another model answer than the one that was asked for; the operator can set it under `defaults` of a model of its own",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(detours: Detours, body: &str) -> Option<String> {
        match detours.hold("x", &Envelope::read(bytes::Bytes::copy_from_slice(body.as_bytes())).unwrap()) {
            Err(Error::Unsupported { param, .. }) => Some(param),
            other => other.map(|()| None).unwrap(),
        }
    }

    #[test]
    fn only_what_leads_elsewhere_is_refused() {
        let router = Detours { fields: &["plugins"], tools: &["router:"] };
        for (body, field) in [
            (r#"{"models":["a"]}"#, Some("models")),
            (r#"{"model":"a","Model":"b"}"#, Some("Model")),
            (r#"{"FallBacks":["a"]}"#, Some("FallBacks")),
            (r#"{"lora":[{"id":0}]}"#, Some("lora")),
            (r#"{"plugins":[{"id":"web"}]}"#, Some("plugins")),
            (r#"{"models":null,"plugins":[ ],"fallbacks":[]}"#, None),
            (r#"{"tools":[{"type":"function","function":{"name":"f"}},{"type":"router:advisor"}]}"#, Some("tools")),
            (r#"{"tools":[{"type":"router\u003aadvisor"}]}"#, Some("tools")),
            (r#"{"tools":[{"type":"image_generation","model":"a"}]}"#, Some("tools")),
            (r#"{"tools":[{"type":"image_generation"},{"type":"function","name":"model","parameters":{"properties":{"model":{}},"required":["model"]}}]}"#, None),
            (r#"{"tools":[{"type":"function","function":{"description":"router:advisor"}}, 7, null]}"#, None),
            (r#"{"tools":"router:advisor"}"#, None),
        ] {
            assert_eq!(held(router, body).as_deref(), field, "{body}");
        }
        assert_eq!(held(Detours::COMMON, r#"{"plugins":[{"id":"web"}],"tools":[{"type":"router:advisor"}]}"#), None);
    }
}
