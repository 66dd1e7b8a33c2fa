//! From text to [`Config`]: YAML → tree → `${ENV}` in string scalars → typed tree, collecting all problems with their paths.

use std::fmt;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::Config;

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where: `models.fast.targets[1]`.
    pub path: String,
    /// What, and what to do.
    pub message: String,
}

impl Problem {
    /// A problem at a path.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Problem { path: path.into(), message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() { f.write_str(&self.message) } else { write!(f, "{}: {}", self.path, self.message) }
    }
}

/// Parts of the finished gateway that this version does not have yet. Named, so that nobody has to guess.
const LATER: &[&str] = &["semantic", "knowledge", "guards", "mcp", "a2a"];
const LATER_IN_MODELS: &[&str] = &["guards", "cache", "knowledge", "otherwise", "threshold"];

/// Sections whose entries are read one by one, so that one bad entry does not hide the next.
const BY_ENTRY: &[&str] = &["providers", "models", "prices", "consumers", "groups"];

/// Reads a file, or a folder of `*.yaml` files that are merged in the order of their names.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Vec<Problem>> {
    let fail = |e: std::io::Error| vec![Problem::new("", format!("cannot read {}: {e}", path.display()))];
    if !path.is_dir() {
        return from_text(&std::fs::read_to_string(path).map_err(fail)?, env);
    }
    let mut files: Vec<_> = std::fs::read_dir(path).map_err(fail)?.filter_map(|e| Some(e.ok()?.path())).filter(|p| p.extension().is_some_and(|e| e == "yaml" || e == "yml")).collect();
    files.sort();
    if files.is_empty() {
        return Err(vec![Problem::new("", format!("the folder {} has no *.yaml files", path.display()))]);
    }
    let mut tree = Map::new();
    let mut problems = Vec::new();
    for file in files {
        match std::fs::read_to_string(&file).map_err(|e| Problem::new("", format!("cannot read {}: {e}", file.display()))).and_then(|text| tree_of(&text)) {
            Ok(part) => merge(&mut tree, part, "", &mut problems),
            Err(problem) => problems.push(Problem::new(file.display().to_string(), problem.to_string())),
        }
    }
    finish(tree, env, problems)
}

/// Reads a configuration from YAML text. `env` gives environment variables.
///
/// # Errors
/// Everything that is wrong with it.
pub fn from_text(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Vec<Problem>> {
    finish(tree_of(text).map_err(|p| vec![p])?, env, Vec::new())
}

/// The JSON Schema of the configuration, for editors.
#[must_use]
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(Config).to_value();
    schema["title"] = "Trivium".into();
    schema
}

fn tree_of(text: &str) -> Result<Map<String, Value>, Problem> {
    if text.trim().is_empty() {
        return Ok(Map::new());
    }
    let options = serde_saphyr::options! { strict_booleans: true };
    match serde_saphyr::from_str_with_options::<Value>(text, options) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(Value::Null) => Ok(Map::new()),
        Ok(_) => Err(Problem::new("", "the configuration must be a map, such as `listen: 127.0.0.1:8080`")),
        Err(e) => Err(Problem::new("", format!("not valid YAML: {e}"))),
    }
}

/// Merges one file's tree into the whole; maps join, anything else said twice is a problem.
fn merge(into: &mut Map<String, Value>, part: Map<String, Value>, path: &str, problems: &mut Vec<Problem>) {
    for (key, value) in part {
        let at = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match (into.get_mut(&key), value) {
            (None, value) => {
                into.insert(key, value);
            }
            (Some(Value::Object(have)), Value::Object(more)) if at.matches('.').count() < 1 => merge(have, more, &at, problems),
            (Some(_), _) => problems.push(Problem::new(at, "is set in two files")),
        }
    }
}

