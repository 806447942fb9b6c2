//! A model on a frame.

mod layout;
mod list;
mod panes;
mod tiny;

use jiff::Timestamp;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Clear, Paragraph};

use crate::status::State;

use super::keys::{Mode, Pane};
use super::rows;
use super::state::Model;
use super::theme::Theme;

/// Below this, only the essentials are said.
const SMALLEST: (u16, u16) = (30, 6);

/// Draws the model, at that time.
pub fn draw(model: &Model, theme: Theme, now: Timestamp, frame: &mut Frame<'_>) {
    let area = frame.area();
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        return tiny::draw(model, theme, frame);
    }
    let parts = Layout::vertical([Constraint::Length(1), Constraint::Min(0), Constraint::Length(1)]);
    let [top, body, bottom] = parts.areas(area);
    header(model, theme, now, frame, top);
    match model.view.mode {
        Mode::Help => help(theme, frame, body),
        _ => layout::body(model, theme, frame, body),
    }
    footer(model, theme, frame, bottom);
}

fn header(model: &Model, theme: Theme, now: Timestamp, frame: &mut Frame<'_>, area: Rect) {
    let right = Line::from(right_of_header(model, now, area.width)).right_aligned();
    let taken = u16::try_from(right.width()).unwrap_or(0) + 1;
    let [left, clock] = Layout::horizontal([Constraint::Min(0), Constraint::Length(taken)]).areas(area);
    frame.render_widget(left_of_header(model, theme, left.width.into()), left);
    frame.render_widget(right, clock);
}

fn left_of_header(model: &Model, theme: Theme, room: usize) -> Line<'static> {
    let mut line = Line::from(Span::styled("uplink ", theme.heading()));
    if let Some((_, since)) = &model.gone {
        let text = format!("daemon gone since {}, waiting", model.clock(*since));
        line.push_span(Span::styled(text, theme.alarm()));
        return line;
    }
    line.push_span(summary(model, theme, room.saturating_sub(line.width())));
    if model.view.paused {
        line.push_span(Span::styled(" PAUSED", theme.alarm()));
    }
    let Some(status) = &model.status else { return line };
    let since = format!("since {}", model.date(&status.since));
    for text in [since, status.attach.clone(), env!("CARGO_PKG_VERSION").to_owned()] {
        // Whole words or none.
        if line.width() + text.chars().count() + 2 <= room {
            line.push_span(Span::styled(format!("  {text}"), theme.dim()));
        }
    }
    line
}

/// The state of all in words: how many are up, and what the others are.
fn summary(model: &Model, theme: Theme, room: usize) -> Span<'static> {
    if model.status.is_none() {
        return Span::styled("asking the daemon", theme.dim());
    }
    let all = model.uplinks().len();
    let up = model.in_state(State::Up);
    let s = if all == 1 { "" } else { "s" };
    let mut others = String::new();
    for state in [
        State::Down,
        State::Degraded,
        State::Draining,
        State::Disabled,
        State::Unknown,
    ] {
        match model.in_state(state) {
            0 => {}
            n => others += &format!(", {n} {state}"),
        }
    }
    let long = format!("{up} of {all} uplink{s} up{others}");
    let short = format!("{up}/{all} up{others}");
    let shortest = format!("{up}/{all} up, {} not", all - up);
    let fitting = [long, short].into_iter().find(|text| text.len() <= room);
    let text = fitting.unwrap_or(shortest);
    Span::styled(text, theme.state(worst(model)))
}

/// The state that needs most attention.
fn worst(model: &Model) -> State {
    let states = model.uplinks().iter().map(|u| u.state);
    states.max_by_key(|s| rows::urgency(*s)).unwrap_or(State::Unknown)
}

/// When the last answer came, and how often they do.
fn right_of_header(model: &Model, now: Timestamp, width: u16) -> String {
    let every = humantime::format_duration(model.view.interval.get());
    match model.answered {
        Some(at) if width < 60 => model.clock(at),
        Some(at) if model.gone.is_none() => format!("{} every {every}", model.clock(at)),
        Some(at) => format!("last {}, now {}", model.clock(at), model.clock(now)),
        None => model.clock(now),
    }
}

