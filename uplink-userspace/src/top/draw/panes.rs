//! What stands below the list: one uplink in detail, warnings, talkers, events.

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table};

use crate::events::{Event, Kind};
use crate::status::{State, Uplink};

use super::super::figures;
use super::super::history::{Sample, spark};
use super::super::keys::Pane;
use super::super::state::Model;
use super::super::theme::Theme;
use super::title;

/// Draws a heading and lines under it.
fn pane(
    model: &Model,
    theme: Theme,
    frame: &mut Frame<'_>,
    area: Rect,
    (pane, heading): (Option<Pane>, &str),
    lines: Vec<Line<'_>>,
) {
    let heading = title(model, theme, pane, heading, area);
    let lines: Vec<Line<'_>> = std::iter::once(heading).chain(lines).collect();
    frame.render_widget(Paragraph::new(lines), area);
}

/// The lines of [`detail`], without its heading.
pub(super) fn detail_height(model: &Model, width: u16) -> u16 {
    let rows = model.rows();
    let chosen = rows.get(model.chosen(&rows));
    let said = chosen.map_or(0, |u| said(model, u).iter().map(|l| wrap(l, width).len()).sum());
    u16::try_from(said + CURVES.len()).unwrap_or(u16::MAX - 1)
}

/// The chosen uplink.
pub(super) fn detail(model: &Model, theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    let rows = model.rows();
    let Some(u) = rows.get(model.chosen(&rows)) else {
        return;
    };
    let mut lines: Vec<Line<'_>> = Vec::new();
    for text in said(model, u) {
        let style = if text == u.reason {
            theme.state(u.state)
        } else {
            Style::new()
        };
        let wrapped = wrap(&text, area.width).into_iter();
        lines.extend(wrapped.map(|line| Line::styled(line, style)));
    }
    // Where it is narrow, curves are the first to go.
    let room = usize::from(area.height).saturating_sub(1);
    for (name, of, text) in CURVES.iter().take(room.saturating_sub(lines.len())) {
        lines.push(curve(model, theme, u, area.width, (name, *of, *text)));
    }
    let heading = format!("{} {}", u.name, u.state);
    pane(model, theme, frame, area, (None, &heading), lines);
}

type Curve = (&'static str, fn(&Sample) -> Option<f64>, fn(f64) -> String);

const CURVES: [Curve; 3] = [
    ("RTT ", |s| s.rtt_ms, figures::time),
    ("down", |s| s.down_bps, |b| figures::rate(b as u64)),
    ("up  ", |s| s.up_bps, |b| figures::rate(b as u64)),
];

/// A sparkline with the highest value, which is its scale.
fn curve(model: &Model, theme: Theme, u: &Uplink, width: u16, (name, of, text): Curve) -> Line<'static> {
    let values = model.histories.get(&u.name).map(|h| h.of(of)).unwrap_or_default();
    let width = usize::from(width).saturating_sub(17).min(120);
    let shown = &values[values.len().saturating_sub(width)..];
    let top = shown.iter().flatten().copied().reduce(f64::max);
    let top = top.map_or("-".into(), text);
    Line::from(vec![
        Span::raw(format!("{name} max {top:>6} ")),
        Span::styled(spark(&values, width, theme.unicode), theme.curve()),
    ])
}

/// What there is to say of an uplink beside the list: its reason first, where it has one.
fn said(model: &Model, u: &Uplink) -> Vec<String> {
    let mut lines = Vec::new();
    if !u.reason.is_empty() {
        lines.push(u.reason.clone());
    }
    lines.push(way(&u.gateway, &u.source, &u.interface));
    if let (Some(gateway), Some(source)) = (&u.gateway6, &u.source6)
        && *gateway != u.gateway
    {
        lines.push(way(gateway, source, &u.interface));
    }
    let jitter = u.jitter_ms.map_or("-".into(), figures::time);
    lines.push(format!(
        "weight {}, tier {}, jitter {jitter}, mark {}, table {}",
        u.weight, u.tier, u.mark, u.table
    ));
    lines.push(format!(
        "received {}, sent {}; {} flows, {} in use{}",
        figures::bytes(u.rx_bytes),
        figures::bytes(u.tx_bytes),
        u.flows,
        u.active_flows,
        u.passive_rtt_ms
            .map_or(String::new(), |ms| format!("; users' RTT {}", figures::time(ms))),
    ));
    let has_carried = |m: &crate::status::Measured| format!("has carried up to {} down, {} up", m.down, m.up);
    let quota = u.quota.as_ref().map(|q| format!("quota: {q}"));
    lines.extend(quota);
    lines.extend(u.measured.as_ref().map(has_carried));
    if model.gone.is_some() {
        lines.push("as of the last answer".into());
    }
    lines
}

fn way(gateway: &str, source: &str, interface: &str) -> String {
    format!("via {gateway} dev {interface}, from {source}")
}

/// The lines of [`warnings`], without its heading.
pub(super) fn warnings_height(model: &Model, width: u16) -> u16 {
    let lines: usize = model.warnings().iter().map(|w| warning(w, width).len()).sum();
    u16::try_from(lines).unwrap_or(u16::MAX - 1)
}

