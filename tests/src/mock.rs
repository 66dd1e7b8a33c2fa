//! An upstream that does as it is told. Written on bare sockets, so that it can break every rule of HTTP at the byte where
//! the test wants it broken; it records every request as it came.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::client::PATIENCE;
use crate::dialects;
pub use crate::script::{Behaviour, Gate, Stream};
use crate::script::{Ending, Step};

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

/// What one request was given: a line of the upstream's own bill.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Served {
    /// The model that was asked for.
    pub model: String,
    /// How many chunks of a stream were written.
    pub chunks: usize,
    /// Tokens of prompt and completion as the answer told them, the last word of it; `None` if it told nothing.
    pub told: Option<(u64, u64)>,
    /// Whether the answer came to its end.
    pub complete: bool,
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
    /// In the order of `received`.
    served: Mutex<Vec<Served>>,
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

    /// What the requests for a model were given, in the order in which they came.
    #[must_use]
    pub fn bill(&self, model: &str) -> Vec<Served> {
        self.shared.served.lock().unwrap().iter().filter(|served| served.model == model).cloned().collect()
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
        let model = request.model();
        let behaviour = shared.behaviour(&model, &request);
        let serving = shared.begin(model, request);
        // Who is gone is noticed by reading, or by writing to nobody.
        let kept = tokio::select! {
            kept = perform(&serving, &mut write, behaviour) => kept.ok(),
            () = gone(&mut read, &mut buffer) => None,
        };
        if kept.is_none() {
            shared.left.fetch_add(1, SeqCst);
            shared.changed.notify_waiters();
        }
        if kept != Some(true) {
            return;
        }
    }
}

impl Shared {
    fn behaviour(&self, model: &str, request: &Received) -> Behaviour {
        let mut scripts = self.scripts.lock().unwrap();
        let key = if scripts.contains_key(model) { model } else { request.route() };
        let scripted = scripts.get_mut(key).and_then(|queue| if queue.len() > 1 { queue.pop_front() } else { queue.front().cloned() });
        match scripted {
            None | Some(Behaviour::Usual) => dialects::answer(request),
            Some(other) => other,
        }
    }

    fn begin(&self, model: String, request: Received) -> Serving<'_> {
        let mut received = self.received.lock().unwrap();
        let line = received.len();
        received.push(request);
        self.served.lock().unwrap().push(Served { model, ..Served::default() });
        self.changed.notify_waiters();
        Serving { shared: self, line }
    }
}

/// A request on its way, and its line on the bill.
struct Serving<'a> {
    shared: &'a Shared,
    line: usize,
}

impl Serving<'_> {
    fn note(&self, what: impl FnOnce(&mut Served)) {
        what(&mut self.shared.served.lock().unwrap()[self.line]);
    }

    /// Writes down what these bytes say was used.
    fn tell(&self, bytes: &[u8]) {
        if let Some(told) = told(bytes) {
            self.note(|served| served.told = Some(told));
        }
    }
}

/// Tokens of prompt and completion as an answer in OpenAI's words tells them, by its last word on it.
#[must_use]
pub fn told(bytes: &[u8]) -> Option<(u64, u64)> {
    let text = String::from_utf8_lossy(bytes);
    let (_, usage) = text.rsplit_once("\"usage\":{")?;
    let number = |name: &str| usage.split_once(name)?.1.split([',', '}']).next()?.trim().parse().ok();
    Some((number("\"prompt_tokens\":")?, number("\"completion_tokens\":")?))
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
async fn perform(serving: &Serving<'_>, write: &mut OwnedWriteHalf, behaviour: Behaviour) -> std::io::Result<bool> {
    match behaviour {
        Behaviour::Close | Behaviour::Usual => Ok(false),
        Behaviour::Hang => std::future::pending().await,
        Behaviour::Answer { status, headers, body } => {
            let mut out = head(status, &headers);
            out.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
            write.write_all(&[out.as_bytes(), &body].concat()).await?;
            serving.tell(&body);
            serving.note(|served| served.complete = true);
            Ok(true)
        }
        Behaviour::Stream(stream) => {
            let mut out = head(200, &stream.headers);
            out.push_str("transfer-encoding: chunked\r\n\r\n");
            write.write_all(out.as_bytes()).await?;
            for step in stream.steps {
                match step {
                    Step::Send(bytes) => chunk(serving, write, &bytes).await?,
                    Step::Pause(time) => tokio::time::sleep(time).await,
                    Step::Wait(gate) => gate.pass().await,
                    Step::Flood(bytes, times) => {
                        for _ in 0..times {
                            chunk(serving, write, &bytes).await?;
                        }
                    }
                }
            }
            match stream.ending {
                Ending::Clean => {
                    write.write_all(b"0\r\n\r\n").await?;
                    serving.note(|served| served.complete = true);
                    Ok(true)
                }
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

async fn chunk(serving: &Serving<'_>, write: &mut OwnedWriteHalf, bytes: &[u8]) -> std::io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    write.write_all(&[format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()).await?;
    serving.shared.written.fetch_add(bytes.len() as u64, SeqCst);
    serving.note(|served| served.chunks += 1);
    serving.tell(bytes);
    Ok(())
}
