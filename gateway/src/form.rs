//! Forms (`multipart/form-data`), read so that there is one way to read them. What another server might read otherwise (a field
//! that stands twice, a name in a spelling of its own, a part before the first or behind the last) is refused: the model that
//! was checked has to be the model that is used. The bytes of all parts stay as they came.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use memchr::memmem;
use providers::ErrorKind;

use crate::fault::Fault;

/// The fields that are read here. Each may stand once.
const READ: [&str; 5] = ["model", "stream", "n", "size", "quality"];
/// Charsets in which plain text is written as it is in ASCII.
const PLAIN: [&str; 5] = ["utf-8", "us-ascii", "ascii", "iso-8859-1", "windows-1252"];
/// Longest head of a part.
const HEAD: usize = 16 << 10;

/// A form.
#[derive(Debug, Clone)]
pub struct Form {
    /// Its bytes.
    pub body: Bytes,
    /// Its content type as the provider is shown it: with the boundary that was read, and nothing else.
    pub content_type: HeaderValue,
    fields: [Option<Range<usize>>; READ.len()],
    files: Vec<Range<usize>>,
}

impl Form {
    /// Reads a form of this content type.
    ///
    /// # Errors
    /// 400 if it cannot be read, or could be read in more than one way.
    pub fn read(content_type: Option<&HeaderValue>, body: Bytes) -> Result<Self, Fault> {
        let boundary = boundary(content_type)?;
        let quoted = if boundary.bytes().all(is_token) { boundary.to_string() } else { format!("\"{boundary}\"") };
        let content_type = HeaderValue::try_from(format!("multipart/form-data; boundary={quoted}")).map_err(|_| wrong("the boundary in its content type is not text"))?;
        let mut form = Form { body: body.clone(), content_type, fields: [const { None }; READ.len()], files: Vec::new() };
        for part in parts(&body, &format!("--{boundary}"))? {
            form.take(&body, part)?;
        }
        Ok(form)
    }

    /// Where the value of a field stands.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<Range<usize>> {
        READ.iter().position(|n| *n == name).and_then(|at| self.fields[at].clone())
    }

    /// The value of a field, where it is text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(&self.body[self.field(name)?]).ok().map(str::trim)
    }

    /// The bytes of the file, where there is one and no other: of several the provider may read any.
    #[must_use]
    pub fn file(&self) -> Option<&[u8]> {
        match self.files.as_slice() {
            [one] => self.body.get(one.clone()),
            _ => None,
        }
    }

    fn take(&mut self, body: &[u8], part: Range<usize>) -> Result<(), Fault> {
        let end = memmem::find(&body[part.clone()], b"\r\n\r\n").filter(|end| *end <= HEAD).ok_or_else(|| wrong("a part has no head, or one without an end"))?;
        let value = part.start + end + 4..part.end;
        let (name, is_file) = disposition(&body[part.start..part.start + end])?;
        if is_file {
            self.files.push(value.clone());
        }
        // A server may read lists (`model[]`), or names without regard to case or to spaces around them.
        let plain = name.split('[').next().unwrap_or_default().trim().to_ascii_lowercase();
        if plain == "_charset_" {
            return Err(wrong("the field `_charset_` says how the others are written; leave it out and write UTF-8"));
        }
        let Some(at) = READ.iter().position(|read| *read == plain) else { return Ok(()) };
        let message = match () {
            () if name != plain => format!("the field `{name}` could be taken for `{plain}`"),
            () if is_file => format!("the field `{name}` is a file"),
            () if self.fields[at].is_some() => format!("the field `{name}` stands in it twice"),
            () => {
                self.fields[at] = Some(value);
                return Ok(());
            }
        };
        Err(wrong(&message).param(&*plain))
    }
}

fn wrong(what: &str) -> Fault {
    Fault::client(StatusCode::BAD_REQUEST, ErrorKind::InvalidRequest, format!("the form cannot be read: {what}")).code("invalid_form")
}

/// The boundary that a content type names.
fn boundary(content_type: Option<&HeaderValue>) -> Result<Cow<'_, str>, Fault> {
    let value = content_type.map(HeaderValue::as_bytes).unwrap_or_default();
    let mut found = None;
    for parameter in parameters(value)? {
        let (name, value) = parameter?;
        match &*name {
            "boundary" if found.is_some() => return Err(wrong("its content type has two boundaries")),
            "boundary" => found = Some(value),
            _ if name.starts_with("boundary") => return Err(wrong("its content type has a boundary in an extended spelling")),
            "charset" if !["utf-8", "us-ascii"].iter().any(|known| value.eq_ignore_ascii_case(known.as_bytes())) => return Err(wrong("its charset must be utf-8")),
            _ => {}
        }
    }
    let boundary = found.ok_or_else(|| wrong("its content type has no boundary"))?;
    let fits = (1..=70).contains(&boundary.len()) && boundary.iter().all(|b| b.is_ascii_alphanumeric() || b"'()+_,-./:=? ".contains(b)) && !boundary.ends_with(b" ");
    let text = std::str::from_utf8(boundary).ok().filter(|_| fits);
    text.map(Cow::Borrowed).ok_or_else(|| wrong("the boundary in its content type must have 1 to 70 letters, digits and signs"))
}

