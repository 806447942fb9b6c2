//! The same uplinks with other addresses.

use super::{Command, Engine, Path, Selection, unprobed};
use crate::resolve::Uplink;
use uplink_common::Family;

impl Engine {
    /// Takes the uplinks as the host has them now; ids stay, families may join. Flows of a path
    /// whose source changed start anew: nothing answers to the old address any more.
    pub fn readdress(&mut self, uplinks: Vec<Uplink>) -> Vec<Command> {
        let voided = self.moved(&uplinks);
        self.uplinks = uplinks;
        let joined = unprobed(&self.uplinks, &self.settings, &[]);
        for (path, health) in joined {
            if self.health(path).is_none() {
                self.health.push((path, health));
            }
        }
        let abandon: Vec<Command> = voided.iter().copied().map(Command::Abandon).collect();
        let settled = self.settle();
        let also = match settled.first() {
            Some(Command::Publish(s)) => s.voided.clone(),
            _ => Vec::new(),
        };
        let publish = Command::Publish(Selection {
            voided: [voided, also].concat(),
            ..self.selection.clone()
        });
        let rest = settled.into_iter().skip(1);
        [publish].into_iter().chain(abandon).chain(rest).collect()
    }

    /// Paths that have another source address in `now`, or none.
    #[must_use]
    pub fn moved(&self, now: &[Uplink]) -> Vec<Path> {
        let mut moved = Vec::new();
        for old in &self.uplinks {
            let Some(new) = now.iter().find(|u| u.id == old.id) else {
                continue;
            };
            for family in Family::ALL {
                let sources = [old, new].map(|u| u.leg(family).map(|leg| leg.source));
                if sources[0].is_some() && sources[0] != sources[1] {
                    moved.push(Path {
                        uplink: old.id,
                        family,
                    });
                }
            }
        }
        moved
    }
}
