//! Answers in one piece: what a passed one used, and the translation of embeddings and reranking, which have no streams.

use std::sync::LazyLock;

use bytes::Bytes;
use memchr::memmem::Finder;
use providers::answer::{Answer, Finish};
use providers::outline::outline;
use providers::usage::{OpenAiUsage, Usage};
use providers::{Call, Dialect, Error, Operation, Provider, Target, embed, rerank};

use crate::exchange::Asked;
use crate::fault::Fault;
use crate::stream::Seen;

static FINISH: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(b"\"finish_reason\""));

/// What there is to know of an answer read into the hub.
#[must_use]
pub fn seen(answer: &Answer) -> Seen {
    let text =
        answer.choices.iter().map(|c| c.text.as_deref().map_or(0, str::len) + c.reasoning.as_deref().map_or(0, str::len) + c.calls.iter().map(|k| k.arguments.len()).sum::<usize>()).sum::<usize>();
    Seen { content: true, usage: answer.usage, finish: answer.choices.first().map(providers::answer::Choice::reason), text: text as u64, counted: text as u64, done: true }
}

/// What there is to know of an answer that passes as it came.
///
/// # Errors
/// When it is not JSON, or says an error although its status was good.
pub fn tap(operation: Operation, body: &[u8]) -> Result<Seen, Error> {
    let mut seen = Seen { content: true, done: true, ..Seen::default() };
    match operation {
        Operation::Chat(Dialect::Messages) | Operation::CountMessages => {
            let text = object(body)?;
            if text.contains("\"type\":\"error\"") && providers::anthropic::read_answer(body).is_err() {
                return Err(providers::openai::read_error(200, body).into());
            }
            let mut usage = Usage::default();
            seen.usage = providers::anthropic::tap_usage(text, &mut usage).then_some(usage);
            seen.finish = Some(Finish::Stop);
        }
        Operation::Chat(Dialect::Generate) | Operation::CountGenerate | Operation::EmbedContent | Operation::BatchEmbedContents => {
            let text = object(body)?;
            let mut usage = Usage::default();
            seen.usage = providers::gemini::tap_usage(text, &mut usage).then_some(usage);
            seen.finish = Some(Finish::Stop);
        }
        _ => {
            let [usage, error, choices] = outline(body, ["usage", "error", "choices"])?;
            let [usage, error, choices] = [usage, error, choices].map(|value| value.filter(|raw| *raw != "null"));
            let chat = matches!(operation, Operation::Chat(Dialect::Chat | Dialect::Completions));
            if error.is_some() || chat && choices.is_none() {
                return Err(providers::openai::read_error(200, body).into());
            }
            if chat && !choices.is_some_and(|c| c.starts_with('[')) {
                return Err(Error::answer("its `choices` are not a list"));
            }
            // What is no usage by its shape is none; the answer is as good.
            seen.usage = usage.and_then(|raw| serde_json::from_str::<OpenAiUsage>(raw).ok()).map(Usage::from);
            seen.finish = choices.and_then(first_finish);
        }
    }
    Ok(seen)
}

/// Why the first choice that says so has ended. Inside a string the field's quotes would be escaped, so what is found is a key.
fn first_finish(choices: &str) -> Option<Finish> {
    FINISH.find_iter(choices.as_bytes()).find_map(|at| {
        let rest = choices[at + FINISH.needle().len()..].trim_ascii_start().strip_prefix(':')?.trim_ascii_start().strip_prefix('"')?;
        let (reason, _) = rest.split_once('"')?;
        (!reason.is_empty()).then(|| Finish::from_openai(reason))
    })
}

fn object(body: &[u8]) -> Result<&str, Error> {
    let text = std::str::from_utf8(body).map_err(Error::answer)?;
    if text.trim_start().starts_with('{') { Ok(text) } else { Err(Error::answer("it is not a JSON object")) }
}

/// How many tokens a request has, where the provider does not count: about four bytes each.
#[must_use]
pub fn estimate(asked: &Asked) -> (Vec<u8>, Seen) {
    let tokens = (asked.envelope.body().len() as u64).div_ceil(4);
    let body = match asked.operation {
        Operation::CountGenerate => providers::generate::count_answer(tokens),
        _ => providers::messages::count_answer(tokens),
    };
    (body, Seen { content: true, done: true, ..Seen::default() })
}

/// Embeddings or reranking, read from the client's body.
pub enum Work {
    /// OpenAI's embeddings: the hub body.
    Embed(Bytes),
    /// Gemini's `embedContent` or `batchEmbedContents`: the hub body, and which of the two.
    EmbedContent(Bytes, bool),
    /// Reranking: the hub body.
    Rerank(Bytes),
}

