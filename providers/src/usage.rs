//! What a request used, in buckets that do not overlap, whatever way a provider counts.

use serde::de::{IgnoredAny, Visitor};
use serde::{Deserialize, Serialize};

/// Tokens by bucket. No token is in two buckets, so that a bill is a sum of products.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Usage {
    /// Prompt tokens that were neither read from nor written to a prompt cache, and are not audio.
    pub input: u64,
    /// Prompt tokens read from the provider's prompt cache.
    pub cache_read: u64,
    /// Prompt tokens written to the cache with the short lifetime (5 minutes at Anthropic).
    pub cache_write: u64,
    /// Prompt tokens written to the cache with the long lifetime (1 hour at Anthropic).
    pub cache_write_1h: u64,
    /// Prompt tokens of audio.
    pub input_audio: u64,
    /// Answer tokens other than reasoning and audio.
    pub output: u64,
    /// Tokens of reasoning.
    pub reasoning: u64,
    /// Answer tokens of audio.
    pub output_audio: u64,
    /// Whether the figures are the gateway's estimate, for want of the provider's own.
    pub estimated: bool,
}

impl Usage {
    /// All prompt tokens: OpenAI's `prompt_tokens`, cached ones included.
    #[must_use]
    pub fn prompt(&self) -> u64 {
        sum([self.input, self.cache_read, self.cache_write, self.cache_write_1h, self.input_audio])
    }

    /// All answer tokens: OpenAI's `completion_tokens`, reasoning included.
    #[must_use]
    pub fn completion(&self) -> u64 {
        sum([self.output, self.reasoning, self.output_audio])
    }

    /// Prompt and answer together.
    #[must_use]
    pub fn total(&self) -> u64 {
        sum([self.prompt(), self.completion()])
    }

    /// Adds another request's usage (a batch of embedding calls that answer one request).
    pub fn add(&mut self, other: &Usage) {
        for (mine, more) in [
            (&mut self.input, other.input),
            (&mut self.cache_read, other.cache_read),
            (&mut self.cache_write, other.cache_write),
            (&mut self.cache_write_1h, other.cache_write_1h),
            (&mut self.input_audio, other.input_audio),
            (&mut self.output, other.output),
            (&mut self.reasoning, other.reasoning),
            (&mut self.output_audio, other.output_audio),
        ] {
            *mine = mine.saturating_add(more);
        }
        self.estimated |= other.estimated;
    }

    /// Writes OpenAI's chat usage object.
    #[must_use]
    pub fn to_openai(&self) -> String {
        use std::fmt::Write;
        let mut out = String::with_capacity(256);
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            r#"{{"prompt_tokens":{},"completion_tokens":{},"total_tokens":{},"prompt_tokens_details":{{"cached_tokens":{},"audio_tokens":{}"#,
            self.prompt(),
            self.completion(),
            self.total(),
            self.cache_read,
            self.input_audio,
        );
        let written = sum([self.cache_write, self.cache_write_1h]);
        if written > 0 {
            let _ = write!(out, r#","cache_write_tokens":{written}"#);
        }
        let _ = write!(out, r#"}},"completion_tokens_details":{{"reasoning_tokens":{},"audio_tokens":{}}}}}"#, self.reasoning, self.output_audio);
        out
    }
}

/// A sum that an upstream's absurd figures cannot overflow: what is too much stays too much.
pub(crate) fn sum(figures: impl IntoIterator<Item = u64>) -> u64 {
    figures.into_iter().fold(0, u64::saturating_add)
}

/// OpenAI's usage object as compatible hosts really send it, from chat, completions, embeddings and responses alike.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct OpenAiUsage {
    prompt_tokens: Figure,
    completion_tokens: Figure,
    total_tokens: Figure,
    prompt_tokens_details: Option<PromptDetails>,
    completion_tokens_details: Option<CompletionDetails>,
    /// The names of Responses. Not aliases: a host that sends both would be refused for a field that stands twice.
    input_tokens: Figure,
    output_tokens: Figure,
    input_tokens_details: Option<PromptDetails>,
    output_tokens_details: Option<CompletionDetails>,
    /// DeepSeek's name for cached prompt tokens.
    prompt_cache_hit_tokens: Figure,
    /// Together's and others' flat name.
    cached_tokens: Figure,
    /// SGLang's and Perplexity's flat name.
    reasoning_tokens: Figure,
    /// What Perplexity has read of its sources.
    citation_tokens: Figure,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PromptDetails {
    cached_tokens: Figure,
    #[serde(alias = "cache_creation_tokens", alias = "cache_write")]
    cache_write_tokens: Figure,
    /// DashScope's name for the same.
    cache_creation_input_tokens: Figure,
    audio_tokens: Figure,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CompletionDetails {
    reasoning_tokens: Figure,
    audio_tokens: Figure,
}

/// More tokens than any one answer has: a figure above is none.
const ABSURD: u64 = 1_000_000_000;

/// A number of tokens as hosts write it: a float too, or in quotes. What is no such number counts as not told, so that it is
/// estimated and the answer is not lost for it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Figure(Option<u64>);

impl Figure {
    fn or(self, other: Self) -> Self {
        Figure(self.0.or(other.0))
    }

    fn count(self) -> u64 {
        self.0.unwrap_or_default()
    }
}

impl<'de> Deserialize<'de> for Figure {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Figure;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number of tokens")
            }

            fn visit_u64<E>(self, n: u64) -> Result<Figure, E> {
                Ok(Figure(Some(n).filter(|n| *n <= ABSURD)))
            }

            fn visit_i64<E>(self, n: i64) -> Result<Figure, E> {
                Ok(u64::try_from(n).map_or(Figure(None), |n| Figure(Some(n))))
            }

            fn visit_f64<E>(self, n: f64) -> Result<Figure, E> {
                Ok(Figure(Some(n).filter(|n| (0.0..=ABSURD as f64).contains(n)).map(|n| n.ceil() as u64)))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Figure, E> {
                text.parse().map_or(Ok(Figure(None)), |n| self.visit_f64(n))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Figure, E> {
                Ok(Figure(None))
            }

            fn visit_unit<E>(self) -> Result<Figure, E> {
                Ok(Figure(None))
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Figure, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Figure(None))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Figure, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Figure(None))
            }
        }
        d.deserialize_any(Reader)
    }
}

