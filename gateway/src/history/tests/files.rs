//! The history in a folder: restarts, crashes at every byte, midnight, clocks that are set, full disks.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;

pub(super) fn open(place: &Place, clock: &Arc<Manual>) -> Arc<History> {
    Arc::new(History::in_folder(place.path(), 400, clock.clone()).unwrap())
}

fn files(place: &Place) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).filter(|name| name != "lock").collect();
    names.sort();
    names
}

fn file(place: &Place, name: &str) -> PathBuf {
    place.path().join(name)
}

fn lines(path: &Path) -> usize {
    fs::read_to_string(path).unwrap().lines().count()
}

#[tokio::test]
async fn sums_are_exact_in_memory_and_on_disk() {
    let (place, clock) = (Place::new(), clock());
    let history = open(&place, &clock);
    all(&history).await;
    history.flush();
    let before = ask(&history, &By::ALL).await;
    drop(history);
    let after = ask(&open(&place, &clock), &By::ALL).await;
    assert_eq!((before.rows, after.gaps.len()), (after.rows, 0));
}

#[tokio::test]
async fn it_is_written_once_a_second_and_only_what_changed() {
    let (place, clock) = (Place::new(), clock());
    let history = open(&place, &clock);
    let path = file(&place, "2026-11-28.open.jsonl");
    for n in 0..100 {
        history.observe(&entry(NOON, &format!("c{}", n % 10), &[], "chat"));
        history.tick();
        clock.pass(Duration::from_millis(1));
    }
    // The first tick writes at once, so that it is seen early whether that is possible.
    assert_eq!(lines(&path), 1);
    second(&clock);
    history.tick();
    assert_eq!(lines(&path), 11);
    history.observe(&entry(NOON, "c3", &[], "chat"));
    second(&clock);
    history.tick();
    second(&clock);
    history.tick();
    assert_eq!(lines(&path), 12);
    let last = fs::read_to_string(&path).unwrap().lines().last().unwrap().to_owned();
    assert_eq!(
        last,
        r#"{"day":"2026-11-28","key":{"consumer":"c3","route":"chat","provider":"openai","model_used":"chat-2026"},"sums":{"requests":11,"input":88,"cache_read":22,"output":44,"reasoning":11,"nanodollars":165}}"#
    );
    assert_eq!(requests(&history).await, 101);
}

#[tokio::test]
async fn a_crash_in_the_middle_of_a_write_loses_that_line_and_nothing_else() {
    let (place, clock) = (Place::new(), clock());
    let history = open(&place, &clock);
    for consumer in ["alice", "bob \"the\n\u{1F600}\"", "alice"] {
        history.observe(&entry(NOON, consumer, &["g"], "chat"));
        second(&clock);
        history.tick();
    }
    drop(history);
    let path = file(&place, "2026-11-28.open.jsonl");
    let whole = fs::read(&path).unwrap();
    let last = whole[..whole.len() - 1].iter().rposition(|b| *b == b'\n').unwrap() + 1;
    for cut in last..=whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        // The last line is about alice's second request. It counts if all but its end of line is there.
        let alice = if cut + 1 >= whole.len() { 2 } else { 1 };
        let history = open(&place, &clock);
        let report = ask(&history, &[]).await;
        assert_eq!((report.rows[0].sums.requests, report.gaps.len()), (alice + 1, usize::from(alice == 1 && cut > last)), "cut at {cut}");
        history.observe(&entry(NOON, "alice", &["g"], "chat"));
        history.observe(&entry(NOON, "carol", &["g"], "chat"));
        history.flush();
        drop(history);
        let history = open(&place, &clock);
        assert_eq!(ask(&history, &[By::Consumer]).await.rows.iter().map(|row| row.sums.requests).collect::<Vec<_>>(), [alice + 1, 1, 1], "cut at {cut}");
    }
}

