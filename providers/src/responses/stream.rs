//! Writes a stream of typed events. Items are opened and closed one after the other; what an event calls an item by
//! (output index, id) is what the final object has it under.

use serde_json::value::RawValue;

use super::failure_code;
use super::item::{Body, Item, Part, SummaryText, annotation, logprobs};
use super::object::{Echo, Failure, Object, ending};
use crate::answer::{Answer, Choice, Delta, Finish, OwnedDetail};
use crate::chat::json;
use crate::door::{ClientError, Meta, Writer};
use crate::usage::Usage;

pub(super) struct EventWriter {
    /// Whether the items alone are of interest.
    quiet: bool,
    meta: Meta,
    echo: Echo,
    model: String,
    started: bool,
    sequence: u64,
    items: Vec<Item>,
    /// Whether the last item is still open.
    open: bool,
    /// Reasoning blocks that came while another item was open; they become an item when that closes.
    late: Vec<OwnedDetail>,
    calls: u32,
    finish: Option<Finish>,
    usage: Option<Usage>,
}

/// A field of an event whose value is JSON or becomes it.
macro_rules! fields {
    ($out:ident, $($name:literal: $value:expr),*) => {
        $(
            $out.extend_from_slice(concat!(",\"", $name, "\":").as_bytes());
            json($out, $value);
        )*
    };
}

impl EventWriter {
    pub(super) fn new(meta: Meta) -> Self {
        let echo = Echo::new(&meta.request);
        EventWriter { quiet: false, meta, echo, model: String::new(), started: false, sequence: 0, items: Vec::new(), open: false, late: Vec::new(), calls: 0, finish: None, usage: None }
    }

    /// A whole answer: the object that its stream would end with. There is one choice, for a Responses request cannot ask for more.
    pub(super) fn answer(answer: &Answer, meta: &Meta) -> Vec<u8> {
        let mut writer = EventWriter { quiet: true, usage: answer.usage, ..EventWriter::new(meta.clone()) };
        // Known from the beginning, as it is not of a stream: it tells how each item ended.
        writer.finish = answer.choices.first().map(Choice::reason);
        let mut out = Vec::with_capacity(2048);
        answer.replay(|delta| writer.delta(&delta, &mut out));
        let (status, incomplete) = writer.close(&mut out);
        writer.object(status, incomplete, None).write(&mut out);
        out
    }

    /// One event: its name twice, as SSE and in the data, its number, and what `body` adds.
    fn event(&mut self, out: &mut Vec<u8>, name: &str, body: impl FnOnce(&Self, &mut Vec<u8>)) {
        if self.quiet {
            return;
        }
        for piece in ["event: ", name, "\ndata: {\"type\":\"", name, "\",\"sequence_number\":"] {
            out.extend_from_slice(piece.as_bytes());
        }
        out.extend_from_slice(self.sequence.to_string().as_bytes());
        self.sequence += 1;
        body(self, out);
        out.extend_from_slice(b"}\n\n");
    }

    /// An event about the whole response.
    fn whole(&mut self, out: &mut Vec<u8>, name: &str, status: &'static str, incomplete: Option<&'static str>, error: Option<Failure<'_>>) {
        self.event(out, name, |w, out| {
            out.extend_from_slice(b",\"response\":");
            w.object(status, incomplete, error).write(out);
        });
    }

    fn object<'o>(&'o self, status: &'static str, incomplete: Option<&'static str>, error: Option<Failure<'o>>) -> Object<'o> {
        Object { meta: &self.meta, model: &self.model, echo: &self.echo, status, error, incomplete, output: &self.items, usage: self.usage }
    }

    /// Closes what is open at the end of the answer; says how it ended.
    fn close(&mut self, out: &mut Vec<u8>) -> (&'static str, Option<&'static str>) {
        let (status, incomplete) = ending(self.finish.unwrap_or_default());
        if status == "completed" && self.items.iter().all(|i| matches!(i.body, Body::Reasoning { .. })) {
            // An answer of nothing is an empty text.
            self.part(Part::text(), out);
        }
        self.close_item(status, out);
        (status, incomplete)
    }

