//! What happens to a stream between the upstream and the client: it is tapped where both speak the same dialect, and read
//! and written anew where they do not. Pure: bytes in, bytes out, no timer, no queue.

mod tap;

use bytes::Bytes;
use providers::answer::{Delta, Finish};
use providers::door::{ClientError, Writer, door};
use providers::sse::Cutter;
use providers::usage::Usage;
use providers::{Dialect, Error, Transcoder};

use tap::Tap;

/// What has been seen of a stream so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Seen {
    /// Whether there was more than a greeting: text, a call, anything that a client would show.
    pub content: bool,
    /// What it used.
    pub usage: Option<Usage>,
    /// Why it ended.
    pub finish: Option<Finish>,
    /// How many bytes of text came: for an estimate where there is no usage.
    pub text: u64,
    /// How much of it had come when the usage was told last.
    pub counted: u64,
    /// Whether it has come to its end.
    pub done: bool,
}

impl Seen {
    /// Takes in what the provider tells of usage; what comes after it is not in it.
    fn tells(&mut self, usage: Usage) {
        self.usage = Some(usage);
        self.counted = self.text;
    }
}

/// One stream on its way.
pub struct Flow {
    /// What has been seen.
    pub seen: Seen,
    mode: Mode,
    limit: usize,
}

enum Mode {
    Pass(Tap),
    Translate { cutter: Cutter, transcoder: Box<dyn Transcoder>, writer: Box<dyn Writer> },
}

impl Flow {
    /// A stream whose bytes pass. Events may be `limit` bytes long.
    #[must_use]
    pub fn pass(dialect: Dialect, strip_usage: bool, limit: usize) -> Self {
        Flow { seen: Seen::default(), mode: Mode::Pass(Tap::new(dialect, strip_usage)), limit }
    }

    /// A stream that is read and written anew.
    #[must_use]
    pub fn translate(cutter: Cutter, transcoder: Box<dyn Transcoder>, writer: Box<dyn Writer>, limit: usize) -> Self {
        Flow { seen: Seen::default(), mode: Mode::Translate { cutter, transcoder, writer }, limit }
    }

    /// Takes what came from the upstream and gives what goes to the client; empty if nothing does yet.
    ///
    /// # Errors
    /// When the upstream reports an error, or what it sends cannot be read.
    pub fn push(&mut self, frame: Bytes) -> Result<Bytes, Error> {
        match &mut self.mode {
            Mode::Pass(tap) => tap.push(frame, &mut self.seen, self.limit),
            Mode::Translate { cutter, transcoder, writer } => {
                let mut out = Vec::with_capacity(frame.len() + 256);
                let seen = &mut self.seen;
                let mut sink = |delta: Delta<'_>| {
                    note(seen, &delta);
                    writer.delta(&delta, &mut out);
                };
                cutter.push(&frame, |event| transcoder.event(&event, &mut sink))?;
                Ok(out.into())
            }
        }
    }

    /// The upstream has closed the stream.
    ///
    /// # Errors
    /// When it had not come to its end.
    pub fn end(&mut self) -> Result<Bytes, Error> {
        match &mut self.mode {
            Mode::Pass(tap) => tap.end(&mut self.seen),
            Mode::Translate { cutter, transcoder, writer } => {
                let mut out = Vec::new();
                let seen = &mut self.seen;
                let mut sink = |delta: Delta<'_>| {
                    note(seen, &delta);
                    writer.delta(&delta, &mut out);
                };
                cutter.end(|event| transcoder.event(&event, &mut sink))?;
                transcoder.end(&mut sink)?;
                self.seen.done = true;
                writer.end(&mut out);
                Ok(out.into())
            }
        }
    }

    /// The event that tells the client that the stream ends badly.
    #[must_use]
    pub fn fail(&mut self, error: &ClientError) -> Bytes {
        match &mut self.mode {
            Mode::Pass(tap) => door(tap.dialect).error_event(error).into(),
            Mode::Translate { writer, .. } => {
                let mut out = Vec::new();
                writer.error(error, &mut out);
                out.into()
            }
        }
    }
}

/// Takes a delta into what has been seen.
pub fn note(seen: &mut Seen, delta: &Delta<'_>) {
    match delta {
        Delta::Start { .. } => {}
        Delta::Usage(usage) => seen.tells(*usage),
        Delta::Finish { reason, .. } => {
            seen.content = true;
            seen.finish = Some(*reason);
        }
        Delta::Text { text, .. } | Delta::Reasoning { text, .. } | Delta::Refusal { text, .. } | Delta::Arguments { json: text, .. } => {
            seen.content = true;
            seen.text += text.len() as u64;
        }
        _ => seen.content = true,
    }
}
