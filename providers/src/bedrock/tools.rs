//! Tools, tool choice and the answer's format, which on many models is a tool too.

use std::borrow::Cow;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::KIND;
use super::blocks::{CachePoint, cache_point};
use super::model::Model;
use crate::Error;
use crate::anthropic::is_closed;
use crate::names::Naming;
use crate::wire::{ChatRequest, Choice, FunctionDef, JsonSchema};

/// The tool whose input is the answer, where a model knows no other way to keep to a schema.
pub(super) const ANSWER: &str = "trivium_answer";
/// The tool that stands for tools which the history has and the request does not offer: Converse refuses one without the other.
pub(super) const PLACEHOLDER: &str = "trivium_no_tool";
/// Converse's names of tools: `[a-zA-Z0-9_-]+`, at most 64.
pub(super) const NAMING: Naming = Naming { reserved: &[ANSWER, PLACEHOLDER], ..Naming::OPENAI };

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ToolConfig<'a> {
    tools: Vec<Entry<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool_choice: Option<ToolChoice<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum Entry<'a> {
    ToolSpec(Spec<'a>),
    CachePoint(CachePoint),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Spec<'a> {
    name: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<Cow<'a, str>>,
    input_schema: InputSchema<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    strict: Option<bool>,
}

#[derive(Serialize)]
struct InputSchema<'a> {
    json: Cow<'a, RawValue>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum ToolChoice<'a> {
    Any {},
    Tool { name: Cow<'a, str> },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TextFormat<'a> {
    r#type: &'static str,
    structure: Structure<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Structure<'a> {
    json_schema: Definition<'a>,
}

#[derive(Serialize)]
struct Definition<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<&'a str>,
    /// JSON text in a string.
    schema: &'a str,
}

/// What the request says of tools and of the answer's format.
pub(super) struct Plan<'a> {
    pub(super) config: Option<ToolConfig<'a>>,
    pub(super) format: Option<TextFormat<'a>>,
    /// Whether a tool call is demanded.
    pub(super) forced: bool,
    /// Whether the answer is to be a JSON object of no schema.
    pub(super) json_object: bool,
}

/// Plans it all. `in_history` is whether the messages hold tool calls.
pub(super) fn plan<'a>(request: &'a ChatRequest<'a>, model: &Model, in_history: bool, warnings: &mut Vec<String>) -> Result<Plan<'a>, Error> {
    let choice = request.choice()?.unwrap_or(Choice::Auto);
    let mut tools = offered(request, model, &choice, warnings)?;
    let mut tool_choice = match choice {
        Choice::Required | Choice::Allowed { required: true, .. } => Some(demand_any(model)?),
        Choice::Named(name) if model.can_force_one() => Some(ToolChoice::Tool { name: self::name(name.0, "tool_choice")? }),
        // Only the named tool is on offer then.
        Choice::Named(_) => Some(demand_any(model)?),
        Choice::None | Choice::Auto | Choice::Allowed { .. } => None,
    };
    if tool_choice.is_some() && tools.is_empty() {
        return Err(Error::invalid("tool_choice", "`tool_choice` demands a tool that is not in `tools`"));
    }
    let (mut format, mut json_object) = (None, false);
    match request.response_format.as_ref().and_then(|f| f.kind.as_deref()) {
        None | Some("text") => {}
        // A demanded call is not an answer: no format can apply to it.
        Some("json_object") => json_object = tool_choice.is_none(),
        Some("json_schema") if tool_choice.is_some() => {}
        Some("json_schema") => {
            let json = request.response_format.as_ref().and_then(|f| f.json_schema.as_ref());
            let Some((json, schema)) = json.and_then(|j| Some((j, j.schema?))) else {
                return Err(Error::invalid("response_format.json_schema.schema", "`response_format.json_schema` must hold a `schema`"));
            };
            if model.takes_schema() && (!model.claude() || is_closed(schema)) {
                format = Some(text_format(json, schema));
            } else if model.can_force() {
                let input_schema = InputSchema { json: object_schema("response_format.json_schema.schema", Some(schema))? };
                let description = Some(Cow::Owned(format!("Gives the answer to the user. {}", json.description.as_deref().unwrap_or_default()).trim_end().to_owned()));
                tools.push(Entry::ToolSpec(Spec { name: ANSWER.into(), description, input_schema, strict: None }));
                tool_choice = Some(if tools.len() == 1 && model.can_force_one() { ToolChoice::Tool { name: ANSWER.into() } } else { demand_any(model)? });
            } else {
                return Err(Error::unsupported(
                    KIND,
                    "response_format",
                    "on Bedrock this model takes neither a schema for its answer nor a demanded tool call; ask for `json_object`, or offer the schema as a tool",
                ));
            }
        }
        Some(_) => return Err(Error::invalid("response_format.type", "`response_format.type` must be \"text\", \"json_object\" or \"json_schema\"")),
    }
    if tools.is_empty() && in_history {
        let input_schema = InputSchema { json: object_schema("tools", None)? };
        tools.push(Entry::ToolSpec(Spec { name: PLACEHOLDER.into(), description: Some("Does nothing. Never call it.".into()), input_schema, strict: None }));
    }
    let forced = tool_choice.is_some();
    let config = if tools.is_empty() { None } else { Some(ToolConfig { tools, tool_choice }) };
    Ok(Plan { config, format, forced, json_object })
}

fn demand_any<'a>(model: &Model) -> Result<ToolChoice<'a>, Error> {
    if model.can_force() { Ok(ToolChoice::Any {}) } else { Err(Error::unsupported(KIND, "tool_choice", "on Bedrock this model cannot be made to call a tool; send `auto`")) }
}

