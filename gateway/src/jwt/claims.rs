//! What a token claims: its times, whom it is for, who it speaks of.

use serde_json::{Map, Value};

use super::Refusal;

/// A token that was issued later than this many seconds from now comes from a clock that is not to be trusted.
const FUTURE: u64 = 3600;
/// Longest name of a consumer, in bytes.
const LONGEST_NAME: usize = 128;

/// The claims of a token.
pub(super) struct Claims(Map<String, Value>);

impl Claims {
    pub(super) fn new(claims: Map<String, Value>) -> Self {
        Claims(claims)
    }

    /// Who issued it.
    pub(super) fn issuer(&self) -> Option<&str> {
        self.0.get("iss")?.as_str()
    }

    /// Whether it is for one of these.
    pub(super) fn is_for(&self, audience: &[String]) -> bool {
        let ours = |value: &Value| value.as_str().is_some_and(|text| audience.iter().any(|a| a == text));
        match self.0.get("aud") {
            Some(Value::Array(list)) => list.iter().any(ours),
            Some(one) => ours(one),
            None => false,
        }
    }

    /// Checks that it is valid now (seconds since 1970), and says until when.
    pub(super) fn times(&self, now: u64, leeway: u64) -> Result<u64, Refusal> {
        let expires = self.seconds("exp")?.ok_or(Refusal::Malformed("it has no `exp`"))?;
        let ends = expires.saturating_add(leeway);
        if now >= ends {
            return Err(Refusal::Expired(now - expires));
        }
        let begins = self.seconds("nbf")?.unwrap_or(0);
        if begins > now.saturating_add(leeway) {
            return Err(Refusal::NotYet(begins - now));
        }
        let issued = self.seconds("iat")?.unwrap_or(0);
        if issued > now.saturating_add(leeway + FUTURE) {
            return Err(Refusal::NotYet(issued - now));
        }
        Ok(ends)
    }

    /// A moment; a fraction of a second is cut off.
    fn seconds(&self, name: &str) -> Result<Option<u64>, Refusal> {
        match self.0.get(name) {
            None => Ok(None),
            Some(value) => value.as_f64().filter(|s| s.is_finite()).map(|s| Some(s as u64)).ok_or(Refusal::Malformed("one of its times is not a number")),
        }
    }

    /// The name at a path, if it is fit to be a consumer's.
    pub(super) fn name(&self, path: &str) -> Option<&str> {
        let name = at(&self.0, path)?.as_str()?;
        ((1..=LONGEST_NAME).contains(&name.len()) && !name.chars().any(char::is_control)).then_some(name)
    }

    /// The words at a path: a list, or a text with spaces or commas between.
    pub(super) fn words(&self, path: &str) -> Vec<&str> {
        match at(&self.0, path) {
            Some(Value::Array(list)) => list.iter().filter_map(Value::as_str).collect(),
            Some(Value::String(text)) => text.split([' ', ',']).filter(|word| !word.is_empty()).collect(),
            _ => Vec::new(),
        }
    }
}

/// The value at a path. Names of claims may have dots in them (`https://example.com/groups`), so a whole name comes before
/// a path.
fn at<'c>(claims: &'c Map<String, Value>, path: &str) -> Option<&'c Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    path.match_indices('.').find_map(|(dot, _)| match claims.get(&path[..dot]) {
        Some(Value::Object(inner)) => at(inner, &path[dot + 1..]),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(value: Value) -> Claims {
        let Value::Object(map) = value else { panic!("claims are an object") };
        Claims(map)
    }

    #[test]
    fn times_are_held_with_leeway() {
        let times = |value: Value| claims(value).times(1000, 60);
        assert_eq!(times(json!({ "exp": 1001 })), Ok(1061));
        assert_eq!(times(json!({ "exp": 941.9 })), Ok(1001));
        assert_eq!(times(json!({ "exp": 940 })), Err(Refusal::Expired(60)));
        assert_eq!(times(json!({ "exp": -5 })), Err(Refusal::Expired(1000)));
        assert_eq!(times(json!({ "exp": 1e300 })), Ok(u64::MAX));
        assert_eq!(times(json!({ "exp": 2000, "nbf": 1060 })), Ok(2060));
        assert_eq!(times(json!({ "exp": 2000, "nbf": 1061 })), Err(Refusal::NotYet(61)));
        assert_eq!(times(json!({ "exp": 9000, "iat": 1000 + 60 + 3600 })), Ok(9060));
        assert_eq!(times(json!({ "exp": 9000, "iat": 1000 + 60 + 3601 })), Err(Refusal::NotYet(3661)));
        for wrong in [json!({}), json!({ "exp": "1001" }), json!({ "exp": null }), json!({ "exp": 2000, "nbf": "now" }), json!({ "exp": 2000, "iat": [] })] {
            assert!(matches!(times(wrong.clone()), Err(Refusal::Malformed(_))), "{wrong}");
        }
    }

    #[test]
    fn the_audience_is_one_or_several() {
        let ours = ["trivium".to_owned(), "other".to_owned()];
        for good in [json!("trivium"), json!(["x", "other"])] {
            assert!(claims(json!({ "aud": good })).is_for(&ours));
        }
        for bad in [json!("trivium2"), json!(["x"]), json!([]), json!(7), json!({ "trivium": 1 })] {
            assert!(!claims(json!({ "aud": bad })).is_for(&ours), "{bad}");
        }
        assert!(!claims(json!({})).is_for(&ours));
    }

    #[test]
    fn names_and_groups_are_found_where_they_are() {
        let c = claims(json!({
            "sub": "ann", "profile": { "name": "bob" }, "n": 7, "empty": "", "line": "a\nb", "long": "x".repeat(129), "fits": "é".repeat(64),
            "realm_access": { "roles": ["a", 7, "b"] }, "scope": "read, write  all", "https://example.com/groups": ["dotted"],
            "resource_access": { "my.client": { "roles": ["deep"] } },
        }));
        assert_eq!((c.name("sub"), c.name("profile.name")), (Some("ann"), Some("bob")));
        assert!(c.name("fits").is_some());
        for none in ["n", "empty", "line", "long", "profile", "missing", "profile.", ".", ""] {
            assert_eq!(c.name(none), None, "{none}");
        }
        assert_eq!(c.words("realm_access.roles"), ["a", "b"]);
        assert_eq!(c.words("scope"), ["read", "write", "all"]);
        assert_eq!(c.words("https://example.com/groups"), ["dotted"]);
        assert_eq!(c.words("resource_access.my.client.roles"), ["deep"]);
        assert!(c.words("sub.x").is_empty() && c.words("n").is_empty());
    }
}
