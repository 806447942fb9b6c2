//! What users would pick, and what we do.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{Array, Map, MapData};
use uplink_common::path::{FIRST_LOOK_S, Fast, Way};
use uplink_common::record::DEFAULT_FLOWS;
use uplink_lab::daemon::binary;
use uplink_userspace::fast::LOOK_AGAIN_S;

use crate::wire::Wire;

/// Where the daemon's files are, on the private tmpfs.
pub const DIRECTORY: &str = uplink_lab::isolate::LAB_DIR;

/// Where the daemon pins its maps.
pub const PINS: &str = "/sys/fs/bpf/uplink";

/// How packets are forwarded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Case {
    /// IPv6 instead of IPv4.
    pub v6: bool,
    /// With source NAT.
    pub nat: bool,
}

impl Case {
    /// All.
    pub const ALL: [Self; 4] = [
        Self {
            v6: false,
            nat: false,
        },
        Self { v6: false, nat: true },
        Self { v6: true, nat: false },
        Self { v6: true, nat: true },
    ];

    /// As people say it.
    pub const fn name(self) -> &'static str {
        match (self.v6, self.nat) {
            (false, false) => "IPv4",
            (false, true) => "IPv4 with NAT",
            (true, false) => "IPv6",
            (true, true) => "IPv6 with NAT",
        }
    }

    /// In arguments and file names.
    pub const fn short(self) -> &'static str {
        match (self.v6, self.nat) {
            (false, false) => "v4",
            (false, true) => "v4-nat",
            (true, false) => "v6",
            (true, true) => "v6-nat",
        }
    }

    const fn default_route(self) -> (&'static str, [&'static str; 2]) {
        if self.v6 {
            ("::/0", ["fd00:1::1", "fd00:2::1"])
        } else {
            ("0.0.0.0/0", ["192.168.1.1", "10.0.0.1"])
        }
    }
}

/// Somebody who routes. Two uplinks have 3 and 1 shares of the flows, unless there is one alone.
pub struct Contestant {
    /// Its name in tables.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// What the interface runs before the contestant has come; `None`: the contestant brings it.
    pub driver: Option<&'static str>,
    /// How long after its first packets a flow is in its best way, in seconds.
    pub settles_s: u64,
    /// So often each flow takes a longer way, in seconds.
    pub again_s: u64,
    /// The first gateway's share.
    pub share: Option<f64>,
    set_up: fn(&Wire, Case, u32) -> Result<Guard>,
    fits: fn(Case) -> bool,
}

impl Contestant {
    /// From a flow's packet that takes the longer way to the next one, which has to come first.
    pub fn period(&self, flows: u32) -> Duration {
        Duration::from_secs(self.again_s) + Duration::from_secs_f64(f64::from(flows) / PACKETS_A_SECOND)
    }
}

/// What has to end before the namespaces do.
#[derive(Default)]
pub struct Guard(Option<Child>);

impl Guard {
    /// The daemon's process.
    pub fn pid(&self) -> Result<u32> {
        Ok(self.0.as_ref().context("no daemon")?.id())
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(daemon) = &mut self.0 {
            let _ = daemon.kill();
            let _ = daemon.wait();
            let _ = std::fs::remove_dir_all("/run/uplink");
            let _ = std::fs::remove_dir_all(PINS);
        }
    }
}

/// About what one CPU does with flows that are drawn from a million.
const PACKETS_A_SECOND: f64 = 500_000.0;
const PASS: Option<&str> = Some("wire_pass");
const BALANCED: Option<f64> = Some(0.75);

