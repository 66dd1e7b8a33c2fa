//! Calls providers over HTTP/1.1: a pool of connections, a request written in one vectored write, an answer that is read by
//! the task that wants it. No task and no channel stands between a socket and the client it is relayed to, and whatever
//! has arrived by the time it is asked for is handed on in one piece. Why it is ours: `docs/decisions`.

mod body;
mod connection;
mod head;
mod proxy;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::uri::Authority;
use http::{HeaderMap, Method, Response, StatusCode, Uri};
use providers::envelope::Payload;
use rustls_pki_types::ServerName;

pub use body::Answer;
use connection::Connection;
pub use proxy::{Proxies, Proxy};

/// What can go wrong on the way to an upstream.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL has no host, or a scheme other than http and https.
    #[error("{0} is not an http(s) URL")]
    Url(String),
    /// The connection could not be made.
    #[error("cannot connect to {host}: {source}")]
    Connect {
        /// Host and port.
        host: String,
        /// Why.
        source: std::io::Error,
    },
    /// The proxy on the way does not let us through.
    #[error("the proxy {proxy} {what}")]
    Proxy {
        /// Host and port.
        proxy: String,
        /// What it did.
        what: String,
    },
    /// The connection was not made in time.
    #[error("cannot connect to {0}: no answer in time")]
    ConnectTimeout(String),
    /// The connection failed while in use.
    #[error("the connection failed: {0}")]
    Io(#[from] std::io::Error),
    /// The upstream closed the connection before its answer was complete.
    #[error("the upstream closed the connection before its answer was complete")]
    Closed,
    /// What came is not an HTTP/1.1 answer.
    #[error("the upstream's answer is not HTTP/1.1: {0}")]
    Malformed(&'static str),
}

impl Error {
    /// Whether there never was a connection: nothing can have been received on the other side.
    #[must_use]
    pub fn is_connect(&self) -> bool {
        matches!(self, Error::Url(_) | Error::Connect { .. } | Error::Proxy { .. } | Error::ConnectTimeout(_))
    }
}

/// A request to an upstream.
#[derive(Debug)]
pub struct Call {
    /// Method.
    pub method: Method,
    /// Absolute URL.
    pub uri: Uri,
    /// Headers, without `Host` and `Content-Length`.
    pub headers: HeaderMap,
    /// Body.
    pub body: Payload,
}

/// A place that connections lead to. Made for every call, so it shares the URL's memory.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place {
    tls: bool,
    authority: Authority,
    via: Option<Arc<Proxy>>,
}

/// Connections that wait to be used again.
struct Idle {
    connection: Connection,
    since: Instant,
}

/// Calls upstreams. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    connect: Duration,
    proxy: Option<Arc<Proxy>>,
}

struct Shared {
    tls: tokio_rustls::TlsConnector,
    idle: Mutex<HashMap<Place, Vec<Idle>, foldhash::fast::RandomState>>,
}

/// How long a connection may wait to be used again. Shorter than what servers commonly allow, so that we close first.
const IDLE: Duration = Duration::from_secs(55);
/// Most connections that wait for one place.
const MOST_IDLE: usize = 1024;

impl Client {
    /// A client that connects within `connect`.
    #[must_use]
    pub fn new(tls: Arc<rustls::ClientConfig>, connect: Duration) -> Self {
        Client { shared: Arc::new(Shared { tls: tls.into(), idle: Mutex::default() }), connect, proxy: None }
    }

    /// The same connections, with another patience for new ones.
    #[must_use]
    pub fn with_connect(&self, connect: Duration) -> Self {
        Client { shared: self.shared.clone(), connect, proxy: self.proxy.clone() }
    }

    /// The same connections, and others through this proxy.
    #[must_use]
    pub fn through(&self, proxy: Option<Arc<Proxy>>) -> Self {
        Client { shared: self.shared.clone(), connect: self.connect, proxy }
    }