#[tokio::test]
async fn a_file_that_lost_its_end_to_a_power_cut_is_read_as_far_as_it_goes() {
    let (place, clock) = (Place::new(), clock());
    let history = open(&place, &clock);
    history.observe(&entry(NOON, "alice", &[], "chat"));
    history.flush();
    drop(history);
    let path = file(&place, "2026-11-28.open.jsonl");
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend([0; 4096]);
    fs::write(&path, &bytes).unwrap();
    let history = open(&place, &clock);
    let report = ask(&history, &[]).await;
    assert_eq!((report.rows[0].sums.requests, report.gaps), (1, vec!["1 lines of 2026-11-28 cannot be read".to_owned()]));
    history.observe(&entry(NOON, "alice", &[], "chat"));
    history.flush();
    drop(history);
    assert_eq!(requests(&open(&place, &clock)).await, 2);
}

#[tokio::test]
async fn midnight_and_the_hour_after_it() {
    let (place, clock) = (Place::new(), clock());
    let midnight = NOON + 12 * HOUR;
    clock.set((midnight - 10) * 1000);
    let history = open(&place, &clock);
    history.observe(&entry(midnight - 1, "alice", &[], "chat"));
    second(&clock);
    history.tick();
    clock.pass(Duration::from_secs(20));
    history.observe(&entry(midnight, "alice", &[], "chat"));
    // It came before midnight and ended after it.
    history.observe(&entry(midnight - 2, "alice", &[], "chat"));
    history.tick();
    assert_eq!(files(&place), ["2026-11-28.open.jsonl", "2026-11-29.open.jsonl"]);
    let both = map([("2026-11-28", 2), ("2026-11-29", 1)]);
    assert_eq!(told(&ask(&history, &[By::Day]).await), both);
    clock.pass(Duration::from_secs(HOUR + 1));
    history.observe(&entry(midnight + HOUR, "alice", &[], "chat"));
    history.tick();
    assert_eq!(files(&place), ["2026-11-28.jsonl", "2026-11-29.open.jsonl"]);
    assert_eq!(lines(&file(&place, "2026-11-28.jsonl")), 1);
    assert!(!history.tables.has(day("2026-11-28")), "only days that go on are in memory");
    // A stream that ran for two hours.
    history.observe(&entry(midnight - 3, "bob", &[], "chat"));
    clock.pass(Duration::from_secs(2 * HOUR));
    history.tick();
    clock.pass(Duration::from_secs(60));
    history.tick();
    assert_eq!(told(&ask(&history, &[By::Day]).await), map([("2026-11-28", 3), ("2026-11-29", 2)]));
    assert_eq!(files(&place), ["2026-11-28.jsonl", "2026-11-29.open.jsonl"]);
    drop(history);
    assert_eq!(told(&ask(&open(&place, &clock), &[By::Day]).await), map([("2026-11-28", 3), ("2026-11-29", 2)]));
}

#[tokio::test]
async fn a_clock_that_is_set_back_goes_on_with_the_day_before() {
    let (place, clock) = (Place::new(), clock());
    let history = open(&place, &clock);
    for at in [NOON, NOON + 24 * HOUR, NOON, NOON - 24 * HOUR] {
        history.observe(&entry(at, "alice", &[], "chat"));
    }
    history.flush();
    drop(history);
    clock.set((NOON - 48 * HOUR) * 1000);
    let history = open(&place, &clock);
    history.observe(&entry(NOON - 24 * HOUR, "alice", &[], "chat"));
    history.observe(&entry(NOON - 48 * HOUR, "alice", &[], "chat"));
    clock.set((NOON + 24 * HOUR) * 1000);
    history.tick();
    let days = map([("2026-11-26", 1), ("2026-11-27", 2), ("2026-11-28", 2), ("2026-11-29", 1)]);
    assert_eq!(told(&ask(&history, &[By::Day]).await), days);
    drop(history);
    // A crash has left them all open; the start ends those that are over.
    let history = open(&place, &clock);
    assert_eq!(files(&place), ["2026-11-26.jsonl", "2026-11-27.jsonl", "2026-11-28.jsonl", "2026-11-29.open.jsonl"]);
    assert_eq!(told(&ask(&history, &[By::Day]).await), days);
}

