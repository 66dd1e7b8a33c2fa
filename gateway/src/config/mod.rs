//! The configuration as written by the user: the serde tree, how it is loaded, and all that is wrong with it at once.
//! A field's doc line is the user's manual: the reference and the schema are generated from it.

mod admin;
mod consumers;
mod identity;
mod load;
mod reference;
mod shown;
mod units;
mod usage;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

pub use admin::{Admin, AdminConfig};
pub use consumers::{Consumer, Consumers, Each, Group, Groups, Key, KeyEntry, Limit, Redis, UnknownPrice, WhenDown, WindowKind};
pub use identity::{Auth, ClientAuth, Jwt, OneOrMany, Tls};
pub use load::{Problem, from_text, load, schema};
pub use reference::reference;
pub use shown::Loaded;
pub use units::{Count, Size, Span};
pub use usage::{Usage, UsageConfig};

use crate::credential::CredentialConfig;

/// The whole configuration. Nothing in it has to be written: every default is safe.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where clients connect. Default `127.0.0.1:8080`. A listener that is not on loopback needs `consumers` or `auth.jwt`, or `auth.anonymous: true`.
    pub listen: Option<SocketAddr>,
    /// The admin port: the page at `/`, the API under `/admin/`, `/metrics`, `/healthz`, `/readyz`, `/status`. Default `127.0.0.1:8081`; `off` for none; `{ listen, token }` with a token of your own.
    pub admin: Option<Admin>,
    /// TLS for the client listener, and which certificates of clients are believed.
    pub tls: Option<Tls>,
    /// Accounts at providers, by name.
    pub providers: BTreeMap<String, ProviderConfig>,
    /// The names that clients ask for. A name may hold one `*`. Without any, every provider's models can be asked for as `provider/model`.
    pub models: BTreeMap<String, ModelEntry>,
    /// Prices by `provider/model`, in dollars per million tokens, on top of the built-in table.
    #[schemars(with = "BTreeMap<String, BTreeMap<String, serde_json::Value>>")]
    pub prices: BTreeMap<String, providers::prices::Model>,
    /// What becomes of a request by somebody with a limit of dollars, for a model whose price is not known: `deny` (default) or `allow`, which warns once and does not count it.
    pub unknown_price: UnknownPrice,
    /// Prompt templates by name, each with versions.
    pub prompts: BTreeMap<String, BTreeMap<String, PromptVersion>>,
    /// Consumers by name: their keys, certificates, groups and limits.
    pub consumers: Consumers,
    /// Groups by name.
    pub groups: Groups,
    /// Redis, where limits are counted and keys made at run time are kept for all replicas. Without it each process does so for itself.
    pub redis: Option<Redis>,
    /// The folder where the gateway keeps what must outlive it: what has been spent, the history of usage, keys made at run time, the admin port's token. Default `./data`.
    pub data: Option<PathBuf>,
    /// Who may come in.
    pub auth: Auth,
    /// What is written down.
    pub log: Log,
    /// The history of usage: what was used and spent per day, consumer, group, model and provider. Kept under `data`, or in Redis if there is one, for `keep`. Default: kept if there are consumers or groups; `off` for none.
    pub usage: Option<UsageConfig>,
    /// OpenTelemetry.
    pub telemetry: Telemetry,
    /// Bounds on what clients may send.
    pub limits: Limits,
    /// How long running requests may take to finish after SIGTERM. Default `30s`.
    pub drain: Option<Span>,
    /// As it was loaded, for who wants to see it.
    #[serde(skip)]
    pub loaded: Loaded,
}

impl Config {
    /// Listens here, whatever the file says.
    pub fn listen_at(&mut self, at: SocketAddr) {
        self.listen = Some(at);
        self.loaded.set(&["listen"], at);
    }

    /// Puts the admin port here, whatever the file says.
    pub fn admin_at(&mut self, to: Address) {
        match to {
            Address::At(at) => self.loaded.set(&["admin", "listen"], at),
            Address::Off(_) => self.loaded.set(&["admin"], "off"),
        }
        self.admin = Some(Admin::moved(self.admin.take(), to));
    }

