//! Which crate may depend on which: the floors of the house. A new arrow is drawn here on purpose, or not at all.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Every crate with those of the house that it may know.
const ARROWS: &[(&str, &[&str])] = &[
    ("providers", &[]),
    ("semantic", &[]),
    ("guardrails", &[]),
    ("openapi", &[]),
    ("a2a", &[]),
    ("mcp", &["openapi", "a2a"]),
    ("gateway", &["providers", "semantic", "guardrails", "mcp", "openapi", "a2a"]),
    ("evals", &["semantic", "guardrails"]),
    ("tests", &["gateway", "providers", "semantic", "guardrails", "mcp", "openapi", "a2a"]),
    ("load", &["gateway", "providers"]),
];

fn drawn() -> BTreeMap<String, BTreeSet<String>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo).args(["metadata", "--no-deps", "--offline", "--format-version", "1"]).current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo metadata runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON");
    let name = |v: &serde_json::Value| v["name"].as_str().expect("a name").to_owned();
    let packages = metadata["packages"].as_array().expect("packages");
    let inside = |p: &serde_json::Value| p["dependencies"].as_array().expect("dependencies").iter().filter(|d| d["path"].is_string()).map(name).collect();
    packages.iter().map(|p| (name(p), inside(p))).collect()
}

#[test]
fn crates_know_only_what_the_house_allows() {
    let drawn = drawn();
    let members: BTreeSet<&str> = drawn.keys().map(String::as_str).collect();
    let listed: BTreeSet<&str> = ARROWS.iter().map(|(name, _)| *name).collect();
    assert_eq!(members, listed, "the workspace's crates are not those of the list");
    for (name, allowed) in ARROWS {
        for to in &drawn[*name] {
            assert!(allowed.contains(&to.as_str()), "{name} depends on {to}, which it must not know");
        }
    }
}

#[test]
fn no_arrow_goes_round_in_a_circle() {
    // Peel off the crates that know nobody of those left, until none is left.
    let mut left = drawn();
    while !left.is_empty() {
        let free: Vec<String> = left.iter().filter(|(_, to)| to.iter().all(|t| !left.contains_key(t))).map(|(name, _)| name.clone()).collect();
        assert!(!free.is_empty(), "a circle among {:?}", left.keys());
        for name in free {
            left.remove(&name);
        }
    }
}
