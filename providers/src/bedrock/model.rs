//! What a model on Bedrock takes and refuses, told by its name. Converse is one schema over many makers' models, and what
//! one of them requires another answers with a validation error.

use crate::{Target, carry};

/// Who made a model, as far as that makes a difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Maker {
    /// Anthropic's Claude.
    Claude,
    /// Amazon's Nova.
    Nova,
    /// Models that take a schema for their answer but no forced tool.
    Open,
    /// OpenAI's models, which take a schema and `reasoning_effort`.
    OpenAi,
    /// Mistral's older models, which can be forced to call some tool.
    Mistral,
    /// Cohere's Command.
    Cohere,
    /// The ARN of a profile or a deployment that does not say what it leads to.
    Opaque,
    /// Any other.
    Other,
}

/// How a model is told to think.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Thinking {
    /// Not at all.
    None,
    /// Claude up to 4.5: a budget of tokens.
    Budget,
    /// Claude from 4.6 on: it decides by itself, guided by an effort.
    Adaptive,
    /// Nova 2: `reasoningConfig`.
    Nova,
    /// OpenAI's: `reasoning_effort`.
    Effort,
}

/// A model's traits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Model {
    pub(super) maker: Maker,
    /// Claude's version times a hundred (4.5 is 405), or Nova's generation.
    version: u32,
    /// Whether it cannot do without thinking.
    always_thinks: bool,
    prompt_cache: bool,
}

/// Name parts of makers whose models on Bedrock take `outputConfig.textFormat`.
const OPEN: &[&str] = &["qwen.", "deepseek.v3", "google.gemma", "nvidia.", "minimax.", "moonshot", "zai.", "ministral", "magistral", "voxtral", "mistral-large-3"];

impl Model {
    pub(super) fn of(target: &Target<'_>) -> Self {
        let name = target.model;
        let has = |part: &str| name.contains(part);
        let (maker, version) = if let Some((_, rest)) = name.split_once("claude") {
            (Maker::Claude, claude_version(rest))
        } else if has("nova-") {
            (Maker::Nova, if has("nova-2") { 2 } else { 1 })
        } else if OPEN.iter().any(|part| has(part)) {
            (Maker::Open, 0)
        } else if has("openai.") {
            (Maker::OpenAi, 0)
        } else if has("mistral.") {
            (Maker::Mistral, 0)
        } else if has("cohere.") {
            (Maker::Cohere, 0)
        } else if name.starts_with("arn:") && !name.rsplit('/').next().is_some_and(|id| id.contains('.')) {
            (Maker::Opaque, 0)
        } else {
            (Maker::Other, 0)
        };
        let version = if version == 0 && has("mythos") { 500 } else { version };
        let claude = maker == Maker::Claude;
        Model {
            maker,
            version,
            always_thinks: claude && (version > 500 || has("fable") || has("mythos")) || has("gpt-oss"),
            prompt_cache: maker == Maker::Opaque || maker == Maker::Nova || claude && version >= 305 || target.info.is_some_and(|i| i.supports("prompt_cache")),
        }
    }

    pub(super) fn claude(&self) -> bool {
        self.maker == Maker::Claude
    }

    /// Whether `cachePoint` blocks may stand in the request.
    pub(super) fn caches(&self) -> bool {
        self.prompt_cache
    }

    pub(super) fn thinking(&self) -> Thinking {
        match self.maker {
            Maker::Claude => match self.version {
                ..307 => Thinking::None,
                307..406 => Thinking::Budget,
                _ => Thinking::Adaptive,
            },
            Maker::Nova if self.version == 2 => Thinking::Nova,
            Maker::OpenAi => Thinking::Effort,
            _ => Thinking::None,
        }
    }

    /// Whether it thinks even if it is not asked to.
    pub(super) fn thinks_by_default(&self) -> bool {
        self.claude() && self.version >= 500
    }

