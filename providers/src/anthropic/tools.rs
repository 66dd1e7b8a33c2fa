//! Tools on offer, which of them is to be used, and the answer in a given form.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::value::RawValue;

use super::Host;
use super::content::{Block, extra};
use super::history::Turn;
use super::model::{Traits, Unasked};
use super::schema::is_closed;
use crate::Error;
use crate::names::Naming;
use crate::wire::{ChatRequest, Choice, FunctionDef, JsonSchema, Str, Tool};

/// The tool whose input is the answer, where a model has no other way to keep to a schema.
pub(super) const ANSWER_TOOL: &str = "answer_in_the_given_form";

/// Claude's names of tools: `^[a-zA-Z0-9_-]{1,128}$`.
pub(crate) const NAMING: Naming = Naming { longest: 128, reserved: &[ANSWER_TOOL], ..Naming::OPENAI };

/// The schema of a tool that takes nothing.
const NOTHING: &str = r#"{"type":"object","properties":{}}"#;

#[derive(Debug, Serialize)]
pub(super) struct ToolBody<'a> {
    name: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    description: Option<Cow<'a, str>>,
    input_schema: Cow<'a, RawValue>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    strict: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_control: Option<&'a RawValue>,
}

#[derive(Debug, Serialize)]
pub(super) struct ChoiceBody<'a> {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    disable_parallel_tool_use: bool,
}

impl ChoiceBody<'_> {
    /// Whether it leaves the model no choice, which excludes thinking.
    pub(super) fn forces(&self) -> bool {
        matches!(self.r#type, "any" | "tool")
    }
}

/// `output_config.format`.
#[derive(Debug, Serialize)]
pub(super) struct Format<'a> {
    r#type: &'static str,
    schema: &'a RawValue,
}

/// What a request says of tools and of the answer's form.
#[derive(Debug, Default)]
pub(super) struct Tools<'a> {
    pub(super) tools: Vec<ToolBody<'a>>,
    pub(super) choice: Option<ChoiceBody<'a>>,
    pub(super) format: Option<Format<'a>>,
    /// An instruction in words, where there is no other way.
    pub(super) instruction: Option<&'static str>,
}

/// Reads tools, choice and form.
pub(super) fn read<'a>(request: &'a ChatRequest<'_>, turns: &[Turn<'a>], traits: &Traits, host: &Host, warnings: &mut Vec<String>) -> Result<Tools<'a>, Error> {
    let mut out = Tools::default();
    let choice = request.choice()?;
    for (index, tool) in request.tools.iter().flatten().enumerate() {
        let at = format!("tools[{index}]");
        match (&tool.function, tool.kind.as_deref()) {
            (Some(function), _) => out.tools.push(function_tool(function, mark(tool), &format!("{at}.function"), traits, warnings)?),
            (None, Some("custom")) => return Err(Error::unsupported(host.kind, at, "Claude has no freeform tools; offer a function with one string parameter")),
            (None, other) => return Err(Error::unsupported(host.kind, at, format!("`{}` is not a tool that Claude has; offer functions", other.unwrap_or("a tool without a type")))),
        }
    }
    for (index, function) in request.functions.iter().flatten().enumerate() {
        out.tools.push(function_tool(function, None, &format!("functions[{index}]"), traits, warnings)?);
    }
    let offered = |only: &Str<'_>| request.functions().any(|f| f.name.as_deref() == Some(only));
    match &choice {
        Some(Choice::Allowed { names, .. }) => out.tools.retain(|tool| names.iter().any(|n| **n == *tool.name)),
        Some(Choice::Named(only)) if !out.tools.is_empty() && !offered(only) => {
            return Err(Error::invalid("tool_choice", format!("`tool_choice` names `{only}`, which is not in `tools`")));
        }
        _ => {}
    }
    if out.tools.is_empty() {
        if matches!(choice, Some(Choice::Required | Choice::Named(_) | Choice::Allowed { .. })) {
            return Err(Error::invalid("tool_choice", "`tool_choice` asks for a tool, but `tools` offers none of that name"));
        }
        out.tools = from_history(turns);
        if !out.tools.is_empty() {
            out.choice = Some(ChoiceBody { r#type: "none", name: None, disable_parallel_tool_use: false });
        }
    } else {
        out.choice = choose(choice.as_ref(), request.parallel_tool_calls == Some(false))?;
    }
    form(request, choice.as_ref(), traits, host, warnings, &mut out)?;
    Ok(out)
}

fn mark<'a>(tool: &'a Tool<'_>) -> Option<&'a RawValue> {
    tool.cache_control.or_else(|| extra(&tool.extra, "cache_control"))
}

fn function_tool<'a>(function: &'a FunctionDef<'_>, cache_control: Option<&'a RawValue>, at: &str, traits: &Traits, warnings: &mut Vec<String>) -> Result<ToolBody<'a>, Error> {
    let name = name(function.name.as_deref().unwrap_or_default(), &format!("{at}.name"))?;
    let input_schema = schema(function.parameters, at)?;
    let mut strict = function.strict == Some(true) && traits.format;
    if strict && !is_closed(&input_schema) {
        strict = false;
        warnings.push(format!("dropped `{at}.strict`: Claude holds strictly only to schemas of closed objects without bounds"));
    } else if function.strict == Some(true) && !traits.format {
        warnings.push(format!("dropped `{at}.strict`: this model has no strict tools"));
    }
    Ok(ToolBody { name, description: function.description.as_deref().filter(|d| !d.is_empty()).map(Cow::Borrowed), input_schema, strict, cache_control })
}

