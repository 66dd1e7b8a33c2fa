//! Every kind of provider answers an OpenAI client: the mock's dialects and the gateway's translations hold each other.

use serde_json::{Value, json};
use tests::client::{joined, streamed};
use tests::dialects::{HELLO, INPUT, OUTPUT};
use tests::{Mock, Running};

const PROVIDERS: &str = "
providers:
  openai: { kind: openai, base_url: \"{{mock}}/v1\", api_key: sk-openai-secret }
  azure: { kind: azure, base_url: \"{{mock}}\", api_key: azure-secret }
  dated: { kind: azure, base_url: \"{{mock}}\", api_version: \"2024-10-21\", api_key: azure-dated-secret }
  bedrock: { kind: bedrock, base_url: \"{{mock}}\", api_key: bedrock-secret }
  anthropic: { kind: anthropic, base_url: \"{{mock}}\", api_key: sk-ant-secret }
  gemini: { kind: gemini, base_url: \"{{mock}}/v1beta\", api_key: gemini-secret }
  cohere: { kind: cohere, base_url: \"{{mock}}\", api_key: cohere-secret }
  mistral: { kind: mistral, base_url: \"{{mock}}/v1\", api_key: mistral-secret }
  ollama: { kind: ollama, base_url: \"{{mock}}\" }
  hf: { kind: huggingface, base_url: \"{{mock}}\" }
  tgi: { kind: huggingface, base_url: \"{{mock}}\", api_version: tgi }
  groq: { kind: groq, base_url: \"{{mock}}/openai/v1\", api_key: groq-secret }
  echo: { kind: echo }
models:
  openai: openai/gpt-4o
  azure: azure/gpt-4o
  dated: dated/gpt-4o
  bedrock: bedrock/anthropic.claude-sonnet-4-5
  anthropic: anthropic/claude-sonnet-4-5
  gemini: gemini/gemini-2.5-flash
  cohere: cohere/command-a
  mistral: mistral/mistral-large
  ollama: ollama/llama3.3
  hf: hf/llama
  tgi: tgi/llama
  groq: groq/llama
  titan: bedrock/amazon.titan-embed-text-v2:0
  embed-openai: openai/text-embedding-3-small
  embed-gemini: gemini/gemini-embedding-001
  embed-cohere: cohere/embed-v4.0
  embed-ollama: ollama/nomic
  rerank-cohere: cohere/rerank-v3.5
";

const CHATS: &[&str] = &["openai", "azure", "dated", "anthropic", "gemini", "bedrock", "cohere", "mistral", "ollama", "hf", "tgi", "groq"];

#[tokio::test]
async fn chats_whole_and_streamed() {
    let mock = Mock::start().await;
    let gateway = Running::start(PROVIDERS, &mock).await;
    for model in CHATS {
        let answer = gateway.client().chat(model).await;
        assert_eq!(answer.answer(), HELLO, "{model}");
        let body = answer.json();
        assert_eq!(body["choices"][0]["finish_reason"], "stop", "{model}");
        assert_eq!(body["usage"]["completion_tokens"], OUTPUT, "{model}");
        let mut request = streamed(model);
        request["stream_options"] = json!({ "include_usage": true });
        let mut events = gateway.client().stream(&request).await;
        assert_eq!(events.head.status, 200, "{model}");
        let data = events.rest().await;
        assert_eq!(joined(&data), HELLO, "{model}: {data:?}");
        assert_eq!(data.last().unwrap(), "[DONE]", "{model}");
        let usage: Value = serde_json::from_str(&data[data.len() - 2]).unwrap();
        assert_eq!((&usage["choices"], &usage["usage"]["completion_tokens"]), (&json!([]), &json!(OUTPUT)), "{model}");
        if *model != "tgi" {
            assert_eq!(usage["usage"]["prompt_tokens"], INPUT, "{model}");
        }
    }
}

#[tokio::test]
async fn tools_whole_and_streamed() {
    let mock = Mock::start().await;
    let gateway = Running::start(PROVIDERS, &mock).await;
    let tools = json!([{ "type": "function", "function": { "name": "weather", "parameters": { "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"] } } }]);
    for model in CHATS.iter().filter(|m| **m != "tgi") {
        let mut request = streamed(model);
        request["tools"] = tools.clone();
        let data = gateway.client().stream(&request).await.rest().await;
        let (mut name, mut arguments) = (String::new(), String::new());
        for chunk in data.iter().filter_map(|d| serde_json::from_str::<Value>(d).ok()) {
            let function = &chunk["choices"][0]["delta"]["tool_calls"][0]["function"];
            name.push_str(function["name"].as_str().unwrap_or_default());
            arguments.push_str(function["arguments"].as_str().unwrap_or_default());
        }
        assert_eq!(name, "weather", "{model}: {data:?}");
        assert_eq!(serde_json::from_str::<Value>(&arguments).unwrap(), json!({ "city": "Berlin" }), "{model}");
        assert!(data.iter().any(|d| d.contains("\"finish_reason\":\"tool_calls\"")), "{model}: {data:?}");

        request["stream"] = json!(false);
        let whole = gateway.client().post("/v1/chat/completions", &request).await.json();
        let call = whole["choices"][0]["message"]["tool_calls"][0].clone();
        assert_eq!(call["function"]["name"], "weather", "{model}: {whole}");

        request["messages"]
            .as_array_mut()
            .unwrap()
            .extend([json!({ "role": "assistant", "content": null, "tool_calls": [call] }), json!({ "role": "tool", "tool_call_id": call["id"], "content": "sunny" })]);
        assert_eq!(gateway.client().post("/v1/chat/completions", &request).await.answer(), HELLO, "{model}");
    }
}

#[tokio::test]
async fn embeddings_and_reranking() {
    let mock = Mock::start().await;
    let gateway = Running::start(PROVIDERS, &mock).await;
    for model in ["embed-openai", "embed-gemini", "embed-cohere", "embed-ollama", "titan"] {
        let answer = gateway.client().post("/v1/embeddings", &json!({ "model": model, "input": ["a", "b"] })).await;
        assert_eq!(answer.status, 200, "{model}: {}", answer.text());
        assert_eq!(answer.json()["data"].as_array().unwrap().len(), 2, "{model}");
        let base64 = gateway.client().post("/v1/embeddings", &json!({ "model": model, "input": "a", "encoding_format": "base64" })).await.json();
        assert!(base64["data"][0]["embedding"].as_str().is_some_and(|s| s.starts_with("AACAPwAA")), "{model}: {base64}");
    }
    let ranked = gateway.client().post("/v1/rerank", &json!({ "model": "rerank-cohere", "query": "q", "documents": ["a", "b"] })).await;
    assert_eq!(ranked.json()["results"][0]["relevance_score"], 0.9, "{}", ranked.text());
}

#[tokio::test]
async fn errors_of_every_dialect_keep_their_meaning() {
    let mock = Mock::start().await;
    let providers = PROVIDERS.split("models:").next().unwrap();
    let mut yaml = format!("{providers}models:\n");
    for provider in CHATS {
        yaml.push_str(&format!("  {provider}-429: {{ target: {provider}/status-429, retry: {{ attempts: 1 }} }}\n  {provider}-503: {{ target: {provider}/status-503, retry: {{ attempts: 1 }} }}\n"));
    }
    let gateway = Running::start(&yaml, &mock).await;
    // TGI's native dialect names no model: the mock cannot be told by it.
    for provider in CHATS.iter().filter(|p| **p != "tgi") {
        let answer = gateway.client().chat(&format!("{provider}-429")).await;
        answer.fault(429, "rate_limit_exceeded");
        assert_eq!((answer.header("retry-after"), answer.header("x-should-retry")), (Some("1"), Some("true")), "{provider}");
        let answer = gateway.client().chat(&format!("{provider}-503")).await;
        assert_eq!(answer.status, 503, "{provider}");
        assert_eq!(answer.header("x-should-retry"), Some("false"), "{provider}");
    }
    gateway.serves().await;
}

/// Every door leads to every provider: the greeting comes out in the words of the door's dialect.
#[tokio::test]
async fn every_door_leads_to_every_provider() {
    let mock = Mock::start().await;
    let gateway = Running::start(PROVIDERS, &mock).await;
    let client = gateway.client();
    for model in CHATS {
        let messages = client.post("/v1/messages", &json!({ "model": model, "max_tokens": 100, "messages": [{ "role": "user", "content": "Say hello." }] })).await;
        assert_eq!(messages.json()["content"][0]["text"], HELLO, "{model}: {}", messages.text());
        let responses = client.post("/v1/responses", &json!({ "model": model, "input": "Say hello." })).await;
        assert_eq!(responses.json()["output"][0]["content"][0]["text"], HELLO, "{model}: {}", responses.text());
        let generate = client.post(&format!("/v1beta/models/{model}:generateContent"), &json!({ "contents": [{ "role": "user", "parts": [{ "text": "Say hello." }] }] })).await;
        assert_eq!(generate.json()["candidates"][0]["content"]["parts"][0]["text"], HELLO, "{model}: {}", generate.text());
        let completion = client.post("/v1/completions", &json!({ "model": model, "prompt": "Say hello." })).await;
        assert_eq!(completion.json()["choices"][0]["text"], HELLO, "{model}: {}", completion.text());
    }
}

/// The same, streamed: each door's own sequence of events, and its own last one.
#[tokio::test]
async fn every_door_streams_from_every_provider() {
    let mock = Mock::start().await;
    let gateway = Running::start(PROVIDERS, &mock).await;
    let client = gateway.client();
    let joined = |data: &[String], pointer: &str| -> String { data.iter().filter_map(|d| serde_json::from_str::<Value>(d).ok()?.pointer(pointer)?.as_str().map(str::to_owned)).collect() };
    for model in CHATS {
        let data = client.events("/v1/messages", &[], &json!({ "model": model, "stream": true, "max_tokens": 100, "messages": [{ "role": "user", "content": "Say hello." }] })).await.rest().await;
        assert_eq!(joined(&data, "/delta/text"), HELLO, "{model}: {data:?}");
        assert!(data.last().unwrap().contains("message_stop"), "{model}: {data:?}");
        let data = client.events("/v1/responses", &[], &json!({ "model": model, "stream": true, "input": "Say hello." })).await.rest().await;
        assert_eq!(joined(&data, "/delta"), HELLO, "{model}: {data:?}");
        assert!(data.last().unwrap().contains("response.completed"), "{model}: {data:?}");
        let data =
            client.events(&format!("/v1beta/models/{model}:streamGenerateContent?alt=sse"), &[], &json!({ "contents": [{ "role": "user", "parts": [{ "text": "Say hello." }] }] })).await.rest().await;
        assert_eq!(joined(&data, "/candidates/0/content/parts/0/text"), HELLO, "{model}: {data:?}");
        assert!(data.last().unwrap().contains("\"finishReason\":\"STOP\""), "{model}: {data:?}");
    }
}

/// The mock calls the tool by the name that it was offered: a client never sees another than its own.
#[tokio::test]
async fn a_tool_with_a_name_too_long_is_called_by_its_own_name() {
    let mock = Mock::start().await;
    let gateway = Running::start(PROVIDERS, &mock).await;
    let client = gateway.client();
    let long = "mcp__a_server_of_many_words__".repeat(5) + "read";
    let schema = json!({ "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"] });
    for model in CHATS.iter().filter(|m| **m != "tgi") {
        let mut request = json!({ "model": model, "max_tokens": 100, "messages": [{ "role": "user", "content": "Say hello." }], "tools": [{ "name": long, "input_schema": schema }] });
        let whole = client.post("/v1/messages", &request).await;
        // Anthropic speaks the client's dialect: there the bytes pass, and so does the name.
        assert_eq!(mock.last().json().to_string().contains(&long), *model == "anthropic", "{model}");
        let call = whole.json()["content"].as_array().unwrap().iter().find(|b| b["type"] == "tool_use").cloned().unwrap_or_default();
        assert_eq!(call["name"], long, "{model}: {}", whole.text());
        request["stream"] = json!(true);
        let data = client.events("/v1/messages", &[], &request).await.rest().await;
        assert!(data.iter().any(|d| d.contains(&format!("\"name\":\"{long}\""))), "{model}: {data:?}");

        request["stream"] = json!(false);
        request["messages"]
            .as_array_mut()
            .unwrap()
            .extend([json!({ "role": "assistant", "content": [call] }), json!({ "role": "user", "content": [{ "type": "tool_result", "tool_use_id": call["id"], "content": "sunny" }] })]);
        let next = client.post("/v1/messages", &request).await;
        assert_eq!(next.json()["content"][0]["text"], HELLO, "{model}: {}", next.text());
        assert_eq!(mock.last().json().to_string().contains(&long), *model == "anthropic", "{model}");
    }
}
