//! From text to [`Config`]: YAML → tree → `${ENV}` in string scalars → typed tree, collecting all problems with their paths.

use std::fmt;
use std::path::Path;

use serde_json::{Map, Value};
use serde_path_to_error::Segment;

use super::Config;
use super::shape;
use super::yaml::{self, Place, Places, Tree};

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where: `models.fast.targets[1]`.
    pub path: String,
    /// What, and what to do.
    pub message: String,
    /// Where in the file, if it comes from one.
    pub place: Option<Place>,
}

impl Problem {
    /// A problem at a path.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Problem { path: path.into(), message: message.into(), place: None }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [self.place.as_ref().map(ToString::to_string).as_deref().unwrap_or_default(), &self.path] {
            if !part.is_empty() {
                write!(f, "{part}: ")?;
            }
        }
        f.write_str(&self.message)
    }
}

/// Parts of the finished gateway that this version does not have yet. Named, so that nobody has to guess.
const LATER: &[&str] = &["semantic", "knowledge", "guards", "mcp", "a2a"];
const LATER_IN_MODELS: &[&str] = &["guards", "cache", "knowledge", "otherwise", "threshold"];

/// A configuration as far as it can be read, with all that is wrong with it so far.
pub struct Draft {
    /// What can be read. Where something is wrong with it, it is good for finding more, and for nothing else.
    pub config: Config,
    problems: Vec<Problem>,
    places: Places,
    /// Paths of what could not be read.
    dropped: Vec<String>,
}

impl Draft {
    /// A configuration that comes from no file.
    #[must_use]
    pub fn made(config: Config) -> Self {
        Draft { config, problems: Vec::new(), places: Places::default(), dropped: Vec::new() }
    }

    /// Whether nothing is wrong with it so far.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.problems.is_empty()
    }

    /// All problems, with those that were found by building, in the order of the file. What may only follow from what is known
    /// already is left out: it would send people the wrong way.
    #[must_use]
    pub fn all_problems(mut self, built: Vec<Problem>) -> Vec<Problem> {
        self.add(built);
        for problem in &mut self.problems {
            problem.place = problem.place.take().or_else(|| self.places.of(&problem.path));
        }
        self.problems.sort_by_key(|p| p.place.as_ref().map(|at| (at.file.clone(), at.line, at.column)));
        self.problems
    }

    fn add(&mut self, found: Vec<Problem>) {
        let known: Vec<String> = self.problems.iter().map(|p| p.path.clone()).chain(self.dropped.iter().cloned()).collect();
        // What is said of a thing of which a part is wrong or gone may come from that; and so may all that is said of its inside.
        let follows = |p: &Problem| !p.path.is_empty() && (known.iter().any(|k| *k == p.path || is_part(k, &p.path)) || self.dropped.iter().any(|d| lies_in(&p.path, d)));
        let fresh: Vec<Problem> = found.into_iter().filter(|p| !follows(p)).collect();
        self.problems.extend(fresh);
    }
}

/// Whether a path lies inside another.
fn lies_in(path: &str, outer: &str) -> bool {
    path.strip_prefix(outer).is_some_and(|rest| rest.starts_with(['.', '[']))
}

/// Whether a path is that of a field or an item of another.
fn is_part(path: &str, whole: &str) -> bool {
    lies_in(path, whole) && !path[whole.len() + 1..].contains(['.', '['])
}

/// Reads a file, or a folder of `*.yaml` files that are merged in the order of their names.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Vec<Problem>> {
    good(read(path, env))
}

