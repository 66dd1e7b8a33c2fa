//! Limits compiled: which purses a consumer spends from, and what a request is worth in each.

use std::sync::Arc;
use std::time::Duration;

use providers::prices::{Model, Nanodollars};
use providers::usage::Usage;

use crate::config::{Config, Each, Limit, Problem, WindowKind};
use crate::counters::{Calendar, Lease, Purse, Unit, Window, Zone};
use crate::principal::matches;

/// A limit of somebody.
#[derive(Debug)]
pub struct LimitRule {
    /// What it is counted in.
    pub purse: Arc<Purse>,
    /// How it is told to a client: `200 requests per 1m of group research`.
    pub label: String,
    /// Whose models it is about; empty for all.
    models: Vec<String>,
    /// Whether the worst case is reserved.
    pub strict: bool,
}

impl LimitRule {
    /// Whether requests for a model count.
    #[must_use]
    pub fn covers(&self, model: &str) -> bool {
        self.models.is_empty() || self.models.iter().any(|p| matches(p, model))
    }
}

/// What a request holds while it is under way.
#[derive(Debug)]
pub struct Hold {
    /// What is reserved.
    pub lease: Lease,
    /// In what, claim by claim, and what it counts at least where nobody tells what was used: under a strict limit, all that
    /// is reserved.
    pub claims: Vec<(Unit, u64)>,
}

impl Hold {
    /// What was really used, claim by claim.
    #[must_use]
    pub fn actual(&self, usage: Option<&Usage>, cost: Option<Nanodollars>) -> Vec<u64> {
        let usage = usage.copied().unwrap_or_default();
        let used = |unit| match unit {
            Unit::Requests => 1,
            Unit::Concurrent => 0,
            Unit::Tokens => usage.total(),
            Unit::PromptTokens => usage.prompt(),
            Unit::CompletionTokens => usage.completion(),
            Unit::Nanodollars => cost.unwrap_or_default().0,
        };
        let untold = |least: u64| if usage.estimated { least } else { 0 };
        self.claims.iter().map(|&(unit, least)| used(unit).max(untold(least))).collect()
    }
}

/// What a request may use at worst, or about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Estimate {
    /// Tokens of the prompt.
    pub prompt: u64,
    /// Tokens of the answer.
    pub completion: u64,
    /// Billionths of a dollar.
    pub cost: u64,
}

/// How many tokens a request may have, and which of them may be sound: that has prices of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Tokens of the prompt.
    pub prompt: u64,
    /// How many of them are sound.
    pub heard: u64,
    /// Tokens of the answer.
    pub completion: u64,
    /// Whether the answer may be spoken.
    pub spoken: bool,
}

impl Estimate {
    /// What a request of about so many tokens uses, at the price that each of them likely has, if prices are known.
    #[must_use]
    pub fn likely(tokens: Tokens, price: Option<&Model>) -> Self {
        let Tokens { prompt, heard, completion, spoken } = tokens;
        let heard = heard.min(prompt);
        let cost = |price: &Model| {
            let (output, output_audio) = if spoken { (0, completion) } else { (completion, 0) };
            let said = Usage { input_audio: heard, output, output_audio, ..Usage::default() };
            // What is written to a cache costs more than what is not: the dearest way the prompt can be counted.
            let plain = Usage { input: prompt - heard, ..said };
            let written = Usage { cache_write_1h: prompt - heard, ..said };
            price.cost(&plain, false).max(price.cost(&written, false)).0
        };
        Estimate { prompt, completion, cost: price.map_or(0, cost) }
    }

    /// What a request of at most so many tokens uses, at the dearest price that any of them can have.
    #[must_use]
    pub fn at_worst(tokens: Tokens, price: Option<&Model>) -> Self {
        let Tokens { prompt, heard, completion, spoken } = tokens;
        Estimate { prompt, completion, cost: price.map_or(0, |price| price.dearest(prompt, completion, heard > 0, spoken).0) }
    }

    /// Of each the larger.
    #[must_use]
    pub fn or_more(self, other: Self) -> Self {
        Estimate { prompt: self.prompt.max(other.prompt), completion: self.completion.max(other.completion), cost: self.cost.max(other.cost) }
    }

    /// How much of a unit it is.
    #[must_use]
    pub fn of(&self, unit: Unit) -> u64 {
        match unit {
            Unit::Requests | Unit::Concurrent => 1,
            Unit::Tokens => self.prompt.saturating_add(self.completion),
            Unit::PromptTokens => self.prompt,
            Unit::CompletionTokens => self.completion,
            Unit::Nanodollars => self.cost,
        }
    }
}

