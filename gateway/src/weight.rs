//! What a prompt weighs: bytes of text, and pictures, sounds and files that count otherwise. Found in the body's strings without
//! parsing it, in whatever dialect it is, so that an estimate of its tokens costs next to nothing. How many bytes of text make a
//! token is learnt from the answers of each target (`docs/decisions/0008-tokens-by-experience.md`).

use std::sync::LazyLock;

use memchr::memmem::Finder;

/// Thousandths of a byte to a token, as long as a target has told nothing.
pub const DENSITY: u32 = 4_000;

/// Tokens of a picture: what most models count for a large one, and the most that any is known to count (a small model that
/// multiplies its tiles: gpt-4o-mini).
const PICTURE: (u64, u64) = (1_600, 40_000);
/// Bytes of encoded sound to a token: about, and at worst.
const SOUND: (u64, u64) = (400, 16);
/// Bytes of other files (documents mostly) to a token: about, and at worst.
const FILE: (u64, u64) = (8, 1);
/// Shorter strings are text, whatever they hold.
const SHORT: usize = 512;
/// Bodies up to this size are asked first whether they hold anything but text.
const SMALL: usize = 16 << 10;

/// A prompt on the scales.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Weight {
    /// Bytes of text, JSON's own included: targets tell tokens per byte of the same.
    pub text: u64,
    /// Pictures, in the body or by reference.
    pub pictures: u64,
    /// Bytes of sound.
    pub sound: u64,
    /// Bytes of other files.
    pub files: u64,
    /// Whether it names what only the provider can see: stored files, an earlier conversation.
    pub unseen: bool,
}

static MEDIA: LazyLock<[Finder<'static>; 7]> =
    LazyLock::new(|| ["image", "base64", "audio", "file", "inlineData", "previous_response_id", "conversation"].map(|word| Finder::new(word.as_bytes()).into_owned()));

impl Weight {
    /// A prompt of so many bytes of nothing but text.
    #[must_use]
    pub fn of_text(bytes: u64) -> Self {
        Weight { text: bytes, ..Weight::default() }
    }

    /// Weighs a JSON body that has been read strictly.
    #[must_use]
    pub fn of(body: &[u8]) -> Self {
        if body.len() <= SMALL && MEDIA.iter().all(|word| word.find(body).is_none()) {
            return Weight::of_text(body.len() as u64);
        }
        let mut weight = Weight::of_text(body.len() as u64);
        // Pictures as their dialects mark them, and pictures as data: mostly the same ones.
        let (mut marked, mut drawn) = (0, 0);
        let mut at = 0;
        while let Some(open) = memchr::memchr(b'"', &body[at..]).map(|n| at + n + 1) {
            let close = end_of_string(body, open);
            let string = &body[open..close];
            at = (close + 1).min(body.len());
            if string.len() >= SHORT {
                if let Some(data) = encoded(string) {
                    let bytes = data.len() as u64 / 4 * 3;
                    weight.text -= data.len() as u64;
                    match kind(body, open, close) {
                        Kind::Picture => drawn += 1,
                        Kind::Sound => weight.sound += bytes,
                        Kind::File => weight.files += bytes,
                    }
                }
                continue;
            }
            let names = body[at..].iter().find(|b| !b.is_ascii_whitespace()) == Some(&b':');
            match string {
                b"image_url" | b"imageUrl" if names => marked += 1,
                b"image" if !names => marked += 1,
                b"file_id" | b"file_url" | b"fileUri" | b"file_uri" | b"previous_response_id" | b"conversation" if names => weight.unseen |= !is_null(&body[at..]),
                _ => {}
            }
        }
        weight.pictures = marked.max(drawn);
        weight
    }

    /// Whether it is nothing but text.
    #[must_use]
    pub fn is_text(&self) -> bool {
        *self == Weight::of_text(self.text)
    }

    /// About how many tokens it has, where so many thousandths of a byte make one.
    #[must_use]
    pub fn about(&self, density: u32) -> u64 {
        (self.text * 1000).div_ceil(u64::from(density.max(1))) + self.pictures * PICTURE.0 + self.sound / SOUND.0 + self.files / FILE.0
    }

    /// How many tokens it has at most: no tokenizer makes more than one out of a byte.
    #[must_use]
    pub fn worst(&self) -> u64 {
        self.text + self.pictures * PICTURE.1 + self.sound / SOUND.1 + self.files / FILE.1
    }
}

enum Kind {
    Picture,
    Sound,
    File,
}

fn end_of_string(body: &[u8], mut at: usize) -> usize {
    while let Some(n) = memchr::memchr2(b'"', b'\\', body.get(at..).unwrap_or_default()) {
        at += n;
        if body[at] == b'"' {
            return at;
        }
        at += 2;
    }
    body.len()
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

fn is_null(rest: &[u8]) -> bool {
    rest.trim_ascii_start().strip_prefix(b":").is_some_and(|value| value.trim_ascii_start().starts_with(b"null"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weigh(body: &str) -> Weight {
        Weight::of(body.as_bytes())
    }

    #[test]
    fn text_weighs_its_bytes() {
        let body = r#"{"model":"m","messages":[{"role":"user","content":"an image of a file, said with audio: \"data:image/png;base64,xyz\""}]}"#;
        assert_eq!(weigh(body), Weight::of_text(body.len() as u64));
        let long = format!(r#"{{"messages":[{{"role":"user","content":"image {}"}}]}}"#, "words and words ".repeat(5000));
        assert!(weigh(&long).is_text());
        assert_eq!(weigh(&long).about(4000), (long.len() as u64).div_ceil(4));
        assert_eq!(weigh(&long).worst(), long.len() as u64);
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
            let weight = weigh(&format!(r#"{{"messages":[{{"role":"user","content":[{part}]}}]}}"#));
            assert_eq!((weight.pictures, weight.sound, weight.files, weight.unseen), (pictures, sound, files, false), "{}", &part[..80]);
            assert!(weight.text < 300, "{}", weight.text);
        }
    }

    #[test]
    fn what_only_the_provider_sees_is_noted() {
        assert!(weigh(r#"{"input":"x","previous_response_id":"resp_1"}"#).unseen);
        assert!(weigh(r#"{"content":[{"type":"file","file":{"file_id":"file-1"}}]}"#).unseen);
        assert!(weigh(r#"{"fileData":{"mimeType":"video/mp4","fileUri":"gs://a"}}"#).unseen);
        assert!(!weigh(r#"{"input":"my conversation","previous_response_id":null,"conversation":null}"#).unseen);
    }

    #[test]
    fn broken_ends_do_not_panic() {
        let body = format!(r#"{{"image":"data:image/png;base64,{}\\"#, "A".repeat(600));
        for end in 0..body.len() {
            let _ = weigh(&body[..end]);
        }
    }
}
