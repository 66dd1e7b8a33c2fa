//! Proxies between us and providers: which one, if any, by the configuration or by the environment as curl reads it, and the
//! tunnel through it. Which one it is is decided when rules are built: a call to a provider without one pays nothing.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use http::{HeaderValue, Uri};
use hyper_util::client::proxy::matcher::Matcher;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::head;

/// An HTTP proxy.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Proxy {
    pub(super) host: String,
    pub(super) port: u16,
    /// Name and password.
    user: Option<(String, String)>,
    /// What it is shown of these.
    pub(super) authorization: Option<HeaderValue>,
}

/// The port that curl asks where none is named.
const PORT: u16 = 1080;

impl Proxy {
    /// Reads `http://user:password@host:port`, or less of it.
    ///
    /// # Errors
    /// When it is something else.
    pub fn parse(text: &str) -> Result<Self, String> {
        let plain = match text.split_once("://") {
            None => text,
            Some(("http", rest)) => rest,
            Some((scheme, _)) => return Err(format!("a proxy reached by `{scheme}://` is not supported; one reached by `http://` serves https:// providers too")),
        };
        let wrong = || "must be a proxy's URL, such as http://proxy.example.com:3128".to_owned();
        let (user, place) = plain.trim_end_matches('/').rsplit_once('@').map_or((None, plain), |(user, place)| (Some(user), place));
        let uri: Uri = format!("http://{}", place.trim_end_matches('/')).parse().map_err(|_| wrong())?;
        let host = uri.host().filter(|h| !h.is_empty() && uri.path() == "/").ok_or_else(wrong)?;
        if uri.port_u16().is_none() && uri.authority().is_some_and(|a| a.as_str() != host) {
            return Err(wrong());
        }
        let decoded = |part: &str| urlencoding::decode(part).map_or_else(|_| part.to_owned(), std::borrow::Cow::into_owned);
        let user = user.map(|user| user.split_once(':').unwrap_or((user, ""))).map(|(name, password)| (decoded(name), decoded(password)));
        let authorization = user.as_ref().map(|(name, password)| HeaderValue::try_from(format!("Basic {}", STANDARD.encode(format!("{name}:{password}")))));
        let mut authorization = authorization.transpose().map_err(|_| wrong())?;
        authorization.iter_mut().for_each(|value| value.set_sensitive(true));
        Ok(Proxy { host: host.to_owned(), port: uri.port_u16().unwrap_or(PORT), user, authorization })
    }

    /// The same as a URL, credential and all, for another client.
    fn url(&self) -> String {
        let user = self.user.as_ref().map_or(String::new(), |(name, password)| format!("{}:{}@", urlencoding::encode(name), urlencoding::encode(password)));
        format!("http://{user}{self}")
    }
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({self})")
    }
}

/// The proxies that an environment names.
pub struct Proxies {
    http: Option<Arc<Proxy>>,
    https: Option<Arc<Proxy>>,
    /// Says which hosts are excepted.
    except: Matcher,
}

impl Proxies {
    /// `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy`, in small letters or else in capitals.
    ///
    /// # Errors
    /// When one of them names a proxy that cannot be used: going around it would be wrong.
    pub fn read(env: &dyn Fn(&str) -> Option<String>) -> Result<Self, String> {
        let get = |name: &str| [name.to_owned(), name.to_ascii_uppercase()].into_iter().find_map(|n| env(&n).filter(|v| !v.trim().is_empty()).map(|v| (n, v)));
        let proxy = |name: &str| {
            let found = get(name).or_else(|| get("all_proxy"));
            found.map(|(name, value)| Proxy::parse(value.trim()).map(Arc::new).map_err(|e| format!("the environment variable {name}: {e}"))).transpose()
        };
        // curl takes spaces between hosts too.
        let except = get("no_proxy").map_or(String::new(), |(_, list)| list.split_whitespace().collect::<Vec<_>>().join(","));
        Ok(Proxies { http: proxy("http_proxy")?, https: proxy("https_proxy")?, except: Matcher::builder().all("http://any").no(except).build() })
    }

    /// Those of this process.
    ///
    /// # Errors
    /// As [`Proxies::read`].
    pub fn of_process() -> Result<&'static Self, String> {
        static PROXIES: LazyLock<Result<Proxies, String>> = LazyLock::new(|| Proxies::read(&|name| std::env::var(name).ok()));
        PROXIES.as_ref().map_err(Clone::clone)
    }

    /// The proxy on the way to a URL. Never one to what is this machine's own: loopback, and where clouds tell a machine who it is.
    #[must_use]
    pub fn on_the_way_to(&self, uri: &Uri) -> Option<&Arc<Proxy>> {
        let proxy = if uri.scheme_str() == Some("https") { self.https.as_ref() } else { self.http.as_ref() }?;
        (!is_own(uri.host()?) && self.except.intercept(uri).is_some()).then_some(proxy)
    }

    /// The same for reqwest.
    #[must_use]
    pub fn for_reqwest(&'static self) -> reqwest::Proxy {
        reqwest::Proxy::custom(move |url| self.on_the_way_to(&url.as_str().parse().ok()?).map(|p| p.url()))
    }
}

fn is_own(host: &str) -> bool {
    let name = host.trim_matches(['[', ']']);
    match name.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => ip.is_loopback() || ip.is_link_local(),
        Ok(IpAddr::V6(ip)) => ip.is_loopback() || ip.is_unicast_link_local(),
        Err(_) => ["localhost", "metadata.google.internal"].iter().any(|own| name.eq_ignore_ascii_case(own)) || name.to_ascii_lowercase().ends_with(".localhost"),
    }
}

