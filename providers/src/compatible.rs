//! Hosts that speak OpenAI's dialect with small differences: one line each, the differences as data.

use crate::envelope::Edit;
use crate::openai::History;
use crate::{Dialect, Error, Operation, Provider, Settings, Target, carry, openai};

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
    /// What of earlier reasoning it wants to see again.
    pub history: History,
    /// Parameters that it rejects and that may go with a warning.
    pub drops: &'static [&'static str],
    /// Parameters that it does not honour and that change the meaning.
    pub refuses: &'static [&'static str],
}

const PLAIN: Preset = Preset { kind: "", base_url: "", env: "", also: &[], max_tokens: false, no_stream_options: false, odd_answers: false, history: History::Bare, drops: &[], refuses: &[] };

use Operation::{Embeddings, ImageGenerations, Rerank, Speech, Transcriptions, Translations};
const RESPONSES: Operation = Operation::Chat(Dialect::Responses);
const COMPLETIONS: Operation = Operation::Chat(Dialect::Completions);

/// Every preset.
pub const PRESETS: &[Preset] = &[
    Preset { kind: "xai", base_url: "https://api.x.ai/v1", env: "XAI_API_KEY", also: &[RESPONSES, COMPLETIONS, ImageGenerations], drops: &["logit_bias"], ..PLAIN },
    Preset { kind: "deepseek", base_url: "https://api.deepseek.com/v1", env: "DEEPSEEK_API_KEY", max_tokens: true, history: History::Text, ..PLAIN },
    Preset {
        kind: "groq",
        base_url: "https://api.groq.com/openai/v1",
        env: "GROQ_API_KEY",
        also: &[RESPONSES, Speech, Transcriptions, Translations],
        odd_answers: true,
        drops: &["logit_bias", "store", "metadata"],
        ..PLAIN
    },
    Preset {
        kind: "together",
        base_url: "https://api.together.xyz/v1",
        env: "TOGETHER_API_KEY",
        also: &[COMPLETIONS, Embeddings, ImageGenerations, Rerank, Speech],
        max_tokens: true,
        odd_answers: true,
        ..PLAIN
    },
    Preset { kind: "fireworks", base_url: "https://api.fireworks.ai/inference/v1", env: "FIREWORKS_API_KEY", also: &[COMPLETIONS, Embeddings, RESPONSES], max_tokens: true, ..PLAIN },
    Preset {
        kind: "cerebras",
        base_url: "https://api.cerebras.ai/v1",
        env: "CEREBRAS_API_KEY",
        also: &[COMPLETIONS],
        odd_answers: true,
        drops: &["frequency_penalty", "presence_penalty", "logit_bias"],
        ..PLAIN
    },
    Preset { kind: "dashscope", base_url: "https://dashscope-intl.aliyuncs.com/compatible-mode/v1", env: "DASHSCOPE_API_KEY", also: &[Embeddings], max_tokens: true, ..PLAIN },
    Preset { kind: "databricks", base_url: "", env: "DATABRICKS_TOKEN", also: &[Embeddings, COMPLETIONS], max_tokens: true, no_stream_options: true, odd_answers: true, ..PLAIN },
    Preset {
        kind: "perplexity",
        base_url: "https://api.perplexity.ai",
        env: "PERPLEXITY_API_KEY",
        max_tokens: true,
        odd_answers: true,
        drops: &["logit_bias", "seed", "parallel_tool_calls", "service_tier"],
        refuses: &["tools", "functions", "logprobs"],
        ..PLAIN
    },
    Preset { kind: "openrouter", base_url: "https://openrouter.ai/api/v1", env: "OPENROUTER_API_KEY", also: &[COMPLETIONS, Embeddings], odd_answers: true, history: History::Blocks, ..PLAIN },
    Preset { kind: "nvidia", base_url: "https://integrate.api.nvidia.com/v1", env: "NVIDIA_API_KEY", also: &[COMPLETIONS, Embeddings], max_tokens: true, ..PLAIN },
    Preset { kind: "sambanova", base_url: "https://api.sambanova.ai/v1", env: "SAMBANOVA_API_KEY", also: &[Embeddings], max_tokens: true, odd_answers: true, ..PLAIN },
    Preset { kind: "vllm", base_url: "http://127.0.0.1:8000/v1", env: "VLLM_API_KEY", also: &[COMPLETIONS, Embeddings, RESPONSES, Rerank, Transcriptions, Translations], odd_answers: true, ..PLAIN },
    Preset { kind: "llama_cpp", base_url: "http://127.0.0.1:8080/v1", env: "LLAMA_CPP_API_KEY", also: &[COMPLETIONS, Embeddings, Rerank], max_tokens: true, ..PLAIN },
    Preset { kind: "lm_studio", base_url: "http://127.0.0.1:1234/v1", env: "LM_STUDIO_API_KEY", also: &[COMPLETIONS, Embeddings, RESPONSES], max_tokens: true, ..PLAIN },
];

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
        let envelope = edit.envelope();
        if operation != Operation::Chat(Dialect::Chat) {
            return openai::adapt(operation, edit, target);
        }
        for name in self.preset.refuses {
            if envelope.get(name).is_some_and(|v| !matches!(v, "null" | "false" | "[]")) {
                return Err(Error::unsupported(self.preset.kind, *name, "leave it out, or choose another model"));
            }
        }
        if self.preset.history == History::Bare {
            openai::adapt(operation, edit, target)?;
        } else {
            if envelope.model() != target.model {
                edit.set_text("model", target.model);
            }
            if envelope.stream() {
                openai::ask_for_usage(edit)?;
            }
            let calls = self.preset.history == History::Text && envelope.get("messages").is_some_and(|m| m.contains("\"tool_calls\""));
            if calls || carry::request_may_carry(envelope) {
                edit.set("messages", openai::clean_history(&envelope.chat()?, self.preset.history));
            }
        }
        if self.preset.no_stream_options {
            edit.remove("stream_options");
        }
        if self.preset.max_tokens && envelope.get("max_completion_tokens").is_some() {
            if envelope.get("max_tokens").is_some() {
                edit.remove("max_completion_tokens");
            } else {
                edit.rename("max_completion_tokens", "max_tokens");
            }
        }
        let mut warnings = Vec::new();
        for name in self.preset.drops {
            if envelope.get(name).is_some_and(|v| v != "null") {
                edit.remove(name);
                warnings.push(format!("dropped `{name}`: {} does not take it", self.preset.kind));
            }
        }
        Ok(warnings)
    }

    fn verbatim(&self, operation: Operation) -> bool {
        operation != Operation::Chat(Dialect::Chat) || !self.preset.odd_answers
    }
}
