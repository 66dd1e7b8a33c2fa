//! What models cost and can do: the table that ships with the project, what the operator puts on top, and a bill.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::usage::Usage;

/// The built-in table: kind of provider → model → figures. Source: `data/model-prices.json`, dollars per million tokens.
const TABLE: &str = include_str!("../data/model-prices.json");

/// Above how many prompt tokens the `*_over_200k` prices apply to the whole request.
const LONG_CONTEXT: u64 = 200_000;

/// What one model costs and can do. Prices in US dollars per million tokens.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Model {
    /// Prompt tokens.
    pub input: f64,
    /// Answer tokens.
    pub output: f64,
    /// Prompt tokens read from the provider's cache; `input` where absent.
    pub cache_read: Option<f64>,
    /// Prompt tokens written to the cache (short lifetime); `input` where absent.
    pub cache_write: Option<f64>,
    /// Prompt tokens written to the cache for an hour; `cache_write` where absent.
    pub cache_write_1h: Option<f64>,
    /// Prompt tokens once the prompt is over 200,000 tokens.
    pub input_over_200k: Option<f64>,
    /// Answer tokens once the prompt is over 200,000 tokens.
    pub output_over_200k: Option<f64>,
    /// Cache reads once the prompt is over 200,000 tokens.
    pub cache_read_over_200k: Option<f64>,
    /// Audio in the prompt; `input` where absent.
    pub input_audio: Option<f64>,
    /// Audio in the answer; `output` where absent.
    pub output_audio: Option<f64>,
    /// Reasoning; `output` where absent.
    pub reasoning: Option<f64>,
    /// Context window, in tokens.
    pub context: Option<u64>,
    /// Most tokens of an answer.
    pub max_output: Option<u64>,
    /// Length of an embedding.
    pub dimensions: Option<u32>,
    /// `chat`, `responses`, `completion`, `embedding`, `rerank`.
    pub mode: Option<String>,
    /// `tools`, `vision`, `json_schema`, `reasoning`, `pdf`, `prompt_cache`, `web_search`, `audio_in`.
    pub supports: Features,
}

/// Features that the table tells of, in the order of their bits.
const FEATURES: &[&str] = &["tools", "vision", "json_schema", "reasoning", "pdf", "prompt_cache", "web_search", "audio_in"];

/// A set of features. Names that are not known here are passed over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Features(u16);

impl Features {
    fn bit(name: &str) -> u16 {
        FEATURES.iter().position(|f| *f == name).map_or(0, |at| 1 << at)
    }
}

impl Serialize for Features {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(FEATURES.iter().filter(|f| self.0 & Self::bit(f) != 0))
    }
}

impl<'de> Deserialize<'de> for Features {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Vec::<String>::deserialize(d).map(|names| Features(names.iter().fold(0, |set, name| set | Self::bit(name))))
    }
}

/// A sum of money in billionths of a dollar: sums of whole numbers stay exact where sums of floats drift.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nanodollars(pub u64);

impl Nanodollars {
    /// As dollars, for people and reports.
    #[must_use]
    pub fn dollars(self) -> f64 {
        self.0 as f64 / 1e9
    }
}

impl std::fmt::Display for Nanodollars {
    /// Dollars as a decimal number without trailing zeros, exact.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = format!("{}.{:09}", self.0 / 1_000_000_000, self.0 % 1_000_000_000);
        f.write_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

impl std::iter::Sum for Nanodollars {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        Nanodollars(crate::usage::sum(iter.map(|n| n.0)))
    }
}

impl Model {
    /// Whether the model is known to have a feature.
    #[must_use]
    pub fn supports(&self, feature: &str) -> bool {
        self.supports.0 & Features::bit(feature) != 0
    }

    /// These prices, and what is known of the same model beside its price, where nothing else is said of it.
    #[must_use]
    pub fn knowing(&self, other: &Self) -> Self {
        let supports = if self.supports == Features::default() { other.supports } else { self.supports };
        Model {
            context: self.context.or(other.context),
            max_output: self.max_output.or(other.max_output),
            dimensions: self.dimensions.or(other.dimensions),
            mode: self.mode.clone().or_else(|| other.mode.clone()),
            supports,
            ..self.clone()
        }
    }

