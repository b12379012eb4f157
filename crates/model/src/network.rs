//! Networks from which a key may be used, and whose forwarding headers are believed.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Addresses with the same first bits: `10.0.0.0/8`, `2001:db8::/32`, or one address alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Text that is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// Neither form.
    #[error("a network is an address such as 192.0.2.7 or 2001:db8::1, or one with the number of its bits: 192.0.2.0/24, 2001:db8::/32")]
    Form,
    /// `10.1.2.3/8`: was the address meant, or all that begin with 10?
    #[error("the address has bits beyond the network's; write {0} for the whole network, or the address without a slash")]
    Bits(Network),
}

impl Network {
    /// Whether an address is in it. An IPv4 address that came in an IPv6 one is that IPv4 address.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        width(address) == width(self.address) && cut(address, self.prefix) == self.address
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The address with everything behind its first `prefix` bits as zeros.
fn cut(address: IpAddr, prefix: u8) -> IpAddr {
    match address {
        IpAddr::V4(v4) => IpAddr::V4((v4.to_bits() & u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0)).into()),
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0)).into()),
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = match text.split_once('/') {
            // No sign, no further zeros: one form for each network.
            Some((address, bits)) if !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit()) && bits.len() <= 3 => {
                (address, Some(bits.parse::<u8>().map_err(|_| NetworkError::Form)?))
            }
            Some(_) => return Err(NetworkError::Form),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Form)?;
        let prefix = prefix.unwrap_or(width(address));
        if prefix > width(address) {
            return Err(NetworkError::Form);
        }
        if cut(address, prefix) != address {
            return Err(NetworkError::Bits(Self { address: cut(address, prefix), prefix }));
        }
        // `::ffff:10.0.0.0/104` means `10.0.0.0/8`: that is what its addresses are compared as.
        match address.to_canonical() {
            canonical @ IpAddr::V4(_) if address.is_ipv6() && prefix >= 96 => Ok(Self { address: canonical, prefix: prefix - 96 }),
            _ => Ok(Self { address, prefix }),
        }
    }
}

impl TryFrom<String> for Network {
    type Error = NetworkError;

    fn try_from(text: String) -> Result<Self, NetworkError> {
        text.parse()
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, prefix } = self;
        if *prefix == width(*address) { write!(f, "{address}") } else { write!(f, "{address}/{prefix}") }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn holds(network: &str, address: &str) -> bool {
        network.parse::<Network>().unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn an_address_is_in_the_networks_that_it_begins_with() {
        assert!(holds("10.0.0.0/8", "10.255.0.1") && !holds("10.0.0.0/8", "11.0.0.0"));
        assert!(holds("192.0.2.7", "192.0.2.7") && !holds("192.0.2.7", "192.0.2.8"));
        assert!(holds("2001:db8::/32", "2001:db8:1::1") && !holds("2001:db8::/32", "2001:db9::1"));
        assert!(holds("192.0.2.128/25", "192.0.2.200") && !holds("192.0.2.128/25", "192.0.2.127"));
        assert!(holds("0.0.0.0/0", "203.0.113.1") && holds("::/0", "2001:db8::1"));
    }

    #[test]
    fn the_two_generations_of_addresses_are_told_apart_but_for_mapped_ones() {
        assert!(!holds("0.0.0.0/0", "2001:db8::1") && !holds("::/0", "203.0.113.1"));
        assert!(holds("10.0.0.0/8", "::ffff:10.1.2.3"), "as a listener for both sees it");
        assert!(holds("::ffff:10.0.0.0/104", "10.1.2.3"));
    }

    #[test]
    fn what_is_ambiguous_or_no_network_is_refused() {
        let bits = "10.1.2.3/8".parse::<Network>().unwrap_err();
        assert!(bits.to_string().contains("10.0.0.0/8"), "{bits}");
        for bad in [
            "",
            "10",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "10.0.0.0/8 ",
            "::/129",
            "010.0.0.1",
            "host",
            "10.0.0.0/8/8",
            "::/0x0",
            "fe80::1%eth0",
        ] {
            assert!(bad.parse::<Network>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_again_as_itself(bits in any::<u128>(), prefix in 0u8..=128) {
            let address = cut(IpAddr::V6(bits.into()), prefix);
            if let Ok(network) = format!("{address}/{prefix}").parse::<Network>() {
                prop_assert_eq!(network.to_string().parse::<Network>(), Ok(network));
                prop_assert!(network.contains(address));
            }
        }

        #[test]
        fn no_text_panics(text in "[0-9a-f:./]{0,20}") {
            let _ = text.parse::<Network>();
        }
    }
}