fn finish(mut tree: Map<String, Value>, env: &dyn Fn(&str) -> Option<String>, mut problems: Vec<Problem>) -> Result<Config, Vec<Problem>> {
    refuse_later_parts(&mut tree, &mut problems);
    for (key, value) in &mut tree {
        fill(value, key, env, &mut problems);
    }
    let mut config = Config { loaded: super::Loaded::new(tree.clone()), ..Config::default() };
    for section in BY_ENTRY {
        match tree.remove(*section) {
            None | Some(Value::Null) => {}
            Some(Value::Object(entries)) => {
                for (name, value) in entries {
                    let path = format!("{section}.{name}");
                    match *section {
                        "providers" => keep(&mut config.providers, name, typed(value, &path, &mut problems)),
                        "models" => {
                            if let Some(model) = model(value, &path, &mut problems) {
                                config.models.insert(name, model);
                            }
                        }
                        "consumers" => keep(&mut config.consumers, name, typed(value, &path, &mut problems)),
                        "groups" => keep(&mut config.groups, name, typed(value, &path, &mut problems)),
                        _ => keep(&mut config.prices, name, typed(value, &path, &mut problems)),
                    }
                }
            }
            Some(_) => problems.push(Problem::new(*section, "must be a map")),
        }
    }
    let known = ["listen", "admin", "tls", "prompts", "auth", "log", "telemetry", "limits", "drain", "redis", "data", "unknown_price", "usage"];
    for (key, value) in tree {
        let p = &mut problems;
        match key.as_str() {
            "listen" => config.listen = typed(value, &key, p).unwrap_or_default(),
            "admin" => config.admin = admin(value, p),
            "tls" => config.tls = typed(value, &key, p).unwrap_or_default(),
            "prompts" => config.prompts = typed(value, &key, p).unwrap_or_default(),
            "auth" => config.auth = typed(value, &key, p).unwrap_or_default(),
            "log" => config.log = typed(value, &key, p).unwrap_or_default(),
            "telemetry" => config.telemetry = typed(value, &key, p).unwrap_or_default(),
            "limits" => config.limits = typed(value, &key, p).unwrap_or_default(),
            "unknown_price" => config.unknown_price = typed(value, &key, p).unwrap_or_default(),
            "redis" => config.redis = typed(value, &key, p).unwrap_or_default(),
            "data" => config.data = typed(value, &key, p).unwrap_or_default(),
            "usage" => config.usage = typed(value, &key, p).unwrap_or_default(),
            "drain" => config.drain = typed(value, &key, p).unwrap_or_default(),
            other => p.push(Problem::new(other, format!("unknown section; known: {}, {}", BY_ENTRY.join(", "), known.join(", ")))),
        }
    }
    if problems.is_empty() { Ok(config) } else { Err(problems) }
}

fn keep<T>(into: &mut std::collections::BTreeMap<String, T>, name: String, value: Option<T>) {
    if let Some(value) = value {
        into.insert(name, value);
    }
}

/// The admin port's form is told apart here too.
fn admin(value: Value, problems: &mut Vec<Problem>) -> Option<super::Admin> {
    match value {
        Value::Null => None,
        Value::Object(_) => typed(value, "admin", problems).map(super::Admin::Long),
        short => match serde_json::from_value(short) {
            Ok(address) => Some(super::Admin::Short(address)),
            Err(_) => {
                problems.push(Problem::new("admin", "must be an address such as 127.0.0.1:8081, or `off`, or a map with `listen` and `token`"));
                None
            }
        },
    }
}

/// A model's form is told apart here, because serde's message for "neither of two forms" says nothing.
fn model(value: Value, path: &str, problems: &mut Vec<Problem>) -> Option<super::ModelEntry> {
    match value {
        Value::String(target) => Some(super::ModelEntry(super::ModelConfig { target: Some(target), ..Default::default() })),
        Value::Object(mut map) => {
            if let Some(Value::Array(targets)) = map.get_mut("targets") {
                for target in targets.iter_mut() {
                    if let Value::String(model) = target {
                        *target = serde_json::json!({ "model": model });
                    }
                }
                // Each target is read as its long form, so that an unknown field in it is named.
                let long: Vec<_> = targets.iter().enumerate().filter_map(|(i, t)| typed::<super::TargetConfig>(t.clone(), &format!("{path}.targets[{i}]"), problems)).collect();
                if long.len() < targets.len() {
                    return None;
                }
            }
            typed::<super::ModelConfig>(Value::Object(map), path, problems).map(super::ModelEntry)
        }
        _ => {
            problems.push(Problem::new(path, "must be `provider/model`, or a map with `target` or `targets`"));
            None
        }
    }
}

/// Reads a value into its type; a failure is noted with its whole path.
fn typed<T: DeserializeOwned>(value: Value, path: &str, problems: &mut Vec<Problem>) -> Option<T> {
    match serde_path_to_error::deserialize(value) {
        Ok(value) => Some(value),
        Err(e) => {
            let inner = e.path().to_string();
            let path = match inner.as_str() {
                "." => path.to_owned(),
                inner if inner.starts_with('[') => format!("{path}{inner}"),
                inner => format!("{path}.{inner}"),
            };
            problems.push(Problem::new(path, e.inner().to_string()));
            None
        }
    }
}

