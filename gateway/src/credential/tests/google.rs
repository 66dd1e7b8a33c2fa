//! Each way to a Google access token.

use super::*;

/// Made for these tests; it opens nothing.
const KEY: &str = include_str!("../testdata/service_account_key.pem");
const PUBLIC_KEY: &str = include_str!("../testdata/service_account_key.pub.pem");

fn inline(account: &serde_json::Value) -> String {
    serde_json::json!({ "google": { "credentials_json": account.to_string() } }).to_string()
}

fn key_file(token_uri: &str) -> serde_json::Value {
    serde_json::json!({
        "type": "service_account", "project_id": "p", "private_key_id": "k1", "private_key": KEY,
        "client_email": "me@p.iam.gserviceaccount.com", "token_uri": token_uri
    })
}

#[tokio::test]
async fn service_account() {
    #[derive(serde::Deserialize)]
    struct Claims {
        iss: String,
        scope: String,
        iat: u64,
        exp: u64,
    }
    let fake = Fake::with(|_| token("ya29.t", 3599)).await;
    let uri = format!("{}/token", fake.url);
    let file = Temp::file(&key_file(&uri).to_string());
    let credential = credential(Auth::Google, "{}", &[("GOOGLE_APPLICATION_CREDENTIALS", file.name())]).unwrap();
    let headers = applied(&credential).await.unwrap();
    assert_eq!(headers["authorization"], "Bearer ya29.t");
    assert!(!headers.contains_key("x-goog-user-project"));
    let seen = &fake.seen()[0];
    assert_eq!(seen.field("grant_type").unwrap(), "urn:ietf:params:oauth:grant-type:jwt-bearer");
    let mut rules = jsonwebtoken::Validation::new(jsonwebtoken::Algorithm::RS256);
    rules.set_audience(&[uri]);
    let key = jsonwebtoken::DecodingKey::from_rsa_pem(PUBLIC_KEY.as_bytes()).unwrap();
    let jwt = jsonwebtoken::decode::<Claims>(seen.field("assertion").unwrap().as_bytes(), &key, &rules).unwrap();
    assert_eq!(jwt.header.kid.as_deref(), Some("k1"));
    assert_eq!((jwt.claims.iss.as_str(), jwt.claims.scope.as_str()), ("me@p.iam.gserviceaccount.com", "https://www.googleapis.com/auth/cloud-platform"));
    assert_eq!(jwt.claims.exp - jwt.claims.iat, 3600);
}

#[tokio::test]
async fn user_of_gcloud() {
    let fake = Fake::with(|_| token("t", 3599)).await;
    let folder = std::env::temp_dir().join(format!("trivium-gcloud-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let user = serde_json::json!({"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "1//r", "quota_project_id": "payer", "token_uri": fake.url});
    std::fs::write(folder.join("application_default_credentials.json"), user.to_string()).unwrap();
    let credential = credential(Auth::Google, "{}", &[("CLOUDSDK_CONFIG", folder.to_str().unwrap())]).unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    let headers = applied(&credential).await.unwrap();
    assert_eq!((&headers["authorization"], &headers["x-goog-user-project"]), (&"Bearer t".parse().unwrap(), &"payer".parse().unwrap()));
    let seen = &fake.seen()[0];
    for (name, value) in [("grant_type", "refresh_token"), ("client_id", "c"), ("client_secret", "s"), ("refresh_token", "1//r")] {
        assert_eq!(seen.field(name).unwrap(), value);
    }
}

#[tokio::test]
async fn metadata_server() {
    let fake = Fake::with(|_| token("t", 3599)).await;
    let credential = credential(Auth::Google, "{}", &[("GCE_METADATA_HOST", fake.host())]).unwrap();
    assert_eq!(authorization(&credential).await, "Bearer t");
    let seen = &fake.seen()[0];
    assert_eq!(seen.path, "/computeMetadata/v1/instance/service-accounts/default/token");
    assert_eq!(seen.header("metadata-flavor"), "Google");
}

