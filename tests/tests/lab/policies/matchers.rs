//! Every key of `match`: what satisfies it goes by isp2, all else is balanced.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use uplink_lab::echo::PORT;
use uplink_lab::topology::{client, elsewhere};
use uplink_lab::traffic::{Flow, Tally, fresh_addresses, pings, raw_packets, tcp_like, udp_flows, udp_like};
use uplink_lab::{Config, Daemon, Echo, Family, Isp, Lab, Namespace, Shape};

use super::{config, expect_all, expect_balanced, placed, reload, start};
use crate::support::{await_within, lab, pause};

const SECOND: Duration = Duration::from_secs(1);
const MATCHING: usize = 100;
const OTHERS: usize = 200;
const CONNECTIONS: usize = 20;

/// Makes a flow of its number.
type Make = fn(Family, usize) -> Flow;

/// A line of `match`, flows that satisfy it and flows that do not.
struct Case {
    line: &'static str,
    yes: Make,
    no: Make,
}

const CASES: &[Case] = &[
    Case {
        line: r#"dst = ["198.18.7.0/24", "2001:db8:18::700/120"]"#,
        yes: |f, n| Flow::fresh(f).to_address(elsewhere(f, 0x700 + n as u16 % 256)),
        no: |f, n| Flow::fresh(f).to_address(elsewhere(f, 0x800 + n as u16 % 256)),
    },
    Case {
        line: r#"dst_file = "prefixes""#,
        yes: |f, n| Flow::fresh(f).to_address(elsewhere(f, 0x900 + n as u16 % 16)),
        no: |f, n| Flow::fresh(f).to_address(elsewhere(f, 0x910 + n as u16 % 16)),
    },
    Case {
        line: r#"src = ["172.16.0.2", "172.16.0.3", "fd00:10::2", "fd00:10::3"]"#,
        yes: |f, n| Flow::fresh(f).from_address(client(f, n as u8 % 2)),
        no: |f, n| Flow::fresh(f).from_address(client(f, 2 + n as u8 % 6)),
    },
    Case {
        line: r#"sport = "60000-60999""#,
        yes: |f, _| Flow::fresh(f).from_port(next(60_000)),
        no: |f, _| Flow::fresh(f).from_port(next(61_000)),
    },
    Case {
        line: r#"dport = [7001, "7003-7004"]"#,
        yes: |f, n| Flow::fresh(f).to_port([7001, 7003, 7004][n % 3]),
        no: |f, n| Flow::fresh(f).to_port([PORT, 7002, 7005][n % 3]),
    },
    Case {
        line: r#"dscp = ["ef", 10]"#,
        yes: |f, n| Flow::fresh(f).code_point([46, 10][n % 2]),
        no: |f, n| Flow::fresh(f).code_point([0, 47, 11][n % 3]),
    },
    Case {
        line: r#"dst = "0.0.0.0/0", not = { dst = ["198.18.0.0/16"] }"#,
        yes: |f, _| Flow::fresh(f),
        no: |f, n| Flow::fresh(f).to_address(elsewhere(f, n as u16)),
    },
    Case {
        line: r#"dport = 7001, not = { src = ["172.16.0.2/31", "fd00:10::2/127"], dscp = "cs1" }"#,
        yes: |f, n| {
            Flow::fresh(f)
                .from_address(client(f, 2 + n as u8 % 6))
                .to_port(7001)
        },
        no: |f, n| match n % 2 {
            0 => Flow::fresh(f)
                .from_address(client(f, n as u8 / 2 % 2))
                .to_port(7001),
            _ => Flow::fresh(f)
                .from_address(client(f, 2 + n as u8 % 6))
                .to_port(7001)
                .code_point(8),
        },
    },
];

/// Of these flows the case speaks.
fn families(case: &Case) -> &'static [Family] {
    if case.line.contains("0.0.0.0/0") {
        &[Family::V4]
    } else {
        &Family::ALL
    }
}

