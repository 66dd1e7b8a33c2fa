//! What must hold for purses, wherever they are counted.

mod journal;
mod memory;
mod redis;
#[allow(unreachable_pub, reason = "the end-to-end tests share the file, and reach it")]
pub(crate) mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use super::{Calendar, Claim, Counters, Lease, NEVER, Purse, Refused, Standing, Unit, Window, Zone};

pub(super) const HOUR: Duration = Duration::from_secs(3600);
const LEASE: Duration = Duration::from_secs(600);

pub(super) fn purse(key: &str, cap: u64, window: Window) -> Arc<Purse> {
    Arc::new(Purse { key: key.into(), unit: Unit::Tokens, cap, window })
}

fn sliding(key: &str, cap: u64) -> Arc<Purse> {
    purse(key, cap, Window::Sliding(HOUR))
}

async fn reserve(counters: &Counters, claims: &[(&Arc<Purse>, u64)]) -> Result<(Lease, Vec<Standing>), Refused> {
    let claims: Vec<Claim<'_>> = claims.iter().map(|&(purse, amount)| Claim { purse, amount }).collect();
    counters.reserve(&claims, LEASE).await
}

async fn lease(counters: &Counters, claims: &[(&Arc<Purse>, u64)]) -> Lease {
    reserve(counters, claims).await.unwrap().0
}

/// Used and reserved, once everything settled has arrived.
async fn stands(counters: &Counters, purse: &Arc<Purse>) -> (u64, u64) {
    settled(counters).await;
    let standing = counters.standing(std::slice::from_ref(purse)).await.remove(0);
    (standing.used, standing.reserved)
}

async fn settled(counters: &Counters) {
    if let Counters::Redis(redis) = counters {
        for _ in 0..3000 {
            if redis.is_up() && redis.is_settled() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("Redis was not told everything in 30 s");
    }
}

pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..1500 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not within 30 s: {what}");
}

/// The whole suite, over these counters of the same purses.
async fn all(counters: &[Arc<Counters>]) {
    all_or_nothing(&counters[0]).await;
    what_was_used_is_charged(&counters[0]).await;
    refusals_say_why(&counters[0]).await;
    every_window_counts(&counters[0]).await;
    two_claims_on_one_purse(&counters[0]).await;
    resets_and_top_ups(&counters[0]).await;
    caps_hold(counters).await;
}

async fn all_or_nothing(counters: &Counters) {
    let (wide, narrow) = (sliding("all/wide", 100), sliding("all/narrow", 10));
    let first = lease(counters, &[(&wide, 8), (&narrow, 8)]).await;
    let Err(Refused::Denied(denied)) = reserve(counters, &[(&wide, 3), (&narrow, 3)]).await else { panic!("granted beyond the cap") };
    assert_eq!((&*denied.purse.key, denied.used), ("all/narrow", 8));
    assert_eq!(stands(counters, &wide).await, (0, 8));
    counters.release(first);
    assert_eq!(stands(counters, &wide).await, (0, 0));
    assert_eq!(stands(counters, &narrow).await, (0, 0));
    let (nothing, standings) = reserve(counters, &[]).await.unwrap();
    assert!(standings.is_empty());
    counters.settle(nothing, &[]);
}

async fn what_was_used_is_charged(counters: &Counters) {
    let (a, b, c) = (sliding("used/a", 100), sliding("used/b", 100), sliding("used/c", 100));
    let (granted, standings) = reserve(counters, &[(&b, 50), (&a, 40), (&c, 30)]).await.unwrap();
    let seen: Vec<_> = standings.iter().map(|s| (&*s.purse.key, s.used, s.reserved, s.left)).collect();
    assert_eq!(seen, [("used/b", 0, 50, 50), ("used/a", 0, 40, 60), ("used/c", 0, 30, 70)]);
    let amounts: Vec<_> = granted.amounts().into_iter().map(|(purse, amount)| (purse.key.to_string(), amount)).collect();
    assert_eq!(amounts, [("used/b".into(), 50), ("used/a".into(), 40), ("used/c".into(), 30)]);
    // Less, more than the cap itself, and not said: then what was reserved.
    counters.settle(granted, &[7, 400]);
    assert_eq!(stands(counters, &b).await, (7, 0));
    assert_eq!(stands(counters, &a).await, (400, 0));
    assert_eq!(stands(counters, &c).await, (30, 0));
    assert!(reserve(counters, &[(&a, 1)]).await.is_err());
    let standing = counters.standing(&[a]).await.remove(0);
    assert_eq!(standing.left, 0);
    assert!(standing.resets_in > HOUR - Duration::from_secs(60) && standing.resets_in < HOUR + HOUR / 32, "{:?}", standing.resets_in);
}

