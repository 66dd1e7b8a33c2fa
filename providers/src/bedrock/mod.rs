//! Amazon Bedrock: the Converse API for chat, whoever made the model, and InvokeModel for embeddings.

mod answer;
mod blocks;
mod embed;
mod error;
mod messages;
mod model;
mod reasoning;
mod request;
mod tools;

use bytes::Bytes;

use crate::answer::Answer;
use crate::envelope::Envelope;
use crate::names::Naming;
use crate::sse::Framing;
use crate::wire::ChatRequest;
use crate::{Auth, Call, Error, Operation, Provider, Settings, Target, Transcoder, UpstreamError, rate};

const KIND: &str = "bedrock";

/// One AWS account in one region.
#[derive(Debug)]
pub struct Bedrock {
    base_url: String,
    has_key: bool,
}

impl Bedrock {
    /// The region's endpoint unless the settings name another place.
    ///
    /// # Errors
    /// When the settings name neither a region nor a place.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let base_url = match (&settings.base_url, settings.region.as_deref()) {
            (Some(_), _) => settings.base_url_or(""),
            (None, Some(region)) => {
                let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
                format!("https://bedrock-runtime.{region}.{domain}")
            }
            (None, None) => return Err(Error::Settings("kind bedrock needs a `region` (or a `base_url`)".into())),
        };
        Ok(Bedrock { base_url, has_key: settings.has_key })
    }
}

impl Provider for Bedrock {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn base_url(&self) -> &str {
        &self.base_url
    }

    fn auth(&self) -> Auth {
        if self.has_key { Auth::Bearer } else { Auth::Aws { service: "bedrock" } }
    }

    fn path(&self, _: Operation, _: &Target<'_>, _: bool) -> Result<Option<String>, Error> {
        Ok(None)
    }

    fn naming(&self, _: &Target<'_>) -> Naming {
        tools::NAMING
    }

    fn other_rates(&self, operation: Operation, body: &Envelope) -> Vec<&'static str> {
        rate::of_bedrock(operation, body)
    }

    fn chat(&self, request: &ChatRequest<'_>, target: &Target<'_>) -> Result<Call, Error> {
        request::chat(request, target)
    }

    fn framing(&self) -> Framing {
        Framing::EventStream
    }

    fn answer(&self, body: &[u8], target: &Target<'_>) -> Result<Answer, Error> {
        answer::read(body, target)
    }

    fn transcoder(&self, target: &Target<'_>) -> Box<dyn Transcoder> {
        Box::new(answer::Events::new(target))
    }

    fn error(&self, status: u16, body: &[u8]) -> UpstreamError {
        error::read(status, body)
    }

    fn embed(&self, request: &crate::embed::Request<'_>, target: &Target<'_>) -> Result<Vec<Call>, Error> {
        embed::write(request, target)
    }

    fn counted(&self, header: &dyn Fn(&str) -> Option<String>) -> Option<u64> {
        header("x-amzn-bedrock-input-token-count")?.parse().ok()
    }

    fn embeddings(&self, bodies: &[Bytes], _: &Target<'_>) -> Result<crate::embed::Embeddings, Error> {
        embed::read(bodies)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn place_and_credential_follow_from_the_settings() {
        let settings = |region: Option<&str>, base: Option<&str>, has_key| Settings { region: region.map(str::to_owned), base_url: base.map(str::to_owned), has_key, ..Settings::default() };
        let plain = Bedrock::new(&settings(Some("eu-west-1"), None, false)).unwrap();
        assert_eq!((plain.base_url(), plain.auth()), ("https://bedrock-runtime.eu-west-1.amazonaws.com", Auth::Aws { service: "bedrock" }));
        assert_eq!(Bedrock::new(&settings(Some("cn-north-1"), None, true)).unwrap().auth(), Auth::Bearer);
        assert_eq!(Bedrock::new(&settings(None, Some("http://127.0.0.1:9/"), false)).unwrap().base_url(), "http://127.0.0.1:9");
        assert!(Bedrock::new(&settings(None, None, true)).is_err());
    }

    #[test]
    fn big_integers_and_key_order_reach_the_upstream() {
        let arguments = r#"{"id":12345678901234567890123,"b":1.0,"a":[{"z":1,"y":2}]}"#;
        let body = serde_json::json!({ "messages": [
            { "role": "user", "content": "x" },
            { "role": "assistant", "tool_calls": [{ "id": "t", "type": "function", "function": { "name": "f", "arguments": arguments } }] },
            { "role": "tool", "tool_call_id": "t", "content": "y" },
        ] });
        let body = body.to_string();
        let request: ChatRequest<'_> = serde_json::from_str(&body).unwrap();
        let call = request::chat(&request, &Target { model: "amazon.nova-lite-v1:0", info: None }).unwrap();
        let sent = String::from_utf8(call.body.into_bytes().to_vec()).unwrap();
        assert!(sent.contains(arguments), "{sent}");
    }
}
