//! A gateway in this process, on ports of its own, from the YAML of a story. It drains and stops when it is dropped.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use gateway::config::{Admin, Config, Problem};
use gateway::serve::{Gateway, Reloader};
use gateway::state::State;
use serde_json::Value;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::client::{Client, PATIENCE, Response};
use crate::mock::{Mock, refused};

/// A gateway that runs.
pub struct Running {
    /// Where clients connect.
    pub address: SocketAddr,
    /// Where the admin port is.
    pub admin: SocketAddr,
    /// The process' state.
    pub state: Arc<State>,
    /// Loads the configuration anew, as SIGHUP does.
    pub reloader: Reloader,
    folder: Folder,
    secrets: Arc<Vec<String>>,
    mock: String,
    dead: String,
    stop: Option<oneshot::Sender<()>>,
    running: Option<JoinHandle<()>>,
}

impl Running {
    /// Starts a gateway. In the YAML `{{mock}}` stands for the mock's URL and `{{dead}}` for one where nobody listens.
    /// Beside what the story says there is a model `well` that the mock answers, a ledger in a file, and a folder for data.
    pub async fn start(yaml: &str, mock: &Mock) -> Self {
        match Self::try_start(yaml, mock).await {
            Ok(running) => running,
            Err(problems) => panic!("the configuration was refused: {}", said(&problems)),
        }
    }

    /// As [`Running::start`].
    ///
    /// # Errors
    /// What is wrong with the configuration.
    pub async fn try_start(yaml: &str, mock: &Mock) -> Result<Self, Vec<Problem>> {
        let folder = Folder::new();
        let (mock, dead) = (mock.url(), format!("http://{}", refused()));
        let own = "listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\nlog: { audit: [{ kind: file, path: \"{{folder}}/ledger.jsonl\" }] }\nproviders: { well: { kind: openai, base_url: \"{{mock}}/v1\", api_key: sk-well-secret } }\nmodels: { well: well/well }\n";
        // What outlives a gateway outlives no test, unless the story says where it is kept.
        let data = if yaml.lines().any(|line| line.starts_with("data:")) { "" } else { "data: \"{{folder}}/data\"\n" };
        folder.write("00-harness.yaml", &fill(&format!("{own}{data}"), &mock, &dead, &folder));
        folder.write("10-story.yaml", &fill(yaml, &mock, &dead, &folder));
        let config = gateway::config::load(&folder.config(), &|_| None)?;
        let gateway = Gateway::bind(&config, Some(folder.config())).await?;
        let address = gateway.address().expect("a bound listener has an address");
        let admin = gateway.admin_address().expect("the admin port listens");
        let (state, reloader) = (gateway.state.clone(), gateway.reloader().expect("a gateway with a source"));
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(gateway.run(async {
            let _ = stopped.await;
        }));
        Ok(Running { address, admin, state, reloader, folder, secrets: Arc::new(secrets(&config)), mock, dead, stop: Some(stop), running: Some(running) })
    }

    /// A client of the gateway.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(self.address, self.secrets.clone())
    }

    /// A client of the admin port.
    #[must_use]
    pub fn admin_client(&self) -> Client {
        Client::new(self.admin, self.secrets.clone())
    }

    /// The token of the admin API that was made at the start.
    #[must_use]
    pub fn token(&self) -> String {
        let text = std::fs::read_to_string(self.folder.0.join("data").join("admin.token")).expect("a token was made");
        text.trim().to_owned()
    }

    /// Asks the admin API, with its token.
    pub async fn admin_ask(&self, method: &str, path: &str, body: Option<&Value>) -> Response {
        let bearer = format!("Bearer {}", self.token());
        let body = body.map(ToString::to_string).unwrap_or_default();
        self.admin_client().send(method, path, &[("authorization", &bearer), ("content-type", "application/json")], body.as_bytes()).await
    }

    /// All secrets of the configuration.
    #[must_use]
    pub fn secrets(&self) -> &[String] {
        &self.secrets
    }

    /// Asserts that the gateway still serves as if nothing had been.
    pub async fn serves(&self) {
        assert_eq!(self.client().chat("well").await.answer(), crate::dialects::HELLO);
    }

    /// Puts another file in the folder of the configuration.
    pub fn write(&self, name: &str, yaml: &str) {
        self.folder.write(name, &fill(yaml, &self.mock, &self.dead, &self.folder));
    }

    /// Puts other YAML in the place of the story's. It is not in force until it is loaded.
    pub fn rewrite(&self, yaml: &str) {
        self.write("10-story.yaml", yaml);
    }

    /// A folder for the story's own files.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.folder.0.clone()
    }

    /// The ledger as text, once it has this many entries.
    pub async fn ledger(&self, entries: usize) -> String {
        let began = Instant::now();
        loop {
            let text = std::fs::read_to_string(self.folder.0.join("ledger.jsonl")).unwrap_or_default();
            let have = text.matches('\n').count();
            if have >= entries {
                assert_eq!(have, entries, "more entries than requests:\n{text}");
                return text;
            }
            assert!(began.elapsed() < PATIENCE, "{entries} entries were expected, and there are:\n{text}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The entries of the ledger, once there are this many.
    pub async fn entries(&self, entries: usize) -> Vec<Value> {
        self.ledger(entries).await.lines().map(|l| serde_json::from_str(l).expect("an entry is JSON")).collect()
    }

    /// Begins to drain.
    pub fn drain(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
    }

    /// Drains, and waits until the gateway has stopped.
    pub async fn stopped(&mut self) {
        self.drain();
        if let Some(running) = self.running.take() {
            tokio::time::timeout(PATIENCE, running).await.expect("the gateway stops in time").expect("the gateway does not panic");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.drain();
    }
}

/// Problems as a user sees them.
#[must_use]
pub fn said(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn fill(yaml: &str, mock: &str, dead: &str, folder: &Folder) -> String {
    yaml.replace("{{mock}}", mock).replace("{{dead}}", dead).replace("{{folder}}", &folder.0.display().to_string())
}

fn secrets(config: &Config) -> Vec<String> {
    let token = std::fs::read_to_string(config.data().join("admin.token")).map(|token| token.trim().to_owned());
    let configured = Admin::token(config.admin.as_ref()).map(|token| token.expose().to_owned());
    let keys = config.providers.values().filter_map(|p| p.api_key.as_ref()).map(|k| k.expose().to_owned());
    let aws = config.providers.values().filter_map(|p| p.aws.as_ref()?.secret_access_key.as_ref()).map(|k| k.expose().to_owned());
    keys.chain(aws).chain(token).chain(configured).filter(|k| !k.is_empty()).collect()
}

/// A folder that goes when it is dropped.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let path = std::env::temp_dir().join(format!("trivium-e2e-{}-{}", std::process::id(), NUMBER.fetch_add(1, Relaxed)));
        std::fs::create_dir_all(path.join("config")).expect("a temporary folder");
        Folder(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.0.join("config")
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.config().join(name), text).expect("a temporary file");
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
