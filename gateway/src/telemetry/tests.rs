//! What is exported, read by an independent reader in an HTTP server of this process.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU16;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{Metric, number_data_point};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use providers::answer::Finish;
use providers::prices::Nanodollars;
use providers::usage::Usage;
use tokio::net::TcpListener;

use super::*;
use crate::config::OtlpProtocol;
use crate::ledger::Try;
use crate::trace::Trace;

const LONG: Duration = Duration::from_secs(20);
const QUICK: Pace = Pace { gather: Duration::from_millis(10), metrics: Duration::from_secs(3600), pauses: &[Duration::from_millis(10)] };
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// A server that keeps what it is sent.
#[derive(Clone)]
struct Server {
    at: SocketAddr,
    seen: Arc<Mutex<Vec<(String, HeaderMap, Bytes)>>>,
    /// What it answers; 0 for nothing at all.
    status: Arc<AtomicU16>,
}

impl Server {
    async fn start(status: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server { at: listener.local_addr().unwrap(), seen: Arc::default(), status: Arc::new(AtomicU16::new(status)) };
        let serving = server.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let server = serving.clone();
                let service = service_fn(move |request| server.clone().answer(request));
                tokio::spawn(async move { auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await });
            }
        });
        server
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let grpc = parts.headers["content-type"] == "application/grpc";
        self.seen.lock().unwrap().push((parts.uri.path().to_owned(), parts.headers, body));
        let status = self.status.load(Relaxed);
        if status == 0 {
            std::future::pending::<()>().await;
        }
        let trailers = |code: &'static str| Some(Ok(HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static(code))])));
        let body = Full::new(Bytes::from_static(b"{\"choices\":[]}"));
        let mut response = match (grpc, status) {
            (true, 200) => Response::new(Full::new(Bytes::from_static(&[0; 5])).with_trailers(async move { trailers("0") }).boxed()),
            (true, _) => Response::new(Full::new(Bytes::new()).with_trailers(async move { trailers("14") }).boxed()),
            (false, _) => Response::builder().status(status).body(body.boxed()).unwrap(),
        };
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
        Ok(response)
    }

    fn bodies(&self, end: &str) -> Vec<Bytes> {
        let seen = self.seen.lock().unwrap();
        let frame = |headers: &HeaderMap, body: &Bytes| if headers["content-type"] == "application/grpc" { body.slice(5..) } else { body.clone() };
        seen.iter().filter(|(path, ..)| path.ends_with(end)).map(|(_, headers, body)| frame(headers, body)).collect()
    }

    fn spans(&self) -> Vec<Span> {
        let exports = self.bodies("/v1/traces").into_iter().chain(self.bodies("TraceService/Export"));
        exports.flat_map(|b| ExportTraceServiceRequest::decode(b).unwrap().resource_spans).flat_map(|r| r.scope_spans).flat_map(|s| s.spans).collect()
    }

    /// The metrics of the last export.
    fn metrics(&self) -> BTreeMap<String, Metric> {
        let last = self.bodies("/v1/metrics").pop().or_else(|| self.bodies("MetricsService/Export").pop()).unwrap();
        let resources = ExportMetricsServiceRequest::decode(last).unwrap().resource_metrics;
        resources.into_iter().flat_map(|r| r.scope_metrics).flat_map(|s| s.metrics).map(|m| (m.name.clone(), m)).collect()
    }

    /// Waits until something is so.
    async fn until(&self, what: impl Fn(&Self) -> bool) {
        let all = async {
            while !what(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(LONG, all).await.unwrap();
    }

    fn config(&self, protocol: OtlpProtocol) -> Config {
        let headers = BTreeMap::from([("x-key".to_owned(), crate::secret::Secret::new("k"))]);
        Config { otlp: Some(format!("http://{}", self.at)), protocol: Some(protocol), headers, sample: None }
    }
}

fn tls() -> rustls::ClientConfig {
    rustls::ClientConfig::builder().with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth()
}

fn attributes(list: &[KeyValue]) -> BTreeMap<String, String> {
    fn text(value: &Option<AnyValue>) -> String {
        match value.as_ref().and_then(|v| v.value.as_ref()).unwrap() {
            Value::StringValue(s) => s.clone(),
            Value::IntValue(n) => n.to_string(),
            Value::DoubleValue(n) => n.to_string(),
            Value::BoolValue(b) => b.to_string(),
            Value::ArrayValue(a) => a.values.iter().map(|v| text(&Some(v.clone()))).collect::<Vec<_>>().join(","),
            other => panic!("{other:?}"),
        }
    }
    list.iter().map(|kv| (kv.key.clone(), text(&kv.value))).collect()
}

/// A stream that a second target gave.
fn entry() -> Entry {
    let first = Try { target: "a/one".into(), outcome: "status", status: Some(503), start_ms: 1.0, ms: 20.0, span_id: 0x11, kind: "azure", spent: None };
    let skipped = Try { target: "c/three".into(), outcome: "open", status: None, start_ms: 21.0, ms: 0.0, span_id: 0, kind: "groq", spent: None };
    let second = Try { target: "b/two".into(), outcome: "ok", status: Some(200), start_ms: 25.0, ms: 30.0, span_id: 0x22, kind: "anthropic", spent: None };
    Entry {
        time: 1_700_000_000.5,
        request_id: "r1".into(),
        trace: Trace { trace_id: u128::from_str_radix(TRACE, 16).unwrap(), span_id: 0xaa, parent: Some(0xb7ad_6b71_6920_3331), sampled: true },
        operation: "chat",
        model: "mine-7".into(),
        route: "mine-*".into(),
        provider: Some("b".into()),
        provider_kind: Some("anthropic"),
        model_used: Some("two".into()),
        stream: true,
        tries: vec![first, skipped, second],
        usage: Some(Usage { input: 90, cache_read: 10, output: 41, ..Usage::default() }),
        cost: Some(Nanodollars(1_500_000)),
        finish: Some(Finish::Stop),
        status: 200,
        first_token_ms: Some(60.0),
        token_ms: Some(11.0),
        latency_ms: 500.0,
        ..Entry::blank()
    }
}

#[tokio::test]
async fn spans_and_metrics_reach_a_collector_by_both_protocols() {
    for protocol in [OtlpProtocol::Http, OtlpProtocol::Grpc] {
        let server = Server::start(200).await;
        let telemetry = start(&server.config(protocol), &tls(), QUICK).unwrap();
        telemetry.observe(&entry());
        telemetry.close(LONG).await;
        assert_eq!(telemetry.lost(), 0);
        assert!(server.seen.lock().unwrap().iter().all(|(_, headers, _)| headers["x-key"] == "k"));
        check_spans(&server.spans());
        check_metrics(&server.metrics());
    }
}

fn check_spans(spans: &[Span]) {
    let [request, first, second] = spans else { panic!("{spans:#?}") };
    assert!(spans.iter().all(|s| s.trace_id == u128::from_str_radix(TRACE, 16).unwrap().to_be_bytes()));
    assert_eq!((request.name.as_str(), request.kind, request.flags), ("chat mine-7", 2, 0x301));
    assert_eq!((&request.span_id[..], &request.parent_span_id[..]), (&0xaa_u64.to_be_bytes()[..], &0xb7ad_6b71_6920_3331_u64.to_be_bytes()[..]));
    assert_eq!((request.start_time_unix_nano, request.end_time_unix_nano), (1_700_000_000_500_000_000, 1_700_000_001_000_000_000));
    assert_eq!(request.status, None);
    let expected = [
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.provider.name", "anthropic"),
        ("gen_ai.request.model", "mine-7"),
        ("gen_ai.response.model", "two"),
        ("gen_ai.response.finish_reasons", "stop"),
        ("gen_ai.usage.cache_read.input_tokens", "10"),
        ("gen_ai.usage.input_tokens", "100"),
        ("gen_ai.usage.output_tokens", "41"),
        ("http.response.status_code", "200"),
        ("trivium.cost_dollars", "0.0015"),
        ("trivium.first_token_ms", "60"),
        ("trivium.provider", "b"),
        ("trivium.request_id", "r1"),
        ("trivium.route", "mine-*"),
        ("trivium.stream", "true"),
    ];
    assert_eq!(attributes(&request.attributes), expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
    assert_eq!((first.name.as_str(), first.kind, first.flags), ("chat one", 3, 0x101));
    assert_eq!((&first.span_id[..], &first.parent_span_id), (&0x11_u64.to_be_bytes()[..], &request.span_id));
    assert_eq!((first.start_time_unix_nano, first.end_time_unix_nano), (1_700_000_000_501_000_000, 1_700_000_000_521_000_000));
    assert_eq!(first.status.as_ref().map(|s| s.code), Some(2));
    let tried = attributes(&first.attributes);
    assert_eq!((tried["error.type"].as_str(), tried["gen_ai.provider.name"].as_str(), tried["trivium.target"].as_str()), ("503", "azure.ai.openai", "a/one"));
    assert!(!tried.contains_key("gen_ai.usage.input_tokens"));
    // The try that gave the stream lasts until its end.
    assert_eq!((&second.span_id[..], second.end_time_unix_nano), (&0x22_u64.to_be_bytes()[..], request.end_time_unix_nano));
    assert_eq!(second.status, None);
}

fn check_metrics(metrics: &BTreeMap<String, Metric>) {
    let histogram = |name: &str| match &metrics[name].data {
        Some(Data::Histogram(h)) if h.aggregation_temporality == 2 => h.data_points.clone(),
        other => panic!("{other:?}"),
    };
    for (name, value, buckets) in [("gen_ai.server.request.duration", 0.5, 14), ("gen_ai.server.time_to_first_token", 0.06, 16), ("gen_ai.server.time_per_output_token", 0.011, 13)] {
        let points = histogram(name);
        assert_eq!((points.len(), points[0].count, points[0].sum, points[0].explicit_bounds.len()), (1, 1, Some(value), buckets), "{name}");
        assert_eq!((points[0].bucket_counts.len(), points[0].bucket_counts.iter().sum::<u64>()), (buckets + 1, 1));
        let at = points[0].bucket_counts.iter().position(|n| *n == 1).unwrap();
        assert!(points[0].explicit_bounds[at] >= value && points[0].explicit_bounds[at - 1] < value, "{name}");
        let labels = attributes(&points[0].attributes);
        assert_eq!((labels["gen_ai.request.model"].as_str(), labels["gen_ai.provider.name"].as_str(), labels["trivium.provider"].as_str()), ("mine-*", "anthropic", "b"));
        assert!(points[0].start_time_unix_nano <= points[0].time_unix_nano && metrics[name].unit == "s");
    }
    let calls: BTreeMap<_, _> = histogram("gen_ai.client.operation.duration").iter().map(|p| (attributes(&p.attributes).remove("error.type"), p.sum)).collect();
    assert_eq!(calls, BTreeMap::from([(None, Some(0.475)), (Some("503".to_owned()), Some(0.02))]));
    let tokens: BTreeMap<_, _> = histogram("gen_ai.client.token.usage").iter().map(|p| (attributes(&p.attributes)["gen_ai.token.type"].clone(), p.sum)).collect();
    assert_eq!(tokens, BTreeMap::from([("input".to_owned(), Some(100.0)), ("output".to_owned(), Some(41.0))]));
    let sum = |name: &str| match &metrics[name].data {
        Some(Data::Sum(s)) if s.is_monotonic && s.aggregation_temporality == 2 => s.data_points[0].value,
        other => panic!("{other:?}"),
    };
    assert_eq!(sum("trivium.cost"), Some(number_data_point::Value::AsDouble(0.0015)));
    assert_eq!(sum("trivium.telemetry.lost_spans"), Some(number_data_point::Value::AsInt(0)));
}

#[tokio::test]
async fn a_request_that_is_not_sampled_is_counted_and_not_traced() {
    let server = Server::start(200).await;
    let telemetry = start(&server.config(OtlpProtocol::Http), &tls(), QUICK).unwrap();
    let mut unsampled = entry();
    unsampled.trace.sampled = false;
    telemetry.observe(&unsampled);
    telemetry.close(LONG).await;
    assert!(server.spans().is_empty() && server.metrics().contains_key("gen_ai.server.request.duration"));
}

#[test]
fn errors_have_types_of_a_bounded_set() {
    let late = Entry { status: 504, error: Some("the provider took too long".into()), ..entry() };
    let broken = Entry { error: Some("the upstream broke off".into()), ..entry() };
    let read = |entry: &Entry| {
        let bytes = wire::export(&wire::resource(), &span::write(entry).unwrap().bytes);
        let mut export = ExportTraceServiceRequest::decode(bytes).unwrap();
        let spans = export.resource_spans.remove(0).scope_spans.remove(0).spans;
        spans.iter().map(|s| (attributes(&s.attributes).get("error.type").cloned().unwrap_or_default(), s.status.as_ref().map_or(0, |s| s.code))).collect::<Vec<_>>()
    };
    let is = |kind: &str, code| (kind.to_owned(), code);
    assert_eq!(read(&broken), [is("stream", 2), is("503", 2), is("stream", 2)]);
    assert_eq!(read(&late)[0], is("504", 2));
    // The client's own mistake; and a model that nobody knows, at any length, does not name a span.
    let wrong = Entry { status: 404, error: Some("no such model".into()), route: Arc::default(), model: "é".repeat(1_000_000), tries: Vec::new(), ..entry() };
    assert_eq!(read(&wrong), [is("404", 0)]);
    assert!(span::write(&wrong).unwrap().bytes.len() < 2000);
    assert!(span::write(&Entry::blank()).is_none());
}

/// A log that is kept.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn count(&self, text: &str) -> usize {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap().matches(text).count()
    }
}

