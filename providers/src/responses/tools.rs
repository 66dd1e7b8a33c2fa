//! Tools, the tool choice and the output format, which chat has with their fields one level further down.

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::request::{TARGET, TextFormat, Tool};
use crate::Error;
use crate::wire::{self, FunctionDef, JsonSchema, ResponseFormat, Str};

pub(super) fn tool<'a>(t: &'a Tool<'a>, custom: Option<&'a RawValue>, at: usize) -> Result<wire::Tool<'a>, Error> {
    let kind = t.kind.as_deref().unwrap_or_default();
    if !matches!(kind, "function" | "custom") {
        let why = format!("`{}` is one of OpenAI's built-in tools; take it out, or choose a model that speaks the Responses API", kind.escape_default());
        return Err(Error::unsupported(TARGET, format!("tools[{at}].type"), why));
    }
    if t.name.is_none() {
        return Err(Error::invalid(format!("tools[{at}].name"), format!("`tools[{at}].name` is missing; the Responses API has a function's fields beside `type`")));
    }
    let kind = Some(Str::from(kind));
    if let Some(custom) = custom {
        let custom = serde_json::from_str(custom.get()).map_err(Error::answer)?;
        return Ok(wire::Tool { kind, custom: Some(custom), ..wire::Tool::default() });
    }
    let function = FunctionDef { name: t.name.clone(), description: t.description.clone(), parameters: t.parameters, strict: t.strict, ..FunctionDef::default() };
    Ok(wire::Tool { kind, function: Some(function), ..wire::Tool::default() })
}

/// A custom tool as chat has it: its fields one level down, and its grammar another.
pub(super) fn custom_tool(t: &Tool<'_>) -> Option<Box<RawValue>> {
    #[derive(Serialize)]
    struct Custom<'a> {
        name: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        description: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        format: Option<Format<'a>>,
    }
    #[derive(Serialize)]
    struct Format<'a> {
        r#type: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        grammar: Option<Grammar<'a>>,
    }
    #[derive(Serialize)]
    struct Grammar<'a> {
        syntax: Option<&'a str>,
        definition: Option<&'a str>,
    }
    if t.kind.as_deref() != Some("custom") {
        return None;
    }
    let format = t.format.as_ref().map(|f| {
        let kind = f.kind.as_deref().unwrap_or("text");
        Format { r#type: kind, grammar: (kind == "grammar").then_some(Grammar { syntax: f.syntax.as_deref(), definition: f.definition.as_deref() }) }
    });
    to_raw_value(&Custom { name: t.name.as_deref(), description: t.description.as_deref(), format }).ok()
}

/// The tool choice as chat has it: names one level down.
pub(super) fn tool_choice(raw: &RawValue) -> Result<Box<RawValue>, Error> {
    #[derive(Deserialize)]
    struct Flat<'a> {
        #[serde(rename = "type", borrow)]
        kind: Str<'a>,
        #[serde(borrow)]
        name: Option<Str<'a>>,
        mode: Option<&'a str>,
        #[serde(borrow, default)]
        tools: Vec<Flat<'a>>,
    }
    if raw.get().starts_with('"') {
        return Ok(raw.to_owned());
    }
    let wrong = || Error::invalid("tool_choice", "`tool_choice` must be \"none\", \"auto\", \"required\", or an object of type `function`, `custom` or `allowed_tools`");
    let named = |flat: &Flat<'_>| match (&*flat.kind, &flat.name) {
        (kind @ ("function" | "custom"), Some(name)) => Ok(serde_json::json!({ "type": kind, kind: { "name": &**name } })),
        ("function" | "custom", None) => Err(Error::invalid("tool_choice.name", "`tool_choice` of this type must have a `name`")),
        (other, _) => Err(Error::unsupported(TARGET, "tool_choice", format!("`{}` is one of OpenAI's built-in tools", other.escape_default()))),
    };
    let flat: Flat<'_> = serde_json::from_str(raw.get()).map_err(|_| wrong())?;
    let chat = if &*flat.kind == "allowed_tools" {
        let tools = flat.tools.iter().map(named).collect::<Result<Vec<_>, _>>()?;
        serde_json::json!({ "type": "allowed_tools", "allowed_tools": { "mode": flat.mode.unwrap_or("auto"), "tools": tools } })
    } else {
        named(&flat)?
    };
    to_raw_value(&chat).map_err(|_| wrong())
}

pub(super) fn response_format(format: TextFormat<'_>) -> Result<Option<ResponseFormat<'_>>, Error> {
    Ok(match format.kind.as_deref() {
        None | Some("text") => None,
        Some("json_object") => Some(ResponseFormat { kind: format.kind, ..ResponseFormat::default() }),
        Some("json_schema") => {
            if format.schema.is_none() {
                return Err(Error::invalid("text.format.schema", "`text.format.schema` is missing"));
            }
            let schema = JsonSchema { name: format.name, description: format.description, schema: format.schema, strict: format.strict, ..JsonSchema::default() };
            Some(ResponseFormat { kind: format.kind, json_schema: Some(schema), ..ResponseFormat::default() })
        }
        Some(other) => return Err(Error::invalid("text.format.type", format!("`{}` is not a format; use `text`, `json_object` or `json_schema`", other.escape_default()))),
    })
}
