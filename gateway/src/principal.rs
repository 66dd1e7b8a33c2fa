//! Who may come in: consumers by the hash of their key, their groups, and the models that they may use.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, header};
use sha2::{Digest, Sha256};

use crate::config::{Config, KeyEntry, Problem};
use crate::keyring::Keyring;
use crate::purse::{LimitRule, limits_of};

/// Somebody who has come in.
#[derive(Debug)]
pub struct Principal {
    /// The consumer's name; `anonymous` for who has none.
    pub name: Arc<str>,
    /// Groups, as the ledger and the limits name them.
    pub groups: Vec<Arc<str>>,
    /// What it may spend.
    pub limits: Vec<LimitRule>,
    /// Patterns of the consumer's own.
    models: Vec<String>,
    /// Patterns of the groups together; `None` where one of them allows all.
    group_models: Option<Vec<String>>,
}

/// Everyone, by key.
#[derive(Debug, Default)]
pub struct Principals {
    keys: HashMap<[u8; 32], KeyRule>,
    /// Keys made at run time: asked for what the configuration does not know.
    pub(crate) made: Arc<Keyring>,
    by_name: BTreeMap<String, Arc<Principal>>,
    anonymous: Option<Arc<Principal>>,
}

#[derive(Debug)]
struct KeyRule {
    principal: Arc<Principal>,
    /// Seconds since 1970.
    expires: Option<u64>,
}

/// Who may use a model.
#[derive(Debug, Default)]
pub struct Access {
    allow: Vec<Subject>,
    deny: Vec<Subject>,
}

#[derive(Debug, PartialEq, Eq)]
enum Subject {
    Consumer(String),
    Group(String),
}

/// Why nobody came in. Told in the same words and the same time, whatever it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stranger {
    /// No key was shown.
    NoKey,
    /// The key is unknown.
    Unknown,
    /// The key has ended.
    Expired,
}

impl Principals {
    /// Compiles consumers and groups. `open` says whether who shows no key is served.
    #[must_use]
    pub fn build(config: &Config, open: bool) -> (Self, Vec<Problem>) {
        let mut all = Principals::default();
        let mut problems = Vec::new();
        let mut owners: HashMap<[u8; 32], String> = HashMap::new();
        for (name, consumer) in &config.consumers {
            let path = format!("consumers.{name}");
            let mut group_models = Some(Vec::new());
            for (i, group) in consumer.groups.iter().enumerate() {
                match config.groups.get(group) {
                    None => {
                        let known: Vec<&str> = config.groups.keys().map(String::as_str).collect();
                        problems.push(Problem::new(format!("{path}.groups[{i}]"), format!("no group \"{group}\"; known: {}", if known.is_empty() { "none".to_owned() } else { known.join(", ") })));
                    }
                    Some(group) if group.models.is_empty() => group_models = None,
                    Some(group) => group_models.iter_mut().for_each(|m| m.extend(group.models.iter().cloned())),
                }
            }
            if consumer.groups.is_empty() {
                group_models = None;
            }
            let (limits, limit_problems) = limits_of(name, config);
            problems.extend(limit_problems);
            let principal =
                Arc::new(Principal { limits, name: name.as_str().into(), groups: consumer.groups.iter().map(|g| g.as_str().into()).collect(), models: consumer.models.clone(), group_models });
            all.by_name.insert(name.clone(), principal.clone());
            for (i, key) in consumer.keys.iter().enumerate() {
                match read_key(key) {
                    Err(message) => problems.push(Problem::new(format!("{path}.keys[{i}]"), message)),
                    Ok((hash, expires)) => match owners.insert(hash, name.clone()) {
                        Some(other) => problems.push(Problem::new(format!("{path}.keys[{i}]"), format!("is the key of {other} too; a key says who one is"))),
                        None => {
                            all.keys.insert(hash, KeyRule { principal: principal.clone(), expires });
                        }
                    },
                }
            }
        }
        if open {
            all.anonymous = Some(Arc::new(Principal { name: "anonymous".into(), groups: Vec::new(), limits: Vec::new(), models: Vec::new(), group_models: None }));
        }
        (all, problems)
    }