/// A tool's name, which must not be of nothing.
pub(super) fn name<'a>(name: &'a str, param: &str) -> Result<Cow<'a, str>, Error> {
    if name.is_empty() { Err(Error::invalid(param, format!("`{param}` must not be empty"))) } else { Ok(Cow::Borrowed(name)) }
}

/// The parameters as they came; a schema that does not say so is made one of an object, since Claude insists on it.
fn schema<'a>(parameters: Option<&'a RawValue>, at: &str) -> Result<Cow<'a, RawValue>, Error> {
    #[derive(serde::Deserialize)]
    struct Root<'a> {
        #[serde(borrow, rename = "type")]
        kind: Option<&'a RawValue>,
    }
    let owned = |json: String| RawValue::from_string(json).map(Cow::Owned).map_err(Error::answer);
    let Some(raw) = parameters.filter(|raw| raw.get() != "null") else { return owned(NOTHING.to_owned()) };
    let wrong = || Error::invalid(format!("{at}.parameters"), "`parameters` must be a JSON Schema whose outermost `type` is \"object\"");
    let root: Root<'_> = serde_json::from_str(raw.get()).map_err(|_| wrong())?;
    match root.kind.map(RawValue::get) {
        Some("\"object\"") => Ok(Cow::Borrowed(raw)),
        Some(_) => Err(wrong()),
        None => {
            let rest = raw.get().trim_start().strip_prefix('{').ok_or_else(wrong)?;
            if rest.trim_start() == "}" { owned(NOTHING.to_owned()) } else { owned(format!(r#"{{"type":"object",{rest}"#)) }
        }
    }
}

/// A history of calls needs its tools, even where the client offers none any more.
fn from_history<'a>(turns: &[Turn<'a>]) -> Vec<ToolBody<'a>> {
    let mut tools: Vec<ToolBody<'a>> = Vec::new();
    for block in turns.iter().flat_map(|t| &t.content) {
        if let Block::ToolUse { name, .. } = block
            && !tools.iter().any(|t| t.name == *name)
            && let Ok(input_schema) = RawValue::from_string(NOTHING.to_owned())
        {
            tools.push(ToolBody { name: name.clone(), description: None, input_schema: Cow::Owned(input_schema), strict: false, cache_control: None });
        }
    }
    tools
}

