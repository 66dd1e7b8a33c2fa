//! Many clients over two gateways and one Redis, while gateways are killed and Redis stands still or is gone, all by a seed:
//! at once those of `alice`, whose budget is for a few of them, and one after the other those of `bob`, who has enough.
//! Afterwards the purses have to be what the provider's bill is, but for what died with a gateway.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::client::{Client, PATIENCE, request as wire};
use crate::mock::{Behaviour, Mock, told};
use crate::redis::Server;
use crate::replica::{Replica, Site};
use crate::script::Stream;
use crate::spending::{ALICE, Purse, bill, cost, counted_word, dollars, end, request};

const PURSES: [&str; 2] = ["consumer:alice|Nanodollars|sliding:3600|*", "consumer:bob|Nanodollars|sliding:3600|*"];
const BOB: &str = "key-of-bob";
/// Most tokens of an answer.
const LONGEST: u64 = 50;
/// How long a reservation stands at most: the model's `total`, and a minute.
const LEASE: Duration = Duration::from_secs(70);

/// So long after it is back Redis has been found by everybody, and been told what was used meanwhile.
const FOUND: Duration = Duration::from_secs(5);

/// What is to happen.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Decides who does what and when.
    pub seed: u64,
    /// How many clients of each consumer want an answer.
    pub clients: usize,
    /// For how many answers the budget of `alice` is about enough.
    pub budget: u64,
    /// `deny`, `local` or `allow`.
    pub when_down: String,
    /// How many things go wrong.
    pub blows: usize,
    /// Whether gateways are killed too, and clients leave early. If not, nothing is lost at all.
    pub kills: bool,
    /// Whether Redis has nothing left when it comes back.
    pub forgetful: bool,
    /// What was settled so long before a gateway was killed has arrived, if Redis was there.
    pub arrival: Duration,
    /// Whether reservations of the dead are waited for; else their time is made to pass.
    pub patient: bool,
}

/// What has happened.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Answers that came to their end.
    pub complete: usize,
    /// Answers that the client left, or the provider cut off.
    pub broken: usize,
    /// Answers that were lost with a gateway.
    pub died: usize,
    /// Requests that were refused with 429.
    pub refused: usize,
    /// Requests that were refused with 503.
    pub unavailable: usize,
    /// What went wrong, in words.
    pub blows: Vec<String>,
    /// The longest time to an answer's head.
    pub longest: Duration,
    /// The cap of `alice`, in billionths of a dollar, as all that follows.
    pub cap: u64,
    /// The most that `alice` had used and reserved at a time.
    pub most: u64,
    /// The provider's bill.
    pub billed: u64,
    /// What is in both purses at the end.
    pub used: u64,
    /// The least that has to be there: what clients of living gateways have seen, and those of the dead in good time.
    pub least: u64,
}

/// A replica's place: who is there at the moment, and which of all gateways that is.
#[derive(Default)]
struct Place {
    replica: Option<Replica>,
    life: usize,
}

struct Stage {
    places: [Mutex<Place>; 2],
    lives: AtomicUsize,
    over: AtomicBool,
    /// What clients have seen: the life of the gateway, when, and what it told.
    seen: Mutex<Vec<(usize, Instant, u64)>>,
    /// From when on a dead gateway may have lost what it had settled.
    unsafe_from: Mutex<HashMap<usize, Instant>>,
    kills: bool,
    /// Since when and until when Redis was away the last time.
    away: Mutex<Option<(Instant, Option<Instant>)>>,
    report: Mutex<Report>,
}

