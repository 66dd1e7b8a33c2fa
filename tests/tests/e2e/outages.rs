//! Redis standing still, gone, back, and back with nothing in it, while two gateways count in it: nobody waits long, and
//! afterwards the purse is what the provider's bill is.

use std::time::{Duration, Instant};

use tests::redis::Server;
use tests::spending::{ALICE, MODEL, Purse, ask, bill, cost, dollars, end, is_complete, request, word};
use tests::{Client, Gate, Mock, Replica, Response, Site, Stream};

const DOLLARS: &str = "consumer:alice|Nanodollars|sliding:3600|*";
/// Most tokens of an answer, and what one costs.
const LONGEST: u64 = 50;
const TOLD: (u64, u64) = (30, 50);
/// How many requests each replica gets during an outage.
const MEANWHILE: usize = 10;
/// Nobody waits longer for a Redis that stands still: the timeout of 200 ms, and as much as a busy machine may add.
const LONG: Duration = Duration::from_secs(10);

struct Stage {
    replicas: [Replica; 2],
    server: Server,
    mock: Mock,
    _site: Site,
}

impl Stage {
    async fn set(server: Server, when_down: &str, cap: u64) -> Self {
        let mock = Mock::start().await;
        let site = Site::new(
            &format!(
                "{MODEL}consumers: {{ alice: {{ keys: [{ALICE}], limits: [{{ dollars: {}, per: 1h }}] }} }}\nredis: {{ url: \"{}\", timeout: 200ms, when_down: {when_down} }}\n",
                dollars(cap),
                server.url()
            ),
            &mock,
        );
        let (a, b) = tokio::join!(site.start("a"), site.start("b"));
        mock.on("m", [Stream::sse().send(word()).send(end(TOLD)).into()]);
        Stage { replicas: [a, b], server, mock, _site: site }
    }

    fn purse(&self) -> Purse<'_> {
        Purse::new(&self.server, DOLLARS)
    }

    fn clients(&self) -> [Client; 2] {
        [self.replicas[0].client(), self.replicas[1].client()]
    }

    /// Answers while all is well. A machine that is busy may make Redis look slow for a moment: then the request is not refused for
    /// good.
    async fn answered(&self, count: usize) {
        for i in 0..count {
            let began = Instant::now();
            while !is_complete(&ask(&self.clients()[i % 2], ALICE, &request(LONGEST)).await.unwrap()) {
                assert!(began.elapsed() < LONG, "a request is refused while all is well");
            }
        }
    }

    /// What clients of both replicas are told at once; none of them waits long.
    async fn meanwhile(&self) -> [Vec<Response>; 2] {
        let mut all = [Vec::new(), Vec::new()];
        for (responses, client) in all.iter_mut().zip(self.clients()) {
            let asking: Vec<_> = (0..MEANWHILE)
                .map(|_| {
                    let client = client.clone();
                    tokio::spawn(async move {
                        let began = Instant::now();
                        (ask(&client, ALICE, &request(LONGEST)).await.unwrap(), began.elapsed())
                    })
                })
                .collect();
            for asked in asking {
                let (response, took) = asked.await.unwrap();
                assert!(took < LONG, "{took:?}");
                responses.push(response);
            }
        }
        all
    }

    /// Streams that have begun and wait at a gate.
    async fn begun(&self, gate: &Gate, count: usize) -> Vec<tokio::task::JoinHandle<Response>> {
        let before = self.mock.bill("m").len();
        self.mock.on("m", [Stream::sse().send(word()).wait(gate).send(end(TOLD)).into()]);
        let clients = self.clients();
        let spawn = |i: usize| {
            let client = clients[i % 2].clone();
            tokio::spawn(async move { ask(&client, ALICE, &request(LONGEST)).await.unwrap() })
        };
        let streams = (0..count).map(spawn).collect();
        self.mock.until("the streams have begun", |mock| mock.bill("m")[before..].iter().filter(|served| served.chunks == 1).count() == count).await;
        self.mock.on("m", [Stream::sse().send(word()).send(end(TOLD)).into()]);
        streams
    }

    async fn purse_is_the_bill(&self, when: &str) {
        self.purse().comes_to(when, || (bill(&self.mock), 0)).await;
    }
}

/// How many were answered; the others were refused with this status and code, and told when to come again.
fn count(responses: &[Response], status: u16, code: &str) -> usize {
    for refused in responses.iter().filter(|response| !is_complete(response)) {
        refused.fault(status, code);
        assert!(refused.header("retry-after").and_then(|after| after.parse::<u64>().ok()).is_some_and(|after| after > 0), "a refusal without Retry-After");
    }
    responses.iter().filter(|response| is_complete(response)).count()
}

