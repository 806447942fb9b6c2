//! A program that runs, and the end of everything it has started.

use std::collections::HashSet;
use std::fs;
use std::io::{self, PipeWriter};
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, Once, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{Pid, getsid};
use tokio::io::unix::AsyncFd;

use crate::probe::random;

/// All that a program starts has this in its environment, with a number that is the program's alone.
const BADGE: &str = "UPLINK_EXEC";
/// Where programs are looked for by those that we start.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const OPEN_FILES: libc::rlim_t = 256;
const FILE_SIZE: libc::rlim_t = 64 << 20;
/// Between looks at what does not want to die.
const PATIENCE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_secs(1));

/// A program that runs, or has ended and left others behind. Dropped, it is buried: killed, with
/// all its descendants, and reaped, by a thread of its own.
pub(crate) struct Process(Option<Remains>);

struct Remains {
    child: Child,
    badge: String,
    /// Given back when nothing of it is left.
    _turn: Box<dyn Send>,
}

/// The programs that were started and are not reaped: nobody else may reap them.
static LEADERS: Mutex<Leaders> = Mutex::new(Leaders {
    starting: 0,
    pids: None,
});

struct Leaders {
    /// How many are being started: their pids are not known yet.
    starting: usize,
    pids: Option<HashSet<i32>>,
}

impl Process {
    /// Starts a program. May block where its file is not to be had at once. What it writes goes to
    /// `output`, or nowhere. `turn` is dropped when nothing of the program is left.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(
        command: &[String],
        environment: &[(String, String)],
        output: Option<PipeWriter>,
        turn: impl Send + 'static,
    ) -> io::Result<Self> {
        adopt();
        let nonce = u64::from_ne_bytes(random()?);
        let badge = format!("{BADGE}={nonce:016x}");
        let mut prepared = prepare(command, environment);
        if let Some(output) = output {
            prepared.stdout(output.try_clone()?).stderr(output);
        }
        prepared.env(BADGE, format!("{nonce:016x}"));
        leaders(|l| l.starting += 1);
        let started = prepared.spawn();
        leaders(|l| {
            l.starting -= 1;
            if let Ok(child) = &started {
                l.pids.get_or_insert_default().insert(child.id() as i32);
            }
        });
        started.map(|child| {
            Self(Some(Remains {
                child,
                badge,
                _turn: Box::new(turn),
            }))
        })
    }

    fn pid(&self) -> Pid {
        let remains = self.0.as_ref().expect("taken by drop alone");
        Pid::from_raw(remains.child.id() as i32)
    }

    /// Waits until the program has ended. It is not reaped, so that its number stays its own.
    ///
    /// # Errors
    /// When the kernel has no pidfds (before 5.3), or no descriptor is left.
    pub async fn exited(&self) -> io::Result<()> {
        // SAFETY: takes two numbers, returns a new descriptor or -1.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, self.pid().as_raw(), libc::O_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new, and nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as i32) };
        // SAFETY: an OwnedFd keeps its descriptor open and the same until dropped.
        let fd = unsafe { AsyncFd::register_with_interest(fd, tokio::io::Interest::READABLE) }?;
        let _ = fd.readable().await?;
        Ok(())
    }

    /// Whether the program has exited with status 0.
    ///
    /// # Errors
    /// When it is not our child, which does not happen.
    pub fn succeeded(&self) -> io::Result<bool> {
        Ok(matches!(self.status()?, WaitStatus::Exited(_, 0)))
    }

    /// How the program has ended, if it has.
    ///
    /// # Errors
    /// As [`Self::succeeded`].
    pub fn status(&self) -> io::Result<WaitStatus> {
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
        Ok(waitid(Id::Pid(self.pid()), look)?)
    }

    /// Asks the program, and all of its group, to end.
    pub fn terminate(&self) {
        // The group cannot be another's: its leader is not reaped.
        let _ = killpg(self.pid(), Signal::SIGTERM);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let Some(remains) = self.0.take() else { return };
        remains.kill();
        // Without a thread to be had, what is left is reaped when the daemon ends.
        let _ = thread::Builder::new()
            .name("bury".into())
            .spawn(|| remains.bury());
    }
}