    /// Who shows these headers.
    ///
    /// # Errors
    /// When it is a stranger.
    pub fn find(&self, headers: &HeaderMap, now: Duration) -> Result<Arc<Principal>, Stranger> {
        let Some(key) = shown_key(headers) else { return self.anonymous.clone().ok_or(Stranger::NoKey) };
        // Looked up by its hash: how long that takes says nothing about any key, known or not.
        let hash: [u8; 32] = Sha256::digest(key.as_bytes()).into();
        let found = match self.keys.get(&hash) {
            None => self.made.find(&hash, now).and_then(|name| self.by_name.get(&*name).cloned().ok_or(Stranger::Unknown)),
            Some(rule) if rule.expires.is_some_and(|end| now.as_secs() >= end) => Err(Stranger::Expired),
            Some(rule) => Ok(rule.principal.clone()),
        };
        match (found, &self.anonymous) {
            // SDKs insist on some key; where the configuration names none, any that means nothing is as good as none.
            (Err(Stranger::Unknown), Some(anonymous)) if self.keys.is_empty() => Ok(anonymous.clone()),
            (found, _) => found,
        }
    }

    /// Everyone, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Principal>> {
        self.by_name.values()
    }

    /// Whether who shows no key is served.
    #[must_use]
    pub fn open(&self) -> bool {
        self.anonymous.is_some()
    }
}

/// The key that a client shows, wherever its SDK puts it.
fn shown_key(headers: &HeaderMap) -> Option<&str> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(str::trim).filter(|v| !v.is_empty());
    let bearer = text(header::AUTHORIZATION.as_str()).and_then(|v| v.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, key)| key.trim());
    bearer.or_else(|| ["x-api-key", "api-key", "x-goog-api-key"].into_iter().find_map(text)).filter(|k| !k.is_empty())
}

fn read_key(entry: &KeyEntry) -> Result<([u8; 32], Option<u64>), String> {
    let (plain, hash, expires) = match entry {
        KeyEntry::Plain(key) => (Some(key), None, None),
        KeyEntry::Long(key) => (key.key.as_ref(), key.sha256.as_deref(), key.expires.as_deref()),
    };
    let hash = match (plain, hash) {
        (Some(key), None) if key.expose().trim().len() >= 8 => Sha256::digest(key.expose().trim().as_bytes()).into(),
        (Some(_), None) => return Err("is too short to be a key: at least 8 characters".into()),
        (None, Some(hex)) => unhex(hex).ok_or("`sha256` must be 64 hex digits")?,
        _ => return Err("needs either the key or its `sha256`".into()),
    };
    let expires = expires.map(|text| day_or_time(text).ok_or(format!("`expires` must be like 2027-01-31 or 2027-01-31T12:00:00Z, not {text:?}"))).transpose()?;
    Ok((hash, expires))
}

/// The bytes of a hash in hex digits.
pub(crate) fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    (digits.len() == 64).then(|| bytes.try_into().ok())?
}

/// Hex digits of a key's hash: what stands in a configuration.
#[must_use]
pub fn hash_hex(key: &str) -> String {
    Sha256::digest(key.as_bytes()).iter().map(|b| format!("{b:02x}")).collect()
}

/// Seconds since 1970 of a day, or of a moment in UTC.
pub(crate) fn day_or_time(text: &str) -> Option<u64> {
    let (day, time) = text.split_once('T').map_or((text, None), |(d, t)| (d, Some(t)));
    let mut parts = day.splitn(3, '-').map(|p| p.parse::<i64>().ok());
    let (year, month, date) = (parts.next()??, parts.next()??, parts.next()??);
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&date) {
        return None;
    }
    // Days since 1970 of a date in the Gregorian calendar, counted from March so that the leap day comes last.
    let (y, m) = if month <= 2 { (year - 1, month + 9) } else { (year, month - 3) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + date - 1 - 719_468;
    let seconds = match time {
        None => 0,
        Some(time) => {
            let mut parts = time.strip_suffix('Z')?.splitn(3, ':').map(|p| p.parse::<i64>().ok());
            let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
            ((0..24).contains(&hours) && (0..60).contains(&minutes) && (0..60).contains(&seconds)).then_some(hours * 3600 + minutes * 60 + seconds)?
        }
    };
    u64::try_from(days * 86_400 + seconds).ok()
}

impl Principal {
    /// Whether a model may be used by this name, as far as the consumer and the groups say.
    #[must_use]
    pub fn may_use(&self, model: &str) -> bool {
        let allows = |patterns: &[String]| patterns.iter().any(|p| matches(p, model));
        (self.models.is_empty() || allows(&self.models)) && self.group_models.as_deref().is_none_or(allows)
    }

    fn is(&self, subject: &Subject) -> bool {
        match subject {
            Subject::Consumer(name) => **name == *self.name,
            Subject::Group(name) => self.groups.iter().any(|g| **g == **name),
        }
    }
}

