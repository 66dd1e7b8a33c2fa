//! The configuration compiled: immutable, swapped whole on reload.

mod build;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderName, HeaderValue, StatusCode, Uri};
use providers::Provider;
use providers::prices::{Model, Prices};

use crate::background::Background;
use crate::config::{Balance, Config, ModelKind, Sticky, UnknownPrice};
use crate::credential::Credential;
use crate::figures::Figures;
use crate::jwt::Tokens;
use crate::principal::{Access, Principal, Principals};
use crate::prompts::{PromptRule, Prompts};
use crate::secret::Shown;
use crate::target::{BreakerRule, Stats};
use crate::upstream::{Client, Proxy};

/// Everything that a request is judged by.
pub struct Rules {
    /// What they were compiled from.
    pub config: Config,
    /// Models by their exact name.
    pub models: HashMap<String, Arc<ModelRule>, foldhash::fast::RandomState>,
    /// Models whose name has a `*`, longest fixed part first.
    pub wildcards: Vec<Wildcard>,
    /// Providers by name.
    pub providers: HashMap<String, Arc<ProviderRule>>,
    /// What models cost.
    pub prices: Prices,
    /// What becomes of models without a price where dollars are limited.
    pub unknown_price: UnknownPrice,
    /// Prompt templates.
    pub prompts: Prompts,
    /// Who may come in.
    pub principals: Principals,
    /// Whose tokens are believed.
    pub tokens: Option<Tokens>,
    /// Bounds.
    pub limits: Limits,
    /// Whether any model's answers are read to their end without a client.
    pub drains: bool,
    /// Whether prompts and answers may be written down.
    pub log_content: bool,
    /// Share of the traces begun here that are recorded, 0 to 1.
    pub sample: f64,
}

/// Bounds on what is read.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Largest head of a request, bytes.
    pub head: usize,
    /// Largest request body, bytes.
    pub body: usize,
    /// Largest answer and largest event, bytes.
    pub answer: usize,
    /// How long a client may take to send a body.
    pub read: Duration,
}

/// A model whose name has a `*`.
pub struct Wildcard {
    prefix: String,
    suffix: String,
    model: Arc<ModelRule>,
}

/// A provider, ready to be called.
pub struct ProviderRule {
    /// Its name in the configuration.
    pub name: Arc<str>,
    /// Its dialect.
    pub dialect: Box<dyn Provider>,
    /// Its base URL, checked to be one.
    pub base_url: String,
    /// The same in parts; empty for a provider that has no place.
    base: Base,
    /// The proxy on the way there.
    pub proxy: Option<Arc<Proxy>>,
    /// The client's headers that are for this provider.
    pub forwards: Vec<HeaderName>,
    /// Who we are there.
    pub credential: Arc<Credential>,
    /// Headers of every call.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Secrets that must not come back in what it says.
    pub shown: Shown,
    /// Keeps the credential fresh for as long as these rules live.
    _refresher: Option<Background>,
}

/// A base URL in parts, so that a call's URL is put together and not parsed.
#[derive(Debug, Default)]
struct Base {
    scheme: Option<Scheme>,
    authority: Option<Authority>,
    path: String,
}

impl ProviderRule {
    /// The URL of a path of this provider's, which begins behind the base URL.
    ///
    /// # Errors
    /// When the path cannot stand in a URL.
    pub fn uri(&self, path: &str) -> Result<Uri, http::Error> {
        let mut whole = String::with_capacity(self.base.path.len() + path.len());
        whole.push_str(&self.base.path);
        whole.push_str(path);
        let mut parts = http::uri::Parts::default();
        parts.scheme.clone_from(&self.base.scheme);
        parts.authority.clone_from(&self.base.authority);
        parts.path_and_query = Some(PathAndQuery::from_maybe_shared(Bytes::from(whole))?);
        Ok(Uri::from_parts(parts)?)
    }
}

/// A model that clients can ask for.
pub struct ModelRule {
    /// Its name, as clients write it (with its `*` if it has one).
    pub name: Arc<str>,
    /// Where it may go.
    pub targets: Vec<TargetRule>,
    /// Where it goes when all of these fail.
    pub fallback: Vec<TargetRule>,
    /// How one of the targets is chosen.
    pub balance: Balance,
    /// What `consistent_hash` hashes.
    pub hash_on: Option<HeaderName>,
    /// Whether conversations stay where they are.
    pub sticky: Option<Sticky>,
    /// Whether an answer is read to its end when its client leaves.
    pub drains: bool,
    /// What it is for.
    pub kind: ModelKind,
    /// When to try again.
    pub retry: RetryRule,
    /// How long to wait.
    pub timeout: TimeoutRule,
    /// When to leave a target alone.
    pub breaker: BreakerRule,
    /// Who may use it.
    pub access: Access,
    /// Whether it has been said that its price is not known.
    pub warned: AtomicBool,
    /// What is done to prompts.
    pub prompt: PromptRule,
    /// Whose turn it is.
    pub turn: AtomicUsize,
}

