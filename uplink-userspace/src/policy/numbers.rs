//! Numbers of policies, which stay with their names: pins and counters have nothing else.

use std::collections::BTreeMap;

use uplink_common::policy::MAX_POLICIES;

/// Which name has which number, vanished ones included.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers {
    known: BTreeMap<String, Known>,
    /// Counts assignments, to tell who vanished first.
    round: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    number: u32,
    /// When it was last there.
    seen: u64,
}

/// The numbers of some policies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assigned {
    /// By place.
    pub numbers: Vec<u32>,
    /// Those that nobody had, or somebody else: their counters begin at zero.
    pub fresh: Vec<u32>,
}

impl Numbers {
    /// From what an earlier daemon left. A number that is none, or that two names claim, counts once at most.
    #[must_use]
    pub fn known(left: impl IntoIterator<Item = (String, u32)>) -> Self {
        let mut numbers = Self::default();
        for (name, number) in left {
            let taken = numbers.known.values().any(|k| k.number == number);
            if !taken && (1..=MAX_POLICIES).contains(&number) {
                numbers.known.insert(name, Known { number, seen: 0 });
            }
        }
        numbers
    }

    /// Gives every policy its number. Without a number is who comes behind [`MAX_POLICIES`] others; `compile` refuses
    /// so many.
    pub fn assign<'a>(&mut self, names: impl IntoIterator<Item = &'a str> + Clone) -> Assigned {
        self.round += 1;
        for name in names.clone() {
            if let Some(known) = self.known.get_mut(name) {
                known.seen = self.round;
            }
        }
        let mut free = self.unused().into_iter();
        let mut assigned = Assigned::default();
        for name in names {
            if let Some(known) = self.known.get(name) {
                assigned.numbers.push(known.number);
            } else if let Some(number) = free.next().or_else(|| self.vanished()) {
                let seen = self.round;
                self.known.insert(name.to_owned(), Known { number, seen });
                assigned.numbers.push(number);
                assigned.fresh.push(number);
            }
        }
        assigned
    }

    /// The number of a policy that was assigned one.
    #[must_use]
    pub fn of(&self, name: &str) -> Option<u32> {
        self.known.get(name).map(|known| known.number)
    }

    /// The numbers that nobody has.
    fn unused(&self) -> Vec<u32> {
        let taken: std::collections::BTreeSet<u32> = self.known.values().map(|k| k.number).collect();
        (1..=MAX_POLICIES).filter(|n| !taken.contains(n)).collect()
    }

    /// Takes the number of whoever vanished first.
    fn vanished(&mut self) -> Option<u32> {
        let gone = self.known.iter().filter(|(_, k)| k.seen < self.round);
        let (name, _) = gone.min_by_key(|(_, k)| k.seen)?;
        let name = name.clone();
        self.known.remove(&name).map(|k| k.number)
    }
}
