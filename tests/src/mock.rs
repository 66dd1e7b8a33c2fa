//! An upstream that does as it is told. Written on bare sockets, so that it can break every rule of HTTP at the byte where
//! the test wants it broken; it records every request as it came.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

use crate::client::PATIENCE;
use crate::dialects;

/// A request as it was received.
#[derive(Debug, Clone)]
pub struct Received {
    /// `POST`.
    pub method: String,
    /// Path and query, as they came.
    pub path: String,
    /// Headers in their order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
    /// Which connection it came on, counted from 0.
    pub connection: usize,
}

impl Received {
    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The body as JSON; null if it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The path without its query.
    #[must_use]
    pub fn route(&self) -> &str {
        self.path.split('?').next().unwrap_or_default()
    }

    /// The model that is asked for: by the body, or by the path where the dialect has it there.
    #[must_use]
    pub fn model(&self) -> String {
        if let Some(model) = self.json()["model"].as_str() {
            return model.to_owned();
        }
        let mut segments = self.route().split('/').skip_while(|s| !matches!(*s, "model" | "models" | "deployments"));
        segments.next();
        segments.next().unwrap_or_default().split(':').next().unwrap_or_default().to_owned()
    }
}

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
    headers: Vec<(String, String)>,
    steps: Vec<Step>,
    ending: Ending,
}

#[derive(Debug, Clone)]
enum Step {
    Send(Bytes),
    Pause(Duration),
    Wait(Gate),
    Flood(Bytes, usize),
}

#[derive(Debug, Clone, Copy)]
enum Ending {
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

    async fn pass(&self) {
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

/// The upstream. It listens until it is dropped.
pub struct Mock {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Shared {
    scripts: Mutex<HashMap<String, VecDeque<Behaviour>>>,
    received: Mutex<Vec<Received>>,
    changed: Notify,
    left: AtomicUsize,
    connections: AtomicUsize,
    written: AtomicU64,
}

impl Mock {
    /// An upstream on a port of its own.
    pub async fn start() -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0))).await.expect("a port on loopback")
    }

    /// An upstream at this address.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub async fn at(address: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let shared = Arc::<Shared>::default();
        let accepting = tokio::spawn(accept(listener, shared.clone()));
        Ok(Mock { address, shared, accepting })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What happens to requests for this model, or on this path: one behaviour after the other, and the last for good.
    pub fn on(&self, key: &str, behaviours: impl IntoIterator<Item = Behaviour>) {
        self.shared.scripts.lock().unwrap().insert(key.to_owned(), behaviours.into_iter().collect());
    }

    /// All requests so far.
    #[must_use]
    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap().clone()
    }

    /// The requests for a model.
    #[must_use]
    pub fn asked(&self, model: &str) -> Vec<Received> {
        self.received().into_iter().filter(|r| r.model() == model).collect()
    }

    /// The last request.
    #[must_use]
    pub fn last(&self) -> Received {
        self.received().pop().expect("a request at the upstream")
    }

    /// How many requests were left by the client before their end.
    #[must_use]
    pub fn left(&self) -> usize {
        self.shared.left.load(SeqCst)
    }

    /// How many bytes were written in streams.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.shared.written.load(SeqCst)
    }

    /// Waits until something that the mock has seen is as the test wants it.
    pub async fn until(&self, what: &str, ready: impl Fn(&Mock) -> bool) {
        let waiting = async {
            loop {
                let changed = self.shared.changed.notified();
                if ready(self) {
                    return;
                }
                // The figures change without a word too: look again now and then.
                let _ = tokio::time::timeout(Duration::from_millis(50), changed).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("the upstream waited in vain: {what}"));
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// An address on loopback that refuses connections: one that was free a moment ago.
#[must_use]
pub fn refused() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a port on loopback")
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let number = shared.connections.fetch_add(1, SeqCst);
        tokio::spawn(connection(shared.clone(), stream, number));
    }
}

