//! `check --plan`: what it shows is what would be done, and it does nothing.

use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use uplink_lab::daemon::{run, said, write_config};
use uplink_lab::traffic::udp_flows;
use uplink_lab::{Config, Daemon, Family, Isp, Lab, Shape, Snapshot};

use crate::support::{daemon, lab, pause};

const POLICY: &str =
    "[[policy]]\nname = \"voip\"\nuse = [\"isp1\"]\nmatch = { proto = \"udp\", dport = 5060 }\n";

/// `check --plan`, which must leave everything as it is.
fn plan(lab: &Lab) -> Result<String> {
    let before = Snapshot::take(lab)?;
    let output = run(lab, &["check", "--plan"])?;
    let text = said(&output);
    ensure!(output.status.success(), "check --plan: {text}");
    let differences = before.diff(&Snapshot::take(lab)?);
    ensure!(differences.is_empty(), "check --plan changed {differences:#?}");
    ensure!(!text.contains('\x1b'), "colours without a terminal: {text}");
    Ok(text)
}

/// The lines that begin with one of these signs.
fn lines<'t>(text: &'t str, signs: &str) -> Vec<&'t str> {
    let starts = |line: &&str| {
        let mut chars = line.chars();
        chars.next().is_some_and(|c| signs.contains(c)) && chars.next() == Some(' ')
    };
    text.lines().filter(starts).collect()
}

fn expect(text: &str, wanted: &[&str]) -> Result<()> {
    for line in wanted {
        ensure!(text.lines().any(|l| l == *line), "no line {line:?} in:\n{text}");
    }
    Ok(())
}

/// Before the start all is to be added; a daemon that runs with this file has nothing to do.
pub fn start() -> Result<()> {
    for shape in [Shape::OneNic, Shape::NicEach] {
        let (lab, _echo) = lab(shape)?;
        let text = Config {
            more: POLICY.into(),
            ..Config::default()
        }
        .text(&lab);
        write_config(&text)?;
        // Addresses that are tentative get their routes later.
        pause(2.0);
        let before = plan(&lab)?;
        println!("{}", before.lines().take(20).collect::<Vec<_>>().join("\n"));
        ensure!(lines(&before, "-?").is_empty(), "{before}");
        ensure!(lines(&before, "+").len() > 40, "{before}");
        ensure!(before.contains("; nothing was changed"), "{before}");
        expect(
            &before,
            &[
                "+ slots IPv4 isp1: 49153 of 65537",
                "+ slots IPv6 isp2: 16384 of 65537",
            ],
        )?;
        let daemon = daemon(&lab, POLICY)?;
        let running = plan(&lab)?;
        ensure!(lines(&running, "+-~?").is_empty(), "{running}");
        ensure!(running.contains("nothing to do: "), "{running}");
        ensure!(
            lines(&running, " ").iter().any(|l| l.contains("voip")),
            "{running}"
        );
        daemon.stop()?;
    }
    Ok(())
}

/// What a reload would change, and only that; after the reload there is nothing to do.
pub fn edit() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = daemon(&lab, POLICY)?;
    let edited = Config {
        weights: [1, 1],
        more: POLICY.replace("5060", "5061") + "[nat]\non_failover = \"reset\"\n[health]\nloss = \"20%\"\n",
        ..Config::default()
    };
    write_config(&edited.text(&lab))?;
    let text = plan(&lab)?;
    let found = lines(&text, "+-~?");
    println!("{}", found.join("\n"));
    expect(
        &text,
        &[
            "~ slots IPv4 isp1: 49153 of 65537 -> 32769 of 65537",
            "+ [health] loss: \"20%\"",
            "+ [nat] on_failover: \"reset\"",
        ],
    )?;
    for (what, wanted) in [
        ("~ uplink isp1", true),
        ("~ voip", true),
        ("reset4", true),
        ("ip rule", false),
    ] {
        let there = found.iter().any(|l| l.contains(what));
        ensure!(there == wanted, "{what}: {there}\n{}", found.join("\n"));
    }
    let routes: Vec<_> = found
        .iter()
        .filter(|l| l.contains("ip route") || l.contains("ip -6 route"))
        .collect();
    ensure!(
        routes.len() == 2 && routes.iter().all(|l| l.starts_with('~') && l.contains("weight")),
        "{routes:?}"
    );
    let reload = run(&lab, &["reload"])?;
    ensure!(reload.status.success(), "{}", said(&reload));
    let after = plan(&lab)?;
    ensure!(lines(&after, "+-~?").is_empty(), "after the reload: {after}");
    daemon.stop()
}

