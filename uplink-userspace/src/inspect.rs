//! `uplink check`: looks, never touches.

pub mod compare;
mod file;
pub(crate) mod present;
mod report;

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::json;
use uplink_common::record::Uplink as Record;
use uplink_common::{ABI, Family, SLOTS};

use crate::config::{self, Config, Problem, Problems};
use crate::daemon::start;
use crate::engine::{Engine, Settings};
use crate::host::Host;
use crate::options::Options;
use crate::plan::Plan;
use crate::policy::compile::{Compiled, Surroundings, compile};
use crate::policy::lint;
use crate::resolve::{self, Uplink};
use crate::routes::Routes;
use crate::state::State;
use crate::{aggregate, api, desired, links, loader, maps, nat, sysctl, table};

use compare::{Named, Tables, named, unknown, unknown_named};
use present::Pinned;
pub use report::{Line, Report, Section, Sign};

/// Validates the configuration against this host; with `plan` shows what would change.
///
/// # Errors
/// With every problem found.
pub async fn check(options: &Options, plan: bool) -> Result<()> {
    let mut config = config::load(&options.config)?;
    let host = links::snapshot(tagged(options, &config)).await?;
    let pinned = present::pins(&options.bpffs);
    let ids = ids(pinned.as_ref().ok());
    let found = resolve::resolve(&config, &host, &ids)?;
    for unusable in &found.unusable {
        eprintln!("note: {unusable}");
    }
    let uplinks = found.uplinks;
    let warnings = resolve::warnings(&config, &uplinks);
    for warning in warnings
        .into_iter()
        .chain(lint::warnings(&config.policies, usize::MAX))
    {
        eprintln!("warning: {}\nhelp: {}", warning.text, warning.remedy);
    }
    compiled(&config)?;
    if !plan {
        let file = config.file.path.display();
        return print(&format!("{file}: {} uplinks, no problems\n", uplinks.len()));
    }
    let report = match asked(options).await? {
        Asked::Answered(report) => report,
        Asked::Silent(note) => {
            config.kernel.suits_fast = start::suits_fast(&config, &host, &uplinks).await;
            let engine = engine(options, &config, uplinks, pinned.as_ref().ok());
            let wanted = Wanted {
                config,
                engine,
                host,
                running: None,
            };
            let mut report = wanted.report(options).await;
            report.notes.splice(0..0, note);
            report
        }
    };
    let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    print(&report.text(colour))
}

/// How routes and rules of ours are tagged now: where the file has another tag, as what runs has tagged them.
fn tagged(options: &Options, config: &Config) -> u8 {
    let left = State::read(&options.runtime_dir).ok().flatten();
    left.map_or(config.kernel.protocol, |state| state.protocol)
}

/// A pager that was left is no failure.
pub(crate) fn print(text: &str) -> Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(()),
    }
}

/// What a daemon says of a reload.
enum Asked {
    Answered(Report),
    /// Nobody answered for this file, and what people should know about that.
    Silent(Option<String>),
}

async fn asked(options: &Options) -> Result<Asked> {
    let answer = match api::call(&options.runtime_dir, api::PLAN, json!({})).await {
        Ok(answer) => answer,
        Err(e) if e.is::<api::Error>() => {
            return Ok(Asked::Silent(Some(format!(
                "the daemon cannot say what a reload would do: {e:#}"
            ))));
        }
        Err(e) => {
            let note = format!("the daemon was not asked: {e:#}");
            return Ok(Asked::Silent((!api::is_gone(&e)).then_some(note)));
        }
    };
    let report: Report = serde_json::from_value(answer).context("the daemon is of another version")?;
    if report.config == absolute(&options.config) {
        return Ok(Asked::Answered(report));
    }
    let note = format!(
        "the daemon runs with {}, and this is what a start with {} would change",
        report.config,
        options.config.display()
    );
    Ok(Asked::Silent(Some(note)))
}

fn absolute(path: &Path) -> String {
    let path: PathBuf = path.canonicalize().unwrap_or_else(|_| path.into());
    path.display().to_string()
}

