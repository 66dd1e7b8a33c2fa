//! The description of the API, as OpenAPI and as pages to browse it.

use std::sync::Arc;

use axum::Json;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Redirect, Response};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder, Ref, RefOr};
use utoipa_swagger_ui::Config;

use super::body::Named;
use super::page::guard;
use super::refusal::nothing_there;

/// Begins Swagger UI with the token that the page has asked for.
const BEGIN: &str = include_str!("page/docs.js");
/// Swagger UI styles its elements one by one, and asks nobody else for anything.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What the description begins with; the rest comes from what serves it.
pub(super) fn head() -> OpenApi {
    let about = "Consumers, keys, limits, targets and the configuration of a running gateway. Every answer is JSON; an error is `{\"error\": {\"message\", \"code\"}}`.";
    let info = InfoBuilder::new().title("Trivium admin API").version(env!("CARGO_PKG_VERSION")).description(Some(about)).build();
    let token = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("`admin.token` of the configuration, or what stands in `admin.token` in the folder `data`.")).build();
    let components = ComponentsBuilder::new().security_scheme("token", SecurityScheme::Http(token)).build();
    OpenApiBuilder::new().info(info).components(Some(components)).security(Some([SecurityRequirement::new("token", Vec::<String>::new())])).build()
}

/// This description.
#[utoipa::path(get, path = "/admin/openapi.json", tag = "description", responses((status = 200, description = "OpenAPI 3.1.", body = Object)))]
pub(super) async fn openapi() -> Json<OpenApi> {
    Json(description())
}

/// The whole description. It is made when it is asked for: between two readers it takes no memory.
fn description() -> OpenApi {
    let (_, mut api) = super::api().split_for_parts();
    // What holds for every path is said once, here.
    let refused = utoipa::openapi::ResponseBuilder::new()
        .description("The token is missing or wrong.")
        .content("application/json", utoipa::openapi::ContentBuilder::new().schema(Some(RefOr::Ref(Ref::from_schema_name("Refused")))).build())
        .build();
    for item in api.paths.paths.values_mut() {
        for operation in [&mut item.get, &mut item.post, &mut item.delete].into_iter().flatten() {
            operation.responses.responses.insert("401".into(), refused.clone().into());
        }
    }
    api
}

/// Where the pages are.
pub(super) async fn front() -> Redirect {
    Redirect::permanent("/docs/")
}

/// The first of the pages.
pub(super) async fn page() -> Response {
    file("index.html").await
}

/// What the pages are made of.
pub(super) async fn part(Named(name): Named) -> Response {
    file(&name).await
}

async fn file(name: &str) -> Response {
    let found = match name {
        "swagger-initializer.js" => return guarded((headers("text/javascript", false), BEGIN).into_response()),
        other => utoipa_swagger_ui::serve(other, Arc::new(Config::default())).ok().flatten(),
    };
    match found {
        Some(found) => guarded((headers(&found.content_type, found.gzpipped), found.bytes.into_owned()).into_response()),
        None => nothing_there(format!("/docs/{name}").parse().unwrap_or_default()).await.into_response(),
    }
}

fn headers(kind: &str, packed: bool) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Ok(kind) = HeaderValue::try_from(kind) {
        headers.insert(header::CONTENT_TYPE, kind);
    }
    if packed {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    headers
}

fn guarded(mut response: Response) -> Response {
    guard(response.headers_mut(), HeaderValue::from_static(POLICY));
    response
}