    fn start(&mut self, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.started, true) {
            self.whole(out, "response.created", "in_progress", None, None);
            self.whole(out, "response.in_progress", "in_progress", None, None);
        }
    }

    /// An event about the last item.
    fn about_item(&mut self, out: &mut Vec<u8>, name: &str, body: impl FnOnce(&Item, &mut Vec<u8>)) {
        self.event(out, name, |w, out| {
            if let Some(item) = w.items.last() {
                fields!(out, "item_id": &item.id, "output_index": &(w.items.len() - 1));
                body(item, out);
            }
        });
    }

    /// An event about the last part of the last item, which is a message.
    fn about_part(&mut self, out: &mut Vec<u8>, name: &str, body: impl FnOnce(&Part, &mut Vec<u8>)) {
        self.about_item(out, name, |item, out| {
            if let Body::Message(parts) = &item.body
                && let Some(part) = parts.last()
            {
                fields!(out, "content_index": &(parts.len() - 1));
                body(part, out);
            }
        });
    }

    fn item_event(&mut self, out: &mut Vec<u8>, name: &str) {
        self.event(out, name, |w, out| {
            fields!(out, "output_index": &w.items.len().saturating_sub(1), "item": &w.items.last());
        });
    }

    fn open_item(&mut self, body: Body, out: &mut Vec<u8>) {
        self.start(out);
        // Calls that were held back come behind the finish: only then is it known whether the one before was cut.
        let (status, _) = ending(self.finish.unwrap_or_default());
        let status = match self.current() {
            Some(body) if status != "completed" => body.status(status),
            _ => "completed",
        };
        self.close_item(status, out);
        self.items.push(Item::new(&self.meta.id, self.items.len(), "in_progress", body));
        self.open = true;
        self.item_event(out, "response.output_item.added");
    }

    fn current(&mut self) -> Option<&mut Body> {
        if self.open { self.items.last_mut().map(|i| &mut i.body) } else { None }
    }

    /// Closes the last item, and gives out the reasoning blocks that came meanwhile.
    fn close_item(&mut self, status: &'static str, out: &mut Vec<u8>) {
        self.close_one(status, out);
        if !self.late.is_empty() {
            let details = std::mem::take(&mut self.late);
            self.open_item(Body::Reasoning { summary: String::new(), details }, out);
            self.close_one("completed", out);
        }
    }

    fn close_one(&mut self, status: &'static str, out: &mut Vec<u8>) {
        let empty_arguments = match self.current() {
            None => return,
            Some(Body::Call { arguments, custom: false, .. }) => arguments.is_empty(),
            Some(_) => false,
        };
        if empty_arguments {
            // A call whose arguments never came takes none.
            self.arguments("{}", out);
        }
        match self.items.last().map(|i| &i.body) {
            Some(Body::Message(_)) => self.close_part(out),
            Some(Body::Reasoning { summary, .. }) if !summary.is_empty() => self.close_summary(out),
            Some(Body::Call { custom, .. }) => {
                let name = if *custom { "response.custom_tool_call_input.done" } else { "response.function_call_arguments.done" };
                self.about_item(out, name, |item, out| {
                    if let Body::Call { arguments, name, custom, .. } = &item.body {
                        if *custom {
                            fields!(out, "input": arguments);
                        } else {
                            fields!(out, "name": name, "arguments": arguments);
                        }
                    }
                });
            }
            _ => {}
        }
        self.open = false;
        if let Some(item) = self.items.last_mut() {
            item.status = status;
        }
        self.item_event(out, "response.output_item.done");
    }

    fn close_summary(&mut self, out: &mut Vec<u8>) {
        for name in ["response.reasoning_summary_text.done", "response.reasoning_summary_part.done"] {
            self.about_item(out, name, |item, out| {
                let Body::Reasoning { summary, .. } = &item.body else { return };
                fields!(out, "summary_index": &0);
                if name.ends_with("text.done") {
                    fields!(out, "text": summary);
                } else {
                    fields!(out, "part": &SummaryText::new(summary));
                }
            });
        }
    }

    fn close_part(&mut self, out: &mut Vec<u8>) {
        let refusal = matches!(self.current(), Some(Body::Message(parts)) if matches!(parts.last(), Some(Part::Refusal { .. })));
        self.about_part(out, if refusal { "response.refusal.done" } else { "response.output_text.done" }, |part, out| match part {
            Part::Text { text, logprobs, .. } => {
                fields!(out, "text": text, "logprobs": logprobs);
            }
            Part::Refusal { refusal } => {
                fields!(out, "refusal": refusal);
            }
        });
        self.about_part(out, "response.content_part.done", |part, out| {
            fields!(out, "part": part);
        });
    }

    /// Sees to it that the last item is a message whose last part is of the same kind as `part`.
    fn part(&mut self, part: Part, out: &mut Vec<u8>) {
        match self.current() {
            Some(Body::Message(parts)) if parts.last().is_some_and(|last| std::mem::discriminant(last) == std::mem::discriminant(&part)) => return,
            Some(Body::Message(_)) => self.close_part(out),
            _ => self.open_item(Body::Message(Vec::new()), out),
        }
        if let Some(Body::Message(parts)) = self.current() {
            parts.push(part);
        }
        self.about_part(out, "response.content_part.added", |part, out| {
            fields!(out, "part": part);
        });
    }

    fn text(&mut self, delta: &str, out: &mut Vec<u8>) {
        self.part(Part::text(), out);
        if let Some(Body::Message(parts)) = self.current()
            && let Some(Part::Text { text, .. }) = parts.last_mut()
        {
            text.push_str(delta);
        }
        self.text_delta(delta, &[], out);
    }

    fn text_delta(&mut self, delta: &str, logprobs: &[Box<RawValue>], out: &mut Vec<u8>) {
        self.about_part(out, "response.output_text.delta", |_, out| {
            fields!(out, "delta": delta, "logprobs": logprobs);
        });
    }

    fn refusal(&mut self, delta: &str, out: &mut Vec<u8>) {
        self.part(Part::Refusal { refusal: String::new() }, out);
        if let Some(Body::Message(parts)) = self.current()
            && let Some(Part::Refusal { refusal }) = parts.last_mut()
        {
            refusal.push_str(delta);
        }
        self.about_part(out, "response.refusal.delta", |_, out| {
            fields!(out, "delta": delta);
        });
    }

    fn annotation(&mut self, raw: &str, out: &mut Vec<u8>) {
        let Some(raw) = annotation(raw) else { return };
        self.part(Part::text(), out);
        let mut index = 0;
        if let Some(Body::Message(parts)) = self.current()
            && let Some(Part::Text { annotations, .. }) = parts.last_mut()
        {
            index = annotations.len();
            annotations.push(raw.clone());
        }
        self.about_part(out, "response.output_text.annotation.added", |_, out| {
            fields!(out, "annotation_index": &index, "annotation": &raw);
        });
    }

    /// Log probabilities come behind their text: they get a delta of their own, whose text is empty. Those of calls, which some
    /// hosts give too, have no place here.
    fn logprobs(&mut self, raw: &str, out: &mut Vec<u8>) {
        let tokens = logprobs(raw);
        if tokens.is_empty() || !matches!(self.current(), Some(Body::Message(parts)) if matches!(parts.last(), Some(Part::Text { .. }))) {
            return;
        }
        self.text_delta("", &tokens, out);
        if let Some(Body::Message(parts)) = self.current()
            && let Some(Part::Text { logprobs, .. }) = parts.last_mut()
        {
            logprobs.extend(tokens);
        }
    }

    fn reasoning(&mut self, delta: &str, out: &mut Vec<u8>) {
        if !matches!(self.current(), Some(Body::Reasoning { .. })) {
            self.open_item(Body::Reasoning { summary: String::new(), details: Vec::new() }, out);
        }
        let Some(Body::Reasoning { summary, .. }) = self.current() else { return };
        let first = summary.is_empty();
        summary.push_str(delta);
        if first {
            self.about_item(out, "response.reasoning_summary_part.added", |_, out| {
                fields!(out, "summary_index": &0, "part": &SummaryText::new(""));
            });
        }
        self.about_item(out, "response.reasoning_summary_text.delta", |_, out| {
            fields!(out, "summary_index": &0, "delta": delta);
        });
    }

    fn detail(&mut self, detail: &OwnedDetail, out: &mut Vec<u8>) {
        if !self.open {
            self.open_item(Body::Reasoning { summary: String::new(), details: Vec::new() }, out);
        }
        match self.current() {
            Some(Body::Reasoning { details, .. }) => details.push(detail.clone()),
            _ => self.late.push(detail.clone()),
        }
    }

    fn call(&mut self, id: &str, name: &str, out: &mut Vec<u8>) {
        let custom = self.echo.is_custom(name);
        self.calls += 1;
        self.open_item(Body::Call { call_id: id.to_owned(), name: name.to_owned(), arguments: String::new(), custom }, out);
    }

    fn arguments(&mut self, delta: &str, out: &mut Vec<u8>) {
        let Some(Body::Call { arguments, custom, .. }) = self.current() else { return };
        arguments.push_str(delta);
        let name = if *custom { "response.custom_tool_call_input.delta" } else { "response.function_call_arguments.delta" };
        self.about_item(out, name, |_, out| {
            fields!(out, "delta": delta);
        });
    }
}

