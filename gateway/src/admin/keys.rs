//! Keys made at run time: made, replaced, revoked. The key itself is in one answer and nowhere else.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State as Shared;
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Context;
use super::body::{Body, Named};
use super::consumers;
use super::refusal::{Refusal, Refused};
use crate::config::{KeyEntry, Span};
use crate::keyring::{Fresh, Life, MadeKey, Wanted};
use crate::principal::day_or_time;
use crate::rules::Rules;

/// Keys.
#[derive(Serialize, ToSchema)]
pub(super) struct Keys {
    keys: Vec<KeyLine>,
}

/// A key, without its secret.
#[derive(Serialize, ToSchema)]
pub(super) struct KeyLine {
    /// What it is called here; not there for keys of the configuration, which are changed there.
    id: Option<String>,
    consumer: String,
    name: Option<String>,
    #[schema(value_type = String)]
    source: Source,
    #[schema(value_type = String)]
    state: State,
    /// When it was made.
    created: Option<String>,
    /// When it ends, or has ended.
    ends: Option<String>,
}

/// Where a key comes from.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Source {
    Configuration,
    RunTime,
}

/// Whether it lets its consumer in.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Active,
    Expired,
    Revoked,
}

/// A key that was just made.
#[derive(Serialize, ToSchema)]
pub(super) struct NewKey {
    /// The key. It is shown this once.
    key: String,
    #[serde(flatten)]
    line: KeyLine,
}

/// What a new key is to be.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct KeyWish {
    /// What it is called, for people.
    name: Option<String>,
    /// When it ends: a day or a moment in UTC, or a time from now such as `30d`. Default never.
    #[schema(example = "30d")]
    expires: Option<String>,
}

/// How a key is to be replaced.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RotateWish {
    /// How long the old key lives on, such as `1h`. Default not at all.
    #[schema(example = "1h")]
    grace: Option<String>,
    /// When the new key ends. Default: it lives as long as the old one was made for.
    #[schema(example = "2027-01-31")]
    expires: Option<String>,
}

/// The keys of a consumer, those of the configuration too.
#[utoipa::path(get, path = "/admin/consumers/{name}/keys", tag = "keys", params(("name" = String, Path, description = "The consumer's name.")),
    responses((status = 200, body = Keys), (status = 404, body = Refused, description = "There is no such consumer.")))]
pub(super) async fn list(Shared(context): Shared<Arc<Context>>, Named(name): Named) -> Result<Json<Keys>, Refusal> {
    let rules = context.rules()?;
    let principal = consumers::find(&rules, &name)?;
    Ok(Json(Keys { keys: of(&context, &rules, &principal.name) }))
}

/// Makes a key for a consumer. It can be used at once.
#[utoipa::path(post, path = "/admin/consumers/{name}/keys", tag = "keys", params(("name" = String, Path, description = "The consumer's name.")), request_body = KeyWish,
    responses((status = 201, body = NewKey), (status = 404, body = Refused, description = "There is no such consumer."), (status = 422, body = Refused), (status = 503, body = Refused, description = "There is no place to keep keys.")))]
pub(super) async fn make(Shared(context): Shared<Arc<Context>>, Named(name): Named, Body(wish): Body<KeyWish>) -> Result<(StatusCode, Json<NewKey>), Refusal> {
    let rules = context.rules()?;
    let principal = consumers::find(&rules, &name)?;
    if principal.is_anonymous() {
        return Err(Refusal::senseless("no_keys", "this consumer stands for requests without a key; make one for another"));
    }
    let now = context.now();
    let wanted = Wanted { consumer: principal.name.to_string(), name: wish.name.map(named).transpose()?, expires: wish.expires.map(|text| end(&text, now)).transpose()? };
    let fresh = context.state.keyring.make(wanted, now).await?;
    tracing::info!(id = fresh.made.id, consumer = &*fresh.made.consumer, "a key was made");
    Ok((StatusCode::CREATED, Json(NewKey::new(&fresh, now))))
}

/// All keys made at run time, those too whose consumer is no longer configured and which let nobody in.
#[utoipa::path(get, path = "/admin/keys", tag = "keys", responses((status = 200, body = Keys)))]
pub(super) async fn all(Shared(context): Shared<Arc<Context>>) -> Json<Keys> {
    let now = context.now();
    Json(Keys { keys: context.state.keyring.all().iter().map(|key| KeyLine::made(key, now)).collect() })
}

/// Revokes a key: it lets nobody in from now on. Other replicas hear of it within two seconds.
#[utoipa::path(delete, path = "/admin/keys/{id}", tag = "keys", params(("id" = String, Path, description = "The key's id.")),
    responses((status = 200, body = KeyLine), (status = 404, body = Refused, description = "No such key was made at run time.")))]
pub(super) async fn revoke(Shared(context): Shared<Arc<Context>>, Named(id): Named) -> Result<Json<KeyLine>, Refusal> {
    let now = context.now();
    let key = context.state.keyring.revoke(&id, now).await?;
    tracing::info!(id = key.id, consumer = &*key.consumer, "a key was revoked");
    Ok(Json(KeyLine::made(&key, now)))
}