/// Asks a proxy for a tunnel to `place` (host and port). What comes and goes afterwards is for whoever is at its other end.
///
/// # Errors
/// What went wrong, in words that go on after the proxy's name.
pub(super) async fn tunnel(tcp: &mut TcpStream, proxy: &Proxy, place: &str) -> Result<(), String> {
    let mut request = format!("CONNECT {place} HTTP/1.1\r\nhost: {place}\r\nuser-agent: {}\r\n", crate::state::USER_AGENT).into_bytes();
    if let Some(value) = &proxy.authorization {
        request.extend_from_slice(b"proxy-authorization: ");
        request.extend_from_slice(value.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    tcp.write_all(&request).await.map_err(|e| e.to_string())?;
    let mut buffer = BytesMut::with_capacity(1024);
    loop {
        match head::read(&mut buffer).map_err(|e| e.to_string())? {
            Some(answer) if answer.status.is_informational() => {}
            Some(answer) if !answer.status.is_success() => return Err(refused(answer.status.as_u16())),
            // Whoever is behind it speaks only when spoken to.
            Some(_) if !buffer.is_empty() => return Err("said something before it was asked".to_owned()),
            Some(_) => return Ok(()),
            None => {
                if tcp.read_buf(&mut buffer).await.map_err(|e| e.to_string())? == 0 {
                    return Err("closed the connection".to_owned());
                }
            }
        }
    }
}

/// What a proxy's refusal means.
pub(super) fn refused(status: u16) -> String {
    match status {
        407 => "wants to know who asks, or does not believe it (407): write the user and the password into its URL".to_owned(),
        status => format!("answered {status} when it was asked for the way"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(pairs: &[(&str, &str)]) -> Result<Proxies, String> {
        Proxies::read(&|name| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
    }

    fn way(proxies: &Proxies, url: &str) -> Option<String> {
        proxies.on_the_way_to(&url.parse().unwrap()).map(ToString::to_string)
    }

    #[test]
    fn a_proxy_s_url_is_read() {
        let read = |text: &str| Proxy::parse(text).map(|p| (p.to_string(), p.authorization.map(|a| a.to_str().unwrap().to_owned())));
        assert_eq!(read("http://proxy.example.com:3128"), Ok(("proxy.example.com:3128".into(), None)));
        assert_eq!(read("proxy.example.com:3128/"), Ok(("proxy.example.com:3128".into(), None)));
        assert_eq!(read("http://proxy.example.com"), Ok(("proxy.example.com:1080".into(), None)));
        assert_eq!(read("http://[::1]:8080"), Ok(("[::1]:8080".into(), None)));
        // base64 of `Aladdin:open sesame@home`
        assert_eq!(read("http://Aladdin:open%20sesame@home@proxy:80"), Ok(("proxy:80".into(), Some("Basic QWxhZGRpbjpvcGVuIHNlc2FtZUBob21l".into()))));
        for wrong in ["socks5://proxy:1080", "https://proxy:443", "http://", "http://proxy:x", "http://proxy:1/path", "a b"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Proxy::parse("Aladdin:open%20sesame@home@proxy:80").unwrap().url(), "http://Aladdin:open%20sesame%40home@proxy:80");
        assert_eq!(format!("{:?}", Proxy::parse("http://user:secret@proxy:80").unwrap()), "Proxy(proxy:80)");
    }

    #[test]
    fn the_environment_is_read_as_curl_reads_it() {
        let all =
            proxies(&[("https_proxy", "http://small:1"), ("HTTPS_PROXY", "http://large:1"), ("HTTP_PROXY", "plain:2"), ("NO_PROXY", "internal.example.com, .corp 10.0.0.0/8,192.168.1.7")]).unwrap();
        for (url, expected) in [
            ("https://api.openai.com/v1", Some("small:1")),
            ("http://models.example.com/v1", Some("plain:2")),
            ("https://internal.example.com/v1", None),
            ("https://a.internal.example.com/v1", None),
            ("https://notinternal.example.com/v1", Some("small:1")),
            ("https://gpu.corp/v1", None),
            ("http://10.1.2.3:8000/v1", None),
            ("http://192.168.1.7/v1", None),
            ("http://192.168.1.8/v1", Some("plain:2")),
            // What is this machine's own is never asked through a proxy.
            ("http://127.0.0.1:11434", None),
            ("http://localhost:8000/v1", None),
            ("https://gpu.localhost/v1", None),
            ("http://[::1]:8000/v1", None),
            ("http://169.254.169.254/latest/meta-data", None),
            ("http://metadata.google.internal/computeMetadata", None),
        ] {
            assert_eq!(way(&all, url).as_deref(), expected, "{url}");
        }
        let one = proxies(&[("ALL_PROXY", "http://all:3"), ("http_proxy", "http://plain:2"), ("no_proxy", "")]).unwrap();
        assert_eq!((way(&one, "https://a.example.com").as_deref(), way(&one, "http://a.example.com").as_deref()), (Some("all:3"), Some("plain:2")));
        let none = proxies(&[("ALL_PROXY", "http://all:3"), ("NO_PROXY", "*")]).unwrap();
        assert_eq!(way(&none, "https://a.example.com"), None);
        assert_eq!(way(&proxies(&[]).unwrap(), "https://a.example.com"), None);
        let error = proxies(&[("ALL_PROXY", "socks5://all:3")]).err().unwrap();
        assert!(error.contains("ALL_PROXY") && error.contains("socks5"), "{error}");
    }
}
