//! The upstream: an LLM provider that answers at once, always the same, for as little CPU as can be.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use memchr::memmem;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{Instant, sleep_until},
};

use crate::{
    answers::{self, Dialect},
    http1::{Framing, Head, Inbox},
    shape::Shape,
};

/// More connections than this wait to be accepted.
const MOST_CONNECTIONS: usize = 4096;

/// Bursts that are kept ready.
const MOST_BURSTS: usize = 64;

/// Takes a port on loopback, and on nothing else.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    if !address.ip().is_loopback() {
        return Err(io::Error::other("the mock listens on loopback only"));
    }
    TcpListener::bind(address).await
}

/// Answers until the task is dropped.
pub async fn serve(listener: TcpListener) -> io::Result<()> {
    let ready = Arc::new(Ready::default());
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return Ok(()) };
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let ready = Arc::clone(&ready);
        tokio::spawn(async move {
            // A client that goes away in the middle of a stream is no event.
            let _ = Connection { stream, inbox: Inbox::default(), body: Vec::new() }.serve(&ready).await;
            drop(place);
        });
    }
}

/// Dialect, tokens, and whether usage was asked for.
type Burst = (Dialect, u32, bool);

/// Answers that are made once.
struct Ready {
    openai: Vec<u8>,
    anthropic: Vec<u8>,
    bursts: Mutex<HashMap<Burst, Arc<[u8]>>>,
}

impl Default for Ready {
    fn default() -> Self {
        Self { openai: answers::whole(Dialect::OpenAi), anthropic: answers::whole(Dialect::Anthropic), bursts: Mutex::default() }
    }
}

impl Ready {
    fn burst(&self, dialect: Dialect, tokens: u32, usage: bool) -> Arc<[u8]> {
        let mut bursts = self.bursts.lock().unwrap_or_else(PoisonError::into_inner);
        if bursts.len() >= MOST_BURSTS {
            bursts.clear();
        }
        Arc::clone(bursts.entry((dialect, tokens, usage)).or_insert_with(|| answers::burst(dialect, tokens, usage).into()))
    }
}

/// What a request line asks for.
enum Route {
    Chat(Dialect),
    Health,
    Unknown,
}

impl Route {
    fn of(head: &Head<'_>) -> Self {
        match head.line.split(|byte| *byte == b' ' || *byte == b'?').take(2).collect::<Vec<_>>()[..] {
            [b"POST", b"/v1/chat/completions"] => Self::Chat(Dialect::OpenAi),
            [b"POST", b"/v1/messages"] => Self::Chat(Dialect::Anthropic),
            [b"GET", b"/healthz"] => Self::Health,
            _ => Self::Unknown,
        }
    }
}

struct Connection {
    stream: TcpStream,
    inbox: Inbox,
    body: Vec<u8>,
}

impl Connection {
    async fn serve(mut self, ready: &Ready) -> io::Result<()> {
        loop {
            let (route, mut framing) = loop {
                if let Some(head) = self.inbox.head().map_err(io::Error::other)? {
                    break (Route::of(&head), head.framing.unwrap_or(Framing::Length(0)));
                }
                if !self.receive().await? {
                    return Ok(());
                }
            };
            self.body.clear();
            while !self.inbox.body(&mut framing, |part| self.body.extend_from_slice(part)).map_err(io::Error::other)? {
                if !self.receive().await? {
                    return Ok(());
                }
            }
            match route {
                Route::Chat(dialect) => self.chat(dialect, ready).await?,
                Route::Health => self.stream.write_all(&answers::json("200 OK", "{}")).await?,
                Route::Unknown => self.stream.write_all(&answers::json("404 Not Found", r#"{"error":{"message":"the mock does not know this path","type":"invalid_request_error"}}"#)).await?,
            }
        }
    }

    async fn receive(&mut self) -> io::Result<bool> {
        let count = self.stream.read(self.inbox.space()).await?;
        self.inbox.received(count);
        Ok(count > 0)
    }

    async fn chat(&mut self, dialect: Dialect, ready: &Ready) -> io::Result<()> {
        if memmem::find(&self.body, br#""stream":true"#).is_none() {
            return self.stream.write_all(if dialect == Dialect::OpenAi { &ready.openai } else { &ready.anthropic }).await;
        }
        let usage = memmem::find(&self.body, br#""include_usage":true"#).is_some();
        match Shape::in_body(&self.body).unwrap_or(Shape::Burst(20)) {
            Shape::Burst(tokens) => self.stream.write_all(&ready.burst(dialect, tokens, usage)).await,
            Shape::Paced(tokens, every) => {
                let begin = Instant::now();
                let mut wire = Vec::new();
                answers::open(&mut wire, dialect);
                for token in 0..tokens {
                    // The runtime's timer would make even the first wait for the next millisecond.
                    if token > 0 {
                        sleep_until(begin + every * token).await;
                    }
                    answers::token(&mut wire, dialect, Some(nanoseconds()));
                    self.stream.write_all(&wire).await?;
                    wire.clear();
                }
                answers::close(&mut wire, dialect, tokens, usage);
                self.stream.write_all(&wire).await
            }
        }
    }
}

/// Now, as paced tokens are stamped.
pub fn nanoseconds() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos())
}