impl Work {
    /// What the request asks for.
    ///
    /// # Errors
    /// When the request is wrong.
    pub fn read(asked: &mut Asked) -> Result<Self, Fault> {
        Ok(match asked.operation {
            Operation::Rerank => Work::Rerank(asked.hub()?.body().clone()),
            Operation::EmbedContent | Operation::BatchEmbedContents => {
                // Gemini has the model in the path.
                let mut edit = asked.envelope.edit();
                edit.set_text("model", &asked.model);
                let body = edit.finish().into_bytes();
                let batch = asked.operation == Operation::BatchEmbedContents;
                let hub = if batch { providers::generate::read_batch(&body)? } else { providers::generate::read_embed(&body)? };
                Work::EmbedContent(hub.into(), batch)
            }
            _ => Work::Embed(asked.hub()?.body().clone()),
        })
    }

    fn embed(body: &[u8]) -> Result<embed::Request<'_>, Error> {
        providers::envelope::parse_body(body)
    }

    fn rerank(body: &[u8]) -> Result<rerank::Request<'_>, Error> {
        let request: rerank::Request<'_> = providers::envelope::parse_body(body)?;
        if request.query.is_none() {
            return Err(Error::invalid("query", "`query` is missing"));
        }
        if request.documents.as_ref().is_none_or(Vec::is_empty) {
            return Err(Error::invalid("documents", "`documents` must be a list with at least one document"));
        }
        Ok(request)
    }

    /// The answer of a provider that needs no upstream.
    pub fn offline(&self, provider: &dyn Provider) -> Option<Result<(Vec<u8>, Seen), Error>> {
        let body = match self {
            Work::Embed(body) | Work::EmbedContent(body, _) => body,
            Work::Rerank(_) => return None,
        };
        let request = match Self::embed(body) {
            Ok(request) => request,
            Err(e) => return Some(Err(e)),
        };
        let answer = provider.offline_embeddings(&request)?;
        Some(answer.map(|vectors| self.write(&vectors, request.model.as_deref().unwrap_or_default(), request.wants_base64())))
    }

    /// The calls to make.
    ///
    /// # Errors
    /// When the provider cannot honour the request.
    pub fn calls(&self, provider: &dyn Provider, target: &Target<'_>) -> Result<Vec<Call>, Error> {
        match self {
            Work::Embed(body) | Work::EmbedContent(body, _) => provider.embed(&Self::embed(body)?, target),
            Work::Rerank(body) => provider.rerank(&Self::rerank(body)?, target).map(|call| vec![call]),
        }
    }

    /// The answer, in the client's dialect, from the answers to the calls, and from what their headers told of tokens.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn answer(&self, provider: &dyn Provider, target: &Target<'_>, bodies: &[Bytes], counted: Option<u64>) -> Result<(Vec<u8>, Seen), Error> {
        match self {
            Work::Embed(body) | Work::EmbedContent(body, _) => {
                let request = Self::embed(body)?;
                let mut vectors = provider.embeddings(bodies, target)?;
                if let Some(input) = counted {
                    vectors.usage = Some(Usage { input, ..Usage::default() });
                }
                let wanted = request.texts(provider.kind()).map_or(vectors.vectors.len(), <[_]>::len);
                if vectors.vectors.len() != wanted {
                    return Err(Error::answer(format!("it has {} vectors for {wanted} texts", vectors.vectors.len())));
                }
                Ok(self.write(&vectors, target.model, request.wants_base64()))
            }
            Work::Rerank(body) => {
                let request = Self::rerank(body)?;
                let ranking = provider.ranking(bodies.first().map_or(&[][..], |b| b), target)?;
                let documents = if request.return_documents == Some(true) { request.documents.as_deref() } else { None };
                let usage = ranking.tokens.map(|input| Usage { input, ..Usage::default() });
                let seen = Seen { content: true, done: true, usage, ..Seen::default() };
                Ok((ranking.to_json("rerank", target.model, documents), seen))
            }
        }
    }

    fn write(&self, vectors: &embed::Embeddings, model: &str, base64: bool) -> (Vec<u8>, Seen) {
        let seen = Seen { content: true, done: true, usage: vectors.usage, ..Seen::default() };
        let body = match self {
            Work::EmbedContent(_, true) => providers::generate::write_batch(vectors),
            Work::EmbedContent(_, false) => providers::generate::write_embed(vectors),
            _ => vectors.to_openai(model, base64),
        };
        (body, seen)
    }
}
