//! From a configuration to a steering kernel. A start that fails leaves nothing behind, and
//! what an earlier daemon left is adopted.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context as _, Result, ensure};
use tokio::sync::mpsc;
use uplink_common::{ABI, Addr, Family, NextHop, Seed, Uplink as Record};

use super::gateways::Gateways;
use super::measure::Measured;
use super::names::Names;
use super::policies::Policies;
use super::{Daemon, stop};
use crate::census::Census;
use crate::config::{self, Config};
use crate::engine::{self, Engine, Selection, Settings};
use crate::events::Journal;
use crate::history::History;
use crate::hooks::Hooks;
use crate::host::Host;
use crate::loader::{self, ClsactPort, Hook, Loaded, Port, Room};
use crate::lock::Lock;
use crate::maps::{self, Addresses, Maps};
use crate::names::Told;
use crate::options::Options;
use crate::plan::Plan;
use crate::policy::groups;
use crate::repairs::Repairs;
use crate::resolve::{self, Followed, Missing, Uplink};
use crate::routes::Routes;
use crate::state::{self, State};
use crate::tally::Tally;
use crate::{
    aggregate, bypass, conntrack, desired, fast, flow_map, inspect, links, nat, nexthop, probe, stations,
    sysctl,
};

/// What a start that fails says where somebody else's steering is there.
pub const GOES_ON: &str = "the start failed; what the earlier daemon left goes on steering";

/// Starts steering. Undoes what it did when it fails, unless an earlier daemon's steering is
/// still there: that goes on with its last good table.
pub async fn start(
    options: &Options,
    mut config: Config,
    wait: bool,
) -> Result<(Daemon, mpsc::Receiver<Told>)> {
    capabilities()?;
    let hook = loader::hook(config.kernel.attach)?;
    let left = State::read(&options.runtime_dir)?.map(|state| state.protocol);
    let tagged = left.unwrap_or(config.kernel.protocol);
    let mut host = links::snapshot(tagged).await?;
    // The configuration is judged before anything is touched.
    let missing = match wait {
        true => Missing::Anything,
        false => Missing::Nothing,
    };
    let found = resolve::resolve_but(missing, &config, &host, &BTreeMap::new())?;
    inspect::compiled(&config)?;
    config.kernel.suits_fast = suits_fast(&config, &host, &found.uplinks).await;
    let new_dir = !options.runtime_dir.exists();
    state::create_dir(&options.runtime_dir)?;
    let lock = match Lock::take(&options.runtime_dir) {
        Ok(lock) => lock,
        Err(e) => {
            if new_dir {
                let _ = std::fs::remove_dir(&options.runtime_dir);
            }
            return Err(e);
        }
    };
    if tagged != config.kernel.protocol {
        // Nobody would know whose the old routes and rules are.
        tracing::info!("[kernel] protocol was {tagged}: what an earlier daemon left is removed first");
        stop::put_back(options, None).await?;
        host = links::snapshot(config.kernel.protocol).await?;
    }
    let adopting = left == Some(config.kernel.protocol);
    match bring_up(options, config, host, hook, missing).await {
        Ok((parts, told)) => {
            return_memory();
            let mut daemon = parts.with(options, lock, adopting);
            daemon.attach_host();
            Ok((daemon, told))
        }
        Err(e) => {
            if adopting {
                tracing::error!("{GOES_ON}");
            } else if let Err(e) = stop::put_back(options, None).await {
                tracing::error!("cleaning up after the failed start: {e:#}");
            }
            if !adopting {
                lock.remove();
                State::remove(&options.runtime_dir);
            }
            Err(e)
        }
    }
}

/// Loading parses the programs' debug information; what that took goes back to the system.
fn return_memory() {
    // SAFETY: no preconditions.
    unsafe { libc::malloc_trim(0) };
}

