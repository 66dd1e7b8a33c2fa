//! What must hold for the history, wherever it is kept, with a clock of the tests' own.

mod files;
mod redis;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use providers::prices::Nanodollars;
use providers::usage::Usage;

use super::sums::{Bounds, Tables};
use super::*;
use crate::counters::clock::Manual;
use crate::counters::suite::server::Folder as Place;

/// 2026-11-28, noon.
const NOON: u64 = 1_795_867_200;
const HOUR: u64 = 3600;

fn clock() -> Arc<Manual> {
    Arc::new(Manual::at(NOON * 1000))
}

fn second(clock: &Manual) {
    clock.pass(Duration::from_secs(1));
}

fn day(text: &str) -> Day {
    text.parse().unwrap()
}

/// A request that came then and cost as many billionths of a dollar as it has tokens, which are fifteen.
fn entry(at: u64, consumer: &str, groups: &[&str], route: &str) -> Entry {
    Entry {
        time: at as f64 + 0.5,
        consumer: Some(consumer.into()),
        groups: (!groups.is_empty()).then(|| groups.iter().map(|g| (*g).into()).collect()),
        route: route.into(),
        provider: Some("openai".into()),
        model_used: Some(format!("{route}-2026").into()),
        usage: Some(Usage { input: 8, cache_read: 2, output: 4, reasoning: 1, ..Usage::default() }),
        cost: Some(Nanodollars(15)),
        status: 200,
        ..Entry::blank()
    }
}

/// Requests and billionths of a dollar by what is told apart, joined by spaces.
fn told(report: &Report) -> BTreeMap<String, (u64, u64)> {
    let name = |row: &Row| row.of.iter().map(|(_, text)| text.as_deref().unwrap_or("-")).collect::<Vec<_>>().join(" ");
    report.rows.iter().map(|row| (name(row), (row.sums.requests, row.sums.nanodollars))).collect()
}

async fn ask(history: &Arc<History>, by: &[By]) -> Report {
    history.report(Query { from: Day::at(0), to: day("9999-12-31"), by: by.to_vec(), consumer: None }).await.unwrap()
}

/// Requests in all.
async fn requests(history: &Arc<History>) -> u64 {
    ask(history, &[]).await.rows.first().map_or(0, |row| row.sums.requests)
}

fn map<const N: usize>(rows: [(&str, u64); N]) -> BTreeMap<String, (u64, u64)> {
    rows.into_iter().map(|(name, n)| (name.to_owned(), (n, n * 15))).collect()
}

/// What does not depend on where it is kept.
async fn all(history: &Arc<History>) {
    for (consumer, groups, route, times) in [("alice", &["research", "staff"][..], "chat", 3), ("alice", &["research", "staff"], "embed", 1), ("bob", &["staff"], "chat", 2), ("carol", &[], "chat", 1)]
    {
        for _ in 0..times {
            history.observe(&entry(NOON, consumer, groups, route));
        }
    }
    history.observe(&entry(NOON - 24 * HOUR, "bob", &["staff"], "chat"));
    history.tick();
    assert_eq!(told(&ask(history, &[]).await), map([("", 8)]));
    assert_eq!(told(&ask(history, &[By::Consumer]).await), map([("alice", 4), ("bob", 3), ("carol", 1)]));
    // Whoever is in two groups counts in both of them, and once in all.
    assert_eq!(told(&ask(history, &[By::Group]).await), map([("-", 1), ("research", 4), ("staff", 7)]));
    assert_eq!(told(&ask(history, &[By::Day, By::Model]).await), map([("2026-11-27 chat", 1), ("2026-11-28 chat", 6), ("2026-11-28 embed", 1)]));
    assert_eq!(told(&ask(history, &[By::ModelUsed, By::Provider]).await), map([("chat-2026 openai", 7), ("embed-2026 openai", 1)]));
    let own = history.own(&"bob".into(), 1).await.unwrap().unwrap();
    assert_eq!(told(&own), map([("2026-11-28 chat", 2)]));
    assert_eq!(told(&history.own(&"bob".into(), 2).await.unwrap().unwrap()), map([("2026-11-27 chat", 1), ("2026-11-28 chat", 2)]));
    assert_eq!(told(&history.own(&"nobody".into(), 90).await.unwrap().unwrap()), BTreeMap::new());
    assert!(own.gaps.is_empty());
    // All buckets, and what went wrong.
    let broken = Entry { error: Some("broken off".into()), usage: None, cost: None, ..entry(NOON, "dave", &[], "chat") };
    for status in [200, 429, 499] {
        history.observe(&Entry { status, error: broken.error.clone().filter(|_| status == 200), ..broken.clone() });
    }
    history.observe(&Entry { client_left: true, ..entry(NOON, "dave", &[], "chat") });
    history.observe(&Entry { consumer: None, ..entry(NOON, "", &[], "chat") });
    let Report { rows, .. } = ask(history, &[By::Consumer]).await;
    let dave = rows.iter().find(|row| row.of(By::Consumer) == Some("dave")).unwrap();
    assert_eq!(dave.json(), serde_json::json!({ "consumer": "dave", "requests": 4, "failed": 3, "usage": { "input": 8, "cache_read": 2, "output": 4, "reasoning": 1 }, "cost": 0.000_000_015 }));
    assert_eq!(rows.iter().map(|row| row.sums.requests).sum::<u64>(), 12, "a stranger is nobody's");
}

