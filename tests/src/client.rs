//! A client on bare sockets: it can send what no library would, and it looks at every response twice. A header whose name
//! is not on the list fails the test, and so does any secret of the configuration in head or body.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::mock::Gate;

/// How long a test waits for anything: far longer than the slowest machine needs.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The names of headers that the gateway may send. A new one is added here on purpose, or not at all.
const ALLOWED: &[&str] = &[
    "allow",
    "cache-control",
    "connection",
    "content-disposition",
    "content-encoding",
    "content-length",
    "content-security-policy",
    "content-type",
    "cross-origin-opener-policy",
    "date",
    "location",
    "openai-processing-ms",
    "openai-version",
    "referrer-policy",
    "request-id",
    "retry-after",
    "retry-after-ms",
    "server-timing",
    "transfer-encoding",
    "www-authenticate",
    "x-accel-buffering",
    "x-content-type-options",
    "x-ratelimit-limit-dollars",
    "x-ratelimit-limit-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-dollars",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-dollars",
    "x-ratelimit-reset-requests",
    "x-ratelimit-reset-tokens",
    "x-request-id",
    "x-should-retry",
    "x-trivium-cost",
    "x-trivium-cost-estimate",
    "x-trivium-model",
    "x-trivium-provider",
    "x-trivium-warning",
];

/// A client of one address.
#[derive(Debug, Clone)]
pub struct Client {
    address: SocketAddr,
    secrets: Arc<Vec<String>>,
}

impl Client {
    /// A client that looks for these secrets in every response.
    #[must_use]
    pub fn new(address: SocketAddr, secrets: Arc<Vec<String>>) -> Self {
        Client { address, secrets }
    }

    /// Where it connects.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A connection of its own.
    pub async fn connect(&self) -> Connection {
        self.try_connect().await.expect("the gateway listens")
    }

    /// A connection of its own; `None` if nobody listens.
    pub async fn try_connect(&self) -> Option<Connection> {
        let stream = TcpStream::connect(self.address).await.ok()?;
        stream.set_nodelay(true).ok()?;
        Some(self.over(stream))
    }

