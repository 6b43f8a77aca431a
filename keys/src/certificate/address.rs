//! The value of the critical option `source-address`: addresses and networks, separated by commas
//! (PROTOCOL.certkeys, "Critical options").

use std::net::IpAddr;

/// Most addresses in a list.
const RANGES_MAX: usize = 256;

/// An address, or a network in CIDR notation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AddressRange {
    address: IpAddr,
    prefix: u8,
}

impl AddressRange {
    /// Reads a list; `None` if any part of it is malformed, or it is empty.
    pub(super) fn parse_list(list: &[u8]) -> Option<Vec<Self>> {
        let list = std::str::from_utf8(list).ok()?;
        let mut ranges = Vec::new();
        for text in list.split(',') {
            if ranges.len() == RANGES_MAX {
                return None;
            }
            ranges.push(Self::parse(text)?);
        }
        Some(ranges)
    }

    /// Reads one, as in `192.0.2.7` or `2001:db8::/32`; `None` if it is malformed.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok()?,
            Some(_) => return None,
            None => longest,
        };
        (prefix <= longest).then_some(Self { address, prefix })
    }

    /// Whether `address` is in it. An IPv4 address in IPv6 clothes counts as the IPv4 address.
    #[must_use]
    pub fn contains(self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let drop = 32 - u32::from(self.prefix.min(32));
                let [network, address] = [network, address].map(u32::from);
                network.checked_shr(drop) == address.checked_shr(drop)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let drop = 128 - u32::from(self.prefix.min(128));
                let [network, address] = [network, address].map(u128::from);
                network.checked_shr(drop) == address.checked_shr(drop)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_in_its_networks_alone() {
        let list = b"192.0.2.0/24,198.51.100.7,2001:db8::/32,0.0.0.0/32";
        let ranges = AddressRange::parse_list(list).unwrap();
        let is_in = |address: &str| {
            let address = address.parse().unwrap();
            ranges.iter().any(|range| range.contains(address))
        };
        for inside in [
            "192.0.2.0",
            "192.0.2.255",
            "198.51.100.7",
            "2001:db8:ffff::1",
            "::ffff:192.0.2.1",
        ] {
            assert!(is_in(inside), "{inside}");
        }
        for outside in ["192.0.3.0", "198.51.100.6", "2001:db9::", "::1", "0.0.0.1"] {
            assert!(!is_in(outside), "{outside}");
        }
        let all = AddressRange::parse_list(b"0.0.0.0/0").unwrap();
        assert!(all[0].contains("203.0.113.9".parse().unwrap()));
        assert!(!all[0].contains("::1".parse().unwrap()), "the other family");
    }

    #[test]
    fn a_list_with_one_bad_part_is_no_list() {
        for bad in [
            "",
            ",",
            "192.0.2.0/24,",
            "192.0.2.0/33",
            "2001:db8::/129",
            "192.0.2.0/-1",
            "192.0.2.0/+8",
            "192.0.2.0/",
            "host.example",
            "192.0.2.0/24 ",
            "!192.0.2.1",
            "192.0.2.*",
        ] {
            assert_eq!(AddressRange::parse_list(bad.as_bytes()), None, "{bad:?}");
        }
    }
}
