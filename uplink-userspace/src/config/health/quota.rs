//! What an uplink can carry and may carry.

use std::ops::RangeInclusive;

use super::{Capacity, Period, Quota, Then};
use crate::config::reader::Reader;
use crate::config::units;

/// 8 kbit/s to 1 Tbit/s.
const RATES: RangeInclusive<u64> = 8_000..=1_000_000_000_000;
/// 1 MB to 1 EB: beyond that nobody counts.
const BYTES: RangeInclusive<u64> = 1_000_000..=1_000_000_000_000_000_000;

/// `down` and `up`.
pub(in crate::config) fn capacity(table: &mut Reader<'_, '_>) -> Capacity {
    let allowed =
        "8kbit to 1tbit in the units of tc (bit, kbit, mbit, gbit, tbit; bps, kbps, mbps, gbps are bytes)";
    let mut rate = |key| {
        let read = table.parsed(key, allowed, |text| units::rate(text, &RATES));
        read.map(|at| at.value)
    };
    Capacity {
        down: rate("down"),
        up: rate("up"),
    }
}

/// `quota`.
pub(in crate::config) fn quota(uplink: &mut Reader<'_, '_>) -> Option<Quota> {
    let mut table = uplink.table("quota", "quota of an [[uplink]]")?;
    let quota = fill(&mut table);
    table.finish();
    quota
}

fn fill(table: &mut Reader<'_, '_>) -> Option<Quota> {
    let allowed = "1MB to 1000000TB (kB, MB, GB, TB; KiB, MiB, GiB, TiB), such as \"200GB\"";
    let bytes = table.required("bytes", allowed, |text| units::bytes(text, &BYTES));
    let periods = [
        ("day", Some(Period::Day)),
        ("week", Some(Period::Week)),
        ("month", Some(Period::Month)),
    ];
    let per = table.one_of("per", &periods).map_or(Period::Month, |at| at.value);
    let days = "a day of the month from 1 to 28, which every month has";
    let starts = table.integer("starts", 1..=28, days);
    if let Some(starts) = starts.as_ref().filter(|_| per != Period::Month) {
        let message = "starts names the day of a month";
        table.complain(starts.span.clone(), message, "per = \"month\", or remove this");
    }
    let ends = [
        ("last-resort", Some(Then::LastResort)),
        ("disable", Some(Then::Disable)),
    ];
    let then = table
        .one_of("then", &ends)
        .map_or(Then::LastResort, |at| at.value);
    let starts = starts.and_then(|at| u8::try_from(at.value).ok());
    Some(Quota {
        bytes: bytes?.value,
        per,
        starts: starts.unwrap_or(1),
        then,
    })
}