impl From<OpenAiUsage> for Usage {
    fn from(u: OpenAiUsage) -> Self {
        let prompt = u.prompt_tokens.or(u.input_tokens).count();
        let details = u.prompt_tokens_details.or(u.input_tokens_details).unwrap_or_default();
        let completion_details = u.completion_tokens_details.or(u.output_tokens_details).unwrap_or_default();
        let cache_read = details.cached_tokens.or(u.prompt_cache_hit_tokens).or(u.cached_tokens).count().min(prompt);
        let cache_write = details.cache_write_tokens.or(details.cache_creation_input_tokens).count().min(prompt - cache_read);
        let input_audio = details.audio_tokens.count().min(prompt - cache_read - cache_write);
        let said = u.completion_tokens.or(u.output_tokens).count();
        let thought = completion_details.reasoning_tokens.or(u.reasoning_tokens).count();
        // Perplexity's research tells its sources and its reasoning beside prompt, completion and total, and has both paid for.
        let sources = u.citation_tokens.0.filter(|_| u.reasoning_tokens.0.is_some());
        // Some hosts leave reasoning out of completion_tokens but have it in the total.
        let beside = sources.is_some() || u.total_tokens.0 == Some(sum([prompt, said, thought]));
        let completion = if beside { sum([said, thought]) } else { said };
        let reasoning = thought.min(completion);
        let output_audio = completion_details.audio_tokens.count().min(completion - reasoning);
        Usage {
            input: sum([prompt - cache_read - cache_write - input_audio, sources.unwrap_or_default()]),
            cache_read,
            cache_write,
            cache_write_1h: 0,
            input_audio,
            output: completion - reasoning - output_audio,
            reasoning,
            output_audio,
            estimated: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Usage {
        serde_json::from_str::<OpenAiUsage>(text).unwrap().into()
    }

    #[test]
    fn openai_details_become_disjoint_buckets() {
        let u = read(
            r#"{"prompt_tokens":100,"completion_tokens":50,"total_tokens":150,"prompt_tokens_details":{"cached_tokens":60,"audio_tokens":10},"completion_tokens_details":{"reasoning_tokens":20,"audio_tokens":5,"accepted_prediction_tokens":1}}"#,
        );
        assert_eq!((u.input, u.cache_read, u.input_audio, u.output, u.reasoning, u.output_audio), (30, 60, 10, 25, 20, 5));
        assert_eq!((u.prompt(), u.completion(), u.total()), (100, 50, 150));
    }

    #[test]
    fn other_names_for_the_same_thing() {
        assert_eq!(read(r#"{"prompt_tokens":9,"completion_tokens":1,"prompt_cache_hit_tokens":4}"#).cache_read, 4);
        assert_eq!(read(r#"{"prompt_tokens":9,"prompt_tokens_details":{"cache_write_tokens":5}}"#).cache_write, 5);
        let responses = read(r#"{"input_tokens":9,"output_tokens":7,"total_tokens":16,"input_tokens_details":{"cached_tokens":2},"output_tokens_details":{"reasoning_tokens":3}}"#);
        assert_eq!((responses.prompt(), responses.completion(), responses.reasoning), (9, 7, 3));
        let both = read(r#"{"prompt_tokens":9,"input_tokens":9,"completion_tokens":7,"output_tokens":7}"#);
        assert_eq!((both.prompt(), both.completion()), (9, 7));
        // xAI: reasoning beside completion_tokens, inside the total.
        let xai = read(r#"{"prompt_tokens":10,"completion_tokens":5,"total_tokens":35,"completion_tokens_details":{"reasoning_tokens":20}}"#);
        assert_eq!((xai.output, xai.reasoning, xai.total()), (5, 20, 35));
        // SGLang: reasoning inside completion_tokens, as OpenAI has it, but under a flat name.
        let flat = read(r#"{"prompt_tokens":10,"completion_tokens":25,"total_tokens":35,"reasoning_tokens":20}"#);
        assert_eq!((flat.output, flat.reasoning, flat.total()), (5, 20, 35));
        let unread = read(r#"{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15,"citation_tokens":7}"#);
        assert_eq!(unread.total(), 15, "sources are paid for by research alone");
    }

    #[test]
    fn figures_are_taken_as_hosts_write_them_and_nonsense_is_none() {
        let u = read(r#"{"prompt_tokens":10.0,"completion_tokens":"7","total_tokens":17,"prompt_tokens_details":{"cached_tokens":null}}"#);
        assert_eq!((u.prompt(), u.completion()), (10, 7));
        for odd in ["-5", "1e300", "10000000000000000000", "\"many\"", "{}", "[1]", "true", "null"] {
            assert_eq!(read(&format!(r#"{{"prompt_tokens":9,"completion_tokens":{odd}}}"#)).completion(), 0, "{odd}");
        }
    }

    #[test]
    fn absurd_figures_never_underflow() {
        let u = read(
            r#"{"prompt_tokens":1,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":9,"audio_tokens":9,"cache_write_tokens":9},"completion_tokens_details":{"reasoning_tokens":9,"audio_tokens":9}}"#,
        );
        assert_eq!((u.prompt(), u.completion()), (1, 1));
    }
}
