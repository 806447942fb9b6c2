//! The status for people: what matters first, in as many columns as there is room for.

mod units;

use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{Policy, State, Status, Uplink};
use units::{bytes, percent, rate};

/// Uplinks that the first line names before it only counts.
const NAMED: usize = 3;
/// Between columns.
const GAP: usize = 2;

/// How it may look.
#[derive(Clone, Debug)]
pub struct Look {
    /// Columns of the terminal; without any, lines are as long as they like.
    pub width: Option<u16>,
    /// Whether states are coloured.
    pub colour: bool,
    /// Of the times that are shown.
    pub zone: TimeZone,
}

impl Look {
    /// A time in the form of the JSON, as people read it; as it is, where it is none.
    #[must_use]
    pub fn time(&self, rfc3339: &str) -> String {
        match rfc3339.parse::<Timestamp>() {
            Ok(at) => at
                .to_zoned(self.zone.clone())
                .strftime("%Y-%m-%d %H:%M:%S")
                .to_string(),
            Err(_) => rfc3339.to_owned(),
        }
    }

    fn cell(&self, text: impl Into<String>, colour: Color) -> Cell {
        let cell = Cell::new(text.into());
        if self.colour { cell.fg(colour) } else { cell }
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        if self.colour {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        if let Some(width) = self.width {
            table.set_content_arrangement(ContentArrangement::Dynamic);
            table.set_width(width);
        }
        table
    }
}

/// The whole status.
#[must_use]
pub fn render(status: &Status, look: &Look) -> String {
    let mut parts = vec![
        headline(status, look),
        uplinks(&status.uplinks, look),
        reasons(status, look),
        warnings(status, look),
        carried(status, look),
        policies(&status.policies, look),
        names(status),
        repairs(status, look),
    ];
    parts.retain(|part| !part.is_empty());
    parts.join("\n")
}

/// Whether all is well, and since when.
fn headline(status: &Status, look: &Look) -> String {
    let wanted = || status.uplinks.iter().filter(|u| u.state != State::Disabled);
    let (all, up) = (
        wanted().count(),
        wanted().filter(|u| u.state == State::Up).count(),
    );
    let mut text = format!("{up} of {all} uplink{} up", if all == 1 { "" } else { "s" });
    let others: Vec<&Uplink> = wanted().filter(|u| u.state != State::Up).collect();
    match others.is_empty() {
        // All of it is up since the last of them is.
        true => {
            let since = wanted().filter_map(|u| u.since.as_deref()).max();
            text += &format!(", since {}", look.time(since.unwrap_or(&status.since)));
        }
        false => text += &format!("; {}", others_in_words(&others, look)),
    }
    let disabled = status.uplinks.len() - all;
    if disabled > 0 {
        text += &format!("; {disabled} disabled");
    }
    if status.mode == "nexthop" {
        text += "; next-hop mode";
    }
    match status.warnings.len() {
        0 => {}
        1 => text += "; 1 warning",
        n => text += &format!("; {n} warnings"),
    }
    let colour = match (up, others.is_empty() && status.warnings.is_empty()) {
        (0, _) => Color::Red,
        (_, true) => Color::Green,
        _ => Color::Yellow,
    };
    let mut table = look.table();
    let cell = look.cell(text, colour);
    table.add_row([if look.colour {
        cell.add_attribute(Attribute::Bold)
    } else {
        cell
    }]);
    finished(table)
}

fn others_in_words(others: &[&Uplink], look: &Look) -> String {
    let one = |u: &&Uplink| {
        let since = u.since.as_deref().map(|at| format!(" since {}", look.time(at)));
        format!("{} is {}{}", u.name, u.state, since.unwrap_or_default())
    };
    let named: Vec<String> = others.iter().take(NAMED).map(one).collect();
    let more = others.len().saturating_sub(NAMED);
    let more = if more > 0 {
        format!(", and {more} others are not up")
    } else {
        String::new()
    };
    named.join(", ") + &more
}

/// A column of the table of uplinks.
struct Column {
    title: &'static str,
    /// The higher, the sooner it is left out.
    rank: u8,
    is_number: bool,
    of: fn(&Uplink) -> String,
}

const fn column(title: &'static str, rank: u8, is_number: bool, of: fn(&Uplink) -> String) -> Column {
    Column {
        title,
        rank,
        is_number,
        of,
    }
}

const COLUMNS: [Column; 11] = [
    column("UPLINK", 0, false, |u| u.name.clone()),
    column("STATE", 0, false, |u| u.state.to_string()),
    column("SHARE", 0, true, |u| percent(u.share)),
    column("RTT", 1, true, |u| {
        u.rtt_ms.map_or("-".into(), |ms| format!("{ms:.1} ms"))
    }),
    column("LOSS", 2, true, |u| percent(u.loss)),
    column("DOWN", 3, true, |u| rate(u.rx_bps)),
    column("UP", 3, true, |u| rate(u.tx_bps)),
    column("FLOWS", 4, true, |u| u.flows.to_string()),
    column("RECEIVED", 6, true, |u| bytes(u.rx_bytes)),
    column("SENT", 6, true, |u| bytes(u.tx_bytes)),
    column("GATEWAY", 5, false, |u| {
        format!("{} dev {}", u.gateway, u.interface)
    }),
];

fn uplinks(uplinks: &[Uplink], look: &Look) -> String {
    let columns = fitting(uplinks, look.width);
    let mut table = look.table();
    // What fits was chosen: nothing is broken into lines.
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(columns.iter().map(|c| c.title));
    for u in uplinks {
        table.add_row(columns.iter().map(|c| match c.title {
            "STATE" => look.cell((c.of)(u), colour(u.state)),
            _ => Cell::new((c.of)(u)),
        }));
    }
    for (column, shown) in columns.iter().zip(table.column_iter_mut()) {
        if column.is_number {
            shown.set_cell_alignment(CellAlignment::Right);
        }
    }
    finished(table)
}

/// The columns that there is room for; those without which it says nothing are always there.
fn fitting(uplinks: &[Uplink], width: Option<u16>) -> Vec<&'static Column> {
    let long = |c: &Column| {
        let cells = uplinks.iter().map(|u| (c.of)(u).chars().count());
        cells.chain([c.title.len()]).max().unwrap_or(0) + GAP
    };
    let mut columns: Vec<&Column> = COLUMNS.iter().collect();
    let Some(width) = width else { return columns };
    // No gap behind the last.
    let room = usize::from(width) + GAP;
    while columns.iter().map(|c| long(c)).sum::<usize>() > room {
        match columns.iter().map(|c| c.rank).max() {
            Some(rank) if rank > 0 => columns.retain(|c| c.rank < rank),
            _ => break,
        }
    }
    columns
}

