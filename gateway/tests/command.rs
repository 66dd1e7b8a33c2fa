//! The command line, as a person sees it: what `check` says of a bad configuration, and what `explain` says of a request.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // the functions beside the tests are tests too

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A configuration in a file that goes when it is dropped.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("trivium-command-{}-{name}.yaml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        File(path)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn trivium(command: &str, config: &File, arguments: &[&str], input: &str) -> Output {
    trivium_in(&[], command, config, arguments, input)
}

/// The same with these variables, and without those of whoever runs the tests.
fn trivium_in(env: &[(&str, &str)], command: &str, config: &File, arguments: &[&str], input: &str) -> Output {
    let mut trivium = Command::new(env!("CARGO_BIN_EXE_trivium"));
    for name in ["http_proxy", "https_proxy", "all_proxy", "no_proxy"] {
        trivium.env_remove(name).env_remove(name.to_ascii_uppercase());
    }
    let mut child = trivium
        .envs(env.iter().copied())
        .arg(command)
        .arg("--config")
        .arg(&config.0)
        .args(arguments)
        .env_remove("NOT_SET")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Whoever does not read its input has ended already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn lines(bytes: &[u8]) -> Vec<String> {
    String::from_utf8(bytes.to_vec()).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn what_cannot_be_read_hides_nothing_that_dangles() {
    let config = File::new(
        "check",
        "providers:\n  a: { kind: opnai, api_key: \"${NOT_SET}\" }\n  b: { kind: echo, colour: red }\nmodels:\n  m: { targets: [a/x, { model: c/y, wieght: 3 }], timeout: { total: soon } }\n  m: b/x\nlisten: 0.0.0.0:8080\nmcp: {}\n",
    );
    let output = trivium("check", &config, &[], "");
    assert!(!output.status.success() && output.stdout.is_empty());
    let said = lines(&output.stderr);
    let place = |rest: &str| format!("error: {}:{rest}", config.0.display());
    let expected = [
        place("2:8: providers.a.kind: unknown kind \"opnai\"; did you mean `openai`?"),
        place("2:21: providers.a.api_key: the environment variable NOT_SET is not set"),
        place("3:20: providers.b.colour: unknown field"),
        place("5:25: models.m.targets[1].model: no provider \"c\"; known: a, b"),
        place("5:37: models.m.targets[1].wieght: unknown field; did you mean `weight`?"),
        place("5:62: models.m.timeout.total: \"soon\" is not a duration"),
        place("6:3: models.m: is written twice, first in line 5"),
        place("7:1: listen: 0.0.0.0:8080 is not on loopback"),
        place("8:1: mcp: is not supported yet by this version"),
    ];
    assert_eq!(said.len(), expected.len(), "{said:#?}");
    for (said, expected) in said.iter().zip(&expected) {
        assert!(said.starts_with(expected), "{expected} is not {said}");
    }
    // Whoever starts it is told the same.
    let served = trivium("serve", &config, &[], "");
    assert_eq!((served.status.code(), lines(&served.stderr)), (Some(1), said.clone()));
    // And a file can be named without the flag.
    let named = Command::new(env!("CARGO_BIN_EXE_trivium")).arg("check").arg(&config.0).output().expect("trivium runs");
    assert_eq!(lines(&named.stderr), said);
}

#[test]
fn an_explanation_or_what_the_client_would_be_told() {
    let config = File::new(
        "explain",
        "providers: { a: { kind: openai, api_key: sk-very-secret } }\nmodels: { \"m-*\": { targets: [\"a/one-*\", \"a/two-*\"], balance: consistent_hash, hash_on: x-tenant } }\nconsumers: { alice: { keys: [key-of-alice], models: [\"m-*\"] }, bob: { keys: [key-of-bob-1], models: [n] } }\n",
    );
    let body = "{\"model\": \"m-x\", \"messages\": [{\"role\": \"user\", \"content\": \"Hello\"}]}";
    let output = trivium("explain", &config, &["--consumer", "alice", "-H", "X-Tenant: acme"], body);
    assert!(output.status.success(), "{:?}", lines(&output.stderr));
    let explained: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(explained["plan"]["why"].as_str().unwrap().contains("the header x-tenant of this request leads to"), "{explained}");
    assert!(explained["targets"][0]["call"]["body"]["model"].as_str().unwrap().ends_with("-x"), "{explained}");
    assert!(!explained.to_string().contains("secret"));

    let output = trivium("explain", &config, &["--consumer", "bob"], body);
    assert_eq!(output.status.code(), Some(1));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&told["error"]["status"], &told["error"]["body"]["error"]["code"]), (&403.into(), &"model_not_allowed".into()), "{told}");
    let output = trivium("explain", &config, &["-H", "no colon"], body);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn proxies_of_the_environment_and_of_a_provider() {
    let config = File::new(
        "proxies",
        "providers:\n  far: { kind: openai, api_key: sk-far-secret }\n  own: { kind: openai, base_url: \"http://gpu.corp/v1\" }\n  here: { kind: ollama }\n  said: { kind: openai, base_url: \"http://127.0.0.1:9/v1\", proxy: \"http://user:pass-word@other:8080\" }\n  off: { kind: openai, base_url: \"https://eu.example.com/v1\", proxy: off }\n",
    );
    let env = [("HTTPS_PROXY", "http://proxy:3128"), ("http_proxy", "http://plain:3128"), ("NO_PROXY", ".corp")];
    for (provider, proxy) in [("far", Some("proxy:3128")), ("own", None), ("here", None), ("said", Some("other:8080")), ("off", None)] {
        let body = format!("{{\"model\": \"{provider}/m\", \"messages\": [{{\"role\": \"user\", \"content\": \"Hello\"}}]}}");
        let output = trivium_in(&env, "explain", &config, &[], &body);
        let explained: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {:?}", lines(&output.stderr)));
        assert_eq!(explained["targets"][0]["call"]["proxy"].as_str(), proxy, "{provider}: {explained}");
        assert!(!explained.to_string().contains("pass-word"));
    }
    // A proxy that cannot be used is not gone around.
    let output = trivium_in(&[("ALL_PROXY", "socks5://proxy:1080")], "check", &config, &[], "");
    assert!(!output.status.success() && lines(&output.stderr)[0].contains("the environment variable ALL_PROXY: a proxy reached by `socks5://` is not supported"), "{:?}", lines(&output.stderr));
    let config = File::new("no-proxy", "providers: { a: { kind: openai, api_key: x, proxy: \"https://user:pass-word@proxy\" } }\n");
    let said = lines(&trivium("check", &config, &[], "").stderr);
    assert!(said.len() == 1 && said[0].contains(":1:45: providers.a.proxy: a proxy reached by `https://` is not supported") && !said[0].contains("pass-word"), "{said:?}");
}
