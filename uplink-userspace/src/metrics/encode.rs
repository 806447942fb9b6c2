//! The names, help and labels of every metric. Names are a contract with dashboards.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use uplink_common::record::Passive;

use super::{Path, Snapshot, Uplink};
use crate::status::State;
use crate::tally::{self, Probes};

const STATES: [State; 6] = [
    State::Up,
    State::Degraded,
    State::Down,
    State::Draining,
    State::Disabled,
    State::Unknown,
];

/// Buckets of `rtt_log2` that are told: what is quicker than 2^8 microseconds (a quarter of a
/// millisecond) is one, and so is what is slower than 2^23 (8.4 s).
const PASSIVE_FIRST: usize = 7;
const PASSIVE_LAST: usize = 22;

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut out = Out(encoder);
        self.daemon(&mut out)?;
        self.states(&mut out)?;
        self.traffic(&mut out)?;
        self.probes(&mut out)?;
        self.users(&mut out)?;
        self.changes(&mut out)
    }
}

impl Snapshot {
    fn daemon(&self, out: &mut Out<'_>) -> fmt::Result {
        let build = [("version", env!("CARGO_PKG_VERSION")), ("attach", &self.attach)];
        let name = "uplink_build_info";
        out.gauge(
            name,
            "Version of the daemon and hook of its programs",
            [(build, 1.0)],
        )?;
        let help = "When the daemon started, Unix time";
        out.descriptor("uplink_start_time_seconds", help, MetricType::Gauge)?
            .encode_gauge(&self.started_s)?;
        let [entries, room] = self.flow_table.map(|n| n as f64);
        let flows = [("map", "flows")];
        let help = "Entries of a map; those of flows that ended stay until newer ones need the room";
        out.gauge("uplink_map_entries", help, [(flows, entries)])?;
        out.gauge(
            "uplink_map_capacity",
            "Entries a map has room for",
            [(flows, room)],
        )?;
        let help = "Standing warnings of uplink status";
        let warnings = self.warnings.iter();
        out.gauge(
            "uplink_warnings",
            help,
            warnings.map(|(code, n)| ([("code", &**code)], *n as f64)),
        )
    }

    fn states(&self, out: &mut Out<'_>) -> fmt::Result {
        let help = "1 while the uplink is up or degraded, else 0";
        let alive = |u: &Uplink| f64::from(matches!(u.state, State::Up | State::Degraded));
        out.gauge("uplink_up", help, self.each(alive))?;
        let names = STATES.map(|s| s.to_string());
        let is = |u: &Uplink| STATES.map(|s| f64::from(u.state == s));
        let set = self.uplinks.iter().flat_map(|u| {
            let of = std::iter::zip(&names, is(u));
            of.map(|(state, is)| ([("uplink", &*u.name), ("state", &**state)], is))
        });
        out.gauge("uplink_state", "1 for the state the uplink is in, else 0", set)?;
        out.gauge(
            "uplink_tier",
            "Tier, lower is preferred",
            self.each(|u| u.tier.into()),
        )?;
        out.gauge(
            "uplink_weight",
            "Configured weight",
            self.each(|u| u.weight.into()),
        )?;
        let help = "1 while a family of the uplink is not known to be dead, else 0";
        out.gauge("uplink_path_up", help, self.paths(|p| f64::from(p.up)))?;
        let help = "Part of new flows that the uplink gets";
        out.gauge("uplink_share_ratio", help, self.paths(|p| p.share))
    }

