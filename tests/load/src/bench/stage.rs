//! The processes: started on their cores, watched, and ended by their ids whatever happens.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{Contest, Cores, configs, scenario::Role};
use crate::{process, stats::Report};

/// Whoever is not ready by then has failed.
const READY: Duration = Duration::from_secs(15);

/// How long a process may take to end when asked to.
const ENDING: Duration = Duration::from_secs(5);

/// All that runs during a bench. The order of the fields is the order of their end: the directory goes last.
pub(super) struct Stage {
    gateway: Option<Running>,
    nginx: Option<Running>,
    mock: Running,
    ports: Ports,
    load: PathBuf,
    contest: Contest,
    directory: Directory,
}

struct Ports {
    mock: SocketAddr,
    gateway: SocketAddr,
    admin: SocketAddr,
    nginx: SocketAddr,
}

impl Stage {
    /// Writes the configurations and starts the mock; the sides are started one by one.
    pub(super) async fn set(contest: &Contest) -> Result<Self, String> {
        let (load, mock) = (sibling("load")?, sibling("mock")?);
        pin_this(contest.cores.load)?;
        let directory = Directory::new("bench")?;
        let [mock_port, gateway, admin, nginx] = free_ports()?;
        let ports = Ports { mock: mock_port, gateway, admin, nginx };
        let root = fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0);
        directory.write("gateway.yaml", &configs::gateway(ports.gateway, ports.admin, ports.mock, &directory.0.join("data")))?;
        for (name, listen) in [("nginx", ports.nginx), ("stand-in", ports.gateway)] {
            let prefix = directory.0.join(name);
            fs::create_dir(&prefix).map_err(|error| format!("{}: {error}", prefix.display()))?;
            directory.write(&format!("{name}/nginx.conf"), &configs::nginx(listen, ports.mock, &prefix, root))?;
        }
        let mut command = pinned(contest.cores.mock, &mock);
        command.args(["--listen", &ports.mock.to_string()]);
        let mut mock = Running::start("mock", command, directory.0.join("mock.log"))?;
        mock.ready(&[ports.mock]).await?;
        Ok(Self { gateway: None, nginx: None, mock, ports, load, contest: contest.clone(), directory })
    }

    /// Starts a side anew; says after how long it gave its first good answer.
    pub(super) async fn start(&mut self, role: Role) -> Result<Duration, String> {
        let (ports, directory) = (&self.ports, &self.directory.0);
        match role {
            Role::Direct => Ok(Duration::ZERO),
            Role::Nginx => {
                drop(self.nginx.take());
                let command = nginx(self.contest.cores, &self.contest.nginx, &directory.join("nginx"));
                self.nginx.insert(Running::start("nginx", command, directory.join("nginx.log"))?).ready(&[ports.nginx]).await
            }
            Role::Gateway => {
                drop(self.gateway.take());
                let (command, health) = match &self.contest.stand_in {
                    Some(stand_in) => (nginx(self.contest.cores, stand_in, &directory.join("stand-in")), vec![ports.gateway]),
                    None => {
                        let mut command = pinned(self.contest.cores.proxy, &self.contest.gateway);
                        // As nginx keeps no access log, the gateway is asked to log no more than warnings.
                        command.arg("serve").arg("--config").arg(directory.join("gateway.yaml")).env("TRIVIUM_LOG", "warn");
                        (command, vec![ports.admin, ports.gateway])
                    }
                };
                self.gateway.insert(Running::start("gateway", command, directory.join("gateway.log"))?).ready(&health).await
            }
        }
    }

    /// Resident memory of a side; of nginx, that of its worker.
    pub(super) fn resident(&self, role: Role) -> Result<u64, String> {
        self.pids(role).into_iter().map(process::resident).sum()
    }

    /// The processes of a side that do its work. nginx's master only watches over its worker.
    pub(super) fn pids(&self, role: Role) -> Vec<u32> {
        let (running, nginx) = match role {
            Role::Gateway => (&self.gateway, self.contest.stand_in.is_some()),
            Role::Nginx => (&self.nginx, true),
            Role::Direct => (&None, false),
        };
        match running {
            Some(running) if nginx => process::children(running.child.id()),
            Some(running) => vec![running.child.id()],
            None => Vec::new(),
        }
    }

    /// Lets the generator ask a side.
    pub(super) async fn load(&self, role: Role, model: &str, asked: &[&str], limit: Duration) -> Result<Report, String> {
        let target = match role {
            Role::Gateway => self.ports.gateway,
            Role::Nginx => self.ports.nginx,
            Role::Direct => self.ports.mock,
        };
        let watch = self.pids(role).iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        let mut command = tokio::process::Command::from(pinned(self.contest.cores.load, &self.load));
        command.args(["--target", &target.to_string(), "--model", model]).args(asked).stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
        if !watch.is_empty() {
            command.args(["--watch", &watch, "--core", &self.contest.cores.proxy.to_string()]);
        }
        let output = tokio::time::timeout(limit, command.output()).await.map_err(|_| "the generator did not end in time")?;
        let output = output.map_err(|error| format!("taskset: {error}"))?;
        if !output.status.success() {
            return Err(format!("the generator failed against {}{}", role.name(), self.log(role)));
        }
        serde_json::from_slice(&output.stdout).map_err(|error| format!("the generator's report: {error}"))
    }

    /// The last lines that a side has written, for an error message.
    pub(super) fn log(&self, role: Role) -> String {
        match role {
            Role::Gateway => self.gateway.as_ref().map_or_else(String::new, Running::last_words),
            Role::Nginx => self.nginx.as_ref().map_or_else(String::new, Running::last_words),
            Role::Direct => self.mock.last_words(),
        }
    }
}

