//! A Redis server and folders of a test's own. The end-to-end tests include this file too.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

/// A folder that is gone after the test.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let path = std::env::temp_dir().join(format!("trivium-counters-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed)));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A Redis on a loopback port.
pub struct Server {
    child: Child,
    port: u16,
    options: Vec<&'static str>,
    folder: Folder,
}

impl Server {
    /// One that forgets everything when it stops.
    pub fn forgetful() -> Self {
        Self::start(&["--appendonly", "no"])
    }

    /// One that keeps everything when it stops.
    pub fn durable() -> Self {
        Self::start(&["--appendonly", "yes", "--appendfsync", "always"])
    }

    /// A cluster of one.
    pub fn cluster() -> Self {
        let server = Self::start(&["--cluster-enabled", "yes", "--cluster-announce-ip", "127.0.0.1"]);
        assert!(server.say("CLUSTER ADDSLOTSRANGE 0 16383").starts_with("+OK"));
        while !server.say("CLUSTER INFO").contains("cluster_state:ok") {
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }

    fn start(options: &[&'static str]) -> Self {
        for _ in 0..10 {
            let folder = Folder::new();
            // Between asking for a free port and taking it somebody else may: then try another.
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            if let Some(child) = spawn(port, options, &folder) {
                return Self { child, port, options: options.to_vec(), folder };
            }
        }
        panic!("redis-server does not start");
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn cluster_url(&self) -> String {
        format!("redis-cluster://127.0.0.1:{}", self.port)
    }

    /// The server dies at once.
    pub fn stop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// It comes back on the same port.
    pub fn again(&mut self) {
        for _ in 0..50 {
            if let Some(child) = spawn(self.port, &self.options, &self.folder) {
                self.child = child;
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("redis-server does not come back");
    }

    /// The server stands still, with its connections open.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// It goes on.
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        assert!(Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// What it answers to a command.
    pub fn say(&self, command: &str) -> String {
        say(self.port, command).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(port: u16, options: &[&str], folder: &Folder) -> Option<Child> {
    let mut command = Command::new("redis-server");
    command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"]).arg(folder.path()).args(options);
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut child = spawned.unwrap_or_else(|error| panic!("these tests need redis-server on the PATH (Debian: apt-get install redis-server): {error}"));
    while child.try_wait().unwrap().is_none() {
        if say(port, "PING").is_some_and(|answer| answer.starts_with("+PONG")) {
            return Some(child);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    None
}

fn say(port: u16, command: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}
