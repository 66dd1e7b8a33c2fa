//! The history in Redis, where all replicas write it. Each says how its own sums stand, under a name of its own, so that
//! saying it twice changes nothing and nobody writes over another; who reads adds the replicas up.
//!
//! A connection of its own, so that a large piece of history never stands before a reservation. While Redis is away nothing
//! is lost: sums are in memory, and what it does not know yet is told when it is back.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use fred::clients::{Client, Pipeline, WithOptions};
use fred::error::{Error, ErrorKind};
use fred::interfaces::{ClientLike, EventInterface, HashesInterface, KeysInterface, SetsInterface};
use fred::types::Value;
use fred::types::config::Options;
use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinHandle;

use super::Day;
use super::day::SECONDS;
use super::sums::{Key, Row, Sums, Tables};
use crate::counters::clock::Clock;

/// How often Redis is told at most.
const PACE: Duration = Duration::from_secs(1);
/// Most rows, or consumers, in one round trip.
const BATCH: usize = 500;
/// How long Redis may take over a batch.
const PATIENCE: Duration = Duration::from_secs(2);

/// The history of all replicas.
#[derive(Debug)]
pub(super) struct Replicas {
    link: Link,
    worker: JoinHandle<()>,
}

#[derive(Clone, Debug)]
struct Link {
    client: Client,
    /// In braces, so that all keys live in one slot of a cluster.
    tag: String,
    /// There is something to tell.
    news: Arc<Notify>,
    /// Somebody waits for it.
    hurry: Arc<Notify>,
}

/// A row that Redis has: which table it is from, and what it says.
pub(super) type Said = (Arc<str>, Key, Sums);

impl Replicas {
    /// Begins to tell Redis what changes in the tables. To be called within a runtime.
    pub(super) fn start(client: Client, prefix: &str, tables: Tables, keep: Arc<AtomicU32>, clock: Arc<dyn Clock>) -> Self {
        let link = Link { client, tag: format!("{{{prefix}}}"), news: Arc::default(), hurry: Arc::default() };
        let worker = tokio::spawn(run(link.clone(), tables, keep, clock));
        Replicas { link, worker }
    }

    /// There is something to tell.
    pub(super) fn news(&self) {
        self.link.news.notify_one();
    }