/// Lets it happen.
///
/// # Panics
/// When a promise is broken.
pub async fn run(plan: &Plan) -> Report {
    let mock = Mock::start().await;
    let mut server = if plan.forgetful { Server::forgetful() } else { Server::durable() };
    let cap = plan.budget * cost((30, LONGEST));
    let site = Site::new(
        &format!(
            "models: {{ m: {{ target: well/m, retry: {{ attempts: 1 }}, breaker: {{ failures: 0 }}, timeout: {{ total: 10s }} }} }}\nprices: {{ well/m: {{ input: 1000, output: 2000 }} }}\nconsumers: {{ alice: {{ keys: [{ALICE}], limits: [{{ dollars: {}, per: 1h, strict: true }}] }}, bob: {{ keys: [{BOB}], limits: [{{ dollars: 100000, per: 1h }}] }} }}\nredis: {{ url: \"{}\", timeout: 200ms, when_down: {} }}\n",
            dollars(cap),
            server.url(),
            plan.when_down
        ),
        &mock,
    );
    let mut random = fastrand::Rng::with_seed(plan.seed);
    mock.on("m", (0..plan.clients * 3).map(|_| answer(&mut random)).collect::<Vec<_>>());
    let stage = Arc::new(Stage {
        places: Default::default(),
        lives: AtomicUsize::new(0),
        over: AtomicBool::new(false),
        seen: Mutex::default(),
        unsafe_from: Mutex::default(),
        away: Mutex::default(),
        kills: plan.kills,
        report: Mutex::new(Report { cap, ..Report::default() }),
    });
    for place in 0..2 {
        stage.open(&site, place).await;
    }
    let spawn = |i: usize, key: &'static str, delay: Duration| {
        let (stage, random) = (stage.clone(), fastrand::Rng::with_seed(plan.seed ^ (i as u64) << 20));
        tokio::spawn(async move {
            tokio::time::sleep(delay).await;
            stage.client(i % 2, key, random).await;
        })
    };
    let mut clients: Vec<_> = (0..plan.clients).map(|i| spawn(i, ALICE, Duration::ZERO)).collect();
    // A blow and the pause before it take about three seconds.
    let length = 3000 * plan.blows as u64;
    clients.extend((0..plan.clients).map(|i| spawn(plan.clients + i, BOB, Duration::from_millis(random.u64(0..length)))));
    // Each kind once before any comes again.
    let mut kinds: Vec<u8> = Vec::new();
    for _ in 0..plan.blows {
        if kinds.is_empty() {
            kinds.extend(if plan.kills { 0..4 } else { 1..3 });
            random.shuffle(&mut kinds);
        }
        let kind = kinds.pop().unwrap_or_default();
        tokio::time::sleep(Duration::from_millis(random.u64(300..1500))).await;
        stage.blow(plan, kind, &mut server, &site, &mut random).await;
        stage.sample(&server, plan);
    }
    stage.over.store(true, SeqCst);
    for client in clients {
        client.await.expect("a client does not panic");
    }
    stage.settle(&server, &mock, plan).await
}

/// An answer of random length and pace, which says with each word what it has used. One in ten breaks off.
fn answer(random: &mut fastrand::Rng) -> Behaviour {
    let (prompt, words) = (random.u64(9..30), random.u64(2..LONGEST));
    let pause = Duration::from_millis(random.u64(2..60));
    let mut stream = Stream::sse();
    for word in 1..=words {
        stream = stream.send(counted_word((prompt, word))).pause(pause);
    }
    if random.u8(..10) == 0 { stream.cut() } else { stream.send(end((prompt, words))) }.into()
}

impl Stage {
    async fn open(&self, site: &Site, place: usize) {
        let replica = site.start(["a", "b"][place]).await;
        let life = self.lives.fetch_add(1, SeqCst);
        *self.places[place].lock().unwrap() = Place { replica: Some(replica), life };
    }

    /// Who is at a place, if anybody is.
    fn at(&self, place: usize) -> Option<(Client, usize)> {
        let place = self.places[place].lock().unwrap();
        place.replica.as_ref().map(|replica| (replica.client(), place.life))
    }

