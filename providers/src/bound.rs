//! How long an answer may be by what its request says: the bound in the words of the door's dialect, as the provider will read
//! it, and how many answers are made.

use crate::envelope::Envelope;
use crate::parts::{self, Part, unquoted};
use crate::{Dialect, Error};

/// An absurd bound is none that anybody holds to.
const ABSURD: u64 = 10_000_000;

/// Names by which some hosts of OpenAI's dialect take another bound beside the dialect's own, or in its place: `llama_cpp`, TGI and
/// models behind them. They can only make an answer longer: another host passes over them.
const BESIDE: &[&str] = &["max_completion_tokens", "n_predict", "num_predict", "max_new_tokens", "max_output_tokens", "max_tokens_to_sample", "max_gen_len", "max_length"];
/// Objects in which others take such bounds, and by which names: Ollama, TGI, Bedrock.
const INSIDE: &[(&str, &[&str])] = &[
    ("options", &["num_predict"]),
    ("parameters", &["max_new_tokens"]),
    ("additionalModelRequestFields", &["max_tokens", "max_new_tokens", "max_gen_len", "maxTokens"]),
    ("additional_model_request_fields", &["max_tokens", "max_new_tokens", "max_gen_len", "maxTokens"]),
];
/// Names of the number of answers: OpenAI's, those of which the best is given, and `llama_cpp`'s.
const ANSWERS: &[&str] = &["n", "best_of", "n_cmpl"];

/// What a chat says of how long its answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// Most tokens of one answer; `None` where nothing in the request bounds it.
    pub each: Option<u64>,
    /// Tokens that count for each answer whatever the bound is: a prediction that is not met.
    pub beside: u64,
    /// How many answers are made.
    pub answers: u64,
    /// Whether the answer may be spoken.
    pub spoken: bool,
}

impl Bound {
    /// The bound that a chat sets.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the number of answers cannot be read.
    pub fn of(dialect: Dialect, request: &Envelope) -> Result<Self, Error> {
        let field = |name: &str| request.get(name);
        let mut bound = Bound { each: None, beside: 0, answers: 1, spoken: false };
        match dialect {
            Dialect::Messages => bound.each = longest([field("max_tokens")]),
            Dialect::Responses => {
                // What it does not know itself, a host of chats is sent along with the rest.
                bound.each = compatible(request, &["max_output_tokens"]);
                bound.answers = answers("best_of", field("best_of"))?.max(answers("n_cmpl", field("n_cmpl"))?);
            }
            Dialect::Generate => return generate(request),
            Dialect::Chat | Dialect::Completions => {
                let own: &[&str] = if dialect == Dialect::Chat { &["max_completion_tokens", "max_tokens"] } else { &["max_tokens"] };
                bound.each = compatible(request, own);
                for name in ANSWERS {
                    bound.answers = bound.answers.max(answers(name, field(name))?);
                }
            }
        }
        match dialect {
            // Each prompt has answers of its own.
            Dialect::Completions => {
                let prompts = ["prompt", "prompt_embeds"].iter().filter_map(|name| field(name)).map(parts::many).fold(0, u64::saturating_add);
                bound.answers = bound.answers.saturating_mul(prompts.max(1));
            }
            Dialect::Chat => {
                bound.beside = field("prediction").filter(|raw| *raw != "null").map_or(0, |raw| raw.len() as u64);
                bound.spoken = field("audio").is_some_and(|raw| raw != "null") || field("modalities").is_some_and(|raw| raw.contains("\"audio\"") || raw.contains('\\'));
            }
            _ => {}
        }
        Ok(bound)
    }

    /// Most tokens of all answers together, of a model whose longest answer is so long, which may think beyond the bound for so
    /// many tokens, or for as many as it likes.
    #[must_use]
    pub fn at_most(&self, longest: u64, thought: Option<u64>) -> u64 {
        let one = self.each.map_or(longest, |each| each.saturating_add(thought.unwrap_or(longest)));
        one.saturating_add(self.beside).saturating_mul(self.answers)
    }
}