/// Where the parts stand between the delimiters: these begin their line, have it for themselves, and are nowhere else.
fn parts(body: &[u8], delimiter: &str) -> Result<Vec<Range<usize>>, Fault> {
    let first = if body.starts_with(b"\r\n") { 2 } else { 0 };
    if !body[first..].starts_with(delimiter.as_bytes()) {
        return Err(wrong("it does not begin with the boundary that its content type names"));
    }
    let mut parts = Vec::new();
    let mut open: Option<usize> = None;
    for at in memmem::find_iter(body, delimiter) {
        // Clients choose a boundary that is nowhere else: where it is, somebody wants a part to be seen by some readers only.
        if at != first && !body[..at].ends_with(b"\r\n") {
            return Err(wrong("its boundary stands in the middle of a part, or behind a line that does not end in CR and LF"));
        }
        if let Some(start) = open.take() {
            let end = at - 2;
            if end < start {
                return Err(wrong("a part has no head"));
            }
            parts.push(start..end);
        }
        let behind = &body[at + delimiter.len()..];
        if behind.starts_with(b"\r\n") {
            open = Some(at + delimiter.len() + 2);
        } else if let Some(rest) = behind.strip_prefix(b"--") {
            return if rest.trim_ascii().is_empty() { Ok(parts) } else { Err(wrong("something follows behind its end")) };
        } else {
            return Err(wrong("a line begins like a delimiter and goes on otherwise"));
        }
    }
    Err(wrong("it has no end"))
}

/// A part's name, and whether it is a file, by its head.
fn disposition(head: &[u8]) -> Result<(&str, bool), Fault> {
    let mut disposition = None;
    let mut plain = true;
    for line in lines(head)? {
        let Some((name, value)) = line.split_at_checked(memchr::memchr(b':', line).unwrap_or(0)).filter(|(name, _)| !name.is_empty() && name.iter().copied().all(is_token)) else {
            return Err(wrong("the head of a part has a line that is no header"));
        };
        let value = value[1..].trim_ascii();
        if name.eq_ignore_ascii_case(b"content-disposition") && disposition.replace(value).is_some() {
            return Err(wrong("a part has two headers `Content-Disposition`"));
        }
        if name.eq_ignore_ascii_case(b"content-transfer-encoding") && !["binary", "8bit", "7bit"].iter().any(|plain| value.eq_ignore_ascii_case(plain.as_bytes())) {
            return Err(wrong("a part has a `Content-Transfer-Encoding`; send its bytes as they are"));
        }
        if name.eq_ignore_ascii_case(b"content-type") {
            if value.get(..10).is_some_and(|kind| kind.eq_ignore_ascii_case(b"multipart/")) {
                return Err(wrong("a part has parts of its own"));
            }
            plain &= is_plain(value);
        }
    }
    let value = disposition.ok_or_else(|| wrong("a part has no header `Content-Disposition`"))?;
    let kind = value.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
    if !kind.eq_ignore_ascii_case(b"form-data") {
        return Err(wrong("the `Content-Disposition` of a part must be form-data"));
    }
    let (mut field, mut is_file) = (None, false);
    for parameter in parameters(value)? {
        let (name, value) = parameter?;
        match &*name {
            "name" if field.is_some() => return Err(wrong("a part has two names")),
            "name" => field = Some(value),
            _ if name.starts_with("name") => return Err(wrong("a part has a name in an extended spelling; write `name=\"…\"`")),
            _ => is_file |= name.starts_with("filename"),
        }
    }
    if !is_file && !plain {
        return Err(wrong("a part has a charset in which plain text may be written otherwise; write UTF-8"));
    }
    let field = field.ok_or_else(|| wrong("a part has no name"))?;
    let name = std::str::from_utf8(field).ok().filter(|name| !name.contains(['%', '\\']));
    Ok((name.ok_or_else(|| wrong("the name of a part must be plain text without `%` and `\\`"))?, is_file))
}

/// Whether plain text is written as it is, in every charset that a content type names.
fn is_plain(content_type: &[u8]) -> bool {
    let text = String::from_utf8_lossy(content_type).to_ascii_lowercase();
    let value = |behind: &str| behind.split(';').next().unwrap_or_default().trim_matches(|c: char| c == '=' || c == '"' || c == ' ').to_owned();
    text.split("charset").skip(1).all(|behind| PLAIN.contains(&&*value(behind)))
}