fn text_format<'a>(json: &'a JsonSchema<'a>, schema: &'a RawValue) -> TextFormat<'a> {
    TextFormat { r#type: "json_schema", structure: Structure { json_schema: Definition { name: json.name.as_deref(), description: json.description.as_deref(), schema: schema.get() } } }
}

/// The tools that may be called.
fn offered<'a>(request: &'a ChatRequest<'a>, model: &Model, choice: &Choice<'_>, warnings: &mut Vec<String>) -> Result<Vec<Entry<'a>>, Error> {
    let may = |name: &str| match choice {
        Choice::None => false,
        Choice::Auto | Choice::Required => true,
        Choice::Named(only) => model.can_force_one() || **only == *name,
        Choice::Allowed { names, .. } => names.iter().any(|n| **n == *name),
    };
    let mut entries = Vec::new();
    let mut lax = false;
    for (i, tool) in request.tools.iter().flatten().enumerate() {
        let Some(function) = &tool.function else {
            let kind = tool.kind.as_deref().unwrap_or_default();
            return Err(Error::unsupported(KIND, format!("tools[{i}]"), format!("it takes tools of type `function`, not `{kind}`")));
        };
        if function.name.as_deref().is_some_and(may) {
            entries.push(Entry::ToolSpec(spec(&format!("tools[{i}].function"), function, model, &mut lax)?));
            if let Some(mark) = tool.cache_control.filter(|_| model.caches()) {
                entries.push(Entry::CachePoint(cache_point(mark)));
            }
        }
    }
    for (i, function) in request.functions.iter().flatten().enumerate() {
        if function.name.as_deref().is_some_and(may) {
            entries.push(Entry::ToolSpec(spec(&format!("functions[{i}]"), function, model, &mut lax)?));
        }
    }
    if let Choice::Named(name) = choice
        && !request.functions().any(|f| f.name.as_deref() == Some(name))
    {
        return Err(Error::invalid("tool_choice", format!("`tool_choice` names `{name}`, which is not in `tools`")));
    }
    if lax {
        warnings.push("dropped `strict` of tools: on Bedrock this model does not take it, or not with their schemas (closed objects without bounds)".into());
    }
    Ok(entries)
}

fn spec<'a>(param: &str, function: &'a FunctionDef<'a>, model: &Model, lax: &mut bool) -> Result<Spec<'a>, Error> {
    let input_schema = object_schema(&format!("{param}.parameters"), function.parameters)?;
    let asked = function.strict == Some(true);
    let strict = asked && model.takes_schema() && (!model.claude() || is_closed(&input_schema));
    *lax |= asked && !strict;
    Ok(Spec {
        name: name(Cow::Borrowed(function.name.as_deref().unwrap_or_default()), &format!("{param}.name"))?,
        description: function.description.as_deref().filter(|d| !d.trim().is_empty()).map(Cow::Borrowed),
        input_schema: InputSchema { json: input_schema },
        strict: strict.then_some(true),
    })
}

/// A schema that Converse takes: an object at its root. What the client wrote is kept byte for byte.
fn object_schema<'a>(param: &str, raw: Option<&'a RawValue>) -> Result<Cow<'a, RawValue>, Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Root<'a> {
        #[serde(rename = "type", borrow)]
        kind: Option<&'a RawValue>,
        one_of: Option<IgnoredAny>,
        any_of: Option<IgnoredAny>,
        all_of: Option<IgnoredAny>,
    }
    let text = raw.map_or("", |r| r.get());
    let own = |text: String| RawValue::from_string(text).map(Cow::Owned).map_err(|_| Error::invalid(param, format!("`{param}` must be a JSON Schema")));
    if matches!(text, "" | "null") {
        return own(r#"{"type":"object","properties":{}}"#.into());
    }
    let (Ok(root), Some(raw)) = (serde_json::from_str::<Root<'_>>(text), raw) else {
        return Err(Error::invalid(param, format!("`{param}` must be a JSON Schema of an object")));
    };
    if root.one_of.is_some() || root.any_of.is_some() || root.all_of.is_some() {
        return Err(Error::unsupported(KIND, param, "a schema cannot have oneOf, anyOf or allOf at its root; put it into a property of an object"));
    }
    match root.kind.map(|k| k.get()) {
        Some("\"object\"") => Ok(Cow::Borrowed(raw)),
        Some(_) => Err(Error::unsupported(KIND, param, "a schema must have `\"type\": \"object\"` at its root; put it into a property of an object")),
        None => {
            let rest = text.trim_start_matches('{').trim_start();
            own(if rest == "}" { r#"{"type":"object","properties":{}}"#.into() } else { format!("{{\"type\":\"object\",{rest}") })
        }
    }
}

/// A tool's name, which must not be of nothing.
pub(super) fn name<'a>(name: Cow<'a, str>, param: &str) -> Result<Cow<'a, str>, Error> {
    if name.is_empty() { Err(Error::invalid(param, format!("`{param}` must not be empty"))) } else { Ok(name) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn schemas_keep_their_bytes() {
        let schema = |text: &str| {
            let raw = RawValue::from_string(text.into()).unwrap();
            object_schema("p", Some(&raw)).map(|s| s.get().to_owned())
        };
        let big = r##"{ "type":"object","properties":{"b":{"const":12345678901234567890123},"a":{"$ref":"#/$defs/A"}} }"##;
        assert_eq!(schema(big).unwrap(), big);
        assert_eq!(schema(r#"{ "properties":{"a":{}}}"#).unwrap(), r#"{"type":"object","properties":{"a":{}}}"#);
        assert_eq!(schema("{ }").unwrap(), r#"{"type":"object","properties":{}}"#);
        assert!(schema(r#"{"type":"array"}"#).is_err() && schema(r#"{"anyOf":[{"type":"object"}]}"#).is_err() && schema("7").is_err());
    }
}
