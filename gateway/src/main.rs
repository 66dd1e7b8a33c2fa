//! The command line: serve, check, schema, explain, models.

use std::io::{IsTerminal, Read, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use gateway::admin::access::Access;
use gateway::config::{Address, Config, Draft, Off, Problem};
use gateway::{discover, explain, serve};
use http::{HeaderName, HeaderValue};
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// One gateway for LLMs, MCP and A2A.
#[derive(Parser)]
#[command(name = "trivium", version, about, arg_required_else_help = false)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the gateway (what happens without a command too).
    Serve {
        #[command(flatten)]
        serve: Serve,
        /// The configuration, as by `--config`.
        file: Option<PathBuf>,
    },
    /// Checks a configuration and says all that is wrong with it.
    Check {
        #[command(flatten)]
        source: Source,
        /// The configuration, as by `--config`.
        file: Option<PathBuf>,
    },
    /// Makes keys for consumers.
    Keys {
        #[command(subcommand)]
        command: Keys,
    },
    /// Prints the JSON Schema of the configuration, for editors.
    Schema {
        /// Prints the reference in Markdown instead.
        #[arg(long)]
        markdown: bool,
    },
    /// Takes a request body and says what would become of it. Sends nothing.
    Explain {
        #[command(flatten)]
        source: Source,
        /// The path it would be sent to.
        #[arg(long, default_value = "/v1/chat/completions")]
        path: String,
        /// Who would send it: whether that one may use the model, and which limits would hold.
        #[arg(long)]
        consumer: Option<String>,
        /// A header that it would have, as `name: value`. May be given several times.
        #[arg(short = 'H', long = "header", value_parser = header)]
        headers: Vec<(HeaderName, HeaderValue)>,
        /// The file with the body; standard input if it is `-`.
        #[arg(default_value = "-")]
        body: PathBuf,
    },
    /// Lists the models that clients can ask for, where they go and what they cost.
    Models {
        #[command(flatten)]
        source: Source,
        /// Lists the kinds of providers instead.
        #[arg(long)]
        kinds: bool,
    },
}

#[derive(Subcommand)]
enum Keys {
    /// Makes a key and prints it, this once, with what to write into the configuration.
    New {
        /// Whose key it is.
        consumer: String,
    },
}

#[derive(clap::Args, Clone)]
struct Source {
    /// The configuration: a YAML file, or a folder of them.
    #[arg(short, long, env = "TRIVIUM_CONFIG")]
    config: Option<PathBuf>,
}

impl Source {
    /// The same, unless a file was named.
    fn or(self, file: Option<PathBuf>) -> Self {
        Source { config: file.or(self.config) }
    }
}

#[derive(clap::Args, Clone)]
#[group(skip)]
struct Serve {
    #[command(flatten)]
    source: Source,
    /// Listens here, whatever the configuration says.
    #[arg(long)]
    listen: Option<SocketAddr>,
    /// Puts the admin port here, whatever the configuration says; `off` for none.
    #[arg(long, value_parser = admin_address)]
    admin: Option<Address>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // One TLS library is linked, and everything that asks for the process' default gets it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let result = match cli.command {
        None => run(&cli.serve),
        Some(Command::Serve { serve, file }) => run(&Serve { source: serve.source.or(file), ..serve }),
        Some(Command::Keys { command: Keys::New { consumer } }) => new_key(&consumer),
        Some(Command::Check { source, file }) => check(&source.or(file)),
        Some(Command::Schema { markdown: false }) => print(&format!("{:#}\n", gateway::config::schema())),
        Some(Command::Schema { markdown: true }) => print(&gateway::config::reference(&gateway::config::schema())),
        Some(Command::Explain { source, path, consumer, headers, body }) => return explain(&source, path, consumer, headers, &body).unwrap_or_else(|problems| refused(&problems)),
        Some(Command::Models { source, kinds }) => models(&source, kinds),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(problems) => refused(&problems),
    }
}

/// Says what is wrong.
fn refused(problems: &[Problem]) -> ExitCode {
    for problem in problems {
        eprintln!("error: {problem}");
    }
    ExitCode::FAILURE
}

/// A header as it is written on a command line.
fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("expected `name: value`")?;
    Ok((HeaderName::try_from(name.trim()).map_err(|e| e.to_string())?, HeaderValue::try_from(value.trim()).map_err(|e| e.to_string())?))
}

/// An address, or `off`, as in the configuration.
fn admin_address(text: &str) -> Result<Address, String> {
    match text {
        "off" => Ok(Address::Off(Off::Off)),
        at => at.parse().map(Address::At).map_err(|_| "expected an address such as 127.0.0.1:8081, or `off`".to_owned()),
    }
}