    /// A connection over a stream that exists already, TLS for one.
    pub fn over(&self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Connection {
        Connection { stream: Box::new(stream), buffer: BytesMut::new(), secrets: self.secrets.clone(), framing: Framing::None, tail: Vec::new() }
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Response {
        self.send("GET", path, &[], b"").await
    }

    /// `POST` of JSON.
    pub async fn post(&self, path: &str, body: &Value) -> Response {
        self.send("POST", path, &[("content-type", "application/json")], body.to_string().as_bytes()).await
    }

    /// `POST` of any bytes as JSON.
    pub async fn post_bytes(&self, path: &str, body: &[u8]) -> Response {
        self.send("POST", path, &[("content-type", "application/json")], body).await
    }

    /// A chat with one message.
    pub async fn chat(&self, model: &str) -> Response {
        self.post("/v1/chat/completions", &chat(model)).await
    }

    /// Any request.
    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        let mut connection = self.connect().await;
        connection.write(&request(method, path, headers, body)).await;
        connection.response().await
    }

    /// Bytes as they are; the response to them.
    pub async fn raw(&self, bytes: &[u8]) -> Response {
        let mut connection = self.connect().await;
        connection.write(bytes).await;
        connection.response().await
    }

    /// A chat whose answer is streamed: the head has been read, the events are yet to come.
    pub async fn stream(&self, body: &Value) -> Events {
        self.events("/v1/chat/completions", &[], body).await
    }

    /// As [`Client::stream`], anywhere.
    pub async fn events(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Events {
        let mut connection = self.connect().await;
        let headers: Vec<_> = headers.iter().copied().chain([("content-type", "application/json")]).collect();
        connection.write(&request("POST", path, &headers, body.to_string().as_bytes())).await;
        let head = connection.head().await;
        Events { head, connection, buffer: BytesMut::new() }
    }
}

/// A chat request with one message.
#[must_use]
pub fn chat(model: &str) -> Value {
    serde_json::json!({ "model": model, "messages": [{ "role": "user", "content": "Say hello." }] })
}

/// The same, streamed.
#[must_use]
pub fn streamed(model: &str) -> Value {
    serde_json::json!({ "model": model, "stream": true, "messages": [{ "role": "user", "content": "Say hello." }] })
}

/// The bytes of a request with a body of known length, to `localhost` unless the headers say otherwise.
#[must_use]
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let host = if headers.iter().any(|(name, _)| *name == "host") { "" } else { "host: localhost\r\n" };
    let mut out = format!("{method} {path} HTTP/1.1\r\n{host}");
    for (name, value) in headers {
        out.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() || method == "POST" {
        out.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    out.push_str("\r\n");
    [out.as_bytes(), body].concat()
}

/// What a connection runs over.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// One connection to the gateway.
pub struct Connection {
    stream: Box<dyn Io>,
    buffer: BytesMut,
    secrets: Arc<Vec<String>>,
    framing: Framing,
    /// The end of what was read before: a secret may be split over pieces.
    tail: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    None,
    Length(usize),
    Chunked,
    Close,
}

/// The status and headers of a response.
#[derive(Debug, Clone)]
pub struct Head {
    /// The status.
    pub status: u16,
    /// Headers in their order, names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }
}

impl Connection {
    /// Sends bytes as they are.
    pub async fn write(&mut self, bytes: &[u8]) {
        // A gateway that has refused a request may have closed before all of it was sent: what it said still counts.
        let _ = self.stream.write_all(bytes).await;
        let _ = self.stream.flush().await;
    }

    /// Reads what there is; false at the end.
    async fn fill(&mut self) -> bool {
        let read = tokio::time::timeout(PATIENCE, self.stream.read_buf(&mut self.buffer)).await.expect("the gateway says something in time");
        read.is_ok_and(|n| n > 0)
    }

    /// Whether the gateway has closed the connection without another word.
    pub async fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && !self.fill().await
    }

    /// Reads the head of a response.
    pub async fn head(&mut self) -> Head {
        self.try_head().await.expect("a response")
    }

    /// Reads the head of a response; `None` if the connection closes instead.
    pub async fn try_head(&mut self) -> Option<Head> {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                break at;
            }
            if !self.fill().await {
                return None;
            }
        };
        let text = String::from_utf8(self.buffer.split_to(end + 4).to_vec()).expect("a head is text");
        self.check_secrets(text.as_bytes());
        let mut lines = text.trim_end().split("\r\n");
        let status: u16 = lines.next().and_then(|l| l.split(' ').nth(1)?.parse().ok()).expect("a status line");
        let headers: Vec<(String, String)> = lines.filter_map(|l| l.split_once(':')).map(|(n, v)| (n.to_ascii_lowercase(), v.trim().to_owned())).collect();
        let head = Head { status, headers };
        for (name, value) in &head.headers {
            assert!(ALLOWED.contains(&name.as_str()), "the header `{name}: {value}` is not on the list of the test client");
        }
        self.framing = match (head.header("transfer-encoding"), head.header("content-length")) {
            (Some("chunked"), _) => Framing::Chunked,
            (_, Some(length)) => Framing::Length(length.parse().expect("a length")),
            _ => Framing::Close,
        };
        Some(head)
    }

    /// Reads the next piece of the body. `Ok(None)` at its end, `Err` if it breaks off before.
    ///
    /// # Errors
    /// The body broke off.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, &'static str> {
        let piece = match self.framing {
            Framing::None | Framing::Length(0) => None,
            Framing::Close => {
                if self.buffer.is_empty() && !self.fill().await {
                    None
                } else {
                    Some(self.buffer.split().freeze())
                }
            }
            Framing::Length(left) => {
                if self.buffer.is_empty() && !self.fill().await {
                    return Err("the body broke off");
                }
                let now = left.min(self.buffer.len());
                self.framing = Framing::Length(left - now);
                Some(self.buffer.split_to(now).freeze())
            }
            Framing::Chunked => self.chunk().await?,
        };
        match &piece {
            Some(bytes) => self.check_secrets(bytes),
            None => self.framing = Framing::None,
        }
        Ok(piece)
    }

    async fn chunk(&mut self) -> Result<Option<Bytes>, &'static str> {
        let line = loop {
            if let Some(at) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                break at;
            }
            if !self.fill().await {
                return Err("the body broke off between two chunks");
            }
        };
        let size = self.buffer.split_to(line);
        let size = std::str::from_utf8(&size).ok().and_then(|s| usize::from_str_radix(s.trim(), 16).ok()).expect("a chunk's size");
        self.buffer.advance(2);
        while self.buffer.len() < size + 2 {
            if !self.fill().await {
                return Err("the body broke off inside a chunk");
            }
        }
        let bytes = self.buffer.split_to(size).freeze();
        self.buffer.advance(2);
        Ok((size > 0).then_some(bytes))
    }

    /// Reads a whole response.
    pub async fn response(&mut self) -> Response {
        self.try_response().await.expect("a response")
    }

    /// Reads a whole response; `None` if the connection closes instead.
    pub async fn try_response(&mut self) -> Option<Response> {
        let head = self.try_head().await?;
        let mut body = Vec::new();
        let broken = loop {
            match self.piece().await {
                Ok(Some(piece)) => body.extend_from_slice(&piece),
                Ok(None) => break false,
                Err(_) => break true,
            }
        };
        Some(Response { status: head.status, head, body: body.into(), broken })
    }

    fn check_secrets(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        let text = String::from_utf8_lossy(&self.tail);
        for secret in self.secrets.iter() {
            assert!(!text.contains(secret.as_str()), "a secret of the configuration is in a response: {text}");
        }
        let keep = self.secrets.iter().map(String::len).max().unwrap_or(0);
        self.tail.drain(..self.tail.len().saturating_sub(keep));
    }
}

