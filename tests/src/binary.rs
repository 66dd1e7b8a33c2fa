//! The gateway as a program: built when the first test asks for it, so that no test runs yesterday's.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The binary `trivium`. `TRIVIUM` names one that is there already; else cargo builds it where it built this test, and has
/// nothing to do if it is up to date.
///
/// # Panics
/// When it cannot be built.
#[must_use]
pub fn trivium() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| std::env::var_os("TRIVIUM").map_or_else(build, PathBuf::from))
}

fn build() -> PathBuf {
    // Cargo says which cargo runs this test: another one on the PATH may be of another toolchain, or wait for this one.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--locked", "--package", "gateway", "--bin", "trivium", "--message-format", "json-render-diagnostics"]);
    command.arg("--manifest-path").arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml")).args(as_this_was_built());
    // What cargo tells this test of itself would look to the other cargo like a change that build scripts have to hear of.
    for name in std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()) {
        if ["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_BIN_", "CARGO_CRATE_"].iter().any(|own| name.starts_with(own)) {
            command.env_remove(name);
        }
    }
    let built = command.output().unwrap_or_else(|error| panic!("cargo cannot be run to build the gateway: {error}"));
    assert!(built.status.success(), "the gateway cannot be built:\n{}", String::from_utf8_lossy(&built.stderr));
    let said = String::from_utf8_lossy(&built.stdout);
    let artifacts = said.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let binary = artifacts.filter(|artifact| artifact["target"]["name"] == "trivium").find_map(|artifact| artifact["executable"].as_str().map(PathBuf::from));
    binary.expect("cargo says where it put the gateway")
}

/// The profile and the target folder of this program, from where it lies: `target/debug/deps/e2e-…`, `target/debug/chaos`.
fn as_this_was_built() -> Vec<std::ffi::OsString> {
    let me = std::env::current_exe().expect("a program knows where it lies");
    let folder = me.parent().filter(|folder| folder.ends_with("deps")).and_then(Path::parent).or_else(|| me.parent());
    let (Some(profile), Some(target)) = (folder.and_then(Path::file_name), folder.and_then(Path::parent)) else { return Vec::new() };
    let profile = if profile == "debug" { "dev".into() } else { profile.to_owned() };
    vec!["--profile".into(), profile, "--target-dir".into(), target.into()]
}
