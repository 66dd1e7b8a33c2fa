//! What pictures and sound are charged: what the provider tells, and where it does not, by what came and what was sent. What a
//! client alone says of its request makes it no cheaper.

use std::borrow::Cow;

use providers::Operation;
use providers::openai::media::Told;
use providers::usage::Usage;

use crate::exchange::Exchange;
use crate::form::Form;
use crate::weight::Weight;

/// Tokens of a square picture of a thousand pixels, as OpenAI's picture models count it in low, medium and high quality.
const PICTURE: [u64; 3] = [272, 1_056, 4_160];
/// Pixels of that picture, and the least and the most that one is believed to have.
const PIXELS: (u64, u64, u64) = (1024 * 1024, 256 * 256, 8192 * 8192);
/// Most pictures of one request.
const PICTURES: u64 = 10;
/// Tokens of a second of sound that is heard, as OpenAI's models count it.
const SECOND: f64 = 10.0;
/// Longest sound that is believed, in seconds.
const LONGEST: f64 = 1e6;

/// What was asked for.
#[derive(Debug)]
pub struct Guess {
    operation: Operation,
    prompt: Weight,
    /// Tokens of an answer of which nothing has come.
    answer: u64,
    /// How many pictures were asked for.
    pub pictures: u64,
    size: Option<String>,
    quality: Option<String>,
    /// Bytes of text to be said.
    said: u64,
    /// How long the sound is that was sent, where its head tells.
    seconds: Option<f64>,
}

impl Guess {
    /// What a request asks for.
    #[must_use]
    pub fn of(x: &Exchange) -> Self {
        let text = |name: &str| match &x.form {
            Some(form) => form.text(name).map(str::to_owned),
            None => x.current().parse::<Cow<'_, str>>(name).ok().flatten().map(Cow::into_owned),
        };
        let number = match &x.form {
            Some(form) => form.text("n").filter(|n| !n.is_empty()).map(|n| n.parse().ok()),
            None => x.current().get("n").filter(|n| *n != "null").map(|n| n.parse().ok()),
        };
        // A number that cannot be read is the highest that it may be.
        let pictures = number.map_or(1, |n| n.unwrap_or(PICTURES));
        Guess {
            operation: x.operation,
            prompt: x.weight,
            answer: x.about.completion,
            pictures: pictures.clamp(1, PICTURES),
            size: text("size"),
            quality: text("quality"),
            said: if x.operation == Operation::Speech { text("input").map_or(0, |input| input.len() as u64) } else { 0 },
            seconds: x.form.as_ref().and_then(Form::file).and_then(seconds),
        }
    }

    /// The usage of an answer that told this much, was read to its end or not, with so many thousandths of a byte to a token.
    /// `None` where the answer is no picture and no sound and tells nothing.
    #[must_use]
    pub fn usage(&self, told: &Told, whole: bool, density: u32) -> Option<Usage> {
        let untold = told.answer.is_none();
        let output = |output| Usage { output, ..Usage::default() };
        let (sent, made) = match self.operation {
            Operation::Transcriptions | Operation::Translations => {
                let seconds = told.seconds.filter(|s| (0.0..=LONGEST).contains(s));
                if let Some(seconds) = seconds.filter(|_| told.timed && told.prompt.is_none() && untold) {
                    // It is told in full, only in another unit: who counts time does not count words.
                    return Some(Usage { input_audio: tokens(seconds), ..Usage::default() });
                }
                (self.heard(seconds, density), untold.then(|| output(self.words(told, whole, density))))
            }
            Operation::Speech => (self.read(density), untold.then(|| Usage { output_audio: self.said * 4 / 3, ..Usage::default() })),
            Operation::ImageGenerations | Operation::ImageEdits => {
                let left = self.made(told, whole).saturating_sub(told.counted).min(PICTURES);
                (self.read(density), (untold || left > 0).then(|| output(left * self.picture(told))))
            }
            _ => (told.prompt?, None),
        };
        let estimated = |usage: Usage| Usage { estimated: true, ..usage };
        let mut usage = told.prompt.unwrap_or(estimated(sent));
        for more in told.answer.into_iter().chain(made.map(estimated)) {
            usage.add(&more);
        }
        Some(usage)
    }

