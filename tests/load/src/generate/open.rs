//! The open loop: requests leave at fixed times, and what a late one waited counts as latency. Each connection is a
//! thread that blocks, because a runtime's timer is a millisecond coarse and a proxy adds a tenth of that.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use super::{
    Clocks, MOST_ERRORS, PATIENCE, Plan, Tally, Window,
    answer::{Answer, Progress},
};
use crate::{http1::Inbox, stats::Report};

/// The kernel may wake a sleeper this late, so the rest is spent awake.
const AWAKE: Duration = Duration::from_micros(120);

/// Asks `rate` times a second, the connections taking turns.
pub fn run(plan: &Plan, rate: f64) -> Result<Report, String> {
    // The first requests wait until all threads stand.
    let start = Instant::now() + Duration::from_millis(50);
    let window = Window { begin: start + plan.warmup, end: start + plan.warmup + plan.length };
    let request = plan.request();
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for place in 0..plan.connections {
            let (request, schedule) = (&request[..], Schedule { start, rate, next: place, step: plan.connections });
            let thread = thread::Builder::new().stack_size(128 * 1024).spawn_scoped(scope, move || connection(plan, window, request, schedule));
            threads.push(thread.map_err(|error| format!("no thread for a connection: {error}"))?);
        }
        thread::sleep(window.begin - Instant::now());
        let clocks = Clocks::read(plan)?;
        thread::sleep(window.end - Instant::now());
        let spent = clocks.stop(plan)?;
        let mut tally = Tally::default();
        for thread in threads {
            tally.add(thread.join().map_err(|_| "a connection's thread panicked")?);
        }
        Ok(tally.report(&spent))
    })
}

/// The times at which one connection asks.
struct Schedule {
    start: Instant,
    rate: f64,
    next: usize,
    step: usize,
}

impl Schedule {
    fn next(&mut self) -> Instant {
        let at = self.start + Duration::from_secs_f64(self.next as f64 / self.rate);
        self.next += self.step;
        at
    }
}

fn connection(plan: &Plan, window: Window, request: &[u8], mut schedule: Schedule) -> Tally {
    let (mut tally, mut inbox, mut stream) = (Tally::default(), Inbox::default(), None);
    let mut answer = Answer::new(plan, window);
    loop {
        let intended = schedule.next();
        if intended >= window.end || tally.errors >= MOST_ERRORS {
            return tally;
        }
        // Connecting is not what is measured, so it is done while there is time.
        let connected = match stream.take() {
            Some(stream) => Ok(stream),
            None => connect(plan),
        };
        wait_until(intended);
        inbox.clear();
        answer.clear();
        let asked = connected.map_err(|error| format!("connect: {error}")).and_then(|mut connected| {
            let (progress, end) = ask(&mut connected, request, &mut inbox, &mut answer, &mut tally)?;
            Ok(((progress == Progress::Complete).then_some(connected), end))
        });
        match asked {
            Ok((reusable, end)) => {
                stream = reusable;
                tally.requests += u64::from(window.holds(end));
                if window.holds(intended) {
                    tally.latency.push(nanoseconds(end - intended));
                    tally.first_token.extend(answer.first.map(|first| nanoseconds(first - intended)));
                }
            }
            Err(error) => tally.failed(error),
        }
    }
}

fn connect(plan: &Plan) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&plan.target, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn wait_until(moment: Instant) {
    thread::sleep(moment.saturating_duration_since(Instant::now() + AWAKE));
    while Instant::now() < moment {
        std::hint::spin_loop();
    }
}

fn ask(stream: &mut TcpStream, request: &[u8], inbox: &mut Inbox, answer: &mut Answer, tally: &mut Tally) -> Result<(Progress, Instant), String> {
    stream.write_all(request).map_err(|error| format!("write: {error}"))?;
    loop {
        let count = stream.read(inbox.space()).map_err(|error| format!("read: {error}"))?;
        if count == 0 {
            return Err("the connection was closed before the answer's end".into());
        }
        inbox.received(count);
        let now = Instant::now();
        let progress = answer.read(inbox, now, tally)?;
        if progress != Progress::Partial {
            return Ok((progress, now));
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
