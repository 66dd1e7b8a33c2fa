//! What the operator adds to requests, as written by the user: templates, and what a model does with them.

use schemars::JsonSchema;
use serde::Deserialize;

/// Templates and decoration of the prompt.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PromptUse {
    /// The template that every request to this model is made from: `name` or `name@version`. Its variables come in the request's `prompt.variables`.
    pub template: Option<String>,
    /// Messages put in front of the conversation.
    pub prepend: Vec<PromptMessage>,
    /// Messages put behind it.
    pub append: Vec<PromptMessage>,
    /// Whether requests that use no template are refused.
    pub require_template: bool,
}

/// A message of the operator's.
#[derive(Debug, Clone, Deserialize, JsonSchema, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct PromptMessage {
    /// `system`, `user` or `assistant`.
    pub role: Role,
    /// Its text.
    pub content: String,
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The operator.
    System,
    /// The user.
    User,
    /// The model.
    Assistant,
}

/// A template: its text, or with a weight.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(from = "PromptForm")]
pub struct PromptVersion {
    /// The text of one user message, or whole messages.
    pub body: PromptBody,
    /// Its share when the version is not named. Default 1.
    pub weight: u32,
}

/// What a template makes.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum PromptBody {
    /// One user message with `{{variables}}`.
    Text(String),
    /// Messages with `{{variables}}`.
    Messages(Vec<PromptMessage>),
}

#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum PromptForm {
    Short(String),
    Long(PromptLong),
}

/// One version of a prompt template.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Template")]
struct PromptLong {
    /// The text of one user message, or a list of messages, with `{{variables}}`.
    template: PromptBody,
    /// Its share when the version is not named. Default 1.
    #[serde(default = "one")]
    weight: u32,
}

fn one() -> u32 {
    1
}

impl From<PromptForm> for PromptVersion {
    fn from(form: PromptForm) -> Self {
        match form {
            PromptForm::Short(text) => PromptVersion { body: PromptBody::Text(text), weight: 1 },
            PromptForm::Long(PromptLong { template, weight }) => PromptVersion { body: template, weight },
        }
    }
}
