//! YAML → a tree of JSON values, and where in the file each of them stands.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::{DuplicateKeyPolicy, Error, Location, Spanned};

use super::Problem;

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file; `None` for a text without one.
    pub file: Option<Arc<str>>,
    /// Line, from 1.
    pub line: u64,
    /// Column, from 1.
    pub column: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{file}:{}:{}", self.line, self.column),
            None => write!(f, "line {}, column {}", self.line, self.column),
        }
    }
}

/// Where everything stands, by its path.
#[derive(Debug, Default)]
pub(super) struct Places(HashMap<String, Place>);

impl Places {
    /// The place of a path, or of the nearest thing around it.
    pub(super) fn of(&self, path: &str) -> Option<Place> {
        let mut path = path;
        loop {
            if let Some(place) = self.0.get(path) {
                return Some(place.clone());
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }

    pub(super) fn extend(&mut self, more: Places) {
        self.0.extend(more.0);
    }
}

/// A file as a tree.
pub(super) struct Tree {
    pub(super) root: Map<String, Value>,
    pub(super) places: Places,
    /// What is written twice.
    pub(super) problems: Vec<Problem>,
}

/// Reads a text. `file` is what it is called.
///
/// # Errors
/// When it is not YAML, or no map.
pub(super) fn parse(text: &str, file: Option<&str>) -> Result<Tree, Problem> {
    let file: Option<Arc<str>> = file.map(Into::into);
    let mut tree = Tree { root: Map::new(), places: Places::default(), problems: Vec::new() };
    if text.trim().is_empty() {
        return Ok(tree);
    }
    let place = |at: Location| (at != Location::UNKNOWN).then(|| Place { file: file.clone(), line: at.line(), column: at.column() });
    let node = match read(text, DuplicateKeyPolicy::Error) {
        // Once more, so that all that is written twice is found, and not only the first.
        Err(e) if matches!(e.without_snippet(), Error::DuplicateMappingKey { .. }) => read(text, DuplicateKeyPolicy::LastWins),
        other => other,
    };
    let node = node.map_err(|e| {
        let at = e.location().and_then(place);
        let message = e.without_snippet().to_string();
        let line = at.as_ref().and_then(|p| text.lines().nth(p.line.saturating_sub(1) as usize)).unwrap_or_default();
        // The place stands before the message already.
        let message = message.split(" at line ").next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        Problem { place: at, ..Problem::new("", format!("this is not YAML: {}{}", message.trim_end_matches([':', ',']), hint(&message, line))) }
    })?;
    match take(node, "", &place, &mut tree) {
        Value::Object(root) => tree.root = root,
        Value::Null => {}
        _ => return Err(Problem::new("", "the configuration must be a map, such as `listen: 127.0.0.1:8080`")),
    }
    Ok(tree)
}

fn read(text: &str, duplicates: DuplicateKeyPolicy) -> Result<Node, Error> {
    serde_saphyr::from_str_with_options(text, serde_saphyr::options! { strict_booleans: true, duplicate_keys: duplicates })
}

/// What most often lies behind an error of the YAML library.
fn hint(message: &str, line: &str) -> &'static str {
    if line.contains("${") && message.contains("flow") {
        "; between braces or brackets, `${…}` needs quotes around it: \"${…}\""
    } else if message.contains("alias") || message.contains("anchor") {
        "; a `*` or `&` at the beginning of a word has a meaning of its own in YAML: put the word in quotes"
    } else if message.contains("tab") {
        "; indent with spaces"
    } else {
        ""
    }
}

/// Takes a node apart into its value and the places in it.
fn take(node: Node, path: &str, place: &impl Fn(Location) -> Option<Place>, tree: &mut Tree) -> Value {
    match node {
        Node::Scalar(value) => value,
        Node::List(items) => {
            let items = items.into_iter().enumerate().map(|(i, item)| {
                let at = format!("{path}[{i}]");
                tree.places.0.extend(place(item.referenced).map(|p| (at.clone(), p)));
                take(item.value, &at, place, tree)
            });
            Value::Array(items.collect())
        }
        Node::Map(entries) => {
            let mut map = Map::new();
            for (key, item) in entries {
                let at = if path.is_empty() { key.value.clone() } else { format!("{path}.{}", key.value) };
                let here = place(key.referenced).or_else(|| place(item.referenced));
                if map.contains_key(&key.value) {
                    let first = tree.places.of(&at).map_or(String::new(), |p| format!(", first in line {}", p.line));
                    tree.problems.push(Problem { place: here, ..Problem::new(&at, format!("is written twice{first}; one of the two would be lost")) });
                    continue;
                }
                tree.places.0.extend(here.map(|p| (at.clone(), p)));
                let value = take(item.value, &at, place, tree);
                map.insert(key.value, value);
            }
            Value::Object(map)
        }
    }
}

/// YAML as it is written.
enum Node {
    Scalar(Value),
    List(Vec<Spanned<Node>>),
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map, a list or a word")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Scalar(Number::from_f64(value).map_or(Value::Null, Value::Number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, d: D) -> Result<Node, D::Error> {
        Node::deserialize(d)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Node::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_has_its_place() {
        let tree = parse("listen: x\nmodels:\n  a: { targets: [b, { model: c }] }\n  'd.e': f\n", Some("t.yaml")).unwrap_or_else(|p| panic!("{p}"));
        assert_eq!(Value::Object(tree.root), serde_json::json!({ "listen": "x", "models": { "a": { "targets": ["b", { "model": "c" }] }, "d.e": "f" } }));
        let at = |path: &str| tree.places.of(path).map(|p| p.to_string());
        assert_eq!(at("listen").as_deref(), Some("t.yaml:1:1"));
        assert_eq!(at("models.a.targets[1].model").as_deref(), Some("t.yaml:3:23"));
        assert_eq!(at("models.a.targets[0].model").as_deref(), Some("t.yaml:3:18"), "the nearest thing around it");
        assert_eq!(at("models.d.e").as_deref(), Some("t.yaml:4:3"));
        assert_eq!(at("nowhere"), None);
    }

