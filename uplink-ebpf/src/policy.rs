//! Which policy a new flow falls under: one look-up for each field that any policy minds, then the first member of
//! what all of them answered.

use aya_ebpf::{
    btf_maps::lpm_trie::Key,
    helpers::{bpf_get_current_uid_gid, generated::bpf_get_current_ancestor_cgroup_id},
};
use uplink_common::{
    Addr, Config, FlowKey, Reason,
    policy::{
        Choice, Classifier, DPORTS, DSCPS, ExactKey, FIELDS, Field, NO_PORT, PROTOS, PrefixKey, SPORTS,
        TAG_BITS, WORDS, choice_index, has_ports, set_index, value_index,
    },
    record::LEARNS,
};

use crate::{
    act,
    maps::{CHOICES, CLASSIFIER, EXACT, NAMES, OTHER_NAMES, PREFIXES, SCRATCH, SETS, VALUES},
    walk::{GO_ON, STOP, walk},
};

/// What is known of a flow beside its key.
#[repr(C)]
pub struct About {
    /// Where it came in; 1 for this host's own.
    pub iif: u32,
    /// Code point; [`UNKNOWN`] where there is none.
    pub dscp: u32,
    /// Who sent the frame, as `policy::mac_value` has it; 0: nobody.
    pub mac: u64,
    /// Seconds since boot.
    pub now_s: u32,
    /// The bank of the policies, read once: the other may be live a moment later.
    pub bank: u32,
}

/// A value that is not there.
pub const UNKNOWN: u32 = u32::MAX;
/// Index of `lo`, which stands for this host itself.
pub const LOOPBACK: u32 = 1;
/// No process is deeper in the tree of cgroups than is looked at.
const DEEPEST: u32 = 16;

/// A flow, and what its fields have answered so far.
#[repr(C)]
struct Search<'a> {
    key: &'a FlowKey,
    about: &'a About,
    classifier: &'a Classifier,
    bank: u32,
    /// Words that may have a member.
    summary: u64,
    /// By field what it answered, at last the policies in force: indices of sets within the bank.
    sets: [u32; FIELDS + 1],
    /// As [`find`] answers.
    found: u32,
}

/// Where in map `choices` the first policy that matches is, counted from 1; 0: none does. The bank is part of it: by
/// the time that the choice is read another may be live. `HOST`: the flow is that of a socket of this
/// host, whose address is not known yet, but its owner is. A packet program may not even have the code that
/// asks for owners.
#[inline(always)]
pub fn find<const HOST: bool>(config: &Config, key: &FlowKey, about: &About) -> u32 {
    match CLASSIFIER.get(about.bank & 1) {
        Some(classifier) if classifier.policies != 0 => classify::<HOST>(config, key, about),
        _ => 0,
    }
}

/// What a policy does, by what [`find`] answered.
#[inline(always)]
pub fn choice(found: u32) -> Option<&'static Choice> {
    if found == 0 {
        return None;
    }
    CHOICES.get(found - 1)
}

/// Which fields the policies of a bank mind.
#[inline(always)]
pub fn fields(bank: u32) -> u32 {
    CLASSIFIER.get(bank & 1).map_or(0, |c| c.fields)
}

/// Not inlined: it needs stack, of which all frames together have 512 bytes.
#[inline(never)]
fn classify<const HOST: bool>(config: &Config, key: &FlowKey, about: &About) -> u32 {
    let bank = about.bank & 1;
    let Some(classifier) = CLASSIFIER.get(bank) else {
        return 0;
    };
    let mut search = Search {
        key,
        about,
        classifier,
        bank,
        summary: u64::MAX,
        sets: [0; FIELDS + 1],
        found: 0,
    };
    // What is written there later looks to the verifier like what is there now, which saves it a lot of work.
    let mut at = 0;
    while at < FIELDS {
        search.sets[at] = classifier.otherwise[at];
        at += 1;
    }
    search.note(FIELDS, classifier.active);
    if config.flags & LEARNS != 0 {
        notice(key, about);
    }
    walk(FIELDS as u32, field::<HOST>, &mut search);
    walk(WORDS as u32, word, &mut search);
    search.found
}

impl Search<'_> {
    #[inline(always)]
    fn note(&mut self, at: usize, set: u32) {
        self.sets[at] = set;
        self.summary &= SETS.get(set_index(self.bank, set)).map_or(0, |s| s.summary);
    }

    /// Whether any policy minds the field; the policies in force always count.
    #[inline(always)]
    const fn minds(&self, field: usize) -> bool {
        field == FIELDS || self.classifier.fields >> field & 1 != 0
    }

    /// What a field answered.
    #[inline(always)]
    fn answer(&mut self, field: Field, found: u32) {
        let otherwise = self.classifier.otherwise[field as usize];
        self.note(field as usize, if found == UNKNOWN { otherwise } else { found });
    }
}

