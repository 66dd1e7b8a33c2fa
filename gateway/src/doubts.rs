//! What a configuration may say and hardly means: prices that nothing uses, models that nobody has, names that fit nothing. None
//! of it stops a gateway; `check` tells it, and so does the log when rules come into force.

use crate::config::{Config, Limit, Problem, UnknownPrice};
use crate::principal::{ANONYMOUS, matches};
use crate::rules::{Rules, TargetRule};

/// All that is doubtful, with its path.
#[must_use]
pub fn doubts(rules: &Rules) -> Vec<Problem> {
    let config = &rules.config;
    let mut doubts = Vec::new();
    let targets: Vec<&TargetRule> = rules.names().into_iter().filter_map(|name| rules.named(name)).flat_map(|m| m.targets.iter().chain(&m.fallback)).collect();
    for name in config.prices.keys() {
        if !targets.iter().any(|t| matches(&t.name, name)) {
            doubts.push(Problem::new(format!("prices.{name}"), "no model goes there, so nothing costs this"));
        }
    }
    unknown_prices(config, &targets, &mut doubts);
    anonymous(rules, &mut doubts);
    let names = rules.names();
    let mut patterns = |path: String, list: &[String]| {
        for (i, pattern) in list.iter().enumerate() {
            // A pattern may also fit what a model's own `*` takes in.
            let fits = |name: &&str| matches(pattern, name) || matches(name, pattern) || name.contains('*') && pattern.contains('*');
            if !names.iter().any(fits) {
                doubts.push(Problem::new(format!("{path}[{i}]"), format!("no model is called {pattern:?}; there are: {}", names.join(", "))));
            }
        }
    };
    for (name, consumer) in &config.consumers {
        patterns(format!("consumers.{name}.models"), &consumer.models);
        limits(&format!("consumers.{name}"), &consumer.limits, &mut patterns);
    }
    for (name, group) in &config.groups {
        patterns(format!("groups.{name}.models"), &group.models);
        limits(&format!("groups.{name}"), &group.limits, &mut patterns);
    }
    doubts
}

/// Requests without a key: what is said of them and does nothing, and what is not said and lets limits be gone around.
fn anonymous(rules: &Rules, doubts: &mut Vec<Problem>) {
    let config = &rules.config;
    let (said, open) = (config.consumers.contains_key(ANONYMOUS), rules.principals.open());
    if said && !open {
        doubts.push(Problem::new(format!("consumers.{ANONYMOUS}"), "nobody comes in as it: requests without a key are not served here, unless `auth: { anonymous: true }` says so"));
    }
    if open && !said && rules.principals.iter().any(|p| !p.limits.is_empty() || p.is_restricted()) {
        doubts.push(Problem::new("auth.anonymous", format!("who has used up a key can leave it out: requests without one have no limits, unless `consumers.{ANONYMOUS}` gives them some")));
    }
}

fn limits(path: &str, limits: &[Limit], patterns: &mut impl FnMut(String, &[String])) {
    for (i, limit) in limits.iter().enumerate() {
        patterns(format!("{path}.limits[{i}].models"), &limit.models);
    }
}

/// Models that who has a limit of dollars is refused, because their price is not known.
fn unknown_prices(config: &Config, targets: &[&TargetRule], doubts: &mut Vec<Problem>) {
    let limits = config.consumers.values().flat_map(|c| &c.limits).chain(config.groups.values().flat_map(|g| &g.limits));
    if config.unknown_price != UnknownPrice::Deny || !limits.into_iter().any(|limit| limit.dollars.is_some()) {
        return;
    }
    let unknown = |t: &&&TargetRule| !t.provider.base_url.is_empty() && !t.model.contains('*') && t.price.is_none();
    let mut told: Vec<&str> = targets.iter().filter(unknown).map(|t| &*t.name).collect();
    told.sort_unstable();
    told.dedup();
    doubts.extend(told.into_iter().map(|name| {
        Problem::new(
            "prices",
            format!("{name} has none that is known here: consumers with a limit of dollars are refused (0 for what is free, the `kind/model` that it is, or `unknown_price: allow`)"),
        )
    }));
}

#[cfg(test)]
mod tests {
    use crate::counters::{Counters, Memory};
    use crate::ledger::Ledger;
    use crate::state::State;

    use super::*;

    fn told(yaml: &str) -> Vec<String> {
        let config = crate::config::from_text(yaml, &|_| None).unwrap();
        let state = State::new(Ledger::start().unwrap(), Counters::Memory(Memory::volatile()), std::sync::Arc::default()).unwrap();
        doubts(&Rules::build(&config, &state).unwrap()).iter().map(ToString::to_string).collect()
    }

    const PROVIDERS: &str = "providers: { oai: { kind: openai, api_key: sk-of-nobody }, demo: { kind: echo } }\n";

    #[test]
    fn prices_and_names_that_fit_nothing_are_told() {
        let found = told(&format!(
            "{PROVIDERS}models: {{ gpt: oai/gpt-4o-mni, \"free-*\": \"demo/*\" }}\nprices: {{ oai/gpt-4o-min: {{ input: 1, output: 2 }} }}\n\
             consumers: {{ alice: {{ keys: [key-of-alice], groups: [g], models: [gpt, \"free-x\", chta] }} }}\ngroups: {{ g: {{ limits: [{{ dollars: 5, per: 1d, models: [nonesuch] }}] }} }}\n"
        ));
        for (path, part) in
            [("prices.oai/gpt-4o-min: ", "no model goes there"), ("prices: ", "oai/gpt-4o-mni has none"), ("consumers.alice.models[2]: ", "chta"), ("groups.g.limits[0].models[0]: ", "nonesuch")]
        {
            assert!(found.iter().any(|f| f.starts_with(path) && f.contains(part)), "{path}: {found:?}");
        }
        assert_eq!(found.len(), 4, "{found:?}");
    }

    #[test]
    fn requests_without_a_key_are_thought_of() {
        let limited = "alice: { keys: [key-of-alice], limits: [{ requests: 1, per: 1h }] }";
        for (rest, path) in [
            (format!("consumers: {{ {limited} }}\nauth: {{ anonymous: true }}\n"), Some("auth.anonymous: ")),
            (format!("consumers: {{ {limited}, anonymous: {{ limits: [{{ requests: 1, per: 1h }}] }} }}\nauth: {{ anonymous: true }}\n"), None),
            (format!("consumers: {{ {limited}, anonymous: {{}} }}\n"), Some("consumers.anonymous: ")),
            ("consumers: { anonymous: { limits: [{ requests: 1, per: 1h }] } }\n".to_owned(), None),
        ] {
            let found = told(&format!("{PROVIDERS}models: {{ gpt: oai/gpt-4o }}\n{rest}"));
            assert!(found.len() == usize::from(path.is_some()) && found.first().is_none_or(|f| f.starts_with(path.unwrap_or_default())), "{rest}: {found:?}");
        }
    }

    #[test]
    fn what_is_meant_is_not_doubted() {
        let found = told(&format!(
            "{PROVIDERS}models: {{ gpt: oai/gpt-4o, \"o-*\": \"oai/*\" }}\nprices: {{ oai/other: {{ input: 1, output: 2 }} }}\n\
             consumers: {{ alice: {{ keys: [key-of-alice], models: [\"gpt\", \"o-1*\"], limits: [{{ dollars: 5, per: 1d, models: [\"o-*\"] }}] }} }}\n"
        ));
        assert!(found.is_empty(), "{found:?}");
    }
}
