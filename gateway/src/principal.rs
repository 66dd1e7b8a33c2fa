//! Who may come in: consumers by the hash of their key, by a certificate or as a token names them, their groups, and the
//! models that they may use.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, header};
use sha2::{Digest, Sha256};

use crate::certificate::{Name, Peer};
use crate::config::{Config, Consumer, Groups, KeyEntry, Problem};
use crate::keyring::Keyring;
use crate::purse::{LimitRule, limits_of};

/// The name of whoever has none.
pub const ANONYMOUS: &str = "anonymous";

/// SHA-256 of what a client shows: keys and tokens are known by it.
pub type Hash = [u8; 32];

/// Somebody who has come in.
#[derive(Debug)]
pub struct Principal {
    /// The consumer's name; `anonymous` for who has none.
    pub name: Arc<str>,
    /// Groups, as the ledger and the limits name them.
    pub groups: Arc<[Arc<str>]>,
    /// What it may spend.
    pub limits: Vec<LimitRule>,
    /// Whether it may use files and batches.
    pub files: bool,
    /// Patterns of the consumer's own.
    models: Vec<String>,
    /// Patterns of the groups together; `None` where one of them allows all.
    group_models: Option<Vec<String>>,
}

/// Everyone, by all that they are known by.
#[derive(Debug, Default)]
pub struct Principals {
    keys: HashMap<Hash, KeyRule>,
    certificates: HashMap<Name, Arc<Principal>>,
    /// Keys made at run time: asked for what the configuration does not know.
    pub(crate) made: Arc<Keyring>,
    by_name: BTreeMap<String, Arc<Principal>>,
    /// What members of groups may do, for those whom only a token names.
    groups: Groups,
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
    /// Compiles consumers and groups. `open` says whether who shows nothing is served.
    #[must_use]
    pub fn build(config: &Config, open: bool) -> (Self, Vec<Problem>) {
        let mut all = Principals { groups: config.groups.clone(), ..Principals::default() };
        let mut problems = Vec::new();
        for (name, consumer) in &config.consumers {
            let (principal, more) = Principal::build(name, consumer, config);
            problems.extend(more);
            let principal = Arc::new(principal);
            all.by_name.insert(name.clone(), principal.clone());
            all.place(consumer, &principal, config, &mut problems);
        }
        nameless(config, &mut problems);
        // A group whose members only tokens name is checked all the same: a limit that is not understood would not hold.
        for name in config.groups.keys().filter(|name| !config.consumers.values().any(|c| c.groups.contains(name))) {
            problems.extend(member("", vec![name.clone()], &config.groups).1);
        }
        if open {
            // Files are everybody's where there is only one: nobody is known by a key, and nobody else's machine can ask.
            let files = !config.knows_somebody() && config.on_loopback();
            let unrestricted = || Arc::new(Principal { name: ANONYMOUS.into(), groups: Arc::default(), limits: Vec::new(), files, models: Vec::new(), group_models: None });
            all.anonymous = Some(all.by_name.get(ANONYMOUS).cloned().unwrap_or_else(unrestricted));
        }
        // What is wrong with a group is found with each of its members.
        let mut told: Vec<Problem> = Vec::with_capacity(problems.len());
        for problem in problems {
            if !told.contains(&problem) {
                told.push(problem);
            }
        }
        (all, told)
    }

    /// Notes what a consumer is known by. Each key and each name in a certificate is one consumer's.
    fn place(&mut self, consumer: &Consumer, principal: &Arc<Principal>, config: &Config, problems: &mut Vec<Problem>) {
        let path = format!("consumers.{}", principal.name);
        let mut wrong = |list: &str, i: usize, message: String| problems.push(Problem::new(format!("{path}.{list}[{i}]"), message));
        for (i, key) in consumer.keys.iter().enumerate() {
            match read_key(key) {
                Err(message) => wrong("keys", i, message),
                Ok((hash, expires)) => match self.keys.get(&hash) {
                    Some(other) => wrong("keys", i, format!("is the key of {} too; a key says who one is", other.principal.name)),
                    None => {
                        self.keys.insert(hash, KeyRule { principal: principal.clone(), expires });
                    }
                },
            }
        }
        for (i, text) in consumer.certificates.iter().enumerate() {
            match Name::read(text) {
                Err(message) => wrong("certificates", i, message),
                Ok(name) => match self.certificates.get(&name) {
                    Some(other) => wrong("certificates", i, format!("is a certificate of {} too; a certificate says who one is", other.name)),
                    None => {
                        self.certificates.insert(name, principal.clone());
                    }
                },
            }
        }
        if !consumer.certificates.is_empty() && config.tls.as_ref().is_none_or(|tls| tls.client_ca.is_none()) {
            problems.push(Problem::new(format!("{path}.certificates"), "needs `tls.client_ca`: without it clients are not asked for a certificate"));
        }
    }

