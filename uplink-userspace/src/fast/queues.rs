//! What at an interface needs every packet that goes through it: queues, filters, programs, bridges.

/// Queues that only wait their turn.
const PLAIN: [&str; 6] = ["noqueue", "mq", "pfifo_fast", "pfifo", "fq_codel", "fq"];
/// Places for filters, which are listed by themselves.
const HOLDERS: [&str; 2] = ["clsact", "ingress"];
/// Kinds of links that take XDP programs in their driver, or whose wire is one that does; a card has no kind.
const KINDS: [&str; 2] = ["veth", "vlan"];

/// An interface as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// What made it, such as `vlan`; `None` for hardware.
    pub kind: Option<String>,
    /// Its frames are Ethernet's.
    pub is_ethernet: bool,
    /// It is a port of this bridge, bond or VRF.
    pub master: Option<String>,
    /// The kinds of its qdiscs, the root's and those below.
    pub qdiscs: Vec<String>,
    /// Filters of others, for people.
    pub filters: Vec<String>,
    /// The names of others' programs at tcx, both ways, and at XDP.
    pub programs: Vec<String>,
}

/// What stands in the way at an interface, for people.
#[must_use]
pub fn obstacles(device: &Device) -> Vec<String> {
    let name = &device.name;
    let mut found = Vec::new();
    match device.kind.as_deref() {
        Some(kind) if !KINDS.contains(&kind) => {
            found.push(format!("{name} is a {kind}, which has no XDP of its own"))
        }
        _ if !device.is_ethernet => found.push(format!("{name} is no Ethernet")),
        _ => {}
    }
    if let Some(master) = &device.master {
        found.push(format!("{name} is a port of {master}"));
    }
    let shapes = |kind: &&String| !PLAIN.contains(&kind.as_str()) && !HOLDERS.contains(&kind.as_str());
    let qdiscs = device.qdiscs.iter().filter(shapes);
    found.extend(qdiscs.map(|kind| format!("qdisc {kind} at {name}")));
    found.extend(device.filters.iter().map(|filter| format!("{filter} at {name}")));
    found.extend(
        device
            .programs
            .iter()
            .map(|program| format!("program {program} at {name}")),
    );
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card() -> Device {
        let words = |all: &[&str]| all.iter().map(|w| (*w).to_owned()).collect();
        Device {
            name: "eth0".into(),
            is_ethernet: true,
            qdiscs: words(&["mq", "fq_codel", "fq_codel", "clsact"]),
            ..Device::default()
        }
    }

    #[test]
    fn a_card_with_what_it_comes_with_is_free() {
        assert_eq!(obstacles(&card()), [""; 0]);
        let veth = Device {
            kind: Some("veth".into()),
            qdiscs: vec!["noqueue".into()],
            ..card()
        };
        assert_eq!(obstacles(&veth), [""; 0]);
        let vlan = Device {
            name: "eth0.10".into(),
            kind: Some("vlan".into()),
            ..veth
        };
        assert_eq!(obstacles(&vlan), [""; 0]);
    }

    #[test]
    fn what_sees_every_packet_is_named() {
        let change = |change: fn(&mut Device)| {
            let mut device = card();
            change(&mut device);
            obstacles(&device)
        };
        for (found, expected) in [
            (change(|d| d.qdiscs = vec!["htb".into()]), "qdisc htb at eth0"),
            (
                change(|d| d.qdiscs = vec!["cake".into(), "ingress".into()]),
                "qdisc cake at eth0",
            ),
            (change(|d| d.master = Some("br0".into())), "eth0 is a port of br0"),
            (
                change(|d| d.kind = Some("bond".into())),
                "eth0 is a bond, which has no XDP of its own",
            ),
            (change(|d| d.is_ethernet = false), "eth0 is no Ethernet"),
            (
                change(|d| d.filters = vec!["a tc filter".into()]),
                "a tc filter at eth0",
            ),
            (
                change(|d| d.programs.push("xdp_dispatcher".into())),
                "program xdp_dispatcher at eth0",
            ),
        ] {
            assert_eq!(found, [expected]);
        }
    }
}
