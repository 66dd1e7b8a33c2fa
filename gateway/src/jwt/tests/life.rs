//! The keys of an issuer as they come, change and stay away.

use super::*;

#[tokio::test]
async fn a_storm_of_unknown_keys_is_one_fetch() {
    let (known, unknown) = (Signer::ed("known"), Signer::ed("unknown"));
    let server = Server::start(&[&known]).await;
    let tokens = Arc::new(server.tokens(PACE));
    assert_eq!(ask(&tokens, &known.sign(&server.claims())).await.as_deref(), Ok("alice"));
    server.set(|f| f.delay = Duration::from_millis(50));
    let before = server.fetches();
    let storm = async |from: u64| {
        let tasks: Vec<_> = (0..100)
            .map(|i| {
                let mut claims = server.claims();
                claims["jti"] = json!(from + i);
                let (tokens, text) = (tokens.clone(), unknown.sign(&claims));
                tokio::spawn(async move { ask(&tokens, &text).await })
            })
            .collect();
        for task in tasks {
            assert!(is_signature(&task.await.unwrap()));
        }
    };
    storm(0).await;
    assert_eq!(server.fetches() - before, 1);
    storm(100).await;
    assert_eq!(server.fetches() - before, 1, "once a minute");
    assert_eq!(ask(&tokens, &known.sign(&server.claims())).await.as_deref(), Ok("alice"));
}

#[tokio::test]
async fn a_new_key_is_found_at_once_and_what_an_old_one_signed_is_forgotten() {
    let (old, new) = (Signer::ed("old"), Signer::ec("new", Algorithm::ES256));
    let server = Server::start(&[&old]).await;
    let tokens = server.tokens(EAGER);
    let by_old = old.sign(&server.claims());
    assert_eq!(ask(&tokens, &by_old).await.as_deref(), Ok("alice"));
    let known = || tokens.known(&hash_of(&by_old), Duration::from_secs(NOW)).is_some();
    assert!(known());
    // The same keys again, in other words: nothing changes.
    tokens.issuers[0].source.seek().await;
    assert!(known());
    server.set(|f| f.keys = vec![new.jwk.clone()]);
    assert_eq!(ask(&tokens, &new.sign(&server.claims())).await.as_deref(), Ok("alice"));
    assert!(!known());
    assert!(is_signature(&ask(&tokens, &by_old).await), "its key was taken back");
}

#[tokio::test]
async fn a_token_without_the_name_of_its_key() {
    let (one, two) = (Signer::rsa("one", ONE, Algorithm::RS256), Signer::rsa("two", TWO, Algorithm::RS256));
    let server = Server::start(&[&one]).await;
    let tokens = server.tokens(EAGER);
    let bare = |signer: &Signer| signer.sign_with(&json!({ "alg": "RS256" }), &server.claims());
    assert_eq!(ask(&tokens, &bare(&one)).await.as_deref(), Ok("alice"));
    assert!(is_signature(&ask(&tokens, &bare(&two)).await));
    server.set(|f| f.keys.push(two.jwk.clone()));
    assert_eq!(ask(&tokens, &bare(&two)).await.as_deref(), Ok("alice"), "the keys are looked at anew");
}

#[tokio::test]
async fn an_issuer_that_is_down() {
    let signer = Signer::ed("k");
    let server = Server::start(&[&signer]).await;
    server.set(|f| f.down = true);
    let tokens = server.tokens(EAGER);
    let text = signer.sign(&server.claims());
    assert_eq!(ask(&tokens, &text).await, Err(Refusal::NoKeys(server.url.clone())));
    server.set(|f| f.down = false);
    assert_eq!(ask(&tokens, &text).await.as_deref(), Ok("alice"));
    // Down again: what is known stays in use, for tokens that were seen and for others.
    server.set(|f| f.down = true);
    tokens.issuers[0].source.seek().await;
    assert_eq!(ask(&tokens, &text).await.as_deref(), Ok("alice"));
    let mut claims = server.claims();
    claims["jti"] = 1.into();
    assert_eq!(ask(&tokens, &signer.sign(&claims)).await.as_deref(), Ok("alice"));
    // An empty set is no set: it does not take the place of one.
    server.set(|f| (f.down, f.keys) = (false, Vec::new()));
    tokens.issuers[0].source.seek().await;
    claims["jti"] = 2.into();
    assert_eq!(ask(&tokens, &signer.sign(&claims)).await.as_deref(), Ok("alice"));
}

#[tokio::test]
async fn many_who_wait_for_the_first_keys_share_one_fetch() {
    let signer = Signer::ed("k");
    let server = Server::start(&[&signer]).await;
    server.set(|f| f.delay = Duration::from_millis(50));
    let tokens = Arc::new(server.tokens(PACE));
    let text = signer.sign(&server.claims());
    let tasks: Vec<_> = (0..50)
        .map(|_| {
            let (tokens, text) = (tokens.clone(), text.clone());
            tokio::spawn(async move { ask(&tokens, &text).await })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap().as_deref(), Ok("alice"));
    }
    assert_eq!(server.fetches(), 1);
}

