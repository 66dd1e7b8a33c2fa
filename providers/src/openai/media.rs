//! What answers of pictures and sound tell of their usage, read along while their bytes pass: bodies of JSON, streams of events,
//! and texts. What is kept of them is bounded, however long a picture is.

mod scan;

use serde_json::Value;

use crate::Operation;
use crate::usage::Usage;
use scan::Scan;

/// Longest beginning of a line that is looked at.
const LINE: usize = 64;
/// More than any one answer has of anything: a figure above is none.
const ABSURD: f64 = 1e9;

/// What there is to know of an answer for its bill. A figure that is none counts as not told.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Told {
    /// Tokens of what was sent, where the provider counts them.
    pub prompt: Option<Usage>,
    /// Tokens of what was made.
    pub answer: Option<Usage>,
    /// Of how many pictures the tokens are in it.
    pub counted: u64,
    /// How long the sound is.
    pub seconds: Option<f64>,
    /// Whether the provider counts that time and no tokens.
    pub timed: bool,
    /// Bytes of text that were heard, where there was text to read.
    pub text: Option<u64>,
    /// How many pictures came.
    pub pictures: u64,
    /// Their size, as `1024x1024`.
    pub size: Option<String>,
    /// Their quality.
    pub quality: Option<String>,
    /// Whether it says an error.
    pub failed: bool,
}

/// Reads along in one answer.
#[derive(Debug)]
pub struct Along {
    operation: Operation,
    form: Form,
    told: Told,
    /// Bytes of text by pieces: where a stream ends early, its last event does not say them again.
    pieces: Option<u64>,
    /// Whether an event has said that it is the last.
    done: bool,
}

/// What an answer is written as.
#[derive(Debug)]
enum Form {
    /// One JSON object.
    Json(Scan),
    /// Events with JSON in them.
    Events { line: Line, scan: Scan },
    /// Text, perhaps with the times at which it is said.
    Text(Line),
    /// Sound and the like: nothing to read.
    Blind,
}

/// The beginning of a line, and how long it is so far.
#[derive(Debug, Default)]
struct Line {
    begins: Vec<u8>,
    length: u64,
}

impl Line {
    fn push(&mut self, piece: &[u8]) {
        let room = LINE.saturating_sub(self.begins.len());
        self.begins.extend_from_slice(&piece[..piece.len().min(room)]);
        self.length += piece.len() as u64;
    }
}

impl Along {
    /// Begins to read an answer of this content type.
    #[must_use]
    pub fn new(operation: Operation, content_type: &str) -> Self {
        let kind = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let form = match &*kind {
            "text/event-stream" => Form::Events { line: Line::default(), scan: Scan::default() },
            "application/json" => Form::Json(Scan::default()),
            _ if matches!(operation, Operation::Transcriptions | Operation::Translations) => Form::Text(Line::default()),
            _ => Form::Blind,
        };
        Along { operation, form, told: Told::default(), pieces: None, done: false }
    }

    /// Reads the next piece.
    pub fn push(&mut self, piece: &[u8]) {
        let mut rest = piece;
        match &mut self.form {
            Form::Blind => return,
            Form::Json(scan) => return scan.push(piece),
            Form::Events { .. } | Form::Text(_) => {}
        }
        while let Some(end) = memchr::memchr(b'\n', rest) {
            self.part(&rest[..end]);
            self.end_of_line();
            rest = &rest[end + 1..];
        }
        self.part(rest);
    }

    /// A part of a line.
    fn part(&mut self, part: &[u8]) {
        match &mut self.form {
            Form::Text(line) => line.push(part),
            Form::Events { line, scan } => {
                let before = line.begins.len();
                line.push(part);
                if line.begins.starts_with(b"data:") {
                    scan.push(&part[5_usize.saturating_sub(before).min(part.len())..]);
                }
            }
            Form::Json(_) | Form::Blind => {}
        }
    }

    fn end_of_line(&mut self) {
        match &mut self.form {
            Form::Text(line) => {
                let line = std::mem::take(line);
                self.heard(&line);
            }
            Form::Events { line, scan } => {
                let begins = std::mem::take(line).begins;
                self.done |= begins.strip_prefix(b"data:").is_some_and(|data| data.trim_ascii() == b"[DONE]");
                if begins.trim_ascii().is_empty() {
                    let event = std::mem::take(scan);
                    self.event(event);
                }
            }
            Form::Json(_) | Form::Blind => {}
        }
    }

    /// Whether a stream of so many pictures, or of sound, has said all: who leaves then has not left early.
    #[must_use]
    pub fn is_done(&self, pictures: u64) -> bool {
        matches!(self.form, Form::Events { .. }) && (self.done || self.told.pictures >= pictures)
    }

    /// What there is to know, by now.
    pub fn told(&mut self) -> Told {
        match std::mem::replace(&mut self.form, Form::Blind) {
            Form::Json(scan) | Form::Events { scan, .. } => self.event(scan),
            Form::Text(line) => self.heard(&line),
            Form::Blind => {}
        }
        let mut told = std::mem::take(&mut self.told);
        told.text = told.text.max(self.pieces);
        // Nought for an answer that says something is not a figure.
        let something = told.text > Some(0) || told.pictures > 0 || self.operation == Operation::Speech;
        if something && told.answer.is_some_and(|answer| answer.completion() == 0) {
            (told.answer, told.counted) = (None, 0);
        }
        told
    }

