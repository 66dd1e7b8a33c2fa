//! Who is believed, as written by the user: tokens of an issuer, certificates of clients, and whether one may be nobody.

use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer, StrDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::Span;

/// Certificate and key of the listener, PEM files. They are read again on reload.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Certificate chain.
    pub cert: PathBuf,
    /// Private key.
    pub key: PathBuf,
    /// Certificates of the authorities whose client certificates are believed. Without it clients are not asked for one. Consumers say by `certificates` which are theirs.
    #[serde(default)]
    pub client_ca: Option<PathBuf>,
    /// Whether a client must show a certificate: `optional` (default) or `required`. Needs `client_ca`.
    #[serde(default)]
    pub client_auth: Option<ClientAuth>,
}

/// Whether clients must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// Who has one is known by it; others show a key or a token.
    Optional,
    /// Who has none is not connected.
    Required,
}

/// Who may come in.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// Whether requests without a key are served. Default: only on loopback, and only while there are neither consumers nor `jwt`. What they may do and spend stands under `consumers.anonymous`. Those that a web page of somebody else may have sent, by their `Origin` and `Host`, are refused.
    pub anonymous: Option<bool>,
    /// Tokens (JWT) of an OpenID Connect issuer as credentials, or a list of several issuers.
    pub jwt: Option<OneOrMany<Jwt>>,
}

/// An issuer whose tokens are believed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Jwt {
    /// The issuer's URL. A token's `iss` must be exactly this, and so must the `issuer` of its discovery document.
    pub issuer: String,
    /// Whom the tokens are for: one of these must be in a token's `aud`.
    pub audience: OneOrMany<String>,
    /// Where the issuer's public keys are. Default: what `/.well-known/openid-configuration` below `issuer` says.
    #[serde(default)]
    pub jwks_url: Option<String>,
    /// The claim that names the consumer; a path such as `profile.name` leads into nested ones. Default `sub`.
    #[serde(default = "sub")]
    pub consumer_claim: String,
    /// The claim with the groups, a list or a text with spaces or commas between; a path such as `realm_access.roles` leads into nested ones. Groups that are not configured are passed over. Default `groups`.
    #[serde(default = "groups")]
    pub groups_claim: String,
    /// Algorithms of signatures that are accepted. Default all there are: `RS256`, `RS384`, `RS512`, `PS256`, `PS384`, `PS512`, `ES256`, `ES384`, `EdDSA`.
    #[serde(default)]
    pub algorithms: Vec<String>,
    /// How far the issuer's clock and this one may be apart. Default `60s`, at most `10m`.
    #[serde(default)]
    pub leeway: Option<Span>,
    /// Certificates of the authorities behind the issuer's own server, a PEM file, where the system does not know them.
    #[serde(default)]
    pub ca: Option<PathBuf>,
}

fn sub() -> String {
    "sub".to_owned()
}

fn groups() -> String {
    "groups".to_owned()
}

impl Auth {
    /// The issuers whose tokens are believed.
    #[must_use]
    pub fn issuers(&self) -> &[Jwt] {
        self.jwt.as_ref().map_or(&[], OneOrMany::as_slice)
    }
}

/// One thing, or a list of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OneOrMany<T>(Vec<T>);

impl<T> OneOrMany<T> {
    /// All of them.
    #[must_use]
    pub fn as_slice(&self) -> &[T] {
        &self.0
    }
}

// An untagged enum would do the same, but its message for what is neither says nothing, and not where.
impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        struct Form<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Form<T> {
            type Value = OneOrMany<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one, or a list")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
                T::deserialize(StrDeserializer::new(text)).map(|one| OneOrMany(vec![one]))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(|one| OneOrMany(vec![one]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(list)).map(OneOrMany)
            }
        }

        d.deserialize_any(Form(PhantomData))
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("OneOrMany{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        json_schema!({ "anyOf": [one, { "type": "array", "items": one }] })
    }
}
