//! Whatever policies may use and whatever happens, in whatever order.

use super::*;

/// What can happen to one of three uplinks.
#[derive(Clone, Copy, Debug)]
enum Happening {
    Answer,
    Loss,
    Drain,
    Enable,
    UsedUp,
    Renewed,
    Tick,
}

fn happenings() -> impl Strategy<Value = Vec<(u8, Happening)>> {
    let one = prop_oneof![
        8 => Just(Happening::Answer),
        8 => Just(Happening::Loss),
        1 => Just(Happening::Drain),
        1 => Just(Happening::Enable),
        1 => Just(Happening::UsedUp),
        1 => Just(Happening::Renewed),
        1 => Just(Happening::Tick),
    ];
    // Runs, since single losses and answers flip nobody.
    let runs = prop::collection::vec((1u8..=3, one, 1usize..8), 0..80);
    runs.prop_map(|runs| {
        let repeat = |(id, what, n)| std::iter::repeat_n((id, what), n);
        runs.into_iter().flat_map(repeat).collect()
    })
}

fn any_groups() -> impl Strategy<Value = Vec<Group>> {
    let prefer = prop_oneof![
        2 => Just(Prefer::Balance),
        1 => Just(Prefer::LowestLatency),
        1 => Just(Prefer::LowestLoss),
    ];
    // The fourth is not configured.
    let member = (1u8..=4, prop::option::of(1u32..10));
    let tiers = prop::collection::vec(prop::collection::vec(member, 1..4), 0..3);
    let one = (tiers, prefer, any::<bool>()).prop_map(|(tiers, prefer, strict)| {
        let tiers: Vec<Tier<'_>> = tiers.iter().map(|t| &t[..]).collect();
        let choice = choice(&tiers, prefer);
        Group { choice, strict }
    });
    prop::collection::vec(one, 0..5)
}

fn event(id: u8, what: Happening, round: u64, used_up: &mut std::collections::BTreeSet<u8>) -> Event {
    match what {
        Happening::Answer => Event::Answered {
            path: path(id),
            target: 0,
            round,
            // Latencies that take turns.
            rtt: MS * (10 + 10 * ((round as u32 / 16 + u32::from(id)) % 3)),
        },
        Happening::Loss => Event::Lost {
            target: 0,
            path: path(id),
            round,
            waited: WAITED,
        },
        Happening::Drain => Event::Drain(id),
        Happening::Enable => Event::Enable(id),
        Happening::UsedUp => {
            used_up.insert(id);
            Event::UsedUp(used_up.clone())
        }
        Happening::Renewed => {
            used_up.remove(&id);
            Event::UsedUp(used_up.clone())
        }
        Happening::Tick => Event::Tick,
    }
}

/// What must hold for every group, whatever happened.
struct Check<'a> {
    engine: &'a Engine,
    used_up: &'a std::collections::BTreeSet<u8>,
}

impl Check<'_> {
    fn dead(&self, id: u8) -> bool {
        self.engine.verdict(path(id)) == Verdict::Down
    }

    fn answers(&self, id: u8) -> bool {
        !self.dead(id) && !self.engine.failing(path(id))
    }

    fn spared(&self, id: u8) -> bool {
        self.engine.is_drained(id) || self.used_up.contains(&id)
    }

    /// Somebody who is wanted answers, so that nothing is held.
    fn decided(&self) -> bool {
        let wanted = |id| self.answers(id) && !self.engine.is_drained(id);
        (1..=3).any(wanted)
    }

    fn group(&self, group: &Group, serving: &Serving) {
        let named = |id: &u8| {
            let name = format!("isp{id}");
            let tiers = &group.choice.tiers;
            tiers.is_empty() || tiers.iter().flatten().any(|(n, _)| *n == name)
        };
        let members: Vec<u8> = (1..=3).filter(named).collect();
        for (id, weight) in &serving.0 {
            assert!(members.contains(id) && *weight > 0);
        }
        if group.choice.prefer != Prefer::Balance {
            assert!(serving.0.len() <= 1);
        }
        if self.decided() {
            self.decided_group(group, serving, &members);
        }
    }

    fn decided_group(&self, group: &Group, serving: &Serving, members: &[u8]) {
        let serves = |id: u8| serving.weight(id) > 0;
        let good = |id: &&u8| !self.dead(**id) && !self.spared(**id);
        let living = |id: &&u8| !self.dead(**id);
        for id in members.iter().filter(|id| serves(**id)) {
            let silent = self.dead(*id) && self.engine.failing(path(*id));
            assert!(!silent, "{id} is dead and serves {group:?}");
            let better = members.iter().any(|m| good(&m));
            assert!(
                !better || !self.spared(*id),
                "{id} is spared and serves {group:?}"
            );
            let main = self.engine.selection().v4.0.iter();
            let spares = main.clone().all(|(m, _)| !self.spared(*m));
            assert!(
                group.strict || !spares || !self.spared(*id),
                "{id} serves {group:?}"
            );
        }
        if serving.0.is_empty() {
            let left = members
                .iter()
                .find(|m| if group.strict { living(m) } else { good(m) });
            assert_eq!(left, None, "nobody serves {group:?}");
        }
    }
}

