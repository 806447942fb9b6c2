//! `[dns]`: where names in policies come from.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::{Dns, Resolver};
use crate::config::At;
use crate::config::reader::{Reader, Refusal, wrong};

/// A week: who keeps an address longer has forgotten it.
const TIMES: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(7 * 86_400);

/// `[dns]` over its defaults.
pub(in crate::config) fn dns(top: &mut Reader<'_, '_>) -> Dns {
    let mut dns = Dns {
        resolvers: vec![At {
            value: Resolver::Auto,
            span: 0..0,
        }],
        ttl_min: Duration::from_secs(60),
        ttl_max: Duration::from_secs(86_400),
    };
    if let Some(mut table) = top.table("dns", "[dns]") {
        fill(&mut table, &mut dns);
        table.finish();
    }
    dns
}

fn fill(table: &mut Reader<'_, '_>, dns: &mut Dns) {
    let allowed = "\"auto\", or addresses of resolvers such as \"192.168.1.1\"";
    if let Some(resolvers) = table.one_or_more("resolvers", allowed, resolver) {
        different(table, &resolvers.value);
        dns.resolvers = resolvers.value;
    }
    let allowed = "1s to 7d, such as \"60s\"";
    dns.ttl_min = table.duration("ttl_min", TIMES, allowed).unwrap_or(dns.ttl_min);
    dns.ttl_max = table.duration("ttl_max", TIMES, allowed).unwrap_or(dns.ttl_max);
    if dns.ttl_min > dns.ttl_max {
        let [min, max] = [dns.ttl_min, dns.ttl_max].map(humantime::format_duration);
        let message = format!("ttl_min {min} is longer than ttl_max {max}");
        let key = if table.has("ttl_min") {
            "ttl_min"
        } else {
            "ttl_max"
        };
        table.complain(table.place(key), message, "defaults are 60s and 1d");
    }
}

fn resolver(text: &str) -> Result<Resolver, Refusal> {
    if text == "auto" {
        return Ok(Resolver::Auto);
    }
    match text.parse::<IpAddr>() {
        // A resolver on this host itself is as good as any.
        Ok(address) if address.is_unspecified() || address.is_multicast() => {
            Err(wrong("is not the address of a host"))
        }
        Ok(address) => Ok(Resolver::At(address)),
        Err(_) => Err(wrong("is not an IP address")),
    }
}

fn different(table: &mut Reader<'_, '_>, resolvers: &[At<Resolver>]) {
    for (i, resolver) in resolvers.iter().enumerate() {
        if resolvers.iter().take(i).any(|r| r.value == resolver.value) {
            let message = match resolver.value {
                Resolver::Auto => "resolver auto is listed twice".into(),
                Resolver::At(address) => format!("resolver {address} is listed twice"),
            };
            table.complain(resolver.span.clone(), message, "each once");
        }
    }
}