/// Redis stands still, then is killed with streams under way, and comes back each time. `told` looks at what clients were
/// told meanwhile, with what was used and reserved before.
async fn outage(when_down: &str, cap: u64, told: impl Fn(&[Response], (u64, u64))) {
    let mut stage = Stage::set(Server::durable(), when_down, cap).await;
    stage.answered(6).await;
    stage.purse_is_the_bill("all is well").await;

    let before = stage.purse().stands();
    stage.server.freeze();
    for responses in stage.meanwhile().await {
        told(&responses, before);
    }
    stage.server.thaw();
    stage.purse_is_the_bill("it stood still, and goes on").await;
    // Everybody asks it again.
    stage.answered(2).await;
    stage.purse_is_the_bill("it counts again").await;

    let gate = Gate::new();
    let streams = stage.begun(&gate, 4).await;
    let before = stage.purse().stands();
    stage.server.stop();
    for responses in stage.meanwhile().await {
        told(&responses, before);
    }
    gate.open();
    for stream in streams {
        assert!(is_complete(&stream.await.unwrap()), "a stream broke because Redis did");
    }
    stage.server.again();
    stage.purse_is_the_bill("it was gone, and is back").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_away_requests_are_refused_where_that_is_wanted() {
    outage("deny", 1000 * cost(TOLD), |responses, _| assert_eq!(count(responses, 503, "limits_unavailable"), 0)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_away_requests_pass_where_that_is_wanted_and_count_afterwards() {
    // Three more would be all: what passes during the outage is far beyond the cap, and refused once Redis is back.
    let cap = 9 * cost(TOLD);
    let mut stage = Stage::set(Server::durable(), "allow", cap).await;
    stage.answered(6).await;
    stage.purse_is_the_bill("all is well").await;
    stage.server.freeze();
    for responses in stage.meanwhile().await {
        assert_eq!(count(&responses, 0, ""), MEANWHILE);
    }
    stage.server.thaw();
    stage.purse_is_the_bill("it stood still, and goes on").await;
    stage.server.stop();
    for responses in stage.meanwhile().await {
        assert_eq!(count(&responses, 0, ""), MEANWHILE);
    }
    stage.server.again();
    stage.purse_is_the_bill("it was gone, and is back").await;
    assert_eq!(bill(&stage.mock), (6 + 4 * MEANWHILE as u64) * cost(TOLD));
    until_refused(&stage).await;
}

/// Both replicas refuse, once they ask Redis again.
async fn until_refused(stage: &Stage) {
    for client in stage.clients() {
        let began = Instant::now();
        loop {
            let response = ask(&client, ALICE, &request(LONGEST)).await.unwrap();
            if response.status == 429 {
                break;
            }
            assert!(began.elapsed() < LONG, "requests pass although Redis is back and the budget is spent");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_away_each_replica_counts_for_itself() {
    let estimate = cost(((request(LONGEST).to_string().len() as u64).div_ceil(4), LONGEST));
    let cap = 6 * cost(TOLD) + 6 * estimate;
    let stage = Stage::set(Server::durable(), "local", cap).await;
    stage.answered(6).await;
    stage.purse_is_the_bill("all is well").await;
    stage.server.freeze();
    for responses in stage.meanwhile().await {
        // Each goes on from what it last knew. Neither knows of the other's, so together they may pass the cap.
        let answered = count(&responses, 429, "insufficient_quota");
        assert!((6..MEANWHILE).contains(&answered), "{answered}");
    }
    stage.server.thaw();
    stage.purse_is_the_bill("it stood still, and goes on").await;
    until_refused(&stage).await;
    drop(stage);
    // With room enough it is the same two outages as for the others.
    outage("local", 1000 * cost(TOLD), |responses, _| assert_eq!(count(responses, 0, ""), MEANWHILE)).await;
}

/// Redis lost everything. The replicas tell it again what they knew to be used, and what has ended since: nobody gets a new
/// budget. Only what was reserved is not held back until it is settled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_comes_back_empty_is_told_what_was_used() {
    let cap = 12 * cost(TOLD) + cost(TOLD) / 2;
    let mut stage = Stage::set(Server::forgetful(), "deny", cap).await;
    stage.answered(6).await;
    stage.purse_is_the_bill("all is well").await;
    let gate = Gate::new();
    let streams = stage.begun(&gate, 2).await;
    stage.server.stop();
    for responses in stage.meanwhile().await {
        assert_eq!(count(&responses, 503, "limits_unavailable"), 0);
    }
    stage.server.again();
    stage.purse().comes_to("what was used is told again", || (6 * cost(TOLD), 0)).await;
    gate.open();
    for stream in streams {
        assert!(is_complete(&stream.await.unwrap()));
    }
    stage.purse_is_the_bill("what was under way is settled").await;
    stage.answered(3).await;
    until_refused(&stage).await;
    stage.purse_is_the_bill("the budget is spent once").await;
    assert!(stage.replicas.iter().all(|replica| replica.log().contains("Redis has lost what it counted")), "nobody said that Redis lost its data");
}
