//! Each kind of probe finds an uplink up, and down when it is; liars harm nobody else.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use uplink_lab::liar::web::{CA, NAME};
use uplink_lab::liar::{Dns, Liar, Lie, Manner, Page, Web};
use uplink_lab::process::resident_kib;
use uplink_lab::topology::servers;
use uplink_lab::{Config, Daemon, Family, Isp, Lab, Shape};

use crate::support::{lab, pause, warned};

const SECOND: Duration = Duration::from_secs(1);
/// Down and up soon.
const PACE: &str = "interval = \"200ms\"\ntimeout = \"500ms\"\nfall = 3\nrise = 3\n";

/// A list for `targets`: this port of both servers in both families.
fn targets(ports: &[u16]) -> String {
    let addresses = || Family::ALL.into_iter().flat_map(servers);
    let all = ports
        .iter()
        .flat_map(|port| addresses().map(|a| SocketAddr::new(a, *port)));
    let quoted: Vec<_> = all.map(|at| format!("\"{at}\"")).collect();
    format!("targets = [{}]\n", quoted.join(", "))
}

fn start<'a>(lab: &'a Lab, probe: &str) -> Result<Daemon<'a>> {
    let config = Config {
        more: format!(
            "[probe]\n{PACE}{probe}[health]\nhold_down = \"0s\"\nslow_start = \"0s\"\nswitches_per_minute = 60\n"
        ),
        ..Config::default()
    };
    Daemon::start(lab, &config)
}

/// Up, down when blackholed while the other stays up, and up again.
fn follows(lab: &Lab, daemon: &Daemon<'_>, what: &str) -> Result<()> {
    daemon.await_up().with_context(|| what.to_owned())?;
    pause(1.5);
    for isp in Isp::ALL {
        lab.blackhole(isp)?;
        let down = daemon.await_state(isp, "down", 8 * SECOND)?;
        let other = daemon.uplinks()?[isp.other().index()].clone();
        ensure!(
            other.0 == "up",
            "{what}: {isp:?} is dead, and the other {other:?}"
        );
        lab.heal(isp)?;
        let up = daemon.await_state(isp, "up", 20 * SECOND)?;
        println!("    {what}: {isp:?} down after {down:?}, up after {up:?}");
    }
    Ok(())
}

/// The good ones among `good` and `bad` targets carry the uplinks; with the bad ones alone no
/// uplink is found up, whatever they send.
fn among(lab: &Lab, kind: &str, bad: &[u16], good: u16) -> Result<()> {
    for port in bad {
        let daemon = start(lab, &format!("{kind}{}", targets(&[*port, good])))?;
        daemon
            .await_up()
            .with_context(|| format!("port {port} beside {good}"))?;
        pause(3.0);
        let now = daemon.uplinks()?;
        ensure!(
            now.iter().all(|(state, _)| state == "up"),
            "port {port} does harm: {now:?}"
        );
        daemon.stop()?;
        refuted(
            lab,
            &format!("{kind}{}", targets(&[*port])),
            &format!("port {port}"),
        )?;
    }
    Ok(())
}

/// With these targets alone nobody is believed to answer: that they are dead is said at least.
fn refuted(lab: &Lab, probe: &str, what: &str) -> Result<()> {
    let daemon = start(lab, probe)?;
    let begun = Instant::now();
    while !warned(&daemon, "dead-target")? && daemon.uplinks()?.iter().any(|(state, _)| state != "down") {
        ensure!(
            begun.elapsed() < 8 * SECOND,
            "{what}: believed: {:?}",
            daemon.uplinks()?
        );
        pause(0.1);
    }
    println!("    {what}: not believed after {:?}", begun.elapsed());
    daemon.stop()
}

pub fn tcp() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = start(&lab, &format!("type = \"tcp\"\n{}", targets(&[7000])))?;
    follows(&lab, &daemon, "tcp")?;
    daemon.stop()?;
    refuted(
        &lab,
        &format!("type = \"tcp\"\n{}", targets(&[9])),
        "a closed port",
    )
}

pub fn dns() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let server = Dns::start(&lab)?;
    let daemon = start(&lab, &format!("type = \"dns\"\n{}", targets(&[53])))?;
    follows(&lab, &daemon, "dns")?;
    daemon.stop()?;
    ensure!(server.queries() > 20, "{} queries", server.queries());
    let daemon = start(
        &lab,
        &format!("type = \"dns\"\n{}", targets(&[Manner::Many.port()])),
    )?;
    daemon.await_up().context("more answers than asked for")?;
    daemon.stop()?;
    let bad = Manner::ALL
        .into_iter()
        .filter(|m| !matches!(m, Manner::Good | Manner::Many));
    let ports: Vec<_> = bad.map(Manner::port).collect();
    among(&lab, "type = \"dns\"\n", &ports, Manner::Good.port())
}

pub fn http() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let web = Web::start(&lab)?;
    let kind = format!("type = \"http\"\nhost = \"{NAME}\"\npath = \"/alive\"\n");
    let daemon = start(&lab, &format!("{kind}{}", targets(&[Page::Good.port()])))?;
    follows(&lab, &daemon, "http")?;
    daemon.stop()?;
    let bad = [
        Page::Failure,
        Page::EndlessHeader,
        Page::Dribble,
        Page::Garbage,
        Page::Silent,
    ];
    among(&lab, &kind, &bad.map(Page::port), Page::Good.port())?;
    endless(&lab, &kind, &web)
}