    /// The first price that is none: less than nothing, or no finite number.
    #[must_use]
    pub fn senseless(&self) -> Option<&'static str> {
        let prices = [
            ("input", Some(self.input)),
            ("output", Some(self.output)),
            ("cache_read", self.cache_read),
            ("cache_write", self.cache_write),
            ("cache_write_1h", self.cache_write_1h),
            ("input_over_200k", self.input_over_200k),
            ("output_over_200k", self.output_over_200k),
            ("cache_read_over_200k", self.cache_read_over_200k),
            ("input_audio", self.input_audio),
            ("output_audio", self.output_audio),
            ("reasoning", self.reasoning),
        ];
        prices.into_iter().find(|(_, price)| price.is_some_and(|p| !p.is_finite() || p < 0.0)).map(|(name, _)| name)
    }

    /// The prices that hold below or above the bound of a long context.
    fn rates(&self, long: bool) -> Rates {
        let tier = |over: Option<f64>, base: f64| if long { over.unwrap_or(base) } else { base };
        let input = tier(self.input_over_200k, self.input);
        let output = tier(self.output_over_200k, self.output);
        // A cache price without a tier of its own grows with the input price of the tier.
        let scaled = |price: f64| if self.input > 0.0 { price * input / self.input } else { price };
        let cache_read = match (long, self.cache_read_over_200k) {
            (true, Some(price)) => price,
            _ => self.cache_read.map_or(input, scaled),
        };
        let cache_write = self.cache_write.map_or(input, scaled);
        let reasoning = match self.reasoning {
            Some(price) if !long => price,
            _ => output,
        };
        Rates {
            input,
            cache_read,
            cache_write,
            cache_write_1h: self.cache_write_1h.map_or(cache_write, scaled),
            input_audio: self.input_audio.unwrap_or(input),
            output,
            reasoning,
            output_audio: self.output_audio.unwrap_or(output),
        }
    }

    /// What `usage` costs. `batch` halves it, as every provider with a batch API does.
    #[must_use]
    pub fn cost(&self, usage: &Usage, batch: bool) -> Nanodollars {
        let rates = self.rates(usage.prompt() > LONG_CONTEXT);
        bill(
            &[
                (usage.input, rates.input),
                (usage.cache_read, rates.cache_read),
                (usage.cache_write, rates.cache_write),
                (usage.cache_write_1h, rates.cache_write_1h),
                (usage.input_audio, rates.input_audio),
                (usage.output, rates.output),
                (usage.reasoning, rates.reasoning),
                (usage.output_audio, rates.output_audio),
            ],
            batch,
        )
    }

    /// The most that a prompt of up to so many tokens and an answer of up to so many can cost: each token at the dearest price
    /// that it can have. `heard` and `spoken` say whether there may be sound in the prompt and in the answer.
    #[must_use]
    pub fn dearest(&self, prompt: u64, completion: u64, heard: bool, spoken: bool) -> Nanodollars {
        let at = |long: bool, prompt: u64| {
            let r = self.rates(long);
            let sound = |there: bool, price: f64| if there { price } else { 0.0 };
            let input = [r.input, r.cache_read, r.cache_write, r.cache_write_1h, sound(heard, r.input_audio)].into_iter().fold(0.0, f64::max);
            let output = [r.output, r.reasoning, sound(spoken, r.output_audio)].into_iter().fold(0.0, f64::max);
            bill(&[(prompt, input), (completion, output)], false)
        };
        let short = at(false, prompt.min(LONG_CONTEXT));
        if prompt > LONG_CONTEXT { short.max(at(true, prompt)) } else { short }
    }
}

/// Prices of tokens by bucket, in dollars per million.
struct Rates {
    input: f64,
    cache_read: f64,
    cache_write: f64,
    cache_write_1h: f64,
    input_audio: f64,
    output: f64,
    reasoning: f64,
    output_audio: f64,
}

/// The sum of tokens at their prices.
fn bill(tokens: &[(u64, f64)], batch: bool) -> Nanodollars {
    // Dollars per million tokens times tokens: a thousandth of a dollar-per-million is one nanodollar per token.
    // Prices are taken in picodollars per token, so that the smallest price in the table is a whole number.
    let pico = tokens.iter().map(|&(tokens, price)| u128::from(tokens).saturating_mul((price.max(0.0) * 1e6).round() as u128)).fold(0, u128::saturating_add);
    let pico = if batch { pico / 2 } else { pico };
    Nanodollars(u64::try_from(pico.div_ceil(1000)).unwrap_or(u64::MAX))
}

/// By name. It is asked on every request.
type Table<T> = HashMap<String, T, foldhash::fast::RandomState>;

/// Prices by provider and model.
#[derive(Debug, Clone, Default)]
pub struct Prices {
    table: Table<Table<Arc<Model>>>,
    /// The operator's own, by `provider name/model`.
    own: Table<Arc<Model>>,
}

