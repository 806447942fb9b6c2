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
    let right = Line::from(right_of_header(model, now)).right_aligned();
    let widths = [Constraint::Min(0), Constraint::Length(u16::try_from(right.width()).unwrap_or(0) + 1)];
    let [left, clock] = Layout::horizontal(widths).areas(area);
    frame.render_widget(Line::from(left_of_header(model, theme, area.width)), left);
    frame.render_widget(right, clock);
}

fn left_of_header(model: &Model, theme: Theme, width: u16) -> Vec<Span<'static>> {
    let mut spans = vec![Span::styled("uplink ", theme.heading())];
    if let Some((_, since)) = &model.gone {
        let text = format!("daemon gone since {}, waiting ", model.clock(*since));
        spans.push(Span::styled(text, theme.alarm()));
        return spans;
    }
    spans.push(summary(model, theme));
    if model.view.paused {
        spans.push(Span::styled(" PAUSED", theme.alarm()));
    }
    if let Some(status) = model.status.as_ref().filter(|_| width >= 70) {
        let since = model.date(&status.since);
        let text = format!("  {}, {}, since {since}", env!("CARGO_PKG_VERSION"), status.attach);
        spans.push(Span::styled(text, theme.dim()));
    }
    spans
}

/// The state of all in words: how many are up, and what the others are.
fn summary(model: &Model, theme: Theme) -> Span<'static> {
    if model.status.is_none() {
        return Span::styled("asking the daemon", theme.dim());
    }
    let all = model.uplinks().len();
    let up = model.in_state(State::Up);
    let mut text = match all {
        0 => "no uplinks".to_owned(),
        1 => format!("{up} of 1 uplink up"),
        _ => format!("{up} of {all} uplinks up"),
    };
    let others = [State::Down, State::Degraded, State::Draining, State::Disabled, State::Unknown];
    for state in others {
        match model.in_state(state) {
            0 => {}
            n => text += &format!(", {n} {state}"),
        }
    }
    Span::styled(text, theme.state(worst(model)))
}

/// The state that needs most attention.
fn worst(model: &Model) -> State {
    let states = model.uplinks().iter().map(|u| u.state);
    states.max_by_key(|s| rows::urgency(*s)).unwrap_or(State::Unknown)
}

/// When the last answer came, and how often they do.
fn right_of_header(model: &Model, now: Timestamp) -> String {
    let every = humantime::format_duration(model.view.interval.get());
    match model.answered {
        Some(at) if model.gone.is_none() => format!("{} every {every}", model.clock(at)),
        Some(at) => format!("last {}, now {}", model.clock(at), model.clock(now)),
        None => model.clock(now),
    }
}

fn footer(model: &Model, theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    let line = match (&model.view.mode, &model.notice) {
        (Mode::Confirm(name), _) => {
            let text = format!("drain {name}? y/n  (no new flows, old ones finish)");
            Line::styled(text, theme.alarm())
        }
        (Mode::Filter(_), _) => {
            let text = format!("filter by name or state: {}_", model.view.filter);
            Line::styled(text, theme.heading())
        }
        (_, Some(notice)) => {
            let style = if notice.bad { theme.alarm() } else { theme.heading() };
            let mark = if notice.bad { "! " } else { "" };
            return wrapped(frame, area, &format!("{mark}{}", notice.text), style);
        }
        _ => Line::styled(hints(model, area.width), theme.dim()),
    };
    frame.render_widget(line, area);
}

/// A refusal may need more than one line; it takes them from what is above.
fn wrapped(frame: &mut Frame<'_>, area: Rect, text: &str, style: Style) {
    let lines = panes::wrap(text, area.width);
    let height = u16::try_from(lines.len()).unwrap_or(1).clamp(1, area.y.max(1));
    let area = Rect { y: area.bottom() - height, height, ..area };
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
    ("Up Down j k", "choose an uplink, or scroll the pane; PgUp PgDn Home End"),
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
        Line::from(vec![Span::styled(format!(" {key:<13}"), theme.heading()), Span::raw(*text)])
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
