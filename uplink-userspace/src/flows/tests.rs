use super::*;

fn key(src: &str, dst: &str, proto: u8) -> FlowKey {
    let addr = |text: &str| text.parse::<IpAddr>().unwrap().into();
    FlowKey {
        src: addr(src),
        dst: addr(dst),
        sport: 40_000u16.to_be_bytes(),
        dport: 443u16.to_be_bytes(),
        proto,
        pad: [0; 3],
    }
}

fn pin(uplink: u8, generation: u32, created_s: u32) -> Pin {
    Pin {
        uplink,
        seen: 0,
        policy: 0,
        generation,
        last_used_s: created_s + 5,
        created_s,
    }
}

fn uplinks() -> Uplinks {
    let mut uplinks = Uplinks::default();
    uplinks.insert(1, "isp1", [7, 0]);
    uplinks.insert(2, "isp2", [0, 0]);
    uplinks
}

#[test]
fn a_flow_reads_like_this() {
    let v4 = key("10.9.0.2", "203.0.113.1", 6);
    let shown = flow(&uplinks(), &v4, &pin(1, 7, 100), 130).unwrap();
    assert_eq!(
        serde_json::to_string(&shown).unwrap(),
        r#"{"src":"10.9.0.2","dst":"203.0.113.1","sport":40000,"dport":443,"proto":"tcp","uplink":"isp1","age_s":30,"idle_s":25}"#
    );
    let mut host = key("100::1:2:3:4", "2001:db8::1", 17);
    host.sport = [0; 2];
    let host = flow(&uplinks(), &host, &pin(2, 0, 100), 90).unwrap();
    assert_eq!((&*host.src, host.host, host.age_s), ("-", true, 0));
    let text = table(&[shown, host]);
    assert!(text.contains("10.9.0.2:40000"), "{text}");
    assert!(text.contains("[2001:db8::1]:443"), "{text}");
    assert!(text.contains("30s"), "{text}");
}

#[test]
fn flows_are_found_by_policy_and_by_either_end() {
    let mut uplinks = uplinks();
    uplinks.insert_policy(3, "voip".into());
    let rows = [
        ("10.9.0.2", "203.0.113.1", 3),
        ("10.9.0.3", "203.0.113.1", 0),
        ("fd00::2", "2001:db8::1", 3),
        ("100::1:2:3:4", "203.0.113.9", 0),
    ];
    let found = |wanted: &Wanted| -> String {
        let mut newest = Newest::new(10, wanted.clone());
        for ((src, dst, policy), age) in rows.iter().zip(0..) {
            let pin = Pin {
                policy: *policy,
                ..pin(2, 0, 100 - age)
            };
            newest.add(&uplinks, &key(src, dst, 6), &pin);
        }
        let at = |k: &FlowKey| rows.iter().position(|(s, d, _)| key(s, d, 6) == *k).unwrap();
        newest.finish().iter().map(|(k, _)| at(k).to_string()).collect()
    };
    let policy = |name: &str| Wanted {
        policy: uplinks.policy(name),
        ..Wanted::default()
    };
    assert_eq!(found(&policy("voip")), "02");
    for (text, rows) in [
        ("10.9.0.2", "0"),
        ("203.0.113.0/24", "013"),
        ("0.0.0.0/0", "013"),
        ("::/0", "2"),
        ("100::/16", ""),
    ] {
        let address = Some(addresses(text).unwrap());
        let wanted = Wanted {
            address,
            ..Wanted::default()
        };
        assert_eq!(found(&wanted), rows, "{text}");
    }
    for text in ["", "10.9.0.0/33", "isp1", "10.9.0"] {
        assert!(
            addresses(text).unwrap_err().contains("is no address: give one"),
            "{text}"
        );
    }
}

#[test]
fn the_policy_has_a_column_where_any_flow_has_one() {
    let mut uplinks = uplinks();
    uplinks.insert_policy(3, "voip".into());
    let v4 = key("10.9.0.2", "203.0.113.1", 6);
    let by = |policy| {
        let pin = Pin {
            policy,
            ..pin(1, 7, 100)
        };
        flow(&uplinks, &v4, &pin, 130).unwrap()
    };
    assert_eq!((by(3).policy.as_deref(), by(4).policy), (Some("voip"), None));
    assert!(!table(&[by(0)]).contains("POLICY"));
    let text = table(&[by(0), by(3)]);
    assert!(text.contains("POLICY") && text.contains("voip"), "{text}");
}

#[test]
fn protocols_have_names_and_numbers() {
    for (text, number) in [("tcp", Some(6)), ("47", Some(47)), ("256", None), ("TCP", None)] {
        assert_eq!(protocol_number(text), number, "{text}");
    }
    assert_eq!((protocol(17), protocol(99)), ("udp".into(), "99".into()));
}

#[test]
fn void_pins_and_those_of_the_kernel_are_no_flows() {
    let (v4, v6) = (
        key("10.9.0.2", "203.0.113.1", 6),
        key("fd00::2", "2001:db8::1", 6),
    );
    let mut counts = Counts::default();
    let rows = [
        (&v4, pin(1, 7, 100)),
        (&v4, pin(1, 6, 100)),
        (&v6, pin(1, 0, 10)),
        (&v6, pin(1, 7, 100)),
        (&v4, pin(0, 0, 100)),
        (&v4, pin(9, 0, 100)),
    ];
    for (key, pin) in &rows {
        counts.add(&uplinks(), key, pin, 110);
    }
    assert_eq!(counts.of(1), Count { flows: 2, active: 1 });
    assert_eq!(counts.of(2), Count::default());
    assert!(flow(&uplinks(), &v4, &pin(0, 0, 1), 2).is_none());
}

#[test]
fn the_newest_are_kept() {
    for limit in [0, 1, 3, 10, 1000] {
        let of_two = Wanted {
            uplink: Some(2),
            ..Wanted::default()
        };
        let mut newest = Newest::new(limit, of_two);
        for i in 0..100u32 {
            // 37 has no common factor with 101, so every age comes once.
            let key = key("10.9.0.2", "203.0.113.1", 6);
            newest.add(&uplinks(), &key, &pin(2, 0, i * 37 % 101));
            newest.add(&uplinks(), &key, &pin(1, 7, 500));
        }
        assert_eq!(newest.total(), 100);
        let ages: Vec<u32> = newest.finish().iter().map(|(_, p)| p.created_s).collect();
        let mut all: Vec<u32> = (0..100u32).map(|i| i * 37 % 101).collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        all.truncate(limit);
        assert_eq!(ages, all);
    }
}
