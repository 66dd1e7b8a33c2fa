//! What stands around the code is held to it: the generated reference, every configuration that is shipped or shown, the
//! dashboard's figures, the links between the pages, and the arrows between the crates.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // the functions beside the tests are tests too

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use gateway::ledger::{Entry, Try};
use gateway::metrics::Metrics;
use providers::prices::Nanodollars;
use providers::usage::Usage;
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&read(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Compares a generated file with what it should be; rewrites it with `BLESS=1`.
fn current(path: &str, want: &str) {
    let have = fs::read_to_string(root().join(path)).unwrap_or_default();
    if have == want {
        return;
    }
    assert!(std::env::var_os("BLESS").is_some(), "{path} is out of date; run: BLESS=1 cargo test -p gateway --test house");
    fs::write(root().join(path), want).unwrap();
}

#[test]
fn the_reference_and_the_schema_are_current() {
    let schema = gateway::config::schema();
    current("docs/config.schema.json", &format!("{schema:#}\n"));
    current("docs/config.md", &gateway::config::reference(&schema));
}

/// Runs `trivium check` over a configuration, with every variable that it names set to something.
fn check(name: &str, text: &str) {
    let folder = std::env::temp_dir().join(format!("trivium-house-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let path = folder.join(format!("{}.yaml", name.replace(['/', ' '], "-")));
    fs::write(&path, text).unwrap();
    let variables = text.split("${").skip(1).filter_map(|rest| rest.split(['}', ':']).next()).map(|name| (name, "something-long-enough"));
    let output = Command::new(env!("CARGO_BIN_EXE_trivium")).arg("check").arg("--config").arg(&path).envs(variables).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} is refused:\n{said}\n{text}");
    fs::remove_file(&path).unwrap();
}

#[test]
fn shipped_configurations_are_good() {
    for path in ["trivium.example.yaml", "docker/trivium.yaml"] {
        check(path, &read(path));
    }
}

/// Every page that people read.
fn pages() -> Vec<PathBuf> {
    let mut pages = vec![root().join("README.md")];
    let mut open = vec![root().join("docs")];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|e| e == "md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    pages
}

#[test]
fn configurations_in_the_pages_are_good() {
    let mut seen = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for (i, block) in text.split("```yaml\n").skip(1).enumerate() {
            let name = page.file_name().unwrap().to_string_lossy();
            check(&format!("{name} block {i}"), block.split("```").next().unwrap());
            seen += 1;
        }
    }
    assert!(seen > 0, "no page shows a configuration");
}

#[test]
fn links_between_the_pages_lead_somewhere() {
    let mut dead = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let file = link.split('#').next().unwrap();
            if !file.is_empty() && !file.contains("://") && !page.parent().unwrap().join(file).exists() {
                dead.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(dead.is_empty(), "links that lead nowhere:\n{}", dead.join("\n"));
}

/// The names of all figures, with samples of each.
fn figures() -> BTreeSet<String> {
    let metrics = Metrics::new();
    metrics.observe(&Entry {
        operation: "chat",
        route: "r".into(),
        provider: Some("p".into()),
        stream: true,
        usage: Some(Usage { input: 1, output: 1, ..Usage::default() }),
        cost: Some(Nanodollars(1)),
        tries: vec![Try { target: "p/m".into(), kind: "openai", outcome: "status", status: Some(500), ms: 1.0, start_ms: 0.0, span_id: 0, spent: None }],
        status: 200,
        client_left: true,
        first_token_ms: Some(1.0),
        token_ms: Some(1.0),
        ..Entry::blank()
    });
    let text = metrics.text();
    let counted = text.lines().filter(|l| !l.starts_with('#')).filter_map(|l| l.split(['{', ' ']).next()).map(str::to_owned);
    // The admin port adds what is read and not counted.
    let admin = include_str!("../src/admin/health.rs").replace("\\n", " ");
    counted.chain(names(&admin).map(str::to_owned)).collect()
}

/// The words in a text that are names of figures.
fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|w| w.starts_with("trivium_") || w.starts_with("gen_ai_"))
}

#[test]
fn the_dashboard_asks_for_figures_that_exist() {
    let known = figures();
    let dashboard: Value = serde_json::from_str(&read("docker/grafana/dashboards/trivium.json")).unwrap();
    let mut asked = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().unwrap_or(&Vec::new()) {
            for name in names(target["expr"].as_str().unwrap()) {
                assert!(known.contains(name), "the panel {} asks for {name}; there are: {known:?}", panel["title"]);
                asked += 1;
            }
        }
    }
    for rule in yaml("docker/alerts.yml")["groups"][0]["rules"].as_array().unwrap() {
        for name in names(rule["expr"].as_str().unwrap()) {
            assert!(known.contains(name), "the alert {} asks for {name}", rule["alert"]);
        }
    }
    assert!(asked > 10);
}

#[test]
fn the_containers_publish_on_loopback_only() {
    let compose = yaml("docker/compose.yaml");
    let services = compose["services"].as_object().unwrap();
    for name in ["gateway", "redis", "qdrant", "prometheus", "grafana"] {
        assert!(services.contains_key(name), "{name} is missing");
    }
    for (name, service) in services {
        for port in service["ports"].as_array().unwrap_or(&Vec::new()) {
            assert!(port.as_str().is_some_and(|p| p.starts_with("127.0.0.1:")), "{name} publishes {port} to everyone");
        }
        for mount in service["volumes"].as_array().unwrap_or(&Vec::new()) {
            let from = mount.as_str().unwrap().split(':').next().unwrap();
            assert!(!from.starts_with('.') || root().join("docker").join(from).exists(), "{name} mounts {from}, which is not there");
        }
    }
    for path in ["docker/prometheus.yml", "docker/grafana/provisioning/datasources/prometheus.yaml", "docker/grafana/provisioning/dashboards/trivium.yaml"] {
        assert!(yaml(path).is_object(), "{path}");
    }
    // The scrape goes to the admin port, on loopback, in the gateway's own network.
    let config = yaml("docker/trivium.yaml");
    assert_eq!(yaml("docker/prometheus.yml")["scrape_configs"][0]["static_configs"][0]["targets"][0], config["admin"]);
    assert_eq!(services["prometheus"]["network_mode"], "service:gateway");
}

#[test]
fn crates_know_only_the_crates_below_them() {
    // Floor 3 may know everything; the rest is the table in docs/architecture.md.
    let may: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("providers", &[][..]),
        ("semantic", &[]),
        ("guardrails", &[]),
        ("openapi", &[]),
        ("a2a", &[]),
        ("mcp", &["openapi", "a2a"]),
        ("gateway", &["providers", "semantic", "guardrails", "mcp", "a2a", "openapi"]),
        ("evals", &["semantic", "guardrails"]),
    ]);
    let output = Command::new(env!("CARGO")).args(["metadata", "--format-version", "1", "--no-deps", "--offline"]).current_dir(root()).output().unwrap();
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata answers in JSON");
    let packages = metadata["packages"].as_array().unwrap();
    let ours: BTreeSet<&str> = packages.iter().filter_map(|p| p["name"].as_str()).collect();
    for package in packages {
        let name = package["name"].as_str().unwrap();
        let Some(allowed) = may.get(name) else { continue };
        for dependency in package["dependencies"].as_array().unwrap() {
            let to = dependency["name"].as_str().unwrap();
            assert!(!ours.contains(to) || to == name || allowed.contains(&to), "{name} must not know {to}");
        }
    }
}
