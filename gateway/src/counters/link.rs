//! The wire to Redis: one script that does everything, its keys and arguments, what it answers, and what can go wrong.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use fred::clients::Client;
use fred::error::{Error, ErrorKind};
use fred::interfaces::{ClientLike, LuaInterface};
use fred::types::config::{Config, Options, ReconnectPolicy, UnresponsiveConfig};
use fred::types::{Builder, Value};

use super::calendar::{Bounds, millis};
use super::clock::Clock;
use super::window::Grid;
use super::{Purse, Window};

const SCRIPT: &str = include_str!("purse.lua");
/// The largest whole number that Lua can count to; in billionths of a dollar it is nine million.
const MOST: u64 = (1 << 53) - 1;
/// Leases of crashed replicas are remembered for as long in the script.
const LONGEST_LEASE: Duration = Duration::from_secs(86_400);
/// A reservation that Redis gets to this much later than anybody waited for it is not made.
const LATE: u64 = 1000;

/// A connection to Redis.
#[derive(Debug)]
pub(super) struct Link {
    client: Client,
    sha: String,
    /// In braces, so that all keys live in one slot of a cluster.
    tag: String,
    clock: Arc<dyn Clock>,
    /// How far Redis' clock is ahead of ours, in milliseconds.
    ahead: AtomicI64,
}

/// One purse of a call.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) purse: Arc<Purse>,
    /// What is or was reserved.
    pub(super) amount: u64,
    /// What was used.
    pub(super) used: i64,
}

/// What is asked of the script.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ask<'a> {
    Reserve {
        lease_time: Duration,
    },
    Settle {
        set: &'a str,
    },
    Add,
    /// After a loss: the amounts were known to be used before it.
    Recall,
    Reset,
    Standing,
}

/// What the script answers.
#[derive(Debug)]
pub(super) enum Reply {
    /// It was done, and the purses stand so.
    Counted {
        /// The name of the data that this is counted in.
        set: Arc<str>,
        now: u64,
        counts: Vec<Counts>,
    },
    /// It was not done.
    Denied { set: Arc<str>, now: u64, short: Vec<Short> },
}

/// How one purse stands in Redis.
#[derive(Clone, Copy, Debug)]
pub(super) struct Counts {
    pub(super) used: i64,
    pub(super) reserved: i64,
    pub(super) resets_at: u64,
}

/// A purse that has too little left.
#[derive(Debug)]
pub(super) struct Short {
    pub(super) claim: usize,
    pub(super) used: i64,
    pub(super) reserved: i64,
    /// The end of a fixed window.
    pub(super) end: u64,
    /// The buckets of a sliding window, oldest first.
    pub(super) buckets: Vec<(u64, i64)>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("no answer in time")]
    Slow,
    #[error("the connection is closed")]
    Gone,
    #[error("it has lost its data")]
    Lost,
    #[error("{0}")]
    Down(Error),
    #[error("Redis refuses: {0}")]
    Refused(String),
}

impl Link {
    /// Begins to connect, and goes on trying for as long as it lives.
    pub(super) fn open(url: &str, prefix: &str, connect: Duration, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        let client = client(url, connect)?;
        Ok(Self { client, sha: fred::util::sha1_hash(SCRIPT), tag: format!("{{{prefix}}}"), clock, ahead: AtomicI64::new(0) })
    }

    /// One round trip, which never takes longer than `within`. A script that Redis does not know, and a clock that we do not
    /// know, cost one more.
    pub(super) async fn call(&self, ask: Ask<'_>, id: &str, lines: &[Line], within: Duration) -> Result<Reply, Failure> {
        let trips = async {
            let mut known = true;
            for _ in 0..3 {
                let (keys, args) = (self.keys(id, lines), self.args(ask, id, lines, within));
                let client = self.client.with_options(&Options { timeout: Some(within), max_attempts: Some(1), fail_fast: true, ..Options::default() });
                let answer: Result<Value, Error> = if known { client.evalsha(self.sha.as_str(), keys, args).await } else { client.eval(SCRIPT, keys, args).await };
                match answer {
                    Ok(value) => {
                        if let Some(reply) = self.read(value).ok_or_else(|| Failure::Refused("an answer of another script".into()))? {
                            return Ok(reply);
                        }
                    }
                    Err(error) if error.details().starts_with("NOSCRIPT") => known = false,
                    Err(error) => return Err(failure(error)),
                }
            }
            Err(Failure::Refused("the clocks of Redis and of this machine cannot be reconciled".into()))
        };
        tokio::time::timeout(within, trips).await.unwrap_or(Err(Failure::Slow))
    }

