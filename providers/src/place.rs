//! Where blocks of thinking stand among the text and the calls of one turn. Claude may think between them and wants the blocks
//! of its last turn back in their order, while the hub has a turn's thinking, its text and its calls apart. So each block
//! carries its place as its id: clients that keep `reasoning_details` keep that too.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt::Write as _;

/// What the id of a block begins with that tells its place.
const PREFIX: &str = "at_";

/// Counts a turn's text and calls as they pass.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counter {
    /// Characters of text so far.
    text: usize,
    /// Calls before the last block of thinking.
    calls: usize,
    /// How much text stood before each call since then.
    since: Vec<usize>,
}

impl Counter {
    pub(crate) fn text(&mut self, text: &str) {
        self.text += text.chars().count();
    }

    pub(crate) fn call(&mut self) {
        self.since.push(self.text);
    }

    /// Characters of text so far.
    pub(crate) fn characters(&self) -> usize {
        self.text
    }

    /// The place of a block of thinking that comes now; none at the beginning of the turn, where every block stood before
    /// models thought in between.
    pub(crate) fn place(&mut self) -> Option<String> {
        if self.text == 0 && self.calls == 0 && self.since.is_empty() {
            return None;
        }
        let mut place = format!("{PREFIX}{}", self.calls);
        self.calls += self.since.len();
        for number in self.since.drain(..).chain([self.text]) {
            // Writing to a String cannot fail.
            let _ = write!(place, "_{number}");
        }
        Some(place)
    }
}

/// A place as an id tells it.
struct Place {
    calls: usize,
    since: Vec<usize>,
    text: usize,
}

impl Place {
    fn read(id: &str) -> Option<Self> {
        let mut numbers = id.strip_prefix(PREFIX)?.split('_').map(|n| n.parse().ok()).collect::<Option<Vec<usize>>>()?;
        let text = numbers.pop()?;
        if numbers.is_empty() {
            return None;
        }
        Some(Place { calls: numbers.remove(0), since: numbers, text })
    }
}

/// Whether an id tells a place in the middle of a turn.
pub(crate) fn is_place(id: &str) -> bool {
    Place::read(id).is_some()
}

/// How many calls stood before a place.
pub(crate) fn calls_before(id: &str) -> usize {
    Place::read(id).map_or(0, |place| place.calls.saturating_add(place.since.len()))
}

/// The next thing of a turn.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The next block of thinking.
    Thinking,
    /// Text, as far as this many characters from its beginning.
    Text(usize),
    /// The next call.
    Call,
}

/// The order of a turn of `calls` calls whose blocks of thinking have these positions and ids. Blocks that are not all there say
/// nothing of where they stood: then the thinking comes first, and the text before the calls.
pub(crate) fn order<'i>(thinking: impl Iterator<Item = (Option<u32>, Option<&'i str>)>, calls: usize) -> Vec<Step> {
    let blocks: Vec<_> = thinking.collect();
    let complete = (0..).zip(&blocks).all(|(at, (index, _))| *index == Some(at));
    let (mut steps, mut made) = (Vec::with_capacity(blocks.len() * 2 + calls + 1), 0);
    for (_, id) in blocks {
        if let Some(place) = id.filter(|_| complete).and_then(Place::read) {
            for (number, text) in place.since.into_iter().enumerate() {
                if place.calls.checked_add(number) == Some(made) && made < calls {
                    steps.extend([Step::Text(text), Step::Call]);
                    made += 1;
                }
            }
            steps.push(Step::Text(place.text));
        }
        steps.push(Step::Thinking);
    }
    steps.push(Step::Text(usize::MAX));
    steps.extend((made..calls).map(|_| Step::Call));
    steps
}

/// A content block of a dialect that has all of them in one list.
pub(crate) trait Piece<'a>: Sized {
    /// A block of text.
    fn of(text: Cow<'a, str>) -> Self;

    /// Its text, if it is one of text.
    fn text(&mut self) -> Option<&mut Cow<'a, str>>;
}

/// A block of thinking, and what tells of its place.
pub(crate) struct Thought<'i, B> {
    pub(crate) block: B,
    /// Its number among the blocks of thinking of its turn.
    pub(crate) index: Option<u32>,
    pub(crate) id: Option<Cow<'i, str>>,
}

/// One turn out of its parts. Text is cut where a block of thinking stood in it.
pub(crate) fn weave<'a, B: Piece<'a>>(thinking: Vec<Thought<'_, B>>, said: Vec<B>, calls: Vec<B>) -> Vec<B> {
    let steps = order(thinking.iter().map(|t| (t.index, t.id.as_deref())), calls.len());
    let mut out = Vec::with_capacity(thinking.len() + said.len() + calls.len());
    let (mut thinking, mut said, mut calls) = (thinking.into_iter().map(|t| t.block), Said { blocks: said.into(), given: 0 }, calls.into_iter());
    for step in steps {
        match step {
            Step::Thinking => out.extend(thinking.next()),
            Step::Text(end) => said.give(end, &mut out),
            Step::Call => out.extend(calls.next()),
        }
    }
    out
}

/// The text of a turn as it is given out.
struct Said<B> {
    blocks: VecDeque<B>,
    /// Characters given so far.
    given: usize,
}

