//! Probes that are a task each: everything but ICMP.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Result;
use tokio::task::JoinSet;
use uplink_common::Family;

use super::kinds::{Prepared, Refused, Reply, Way, ask};
use super::path::{Asker, Said, Word};
use crate::config::{self, Target};
use crate::resolve::{Leg, Uplink};

/// The probes of one path that are under way; they end with it.
pub(super) struct Tasks {
    kind: Rc<Prepared>,
    way: Rc<Way>,
    targets: Vec<Target>,
    timeout: Duration,
    refused: Refused,
    running: JoinSet<(u64, u8, Reply)>,
}

impl Tasks {
    pub(super) fn new(
        probe: &config::Probe,
        u: &Uplink,
        leg: &Leg,
        targets: Vec<Target>,
        refused: Refused,
    ) -> Result<Self> {
        Ok(Self {
            kind: Rc::new(Prepared::new(&probe.kind)?),
            way: Rc::new(way(u, leg)),
            targets,
            timeout: probe.timeout,
            refused,
            running: JoinSet::new(),
        })
    }
}

fn way(u: &Uplink, leg: &Leg) -> Way {
    let family = if leg.source.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    };
    let address = |a: IpAddr| a.to_string();
    let environment = [
        ("NAME", u.name.clone()),
        ("INTERFACE", u.interface.clone()),
        ("GATEWAY", address(leg.gateway)),
        ("SOURCE", address(leg.source)),
        ("MARK", format!("{:#x}", u.mark)),
        ("TABLE", u.table.to_string()),
        ("FAMILY", if family == Family::V4 { "4" } else { "6" }.into()),
    ];
    Way {
        mark: u.mark,
        source: leg.source,
        environment: environment
            .into_iter()
            .map(|(name, value)| (format!("UPLINK_{name}"), value))
            .collect(),
    }
}

/// What failed is given up at its time: a route that is repaired in a moment is no dead uplink.
fn word((round, target, reply): (u64, u8, Reply)) -> Option<Word> {
    let said = match reply {
        Reply::Answered => Said::Answered,
        Reply::Skipped => Said::Skipped,
        Reply::Lost => return None,
    };
    Some(Word { round, target, said })
}

impl Asker for Tasks {
    fn ask(&mut self, round: u64) {
        for (at, target) in (0u8..).zip(self.targets.iter().copied()) {
            let (kind, way) = (Rc::clone(&self.kind), Rc::clone(&self.way));
            let (timeout, refused) = (self.timeout, self.refused.clone());
            self.running.spawn_local(async move {
                let reply = ask(&kind, &way, target, timeout, &refused).await;
                (round, at, reply)
            });
        }
    }

    async fn hear(&mut self) -> Word {
        loop {
            match self.running.join_next().await {
                Some(Ok(ended)) => {
                    if let Some(word) = word(ended) {
                        return word;
                    }
                }
                // A task that panicked said nothing.
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }

    fn heard(&mut self) -> Option<Word> {
        while let Some(ended) = self.running.try_join_next() {
            if let Some(word) = ended.ok().and_then(word) {
                return Some(word);
            }
        }
        None
    }

    fn forget(&mut self, _before: u64) {}
}
