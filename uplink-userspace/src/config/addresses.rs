//! Addresses as people write them, and what they meant by those that are none.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use uplink_common::Family;

use super::names;
use super::problem::shown;
use super::reader::{Refusal, hinted, meant, wrong};

/// An address of a host of that family; `keys` are those of IPv4 and IPv6.
pub(super) fn of_family(text: &str, family: Family, keys: [&str; 2]) -> Result<IpAddr, Refusal> {
    let address: IpAddr = text.parse().map_err(|_| not_one(text))?;
    let [key, key6] = keys;
    let other = |word, key: &str| {
        let why = format!("is an {word} address: use {key}");
        Err(hinted(why, format!("did you mean {key} = \"{text}\"?")))
    };
    match (family, address) {
        (Family::V4, IpAddr::V6(_)) => other("IPv6", key6),
        (Family::V6, IpAddr::V4(_)) => other("IPv4", key),
        _ if !is_host(address) => Err(wrong("is not the address of a host")),
        _ => Ok(address),
    }
}

/// An address that this host could send from, beyond the link.
pub(super) fn source(text: &str, family: Family) -> Result<IpAddr, Refusal> {
    match of_family(text, family, ["source", "source6"])? {
        IpAddr::V6(a) if a.is_unicast_link_local() => {
            Err(wrong("is link-local: nothing beyond the link could answer"))
        }
        address => Ok(address),
    }
}

/// Whether a packet could be for one other host: no loopback, multicast or the like.
pub(super) fn is_host(address: IpAddr) -> bool {
    let special = match address {
        IpAddr::V4(a) => a.is_broadcast() || a.octets()[0] == 0,
        IpAddr::V6(a) => a.to_ipv4_mapped().is_some(),
    };
    !(special || address.is_unspecified() || address.is_loopback() || address.is_multicast())
}

/// Why the text is no address.
pub(super) fn not_one(text: &str) -> Refusal {
    if let Ok(net) = text.trim().parse::<IpNet>() {
        return network(net);
    }
    let inner = text.trim().trim_matches(['[', ']']);
    if let Ok(address) = inner.parse::<IpAddr>() {
        let why = "is not an IP address: it has something around it";
        return meant(why, shown(&address.to_string()));
    }
    if let Some((address, _)) = inner.split_once('%')
        && address.parse::<IpAddr>().is_ok()
    {
        return meant("names an interface, which is a key of its own", shown(address));
    }
    if text.contains(',') {
        return wrong("is more than one value: each stands in quotes of its own");
    }
    if names::is_meant(text) {
        return wrong("is a name, and its address is needed");
    }
    quartets(text)
}

fn network(net: IpNet) -> Refusal {
    let is_network = net.addr() == net.network() && net.prefix_len() < net.max_prefix_len();
    if !is_network {
        let why = "is not an IP address: it has a prefix length";
        return meant(why, shown(&net.addr().to_string()));
    }
    let first = net.hosts().next().unwrap_or_else(|| net.addr());
    hinted(
        "is a network, and the address of one host is needed",
        format!("one address in it, such as \"{first}\";"),
    )
}

/// Why numbers with dots between them are no address.
fn quartets(text: &str) -> Refusal {
    let parts: Vec<&str> = text.split('.').collect();
    let numbers: Option<Vec<u32>> = parts.iter().map(|part| part.parse().ok()).collect();
    match numbers {
        Some(numbers) if numbers.len() == 4 => match numbers.iter().find(|n| **n > 255) {
            Some(large) => wrong(format!("is not an IP address: {large} is more than 255")),
            None => meant("is not an IP address: it has zeros in front", decimal(&numbers)),
        },
        Some(numbers) if numbers.len() > 1 => wrong(format!(
            "is not an IP address: it has {} numbers, not 4",
            numbers.len()
        )),
        _ => wrong("is not an IP address"),
    }
}

fn decimal(numbers: &[u32]) -> String {
    let parts: Vec<String> = numbers.iter().map(u32::to_string).collect();
    shown(&parts.join("."))
}

/// Why the text is neither an address nor a prefix.
pub(super) fn not_a_prefix(text: &str) -> Refusal {
    const WHAT: &str = "is neither an address nor a prefix";
    let Some((address, length)) = text.trim().split_once('/') else {
        return match not_one(text) {
            Refusal::Meant { why, hint } => hinted(why.replace("is not an IP address", WHAT), hint),
            refusal => wrong(refusal.to_string().replace("is not an IP address", WHAT)),
        };
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        return wrong(format!("{WHAT}: {} is no address", shown(address)));
    };
    if let (IpAddr::V4(address), Ok(mask)) = (address, length.parse::<Ipv4Addr>())
        && let Ok(net) = Ipv4Net::with_netmask(address, mask)
    {
        return meant("has a mask and not a length", shown(&net.trunc().to_string()));
    }
    let (family, bits) = if address.is_ipv4() {
        ("IPv4", 32)
    } else {
        ("IPv6", 128)
    };
    match length.parse::<u32>() {
        Ok(length) => wrong(format!("{WHAT}: {family} has {bits} bits, not {length}")),
        Err(_) => wrong(format!("{WHAT}: {} is not a number of bits", shown(length))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Why, and the hint if there is one.
    fn told(refusal: &Refusal) -> String {
        match refusal {
            Refusal::Meant { why, hint } => format!("{why} | {hint}"),
            refusal => refusal.to_string(),
        }
    }

    #[test]
    fn what_is_no_address_is_told_apart() {
        for (text, why) in [
            ("10.0.0.1/24", "prefix length | did you mean \"10.0.0.1\"?"),
            ("10.0.0.0/24", "is a network"),
            ("10.0.0.0/24", "such as \"10.0.0.1\";"),
            ("fd00::/64", "is a network"),
            ("10.0.0.1/32", "did you mean \"10.0.0.1\"?"),
            ("0.0.0.0/0", "is a network"),
            (" 10.0.0.1", "did you mean \"10.0.0.1\"?"),
            ("[fd00::1]", "did you mean \"fd00::1\"?"),
            (
                "fe80::1%eth0",
                "names an interface, which is a key of its own | did you mean \"fe80::1\"?",
            ),
            ("10.0.0.1, 10.0.0.2", "more than one"),
            ("router.lan", "is a name"),
            ("10.0.0.256", "256 is more than 255"),
            ("10.0.0", "has 3 numbers, not 4"),
            ("10.0.0.1.1", "has 5 numbers, not 4"),
            ("010.0.0.001", "did you mean \"10.0.0.1\"?"),
            ("", "is not an IP address"),
            ("1", "is not an IP address"),
            ("99999999999.1.1.1", "is not an IP address"),
            ("::g", "is not an IP address"),
        ] {
            let shown = told(&not_one(text));
            assert!(shown.contains(why), "{text}: {shown}");
        }
    }

    #[test]
    fn what_is_no_prefix_is_told_apart() {
        for (text, why) in [
            ("10.0.0.0/33", "IPv4 has 32 bits, not 33"),
            ("fd00::/129", "IPv6 has 128 bits, not 129"),
            ("10.0.0.5/255.255.255.0", "did you mean \"10.0.0.0/24\"?"),
            ("10.0.0.0/255.0.255.0", "is not a number of bits"),
            ("10.0.0/8", "\"10.0.0\" is no address"),
            ("10.0.0.0/", "is not a number of bits"),
            ("10.0.0.256", "neither an address nor a prefix: 256 is more"),
            ("x", "is a name"),
        ] {
            let shown = told(&not_a_prefix(text));
            assert!(shown.contains(why), "{text}: {shown}");
        }
    }
}