    fn traffic(&self, out: &mut Out<'_>) -> fmt::Result {
        let help = "Bytes that came in by the uplink, at the link layer";
        out.counter("uplink_received_bytes", help, self.each(|u| u.received[0]))?;
        let help = "Packets that came in by the uplink";
        out.counter("uplink_received_packets", help, self.each(|u| u.received[1]))?;
        let help = "Bytes that left by the uplink, at the link layer";
        out.counter("uplink_sent_bytes", help, self.each(|u| u.sent[0]))?;
        let help = "Packets that left by the uplink";
        out.counter("uplink_sent_packets", help, self.each(|u| u.sent[1]))?;
        let help = "Pinned flows; those that ended stay until newer ones need the room";
        out.gauge("uplink_flows", help, self.each(|u| u.flows[0] as f64))?;
        let help = "Pinned flows that a packet used within the last minute";
        out.gauge("uplink_active_flows", help, self.each(|u| u.flows[1] as f64))?;
        let quota = |i: usize| {
            let with = self.uplinks.iter().filter_map(move |u| Some((u, u.quota?[i])));
            with.map(|(u, n)| ([("uplink", &*u.name)], n as f64))
        };
        let help = "Bytes that the quota counts in this period, both ways";
        out.gauge("uplink_quota_used_bytes", help, quota(0))?;
        out.gauge(
            "uplink_quota_bytes",
            "What the quota allows in a period",
            quota(1),
        )
    }

    fn probes(&self, out: &mut Out<'_>) -> fmt::Result {
        let help = "Probes whose end is known";
        out.counter("uplink_probes_sent", help, self.paths(|p| p.probes.sent()))?;
        let help = "Probes without an answer in time";
        out.counter("uplink_probes_lost", help, self.paths(|p| p.probes.lost))?;
        let help = "Lost probes whose answer came in the end";
        out.counter("uplink_probes_late", help, self.paths(|p| p.probes.late))?;
        let help = "Lost probes among the last hundred";
        out.gauge("uplink_loss_ratio", help, self.paths(|p| p.loss))?;
        let help = "Round-trip time of answered probes";
        out.histogram(
            "uplink_probe_rtt_seconds",
            help,
            self.paths(|p| of_probes(&p.probes)),
        )?;
        let help = "Replies that no probe had waited for";
        let refused = self.refused.iter();
        out.counter(
            "uplink_probe_replies_refused",
            help,
            refused.map(|(kind, n)| ([("kind", *kind)], *n)),
        )
    }

    fn users(&self, out: &mut Out<'_>) -> fmt::Result {
        let help = "Round-trip time of the users' own TCP connections";
        out.histogram(
            "uplink_passive_rtt_seconds",
            help,
            self.paths(|p| of_users(&p.passive)),
        )?;
        let help = "TCP connections that users began";
        out.counter(
            "uplink_connections_opened",
            help,
            self.paths(|p| p.passive.opened),
        )?;
        let help = "Of those, the ones that were answered";
        out.counter(
            "uplink_connections_answered",
            help,
            self.paths(|p| p.passive.answered),
        )?;
        let help = "First packets of connections that had to be sent again";
        out.counter(
            "uplink_connections_retransmitted",
            help,
            self.paths(|p| p.passive.retransmitted),
        )?;
        let policy = |i: usize| {
            let all = self.policies.iter();
            all.map(move |(name, packets, flows)| ([("policy", &**name)], [*packets, *flows][i]))
        };
        let help = "Packets of forwarded flows that the policy placed";
        out.counter("uplink_policy_packets", help, policy(0))?;
        let help = "Flows that the policy placed or refused";
        out.counter("uplink_policy_flows", help, policy(1))?;
        let help = "Packets by outcome of the packet path";
        let packets = self.packets.iter();
        out.counter(
            "uplink_packets",
            help,
            packets.map(|(reason, n)| ([("reason", *reason)], *n)),
        )
    }

