//! Who is asking: by a key, a token or the connection's certificate. Stands first: before any work is done for a stranger.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use providers::ErrorKind;

use crate::certificate::Peer;
use crate::exchange::Exchange;
use crate::fault::Fault;
use crate::jwt::{Refusal, Token};
use crate::origin;
use crate::principal::{Principal, Stranger, hash_of, shown_key};
use crate::rules::{ModelRule, Rules};

/// When to come again while the keys of an issuer are not known.
const AGAIN: Duration = Duration::from_secs(2);

/// Finds out who is asking, and writes it down.
///
/// # Errors
/// 401 for a stranger, and what else [`find`] says.
pub async fn check(x: &mut Exchange) -> Result<(), Fault> {
    let principal = find(&x.rules, &x.headers, x.peer.as_deref(), x.state.wall()).await?;
    if let Some(entry) = x.entry() {
        entry.consumer = Some(principal.name.clone());
        entry.groups = (!principal.groups.is_empty()).then(|| principal.groups.clone());
    }
    x.principal = Some(principal);
    Ok(())
}

/// Who shows these headers on a connection with this certificate. What is shown in the headers decides, and there is no
/// falling back from it. A key and a token that was seen before cost one hash and one lookup, whether they are known or not.
///
/// # Errors
/// 401 for a stranger: the same words for an unknown key and for one that has ended. 403 for a good token of somebody who may
/// not come in, and for a web page where nobody needs a key; 503 while it cannot be known whether a token is good.
pub async fn find(rules: &Rules, headers: &HeaderMap, peer: Option<&Peer>, now: Duration) -> Result<Arc<Principal>, Fault> {
    let shown = shown_key(headers);
    let hash = shown.map(hash_of);
    if let (Some(tokens), Some(shown), Some(hash)) = (&rules.tokens, shown, hash) {
        if let Some(principal) = tokens.known(&hash, now) {
            return Ok(principal);
        }
        if let Some(token) = Token::cut(shown) {
            return tokens.check(&token, hash, &rules.principals, now).await.map_err(refused);
        }
    }
    let holding = peer.filter(|peer| peer.holds(now));
    if shown.is_none() && holding.is_none() && peer.is_some() {
        return Err(ended());
    }
    let found = rules.principals.find(hash.as_ref(), holding, now).map_err(|stranger| unknown(rules, stranger, peer))?;
    if found.is_anonymous() {
        origin::hold(headers, rules.config.on_loopback())?;
    }
    Ok(found)
}

/// A stranger, who is told what would let it in.
fn unknown(rules: &Rules, stranger: Stranger, peer: Option<&Peer>) -> Fault {
    let message = match stranger {
        Stranger::NoKey => wanted(rules, peer),
        Stranger::Unknown | Stranger::Expired => "the API key is not known here, or it has ended".to_owned(),
    };
    let error = if stranger == Stranger::NoKey { "Bearer" } else { "Bearer error=\"invalid_token\"" };
    unauthorized(message, error).detail(format!("{stranger:?}"))
}

/// What lets somebody in who has shown nothing, or a certificate that is nobody's.
fn wanted(rules: &Rules, peer: Option<&Peer>) -> String {
    let (keys, certificates) = rules.principals.takes();
    let tokens = rules.tokens.is_some();
    let all = [("a client certificate", certificates && peer.is_none()), ("an API key", keys || !(tokens || certificates)), ("a token (JWT)", tokens)];
    let wanted: Vec<&str> = all.into_iter().filter(|(_, wanted)| *wanted).map(|(what, _)| what).collect();
    let mut message = if peer.is_some() { "the client certificate names no consumer here".to_owned() } else { String::new() };
    if let Some((last, others)) = wanted.split_last() {
        let list = if others.is_empty() { (*last).to_owned() } else { format!("{} or {last}", others.join(", ")) };
        message.push_str(&format!("{}{list} is needed", if message.is_empty() { "" } else { "; " }));
    }
    if wanted.iter().any(|what| *what != "a client certificate") {
        message.push_str(": send it as `Authorization: Bearer KEY` or `x-api-key: KEY`");
    }
    message
}

/// A certificate that was good when the connection began and is not any more.
fn ended() -> Fault {
    let mut fault = unauthorized("the client certificate has ended, or its authority is not trusted here any more; connect anew with a good one".to_owned(), "Bearer");
    fault.headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    fault
}

