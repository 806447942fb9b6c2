//! The records: from what user space knows to what the programs read.

use uplink_common::record::{Config, DEFRAGMENTED, GUARDS, LEARNS, TRANSIT, TRANSLATES, UNTRANSLATED_LEAK};
use uplink_common::{ABI, Addr, Family, Filter, Seed, Uplink};

use crate::config::NatMode;
use crate::engine::{Path, Selection};
use crate::weights::Serving;
use crate::{resolve, table};

/// What goes into the configuration record beside the bank.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Our bits of the mark.
    pub mask: uplink_common::mark::Mask,
    /// Secret of the hash, kept across restarts.
    pub seed: Seed,
    /// Tells whether conntrack reassembles fragments, and whose addresses may leave.
    pub nat: NatMode,
    /// Cookie of our network namespace.
    pub netns: u64,
    /// Silence of the daemon, in seconds, after which new flows are left to the kernel; 0: never.
    pub stale_after_s: u32,
    /// Policies go by names, so DNS packets are to be shown.
    pub learns: bool,
    /// Packets from outside with an address of this host are refused by us, as the kernel is told not to look.
    pub guards: bool,
    /// By family: pinned flows go to their next hop past the kernel's forwarding. Never with NAT.
    pub next_hop: [bool; 2],
}

impl Settings {
    pub(super) fn record(
        &self,
        uplinks: &[resolve::Uplink],
        bank: u32,
        highest: u32,
        recent: u32,
        before: Config,
    ) -> Config {
        let known = before.abi == ABI;
        Config {
            abi: ABI,
            mask: self.mask.bits(),
            shift: self.mask.shift(),
            bank,
            uplinks: if known {
                highest.max(before.uplinks)
            } else {
                highest
            },
            flags: self.flags(uplinks),
            seed: self.seed,
            netns: self.netns,
            heartbeat_s: before.heartbeat_s,
            stale_after_s: self.stale_after_s,
            policy_bank: before.policy_bank & 1,
            unguarded: before.unguarded,
            // Until it is known which, every address may be this host's.
            locals: if known { before.locals } else { Filter::ALL },
            recent,
            pad: 0,
        }
    }

    fn flags(&self, uplinks: &[resolve::Uplink]) -> u32 {
        let translates = uplinks.iter().any(|u| u.translation.is_some());
        let mut flags = match self.nat {
            NatMode::Masquerade => DEFRAGMENTED | UNTRANSLATED_LEAK,
            NatMode::Off => TRANSIT,
        };
        if translates {
            flags |= TRANSIT | TRANSLATES;
        }
        if self.learns {
            flags |= LEARNS;
        }
        if self.guards {
            flags |= GUARDS;
        }
        flags | self.next_hop_flags()
    }

    pub(super) fn next_hop_flags(&self) -> u32 {
        let on = |family: &Family| self.nat == NatMode::Off && self.next_hop[*family as usize];
        let on = Family::ALL.into_iter().filter(on);
        on.fold(0, |flags, family| flags | family.next_hop_flag())
    }
}

/// Paths that an earlier daemon had found dead: they serve nobody although a better or equal tier
/// would not have kept them from it.
#[must_use]
pub fn found_dead(records: &[(u8, Uplink)], uplinks: &[resolve::Uplink]) -> Vec<Path> {
    let mut dead = Vec::new();
    for family in Family::ALL {
        let mut silent = Vec::new();
        let mut serving_tier = u32::MAX;
        for u in uplinks.iter().filter(|u| u.leg(family).is_some()) {
            match records.iter().find(|(id, r)| *id == u.id && same_name(r, u)) {
                Some((_, r)) if r.families & family.bit() != 0 => serving_tier = serving_tier.min(u.tier),
                Some(_) => silent.push(u),
                None => {}
            }
        }
        let in_vain = silent.iter().filter(|u| u.tier <= serving_tier);
        dead.extend(in_vain.map(|u| Path { uplink: u.id, family }));
    }
    dead
}

/// The name in a record.
#[must_use]
pub fn name(record: &Uplink) -> String {
    let end = record
        .name
        .iter()
        .position(|b| *b == 0)
        .unwrap_or(record.name.len());
    String::from_utf8_lossy(&record.name[..end]).into_owned()
}

/// Who claims slots of a table, and how many.
pub(crate) fn claims(uplinks: &[resolve::Uplink], serving: &Serving) -> Vec<table::Claim> {
    let claim = |u: &resolve::Uplink| {
        let weight = serving.weight(u.id);
        (weight > 0).then(|| table::Claim {
            id: u.id,
            name: u.name.clone(),
            weight,
        })
    };
    uplinks.iter().filter_map(claim).collect()
}