async fn refusals_say_why(counters: &Counters) {
    let (minute, hour, none) = (purse("why/minute", 10, Window::Sliding(Duration::from_secs(600))), sliding("why/hour", 10), purse("why/none", 2, Window::None));
    let both = lease(counters, &[(&minute, 10), (&hour, 9)]).await;
    let Err(Refused::Denied(denied)) = reserve(counters, &[(&minute, 1)]).await else { panic!("granted") };
    assert!(denied.frees_in <= Duration::from_secs(1), "a reservation may be given back at any time");
    counters.settle(both, &[10, 10]);
    settled(counters).await;
    let Err(Refused::Denied(denied)) = reserve(counters, &[(&minute, 1), (&hour, 2)]).await else { panic!("granted") };
    assert_eq!((&*denied.purse.key, denied.used), ("why/hour", 10));
    assert!(denied.frees_in > Duration::from_secs(3000) && denied.frees_in < HOUR + HOUR / 32, "{:?}", denied.frees_in);
    let Err(Refused::Denied(denied)) = reserve(counters, &[(&minute, 11), (&hour, 1)]).await else { panic!("granted") };
    assert_eq!((&*denied.purse.key, denied.frees_in), ("why/minute", NEVER));
    let Err(Refused::Denied(denied)) = reserve(counters, &[(&none, 3)]).await else { panic!("granted") };
    assert_eq!(denied.frees_in, NEVER);
    let shut = sliding("why/shut", 0);
    assert!(reserve(counters, &[(&shut, 1)]).await.is_err());
    let free = lease(counters, &[(&shut, 0)]).await;
    counters.release(free);
}

async fn every_window_counts(counters: &Counters) {
    let zone = Zone::named("Europe/Berlin").unwrap();
    for (name, calendar) in [("hour", Calendar::Hour), ("day", Calendar::Day), ("week", Calendar::Week), ("month", Calendar::Month), ("every", Calendar::Every(HOUR * 1000))] {
        let fixed = purse(&format!("window/{name}"), 10, Window::Fixed(calendar, zone.clone()));
        // A window may end between two steps, and then the next one does not.
        for try_again in [true, false] {
            let first = lease(counters, &[(&fixed, 6)]).await;
            counters.settle(first, &[6]);
            settled(counters).await;
            if reserve(counters, &[(&fixed, 5)]).await.is_err() {
                break;
            }
            assert!(try_again, "{name} does not hold");
        }
        let standing = counters.standing(&[fixed]).await.remove(0);
        assert!(!standing.resets_in.is_zero() && standing.resets_in <= HOUR * 1000);
    }
    let concurrent = purse("window/concurrent", 2, Window::None);
    let (one, two) = (lease(counters, &[(&concurrent, 1)]).await, lease(counters, &[(&concurrent, 1)]).await);
    let Err(Refused::Denied(denied)) = reserve(counters, &[(&concurrent, 1)]).await else { panic!("granted") };
    assert_eq!((denied.used, denied.frees_in), (2, Duration::from_secs(1)));
    counters.settle(one, &[1]);
    assert_eq!(stands(counters, &concurrent).await, (0, 1));
    counters.release(two);
    assert_eq!(stands(counters, &concurrent).await, (0, 0));
}

async fn two_claims_on_one_purse(counters: &Counters) {
    let twice = sliding("twice", 10);
    assert!(reserve(counters, &[(&twice, 6), (&twice, 6)]).await.is_err());
    assert_eq!(stands(counters, &twice).await, (0, 0));
    let both = lease(counters, &[(&twice, 6), (&twice, 4)]).await;
    assert_eq!(stands(counters, &twice).await, (0, 10));
    counters.settle(both, &[1, 2]);
    assert_eq!(stands(counters, &twice).await, (3, 0));
}