/// Gemini's, whose servers take camel case and snake case. What the model thinks is within the bound.
fn generate(request: &Envelope) -> Result<Bound, Error> {
    let configs: Vec<Part<'_>> = ["generationConfig", "generation_config"].iter().filter_map(|name| request.get(name)).map(Part::read).collect();
    let all = |names: [&'static str; 2]| configs.iter().flat_map(move |config| names.map(|name| (name, config.get(name))));
    let mut bound = Bound { each: longest(all(["maxOutputTokens", "max_output_tokens"]).map(|(_, raw)| raw)), beside: 0, answers: 1, spoken: false };
    for (name, raw) in all(["candidateCount", "candidate_count"]) {
        bound.answers = bound.answers.max(answers(&format!("generationConfig.{name}"), raw)?);
    }
    // By name or by number: whatever is not surely something else may be sound.
    let silent = |modality: &str| matches!(unquoted(modality), Some(name) if name.eq_ignore_ascii_case("text") || name.eq_ignore_ascii_case("image"));
    let modalities = all(["responseModalities", "response_modalities"]).filter_map(|(_, raw)| raw);
    bound.spoken = modalities.flat_map(|raw| raw.trim_matches(['[', ']']).split(',')).any(|one| !one.trim().is_empty() && !silent(one.trim()));
    Ok(bound)
}

/// The bound of a body that may pass to any host of OpenAI's dialect.
fn compatible(request: &Envelope, own: &[&str]) -> Option<u64> {
    // Where two bounds are given, the larger one may be the one that the host reads.
    let one = longest(own.iter().map(|name| request.get(name)))?;
    let beside = BESIDE.iter().map(|name| request.get(name));
    let objects = INSIDE.iter().filter_map(|(object, names)| Some((Part::read(request.get(object)?), *names)));
    let inside = objects.flat_map(|(object, names)| names.iter().map(move |name| object.get(name)).collect::<Vec<_>>());
    longest(beside.chain(inside).chain([Some(one.to_string().as_str())]))
}

/// The largest of the bounds that are given. One that is no positive number is read as none by those who read it at all.
fn longest<'a>(bounds: impl IntoIterator<Item = Option<&'a str>>) -> Option<u64> {
    let mut most = None;
    for raw in bounds.into_iter().flatten().filter(|raw| *raw != "null") {
        let bound = whole(raw).and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0)?;
        most = most.max(Some(bound.min(ABSURD)));
    }
    most
}

fn answers(name: &str, raw: Option<&str>) -> Result<u64, Error> {
    let Some(raw) = raw.filter(|raw| *raw != "null") else { return Ok(1) };
    let n = whole(raw).ok_or_else(|| Error::invalid(name, format!("`{name}` must be a whole number")))?;
    Ok(u64::try_from(n).unwrap_or(1).max(1))
}