/// Everything but the lock.
struct Parts {
    config: Config,
    engine: Engine,
    maps: Maps,
    loaded: Loaded,
    routes: Routes,
    settings: maps::Settings,
    ports: Vec<Port>,
    host: Host,
    policies: Policies,
    names: Names,
}

impl Parts {
    fn with(self, options: &Options, lock: Lock, has_adopted: bool) -> Daemon {
        let mut hooks = Hooks::default();
        hooks.follow(self.config.hooks.as_ref());
        let measured = Measured::new(options, &self.config, self.engine.uplinks());
        Daemon {
            options: options.clone(),
            config: self.config,
            engine: self.engine,
            maps: self.maps,
            loaded: self.loaded,
            routes: self.routes,
            applied: Plan::default(),
            settings: self.settings,
            ports: self.ports,
            host: self.host,
            followed: Followed::default(),
            gateways: Gateways::default(),
            measured,
            policies: self.policies,
            names: self.names,
            pending: VecDeque::new(),
            retiring: Vec::new(),
            pulses: 0,
            beat: None,
            changed_nft: None,
            since: SystemTime::now(),
            begun: tokio::time::Instant::now(),
            warnings: Vec::new(),
            repairs: Repairs::default(),
            census: Census::new(options.bpffs.join(maps::FLOWS)),
            journal: Journal::default(),
            told: super::news::Told::default(),
            hooks,
            tally: Tally::default(),
            history: History::default(),
            fast: super::fast::FastPath::default(),
            has_adopted,
            lock,
        }
    }
}

/// Tables and NAT first, the programs last: a mark must never appear before its rule does.
async fn bring_up(
    options: &Options,
    config: Config,
    host: Host,
    hook: Hook,
    missing: Missing<'_>,
) -> Result<(Parts, mpsc::Receiver<Told>)> {
    loader::prepare(&options.bpffs)?;
    let mut loaded = Loaded::load(&options.bpffs, hook, Room::of(&config.kernel), options.verbose)?;
    let mut maps = loaded.maps()?;
    let records = maps.uplinks()?;
    let ids: BTreeMap<String, u8> = records.iter().map(|(id, r)| (maps::name(r), *id)).collect();
    let found = resolve::resolve_but(missing, &config, &host, &ids)?;
    let uplinks = found.uplinks.clone();
    let earlier = State::read(&options.runtime_dir)?;
    let (drained, in_maps, filtered) =
        earlier.map_or_else(Default::default, |s| (s.drained, s.groups, s.clsact));
    let mut was_down = maps::found_dead(&records, &uplinks);
    // A drained uplink serves nobody because somebody wants it so.
    let is_drained = |p: &crate::engine::Path| {
        uplinks
            .iter()
            .any(|u| u.id == p.uplink && drained.contains(&u.name))
    };
    was_down.retain(|p| !is_drained(p));
    // The policies of an earlier daemon are still read, and whatever it had may be in use.
    let groups = groups::arrange(&in_maps, &in_maps, &config::groups(&config.policies));
    let wanted = Settings::of(&config).with_groups(groups);
    let engine = Engine::new(uplinks, wanted, &was_down, &drained);
    let before = ports(&config, &host, engine.uplinks());
    loaded.verify(&programs(&config, &before))?;
    maps.forget_others(engine.uplinks())?;
    remember(options, &config, &engine, &before, hook)?;

    let routes = Routes::new(config.kernel.protocol)?;
    let running = |u: &Uplink, family| is_running(&host, u) && found.is_usable(u, family);
    let plan = desired::plan(&config, &engine, &host, running);
    let (guards, others) = sysctl::apart(plan.sysctls.clone());
    for change in sysctl::apply(&others)? {
        tracing::info!("sysctl {change}");
    }
    nat::apply(&plan.nft).await?;
    // Conntrack and its sysctls may have come with our rules.
    sysctl::apply(&desired::sysctls(&config, engine.uplinks()))?;
    routes.apply(&plan).await?;
    let host = make_aggregate(&config, engine.uplinks(), host).await?;
    let ports = ports(&config, &host, engine.uplinks());

    let settings = settings(&config, engine.uplinks(), &maps)?;
    maps.set_addresses(&addresses(&host, engine.uplinks(), &config.kernel))?;
    maps.routes_changed()?;
    // What an earlier daemon's flows were learned by may have changed meanwhile, and nobody has looked yet.
    maps.fast.switch([false; 2], fast::LOOK_AGAIN_S)?;
    maps.heartbeat(flow_map::now_s())?;
    let selection = Selection {
        voided: moved(&records, engine.uplinks()),
        ..engine.selection().clone()
    };
    maps.publish(engine.uplinks(), &selection, &settings)?;
    let mut policies = Policies::adopt(&maps)?;
    let (mut names, told) = Names::new(&mut maps)?;
    names.follow(&config, &host, engine.uplinks())?;
    names.restore(&options.runtime_dir);
    policies.write(&mut maps, &mut names, &config, engine.groups(), &host)?;
    for port in &ports {
        loaded.attach(port)?;
    }
    // Only now somebody else looks at source addresses.
    for change in sysctl::apply(&guards)? {
        tracing::info!("sysctl {change}");
    }
    forget_gone(&config, &records, engine.uplinks()).await?;
    for engine::Path { uplink, family } in selection.voided {
        if let Some(u) = engine.uplinks().iter().find(|u| u.id == uplink) {
            conntrack::delete_by_mark(u.mark, config.kernel.fwmark_mask.bits(), family).await?;
        }
    }
    // What an earlier daemon had elsewhere goes last: up to here it could go on.
    loaded.detach_others(&ports, &filtered)?;
    if !config.kernel.is_fast() {
        loaded.detach_other_wires(&[])?;
    }
    let parts = Parts {
        policies,
        names,
        config,
        engine,
        maps,
        loaded,
        routes,
        settings,
        ports,
        host,
    };
    Ok((parts, told))
}

