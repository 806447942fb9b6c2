//! The text of the table.
//!
//! nft 1.0.6 cannot OR a connection's mark into a packet's mark. So every uplink has chains with
//! its own constant, reached by one map look-up: the first rule that an established, forwarded
//! packet meets decides about it.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::Ipv6Net;
use uplink_common::Family;

use super::{Input, reset_mark};
use crate::aggregate;
use crate::config::NatMode;
use crate::resolve::{Leg, Uplink};

/// Headers that an MSS leaves out: IP without options, and TCP.
const HEADERS: [(&str, u32); 2] = [("ipv4", 40), ("ipv6", 60)];
/// What answers to a dead connection: TCP in its middle. `invalid` is what conntrack calls it
/// where picking up connections is turned off.
const MIDDLE: &str = "ct state new,invalid tcp flags & (syn | rst) == 0";

/// What goes to a host behind us needs no mark: answers to what we translated, and what a
/// port-forward let in. Without one the program at egress has nothing to look at.
const INWARD: [&str; 2] = [
    "ct direction reply ct status snat goto inward",
    "ct direction original ct status dnat goto inward",
];

/// Sets and chains, and how many rules they hold.
#[derive(Debug, Default)]
pub(super) struct Body {
    pub text: String,
    pub rules: usize,
}

impl Body {
    /// A chain that others go to.
    fn chain(&mut self, name: &str, rules: &[String]) {
        self.write(name, None, rules);
    }

    /// A chain that packets enter, unless it has nothing to say.
    fn base(&mut self, name: &str, hook: &str, rules: &[String]) {
        if !rules.is_empty() {
            self.write(name, Some(hook), rules);
        }
    }

    fn write(&mut self, name: &str, hook: Option<&str>, rules: &[String]) {
        let _ = writeln!(self.text, "\tchain {name} {{");
        if let Some(hook) = hook {
            let _ = writeln!(self.text, "\t\ttype {hook}; policy accept;");
        }
        for rule in rules {
            let _ = writeln!(self.text, "\t\t{rule}");
        }
        self.text.push_str("\t}\n");
        self.rules += rules.len();
    }
}

pub(super) fn body(input: &Input) -> Body {
    let mut body = Body::default();
    if !input.uplinks.is_empty() {
        keep(&mut body, input);
        clamp(&mut body, input);
        postrouting(&mut body, input);
        let resets = reset_mark(input.mask, input.uplinks, input.strict).filter(|_| input.reset);
        if resets.is_some() {
            reset(&mut body);
        }
        untracked(&mut body, input, resets);
    }
    keep_clients(&mut body, input);
    body
}

/// What a connection's first packet decided holds for all others, in both directions.
fn keep(body: &mut Body, input: &Input) {
    let (mask, others) = (input.mask, !input.mask);
    let unmark = [
        format!("meta mark & {mask:#010x} == 0 accept"),
        format!("meta mark set meta mark & {others:#010x}"),
    ];
    body.chain("inward", &unmark);
    for uplink in input.uplinks {
        let (id, mark) = (uplink.id, set_mark("meta", uplink, input.mask));
        let mut rules = INWARD.map(str::to_owned).to_vec();
        rules.extend(fitting(uplink, input));
        rules.push(mark);
        body.chain(&format!("keep_{id}"), &rules);
        body.chain(&format!("first_{id}"), &[set_mark("ct", uplink, input.mask)]);
    }
    let known = dispatch("ct", "keep", input.uplinks, input.mask);
    let first = dispatch("meta", "first", input.uplinks, input.mask);
    let rules = [known.clone(), format!("ct state new {first}")];
    body.base("prerouting", "filter hook prerouting priority mangle", &rules);
    // This host's errors about what comes in ("fragmentation needed", say) get the address that NAT gave the
    // connection, and so have to leave by its uplink, whoever else steers this host.
    let ours = match input.local || shared_source(input.uplinks) {
        true => known,
        false => format!("ct state related {known}"),
    };
    // Of type route: a changed mark has the kernel look for the route again.
    body.base("route_output", "route hook output priority mangle", &[ours]);
}