/// One of a thousand ports, which no other flow of the scenario has.
fn next(first: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    first + NEXT.fetch_add(1, Ordering::Relaxed) % 1_000
}

/// Addresses, ports, code points, and what must not be so.
pub fn by_header() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let _more = more_ports(&lab)?;
    std::fs::write(
        "/run/lab/prefixes",
        "# kept elsewhere\n198.18.9.0/28\n2001:db8:18::900/124 ; and this\n",
    )?;
    let daemon = start(&lab, "")?;
    for case in CASES {
        let name = only(&lab, case.line)?;
        let mut matching = 0;
        for family in families(case) {
            matching += check(&lab, case, *family)?;
        }
        let (flows, packets) = placed(&daemon, &name)?;
        println!("    {}: {flows} flows, {packets} packets", case.line);
        ensure!(
            flows == matching as u64,
            "status counts {flows} flows of {matching}"
        );
        ensure!(
            packets >= 3 * flows,
            "status counts {packets} packets of {flows} flows"
        );
    }
    daemon.stop()
}

/// Servers on further ports.
fn more_ports(lab: &Lab) -> Result<Echo> {
    let any: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let ports = 7001..=7005;
    let at: Vec<_> = ports
        .flat_map(|port| any.map(|ip| SocketAddr::new(ip, port)))
        .collect();
    Echo::serve(&lab.internet, &at)
}

/// One policy that sends by isp2 what satisfies the line; its name, which is another each time.
fn only(lab: &Lab, line: &str) -> Result<String> {
    only_with(lab, line, Config::default())
}

fn only_with(lab: &Lab, line: &str, rest: Config) -> Result<String> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = format!("case-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    let more = config(&section(&name, line)).more;
    reload(lab, &Config { more, ..rest })?;
    Ok(name)
}

fn section(name: &str, line: &str) -> String {
    format!("[[policy]]\nname = \"{name}\"\nmatch = {{ {line} }}\nuse = \"isp2\"\n")
}

/// How many flows satisfied it.
fn check(lab: &Lab, case: &Case, family: Family) -> Result<usize> {
    let what = |kind| format!("{kind} {family:?} {}", case.line);
    let (yes, no) = (case.yes, case.no);
    let ns = &lab.client;
    let udp = udp_like(ns, MATCHING, |n| yes(family, n))?;
    expect_all(&what("UDP"), &udp, Isp::Two)?;
    let tcp = tcp_like(ns, CONNECTIONS, |n| yes(family, n))?;
    expect_all(&what("TCP"), &tcp, Isp::Two)?;
    let others = udp_like(ns, OTHERS, |n| no(family, n))?;
    expect_balanced(&what("not"), &others)?;
    Ok(MATCHING + CONNECTIONS)
}

/// UDP, TCP, ICMP, and what has no ports.
pub fn by_protocol() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = start(&lab, "")?;
    for family in Family::ALL {
        for proto in ["udp", "tcp", "icmp", "icmpv6", "gre", "50"] {
            only(&lab, &format!("proto = \"{proto}\""))?;
            protocols(&lab, family, proto)?;
        }
        only(&lab, "proto = [\"tcp\", \"udp\"]")?;
        protocols(&lab, family, "udp tcp")?;
        only(&lab, "not = { proto = [\"tcp\", \"udp\"] }")?;
        protocols(&lab, family, "icmp icmpv6 gre 50")?;
    }
    daemon.stop()
}

/// Each with the beginning of a header that routers on the way may look at.
const TUNNELS: [(&str, u8, [u8; 8]); 2] = [
    ("gre", 47, [0, 0, 8, 0, 1, 2, 3, 4]),
    ("50", 50, [0, 0, 1, 0, 0, 0, 0, 1]),
];