#[tokio::test]
async fn absurd_figures_do_not_become_small_ones() {
    let place = Place::new();
    let history = files::open(&place, &clock());
    let usage = Some(Usage { input: u64::MAX, ..Usage::default() });
    for _ in 0..2 {
        history.observe(&Entry { usage, cost: Some(Nanodollars(u64::MAX)), ..entry(NOON, "alice", &[], "chat") });
    }
    let report = ask(&history, &[]).await;
    assert_eq!((report.rows[0].sums.input, report.rows[0].sums.nanodollars), (u64::MAX, u64::MAX));
    history.flush();
    drop(history);
    assert_eq!(ask(&files::open(&place, &clock()), &[]).await.rows, report.rows);
}

#[test]
fn memory_is_bounded_and_nobody_hides_the_others() {
    let tables = Tables::new(Bounds { keys: 500, of_consumer: 100 });
    let (today, now) = (Day::at(NOON), Duration::ZERO);
    let observe = |consumer: &str, model: &str| tables.observe(today, &Entry { model_used: Some(model.into()), ..entry(NOON, consumer, &["g"], "open/*") }, now);
    for n in 0..1000 {
        observe("alice", &format!("made-up-{n}"));
    }
    assert_eq!(tables.keys(today), 101);
    for n in 0..300 {
        observe(&format!("consumer-{n}"), "real");
    }
    assert_eq!(tables.keys(today), 401, "alice has not taken the place of others");
    for n in 300..10_000 {
        observe(&format!("consumer-{n}"), "real");
    }
    assert_eq!(tables.keys(today), 501);
    // A known key goes on being told apart.
    observe("consumer-7", "real");
    let Rows { rows, .. } = tables.rows(today, None).unwrap();
    assert_eq!(rows.iter().map(|(_, sums)| sums.requests).sum::<u64>(), 11_001, "nothing is lost");
    let of = |consumer: &str, model: &str| {
        let found = rows.iter().find(|(key, _)| key.consumer.as_deref() == Some(consumer) && key.model_used.as_deref() == Some(model));
        found.map(|(_, sums)| sums.requests)
    };
    assert_eq!((of("alice", OTHER), of(OTHER, OTHER), of("consumer-7", "real")), (Some(900), Some(9601), Some(2)));
    // What was lost has its place even then.
    tables.lost(today, 5, now);
    assert_eq!(tables.keys(today), 502);
}

#[tokio::test]
async fn too_many_rows_are_refused_and_not_gathered() {
    let place = Place::new();
    let history = files::open(&place, &clock());
    for n in 0..60_000 {
        history.observe(&entry(NOON, &format!("c{n}"), &["a", "b"], "chat"));
    }
    let query = |by: &[By]| Query { from: Day::at(0), to: history.today(), by: by.to_vec(), consumer: None };
    assert!(matches!(history.report(query(&[By::Consumer, By::Group])).await, Err(Error::TooMany)));
    assert_eq!(history.report(query(&[By::Group])).await.unwrap().rows.len(), 2);
}

#[tokio::test]
async fn there_is_a_history_where_it_makes_sense() {
    let place = Place::new();
    let folder = place.path().join("data");
    let config = |text: &str| crate::config::from_text(&format!("{text}\ndata: \"{}\"", folder.display()), &|_| None).unwrap();
    // Who only tries the gateway finds no files.
    for text in ["", "auth: { anonymous: true }", "usage: off\nconsumers: { a: { keys: [key-of-a-1] } }"] {
        assert!(renew(None, &config(text)).unwrap().is_none() && !folder.exists(), "{text}");
    }
    let history = renew(None, &config("consumers: { a: { keys: [key-of-a-1] } }")).unwrap().unwrap();
    assert_eq!(history.keep.load(Relaxed), 400);
    // A reload changes how long, and ends it.
    let same = renew(Some(history.clone()), &config("usage: { keep: 30d }")).unwrap().unwrap();
    assert!(Arc::ptr_eq(&history, &same));
    assert_eq!(history.keep.load(Relaxed), 30);
    assert!(renew(Some(same), &config("usage: off")).unwrap().is_none());
    // A folder that is another's is a problem for who asked for a history, and a warning for others.
    let refused = renew(None, &config("usage: { keep: 30d }")).unwrap_err();
    assert!(refused.to_string().starts_with("data: the history of usage cannot be kept: ") && refused.to_string().contains("another process"), "{refused}");
    assert!(renew(None, &config("groups: { g: {} }")).unwrap().is_none());
    drop(history);
    assert!(renew(None, &config("groups: { g: {} }")).unwrap().is_some());
}

#[test]
fn what_cannot_be_meant_is_said() {
    let read = |text: &str| crate::config::from_text(text, &|_| None);
    assert_eq!(check(&read("usage: { keep: 12h }").unwrap()).unwrap().to_string(), "usage.keep: must be at least 1d");
    assert!(check(&read("usage: { keep: 1d }").unwrap()).is_none() && check(&read("usage: {}").unwrap()).is_none());
    for (text, part) in [("usage: on", "must be `off` or a map"), ("usage: { kep: 1d }", "unknown field; did you mean `keep`"), ("usage: { keep: soon }", "duration")] {
        let problem = read(text).unwrap_err().remove(0);
        assert!(problem.path.starts_with("usage") && problem.message.contains(part), "{problem}");
    }
}
