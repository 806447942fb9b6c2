//! Targets that answer nobody: they tell of themselves, not of the uplinks.

use uplink_common::Family;

use super::{Engine, Path};
use crate::config::Target;

/// Lost probes in a row after which people are told.
const TOLD: u32 = 10;

impl Engine {
    /// The targets of a path.
    fn targets(&self, path: Path) -> &[Target] {
        let individual = self.individual(path.uplink);
        individual.map_or(&[], |i| &i.targets[path.family as usize])
    }

    /// Everybody who asks a target, and under which number.
    fn askers(&self, target: Target) -> Vec<(Path, u8)> {
        let mut askers = Vec::new();
        for (path, _) in self.health.iter().filter(|(p, _)| self.is_in_use(p.uplink)) {
            let at = self.targets(*path).iter().position(|t| *t == target);
            askers.extend(at.map(|at| (*path, at as u8)));
        }
        askers
    }

    /// Whether a target has answered nobody for `least` probes, through two paths at least, while
    /// another one answers somebody.
    fn is_dead(&self, target: Target, least: u32) -> bool {
        let askers = self.askers(target);
        let lost = |(path, at): &(Path, u8)| self.health(*path).is_some_and(|h| h.lost_by(*at) >= least);
        askers.len() >= 2 && askers.iter().all(lost) && self.somebody_answers(target)
    }

    fn somebody_answers(&self, but: Target) -> bool {
        let mut paths = self.health.iter().filter(|(p, _)| p.family == but.family());
        paths.any(|(path, health)| {
            let targets = self.targets(*path).iter().zip(0u8..);
            let mut others = targets.filter(|(t, _)| **t != but);
            health.rtt_ms().is_some() && others.any(|(_, at)| health.lost_by(at) == 0)
        })
    }

    /// Targets that have answered through no uplink for some time although others do.
    #[must_use]
    pub fn dead_targets(&self) -> Vec<Target> {
        let mut dead: Vec<Target> = Vec::new();
        for target in self.health.iter().flat_map(|(p, _)| self.targets(*p)) {
            if !dead.contains(target) && self.is_dead(*target, TOLD) {
                dead.push(*target);
            }
        }
        dead
    }

    /// Has every path leave out what dead targets say.
    pub(super) fn leave_out_dead_targets(&mut self, family: Family) {
        let paths: Vec<Path> = self
            .health
            .iter()
            .map(|(p, _)| *p)
            .filter(|p| p.family == family)
            .collect();
        for path in paths {
            let fall = self.health(path).map_or(1, |h| h.settings().fall);
            let least = (fall - 1).clamp(1, 2);
            let targets = self.targets(path).iter().zip(0u32..);
            let dead = targets.filter(|(t, _)| self.is_dead(**t, least));
            let dead = dead.fold(0, |bits, (_, at)| bits | 1 << at);
            if let Some(health) = self.health_mut(path) {
                health.set_dead(dead);
            }
        }
    }
}
