//! What the mock says, in the two dialects, as the bytes that go over the wire.

use crate::shape::MARK;

/// Whose API is being played.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// `POST /v1/chat/completions`
    OpenAi,
    /// `POST /v1/messages`
    Anthropic,
}

const OPENAI_WHOLE: &str = concat!(
    r#"{"id":"chatcmpl-BkQ7Lc2vT9sWm4XyZ1","object":"chat.completion","created":1760000000,"model":"m","#,
    r#""choices":[{"index":0,"message":{"role":"assistant","content":"Three roads meet here@ and each has a gate.","refusal":null,"annotations":[]},"logprobs":null,"finish_reason":"stop"}],"#,
    r#""usage":{"prompt_tokens":112,"completion_tokens":11,"total_tokens":123,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"#,
    r#""completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}},"#,
    r#""service_tier":"default","system_fingerprint":"fp_51db84afab"}"#
);

const ANTHROPIC_WHOLE: &str = concat!(
    r#"{"id":"msg_01Xh7Lc2vT9sWm4XyZ1aBcDe","type":"message","role":"assistant","model":"claude-haiku-4-5","#,
    r#""content":[{"type":"text","text":"Three roads meet here@ and each has a gate."}],"stop_reason":"end_turn","stop_sequence":null,"#,
    r#""usage":{"input_tokens":112,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":11,"service_tier":"standard"}}"#
);

const STREAM_HEAD: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\nx-request-id: req_011CSHoEeqs5C35K2UUqR7Fy\r\ntransfer-encoding: chunked\r\n\r\n";

/// A whole answer with its head.
pub fn whole(dialect: Dialect) -> Vec<u8> {
    let body = match dialect {
        Dialect::OpenAi => OPENAI_WHOLE,
        Dialect::Anthropic => ANTHROPIC_WHOLE,
    };
    json("200 OK", body)
}

/// A JSON answer with its head.
pub fn json(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\nx-request-id: req_011CSHoEeqs5C35K2UUqR7Fy\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
}

/// A whole stream as one piece: what a burst writes.
pub fn burst(dialect: Dialect, tokens: u32, usage: bool) -> Vec<u8> {
    let mut wire = Vec::new();
    open(&mut wire, dialect);
    for _ in 0..tokens {
        token(&mut wire, dialect, None);
    }
    close(&mut wire, dialect, tokens, usage);
    wire
}

/// The head of a stream and the events before its first token.
pub fn open(wire: &mut Vec<u8>, dialect: Dialect) {
    wire.extend_from_slice(STREAM_HEAD.as_bytes());
    match dialect {
        Dialect::OpenAi => chunk(wire, r#"{"role":"assistant","content":"","refusal":null}"#, "null"),
        Dialect::Anthropic => {
            event(
                wire,
                "message_start",
                concat!(
                    r#"{"type":"message_start","message":{"id":"msg_01Xh7Lc2vT9sWm4XyZ1aBcDe","type":"message","role":"assistant","model":"claude-haiku-4-5","content":[],"#,
                    r#""stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":112,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":1,"service_tier":"standard"}}}"#
                ),
            );
            event(wire, "content_block_start", r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#);
            event(wire, "ping", r#"{"type":"ping"}"#);
        }
    }
}

/// One token, with the time it is sent if the stream is paced.
pub fn token(wire: &mut Vec<u8>, dialect: Dialect, sent: Option<u128>) {
    let stamp = sent.map_or_else(String::new, |sent| format!("{sent:019}"));
    let mark = char::from(MARK);
    match dialect {
        Dialect::OpenAi => chunk(wire, &format!(r#"{{"content":" word{mark}{stamp}"}}"#), "null"),
        Dialect::Anthropic => {
            event(wire, "content_block_delta", &format!(r#"{{"type":"content_block_delta","index":0,"delta":{{"type":"text_delta","text":" word{mark}{stamp}"}}}}"#));
        }
    }
}

/// The events behind the last token, and the end of the body. OpenAI sends usage only to those who ask for it.
pub fn close(wire: &mut Vec<u8>, dialect: Dialect, tokens: u32, usage: bool) {
    match dialect {
        Dialect::OpenAi => {
            chunk(wire, "{}", r#""stop""#);
            if usage {
                let total = 112 + tokens;
                frame(
                    wire,
                    &format!(
                        concat!(
                            r#"data: {{"id":"chatcmpl-BkQ7Lc2vT9sWm4XyZ1","object":"chat.completion.chunk","created":1760000000,"model":"m","service_tier":"default","#,
                            r#""system_fingerprint":"fp_51db84afab","choices":[],"usage":{{"prompt_tokens":112,"completion_tokens":{},"total_tokens":{}}}}}"#,
                            "\n\n"
                        ),
                        tokens, total
                    ),
                );
            }
            frame(wire, "data: [DONE]\n\n");
        }
        Dialect::Anthropic => {
            event(wire, "content_block_stop", r#"{"type":"content_block_stop","index":0}"#);
            event(wire, "message_delta", &format!(r#"{{"type":"message_delta","delta":{{"stop_reason":"end_turn","stop_sequence":null}},"usage":{{"output_tokens":{tokens}}}}}"#));
            event(wire, "message_stop", r#"{"type":"message_stop"}"#);
        }
    }
    wire.extend_from_slice(b"0\r\n\r\n");
}

fn chunk(wire: &mut Vec<u8>, delta: &str, finish: &str) {
    frame(
        wire,
        &format!(
            concat!(
                r#"data: {{"id":"chatcmpl-BkQ7Lc2vT9sWm4XyZ1","object":"chat.completion.chunk","created":1760000000,"model":"m","service_tier":"default","#,
                r#""system_fingerprint":"fp_51db84afab","choices":[{{"index":0,"delta":{},"logprobs":null,"finish_reason":{}}}]}}"#,
                "\n\n"
            ),
            delta, finish
        ),
    );
}

fn event(wire: &mut Vec<u8>, name: &str, data: &str) {
    frame(wire, &format!("event: {name}\ndata: {data}\n\n"));
}

/// Each event is a chunk of its own, as upstreams send them, also where many go out in one write.
fn frame(wire: &mut Vec<u8>, event: &str) {
    wire.extend_from_slice(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(wire: &[u8]) -> Vec<String> {
        let text = String::from_utf8(wire.to_vec()).unwrap();
        text.lines().filter_map(|line| line.strip_prefix("data: ")).map(str::to_owned).collect()
    }

    #[test]
    fn all_that_is_said_is_json_and_each_token_has_one_mark() {
        for dialect in [Dialect::OpenAi, Dialect::Anthropic] {
            let events = data(&burst(dialect, 3, true));
            assert!(events.iter().all(|event| event == "[DONE]" || serde_json::from_str::<serde_json::Value>(event).is_ok()), "{events:#?}");
            assert_eq!(events.concat().bytes().filter(|byte| *byte == MARK).count(), 3);
            let answer = String::from_utf8(whole(dialect)).unwrap();
            let body = answer.split_once("\r\n\r\n").unwrap().1;
            assert!(serde_json::from_str::<serde_json::Value>(body).is_ok());
            assert_eq!(body.bytes().filter(|byte| *byte == MARK).count(), 1);
        }
    }

    #[test]
    fn usage_comes_only_when_asked_for() {
        assert_eq!(data(&burst(Dialect::OpenAi, 1, false)).len(), 4);
        assert_eq!(data(&burst(Dialect::OpenAi, 1, true)).len(), 5);
    }
}