/// Brings the aggregate interface to what the file says, once its rules and its part of NAT are
/// there, and returns the host with it.
pub async fn make_aggregate(config: &Config, uplinks: &[Uplink], host: Host) -> Result<Host> {
    let outer = aggregate::outer(config);
    aggregate::remove_others(outer).await?;
    let Some(outer) = outer else { return Ok(host) };
    for what in aggregate::ensure(outer, uplinks, &config.kernel).await? {
        tracing::info!("{what}");
    }
    sysctl::apply(&desired::sysctls(config, uplinks))?;
    links::snapshot(config.kernel.protocol).await
}

/// Paths that have another source address than an earlier daemon gave their flows, to which nothing answers any more.
fn moved(records: &[(u8, Record)], uplinks: &[Uplink]) -> Vec<engine::Path> {
    let mut moved = Vec::new();
    for (id, record) in records {
        let Some(u) = uplinks
            .iter()
            .find(|u| u.id == *id && maps::name(record) == u.name)
        else {
            continue;
        };
        for family in Family::ALL {
            let before = record.source[family as usize];
            let leg = u.leg(family).filter(|_| before != Addr::default());
            if leg.is_some_and(|leg| Addr::from(leg.source) != before) {
                moved.push(engine::Path { uplink: *id, family });
            }
        }
    }
    moved
}

/// Connections of uplinks that an earlier daemon had and the file no longer has start anew.
async fn forget_gone(config: &Config, records: &[(u8, Record)], uplinks: &[Uplink]) -> Result<()> {
    for (id, record) in records {
        if record.mark != 0 && uplinks.iter().all(|u| u.id != *id) {
            let mask = config.kernel.fwmark_mask.bits();
            for family in Family::ALL {
                conntrack::delete_by_mark(record.mark, mask, family).await?;
            }
        }
    }
    Ok(())
}

/// The programs that this configuration has work for.
pub fn programs(config: &Config, ports: &[Port]) -> BTreeSet<&'static str> {
    loader::needed(ports, config.kernel.is_fast(), config.local.enabled)
}

