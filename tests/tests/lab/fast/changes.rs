//! What changes the kernel's mind about a flow: the fast path follows at once.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::signal::Signal;
use uplink_common::path::{FIRST_LOOK_S, WAY_TRIES};
use uplink_lab::daemon::log_tail;
use uplink_lab::topology::{client, servers};
use uplink_lab::traffic::{Ongoing, fresh_socket};
use uplink_lab::{Config, Daemon, Family, Isp, Lab, Shape};

use super::flows::Flows;
use super::{FAST, daemon, expect_attached, packets, plain, started, translated, wired};
use crate::nexthop::got_through;
use crate::pair::{self, tcp_server};
use crate::support::{await_within, pause};

/// A change bites within this.
const AT_ONCE: Duration = Duration::from_secs(1);
const PORT: u16 = 7660;

/// Answers may pass, so that whoever gets one was not stopped.
const WALL: &str = "table inet fw { chain forward { type filter hook forward priority 0;\n\
                    ip saddr 172.16.0.0/24 drop; ip6 saddr fd00:10::/64 drop; }\n}\n";

/// A firewall stops what is under way within a second; when it goes, flows pass again.
pub fn firewall() -> Result<()> {
    stopped_by(|lab| lab.router.nft(WALL), Some("nft delete table inet fw"))
}

/// The same by the old iptables, of which the kernel tells nobody. While its table is there, nothing is fast.
pub fn legacy_firewall() -> Result<()> {
    stopped_by(
        |lab| {
            lab.router
                .run("iptables-legacy -A FORWARD -s 172.16.0.0/24 -j DROP")?;
            lab.router
                .run("ip6tables-legacy -A FORWARD -s fd00:10::/64 -j DROP")
                .map(drop)
        },
        None,
    )
}

/// `unmake` takes it away, where that brings the fast path back.
fn stopped_by(make: impl Fn(&Lab) -> Result<()>, unmake: Option<&str>) -> Result<()> {
    let (lab, _echo, _ends) = wired(Shape::NicEach)?;
    let daemon = daemon(&lab, "")?;
    let streams = [
        Ongoing::udp_stream(&lab, Family::V4)?,
        Ongoing::udp_stream(&lab, Family::V6)?,
    ];
    for round in 0..2 {
        // It does not outlive a round.
        let connection = Ongoing::tcp_stream(&lab, Family::V4)?;
        pause(1.0);
        let before = packets(&daemon, "fast")?;
        pause(0.5);
        ensure!(packets(&daemon, "fast")? > before, "nothing by the fast path");
        make(&lab)?;
        let fault = Instant::now();
        pause(1.6);
        for stream in streams.iter().chain([&connection]) {
            let after = got_through(&stream.report(), fault);
            println!("    round {round}: the last packet got through {after:?} after the firewall came");
            ensure!(after < AT_ONCE, "{after:?}");
        }
        let Some(unmake) = unmake else {
            return daemon.stop();
        };
        let stopped = packets(&daemon, "fast")?;
        lab.router.run(unmake)?;
        let again = || Ok(packets(&daemon, "fast")? > stopped + 3);
        await_within("flows pass again", Instant::now(), Duration::from_secs(5), again)?;
    }
    drop(streams);
    daemon.stop()
}

/// Connections that somebody makes conntrack forget are known to it again within a second, and nobody's answer is lost,
/// whenever that happens between a packet and its answer.
pub fn flushed() -> Result<()> {
    flushed_with(&plain(FAST), &Family::ALL)?;
    flushed_with(&translated(FAST), &[Family::V6]).context("a translated prefix")
}

fn flushed_with(config: &Config, families: &[Family]) -> Result<()> {
    let (lab, _echo, _ends) = wired(Shape::OneNic)?;
    lab.delegate_prefixes()?;
    let daemon = started(&lab, config)?;
    for &family in families {
        let mut flows = Flows::open(&lab, family, 50)?;
        flows.expect_whole("before", 5)?;
        let fast = packets(&daemon, "fast")?;
        flows.expect_whole("known", 1)?;
        ensure!(
            packets(&daemon, "fast")? >= fast + 90,
            "{family:?}: the flows are not known"
        );
        let list = match family {
            Family::V4 => "conntrack -L -p udp --dport 7640",
            Family::V6 => "conntrack -f ipv6 -L -p udp --dport 7640",
        };
        let known = |lab: &Lab| Ok::<usize, anyhow::Error>(lab.router.run(list)?.lines().count());
        ensure!(known(&lab)? >= 50, "{} connections", known(&lab)?);
        let delete = list.replace("-L", "-D");
        for n in 0..12 {
            lab.router.run(&delete)?;
            let begun = Instant::now();
            let back = || {
                let round = flows.round();
                ensure!(round.lost == 0 && round.moved == 0, "{round:?}");
                Ok(known(&lab)? >= 50)
            };
            await_within("conntrack knows them again", begun, AT_ONCE, back)?;
            flows.expect_whole("fast again", 4)?;
            // Soon after the last time, or when what was left of that is forgotten.
            pause(if n % 2 == 0 { 0.0 } else { 0.6 });
        }
        // Nothing is left of either direction after half a second and what a busy daemon adds, before the first look.
        lab.router.run(&delete)?;
        pause(1.3);
        let before = packets(&daemon, "fast")?;
        flows.expect_whole("forgotten", 1)?;
        let fast = packets(&daemon, "fast")? - before;
        ensure!(
            fast == 0,
            "{family:?}: {fast} packets of forgotten flows are fast"
        );
    }
    daemon.stop()
}

