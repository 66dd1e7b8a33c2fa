//! `usageMetadata` in disjoint buckets. Every event of a stream repeats it as a running total.

use serde::Deserialize;

use crate::usage::{Usage, sum};

/// `usageMetadata` as Gemini and Vertex send it.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct UsageMetadata {
    prompt_token_count: Option<u64>,
    cached_content_token_count: Option<u64>,
    candidates_token_count: Option<u64>,
    thoughts_token_count: Option<u64>,
    tool_use_prompt_token_count: Option<u64>,
    total_token_count: Option<u64>,
    prompt_tokens_details: Option<Vec<Modality>>,
    cache_tokens_details: Option<Vec<Modality>>,
    candidates_tokens_details: Option<Vec<Modality>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Modality {
    modality: String,
    token_count: u64,
}

fn audio(details: Option<&Vec<Modality>>) -> u64 {
    sum(details.into_iter().flatten().filter(|d| d.modality == "AUDIO").map(|d| d.token_count))
}

impl From<&UsageMetadata> for Usage {
    fn from(u: &UsageMetadata) -> Self {
        let told = u.prompt_token_count.unwrap_or_default();
        let tool_use = u.tool_use_prompt_token_count.unwrap_or_default();
        let cache_read = u.cached_content_token_count.unwrap_or_default().min(told);
        // The prompt's details count cached audio too, but the cache has one price for all.
        let input_audio = audio(u.prompt_tokens_details.as_ref()).saturating_sub(audio(u.cache_tokens_details.as_ref())).min(told - cache_read);
        let reasoning = u.thoughts_token_count.unwrap_or_default();
        let said = u.candidates_token_count.unwrap_or_default();
        // Candidates stand beside thoughts; where the total is reached without the thoughts, they are inside.
        let inside = u.total_token_count == Some(told.saturating_add(tool_use).saturating_add(said)) && reasoning > 0;
        let output = if inside { said.saturating_sub(reasoning) } else { said };
        let output_audio = audio(u.candidates_tokens_details.as_ref()).min(output);
        Usage { input: (told - cache_read - input_audio).saturating_add(tool_use), cache_read, input_audio, output: output - output_audio, reasoning, output_audio, ..Usage::default() }
    }
}

/// Reads the `usageMetadata` of an event (or a whole answer) that passes through, and puts it in the place of what was
/// known before. Says whether there was one.
pub fn tap_usage(event_json: &str, into: &mut Usage) -> bool {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Tap {
        usage_metadata: Option<UsageMetadata>,
    }
    if memchr::memmem::find(event_json.as_bytes(), b"\"usageMetadata\"").is_none() {
        return false;
    }
    match serde_json::from_str::<Tap>(event_json) {
        Ok(Tap { usage_metadata: Some(usage) }) => {
            *into = Usage::from(&usage);
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Usage {
        let mut usage = Usage { input: 7777, ..Usage::default() };
        assert!(tap_usage(&format!(r#"{{"candidates":[],"usageMetadata":{text}}}"#), &mut usage));
        usage
    }

    #[test]
    fn buckets_are_disjoint() {
        let u = read(
            r#"{"promptTokenCount":1000,"cachedContentTokenCount":400,"candidatesTokenCount":50,"thoughtsTokenCount":30,"toolUsePromptTokenCount":20,"totalTokenCount":1100,
                "promptTokensDetails":[{"modality":"TEXT","tokenCount":700},{"modality":"AUDIO","tokenCount":300}],"cacheTokensDetails":[{"modality":"AUDIO","tokenCount":100}],
                "candidatesTokensDetails":[{"modality":"AUDIO","tokenCount":10}]}"#,
        );
        assert_eq!((u.input, u.cache_read, u.input_audio, u.output, u.reasoning, u.output_audio), (420, 400, 200, 40, 30, 10));
        assert_eq!(u.total(), 1100);
    }

    #[test]
    fn thoughts_inside_the_candidates_are_not_counted_twice() {
        let u = read(r#"{"promptTokenCount":10,"candidatesTokenCount":50,"thoughtsTokenCount":30,"totalTokenCount":60}"#);
        assert_eq!((u.output, u.reasoning, u.total()), (20, 30, 60));
    }

    #[test]
    fn absurd_figures_never_underflow() {
        let u = read(
            r#"{"promptTokenCount":1,"cachedContentTokenCount":9,"candidatesTokenCount":2,"thoughtsTokenCount":9,"totalTokenCount":3,"promptTokensDetails":[{"modality":"AUDIO","tokenCount":9}]}"#,
        );
        assert_eq!((u.prompt(), u.output), (1, 0));
    }

    #[test]
    fn events_without_usage_leave_what_is_known() {
        let mut usage = Usage { input: 5, ..Usage::default() };
        assert!(!tap_usage(r#"{"candidates":[{"content":{"parts":[{"text":"\"usageMetadata\""}]}}]}"#, &mut usage));
        assert!(!tap_usage("not JSON \"usageMetadata\"", &mut usage));
        assert_eq!(usage.input, 5);
    }
}
