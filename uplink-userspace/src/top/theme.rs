//! What the terminal can show. Colour only ever repeats what a word or a symbol says.

use ratatui::style::{Color, Modifier, Style};

use crate::status::State;

/// What may be used for drawing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Theme {
    /// The eight colours of every colour terminal.
    pub colour: bool,
    /// Characters beyond ASCII.
    pub unicode: bool,
}

impl Theme {
    /// What the environment promises. `variable` looks up one of its variables.
    #[must_use]
    pub fn of(variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| variable(name).filter(|v| !v.is_empty());
        let term = set("TERM").unwrap_or_default();
        let plain = ["dumb", "vt100", "vt102", "vt220"].contains(&&*term) || term.ends_with("-mono");
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].iter().find_map(|name| set(name));
        let locale = locale.unwrap_or_default().to_lowercase();
        Self {
            colour: set("NO_COLOR").is_none() && !plain && !term.ends_with("-m"),
            // The font of the Linux console lacks most of the blocks.
            unicode: (locale.contains("utf-8") || locale.contains("utf8")) && term != "linux" && !plain,
        }
    }

    /// A symbol for the state, one column wide.
    #[must_use]
    pub const fn symbol(self, state: State) -> &'static str {
        let symbols = match state {
            State::Up => ["●", "+"],
            State::Degraded => ["◐", "~"],
            State::Down => ["✗", "!"],
            State::Draining => ["▽", "v"],
            State::Disabled => ["○", "-"],
            State::Unknown => ["?", "?"],
        };
        symbols[!self.unicode as usize]
    }

    /// The colour of the state.
    #[must_use]
    pub fn state(self, state: State) -> Style {
        match state {
            State::Up => self.fg(Color::Green),
            State::Degraded | State::Draining => self.fg(Color::Yellow),
            State::Down => self.fg(Color::Red).add_modifier(Modifier::BOLD),
            State::Disabled | State::Unknown => self.dim(),
        }
    }

    /// What needs attention.
    #[must_use]
    pub fn alarm(self) -> Style {
        self.fg(Color::Yellow).add_modifier(Modifier::BOLD)
    }

    /// What matters less.
    #[must_use]
    pub fn dim(self) -> Style {
        self.fg(Color::DarkGray)
    }

    /// Curves.
    #[must_use]
    pub fn curve(self) -> Style {
        self.fg(Color::Cyan)
    }

    /// Headings.
    #[must_use]
    pub const fn heading(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// The row or pane that keys act on.
    #[must_use]
    pub const fn chosen(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// One of two spellings.
    #[must_use]
    pub const fn or(self, unicode: &'static str, ascii: &'static str) -> &'static str {
        if self.unicode { unicode } else { ascii }
    }

    fn fg(self, colour: Color) -> Style {
        if self.colour {
            Style::new().fg(colour)
        } else {
            Style::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(environment: &[(&str, &str)]) -> (bool, bool) {
        let theme = Theme::of(|name| {
            let found = environment.iter().find(|(n, _)| *n == name);
            found.map(|(_, value)| (*value).to_owned())
        });
        (theme.colour, theme.unicode)
    }

    #[test]
    fn the_environment_is_heard() {
        let utf8 = ("LANG", "de_DE.UTF-8");
        assert_eq!(of(&[("TERM", "xterm-256color"), utf8]), (true, true));
        assert_eq!(of(&[("TERM", "xterm"), utf8, ("LC_ALL", "C")]), (true, false));
        assert_eq!(of(&[("TERM", "xterm"), utf8, ("LC_ALL", "")]), (true, true));
        assert_eq!(
            of(&[("TERM", "xterm"), ("LC_CTYPE", "C.utf8"), ("NO_COLOR", "1")]),
            (false, true)
        );
        assert_eq!(of(&[("TERM", "xterm"), ("NO_COLOR", "")]), (true, false));
        assert_eq!(of(&[("TERM", "linux"), utf8]), (true, false));
        assert_eq!(of(&[("TERM", "dumb"), utf8]), (false, false));
    }
}
