//! What the gateway answers by itself: its greeting, the models that somebody may ask for, and what somebody has used.

use std::sync::Arc;

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use providers::{Dialect, ErrorKind};

use crate::body::Body;
use crate::certificate::Peer;
use crate::door::{admit, refuse};
use crate::fault::{Fault, model_not_found};
use crate::history::OWN_DAYS;
use crate::phase::identity;
use crate::principal::Principal;
use crate::purse::told;
use crate::road::visible;
use crate::rules::{ModelRule, Rules};
use crate::state::State;

/// Refuses all but GET and HEAD.
fn get_only(request: &Request<Incoming>) -> Option<Response<Body>> {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return None;
    }
    let fault = Fault::client(StatusCode::METHOD_NOT_ALLOWED, ErrorKind::InvalidRequest, format!("this path takes GET, not {}", request.method())).code("method_not_allowed");
    Some(refuse(request.headers(), Dialect::Chat, &fault))
}

fn json(body: &serde_json::Value) -> Response<Body> {
    let mut response = Response::new(Body::whole(body.to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// The gateway's greeting.
pub fn root(request: &Request<Incoming>) -> Response<Body> {
    get_only(request).unwrap_or_else(|| {
        json(&serde_json::json!({
            "name": "trivium",
            "version": env!("CARGO_PKG_VERSION"),
            "try": ["GET /v1/models", "POST /v1/chat/completions", "POST /v1/responses", "POST /v1/messages"],
        }))
    })
}

/// The rules in force, and who is asking.
async fn who(state: &State, request: &Request<Incoming>) -> Result<(Arc<Rules>, Arc<Principal>), Fault> {
    let rules = admit(state)?;
    let peer: Option<&Arc<Peer>> = request.extensions().get();
    // No ledger entry is made here that could keep why.
    let found = identity::find(&rules, request.headers(), peer.map(|p| &**p), state.wall()).await;
    let principal = found.inspect_err(|fault| tracing::debug!(status = fault.told.status, detail = fault.detail, "somebody was not let in"))?;
    Ok((rules, principal))
}

/// How the caller's limits stand, and what it has used in the last days.
pub async fn usage(state: &State, request: &Request<Incoming>) -> Response<Body> {
    if let Some(refused) = get_only(request) {
        return refused;
    }
    let principal = match who(state, request).await {
        Ok((_, principal)) => principal,
        Err(fault) => return refuse(request.headers(), Dialect::Chat, &fault),
    };
    let days = match days(request.uri().query()) {
        Ok(days) => days,
        Err(fault) => return refuse(request.headers(), Dialect::Chat, &fault),
    };
    let purses: Vec<_> = principal.limits.iter().map(|l| l.purse.clone()).collect();
    let standings = state.counters.standing(&purses).await;
    let limits: Vec<_> = principal
        .limits
        .iter()
        .zip(&standings)
        .map(|(limit, s)| {
            let amount = |n: u64| told(s.purse.unit, n);
            serde_json::json!({
                "limit": limit.label, "cap": amount(s.purse.cap), "used": amount(s.used), "reserved": amount(s.reserved), "left": amount(s.left),
                "resets_in_seconds": s.resets_in.as_secs(),
            })
        })
        .collect();
    let mut usage = serde_json::json!({ "object": "usage", "consumer": &*principal.name, "groups": principal.groups, "limits": limits });
    // Who has no key is not told what everybody else without one does.
    if let Some(history) = state.ledger.history().filter(|_| !principal.is_anonymous()) {
        // `null` says that there is a history, and that it could not be read just now.
        usage["history"] = match history.own(&principal.name, days).await {
            Some(Ok(report)) => report.json(),
            Some(Err(error)) => {
                tracing::warn!(%error, "a consumer could not be told what it has used");
                serde_json::Value::Null
            }
            None => serde_json::Value::Null,
        };
    }
    json(&usage)
}

/// How many days somebody wants to see.
fn days(query: Option<&str>) -> Result<u32, Fault> {
    let mut given = query.unwrap_or_default().split('&').filter_map(|pair| pair.strip_prefix("days="));
    match given.next().map(str::parse) {
        None => Ok(30),
        Some(Ok(days)) if (1..=OWN_DAYS).contains(&days) => Ok(days),
        Some(_) => Err(Fault::client(StatusCode::BAD_REQUEST, ErrorKind::InvalidRequest, format!("`days` is a number from 1 to {OWN_DAYS}")).param("days")),
    }
}

/// The models that can be asked for, in the words of whoever asks: OpenAI's and Anthropic's go together in one object, Google's
/// SDK is known by its header or its path.
pub async fn models(state: &State, request: &Request<Incoming>, name: Option<&str>) -> Response<Body> {
    let google = request.headers().contains_key("x-goog-api-key") || request.uri().path().starts_with("/v1beta/");
    let dialect = if google { Dialect::Generate } else { Dialect::Chat };
    if let Some(refused) = get_only(request) {
        return refused;
    }
    let (rules, principal) = match who(state, request).await {
        Ok(found) => found,
        Err(fault) => return refuse(request.headers(), dialect, &fault),
    };
    let created = state.now().as_secs();
    let item = |name: &str, model: &ModelRule| {
        if google {
            return serde_json::json!({ "name": format!("models/{name}"), "displayName": name, "supportedGenerationMethods": ["generateContent", "streamGenerateContent", "countTokens", "embedContent"] });
        }
        let owner = model.targets.first().map_or("", |t| &*t.provider.name);
        serde_json::json!({ "id": name, "object": "model", "created": created, "owned_by": owner, "type": "model", "display_name": name })
    };
    // What somebody may not use is not shown either.
    let usable = |name: &str| rules.model(name).map(|(model, _)| model).filter(|model| principal.may_use(name) && model.access.admits(&principal));
    if let Some(name) = name {
        return usable(name).map_or_else(|| refuse(request.headers(), dialect, &model_not_found(name, &visible(&rules, Some(&principal)))), |model| json(&item(name, model)));
    }
    let data: Vec<_> = rules.callable().iter().filter_map(|name| Some(item(name, usable(name)?))).collect();
    if google {
        return json(&serde_json::json!({ "models": data }));
    }
    let (first, last) = (data.first().map(|d| d["id"].clone()), data.last().map(|d| d["id"].clone()));
    json(&serde_json::json!({ "object": "list", "data": data, "has_more": false, "first_id": first, "last_id": last }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_a_number() {
        assert_eq!(days(None).ok(), Some(30));
        assert_eq!(days(Some("x=1&days=7")).ok(), Some(7));
        for query in ["days=0", "days=91", "days=-1", "days=", "days=week"] {
            assert!(days(Some(query)).is_err(), "{query}");
        }
    }
}