/// As [`load`], and goes on where it can: what is dangling is found beside what cannot be read.
#[must_use]
pub fn read(path: &Path, env: &dyn Fn(&str) -> Option<String>) -> Draft {
    let mut tree = Tree { root: Map::new(), places: Places::default(), problems: Vec::new() };
    let fail = |path: &Path, e: &dyn fmt::Display| Problem::new("", format!("cannot read {}: {e}", path.display()));
    let mut files = vec![path.to_owned()];
    if path.is_dir() {
        match std::fs::read_dir(path) {
            Ok(entries) => files = entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| p.extension().is_some_and(|e| e == "yaml" || e == "yml")).collect(),
            Err(e) => tree.problems.push(fail(path, &e)),
        }
        files.sort();
        if files.is_empty() {
            tree.problems.push(Problem::new("", format!("the folder {} has no *.yaml files", path.display())));
        }
    }
    for file in files {
        let read = std::fs::read_to_string(&file).map_err(|e| fail(&file, &e));
        match read.and_then(|text| yaml::parse(&text, Some(&file.display().to_string()))) {
            Ok(part) => {
                let mut twice = Vec::new();
                merge(&mut tree.root, part.root, "", &mut twice);
                tree.problems.extend(part.problems);
                // The second place is the one to look at.
                tree.problems.extend(twice.into_iter().map(|p| Problem { place: part.places.of(&p.path), ..p }));
                tree.places.extend(part.places);
            }
            Err(problem) => tree.problems.push(problem),
        }
    }
    finish(tree, env)
}

