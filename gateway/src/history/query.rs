//! Questions to the history, and what it answers: sums grouped by whatever one wants to tell apart.

use std::collections::BTreeMap;
use std::sync::Arc;

use providers::prices::Nanodollars;
use serde_json::{Map, Value, json};

use super::Day;
use super::sums::{Key, Sums};

/// Most rows of an answer.
pub const MOST_ROWS: usize = 100_000;

/// What sums can be told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum By {
    /// The day in UTC in which requests came.
    Day,
    /// Who asked.
    Consumer,
    /// The groups of who asked, at that time. A consumer in two groups counts in each of them, and one in none under nothing.
    Group,
    /// The configured name that answers to the model asked for.
    Model,
    /// The provider that answered.
    Provider,
    /// The model used there.
    ModelUsed,
}

impl By {
    /// All of them.
    pub const ALL: [By; 6] = [By::Day, By::Consumer, By::Group, By::Model, By::Provider, By::ModelUsed];

    /// As it is written in a question and in an answer.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            By::Day => "day",
            By::Consumer => "consumer",
            By::Group => "group",
            By::Model => "model",
            By::Provider => "provider",
            By::ModelUsed => "model_used",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<By> {
        By::ALL.into_iter().find(|by| by.name() == name)
    }
}

/// A question.
#[derive(Clone, Debug)]
pub struct Query {
    /// The first day.
    pub from: Day,
    /// The last day.
    pub to: Day,
    /// What is told apart; nothing for one sum of all.
    pub by: Vec<By>,
    /// Whose sums; everybody's if it is nobody.
    pub consumer: Option<Arc<str>>,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Report {
    /// The first day.
    pub from: Day,
    /// The last day.
    pub to: Day,
    /// Ordered by what they are grouped by.
    pub rows: Vec<Row>,
    /// Why it is not all, for the operator; empty if it is.
    pub gaps: Vec<String>,
}

/// Sums of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What they have in common, in the order of the question.
    pub of: Vec<(By, Option<Arc<str>>)>,
    /// What was used.
    pub sums: Sums,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It would have too many rows.
    #[error("this has more than {MOST_ROWS} rows: ask for fewer days, or tell fewer things apart")]
    TooMany,
    /// The folder cannot be read.
    #[error("the history of usage cannot be read: {0}")]
    Unreadable(std::io::Error),
}

impl Report {
    /// As the API tells it: `from`, `to`, `complete`, and `rows` with what they are grouped by, counts, tokens by bucket and dollars.
    #[must_use]
    pub fn json(&self) -> Value {
        let rows: Vec<Value> = self.rows.iter().map(Row::json).collect();
        json!({ "from": self.from, "to": self.to, "complete": self.gaps.is_empty(), "rows": rows })
    }
}

impl Row {
    /// What it has in common under a heading.
    #[must_use]
    pub fn of(&self, by: By) -> Option<&str> {
        self.of.iter().find(|(heading, _)| *heading == by)?.1.as_deref()
    }

    /// As the API tells it.
    #[must_use]
    pub fn json(&self) -> Value {
        let Sums { requests, failed, lost, nanodollars, .. } = self.sums;
        let mut row: Map<String, Value> = self.of.iter().map(|(by, text)| (by.name().to_owned(), json!(text.as_deref().filter(|text| !text.is_empty())))).collect();
        row.insert("requests".into(), requests.into());
        row.insert("failed".into(), failed.into());
        if lost > 0 {
            row.insert("lost".into(), lost.into());
        }
        let usage: Map<String, Value> = self.sums.buckets().into_iter().filter(|(_, tokens)| *tokens > 0).map(|(bucket, tokens)| (bucket.to_owned(), tokens.into())).collect();
        row.insert("usage".into(), usage.into());
        row.insert("cost".into(), serde_json::from_str(&Nanodollars(nanodollars).to_string()).unwrap_or_default());
        row.into()
    }
}

/// Rows in the making.
#[derive(Debug)]
pub(super) struct Sheet {
    query: Query,
    rows: BTreeMap<Vec<Option<Arc<str>>>, Sums>,
}

impl Sheet {
    pub(super) fn new(query: Query) -> Self {
        Sheet { query, rows: BTreeMap::new() }
    }

    /// Adds sums of a day, which is given as it is written.
    pub(super) fn add(&mut self, day: &Arc<str>, key: &Key, sums: &Sums) -> Result<(), Error> {
        let groups = key.groups.as_deref().unwrap_or_default();
        let count = if self.query.by.contains(&By::Group) { groups.len().max(1) } else { 1 };
        for i in 0..count {
            let of = self.query.by.iter().map(|by| match by {
                By::Day => Some(day.clone()),
                By::Consumer => key.consumer.clone(),
                By::Group => groups.get(i).cloned(),
                By::Model => Some(key.route.clone()),
                By::Provider => key.provider.clone(),
                By::ModelUsed => key.model_used.clone(),
            });
            self.rows.entry(of.collect()).or_default().add(sums);
        }
        if self.rows.len() > MOST_ROWS { Err(Error::TooMany) } else { Ok(()) }
    }

    pub(super) fn finish(self, gaps: Vec<String>) -> Report {
        let Query { from, to, by, .. } = self.query;
        let rows = self.rows.into_iter().map(|(of, sums)| Row { of: by.iter().copied().zip(of).collect(), sums });
        Report { from, to, rows: rows.collect(), gaps }
    }
}