#[tokio::test]
async fn an_outage_is_said_once_and_its_end_and_what_was_lost_is_counted() {
    for protocol in [OtlpProtocol::Http, OtlpProtocol::Grpc] {
        let log = Log::default();
        let written = log.clone();
        let _guard = tracing::subscriber::set_default(tracing_subscriber::fmt().with_ansi(false).with_writer(move || written.clone()).finish());
        let server = Server::start(503).await;
        let pace = Pace { metrics: Duration::from_millis(5), ..QUICK };
        let telemetry = start(&server.config(protocol), &tls(), pace).unwrap();
        for lost in [3, 6, 9] {
            telemetry.observe(&entry());
            server.until(|_| telemetry.lost() == lost).await;
        }
        server.until(|s| s.bodies("/v1/metrics").len() + s.bodies("MetricsService/Export").len() > 3).await;
        assert_eq!(log.count("does not take telemetry"), 2, "once for traces and once for metrics");
        server.status.store(200, Relaxed);
        server.seen.lock().unwrap().clear();
        telemetry.observe(&entry());
        server.until(|_| log.count("takes telemetry again") == 2).await;
        telemetry.close(LONG).await;
        assert_eq!((telemetry.lost(), server.spans().len()), (9, 3));
        assert!(matches!(&server.metrics()["trivium.telemetry.lost_spans"].data, Some(Data::Sum(s)) if s.data_points[0].value == Some(number_data_point::Value::AsInt(9))));
    }
}

