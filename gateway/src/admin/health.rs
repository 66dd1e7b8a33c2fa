//! Health, readiness, figures for Prometheus, and what is known of targets, for whoever reaches the port.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use axum::Json;
use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde_json::{Value, json};

use super::Context;

pub(super) async fn ready(Shared(context): Shared<Arc<Context>>) -> (StatusCode, &'static str) {
    match context.state.rules() {
        _ if context.state.is_draining() => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        None => (StatusCode::SERVICE_UNAVAILABLE, "no rules\n"),
        Some(_) => (StatusCode::OK, "ready\n"),
    }
}

pub(super) async fn metrics(Shared(context): Shared<Arc<Context>>) -> impl IntoResponse {
    let state = &context.state;
    let mut text = state.metrics.text();
    // Figures that are read, not counted; before the end marker that the encoder writes.
    let end = text.rfind("# EOF").unwrap_or(text.len());
    let mut more = format!(
        "# TYPE trivium_in_flight gauge\ntrivium_in_flight {}\n# TYPE trivium_ledger_dropped counter\ntrivium_ledger_dropped_total {}\n# TYPE trivium_telemetry_lost_spans counter\ntrivium_telemetry_lost_spans_total {}\n# TYPE trivium_target_open gauge\n",
        state.serving.load(Relaxed),
        state.ledger.dropped(),
        state.ledger.telemetry().map_or(0, |t| t.lost())
    );
    for (name, figures) in state.all_stats() {
        let name = name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', " ");
        more.push_str(&format!("trivium_target_open{{target=\"{name}\"}} {}\n", u8::from(figures.looks_open().is_some())));
    }
    text.insert_str(end, &more);
    ([(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
}

/// What is known of every target.
pub(super) async fn status(Shared(context): Shared<Arc<Context>>) -> Json<Value> {
    let state = &context.state;
    let targets: Vec<Value> = state
        .all_stats()
        .into_iter()
        .map(|(name, f)| {
            let mut target = standing(f.in_flight(), f.latency(), f.tokens(), f.looks_open());
            target["target"] = json!(name);
            // Those that a `*` has stood for lately: as many as have figures of their own.
            let models = f.models();
            if !models.is_empty() {
                let each = models.iter().map(|(model, s)| (model.to_string(), standing(s.in_flight(), s.latency(), s.tokens(), s.looks_open())));
                target["models"] = Value::Object(each.collect());
            }
            target
        })
        .collect();
    Json(json!({ "version": env!("CARGO_PKG_VERSION"), "draining": state.is_draining(), "in_flight": state.serving.load(Relaxed), "ledger_dropped": state.ledger.dropped(), "targets": targets }))
}

fn standing(in_flight: u32, latency: Option<Duration>, tokens: u64, open: Option<Duration>) -> Value {
    json!({
        "in_flight": in_flight,
        "latency_ms": latency.map(|l| l.as_micros() as f64 / 1000.0),
        "tokens": tokens,
        "open_for_ms": open.map(|d| d.as_millis() as u64),
    })
}
