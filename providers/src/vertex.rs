//! Google Cloud's Vertex AI: Gemini's dialect at a project's place, Claude's beside it, and embeddings of its own shape.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::answer::Answer;
use crate::anthropic;
use crate::detour::Detours;
use crate::embed::{Embeddings, Request};
use crate::envelope::{Edit, Envelope};
use crate::gemini::embed::{Content, Task};
use crate::gemini::{self, Host};
use crate::names::Naming;
use crate::usage::Usage;
use crate::wire::{ChatRequest, Str};
use crate::{Auth, Call, Dialect, Error, Operation, Provider, Settings, Target, Transcoder, UpstreamError, path_segment, rate};

const VERTEX: Host = Host { kind: "vertex", labels: true, call_ids: false };

/// Stands in a Claude body where Anthropic has a header.
const CLAUDE_VERSION: &str = "vertex-2023-10-16";

/// Most texts of one `:predict`, and about how many bytes of them: a call may have 250 texts and 20,000 tokens.
const MOST_TEXTS: usize = 250;
const MOST_BYTES: usize = 40_000;

/// One project at one location, or an API key of "express mode", which has neither.
#[derive(Debug)]
pub struct Vertex {
    base_url: String,
    has_key: bool,
}

impl Vertex {
    /// Google's place for the location, `us-central1` unless the settings say otherwise.
    ///
    /// # Errors
    /// When there is neither a project nor an API key.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let location = settings.location.as_deref().unwrap_or("us-central1");
        for (name, value) in [("project", settings.project.as_deref()), ("location", Some(location))] {
            if value.is_some_and(|v| v.is_empty() || !v.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))) {
                return Err(Error::Settings(format!("kind vertex: `{}` cannot be a {name}", value.unwrap_or_default())));
            }
        }
        let host = match (location, &settings.project) {
            (_, None) | ("global", _) => "https://aiplatform.googleapis.com/v1".to_owned(),
            ("us" | "eu", _) => format!("https://aiplatform.{location}.rep.googleapis.com/v1"),
            _ => format!("https://{location}-aiplatform.googleapis.com/v1"),
        };
        let host = settings.base_url_or(&host);
        let base_url = match &settings.project {
            // A place that names its project already is complete.
            Some(project) if !host.contains("/projects/") => format!("{host}/projects/{project}/locations/{location}"),
            None if !settings.has_key && !host.contains("/projects/") => {
                return Err(Error::Settings("kind vertex needs a `project` (and a `location`), or an API key for express mode".into()));
            }
            _ => host,
        };
        Ok(Vertex { base_url, has_key: settings.has_key })
    }
}

