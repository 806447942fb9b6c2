//! What is asked: the keys of `[probe]` that belong to some types only.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use hyper::http::uri::PathAndQuery;

use super::read::Type;
use super::{Http, Kind};
use crate::config::names;
use crate::config::reader::{Reader, Refusal, wrong};

/// Keys that only some types have.
const OWNED: [(&str, &[Type]); 6] = [
    ("name", &[Type::Dns]),
    ("host", &[Type::Http, Type::Https]),
    ("path", &[Type::Http, Type::Https]),
    ("status", &[Type::Http, Type::Https]),
    ("ca", &[Type::Https]),
    ("command", &[Type::Exec]),
];

/// Statuses of RFC 9110, section 15.
const STATUSES: RangeInclusive<u16> = 100..=599;

impl Type {
    /// What is asked where the file says nothing more. A program has to be named.
    pub(super) fn kind(self) -> Kind {
        match self {
            Self::Icmp => Kind::Icmp,
            Self::Tcp => Kind::Tcp,
            Self::Dns => Kind::Dns { name: ".".into() },
            Self::Http | Self::Https => Kind::Http(Http {
                tls: self == Self::Https,
                host: None,
                path: "/".into(),
                status: vec![200..=399],
                ca: None,
            }),
            Self::Exec => Kind::Exec { command: Vec::new() },
        }
    }
}

/// Reads what belongs to the type over `kind`, and complains about what belongs to others.
pub(super) fn read(table: &mut Reader<'_, '_>, of: Type, kind: &mut Kind) {
    match kind {
        Kind::Icmp | Kind::Tcp => {}
        Kind::Dns { name } => {
            let allowed = "a name of at most 253 bytes, such as \"example.org\", or \".\"";
            let read = table.parsed("name", allowed, names::name);
            *name = read.map_or_else(|| name.clone(), |n| n.value);
        }
        Kind::Http(http) => fill_http(table, of, http),
        Kind::Exec { command } => fill_exec(table, command),
    }
    foreign(table, of);
}

/// Takes the keys of every type, for a type that was refused: nobody knows which are right.
pub(super) fn ignore(table: &mut Reader<'_, '_>) {
    for (key, _) in OWNED {
        table.pass(key);
    }
}

fn foreign(table: &mut Reader<'_, '_>, of: Type) {
    for (key, owners) in OWNED {
        if owners.contains(&of) {
            continue;
        }
        let owners: Vec<String> = owners.iter().map(|t| format!("\"{}\"", t.word())).collect();
        let message = format!("`{key}` does not belong to type = \"{}\"", of.word());
        let help = format!("remove it: it is for type = {}", owners.join(" or "));
        table.misplaced(key, message, help);
    }
}

fn fill_http(table: &mut Reader<'_, '_>, of: Type, http: &mut Http) {
    let allowed = "a host name without a port, such as \"example.org\"";
    let read = table.parsed("host", allowed, host);
    http.host = read.map_or_else(|| http.host.take(), |h| Some(h.value));
    let allowed = "a path such as \"/health?full=1\"";
    if let Some(read) = table.parsed("path", allowed, path) {
        http.path = read.value;
    }
    fill_status(table, http);
    if of == Type::Https {
        let allowed = "the absolute path of a PEM file, such as \"/etc/uplink/ca.pem\"";
        let read = table.parsed("ca", allowed, absolute);
        http.ca = read.map_or_else(|| http.ca.take(), |ca| Some(ca.value.into()));
    }
}

fn fill_status(table: &mut Reader<'_, '_>, http: &mut Http) {
    let allowed = "statuses from 100 to 599, such as [200, \"300-399\"]";
    let before = table.problems.len();
    let Some(read) = table.list_or_integers("status", allowed, status) else {
        return;
    };
    if read.value.is_empty() && table.problems.len() == before {
        table.complain(read.span, "status is empty", allowed);
        return;
    }
    http.status = read.value.into_iter().map(|at| at.value).collect();
}

fn fill_exec(table: &mut Reader<'_, '_>, command: &mut Vec<String>) {
    let allowed = "an absolute path and arguments, such as [\"/usr/local/bin/check\", \"-q\"]";
    let before = table.problems.len();
    match table.list("command", allowed, argument) {
        Some(read) if table.problems.len() > before => drop(read),
        Some(read) => match read.value.first() {
            None => table.complain(read.span, "command is empty", allowed),
            Some(first) if PathBuf::from(&first.value).is_absolute() => {
                *command = read.value.into_iter().map(|at| at.value).collect();
            }
            Some(first) => {
                let message = format!("the command {:?} is not an absolute path", first.value);
                table.complain(first.span.clone(), message, allowed);
            }
        },
        None if command.is_empty() && !table.has("command") => {
            let help = format!("add `command`: {allowed}");
            table.missing(&["command"], "type = \"exec\" without `command`", help);
        }
        None => {}
    }
}

fn argument(text: &str) -> Result<String, Refusal> {
    match text.contains('\0') {
        true => Err(wrong("contains '\\0'")),
        false => Ok(text.into()),
    }
}

fn host(text: &str) -> Result<String, Refusal> {
    match text.parse::<std::net::IpAddr>() {
        Ok(_) => Ok(text.into()),
        Err(_) if text == "." => Err(wrong("names no host")),
        Err(_) => names::name(text),
    }
}

/// What can stand in a request line.
fn path(text: &str) -> Result<String, Refusal> {
    if !text.starts_with('/') {
        return Err(wrong("does not start with \"/\""));
    }
    let strange = |c: &char| c.is_whitespace() || c.is_control() || *c == '#';
    if let Some(c) = text.chars().find(strange) {
        return Err(wrong(format!("contains {c:?}")));
    }
    if !text.is_ascii() {
        return Err(wrong("is not ASCII: write other characters as %XX"));
    }
    match text.parse::<PathAndQuery>() {
        Ok(_) => Ok(text.into()),
        Err(e) => Err(wrong(format!("cannot be requested ({e})"))),
    }
}

fn status(text: &str) -> Result<RangeInclusive<u16>, Refusal> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| {
        let digits = text.len() == 3 && text.chars().all(|c| c.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| digits)
    };
    let (Some(first), Some(last)) = (number(first), number(last)) else {
        return Err(wrong("is not a status or a range of them"));
    };
    match first <= last && STATUSES.contains(&first) && STATUSES.contains(&last) {
        true => Ok(first..=last),
        false => Err(wrong("is out of range")),
    }
}

fn absolute(text: &str) -> Result<String, Refusal> {
    match text.starts_with('/') && !text.contains('\0') {
        true => Ok(text.into()),
        false => Err(wrong("is not an absolute path")),
    }
}
