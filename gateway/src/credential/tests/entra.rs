//! Each way to a Microsoft Entra token.

use super::*;

fn config(json: serde_json::Value) -> String {
    serde_json::json!({ "azure": json }).to_string()
}

#[tokio::test]
async fn client_secret_from_the_environment() {
    let fake = Fake::with(|_| token("t", 3600)).await;
    let env = [("AZURE_TENANT_ID", "my-tenant"), ("AZURE_CLIENT_ID", "app"), ("AZURE_CLIENT_SECRET", "s&cret"), ("AZURE_AUTHORITY_HOST", fake.url.as_str())];
    assert_eq!(authorization(&credential(Auth::Azure, "{}", &env).unwrap()).await, "Bearer t");
    let seen = &fake.seen()[0];
    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/my-tenant/oauth2/v2.0/token"));
    for (name, value) in [("grant_type", "client_credentials"), ("client_id", "app"), ("client_secret", "s&cret"), ("scope", "https://cognitiveservices.azure.com/.default")] {
        assert_eq!(seen.field(name).unwrap(), value);
    }
}

#[tokio::test]
async fn federated_token_file_is_read_anew() {
    let fake = Fake::start(|n, _| token(&format!("t{n}"), 3600), Duration::ZERO).await;
    let file = Temp::file("first\n");
    let hands = Hands::new();
    let json =
        config(serde_json::json!({"tenant_id": "t", "client_id": "app", "federated_token_file": file.path(), "authority_host": fake.url, "scope": "https://cognitiveservices.azure.us/.default"}));
    // The secret in the environment does not count where the configuration says otherwise.
    let credential = credential_at(Auth::Azure, &json, &[("AZURE_CLIENT_SECRET", "x")], hands.clock()).unwrap();
    assert_eq!(authorization(&credential).await, "Bearer t0");
    std::fs::write(file.path(), "second").unwrap();
    hands.forward(3601);
    assert_eq!(authorization(&credential).await, "Bearer t1");
    let assertions: Vec<_> = fake.seen().iter().map(|seen| seen.field("client_assertion").unwrap()).collect();
    assert_eq!(assertions, ["first", "second"]);
    assert_eq!(fake.seen()[0].field("client_assertion_type").unwrap(), "urn:ietf:params:oauth:client-assertion-type:jwt-bearer");
    assert_eq!(fake.seen()[0].field("scope").unwrap(), "https://cognitiveservices.azure.us/.default");
    std::fs::write(file.path(), "").unwrap();
    hands.forward(3601);
    assert!(refused(applied(&credential).await, &["second"]).contains("is empty"));
}

#[tokio::test]
async fn managed_identity_of_app_service() {
    // It writes numbers as strings and has only the end.
    let end = SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 3600;
    let fake = Fake::with(move |_| (200, format!(r#"{{"access_token":"t","expires_on":"{end}","resource":"x"}}"#))).await;
    let endpoint = format!("{}/msi/token", fake.url);
    let credential = credential(Auth::Azure, "{}", &[("IDENTITY_ENDPOINT", &endpoint), ("IDENTITY_HEADER", "the-header"), ("AZURE_CLIENT_ID", "mine")]).unwrap();
    assert_eq!(authorization(&credential).await, "Bearer t");
    let seen = &fake.seen()[0];
    assert_eq!(seen.header("x-identity-header"), "the-header");
    assert_eq!(seen.path, "/msi/token?api-version=2019-08-01&resource=https%3A%2F%2Fcognitiveservices.azure.com&client_id=mine");
}

#[tokio::test]
async fn managed_identity_of_a_machine() {
    let fake = Fake::with(|_| (200, r#"{"access_token":"t","expires_in":"3599","expires_on":"1"}"#.to_owned())).await;
    let credential = credential(Auth::Azure, "{}", &[("AZURE_POD_IDENTITY_AUTHORITY_HOST", &fake.url)]).unwrap();
    assert_eq!(authorization(&credential).await, "Bearer t");
    let seen = &fake.seen()[0];
    assert_eq!((seen.method.as_str(), seen.header("metadata")), ("GET", "true"));
    assert_eq!(seen.path, "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https%3A%2F%2Fcognitiveservices.azure.com");
}

#[test]
fn what_is_missing_is_named() {
    let message = refused(credential(Auth::Azure, &config(serde_json::json!({"client_secret": "hidden"})), &[]), &["hidden"]);
    assert_eq!(message, "there is a client secret for Microsoft Entra, but no tenant_id: set `azure.tenant_id` or AZURE_TENANT_ID");
    let message = refused(credential(Auth::Azure, "{}", &[("AZURE_FEDERATED_TOKEN_FILE", "/x"), ("AZURE_TENANT_ID", "t")]), &[]);
    assert_eq!(message, "there is a federated token file for Microsoft Entra, but no client_id: set `azure.client_id` or AZURE_CLIENT_ID");
    let message = refused(credential(Auth::Azure, &config(serde_json::json!({"client_secret": "hidden", "tenant_id": "../x", "client_id": "c"})), &[]), &["hidden"]);
    assert!(message.contains("neither an ID nor a domain"), "{message}");
}