/// The lines of a part's head.
fn lines(head: &[u8]) -> Result<impl Iterator<Item = &[u8]>, Fault> {
    let ends = memmem::find_iter(head, b"\r\n").count();
    if head.iter().filter(|b| b.is_ascii_control() && **b != b'\t').count() != 2 * ends {
        return Err(wrong("the head of a part has control characters in it"));
    }
    if head.starts_with(b" ") || head.starts_with(b"\t") || memmem::find(head, b"\r\n ").is_some() || memmem::find(head, b"\r\n\t").is_some() {
        return Err(wrong("the head of a part has a header on several lines"));
    }
    Ok(head.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line)))
}

/// What may stand unquoted.
fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

/// A parameter of a header: its name in lower case, and its value without quotes.
type Parameter<'h> = Result<(String, &'h [u8]), Fault>;

/// The parameters behind a header's first word.
fn parameters(header: &[u8]) -> Result<impl Iterator<Item = Parameter<'_>>, Fault> {
    // A quote that is escaped ends the value for some readers and not for others.
    if memmem::find(header, b"\\\"").is_some() {
        return Err(wrong("a quoted value has an escaped quote in it"));
    }
    let mut rest = memchr::memchr(b';', header).map_or(&[][..], |at| &header[at..]);
    Ok(std::iter::from_fn(move || {
        rest = rest.strip_prefix(b";")?.trim_ascii_start();
        if rest.is_empty() {
            return None;
        }
        let parameter = parameter(&mut rest);
        if parameter.is_err() {
            rest = &[];
        }
        Some(parameter)
    }))
}