/// A whole number as any reader may take it: with a fraction of nought or an exponent, or as text.
pub(crate) fn whole(raw: &str) -> Option<i64> {
    let text = unquoted(raw).unwrap_or(raw).trim();
    text.parse().ok().or_else(|| {
        let number: f64 = text.parse().ok().filter(|n: &f64| n.is_finite() && n.fract() == 0.0)?;
        // What is too large stays too large.
        Some(number as i64)
    })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn bound(dialect: Dialect, body: &str) -> Bound {
        Bound::of(dialect, &Envelope::read(Bytes::copy_from_slice(body.as_bytes())).unwrap()).unwrap()
    }

    #[test]
    fn each_dialect_has_its_own_words() {
        for (dialect, body, each, answers) in [
            (Dialect::Chat, r#"{"max_tokens":10,"max_completion_tokens":20,"n":3}"#, Some(20), 3),
            (Dialect::Chat, r#"{"max_tokens":null,"n":null}"#, None, 1),
            (Dialect::Chat, r#"{"max_tokens":10.0,"n":2e0}"#, Some(10), 2),
            (Dialect::Chat, r#"{"max_tokens":"10","n":"2"}"#, Some(10), 2),
            (Dialect::Chat, r#"{"max_tokens":10,"max_completion_tokens":1.5}"#, None, 1),
            (Dialect::Chat, r#"{"max_tokens":0}"#, None, 1),
            (Dialect::Chat, r#"{"max_tokens":99999999999999999999}"#, Some(ABSURD), 1),
            (Dialect::Chat, r#"{"max_output_tokens":1,"n_predict":1,"generationConfig":{"maxOutputTokens":1}}"#, None, 1),
            (Dialect::Chat, r#"{"max_tokens":10,"n_predict":100}"#, Some(100), 1),
            (Dialect::Chat, r#"{"max_tokens":10,"n_predict":5}"#, Some(10), 1),
            (Dialect::Chat, r#"{"max_tokens":10,"options":{"num_predict":-2}}"#, None, 1),
            (Dialect::Chat, r#"{"max_tokens":10,"additionalModelRequestFields":{"max_gen_len":30}}"#, Some(30), 1),
            (Dialect::Completions, r#"{"max_tokens":10,"prompt":"a","n":2,"best_of":4}"#, Some(10), 4),
            (Dialect::Completions, r#"{"max_tokens":10,"prompt":["a","b"],"n":3}"#, Some(10), 6),
            (Dialect::Completions, r#"{"max_tokens":10,"prompt":[[1,2],[3]],"n":3}"#, Some(10), 6),
            (Dialect::Completions, r#"{"max_completion_tokens":10,"prompt":[1,2]}"#, None, 1),
            (Dialect::Completions, r#"{"max_tokens":10,"max_completion_tokens":20,"prompt":[1,2]}"#, Some(20), 1),
            (Dialect::Responses, r#"{"max_output_tokens":10,"max_tokens":1,"n":9}"#, Some(10), 1),
            (Dialect::Responses, r#"{"max_tokens":1}"#, None, 1),
            (Dialect::Responses, r#"{"max_output_tokens":10,"n_predict":50,"n_cmpl":3}"#, Some(50), 3),
            (Dialect::Messages, r#"{"max_tokens":10,"max_output_tokens":1}"#, Some(10), 1),
            (Dialect::Generate, r#"{"max_tokens":1,"generationConfig":{"maxOutputTokens":10,"candidateCount":8}}"#, Some(10), 8),
            (Dialect::Generate, r#"{"generation_config":{"max_output_tokens":10,"candidate_count":"2"},"generationConfig":{"maxOutputTokens":"7"}}"#, Some(10), 2),
            (Dialect::Generate, r#"{"max_tokens":1,"maxOutputTokens":1,"generationConfig":null}"#, None, 1),
        ] {
            let bound = bound(dialect, body);
            assert_eq!((bound.each, bound.answers), (each, answers), "{body}");
        }
    }

    #[test]
    fn a_number_of_answers_that_cannot_be_read_is_refused_by_its_name() {
        for (dialect, body, name) in [
            (Dialect::Chat, r#"{"n":"many"}"#, "n"),
            (Dialect::Chat, r#"{"n":1.5}"#, "n"),
            (Dialect::Completions, r#"{"best_of":true}"#, "best_of"),
            (Dialect::Generate, r#"{"generationConfig":{"candidateCount":[]}}"#, "generationConfig.candidateCount"),
        ] {
            let request = Envelope::read(Bytes::copy_from_slice(body.as_bytes())).unwrap();
            assert!(matches!(Bound::of(dialect, &request), Err(Error::Invalid { param: Some(param), .. }) if param == name), "{body}");
        }
    }

    #[test]
    fn speech_predictions_and_thoughts() {
        assert!(bound(Dialect::Chat, r#"{"modalities":["text","audio"]}"#).spoken && bound(Dialect::Chat, r#"{"audio":{"voice":"a"}}"#).spoken);
        for (modalities, spoken) in [(r#"["audio"]"#, true), (r#"["TEXT", "Audio"]"#, true), ("[3]", true), (r#"["TEXT","IMAGE"]"#, false), ("[]", false)] {
            assert_eq!(bound(Dialect::Generate, &format!(r#"{{"generationConfig":{{"responseModalities":{modalities}}}}}"#)).spoken, spoken, "{modalities}");
        }
        assert!(!bound(Dialect::Chat, r#"{"modalities":["text"],"audio":null}"#).spoken);
        let predicted = bound(Dialect::Chat, r#"{"max_tokens":10,"n":2,"prediction":{"type":"content","content":"x"}}"#);
        assert_eq!(predicted.at_most(1000, Some(0)), 2 * (10 + 32));
        let plain = bound(Dialect::Chat, r#"{"max_tokens":10}"#);
        assert_eq!((plain.at_most(1000, Some(0)), plain.at_most(1000, Some(50)), plain.at_most(1000, None)), (10, 60, 1010));
        assert_eq!(bound(Dialect::Chat, r#"{"n":3}"#).at_most(1000, None), 3000);
        assert_eq!(bound(Dialect::Chat, r#"{"n":1e300}"#).at_most(1000, None), u64::MAX);
    }
}