impl Access {
    /// Compiles `allow` and `deny` of a model.
    #[must_use]
    pub fn build(path: &str, allow: &[String], deny: &[String], config: &Config) -> (Self, Vec<Problem>) {
        let mut problems = Vec::new();
        let mut list = |name: &str, entries: &[String]| {
            let mut subjects = Vec::new();
            for (i, entry) in entries.iter().enumerate() {
                let (known, what, subject) = match entry.strip_prefix("group:") {
                    Some(group) => (config.groups.contains_key(group), "group", Subject::Group(group.to_owned())),
                    None => (config.consumers.contains_key(entry), "consumer", Subject::Consumer(entry.clone())),
                };
                if !known {
                    problems.push(Problem::new(format!("{path}.{name}[{i}]"), format!("no {what} \"{}\" is configured", entry.trim_start_matches("group:"))));
                }
                subjects.push(subject);
            }
            subjects
        };
        let access = Access { allow: list("allow", allow), deny: list("deny", deny) };
        (access, problems)
    }

    /// Whether somebody may use the model: who is denied may not, and where some are allowed, nobody else may.
    #[must_use]
    pub fn admits(&self, principal: &Principal) -> bool {
        !self.deny.iter().any(|s| principal.is(s)) && (self.allow.is_empty() || self.allow.iter().any(|s| principal.is(s)))
    }
}

/// Whether a pattern with at most one `*` matches a name.
#[must_use]
pub fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, after)) => name.len() >= before.len() + after.len() && name.starts_with(before) && name.ends_with(after),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        crate::config::from_text(text, &|_| None).unwrap()
    }

    fn headers(name: &str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        headers
    }

    const YAML: &str = "
consumers:
  alice: { keys: [alice-key-1, { key: alice-key-2, expires: 2020-01-01 }], groups: [research] }
  bob: { keys: [{ sha256: \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }], models: [\"gpt-*\"] }
groups:
  research: { models: [chat, \"claude-*\"] }
";

    #[test]
    fn keys_are_found_wherever_an_sdk_puts_them() {
        let (all, problems) = Principals::build(&config(YAML), false);
        assert!(problems.is_empty(), "{problems:?}");
        let now = Duration::from_secs(1_800_000_000);
        for (name, value) in
            [("authorization", "Bearer alice-key-1"), ("authorization", "bearer  alice-key-1"), ("x-api-key", "alice-key-1"), ("api-key", "alice-key-1"), ("x-goog-api-key", "alice-key-1")]
        {
            assert_eq!(&*all.find(&headers(name, value), now).unwrap().name, "alice", "{name}");
        }
        assert_eq!(&*all.find(&headers("x-api-key", "test"), now).unwrap().name, "bob");
        assert_eq!(all.find(&headers("x-api-key", "nope"), now).unwrap_err(), Stranger::Unknown);
        assert_eq!(all.find(&headers("x-api-key", "alice-key-2"), now).unwrap_err(), Stranger::Expired);
        assert_eq!(all.find(&HeaderMap::new(), now).unwrap_err(), Stranger::NoKey);
        assert_eq!(all.find(&headers("authorization", "Basic alice-key-1"), now).unwrap_err(), Stranger::NoKey);
    }

    #[test]
    fn models_are_those_of_the_groups_and_of_the_consumer() {
        let (all, _) = Principals::build(&config(YAML), true);
        let alice = &all.by_name["alice"];
        assert!(alice.may_use("chat") && alice.may_use("claude-x") && !alice.may_use("gpt-4o"));
        let bob = &all.by_name["bob"];
        assert!(bob.may_use("gpt-4o") && !bob.may_use("chat"));
        let (access, problems) = Access::build("models.m", &["group:research".into()], &["alice".into()], &config(YAML));
        assert!(problems.is_empty() && !access.admits(alice) && !access.admits(bob));
        let (access, problems) = Access::build("models.m", &["group:none".into()], &[], &config(YAML));
        assert!(problems.len() == 1 && !access.admits(alice));
    }

    #[test]
    fn two_consumers_with_one_key_and_unknown_groups_are_problems() {
        let (_, problems) = Principals::build(&config("consumers: { a: { keys: [same-key-x] }, b: { keys: [same-key-x, short, { sha256: zz }, {}], groups: [gone] } }"), false);
        assert_eq!(problems.len(), 5, "{problems:?}");
    }

    #[test]
    fn days_are_seconds() {
        assert_eq!(day_or_time("1970-01-01"), Some(0));
        assert_eq!(day_or_time("2026-11-21"), Some(1_795_219_200));
        assert_eq!(day_or_time("2000-02-29T23:59:59Z"), Some(951_868_799));
        assert_eq!(day_or_time("tomorrow"), None);
        assert_eq!(day_or_time("2026-13-01"), None);
    }
}
