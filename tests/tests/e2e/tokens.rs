//! Tokens of an issuer as credentials: who comes in by one, whose limits hold, what is said of a bad one, and what happens
//! when the issuer changes its keys or is away.

use std::sync::Arc;

use serde_json::{Value, json};
use tests::client::{Response, chat};
use tests::{Mock, Running};

use crate::issuer::{Issuer, ONE, Signer, TWO, eventually, now, unsigned};

const CHAT: &str = "/v1/chat/completions";

async fn ask(gateway: &Running, token: &str) -> Response {
    let bearer = format!("Bearer {token}");
    gateway.client().send("POST", CHAT, &[("content-type", "application/json"), ("authorization", &bearer)], chat("well").to_string().as_bytes()).await
}

async fn usage(gateway: &Running, token: &str) -> Value {
    let bearer = format!("Bearer {token}");
    gateway.client().send("GET", "/v1/usage", &[("authorization", &bearer)], b"").await.json()
}

async fn start(issuer: &Issuer, yaml: &str) -> (Mock, Running) {
    let mock = Mock::start().await;
    let gateway = Running::start(&format!("{}{yaml}", issuer.auth()), &mock).await;
    (mock, gateway)
}

async fn reload(gateway: &Running) {
    let reloader = gateway.reloader.clone();
    let result = tokio::task::spawn_blocking(move || reloader.reload()).await.unwrap();
    assert!(result.is_ok(), "{result:?}");
}

