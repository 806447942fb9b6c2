//! A few words for a terminal that has no room for more.

use ratatui::Frame;
use ratatui::text::Line;
use ratatui::widgets::Paragraph;

use crate::status::State;

use super::super::keys::Mode;
use super::super::rows;
use super::super::state::Model;
use super::super::theme::Theme;

/// How many are up, then those that need attention; or what is asked.
pub(super) fn draw(model: &Model, theme: Theme, frame: &mut Frame<'_>) {
    let area = frame.area();
    let lines = match (&model.view.mode, &model.notice) {
        (Mode::Confirm(name), _) => vec![Line::raw(format!("drain {name}?")), Line::raw("y/n")],
        (Mode::Filter(_), _) => vec![Line::raw(format!("/{}", model.view.filter))],
        (_, Some(notice)) => {
            let lines = super::panes::wrap(&notice.text, area.width);
            lines.into_iter().map(Line::from).collect()
        }
        _ => uplinks(model, theme),
    };
    frame.render_widget(Paragraph::new(lines), area);
}

fn uplinks(model: &Model, theme: Theme) -> Vec<Line<'static>> {
    if model.gone.is_some() {
        return vec![Line::styled("no daemon", theme.alarm())];
    }
    let head = format!("{}/{} up", model.in_state(State::Up), model.uplinks().len());
    let mut rows = model.rows();
    rows.sort_by_key(|u| std::cmp::Reverse(rows::urgency(u.state)));
    let row = |u: &&crate::status::Uplink| {
        let text = format!("{} {} {}", theme.symbol(u.state), u.name, u.state);
        Line::styled(text, theme.state(u.state))
    };
    std::iter::once(Line::raw(head))
        .chain(rows.iter().map(row))
        .collect()
}
