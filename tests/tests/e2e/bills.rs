//! The purse, the ledger and the provider's bill are one sum, however a request ends: completed, left, cut off, tried again
//! or answered by another target.

use serde_json::Value;
use tests::spending::{ALICE, ask, cost, counted_word, end, is_complete, request, word};
use tests::{Behaviour, Gate, Mock, Running, Stream};

const LONGEST: u64 = 50;

struct Till {
    mock: Mock,
    gateway: Running,
    requests: usize,
    owed: u64,
}

impl Till {
    async fn open() -> Self {
        let mock = Mock::start().await;
        let yaml = format!(
            "models: {{ m: {{ target: well/m, fallback: [well/other], retry: {{ attempts: 2, backoff: 1ms }}, breaker: {{ failures: 0 }} }}, d: {{ target: well/d, on_disconnect: drain }} }}\nprices: {{ well/d: {{ input: 1000, output: 2000 }}, well/m: {{ input: 1000, output: 2000 }}, well/other: {{ input: 1000, output: 2000 }} }}\nconsumers: {{ alice: {{ keys: [{ALICE}], limits: [{{ dollars: 100, per: 1h }}, {{ requests: 100, per: 1h }}] }} }}\ndata: \"{{{{folder}}}}\"\n"
        );
        let gateway = Running::start(&yaml, &mock).await;
        Till { mock, gateway, requests: 0, owed: 0 }
    }

    /// Asks, and reads the answer to its end. Gives its events.
    async fn asked(&mut self) -> String {
        let response = ask(&self.gateway.client(), ALICE, &request(LONGEST)).await.unwrap();
        self.requests += 1;
        response.text()
    }

    /// Asks, reads an event, opens the gate behind it, reads so many more, and leaves.
    async fn left(&mut self, gate: &Gate, more: usize) {
        let bearer = format!("Bearer {ALICE}");
        let mut stream = self.gateway.client().events("/v1/chat/completions", &[("authorization", &bearer)], &request(LONGEST)).await;
        stream.next().await.expect("an event");
        gate.open();
        for _ in 0..more {
            stream.next().await.expect("an event");
        }
        self.requests += 1;
    }

    /// The ledger's last entry, once the last request is in it. Its cost is what the purse has gained.
    async fn settled(&mut self) -> Value {
        let entry = self.gateway.entries(self.requests).await.pop().expect("an entry");
        self.owed += nano(&entry["cost"]);
        let bearer = format!("Bearer {ALICE}");
        let limits = self.gateway.client().send("GET", "/v1/usage", &[("authorization", &bearer)], b"").await.json()["limits"].clone();
        let stands: Vec<_> = (0..2).map(|i| (&limits[i]["used"], &limits[i]["reserved"])).collect();
        assert_eq!((nano(stands[0].0), nano(stands[0].1)), (self.owed, 0), "the purse is not the ledger's sum: {entry}");
        assert_eq!((stands[1].0.as_u64(), stands[1].1.as_u64()), (Some(self.requests as u64), Some(0)), "each request counts once, however often it was tried");
        entry
    }
}

