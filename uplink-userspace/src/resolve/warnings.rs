//! What a configuration promises and this host will not keep, without being wrong.

use std::net::IpAddr;

use uplink_common::Family;

use super::{Leg, Uplink, family_name, listed};
use crate::config::{Config, Probe};
use crate::status::Warning;

/// Uplinks whose probes cannot see beyond the provider's router: enough targets to make a round
/// good are gateways or in the prefix that the uplink shares with its gateway, so a blackhole
/// behind it goes unnoticed. `uplinks` are those of `config`.
#[must_use]
pub fn warnings(config: &Config, uplinks: &[Uplink]) -> Vec<Warning> {
    let gateways = uplinks.iter().flat_map(|u| [u.v4, u.v6]).flatten();
    let gateways: Vec<IpAddr> = gateways.map(|leg| leg.gateway).collect();
    let mut warnings = Vec::new();
    for u in uplinks {
        let Some(configured) = config.uplinks.iter().find(|c| c.name.value == u.name) else {
            continue;
        };
        for family in Family::ALL {
            let Some(leg) = u.leg(family) else { continue };
            let near = near(&configured.probe, family, leg, &gateways);
            if !near.is_empty() {
                warnings.push(warning(&u.name, family, &near));
            }
        }
    }
    warnings
}

/// The targets that answer without the provider, if they are as many as make a round good.
fn near(probe: &Probe, family: Family, leg: &Leg, gateways: &[IpAddr]) -> Vec<String> {
    let all: Vec<IpAddr> = probe.targets_of(family).map(|t| t.address).collect();
    let is_near = |a: &&IpAddr| gateways.contains(*a) || leg.prefix.contains(*a);
    let near: Vec<String> = all.iter().filter(is_near).map(ToString::to_string).collect();
    let enough = all.len().min(probe.quorum as usize);
    match near.len() >= enough {
        true => near,
        false => Vec::new(),
    }
}

fn warning(name: &str, family: Family, near: &[String]) -> Warning {
    Warning {
        code: "gateway-only-probe".into(),
        text: format!(
            "{name} ({}) counts as up while {} answers, which is no further than the provider's router",
            family_name(family),
            listed(near)
        ),
        remedy:
            "add a target beyond the provider, such as 1.1.1.1, or raise `quorum` so that one has to answer"
                .into(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{FILE, config, host};
    use super::*;
    use std::collections::BTreeMap;

    fn texts(probe: &str) -> Vec<String> {
        let config = config(&format!("{FILE}[probe]\n{probe}"));
        let found = super::super::resolve(&config, &host(), &BTreeMap::new()).unwrap();
        let warnings = warnings(&config, &found.uplinks);
        assert!(warnings.iter().all(|w| w.code == "gateway-only-probe"));
        let cut = |w: Warning| w.text.split(" answers").next().unwrap_or("").to_owned();
        warnings.into_iter().map(cut).collect()
    }

    #[test]
    fn targets_beyond_the_provider_are_fine() {
        assert_eq!(texts("targets = [\"1.1.1.1\", \"2620:fe::9\"]"), [""; 0]);
        assert_eq!(texts("type = \"exec\"\ncommand = [\"/bin/true\"]"), [""; 0]);
    }

    #[test]
    fn a_gateway_or_its_neighbour_alone_proves_nothing() {
        // The gateway of one uplink is next to the other, too.
        assert_eq!(
            texts("targets = [\"192.168.1.1\", \"fe80::9\"]"),
            [
                "isp1 (IPv4) counts as up while 192.168.1.1",
                "isp1 (IPv6) counts as up while fe80::9",
                "isp2 (IPv4) counts as up while 192.168.1.1",
            ]
        );
        assert_eq!(
            texts("targets = [\"192.168.1.7\"]"),
            ["isp1 (IPv4) counts as up while 192.168.1.7"]
        );
    }

    #[test]
    fn a_quorum_that_needs_a_far_target_is_enough() {
        let both = "targets = [\"192.168.1.7\", \"1.1.1.1\"]";
        assert_eq!(texts(both), ["isp1 (IPv4) counts as up while 192.168.1.7"]);
        assert_eq!(texts(&format!("{both}\nquorum = 2")), [""; 0]);
    }
}