async fn connection(shared: Arc<Shared>, stream: TcpStream, number: usize) {
    let _ = stream.set_nodelay(true);
    let (mut read, mut write) = stream.into_split();
    let mut buffer = BytesMut::new();
    while let Some(request) = read_request(&mut read, &mut buffer, number).await {
        let behaviour = shared.behaviour(&request);
        shared.received.lock().unwrap().push(request);
        shared.changed.notify_waiters();
        let keep = tokio::select! {
            kept = perform(&shared, &mut write, behaviour) => kept.unwrap_or(false),
            () = gone(&mut read, &mut buffer) => {
                shared.left.fetch_add(1, SeqCst);
                shared.changed.notify_waiters();
                false
            }
        };
        if !keep {
            return;
        }
    }
}

impl Shared {
    fn behaviour(&self, request: &Received) -> Behaviour {
        let mut scripts = self.scripts.lock().unwrap();
        let model = request.model();
        let key = if scripts.contains_key(&model) { model.as_str() } else { request.route() };
        let scripted = scripts.get_mut(key).and_then(|queue| if queue.len() > 1 { queue.pop_front() } else { queue.front().cloned() });
        match scripted {
            None | Some(Behaviour::Usual) => dialects::answer(request),
            Some(other) => other,
        }
    }
}

/// Done when the client has closed its side.
async fn gone(read: &mut OwnedReadHalf, buffer: &mut BytesMut) {
    while read.read_buf(buffer).await.is_ok_and(|n| n > 0) {}
}

/// Reads one request; `None` when there are no more.
async fn read_request(read: &mut OwnedReadHalf, buffer: &mut BytesMut, connection: usize) -> Option<Received> {
    let end = loop {
        if let Some(at) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            break at;
        }
        if read.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&buffer.split_to(end + 4)).into_owned();
    let mut lines = head.trim_end().split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, path) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers: Vec<(String, String)> = lines.filter_map(|l| l.split_once(':')).map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned())).collect();
    let mut request = Received { method, path, headers, body: Bytes::new(), connection };
    let length = request.header("content-length").and_then(|l| l.parse::<usize>().ok()).unwrap_or(0);
    while buffer.len() < length {
        if read.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    request.body = buffer.split_to(length).freeze();
    Some(request)
}

/// Does what the behaviour says; tells whether the connection can be used again.
async fn perform(shared: &Shared, write: &mut OwnedWriteHalf, behaviour: Behaviour) -> std::io::Result<bool> {
    match behaviour {
        Behaviour::Close | Behaviour::Usual => Ok(false),
        Behaviour::Hang => std::future::pending().await,
        Behaviour::Answer { status, headers, body } => {
            let mut out = head(status, &headers);
            out.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
            write.write_all(&[out.as_bytes(), &body].concat()).await?;
            Ok(true)
        }
        Behaviour::Stream(stream) => {
            let mut out = head(200, &stream.headers);
            out.push_str("transfer-encoding: chunked\r\n\r\n");
            write.write_all(out.as_bytes()).await?;
            for step in stream.steps {
                match step {
                    Step::Send(bytes) => chunk(shared, write, &bytes).await?,
                    Step::Pause(time) => tokio::time::sleep(time).await,
                    Step::Wait(gate) => gate.pass().await,
                    Step::Flood(bytes, times) => {
                        for _ in 0..times {
                            chunk(shared, write, &bytes).await?;
                        }
                    }
                }
            }
            match stream.ending {
                Ending::Clean => write.write_all(b"0\r\n\r\n").await.map(|()| true),
                Ending::Cut => Ok(false),
                Ending::Hang => std::future::pending().await,
            }
        }
    }
}

fn head(status: u16, headers: &[(String, String)]) -> String {
    let mut out = format!("HTTP/1.1 {status} Status\r\n");
    for (name, value) in headers {
        out.push_str(&format!("{name}: {value}\r\n"));
    }
    out
}

async fn chunk(shared: &Shared, write: &mut OwnedWriteHalf, bytes: &[u8]) -> std::io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    write.write_all(&[format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()).await?;
    shared.written.fetch_add(bytes.len() as u64, SeqCst);
    Ok(())
}
