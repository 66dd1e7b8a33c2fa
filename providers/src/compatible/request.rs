//! A chat request as a host takes it: top-level fields are edited in the passing body.

use serde_json::value::RawValue;

use super::{Oddity, Preset};
use crate::envelope::{Edit, Envelope};
use crate::prices::Features;
use crate::wire::{Choice, Str, Tool};
use crate::{Error, Target, bound, cohere, openai};

/// Words for an effort, from the least to the most.
const EFFORTS: &[&str] = &["minimal", "low", "medium", "high", "xhigh", "max"];

/// Changes what has to be changed.
pub(super) fn adapt(preset: &Preset, edit: &mut Edit<'_>, target: &Target<'_>) -> Result<Vec<String>, Error> {
    let envelope = edit.envelope();
    refuse(preset, envelope)?;
    if envelope.model() != target.model {
        edit.set_text("model", target.model);
    }
    if preset.no_stream_options {
        edit.remove("stream_options");
    } else if envelope.stream() {
        openai::ask_for_usage(edit)?;
    }
    if preset.max_tokens && envelope.get("max_completion_tokens").is_some() {
        // One of null is none.
        if envelope.get("max_tokens").is_some_and(|raw| raw != "null") {
            edit.remove("max_completion_tokens");
        } else {
            edit.remove("max_tokens");
            edit.rename("max_completion_tokens", "max_tokens");
        }
    }
    let mut warnings = Vec::new();
    for name in preset.drops {
        if let Some(value) = envelope.get(name) {
            edit.remove(name);
            if value != "null" {
                warnings.push(format!("dropped `{name}`: {} does not take it", preset.kind));
            }
        }
    }
    effort(preset, edit, &mut warnings)?;
    if preset.has(Oddity::CountedLogprobs) {
        logprobs(edit)?;
    }
    if preset.has(Oddity::StopList) && envelope.get("stop").is_some_and(|raw| raw.starts_with('"')) {
        edit.set("stop", format!("[{}]", envelope.get("stop").unwrap_or_default()));
    }
    preset.conversation(edit, &mut warnings)?;
    Ok(warnings)
}

/// What cannot be left out without changing what was asked.
fn refuse(preset: &Preset, envelope: &Envelope) -> Result<(), Error> {
    for name in preset.refuses {
        if envelope.get(name).is_some_and(|v| !matches!(v, "null" | "false" | "[]" | "0")) {
            return Err(Error::unsupported(preset.kind, *name, "leave it out, or choose another model"));
        }
    }
    if preset.has(Oddity::OneChoice) && envelope.get("n").is_some_and(|n| !matches!(n, "null" | "1")) {
        return Err(Error::unsupported(preset.kind, "n", "it gives one choice; ask as often as you need choices"));
    }
    if preset.has(Oddity::NoSchema) && envelope.get("response_format").is_some_and(|f| f.contains("\"json_schema\"")) {
        return Err(Error::unsupported(preset.kind, "response_format", "it knows no schema: ask for `json_object` and describe the schema in a message"));
    }
    Ok(())
}

/// The effort in a word that the host knows: the nearest one, the higher of two.
fn effort(preset: &Preset, edit: &mut Edit<'_>, warnings: &mut Vec<String>) -> Result<(), Error> {
    let Some(asked) = edit.envelope().parse::<Option<Str<'_>>>("reasoning_effort")?.flatten() else { return Ok(()) };
    if preset.efforts.contains(&&*asked) {
        return Ok(());
    }
    if &*asked == "none" {
        match preset.no_thinking {
            Some((field, value)) => {
                edit.remove("reasoning_effort");
                if edit.envelope().get(field).is_none() {
                    edit.set(field, value);
                }
            }
            None if !preset.efforts.is_empty() => {
                edit.remove("reasoning_effort");
                warnings.push(format!("dropped `reasoning_effort`: {} cannot be kept from thinking", preset.kind));
            }
            None => {}
        }
        return Ok(());
    }
    let place = |word: &str| EFFORTS.iter().position(|w| *w == word);
    let Some(wanted) = place(&asked) else { return Ok(()) };
    let nearest = preset.efforts.iter().filter_map(|word| Some((place(word)?, word))).min_by_key(|(at, _)| (at.abs_diff(wanted), std::cmp::Reverse(*at)));
    if let Some((_, word)) = nearest {
        edit.set_text("reasoning_effort", word);
        warnings.push(format!("changed `reasoning_effort` from {} to {word}: {} takes {}", &*asked, preset.kind, preset.efforts.join(", ")));
    }
    Ok(())
}

