//! Schemas as Gemini takes them: JSON Schema nearly as it comes, or, for models before 2.5, the part of OpenAPI's schema
//! that they know.
#![allow(unreachable_pub, reason = "`open!` declares public structs")]

use std::borrow::Cow;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::wire::open;

open! {
    /// The outermost object of a schema.
    Root {
        /// Names the draft; not a keyword that constrains anything.
        "$schema" draft: &'a RawValue,
        /// Type.
        "type" kind: &'a RawValue,
    }
}

/// How deep references are followed: a recursive schema has no end, and older models have no references.
const MAX_DEPTH: usize = 24;
/// How many schemas may come of it: each reference is written out, and may hold several others.
const MOST: usize = 5000;

/// A JSON Schema without `$schema`, which some of Google's endpoints refuse; everything else keeps its bytes.
pub(super) fn json_schema(raw: &RawValue) -> Cow<'_, RawValue> {
    if memchr::memmem::find(raw.get().as_bytes(), b"\"$schema\"").is_none() {
        return Cow::Borrowed(raw);
    }
    let cleaned = serde_json::from_str::<Root<'_>>(raw.get()).and_then(|mut root| {
        root.draft = None;
        serde_json::value::to_raw_value(&root)
    });
    cleaned.map_or(Cow::Borrowed(raw), Cow::Owned)
}

/// Whether a schema's root says something else than an object, which no function's arguments can be.
pub(super) fn is_not_object(raw: &RawValue) -> bool {
    match serde_json::from_str::<Root<'_>>(raw.get()) {
        Ok(root) => root.kind.is_some_and(|kind| kind.get() != "\"object\"" && kind.get() != "null"),
        Err(_) => true,
    }
}

/// A JSON Schema in OpenAPI's terms. `None` where it has none: it is recursive, or refers to what is not in it.
pub(super) fn openapi(raw: &RawValue) -> Option<Value> {
    let root: Value = serde_json::from_str(raw.get()).ok()?;
    convert(&root, &root, 0, &mut 0)
}

fn convert(schema: &Value, root: &Value, depth: usize, count: &mut usize) -> Option<Value> {
    *count += 1;
    if depth > MAX_DEPTH || *count > MOST {
        return None;
    }
    let Some(schema) = schema.as_object() else { return Some(Value::Object(Map::new())) };
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        return convert(root.pointer(reference.strip_prefix('#')?)?, root, depth + 1, count);
    }
    let mut out = Map::new();
    for (key, value) in schema {
        match key.as_str() {
            "type" => kind(value, &mut out),
            "const" => {
                out.insert("enum".into(), Value::Array(vec![value.clone()]));
            }
            "enum" => {
                // Only strings can be listed.
                let strings: Vec<Value> = value.as_array()?.iter().filter(|v| v.is_string()).cloned().collect();
                if !strings.is_empty() {
                    out.insert(key.clone(), Value::Array(strings));
                }
            }
            "format" if matches!(value.as_str(), Some("enum" | "date-time" | "float" | "double" | "int32" | "int64")) => {
                out.insert(key.clone(), value.clone());
            }
            "properties" => {
                let mut properties = Map::new();
                for (name, property) in value.as_object()? {
                    properties.insert(name.clone(), convert(property, root, depth + 1, count)?);
                }
                // An object of no properties is refused where they are spelt out.
                if !properties.is_empty() {
                    out.insert(key.clone(), Value::Object(properties));
                }
            }
            "items" => {
                out.insert(key.clone(), convert(value, root, depth + 1, count)?);
            }
            "anyOf" | "oneOf" => choices(value.as_array()?, root, depth, &mut out, count)?,
            "required" if value.as_array().is_some_and(Vec::is_empty) => {}
            "title" | "description" | "nullable" | "required" | "minItems" | "maxItems" | "minimum" | "maximum" | "minLength" | "maxLength" | "pattern" | "propertyOrdering" => {
                out.insert(key.clone(), value.clone());
            }
            _ => {}
        }
    }
    Some(Value::Object(out))
}

/// `type`, which may be a list with `null` in JSON Schema.
fn kind(value: &Value, out: &mut Map<String, Value>) {
    match value {
        Value::Array(kinds) => {
            let mut real = kinds.iter().filter(|k| k.as_str() != Some("null"));
            if let Some(first) = real.next() {
                out.insert("type".into(), first.clone());
            }
            if kinds.iter().any(|k| k.as_str() == Some("null")) {
                out.insert("nullable".into(), true.into());
            }
        }
        _ => {
            out.insert("type".into(), value.clone());
        }
    }
}

/// `anyOf`: a choice of `null` is `nullable`, a single choice left is the schema itself.
fn choices(list: &[Value], root: &Value, depth: usize, out: &mut Map<String, Value>, count: &mut usize) -> Option<()> {
    let mut real = Vec::new();
    for choice in list {
        if choice["type"] == "null" {
            out.insert("nullable".into(), true.into());
        } else {
            real.push(convert(choice, root, depth + 1, count)?);
        }
    }
    if real.len() == 1 {
        if let Some(Value::Object(only)) = real.pop() {
            out.extend(only);
        }
    } else {
        out.insert("anyOf".into(), Value::Array(real));
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.into()).unwrap()
    }

    #[test]
    fn the_draft_goes_and_all_else_keeps_its_bytes() {
        let schema = raw(r#"{"$schema":"x","type":"object","properties":{"n":{"maximum":123456789012345678901234567890}}}"#);
        assert_eq!(json_schema(&schema).get(), r#"{"type":"object","properties":{"n":{"maximum":123456789012345678901234567890}}}"#);
        let plain = raw(r#"{ "type" : "object" }"#);
        assert_eq!(json_schema(&plain).get(), plain.get());
        assert!(is_not_object(&raw(r#"{"type":"array"}"#)) && !is_not_object(&raw("{}")) && is_not_object(&raw("true")));
    }

    #[test]
    fn references_unions_and_constants_become_what_older_models_know() {
        let schema = raw(r##"{"type":"object","additionalProperties":false,"$defs":{"U":{"enum":["c","f"]}},"properties":{
                "unit":{"$ref":"#/$defs/U"},"a":{"type":["string","null"]},"b":{"anyOf":[{"type":"integer"},{"type":"null"}]},
                "c":{"const":"x"},"d":{"oneOf":[{"type":"string"},{"type":"number","format":"decimal"}]},"e":{"type":"object","properties":{}}},"required":[]}"##);
        let out = openapi(&schema).unwrap();
        assert_eq!(
            out.to_string(),
            r#"{"type":"object","properties":{"unit":{"enum":["c","f"]},"a":{"type":"string","nullable":true},"b":{"nullable":true,"type":"integer"},"c":{"enum":["x"]},"d":{"anyOf":[{"type":"string"},{"type":"number"}]},"e":{"type":"object"}}}"#
        );
        let doubling: Vec<String> = (0..20).map(|i| format!(r##""D{i}":{{"anyOf":[{{"$ref":"#/$defs/D{0}"}},{{"$ref":"#/$defs/D{0}"}}]}}"##, i + 1)).collect();
        assert_eq!(openapi(&raw(&format!(r##"{{"$ref":"#/$defs/D0","$defs":{{{},"D20":{{"type":"string"}}}}}}"##, doubling.join(",")))), None);
        assert_eq!(openapi(&raw(r##"{"$ref":"#/$defs/N","$defs":{"N":{"properties":{"next":{"$ref":"#/$defs/N"}}}}}"##)), None);
    }
}
