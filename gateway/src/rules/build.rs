//! `Config` → [`Rules`]. Dangling names are found here, all at once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::Duration;

use http::{HeaderName, HeaderValue, StatusCode, Uri};
use providers::prices::Prices;
use providers::{Auth, Provider, Settings};
use tracing::Instrument as _;

use super::{Base, Limits, ModelRule, ProviderRule, RetryRule, Rules, TargetRule, TimeoutRule, Wildcard};
use crate::background::Background;
use crate::config::{Config, ModelConfig, OnDisconnect, PriceEntry, Problem, ProviderConfig, ProxyUse};
use crate::credential::Credential;
use crate::jwt::Tokens;
use crate::near::{meant, nearest};
use crate::principal::{Access, Principals};
use crate::prompts::{PromptRule, Prompts};
use crate::secret::{Secret, Shown};
use crate::state::State;
use crate::target::BreakerRule;
use crate::upstream::{Client, Proxies, Proxy};

impl Rules {
    /// Compiles a configuration.
    ///
    /// # Errors
    /// All dangling names and settings that do not fit, with their paths.
    pub fn build(config: &Config, state: &State) -> Result<Rules, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut builder = Builder { state, prices: Prices::builtin(), providers: HashMap::new(), problems: &mut problems };
        for (name, provider) in &config.providers {
            builder.provider(name, provider);
        }
        let (prompts, prompt_problems) = Prompts::build(&config.prompts);
        builder.problems.extend(prompt_problems);
        let (mut principals, principal_problems) = Principals::build(config, crate::serve::is_open(config));
        principals.made = state.keyring.clone();
        builder.problems.extend(principal_problems);
        let (tokens, token_problems) = Tokens::build(&config.auth, state);
        builder.problems.extend(token_problems);
        for (name, price) in &config.prices {
            builder.price(name, price, config);
        }
        let mut models = HashMap::default();
        let mut wildcards = Vec::new();
        for (name, entry) in &config.models {
            let Some(model) = builder.model(name, &entry.0, config, &prompts) else { continue };
            builder.place(name, Arc::new(model), &mut models, &mut wildcards);
        }
        if config.models.is_empty() {
            for name in config.providers.keys() {
                let open = ModelConfig { target: Some(format!("{name}/*")), ..ModelConfig::default() };
                if let Some(model) = builder.model(&format!("{name}/*"), &open, config, &prompts) {
                    builder.place(&format!("{name}/*"), Arc::new(model), &mut models, &mut wildcards);
                }
            }
        }
        wildcards.sort_by_key(|w| std::cmp::Reverse(w.prefix.len() + w.suffix.len()));
        let (providers, prices) = (builder.providers, builder.prices);
        if !problems.is_empty() {
            return Err(problems);
        }
        let limits = Limits {
            head: config.limits.headers.map_or(64 << 10, |s| s.0 as usize).max(8192),
            body: config.limits.body.map_or(20 << 20, |s| s.0 as usize),
            answer: config.limits.answer.map_or(32 << 20, |s| s.0 as usize),
            read: config.limits.read.map_or(Duration::from_secs(30), |s| s.0),
        };
        Ok(Rules {
            config: config.clone(),
            models,
            wildcards,
            providers,
            prices,
            unknown_price: config.unknown_price,
            prompts,
            principals,
            tokens,
            limits,
            drains: config.models.values().any(|m| m.0.on_disconnect == OnDisconnect::Drain),
            log_content: config.log.content,
            sample: config.telemetry.sample.unwrap_or(1.0),
        })
    }
}

struct Builder<'a> {
    state: &'a State,
    prices: Prices,
    providers: HashMap<String, Arc<ProviderRule>>,
    problems: &'a mut Vec<Problem>,
}