/// Thousands of other connections end while the daemon is busy, and it hears of all of them at once: known flows stay known.
pub fn crowd_gone() -> Result<()> {
    const MANY: u16 = 3000;
    let (lab, _echo, _ends) = wired(Shape::OneNic)?;
    let mut daemon = daemon(&lab, "")?;
    for family in Family::ALL {
        let mut flows = Flows::open(&lab, family, 50)?;
        flows.expect_whole("before", 5)?;
        // The kernel looks at them once, and then not for long.
        pause(f64::from(FIRST_LOOK_S));
        flows.expect_whole("looked at", 2)?;
        let crowd = lab.client.enter(|| fresh_socket(client(family, 0)))??;
        for port in PORT..PORT + MANY {
            crowd.send_to(b"there", SocketAddr::new(servers(family)[0], port))?;
        }
        let port = crowd.local_addr()?.port();
        daemon.signal(Signal::SIGSTOP)?;
        let version = if family == Family::V4 { "ipv4" } else { "ipv6" };
        let deleted = lab
            .router
            .run(&format!("conntrack -f {version} -D -p udp --sport {port}"));
        daemon.signal(Signal::SIGCONT)?;
        let deleted = deleted?.lines().count();
        ensure!(
            deleted >= usize::from(MANY) * 9 / 10,
            "{deleted} connections of {MANY}"
        );
        // Until the daemon has heard of them, and once more when it has forgotten their answers.
        for _ in 0..2 {
            pause(0.7);
            let before = packets(&daemon, "fast")?;
            flows.expect_whole("known", 1)?;
            let fast = packets(&daemon, "fast")? - before;
            ensure!(fast == 100, "{family:?}: {fast} of 100 packets by the fast path");
        }
    }
    daemon.stop()
}

/// The gateway gets another network card, and says so.
pub fn moved_gateway() -> Result<()> {
    let (lab, _echo, _ends) = wired(Shape::NicEach)?;
    let daemon = daemon(&lab, "")?;
    let (gateway4, gateway6) = Isp::One.gateways();
    for (n, family) in (0_u8..).zip(Family::ALL) {
        let mut flows = Flows::open(&lab, family, 40)?;
        let before = flows.expect_whole("before", 5)?;
        let mac = format!("02:00:00:00:77:{n:02}");
        lab.isp(Isp::One).ip(&format!("link set eth0 address {mac}\n"))?;
        // As its announcement would; the kernel's rate limits are not what this is about.
        for gateway in [gateway4, gateway6] {
            lab.router.ip(&format!(
                "neigh replace {gateway} lladdr {mac} dev wan1 nud reachable\n"
            ))?;
        }
        // The bell rings at most 20 times a second, and whoever hears it may be busy.
        pause(0.5);
        let fast = packets(&daemon, "fast")?;
        let after = flows.expect_whole("after", 4)?;
        ensure!(before == after, "{before:?} {after:?}");
        ensure!(packets(&daemon, "fast")? > fast + 80, "no fast path afterwards");
    }
    daemon.stop()
}

/// A neighbour that is forgotten matters to the flows to him alone.
pub fn lost_neighbour() -> Result<()> {
    let (lab, _echo, _ends) = wired(Shape::NicEach)?;
    let daemon = daemon(&lab, "")?;
    for family in Family::ALL {
        let mut flows = Flows::open(&lab, family, 40)?;
        flows.expect_whole("before", 5)?;
        // The kernel looks at them once, and then not for long.
        pause(f64::from(FIRST_LOOK_S));
        flows.expect_whole("looked at", 2)?;
        let stranger = match family {
            Family::V4 => "172.16.0.250",
            Family::V6 => "fd00:10::250",
        };
        let mut fast = |what: &str| {
            // The bell rings at most 20 times a second, and what is lost is forgotten once more.
            pause(0.7);
            let before = packets(&daemon, "fast")?;
            flows.expect_whole(what, 1)?;
            let fast = packets(&daemon, "fast")? - before;
            flows.expect_whole("learned", 3)?;
            println!("    {family:?}, {what}: {fast} of 80 packets by the fast path");
            Ok::<_, anyhow::Error>(fast)
        };
        lab.router.ip(&format!(
            "neigh add {stranger} lladdr 02:00:00:00:88:01 dev lan0 nud reachable\n"
        ))?;
        ensure!(fast("a stranger came")? == 80, "{family:?}: voided by a stranger");
        lab.router.ip(&format!("neigh del {stranger} dev lan0\n"))?;
        ensure!(fast("a stranger left")? == 80, "{family:?}: voided by a stranger");
        // All clients have one network card, and so all answers are to this address. A place in the map stays taken until all
        // is learned anew, which the last one brings; other ways may have taken some of its places before.
        let leaving = format!("neigh del {} dev lan0\n", client(family, 0));
        let mut times = 0;
        loop {
            times += 1;
            lab.router.ip(&leaving)?;
            match fast(&format!("a client left {times} times"))? {
                40 if times < WAY_TRIES => {}
                0 if times > WAY_TRIES / 2 => break,
                packets => bail!("{family:?}: {packets} after a client left {times} times"),
            }
        }
        ensure!(fast("learned anew")? == 80, "{family:?}: not learned anew");
    }
    daemon.stop()
}

