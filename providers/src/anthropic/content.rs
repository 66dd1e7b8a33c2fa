//! Content blocks of a Messages request, and how a message's parts become blocks.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::value::RawValue;

use super::Host;
use crate::Error;
use crate::place::Piece;
use crate::wire::{Content, Extra, FilePart, Part, data_url};

/// A content block as a request carries it.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Block<'a> {
    Text {
        text: Cow<'a, str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<&'a RawValue>,
    },
    Image {
        source: Source<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<&'a RawValue>,
    },
    Document {
        source: Source<'a>,
        #[serde(skip_serializing_if = "Option::is_none")]
        title: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        context: Option<&'a RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        citations: Option<&'a RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<&'a RawValue>,
    },
    Thinking {
        thinking: &'a str,
        signature: Cow<'a, str>,
    },
    RedactedThinking {
        data: Cow<'a, str>,
    },
    ToolUse {
        id: String,
        name: Cow<'a, str>,
        input: Cow<'a, RawValue>,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<&'a RawValue>,
    },
    ToolResult {
        tool_use_id: String,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        content: Vec<Block<'a>>,
        #[serde(skip_serializing_if = "std::ops::Not::not")]
        is_error: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        cache_control: Option<&'a RawValue>,
    },
}

/// Where an image or a document comes from.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Source<'a> {
    Base64 { media_type: &'a str, data: &'a str },
    Url { url: &'a str },
    Text { media_type: &'static str, data: String },
}

impl<'a> Block<'a> {
    /// A block of plain text.
    pub(super) fn text(text: impl Into<Cow<'a, str>>) -> Self {
        Block::Text { text: text.into(), cache_control: None }
    }

    /// Whether it is a text of which nothing can be seen.
    pub(super) fn is_blank(&self) -> bool {
        matches!(self, Block::Text { text, .. } if text.trim().is_empty())
    }

    pub(super) fn is_thinking(&self) -> bool {
        matches!(self, Block::Thinking { .. } | Block::RedactedThinking { .. })
    }

    /// Marks the block as an end of the cached prefix; a thinking block cannot bear the mark.
    pub(super) fn mark(&mut self, mark: &'a RawValue) {
        match self {
            Block::Text { cache_control, .. }
            | Block::Image { cache_control, .. }
            | Block::Document { cache_control, .. }
            | Block::ToolUse { cache_control, .. }
            | Block::ToolResult { cache_control, .. } => *cache_control = Some(mark),
            Block::Thinking { .. } | Block::RedactedThinking { .. } => {}
        }
    }
}

impl<'a> Piece<'a> for Block<'a> {
    fn of(text: Cow<'a, str>) -> Self {
        Block::text(text)
    }

    fn text(&mut self) -> Option<&mut Cow<'a, str>> {
        if let Block::Text { text, .. } = self { Some(text) } else { None }
    }
}

/// An unknown field that a client has set on purpose.
pub(super) fn extra<'a>(extra: &Extra<'a>, name: &str) -> Option<&'a RawValue> {
    extra.iter().find(|(key, value)| &**key == name && value.get() != "null").map(|(_, value)| *value)
}

/// Appends a message's content as blocks. Blocks without any visible text are left out: the API refuses them.
pub(super) fn blocks<'a>(content: &'a Content<'_>, at: &str, host: &Host, out: &mut Vec<Block<'a>>) -> Result<(), Error> {
    out.extend(every_block(content, at, host)?.into_iter().filter(|block| !block.is_blank()));
    Ok(())
}

/// A message's content as blocks, blank ones too.
pub(super) fn every_block<'a>(content: &'a Content<'_>, at: &str, host: &Host) -> Result<Vec<Block<'a>>, Error> {
    match content {
        Content::Text(text) => Ok(vec![Block::text(&**text)]),
        Content::Parts(parts) => parts.iter().enumerate().map(|(index, part)| block(part, &format!("{at}.content[{index}]"), host)).collect(),
    }
}

