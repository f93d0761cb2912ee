//! Networks as an operator writes them: one address, or a prefix like `10.0.0.0/8`.
//!
//! An IPv4 network also means the same addresses in IPv6 clothes (`::ffff:10.0.0.1`), in which a socket may show them.

use std::fmt;
use std::net::IpAddr;

/// Addresses with a common beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    /// Bits of the address that count.
    prefix: u8,
}

impl Network {
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("must be an IP address or a network like 10.0.0.0/8 or fd00::/8, not {text:?}");
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let digits = |prefix: &str| prefix.len() <= 3 && prefix.bytes().all(|byte| byte.is_ascii_digit());
        let prefix = match prefix {
            None => most,
            Some(prefix) if digits(prefix) => prefix.parse().ok().filter(|bits| *bits <= most).ok_or_else(wrong)?,
            Some(_) => return Err(wrong()),
        };
        if address != address.to_canonical() {
            return Err(format!("{text} is an IPv4 network in IPv6 clothes: write it as IPv4"));
        }
        let network = Self { address, prefix };
        let first = network.first();
        if first != address {
            return Err(format!("{text} has bits behind its prefix: write {first}/{prefix}, or the address alone"));
        }
        Ok(network)
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && Self { address, ..*self }.first() == self.address
    }

    /// The network's lowest address.
    fn first(&self) -> IpAddr {
        let kept = |bits: u32| bits - u32::from(self.prefix);
        match self.address {
            IpAddr::V4(four) => IpAddr::V4((four.to_bits() & u32::MAX.checked_shl(kept(32)).unwrap_or(0)).into()),
            IpAddr::V6(six) => IpAddr::V6((six.to_bits() & u128::MAX.checked_shl(kept(128)).unwrap_or(0)).into()),
        }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.prefix == if self.address.is_ipv4() { 32 } else { 128 };
        if whole { write!(f, "{}", self.address) } else { write!(f, "{}/{}", self.address, self.prefix) }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_network_survives_printing_and_holds_what_begins_like_it() {
        for (text, inside, outside) in [
            ("10.0.0.0/8", &["10.0.0.0", "10.255.255.255", "::ffff:10.1.2.3"][..], &["9.255.255.255", "11.0.0.0", "::a00:1"][..]),
            ("192.0.2.7", &["192.0.2.7"], &["192.0.2.6", "192.0.2.8"]),
            ("0.0.0.0/0", &["0.0.0.0", "255.255.255.255"], &["::1"]),
            ("fd00::/8", &["fd00::1", "fdff::"], &["fe00::", "10.0.0.1"]),
            ("::1", &["::1"], &["::2", "127.0.0.1"]),
            ("::/0", &["::", "ffff::"], &["10.0.0.1"]),
            ("10.1.2.128/25", &["10.1.2.128", "10.1.2.255"], &["10.1.2.127"]),
        ] {
            let network = Network::parse(text).unwrap();
            assert_eq!(network.to_string(), text);
            assert!(inside.iter().all(|address| network.contains(address.parse().unwrap())), "{text}");
            assert!(!outside.iter().any(|address| network.contains(address.parse().unwrap())), "{text}");
        }
        assert_eq!(Network::parse("10.0.0.1/32").unwrap().to_string(), "10.0.0.1");
    }

    #[test]
    fn what_is_no_network_is_refused_and_told_how_to_write_it() {
        for bad in
            ["", "/8", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/+8", "10.0.0/8", "fd00::/129", "localhost", "10.0.0.0/8/8"]
        {
            assert!(Network::parse(bad).unwrap_err().contains("must be an IP address"), "{bad}");
        }
        assert!(Network::parse("10.0.0.1/8").unwrap_err().contains("write 10.0.0.0/8"));
        assert!(Network::parse("::ffff:10.0.0.1").unwrap_err().contains("IPv4"));
    }
}
