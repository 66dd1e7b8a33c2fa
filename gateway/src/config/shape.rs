//! Holds a tree to the schema: unknown fields, wrong types, words that are none of the choices, and what is missing, all at
//! once. What does not fit is taken out, so that the rest can still be read and looked at.

use serde_json::{Map, Value, json};

use super::Problem;
use crate::near::meant;

/// What does not fit.
#[derive(Default)]
pub(super) struct Misfits {
    pub(super) problems: Vec<Problem>,
    /// Paths of what was taken out.
    pub(super) dropped: Vec<String>,
}

/// Looks for all that does not fit, and takes it out.
pub(super) fn hold(tree: &mut Map<String, Value>, schema: &Value) -> Misfits {
    let nothing = Map::new();
    let mut shape = Shape { defs: schema["$defs"].as_object().unwrap_or(&nothing), misfits: Misfits::default() };
    let mut root = Value::Object(std::mem::take(tree));
    shape.fits(&mut root, schema, "");
    if let Value::Object(root) = root {
        *tree = root;
    }
    shape.misfits
}

/// What stands in for an entry that was taken out and that others may name: a name that is wrong in itself is not a dangling one.
pub(super) fn stand_in(path: &str) -> Option<Value> {
    let parts: Vec<&str> = path.splitn(3, '.').collect();
    match parts.as_slice() {
        ["providers", _] => Some(json!({ "kind": "echo" })),
        ["consumers" | "groups", _] => Some(json!({})),
        ["prompts", _, _] => Some(json!("")),
        _ => None,
    }
}

/// What is said of a name that is not known.
pub(super) fn unknown(name: &str, known: &[&str]) -> String {
    let guess = meant(name, known).map_or(String::new(), |m| format!("; did you mean `{m}`?"));
    format!("unknown field{guess}{}known: {}", if guess.is_empty() { "; " } else { " " }, known.join(", "))
}

struct Shape<'s> {
    defs: &'s Map<String, Value>,
    misfits: Misfits,
}

impl<'s> Shape<'s> {
    fn problem(&mut self, path: &str, message: String) -> bool {
        self.misfits.problems.push(Problem::new(path, message));
        false
    }