#[tokio::test]
async fn a_crash_between_the_new_file_and_the_end_of_the_old_counts_nothing_twice() {
    let (place, clock) = (Place::new(), clock());
    let history = open(&place, &clock);
    for _ in 0..3 {
        history.observe(&entry(NOON, "alice", &[], "chat"));
        history.flush();
    }
    drop(history);
    let (old, new) = (file(&place, "2026-11-28.open.jsonl"), file(&place, "2026-11-28.jsonl"));
    let lines = fs::read(&old).unwrap();
    clock.pass(Duration::from_secs(24 * HOUR));
    drop(open(&place, &clock));
    assert!(new.exists() && !old.exists());
    fs::write(&old, &lines).unwrap();
    fs::write(file(&place, "new"), b"half a l").unwrap();
    let history = open(&place, &clock);
    assert_eq!(requests(&history).await, 3);
    assert_eq!(files(&place), ["2026-11-28.jsonl"], "a temporary file that was left is used up by the next");
}

#[tokio::test]
async fn a_long_file_is_made_short_while_the_day_goes_on() {
    let (place, clock) = (Place::new(), clock());
    let history = open(&place, &clock);
    for _ in 0..230 {
        for n in 0..300 {
            history.observe(&entry(NOON, &format!("c{n}"), &[], "chat"));
        }
        second(&clock);
        history.tick();
    }
    assert_eq!(lines(&file(&place, "2026-11-28.jsonl")), 300);
    let open_lines = lines(&file(&place, "2026-11-28.open.jsonl"));
    assert_eq!(open_lines % 300, 0);
    assert!(open_lines < 65_536 / 4, "{open_lines}");
    assert_eq!(requests(&history).await, 230 * 300);
    drop(history);
    let history = open(&place, &clock);
    assert_eq!(requests(&history).await, 230 * 300);
    history.observe(&entry(NOON, "c7", &[], "chat"));
    assert_eq!(told(&history.own(&"c7".into(), 1).await.unwrap().unwrap()), map([("2026-11-28 chat", 231)]));
}

#[tokio::test]
async fn old_days_are_deleted() {
    let (place, clock) = (Place::new(), clock());
    let history = open(&place, &clock);
    for back in [0, 1, 399, 400, 401, 500] {
        history.observe(&entry(NOON - back * 24 * HOUR, "alice", &[], "chat"));
    }
    history.flush();
    drop(history);
    fs::write(file(&place, "notes.txt"), "mine").unwrap();
    let history = open(&place, &clock);
    // Days beyond are not told of either, whether they are deleted yet or not.
    assert_eq!(requests(&history).await, 4);
    history.tick();
    assert_eq!(files(&place), ["2025-10-24.jsonl", "2025-10-25.jsonl", "2026-11-27.jsonl", "2026-11-28.open.jsonl", "notes.txt"]);
    clock.pass(Duration::from_secs(24 * HOUR));
    history.keep.store(1, Relaxed);
    history.tick();
    assert_eq!(files(&place), ["2026-11-28.open.jsonl", "notes.txt"]);
}

#[tokio::test]
async fn a_disk_that_is_full_for_a_while_loses_nothing() {
    let (place, clock) = (Place::new(), clock());
    let history = open(&place, &clock);
    history.observe(&entry(NOON, "alice", &[], "chat"));
    history.tick();
    let path = file(&place, "2026-11-28.open.jsonl");
    let kept = fs::read(&path).unwrap();
    // A folder in its place takes no lines.
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    for _ in 0..3 {
        history.observe(&entry(NOON, "alice", &[], "chat"));
        history.observe(&entry(NOON, "bob", &[], "chat"));
        second(&clock);
        history.tick();
        assert!(!history.tables.is_written());
    }
    assert_eq!(requests(&history).await, 7);
    fs::remove_dir(&path).unwrap();
    // And half a line is what a full disk leaves.
    fs::write(&path, [&kept[..], b"{\"day\":\"2026-"].concat()).unwrap();
    second(&clock);
    history.tick();
    assert!(history.tables.is_written());
    drop(history);
    let report = ask(&open(&place, &clock), &[By::Consumer]).await;
    assert_eq!((told(&report), report.gaps.len()), (map([("alice", 4), ("bob", 3)]), 1));
}