/// What needs attention, and what to do.
pub(super) fn warnings(model: &Model, theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    let passed = model.view.scroll[Pane::Warnings as usize];
    let mut lines = Vec::new();
    for w in model.warnings().iter().skip(passed) {
        let first = lines.len();
        lines.extend(warning(w, area.width).into_iter().map(Line::from));
        lines[first] = std::mem::take(&mut lines[first]).style(theme.alarm());
    }
    let heading = format!("Warnings: {}", model.warnings().len());
    pane(model, theme, frame, area, (Some(Pane::Warnings), &heading), lines);
}

fn warning(w: &crate::status::Warning, width: u16) -> Vec<String> {
    let mut lines = wrap(&format!("[{}] {}", w.code, w.text), width);
    lines.extend(wrap(&format!("remedy: {}", w.remedy), width));
    lines
}

/// Addresses behind us.
pub(super) fn talkers(model: &Model, theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    let Some(talkers) = &model.talkers else {
        let lines = vec![Line::styled("not counted yet", theme.dim())];
        return pane(model, theme, frame, area, (Some(Pane::Talkers), "Talkers"), lines);
    };
    let of = match (talkers.seen as u64) < talkers.total {
        true => format!("the newest {} of {}", talkers.seen, figures::count(talkers.total)),
        false => format!("{}", talkers.total),
    };
    let heading = format!("Talkers by flows in use, of {of} flows");
    let passed = model.view.scroll[Pane::Talkers as usize];
    let rows = talkers.list.iter().skip(passed).map(|t| {
        let flows = Line::from(figures::count(t.flows as u64)).right_aligned();
        Row::new([
            Cell::from(flows),
            Cell::from(&*t.address),
            Cell::from(t.uplinks.join(", ")),
        ])
    });
    let widths = [Constraint::Length(6), Constraint::Max(39), Constraint::Fill(1)];
    let lines = match talkers.list.is_empty() {
        true => vec![Line::styled(
            "no flow was used within the last minute",
            theme.dim(),
        )],
        false => Vec::new(),
    };
    pane(model, theme, frame, area, (Some(Pane::Talkers), &heading), lines);
    let below = Rect {
        y: area.y + 1,
        height: area.height - 1,
        ..area
    };
    if !talkers.list.is_empty() {
        frame.render_widget(Table::new(rows, widths), below);
    }
}

/// The newest events, newest last.
pub(super) fn events(model: &Model, theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    let passed = model.view.scroll[Pane::Events as usize];
    let room = usize::from(area.height).saturating_sub(1);
    let mut lines = Vec::new();
    for event in model.events.values().rev().skip(passed) {
        let more = event_lines(model, theme, event, area.width);
        if !lines.is_empty() && lines.len() + more.len() > room {
            break;
        }
        lines.extend(more.into_iter().rev());
    }
    lines.reverse();
    let mut heading = format!("Events: {}", model.events.len());
    if passed > 0 {
        heading += &format!(", {passed} newer below");
    }
    if model.missed > 0 {
        heading += &format!(", {} missed", model.missed);
    }
    pane(model, theme, frame, area, (Some(Pane::Events), &heading), lines);
}

fn event_lines(model: &Model, theme: Theme, event: &Event, width: u16) -> Vec<Line<'static>> {
    const INDENT: u16 = 9;
    let texts = wrap(&event.text, width.saturating_sub(INDENT));
    let style = style(theme, event);
    let clock = model.clock_of(&event.time);
    let line = |(n, text): (usize, String)| {
        let lead = if n == 0 {
            format!("{clock:<8} ")
        } else {
            " ".repeat(INDENT.into())
        };
        Line::from(vec![Span::styled(lead, theme.dim()), Span::styled(text, style)])
    };
    texts.into_iter().enumerate().map(line).collect()
}

fn style(theme: Theme, event: &Event) -> Style {
    match (event.kind, event.new) {
        (Kind::State, Some(state)) => theme.state(state),
        (Kind::Warning | Kind::Hook | Kind::Failover, _) => theme.alarm(),
        (Kind::Resolved, _) => theme.state(State::Up),
        _ => Style::new(),
    }
}

/// Lines no wider than that, broken at spaces where there are any; never none.
pub(super) fn wrap(text: &str, width: u16) -> Vec<String> {
    let width = usize::from(width.max(1));
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.last_mut().expect("never none");
        match Line::raw(&*line).width() + 1 + Line::raw(word).width() {
            _ if line.is_empty() => line.push_str(word),
            wide if wide > width => lines.push(word.to_owned()),
            _ => *line += &format!(" {word}"),
        }
        hard_break(&mut lines, width);
    }
    lines
}

/// A word that is too long for a line goes on in the next.
fn hard_break(lines: &mut Vec<String>, width: usize) {
    loop {
        let line = lines.last_mut().expect("never none");
        if Line::raw(&*line).width() <= width || line.chars().count() < 2 {
            return;
        }
        let fits = |(at, _): &(usize, char)| Line::raw(&line[..*at]).width() <= width;
        let at = line.char_indices().skip(1).take_while(fits).last();
        let at = at.map_or_else(|| line.chars().next().map_or(0, char::len_utf8), |(at, _)| at);
        let rest = line.split_off(at);
        lines.push(rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_at_spaces_and_long_words_anywhere() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("", 7), [""]);
        assert_eq!(wrap("abcdefgh ij", 3), ["abc", "def", "gh", "ij"]);
        assert_eq!(wrap("東京都", 4), ["東京", "都"]);
        assert_eq!(wrap("東京", 1), ["東", "京"]);
        assert_eq!(wrap("ab", 0), ["a", "b"]);
    }
}