/// The record that goes with a selection. Families are those of any new flows, the weight is that in the table for
/// everybody.
pub(crate) fn record(u: &resolve::Uplink, selection: &Selection, old: &Uplink, mtu: [u32; 2]) -> Uplink {
    let path = |family| Path { uplink: u.id, family };
    let serves = |family: &Family| selection.serves(path(*family));
    let families = Family::ALL.into_iter().filter(serves);
    let fresh = u32::from(!same_name(old, u));
    let weight = weight(u, selection);
    Uplink {
        generation: old.generation.map(|g| g.wrapping_add(fresh)),
        weight,
        built_weight: weight,
        families: families.fold(0, |bits, family| bits | family.bit()),
        mark: u.mark,
        host_mark: u.host_mark,
        ifindex: u.ifindex,
        source: Family::ALL.map(|f| u.leg(f).map_or(Addr::default(), |leg| leg.source.into())),
        gateway: Family::ALL.map(|f| u.leg(f).map_or(Addr::default(), |leg| leg.gateway.into())),
        mtu,
        name: name_bytes(&u.name),
    }
}

/// Where the families differ in their shares, IPv4 speaks. What serves policies only takes nothing else: 0. What
/// serves nobody shows its own weight.
fn weight(u: &resolve::Uplink, selection: &Selection) -> u32 {
    let mut serving = Family::ALL.into_iter().map(|f| selection.family(f).weight(u.id));
    let policies = |family| selection.serves_group(Path { uplink: u.id, family });
    let otherwise = match Family::ALL.into_iter().any(policies) {
        true => 0,
        false => u.weight,
    };
    serving.find(|w| *w > 0).unwrap_or(otherwise)
}

/// The record while both tables, the old one and the new one, have to find their uplinks: with the families of
/// both, and with a weight where either has one.
pub(super) fn between(u: &resolve::Uplink, selection: &Selection, old: &Uplink, mtu: [u32; 2]) -> Uplink {
    let mut record = record(u, selection, old, mtu);
    if same_name(old, u) {
        record.families |= old.families;
        if record.weight == 0 {
            (record.weight, record.built_weight) = (old.built_weight, old.built_weight);
        }
    }
    record
}

pub(super) fn voided(id: u8, mut record: Uplink, selection: &Selection) -> Uplink {
    for path in selection.voided.iter().filter(|p| p.uplink == id) {
        let generation = &mut record.generation[path.family as usize];
        *generation = generation.wrapping_add(1);
    }
    record
}

pub(super) fn same_name(record: &Uplink, u: &resolve::Uplink) -> bool {
    record.name == name_bytes(&u.name)
}

pub(super) fn name_bytes(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(name.bytes().take(15)) {
        *to = from;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weights::tests::uplink;
    use uplink_common::record::SERVES_V4;

    #[test]
    fn a_reserve_that_serves_nobody_is_not_dead() {
        let uplinks = [uplink(1, 1, 1), uplink(2, 1, 1), uplink(3, 1, 2)];
        let dead = |serving: &[u8]| -> Vec<u8> {
            let record = |u: &resolve::Uplink| Uplink {
                name: name_bytes(&u.name),
                families: u32::from(serving.contains(&u.id)),
                ..Uplink::default()
            };
            let records: Vec<_> = uplinks.iter().map(|u| (u.id, record(u))).collect();
            found_dead(&records, &uplinks).iter().map(|p| p.uplink).collect()
        };
        assert!(dead(&[1, 2]).is_empty());
        assert_eq!(dead(&[2]), [1]);
        assert_eq!(dead(&[3]), [1, 2]);
    }

    #[test]
    fn an_uplink_of_policies_alone_serves_without_a_weight() {
        let u = uplink(2, 7, 1);
        let selection = |main: &[(u8, u32)], group: &[(u8, u32)]| Selection {
            v4: Serving(main.to_vec()),
            groups: vec![[Serving(group.to_vec()), Serving::default()]],
            ..Selection::default()
        };
        let both = selection(&[(1, 3), (2, 5)], &[(2, 1)]);
        let old = record(&u, &both, &Uplink::default(), [0; 2]);
        assert_eq!((old.families, old.weight), (SERVES_V4, 5));
        let policies = selection(&[(1, 3)], &[(2, 1)]);
        let new = record(&u, &policies, &old, [0; 2]);
        assert_eq!((new.families, new.weight, new.built_weight), (SERVES_V4, 0, 0));
        // Until the banks are switched, the old table sends flows here.
        let between = between(&u, &policies, &old, [0; 2]);
        assert_eq!((between.weight, between.built_weight), (5, 5));
        let nobody = record(&u, &selection(&[(1, 3)], &[]), &new, [0; 2]);
        assert_eq!((nobody.families, nobody.weight), (0, 7));
    }
}
