//! The terminal: taken, drawn on, and given back as it was, whatever happens.

use std::io::{self, BufWriter, IsTerminal as _, Stdout, stdin, stdout};
use std::sync::Once;

use anyhow::{Context as _, Result, ensure};
use crossterm::cursor::{Hide, Show};
use crossterm::execute;
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use nix::sys::signal::{Signal, raise};
use ratatui::backend::CrosstermBackend;
use ratatui::layout::{Position, Rect};
use ratatui::{Frame, Terminal};

/// A frame goes out in one piece: no torn pictures, few packets.
const FRAME_BYTES: usize = 64 * 1024;

/// The terminal, while it is ours.
pub(super) struct Screen {
    terminal: Terminal<CrosstermBackend<BufWriter<Stdout>>>,
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn enter() -> Result<Self> {
        ensure!(
            stdin().is_terminal() && stdout().is_terminal(),
            "`uplink top` needs a terminal for its keys and its picture; elsewhere use \
             `uplink status --watch`, or `uplink status --json` in scripts"
        );
        restore_on_panic();
        let backend = CrosstermBackend::new(BufWriter::with_capacity(FRAME_BYTES, stdout()));
        let terminal = Terminal::new(backend).context("the terminal does not tell its size")?;
        // Whatever fails from here on, dropping it gives the terminal back.
        let screen = Self { terminal };
        take()?;
        Ok(screen)
    }

    pub(super) fn draw(&mut self, picture: impl FnOnce(&mut Frame<'_>)) -> Result<()> {
        self.terminal
            .draw(picture)
            .context("cannot draw on the terminal")?;
        Ok(())
    }

    /// Gives the terminal back, stops as job control wants it, and takes it again.
    pub(super) fn suspend(&mut self) -> Result<()> {
        give_back();
        raise(Signal::SIGSTOP).context("cannot stop")?;
        self.resume()
    }

    /// Takes the terminal again after others had it, and draws everything anew.
    pub(super) fn resume(&mut self) -> Result<()> {
        // What raw mode is compared with is what the shell has set meanwhile.
        let _ = disable_raw_mode();
        take()?;
        self.clear()
    }

    /// The next picture is drawn whole. Not by `Terminal::clear`, which asks the terminal where its
    /// cursor is, and the answer would go to whoever reads the keys.
    pub(super) fn clear(&mut self) -> Result<()> {
        let size = self
            .terminal
            .size()
            .context("the terminal does not tell its size")?;
        let whole = Rect::from((Position::ORIGIN, size));
        self.terminal.resize(whole).context("cannot clear the terminal")
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn take() -> Result<()> {
    enable_raw_mode().context("cannot set the terminal to raw mode")?;
    execute!(stdout(), EnterAlternateScreen, Hide).context("cannot write to the terminal")
}

/// A terminal that has gone needs nothing.
fn give_back() {
    let _: io::Result<()> = execute!(stdout(), Show, LeaveAlternateScreen);
    let _ = disable_raw_mode();
}

/// Before the message, which would be lost on the alternate screen. With `panic = "abort"` nothing
/// is dropped.
fn restore_on_panic() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            give_back();
            before(info);
        }));
    });
}
