//! What keys do.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use crate::api;

use super::rows::Sort;
use super::state::{Interval, Model};

/// Longest filter: longer than any name.
const FILTER: usize = 32;

/// What a key wants from the outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// To leave.
    Quit,
    /// To be stopped by job control.
    Suspend,
    /// To ask now.
    Refresh,
    /// To draw everything anew, where somebody else has written over it.
    Redraw,
    /// To ask as often as is said now.
    Interval,
    /// To give an order to the daemon.
    Order {
        /// [`api::DRAIN`] or [`api::ENABLE`].
        method: &'static str,
        /// The uplink.
        name: String,
    },
}

/// Parts of the screen that keys can act on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Pane {
    #[default]
    Uplinks,
    Warnings,
    Talkers,
    Events,
}

impl Pane {
    pub(super) const ALL: [Self; 4] = [Self::Uplinks, Self::Warnings, Self::Talkers, Self::Events];

    fn next(self, back: bool) -> Self {
        let step = if back { 3 } else { 1 };
        Self::ALL[(self as usize + step) % 4]
    }
}

/// What keys mean at the moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Mode {
    #[default]
    Normal,
    /// A filter is typed; this was the one before.
    Filter(String),
    /// Whether to drain that uplink.
    Confirm(String),
    Help,
}

/// What somebody wants to see.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) mode: Mode,
    pub(super) sort: Sort,
    pub(super) reverse: bool,
    pub(super) filter: String,
    /// Name of the chosen uplink.
    pub(super) chosen: Option<String>,
    pub(super) pane: Pane,
    /// By pane: lines that are passed over; of events, the newest.
    pub(super) scroll: [usize; 4],
    pub(super) paused: bool,
    pub(super) interval: Interval,
}

impl View {
    pub(super) fn new(interval: Interval) -> Self {
        Self {
            mode: Mode::Normal,
            sort: Sort::File,
            reverse: false,
            filter: String::new(),
            chosen: None,
            pane: Pane::Uplinks,
            scroll: [0; 4],
            paused: false,
            interval,
        }
    }
}

impl Model {
    /// Takes in a key.
    pub fn key(&mut self, key: KeyEvent) -> Option<Action> {
        if key.kind == KeyEventKind::Release {
            return None;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Some(Action::Quit),
                KeyCode::Char('z') => Some(Action::Suspend),
                KeyCode::Char('l') => Some(Action::Redraw),
                _ => None,
            };
        }
        self.notice = None;
        match std::mem::take(&mut self.view.mode) {
            Mode::Normal => self.normal(key.code),
            Mode::Filter(before) => {
                self.filter(key.code, before);
                None
            }
            Mode::Confirm(name) => self.confirm(key.code, name),
            Mode::Help => None,
        }
    }

    fn normal(&mut self, code: KeyCode) -> Option<Action> {
        match code {
            KeyCode::Char('q') | KeyCode::Esc => return Some(Action::Quit),
            KeyCode::Char(' ') => return Some(Action::Refresh),
            KeyCode::Char('d') => self.ask_drain(),
            KeyCode::Char('e') => return self.order(api::ENABLE),
            KeyCode::Char(c @ ('+' | '-')) => {
                self.view.interval = self.view.interval.step(c == '+');
                return Some(Action::Interval);
            }
            KeyCode::Char('s') => self.sort(),
            KeyCode::Char('r') => self.view.reverse = !self.view.reverse,
            KeyCode::Char('/') => self.view.mode = Mode::Filter(self.view.filter.clone()),
            KeyCode::Char('?' | 'h') => self.view.mode = Mode::Help,
            KeyCode::Char('p') => {
                self.view.paused = !self.view.paused;
                return Some(Action::Refresh);
            }
            KeyCode::Tab => self.view.pane = self.view.pane.next(false),
            KeyCode::BackTab => self.view.pane = self.view.pane.next(true),
            _ => self.travel(code),
        }
        None
    }

    fn travel(&mut self, code: KeyCode) {
        match code {
            KeyCode::Up | KeyCode::Char('k') => self.go(-1),
            KeyCode::Down | KeyCode::Char('j') => self.go(1),
            KeyCode::PageUp => self.go(-10),
            KeyCode::PageDown => self.go(10),
            KeyCode::Home | KeyCode::Char('g') => self.go(isize::MIN),
            KeyCode::End | KeyCode::Char('G') => self.go(isize::MAX),
            _ => {}
        }
    }

    /// Goes so many lines down in the pane that is chosen.
    fn go(&mut self, by: isize) {
        let pane = self.view.pane;
        let most = self.length(pane).saturating_sub(1);
        let to = |from: usize, by: isize| from.saturating_add_signed(by).min(most);
        match pane {
            Pane::Uplinks => {
                let rows = self.rows();
                let row = rows.get(to(self.chosen(&rows), by));
                self.view.chosen = row.map(|u| u.name.clone());
            }
            // They are passed over from the newest, at the bottom.
            Pane::Events => {
                let scroll = &mut self.view.scroll[pane as usize];
                *scroll = to(*scroll, by.saturating_neg());
            }
            Pane::Warnings | Pane::Talkers => {
                let scroll = &mut self.view.scroll[pane as usize];
                *scroll = to(*scroll, by);
            }
        }
    }

    fn sort(&mut self) {
        self.view.sort = self.view.sort.next();
        let text = format!("sorted by {}", self.view.sort.name());
        self.tell(Ok(&text));
    }

    fn filter(&mut self, code: KeyCode, before: String) {
        match code {
            KeyCode::Enter => return,
            KeyCode::Esc => {
                self.view.filter = before;
                return;
            }
            KeyCode::Backspace => {
                self.view.filter.pop();
            }
            KeyCode::Char(c) if self.view.filter.chars().count() < FILTER && !c.is_control() => {
                self.view.filter.push(c);
            }
            _ => {}
        }
        self.view.mode = Mode::Filter(before);
    }

    fn ask_drain(&mut self) {
        match self.target() {
            Ok(name) => self.view.mode = Mode::Confirm(name),
            Err(why) => self.tell(Err(why)),
        }
    }

    fn confirm(&mut self, code: KeyCode, name: String) -> Option<Action> {
        if let KeyCode::Char('y' | 'Y') = code {
            return Some(Action::Order {
                method: api::DRAIN,
                name,
            });
        }
        let text = format!("{name} is not drained");
        self.tell(Ok(&text));
        None
    }

    fn order(&mut self, method: &'static str) -> Option<Action> {
        match self.target() {
            Ok(name) => return Some(Action::Order { method, name }),
            Err(why) => self.tell(Err(why)),
        }
        None
    }

    /// The uplink that an order is for. Nobody shall drain what they do not see.
    fn target(&self) -> Result<String, &'static str> {
        if self.gone.is_some() {
            return Err("the daemon does not answer: nobody can take the order");
        }
        let rows = self.rows();
        let chosen = rows.get(self.chosen(&rows));
        chosen.map(|u| u.name.clone()).ok_or("no uplink is shown")
    }
}