proptest! {
    #[test]
    fn a_group_has_the_living_and_nobody_else(
        groups in any_groups(),
        happenings in happenings(),
        was_down in prop::collection::vec(1u8..=3, 0..3),
        drained in prop::collection::vec(1u8..=3, 0..3),
    ) {
        let was_down: Vec<_> = was_down.into_iter().map(path).collect();
        let drained: Vec<_> = drained.into_iter().map(|id| format!("isp{id}")).collect();
        let with = Settings { groups: groups.clone(), ..settings() };
        let mut e = Engine::new(uplinks(), with, &was_down, &drained);
        let mut alone = Engine::new(uplinks(), settings(), &was_down, &drained);
        let mut used_up = std::collections::BTreeSet::new();
        for (round, (id, what)) in happenings.into_iter().enumerate() {
            let refused = e.may_drain(id).is_err();
            if matches!(what, Happening::Drain) && refused != alone.may_drain(id).is_err() {
                // The only one that lives is not drained while policies use it.
                prop_assert!(refused && e.serves(path(id)));
                continue;
            }
            let event = event(id, what, round as u64, &mut used_up);
            alone.on(event.clone());
            let before = e.selection().clone();
            let commands = e.on(event);
            prop_assert_eq!(&e.selection().v4, &alone.selection().v4, "groups change nothing for everybody");
            prop_assert_eq!(e.selection().groups.len(), groups.len());
            let check = Check { engine: &e, used_up: &used_up };
            for (group, serving) in groups.iter().zip(&e.selection().groups) {
                check.group(group, &serving[0]);
            }
            follows(&e, &before, &commands);
        }
    }
}

/// The first command publishes what is selected; nobody who is used loses his flows; the dead who are not do.
fn follows(e: &Engine, before: &Selection, commands: &[Command]) {
    let published = commands.iter().any(|c| matches!(c, Command::Publish(_)));
    assert!(published || e.selection() == before);
    for (at, command) in commands.iter().enumerate() {
        match command {
            Command::Publish(s) => {
                assert_eq!((at, &s.groups), (0, &e.selection().groups));
                assert!(s.voided.iter().all(|p| !e.serves(*p)));
            }
            Command::Abandon(p) => assert!(!e.serves(*p) && e.verdict(*p) == Verdict::Down),
            Command::Retire(p) => assert!(!e.serves(*p) && e.verdict(*p) != Verdict::Down),
            Command::Recall(p) => assert!(e.is_recalled(p.uplink)),
            Command::Announce(_) => {}
        }
    }
    for path in before_but_not_now(e, before) {
        let abandoned = commands.contains(&Command::Abandon(path));
        assert!(
            abandoned || e.verdict(path) != Verdict::Down,
            "{path:?} died and keeps its flows"
        );
    }
}

fn before_but_not_now(e: &Engine, before: &Selection) -> Vec<Path> {
    let left = |p: &Path| before.serves(*p) && !e.serves(*p);
    e.paths().filter(left).collect()
}