/// Whose model it is; each publisher has a dialect.
enum Model<'a> {
    Gemini(&'a str),
    Claude(&'a str),
}

impl<'a> Model<'a> {
    fn of(name: &'a str) -> Result<Self, Error> {
        match name.split_once('/') {
            None if name.starts_with("claude-") => Ok(Model::Claude(name)),
            None => Ok(Model::Gemini(name)),
            Some(("google", name)) => Ok(Model::Gemini(name)),
            Some(("anthropic", name)) => Ok(Model::Claude(name)),
            Some(_) => Err(Error::unsupported(
                VERTEX.kind,
                "model",
                "here it has the models of Google and Anthropic; others speak OpenAI's dialect at `…/endpoints/openapi`: configure that place as kind `openai`",
            )),
        }
    }

    /// A Gemini model, where nothing else will do.
    fn embedding(name: &'a str) -> Result<&'a str, Error> {
        match Model::of(name)? {
            Model::Gemini(name) => Ok(name),
            Model::Claude(_) => Err(Error::unsupported(VERTEX.kind, "model", "Claude has no embeddings")),
        }
    }
}

fn claude(model: &str, stream: bool) -> Result<String, Error> {
    Ok(format!("/publishers/anthropic/models/{}:{}", path_segment(model)?, if stream { "streamRawPredict" } else { "rawPredict" }))
}

fn google(model: &str, verb: &str) -> Result<String, Error> {
    Ok(format!("/publishers/google/models/{}:{verb}", path_segment(model)?))
}

/// Gemini's newer embedding models answer to `embedContent`, one text at a time; the others to `predict`.
fn embeds_content(model: &str) -> bool {
    model.starts_with("gemini-embedding-") && !model.starts_with("gemini-embedding-001")
}

impl Provider for Vertex {
    fn kind(&self) -> &'static str {
        VERTEX.kind
    }

    fn follows_places(&self) -> bool {
        true
    }

    fn base_url(&self) -> &str {
        &self.base_url
    }

    fn auth(&self) -> Auth {
        if self.has_key { Auth::Header("x-goog-api-key") } else { Auth::Google }
    }

    fn path(&self, operation: Operation, target: &Target<'_>, stream: bool) -> Result<Option<String>, Error> {
        let model = match Model::of(target.model)? {
            Model::Gemini(model) => model,
            Model::Claude(model) => {
                return match operation {
                    Operation::Chat(Dialect::Messages) => claude(model, stream).map(Some),
                    // Tokens are counted at one place for all models.
                    Operation::CountMessages => claude("count-tokens", false).map(Some),
                    _ => Ok(None),
                };
            }
        };
        match (operation, gemini::verb(operation, stream)) {
            (Operation::BatchEmbedContents, _) | (_, None) => Ok(None),
            (Operation::EmbedContent, _) if !embeds_content(model) => Ok(None),
            (_, Some(verb)) => google(model, verb).map(Some),
        }
    }

    fn adapt(&self, operation: Operation, edit: &mut Edit<'_>, target: &Target<'_>) -> Result<Vec<String>, Error> {
        let model = match Model::of(target.model)? {
            Model::Gemini(model) => model,
            Model::Claude(model) => {
                let warnings = anthropic::adapt(edit, &Target { model, ..*target })?;
                edit.set_text("anthropic_version", CLAUDE_VERSION);
                if operation != Operation::CountMessages {
                    edit.remove("model");
                }
                return Ok(warnings);
            }
        };
        if operation == Operation::CountGenerate {
            gemini::unwrap_count(edit)?;
            edit.remove("model");
            edit.remove("stream");
        } else {
            gemini::adapt(operation, edit, model)?;
        }
        Ok(Vec::new())
    }

    fn forwards(&self) -> &'static [&'static str] {
        // Not `x-vertex-ai-llm-request-type` and its like: they ask for tiers at other prices.
        &["anthropic-beta"]
    }

    fn detours(&self) -> Detours {
        anthropic::DETOURS
    }

    fn other_rates(&self, operation: Operation, body: &Envelope) -> Vec<&'static str> {
        // One of them has none.
        [rate::of_anthropic(operation, body), rate::of_gemini(operation, body)].concat()
    }

    fn forward<'v>(&self, name: &str, value: &'v str) -> Option<Cow<'v, str>> {
        if name == "anthropic-beta" { known_betas(value) } else { Some(Cow::Borrowed(value)) }
    }

    fn naming(&self, target: &Target<'_>) -> Naming {
        match Model::of(target.model) {
            Ok(Model::Claude(_)) => anthropic::NAMING,
            _ => gemini::NAMING,
        }
    }

    fn chat(&self, request: &ChatRequest<'_>, target: &Target<'_>) -> Result<Call, Error> {
        let stream = request.streams();
        match Model::of(target.model)? {
            Model::Gemini(model) => gemini::chat(request, &Target { model, ..*target }, &VERTEX, google(model, gemini::generate(stream))?),
            Model::Claude(_) if self.has_key => Err(Error::unsupported(VERTEX.kind, "model", "Claude takes no API keys here; give the provider a `project` and Google credentials")),
            Model::Claude(model) => anthropic::write_request(request, &Target { model, ..*target }, &anthropic::Host::VERTEX, &claude(model, stream)?),
        }
    }

    fn answer(&self, body: &[u8], target: &Target<'_>) -> Result<Answer, Error> {
        match Model::of(target.model)? {
            Model::Gemini(_) => gemini::read_answer(body),
            Model::Claude(_) => anthropic::read_answer(body),
        }
    }

    fn transcoder(&self, target: &Target<'_>) -> Box<dyn Transcoder> {
        match Model::of(target.model) {
            Ok(Model::Claude(_)) => Box::new(anthropic::Events::default()),
            _ => gemini::transcoder(),
        }
    }

    fn error(&self, status: u16, body: &[u8]) -> UpstreamError {
        // Of a Claude call, the model's errors are Anthropic's and the place's are Google's; only Anthropic's have a type.
        let typed = serde_json::from_slice::<serde_json::Value>(body).is_ok_and(|b| b["error"]["type"].is_string());
        if typed { anthropic::read_error(status, body) } else { gemini::read_error(status, body) }
    }

    fn retry_after(&self, body: &[u8]) -> Option<Duration> {
        gemini::retry_delay(body)
    }

    fn embed(&self, request: &Request<'_>, target: &Target<'_>) -> Result<Vec<Call>, Error> {
        let model = Model::embedding(target.model)?;
        if embeds_content(model) { embed_content(request, model) } else { predict(request, model) }
    }

    fn embeddings(&self, bodies: &[Bytes], target: &Target<'_>) -> Result<Embeddings, Error> {
        if embeds_content(Model::embedding(target.model)?) { gemini::embed::read(bodies) } else { predictions(bodies) }
    }
}