    fn changes(&self, out: &mut Out<'_>) -> fmt::Result {
        let help = "Times that the flows of a dead uplink had to start anew elsewhere";
        out.counter("uplink_failovers", help, self.each(|u| u.failovers))?;
        let help = "Changes of the uplink's state";
        out.counter("uplink_state_changes", help, self.each(|u| u.state_changes))?;
        let help = "What others changed and the daemon put right";
        let repairs = self.repairs.iter();
        out.counter(
            "uplink_repairs",
            help,
            repairs.map(|(kind, n)| ([("kind", *kind)], *n)),
        )?;
        let help = "Hooks that failed or took too long";
        out.descriptor("uplink_hook_failures", help, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, f64>(&self.hook_failures, None)
    }

    /// A value of every uplink.
    fn each<V>(&self, of: impl Fn(&Uplink) -> V) -> impl Iterator<Item = ([(&str, &str); 1], V)> {
        let all = self.uplinks.iter();
        all.map(move |u| ([("uplink", &*u.name)], of(u)))
    }

    /// A value of every family of every uplink.
    fn paths<V>(&self, of: impl Fn(&Path) -> V) -> impl Iterator<Item = ([(&str, &str); 2], V)> {
        let all = self
            .uplinks
            .iter()
            .flat_map(|u| u.paths.iter().map(move |p| (u, p)));
        all.map(move |(u, p)| ([("uplink", &*u.name), ("family", p.family)], of(p)))
    }
}

/// Sum in seconds, count, and the count of each bucket by its upper bound.
struct Histogram {
    sum: f64,
    count: u64,
    buckets: Vec<(f64, u64)>,
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

fn of_probes(probes: &Probes) -> Histogram {
    let bound = |i| match i {
        tally::BOUNDS => f64::INFINITY,
        i => seconds(tally::bound_us(i)),
    };
    let buckets = probes.buckets.iter().enumerate();
    Histogram {
        sum: seconds(probes.rtt_us),
        count: probes.answered,
        buckets: buckets.map(|(i, n)| (bound(i), *n)).collect(),
    }
}

/// Bucket `i` of the map has what took from 2^i to less than 2^(i+1) microseconds.
fn of_users(passive: &Passive) -> Histogram {
    let all = &passive.rtt_log2;
    let mut buckets = vec![(seconds(2 << PASSIVE_FIRST), all[..=PASSIVE_FIRST].iter().sum())];
    for (i, n) in all
        .iter()
        .enumerate()
        .take(PASSIVE_LAST + 1)
        .skip(PASSIVE_FIRST + 1)
    {
        buckets.push((seconds(2 << i), *n));
    }
    buckets.push((f64::INFINITY, all[PASSIVE_LAST + 1..].iter().sum()));
    Histogram {
        sum: seconds(passive.rtt_us),
        count: buckets.iter().map(|(_, n)| n).sum(),
        buckets,
    }
}

/// Writes metrics. One without any series is left out.
struct Out<'a>(DescriptorEncoder<'a>);

impl Out<'_> {
    fn descriptor<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, fmt::Error> {
        self.0.encode_descriptor(name, help, None, kind)
    }

    fn gauge<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (L, f64)>,
    ) -> fmt::Result {
        let mut rows = rows.into_iter().peekable();
        if rows.peek().is_none() {
            return Ok(());
        }
        let mut metric = self.descriptor(name, help, MetricType::Gauge)?;
        rows.try_for_each(|(labels, value)| metric.encode_family(&labels)?.encode_gauge(&value))
    }

    /// The format adds `_total`.
    fn counter<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut rows = rows.into_iter().peekable();
        if rows.peek().is_none() {
            return Ok(());
        }
        let mut metric = self.descriptor(name, help, MetricType::Counter)?;
        rows.try_for_each(|(labels, value)| {
            let mut series = metric.encode_family(&labels)?;
            series.encode_counter::<NoLabelSet, _, f64>(&value, None)
        })
    }

    fn histogram<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (L, Histogram)>,
    ) -> fmt::Result {
        let mut metric = self.descriptor(name, help, MetricType::Histogram)?;
        rows.into_iter().try_for_each(|(labels, h)| {
            let mut series = metric.encode_family(&labels)?;
            series.encode_histogram::<NoLabelSet>(h.sum, h.count, &h.buckets, None)
        })
    }
}
