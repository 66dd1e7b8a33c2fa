//! Reads a stream of chat chunks (or of legacy completions).

use serde_json::value::RawValue;

use super::answer::{Completion, Part, ToolCall, real};
use super::error;
use crate::answer::{Delta, Finish};
use crate::oddities::{Details, sources};
use crate::sse::Event;
use crate::{Error, Transcoder, broken_off};

/// Reads chat chunks, tolerant of what compatible hosts make of them: calls without an index, names repeated in every
/// piece or late, usage on every chunk, no `[DONE]`.
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
    /// The calls, in the order they began.
    calls: Vec<Begun>,
    /// How many of them were given out.
    given: u32,
    details: Details,
    annotated: bool,
    finished: bool,
}

/// A call as far as it has come.
#[derive(Debug, Clone)]
struct Begun {
    /// The upstream's index.
    index: Option<u32>,
    /// The upstream's id.
    id: Option<String>,
    /// The index that it was given out with; a call is not given out before its name is known.
    given: Option<u32>,
    /// Arguments that came before the name.
    held: String,
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

    fn end(&mut self, out: &mut dyn FnMut(Delta<'_>)) -> Result<(), Error> {
        // Some hosts never send `[DONE]`; a finish for every choice is as good.
        if !self.done && (self.choices.is_empty() || !self.choices.iter().all(|c| c.finished)) {
            return Err(broken_off());
        }
        for (choice, state) in (0..).zip(&mut self.choices) {
            state.give_nameless(choice, out);
        }
        Ok(())
    }
}

impl ChunkState {
    /// Gives out the call at `at`, and what was held back of it.
    fn give(&mut self, at: usize, choice: u32, name: &str, out: &mut dyn FnMut(Delta<'_>)) -> u32 {
        let call = &mut self.calls[at];
        let index = self.given;
        self.given += 1;
        call.given = Some(index);
        match &call.id {
            Some(id) => out(Delta::Call { choice, index, id, name }),
            None => out(Delta::Call { choice, index, id: &format!("call_{at}"), name }),
        }
        let held = std::mem::take(&mut call.held);
        if !held.is_empty() {
            out(Delta::Arguments { choice, index, json: &held });
        }
        index
    }

    /// Gives out the calls whose name never came.
    fn give_nameless(&mut self, choice: u32, out: &mut dyn FnMut(Delta<'_>)) {
        for at in 0..self.calls.len() {
            if self.calls[at].given.is_none() {
                self.give(at, choice, "", out);
            }
        }
    }

    /// Which call a piece belongs to, if it is not the first of a new one.
    fn known(&self, index: Option<u32>, id: Option<&str>, named: bool) -> Option<usize> {
        // A call that has its id only with its name has none yet.
        let same = |call: &Begun, id: &str| call.id.as_deref().map_or(call.given.is_none(), |known| known == id);
        match (index, id) {
            // A host that gives every call the index 0 still gives each its own id.
            (Some(_), Some(id)) => self.calls.iter().rposition(|call| call.index == index && same(call, id)),
            (Some(_), None) => self.calls.iter().rposition(|call| call.index == index),
            (None, Some(id)) => self.calls.iter().position(|call| same(call, id)),
            (None, None) => self.calls.len().checked_sub(1).filter(|last| !named || self.calls[*last].given.is_none()),
        }
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
        let legacy = message.function_call.map(ToolCall::legacy);
        for call in message.tool_calls.into_iter().flat_map(|calls| calls.0).chain(legacy) {
            self.call(choice, &call, out);
        }
        if let Some(logprobs) = part.logprobs.filter(real) {
            out(Delta::Logprobs { choice, json: logprobs.get() });
        }
        if let Some(reason) = part.finish_reason.filter(|r| !r.is_empty()) {
            let state = &mut self.choices[choice as usize];
            state.details.finish(|detail| out(Delta::Detail { choice, detail: &detail }));
            state.give_nameless(choice, out);
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
        let name = name.filter(|n| !n.is_empty());
        let arguments = arguments.unwrap_or_default();
        let state = &mut self.choices[choice as usize];
        let at = state.known(call.index, call.id(), name.is_some()).unwrap_or_else(|| {
            state.calls.push(Begun { index: call.index, id: None, given: None, held: String::new() });
            state.calls.len() - 1
        });
        let begun = &mut state.calls[at];
        if begun.given.is_none() && begun.id.is_none() {
            begun.id = call.id().map(str::to_owned);
        }
        let given = match (begun.given, name) {
            (Some(index), _) => Some(index),
            (None, Some(name)) => Some(state.give(at, choice, name, out)),
            (None, None) => {
                begun.held.push_str(arguments);
                None
            }
        };
        if let Some(index) = given.filter(|_| !arguments.is_empty()) {
            out(Delta::Arguments { choice, index, json: arguments });
        }
    }
}