    /// Runs a script of somebody else's over one key that lives in the same slot. Its answer in one row, lists in it opened.
    pub(super) async fn run(&self, script: &'static str, key: &str, args: Vec<String>, within: Duration) -> Result<Vec<String>, Failure> {
        if !self.is_connected() {
            return Err(Failure::Gone);
        }
        let client = self.client.with_options(&Options { timeout: Some(within), max_attempts: Some(1), fail_fast: true, ..Options::default() });
        let key = format!("{}:{key}", self.tag);
        let answer: Result<Value, Error> = tokio::time::timeout(within, client.eval(script, vec![key], args)).await.map_err(|_| Failure::Slow)?;
        let mut texts = Vec::new();
        row(answer.map_err(failure)?, &mut texts);
        Ok(texts)
    }

    /// Whether there is a connection. While there is none a call may only end when its time is over.
    pub(super) fn is_connected(&self) -> bool {
        self.client.is_connected()
    }

    /// Hangs up.
    pub(super) async fn close(&self) {
        // Gone is gone, whether or not Redis said goodbye.
        let _ = tokio::time::timeout(Duration::from_millis(100), self.client.quit()).await;
    }

    /// The time by Redis' clock.
    pub(super) fn now(&self) -> u64 {
        self.clock.wall().saturating_add_signed(self.ahead.load(Relaxed))
    }

    fn keys(&self, id: &str, lines: &[Line]) -> Vec<String> {
        let Self { tag, .. } = self;
        let mut keys = Vec::with_capacity(2 + 2 * lines.len());
        keys.push(format!("{tag}:set"));
        keys.push(format!("{tag}:done:{id}"));
        for Line { purse, .. } in lines {
            keys.push(format!("{tag}:purse:{}", purse.key));
            keys.push(format!("{tag}:leases:{}", purse.key));
        }
        keys
    }

    fn args(&self, ask: Ask<'_>, id: &str, lines: &[Line], within: Duration) -> Vec<String> {
        let now = self.now();
        let (operation, with) = match ask {
            Ask::Reserve { lease_time } => ("reserve", millis(lease_time.min(LONGEST_LEASE)).max(1).to_string()),
            Ask::Settle { set } => ("settle", set.to_owned()),
            Ask::Add => ("add", String::new()),
            Ask::Recall => ("recall", String::new()),
            Ask::Reset => ("reset", String::new()),
            Ask::Standing => ("standing", String::new()),
        };
        let mut args = Vec::with_capacity(4 + 8 * lines.len());
        args.extend([operation.to_owned(), id.to_owned(), with, (now + millis(within) + LATE).to_string()]);
        for Line { purse, amount, used } in lines {
            let (kind, numbers) = window(&purse.window, now);
            let most = i64::try_from(MOST).unwrap_or(i64::MAX);
            args.extend([kind.to_owned(), purse.cap.min(MOST).to_string(), amount.min(&MOST).to_string(), used.clamp(&-most, &most).to_string()]);
            args.extend(numbers.map(|number| number.to_string()));
        }
        args
    }

    /// Reads an answer: `None` if it is not one, `Some(None)` if Redis only told the time.
    fn read(&self, value: Value) -> Option<Option<Reply>> {
        let mut fields = value.into_array().into_iter();
        let kind = fields.next()?.into_string()?;
        let now: u64 = number(&fields.next()?)?;
        self.ahead.store(now.cast_signed().wrapping_sub(self.clock.wall().cast_signed()), Relaxed);
        match kind.as_str() {
            "clock" => Some(None),
            "denied" => Some(Some(Reply::Denied { set: fields.next()?.into_string()?.into(), now, short: fields.map(short).collect::<Option<_>>()? })),
            "counted" => Some(Some(Reply::Counted { set: fields.next()?.into_string()?.into(), now, counts: counts(fields)? })),
            _ => None,
        }
    }
}

/// A connection that is being made, and made again for as long as it lives.
pub(crate) fn client(url: &str, connect: Duration) -> Result<Client, Error> {
    let mut config = Config::from_url(url)?;
    // Else a Redis that is away when we start would be away for good.
    config.fail_fast = false;
    let client = Builder::from_config(config)
        .with_connection_config(|connection| {
            connection.connection_timeout = connect;
            connection.internal_command_timeout = connect;
            connection.max_command_attempts = 1;
            connection.reconnect_on_auth_error = true;
            connection.unresponsive = UnresponsiveConfig { max_timeout: Some(connect), interval: connect / 4 };
        })
        .with_performance_config(|performance| performance.default_command_timeout = connect)
        .set_policy(ReconnectPolicy::new_exponential(0, 50, 1000, 2))
        .build()?;
    drop(client.connect());
    Ok(client)
}

