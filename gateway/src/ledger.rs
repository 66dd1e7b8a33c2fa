//! The ledger: one [`Entry`] per request, written when its [`Record`] is dropped, however the request ended. Sinks are fed
//! through a bounded queue by a thread of their own; what the queue cannot take is counted, never waited for.

pub mod line;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use providers::answer::Finish;
use providers::prices::Nanodollars;
use providers::usage::Usage;
use tokio::sync::mpsc;

use crate::history::History;
use crate::purse::Hold;
use crate::sinks::Sinks;
use crate::state::State;
use crate::telemetry::Telemetry;
use crate::trace::Trace;

/// How many entries may wait.
const QUEUE: usize = 16_384;
/// How often the sinks are fed: entries are collected without waking anyone.
const TICK: Duration = Duration::from_millis(100);
/// How long a history that ends may take to be written.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// One try at a target.
#[derive(Debug, Clone, Default)]
pub struct Try {
    /// `provider/model` as configured.
    pub target: Arc<str>,
    /// `ok`, `status`, `connect`, `timeout`, `open`, `stream`, `unsupported`, `credential`.
    pub outcome: &'static str,
    /// HTTP status, if there was an answer.
    pub status: Option<u16>,
    /// When it began, milliseconds since the request came.
    pub start_ms: f64,
    /// How long it took, milliseconds; for a stream, until there was something to show.
    pub ms: f64,
    /// The span that the upstream saw as its parent; 0 if nothing was sent.
    pub span_id: u64,
    /// The provider's kind.
    pub kind: &'static str,
    /// What the provider told that it had used although nothing came of it.
    pub spent: Option<Box<Spent>>,
}

/// What a try used, and what that costs.
#[derive(Debug, Clone)]
pub struct Spent {
    /// Tokens by bucket.
    pub usage: Usage,
    /// Dollars, if the price is known.
    pub cost: Option<Nanodollars>,
}

/// The line in the ledger.
#[derive(Debug, Clone)]
pub struct Entry {
    /// When the request came, seconds since 1970.
    pub time: f64,
    /// Its id, as the client was told it.
    pub request_id: String,
    /// OpenTelemetry's trace.
    pub trace: Trace,
    /// `chat`, `embeddings`, …
    pub operation: &'static str,
    /// Who asked.
    pub consumer: Option<Arc<str>>,
    /// The groups of who asked, if there are any.
    pub groups: Option<Arc<[Arc<str>]>>,
    /// The model asked for.
    pub model: String,
    /// The name in the configuration that answers to it: a bounded set.
    pub route: Arc<str>,
    /// The provider that answered.
    pub provider: Option<Arc<str>>,
    /// The provider's kind.
    pub provider_kind: Option<&'static str>,
    /// The model used there.
    pub model_used: Option<Arc<str>>,
    /// Whether the answer was streamed.
    pub stream: bool,
    /// All tries.
    pub tries: Vec<Try>,
    /// Tokens by bucket, those of tries that failed included.
    pub usage: Option<Usage>,
    /// Dollars, exact, those of tries that failed included.
    pub cost: Option<Nanodollars>,
    /// Why the answer ended.
    pub finish: Option<Finish>,
    /// HTTP status that the client got.
    pub status: u16,
    /// What went wrong, in the client's words.
    pub error: Option<String>,
    /// What went wrong, for the operator.
    pub detail: Option<String>,
    /// Whether the client left before the end.
    pub client_left: bool,
    /// Whether the answer was read on without the client.
    pub drained: bool,
    /// Milliseconds to the first token.
    pub first_token_ms: Option<f64>,
    /// Milliseconds per token after the first.
    pub token_ms: Option<f64>,
    /// Milliseconds in all.
    pub latency_ms: f64,
    /// The template used.
    pub prompt: Option<String>,
    /// The request's body, if that may be written down.
    pub request: Option<String>,
    /// The answer's body, if that may be written down.
    pub answer: Option<String>,
}

/// The entry of a request that is still going on. Dropping it writes it.
pub struct Record {
    /// The entry so far.
    pub entry: Box<Entry>,
    /// When the request came.
    pub started: Instant,
    /// When the first token went out.
    pub first_token: Option<Instant>,
    /// What is reserved for the request; settled when it is over.
    pub hold: Option<Hold>,
    /// Whether a provider is at work for it: who leaves then has caused a cost.
    pub at_work: bool,
    /// Whether the request has come to an end of its own; if not when dropped, the client has left.
    pub ended: bool,
    state: Arc<State>,
}

impl Record {
    /// Begins an entry.
    #[must_use]
    pub fn new(entry: Box<Entry>, started: Instant, state: Arc<State>) -> Self {
        state.serving.fetch_add(1, Relaxed);
        Record { entry, started, first_token: None, hold: None, at_work: false, ended: false, state }
    }

