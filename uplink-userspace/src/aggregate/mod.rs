//! The interface that stands for all uplinks: a veth pair in this namespace. What is routed into
//! the outer end comes out of the inner one and is steered there like a LAN's traffic.
//!
//! Every packet passes the host twice. The first pass is not tracked by conntrack, since its NAT
//! would bind the connection to no uplink; the second is like anybody's.

mod device;
#[cfg(test)]
mod tests;

use uplink_common::Family;

use crate::config::{At, Config, Kernel, Problem};
use crate::host::{Action as Foreign, ForeignRule, Host, MAIN};
use crate::plan::{self, Action, Rule, Selector};
use crate::resolve::Uplink;
use crate::status::Warning;

pub(crate) use device::is_ours;
pub use device::{ensure, remove_others};

/// The longest interface name, in bytes.
const LONGEST_NAME: usize = 15;
/// What tells the inner end's name from the outer's.
const SUFFIX: &str = "-in";
/// So many rules stand in front of everybody else's.
const FRONT: u32 = 2;
/// The MTU while no uplink's is known.
const USUAL_MTU: u32 = 1500;

/// The name of the inner end.
#[must_use]
pub fn inner(outer: &str) -> String {
    let room = LONGEST_NAME - SUFFIX.len();
    let cut = (0..=room.min(outer.len()))
        .rev()
        .find(|n| outer.is_char_boundary(*n));
    let start = outer.get(..cut.unwrap_or(0)).unwrap_or_default();
    format!("{start}{SUFFIX}")
}

/// The index of the inner end, where our own packets come in again.
#[must_use]
pub fn inner_index(host: &Host) -> Option<u32> {
    let outer = host
        .interfaces
        .iter()
        .find(|i| host.aggregates.contains(&i.index))?;
    Some(host.interface(&inner(&outer.name))?.index)
}

/// The outer end's name, where there is one.
#[must_use]
pub fn outer(config: &Config) -> Option<&str> {
    config.mpath.as_ref().map(|m| m.interface.value.as_str())
}

/// The group of the outer end: our own view of `main` leaves out routes by it, which would lead
/// back to where the packet came from.
#[must_use]
pub const fn group(kernel: &Kernel) -> u32 {
    kernel.rule_priority
}

/// The MTU that the largest of the uplinks can carry. `of` knows the interfaces' own.
#[must_use]
pub fn largest_mtu(uplinks: &[Uplink], of: impl Fn(u32) -> Option<u32>) -> u32 {
    let mtus = uplinks.iter().filter_map(|u| u.mtu.or_else(|| of(u.ifindex)));
    mtus.max().unwrap_or(USUAL_MTU)
}

/// The rules for what comes out of the inner end, beside `rules`, which are for everybody.
///
/// It has been through all rules once, so nobody else's is asked again: one that led into the
/// interface would match for ever. Connected networks and `main`'s other specific routes first;
/// then the marks and this host's addresses; then the multipath table; then nothing.
#[must_use]
pub fn rules(outer: &str, rules: &[Rule], host: &Host, kernel: &Kernel) -> Vec<Rule> {
    let inner = inner(outer);
    let first = front(&inner, host, kernel);
    let of = |family| {
        Some(of_family(
            family,
            first_mark(family, rules)?,
            &inner,
            first,
            kernel,
        ))
    };
    let all: Vec<Vec<Rule>> = Family::ALL.into_iter().filter_map(of).collect();
    all.concat()
}

/// Where the marks begin; `None`: the family has no uplinks.
fn first_mark(family: Family, rules: &[Rule]) -> Option<u32> {
    let marked = |r: &&Rule| r.family == family && matches!(r.selector, Selector::Mark { .. });
    rules.iter().filter(marked).map(|r| r.priority).min()
}

