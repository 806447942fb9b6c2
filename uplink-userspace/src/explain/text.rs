//! The answer for people: one fact a line.

use super::answer::{Answer, Candidate, Flow, IfDown, Missed, Name, Outcome, Pin, Policy, Route, Slots};

/// The width of the first column.
const COLUMN: usize = 9;
const BOLD: &str = "\x1b[1m";
const PLAIN: &str = "\x1b[0m";

/// The answer for people; `colour` for a terminal.
#[must_use]
pub fn text(answer: &Answer, colour: bool) -> String {
    let (on, off) = if colour { (BOLD, PLAIN) } else { ("", "") };
    let mut text = format!("{}\n{on}{}{off}\n", flow(&answer.flow), verdict(answer));
    for (key, lines) in facts(answer) {
        for (n, line) in lines.iter().enumerate() {
            let key = if n == 0 { key } else { "" };
            text += &format!("  {key:COLUMN$} {line}\n");
        }
    }
    text
}

fn facts(answer: &Answer) -> Vec<(&'static str, Vec<String>)> {
    let several = answer.candidates.len() > 1;
    vec![
        ("why", vec![answer.text.clone()]),
        ("policy", answer.policy.iter().map(policy).collect()),
        ("not", missed(answer)),
        ("name", answer.names.iter().map(name).collect()),
        ("pin", pin(answer)),
        ("if new", anew(answer)),
        ("client", answer.kept.iter().map(kept).collect()),
        ("slot", slot(answer).into_iter().collect()),
        (
            if several { "one of" } else { "health" },
            answer.candidates.iter().map(candidate).collect(),
        ),
        ("mark", answer.mark.clone().into_iter().collect()),
        ("route", answer.route.iter().map(route).collect()),
        ("source", answer.source.clone().into_iter().collect()),
        ("if down", answer.if_down.iter().map(if_down).collect()),
        ("note", answer.notes.clone()),
    ]
}

fn flow(flow: &Flow) -> String {
    let mut text = format!(
        "{} {} -> {}, in by {}",
        flow.proto,
        end(&flow.src, flow.sport),
        end(&flow.dst, flow.dport),
        flow.iif
    );
    let more = [
        ("dscp", flow.dscp.filter(|d| *d != 0).map(|d| d.to_string())),
        ("mac", flow.mac.clone()),
        ("uid", flow.uid.map(|u| u.to_string())),
        ("cgroup", flow.cgroup.clone()),
    ];
    for (key, value) in more {
        text += &value.map_or_else(String::new, |value| format!(", {key} {value}"));
    }
    text
}

fn end(address: &str, port: Option<u16>) -> String {
    match port {
        None | Some(0) => address.into(),
        Some(port) if address.contains(':') => format!("[{address}]:{port}"),
        Some(port) => format!("{address}:{port}"),
    }
}

fn verdict(answer: &Answer) -> String {
    let reason = &answer.reason;
    match (answer.outcome, &answer.uplink) {
        (Outcome::Steered, Some(uplink)) => format!("goes by {uplink} ({reason})"),
        (Outcome::Steered, None) => format!("goes by one of {} uplinks ({reason})", answer.candidates.len()),
        (Outcome::Refused, _) => format!("is refused ({reason})"),
        (Outcome::LeftAlone, _) => format!("is left to the kernel ({reason})"),
    }
}

fn policy(policy: &Policy) -> String {
    let fields: Vec<String> = policy
        .by
        .iter()
        .map(|by| format!("{} {}", by.field, by.value))
        .collect();
    let mut text = format!("{} ({}:{})", policy.name, policy.file, policy.line);
    if !fields.is_empty() {
        text += &format!(": {}", fields.join(", "));
    }
    text += &match policy.uses.is_empty() {
        true => "; none of its uplinks lives".to_owned(),
        false => format!("; uses {}", policy.uses.join(", ")),
    };
    if policy.strict {
        text += "; strict";
    }
    if let Some(sticky) = &policy.sticky {
        text += &format!("; sticky by {sticky}");
    }
    text
}