/// Attaches the programs of this host's sockets, or takes them off. Returns what was attached.
pub fn attach_host(loaded: &mut Loaded, local: &config::Local) -> Result<Vec<String>> {
    if !local.enabled {
        loaded.detach_host()?;
        return Ok(Vec::new());
    }
    loaded.attach_host(&loader::cgroup_directory(&local.cgroup.value)?)
}

/// Whether an uplink's interface is up.
pub fn is_running(host: &Host, u: &Uplink) -> bool {
    host.interface(&u.interface).is_some_and(|i| i.running)
}

/// Whether any policy goes by names.
pub fn learns(config: &Config) -> bool {
    config.policies.iter().any(|p| !p.matches.domain.is_empty())
}

/// Silence that is borne, as the map has it.
pub fn stale_after_s(config: &Config) -> u32 {
    let after = config.kernel.stale_after.map_or(0, |d| d.as_secs());
    u32::try_from(after).unwrap_or(u32::MAX)
}

/// The secret of the hash, unless the file has one, survives restarts, so that flows whose pin was evicted meanwhile
/// find the same uplink again.
fn settings(config: &Config, uplinks: &[Uplink], maps: &Maps) -> Result<maps::Settings> {
    let before = maps.config()?;
    let seed = match config.kernel.seed {
        Some(seed) => seed,
        None if before.abi == ABI => before.seed,
        None => random_seed()?,
    };
    Ok(maps::Settings {
        mask: config.kernel.fwmark_mask,
        seed,
        nat: config.nat.mode,
        netns: loader::namespace_cookie().context("reading the network namespace's cookie")?,
        stale_after_s: stale_after_s(config),
        learns: learns(config),
        guards: desired::guards(config, uplinks),
        next_hop: [false; 2],
    })
}

fn random_seed() -> Result<Seed> {
    let random = || probe::random().context("reading random bytes");
    Ok(Seed {
        k0: u64::from_ne_bytes(random()?),
        k1: u64::from_ne_bytes(random()?),
    })
}

/// Writes down what has to be put back, before anything is changed. Values that an earlier
/// daemon noted are the original ones, so they win.
pub fn remember(
    options: &Options,
    config: &Config,
    engine: &Engine,
    ports: &[Port],
    hook: Hook,
) -> Result<()> {
    let earlier = State::read(&options.runtime_dir)?;
    let wanted = desired::sysctls(config, engine.uplinks());
    let mut sysctls = sysctl::snapshot(&wanted)?;
    // Conntrack may come with our rules only.
    let is_fast = config.kernel.is_fast();
    if nexthop::is_possible(config) || is_fast {
        sysctls.assume(sysctl::LIBERAL, "0");
    }
    if is_fast {
        sysctls.assume(sysctl::EVENTS, "2");
    }
    let mut clsact = Vec::new();
    if let Some(earlier) = earlier {
        sysctls.prefer(earlier.sysctls);
        clsact = earlier.clsact;
    }
    for port in ports.iter().filter(|_| hook == Hook::Clsact) {
        if clsact.iter().all(|c| c.name != port.name) {
            let qdisc_is_ours = !loader::has_clsact(&port.name);
            clsact.push(ClsactPort {
                name: port.name.clone(),
                qdisc_is_ours,
            });
        }
    }
    State {
        protocol: config.kernel.protocol,
        sysctls,
        clsact,
        drained: engine.drained(),
        groups: engine.groups().to_vec(),
    }
    .write(&options.runtime_dir)
}

/// Whether a start would choose the fast path by itself.
pub async fn suits_fast(config: &Config, host: &Host, uplinks: &[Uplink]) -> bool {
    config.kernel.may_be_fast() && fast::suits(&ports(config, host, uplinks)).await
}