impl Builder<'_> {
    fn problem(&mut self, path: impl Into<String>, message: impl Into<String>) {
        self.problems.push(Problem::new(path, message));
    }

    fn provider(&mut self, name: &str, config: &ProviderConfig) {
        let path = format!("providers.{name}");
        if name.is_empty() || name.contains('/') || name.contains('*') {
            self.problem(path, "a provider's name must not be empty and must not hold `/` or `*`");
            return;
        }
        let kinds = providers::kinds();
        if !kinds.contains(&config.kind.as_str()) {
            let guess = meant(&config.kind, &kinds).map_or("; known".to_owned(), |m| format!("; did you mean `{m}`? known"));
            return self.problem(format!("{path}.kind"), format!("unknown kind \"{}\"{guess}: {}", config.kind, kinds.join(", ")));
        }
        let settings: Settings = config.settings();
        let dialect = match providers::build(&settings) {
            Ok(dialect) => dialect,
            Err(e) => return self.problem(path, e.to_string()),
        };
        let base_url = dialect.base_url().to_owned();
        let mut base = Base::default();
        let mut proxy = None;
        if !base_url.is_empty() {
            match base_url.parse::<Uri>() {
                Ok(uri) if matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some() && uri.query().is_none() => {
                    proxy = self.proxy(&path, config, &uri);
                    let parts = uri.into_parts();
                    let path = parts.path_and_query.map_or(String::new(), |p| p.path().trim_end_matches('/').to_owned());
                    base = Base { scheme: parts.scheme, authority: parts.authority, path };
                }
                _ => return self.problem(format!("{path}.base_url"), format!("{base_url:?} is not an http(s) URL without a query")),
            }
        }
        let credential = match Credential::new(auth(config, dialect.as_ref()), &config.credential(), config.region.as_deref(), self.state.http.clone()) {
            Ok(credential) => Arc::new(credential),
            Err(e) => return self.problem(path, e.to_string()),
        };
        let mut headers = Vec::new();
        let own = dialect.headers();
        for (key, value) in own.iter().map(|(k, v)| (*k, v.as_str())).chain(config.headers.iter().map(|(k, v)| (k.as_str(), v.expose()))) {
            match (HeaderName::try_from(key), HeaderValue::try_from(value)) {
                (Ok(key), Ok(value)) => {
                    headers.retain(|(k, _)| *k != key);
                    headers.push((key, value));
                }
                _ => self.problem(format!("{path}.headers.{key}"), "is not a valid header"),
            }
        }
        let fresh = (!credential.is_static()).then(|| credential.clone().keep_fresh().instrument(tracing::info_span!("credential", provider = name)));
        let refresher = fresh.and_then(Background::spawn);
        let forwards = dialect.forwards().iter().map(|name| HeaderName::from_static(name)).collect();
        let rule = ProviderRule { name: name.into(), forwards, dialect, base_url, base, proxy, credential, headers, shown: shown(config), _refresher: refresher };
        self.providers.insert(name.to_owned(), Arc::new(rule));
    }

    fn proxy(&mut self, path: &str, config: &ProviderConfig, to: &Uri) -> Option<Arc<Proxy>> {
        match &config.proxy {
            Some(ProxyUse::Off(_)) => None,
            Some(ProxyUse::At(url)) => Proxy::parse(url.expose()).map_err(|message| self.problem(format!("{path}.proxy"), message)).ok().map(Arc::new),
            // That the environment cannot be read has been told when the state was made.
            None => Proxies::of_process().ok()?.on_the_way_to(to).cloned(),
        }
    }

    fn price(&mut self, name: &str, price: &PriceEntry, config: &Config) {
        let path = format!("prices.{name}");
        let Some((provider, model)) = name.split_once('/') else { return self.problem(path, "must be written `provider/model`") };
        let Some(provider) = config.providers.get(provider) else { return self.unknown_provider(&path, provider, config) };
        let in_table = |kind: &str, model: &str| self.prices.get("", kind, model).map(|m| (**m).clone());
        let model = match price {
            PriceEntry::Same(other) => {
                let (kind, model) = other.split_once('/').unwrap_or_default();
                let Some(found) = in_table(kind, model) else {
                    let known: Vec<&str> = self.prices.models(kind).map(|(name, _)| name).collect();
                    let near = if known.is_empty() { String::new() } else { format!("; nearest: {kind}/{}", nearest(model, &known).join(&format!(", {kind}/"))) };
                    return self.problem(path, format!("the built-in table has no \"{other}\": write the `kind/model` that it is, such as openai/gpt-4o, or prices{near}"));
                };
                found
            }
            PriceEntry::Own(own) if own.senseless().is_some() => {
                let field = own.senseless().unwrap_or_default();
                return self.problem(path, format!("`{field}` is less than nothing, or no number: a price is 0 or more dollars for a million tokens"));
            }
            PriceEntry::Own(own) => match in_table(&provider.kind, model) {
                Some(known) => own.knowing(&known),
                None => (**own).clone(),
            },
        };
        self.prices.set(name.to_owned(), model);
    }

    fn unknown_provider(&mut self, path: &str, provider: &str, config: &Config) {
        let known: Vec<&str> = config.providers.keys().map(String::as_str).collect();
        self.problem(path, format!("no provider \"{provider}\"; known: {}", if known.is_empty() { "none".to_owned() } else { known.join(", ") }));
    }

    fn model(&mut self, name: &str, config: &ModelConfig, all: &Config, prompts: &Prompts) -> Option<ModelRule> {
        let path = format!("models.{name}");
        if name.is_empty() || name.chars().any(char::is_control) || name.matches('*').count() > 1 {
            self.problem(&path, "a model's name must not be empty, may hold one `*`, and no control characters");
            return None;
        }
        let timeout = config.timeout.clone().unwrap_or_default();
        let client = self.state.client(timeout.connect.map_or(Duration::from_secs(5), |s| s.0));
        let targets = self.targets(&path, name, config, all, &client);
        let fallback: Vec<TargetRule> = config.fallback.iter().enumerate().filter_map(|(i, t)| self.target(&format!("{path}.fallback[{i}]"), name, t, 1, 0, all, &client)).collect();
        let hash_on = match config.hash_on.as_deref() {
            None | Some("user") => None,
            Some(header) => match HeaderName::try_from(header) {
                Ok(header) => Some(header),
                Err(_) => {
                    self.problem(format!("{path}.hash_on"), "must be `user` or a header's name");
                    None
                }
            },
        };
        let (access, access_problems) = Access::build(&path, &config.allow, &config.deny, all);
        self.problems.extend(access_problems);
        let retry = self.retry(&path, config);
        let breaker = config.breaker.clone().unwrap_or_default();
        let prompt = match PromptRule::build(config, prompts) {
            Ok(prompt) => prompt,
            Err(message) => {
                self.problem(format!("{path}.prompt.template"), message);
                PromptRule::default()
            }
        };
        Some(ModelRule {
            name: name.into(),
            targets,
            fallback,
            balance: config.balance,
            hash_on,
            sticky: config.sticky,
            drains: config.on_disconnect == OnDisconnect::Drain,
            kind: config.kind,
            retry,
            timeout: TimeoutRule {
                first_token: timeout.first_token.map_or(Duration::from_secs(60), |s| s.0),
                idle: timeout.idle.map_or(Duration::from_secs(60), |s| s.0),
                total: timeout.total.map_or(Duration::from_secs(600), |s| s.0),
            },
            access,
            warned: AtomicBool::new(false),
            breaker: BreakerRule { failures: breaker.failures, window: breaker.window.map_or(Duration::from_secs(30), |s| s.0), cooldown: breaker.cooldown.map_or(Duration::from_secs(15), |s| s.0) },
            prompt,
            turn: AtomicUsize::new(0),
        })
    }

    fn targets(&mut self, path: &str, name: &str, config: &ModelConfig, all: &Config, client: &Client) -> Vec<TargetRule> {
        let mut targets = Vec::new();
        match (&config.target, config.targets.as_slice()) {
            (Some(target), []) => targets.extend(self.target(&format!("{path}.target"), name, target, 1, 0, all, client)),
            (None, []) => self.problem(path, "needs `target` or `targets`"),
            (Some(_), _) => self.problem(path, "has both `target` and `targets`; one of them is enough"),
            (None, several) => {
                for (i, entry) in several.iter().enumerate() {
                    let t = &entry.0;
                    targets.extend(self.target(&format!("{path}.targets[{i}].model"), name, &t.model, t.weight, t.priority, all, client));
                }
                if !several.is_empty() && several.iter().all(|t| t.0.weight == 0) {
                    self.problem(format!("{path}.targets"), "all weights are 0: nothing could ever be chosen");
                }
            }
        }
        targets
    }

    #[allow(clippy::too_many_arguments)]
    fn target(&mut self, path: &str, of: &str, target: &str, weight: u32, priority: u32, all: &Config, client: &Client) -> Option<TargetRule> {
        let Some((provider, model)) = target.split_once('/') else {
            self.problem(path, format!("{target:?} must be written `provider/model`"));
            return None;
        };
        if !all.providers.contains_key(provider) {
            self.unknown_provider(path, provider, all);
            return None;
        }
        if model.is_empty() || model.matches('*').count() > 1 || model.contains('*') && !of.contains('*') {
            self.problem(path, format!("{target:?}: a target's `*` takes the words of the model's own `*`"));
            return None;
        }
        // A provider that was refused has been reported already.
        let provider = self.providers.get(provider)?.clone();
        let figures = self.state.figures(&format!("{of} → {target}"), model.contains('*'));
        let price = self.prices.get(&provider.name, provider.dialect.kind(), model).cloned().filter(|_| !model.contains('*'));
        let client = client.through(provider.proxy.clone());
        Some(TargetRule { name: format!("{}/{model}", provider.name).into(), provider, model: model.into(), price, weight, priority, figures, client })
    }

    fn retry(&mut self, path: &str, config: &ModelConfig) -> RetryRule {
        let retry = config.retry.clone().unwrap_or_default();
        let mut rule = RetryRule {
            attempts: retry.attempts.clamp(1, 10),
            connect: false,
            timeout: false,
            server: false,
            statuses: Vec::new(),
            backoff: retry.backoff.map_or(Duration::from_millis(200), |s| s.0),
        };
        for (i, word) in retry.on.iter().enumerate() {
            match word.as_str() {
                "connect" => rule.connect = true,
                "timeout" => rule.timeout = true,
                "5xx" => rule.server = true,
                other => match other.parse::<u16>().ok().and_then(|n| StatusCode::from_u16(n).ok()).filter(|s| s.as_u16() >= 400) {
                    Some(status) => rule.statuses.push(status),
                    None => self.problem(format!("{path}.retry.on[{i}]"), format!("{other:?} is not one of connect, timeout, 429, 5xx or another status from 400 up")),
                },
            }
        }
        rule
    }

    fn place(&mut self, name: &str, model: Arc<ModelRule>, models: &mut HashMap<String, Arc<ModelRule>, foldhash::fast::RandomState>, wildcards: &mut Vec<Wildcard>) {
        match name.split_once('*') {
            Some((prefix, suffix)) => wildcards.push(Wildcard { prefix: prefix.to_owned(), suffix: suffix.to_owned(), model }),
            None => {
                models.insert(name.to_owned(), model);
            }
        }
    }
}

/// How a provider is shown who we are. A place of one's own (vLLM, llama.cpp, LM Studio, any `base_url`) may want no key.
fn auth(config: &ProviderConfig, dialect: &dyn Provider) -> Auth {
    let keyless = config.api_key.as_ref().is_none_or(Secret::is_empty);
    let own = config.base_url.is_some() || dialect.base_url().starts_with("http://127.0.0.1");
    match dialect.auth() {
        Auth::Bearer | Auth::Header(_) if keyless && own => Auth::None,
        auth => auth,
    }
}

/// All that a provider may know of us and repeat: the key, and headers that look as if they held one.
fn shown(config: &ProviderConfig) -> Shown {
    let telling = |name: &str| ["auth", "key", "token", "secret", "cookie"].iter().any(|part| name.to_ascii_lowercase().contains(part));
    let headers = config.headers.iter().filter(|(name, _)| telling(name)).map(|(_, value)| Secret::new(value.expose().strip_prefix("Bearer ").unwrap_or(value.expose())));
    Shown::new(config.api_key.iter().cloned().chain(headers))
}