fn of_family(family: Family, marks: u32, inner: &str, first: u32, kernel: &Kernel) -> Vec<Rule> {
    let rule = |priority, action| Rule {
        family,
        priority,
        selector: Selector::Iif(inner.to_owned()),
        action,
        suppress_prefixlength: None,
        suppress_ifgroup: None,
    };
    let main = Rule {
        suppress_prefixlength: Some(0),
        suppress_ifgroup: Some(group(kernel)),
        ..rule(first, Action::Table(MAIN))
    };
    let last = kernel.rule_priority + plan::AGGREGATE_RULES;
    vec![
        main,
        rule(first + 1, Action::Goto(marks)),
        rule(last, Action::Table(kernel.rule_priority)),
        rule(last + 1, Action::Unreachable),
    ]
}

/// The first of two places in front of our block and of everybody's rules that may take what
/// comes out of the inner end. A rule that is added without a priority gets one below all others,
/// ours too, so these places move.
fn front(inner: &str, host: &Host, kernel: &Kernel) -> u32 {
    let taking = host.rules.iter().filter(|r| may_take(r, inner));
    let lowest = taking.map(|r| r.priority).filter(|p| *p > FRONT).min();
    let before = lowest.map_or(kernel.rule_priority, |p| p.min(kernel.rule_priority));
    before.saturating_sub(FRONT).max(1)
}

fn may_take(rule: &ForeignRule, inner: &str) -> bool {
    let elsewhere = rule.iif.as_deref().is_some_and(|name| name != inner) && !rule.inverted;
    !(elsewhere || rule.l3mdev || matches!(rule.action, Foreign::Nop))
}

/// One warning for each rule that leads into the interface by where packets come in. nftables
/// asks for a packet's route without that, so such packets are tracked too early for NAT.
#[must_use]
pub fn warnings(host: &Host) -> Vec<Warning> {
    let enters = |rule: &&ForeignRule| match rule.action {
        Foreign::Table(table) => host.entering.contains(&(rule.family, table)),
        _ => false,
    };
    let by_entry = |rule: &&ForeignRule| rule.iif.as_deref().is_some_and(|name| name != "lo");
    let rules = host.rules.iter().filter(enters).filter(by_entry);
    let warning = |rule: &ForeignRule| Warning {
        code: "mpath-iif".into(),
        text: format!("the rule `{rule}` leads into the aggregate interface, but NAT cannot foresee it"),
        remedy: "make it a rule `from` the network's prefix instead of `iif`".into(),
    };
    rules.map(warning).collect()
}

/// What the file asks for and this host contradicts.
pub(crate) fn problems(config: &Config, host: &Host, problems: &mut Vec<Problem>) {
    let Some(mpath) = &config.mpath else { return };
    let name = &mpath.interface;
    let inner = inner(&name.value);
    let mut complain = |message: String, help: &str| {
        problems.push(Problem::new(name.span.clone(), message, help));
    };
    if inner == name.value {
        let help = "a shorter name, such as \"mpath0\"";
        return complain(format!("{inner} is what its own inner end would be called"), help);
    }
    if config.kernel.rule_priority <= FRONT {
        let help = "set [kernel] rule_priority to 3 or more";
        complain(
            "rule_priority leaves no room for two rules in front of it".into(),
            help,
        );
    }
    for end in [&name.value, &inner] {
        if uses(config, end) {
            let help = "another name: the interface is made by uplink and stands for all uplinks";
            complain(
                format!("{end} is named as an interface of an uplink or of [lan], too"),
                help,
            );
        }
        let foreign = host
            .interface(end)
            .filter(|i| !host.aggregates.contains(&i.index));
        if foreign.is_some() {
            let help = format!("another name, or remove that one: `ip link del {end}`");
            complain(format!("interface {end} exists and is not uplink's"), &help);
        }
    }
}

fn uses(config: &Config, name: &str) -> bool {
    let is = |at: &At<String>| at.value == name;
    config.lan.iter().any(is) || config.uplinks.iter().any(|u| is(&u.interface))
}