fn block<'a>(part: &'a Part<'_>, at: &str, host: &Host) -> Result<Block<'a>, Error> {
    let mut block = match part.kind.as_deref().unwrap_or("text") {
        "text" | "input_text" | "output_text" | "refusal" => Block::text(part.text.as_deref().or(part.refusal.as_deref()).unwrap_or_default()),
        "image_url" => {
            let url = part.image_url.as_ref().and_then(|i| i.url.as_deref()).ok_or_else(|| Error::invalid(format!("{at}.image_url.url"), "an `image_url` part needs a `url`"))?;
            Block::Image { source: image(url, at, host)?, cache_control: None }
        }
        "file" => file(part.file.as_ref().ok_or_else(|| Error::invalid(format!("{at}.file"), "a `file` part needs a `file`"))?, &part.extra, at, host)?,
        "input_audio" => return Err(Error::unsupported(host.kind, at, "Claude does not hear audio; send a transcript as text")),
        "video_url" => return Err(Error::unsupported(host.kind, at, "Claude does not see video; send single images")),
        other => return Err(Error::invalid(format!("{at}.type"), format!("`{other}` is not a kind of part that is known here"))),
    };
    if let Some(mark) = part.cache_control {
        block.mark(mark);
    }
    Ok(block)
}

fn image<'a>(url: &'a str, at: &str, host: &Host) -> Result<Source<'a>, Error> {
    let param = || format!("{at}.image_url.url");
    if let Some((media_type, data)) = data_url(url) {
        return match media_type {
            "image/jpeg" | "image/png" | "image/gif" | "image/webp" => Ok(Source::Base64 { media_type, data }),
            "image/jpg" => Ok(Source::Base64 { media_type: "image/jpeg", data }),
            other => Err(Error::unsupported(host.kind, param(), format!("Claude reads JPEG, PNG, GIF and WebP, not `{other}`"))),
        };
    }
    remote(url, host)
        .ok_or_else(|| Error::unsupported(host.kind, param(), if host.urls { "the URL must be `https:` or `data:` with base64" } else { "this host fetches no URLs; send the image as a `data:` URL" }))
}

fn remote<'a>(url: &'a str, host: &Host) -> Option<Source<'a>> {
    (host.urls && (url.starts_with("https://") || url.starts_with("http://"))).then_some(Source::Url { url })
}

fn file<'a>(file: &'a FilePart<'_>, more: &Extra<'a>, at: &str, host: &Host) -> Result<Block<'a>, Error> {
    let Some(data) = file.file_data.as_deref() else {
        let param = format!("{at}.file");
        return Err(if file.file_id.is_some() {
            Error::unsupported(host.kind, param, "a file by id is not there at this provider; send it as `file_data`")
        } else {
            Error::invalid(param, "a `file` needs `file_data`")
        });
    };
    let document = |source| Block::Document { source, title: file.filename.as_deref(), context: extra(more, "context"), citations: extra(more, "citations"), cache_control: None };
    if let Some(source) = remote(data, host) {
        return Ok(document(source));
    }
    // Some clients send the base64 alone and leave the kind to the file's name.
    let bare = || (!data.contains(':') && file.filename.as_deref().is_some_and(|n| n.to_ascii_lowercase().ends_with(".pdf"))).then_some(("application/pdf", data));
    let param = || format!("{at}.file.file_data");
    let (media_type, data) = data_url(data).or_else(bare).ok_or_else(|| Error::invalid(param(), "`file_data` must be a `data:` URL with base64"))?;
    match media_type {
        "application/pdf" => Ok(document(Source::Base64 { media_type, data })),
        "image/jpeg" | "image/png" | "image/gif" | "image/webp" => Ok(Block::Image { source: Source::Base64 { media_type, data }, cache_control: None }),
        other if other.starts_with("text/") || other == "application/json" => {
            let text = STANDARD.decode(data).ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(|| Error::invalid(param(), "the file is not text in UTF-8 under base64"))?;
            Ok(document(Source::Text { media_type: "text/plain", data: text }))
        }
        other => Err(Error::unsupported(host.kind, param(), format!("Claude reads PDF, text and images, not `{other}`"))),
    }
}
