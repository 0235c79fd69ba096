//! Addresses: which of them may be connected to, decided after the name was resolved and for each connection anew.
//!
//! In: a host. Out: the addresses to connect to, and to no others: what was checked is what is dialled, so a name that
//! resolves to something else a moment later gains nothing.
//!
//! ```text
//!   host ──resolve──> addresses ──policy──> allowed addresses ──> connect to one of these
//! ```

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Which addresses may be connected to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AddressPolicy {
    /// Any: hosts come from the operator's own configuration and may well be private.
    #[default]
    Anything,
    /// Only those of the public internet: hosts come from somebody who must not reach what the server can reach.
    PublicOnly,
}

impl AddressPolicy {
    /// Whether `address` may be connected to.
    pub fn allows(self, address: IpAddr) -> bool {
        match (self, address) {
            (Self::Anything, _) => true,
            (Self::PublicOnly, IpAddr::V4(address)) => is_public_v4(address),
            (Self::PublicOnly, IpAddr::V6(address)) => is_public_v6(address),
        }
    }

    /// The addresses of `host`, a name or an address, that may be connected to. Cancel safe: a dropped call leaves
    /// nothing but a look-up that nobody waits for.
    ///
    /// # Errors
    /// When the name does not resolve, or to nothing that is allowed.
    pub async fn resolve(self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let mut addresses: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
        addresses.retain(|address| self.allows(address.ip()));
        if addresses.is_empty() { Err(io::Error::other(Refused)) } else { Ok(addresses) }
    }
}

/// The name has no address that may be connected to. Which it has is not said: it is not for everybody to know.
#[derive(Debug, thiserror::Error)]
#[error("the host has no address that may be connected to")]
pub(crate) struct Refused;

/// The policy where the HTTP client asks for addresses. It does so for names only; hosts that are addresses are checked
/// before the request is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resolver(pub(crate) AddressPolicy);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let Self(policy) = *self;
        Box::pin(async move {
            let addresses = policy.resolve(name.as_str(), 0).await?;
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

/// What is not: networks of one's own, of one machine, of one link, of a provider, for documentation and tests, for
/// groups, or reserved. Source: the registry of special-purpose IPv4 addresses at IANA.
fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = match a {
        0 | 10 | 127 | 224.. => true,
        100 => b & 0xc0 == 64,
        169 => b == 254, // link-local, and where clouds keep their metadata
        172 => b & 0xf0 == 16,
        192 => matches!((b, c), (168, _) | (0, 0 | 2) | (88, 99) | (31, 196) | (52, 193) | (175, 48)),
        198 => matches!((b, c), (18 | 19, _) | (51, 100)),
        203 => (b, c) == (0, 113),
        _ => false,
    };
    !is_special
}

/// Global unicast (`2000::/3`) and nothing else, less what carries an IPv4 address or is not for everyday use. So
/// loopback, link-local, unique local (with the metadata addresses of clouds), multicast, and the mapped and translated
/// forms of IPv4 are out. Source: the registry of special-purpose IPv6 addresses at IANA.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    let is_special = match first {
        0x2001 => second < 0x0200 || second == 0x0db8, // protocols such as Teredo; documentation
        0x2002 => true,                                // 6to4
        0x2620 => second == 0x004f && address.segments()[2] == 0x8000,
        0x3fff => second < 0x1000, // documentation
        _ => first & 0xe000 != 0x2000,
    };
    !is_special
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_public() {
        for refused in [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:8.8.8.8",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2620:4f:8000::1",
        ] {
            assert!(!AddressPolicy::PublicOnly.allows(refused.parse().unwrap()), "{refused}");
            assert!(AddressPolicy::Anything.allows(refused.parse().unwrap()), "{refused}");
        }
        for public in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "169.253.1.1",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.1",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "2a00:1450::1",
            "2001:4860:4860::8888",
        ] {
            assert!(AddressPolicy::PublicOnly.allows(public.parse().unwrap()), "{public}");
        }
    }

    #[tokio::test]
    async fn a_name_is_judged_by_what_it_resolves_to() {
        for host in ["localhost", "127.0.0.1", "::1"] {
            let error = AddressPolicy::PublicOnly.resolve(host, 443).await.unwrap_err();
            assert!(!error.to_string().contains(host), "{error}");
        }
        let addresses = AddressPolicy::Anything.resolve("127.0.0.1", 443).await.unwrap();
        assert_eq!(addresses, [SocketAddr::from((Ipv4Addr::LOCALHOST, 443))]);
    }
}
