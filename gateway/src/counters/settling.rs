//! What Redis is told in the background: settlements, in whatever order, each until Redis has said that it has it.
//!
//! An operation may reach Redis twice and counts once. While Redis is away the queue waits; what does not fit in it, and what
//! was used without a lease in Redis, is added up by purse, so that an outage of any length takes a bounded amount of memory.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::link::{Ask, Failure, Line, Reply};
use super::redis::Shared;
use super::{Purse, signed};

/// How many settlements wait at most; beyond, only their sums are kept.
const QUEUE: usize = 16_384;
/// How many are under way at a time.
const BATCH: usize = 64;
/// How many purses are brought up to date in one operation.
const PURSES: usize = 32;
/// How often an operation that Redis refuses is tried: it may be something passing, like a cluster that is being moved.
const TRIES: u32 = 10;
/// How long Redis may take over an operation that nobody waits for.
const PATIENCE: Duration = Duration::from_secs(2);

/// One operation that Redis is to be told.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) id: String,
    /// The data set that the lease is in, empty where it is not known; `None` where there is no lease.
    pub(super) set: Option<Arc<str>>,
    pub(super) lines: Vec<Line>,
    tries: u32,
}

impl Operation {
    pub(super) fn new(id: String, set: Option<Arc<str>>, lines: Vec<Line>) -> Self {
        Self { id, set, lines, tries: 0 }
    }
}

/// Everything that Redis does not know yet.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    waiting: Mutex<Waiting>,
    pub(super) wake: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    operations: VecDeque<Operation>,
    owed: HashMap<Arc<str>, (Arc<Purse>, i64)>,
    under_way: usize,
}

impl Waiting {
    fn owe(&mut self, lines: &[Line]) {
        for Line { purse, used, .. } in lines.iter().filter(|line| line.used != 0) {
            let (_, sum) = self.owed.entry(purse.key.clone()).or_insert_with(|| (purse.clone(), 0));
            *sum = sum.saturating_add(*used);
        }
    }
}

impl Backlog {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The end of a lease.
    pub(super) fn push(&self, operation: Operation) {
        let mut waiting = self.lock();
        if waiting.operations.len() < QUEUE {
            waiting.operations.push_back(operation);
        } else {
            // It was never sent, so its sum can stand for it. Its lease ends by itself.
            waiting.owe(&operation.lines);
        }
        drop(waiting);
        self.wake.notify_one();
    }

    /// Amounts that were used without a lease in Redis.
    pub(super) fn owe(&self, lines: &[Line]) {
        self.lock().owe(lines);
        self.wake.notify_one();
    }

    /// Whether Redis knows everything.
    pub(super) fn is_empty(&self) -> bool {
        let waiting = self.lock();
        waiting.operations.is_empty() && waiting.owed.is_empty() && waiting.under_way == 0
    }

    /// The next operations to send.
    fn take(&self, new_id: impl FnOnce() -> String) -> Vec<Operation> {
        let mut waiting = self.lock();
        if waiting.operations.is_empty() && !waiting.owed.is_empty() {
            let keys: Vec<Arc<str>> = waiting.owed.keys().take(PURSES).cloned().collect();
            let owed = keys.iter().filter_map(|key| waiting.owed.remove(key));
            let lines = owed.map(|(purse, used)| Line { purse, amount: 0, used }).collect();
            waiting.operations.push_back(Operation::new(new_id(), None, lines));
        }
        let count = waiting.operations.len().min(BATCH);
        waiting.under_way = count;
        waiting.operations.drain(..count).collect()
    }

    /// These are to be sent again.
    fn back(&self, operations: Vec<Operation>) {
        let mut waiting = self.lock();
        waiting.under_way = 0;
        operations.into_iter().rev().for_each(|operation| waiting.operations.push_front(operation));
    }
}

/// Tells Redis, for as long as the process lives.
pub(super) async fn run(shared: Arc<Shared>) {
    loop {
        if !shared.is_up() {
            recover(&shared).await;
        }
        let operations = shared.backlog.take(|| shared.new_id());
        if operations.is_empty() {
            shared.backlog.wake.notified().await;
        } else if let Err(failure) = deliver(&shared, operations).await {
            shared.go_down(&failure);
        }
    }
}