    /// Who shows a key of this hash, or this certificate, or nothing. A key that is shown decides alone.
    ///
    /// # Errors
    /// When it is a stranger.
    pub fn find(&self, key: Option<&Hash>, peer: Option<&Peer>, now: Duration) -> Result<Arc<Principal>, Stranger> {
        let other = || peer.and_then(|peer| peer.names().iter().find_map(|name| self.certificates.get(name))).or(self.anonymous.as_ref()).cloned();
        let Some(key) = key else { return other().ok_or(Stranger::NoKey) };
        // Looked up by its hash: how long that takes says nothing about any key, known or not.
        let found = match self.keys.get(key) {
            None => self.made.find(key, now).and_then(|name| self.by_name.get(&*name).filter(|p| !p.is_anonymous()).cloned().ok_or(Stranger::Unknown)),
            Some(rule) if rule.expires.is_some_and(|end| now.as_secs() >= end) => Err(Stranger::Expired),
            Some(rule) => Ok(rule.principal.clone()),
        };
        match found {
            // SDKs insist on some key; where the configuration names none, one that means nothing is as good as none.
            Err(Stranger::Unknown) if self.keys.is_empty() => other().ok_or(Stranger::Unknown),
            found => found,
        }
    }

    /// Who a token speaks of: the consumer of this name, or else a member of those groups that are configured, made for as
    /// long as the token is known. `None` for who is neither.
    #[must_use]
    pub fn known_as(&self, name: &str, groups: &[&str]) -> Option<Arc<Principal>> {
        if name == ANONYMOUS {
            return None;
        }
        if let Some(principal) = self.by_name.get(name) {
            return Some(principal.clone());
        }
        let mut known: Vec<String> = Vec::new();
        for group in groups {
            if self.groups.contains_key(*group) && !known.iter().any(|k| k == group) {
                known.push((*group).to_owned());
            }
        }
        let (principal, problems) = member(name, known, &self.groups);
        // Groups were checked when they were compiled; if one of their limits cannot be held, nobody comes in by it.
        (!principal.groups.is_empty() && problems.is_empty()).then(|| Arc::new(principal))
    }

    /// Everyone, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Principal>> {
        self.by_name.values()
    }

    /// Whether who shows nothing is served.
    #[must_use]
    pub fn open(&self) -> bool {
        self.anonymous.is_some()
    }

    /// What may be shown to come in: keys, certificates.
    #[must_use]
    pub fn takes(&self) -> (bool, bool) {
        (!self.keys.is_empty() || !self.made.is_empty(), !self.certificates.is_empty())
    }
}

/// What nobody has: whoever shows something is somebody.
fn nameless(config: &Config, problems: &mut Vec<Problem>) {
    let Some(anonymous) = config.consumers.get(ANONYMOUS) else { return };
    for (list, is_empty) in [("keys", anonymous.keys.is_empty()), ("certificates", anonymous.certificates.is_empty())] {
        if !is_empty {
            problems.push(Problem::new(format!("consumers.{ANONYMOUS}.{list}"), "this consumer stands for requests without a key or a certificate; give them to one of another name"));
        }
    }
}

/// A member of groups who has nothing else.
fn member(name: &str, groups: Vec<String>, all: &Groups) -> (Principal, Vec<Problem>) {
    let consumer = Consumer { groups, ..Consumer::default() };
    let groups = consumer.groups.iter().filter_map(|group| Some((group.clone(), all.get(group)?.clone()))).collect();
    let config = Config { groups, consumers: [(name.to_owned(), consumer.clone())].into(), ..Config::default() };
    Principal::build(name, &consumer, &config)
}

