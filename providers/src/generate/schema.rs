//! Gemini's own schemas (a part of OpenAPI's, types in capitals) as JSON Schema.

use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value};

/// The schema as JSON Schema.
pub(super) fn to_json_schema(raw: &RawValue) -> Option<Box<RawValue>> {
    let schema: Value = serde_json::from_str(raw.get()).ok()?;
    to_raw_value(&convert(schema)).ok()
}

fn convert(schema: Value) -> Value {
    let Value::Object(schema) = schema else { return schema };
    let nullable = schema.get("nullable") == Some(&Value::Bool(true));
    let mut out = Map::with_capacity(schema.len());
    for (key, value) in schema {
        let value = match (key.as_str(), value) {
            ("type", Value::String(kind)) => {
                let kind = Value::String(kind.to_ascii_lowercase());
                if nullable { Value::Array(vec![kind, "null".into()]) } else { kind }
            }
            ("properties" | "$defs" | "defs", Value::Object(properties)) => Value::Object(properties.into_iter().map(|(name, property)| (name, convert(property))).collect()),
            ("items" | "additionalProperties", value) => convert(value),
            ("anyOf", Value::Array(choices)) => {
                let null = nullable.then(|| serde_json::json!({ "type": "null" }));
                Value::Array(choices.into_iter().map(convert).chain(null).collect())
            }
            // Google writes 64-bit numbers as strings.
            ("minItems" | "maxItems" | "minLength" | "maxLength" | "minProperties" | "maxProperties", Value::String(n)) => n.parse::<u64>().map_or(Value::String(n), Value::from),
            ("nullable" | "propertyOrdering" | "property_ordering" | "example", _) => continue,
            ("format", Value::String(format)) if format == "enum" => continue,
            (_, value) => value,
        };
        out.insert(key, value);
    }
    Value::Object(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_become_small_and_null_becomes_a_type() {
        let raw = RawValue::from_string(
            r#"{"type":"OBJECT","propertyOrdering":["a"],"properties":{"a":{"type":"ARRAY","minItems":"2","items":{"type":"STRING","format":"enum","enum":["x"]}},"type":{"type":"INTEGER","nullable":true},"u":{"anyOf":[{"type":"STRING"}],"nullable":true}},"required":["a"]}"#
                .into(),
        )
        .unwrap();
        assert_eq!(
            to_json_schema(&raw).unwrap().get(),
            r#"{"type":"object","properties":{"a":{"type":"array","minItems":2,"items":{"type":"string","enum":["x"]}},"type":{"type":["integer","null"]},"u":{"anyOf":[{"type":"string"},{"type":"null"}]}},"required":["a"]}"#
        );
    }
}
