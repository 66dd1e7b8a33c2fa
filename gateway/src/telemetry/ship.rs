//! The way to the collector: OTLP/HTTP or OTLP/gRPC, one POST per export over the same client. What it does not take is tried
//! again for a while, then counted as lost; an outage is said once, and its end.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::meter::Meters;
use super::span::Spans;
use super::wire::{Message, export};
use crate::config::{OtlpProtocol, Telemetry as Config};
use crate::phase::call::chain;

/// Spans in one export, about.
const BATCH: u64 = 512;
/// Items of the queue that are taken at once.
const TAKEN: usize = 128;
/// How long a collector may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer that is read.
const ANSWER: usize = 64 << 10;

/// How long to wait for what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// For more spans to fill an export.
    pub(super) gather: Duration,
    /// From one export of metrics to the next.
    pub(super) metrics: Duration,
    /// Before an export of spans is tried again: once each, longer every time.
    pub(super) pauses: &'static [Duration],
}

/// Long enough that an idle gateway sleeps, short enough that someone who waits for a trace sees it.
pub(super) const PACE: Pace = Pace {
    gather: Duration::from_secs(1),
    metrics: Duration::from_secs(15),
    pauses: &[Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(8), Duration::from_secs(16)],
};

/// Traces or metrics.
#[derive(Debug, Clone, Copy)]
pub(super) enum Signal {
    Traces,
    Metrics,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Signal::Traces => "traces",
            Signal::Metrics => "metrics",
        }
    }

    fn path(self, protocol: OtlpProtocol) -> &'static str {
        match (protocol, self) {
            (OtlpProtocol::Http, Signal::Traces) => "/v1/traces",
            (OtlpProtocol::Http, Signal::Metrics) => "/v1/metrics",
            (OtlpProtocol::Grpc, Signal::Traces) => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            (OtlpProtocol::Grpc, Signal::Metrics) => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        }
    }
}

/// A collector: where it is and what it speaks.
#[derive(Debug, Clone)]
pub(super) struct Collector {
    base: String,
    /// Host and port, for the log.
    pub(super) place: String,
    pub(super) protocol: OtlpProtocol,
    headers: HeaderMap,
}

/// Port of OTLP/gRPC by custom.
const GRPC: u16 = 4317;

impl Collector {
    /// Reads the configuration; `None` if there is no collector.
    pub(super) fn read(config: &Config) -> Result<Option<Self>, (&'static str, String)> {
        let Some(url) = config.otlp.as_deref().map(|u| u.trim_end_matches('/')).filter(|u| !u.is_empty()) else { return Ok(None) };
        let wrong = || ("otlp", format!("{url:?} is not a URL such as http://127.0.0.1:4317"));
        let uri = url.parse::<Uri>().map_err(|_| wrong())?;
        let host = uri.host().filter(|h| !h.is_empty()).ok_or_else(wrong)?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.query().is_some() {
            return Err(wrong());
        }
        let protocol = config.protocol.unwrap_or(if uri.port_u16() == Some(GRPC) { OtlpProtocol::Grpc } else { OtlpProtocol::Http });
        let mut headers = HeaderMap::new();
        for (name, value) in &config.headers {
            let bad = |_| ("headers", format!("{name:?} or its value cannot be a header"));
            let name = HeaderName::try_from(name.as_str()).map_err(|e| bad(e.to_string()))?;
            let mut value = HeaderValue::try_from(value.expose()).map_err(|e| bad(e.to_string()))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        headers.insert(header::USER_AGENT, HeaderValue::from_static(crate::state::USER_AGENT));
        let kind = match protocol {
            OtlpProtocol::Http => "application/x-protobuf",
            OtlpProtocol::Grpc => "application/grpc",
        };
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        if protocol == OtlpProtocol::Grpc {
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
        }
        let place = uri.port_u16().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        Ok(Some(Collector { base: url.to_owned(), place, protocol, headers }))
    }
}

/// Why an export failed, and whether the same one may succeed later.
#[derive(Debug)]
struct Failure {
    why: String,
    again: bool,
}

/// The line on which one signal goes to the collector.
pub(super) struct Line {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    uri: Uri,
    collector: Collector,
    signal: Signal,
    resource: Message,
    lost: Arc<AtomicU64>,
    /// Whether the collector takes nothing at the moment.
    down: bool,
}

impl Line {
    pub(super) fn new(collector: Collector, signal: Signal, tls: rustls::ClientConfig, resource: Message, lost: Arc<AtomicU64>) -> Option<Self> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(TIMEOUT));
        let grpc = collector.protocol == OtlpProtocol::Grpc;
        let https = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        let https = if grpc { https.enable_http2().wrap_connector(tcp) } else { https.enable_http1().wrap_connector(tcp) };
        let client = Client::builder(TokioExecutor::new()).pool_idle_timeout(Duration::from_secs(90)).pool_timer(TokioTimer::new()).http2_only(grpc).build(https);
        let uri = format!("{}{}", collector.base, signal.path(collector.protocol)).parse().ok()?;
        Some(Line { client, uri, collector, signal, resource, lost, down: false })
    }

    /// Sends one export, once.
    async fn send(&self, body: &Bytes) -> Result<(), Failure> {
        let grpc = self.collector.protocol == OtlpProtocol::Grpc;
        let body = if grpc { framed(body) } else { body.clone() };
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.collector.headers.clone();
        let exchange = async {
            let (head, body) = self.client.request(request).await.map_err(|e| Failure { why: chain(&e), again: true })?.into_parts();
            let body = Limited::new(body, ANSWER).collect().await;
            if !head.status.is_success() {
                return Err(Failure { why: format!("status {}", head.status), again: matches!(head.status.as_u16(), 429 | 502..=504) });
            }
            if !grpc {
                return Ok(());
            }
            let body = body.map_err(|e| Failure { why: chain(e.as_ref()), again: true })?;
            // A refusal without a body has its status in the head.
            grpc_status(body.trailers().filter(|t| t.contains_key("grpc-status")).unwrap_or(&head.headers))
        };
        tokio::time::timeout(TIMEOUT, exchange).await.unwrap_or_else(|_| Err(Failure { why: "no answer in time".into(), again: true }))
    }

    /// Says that the collector takes nothing, once per outage.
    fn failed(&mut self, failure: &Failure) {
        if !self.down {
            self.down = true;
            tracing::warn!(signal = self.signal.name(), collector = self.collector.place, error = failure.why, "the collector does not take telemetry; this is said once until it does again");
        }
    }

    fn succeeded(&mut self) {
        if self.down {
            self.down = false;
            tracing::info!(signal = self.signal.name(), collector = self.collector.place, lost_spans = self.lost.load(Relaxed), "the collector takes telemetry again");
        }
    }

    /// Sends spans until the collector takes them or it is no use to go on; what it does not take is counted.
    async fn deliver(&mut self, spans: Spans, pace: &Pace, closing: &mut Closing) {
        let body = export(&self.resource, &spans.bytes);
        let mut pauses = pace.pauses.iter();
        loop {
            let Err(failure) = self.send(&body).await else { return self.succeeded() };
            self.failed(&failure);
            let pause = pauses.next().filter(|_| failure.again && !closing.is_now());
            let Some(pause) = pause else {
                self.lost.fetch_add(spans.count, Relaxed);
                return;
            };
            tokio::select! {
                () = sleep(*pause) => {}
                () = closing.comes() => {}
            }
        }
    }
}