    /// Sends a request and waits for the head of its answer. The body is read by whoever has the answer; dropping it before
    /// its end closes the connection, which is how an upstream learns that nobody is listening any more.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn call(&self, call: Call) -> Result<Response<Answer>, Error> {
        let place = Place::of(&call.uri, &self.proxy)?;
        let head = head::write(&call, place.relay());
        // A connection that waited may have been closed meanwhile, which may show only when it is used. What can be asked
        // twice is asked again over a new one; a question that costs money is not, unless the routing's own rules say so.
        if let Some(mut connection) = self.take(&place) {
            match connection.exchange(&head, call.body.pieces()).await {
                Ok(answer) => return self.answer(place, connection, answer, &call.method),
                Err(Error::Io(_) | Error::Closed) if !connection.has_received() && call.method.is_idempotent() => {}
                Err(e) => return Err(e),
            }
        }
        let mut connection = self.open(&place).await?;
        let answer = connection.exchange(&head, call.body.pieces()).await?;
        self.answer(place, connection, answer, &call.method)
    }

    fn answer(&self, place: Place, connection: Connection, head: head::Head, method: &Method) -> Result<Response<Answer>, Error> {
        if let Some(proxy) = place.relay().filter(|_| head.status == StatusCode::PROXY_AUTHENTICATION_REQUIRED) {
            return Err(Error::Proxy { proxy: proxy.to_string(), what: proxy::refused(head.status.as_u16()) });
        }
        let mut response = Response::new(());
        *response.status_mut() = head.status;
        *response.headers_mut() = head.headers;
        let back = Back { shared: Arc::downgrade(&self.shared), place };
        let (parts, ()) = response.into_parts();
        let body = Answer::new(connection, &parts, method, head.keep_alive, back);
        Ok(Response::from_parts(parts, body))
    }

    /// The connection that was used last and still seems to be open.
    fn take(&self, place: &Place) -> Option<Connection> {
        let mut idle = self.shared.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = idle.get_mut(place)?;
        while let Some(Idle { mut connection, since }) = waiting.pop() {
            if since.elapsed() > IDLE {
                // Those below it have waited longer still.
                waiting.clear();
                return None;
            }
            if connection.is_quiet() {
                return Some(connection);
            }
        }
        None
    }

    async fn open(&self, place: &Place) -> Result<Connection, Error> {
        let host = || format!("{}:{}", place.host(), place.port());
        let opening = async {
            let tcp = match &place.via {
                None => connect(place.name(), place.port()).await.map_err(|source| Error::Connect { host: host(), source })?,
                Some(proxy) => self.open_through(proxy, place, &host()).await?,
            };
            if !place.tls {
                return Ok(Connection::plain(tcp));
            }
            let name = ServerName::try_from(place.name().to_owned()).map_err(|_| Error::Url(host()))?;
            let tls = self.shared.tls.connect(name, tcp).await.map_err(|source| Error::Connect { host: host(), source })?;
            Ok(Connection::tls(tls))
        };
        tokio::time::timeout(self.connect, opening).await.map_err(|_| Error::ConnectTimeout(host()))?
    }

    /// A connection to a proxy; for an encrypted one to what lies behind it, with a tunnel to there.
    async fn open_through(&self, proxy: &Proxy, place: &Place, host: &str) -> Result<tokio::net::TcpStream, Error> {
        let wrong = |what: String| Error::Proxy { proxy: proxy.to_string(), what };
        let mut tcp = connect(proxy.host.trim_matches(['[', ']']), proxy.port).await.map_err(|e| wrong(format!("cannot be reached: {e}")))?;
        if place.tls {
            proxy::tunnel(&mut tcp, proxy, host).await.map_err(wrong)?;
        }
        Ok(tcp)
    }
}

/// Tries every address that the name has, in the resolver's order.
async fn connect(name: &str, port: u16) -> std::io::Result<tokio::net::TcpStream> {
    let mut last = None;
    for address in tokio::net::lookup_host((name, port)).await? {
        match tokio::net::TcpStream::connect(address).await {
            Ok(tcp) => {
                // Without it, the end of a request waits for the upstream's delayed acknowledgement.
                tcp.set_nodelay(true)?;
                return Ok(tcp);
            }
            Err(e) => last = Some(e),
        }
    }
    Err(last.unwrap_or_else(|| std::io::Error::new(std::io::ErrorKind::NotFound, "the name has no address")))
}

impl Place {
    fn of(uri: &Uri, via: &Option<Arc<Proxy>>) -> Result<Self, Error> {
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(Error::Url(uri.to_string())),
        };
        let authority = uri.authority().filter(|a| !a.host().is_empty()).ok_or_else(|| Error::Url(uri.to_string()))?;
        Ok(Place { tls, authority: authority.clone(), via: via.clone() })
    }

    /// The proxy that is asked itself, because nothing is encrypted. It is told the whole URL.
    fn relay(&self) -> Option<&Proxy> {
        self.via.as_deref().filter(|_| !self.tls)
    }

    fn host(&self) -> &str {
        self.authority.host()
    }

    /// The host without the brackets of an IPv6 address: what a resolver and a certificate know.
    fn name(&self) -> &str {
        self.host().trim_matches(['[', ']'])
    }

    fn port(&self) -> u16 {
        self.authority.port_u16().unwrap_or(if self.tls { 443 } else { 80 })
    }
}

/// The way back into the pool.
struct Back {
    shared: std::sync::Weak<Shared>,
    place: Place,
}

impl Back {
    /// Lets a connection wait for its next use.
    fn give(self, connection: Connection) {
        let Some(shared) = self.shared.upgrade() else { return };
        let mut idle = shared.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = idle.entry(self.place).or_default();
        if waiting.len() < MOST_IDLE {
            waiting.push(Idle { connection, since: Instant::now() });
        }
    }
}

#[cfg(test)]
mod proxied;
#[cfg(test)]
mod tests;