/// Looks one field up, if any policy minds it. By a walk, so that the verifier looks at each field once, not
/// once for each way through the others.
extern "C" fn field<const HOST: bool>(index: u32, search: *mut Search<'_>) -> i64 {
    // SAFETY: `walk` passes a valid state.
    let search = unsafe { &mut *search };
    if index as usize >= FIELDS || !search.minds(index as usize) {
        return GO_ON;
    }
    let (key, about, bank) = (search.key, search.about, search.bank);
    match index {
        0 if HOST => search.answer(Field::Src, UNKNOWN),
        0 => search.answer(Field::Src, prefix::<HOST>(Field::Src.tag(bank), &key.src)),
        1 => search.answer(Field::Dst, prefix::<HOST>(Field::Dst.tag(bank), &key.dst)),
        2 => search.answer(Field::Sport, value(bank, SPORTS, port(key.proto, key.sport))),
        3 => search.answer(Field::Dport, value(bank, DPORTS, port(key.proto, key.dport))),
        4 => search.answer(Field::Proto, value(bank, PROTOS, u32::from(key.proto))),
        5 if about.dscp < 64 => search.answer(Field::Dscp, value(bank, DSCPS, about.dscp)),
        5 => search.answer(Field::Dscp, UNKNOWN),
        6 => search.answer(Field::Iif, exact(Field::Iif.tag(bank), u64::from(about.iif))),
        7 => search.answer(Field::Mac, exact(Field::Mac.tag(bank), about.mac)),
        8 if HOST => search.answer(Field::Uid, user(bank)),
        8 => search.answer(Field::Uid, UNKNOWN),
        9 if HOST => search.answer(Field::Cgroup, cgroup(bank)),
        9 => search.answer(Field::Cgroup, UNKNOWN),
        10 => search.answer(Field::Name, name(&key.dst, bank, about.now_s)),
        _ => return STOP,
    }
    GO_ON
}

/// Looks at the next word that may have a member.
extern "C" fn word(_index: u32, search: *mut Search) -> i64 {
    // SAFETY: `walk` passes a valid state.
    let search = unsafe { &mut *search };
    if search.summary == 0 {
        return STOP;
    }
    let word = search.summary.trailing_zeros();
    search.summary &= search.summary - 1;
    let mut members = u64::MAX;
    for (field, set) in search.sets.iter().enumerate() {
        if search.minds(field) {
            let set = SETS.get(set_index(search.bank, *set));
            members &= set.map_or(0, |s| s.words[word as usize % WORDS]);
        }
    }
    if members == 0 {
        return GO_ON;
    }
    search.found = choice_index(search.bank, word * 64 + members.trailing_zeros()) + 1;
    STOP
}

#[inline(always)]
fn port(proto: u8, port: [u8; 2]) -> u32 {
    if has_ports(proto) {
        u32::from(u16::from_be_bytes(port))
    } else {
        NO_PORT
    }
}

/// By what name the destination was looked up.
#[inline(always)]
fn name(dst: &Addr, bank: u32, now_s: u32) -> u32 {
    // SAFETY: read once; user space writes entries whole.
    match unsafe { NAMES.get(dst) } {
        Some(name) if name.expires_s > now_s => name.set[bank as usize & 1],
        _ => UNKNOWN,
    }
}

/// Tells what was looked up, if only by a name that no policy wants, from what nobody was seen looking up,
/// so that people know how much goes unseen.
#[inline(never)]
fn notice(key: &FlowKey, about: &About) {
    let known = name(&key.dst, 0, about.now_s) != UNKNOWN
        // SAFETY: a copy of four bytes that user space writes whole.
        || unsafe { OTHER_NAMES.get(&key.dst) }.is_some_and(|e| *e > about.now_s);
    act::count(if known { Reason::Named } else { Reason::Nameless });
}

/// The set for the longest prefix of a value.
///
/// Not inlined: the key takes stack. A packet program, which has little left, has its key in memory.
#[inline(never)]
fn prefix<const HOST: bool>(tag: u32, value: &Addr) -> u32 {
    let key = Key::new(
        TAG_BITS + 128,
        PrefixKey {
            tag: tag.to_be_bytes(),
            value: value.0,
        },
    );
    if HOST {
        return PREFIXES.get(&key).copied().unwrap_or(UNKNOWN);
    }
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else {
        return UNKNOWN;
    };
    // SAFETY: as in `steer::packet`.
    let room = unsafe { &mut (*scratch).prefix };
    *room = key;
    PREFIXES.get(&*room).copied().unwrap_or(UNKNOWN)
}

/// Not inlined, as `prefix`.
#[inline(never)]
fn exact(tag: u32, value: u64) -> u32 {
    let key = ExactKey { tag, pad: 0, value };
    // SAFETY: a copy of four bytes that user space writes whole.
    unsafe { EXACT.get(&key) }.copied().unwrap_or(UNKNOWN)
}

#[inline(always)]
fn value(bank: u32, base: u32, value: u32) -> u32 {
    VALUES.get(value_index(bank, base, value)).copied().unwrap_or(0)
}

/// By the user id of the process.
#[inline(always)]
fn user(bank: u32) -> u32 {
    let [a, b, c, d] = (bpf_get_current_uid_gid() as u32).to_be_bytes();
    let mut value = Addr([0; 16]);
    (value.0[0], value.0[1], value.0[2], value.0[3]) = (a, b, c, d);
    prefix::<true>(Field::Uid.tag(bank), &value)
}

/// Where the way up from the cgroup of a process is.
#[repr(C)]
struct Climb {
    bank: u32,
    set: u32,
}

/// By the deepest of the cgroups around the process that any policy names.
#[inline(always)]
fn cgroup(bank: u32) -> u32 {
    let mut climb = Climb { bank, set: UNKNOWN };
    walk(DEEPEST, climb_one, &mut climb);
    climb.set
}

extern "C" fn climb_one(index: u32, climb: *mut Climb) -> i64 {
    // SAFETY: `walk` passes a valid state.
    let climb = unsafe { &mut *climb };
    let level = (DEEPEST - 1).wrapping_sub(index) as i32;
    // SAFETY: takes a number; 0 is no cgroup.
    let id = unsafe { bpf_get_current_ancestor_cgroup_id(level) };
    if id == 0 {
        return GO_ON;
    }
    climb.set = exact(Field::Cgroup.tag(climb.bank), id);
    if climb.set == UNKNOWN { GO_ON } else { STOP }
}
