//! The tables that are not uplinks: each read over its defaults.

use std::hash::Hasher as _;
use std::time::Duration;

use siphasher::sip::SipHasher13;
use uplink_common::Seed;
use uplink_common::mark::Mask;

use super::reader::{Reader, Refusal, meant, time_span, wrong};
use super::uplinks::interface_name;
use super::{At, Attach, Kernel, Local, Mode};

pub(super) fn lan(top: &mut Reader<'_, '_>) -> Vec<At<String>> {
    let Some(mut lan) = top.table("lan", "[lan]") else {
        return Vec::new();
    };
    let allowed = "names of interfaces, such as [\"eth0\"]";
    let interfaces = lan.list("interfaces", allowed, interface_name);
    lan.finish();
    interfaces.map_or_else(Vec::new, |list| list.value)
}

/// Steered unless told otherwise: this host's connections are as much users' traffic as any.
pub(super) fn local(top: &mut Reader<'_, '_>) -> Local {
    let mut local = Local {
        enabled: true,
        cgroup: At {
            value: "/".into(),
            span: 0..0,
        },
    };
    if let Some(mut table) = top.table("local", "[local]") {
        let enabled = table.boolean("enabled");
        local.enabled = enabled.is_none_or(|e| e.value);
        let allowed = "a path below the cgroup v2 mount, such as \"/\" or \"/system.slice\"";
        local.cgroup = table.parsed("cgroup", allowed, cgroup).unwrap_or(local.cgroup);
        table.finish();
    }
    local
}

/// A path below the cgroup v2 mount.
pub(super) fn cgroup(text: &str) -> Result<String, Refusal> {
    if !text.starts_with('/') {
        return Err(wrong("does not start with \"/\""));
    }
    if text.split('/').any(|part| part == "..") {
        return Err(wrong("contains \"..\""));
    }
    match text.chars().find(|c| c.is_control()) {
        Some(c) => Err(wrong(format!("contains {c:?}"))),
        None => Ok(text.into()),
    }
}

/// The numbers, and where the mask and the mode stand.
pub(super) fn kernel(top: &mut Reader<'_, '_>) -> (Kernel, At<Mask>, At<Mode>) {
    let default = Mask::new(0x7f00_0000).expect("contiguous bits");
    let mut mask = At {
        value: default,
        span: 0..0,
    };
    let mut kernel = Kernel {
        fwmark_mask: default,
        rule_priority: 20_000,
        protocol: 117,
        attach: Attach::Auto,
        suits_fast: false,
        mode: Mode::Auto,
        flows: 262_144,
        stale_after: None,
        seed: None,
    };
    let mut mode = At {
        value: kernel.mode,
        span: 0..0,
    };
    if let Some(mut table) = top.table("kernel", "[kernel]") {
        mask = fwmark_mask(&mut table).unwrap_or(mask);
        kernel.fwmark_mask = mask.value;
        fill_kernel(&mut table, &mut kernel);
        mode = table.one_of("mode", &MODES).unwrap_or(mode);
        kernel.mode = mode.value;
        table.finish();
    }
    (kernel, mask, mode)
}

const MODES: [(&str, Option<Mode>); 3] = [
    ("auto", Some(Mode::Auto)),
    ("mark", Some(Mode::Mark)),
    ("nexthop", Some(Mode::NextHop)),
];

fn fill_kernel(table: &mut Reader<'_, '_>, kernel: &mut Kernel) {
    // Behind the block of 256 comes the rule for everything else.
    const LAST: u32 = 32_765 - 256;
    let allowed = format!("an integer from 1 to {LAST}, the first of a block of 256");
    let priority = table.integer("rule_priority", 1..=LAST, &allowed);
    kernel.rule_priority = priority.map_or(kernel.rule_priority, |n| n.value);
    kernel.protocol = protocol(table).unwrap_or(kernel.protocol);
    let hooks = [
        ("auto", Some(Attach::Auto)),
        ("tcx", Some(Attach::Tcx)),
        ("clsact", Some(Attach::Clsact)),
        ("xdp", Some(Attach::Xdp)),
    ];
    let attach = table.one_of("attach", &hooks);
    kernel.attach = attach.map_or(kernel.attach, |a| a.value);
    let flows = table.integer("flows", 1024..=4_194_304, "an integer from 1024 to 4194304");
    kernel.flows = flows.map_or(kernel.flows, |n| n.value);
    kernel.stale_after = stale_after(table);
    let allowed = "8 to 128 characters, kept secret, the same on all routers that choose alike";
    kernel.seed = table.parsed("seed", allowed, seed).map(|at| at.value);
}

/// Two hashes of the text: whoever knows the seed can choose flows that all take one uplink, so it is
/// as secret as a random one would be, and as long as its author made it.
fn seed(text: &str) -> Result<Seed, Refusal> {
    if !(8..=128).contains(&text.chars().count()) {
        return Err(wrong("is too short or too long"));
    }
    let half = |number| {
        let mut hash = SipHasher13::new_with_keys(number, 0);
        hash.write(text.as_bytes());
        hash.finish()
    };
    Ok(Seed {
        k0: half(0),
        k1: half(1),
    })
}

fn stale_after(table: &mut Reader<'_, '_>) -> Option<Duration> {
    let range = Duration::from_secs(5)..=Duration::from_secs(24 * 3600);
    let read = table.parsed(
        "stale_after",
        "\"never\", or 5s to 24h, such as \"1min\"",
        |text| match text {
            "never" => Ok(None),
            text => time_span(text, &range).map(Some),
        },
    );
    read.and_then(|at| at.value)
}

fn protocol(table: &mut Reader<'_, '_>) -> Option<u8> {
    let allowed = "an integer from 5 to 255 without 186 to 192, which routing daemons use";
    let read = table.integer("protocol", 5..=255, allowed)?;
    if (186..=192).contains(&read.value) {
        let message = format!("protocol {} belongs to a routing daemon", read.value);
        table.complain(read.span, message, allowed);
        return None;
    }
    u8::try_from(read.value).ok()
}

fn no_hexadecimal(text: &str) -> Refusal {
    let why = "is not a hexadecimal number";
    let digits = text.bytes().all(|b| b.is_ascii_hexdigit());
    match u32::from_str_radix(text, 16).ok().filter(|_| digits) {
        Some(bits) => meant(why, format!("\"{bits:#x}\"")),
        None => wrong(why),
    }
}

fn fwmark_mask(table: &mut Reader<'_, '_>) -> Option<At<Mask>> {
    let key = "fwmark_mask";
    let allowed = "one run of set bits within 32, such as \"0x7f000000\"";
    if table.is_integer(key) {
        let bits = table.integer(key, 1..=u32::MAX, allowed)?;
        let Some(value) = Mask::new(bits.value) else {
            let message = format!("{key} {:#x} has a hole", bits.value);
            table.complain(bits.span, message, allowed);
            return None;
        };
        return Some(At {
            value,
            span: bits.span,
        });
    }
    table.parsed(key, allowed, |text| {
        let digits = text
            .strip_prefix("0x")
            .filter(|d| d.starts_with(|c: char| c != '+'));
        let bits = digits.and_then(|d| u32::from_str_radix(d, 16).ok());
        let bits = bits.ok_or_else(|| no_hexadecimal(text))?;
        Mask::new(bits).ok_or_else(|| wrong("is not one run of set bits"))
    })
}
