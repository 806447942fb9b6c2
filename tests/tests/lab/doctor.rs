//! `doctor`: it sees what is really in the way, and changes nothing.

use std::process::Output;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sys::signal::Signal;
use serde_json::Value;
use uplink_lab::daemon::{binary, command, run, said, write_config};
use uplink_lab::{Config, Isp, Lab, Shape, Snapshot};

use crate::support::{daemon, lab, pause};

/// No command that it runs may take longer than this, and they run side by side.
const LIMIT: Duration = Duration::from_secs(10);
/// Under this name anybody may run the program.
const ANYBODYS: &str = "/run/uplink-of-anybody";
/// Somebody without any rights.
const NOBODY: [&str; 3] = ["--reuid=65534", "--regid=65534", "--clear-groups"];

/// What it said and how it ended.
struct Said {
    status: Option<i32>,
    answer: Value,
}

impl Said {
    fn of(output: &Output) -> Result<Self> {
        let answer = serde_json::from_slice(&output.stdout).with_context(|| said(output))?;
        let status = output.status.code();
        Ok(Self { status, answer })
    }

    fn findings(&self) -> impl Iterator<Item = &Value> {
        self.answer["findings"].as_array().into_iter().flatten()
    }

    fn codes(&self) -> Vec<&str> {
        self.findings().filter_map(|f| f["code"].as_str()).collect()
    }

    fn has(&self, code: &str, severity: &str) -> bool {
        self.findings()
            .any(|f| f["code"] == code && f["severity"] == severity)
    }

    /// It ended with this status, and so many findings block.
    fn expect(&self, status: i32, blocks: u64) -> Result<()> {
        let right = self.status == Some(status) && self.answer["blocks"] == blocks;
        ensure!(right, "{:?}, not {status}: {:#}", self.status, self.answer);
        Ok(())
    }
}

/// It must leave everything as it is, and be done soon.
fn doctor(lab: &Lab) -> Result<Said> {
    let before = Snapshot::take(lab)?;
    let begun = Instant::now();
    let output = run(lab, &["doctor", "--json"])?;
    println!("    doctor took {:?}", begun.elapsed());
    ensure!(begun.elapsed() < LIMIT, "doctor took {:?}", begun.elapsed());
    let differences = before.diff(&Snapshot::take(lab)?);
    ensure!(differences.is_empty(), "doctor changed {differences:#?}");
    Said::of(&output)
}

/// The same with other rights, which `setpriv` gives.
fn doctor_as(lab: &Lab, rights: &[&str]) -> Result<Said> {
    if !std::path::Path::new(ANYBODYS).exists() {
        std::fs::write(ANYBODYS, "")?;
        let nothing = None::<&str>;
        mount(Some(&binary()?), ANYBODYS, nothing, MsFlags::MS_BIND, nothing).context(ANYBODYS)?;
    }
    let plain = command(lab, &["doctor", "--json"])?;
    let mut other = lab.router.command("setpriv");
    other.args(rights).arg(ANYBODYS).args(plain.get_args());
    Said::of(&other.output().context("setpriv")?)
}

fn configured(shape: Shape) -> Result<Lab> {
    let (lab, _) = lab(shape)?;
    write_config(&Config::default().text(&lab))?;
    // Addresses that are tentative count as missing.
    pause(2.0);
    Ok(lab)
}

