//! Who may come in, and what they may spend, as written by the user.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Count, Span};
use crate::secret::Secret;

/// Somebody who may come in: by a key, by a certificate, or by a token that names it.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Consumer {
    /// API keys: in plain (best as `${NAME}` from the environment), or as the SHA-256 of one.
    pub keys: Vec<KeyEntry>,
    /// Client certificates, by a name in them or by their hash: a DNS name, a URI such as `spiffe://example.com/search`, or an e-mail address (subject alternative names), `CN=name` (the subject's common name), or `sha256:` and the certificate's fingerprint. Needs `tls.client_ca`.
    pub certificates: Vec<String>,
    /// Groups that the consumer belongs to.
    pub groups: Vec<String>,
    /// Models that the consumer may use, by name or pattern. Default all that the groups allow.
    pub models: Vec<String>,
    /// What the consumer may spend, on top of what the groups say.
    pub limits: Vec<Limit>,
    /// Whether the consumer may use `/v1/files` and `/v1/batches`: they belong to the provider's account, so everybody who may use them sees and can delete everybody's. Default: only if one of its groups may.
    pub files: bool,
}

/// A key: in plain, or the long form.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum KeyEntry {
    /// In plain.
    Plain(Secret),
    /// By its hash, or with an end.
    Long(Key),
}

/// A key in the long form.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// SHA-256 of the key, 64 hex digits: what `trivium keys new` prints.
    #[serde(default)]
    pub sha256: Option<String>,
    /// The key in plain, instead of the hash.
    #[serde(default)]
    pub key: Option<Secret>,
    /// When it ends, as `2027-01-31` or `2027-01-31T12:00:00Z`. Default never.
    #[serde(default)]
    pub expires: Option<String>,
}

/// Several consumers who share rules.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Group {
    /// Models that members may use, by name or pattern. Default all.
    pub models: Vec<String>,
    /// What members may spend.
    pub limits: Vec<Limit>,
    /// Whether members may use `/v1/files` and `/v1/batches`: they belong to the provider's account, so everybody who may use them sees and can delete everybody's. Default no.
    pub files: bool,
}

/// One limit: an amount of one thing per time. Several hold together.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limit {
    /// Requests.
    pub requests: Option<Count>,
    /// Tokens, prompt and answer together.
    pub tokens: Option<Count>,
    /// Tokens of prompts.
    pub prompt_tokens: Option<Count>,
    /// Tokens of answers.
    pub completion_tokens: Option<Count>,
    /// US dollars.
    #[schemars(with = "Option<f64>")]
    pub dollars: Option<serde_json::Number>,
    /// Requests at the same time; needs no `per`.
    pub concurrent: Option<Count>,
    /// The time: `1m`, `1h`, `1d`, `30d`.
    pub per: Option<Span>,
    /// `sliding` (default): the last `per`, at any moment. `fixed`: the calendar's hour (`per: 1h`), day (`1d`), week from Monday (`7d`) or month (`28d` to `31d`), in `zone`; any other length is counted off from 1970 on.
    pub window: WindowKind,
    /// The time zone of fixed windows, such as `Europe/Zurich`. Default UTC.
    pub zone: Option<String>,
    /// On a group: whether each member has this much, or all together. Default `consumer`.
    pub each: Option<Each>,
    /// Only requests for these models count, by name or pattern. Default all.
    pub models: Vec<String>,
    /// Whether the worst case is reserved, so that the limit is never passed, not even by an estimate's error.
    pub strict: bool,
}

/// How a window lies in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WindowKind {
    /// The last so much time, at any moment.
    #[default]
    Sliding,
    /// The calendar's.
    Fixed,
}

/// Whose limit it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Each {
    /// Each member has this much.
    Consumer,
    /// All members together.
    Group,
}

/// State shared over replicas.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    /// `redis://host:port`, `rediss://…`, or `redis-cluster://…`.
    pub url: Secret,
    /// What happens to limits while it is down: `local` counts in this process, `deny` refuses, `allow` lets pass.
    #[serde(default)]
    pub when_down: WhenDown,
    /// How long a request waits for it at most. Default `50ms`.
    #[serde(default)]
    pub timeout: Option<Span>,
}

/// What becomes of models without a price where dollars are limited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UnknownPrice {
    /// They are refused.
    #[default]
    Deny,
    /// They pass and are not counted.
    Allow,
}

/// What happens while a service is down.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WhenDown {
    /// Count in this process.
    #[default]
    Local,
    /// Refuse.
    Deny,
    /// Let pass.
    Allow,
}

/// Consumers by name.
pub type Consumers = BTreeMap<String, Consumer>;
/// Groups by name.
pub type Groups = BTreeMap<String, Group>;