    /// Asks until there is an answer, or all is over.
    async fn client(&self, place: usize, key: &str, mut random: fastrand::Rng) {
        loop {
            let served = match self.at(place) {
                Some((client, life)) => self.ask(&client, key, life, &mut random).await,
                None => false,
            };
            if served || self.over.load(SeqCst) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(random.u64(300..900))).await;
        }
    }

    /// One request. Some clients leave after a few events. Says whether there was an answer.
    async fn ask(&self, client: &Client, key: &str, life: usize, random: &mut fastrand::Rng) -> bool {
        let patience = if self.kills && random.u8(..10) == 0 { random.usize(1..6) } else { usize::MAX };
        let bearer = format!("Bearer {key}");
        let headers = [("content-type", "application/json"), ("authorization", bearer.as_str())];
        let Some(mut connection) = client.try_connect().await else { return false };
        let began = Instant::now();
        connection.write(&wire("POST", "/v1/chat/completions", &headers, request(LONGEST).to_string().as_bytes())).await;
        let Some(head) = connection.try_head().await else {
            self.report.lock().unwrap().died += 1;
            return false;
        };
        let took = began.elapsed();
        let mut body = Vec::new();
        let mut broken = false;
        while body.windows(2).filter(|pair| pair == b"\n\n").count() < patience {
            match connection.piece().await {
                Ok(Some(piece)) => body.extend_from_slice(&piece),
                Ok(None) => break,
                Err(_) => {
                    broken = true;
                    break;
                }
            }
        }
        drop(connection);
        let mut report = self.report.lock().unwrap();
        report.longest = report.longest.max(took);
        if head.status != 200 {
            let error = String::from_utf8_lossy(&body);
            match head.status {
                429 => report.refused += 1,
                503 => report.unavailable += 1,
                other => panic!("{other}: {error}"),
            }
            assert!(head.header("retry-after").is_some() && (error.contains("insufficient_quota") || error.contains("limits_unavailable")), "{error}");
            return false;
        }
        *if broken {
            &mut report.died
        } else if body.ends_with(b"data: [DONE]\n\n") {
            &mut report.complete
        } else {
            &mut report.broken
        } += 1;
        drop(report);
        self.seen.lock().unwrap().extend(told(&body).map(|told| (life, Instant::now(), cost(told))));
        true
    }

    /// Something goes wrong, for a while.
    async fn blow(&self, plan: &Plan, kind: u8, server: &mut Server, site: &Site, random: &mut fastrand::Rng) {
        let place = random.usize(..2);
        let while_for = Duration::from_millis(random.u64(100..4000));
        let name = ["a", "b"][place];
        self.report.lock().unwrap().blows.push(match kind {
            0 => format!("{name} killed for {while_for:.1?}"),
            1 => format!("Redis stands still for {while_for:.1?}"),
            2 => format!("Redis gone for {while_for:.1?}"),
            _ => format!("Redis gone for {while_for:.1?}, {name} killed meanwhile"),
        });
        if kind > 0 {
            *self.away.lock().unwrap() = Some((Instant::now(), None));
        }
        match kind {
            0 => self.kill(plan, place),
            1 => server.freeze(),
            _ => server.stop(),
        }
        tokio::time::sleep(while_for / 2).await;
        if kind == 3 {
            self.kill(plan, place);
        }
        tokio::time::sleep(while_for / 2).await;
        match kind {
            0 => {}
            1 => server.thaw(),
            _ => server.again(),
        }
        if let Some((_, back)) = self.away.lock().unwrap().as_mut() {
            back.get_or_insert_with(Instant::now);
        }
        if matches!(kind, 0 | 3) {
            self.open(site, place).await;
        }
    }

    fn kill(&self, plan: &Plan, place: usize) {
        let mut place = self.places[place].lock().unwrap();
        place.replica = None;
        let arrived = Instant::now() - plan.arrival;
        // Since when Redis was away for the last time, if it has not been back for long: it has to be found again first.
        let away = self.away.lock().unwrap().filter(|(_, back)| back.is_none_or(|back| back.elapsed() < FOUND));
        self.unsafe_from.lock().unwrap().insert(place.life, away.map_or(arrived, |(since, _)| since.min(arrived)));
    }

    /// While Redis answers: what is used and reserved, which nobody may bring beyond the cap.
    fn sample(&self, server: &Server, plan: &Plan) {
        let (used, reserved) = Purse::new(server, PURSES[0]).stands();
        let mut report = self.report.lock().unwrap();
        report.most = report.most.max(used + reserved);
        // Where nobody spends without Redis, and it forgets nothing, the cap holds at every moment.
        assert!(plan.when_down != "deny" || plan.forgetful || used + reserved <= report.cap, "{used} and {reserved} of {}\n{report:#?}", report.cap);
    }

    /// Waits until all is settled that can be and the reservations of the dead are over, and compares.
    async fn settle(&self, server: &Server, mock: &Mock, plan: &Plan) -> Report {
        let purses = PURSES.map(|key| Purse::new(server, key));
        let used = || purses.iter().map(|purse| purse.stands().0).sum::<u64>();
        let dead = self.unsafe_from.lock().unwrap().clone();
        let seen = self.seen.lock().unwrap().clone();
        let safe = seen.iter().filter(|(life, when, _)| dead.get(life).is_none_or(|from| when < from));
        let least = safe.map(|(_, _, told)| told).sum::<u64>();
        let began = Instant::now();
        tokio::time::sleep(FOUND).await;
        // What lives settles then; reservations that are left are those of the dead, and of requests that Redis got too late.
        let (mut before, certain) = (u64::MAX, !plan.forgetful || !plan.kills);
        while before != used() || (certain && before < least) {
            before = used();
            assert!(began.elapsed() < PATIENCE, "{before} is settled, {least} should be at least, {} was billed: {:#?}", bill(mock), self.report.lock().unwrap());
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        for (purse, key) in purses.iter().zip([ALICE, BOB]) {
            let leases = purse.leases();
            assert!(leases.iter().all(|(_, left)| *left <= LEASE), "{leases:?}");
            if !plan.patient {
                purse.pass(LEASE);
            }
            while purse.stands().1 > 0 {
                assert!(began.elapsed() < PATIENCE + LEASE, "reserved for ever: {:?}", purse.leases());
                tokio::time::sleep(Duration::from_millis(200)).await;
                // Expired reservations are given back when somebody asks.
                let (client, _) = self.at(0).expect("a gateway");
                let _ = client.send("GET", "/v1/usage", &[("authorization", &format!("Bearer {key}"))], b"").await;
            }
        }
        let mut report = self.report.lock().unwrap().clone();
        (report.billed, report.used, report.least) = (bill(mock), used(), least);
        assert!(!certain || report.least <= report.used, "something is lost: {report:#?}");
        // What Redis had done but not confirmed when it lost everything may be told by two.
        assert!(plan.forgetful || report.used <= report.billed, "something counts twice: {report:#?}");
        assert!(plan.forgetful || plan.kills || report.used == report.billed, "the purse is not the bill: {report:#?}");
        report
    }
}