    /// Waits until Redis knows everything, and hangs up.
    pub(super) async fn close(&self, tables: &Tables, within: Duration) -> bool {
        let told = async {
            while !tables.is_written() {
                self.link.news.notify_one();
                self.link.hurry.notify_one();
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let all = tokio::time::timeout(within, told).await.is_ok();
        self.worker.abort();
        // Gone is gone, whether or not Redis said goodbye.
        let _ = tokio::time::timeout(Duration::from_millis(100), self.link.client.quit()).await;
        all
    }

    /// What Redis has of a day: of everybody, or of one consumer. `None` if it does not answer.
    pub(super) async fn read(&self, day: Day, consumer: Option<&str>) -> Option<Found> {
        if !self.link.client.is_connected() {
            return None;
        }
        let found = self.link.read(day, consumer).await;
        found.inspect_err(|error| tracing::warn!(error = error.details(), "Redis does not tell the history of usage.")).ok()
    }
}

impl Drop for Replicas {
    fn drop(&mut self) {
        self.worker.abort();
    }
}

/// Tells Redis what has changed, for as long as there is a history. Sleeps while nothing does.
async fn run(link: Link, tables: Tables, keep: Arc<AtomicU32>, clock: Arc<dyn Clock>) {
    let mut back = link.client.reconnect_rx();
    let mut failing = false;
    loop {
        tokio::select! {
            () = link.news.notified() => {}
            event = back.recv() => match event {
                // It may have lost what it was told.
                Ok(_) | Err(RecvError::Lagged(_)) => tables.again(),
                Err(RecvError::Closed) => return,
            }
        }
        let mut pause = true;
        while !tables.is_written() {
            if std::mem::replace(&mut pause, true) {
                tokio::select! {
                    () = tokio::time::sleep(PACE) => {}
                    () = link.hurry.notified() => {}
                }
            }
            match link.tell(&tables, keep.load(Relaxed)).await {
                Ok(all) => {
                    pause = all;
                    if std::mem::replace(&mut failing, false) {
                        tracing::info!("Redis takes the history of usage again.");
                    }
                }
                Err(reason) => {
                    if !std::mem::replace(&mut failing, true) {
                        tracing::error!(reason, "Redis does not take the history of usage; it is kept in memory and tried again.");
                    }
                }
            }
        }
        let now = clock.steady();
        tables.over(now).into_iter().for_each(|day| tables.forget(day));
    }
}

impl Link {
    /// Tells a batch. Says whether that was all.
    async fn tell(&self, tables: &Tables, keep: u32) -> Result<bool, String> {
        if !self.client.is_connected() {
            return Err("there is no connection".into());
        }
        let rows = tables.take(BATCH);
        match self.send(&rows, keep).await {
            Ok(()) => {
                tables.written(rows.len());
                Ok(rows.len() < BATCH)
            }
            Err(error) => {
                tables.back(rows);
                Err(error.details().to_owned())
            }
        }
    }

    async fn send(&self, rows: &[Row], keep: u32) -> Result<(), Error> {
        let mut hashes: BTreeMap<(Day, &str), HashMap<String, String>> = BTreeMap::new();
        for Row { day, source, key, sums } in rows {
            let (field, value) = written(source, key, sums).map_err(|e| Error::new(ErrorKind::InvalidArgument, e.to_string()))?;
            hashes.entry((*day, key.consumer.as_deref().unwrap_or_default())).or_default().insert(field, value);
        }
        let pipeline = self.pipeline();
        for ((day, consumer), fields) in hashes {
            let end = i64::try_from(day.next().start() + u64::from(keep) * SECONDS).unwrap_or(i64::MAX);
            let (list, hash) = (self.list(day), self.hash(day, consumer));
            let _: () = pipeline.sadd(&list, consumer).await?;
            let _: () = pipeline.hset(&hash, fields).await?;
            let _: () = pipeline.expire_at(list, end, None).await?;
            let _: () = pipeline.expire_at(hash, end, None).await?;
        }
        let _: Value = pipeline.all().await?;
        Ok(())
    }

    async fn read(&self, day: Day, consumer: Option<&str>) -> Result<Found, Error> {
        let consumers: Vec<String> = match consumer {
            Some(name) => vec![name.to_owned()],
            None => self.client.with_options(&options()).smembers(self.list(day)).await?,
        };
        let mut found = Found::default();
        for batch in consumers.chunks(BATCH) {
            let pipeline = self.pipeline();
            for consumer in batch {
                let _: () = pipeline.hgetall(self.hash(day, consumer)).await?;
            }
            let answers: Value = pipeline.all().await?;
            for (hash, consumer) in answers.into_array().into_iter().zip(batch) {
                for (field, value) in hash.convert::<HashMap<String, String>>()? {
                    match read(consumer, &field, &value) {
                        Ok(said) => found.said.push(said),
                        Err(_) => found.damaged += 1,
                    }
                }
            }
        }
        Ok(found)
    }

    fn pipeline(&self) -> WithOptions<Pipeline<Client>> {
        self.client.pipeline().with_options(&options())
    }

    /// Who has used something on a day.
    fn list(&self, day: Day) -> String {
        format!("{}:usage:{day}", self.tag)
    }

    /// What one of them has used: a consumer that asks for its own does not make Redis walk through everybody's.
    fn hash(&self, day: Day, consumer: &str) -> String {
        format!("{}:usage:{day}:{consumer}", self.tag)
    }
}

/// What Redis has of a day.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) said: Vec<Said>,
    /// Fields that cannot be read.
    pub(super) damaged: usize,
}

/// A row as Redis keeps it: short, because it may keep many. The consumer is in the name of the hash.
fn written(source: &str, key: &Key, sums: &Sums) -> serde_json::Result<(String, String)> {
    let Key { consumer: _, groups, route, provider, model_used } = key;
    Ok((serde_json::to_string(&(source, groups, route, provider, model_used))?, serde_json::to_string(&sums.figures())?))
}

fn read(consumer: &str, field: &str, value: &str) -> serde_json::Result<Said> {
    let (source, groups, route, provider, model_used) = serde_json::from_str(field)?;
    let figures: Vec<u64> = serde_json::from_str(value)?;
    let key = Key { consumer: Some(consumer.into()).filter(|_| !consumer.is_empty()), groups, route, provider, model_used };
    Ok((source, key, Sums::from_figures(&figures)))
}

/// Nothing waits for a connection that is gone.
fn options() -> Options {
    Options { timeout: Some(PATIENCE), max_attempts: Some(1), fail_fast: true, ..Options::default() }
}
