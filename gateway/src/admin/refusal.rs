//! What the admin port says when it does not do what it was asked: one shape for everything.

use axum::Json;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use crate::config::Problem;
use crate::counters::Unavailable;
use crate::keyring;

/// A refusal.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    told: Told,
}

/// The body of every refusal.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Refused {
    error: Told,
}

/// Why.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = RefusedWhy)]
pub(super) struct Told {
    /// For people: what is wrong, and what to do.
    message: String,
    /// For programs.
    #[schema(value_type = String, example = "unknown_consumer")]
    code: &'static str,
    /// All that is wrong with a configuration.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    problems: Vec<Fault>,
}

/// One thing that is wrong with a configuration.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConfigProblem)]
struct Fault {
    /// Where, such as `models.fast.targets[1]`; empty for the whole.
    path: String,
    /// File, line and column, where it stands in a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<String>,
    /// What.
    message: String,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Refusal { status, told: Told { message: message.into(), code, problems: Vec::new() } }
    }

    /// What is named is not there.
    pub(super) fn unknown(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    /// What is asked makes no sense.
    pub(super) fn senseless(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message)
    }

    /// What it needs is not to be had now.
    pub(super) fn unavailable(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
    }

    /// With all that is wrong with a configuration.
    pub(super) fn because(mut self, problems: Vec<Problem>) -> Self {
        self.told.problems = problems.into_iter().map(|Problem { path, message, place }| Fault { path, place: place.map(|p| p.to_string()), message }).collect();
        self
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.status, Json(Refused { error: self.told })).into_response()
    }
}

impl From<keyring::Error> for Refusal {
    fn from(error: keyring::Error) -> Self {
        use keyring::Error;
        let message = error.to_string();
        match error {
            Error::Unknown(_) => Self::unknown("unknown_key", message),
            Error::Ended(_) => Self::new(StatusCode::CONFLICT, "key_has_ended", message),
            Error::Nowhere(_) | Error::InUse(_) => Self::unavailable("no_place_for_keys", message),
            Error::Away | Error::Busy => Self::unavailable("keys_unavailable", message),
            Error::Io { .. } | Error::Damaged { .. } | Error::Random => {
                tracing::error!(error = message, "a key could not be kept");
                Self::new(StatusCode::INTERNAL_SERVER_ERROR, "keys_not_kept", format!("nothing was changed, because it cannot be kept: {message}"))
            }
        }
    }
}

impl From<Unavailable> for Refusal {
    fn from(error: Unavailable) -> Self {
        Self::unavailable("limits_unavailable", format!("{error}; nothing was changed as far as is known, try again"))
    }
}

/// Nothing is at this path.
pub(super) async fn nothing_there(uri: Uri) -> Refusal {
    let path: String = uri.path().chars().take(200).collect();
    Refusal::unknown("unknown_path", format!("there is nothing at {path}; the page is at /, and the description of the API at /docs"))
}

/// Something is at this path, and not for this method.
pub(super) async fn wrong_method(method: Method, uri: Uri) -> Refusal {
    let path: String = uri.path().chars().take(200).collect();
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", format!("{path} does not take {method}; /docs says what it takes"))
}