/// The key or token that a client shows, wherever its SDK puts it.
#[must_use]
pub fn shown_key(headers: &HeaderMap) -> Option<&str> {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(str::trim).filter(|v| !v.is_empty());
    let bearer = text(header::AUTHORIZATION.as_str()).and_then(|v| v.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, key)| key.trim());
    bearer.or_else(|| ["x-api-key", "api-key", "x-goog-api-key"].into_iter().find_map(text)).filter(|k| !k.is_empty())
}

fn read_key(entry: &KeyEntry) -> Result<(Hash, Option<u64>), String> {
    let (plain, hash, expires) = match entry {
        KeyEntry::Plain(key) => (Some(key), None, None),
        KeyEntry::Long(key) => (key.key.as_ref(), key.sha256.as_deref(), key.expires.as_deref()),
    };
    let hash = match (plain, hash) {
        (Some(key), None) if key.expose().trim().len() >= 8 => hash_of(key.expose().trim()),
        (Some(_), None) => return Err("is too short to be a key: at least 8 characters".into()),
        (None, Some(hex)) => unhex(hex).ok_or("`sha256` must be 64 hex digits")?,
        _ => return Err("needs either the key or its `sha256`".into()),
    };
    let expires = expires.map(|text| day_or_time(text).ok_or(format!("`expires` must be like 2027-01-31 or 2027-01-31T12:00:00Z, not {text:?}"))).transpose()?;
    Ok((hash, expires))
}

/// A hash from its 64 hex digits.
pub(crate) fn unhex(text: &str) -> Option<Hash> {
    let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    (digits.len() == 64).then(|| bytes.try_into().ok())?
}

/// The hash of a key or token.
#[must_use]
pub fn hash_of(key: &str) -> Hash {
    Sha256::digest(key.as_bytes()).into()
}

