//! What compatible hosts add to OpenAI's answers, read into the hub: reasoning blocks that come in pieces, and the sources
//! of a search beside the message.

use serde::Deserialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::answer::OwnedDetail;
use crate::carry;
use crate::wire::Str;

/// A reasoning block, or in a stream a piece of one.
#[derive(Deserialize)]
pub(crate) struct DetailPiece<'a> {
    #[serde(rename = "type", borrow)]
    kind: Option<Str<'a>>,
    #[serde(borrow)]
    format: Option<Str<'a>>,
    #[serde(borrow)]
    text: Option<Str<'a>>,
    #[serde(borrow)]
    summary: Option<Str<'a>>,
    #[serde(borrow)]
    signature: Option<Str<'a>>,
    #[serde(borrow)]
    data: Option<Str<'a>>,
    #[serde(borrow)]
    id: Option<Str<'a>>,
    index: Option<u32>,
}

/// Joins pieces into blocks: pieces of one block follow one another and share type and index.
#[derive(Debug, Default, Clone)]
pub(crate) struct Details {
    open: Option<OwnedDetail>,
}

impl Details {
    /// Takes pieces; gives out each block that they complete.
    pub(crate) fn take(&mut self, raw: &RawValue, mut done: impl FnMut(OwnedDetail)) {
        // A shape that is not known is no reason to lose the answer.
        let Ok(pieces) = serde_json::from_str::<Vec<DetailPiece<'_>>>(raw.get()) else { return };
        for piece in pieces {
            let (Some(kind), Some(format)) = (kind(piece.kind.as_deref()), format(piece.format.as_deref())) else { continue };
            let index = piece.index.unwrap_or_default();
            // A signature ends a block, and a second one belongs to another.
            let same = |d: &OwnedDetail| d.kind == kind && d.index == index && (d.signature.is_none() || piece.signature.is_none());
            if !self.open.as_ref().is_some_and(same) {
                self.finish(&mut done);
            }
            let detail = self.open.get_or_insert_with(|| OwnedDetail { kind, format, index, ..OwnedDetail::default() });
            // Later pieces may leave the format out.
            if piece.format.is_some() {
                detail.format = format;
            }
            for text in [piece.text, piece.summary].into_iter().flatten() {
                detail.text.get_or_insert_default().push_str(&text);
            }
            if let Some(data) = piece.data {
                detail.data.get_or_insert_default().push_str(&data);
            }
            if let Some(signature) = piece.signature {
                detail.signature = Some(signature.0.into_owned());
            }
            if let Some(id) = piece.id {
                detail.id = Some(id.0.into_owned());
            }
        }
    }

    /// Gives out the block that was still open.
    pub(crate) fn finish(&mut self, mut done: impl FnMut(OwnedDetail)) {
        if let Some(detail) = self.open.take() {
            done(detail);
        }
    }
}

fn kind(word: Option<&str>) -> Option<&'static str> {
    ["reasoning.text", "reasoning.encrypted", "reasoning.summary"].into_iter().find(|k| Some(*k) == word)
}

/// The formats that OpenRouter names. A block of another format could not be handed back as it was, so it is left out.
fn format(word: Option<&str>) -> Option<&'static str> {
    let word = word.unwrap_or("unknown");
    [carry::ANTHROPIC, carry::GEMINI, carry::OPENAI, "azure-openai-responses-v1", "xai-responses-v1", "unknown"].into_iter().find(|f| *f == word)
}

/// Where a search found what it says, as annotations: Perplexity's `search_results`, else its (and xAI's) `citations`.
pub(crate) fn sources(search_results: Option<&RawValue>, citations: Option<&RawValue>) -> Vec<Box<RawValue>> {
    #[derive(Deserialize)]
    struct Found<'a> {
        #[serde(borrow)]
        url: Str<'a>,
        #[serde(borrow)]
        title: Option<Str<'a>>,
    }
    let found: Vec<Found<'_>> = search_results.and_then(|r| serde_json::from_str::<Option<_>>(r.get()).ok().flatten()).unwrap_or_default();
    let urls: Vec<Str<'_>> = citations.filter(|_| found.is_empty()).and_then(|c| serde_json::from_str::<Option<_>>(c.get()).ok().flatten()).unwrap_or_default();
    let bare = urls.into_iter().map(|url| Found { url, title: None });
    // The text names sources by number, not by place: there are no offsets to tell.
    found
        .into_iter()
        .chain(bare)
        .filter_map(|f| {
            let citation = serde_json::json!({ "url": &*f.url, "title": f.title.as_deref().unwrap_or(&f.url), "start_index": 0, "end_index": 0 });
            to_raw_value(&serde_json::json!({ "type": "url_citation", "url_citation": citation })).ok()
        })
        .collect()
}
