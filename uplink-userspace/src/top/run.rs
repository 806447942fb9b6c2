//! The shell around the model: clock, keys, signals and the control socket.

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Result, bail};
use crossterm::event::Event as Input;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, sleep_until};

use crate::api;
use crate::options::Options;

use super::draw::draw;
use super::keys::Action;
use super::screen::Screen;
use super::state::{Interval, Model};
use super::talkers;
use super::theme::Theme;

/// Pictures come no faster than this by themselves; keys show at once.
const PICTURE: Duration = Duration::from_secs(1);
/// Between two looks at the flow table, at least, and as a multiple of what the last one took:
/// each reads all of it.
const FLOWS: Duration = Duration::from_secs(10);
const FLOWS_OF_COST: u32 = 100;
/// Before events are asked for again after the daemon has gone.
const AGAIN: Duration = Duration::from_secs(2);

/// What comes in.
enum Heard {
    Input(std::io::Result<Input>),
    Status(Result<Value>),
    Events(Value),
    /// The daemon does not tell its events.
    NoEvents(String),
    Flows(Result<Value>, Duration),
    Ordered(Result<Value>),
}

/// Shows the daemon in the terminal until somebody wants it to end.
///
/// # Errors
/// When there is no terminal, or it has gone.
pub async fn run(options: &Options, interval: Interval) -> Result<()> {
    let theme = Theme::of(|name| std::env::var(name).ok());
    let mut signals = Signals::new()?;
    let mut screen = Screen::enter()?;
    let (hear, mut heard) = unbounded_channel();
    listen(hear.clone());
    let mut top = Top::new(options, interval, hear);
    top.follow_events();
    top.serve(theme, &mut screen, &mut heard, &mut signals).await
}

/// Keys and sizes, from a thread: reading the terminal blocks.
fn listen(hear: UnboundedSender<Heard>) {
    std::thread::spawn(move || {
        loop {
            let input = crossterm::event::read();
            let last = input.is_err();
            if hear.send(Heard::Input(input)).is_err() || last {
                return;
            }
        }
    });
}

struct Signals {
    end: [Signal; 3],
    stop: Signal,
    go_on: Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        let of = |number: libc::c_int| signal(SignalKind::from_raw(number));
        Ok(Self {
            end: [of(libc::SIGTERM)?, of(libc::SIGHUP)?, of(libc::SIGINT)?],
            stop: of(libc::SIGTSTP)?,
            go_on: of(libc::SIGCONT)?,
        })
    }

    async fn ended(end: &mut [Signal; 3]) {
        let [term, hup, int] = end;
        tokio::select! {
            _ = term.recv() => {}
            _ = hup.recv() => {}
            _ = int.recv() => {}
        }
    }
}

/// A question that is asked now and then, one at a time.
struct Asked {
    next: Instant,
    waiting: bool,
}

struct Top {
    model: Model,
    runtime_dir: PathBuf,
    hear: UnboundedSender<Heard>,
    /// The newest event, for the task that follows them.
    last_event: Rc<Cell<u64>>,
    status: Asked,
    flows: Asked,
    /// Since the last picture something has changed, and whether somebody waits for the next.
    changed: bool,
    urgent: bool,
}

impl Top {
    fn new(options: &Options, interval: Interval, hear: UnboundedSender<Heard>) -> Self {
        let now = || Asked {
            next: Instant::now(),
            waiting: false,
        };
        Self {
            model: Model::new(interval, TimeZone::system()),
            runtime_dir: options.runtime_dir.clone(),
            hear,
            last_event: Rc::default(),
            status: now(),
            flows: now(),
            changed: true,
            urgent: true,
        }
    }

    async fn serve(
        &mut self,
        theme: Theme,
        screen: &mut Screen,
        heard: &mut UnboundedReceiver<Heard>,
        signals: &mut Signals,
    ) -> Result<()> {
        let mut drawn = Instant::now();
        loop {
            if self.changed && (self.urgent || drawn.elapsed() >= self.picture()) {
                let now = Timestamp::now();
                screen.draw(|frame| draw(&self.model, theme, now, frame))?;
                drawn = Instant::now();
                (self.changed, self.urgent) = (false, false);
            }
            self.ask();
            let asks = !self.model.is_paused();
            tokio::select! {
                Some(one) = heard.recv() => {
                    if self.hear(one, screen)? {
                        return Ok(());
                    }
                }
                () = sleep_until(drawn + self.picture()), if self.changed => {}
                () = sleep_until(self.status.next), if asks && !self.status.waiting => {}
                () = sleep_until(self.flows.next), if asks && !self.flows.waiting => {}
                () = Signals::ended(&mut signals.end) => return Ok(()),
                _ = signals.stop.recv() => self.suspend(screen)?,
                _ = signals.go_on.recv() => {
                    screen.resume()?;
                    self.show();
                }
            }
        }
    }

    fn picture(&self) -> Duration {
        PICTURE.min(self.model.interval().get())
    }

