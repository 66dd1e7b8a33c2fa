//! Which schemas Claude's constrained sampling takes. What it does not take it refuses as a whole, so that such a schema has
//! to go another way.

use std::collections::HashSet;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

/// Keywords that it takes, or that say nothing.
const KNOWN: &[&str] = &[
    "$schema",
    "$id",
    "$comment",
    "$defs",
    "definitions",
    "$ref",
    "type",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "enum",
    "const",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "minItems",
    "anyOf",
    "allOf",
    "format",
    "pattern",
];
/// Formats of strings that it takes.
const FORMATS: &[&str] = &["date-time", "date", "time", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"];
/// How many references may lead from one to the next: far more than people write, and no more than the stack holds.
const CHAIN: usize = 32;

/// Whether a schema is one of closed objects without bounds and without recursion.
pub(crate) fn is_closed(schema: &RawValue) -> bool {
    let Ok(root) = serde_json::from_str::<Value>(schema.get()) else { return false };
    let mut walk = Walk { root: &root, path: Vec::new(), done: HashSet::new() };
    root.is_object() && walk.schema(&root)
}

struct Walk<'s> {
    root: &'s Value,
    /// The references that led here.
    path: Vec<&'s str>,
    /// References that have been looked at to their end.
    done: HashSet<&'s str>,
}

impl<'s> Walk<'s> {
    fn schema(&mut self, schema: &'s Value) -> bool {
        // `true` stands for anything, which no closed schema has.
        let Value::Object(map) = schema else { return false };
        map.keys().all(|key| KNOWN.contains(&key.as_str()) || key.starts_with("x-")) && plain(map) && self.reference(map) && self.below(map)
    }

    fn reference(&mut self, map: &'s Map<String, Value>) -> bool {
        let Some(reference) = map.get("$ref") else { return true };
        let Some(pointer) = reference.as_str().and_then(|r| r.strip_prefix('#')) else { return false };
        if self.done.contains(pointer) {
            return true;
        }
        if self.path.contains(&pointer) || self.path.len() >= CHAIN {
            return false;
        }
        let Some(target) = self.root.pointer(pointer) else { return false };
        self.path.push(pointer);
        let fine = self.schema(target);
        self.path.pop();
        self.done.insert(pointer);
        fine
    }

    fn below(&mut self, map: &'s Map<String, Value>) -> bool {
        ["properties", "$defs", "definitions"].iter().filter_map(|key| map.get(*key)).all(|named| named.as_object().is_some_and(|n| n.values().all(|s| self.schema(s))))
            && ["anyOf", "allOf"].iter().filter_map(|key| map.get(*key)).all(|list| list.as_array().is_some_and(|l| l.iter().all(|s| self.schema(s))))
            && map.get("items").is_none_or(|items| self.schema(items))
    }
}

/// What can be told of a schema without looking below it.
fn plain(map: &Map<String, Value>) -> bool {
    let is_object = map.get("type").is_some_and(|t| t == "object" || t.as_array().is_some_and(|list| list.iter().any(|t| t == "object")));
    let closed = map.get("additionalProperties").map_or(!is_object, |a| *a == Value::Bool(false));
    let simple = |key: &str| map.get(key).is_none_or(|v| v.as_array().is_none_or(|list| list.iter().all(|v| !v.is_object() && !v.is_array())));
    let refers = |list: &Value| list.as_array().is_some_and(|l| l.iter().any(|s| s.get("$ref").is_some()));
    closed
        && simple("enum")
        && map.get("minItems").is_none_or(|n| n.as_u64().is_some_and(|n| n <= 1))
        && map.get("format").is_none_or(|f| f.as_str().is_some_and(|f| FORMATS.contains(&f)))
        // Neither looks around nor back.
        && map.get("pattern").is_none_or(|p| p.as_str().is_some_and(|p| !p.contains("(?") && !p.contains("\\b") && !p.contains("\\B") && !(1..=9).any(|n| p.contains(&format!("\\{n}")))))
        && !map.get("allOf").is_some_and(refers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn closed(schema: &str) -> bool {
        is_closed(&RawValue::from_string(schema.to_owned()).unwrap())
    }

    #[test]
    fn closed_objects_are_taken() {
        assert!(closed(
            r##"{"$schema":"x","type":"object","additionalProperties":false,"required":["a"],"$defs":{"U":{"type":"string","enum":["c",1,null]},"V":{"type":"array","minItems":1,"items":{"$ref":"#/$defs/U"}}},
                "properties":{"minimum":{"type":["string","null"],"format":"date"},"a":{"$ref":"#/$defs/V"},"b":{"anyOf":[{"$ref":"#/$defs/V"},{"type":"null"}]},"c":{"type":"string","pattern":"^[a-z]{2}$"}}}"##
        ));
    }

    #[test]
    fn what_would_be_refused_is_told_apart() {
        let property = |schema: &str| closed(&format!(r#"{{"type":"object","additionalProperties":false,"properties":{{"a":{schema}}}}}"#));
        assert!(property(r#"{"type":"integer"}"#));
        for schema in [
            r#"{"type":"integer","minimum":0}"#,
            r#"{"type":"string","maxLength":3}"#,
            r#"{"type":"array","minItems":2,"items":{"type":"string"}}"#,
            r#"{"type":"array","items":true}"#,
            r#"{"type":"object","properties":{}}"#,
            r#"{"type":["object","null"]}"#,
            r#"{"type":"object","additionalProperties":{"type":"string"}}"#,
            r#"{"oneOf":[{"type":"string"}]}"#,
            r#"{"type":"string","format":"byte"}"#,
            r#"{"type":"string","pattern":"(?=a)b"}"#,
            r#"{"type":"string","pattern":"(a)\\1"}"#,
            r#"{"enum":[{"a":1}]}"#,
            r#"{"$ref":"https://example.com/s.json"}"#,
            r##"{"$ref":"#/$defs/missing"}"##,
            r#"{"allOf":[{"$ref":"x"}]}"#,
            "true",
        ] {
            assert!(!property(schema), "{schema}");
        }
        assert!(!closed("7") && !closed(r#"{"type":"object"}"#));
    }

    #[test]
    fn recursion_and_endless_references_come_to_an_end() {
        assert!(!closed(r##"{"type":"object","additionalProperties":false,"properties":{"next":{"$ref":"#"}}}"##));
        assert!(!closed(r##"{"$ref":"#/$defs/A","$defs":{"A":{"$ref":"#/$defs/B"},"B":{"anyOf":[{"$ref":"#/$defs/A"}]}}}"##));
        // Each refers twice to the next: looked at once all the same.
        let doubling = |n: usize| {
            let mut defs: Vec<String> = (0..n).map(|i| format!(r##""D{i}":{{"anyOf":[{{"$ref":"#/$defs/D{0}"}},{{"$ref":"#/$defs/D{0}"}}]}}"##, i + 1)).collect();
            defs.push(format!(r#""D{n}":{{"type":"null"}}"#));
            format!(r##"{{"$ref":"#/$defs/D0","$defs":{{{}}}}}"##, defs.join(","))
        };
        assert!(closed(&doubling(30)));
        assert!(!closed(&doubling(5000)));
    }
}
