//! Reads a stream of chat chunks (or of legacy completions).

use serde_json::value::RawValue;

use super::answer::{Completion, Part, ToolCall, real};
use super::error;
use crate::answer::{Delta, Finish};
use crate::oddities::{Details, sources};
use crate::sse::Event;
use crate::{Error, Transcoder, broken_off};

/// Reads chat chunks, tolerant of what compatible hosts make of them: calls without an index, names repeated in every
/// piece, usage on every chunk, no `[DONE]`.
#[derive(Debug, Default)]
pub struct Chunks {
    started: bool,
    done: bool,
    choices: Vec<ChunkState>,
    /// A search's sources: they come with every chunk, and are given out once.
    sources: Vec<Box<RawValue>>,
}

#[derive(Debug, Default, Clone)]
struct ChunkState {
    /// The upstream's index and id of each call, in the order they began; the position is the index given out.
    calls: Vec<(Option<u32>, String)>,
    details: Details,
    annotated: bool,
    finished: bool,
}

impl Transcoder for Chunks {
    fn event(&mut self, event: &Event<'_>, out: &mut dyn FnMut(Delta<'_>)) -> Result<(), Error> {
        let data = event.data.trim();
        if data == "[DONE]" {
            self.done = true;
            return Ok(());
        }
        if data.is_empty() {
            return Ok(());
        }
        let chunk: Completion<'_> = serde_json::from_str(data).map_err(Error::answer)?;
        if event.name == "error" || chunk.failed() {
            return Err(error::read(200, data.as_bytes()).into());
        }
        let choices = chunk.choices.unwrap_or_default();
        if let Some(error) = choices.iter().find_map(Part::failure) {
            return Err(error);
        }
        if chunk.search_results.or(chunk.citations).is_some() {
            self.sources = sources(chunk.search_results, chunk.citations);
        }
        // Azure's first chunk has no choices and an empty id; the id and the model come with the next one.
        if !self.started && (!choices.is_empty() || chunk.id.as_deref().is_some_and(|id| !id.is_empty())) {
            self.started = true;
            out(Delta::Start { id: chunk.id.as_deref().unwrap_or_default(), model: chunk.model.as_deref().unwrap_or_default() });
        }
        for part in choices {
            self.part(part, out);
        }
        // xAI tells its sources only after the finish.
        if self.choices.first().is_some_and(|c| c.finished) {
            self.give_sources(out);
        }
        if let Some(usage) = chunk.usage.or(chunk.x_groq.and_then(|g| g.usage)) {
            out(Delta::Usage(usage.into()));
        }
        Ok(())
    }

    fn end(&mut self, _: &mut dyn FnMut(Delta<'_>)) -> Result<(), Error> {
        // Some hosts never send `[DONE]`; a finish for every choice is as good.
        if self.done || !self.choices.is_empty() && self.choices.iter().all(|c| c.finished) { Ok(()) } else { Err(broken_off()) }
    }
}

impl Chunks {
    /// Gives out a search's sources once, unless the message had annotations of its own.
    fn give_sources(&mut self, out: &mut dyn FnMut(Delta<'_>)) {
        if let Some(first) = self.choices.first_mut().filter(|c| !c.annotated && !self.sources.is_empty()) {
            first.annotated = true;
            self.sources.drain(..).for_each(|json| out(Delta::Annotation { choice: 0, json: json.get() }));
        }
    }

    fn part(&mut self, part: Part<'_>, out: &mut dyn FnMut(Delta<'_>)) {
        let choice = part.index.unwrap_or(0).min(crate::answer::MAX_CHOICES as u32 - 1);
        if self.choices.len() <= choice as usize {
            self.choices.resize(choice as usize + 1, ChunkState::default());
        }
        let message = part.delta.or(part.message).unwrap_or_default();
        if let Some(text) = message.reasoning_content.as_deref().or(message.reasoning.as_deref()).filter(|t| !t.is_empty()) {
            out(Delta::Reasoning { choice, text });
        }
        let details = &mut self.choices[choice as usize].details;
        match message.reasoning_details {
            Some(raw) if raw.get() != "[]" => details.take(raw, |detail| out(Delta::Detail { choice, detail: &detail })),
            // What follows the reasoning completes it.
            _ => details.finish(|detail| out(Delta::Detail { choice, detail: &detail })),
        }
        if let Some(content) = &message.content {
            // Two closures cannot both hold `out`: thinking comes first in every host that sends both.
            content.each(|_| (), |text| out(Delta::Reasoning { choice, text }));
            content.each(
                |text| {
                    if !text.is_empty() {
                        out(Delta::Text { choice, text })
                    }
                },
                |_| (),
            );
        }
        if let Some(text) = part.text.as_deref().filter(|t| !t.is_empty()) {
            out(Delta::Text { choice, text });
        }
        if let Some(text) = message.refusal.as_deref() {
            out(Delta::Refusal { choice, text });
        }
        for annotation in message.annotations.iter().flatten() {
            self.choices[choice as usize].annotated = true;
            out(Delta::Annotation { choice, json: annotation.get() });
        }
        for url in message.image_urls() {
            out(Delta::Image { choice, url });
        }
        let legacy = message.function_call.map(|function| ToolCall { index: Some(0), id: None, function: Some(function), custom: None });
        for call in message.tool_calls.into_iter().flatten().chain(legacy) {
            self.call(choice, &call, out);
        }
        if let Some(logprobs) = part.logprobs.filter(real) {
            out(Delta::Logprobs { choice, json: logprobs.get() });
        }
        if let Some(reason) = part.finish_reason.filter(|r| !r.is_empty()) {
            let state = &mut self.choices[choice as usize];
            state.details.finish(|detail| out(Delta::Detail { choice, detail: &detail }));
            if choice == 0 {
                self.give_sources(out);
            }
            if !std::mem::replace(&mut self.choices[choice as usize].finished, true) {
                out(Delta::Finish { choice, reason: Finish::from_openai(&reason) });
            }
        }
    }

    fn call(&mut self, choice: u32, call: &ToolCall<'_>, out: &mut dyn FnMut(Delta<'_>)) {
        let (name, arguments) = match (&call.function, &call.custom) {
            (Some(f), _) => (f.name.as_deref(), f.arguments.as_ref().map(|a| &*a.0)),
            (None, Some(c)) => (c.name.as_deref(), c.input.as_deref()),
            (None, None) => (None, None),
        };
        let calls = &mut self.choices[choice as usize].calls;
        let id = call.id.as_deref().filter(|id| !id.is_empty());
        let known = match (call.index, id) {
            // A host that gives every call the index 0 still gives each its own id.
            (Some(index), Some(id)) => calls.iter().rposition(|(i, known)| *i == Some(index) && known == id),
            (Some(index), None) => calls.iter().rposition(|(i, _)| *i == Some(index)),
            (None, Some(id)) => calls.iter().position(|(_, known)| known == id),
            (None, None) if name.is_some_and(|n| !n.is_empty()) => None,
            (None, None) => calls.len().checked_sub(1),
        };
        let index = match known {
            Some(at) => at as u32,
            None => {
                let at = calls.len() as u32;
                let id = id.map_or_else(|| format!("call_{at}"), str::to_owned);
                out(Delta::Call { choice, index: at, id: &id, name: name.unwrap_or_default() });
                calls.push((call.index, id));
                at
            }
        };
        if let Some(json) = arguments.filter(|a| !a.is_empty()) {
            out(Delta::Arguments { choice, index, json });
        }
    }
}
