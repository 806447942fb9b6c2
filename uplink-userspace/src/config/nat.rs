//! `[nat]`, and the prefixes that uplinks translate to.

use std::time::Duration;

use ipnet::Ipv6Net;

use super::reader::{Reader, Refusal, wrong};
use super::{At, Mode, Nat, NatMode, OnFailback, OnFailover, Prefixes, Uplink};

const KEY: &str = "prefix6";
const ALLOWED: &str = "an IPv6 prefix of 1 to 64 bits, such as \"fd00:10::/64\"";

/// Checksums are made up for in bits 48 to 63 or behind them, so longer prefixes have no room.
const LONGEST: u8 = 64;

/// `[nat] prefix6` as far as uplinks need it.
pub(super) struct Inside {
    prefix: Option<Ipv6Net>,
    /// It is there; if it was refused, then it is not missing all the same.
    written: bool,
}

impl Inside {
    pub fn of(top: &Reader<'_, '_>, nat: &Nat) -> Self {
        Self {
            prefix: nat.prefix6.as_ref().map(|p| p.value),
            written: top.has_inner("nat", KEY),
        }
    }
}

pub(super) fn read(top: &mut Reader<'_, '_>) -> Nat {
    let mut nat = Nat {
        mode: NatMode::Masquerade,
        on_failover: OnFailover::Reroute,
        on_failback: OnFailback::Pin,
        drain_time: Duration::from_secs(300),
        prefix6: None,
    };
    if let Some(mut table) = top.table("nat", "[nat]") {
        fill(&mut table, &mut nat);
        table.finish();
    }
    nat
}

fn fill(table: &mut Reader<'_, '_>, nat: &mut Nat) {
    let modes = [
        ("masquerade", Some(NatMode::Masquerade)),
        ("off", Some(NatMode::Off)),
    ];
    let mode = table.one_of("mode", &modes);
    nat.mode = mode.map_or(nat.mode, |m| m.value);
    let ends = [
        ("reroute", Some(OnFailover::Reroute)),
        ("reset", Some(OnFailover::Reset)),
    ];
    let end = table.one_of("on_failover", &ends);
    nat.on_failover = end.map_or(nat.on_failover, |o| o.value);
    let ends = [
        ("pin", Some(OnFailback::Pin)),
        ("drain", Some(OnFailback::Drain)),
        ("reset", Some(OnFailback::Reset)),
    ];
    let end = table.one_of("on_failback", &ends);
    nat.on_failback = end.map_or(nat.on_failback, |o| o.value);
    let day = Duration::from_secs(24 * 3600);
    let allowed = "1s to 24h, such as \"5min\"";
    let time = table.duration("drain_time", Duration::from_secs(1)..=day, allowed);
    nat.drain_time = time.unwrap_or(nat.drain_time);
    nat.prefix6 = table.parsed(KEY, ALLOWED, prefix);
    if let Some(prefix) = nat.prefix6.as_ref().filter(|_| nat.mode == NatMode::Off) {
        let message = "prefix6 translates addresses, and mode = \"off\" leaves them";
        table.complain(prefix.span.clone(), message, "remove one of the two");
    }
}

/// Addresses are translated in the kernel's forwarding, which next-hop mode goes past.
pub(super) fn lets_pass(top: &mut Reader<'_, '_>, nat: &Nat, mode: &At<Mode>) {
    if mode.value == Mode::NextHop && nat.mode != NatMode::Off {
        let message = "mode = \"nexthop\" sends packets past the kernel's NAT, and [nat] mode is not \"off\"";
        let help = "mode = \"auto\" or \"mark\"; or [nat] mode = \"off\", where the gateways route your prefixes back";
        top.complain(mode.span.clone(), message, help);
    }
}

/// An uplink's `prefix6`, which makes sense beside a gateway and a prefix inside only.
pub(super) fn of_uplink(table: &mut Reader<'_, '_>, inside: &Inside) -> Option<Prefixes> {
    let external = table.parsed(KEY, ALLOWED, prefix)?;
    let span = external.span.clone();
    if !table.has("gateway6") {
        table.complain(span, "prefix6 without gateway6", "add gateway6 or remove this");
        return None;
    }
    if !inside.written {
        let help = "add `prefix6` to [nat]: the prefix that the LAN uses";
        table.complain(span, "prefix6 without [nat] prefix6", help);
        return None;
    }
    let (internal, outside) = (inside.prefix?, external.value);
    if internal.prefix_len() != outside.prefix_len() {
        let message = format!("prefix6 {outside} is not as long as [nat] prefix6 {internal}");
        let help = format!(
            "a prefix of {} bits, or another one inside",
            internal.prefix_len()
        );
        table.complain(span, message, help);
        return None;
    }
    if internal == outside {
        let message = format!("prefix6 {outside} is [nat] prefix6 itself");
        table.complain(span, message, "the provider's prefix, or remove both");
        return None;
    }
    Some(Prefixes { internal, external })
}

/// A prefix inside that no uplink translates promises what does not happen.
pub(super) fn is_used(top: &mut Reader<'_, '_>, nat: &Nat, uplinks: &[Uplink]) {
    // An uplink that was refused may be the one that has it.
    let Some(prefix) = nat.prefix6.as_ref().filter(|_| top.problems.is_empty()) else {
        return;
    };
    if uplinks.iter().all(|u| u.prefix6.is_none()) {
        let message = "no uplink has a prefix6 to translate this one to";
        let help = "add `prefix6`, the provider's prefix, to an [[uplink]], or remove this";
        top.complain(prefix.span.clone(), message, help);
    }
}

fn prefix(text: &str) -> Result<Ipv6Net, Refusal> {
    let net: Ipv6Net = text.parse().map_err(|_| wrong("is not an IPv6 prefix"))?;
    let (address, length) = (net.network(), net.prefix_len());
    if length == 0 || length > LONGEST {
        return Err(wrong(format!("has {length} bits")));
    }
    if net != net.trunc() {
        return Err(wrong(format!("has host bits set: {} has none", net.trunc())));
    }
    if address.is_unspecified() || address.is_multicast() || address.is_unicast_link_local() {
        return Err(wrong("is not a prefix of hosts"));
    }
    Ok(net)
}