/// Takes the parts out that a later version will have, and says so.
fn refuse_later_parts(tree: &mut Map<String, Value>, problems: &mut Vec<Problem>) {
    let mut refuse = |path: String| problems.push(Problem::new(path, "is not supported yet by this version"));
    for name in LATER {
        if tree.remove(*name).is_some() {
            refuse((*name).to_owned());
        }
    }
    let Some(Value::Object(models)) = tree.get_mut("models") else { return };
    for (model, value) in models {
        let Value::Object(map) = value else { continue };
        for name in LATER_IN_MODELS {
            if map.get(*name).is_some_and(|v| v != "off") {
                refuse(format!("models.{model}.{name}"));
            }
            map.remove(*name);
        }
        if map.get("balance").is_some_and(|b| b == "semantic") {
            refuse(format!("models.{model}.balance: semantic"));
            map.remove("balance");
        }
        for target in map.get_mut("targets").and_then(Value::as_array_mut).into_iter().flatten() {
            if let Value::Object(target) = target {
                target.remove("when");
            }
        }
    }
}

/// Fills `${NAME}` and `${NAME:-default}` in every string below `value`.
fn fill(value: &mut Value, path: &str, env: &dyn Fn(&str) -> Option<String>, problems: &mut Vec<Problem>) {
    match value {
        Value::String(text) if text.contains("${") => match filled(text, env) {
            Ok(new) => *text = new,
            Err(message) => problems.push(Problem::new(path, message)),
        },
        Value::Array(list) => list.iter_mut().enumerate().for_each(|(i, v)| fill(v, &format!("{path}[{i}]"), env, problems)),
        Value::Object(map) => map.iter_mut().for_each(|(k, v)| fill(v, &format!("{path}.{k}"), env, problems)),
        _ => {}
    }
}

fn filled(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        out.push_str(&rest[..start]);
        let after = &rest[start + 2..];
        let end = after.find('}').ok_or("`${` without its `}`")?;
        let (name, default) = match after[..end].split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (&after[..end], None),
        };
        match (env(name).filter(|v| !v.is_empty()), default) {
            (Some(value), _) => out.push_str(&value),
            (None, Some(default)) => out.push_str(default),
            (None, None) => return Err(format!("the environment variable {name} is not set; set it, or write ${{{name}:-default}}")),
        }
        rest = &after[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        from_text(text, &|name| (name == "KEY").then(|| "secret".to_owned())).expect_err("accepted").iter().map(ToString::to_string).collect()
    }

    #[test]
    fn all_problems_at_once_with_their_paths() {
        let found = problems(
            "listen: here\nproviders:\n  a: { kind: openai, api_key: \"${NO}\", bas_url: x }\n  b: { kind: echo, colour: red }\nmodels:\n  m: { targets: [{ model: a/x, wieght: 3 }] }\n  n: 7\nguards: {}\nlimts: {}\n",
        );
        let text = found.join("\n");
        for part in [
            "listen: ",
            "providers.a.api_key: the environment variable NO is not set",
            "providers.a",
            "`bas_url`",
            "providers.b",
            "`colour`",
            "models.m.targets[0]",
            "`wieght`",
            "models.n: must be",
            "guards: is not supported yet",
            "limts: unknown section; known:",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }

    #[test]
    fn environment_only_inside_scalars_and_off_is_a_word() {
        let config =
            from_text("providers:\n  a: { kind: openai, api_key: \"x-${KEY}-${NO:-d}\" }\nadmin: off\nmodels: { m: { target: a/b, cache: off } }\n", &|name| (name == "KEY").then(|| "k".to_owned()))
                .unwrap();
        assert_eq!(config.providers["a"].api_key.as_ref().unwrap().expose(), "x-k-d");
        assert_eq!(config.admin, Some(super::super::Admin::Short(super::super::Address::Off(super::super::Off::Off))));
        assert!(!format!("{config:?}").contains("x-k-d"));
        assert!(problems("a: \"${KEY\"")[0].contains("without its"));
        assert!(problems("listen: 1\nlisten: 2\n")[0].contains("YAML"));
        assert!(problems("- a\n")[0].contains("must be a map"));
        assert!(from_text("", &|_| None).is_ok());
    }
}
