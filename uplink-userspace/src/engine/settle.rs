//! From what is known to a new selection, and what has to be done about it.

use uplink_common::Family;

use super::groups::Place;
use super::{Command, Engine, Path, Selection};
use crate::config::Choice;
use crate::health::Verdict;
use crate::weights::Serving;

impl Engine {
    /// Publishes first, abandons after: a flow whose connection is forgotten must already find
    /// the new table.
    pub(super) fn settle(&mut self) -> Vec<Command> {
        let before = self.selection.clone();
        let mut voided = Vec::new();
        for family in Family::ALL {
            // As long as nobody is known to answer, the dead keep their flows, too.
            if let Some(serving) = self.serving(family) {
                if *self.selection.family(family) != serving {
                    self.stepped[family as usize] = self.now;
                }
                *self.selection.family_mut(family) = serving;
                self.settle_groups(family);
                voided.extend(self.stranded(family));
            }
        }
        if self.selection == before && voided.is_empty() {
            return Vec::new();
        }
        for path in self.health.iter().map(|(p, _)| *p) {
            if self.serves(path) {
                self.holders.insert(path);
            }
        }
        self.holders.retain(|p| !voided.contains(p));
        self.commands(&before, voided)
    }

    /// Who serves a family before anybody has answered.
    pub(super) fn begin(&mut self, family: Family) {
        if let Some(serving) = self.serving(family) {
            *self.selection.family_mut(family) = serving;
            self.settle_groups(family);
        } else {
            *self.selection.family_mut(family) = self.first(family);
            self.begin_groups(family);
        }
    }

    /// Dead paths that may have flows and take no new ones.
    fn stranded(&self, family: Family) -> Vec<Path> {
        let holders = self.holders.iter().filter(|p| p.family == family);
        holders
            .filter(|p| !self.serves(**p) && self.verdict(**p) == Verdict::Down)
            .copied()
            .collect()
    }

    /// What the step from `before` to the selection of now asks for.
    fn commands(&self, before: &Selection, voided: Vec<Path>) -> Vec<Command> {
        let mut commands: Vec<_> = voided.iter().copied().map(Command::Abandon).collect();
        for path in self.health.iter().map(|(p, _)| *p) {
            let drained = self.drained.contains(&path.uplink);
            match (before.serves(path), self.serves(path)) {
                // Flows of an uplink that was drained by hand finish on their own, and so do those
                // of one that is merely worse than others.
                (true, false) if !drained && !voided.contains(&path) && self.gave_way(before, path) => {
                    commands.push(Command::Retire(path));
                }
                (false, true) if drained => commands.push(Command::Recall(path)),
                _ => {}
            }
        }
        let selection = Selection {
            voided,
            ..self.selection.clone()
        };
        commands.insert(0, Command::Publish(selection));
        commands
    }

    /// Whether a path left everybody's table, or a group's, to a better tier. Neither marks nor connections tell
    /// which of them brought a flow there, so this is asked only once nobody uses the path: flows stay where
    /// policies still send others.
    fn gave_way(&self, before: &Selection, path: Path) -> bool {
        let family = path.family as usize;
        let everybody = Choice::default();
        let main = (
            &everybody,
            before.family(path.family),
            self.selection.family(path.family),
        );
        let steps = before.groups.iter().zip(&self.selection.groups);
        let groups = self.settings.groups.iter().zip(steps);
        let groups = groups.map(|(g, (was, is))| (&g.choice, &was[family], &is[family]));
        let mut left = [main]
            .into_iter()
            .chain(groups)
            .filter(|(_, was, _)| was.weight(path.uplink) > 0);
        left.any(|(choice, _, is)| self.is_outranked(choice, is, path.uplink))
    }

    /// Whether those who serve are of a better tier.
    fn is_outranked(&self, choice: &Choice, serving: &Serving, id: u8) -> bool {
        let uplink = |id: u8| self.uplinks.iter().find(|u| u.id == id);
        let tier = |id: u8| Some(Place::of(choice, uplink(id)?)?.tier);
        serving.0.iter().any(|(other, _)| tier(*other) < tier(id))
    }
}
