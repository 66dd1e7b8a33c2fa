//! Fields of a request that ask for what has another price than the table's: a tier that is faster, cheaper, in one country, or
//! what another model makes. And what an answer says of the tier that it was served in.

use serde::Deserialize;

use crate::envelope::Envelope;
use crate::wire::Str;
use crate::{Dialect, Operation, detour};

/// Words for the tier that has the table's price, whoever the host.
const STANDARD: &[&str] = &["auto", "default", "standard", "standard_only", "unspecified"];
/// Words of answers for it: `auto` says nothing there.
const SERVED: &[&str] = &["default", "standard", "on_demand"];
/// Where inference at the table's price takes place.
const ANYWHERE: &[&str] = &["global", "not_available"];

/// Those text fields that say something else than these words.
fn others(body: &Envelope, fields: &[(&'static str, &[&[&str]])]) -> Vec<&'static str> {
    let odd = |name: &str, usual: &[&[&str]]| {
        body.get(name).filter(|raw| *raw != "null").is_some_and(|raw| {
            let word = serde_json::from_str::<Str<'_>>(raw).map(|text| text.to_ascii_lowercase()).unwrap_or_default();
            !usual.iter().any(|words| words.contains(&word.trim_start_matches("service_tier_")))
        })
    };
    fields.iter().filter(|(name, usual)| odd(name, usual)).map(|(name, _)| *name).collect()
}

/// A host of OpenAI's dialect; `also` has further words of its own at the table's price.
#[must_use]
pub fn of_openai(operation: Operation, body: &Envelope, also: &[&str]) -> Vec<&'static str> {
    let usual = &[STANDARD, also];
    match operation {
        Operation::Chat(Dialect::Generate) => of_gemini(operation, body),
        Operation::Chat(Dialect::Messages) => others(body, &[("service_tier", usual)]),
        Operation::Chat(dialect) => {
            let mut found = others(body, &[("service_tier", usual), ("speed", &[STANDARD])]);
            if dialect == Dialect::Responses && draws(body) {
                found.push("tools");
            }
            found
        }
        _ => Vec::new(),
    }
}

/// Whether pictures may be made, which is another model's work and not in the usage.
fn draws(body: &Envelope) -> bool {
    body.get("tools").is_some_and(|raw| raw.contains("image_generation") && detour::tools(raw).any(|tool| tool.is(|kind| kind == "image_generation")))
}

/// Claude, in its own words: translated requests have no tiers there.
#[must_use]
pub fn of_anthropic(operation: Operation, body: &Envelope) -> Vec<&'static str> {
    let fields: &[(&str, &[&[&str]])] = &[("speed", &[STANDARD]), ("inference_geo", &[ANYWHERE]), ("service_tier", &[STANDARD])];
    if operation == Operation::Chat(Dialect::Messages) { others(body, fields) } else { Vec::new() }
}

/// Gemini, in its own words: translated requests have no tiers there.
#[must_use]
pub fn of_gemini(operation: Operation, body: &Envelope) -> Vec<&'static str> {
    let fields: &[(&str, &[&[&str]])] = &[("serviceTier", &[STANDARD]), ("service_tier", &[STANDARD])];
    if operation == Operation::Chat(Dialect::Generate) { others(body, fields) } else { Vec::new() }
}

/// Bedrock, which is told of tiers from every dialect, and of its own fields in OpenAI's.
#[must_use]
pub fn of_bedrock(operation: Operation, body: &Envelope) -> Vec<&'static str> {
    #[derive(Deserialize)]
    struct Performance<'a> {
        #[serde(borrow)]
        latency: Option<Str<'a>>,
    }
    let mut found = of_openai(operation, body, &[]);
    for name in ["performanceConfig", "performance_config"] {
        let raw = body.get(name).filter(|raw| *raw != "null" && operation == Operation::Chat(Dialect::Chat));
        if raw.is_some_and(|raw| serde_json::from_str::<Performance<'_>>(raw).map_or(true, |p| p.latency.is_some_and(|latency| &*latency != "standard"))) {
            found.push(name);
        }
    }
    found
}

/// What an answer, or an event of one, tells of how it was served.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Told<'a> {
    #[serde(borrow)]
    service_tier: Option<Str<'a>>,
    #[serde(borrow)]
    speed: Option<Str<'a>>,
    #[serde(borrow)]
    inference_geo: Option<Str<'a>>,
}

/// Where the dialects tell it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Answer<'a> {
    #[serde(borrow)]
    service_tier: Option<Str<'a>>,
    #[serde(borrow)]
    usage: Option<Told<'a>>,
    /// Of an event of the Responses API.
    #[serde(borrow)]
    response: Option<Box<Answer<'a>>>,
    /// Of the first event of a stream of Anthropic's.
    #[serde(borrow)]
    message: Option<Box<Answer<'a>>>,
}