fn parameter<'h>(rest: &mut &'h [u8]) -> Parameter<'h> {
    let unreadable = || wrong("a header has a parameter that is none; write `name=\"value\"`");
    let equals = memchr::memchr(b'=', rest).ok_or_else(unreadable)?;
    let (name, behind) = (&rest[..equals], &rest[equals + 1..]);
    if name.is_empty() || !name.iter().copied().all(is_token) {
        return Err(unreadable());
    }
    let (value, behind) = match behind.strip_prefix(b"\"") {
        Some(quoted) => {
            let end = memchr::memchr(b'"', quoted).ok_or_else(unreadable)?;
            (&quoted[..end], &quoted[end + 1..])
        }
        None => {
            let end = behind.iter().position(|b| !b.is_ascii_graphic() || matches!(b, b';' | b'"' | b'\\' | b',')).unwrap_or(behind.len());
            (&behind[..end], &behind[end..])
        }
    };
    *rest = behind.trim_ascii_start();
    if !rest.is_empty() && !rest.starts_with(b";") {
        return Err(unreadable());
    }
    Ok((String::from_utf8_lossy(name).to_ascii_lowercase(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content_type: &str, body: impl Into<Vec<u8>>) -> Result<Form, String> {
        Form::read(Some(&HeaderValue::from_str(content_type).unwrap()), Bytes::from(body.into())).map_err(|fault| fault.told.message)
    }

    fn one(head: &str) -> Result<Form, String> {
        read("multipart/form-data; boundary=xx", format!("--xx\r\n{head}\r\n\r\na\r\n--xx--"))
    }

    #[test]
    fn fields_and_files_are_found_between_delimiters_at_the_start_of_lines() {
        let body = b"--xx\r\nContent-Disposition: form-data; name=\"file\"; filename=\"C:\\a; name=b\"\r\nContent-Type: audio/wav\r\n\r\n\xff --x\r\n\r\n-xx\r\n--xx\r\ncontent-disposition:form-data;name=model\r\n\r\nwhisper-1\r\n--xx\r\nContent-Disposition: form-data; name=\"n\"\r\n\r\n\r\n--xx--\r\n";
        let form = read("multipart/form-data; boundary=xx", body).unwrap();
        assert_eq!((form.text("model"), form.text("n"), form.text("stream"), form.file()), (Some("whisper-1"), Some(""), None, Some(&b"\xff --x\r\n\r\n-xx"[..])));
        assert_eq!(&form.body[form.field("model").unwrap()], b"whisper-1");
        let file = "--xx\r\nContent-Disposition: form-data; name=\"x\"; filename=\"a\"\r\n\r\na\r\n";
        assert_eq!(read("multipart/form-data; boundary=xx", format!("{file}{file}--xx--")).unwrap().file(), None, "which of two is read, nobody knows");
        assert!(read("multipart/form-data; boundary=xx", *b"\r\n--xx--").is_ok_and(|form| form.text("model").is_none()));
    }

    #[test]
    fn a_content_type_names_one_boundary_in_one_way() {
        let shown = |content_type: &str, boundary: &str| read(content_type, format!("--{boundary}--")).map(|form| form.content_type.to_str().unwrap().to_owned());
        assert_eq!(shown("multipart/form-data; boundary=\"a b\"", "a b").unwrap(), "multipart/form-data; boundary=\"a b\"");
        assert_eq!(shown("Multipart/Form-Data;charset=UTF-8; BOUNDARY=----a=_1;", "----a=_1").unwrap(), "multipart/form-data; boundary=\"----a=_1\"");
        for bad in
            ["", "; boundary=", "; boundary=a; boundary=b", "; boundary*=utf-8''a", "; boundary=a; charset=utf-16", "; boundary=\"a", "; boundary=a b", "; boundary=\"a \"", "; boundary=a\\b", "; x"]
        {
            assert!(shown(&format!("multipart/form-data{bad}"), "a").is_err(), "{bad}");
        }
        assert!(Form::read(None, Bytes::new()).is_err());
    }

    #[test]
    fn a_head_is_read_in_one_way_or_not_at_all() {
        for good in [
            "Content-Disposition: form-data; name=\"model\"",
            "X-A: b\r\nCONTENT-DISPOSITION: Form-Data;  NAME=model ;",
            "Content-Disposition: form-data; name=\"model\"\r\nContent-Transfer-Encoding: binary",
            // .NET, and Apache's client for Java.
            "Content-Type: text/plain; charset=utf-8\r\nContent-Disposition: form-data; name=model",
            "Content-Disposition: form-data; name=\"model\"\r\nContent-Type: text/plain; charset=ISO-8859-1\r\nContent-Transfer-Encoding: 8bit",
        ] {
            assert_eq!(one(good).unwrap().text("model"), Some("a"), "{good}");
        }
        assert_eq!(one("Content-Disposition: form-data; name=\"image[]\"; filename*=utf-8''%C3%A9.png").unwrap().file(), Some(&b"a"[..]));
        let named = |parameters: &str| format!("Content-Disposition: form-data{parameters}");
        let bad = [
            named(""),
            named("; name"),
            named("; name="),
            named("; name=\"a"),
            named("; name=\"a\" b"),
            named("; name =\"model\""),
            named("; name=\"a\\\"; name=\"model\""),
            named("; name=\"mod%65l\""),
            named("; name=\"mo\\del\""),
            named("; name=\"model\"; filename=\"x\""),
            named("; name=\" model\""),
            named("; name*0=mo; name*1=del"),
            named("; name=\"x\"\r\nContent-Disposition: form-data; name=\"model\""),
            named("; name=\"x\"\r\nContent-Type: Multipart/mixed; boundary=y"),
            named("; name=\"model\"\r\nContent-Type: text/plain; charset=utf-7"),
            named("; name=\"model\"\r\nContent-Type: text/plain; charset=utf-8; Charset=\"utf-16\""),
            named("; name=\"model\"\r\nContent-Type: text/plain; charset*=utf-16''x"),
            named("; name=\"_charset_\""),
            named("; name=\"x\"\r\n\tname=\"model\""),
            named("; name=\"x\"\n; name=\"model\""),
            "Content-Disposition: attachment; name=\"model\"".to_owned(),
            "Content-Disposition : form-data; name=\"model\"".to_owned(),
            "Content-Type: text/plain".to_owned(),
            ": form-data".to_owned(),
        ];
        for head in bad.iter().filter(|head| !head.ends_with("name=")) {
            assert!(one(head).is_err(), "{head}");
        }
        assert!(one(&named("; name=")).unwrap().text("model").is_none(), "an empty name is no name that is read");
        assert!(one(&format!("{}\r\nX: {}", named("; name=\"model\""), "x".repeat(HEAD))).is_err());
    }

    #[test]
    fn what_stands_outside_of_parts_or_looks_like_a_delimiter_is_refused() {
        let part = "\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\na\r\n--xx";
        for bad in [
            format!("--xx{part}"),
            format!("--xx{part}-"),
            format!("--xx{part}--x"),
            format!("x--xx{part}--"),
            format!("\n--xx{part}--"),
            format!("--xx {part}--"),
            format!("--xx\r\n--xx{part}--"),
            format!("--xx\r\n\r\n\r\n--xx{part}--"),
            format!("--xx{part}{part}--"),
            "--xy--".to_owned(),
            format!("--xx{}{part}--", part.replace("\r\na\r\n", "\r\na --xx\r\n")),
            format!("--xx{}{part}--", part.replace("\r\na\r\n", "\r\na\n--xx\r\n")),
            String::new(),
        ] {
            assert!(read("multipart/form-data; boundary=xx", bad.clone()).is_err(), "{bad}");
        }
        assert!(read("multipart/form-data; boundary=xx", format!("--xx{part}-- \r\n\r\n")).is_ok());
    }
}
