//! Gateways as processes of their own, so that one can be killed like any other process, and several can share a Redis.

use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::binary::trivium;
use crate::client::{Client, PATIENCE};
use crate::harness::Folder;
use crate::mock::Mock;

/// A configuration on disk from which gateways are started.
pub struct Site {
    folder: Folder,
}

impl Site {
    /// Writes a story's YAML, in which `{{mock}}` stands for the mock's URL. Beside it there is a provider `well` that is the
    /// mock. Each replica has a data folder by its name.
    #[must_use]
    pub fn new(yaml: &str, mock: &Mock) -> Self {
        let folder = Folder::new();
        let own = "listen: 127.0.0.1:0\nadmin: off\nlog: { audit: off }\ndata: \"${REPLICA_DATA}\"\nproviders: { well: { kind: openai, base_url: \"{{mock}}/v1\", api_key: sk-well-secret } }\n";
        folder.write("00-site.yaml", &own.replace("{{mock}}", &mock.url()));
        folder.write("10-story.yaml", &yaml.replace("{{mock}}", &mock.url()));
        Site { folder }
    }

    /// Starts a replica, or starts it again: what one of this name has left on disk is there.
    ///
    /// # Panics
    /// When it does not listen in time, with what it said.
    pub async fn start(&self, name: &str) -> Replica {
        let log = self.folder.path().join(format!("{name}.log"));
        let stderr = File::options().create(true).append(true).open(&log).expect("a log file");
        let said = std::fs::metadata(&log).map_or(0, |file| file.len());
        let mut command = Command::new(trivium());
        command.arg("serve").arg("--config").arg(self.folder.config()).env("REPLICA_DATA", self.data(name)).env_remove("TRIVIUM_LOG").env_remove("TRIVIUM_CONFIG");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn().expect("the gateway's binary runs");
        let mut replica = Replica { child, address: SocketAddr::from(([0, 0, 0, 0], 0)), log };
        replica.address = replica.greeted(usize::try_from(said).unwrap_or(0)).await;
        replica
    }

    /// Where a replica keeps what it keeps.
    #[must_use]
    pub fn data(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.data"))
    }
}

/// A gateway in a process of its own. It is killed when it is dropped.
pub struct Replica {
    child: Child,
    /// Where clients connect.
    pub address: SocketAddr,
    log: PathBuf,
}

impl Replica {
    /// Waits for the greeting and takes the address from it.
    async fn greeted(&mut self, from: usize) -> SocketAddr {
        let began = Instant::now();
        loop {
            let said = self.log();
            let greeting = said.get(from..).and_then(|said| said.split_once("an OpenAI SDK at")?.1.split_once("http://")?.1.split_once("/v1"));
            if let Some((address, _)) = greeting {
                return address.parse().expect("an address in the greeting");
            }
            let ended = self.child.try_wait().expect("a child can be asked");
            assert!(ended.is_none() && began.elapsed() < PATIENCE, "the gateway does not start ({ended:?}):\n{said}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// A client of this replica.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.address, Arc::new(vec!["sk-well-secret".to_owned()]))
    }

    /// Kills it where it stands (SIGKILL).
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end (SIGTERM), and waits until it has.
    ///
    /// # Panics
    /// When it does not end in time.
    pub async fn stop(&mut self) {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "SIGTERM cannot be sent");
        let began = Instant::now();
        while self.child.try_wait().expect("a child can be asked").is_none() {
            assert!(began.elapsed() < PATIENCE, "the gateway does not stop:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What it has logged, also before it was started again.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.kill();
        // A test that fails says why the gateway may have.
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("the end of the log of {}:\n{}", self.address, lines[lines.len().saturating_sub(30)..].join("\n"));
        }
    }
}