    #[test]
    fn what_is_said_once_and_meant_twice() {
        let text = "models:\n  a: &usual { target: x/y, retry: { attempts: 3 } }\n  b: *usual\n  c: { <<: *usual, target: x/z }\n  7: x/w\n";
        let tree = parse(text, None).unwrap_or_else(|p| panic!("{p}"));
        let models = &tree.root["models"];
        assert_eq!((&models["b"], &models["c"]["target"], &models["c"]["retry"]["attempts"], &models["7"]), (&models["a"], &"x/z".into(), &3.into(), &"x/w".into()));
        assert!(tree.problems.is_empty(), "{:?}", tree.problems);
        assert_eq!(tree.places.of("models.b").map(|p| p.line), Some(3));
        assert_eq!(tree.places.of("models.c.target").map(|p| p.line), Some(4));
    }

    #[test]
    fn all_that_is_written_twice_is_found() {
        let tree = parse("listen: a\nmodels: { m: x, n: y, m: z }\nlisten: b\n", None).unwrap_or_else(|p| panic!("{p}"));
        let said: Vec<String> = tree.problems.iter().map(ToString::to_string).collect();
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(
            said[0].starts_with("line 2, column 23: models.m: is written twice, first in line 2") && said[1].starts_with("line 3, column 1: listen: is written twice, first in line 1"),
            "{said:?}"
        );
    }

    #[test]
    fn what_is_not_yaml_is_said_with_its_place() {
        for (text, part) in [
            ("a: [1, 2\n", "this is not YAML"),
            ("a: b\n c: d\n", "this is not YAML"),
            ("*: x\n", "put the word in quotes"),
            ("a:\n\tb: c\n", "spaces"),
            ("- a\n", "must be a map"),
            ("a: { b: ${C} }\n", "needs quotes"),
        ] {
            let problem = parse(text, None).err().unwrap_or_else(|| panic!("{text:?} is accepted"));
            assert!(problem.to_string().contains(part) && (problem.place.is_some() || part.contains("map")), "{text:?}: {problem}");
        }
    }
}