fn missed(answer: &Answer) -> Vec<String> {
    let one = |m: &Missed| format!("{} (line {}), for {}", m.name, m.line, m.by);
    let mut lines: Vec<String> = answer.missed.iter().map(one).collect();
    if answer.others > 0 {
        let more = if lines.is_empty() { "" } else { "more " };
        let policies = if answer.others == 1 { "policy" } else { "policies" };
        lines.push(format!("{} {more}{policies} before it", answer.others));
    }
    lines
}

fn name(name: &Name) -> String {
    let alias = match name.asked == name.name {
        true => String::new(),
        false => format!(", asked as {}", name.asked),
    };
    let unwanted = if name.wanted {
        ""
    } else {
        "; no policy asks for it"
    };
    format!(
        "{}{alias}, heard from {} {} ago, for another {}{unwanted}",
        name.name,
        name.server,
        seconds(name.heard_s),
        seconds(name.expires_s)
    )
}

fn pin(answer: &Answer) -> Vec<String> {
    let Some(pin) = &answer.pin else {
        let known = answer.flow.src != "-" && answer.flow.sport.is_some() && answer.flow.dport.is_some();
        let asked = known && answer.outcome != Outcome::LeftAlone;
        return if asked {
            vec!["none: it would be new".into()]
        } else {
            Vec::new()
        };
    };
    vec![held(pin)]
}

fn held(pin: &Pin) -> String {
    let to = pin.uplink.as_deref().unwrap_or("the kernel's route");
    let by = match &pin.policy {
        Some(policy) => format!(" by policy {policy}"),
        None => String::new(),
    };
    let void = if pin.valid { "" } else { "; void" };
    format!(
        "{to}{by}, for {}, idle for {}{void}",
        seconds(pin.age_s.into()),
        seconds(pin.idle_s.into())
    )
}

fn kept(pin: &Pin) -> String {
    format!("keeps {}", held(pin))
}

fn anew(answer: &Answer) -> Vec<String> {
    let uplinks: Vec<&str> = answer.anew.iter().map(|c| &*c.uplink).collect();
    match uplinks.is_empty() {
        true => Vec::new(),
        false => vec![format!("it would go by {}", uplinks.join(" or "))],
    }
}

fn slot(answer: &Answer) -> Option<String> {
    let hash = answer.hash.as_ref()?;
    let (Some(slot), Some(Slots { group, size })) = (answer.slot, &answer.slots) else {
        return Some(format!("none, hash {hash}"));
    };
    let of = group.map_or("of everybody".to_owned(), |n| format!("of group {n}"));
    Some(format!("{slot} of {size} {of}, hash {hash}"))
}

fn candidate(c: &Candidate) -> String {
    let share = match c.share < 1.0 {
        true => format!(", {:.1} %", c.share * 100.0),
        false => String::new(),
    };
    let state = c.state.as_ref().map_or_else(String::new, |s| format!(" {s}"));
    let why = if c.why.is_empty() {
        String::new()
    } else {
        format!(" ({})", c.why)
    };
    let rtt = c.rtt_ms.map_or_else(String::new, |ms| format!(", {ms:.1} ms"));
    let loss = c
        .loss
        .map_or_else(String::new, |loss| format!(", loss {:.1} %", loss * 100.0));
    format!("{}{share}{state}{why}{rtt}{loss}", c.uplink)
}

fn route(route: &Route) -> String {
    if let Some(error) = &route.error {
        return error.clone();
    }
    let part = |word: &str, value: Option<String>| value.map(|v| format!("{word} {v}"));
    let parts = [
        part("via", route.gateway.clone()),
        part("dev", route.interface.clone()),
        part("table", route.table.map(|t| t.to_string())),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    parts.join(" ")
}

fn if_down(then: &IfDown) -> String {
    format!("{}: {}", then.uplink, then.text)
}

fn seconds(s: u64) -> String {
    humantime::format_duration(std::time::Duration::from_secs(s)).to_string()
}
