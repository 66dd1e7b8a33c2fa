//! Calls one after the other, for doors that have one open at a time: a model may write the arguments of parallel calls in
//! turns, and OpenAI's chat tells them apart by index, but a block that is closed takes no more.

use crate::answer::Delta;
use crate::door::{ClientError, Writer};
use crate::json::scan;

/// A writer whose inner one sees each call whole before the next begins.
pub(crate) struct InOrder<W> {
    inner: W,
    lanes: Vec<Lane>,
}

/// The calls of one choice.
#[derive(Default)]
struct Lane {
    /// The call that the inner writer is at.
    open: Option<Held>,
    /// Calls that began before it was complete.
    waiting: Vec<Held>,
}

struct Held {
    index: u32,
    id: String,
    name: String,
    arguments: String,
}

impl Held {
    /// Whether nothing more can belong to it. What is no object is a freeform tool's text, whose end nothing tells but what
    /// comes next.
    fn is_complete(&self) -> bool {
        let text = self.arguments.trim_start();
        !text.is_empty() && (!text.starts_with('{') || scan(text.as_bytes()).is_ok())
    }
}

impl<W: Writer> InOrder<W> {
    pub(crate) fn new(inner: W) -> Self {
        InOrder { inner, lanes: Vec::new() }
    }

    fn lane(&mut self, choice: u32) -> &mut Lane {
        let at = (choice as usize).min(crate::answer::MAX_CHOICES - 1);
        if self.lanes.len() <= at {
            self.lanes.resize_with(at + 1, Lane::default);
        }
        &mut self.lanes[at]
    }

    fn call(&mut self, choice: u32, call: Held, out: &mut Vec<u8>) {
        let lane = self.lane(choice);
        if lane.open.as_ref().is_some_and(|open| !open.is_complete()) {
            lane.waiting.push(call);
            return;
        }
        self.inner.delta(&Delta::Call { choice, index: call.index, id: &call.id, name: &call.name }, out);
        if !call.arguments.is_empty() {
            self.inner.delta(&Delta::Arguments { choice, index: call.index, json: &call.arguments }, out);
        }
        self.lane(choice).open = Some(call);
    }

    fn arguments(&mut self, choice: u32, index: u32, json: &str, out: &mut Vec<u8>) {
        let lane = self.lane(choice);
        let is_open = lane.open.as_ref().is_some_and(|open| open.index == index);
        // Pieces of a call that was complete before the next one began are white space at most.
        let Some(call) = lane.open.iter_mut().chain(&mut lane.waiting).find(|call| call.index == index) else { return };
        call.arguments.push_str(json);
        if !is_open {
            return;
        }
        // Only a piece with a brace in it can complete an object: the others need no look at the whole.
        let free = !lane.waiting.is_empty() && json.contains('}') && lane.open.as_ref().is_some_and(Held::is_complete);
        self.inner.delta(&Delta::Arguments { choice, index, json }, out);
        if free {
            self.release(choice, out);
        }
    }

    /// Gives out the calls that waited, as far as each lets the next one begin.
    fn release(&mut self, choice: u32, out: &mut Vec<u8>) {
        for call in std::mem::take(&mut self.lane(choice).waiting) {
            self.call(choice, call, out);
        }
    }

    /// No more will come: gives out all that waited.
    fn flush(&mut self, choice: u32, out: &mut Vec<u8>) {
        while !self.lane(choice).waiting.is_empty() {
            self.lane(choice).open = None;
            self.release(choice, out);
        }
    }
}

impl<W: Writer> Writer for InOrder<W> {
    fn delta(&mut self, delta: &Delta<'_>, out: &mut Vec<u8>) {
        match *delta {
            Delta::Call { choice, index, id, name } => self.call(choice, Held { index, id: id.to_owned(), name: name.to_owned(), arguments: String::new() }, out),
            Delta::Arguments { choice, index, json } => self.arguments(choice, index, json, out),
            Delta::Finish { choice, .. } => {
                // The finish first: what comes behind it may have been cut, and a door can say so.
                self.inner.delta(delta, out);
                self.flush(choice, out);
            }
            _ => self.inner.delta(delta, out),
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        for choice in 0..self.lanes.len() as u32 {
            self.flush(choice, out);
        }
        self.inner.end(out);
    }

    fn error(&mut self, error: &ClientError, out: &mut Vec<u8>) {
        self.inner.error(error, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes what it is given in short.
    struct Note;

    impl Writer for Note {
        fn delta(&mut self, delta: &Delta<'_>, out: &mut Vec<u8>) {
            let text = match delta {
                Delta::Call { index, name, .. } => format!("[{index}{name}"),
                Delta::Arguments { index, json, .. } => format!("({index}{json})"),
                Delta::Finish { .. } => ".".to_owned(),
                other => format!("{other:?}"),
            };
            out.extend_from_slice(text.as_bytes());
        }
        fn end(&mut self, out: &mut Vec<u8>) {
            out.push(b'$');
        }
        fn error(&mut self, _: &ClientError, out: &mut Vec<u8>) {
            out.push(b'!');
        }
    }

    /// `+` begins a call, `NUMBER TEXT` is a piece of its arguments, `.` is the finish.
    fn run(steps: &[&str]) -> String {
        let (mut writer, mut out, mut calls) = (InOrder::new(Note), Vec::new(), 0);
        for step in steps {
            match step.split_at(1) {
                ("+", name) => {
                    writer.delta(&Delta::Call { choice: 0, index: calls, id: "", name }, &mut out);
                    calls += 1;
                }
                (".", _) => writer.delta(&Delta::Finish { choice: 0, reason: crate::answer::Finish::Stop }, &mut out),
                (index, json) => writer.delta(&Delta::Arguments { choice: 0, index: index.parse().unwrap(), json }, &mut out),
            }
        }
        writer.end(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn calls_in_turns_come_out_one_after_the_other() {
        assert_eq!(run(&["+a", "+b", "+c", "1{\"y\":", "0{\"x\":", "2{}", "01}", "12}", "."]), "[0a(0{\"x\":)(01})[1b(1{\"y\":)(12})[2c(2{}).$");
        assert_eq!(run(&["+a", "0{", "+b", "1{}", "0}", "+c", "2{}"]), "[0a(0{)(0})[1b(1{})[2c(2{})$");
    }

    #[test]
    fn calls_in_order_are_not_held_back() {
        assert_eq!(run(&["+a", "0{\"x\":\"}\"", "0}", "+b", "1{}", "."]), "[0a(0{\"x\":\"}\")(0})[1b(1{}).$");
        assert_eq!(run(&["+a", "0freeform {", "+b", "1text", "."]), "[0a(0freeform {)[1b(1text).$");
    }

    #[test]
    fn what_is_never_complete_lets_the_rest_out_at_the_end() {
        assert_eq!(run(&["+a", "+b", "1{\"y\":1}", "+c", "."]), "[0a.[1b(1{\"y\":1})[2c$");
        assert_eq!(run(&["+a", "0{\"x\":", "+b", "1{\"y\":"]), "[0a(0{\"x\":)[1b(1{\"y\":)$");
    }
}
