//! What a Claude takes, read from its name: the API has grown by generations and refuses what a generation does not know.
//! A model whose name says nothing is taken for an older one, as hosts with models of their own expect.

use crate::prices;

/// Whether a model thinks when the request does not mention it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unasked {
    /// It does not.
    Answers,
    /// It does, and can be told not to.
    Thinks,
    /// It does, and refuses to be told otherwise.
    AlwaysThinks,
}

/// What one model takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traits {
    /// Thinks within a `budget_tokens`.
    pub budget: bool,
    /// Thinks as much as it finds right (`adaptive`).
    pub adaptive: bool,
    /// What it does unasked.
    pub unasked: Unasked,
    /// The words it knows for `output_config.effort`.
    pub efforts: &'static [&'static str],
    /// Takes `temperature`, `top_p` and `top_k`.
    pub sampling: bool,
    /// Takes `temperature` and `top_p` together.
    pub both: bool,
    /// Has `output_config.format` and strict tools.
    pub format: bool,
    /// Continues a last turn of the assistant's own.
    pub prefill: bool,
}

impl Traits {
    /// Reads them from a model's name, in the form of any host, and from what the price table says.
    #[must_use]
    pub fn of(model: &str, info: Option<&prices::Model>) -> Self {
        let known = |feature| info.is_some_and(|i| i.supports(feature));
        let Some((family, version)) = parse(model) else {
            return Traits { budget: true, adaptive: false, unasked: Unasked::Answers, efforts: &[], sampling: true, both: true, format: known("json_schema"), prefill: true };
        };
        let newest = matches!(family, "fable" | "mythos");
        let adaptive_only = newest || version >= (4, 7);
        let adaptive = adaptive_only || version >= (4, 6);
        Traits {
            budget: !adaptive_only && version >= (3, 7) || known("reasoning") && !adaptive,
            adaptive,
            unasked: match family {
                _ if newest => Unasked::AlwaysThinks,
                "opus" if version >= (5, 5) => Unasked::AlwaysThinks,
                _ if version >= (5, 0) => Unasked::Thinks,
                _ => Unasked::Answers,
            },
            efforts: match () {
                () if adaptive_only => &["low", "medium", "high", "xhigh", "max"],
                () if adaptive => &["low", "medium", "high", "max"],
                () => &[],
            },
            sampling: !adaptive_only,
            both: version < (4, 1),
            format: adaptive || version >= (4, 5) || known("json_schema"),
            prefill: !adaptive,
        }
    }
}

/// Family and version: `claude-3-7-sonnet-20250219`, `eu.anthropic.claude-opus-4-6-v1`, `claude-haiku-4-5@20251001`.
fn parse(model: &str) -> Option<(&str, (u32, u32))> {
    let at = model.find("claude")?;
    let words = || model[at..].split(['-', '.', '@', ':', '_', '/']);
    let family = words().find(|w| ["opus", "sonnet", "haiku", "fable", "mythos", "instant"].contains(w));
    // A version is one or two digits; a date has eight.
    let number = |word: &str| if word.len() <= 2 { word.parse().ok() } else { None };
    let mut rest = words().skip_while(|w| number(w).is_none());
    let major = rest.next().and_then(number);
    let minor = rest.next().and_then(number).unwrap_or(0);
    match (family, major) {
        (Some(family), Some(major)) => Some((family, (major, minor))),
        (Some(family @ ("fable" | "mythos")), None) => Some((family, (5, 0))),
        (None, Some(major)) => Some(("", (major, minor))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_every_host_and_age() {
        for (name, family, version) in [
            ("claude-3-7-sonnet-20250219", "sonnet", (3, 7)),
            ("claude-3-opus@20240229", "opus", (3, 0)),
            ("claude-3-5-sonnet-v2@20241022", "sonnet", (3, 5)),
            ("claude-opus-4-20250514", "opus", (4, 0)),
            ("eu.anthropic.claude-opus-4-6-v1", "opus", (4, 6)),
            ("anthropic.claude-haiku-4-5-20251001-v1:0", "haiku", (4, 5)),
            ("anthropic/claude-sonnet-4.6", "sonnet", (4, 6)),
            ("claude-mythos-preview", "mythos", (5, 0)),
            ("claude-sonnet-5", "sonnet", (5, 0)),
            ("claude-2.1", "", (2, 1)),
        ] {
            assert_eq!(parse(name), Some((family, version)), "{name}");
        }
        assert_eq!(parse("kimi-k2"), None);
    }

    #[test]
    fn generations_differ() {
        let old = Traits::of("claude-3-5-haiku-20241022", None);
        assert!(!old.budget && !old.adaptive && old.sampling && !old.format && old.prefill);
        let middle = Traits::of("claude-sonnet-4-5", None);
        assert!(middle.budget && !middle.adaptive && middle.sampling && !middle.both && middle.format);
        let new = Traits::of("claude-opus-4-8", None);
        assert!(!new.budget && new.adaptive && !new.sampling && new.unasked == Unasked::Answers && !new.prefill);
        assert_eq!(Traits::of("claude-sonnet-5-5", None).unasked, Unasked::Thinks);
        assert_eq!(Traits::of("claude-opus-5-5", None).unasked, Unasked::AlwaysThinks);
        assert!(Traits::of("kimi-k2", None).budget);
    }
}