#[tokio::test]
async fn a_collector_that_stands_still_costs_a_bounded_queue_and_a_bounded_end() {
    let server = Server::start(0).await;
    let telemetry = start(&server.config(OtlpProtocol::Http), &tls(), QUICK).unwrap();
    let one = Entry { tries: Vec::new(), ..entry() };
    telemetry.observe(&one);
    server.until(|s| !s.bodies("/v1/traces").is_empty()).await;
    for _ in 0..QUEUE + 100 {
        telemetry.observe(&one);
    }
    assert_eq!(telemetry.lost(), 100);
    tokio::time::timeout(LONG, telemetry.close(Duration::from_millis(50))).await.unwrap();
}

#[test]
fn a_collector_is_read_from_the_configuration() {
    let read = |text: &str| crate::config::from_text(text, &|_| None).map(|c| check(&c.telemetry).iter().map(ToString::to_string).collect::<Vec<_>>());
    for good in ["{}", "{ otlp: \"\" }", "{ otlp: 'http://127.0.0.1:4317', sample: 0.1 }", "{ otlp: 'https://otlp.example.com/otlp', protocol: http, headers: { authorization: 'Basic x' } }"] {
        assert_eq!(read(&format!("telemetry: {good}")).unwrap(), Vec::<String>::new(), "{good}");
    }
    for bad in ["{ otlp: '127.0.0.1:4317' }", "{ otlp: 'ftp://x' }", "{ sample: 2 }", "{ otlp: 'http://x', headers: { 'a b': c } }"] {
        assert_eq!(read(&format!("telemetry: {bad}")).unwrap().len(), 1, "{bad}");
    }
}

