//! Values that flows are compared with, as people write them.

use std::ops::RangeInclusive;

use nix::unistd::User;

use crate::config::names;
use crate::config::policy::Domain;
use crate::config::problem::{nearest, shown};
use crate::config::reader::{Refusal, meant, wrong};

/// Protocols with a name here; IANA's numbers.
const PROTOCOLS: [(&str, u8); 9] = [
    ("tcp", 6),
    ("udp", 17),
    ("icmp", 1),
    ("icmpv6", 58),
    ("sctp", 132),
    ("udplite", 136),
    ("gre", 47),
    ("esp", 50),
    ("ah", 51),
];

/// Code points without a number in their name: RFC 2474, 3246, 5865, 8622.
const CODE_POINTS: [(&str, u8); 4] = [("be", 0), ("le", 1), ("va", 44), ("ef", 46)];

/// A number, or two with "-" between them; `None` if that is not what it is.
fn range(text: &str) -> Option<Result<RangeInclusive<u32>, Refusal>> {
    let (from, to) = text.split_once('-').unwrap_or((text, text));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(from) || !digits(to) {
        return None;
    }
    let (Ok(from), Ok(to)) = (from.parse(), to.parse()) else {
        return Some(Err(wrong("is out of range")));
    };
    match from <= to {
        true => Some(Ok(from..=to)),
        false => Some(Err(meant("ends before it begins", format!("\"{to}-{from}\"")))),
    }
}

/// A port, a range of ports, or a service, which `port` knows.
pub(super) fn ports(
    text: &str,
    port: impl FnOnce(&str) -> Result<u16, Refusal>,
) -> Result<RangeInclusive<u16>, Refusal> {
    let Some(range) = range(text) else {
        return port(text).map(|port| port..=port);
    };
    let (from, to) = range?.into_inner();
    match (u16::try_from(from), u16::try_from(to)) {
        (Ok(from), Ok(to)) => Ok(from..=to),
        _ => Err(wrong("is out of range")),
    }
}

/// An IP protocol.
pub(super) fn protocol(text: &str) -> Result<u8, Refusal> {
    match PROTOCOLS.iter().find(|p| p.0 == text) {
        Some((_, number)) => Ok(*number),
        None => number(text, 255).map_err(|refusal| match nearest(text, PROTOCOLS.iter().map(|p| p.0)) {
            Some(near) => meant("is not known", shown(near)),
            None => refusal,
        }),
    }
}

/// A differentiated services code point.
pub(super) fn code_point(text: &str) -> Result<u8, Refusal> {
    if let Some((_, number)) = CODE_POINTS.iter().find(|p| p.0 == text) {
        return Ok(*number);
    }
    match text.as_bytes() {
        // RFC 2474, section 4.2.2.2.
        [b'c', b's', class @ b'0'..=b'7'] => Ok((class - b'0') * 8),
        // RFC 2597, section 6.
        [b'a', b'f', class @ b'1'..=b'4', drop @ b'1'..=b'3'] => Ok((class - b'0') * 8 + (drop - b'0') * 2),
        _ => number(text, 63),
    }
}

fn number(text: &str, largest: u8) -> Result<u8, Refusal> {
    let unknown = || wrong("is not known");
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits {
        return Err(unknown());
    }
    let number = text.parse().ok().filter(|n| *n <= largest);
    number.ok_or_else(|| wrong("is out of range"))
}

/// The address of a network card.
pub(super) fn mac(text: &str) -> Result<[u8; 6], Refusal> {
    let colons = text.replace('-', ":");
    if colons.len() == 17 && colons != text && mac(&colons).is_ok() {
        return Err(meant("is not a MAC address", shown(&colons)));
    }
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|p| p.len() == 2);
        let hex = part.filter(|p| p.bytes().all(|b| b.is_ascii_hexdigit()));
        let read = hex.and_then(|p| u8::from_str_radix(p, 16).ok());
        *byte = read.ok_or_else(|| wrong("is not a MAC address"))?;
    }
    match (parts.next(), mac[0] & 1) {
        (Some(_), _) => Err(wrong("is not a MAC address")),
        (None, 0) => Ok(mac),
        // IEEE 802, section 8.2: frames are sent to groups, never by them.
        (None, _) => Err(wrong("is the address of a group, which sends nothing")),
    }
}

/// A user id, a range of them, or a user's name.
pub(super) fn users(text: &str) -> Result<RangeInclusive<u32>, Refusal> {
    match range(text) {
        // The last one means "nobody in particular" to the kernel.
        Some(Ok(range)) if *range.end() == u32::MAX => Err(wrong("is out of range")),
        Some(range) => range,
        None => user(text).map(|uid| uid..=uid),
    }
}

fn user(name: &str) -> Result<u32, Refusal> {
    // The name goes through C, where a zero ends it.
    if name.contains('\0') {
        return Err(wrong("is not the name of a user"));
    }
    match User::from_name(name) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        Ok(None) => Err(wrong("is not a user of this host")),
        Err(e) => Err(wrong(format!("cannot be looked up: {e}"))),
    }
}

