//! Everything changes while packets come as fast as this machine can look at them: each goes by the right uplink, from its address,
//! with the right sums, to the right card.

mod traffic;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use uplink_lab::daemon::{run, said};
use uplink_lab::{Config, Daemon, Isp, Lab, Shape};

use super::ends::silence;
use super::{FAST, daemon, packets, wired};
use crate::policies::reload;
use crate::support::pause;
use traffic::{SERVICES, Traffic};

const FLOWS: u16 = 200;
const MORE: u16 = 40;
/// A flow goes on within this, whatever has changed.
const GOES_ON: Duration = Duration::from_secs(1);

/// Everything by the second ISP, as long as it lives.
const BY_TWO: &str = "[[policy]]\nname = \"by-two\"\nuse = \"isp2\"\nmatch = { dport = [7690, 7691] }\n";

pub fn storm() -> Result<()> {
    let (lab, _echo, _ends) = wired(Shape::NicEach)?;
    silence(&lab, &SERVICES)?;
    let daemon = daemon(&lab, "")?;
    let traffic = Mutex::new(Traffic::new(&lab)?);
    let stop = AtomicBool::new(false);
    let storm = Storm {
        lab: &lab,
        daemon: &daemon,
        traffic: &traffic,
    };
    std::thread::scope(|scope| {
        let blowing = scope.spawn(|| blow(&traffic, &stop));
        let done = storm.all();
        stop.store(true, Ordering::Relaxed);
        // What was wrong with a packet says more than what did not come.
        blowing.join().unwrap_or_else(|e| std::panic::resume_unwind(e))?;
        done
    })?;
    daemon.stop()
}

/// Until told to stop, or until something is wrong.
fn blow(traffic: &Mutex<Traffic>, stop: &AtomicBool) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        locked(traffic).round()?;
        // Who waits for the lock gets it.
        pause(0.000_2);
    }
    Ok(())
}

fn locked(traffic: &Mutex<Traffic>) -> MutexGuard<'_, Traffic> {
    traffic.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Storm<'a> {
    lab: &'a Lab,
    daemon: &'a Daemon<'a>,
    traffic: &'a Mutex<Traffic>,
}

impl Storm<'_> {
    fn all(&self) -> Result<()> {
        self.traffic().begin(FLOWS);
        // The second look at each flow.
        pause(4.0);
        let [one, two] = self.traffic().by_isp(0);
        ensure!(one > two && two > 20, "{one} and {two} flows");
        self.goes_on("nothing happens", &[])?;
        self.firewall()?;
        self.forgotten()?;
        self.new_card()?;
        self.policies()?;
        self.drained()?;
        self.failover()
    }

    fn traffic(&self) -> MutexGuard<'_, Traffic> {
        locked(self.traffic)
    }

    /// All flows but those of these services go on, by the fast path.
    fn goes_on(&self, what: &str, without: &[u16]) -> Result<()> {
        let (before, fast) = (self.traffic().seen, packets(self.daemon, "fast")?);
        let begun = Instant::now();
        pause(1.5);
        let (seen, silent) = {
            let traffic = self.traffic();
            (traffic.seen, traffic.silent(GOES_ON))
        };
        let fast = packets(self.daemon, "fast")? - fast;
        let out: u64 = seen.iter().sum::<u64>() - before.iter().sum::<u64>();
        let rate = out as f64 / begun.elapsed().as_secs_f64();
        println!("    {what}: {out} packets, {rate:.0} a second, {fast} by the fast path");
        let silent: Vec<u16> = silent.into_iter().filter(|n| !without.contains(n)).collect();
        ensure!(silent.is_empty(), "{what}: {silent:?} do not go on");
        ensure!(fast > out / 2, "{what}: {fast} of {out} by the fast path");
        Ok(())
    }

    /// A rule stops what it should.
    fn firewall(&self) -> Result<()> {
        let [_, stopped] = SERVICES;
        self.lab.router.nft(&format!(
            "table inet fw {{ chain forward {{ type filter hook forward priority 0; \
             meta l4proto {{ tcp, udp }} th dport {stopped} drop; }}\n}}\n"
        ))?;
        self.traffic().stopped = Some(Instant::now());
        pause(1.2);
        let without: Vec<u16> = (0..FLOWS).filter(|n| n % 10 == 9).collect();
        self.goes_on("a firewall stops every tenth", &without)?;
        let silent = self.traffic().silent(GOES_ON).len();
        ensure!(silent == without.len(), "{silent} do not go on");
        self.traffic().stopped = None;
        self.lab.router.run("nft delete table inet fw")?;
        pause(1.0);
        self.goes_on("the firewall is gone", &[])
    }

    /// Whoever is first may get another port, but no other uplink.
    fn forgotten(&self) -> Result<()> {
        self.traffic().may_rename = true;
        self.lab.router.run("conntrack -F")?;
        self.goes_on("conntrack has forgotten all", &[])?;
        self.traffic().may_rename = false;
        Ok(())
    }

    fn new_card(&self) -> Result<()> {
        let mac = "02:00:00:00:77:01";
        self.traffic().new_card([2, 0, 0, 0, 0x77, 1]);
        self.lab
            .isp(Isp::One)
            .ip(&format!("link set eth0 address {mac}\n"))?;
        let (v4, v6) = Isp::One.gateways();
        for gateway in [v4, v6] {
            self.lab.router.ip(&format!(
                "neigh replace {gateway} lladdr {mac} dev wan1 nud reachable\n"
            ))?;
        }
        self.goes_on("a gateway has another card", &[])
    }

    /// New flows go by the new policy, the others stay.
    fn policies(&self) -> Result<()> {
        reload(self.lab, &config(BY_TWO))?;
        let [one, two] = self.more("all by the second ISP")?;
        ensure!(one == 0, "{one} and {two} new flows");
        Ok(())
    }

    fn drained(&self) -> Result<()> {
        reload(self.lab, &config(""))?;
        self.order("drain")?;
        let [one, two] = self.more("the second ISP is drained")?;
        ensure!(two == 0, "{one} and {two} new flows");
        self.order("enable")
    }

    fn failover(&self) -> Result<()> {
        self.traffic().may_move = true;
        self.lab.blackhole(Isp::Two)?;
        self.daemon
            .await_state(Isp::Two, "down", Duration::from_secs(5))?;
        self.traffic().dead = Some((Isp::Two, Instant::now()));
        pause(1.2);
        self.traffic().may_move = false;
        self.goes_on("the second ISP is dead", &[])?;
        let by_isp = self.traffic().by_isp(0);
        ensure!(by_isp[1] == 0, "{by_isp:?}");
        self.lab.heal(Isp::Two)
    }

    /// Where new flows go.
    fn more(&self, what: &str) -> Result<[usize; 2]> {
        let first = {
            let mut traffic = self.traffic();
            let first: usize = traffic.by_isp(0).iter().sum();
            traffic.begin(MORE);
            first
        };
        pause(3.5);
        self.goes_on(what, &[])?;
        let by_isp = self.traffic().by_isp(first);
        ensure!(by_isp.iter().sum::<usize>() == usize::from(MORE), "{by_isp:?}");
        Ok(by_isp)
    }

    fn order(&self, order: &str) -> Result<()> {
        let output = run(self.lab, &[order, "isp2"])?;
        ensure!(output.status.success(), "{}", said(&output));
        Ok(())
    }
}

fn config(policies: &str) -> Config {
    Config {
        more: format!("{FAST}{policies}"),
        ..Config::default()
    }
}
