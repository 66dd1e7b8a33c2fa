//! The generator: one kind of request, asked over and over, in a closed loop (each connection asks again when it has
//! its answer: saturation) or an open one (requests leave at fixed times whatever happens: what a user feels).

mod answer;
pub mod closed;
pub mod open;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{
    process::{Core, Cpu},
    shape::Shape,
    stats::{Percentiles, Report},
};

/// One run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Whom to ask; on loopback.
    pub target: SocketAddr,
    /// Connections that are kept open.
    pub connections: usize,
    /// The model to name.
    pub model: String,
    /// Bytes of the prompt.
    pub prompt: usize,
    /// Ask for a stream of this shape; without it, for a whole answer.
    pub shape: Option<Shape>,
    /// What comes before the measured window.
    pub warmup: Duration,
    /// The measured window.
    pub length: Duration,
    /// Processes whose CPU time is read at both ends of the window.
    pub watch: Vec<u32>,
    /// The core that they are pinned to.
    pub core: Option<usize>,
}

impl Plan {
    /// The request as it goes over the wire.
    fn request(&self) -> Vec<u8> {
        let mut prompt = self.shape.map_or_else(String::new, |shape| format!("shape={shape}. "));
        // Prose with what makes prose dearer than plain bytes: escapes, and letters that are not ASCII.
        while prompt.len() < self.prompt {
            prompt.push_str("The traveller asked: \"Which road is mine?\" – and the keeper of the crossing answered, naïvely perhaps, with a shrug.\n");
        }
        let mut end = self.prompt.min(prompt.len());
        while !prompt.is_char_boundary(end) {
            end -= 1;
        }
        // A prompt that is shorter than the name of its shape keeps the name.
        prompt.truncate(end.max(self.shape.map_or(0, |shape| format!("shape={shape}. ").len())));
        let mut body = serde_json::json!({
            "model": self.model,
            "messages": [{"role": "system", "content": "You keep the crossing. Answer in one sentence."}, {"role": "user", "content": prompt}],
            "max_tokens": 1024,
            "temperature": 0.5,
        });
        if self.shape.is_some() {
            body["stream"] = true.into();
        }
        let (body, target) = (body.to_string(), self.target);
        let length = body.len();
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: {target}\r\nuser-agent: load/0.1\r\naccept: */*\r\nauthorization: Bearer sk-bench\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    }

    /// Tokens that each answer must have.
    fn tokens(&self) -> u32 {
        self.shape.map_or(1, Shape::tokens)
    }
}

/// The measured part of a run.
#[derive(Debug, Clone, Copy)]
struct Window {
    begin: Instant,
    end: Instant,
}

impl Window {
    fn holds(&self, moment: Instant) -> bool {
        self.begin <= moment && moment < self.end
    }
}

/// The clocks at the window's beginning.
struct Clocks {
    begin: Instant,
    cpu: Cpu,
    core: Option<Core>,
}

impl Clocks {
    fn read(plan: &Plan) -> Result<Self, String> {
        Ok(Self { begin: Instant::now(), cpu: Cpu::read(&plan.watch)?, core: plan.core.map(Core::read).transpose()? })
    }

    /// What they say at its end.
    fn stop(&self, plan: &Plan) -> Result<Spent, String> {
        let now = Self::read(plan)?;
        let seconds = (now.begin - self.begin).as_secs_f64();
        let cpu = now.cpu.seconds_since(&self.cpu);
        let taken = self.core.zip(now.core).map(|(before, after)| after.taken_since(before, cpu) / seconds);
        Ok(Spent { seconds, cpu: (!plan.watch.is_empty()).then_some(cpu), taken })
    }
}

/// What went by in the window.
struct Spent {
    seconds: f64,
    cpu: Option<f64>,
    taken: Option<f64>,
}

/// What one connection saw.
#[derive(Default)]
struct Tally {
    requests: u64,
    tokens: u64,
    errors: u64,
    first_error: Option<String>,
    latency: Vec<u64>,
    first_token: Vec<u64>,
    transit: Vec<u64>,
}

impl Tally {
    fn failed(&mut self, error: String) {
        self.errors += 1;
        self.first_error.get_or_insert(error);
    }

    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.tokens += other.tokens;
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
        self.latency.extend(other.latency);
        self.first_token.extend(other.first_token);
        self.transit.extend(other.transit);
    }

    fn report(self, spent: &Spent) -> Report {
        Report {
            seconds: spent.seconds,
            requests: self.requests,
            tokens: self.tokens,
            errors: self.errors,
            first_error: self.first_error,
            cpu_seconds: spent.cpu,
            taken: spent.taken,
            latency: Percentiles::of(self.latency),
            first_token: Percentiles::of(self.first_token),
            transit: Percentiles::of(self.transit),
        }
    }
}

/// A connection gives up after so many failures: then the run says nothing anyway.
const MOST_ERRORS: u64 = 20;

/// Answers that take longer than this have failed.
const PATIENCE: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(target: SocketAddr, shape: Option<&str>) -> Plan {
        Plan {
            target,
            connections: 4,
            model: "m".into(),
            prompt: 300,
            shape: shape.map(|name| name.parse().unwrap()),
            warmup: Duration::from_millis(50),
            length: Duration::from_millis(250),
            watch: vec![std::process::id()],
            core: Some(0),
        }
    }

    #[test]
    fn a_prompt_has_the_size_that_was_asked_for() {
        for (prompt, shape) in [(0, Some("burst-5")), (300, None), (256 * 1024, Some("burst-5"))] {
            let plan = Plan { prompt, ..plan(([127, 0, 0, 1], 1).into(), shape) };
            let wire = String::from_utf8(plan.request()).unwrap();
            let body: serde_json::Value = serde_json::from_str(wire.split_once("\r\n\r\n").unwrap().1).unwrap();
            let text = body["messages"][1]["content"].as_str().unwrap();
            assert!(text.len().abs_diff(prompt) < 20, "{}", text.len());
            assert_eq!(body["stream"] == true, shape.is_some());
        }
    }

    #[tokio::test]
    async fn both_loops_measure_the_mock() {
        let listener = crate::mock::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let target = listener.local_addr().unwrap();
        let mock = tokio::spawn(crate::mock::serve(listener));
        for shape in [None, Some("burst-200"), Some("paced-5-2")] {
            let plan = plan(target, shape);
            let closed = closed::run(&plan, None).await.unwrap();
            let open = tokio::task::spawn_blocking({
                let plan = plan.clone();
                move || open::run(&plan, 100.0)
            });
            let open = open.await.unwrap().unwrap();
            for report in [closed, open] {
                assert_eq!((report.errors, report.first_error), (0, None));
                assert!(report.requests > 0 && report.tokens >= report.requests && report.latency.p50 > 0.0 && report.cpu_seconds.is_some());
                assert_eq!(report.transit.count > 0, shape == Some("paced-5-2"));
            }
        }
        let counted = closed::run(&plan(target, None), Some(1000)).await.unwrap();
        assert_eq!((counted.requests, counted.errors), (1000, 0));
        mock.abort();
    }

    #[tokio::test]
    async fn failures_are_counted_and_told() {
        let listener = crate::mock::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let target = listener.local_addr().unwrap();
        drop(listener);
        let report = closed::run(&plan(target, None), None).await.unwrap();
        assert!(report.errors > 0 && report.first_error.is_some());
    }
}