/// Which of the protocols go by isp2 only: those named in `wanted`.
fn protocols(lab: &Lab, family: Family, wanted: &str) -> Result<()> {
    let wanted: Vec<&str> = wanted.split(' ').collect();
    let judge = |proto: &str, tally: &Tally| -> Result<()> {
        let what = format!("{wanted:?}: {proto} {family:?}");
        match wanted.contains(&proto) {
            true => expect_all(&what, tally, Isp::Two),
            false => expect_balanced(&what, tally),
        }
    };
    let passed = |proto: &str| -> Result<Tally> {
        Ok(Tally {
            by_isp: lab.expect_passed(proto, family, OTHERS)?,
            ..Tally::default()
        })
    };
    judge("udp", &udp_flows(lab, OTHERS, family)?)?;
    judge("tcp", &tcp_like(&lab.client, OTHERS, |_| Flow::fresh(family))?)?;
    let icmp = if family == Family::V4 { "icmp" } else { "icmpv6" };
    lab.note_passage()?;
    pings(lab, &fresh_addresses(family, OTHERS))?;
    judge(icmp, &passed(icmp)?)?;
    for (proto, number, header) in TUNNELS {
        lab.note_passage()?;
        raw_packets(lab, number, &header, &fresh_addresses(family, OTHERS))?;
        judge(proto, &passed(proto)?)?;
    }
    Ok(())
}

/// Where frames come in, and who sends them.
pub fn by_link() -> Result<()> {
    let (lab, _echo) = lab(Shape::NicEach)?;
    let second = lab.second_lan()?;
    let rest = || Config {
        lans: vec!["lan1".into()],
        ..Config::default()
    };
    let daemon = Daemon::start(&lab, &rest())?;
    daemon.await_up()?;
    only_with(&lab, "iif = \"lan1\"", rest())?;
    two_lans(&lab, &second, [false, true])?;
    only_with(&lab, "not = { iif = \"lan1\" }", rest())?;
    two_lans(&lab, &second, [true, false])?;
    only_with(&lab, "iif = \"gone0\"", rest())?;
    two_lans(&lab, &second, [false, false])?;
    only_with(&lab, &format!("mac = \"{MAC}\""), rest())?;
    two_lans(&lab, &second, [false, false])?;
    lab.client.ip(&format!("link set eth0 address {MAC}\n"))?;
    lab.router.run("ip neigh flush dev lan0")?;
    two_lans(&lab, &second, [true, false])?;
    only_with(&lab, &format!("not = {{ mac = \"{MAC}\" }}"), rest())?;
    two_lans(&lab, &second, [false, true])?;
    only_with(&lab, "iif = \"lan1\"", rest())?;
    made_anew(&lab, second)?;
    daemon.stop()
}

const MAC: &str = "02:00:00:00:ca:fe";

/// An interface of the same name and another index is the same to policies.
fn made_anew(lab: &Lab, second: Namespace) -> Result<()> {
    // Its end goes with the namespace.
    drop(second);
    let gone = || Ok(lab.router.run("ip link show lan1").is_err());
    await_within("lan1 is gone", Instant::now(), 10 * SECOND, gone)?;
    let second = lab.second_lan()?;
    pause(1.5);
    two_lans(lab, &second, [false, true])
}

/// Whether the clients of each network go by isp2 only.
fn two_lans(lab: &Lab, second: &Namespace, only: [bool; 2]) -> Result<()> {
    for family in Family::ALL {
        let address: IpAddr = match family {
            Family::V4 => Ipv4Addr::new(172, 16, 1, 2).into(),
            Family::V6 => Ipv6Addr::new(0xfd00, 0x11, 0, 0, 0, 0, 0, 2).into(),
        };
        let first = udp_like(&lab.client, OTHERS, |_| Flow::fresh(family))?;
        let other = udp_like(second, OTHERS, |_| Flow::fresh(family).from_address(address))?;
        for (what, tally, only) in [("lan0", first, only[0]), ("lan1", other, only[1])] {
            match only {
                true => expect_all(what, &tally, Isp::Two)?,
                false => expect_balanced(what, &tally)?,
            }
        }
    }
    Ok(())
}
