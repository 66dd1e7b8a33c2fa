//! Hosts that speak OpenAI's dialect with small differences: an entry each, the differences as data.

mod answer;
mod messages;
mod request;

use crate::answer::Answer;
use crate::detour::{self, Detours};
use crate::envelope::{Edit, Envelope};
use crate::error::UpstreamError;
use crate::{Dialect, Error, Operation, Provider, Settings, Target, Transcoder, openai, rate};

/// A host's place and its differences.
#[derive(Debug)]
pub struct Preset {
    /// The kind.
    pub kind: &'static str,
    /// Its place; empty where the user has to give one.
    pub base_url: &'static str,
    /// The environment variable that holds its key by custom.
    pub env: &'static str,
    /// Operations beside chat.
    pub also: &'static [Operation],
    /// Takes `max_tokens` only.
    pub max_tokens: bool,
    /// Rejects `stream_options`.
    pub no_stream_options: bool,
    /// Its answers have differences that clients stumble over (`reasoning`, usage in odd places): they are read and
    /// written anew.
    pub odd_answers: bool,
    /// What an assistant's message may bring back of its thinking.
    pub thinking: Thinking,
    /// The keys of a message that it takes, where it answers 400 to any other; empty where it passes over them.
    pub message: &'static [&'static str],
    /// Knows the role `developer`; it is `system` to the others.
    pub developer: bool,
    /// The words that it takes for `reasoning_effort`; empty where any may pass.
    pub efforts: &'static [&'static str],
    /// The field and its value that keep it from thinking, where `reasoning_effort: none` does not.
    pub no_thinking: Option<(&'static str, &'static str)>,
    /// Parameters that it rejects and that may go with a warning.
    pub drops: &'static [&'static str],
    /// Parameters that it does not honour and that change the meaning.
    pub refuses: &'static [&'static str],
    /// What leads around the model that was asked for.
    pub detours: Detours,
    /// Its own words for tiers at the price of the table.
    pub tiers: &'static [&'static str],
    /// Fields that say which of the hosts behind it may answer, each of which has a price of its own.
    pub hosts: &'static [&'static str],
    /// Differences that few hosts have.
    pub oddities: &'static [Oddity],
}

/// What of earlier thinking a host takes, and where in the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thinking {
    /// Nothing.
    Dropped,
    /// The text, as `reasoning_content`.
    Content,
    /// The text, as `reasoning_content`, in every message of an assistant: it answers 400 where one has none.
    Demanded,
    /// The text, as `reasoning`.
    Reasoning,
    /// The blocks that it gave, as `reasoning_details`, and the text.
    Blocks,
}

/// A difference that few hosts have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Oddity {
    /// `logprobs` is the number of alternatives, and comes back in columns or, in a stream, as a bare number.
    CountedLogprobs,
    /// `stop` is a list only.
    StopList,
    /// Refuses `strict` in a function.
    NoStrictTools,
    /// Has freeform tools, or hosts that have them behind it.
    CustomTools,
    /// Files are parts of type `file_url`, their data without `data:`.
    FileUrls,
    /// Gives one choice, whatever `n` says.
    OneChoice,
    /// `response_format` knows no schema.
    NoSchema,
    /// Embeddings must say whether a text is a `passage` or a `query`.
    PassageOrQuery,
    /// Tells beside the choices, or by a finish of its own, that it broke off.
    ErrorAside,
    /// `max_tokens` bounds the answer alone, or with its thoughts: it depends on the model, or nobody says.
    ThinksBeyond,
}

/// A host without differences.
pub(crate) const PLAIN: Preset = Preset {
    kind: "",
    base_url: "",
    env: "",
    also: &[],
    max_tokens: false,
    no_stream_options: false,
    odd_answers: false,
    thinking: Thinking::Dropped,
    message: &[],
    developer: false,
    efforts: &[],
    no_thinking: None,
    drops: &[],
    refuses: &[],
    detours: Detours::COMMON,
    tiers: &[],
    hosts: &[],
    oddities: &[],
};

use Operation::{Embeddings, ImageGenerations, Rerank, Speech, Transcriptions, Translations};
const RESPONSES: Operation = Operation::Chat(Dialect::Responses);
const COMPLETIONS: Operation = Operation::Chat(Dialect::Completions);