/// The ids that the uplinks have in these maps, by name.
pub(crate) fn ids(pinned: Option<&Pinned>) -> BTreeMap<String, u8> {
    match pinned {
        Some(Pinned::Ours(found)) => {
            let records = found.uplinks.iter();
            records.map(|(id, record)| (maps::name(record), *id)).collect()
        }
        _ => BTreeMap::new(),
    }
}

/// What a start would begin with: an earlier daemon's dead stay dead, and the drained drained.
fn engine(options: &Options, config: &Config, uplinks: Vec<Uplink>, pinned: Option<&Pinned>) -> Engine {
    let was_down = match pinned {
        Some(Pinned::Ours(found)) => maps::found_dead(&found.uplinks, &uplinks),
        _ => Vec::new(),
    };
    let state = State::read(&options.runtime_dir).ok().flatten();
    let drained = state.map(|s| s.drained).unwrap_or_default();
    Engine::new(uplinks, Settings::of(config), &was_down, &drained)
}

/// The tables of the policies: whether there is room for them.
///
/// # Errors
/// When there is none.
pub(crate) fn compiled(config: &Config) -> Result<Compiled, Problems> {
    let policies = &config.policies;
    let active = vec![true; policies.len()];
    let around = Surroundings::default();
    let groups = config::groups(policies);
    compile(policies, &[], &groups, &active, &around).map_err(|full| {
        // All of them together; the last one is as good a place as any.
        let place = policies.last().map_or(0..0, |policy| policy.span().clone());
        let problem = Problem::new(place, full.what(), full.remedy());
        Problems::check(&config.file, vec![problem]).expect_err("one problem")
    })
}

/// What a daemon with this configuration would make of this host.
pub struct Wanted {
    /// The configuration.
    pub config: Config,
    /// Who would serve.
    pub engine: Engine,
    /// The host.
    pub host: Host,
    /// What the daemon that runs goes by.
    pub running: Option<Running>,
}

/// What a running daemon goes by.
pub struct Running {
    /// The text of its configuration.
    pub file: String,
    /// The nftables table as it renders it.
    pub nft: String,
    /// Why a reload would be refused, if it would.
    pub refused: Option<String>,
}

impl Wanted {
    /// What is wanted beside what the kernel has. Reads only.
    pub async fn report(&self, options: &Options) -> Report {
        let followed = resolve::follow(&self.config, &self.host, self.engine.uplinks());
        let running = |u: &Uplink, family| start::is_running(&self.host, u) && followed.is_usable(u, family);
        let plan = desired::plan(&self.config, &self.engine, &self.host, running);
        let pinned = present::pins(&options.bpffs);
        let mut sections = vec![self.interfaces(), self.programs(&options.bpffs).await];
        sections.extend([self.maps(&options.bpffs, &pinned), self.policies(&pinned)]);
        sections.extend(self.routing(&plan).await);
        sections.push(self.nftables(&plan).await);
        sections.push(section("sysctls", compare::sysctls(&plan.sysctls, sysctl::read)));
        sections.extend(self.running.as_ref().map(|r| {
            let lines = file::settings(&r.file, &self.config.file.text);
            section("settings that the daemon keeps", lines)
        }));
        sections.retain(|s| !s.lines.is_empty());
        Report {
            config: absolute(&self.config.file.path),
            notes: self.notes(),
            sections,
        }
    }

    fn notes(&self) -> Vec<String> {
        let refused = self.running.as_ref().and_then(|r| r.refused.as_ref());
        let note = |why| format!("a reload would be refused: {why}");
        refused.into_iter().map(note).collect()
    }

    fn interfaces(&self) -> Section {
        let wanted: Vec<Named> = aggregate::outer(&self.config)
            .map(present::veth)
            .into_iter()
            .collect();
        section("interfaces", named(&wanted, &present::interfaces(&self.host)))
    }