/// A gateway with two targets, the first of which is broken.
fn config(telemetry: &str, bad: SocketAddr, good: SocketAddr) -> String {
    format!(
        "listen: 127.0.0.1:0\nadmin: 'off'\nlog: {{ audit: 'off' }}\ntelemetry: {telemetry}\nproviders:\n  bad: {{ kind: openai, base_url: 'http://{bad}', api_key: k }}\n  good: {{ kind: openai, base_url: 'http://{good}', api_key: k }}\nmodels:\n  m: {{ target: bad/x, fallback: [good/y], retry: {{ attempts: 1 }} }}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_upstream_sees_the_span_of_its_try_and_a_reload_changes_the_collector() {
    let (bad, good, first, second) = (Server::start(500).await, Server::start(200).await, Server::start(200).await, Server::start(200).await);
    let at = |s: &Server| format!("{{ otlp: 'http://{}' }}", s.at);
    let text = config(&at(&first), bad.at, good.at);
    let gateway = crate::serve::Gateway::bind(&crate::config::from_text(&text, &|_| None).unwrap(), None).await.unwrap();
    let (state, address) = (gateway.state.clone(), gateway.address().unwrap());
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(gateway.run(async { drop(stopped.await) }));
    let ask = || async move {
        let client = reqwest::Client::builder().tls_backend_preconfigured(tls()).build().unwrap();
        let request = client.post(format!("http://{address}/v1/chat/completions")).header("traceparent", format!("00-{TRACE}-b7ad6b7169203331-01"));
        let answer = request.header("content-type", "application/json").body(r#"{"model":"m","messages":[]}"#).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    };
    ask().await;
    first.until(|s| s.spans().len() == 3).await;

    let spans = first.spans();
    let parent = |s: &Server| s.seen.lock().unwrap()[0].1["traceparent"].to_str().unwrap().to_owned();
    let span = |at: usize| format!("00-{TRACE}-{:016x}-01", u64::from_be_bytes(spans[at].span_id.clone().try_into().unwrap()));
    assert_eq!((parent(&bad), parent(&good)), (span(1), span(2)));
    assert_eq!(spans[0].parent_span_id, 0xb7ad_6b71_6920_3331_u64.to_be_bytes());
    assert!(spans[1..].iter().all(|s| s.parent_span_id == spans[0].span_id && s.start_time_unix_nano >= spans[0].start_time_unix_nano && s.end_time_unix_nano <= spans[0].end_time_unix_nano));

    let path = std::env::temp_dir().join(format!("trivium-telemetry-{}.yaml", std::process::id()));
    let reload = |text: String| {
        std::fs::write(&path, text).unwrap();
        crate::serve::Reloader::new(state.clone(), path.clone()).reload().unwrap();
        state.ledger.telemetry()
    };
    let running_export = state.ledger.telemetry().unwrap();
    assert!(Arc::ptr_eq(&running_export, &reload(text.clone()).unwrap()), "nothing has changed for it");
    drop(running_export);
    reload(config(&at(&second), bad.at, good.at)).unwrap();
    ask().await;
    // Shutting down sends what is in hand.
    stop.send(()).unwrap();
    running.await.unwrap();
    assert_eq!((first.spans().len(), second.spans().len()), (3, 3));
    assert!(second.metrics().contains_key("gen_ai.server.request.duration"));
    assert!(reload(config("{}", bad.at, good.at)).is_none());
    std::fs::remove_file(&path).unwrap();
}
