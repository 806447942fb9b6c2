//! What stdout is, and what may be done with it.

use std::io::{self, IsTerminal as _};

use jiff::tz::TimeZone;

use crate::status::Look;

/// Columns and rows of the terminal on stdout, if it is one.
pub(super) fn size() -> Option<(u16, u16)> {
    let (width, height) = terminal_size::terminal_size_of(io::stdout())?;
    Some((width.0, height.0))
}

/// Whether what was written can be written over.
pub(super) fn can_redraw() -> bool {
    io::stdout().is_terminal() && !is_dumb()
}

/// How results on stdout may look. Colours and lines that are broken are for terminals only.
pub(super) fn look() -> Look {
    let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    Look {
        width: size().map(|(width, _)| width),
        colour: wanted && can_redraw(),
        zone: TimeZone::system(),
    }
}

fn is_dumb() -> bool {
    std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb")
}

/// `text` over what the screen has, cut where the screen ends.
pub(super) fn redrawn(text: &str, rows: u16) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let rows = usize::from(rows).max(1);
    let (shown, left) = match lines.len() > rows {
        true => lines.split_at(rows - 1),
        false => (&lines[..], &[][..]),
    };
    let mut screen = String::from("\x1b[H");
    for (n, line) in shown.iter().enumerate() {
        screen += if n == 0 { "" } else { "\r\n" };
        screen += line;
        screen += "\x1b[K";
    }
    if !left.is_empty() {
        screen += if shown.is_empty() { "" } else { "\r\n" };
        screen += &format!("... {} more lines\x1b[K", left.len());
    }
    screen + "\x1b[J"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_drawn_and_the_rest_counted() {
        assert_eq!(redrawn("a\nb\n", 2), "\x1b[Ha\x1b[K\r\nb\x1b[K\x1b[J");
        assert_eq!(
            redrawn("a\nb\nc\n", 2),
            "\x1b[Ha\x1b[K\r\n... 2 more lines\x1b[K\x1b[J"
        );
        assert_eq!(redrawn("a\nb\n", 1), "\x1b[H... 2 more lines\x1b[K\x1b[J");
        assert_eq!(redrawn("", 0), "\x1b[H\x1b[J");
    }
}