/// Reads a configuration from YAML text. `env` gives environment variables.
///
/// # Errors
/// Everything that is wrong with it.
pub fn from_text(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<Config, Vec<Problem>> {
    good(finish(yaml::parse(text, None).map_err(|p| vec![p])?, env))
}

fn good(draft: Draft) -> Result<Config, Vec<Problem>> {
    if draft.is_good() { Ok(draft.config) } else { Err(draft.all_problems(Vec::new())) }
}

/// The JSON Schema of the configuration, for editors.
#[must_use]
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(Config).to_value();
    schema["title"] = "Trivium".into();
    schema
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

fn finish(tree: Tree, env: &dyn Fn(&str) -> Option<String>) -> Draft {
    let mut draft = Draft { config: Config::default(), problems: tree.problems, places: tree.places, dropped: Vec::new() };
    let mut root = tree.root;
    let mut found = Vec::new();
    refuse_later_parts(&mut root, &mut found);
    for (key, value) in &mut root {
        fill(value, key, env, &mut found);
    }
    draft.add(found);
    let tree = super::Loaded::new(root.clone());
    let misfits = shape::hold(&mut root, &schema());
    draft.problems.extend(misfits.problems);
    draft.dropped = misfits.dropped;
    let mut root = Value::Object(root);
    // Each turn finds one value whose inside cannot be read, and takes it out.
    loop {
        match serde_path_to_error::deserialize::<_, Config>(root.clone()) {
            Ok(config) => {
                draft.config = Config { loaded: tree, ..config };
                return draft;
            }
            Err(e) => {
                let (path, problem) = unread(&e);
                draft.add(vec![problem]);
                if !take_out(&mut root, &path, &mut draft.dropped) {
                    return draft;
                }
            }
        }
    }
}

/// What could not be read: its path, and what is wrong with it.
fn unread(e: &serde_path_to_error::Error<serde_json::Error>) -> (Vec<Segment>, Problem) {
    let mut path: Vec<Segment> = e.path().iter().filter(|s| matches!(s, Segment::Map { .. } | Segment::Seq { .. })).cloned().collect();
    let mut message = e.inner().to_string();
    let quoted: Vec<String> = message.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    if let Some((name, known)) = quoted.split_first().filter(|_| message.starts_with("unknown field")) {
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        message = shape::unknown(name, &known);
        if !matches!(path.last(), Some(Segment::Map { key }) if key == name) {
            path.push(Segment::Map { key: name.clone() });
        }
    }
    for (theirs, ours) in [("f64", "a number"), ("u64", "a whole number"), ("u32", "a whole number"), ("u16", "a whole number")] {
        message = message.replace(&format!("expected {theirs}"), &format!("expected {ours}"));
    }
    let at = said(&path);
    (path, Problem::new(at, message))
}

fn said(path: &[Segment]) -> String {
    let text: String = path.iter().map(|s| if let Segment::Map { .. } = s { format!(".{s}") } else { s.to_string() }).collect();
    text.trim_start_matches('.').to_owned()
}

/// Takes a value out of the tree, or what of the path is there. `false` if there is nothing to take.
fn take_out(root: &mut Value, path: &[Segment], dropped: &mut Vec<String>) -> bool {
    let Some((last, before)) = path.split_last() else { return false };
    let parent = before.iter().try_fold(&mut *root, |at, step| match step {
        Segment::Map { key } => at.get_mut(key),
        Segment::Seq { index } => at.get_mut(index),
        _ => None,
    });
    let at = said(path);
    let taken = match (parent, last) {
        (Some(Value::Object(map)), Segment::Map { key }) if map.contains_key(key) => {
            match shape::stand_in(&at) {
                // What stands in is good: it cannot come here twice.
                Some(other) if map.get(key) != Some(&other) => drop(map.insert(key.clone(), other)),
                _ => drop(map.shift_remove(key)),
            }
            true
        }
        (Some(Value::Array(list)), Segment::Seq { index }) if *index < list.len() => {
            list.truncate(*index);
            true
        }
        _ => false,
    };
    if taken {
        dropped.push(at);
        return true;
    }
    take_out(root, before, dropped)
}

/// Takes the parts out that a later version will have, and says so.
fn refuse_later_parts(tree: &mut Map<String, Value>, problems: &mut Vec<Problem>) {
    const LATER_WORDS: &str = "is not supported yet by this version";
    let mut refuse = |path: String| problems.push(Problem::new(path, LATER_WORDS));
    for name in LATER {
        if tree.remove(*name).is_some() {
            refuse((*name).to_owned());
        }
    }
    let Some(Value::Object(models)) = tree.get_mut("models") else { return };
    for (model, value) in models {
        let Value::Object(map) = value else { continue };
        let mut refuse = |path: String| problems.push(Problem::new(path, LATER_WORDS));
        for name in LATER_IN_MODELS {
            if map.get(*name).is_some_and(|v| v != "off") {
                refuse(format!("models.{model}.{name}"));
            }
            map.remove(*name);
        }
        if map.get("balance").is_some_and(|b| b == "semantic") {
            problems.push(Problem::new(format!("models.{model}.balance"), format!("`semantic` {LATER_WORDS}")));
            map.remove("balance");
        }
        for (i, target) in map.get_mut("targets").and_then(Value::as_array_mut).into_iter().flatten().enumerate() {
            if target.as_object_mut().is_some_and(|t| t.remove("when").is_some()) {
                problems.push(Problem::new(format!("models.{model}.targets[{i}].when"), LATER_WORDS));
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
            "line 3, column 40: providers.a.bas_url: unknown field; did you mean `base_url`? known: kind, base_url",
            "line 4, column 20: providers.b.colour: unknown field; known: kind",
            "line 6, column 32: models.m.targets[0].wieght: unknown field; did you mean `weight`?",
            "models.n: must be text or a map with target, targets, ",
            "guards: is not supported yet",
            "limts: unknown field; did you mean `limits`?",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }

    #[test]
    fn one_mistake_is_one_problem_and_hides_no_other() {
        let found = problems(
            "providers:\n  a: { knd: openai }\n  b: { kind: openai, api_key: 12345678 }\n  c:\nmodels:\n  m:\n    targets: [a/x, { model: b/y, weight: \"3\" }, 7]\n    timeout: { total: 30, idle: 5 minutes, connect: 1 s, first_token: 2s }\n    retry: { on: [429], attempts: -1 }\n    balance: round-robin\n    sticky: true\nprices: { a/x: { inputt: 1, output: two } }\nlog: { audit: [{ kind: fil }, { kind: http }], level: loud }\nconsumers: [alice]\nadmin: here\nprompts: { p: { v: 7 } }\n",
        );
        let expected = [
            "line 2, column 8: providers.a.knd: unknown field; did you mean `kind`? known: kind, base_url, api_key, aws, google, azure, api_version, project, location, region, headers",
            "line 3, column 22: providers.b.api_key: must be text, and is a number; put it in quotes",
            "line 4, column 3: providers.c: `kind` is missing: The dialect: `openai`, `anthropic`, `gemini`, ..., or a preset such as `groq`. `trivium models --kinds` lists them.",
            "line 7, column 34: models.m.targets[1].weight: must be a whole number, and is text",
            "line 7, column 49: models.m.targets[2]: must be text or a map with model, weight, priority, and is a number",
            "line 8, column 16: models.m.timeout.total: must be a duration such as \"200ms\", \"30s\", \"5m\", \"1h\" or \"7d\", and is a number",
            "line 8, column 27: models.m.timeout.idle: \"5 minutes\" is not a duration such as \"200ms\", \"30s\", \"5m\", \"1h\" or \"7d\"",
            "line 9, column 25: models.m.retry.attempts: must be 0 or more",
            "line 10, column 5: models.m.balance: `round-robin` is not one of round_robin, weighted, consistent_hash, least_connections, lowest_latency, lowest_usage, lowest_cost, priority; did you mean `round_robin`?",
            "line 11, column 5: models.m.sticky: must be one of prompt_prefix, and is true or false",
            "line 12, column 18: prices.a/x.inputt: unknown field; did you mean `input`? known: ",
            "line 12, column 29: prices.a/x.output: invalid type: string \"two\", expected a number",
            "line 13, column 18: log.audit[0].kind: `fil` is not one of stdout, file, http, syslog; did you mean `file`?",
            "line 13, column 31: log.audit[1]: `url` is missing",
            "line 13, column 48: log.level: `loud` is not one of error, warn, info, debug, trace",
            "line 14, column 1: consumers: must be a map, with a name for each, and is a list; write `name: …` instead of `- …`",
            "line 15, column 1: admin: must be an address and a port such as 127.0.0.1:8080 or 0.0.0.0:8080, or `off`",
            "line 16, column 17: prompts.p.v: must be text or a map with template, weight, and is a number",
        ];
        let text = found.join("\n");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{expected:?} is not {found:?} in\n{text}");
        }
        assert_eq!(found.len(), expected.len(), "{text}");
    }

    #[test]
    fn what_can_be_read_is_good_for_finding_more() {
        let folder = std::env::temp_dir().join(format!("trivium-load-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("1.yaml"), "providers: { a: { kind: echo, colour: red }, b: { knd: openai } }\nmodels: { m: a/x }\n").unwrap();
        std::fs::write(folder.join("2.yaml"), "models:\n  m: a/y\n  n: { targets: [b/y, gone/z], timeout: { total: soon } }\nguards: {}\n").unwrap();
        let draft = read(&folder, &|_| None);
        assert!(!draft.is_good());
        let names: Vec<&String> = draft.config.providers.keys().collect();
        assert_eq!(names, ["a", "b"], "a name that stands for something unreadable still is one");
        let dangling = Problem::new("models.n.targets[1].model", "no provider \"gone\"");
        let follows = [Problem::new("providers.b", "needs a key"), Problem::new("models.n.timeout", "makes no sense")];
        let said: Vec<String> = draft.all_problems([vec![dangling], follows.into()].concat()).iter().map(ToString::to_string).collect();
        let place = |file: &str, rest: &str| format!("{}:{rest}", folder.join(file).display());
        let expected = [
            place("1.yaml", "1:31: providers.a.colour: unknown field"),
            place("1.yaml", "1:51: providers.b.knd: unknown field"),
            place("2.yaml", "2:3: models.m: is set in two files"),
            place("2.yaml", "3:23: models.n.targets[1].model: no provider"),
            place("2.yaml", "3:43: models.n.timeout.total: \"soon\" is not a duration"),
            place("2.yaml", "4:1: guards: is not supported yet by this version"),
        ];
        assert_eq!(said.len(), expected.len(), "{said:?}");
        for (said, expected) in said.iter().zip(&expected) {
            assert!(said.starts_with(expected), "{expected} is not {said}");
        }
        std::fs::remove_dir_all(&folder).unwrap();
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
        assert!(problems("listen: 1\nlisten: 2\n").iter().any(|p| p.contains("is written twice")));
        assert!(problems("- a\n")[0].contains("must be a map"));
        assert!(from_text("", &|_| None).is_ok());
    }
}