/// Hex digits of a key's hash: what stands in a configuration.
#[must_use]
pub fn hash_hex(key: &str) -> String {
    hash_of(key).iter().map(|b| format!("{b:02x}")).collect()
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
    /// Compiles a consumer, with the groups that it is a member of.
    fn build(name: &str, consumer: &Consumer, config: &Config) -> (Self, Vec<Problem>) {
        let mut problems = Vec::new();
        let mut group_models = Some(Vec::new());
        let mut files = consumer.files;
        for (i, group) in consumer.groups.iter().enumerate() {
            files |= config.groups.get(group).is_some_and(|group| group.files);
            if consumer.groups[..i].contains(group) {
                problems.push(Problem::new(format!("consumers.{name}.groups[{i}]"), format!("\"{group}\" stands here twice; once is enough")));
            }
            match config.groups.get(group) {
                None => {
                    let known: Vec<&str> = config.groups.keys().map(String::as_str).collect();
                    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                    problems.push(Problem::new(format!("consumers.{name}.groups[{i}]"), format!("no group \"{group}\"; known: {known}")));
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
        let groups = consumer.groups.iter().map(|g| g.as_str().into()).collect();
        (Principal { limits, name: name.into(), groups, files, models: consumer.models.clone(), group_models }, problems)
    }

    /// Whether it is nobody in particular.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        *self.name == *ANONYMOUS
    }

    /// Whether the consumer or the groups name the models that it may use.
    #[must_use]
    pub fn is_restricted(&self) -> bool {
        !self.models.is_empty() || self.group_models.is_some()
    }

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
        fn names<'a>(keys: impl Iterator<Item = &'a String>) -> Vec<&'a str> {
            keys.map(String::as_str).collect()
        }
        let mut problems = Vec::new();
        let mut list = |name: &str, entries: &[String]| {
            let mut subjects = Vec::new();
            for (i, entry) in entries.iter().enumerate() {
                let (known, what, name_of, subject) = match entry.strip_prefix("group:") {
                    Some(group) => (names(config.groups.keys()), "group", group, Subject::Group(group.to_owned())),
                    None => (names(config.consumers.keys()), "consumer", entry.as_str(), Subject::Consumer(entry.clone())),
                };
                if !known.contains(&name_of) {
                    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                    // Who writes `research` may mean the group.
                    let hint = if what == "consumer" && config.groups.contains_key(entry) { format!("; there is a group of that name: write \"group:{entry}\"") } else { String::new() };
                    problems.push(Problem::new(format!("{path}.{name}[{i}]"), format!("no {what} \"{name_of}\"; known: {known}{hint}")));
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
        let find = |headers: &HeaderMap| all.find(shown_key(headers).map(hash_of).as_ref(), None, now);
        for (name, value) in
            [("authorization", "Bearer alice-key-1"), ("authorization", "bearer  alice-key-1"), ("x-api-key", "alice-key-1"), ("api-key", "alice-key-1"), ("x-goog-api-key", "alice-key-1")]
        {
            assert_eq!(&*find(&headers(name, value)).unwrap().name, "alice", "{name}");
        }
        assert_eq!(&*find(&headers("x-api-key", "test")).unwrap().name, "bob");
        assert_eq!(find(&headers("x-api-key", "nope")).unwrap_err(), Stranger::Unknown);
        assert_eq!(find(&headers("x-api-key", "alice-key-2")).unwrap_err(), Stranger::Expired);
        assert_eq!(find(&HeaderMap::new()).unwrap_err(), Stranger::NoKey);
        assert_eq!(find(&headers("authorization", "Basic alice-key-1")).unwrap_err(), Stranger::NoKey);
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

    /// A client with a certificate for these names.
    fn peer(names: &[&str], common: &str) -> Peer {
        let mut params = rcgen::CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, common);
        let made = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        Peer::read(made.der(), Arc::default()).unwrap()
    }

    #[test]
    fn a_certificate_says_who_one_is_unless_a_key_does() {
        let yaml = "
tls: { cert: c, key: k, client_ca: ca }
consumers:
  host: { certificates: [a.example.com, CN=a] }
  named: { certificates: [CN=b.example.com] }
  keyed: { keys: [key-of-keyed] }
";
        let (all, problems) = Principals::build(&config(yaml), false);
        assert!(problems.is_empty(), "{problems:?}");
        let find = |key: Option<&str>, peer: &Peer| all.find(key.map(hash_of).as_ref(), Some(peer), Duration::ZERO).map(|p| p.name.to_string());
        assert_eq!(find(None, &peer(&["x.example.com", "A.example.com"], "b.example.com")).as_deref(), Ok("host"), "alternative names come before the common one");
        assert_eq!(find(None, &peer(&["x.example.com"], "b.example.com")).as_deref(), Ok("named"));
        assert_eq!(find(None, &peer(&["b.example.com"], "x")), Err(Stranger::NoKey), "a host's name is no common name");
        assert_eq!(find(Some("key-of-keyed"), &peer(&["a.example.com"], "x")).as_deref(), Ok("keyed"));
        assert_eq!(find(Some("key-of-nobody"), &peer(&["a.example.com"], "x")), Err(Stranger::Unknown), "there is no falling back");

        // Where nobody has a key, the one that an SDK insists on is as good as none.
        let (all, _) = Principals::build(&config("tls: { cert: c, key: k, client_ca: ca }\nconsumers: { host: { certificates: [a.example.com] } }"), false);
        let find = |peer: Option<&Peer>| all.find(Some(&hash_of("none")), peer, Duration::ZERO).map(|p| p.name.to_string());
        assert_eq!(find(Some(&peer(&["a.example.com"], "x"))).as_deref(), Ok("host"));
        assert_eq!(find(None), Err(Stranger::Unknown));
    }

    #[test]
    fn certificates_that_say_too_little_or_too_much_are_problems() {
        let (_, problems) =
            Principals::build(&config("tls: { cert: c, key: k, client_ca: ca }\nconsumers: { a: { certificates: [x.example.com] }, b: { certificates: [X.example.com, 10.0.0.1] } }"), false);
        let said: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert!(said.len() == 2 && said[0].starts_with("consumers.b.certificates[0]: is a certificate of a too") && said[1].starts_with("consumers.b.certificates[1]: is an IP"), "{said:?}");
        let (_, problems) = Principals::build(&config("tls: { cert: c, key: k }\nconsumers: { a: { certificates: [x.example.com] } }"), false);
        assert!(problems.len() == 1 && problems[0].message.starts_with("needs `tls.client_ca`"), "{problems:?}");
    }

    #[test]
    fn a_group_without_members_is_checked_too() {
        let (all, problems) = Principals::build(&config("groups: { g: { limits: [{ requests: 1 }] }, h: {} }"), false);
        assert!(problems.len() == 1 && problems[0].to_string().starts_with("groups.g.limits[0]: "), "{problems:?}");
        assert!(all.known_as("somebody", &["g"]).is_none() && all.known_as("somebody", &["h"]).is_some());
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