async fn resets_and_top_ups(counters: &Counters) {
    for window in [Window::Sliding(HOUR), Window::Fixed(Calendar::Month, Zone::UTC)] {
        let purse = purse(&format!("reset/{window:?}"), 10, window);
        let full = lease(counters, &[(&purse, 10)]).await;
        counters.settle(full, &[10]);
        settled(counters).await;
        counters.top_up(&purse, 5).await.unwrap();
        let (held, standings) = reserve(counters, &[(&purse, 3)]).await.unwrap();
        assert_eq!((standings[0].used, standings[0].reserved, standings[0].left), (5, 3, 2));
        counters.reset(&purse).await.unwrap();
        assert_eq!(stands(counters, &purse).await, (0, 3));
        counters.settle(held, &[3]);
        assert_eq!(stands(counters, &purse).await, (3, 0));
        // More than was used: the purse then has more than its cap.
        counters.top_up(&purse, 20).await.unwrap();
        let large = lease(counters, &[(&purse, 27)]).await;
        assert!(reserve(counters, &[(&purse, 1)]).await.is_err());
        counters.release(large);
        settled(counters).await;
    }
}

/// The purses of `caps_hold`.
fn caps() -> Vec<Arc<Purse>> {
    let windows = [Window::Sliding(HOUR), Window::Fixed(Calendar::Every(HOUR * 24 * 365 * 100), Zone::UTC), Window::None];
    (0..6).map(|i| purse(&format!("caps/{i}"), 300 + 100 * i as u64, windows[i % 3].clone())).collect()
}

/// Many tasks reserve, settle and release at random. What they know to be granted is never more than what is, so it must
/// stay within every cap; and at the end the sums must be right.
async fn caps_hold(counters: &[Arc<Counters>]) {
    const TASKS: u64 = 16;
    const ROUNDS: u64 = 150;
    let purses = caps();
    let granted: Arc<Vec<AtomicI64>> = Arc::new((0..6).map(|_| AtomicI64::new(0)).collect());
    let spent: Arc<Vec<AtomicU64>> = Arc::new((0..6).map(|_| AtomicU64::new(0)).collect());
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let (counters, purses, granted, spent) = (counters[task as usize % counters.len()].clone(), purses.clone(), granted.clone(), spent.clone());
        tasks.spawn(async move {
            let mut random = fastrand::Rng::with_seed(task);
            let (mut open, mut grants) = (Vec::new(), 0);
            for _ in 0..ROUNDS {
                let mut chosen: Vec<usize> = (0..6).collect();
                random.shuffle(&mut chosen);
                chosen.truncate(random.usize(1..=5));
                let asked: Vec<(usize, u64)> = chosen.into_iter().map(|i| (i, random.u64(0..30))).collect();
                let claims: Vec<(&Arc<Purse>, u64)> = asked.iter().map(|(i, amount)| (&purses[*i], *amount)).collect();
                if let Ok((lease, _)) = reserve(&counters, &claims).await {
                    grants += 1;
                    for (i, amount) in &asked {
                        let now = granted[*i].fetch_add(*amount as i64, SeqCst) + *amount as i64;
                        assert!(now <= purses[*i].cap as i64, "{} has {now} of {}", purses[*i].key, purses[*i].cap);
                    }
                    open.push((lease, asked));
                }
                while open.len() > 4 || (!open.is_empty() && random.bool()) {
                    let (lease, asked) = open.swap_remove(random.usize(..open.len()));
                    let release = random.u8(..4) == 0;
                    let actual: Vec<u64> = asked.iter().map(|(_, amount)| if release { 0 } else { random.u64(0..=*amount) / 8 }).collect();
                    for ((i, amount), actual) in asked.iter().zip(&actual) {
                        let stays = if purses[*i].window == Window::None { 0 } else { *actual };
                        granted[*i].fetch_sub((*amount - stays) as i64, SeqCst);
                        spent[*i].fetch_add(stays, SeqCst);
                    }
                    if release {
                        counters.release(lease)
                    } else {
                        counters.settle(lease, &actual)
                    }
                    tokio::task::yield_now().await;
                }
            }
            for (lease, asked) in open {
                for (i, amount) in asked {
                    granted[i].fetch_sub(amount as i64, SeqCst);
                }
                counters.release(lease);
            }
            grants
        });
    }
    let grants: u64 = tasks.join_all().await.into_iter().sum();
    assert!(grants > 100, "only {grants} were granted");
    for counters in counters {
        settled(counters).await;
    }
    for (i, purse) in purses.iter().enumerate() {
        assert_eq!(stands(&counters[0], purse).await, (spent[i].load(SeqCst), 0), "{}", purse.key);
    }
}
