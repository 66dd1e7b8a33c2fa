//! Tokens as credentials (JWT, RFC 7519; OpenID Connect): who a signed token speaks of, by the issuer's public keys. A token
//! that was seen before costs a lookup; a signature is checked once.

mod claims;
mod key;
mod seen;
mod source;
#[cfg(test)]
mod tests;
mod token;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jsonwebtoken::Algorithm;

pub use self::source::Sources;
pub use self::token::Token;

use self::claims::Claims;
use self::key::{Keys, Verdict};
use self::seen::{Good, Seen};
use self::source::{Place, Source};
use crate::background::Background;
use crate::config::{Auth, Jwt, Problem};
use crate::principal::{Hash, Principal, Principals};
use crate::state::State;

/// The most that two clocks may be apart: beyond, a token's end says nothing any more.
const LONGEST_LEEWAY: Duration = Duration::from_secs(600);

/// Why a token lets nobody in. Printed for the log; none of it repeats the token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is not what a token should be.
    #[error("the token is malformed: {0}")]
    Malformed(&'static str),
    /// It is by somebody who is not believed.
    #[error("the token's issuer `{0}` is not configured")]
    Issuer(String),
    /// It has ended, so many seconds ago.
    #[error("the token ended {0} s ago")]
    Expired(u64),
    /// It begins, or was issued, so many seconds from now.
    #[error("the token is from {0} s ahead of this clock")]
    NotYet(u64),
    /// It is for somebody else.
    #[error("the token is not for the configured audience")]
    Audience,
    /// Its signature is not by a key that may make it.
    #[error("the token's signature is refused: {0}")]
    Signature(String),
    /// It speaks of nobody who may come in.
    #[error("the token is good, and lets nobody in: {0}")]
    Nobody(String),
    /// Whether it is good cannot be known yet.
    #[error("no keys of the issuer {0} are known yet")]
    NoKeys(String),
}

/// The issuers whose tokens are believed.
pub struct Tokens {
    issuers: Vec<Issuer>,
    seen: Seen,
}

/// One of them.
struct Issuer {
    name: String,
    audience: Vec<String>,
    consumer_claim: String,
    groups_claim: String,
    algorithms: Vec<Algorithm>,
    leeway: u64,
    source: Arc<Source>,
    /// Keeps the keys fresh for as long as these rules live, once they are in force.
    keeper: OnceLock<Option<Background>>,
}

impl Tokens {
    /// Compiles the issuers; `None` without any.
    #[must_use]
    pub fn build(config: &Auth, state: &State) -> (Option<Self>, Vec<Problem>) {
        let mut problems = Vec::new();
        let mut issuers: Vec<Issuer> = Vec::new();
        let all = config.issuers();
        for (i, jwt) in all.iter().enumerate() {
            let path = if all.len() == 1 { "auth.jwt".to_owned() } else { format!("auth.jwt[{i}]") };
            if issuers.iter().any(|other| other.name == jwt.issuer) {
                problems.push(Problem::new(format!("{path}.issuer"), "is configured twice; `audience` may be a list"));
            }
            match Issuer::build(&path, jwt, state) {
                Ok(issuer) => issuers.push(issuer),
                Err(more) => problems.extend(more),
            }
        }
        let tokens = (!issuers.is_empty()).then(|| Tokens { issuers, seen: Seen::new() });
        (tokens, problems)
    }

    /// Begins to fetch the keys of the issuers, and to keep them fresh. Rules that are only looked at ask nobody.
    pub fn start(&self) {
        for issuer in &self.issuers {
            issuer.keeper.get_or_init(|| Background::spawn(issuer.source.clone().keep_fresh()));
        }
    }

    /// Whose token of this hash was checked before.
    #[must_use]
    pub fn known(&self, hash: &Hash, now: Duration) -> Option<Arc<Principal>> {
        self.seen.find(hash, now.as_secs())
    }

    /// Who a token speaks of. What is cheap to refuse is refused before a key is asked for or a signature is checked.
    ///
    /// # Errors
    /// Why it lets nobody in.
    pub async fn check(&self, token: &Token<'_>, hash: Hash, all: &Principals, now: Duration) -> Result<Arc<Principal>, Refusal> {
        let now = now.as_secs();
        let (algorithm, kid) = token.head()?;
        let claims = token.claims()?;
        let issuer = claims.issuer().and_then(|name| self.issuers.iter().find(|i| i.name == name)).ok_or_else(|| Refusal::Issuer(quoted(claims.issuer())))?;
        let allowed = key::algorithm(algorithm).filter(|a| issuer.algorithms.contains(a)).ok_or_else(|| Refusal::Signature(format!("`{}` is not an accepted algorithm", quoted(Some(algorithm)))))?;
        let ends = claims.times(now, issuer.leeway)?;
        if !claims.is_for(&issuer.audience) {
            return Err(Refusal::Audience);
        }
        let keys = issuer.signed(token, kid, allowed).await?;
        let principal = issuer.principal(&claims, all)?;
        self.seen.keep(Good { hash, principal: principal.clone(), ends, source: issuer.source.clone(), keys }, now);
        Ok(principal)
    }
}

