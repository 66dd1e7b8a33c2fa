//! Tokens of an issuer in the same process, at a time of the tests' own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod life;
mod signatures;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::response::IntoResponse;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{StatusCode, Uri, header};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::key::Keys;
use super::seen::Good;
use super::source::{PACE, Pace};
use super::*;
use crate::config::Config;
use crate::principal::hash_of;

/// Made for these tests; they open nothing.
const ONE: &str = include_str!("../testdata/one.pem");
const TWO: &str = include_str!("../testdata/two.pem");

/// The present of the tests.
const NOW: u64 = 1_800_000_000;

/// Requests may cause a fetch as often as they like.
const EAGER: Pace = Pace { unknown: Duration::ZERO, none: Duration::ZERO };

/// A key of an issuer.
struct Signer {
    kid: &'static str,
    algorithm: Algorithm,
    key: EncodingKey,
    jwk: Value,
}

impl Signer {
    fn new(kid: &'static str, algorithm: Algorithm, key: EncodingKey, mut jwk: Value) -> Self {
        jwk["kid"] = kid.into();
        Signer { kid, algorithm, key, jwk }
    }

    fn rsa(kid: &'static str, pem: &str, algorithm: Algorithm) -> Self {
        let key = EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap();
        let jwk = serde_json::to_value(jsonwebtoken::jwk::Jwk::from_encoding_key(&key, algorithm).unwrap()).unwrap();
        Signer::new(kid, algorithm, key, jwk)
    }

    fn ec(kid: &'static str, algorithm: Algorithm) -> Self {
        let curve = if algorithm == Algorithm::ES256 { &rcgen::PKCS_ECDSA_P256_SHA256 } else { &rcgen::PKCS_ECDSA_P384_SHA384 };
        let key = EncodingKey::from_ec_der(&rcgen::KeyPair::generate_for(curve).unwrap().serialize_der());
        let jwk = serde_json::to_value(jsonwebtoken::jwk::Jwk::from_encoding_key(&key, algorithm).unwrap()).unwrap();
        Signer::new(kid, algorithm, key, jwk)
    }

    fn ed(kid: &'static str) -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(pair.public_key_raw()) });
        Signer::new(kid, Algorithm::EdDSA, EncodingKey::from_ed_der(&pair.serialize_der()), jwk)
    }

    /// Another key under the same name, of which the issuer knows nothing.
    fn forged(&self, pem: &str) -> Self {
        Signer { jwk: self.jwk.clone(), ..Signer::rsa(self.kid, pem, self.algorithm) }
    }

    fn sign(&self, claims: &Value) -> String {
        self.sign_with(&json!({ "alg": self.algorithm, "kid": self.kid, "typ": "JWT" }), claims)
    }

    fn sign_with(&self, header: &Value, claims: &Value) -> String {
        let message = unsigned(header, claims);
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &self.key, self.algorithm).unwrap();
        format!("{message}.{signature}")
    }
}

fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()))
}

/// A server with a discovery document and a set of keys.
struct Server {
    url: String,
    facts: Arc<Mutex<Facts>>,
}

#[derive(Default)]
struct Facts {
    keys: Vec<Value>,
    down: bool,
    /// Instead of the keys.
    body: Option<String>,
    document: Option<Value>,
    delay: Duration,
    fetches: usize,
}

impl Server {
    async fn start(signers: &[&Signer]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let facts = Arc::new(Mutex::new(Facts { keys: signers.iter().map(|s| s.jwk.clone()).collect(), ..Facts::default() }));
        let (shared, own) = (facts.clone(), url.clone());
        let app = axum::Router::new().fallback(move |uri: Uri| {
            let (facts, own) = (shared.clone(), own.clone());
            async move {
                let (answer, delay) = answer(&mut facts.lock().unwrap(), &own, uri.path());
                tokio::time::sleep(delay).await;
                answer
            }
        });
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Server { url, facts }
    }

    fn set(&self, change: impl FnOnce(&mut Facts)) {
        change(&mut self.facts.lock().unwrap());
    }

    fn fetches(&self) -> usize {
        self.facts.lock().unwrap().fetches
    }

    fn claims(&self) -> Value {
        json!({ "iss": self.url, "aud": "trivium", "sub": "alice", "exp": NOW + 300, "iat": NOW })
    }

    fn source(&self, pace: Pace) -> Arc<Source> {
        Source::new(Place { issuer: self.url.clone(), jwks_url: None, ca: None }, http(), pace)
    }

    fn tokens(&self, pace: Pace) -> Tokens {
        let issuer = Issuer {
            name: self.url.clone(),
            audience: vec!["trivium".into()],
            consumer_claim: "sub".into(),
            groups_claim: "groups".into(),
            algorithms: key::algorithms().map(|(_, a)| a).collect(),
            leeway: 60,
            source: self.source(pace),
            keeper: OnceLock::new(),
        };
        Tokens { issuers: vec![issuer], seen: Seen::new() }
    }
}