fn footer(model: &Model, theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    let line = match (&model.view.mode, &model.notice, &model.gone) {
        (Mode::Confirm(name), ..) => {
            let text = format!("drain {name}? y/n  (no new flows, old ones finish)");
            Line::styled(text, theme.alarm())
        }
        (Mode::Filter(_), ..) => {
            let text = format!("filter by name or state: {}_", model.view.filter);
            Line::styled(text, theme.heading())
        }
        (_, Some(notice), _) => {
            let style = if notice.bad {
                theme.alarm()
            } else {
                theme.heading()
            };
            let mark = if notice.bad { "! " } else { "" };
            return wrapped(frame, area, &format!("{mark}{}", notice.text), style);
        }
        (_, _, Some((why, _))) => return wrapped(frame, area, why, theme.alarm()),
        _ => Line::styled(hints(model, area.width), theme.dim()),
    };
    frame.render_widget(line, area);
}

/// A refusal may need more than one line; it takes them from what is above.
fn wrapped(frame: &mut Frame<'_>, area: Rect, text: &str, style: Style) {
    let lines = panes::wrap(text, area.width);
    let height = u16::try_from(lines.len()).unwrap_or(1).clamp(1, area.y.max(1));
    let area = Rect {
        y: area.bottom() - height,
        height,
        ..area
    };
    frame.render_widget(Clear, area);
    let lines: Vec<Line<'_>> = lines.into_iter().map(Line::from).collect();
    frame.render_widget(Paragraph::new(lines).style(style), area);
}

fn hints(model: &Model, width: u16) -> String {
    let filter = match &*model.view.filter {
        "" => String::new(),
        filter => format!("filter: {filter}  "),
    };
    let keys = match width {
        ..60 => "? help  q quit",
        _ => "? help  q quit  d drain  e enable  s sort  / filter  Tab pane  p pause",
    };
    filter + keys
}

const HELP: &[(&str, &str)] = &[
    ("q Esc Ctrl-C", "quit"),
    (
        "Up Down j k",
        "choose an uplink, or scroll the pane; PgUp PgDn Home End",
    ),
    ("Tab", "next pane: uplinks, warnings, talkers, events"),
    ("d", "drain the uplink: no new flows, old ones finish (asks)"),
    ("e", "enable it again"),
    ("s r", "sort by the next column, reverse"),
    ("/", "filter by name, state or interface; Enter keeps, Esc drops"),
    ("p", "pause: nothing is asked"),
    ("Space", "ask now"),
    ("+ -", "ask less often, more often"),
    ("Ctrl-Z", "back to the shell; fg returns"),
    ("", ""),
    ("SHARE", "of new flows"),
    ("DOWN UP", "bits per second"),
    ("FLOWS", "pinned flows that a packet used within the last minute"),
    ("LOSS", "of the last hundred probes"),
    ("TALKERS", "ranked by flows: bytes are not counted by flow"),
];

fn help(theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    let line = |(key, text): &(&'static str, &'static str)| {
        Line::from(vec![
            Span::styled(format!(" {key:<13}"), theme.heading()),
            Span::raw(*text),
        ])
    };
    let title = Line::styled("Keys (any key goes back)", theme.heading());
    let lines: Vec<Line<'_>> = std::iter::once(title).chain(HELP.iter().map(line)).collect();
    frame.render_widget(Paragraph::new(lines), area);
}

/// The heading of a pane, over its whole width.
fn title(model: &Model, theme: Theme, pane: Option<Pane>, text: &str, area: Rect) -> Line<'static> {
    let dash = theme.or("─", "-");
    let style = match pane == Some(model.view.pane) {
        true => theme.chosen(),
        false => theme.heading(),
    };
    let rest = usize::from(area.width).saturating_sub(Line::raw(text).width() + 4);
    Line::from(vec![
        Span::styled(dash, theme.dim()),
        Span::styled(format!(" {text} "), style),
        Span::styled(dash.repeat(rest + 1), theme.dim()),
    ])
}
