//! Tools as the hub has them: on offer, called, and chosen, in the present and in the older form.

use std::borrow::Cow;

use serde::de::{self, Deserializer};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{ChatRequest, Str, open};

open! {
    /// A tool on offer.
    Tool {
        /// `function`, `custom`, or a provider's built-in tool.
        "type" kind: Str<'a>,
        /// A function's definition.
        "function" function: FunctionDef<'a>,
        /// A freeform tool's definition.
        "custom" custom: CustomDef<'a>,
        /// Anthropic's cache mark.
        "cache_control" cache_control: &'a RawValue,
    }
}

open! {
    /// A function on offer.
    FunctionDef {
        /// Name.
        "name" name: Str<'a>,
        /// What it does.
        "description" description: Str<'a>,
        /// JSON Schema of the arguments.
        "parameters" parameters: &'a RawValue,
        /// Whether the arguments must follow the schema strictly.
        "strict" strict: bool,
    }
}

open! {
    /// A freeform tool on offer.
    CustomDef {
        /// Name.
        "name" name: Str<'a>,
    }
}

open! {
    /// A tool call of the assistant.
    ToolCall {
        /// Position among the calls; in streams only.
        "index" index: u32,
        /// Id that the answer refers to; may carry a sealed signature, see [`crate::carry`].
        "id" id: Str<'a>,
        /// `function` or `custom`.
        "type" kind: Str<'a>,
        /// The call.
        "function" function: FunctionCall<'a>,
        /// A freeform call: `{name, input}`.
        "custom" custom: CustomCall<'a>,
        /// Vendor data that travels with the call (Google's shim: `{google: {thought_signature}}`).
        "extra_content" extra_content: &'a RawValue,
    }
}

open! {
    /// A function call.
    FunctionCall {
        /// Function name.
        "name" name: Str<'a>,
        /// Arguments: JSON in a string. Some hosts send an object; it is kept as its text.
        "arguments" arguments: Arguments<'a>,
    }
}

open! {
    /// A freeform tool call.
    CustomCall {
        /// Tool name.
        "name" name: Str<'a>,
        /// Input text.
        "input" input: Str<'a>,
    }
}

/// Arguments of a call as JSON text. Reads a string or, as some hosts send it, a bare object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Arguments<'a>(pub Cow<'a, str>);

impl Arguments<'_> {
    /// The JSON text, `{}` where the client left it empty.
    #[must_use]
    pub fn json(&self) -> &str {
        if self.0.trim().is_empty() { "{}" } else { &self.0 }
    }
}

impl Serialize for Arguments<'_> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Arguments<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let raw = <&RawValue>::deserialize(d)?.get();
        if raw.starts_with('"') {
            let text: Str<'a> = serde_json::from_str(raw).map_err(de::Error::custom)?;
            Ok(Arguments(text.0))
        } else if raw.starts_with('{') {
            Ok(Arguments(Cow::Borrowed(raw)))
        } else {
            Err(de::Error::custom("arguments must be a string of JSON"))
        }
    }
}

/// What the client wants of the tools.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice<'a> {
    /// Call none.
    None,
    /// The model decides.
    Auto,
    /// Call at least one.
    Required,
    /// Call this one.
    Named(Str<'a>),
    /// Only these may be called; the flag says whether one must be.
    Allowed {
        /// Their names.
        names: Vec<Str<'a>>,
        /// Whether one must be called.
        required: bool,
    },
}

impl<'a> ChatRequest<'a> {
    /// The tool choice, in either the present or the older form. `None` where the client said nothing.
    ///
    /// # Errors
    /// When the field has a shape that OpenAI does not know.
    pub fn choice(&self) -> Result<Option<Choice<'a>>, crate::Error> {
        let (param, raw) = match (self.tool_choice, self.function_call) {
            (Some(raw), _) => ("tool_choice", raw.get()),
            (None, Some(raw)) => ("function_call", raw.get()),
            (None, None) => return Ok(None),
        };
        let wrong = || crate::Error::invalid(param, format!("`{param}` must be \"none\", \"auto\", \"required\" or name a function"));
        if raw.starts_with('"') {
            return match raw.trim_matches('"') {
                "none" => Ok(Some(Choice::None)),
                "auto" => Ok(Some(Choice::Auto)),
                "required" | "any" => Ok(Some(Choice::Required)),
                _ => Err(wrong()),
            };
        }
        #[derive(Deserialize)]
        struct Named<'a> {
            #[serde(borrow)]
            name: Str<'a>,
        }
        #[derive(Deserialize)]
        struct Entry<'a> {
            #[serde(borrow)]
            function: Option<Named<'a>>,
            #[serde(borrow)]
            custom: Option<Named<'a>>,
        }
        #[derive(Deserialize)]
        struct Allowed<'a> {
            mode: Option<&'a str>,
            #[serde(borrow, default)]
            tools: Vec<Entry<'a>>,
        }
        #[derive(Deserialize)]
        struct Object<'a> {
            #[serde(borrow)]
            function: Option<Named<'a>>,
            #[serde(borrow)]
            custom: Option<Named<'a>>,
            #[serde(borrow)]
            name: Option<Str<'a>>,
            #[serde(borrow)]
            allowed_tools: Option<Allowed<'a>>,
        }
        let object: Object<'a> = serde_json::from_str(raw).map_err(|_| wrong())?;
        if let Some(allowed) = object.allowed_tools {
            let names = allowed.tools.into_iter().filter_map(|e| e.function.or(e.custom)).map(|n| n.name).collect();
            return Ok(Some(Choice::Allowed { names, required: allowed.mode == Some("required") }));
        }
        object.function.or(object.custom).map(|n| n.name).or(object.name).map(|n| Some(Choice::Named(n))).ok_or_else(wrong)
    }
}