/// Waits for Redis and tells it all that happened meanwhile, before anybody relies on what it says again.
async fn recover(shared: &Arc<Shared>) {
    let mut pause = Duration::from_millis(50);
    loop {
        if shared.link.is_connected() && recall(shared).await.is_ok() && drain(shared).await {
            return shared.go_up();
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

/// Asks Redis which data it holds. If they are others than before it has lost what it counted: it is told what we knew to be
/// used, before what we still have to tell it, which is not in that. What was reserved is not reserved again. An operation
/// that it had done but could not confirm any more counts twice if another replica has seen its sum: rather that than never.
async fn recall(shared: &Shared) -> Result<(), Failure> {
    let Reply::Counted { set, .. } = shared.link.call(Ask::Standing, &shared.new_id(), &[], PATIENCE).await? else { return Err(Failure::Gone) };
    if !shared.knows(&set) {
        let lines: Vec<Line> = shared.mirror.known().into_iter().map(|(purse, used)| Line { purse, amount: 0, used }).collect();
        tracing::error!(purses = lines.len(), "Redis has lost what it counted. It is told again what this gateway knew; it should keep its data (`appendonly yes`).");
        let mut sums = Vec::with_capacity(lines.len());
        for lines in lines.chunks(PURSES) {
            if let Reply::Counted { counts, .. } = shared.link.call(Ask::Recall, &shared.new_id(), lines, PATIENCE).await? {
                sums.extend(counts.iter().map(|counts| counts.used));
            }
        }
        // They hold what others have told too, and what came to the new data before we knew of them. Not taken in before all is
        // told, for who is interrupted tells the same again.
        lines.iter().zip(sums).for_each(|(line, sum)| shared.mirror.told(&line.purse, 0, Some(sum)));
    }
    shared.know(set);
    Ok(())
}

async fn drain(shared: &Arc<Shared>) -> bool {
    loop {
        let operations = shared.backlog.take(|| shared.new_id());
        if operations.is_empty() {
            return true;
        }
        if deliver(shared, operations).await.is_err() {
            return false;
        }
    }
}

/// Sends these operations at once. Those that did not arrive go back to the queue.
async fn deliver(shared: &Arc<Shared>, operations: Vec<Operation>) -> Result<(), Failure> {
    let mut sent = JoinSet::new();
    for operation in operations {
        let shared = shared.clone();
        sent.spawn(async move {
            let ask = operation.set.as_deref().map_or(Ask::Add, |set| Ask::Settle { set });
            let result = shared.link.call(ask, &operation.id, &operation.lines, PATIENCE).await;
            (operation, result)
        });
    }
    let (mut again, mut down) = (Vec::new(), None);
    while let Some(joined) = sent.join_next().await {
        // A task is only ever cancelled together with this one.
        let Ok((mut operation, result)) = joined else { continue };
        match result {
            Ok(Reply::Counted { set, counts, .. }) => {
                let knows = shared.knows(&set);
                if !knows {
                    down = Some(Failure::Lost);
                }
                for (Line { purse, used, .. }, counts) in operation.lines.iter().zip(counts) {
                    shared.mirror.told(purse, *used, knows.then_some(counts.used));
                }
            }
            Ok(Reply::Denied { .. }) => {}
            Err(Failure::Refused(reason)) => {
                operation.tries += 1;
                if operation.tries < TRIES {
                    again.push(operation);
                } else {
                    let amounts: Vec<_> = operation.lines.iter().map(|line| (&*line.purse.key, line.used)).collect();
                    tracing::error!(reason, ?amounts, "Redis does not take these amounts; they are not counted.");
                    operation.lines.iter().for_each(|line| shared.mirror.told(&line.purse, line.used, None));
                }
            }
            Err(failure) => {
                down = Some(failure);
                again.push(operation);
            }
        }
    }
    shared.backlog.back(again);
    down.map_or(Ok(()), Err)
}

/// What a lease comes to, as lines of an operation.
pub(super) fn lines<'a>(parts: impl Iterator<Item = (&'a Arc<Purse>, u64, u64)>) -> Vec<Line> {
    parts.map(|(purse, amount, used)| Line { purse: purse.clone(), amount, used: signed(used) }).collect()
}
