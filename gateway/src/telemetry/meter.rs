//! Metrics out of finished entries: OpenTelemetry's GenAI histograms with the buckets that it asks for, and the cost. Labels
//! are from bounded sets only: configured names, never what a client sent.

use std::collections::HashMap;

use super::span::{account_of, error_type, lasted, provider_name, try_error};
use super::wire::{Message, Value};
use crate::ledger::Entry;

/// Most combinations of labels in one metric; those beyond are counted together, as OpenTelemetry's own SDKs do.
const SERIES: usize = 2000;
const METRICS: u32 = 2;
const CUMULATIVE: u64 = 2;

const SECONDS: &[f64] = &[0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92];
const FIRST_TOKEN: &[f64] = &[0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];
const PER_TOKEN: &[f64] = &[0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5];
const TOKENS: &[f64] = &[1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0, 4_194_304.0, 16_777_216.0, 67_108_864.0];

/// What a figure is counted under.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Labels {
    operation: &'static str,
    provider: &'static str,
    account: String,
    route: String,
    error: Option<String>,
    token: Option<&'static str>,
    overflow: bool,
}

#[derive(Debug)]
struct Histogram {
    counts: Vec<u64>,
    count: u64,
    sum: f64,
}

/// A histogram for every combination of labels.
#[derive(Debug)]
struct Family {
    name: &'static str,
    unit: &'static str,
    about: &'static str,
    bounds: &'static [f64],
    series: HashMap<Labels, Histogram>,
}

/// All metrics since a time.
#[derive(Debug)]
pub(super) struct Meters {
    since: u64,
    request: Family,
    call: Family,
    first_token: Family,
    per_token: Family,
    tokens: Family,
    /// Nanodollars.
    cost: HashMap<Labels, u64>,
}

impl Meters {
    /// Metrics that begin at zero at this time, nanoseconds since 1970.
    pub(super) fn new(since: u64) -> Self {
        let family = |name, unit, about, bounds| Family { name, unit, about, bounds, series: HashMap::new() };
        Meters {
            since,
            request: family("gen_ai.server.request.duration", "s", "Time from a client's request to the end of its answer", SECONDS),
            call: family("gen_ai.client.operation.duration", "s", "Time that a try at an upstream took", SECONDS),
            first_token: family("gen_ai.server.time_to_first_token", "s", "Time from a request to the first token of its stream", FIRST_TOKEN),
            per_token: family("gen_ai.server.time_per_output_token", "s", "Time per token of a stream after the first", PER_TOKEN),
            tokens: family("gen_ai.client.token.usage", "{token}", "Tokens of a request and of its answer", TOKENS),
            cost: HashMap::new(),
        }
    }

    /// Takes a finished request into the figures.
    pub(super) fn observe(&mut self, entry: &Entry) {
        let mut labels = Labels {
            operation: entry.operation,
            provider: entry.provider_kind.map_or("", provider_name),
            account: entry.provider.as_deref().unwrap_or_default().to_owned(),
            route: entry.route.to_string(),
            ..Labels::default()
        };
        if let Some(ms) = entry.first_token_ms.filter(|_| entry.stream) {
            self.first_token.observe(&labels, ms / 1000.0);
        }
        if let Some(ms) = entry.token_ms {
            self.per_token.observe(&labels, ms / 1000.0);
        }
        if let Some(cost) = entry.cost {
            *slot(&mut self.cost, &labels, || 0) += cost.0;
        }
        if let Some(usage) = entry.usage {
            for (kind, tokens) in [("input", usage.prompt()), ("output", usage.completion())] {
                if tokens > 0 {
                    labels.token = Some(kind);
                    self.tokens.observe(&labels, tokens as f64);
                }
            }
            labels.token = None;
        }
        labels.error = error_type(entry).map(Into::into);
        self.request.observe(&labels, entry.latency_ms / 1000.0);
        for (at, t) in entry.tries.iter().enumerate().filter(|(_, t)| t.span_id != 0) {
            labels.provider = provider_name(t.kind);
            account_of(t).clone_into(&mut labels.account);
            labels.error = try_error(entry, at).map(Into::into);
            self.call.observe(&labels, lasted(entry, t) / 1000.0);
        }
    }