/// The interfaces to attach to: where clients enter, and where uplinks come back.
pub fn ports(config: &Config, host: &Host, uplinks: &[Uplink]) -> Vec<Port> {
    let lan = resolve::lan_interfaces(config);
    let mut names: Vec<&str> = lan.iter().map(String::as_str).collect();
    for u in uplinks {
        if !names.contains(&u.interface.as_str()) {
            names.push(&u.interface);
        }
    }
    let port = |name: &&str| {
        let interface = host.interface(name)?;
        let steers = lan.iter().any(|l| l == name);
        Some(Port {
            name: interface.name.clone(),
            ifindex: interface.index,
            steers,
        })
    };
    names.iter().filter_map(port).collect()
}

/// What the programs compare route answers, destinations and MAC addresses with.
pub fn addresses(host: &Host, uplinks: &[Uplink], kernel: &config::Kernel) -> Addresses {
    // A route by the aggregate interface means all uplinks. It has no gateway.
    let wire = |ifindex: &u32| {
        (
            NextHop {
                ifindex: *ifindex,
                ..NextHop::default()
            },
            0,
        )
    };
    let mut next_hops: Vec<(NextHop, u32)> = host.aggregates.iter().map(wire).collect();
    let mut locals: BTreeMap<IpAddr, u32> = BTreeMap::new();
    let own = host.interfaces.iter().flat_map(|i| &i.addresses);
    locals.extend(own.map(|net| (net.addr(), 0)));
    let mut owners: BTreeMap<IpAddr, Vec<u8>> = BTreeMap::new();
    let hidden = bypass::is_hidden_v6(host, kernel);
    for u in uplinks {
        for leg in Family::ALL.into_iter().filter_map(|f| u.leg(f)) {
            let gateway = Addr::from(leg.gateway);
            let ifindex = u.ifindex;
            if !(hidden && leg.gateway.is_ipv6()) {
                next_hops.push((NextHop::new(gateway, ifindex), u32::from(u.id)));
            }
            owners.entry(leg.source).or_default().push(u.id);
        }
    }
    for (source, ids) in owners {
        // What several uplinks use tells nothing about the one that a packet came by.
        let owner = if let [only] = ids[..] { only } else { 0 };
        locals.insert(source, u32::from(owner));
    }
    let mut bypass = bypass::prefixes(host, kernel);
    bypass.extend(bypass::unmoved(host, kernel));
    Addresses {
        next_hops,
        locals: locals.into_iter().map(|(a, id)| (a.into(), id)).collect(),
        stations: stations::stations(host, uplinks).known,
        bypass,
        unguarded: aggregate::inner_index(host).unwrap_or(0),
        mtus: uplinks.iter().map(|u| (u.id, mtu(host, u))).collect(),
    }
}

/// The longest packets that leave by an uplink whole, by family: its routes have the configured MTU.
pub fn mtu(host: &Host, u: &Uplink) -> [u32; 2] {
    let own = host.interface(&u.interface).map_or([0; 2], |i| i.mtu);
    own.map(|own| u.mtu.map_or(own, |mtu| mtu.min(own)))
}

/// Names the capabilities that are missing, before the first system call fails for them.
fn capabilities() -> Result<()> {
    const NEEDED: [(&str, u32); 4] = [
        ("CAP_NET_ADMIN", 12),
        ("CAP_NET_RAW", 13),
        ("CAP_PERFMON", 38),
        ("CAP_BPF", 39),
    ];
    let missing: Vec<&str> = {
        let held = effective(Path::new("/proc/self/status"))?;
        NEEDED
            .iter()
            .filter(|(_, bit)| held & (1 << bit) == 0)
            .map(|(name, _)| *name)
            .collect()
    };
    ensure!(
        missing.is_empty(),
        "missing {}: run as root or by uplink.service",
        missing.join(", ")
    );
    Ok(())
}

fn effective(status: &Path) -> Result<u64> {
    let text = std::fs::read_to_string(status).with_context(|| format!("reading {}", status.display()))?;
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix("CapEff:"))
        .context("no CapEff line")?;
    Ok(u64::from_str_radix(line.trim(), 16)?)
}
