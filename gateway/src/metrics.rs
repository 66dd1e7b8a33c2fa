//! Prometheus: names after OpenTelemetry's GenAI conventions, labels from bounded sets only (configured names, never what
//! a client sent).

use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use crate::ledger::Entry;

/// What a request is counted under.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    operation: &'static str,
    route: Arc<str>,
    provider: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabels {
    operation: &'static str,
    route: Arc<str>,
    provider: Arc<str>,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenLabels {
    route: Arc<str>,
    provider: Arc<str>,
    r#type: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TryLabels {
    target: Arc<str>,
    outcome: &'static str,
}

type Seconds = Family<Labels, Histogram, fn() -> Histogram>;

/// All figures.
pub struct Metrics {
    registry: Registry,
    requests: Family<StatusLabels, Counter>,
    tries: Family<TryLabels, Counter>,
    tokens: Family<TokenLabels, Counter>,
    cost: Family<Labels, Counter<f64, AtomicU64>>,
    duration: Seconds,
    first_token: Seconds,
    per_token: Seconds,
    left: Family<Labels, Counter>,
}

fn durations() -> Histogram {
    Histogram::new([0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0])
}

fn token_times() -> Histogram {
    Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.5, 1.0])
}

impl Metrics {
    /// Figures that all begin at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let metrics = Metrics {
            requests: Family::default(),
            tries: Family::default(),
            tokens: Family::default(),
            cost: Family::default(),
            duration: Seconds::new_with_constructor(durations),
            first_token: Seconds::new_with_constructor(durations),
            per_token: Seconds::new_with_constructor(token_times),
            left: Family::default(),
            registry: Registry::default(),
        };
        registry.register("trivium_requests", "Requests by operation, route, provider and status", metrics.requests.clone());
        registry.register("trivium_tries", "Tries at targets by outcome", metrics.tries.clone());
        registry.register("gen_ai_client_tokens", "Tokens by bucket", metrics.tokens.clone());
        registry.register("trivium_cost_dollars", "What requests cost, in dollars", metrics.cost.clone());
        registry.register_with_unit("gen_ai_server_request_duration", "Time from request to the end of the answer", Unit::Seconds, metrics.duration.clone());
        registry.register_with_unit("gen_ai_server_time_to_first_token", "Time from request to the first token of a stream", Unit::Seconds, metrics.first_token.clone());
        registry.register_with_unit("gen_ai_server_time_per_output_token", "Time per token after the first", Unit::Seconds, metrics.per_token.clone());
        registry.register("trivium_clients_left", "Requests whose client left before the end", metrics.left.clone());
        Metrics { registry, ..metrics }
    }

    /// Takes a finished request into the figures.
    pub fn observe(&self, entry: &Entry) {
        let provider = entry.provider.clone().unwrap_or_default();
        let labels = Labels { operation: entry.operation, route: entry.route.clone(), provider };
        self.requests.get_or_create(&StatusLabels { operation: entry.operation, route: labels.route.clone(), provider: labels.provider.clone(), status: entry.status }).inc();
        self.duration.get_or_create(&labels).observe(entry.latency_ms / 1000.0);
        if let Some(ms) = entry.first_token_ms.filter(|_| entry.stream) {
            self.first_token.get_or_create(&labels).observe(ms / 1000.0);
        }
        if let Some(ms) = entry.token_ms {
            self.per_token.get_or_create(&labels).observe(ms / 1000.0);
        }
        if let Some(usage) = entry.usage {
            let buckets = [
                ("input", usage.input),
                ("cache_read", usage.cache_read),
                ("cache_write", usage.cache_write + usage.cache_write_1h),
                ("input_audio", usage.input_audio),
                ("output", usage.output),
                ("reasoning", usage.reasoning),
                ("output_audio", usage.output_audio),
            ];
            for (bucket, tokens) in buckets.into_iter().filter(|(_, n)| *n > 0) {
                self.tokens.get_or_create(&TokenLabels { route: labels.route.clone(), provider: labels.provider.clone(), r#type: bucket }).inc_by(tokens);
            }
        }
        if let Some(cost) = entry.cost {
            self.cost.get_or_create(&labels).inc_by(cost.dollars());
        }
        // The try that answered is counted with its request; the others are what an operator looks for.
        if entry.tries.len() > 1 || entry.tries.first().is_some_and(|t| t.outcome != "ok") {
            for t in &entry.tries {
                self.tries.get_or_create(&TryLabels { target: t.target.clone(), outcome: t.outcome }).inc();
            }
        }
        if entry.client_left {
            self.left.get_or_create(&labels).inc();
        }
    }

    /// The figures in Prometheus' text format.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut out, &self.registry);
        out
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
