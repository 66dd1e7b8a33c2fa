//! The client behind proxies: tunnels, requests that a proxy passes on, and proxies that do neither.

use std::sync::Mutex as Seen;

use http_body_util::BodyExt;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::*;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Heads of requests, as they were received.
type Heads = Arc<Seen<Vec<String>>>;

/// Reads one request without a body; `None` at the end of the connection.
async fn head(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        seen.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(seen).unwrap().to_lowercase())
}

/// A server behind TLS that answers all requests, and what a client has to trust.
async fn secured(heads: Heads) -> (u16, rustls::RootCertStore) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = CertificateDer::from_pem_slice(made.cert.pem().as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(made.signing_key.serialize_pem().as_bytes()).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider())).with_safe_default_protocol_versions().unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config.with_no_client_auth().with_single_cert(vec![certificate.clone()], key).unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, heads) = (acceptor.clone(), heads.clone());
            tokio::spawn(async move {
                let Ok(mut tls) = acceptor.accept(tcp).await else { return };
                while let Some(head) = head(&mut tls).await {
                    heads.lock().unwrap().push(head);
                    tls.write_all(OK.as_bytes()).await.unwrap();
                }
            });
        }
    });
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    (port, roots)
}

/// A proxy that answers each head with this text, and after a good answer to CONNECT leads on to where it was asked.
async fn proxy(answer: &'static str, heads: Heads) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            let heads = heads.clone();
            tokio::spawn(async move {
                while let Some(head) = head(&mut tcp).await {
                    let place = head.strip_prefix("connect ").and_then(|rest| rest.split(' ').next()).map(str::to_owned);
                    heads.lock().unwrap().push(head);
                    tcp.write_all(answer.as_bytes()).await.unwrap();
                    if let Some(place) = place.filter(|_| answer.starts_with("HTTP/1.1 200")) {
                        let mut on = TcpStream::connect(place.replace("localhost", "127.0.0.1")).await.unwrap();
                        let _ = tokio::io::copy_bidirectional(&mut tcp, &mut on).await;
                        return;
                    }
                    if answer.is_empty() {
                        return;
                    }
                }
            });
        }
    });
    port
}

fn client(roots: rustls::RootCertStore, proxy: &str) -> Client {
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider())).with_safe_default_protocol_versions().unwrap();
    let client = Client::new(Arc::new(tls.with_root_certificates(roots).with_no_client_auth()), Duration::from_millis(1500));
    client.through(Some(Arc::new(Proxy::parse(proxy).unwrap())))
}

async fn ask(client: &Client, url: &str) -> Result<(u16, bytes::Bytes), Error> {
    let call = Call { method: Method::POST, uri: url.parse().unwrap(), headers: HeaderMap::new(), body: Payload::default() };
    let response = client.call(call).await?;
    Ok((response.status().as_u16(), response.into_body().collect().await?.to_bytes()))
}

#[tokio::test]
async fn an_https_provider_is_reached_by_a_tunnel_that_is_used_again() {
    let (asked, told) = (Heads::default(), Heads::default());
    let (server, roots) = secured(told.clone()).await;
    let port = proxy("HTTP/1.1 200 Connection established\r\nProxy-Agent: x\r\n\r\n", asked.clone()).await;
    let client = client(roots, &format!("http://user:secret@127.0.0.1:{port}"));
    for _ in 0..3 {
        assert_eq!(ask(&client, &format!("https://localhost:{server}/v1/x?y=z")).await.unwrap().0, 200);
    }
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 1, "one tunnel: {asked:?}");
    assert!(asked[0].starts_with(&format!("connect localhost:{server} http/1.1\r\nhost: localhost:{server}\r\n")), "{asked:?}");
    assert!(asked[0].contains("proxy-authorization: basic dxnlcjpzzwnyzxq="), "{asked:?}");
    let told = told.lock().unwrap();
    assert_eq!(told.len(), 3);
    assert!(told.iter().all(|head| head.starts_with("post /v1/x?y=z http/1.1\r\n") && !head.contains("proxy")), "what is for the proxy is not for the provider: {told:?}");
}

#[tokio::test]
async fn an_http_provider_is_asked_by_the_proxy() {
    let asked = Heads::default();
    let port = proxy(OK, asked.clone()).await;
    let client = client(rustls::RootCertStore::empty(), &format!("user:secret@127.0.0.1:{port}"));
    for _ in 0..2 {
        assert_eq!(ask(&client, "http://me:and@provider.example:8000/v1/x?y=z").await.unwrap(), (200, "ok".into()));
    }
    let asked = asked.lock().unwrap();
    assert!(asked.iter().all(|head| head.starts_with("post http://provider.example:8000/v1/x?y=z http/1.1\r\nhost: provider.example:8000\r\nproxy-authorization: basic ")), "{asked:?}");
    assert_eq!(asked.len(), 2);
}

#[tokio::test]
async fn a_proxy_that_does_not_let_through_is_a_failed_connection() {
    let cases = [
        ("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", "user and the password"),
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nnope", "answered 403"),
        ("", "closed the connection"),
        ("nonsense\r\n\r\n", "head cannot be read"),
        ("HTTP/1.1 201 Fine\r\n\r\nhello", "before it was asked"),
    ];
    for (answer, part) in cases {
        let port = proxy(answer, Heads::default()).await;
        let client = client(rustls::RootCertStore::empty(), &format!("127.0.0.1:{port}"));
        let error = ask(&client, "https://provider.example/").await.unwrap_err();
        assert!(error.is_connect() && error.to_string().starts_with(&format!("the proxy 127.0.0.1:{port} ")) && error.to_string().contains(part), "{answer:?}: {error}");
    }
    // Where the proxy passes requests on, its own wish to know who asks is not the provider's.
    let port = proxy(cases[0].0, Heads::default()).await;
    let error = ask(&client(rustls::RootCertStore::empty(), &format!("127.0.0.1:{port}")), "http://provider.example/").await.unwrap_err();
    assert!(matches!(error, Error::Proxy { .. }), "{error}");
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = ask(&client(rustls::RootCertStore::empty(), &nobody.to_string()), "https://provider.example/").await.unwrap_err();
    assert!(error.is_connect() && error.to_string().contains("cannot be reached"), "{error}");
    // One that says nothing is waited for no longer than any connection.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let error = ask(&client(rustls::RootCertStore::empty(), &silent.local_addr().unwrap().to_string()), "https://provider.example/").await.unwrap_err();
    assert!(matches!(error, Error::ConnectTimeout(_)), "{error}");
}