    /// Notes a try that began then and ends now, which tells its times.
    pub fn tried(&mut self, tried: Try, began: Instant) {
        let start_ms = millis(began.saturating_duration_since(self.started));
        self.entry.tries.push(Try { start_ms, ms: millis(began.elapsed()), ..tried });
    }

    /// Writes down what the answer used and cost; what tries used that failed comes to it.
    pub fn charge(&mut self, usage: Option<Usage>, cost: Option<Nanodollars>) {
        let entry = &mut *self.entry;
        (entry.usage, entry.cost) = (usage, cost);
        for spent in entry.tries.iter().filter_map(|t| t.spent.as_deref()) {
            entry.usage.get_or_insert_default().add(&spent.usage);
            if let Some(cost) = spent.cost {
                let sum = entry.cost.get_or_insert_default();
                sum.0 = sum.0.saturating_add(cost.0);
            }
        }
    }

    /// Notes that the first token goes out.
    pub fn first_token(&mut self) {
        if self.first_token.is_none() {
            self.first_token = Some(Instant::now());
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let entry = &mut self.entry;
        let total = self.started.elapsed();
        entry.latency_ms = millis(total);
        if let Some(first) = self.first_token {
            let to_first = first - self.started;
            entry.first_token_ms = Some(millis(to_first));
            let tokens = entry.usage.map_or(0, |u| u.completion());
            if tokens > 1 && entry.stream {
                entry.token_ms = Some(millis(total - to_first) / (tokens - 1) as f64);
            }
        }
        if !self.ended {
            entry.client_left = true;
            if entry.status == 0 {
                entry.status = 499;
            }
        }
        // Who leaves while a provider is at work has caused a cost that nobody tells us: what was reserved counts then.
        let untold = entry.client_left && entry.usage.is_none() && self.at_work;
        if entry.usage.is_none() {
            self.charge(None, None);
        }
        let entry = &mut self.entry;
        if let Some(hold) = self.hold.take() {
            let actual = if untold { Vec::new() } else { hold.actual(entry.usage.as_ref(), entry.cost) };
            self.state.counters.settle(hold.lease, &actual);
        }
        self.state.metrics.observe(entry);
        let blank = Box::new(Entry::blank());
        self.state.ledger.write(std::mem::replace(&mut self.entry, blank));
        // Last: a shutdown waits for this, and then flushes what was written.
        self.state.serving.fetch_sub(1, Relaxed);
    }
}

fn millis(d: Duration) -> f64 {
    (d.as_micros() as f64) / 1000.0
}

impl Entry {
    /// An entry of nothing.
    #[must_use]
    pub fn blank() -> Self {
        Entry {
            time: 0.0,
            request_id: String::new(),
            trace: Trace::default(),
            operation: "",
            consumer: None,
            groups: None,
            model: String::new(),
            route: Arc::default(),
            provider: None,
            provider_kind: None,
            model_used: None,
            stream: false,
            tries: Vec::new(),
            usage: None,
            cost: None,
            finish: None,
            status: 0,
            error: None,
            detail: None,
            client_left: false,
            drained: false,
            first_token_ms: None,
            token_ms: None,
            latency_ms: 0.0,
            prompt: None,
            request: None,
            answer: None,
        }
    }
}

/// Where entries go.
#[derive(Debug, Clone)]
pub struct Ledger {
    queue: mpsc::Sender<Message>,
    /// Entries that the queue could not take.
    dropped: Arc<AtomicU64>,
    /// Whether there are sinks.
    open: Arc<std::sync::atomic::AtomicBool>,
    /// The export by OpenTelemetry, if there is one.
    telemetry: Arc<ArcSwapOption<Telemetry>>,
    /// The history of usage, if there is one.
    history: Arc<ArcSwapOption<History>>,
}

enum Message {
    Entry(Box<Entry>),
    Sinks(Sinks),
    Flush(std::sync::mpsc::SyncSender<()>),
}

impl Ledger {
    /// Starts the thread that feeds the sinks.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start() -> std::io::Result<Self> {
        let (queue, entries) = mpsc::channel(QUEUE);
        let ledger = Ledger { queue, dropped: Arc::default(), open: Arc::default(), telemetry: Arc::default(), history: Arc::default() };
        let (dropped, telemetry, history) = (ledger.dropped.clone(), ledger.telemetry.clone(), ledger.history.clone());
        std::thread::Builder::new().name("ledger".into()).spawn(move || Feed { sinks: Sinks::default(), dropped, told: 0, telemetry, history }.run(entries))?;
        Ok(ledger)
    }

    /// Puts another export in the place of the one before, which sends what it has and ends.
    pub fn export(&self, telemetry: Option<Arc<Telemetry>>) {
        self.telemetry.store(telemetry);
    }

    /// The export by OpenTelemetry.
    #[must_use]
    pub fn telemetry(&self) -> Option<Arc<Telemetry>> {
        self.telemetry.load_full()
    }

