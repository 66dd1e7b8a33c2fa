//! What callers of the API send: a JSON body, or none where nothing in it is needed, and names in the path.

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use serde::de::DeserializeOwned;

use super::refusal::Refusal;

/// The body.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        let kind = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_owned();
        let arriving = tokio::time::timeout(super::PATIENCE, Bytes::from_request(request, state)).await;
        let arrived = arriving.map_err(|_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "body_too_slow", "the body did not come in time"))?;
        let bytes = arrived.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", format!("the body is larger than {} bytes", super::LARGEST)),
            status => Refusal::new(status, "body_unreadable", "the body broke off"),
        })?;
        if bytes.is_empty() {
            return read(b"{}");
        }
        if kind != "application/json" && !kind.ends_with("+json") {
            return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", "the body must be JSON: send `content-type: application/json`"));
        }
        read(&bytes)
    }
}

fn read<T: DeserializeOwned>(bytes: &[u8]) -> Result<Body<T>, Refusal> {
    // A list would be taken for the fields in their order.
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(Refusal::senseless("invalid_body", "the body must be an object, such as {}"));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value: T = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let (path, inner) = (error.path().to_string(), error.inner());
        match inner.is_data() {
            false => broken(inner),
            true if path == "." => Refusal::senseless("invalid_body", inner.to_string()),
            true => Refusal::senseless("invalid_body", format!("{path}: {inner}")),
        }
    })?;
    deserializer.end().map_err(|error| broken(&error))?;
    Ok(Body(value))
}

fn broken(error: &serde_json::Error) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "invalid_json", format!("the body is not valid JSON: {error}"))
}

/// A name in the path.
pub(super) struct Named(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Path(name) = Path::<String>::from_request_parts(parts, state).await.map_err(|_| Refusal::new(StatusCode::BAD_REQUEST, "invalid_path", "the name in the path is not UTF-8"))?;
        Ok(Named(name))
    }
}
