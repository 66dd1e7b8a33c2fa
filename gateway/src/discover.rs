//! What to serve when there is no configuration: the providers whose keys stand in the environment, an Ollama on its usual
//! port, and `echo` if there is nothing.

use std::fmt::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::config::{Config, Problem, from_text};

/// A provider that is known by a variable: kind, variables of which one suffices, and the names its models go by.
const KNOWN: &[(&str, &[&str], &[&str])] = &[
    ("openai", &["OPENAI_API_KEY"], &["gpt-*", "chatgpt-*", "o1*", "o3*", "o4*", "text-embedding-*", "whisper-*", "tts-*", "dall-e-*", "omni-moderation-*"]),
    ("anthropic", &["ANTHROPIC_API_KEY"], &["claude-*"]),
    ("gemini", &["GEMINI_API_KEY", "GOOGLE_API_KEY"], &["gemini-*", "gemma-*"]),
    ("mistral", &["MISTRAL_API_KEY"], &["mistral-*", "codestral-*", "ministral-*", "magistral-*", "devstral-*", "pixtral-*"]),
    ("cohere", &["COHERE_API_KEY", "CO_API_KEY"], &["command-*", "embed-*", "rerank-*"]),
    ("xai", &["XAI_API_KEY"], &["grok-*"]),
    ("deepseek", &["DEEPSEEK_API_KEY"], &["deepseek-*"]),
    ("perplexity", &["PERPLEXITY_API_KEY"], &["sonar*"]),
    ("groq", &["GROQ_API_KEY"], &[]),
    ("together", &["TOGETHER_API_KEY"], &[]),
    ("fireworks", &["FIREWORKS_API_KEY"], &[]),
    ("cerebras", &["CEREBRAS_API_KEY"], &[]),
    ("openrouter", &["OPENROUTER_API_KEY"], &[]),
    ("dashscope", &["DASHSCOPE_API_KEY"], &["qwen*"]),
    ("nvidia", &["NVIDIA_API_KEY"], &[]),
    ("sambanova", &["SAMBANOVA_API_KEY"], &[]),
    ("huggingface", &["HF_TOKEN"], &[]),
];

/// What was found, and the configuration made of it.
pub struct Found {
    /// The configuration.
    pub config: Config,
    /// One line per provider, for people.
    pub lines: Vec<String>,
    /// A model to try.
    pub model: String,
}

/// Looks around.
///
/// # Errors
/// When what was made of it is not a valid configuration.
pub fn discover(env: &dyn Fn(&str) -> Option<String>) -> Result<Found, Vec<Problem>> {
    let mut providers = String::new();
    let mut models = String::new();
    let mut lines = Vec::new();
    let mut model = None;
    let mut pulled = None;
    let kinds = providers::kinds();
    for (kind, variables, names) in KNOWN {
        let Some(variable) = variables.iter().find(|v| env(v).is_some_and(|value| !value.trim().is_empty())) else { continue };
        if !kinds.contains(kind) {
            continue;
        }
        let _ = writeln!(providers, "  {kind}: {{ kind: {kind}, api_key: \"${{{variable}}}\" }}");
        let _ = writeln!(models, "  \"{kind}/*\": \"{kind}/*\"");
        for name in *names {
            let _ = writeln!(models, "  \"{name}\": \"{kind}/{name}\"");
        }
        lines.push(format!("{kind} (from {variable}): {}", if names.is_empty() { format!("{kind}/…") } else { names.join(", ") }));
        model = model.or(match *kind {
            "openai" => Some("gpt-4o-mini"),
            "anthropic" => Some("claude-haiku-4-5"),
            "gemini" => Some("gemini-2.5-flash"),
            "mistral" => Some("mistral-small-latest"),
            _ => None,
        });
    }
    if let Some((base, names)) = ollama(env).filter(|_| kinds.contains(&"ollama")) {
        let _ = writeln!(providers, "  ollama: {{ kind: ollama, base_url: \"{base}\" }}");
        let _ = writeln!(models, "  \"ollama/*\": \"ollama/*\"");
        for name in &names {
            let _ = writeln!(models, "  {}: {}", serde_json::Value::from(name.as_str()), serde_json::Value::from(format!("ollama/{name}")));
        }
        lines.push(format!("ollama (at {base}): {}", if names.is_empty() { "no models pulled yet".to_owned() } else { names.join(", ") }));
        pulled = names.first().cloned();
    }
    finish(providers, models, lines, model.map(str::to_owned).or(pulled), env)
}

fn finish(mut providers: String, mut models: String, mut lines: Vec<String>, model: Option<String>, env: &dyn Fn(&str) -> Option<String>) -> Result<Found, Vec<Problem>> {
    providers.push_str("  echo: { kind: echo }\n");
    models.push_str("  echo: echo/echo\n");
    lines.push("echo (built in, answers offline): echo".to_owned());
    let nothing_else = lines.len() == 1;
    if nothing_else {
        // Whatever name an example asks for, it gets an answer.
        models.push_str("  \"*\": \"echo/*\"\n");
    }
    let config = from_text(&format!("providers:\n{providers}models:\n{models}"), env)?;
    Ok(Found { config, lines, model: model.unwrap_or_else(|| "echo".to_owned()) })
}

/// An Ollama that answers at its place, and the models it has.
fn ollama(env: &dyn Fn(&str) -> Option<String>) -> Option<(String, Vec<String>)> {
    let host = env("OLLAMA_HOST").filter(|h| !h.is_empty()).unwrap_or_else(|| "127.0.0.1:11434".to_owned());
    let host = host.trim_start_matches("http://").trim_end_matches('/').replace("0.0.0.0", "127.0.0.1");
    let host = if host.contains(':') { host } else { format!("{host}:11434") };
    let address: SocketAddr = host.parse().ok()?;
    let body = get(address, "/api/tags")?;
    let tags: serde_json::Value = serde_json::from_str(&body).ok()?;
    let names = tags["models"].as_array()?.iter().filter_map(|m| m["name"].as_str().map(str::to_owned)).collect();
    Some((format!("http://{host}"), names))
}

/// A plain GET with short patience, before there is a runtime.
fn get(address: SocketAddr, path: &str) -> Option<String> {
    use std::io::{Read, Write};
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_millis(150)).ok()?;
    stream.set_read_timeout(Some(Duration::from_millis(500))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.take(1 << 20).read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.split(' ').nth(1).filter(|status| *status == "200")?;
    Some(body.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_at_all_is_still_something_to_try() {
        let found = discover(&|name| (name == "OLLAMA_HOST").then(|| "127.0.0.1:1".to_owned())).unwrap();
        assert_eq!((found.model.as_str(), found.lines.len()), ("echo", 1));
        assert!(found.config.models.contains_key("*"));
    }

    #[test]
    fn keys_in_the_environment_make_providers_and_wildcards() {
        let env = |name: &str| match name {
            "OPENAI_API_KEY" => Some("sk-x".to_owned()),
            "OLLAMA_HOST" => Some("127.0.0.1:1".to_owned()),
            _ => None,
        };
        let found = discover(&env).unwrap();
        assert!(found.config.models.contains_key("gpt-*") && found.config.models.contains_key("openai/*") && !found.config.models.contains_key("*"));
        assert_eq!(found.model, "gpt-4o-mini");
    }
}
