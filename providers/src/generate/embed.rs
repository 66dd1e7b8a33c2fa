//! `embedContent` and `batchEmbedContents` as the hub's embeddings, and back.

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::chat::json;
use crate::embed::{Embeddings, Input, Request};
use crate::envelope::parse_body;
use crate::wire::Str;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct One<'a> {
    #[serde(borrow)]
    model: Option<Str<'a>>,
    #[serde(borrow)]
    content: Content<'a>,
    #[serde(borrow, alias = "task_type")]
    task_type: Option<Str<'a>>,
    #[serde(alias = "output_dimensionality")]
    output_dimensionality: Option<u32>,
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow)]
    parts: Vec<Part<'a>>,
}

#[derive(Deserialize)]
struct Part<'a> {
    #[serde(borrow)]
    text: Option<Str<'a>>,
}

#[derive(Deserialize)]
struct Batch<'a> {
    #[serde(borrow)]
    model: Option<Str<'a>>,
    #[serde(borrow)]
    requests: Vec<One<'a>>,
}

/// Reads an `embedContent` request into the hub: the JSON text of an OpenAI embeddings request.
///
/// # Errors
/// What is wrong with the request.
pub fn read_embed(body: &[u8]) -> Result<Vec<u8>, Error> {
    let one: One<'_> = parse_body(body)?;
    hub(None, &[one], |_, field| field.to_owned())
}

/// Reads a `batchEmbedContents` request into the hub.
///
/// # Errors
/// What is wrong with the request, or that its parts want different things, which one hub request cannot say.
pub fn read_batch(body: &[u8]) -> Result<Vec<u8>, Error> {
    let batch: Batch<'_> = parse_body(body)?;
    hub(batch.model, &batch.requests, |at, field| format!("requests[{at}].{field}"))
}

fn hub(model: Option<Str<'_>>, requests: &[One<'_>], path: impl Fn(usize, &str) -> String) -> Result<Vec<u8>, Error> {
    let Some(first) = requests.first() else { return Err(Error::invalid("requests", "`requests` must not be empty")) };
    let mut texts = Vec::with_capacity(requests.len());
    for (at, one) in requests.iter().enumerate() {
        for (field, same) in [("model", one.model == first.model), ("taskType", one.task_type == first.task_type), ("outputDimensionality", one.output_dimensionality == first.output_dimensionality)] {
            if !same {
                return Err(Error::invalid(path(at, field), format!("`{field}` must be the same in all requests of a batch")));
            }
        }
        let mut text = String::new();
        for part in &one.content.parts {
            text.push_str(part.text.as_deref().ok_or_else(|| Error::invalid(path(at, "content.parts"), "only text can be embedded by this model"))?);
        }
        texts.push(Str::from(text));
    }
    let model = model.as_ref().or(first.model.as_ref()).map(|m| Str::from(m.strip_prefix("models/").unwrap_or(m)));
    let input_type = first.task_type.as_deref().map(|task| match task {
        "RETRIEVAL_QUERY" => Str::from("query"),
        "RETRIEVAL_DOCUMENT" => Str::from("document"),
        other => Str::from(other.to_ascii_lowercase()),
    });
    let request = Request { model, input: Some(Input::Texts(texts)), dimensions: first.output_dimensionality, input_type, ..Request::default() };
    let mut out = Vec::with_capacity(256);
    json(&mut out, &request);
    Ok(out)
}

#[derive(Serialize)]
struct Values<'a> {
    values: &'a [f32],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Used {
    prompt_token_count: u64,
}

fn used(embeddings: &Embeddings) -> Option<Used> {
    embeddings.usage.map(|u| Used { prompt_token_count: u.prompt() })
}

/// The answer to `embedContent`.
#[must_use]
pub fn write_embed(embeddings: &Embeddings) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Body<'a> {
        embedding: Values<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        usage_metadata: Option<Used>,
    }
    let values = embeddings.vectors.first().map(Vec::as_slice).unwrap_or_default();
    let mut out = Vec::with_capacity(values.len() * 12);
    json(&mut out, &Body { embedding: Values { values }, usage_metadata: used(embeddings) });
    out
}

/// The answer to `batchEmbedContents`.
#[must_use]
pub fn write_batch(embeddings: &Embeddings) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Body<'a> {
        embeddings: Vec<Values<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        usage_metadata: Option<Used>,
    }
    let mut out = Vec::with_capacity(1024);
    json(&mut out, &Body { embeddings: embeddings.vectors.iter().map(|values| Values { values }).collect(), usage_metadata: used(embeddings) });
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::Usage;

    fn text(bytes: Result<Vec<u8>, Error>) -> String {
        String::from_utf8(bytes.unwrap()).unwrap()
    }

    #[test]
    fn a_request_and_a_batch_become_one_hub_request() {
        assert_eq!(
            text(read_embed(br#"{"model":"models/e","content":{"parts":[{"text":"a"},{"text":"b"}]},"taskType":"RETRIEVAL_QUERY","outputDimensionality":8}"#)),
            r#"{"model":"e","input":["ab"],"dimensions":8,"input_type":"query"}"#
        );
        assert_eq!(
            text(read_batch(br#"{"model":"fast","requests":[{"model":"models/e","content":{"parts":[{"text":"a"}]}},{"model":"models/e","content":{"parts":[{"text":"b"}]}}]}"#)),
            r#"{"model":"fast","input":["a","b"]}"#
        );
        let mixed = br#"{"requests":[{"content":{"parts":[]}},{"content":{"parts":[]},"outputDimensionality":3}]}"#;
        assert!(matches!(read_batch(mixed), Err(Error::Invalid { param: Some(p), .. }) if p == "requests[1].outputDimensionality"));
        assert!(read_embed(br#"{"content":{"parts":[{"inlineData":{}}]}}"#).is_err());
    }

    #[test]
    fn vectors_go_out_in_either_shape() {
        let embeddings = Embeddings { vectors: vec![vec![0.5, -1.0], vec![2.0]], usage: Some(Usage { input: 3, ..Usage::default() }) };
        assert_eq!(text(Ok(write_embed(&embeddings))), r#"{"embedding":{"values":[0.5,-1.0]},"usageMetadata":{"promptTokenCount":3}}"#);
        assert_eq!(text(Ok(write_batch(&embeddings))), r#"{"embeddings":[{"values":[0.5,-1.0]},{"values":[2.0]}],"usageMetadata":{"promptTokenCount":3}}"#);
    }
}