fn nano(amount: &Value) -> u64 {
    (amount.as_f64().unwrap_or_default() * 1e9).round() as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_provider_tells_is_what_is_owed() {
    let mut till = Till::open().await;
    till.mock.on("m", [Stream::sse().send(word()).send(end((9, 20))).into()]);
    till.asked().await;
    assert_eq!(nano(&till.settled().await["cost"]), cost((9, 20)));

    // Left in the middle of a stream whose events say what was used up to them: the last one that came counts.
    let (gate, never) = (Gate::new(), Gate::new());
    till.mock.on("m", [Stream::sse().send(counted_word((9, 1))).wait(&gate).send(counted_word((9, 2))).wait(&never).send(end((9, 40))).into()]);
    till.left(&gate, 1).await;
    let entry = till.settled().await;
    assert_eq!((nano(&entry["cost"]), entry["client_left"].as_bool(), entry["usage"]["estimated"].as_bool()), (cost((9, 2)), Some(true), Some(false)), "{entry}");

    // Left, but read on to its end by the gateway: all of it counts.
    let gate = Gate::new();
    till.mock.on("d", [Stream::sse().send(counted_word((9, 1))).wait(&gate).send(end((9, 40))).into()]);
    let mut body = request(LONGEST);
    body["model"] = Value::from("d");
    let bearer = format!("Bearer {ALICE}");
    let mut stream = till.gateway.client().events("/v1/chat/completions", &[("authorization", &bearer)], &body).await;
    stream.next().await.expect("an event");
    drop(stream);
    // Long enough for the gateway to notice, mostly; what is owed is the same if it does not.
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    gate.open();
    till.requests += 1;
    assert_eq!(nano(&till.settled().await["cost"]), cost((9, 40)));

    // Cut off by the provider after the same two: the client hears of it, and owes them.
    till.mock.on("m", [Stream::sse().send(counted_word((9, 1))).send(counted_word((9, 2))).cut().into()]);
    let events = till.asked().await;
    assert!(events.contains("\"error\"") && !events.contains("[DONE]"), "{events}");
    assert_eq!(nano(&till.settled().await["cost"]), cost((9, 2)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_tells_is_estimated() {
    let mut till = Till::open().await;
    let never = Gate::new();
    for cut in [false, true] {
        let gate = Gate::new();
        let words = Stream::sse().send(word()).wait(&gate).send(word()).send(word());
        till.mock.on("m", [if cut { words.cut() } else { words.wait(&never).send(end((9, 40))) }.into()]);
        // The event after a stream was cut is the one that says so.
        till.left(&gate, if cut { 3 } else { 2 }).await;
        let entry = till.settled().await;
        let (prompt, completion) = (entry["usage"]["input"].as_u64().unwrap(), entry["usage"]["output"].as_u64().unwrap());
        assert_eq!((entry["usage"]["estimated"].as_bool(), prompt), (Some(true), (request(LONGEST).to_string().len() as u64).div_ceil(4)), "{entry}");
        assert!(completion > 0 && nano(&entry["cost"]) == cost((prompt, completion)), "{entry}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_try_is_owed_what_was_told_of_it() {
    let mut till = Till::open().await;
    // Tried again.
    till.mock.on("m", [Behaviour::error(500, "no"), Stream::sse().send(word()).send(end((9, 20))).into()]);
    till.asked().await;
    let entry = till.settled().await;
    assert_eq!((nano(&entry["cost"]), entry["tries"].as_array().map(Vec::len)), (cost((9, 20)), Some(2)), "{entry}");

    // A target that has used something and breaks off before it has anything to show, twice; another one answers.
    let greeting = "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":0,\"total_tokens\":9}}\n\n";
    till.mock.on("m", [Stream::sse().send(greeting).cut().into()]);
    till.mock.on("other", [Stream::sse().send(word()).send(end((9, 30))).into()]);
    till.asked().await;
    let entry = till.settled().await;
    assert_eq!((nano(&entry["cost"]), &entry["model_used"]), (cost((9, 30)) + 2 * cost((9, 0)), &Value::from("other")), "{entry}");
    assert_eq!(till.mock.bill("m").iter().filter(|served| served.told == Some((9, 0))).count(), 2);

    // Nobody answers: what was used for that is owed all the same.
    till.mock.on("other", [Behaviour::error(503, "no")]);
    let error = till.asked().await;
    assert!(error.contains("\"error\""), "{error}");
    assert_eq!(nano(&till.settled().await["cost"]), 2 * cost((9, 0)));

    // And whoever answers next is owed as ever.
    till.mock.on("m", [Stream::sse().send(word()).send(end((9, 20))).into()]);
    let response = ask(&till.gateway.client(), ALICE, &request(LONGEST)).await.unwrap();
    assert!(is_complete(&response));
    till.requests += 1;
    till.settled().await;
}