fn colour(state: State) -> Color {
    match state {
        State::Up => Color::Green,
        State::Degraded | State::Unknown => Color::Yellow,
        State::Draining => Color::Cyan,
        State::Down => Color::Red,
        State::Disabled => Color::DarkGrey,
    }
}

fn reasons(status: &Status, look: &Look) -> String {
    let told = status.uplinks.iter().filter(|u| !u.reason.is_empty());
    let rows = told.map(|u| (look.cell(&*u.name, colour(u.state)), u.reason.clone()));
    block(rows, look)
}

fn warnings(status: &Status, look: &Look) -> String {
    let rows = status.warnings.iter().flat_map(|w| {
        [
            (
                look.cell("warning", Color::Yellow),
                format!("[{}] {}", w.code, w.text),
            ),
            (Cell::new(" remedy"), w.remedy.clone()),
        ]
    });
    block(rows, look)
}

/// Quotas, and what the uplinks were seen to carry.
fn carried(status: &Status, look: &Look) -> String {
    let mut rows = Vec::new();
    for u in &status.uplinks {
        if let Some(quota) = &u.quota {
            rows.push((Cell::new(&u.name), quota.clone()));
        }
        if let Some(seen) = &u.measured {
            let text = format!("has carried up to down = \"{}\", up = \"{}\"", seen.down, seen.up);
            rows.push((Cell::new(&u.name), text));
        }
    }
    block(rows, look)
}

fn policies(policies: &[Policy], look: &Look) -> String {
    if policies.is_empty() {
        return String::new();
    }
    let mut table = look.table();
    table.set_header(["POLICY", "USE", "FLOWS", "PACKETS", ""]);
    for p in policies {
        let notes = [(p.strict, "strict"), (!p.active, "not now")];
        let notes = notes.iter().filter(|(is, _)| *is).map(|(_, note)| *note);
        table.add_row([
            p.name.clone(),
            p.uses.join(", "),
            p.flows.to_string(),
            p.packets.to_string(),
            notes.collect::<Vec<_>>().join(", "),
        ]);
    }
    for n in [2, 3] {
        if let Some(numbers) = table.column_mut(n) {
            numbers.set_cell_alignment(CellAlignment::Right);
        }
    }
    finished(table)
}

fn names(status: &Status) -> String {
    let Some(names) = &status.names else {
        return String::new();
    };
    let share = names.known_share.map_or_else(String::new, |share| {
        format!("; {:.0} % of new flows went to known ones", share * 100.0)
    });
    format!("names of {} addresses are known{share}\n", names.addresses)
}

fn repairs(status: &Status, look: &Look) -> String {
    let rows = status.repairs.iter().map(|(kind, r)| {
        let times = match r.count {
            1 => "once".to_owned(),
            n => format!("{n} times"),
        };
        let last = look.time(&r.last);
        (
            Cell::new("repaired"),
            format!("{kind} {times}, last {last}: {}", r.text),
        )
    });
    block(rows, look)
}

/// Labels and what belongs to them, which may take several lines.
fn block(rows: impl IntoIterator<Item = (Cell, String)>, look: &Look) -> String {
    let mut table = look.table();
    for (label, text) in rows {
        table.add_row([label, Cell::new(printable(&text))]);
    }
    finished(table)
}

/// Errors quote what others wrote; nothing of that may steer the terminal.
fn printable(text: &str) -> String {
    let harmless = |c: char| if c.is_control() && c != '\n' { '?' } else { c };
    text.chars().map(harmless).collect()
}

/// Empty without rows.
fn finished(mut table: Table) -> String {
    if table.is_empty() {
        return String::new();
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, GAP as u16));
    }
    if let Some(last) = table.column_count().checked_sub(1)
        && let Some(column) = table.column_mut(last)
    {
        column.set_padding((0, 0));
    }
    format!("{}\n", table.trim_fmt())
}

#[cfg(test)]
mod tests;
