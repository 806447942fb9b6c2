//! Programs, good and bad.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::*;
use crate::probe::kinds::tests::{LONG, SHORT, way};
use crate::probe::kinds::{Prepared, ask};

fn any() -> Target {
    Target {
        address: std::net::Ipv4Addr::UNSPECIFIED.into(),
        port: 0,
    }
}

fn shell(script: &str) -> Prepared {
    let command = ["/bin/sh", "-c", script].map(str::to_owned);
    Prepared::Exec(Program::new(&command).unwrap())
}

async fn run(script: &str, timeout: Duration) -> Reply {
    ask(&shell(script), &way(), any(), timeout, &Refused::default()).await
}

/// The number that a script writes into a file.
fn pid_in(file: &Path) -> i32 {
    until(|| fs::read_to_string(file).ok()?.trim().parse().ok())
}

/// What comes true soon; panics when it does not.
fn until<T>(look: impl Fn() -> Option<T>) -> T {
    let began = Instant::now();
    while began.elapsed() < LONG {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("not after {LONG:?}");
}

/// Waits until no process, not even a dead one, has this number.
fn gone(pid: i32) {
    until(|| (!Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
}

#[tokio::test]
async fn the_exit_status_is_the_verdict() {
    assert_eq!(run("exit 0", LONG).await, Reply::Answered);
    assert_eq!(run("exit 1", LONG).await, Reply::Lost);
    assert_eq!(run("kill -9 $$", LONG).await, Reply::Lost);
}

#[tokio::test]
async fn the_environment_is_what_we_say_and_nothing_else() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("environment");
    let script = format!("tr '\\0' '\\n' < /proc/$$/environ > {}", file.display());
    let way = Way {
        environment: vec![("UPLINK_NAME".into(), "fibre".into())],
        ..way()
    };
    let target = Target {
        address: std::net::Ipv4Addr::new(192, 0, 2, 1).into(),
        port: 0,
    };
    let reply = ask(&shell(&script), &way, target, LONG, &Refused::default()).await;
    assert_eq!(reply, Reply::Answered);
    let text = fs::read_to_string(file).unwrap();
    let mut entries: Vec<_> = text
        .lines()
        .filter(|entry| !entry.starts_with("UPLINK_EXEC="))
        .collect();
    entries.sort_unstable();
    let path = format!("PATH={PATH}");
    assert_eq!(
        entries,
        [path.as_str(), "UPLINK_NAME=fibre", "UPLINK_TARGET=192.0.2.1"]
    );
}

#[tokio::test]
async fn without_a_target_none_is_named() {
    assert_eq!(
        run("test -z \"${UPLINK_TARGET+named}\"", LONG).await,
        Reply::Answered
    );
}

#[tokio::test]
async fn it_has_a_session_limits_and_no_terminal() {
    let session = "read -r _ _ _ _ group session _ < /proc/$$/stat; test $group = $$ -a $session = $$";
    assert_eq!(run(session, LONG).await, Reply::Answered);
    let limits = "test $(ulimit -n) = 256 -a $(ulimit -c) = 0 -a $(ulimit -f) = 131072";
    assert_eq!(run(limits, LONG).await, Reply::Answered);
    let null = "for n in 0 1 2; do test /proc/$$/fd/$n -ef /dev/null || exit 1; done";
    assert_eq!(run(null, LONG).await, Reply::Answered);
}

#[tokio::test]
async fn one_that_hangs_is_killed_at_the_timeout_with_its_group() {
    let directory = tempfile::tempdir().unwrap();
    let (leader, member) = (directory.path().join("leader"), directory.path().join("member"));
    let (l, m) = (leader.display(), member.display());
    let script = format!("trap '' TERM INT HUP; echo $$ > {l}; sleep 1000 & echo $! > {m}; wait");
    let began = Instant::now();
    assert_eq!(run(&script, SHORT).await, Reply::Lost);
    assert!(began.elapsed() >= SHORT);
    gone(pid_in(&leader));
    gone(pid_in(&member));
}

#[tokio::test]
async fn what_it_leaves_behind_is_killed_and_reaped() {
    let directory = tempfile::tempdir().unwrap();
    let daemon = |how: &str, name: &str| {
        let file = directory.path().join(name);
        let script = format!("{how} sh -c 'echo $$ > {}; sleep 1000' &", file.display());
        let wait = format!("while ! test -s {}; do sleep 0.01; done", file.display());
        (format!("{script}\n{wait}"), file)
    };
    // Each escapes by one means more: the group's leader, the session, the parent.
    for (how, name) in [
        ("", "group"),
        ("env -i PATH=$PATH", "nameless"),
        ("setsid", "session"),
    ] {
        let (script, file) = daemon(how, name);
        assert_eq!(run(&script, LONG).await, Reply::Answered, "{how}");
        gone(pid_in(&file));
    }
    let (script, file) = daemon("setsid setsid -f", "daemon");
    assert_eq!(run(&script, LONG).await, Reply::Answered);
    gone(pid_in(&file));
}

/// Ends with the test, passed or failed.
struct Own(std::process::Child);

impl Drop for Own {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn quiet(program: &str) -> std::process::Command {
    let mut command = std::process::Command::new(program);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

#[tokio::test]
async fn children_of_the_daemon_itself_are_left_alone() {
    let mut own = Own(quiet("sleep").arg("1000").spawn().unwrap());
    let mut dead = quiet("true").spawn().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pid");
    assert_eq!(
        run(&format!("echo $$ > {}", file.display()), LONG).await,
        Reply::Answered
    );
    gone(pid_in(&file));
    assert_eq!(own.0.try_wait().unwrap(), None, "still running");
    assert!(dead.wait().expect("not reaped by others").success());
}

#[tokio::test]
async fn one_that_prints_without_end_is_killed_at_the_timeout() {
    let began = Instant::now();
    assert_eq!(run("while :; do echo and so on; done", SHORT).await, Reply::Lost);
    assert!(began.elapsed() >= SHORT);
}

#[tokio::test]
async fn one_that_is_missing_is_lost_and_counted() {
    let program = Prepared::Exec(Program::new(&["/nowhere/probe".to_owned()]).unwrap());
    for count in 1..=2 {
        let refused = Refused::default();
        let reply = ask(&program, &way(), any(), LONG, &refused).await;
        assert_eq!(
            reply,
            Reply::Lost,
            "run {count}: a failed start gives its turn back"
        );
        assert_eq!(refused.counts()["exec-start"], 1);
    }
}

#[tokio::test]
async fn one_at_a_time_by_command_uplink_and_target() {
    let (program, refused) = (shell("sleep 1000 # one at a time"), Refused::default());
    let (way, other) = (way(), Way { mark: 1, ..way() });
    let first = ask(&program, &way, any(), SHORT, &refused);
    let second = async {
        tokio::task::yield_now().await;
        ask(&program, &way, any(), SHORT, &refused).await
    };
    let elsewhere = ask(&program, &other, any(), SHORT, &refused);
    let replies = tokio::join!(first, second, elsewhere);
    assert_eq!(replies, (Reply::Lost, Reply::Skipped, Reply::Lost));
}

#[tokio::test]
async fn dropping_the_probe_kills_the_program() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pid");
    let program = shell(&format!("echo $$ > {}; sleep 1000", file.display()));
    let (way, refused) = (way(), Refused::default());
    let started = async {
        while !fs::read_to_string(&file).is_ok_and(|text| text.ends_with('\n')) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        reply = ask(&program, &way, any(), LONG, &refused) => panic!("{reply:?} too early"),
        () = started => {}
    }
    gone(pid_in(&file));
}

#[test]
fn commands_that_cannot_be_run_are_refused() {
    assert!(Program::new(&[]).is_err());
    let failure = Program::new(&["probe.sh".to_owned()]).unwrap_err().to_string();
    assert!(failure.contains("\"probe.sh\""), "{failure}");
}
