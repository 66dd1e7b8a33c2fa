//! What a request holds beside text: pictures, sounds and files, encoded or named by reference. Only what stands where a dialect
//! has such things is one; text stays text, whatever it looks like.

use crate::envelope::Envelope;
use crate::parts::{self, Part};

/// Whether a body may hold anything beside text at all: noted by the strict scan, which passes every key anyway.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Marks {
    met: bool,
}

impl Marks {
    /// Takes in a field's name.
    pub(crate) fn key(&mut self, name: &[u8]) {
        self.met |= matches!(
            name,
            b"image_url" | b"imageUrl" | b"image" | b"input_audio" | b"audio_url" | b"file" | b"file_data" | b"file_url" | b"document_url" | b"source" | b"inlineData" | b"inline_data" | b"result"
        );
    }
}

/// What was met.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Media {
    /// Pictures, in the body or by reference.
    pub pictures: u32,
    /// Bytes of sound, decoded.
    pub sound: u64,
    /// Bytes of other files, decoded.
    pub files: u64,
    /// Bytes of the body that are encoded data.
    pub encoded: u64,
    /// Whether a picture is named by the place where it is.
    pub places: bool,
    /// Whether there is something whose bytes do not tell how long it is: a document that is packed, a sound that is.
    pub opaque: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Picture,
    Sound,
    File,
}

impl Kind {
    /// By a media type, whose slash may be escaped.
    fn of(media_type: &str) -> Self {
        let is = |word: &str| media_type.get(..word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word));
        match () {
            // A drawing that is written is read as text.
            () if is("image") && !media_type.contains("svg") => Kind::Picture,
            () if is("audio") => Kind::Sound,
            () => Kind::File,
        }
    }
}

impl Media {
    /// All of a request that is not text.
    #[must_use]
    pub fn of(request: &Envelope) -> Self {
        let mut media = Media::default();
        if request.met().media.met {
            parts::each(request, |part| media.take(part));
        }
        media
    }

    fn take(&mut self, part: &Part<'_>) {
        for name in ["image_url", "imageUrl", "image"] {
            if let Some(place) = part.place(name) {
                self.data(place, Kind::Picture);
            } else if part.get(name).is_some() {
                self.elsewhere();
            }
        }
        let inner = |name: &str, field: &str| part.object(name).and_then(|o| o.string(field));
        for (place, kind) in [
            (inner("input_audio", "data"), Kind::Sound),
            (part.place("audio_url"), Kind::Sound),
            (inner("file", "file_data"), Kind::File),
            (part.string("file_data"), Kind::File),
            (part.place("file_url"), Kind::File),
            (part.place("document_url"), Kind::File),
        ] {
            if let Some(place) = place {
                self.data(place, kind);
            }
        }
        for (name, media_type) in [("inlineData", "mimeType"), ("inlineData", "mime_type"), ("inline_data", "mimeType"), ("inline_data", "mime_type")] {
            if let Some(object) = part.object(name)
                && let (Some(media_type), Some(data)) = (object.string(media_type), object.string("data"))
            {
                self.typed(data, media_type);
            }
        }
        self.blocks(part);
    }

    /// Anthropic's images and documents, and the pictures that OpenAI has made before.
    fn blocks(&mut self, part: &Part<'_>) {
        match (part.kind(), part.object("source"), part.string("result")) {
            (Some("image_generation_call"), _, Some(data)) => self.data(data, Kind::Picture),
            (_, Some(source), _) if source.kind() == Some("base64") => {
                let picture = part.kind() == Some("image");
                match source.string("data") {
                    Some(data) if picture => {
                        self.take_in(data, Kind::Picture, false);
                    }
                    Some(data) => self.typed(data, source.string("media_type").unwrap_or_default()),
                    None if picture => self.elsewhere(),
                    None => self.opaque = true,
                }
            }
            (Some("image"), Some(_), _) => self.elsewhere(),
            _ => {}
        }
    }

    fn elsewhere(&mut self) {
        self.pictures += 1;
        self.places = true;
    }

    /// Takes in data as it stands in the body, a data URL, or the place where a picture is.
    fn data(&mut self, place: &str, usual: Kind) {
        match head(place) {
            Some((media_type, data)) if !media_type.is_empty() => self.typed(data, media_type),
            Some((_, data)) => {
                self.take_in(data, usual, false);
            }
            None => {
                let here = self.take_in(place, usual, false);
                self.places |= usual == Kind::Picture && !here;
            }
        }
    }

    /// Takes in data of a media type.
    fn typed(&mut self, data: &str, media_type: &str) {
        self.take_in(data, Kind::of(media_type), is_text(media_type));
    }

