//! What the programs make of a new flow, in plain Rust: for `uplink explain`, and for tests.

use anyhow::Result;
use uplink_common::Addr;
use uplink_common::policy::{
    Classifier, DPORTS, DSCPS, Field, NO_PORT, PROTOS, SPORTS, Set, has_ports, mac_value,
};

use super::prefixes::uid_value;

/// The tables of one bank. Indices of sets count within the bank.
pub trait Tables {
    /// What there is to look at.
    ///
    /// # Errors
    /// When it cannot be read; likewise below.
    fn classifier(&self) -> Result<Classifier>;
    /// A set by its index.
    ///
    /// # Errors
    /// As above.
    fn set(&self, index: u32) -> Result<Set>;
    /// The set of the longest prefix that covers a value.
    ///
    /// # Errors
    /// As above.
    fn prefix(&self, field: Field, value: Addr) -> Result<Option<u32>>;
    /// The set of a value behind `base`, one of [`SPORTS`], [`DPORTS`], [`PROTOS`], [`DSCPS`].
    ///
    /// # Errors
    /// As above.
    fn value(&self, base: u32, value: u32) -> Result<u32>;
    /// The set of exactly this value.
    ///
    /// # Errors
    /// As above.
    fn exact(&self, field: Field, value: u64) -> Result<Option<u32>>;
    /// The set of an address whose name is known, and when it is forgotten, in seconds since boot.
    ///
    /// # Errors
    /// As above.
    fn name(&self, address: Addr) -> Result<Option<(u32, u32)>>;
}

/// A new flow, as far as policies look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The source; this host's own sockets have none yet.
    pub src: Option<Addr>,
    /// The destination.
    pub dst: Addr,
    /// Source port, where the protocol has ports.
    pub sport: u16,
    /// Destination port, likewise.
    pub dport: u16,
    /// IP protocol.
    pub proto: u8,
    /// Code point; unknown for sockets.
    pub dscp: Option<u8>,
    /// Where it came in; 1 for this host's own.
    pub iif: u32,
    /// Who sent the frame.
    pub mac: Option<[u8; 6]>,
    /// Whose socket it is; none for forwarded flows.
    pub uid: Option<u32>,
    /// The process's cgroup and those above it, the deepest first; empty for forwarded flows.
    pub cgroups: Vec<u64>,
    /// Seconds since boot.
    pub now_s: u32,
}

/// What came out, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The place of the policy that decides.
    pub place: Option<u32>,
    /// The policies in force by their schedules.
    pub active: Set,
    /// The fields that were looked at.
    pub looks: Vec<Look>,
}

/// What one field answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// The field.
    pub field: Field,
    /// Whether the flow's value is in the tables; if not, only those are satisfied who do not mind.
    pub listed: bool,
    /// The policies that are satisfied.
    pub set: Set,
}

impl Verdict {
    /// What keeps a policy from matching; empty when it matches or its schedule alone does.
    pub fn missed(&self, place: u32) -> impl Iterator<Item = Field> {
        let missed = self.looks.iter().filter(move |look| !look.set.contains(place));
        missed.map(|look| look.field)
    }
}

/// Which policy decides about a new flow.
///
/// # Errors
/// When the tables cannot be read.
pub fn classify(tables: &impl Tables, flow: &Facts) -> Result<Verdict> {
    let classifier = tables.classifier()?;
    let mut verdict = Verdict {
        place: None,
        active: Set::EMPTY,
        looks: Vec::new(),
    };
    if classifier.policies == 0 {
        return Ok(verdict);
    }
    verdict.active = tables.set(classifier.active)?;
    let asked = |field: &&Field| classifier.fields & field.bit() != 0;
    for field in Field::ALL.iter().filter(asked) {
        verdict.looks.push(look(tables, &classifier, *field, flow)?);
    }
    let looks = verdict.looks.iter();
    verdict.place = looks
        .fold(verdict.active, |left, look| left.and(&look.set))
        .first();
    Ok(verdict)
}

fn look(tables: &impl Tables, classifier: &Classifier, field: Field, flow: &Facts) -> Result<Look> {
    let found = find(tables, field, flow)?;
    let set = tables.set(found.unwrap_or(classifier.otherwise[field as usize]))?;
    Ok(Look {
        field,
        listed: found.is_some(),
        set,
    })
}

fn find(tables: &impl Tables, field: Field, flow: &Facts) -> Result<Option<u32>> {
    let prefix = |value: Option<Addr>| value.map_or(Ok(None), |v| tables.prefix(field, v));
    let exact = |value: Option<u64>| value.map_or(Ok(None), |v| tables.exact(field, v));
    let value = |base, value| tables.value(base, value).map(Some);
    let port = |port: u16| {
        if has_ports(flow.proto) {
            port.into()
        } else {
            NO_PORT
        }
    };
    match field {
        Field::Src => prefix(flow.src),
        Field::Dst => prefix(Some(flow.dst)),
        Field::Sport => value(SPORTS, port(flow.sport)),
        Field::Dport => value(DPORTS, port(flow.dport)),
        Field::Proto => value(PROTOS, flow.proto.into()),
        Field::Dscp => flow.dscp.map_or(Ok(None), |d| value(DSCPS, u32::from(d & 63))),
        Field::Iif => exact(Some(flow.iif.into())),
        Field::Mac => exact(flow.mac.map(mac_value)),
        Field::Uid => prefix(flow.uid.map(uid_value)),
        Field::Cgroup => deepest(tables, flow),
        Field::Name => name(tables, flow),
    }
}

fn deepest(tables: &impl Tables, flow: &Facts) -> Result<Option<u32>> {
    for id in &flow.cgroups {
        if let Some(set) = tables.exact(Field::Cgroup, *id)? {
            return Ok(Some(set));
        }
    }
    Ok(None)
}

fn name(tables: &impl Tables, flow: &Facts) -> Result<Option<u32>> {
    let known = tables.name(flow.dst)?;
    let fresh = known.filter(|(_, expires_s)| flow.now_s < *expires_s);
    Ok(fresh.map(|(set, _)| set))
}
