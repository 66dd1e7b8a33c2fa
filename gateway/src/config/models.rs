//! The names that clients ask for, as written by the user: where they go, and what happens when that fails.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{PromptUse, Span, units};

/// A model: `provider/model`, or the long form.
#[derive(Debug, Clone, JsonSchema)]
pub struct ModelEntry(#[schemars(with = "ModelForm")] pub ModelConfig);

#[derive(JsonSchema)]
#[schemars(untagged, inline)]
#[allow(dead_code)] // the forms as the schema has them
enum ModelForm {
    Short(String),
    Long(Box<ModelConfig>),
}

impl<'de> Deserialize<'de> for ModelEntry {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        units::short_or_long(d, |target| Ok(ModelEntry(ModelConfig { target: Some(target.to_owned()), ..ModelConfig::default() })), ModelEntry)
    }
}

/// What a model costs: the `kind/model` of the built-in table that it is, or prices of its own.
#[derive(Debug, Clone)]
pub enum PriceEntry {
    /// The same as a model of the built-in table.
    Same(String),
    /// As the operator says.
    Own(Box<providers::prices::Model>),
}

#[derive(JsonSchema)]
#[schemars(untagged, inline)]
#[allow(dead_code)] // the forms as the schema has them
pub(super) enum PriceForm {
    Same(String),
    Own(BTreeMap<String, serde_json::Value>),
}

impl<'de> Deserialize<'de> for PriceEntry {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        units::short_or_long(d, |name| Ok(PriceEntry::Same(name.to_owned())), |own| PriceEntry::Own(Box::new(own)))
    }
}

/// A virtual model.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ModelConfig {
    /// The one target, `provider/model`.
    pub target: Option<String>,
    /// Several targets, between which `balance` chooses.
    pub targets: Vec<TargetEntry>,
    /// How to choose among the targets.
    pub balance: Balance,
    /// What `consistent_hash` hashes: a header's name, or `user` for the field of that name. Default `user`.
    pub hash_on: Option<String>,
    /// When to try again.
    pub retry: Option<Retry>,
    /// How long to wait.
    pub timeout: Option<Timeout>,
    /// When to leave a failing target alone.
    pub breaker: Option<Breaker>,
    /// Targets to fall back to, in this order, across dialects.
    pub fallback: Vec<String>,
    /// Keeps a conversation on the target that has its prompt cached.
    pub sticky: Option<Sticky>,
    /// What becomes of an answer whose client leaves. `cancel`: the provider is cut off, and what was produced so far is charged. `drain`: the answer is read to its end, within the model's timeouts, and charged as the provider counts it.
    pub on_disconnect: OnDisconnect,
    /// What the model is for.
    pub kind: ModelKind,
    /// Templates and decoration of the prompt.
    pub prompt: Option<PromptUse>,
    /// Who may use it: consumers by name, groups as `group:name`. Default everyone known.
    pub allow: Vec<String>,
    /// Who may not, even if allowed.
    pub deny: Vec<String>,
    /// Parameters that are set where the client sets none.
    #[schemars(with = "serde_json::Value")]
    pub defaults: serde_json::Map<String, serde_json::Value>,
}

/// A target: `provider/model`, or with a weight.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(from = "TargetForm")]
pub struct TargetEntry(pub TargetConfig);

#[derive(Deserialize, JsonSchema)]
#[serde(untagged, expecting = "must be `provider/model`, or a map with model, weight, priority")]
enum TargetForm {
    Short(String),
    Long(TargetConfig),
}

impl From<TargetForm> for TargetEntry {
    fn from(form: TargetForm) -> Self {
        match form {
            TargetForm::Short(model) => TargetEntry(TargetConfig { model, weight: 1, priority: 0 }),
            TargetForm::Long(config) => TargetEntry(config),
        }
    }
}

/// A target with its share.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TargetConfig {
    /// `provider/model`.
    pub model: String,
    /// Its share among the others. Default 1.
    #[serde(default = "one")]
    pub weight: u32,
    /// For `balance: priority`: lower goes first, equals share by weight. Default 0.
    #[serde(default)]
    pub priority: u32,
}

fn one() -> u32 {
    1
}

/// How to choose among targets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// In turn.
    #[default]
    RoundRobin,
    /// By weight, evenly interleaved.
    Weighted,
    /// The same value of `hash_on` to the same target.
    ConsistentHash,
    /// The one with the fewest requests in flight, relative to its weight.
    LeastConnections,
    /// The fastest by a moving average that reacts to peaks at once, with probes of the others.
    LowestLatency,
    /// The one that has used the fewest tokens, relative to its weight.
    LowestUsage,
    /// The cheapest by the price table.
    LowestCost,
    /// The first that is up, by `priority`.
    Priority,
}

/// When to try again.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// How many tries among the targets, the first included. Default 2. Each fallback has one more.
    #[serde(default = "two")]
    pub attempts: u32,
    /// What is worth another try: `connect`, `timeout`, `429`, `5xx`, or any status. Default all four.
    #[serde(default = "retry_on", deserialize_with = "units::causes")]
    #[schemars(with = "Vec<units::Cause>")]
    pub on: Vec<String>,
    /// Pause before the second try on the same target; doubles with each. A Retry-After is a floor under it. Default `200ms`.
    pub backoff: Option<Span>,
}

fn two() -> u32 {
    2
}

fn retry_on() -> Vec<String> {
    ["connect", "timeout", "429", "5xx"].map(str::to_owned).into()
}

impl Default for Retry {
    fn default() -> Self {
        Retry { attempts: two(), on: retry_on(), backoff: None }
    }
}

/// How long to wait.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Timeout {
    /// For the connection. Default `5s`.
    pub connect: Option<Span>,
    /// For the first event of a stream. Default `60s`.
    pub first_token: Option<Span>,
    /// Between two pieces of an answer. Default `60s`.
    pub idle: Option<Span>,
    /// For the whole answer. Default `10m`.
    pub total: Option<Span>,
}

/// When to leave a failing target alone.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Breaker {
    /// How many failures within the window open it. Default 5; 0 switches it off.
    #[serde(default = "five")]
    pub failures: u32,
    /// The window. Default `30s`.
    pub window: Option<Span>,
    /// How long it stays open before one request probes the target. Default `15s`.
    pub cooldown: Option<Span>,
}

fn five() -> u32 {
    5
}

impl Default for Breaker {
    fn default() -> Self {
        Breaker { failures: five(), window: None, cooldown: None }
    }
}

/// What keeps a conversation on its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Sticky {
    /// The conversation's beginning: the system messages and the first turn of the user.
    PromptPrefix,
}

/// What becomes of an answer whose client leaves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnDisconnect {
    /// The provider is cut off.
    #[default]
    Cancel,
    /// It is read to its end.
    Drain,
}

/// What a model is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModelKind {
    /// Whatever its targets can do.
    #[default]
    Any,
    /// Chat only.
    Chat,
    /// Embeddings only.
    Embedding,
    /// Reranking only.
    Rerank,
}
