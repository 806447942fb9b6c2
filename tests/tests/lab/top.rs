//! `uplink top` in a real terminal, and what `completions` and `man` print.

use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use uplink_lab::daemon::{binary, run, said};
use uplink_lab::isolate::LAB_DIR;
use uplink_lab::{Daemon, Isp, Lab, Shape};

use crate::support::{daemon, lab};

/// What happens on a screen happens within this time.
const SOON: Duration = Duration::from_secs(5);

/// A shell in a terminal of 80x24 in the router's namespace.
struct Terminal<'a>(&'a Lab);

impl<'a> Terminal<'a> {
    fn open(lab: &'a Lab) -> Result<Self> {
        let terminal = Self(lab);
        // It ends by itself should we be killed. Without line editing the shell leaves the
        // terminal's modes alone.
        let shell = "timeout --foreground 55 env LANG=C.UTF-8 PS1=ready: bash --norc --noediting -i";
        terminal.tmux(&["new-session", "-d", "-x", "80", "-y", "24", shell])?;
        Ok(terminal)
    }

    fn tmux(&self, arguments: &[&str]) -> Result<String> {
        let socket = format!("{LAB_DIR}/tmux");
        let mut command = self.0.router.command("tmux");
        command.args(["-S", &socket, "-f", "/dev/null"]).args(arguments);
        let output = command.output().context("tmux")?;
        ensure!(output.status.success(), "tmux {arguments:?}: {}", said(&output));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn screen(&self) -> Result<String> {
        self.tmux(&["capture-pane", "-p"])
    }

    /// Presses keys, in tmux's words.
    fn press(&self, keys: &[&str]) -> Result<()> {
        self.tmux(&[&["send-keys"], keys].concat()).map(drop)
    }

    /// Gives the shell a line.
    fn type_line(&self, line: &str) -> Result<()> {
        self.tmux(&["send-keys", "-l", line])?;
        self.press(&["Enter"])
    }

    /// Waits until the screen shows that.
    fn await_text(&self, text: &str) -> Result<String> {
        self.await_that(text, |screen| screen.contains(text))
    }

    fn await_that(&self, what: &str, is: impl Fn(&str) -> bool) -> Result<String> {
        let begun = Instant::now();
        loop {
            let screen = self.screen()?;
            if is(&screen) {
                return Ok(screen);
            }
            if begun.elapsed() > SOON {
                bail!("no {what:?} within {SOON:?} on this screen:\n{screen}");
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The process that the shell has started.
    fn child(&self) -> Result<Pid> {
        let shell = self.descend(self.tmux(&["display-message", "-p", "#{pane_pid}"])?.trim())?;
        Ok(Pid::from_raw(self.descend(&shell)?.parse()?))
    }

    fn descend(&self, pid: &str) -> Result<String> {
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let first = children.split_whitespace().next();
        Ok(first.with_context(|| format!("{pid} has no child"))?.to_owned())
    }

    /// The shell says that the last command ended with 0, and the terminal is as it was.
    fn expect_restored(&self, how: &str) -> Result<()> {
        // As long as it is there it may read what is typed for the shell.
        let begun = Instant::now();
        while self.child().is_ok() {
            ensure!(begun.elapsed() < SOON, "{how}: it does not end within {SOON:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
        self.type_line("echo \"status $?, $(stty -g | cmp - /run/lab/modes && echo same modes)\"")?;
        let screen = self.await_text("status 0, same modes").context(how.to_owned())?;
        // The alternate screen is left: what was there before is there again.
        ensure!(screen.contains("ready:"), "{how}:\n{screen}");
        ensure!(
            !screen.contains("UPLINK STATE"),
            "{how}: the picture stays:\n{screen}"
        );
        let cursor = self.tmux(&["display-message", "-p", "#{cursor_flag} #{alternate_on}"])?;
        ensure!(
            cursor.trim() == "1 0",
            "{how}: cursor and alternate screen: {cursor}"
        );
        Ok(())
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        let _ = self.tmux(&["kill-server"]);
    }
}

/// Keys drain and enable, refusals are shown, sizes change, jobs stop, daemons go and come; and the
/// terminal is given back.
pub fn in_a_terminal() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = daemon(&lab, "")?;
    let terminal = Terminal::open(&lab)?;
    let top = format!("{} top", binary()?.display());
    terminal.type_line("stty -g > /run/lab/modes")?;
    terminal.type_line(&top)?;
    terminal.await_text("2 of 2 uplinks up")?;
    orders(&terminal, &daemon)?;
    sizes(&terminal)?;
    job_control(&terminal)?;
    stays_small(&terminal)?;
    daemon.stop()?;
    terminal.await_text("daemon gone since")?;
    let daemon = Daemon::restart(&lab)?;
    terminal.await_text("of 2 uplinks up")?;
    terminal.press(&["q"])?;
    terminal.expect_restored("after q")?;
    for signal in [Signal::SIGTERM, Signal::SIGHUP, Signal::SIGINT] {
        terminal.type_line(&format!("clear; {top}"))?;
        terminal.await_text("UPLINK STATE")?;
        kill(terminal.child()?, signal)?;
        terminal.expect_restored(&format!("after {signal}"))?;
    }
    daemon.stop()
}

fn orders(terminal: &Terminal<'_>, daemon: &Daemon<'_>) -> Result<()> {
    terminal.press(&["j", "d"])?;
    terminal.await_text("drain isp2? y/n")?;
    terminal.press(&["n"])?;
    terminal.await_text("isp2 is not drained")?;
    ensure!(daemon.uplinks()?[1].0 == "up", "it was not confirmed");
    terminal.press(&["d", "y"])?;
    daemon.await_state(Isp::Two, "draining", SOON)?;
    terminal.await_text("1 draining")?;
    terminal.press(&["k", "d", "y"])?;
    terminal.await_text("! isp1 is the only uplink left")?;
    terminal.press(&["j", "e"])?;
    daemon.await_state(Isp::Two, "up", SOON)?;
    terminal.await_text("2 of 2 uplinks up").map(drop)
}

/// What changes is drawn, and no more: it is usable over slow links.
fn stays_small(terminal: &Terminal<'_>) -> Result<()> {
    let drawn = format!("{LAB_DIR}/drawn");
    terminal.tmux(&["pipe-pane", &format!("cat > {drawn}")])?;
    std::thread::sleep(Duration::from_secs(4));
    terminal.tmux(&["pipe-pane"])?;
    let bytes = std::fs::metadata(&drawn)?.len();
    println!("    {bytes} bytes drawn within 4 s");
    ensure!((40..8000).contains(&bytes), "{bytes} bytes within 4 s");
    Ok(())
}

/// At once, not with the next answer.
fn sizes(terminal: &Terminal<'_>) -> Result<()> {
    let resize = |x: &str, y: &str| terminal.tmux(&["resize-window", "-x", x, "-y", y]);
    // Any key takes away what was told last.
    terminal.press(&["j"])?;
    resize("40", "10")?;
    let quick = Instant::now();
    // The clock is at the new right edge.
    terminal.await_that("the small picture", |s| {
        s.lines()
            .next()
            .is_some_and(|l| l.trim_end().get(34..35) == Some(":"))
    })?;
    println!("    resized after {:?}", quick.elapsed());
    resize("10", "3")?;
    terminal.await_text("2/2 up")?;
    resize("120", "40")?;
    terminal.await_that("two columns", |s| {
        s.lines().any(|l| l.contains("isp2 up") && l.contains("Events"))
    })?;
    resize("80", "24").map(drop)
}

fn job_control(terminal: &Terminal<'_>) -> Result<()> {
    terminal.press(&["C-z"])?;
    terminal.await_text("Stopped")?;
    terminal.type_line("stty -g | cmp - /run/lab/modes && echo modes while stopped")?;
    terminal.await_that("the shell's modes", |s| {
        s.lines().any(|l| l == "modes while stopped")
    })?;
    terminal.type_line("fg")?;
    terminal.await_text("2 of 2 uplinks up").map(drop)
}

/// Without a terminal it says what to use.
pub fn without_terminal() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let output = run(&lab, &["top"])?;
    ensure!(output.status.code() == Some(1), "{}", said(&output));
    ensure!(
        said(&output).contains("`uplink status --watch`"),
        "{}",
        said(&output)
    );
    ensure!(output.stdout.is_empty(), "no codes to what is no terminal");
    let wrong = run(&lab, &["top", "--interval", "1ms"])?;
    ensure!(wrong.status.code() == Some(2), "{}", said(&wrong));
    ensure!(said(&wrong).contains("200ms to 1h"), "{}", said(&wrong));
    Ok(())
}

/// Shells read the completions, groff the pages, without complaint.
pub fn pages() -> Result<()> {
    let program = binary()?;
    let quiet = |what: &str, output: &Output| {
        let silent = output.status.success() && output.stderr.is_empty();
        ensure!(silent, "{what}: {}", said(output));
        Ok(())
    };
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let output = Command::new(&program).args(["completions", shell]).output()?;
        quiet(shell, &output)?;
        ensure!(
            String::from_utf8_lossy(&output.stdout).contains("drain"),
            "{shell}"
        );
        std::fs::write(format!("{LAB_DIR}/{shell}"), &output.stdout)?;
    }
    quiet(
        "bash -n",
        &Command::new("bash")
            .args(["-n", &format!("{LAB_DIR}/bash")])
            .output()?,
    )?;
    let man = format!("{LAB_DIR}/man");
    quiet(
        "man",
        &Command::new(&program)
            .args(["man", "--dir", &man])
            .stdin(Stdio::null())
            .output()?,
    )?;
    let mut count = 0;
    for page in std::fs::read_dir(&man)? {
        let page = page?.path();
        let mut groff = Command::new("groff");
        groff.args(["-man", "-Tutf8", "-ww", "-z"]).arg(&page);
        quiet(&page.display().to_string(), &groff.output()?)?;
        count += 1;
    }
    println!("    {count} pages");
    ensure!(
        std::fs::exists(format!("{man}/uplink.toml.5"))?,
        "no page about the file"
    );
    ensure!(count > 10, "{count} pages");
    Ok(())
}
