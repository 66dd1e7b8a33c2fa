//! What OpenAI's reasoning models do not take of a chat request, told by their names.

use crate::envelope::Edit;

/// What a model refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refuses {
    Nothing,
    /// The older name of the bound on tokens, and sampling parameters while it reasons: it need not.
    WhileReasoning,
    /// The same, and it always reasons.
    Always,
}

/// `o1`, `o3-mini` and `gpt-5` with its sizes always reason; from `gpt-5.1` on it depends on the effort; `gpt-5-chat-latest`
/// does not reason at all.
fn refuses(model: &str) -> Refuses {
    // A fine-tuned model is named after the one that it comes from.
    let name = model.strip_prefix("ft:").unwrap_or(model);
    let name = name.split(':').next().unwrap_or(name);
    if name.strip_prefix('o').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit())) {
        return Refuses::Always;
    }
    let Some(version) = name.strip_prefix("gpt-") else { return Refuses::Nothing };
    let end = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    let (major, rest) = version.split_at(end);
    match (major.parse(), rest.starts_with('.')) {
        (Ok(0..=4u32) | Err(_), _) => Refuses::Nothing,
        (Ok(_), _) if rest.contains("-chat") => Refuses::Nothing,
        (Ok(5), false) => Refuses::Always,
        (Ok(_), _) => Refuses::WhileReasoning,
    }
}

/// Changes a chat request to what its model takes.
pub(super) fn fit(edit: &mut Edit<'_>, model: &str, warnings: &mut Vec<String>) {
    let envelope = edit.envelope();
    let refuses = refuses(model);
    if refuses == Refuses::Nothing {
        return;
    }
    let given = |name: &str| envelope.get(name).filter(|v| *v != "null");
    if given("max_tokens").is_some() {
        if given("max_completion_tokens").is_some() {
            edit.remove("max_tokens");
        } else {
            edit.remove("max_completion_tokens");
            edit.rename("max_tokens", "max_completion_tokens");
        }
    }
    // What the effort is where none is given, each model says itself.
    let reasons = refuses == Refuses::Always || given("reasoning_effort").is_some_and(|e| e != "\"none\"");
    if !reasons {
        return;
    }
    for (name, usual) in [("temperature", 1.0), ("top_p", 1.0), ("presence_penalty", 0.0), ("frequency_penalty", 0.0)] {
        if given(name).is_some_and(|v| v.parse() != Ok(usual)) {
            edit.remove(name);
            warnings.push(format!("dropped `{name}`: {model} does not take it while it reasons"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_what_is_refused() {
        for (name, expected) in [
            ("o1", Refuses::Always),
            ("o4-mini-2025-04-16", Refuses::Always),
            ("gpt-5", Refuses::Always),
            ("gpt-5-mini-2025-08-07", Refuses::Always),
            ("ft:o4-mini-2025-04-16:acme::x1", Refuses::Always),
            ("gpt-5-chat-latest", Refuses::Nothing),
            ("gpt-5.1", Refuses::WhileReasoning),
            ("gpt-6-sol", Refuses::WhileReasoning),
            ("gpt-4o", Refuses::Nothing),
            ("gpt-oss-120b", Refuses::Nothing),
            ("gpt-audio", Refuses::Nothing),
            ("omni-moderation", Refuses::Nothing),
            ("llama-3", Refuses::Nothing),
        ] {
            assert_eq!(refuses(name), expected, "{name}");
        }
    }
}