/// Conntrack sees how connections end.
pub fn closed() -> Result<()> {
    let (lab, _echo, _ends) = wired(Shape::NicEach)?;
    let daemon = daemon(&lab, "")?;
    for family in Family::ALL {
        let server = tcp_server(&lab, SocketAddr::new(servers(family)[0], PORT))?;
        let (mut near, mut far, from) = pair::tcp(&lab, family, 0, &server)?;
        let before = packets(&daemon, "fast")?;
        for _ in 0..20 {
            near.write_all(b"there")?;
            far.read_exact(&mut [0; 5])?;
            far.write_all(b"and back")?;
            near.read_exact(&mut [0; 8])?;
        }
        let fast = packets(&daemon, "fast")? - before;
        ensure!(fast >= 30, "{family:?}: {fast} packets by the fast path");
        ensure!(state(&lab, family)? == "ESTABLISHED", "{}", state(&lab, family)?);
        drop(near);
        ensure!(far.read(&mut [0; 8])? == 0, "no end");
        drop(far);
        let closed = || Ok(state(&lab, family)? == "TIME_WAIT");
        await_within(&format!("{from} is closed"), Instant::now(), AT_ONCE, closed)?;
    }
    daemon.stop()
}

/// The state that conntrack has the only connection in.
fn state(lab: &Lab, family: Family) -> Result<String> {
    let family = if family == Family::V4 { "ipv4" } else { "ipv6" };
    let listed = lab
        .router
        .run(&format!("conntrack -f {family} -L -p tcp --dport {PORT}"))?;
    let state = listed
        .lines()
        .next()
        .and_then(|line| line.split_whitespace().nth(3));
    state.map(str::to_owned).context("no connection")
}

/// Without a daemon nobody would notice a firewall: flows take the kernel's way.
pub fn silent() -> Result<()> {
    let (lab, _echo, _ends) = wired(Shape::NicEach)?;
    let mut daemon = daemon(&lab, "")?;
    let mut flows = Flows::open(&lab, Family::V4, 30)?;
    // A heartbeat or two.
    pause(1.1);
    flows.expect_whole("before", 5)?;
    daemon.signal(Signal::SIGSTOP)?;
    pause(4.2);
    flows.expect_whole("without a daemon", 3)?;
    daemon.signal(Signal::SIGCONT)?;
    let told = || Ok(log_tail().contains("the daemon did not run for "));
    await_within("people are told", Instant::now(), AT_ONCE, told)?;
    let before = packets(&daemon, "fast")?;
    flows.expect_whole("with a daemon again", 4)?;
    let fast = packets(&daemon, "fast")? - before;
    ensure!(fast >= 60, "{fast} packets");
    daemon.stop()
}

/// The next daemon goes on where the last one left its program at the wire, however that one ended, and nobody notices.
pub fn restarted() -> Result<()> {
    for shape in [Shape::OneNic, Shape::NicEach] {
        let (lab, _echo, _ends) = wired(shape)?;
        let mut daemon = daemon(&lab, "")?;
        let mut flows = [
            Flows::open(&lab, Family::V4, 30)?,
            Flows::open(&lab, Family::V6, 30)?,
        ];
        for ending in [Signal::SIGUSR1, Signal::SIGKILL] {
            for flows in &mut flows {
                flows.expect_whole("before", 5)?;
            }
            daemon.end(ending, Duration::from_secs(5))?;
            for flows in &mut flows {
                flows.expect_whole("without a daemon", 2)?;
            }
            daemon = Daemon::restart(&lab)?;
            daemon.await_up()?;
            expect_attached(&daemon, "xdp").with_context(|| format!("{shape:?}, after {ending}"))?;
            for flows in &mut flows {
                flows.expect_whole("learned again", 4)?;
                let before = packets(&daemon, "fast")?;
                flows.expect_whole("fast again", 2)?;
                let fast = packets(&daemon, "fast")? - before;
                ensure!(fast >= 100, "{shape:?}, after {ending}: {fast} of 120 packets");
            }
        }
        daemon.stop()?;
    }
    Ok(())
}
