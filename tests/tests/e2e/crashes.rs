//! One gateway that counts in memory and on disk, killed again and again under load: what was settled before stays, and
//! what was under way is at most counted once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::client::PATIENCE;
use tests::spending::{ALICE, MODEL, ask, bill, cost, end, is_complete, request, word};
use tests::{Client, Mock, Replica, Site, Stream};

const BOB: &str = "key-of-bob";
const LONGEST: u64 = 50;
const TOLD: (u64, u64) = (30, 20);

/// What `alice` has used and reserved, in billionths of a dollar.
async fn stands(gateway: &Replica) -> (u64, u64) {
    let bearer = format!("Bearer {ALICE}");
    let usage = gateway.client().send("GET", "/v1/usage", &[("authorization", &bearer)], b"").await.json();
    let nano = |amount: &Value| (amount.as_f64().expect("an amount") * 1e9).round() as u64;
    (nano(&usage["limits"][0]["used"]), nano(&usage["limits"][0]["reserved"]))
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < PATIENCE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits until everything settled so far is in the journal. What somebody else settles now is written after it, or with it;
/// and it may be that a write is under way that began before.
async fn written(site: &Site, client: &Client) {
    let journal = site.data("a").join("counters/purses.journal");
    let size = || std::fs::metadata(&journal).map_or(0, |file| file.len());
    for _ in 0..2 {
        let before = size();
        assert!(is_complete(&ask(client, BOB, &request(LONGEST)).await.unwrap()));
        until("the journal grows", async || size() != before).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_killed_forgets_at_most_what_was_under_way() {
    let mock = Arc::new(Mock::start().await);
    let consumers = format!("consumers: {{ alice: {{ keys: [{ALICE}], limits: [{{ dollars: 1000, per: 1h }}] }}, bob: {{ keys: [{BOB}], limits: [{{ requests: 100k, per: 1h }}] }} }}\n");
    let site = Site::new(&format!("{MODEL}{consumers}"), &mock);
    let stream = || Stream::sse().send(word()).pause(Duration::from_millis(3)).send(word()).send(end(TOLD));
    mock.on("m", [stream().into()]);
    // What bob has used costs him nothing here, and is no part of alice's bill.
    let (mut bobs, mut kept) = (0, 0);
    for round in 0..5 {
        let mut gateway = site.start("a").await;
        let (found, reserved) = stands(&gateway).await;
        let billed = bill(&mock) - bobs;
        assert!(kept <= found && found <= billed && reserved == 0, "round {round}: {kept} had been written, {billed} were billed, and {found} and {reserved} are there");
        assert_eq!(found % cost(TOLD), 0, "no answer counts in part");
        for _ in 0..10 {
            assert!(is_complete(&ask(&gateway.client(), ALICE, &request(LONGEST)).await.unwrap()));
        }
        kept = found + 10 * cost(TOLD);
        until("ten answers are settled", async || stands(&gateway).await == (kept, 0)).await;
        written(&site, &gateway.client()).await;
        bobs += 2 * cost(TOLD);

        // Eight clients ask without a pause, until the gateway is killed in the middle of all this.
        let under_way = mock.bill("m").len();
        let load: Vec<_> = (0..8)
            .map(|_| {
                let client = gateway.client();
                tokio::spawn(async move { while ask(&client, ALICE, &request(LONGEST)).await.is_some_and(|response| is_complete(&response)) {} })
            })
            .collect();
        mock.until("there is load", |mock| mock.bill("m").len() > under_way + 20 + 13 * round).await;
        gateway.kill();
        for client in load {
            client.await.unwrap();
        }
    }
    // Asked to end instead of killed, it forgets nothing at all.
    let mut last = site.start("a").await;
    assert!(is_complete(&ask(&last.client(), ALICE, &request(LONGEST)).await.unwrap()));
    until("the last answer is settled", async || stands(&last).await.1 == 0).await;
    let (used, _) = stands(&last).await;
    last.stop().await;
    assert_eq!(stands(&site.start("a").await).await, (used, 0));
}