    /// Takes in data, and says whether it is base64. What is none goes on counting as text.
    fn take_in(&mut self, data: &str, kind: Kind, written: bool) -> bool {
        let bytes = decoded(data.as_bytes());
        self.encoded += bytes.map_or(0, |_| data.len() as u64);
        match kind {
            Kind::Picture => self.pictures += 1,
            Kind::Sound => {
                self.sound += bytes.unwrap_or_default();
                self.opaque |= !PLAIN_SOUND.iter().any(|head| data.starts_with(head));
            }
            Kind::File => {
                self.files += bytes.unwrap_or_default();
                self.opaque |= !written;
            }
        }
        bytes.is_some()
    }
}

/// How the data of sounds begins that cannot be packed without bound: wave, MP3 with a head of its own and without.
const PLAIN_SOUND: &[&str] = &["UklGR", "SUQz", "//", "\\/\\/"];

/// Whether what has this media type is read as the text that it is, so that its bytes bound it.
fn is_text(media_type: &str) -> bool {
    let media_type = media_type.to_ascii_lowercase();
    media_type.starts_with("text") || ["json", "xml", "csv", "yaml", "javascript"].iter().any(|word| media_type.ends_with(word))
}

/// The media type and the data of a data URL.
pub(crate) fn head(place: &str) -> Option<(&str, &str)> {
    let (head, data) = place.strip_prefix("data:")?.split_once(',')?;
    Some((head.strip_suffix(";base64")?, data))
}

/// How many bytes a string decodes to, if all of it is base64; lines may be broken and slashes escaped.
fn decoded(string: &[u8]) -> Option<u64> {
    let mut rest = string;
    let mut letters = 0;
    loop {
        let end = memchr::memchr(b'\\', rest).unwrap_or(rest.len());
        if !rest[..end].chunks(4096).all(all_letters) {
            return None;
        }
        letters += end as u64;
        match &rest[end..] {
            [] => return Some(letters / 4 * 3),
            [b'\\', b'/', after @ ..] => {
                letters += 1;
                rest = after;
            }
            [b'\\', b'n' | b'r', after @ ..] => rest = after,
            _ => return None,
        }
    }
}

