//! Client certificates: the names in one, as they are written in a configuration and as they are found on a connection.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::principal::{Hash, unhex};
use crate::tls::Trust;

/// A name by which a certificate is known. Names of different kinds are never the same, so that who may have a certificate
/// for a host name does not get one for a person with it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Name {
    /// SHA-256 of the certificate.
    Fingerprint(Hash),
    /// A subject alternative name that is a URI, such as a SPIFFE id.
    Uri(String),
    /// A subject alternative name that is a DNS name, in lower case.
    Dns(String),
    /// A subject alternative name that is an e-mail address, its host in lower case.
    Email(String),
    /// The subject's common name.
    Common(String),
}

impl Name {
    /// Reads a name as it is configured: its form says of which kind it is.
    ///
    /// # Errors
    /// When it is no name that a certificate could be known by.
    pub fn read(text: &str) -> Result<Self, String> {
        if let Some(hex) = text.strip_prefix("sha256:") {
            let digits: String = hex.chars().filter(|c| *c != ':').collect();
            return unhex(&digits).map(Name::Fingerprint).ok_or_else(|| "`sha256:` must be followed by 64 hex digits: openssl x509 -in cert.pem -noout -fingerprint -sha256".to_owned());
        }
        if let Some(name) = text.strip_prefix("CN=") {
            return if name.is_empty() { Err("`CN=` must be followed by the common name".to_owned()) } else { Ok(Name::Common(name.to_owned())) };
        }
        if text.parse::<IpAddr>().is_ok() {
            return Err("is an IP address, and certificates are known by a DNS name, a URI, an e-mail address, CN=name or sha256:fingerprint".to_owned());
        }
        if text.is_empty() || text.contains(char::is_whitespace) || text.contains('*') {
            return Err("must be a DNS name, a URI, an e-mail address, CN=name or sha256:fingerprint, without spaces and wildcards".to_owned());
        }
        Ok(match text {
            uri if uri.contains(':') => Name::Uri(uri.to_owned()),
            email if email.contains('@') => Name::email(email),
            dns => Name::dns(dns),
        })
    }

    fn dns(name: &str) -> Self {
        Name::Dns(name.trim_end_matches('.').to_ascii_lowercase())
    }

    /// What stands before the `@` belongs to the host, which may tell cases apart.
    fn email(address: &str) -> Self {
        Name::Email(match address.rsplit_once('@') {
            Some((user, host)) => format!("{user}@{}", host.to_ascii_lowercase()),
            None => address.to_owned(),
        })
    }
}

/// The client at the other end of a connection, by the certificate that it has proved to own.
#[derive(Debug)]
pub struct Peer {
    names: Vec<Name>,
    /// When the certificate ends, in seconds since 1970.
    ends: u64,
    trust: Arc<Trust>,
}

impl Peer {
    /// Reads a certificate that has been verified. `None` if its names cannot be read.
    #[must_use]
    pub fn read(certificate: &CertificateDer<'_>, trust: Arc<Trust>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| tracing::debug!(%error, "a client certificate cannot be read")).ok()?;
        let mut names = vec![Name::Fingerprint(Sha256::digest(certificate).into())];
        if let Ok(Some(alternative)) = parsed.subject_alternative_name() {
            names.extend(alternative.value.general_names.iter().filter_map(|name| match name {
                GeneralName::URI(uri) => Some(Name::Uri((*uri).to_owned())),
                GeneralName::DNSName(name) => Some(Name::dns(name)),
                GeneralName::RFC822Name(address) => Some(Name::email(address)),
                _ => None,
            }));
        }
        // Of several common names none is the one.
        let mut common = parsed.subject().iter_common_name();
        if let (Some(name), None) = (common.next(), common.next())
            && let Ok(name) = name.as_str()
        {
            names.push(Name::Common(name.to_owned()));
        }
        let ends = u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0);
        Some(Peer { names, ends, trust })
    }

    /// Its names: the fingerprint first, then the subject alternative names in their order, then the common name.
    #[must_use]
    pub fn names(&self) -> &[Name] {
        &self.names
    }

    /// Whether the certificate is still good: it was when the connection began, but connections live long.
    #[must_use]
    pub fn holds(&self, now: Duration) -> bool {
        now.as_secs() <= self.ends && self.trust.holds()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_a_name_says_its_kind() {
        assert_eq!(Name::read("spiffe://example.com/search"), Ok(Name::Uri("spiffe://example.com/search".into())));
        assert_eq!(Name::read("Search.Example.com."), Ok(Name::Dns("search.example.com".into())));
        assert_eq!(Name::read("Ann@Example.COM"), Ok(Name::Email("Ann@example.com".into())));
        assert_eq!(Name::read("CN=Search Service"), Ok(Name::Common("Search Service".into())));
        assert_eq!(Name::read(&format!("sha256:{}", "AB:".repeat(32).trim_end_matches(':'))), Ok(Name::Fingerprint([0xab; 32])));
        for bad in ["", "10.0.0.1", "::1", "CN=", "sha256:ab", "two words", "*.example.com"] {
            assert!(Name::read(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_names_of_a_certificate_are_of_their_kinds() {
        let mut params = rcgen::CertificateParams::new(vec!["Host.example.com".to_owned()]).unwrap();
        params.subject_alt_names.push(rcgen::SanType::URI("spiffe://example.com/a".try_into().unwrap()));
        params.subject_alt_names.push(rcgen::SanType::Rfc822Name("ann@Example.com".try_into().unwrap()));
        params.subject_alt_names.push(rcgen::SanType::DnsName("spiffe://example.com/b".try_into().unwrap()));
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "Ann");
        params.not_after = rcgen::date_time_ymd(2040, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        let made = params.self_signed(&key).unwrap();
        let peer = Peer::read(made.der(), Arc::default()).unwrap();
        let hash: Hash = Sha256::digest(made.der()).into();
        let expected = [
            Name::Fingerprint(hash),
            Name::Dns("host.example.com".into()),
            Name::Uri("spiffe://example.com/a".into()),
            Name::Email("ann@example.com".into()),
            Name::Dns("spiffe://example.com/b".into()),
            Name::Common("Ann".into()),
        ];
        assert_eq!(peer.names(), expected);
        let end = Duration::from_secs(2_208_988_800);
        assert!(peer.holds(end) && !peer.holds(end + Duration::from_secs(1)));
        peer.trust.end();
        assert!(!peer.holds(Duration::ZERO), "its authority is not believed any more");
        assert!(Peer::read(&CertificateDer::from(vec![0x30, 0x03, 0x02, 0x01, 0x00]), Arc::default()).is_none());
    }
}
