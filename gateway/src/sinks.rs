//! Where the ledger is written: standard output, a file, HTTP (plain JSON or Loki), syslog. All of it off the request's path.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write};
use std::net::{TcpStream, ToSocketAddrs, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::config::{HttpFormat, Problem, SinkConfig};
use crate::ledger::{Entry, line};

/// Entries that may wait for an HTTP sink.
const HTTP_QUEUE: usize = 8192;
/// Most entries in one POST.
const BATCH: usize = 500;

/// All sinks.
#[derive(Default)]
pub struct Sinks {
    sinks: Vec<Sink>,
    /// Where an entry becomes a line: one piece of memory for all of them.
    line: Vec<u8>,
}

enum Sink {
    Stdout(BufWriter<std::io::Stdout>),
    File(BufWriter<File>),
    Http { queue: mpsc::Sender<String>, dropped: Arc<AtomicU64> },
    Syslog(Syslog),
}

impl Sinks {
    /// Opens the sinks.
    ///
    /// # Errors
    /// Those that cannot be opened, with their paths.
    pub fn open(config: &[SinkConfig], http: &reqwest::Client) -> Result<Self, Vec<Problem>> {
        let mut sinks = Vec::new();
        let mut problems = Vec::new();
        for (i, sink) in config.iter().enumerate() {
            match open(sink, http) {
                Ok(sink) => sinks.push(sink),
                Err(message) => problems.push(Problem::new(format!("log.audit[{i}]"), message)),
            }
        }
        if problems.is_empty() { Ok(Sinks { sinks, line: Vec::with_capacity(1024) }) } else { Err(problems) }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sinks.is_empty()
    }

    /// Writes an entry to all of them. A sink that fails is reported once per failure and never stops the others.
    pub fn write(&mut self, entry: &Entry) {
        if self.sinks.is_empty() {
            return;
        }
        self.line.clear();
        line::write(entry, &mut self.line);
        self.line.push(b'\n');
        let text = std::str::from_utf8(&self.line).unwrap_or_default().trim_end();
        for sink in &mut self.sinks {
            let result = match sink {
                Sink::Stdout(out) => out.write_all(&self.line),
                Sink::File(out) => out.write_all(&self.line),
                Sink::Syslog(syslog) => syslog.send(text),
                Sink::Http { queue, dropped } => {
                    if queue.try_send(text.to_owned()).is_err() {
                        dropped.fetch_add(1, Relaxed);
                    }
                    Ok(())
                }
            };
            if let Err(error) = result {
                tracing::warn!(%error, "an entry could not be written to a sink of the ledger");
            }
        }
    }

    /// Hands on what is still held in memory.
    pub fn flush(&mut self) {
        for sink in &mut self.sinks {
            let result = match sink {
                Sink::Stdout(out) => out.flush(),
                Sink::File(out) => out.flush(),
                Sink::Http { .. } | Sink::Syslog(_) => Ok(()),
            };
            if let Err(error) = result {
                tracing::warn!(%error, "a sink of the ledger could not be flushed");
            }
        }
    }
}

fn open(config: &SinkConfig, http: &reqwest::Client) -> Result<Sink, String> {
    Ok(match config {
        SinkConfig::Stdout {} => Sink::Stdout(BufWriter::new(std::io::stdout())),
        SinkConfig::File { path } => {
            if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
                std::fs::create_dir_all(folder).map_err(|e| format!("cannot make the folder {}: {e}", folder.display()))?;
            }
            let file = OpenOptions::new().create(true).append(true).open(path).map_err(|e| format!("cannot open {}: {e}", path.display()))?;
            Sink::File(BufWriter::new(file))
        }
        SinkConfig::Syslog { address } => Sink::Syslog(Syslog::open(address.as_deref().unwrap_or("/dev/log"))?),
        SinkConfig::Http { url, format, headers } => {
            let mut post = http.post(url).header("content-type", "application/json");
            for (name, value) in headers {
                post = post.header(name, value.expose());
            }
            // Built once to see that it is a request at all.
            post.try_clone().and_then(|p| p.build().ok()).ok_or_else(|| format!("{url:?} is not a URL, or a header is not valid"))?;
            let (queue, entries) = mpsc::channel(HTTP_QUEUE);
            let dropped = Arc::new(AtomicU64::new(0));
            let runtime = tokio::runtime::Handle::try_current().map_err(|_| "there is no runtime to post from")?;
            runtime.spawn(post_all(post, *format, entries, dropped.clone()));
            Sink::Http { queue, dropped }
        }
    })
}