/// A token that lets nobody in. Of keys and signatures the client is told one thing only, whatever it was.
fn refused(refusal: Refusal) -> Fault {
    let (message, header) = match &refusal {
        Refusal::Malformed(_) => ("the token is malformed", "Bearer error=\"invalid_token\", error_description=\"the token is malformed\""),
        Refusal::Issuer(_) => ("the token is of an issuer that is not trusted here", "Bearer error=\"invalid_token\", error_description=\"the issuer is not trusted here\""),
        Refusal::Expired(_) => ("the token has expired", "Bearer error=\"invalid_token\", error_description=\"the token has expired\""),
        Refusal::NotYet(_) => ("the token is not valid yet", "Bearer error=\"invalid_token\", error_description=\"the token is not valid yet\""),
        Refusal::Audience => ("the token is for another audience", "Bearer error=\"invalid_token\", error_description=\"the token is for another audience\""),
        Refusal::Signature(_) => ("the token's signature is not valid", "Bearer error=\"invalid_token\", error_description=\"the signature is not valid\""),
        Refusal::Nobody(_) => {
            let message = "the token is good, but neither its consumer nor one of its groups is known here; the operator can add either";
            return Fault::client(StatusCode::FORBIDDEN, ErrorKind::Permission, message).code("unknown_consumer").detail(refusal);
        }
        Refusal::NoKeys(_) => {
            let fault = Fault::gateway("the token cannot be checked at the moment: the keys of its issuer are not known yet");
            return fault.status_of(StatusCode::SERVICE_UNAVAILABLE).code("issuer_unavailable").retry_after(AGAIN).detail(refusal).known();
        }
    };
    unauthorized(message.to_owned(), header).code("invalid_token").detail(refusal)
}

fn unauthorized(message: String, challenge: &'static str) -> Fault {
    let mut fault = Fault::client(StatusCode::UNAUTHORIZED, ErrorKind::Authentication, message);
    fault.headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    fault
}

/// Whether who is asking may use the model.
///
/// # Errors
/// 403 if not.
pub fn may_use(x: &Exchange, model: &ModelRule) -> Result<(), Fault> {
    let Some(principal) = &x.principal else { return Err(Fault::gateway("nobody is asking")) };
    allowed(principal, model, &x.model)
}

/// Whether somebody may use a model that is asked for by this name.
///
/// # Errors
/// 403 if not.
pub fn allowed(principal: &Principal, model: &ModelRule, asked: &str) -> Result<(), Fault> {
    if principal.may_use(asked) && model.access.admits(principal) {
        return Ok(());
    }
    let message = format!("{} may not use the model `{}`; `GET /v1/models` lists those that it may", principal.name, asked.chars().take(128).collect::<String>());
    Err(Fault::client(StatusCode::FORBIDDEN, ErrorKind::Permission, message).code("model_not_allowed").param("model"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters::{Counters, Memory};
    use crate::ledger::Ledger;
    use crate::state::State;

    /// Who has no key, where others than this machine can ask.
    async fn nobody(headers: &[(&'static str, &str)]) -> Result<Arc<Principal>, String> {
        let config = crate::config::from_text("listen: 0.0.0.0:8080\nproviders: { demo: { kind: echo } }\nauth: { anonymous: true }\n", &|_| None).unwrap();
        let state = State::new(Ledger::start().unwrap(), Counters::Memory(Memory::volatile()), Arc::default()).unwrap();
        let rules = Rules::build(&config, &state).unwrap();
        let headers = headers.iter().map(|(name, value)| (http::HeaderName::from_static(name), value.parse().unwrap())).collect();
        find(&rules, &headers, None, Duration::ZERO).await.map_err(|fault| fault.told.code.unwrap_or_default())
    }

    #[tokio::test]
    async fn a_listener_for_others_has_names_that_it_does_not_know() {
        let found = nobody(&[("host", "llm.example.com")]).await.unwrap();
        assert!(found.is_anonymous() && !found.files, "files are for who is named, where others than this machine can ask");
        // A page of its own is the same as its host; without TLS anybody's name may have been bent to it.
        assert!(nobody(&[("host", "llm.example.com"), ("origin", "https://llm.example.com")]).await.is_ok());
        for (host, origin) in [("llm.example.com", "https://app.example.com"), ("evil.example", "http://evil.example")] {
            assert_eq!(nobody(&[("host", host), ("origin", origin)]).await.err().as_deref(), Some("origin_not_allowed"), "{origin}");
        }
    }
}