fn env(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn problem(message: impl std::fmt::Display) -> Vec<Problem> {
    vec![Problem::new("", message.to_string())]
}

fn print(text: &str) -> Result<(), Vec<Problem>> {
    match std::io::stdout().write_all(text.as_bytes()) {
        // Whoever reads has read enough (`| head`).
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(problem),
    }
}

/// The configuration: as named, or `trivium.yaml` in this folder, or what the environment offers.
fn load(source: &Source) -> Result<(Draft, Option<PathBuf>, Option<discover::Found>), Vec<Problem>> {
    let usual = Path::new("trivium.yaml");
    let path = source.config.clone().or_else(|| usual.exists().then(|| usual.to_owned()));
    match path {
        Some(path) => Ok((gateway::config::read(&path, &env), Some(path), None)),
        None => {
            let found = discover::discover(&env)?;
            Ok((Draft::made(found.config.clone()), None, Some(found)))
        }
    }
}

fn run(args: &Serve) -> Result<(), Vec<Problem>> {
    let (mut draft, source, found) = load(&args.source)?;
    if !draft.is_good() {
        return rules(draft).map(drop);
    }
    if let Some(listen) = args.listen {
        draft.config.listen_at(listen);
    }
    if let Some(admin) = args.admin {
        draft.config.admin_at(admin);
    }
    start_log(&draft.config);
    let runtime = runtime().map_err(|e| problem(format!("cannot start: {e}")))?;
    runtime.block_on(async {
        let gateway = match serve::Gateway::bind(&draft.config, source.clone()).await {
            Ok(gateway) => gateway,
            Err(problems) => return Err(draft.all_problems(problems)),
        };
        greet(&gateway, source.as_deref(), found.as_ref());
        gateway.run(stopped()).await;
        Ok(())
    })
}

/// One thread if there is one core: nothing to steal from and nobody to wake.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    match std::thread::available_parallelism().map_or(1, usize::from) {
        1 => tokio::runtime::Builder::new_current_thread().enable_all().build(),
        n => tokio::runtime::Builder::new_multi_thread().worker_threads(n).enable_all().build(),
    }
}

fn start_log(config: &Config) {
    let level = config.log.level.unwrap_or_default().word();
    let wanted = std::env::var("TRIVIUM_LOG").unwrap_or_else(|_| format!("warn,gateway={level},trivium={level}"));
    let filter: Targets = wanted.parse().unwrap_or_else(|e| {
        eprintln!("TRIVIUM_LOG or log.level cannot be read ({e}); logging at info");
        Targets::new().with_default(tracing::Level::WARN).with_target("gateway", tracing::Level::INFO)
    });
    let terminal = std::io::stderr().is_terminal();
    let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(terminal);
    let registry = tracing_subscriber::registry();
    if config.log.json.unwrap_or(!terminal) {
        registry.with(log.json().with_filter(filter)).init();
    } else {
        registry.with(log.with_filter(filter)).init();
    }
}

