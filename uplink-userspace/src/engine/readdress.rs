//! The same uplinks with other addresses.

use super::{Command, Engine, Path, Selection};
use crate::resolve::Uplink;
use uplink_common::Family;

impl Engine {
    /// Takes the uplinks as the host has them now; ids and families stay. Flows of a path whose
    /// source changed start anew: nothing answers to the old address any more.
    pub fn readdress(&mut self, uplinks: Vec<Uplink>) -> Vec<Command> {
        let voided = moved(&self.uplinks, &uplinks);
        self.uplinks = uplinks;
        let abandon = voided.iter().copied().map(Command::Abandon);
        let abandon: Vec<Command> = abandon.collect();
        let publish = Command::Publish(Selection {
            voided,
            ..self.selection.clone()
        });
        [vec![publish], abandon].concat()
    }
}

fn moved(before: &[Uplink], now: &[Uplink]) -> Vec<Path> {
    let mut moved = Vec::new();
    for old in before {
        let Some(new) = now.iter().find(|u| u.id == old.id) else {
            continue;
        };
        for family in Family::ALL {
            let sources = [old, new].map(|u| u.leg(family).map(|leg| leg.source));
            if sources[0] != sources[1] {
                moved.push(Path {
                    uplink: old.id,
                    family,
                });
            }
        }
    }
    moved
}
