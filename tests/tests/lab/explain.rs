//! What `uplink explain` says comes true.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use uplink_lab::daemon::{run, said};
use uplink_lab::topology::elsewhere;
use uplink_lab::traffic::{Flow, How, host_udp, udp_like};
use uplink_lab::{Config, Daemon, Family, Isp, Lab, Shape};

use crate::host::Host;
use crate::policies::{config, start};
use crate::support::lab;

const SECOND: Duration = Duration::from_secs(1);
/// Flows of each family.
const FLOWS: u16 = 40;

/// By destination, port and code point; what none of them takes is balanced.
const POLICIES: &str = "
[[policy]]
name = \"own\"
match = { iif = \"lo\", not = { dport = 9 } }
use = \"isp2\"
[[policy]]
name = \"near\"
match = { dst = [\"198.18.0.0/28\", \"2001:db8:18::/124\"], not = { dscp = \"ef\" } }
use = \"isp2\"
[[policy]]
name = \"ordered\"
match = { proto = \"udp\", dst = [\"198.18.0.16/28\", \"2001:db8:18::10/124\"] }
use = [\"isp1\", \"isp2\"]
[[policy]]
name = \"never\"
match = { proto = \"sctp\" }
strict = true
use = \"isp1\"
";

/// Of every sort some.
fn flows() -> Vec<Flow> {
    let of = |family| {
        (0..FLOWS).map(move |n| {
            let flow = Flow::fresh(family).to_address(elsewhere(family, n));
            flow.code_point(if n % 5 == 0 { 46 } else { 0 })
        })
    };
    Family::ALL.into_iter().flat_map(of).collect()
}

/// The answer about a UDP flow.
pub fn ask(lab: &Lab, more: &[&str], ends: [&str; 2]) -> Result<Value> {
    let arguments = [&["explain", "--json", "--proto", "udp"], more, &ends].concat();
    let output = run(lab, &arguments)?;
    ensure!(output.status.success(), "{arguments:?}: {}", said(&output));
    serde_json::from_slice(&output.stdout).with_context(|| said(&output))
}

/// With the code point, 46 where `of` is among the flows that have it.
fn asked(lab: &Lab, flow: &Flow, at: usize) -> Result<Value> {
    let [from, to] = flow.ends().map(|end| end.to_string());
    let dscp = if (at % usize::from(FLOWS)).is_multiple_of(5) {
        "46"
    } else {
        "0"
    };
    ask(lab, &["--dscp", dscp], [&from, &to])
}

/// By which ISP a flow goes.
fn sent(lab: &Lab, flow: Flow) -> Result<Isp> {
    let tally = udp_like(&lab.client, 1, |_| flow)?;
    match tally.by_isp {
        [1, 0] => Ok(Isp::One),
        [0, 1] => Ok(Isp::Two),
        _ => anyhow::bail!("{flow:?}: {tally:?}"),
    }
}

fn only(candidates: &Value) -> Result<&str> {
    let all = candidates.as_array().context("no candidates")?;
    ensure!(all.len() == 1, "several: {candidates}");
    all[0]["uplink"].as_str().context("no name")
}

/// Where flows go, by which policy, and where they go when an uplink dies.
pub fn comes_true() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = start(&lab, POLICIES)?;
    let flows = flows();
    let (mut told, mut policies) = (Vec::new(), std::collections::BTreeMap::<String, u32>::new());
    for (at, flow) in flows.iter().enumerate() {
        let answer = asked(&lab, flow, at)?;
        let uplink = answer["uplink"].as_str().with_context(|| answer.to_string())?;
        let isp = sent(&lab, *flow)?;
        ensure!(uplink == isp.name(), "{flow:?} went by {isp:?}: {answer}");
        let policy = answer["policy"]["name"].as_str().unwrap_or("none");
        *policies.entry(policy.to_owned()).or_default() += 1;
        let pinned = asked(&lab, flow, at)?;
        ensure!(
            pinned["pin"]["uplink"] == uplink && pinned["reason"] == "pinned",
            "its pin: {pinned}"
        );
        told.push(pinned);
    }
    println!("    {} flows as told, by policy: {policies:?}", flows.len());
    ensure!(
        policies.len() == 3 && policies.values().all(|n| *n >= 8),
        "{policies:?}"
    );
    lab.blackhole(Isp::One)?;
    daemon.await_state(Isp::One, "down", 10 * SECOND)?;
    for (flow, told) in flows.iter().zip(&told) {
        let if_down = told["if_down"].as_array().context("no if_down")?;
        let told = if_down
            .iter()
            .find(|d| d["uplink"] == "isp1")
            .context("no isp1")?;
        let isp = sent(&lab, *flow)?;
        ensure!(
            only(&told["candidates"])? == isp.name(),
            "{flow:?} went by {isp:?}: {told}"
        );
    }
    let text = run(&lab, &["explain", "172.16.0.2:5000", "198.18.0.3:7001"])?;
    println!("{}", String::from_utf8_lossy(&text.stdout));
    ensure!(text.status.success(), "{}", said(&text));
    lab.heal(Isp::One)?;
    daemon.stop()
}

/// The maps that a killed daemon left tell the same.
pub fn without_daemon() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = start(&lab, POLICIES)?;
    daemon.end(Signal::SIGKILL, SECOND)?;
    for (at, flow) in flows().iter().enumerate().step_by(3) {
        let answer = asked(&lab, flow, at)?;
        let isp = sent(&lab, *flow)?;
        ensure!(
            answer["uplink"] == isp.name() && answer["daemon"] == false,
            "{flow:?} went by {isp:?}: {answer}"
        );
    }
    let output = run(&lab, &["down"])?;
    ensure!(output.status.success(), "{}", said(&output));
    Ok(())
}

/// This host's own, what is not ours, and wrong questions.
pub fn sockets() -> Result<()> {
    let host = Host::build()?;
    let lab = &host.lab;
    let config = Config {
        local: Some(host.cgroup.path().to_owned()),
        ..config(POLICIES)
    };
    let daemon = Daemon::start(lab, &config)?;
    daemon.await_up()?;
    let own = ask(lab, &[], ["-", "198.18.0.200:7001"])?;
    ensure!(own["uplink"] == "isp2" && own["policy"]["name"] == "own", "{own}");
    let tally = host_udp(lab, 20, Family::V4, How::Free)?;
    ensure!(tally.by_isp == [0, 20], "sockets of this host: {tally:?}");
    for (ends, outcome) in [
        (["172.16.0.2:5000", "172.16.0.1:53"], "local"),
        (["172.16.0.2:5000", "224.0.0.1:53"], "not-routable"),
        (["172.16.0.2:5000", "172.16.0.77:53"], "not-default"),
    ] {
        let answer = ask(lab, &[], ends)?;
        ensure!(
            answer["reason"] == outcome && answer["outcome"] == "left-alone" && answer["uplink"].is_null(),
            "{ends:?}: {answer}"
        );
    }
    for ends in [
        ["nobody", "1.1.1.1"],
        ["1.1.1.1", "2001:db8::1"],
        ["1.1.1.1:99999", "1.1.1.1"],
    ] {
        let output = run(lab, &["explain", ends[0], ends[1]])?;
        ensure!(output.status.code() == Some(2), "{ends:?}: {}", said(&output));
    }
    daemon.stop()
}