/// Posts entries in batches, with three tries each; what is lost is counted and said.
async fn post_all(post: reqwest::RequestBuilder, format: HttpFormat, mut entries: mpsc::Receiver<String>, dropped: Arc<AtomicU64>) {
    let mut batch = Vec::with_capacity(BATCH);
    while entries.recv_many(&mut batch, BATCH).await > 0 {
        let body = body(format, &batch);
        let mut sent = Err(String::new());
        for pause in [0, 500, 2000] {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let Some(request) = post.try_clone() else { break };
            sent = match request.body(body.clone()).send().await {
                Ok(answer) if answer.status().is_success() => Ok(()),
                Ok(answer) => Err(format!("status {}", answer.status())),
                Err(e) => Err(e.without_url().to_string()),
            };
            if sent.is_ok() {
                break;
            }
        }
        if let Err(error) = sent {
            let lost = dropped.fetch_add(batch.len() as u64, Relaxed) + batch.len() as u64;
            tracing::warn!(error, lost, "entries could not be posted to a sink of the ledger");
        }
        batch.clear();
    }
}

fn body(format: HttpFormat, batch: &[String]) -> String {
    match format {
        HttpFormat::Json => format!("[{}]", batch.join(",")),
        HttpFormat::Loki => {
            let values: Vec<Value> = batch
                .iter()
                .map(|line| {
                    let time = serde_json::from_str::<Value>(line).ok().and_then(|e| e["time"].as_f64()).unwrap_or_default();
                    json!([format!("{}", (time * 1e6) as u64 * 1000), line])
                })
                .collect();
            json!({ "streams": [{ "stream": { "service_name": "trivium" }, "values": values }] }).to_string()
        }
    }
}

/// RFC 5424 over a local socket, UDP or TCP (octet counting).
struct Syslog {
    to: Wire,
    host: String,
}

enum Wire {
    Local(UnixDatagram),
    Udp(UdpSocket),
    Tcp { address: String, stream: Option<TcpStream> },
}

impl Syslog {
    fn open(address: &str) -> Result<Self, String> {
        let fail = |e: std::io::Error| format!("cannot reach syslog at {address}: {e}");
        let to = if let Some(host) = address.strip_prefix("udp://") {
            let socket = UdpSocket::bind(if host.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" }).map_err(fail)?;
            socket.connect(host).map_err(fail)?;
            Wire::Udp(socket)
        } else if let Some(host) = address.strip_prefix("tcp://") {
            host.to_socket_addrs().map_err(fail)?;
            Wire::Tcp { address: host.to_owned(), stream: None }
        } else {
            let socket = UnixDatagram::unbound().map_err(fail)?;
            socket.connect(address).map_err(fail)?;
            Wire::Local(socket)
        };
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").map_or_else(|_| "-".to_owned(), |h| h.trim().to_owned());
        Ok(Syslog { to, host })
    }

    fn send(&mut self, line: &str) -> std::io::Result<()> {
        // Facility local0 (16), severity informational (6); NILVALUE for the time: the receiver stamps it.
        let message = format!("<134>1 - {} trivium {} ledger - {line}", self.host, std::process::id());
        match &mut self.to {
            Wire::Local(socket) => socket.send(message.as_bytes()).map(drop),
            Wire::Udp(socket) => socket.send(message.as_bytes()).map(drop),
            Wire::Tcp { address, stream } => {
                let framed = format!("{} {message}", message.len());
                if stream.is_none() {
                    let found = address.to_socket_addrs()?.next().ok_or(std::io::ErrorKind::NotFound)?;
                    let new = TcpStream::connect_timeout(&found, Duration::from_secs(2))?;
                    new.set_write_timeout(Some(Duration::from_secs(2)))?;
                    *stream = Some(new);
                }
                let result = stream.as_mut().map_or(Ok(()), |s| s.write_all(framed.as_bytes()));
                if result.is_err() {
                    *stream = None;
                }
                result
            }
        }
    }
}
