//! A configuration as it may be shown: the tree that was loaded, with `***` in the place of every secret. What is secret the
//! schema says, and so the types; what the schema does not know is not shown.

use std::fmt;

use serde_json::{Map, Value};

/// What stands for a secret.
const HIDDEN: &str = "***";
/// Fields that are hidden though their type is no secret: the hash of a key that somebody chose can be guessed.
const HASHES: &[&str] = &["sha256"];
/// Words in the name of a field that make its text a secret where the schema allows anything.
const TELLING: &[&str] = &["key", "token", "secret", "password", "auth", "credential", "cookie"];

/// A configuration as it was loaded, which shows itself without its secrets only.
#[derive(Clone, Default, PartialEq)]
pub struct Loaded(Map<String, Value>);

impl Loaded {
    /// The tree of a whole configuration.
    pub(super) fn new(tree: Map<String, Value>) -> Self {
        Loaded(tree)
    }

    /// The tree without its secrets. It is made when it is asked for: between two readers it takes no memory.
    #[must_use]
    pub fn shown(&self) -> Map<String, Value> {
        let schema = super::schema();
        match (Schema { defs: &schema["$defs"], forms: vec![&schema] }).show(&Value::Object(self.0.clone())) {
            Value::Object(shown) => shown,
            _ => Map::new(),
        }
    }

    /// Notes that something was said elsewhere than in the file.
    pub(super) fn set(&mut self, path: &[&str], value: impl fmt::Display) {
        let [outer @ .., name] = path else { return };
        let mut at = &mut self.0;
        for step in outer {
            let next = at.entry(*step).or_insert_with(|| Value::Object(Map::new()));
            if !next.is_object() {
                *next = Value::Object(Map::new());
            }
            let Value::Object(map) = next else { return };
            at = map;
        }
        at.insert((*name).to_owned(), value.to_string().into());
    }
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// The forms that a value may have, and where the names in them lead.
struct Schema<'a> {
    defs: &'a Value,
    forms: Vec<&'a Value>,
}

impl<'a> Schema<'a> {
    /// The forms as they are when every name is looked up, and whether one of them is a secret.
    fn open(&self) -> (Vec<&'a Value>, bool) {
        let (mut open, mut secret) = (Vec::new(), false);
        let mut ahead = self.forms.clone();
        while let Some(form) = ahead.pop() {
            match form["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
                Some("Secret") => secret = true,
                Some(name) => ahead.push(&self.defs[name]),
                None => open.push(form),
            }
            for several in ["anyOf", "oneOf", "allOf"] {
                ahead.extend(form[several].as_array().into_iter().flatten());
            }
        }
        (open, secret)
    }