#[tokio::test]
async fn a_day_that_cannot_be_read_is_put_aside() {
    let (place, clock) = (Place::new(), clock());
    fs::create_dir(file(&place, "2026-11-28.jsonl")).unwrap();
    let history = open(&place, &clock);
    history.observe(&entry(NOON, "alice", &[], "chat"));
    history.flush();
    assert_eq!(files(&place), ["2026-11-28.open.jsonl", "2026-11-28.unreadable"]);
    assert_eq!(requests(&history).await, 1);
    // Who only asks for one is told so, and of the rest.
    fs::create_dir(file(&place, "2026-11-27.jsonl")).unwrap();
    let report = ask(&history, &[]).await;
    assert_eq!((report.rows[0].sums.requests, report.gaps.len()), (1, 1));
    assert!(report.gaps[0].starts_with("2026-11-27 cannot be read: "), "{:?}", report.gaps);
}

#[tokio::test]
async fn a_folder_is_one_process_own() {
    let (place, clock) = (Place::new(), clock());
    let history = open(&place, &clock);
    let refused = History::in_folder(place.path(), 400, clock.clone()).unwrap_err();
    assert!(matches!(refused, folder::Error::InUse(_)));
    drop(history);
    open(&place, &clock);
}

#[tokio::test]
async fn a_hundred_thousand_keys() {
    let (place, clock) = (Place::new(), clock());
    let history = open(&place, &clock);
    for round in 0..2 {
        for n in 0..100_000 {
            history.observe(&entry(NOON, &format!("consumer-{n}"), &[], "chat"));
        }
        if round == 0 {
            history.tick();
        }
    }
    history.flush();
    assert_eq!(requests(&history).await, 200_000);
    drop(history);
    clock.pass(Duration::from_secs(24 * HOUR));
    let history = open(&place, &clock);
    assert_eq!(lines(&file(&place, "2026-11-28.jsonl")), 100_000);
    assert_eq!(requests(&history).await, 200_000);
    assert_eq!(told(&history.own(&"consumer-4711".into(), 30).await.unwrap().unwrap()), map([("2026-11-28 chat", 2)]));
}

#[tokio::test]
async fn what_the_queue_had_no_room_for_is_told() {
    let (place, clock) = (Place::new(), clock());
    let history = open(&place, &clock);
    history.observe(&entry(NOON, "alice", &[], "chat"));
    history.lost(3);
    history.lost(4);
    history.flush();
    drop(history);
    let report = ask(&open(&place, &clock), &[By::Consumer]).await;
    assert_eq!(report.json()["rows"][0], serde_json::json!({ "consumer": null, "requests": 0, "failed": 0, "lost": 7, "usage": {}, "cost": 0 }));
    assert_eq!(report.rows[1].sums.lost, 0);
}

/// Requests by day and consumer.
type Model = BTreeMap<String, (u64, u64)>;

/// Whatever happens in whatever order: what was written is there, once.
#[tokio::test]
async fn any_course_of_events() {
    for seed in 0..40 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (place, clock) = (Place::new(), clock());
        let mut history = open(&place, &clock);
        let (mut seen, mut written) = (Model::new(), Model::new());
        for step in 0..300 {
            match random.u8(..20) {
                0..=11 => {
                    let at = clock.wall() / 1000 - random.u64(..2) * random.u64(..30 * HOUR);
                    let consumer = ["alice", "bob", "carol"][random.usize(..3)];
                    history.observe(&entry(at, consumer, &[], "chat"));
                    let sums = seen.entry(format!("{} {consumer}", Day::at(at))).or_default();
                    *sums = (sums.0 + 1, sums.1 + 15);
                }
                12..=14 => clock.pass(Duration::from_millis(random.u64(..3000))),
                15 => clock.pass(Duration::from_secs(random.u64(..5 * HOUR))),
                16 => clock.set(clock.wall() - random.u64(..26 * HOUR * 1000)),
                17..=18 => history.tick(),
                // The end of the process: killed, or in peace.
                _ => {
                    if random.bool() {
                        history.flush();
                    } else {
                        seen.clone_from(&written);
                    }
                    drop(history);
                    history = open(&place, &clock);
                }
            }
            if history.tables.is_written() {
                written.clone_from(&seen);
            }
            if step % 10 == 0 {
                clock.set(clock.wall().max(NOON * 1000));
                assert_eq!(told(&ask(&history, &[By::Day, By::Consumer]).await), seen, "seed {seed}, step {step}");
            }
        }
    }
}