/// A window as the script knows it. For a calendar it gets the window before and the one after too, so that it can choose
/// by its own clock.
fn window(window: &Window, now: u64) -> (&'static str, [u64; 4]) {
    match window {
        Window::Sliding(length) => {
            let Grid { width, keep } = Grid::new(*length);
            ("s", [width, keep, 0, 0])
        }
        Window::Fixed(calendar, zone) => {
            let Bounds { start, end } = calendar.bounds(zone, now);
            let (before, after) = (calendar.bounds(zone, start.saturating_sub(1)), calendar.bounds(zone, end));
            ("f", [before.start, start, end, after.end])
        }
        Window::None => ("n", [0; 4]),
    }
}

fn counts(fields: impl Iterator<Item = Value>) -> Option<Vec<Counts>> {
    let numbers: Vec<i64> = fields.map(|field| number(&field)).collect::<Option<_>>()?;
    Some(numbers.chunks_exact(3).map(|three| Counts { used: three[0], reserved: three[1], resets_at: three[2].max(0).cast_unsigned() }).collect())
}

fn short(value: Value) -> Option<Short> {
    let mut fields = value.into_array().into_iter();
    let (claim, used, reserved, end) = (number(&fields.next()?)?, number(&fields.next()?)?, number(&fields.next()?)?, number(&fields.next()?)?);
    let hash = fields.next()?.into_array();
    // The hash has other fields too; the buckets are the ones with numbers for names.
    let mut buckets: Vec<(u64, i64)> = hash.chunks_exact(2).filter_map(|pair| Some((number(&pair[0])?, number(&pair[1])?))).collect();
    buckets.sort_unstable();
    Some(Short { claim, used, reserved, end, buckets })
}

fn row(value: Value, out: &mut Vec<String>) {
    match value {
        Value::Array(values) => values.into_iter().for_each(|value| row(value, out)),
        value => out.extend(value.into_string()),
    }
}

fn number<T: std::str::FromStr>(value: &Value) -> Option<T> {
    value.as_str()?.parse().ok()
}

