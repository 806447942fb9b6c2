//! Which fields a policy asks for. The maps do not tell what is merely excluded.

use uplink_common::policy::Field;

use crate::config::{self, Policy};

/// By name of a policy, its fields by [`Field::bit`].
#[must_use]
pub fn minds(policies: &[Policy]) -> Vec<(String, u32)> {
    let all = policies.iter();
    all.map(|p| (p.name.value.clone(), fields(&p.matches))).collect()
}

fn fields(asked: &config::Match) -> u32 {
    let fields = [
        (Field::Src, asked.src.is_free()),
        (Field::Dst, asked.dst.is_free()),
        (Field::Sport, asked.sport.is_free()),
        (Field::Dport, asked.dport.is_free()),
        (Field::Proto, asked.proto.is_free()),
        (Field::Dscp, asked.dscp.is_free()),
        (Field::Iif, asked.iif.is_free()),
        (Field::Mac, asked.mac.is_free()),
        (Field::Uid, asked.uid.is_free()),
        (Field::Cgroup, asked.cgroup.is_free()),
        (Field::Name, asked.domain.is_empty()),
    ];
    let asked = fields.iter().filter(|(_, free)| !free);
    asked.fold(0, |bits, (field, _)| bits | field.bit())
}

/// What a field is called in the configuration.
pub(super) const fn word(field: Field) -> &'static str {
    match field {
        Field::Src => "src",
        Field::Dst => "dst",
        Field::Sport => "sport",
        Field::Dport => "dport",
        Field::Proto => "proto",
        Field::Dscp => "dscp",
        Field::Iif => "iif",
        Field::Mac => "mac",
        Field::Uid => "uid",
        Field::Cgroup => "cgroup",
        Field::Name => "domain",
    }
}
