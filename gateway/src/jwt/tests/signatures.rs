//! Who a token speaks of, and which tokens are refused.

use super::*;

#[tokio::test]
async fn every_algorithm_is_taken_with_a_key_of_its_kind() {
    let mut signers: Vec<Signer> = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"].into_iter().map(|name| Signer::rsa(name, ONE, key::algorithm(name).unwrap())).collect();
    signers.extend([Signer::ec("ES256", Algorithm::ES256), Signer::ec("ES384", Algorithm::ES384), Signer::ed("EdDSA")]);
    let server = Server::start(&signers.iter().collect::<Vec<_>>()).await;
    let tokens = server.tokens(PACE);
    for signer in &signers {
        assert_eq!(ask(&tokens, &signer.sign(&server.claims())).await.as_deref(), Ok("alice"), "{}", signer.kid);
    }
    let newer = signers.last().unwrap().sign_with(&json!({ "alg": "Ed25519", "kid": "EdDSA" }), &server.claims());
    assert_eq!(ask(&tokens, &newer).await.as_deref(), Ok("alice"));
    assert_eq!(server.fetches(), 1);
}

#[tokio::test]
async fn a_key_is_for_what_it_says_and_nothing_else() {
    let rs256 = Signer::rsa("rs", ONE, Algorithm::RS256);
    let ec = Signer::ec("ec", Algorithm::ES256);
    let mut any = Signer::rsa("any", TWO, Algorithm::RS256);
    any.jwk.as_object_mut().unwrap().remove("alg");
    let server = Server::start(&[&rs256, &ec, &any]).await;
    let tokens = server.tokens(PACE);
    // The same RSA key, but its `alg` says RS256 only; a key without `alg` is for its whole kind.
    let ps = |kid: &'static str, pem: &str| Signer::rsa(kid, pem, Algorithm::PS512).sign(&server.claims());
    assert!(is_signature(&ask(&tokens, &ps("rs", ONE)).await));
    assert_eq!(ask(&tokens, &ps("any", TWO)).await.as_deref(), Ok("alice"));
    // The kid of another key, of the same kind and of another one.
    for kid in ["any", "ec"] {
        assert!(is_signature(&ask(&tokens, &rs256.sign_with(&json!({ "alg": "RS256", "kid": kid }), &server.claims())).await), "{kid}");
    }
    assert!(is_signature(&ask(&tokens, &rs256.forged(TWO).sign(&server.claims())).await));
    assert!(is_signature(&ask(&tokens, &ec.sign_with(&json!({ "alg": "ES384", "kid": "ec" }), &server.claims())).await));
    assert_eq!(server.fetches(), 1, "a key that is known is no reason to look for new ones");
}

#[tokio::test]
async fn what_is_not_signed_by_the_issuer_is_refused() {
    let signer = Signer::rsa("k", ONE, Algorithm::RS256);
    let server = Server::start(&[&signer]).await;
    let tokens = server.tokens(PACE);
    let claims = server.claims();
    // A secret that everybody knows: the public key, in the forms in which it may be at hand.
    let key = jsonwebtoken::DecodingKey::from_rsa_components(signer.jwk["n"].as_str().unwrap(), signer.jwk["e"].as_str().unwrap()).unwrap();
    let public = jsonwebtoken::jwk::Jwk::from_decoding_key(&key, None).unwrap();
    for secret in [serde_json::to_string(&public).unwrap().into_bytes(), URL_SAFE_NO_PAD.decode(signer.jwk["n"].as_str().unwrap()).unwrap(), server.url.clone().into_bytes()] {
        let shared = Signer { kid: "k", algorithm: Algorithm::HS256, key: EncodingKey::from_secret(&secret), jwk: Value::Null };
        assert!(is_signature(&ask(&tokens, &shared.sign(&claims)).await));
    }
    for none in ["none", "None", "NONE", "", "HS256", "RS257", "rs256"] {
        let message = unsigned(&json!({ "alg": none, "kid": "k" }), &claims);
        for signature in ["", "AAAA"] {
            assert!(is_signature(&ask(&tokens, &format!("{message}.{signature}")).await), "{none:?} {signature:?}");
        }
    }
    let good = signer.sign(&claims);
    let (message, signature) = good.rsplit_once('.').unwrap();
    let mut other = claims.clone();
    other["sub"] = "bob".into();
    let swapped = format!("{}.{signature}", unsigned(&json!({ "alg": "RS256", "kid": "k", "typ": "JWT" }), &other));
    let cut = format!("{message}.{}", &signature[..signature.len() - 4]);
    for bad in [swapped, cut, format!("{message}."), format!("{message}.AAAA")] {
        assert!(is_signature(&ask(&tokens, &bad).await), "{bad}");
    }
    assert_eq!(ask(&tokens, &signer.sign_with(&json!({ "alg": "RS256", "kid": "k", "crit": ["exp"] }), &claims)).await, Err(Refusal::Malformed("its header has `crit`")));
    assert_eq!(ask(&tokens, &good).await.as_deref(), Ok("alice"));
}