impl Prices {
    /// The table that ships with the project.
    #[must_use]
    pub fn builtin() -> Self {
        // A test holds that the table can be read.
        let mut table: Table<Table<Arc<Model>>> = serde_json::from_str(TABLE).unwrap_or_default();
        // Reranking is paid for by the search, which the table has no price for: nought would be taken for free.
        table.values_mut().for_each(|models| models.retain(|_, m| m.mode.as_deref() != Some("rerank") || m.input > 0.0));
        Prices { table, own: Table::default() }
    }

    /// Puts a model on top of the table. `name` is `provider/model` with the provider's configured name.
    pub fn set(&mut self, name: String, model: Model) {
        self.own.insert(name, Arc::new(model));
    }

    /// Whether the operator has priced a model of the provider of this configured name.
    #[must_use]
    pub fn is_own(&self, name: &str, model: &str) -> bool {
        !self.own.is_empty() && self.own.contains_key(&format!("{name}/{model}"))
    }

    /// Figures for a model of a provider: the operator's by the provider's `name`, else the table's by its `kind`. A
    /// dated or regional variant that the table does not have is looked up by the name it is derived from.
    #[must_use]
    pub fn get(&self, name: &str, kind: &str, model: &str) -> Option<&Arc<Model>> {
        if let Some(own) = (!self.own.is_empty()).then(|| self.own.get(&format!("{name}/{model}"))).flatten() {
            return Some(own);
        }
        let table = self.table.get(kind)?;
        if let Some(found) = table.get(model) {
            return Some(found);
        }
        if is_own(kind, model) {
            return None;
        }
        // An ARN ends in the id; Bedrock's inference profiles (`eu.anthropic.…`, `global.anthropic.…`) may have prices of
        // their own, or else the model's.
        let tail = model.rsplit('/').next().unwrap_or(model);
        if let Some(found) = table.get(tail) {
            return Some(found);
        }
        let tail = ["us.", "eu.", "apac.", "global.", "us-gov.", "jp.", "au.", "ca."].iter().find_map(|p| tail.strip_prefix(p)).unwrap_or(tail);
        if let Some(found) = table.get(tail) {
            return Some(found);
        }
        table.get(undated(tail)?)
    }

    /// The models of a kind of provider that the table knows, where their names are the provider's: on Azure every account
    /// gives its deployments names of its own.
    pub fn models(&self, kind: &str) -> impl Iterator<Item = (&str, &Model)> {
        let table = self.table.get(kind).filter(|_| kind != "azure");
        table.into_iter().flatten().map(|(name, model)| (name.as_str(), &**model))
    }
}

/// Whether a name says that the model is somebody's own: at Fireworks, one in another account (`accounts/acme/models/…`), or
/// any on a deployment that is paid for by the hour (`…#accounts/acme/deployments/…`). The table's price is not theirs, even
/// where they have the name of a model that is in it.
fn is_own(kind: &str, model: &str) -> bool {
    kind == "fireworks" && (model.contains('#') || model.strip_prefix("accounts/").is_some_and(|rest| !rest.starts_with("fireworks/")))
}