fn answer(facts: &mut Facts, own: &str, path: &str) -> (axum::response::Response, Duration) {
    let json = |text: String| ([(header::CONTENT_TYPE, "application/json")], text).into_response();
    let answer = match path {
        _ if facts.down => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        "/.well-known/openid-configuration" => json(facts.document.clone().unwrap_or_else(|| json!({ "issuer": own, "jwks_uri": format!("{own}/keys") })).to_string()),
        "/elsewhere" => (StatusCode::FOUND, [(header::LOCATION, "/keys")]).into_response(),
        "/keys" => {
            facts.fetches += 1;
            json(facts.body.clone().unwrap_or_else(|| json!({ "keys": facts.keys }).to_string()))
        }
        _ => StatusCode::NOT_FOUND.into_response(),
    };
    (answer, facts.delay)
}

fn http() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    crate::state::http_client(rustls::ClientConfig::builder().with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth()).unwrap()
}

fn state() -> Arc<State> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let ledger = crate::ledger::Ledger::start().unwrap();
    State::new(ledger, crate::counters::Counters::Memory(crate::counters::Memory::volatile()), Arc::default()).unwrap()
}

fn config(text: &str) -> Config {
    crate::config::from_text(text, &|_| None).unwrap()
}

fn principals() -> Principals {
    let config = config("consumers: { alice: {} }\ngroups: { research: { models: [chat], limits: [{ requests: 2, per: 1h }] }, other: {} }");
    let (all, problems) = Principals::build(&config, false);
    assert!(problems.is_empty(), "{problems:?}");
    all
}

/// Who a token speaks of, as the door finds it out: by what is known of it, then by its signature.
async fn ask(tokens: &Tokens, text: &str) -> Result<String, Refusal> {
    let (hash, now) = (hash_of(text), Duration::from_secs(NOW));
    if let Some(principal) = tokens.known(&hash, now) {
        return Ok(principal.name.to_string());
    }
    let token = Token::cut(text).expect("a token");
    tokens.check(&token, hash, &principals(), now).await.map(|p| p.name.to_string())
}

fn is_signature(result: &Result<String, Refusal>) -> bool {
    matches!(result, Err(Refusal::Signature(_)))
}

#[tokio::test]
async fn what_is_wrong_with_a_configuration() {
    let state = state();
    let problems = |jwt: &str| {
        let config = config(&format!("auth: {{ jwt: {jwt} }}"));
        let (_, problems) = Tokens::build(&config.auth, &state);
        problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    assert_eq!(problems("{ issuer: \"https://id.example.com\", audience: trivium }"), "");
    assert_eq!(problems("[{ issuer: \"https://id.example.com\", audience: [a, b] }, { issuer: \"http://127.0.0.1:1/x\", audience: a, algorithms: [ES256, EdDSA], leeway: 5m }]"), "");
    for (jwt, part) in [
        ("{ issuer: \"http://id.example.com\", audience: a }", "auth.jwt.issuer: must be an https URL"),
        ("{ issuer: \"https://id.example.com\", audience: a, jwks_url: \"http://id.example.com/k\" }", "auth.jwt.jwks_url: must be an https URL"),
        ("{ issuer: \"https://id.example.com\", audience: [] }", "auth.jwt.audience: must say"),
        ("{ issuer: \"https://id.example.com\", audience: \"\" }", "auth.jwt.audience: must say"),
        ("{ issuer: \"https://id.example.com\", audience: a, algorithms: [RS256, HS256] }", "auth.jwt.algorithms[1]: \"HS256\" is not an algorithm that can be accepted; known: RS256, RS384"),
        ("{ issuer: \"https://id.example.com\", audience: a, algorithms: [none] }", "auth.jwt.algorithms[0]: "),
        ("{ issuer: \"https://id.example.com\", audience: a, leeway: 1h }", "auth.jwt.leeway: must be at most 10m"),
        ("{ issuer: \"https://id.example.com\", audience: a, ca: /nowhere/ca.pem }", "auth.jwt.ca: cannot read /nowhere/ca.pem"),
        ("{ issuer: \"https://id.example.com\", audience: a, ca: /dev/null }", "auth.jwt.ca: there is no certificate in it"),
        ("{ issuer: \"https://id.example.com\", audience: a, groups_claim: \"\" }", "auth.jwt.groups_claim: must be"),
        ("[{ issuer: \"https://id.example.com\", audience: a }, { issuer: \"https://id.example.com\", audience: b }]", "auth.jwt[1].issuer: is configured twice"),
    ] {
        let said = problems(jwt);
        assert!(said.contains(part), "{jwt}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    // Keys outlive a reload: the same place is the same source for as long as somebody uses it.
    let place = || Place { issuer: "https://id.example.com".into(), jwks_url: None, ca: None };
    let first = state.issuers.of(place(), &state).unwrap();
    assert!(Arc::ptr_eq(&first, &state.issuers.of(place(), &state).unwrap()));
    assert!(!Arc::ptr_eq(&first, &state.issuers.of(Place { jwks_url: Some("https://id.example.com/k".into()), ..place() }, &state).unwrap()));
}