/// All of them, in the order of the tables.
pub const ALL: &[Contestant] = &[
    Contestant {
        name: "wire",
        about: "the wire alone: the router's driver drops every packet",
        driver: Some("wire_drop"),
        settles_s: 0,
        again_s: 0,
        share: None,
        set_up: |_, _, _| Ok(Guard::default()),
        fits: |case| !case.nat,
    },
    Contestant {
        name: "plain",
        about: "one default route, no choice",
        driver: PASS,
        settles_s: 0,
        again_s: 0,
        share: Some(1.0),
        set_up: |wire, case, _| plain(wire, case),
        fits: |_| true,
    },
    Contestant {
        name: "multipath",
        about: "the kernel's multipath route, hash policy 1",
        driver: PASS,
        settles_s: 0,
        again_s: 0,
        share: BALANCED,
        set_up: |wire, case, _| multipath(wire, case),
        fits: |_| true,
    },
    Contestant {
        name: "resilient",
        about: "a resilient nexthop group, hash policy 1",
        driver: PASS,
        settles_s: 0,
        again_s: 0,
        share: BALANCED,
        set_up: |wire, case, _| resilient(wire, case),
        fits: |_| true,
    },
    Contestant {
        name: "nft",
        about: "nftables: jhash, the connection's mark, a rule for each mark",
        driver: PASS,
        settles_s: 0,
        again_s: 0,
        share: BALANCED,
        set_up: |wire, case, _| nftables(wire, case),
        fits: |_| true,
    },
    Contestant {
        name: "mwan3",
        about: "iptables in the way of mwan3: the connection's mark, chains by interface, statistic",
        driver: PASS,
        settles_s: 0,
        again_s: 0,
        share: BALANCED,
        set_up: |wire, case, _| mwan3(wire, case),
        fits: |_| true,
    },
    Contestant {
        name: "uplink-mark",
        about: "uplink: the packet's mark, a rule for each",
        driver: PASS,
        settles_s: 0,
        again_s: 0,
        share: BALANCED,
        set_up: |wire, case, flows| start(wire, case, flows, "mode = \"mark\"\n"),
        fits: |_| true,
    },
    Contestant {
        name: "uplink-nexthop",
        about: "uplink: straight to the gateway, past the kernel's forwarding",
        driver: PASS,
        settles_s: 0,
        again_s: 0,
        share: BALANCED,
        set_up: |wire, case, flows| start(wire, case, flows, "mode = \"nexthop\"\n"),
        fits: |case| !case.nat,
    },
    Contestant {
        name: "uplink-fast",
        about: "uplink: known flows are rewritten and sent on at the wire",
        driver: None,
        settles_s: FIRST_LOOK_S as u64 + 1,
        again_s: LOOK_AGAIN_S as u64,
        share: BALANCED,
        set_up: |wire, case, flows| start(wire, case, flows, "attach = \"xdp\"\n"),
        fits: |_| true,
    },
];

impl Contestant {
    /// Whether it can do this.
    pub fn fits(&self, case: Case) -> bool {
        (self.fits)(case)
    }

    /// What changes when flows have to be learned anew: the fast path's generation, and how many neighbours were lost in it.
    pub fn learned(&self) -> Result<(u32, usize)> {
        if self.again_s == 0 {
            return Ok((0, 0));
        }
        let pinned = |name: &str| {
            let map = MapData::from_pin(format!("{PINS}/{name}")).context(name.to_owned())?;
            anyhow::Ok(Map::Array(map))
        };
        let fast: Array<_, Fast> = pinned("fast")?.try_into()?;
        let ways: Array<_, Way> = pinned("ways")?.try_into()?;
        let generation = fast.get(&0, 0)?.generation;
        let closed = |way: &Way| way.generation == generation && way.is_closed();
        let ways = ways.iter().collect::<Result<Vec<Way>, _>>()?;
        Ok((generation, ways.iter().filter(|way| closed(way)).count()))
    }

    /// Sets the router up for so many flows.
    pub fn set_up(&self, wire: &Wire, case: Case, flows: u32) -> Result<Guard> {
        // Flows are silent between warming up and measuring.
        let _ = wire.router.sysctl("netfilter/nf_conntrack_udp_timeout", "300");
        (self.set_up)(wire, case, flows)
    }
}

fn plain(wire: &Wire, case: Case) -> Result<Guard> {
    let (all, [gateway, _]) = case.default_route();
    wire.router.ip(&format!("route replace {all} via {gateway}\n"))?;
    masquerade(wire, case)
}

fn multipath(wire: &Wire, case: Case) -> Result<Guard> {
    hash_ports(wire)?;
    let (all, [first, second]) = case.default_route();
    wire.router.ip(&format!(
        "route add {all} nexthop via {first} weight 3 nexthop via {second} weight 1\n"
    ))?;
    masquerade(wire, case)
}

fn resilient(wire: &Wire, case: Case) -> Result<Guard> {
    hash_ports(wire)?;
    let (all, [first, second]) = case.default_route();
    wire.router.ip(&format!(
        "nexthop add id 1 via {first} dev eth0\nnexthop add id 2 via {second} dev eth0\n\
         nexthop add id 10 group 1,3/2,1 type resilient buckets 1024\nroute add {all} nhid 10\n"
    ))?;
    masquerade(wire, case)
}

