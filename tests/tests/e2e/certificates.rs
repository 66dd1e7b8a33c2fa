//! Client certificates: who is known by one, what wins beside it, and that it ends with its time, its authority and its
//! connection.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use sha2::Digest as _;
use tests::client::{Response, chat, request};
use tests::harness::said;
use tests::{Connection, Mock, Running};
use tokio_rustls::TlsConnector;

use crate::issuer::now;

const CHAT: &str = "/v1/chat/completions";
/// The alternative name of a certificate, its common name, and until when it is good.
type Wanted<'a> = (Option<SanType>, &'a str, u64);

/// An authority of client certificates.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn sign(&self, (alternative, common, ends): Wanted<'_>) -> Identity {
        let mut params = CertificateParams::default();
        params.subject_alt_names.extend(alternative);
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, common);
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(ends);
        let key = KeyPair::generate().unwrap();
        let made = params.signed_by(&key, &self.0).unwrap();
        Identity { certificate: made.der().clone(), key: key.serialize_pem() }
    }

    /// A certificate for a URI that is good for an hour.
    fn uri(&self, uri: &str) -> Identity {
        self.sign((Some(SanType::URI(uri.try_into().unwrap())), "x", now() + 3600))
    }
}

struct Identity {
    certificate: CertificateDer<'static>,
    key: String,
}

impl Identity {
    fn fingerprint(&self) -> String {
        sha2::Sha256::digest(&self.certificate).iter().map(|b| format!("{b:02x}")).collect()
    }
}

/// A gateway with TLS, and what its clients have to know of it.
struct Secured {
    gateway: Running,
    root: CertificateDer<'static>,
    folder: PathBuf,
    _mock: Mock,
}

impl Drop for Secured {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// `name` names the story, so that each has a folder of its own.
async fn start(name: &str, authority: &Authority, auth: &str, yaml: &str) -> Secured {
    let folder = std::env::temp_dir().join(format!("trivium-mtls-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("tls.crt"), made.cert.pem()).unwrap();
    std::fs::write(folder.join("tls.key"), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(folder.join("ca.pem"), authority.0.pem()).unwrap();
    let tls = format!("tls: {{ cert: \"{0}/tls.crt\", key: \"{0}/tls.key\", client_ca: \"{0}/ca.pem\"{auth} }}\n", folder.display());
    let mock = Mock::start().await;
    let gateway = Running::start(&format!("{tls}{yaml}"), &mock).await;
    Secured { gateway, root: made.cert.der().clone(), folder, _mock: mock }
}

impl Secured {
    async fn connect(&self, identity: Option<&Identity>) -> std::io::Result<Connection> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let builder = rustls::ClientConfig::builder().with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some(id) => builder.with_client_auth_cert(vec![id.certificate.clone()], PrivateKeyDer::from_pem_slice(id.key.as_bytes()).unwrap()).unwrap(),
        };
        let client = self.gateway.client();
        let stream = tokio::net::TcpStream::connect(client.address()).await?;
        let stream = TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), stream).await?;
        Ok(client.over(stream))
    }

    /// A request on a connection of its own; `None` if the gateway does not talk to such a client.
    async fn ask(&self, identity: Option<&Identity>, key: Option<&str>) -> Option<Response> {
        // In TLS 1.3 a client learns that its certificate is refused when it reads for the first time.
        let mut connection = self.connect(identity).await.ok()?;
        ask_on(&mut connection, key).await
    }

    /// Whom the gateway takes a client for.
    async fn who(&self, identity: Option<&Identity>, key: Option<&str>) -> Value {
        let mut connection = self.connect(identity).await.unwrap();
        connection.write(&request("GET", "/v1/usage", &headers(key), b"")).await;
        connection.response().await.json()["consumer"].clone()
    }

    async fn reload(&self) {
        let reloader = self.gateway.reloader.clone();
        let result = tokio::task::spawn_blocking(move || reloader.reload()).await.unwrap();
        assert!(result.is_ok(), "{result:?}");
    }
}

fn headers(key: Option<&str>) -> Vec<(&str, &str)> {
    key.map(|key| ("x-api-key", key)).into_iter().chain([("content-type", "application/json")]).collect()
}

async fn ask_on(connection: &mut Connection, key: Option<&str>) -> Option<Response> {
    connection.write(&request("POST", CHAT, &headers(key), chat("well").to_string().as_bytes())).await;
    if connection.is_closed().await {
        return None;
    }
    Some(connection.response().await)
}