    /// Puts another history in the place of the one before, which is brought to where it is kept and ends.
    pub fn keep(&self, history: Option<Arc<History>>) {
        let before = self.history.swap(history.clone()).filter(|before| history.is_none_or(|history| !Arc::ptr_eq(before, &history)));
        if let (Some(before), Ok(runtime)) = (before, tokio::runtime::Handle::try_current()) {
            runtime.spawn(before.close(LAST_WORDS));
        }
    }

    /// The history of usage.
    #[must_use]
    pub fn history(&self) -> Option<Arc<History>> {
        self.history.load_full()
    }

    /// Puts other sinks in the place of those before.
    pub fn set(&self, sinks: Sinks) {
        self.open.store(!sinks.is_empty(), Relaxed);
        self.tell(Message::Sinks(sinks));
    }

    /// Tells the thread something other than an entry. Says whether it hears of it.
    fn tell(&self, mut message: Message) -> bool {
        // Only a queue that is full of entries could refuse it: a moment later there is room.
        for _ in 0..50 {
            match self.queue.try_send(message) {
                Ok(()) => return true,
                Err(mpsc::error::TrySendError::Full(back)) => message = back,
                Err(mpsc::error::TrySendError::Closed(_)) => return false,
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }

    /// Writes an entry, without waiting.
    pub fn write(&self, entry: Box<Entry>) {
        let read = self.open.load(Relaxed) || self.telemetry.load().is_some() || self.history.load().is_some();
        if read && self.queue.try_send(Message::Entry(entry)).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }

    /// How many entries were lost because the sinks were too slow.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Waits until everything written so far is with the sinks.
    pub fn flush(&self) {
        let (done, wait) = std::sync::mpsc::sync_channel(1);
        if self.tell(Message::Flush(done)) {
            let _ = wait.recv_timeout(Duration::from_secs(5));
        }
    }
}

/// What the ledger's thread feeds.
struct Feed {
    sinks: Sinks,
    /// Entries that the queue could not take, and how many of them the history was told of.
    dropped: Arc<AtomicU64>,
    told: u64,
    telemetry: Arc<ArcSwapOption<Telemetry>>,
    history: Arc<ArcSwapOption<History>>,
}

impl Feed {
    fn run(mut self, mut entries: mpsc::Receiver<Message>) {
        loop {
            std::thread::sleep(TICK);
            let open = self.empty(&mut entries);
            self.sinks.flush();
            if let Some(history) = &*self.history.load() {
                history.tick();
            }
            if !open {
                return self.flush();
            }
        }
    }

    /// Takes what is in the queue. Says whether more can come.
    fn empty(&mut self, entries: &mut mpsc::Receiver<Message>) -> bool {
        loop {
            match entries.try_recv() {
                Ok(Message::Entry(entry)) => self.entry(&entry),
                Ok(Message::Sinks(new)) => {
                    self.sinks.flush();
                    self.sinks = new;
                }
                Ok(Message::Flush(done)) => {
                    self.flush();
                    let _ = done.send(());
                }
                Err(mpsc::error::TryRecvError::Empty) => return true,
                Err(mpsc::error::TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn entry(&mut self, entry: &Entry) {
        self.sinks.write(entry);
        if let Some(telemetry) = &*self.telemetry.load() {
            telemetry.observe(entry);
        }
        let before = std::mem::replace(&mut self.told, self.dropped.load(Relaxed));
        if let Some(history) = &*self.history.load() {
            history.observe(entry);
            if self.told > before {
                history.lost(self.told - before);
            }
        }
    }

    fn flush(&mut self) {
        self.sinks.flush();
        if let Some(history) = &*self.history.load() {
            history.flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::counters::suite::server::Folder;
    use crate::history::{By, Day, Query};

    #[tokio::test]
    async fn a_history_sees_every_entry_without_sinks_and_is_told_of_those_that_were_dropped() {
        let folder = Folder::new();
        let config = crate::config::from_text(&format!("usage: {{ keep: 400d }}\ndata: \"{}\"", folder.path().display()), &|_| None).unwrap();
        let history = crate::history::renew(None, &config).unwrap();
        let ledger = Ledger::start().unwrap();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let entry = || Box::new(Entry { time: now, consumer: Some("alice".into()), ..Entry::blank() });
        // Nobody reads yet.
        ledger.write(entry());
        ledger.keep(history.clone());
        // More than there is room for, unless the thread is very quick.
        for _ in 0..3 * QUEUE {
            ledger.write(entry());
        }
        ledger.flush();
        // There is room for this one, and what was dropped before it is told with it.
        ledger.write(entry());
        ledger.flush();
        let query = Query { from: Day::at(0), to: Day::at(u64::MAX), by: vec![By::Consumer], consumer: None };
        let report = history.unwrap().report(query).await.unwrap();
        let sum = |f: fn(&crate::history::Sums) -> u64| report.rows.iter().map(|row| f(&row.sums)).sum::<u64>();
        assert_eq!((sum(|s| s.lost), sum(|s| s.requests) + sum(|s| s.lost)), (ledger.dropped(), 3 * QUEUE as u64 + 1));
    }
}
