//! What an upstream is told to do: answers in one piece or in many, pauses, gates, and every way to break off.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::watch;

/// What the upstream does with one request.
#[derive(Debug, Clone)]
pub enum Behaviour {
    /// Answers in one piece.
    Answer {
        /// The status.
        status: u16,
        /// Headers beside the content's length.
        headers: Vec<(String, String)>,
        /// The body.
        body: Bytes,
    },
    /// Answers piece by piece.
    Stream(Stream),
    /// Closes the connection without a word.
    Close,
    /// Says nothing at all, until the client leaves.
    Hang,
    /// What the fixed mock of every dialect says.
    Usual,
}

impl Behaviour {
    /// JSON with 200.
    #[must_use]
    pub fn json(body: &Value) -> Self {
        Self::status(200, body)
    }

    /// JSON with a status.
    #[must_use]
    pub fn status(status: u16, body: &Value) -> Self {
        Self::bytes(status, "application/json", body.to_string())
    }

    /// Any body with a status.
    pub fn bytes(status: u16, content_type: &str, body: impl Into<Bytes>) -> Self {
        Behaviour::Answer { status, headers: vec![("content-type".into(), content_type.into())], body: body.into() }
    }

    /// OpenAI's error body.
    #[must_use]
    pub fn error(status: u16, message: &str) -> Self {
        Self::status(status, &json!({ "error": { "message": message, "type": "server_error", "param": null, "code": null } }))
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        match &mut self {
            Behaviour::Answer { headers, .. } => headers.push((name.into(), value.into())),
            Behaviour::Stream(stream) => stream.headers.push((name.into(), value.into())),
            _ => {}
        }
        self
    }
}

impl From<Stream> for Behaviour {
    fn from(stream: Stream) -> Self {
        Behaviour::Stream(stream)
    }
}

/// An answer in pieces.
#[derive(Debug, Clone)]
pub struct Stream {
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) steps: Vec<Step>,
    pub(crate) ending: Ending,
}

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Send(Bytes),
    Pause(Duration),
    Wait(Gate),
    Flood(Bytes, usize),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Ending {
    Clean,
    Cut,
    Hang,
}

impl Stream {
    /// A stream of this content type.
    #[must_use]
    pub fn new(content_type: &str) -> Self {
        Stream { headers: vec![("content-type".into(), content_type.into())], steps: Vec::new(), ending: Ending::Clean }
    }

    /// Server-sent events.
    #[must_use]
    pub fn sse() -> Self {
        Self::new("text/event-stream")
    }

    /// Sends these bytes as one chunk.
    #[must_use]
    pub fn send(mut self, bytes: impl Into<Bytes>) -> Self {
        self.steps.push(Step::Send(bytes.into()));
        self
    }

    /// Sends each of these as one chunk.
    #[must_use]
    pub fn all<B: Into<Bytes>>(mut self, pieces: impl IntoIterator<Item = B>) -> Self {
        self.steps.extend(pieces.into_iter().map(|p| Step::Send(p.into())));
        self
    }

    /// Waits for a while.
    #[must_use]
    pub fn pause(mut self, time: Duration) -> Self {
        self.steps.push(Step::Pause(time));
        self
    }

    /// Waits until the test opens the gate.
    #[must_use]
    pub fn wait(mut self, gate: &Gate) -> Self {
        self.steps.push(Step::Wait(gate.clone()));
        self
    }

    /// Sends the same bytes many times over, as fast as they are taken.
    #[must_use]
    pub fn flood(mut self, bytes: impl Into<Bytes>, times: usize) -> Self {
        self.steps.push(Step::Flood(bytes.into(), times));
        self
    }

    /// The first half of the steps alone.
    #[must_use]
    pub fn halved(mut self) -> Self {
        self.steps.truncate(self.steps.len().div_ceil(2));
        self
    }

    /// Closes the socket instead of ending the body.
    #[must_use]
    pub fn cut(mut self) -> Self {
        self.ending = Ending::Cut;
        self
    }

    /// Goes silent instead of ending the body.
    #[must_use]
    pub fn hang(mut self) -> Self {
        self.ending = Ending::Hang;
        self
    }
}

/// Something that the upstream waits for and the test decides about.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    /// A closed gate.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets everyone pass from now on.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    pub(crate) async fn pass(&self) {
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}
