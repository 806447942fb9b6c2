//! What policies mean, read as plainly as possible from the configuration: the yardstick for tables and
//! programs. Nothing of the library is used but the configuration's types.

use std::net::IpAddr;

use uplink_userspace::config::{Domain, Field, Match, Policy};

/// A new flow as a person would describe it.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Nobody knows it yet of this host's own sockets.
    pub src: Option<IpAddr>,
    pub dst: IpAddr,
    /// `None` where the protocol has none.
    pub ports: Option<(u16, u16)>,
    pub proto: u8,
    pub dscp: Option<u8>,
    /// Name of the interface.
    pub iif: &'static str,
    pub mac: Option<[u8; 6]>,
    pub uid: Option<u32>,
    /// Path of the process's cgroup below the mount.
    pub cgroup: Option<String>,
    /// Names that the destination is known by now.
    pub names: Vec<&'static str>,
}

/// The place of the first policy that matches, among those in force.
pub fn first(policies: &[Policy], active: &[bool], flow: &Flow) -> Option<usize> {
    (0..policies.len()).find(|place| active[*place] && matches(&policies[*place].matches, flow))
}

fn matches(m: &Match, flow: &Flow) -> bool {
    asks(&m.src, flow.src.as_ref(), |net, a| net.contains(a))
        && asks(&m.dst, Some(&flow.dst), |net, a| net.contains(a))
        && asks(&m.sport, flow.ports.map(|p| p.0).as_ref(), |r, p| r.contains(p))
        && asks(&m.dport, flow.ports.map(|p| p.1).as_ref(), |r, p| r.contains(p))
        && asks(&m.proto, Some(&flow.proto), |a, b| a == b)
        && asks(&m.dscp, flow.dscp.as_ref(), |a, b| a == b)
        && asks(&m.iif, Some(&flow.iif), |a, b| a == b)
        && asks(&m.mac, flow.mac.as_ref(), |a, b| a == b)
        && asks(&m.uid, flow.uid.as_ref(), |r, u| r.contains(u))
        && asks(&m.cgroup, flow.cgroup.as_ref(), |outer, inner| {
            around(outer, inner)
        })
        && (m.domain.is_empty() || m.domain.iter().any(|d| flow.names.iter().any(|n| means(d, n))))
}

/// What is not there is in no list, neither in one of those wanted nor in one of those not.
fn asks<T, V>(field: &Field<T>, value: Option<&V>, is: impl Fn(&T, &V) -> bool) -> bool {
    let listed = |list: &Vec<T>| value.is_some_and(|v| list.iter().any(|entry| is(entry, v)));
    field.any.as_ref().is_none_or(listed) && !listed(&field.not)
}

fn around(outer: &str, inner: &str) -> bool {
    outer == "/" || inner == outer || inner.starts_with(&format!("{outer}/"))
}

fn means(domain: &Domain, name: &str) -> bool {
    name == domain.name || (domain.below && name.ends_with(&format!(".{}", domain.name)))
}

#[test]
fn the_yardstick_is_straight() {
    let net = |n: &str| n.parse::<ipnet::IpNet>().expect("a prefix");
    let flow = Flow {
        src: None,
        dst: [10, 1, 2, 3].into(),
        ports: None,
        proto: 1,
        dscp: Some(0),
        iif: "eth0",
        mac: None,
        uid: Some(1000),
        cgroup: Some("/a/b".into()),
        names: vec!["x.a.org"],
    };
    let mut m = Match::default();
    assert!(matches(&m, &flow));
    m.dst.any = Some(vec![net("10.0.0.0/8")]);
    assert!(matches(&m, &flow));
    m.dst.not = vec![net("10.1.2.0/24")];
    assert!(!matches(&m, &flow));
    m.dst.not.clear();
    m.src.not = vec![net("0.0.0.0/0")];
    assert!(matches(&m, &flow), "no source is none of those");
    m.dport.any = Some(vec![0..=u16::MAX]);
    assert!(!matches(&m, &flow), "no port is no port");
    m.dport.any = None;
    m.cgroup.any = Some(vec!["/a".into()]);
    m.domain = vec![Domain {
        name: "a.org".into(),
        below: true,
    }];
    assert!(matches(&m, &flow));
    m.domain[0].below = false;
    assert!(!matches(&m, &flow));
    m.domain.clear();
    m.cgroup.any = Some(vec!["/a/bb".into()]);
    assert!(!matches(&m, &flow));
}