/// gRPC's frame: not compressed, and this long.
fn framed(body: &Bytes) -> Bytes {
    let mut frame = BytesMut::with_capacity(body.len() + 5);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(body.len()).unwrap_or(u32::MAX));
    frame.extend_from_slice(body);
    frame.freeze()
}

fn grpc_status(headers: &HeaderMap) -> Result<(), Failure> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    match headers.get("grpc-status").and_then(|v| v.to_str().ok()?.parse::<u8>().ok()) {
        Some(0) => Ok(()),
        Some(code) => {
            // Those that OTLP's specification calls retryable.
            let again = matches!(code, 1 | 4 | 8 | 10 | 11 | 14 | 15);
            Err(Failure { why: format!("gRPC status {code} {}", text("grpc-message")), again })
        }
        None => Err(Failure { why: "an answer without a gRPC status: is this a port of OTLP/gRPC?".into(), again: false }),
    }
}

/// Whether the export is to come to an end: it is said so, or nobody is left to say it.
#[derive(Clone)]
pub(super) struct Closing(pub(super) watch::Receiver<bool>);

impl Closing {
    fn is_now(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    async fn comes(&mut self) {
        let _ = self.0.wait_for(|closing| *closing).await;
    }
}

/// Exports spans until the end: a batch at a time, gathered for a moment.
pub(super) async fn spans(mut line: Line, mut queue: mpsc::Receiver<Spans>, pace: Pace, mut closing: Closing) {
    let mut items = Vec::with_capacity(TAKEN);
    loop {
        tokio::select! {
            biased;
            n = queue.recv_many(&mut items, TAKEN) => if n == 0 { return },
            () = closing.comes() => return,
        }
        let mut batch = Spans::default();
        let until = Instant::now() + pace.gather;
        loop {
            for spans in items.drain(..) {
                batch.bytes.extend_from_slice(&spans.bytes);
                batch.count += spans.count;
            }
            if batch.count >= BATCH {
                break;
            }
            tokio::select! {
                biased;
                n = queue.recv_many(&mut items, TAKEN) => if n == 0 { break },
                () = closing.comes() => break,
                () = sleep_until(until) => break,
            }
        }
        line.deliver(batch, &pace, &mut closing).await;
    }
}

/// Exports metrics until the end, and once more then. One that failed is not repeated: the next one has its figures too.
pub(super) async fn metrics(mut line: Line, meters: Arc<Mutex<Meters>>, pace: Pace, mut closing: Closing) {
    loop {
        let last = tokio::select! {
            () = closing.comes() => true,
            () = sleep(pace.metrics) => false,
        };
        let lost = line.lost.load(Relaxed);
        let written = meters.lock().unwrap_or_else(PoisonError::into_inner).write(super::now(), lost);
        if let Some(items) = written {
            match line.send(&export(&line.resource, &items)).await {
                Ok(()) => line.succeeded(),
                Err(failure) => line.failed(&failure),
            }
        }
        if last {
            return;
        }
    }
}
