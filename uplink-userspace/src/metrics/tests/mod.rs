mod dashboard;

use super::*;

fn path(family: &'static str) -> Path {
    let mut probes = Probes::default();
    (probes.answered, probes.rtt_us) = (3, 30_000);
    probes.buckets[5] = 2;
    probes.buckets[crate::tally::BOUNDS] = 1;
    let mut passive = Passive {
        rtt_us: 5_000,
        ..Passive::default()
    };
    (passive.rtt_log2[0], passive.rtt_log2[12], passive.rtt_log2[23]) = (1, 1, 1);
    Path {
        family,
        up: true,
        share: 0.75,
        loss: 0.25,
        probes,
        passive,
    }
}

fn snapshot(name: &str) -> Snapshot {
    let uplink = Uplink {
        name: name.into(),
        state: State::Degraded,
        tier: 1,
        weight: 3,
        received: [10, 1],
        sent: [u64::MAX, 2],
        flows: [5, 4],
        failovers: 1,
        state_changes: 2,
        quota: Some([1, 2]),
        paths: vec![path("ipv4"), path("ipv6")],
    };
    Snapshot {
        attach: "tcx".into(),
        uplinks: vec![uplink],
        packets: vec![("pinned", 7)],
        ..Snapshot::default()
    }
}

/// Whether the text has this line.
#[track_caller]
fn has(text: &str, line: &str) {
    assert!(text.lines().any(|l| l == line), "no line {line} in\n{text}");
}

#[test]
fn every_value_has_its_name_and_labels() {
    let text = snapshot("isp1").text();
    has(&text, "# TYPE uplink_up gauge");
    has(&text, "# HELP uplink_weight Configured weight");
    has(&text, r#"uplink_up{uplink="isp1"} 1.0"#);
    has(&text, r#"uplink_state{uplink="isp1",state="degraded"} 1.0"#);
    has(&text, r#"uplink_state{uplink="isp1",state="up"} 0.0"#);
    has(&text, r#"uplink_share_ratio{uplink="isp1",family="ipv6"} 0.75"#);
    has(
        &text,
        r#"uplink_sent_bytes_total{uplink="isp1"} 18446744073709551615"#,
    );
    has(&text, r#"uplink_packets_total{reason="pinned"} 7"#);
    has(&text, "uplink_hook_failures_total 0");
    assert!(text.ends_with("# EOF\n"));
    assert!(
        !text.contains("uplink_warnings"),
        "a metric without series:\n{text}"
    );
}

#[test]
fn histograms_are_cumulative_and_end_with_all() {
    let text = snapshot("isp1").text();
    let bucket = |name: &str, le: &str, n: u64| {
        has(
            &text,
            &format!(r#"uplink_{name}_seconds_bucket{{le="{le}",uplink="isp1",family="ipv4"}} {n}"#),
        );
    };
    bucket("probe_rtt", "0.008", 0);
    bucket("probe_rtt", "0.016", 2);
    bucket("probe_rtt", "+Inf", 3);
    bucket("passive_rtt", "0.000256", 1);
    bucket("passive_rtt", "0.008192", 2);
    bucket("passive_rtt", "8.388608", 2);
    bucket("passive_rtt", "+Inf", 3);
    has(
        &text,
        r#"uplink_probe_rtt_seconds_sum{uplink="isp1",family="ipv4"} 0.03"#,
    );
    has(
        &text,
        r#"uplink_passive_rtt_seconds_count{uplink="isp1",family="ipv4"} 3"#,
    );
}

#[test]
fn a_name_cannot_break_out_of_its_label() {
    let text = snapshot("a\"} 1\n\\b").text();
    has(&text, r#"uplink_weight{uplink="a\"} 1\n\\b"} 3.0"#);
}
