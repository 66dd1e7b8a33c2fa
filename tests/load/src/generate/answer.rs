//! One answer as it arrives: is it good, how many tokens has it, when did they come.

use std::time::Instant;

use memchr::memchr_iter;

use super::{Plan, Tally, Window};
use crate::{
    http1::{Framing, Inbox},
    mock::nanoseconds,
    shape::{MARK, STAMP, Shape},
};

/// The end of every stream in OpenAI's dialect.
const DONE: &[u8] = b"data: [DONE]\n\n";

/// Reads the answers of one connection, one after the other.
pub(super) struct Answer {
    window: Window,
    expected: u32,
    streams: bool,
    stamped: bool,
    framing: Option<Framing>,
    close: bool,
    tokens: u32,
    /// When the first token of the current answer came.
    pub(super) first: Option<Instant>,
    ending: Vec<u8>,
    /// A stamp that was cut by the end of a read.
    cut: Vec<u8>,
}

/// How an answer stands.
#[derive(Debug, PartialEq)]
pub(super) enum Progress {
    /// More is to come.
    Partial,
    /// It is complete, and the connection can be asked again.
    Complete,
    /// It is complete, and the connection is at its end.
    Last,
}

impl Answer {
    pub(super) fn new(plan: &Plan, window: Window) -> Self {
        Self {
            window,
            expected: plan.tokens(),
            streams: plan.shape.is_some(),
            stamped: matches!(plan.shape, Some(Shape::Paced(..))),
            framing: None,
            close: false,
            tokens: 0,
            first: None,
            ending: Vec::new(),
            cut: Vec::new(),
        }
    }

    /// Makes ready for the next answer.
    pub(super) fn clear(&mut self) {
        (self.framing, self.tokens, self.first) = (None, 0, None);
        self.ending.clear();
        self.cut.clear();
    }

    /// Reads what has arrived at `now`.
    pub(super) fn read(&mut self, inbox: &mut Inbox, now: Instant, tally: &mut Tally) -> Result<Progress, String> {
        let mut framing = match self.framing {
            Some(framing) => framing,
            None => {
                let Some(head) = inbox.head()? else { return Ok(Progress::Partial) };
                if head.status() != Some(200) {
                    let line = String::from_utf8_lossy(head.line).into_owned();
                    let mut text = Vec::new();
                    let _ = head.framing.map(|mut framing| inbox.body(&mut framing, |part| text.extend_from_slice(part)));
                    return Err(format!("{line}: {}", String::from_utf8_lossy(&text[..text.len().min(500)])));
                }
                self.close = head.close;
                head.framing.ok_or("an answer with neither a length nor chunks")?
            }
        };
        let inside = self.window.holds(now);
        let arrived = (self.stamped && inside).then(nanoseconds);
        let before = self.tokens;
        let complete = inbox.body(&mut framing, |part| self.part(part, arrived, tally))?;
        self.framing = Some(framing);
        if self.tokens > before {
            self.first.get_or_insert(now);
            if inside {
                tally.tokens += u64::from(self.tokens - before);
            }
        }
        match complete {
            false => Ok(Progress::Partial),
            true if self.tokens != self.expected => Err(format!("an answer with {} tokens instead of {}", self.tokens, self.expected)),
            true if self.streams && self.ending != DONE => Err(format!("a stream that ends with {:?}", String::from_utf8_lossy(&self.ending))),
            true if self.close => Ok(Progress::Last),
            true => Ok(Progress::Complete),
        }
    }

    fn part(&mut self, part: &[u8], arrived: Option<u128>, tally: &mut Tally) {
        if self.streams {
            let keep = DONE.len().saturating_sub(part.len()).min(self.ending.len());
            self.ending.drain(..self.ending.len() - keep);
            self.ending.extend_from_slice(&part[part.len().saturating_sub(DONE.len())..]);
        }
        if !self.stamped {
            self.tokens += u32::try_from(memchr_iter(MARK, part).count()).unwrap_or(u32::MAX);
            return;
        }
        let mut text = std::mem::take(&mut self.cut);
        text.extend_from_slice(part);
        for at in memchr_iter(MARK, &text) {
            let Some(stamp) = text.get(at + 1..at + 1 + STAMP) else {
                self.cut = text.split_off(at);
                return;
            };
            self.tokens += 1;
            let sent: Option<u128> = std::str::from_utf8(stamp).ok().and_then(|digits| digits.parse().ok());
            if let (Some(sent), Some(arrived)) = (sent, arrived) {
                tally.transit.push(u64::try_from(arrived.saturating_sub(sent)).unwrap_or(u64::MAX));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::answers::{self, Dialect};
    use std::time::Duration;

    fn read(shape: Shape, wire: &[u8], step: usize) -> Result<(u64, usize), String> {
        let begin = Instant::now();
        let plan =
            Plan { target: ([127, 0, 0, 1], 1).into(), connections: 1, model: String::new(), prompt: 0, shape: Some(shape), warmup: Duration::ZERO, length: Duration::ZERO, watch: vec![], core: None };
        let mut answer = Answer::new(&plan, Window { begin, end: begin + Duration::from_secs(60) });
        let (mut inbox, mut tally) = (Inbox::default(), Tally::default());
        for piece in wire.chunks(step) {
            inbox.space()[..piece.len()].copy_from_slice(piece);
            inbox.received(piece.len());
            if answer.read(&mut inbox, Instant::now(), &mut tally)? == Progress::Complete {
                return Ok((tally.tokens, tally.transit.len()));
            }
        }
        Err("no end".into())
    }

    #[test]
    fn tokens_and_stamps_are_counted_whatever_the_cuts() {
        let paced = Shape::Paced(3, Duration::from_millis(1));
        let mut stamped = Vec::new();
        answers::open(&mut stamped, Dialect::OpenAi);
        (0..3).for_each(|_| answers::token(&mut stamped, Dialect::OpenAi, Some(nanoseconds())));
        answers::close(&mut stamped, Dialect::OpenAi, 3, true);
        for step in [1, 7, 100, 1_000_000] {
            assert_eq!(read(Shape::Burst(3), &answers::burst(Dialect::OpenAi, 3, false), step.min(60_000)), Ok((3, 0)));
            assert_eq!(read(paced, &stamped, step.min(60_000)), Ok((3, 3)));
        }
    }

    #[test]
    fn what_is_missing_is_an_error() {
        assert!(read(Shape::Burst(4), &answers::burst(Dialect::OpenAi, 3, false), 1000).unwrap_err().contains("3 tokens instead of 4"));
        assert!(read(Shape::Burst(3), &answers::burst(Dialect::Anthropic, 3, false), 1000).unwrap_err().contains("ends with"));
        assert!(read(Shape::Burst(3), &answers::json("429 Too Many Requests", "slow"), 1000).unwrap_err().contains("429 Too Many Requests: slow"));
    }
}
