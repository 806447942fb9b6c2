//! The list of uplinks. Columns that do not fit are left out, the least important first.

use ratatui::Frame;
use ratatui::layout::{Constraint, Rect};
use ratatui::style::Style;
use ratatui::text::Line;
use ratatui::widgets::{Cell, Row, Table, TableState};

use crate::status::Uplink;

use super::super::figures;
use super::super::history::{Sample, spark};
use super::super::rows::Sort;
use super::super::state::Model;
use super::super::theme::Theme;

/// What stands in a column.
#[derive(Clone, Copy)]
enum Content {
    Name,
    State,
    /// At the right.
    Figure(fn(&Uplink, Sample) -> Option<String>),
    /// As wide as there is room.
    Curve(fn(&Sample) -> Option<f64>),
}

#[derive(Clone, Copy)]
struct Column {
    title: &'static str,
    width: u16,
    /// Lower is more important.
    rank: u8,
    sort: Option<Sort>,
    content: Content,
}

const fn figure(
    title: &'static str,
    width: u16,
    rank: u8,
    sort: Sort,
    text: fn(&Uplink, Sample) -> Option<String>,
) -> Column {
    Column {
        title,
        width,
        rank,
        sort: Some(sort),
        content: Content::Figure(text),
    }
}

const fn curve(title: &'static str, width: u16, rank: u8, of: fn(&Sample) -> Option<f64>) -> Column {
    Column {
        title,
        width,
        rank,
        sort: None,
        content: Content::Curve(of),
    }
}

const NAME: Column = Column {
    title: "UPLINK",
    width: 6,
    rank: 0,
    sort: Some(Sort::Name),
    content: Content::Name,
};

const COLUMNS: [Column; 13] = [
    NAME,
    Column {
        title: "STATE",
        width: 10,
        rank: 1,
        sort: Some(Sort::State),
        content: Content::State,
    },
    figure("SHARE", 6, 2, Sort::Share, |u, _| Some(figures::percent(u.share))),
    figure("RTT", 6, 3, Sort::Rtt, |u, _| u.rtt_ms.map(figures::time)),
    figure("DOWN", 5, 4, Sort::Down, |_, s| {
        s.down_bps.map(|b| figures::rate(b as u64))
    }),
    figure("UP", 5, 5, Sort::Up, |_, s| {
        s.up_bps.map(|b| figures::rate(b as u64))
    }),
    figure("LOSS", 5, 6, Sort::Loss, |u, _| Some(figures::percent(u.loss))),
    figure("FLOWS", 6, 7, Sort::Flows, |u, _| {
        Some(figures::count(u.active_flows))
    }),
    figure("JITTER", 6, 9, Sort::Jitter, |u, _| {
        u.jitter_ms.map(figures::time)
    }),
    figure("TIER", 4, 10, Sort::Tier, |u, _| Some(u.tier.to_string())),
    curve("RTT", 5, 8, |s| s.rtt_ms),
    curve("DOWN", 8, 11, |s| s.down_bps),
    curve("UP", 8, 12, |s| s.up_bps),
];

/// Widest curve.
const CURVE: u16 = 40;

/// Draws the list.
pub(in super::super) fn draw(model: &Model, theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    let rows = model.rows();
    if rows.is_empty() {
        return frame.render_widget(Line::styled(nothing(model), theme.dim()), area);
    }
    let columns = columns(area.width - 2, &rows);
    let widths = columns.iter().map(|c| Constraint::Length(c.width));
    let header = Row::new(columns.iter().map(|c| heading(model, theme, c))).style(theme.heading());
    let lines = rows.iter().map(|u| row(model, theme, &columns, u));
    let table = Table::new(lines, widths)
        .header(header)
        .column_spacing(1)
        .highlight_symbol("> ")
        .row_highlight_style(theme.heading());
    let mut state = TableState::new().with_selected(model.chosen(&rows));
    frame.render_stateful_widget(table, area, &mut state);
}

/// Why there are no rows.
fn nothing(model: &Model) -> String {
    match &*model.view.filter {
        "" => "no uplinks yet".into(),
        filter => format!("no uplink matches {filter:?}; / changes the filter"),
    }
}

/// The columns that fit, with their widths.
fn columns(room: u16, rows: &[&Uplink]) -> Vec<Column> {
    let names = rows
        .iter()
        .map(|u| Line::raw(&*u.name).width())
        .max()
        .unwrap_or(0);
    let mut name = NAME;
    name.width = u16::try_from(names).unwrap_or(15).clamp(6, 15).min(room);
    let mut all = COLUMNS;
    all[0] = name;
    let mut by_rank = all;
    by_rank.sort_by_key(|c| c.rank);
    let mut left = room;
    let mut last = 0;
    for (n, column) in by_rank.iter().enumerate() {
        let needs = column.width + u16::from(n > 0);
        if needs > left {
            break;
        }
        left -= needs;
        last = column.rank;
    }
    let mut shown: Vec<Column> = all.into_iter().filter(|c| c.rank <= last).collect();
    stretch(&mut shown, left);
    shown
}

/// Curves take what is left.
fn stretch(columns: &mut [Column], left: u16) {
    let mut curves: Vec<&mut Column> = columns
        .iter_mut()
        .filter(|c| matches!(c.content, Content::Curve(_)))
        .collect();
    let Some(each) = left.checked_div(u16::try_from(curves.len()).unwrap_or(1)) else {
        return;
    };
    curves
        .iter_mut()
        .for_each(|c| c.width = (c.width + each).min(CURVE));
}

/// The sorted column says so.
fn heading(model: &Model, theme: Theme, column: &Column) -> Cell<'static> {
    let sorted = column.sort == Some(model.view.sort);
    let mark = match (sorted, model.view.reverse) {
        (false, _) => "",
        (true, false) => theme.or("▾", "^"),
        (true, true) => theme.or("▴", "v"),
    };
    // It replaces a letter where the column is no wider than its title.
    let room = usize::from(column.width).saturating_sub(mark.chars().count());
    let title: String = column.title.chars().take(room).collect();
    let line = Line::raw(format!("{title}{mark}"));
    Cell::from(match column.content {
        Content::Figure(_) => line.right_aligned(),
        _ => line,
    })
}

fn row<'a>(model: &Model, theme: Theme, columns: &[Column], u: &'a Uplink) -> Row<'a> {
    // What nobody has confirmed lately is old.
    let old = model.gone.is_some();
    let cells = columns.iter().map(|c| cell(model, theme, c, u));
    Row::new(cells).style(if old { theme.dim() } else { Style::new() })
}

fn cell<'a>(model: &Model, theme: Theme, column: &Column, u: &'a Uplink) -> Cell<'a> {
    let history = model.histories.get(&u.name);
    match column.content {
        Content::Name => Cell::from(&*u.name),
        Content::State => {
            let text = format!("{} {}", theme.symbol(u.state), u.state);
            Cell::from(text).style(theme.state(u.state))
        }
        Content::Figure(text) => {
            let newest = history.map(|h| h.newest()).unwrap_or_default();
            let text = text(u, newest).unwrap_or_else(|| "-".into());
            Cell::from(Line::from(text).right_aligned())
        }
        Content::Curve(of) => {
            let values = history.map(|h| h.of(of)).unwrap_or_default();
            let line = spark(&values, column.width.into(), theme.unicode);
            Cell::from(line).style(theme.curve())
        }
    }
}
