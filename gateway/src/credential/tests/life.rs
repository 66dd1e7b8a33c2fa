//! The life of a credential: keys, one fetch for all, renewal ahead of the end, failures.

use futures_util::FutureExt;
use futures_util::future::join_all;

use super::*;

const AZURE: &str = r#"{"azure":{"tenant_id":"t","client_id":"c","client_secret":"the-client-secret"}}"#;

fn entra(fake: &Fake, clock: Clock) -> Arc<Credential> {
    Arc::new(credential_at(Auth::Azure, AZURE, &[("AZURE_AUTHORITY_HOST", &fake.url)], clock).unwrap())
}

#[tokio::test]
async fn keys_are_shown_as_each_provider_wants() {
    let config = r#"{"api_key":"sk-123"}"#;
    for (auth, name, value) in [
        (Auth::Bearer, "authorization", "Bearer sk-123"),
        (Auth::Header("x-api-key"), "x-api-key", "sk-123"),
        (Auth::Azure, "api-key", "sk-123"),
        (Auth::Google, "x-goog-api-key", "sk-123"),
        (BEDROCK, "authorization", "Bearer sk-123"),
    ] {
        let credential = credential(auth, config, &[]).unwrap();
        assert!(credential.is_static());
        let mut parts = request();
        parts.headers.insert("authorization", "stale".parse().unwrap());
        credential.apply(&mut parts, &body()).now_or_never().unwrap().unwrap();
        assert_eq!(parts.headers[name], value);
        assert!(parts.headers[name].is_sensitive());
        assert!(!format!("{credential:?}").contains("sk-"));
        Arc::new(credential).keep_fresh().now_or_never().unwrap();
    }
    let none = credential(Auth::None, "{}", &[]).unwrap();
    assert_eq!(applied(&none).await.unwrap().len(), 1);
    assert!(none.is_static());
}

