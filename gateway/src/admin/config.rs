//! The configuration in force, without its secrets, and loading it anew.

use std::sync::Arc;

use axum::Json;
use axum::extract::State as Shared;
use axum::http::StatusCode;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::Context;
use super::refusal::{Refusal, Refused};

/// The configuration in force.
#[derive(Serialize, ToSchema)]
pub(super) struct Configuration {
    /// The file or folder that it came from; not there if the gateway looked around for itself.
    source: Option<String>,
    /// All of it: files merged, variables filled in, secrets as `***`.
    #[schema(value_type = Object)]
    config: Map<String, Value>,
}

/// What became of it.
#[derive(Serialize, ToSchema)]
pub(super) struct Reloaded {
    reloaded: bool,
}

/// The configuration in force, without its secrets.
#[utoipa::path(get, path = "/admin/config", tag = "configuration", responses((status = 200, body = Configuration)))]
pub(super) async fn shown(Shared(context): Shared<Arc<Context>>) -> Result<Json<Configuration>, Refusal> {
    let rules = context.rules()?;
    let source = context.reloader.as_ref().map(|reloader| reloader.source().display().to_string());
    Ok(Json(Configuration { source, config: rules.config.loaded.shown() }))
}

/// Loads the configuration anew. A bad one changes nothing, and all that is wrong with it is told.
#[utoipa::path(post, path = "/admin/reload", tag = "configuration",
    responses((status = 200, body = Reloaded), (status = 409, body = Refused, description = "There is no file."), (status = 422, body = Refused, description = "All that is wrong with the file.")))]
pub(super) async fn reload(Shared(context): Shared<Arc<Context>>) -> Result<Json<Reloaded>, Refusal> {
    let Some(reloader) = &context.reloader else {
        return Err(Refusal::new(StatusCode::CONFLICT, "no_file", "this gateway was started without a configuration file: there is nothing to load"));
    };
    match reloader.reload_aside().await {
        Ok(()) => Ok(Json(Reloaded { reloaded: true })),
        Err(problems) => Err(Refusal::senseless("invalid_configuration", "the new configuration is not in force: see `problems`").because(problems)),
    }
}