#[tokio::test]
async fn claims_are_checked_before_a_key_is_asked_for() {
    let signer = Signer::ed("k");
    let server = Server::start(&[&signer]).await;
    let tokens = server.tokens(PACE);
    let with = |name: &str, value: Value| {
        let mut claims = server.claims();
        claims[name] = value;
        signer.sign(&claims)
    };
    let refusals = [
        ("exp", json!(NOW - 60), Refusal::Expired(60)),
        ("nbf", json!(NOW + 61), Refusal::NotYet(61)),
        ("aud", json!("else"), Refusal::Audience),
        ("iss", json!("https://evil.example.com"), Refusal::Issuer("https://evil.example.com".into())),
        ("iss", json!(format!("{}/", server.url)), Refusal::Issuer(format!("{}/", server.url))),
        ("iss", json!([server.url]), Refusal::Issuer(String::new())),
        ("exp", Value::Null, Refusal::Malformed("one of its times is not a number")),
    ];
    for (name, value, refusal) in refusals {
        assert_eq!(ask(&tokens, &with(name, value)).await, Err(refusal), "{name}");
    }
    assert_eq!(server.fetches(), 0);
    let line = with("iss", json!("a\nb\u{1b}[31m"));
    assert_eq!(ask(&tokens, &line).await, Err(Refusal::Issuer("a\\nb\\u{1b}[31m".into())), "a log is not written by strangers");
}

#[tokio::test]
async fn a_token_speaks_of_a_consumer_or_of_a_member() {
    let signer = Signer::ed("k");
    let server = Server::start(&[&signer]).await;
    let tokens = server.tokens(PACE);
    let all = principals();
    let who = async |sub: Value, groups: Value| {
        let mut claims = server.claims();
        (claims["sub"], claims["groups"]) = (sub, groups);
        let text = signer.sign(&claims);
        tokens.check(&Token::cut(&text).unwrap(), hash_of(&text), &all, Duration::from_secs(NOW)).await
    };
    let alice = who(json!("alice"), json!(["research"])).await.unwrap();
    assert!(alice.groups.is_empty() && alice.limits.is_empty(), "a configured consumer is what the configuration says");
    let carol = who(json!("carol"), json!(["nobody", "research", "research", "other"])).await.unwrap();
    assert_eq!((&*carol.name, carol.groups.iter().map(|g| &**g).collect::<Vec<_>>()), ("carol", vec!["research", "other"]));
    assert_eq!(carol.limits.iter().map(|l| &*l.purse.key).collect::<Vec<_>>(), ["group:research/consumer:carol|Requests|sliding:3600|*"]);
    assert!(carol.may_use("anything"), "one of the groups allows all");
    assert!(!who(json!("carol"), json!("research,x")).await.unwrap().may_use("anything"));
    for (sub, groups) in
        [(json!("dave"), json!(["nobody"])), (json!("dave"), Value::Null), (json!(7), json!(["research"])), (json!("a\u{7}"), json!(["research"])), (json!("x".repeat(129)), json!(["research"]))]
    {
        assert!(matches!(who(sub.clone(), groups).await, Err(Refusal::Nobody(_))), "{sub}");
    }
}

#[test]
fn keys_that_could_do_harm_are_left_out() {
    let good = Signer::ec("good", Algorithm::ES256).jwk;
    let with = |name: &str, value: Value| {
        let mut jwk = good.clone();
        jwk[name] = value;
        jwk
    };
    let rsa = Signer::rsa("rsa", ONE, Algorithm::RS256).jwk;
    let mut short = rsa.clone();
    short["n"] = URL_SAFE_NO_PAD.encode([0xff; 128]).into();
    let mut padded = rsa.clone();
    padded["n"] = URL_SAFE_NO_PAD.encode([&[0u8; 200][..], &[0xff; 128]].concat()).into();
    let mut huge = rsa.clone();
    huge["n"] = URL_SAFE_NO_PAD.encode([0xff; 1024]).into();
    let bad = [
        with("use", json!("enc")),
        with("key_ops", json!(["encrypt"])),
        with("alg", json!("RS256")),
        with("alg", json!("ECDH-ES")),
        with("alg", json!("HS256")),
        with("crv", json!("P-384")),
        with("crv", json!("secp256k1")),
        with("x", json!("AAAA")),
        with("y", good["x"].clone()),
        with("kty", json!("oct")),
        with("kid", json!(7)),
        json!({ "kty": "oct", "k": "c2VjcmV0", "kid": "s", "alg": "HS256" }),
        json!({ "kty": "OKP", "crv": "Ed25519", "x": "AAAA" }),
        json!({ "kty": "OKP", "crv": "X25519", "x": URL_SAFE_NO_PAD.encode([1; 32]) }),
        json!({ "kty": "RSA", "e": "AQAB" }),
        json!("key"),
        short,
        padded,
        huge,
    ];
    let read = |keys: &[Value]| Keys::read(json!({ "keys": keys }).to_string().as_bytes()).map(|keys| keys.len());
    for key in &bad {
        assert!(read(std::slice::from_ref(key)).is_err(), "{key}");
    }
    assert_eq!(read(&[bad.as_slice(), &[good.clone(), rsa]].concat()), Ok(2));
    assert_eq!(read(&[with("key_ops", json!(["verify"])), with("use", json!("sig"))]), Ok(2));
    for body in ["", "[]", "{}", "{\"keys\":{}}", "{\"keys\":[]}"] {
        assert!(Keys::read(body.as_bytes()).is_err(), "{body}");
    }
}