    /// A line of text: what was heard, or in subtitles when it was.
    fn heard(&mut self, line: &Line) {
        let begins = line.begins.trim_ascii();
        let pieces = self.pieces.get_or_insert(0);
        if let Some(at) = memchr::memmem::find(begins, b"-->") {
            self.told.seconds = moment(begins[at + 3..].trim_ascii_start()).or(self.told.seconds);
        } else if begins != b"WEBVTT" && !begins.iter().all(u8::is_ascii_digit) {
            *pieces += line.length;
        }
    }

    /// One object: the whole answer, or an event of it.
    fn event(&mut self, scan: Scan) {
        let told = &mut self.told;
        let completed = scan.kind.ends_with(".completed");
        self.done |= scan.kind.ends_with(".done");
        self.pieces = scan.pieces.map(|length| self.pieces.unwrap_or_default() + length).or(self.pieces);
        told.text = told.text.max(scan.text);
        told.pictures += scan.pictures + u64::from(completed);
        told.failed |= scan.failed || scan.kind == "error";
        told.size = scan.size.or(told.size.take());
        told.quality = scan.quality.or(told.quality.take());
        told.seconds = scan.duration.and_then(|raw| number(&serde_json::from_str(&raw).ok()?)).or(told.seconds);
        // A sketch of a picture says nothing of what the picture will have used.
        let usage = scan.usage.filter(|_| !scan.kind.ends_with(".partial_image")).and_then(|raw| serde_json::from_str::<Value>(&raw).ok());
        let Some(usage) = usage else { return };
        let (prompt, answer) = counted(&usage, self.operation);
        let seconds = number(&usage["seconds"]);
        told.timed |= seconds.is_some() && prompt.is_none() && answer.is_none();
        told.seconds = seconds.or_else(|| number(&usage["prompt_audio_seconds"])).or(told.seconds);
        if answer.is_some() {
            told.counted = if completed { told.counted.saturating_add(1) } else { u64::MAX };
        }
        for (told, counted) in [(&mut told.prompt, prompt), (&mut told.answer, answer)] {
            match (told.as_mut(), counted) {
                // Of several pictures each is told with its own.
                (Some(before), Some(counted)) if completed => before.add(&counted),
                (_, Some(counted)) => *told = Some(counted),
                (_, None) => {}
            }
        }
    }
}

/// `00:01:02,500`, `01:02.500`: hours, minutes and seconds.
fn moment(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(text).ok()?.split_ascii_whitespace().next()?.replace(',', ".");
    text.split(':').try_fold(0.0, |sum, part| Some(sum * 60.0 + part.parse::<f64>().ok()?))
}

/// A number as hosts write it: a float too, or in quotes.
fn number(value: &Value) -> Option<f64> {
    let number = value.as_f64().or_else(|| value.as_str()?.trim().parse().ok())?;
    (0.0..=ABSURD).contains(&number).then_some(number)
}

/// Tokens of what was sent and of what was made, as far as a usage object tells them.
fn counted(usage: &Value, operation: Operation) -> (Option<Usage>, Option<Usage>) {
    let figure = |value: &Value| number(value).map(|n| n.ceil() as u64);
    let named = |names: [&str; 2]| names.iter().find_map(|name| figure(&usage[*name]));
    // A transcription has its details in the singular.
    let detail = |name: &str| ["input_token_details", "input_tokens_details", "prompt_tokens_details"].iter().find_map(|details| figure(&usage[*details][name]));
    let total = figure(&usage["total_tokens"]);
    let (sent, made) = (named(["input_tokens", "prompt_tokens"]), named(["output_tokens", "completion_tokens"]));
    let rest = |other: Option<u64>| total?.checked_sub(other?);
    // What was sent is never nothing.
    let (prompt, answer) = (sent.or_else(|| rest(made)).filter(|n| *n > 0), made.or_else(|| rest(sent)));
    let prompt = prompt.map(|prompt| {
        let cache_read = detail("cached_tokens").unwrap_or_default().min(prompt);
        let input = prompt - cache_read;
        if !matches!(operation, Operation::Transcriptions | Operation::Translations) {
            return Usage { input, cache_read, ..Usage::default() };
        }
        // Mistral has the sound in the total alone. What is not said to be text is sound: it is what was sent.
        let beside = total.zip(answer).map_or(0, |(total, answer)| total.saturating_sub(prompt + answer));
        let sound = detail("audio_tokens").or_else(|| detail("text_tokens").map(|text| input.saturating_sub(text))).unwrap_or(if beside > 0 { 0 } else { input }).min(input);
        Usage { input: input - sound, cache_read, input_audio: sound + beside, ..Usage::default() }
    });
    let answer = answer.map(|answer| match operation {
        Operation::Speech => Usage { output_audio: answer, ..Usage::default() },
        _ => Usage { output: answer, ..Usage::default() },
    });
    (prompt, answer)
}

#[cfg(test)]
mod tests;