/// A whole response.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// Status and headers.
    pub head: Head,
    /// The body.
    pub body: Bytes,
    /// Whether the body broke off before its end.
    pub broken: bool,
}

impl Response {
    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8(self.body.to_vec()).expect("a body of text")
    }

    /// The body as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("the body is not JSON ({e}): {}", String::from_utf8_lossy(&self.body)))
    }

    /// Asserts that this is an error in OpenAI's shape with this status and code, and returns its message.
    pub fn fault(&self, status: u16, code: &str) -> String {
        let text = String::from_utf8_lossy(&self.body);
        assert_eq!(self.status, status, "{text}");
        assert_eq!(self.header("content-type"), Some("application/json"));
        assert!(self.header("x-request-id").is_some_and(|id| !id.is_empty()), "an error without x-request-id");
        let body = self.json();
        let error = body["error"].as_object().unwrap_or_else(|| panic!("not OpenAI's shape: {text}"));
        let mut keys: Vec<&str> = error.keys().map(String::as_str).collect();
        keys.sort_unstable();
        assert_eq!(keys, ["code", "message", "param", "type"], "{text}");
        assert!(error["type"].as_str().is_some_and(|t| !t.is_empty()), "{text}");
        assert_eq!(error["code"].as_str().unwrap_or_default(), code, "{text}");
        let message = error["message"].as_str().unwrap_or_default();
        assert!(!message.is_empty(), "an error without a message");
        message.to_owned()
    }

    /// Asserts that a chat was answered, and returns its text.
    pub fn answer(&self) -> String {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        self.json()["choices"][0]["message"]["content"].as_str().expect("an answer with text").to_owned()
    }
}

/// A response of server-sent events.
pub struct Events {
    /// Status and headers.
    pub head: Head,
    /// The connection, whose next pieces are the stream's.
    pub connection: Connection,
    buffer: BytesMut,
}

impl Events {
    /// The next event as it came, without its blank line. `None` at a clean end.
    ///
    /// # Panics
    /// When the body breaks off, or ends inside an event.
    pub async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|w| w == b"\n\n") {
                let event = self.buffer.split_to(at);
                self.buffer.advance(2);
                return Some(String::from_utf8(event.to_vec()).expect("an event is text"));
            }
            match self.connection.piece().await.expect("a stream that does not break off") {
                Some(piece) => self.buffer.extend_from_slice(&piece),
                None => {
                    assert!(self.buffer.is_empty(), "the stream ends inside an event: {:?}", self.buffer);
                    return None;
                }
            }
        }
    }

    /// The next event's data.
    pub async fn data(&mut self) -> Option<String> {
        let event = self.next().await?;
        Some(event.lines().filter_map(|l| l.strip_prefix("data:")).map(str::trim_start).collect::<Vec<_>>().join("\n"))
    }

    /// The data of all events that are left.
    pub async fn rest(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(data) = self.data().await {
            all.push(data);
        }
        all
    }

    /// The data of the first event, and once that is here and the gate open, of all others: what stands behind the gate
    /// cannot have come along with it.
    pub async fn all_past(&mut self, gate: &Gate) -> Vec<String> {
        let mut all = Vec::from_iter(self.data().await);
        gate.open();
        all.extend(self.rest().await);
        all
    }

    /// The bytes of all that is left, as they come.
    pub async fn bytes(&mut self) -> Vec<u8> {
        let mut all = self.buffer.split().to_vec();
        while let Some(piece) = self.connection.piece().await.expect("a stream that does not break off") {
            all.extend_from_slice(&piece);
        }
        all
    }
}

/// The texts of a chat's chunks, joined.
#[must_use]
pub fn joined(data: &[String]) -> String {
    data.iter().filter_map(|d| serde_json::from_str::<Value>(d).ok()).filter_map(|c| c["choices"][0]["delta"]["content"].as_str().map(str::to_owned)).collect()
}