#[tokio::test]
async fn an_issuer_that_hangs_holds_nobody_up_for_long() {
    let signer = Signer::ed("k");
    let server = Server::start(&[&signer]).await;
    server.set(|f| f.delay = Duration::from_secs(600));
    let tokens = server.tokens(PACE);
    let text = signer.sign(&server.claims());
    let answers = tokio::time::timeout(Duration::from_secs(60), async { (ask(&tokens, &text).await, ask(&tokens, &text).await) });
    let none = Err(Refusal::NoKeys(server.url.clone()));
    assert_eq!(answers.await.expect("there is a deadline"), (none.clone(), none));
}

#[tokio::test]
async fn an_issuer_behind_an_authority_of_its_own() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = rustls::ServerConfig::builder().with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/keys", listener.local_addr().unwrap().port());
    let body = json!({ "keys": [Signer::ed("k").jwk] }).to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len()).as_bytes()).await;
        }
    });
    let place = |ca: Option<String>| Place { issuer: "https://id.example.com".into(), jwks_url: Some(url.clone()), ca: ca.map(String::into_bytes) };
    let state = state();
    let source = state.issuers.of(place(Some(made.cert.pem())), &state).unwrap();
    assert!(source.first().await.is_some());
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    for ca in [None, Some(other.cert.pem())] {
        assert!(state.issuers.of(place(ca), &state).unwrap().first().await.is_none());
    }
}

#[tokio::test]
async fn who_comes_while_keys_are_fetched_waits_for_these() {
    let server = Server::start(&[&Signer::ed("k")]).await;
    server.set(|f| f.delay = Duration::from_millis(50));
    // Nothing but the fetch under way holds anybody back.
    let source = server.source(EAGER);
    let seeking: Vec<_> = (0..20)
        .map(|_| {
            let source = source.clone();
            tokio::spawn(async move { source.seek().await.is_some() })
        })
        .collect();
    for one in seeking {
        assert!(one.await.unwrap());
    }
    assert_eq!(server.fetches(), 1);
    source.seek().await;
    assert_eq!(server.fetches(), 2);
}

#[tokio::test]
async fn keys_are_fetched_in_the_background_and_only_from_where_they_should_be() {
    let signer = Signer::ed("k");
    let server = Server::start(&[&signer]).await;
    let kept = |place: Place| {
        let source = Source::new(place, http(), PACE);
        let keeper = tokio::spawn(source.clone().keep_fresh());
        async move {
            let held = tokio::time::timeout(Duration::from_secs(20), async {
                // Done when the first fetch has ended, well or not.
                while source.held().is_none() && !source.has_failed().await {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                source.held().is_some()
            });
            let held = held.await.expect("a fetch ends");
            keeper.abort();
            held
        }
    };
    let place = |jwks: Option<&str>| Place { issuer: server.url.clone(), jwks_url: jwks.map(|path| format!("{}{path}", server.url)), ca: None };
    assert!(kept(place(None)).await);
    assert!(kept(place(Some("/keys"))).await);
    assert!(!kept(place(Some("/elsewhere"))).await, "redirects are not followed");
    assert!(!kept(place(Some("/nowhere"))).await);
    for document in [
        json!({ "issuer": format!("{}/", server.url), "jwks_uri": format!("{}/keys", server.url) }),
        json!({ "issuer": server.url, "jwks_uri": "http://keys.example.com/" }),
        json!({ "issuer": server.url, "jwks_uri": "file:///etc/keys" }),
        json!({ "issuer": server.url }),
        json!([]),
    ] {
        server.set(|f| f.document = Some(document.clone()));
        assert!(!kept(place(None)).await, "{document}");
    }
    server.set(|f| f.body = Some(format!("{{\"keys\":[{}],\"pad\":\"{}\"}}", signer.jwk, "x".repeat(300 << 10))));
    assert!(!kept(place(Some("/keys"))).await, "too large");
}

#[tokio::test]
async fn what_is_remembered_is_bounded_and_ends() {
    let signer = Signer::ed("k");
    let server = Server::start(&[&signer]).await;
    let source = server.source(PACE);
    let keys = source.first().await.unwrap();
    let alice = principals().known_as("alice", &[]).unwrap();
    let seen = Seen::new();
    let keep = |i: u32, ends: u64| {
        let hash = hash_of(&i.to_string());
        seen.keep(Good { hash, principal: alice.clone(), ends, source: source.clone(), keys: keys.clone() }, NOW);
        hash
    };
    let hash = keep(0, NOW + 10);
    assert!(seen.find(&hash, NOW + 9).is_some() && seen.find(&hash, NOW + 10).is_none() && seen.find(&hash_of("x"), NOW).is_none());
    // What is ended makes room first; then what ends first.
    let hashes: Vec<Hash> = (1..4000).map(|i| keep(i, NOW + 1000)).collect();
    let lost = hashes.iter().filter(|hash| seen.find(hash, NOW).is_none()).count();
    assert!(lost < 400, "{lost} of 4000 have no room in a table of twice as many");
    for i in 0..100_000 {
        keep(i, NOW + 2000);
    }
    assert!(Arc::strong_count(&alice) <= 8192 + 2, "{}", Arc::strong_count(&alice));
}
