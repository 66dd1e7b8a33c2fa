//! Limits as they stand, and what an operator can do about them.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Shared;
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};
use utoipa::ToSchema;

use super::Context;
use super::body::Body;
use super::refusal::{Refusal, Refused};
use crate::config::Count;
use crate::counters::{Purse, Standing, Unit, Window};
use crate::purse::{LimitRule, nanodollars, told};
use crate::rules::Rules;
use crate::state::State;

/// How many purses are asked for at a time: a Redis that counts thousands at once would look slow to requests.
const AT_A_TIME: usize = 64;
/// Most that is given at a time: what all counters can count to.
const MOST: u64 = (1 << 53) - 1;

/// All limits.
#[derive(Serialize, ToSchema)]
pub(super) struct Limits {
    limits: Vec<LimitLine>,
}

/// A limit as it stands. Amounts are in its unit; dollars are decimal numbers.
#[derive(Serialize, ToSchema)]
pub(super) struct LimitLine {
    /// Names it: the same over reloads, restarts and replicas.
    limit: String,
    /// What it says, for people.
    label: String,
    #[schema(value_type = String, example = "dollars")]
    unit: &'static str,
    #[schema(value_type = f64)]
    cap: Number,
    /// What was used and still counts; less than nothing is shown as 0.
    #[schema(value_type = f64)]
    used: Number,
    /// What requests under way have reserved.
    #[schema(value_type = f64)]
    reserved: Number,
    /// What a request could still have; more than the cap after a top-up.
    #[schema(value_type = f64)]
    left: Number,
    /// How long until nothing counts as used; not there if nothing is used.
    resets_in_seconds: Option<u64>,
    /// Whether the worst case is reserved.
    strict: bool,
    /// Who spends from it; in the list of all limits only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    consumers: Vec<String>,
}

/// Which limit.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ResetWish {
    /// The limit, as the list names it.
    limit: String,
}

/// Which limit, and how much more.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TopUpWish {
    /// The limit, as the list names it.
    limit: String,
    /// How much more, in the limit's unit: a number, or text such as `"200k"` or `"0.000000001"`.
    #[schema(value_type = f64)]
    amount: Value,
}

/// Every limit of every consumer and group, with what is used, reserved and left.
#[utoipa::path(get, path = "/admin/limits", tag = "limits", responses((status = 200, body = Limits)))]
pub(super) async fn list(Shared(context): Shared<Arc<Context>>) -> Result<Json<Limits>, Refusal> {
    let rules = context.rules()?;
    Ok(Json(Limits { limits: standing(&context.state, every(&rules)).await }))
}

/// Forgets what a limit has used. What is reserved stands.
#[utoipa::path(post, path = "/admin/limits/reset", tag = "limits", request_body = ResetWish,
    responses((status = 200, body = LimitLine), (status = 404, body = Refused, description = "There is no such limit."), (status = 422, body = Refused), (status = 503, body = Refused)))]
pub(super) async fn reset(Shared(context): Shared<Arc<Context>>, Body(wish): Body<ResetWish>) -> Result<Json<LimitLine>, Refusal> {
    let rules = context.rules()?;
    let purse = purse(&rules, &wish.limit)?;
    context.state.counters.reset(&purse).await?;
    tracing::info!(limit = &*purse.key, "a limit was reset");
    line(&context, &rules, &purse).await
}

/// Gives a limit this much more, for as long as something used now would count.
#[utoipa::path(post, path = "/admin/limits/top-up", tag = "limits", request_body = TopUpWish,
    responses((status = 200, body = LimitLine), (status = 404, body = Refused, description = "There is no such limit."), (status = 422, body = Refused), (status = 503, body = Refused)))]
pub(super) async fn top_up(Shared(context): Shared<Arc<Context>>, Body(wish): Body<TopUpWish>) -> Result<Json<LimitLine>, Refusal> {
    let rules = context.rules()?;
    let purse = purse(&rules, &wish.limit)?;
    let amount = amount(purse.unit, &wish.amount)?;
    context.state.counters.top_up(&purse, amount).await?;
    tracing::info!(limit = &*purse.key, amount = %told(purse.unit, amount), "a limit was topped up");
    line(&context, &rules, &purse).await
}

/// These limits as they stand, each with who spends from it.
pub(super) async fn standing(state: &State, limits: Vec<(&LimitRule, Vec<String>)>) -> Vec<LimitLine> {
    let mut lines = Vec::with_capacity(limits.len());
    for some in limits.chunks(AT_A_TIME) {
        let purses: Vec<Arc<Purse>> = some.iter().map(|(limit, _)| limit.purse.clone()).collect();
        let standings = state.counters.standing(&purses).await;
        lines.extend(some.iter().zip(standings).map(|((limit, consumers), standing)| LimitLine::new(limit, &standing, consumers.clone())));
    }
    lines
}