/// Nothing blocks on a router that works, before the start and with a daemon, whose own things are
/// not taken for somebody else's; nor does anything that a plain user may not see.
pub fn healthy() -> Result<()> {
    for shape in [Shape::OneNic, Shape::NicEach] {
        let lab = configured(shape)?;
        let before = doctor(&lab)?;
        println!("    before: {:?}", before.codes());
        before.expect(0, 0)?;
        let daemon = daemon(&lab, "")?;
        let running = doctor(&lab)?;
        println!("    running: {:?}", running.codes());
        running.expect(0, 0)?;
        let new: Vec<_> = running.codes();
        let new: Vec<_> = new.iter().filter(|c| !before.codes().contains(c)).collect();
        ensure!(new.is_empty(), "new with a daemon: {new:?} {:#}", running.answer);
        let nobody = doctor_as(&lab, &NOBODY)?;
        println!("    a plain user: {:?}", nobody.codes());
        nobody.expect(0, 0)?;
        ensure!(nobody.has("unseen", "fine"), "{:#}", nobody.answer);
        let more: Vec<_> = nobody.codes();
        let more: Vec<_> = more
            .iter()
            .filter(|c| **c != "unseen" && !running.codes().contains(c))
            .collect();
        ensure!(
            more.is_empty(),
            "new for a plain user: {more:?} {:#}",
            nobody.answer
        );
        daemon.end(Signal::SIGKILL, Duration::from_secs(5))?;
        let killed = doctor(&lab)?;
        killed.expect(0, 0)?;
        ensure!(killed.has("daemon-gone", "warns"), "{:#}", killed.answer);
        ensure!(
            !killed.codes().contains(&"protocol-in-use"),
            "{:#}",
            killed.answer
        );
        let down = run(&lab, &["down"])?;
        ensure!(down.status.success(), "{}", said(&down));
    }
    Ok(())
}

/// What somebody did to the router, and what is to be found then.
const DEEDS: [(&str, &str, &str); 8] = [
    (
        "rule-in-block",
        "warns",
        "ip rule add priority 20100 to 192.0.2.0/24 lookup 100",
    ),
    (
        "mark-overlap",
        "warns",
        "ip rule add priority 100 fwmark 0x3000000/0xf000000 lookup 100",
    ),
    ("shadowed", "warns", "ip rule add priority 99 iif lan0 lookup 101"),
    (
        "protocol-in-use",
        "warns",
        "ip route add 192.0.2.0/24 dev lo table 100 proto 117",
    ),
    (
        "mark-set",
        "warns",
        "iptables -t mangle -A PREROUTING -p tcp -j MARK --set-xmark 0x1000000/0x1000000",
    ),
    (
        "mark-overwritten",
        "warns",
        "ip6tables -t mangle -A PREROUTING -p tcp -j MARK --set-mark 1",
    ),
    ("forward-drop", "fine", "iptables -P FORWARD DROP"),
    ("vpn", "fine", "ip tuntap add dev tun7 mode tun"),
];

/// Each thing that somebody put there is found when it is there, and nothing of it before.
pub fn findings() -> Result<()> {
    let lab = configured(Shape::NicEach)?;
    lab.router.run("ip route add default dev lo table 101")?;
    let before = doctor(&lab)?;
    for (code, ..) in DEEDS {
        ensure!(
            !before.codes().contains(&code),
            "{code} before: {:#}",
            before.answer
        );
    }
    for (.., deed) in DEEDS {
        lab.router.run(deed)?;
    }
    lab.router.nft(
        "table inet fw {\nchain pre { type filter hook prerouting priority mangle\nmeta mark set 0x2000000\n}\n}\n",
    )?;
    let after = doctor(&lab)?;
    println!("    {:?}", after.codes());
    for (code, severity, deed) in DEEDS {
        ensure!(
            after.has(code, severity),
            "no {code} after `{deed}`: {:#}",
            after.answer
        );
    }
    let in_nft = |f: &Value| {
        f["code"] == "mark-set"
            && f["text"]
                .as_str()
                .is_some_and(|t| t.contains("chain inet fw pre"))
    };
    ensure!(after.findings().any(in_nft), "{:#}", after.answer);
    after.expect(0, 0)
}

