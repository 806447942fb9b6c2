//! The targets of a probe: addresses, with ports where the protocol has them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

use super::read::{Type, Written};
use super::{Kind, Target};
use crate::config::addresses::{is_host, not_one};
use crate::config::names;
use crate::config::problem::shown;
use crate::config::reader::{Reader, Refusal, hinted, wrong};

/// Of both families, run by different people; those of a family that no uplink has do no harm.
const DEFAULT: [&str; 4] = ["1.1.1.1", "9.9.9.9", "2606:4700:4700::1111", "2620:fe::9"];

const MOST: usize = 16;

impl Type {
    /// The port of targets that name none; 0 where the protocol has no ports.
    const fn port(self) -> u16 {
        match self {
            Self::Icmp | Self::Exec => 0,
            Self::Dns => 53,
            Self::Http => 80,
            Self::Tcp | Self::Https => 443,
        }
    }

    /// The targets where the file names none.
    pub(super) fn targets(self) -> Vec<Target> {
        let target = |address| Target {
            address,
            port: self.port(),
        };
        if self == Self::Exec {
            let none = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
            return none.map(target).to_vec();
        }
        let addresses = DEFAULT.iter().filter_map(|text| text.parse().ok());
        addresses.map(target).collect()
    }

    const fn allowed(self) -> &'static str {
        match self.port() {
            0 => "IP addresses, such as [\"1.1.1.1\", \"9.9.9.9\"]",
            _ => "IP addresses with or without a port, such as [\"9.9.9.9\", \"[2620:fe::9]:853\"]",
        }
    }
}

/// What becomes of `before`'s targets when they are asked something else: who they are has
/// nothing to do with the protocol, their ports have. Programs have targets only if told.
pub(super) fn carried(before: &Written, to: Type) -> (Vec<Target>, Vec<Range<usize>>) {
    let exec = |kind: &Kind| matches!(kind, Kind::Exec { .. });
    if to == Type::Exec || exec(&before.probe.kind) {
        let targets = to.targets();
        let places = vec![0..0; targets.len()];
        return (targets, places);
    }
    let (mut targets, mut places) = (Vec::new(), Vec::new());
    for (target, place) in before.probe.targets.iter().zip(&before.places) {
        let target = Target {
            port: to.port(),
            ..*target
        };
        // What differed in its port only is one now.
        if !targets.contains(&target) {
            targets.push(target);
            places.push(place.clone());
        }
    }
    (targets, places)
}

/// Reads `targets`, if it is there and right.
pub(super) fn read(table: &mut Reader<'_, '_>, kind: Type, written: &mut Written) {
    let allowed = kind.allowed();
    let before = table.problems.len();
    let parse = |text: &str| target(text, kind);
    let Some(read) = table.list("targets", allowed, parse) else {
        return;
    };
    if table.problems.len() > before {
        return;
    }
    if read.value.is_empty() {
        table.complain(read.span, "targets is empty", allowed);
        return;
    }
    if let Some(next) = read.value.get(MOST) {
        let help = format!("this and what follows: at most {MOST}");
        table.complain(next.span.clone(), format!("more than {MOST} targets"), help);
        return;
    }
    let (mut targets, mut places) = (Vec::new(), Vec::new());
    for target in read.value {
        if targets.contains(&target.value) {
            table.complain(target.span, "this target is listed twice", "remove it");
            continue;
        }
        targets.push(target.value);
        places.push(target.span);
    }
    written.probe.targets = targets;
    written.places = places;
    written.list = read.span;
}

fn target(text: &str, kind: Type) -> Result<Target, Refusal> {
    let (address, port) = match text.parse::<IpAddr>() {
        Ok(address) => (address, kind.port()),
        Err(_) => with_port(text, kind)?,
    };
    match is_host(address) {
        true => Ok(Target { address, port }),
        false => Err(wrong("is not the address of a host")),
    }
}

fn with_port(text: &str, kind: Type) -> Result<(IpAddr, u16), Refusal> {
    let Ok(address) = text.parse::<SocketAddr>() else {
        return Err(no_address(text, kind));
    };
    if kind.port() == 0 {
        let word = kind.word();
        return Err(wrong(format!("has a port, and type = \"{word}\" knows none")));
    }
    match address {
        SocketAddr::V6(a) if a.scope_id() != 0 => Err(wrong("names an interface: the uplink has one")),
        a if a.port() == 0 => Err(wrong("has port 0, which nobody listens on")),
        a => Ok((a.ip(), a.port())),
    }
}

fn no_address(text: &str, kind: Type) -> Refusal {
    if let Some((_, rest)) = text.split_once("://") {
        return url(rest, kind);
    }
    if !names::is_meant(text) {
        return not_one(text);
    }
    let instead = match kind {
        Type::Http | Type::Https => "write its address here and the name into `host`",
        _ => "write its address",
    };
    wrong(format!(
        "is a host name, which would have to be resolved by the very uplink that is being judged: {instead}"
    ))
}

/// A URL has what belongs into three keys; `rest` is what follows its "//".
fn url(rest: &str, kind: Type) -> Refusal {
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let hint = match kind {
        Type::Http | Type::Https => {
            // A port would go behind the address.
            let host = host.split(':').next().unwrap_or(host);
            let (host, path) = (shown(host), shown(&format!("/{path}")));
            format!("write the server's address here, and beside it host = {host} and path = {path};")
        }
        _ => "write the server's address, or set type = \"https\" with `host` and `path`;".into(),
    };
    hinted("is not an IP address but a URL", hint)
}
