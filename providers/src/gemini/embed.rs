//! Embeddings at the Gemini API: `batchEmbedContents`.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::usage::UsageMetadata;
use crate::embed::{Embeddings, Request};
use crate::usage::Usage;
use crate::{Call, Error};

/// Most texts of one call.
const MOST: usize = 100;

#[derive(Serialize)]
struct Batch<'a> {
    requests: Vec<One<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct One<'a> {
    model: &'a str,
    content: Content<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_dimensionality: Option<u32>,
}

/// A text as content.
#[derive(Serialize)]
pub(crate) struct Content<'a> {
    parts: [Text<'a>; 1],
}

#[derive(Serialize)]
struct Text<'a> {
    text: Cow<'a, str>,
}

impl<'a> Content<'a> {
    pub(crate) fn of(text: Cow<'a, str>) -> Self {
        Content { parts: [Text { text }] }
    }
}

/// Writes the calls.
pub(super) fn write(request: &Request<'_>, kind: &'static str, model: &str, path: &str) -> Result<Vec<Call>, Error> {
    let task = Task::of(request, model)?;
    let name = format!("models/{model}");
    let calls = request.texts(kind)?.chunks(MOST).map(|texts| {
        let requests = texts.iter().map(|text| One { model: &name, content: Content::of(task.text(text)), task_type: task.kind(), output_dimensionality: request.dimensions }).collect();
        Call::json(path, &Batch { requests })
    });
    Ok(calls.collect())
}

/// Reads the answers of `batchEmbedContents`, and of `embedContent` with its single vector.
pub(crate) fn read(bodies: &[Bytes]) -> Result<Embeddings, Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Answer {
        #[serde(default)]
        embeddings: Vec<Vector>,
        embedding: Option<Vector>,
        usage_metadata: Option<UsageMetadata>,
    }
    #[derive(Deserialize)]
    struct Vector {
        values: Vec<f32>,
    }
    let mut out = Embeddings::default();
    for body in bodies {
        let answer: Answer = serde_json::from_slice(body).map_err(Error::answer)?;
        out.vectors.extend(answer.embeddings.into_iter().chain(answer.embedding).map(|v| v.values));
        if let Some(usage) = &answer.usage_metadata {
            out.usage.get_or_insert_default().add(&Usage::from(usage));
        }
    }
    Ok(out)
}

/// What the vectors are for.
pub(crate) struct Task {
    kind: Option<&'static str>,
    /// Newer models are told in the text.
    in_text: bool,
}

impl Task {
    pub(crate) fn of(request: &Request<'_>, model: &str) -> Result<Self, Error> {
        let in_text = model.contains("embedding-2");
        let Some(wanted) = request.input_type.as_deref() else { return Ok(Task { kind: None, in_text }) };
        let kind = match wanted.to_ascii_lowercase().as_str() {
            "query" | "search_query" | "retrieval_query" => "RETRIEVAL_QUERY",
            "document" | "passage" | "search_document" | "retrieval_document" => "RETRIEVAL_DOCUMENT",
            "classification" => "CLASSIFICATION",
            "clustering" => "CLUSTERING",
            "similarity" | "semantic_similarity" => "SEMANTIC_SIMILARITY",
            "question_answering" => "QUESTION_ANSWERING",
            "fact_verification" => "FACT_VERIFICATION",
            "code_retrieval_query" => "CODE_RETRIEVAL_QUERY",
            _ => return Err(Error::invalid("input_type", format!("`{wanted}` is not known here; use query, document, classification, clustering or similarity"))),
        };
        Ok(Task { kind: Some(kind), in_text })
    }

    /// `taskType`, where the model takes it.
    pub(crate) fn kind(&self) -> Option<&'static str> {
        self.kind.filter(|_| !self.in_text)
    }

    /// The text, with the task in words where the model is told so.
    pub(crate) fn text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let task = match self.kind.filter(|_| self.in_text) {
            None => return Cow::Borrowed(text),
            Some("RETRIEVAL_DOCUMENT") => return Cow::Owned(format!("title: none | text: {text}")),
            Some("RETRIEVAL_QUERY") => "search result",
            Some("CLASSIFICATION") => "classification",
            Some("CLUSTERING") => "clustering",
            Some("SEMANTIC_SIMILARITY") => "sentence similarity",
            Some("QUESTION_ANSWERING") => "question answering",
            Some("FACT_VERIFICATION") => "fact checking",
            Some(_) => "code retrieval",
        };
        Cow::Owned(format!("task: {task} | query: {text}"))
    }
}