/// A process that ends when this is dropped.
struct Running {
    name: &'static str,
    child: Child,
    log: PathBuf,
    started: Instant,
}

impl Running {
    fn start(name: &'static str, mut command: Command, log: PathBuf) -> Result<Self, String> {
        let file = fs::File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        // Only what goes to stderr is kept: a gateway that writes a line per answer to stdout would fill the disk in a soak.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
        let started = Instant::now();
        let child = command.spawn().map_err(|error| format!("taskset (of util-linux) cannot be started: {error}"))?;
        Ok(Self { name, child, log, started })
    }

    /// Waits until one of these addresses answers `/healthz` with 200.
    async fn ready(&mut self, addresses: &[SocketAddr]) -> Result<Duration, String> {
        loop {
            if addresses.iter().any(|address| healthy(*address)) {
                return Ok(self.started.elapsed());
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("{} ended before it was ready, with {status}{}", self.name, self.last_words()));
            }
            if self.started.elapsed() > READY {
                return Err(format!("{} was not ready after {READY:?}{}", self.name, self.last_words()));
            }
            // The runtime's timer is too coarse for this; yielding lets it see a signal.
            thread::sleep(Duration::from_micros(200));
            tokio::task::yield_now().await;
        }
    }

    fn last_words(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text[text.len().saturating_sub(2000)..]).trim().to_owned();
        if text.is_empty() { String::new() } else { format!("\n{} wrote:\n{text}", self.name) }
    }
}

impl Drop for Running {
    /// Asks the process to end, and its children with it; insists if it does not. The id is still its own, because
    /// nobody has waited for it.
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        let children = process::children(self.child.id());
        signal("-TERM", self.child.id());
        let asked = Instant::now();
        while asked.elapsed() < ENDING {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            thread::sleep(Duration::from_millis(2));
        }
        children.into_iter().filter(|child| process::children(self.child.id()).contains(child)).for_each(|child| signal("-KILL", child));
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(which: &str, pid: u32) {
    let _ = Command::new("kill").args([which, &pid.to_string()]).stdout(Stdio::null()).stderr(Stdio::null()).status();
}

fn healthy(address: SocketAddr) -> bool {
    let asked = TcpStream::connect_timeout(&address, Duration::from_millis(200)).and_then(|mut stream| {
        stream.set_read_timeout(Some(Duration::from_millis(200)))?;
        stream.write_all(format!("GET /healthz HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes())?;
        let mut status = [0; 12];
        stream.read_exact(&mut status)?;
        Ok(&status == b"HTTP/1.1 200")
    });
    asked.unwrap_or(false)
}

/// A command on a core. `taskset` becomes the program, so that the process id is the program's.
fn pinned(core: usize, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string()]).arg(program);
    command
}

fn nginx(cores: Cores, program: &Path, prefix: &Path) -> Command {
    let mut command = pinned(cores.proxy, program);
    command.arg("-p").arg(prefix).arg("-c").arg(prefix.join("nginx.conf")).arg("-e").arg(prefix.join("error.log"));
    command
}

/// The runner waits next to the generator, so as not to disturb the process under test.
fn pin_this(core: usize) -> Result<(), String> {
    let pinned = Command::new("taskset").args(["-cp", &core.to_string(), &std::process::id().to_string()]).stdout(Stdio::null()).status();
    match pinned {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(format!("core {core} cannot be used; choose others with --cores")),
        Err(error) => Err(format!("taskset (of util-linux) cannot be started: {error}")),
    }
}

/// A program of this crate, beside this one.
fn sibling(name: &str) -> Result<PathBuf, String> {
    let path = std::env::current_exe().map_err(|error| error.to_string())?.with_file_name(name);
    if path.is_file() { Ok(path) } else { Err(format!("{} is missing: run `cargo build --release -p load` first", path.display())) }
}

/// Four ports below those that the kernel gives to outgoing connections, which could otherwise take one between two
/// starts of a process.
fn free_ports() -> Result<[SocketAddr; 4], String> {
    let mut held = Vec::new();
    let first = 20_000 + u16::try_from(std::process::id() % 1000).unwrap_or(0) * 8;
    for port in first..=32_000 {
        held.extend(TcpListener::bind((Ipv4Addr::LOCALHOST, port)));
        if let [a, b, c, d] = &held[..] {
            let address = |listener: &TcpListener| listener.local_addr().map_err(|error| error.to_string());
            return Ok([address(a)?, address(b)?, address(c)?, address(d)?]);
        }
    }
    Err("no four free ports on 127.0.0.1".into())
}

/// A directory of this run alone, removed at its end.
struct Directory(PathBuf);

impl Directory {
    fn new(what: &str) -> Result<Self, String> {
        let path = std::env::temp_dir().join(format!("trivium-{what}-{}", std::process::id()));
        fs::create_dir(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self(path))
    }

    fn write(&self, name: &str, text: &str) -> Result<(), String> {
        fs::write(self.0.join(name), text).map_err(|error| format!("{name}: {error}"))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_ends_with_its_owner() {
        let directory = Directory::new("ends").unwrap();
        let mut command = Command::new("sleep");
        command.arg("60");
        let running = Running::start("sleep", command, directory.0.join("log")).unwrap();
        let pid = running.child.id();
        assert!(process::resident(pid).is_ok());
        drop(running);
        assert!(process::resident(pid).is_err());
        let path = directory.0.clone();
        drop(directory);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn one_that_fails_to_start_is_told_with_its_words() {
        let directory = Directory::new("fails").unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such road >&2; exit 3"]);
        let mut running = Running::start("sh", command, directory.0.join("log")).unwrap();
        let error = running.ready(&[([127, 0, 0, 1], 1).into()]).await.unwrap_err();
        assert!(error.contains("no such road") && error.contains('3'), "{error}");
    }
}
