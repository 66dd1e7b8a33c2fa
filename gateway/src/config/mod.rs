//! The configuration as written by the user: the serde tree, how it is loaded, and all that is wrong with it at once.
//! A field's doc line is the user's manual: the reference and the schema are generated from it.

mod admin;
mod consumers;
mod identity;
mod load;
mod models;
mod prompts;
mod reference;
mod shape;
mod shown;
mod units;
mod usage;
mod yaml;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

pub use admin::{Admin, AdminConfig};
pub use consumers::{Consumer, Consumers, Each, Group, Groups, Key, KeyEntry, Limit, Redis, UnknownPrice, WhenDown, WindowKind};
pub use identity::{Auth, ClientAuth, Jwt, OneOrMany, Tls};
pub use load::{Draft, Problem, from_text, load, read, schema};
pub use models::{Balance, Breaker, ModelConfig, ModelEntry, ModelKind, OnDisconnect, PriceEntry, Retry, Sticky, TargetConfig, TargetEntry, Timeout};
pub use prompts::{PromptBody, PromptMessage, PromptUse, PromptVersion, Role};
pub use reference::reference;
pub use shown::Loaded;
pub use units::{Count, Size, Span};
pub use usage::{Usage, UsageConfig};
pub use yaml::Place;

use crate::credential::CredentialConfig;
use crate::principal::ANONYMOUS;

/// The whole configuration. Nothing in it has to be written: every default is safe.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where clients connect. Default `127.0.0.1:8080`. A listener that is not on loopback needs `consumers` or `auth.jwt`, or `auth.anonymous: true`.
    #[serde(deserialize_with = "units::address")]
    #[schemars(with = "Option<units::Socket>")]
    pub listen: Option<SocketAddr>,
    /// The admin port: the page at `/`, the API under `/admin/`, `/metrics`, `/healthz`, `/readyz`, `/status`. Default `127.0.0.1:8081`; `off` for none; `{ listen, token }` with a token of your own.
    pub admin: Option<Admin>,
    /// TLS for the client listener, and which certificates of clients are believed.
    pub tls: Option<Tls>,
    /// Accounts at providers, by name.
    pub providers: BTreeMap<String, ProviderConfig>,
    /// The names that clients ask for. A name may hold one `*`. Without any, every provider's models can be asked for as `provider/model`.
    pub models: BTreeMap<String, ModelEntry>,
    /// Prices by `provider/model`, in dollars per million tokens, on top of the built-in table; or the `kind/model` of the table that it is, for one that goes by another name (a deployment on Azure): `azure/prod: openai/gpt-4o`.
    #[schemars(with = "BTreeMap<String, models::PriceForm>")]
    pub prices: BTreeMap<String, PriceEntry>,
    /// What becomes of a request by somebody with a limit of dollars, for a model whose price is not known: `deny` (default) or `allow`, which warns once and does not count it.
    pub unknown_price: UnknownPrice,
    /// Prompt templates by name, each with versions.
    pub prompts: BTreeMap<String, BTreeMap<String, PromptVersion>>,
    /// Consumers by name: their keys, certificates, groups and limits. The name `anonymous` is for requests without a key, where `auth.anonymous` lets them in: it has models, groups and limits, and no keys.
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
    /// Where clients connect.
    #[must_use]
    pub fn listens(&self) -> SocketAddr {
        self.listen.unwrap_or(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080))
    }

    /// Whether only this machine can connect.
    #[must_use]
    pub fn on_loopback(&self) -> bool {
        self.listens().ip().is_loopback()
    }

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

    /// Whether anybody is known by what they show: a consumer, or a token of an issuer. `anonymous` is who shows nothing.
    #[must_use]
    pub fn knows_somebody(&self) -> bool {
        self.consumers.keys().any(|name| name != ANONYMOUS) || !self.auth.issuers().is_empty()
    }

    /// The folder where the gateway keeps what must outlive it.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.data.clone().unwrap_or_else(|| PathBuf::from("./data"))
    }
}

/// A socket address, or `off`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
#[schemars(untagged)]
pub enum Address {
    /// Host and port.
    At(#[schemars(with = "units::Socket")] SocketAddr),
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
    /// Headers added to every request to this provider. A client's header of the same name is not passed on.
    #[serde(default)]
    pub headers: BTreeMap<String, crate::secret::Secret>,
    /// The HTTP proxy on the way to this provider, such as `http://proxy.example.com:3128`, with `user:password@` before the host if it wants to know; `off` for none. Default what the environment says: `https_proxy`, `http_proxy`, `all_proxy`, `no_proxy`, or the same in capitals.
    pub proxy: Option<ProxyUse>,
}

/// A proxy, or `off`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum ProxyUse {
    /// The word `off`.
    Off(Off),
    /// Its URL.
    At(crate::secret::Secret),
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

/// What is written down.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// How much is said. Default `info`.
    pub level: Option<Level>,
    /// Whether the gateway's own log is JSON. Default: text on a terminal, JSON elsewhere.
    pub json: Option<bool>,
    /// Whether prompts and answers appear in the ledger. Default no.
    pub content: bool,
    /// Where the ledger is written, one entry per request. Default standard output; `off` for nowhere.
    pub audit: Option<Audit>,
}

/// How much the log says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// What failed.
    Error,
    /// What an operator should look at, too.
    Warn,
    /// What happens to the process, too.
    #[default]
    Info,
    /// What helps to find a fault, too.
    Debug,
    /// Everything.
    Trace,
}

impl Level {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
            Level::Trace => "trace",
        }
    }
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
    /// How long a client may take nothing of an answer that is there for it, before its connection is cut. Default `1m`.
    pub write: Option<Span>,
    /// Largest answer that is held in memory, and largest event of a stream. Default `32MiB`.
    pub answer: Option<Size>,
}
