//! `match`: which flows.

use std::ops::RangeInclusive;

use ipnet::IpNet;
use uplink_common::policy::has_ports;

use super::outside::{MOST_PREFIXES, Outside};
use super::{Field, Match, files, values};
use crate::config::reader::{Reader, Refusal, wrong};
use crate::config::sections::cgroup;
use crate::config::uplinks::interface_name;

/// What a table says of each field: `match`, or `not` in it.
#[derive(Default)]
struct Values {
    src: Option<Vec<IpNet>>,
    dst: Option<Vec<IpNet>>,
    sport: Option<Vec<RangeInclusive<u16>>>,
    dport: Option<Vec<RangeInclusive<u16>>>,
    proto: Option<Vec<u8>>,
    dscp: Option<Vec<u8>>,
    iif: Option<Vec<String>>,
    mac: Option<Vec<[u8; 6]>>,
    uid: Option<Vec<RangeInclusive<u32>>>,
    cgroup: Option<Vec<String>>,
}

/// `match`, everything if it is absent.
pub(super) fn read(policy: &mut Reader<'_, '_>, outside: &mut Outside<'_>) -> Match {
    let Some(mut table) = policy.table("match", "`match`") else {
        return Match::default();
    };
    let any = values(&mut table, outside);
    let allowed = "names such as \"google.com\", or \"*.example.org\" for what is below it, too";
    let domain = some(&mut table, "domain", allowed, values::domain);
    let not = not(&mut table, outside);
    ports_need_a_protocol(&mut table, &any);
    table.finish();
    together(any, not, domain.unwrap_or_default())
}

fn not(table: &mut Reader<'_, '_>, outside: &mut Outside<'_>) -> Values {
    let Some(mut not) = table.table("not", "`not`") else {
        return Values::default();
    };
    let read = values(&mut not, outside);
    let message = "domain cannot be negated: names are not known of every flow";
    let help = "put a policy for that domain in front of this one";
    not.misplaced("domain", message.into(), help.into());
    let message = "`not` cannot be within `not`";
    not.misplaced("not", message.into(), "say it in `match` itself".into());
    not.finish();
    read
}

fn together(any: Values, not: Values, domain: Vec<super::Domain>) -> Match {
    fn field<T>(any: Option<Vec<T>>, not: Option<Vec<T>>) -> Field<T> {
        let not = not.unwrap_or_default();
        Field { any, not }
    }
    Match {
        src: field(any.src, not.src),
        dst: field(any.dst, not.dst),
        sport: field(any.sport, not.sport),
        dport: field(any.dport, not.dport),
        proto: field(any.proto, not.proto),
        dscp: field(any.dscp, not.dscp),
        iif: field(any.iif, not.iif),
        mac: field(any.mac, not.mac),
        uid: field(any.uid, not.uid),
        cgroup: field(any.cgroup, not.cgroup),
        domain,
    }
}

fn values(table: &mut Reader<'_, '_>, outside: &mut Outside<'_>) -> Values {
    let interfaces = "names of interfaces, such as \"eth0\"; \"lo\" is this host itself";
    let macs = "MAC addresses such as \"02:00:5e:10:00:01\"";
    let users = "user ids such as 1000 or \"1000-1999\", or names of users of this host";
    let paths = "paths below the cgroup v2 mount, such as \"/system.slice\"";
    let points = "0 to 63, \"ef\", \"va\", \"le\", \"be\", \"cs0\" to \"cs7\", or \"af11\" to \"af43\"";
    Values {
        src: addresses(table, ["src", "src_file"], outside),
        dst: addresses(table, ["dst", "dst_file"], outside),
        sport: ports(table, "sport", outside),
        dport: ports(table, "dport", outside),
        proto: some(table, "proto", &values::protocols_allowed(), values::protocol),
        dscp: some(table, "dscp", points, values::code_point),
        iif: some(table, "iif", interfaces, interface_name),
        mac: some(table, "mac", macs, values::mac),
        uid: some(table, "uid", users, values::users),
        cgroup: some(table, "cgroup", paths, cgroup),
    }
}

fn some<T>(
    table: &mut Reader<'_, '_>,
    key: &'static str,
    allowed: &str,
    parse: impl FnMut(&str) -> Result<T, Refusal>,
) -> Option<Vec<T>> {
    let list = table.one_or_more(key, allowed, parse)?.value;
    Some(list.into_iter().map(|at| at.value).collect())
}

fn ports(
    table: &mut Reader<'_, '_>,
    key: &'static str,
    outside: &Outside<'_>,
) -> Option<Vec<RangeInclusive<u16>>> {
    let allowed = "ports from 0 to 65535 such as 443, \"5060-5090\" or \"https\", or a list of them";
    some(table, key, allowed, |text| {
        values::ports(text, |service| outside.port(service))
    })
}

/// The prefixes of a field, from its list and from its files.
fn addresses(
    table: &mut Reader<'_, '_>,
    [key, file_key]: [&'static str; 2],
    outside: &mut Outside<'_>,
) -> Option<Vec<IpNet>> {
    let allowed = "addresses or prefixes such as \"192.0.2.1\", \"10.0.0.0/8\" or \"2001:db8::/32\"";
    let listed = some(table, key, allowed, files::prefix);
    count(table, key, listed.as_ref(), outside);
    let filed = from_files(table, file_key, outside);
    match (listed, filed) {
        (Some(mut listed), Some(filed)) => {
            listed.extend(filed);
            Some(listed)
        }
        (listed, filed) => listed.or(filed),
    }
}

fn from_files(
    table: &mut Reader<'_, '_>,
    key: &'static str,
    outside: &mut Outside<'_>,
) -> Option<Vec<IpNet>> {
    let allowed = "paths of files with a prefix in each line, relative to this one";
    let paths = table.one_or_more(key, allowed, |text| match text {
        "" => Err(wrong("is empty")),
        text if text.contains('\0') => Err(wrong("contains '\\0'")),
        text => Ok(outside.path(text)),
    })?;
    let mut prefixes = Vec::new();
    for path in paths.value {
        if outside.is_full() {
            break;
        }
        match files::read(&path.value) {
            Ok(read) => {
                count(table, key, Some(&read), outside);
                prefixes.extend(read);
            }
            Err(complaints) => {
                let help = "a text file with one address or prefix in each line; # and ; begin a comment";
                for complaint in complaints {
                    table.complain(path.span.clone(), complaint, help);
                }
            }
        }
    }
    Some(prefixes)
}

fn count(table: &mut Reader<'_, '_>, key: &str, read: Option<&Vec<IpNet>>, outside: &mut Outside<'_>) {
    if outside.are_too_many(read.map_or(0, Vec::len)) {
        let message = format!("{key} brings more than {MOST_PREFIXES} prefixes to all policies together");
        let help = "fewer or shorter prefixes: join neighbours, leave out what others contain";
        table.complain(table.place(key), message, help);
    }
}

/// Flows of other protocols have no ports: such a policy would match nothing.
fn ports_need_a_protocol(table: &mut Reader<'_, '_>, values: &Values) {
    let Some(protocols) = &values.proto else { return };
    // What was refused may have had ports.
    if protocols.is_empty() || protocols.iter().any(|p| has_ports(*p)) {
        return;
    }
    for (key, given) in [
        ("sport", values.sport.is_some()),
        ("dport", values.dport.is_some()),
    ] {
        if given {
            let message = format!("{key} with a proto that has no ports");
            let help = "proto = \"tcp\", \"udp\", \"sctp\" or \"udplite\", or remove one of the two";
            table.complain(table.place(key), message, help);
        }
    }
}
