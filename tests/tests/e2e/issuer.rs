//! An issuer of tokens for the stories: keys, a discovery document and a set of keys, on a server of its own.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};
use tests::{Behaviour, Mock};

/// Made for the gateway's own tests; they open nothing.
pub(crate) const ONE: &str = include_str!("../../../gateway/src/jwt/testdata/one.pem");
pub(crate) const TWO: &str = include_str!("../../../gateway/src/jwt/testdata/two.pem");

const KEYS: &str = "/keys";
const DOCUMENT: &str = "/.well-known/openid-configuration";

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// A key that signs.
pub(crate) struct Signer {
    pub(crate) kid: &'static str,
    pub(crate) algorithm: Algorithm,
    key: EncodingKey,
    pub(crate) jwk: Value,
}

impl Signer {
    pub(crate) fn rsa(kid: &'static str, pem: &str) -> Self {
        let key = EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap();
        let jwk = serde_json::to_value(Jwk::from_encoding_key(&key, Algorithm::RS256).unwrap()).unwrap();
        Self::named(kid, Algorithm::RS256, key, jwk)
    }

    pub(crate) fn ec(kid: &'static str) -> Self {
        let key = EncodingKey::from_ec_der(&rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap().serialize_der());
        let jwk = serde_json::to_value(Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap()).unwrap();
        Self::named(kid, Algorithm::ES256, key, jwk)
    }

    pub(crate) fn ed(kid: &'static str) -> Self {
        let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(pair.public_key_raw()) });
        Self::named(kid, Algorithm::EdDSA, EncodingKey::from_ed_der(&pair.serialize_der()), jwk)
    }

    /// Somebody who signs with a secret that everybody knows.
    pub(crate) fn shared(kid: &'static str, secret: &[u8]) -> Self {
        Self::named(kid, Algorithm::HS256, EncodingKey::from_secret(secret), json!({}))
    }

    fn named(kid: &'static str, algorithm: Algorithm, key: EncodingKey, mut jwk: Value) -> Self {
        jwk["kid"] = kid.into();
        Signer { kid, algorithm, key, jwk }
    }

    pub(crate) fn sign(&self, claims: &Value) -> String {
        self.sign_with(&json!({ "alg": self.algorithm, "kid": self.kid, "typ": "JWT" }), claims)
    }

    pub(crate) fn sign_with(&self, header: &Value, claims: &Value) -> String {
        let message = unsigned(header, claims);
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &self.key, self.algorithm).unwrap();
        format!("{message}.{signature}")
    }
}

/// Header and claims as they are signed.
pub(crate) fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()))
}

/// The issuer's server.
pub(crate) struct Issuer(Mock);

impl Issuer {
    /// An issuer that publishes the keys of these.
    pub(crate) async fn start(signers: &[&Signer]) -> Self {
        let issuer = Issuer(Mock::start().await);
        issuer.publish(signers);
        issuer
    }

    pub(crate) fn url(&self) -> String {
        self.0.url()
    }

    /// Publishes other keys.
    pub(crate) fn publish(&self, signers: &[&Signer]) {
        let keys: Vec<&Value> = signers.iter().map(|s| &s.jwk).collect();
        self.0.on(DOCUMENT, [Behaviour::json(&json!({ "issuer": self.url(), "jwks_uri": format!("{}{KEYS}", self.url()) }))]);
        self.0.on(KEYS, [Behaviour::json(&json!({ "keys": keys }))]);
    }

    /// Answers nothing any more.
    pub(crate) fn fall(&self) {
        for path in [DOCUMENT, KEYS] {
            self.0.on(path, [Behaviour::error(500, "down")]);
        }
    }

    /// How often the keys were asked for.
    pub(crate) fn fetches(&self) -> usize {
        self.0.received().iter().filter(|r| r.route() == KEYS).count()
    }

    /// How often anything was asked for.
    pub(crate) fn asked(&self) -> usize {
        self.0.received().len()
    }

    /// Waits until the gateway has asked for the keys so many times.
    pub(crate) async fn until_fetched(&self, times: usize) {
        self.0.until("the keys are fetched", |mock| mock.received().iter().filter(|r| r.route() == KEYS).count() >= times).await;
    }

    /// The claims of a good token of somebody.
    pub(crate) fn claims(&self, sub: &str) -> Value {
        json!({ "iss": self.url(), "aud": ["somebody", "trivium"], "sub": sub, "iat": now(), "exp": now() + 600, "jti": another() })
    }

    /// The section of a configuration that believes this issuer.
    pub(crate) fn auth(&self) -> String {
        format!("auth: {{ jwt: {{ issuer: \"{}\", audience: trivium }} }}\n", self.url())
    }
}

/// Something that makes each token another one.
fn another() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

/// Waits until something is as the test wants it.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, ready: impl Fn() -> F) {
    let waiting = async {
        while !ready().await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(tests::client::PATIENCE, waiting).await.unwrap_or_else(|_| panic!("waited in vain: {what}"));
}