/// A target of a model.
pub struct TargetRule {
    /// Where.
    pub provider: Arc<ProviderRule>,
    /// The provider's name for the model; may hold a `*` that takes the client's words.
    pub model: Arc<str>,
    /// `provider/model` as it was configured.
    pub name: Arc<str>,
    /// What it costs and can do, where the name says so.
    pub price: Option<Arc<Model>>,
    /// Its share.
    pub weight: u32,
    /// Its rank.
    pub priority: u32,
    /// What is known of it.
    pub figures: Arc<Figures>,
    /// The client that connects within this model's time.
    pub client: Client,
}

/// When to try again.
#[derive(Debug, Clone)]
pub struct RetryRule {
    /// Tries among the targets, the first included.
    pub attempts: u32,
    /// After a failed connection.
    pub connect: bool,
    /// After a timeout.
    pub timeout: bool,
    /// After any 5xx.
    pub server: bool,
    /// After these.
    pub statuses: Vec<StatusCode>,
    /// Pause before the second try on a target.
    pub backoff: Duration,
}

/// How long to wait.
#[derive(Debug, Clone, Copy)]
pub struct TimeoutRule {
    /// For the first event of a stream.
    pub first_token: Duration,
    /// Between two pieces.
    pub idle: Duration,
    /// For all of it.
    pub total: Duration,
}

impl Rules {
    /// The model of a name, and what its `*` stands for.
    #[must_use]
    pub fn model<'n>(&self, name: &'n str) -> Option<(&Arc<ModelRule>, &'n str)> {
        if let Some(model) = self.models.get(name) {
            return Some((model, ""));
        }
        self.wildcards.iter().find_map(|w| {
            let rest = name.strip_prefix(w.prefix.as_str())?.strip_suffix(w.suffix.as_str())?;
            (!rest.is_empty()).then_some((&w.model, rest))
        })
    }

    /// The model that is configured by exactly this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<&Arc<ModelRule>> {
        self.models.get(name).or_else(|| self.wildcards.iter().map(|w| &w.model).find(|m| *m.name == *name))
    }

    /// Whether a model's `allow` or `deny` keeps somebody from it.
    #[must_use]
    pub fn shuts_out(&self, who: &Principal) -> bool {
        self.models.values().chain(self.wildcards.iter().map(|w| &w.model)).any(|model| !model.access.admits(who))
    }

    /// The names that clients can ask for, sorted; wildcards as they are written.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        let mut names: Vec<&str> = self.models.keys().map(String::as_str).chain(self.wildcards.iter().map(|w| &*w.model.name)).collect();
        names.sort_unstable();
        names
    }

    /// The names that can be put into a request, sorted: in place of a wildcard the models that the price table knows behind
    /// it, and the wildcard as it is written where it knows none.
    #[must_use]
    pub fn callable(&self) -> Vec<String> {
        let mut names: Vec<String> = self.models.keys().cloned().collect();
        for wildcard in &self.wildcards {
            let known = names.len();
            names.extend(wildcard.known(&self.prices));
            if names.len() == known {
                names.push(wildcard.model.name.to_string());
            }
        }
        names.sort_unstable();
        names.dedup();
        names
    }
}

impl Wildcard {
    /// Names that it takes and that the price table knows at its first target.
    fn known<'a>(&'a self, prices: &'a Prices) -> impl Iterator<Item = String> + 'a {
        let target = self.model.targets.first().and_then(|t| Some((t.provider.dialect.kind(), t.model.split_once('*')?)));
        let fits = |mode: Option<&str>| match self.model.kind {
            ModelKind::Any => true,
            ModelKind::Chat => matches!(mode, Some("chat" | "responses")),
            ModelKind::Embedding => mode == Some("embedding"),
            ModelKind::Rerank => mode == Some("rerank"),
        };
        target.into_iter().flat_map(move |(kind, (before, after))| {
            let behind = prices.models(kind).filter(move |(_, model)| fits(model.mode.as_deref()));
            behind.filter_map(move |(name, _)| name.strip_prefix(before)?.strip_suffix(after)).filter(|rest| !rest.is_empty()).map(|rest| format!("{}{rest}{}", self.prefix, self.suffix))
        })
    }
}

impl TargetRule {
    /// The provider's name for the model, with the client's words in place of the `*`.
    #[must_use]
    pub fn model_for(&self, rest: &str) -> Arc<str> {
        match self.model.split_once('*') {
            Some((before, after)) => format!("{before}{rest}{after}").into(),
            None => self.model.clone(),
        }
    }

    /// What is known of it, for what the client's words make of it.
    #[must_use]
    pub fn stats(&self, rest: &str) -> Arc<Stats> {
        self.figures.of(rest)
    }

    /// What the model costs and can do.
    #[must_use]
    pub fn price_of(&self, model: &str, prices: &Prices) -> Option<Arc<Model>> {
        match &self.price {
            // A name that stands as it is was looked up when the rules were built, and is known or not.
            price if !self.model.contains('*') => price.clone(),
            _ => prices.get(&self.provider.name, self.provider.dialect.kind(), model).cloned(),
        }
    }
}

impl RetryRule {
    /// Whether an answer of this status is worth another try.
    #[must_use]
    pub fn wants(&self, status: u16) -> bool {
        self.statuses.iter().any(|s| s.as_u16() == status) || self.server && status >= 500
    }
}
