//! A token as text (RFC 7519): told apart from an API key and cut into its parts. Nothing in it is believed here.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::Refusal;
use super::claims::Claims;

/// Tokens that are longer are refused unread.
const LONGEST: usize = 16 << 10;

/// A token in three parts.
pub struct Token<'t> {
    header: Map<String, Value>,
    /// Header and claims as they were signed.
    pub(super) signed: &'t str,
    claims: &'t str,
    /// In base64url.
    pub(super) signature: &'t str,
}

impl<'t> Token<'t> {
    /// Cuts a token: three parts in base64url with dots between, the first of them JSON with `alg`. Anything else is none,
    /// and may be an API key.
    #[must_use]
    pub fn cut(text: &'t str) -> Option<Self> {
        let (signed, signature) = text.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let base64url = |part: &str| part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if header.is_empty() || claims.is_empty() || ![header, claims, signature].into_iter().all(base64url) {
            return None;
        }
        let header: Map<String, Value> = object(header)?;
        header.contains_key("alg").then_some(Token { header, signed, claims, signature })
    }

    /// The algorithm of its signature and the name of its key.
    ///
    /// # Errors
    /// When the header is wrong, or names extensions: whoever does not know them must refuse (RFC 7515, 4.1.11), and there
    /// are none that are known here.
    pub(super) fn head(&self) -> Result<(&str, Option<&str>), Refusal> {
        if self.signed.len() + self.signature.len() >= LONGEST {
            return Err(Refusal::Malformed("it is longer than 16 KiB"));
        }
        if self.header.contains_key("crit") {
            return Err(Refusal::Malformed("its header has `crit`"));
        }
        let algorithm = self.header["alg"].as_str().ok_or(Refusal::Malformed("its `alg` is not text"))?;
        match self.header.get("kid") {
            None => Ok((algorithm, None)),
            Some(Value::String(kid)) => Ok((algorithm, Some(kid))),
            Some(_) => Err(Refusal::Malformed("its `kid` is not text")),
        }
    }

    /// Its claims.
    ///
    /// # Errors
    /// When they are not an object of JSON.
    pub(super) fn claims(&self) -> Result<Claims, Refusal> {
        object(self.claims).map(Claims::new).ok_or(Refusal::Malformed("its claims are not an object of JSON"))
    }
}

/// A part that is an object. How deep it may go is bounded by the reader of JSON.
fn object(part: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(header: &str, claims: &str) -> String {
        format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims))
    }

    #[test]
    fn tokens_are_told_from_keys() {
        assert!(Token::cut(&text(r#"{"alg":"RS256"}"#, "{}")).is_some());
        assert!(Token::cut(text(r#"{"alg":"none"}"#, "{}").trim_end_matches("c2ln")).is_some(), "without a signature too");
        let deep = format!("{{\"alg\":{}1{}}}", "[".repeat(1000), "]".repeat(1000));
        for key in ["tv-abc", "sk-a.b.c", "a.b", "e30.e30.e30", &text("alg", "{}"), &text(&deep, "{}"), &format!("{}.x", text(r#"{"alg":"RS256"}"#, "{}")), ""] {
            assert!(Token::cut(key).is_none(), "{key}");
        }
    }

    #[test]
    fn what_is_wrong_in_a_header_is_refused() {
        let head = |header: &str| Token::cut(&text(header, "{}")).unwrap().head().map(|(alg, kid)| (alg.to_owned(), kid.map(str::to_owned)));
        assert_eq!(head(r#"{"alg":"RS256","kid":"a"}"#), Ok(("RS256".into(), Some("a".into()))));
        for wrong in [r#"{"alg":"RS256","crit":["b64"]}"#, r#"{"alg":"RS256","crit":null}"#, r#"{"alg":7}"#, r#"{"alg":"RS256","kid":7}"#] {
            assert!(matches!(head(wrong), Err(Refusal::Malformed(_))), "{wrong}");
        }
    }

    #[test]
    fn claims_must_be_an_object_of_bounded_depth_and_length() {
        let header = r#"{"alg":"RS256"}"#;
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(4000), "]".repeat(4000));
        for claims in ["7", "[]", "{", &deep] {
            assert!(Token::cut(&text(header, claims)).unwrap().claims().is_err(), "{claims:.20}");
        }
        let long = text(header, &format!("{{\"a\":\"{}\"}}", "x".repeat(100_000)));
        assert_eq!(Token::cut(&long).unwrap().head().map(|_| ()), Err(Refusal::Malformed("it is longer than 16 KiB")));
    }
}
