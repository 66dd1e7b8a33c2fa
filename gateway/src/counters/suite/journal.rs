//! Counters on disk: restarts, kills, torn and damaged files.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::super::clock::Manual;
use super::super::journal::{Error, OnCorrupt, Settings};
use super::super::{Claim, Counters, Memory, Purse, Window};
use super::server::Folder;
use super::{HOUR, all, caps, purse, sliding};

const START: u64 = 1_790_000_000_000;
const LEASE: Duration = Duration::from_secs(600);
const SOON: Duration = Duration::from_secs(30);

fn spend(memory: &Memory, purse: &Arc<Purse>, amount: u64) {
    let (lease, _) = memory.reserve(&[Claim { purse, amount }], LEASE).unwrap();
    memory.settle(lease, &[amount]);
}

fn used(memory: &Memory, purse: &Arc<Purse>) -> u64 {
    memory.standing(std::slice::from_ref(purse))[0].used
}

fn open(folder: &Folder) -> Memory {
    Memory::persisted(&Settings::new(folder.path())).unwrap()
}

fn file(folder: &Folder) -> PathBuf {
    folder.path().join("purses.journal")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn purses_hold_and_come_back() {
    let folder = Folder::new();
    let counters = Arc::new(Counters::Memory(open(&folder)));
    all(std::slice::from_ref(&counters)).await;
    assert!(counters.close(SOON).await);
    let keys = caps();
    let before: Vec<u64> = counters.standing(&keys).await.iter().map(|s| s.used).collect();
    drop(counters);
    let again = Counters::Memory(open(&folder));
    let after: Vec<u64> = again.standing(&keys).await.iter().map(|s| s.used).collect();
    assert_eq!(before, after);
    assert!(before[0] > 0);
}

#[test]
fn a_restart_refills_nothing_and_gives_back_reservations() {
    let folder = Folder::new();
    let (a, b) = (sliding("restart/a", 100), sliding("restart/b", 100));
    let memory = open(&folder);
    spend(&memory, &a, 30);
    spend(&memory, &b, 40);
    memory.reset(&b);
    let (open_lease, _) = memory.reserve(&[Claim { purse: &a, amount: 50 }], LEASE).unwrap();
    drop(memory);
    drop(open_lease);
    for _ in 0..3 {
        // Nobody asks for `b`, nor for `a` the first time: they stay on disk.
        drop(open(&folder));
    }
    let memory = open(&folder);
    assert_eq!(memory.standing(&[a, b]).iter().map(|s| (s.used, s.reserved)).collect::<Vec<_>>(), [(30, 0), (0, 0)]);
}

#[test]
fn buckets_come_back_each_in_its_place() {
    let folder = Folder::new();
    let clock = Arc::new(Manual::at(START));
    let open = || Memory::persisted_with_clock(&Settings::new(folder.path()), clock.clone()).unwrap();
    let purse = purse("buckets", 100, Window::Sliding(Duration::from_secs(64)));
    let memory = open();
    spend(&memory, &purse, 5);
    clock.pass(Duration::from_secs(30));
    spend(&memory, &purse, 7);
    // The clock goes back: the journal must not know the amount in two places.
    clock.set(START - 10_000);
    spend(&memory, &purse, 1);
    drop(memory);
    let memory = open();
    assert_eq!(used(&memory, &purse), 13);
    drop(memory);
    clock.pass(Duration::from_secs(66));
    assert_eq!(used(&open(), &purse), 0);
}

/// Not a test of its own: what `a_killed_process…` runs and kills.
#[test]
fn child() {
    let Some(folder) = std::env::var_os("COUNTERS_CHILD") else { return };
    let memory = Memory::persisted(&Settings::new(PathBuf::from(folder))).unwrap();
    let purse = sliding("killed", u64::MAX);
    let out = std::io::stdout();
    for total in 1.. {
        spend(&memory, &purse, 1);
        if total % 100 == 0 {
            assert!(memory.flush(SOON));
            writeln!(out.lock(), "\nkept {total}").unwrap();
        }
    }
}

#[test]
fn a_killed_process_loses_nothing_that_was_written() {
    let folder = Folder::new();
    let mut kept = 0;
    for round in 1..=3 {
        let me = std::env::current_exe().unwrap();
        let mut child =
            Command::new(me).args(["counters::suite::journal::child", "--exact", "--nocapture"]).env("COUNTERS_CHILD", folder.path()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mine: Vec<u64> = lines.filter_map(|line| line.strip_prefix("kept ")?.parse().ok()).take(5 * round).collect();
        child.kill().unwrap();
        child.wait().unwrap();
        kept += mine.last().unwrap();
        let memory = open(&folder);
        let now = used(&memory, &sliding("killed", u64::MAX));
        assert!(now >= kept, "{now} of {kept} after round {round}");
        kept = now;
    }
}

#[test]
fn a_torn_tail_is_passed_over() {
    let folder = Folder::new();
    let purse = sliding("torn", 100);
    let memory = open(&folder);
    spend(&memory, &purse, 20);
    assert!(memory.flush(SOON));
    let good = fs::metadata(file(&folder)).unwrap().len();
    spend(&memory, &purse, 5);
    drop(memory);
    let whole = fs::read(file(&folder)).unwrap();
    for end in good as usize..whole.len() {
        fs::write(file(&folder), &whole[..end]).unwrap();
        let strict = Settings { on_corrupt: OnCorrupt::Refuse, ..Settings::new(folder.path()) };
        assert_eq!(used(&Memory::persisted(&strict).unwrap(), &purse), 20, "cut at {end}");
    }
    fs::write(file(&folder), [&whole[..], &[0; 4096]].concat()).unwrap();
    assert_eq!(used(&open(&folder), &purse), 25);
}

#[test]
fn a_damaged_file_is_put_aside_or_refused() {
    let folder = Folder::new();
    let purses: Vec<_> = (0..10).map(|i| sliding(&format!("damaged/{i}"), 100)).collect();
    let memory = open(&folder);
    purses.iter().for_each(|purse| spend(&memory, purse, 10));
    drop(memory);
    let mut bytes = fs::read(file(&folder)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(file(&folder), &bytes).unwrap();
    let strict = Settings { on_corrupt: OnCorrupt::Refuse, ..Settings::new(folder.path()) };
    for _ in 0..2 {
        assert!(matches!(Memory::persisted(&strict), Err(Error::Corrupt { .. })));
    }
    let memory = open(&folder);
    let whole = purses.iter().filter(|purse| used(&memory, purse) == 10).count();
    assert_eq!(whole, 9, "all but the damaged one count");
    let aside = fs::read_dir(folder.path()).unwrap().flatten().find(|entry| entry.file_name().to_string_lossy().contains("corrupt-")).unwrap();
    assert_eq!(fs::read(aside.path()).unwrap(), bytes);
    drop(memory);
    for junk in [vec![7; 100_000], b"not ours".to_vec()] {
        fs::write(file(&folder), junk).unwrap();
        assert!(matches!(Memory::persisted(&strict), Err(Error::Corrupt { at: 0, .. })));
        drop(open(&folder));
    }
}

#[test]
fn a_folder_belongs_to_one_process() {
    let folder = Folder::new();
    let _first = open(&folder);
    assert!(matches!(Memory::persisted(&Settings::new(folder.path())), Err(Error::InUse(_))));
    let blocked = folder.path().join("file");
    OpenOptions::new().create(true).append(true).open(&blocked).unwrap();
    assert!(matches!(Memory::persisted(&Settings::new(blocked)), Err(Error::Io { .. })));
}

#[test]
fn the_file_stays_small_and_forgets_what_is_over() {
    let folder = Folder::new();
    let clock = Arc::new(Manual::at(START));
    let open = || Memory::persisted_with_clock(&Settings::new(folder.path()), clock.clone()).unwrap();
    let memory = open();
    let long = format!("small/{}", "x".repeat(60_000));
    let purse = sliding(&long, u64::MAX);
    for _ in 0..100 {
        spend(&memory, &purse, 1);
        assert!(memory.flush(SOON));
    }
    assert!(fs::metadata(file(&folder)).unwrap().len() < 2_000_000, "6 MB were written");
    drop(memory);
    // In its window the purse outlives a restart in which nobody asks for it; after it, it is gone.
    drop(open());
    assert!(fs::metadata(file(&folder)).unwrap().len() > 60_000);
    clock.pass(HOUR * 2);
    drop(open());
    assert!(fs::metadata(file(&folder)).unwrap().len() < 100);
}

#[test]
fn what_could_not_be_written_is_written_when_it_can() {
    let folder = Folder::new();
    let memory = open(&folder);
    let purse = sliding(&format!("full/{}", "x".repeat(60_000)), u64::MAX);
    // Stands where the new file would be made.
    fs::create_dir(folder.path().join("purses.new")).unwrap();
    let mut kept = 0;
    while memory.flush(Duration::from_millis(500)) {
        spend(&memory, &purse, 1);
        kept += 1;
        assert!(kept < 10_000, "the file is never written anew");
    }
    spend(&memory, &purse, 1);
    fs::remove_dir(folder.path().join("purses.new")).unwrap();
    assert!(memory.flush(SOON));
    drop(memory);
    assert_eq!(used(&open(&folder), &purse), kept + 1);
}
