//! Usage as the Messages API counts it: cache reads and writes beside `input_tokens`, figures of a stream cumulative.

use serde::Deserialize;

use crate::usage::Usage;
use crate::wire::Str;

/// The `usage` object of answers and events. Every field may be absent or `null`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct MessagesUsage {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    cache_creation: Option<CacheCreation>,
    output_tokens_details: Option<Details>,
    iterations: Option<Vec<Iteration>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CacheCreation {
    ephemeral_5m_input_tokens: Option<u64>,
    ephemeral_1h_input_tokens: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Details {
    thinking_tokens: Option<u64>,
}

/// One run of the model inside an answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Iteration {
    r#type: Option<String>,
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
}

impl MessagesUsage {
    /// Writes the figures that are there over those in `into`: a later event knows better than an earlier one.
    pub fn apply(&self, into: &mut Usage) {
        // A compaction of the context is billed, but stands outside the figures of the answer.
        let extra =
            |figure: fn(&Iteration) -> Option<u64>| -> u64 { self.iterations.iter().flatten().filter(|i| i.r#type.as_deref() == Some("compaction")).filter_map(figure).fold(0, u64::saturating_add) };
        if let Some(input) = self.input_tokens {
            into.input = input.saturating_add(extra(|i| i.input_tokens));
        }
        if let Some(read) = self.cache_read_input_tokens {
            into.cache_read = read.saturating_add(extra(|i| i.cache_read_input_tokens));
        }
        let (short, long) = self.cache_creation.as_ref().map_or((None, None), |c| (c.ephemeral_5m_input_tokens, c.ephemeral_1h_input_tokens));
        if let Some(long) = long {
            into.cache_write_1h = long;
        }
        match (self.cache_creation_input_tokens, short) {
            (Some(written), _) => {
                // The last event of a stream tells only the sum; the split is known from the first.
                into.cache_write_1h = into.cache_write_1h.min(written);
                into.cache_write = (written - into.cache_write_1h).saturating_add(extra(|i| i.cache_creation_input_tokens));
            }
            (None, Some(short)) => into.cache_write = short,
            (None, None) => {}
        }
        if let Some(output) = self.output_tokens {
            let thought = self.output_tokens_details.as_ref().and_then(|d| d.thinking_tokens);
            into.reasoning = thought.unwrap_or(into.reasoning).min(output);
            into.output = (output - into.reasoning).saturating_add(extra(|i| i.output_tokens));
        }
    }
}

/// Reads the usage out of an event of a Messages stream, or out of a whole answer, that is passed on byte for byte.
/// Says whether there was any.
pub fn tap_usage(event_json: &str, into: &mut Usage) -> bool {
    #[derive(Deserialize)]
    struct Event<'a> {
        #[serde(borrow)]
        r#type: Option<Str<'a>>,
        message: Option<Message>,
        usage: Option<MessagesUsage>,
    }
    #[derive(Deserialize)]
    struct Message {
        usage: Option<MessagesUsage>,
    }
    let Ok(event) = serde_json::from_str::<Event<'_>>(event_json) else { return false };
    let usage = match event.r#type.as_deref() {
        Some("message_start") => event.message.and_then(|m| m.usage),
        Some("message_delta" | "message") => event.usage,
        _ => None,
    };
    usage.inspect(|u| u.apply(into)).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_tapped_into_disjoint_buckets() {
        let mut usage = Usage::default();
        assert!(tap_usage(
            r#"{"type":"message_start","message":{"id":"msg_1","usage":{"input_tokens":10,"cache_creation_input_tokens":300,"cache_read_input_tokens":50,"cache_creation":{"ephemeral_5m_input_tokens":100,"ephemeral_1h_input_tokens":200},"output_tokens":1}}}"#,
            &mut usage
        ));
        assert_eq!((usage.input, usage.cache_read, usage.cache_write, usage.cache_write_1h, usage.output), (10, 50, 100, 200, 1));
        assert!(tap_usage(
            r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"input_tokens":12,"cache_creation_input_tokens":300,"cache_read_input_tokens":50,"output_tokens":40,"output_tokens_details":{"thinking_tokens":15}}}"#,
            &mut usage
        ));
        assert_eq!((usage.input, usage.cache_write, usage.cache_write_1h, usage.output, usage.reasoning), (12, 100, 200, 25, 15));
        assert_eq!((usage.prompt(), usage.completion()), (362, 40));
        assert!(!tap_usage(r#"{"type":"ping"}"#, &mut usage));
        assert!(!tap_usage("no json", &mut usage));
    }

    #[test]
    fn a_compaction_is_billed_on_top() {
        let mut usage = Usage::default();
        assert!(tap_usage(
            r#"{"type":"message","usage":{"input_tokens":45,"output_tokens":12,"cache_read_input_tokens":null,"iterations":[{"type":"compaction","input_tokens":1000,"output_tokens":30},{"type":"message","input_tokens":45,"output_tokens":12}]}}"#,
            &mut usage
        ));
        assert_eq!((usage.input, usage.output), (1045, 42));
    }
}
