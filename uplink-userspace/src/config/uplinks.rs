//! The `[[uplink]]` tables: each by itself, then against each other.

use std::ops::Range;

use uplink_common::mark::Mask;
use uplink_common::{Family, MAX_UPLINKS};

use super::addresses;
use super::health::quota;
use super::nat::{self, Inside};
use super::probe::read::{self as probe, Written};
use super::problem::nearest;
use super::reader::{Reader, Refusal, meant, wrong};
use super::{At, Gateway, Kernel, Nat, NextHop, Uplink};

const TITLE: &str = "[[uplink]]";

/// Linux's limit for an interface name, and ours for an uplink's.
const LONGEST_NAME: usize = 15;

/// Tables the kernel itself gives a meaning: unspec, default, main, local.
const KERNEL_TABLES: [u32; 4] = [0, 253, 254, 255];

/// All uplinks that make sense by themselves.
pub(super) fn read(
    top: &mut Reader<'_, '_>,
    kernel: &Kernel,
    mask: At<Mask>,
    nat: &Nat,
    common: &Written,
) -> Vec<Uplink> {
    let absent = !top.has("uplink");
    let tables = top.tables("uplink", TITLE);
    if absent || tables.as_ref().is_some_and(Vec::is_empty) {
        let help = "add an [[uplink]] with name, interface and gateway for each ISP";
        top.missing(&["uplink"], "there is no [[uplink]]", help);
    }
    let inside = Inside::of(top, nat);
    let (mut uplinks, mut lists) = (Vec::new(), Vec::new());
    for (table, position) in tables.unwrap_or_default().into_iter().zip(1..) {
        if position > MAX_UPLINKS {
            let message = format!("more than {MAX_UPLINKS} uplinks");
            let help = format!("this and what follows: at most {MAX_UPLINKS} [[uplink]] tables");
            top.complain(table.span, message, help);
            break;
        }
        let reader = Reader::new(TITLE, table.value, table.span, top.problems);
        if let Some((uplink, list)) = one(reader, position, &inside, common) {
            uplinks.push(uplink);
            lists.push(list);
        }
    }
    probe::reachable(top, &uplinks, &lists);
    some_enabled(top, &uplinks);
    fits(top, &uplinks, mask);
    for (i, uplink) in uplinks.iter().enumerate() {
        own_table(top, uplink, kernel);
        for earlier in &uplinks[..i] {
            differ(top, earlier, uplink);
        }
    }
    uplinks
}

/// The uplink, and where the targets of its probe stand.
fn one(
    mut table: Reader<'_, '_>,
    position: u32,
    inside: &Inside,
    common: &Written,
) -> Option<(Uplink, Range<usize>)> {
    let letters = "1 to 15 bytes: letters, digits and punctuation but / \\ and \"";
    let name = table.required("name", letters, word);
    let existing = "the name of a network interface, such as \"eth0\"";
    let interface = table.required("interface", existing, interface_name);
    let v4 = gateway(&mut table, Family::V4);
    let v6 = gateway(&mut table, Family::V6);
    let weight = table.integer("weight", 1..=1000, "an integer from 1 to 1000");
    let tier = table.integer(
        "tier",
        0..=255,
        "an integer from 0 to 255, lower is preferred: a backup has 2, say",
    );
    let mtu = mtu(&mut table);
    let prefix6 = nat::of_uplink(&mut table, inside);
    let ids = "an integer from 1 to 4294967295";
    let number = table.integer("table", 1..=u32::MAX, ids);
    let enabled = table.boolean("enabled");
    let probe = probe::of_uplink(&mut table, common);
    let capacity = quota::capacity(&mut table);
    let quota = quota::quota(&mut table);
    if !table.has("gateway") && !table.has("gateway6") {
        let help = "add gateway, gateway6 or both: the ISP router's address, or \"auto\"";
        table.missing(&["gateway", "gateway6"], "the uplink has no gateway", help);
    }
    table.finish();
    let default = At {
        value: 20_000 + position,
        span: 0..0,
    };
    let uplink = Uplink {
        name: name?,
        interface: interface?,
        v4,
        v6,
        weight: weight.map_or(1, |n| n.value),
        tier: tier.map_or(1, |n| n.value),
        mtu,
        prefix6,
        table: number.unwrap_or(default),
        enabled: enabled.is_none_or(|e| e.value),
        probe: probe.probe,
        target_spans: probe.places,
        capacity,
        quota,
    };
    Some((uplink, probe.list))
}

fn mtu(table: &mut Reader<'_, '_>) -> Option<u32> {
    if table.has("gateway6") {
        let allowed = "an integer from 1280, which IPv6 needs, to 65535";
        return table.integer("mtu", 1280..=65_535, allowed).map(|n| n.value);
    }
    let read = table.integer("mtu", 576..=65_535, "an integer from 576 to 65535");
    read.map(|n| n.value)
}

fn gateway(table: &mut Reader<'_, '_>, family: Family) -> Option<Gateway> {
    let (key, source_key, allowed) = match family {
        Family::V4 => ("gateway", "source", "an IPv4 address such as \"192.168.1.1\""),
        Family::V6 => ("gateway6", "source6", "an IPv6 address such as \"fd00:1::1\""),
    };
    let or_auto = format!("{allowed}, or \"auto\": the one of the interface's default route");
    let address = table.parsed(key, &or_auto, |text| next_hop(text, family));
    let source = table.parsed(source_key, allowed, |text| addresses::source(text, family));
    if let Some(source) = source.as_ref().filter(|_| !table.has(key)) {
        let message = format!("{source_key} without {key}");
        table.complain(source.span.clone(), message, format!("add {key} or remove this"));
    }
    let gateway = Gateway {
        address: address?,
        source,
    };
    if let Some(source) = &gateway.source
        && NextHop::Fixed(source.value) == gateway.address.value
    {
        let message = format!("{source_key} {} is the gateway itself", source.value);
        let help = "an address of this host, or remove it to have it found";
        table.complain(source.span.clone(), message, help);
    }
    Some(gateway)
}

