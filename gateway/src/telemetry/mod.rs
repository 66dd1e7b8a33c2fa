//! OpenTelemetry: finished entries become spans and metrics, which go to a collector by OTLP. The ledger's thread hands the
//! entries over; a collector that is slow or down costs requests nothing, and what is lost is counted.

mod meter;
mod ship;
mod span;
#[cfg(test)]
mod tests;
mod wire;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::config::{Problem, Telemetry as Config};
use crate::ledger::Entry;
use meter::Meters;
use ship::{Closing, Collector, Line, PACE, Pace, Signal};
use span::Spans;

/// Requests whose spans may wait for the collector.
const QUEUE: usize = 8192;

/// The export to one collector. Dropping it ends the export after what is in hand.
#[derive(Debug)]
pub struct Telemetry {
    config: Config,
    queue: mpsc::Sender<Spans>,
    meters: Arc<Mutex<Meters>>,
    lost: Arc<AtomicU64>,
    closing: watch::Sender<bool>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

/// What is wrong with the section `telemetry`.
#[must_use]
pub fn check(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Err((field, what)) = Collector::read(config) {
        problems.push(Problem::new(format!("telemetry.{field}"), what));
    }
    if config.sample.is_some_and(|s| !(0.0..=1.0).contains(&s)) {
        problems.push(Problem::new("telemetry.sample", "is a share: from 0 to 1"));
    }
    problems
}

/// The export that a configuration asks for: the one that runs if nothing has changed for it, else a new one. To be called
/// within a runtime, with a configuration that passes [`check`].
#[must_use]
pub fn renew(running: Option<Arc<Telemetry>>, config: &Config, tls: &rustls::ClientConfig) -> Option<Arc<Telemetry>> {
    match running {
        Some(running) if running.config == *config => Some(running),
        _ => start(config, tls, PACE).map(Arc::new),
    }
}

fn start(config: &Config, tls: &rustls::ClientConfig, pace: Pace) -> Option<Telemetry> {
    let collector = Collector::read(config).ok()??;
    let runtime = tokio::runtime::Handle::try_current().ok()?;
    let resource = wire::resource();
    let lost = Arc::new(AtomicU64::new(0));
    let line = |signal| Line::new(collector.clone(), signal, tls.clone(), resource.clone(), lost.clone());
    let (queue, waiting) = mpsc::channel(QUEUE);
    let (closing, watched) = watch::channel(false);
    let meters = Arc::new(Mutex::new(Meters::new(now())));
    tracing::info!(collector = collector.place, protocol = ?collector.protocol, "telemetry is exported");
    let tasks =
        vec![runtime.spawn(ship::spans(line(Signal::Traces)?, waiting, pace, Closing(watched.clone()))), runtime.spawn(ship::metrics(line(Signal::Metrics)?, meters.clone(), pace, Closing(watched)))];
    Some(Telemetry { config: config.clone(), queue, meters, lost, closing, tasks: Mutex::new(tasks) })
}

impl Telemetry {
    /// Takes a finished request. Never waits for the collector.
    pub fn observe(&self, entry: &Entry) {
        self.meters.lock().unwrap_or_else(PoisonError::into_inner).observe(entry);
        if !entry.trace.sampled {
            return;
        }
        let Some(spans) = span::write(entry) else { return };
        if let Err(mpsc::error::TrySendError::Full(spans) | mpsc::error::TrySendError::Closed(spans)) = self.queue.try_send(spans) {
            self.lost.fetch_add(spans.count, Relaxed);
        }
    }

    /// Spans that the collector did not take, or that there was no room for.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// Sends what is in hand and ends the export, within this time.
    pub async fn close(&self, bound: Duration) {
        self.closing.send_replace(true);
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        let stop: Vec<_> = tasks.iter().map(JoinHandle::abort_handle).collect();
        let all = async {
            for task in tasks {
                let _ = task.await;
            }
        };
        if tokio::time::timeout(bound, all).await.is_err() {
            tracing::warn!("the collector was too slow for the last of the telemetry");
            stop.iter().for_each(tokio::task::AbortHandle::abort);
        }
    }
}

/// Nanoseconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos() as u64)
}