#[test]
fn wrong_keys_are_refused_unprinted() {
    for key in [r"sk-123\n", r" sk-123", r"sk-123\u0000", r"sk-\r\nx: y-123", "sk-123é"] {
        let message = refused(credential(Auth::Bearer, &format!(r#"{{"api_key":"{key}"}}"#), &[]), &["sk-", "123"]);
        assert!(message.starts_with("`api_key` has a space or line end"), "{message}");
    }
    assert!(refused(credential(Auth::Bearer, r#"{"api_key":""}"#, &[]), &[]).contains("is empty"));
    assert!(refused(credential(Auth::Header("x-api-key"), "{}", &[]), &[]).contains("set `api_key`"));
    assert!(refused(credential(Auth::Bearer, r#"{"api_key":"sk-123","aws":{}}"#, &[]), &["sk-123"]).contains("`aws` is set, but"));
    assert!(refused(credential(BEDROCK, r#"{"api_key":"sk-123","aws":{}}"#, &[]), &["sk-123"]).contains("both set"));
    assert!(refused(credential(Auth::None, r#"{"api_key":"sk-123"}"#, &[]), &["sk-123"]).contains("takes none"));
    assert!(serde_json::from_str::<CredentialConfig>(r#"{"apikey":"x"}"#).is_err());
}

#[tokio::test]
async fn one_fetch_serves_all_who_wait() {
    let fake = Fake::start(|n, _| token(&format!("t{n}"), 3600), Duration::from_millis(150)).await;
    let credential = entra(&fake, Clock::system());
    assert!(!credential.is_static());
    let all = join_all((0..20).map(|_| authorization(&credential))).await;
    assert!(all.iter().all(|a| a == "Bearer t0"), "{all:?}");
    // From now on nothing is waited for.
    let mut parts = request();
    credential.apply(&mut parts, &body()).now_or_never().unwrap().unwrap();
    assert_eq!(parts.headers["authorization"], "Bearer t0");
    assert_eq!(fake.seen().len(), 1);
    assert!(!format!("{credential:?}").contains("t0"));
}

#[tokio::test]
async fn one_failure_serves_all_who_wait() {
    let fake = Fake::start(|_, _| (500, "{}".to_owned()), Duration::from_millis(150)).await;
    let credential = entra(&fake, Clock::system());
    let all = join_all((0..20).map(|_| applied(&credential))).await;
    assert!(all.iter().all(Result::is_err));
    // Who comes right after it is not let through either; later it is tried again.
    assert!(applied(&credential).await.is_err());
    assert_eq!(fake.seen().len(), 1);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert!(applied(&credential).await.is_err());
    assert_eq!(fake.seen().len(), 2);
}

#[tokio::test]
async fn a_fetch_outlives_its_first_asker() {
    let fake = Fake::start(|n, _| token(&format!("t{n}"), 3600), Duration::from_millis(300)).await;
    let credential = entra(&fake, Clock::system());
    assert!(tokio::time::timeout(Duration::from_millis(50), applied(&credential)).await.is_err());
    assert_eq!(authorization(&credential).await, "Bearer t0");
    assert_eq!(fake.seen().len(), 1);
}

#[tokio::test]
async fn tokens_are_renewed_ahead_of_their_end_and_nobody_waits() {
    let fake = Fake::start(|n, _| token(&format!("t{n}"), 4), Duration::from_millis(200)).await;
    let credential = entra(&fake, Clock::system());
    let renewal = tokio::spawn(credential.clone().keep_fresh());
    tokio::time::sleep(Duration::from_millis(400)).await;
    let mut tokens = std::collections::BTreeSet::new();
    for _ in 0..50 {
        let mut parts = request();
        credential.apply(&mut parts, &body()).now_or_never().unwrap().unwrap();
        tokens.insert(parts.headers["authorization"].to_str().unwrap().to_owned());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    renewal.abort();
    assert!(tokens.len() >= 2 && tokens.contains("Bearer t0") && tokens.contains("Bearer t1"), "{tokens:?}");
    assert!(fake.seen().len() <= 4, "{}", fake.seen().len());
}

#[tokio::test]
async fn the_old_token_is_used_while_it_is_valid() {
    let fake = Fake::start(|n, _| if n == 1 || n == 2 { (500, r#"{"error":"temporarily_unavailable"}"#.to_owned()) } else { token(&format!("t{n}"), 3600) }, Duration::ZERO).await;
    let hands = Hands::new();
    let credential = entra(&fake, hands.clock());
    assert_eq!(authorization(&credential).await, "Bearer t0");
    hands.forward(3500);
    let renewal = tokio::spawn(credential.clone().keep_fresh());
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(fake.seen().len(), 2, "it was tried");
    renewal.abort();
    assert_eq!(authorization(&credential).await, "Bearer t0");
    hands.forward(101);
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let message = refused(applied(&credential).await, &["the-client-secret", "t0"]);
    assert_eq!(
        message,
        format!(
            "Microsoft Entra at {}/t/oauth2/v2.0/token answered 500: temporarily_unavailable; check the tenant, the client ID and that the client secret has not expired (`azure` in the provider's configuration, or AZURE_*)",
            fake.url
        )
    );
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(authorization(&credential).await, "Bearer t3");
}

#[tokio::test]
async fn renewal_goes_on_after_a_failure() {
    let fake = Fake::start(|n, _| if n == 0 { (503, "busy".to_owned()) } else { token("t", 3600) }, Duration::ZERO).await;
    let credential = entra(&fake, Clock::system());
    let renewal = tokio::spawn(credential.clone().keep_fresh());
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(fake.seen().len(), 2);
    assert!(credential.apply(&mut request(), &body()).now_or_never().unwrap().is_ok());
    renewal.abort();
}

#[tokio::test]
async fn a_token_of_yesterday_is_refused() {
    let fake = Fake::with(|_| token("t", 0)).await;
    let message = refused(applied(&entra(&fake, Clock::system())).await, &["the-client-secret"]);
    assert!(message.contains("had ended already") && message.contains("clock"), "{message}");
}

#[tokio::test]
async fn servers_that_do_not_answer_are_named() {
    let fake = Fake::start(|_, _| token("t", 3600), Duration::from_secs(30)).await;
    let begun = std::time::Instant::now();
    let message = refused(applied(&entra(&fake, Clock::system())).await, &["the-client-secret"]);
    assert!(message.contains(&fake.url) && message.contains("did not answer within 5 s"), "{message}");
    assert!(begun.elapsed() < Duration::from_secs(7));
    // A port that nobody listens on.
    let url = format!("http://{}", std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let credential = credential(Auth::Azure, AZURE, &[("AZURE_AUTHORITY_HOST", &url)]).unwrap();
    let message = refused(applied(&credential).await, &["the-client-secret"]);
    assert!(message.contains(&url) && message.contains("cannot be reached") && message.contains("refused"), "{message}");
}

#[tokio::test]
async fn errors_do_not_repeat_secrets() {
    let echo = Fake::with(|seen| (400, serde_json::json!({"error": "invalid_client", "error_description": seen.body}).to_string())).await;
    let message = refused(applied(&entra(&echo, Clock::system())).await, &["the-client-secret"]);
    assert!(message.contains("answered 400: invalid_client") && message.contains("client_secret=***"), "{message}");
    // Neither in another spelling, nor the first half of it.
    for secret in ["the&secret/in full", &"half-of-it".repeat(50)] {
        let config = serde_json::json!({"azure": {"tenant_id": "t", "client_id": "c", "client_secret": secret}}).to_string();
        let encoded = Fake::with(|seen| (400, serde_json::json!({"error": urlencoding::encode(&seen.field("client_secret").unwrap())}).to_string())).await;
        let credential = credential(Auth::Azure, &config, &[("AZURE_AUTHORITY_HOST", &encoded.url)]).unwrap();
        assert!(refused(applied(&credential).await, &["secret%2F", "half-of-it"]).contains("answered 400: ***"));
    }
    // An answer that cannot be read may hold the token.
    for answer in [r#"{"access_token":"hidden","expires_in":[]}"#, r#"{"access_token":["hidden"]}"#, r#""hidden""#, "hidden", r#"{"access_token":"hidden\n","expires_in":9}"#] {
        let fake = Fake::with(move |_| (200, answer.to_owned())).await;
        refused(applied(&entra(&fake, Clock::system())).await, &["hidden"]);
    }
    let large = Fake::with(|_| (200, "x".repeat(300 * 1024))).await;
    assert!(refused(applied(&entra(&large, Clock::system())).await, &["xxxx"]).contains("256 KiB"));
}
