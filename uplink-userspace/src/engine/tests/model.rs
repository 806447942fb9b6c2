//! Whatever happens, in whatever order.

use super::*;

/// What can happen to one of three uplinks.
#[derive(Clone, Copy, Debug)]
enum Happening {
    Answer,
    Loss,
    Drain,
    Enable,
    Void,
}

fn happenings() -> impl Strategy<Value = Vec<(u8, Happening)>> {
    let one = prop_oneof![
        8 => Just(Happening::Answer),
        8 => Just(Happening::Loss),
        1 => Just(Happening::Drain),
        1 => Just(Happening::Enable),
        1 => Just(Happening::Void),
    ];
    // Runs, since single losses and answers flip nobody.
    let runs = prop::collection::vec((1u8..=3, one, 1usize..8), 0..120);
    runs.prop_map(|runs| {
        let repeat = |(id, what, n)| std::iter::repeat_n((id, what), n);
        runs.into_iter().flat_map(repeat).collect()
    })
}

fn happen(e: &mut Engine, id: u8, what: Happening, round: u64) -> Vec<Command> {
    e.on(match what {
        Happening::Answer => answered(id, round),
        Happening::Loss => Event::Lost {
            target: 0,
            path: path(id),
            round,
            waited: WAITED,
        },
        Happening::Drain => Event::Drain(id),
        Happening::Enable => Event::Enable(id),
        Happening::Void => return e.void(path(id)),
    })
}

/// Three uplinks on two tiers, and which of them may have flows.
struct Model {
    engine: Engine,
    holders: std::collections::BTreeSet<u8>,
}

impl Model {
    fn dead(&self, id: u8) -> bool {
        self.engine.verdict(path(id)) == Verdict::Down
    }

    fn answers(&self, id: u8) -> bool {
        !self.dead(id) && !self.engine.failing(path(id))
    }

    /// The first command publishes; who is abandoned is dead, or was asked to be; who is
    /// retired lives; neither serves.
    fn follow(&mut self, commands: &[Command], asked: Option<u8>) {
        for (i, command) in commands.iter().enumerate() {
            match command {
                Command::Publish(s) => {
                    assert_eq!(i, 0);
                    assert_eq!(s.v4, self.engine.selection().v4);
                    self.holders.extend(s.v4.0.iter().map(|(id, _)| id));
                    s.voided
                        .iter()
                        .for_each(|p| assert!(self.holders.remove(&p.uplink) || asked.is_some()));
                }
                Command::Abandon(p) => {
                    assert!(!self.engine.serves(*p) && (self.dead(p.uplink) || asked == Some(p.uplink)));
                }
                Command::Retire(p) => {
                    assert!(!self.engine.serves(*p) && !self.dead(p.uplink));
                    assert!(!self.engine.is_drained(p.uplink));
                }
                Command::Recall(p) => assert!(self.engine.is_recalled(p.uplink)),
                Command::Announce(_) => {}
            }
        }
    }

    fn check(&self) {
        let serving: Vec<u8> = self.engine.selection().v4.0.iter().map(|(id, _)| *id).collect();
        let ids = [1, 2, 3];
        let wanted = ids
            .iter()
            .any(|id| self.answers(*id) && !self.engine.is_drained(*id));
        let living = ids.iter().any(|id| self.answers(*id));
        let alive = ids
            .iter()
            .any(|id| !self.dead(*id) && !self.engine.is_drained(*id));
        assert!(!serving.is_empty());
        for id in ids {
            let silent = self.dead(id) && self.engine.failing(path(id));
            let serves = serving.contains(&id);
            // While a wanted one answers: no drained, no dead one serves, and no dead one
            // keeps flows.
            assert!(!(wanted && serves && (self.engine.is_drained(id) || silent)));
            assert!(!(wanted && !serves && self.dead(id) && self.holders.contains(&id)));
            // While only drained ones answer, they do better than the dead.
            assert!(!serves || !silent || !living || alive || self.returning(&serving));
        }
    }

    /// Somebody who serves is about to be up again.
    fn returning(&self, serving: &[u8]) -> bool {
        let mut wanted = serving.iter().filter(|id| !self.engine.is_drained(**id));
        wanted.any(|id| self.dead(*id) && !self.engine.failing(path(*id)))
    }
}

proptest! {
    #[test]
    fn drained_tiers_never_leave_people_on_a_dead_uplink(
        happenings in happenings(),
        was_down in prop::collection::vec(1u8..=3, 0..3),
        drained in prop::collection::vec(1u8..=3, 0..3),
    ) {
        let uplinks = vec![uplink(1, 3, 1), uplink(2, 1, 1), uplink(3, 1, 2)];
        let was_down: Vec<_> = was_down.into_iter().map(path).collect();
        let drained: Vec<_> = drained.into_iter().map(|id| format!("isp{id}")).collect();
        let engine = Engine::new(uplinks, settings(), &was_down, &drained);
        let holders = (1..=3).filter(|id| !was_down.contains(&path(*id)) || engine.serves(path(*id)));
        let mut model = Model { holders: holders.collect(), engine };
        model.check();
        for (round, (id, what)) in happenings.into_iter().enumerate() {
            let commands = happen(&mut model.engine, id, what, round as u64);
            let asked = matches!(what, Happening::Void).then_some(id);
            model.follow(&commands, asked);
            model.check();
        }
    }

    /// Whatever is answered and lost: somebody always serves, and nobody who is dead and
    /// silent does while another one is known to answer.
    #[test]
    fn never_a_dead_uplink_while_one_lives(events in prop::collection::vec((1u8..=2, any::<bool>()), 0..500)) {
        let mut e = engine();
        for (round, (id, ok)) in events.into_iter().enumerate() {
            let round = round as u64;
            e.on(if ok { answered(id, round) } else { Event::Lost { path: path(id), target: 0, round, waited: WAITED } });
            let serving = &e.selection().v4.0;
            prop_assert!(!serving.is_empty());
            let dead = |id: &u8| e.verdict(path(*id)) == Verdict::Down;
            let answers = [1, 2].iter().any(|id| !dead(id) && !e.failing(path(*id)));
            for (id, _) in serving {
                prop_assert!(!answers || !dead(id) || !e.failing(path(*id)));
            }
        }
    }
}
