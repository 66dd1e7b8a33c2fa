//! Counters in Redis: the suite over one, over two replicas and over a cluster; and Redis being slow, gone, back and empty.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::clock::Manual;
use super::super::redis::Settings;
use super::super::{Calendar, Claim, Counters, Purse, Redis, Refused, WhenDown, Window, Zone};
use super::server::Server;
use super::{all, caps_hold, lease, purse, reserve, settled, sliding, stands, until};

/// The machine that runs the tests may be slow, so Redis may take its time unless the test is about that.
fn settings(server: &Server) -> Settings {
    Settings { wait: Duration::from_secs(20), ..Settings::new(server.url()) }
}

async fn connect(settings: &Settings) -> Arc<Counters> {
    let redis = Redis::connect(settings).await.unwrap();
    Arc::new(Counters::Redis(redis))
}

fn is_up(counters: &Counters) -> bool {
    matches!(counters, Counters::Redis(redis) if redis.is_up())
}

async fn spend(counters: &Counters, purse: &Arc<Purse>, amount: u64) -> bool {
    match reserve(counters, &[(purse, amount)]).await {
        Ok((lease, _)) => {
            counters.settle(lease, &[amount]);
            true
        }
        Err(_) => false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn purses_hold() {
    let server = Server::forgetful();
    all(&[connect(&settings(&server)).await]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_replicas_are_as_one() {
    let server = Server::forgetful();
    let two = [connect(&settings(&server)).await, connect(&settings(&server)).await];
    caps_hold(&two).await;
    let purse = sliding("two", 10);
    let first = lease(&two[0], &[(&purse, 6)]).await;
    assert!(reserve(&two[1], &[(&purse, 5)]).await.is_err());
    two[0].settle(first, &[2]);
    settled(&two[0]).await;
    assert_eq!(stands(&two[1], &purse).await, (2, 0));
    assert!(two[0].close(Duration::from_secs(20)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn purses_hold_on_a_cluster() {
    let server = Server::cluster();
    let settings = Settings { url: server.cluster_url(), ..settings(&server) };
    all(&[connect(&settings).await, connect(&settings).await]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crashed_replica_gives_back_what_it_reserved() {
    let server = Server::forgetful();
    let (crashing, other) = (connect(&settings(&server)).await, connect(&settings(&server)).await);
    let purse = sliding("crash", 10);
    let (held, _) = crashing.reserve(&[Claim { purse: &purse, amount: 10 }], Duration::from_secs(2)).await.unwrap();
    assert!(reserve(&other, &[(&purse, 1)]).await.is_err());
    until("the lease has expired", async || stands(&other, &purse).await == (0, 0)).await;
    // It was only slow: what it used counts all the same, once.
    crashing.settle(held, &[4]);
    settled(&crashing).await;
    assert_eq!(stands(&other, &purse).await, (4, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_that_redis_forgot_is_sent_again() {
    let server = Server::forgetful();
    let counters = connect(&settings(&server)).await;
    assert!(server.say("SCRIPT FLUSH").starts_with("+OK"));
    assert!(spend(&counters, &sliding("script", 10), 3).await);
    assert_eq!(stands(&counters, &sliding("script", 10)).await, (3, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn windows_follow_redis_and_not_a_replica_with_a_wrong_clock() {
    let server = Server::forgetful();
    let right = connect(&settings(&server)).await;
    let wrong = Redis::connect_with_clock(&settings(&server), Arc::new(Manual::at(1_000_000_000_000))).await.unwrap();
    let wrong = Counters::Redis(wrong);
    for (name, window) in [("sliding", Window::Sliding(super::HOUR)), ("fixed", Window::Fixed(Calendar::Month, Zone::UTC))] {
        let purse = purse(name, 10, window);
        assert!(spend(&wrong, &purse, 4).await);
        settled(&wrong).await;
        assert_eq!(stands(&right, &purse).await, (4, 0));
        assert!(spend(&right, &purse, 5).await);
        assert_eq!(stands(&right, &purse).await, (9, 0));
        assert!(!spend(&wrong, &purse, 2).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_window_frees_itself() {
    let server = Server::forgetful();
    let counters = connect(&settings(&server)).await;
    let purse = purse("short", 10, Window::Sliding(Duration::from_millis(700)));
    for _ in 0..3 {
        assert!(spend(&counters, &purse, 10).await);
        settled(&counters).await;
        until("the window is over", async || stands(&counters, &purse).await == (0, 0)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_gone_and_back_and_the_bill_is_right() {
    let mut server = Server::durable();
    let two = [connect(&settings(&server)).await, connect(&settings(&server)).await];
    let purse = sliding("outage", 100);
    assert!(spend(&two[1], &purse, 20).await);
    settled(&two[1]).await;
    assert!(spend(&two[0], &purse, 10).await);
    settled(&two[0]).await;
    let over = lease(&two[0], &[(&purse, 30)]).await;
    server.stop();
    // The first replica goes on from 30 used and its own 30 reserved.
    let local = lease(&two[0], &[(&purse, 25)]).await;
    assert!(!is_up(&two[0]));
    assert!(reserve(&two[0], &[(&purse, 16)]).await.is_err());
    two[0].settle(over, &[7]);
    two[0].settle(local, &[11]);
    let later = lease(&two[0], &[(&purse, 5)]).await;
    assert!(two[0].top_up(&purse, 1).await.is_err());
    assert_eq!(two[0].standing(std::slice::from_ref(&purse)).await[0].used, 48);
    server.again();
    settled(&two[0]).await;
    assert_eq!(stands(&two[1], &purse).await, (48, 0));
    // A lease of the outage that ends after it.
    two[0].settle(later, &[2]);
    settled(&two[0]).await;
    assert_eq!(stands(&two[1], &purse).await, (50, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_lost_its_data_still_hears_of_calls_under_way() {
    let mut server = Server::forgetful();
    let counters = connect(&settings(&server)).await;
    let purse = sliding("lost", 100);
    let held = lease(&counters, &[(&purse, 30)]).await;
    server.stop();
    server.again();
    until("the loss was noticed", async || {
        let _ = reserve(&counters, &[(&sliding("other", 1), 0)]).await.map(|(lease, _)| counters.release(lease));
        is_up(&counters)
    })
    .await;
    counters.settle(held, &[12]);
    assert_eq!(stands(&counters, &purse).await, (12, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_lost_its_data_is_told_what_was_used() {
    let mut server = Server::forgetful();
    let two = [connect(&settings(&server)).await, connect(&settings(&server)).await];
    let (hour, month) = (sliding("told/hour", 200), purse("told/month", 200, Window::Fixed(Calendar::Month, Zone::UTC)));
    let claims = [(&hour, 10), (&month, 10)];
    let mut total = 0;
    // Emptied while everybody is connected, gone and back empty, and emptied by somebody again.
    for loss in ["FLUSHALL", "", "FLUSHALL"] {
        // When they reserve neither knows what the other uses; the last to settle knows all.
        let (a, b) = (lease(&two[0], &claims).await, lease(&two[1], &claims).await);
        two[0].settle(a, &[7, 7]);
        settled(&two[0]).await;
        two[1].settle(b, &[5, 5]);
        settled(&two[1]).await;
        let (held, other) = (lease(&two[0], &claims).await, lease(&two[1], &claims).await);
        if loss.is_empty() {
            server.stop();
            server.again();
        } else {
            assert!(server.say(loss).starts_with("+OK"));
        }
        // These come to the new data as new amounts, and are not told a second time with what was known.
        two[0].settle(held, &[3, 3]);
        two[1].settle(other, &[4, 4]);
        total += 7 + 5 + 3 + 4;
        for (i, purse) in [&hour, &month, &hour, &month].into_iter().enumerate() {
            until("all is told again", async || is_up(&two[i / 2]) && stands(&two[i / 2], purse).await == (total, 0)).await;
        }
    }
    // Emptied twice, and nobody reserves in between: what came to the data before the loss was noticed is known all the same.
    let held = lease(&two[0], &claims).await;
    server.say("FLUSHALL");
    two[0].settle(held, &[2, 2]);
    total += 2;
    for _ in 0..2 {
        until("all is told once more", async || is_up(&two[0]) && stands(&two[0], &hour).await == (total, 0)).await;
        server.say("FLUSHALL");
    }
    until("all is told again", async || is_up(&two[0]) && stands(&two[0], &hour).await == (total, 0)).await;
    assert!(reserve(&two[0], &[(&hour, 200 - total + 1)]).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_cannot_write_is_away_and_loses_nothing() {
    let server = Server::forgetful();
    let counters = connect(&settings(&server)).await;
    let purse = sliding("full", 100);
    let held = lease(&counters, &[(&purse, 30)]).await;
    // Its folder is gone, so that it cannot save, and then it takes no writes: as with a full disk.
    let folder = server.say("CONFIG GET dir").lines().rfind(|line| line.starts_with('/')).unwrap().to_owned();
    std::fs::remove_dir_all(folder).unwrap();
    server.say("CONFIG SET save \"3600 1\"");
    server.say("BGSAVE");
    until("saving has failed", async || server.say("INFO persistence").contains("rdb_last_bgsave_status:err")).await;
    assert!(server.say("SET a b").starts_with("-MISCONF"));
    counters.settle(held, &[12]);
    until("that is noticed", async || !is_up(&counters)).await;
    server.say("CONFIG SET stop-writes-on-bgsave-error no");
    assert_eq!(stands(&counters, &purse).await, (12, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_it_is_as_the_operator_says() {
    let mut server = Server::durable();
    let purse = sliding("down", 10);
    server.stop();
    let down = |when_down| Settings { when_down, connect: Duration::from_millis(300), ..settings(&server) };
    let deny = connect(&down(WhenDown::Deny)).await;
    assert!(matches!(reserve(&deny, &[(&purse, 1)]).await, Err(Refused::Unavailable)));
    let allow = connect(&down(WhenDown::Allow)).await;
    assert!(spend(&allow, &purse, 25).await);
    let local = connect(&down(WhenDown::Local)).await;
    assert!(spend(&local, &purse, 8).await);
    assert!(!spend(&local, &purse, 8).await);
    server.again();
    settled(&allow).await;
    settled(&local).await;
    settled(&deny).await;
    assert_eq!(stands(&deny, &purse).await, (33, 0));
    assert!(!spend(&deny, &purse, 1).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_hangs_holds_nobody_up() {
    let server = Server::forgetful();
    let (wait, connect_in) = (Duration::from_millis(50), Duration::from_secs(2));
    let hasty = connect(&Settings { wait, connect: connect_in, ..Settings::new(server.url()) }).await;
    let purse = sliding("hang", 1000);
    server.freeze();
    let start = Instant::now();
    for _ in 0..200 {
        assert!(spend(&hasty, &purse, 1).await);
    }
    // Three waits, not two hundred: generous for a busy machine.
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert!(!is_up(&hasty));
    server.thaw();
    // Reservations that nobody waited for are not made late, or taken back.
    until("all 200 arrived, and nothing stays reserved", async || is_up(&hasty) && stands(&hasty, &purse).await == (200, 0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_while_reserving_holds_nothing() {
    let server = Server::forgetful();
    let counters = connect(&settings(&server)).await;
    let purse = sliding("leaves", 10);
    server.freeze();
    let claim = [Claim { purse: &purse, amount: 10 }];
    assert!(tokio::time::timeout(Duration::from_millis(30), counters.reserve(&claim, super::LEASE)).await.is_err());
    server.thaw();
    settled(&counters).await;
    assert_eq!(stands(&counters, &purse).await, (0, 0));
}

#[tokio::test]
async fn a_url_that_is_none_is_said_so_without_its_password() {
    for url in ["", "not a url", "redis://:hunter2@127.0.0.1:notaport", "http://:hunter2@127.0.0.1"] {
        if let Err(error) = Redis::connect(&Settings { connect: Duration::from_millis(50), ..Settings::new(url) }).await {
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}
