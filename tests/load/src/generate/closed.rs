//! The closed loop: as many requests as there are connections are always under way.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{sleep, sleep_until, timeout_at},
};

use super::{
    Clocks, MOST_ERRORS, PATIENCE, Plan, Tally, Window,
    answer::{Answer, Progress},
};
use crate::{http1::Inbox, stats::Report};

/// A run that counts instead of watching the clock is broken off after this long.
const LONGEST_COUNT: Duration = Duration::from_secs(2 * 60 * 60);

/// Asks for as long as the plan says, or, given a count, so many times without a warm-up.
pub async fn run(plan: &Plan, count: Option<u64>) -> Result<Report, String> {
    let now = Instant::now();
    let window = match count {
        Some(_) => Window { begin: now, end: now + LONGEST_COUNT },
        None => Window { begin: now + plan.warmup, end: now + plan.warmup + plan.length },
    };
    let (request, tickets): (Arc<[u8]>, _) = (plan.request().into(), Arc::new(AtomicU64::new(0)));
    let mut tasks = JoinSet::new();
    for _ in 0..plan.connections {
        let connection = Connection { plan: plan.clone(), window, request: Arc::clone(&request), most: count.unwrap_or(u64::MAX), tickets: Arc::clone(&tickets) };
        tasks.spawn(connection.run());
    }
    sleep_until(window.begin.into()).await;
    let clocks = Clocks::read(plan)?;
    let mut spent = None;
    if count.is_none() {
        sleep_until(window.end.into()).await;
        spent = Some(clocks.stop(plan)?);
    }
    let mut tally = Tally::default();
    while let Ok(ended) = timeout_at((window.end + PATIENCE).into(), tasks.join_next()).await {
        match ended {
            Some(Ok(seen)) => tally.add(seen),
            Some(Err(error)) => tally.failed(error.to_string()),
            None => break,
        }
    }
    for _ in 0..tasks.len() {
        tally.failed("no answer in time".into());
    }
    let spent = match spent {
        Some(spent) => spent,
        None => clocks.stop(plan)?,
    };
    Ok(tally.report(&spent))
}

struct Connection {
    plan: Plan,
    window: Window,
    request: Arc<[u8]>,
    most: u64,
    tickets: Arc<AtomicU64>,
}

impl Connection {
    async fn run(self) -> Tally {
        let (mut tally, mut inbox, mut stream) = (Tally::default(), Inbox::default(), None);
        let mut answer = Answer::new(&self.plan, self.window);
        while Instant::now() < self.window.end && tally.errors < MOST_ERRORS && self.tickets.fetch_add(1, Ordering::Relaxed) < self.most {
            match self.ask(&mut stream, &mut inbox, &mut answer, &mut tally).await {
                Ok(Progress::Complete) => {}
                Ok(_) => stream = None,
                Err(error) => {
                    stream = None;
                    tally.failed(error);
                    sleep(Duration::from_millis(10)).await;
                }
            }
        }
        tally
    }

    async fn ask(&self, stream: &mut Option<TcpStream>, inbox: &mut Inbox, answer: &mut Answer, tally: &mut Tally) -> Result<Progress, String> {
        let stream = match stream {
            Some(stream) => stream,
            none => {
                inbox.clear();
                none.insert(connect(&self.plan).await.map_err(|error| format!("connect: {error}"))?)
            }
        };
        answer.clear();
        let sent = Instant::now();
        stream.write_all(&self.request).await.map_err(|error| format!("write: {error}"))?;
        loop {
            let count = stream.read(inbox.space()).await.map_err(|error| format!("read: {error}"))?;
            if count == 0 {
                return Err("the connection was closed before the answer's end".into());
            }
            inbox.received(count);
            let now = Instant::now();
            let progress = answer.read(inbox, now, tally)?;
            if progress != Progress::Partial {
                if self.window.holds(now) {
                    tally.requests += 1;
                    tally.latency.push(nanoseconds(now - sent));
                    tally.first_token.extend(answer.first.map(|first| nanoseconds(first - sent)));
                }
                return Ok(progress);
            }
        }
    }
}

async fn connect(plan: &Plan) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(plan.target).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