    /// A prompt of which nobody tells how many tokens it has.
    fn read(&self, density: u32) -> Usage {
        Usage { input: self.prompt.about(density), ..Usage::default() }
    }

    /// The sound that was sent, so long as the answer says, or its head.
    fn heard(&self, seconds: Option<f64>, density: u32) -> Usage {
        let sound = Weight { sound: self.prompt.sound, ..Weight::default() }.about(density);
        let input_audio = seconds.or(self.seconds.filter(|s| *s <= LONGEST)).map_or(sound, tokens);
        Usage { input: self.prompt.about(density).saturating_sub(sound), input_audio, ..Usage::default() }
    }

    /// Tokens of the words that came out: as many as were reserved, as long as there are none.
    fn words(&self, told: &Told, whole: bool, density: u32) -> u64 {
        match told.text {
            Some(text) if text > 0 || whole => Weight::of_text(text).about(density),
            _ if told.failed => 0,
            _ => self.answer,
        }
    }

    /// How many pictures were made: a provider that is left before the end, or breaks off, may not have told of all.
    fn made(&self, told: &Told, whole: bool) -> u64 {
        match told.pictures {
            pictures if told.failed => pictures,
            0 => self.pictures,
            pictures if whole => pictures,
            pictures => pictures.max(self.pictures),
        }
    }

    /// About how many tokens one of the pictures has: as the answer says, or else a medium one where nothing more was asked for.
    fn picture(&self, told: &Told) -> u64 {
        let [low, medium, high] = PICTURE;
        let square = match (told.quality.as_deref(), self.quality.as_deref()) {
            (Some("low"), _) => low,
            (Some("high" | "hd"), _) | (None, Some("high" | "hd")) => high,
            _ => medium,
        };
        let (base, least, most) = PIXELS;
        let pixels = match &told.size {
            Some(size) => area(size).unwrap_or(base),
            None => self.size.as_deref().and_then(area).unwrap_or(base).max(base),
        };
        (square * pixels.clamp(least, most)).div_ceil(base)
    }
}

/// Tokens of so many seconds of sound.
fn tokens(seconds: f64) -> u64 {
    (seconds * SECOND).ceil() as u64
}

/// How many pixels a picture of this size has.
fn area(size: &str) -> Option<u64> {
    let (width, height) = size.split_once('x')?;
    width.parse::<u64>().ok()?.checked_mul(height.parse().ok()?)
}

