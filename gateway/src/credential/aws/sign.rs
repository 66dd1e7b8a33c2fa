//! Signature Version 4 of a request whose body may come in pieces.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::request::Parts;
use http::{HeaderName, HeaderValue};
use sha2::{Digest, Sha256};

use crate::credential::CredentialError;

/// Headers that belong to a signature: those of an earlier try must not be signed again.
const OWN: [HeaderName; 4] = [AUTHORIZATION, HeaderName::from_static("x-amz-date"), HeaderName::from_static("x-amz-security-token"), HeaderName::from_static("x-amz-content-sha256")];

/// SHA-256 of a body, as SigV4 writes it.
pub(in crate::credential) fn digest(pieces: &[Bytes]) -> String {
    let mut hash = Sha256::new();
    pieces.iter().for_each(|piece| hash.update(piece));
    let mut text = String::with_capacity(64);
    for byte in hash.finalize() {
        for half in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(half), 16).unwrap_or('0'));
        }
    }
    text
}

/// Signs method, URI, `host`, `content-type`, every `x-amz-*` header and the body's digest. Other headers stay outside: what
/// stands on the way may change them.
///
/// The path must be percent-encoded once, as it goes over the wire. The canonical request has it encoded a second time, which is
/// the rule for every service but S3: a model's `:` is sent as `%3A` and signed as `%253A`.
pub(in crate::credential) fn sign_parts(parts: &mut Parts, digest: String, credentials: &Credentials, region: &str, service: &str, now: SystemTime) -> Result<(), CredentialError> {
    let cannot = |why: &dyn std::fmt::Display| CredentialError::Sign(why.to_string());
    if parts.uri.authority().is_none() || parts.uri.scheme().is_none() {
        return Err(cannot(&"its URI has no scheme and host"));
    }
    OWN.iter().for_each(|name| drop(parts.headers.remove(name)));
    let mut headers = Vec::with_capacity(4);
    for (name, value) in &parts.headers {
        if *name == CONTENT_TYPE || *name == HOST || name.as_str().starts_with("x-amz") {
            headers.push((name.as_str(), value.to_str().map_err(|_| cannot(&format_args!("the header {name} is not plain text")))?));
        }
    }
    let request = SignableRequest::new(parts.method.as_str(), parts.uri.to_string(), headers.into_iter(), SignableBody::Precomputed(digest)).map_err(|e| cannot(&e))?;
    let identity = credentials.clone().into();
    let params = v4::SigningParams::builder().identity(&identity).region(region).name(service).time(now).settings(SigningSettings::default()).build().map_err(|e| cannot(&e))?;
    let (instructions, _) = sign(request, &params.into()).map_err(|e| cannot(&e))?.into_parts();
    for header in instructions.into_parts().0 {
        let mut value = HeaderValue::from_str(header.value()).map_err(|_| cannot(&"the session token has characters that no header may have"))?;
        // The signature is of use to who reads it for minutes only, the session token for hours; neither belongs in a log.
        value.set_sensitive(header.name() != "x-amz-date");
        parts.headers.insert(header.name(), value);
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

    fn signed(request: http::request::Builder, body: &'static [u8], token: Option<&str>, service: &str, at: u64) -> Parts {
        let mut parts = request.body(()).unwrap().into_parts().0;
        let credentials = crate::credential::aws::credentials("AKIDEXAMPLE", SECRET, token.map(str::to_owned));
        let (a, b) = body.split_at(body.len() / 2);
        sign_parts(&mut parts, digest(&[Bytes::from_static(a), Bytes::from_static(b)]), &credentials, "us-east-1", service, UNIX_EPOCH + Duration::from_secs(at)).unwrap();
        parts
    }

    fn authorization(parts: &Parts) -> &str {
        parts.headers[AUTHORIZATION].to_str().unwrap()
    }

    /// `post-vanilla` and `get-vanilla-with-session-token` of AWS's signing test suite.
    #[test]
    fn the_test_suite_of_aws() {
        let parts = signed(http::Request::post("https://example.amazonaws.com/"), b"", None, "service", 1_440_938_160);
        assert_eq!(
            authorization(&parts),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders=host;x-amz-date, Signature=5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"
        );
        assert_eq!(parts.headers["x-amz-date"], "20150830T123600Z");
        let token = "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267";
        let parts = signed(http::Request::get("https://example.amazonaws.com/"), b"", Some(token), "service", 1_440_938_160);
        assert_eq!(
            authorization(&parts),
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders=host;x-amz-date;x-amz-security-token, Signature=07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8"
        );
        assert_eq!(parts.headers["x-amz-security-token"], token);
    }

    /// Model ids and ARNs in Bedrock's paths; the signatures are botocore's for the same requests.
    #[test]
    fn paths_of_bedrock() {
        const BODY: &[u8] = br#"{"messages":[{"role":"user","content":[{"text":"hi"}]}]}"#;
        let sign = |uri: &str, token| {
            let parts = signed(http::Request::post(uri).header("content-type", "application/json").header("accept", "*/*"), BODY, token, "bedrock", 1_735_787_045);
            let text = authorization(&parts).to_owned();
            text.split_once("SignedHeaders=").map(|(_, rest)| rest.to_owned()).unwrap()
        };
        let host = "https://bedrock-runtime.us-east-1.amazonaws.com";
        assert_eq!(
            sign(&format!("{host}/model/anthropic.claude-3-haiku-20240307-v1%3A0/converse"), None),
            "content-type;host;x-amz-date, Signature=18dcd39c9e7fae45fcfd7c0c25e540eea5b0d55307a481aaa17fe8ffcb12cbc3"
        );
        let arn = "arn%3Aaws%3Abedrock%3Aus-east-1%3A123456789012%3Ainference-profile%2Fus.anthropic.claude-sonnet-4-20250514-v1%3A0";
        assert_eq!(
            sign(&format!("{host}/model/{arn}/converse-stream"), Some("SESSION/TOKEN+==")),
            "content-type;host;x-amz-date;x-amz-security-token, Signature=19123a35232b64615e0f6e7954cc8af949ef8dc707cd41853761037e9b4f8b40"
        );
        assert_eq!(sign("http://127.0.0.1:8080/model/m/converse?b=2&a=1%2F2", None), "content-type;host;x-amz-date, Signature=ad64c0f71e2d1f6214cd8c37d64298b7cc6538b04679fe4b3358608a49db9601");
    }

    #[test]
    fn a_second_try_is_signed_as_the_first() {
        let request = || http::Request::post("https://example.amazonaws.com/").header("x-amzn-bedrock-trace", "ENABLED");
        let once = signed(request(), b"", None, "service", 1_440_938_160);
        let stale = request().header("authorization", "old").header("x-amz-date", "old").header("x-amz-security-token", "old");
        let twice = signed(stale, b"", None, "service", 1_440_938_160);
        assert_eq!(once.headers, twice.headers);
        assert!(authorization(&once).contains("host;x-amz-date;x-amzn-bedrock-trace"));
        assert!(!format!("{once:?}").contains("Signature"), "a signature is not printed");
    }
}