#[tokio::test]
async fn a_consumer_is_known_by_any_name_of_its_certificate() {
    let authority = Authority::new("clients");
    let hour = now() + 3600;
    let printed = authority.sign((None, "no name that is configured", hour));
    let yaml = format!(
        "consumers:\n  service: {{ certificates: [\"spiffe://example.com/search\"] }}\n  host: {{ certificates: [Search.example.com] }}\n  person: {{ certificates: [ann@example.com] }}\n  common: {{ certificates: [CN=Search Service] }}\n  printed: {{ certificates: [\"sha256:{}\"] }}\n  keyed: {{ keys: [key-of-keyed, {{ key: key-of-old, expires: 2020-01-01 }}] }}\n",
        printed.fingerprint()
    );
    let secured = start("names", &authority, "", &yaml).await;
    let dns = |name: &str| Some(SanType::DnsName(name.try_into().unwrap()));
    for (identity, who) in [
        (authority.uri("spiffe://example.com/search"), "service"),
        (authority.sign((dns("search.example.com"), "x", hour)), "host"),
        (authority.sign((Some(SanType::Rfc822Name("ann@Example.com".try_into().unwrap())), "x", hour)), "person"),
        (authority.sign((None, "Search Service", hour)), "common"),
        (printed, "printed"),
    ] {
        assert_eq!(secured.who(Some(&identity), None).await, json!(who));
        // A key says more than a certificate, and there is no falling back from a bad one.
        assert_eq!(secured.who(Some(&identity), Some("key-of-keyed")).await, json!("keyed"));
        for key in ["key-of-nobody", "key-of-old"] {
            secured.ask(Some(&identity), Some(key)).await.unwrap().fault(401, "invalid_api_key");
        }
    }
    secured.ask(None, Some("key-of-keyed")).await.unwrap().answer();
    let nothing = secured.ask(None, None).await.unwrap();
    assert!(nothing.fault(401, "invalid_api_key").starts_with("a client certificate or an API key is needed: send it"), "{}", nothing.text());
    // Names of one kind are not of another, and of a stranger nothing is known.
    for stranger in [authority.sign((dns("ann.example.com"), "search.example.com", hour)), authority.uri("spiffe://example.com/other")] {
        let refused = secured.ask(Some(&stranger), None).await.unwrap();
        assert!(refused.fault(401, "invalid_api_key").starts_with("the client certificate names no consumer here; an API key is needed"), "{}", refused.text());
        secured.ask(Some(&stranger), Some("key-of-keyed")).await.unwrap().answer();
    }
}

#[tokio::test]
async fn limits_and_models_hold_for_who_has_a_certificate() {
    let authority = Authority::new("clients");
    let secured = start(
        "limits",
        &authority,
        ", client_auth: optional",
        "models: { other: well/other }\nconsumers: { service: { certificates: [\"spiffe://a/b\"], keys: [key-of-service], models: [well], files: true, limits: [{ requests: 3, per: 1h }] } }\ndata: \"{{folder}}\"\n",
    )
    .await;
    let identity = authority.uri("spiffe://a/b");
    let mut connection = secured.connect(Some(&identity)).await.unwrap();
    ask_on(&mut connection, None).await.unwrap().answer();
    ask_on(&mut connection, None).await.unwrap().answer();
    secured.ask(None, Some("key-of-service")).await.unwrap().answer();
    ask_on(&mut connection, None).await.unwrap().fault(429, "rate_limit_exceeded");
    connection.write(&request("POST", CHAT, &headers(None), chat("other").to_string().as_bytes())).await;
    connection.response().await.fault(403, "model_not_allowed");
    connection.write(&request("GET", "/v1/models", &headers(None), b"")).await;
    let models = connection.response().await.json();
    assert_eq!(models["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap()).collect::<Vec<_>>(), ["well"]);
    // Files and forms know who is asking too.
    connection.write(&request("GET", "/v1/files", &headers(None), b"")).await;
    connection.response().await.fault(429, "rate_limit_exceeded");
    connection.write(&request("POST", "/v1/audio/transcriptions", &headers(None), b"x")).await;
    assert_ne!(connection.response().await.status, 401);
}

#[tokio::test]
async fn strangers_do_not_get_as_far_as_a_request() {
    let (authority, other) = (Authority::new("clients"), Authority::new("others"));
    let consumers = "consumers: { service: { certificates: [\"spiffe://a/b\"], keys: [key-of-service] } }\n";
    let good = authority.uri("spiffe://a/b");
    let foreign = other.uri("spiffe://a/b");
    let ended = authority.sign((Some(SanType::URI("spiffe://a/b".try_into().unwrap())), "x", now() - 60));
    let own = Identity { certificate: good.certificate.clone(), key: KeyPair::generate().unwrap().serialize_pem() };
    for (name, auth) in [("optional", ", client_auth: optional"), ("required", ", client_auth: required")] {
        let secured = start(name, &authority, auth, consumers).await;
        secured.ask(Some(&good), None).await.unwrap().answer();
        for stranger in [&foreign, &ended] {
            assert!(secured.ask(Some(stranger), Some("key-of-service")).await.is_none(), "{name}");
        }
        let without = secured.ask(None, Some("key-of-service")).await;
        assert_eq!(without.map(|r| r.status), (name == "optional").then_some(200));
        secured.ask(Some(&good), Some("key-of-service")).await.unwrap().answer();
    }
    // Somebody else's certificate without its key.
    let secured = start("stolen", &authority, "", consumers).await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(secured.root.clone()).unwrap();
    let key = rustls::crypto::ring::sign::any_supported_type(&PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap()).unwrap();
    let stolen = Arc::new(rustls::sign::CertifiedKey::new(vec![own.certificate], key));
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_client_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(stolen)));
    let client = secured.gateway.client();
    let stream = tokio::net::TcpStream::connect(client.address()).await.unwrap();
    if let Ok(stream) = TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), stream).await {
        assert!(ask_on(&mut client.over(stream), None).await.is_none());
    }
}