/// Gateways and addresses that are not there, an MTU that does not fit, and a sysctl that somebody
/// changes under a daemon.
pub fn links() -> Result<()> {
    let lab = configured(Shape::NicEach)?;
    let absent = Config {
        uplink_more: ["mtu = 9000\n".into(), "source = \"10.0.0.77\"\n".into()],
        ..Config::default()
    };
    write_config(&absent.text(&lab))?;
    lab.mute_neighbours(Isp::Two)?;
    lab.router.run("ip neigh flush all")?;
    // It fails as soon as somebody has looked for it in vain.
    lab.router
        .run("ping -c 1 -W 4 10.0.0.1")
        .err()
        .context("a muted gateway answers")?;
    let found = doctor(&lab)?;
    println!("    {:?}", found.codes());
    for code in ["gateway-silent", "unusable", "mtu"] {
        ensure!(found.has(code, "warns"), "no {code}: {:#}", found.answer);
    }
    found.expect(0, 0)?;
    lab.end_mute(Isp::Two)?;
    let daemon = daemon(&lab, "")?;
    // The daemon puts it back within five seconds.
    let begun = Instant::now();
    let mut seen = false;
    while !seen && begun.elapsed() < Duration::from_secs(20) {
        lab.router.sysctl("ipv4/ip_forward", "0")?;
        let found = Said::of(&run(&lab, &["doctor", "--json"])?)?;
        seen = found.has("forwarding", "warns");
    }
    ensure!(seen, "nobody tells that forwarding is off beside a daemon");
    daemon.stop()
}

/// What blocks, and a wrong configuration, are in the exit status.
pub fn blocked() -> Result<()> {
    let lab = configured(Shape::OneNic)?;
    let bounded = doctor_as(&lab, &["--bounding-set=-bpf,-net_raw"])?;
    bounded.expect(1, 1)?;
    let lacks = |f: &Value| {
        f["code"] == "capability-missing"
            && f["text"]
                .as_str()
                .is_some_and(|t| t.contains("CAP_NET_RAW, CAP_BPF"))
    };
    ensure!(bounded.findings().any(lacks), "{:#}", bounded.answer);
    let elsewhere = run(&lab, &["doctor", "--json", "--bpffs", "/run/not-here/uplink"])?;
    let elsewhere = Said::of(&elsewhere)?;
    elsewhere.expect(1, 1)?;
    ensure!(elsewhere.has("bpffs-missing", "blocks"), "{:#}", elsewhere.answer);
    ingress_qdisc(&lab)?;
    wrong(&lab)
}

/// It has the place of clsact.
fn ingress_qdisc(lab: &Lab) -> Result<()> {
    lab.router.run("tc qdisc add dev eth0 ingress")?;
    let clsact = Config {
        more: "[kernel]\nattach = \"clsact\"\n".into(),
        ..Config::default()
    };
    write_config(&clsact.text(lab))?;
    let there = doctor(lab)?;
    there.expect(1, 1)?;
    ensure!(there.has("ingress-qdisc", "blocks"), "{:#}", there.answer);
    lab.router.run("tc qdisc del dev eth0 ingress")?;
    Ok(())
}

/// Each problem of the file is a finding, as is a table that somebody else uses.
fn wrong(lab: &Lab) -> Result<()> {
    let text = Config::default().text(lab);
    lab.router.run("ip route add 192.0.2.0/24 dev lo table 20001")?;
    let taken = doctor(lab)?;
    taken.expect(2, 1)?;
    ensure!(taken.has("configuration", "blocks"), "{:#}", taken.answer);
    write_config(&text.replace("gateway =", "gatewy ="))?;
    let wrong = doctor(lab)?;
    ensure!(wrong.status == Some(2), "{:#}", wrong.answer);
    let line = wrong.findings().find(|f| f["code"] == "configuration");
    let line = line.and_then(|f| f["text"].as_str()).unwrap_or_default();
    println!("    {line}");
    ensure!(
        line.contains("uplink.toml:") && line.contains("gatewy"),
        "{:#}",
        wrong.answer
    );
    let shown = run(lab, &["doctor"])?;
    ensure!(shown.status.code() == Some(2), "{}", said(&shown));
    let shown = said(&shown);
    println!("{shown}");
    ensure!(
        !shown.contains('\x1b') && shown.contains(" in the way, "),
        "{shown}"
    );
    Ok(())
}
