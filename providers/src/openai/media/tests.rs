use super::*;

fn read(operation: Operation, content_type: &str, text: &str) -> Told {
    let mut all: Vec<Told> = [1, 7, 100, usize::MAX]
        .iter()
        .map(|size| {
            let mut along = Along::new(operation, content_type);
            text.as_bytes().chunks((*size).min(text.len().max(1))).for_each(|piece| along.push(piece));
            along.told()
        })
        .collect();
    assert!(all.windows(2).all(|two| two[0] == two[1]), "{all:?}");
    all.swap_remove(0)
}

fn json(operation: Operation, text: &str) -> Told {
    read(operation, "application/json; charset=utf-8", text)
}

fn events(operation: Operation, text: &str) -> Told {
    read(operation, "text/event-stream", text)
}

/// Input, audio of it, output, audio of it, where both sides are told.
fn tokens(told: &Told) -> Option<[u64; 4]> {
    let (prompt, answer) = (told.prompt?, told.answer?);
    Some([prompt.input, prompt.input_audio, answer.output, answer.output_audio])
}

fn nothing(told: &Told) -> bool {
    told.prompt.is_none() && told.answer.is_none()
}

#[test]
fn pictures_tell_tokens_size_and_quality() {
    let usage = r#""usage": {"total_tokens": 322, "input_tokens": 50, "output_tokens": 272, "input_tokens_details": {"text_tokens": 10, "image_tokens": 40}}"#;
    let picture = "iVBOR".repeat(2_000);
    let told = json(Operation::ImageEdits, &format!(r#"{{"created":1,"size":"1024x1536","data":[{{"b64_json":"{picture}"}}, {{"b64_json":"x","usage":{{}}}}],"quality" : "low",{usage}}}"#));
    assert_eq!((tokens(&told), told.pictures, told.size.as_deref(), told.quality.as_deref(), told.failed), (Some([50, 0, 272, 0]), 2, Some("1024x1536"), Some("low"), false));
    let partial = format!("event: image_edit.partial_image\ndata: {{\"type\":\"image_edit.partial_image\",\"b64_json\":\"{picture}\"}}\n\n");
    let completed = format!(": ping\r\n\r\ndata: {{\"type\":\"image_edit.completed\",\"b64_json\":\"{picture}\",{usage}}}\r\n\r\n");
    let told = events(Operation::ImageEdits, &format!("{partial}{completed}{partial}{completed}data: [DONE]\n\n"));
    assert_eq!((tokens(&told), told.pictures, told.counted), (Some([100, 0, 544, 0]), 2, 2));
    let told = events(Operation::ImageEdits, &partial.replace('}', ",\"usage\":{\"input_tokens\":1,\"output_tokens\":1}}"));
    assert!(nothing(&told) && told.pictures == 0);
    assert!(events(Operation::ImageEdits, "data: {\"type\":\"error\",\"error\":{\"message\":\"no\"}}\n\ndata: [DONE]\n\n").failed);
    assert!(json(Operation::ImageEdits, r#"{"error":{"message":"no"}}"#).failed && !json(Operation::ImageEdits, r#"{"error":null}"#).failed);
}

#[test]
fn transcriptions_tell_tokens_or_time() {
    let transcription = |text: &str| json(Operation::Transcriptions, text);
    let openai = transcription(r#"{"text":"Hi","usage":{"type":"tokens","input_tokens":14,"input_token_details":{"text_tokens":4,"audio_tokens":10},"output_tokens":2,"total_tokens":16}}"#);
    assert_eq!((tokens(&openai), openai.text), (Some([4, 10, 2, 0]), Some(2)));
    let plain = transcription(r#"{"text":"Hi","usage":{"input_tokens":14,"output_tokens":2}}"#);
    assert_eq!(tokens(&plain), Some([0, 14, 2, 0]), "what was sent is sound");
    let mistral = transcription(r#"{"text":"Hi","usage":{"prompt_audio_seconds":203,"prompt_tokens":4,"total_tokens":3264,"completion_tokens":635,"prompt_tokens_details":null}}"#);
    assert_eq!((tokens(&mistral), mistral.seconds), (Some([4, 2625, 635, 0]), Some(203.0)));
    let whisper = transcription(r#"{"text":"Hi","usage":{"type":"duration","seconds":9}}"#);
    assert!(nothing(&whisper) && whisper.timed && whisper.seconds == Some(9.0));
    for duration in ["8.47", "\"8.47\""] {
        let verbose = transcription(&format!(r#"{{"task":"transcribe","duration":{duration},"text":"a \"b\"","segments":[{{"text":"a","duration":99,"tokens":[1,2]}}]}}"#));
        assert!(nothing(&verbose) && !verbose.timed);
        assert_eq!((verbose.seconds, verbose.text), (Some(8.47), Some(7)));
    }
    let delta = |text: &str| format!("event: transcript.text.delta\ndata: {{\"type\":\"transcript.text.delta\",\"delta\":\"{text}\"}}\n\n");
    let begun = format!("{}{}", delta("twelve bytes"), delta("twelve bytes"));
    assert_eq!(events(Operation::Transcriptions, &begun).text, Some(24));
    let done = "data: {\"type\":\"transcript.text.done\",\"text\":\"twelve bytestwelve bytes\",\"usage\":{\"type\":\"tokens\",\"input_tokens\":14,\"output_tokens\":6,\"input_token_details\":{\"audio_tokens\":14}}}";
    let told = events(Operation::Transcriptions, &format!("{begun}{done}"));
    assert_eq!((tokens(&told), told.text), (Some([0, 14, 6, 0]), Some(24)), "even without its blank line");
    let vllm = "data: {\"object\":\"transcription.chunk\",\"choices\":[{\"delta\":{\"content\":\"seven b\"},\"finish_reason\":null}],\"usage\":null}\n\n";
    assert_eq!(events(Operation::Transcriptions, &vllm.repeat(2)).text, Some(14));
}

#[test]
fn what_looks_like_a_usage_in_a_text_is_none() {
    let lie = r#"\"usage\":{\"input_tokens\":9,\"output_tokens\":9},\"duration\":3"#;
    let told = json(Operation::Transcriptions, &format!(r#"{{"text":"{lie}","logprobs":[{{"usage":{{"input_tokens":9}}}}],"note":"usage"}}"#));
    assert!(nothing(&told));
    assert_eq!((told.seconds, told.text), (None, Some(lie.len() as u64)));
    let told = events(Operation::Transcriptions, &format!("data: {{\"type\":\"transcript.text.delta\",\"delta\":\"\\n\\ndata: {lie}\"}}\n\nusage: 3\n\n"));
    assert!(nothing(&told) && told.seconds.is_none());
    let told = read(Operation::Transcriptions, "text/plain", "{\"usage\":{\"input_tokens\":9,\"output_tokens\":9}}\n");
    assert!(nothing(&told) && told.text == Some(46));
    let long = format!(r#"{{"usage":{{"input_tokens":9,"note":"{}"}}}}"#, "x".repeat(5000));
    assert!(nothing(&json(Operation::Transcriptions, &long)), "too long to be one");
    for odd in [r#""input_tokens""#, "[1]", "3", "null", r#"{"input_tokens":{"a":1},"output_tokens":[]}"#] {
        assert!(nothing(&json(Operation::Transcriptions, &format!(r#"{{"usage":{odd},"x":1}}"#))), "{odd}");
    }
}

#[test]
fn subtitles_tell_time_and_text_apart() {
    let srt = "1\n00:00:00,000 --> 00:00:03,500\nsix by\n\n2\r\n00:01:03,500 --> 01:02:03,500\r\nseven b";
    let told = read(Operation::Transcriptions, "application/x-subrip", srt);
    assert_eq!((told.text, told.seconds), (Some(13), Some(3723.5)));
    let told = read(Operation::Translations, "text/vtt", "WEBVTT\n\n00:00.000 --> 00:12.250 align:start\nseven b\n");
    assert_eq!((told.text, told.seconds), (Some(7), Some(12.25)));
    assert_eq!(read(Operation::Speech, "audio/mpeg", "1 --> 2"), Told::default());
}

#[test]
fn speech_tells_its_tokens_in_its_last_event() {
    let told = events(
        Operation::Speech,
        "data: {\"type\":\"speech.audio.delta\",\"audio\":\"AAAA\"}\n\ndata: {\"type\":\"speech.audio.done\",\"usage\":{\"input_tokens\":3,\"output_tokens\":40,\"total_tokens\":43}}\n\n",
    );
    assert_eq!(tokens(&told), Some([3, 0, 0, 40]));
}

#[test]
fn a_figure_that_is_none_is_not_told_and_the_others_are() {
    let both = |usage: &str| {
        let told = json(Operation::ImageGenerations, &format!(r#"{{"data":[{{"url":"x"}}],"usage":{usage}}}"#));
        (told.prompt.map(|u| u.prompt()), told.answer.map(|u| u.completion()))
    };
    assert_eq!(both(r#"{"input_tokens":50.0,"output_tokens":"272","input_tokens_details":[]}"#), (Some(50), Some(272)));
    for odd in ["-5", "1e300", "10000000000000000000", "\"many\"", "{}", "[1]", "true", "null"] {
        assert_eq!(both(&format!(r#"{{"input_tokens":50,"output_tokens":{odd}}}"#)), (Some(50), None), "{odd}");
        assert_eq!(both(&format!(r#"{{"input_tokens":{odd},"output_tokens":272}}"#)), (None, Some(272)), "{odd}");
        assert_eq!(both(&format!(r#"{{"input_tokens":50,"output_tokens":{odd},"total_tokens":322}}"#)), (Some(50), Some(272)), "the total tells it: {odd}");
    }
    assert_eq!(both(r#"{"input_tokens":0,"output_tokens":0,"total_tokens":0}"#), (None, None), "a picture is never for nothing");
    let told = json(Operation::ImageEdits, r#"{"data":[{}],"usage":{"input_tokens":50,"output_tokens":9,"input_tokens_details":{"cached_tokens":40}}}"#);
    assert_eq!(told.prompt.map(|u| (u.input, u.cache_read)), Some((10, 40)));
    let silence = json(Operation::Transcriptions, r#"{"text":"","usage":{"input_tokens":14,"output_tokens":0}}"#);
    assert_eq!(tokens(&silence), Some([0, 14, 0, 0]), "silence has no words");
}

#[test]
fn a_stream_says_when_it_has_said_all() {
    let done = |text: &str, pictures| {
        let mut along = Along::new(Operation::ImageGenerations, "text/event-stream");
        along.push(text.as_bytes());
        along.is_done(pictures)
    };
    let completed = "data: {\"type\":\"image_generation.completed\"}\n\n";
    assert!(done(completed, 1) && !done(completed, 2) && done(&completed.repeat(2), 2));
    assert!(done("data: {\"type\":\"transcript.text.done\"}\n\n", 1) && done("data: [DONE]\n", 1));
    assert!(!done("data: {\"type\":\"transcript.text.delta\",\"delta\":\"[DONE]\"}\n\n", 1));
}
