//! Who gets how much room.

use ratatui::Frame;
use ratatui::layout::Rect;

use super::super::keys::Pane;
use super::super::state::Model;
use super::super::theme::Theme;
use super::{list, panes};

/// From this width on, panes stand in two columns.
const WIDE: u16 = 110;

/// Draws a part of the screen.
type Draw = fn(&Model, Theme, &mut Frame<'_>, Rect);

/// A part of the screen, and the lines it wants: at least, and at most.
struct Part {
    least: u16,
    most: u16,
    /// Lower is served first.
    rank: u8,
    draw: Draw,
}

impl Part {
    fn new(least: u16, most: u16, rank: u8, draw: Draw) -> Self {
        Self {
            least,
            most,
            rank,
            draw,
        }
    }
}

/// All between header and footer.
pub(super) fn body(model: &Model, theme: Theme, frame: &mut Frame<'_>, area: Rect) {
    if area.width < WIDE {
        return stack(model, theme, frame, area, &parts(model, area));
    }
    let [list, detail, warnings, talkers, events] = parts(model, area);
    let height = list.most.min(area.height);
    (list.draw)(model, theme, frame, Rect { height, ..area });
    let below = Rect {
        y: area.y + height,
        height: area.height - height,
        ..area
    };
    let half = below.width / 2;
    let left = Rect {
        width: half - 1,
        ..below
    };
    let right = Rect {
        x: below.x + half + 1,
        width: below.width - half - 1,
        ..below
    };
    stack(model, theme, frame, left, &[detail, talkers]);
    stack(model, theme, frame, right, &[warnings, events]);
}

/// From top to bottom.
fn parts(model: &Model, area: Rect) -> [Part; 5] {
    let rank = |pane: Pane, rank: u8| if model.view.pane == pane { 1 } else { rank };
    let rows = lines(model.rows().len().max(1)) + 1;
    let half = (area.height / 2).max(3);
    let warnings = match model.warnings().is_empty() {
        true => (0, 0),
        false => (2, panes::warnings_height(model, column(area.width)) + 1),
    };
    let talkers = lines(model.length(Pane::Talkers).clamp(1, 10)) + 1;
    let events = if area.height < 18 { 2 } else { 5 };
    let detail = if model.rows().is_empty() {
        0
    } else {
        panes::detail_height(model, column(area.width)) + 1
    };
    [
        Part::new(rows.min(3), rows.min(half), 0, list::draw),
        Part::new(4.min(detail), detail, 4, panes::detail),
        Part::new(
            warnings.0,
            warnings.1.min(half),
            rank(Pane::Warnings, 2),
            panes::warnings,
        ),
        Part::new(3.min(talkers), talkers, rank(Pane::Talkers, 5), panes::talkers),
        Part::new(events, u16::MAX, rank(Pane::Events, 3), panes::events),
    ]
}

/// The width of a pane.
fn column(width: u16) -> u16 {
    if width < WIDE { width } else { width / 2 - 1 }
}

fn lines(n: usize) -> u16 {
    u16::try_from(n).unwrap_or(u16::MAX - 1)
}

/// Draws parts below each other.
fn stack(model: &Model, theme: Theme, frame: &mut Frame<'_>, area: Rect, parts: &[Part]) {
    let mut y = area.y;
    for (part, height) in parts.iter().zip(heights(area.height, parts)) {
        if height > 0 {
            (part.draw)(model, theme, frame, Rect { y, height, ..area });
        }
        y += height;
    }
}

/// Everybody's least by rank, as far as it goes; then by rank what each wants.
fn heights(mut room: u16, parts: &[Part]) -> Vec<u16> {
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by_key(|i| parts[*i].rank);
    let mut heights = vec![0; parts.len()];
    for i in &order {
        if parts[*i].least <= room {
            heights[*i] = parts[*i].least;
            room -= parts[*i].least;
        }
    }
    // The endless one comes last, whatever its rank.
    order.sort_by_key(|i| parts[*i].most == u16::MAX);
    for i in order {
        let more = (parts[i].most - heights[i]).min(room);
        let shown = heights[i] > 0 || more >= 2;
        if shown && parts[i].least <= heights[i] + more {
            heights[i] += more;
            room -= more;
        }
    }
    heights
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_goes_by_rank_and_is_never_exceeded() {
        let part = |least, most, rank| Part::new(least, most, rank, list::draw);
        let parts = [part(3, 5, 0), part(4, 7, 2), part(2, u16::MAX, 1)];
        assert_eq!(heights(20, &parts), [5, 7, 8]);
        assert_eq!(heights(10, &parts), [4, 4, 2]);
        assert_eq!(heights(6, &parts), [4, 0, 2]);
        assert_eq!(heights(2, &parts), [0, 0, 2]);
        for room in 0..40 {
            assert!(heights(room, &parts).iter().sum::<u16>() <= room);
        }
    }
}
