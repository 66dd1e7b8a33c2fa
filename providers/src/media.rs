//! What a request holds beside text: pictures, sounds and files, encoded in its strings or named by reference, in whatever dialect
//! it is. Noted by the strict scan on its way, which passes every string anyway.

/// Shorter strings are text, whatever they hold.
const SHORT: usize = 512;

/// What was met.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Media {
    /// Pictures as dialects mark them.
    marked: u32,
    /// Pictures as data; mostly the same ones.
    drawn: u32,
    /// Bytes of sound, decoded.
    pub sound: u64,
    /// Bytes of other files, decoded.
    pub files: u64,
    /// Bytes of the body that are encoded data.
    pub encoded: u64,
    /// Whether it names files that only the provider can see.
    pub stored: bool,
}

impl Media {
    /// Pictures, in the body or by reference.
    #[must_use]
    pub fn pictures(&self) -> u32 {
        self.marked.max(self.drawn)
    }

    /// Takes in a field's name.
    pub(crate) fn key(&mut self, name: &[u8]) {
        match name {
            b"image_url" | b"imageUrl" => self.marked += 1,
            b"file_id" | b"file_url" | b"fileUri" | b"file_uri" => self.stored = true,
            _ => {}
        }
    }

    /// Takes in a string value, which stands there in the body, without its quotes.
    pub(crate) fn value(&mut self, body: &[u8], open: usize, close: usize) {
        let string = &body[open..close];
        if string == b"image" {
            // Anthropic's `"type": "image"`.
            self.marked += 1;
        }
        if string.len() < SHORT {
            return;
        }
        let Some(data) = encoded(string) else { return };
        let bytes = data.len() as u64 / 4 * 3;
        self.encoded += data.len() as u64;
        match kind(body, open, close) {
            Kind::Picture => self.drawn += 1,
            Kind::Sound => self.sound += bytes,
            Kind::File => self.files += bytes,
        }
    }
}

enum Kind {
    Picture,
    Sound,
    File,
}

/// The part of a string that is base64: all of it, or what follows a data URL's head. Its beginning, its middle and its end
/// decide: prose has a space there.
fn encoded(string: &[u8]) -> Option<&[u8]> {
    let data = match string.strip_prefix(b"data:") {
        Some(rest) => &rest[memchr::memchr(b',', &rest[..rest.len().min(200)])? + 1..],
        None => string,
    };
    let plain = |part: &[u8]| part.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/' | b'=' | b'-' | b'_'));
    let probe = 128.min(data.len());
    let middle = data.len() / 2;
    (plain(&data[..probe]) && plain(&data[data.len() - probe..]) && plain(&data[middle..(middle + probe).min(data.len())])).then_some(data)
}

/// What encoded data is, by the words around it: a data URL's head, a media type, a field's name.
fn kind(body: &[u8], open: usize, close: usize) -> Kind {
    let before = &body[open.saturating_sub(200)..(open + 100).min(close)];
    let after = &body[close..(close + 100).min(body.len())];
    let says = |word: &[u8]| memchr::memmem::find(before, word).is_some() || memchr::memmem::find(after, word).is_some();
    if says(b"audio") {
        Kind::Sound
    } else if says(b"image") && !says(b"application/") {
        Kind::Picture
    } else {
        Kind::File
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::scan_request;

    fn met(body: &str) -> Media {
        scan_request(body.as_bytes()).unwrap().1.media
    }

    #[test]
    fn text_is_no_media() {
        assert_eq!(met(r#"{"model":"m","messages":[{"role":"user","content":"an image of a file, said with audio: \"data:image/png;base64,xyz\""}]}"#), Media::default());
        let long = format!(r#"{{"messages":[{{"role":"user","content":"image {}"}}]}}"#, "words and words ".repeat(5000));
        assert_eq!(met(&long), Media::default());
    }

    #[test]
    fn pictures_sounds_and_files_are_found_in_every_dialect() {
        let data = "iVBORw0KGgo+/".repeat(4000);
        let bytes = data.len() as u64 / 4 * 3;
        for (part, pictures, sound, files) in [
            (format!(r#"{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{data}"}}}}"#), 1, 0, 0),
            (r#"{"type":"image_url","image_url":{"url":"https://example.com/a.png"}}"#.into(), 1, 0, 0),
            (format!(r#"{{"type":"input_image","image_url":"data:image/png;base64,{data}"}}"#), 1, 0, 0),
            (format!(r#"{{"type":"input_audio","input_audio":{{"data":"{data}","format":"wav"}}}}"#), 0, bytes, 0),
            (format!(r#"{{"type":"file","file":{{"filename":"a.pdf","file_data":"data:application/pdf;base64,{data}"}}}}"#), 0, 0, bytes),
            (format!(r#"{{"type":"image","source":{{"type":"base64","media_type":"image/jpeg","data":"{data}"}}}}"#), 1, 0, 0),
            (r#"{"type":"image","source":{"type":"url","url":"https://example.com/a.png"}}"#.into(), 1, 0, 0),
            (format!(r#"{{"type":"document","source":{{"type":"base64","media_type":"application/pdf","data":"{data}"}}}}"#), 0, 0, bytes),
            (format!(r#"{{"inlineData":{{"mimeType":"image/png","data":"{data}"}}}}"#), 1, 0, 0),
            (format!(r#"{{"inlineData":{{"data":"{data}","mimeType":"audio/mp3"}}}}"#), 0, bytes, 0),
        ] {
            let body = format!(r#"{{"messages":[{{"role":"user","content":[{part}]}}]}}"#);
            let media = met(&body);
            assert_eq!((media.pictures(), media.sound, media.files, media.stored), (pictures, sound, files, false), "{}", &part[..60]);
            assert!(body.len() as u64 - media.encoded < 300);
        }
        let two = format!(r#"{{"a":[{{"image_url":"https://x/a.png"}},{{"image_url":"data:image/png;base64,{data}"}}]}}"#);
        assert_eq!(met(&two).pictures(), 2);
    }

    #[test]
    fn stored_files_are_noted() {
        assert!(met(r#"{"content":[{"type":"file","file":{"file_id":"file-1"}}]}"#).stored);
        assert!(met(r#"{"fileData":{"mimeType":"video/mp4","fileUri":"gs://a"}}"#).stored);
    }
}