/// A body without an end after a good status: an answer, and no more of it than needed.
fn endless(lab: &Lab, kind: &str, web: &Web) -> Result<()> {
    let mut daemon = start(lab, &format!("{kind}{}", targets(&[Page::EndlessBody.port()])))?;
    daemon.await_up().context("status 200 and an endless body")?;
    pause(3.0);
    let (open, rss) = (web.open(), resident_kib(daemon.pid()?)?);
    println!("    endless bodies: {open} connections open, {rss} KiB resident");
    // Two uplinks, four targets, and half a second of patience at five rounds a second.
    ensure!(open <= 2 * 4 * 4, "{open} connections are open");
    ensure!(rss < 40 << 10, "{rss} KiB resident");
    daemon.stop()
}

pub fn https() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let _web = Web::start(&lab)?;
    let named = format!("type = \"https\"\nca = \"{CA}\"\nhost = \"{NAME}\"\n");
    let daemon = start(&lab, &format!("{named}{}", targets(&[Page::Tls.port()])))?;
    follows(&lab, &daemon, "https")?;
    daemon.stop()?;
    let by_address = format!(
        "type = \"https\"\nca = \"{CA}\"\n{}",
        targets(&[Page::Tls.port()])
    );
    let daemon = start(&lab, &by_address)?;
    daemon.await_up().context("a certificate for an address")?;
    daemon.stop()?;
    // Nobody's certificate, and no TLS at all.
    for page in [Page::Untrusted, Page::Good, Page::Garbage] {
        refuted(
            &lab,
            &format!("{named}{}", targets(&[page.port()])),
            &format!("{page:?}"),
        )?;
    }
    let other = format!(
        "type = \"https\"\nca = \"{CA}\"\nhost = \"other.test\"\n{}",
        targets(&[443])
    );
    refuted(&lab, &other, "another name")
}

/// Forged, mangled and repeated echo replies.
pub fn icmp_liars() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let [good, bad] = servers(Family::V4);
    for lie in [
        Lie::Payload,
        Lie::Id,
        Lie::Future,
        Lie::Source,
        Lie::Short,
        Lie::Thrice,
    ] {
        let liar = Liar::start(&lab, &[(bad, lie)])?;
        let pair = format!("targets = [\"{bad}\", \"{good}\", \"2001:db8::10\"]\n");
        let daemon = start(&lab, &pair)?;
        daemon
            .await_up()
            .with_context(|| format!("{lie:?} beside the truth"))?;
        pause(2.0);
        ensure!(
            daemon.uplinks()?.iter().all(|(state, _)| state == "up"),
            "{lie:?} does harm"
        );
        let believed = !warned_of(&daemon, bad)?;
        println!("    {lie:?}: believed {believed}");
        ensure!(believed == (lie == Lie::Thrice), "{lie:?}: believed {believed}");
        daemon.stop()?;
        drop(liar);
    }
    Ok(())
}

fn warned_of(daemon: &Daemon<'_>, target: IpAddr) -> Result<bool> {
    let status = daemon.status()?;
    let warnings = status["warnings"].as_array().context("no warnings")?;
    let of_it =
        |w: &serde_json::Value| w["code"] == "dead-target" && w.to_string().contains(&target.to_string());
    Ok(warnings.iter().any(of_it))
}

const CHECK: &str = "/run/lab/check.sh";

/// A program judges; one that hangs, forks or floods is ended and counts as no answer.
pub fn exec() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let kind = format!("type = \"exec\"\ncommand = [\"{CHECK}\"]\n");
    script("exit 0")?;
    let mut daemon = start(&lab, &kind)?;
    daemon.await_up().context("a program that exits with 0")?;
    script("exit 1")?;
    daemon.await_state(Isp::One, "down", 8 * SECOND)?;
    script("exit 0")?;
    daemon.await_up().context("0 again")?;
    for bad in [
        "sleep 600",
        "sleep 600 & sleep 600",
        "yes",
        "trap '' TERM; while :; do sleep 1; done",
    ] {
        script(bad)?;
        daemon.await_state(Isp::One, "down", 15 * SECOND).context(bad)?;
        let rss = resident_kib(daemon.pid()?)?;
        let ours = children(daemon.pid()?)?;
        println!("    {bad}: {rss} KiB resident, {ours} processes");
        ensure!(
            rss < 40 << 10 && ours < 40,
            "{bad}: {rss} KiB resident, {ours} processes"
        );
        script("exit 0")?;
        daemon.await_up().context("0 again")?;
    }
    pause(1.0);
    let left = children(daemon.pid()?)?;
    ensure!(left < 10, "{left} processes of the daemon are left");
    daemon.stop()
}

fn script(body: &str) -> Result<()> {
    // Renamed over the old one, which may be running.
    let new = format!("{CHECK}.new");
    std::fs::write(&new, format!("#!/bin/sh\n{body}\n"))?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755))?;
    std::fs::rename(&new, CHECK).context(CHECK)
}

/// Processes that descend from this one.
fn children(of: u32) -> Result<usize> {
    // Each belongs to the thread that made it. What ends meanwhile has none.
    let Ok(threads) = std::fs::read_dir(format!("/proc/{of}/task")) else {
        return Ok(0);
    };
    let lists = threads.flatten().map(|thread| thread.path().join("children"));
    let lists: String = lists
        .map(|list| std::fs::read_to_string(list).unwrap_or_default())
        .collect();
    let ids = lists.split_whitespace().map(str::parse);
    ids.map(|id| Ok(1 + children(id?)?)).sum()
}