#[tokio::test]
async fn keys_of_every_kind_and_every_door() {
    let signers = [Signer::rsa("rsa", ONE), Signer::ec("ec"), Signer::ed("ed")];
    let issuer = Issuer::start(&signers.iter().collect::<Vec<_>>()).await;
    let (_mock, gateway) = start(&issuer, "consumers: { alice: {} }\n").await;
    for signer in &signers {
        let token = signer.sign(&issuer.claims("alice"));
        ask(&gateway, &token).await.answer();
        ask(&gateway, &token).await.answer();
    }
    assert_eq!(issuer.fetches(), 1);
    let token = signers[1].sign(&issuer.claims("alice"));
    let messages = json!({ "model": "well", "max_tokens": 10, "messages": [{ "role": "user", "content": "hi" }] });
    let answer = gateway.client().send("POST", "/v1/messages", &[("content-type", "application/json"), ("x-api-key", &token)], messages.to_string().as_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let list = gateway.client().send("GET", "/v1/models", &[("x-goog-api-key", &token)], b"").await;
    assert_eq!((list.status, list.json()["models"][0]["name"].as_str()), (200, Some("models/well")), "{}", list.text());
    for entry in gateway.entries(7).await {
        assert_eq!(entry["consumer"], "alice");
    }
}

#[tokio::test]
async fn a_consumer_has_one_purse_by_key_and_by_token() {
    let signer = Signer::ec("k");
    let issuer = Issuer::start(&[&signer]).await;
    let (mock, gateway) = start(&issuer, "consumers: { alice: { keys: [key-of-alice], limits: [{ requests: 2, per: 1h }] } }\ndata: \"{{folder}}\"\n").await;
    ask(&gateway, "key-of-alice").await.answer();
    ask(&gateway, &signer.sign(&issuer.claims("alice"))).await.answer();
    ask(&gateway, &signer.sign(&issuer.claims("alice"))).await.fault(429, "rate_limit_exceeded");
    ask(&gateway, "key-of-alice").await.fault(429, "rate_limit_exceeded");
    assert_eq!(mock.asked("well").len(), 2);
}

#[tokio::test]
async fn members_that_only_a_token_names_have_the_limits_of_their_groups() {
    let signer = Signer::ec("k");
    let issuer = Issuer::start(&[&signer]).await;
    let yaml = "
groups:
  staff: { models: [well], limits: [{ requests: 2, per: 1h }, { requests: 4, per: 1h, each: group, models: [well] }] }
  guests: { models: [other] }
models: { other: well/other }
data: \"{{folder}}\"
";
    let (_mock, gateway) = start(&issuer, yaml).await;
    let of = |sub: &str, groups: Value| {
        let mut claims = issuer.claims(sub);
        claims["groups"] = groups;
        signer.sign(&claims)
    };
    // Each new token of the same member spends from the same purse.
    ask(&gateway, &of("carol", json!(["staff", "unheard-of"]))).await.answer();
    ask(&gateway, &of("carol", json!("unheard-of staff"))).await.answer();
    ask(&gateway, &of("carol", json!(["staff"]))).await.fault(429, "rate_limit_exceeded");
    ask(&gateway, &of("dave", json!(["staff"]))).await.answer();
    let seen = usage(&gateway, &of("dave", json!(["staff"]))).await;
    assert_eq!((&seen["consumer"], &seen["groups"], &seen["limits"][0]["used"], &seen["limits"][1]["used"]), (&json!("dave"), &json!(["staff"]), &json!(1), &json!(3)));
    ask(&gateway, &of("erin", json!(["staff"]))).await.answer();
    ask(&gateway, &of("erin", json!(["staff"]))).await.fault(429, "rate_limit_exceeded");
    ask(&gateway, &of("frank", json!(["guests"]))).await.fault(403, "model_not_allowed");
    for groups in [json!([]), json!(["unheard-of"]), json!({ "staff": true })] {
        let token = of("nobody", groups);
        let refused = ask(&gateway, &token).await;
        let message = refused.fault(403, "unknown_consumer");
        assert!(message.contains("neither its consumer nor one of its groups is known here") && !refused.text().contains(&token), "{message}");
    }
    // Loaded anew, another group lets somebody in; a token that was seen before is looked at anew.
    gateway.rewrite(&format!("{}{}", issuer.auth(), yaml.replace("guests:", "unheard-of:")));
    reload(&gateway).await;
    ask(&gateway, &of("frank", json!(["guests"]))).await.fault(403, "unknown_consumer");
}

#[tokio::test]
async fn a_reload_counts_for_tokens_that_were_seen() {
    let signer = Signer::ec("k");
    let issuer = Issuer::start(&[&signer]).await;
    let (_mock, gateway) = start(&issuer, "consumers: { alice: { models: [well] }, bob: {} }\n").await;
    let token = signer.sign(&issuer.claims("alice"));
    ask(&gateway, &token).await.answer();
    gateway.rewrite(&format!("{}consumers: {{ alice: {{ models: [none] }}, bob: {{}} }}\n", issuer.auth()));
    reload(&gateway).await;
    ask(&gateway, &token).await.fault(403, "model_not_allowed");
    gateway.rewrite(&format!("{}consumers: {{ bob: {{}} }}\n", issuer.auth()));
    reload(&gateway).await;
    ask(&gateway, &token).await.fault(403, "unknown_consumer");
    assert_eq!(issuer.fetches(), 1, "what is known of an issuer outlives a reload");
    // Without the issuer a token is a key like any other, and a wrong one.
    gateway.rewrite("consumers: { alice: {}, bob: { keys: [key-of-bob] } }\n");
    reload(&gateway).await;
    ask(&gateway, &token).await.fault(401, "invalid_api_key");
}

/// Bad tokens: what each is, the code and a part of what is said.
fn bad(issuer: &Issuer, signer: &Signer, other: &Signer) -> Vec<(&'static str, String, &'static str)> {
    let with = |name: &str, value: Value| {
        let mut claims = issuer.claims("alice");
        claims[name] = value;
        claims
    };
    let claims = issuer.claims("alice");
    let header = json!({ "alg": "RS256", "kid": signer.kid });
    let good = signer.sign(&claims);
    let (message, signature) = good.rsplit_once('.').unwrap();
    let forged = Signer::rsa(signer.kid, TWO);
    let public = rsa_public_pem(signer);
    let none = unsigned(&json!({ "alg": "none", "kid": signer.kid }), &claims);
    vec![
        ("expired", signer.sign(&with("exp", json!(now() - 61))), "the token has expired"),
        ("not valid yet", signer.sign(&with("nbf", json!(now() + 3000))), "the token is not valid yet"),
        ("issued in the future", signer.sign(&with("iat", json!(now() + 30_000))), "the token is not valid yet"),
        ("without an end", signer.sign(&with("exp", Value::Null)), "the token is malformed"),
        ("for somebody else", signer.sign(&with("aud", json!(["somebody"]))), "the token is for another audience"),
        ("for nobody", signer.sign(&with("aud", Value::Null)), "the token is for another audience"),
        ("of another issuer", signer.sign(&with("iss", json!("https://evil.example.com"))), "the token is of an issuer that is not trusted here"),
        ("critical", signer.sign_with(&json!({ "alg": "RS256", "kid": signer.kid, "crit": ["x"], "x": 1 }), &claims), "the token is malformed"),
        ("claims that are no object", format!("{}.W10.AAAA", unsigned(&header, &json!({})).split('.').next().unwrap()), "the token is malformed"),
        ("deep", deep(&header), "the token is malformed"),
        ("alg none", format!("{none}."), "the token's signature is not valid"),
        ("alg none with a signature", format!("{none}.{signature}"), "the token's signature is not valid"),
        ("HS256 with the public key", Signer::shared(signer.kid, public.as_bytes()).sign(&claims), "the token's signature is not valid"),
        ("an unknown algorithm", signer.sign_with(&json!({ "alg": "RS1", "kid": signer.kid }), &claims), "the token's signature is not valid"),
        ("another key of the name", forged.sign(&claims), "the token's signature is not valid"),
        ("the kid of another key", signer.sign_with(&json!({ "alg": "RS256", "kid": other.kid }), &claims), "the token's signature is not valid"),
        ("an unknown kid", signer.sign_with(&json!({ "alg": "RS256", "kid": "unheard-of" }), &claims), "the token's signature is not valid"),
        ("no kid", forged.sign_with(&json!({ "alg": "RS256" }), &claims), "the token's signature is not valid"),
        ("cut", format!("{message}."), "the token's signature is not valid"),
        ("changed", format!("{}.{signature}", unsigned(&header, &with("sub", json!("root")))), "the token's signature is not valid"),
    ]
}

fn deep(header: &Value) -> String {
    use base64::Engine as _;
    let claims = format!("{}1{}", "[".repeat(2000), "]".repeat(2000));
    let header = unsigned(header, &json!({}));
    format!("{}.{}.AAAA", header.split('.').next().unwrap(), base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(format!("{{\"a\":{claims}}}")))
}

/// The public key as people have it in a file, which an attacker has too.
fn rsa_public_pem(signer: &Signer) -> String {
    use base64::Engine as _;
    let decode = |name: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(signer.jwk[name].as_str().unwrap()).unwrap();
    let integer = |bytes: Vec<u8>| [&[0x02, 0x82, ((bytes.len() + 1) >> 8) as u8, (bytes.len() + 1) as u8, 0][..], &bytes].concat();
    let inner = [integer(decode("n")), integer(decode("e"))].concat();
    let der = [&[0x30, 0x82, (inner.len() >> 8) as u8, inner.len() as u8][..], &inner].concat();
    format!("-----BEGIN RSA PUBLIC KEY-----\n{}\n-----END RSA PUBLIC KEY-----\n", base64::engine::general_purpose::STANDARD.encode(der))
}

#[tokio::test]
async fn bad_tokens_are_told_as_little_as_helps() {
    let (signer, other) = (Signer::rsa("one", ONE), Signer::ec("two"));
    let issuer = Issuer::start(&[&signer, &other]).await;
    let (mock, gateway) = start(&issuer, "consumers: { alice: {} }\nlimits: { headers: 256KiB }\n").await;
    let mut of_signatures: Option<(String, String)> = None;
    for (what, token, said) in bad(&issuer, &signer, &other) {
        let id = [("x-request-id", "the-same"), ("authorization", &format!("Bearer {token}")), ("content-type", "application/json")];
        let refused = gateway.client().send("POST", CHAT, &id, chat("well").to_string().as_bytes()).await;
        assert_eq!(refused.fault(401, "invalid_token"), said, "{what}");
        let challenge = refused.header("www-authenticate").unwrap_or_default().to_owned();
        assert!(challenge.starts_with("Bearer error=\"invalid_token\", error_description=\"the "), "{what}: {challenge}");
        assert!(!refused.text().contains(&token[..20]), "{what}");
        if said.contains("signature") {
            // Nothing tells a key that is known from one that is not.
            let (body, before) = (refused.text(), of_signatures.get_or_insert((refused.text(), challenge.clone())).clone());
            assert_eq!(before, (body, challenge), "{what}");
        }
    }
    // A token too large for what tokens are, and one too large for a head.
    let long = signer.sign(&json!({ "iss": issuer.url(), "aud": "trivium", "sub": "alice", "exp": now() + 600, "pad": "x".repeat(75_000) }));
    assert!(long.len() > 100_000);
    assert_eq!(ask(&gateway, &long).await.fault(401, "invalid_token"), "the token is malformed");
    assert_eq!(mock.received().len(), 0);
    // In the words of other doors.
    let expired = bad(&issuer, &signer, &other).remove(0).1;
    let anthropic = gateway.client().send("POST", "/v1/messages", &[("content-type", "application/json"), ("x-api-key", &expired)], b"{}").await;
    assert_eq!((anthropic.status, &anthropic.json()["error"]["type"], &anthropic.json()["error"]["message"]), (401, &json!("authentication_error"), &json!("the token has expired")));
    let google = gateway.client().send("POST", "/v1beta/models/well:generateContent", &[("content-type", "application/json"), ("x-goog-api-key", &expired)], b"{}").await;
    assert_eq!((google.status, &google.json()["error"]["status"]), (401, &json!("UNAUTHENTICATED")));
    // The operator is told more.
    let ledger = gateway.ledger(23).await;
    for part in ["the key `unheard-of` is not known", "`HS256` is not an accepted algorithm", "`none` is not an accepted algorithm", "the token ended", "it is longer than 16 KiB"] {
        assert!(ledger.contains(part), "{part} is missing in\n{ledger}");
    }
    ask(&gateway, &signer.sign(&issuer.claims("alice"))).await.answer();
}

#[tokio::test]
async fn an_issuer_that_changes_its_keys() {
    let (old, new, never) = (Signer::ec("old"), Signer::rsa("new", ONE), Signer::ed("never"));
    let issuer = Issuer::start(&[&old]).await;
    let (_mock, gateway) = start(&issuer, "consumers: { alice: {} }\n").await;
    let gateway = Arc::new(gateway);
    let by_old = old.sign(&issuer.claims("alice"));
    ask(&gateway, &by_old).await.answer();
    issuer.publish(&[&old, &new]);
    ask(&gateway, &new.sign(&issuer.claims("alice"))).await.answer();
    assert_eq!(issuer.fetches(), 2, "a key that is not known is looked for at once");
    ask(&gateway, &by_old).await.answer();
    // From then on for a minute not, however many ask.
    let storm: Vec<_> = (0..60)
        .map(|_| {
            let (gateway, token) = (gateway.clone(), never.sign(&issuer.claims("alice")));
            tokio::spawn(async move { ask(&gateway, &token).await.fault(401, "invalid_token") })
        })
        .collect();
    for task in storm {
        task.await.unwrap();
    }
    assert_eq!(issuer.fetches(), 2);
}

#[tokio::test]
async fn an_issuer_that_is_away() {
    let signer = Signer::ed("k");
    let issuer = Issuer::start(&[&signer]).await;
    issuer.fall();
    let yaml = "consumers: { alice: { keys: [key-of-alice] } }\n";
    let (_mock, gateway) = start(&issuer, yaml).await;
    let token = signer.sign(&issuer.claims("alice"));
    let refused = ask(&gateway, &token).await;
    refused.fault(503, "issuer_unavailable");
    assert_eq!((refused.header("retry-after"), refused.header("x-should-retry")), (Some("2"), Some("true")));
    ask(&gateway, "key-of-alice").await.answer();
    // What can be refused without a key is refused.
    let mut expired = issuer.claims("alice");
    expired["exp"] = json!(now() - 1000);
    ask(&gateway, &signer.sign(&expired)).await.fault(401, "invalid_token");
    issuer.publish(&[&signer]);
    eventually("the issuer is back", || async { ask(&gateway, &token).await.status == 200 }).await;
    // Away again, and the configuration loaded anew meanwhile: the keys known so far hold.
    issuer.fall();
    let asked = issuer.asked();
    ask(&gateway, &signer.sign(&issuer.claims("alice"))).await.answer();
    gateway.rewrite(&format!("{}{yaml}models: {{ more: well/more }}\n", issuer.auth()));
    reload(&gateway).await;
    ask(&gateway, &signer.sign(&issuer.claims("alice"))).await.answer();
    assert_eq!(issuer.asked(), asked);
    // A key that is not known is looked for in vain.
    ask(&gateway, &Signer::ed("new").sign(&issuer.claims("alice"))).await.fault(401, "invalid_token");
    assert!(issuer.asked() > asked);
    ask(&gateway, &token).await.answer();
}

#[tokio::test]
async fn who_shows_nothing_is_told_what_to_show() {
    let signer = Signer::ed("k");
    let issuer = Issuer::start(&[&signer]).await;
    let (_mock, gateway) = start(&issuer, "groups: { staff: {} }\n").await;
    let refused = gateway.client().chat("well").await;
    assert!(refused.fault(401, "invalid_api_key").starts_with("a token (JWT) is needed"));
    assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
    ask(&gateway, "sk-some-key").await.fault(401, "invalid_api_key");
    gateway.rewrite(&format!("{}consumers: {{ bob: {{ keys: [key-of-bob] }} }}\n", issuer.auth()));
    reload(&gateway).await;
    assert!(gateway.client().chat("well").await.fault(401, "invalid_api_key").starts_with("an API key or a token (JWT) is needed"));
    // Where everybody is served, a bad token is still a bad token.
    gateway.rewrite(&format!("{}consumers: {{ bob: {{ keys: [key-of-bob] }} }}\n", issuer.auth().replace("jwt:", "anonymous: true, jwt:")));
    reload(&gateway).await;
    gateway.client().chat("well").await.answer();
    ask(&gateway, &Signer::ed("x").sign(&issuer.claims("bob"))).await.fault(401, "invalid_token");
    issuer.until_fetched(1).await;
}

#[tokio::test]
async fn several_issuers_and_claims_in_other_places() {
    let (here, there, unwanted) = (Signer::ec("k"), Signer::ec("k"), Signer::ed("unwanted"));
    let (first, second) = (Issuer::start(&[&here, &unwanted]).await, Issuer::start(&[&there, &unwanted]).await);
    let mock = Mock::start().await;
    let yaml = format!(
        "auth:\n  jwt:\n    - {{ issuer: \"{}\", audience: [a, trivium] }}\n    - {{ issuer: \"{1}\", audience: trivium, jwks_url: \"{1}/keys\", consumer_claim: who.name, groups_claim: realm_access.roles, algorithms: [ES256] }}\ngroups: {{ staff: {{}} }}\nconsumers: {{ alice: {{}} }}\n",
        first.url(),
        second.url()
    );
    let gateway = Running::start(&yaml, &mock).await;
    ask(&gateway, &here.sign(&first.claims("alice"))).await.answer();
    let mut claims = second.claims("alice");
    (claims["who"], claims["realm_access"]) = (json!({ "name": "zoe" }), json!({ "roles": ["staff"] }));
    assert_eq!(usage(&gateway, &there.sign(&claims)).await["consumer"], "zoe");
    // The key of one issuer signs nothing for the other, whatever it is called.
    ask(&gateway, &here.sign(&second.claims("alice"))).await.fault(401, "invalid_token");
    ask(&gateway, &there.sign(&first.claims("alice"))).await.fault(401, "invalid_token");
    // The second takes one algorithm only, whatever keys it publishes.
    ask(&gateway, &unwanted.sign(&claims)).await.fault(401, "invalid_token");
    ask(&gateway, &unwanted.sign(&first.claims("alice"))).await.answer();
}