/// Every preset.
pub const PRESETS: &[Preset] = &[
    Preset {
        kind: "xai",
        base_url: "https://api.x.ai/v1",
        env: "XAI_API_KEY",
        also: &[RESPONSES, COMPLETIONS, ImageGenerations],
        developer: true,
        efforts: &["none", "low", "medium", "high", "xhigh"],
        drops: &["logit_bias"],
        oddities: &[Oddity::ThinksBeyond],
        ..PLAIN
    },
    Preset {
        kind: "deepseek",
        base_url: "https://api.deepseek.com/v1",
        env: "DEEPSEEK_API_KEY",
        max_tokens: true,
        thinking: Thinking::Demanded,
        efforts: &["low", "medium", "high", "max"],
        no_thinking: Some(("thinking", r#"{"type":"disabled"}"#)),
        oddities: &[Oddity::OneChoice, Oddity::NoSchema, Oddity::ErrorAside],
        ..PLAIN
    },
    Preset {
        kind: "groq",
        base_url: "https://api.groq.com/openai/v1",
        env: "GROQ_API_KEY",
        also: &[RESPONSES, Speech, Transcriptions, Translations],
        odd_answers: true,
        thinking: Thinking::Reasoning,
        message: &["role", "content", "tool_calls", "tool_call_id", "reasoning"],
        developer: true,
        efforts: &["none", "default", "low", "medium", "high"],
        drops: &["logit_bias", "store", "metadata", "verbosity", "prediction", "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options", "safety_identifier"],
        refuses: &["logprobs", "top_logprobs"],
        // `flex` costs the same and may be refused; `performance` is by contract.
        tiers: &["on_demand", "flex"],
        // The models behind its compound systems.
        detours: Detours { fields: &["compound_custom"], tools: &[] },
        oddities: &[Oddity::OneChoice, Oddity::ErrorAside],
        ..PLAIN
    },
    Preset {
        kind: "together",
        base_url: "https://api.together.xyz/v1",
        env: "TOGETHER_API_KEY",
        also: &[COMPLETIONS, Embeddings, ImageGenerations, Rerank, Speech, Transcriptions, Translations],
        max_tokens: true,
        odd_answers: true,
        thinking: Thinking::Content,
        efforts: &["low", "medium", "high"],
        no_thinking: Some(("reasoning", r#"{"enabled":false}"#)),
        detours: Detours { fields: &["safety_model"], tools: &[] },
        oddities: &[Oddity::CountedLogprobs, Oddity::StopList],
        ..PLAIN
    },
    Preset {
        kind: "fireworks",
        base_url: "https://api.fireworks.ai/inference/v1",
        env: "FIREWORKS_API_KEY",
        also: &[COMPLETIONS, Embeddings, RESPONSES],
        max_tokens: true,
        thinking: Thinking::Content,
        message: &["role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content"],
        efforts: &["none", "low", "medium", "high"],
        drops: &["store", "verbosity", "prompt_cache_retention", "prompt_cache_options", "safety_identifier"],
        ..PLAIN
    },
    Preset {
        kind: "cerebras",
        base_url: "https://api.cerebras.ai/v1",
        env: "CEREBRAS_API_KEY",
        also: &[COMPLETIONS],
        odd_answers: true,
        thinking: Thinking::Reasoning,
        message: &["role", "content", "name", "tool_calls", "tool_call_id", "reasoning"],
        developer: true,
        efforts: &["none", "low", "medium", "high"],
        drops: &["store", "metadata", "verbosity", "prompt_cache_retention", "prompt_cache_options", "safety_identifier"],
        ..PLAIN
    },
    Preset {
        kind: "dashscope",
        base_url: "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        env: "DASHSCOPE_API_KEY",
        also: &[Embeddings],
        max_tokens: true,
        no_thinking: Some(("enable_thinking", "false")),
        oddities: &[Oddity::ThinksBeyond],
        ..PLAIN
    },
    Preset {
        kind: "databricks",
        base_url: "",
        env: "DATABRICKS_TOKEN",
        also: &[Embeddings, COMPLETIONS],
        max_tokens: true,
        no_stream_options: true,
        odd_answers: true,
        message: &["role", "content", "name", "tool_calls", "tool_call_id"],
        drops: &[
            "store",
            "metadata",
            "user",
            "seed",
            "logit_bias",
            "service_tier",
            "verbosity",
            "prediction",
            "parallel_tool_calls",
            "prompt_cache_key",
            "prompt_cache_retention",
            "prompt_cache_options",
            "safety_identifier",
        ],
        oddities: &[Oddity::NoStrictTools],
        ..PLAIN
    },
    Preset {
        kind: "perplexity",
        base_url: "https://api.perplexity.ai",
        env: "PERPLEXITY_API_KEY",
        max_tokens: true,
        odd_answers: true,
        efforts: &["minimal", "low", "medium", "high"],
        drops: &["logit_bias", "seed", "parallel_tool_calls", "service_tier"],
        refuses: &["tools", "functions", "logprobs"],
        oddities: &[Oddity::FileUrls],
        ..PLAIN
    },
    Preset {
        kind: "openrouter",
        base_url: "https://openrouter.ai/api/v1",
        env: "OPENROUTER_API_KEY",
        also: &[COMPLETIONS, Embeddings],
        odd_answers: true,
        thinking: Thinking::Blocks,
        developer: true,
        detours: Detours { fields: &["route", "preset", "plugins"], tools: &["openrouter:"] },
        hosts: &["provider"],
        oddities: &[Oddity::CustomTools],
        ..PLAIN
    },
    Preset { kind: "nvidia", base_url: "https://integrate.api.nvidia.com/v1", env: "NVIDIA_API_KEY", also: &[COMPLETIONS, Embeddings], max_tokens: true, oddities: &[Oddity::PassageOrQuery], ..PLAIN },
    Preset {
        kind: "sambanova",
        base_url: "https://api.sambanova.ai/v1",
        env: "SAMBANOVA_API_KEY",
        also: &[RESPONSES, COMPLETIONS, Embeddings, Transcriptions, Translations],
        odd_answers: true,
        thinking: Thinking::Reasoning,
        efforts: &["low", "medium", "high"],
        no_thinking: Some(("chat_template_kwargs", r#"{"enable_thinking":false}"#)),
        ..PLAIN
    },
    Preset {
        kind: "vllm",
        base_url: "http://127.0.0.1:8000/v1",
        env: "VLLM_API_KEY",
        also: &[COMPLETIONS, Embeddings, RESPONSES, Rerank, Transcriptions, Translations],
        odd_answers: true,
        thinking: Thinking::Reasoning,
        efforts: &["none", "low", "medium", "high"],
        ..PLAIN
    },
    Preset {
        kind: "llama_cpp",
        base_url: "http://127.0.0.1:8080/v1",
        env: "LLAMA_CPP_API_KEY",
        also: &[COMPLETIONS, Embeddings, Rerank],
        max_tokens: true,
        thinking: Thinking::Content,
        developer: true,
        ..PLAIN
    },
    Preset { kind: "lm_studio", base_url: "http://127.0.0.1:1234/v1", env: "LM_STUDIO_API_KEY", also: &[COMPLETIONS, Embeddings, RESPONSES], max_tokens: true, ..PLAIN },
];

impl Preset {
    fn has(&self, oddity: Oddity) -> bool {
        self.oddities.contains(&oddity)
    }

    /// Tools and messages as such a host takes them.
    ///
    /// # Errors
    /// When they cannot be read, or hold what it does not take.
    pub(crate) fn conversation(&self, edit: &mut Edit<'_>, warnings: &mut Vec<String>) -> Result<(), Error> {
        request::tools(self, edit)?;
        messages::adapt(self, edit, warnings)
    }
}

/// A preset in use.
#[derive(Debug)]
pub struct Compatible {
    preset: &'static Preset,
    base_url: String,
}

impl Compatible {
    /// The preset at its own place, or where the settings say.
    ///
    /// # Errors
    /// When the preset has no place of its own and the settings name none.
    pub fn new(preset: &'static Preset, settings: &Settings) -> Result<Self, Error> {
        let base_url = settings.base_url_or(preset.base_url);
        if base_url.is_empty() {
            return Err(Error::Settings(format!("kind {} needs a `base_url`", preset.kind)));
        }
        Ok(Compatible { preset, base_url })
    }
}

impl Provider for Compatible {
    fn kind(&self) -> &'static str {
        self.preset.kind
    }

    fn base_url(&self) -> &str {
        &self.base_url
    }

    fn path(&self, operation: Operation, _: &Target<'_>, _: bool) -> Result<Option<String>, Error> {
        let known = operation == Operation::Chat(Dialect::Chat) || self.preset.also.contains(&operation);
        Ok(if known { operation.openai_path().map(str::to_owned) } else { None })
    }

    fn adapt(&self, operation: Operation, edit: &mut Edit<'_>, target: &Target<'_>) -> Result<Vec<String>, Error> {
        if operation == Operation::Chat(Dialect::Chat) {
            return request::adapt(self.preset, edit, target);
        }
        let warnings = openai::adapt(operation, edit, target)?;
        if operation == Operation::Embeddings && self.preset.has(Oddity::PassageOrQuery) {
            request::passage_or_query(edit)?;
        }
        if self.preset.no_stream_options {
            edit.remove("stream_options");
        }
        Ok(warnings)
    }

    fn detours(&self) -> Detours {
        self.preset.detours
    }

    fn other_rates(&self, operation: Operation, body: &Envelope) -> Vec<&'static str> {
        // Only a chat loses what is dropped, and so does what becomes one.
        let chat = !self.preset.also.contains(&operation);
        let mut found = if chat && self.preset.drops.contains(&"service_tier") { Vec::new() } else { rate::of_openai(operation, body, self.preset.tiers) };
        found.extend(self.preset.hosts.iter().filter(|name| body.get(name).is_some_and(|raw| !detour::says_nothing(raw))));
        found
    }

    fn thinks_beyond(&self, request: &Envelope, target: &Target<'_>) -> Option<u64> {
        if self.preset.has(Oddity::ThinksBeyond) { request::thoughts(self.preset, request, target) } else { Some(0) }
    }

    fn verbatim(&self, operation: Operation) -> bool {
        operation != Operation::Chat(Dialect::Chat) || !self.preset.odd_answers
    }

    fn answer(&self, body: &[u8], _: &Target<'_>) -> Result<Answer, Error> {
        answer::read(self.preset, body)
    }

    fn transcoder(&self, _: &Target<'_>) -> Box<dyn Transcoder> {
        Box::new(answer::Chunks::new(self.preset))
    }

    fn error(&self, status: u16, body: &[u8]) -> UpstreamError {
        answer::error(status, body)
    }
}
