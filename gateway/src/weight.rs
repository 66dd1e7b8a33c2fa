//! What a prompt weighs: bytes of text, and pictures, sounds and files that count otherwise. How many bytes of text make a token
//! is learnt from the answers of each target (`docs/decisions/0009-tokens-by-experience.md`).

use providers::envelope::Envelope;

/// Thousandths of a byte to a token, as long as a target has told nothing.
pub const DENSITY: u32 = 4_000;

/// Tokens of a picture: what most models count for a large one, and the most that any is known to count (a small model that
/// multiplies its tiles: gpt-4o-mini).
const PICTURE: (u64, u64) = (1_600, 40_000);
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
    /// Whether it names what only the provider can see: stored files, an earlier conversation.
    pub unseen: bool,
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
        let media = request.met().media;
        let earlier = ["previous_response_id", "conversation"].iter().any(|name| request.get(name).is_some_and(|value| value != "null"));
        Weight { text: (request.body().len() as u64).saturating_sub(media.encoded), pictures: media.pictures().into(), sound: media.sound, files: media.files, unseen: media.stored || earlier }
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
        assert!(!weight.is_text() && (1_600..1_700).contains(&weight.about(4000)) && (40_000..40_300).contains(&weight.worst()), "{weight:?}");
    }

    #[test]
    fn what_only_the_provider_sees_is_noted() {
        assert!(weigh(r#"{"input":"x","previous_response_id":"resp_1"}"#).unseen);
        assert!(weigh(r#"{"content":[{"type":"file","file":{"file_id":"file-1"}}]}"#).unseen);
        assert!(!weigh(r#"{"input":"my conversation","previous_response_id":null,"conversation":null}"#).unseen);
    }
}
