//! Two gateways, each a process of its own, and one Redis: they hold one budget together, also when one of them is killed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

use serde_json::Value;
use tests::redis::Server;
use tests::spending::{ALICE, MODEL, Purse, ask, bill, cost, dollars, end, is_complete, request, word};
use tests::{Client, Gate, Mock, Replica, Response, Site, Stream};

const DOLLARS: &str = "consumer:alice|Nanodollars|sliding:3600|*";
/// Most tokens of an answer.
const LONGEST: u64 = 50;
/// Far longer than the slowest machine keeps a request waiting for Redis: the caps are exact only while it answers.
const REDIS: &str = "redis: { url: \"{{redis}}\", timeout: 20s }\n";

fn site(mock: &Mock, server: &Server, limits: &str) -> Site {
    let consumers = format!("consumers: {{ alice: {{ keys: [{ALICE}], limits: [{limits}] }} }}\n");
    Site::new(&format!("{MODEL}{consumers}{}", REDIS.replace("{{redis}}", &server.url())), mock)
}

/// The answers of streams that all wait at one gate.
fn gated(gate: &Gate, told: (u64, u64)) -> Stream {
    Stream::sse().send(word()).wait(gate).send(word()).send(end(told))
}

/// How many tokens of a prompt a request is taken for.
fn prompt(body: &Value) -> u64 {
    (body.to_string().len() as u64).div_ceil(4)
}

/// Asserts that this is what a client is told whose money is spent, and gives the seconds that it is to wait.
fn no_money(response: &Response) -> u64 {
    let message = response.fault(429, "insufficient_quota");
    assert!(message.contains("dollars"), "{message}");
    response.header("retry-after").and_then(|after| after.parse().ok()).filter(|after| *after > 0).unwrap_or_else(|| panic!("no Retry-After: {message}"))
}

/// So many clients at once, half of them at each replica. Whoever is let through waits at the gate until all have been let
/// through or refused; then `meanwhile` looks at the purse, and the gate opens. Gives all answers.
async fn storm(mock: &Mock, clients: &[Client], told: (u64, u64), count: usize, meanwhile: impl FnOnce(u64)) -> Vec<Response> {
    let (gate, before) = (Gate::new(), mock.bill("m").len());
    mock.on("m", [gated(&gate, told).into()]);
    let refused = Arc::new(AtomicU64::new(0));
    let tasks: Vec<_> = (0..count)
        .map(|i| {
            let (client, refused) = (clients[i % clients.len()].clone(), refused.clone());
            tokio::spawn(async move {
                let response = ask(&client, ALICE, &request(LONGEST)).await.expect("the gateway is there");
                refused.fetch_add(u64::from(response.status != 200), SeqCst);
                response
            })
        })
        .collect();
    mock.until("everybody is let through or refused", |mock| mock.bill("m").len() - before + refused.load(SeqCst) as usize == count).await;
    meanwhile((mock.bill("m").len() - before) as u64);
    gate.open();
    let mut responses = Vec::new();
    for task in tasks {
        responses.push(task.await.unwrap());
    }
    assert!(responses.iter().all(|response| is_complete(response) || no_money(response) > 0));
    responses
}

