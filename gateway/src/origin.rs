//! Whether a request may come from a web page of somebody else. That is asked where nobody shows a key: a browser sends what any
//! page bids it, and whoever owns a name can bend it to this machine, so that the page behind it is at home there.

use std::net::IpAddr;

use http::uri::Authority;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use providers::ErrorKind;

use crate::fault::Fault;

/// Refuses what a page of somebody else's can send. `loopback` says whether only this machine is listened to: then it is asked
/// for by a name that is nobody's, while elsewhere nobody here knows by which.
///
/// # Errors
/// 403, saying why and what to do.
pub fn hold(headers: &HeaderMap, loopback: bool) -> Result<(), Fault> {
    let way_out = "whoever shows a key is not asked: the operator can give out keys, under `consumers`";
    if headers.get(header::ORIGIN).is_some_and(|origin| !is_ours(origin, headers)) {
        return Err(refused(format!("requests without a key are not taken from web pages of another origin; {way_out}"), "origin_not_allowed"));
    }
    if loopback && !is_for_here(headers) {
        return Err(refused(format!("this gateway listens on loopback, and requests without a key are taken there by its own names only (localhost, 127.0.0.1); {way_out}"), "host_not_allowed"));
    }
    Ok(())
}

/// Whether a page is of this machine, or of the place that it asks. A page without a place of its own (`null`) may be anybody's.
/// And a name without TLS says nothing: whoever owns it says where it leads.
fn is_ours(origin: &HeaderValue, headers: &HeaderMap) -> bool {
    let Some((scheme, place)) = origin.to_str().ok().and_then(|origin| origin.split_once("://")) else { return false };
    let Some(from) = authority(place.as_bytes()) else { return false };
    let same = || headers.get(header::HOST).and_then(|host| authority(host.as_bytes())).is_some_and(|host| host == from);
    is_here(from.host()) || (scheme == "https" || address(from.host()).is_some()) && same()
}

/// Whether the name by which something is asked for, if there is one, is nobody's: who owns a name can bend it to this machine.
#[must_use]
pub fn is_for_here(headers: &HeaderMap) -> bool {
    // Containers know the machine that they are on by a name in `.internal`, which is nobody's.
    let nobodys = |host: &str| is_here(host) || address(host).is_some() || is_below(host, "internal");
    headers.get(header::HOST).is_none_or(|host| authority(host.as_bytes()).is_some_and(|host| nobodys(host.host())))
}

fn refused(message: String, code: &str) -> Fault {
    Fault::client(StatusCode::FORBIDDEN, ErrorKind::Permission, message).code(code)
}

fn authority(text: &[u8]) -> Option<Authority> {
    Authority::try_from(text).ok()
}

/// Whether a host is this machine, as no name that somebody owns can be.
fn is_here(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || is_below(host, "localhost") || address(host).is_some_and(|address| address.to_canonical().is_loopback())
}

fn is_below(host: &str, top: &str) -> bool {
    host.rsplit_once('.').is_some_and(|(_, last)| last.eq_ignore_ascii_case(top))
}

fn address(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(host: &str, origin: Option<&str>, loopback: bool) -> Option<String> {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        hold(&headers, loopback).err().and_then(|fault| fault.told.code)
    }

    #[test]
    fn this_machine_is_asked_for_by_a_name_that_is_nobodys() {
        for host in ["localhost", "Localhost:1", "app.localhost", "127.0.0.1", "[::1]:80", "[::ffff:127.0.0.1]:80", "10.0.0.1", "[fe80::1]:80", "0.0.0.0:80", "host.docker.internal:8080"] {
            assert_eq!(look(host, None, true), None, "{host}");
        }
        for host in ["example.com", "localhost.example.com", "127.0.0.1.example.com", "localhost@example.com", "internal", "internal.example.com", "printer.local", "127.0.0.1/x", ""] {
            assert_eq!(look(host, None, true).as_deref(), Some("host_not_allowed"), "{host}");
            assert_eq!(look(host, None, false), None, "{host}");
        }
        // Who sends none is no browser.
        assert!(hold(&HeaderMap::new(), true).is_ok());
    }

    #[test]
    fn a_page_is_of_this_machine_or_of_the_same_place() {
        for origin in ["http://localhost", "https://localhost:3000", "http://app.localhost:5173", "http://[::1]:5173", "http://127.0.0.1"] {
            assert_eq!(look("localhost:8080", Some(origin), true), None, "{origin}");
        }
        for origin in ["null", "", "localhost", "file://", "http://example.com", "http://10.0.0.1", "http://host.docker.internal:8080", "https://user@example.com", "http://localhost.example.com:8080"]
        {
            assert_eq!(look("localhost:8080", Some(origin), true).as_deref(), Some("origin_not_allowed"), "{origin}");
        }
        assert_eq!(look("llm.example.com", Some("https://LLM.example.com"), false), None);
        assert_eq!(look("10.0.0.1:8080", Some("http://10.0.0.1:8080"), true), None);
        assert_eq!(look("llm.example.com", Some("http://llm.example.com"), false).as_deref(), Some("origin_not_allowed"));
        assert_eq!(look("llm.example.com", Some("https://llm.example.com:81"), false).as_deref(), Some("origin_not_allowed"));
        assert_eq!(look("evil.example", Some("https://evil.example"), true).as_deref(), Some("host_not_allowed"));
    }
}