fn hash_ports(wire: &Wire) -> Result<()> {
    wire.router.sysctl("ipv4/fib_multipath_hash_policy", "1")?;
    wire.router.sysctl("ipv6/fib_multipath_hash_policy", "1")
}

fn masquerade(wire: &Wire, case: Case) -> Result<Guard> {
    if case.nat {
        let clients = if case.v6 {
            "ip6 saddr fd00:10::/64"
        } else {
            "ip saddr 172.16.0.0/16"
        };
        wire.router.nft(&format!(
            "table inet nat {{}}\nflush table inet nat\ntable inet nat {{ chain post {{ type nat hook postrouting priority srcnat\n{clients} masquerade\n}}\n}}\n"
        ))?;
    }
    Ok(Guard::default())
}

/// A table and a rule for each gateway, as a script by hand would make them.
fn tables(wire: &Wire, case: Case) -> Result<()> {
    let (all, gateways) = case.default_route();
    let family = if case.v6 { "-6" } else { "-4" };
    let connected = wire
        .router
        .run(&format!("ip {family} route show scope link dev eth0"))?;
    let connected: Vec<&str> = connected
        .lines()
        .filter(|line| !line.starts_with("fe80"))
        .collect();
    for (n, gateway) in (1..).zip(gateways) {
        let mut lines = format!("route add {all} via {gateway} table {n}\n");
        for route in &connected {
            let prefix = route.split_whitespace().next().unwrap_or_default();
            lines += &format!("route add {prefix} dev eth0 table {n}\n");
        }
        let priority = 2000 + n;
        lines += &format!(
            "rule add fwmark {:#x}/0x3f00 table {n} priority {priority}\n",
            n << 8
        );
        let lines = lines.lines().map(|line| format!("{line}\n")).collect::<String>();
        let batch = format!("{family} -batch -");
        feed(wire, "ip", &batch, &lines)?;
    }
    // What has no mark.
    wire.router.ip(&format!("route add {all} via {}\n", gateways[0]))
}

fn nftables(wire: &Wire, case: Case) -> Result<Guard> {
    tables(wire, case)?;
    let ip = if case.v6 { "ip6" } else { "ip" };
    wire.router.nft(&format!(
        "table inet balance {{ chain pre {{ type filter hook prerouting priority mangle;\n\
           fib daddr type local accept\n\
           {ip} daddr {{ {} }} accept\n\
           meta mark set ct mark\n\
           meta mark != 0 accept\n\
           meta mark set jhash {ip} saddr . {ip} daddr . udp sport . udp dport mod 4 map \
             {{ 0 : 0x100, 1 : 0x100, 2 : 0x100, 3 : 0x200 }}\n\
           ct mark set meta mark\n\
         }}\n}}\n",
        inside(case)
    ))?;
    masquerade(wire, case)
}

fn inside(case: Case) -> &'static str {
    if case.v6 {
        "fd00:1::/64, fd00:2::/64, fd00:10::/64"
    } else {
        "192.168.1.0/24, 10.0.0.0/24, 172.16.0.0/16"
    }
}

/// The chains that mwan3 2.x makes, but plain matches where it uses sets of addresses.
fn mwan3(wire: &Wire, case: Case) -> Result<Guard> {
    tables(wire, case)?;
    let connected: String = inside(case)
        .split(", ")
        .map(|prefix| format!("-A connected -d {prefix} -j MARK --set-xmark 0x3f00/0x3f00\n"))
        .collect();
    let unmarked = "-m mark --mark 0x0/0x3f00";
    let script = format!(
        "*mangle\n:hook - [0:0]\n:connected - [0:0]\n:rules - [0:0]\n:policy - [0:0]\n:ifaces - [0:0]\n:in1 - [0:0]\n\
         :in2 - [0:0]\n-A PREROUTING -j hook\n-A OUTPUT -j hook\n\
         -A hook {unmarked} -j CONNMARK --restore-mark --nfmask 0x3f00 --ctmask 0x3f00\n\
         -A hook {unmarked} -j ifaces\n-A hook {unmarked} -j connected\n-A hook {unmarked} -j rules\n\
         -A hook -j CONNMARK --save-mark --nfmask 0x3f00 --ctmask 0x3f00\n\
         -A hook -m mark ! --mark 0x3f00/0x3f00 -j connected\n\
         -A ifaces {unmarked} -j in1\n-A ifaces {unmarked} -j in2\n\
         -A in1 -i wan1 {unmarked} -j MARK --set-xmark 0x100/0x3f00\n\
         -A in2 -i wan2 {unmarked} -j MARK --set-xmark 0x200/0x3f00\n{connected}\
         -A rules {unmarked} -j policy\n\
         -A policy {unmarked} -m statistic --mode random --probability 0.25 -j MARK --set-xmark 0x200/0x3f00\n\
         -A policy {unmarked} -j MARK --set-xmark 0x100/0x3f00\nCOMMIT\n"
    );
    let program = if case.v6 {
        "ip6tables-restore"
    } else {
        "iptables-restore"
    };
    feed(wire, program, "", &script)?;
    masquerade(wire, case)
}