impl Writer for EventWriter {
    fn delta(&mut self, delta: &Delta<'_>, out: &mut Vec<u8>) {
        match *delta {
            Delta::Start { model, .. } => {
                if self.model.is_empty() {
                    model.clone_into(&mut self.model);
                }
                self.start(out);
            }
            Delta::Text { choice: 0, text } if !text.is_empty() => self.text(text, out),
            Delta::Refusal { choice: 0, text } if !text.is_empty() => self.refusal(text, out),
            Delta::Reasoning { choice: 0, text } if !text.is_empty() => self.reasoning(text, out),
            Delta::Detail { choice: 0, detail } => self.detail(detail, out),
            Delta::Call { choice: 0, id, name, .. } => self.call(id, name, out),
            Delta::Arguments { choice: 0, json, index } if !json.is_empty() && index + 1 == self.calls => self.arguments(json, out),
            Delta::Annotation { choice: 0, json } => self.annotation(json, out),
            Delta::Image { choice: 0, url } => self.open_item(Body::Image { url: url.to_owned() }, out),
            Delta::Logprobs { choice: 0, json } => self.logprobs(json, out),
            Delta::Finish { choice: 0, reason } => self.finish = Some(reason),
            Delta::Usage(usage) => self.usage = Some(usage),
            // A Responses request cannot ask for more than one choice.
            _ => {}
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        self.start(out);
        let (status, incomplete) = self.close(out);
        let name = if status == "completed" { "response.completed" } else { "response.incomplete" };
        self.whole(out, name, status, incomplete, None);
    }

    fn error(&mut self, error: &ClientError, out: &mut Vec<u8>) {
        self.start(out);
        // What is open stays open: nothing may look as if it had come to its end.
        if let Some(item) = self.items.last_mut().filter(|_| self.open) {
            item.status = "incomplete";
        }
        let failure = Failure { code: failure_code(error), message: &error.message };
        self.whole(out, "response.failed", "failed", None, Some(failure));
    }
}