    fn of(&self, forms: Vec<&'a Value>) -> Schema<'a> {
        Schema { defs: self.defs, forms }
    }

    fn show(&self, value: &Value) -> Value {
        let (forms, secret) = self.open();
        match value {
            Value::Null | Value::Bool(_) => value.clone(),
            Value::Object(map) => map.iter().map(|(name, value)| (name.clone(), self.field(&forms, name, value))).collect::<Map<_, _>>().into(),
            Value::Array(list) => {
                let items = self.of(forms.iter().filter_map(|form| form.get("items")).collect());
                list.iter().map(|item| items.show(item)).collect()
            }
            _ if secret || forms.is_empty() => HIDDEN.into(),
            Value::String(text) => without_passwords(text).into(),
            Value::Number(_) => value.clone(),
        }
    }

    fn field(&self, forms: &[&'a Value], name: &str, value: &Value) -> Value {
        if HASHES.contains(&name) {
            return HIDDEN.into();
        }
        let mut below = Vec::new();
        for form in forms {
            match (form["properties"].get(name), form.get("additionalProperties")) {
                (Some(one), _) => below.push(one),
                (None, Some(any @ Value::Object(_))) => below.push(any),
                (None, Some(Value::Bool(true))) => return anything(name, value),
                _ => {}
            }
        }
        match below.as_slice() {
            [] => HIDDEN.into(),
            [only] if is_open(only) => anything(name, value),
            _ => self.of(below).show(value),
        }
    }
}

/// Whether a schema allows anything.
fn is_open(schema: &Value) -> bool {
    *schema == Value::Bool(true) || schema.as_object().is_some_and(|map| map.keys().all(|key| matches!(key.as_str(), "description" | "title" | "default")))
}

/// A value about which the schema says nothing: the names must do.
fn anything(name: &str, value: &Value) -> Value {
    let name = name.to_ascii_lowercase();
    match value {
        Value::String(_) if TELLING.iter().any(|word| name.contains(word)) => HIDDEN.into(),
        Value::String(text) => without_passwords(text).into(),
        Value::Array(list) => list.iter().map(|item| anything(&name, item)).collect(),
        Value::Object(map) => map.iter().map(|(name, value)| (name.clone(), anything(name, value))).collect::<Map<_, _>>().into(),
        other => other.clone(),
    }
}

/// A text in which nobody is let in by a URL: what stands before `@`, and the values behind `?`, are hidden.
fn without_passwords(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let (place, query) = match rest.split_once('?') {
        Some((place, query)) => (place, Some(query)),
        None => (rest, None),
    };
    let (authority, path) = place.split_at(place.find('/').unwrap_or(place.len()));
    let host = match authority.rsplit_once('@') {
        Some((_, host)) => format!("{HIDDEN}@{host}"),
        None => authority.to_owned(),
    };
    let query = query.map(|query| {
        let pairs: Vec<String> = query.split('&').map(|pair| pair.split_once('=').map_or_else(|| pair.to_owned(), |(name, _)| format!("{name}={HIDDEN}"))).collect();
        format!("?{}", pairs.join("&"))
    });
    format!("{scheme}://{host}{path}{}", query.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(yaml: &str) -> Value {
        Value::Object(super::super::from_text(yaml, &|_| None).unwrap().loaded.shown())
    }

    /// A value of a schema with everything in it that can be there, and `hush` wherever there is a secret.
    fn sample(schema: &Value, defs: &Value, depth: usize) -> Vec<Value> {
        if depth > 12 {
            return Vec::new();
        }
        if let Some(name) = schema["$ref"].as_str().map(|path| path.rsplit('/').next().unwrap()) {
            return if name == "Secret" { vec!["hush".into()] } else { sample(&defs[name], defs, depth + 1) };
        }
        for several in ["anyOf", "oneOf"] {
            if let Some(forms) = schema[several].as_array() {
                return forms.iter().flat_map(|form| sample(form, defs, depth + 1)).collect();
            }
        }
        if schema["type"] == "array" {
            return vec![sample(&schema["items"], defs, depth + 1).into()];
        }
        if let Some(properties) = schema["properties"].as_object() {
            // As many objects as the field with the most forms has.
            let fields: Vec<(&String, Vec<Value>)> = properties.iter().map(|(name, field)| (name, sample(field, defs, depth + 1))).collect();
            let count = fields.iter().map(|(_, forms)| forms.len()).max().unwrap_or(1);
            return (0..count).map(|i| fields.iter().filter_map(|(name, forms)| Some(((*name).clone(), forms.get(i).or(forms.last())?.clone()))).collect::<Map<_, _>>().into()).collect();
        }
        if schema["additionalProperties"].is_object() {
            let values = sample(&schema["additionalProperties"], defs, depth + 1);
            return vec![values.into_iter().enumerate().map(|(i, value)| (format!("x{i}"), value)).collect::<Map<_, _>>().into()];
        }
        vec!["plain".into()]
    }

    #[test]
    fn whatever_has_the_type_of_a_secret_is_hidden_wherever_it_stands() {
        let schema = super::super::schema();
        let all = sample(&schema, &schema["$defs"], 0);
        let (mut secrets, mut hidden) = (0, 0);
        for one in all {
            let Value::Object(tree) = one else { panic!("a configuration is a map") };
            let (whole, shown) = (Value::Object(tree.clone()).to_string(), Value::Object(Loaded(tree).shown()).to_string());
            assert!(!shown.contains("hush"), "{shown}");
            secrets += whole.matches("hush").count();
            hidden += shown.matches(HIDDEN).count();
        }
        assert!(secrets >= 10 && hidden >= secrets, "{secrets} secrets, {hidden} hidden");
    }

    #[test]
    fn what_is_no_secret_is_shown_as_it_was_written() {
        let yaml = "
listen: 127.0.0.1:9
providers:
  a: { kind: openai, base_url: \"http://me:hush-1@host/v1\", api_key: hush-2-secret, headers: { X-Team: hush-3 } }
models:
  m: { targets: [{ model: a/x, weight: 3 }, a/y], retry: { attempts: 3, on: [connect, 429] }, timeout: { idle: 30s }, defaults: { temperature: 0.2, metadata: { session_token: hush-4, team: t } } }
prices: { a/x: { input: 1.5, output: 2 } }
prompts: { p: { v1: \"Say {{x}}.\" } }
consumers: { alice: { keys: [hush-5-key, { sha256: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08, expires: 2027-01-31 }], limits: [{ tokens: 200k, per: 1h }] } }
admin: { token: hush-6-of-the-operator }
log: { audit: [{ kind: http, url: \"https://logs.example/push?key=hush-7&x\", headers: { Authorization: hush-8 } }] }
redis: { url: \"redis://:hush-9@127.0.0.1\" }
";
        let shown = shown(yaml);
        assert!(!shown.to_string().contains("hush"), "{shown}");
        assert!(!shown.to_string().contains("9f86d0"), "{shown}");
        for (path, want) in [
            ("/listen", Value::from("127.0.0.1:9")),
            ("/providers/a/base_url", "http://***@host/v1".into()),
            ("/providers/a/headers/X-Team", HIDDEN.into()),
            ("/models/m/targets/0/weight", 3.into()),
            ("/models/m/targets/1", "a/y".into()),
            ("/models/m/retry/on/1", 429.into()),
            ("/models/m/timeout/idle", "30s".into()),
            ("/models/m/defaults/temperature", 0.2.into()),
            ("/models/m/defaults/metadata/session_token", HIDDEN.into()),
            ("/models/m/defaults/metadata/team", "t".into()),
            ("/prices/a~1x/input", 1.5.into()),
            ("/prompts/p/v1", "Say {{x}}.".into()),
            ("/consumers/alice/keys/0", HIDDEN.into()),
            ("/consumers/alice/keys/1/expires", "2027-01-31".into()),
            ("/consumers/alice/limits/0/tokens", "200k".into()),
            ("/admin/token", HIDDEN.into()),
            ("/log/audit/0/url", "https://logs.example/push?key=***&x".into()),
            ("/redis/url", HIDDEN.into()),
        ] {
            assert_eq!(shown.pointer(path), Some(&want), "{path} in {shown}");
        }
    }

    #[test]
    fn what_the_schema_does_not_know_is_not_shown() {
        let tree = serde_json::json!({ "listen": "x", "odd": { "a": "hush" }, "providers": { "p": { "kind": "k", "odd": ["hush"] } } });
        let Value::Object(tree) = tree else { panic!() };
        let shown = Value::Object(Loaded(tree).shown());
        assert_eq!(shown, serde_json::json!({ "listen": "x", "odd": HIDDEN, "providers": { "p": { "kind": "k", "odd": HIDDEN } } }));
    }

    #[test]
    fn what_the_command_line_says_is_shown_too() {
        let mut shown = Loaded::default();
        shown.set(&["listen"], "127.0.0.1:1");
        shown.set(&["admin", "listen"], "127.0.0.1:2");
        assert_eq!(Value::Object(shown.0), serde_json::json!({ "listen": "127.0.0.1:1", "admin": { "listen": "127.0.0.1:2" } }));
    }
}
