//! The keys that an issuer publishes (RFC 7517), and which of them may check what: a key's own type decides, not the token.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

use super::token::Token;

/// What signatures may be made with. Neither `none` nor an algorithm with a shared secret can be had: a public key that is
/// taken for a secret lets everyone sign.
const ALGORITHMS: [(&str, Algorithm); 10] = [
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
    // The same by its newer name (RFC 9864).
    ("Ed25519", Algorithm::EdDSA),
];
/// A token that names no key is tried with so many at most.
const TRIES: usize = 4;

/// An algorithm by its name.
pub(super) fn algorithm(name: &str) -> Option<Algorithm> {
    ALGORITHMS.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
}

/// All algorithms, each once.
pub(super) fn algorithms() -> impl Iterator<Item = (&'static str, Algorithm)> {
    ALGORITHMS.into_iter().take(ALGORITHMS.len() - 1)
}

/// The keys of an issuer.
#[derive(PartialEq, Eq)]
pub(super) struct Keys(Vec<Key>);

/// A key that can check signatures.
struct Key {
    jwk: Jwk,
    kind: Kind,
    key: DecodingKey,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rsa,
    P256,
    P384,
    Ed25519,
}

/// A key as it is published; what signatures do not need is passed over.
#[derive(Clone, PartialEq, Eq, Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    key_ops: Option<Vec<String>>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// What keys say of a token.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// One of them made the signature.
    Good,
    /// The key that the token names did not make it, or is of another kind.
    Bad,
    /// The token names no key that is known, or none at all and none that is known fits.
    Unknown,
}

impl Keys {
    /// Reads a set of keys. What is not for signatures, or not of a kind that is known here, is left out: issuers publish
    /// keys for several purposes.
    ///
    /// # Errors
    /// When it is no set, or nothing in it is of use.
    pub(super) fn read(body: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set = serde_json::from_slice(body).map_err(|e| format!("is not a set of keys (line {}, column {})", e.line(), e.column()))?;
        let keys: Vec<Key> = set.keys.into_iter().filter_map(|value| Key::new(serde_json::from_value(value).ok()?)).collect();
        if keys.is_empty() {
            return Err("has no key that could check a signature".to_owned());
        }
        Ok(Keys(keys))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Checks a token's signature.
    pub(super) fn check(&self, token: &Token<'_>, kid: Option<&str>, algorithm: Algorithm) -> Verdict {
        let made = |key: &Key| key.fits(algorithm) && jsonwebtoken::crypto::verify(token.signature, token.signed.as_bytes(), &key.key, algorithm).unwrap_or(false);
        let Some(kid) = kid else {
            let mut fitting = self.0.iter().filter(|key| key.fits(algorithm)).take(TRIES);
            return if fitting.any(made) { Verdict::Good } else { Verdict::Unknown };
        };
        let named = || self.0.iter().filter(|key| key.jwk.kid.as_deref() == Some(kid));
        match named().next() {
            None => Verdict::Unknown,
            Some(_) if named().any(made) => Verdict::Good,
            Some(_) => Verdict::Bad,
        }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.jwk == other.jwk
    }
}

impl Eq for Key {}

impl Key {
    fn new(jwk: Jwk) -> Option<Self> {
        if jwk.purpose.as_deref().is_some_and(|p| p != "sig") || jwk.key_ops.as_ref().is_some_and(|ops| !ops.iter().any(|op| op == "verify")) {
            return None;
        }
        let (kind, key) = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => (Kind::Rsa, rsa(jwk.n.as_deref()?, jwk.e.as_deref()?)?),
            ("EC", Some("P-256")) => (Kind::P256, point(&jwk, 32)?),
            ("EC", Some("P-384")) => (Kind::P384, point(&jwk, 48)?),
            ("OKP", Some("Ed25519")) => {
                let x = jwk.x.as_deref().filter(|x| length(x) == Some(32))?;
                (Kind::Ed25519, DecodingKey::from_ed_components(x).ok()?)
            }
            _ => return None,
        };
        let key = Key { kind, key, jwk };
        // Whatever the key's own `alg` says must be something that it can be used for, and a point must be on its curve.
        let usual = match kind {
            Kind::Rsa => Algorithm::RS256,
            Kind::P256 => Algorithm::ES256,
            Kind::P384 => Algorithm::ES384,
            Kind::Ed25519 => Algorithm::EdDSA,
        };
        let able = algorithms().any(|(_, a)| key.fits(a)) && jsonwebtoken::crypto::verify("AAAA", b"", &key.key, usual).is_ok();
        able.then_some(key)
    }

    /// Whether the key may check signatures of this algorithm.
    fn fits(&self, wanted: Algorithm) -> bool {
        let kind = match wanted {
            Algorithm::RS256 | Algorithm::RS384 | Algorithm::RS512 | Algorithm::PS256 | Algorithm::PS384 | Algorithm::PS512 => Kind::Rsa,
            Algorithm::ES256 => Kind::P256,
            Algorithm::ES384 => Kind::P384,
            Algorithm::EdDSA => Kind::Ed25519,
            _ => return false,
        };
        self.kind == kind && self.jwk.alg.as_deref().is_none_or(|own| algorithm(own) == Some(wanted))
    }
}

fn length(part: &str) -> Option<usize> {
    URL_SAFE_NO_PAD.decode(part).ok().map(|bytes| bytes.len())
}

/// From 2048 bits, below which signatures can be forged, to the 4096 that the library takes.
fn rsa(n: &str, e: &str) -> Option<DecodingKey> {
    let modulus = URL_SAFE_NO_PAD.decode(n).ok()?;
    let first = modulus.iter().position(|b| *b != 0)?;
    let bits = (modulus.len() - first) * 8 - modulus[first].leading_zeros() as usize;
    (2048..=4096).contains(&bits).then(|| DecodingKey::from_rsa_components(n, e).ok())?
}

/// A point whose coordinates have this many bytes each.
fn point(jwk: &Jwk, bytes: usize) -> Option<DecodingKey> {
    let (x, y) = (jwk.x.as_deref()?, jwk.y.as_deref()?);
    (length(x) == Some(bytes) && length(y) == Some(bytes)).then(|| DecodingKey::from_ec_components(x, y).ok())?
}