/// Packets that carry the right mark already are the most, and need no write.
fn fitting(uplink: &Uplink, input: &Input) -> Vec<String> {
    let mask = input.mask;
    let host = input.local.then_some(uplink.host_mark & mask);
    let host = host.filter(|host| *host != 0 && *host != uplink.mark & mask);
    let marks = [Some(uplink.mark & mask), host].into_iter().flatten();
    marks
        .map(|mark| format!("meta mark & {mask:#010x} == {mark:#010x} accept"))
        .collect()
}

/// One look-up of our bits of a mark, which leads to the chain of the uplink they name.
fn dispatch<'a>(of: &str, chain: &str, uplinks: impl IntoIterator<Item = &'a Uplink>, mask: u32) -> String {
    let entry = |u: &Uplink| format!("{:#010x} : goto {chain}_{}", u.mark & mask, u.id);
    let entries: Vec<String> = uplinks.into_iter().map(entry).collect();
    format!("{of} mark & {mask:#010x} vmap {{ {} }}", entries.join(", "))
}

fn set_mark(of: &str, uplink: &Uplink, mask: u32) -> String {
    let (keep, mark) = (!mask, uplink.mark & mask);
    format!("{of} mark set {of} mark & {keep:#010x} | {mark:#010x}")
}

/// Whether a source address alone does not tell the uplink, so that `ip rule from` cannot.
fn shared_source(uplinks: &[Uplink]) -> bool {
    Family::ALL.iter().any(|family| {
        let mut seen = BTreeSet::new();
        let mut legs = uplinks.iter().filter_map(|u| u.leg(*family));
        legs.any(|leg| !seen.insert(leg.source))
    })
}

/// TCP must not announce segments that an uplink cannot carry. Postrouting sees what is
/// forwarded and what this host says. The route's MTU is of no use for what comes in by an
/// uplink, so there its configured one is taken. nft only ever lowers the option.
fn clamp(body: &mut Body, input: &Input) {
    let small = |u: &&Uplink| u.mtu.is_some();
    let names: BTreeSet<String> = input.uplinks.iter().map(|u| quoted(&u.interface)).collect();
    let mut rules = vec![format!(
        "oifname {{ {} }} tcp option maxseg size set rt mtu",
        Vec::from_iter(names).join(", ")
    )];
    for uplink in input.uplinks {
        let Some(mtu) = uplink.mtu else { continue };
        let lower = HEADERS.map(|(family, headers)| {
            let size = mtu.saturating_sub(headers).clamp(1, u16::MAX.into());
            format!("meta nfproto {family} tcp option maxseg size set {size}")
        });
        body.chain(&format!("mss_{}", uplink.id), &lower);
    }
    if input.uplinks.iter().any(|u| small(&u)) {
        let of_small = input.uplinks.iter().filter(small);
        rules.push(dispatch("ct", "mss", of_small, input.mask));
    }
    body.chain("syn", &rules);
    let syn = "tcp flags & (syn | rst) == syn goto syn".to_owned();
    body.base("mss", "filter hook postrouting priority mangle", &[syn]);
}

/// A chain that sees the first packet of every connection once its route is known.
fn postrouting(body: &mut Body, input: &Input) {
    let translate = input.mode == NatMode::Masquerade;
    let mut rules = Vec::new();
    for uplink in input.uplinks {
        for family in Family::ALL {
            let Some(leg) = uplink.leg(family) else {
                continue;
            };
            let taken = taken(uplink, leg, family);
            rules.push(format!("{taken} {}", set_mark("ct", uplink, input.mask)));
            if translate {
                rules.push(format!("{taken} {}", snat(uplink, leg, family)));
            }
        }
    }
    let hook = if translate {
        "nat hook postrouting priority srcnat"
    } else {
        rules.insert(0, "ct state != new accept".into());
        "filter hook postrouting priority mangle"
    };
    body.base("postrouting", hook, &rules);
}

/// Matches what leaves by this uplink.
fn taken(uplink: &Uplink, leg: &Leg, family: Family) -> String {
    let (ip, interface) = (ip(family), quoted(&uplink.interface));
    format!("oifname {interface} rt {ip} nexthop {}", leg.gateway)
}