/// A name, with `*.` in front if it stands for those below it, too.
pub(super) fn domain(text: &str) -> Result<Domain, Refusal> {
    let rest = text.strip_prefix("*.");
    let below = rest.is_some();
    let name = rest.unwrap_or(text).to_ascii_lowercase();
    let name = name.strip_suffix('.').unwrap_or(&name);
    match name {
        "" => return Err(wrong("names no domain")),
        _ if name.contains('/') => return Err(of_url(name)),
        "*" => return Err(wrong("stands for every name: leave `domain` out")),
        _ if name.contains('*') => return Err(wrong("has a \"*\" that is not the first label")),
        _ if name.parse::<std::net::IpAddr>().is_ok() => {
            return Err(wrong("is an address: addresses go with `dst`"));
        }
        _ => {}
    }
    let name = names::name(name)?;
    Ok(Domain { name, below })
}

/// Only the name of a URL counts.
fn of_url(text: &str) -> Refusal {
    let host = text.split_once("://").map_or(text, |(_, rest)| rest);
    let host = host.split(['/', ':']).next().unwrap_or("");
    match names::name(host) {
        Ok(host) => meant("is a URL, and a name is needed", shown(&host)),
        Err(_) => wrong("contains '/'"),
    }
}

/// What protocols can be, for complaints.
pub(super) fn protocols_allowed() -> String {
    let names: Vec<String> = PROTOCOLS.iter().map(|p| shown(p.0)).collect();
    format!("{}, or a number from 0 to 255", names.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told<T>(result: Result<T, Refusal>) -> Result<T, String> {
        result.map_err(|refusal| refusal.to_string())
    }

    #[test]
    fn ports_are_numbers_ranges_or_services() {
        let of = |text: &str| {
            told(ports(text, |name| match name {
                "https" => Ok(443),
                _ => Err(wrong("is no service")),
            }))
        };
        assert_eq!(of("443"), Ok(443..=443));
        assert_eq!(of("0-65535"), Ok(0..=65535));
        assert_eq!(of("https"), Ok(443..=443));
        for (text, why) in [
            ("65536", "is out of range"),
            ("1-65536", "is out of range"),
            ("99999999999", "is out of range"),
            ("2-1", "ends before it begins"),
            ("1-", "is no service"),
            ("-1", "is no service"),
            ("+1", "is no service"),
            ("", "is no service"),
        ] {
            assert_eq!(of(text), Err(why.into()), "{text}");
        }
    }

    #[test]
    fn protocols_and_code_points_have_names_and_numbers() {
        assert_eq!(protocol("udplite").ok(), Some(136));
        assert_eq!(protocol("255").ok(), Some(255));
        for (text, number) in [
            ("ef", 46),
            ("be", 0),
            ("cs0", 0),
            ("cs7", 56),
            ("af11", 10),
            ("af43", 38),
            ("va", 44),
            ("le", 1),
            ("63", 63),
        ] {
            assert_eq!(code_point(text).ok(), Some(number), "{text}");
        }
        for text in ["64", "cs8", "af14", "af51", "af01", "EF", "-1", "", "300", "x"] {
            assert!(code_point(text).is_err(), "{text}");
        }
        for text in ["256", "-1", "TCP", "", " 6", "+6"] {
            assert!(protocol(text).is_err(), "{text}");
        }
    }

    #[test]
    fn macs_are_those_of_senders() {
        assert_eq!(
            mac("aA:bb:cc:dd:ee:f0").ok(),
            Some([0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xf0])
        );
        for text in [
            "",
            "aa:bb:cc:dd:ee",
            "aa:bb:cc:dd:ee:ff:00",
            "aa-bb-cc-dd-ee-ff",
            "+a:bb:cc:dd:ee:ff",
            "01:00:5e:00:00:01",
            "aa:bb:cc:dd:ee:",
        ] {
            assert!(mac(text).is_err(), "{text}");
        }
    }

    #[test]
    fn users_are_ids_or_names() {
        assert_eq!(told(users("root")), Ok(0..=0));
        assert_eq!(told(users("1000-1999")), Ok(1000..=1999));
        assert_eq!(told(users("4294967294")), Ok(4_294_967_294..=4_294_967_294));
        for text in ["4294967295", "9-1", "no\0body", "", "nobody-of-this-name"] {
            assert!(users(text).is_err(), "{text}");
        }
    }

    #[test]
    fn domains_are_lower_case_and_ascii() {
        let of = |text: &str| told(domain(text)).map(|d| (d.name, d.below));
        assert_eq!(of("Google.COM."), Ok(("google.com".into(), false)));
        assert_eq!(of("*.example.org"), Ok(("example.org".into(), true)));
        assert_eq!(of("*.org"), Ok(("org".into(), true)));
        for (text, why) in [
            ("*", "stands for every name"),
            ("*.", "names no domain"),
            ("", "names no domain"),
            (".", "names no domain"),
            ("w*.example.org", "not the first label"),
            ("a.*.org", "not the first label"),
            ("*.*.org", "not the first label"),
            ("bücher.example", "xn--"),
            ("1.2.3.4", "is an address"),
            ("2001:db8::1", "is an address"),
            ("a..b", "empty label"),
            ("a b", "contains ' '"),
        ] {
            let shown = of(text).expect_err(text);
            assert!(shown.contains(why), "{text}: {shown}");
        }
        assert!(of(&"a".repeat(64)).unwrap_err().contains("label of 64 bytes"));
        assert!(of(&"a.".repeat(127)).is_ok());
        assert!(
            of(&format!("{}aa", "a.".repeat(126)))
                .unwrap_err()
                .contains("254 bytes")
        );
    }
}