/// What needs a restart is said, and what another uplink's removal takes away is shown.
pub fn refused() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = daemon(&lab, "")?;
    let whole = Config::default().text(&lab);
    write_config(&(whole.clone() + "[kernel]\nflows = 4096\n"))?;
    let text = plan(&lab)?;
    ensure!(
        text.contains("note: a reload would be refused: [kernel] has changed"),
        "{text}"
    );
    let alone = whole.split("[[uplink]]").filter(|part| !part.contains("isp2"));
    let alone = alone.collect::<Vec<_>>().join("[[uplink]]")
        + "[lan]\ninterfaces = [\"eth0\"]\n[local]\nenabled = false\n";
    write_config(&alone)?;
    let text = plan(&lab)?;
    let gone = lines(&text, "-");
    println!("{}", gone.join("\n"));
    for what in [
        "ip rule priority 20002 fwmark",
        "ip route 0.0.0.0/0 table 20002",
        "uplink isp2",
        "slots IPv4 isp2",
    ] {
        ensure!(gone.iter().any(|l| l.contains(what)), "no {what} among {gone:#?}");
    }
    ensure!(!gone.iter().any(|l| l.contains("20001")), "{gone:#?}");
    daemon.stop()
}

/// Another tag for our routes and rules: the plan knows the old ones, and so does the next start.
pub fn retagged() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = daemon(&lab, "")?;
    write_config(&(Config::default().text(&lab) + "[kernel]\nprotocol = 118\n"))?;
    let text = plan(&lab)?;
    ensure!(
        text.contains("note: a reload would be refused: [kernel] has changed"),
        "{text}"
    );
    daemon.end(Signal::SIGUSR1, Duration::from_secs(5))?;
    let daemon = Daemon::restart(&lab)?;
    daemon.await_up()?;
    for family in ["-4", "-6"] {
        for list in ["rule list", "route show table all"] {
            let all = lab.router.run(&format!("ip -N -d {family} {list}"))?;
            let tagged = |tag| all.lines().any(|line| line.contains(tag));
            ensure!(
                !tagged("proto 117") && tagged("proto 118"),
                "{family} {list}: {all}"
            );
        }
    }
    let tally = udp_flows(&lab, 300, Family::V4)?;
    ensure!(tally.clean() == 300, "new flows: {tally:?}");
    daemon.stop()
}

/// Without a daemon, what it left is compared: a rule and a chain that somebody removed.
pub fn tampered() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    daemon(&lab, "")?.end(Signal::SIGKILL, Duration::from_secs(1))?;
    let text = plan(&lab)?;
    ensure!(
        lines(&text, "+-~?").is_empty() && text.contains("nothing to do"),
        "{text}"
    );
    lab.router.run("ip rule del priority 20001")?;
    let mark = lab.router.run("ip route del default table 20002 metric 100")?;
    ensure!(mark.is_empty(), "{mark}");
    lab.router.run("nft flush chain inet uplink postrouting")?;
    lab.router.sysctl("ipv4/ip_forward", "0")?;
    let text = plan(&lab)?;
    let found = lines(&text, "+-~?");
    println!("{}", found.join("\n"));
    let nft = found
        .iter()
        .filter(|l| !l.contains("ip rule") && !l.contains("ip route") && !l.contains('='));
    ensure!(
        nft.clone().count() > 0 && nft.clone().all(|l| l.starts_with('+')),
        "{text}"
    );
    ensure!(text.contains("rules of it were removed by hand"), "{text}");
    expect(
        &text,
        &[
            "+ ip rule priority 20001 fwmark 0x1000000/0x7f000000 lookup 20001",
            "~ net/ipv4/ip_forward = 0 -> 1",
        ],
    )?;
    let route = format!("table 20002 metric 100 src {} via", Isp::Two.sources().0);
    ensure!(
        found.iter().any(|l| l.starts_with('+') && l.contains(&route)),
        "{text}"
    );
    let down = run(&lab, &["down"])?;
    ensure!(down.status.success(), "{}", said(&down));
    Ok(())
}