/// A name without its date (`-20251001`, `@20251001`, `-2024-08-06`) or `latest`.
fn undated(name: &str) -> Option<&str> {
    if let Some(base) = name.strip_suffix("-latest").or_else(|| name.strip_suffix(":latest")) {
        return Some(base);
    }
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let (base, date) = name.rsplit_once(['-', '@'])?;
    if date.len() == 8 && digits(date) {
        return Some(base);
    }
    let (head, month) = base.rsplit_once('-')?;
    let (head, year) = head.rsplit_once('-')?;
    (digits(date) && date.len() == 2 && digits(month) && month.len() == 2 && digits(year) && year.len() == 4).then_some(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_whole() {
        let prices = Prices::builtin();
        assert!(prices.table.len() >= 18);
        assert!(prices.get("x", "openai", "gpt-4o").is_some());
        assert!(prices.get("x", "bedrock", "nothing").is_none());
    }

    #[test]
    fn a_price_of_one_s_own_leaves_what_is_known_of_the_model() {
        let prices = Prices::builtin();
        let table = prices.get("x", "openai", "gpt-4o").unwrap();
        let own = Model { input: 1.0, output: 2.0, max_output: Some(7), ..Model::default() }.knowing(table);
        assert_eq!((own.input, own.output, own.cache_read, own.max_output, own.context), (1.0, 2.0, None, Some(7), table.context));
        assert!(own.supports("vision") && own.mode == table.mode);
    }

    #[test]
    fn a_bill_is_exact() {
        let prices = Prices::builtin();
        let gpt = prices.get("openai", "openai", "gpt-4o").unwrap();
        let usage = Usage { input: 1000, cache_read: 500, output: 200, ..Usage::default() };
        // 1000·2.5 + 500·1.25 + 200·10 = 5125 millionths of a dollar.
        assert_eq!(gpt.cost(&usage, false).to_string(), "0.005125");
        assert_eq!(gpt.cost(&usage, true).to_string(), "0.0025625");
        let claude = prices.get("a", "anthropic", "claude-haiku-4-5").unwrap();
        let usage = Usage { input: 10, cache_read: 100, cache_write: 1000, cache_write_1h: 10_000, output: 7, reasoning: 3, ..Usage::default() };
        // 10·1 + 100·0.1 + 1000·1.25 + 10000·2 + 10·5
        assert_eq!(claude.cost(&usage, false).to_string(), "0.02132");
    }

    #[test]
    fn long_context_prices_apply_to_the_whole_request() {
        let prices = Prices::builtin();
        let gemini = prices.get("g", "gemini", "gemini-2.5-pro").unwrap();
        let short = Usage { input: 200_000, output: 1000, ..Usage::default() };
        let long = Usage { input: 100_001, cache_read: 100_000, output: 1000, ..Usage::default() };
        assert_eq!(gemini.cost(&short, false).to_string(), "0.26");
        // 100001·2.5 + 100000·0.25 + 1000·15
        assert_eq!(gemini.cost(&long, false).to_string(), "0.2900025");
    }

    #[test]
    fn the_dearest_price_is_that_of_the_dearest_token() {
        let model = Model { input: 1.0, output: 10.0, input_audio: Some(40.0), output_audio: Some(80.0), reasoning: Some(20.0), cache_write: Some(2.0), ..Model::default() };
        let dollars = |prompt, completion, heard, spoken| model.dearest(prompt, completion, heard, spoken).to_string();
        assert_eq!(dollars(1000, 1000, false, false), "0.022");
        assert_eq!((dollars(1000, 0, true, false), dollars(0, 1000, false, true)), ("0.04".into(), "0.08".into()));
        // The prompt may be longer than the bound, and need not be.
        let long = Model { input: 1.0, output: 10.0, input_over_200k: Some(2.0), output_over_200k: Some(5.0), ..Model::default() };
        assert_eq!((long.dearest(200_000, 0, false, false).to_string(), long.dearest(200_001, 0, false, false).to_string()), ("0.2".into(), "0.400002".into()));
        assert_eq!(long.dearest(200_001, 1_000_000, false, false).to_string(), "10.2");
    }

    #[test]
    fn variants_are_found_by_the_name_they_derive_from() {
        let prices = Prices::builtin();
        let base = prices.get("a", "anthropic", "claude-haiku-4-5").unwrap();
        assert_eq!(prices.get("a", "anthropic", "claude-haiku-4-5-20991231"), Some(base));
        assert!(prices.get("o", "openai", "gpt-4o-2031-01-01").is_some());
        assert!(prices.get("o", "openai", "gpt-4o-99").is_none());
        assert!(prices.get("c", "cohere", "rerank-v3.5").is_none(), "a price by the search is not nought by the token");
    }

    #[test]
    fn a_wrong_price_is_worse_than_none() {
        let prices = Prices::builtin();
        for name in ["kimi-k3", "accounts/fireworks/models/kimi-k3", "accounts/fireworks/routers/kimi-k3-us"] {
            assert!(prices.get("f", "fireworks", name).is_some(), "{name}");
        }
        for (kind, name) in [
            ("fireworks", "accounts/acme/models/kimi-k3"),
            ("fireworks", "accounts/acme/models/kimi-k3-20260101"),
            ("fireworks", "accounts/fireworks-2/models/kimi-k3"),
            ("fireworks", "accounts/fireworks/models/kimi-k3#accounts/acme/deployments/kimi-k3"),
            ("together", "meta-llama/Llama-3.3-70B-Instruct-Turbo-Free"),
            ("together", "Qwen/Qwen3-235B-A22B-Instruct-2507-tput"),
            ("together", "acme/Llama-3.3-70B-Instruct-Turbo"),
            ("openai", "ft:gpt-4o-2024-08-06:acme::x1"),
        ] {
            assert!(prices.get("p", kind, name).is_none(), "{name}");
        }
    }

    #[test]
    fn money_prints_as_dollars() {
        assert_eq!(Nanodollars(0).to_string(), "0");
        assert_eq!(Nanodollars(1).to_string(), "0.000000001");
        assert_eq!(Nanodollars(12_500_000_000).to_string(), "12.5");
    }
}