/// The schema of a function that takes no parameters, for providers that insist on one.
#[must_use]
pub fn no_parameters() -> &'static RawValue {
    const NONE: &str = r#"{"type":"object","properties":{}}"#;
    // The constant is valid JSON; `null` stands here only to spare a panic.
    serde_json::from_str(NONE).unwrap_or(RawValue::NULL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(body: &str) -> Result<String, crate::Error> {
        let request: ChatRequest<'_> = serde_json::from_str(body).unwrap();
        request.choice().map(|c| format!("{c:?}").replace("Str(", "").replace(')', "").replace('(', " "))
    }

    #[test]
    fn the_choice_is_read_in_every_form() {
        for (body, expected) in [
            (r#"{}"#, "None"),
            (r#"{"tool_choice":"none"}"#, "Some None"),
            (r#"{"tool_choice":"auto"}"#, "Some Auto"),
            (r#"{"tool_choice":"required"}"#, "Some Required"),
            (r#"{"tool_choice":"any"}"#, "Some Required"),
            (r#"{"tool_choice":{"type":"function","function":{"name":"f"}}}"#, r#"Some Named "f""#),
            (r#"{"tool_choice":{"type":"custom","custom":{"name":"c"}}}"#, r#"Some Named "c""#),
            (r#"{"function_call":"auto"}"#, "Some Auto"),
            (r#"{"function_call":{"name":"f"}}"#, r#"Some Named "f""#),
            (r#"{"tool_choice":"none","function_call":{"name":"f"}}"#, "Some None"),
            (
                r#"{"tool_choice":{"type":"allowed_tools","allowed_tools":{"mode":"required","tools":[{"type":"function","function":{"name":"a"}},{"type":"custom","custom":{"name":"b"}}]}}}"#,
                r#"Some Allowed { names: ["a", "b"], required: true }"#,
            ),
            (r#"{"tool_choice":{"type":"allowed_tools","allowed_tools":{"mode":"auto"}}}"#, "Some Allowed { names: [], required: false }"),
        ] {
            assert_eq!(choice(body).unwrap(), expected, "{body}");
        }
        for (body, named) in [
            (r#"{"tool_choice":"f"}"#, "tool_choice"),
            (r#"{"tool_choice":{"type":"function"}}"#, "tool_choice"),
            (r#"{"tool_choice":7}"#, "tool_choice"),
            (r#"{"function_call":["f"]}"#, "function_call"),
        ] {
            assert!(matches!(choice(body), Err(crate::Error::Invalid { param: Some(p), .. }) if p == named), "{body}");
        }
    }

    #[test]
    fn arguments_are_a_text_or_an_object_and_keep_their_bytes() {
        let read = |text: &str| serde_json::from_str::<FunctionCall<'_>>(text).map(|f| f.arguments.unwrap().json().to_owned());
        assert_eq!(read(r#"{"arguments":""}"#).unwrap(), "{}");
        assert_eq!(read(r#"{"arguments":" \n"}"#).unwrap(), "{}");
        assert_eq!(read(r#"{"arguments":"{\"n\":12345678901234567890123}"}"#).unwrap(), r#"{"n":12345678901234567890123}"#);
        assert_eq!(read(r#"{"arguments":{ "z":1.50,"a":2 }}"#).unwrap(), r#"{ "z":1.50,"a":2 }"#);
        assert!(read(r#"{"arguments":[1]}"#).is_err() && read(r#"{"arguments":7}"#).is_err());
    }
}