    /// Whether it refuses to be told not to think.
    pub(super) fn always_thinks(&self) -> bool {
        self.always_thinks
    }

    /// Whether it knows the effort `xhigh`.
    pub(super) fn extra_high(&self) -> bool {
        self.claude() && self.version >= 407
    }

    /// Whether temperature, `top_p` and `top_k` are taken.
    pub(super) fn samples(&self) -> bool {
        !self.claude() || self.version < 407
    }

    /// Whether temperature and `top_p` may stand beside each other.
    pub(super) fn samples_by_both(&self) -> bool {
        !self.claude() || self.version < 401
    }

    /// Whether a tool call can be demanded.
    pub(super) fn can_force(&self) -> bool {
        match self.maker {
            Maker::Claude => self.version <= 500,
            Maker::Nova | Maker::Mistral | Maker::Opaque => true,
            Maker::Open | Maker::OpenAi | Maker::Cohere | Maker::Other => false,
        }
    }

    /// Whether the demanded tool can be named.
    pub(super) fn can_force_one(&self) -> bool {
        self.can_force() && self.maker != Maker::Mistral
    }

    /// Whether the answer's format can be given as a schema, and tools can be strict.
    pub(super) fn takes_schema(&self) -> bool {
        match self.maker {
            Maker::Claude => (405..=406).contains(&self.version),
            Maker::Open | Maker::OpenAi | Maker::Opaque => true,
            Maker::Nova | Maker::Mistral | Maker::Cohere | Maker::Other => false,
        }
    }

    /// Whether a last turn of the assistant's is continued.
    pub(super) fn takes_prefill(&self) -> bool {
        !self.claude() || self.version < 406
    }

    /// Whether a tool result's `status` is taken.
    pub(super) fn takes_status(&self) -> bool {
        matches!(self.maker, Maker::Claude | Maker::Nova)
    }

    /// Under which name its opaque reasoning travels through the client.
    pub(super) fn format(&self) -> &'static str {
        if matches!(self.maker, Maker::Claude | Maker::Opaque) { carry::ANTHROPIC } else { carry::BEDROCK }
    }
}

/// `-opus-4-5-20251101-v1:0` is 405, `-3-5-sonnet-…` is 305, `-sonnet-4-20250514-…` is 400; 0 where there is no number.
fn claude_version(rest: &str) -> u32 {
    let mut parts = rest.split(['-', '.', ':', '@', '/']);
    let short = |part: &str| if part.len() <= 2 { part.parse::<u32>().ok() } else { None };
    match parts.by_ref().find_map(short) {
        Some(major) => major * 100 + parts.next().and_then(short).unwrap_or(0),
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(name: &str) -> Model {
        Model::of(&Target { model: name, info: None })
    }

    #[test]
    fn versions_are_read_from_every_form_of_name() {
        for (name, version) in [
            ("anthropic.claude-3-5-sonnet-20241022-v2:0", 305),
            ("us.anthropic.claude-3-opus-20240229-v1:0", 300),
            ("anthropic.claude-sonnet-4-20250514-v1:0", 400),
            ("arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude-opus-4-5-20251101-v1:0", 405),
            ("global.anthropic.claude-opus-4-6-v1", 406),
            ("anthropic.claude-opus-5-5", 505),
            ("anthropic.claude-fable-5", 500),
            ("anthropic.claude-mythos-preview", 500),
            ("anthropic.claude-instant-v1", 0),
        ] {
            assert_eq!(model(name).version, version, "{name}");
        }
    }

    #[test]
    fn what_is_not_known_is_not_guessed() {
        assert_eq!(model("arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/abc123").maker, Maker::Opaque);
        assert_eq!(model("arn:aws:bedrock:us-east-1::foundation-model/meta.llama3-70b-instruct-v1:0").maker, Maker::Other);
        assert!(!model("anthropic.claude-opus-5-5").can_force() && !model("anthropic.claude-opus-5-5").takes_schema());
    }
}