fn feed(wire: &Wire, program: &str, arguments: &str, input: &str) -> Result<()> {
    use std::io::Write as _;
    let mut command = wire.router.command(program);
    command.args(arguments.split_whitespace());
    let mut child = command
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| program.to_owned())?;
    let _ = child
        .stdin
        .take()
        .context("no stdin")?
        .write_all(input.as_bytes());
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program}: {} in:\n{input}", said.trim());
    Ok(())
}

/// Where the daemon writes what it has to say.
fn log() -> String {
    format!("{DIRECTORY}/daemon.log")
}

/// The last lines of what the daemon said; more of them with `UPLINK_LOG=debug`.
pub fn log_end(lines: usize) -> String {
    let log = std::fs::read_to_string(log()).unwrap_or_default();
    let all: Vec<&str> = log.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Writes the daemon's configuration.
pub fn write(case: Case, flows: u32, more: &str) -> Result<()> {
    write_local(case, flows, more, None)
}

fn write_local(case: Case, flows: u32, more: &str, cgroup: Option<&str>) -> Result<()> {
    // A full table forgets flows that are in use; the default is for up to half of it.
    let flows = DEFAULT_FLOWS.max(2 * flows);
    let nat = if case.nat { "masquerade" } else { "off" };
    let local = cgroup.map_or("enabled = false".into(), |c| format!("cgroup = \"{c}\""));
    let text = format!(
        "[[uplink]]\nname = \"isp1\"\ninterface = \"eth0\"\ngateway = \"192.168.1.1\"\ngateway6 = \"fd00:1::1\"\nweight = 3\n\
         [[uplink]]\nname = \"isp2\"\ninterface = \"eth0\"\ngateway = \"10.0.0.1\"\ngateway6 = \"fd00:2::1\"\nweight = 1\n\
         [lan]\ninterfaces = [\"eth0\"]\n[local]\n{local}\n[nat]\nmode = \"{nat}\"\n[kernel]\nflows = {flows}\n{more}"
    );
    Ok(std::fs::write(format!("{DIRECTORY}/uplink.toml"), text)?)
}

/// The daemon, as a user runs it, until it finds both uplinks up.
pub fn start(wire: &Wire, case: Case, flows: u32, more: &str) -> Result<Guard> {
    write(case, flows, more)?;
    run(wire, case)
}

/// The same, steering the sockets of this cgroup, too.
pub fn start_local(wire: &Wire, case: Case, cgroup: &str) -> Result<Guard> {
    write_local(case, 1, "", Some(cgroup))?;
    run(wire, case)
}

fn run(wire: &Wire, case: Case) -> Result<Guard> {
    // The router has a default route before the daemon comes, as every router has.
    let (all, [gateway, _]) = case.default_route();
    wire.router.ip(&format!("route replace {all} via {gateway}\n"))?;
    let log = File::create(log())?;
    let mut command = daemon(wire, &["run"])?;
    let child = command.stdout(log.try_clone()?).stderr(log).spawn()?;
    let guard = Guard(Some(child));
    await_up(wire)?;
    Ok(guard)
}

fn await_up(wire: &Wire) -> Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(15) {
        let output = daemon(wire, &["status", "--json"])?.output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        if said.matches("\"state\": \"up\"").count() + said.matches("\"state\":\"up\"").count() == 2 {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    bail!(
        "the daemon's uplinks are not up within 15 s; its log:\n{}",
        log_end(usize::MAX)
    )
}

/// A subcommand in the router's namespace.
pub fn daemon(wire: &Wire, arguments: &[&str]) -> Result<Command> {
    let program = binary()?;
    let program = program.to_str().context("a path that is no UTF-8")?;
    let mut command = wire.router.command(program);
    let config = format!("{DIRECTORY}/uplink.toml");
    command.args([
        "--config",
        &config,
        "--runtime-dir",
        "/run/uplink",
        "--bpffs",
        PINS,
    ]);
    command.args(arguments);
    Ok(command)
}