fn embed_content(request: &Request<'_>, model: &str) -> Result<Vec<Call>, Error> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Body<'a> {
        content: Content<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        output_dimensionality: Option<u32>,
    }
    let (task, path) = (Task::of(request, model)?, google(model, "embedContent")?);
    let body = |text| Body { content: Content::of(task.text(text)), output_dimensionality: request.dimensions };
    Ok(request.texts(VERTEX.kind)?.iter().map(|text| Call::json(&*path, &body(text))).collect())
}

fn predict(request: &Request<'_>, model: &str) -> Result<Vec<Call>, Error> {
    #[derive(Serialize)]
    struct Body<'a> {
        instances: Vec<Instance<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        parameters: Option<Parameters>,
    }
    #[derive(Serialize)]
    struct Instance<'a> {
        content: Cow<'a, str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        task_type: Option<&'static str>,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Parameters {
        output_dimensionality: u32,
    }
    let (task, path) = (Task::of(request, model)?, google(model, "predict")?);
    // `gemini-embedding-001` takes one text at a time.
    let most = if model.starts_with("gemini-embedding") { 1 } else { MOST_TEXTS };
    let calls = batches(request.texts(VERTEX.kind)?, most).map(|texts| {
        let instances = texts.iter().map(|text| Instance { content: task.text(text), task_type: task.kind() }).collect();
        Call::json(&*path, &Body { instances, parameters: request.dimensions.map(|output_dimensionality| Parameters { output_dimensionality }) })
    });
    Ok(calls.collect())
}

/// Cuts a list into stretches of at most `most` texts and about [`MOST_BYTES`].
fn batches<'t, 'a>(mut texts: &'t [Str<'a>], most: usize) -> impl Iterator<Item = &'t [Str<'a>]> {
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fit = texts.iter().take(most).take_while(|text| {
            bytes += text.len();
            bytes <= MOST_BYTES
        });
        let (batch, rest) = texts.split_at(fit.count().max(1).min(texts.len()));
        texts = rest;
        (!batch.is_empty()).then_some(batch)
    })
}

fn predictions(bodies: &[Bytes]) -> Result<Embeddings, Error> {
    #[derive(Deserialize)]
    struct Answer {
        predictions: Vec<Prediction>,
    }
    #[derive(Deserialize)]
    struct Prediction {
        embeddings: Vector,
    }
    #[derive(Deserialize)]
    struct Vector {
        values: Vec<f32>,
        statistics: Option<Statistics>,
    }
    #[derive(Deserialize)]
    struct Statistics {
        // Vertex counts tokens in floats.
        token_count: Option<f64>,
    }
    let mut out = Embeddings::default();
    for body in bodies {
        let answer: Answer = serde_json::from_slice(body).map_err(Error::answer)?;
        for prediction in answer.predictions {
            if let Some(tokens) = prediction.embeddings.statistics.and_then(|s| s.token_count) {
                out.usage.get_or_insert_default().add(&Usage { input: tokens as u64, ..Usage::default() });
            }
            out.vectors.push(prediction.embeddings.values);
        }
    }
    Ok(out)
}

/// Betas that Vertex refuses a request for, without their dates: those of Anthropic's own platform, and those that are no betas
/// there. What is not known passes: a new one may well be known to Vertex.
const REFUSED_BETAS: &[&str] = &[
    "advisor-tool",
    "bash_",
    "claude-code",
    "code-execution",
    "effort",
    "fast-mode",
    "files-api",
    "fine-grained-tool-streaming",
    "mcp-client",
    "mcp-servers",
    "oauth",
    "output-128k",
    "prompt-caching-scope",
    "skills",
    "structured-output",
    "text_editor",
    "token-efficient-tools",
    "web-fetch",
];