impl<B> Said<B> {
    /// Gives out the text up to a place, and what stands behind it that is no text: a mark belongs to what it stands behind.
    fn give<'a>(&mut self, end: usize, out: &mut Vec<B>)
    where
        B: Piece<'a>,
    {
        while let Some(block) = self.blocks.front_mut() {
            if let Some(text) = block.text() {
                let room = end.saturating_sub(self.given);
                if room == 0 {
                    break;
                }
                match text.char_indices().nth(room) {
                    Some((at, _)) => {
                        out.push(B::of(cut(text, at)));
                        self.given = end;
                        break;
                    }
                    None => self.given += text.chars().count(),
                }
            }
            out.extend(self.blocks.pop_front());
        }
    }
}

/// Takes the first bytes off a text.
fn cut<'a>(text: &mut Cow<'a, str>, at: usize) -> Cow<'a, str> {
    match text {
        Cow::Borrowed(all) => {
            let (head, tail) = all.split_at(at);
            *all = tail;
            Cow::Borrowed(head)
        }
        Cow::Owned(all) => {
            let tail = all.split_off(at);
            Cow::Owned(std::mem::replace(all, tail))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl<'a> Piece<'a> for Cow<'a, str> {
        fn of(text: Cow<'a, str>) -> Self {
            text
        }

        fn text(&mut self) -> Option<&mut Cow<'a, str>> {
            // What is in brackets stands for anything else.
            if self.starts_with('[') { None } else { Some(self) }
        }
    }

    type Text = Cow<'static, str>;

    /// `?x` is a block of thinking, `!x` a call, anything else text. Gives the parts that the hub would hold of them.
    fn parts(turn: &[&'static str]) -> (Vec<Thought<'static, Text>>, String, Vec<Text>) {
        let (mut counter, mut thinking, mut said, mut calls) = (Counter::default(), Vec::new(), String::new(), Vec::new());
        for piece in turn {
            match piece.split_at(1) {
                ("?", _) => thinking.push(Thought { block: Cow::Borrowed(*piece), index: Some(thinking.len() as u32), id: counter.place().map(Cow::Owned) }),
                ("!", _) => {
                    counter.call();
                    calls.push(Cow::Borrowed(*piece));
                }
                _ => {
                    counter.text(piece);
                    said.push_str(piece);
                }
            }
        }
        (thinking, said, calls)
    }

    #[test]
    fn a_turn_comes_out_as_it_went_in() {
        for turn in [
            &["?a", "text", "!b"][..],
            &["?a", "größe", "?b", "!c"],
            &["?a", "!b", "?c", "!d"],
            &["?a", "one", "!b", "two", "?c", "three", "!d", "?e", "!f", "!g"],
            &["one", "?a", "!b"],
            &["!a", "!b", "?c", "!d"],
            &["?a", "?b", "one", "?c", "?d", "two"],
            &["one"],
            &["?a"],
            &[],
        ] {
            let (thinking, said, calls) = parts(turn);
            let said: Vec<Cow<'_, str>> = if said.is_empty() { Vec::new() } else { vec![said.into()] };
            assert_eq!(weave(thinking, said, calls), turn);
        }
    }

    #[test]
    fn text_in_pieces_is_cut_where_it_has_to_be_and_marks_stay_behind_theirs() {
        let (thinking, ..) = parts(&["?a", "onetwo", "?b"]);
        let pieces = ["on", "[mark]", "et", "wo", "[mark]", "three"].map(Cow::Borrowed).to_vec();
        assert_eq!(weave(thinking, pieces, Vec::new()), ["?a", "on", "[mark]", "et", "wo", "[mark]", "?b", "three"]);
        let (thinking, ..) = parts(&["?a", "one", "?b"]);
        assert_eq!(weave(thinking, vec!["onetwo".into()], vec!["!c".into()]), ["?a", "one", "?b", "two", "!c"]);
    }

    #[test]
    fn what_is_not_whole_says_nothing_of_its_order() {
        // The second half of a turn, as some clients cut it; two turns made one; ids of somebody else's.
        let (mut thinking, ..) = parts(&["?a", "!b", "?c", "!d"]);
        assert_eq!(weave(thinking.split_off(1), Vec::new(), vec!["!d".into()]), ["?c", "!d"]);
        let (mut both, ..) = parts(&["?a", "one", "?b"]);
        both.extend(parts(&["?c", "two", "?d"]).0);
        assert_eq!(weave(both, vec!["onetwo".into()], Vec::new()), ["?a", "?b", "?c", "?d", "onetwo"]);
        for id in ["at_", "at_1", "at_x_1", "at_1_-1", "rs_1", "at_1_2_", "at_99999999999999999999_1"] {
            assert!(!is_place(id), "{id}");
        }
        // Numbers that fit nothing lose nothing.
        for id in ["at_7_900_1000", "at_18446744073709551615_5_5_9", "at_0_18446744073709551615"] {
            let wild = Thought { block: Cow::Borrowed("?a"), index: Some(0), id: Some(id.into()) };
            assert_eq!(weave(vec![wild], vec!["one".into()], vec!["!b".into()]), ["one", "?a", "!b"]);
        }
    }
}
