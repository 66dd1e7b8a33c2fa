//! Content blocks of a Messages request as parts of a hub message.

use super::wire::{Block, Content, Origin, Source};
use crate::Error;
use crate::door::once;
use crate::wire::{self, FilePart, ImageUrl, Part, Str};

/// Content without calls or results.
pub(super) fn content<'a>(said: &Content<'a>, at: &str, warnings: &mut Vec<String>) -> Result<wire::Content<'a>, Error> {
    match said {
        Content::Text(text) => Ok(wire::Content::Text(text.clone())),
        Content::Blocks(blocks) => {
            let mut parts = Vec::with_capacity(blocks.len());
            for (index, block) in blocks.iter().enumerate() {
                part(block, &format!("{at}.content[{index}]"), &mut parts, warnings)?;
            }
            Ok(plain(parts))
        }
    }
}

/// One text that bears no mark is just a text.
pub(super) fn plain(mut parts: Vec<Part<'_>>) -> wire::Content<'_> {
    match parts.as_mut_slice() {
        [Part { kind: Some(kind), text: Some(text), cache_control: None, .. }] if &**kind == "text" => wire::Content::Text(std::mem::take(text)),
        _ => wire::Content::Parts(parts),
    }
}

pub(super) fn nested<'a>(block: &Block<'a>, at: &str) -> Result<Content<'a>, Error> {
    match block.content.filter(|raw| raw.get() != "null") {
        Some(raw) => serde_json::from_str(raw.get()).map_err(|_| Error::invalid(format!("{at}.content"), "`content` must be a string or a list of content blocks")),
        None => Ok(Content::Text(Str::from(""))),
    }
}

pub(super) fn part<'a>(block: &Block<'a>, at: &str, out: &mut Vec<Part<'a>>, warnings: &mut Vec<String>) -> Result<(), Error> {
    let mut part = match block.kind.as_deref() {
        Some("text") => text(block.text.clone().unwrap_or_default()),
        Some("image") => image(source(block, at)?, at)?,
        Some("document") => {
            let source = source(block, at)?;
            match (source.kind.as_deref(), &source.content) {
                (Some("content"), Some(said)) => match content(said, at, warnings)? {
                    wire::Content::Text(said) => text(said),
                    wire::Content::Parts(parts) => {
                        out.extend(parts);
                        return Ok(());
                    }
                },
                _ => document(block, source, at, warnings)?,
            }
        }
        Some("search_result") => text(search_result(block, at, warnings)?),
        // A tool that a search for tools found: it is on offer itself, and its name is what the search gave.
        Some("tool_reference") => {
            let name = block.extra.iter().find(|(key, _)| &**key == "tool_name").and_then(|(_, raw)| serde_json::from_str::<Str<'_>>(raw.get()).ok());
            text(name.unwrap_or_default())
        }
        Some(other) => return Err(Error::invalid(format!("{at}.type"), format!("`{other}` blocks are only understood by Anthropic's own API; leave it out or send the content as text"))),
        None => return Err(Error::invalid(format!("{at}.type"), "every content block needs a `type`")),
    };
    part.cache_control = block.cache_control;
    out.push(part);
    Ok(())
}

pub(super) fn text(text: Str<'_>) -> Part<'_> {
    Part { kind: Some(Str::from("text")), text: Some(text), ..Part::default() }
}

fn source<'b, 'a>(block: &'b Block<'a>, at: &str) -> Result<&'b Source<'a>, Error> {
    match &block.source {
        Some(Origin::Source(source)) => Ok(source),
        _ => Err(Error::invalid(format!("{at}.source"), "an image or a document needs a `source` object")),
    }
}

fn image<'a>(source: &Source<'a>, at: &str) -> Result<Part<'a>, Error> {
    let url = match source.kind.as_deref() {
        Some("base64") => Str::from(format!("data:{};base64,{}", source.media_type.as_deref().unwrap_or("image/png"), source.data.as_deref().unwrap_or_default())),
        Some("url") => source.url.clone().unwrap_or_default(),
        _ => return Err(by_file(source, at)),
    };
    Ok(Part { kind: Some(Str::from("image_url")), image_url: Some(ImageUrl { url: Some(url), ..ImageUrl::default() }), ..Part::default() })
}

fn document<'a>(block: &Block<'a>, source: &Source<'a>, at: &str, warnings: &mut Vec<String>) -> Result<Part<'a>, Error> {
    let context = || block.extra.iter().find(|(key, _)| &**key == "context").map(|(_, raw)| *raw);
    let data = match source.kind.as_deref() {
        Some("text") => {
            if block.citations.is_some_and(|c| c.get().contains("true")) {
                once(warnings, "dropped `citations` of a text document: it goes on as text");
            }
            let context: Option<Str<'_>> = context().and_then(|raw| serde_json::from_str(raw.get()).ok().flatten());
            let body = source.data.clone().unwrap_or_default();
            let head: Vec<&str> = block.title.as_deref().into_iter().chain(context.as_deref()).collect();
            return Ok(text(if head.is_empty() { body } else { Str::from(format!("{}\n\n{}", head.join("\n"), &*body)) }));
        }
        Some("base64") => Str::from(format!("data:{};base64,{}", source.media_type.as_deref().unwrap_or("application/pdf"), source.data.as_deref().unwrap_or_default())),
        Some("url") => source.url.clone().unwrap_or_default(),
        _ => return Err(by_file(source, at)),
    };
    let filename = Some(block.title.clone().unwrap_or_else(|| Str::from("document.pdf")));
    let mut extra: wire::Extra<'a> = block.citations.map(|c| (Str::from("citations"), c)).into_iter().collect();
    extra.extend(context().map(|raw| (Str::from("context"), raw)));
    Ok(Part { kind: Some(Str::from("file")), file: Some(FilePart { file_data: Some(data), filename, ..FilePart::default() }), extra, ..Part::default() })
}

fn by_file(source: &Source<'_>, at: &str) -> Error {
    let message = if source.file_id.is_some() { "a file that was uploaded to Anthropic is only there on its own API; send the data itself" } else { "`source.type` must be base64, url or text" };
    Error::invalid(format!("{at}.source"), message)
}

/// A search result as text that still says where it is from.
fn search_result<'a>(block: &Block<'a>, at: &str, warnings: &mut Vec<String>) -> Result<Str<'a>, Error> {
    let said = nested(block, at)?;
    if block.citations.is_some_and(|c| c.get().contains("true")) {
        once(warnings, "dropped `citations` of a search result: it goes on as text that names its source");
    }
    let origin = match &block.source {
        Some(Origin::Name(name)) => name,
        _ => "",
    };
    Ok(Str::from(format!("{}\n{origin}\n\n{}", block.title.as_deref().unwrap_or_default(), content(&said, at, warnings)?.text())))
}