    async fn programs(&self, bpffs: &Path) -> Section {
        let ports = start::ports(&self.config, &self.host, self.engine.uplinks());
        let local = &self.config.local;
        let cgroup = local.enabled.then_some(&*local.cgroup.value);
        let wanted = present::wanted_programs(&ports, cgroup);
        let found = match loader::hook(self.config.kernel.attach) {
            Ok(hook) => present::programs(bpffs, hook, &ports, &local.cgroup.value).await,
            Err(e) => Err(e),
        };
        compared("programs", &wanted, found)
    }

    fn maps(&self, bpffs: &Path, pinned: &Result<Pinned>) -> Section {
        let (files, there) = present::map_files(bpffs);
        match pinned {
            Err(e) => {
                let wanted = [files, self.entries(&[])].concat();
                noted("maps", unknown_named(&wanted), unread(e))
            }
            Ok(Pinned::Nothing) => section("maps", named(&[files, self.entries(&[])].concat(), &[])),
            Ok(Pinned::Other(abi)) => {
                let lines = named(&[files, self.entries(&[])].concat(), &there);
                let note = format!("of another version, ABI {abi} instead of {ABI}: made anew");
                noted("maps", lines, note)
            }
            Ok(Pinned::Ours(found)) => {
                let wanted = [files, self.entries(&found.uplinks)].concat();
                let present = [there, self.entries_of(found)].concat();
                section("maps", named(&wanted, &present))
            }
        }
    }

    /// Records of uplinks, and their slots. `before` are the records that are there.
    fn entries(&self, before: &[(u8, Record)]) -> Vec<Named> {
        let (uplinks, selection) = (self.engine.uplinks(), self.engine.selection());
        let record = |u: &Uplink| {
            let old = before.iter().find(|(id, _)| *id == u.id).map(|(_, r)| *r);
            let record = maps::record(u, selection, &old.unwrap_or_default(), start::mtu(&self.host, u));
            (u.id, record)
        };
        let records: Vec<(u8, Record)> = uplinks.iter().map(record).collect();
        let slots = Family::ALL.map(|family| {
            let claims = maps::claims(uplinks, selection.family(family));
            table::build(&claims, SLOTS)
        });
        self.worded(&records, &slots)
    }

    fn entries_of(&self, found: &present::Maps) -> Vec<Named> {
        self.worded(&found.uplinks, &found.slots)
    }

    fn worded(&self, records: &[(u8, Record)], slots: &[Vec<u8>; 2]) -> Vec<Named> {
        let uplink = |(id, record): &(u8, Record)| {
            let name = format!("uplink {}", maps::name(record));
            (name, words(*id, record, &self.host))
        };
        let mut all: Vec<Named> = records.iter().map(uplink).collect();
        for family in Family::ALL {
            for (id, record) in records {
                let count = slots[family as usize].iter().filter(|slot| *slot == id).count();
                if count > 0 {
                    let key = format!("slots {} {}", family_name(family), maps::name(record));
                    all.push((key, format!("{count} of {SLOTS}")));
                }
            }
        }
        all
    }

    fn policies(&self, pinned: &Result<Pinned>) -> Section {
        let wanted = file::policies(&self.config.file.text);
        let lines = match (&self.running, pinned) {
            (Some(running), _) => named(&wanted, &file::policies(&running.file)),
            (None, Ok(Pinned::Nothing | Pinned::Other(_))) => named(&wanted, &[]),
            (None, _) => {
                let note = "what an earlier daemon's maps say cannot be told in these words".to_owned();
                return noted("policies", unknown_named(&wanted), note);
            }
        };
        section("policies", lines)
    }

