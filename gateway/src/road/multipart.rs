//! Image edits, transcriptions and audio translations: forms whose `model` field is read and replaced in place; the rest
//! passes as it came.

use http::{Response, StatusCode, header};
use hyper::body::Incoming;
use providers::ErrorKind;

use crate::body::Body;
use crate::exchange::Exchange;
use crate::fault::Fault;
use crate::form::Form;
use crate::phase::{admit, call, identity, read, relay, route};
use crate::road::find;

/// Answers a form.
///
/// # Errors
/// When the form cannot be read or has no model, the model is not here, or no target answers.
pub async fn answer(x: &mut Exchange, body: Incoming) -> Result<Response<Body>, Fault> {
    identity::check(x).await?;
    read::head(x)?;
    let body = read::body(body, &x.rules.limits).await?;
    let form = Form::read(x.headers.get(header::CONTENT_TYPE), body)?;
    let bad = |message: &str| Fault::client(StatusCode::BAD_REQUEST, ErrorKind::InvalidRequest, message).param("model").code("missing_model");
    let missing = if form.field("model").is_some() { "`model` is not a line of text" } else { "the form has no field `model`" };
    // A name with line ends in it, put between the delimiters again, could become one.
    x.model = form.text("model").filter(|model| !model.contains(char::is_control)).ok_or_else(|| bad(missing))?.to_owned();
    // As servers read a form's truth values.
    x.stream = form.text("stream").is_some_and(|value| ["true", "1", "yes", "on", "t", "y"].iter().any(|truth| value.eq_ignore_ascii_case(truth)));
    let rules = x.rules.clone();
    let (model, rest) = find(x, &rules)?;
    identity::may_use(x, model)?;
    x.form = Some(form);
    admit::reserve(x, model, &rest).await?;
    let plan = route::plan(x, model, &rest);
    let reply = call::first_event(x, model, &rest, &plan).await?;
    Ok(relay::response(x, model, reply))
}