/// Compiles the limits that hold for a consumer: the consumer's own, and those of the groups.
#[must_use]
pub fn limits_of(name: &str, config: &Config) -> (Vec<LimitRule>, Vec<Problem>) {
    let mut rules = Vec::new();
    let mut problems = Vec::new();
    let Some(consumer) = config.consumers.get(name) else { return (rules, problems) };
    let wrong = consumer.limits.iter().enumerate().filter(|(_, limit)| limit.each == Some(Each::Group));
    problems.extend(wrong.map(|(i, _)| Problem::new(format!("consumers.{name}.limits[{i}].each"), "is for limits of groups")));
    let own = |_: &Limit| (format!("consumer:{name}"), format!("consumer {name}"));
    compile_all(&consumer.limits, &format!("consumers.{name}.limits"), own, &mut rules, &mut problems);
    for group in &consumer.groups {
        let Some(rule) = config.groups.get(group) else { continue };
        let whose = |limit: &Limit| match limit.each.unwrap_or(Each::Consumer) {
            Each::Consumer => (format!("group:{group}/consumer:{name}"), format!("each member of group {group}")),
            Each::Group => (format!("group:{group}"), format!("group {group}")),
        };
        compile_all(&rule.limits, &format!("groups.{group}.limits"), whose, &mut rules, &mut problems);
    }
    (rules, problems)
}

/// Compiles a list of limits; `whose` says who holds the purse of each, and how that is told.
fn compile_all(limits: &[Limit], path: &str, whose: impl Fn(&Limit) -> (String, String), rules: &mut Vec<LimitRule>, problems: &mut Vec<Problem>) {
    let mut seen: Vec<(usize, Arc<str>)> = Vec::new();
    for (i, limit) in limits.iter().enumerate() {
        let (holder, told) = whose(limit);
        match compile(limit, &holder, &told) {
            Err(message) => problems.push(Problem::new(format!("{path}[{i}]"), message)),
            Ok(rule) => {
                if let Some((first, _)) = seen.iter().find(|(_, key)| *key == rule.purse.key) {
                    // Both would claim from it, and each request would count twice.
                    let message = format!("counts the same as limits[{first}] over the same time, in one purse; only the smaller of the two can matter, so leave the other out");
                    problems.push(Problem::new(format!("{path}[{i}]"), message));
                }
                seen.push((i, rule.purse.key.clone()));
                rules.push(rule);
            }
        }
    }
}

fn compile(limit: &Limit, holder: &str, whose: &str) -> Result<LimitRule, String> {
    let counts = [
        (Unit::Requests, "requests", limit.requests),
        (Unit::Tokens, "tokens", limit.tokens),
        (Unit::PromptTokens, "prompt tokens", limit.prompt_tokens),
        (Unit::CompletionTokens, "completion tokens", limit.completion_tokens),
        (Unit::Concurrent, "requests at the same time", limit.concurrent),
    ];
    let mut found: Vec<(Unit, &str, u64, String)> = counts.into_iter().filter_map(|(unit, what, n)| n.map(|n| (unit, what, n.0, n.0.to_string()))).collect();
    if let Some(dollars) = &limit.dollars {
        let nano = nanodollars(&dollars.to_string()).ok_or_else(|| format!("`dollars: {dollars}` must be an amount of at most nine decimals"))?;
        found.push((Unit::Nanodollars, "dollars", nano, dollars.to_string()));
    }
    let [(unit, what, cap, shown)] = found.as_slice() else {
        return Err("needs exactly one of requests, tokens, prompt_tokens, completion_tokens, dollars and concurrent; write several limits for several".into());
    };
    let (window, length) = match (unit, limit.per) {
        (Unit::Concurrent, None) => (Window::None, String::new()),
        (Unit::Concurrent, Some(_)) => return Err("`concurrent` has no `per`: it counts at every moment".into()),
        (_, None) => return Err("needs `per`, such as `per: 1h`".into()),
        (_, Some(per)) if per.0 < Duration::from_secs(1) => return Err("`per` must be at least 1s".into()),
        (_, Some(per)) => (window(limit, per.0)?, format!(" per {}", spoken(per.0))),
    };
    let kind = match &window {
        // Whole seconds have always been written so, and purses are found by this name over restarts.
        Window::Sliding(d) if d.subsec_nanos() == 0 => format!("sliding:{}", d.as_secs()),
        Window::Sliding(d) => format!("sliding:{}", d.as_secs_f64()),
        Window::Fixed(calendar, _) => format!("fixed:{calendar:?}:{}", limit.zone.as_deref().unwrap_or("UTC")),
        Window::None => "now".to_owned(),
    };
    let models = if limit.models.is_empty() { "*".to_owned() } else { limit.models.join(",") };
    let key = format!("{holder}|{unit:?}|{kind}|{models}").into();
    let about = if limit.models.is_empty() { String::new() } else { format!(" for {models}") };
    let label = format!("{shown} {what}{length}{about}, of {whose}");
    Ok(LimitRule { purse: Arc::new(Purse { key, unit: *unit, cap: *cap, window }), label, models: limit.models.clone(), strict: limit.strict })
}