fn served(responses: &[Response]) -> u64 {
    responses.iter().filter(|response| response.status == 200).count() as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_streams_at_once_spend_one_budget() {
    let (mock, server) = (Mock::start().await, Server::forgetful());
    // What is reserved is what the guide says, and each answer costs a hair more: the error of an estimate.
    let (estimate, told) = ((prompt(&request(LONGEST)), LONGEST), (prompt(&request(LONGEST)) + 1, LONGEST));
    let cap = 100 * cost(estimate) + cost(estimate) / 2;
    let site = site(&mock, &server, &format!("{{ dollars: {}, per: 1h }}", dollars(cap)));
    let (a, b) = tokio::join!(site.start("a"), site.start("b"));
    let purse = Purse::new(&server, DOLLARS);
    let responses = storm(&mock, &[a.client(), b.client()], told, 500, |under_way| assert_eq!((under_way, purse.stands()), (100, (0, 100 * cost(estimate))))).await;
    assert_eq!(served(&responses), 100);
    purse.comes_to("all is settled", || (bill(&mock), 0)).await;
    // The cap is passed by the errors of the estimates, which are less than one estimate, and everybody is told to come again when the hour is over.
    let spent = purse.stands().0;
    assert!(spent == 100 * cost(told) && cap < spent && spent <= cap + cost(estimate), "{spent} of {cap}");
    for replica in [&a, &b] {
        let after = no_money(&ask(&replica.client(), ALICE, &request(LONGEST)).await.unwrap());
        assert!((3000..=3660).contains(&after), "{after}");
    }
    assert_eq!(mock.bill("m").len(), 100, "a refused request costs nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strict_budget_is_never_passed() {
    let (mock, server) = (Mock::start().await, Server::forgetful());
    let told = (prompt(&request(LONGEST)), LONGEST);
    let worst = cost((request(LONGEST).to_string().len() as u64, LONGEST));
    let cap = 100 * cost(told);
    let site = site(&mock, &server, &format!("{{ dollars: {}, per: 1h, strict: true }}", dollars(cap)));
    let (a, b) = tokio::join!(site.start("a"), site.start("b"));
    let (purse, clients) = (Purse::new(&server, DOLLARS), [a.client(), b.client()]);
    let (mut total, mut count) = (0, 500);
    // Each wave gets what the waves before have given back of their worst case, until that is less than one.
    loop {
        let within = |_| {
            let (used, reserved) = purse.stands();
            assert!(used + reserved <= cap, "{used} and {reserved} of {cap}");
        };
        let responses = storm(&mock, &clients, told, count, within).await;
        purse.comes_to("a wave is settled", || (bill(&mock), 0)).await;
        assert!(bill(&mock) <= cap, "{} of {cap}", bill(&mock));
        let now = served(&responses);
        if now == 0 {
            break;
        }
        (total, count) = (total + now, 40);
    }
    assert!(total <= 100 && cap - purse.stands().0 < worst, "{total} were served");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_used_on_one_replica_is_missing_on_the_other_until_it_frees() {
    let (mock, server) = (Mock::start().await, Server::forgetful());
    mock.on("m", [Stream::sse().send(word()).send(end((9, 5))).into()]);
    let limits = format!("{{ requests: 3, per: 2s }}, {{ dollars: {}, per: 3s }}", dollars(cost((9, 5)) * 4 + cost((prompt(&request(LONGEST)), LONGEST))));
    let site = site(&mock, &server, &limits);
    let (a, b) = tokio::join!(site.start("a"), site.start("b"));
    let (mut slow, mut dear) = (0, 0);
    // Twelve answers, the replicas in turn: each refusal says how long to wait, and after that long the other one answers.
    for i in 0..12 {
        let client = if i % 2 == 0 { a.client() } else { b.client() };
        let response = ask(&client, ALICE, &request(LONGEST)).await.unwrap();
        if is_complete(&response) {
            // Settled before the next one asks, so that nobody waits for a reservation.
            purses_are_settled(&server).await;
            continue;
        }
        let code = response.json()["error"]["code"].as_str().unwrap().to_owned();
        response.fault(429, &code);
        *match code.as_str() {
            "rate_limit_exceeded" => &mut slow,
            "insufficient_quota" => &mut dear,
            other => panic!("{other}"),
        } += 1;
        let wait: u64 = response.header("retry-after-ms").unwrap().parse().unwrap();
        assert!(wait <= 3100, "{wait}");
        tokio::time::sleep(Duration::from_millis(wait)).await;
        let other = if i % 2 == 0 { b.client() } else { a.client() };
        let again = ask(&other, ALICE, &request(LONGEST)).await.unwrap();
        assert!(is_complete(&again), "refused after having waited as told: {}", again.text());
        purses_are_settled(&server).await;
    }
    assert!(slow > 0 && dear > 0, "{slow} refusals for their number, {dear} for their cost");
}

async fn purses_are_settled(server: &Server) {
    for key in ["consumer:alice|Requests|sliding:2|*", "consumer:alice|Nanodollars|sliding:3|*"] {
        let purse = Purse::new(server, key);
        purse.comes_to("an answer is settled", || (purse.stands().0, 0)).await;
    }
}

/// The crash: what was settled stays, what was under way is given back when its lease is over, and nothing counts twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_replica_gives_back_what_it_held_and_keeps_what_it_settled() {
    const TOTAL: Duration = Duration::from_secs(5);
    let (mock, server) = (Mock::start().await, Server::durable());
    let (estimate, told) = (cost((prompt(&request(LONGEST)), LONGEST)), (9, 20));
    let cap = 12 * cost(told) + 8 * estimate;
    let site = Site::new(
        &format!(
            "models: {{ m: {{ target: well/m, timeout: {{ total: 5s }} }} }}\nprices: {{ well/m: {{ input: 1000, output: 2000 }} }}\nconsumers: {{ alice: {{ keys: [{ALICE}], limits: [{{ dollars: {}, per: 1h }}] }} }}\n{}",
            dollars(cap),
            REDIS.replace("{{redis}}", &server.url())
        ),
        &mock,
    );
    let (a, mut b) = tokio::join!(site.start("a"), site.start("b"));
    let (purse, both) = (Purse::new(&server, DOLLARS), [a.client(), b.client()]);
    mock.on("m", [Stream::sse().send(word()).send(end(told)).into()]);
    for i in 0..12 {
        assert!(is_complete(&ask(&both[i % 2], ALICE, &request(LONGEST)).await.unwrap()));
    }
    purse.comes_to("what was answered is settled", || (12 * cost(told), 0)).await;

    // Eight streams fill the rest, four on each; then one of the two dies.
    let gate = Gate::new();
    mock.on("m", [gated(&gate, told).into()]);
    let spawn = |i: usize| {
        let client = both[i % 2].clone();
        tokio::spawn(async move { ask(&client, ALICE, &request(LONGEST)).await })
    };
    let mut under_way: Vec<_> = (0..8).map(spawn).collect();
    mock.until("all eight are under way", |mock| mock.bill("m").iter().filter(|served| served.chunks == 1).count() == 8).await;
    b.kill();
    mock.until("the streams of the dead are left", |mock| mock.left() == 4).await;
    for broken in (0..4).map(|i| under_way.remove(i + 1)).collect::<Vec<_>>() {
        assert!(broken.await.unwrap().is_none_or(|response| response.broken), "a stream of a killed gateway seemed complete");
    }
    assert_eq!(purse.stands(), (12 * cost(told), 8 * estimate), "a crash as such changes nothing");
    no_money(&ask(&a.client(), ALICE, &request(LONGEST)).await.unwrap());

    // The living one goes on.
    gate.open();
    for stream in under_way {
        assert!(is_complete(&stream.await.unwrap().unwrap()));
    }
    purse.comes_to("the living has settled", || (16 * cost(told), 4 * estimate)).await;
    assert_eq!(bill(&mock), 16 * cost(told));

    // The dead one's reservations outlive their requests by a minute and no more.
    let leases = purse.leases();
    assert!(leases.len() == 4 && leases.iter().all(|(_, left)| *left <= TOTAL + Duration::from_secs(60)), "{leases:?}");
    purse.pass(TOTAL + Duration::from_secs(60));
    let b = site.start("b").await;
    mock.on("m", [Stream::sse().send(word()).send(end(told)).into()]);
    assert!(is_complete(&ask(&b.client(), ALICE, &request(LONGEST)).await.unwrap()));
    purse.comes_to("the reservations of the dead are given back", || (bill(&mock), 0)).await;
    assert_eq!(bill(&mock), 17 * cost(told));
}

/// One that is asked to end settles everything before it does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_asked_to_end_leaves_nothing_open() {
    let (mock, server) = (Mock::start().await, Server::forgetful());
    let site = site(&mock, &server, "{ dollars: 100, per: 1h }");
    let mut a: Replica = site.start("a").await;
    let (gate, purse) = (Gate::new(), Purse::new(&server, DOLLARS));
    mock.on("m", [gated(&gate, (9, 20)).into()]);
    let streams: Vec<_> = (0..20)
        .map(|_| {
            let client = a.client();
            tokio::spawn(async move { ask(&client, ALICE, &request(LONGEST)).await })
        })
        .collect();
    mock.until("all are under way", |mock| mock.bill("m").iter().filter(|served| served.chunks == 1).count() == 20).await;
    let opening = gate.clone();
    let opened = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        opening.open();
    });
    a.stop().await;
    opened.await.unwrap();
    for stream in streams {
        assert!(is_complete(&stream.await.unwrap().unwrap()));
    }
    assert_eq!(purse.stands(), (20 * cost((9, 20)), 0));
}