/// Whether an answer, or one event of it, in a client's dialect says that it was served at the table's price although `asked`,
/// fields of the request, wanted another. `None` if it does not speak of all of them.
#[must_use]
pub fn served(dialect: Dialect, asked: &[&str], answer: &str) -> Option<bool> {
    let answer: Answer<'_> = serde_json::from_str(answer).ok()?;
    let usual = |word: &Str<'_>, words: &[&str]| words.contains(&word.to_ascii_lowercase().as_str());
    if dialect == Dialect::Messages {
        let told = answer.message.and_then(|m| m.usage).or(answer.usage)?;
        let all = [("speed", &told.speed, SERVED), ("inference_geo", &told.inference_geo, ANYWHERE), ("service_tier", &told.service_tier, SERVED)];
        let speaks = asked.iter().all(|asked| all.iter().any(|(name, word, _)| name == asked && word.is_some()));
        return speaks.then(|| all.iter().all(|(_, word, words)| word.as_ref().is_none_or(|word| usual(word, words))));
    }
    let tier = answer.response.map_or(answer.service_tier, |r| r.service_tier)?;
    (asked == ["service_tier"]).then(|| usual(&tier, SERVED))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAT: Operation = Operation::Chat(Dialect::Chat);
    const MESSAGES: Operation = Operation::Chat(Dialect::Messages);
    const GENERATE: Operation = Operation::Chat(Dialect::Generate);

    fn body(text: &str) -> Envelope {
        Envelope::read(bytes::Bytes::copy_from_slice(text.as_bytes())).unwrap()
    }

    #[test]
    fn a_request_asks_for_a_tier_by_a_word_that_is_not_the_usual_one() {
        for (text, field) in [
            ("{}", None),
            (r#"{"service_tier":null}"#, None),
            (r#"{"service_tier":"auto"}"#, None),
            (r#"{"service_tier":"Default"}"#, None),
            (r#"{"service_tier":"priority"}"#, Some("service_tier")),
            (r#"{"service_tier":"flex"}"#, Some("service_tier")),
            (r#"{"service_tier":7}"#, Some("service_tier")),
            (r#"{"speed":"fast"}"#, Some("speed")),
        ] {
            assert_eq!(of_openai(CHAT, &body(text), &[]).first().copied(), field, "{text}");
        }
        assert_eq!(of_openai(CHAT, &body(r#"{"service_tier":"on_demand"}"#), &["on_demand"]), [""; 0]);
        let draws = body(r#"{"tools":[{"type":"function","name":"image_generation"},{"type":"image_generation"}]}"#);
        assert_eq!(of_openai(Operation::Chat(Dialect::Responses), &draws, &[]), ["tools"]);
        assert_eq!(of_openai(Operation::Chat(Dialect::Responses), &body(r#"{"tools":[{"type":"function","name":"image_generation"}]}"#), &[]), [""; 0]);
        // How fast speech is spoken costs nothing.
        assert_eq!(of_openai(Operation::Speech, &body(r#"{"speed":1.5}"#), &[]), [""; 0]);
        assert_eq!(of_openai(GENERATE, &body(r#"{"serviceTier":"SERVICE_TIER_FLEX"}"#), &[]), ["serviceTier"]);
        assert_eq!(of_anthropic(MESSAGES, &body(r#"{"inference_geo":"us","speed":"fast"}"#)), ["speed", "inference_geo"]);
        assert_eq!(of_anthropic(MESSAGES, &body(r#"{"inference_geo":"global","speed":"standard","service_tier":"standard_only"}"#)), [""; 0]);
        assert_eq!(of_anthropic(CHAT, &body(r#"{"service_tier":"priority"}"#)), [""; 0]);
        assert_eq!(of_gemini(GENERATE, &body(r#"{"service_tier":"standard"}"#)), [""; 0]);
        assert_eq!(of_bedrock(CHAT, &body(r#"{"performanceConfig":{"latency":"optimized"}}"#)), ["performanceConfig"]);
        assert_eq!(of_bedrock(CHAT, &body(r#"{"performanceConfig":{"latency":"standard"}}"#)), [""; 0]);
    }

    #[test]
    fn an_answer_tells_its_tier_where_its_dialect_does_and_nowhere_else() {
        let tier = |dialect, text: &str| served(dialect, &["service_tier"], text);
        assert_eq!(tier(Dialect::Chat, r#"{"service_tier":"default","choices":[]}"#), Some(true));
        assert_eq!(tier(Dialect::Chat, r#"{"service_tier":"priority","metadata":{"service_tier":"default"}}"#), Some(false));
        assert_eq!(tier(Dialect::Chat, r#"{"metadata":{"service_tier":"default"}}"#), None);
        assert_eq!(tier(Dialect::Responses, r#"{"type":"response.completed","response":{"service_tier":"flex","metadata":{"service_tier":"default"}}}"#), Some(false));
        assert_eq!(tier(Dialect::Responses, r#"{"type":"x","service_tier":"default","response":{}}"#), None);
        assert_eq!(served(Dialect::Messages, &["speed"], r#"{"type":"message_start","message":{"usage":{"speed":"standard","service_tier":"standard"}}}"#), Some(true));
        assert_eq!(served(Dialect::Messages, &["speed"], r#"{"usage":{"speed":"standard","inference_geo":"us"}}"#), Some(false));
        assert_eq!(served(Dialect::Messages, &["speed"], r#"{"usage":{"service_tier":"standard"}}"#), None);
        assert_eq!(served(Dialect::Messages, &["speed", "inference_geo"], r#"{"usage":{"speed":"standard"}}"#), None);
        assert_eq!(tier(Dialect::Chat, "[DONE]"), None);
    }
}