fn window(limit: &Limit, per: Duration) -> Result<Window, String> {
    if limit.window == WindowKind::Sliding {
        return if limit.zone.is_some() { Err("`zone` is for `window: fixed`".into()) } else { Ok(Window::Sliding(per)) };
    }
    let zone = match limit.zone.as_deref() {
        None => Zone::UTC,
        Some(name) => Zone::named(name).ok_or_else(|| format!("`zone: {name}` is not a time zone such as Europe/Zurich"))?,
    };
    let calendar = match per.as_secs() {
        3600 => Calendar::Hour,
        86_400 => Calendar::Day,
        604_800 => Calendar::Week,
        // The calendar's month, however one counts its days.
        s if (28 * 86_400..=31 * 86_400).contains(&s) => Calendar::Month,
        _ => Calendar::Every(per),
    };
    Ok(Window::Fixed(calendar, zone))
}

/// Billionths of a dollar, from the digits as they are written (`0.05`, `5e-2`): a float would not be exact. Anything finer than
/// a billionth is no amount.
#[must_use]
pub fn nanodollars(text: &str) -> Option<u64> {
    let (number, exponent) = match text.split_once(['e', 'E']) {
        None => (text, 0),
        Some((number, exponent)) => (number, exponent.parse::<i32>().ok().filter(|e| (-30..=30).contains(e))?),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    if whole.is_empty() || digits.len() > 40 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    // The number is its digits times ten to this, in billionths.
    let shift = exponent - i32::try_from(fraction.len()).ok()? + 9;
    let value: u128 = digits.parse().ok()?;
    let power = 10_u128.checked_pow(shift.unsigned_abs())?;
    let nano = if shift >= 0 { value.checked_mul(power)? } else { value.is_multiple_of(power).then(|| value / power)? };
    u64::try_from(nano).ok()
}

/// An amount as people are told it: dollars as a decimal number, the rest as it is counted.
#[must_use]
pub fn told(unit: Unit, amount: u64) -> serde_json::Number {
    match unit {
        Unit::Nanodollars => serde_json::from_str(&Nanodollars(amount).to_string()).unwrap_or_else(|_| 0.into()),
        _ => amount.into(),
    }
}

/// A duration in the words of the configuration.
#[must_use]
pub fn spoken(d: Duration) -> String {
    let s = d.as_secs();
    match s {
        _ if s == 0 || d.subsec_millis() != 0 => format!("{}ms", d.as_millis()),
        s if s % 86_400 == 0 => format!("{}d", s / 86_400),
        s if s % 3600 == 0 => format!("{}h", s / 3600),
        s if s % 60 == 0 => format!("{}m", s / 60),
        s => format!("{s}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(text: &str) -> (Vec<LimitRule>, Vec<String>) {
        let config = crate::config::from_text(text, &|_| None).unwrap();
        let (rules, problems) = limits_of("a", &config);
        (rules, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn limits_of_a_consumer_are_its_own_and_its_groups() {
        let (rules, problems) = limits(
            "consumers: { a: { groups: [g], limits: [{ concurrent: 2 }] } }\ngroups: { g: { limits: [{ requests: 60, per: 1m }, { dollars: 25.5, per: 1d, each: group, models: [\"gpt-*\"], window: fixed, zone: Europe/Zurich }] } }",
        );
        assert!(problems.is_empty(), "{problems:?}");
        let keys: Vec<&str> = rules.iter().map(|r| &*r.purse.key).collect();
        assert_eq!(keys, ["consumer:a|Concurrent|now|*", "group:g/consumer:a|Requests|sliding:60|*", "group:g|Nanodollars|fixed:Day:Europe/Zurich|gpt-*"]);
        assert_eq!(rules[2].purse.cap, 25_500_000_000);
        assert!(rules[2].covers("gpt-4o") && !rules[2].covers("chat") && rules[0].covers("chat"));
        assert_eq!(rules[1].label, "60 requests per 1m, of each member of group g");
    }

    #[test]
    fn limits_that_make_no_sense_are_problems() {
        for (limit, part) in [
            ("{ per: 1h }", "exactly one"),
            ("{ requests: 1, tokens: 2, per: 1h }", "exactly one"),
            ("{ requests: 1 }", "needs `per`"),
            ("{ concurrent: 1, per: 1h }", "has no `per`"),
            ("{ dollars: -1, per: 1h }", "dollars: -1"),
            ("{ requests: 1, per: 1d, window: fixed, zone: Nowhere }", "time zone"),
            ("{ requests: 1, per: 1d, zone: UTC }", "window: fixed"),
            ("{ requests: 1, per: 1d, each: group }", "limits of groups"),
        ] {
            let (_, problems) = limits(&format!("consumers: {{ a: {{ limits: [{limit}] }} }}"));
            assert!(problems.first().is_some_and(|p| p.contains(part)), "{limit}: {problems:?}");
        }
    }

    #[test]
    fn two_limits_have_two_purses_or_are_refused() {
        let of = |list: &str| {
            let (rules, problems) = limits(&format!("consumers: {{ a: {{ limits: [{list}] }} }}"));
            (rules.iter().map(|r| r.purse.key.to_string()).collect::<Vec<_>>(), problems)
        };
        for list in [
            "{ requests: 10, per: 1h }, { requests: 20, per: 1h }",
            "{ tokens: 10, per: 1h }, { tokens: 10, per: 60m, strict: true }",
            "{ dollars: 1, per: 28d, window: fixed }, { dollars: 2, per: 31d, window: fixed, zone: UTC }",
            "{ concurrent: 1 }, { concurrent: 2 }",
        ] {
            let (_, problems) = of(list);
            assert!(problems.len() == 1 && problems[0].starts_with("consumers.a.limits[1]: counts the same as limits[0]"), "{list}: {problems:?}");
        }
        let (keys, problems) = of("{ requests: 1, per: 1s }, { requests: 2, per: 1500ms }, { requests: 3, per: 1h }, { requests: 4, per: 1h, window: fixed }, { requests: 5, per: 1h, models: [m] }");
        assert!(problems.is_empty(), "{problems:?}");
        assert_eq!((&*keys[0], &*keys[1]), ("consumer:a|Requests|sliding:1|*", "consumer:a|Requests|sliding:1.5|*"));
        assert_eq!((spoken(Duration::from_millis(1500)), spoken(Duration::from_secs(90))), ("1500ms".to_owned(), "90s".to_owned()));
    }

    #[test]
    fn money_is_exact() {
        assert_eq!(nanodollars("0.1"), Some(100_000_000));
        assert_eq!(nanodollars("25"), Some(25_000_000_000));
        assert_eq!(nanodollars("0.0000000001"), None);
        assert_eq!(nanodollars("-1"), None);
        for (text, nano) in [("1e-6", 1000), ("5E-2", 50_000_000), ("0.10", 100_000_000), ("1.5e1", 15_000_000_000), ("0", 0), ("1.0000000000", 1_000_000_000)] {
            assert_eq!(nanodollars(text), Some(nano), "{text}");
        }
        for text in ["", ".", ".5", "1e", "1e-10", "1e40", "99999999999999999999", "0x1", "1_0", "NaN"] {
            assert_eq!(nanodollars(text), None, "{text}");
        }
    }

    #[test]
    fn an_estimate_takes_the_dearest_target() {
        let cheap = Model { input: 1.0, output: 2.0, ..Model::default() };
        let dear = Model { input: 10.0, output: 20.0, cache_write: Some(12.5), ..Model::default() };
        let tokens = Tokens { prompt: 1000, completion: 100, ..Tokens::default() };
        for estimate in [Estimate::likely, Estimate::at_worst] {
            let e = [Some(&cheap), Some(&dear), None].into_iter().map(|price| estimate(tokens, price)).fold(Estimate::default(), Estimate::or_more);
            assert_eq!((e.of(Unit::Tokens), e.of(Unit::Requests), e.cost), (1100, 1, 14_500_000));
        }
    }

    #[test]
    fn sound_and_thought_have_prices_of_their_own() {
        let model = Model { input: 1.0, output: 10.0, input_audio: Some(40.0), output_audio: Some(80.0), reasoning: Some(20.0), ..Model::default() };
        let costs = |tokens| (Estimate::likely(tokens, Some(&model)).cost, Estimate::at_worst(tokens, Some(&model)).cost);
        assert_eq!(costs(Tokens { prompt: 1000, completion: 1000, ..Tokens::default() }), (11_000_000, 21_000_000));
        assert_eq!(costs(Tokens { prompt: 1000, heard: 100, ..Tokens::default() }), (4_900_000, 40_000_000));
        assert_eq!(costs(Tokens { completion: 1000, spoken: true, ..Tokens::default() }), (80_000_000, 80_000_000));
    }
}
