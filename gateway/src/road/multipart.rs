//! Image edits, transcriptions and audio translations: forms whose `model` field is read and replaced in place; the rest
//! passes as it came.

use http::{Response, StatusCode, header};
use hyper::body::Incoming;
use memchr::memmem;
use providers::ErrorKind;
use std::ops::Range;

use crate::body::Body;
use crate::exchange::Exchange;
use crate::fault::Fault;
use crate::phase::{admit, call, identity, read, relay, route};
use crate::road::find;

/// Answers a form.
///
/// # Errors
/// When the form has no model, the model is not here, or no target answers.
pub async fn answer(x: &mut Exchange, body: Incoming) -> Result<Response<Body>, Fault> {
    identity::check(x).await?;
    read::head(x)?;
    let body = read::body(body, &x.rules.limits).await?;
    let bad = |message: &str| Fault::client(StatusCode::BAD_REQUEST, ErrorKind::InvalidRequest, message);
    let content_type = x.headers.get(header::CONTENT_TYPE).cloned();
    let (content_type, boundary) = content_type.and_then(|v| Some((v.clone(), boundary(v.to_str().ok()?)?))).ok_or_else(|| bad("the content type has no boundary"))?;
    let span = field(&body, &boundary, "model").ok_or_else(|| bad("the form has no field `model`").param("model").code("missing_model"))?;
    let asked = std::str::from_utf8(&body[span.clone()]).map_err(|_| bad("`model` is not text"))?.trim().to_owned();
    x.model = asked;
    x.stream = field(&body, &boundary, "stream").is_some_and(|s| &body[s] == b"true");
    let rules = x.rules.clone();
    let (model, rest) = find(x, &rules)?;
    identity::may_use(x, model)?;
    x.form = Some(crate::exchange::Form { body, model: span, content_type });
    admit::reserve(x, model, &rest).await?;
    let plan = route::plan(x, model, &rest);
    let reply = call::first_event(x, model, &rest, &plan).await?;
    Ok(relay::response(x, model, reply))
}

fn boundary(content_type: &str) -> Option<String> {
    let value = content_type.split(';').map(str::trim).find_map(|p| p.strip_prefix("boundary="))?;
    Some(value.trim_matches('"').to_owned()).filter(|b| !b.is_empty() && b.len() <= 200)
}

/// Where the value of a form's field stands.
fn field(body: &[u8], boundary: &str, name: &str) -> Option<Range<usize>> {
    let delimiter = format!("--{boundary}");
    let finder = memmem::Finder::new(delimiter.as_bytes());
    let wanted = format!("name=\"{name}\"");
    let starts: Vec<usize> = finder.find_iter(body).collect();
    starts.windows(2).find_map(|pair| {
        let start = pair[0] + delimiter.len();
        let part = body.get(start..pair[1])?;
        let head = memmem::find(part, b"\r\n\r\n")?;
        let text = std::str::from_utf8(&part[..head]).ok()?;
        let named = text.split("\r\n").any(|line| line.to_ascii_lowercase().starts_with("content-disposition:") && line.split(';').any(|p| p.trim() == wanted));
        let end = part.len().checked_sub(2)?;
        (named && head + 4 <= end).then(|| start + head + 4..start + end)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_between_its_boundaries() {
        let body = b"--xx\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\nContent-Type: x\r\n\r\nname=\"model\"\r\n--xx\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nwhisper-1\r\n--xx--\r\n";
        let span = field(body, "xx", "model").unwrap();
        assert_eq!(&body[span], b"whisper-1");
        assert_eq!(field(body, "xx", "stream"), None);
        assert_eq!(boundary("multipart/form-data; boundary=\"a b\"").as_deref(), Some("a b"));
        assert_eq!(boundary("multipart/form-data"), None);
    }
}
