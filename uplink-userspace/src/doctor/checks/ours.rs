//! What is there of ours: the daemon, its pins, its rules and routes.

use serde_json::Value;

use super::{Asked, Facts, Finding, Setting, finding};
use crate::doctor::Severity::{Blocks, Warns};
use crate::doctor::facts::{Daemon, Pins};
use uplink_common::ABI;

pub(super) fn daemon(facts: &Facts) -> Vec<Finding> {
    let mut found = match &facts.daemon {
        Daemon::Runs(status) => told(status),
        Daemon::Gone => vec![finding(
            "daemon-gone",
            Warns,
            "no daemon runs, but what one has left steers on with the last table, whatever fails",
            "systemctl start uplink, or take it all away: uplink down",
        )],
        Daemon::Silent(how) => vec![finding(
            "daemon-silent",
            Warns,
            format!("the daemon does not answer as it should: {how}"),
            "journalctl -u uplink -n 50; then: systemctl restart uplink",
        )],
        Daemon::Absent | Daemon::Unseen(_) => Vec::new(),
    };
    found.extend(pins(facts));
    found
}

/// What the daemon warns of, and the uplinks that are down.
fn told(status: &Value) -> Vec<Finding> {
    let list = |key: &str| status[key].as_array().into_iter().flatten();
    let word = |of: &Value, key: &str| of[key].as_str().unwrap_or_default().to_owned();
    let down = list("uplinks").filter(|u| u["state"] == "down");
    let down = down.map(|u| {
        let text = format!("uplink {} is down: {}", word(u, "name"), word(u, "reason"));
        finding("uplink-down", Warns, text, "uplink events; uplink status")
    });
    let warnings = list("warnings");
    let warnings = warnings.map(|w| finding(&word(w, "code"), Warns, word(w, "text"), word(w, "remedy")));
    down.chain(warnings).collect()
}

fn pins(facts: &Facts) -> Option<Finding> {
    let Pins::Other(abi) = facts.pins else { return None };
    let path = facts.bpffs.path.display();
    let text = format!("{path} has maps of another version (layout {abi}, this program has {ABI})");
    let remedy = "uplink down && systemctl start uplink";
    Some(finding("pins-old", Blocks, text, remedy))
}

pub(super) fn unseen(facts: &Facts) -> impl Iterator<Item = &str> {
    let daemon = match &facts.daemon {
        Daemon::Unseen(why) => Some(why.as_str()),
        _ => None,
    };
    let pins = match &facts.pins {
        Pins::Unseen(why) => Some(why.as_str()),
        _ => None,
    };
    daemon.into_iter().chain(pins)
}

/// Whether the programs have a place.
pub(super) fn attach(asked: &Asked) -> Vec<Finding> {
    let hook = asked.attach.iter();
    let hook = hook.map(|why| finding("attach", Blocks, why.clone(), "[kernel] attach = \"auto\""));
    let cgroup = asked.cgroup.iter().map(|why| {
        let remedy = "correct [local] cgroup, or set [local] enabled = false";
        let text = format!("this host's own connections cannot be steered: {why}");
        finding("cgroup", Warns, text, remedy)
    });
    hook.chain(cgroup).collect()
}

/// Where nobody of us has been, what has our protocol is somebody else's, and we would delete it.
pub(super) fn tagged(facts: &Facts, setting: &Setting<'_>) -> Option<Finding> {
    let protocol = setting.kernel.protocol;
    let named = facts.protocols.get(&protocol);
    if let Some(name) = named {
        let text = format!("/etc/iproute2 calls routing protocol {protocol}, which is ours, `{name}`");
        let remedy = "give [kernel] protocol another number from 5 to 255";
        return Some(finding("protocol-in-use", Warns, text, remedy));
    }
    let nobody = matches!(facts.daemon, Daemon::Absent) && matches!(facts.pins, Pins::Nothing);
    let text = format!(
        "{} rules and routes have protocol {protocol}, which is ours, though no daemon has been here",
        setting.asked.tagged
    );
    let remedy = format!(
        "see `ip rule show proto {protocol}` and `ip route show table all proto {protocol}`; \
         leftovers go with `uplink down`, else change [kernel] protocol"
    );
    (nobody && setting.asked.tagged > 0).then(|| finding("protocol-in-use", Warns, text, remedy))
}
