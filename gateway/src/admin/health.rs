//! Health, readiness, figures for Prometheus, and what is known of targets, for whoever reaches the port.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

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
    for (name, stats) in state.all_stats() {
        let name = name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', " ");
        more.push_str(&format!("trivium_target_open{{target=\"{name}\"}} {}\n", u8::from(stats.looks_open().is_some())));
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
        .map(|(name, s)| {
            json!({
                "target": name,
                "in_flight": s.in_flight(),
                "latency_ms": s.latency().map(|l| l.as_micros() as f64 / 1000.0),
                "tokens": s.tokens(),
                "open_for_ms": s.looks_open().map(|d| d.as_millis() as u64),
            })
        })
        .collect();
    Json(json!({ "version": env!("CARGO_PKG_VERSION"), "draining": state.is_draining(), "in_flight": state.serving.load(Relaxed), "ledger_dropped": state.ledger.dropped(), "targets": targets }))
}