/// How long a WAV file is, if it says so in figures that go together: its bytes tell it where they are plain samples.
fn seconds(file: &[u8]) -> Option<f64> {
    let head = file.get(..44).filter(|head| head.starts_with(b"RIFF") && &head[8..16] == b"WAVEfmt ")?;
    let short = |at: usize| u64::from(u16::from_le_bytes([head[at], head[at + 1]]));
    let long = |at: usize| u64::from(u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]));
    let (format, channels, samples, rate, bits) = (short(20), short(22), long(24), long(28), short(34));
    let good = format == 1 && (1..=8).contains(&channels) && (8_000..=192_000).contains(&samples) && matches!(bits, 8 | 16 | 24 | 32) && rate == samples * channels * bits / 8;
    good.then(|| (file.len() - 44) as f64 / rate as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guess(operation: Operation) -> Guess {
        Guess { operation, prompt: Weight { text: 40, ..Weight::default() }, answer: 4_096, pictures: 2, size: None, quality: None, said: 300, seconds: None }
    }

    fn used(guess: &Guess, told: &Told, whole: bool) -> (u64, u64, u64, bool) {
        let usage = guess.usage(told, whole, 4000).unwrap();
        (usage.input, usage.input_audio, usage.output, usage.estimated)
    }

    fn tokens_of(input: u64, output: u64) -> Told {
        Told { prompt: Some(Usage { input, ..Usage::default() }), answer: Some(Usage { output, ..Usage::default() }), ..Told::default() }
    }

    #[test]
    fn pictures_count_by_what_came_and_in_the_size_that_it_says() {
        let told = |pictures| Told { pictures, ..Told::default() };
        let output = |guess: &Guess, told: &Told| used(guess, told, true).2;
        let mut asked = guess(Operation::ImageEdits);
        assert_eq!((output(&asked, &told(1)), output(&asked, &told(0))), (1_056, 2 * 1_056), "where none is seen, those that were asked for");
        assert_eq!(output(&asked, &Told { failed: true, ..Told::default() }), 0);
        assert_eq!(output(&asked, &Told { size: Some("1536x1024".into()), quality: Some("high".into()), ..told(1) }), 6_240);
        assert_eq!(output(&asked, &Told { size: Some("auto".into()), quality: Some("auto".into()), ..told(1) }), 1_056);
        assert_eq!(output(&asked, &Told { size: Some("512x1024".into()), quality: Some("low".into()), ..told(1) }), 136);
        for (size, quality, tokens) in [("1024x1536", "low", 1_584), ("1x1", "low", 1_056), ("1024x1536", "high", 6_240), ("99999999999x99999999999", "hd", 4_160), ("auto", "auto", 1_056)] {
            (asked.size, asked.quality) = (Some(size.into()), Some(quality.into()));
            assert_eq!(output(&asked, &told(1)), tokens, "what is only asked for makes nothing cheaper: {size} {quality}");
        }
    }

    #[test]
    fn pictures_of_which_nobody_has_told_yet_count_too() {
        let asked = guess(Operation::ImageGenerations);
        let one = Told { pictures: 1, counted: 1, ..tokens_of(50, 272) };
        assert_eq!(used(&asked, &one, true), (50, 0, 272, false));
        assert_eq!(used(&asked, &one, false), (50, 0, 272 + 1_056, true), "the second one was under way");
        assert_eq!(used(&asked, &Told { counted: u64::MAX, pictures: 0, ..tokens_of(50, 272) }, false), (50, 0, 272, false));
        assert_eq!(used(&asked, &Told { prompt: None, ..one }, true), (10, 0, 272, true), "one side is told");
        assert_eq!(used(&asked, &Told { answer: None, pictures: 1, ..tokens_of(50, 0) }, true), (50, 0, 1_056, true), "or the other");
    }

    #[test]
    fn sound_counts_by_its_length_and_by_its_bytes_where_nobody_knows_it() {
        let asked = Guess { prompt: Weight { sound: 40_000, ..Weight::default() }, ..guess(Operation::Transcriptions) };
        let heard = |guess: &Guess, seconds| used(guess, &Told { seconds, text: Some(40), ..Told::default() }, true);
        assert_eq!(heard(&asked, Some(1.25)), (0, 13, 10, true));
        assert_eq!(heard(&asked, None), (0, 100, 10, true));
        for absurd in [-1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(heard(&asked, Some(absurd)), (0, 100, 10, true));
        }
        let timed = Told { seconds: Some(9.0), timed: true, text: Some(40), ..Told::default() };
        assert_eq!(used(&asked, &timed, true), (0, 90, 0, false), "who counts time has told all");
        assert_eq!(used(&asked, &Told::default(), false), (0, 100, 4_096, true), "nothing has come yet");
        assert_eq!(used(&asked, &Told { text: Some(0), ..Told::default() }, true), (0, 100, 0, true), "silence");
        assert_eq!(heard(&Guess { seconds: Some(3.0), ..asked }, None), (0, 30, 10, true));
        let usage = guess(Operation::Speech).usage(&Told::default(), true, 4000).unwrap();
        assert_eq!((usage.input, usage.output, usage.output_audio), (10, 0, 400));
        assert_eq!(guess(Operation::Embeddings).usage(&Told::default(), true, 4000), None);
    }

    #[test]
    fn a_wav_file_of_plain_samples_tells_how_long_it_is() {
        let mut wav = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x80\x3e\0\0\0\x7d\0\0\x02\0\x10\0data\0\0\0\0".to_vec();
        wav.resize(44 + 64_000, 0);
        assert_eq!(seconds(&wav), Some(2.0));
        for (at, byte) in [(20, 2), (22, 2), (28, 1), (29, 0xff), (31, 0x7f), (34, 8)] {
            let mut lie = wav.clone();
            lie[at] = byte;
            assert_eq!(seconds(&lie), None, "figures that do not go together: {at}");
        }
        assert_eq!((seconds(b"RIFF"), seconds(&[0; 100])), (None, None));
    }
}