fn next_hop(text: &str, family: Family) -> Result<NextHop, Refusal> {
    match text {
        "auto" => Ok(NextHop::Auto),
        _ if nearest(text, ["auto"].into_iter()).is_some() => Err(meant("is not an IP address", "\"auto\"")),
        _ => addresses::of_family(text, family, ["gateway", "gateway6"]).map(NextHop::Fixed),
    }
}

fn word(text: &str) -> Result<String, Refusal> {
    word_of(LONGEST_NAME, text)
}

/// A name of 1 to `longest` bytes.
pub(super) fn word_of(longest: usize, text: &str) -> Result<String, Refusal> {
    let printable = |c: char| c.is_alphanumeric() || c.is_ascii_graphic();
    if text.is_empty() {
        return Err(wrong("is empty"));
    }
    if text.len() > longest {
        return Err(wrong(format!("has {} bytes, more than {longest}", text.len())));
    }
    // A quote or backslash would not survive in the files and scripts that carry names.
    match text.chars().find(|c| !printable(*c) || "/\\\"".contains(*c)) {
        Some(c) => Err(wrong(format!("contains {c:?}"))),
        None => Ok(text.into()),
    }
}

/// A name that Linux allows for an interface, without nftables' wildcard.
pub(super) fn interface_name(text: &str) -> Result<String, Refusal> {
    let name = word(text)?;
    match name.chars().find(|c| ":*".contains(*c)) {
        Some(c) => Err(wrong(format!("contains {c:?}, which no interface here can have"))),
        None if name == "." || name == ".." => Err(wrong("is not an interface name")),
        None => Ok(name),
    }
}

/// Whoever disables everything has no way to the Internet left.
fn some_enabled(top: &mut Reader<'_, '_>, uplinks: &[Uplink]) {
    // An uplink that was refused may be the one that is enabled.
    if let Some(first) = uplinks.first().filter(|_| top.problems.is_empty())
        && uplinks.iter().all(|u| !u.enabled)
    {
        let help = "remove `enabled = false` from at least one [[uplink]]";
        top.complain(first.name.span.clone(), "every uplink is disabled", help);
    }
}

fn fits(top: &mut Reader<'_, '_>, uplinks: &[Uplink], mask: At<Mask>) {
    let most = mask.value.max_id();
    if uplinks.len() > most as usize {
        let bits = mask.value.bits();
        let message = format!(
            "fwmark_mask {bits:#x} has room for {most} of {} uplinks",
            uplinks.len()
        );
        top.complain(mask.span, message, "a mask with more bits; the default holds 127");
    }
}

fn own_table(top: &mut Reader<'_, '_>, uplink: &Uplink, kernel: &Kernel) {
    let (name, table) = (&uplink.name.value, uplink.table.value);
    let owner = match table {
        table if KERNEL_TABLES.contains(&table) => "the kernel's own",
        table if table == kernel.rule_priority => "the catch-all's: it has the number of rule_priority",
        _ => return,
    };
    let message = format!("table {table} of uplink {name} is {owner}");
    let help = "table = any number of 1 to 4294967295 but 253, 254, 255 and rule_priority";
    top.complain(uplink.table_span(), message, help);
}

fn differ(top: &mut Reader<'_, '_>, earlier: &Uplink, uplink: &Uplink) {
    let (first, name) = (&earlier.name.value, &uplink.name.value);
    if first == name {
        let message = format!("the name {name} is taken by an earlier uplink");
        let help = "each uplink needs a name of its own, such as the provider's";
        top.complain(uplink.name.span.clone(), message, help);
    }
    if earlier.table.value == uplink.table.value {
        let message = format!("uplinks {first} and {name} share table {}", uplink.table.value);
        let help = "each uplink needs a table of its own; without `table` it has 20000 + position";
        top.complain(uplink.table_span(), message, help);
    }
    if let (Some(a), Some(b)) = (&earlier.prefix6, &uplink.prefix6)
        && a.external.value == b.external.value
    {
        let message = format!(
            "uplinks {first} and {name} have the same prefix6 {}",
            b.external.value
        );
        let help = "each provider routes a prefix of its own";
        top.complain(b.external.span.clone(), message, help);
    }
    if earlier.interface.value != uplink.interface.value {
        return;
    }
    for (a, b) in [(&earlier.v4, &uplink.v4), (&earlier.v6, &uplink.v6)] {
        let (Some(a), Some(b)) = (a, b) else { continue };
        if a.address.value == b.address.value {
            same_gateway(top, &b.address, [first, name], &uplink.interface.value);
        }
    }
}

fn same_gateway(top: &mut Reader<'_, '_>, gateway: &At<NextHop>, [first, name]: [&str; 2], interface: &str) {
    let (message, help) = match gateway.value {
        NextHop::Fixed(address) => (
            format!("uplinks {first} and {name} have the same gateway {address} on {interface}"),
            "each uplink needs another gateway or interface; for a larger share, raise weight",
        ),
        NextHop::Auto => (
            format!("uplinks {first} and {name} both follow the default route of {interface}"),
            "name the gateway of one of them, or another interface",
        ),
    };
    top.complain(gateway.span.clone(), message, help);
}
