//! Rules of others where ours are, and sysctls.

use std::collections::BTreeSet;

use super::{Facts, Finding, Setting, finding};
use crate::config::Kernel;
use crate::doctor::Severity::{Blocks, Fine, Warns};
use crate::doctor::facts::Daemon;
use crate::host::{ForeignRule, Host};
use crate::plan::BLOCK;
use crate::sysctl::Change;
use uplink_common::Family;

/// Sysctls that people ask about, by the end of their path.
const KNOWN: [(&str, &[&str]); 3] = [
    ("forwarding", &["/ip_forward", "/forwarding"]),
    ("rp-filter", &["/rp_filter"]),
    ("accept-ra", &["/accept_ra"]),
];

pub(super) fn all(facts: &Facts, setting: &Setting<'_>) -> Vec<Finding> {
    let mut found = in_block(setting.kernel, setting.host);
    found.extend(sysctls(facts, &setting.asked.sysctls));
    found.extend(strict(facts, setting));
    found
}

fn in_block(kernel: &Kernel, host: &Host) -> Vec<Finding> {
    let (first, last) = (kernel.rule_priority, kernel.rule_priority + BLOCK - 1);
    let inside = host.rules.iter().filter(|r| (first..=last).contains(&r.priority));
    let one = |rule: &ForeignRule| {
        let text =
            format!("the rule `{rule}` of somebody else is in our block of priorities, {first} to {last}");
        let remedy =
            format!("give it another priority, or set [kernel] rule_priority to another number than {first}");
        finding("rule-in-block", Warns, text, remedy)
    };
    inside.map(one).collect()
}

/// A start sets them; while a daemon runs somebody works against it.
fn sysctls(facts: &Facts, changes: &[Change]) -> Vec<Finding> {
    if changes.is_empty() {
        return Vec::new();
    }
    if facts.user.sysctls == Some(false) {
        let set: Vec<String> = changes.iter().map(|c| format!("{}={}", c.path, c.to)).collect();
        let text = format!(
            "/proc/sys cannot be written here, and {} are not as they must be",
            set.len()
        );
        let remedy = format!("where it can be written: sysctl -w {}", set.join(" "));
        return vec![finding("sysctl-read-only", Blocks, text, remedy)];
    }
    let runs = matches!(facts.daemon, Daemon::Runs(_));
    let known = KNOWN.iter().filter_map(|(code, ends)| {
        let of = |c: &&Change| ends.iter().any(|end| c.path.ends_with(end));
        let of: Vec<String> = changes.iter().filter(of).map(|c| described(c, runs)).collect();
        (!of.is_empty()).then(|| sysctl(code, &of.join(", "), runs))
    });
    known.collect()
}

fn described(change: &Change, runs: bool) -> String {
    let Change { path, from, to } = change;
    match runs {
        true => format!("{path} is {from}, not {to}"),
        false => format!("{path} is {from} and becomes {to}"),
    }
}

fn sysctl(code: &str, what: &str, runs: bool) -> Finding {
    match runs {
        true => finding(
            code,
            Warns,
            format!("{what}: somebody changes it while uplink runs, which puts it back every five seconds"),
            "find who: grep -rE 'forward|rp_filter|accept_ra' /etc/sysctl.conf /etc/sysctl.d /etc/ufw/sysctl.conf",
        ),
        false => finding(
            code,
            Fine,
            format!("{what} when uplink starts"),
            "nothing to do: a stop puts it back",
        ),
    }
}

/// With one interface it stays strict, since all comes in there. Without NAT main's default route then
/// has to lead there as well; with it our rules for the uplinks' own addresses do.
fn strict(facts: &Facts, setting: &Setting<'_>) -> Vec<Finding> {
    let defaults = setting.host.default_routes.iter();
    let best = defaults
        .filter(|r| r.family == Family::V4)
        .min_by_key(|r| r.metric);
    let (Some(best), false) = (best, setting.nat) else {
        return Vec::new();
    };
    let changes = &setting.asked.sysctls;
    let mut seen = BTreeSet::new();
    for u in setting.uplinks.iter().filter(|u| u.v4.is_some()) {
        let path = format!("net/ipv4/conf/{}/rp_filter", u.interface);
        let is_strict = facts.rp_filter.get(&u.interface) == Some(&1);
        let becomes_loose = changes.iter().any(|c| c.path == path);
        if is_strict && !becomes_loose && best.ifindex != u.ifindex {
            seen.insert(path);
        }
    }
    let one = |path: String| {
        let text = format!(
            "{path} is strict, and the main table's default route leads elsewhere: what comes from the Internet is dropped"
        );
        finding("rp-filter", Warns, text, format!("sysctl -w {path}=2"))
    };
    seen.into_iter().map(one).collect()
}
