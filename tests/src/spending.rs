//! A consumer with a budget in Redis, answers whose cost is known, and what the two come to.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::{Client, PATIENCE, Response};
use crate::mock::Mock;
use crate::redis::Server;

/// The model of all this, what it costs, and who asks for it. A story adds the limits of `alice`.
pub const MODEL: &str = "models: { m: { target: well/m, retry: { attempts: 1 }, breaker: { failures: 0 } } }\nprices: { well/m: { input: 1000, output: 2000, max_output: 400 } }\n";
/// The key of the consumer.
pub const ALICE: &str = "key-of-alice";

/// What so many tokens of prompt and completion cost, in billionths of a dollar.
#[must_use]
pub fn cost((prompt, completion): (u64, u64)) -> u64 {
    prompt * 1_000_000 + completion * 2_000_000
}

/// Billionths of a dollar as the configuration has them.
#[must_use]
pub fn dollars(nano: u64) -> String {
    providers::prices::Nanodollars(nano).to_string()
}

/// All that the provider has told to have used, in billionths of a dollar.
#[must_use]
pub fn bill(mock: &Mock) -> u64 {
    mock.bill("m").iter().filter_map(|served| served.told).map(cost).sum()
}

/// A chat to be streamed, whose answer has at most so many tokens.
#[must_use]
pub fn request(max_tokens: u64) -> Value {
    json!({ "model": "m", "stream": true, "stream_options": { "include_usage": true }, "max_tokens": max_tokens, "messages": [{ "role": "user", "content": "Say hello." }] })
}

/// An event with a piece of text.
#[must_use]
pub fn word() -> String {
    event(&json!({ "choices": [{ "index": 0, "delta": { "content": "word " }, "finish_reason": null }] }))
}

/// An event with a piece of text and what has been used up to it.
#[must_use]
pub fn counted_word(told: (u64, u64)) -> String {
    event(&json!({ "choices": [{ "index": 0, "delta": { "content": "word " }, "finish_reason": null }], "usage": usage(told) }))
}

/// The end of a stream, with what it has used.
#[must_use]
pub fn end(told: (u64, u64)) -> String {
    let stop = event(&json!({ "choices": [{ "index": 0, "delta": {}, "finish_reason": "stop" }] }));
    format!("{stop}{}data: [DONE]\n\n", event(&json!({ "choices": [], "usage": usage(told) })))
}

fn usage((prompt, completion): (u64, u64)) -> Value {
    json!({ "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion })
}

fn event(data: &Value) -> String {
    format!("data: {data}\n\n")
}

/// Asks as a consumer; `None` if the gateway is gone before it has said anything.
pub async fn ask(client: &Client, key: &str, body: &Value) -> Option<Response> {
    let bearer = format!("Bearer {key}");
    let headers = [("content-type", "application/json"), ("authorization", bearer.as_str())];
    let mut connection = client.try_connect().await?;
    connection.write(&crate::client::request("POST", "/v1/chat/completions", &headers, body.to_string().as_bytes())).await;
    connection.try_response().await
}

/// Whether a stream has come to its end.
#[must_use]
pub fn is_complete(response: &Response) -> bool {
    response.status == 200 && !response.broken && response.body.ends_with(b"data: [DONE]\n\n")
}

/// A purse as Redis has it.
#[derive(Clone, Copy)]
pub struct Purse<'a> {
    server: &'a Server,
    key: &'a str,
}

impl<'a> Purse<'a> {
    /// The purse of this key, as `purse.rs` makes it.
    #[must_use]
    pub fn new(server: &'a Server, key: &'a str) -> Self {
        Purse { server, key }
    }

    /// What is used and what is reserved, at one moment.
    #[must_use]
    pub fn stands(&self) -> (u64, u64) {
        let values = self.values(&format!("HMGET {{trivium}}:purse:{} s r", self.key));
        let number = |at: usize| values.get(at).and_then(|value| value.parse::<f64>().ok()).unwrap_or(0.0).max(0.0) as u64;
        (number(0), number(1))
    }

    /// Waits until it stands so.
    ///
    /// # Panics
    /// When it does not in time.
    pub async fn comes_to(&self, what: &str, want: impl Fn() -> (u64, u64)) {
        let began = Instant::now();
        while self.stands() != want() {
            assert!(began.elapsed() < PATIENCE, "{what}: used and reserved are {:?} and should be {:?}", self.stands(), want());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The reservations that stand, by name, and how long each of them will.
    #[must_use]
    pub fn leases(&self) -> Vec<(String, Duration)> {
        let time = self.values("TIME");
        let now = time[0].parse::<u64>().expect("seconds") * 1000 + time[1].parse::<u64>().expect("microseconds") / 1000;
        let values = self.values(&format!("ZRANGEBYSCORE {{trivium}}:leases:{} (0 +inf WITHSCORES", self.key));
        let left = |score: &str| Duration::from_millis(score.parse::<u64>().expect("a time").saturating_sub(now));
        values.chunks_exact(2).map(|pair| (pair[0].clone(), left(&pair[1]))).collect()
    }

    /// Lets so much time pass for all its reservations.
    pub fn pass(&self, time: Duration) {
        for (lease, _) in self.leases() {
            self.values(&format!("ZINCRBY {{trivium}}:leases:{} -{} {lease}", self.key, time.as_millis()));
        }
    }

    /// The values in what Redis answers; empty for those that are not there.
    fn values(&self, command: &str) -> Vec<String> {
        let answer = self.server.say(command);
        let mut lines = answer.lines();
        let mut values = Vec::new();
        while let Some(line) = lines.next() {
            match line.strip_prefix('$') {
                Some("-1") => values.push(String::new()),
                Some(_) => values.extend(lines.next().map(str::to_owned)),
                None => assert!(!line.starts_with('-'), "Redis refuses {command}: {line}"),
            }
        }
        values
    }
}