    /// The folder where the gateway keeps what must outlive it.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.data.clone().unwrap_or_else(|| PathBuf::from("./data"))
    }
}

/// A socket address, or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Address {
    /// Host and port.
    At(SocketAddr),
    /// The word `off`.
    Off(Off),
}

/// The word `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Off {
    /// `off`.
    Off,
}

/// An account at a provider: a dialect, a place, a credential.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProviderConfig {
    /// The dialect: `openai`, `anthropic`, `gemini`, ..., or a preset such as `groq`. `trivium models --kinds` lists them.
    pub kind: String,
    /// Scheme, host and path prefix, where the kind has none of its own or another is wanted.
    pub base_url: Option<String>,
    /// The API key. Clouds take `aws`, `google` or `azure` instead, or find their credential in the environment.
    pub api_key: Option<crate::secret::Secret>,
    /// AWS credentials, if not from the environment, a profile, web identity or the instance.
    pub aws: Option<crate::credential::AwsConfig>,
    /// Google credentials, if not application default credentials.
    pub google: Option<crate::credential::GoogleConfig>,
    /// Microsoft Entra credentials, if not from the environment or a managed identity.
    pub azure: Option<crate::credential::AzureConfig>,
    /// Version of the provider's API: Azure's `api-version`, Anthropic's `anthropic-version`.
    pub api_version: Option<String>,
    /// Google Cloud project.
    pub project: Option<String>,
    /// Google Cloud location.
    pub location: Option<String>,
    /// AWS region.
    pub region: Option<String>,
    /// Headers added to every request to this provider.
    #[serde(default)]
    pub headers: BTreeMap<String, crate::secret::Secret>,
}

impl ProviderConfig {
    /// The part that says who we are.
    #[must_use]
    pub fn credential(&self) -> CredentialConfig {
        CredentialConfig { api_key: self.api_key.clone(), aws: self.aws.clone(), google: self.google.clone(), azure: self.azure.clone() }
    }

    /// The part that the dialect is built from.
    #[must_use]
    pub fn settings(&self) -> providers::Settings {
        providers::Settings {
            kind: self.kind.clone(),
            base_url: self.base_url.clone(),
            api_version: self.api_version.clone(),
            project: self.project.clone(),
            location: self.location.clone(),
            region: self.region.clone(),
            has_key: self.api_key.as_ref().is_some_and(|k| !k.is_empty()),
        }
    }
}

/// A model: `provider/model`, or the long form.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(from = "ModelForm")]
pub struct ModelEntry(pub ModelConfig);

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum ModelForm {
    Short(String),
    Long(Box<ModelConfig>),
}

impl From<ModelForm> for ModelEntry {
    fn from(form: ModelForm) -> Self {
        match form {
            ModelForm::Short(target) => ModelEntry(ModelConfig { target: Some(target), ..ModelConfig::default() }),
            ModelForm::Long(config) => ModelEntry(*config),
        }
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
#[serde(untagged)]
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

/// Templates and decoration of the prompt.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PromptUse {
    /// The template that every request to this model is made from: `name` or `name@version`. Its variables come in the request's `prompt.variables`.
    pub template: Option<String>,
    /// Messages put in front of the conversation.
    pub prepend: Vec<PromptMessage>,
    /// Messages put behind it.
    pub append: Vec<PromptMessage>,
    /// Whether requests that use no template are refused.
    pub require_template: bool,
}

/// A message of the operator's.
#[derive(Debug, Clone, Deserialize, JsonSchema, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct PromptMessage {
    /// `system`, `user` or `assistant`.
    pub role: Role,
    /// Its text.
    pub content: String,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The operator.
    System,
    /// The user.
    User,
    /// The model.
    Assistant,
}

