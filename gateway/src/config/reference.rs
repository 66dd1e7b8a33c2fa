//! The reference of the configuration in Markdown, made from its schema and thus from the fields' own doc lines.

use std::fmt::Write as _;

use serde_json::{Map, Value};

/// Types that people know by a word; how they are written stands once, at the top.
const WORDS: &[(&str, &str)] = &[("Span", "duration"), ("Size", "size"), ("Count", "count"), ("Secret", "secret"), ("Socket", "address and port")];

const HEAD: &str = "\
<!-- Generated from the code's doc lines by `trivium schema --markdown`. Do not edit: change the doc line, then `BLESS=1 cargo test -p gateway --test house`. -->
# Configuration

One YAML file, or a folder of `*.yaml` files whose sections are merged. Unknown fields are refused, and `trivium check` reports all problems at once with their paths.
`${NAME}` and `${NAME:-default}` are filled in from the environment, inside string values only, after the YAML has been read.

- **duration**: a number and a unit, such as `200ms`, `30s`, `5m`, `1h`, `7d`.
- **size**: bytes, or a number and a unit, such as `64KiB`, `8MiB`, `1MB`.
- **count**: a number, or one with `k` or `M`, such as `500`, `200k`, `1M`.
- **secret**: a string that is never printed. Take it from the environment: `\"${OPENAI_API_KEY}\"`.

For editors there is [a JSON Schema](config.schema.json) (`trivium schema`).
";

/// The reference of a schema made by [`super::schema`].
#[must_use]
pub fn reference(schema: &Value) -> String {
    let empty = Map::new();
    let mut page = Page { defs: schema["$defs"].as_object().unwrap_or(&empty), order: Vec::new() };
    let mut out = format!("{HEAD}\n## The file\n\n{}\n\n", text(schema));
    page.fields(schema, &mut out);
    let mut next = 0;
    // Writing one section may name others that have not been named before.
    while let Some(name) = page.order.get(next).cloned() {
        next += 1;
        let Some(def) = page.defs.get(&name) else { continue };
        let _ = write!(out, "\n## {}\n\n{}\n\n", title(&name), text(def));
        match def["oneOf"].as_array() {
            Some(forms) => page.forms(forms, &mut out),
            None => page.fields(def, &mut out),
        }
    }
    out
}

struct Page<'a> {
    defs: &'a Map<String, Value>,
    /// Types that have a section of their own, in the order in which they are first named.
    order: Vec<String>,
}

impl Page<'_> {
    fn fields(&mut self, object: &Value, out: &mut String) {
        let Some(fields) = object["properties"].as_object() else { return };
        let needed: Vec<&str> = object["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        out.push_str("| field | is | |\n|---|---|---|\n");
        for (name, field) in fields {
            let must = if needed.contains(&name.as_str()) { ", required" } else { "" };
            let kind = self.kind(field);
            let said = if text(field).is_empty() { field["$ref"].as_str().and_then(|r| self.defs.get(last(r))).map_or("", text) } else { text(field) };
            let _ = writeln!(out, "| `{name}` | {kind}{must} | {} |", said.replace('|', "\\|"));
        }
    }

    /// The values of an enumeration, or the forms that an object can take.
    fn forms(&mut self, forms: &[Value], out: &mut String) {
        for form in forms {
            match (form["const"].as_str(), form["properties"]["kind"]["const"].as_str()) {
                (Some(value), _) => {
                    let _ = writeln!(out, "- `{value}`: {}", text(form));
                }
                (None, kind) => {
                    let _ = write!(out, "### `kind: {}`\n\n{}\n\n", kind.unwrap_or_default(), text(form));
                    let mut rest = form.clone();
                    if let Some(fields) = rest["properties"].as_object_mut() {
                        fields.shift_remove("kind");
                    }
                    if rest["properties"].as_object().is_some_and(|f| !f.is_empty()) {
                        self.fields(&rest, out);
                        out.push('\n');
                    }
                }
            }
        }
    }

    /// What a field holds, in a word or a link.
    fn kind(&mut self, schema: &Value) -> String {
        if let Some(name) = schema["$ref"].as_str().map(last) {
            return self.named(name);
        }
        if let Some(value) = schema["const"].as_str() {
            return format!("`{value}`");
        }
        if let Some(several) = schema["anyOf"].as_array() {
            let kinds: Vec<String> = several.iter().filter(|s| s["type"] != "null").map(|s| self.kind(s)).collect();
            return kinds.join(" or ");
        }
        let kind = schema["type"].as_str().or_else(|| schema["type"].as_array()?.iter().filter_map(Value::as_str).find(|t| *t != "null"));
        match kind {
            Some("array") => format!("list of {}", self.kind(&schema["items"])),
            Some("object") if schema["additionalProperties"].is_object() => format!("map of {}", self.kind(&schema["additionalProperties"])),
            Some("object") => "map".to_owned(),
            Some(other) => other.to_owned(),
            None => "any value".to_owned(),
        }
    }

    /// A named type: by its word, spelled out if it is short, or linked.
    fn named(&mut self, name: &str) -> String {
        if let Some((_, word)) = WORDS.iter().find(|(known, _)| *known == name) {
            return (*word).to_owned();
        }
        let Some(def) = self.defs.get(name) else { return name.to_owned() };
        match def["oneOf"].as_array().map(Vec::as_slice) {
            Some([only]) if only["const"].is_string() => return self.kind(only),
            _ if def["anyOf"].is_array() => return self.kind(def),
            _ => {}
        }
        if !self.order.iter().any(|n| n == name) {
            self.order.push(name.to_owned());
        }
        format!("[{}](#{})", title(name), title(name).to_lowercase())
    }
}

fn text(schema: &Value) -> &str {
    schema["description"].as_str().unwrap_or_default()
}

fn last(reference: &str) -> &str {
    reference.rsplit('/').next().unwrap_or_default()
}

fn title(name: &str) -> &str {
    name.strip_suffix("Config").unwrap_or(name)
}
