//! A small piece of what `cargo run -p tests --bin chaos` does at length: two gateways and one Redis, and one thing after the
//! other goes wrong with them.

use std::time::Duration;

use tests::chaos::{Plan, run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_goes_wrong_the_purse_is_what_was_billed() {
    let plan = Plan { seed: 1, clients: 60, budget: 20, when_down: "deny".into(), blows: 4, kills: true, forgetful: false, arrival: Duration::from_secs(5), patient: false };
    let report = run(&plan).await;
    assert!(report.complete > 0 && report.refused > 0 && report.unavailable > 0 && report.most <= report.cap, "{report:#?}");
}
