//! Cohere's embeddings and reranking.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::KIND;
use crate::embed::{Embeddings, Request};
use crate::rerank::{self, Ranked, Ranking};
use crate::usage::Usage;
use crate::wire::Str;
use crate::{Call, Error, Target};

/// Cohere's bound on the texts of a call.
const TEXTS: usize = 96;

/// Cohere's word for what vectors are for. It demands one; documents are what is embedded most.
pub(crate) fn input_type(asked: Option<&str>) -> Result<&'static str, Error> {
    Ok(match asked {
        None | Some("search_document" | "document" | "passage" | "RETRIEVAL_DOCUMENT") => "search_document",
        Some("search_query" | "query" | "RETRIEVAL_QUERY") => "search_query",
        Some("classification" | "CLASSIFICATION") => "classification",
        Some("clustering" | "CLUSTERING") => "clustering",
        Some(_) => return Err(Error::invalid("input_type", "`input_type` must be search_document, search_query, classification or clustering")),
    })
}

/// Writes the calls.
pub(super) fn embed(request: &Request<'_>, target: &Target<'_>) -> Result<Vec<Call>, Error> {
    #[derive(Serialize)]
    struct Body<'a> {
        model: &'a str,
        texts: &'a [Str<'a>],
        input_type: &'a str,
        embedding_types: [&'static str; 1],
        #[serde(skip_serializing_if = "Option::is_none")]
        output_dimension: Option<u32>,
    }
    let texts = request.texts(KIND)?;
    let input_type = input_type(request.input_type.as_deref())?;
    if request.dimensions.is_some() && target.model.ends_with("-v3.0") {
        return Err(Error::unsupported(KIND, "dimensions", "this model's vectors have one length; leave the parameter out"));
    }
    let body = |texts| Body { model: target.model, texts, input_type, embedding_types: ["float"], output_dimension: request.dimensions };
    let mut calls: Vec<Call> = texts.chunks(TEXTS).map(|texts| Call::json("/v2/embed", &body(texts))).collect();
    if let Some(first) = calls.first_mut().filter(|_| request.user.is_some()) {
        first.warnings.push("dropped `user`: Cohere does not take it".into());
    }
    Ok(calls)
}

#[derive(Deserialize)]
struct Meta {
    billed_units: Option<Units>,
    tokens: Option<Units>,
}

#[derive(Deserialize)]
struct Units {
    input_tokens: Option<f64>,
    search_units: Option<f64>,
}

/// Reads the answers.
pub(super) fn embeddings(bodies: &[Bytes]) -> Result<Embeddings, Error> {
    #[derive(Deserialize)]
    struct Answer {
        embeddings: ByType,
        meta: Option<Meta>,
    }
    #[derive(Deserialize)]
    struct ByType {
        float: Vec<Vec<f32>>,
    }
    let mut all = Embeddings::default();
    for body in bodies {
        let answer: Answer = serde_json::from_slice(body).map_err(Error::answer)?;
        all.vectors.extend(answer.embeddings.float);
        let units = answer.meta.and_then(|m| m.billed_units.or(m.tokens));
        if let Some(tokens) = units.and_then(|u| u.input_tokens) {
            all.usage.get_or_insert_default().add(&Usage { input: tokens as u64, ..Usage::default() });
        }
    }
    Ok(all)
}

/// Writes a rerank request. The second version takes texts only: an object without a `text` is sent as its JSON.
pub(super) fn rerank(request: &rerank::Request<'_>, target: &Target<'_>) -> Result<Call, Error> {
    #[derive(Serialize)]
    struct Body<'a> {
        model: &'a str,
        query: &'a str,
        documents: Vec<Str<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        top_n: Option<u32>,
        #[serde(skip_serializing_if = "Option::is_none")]
        max_tokens_per_doc: Option<u32>,
    }
    let query = request.query.as_deref().filter(|q| !q.is_empty()).ok_or_else(|| Error::invalid("query", "`query` must be a text"))?;
    let documents = request.documents.as_deref().filter(|d| !d.is_empty()).ok_or_else(|| Error::invalid("documents", "`documents` must be a list, and not empty"))?;
    let documents = documents.iter().enumerate().map(|(i, raw)| document(i, raw)).collect::<Result<_, _>>()?;
    Ok(Call::json("/v2/rerank", &Body { model: target.model, query, documents, top_n: request.top_n, max_tokens_per_doc: request.max_tokens_per_doc }))
}

fn document<'a>(i: usize, raw: &'a RawValue) -> Result<Str<'a>, Error> {
    #[derive(Deserialize)]
    struct Object<'a> {
        #[serde(borrow)]
        text: Option<Str<'a>>,
    }
    let json = raw.get();
    let wrong = |_| Error::invalid(format!("documents[{i}]"), format!("`documents[{i}]` must be a text or an object"));
    if json.starts_with('"') {
        return serde_json::from_str(json).map_err(wrong);
    }
    let object: Object<'a> = serde_json::from_str(json).map_err(wrong)?;
    Ok(object.text.unwrap_or_else(|| Str::from(json)))
}

/// Reads a ranking.
pub(super) fn ranking(body: &[u8]) -> Result<Ranking, Error> {
    #[derive(Deserialize)]
    struct Answer {
        results: Vec<Item>,
        meta: Option<Meta>,
    }
    #[derive(Deserialize)]
    struct Item {
        index: usize,
        relevance_score: f64,
    }
    let answer: Answer = serde_json::from_slice(body).map_err(Error::answer)?;
    let results = answer.results.into_iter().map(|r| Ranked { index: r.index, relevance_score: r.relevance_score }).collect();
    let (billed, counted) = answer.meta.map(|m| (m.billed_units, m.tokens)).unwrap_or_default();
    Ok(Ranking { results, searches: billed.and_then(|u| u.search_units).map(|n| n as u64), tokens: counted.and_then(|u| u.input_tokens).map(|n| n as u64) })
}