/// SIGTERM, or Ctrl-C.
async fn stopped() {
    let mut term = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(term) => term,
        Err(error) => {
            tracing::warn!(%error, "SIGTERM cannot be listened for");
            let _ = tokio::signal::ctrl_c().await;
            return;
        }
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

/// Says what is served, where, and what to type first.
fn greet(gateway: &serve::Gateway, source: Option<&Path>, found: Option<&discover::Found>) {
    let Ok(address) = gateway.address().map(|at| format!("{}://{at}", gateway.scheme())) else { return };
    let mut text = match (source, found) {
        (Some(path), _) => format!("trivium {} serves {}\n", env!("CARGO_PKG_VERSION"), path.display()),
        (None, Some(found)) => {
            let list: String = found.lines.iter().map(|l| format!("  {l}\n")).collect();
            format!("trivium {} found no configuration, and looked around:\n{list}", env!("CARGO_PKG_VERSION"))
        }
        (None, None) => String::new(),
    };
    text.push_str(&format!("Point an OpenAI SDK at    {address}/v1\nPoint an Anthropic SDK at {address}\n"));
    if let Some(admin) = gateway.admin_address() {
        text.push_str(&match gateway.access() {
            Access::Configured => format!("The admin page is at      http://{admin}/ (its token: `admin.token` of the configuration)\n"),
            Access::Kept { path, .. } => format!("The admin page is at      http://{admin}/ (its token: in {})\n", path.display()),
            Access::Closed(why) => format!("The admin API is closed:  {why}\n"),
        });
        text.push_str(&format!("Metrics and health at     http://{admin}/metrics, /healthz, /readyz\n"));
    }
    let rules = gateway.state.rules();
    let first = rules.as_ref().and_then(|r| r.names().into_iter().find(|name| !name.contains('*')).map(str::to_owned));
    let model = found.map(|f| f.model.clone()).or(first).unwrap_or_else(|| "MODEL".into());
    let key = if rules.is_some_and(|r| r.principals.open()) { "" } else { "-H 'authorization: Bearer KEY' " };
    text.push_str(&format!(
        "Try: curl {address}/v1/chat/completions {key}-H 'content-type: application/json' -d '{{\"model\":\"{model}\",\"messages\":[{{\"role\":\"user\",\"content\":\"Hello\"}}]}}'\n"
    ));
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Rules as `serve` would build them, without listening; or all that is wrong with the configuration.
fn rules(draft: Draft) -> Result<(tokio::runtime::Runtime, gateway::rules::Rules), Vec<Problem>> {
    let runtime = runtime().map_err(problem)?;
    let guard = runtime.enter();
    let ledger = gateway::ledger::Ledger::start().map_err(problem)?;
    let state = gateway::state::State::new(ledger, gateway::counters::Counters::Memory(gateway::counters::Memory::volatile()), std::sync::Arc::default()).map_err(problem)?;
    let mut problems = serve::check(&draft.config);
    let built = gateway::rules::Rules::build(&draft.config, &state).map_err(|p| problems.extend(p)).ok();
    drop(guard);
    match built {
        Some(rules) if problems.is_empty() && draft.is_good() => Ok((runtime, rules)),
        _ => Err(draft.all_problems(problems)),
    }
}

/// A key of which only the hash is kept anywhere.
fn new_key(consumer: &str) -> Result<(), Vec<Problem>> {
    if consumer.trim().is_empty() || consumer.len() > 128 || consumer.chars().any(char::is_control) {
        return Err(problem("a consumer's name must not be empty nor hold control characters, and has 128 bytes at most"));
    }
    let plain = consumer.starts_with(|c: char| c.is_ascii_alphabetic()) && consumer.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    // JSON's quotes are YAML's.
    let consumer = if plain { consumer.to_owned() } else { serde_json::Value::from(consumer).to_string() };
    let key = gateway::keyring::new_key().map_err(problem)?;
    let hash = gateway::principal::hash_hex(key.expose());
    print(&format!("{}\n\nThis key is shown once. In the configuration:\n\nconsumers:\n  {consumer}: {{ keys: [{{ sha256: \"{hash}\" }}] }}\n", key.expose()))
}

fn check(source: &Source) -> Result<(), Vec<Problem>> {
    let (draft, path, _) = load(source)?;
    let (_runtime, rules) = rules(draft)?;
    for doubt in gateway::doubts::doubts(&rules) {
        eprintln!("warning: {doubt}");
    }
    // The files may be on another machine, the one that serves.
    for problem in rules.config.tls.as_ref().and_then(|tls| gateway::tls::Listener::read(tls).err()).unwrap_or_default() {
        eprintln!("warning: {problem}");
    }
    let place = path.map_or_else(|| "the environment".to_owned(), |p| p.display().to_string());
    let counted = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    print(&format!("{place} is good: {}, {}\n", counted(rules.providers.len(), "provider"), counted(rules.names().len(), "model")))
}

fn explain(source: &Source, path: String, consumer: Option<String>, headers: Vec<(HeaderName, HeaderValue)>, body: &Path) -> Result<ExitCode, Vec<Problem>> {
    let (draft, _, _) = load(source)?;
    let (_runtime, rules) = rules(draft)?;
    let mut text = Vec::new();
    if body == Path::new("-") {
        std::io::stdin().read_to_end(&mut text).map_err(problem)?;
    } else {
        text = std::fs::read(body).map_err(|e| problem(format!("cannot read {}: {e}", body.display())))?;
    }
    let question = explain::Question { path, headers: headers.into_iter().collect(), consumer, body: text.into() };
    let (explained, code) = match explain::explain(&rules, &question) {
        Ok(explained) => (explained, ExitCode::SUCCESS),
        Err(fault) => (fault, ExitCode::FAILURE),
    };
    print(&format!("{explained:#}\n"))?;
    Ok(code)
}

fn models(source: &Source, kinds: bool) -> Result<(), Vec<Problem>> {
    if kinds {
        return print(&(providers::kinds().join("\n") + "\n"));
    }
    let (draft, _, _) = load(source)?;
    let (_runtime, rules) = rules(draft)?;
    print(&explain::table(&rules))
}