#[tokio::test]
async fn federation_by_file_and_impersonation() {
    let fake = Fake::with(|seen| match seen.path.as_str() {
        "/sts" => token("federated", 3600),
        _ => (200, r#"{"accessToken":"impersonated","expireTime":"2999-01-01T00:00:00Z"}"#.to_owned()),
    })
    .await;
    let subject = Temp::file("the-oidc-token\n");
    let account = serde_json::json!({
        "type": "external_account", "audience": "//iam.googleapis.com/x", "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": format!("{}/sts", fake.url), "service_account_impersonation_url": format!("{}/sa:generateAccessToken", fake.url),
        "credential_source": {"file": subject.path()}
    });
    assert_eq!(authorization(&credential(Auth::Google, &inline(&account), &[]).unwrap()).await, "Bearer impersonated");
    let seen = fake.seen();
    assert_eq!(seen[0].field("subject_token").unwrap(), "the-oidc-token");
    assert_eq!(seen[0].field("audience").unwrap(), "//iam.googleapis.com/x");
    assert_eq!(seen[1].header("authorization"), "Bearer federated");
    assert_eq!(seen[1].body, r#"{"scope":["https://www.googleapis.com/auth/cloud-platform"]}"#);
}

#[tokio::test]
async fn federation_by_url() {
    let fake = Fake::with(|seen| if seen.path == "/subject" { (200, r#"{"value":"the-oidc-token"}"#.to_owned()) } else { token("t", 3600) }).await;
    let mut account = serde_json::json!({
        "type": "external_account", "audience": "a", "subject_token_type": "jwt", "token_url": fake.url,
        "credential_source": {"url": format!("{}/subject", fake.url), "headers": {"x-key": "v"}, "format": {"type": "json", "subject_token_field_name": "value"}}
    });
    assert_eq!(authorization(&credential(Auth::Google, &inline(&account), &[]).unwrap()).await, "Bearer t");
    let seen = fake.seen();
    assert_eq!(seen[0].header("x-key"), "v");
    assert_eq!(seen[1].field("subject_token").unwrap(), "the-oidc-token");
    account["credential_source"]["format"]["subject_token_field_name"] = "other".into();
    let message = refused(applied(&credential(Auth::Google, &inline(&account), &[]).unwrap()).await, &["the-oidc-token"]);
    assert!(message.contains("credential_source.format"), "{message}");
}

#[tokio::test]
async fn failures_name_the_server() {
    let fake = Fake::with(|_| (400, r#"{"error":"invalid_grant","error_description":"Invalid JWT Signature."}"#.to_owned())).await;
    let message = refused(applied(&credential(Auth::Google, &inline(&key_file(&fake.url)), &[]).unwrap()).await, &["PRIVATE KEY"]);
    assert!(message.starts_with(&format!("Google's token server at {}/ answered 400: invalid_grant: Invalid JWT Signature.; check that me@p", fake.url)), "{message}");
}

#[test]
fn what_cannot_be_used_is_named() {
    let source = |source: serde_json::Value| serde_json::json!({"type": "external_account", "audience": "a", "subject_token_type": "x", "credential_source": source});
    for (account, says) in [
        (serde_json::json!({"type": "gdch_service_account"}), "is of the type \"gdch_service_account\""),
        (serde_json::json!({"private_key": "hidden"}), "lacks `type`"),
        (serde_json::json!({"type": "service_account", "client_email": "e", "private_key": "hidden"}), "not an RSA key"),
        (source(serde_json::json!({"environment_id": "aws1"})), "takes its token from AWS"),
        (source(serde_json::json!({"executable": {"command": "hidden"}})), "takes its token from a program"),
        (source(serde_json::json!({})), "has neither `file` nor `url`"),
    ] {
        let message = refused(credential(Auth::Google, &inline(&account), &[]), &["hidden"]);
        assert!(message.contains(says), "{message}");
    }
    let message = refused(credential(Auth::Google, r#"{"google":{"credentials_json":"{\"private_key\": hidden"}}"#, &[]), &["hidden"]);
    assert!(message.contains("is not JSON"), "{message}");
    let message = refused(credential(Auth::Google, r#"{"google":{"credentials_file":"/nowhere/key.json"}}"#, &[]), &[]);
    assert!(message.contains("/nowhere/key.json (`google.credentials_file`)"), "{message}");
    assert!(refused(credential(Auth::Google, r#"{"google":{"credentials_file":"/x","credentials_json":"hidden"}}"#, &[]), &["hidden"]).contains("not both"));
}
