//! Consumers: who they are, what they may use, and how they stand.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Shared;
use serde::Serialize;
use utoipa::ToSchema;

use super::Context;
use super::body::Named;
use super::keys::{self, KeyLine};
use super::limits::{self, LimitLine};
use super::refusal::{Refusal, Refused};
use crate::principal::Principal;
use crate::rules::Rules;

/// All consumers.
#[derive(Serialize, ToSchema)]
pub(super) struct Consumers {
    consumers: Vec<ConsumerLine>,
}

/// A consumer in the list.
#[derive(Serialize, ToSchema)]
struct ConsumerLine {
    name: String,
    groups: Vec<String>,
    /// How many keys let it in at the moment.
    active_keys: usize,
    /// How many limits hold for it.
    limits: usize,
}

/// A consumer.
#[derive(Serialize, ToSchema)]
pub(super) struct ConsumerDetail {
    name: String,
    groups: Vec<String>,
    /// What it may ask for; patterns as they are written.
    models: Vec<String>,
    limits: Vec<LimitLine>,
    keys: Vec<KeyLine>,
}

/// All consumers of the configuration.
#[utoipa::path(get, path = "/admin/consumers", tag = "consumers", responses((status = 200, body = Consumers)))]
pub(super) async fn list(Shared(context): Shared<Arc<Context>>) -> Result<Json<Consumers>, Refusal> {
    let rules = context.rules()?;
    let active = keys::active(&context, &rules);
    let line = |p: &Arc<Principal>| ConsumerLine { name: p.name.to_string(), groups: groups(p), active_keys: active.get(&p.name).copied().unwrap_or(0), limits: p.limits.len() };
    Ok(Json(Consumers { consumers: rules.principals.iter().map(line).collect() }))
}

/// One consumer: groups, models, limits as they stand, keys without their secrets.
#[utoipa::path(get, path = "/admin/consumers/{name}", tag = "consumers", params(("name" = String, Path, description = "The consumer's name.")),
    responses((status = 200, body = ConsumerDetail), (status = 404, body = Refused, description = "There is no such consumer.")))]
pub(super) async fn one(Shared(context): Shared<Arc<Context>>, Named(name): Named) -> Result<Json<ConsumerDetail>, Refusal> {
    let rules = context.rules()?;
    let principal = find(&rules, &name)?;
    let models = rules.names().into_iter().filter(|model| principal.may_use(model) && rules.named(model).is_some_and(|m| m.access.admits(principal)));
    let models = models.map(str::to_owned).collect();
    let limits = limits::standing(&context.state, principal.limits.iter().map(|limit| (limit, Vec::new())).collect()).await;
    Ok(Json(ConsumerDetail { name, groups: groups(principal), models, limits, keys: keys::of(&context, &rules, &principal.name) }))
}

/// A consumer of the configuration.
pub(super) fn find<'r>(rules: &'r Rules, name: &str) -> Result<&'r Arc<Principal>, Refusal> {
    rules.principals.iter().find(|p| *p.name == *name).ok_or_else(|| {
        let name: String = name.chars().take(128).collect();
        Refusal::unknown("unknown_consumer", format!("no consumer \"{name}\" is configured; consumers stand in the configuration, under `consumers`"))
    })
}

fn groups(principal: &Principal) -> Vec<String> {
    principal.groups.iter().map(ToString::to_string).collect()
}
