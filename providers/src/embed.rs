//! The hub's embeddings: OpenAI's request and answer.

use base64::Engine as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::usage::{OpenAiUsage, Usage};
use crate::wire::{Either, Str, open, text_or_list};

open! {
    /// An embeddings request.
    Request {
        /// Model.
        "model" model: Str<'a>,
        /// Texts, or lists of token ids.
        "input" input: Input<'a>,
        /// `float` or `base64`.
        "encoding_format" encoding_format: Str<'a>,
        /// Length wanted.
        "dimensions" dimensions: u32,
        /// End user.
        "user" user: Str<'a>,
        /// What the vectors are for, where a provider tells documents from queries (Cohere, Gemini, Voyage).
        "input_type" input_type: Str<'a>,
    }
}

/// What is to be embedded.
#[derive(Debug, Clone)]
pub enum Input<'a> {
    /// Texts.
    Texts(Vec<Str<'a>>),
    /// Token ids, which only a provider with the same tokenizer can read.
    Tokens(&'a serde_json::value::RawValue),
}

impl Serialize for Input<'_> {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            Input::Texts(texts) => texts.serialize(s),
            Input::Tokens(raw) => raw.serialize(s),
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Input<'a> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let raw = <&'a serde_json::value::RawValue>::deserialize(d)?;
        let first = raw.get().trim_start_matches(['[', ' ', '\n', '\t', '\r']).as_bytes().first().copied();
        if matches!(first, Some(b'0'..=b'9' | b'-')) {
            return Ok(Input::Tokens(raw));
        }
        let mut reader = serde_json::Deserializer::from_str(raw.get());
        match text_or_list(&mut reader, "a string, a list of strings or token ids").map_err(serde::de::Error::custom)? {
            Either::Text(text) => Ok(Input::Texts(vec![text])),
            Either::List(texts) => Ok(Input::Texts(texts)),
        }
    }
}

impl<'a> Request<'a> {
    /// The texts to embed.
    ///
    /// # Errors
    /// When there are none, or the client sent token ids to a provider that cannot read them.
    pub fn texts(&self, provider: &'static str) -> Result<&[Str<'a>], crate::Error> {
        match &self.input {
            Some(Input::Texts(texts)) if !texts.is_empty() => Ok(texts),
            Some(Input::Tokens(_)) => Err(crate::Error::unsupported(provider, "input", "it takes texts, not token ids")),
            _ => Err(crate::Error::invalid("input", "`input` must be a string or a list of strings, and not empty")),
        }
    }

    /// Whether vectors are wanted as base64 of little-endian `f32`.
    #[must_use]
    pub fn wants_base64(&self) -> bool {
        self.encoding_format.as_deref() == Some("base64")
    }
}

/// Vectors in the order of the inputs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Embeddings {
    /// The vectors.
    pub vectors: Vec<Vec<f32>>,
    /// What it used, if the provider says so.
    pub usage: Option<Usage>,
}

/// A vector as OpenAI writes it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Floats(Vec<f32>),
    Base64(String),
}

impl Written {
    fn read(self) -> Result<Vec<f32>, crate::Error> {
        match self {
            Written::Floats(floats) => Ok(floats),
            Written::Base64(text) => {
                let bytes = base64::engine::general_purpose::STANDARD.decode(text).map_err(crate::Error::answer)?;
                let (floats, rest) = bytes.as_chunks::<4>();
                if rest.is_empty() { Ok(floats.iter().map(|f| f32::from_le_bytes(*f)).collect()) } else { Err(crate::Error::answer("a vector has half a number")) }
            }
        }
    }
}

impl Embeddings {
    /// Reads OpenAI's answer.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn from_openai(body: &[u8]) -> Result<Self, crate::Error> {
        #[derive(Deserialize)]
        struct Item {
            #[serde(default)]
            index: usize,
            embedding: Written,
        }
        #[derive(Deserialize)]
        struct Body {
            data: Vec<Item>,
            usage: Option<OpenAiUsage>,
        }
        let mut body: Body = serde_json::from_slice(body).map_err(crate::Error::answer)?;
        body.data.sort_by_key(|item| item.index);
        let vectors = body.data.into_iter().map(|item| item.embedding.read()).collect::<Result<_, _>>()?;
        Ok(Embeddings { vectors, usage: body.usage.map(Usage::from) })
    }

    /// OpenAI's answer.
    #[must_use]
    pub fn to_openai(&self, model: &str, base64: bool) -> Vec<u8> {
        #[derive(Serialize)]
        #[serde(untagged)]
        enum Vector<'a> {
            Floats(&'a [f32]),
            Base64(String),
        }
        #[derive(Serialize)]
        struct Item<'a> {
            object: &'static str,
            index: usize,
            embedding: Vector<'a>,
        }
        #[derive(Serialize)]
        struct Tokens {
            prompt_tokens: u64,
            total_tokens: u64,
        }
        #[derive(Serialize)]
        struct Body<'a> {
            object: &'static str,
            data: Vec<Item<'a>>,
            model: &'a str,
            usage: Tokens,
        }
        let encode = |v: &[f32]| {
            let bytes: Vec<u8> = v.iter().flat_map(|f| f.to_le_bytes()).collect();
            base64::engine::general_purpose::STANDARD.encode(bytes)
        };
        let data = self.vectors.iter().enumerate().map(|(index, v)| Item { object: "embedding", index, embedding: if base64 { Vector::Base64(encode(v)) } else { Vector::Floats(v) } }).collect();
        let prompt_tokens = self.usage.unwrap_or_default().prompt();
        let mut out = Vec::new();
        crate::chat::json(&mut out, &Body { object: "list", data, model, usage: Tokens { prompt_tokens, total_tokens: prompt_tokens } });
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        let whole = Embeddings { vectors: vec![vec![0.5, -1.25], vec![3.0, 0.0]], usage: None };
        for base64 in [false, true] {
            assert_eq!(Embeddings::from_openai(&whole.to_openai("m", base64)).unwrap().vectors, whole.vectors);
        }
        let swapped = br#"{"data":[{"index":1,"embedding":[2]},{"index":0,"embedding":[1]}],"usage":{"prompt_tokens":7,"total_tokens":7}}"#;
        let read = Embeddings::from_openai(swapped).unwrap();
        assert_eq!((read.vectors, read.usage.map(|u| u.prompt())), (vec![vec![1.0], vec![2.0]], Some(7)));
        assert!(Embeddings::from_openai(br#"{"data":[{"embedding":"AAA="}]}"#).is_err());
    }
}
