//! Targets: how fast, how busy, how healthy they are, and a breaker that an operator closes by hand.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State as Shared;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Context;
use super::body::Body;
use super::refusal::{Refusal, Refused};
use crate::figures::Figures;
use crate::rules::{ModelRule, Rules, TargetRule};
use crate::target::{Standing, Stats};

/// All targets.
#[derive(Serialize, ToSchema)]
pub(super) struct Targets {
    targets: Vec<TargetLine>,
}

/// A target of a model, as this process knows it.
#[derive(Serialize, ToSchema)]
pub(super) struct TargetLine {
    /// Names it: the model, and where requests for it go.
    #[schema(example = "chat → openai/gpt-4o-mini")]
    target: String,
    /// The model that clients ask for.
    model: String,
    /// Where it goes, `provider/model`.
    to: String,
    /// Whether it is asked only when others fail.
    fallback: bool,
    #[serde(flatten)]
    figures: FigureLine,
    /// Behind a `*`: each model that it has stood for lately. The figures above are then of all together, and of the worst.
    models: Vec<ModelLine>,
}

/// A model that a `*` has stood for.
#[derive(Serialize, ToSchema)]
struct ModelLine {
    /// What the `*` stood for.
    model: String,
    #[serde(flatten)]
    figures: FigureLine,
}

/// How fast, busy and healthy something is.
#[derive(Serialize, ToSchema)]
struct FigureLine {
    /// `closed`: requests go there. `open`: none do. `half_open`: the next one finds out.
    #[schema(value_type = String)]
    breaker: Breaker,
    /// How long it stays open.
    open_for_ms: Option<u64>,
    /// Moving average; not there before the first answer.
    latency_ms: Option<f64>,
    in_flight: u32,
    /// Tokens used since the process started.
    tokens: u64,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Breaker {
    Closed,
    Open,
    HalfOpen,
}

/// Which target.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CloseWish {
    /// The target, as the list names it.
    target: String,
}

/// All targets of all models: breaker, latency, requests in flight, tokens. Each replica has its own figures.
#[utoipa::path(get, path = "/admin/targets", tag = "targets", responses((status = 200, body = Targets)))]
pub(super) async fn list(Shared(context): Shared<Arc<Context>>) -> Result<Json<Targets>, Refusal> {
    let rules = context.rules()?;
    Ok(Json(Targets { targets: every(&rules).map(|(model, target, fallback)| TargetLine::new(model, target, fallback)).collect() }))
}

/// Closes the breaker of a target, behind a `*` that of all its models: requests go there again at once.
#[utoipa::path(post, path = "/admin/targets/close", tag = "targets", request_body = CloseWish,
    responses((status = 200, body = TargetLine), (status = 404, body = Refused, description = "There is no such target."), (status = 422, body = Refused)))]
pub(super) async fn close(Shared(context): Shared<Arc<Context>>, Body(wish): Body<CloseWish>) -> Result<Json<TargetLine>, Refusal> {
    let rules = context.rules()?;
    let found = every(&rules).find(|(model, target, _)| name(model, target) == wish.target);
    let (model, target, fallback) = found.ok_or_else(|| Refusal::unknown("unknown_target", "there is no such target; GET /admin/targets names them, in the field `target`"))?;
    target.figures.close();
    tracing::info!(target = wish.target, "a breaker was closed by hand");
    Ok(Json(TargetLine::new(model, target, fallback)))
}

/// Each target of each model, and whether it is a fallback, in the order of the models' names.
fn every(rules: &Rules) -> impl Iterator<Item = (&ModelRule, &TargetRule, bool)> {
    let models = rules.names().into_iter().filter_map(|name| rules.named(name));
    models.flat_map(|model| {
        let first = model.targets.iter().map(move |target| (&**model, target, false));
        first.chain(model.fallback.iter().map(move |target| (&**model, target, true)))
    })
}

fn name(model: &ModelRule, target: &TargetRule) -> String {
    format!("{} → {}", model.name, target.name)
}

impl TargetLine {
    fn new(model: &ModelRule, target: &TargetRule, fallback: bool) -> Self {
        let figures = &target.figures;
        let models = figures.models().into_iter().map(|(model, stats)| ModelLine { model: model.into(), figures: FigureLine::of_model(&stats) }).collect();
        TargetLine { target: name(model, target), model: model.name.to_string(), to: target.name.to_string(), fallback, figures: FigureLine::of(figures), models }
    }
}

impl FigureLine {
    fn of(all: &Figures) -> Self {
        Self::new(all.standing(), all.latency(), all.in_flight(), all.tokens())
    }

    fn of_model(one: &Stats) -> Self {
        Self::new(one.standing(), one.latency(), one.in_flight(), one.tokens())
    }

    fn new(standing: Standing, latency: Option<Duration>, in_flight: u32, tokens: u64) -> Self {
        let (breaker, open_for_ms) = match standing {
            Standing::Closed => (Breaker::Closed, None),
            Standing::Open(left) => (Breaker::Open, Some(left.as_millis() as u64)),
            Standing::HalfOpen => (Breaker::HalfOpen, None),
        };
        FigureLine { breaker, open_for_ms, latency_ms: latency.map(|latency| latency.as_micros() as f64 / 1000.0), in_flight, tokens }
    }
}
