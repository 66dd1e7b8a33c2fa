//! The hub's streams as events of `streamGenerateContent?alt=sse`: every event a response of its own, calls whole, no mark at
//! the end.

use std::borrow::Cow;

use super::answer::{Candidate, Content, Part, Response, UsageMetadata, call, finish_reason, image, logprobs, own_signature, signature_alone, wants_thoughts};
use crate::answer::{Call, Delta, Finish, MAX_CHOICES};
use crate::carry;
use crate::chat::json;
use crate::door::{ClientError, Door, Meta, Writer};
use crate::sse::one_line;
use crate::usage::Usage;

/// Writes events.
pub(super) struct EventWriter {
    meta: Meta,
    /// Whether the client wants to see thoughts.
    thoughts: bool,
    choices: Vec<Progress>,
    usage: Option<Usage>,
}

/// What a choice has had so far.
#[derive(Default)]
struct Progress {
    /// The call whose arguments are still coming: Gemini's clients take calls only whole.
    open: Option<Call>,
    /// Signatures of calls and images, by their ids.
    signatures: Vec<(String, String)>,
    images: usize,
    broken: bool,
    finish: Option<Finish>,
}

impl EventWriter {
    pub(super) fn new(meta: Meta) -> Self {
        EventWriter { thoughts: wants_thoughts(&meta.request), meta, choices: Vec::new(), usage: None }
    }

    fn progress(&mut self, choice: u32) -> &mut Progress {
        let at = (choice as usize).min(MAX_CHOICES - 1);
        if self.choices.len() <= at {
            self.choices.resize_with(at + 1, Progress::default);
        }
        &mut self.choices[at]
    }

    fn event(&self, candidates: Vec<Candidate<'_>>, usage: Option<Usage>, out: &mut Vec<u8>) {
        out.extend_from_slice(b"data: ");
        json(out, &Response { candidates, usage_metadata: usage.map(UsageMetadata::from), model_version: &self.meta.model, response_id: &self.meta.id });
        out.extend_from_slice(b"\n\n");
    }

    fn part(&mut self, choice: u32, part: Part<'_>, out: &mut Vec<u8>) {
        self.close(choice, out);
        self.event(vec![Candidate { content: Some(Content::of(vec![part])), finish_reason: None, index: choice, logprobs_result: None }], None, out);
    }

    fn text(&mut self, choice: u32, text: &str, thought: bool, out: &mut Vec<u8>) {
        if !text.is_empty() {
            self.part(choice, Part::text(text, thought), out);
        }
    }

    /// Writes the call that is open, now that it is whole.
    fn close(&mut self, choice: u32, out: &mut Vec<u8>) {
        let progress = self.progress(choice);
        let Some(mut open) = progress.open.take() else { return };
        // Models like to indent.
        open.arguments = one_line(&open.arguments).into_owned();
        let signatures = std::mem::take(&mut progress.signatures);
        match call(&open, |id| signatures.iter().find(|(of, _)| of == id).map(|(_, s)| s.as_str())) {
            Some(part) => self.part(choice, part, out),
            None => self.progress(choice).broken = true,
        }
        self.progress(choice).signatures = signatures;
    }
}

impl Writer for EventWriter {
    fn delta(&mut self, delta: &Delta<'_>, out: &mut Vec<u8>) {
        match *delta {
            Delta::Start { id, model } => {
                for (slot, value) in [(&mut self.meta.id, id), (&mut self.meta.model, model)] {
                    if !value.is_empty() {
                        value.clone_into(slot);
                    }
                }
            }
            Delta::Text { choice, text } | Delta::Refusal { choice, text } => self.text(choice, text, false, out),
            Delta::Reasoning { choice, text } if self.thoughts => self.text(choice, text, true, out),
            Delta::Reasoning { .. } => {}
            Delta::Detail { choice, detail } => match (own_signature(detail), &detail.id) {
                (Some(signature), Some(id)) => self.progress(choice).signatures.push((id.clone(), signature.to_owned())),
                (Some(signature), None) => self.part(choice, signature_alone(signature), out),
                (None, _) => {}
            },
            Delta::Call { choice, id, name, .. } => {
                self.close(choice, out);
                let progress = self.progress(choice);
                progress.open = Some(Call { id: id.to_owned(), name: name.to_owned(), arguments: String::new() });
            }
            Delta::Arguments { choice, json, .. } => {
                if let Some(open) = &mut self.progress(choice).open {
                    open.arguments.push_str(json);
                }
            }
            // Gemini has no place for annotations that are not its own.
            Delta::Annotation { .. } => {}
            Delta::Image { choice, url } => {
                let progress = self.progress(choice);
                let id = carry::image_id(progress.images);
                progress.images += 1;
                let signature = progress.signatures.iter().find(|(of, _)| *of == id).map(|(_, s)| s.clone());
                if let Some(part) = image(url, signature.map(Cow::Owned)) {
                    self.part(choice, part, out);
                }
            }
            Delta::Logprobs { choice, json } => {
                if let Some(result) = logprobs(json) {
                    self.event(vec![Candidate { content: None, finish_reason: None, index: choice, logprobs_result: Some(result) }], None, out);
                }
            }
            Delta::Finish { choice, reason } => self.progress(choice).finish = Some(reason),
            Delta::Usage(usage) => self.usage = Some(usage),
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        self.progress(0);
        for choice in 0..self.choices.len() as u32 {
            self.close(choice, out);
        }
        let candidates = (0..).zip(&self.choices).map(|(index, progress)| Candidate {
            content: Some(Content::of(vec![Part::text("", false)])),
            finish_reason: Some(finish_reason(progress.finish.unwrap_or_default(), progress.broken)),
            index,
            logprobs_result: None,
        });
        let candidates = candidates.collect();
        self.event(candidates, self.usage, out);
    }

    fn error(&mut self, error: &ClientError, out: &mut Vec<u8>) {
        out.extend_from_slice(&super::Generate.error_event(error));
    }
}