impl Remains {
    fn leader(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// The group cannot be another's: its leader is not reaped.
    fn kill(&self) {
        let _ = killpg(self.leader(), Signal::SIGKILL);
    }

    /// Kills until nothing is left, then reaps the leader. Whoever is killed hands its own
    /// children to us, so one look is not enough.
    fn bury(mut self) {
        let (mut pause, longest) = PATIENCE;
        loop {
            self.kill();
            let dead = has_ended(self.leader());
            let left = self.sweep();
            if dead && !left {
                break;
            }
            thread::sleep(pause);
            pause = (pause * 2).min(longest);
        }
        let _ = self.child.wait();
        let pid = self.leader().as_raw();
        leaders(|l| l.pids.get_or_insert_default().remove(&pid));
    }

    /// Kills what this program has left to us, reaps what is dead of any; whether something of this
    /// one is still there.
    fn sweep(&self) -> bool {
        let mut left = false;
        for process in children().into_iter().filter(|p| p.pid != self.leader()) {
            if process.dead {
                process.reap();
                left |= process.session == self.leader();
            } else if self.owns(&process) {
                let _ = kill(process.pid, Signal::SIGKILL);
                left = true;
            }
        }
        left
    }

    fn owns(&self, process: &Relative) -> bool {
        process.session == self.leader() || process.has(&self.badge)
    }
}

/// A child of ours, by birth or by adoption.
struct Relative {
    pid: Pid,
    session: Pid,
    dead: bool,
}

impl Relative {
    /// `None` where it is gone, or nobody to us.
    fn read(pid: i32, us: i32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (state, parent, session) = parse(&stat)?;
        (parent == us).then_some(Self {
            pid: Pid::from_raw(pid),
            session: Pid::from_raw(session),
            dead: state == 'Z',
        })
    }

    fn has(&self, badge: &str) -> bool {
        let environment = fs::read(format!("/proc/{}/environ", self.pid)).unwrap_or_default();
        environment
            .split(|byte| *byte == 0)
            .any(|entry| entry == badge.as_bytes())
    }

    /// Reaps a dead one, unless somebody waits for it: the daemon's other programs (`nft`) stay in
    /// its session, and leaders are known. Its environment is gone, so it is not asked whose it was.
    fn reap(&self) {
        let ours = getsid(None).is_ok_and(|session| session == self.session);
        let leads = self.session == self.pid;
        let awaited = leaders(|l| {
            let known = l.pids.get_or_insert_default().contains(&self.pid.as_raw());
            known || (leads && l.starting > 0)
        });
        if !ours && !awaited {
            let _ = waitpid(self.pid, Some(WaitPidFlag::WNOHANG));
        }
    }
}

/// State, parent and session of `/proc/PID/stat` (proc_pid_stat(5)). A program's name may have
/// any character, so fields count from its last parenthesis.
fn parse(stat: &str) -> Option<(char, i32, i32)> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    Some((state, parent, session))
}

fn children() -> Vec<Relative> {
    let us = std::process::id() as i32;
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let names = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    names.filter_map(|pid| Relative::read(pid, us)).collect()
}

fn has_ended(pid: Pid) -> bool {
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
    !matches!(waitid(Id::Pid(pid), look), Ok(WaitStatus::StillAlive))
}

fn leaders<T>(change: impl FnOnce(&mut Leaders) -> T) -> T {
    change(&mut LEADERS.lock().unwrap_or_else(PoisonError::into_inner))
}

/// From now on, what a program leaves behind becomes our child, not init's, and can be found.
fn adopt() {
    static ADOPT: Once = Once::new();
    ADOPT.call_once(|| {
        if let Err(failure) = nix::sys::prctl::set_child_subreaper(true) {
            tracing::warn!("what probes' and hooks' programs leave behind stays unnoticed: {failure}");
        }
    });
}

fn prepare(command: &[String], environment: &[(String, String)]) -> Command {
    let mut prepared = Command::new(&command[0]);
    prepared
        .args(&command[1..])
        .current_dir("/")
        .env_clear()
        .envs(environment.iter().cloned());
    prepared
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    // SAFETY: between fork and exec it makes system calls alone, and allocates nothing.
    unsafe { prepared.pre_exec(confine) };
    prepared
}

/// A session and so a group of its own, and limits.
fn confine() -> io::Result<()> {
    nix::unistd::setsid()?;
    limit(libc::RLIMIT_CORE, 0)?;
    limit(libc::RLIMIT_NOFILE, OPEN_FILES)?;
    limit(libc::RLIMIT_FSIZE, FILE_SIZE)
}

fn limit(resource: libc::__rlimit_resource_t, most: libc::rlim_t) -> io::Result<()> {
    let limit = libc::rlimit {
        rlim_cur: most,
        rlim_max: most,
    };
    // SAFETY: reads one rlimit.
    match unsafe { libc::setrlimit(resource, &raw const limit) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_shifts_no_field() {
        assert_eq!(parse("7 (a) Z 1 (b)) S 42 7 9 0"), Some(('S', 42, 9)));
        assert_eq!(parse("7 (a) S 42"), None);
    }
}
