//! OpenAI's own dialect: the defaults of [`Provider`], and the readers that every compatible host shares.

mod answer;
mod error;
pub mod media;
mod model;
mod stream;

pub use answer::read as read_answer;
pub use error::read as read_error;
pub use stream::Chunks;

use crate::envelope::Edit;
use crate::wire::Message;
use crate::{Dialect, Error, Operation, Provider, Settings, Target, carry, responses};

/// OpenAI, or any host that speaks exactly as it does.
#[derive(Debug)]
pub struct OpenAi {
    base_url: String,
}

impl OpenAi {
    /// OpenAI itself unless the settings name another place.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        OpenAi { base_url: settings.base_url_or("https://api.openai.com/v1") }
    }
}

impl Provider for OpenAi {
    fn kind(&self) -> &'static str {
        "openai"
    }

    fn base_url(&self) -> &str {
        &self.base_url
    }

    fn path(&self, operation: Operation, _: &Target<'_>, _: bool) -> Result<Option<String>, Error> {
        Ok(operation.openai_path().map(str::to_owned))
    }

    fn adapt(&self, operation: Operation, edit: &mut Edit<'_>, target: &Target<'_>) -> Result<Vec<String>, Error> {
        let mut warnings = adapt(operation, edit, target)?;
        if operation == Operation::Chat(Dialect::Chat) {
            model::fit(edit, target.model, &mut warnings);
        }
        Ok(warnings)
    }

    fn forwards(&self) -> &'static [&'static str] {
        // Whose budget is spent (`openai-organization`, `openai-project`) is for whom the key belongs to to say.
        &["openai-beta", "idempotency-key"]
    }
}

/// What every body that passes to OpenAI's dialect needs: the target's model, usage in streams, and nothing in the history
/// that this gateway sealed there for another provider.
///
/// # Errors
/// When the history cannot be read.
pub fn adapt(operation: Operation, edit: &mut Edit<'_>, target: &Target<'_>) -> Result<Vec<String>, Error> {
    let envelope = edit.envelope();
    if envelope.model() != target.model {
        edit.set_text("model", target.model);
    }
    if matches!(operation, Operation::Chat(Dialect::Chat | Dialect::Completions)) && envelope.stream() {
        ask_for_usage(edit)?;
    }
    if operation == Operation::Chat(Dialect::Chat) && carry::request_may_carry(envelope) {
        let mut messages = envelope.chat()?.messages.unwrap_or_default();
        clean(&mut messages);
        edit.set("messages", serde_json::to_string(&messages).map_err(Error::answer)?);
    }
    if operation == Operation::Chat(Dialect::Responses)
        && let Some(input) = responses::clean_input(envelope)
    {
        edit.set("input", input);
    }
    Ok(Vec::new())
}

/// Sees to it that a stream ends with its usage, whether the client asked for that or not.
///
/// # Errors
/// When `stream_options` is not an object.
pub fn ask_for_usage(edit: &mut Edit<'_>) -> Result<(), Error> {
    let envelope = edit.envelope();
    let mut options: serde_json::Map<String, serde_json::Value> = envelope.parse::<Option<_>>("stream_options")?.flatten().unwrap_or_default();
    if options.get("include_usage") != Some(&serde_json::Value::Bool(true)) {
        options.insert("include_usage".into(), true.into());
        edit.set("stream_options", serde_json::Value::Object(options).to_string());
    }
    Ok(())
}

/// Takes out of the messages what this gateway put there: reasoning, of which OpenAI's dialect knows nothing, and the seals on
/// call ids.
pub(crate) fn clean(messages: &mut [Message<'_>]) {
    for message in messages {
        bare_ids(message);
        message.reasoning_content = None;
        message.reasoning_details = None;
    }
}

/// Takes the seals off a message's call ids.
pub(crate) fn bare_ids(message: &mut Message<'_>) {
    if let Some(id) = &mut message.tool_call_id {
        *id = carry::bare(id);
    }
    for call in message.tool_calls.iter_mut().flatten() {
        if let Some(id) = &mut call.id {
            *id = carry::bare(id);
        }
    }
}