    fn resolve(&self, mut schema: &'s Value) -> &'s Value {
        while let Some(def) = schema["$ref"].as_str().and_then(|r| self.defs.get(r.rsplit('/').next()?)) {
            schema = def;
        }
        schema
    }

    /// The forms that a value may have, but for the empty one; a schema without alternatives is its own only form.
    fn forms(&self, schema: &'s Value) -> Vec<&'s Value> {
        let schema = self.resolve(schema);
        match schema["anyOf"].as_array().or_else(|| schema["oneOf"].as_array()) {
            Some(forms) => forms.iter().flat_map(|f| self.forms(f)).filter(|f| f["type"] != "null").collect(),
            None => vec![schema],
        }
    }

    /// Whether a value may stay where it is.
    fn fits(&mut self, value: &mut Value, schema: &'s Value, path: &str) -> bool {
        let schema = self.resolve(schema);
        let forms = self.forms(schema);
        if value.is_null() {
            let may_be = takes(schema, "null") || schema["anyOf"].as_array().is_some_and(|f| f.iter().any(|f| f["type"] == "null"));
            // A section or an entry without anything in it is one with nothing but defaults.
            match ["object", "array"].into_iter().find(|kind| forms.iter().any(|f| takes(f, kind))) {
                _ if may_be => return true,
                Some("object") => *value = json!({}),
                Some(_) => *value = json!([]),
                None => return self.problem(path, format!("is empty, and must be {}", self.wanted(schema))),
            }
        }
        if forms.iter().all(|f| f["const"].is_string()) {
            return self.word(value, &forms, path);
        }
        if let Some(tag) = tag(&forms) {
            return self.tagged(value, &forms, tag, path);
        }
        let mut fitting = forms.iter().filter(|f| is_form(f, value));
        match (fitting.next(), fitting.next()) {
            (None, _) => self.problem(path, format!("must be {}, and is {}{}", self.wanted(schema), kind(value), hint(value, &forms))),
            (Some(form), None) => self.inside(value, form, path),
            // Two forms of one kind are told apart by the reader: an address, or the word `off`.
            (Some(_), Some(_)) => true,
        }
    }

    fn inside(&mut self, value: &mut Value, form: &'s Value, path: &str) -> bool {
        match value {
            Value::Object(map) => self.map(map, form, path),
            Value::Array(list) => self.list(list, &form["items"], path),
            Value::Number(n) => match (form["minimum"].as_f64(), n.as_f64()) {
                (Some(least), Some(n)) if n < least => self.problem(path, format!("must be {least} or more")),
                _ => true,
            },
            _ => true,
        }
    }

    fn map(&mut self, map: &mut Map<String, Value>, form: &'s Value, path: &str) -> bool {
        let fields = form["properties"].as_object();
        let known: Vec<&'s str> = fields.into_iter().flat_map(Map::keys).map(String::as_str).collect();
        let others = &form["additionalProperties"];
        let names: Vec<String> = map.keys().cloned().collect();
        let mut guesses = Vec::new();
        for name in names {
            let at = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            let Some(value) = map.get_mut(&name) else { continue };
            match fields.and_then(|f| f.get(&name)).or_else(|| others.is_object().then_some(others)) {
                Some(schema) if self.fits(value, schema, &at) => {}
                Some(_) => {
                    match stand_in(&at) {
                        Some(other) => *value = other,
                        None => drop(map.shift_remove(&name)),
                    }
                    self.misfits.dropped.push(at);
                }
                None if *others == false => {
                    map.shift_remove(&name);
                    guesses.extend(meant(&name, &known));
                    self.problem(&at, unknown(&name, &known));
                    self.misfits.dropped.push(at);
                }
                None => {}
            }
        }
        let mut whole = true;
        for name in form["required"].as_array().into_iter().flatten().filter_map(Value::as_str).filter(|n| !map.contains_key(*n)) {
            whole = false;
            // What is missing under its right name may be there under a wrong one, or have been refused.
            if !guesses.contains(&name) && !self.misfits.dropped.contains(&format!("{path}.{name}")) {
                let what = fields.and_then(|f| f.get(name)).map_or(String::new(), |f| self.said(f));
                self.problem(path, format!("`{name}` is missing{}{what}", if what.is_empty() { "" } else { ": " }));
            }
        }
        whole
    }

    fn list(&mut self, list: &mut [Value], items: &'s Value, path: &str) -> bool {
        let mut good = None;
        let mut bad = Vec::new();
        for (i, item) in list.iter_mut().enumerate() {
            let at = format!("{path}[{i}]");
            if items.is_null() || self.fits(item, items, &at) {
                good = good.or(Some(i));
            } else {
                bad.push(i);
                self.misfits.dropped.push(at);
            }
        }
        // The others keep their numbers: what is wrong with them too is told by these.
        if let Some(good) = good {
            bad.iter().for_each(|i| list[*i] = list[good].clone());
        }
        good.is_some() || bad.is_empty()
    }

    /// One of several words.
    fn word(&mut self, value: &Value, forms: &[&Value], path: &str) -> bool {
        let words: Vec<&str> = forms.iter().filter_map(|f| f["const"].as_str()).collect();
        match value.as_str() {
            // A variable that is not set has been told already.
            Some(word) if words.contains(&word) || word.contains("${") => true,
            Some(word) => {
                let guess = meant(word, &words).map_or(String::new(), |m| format!("; did you mean `{m}`?"));
                self.problem(path, format!("`{word}` is not one of {}{guess}", words.join(", ")))
            }
            None => self.problem(path, format!("must be one of {}, and is {}", words.join(", "), kind(value))),
        }
    }

    /// A map whose other fields depend on one of them.
    fn tagged(&mut self, value: &mut Value, forms: &[&'s Value], tag: &str, path: &str) -> bool {
        let word = |form: &Value| form["properties"][tag]["const"].as_str().unwrap_or_default().to_owned();
        let words: Vec<String> = forms.iter().map(|f| word(f)).collect();
        let Value::Object(map) = value else {
            return self.problem(path, format!("must be a map with `{tag}` ({}), and is {}", words.join(", "), kind(value)));
        };
        match map.get(tag).and_then(Value::as_str) {
            None => self.problem(path, format!("`{tag}` is missing: one of {}", words.join(", "))),
            Some(said) if said.contains("${") => true,
            Some(said) => match forms.iter().find(|f| word(f) == said) {
                Some(form) => self.map(map, form, path),
                None => {
                    let words: Vec<&str> = words.iter().map(String::as_str).collect();
                    let guess = meant(said, &words).map_or(String::new(), |m| format!("; did you mean `{m}`?"));
                    self.problem(&format!("{path}.{tag}"), format!("`{said}` is not one of {}{guess}", words.join(", ")))
                }
            },
        }
    }

    /// What is wanted, in words.
    fn wanted(&self, schema: &'s Value) -> String {
        let schema = self.resolve(schema);
        if schema["anyOf"].is_array() || schema["oneOf"].is_array() {
            let forms: Vec<String> = self.forms(schema).iter().map(|f| self.wanted(f)).collect();
            return forms.join(" or ");
        }
        if let Some(word) = schema["const"].as_str() {
            return format!("`{word}`");
        }
        if schema["pattern"].is_string() {
            return self.said(schema);
        }
        match schema["type"].as_str().or_else(|| schema["type"][0].as_str()) {
            Some("object") => match schema["properties"].as_object() {
                Some(fields) if fields.len() > 6 => format!("a map with {}, …", fields.keys().take(5).map(String::as_str).collect::<Vec<_>>().join(", ")),
                Some(fields) => format!("a map with {}", fields.keys().map(String::as_str).collect::<Vec<_>>().join(", ")),
                None => "a map, with a name for each".to_owned(),
            },
            Some("array") => "a list".to_owned(),
            Some("integer") => "a whole number".to_owned(),
            Some("number") => "a number".to_owned(),
            Some("boolean") => "`true` or `false`".to_owned(),
            _ => "text".to_owned(),
        }
    }

    /// A field's doc line.
    fn said(&self, schema: &'s Value) -> String {
        let text = schema["description"].as_str().or_else(|| self.resolve(schema)["description"].as_str());
        text.unwrap_or_default().replace('\n', " ")
    }
}

/// Whether a schema without alternatives takes a kind of value.
fn takes(schema: &Value, kind: &str) -> bool {
    schema["type"] == kind || schema["type"].as_array().is_some_and(|kinds| kinds.iter().any(|k| k == kind))
}

/// Whether a value is of a form's kind.
fn is_form(form: &Value, value: &Value) -> bool {
    if let Some(word) = form["const"].as_str() {
        return value.as_str() == Some(word);
    }
    form["type"].is_null()
        || match value {
            Value::Null => takes(form, "null"),
            Value::Bool(_) => takes(form, "boolean"),
            Value::Number(n) => takes(form, "number") || takes(form, "integer") && n.as_f64().is_some_and(|n| n.fract() == 0.0),
            Value::String(_) => takes(form, "string"),
            Value::Array(_) => takes(form, "array"),
            Value::Object(_) => takes(form, "object"),
        }
}

/// The field that tells several forms of a map apart.
fn tag<'s>(forms: &[&'s Value]) -> Option<&'s str> {
    let first = forms.first()?["properties"].as_object()?;
    let (name, _) = first.iter().find(|(_, field)| field["const"].is_string())?;
    (forms.len() > 1 && forms.iter().all(|f| f["properties"][name.as_str()]["const"].is_string())).then_some(name)
}

/// A value's kind in words. The value itself may be a secret.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "empty",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a map",
    }
}

/// What to do about the commonest slips.
fn hint(value: &Value, forms: &[&Value]) -> &'static str {
    let wants = |kind: &str| forms.iter().any(|f| takes(f, kind));
    match value {
        Value::Number(_) | Value::Bool(_) if forms.iter().all(|f| takes(f, "string") && f["pattern"].is_null()) => "; put it in quotes",
        Value::String(_) | Value::Object(_) if wants("array") => "; put it in brackets: `[…]`",
        Value::Array(_) if wants("object") => "; write `name: …` instead of `- …`",
        _ => "",
    }
}
