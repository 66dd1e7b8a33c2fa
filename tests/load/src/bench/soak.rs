//! The soak: very many requests and streams through the gateway, and what its memory makes of them.

use std::{fmt::Write, time::Duration};

use super::{Contest, report::machine, scenario::Role, stage::Stage};

/// Memory is read so many times in each of the two phases.
const SLICES: u64 = 20;

/// One slice may take this long.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// Asks so many small requests and so many streams; gives a table as Markdown and as JSON.
pub async fn soak(contest: &Contest, requests: u64, streams: u64) -> Result<(String, serde_json::Value), String> {
    let mut stage = Stage::set(contest).await?;
    stage.start(Role::Gateway).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let megabytes = |stage: &Stage| Ok::<_, String>(stage.resident(Role::Gateway)? as f64 / 1e6);
    let idle = megabytes(&stage)?;
    let mut text = format!("## Soak\n\n- machine: {}\n\n| asked | resident, MB | CPU per request, µs |\n|--:|--:|--:|\n| idle | {idle:.2} | – |\n", machine());
    let (mut samples, mut total) = (Vec::new(), 0);
    for (what, count, shape) in [("requests", requests, None), ("streams", streams, Some("burst-20"))] {
        let mut asked = 0;
        for slice in 1..=SLICES {
            let share = (count * slice / SLICES - asked).to_string();
            asked = count * slice / SLICES;
            let mut arguments = vec!["--count", share.as_str()];
            shape.iter().for_each(|shape| arguments.extend(["--shape", *shape]));
            let report = stage.load(Role::Gateway, "m", &arguments, LIMIT).await?;
            if report.errors > 0 {
                let error = report.first_error.unwrap_or_default();
                return Err(format!("{} of {what} failed, the first: {error}{}", report.errors, stage.log(Role::Gateway)));
            }
            total += report.requests;
            let resident = megabytes(&stage)?;
            let cpu = report.cpu_seconds.map_or(0.0, |spent| spent * 1e6 / report.requests.max(1) as f64);
            eprintln!("soak: {asked} {what}, {resident:.2} MB");
            let _ = writeln!(text, "| {asked} {what} | {resident:.2} | {cpu:.1} |");
            samples.push(serde_json::json!({"what": what, "asked": asked, "resident_mb": resident, "cpu_per_request_us": cpu}));
        }
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let end = megabytes(&stage)?;
    // The first slice fills pools and arenas once; what grows after it is what would grow for ever.
    let warm = samples.first().and_then(|sample| sample["resident_mb"].as_f64()).unwrap_or(idle);
    let _ = writeln!(text, "\n{total} answers, none failed. Resident: idle {idle:.2} MB, after the first slice {warm:.2} MB, two seconds after the end {end:.2} MB: growth {:+.2} MB.", end - warm);
    let json = serde_json::json!({"machine": machine(), "idle_mb": idle, "warm_mb": warm, "end_mb": end, "growth_mb": end - warm, "answers": total, "samples": samples});
    Ok((text, json))
}