/// The betas of a client that Vertex takes. One has another name there.
fn known_betas(value: &str) -> Option<Cow<'_, str>> {
    let betas = || value.split(',').map(str::trim).filter(|beta| !beta.is_empty());
    let changes = |beta: &str| beta.starts_with("advanced-tool-use") || REFUSED_BETAS.iter().any(|refused| beta.starts_with(refused));
    if !betas().any(changes) {
        return Some(Cow::Borrowed(value));
    }
    let renamed = betas().filter_map(|beta| match beta {
        beta if beta.starts_with("advanced-tool-use") => Some("tool-search-tool-2025-10-19"),
        beta => (!changes(beta)).then_some(beta),
    });
    let left: Vec<&str> = renamed.collect();
    (!left.is_empty()).then(|| left.join(",").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(project: Option<&str>, location: Option<&str>, base_url: Option<&str>, has_key: bool) -> Result<String, Error> {
        let text = |t: Option<&str>| t.map(str::to_owned);
        let settings = Settings { kind: "vertex".into(), project: text(project), location: text(location), base_url: text(base_url), has_key, ..Settings::default() };
        Vertex::new(&settings).map(|v| v.base_url)
    }

    #[test]
    fn every_location_has_its_host() {
        assert_eq!(base(Some("p"), None, None, false).unwrap(), "https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/us-central1");
        assert_eq!(base(Some("p"), Some("global"), None, false).unwrap(), "https://aiplatform.googleapis.com/v1/projects/p/locations/global");
        assert_eq!(base(Some("p"), Some("eu"), None, false).unwrap(), "https://aiplatform.eu.rep.googleapis.com/v1/projects/p/locations/eu");
        assert_eq!(base(None, None, None, true).unwrap(), "https://aiplatform.googleapis.com/v1");
        assert_eq!(base(Some("p"), Some("l"), Some("http://127.0.0.1:1/v1/"), false).unwrap(), "http://127.0.0.1:1/v1/projects/p/locations/l");
        assert_eq!(base(None, None, Some("http://h/v1/projects/p/locations/l"), false).unwrap(), "http://h/v1/projects/p/locations/l");
        assert!(base(None, Some("global"), None, false).is_err());
        assert!(base(Some("p/../q"), None, None, false).is_err());
    }

    #[test]
    fn claude_bodies_pass_with_their_version_and_without_a_model() {
        let vertex = Vertex::new(&Settings { project: Some("p".into()), ..Settings::default() }).unwrap();
        let target = Target { model: "claude-sonnet-4-5@20250929", info: None };
        let passed = |operation, body: &'static str| {
            let envelope = crate::envelope::Envelope::read(Bytes::from_static(body.as_bytes())).unwrap();
            let mut edit = envelope.edit();
            vertex.adapt(operation, &mut edit, &target).unwrap();
            String::from_utf8(edit.finish().into_bytes().to_vec()).unwrap()
        };
        let messages = Operation::Chat(Dialect::Messages);
        assert_eq!(vertex.path(messages, &target, true).unwrap().unwrap(), "/publishers/anthropic/models/claude-sonnet-4-5%4020250929:streamRawPredict");
        assert_eq!(passed(messages, r#"{"model":"fast","max_tokens":5,"messages":[]}"#), r#"{"max_tokens":5,"messages":[],"anthropic_version":"vertex-2023-10-16"}"#);
        assert_eq!(vertex.path(Operation::CountMessages, &target, false).unwrap().unwrap(), "/publishers/anthropic/models/count-tokens:rawPredict");
        assert!(passed(Operation::CountMessages, r#"{"model":"fast","messages":[]}"#).contains(r#""model":"claude-sonnet-4-5@20250929""#));
        assert_eq!(vertex.path(Operation::Chat(Dialect::Generate), &target, false).unwrap(), None);
    }

    #[test]
    fn batches_hold_every_text_once() {
        let texts: Vec<Str<'_>> = [10, 30_000, 20_000, 90_000, 1].iter().map(|n| Str::from("x".repeat(*n))).collect();
        let sizes: Vec<usize> = batches(&texts, 250).map(<[_]>::len).collect();
        assert_eq!(sizes, [2, 1, 1, 1]);
        assert_eq!(batches(&texts, 1).count(), 5);
        assert_eq!(batches(&[], 1).count(), 0);
    }

    #[test]
    fn betas_that_vertex_refuses_stay_here() {
        assert_eq!(known_betas("context-1m-2025-08-07, interleaved-thinking-2025-05-14").as_deref(), Some("context-1m-2025-08-07, interleaved-thinking-2025-05-14"));
        assert_eq!(known_betas("claude-code-20250219,context-1m-2025-08-07,files-api-2025-04-14,advanced-tool-use-2025-11-20").as_deref(), Some("context-1m-2025-08-07,tool-search-tool-2025-10-19"));
        assert_eq!(known_betas("effort-2025-11-24, structured-outputs-2025-11-13"), None);
    }
}
