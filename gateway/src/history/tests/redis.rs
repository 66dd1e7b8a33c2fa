//! The history in Redis: two replicas, Redis gone, back and empty, and what is left in it.

use super::*;
use crate::counters::suite::server::Server;
use crate::counters::suite::until;

fn open_at(url: String, clock: &Arc<Manual>) -> Arc<History> {
    let settings = crate::counters::redis::Settings { connect: Duration::from_secs(20), ..crate::counters::redis::Settings::new(url) };
    Arc::new(History::in_redis(&settings, 400, clock.clone()).unwrap())
}

fn open(server: &Server, clock: &Arc<Manual>) -> Arc<History> {
    open_at(server.url(), clock)
}

/// Redis knows everything that was counted here.
async fn told_all(history: &Arc<History>) {
    until("Redis knows everything", async || history.tables.is_written()).await;
}

async fn complete(history: &Arc<History>) {
    until("Redis answers", async || ask(history, &[]).await.gaps.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sums_are_exact_for_whoever_asks() {
    let (server, clock) = (Server::forgetful(), clock());
    let (one, two) = (open(&server, &clock), open(&server, &clock));
    complete(&one).await;
    all(&one).await;
    told_all(&one).await;
    complete(&two).await;
    assert_eq!(ask(&two, &By::ALL).await.rows, ask(&one, &By::ALL).await.rows);
    // A restart begins with nothing, and says so of itself alone.
    drop(one);
    let again = open(&server, &clock);
    complete(&again).await;
    again.observe(&entry(NOON, "bob", &["staff"], "chat"));
    again.close(Duration::from_secs(20)).await;
    assert_eq!(told(&two.own(&"bob".into(), 1).await.unwrap().unwrap()), map([("2026-11-28 chat", 3)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_are_as_one() {
    let (server, clock) = (Server::forgetful(), clock());
    let (one, two) = (open(&server, &clock), open(&server, &clock));
    for n in 0..3000 {
        one.observe(&entry(NOON, &format!("c{}", n % 700), &["g"], "chat"));
        two.observe(&entry(NOON, &format!("c{}", n % 600), &["g"], "chat"));
    }
    for history in [&one, &two] {
        complete(history).await;
        told_all(history).await;
    }
    let (from_one, from_two) = (ask(&one, &[By::Consumer]).await, ask(&two, &[By::Consumer]).await);
    assert_eq!(from_one.rows, from_two.rows);
    assert_eq!((from_one.rows.len(), requests(&one).await), (700, 6000));
    one.observe(&entry(NOON, "c0", &["g"], "chat"));
    assert_eq!(requests(&one).await, 6001, "who counted it knows at once");
    until("the other hears of it", async || requests(&two).await == 6001).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_cluster() {
    let (server, clock) = (Server::cluster(), clock());
    let history = open_at(server.cluster_url(), &clock);
    complete(&history).await;
    all(&history).await;
    told_all(&history).await;
    let other = open_at(server.cluster_url(), &clock);
    complete(&other).await;
    assert_eq!(ask(&other, &By::ALL).await.rows, ask(&history, &By::ALL).await.rows);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_gone_and_back_and_the_sums_are_exact() {
    let (mut server, clock) = (Server::durable(), clock());
    let (one, two) = (open(&server, &clock), open(&server, &clock));
    let count = |history: &Arc<History>, at: u64, times: usize| (0..times).for_each(|_| history.observe(&entry(at, "alice", &[], "chat")));
    count(&one, NOON, 5);
    complete(&one).await;
    told_all(&one).await;
    for outage in 0..2 {
        server.stop();
        count(&one, NOON, 7);
        count(&two, NOON + outage * 24 * HOUR, 11);
        let report = ask(&two, &[]).await;
        assert_eq!(report.gaps.len(), 1, "{report:?}");
        assert_eq!(report.rows[0].sums.requests, 11 * (outage + 1), "what it has in memory");
        server.again();
        count(&one, NOON, 1);
        told_all(&one).await;
        told_all(&two).await;
        complete(&one).await;
        complete(&two).await;
        let want = 5 + (outage + 1) * 19;
        clock.set((NOON + outage * 24 * HOUR) * 1000);
        assert_eq!((requests(&one).await, requests(&two).await), (want, want), "outage {outage}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_hangs_is_not_waited_for_by_who_counts() {
    let (server, clock) = (Server::forgetful(), clock());
    let history = open(&server, &clock);
    complete(&history).await;
    server.freeze();
    for _ in 0..10_000 {
        history.observe(&entry(NOON, "alice", &[], "chat"));
        history.tick();
    }
    server.thaw();
    told_all(&history).await;
    let other = open(&server, &clock);
    complete(&other).await;
    assert_eq!(requests(&other).await, 10_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_lost_its_data_is_told_of_today_again() {
    let (mut server, clock) = (Server::forgetful(), clock());
    let (one, two) = (open(&server, &clock), open(&server, &clock));
    for history in [&one, &two] {
        history.observe(&entry(NOON, "alice", &[], "chat"));
        complete(history).await;
        told_all(history).await;
    }
    server.stop();
    server.again();
    // Nothing happens here, and still it is told.
    until("both have told it again", async || {
        let third = ask(&one, &[]).await;
        third.gaps.is_empty() && server.say("KEYS *").contains("2026-11-28:alice") && server.say("HLEN {trivium}:usage:2026-11-28:alice").starts_with(":2")
    })
    .await;
    assert_eq!((requests(&one).await, requests(&two).await), (2, 2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_redis_ends_after_its_time() {
    let (server, clock) = (Server::forgetful(), clock());
    let history = open(&server, &clock);
    complete(&history).await;
    history.observe(&entry(NOON, "alice", &[], "chat"));
    history.lost(2);
    told_all(&history).await;
    let mut keys: Vec<String> = server.say("KEYS *").lines().filter(|line| line.starts_with('{')).map(str::to_owned).collect();
    keys.sort();
    assert_eq!(keys, ["{trivium}:usage:2026-11-28", "{trivium}:usage:2026-11-28:", "{trivium}:usage:2026-11-28:alice"]);
    for key in keys {
        let ends = server.say(&format!("EXPIRETIME {key}"));
        let ends: u64 = ends.lines().next().unwrap()[1..].parse().unwrap();
        assert_eq!(ends, day("2026-11-28").next().start() + 400 * 24 * HOUR, "{key}");
    }
    let other = open(&server, &clock);
    complete(&other).await;
    assert_eq!((ask(&other, &[]).await.rows[0].sums.lost, requests(&other).await), (2, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_a_gap() {
    let (server, clock) = (Server::forgetful(), clock());
    let history = open(&server, &clock);
    complete(&history).await;
    history.observe(&entry(NOON, "alice", &["g"], "chat"));
    told_all(&history).await;
    for (field, value) in [("nonsense", "[1]"), ("[\"x\",null,\"chat\",null,null]", "1")] {
        assert!(server.say(&format!("HSET {{trivium}}:usage:2026-11-28:alice '{field}' {value}")).starts_with(":1"));
    }
    let report = ask(&history, &[]).await;
    assert_eq!((report.rows[0].sums.requests, report.gaps, report.rows.len()), (1, vec!["2 lines of 2026-11-28 cannot be read".to_owned()], 1));
    // A replica that knows more figures than this one, or fewer.
    for (source, figures) in [("older", "[1,0,0,7]"), ("newer", "[1,0,0,7,0,0,0,0,0,0,0,5,99]")] {
        assert!(server.say(&format!("HSET {{trivium}}:usage:2026-11-28:bob '[\"{source}\",null,\"chat\",null,null]' {figures}")).starts_with(":1"));
    }
    let bob = history.own(&"bob".into(), 1).await.unwrap().unwrap();
    assert_eq!((bob.rows[0].sums.requests, bob.rows[0].sums.input, bob.rows[0].sums.nanodollars), (2, 14, 5));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn days_that_are_over_leave_memory_and_late_requests_still_count() {
    let (server, clock) = (Server::forgetful(), clock());
    let history = open(&server, &clock);
    complete(&history).await;
    history.observe(&entry(NOON, "alice", &[], "chat"));
    told_all(&history).await;
    clock.pass(Duration::from_secs(24 * HOUR));
    history.observe(&entry(NOON + 24 * HOUR, "alice", &[], "chat"));
    until("yesterday is forgotten", async || !history.tables.has(day("2026-11-28"))).await;
    history.observe(&entry(NOON, "alice", &[], "chat"));
    told_all(&history).await;
    assert_eq!(told(&ask(&history, &[By::Day]).await), map([("2026-11-28", 2), ("2026-11-29", 1)]));
    let other = open(&server, &clock);
    complete(&other).await;
    assert_eq!(told(&ask(&other, &[By::Day]).await), map([("2026-11-28", 2), ("2026-11-29", 1)]));
}