impl LimitLine {
    fn new(limit: &LimitRule, s: &Standing, consumers: Vec<String>) -> Self {
        let unit = s.purse.unit;
        LimitLine {
            limit: s.purse.key.to_string(),
            label: limit.label.clone(),
            unit: match unit {
                Unit::Requests => "requests",
                Unit::Tokens => "tokens",
                Unit::PromptTokens => "prompt_tokens",
                Unit::CompletionTokens => "completion_tokens",
                Unit::Nanodollars => "dollars",
                Unit::Concurrent => "concurrent",
            },
            cap: told(unit, s.purse.cap),
            used: told(unit, s.used),
            reserved: told(unit, s.reserved),
            left: told(unit, s.left),
            resets_in_seconds: (s.used > 0).then_some(s.resets_in.as_secs()),
            strict: limit.strict,
            consumers,
        }
    }
}

/// Every limit once, with who spends from it.
fn every(rules: &Rules) -> Vec<(&LimitRule, Vec<String>)> {
    let mut every: Vec<(&LimitRule, Vec<String>)> = Vec::new();
    let mut places: std::collections::HashMap<(&str, u64), usize> = std::collections::HashMap::new();
    for principal in rules.principals.iter() {
        for limit in &principal.limits {
            // Two limits of a group may count in one purse, and differ in their cap.
            let place = *places.entry((&*limit.purse.key, limit.purse.cap)).or_insert_with(|| {
                every.push((limit, Vec::new()));
                every.len() - 1
            });
            every[place].1.push(principal.name.to_string());
        }
    }
    every
}

fn purse(rules: &Rules, key: &str) -> Result<Arc<Purse>, Refusal> {
    let purse = rules.principals.iter().flat_map(|p| &p.limits).map(|limit| &limit.purse).find(|purse| *purse.key == *key);
    let purse = purse.ok_or_else(|| Refusal::unknown("unknown_limit", "there is no such limit; GET /admin/limits names them, in the field `limit`"))?;
    if purse.window == Window::None {
        return Err(Refusal::senseless("nothing_used", "this limit counts requests under way only: there is nothing used that could be forgotten, or given back"));
    }
    Ok(purse.clone())
}

async fn line(context: &Context, rules: &Rules, purse: &Arc<Purse>) -> Result<Json<LimitLine>, Refusal> {
    let limit = every(rules).into_iter().filter(|(limit, _)| limit.purse.key == purse.key).take(1).collect();
    standing(&context.state, limit).await.pop().map(Json).ok_or_else(|| Refusal::unknown("unknown_limit", "the limit is gone"))
}

/// How much is given, as it is counted.
fn amount(unit: Unit, value: &Value) -> Result<u64, Refusal> {
    let amount = match (unit, value) {
        (Unit::Nanodollars, Value::Number(number)) => nanodollars(&number.to_string()),
        (Unit::Nanodollars, Value::String(text)) => nanodollars(text),
        (Unit::Nanodollars, _) => None,
        (_, value) => serde_json::from_value::<Count>(value.clone()).ok().map(|count| count.0),
    };
    match amount {
        Some(amount @ 1..=MOST) => Ok(amount),
        _ if unit == Unit::Nanodollars => Err(Refusal::senseless("invalid_amount", "`amount` must be a number of dollars above 0, of at most nine decimals, and below nine million")),
        _ => Err(Refusal::senseless("invalid_amount", "`amount` must be a whole number above 0, or text such as \"200k\"")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn amounts_are_exact_and_above_nothing() {
        assert_eq!(amount(Unit::Nanodollars, &json!(0.1)).unwrap(), 100_000_000);
        assert_eq!(amount(Unit::Nanodollars, &json!("0.000000001")).unwrap(), 1);
        assert_eq!(amount(Unit::Tokens, &json!("200k")).unwrap(), 200_000);
        for (unit, wrong) in
            [(Unit::Nanodollars, json!(0)), (Unit::Nanodollars, json!(-1)), (Unit::Nanodollars, json!(1e9)), (Unit::Tokens, json!(0.5)), (Unit::Tokens, json!(null)), (Unit::Requests, json!(1e20))]
        {
            assert!(amount(unit, &wrong).is_err(), "{wrong}");
        }
    }
}