    /// Takes in what was heard; `true` when it is time to leave.
    fn hear(&mut self, heard: Heard, screen: &mut Screen) -> Result<bool> {
        self.changed = true;
        match heard {
            Heard::Input(Ok(input)) => return self.input(&input, screen),
            Heard::Input(Err(e)) => bail!("the terminal has gone: {e}"),
            Heard::Status(answer) => {
                self.status.waiting = false;
                // The first answer, and that somebody is back, is what people wait for.
                self.urgent |= self.model.is_waiting();
                self.model.status(answer.map_err(said), Timestamp::now());
            }
            Heard::Events(part) => {
                if let Err(e) = self.model.events(part) {
                    self.model.tell(Err(&said(e)));
                }
                self.last_event.set(self.model.last_event());
            }
            Heard::NoEvents(why) => self.model.tell(Err(&format!("no events: {why}"))),
            Heard::Flows(answer, cost) => self.flows(answer, cost),
            Heard::Ordered(answer) => self.ordered(answer),
        }
        Ok(false)
    }

    fn input(&mut self, input: &Input, screen: &mut Screen) -> Result<bool> {
        self.show();
        // A new size needs no more than the next picture.
        let Input::Key(key) = input else {
            return Ok(false);
        };
        let action = self.model.key(*key);
        self.act(action, screen)
    }

    fn act(&mut self, action: Option<Action>, screen: &mut Screen) -> Result<bool> {
        match action {
            None => {}
            Some(Action::Quit) => return Ok(true),
            Some(Action::Suspend) => self.suspend(screen)?,
            Some(Action::Refresh | Action::Interval) => self.status.next = Instant::now(),
            Some(Action::Redraw) => {
                screen.clear()?;
                self.status.next = Instant::now();
            }
            Some(Action::Order { method, name }) => {
                let (dir, hear) = (self.runtime_dir.clone(), self.hear.clone());
                spawn_local(async move {
                    let answer = api::call(&dir, method, json!({ "name": name })).await;
                    let _ = hear.send(Heard::Ordered(answer));
                });
            }
        }
        Ok(false)
    }

    fn suspend(&mut self, screen: &mut Screen) -> Result<()> {
        screen.suspend()?;
        self.show();
        Ok(())
    }

    /// Somebody waits for the next picture.
    fn show(&mut self) {
        (self.changed, self.urgent) = (true, true);
    }

    fn ordered(&mut self, answer: Result<Value>) {
        match answer {
            Ok(answer) => self.model.tell(Ok(answer["text"].as_str().unwrap_or("done"))),
            Err(e) => self.model.tell(Err(&said(e))),
        }
        self.show();
        self.status.next = Instant::now();
    }

    fn flows(&mut self, answer: Result<Value>, cost: Duration) {
        self.flows = Asked {
            next: Instant::now() + FLOWS.max(cost * FLOWS_OF_COST),
            waiting: false,
        };
        // Without a daemon the header says so.
        if let Ok(answer) = answer
            && let Err(e) = self.model.flows(answer)
        {
            self.model.tell(Err(&said(e)));
        }
    }

    /// Asks what is due.
    fn ask(&mut self) {
        if self.model.is_paused() {
            return;
        }
        let now = Instant::now();
        let due = |asked: &Asked| !asked.waiting && asked.next <= now;
        if due(&self.status) {
            self.status = Asked {
                next: now + self.model.interval().get(),
                waiting: true,
            };
            let (dir, hear) = (self.runtime_dir.clone(), self.hear.clone());
            spawn_local(async move {
                let answer = api::call(&dir, api::STATUS, json!({})).await;
                let _ = hear.send(Heard::Status(answer));
            });
        }
        if due(&self.flows) {
            self.flows.waiting = true;
            let (dir, hear) = (self.runtime_dir.clone(), self.hear.clone());
            spawn_local(async move {
                let wanted = json!({ "limit": talkers::SAMPLE });
                let answer = api::call(&dir, api::FLOWS, wanted).await;
                let _ = hear.send(Heard::Flows(answer, now.elapsed()));
            });
        }
    }

    /// Hears events for as long as the program runs, from one daemon after the other.
    fn follow_events(&self) {
        let (dir, hear) = (self.runtime_dir.clone(), self.hear.clone());
        let last = self.last_event.clone();
        spawn_local(async move {
            let mut after = 0;
            let mut told = String::new();
            loop {
                let wanted = json!({ "after": after, "follow": true });
                let ended = api::stream(&dir, api::EVENTS, wanted, |part| {
                    let _ = hear.send(Heard::Events(part));
                    Ok(())
                });
                let ended = ended.await.err();
                if ended
                    .as_ref()
                    .is_some_and(|e| e.is::<tokio::time::error::Elapsed>())
                {
                    // Nothing happened for a while; it goes on where it was.
                    after = last.get();
                    continue;
                }
                // Another daemon counts anew.
                after = 0;
                let refused = ended.filter(anyhow::Error::is::<api::Error>).map(said);
                if let Some(why) = refused.filter(|why| *why != told) {
                    told.clone_from(&why);
                    let _ = hear.send(Heard::NoEvents(why));
                }
                sleep(AGAIN).await;
            }
        });
    }
}

fn said(error: anyhow::Error) -> String {
    format!("{error:#}")
}
