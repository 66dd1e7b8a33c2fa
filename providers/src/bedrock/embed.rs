//! Embeddings by InvokeModel, where every maker has its own body: Amazon's take one text per call, Cohere's take many.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::KIND;
use crate::cohere::input_type;
use crate::embed::{Embeddings, Request};
use crate::usage::Usage;
use crate::wire::Str;
use crate::{Call, Error, Target, path_segment};

/// Cohere's bound on the texts of a call.
const TEXTS: usize = 96;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Titan<'a> {
    input_text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    embedding_config: Option<EmbeddingConfig>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EmbeddingConfig {
    output_embedding_length: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Nova<'a> {
    schema_version: &'static str,
    task_type: &'static str,
    single_embedding_params: NovaParams<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NovaParams<'a> {
    embedding_purpose: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    embedding_dimension: Option<u32>,
    text: NovaText<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NovaText<'a> {
    truncation_mode: &'static str,
    value: &'a str,
}

#[derive(Serialize)]
struct Cohere<'a> {
    texts: &'a [Str<'a>],
    input_type: &'a str,
    embedding_types: [&'static str; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    output_dimension: Option<u32>,
}

/// Writes the calls.
pub(super) fn write(request: &Request<'_>, target: &Target<'_>) -> Result<Vec<Call>, Error> {
    let name = target.model;
    let path = format!("/model/{}/invoke", path_segment(name)?);
    let texts = request.texts(KIND)?;
    let no_dimensions = || Error::unsupported(KIND, "dimensions", "this model's vectors have one length; leave the parameter out");
    let mut calls: Vec<Call> = if name.contains("titan-embed") {
        let v2 = name.contains("text-v2");
        let image = name.contains("titan-embed-image");
        if request.dimensions.is_some() && !v2 && !image {
            return Err(no_dimensions());
        }
        let dimensions = request.dimensions.filter(|_| v2);
        let config = || request.dimensions.filter(|_| image).map(|output_embedding_length| EmbeddingConfig { output_embedding_length });
        texts.iter().map(|text| Call::json(&*path, &Titan { input_text: text, dimensions, embedding_config: config() })).collect()
    } else if name.contains("amazon.nova") {
        let embedding_purpose = match input_type(request.input_type.as_deref())? {
            "search_query" => "GENERIC_RETRIEVAL",
            "classification" => "CLASSIFICATION",
            "clustering" => "CLUSTERING",
            _ => "GENERIC_INDEX",
        };
        let body = |value| Nova {
            schema_version: "nova-multimodal-embed-v1",
            task_type: "SINGLE_EMBEDDING",
            // A text that is too long is an error, as it is at OpenAI.
            single_embedding_params: NovaParams { embedding_purpose, embedding_dimension: request.dimensions, text: NovaText { truncation_mode: "NONE", value } },
        };
        texts.iter().map(|text| Call::json(&*path, &body(text))).collect()
    } else if name.contains("cohere.embed") {
        if request.dimensions.is_some() && name.contains("-v3") {
            return Err(no_dimensions());
        }
        let input_type = input_type(request.input_type.as_deref())?;
        texts.chunks(TEXTS).map(|texts| Call::json(&*path, &Cohere { texts, input_type, embedding_types: ["float"], output_dimension: request.dimensions })).collect()
    } else {
        return Err(Error::unsupported(KIND, "model", format!("`{name}` is not known as a model for embeddings on Bedrock; Titan, Nova and Cohere Embed are")));
    };
    if let Some(first) = calls.first_mut() {
        if request.user.is_some() {
            first.warnings.push("dropped `user`: Bedrock does not take it".into());
        }
        if request.input_type.is_some() && name.contains("titan-embed") {
            first.warnings.push("dropped `input_type`: Titan does not tell queries from documents".into());
        }
    }
    Ok(calls)
}

/// Any maker's answer.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    /// Titan.
    embedding: Option<Vec<f32>>,
    /// Titan.
    input_text_token_count: Option<u64>,
    embeddings: Option<Several>,
    /// Cohere repeats the texts.
    #[serde(borrow, default)]
    texts: Vec<Str<'a>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Several {
    /// Cohere where types were asked for.
    ByType { float: Vec<Vec<f32>> },
    /// Cohere where none were.
    Plain(Vec<Vec<f32>>),
    /// Nova.
    Nova(Vec<NovaVector>),
}

#[derive(Deserialize)]
struct NovaVector {
    embedding: Vec<f32>,
}

/// Reads the answers. Only Titan counts its tokens in the body; Cohere's are estimated from the texts that it repeats.
pub(super) fn read(bodies: &[Bytes]) -> Result<Embeddings, Error> {
    let mut vectors = Vec::new();
    let mut usage: Option<Usage> = None;
    for body in bodies {
        let answer: Answer<'_> = serde_json::from_slice(body).map_err(Error::answer)?;
        match (answer.embedding, answer.embeddings) {
            (Some(vector), _) => vectors.push(vector),
            (None, Some(Several::ByType { float } | Several::Plain(float))) => vectors.extend(float),
            (None, Some(Several::Nova(list))) => vectors.extend(list.into_iter().map(|v| v.embedding)),
            (None, None) => return Err(Error::answer("it has no embeddings")),
        }
        let used = match answer.input_text_token_count {
            Some(input) => Usage { input, ..Usage::default() },
            // Four bytes to a token is what English comes to.
            None if !answer.texts.is_empty() => Usage { input: answer.texts.iter().map(|t| t.len().div_ceil(4) as u64).sum(), estimated: true, ..Usage::default() },
            None => continue,
        };
        usage.get_or_insert_default().add(&used);
    }
    Ok(Embeddings { vectors, usage })
}