/// A template: its text, or with a weight.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(from = "PromptForm")]
pub struct PromptVersion {
    /// The text of one user message, or whole messages.
    pub body: PromptBody,
    /// Its share when the version is not named. Default 1.
    pub weight: u32,
}

/// What a template makes.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum PromptBody {
    /// One user message with `{{variables}}`.
    Text(String),
    /// Messages with `{{variables}}`.
    Messages(Vec<PromptMessage>),
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum PromptForm {
    Short(String),
    Long(PromptLong),
}

/// One version of a prompt template.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Template")]
struct PromptLong {
    /// The text of one user message, or a list of messages, with `{{variables}}`.
    template: PromptBody,
    /// Its share when the version is not named. Default 1.
    #[serde(default = "one")]
    weight: u32,
}

impl From<PromptForm> for PromptVersion {
    fn from(form: PromptForm) -> Self {
        match form {
            PromptForm::Short(text) => PromptVersion { body: PromptBody::Text(text), weight: 1 },
            PromptForm::Long(PromptLong { template, weight }) => PromptVersion { body: template, weight },
        }
    }
}

/// What is written down.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug` or `trace`. Default `info`.
    pub level: Option<String>,
    /// Whether the gateway's own log is JSON. Default: text on a terminal, JSON elsewhere.
    pub json: Option<bool>,
    /// Whether prompts and answers appear in the ledger. Default no.
    pub content: bool,
    /// Where the ledger is written, one entry per request. Default standard output; `off` for nowhere.
    pub audit: Option<Audit>,
}

/// Where the ledger is written.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Audit {
    /// The word `off`.
    Off(Off),
    /// The places.
    Sinks(Vec<SinkConfig>),
}

/// A place for the ledger.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum SinkConfig {
    /// Standard output, a line of JSON each.
    Stdout {},
    /// A file, a line of JSON each. Opened anew on reload, for log rotation.
    File {
        /// Where.
        path: PathBuf,
    },
    /// HTTP POST, in batches.
    Http {
        /// Where to.
        url: String,
        /// `json`: an array of entries; `loki`: Loki's push API. Default `json`.
        #[serde(default)]
        format: HttpFormat,
        /// Headers to send along.
        #[serde(default)]
        headers: BTreeMap<String, crate::secret::Secret>,
    },
    /// Syslog (RFC 5424).
    Syslog {
        /// `udp://host:port`, `tcp://host:port`, or the path of a socket. Default `/dev/log`.
        #[serde(default)]
        address: Option<String>,
    },
}

/// How entries are posted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HttpFormat {
    /// An array of entries.
    #[default]
    Json,
    /// Loki's push API.
    Loki,
}

/// OpenTelemetry.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// Collector to send traces and metrics to by OTLP, such as `http://127.0.0.1:4317`. Default none.
    pub otlp: Option<String>,
    /// What the collector speaks. Default `grpc` on port 4317, `http` elsewhere.
    pub protocol: Option<OtlpProtocol>,
    /// Headers of every export, such as a key of a hosted collector.
    pub headers: BTreeMap<String, crate::secret::Secret>,
    /// Share of requests that are traced, 0 to 1. Default 1. A client that sends a `traceparent` has decided for its own trace.
    pub sample: Option<f64>,
}

/// The two forms of OTLP. Both carry protocol buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OtlpProtocol {
    /// OTLP/gRPC.
    Grpc,
    /// OTLP/HTTP: POST to `/v1/traces` and `/v1/metrics` behind the URL.
    Http,
}

/// Bounds on what clients may send.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Largest body. Default `20MiB`.
    pub body: Option<Size>,
    /// Most connections at once. Default `10k`.
    pub connections: Option<Count>,
    /// Largest head of a request. Default `64KiB`.
    pub headers: Option<Size>,
    /// How long a client may take to send a request. Default `30s`.
    pub read: Option<Span>,
    /// Largest answer that is held in memory, and largest event of a stream. Default `32MiB`.
    pub answer: Option<Size>,
}