fn choose<'a>(choice: Option<&Choice<'_>>, one_at_a_time: bool) -> Result<Option<ChoiceBody<'a>>, Error> {
    let (r#type, name) = match choice {
        None if !one_at_a_time => return Ok(None),
        None | Some(Choice::Auto | Choice::Allowed { required: false, .. }) => ("auto", None),
        Some(Choice::None) => ("none", None),
        Some(Choice::Required | Choice::Allowed { required: true, .. }) => ("any", None),
        Some(Choice::Named(only)) => ("tool", Some(Cow::Owned(name(only, "tool_choice")?.into_owned()))),
    };
    Ok(Some(ChoiceBody { r#type, name, disable_parallel_tool_use: one_at_a_time && r#type != "none" }))
}

/// The answer's form.
fn form<'a>(request: &'a ChatRequest<'_>, choice: Option<&Choice<'_>>, traits: &Traits, host: &Host, warnings: &mut Vec<String>, out: &mut Tools<'a>) -> Result<(), Error> {
    let Some(format) = &request.response_format else { return Ok(()) };
    match format.kind.as_deref() {
        None | Some("text") => Ok(()),
        Some("json_object") => {
            out.instruction = Some("Answer with a single valid JSON object and nothing else: no words before or behind it, no code fence.");
            warnings.push("`response_format` of type json_object is asked for in words; use json_schema to have it enforced".into());
            Ok(())
        }
        Some("json_schema") => {
            let given = format.json_schema.as_ref().ok_or_else(|| Error::invalid("response_format.json_schema", "`json_schema` must hold a `schema`"))?;
            let schema = given.schema.ok_or_else(|| Error::invalid("response_format.json_schema.schema", "`json_schema` must hold a `schema`"))?;
            let native = traits.format && host.output_config;
            // A model that always thinks can only be held to a schema natively; what it does not take, it says itself.
            if native && (is_closed(schema) || traits.unasked == Unasked::AlwaysThinks) {
                out.format = Some(Format { r#type: "json_schema", schema });
                return Ok(());
            }
            answer_tool(given, schema, choice, out)
        }
        Some(other) => Err(Error::invalid("response_format.type", format!("`{other}` must be text, json_object or json_schema"))),
    }
}

/// Offers a tool whose input is the answer. A tool that the client forces goes before it: its call is the answer then.
fn answer_tool<'a>(given: &'a JsonSchema<'_>, raw: &'a RawValue, choice: Option<&Choice<'_>>, out: &mut Tools<'a>) -> Result<(), Error> {
    if matches!(choice, Some(Choice::Required | Choice::Named(_) | Choice::Allowed { required: true, .. })) {
        return Ok(());
    }
    let input_schema = schema(Some(raw), "response_format.json_schema").map_err(|_| Error::invalid("response_format.json_schema.schema", "the schema's outermost `type` must be \"object\""))?;
    let description = match given.description.as_deref() {
        Some(text) => Cow::Owned(format!("Gives the final answer in the form that is asked for: {text}")),
        None => Cow::Borrowed("Gives the final answer in the form that is asked for. Call it once, with the whole answer."),
    };
    out.tools.push(ToolBody { name: ANSWER_TOOL.into(), description: Some(description), input_schema, strict: false, cache_control: None });
    let others = out.tools.len() > 1 && !matches!(choice, Some(Choice::None)) && out.choice.as_ref().is_none_or(|c| c.r#type != "none");
    out.choice = Some(if others {
        ChoiceBody { r#type: "any", name: None, disable_parallel_tool_use: out.choice.as_ref().is_some_and(|c| c.disable_parallel_tool_use) }
    } else {
        ChoiceBody { r#type: "tool", name: Some(Cow::Borrowed(ANSWER_TOOL)), disable_parallel_tool_use: true }
    });
    Ok(())
}

/// Whether a name is the client's to use: the answer's tool is not.
pub(super) fn is_answer(name: &Str<'_>) -> bool {
    &**name == ANSWER_TOOL
}
