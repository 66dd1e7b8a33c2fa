//! Walks `fixtures/bills/`: what a provider's own figures come to in buckets and in dollars, whether the answer is
//! translated or its bytes pass. And holds for all shapes of usage that no token is counted twice or lost.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fixture;

use std::fs;
use std::path::Path;

use bytes::Bytes;
use providers::prices::Prices;
use providers::sse::{Cutter, Event, Framing};
use providers::usage::{OpenAiUsage, Usage};
use providers::{Error, Provider, Settings, Target, anthropic, gemini, responses};
use serde_json::{Value, json};

use fixture::{folders, frames, root};

/// One bill: what came on the wire, and what it has to come to.
struct Bill {
    about: Value,
    provider: Box<dyn Provider>,
}

/// The usage, and where it was read.
type Read = (String, Usage);

impl Bill {
    fn text(&self, name: &str) -> &str {
        self.about[name].as_str().unwrap_or_default()
    }

    fn target(&self) -> Target<'_> {
        Target { model: self.text("model"), info: None }
    }

    /// Reads the usage out of bytes that pass, as the gateway does. Says whether there was any.
    fn tap(&self, data: &str, into: &mut Usage) -> bool {
        match (self.text("kind"), self.text("operation")) {
            ("bedrock" | "cohere", _) => false,
            ("anthropic", _) => anthropic::tap_usage(data, into),
            ("vertex", _) if self.text("model").starts_with("claude") => anthropic::tap_usage(data, into),
            ("gemini" | "vertex", _) => gemini::tap_usage(data, into),
            (_, "responses") => responses::tap_usage(data, into) || responses::read_answer_usage(data.as_bytes()).inspect(|u| *into = *u).is_some(),
            _ => responses::read_answer_usage(data.as_bytes()).inspect(|u| *into = *u).is_some(),
        }
    }

    fn answer(&self, body: &[u8], reads: &mut Vec<Read>) {
        if self.text("operation") != "responses" {
            reads.push(("answer.json, translated".into(), self.provider.answer(body, &self.target()).unwrap().usage.unwrap()));
        }
        let mut passed = Usage::default();
        if self.tap(std::str::from_utf8(body).unwrap(), &mut passed) {
            reads.push(("answer.json, passed".into(), passed));
        }
    }

    /// A stream's last usage counts, even if it breaks off behind it.
    fn stream(&self, name: &str, bytes: &[u8], framing: Framing, reads: &mut Vec<Read>) {
        let mut transcoder = self.provider.transcoder(&self.target());
        let (mut translated, mut passed, mut tapped) = (None, Usage::default(), false);
        let mut each = |event: Event<'_>| {
            tapped |= self.tap(&event.data, &mut passed);
            if self.text("operation") == "responses" {
                return Ok(());
            }
            transcoder.event(&event, &mut |delta| {
                if let providers::answer::Delta::Usage(usage) = delta {
                    translated = Some(usage);
                }
            })
        };
        let mut cutter = Cutter::new(framing, 1 << 20);
        let result: Result<(), Error> = cutter.push(bytes, &mut each).and_then(|()| cutter.end(&mut each));
        assert_eq!(result.is_err(), self.about["fails"] == true, "{name}: {result:?}");
        reads.extend(translated.map(|usage| (format!("{name}, translated"), usage)));
        if tapped {
            reads.push((format!("{name}, passed"), passed));
        }
    }

    fn reads(&self, folder: &Path) -> Vec<Read> {
        let mut reads = Vec::new();
        let file = |name: &str| fs::read(folder.join(name)).ok();
        if let Some(body) = file("answer.json") {
            self.answer(&body, &mut reads);
        }
        if let Some(bytes) = file("stream.sse") {
            self.stream("stream.sse", &bytes, Framing::Sse, &mut reads);
        }
        if let Some(bytes) = file("stream.frames") {
            self.stream("stream.frames", &frames(std::str::from_utf8(&bytes).unwrap()), Framing::EventStream, &mut reads);
        }
        if let Some(list) = file("embeddings.json") {
            let bodies: Vec<Bytes> = serde_json::from_slice::<Vec<Value>>(&list).unwrap().iter().map(|b| b.to_string().into()).collect();
            reads.push(("embeddings.json".into(), self.provider.embeddings(&bodies, &self.target()).unwrap().usage.unwrap()));
        }
        if let Some(body) = file("ranking.json") {
            let ranking = self.provider.ranking(&body, &self.target()).unwrap();
            assert_eq!(json!(ranking.searches), self.about["searches"], "{}", folder.display());
            reads.push(("ranking.json".into(), Usage { input: ranking.tokens.unwrap_or_default(), ..Usage::default() }));
        }
        reads
    }
}

