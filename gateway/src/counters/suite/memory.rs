//! Counters in memory: the suite, and time.

use std::sync::Arc;
use std::time::Duration;

use super::super::clock::Manual;
use super::super::{Claim, Counters, Memory, Window};
use super::{all, caps_hold, purse, sliding};

const START: u64 = 1_790_000_000_000;

fn manual() -> (Arc<Manual>, Memory) {
    let clock = Arc::new(Manual::at(START));
    (clock.clone(), Memory::with_clock(clock))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn purses_hold() {
    let counters = [Arc::new(Counters::Memory(Memory::volatile()))];
    all(&counters).await;
    caps_hold(&[Arc::new(Counters::Memory(Memory::volatile()))]).await;
}

#[test]
fn a_forgotten_lease_expires_and_a_late_settlement_still_counts() {
    let (clock, memory) = manual();
    let purse = sliding("forgotten", 10);
    let claim = [Claim { purse: &purse, amount: 8 }];
    let (forgotten, _) = memory.reserve(&claim, Duration::from_secs(5)).unwrap();
    drop(forgotten);
    let denied = memory.reserve(&claim, Duration::from_secs(5)).unwrap_err();
    assert_eq!(denied.used, 8);
    clock.pass(Duration::from_secs(7));
    let (late, _) = memory.reserve(&claim, Duration::from_secs(5)).unwrap();
    clock.pass(Duration::from_secs(7));
    memory.sweep();
    let standing = memory.standing(std::slice::from_ref(&purse)).remove(0);
    assert_eq!((standing.used, standing.reserved), (0, 0));
    memory.settle(late, &[9]);
    let standing = memory.standing(std::slice::from_ref(&purse)).remove(0);
    assert_eq!((standing.used, standing.reserved), (9, 0));
}

#[test]
fn leases_expire_by_the_steady_clock_and_windows_by_the_wall() {
    let (clock, memory) = manual();
    let purse = purse("clocks", 10, Window::Sliding(Duration::from_secs(60)));
    let claim = [Claim { purse: &purse, amount: 5 }];
    let (used, _) = memory.reserve(&claim, Duration::from_secs(30)).unwrap();
    memory.settle(used, &[5]);
    let (held, _) = memory.reserve(&claim, Duration::from_secs(30)).unwrap();
    // Back a year: nothing is refilled, and nothing expires.
    clock.set(START - 31_536_000_000);
    assert_eq!(memory.reserve(&claim, Duration::from_secs(30)).unwrap_err().used, 10);
    // Forward a year: what was used is gone, the reservation is not, and settling charges once.
    clock.set(START + 31_536_000_000);
    let standing = memory.standing(std::slice::from_ref(&purse)).remove(0);
    assert_eq!((standing.used, standing.reserved), (0, 5));
    memory.settle(held, &[4]);
    clock.set(START);
    let standing = memory.standing(std::slice::from_ref(&purse)).remove(0);
    assert_eq!((standing.used, standing.reserved), (4, 0));
}

#[test]
fn sweeping_forgets_only_what_is_over() {
    let (clock, memory) = manual();
    for i in 0..100 {
        let purse = sliding(&format!("sweep/{i}"), 10);
        let (lease, _) = memory.reserve(&[Claim { purse: &purse, amount: 1 }], Duration::from_secs(1)).unwrap();
        memory.settle(lease, &[u64::from(i == 7)]);
    }
    memory.sweep();
    assert_eq!(memory.purses(), 1);
    clock.pass(super::HOUR * 2);
    memory.sweep();
    assert_eq!(memory.purses(), 0);
}

#[test]
fn absurd_amounts_neither_overflow_nor_free_anything() {
    let (_, memory) = manual();
    let purse = sliding("absurd", u64::MAX);
    let claim = [Claim { purse: &purse, amount: u64::MAX }];
    let (all, _) = memory.reserve(&claim, Duration::MAX).unwrap();
    assert!(memory.reserve(&[Claim { purse: &purse, amount: 1 }], Duration::MAX).is_err());
    memory.settle(all, &[u64::MAX]);
    for _ in 0..3 {
        let (more, _) = memory.hold(&claim, Duration::MAX);
        memory.settle(more, &[u64::MAX]);
    }
    let standing = memory.standing(std::slice::from_ref(&purse)).remove(0);
    assert!(standing.used >= i64::MAX.cast_unsigned());
}
