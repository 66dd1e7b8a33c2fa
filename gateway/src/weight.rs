//! What a prompt weighs: bytes of text, and pictures, sounds and files that count otherwise. How many bytes of text make a token
//! is learnt from the answers of each target (`docs/decisions/0009-tokens-by-experience.md`).

use providers::envelope::Envelope;
use providers::media::Media;

/// Thousandths of a byte to a token, as long as a target has told nothing.
pub const DENSITY: u32 = 4_000;

/// Tokens of a picture: what most models count for a large one, and the most that any is known to count (a small model that
/// multiplies its tiles: gpt-4o-mini has 2,833 and 5,667 for each of eight).
const PICTURE: (u64, u64) = (1_600, 50_000);
/// Bytes of encoded sound to a token: about, and at worst.
const SOUND: (u64, u64) = (400, 16);
/// Bytes of other files (documents mostly) to a token: about, and at worst.
const FILE: (u64, u64) = (8, 1);

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
    /// Whether a picture is named by a place, where some providers may find anything.
    pub places: bool,
    /// Whether there is something whose length its bytes do not tell.
    pub opaque: bool,
}

impl Weight {
    /// A prompt of so many bytes of nothing but text.
    #[must_use]
    pub fn of_text(bytes: u64) -> Self {
        Weight { text: bytes, ..Weight::default() }
    }

    /// Weighs a request that has been read.
    #[must_use]
    pub fn of(request: &Envelope) -> Self {
        let media = Media::of(request);
        Weight {
            text: (request.body().len() as u64).saturating_sub(media.encoded),
            pictures: media.pictures.into(),
            sound: media.sound,
            files: media.files,
            places: media.places,
            opaque: media.opaque,
        }
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

    /// About how many of them are sound.
    #[must_use]
    pub fn about_heard(&self) -> u64 {
        self.sound / SOUND.0
    }

    /// How many tokens it has at most: no tokenizer makes more than one out of a byte.
    #[must_use]
    pub fn worst(&self) -> u64 {
        self.text + self.pictures * PICTURE.1 + self.sound / SOUND.1 + self.files / FILE.1
    }

    /// How many it has at most where its bytes need not tell: as many as the model's context holds. `None` where that is not
    /// known. Of a target that `follows` places, a picture's may lead to something longer.
    #[must_use]
    pub fn worst_within(&self, context: Option<u64>, follows: bool) -> Option<u64> {
        if self.opaque || self.places && follows { Some(self.worst().max(context?)) } else { Some(self.worst()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weigh(body: &str) -> Weight {
        Weight::of(&Envelope::read(body.to_owned().into()).unwrap())
    }

    #[test]
    fn text_weighs_its_bytes() {
        let body = format!(r#"{{"messages":[{{"role":"user","content":"{}"}}]}}"#, "words and words ".repeat(5000));
        let weight = weigh(&body);
        assert!(weight.is_text());
        assert_eq!((weight.about(4000), weight.worst()), ((body.len() as u64).div_ceil(4), body.len() as u64));
    }

    #[test]
    fn a_picture_weighs_as_one_and_not_by_its_bytes() {
        let weight = weigh(&format!(r#"{{"messages":[{{"role":"user","content":[{{"type":"image_url","image_url":{{"url":"data:image/png;base64,{}"}}}}]}}]}}"#, "iVBO".repeat(50_000)));
        assert!(!weight.is_text() && (1_600..1_700).contains(&weight.about(4000)) && (50_000..50_300).contains(&weight.worst()), "{weight:?}");
    }

    #[test]
    fn what_its_bytes_do_not_tell_weighs_as_much_as_the_context_holds() {
        let packed = weigh(r#"{"messages":[{"role":"user","content":[{"type":"file","file":{"file_data":"data:application/pdf;base64,AAAA"}}]}]}"#);
        assert_eq!((packed.worst_within(Some(128_000), false), packed.worst_within(None, false)), (Some(128_000), None));
        let linked = weigh(r#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://example.com/a"}}]}]}"#);
        assert_eq!(linked.worst_within(Some(128_000), true), Some(128_000));
        assert_eq!((linked.worst_within(None, true), linked.worst_within(None, false)), (None, Some(linked.worst())));
    }
}