/// Whether all bytes are base64's, of either alphabet: without a branch for each, so that many are looked at at once.
fn all_letters(bytes: &[u8]) -> bool {
    let is = |b: u8| ((b | 0x20).wrapping_sub(b'a') < 26) | (b.wrapping_sub(b'0') < 10) | (b == b'+') | (b == b'/') | (b == b'=') | (b == b'-') | (b == b'_');
    bytes.iter().fold(true, |all, b| all & is(*b))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn met(body: &str) -> Media {
        Media::of(&Envelope::read(Bytes::copy_from_slice(body.as_bytes())).unwrap())
    }

    fn part(part: &str) -> Media {
        met(&format!(r#"{{"messages":[{{"role":"user","content":[{part}]}}]}}"#))
    }

    #[test]
    fn text_is_no_media() {
        let data = "iVBORw0KGgo+/".repeat(4000);
        for part_of_text in [
            r#"{"type":"text","text":"an image of a file, said with audio: \"data:image/png;base64,xyz\""}"#.into(),
            format!(r#"{{"type":"text","text":"{data}"}}"#),
            format!(r#"{{"type":"text","text":"data:audio/wav;base64,{data}"}}"#),
            format!(r#"{{"type":"tool_use","id":"t","name":"f","input":{{"source":{{"type":"base64","media_type":"audio/wav","data":"{data}"}},"image_url":"x"}}}}"#),
            format!(r#"{{"functionResponse":{{"name":"f","response":{{"inlineData":{{"mimeType":"image/png","data":"{data}"}}}}}}}}"#),
            format!(r#"{{"functionCall":{{"name":"f","args":{{"inlineData":{{"mimeType":"image/png","data":"{data}"}}}}}}}}"#),
            format!(r#"{{"type":"document","source":{{"type":"text","media_type":"text/plain","data":"{data}"}}}}"#),
        ] {
            assert_eq!(part(&part_of_text), Media::default(), "{}", &part_of_text[..60]);
        }
        let spaced = part(&format!(r#"{{"type":"input_audio","input_audio":{{"data":"UklGR{data} {data}","format":"wav"}}}}"#));
        assert_eq!(spaced, Media::default());
        for body in [format!(r#"{{"messages":[{{"role":"user","content":"{data}"}}]}}"#), format!(r#"{{"input":"{data}","tools":[{{"image_url":"data:image/png;base64,{data}"}}]}}"#)] {
            assert_eq!(met(&body), Media::default());
        }
    }

    #[test]
    fn pictures_sounds_and_files_are_found_in_every_dialect() {
        let data = "iVBORw0KGgo+/123".repeat(4000);
        let bytes = data.len() as u64 / 4 * 3;
        for (one, pictures, sound, files) in [
            (format!(r#"{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{data}"}}}}"#), 1, 0, 0),
            (r#"{"type":"image_url","image_url":{"url":"https://example.com/a.png"}}"#.into(), 1, 0, 0),
            (format!(r#"{{"type":"image_url","image_url":{{"url":"data:application/pdf;base64,{data}"}}}}"#), 0, 0, bytes),
            (format!(r#"{{"type":"input_image","image_url":"data:image/png;base64,{data}"}}"#), 1, 0, 0),
            (format!(r#"{{"type":"input_audio","input_audio":{{"data":"{data}","format":"wav"}}}}"#), 0, bytes, 0),
            (format!(r#"{{"type":"file","file":{{"filename":"a.pdf","file_data":"data:application/pdf;base64,{data}"}}}}"#), 0, 0, bytes),
            (format!(r#"{{"type":"input_file","file_data":"data:image/png;base64,{data}"}}"#), 1, 0, 0),
            (format!(r#"{{"type":"file_url","file_url":{{"url":"{data}"}}}}"#), 0, 0, bytes),
            (format!(r#"{{"type":"image","source":{{"type":"base64","media_type":"image/jpeg","data":"{data}"}}}}"#), 1, 0, 0),
            (r#"{"type":"image","source":{"type":"url","url":"https://example.com/a.png"}}"#.into(), 1, 0, 0),
            (format!(r#"{{"type":"document","source":{{"type":"base64","media_type":"application/pdf","data":"{data}"}}}}"#), 0, 0, bytes),
            (format!(r#"{{"type":"tool_result","content":[{{"type":"image","source":{{"type":"base64","media_type":"image/jpeg","data":"{data}"}}}}]}}"#), 1, 0, 0),
            (format!(r#"{{"inlineData":{{"mimeType":"image/png","data":"{data}"}}}}"#), 1, 0, 0),
            (format!(r#"{{"inline_data":{{"data":"{data}","mime_type":"audio/mp3"}}}}"#), 0, bytes, 0),
            (format!(r#"{{"functionResponse":{{"name":"f","response":{{}},"parts":[{{"inlineData":{{"mimeType":"image/png","data":"{data}"}}}}]}}}}"#), 1, 0, 0),
            (format!(r#"{{"type":"computer_call_output","output":{{"type":"computer_screenshot","image_url":"data:image/png;base64,{data}"}}}}"#), 1, 0, 0),
            (format!(r#"{{"type":"image_generation_call","result":"{data}"}}"#), 1, 0, 0),
        ] {
            let media = part(&one);
            assert_eq!((media.pictures, media.sound, media.files), (pictures, sound, files), "{}", &one[..60]);
            assert!(one.len() as u64 - media.encoded < 300);
        }
        for (one, places, opaque) in [
            (r#"{"type":"image_url","image_url":{"url":"https://example.com/a.png"}}"#.into(), true, false),
            (r#"{"type":"image","source":{"type":"url","url":"https://example.com/a.png"}}"#.into(), true, false),
            (format!(r#"{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{data}"}}}}"#), false, false),
            (format!(r#"{{"type":"input_audio","input_audio":{{"data":"UklGR{data}","format":"wav"}}}}"#), false, false),
            (format!(r#"{{"type":"input_audio","input_audio":{{"data":"{data}","format":"flac"}}}}"#), false, true),
            (format!(r#"{{"type":"file","file":{{"file_data":"data:application/pdf;base64,{data}"}}}}"#), false, true),
            (format!(r#"{{"type":"file","file":{{"file_data":"data:text/plain;base64,{data}"}}}}"#), false, false),
            (format!(r#"{{"inlineData":{{"mimeType":"application/json","data":"{data}"}}}}"#), false, false),
            (format!(r#"{{"type":"document","source":{{"type":"base64","media_type":"application/pdf","data":"{data}"}}}}"#), false, true),
        ] {
            let media = part(&one);
            assert_eq!((media.places, media.opaque), (places, opaque), "{}", &one[..60]);
        }
        assert_eq!(part(&vec![r#"{"inlineData":{"mimeType":"image/png","data":"iVBO"}}"#; 100].join(",")).pictures, 100);
    }

    #[test]
    fn base64_is_looked_at_from_end_to_end() {
        assert_eq!((decoded(b"AAAA"), decoded(b"AA\\/A\\nAAAA"), decoded(b"AA-_"), decoded(b"")), (Some(3), Some(6), Some(3), Some(0)));
        for at in [0, 1, 5000, 9998, 9999] {
            for wrong in 0..=255_u8 {
                let mut string = vec![b'A'; 10_000];
                string[at] = wrong;
                let right = wrong.is_ascii_alphanumeric() || b"+/=-_".contains(&wrong);
                assert_eq!(decoded(&string).is_some(), right, "{wrong:#x} at {at}");
            }
        }
        assert_eq!(decoded(b"AA\\u0020A"), None);
    }
}
