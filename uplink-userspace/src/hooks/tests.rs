use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::Instant;

fn change(old: State, new: State) -> Change {
    Change {
        name: "isp1".into(),
        old,
        new,
        reason: "no answer".into(),
        interface: "eth0".into(),
        gateway: "192.168.1.1".into(),
        share: 0.75,
        time: "2026-11-23T10:00:00.000Z".into(),
        seq: 7,
    }
}

#[test]
fn the_newest_state_wins_and_follows_what_was_heard_last() {
    let mut waiting = Waiting::default();
    waiting.add(change(State::Down, State::Up));
    assert_eq!(
        (waiting.skipped, waiting.next.clone()),
        (0, Some(change(State::Down, State::Up)))
    );
    waiting.add(change(State::Up, State::Degraded));
    assert_eq!(waiting.next, Some(change(State::Down, State::Degraded)));
    assert_eq!(waiting.skipped, 1);
}

#[test]
fn there_and_back_is_nothing_to_tell() {
    let mut waiting = Waiting::default();
    waiting.add(change(State::Down, State::Up));
    waiting.add(change(State::Up, State::Down));
    assert_eq!((waiting.skipped, waiting.next), (2, None));
}

/// Runs a script of these lines; its result, how long it took, and where it was.
fn run(lines: &str, limit: Duration) -> (Result<(), Failure>, Duration, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = script(&dir, lines);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let begun = Instant::now();
    let result = runtime.unwrap().block_on(async {
        let turn = Arc::new(Semaphore::new(1));
        let environment = change(State::Up, State::Down).environment();
        let program = path.clone();
        run::run_if(move || Ok(program), &path, limit, "isp1", environment, turn).await
    });
    (result, begun.elapsed(), dir)
}

fn script(dir: &tempfile::TempDir, lines: &str) -> PathBuf {
    let path = dir.path().join("hook");
    fs::write(
        &path,
        format!("#!/bin/sh\ncd {}\n{lines}\n", dir.path().display()),
    )
    .unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

const LONG: Duration = Duration::from_secs(20);

#[test]
fn the_environment_is_what_we_say_and_no_more() {
    let (result, _, dir) = run("env > seen", LONG);
    assert_eq!(result, Ok(()));
    let seen = fs::read_to_string(dir.path().join("seen")).unwrap();
    let mut seen: Vec<&str> = seen.lines().filter(|l| l.starts_with("UPLINK_")).collect();
    seen.retain(|l| !l.starts_with("UPLINK_EXEC="));
    seen.sort_unstable();
    assert_eq!(
        seen,
        [
            "UPLINK_GATEWAY=192.168.1.1",
            "UPLINK_INTERFACE=eth0",
            "UPLINK_NAME=isp1",
            "UPLINK_OLD_STATE=up",
            "UPLINK_REASON=no answer",
            "UPLINK_SEQ=7",
            "UPLINK_SHARE=0.75",
            "UPLINK_STATE=down",
            "UPLINK_TIME=2026-11-23T10:00:00.000Z",
        ]
    );
    let all = fs::read_to_string(dir.path().join("seen")).unwrap();
    assert!(!all.contains("HOME=") && !all.contains("CARGO"), "{all}");
}

#[test]
fn failures_are_told_with_the_last_words() {
    let (result, ..) = run("echo first; echo no route >&2; exit 3", LONG);
    let text = result.unwrap_err().text;
    assert!(
        text.ends_with("for isp1 failed with exit status 3; it said: no route"),
        "{text}"
    );
    let (result, ..) = run("kill -9 $$", LONG);
    assert!(result.unwrap_err().text.ends_with("was killed by SIGKILL"));
}

#[test]
fn what_is_no_program_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = script(&dir, "");
    fs::write(&path, "#!/nonexistent/interpreter\n").unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.unwrap().block_on(async {
        let turn = Arc::new(Semaphore::new(1));
        let program = path.clone();
        run::run_if(move || Ok(program), &path, LONG, "isp1", Vec::new(), turn).await
    });
    let failure = result.unwrap_err();
    assert!(
        failure.text.contains("cannot be started: No such file"),
        "{failure:?}"
    );
    assert!(!failure.remedy.is_empty());
}

