//! The hub's reranking: the request and answer that Cohere, Jina and vLLM share.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::wire::{Str, open};

open! {
    /// A rerank request.
    Request {
        /// Model.
        "model" model: Str<'a>,
        /// What to rank by.
        "query" query: Str<'a>,
        /// Documents: strings, or objects with a `text`.
        "documents" documents: Vec<&'a RawValue>,
        /// How many to return.
        "top_n" top_n: u32,
        /// Whether to repeat the documents in the answer.
        "return_documents" return_documents: bool,
        /// Longest document, in tokens.
        "max_tokens_per_doc" max_tokens_per_doc: u32,
    }
}

/// One document's place.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ranked {
    /// Position in the request.
    pub index: usize,
    /// How relevant, 0 to 1.
    pub relevance_score: f64,
}

/// Documents, best first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ranking {
    /// Results.
    pub results: Vec<Ranked>,
    /// What the provider bills, in searches.
    pub searches: Option<u64>,
    /// Tokens read, where the provider says so.
    pub tokens: Option<u64>,
}

impl Ranking {
    /// The answer as clients of Cohere's and Jina's APIs read it.
    #[must_use]
    pub fn to_json(&self, id: &str, model: &str, documents: Option<&[&RawValue]>) -> Vec<u8> {
        #[derive(Serialize)]
        struct Body<'a> {
            id: &'a str,
            model: &'a str,
            results: Vec<serde_json::Value>,
            meta: serde_json::Value,
        }
        let results = self
            .results
            .iter()
            .map(|ranked| {
                let mut item = serde_json::json!({ "index": ranked.index, "relevance_score": ranked.relevance_score });
                if let Some(raw) = documents.and_then(|d| d.get(ranked.index)) {
                    let value: serde_json::Value = serde_json::from_str(raw.get()).unwrap_or_default();
                    item["document"] = if value.is_string() { serde_json::json!({ "text": value }) } else { value };
                }
                item
            })
            .collect();
        let meta = serde_json::json!({ "billed_units": { "search_units": self.searches }, "tokens": { "input_tokens": self.tokens } });
        let mut out = Vec::new();
        crate::chat::json(&mut out, &Body { id, model, results, meta });
        out
    }
}