impl Issuer {
    fn build(path: &str, jwt: &Jwt, state: &State) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut wrong = |field: &str, message: String| problems.push(Problem::new(format!("{path}.{field}"), message));
        if let Err(message) = source::safe_url(&jwt.issuer) {
            wrong("issuer", message);
        } else if jwt.jwks_url.is_none() && jwt.issuer.contains('?') {
            wrong("issuer", "has a query, so that its discovery document has no place: set `jwks_url`".to_owned());
        }
        if let Some(Err(message)) = jwt.jwks_url.as_deref().map(source::safe_url) {
            wrong("jwks_url", message);
        }
        if jwt.audience.as_slice().is_empty() || jwt.audience.as_slice().iter().any(String::is_empty) {
            wrong("audience", "must say whom the tokens are for: without it a token that was made for anybody would do".to_owned());
        }
        for (field, claim) in [("consumer_claim", &jwt.consumer_claim), ("groups_claim", &jwt.groups_claim)] {
            if claim.is_empty() {
                wrong(field, "must be the name of a claim".to_owned());
            }
        }
        let leeway = jwt.leeway.map_or(Duration::from_secs(60), |l| l.0);
        if leeway > LONGEST_LEEWAY {
            wrong("leeway", "must be at most 10m".to_owned());
        }
        let mut algorithms = Vec::new();
        for (i, name) in jwt.algorithms.iter().enumerate() {
            match key::algorithm(name) {
                Some(algorithm) => algorithms.push(algorithm),
                None => wrong(&format!("algorithms[{i}]"), format!("\"{name}\" is not an algorithm that can be accepted; known: {}", names().join(", "))),
            }
        }
        if jwt.algorithms.is_empty() {
            algorithms = key::algorithms().map(|(_, algorithm)| algorithm).collect();
        }
        let ca = jwt.ca.as_deref().map(source::read_ca).transpose().map_err(|message| wrong("ca", message)).ok().flatten();
        let place = Place { issuer: jwt.issuer.clone(), jwks_url: jwt.jwks_url.clone(), ca };
        let source = state.issuers.of(place, state).map_err(|message| wrong("ca", message)).ok();
        let (Some(source), true) = (source, problems.is_empty()) else { return Err(problems) };
        let (consumer_claim, groups_claim) = (jwt.consumer_claim.clone(), jwt.groups_claim.clone());
        Ok(Issuer { name: jwt.issuer.clone(), audience: jwt.audience.as_slice().to_vec(), consumer_claim, groups_claim, algorithms, leeway: leeway.as_secs(), source, keeper: OnceLock::new() })
    }

    /// Checks a signature, by keys that are fetched if need be; the keys that it was checked by.
    async fn signed(&self, token: &Token<'_>, kid: Option<&str>, algorithm: Algorithm) -> Result<Arc<Keys>, Refusal> {
        let keys = self.source.first().await.ok_or_else(|| Refusal::NoKeys(self.name.clone()))?;
        let verdict = match keys.check(token, kid, algorithm) {
            Verdict::Good => return Ok(keys),
            Verdict::Bad => Verdict::Bad,
            Verdict::Unknown => match self.source.seek().await.filter(|newer| !Arc::ptr_eq(newer, &keys)) {
                None => Verdict::Unknown,
                Some(newer) => match newer.check(token, kid, algorithm) {
                    Verdict::Good => return Ok(newer),
                    other => other,
                },
            },
        };
        Err(Refusal::Signature(match (verdict, kid) {
            (Verdict::Unknown, Some(kid)) => format!("the key `{}` is not known", quoted(Some(kid))),
            (_, Some(kid)) => format!("the key `{}` did not make it, or is not for its algorithm", quoted(Some(kid))),
            (_, None) => "it names no key, and none that is known made it".to_owned(),
        }))
    }

    /// Who the claims speak of: a consumer who is configured, or a member of groups that are.
    fn principal(&self, claims: &Claims, all: &Principals) -> Result<Arc<Principal>, Refusal> {
        let Some(name) = claims.name(&self.consumer_claim) else {
            return Err(Refusal::Nobody(format!("`{}` is not a name of 1 to 128 bytes without control characters", self.consumer_claim)));
        };
        let groups = claims.words(&self.groups_claim);
        all.known_as(name, &groups).ok_or_else(|| Refusal::Nobody(format!("`{}` is not a consumer here, and none of its {} groups is a group here", quoted(Some(name)), groups.len())))
    }
}

/// The names of all algorithms.
fn names() -> Vec<&'static str> {
    key::algorithms().map(|(name, _)| name).collect()
}

/// A word of a token as it may be written into a log.
fn quoted(text: Option<&str>) -> String {
    text.unwrap_or_default().chars().take(LONGEST_QUOTE).flat_map(char::escape_debug).collect()
}

/// Characters of a token's word that are written into a log.
const LONGEST_QUOTE: usize = 128;