/// The buckets that are not empty.
fn buckets(usage: &Usage) -> Value {
    let mut value = serde_json::to_value(usage).unwrap();
    value.as_object_mut().unwrap().retain(|_, v| *v != json!(0) && *v != json!(false));
    value
}

#[test]
fn every_bill_is_right_to_the_last_digit() {
    let prices = Prices::builtin();
    let folders = folders(&root().join("bills"));
    assert!(folders.len() > 30, "there are only {} bills", folders.len());
    let mut wrong = Vec::new();
    for folder in folders {
        let about: Value = serde_json::from_slice(&fs::read(folder.join("bill.json")).unwrap()).unwrap();
        let settings = Settings {
            kind: about["kind"].as_str().unwrap().into(),
            base_url: Some("http://127.0.0.1:1".into()),
            project: Some("p".into()),
            region: Some("eu-central-1".into()),
            ..Settings::default()
        };
        let bill = Bill { provider: providers::build(&settings).unwrap(), about };
        let price = prices.get("any", bill.text("kind"), bill.text("model"));
        let reads = bill.reads(&folder);
        assert!(!reads.is_empty(), "{}: nothing on the wire", folder.display());
        for (place, usage) in reads {
            let dollars = price.map(|p| p.cost(&usage, bill.about["batch"] == true).to_string());
            let total = bill.about["total"].as_u64();
            if buckets(&usage) != bill.about["usage"] || json!(dollars) != bill.about["dollars"] || total.is_some_and(|t| t != usage.total()) {
                wrong.push(format!(
                    "{} ({place}): {} in all {}, ${dollars:?}; expected {}, in all {total:?}, ${}",
                    folder.display(),
                    buckets(&usage),
                    usage.total(),
                    bill.about["usage"],
                    bill.about["dollars"]
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Figures without end, the same in every run.
struct Dice(u64);

impl Dice {
    fn upto(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 24) % most.saturating_add(1).max(1)
    }
}

/// Usage objects of one request as each provider would tell them, and what it has to come to: prompt and completion.
fn told(dice: &mut Dice) -> Vec<(&'static str, Usage, u64, u64)> {
    let read = |text: Value| -> Usage { serde_json::from_value::<OpenAiUsage>(text).unwrap().into() };
    let (prompt, completion) = (dice.upto(300_000), dice.upto(50_000));
    let cached = dice.upto(prompt);
    let written = dice.upto(prompt - cached);
    let audio = dice.upto(prompt - cached - written);
    let thought = dice.upto(completion);
    let spoken = dice.upto(completion - thought);
    let long = dice.upto(written);
    let openai = read(json!({ "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
        "prompt_tokens_details": { "cached_tokens": cached, "cache_write_tokens": written, "audio_tokens": audio }, "completion_tokens_details": { "reasoning_tokens": thought, "audio_tokens": spoken } }));
    let responses = read(
        json!({ "input_tokens": prompt, "output_tokens": completion, "total_tokens": prompt + completion, "input_tokens_details": { "cached_tokens": cached }, "output_tokens_details": { "reasoning_tokens": thought } }),
    );
    let beside = read(json!({ "prompt_tokens": prompt, "completion_tokens": completion - thought, "total_tokens": prompt + completion, "completion_tokens_details": { "reasoning_tokens": thought } }));
    let mut claude = Usage::default();
    let event = json!({ "type": "message", "usage": { "input_tokens": prompt - cached - written, "cache_read_input_tokens": cached, "cache_creation_input_tokens": written,
        "cache_creation": { "ephemeral_5m_input_tokens": written - long, "ephemeral_1h_input_tokens": long }, "output_tokens": completion, "output_tokens_details": { "thinking_tokens": thought } } });
    assert!(anthropic::tap_usage(&event.to_string(), &mut claude));
    let tools = dice.upto(100);
    let mut google = Usage::default();
    let metadata = json!({ "usageMetadata": { "promptTokenCount": prompt, "cachedContentTokenCount": cached, "toolUsePromptTokenCount": tools, "candidatesTokenCount": completion - thought, "thoughtsTokenCount": thought,
        "totalTokenCount": prompt + tools + completion, "promptTokensDetails": [{ "modality": "AUDIO", "tokenCount": audio }, { "modality": "TEXT", "tokenCount": prompt - audio }] } });
    assert!(gemini::tap_usage(&metadata.to_string(), &mut google));
    let bedrock = providers::build(&Settings { kind: "bedrock".into(), region: Some("r".into()), ..Settings::default() }).unwrap();
    let body = json!({ "output": { "message": { "content": [] } }, "stopReason": "end_turn", "usage": { "inputTokens": prompt - cached - written, "outputTokens": completion, "totalTokens": prompt + completion,
        "cacheReadInputTokens": cached, "cacheWriteInputTokens": written, "cacheDetails": [{ "ttl": "1h", "inputTokens": long }, { "ttl": "5m", "inputTokens": written - long }] } });
    let converse = bedrock.answer(body.to_string().as_bytes(), &Target { model: "m", info: None }).unwrap().usage.unwrap();
    vec![
        ("openai", openai, prompt, completion),
        ("responses", responses, prompt, completion),
        ("reasoning beside", beside, prompt, completion),
        ("anthropic", claude, prompt, completion),
        ("gemini", google, prompt + tools, completion),
        ("bedrock", converse, prompt, completion),
    ]
}

#[test]
fn buckets_are_disjoint_and_make_the_provider_s_own_total() {
    let mut dice = Dice(2026);
    for _ in 0..2000 {
        for (shape, usage, prompt, completion) in told(&mut dice) {
            let Usage { input, cache_read, cache_write, cache_write_1h, input_audio, output, reasoning, output_audio, .. } = usage;
            assert_eq!(input + cache_read + cache_write + cache_write_1h + input_audio, prompt, "{shape}: {usage:?}");
            assert_eq!(output + reasoning + output_audio, completion, "{shape}: {usage:?}");
        }
    }
}

#[test]
fn a_price_of_one_in_every_bucket_makes_the_total() {
    let one: providers::prices::Model = serde_json::from_value(json!({ "input": 1.0, "output": 1.0 })).unwrap();
    let mut dice = Dice(7);
    for _ in 0..200 {
        for (shape, usage, ..) in told(&mut dice) {
            // A dollar for a million tokens is a thousand billionths for one.
            assert_eq!(one.cost(&usage, false).0, usage.total() * 1000, "{shape}: {usage:?}");
        }
    }
}

#[test]
fn absurd_figures_are_much_or_none_and_never_little() {
    let most = u64::MAX;
    // More than any answer has is no figure, and is estimated.
    let told: Usage = serde_json::from_value::<OpenAiUsage>(json!({ "prompt_tokens": most, "completion_tokens": most, "total_tokens": 3, "completion_tokens_details": { "reasoning_tokens": most } }))
        .unwrap()
        .into();
    assert_eq!(told.total(), 0);
    let shapes = [Usage { input: most, cache_read: most, cache_write_1h: most, output: most, output_audio: most, ..Usage::default() }];
    let price = Prices::builtin().get("o", "openai", "gpt-audio").unwrap().clone();
    for mut usage in shapes {
        assert_eq!(usage.total(), most);
        assert_eq!(price.cost(&usage, false).0, most);
        let same = usage;
        usage.add(&same);
        assert_eq!(usage.total(), most);
        assert!(usage.to_openai().contains(&most.to_string()));
    }
    let mut usage = Usage::default();
    assert!(gemini::tap_usage(
        &format!(
            r#"{{"usageMetadata":{{"promptTokenCount":{most},"toolUsePromptTokenCount":{most},"promptTokensDetails":[{{"modality":"AUDIO","tokenCount":{most}}},{{"modality":"AUDIO","tokenCount":{most}}}]}}}}"#
        ),
        &mut usage
    ));
    assert_eq!(usage.prompt(), most);
}
