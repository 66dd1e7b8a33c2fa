//! The admin port: a page for people, an API behind a token, and health and figures for machines.

pub mod access;
mod body;
mod config;
mod consumers;
mod docs;
mod health;
mod keys;
mod limits;
mod page;
mod refusal;
mod targets;
mod usage;

use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request, State as Shared};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Router, middleware};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower::ServiceExt as _;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::serve::Reloader;
use crate::state::State;

use access::Access;
use refusal::Refusal;

/// Largest body that is read: all of them are a few words.
const LARGEST: usize = 64 << 10;
/// Most connections at once.
const CONNECTIONS: usize = 256;
/// How long the head of a request may take, and how long its body.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long answers under way may take at the end.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What the admin port works on.
pub struct Context {
    /// The process.
    pub state: Arc<State>,
    /// Who may use the API.
    pub access: Access,
    /// Loads the configuration anew, where it came from a file.
    pub reloader: Option<Reloader>,
    /// Whether only this machine can connect.
    pub loopback: bool,
}

impl Context {
    /// The rules in force.
    fn rules(&self) -> Result<Arc<crate::rules::Rules>, Refusal> {
        self.state.rules().ok_or_else(|| Refusal::unavailable("no_rules", "the gateway is starting"))
    }

    /// Seconds since 1970.
    fn now(&self) -> u64 {
        self.state.wall().as_secs()
    }
}

/// Serves the admin port until `stop` is done.
pub async fn serve(context: Arc<Context>, listener: TcpListener, stop: impl Future<Output = ()>) {
    let app = app(context);
    let graceful = GracefulShutdown::new();
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let mut stop = std::pin::pin!(stop);
    loop {
        let accepted = tokio::select! {
            accepted = async { (permits.clone().acquire_owned().await, listener.accept().await) } => accepted,
            () = &mut stop => break,
        };
        let (Ok(permit), Ok((stream, _))) = accepted else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        let app = app.clone();
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(PATIENCE);
        builder.http2().timer(TokioTimer::new());
        let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| app.clone().oneshot(request.map(axum::body::Body::new)));
        let connection = graceful.watch(builder.serve_connection(TokioIo::new(stream), service).into_owned());
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(error, "a connection to the admin port ended with an error");
            }
            drop(permit);
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(LAST_WORDS, graceful.shutdown()).await;
}

/// Everything that is at the admin port.
fn app(context: Arc<Context>) -> Router {
    Router::new()
        .route("/", get(page::serve))
        .route("/docs", get(docs::front))
        .route("/docs/", get(docs::page))
        .route("/docs/{file}", get(docs::part))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .route("/status", get(health::status))
        .fallback(rest)
        .method_not_allowed_fallback(refusal::wrong_method)
        .layer(DefaultBodyLimit::max(LARGEST))
        .layer(middleware::from_fn_with_state(context.clone(), access::check))
        .with_state(context)
}

/// The API, and what is nowhere. The API's router, which is made together with its description, is made when the first asks: a
/// gateway that nobody administers carries neither.
async fn rest(Shared(context): Shared<Arc<Context>>, request: Request) -> Response {
    static API: OnceLock<Router<Arc<Context>>> = OnceLock::new();
    if !access::is_guarded(request.uri().path()) {
        return refusal::nothing_there(request.uri().clone()).await.into_response();
    }
    let api = API.get_or_init(|| Router::from(api()).fallback(refusal::nothing_there).method_not_allowed_fallback(refusal::wrong_method));
    let Ok(response) = api.clone().with_state(context).oneshot(request).await;
    response
}

/// The API, with its description: one file for each subject.
fn api() -> OpenApiRouter<Arc<Context>> {
    OpenApiRouter::with_openapi(docs::head())
        .routes(routes!(consumers::list))
        .routes(routes!(consumers::one))
        .routes(routes!(keys::list, keys::make))
        .routes(routes!(keys::all))
        .routes(routes!(keys::revoke))
        .routes(routes!(keys::rotate))
        .routes(routes!(limits::list))
        .routes(routes!(limits::reset))
        .routes(routes!(limits::top_up))
        .routes(routes!(targets::list))
        .routes(routes!(targets::close))
        .routes(routes!(usage::list))
        .routes(routes!(config::shown))
        .routes(routes!(config::reload))
        .routes(routes!(docs::openapi))
}