/// Most tokens of thinking that come beside the answer's bound.
pub(super) fn thoughts(preset: &Preset, request: &Envelope, target: &Target<'_>) -> Option<u64> {
    // A model that always thinks passes over what is said against it.
    let always = target.model.contains("thinking") || target.model.starts_with("qwq");
    // The host's own word comes before the effort, as in what it is sent.
    let said = preset.no_thinking.and_then(|(field, value)| Some(request.get(field)? == value));
    let off = said.unwrap_or_else(|| request.get("reasoning_effort") == Some("\"none\""));
    // Where nothing is told of what a model supports, it may think.
    let cannot = target.info.is_some_and(|info| info.supports != Features::default() && !info.supports("reasoning"));
    if off && !always || cannot {
        return Some(0);
    }
    let budget = request.get("thinking_budget").and_then(bound::whole)?;
    u64::try_from(budget).ok()
}

/// One number says that probabilities are wanted and how many alternatives.
fn logprobs(edit: &mut Edit<'_>) -> Result<(), Error> {
    let envelope = edit.envelope();
    let wanted = match envelope.get("logprobs") {
        Some("true") => true,
        Some("false" | "null") => false,
        // A number is the host's own form.
        Some(_) | None => return Ok(()),
    };
    let alternatives = envelope.parse::<Option<u32>>("top_logprobs")?.flatten().unwrap_or_default();
    edit.remove("top_logprobs");
    if wanted {
        edit.set("logprobs", alternatives.max(1).to_string());
    } else {
        edit.remove("logprobs");
    }
    Ok(())
}

/// Tools as the host knows them: functions in their present form, only those that may be called, without `strict` where that
/// is refused.
pub(super) fn tools(preset: &Preset, edit: &mut Edit<'_>) -> Result<(), Error> {
    let envelope = edit.envelope();
    let holds = |field: &str, words: &str| envelope.get(field).is_some_and(|raw| raw.contains(words));
    let older = envelope.get("functions").is_some() || envelope.get("function_call").is_some();
    let allowed = holds("tool_choice", "\"allowed_tools\"");
    let strict = preset.has(Oddity::NoStrictTools) && holds("tools", "\"strict\"");
    if !older && !allowed && !strict && !holds("tools", "\"custom\"") {
        return Ok(());
    }
    let request = envelope.chat()?;
    let mut tools: Vec<Tool<'_>> = request.tools.clone().unwrap_or_default();
    if let Some(at) = tools.iter().position(|t| t.custom.is_some()).filter(|_| !preset.has(Oddity::CustomTools)) {
        return Err(Error::unsupported(preset.kind, format!("tools[{at}]"), "it has no freeform tools; give the tool as a function with one string parameter"));
    }
    tools.extend(request.functions.iter().flatten().map(|f| Tool { kind: Some("function".into()), function: Some(f.clone()), ..Tool::default() }));
    let choice = if allowed || older { request.choice()? } else { None };
    if let Some(Choice::Allowed { names, required }) = &choice {
        tools.retain(|t| t.function.as_ref().and_then(|f| f.name.as_ref()).is_some_and(|name| names.contains(name)));
        if tools.is_empty() {
            return Err(Error::invalid("tool_choice", "`tool_choice` allows only tools that are not in `tools`"));
        }
        edit.set_text("tool_choice", if *required { "required" } else { "auto" });
    } else if let (Some(choice), Some(raw), None) = (&choice, request.function_call, request.tool_choice) {
        edit.set("tool_choice", present(choice, raw));
    }
    if older {
        edit.remove("functions");
        edit.remove("function_call");
    }
    if strict {
        tools.iter_mut().filter_map(|t| t.function.as_mut()).for_each(|f| f.strict = None);
    }
    if (older || allowed || strict) && !tools.is_empty() {
        edit.set("tools", serde_json::to_string(&tools).map_err(Error::answer)?);
    }
    Ok(())
}

/// A choice of a function in the present form.
fn present(choice: &Choice<'_>, raw: &RawValue) -> String {
    match choice {
        Choice::Named(name) => serde_json::json!({ "type": "function", "function": { "name": &**name } }).to_string(),
        _ => raw.get().to_owned(),
    }
}

/// What an embedded text is for, in the host's words. Passages are what is embedded most.
pub(super) fn passage_or_query(edit: &mut Edit<'_>) -> Result<(), Error> {
    let asked = edit.envelope().parse::<Option<Str<'_>>>("input_type")?.flatten();
    let word = if cohere::input_type(asked.as_deref())? == "search_query" { "query" } else { "passage" };
    edit.set_text("input_type", word);
    Ok(())
}