/// Answers that mean "not now" are Redis being away; others are the fault of what was asked.
fn failure(error: Error) -> Failure {
    const AWAY: [&str; 11] = ["LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "NOAUTH", "NOPERM", "NOREPLICAS", "OOM", "MISCONF"];
    match error.kind() {
        ErrorKind::Timeout => Failure::Slow,
        ErrorKind::Unknown | ErrorKind::InvalidArgument | ErrorKind::InvalidCommand if !AWAY.iter().any(|away| error.details().starts_with(away)) => Failure::Refused(error.details().to_owned()),
        _ => Failure::Down(error),
    }
}

#[cfg(test)]
mod tests {
    use super::super::clock::Manual;
    use super::super::suite::server::Server;
    use super::super::suite::{HOUR, purse};
    use super::super::window::Meter;
    use super::super::{Calendar, Zone};
    use super::*;

    const START: u64 = 1_790_000_000_000;
    const LEASE: Duration = Duration::from_secs(60);

    /// A link to a script that lives by our clock instead of Redis' own.
    struct Bench {
        _server: Server,
        clock: Arc<Manual>,
        link: Link,
    }

    impl Bench {
        fn new() -> Self {
            let (server, clock) = (Server::forgetful(), Arc::new(Manual::at(START)));
            let link = Link::open(&server.url(), "bench", Duration::from_secs(20), clock.clone()).unwrap();
            Self { _server: server, clock, link }
        }

        async fn ask(&self, ask: Ask<'_>, id: &str, purse: &Arc<Purse>, amount: u64, used: i64) -> Reply {
            let now = self.clock.wall();
            let script = SCRIPT.replace("redis.call('TIME')", &format!("{{ {}, {} }}", now / 1000, now % 1000 * 1000));
            let lines = [Line { purse: purse.clone(), amount, used }];
            let (keys, args) = (self.link.keys(id, &lines), self.link.args(ask, id, &lines, LEASE));
            let value = self.link.client.eval(script, keys, args).await.unwrap();
            self.link.read(value).unwrap().unwrap()
        }

        async fn counts(&self, purse: &Arc<Purse>) -> Counts {
            let Reply::Counted { counts, .. } = self.ask(Ask::Standing, "look", purse, 0, 0).await else { panic!("refused") };
            counts[0]
        }
    }

    /// The script and the meter are one idea written twice: whatever the clock does, they must agree.
    #[tokio::test]
    async fn the_script_counts_as_the_meter_does() {
        let bench = Bench::new();
        let (mut random, windows) = (fastrand::Rng::with_seed(7), [Duration::from_secs(64), Duration::from_millis(90), HOUR]);
        let mut windows: Vec<Window> = windows.into_iter().map(Window::Sliding).collect();
        windows.extend([Calendar::Hour, Calendar::Day, Calendar::Week, Calendar::Month, Calendar::Every(Duration::from_secs(100))].map(|c| Window::Fixed(c, Zone::named("Europe/Berlin").unwrap())));
        for (i, window) in windows.into_iter().enumerate() {
            bench.clock.set(START);
            let purse = purse(&format!("twin/{i}"), 1000, window);
            let mut meter = Meter::new(&purse.window, START);
            // The script's window begins then too.
            bench.counts(&purse).await;
            let reach = match &purse.window {
                Window::Fixed(Calendar::Day | Calendar::Week | Calendar::Month, _) => HOUR * 24 * 20,
                Window::Fixed(..) => HOUR,
                Window::Sliding(length) => *length,
                Window::None => HOUR,
            };
            for step in 0..150 {
                let jump = random.u64(0..millis(reach));
                let now = bench.clock.wall();
                bench.clock.set(if random.u8(..3) == 0 { now - jump } else { now + jump });
                let amount = random.i64(-5..50);
                bench.ask(Ask::Add, &format!("{i}-{step}"), &purse, 0, amount).await;
                meter.roll(bench.clock.wall());
                meter.charge(amount);
                let counts = bench.counts(&purse).await;
                assert_eq!(i128::from(counts.used), meter.used(), "{:?} at step {step}", purse.window);
                let resets_in = Duration::from_millis(counts.resets_at.saturating_sub(bench.clock.wall()));
                assert!(amount == 0 || resets_in == meter.resets_in(bench.clock.wall()), "{:?} at step {step}", purse.window);
            }
        }
    }

    #[tokio::test]
    async fn settling_twice_counts_once() {
        let bench = Bench::new();
        let purse = purse("twice", 100, Window::Sliding(HOUR));
        let Reply::Counted { set, .. } = bench.ask(Ask::Reserve { lease_time: LEASE }, "a", &purse, 30, 0).await else { panic!("refused") };
        let settle = Ask::Settle { set: &set };
        for _ in 0..3 {
            bench.ask(settle, "a", &purse, 30, 12).await;
            bench.ask(Ask::Add, "b", &purse, 0, 5).await;
        }
        assert_eq!((bench.counts(&purse).await.used, bench.counts(&purse).await.reserved), (17, 0));
        // A lease that expired before, and one whose data Redis has lost.
        bench.ask(Ask::Reserve { lease_time: LEASE }, "c", &purse, 30, 0).await;
        bench.clock.pass(LEASE * 2);
        assert_eq!(bench.counts(&purse).await.reserved, 0);
        for _ in 0..3 {
            bench.ask(settle, "c", &purse, 30, 1).await;
            bench.ask(Ask::Settle { set: "before" }, "d", &purse, 30, 2).await;
        }
        assert_eq!((bench.counts(&purse).await.used, bench.counts(&purse).await.reserved), (20, 0));
        // One that was never made, and one that was made and that nobody waited for.
        bench.ask(Ask::Settle { set: "" }, "e", &purse, 30, 0).await;
        bench.ask(Ask::Reserve { lease_time: LEASE }, "f", &purse, 30, 0).await;
        bench.ask(Ask::Settle { set: "" }, "f", &purse, 30, 0).await;
        assert_eq!((bench.counts(&purse).await.used, bench.counts(&purse).await.reserved), (20, 0));
    }

    #[tokio::test]
    async fn what_nobody_asks_for_goes_away() {
        let server = Server::forgetful();
        let link = Link::open(&server.url(), "gone", Duration::from_secs(20), Arc::new(super::super::clock::System::default())).unwrap();
        while !link.is_connected() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        for (i, window) in [Window::Sliding(HOUR), Window::Fixed(Calendar::Day, Zone::UTC), Window::None].into_iter().enumerate() {
            let lines = [Line { purse: purse(&format!("gone/{i}"), 10, window), amount: 5, used: 5 }];
            let id = i.to_string();
            let Ok(Reply::Counted { set, .. }) = link.call(Ask::Reserve { lease_time: LEASE }, &id, &lines, LEASE).await else { panic!("refused") };
            for key in ["purse", "leases"] {
                let ttl = server.say(&format!("TTL {{gone}}:{key}:gone/{i}"));
                assert!(ttl.starts_with(':') && ttl[1..].lines().next().unwrap().parse::<i64>().unwrap() > 86_400, "{key} {i}: {ttl}");
            }
            link.call(Ask::Settle { set: &set }, &id, &lines, LEASE).await.unwrap();
        }
        // Apart from the name of the data set everything has its time.
        let keys = server.say("KEYS *");
        assert!(keys.lines().filter(|line| line.starts_with('{')).all(|key| key.starts_with("{gone}:")), "{keys}");
        for key in keys.lines().filter(|line| line.starts_with('{') && *line != "{gone}:set") {
            assert!(!server.say(&format!("TTL {key}")).starts_with(":-1"), "{key} stays for ever");
        }
    }
}
