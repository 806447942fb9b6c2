//! How the show looks: redrawn in place on a terminal, plain lines elsewhere.

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use serde_json::Value;
use uplink_lab::Isp;
use uplink_lab::daemon::find;

/// With the rest of the line it fits into 80 columns.
const BAR: usize = 24;
const EVENTS: usize = 10;

/// What is shown each second.
pub struct Frame {
    /// Since the start.
    pub elapsed: Duration,
    /// New flows that the servers saw by ISP in the last seconds.
    pub window: [u64; 2],
    /// New flows in the last second.
    pub rate: u64,
    /// `status --json`, or null when it does not answer.
    pub status: Value,
}

/// The screen.
pub struct View {
    begun: Instant,
    pid: u32,
    terminal: bool,
    colour: bool,
    drawn: usize,
    events: VecDeque<String>,
}

impl View {
    /// `pid` is the daemon's, for those who want to look inside.
    pub fn new(pid: u32) -> Self {
        let terminal = std::io::stdout().is_terminal();
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        let view = Self {
            begun: Instant::now(),
            pid,
            terminal,
            colour,
            drawn: 0,
            events: VecDeque::new(),
        };
        view.intro();
        view
    }

    fn intro(&self) {
        let look = format!("nsenter --target {} --mount --net", self.pid);
        println!(
            "uplink-lab: a router with one NIC, isp1 (weight 3) and isp2 (weight 1), servers behind both.\n\
             Look inside from another terminal, as root:\n  \
             {look} bpftool map dump pinned /sys/fs/bpf/uplink/uplinks\n  {look} ip rule\n  \
             {look} nft list ruleset\n  {look} cat /run/lab/daemon.log\nCtrl-C ends it.\n"
        );
    }

    /// Something happened.
    pub fn event(&mut self, text: String) {
        let line = format!("{} {text}", clock(self.begun.elapsed()));
        if !self.terminal {
            println!("{line}");
        }
        self.events.push_back(line);
        if self.events.len() > EVENTS {
            self.events.pop_front();
        }
    }

    /// Draws a frame.
    pub fn show(&mut self, frame: &Frame) {
        if self.terminal {
            let text = self.screen(frame);
            self.redraw(&text);
        } else {
            let uplinks = Isp::ALL.map(|isp| self.line(isp, frame));
            println!(
                "{} {:>3} new flows/s | {}",
                clock(frame.elapsed),
                frame.rate,
                uplinks.join(" | ")
            );
        }
    }

    /// The last word.
    pub fn summary(
        &self,
        flows: [u64; 2],
        share: f64,
        failovers: &[Option<Duration>],
        verdict: Option<bool>,
    ) {
        let times = failovers.iter().map(|t| match t {
            Some(t) => format!("{} ms", t.as_millis()),
            None => "not seen".into(),
        });
        let times = times.collect::<Vec<_>>().join(", ");
        println!(
            "\nwhile both were up: {} new flows, isp1 took {share:.1} % (expected 75 %)\n\
             failovers: {}\n{}",
            flows[0] + flows[1],
            if times.is_empty() { "none" } else { &times },
            match verdict {
                Some(true) => "as expected",
                Some(false) => "NOT as expected",
                None => "interrupted",
            },
        );
    }

    fn screen(&self, frame: &Frame) -> String {
        let mut text = format!(
            "{}   {} new flows/s, UDP and TCP; shares of them as the servers see it\n\n",
            clock(frame.elapsed),
            frame.rate
        );
        for isp in Isp::ALL {
            text += &format!("  {}  {}\n", self.line(isp, frame), bar(share(isp, frame)));
        }
        text += "\n";
        for event in &self.events {
            text += &format!("  {event}\n");
        }
        text
    }

    fn redraw(&mut self, text: &str) {
        let up = if self.drawn > 0 {
            format!("\x1b[{}A", self.drawn)
        } else {
            String::new()
        };
        // Each line is cleared before it is written; what was below it, after the last.
        let lines = text.replace('\n', "\x1b[K\n");
        print!("{up}{lines}\x1b[J");
        let _ = std::io::stdout().flush();
        self.drawn = text.matches('\n').count();
    }

    fn line(&self, isp: Isp, frame: &Frame) -> String {
        let null = Value::Null;
        let uplink = find(&frame.status, isp).unwrap_or(&null);
        let state = uplink["state"].as_str().unwrap_or("no answer");
        let rtt = uplink["rtt_ms"]
            .as_f64()
            .map_or("-".into(), |ms| format!("{ms:.2} ms"));
        let loss = uplink["loss"]
            .as_f64()
            .map_or("-".into(), |loss| format!("{:.0} %", 100.0 * loss));
        let seen = 100.0 * share(isp, frame);
        format!(
            "{} {} {seen:>5.1} %  rtt {rtt:>8}  loss {loss:>5}",
            isp.name(),
            self.paint(state),
        )
    }

    fn paint(&self, state: &str) -> String {
        let padded = format!("{state:<9}");
        match (self.colour, state) {
            (false, _) => padded,
            (true, "up") => format!("\x1b[32m{padded}\x1b[0m"),
            (true, "down") => format!("\x1b[31m{padded}\x1b[0m"),
            (true, _) => format!("\x1b[33m{padded}\x1b[0m"),
        }
    }
}

fn share(isp: Isp, frame: &Frame) -> f64 {
    let all: u64 = frame.window.iter().sum();
    frame.window[isp.index()] as f64 / all.max(1) as f64
}

fn bar(share: f64) -> String {
    let full = (share * BAR as f64).round() as usize;
    "█".repeat(full) + &"░".repeat(BAR.saturating_sub(full))
}

fn clock(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    format!("{:02}:{:02}", seconds / 60, seconds % 60)
}
