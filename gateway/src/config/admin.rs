//! Where the operator comes in, as written by the user.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};

use super::{Address, units};
use crate::secret::Secret;

/// Where the admin port is when nothing says otherwise.
const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8081);

/// The admin port: an address, `off`, or the long form.
#[derive(Debug, Clone, PartialEq, JsonSchema)]
#[schemars(untagged)]
pub enum Admin {
    /// Where it listens.
    Short(Address),
    /// With a token.
    Long(AdminConfig),
}

/// The admin port in the long form.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdminConfig {
    /// Host and port. Default `127.0.0.1:8081`. It speaks plain HTTP; elsewhere than on loopback it needs a `token`.
    #[serde(deserialize_with = "units::address")]
    #[schemars(with = "Option<units::Socket>")]
    pub listen: Option<SocketAddr>,
    /// What callers of `/admin/` show as `Authorization: Bearer`, at least 16 characters. Without it one is made at the start and kept in `admin.token` in the folder `data`.
    pub token: Option<Secret>,
}

impl<'de> Deserialize<'de> for Admin {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        units::short_or_long(d, |text| units::address_or_off(text).map(Admin::Short), Admin::Long)
    }
}

impl Admin {
    /// Where the admin port of a configuration listens; `None` for nowhere.
    #[must_use]
    pub fn listen(admin: Option<&Admin>) -> Option<SocketAddr> {
        match admin {
            Some(Admin::Short(Address::Off(_))) => None,
            Some(Admin::Short(Address::At(at))) => Some(*at),
            Some(Admin::Long(long)) => Some(long.listen.unwrap_or(DEFAULT)),
            None => Some(DEFAULT),
        }
    }

    /// The token, if one is configured.
    #[must_use]
    pub fn token(admin: Option<&Admin>) -> Option<&Secret> {
        match admin {
            Some(Admin::Long(long)) => long.token.as_ref().filter(|token| !token.is_empty()),
            _ => None,
        }
    }

    /// The same elsewhere, with the token that is configured.
    #[must_use]
    pub fn moved(admin: Option<Admin>, to: Address) -> Admin {
        match (admin, to) {
            (Some(Admin::Long(long)), Address::At(at)) => Admin::Long(AdminConfig { listen: Some(at), ..long }),
            (_, to) => Admin::Short(to),
        }
    }
}