fn snat(uplink: &Uplink, leg: &Leg, family: Family) -> String {
    let (ip, source) = (ip(family), leg.source);
    match source {
        IpAddr::V4(_) => format!("ip saddr != {source} snat {ip} to {source}"),
        IpAddr::V6(own) => format!("ip6 saddr != {{ {} }} snat {ip} to {source}", kept(uplink, own)),
    }
}

/// IPv6 sources that stay: our own, those that speak link-local to the gateway (DHCPv6, say),
/// and those that prefix translation changes behind nftables.
fn kept(uplink: &Uplink, own: Ipv6Addr) -> String {
    let link_local = Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);
    let mut nets = vec![Ipv6Net::from(own), link_local];
    if let Some(translation) = uplink.translation {
        let length = u8::try_from(translation.length).unwrap_or(u8::MAX);
        let internal = Ipv6Net::new(Ipv6Addr::from(translation.internal.0), length);
        nets.extend(internal.ok().filter(|net| net.prefix_len() > 0));
    }
    // An anonymous set takes no overlapping members.
    let nets = Ipv6Net::aggregate(&nets);
    let plain = |net: &Ipv6Net| match net.prefix_len() {
        128 => net.addr().to_string(),
        _ => net.to_string(),
    };
    let nets: Vec<String> = nets.iter().map(plain).collect();
    nets.join(", ")
}

const fn ip(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}

/// Answers whatever still comes of connections that `reset` put into the sets. Input, too: a
/// host with a firewall would otherwise stay silent. Ahead of other people's filters, which
/// like to drop a connection's middle.
fn reset(body: &mut Body) {
    for (version, ip) in [(4, "ip"), (6, "ip6")] {
        let (address, port) = (format!("ipv{version}_addr"), "inet_service");
        let _ = writeln!(
            body.text,
            "\tset reset{version} {{\n\t\ttype {address} . {port} . {address} . {port}\n\
             \t\tflags timeout\n\t\ttimeout 1m\n\t}}"
        );
        let tuple = format!("{ip} saddr . tcp sport . {ip} daddr . tcp dport");
        let rule = format!("{tuple} @reset{version} reject with tcp reset");
        body.chain(&format!("reset_{version}"), &[rule]);
    }
    let rule = format!("{MIDDLE} meta nfproto vmap {{ ipv4 : goto reset_4, ipv6 : goto reset_6 }}");
    for hook in ["forward", "input"] {
        let base = format!("filter hook {hook} priority mangle");
        body.base(&format!("reset_{hook}"), &base, std::slice::from_ref(&rule));
    }
}

/// What conntrack must not see: packets that reset connections, as a tracked one would make its
/// answer look like a live connection's; and whatever is on its way into the aggregate interface.
/// NAT would bind such a connection before its uplink is known; it is tracked as it comes out.
fn untracked(body: &mut Body, input: &Input, resets: Option<u32>) {
    let mask = input.mask;
    let mut output = Vec::new();
    if let Some(mark) = resets {
        output.push(format!("meta mark & {mask:#010x} == {mark:#010x} notrack"));
    }
    if let Some(outer) = input.aggregate {
        let (outer, inner) = (quoted(outer), quoted(&aggregate::inner(outer)));
        output.push(format!("oifname {outer} notrack"));
        let enters = format!("iifname != {inner} fib daddr . mark oifname {outer} notrack");
        body.base("raw_prerouting", "filter hook prerouting priority raw", &[enters]);
        // Whatever rules others make: no packet goes round in a circle.
        let circle = format!("iifname {inner} oifname {outer} reject with icmpx type no-route");
        body.base("no_circle", "filter hook forward priority mangle", &[circle]);
    }
    body.base("raw_output", "filter hook output priority raw", &output);
}

/// On one NIC the kernel tells IPv6 clients to use the gateway itself, and no sysctl stops it.
fn keep_clients(body: &mut Body, input: &Input) {
    let names = input.uplinks.iter().map(|u| &u.interface).chain(input.lan);
    let names: BTreeSet<String> = names.map(|name| quoted(name)).collect();
    if names.is_empty() {
        return;
    }
    let set = Vec::from_iter(names).join(", ");
    let rule = format!("icmpv6 type nd-redirect oifname {{ {set} }} drop");
    body.base("output", "filter hook output priority filter", &[rule]);
}

#[cfg(test)]
#[path = "tests.rs"]
pub(super) mod tests;