/// Puts a new key in the place of one. The old one ends after the grace.
#[utoipa::path(post, path = "/admin/keys/{id}/rotate", tag = "keys", params(("id" = String, Path, description = "The key's id.")), request_body = RotateWish,
    responses((status = 201, body = NewKey), (status = 404, body = Refused, description = "No such key was made at run time."), (status = 409, body = Refused, description = "It has ended."), (status = 422, body = Refused)))]
pub(super) async fn rotate(Shared(context): Shared<Arc<Context>>, Named(id): Named, Body(wish): Body<RotateWish>) -> Result<(StatusCode, Json<NewKey>), Refusal> {
    let now = context.now();
    let grace = wish.grace.map(|text| span(&text).ok_or_else(|| Refusal::senseless("invalid_grace", format!("`grace` must be a time such as 1h, not {text:?}")))).transpose()?;
    let expires = wish.expires.map(|text| end(&text, now)).transpose()?;
    let fresh = context.state.keyring.rotate(&id, grace.unwrap_or_default(), expires, now).await?;
    tracing::info!(old = id, id = fresh.made.id, consumer = &*fresh.made.consumer, grace_seconds = grace.unwrap_or_default().as_secs(), "a key was replaced");
    Ok((StatusCode::CREATED, Json(NewKey::new(&fresh, now))))
}

/// All keys of a consumer: first those of the configuration.
pub(super) fn of(context: &Context, rules: &Rules, consumer: &str) -> Vec<KeyLine> {
    let now = context.now();
    let made = context.state.keyring.all().into_iter().filter(|key| *key.consumer == *consumer).map(|key| KeyLine::made(&key, now));
    configured(rules, consumer, now).chain(made).collect()
}

/// How many keys let each consumer in at the moment.
pub(super) fn active(context: &Context, rules: &Rules) -> HashMap<Arc<str>, usize> {
    let now = context.now();
    let is_active = |key: &KeyLine| key.state == State::Active;
    let mut active: HashMap<Arc<str>, usize> = rules.principals.iter().map(|p| (p.name.clone(), configured(rules, &p.name, now).filter(is_active).count())).collect();
    for key in context.state.keyring.all().into_iter().filter(|key| key.life(now) == Life::Active) {
        active.entry(key.consumer.clone()).and_modify(|count| *count += 1);
    }
    active
}

fn configured(rules: &Rules, consumer: &str, now: u64) -> impl Iterator<Item = KeyLine> {
    rules.config.consumers.get(consumer).into_iter().flat_map(|c| &c.keys).map(move |key| {
        let ends = match key {
            KeyEntry::Plain(_) => None,
            KeyEntry::Long(key) => key.expires.as_deref().and_then(day_or_time),
        };
        let state = if ends.is_some_and(|end| now >= end) { State::Expired } else { State::Active };
        KeyLine { id: None, consumer: consumer.to_owned(), name: None, source: Source::Configuration, state, created: None, ends: ends.map(spoken) }
    })
}

impl KeyLine {
    fn made(key: &MadeKey, now: u64) -> Self {
        let state = match key.life(now) {
            Life::Active => State::Active,
            Life::Expired => State::Expired,
            Life::Revoked => State::Revoked,
        };
        let (created, ends) = (Some(spoken(key.created)), key.ends().map(spoken));
        KeyLine { id: Some(key.id.clone()), consumer: key.consumer.to_string(), name: key.name.clone(), source: Source::RunTime, state, created, ends }
    }
}

impl NewKey {
    fn new(fresh: &Fresh, now: u64) -> Self {
        NewKey { key: fresh.key.expose().to_owned(), line: KeyLine::made(&fresh.made, now) }
    }
}

/// A moment in the words of RFC 3339.
fn spoken(seconds: u64) -> String {
    i64::try_from(seconds).ok().and_then(|s| jiff::Timestamp::from_second(s).ok()).map_or_else(|| "never".to_owned(), |moment| moment.to_string())
}

fn span(text: &str) -> Option<Duration> {
    serde_json::from_value::<Span>(text.into()).ok().map(|span| span.0)
}

/// When a key ends that is to end so.
fn end(text: &str, now: u64) -> Result<u64, Refusal> {
    let end = span(text).map(|span| now.saturating_add(span.as_secs())).or_else(|| day_or_time(text));
    match end {
        None => Err(Refusal::senseless("invalid_expires", format!("`expires` must be like 2027-01-31, 2027-01-31T12:00:00Z or 30d, not {text:?}"))),
        Some(end) if end <= now => Err(Refusal::senseless("invalid_expires", format!("`expires: {text}` has passed already"))),
        Some(end) => Ok(end),
    }
}

fn named(name: String) -> Result<String, Refusal> {
    if name.chars().count() > 100 || name.chars().any(char::is_control) {
        return Err(Refusal::senseless("invalid_name", "`name` must have at most 100 characters, and no control characters"));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_ends_on_a_day_or_after_a_time() {
        let now = 1_795_219_200; // 2026-11-21
        assert_eq!((end("30d", now).unwrap(), end("2026-11-22", now).unwrap()), (now + 30 * 86_400, now + 86_400));
        for wrong in ["tomorrow", "", "2026-11-21", "0s", "-1d", "99999999999999999999d"] {
            assert!(end(wrong, now).is_err(), "{wrong}");
        }
        assert_eq!(spoken(now), "2026-11-21T00:00:00Z");
        assert!(named("x".repeat(101)).is_err() && named("a\nb".into()).is_err() && named("Ada's laptop".into()).is_ok());
    }
}