#[tokio::test]
async fn a_key_that_means_nothing_does_not_bring_an_ended_certificate_back() {
    let authority = Authority::new("clients");
    let secured = start("back", &authority, "", "consumers: { service: { certificates: [\"spiffe://a/b\"] } }\nauth: { anonymous: false }\n").await;
    let short = authority.sign((Some(SanType::URI("spiffe://a/b".try_into().unwrap())), "x", now() + 3));
    let mut connection = secured.connect(Some(&short)).await.unwrap();
    // Nobody has a key here, and SDKs insist on one.
    ask_on(&mut connection, Some("any-key-at-all")).await.unwrap().answer();
    while now() <= short_end(&short) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    ask_on(&mut connection, Some("any-key-at-all")).await.unwrap().fault(401, "invalid_api_key");
}

#[tokio::test]
async fn a_certificate_that_ends_while_its_connection_lives() {
    let authority = Authority::new("clients");
    let secured = start("ends", &authority, "", "consumers: { service: { certificates: [\"spiffe://a/b\"], keys: [key-of-service] } }\nauth: { anonymous: true }\n").await;
    let short = authority.sign((Some(SanType::URI("spiffe://a/b".try_into().unwrap())), "x", now() + 3));
    let mut connection = secured.connect(Some(&short)).await.unwrap();
    ask_on(&mut connection, None).await.unwrap().answer();
    while now() <= short_end(&short) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // A key is as good as before; the certificate is not, and does not make its owner anybody.
    ask_on(&mut connection, Some("key-of-service")).await.unwrap().answer();
    let refused = ask_on(&mut connection, None).await.unwrap();
    assert!(refused.fault(401, "invalid_api_key").starts_with("the client certificate has ended"));
    assert_eq!(refused.header("connection"), Some("close"));
    assert!(connection.is_closed().await);
}

fn short_end(identity: &Identity) -> u64 {
    let (_, parsed) = x509_parser::parse_x509_certificate(&identity.certificate).unwrap();
    parsed.validity().not_after.timestamp() as u64
}

#[tokio::test]
async fn authorities_are_read_again() {
    let (before, after) = (Authority::new("before"), Authority::new("after"));
    let secured = start("again", &before, "", "consumers: { service: { certificates: [\"spiffe://a/b\"] } }\n").await;
    let (old, new) = (before.uri("spiffe://a/b"), after.uri("spiffe://a/b"));
    let mut connection = secured.connect(Some(&old)).await.unwrap();
    ask_on(&mut connection, None).await.unwrap().answer();
    assert!(secured.ask(Some(&new), None).await.is_none());
    // The same authorities: connections live on as they were.
    secured.reload().await;
    ask_on(&mut connection, None).await.unwrap().answer();
    // Both, as in a change without a gap: who was believed by the old list has to show itself to the new one.
    std::fs::write(secured.folder.join("ca.pem"), [before.0.pem(), after.0.pem()].concat()).unwrap();
    secured.reload().await;
    ask_on(&mut connection, None).await.unwrap().fault(401, "invalid_api_key");
    assert!(connection.is_closed().await);
    secured.ask(Some(&old), None).await.unwrap().answer();
    secured.ask(Some(&new), None).await.unwrap().answer();
    std::fs::write(secured.folder.join("ca.pem"), after.0.pem()).unwrap();
    secured.reload().await;
    assert!(secured.ask(Some(&old), None).await.is_none());
    secured.ask(Some(&new), None).await.unwrap().answer();
}

#[tokio::test]
async fn what_is_wrong_is_said() {
    let mock = Mock::start().await;
    let folder = std::env::temp_dir().join(format!("trivium-mtls-wrong-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("tls.crt"), made.cert.pem()).unwrap();
    std::fs::write(folder.join("tls.key"), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(folder.join("empty.pem"), "").unwrap();
    let tls = |more: &str| format!("tls: {{ cert: \"{0}/tls.crt\", key: \"{0}/tls.key\"{more} }}\n", folder.display());
    for (yaml, part) in [
        (tls(", client_auth: required"), "tls.client_auth: needs `client_ca`"),
        (tls(&format!(", client_ca: \"{}/empty.pem\"", folder.display())), "tls.client_ca: "),
        (tls(", client_ca: /nowhere/ca.pem"), "tls.client_ca: cannot read /nowhere/ca.pem"),
        (tls(", client_auth: maybe"), "tls.client_auth: `maybe` is not one of optional, required"),
        ("consumers: { a: { certificates: [CN=a] } }\n".to_owned(), "consumers.a.certificates: needs `tls.client_ca`"),
    ] {
        let Err(problems) = Running::try_start(&yaml, &mock).await else { panic!("accepted: {yaml}") };
        assert!(said(&problems).contains(part), "{part} is missing in\n{}", said(&problems));
    }
    let _ = std::fs::remove_dir_all(folder);
}
