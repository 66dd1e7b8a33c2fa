//! TLS of the listener: its certificate, and the authorities whose client certificates are believed.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::certificate::Peer;
use crate::config::{ClientAuth, Problem, Tls};

/// What connections are accepted with.
pub struct Listener {
    config: Arc<rustls::ServerConfig>,
    /// The authorities of client certificates, as they were read.
    authorities: Vec<CertificateDer<'static>>,
    trust: Arc<Trust>,
}

/// Whether the authorities that a connection's certificate was verified by are still those that are believed.
#[derive(Debug, Default)]
pub struct Trust {
    ended: AtomicBool,
}

impl Trust {
    /// Whether they are.
    #[must_use]
    pub fn holds(&self) -> bool {
        !self.ended.load(Relaxed)
    }

    /// They are not any more.
    pub fn end(&self) {
        self.ended.store(true, Relaxed);
    }
}

impl Listener {
    /// Reads certificate, key and authorities.
    ///
    /// # Errors
    /// All that is wrong with them.
    pub fn read(tls: &Tls) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let cannot = |what: &str, path: &Path, e: &dyn std::fmt::Display| Problem::new(format!("tls.{what}"), format!("cannot read {}: {e}", path.display()));
        let chain = certificates(&tls.cert).map_err(|e| problems.push(cannot("cert", &tls.cert, &e))).ok();
        let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|e| problems.push(cannot("key", &tls.key, &e))).ok();
        let authorities = match &tls.client_ca {
            None => Some(Vec::new()),
            Some(path) => certificates(path).map_err(|e| problems.push(cannot("client_ca", path, &e))).ok(),
        };
        let verifier = match (&tls.client_ca, tls.client_auth) {
            (None, Some(_)) => {
                problems.push(Problem::new("tls.client_auth", "needs `client_ca`: the authorities whose client certificates are believed"));
                None
            }
            (None, None) => Some(WebPkiClientVerifier::no_client_auth()),
            (Some(path), auth) => authorities.as_ref().and_then(|list| verifier(list, auth).map_err(|e| problems.push(Problem::new("tls.client_ca", format!("{}: {e}", path.display())))).ok()),
        };
        let (Some(chain), Some(key), Some(authorities), Some(verifier)) = (chain, key, authorities, verifier) else { return Err(problems) };
        let built = rustls::ServerConfig::builder().with_client_cert_verifier(verifier).with_single_cert(chain, key);
        let mut config = built.map_err(|e| vec![Problem::new("tls", format!("certificate and key do not fit: {e}"))])?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Listener { config: Arc::new(config), authorities, trust: Arc::default() })
    }

    /// Takes the place of another. Where the authorities are the same, what they said of open connections still holds; else
    /// it does not, and clients have to connect anew.
    #[must_use]
    pub fn after(mut self, before: &Listener) -> Self {
        if self.authorities == before.authorities {
            self.trust = before.trust.clone();
        } else {
            before.trust.end();
        }
        self
    }

    /// Shakes hands. Who the client is by its certificate is found out here, once for all that it asks on the connection.
    ///
    /// # Errors
    /// When the handshake fails.
    pub async fn accept(&self, stream: TcpStream) -> std::io::Result<(TlsStream<TcpStream>, Option<Arc<Peer>>)> {
        let stream = TlsAcceptor::from(self.config.clone()).accept(stream).await?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let peer = certificate.and_then(|c| Peer::read(c, self.trust.clone())).map(Arc::new);
        Ok((stream, peer))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, rustls_pki_types::pem::Error> {
    CertificateDer::pem_file_iter(path).and_then(Iterator::collect)
}

/// What believes these authorities.
fn verifier(authorities: &[CertificateDer<'static>], auth: Option<ClientAuth>) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority.clone()).map_err(|e| e.to_string())?;
    }
    if roots.is_empty() {
        return Err("there is no certificate in it".to_owned());
    }
    let builder = WebPkiClientVerifier::builder(Arc::new(roots));
    let builder = if auth == Some(ClientAuth::Required) { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|e| e.to_string())
}