    async fn routing(&self, plan: &Plan) -> [Section; 2] {
        let names = |line: String| {
            let interfaces = self.host.interfaces.iter();
            interfaces.fold(line, |line, i| {
                let words = line
                    .split(' ')
                    .map(|word| match word == format!("if{}", i.index) {
                        true => &*i.name,
                        false => word,
                    });
                words.collect::<Vec<_>>().join(" ")
            })
        };
        let steps = async { Routes::new(self.config.kernel.protocol)?.steps(plan).await };
        match steps.await {
            Ok((rules, routes)) => [
                section("rules", compare::steps(&rules, "rule", &names)),
                section("routes", compare::steps(&routes, "route", &names)),
            ],
            Err(e) => {
                let text = |line: String| compare::command(&names(line));
                let rules = plan.rules.iter().map(|r| text(r.to_string()));
                let routes = plan.routes.iter().map(|r| text(r.to_string()));
                [
                    noted("rules", unknown(rules), unread(&e)),
                    noted("routes", unknown(routes), unread(&e)),
                ]
            }
        }
    }

    async fn nftables(&self, plan: &Plan) -> Section {
        let present = match nat::standing().await {
            Ok(present) => present,
            Err(e) => {
                let lines = nat::plain_lines(&plan.nft);
                let lines = unknown(lines.into_iter().map(|l| l.replace('\t', "  ")));
                return noted("nftables", lines, unread(&e));
            }
        };
        let running = self.running.as_ref().map(|r| &*r.nft);
        let mut tables = Tables {
            wanted: &plan.nft,
            present: present.as_ref(),
            running,
            listed: None,
        };
        let listed = match tables.needs_listing() {
            true => nat::as_listed(&plan.nft).await.ok(),
            false => None,
        };
        tables.listed = listed.as_deref();
        let (lines, note) = tables.lines();
        Section {
            note,
            ..section("nftables", lines)
        }
    }
}

fn section(title: &str, lines: Vec<Line>) -> Section {
    Section {
        title: title.into(),
        note: None,
        lines,
    }
}

fn noted(title: &str, lines: Vec<Line>, note: String) -> Section {
    Section {
        note: Some(note),
        ..section(title, lines)
    }
}

fn compared(title: &str, wanted: &[Named], found: Result<Vec<Named>>) -> Section {
    match found {
        Ok(found) => section(title, named(wanted, &found)),
        Err(e) => noted(title, unknown_named(wanted), unread(&e)),
    }
}

fn unread(error: &anyhow::Error) -> String {
    format!("what is there was not read: {error:#}; root may")
}

const fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    }
}

/// A record in words.
fn words(id: u8, record: &Record, host: &Host) -> String {
    let interface = host.interfaces.iter().find(|i| i.index == record.ifindex);
    let interface = interface.map_or_else(|| format!("interface {}", record.ifindex), |i| i.name.clone());
    let mut text = format!("id {id}, mark {:#x}, {interface}", record.mark);
    if record.host_mark != record.mark {
        text += &format!(", sockets {:#x}", record.host_mark);
    }
    for source in record
        .source
        .iter()
        .filter(|s| **s != uplink_common::Addr::default())
    {
        text += &format!(", from {source:?}");
    }
    let serves = Family::ALL.into_iter().filter(|f| record.families & f.bit() != 0);
    let serves: Vec<&str> = serves.map(family_name).collect();
    match serves.is_empty() {
        true => text + ", takes no new flows",
        false => text + &format!(", weight {}, takes {}", record.weight, serves.join(" and ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_without_room_are_a_mistake_of_the_file() {
        let parsed = |macs: u32| {
            let macs: Vec<String> = (0..macs)
                .map(|n| format!("\"02:00:00:00:{:02x}:{:02x}\"", n >> 8, n & 0xff))
                .collect();
            let text = format!(
                "[[uplink]]\nname = \"isp1\"\ninterface = \"eth0\"\ngateway = \"10.0.0.1\"\n\
                 [[policy]]\nname = \"many\"\nmatch = {{ mac = [{}] }}\nuse = \"isp1\"\n",
                macs.join(", ")
            );
            config::parse(Path::new("u.toml"), text).unwrap()
        };
        assert!(compiled(&parsed(4_096)).is_ok());
        let problems = compiled(&parsed(4_097)).unwrap_err().to_string();
        assert!(problems.contains("there is room for 4096"), "{problems}");
        assert!(problems.contains("u.toml:6:8"), "{problems}");
    }
}