    /// All metrics as they stand; `None` while there are none.
    pub(super) fn write(&self, now: u64, lost_spans: u64) -> Option<Vec<u8>> {
        if self.request.series.is_empty() {
            return None;
        }
        let mut out = Message::default();
        for family in [&self.request, &self.call, &self.first_token, &self.per_token, &self.tokens] {
            family.write(&mut out, self.since, now);
        }
        if !self.cost.is_empty() {
            sum(&mut out, "trivium.cost", "{USD}", "What requests cost, in dollars", |m| {
                for (labels, nanodollars) in &self.cost {
                    m.nested(1, |m| {
                        self.point(m, now);
                        m.double(4, *nanodollars as f64 / 1e9);
                        labels.write(m, 7);
                    });
                }
            });
        }
        sum(&mut out, "trivium.telemetry.lost_spans", "{span}", "Spans that the collector did not take", |m| {
            m.nested(1, |m| {
                self.point(m, now);
                m.fixed64(6, lost_spans);
            });
        });
        Some(out.into_bytes())
    }

    fn point(&self, m: &mut Message, now: u64) {
        m.fixed64(2, self.since);
        m.fixed64(3, now);
    }
}

/// The place of a combination of labels; that of all others together when there are too many.
fn slot<'m, T>(series: &'m mut HashMap<Labels, T>, labels: &Labels, new: impl FnOnce() -> T) -> &'m mut T {
    let key = if series.contains_key(labels) || series.len() < SERIES { labels.clone() } else { Labels { overflow: true, ..Labels::default() } };
    series.entry(key).or_insert_with(new)
}

fn sum(out: &mut Message, name: &str, unit: &str, about: &str, points: impl FnOnce(&mut Message)) {
    out.nested(METRICS, |m| {
        m.text(1, name);
        m.text(2, about);
        m.text(3, unit);
        m.nested(7, |m| {
            points(m);
            m.int(2, CUMULATIVE);
            m.int(3, 1);
        });
    });
}

impl Family {
    fn observe(&mut self, labels: &Labels, value: f64) {
        let bounds = self.bounds;
        let histogram = slot(&mut self.series, labels, || Histogram { counts: vec![0; bounds.len() + 1], count: 0, sum: 0.0 });
        // A bound belongs to the bucket below it.
        if let Some(count) = histogram.counts.get_mut(bounds.partition_point(|b| *b < value)) {
            *count += 1;
        }
        histogram.count += 1;
        histogram.sum += value;
    }

    fn write(&self, out: &mut Message, since: u64, now: u64) {
        if self.series.is_empty() {
            return;
        }
        out.nested(METRICS, |m| {
            m.text(1, self.name);
            m.text(2, self.about);
            m.text(3, self.unit);
            m.nested(9, |m| {
                for (labels, histogram) in &self.series {
                    m.nested(1, |m| {
                        m.fixed64(2, since);
                        m.fixed64(3, now);
                        m.fixed64(4, histogram.count);
                        m.double(5, histogram.sum);
                        m.packed(6, histogram.counts.iter().copied());
                        m.packed(7, self.bounds.iter().map(|b| b.to_bits()));
                        labels.write(m, 9);
                    });
                }
                m.int(2, CUMULATIVE);
            });
        });
    }
}

impl Labels {
    fn write(&self, m: &mut Message, field: u32) {
        if self.overflow {
            return m.attribute(field, "otel.metric.overflow", &Value::Bool(true));
        }
        // The route stands for the model asked for: what clients write behind a wildcard has no bound.
        let texts = [
            ("gen_ai.operation.name", self.operation),
            ("gen_ai.provider.name", self.provider),
            ("gen_ai.request.model", &self.route),
            ("trivium.provider", &self.account),
            ("error.type", self.error.as_deref().unwrap_or_default()),
            ("gen_ai.token.type", self.token.unwrap_or_default()),
        ];
        for (key, text) in texts.into_iter().filter(|(_, text)| !text.is_empty()) {
            m.attribute(field, key, &Value::Text(text));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_beyond_the_bound_are_counted_together() {
        let mut meters = Meters::new(0);
        for n in 0..SERIES + 50 {
            meters.observe(&Entry { operation: "chat", route: format!("m{n}").into(), ..Entry::blank() });
        }
        assert_eq!(meters.request.series.len(), SERIES + 1);
        let rest = &meters.request.series[&Labels { overflow: true, ..Labels::default() }];
        assert_eq!(rest.count, 50);
    }

    #[test]
    fn a_bound_belongs_to_the_bucket_below_it() {
        let mut meters = Meters::new(0);
        for ms in [0.0, 10.0, 10.1, 81_920.0, 100_000.0] {
            meters.observe(&Entry { latency_ms: ms, ..Entry::blank() });
        }
        let histogram = meters.request.series.values().next().unwrap();
        assert_eq!((histogram.counts[0], histogram.counts[1], histogram.counts[13], histogram.counts[14], histogram.count), (2, 1, 1, 1, 5));
    }
}