#[test]
fn one_that_hangs_is_asked_and_then_killed_with_all_its_children() {
    let hanging = "trap 'echo asked > asked' TERM; sleep 1000 & echo $! > child; while :; do sleep 0.1; done";
    let (result, took, dir) = run(hanging, Duration::from_millis(500));
    assert!(
        result
            .unwrap_err()
            .text
            .contains("took longer than 500ms and was killed")
    );
    assert!(
        (Duration::from_millis(500)..Duration::from_secs(5)).contains(&took),
        "{took:?}"
    );
    assert_eq!(fs::read_to_string(dir.path().join("asked")).unwrap(), "asked\n");
    assert_dies(&dir);
}

#[test]
fn children_that_hold_the_output_are_not_waited_for() {
    let (result, took, dir) = run("sleep 1000 & echo $! > child", LONG);
    assert!(result.unwrap_err().text.contains("left others running"));
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_dies(&dir);
}

/// The process whose number the script wrote down is gone soon.
fn assert_dies(dir: &tempfile::TempDir) {
    let pid = fs::read_to_string(dir.path().join("child")).unwrap();
    let process = PathBuf::from(format!("/proc/{}", pid.trim()));
    let begun = Instant::now();
    while process.exists() {
        assert!(begun.elapsed() < Duration::from_secs(5), "{pid} lives");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn who_writes_without_end_waits_for_nobody() {
    let (result, took, _dir) = run("head -c 3000000 /dev/zero; echo; echo done", LONG);
    assert_eq!(result, Ok(()));
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn hooks_of_an_uplink_run_one_after_another_and_failures_stand_until_one_succeeds() {
    let dir = tempfile::tempdir().unwrap();
    // Owned by root in a sticky directory, or refused: both are failures that count here.
    let path = script(&dir, "exit 1");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime.unwrap(), async {
        let mut hooks = Hooks::default();
        hooks.tell(change(State::Up, State::Down));
        assert!(hooks.ended().await.is_none(), "nothing is configured");
        hooks.follow(Some(&settings(&path)));
        for (old, new) in [
            (State::Up, State::Down),
            (State::Down, State::Up),
            (State::Up, State::Degraded),
        ] {
            hooks.tell(change(old, new));
        }
        let ended = hooks.ended().await.expect("one runs");
        let told = hooks.note(ended);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[1].starts_with("1 changes of isp1"), "{told:?}");
        let ended = hooks.ended().await.expect("the newest runs");
        assert_eq!(hooks.note(ended).len(), 1);
        assert!(hooks.ended().await.is_none());
        assert_eq!(hooks.failures(), 2);
        assert_eq!(hooks.warning().map(|w| w.code), Some("hook".into()));
    });
}

#[test]
fn how_a_hook_of_other_settings_ends_says_nothing_about_these() {
    let (bad, good) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let bad = script(&bad, "exit 1");
    let good = script(&good, "exit 0");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime.unwrap(), async {
        let mut hooks = Hooks::default();
        for (runs, then, warns) in [(&bad, &good, false), (&bad, &bad, true)] {
            hooks.follow(Some(&settings(runs)));
            hooks.tell(change(State::Up, State::Down));
            hooks.follow(Some(&settings(then)));
            let ended = hooks.ended().await.expect("one runs");
            assert_eq!(hooks.note(ended).len(), 1, "it is told all the same");
            assert_eq!(hooks.warning().is_some(), warns, "{runs:?}, then {then:?}");
        }
    });
}

fn settings(path: &std::path::Path) -> config::Hooks {
    config::Hooks {
        on_change: config::At {
            value: path.into(),
            span: 0..0,
        },
        timeout: Duration::from_secs(10),
    }
}
