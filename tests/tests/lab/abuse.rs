//! Those who wear the daemon out: strangers, crowds and full disks. It steers on and answers others.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MsFlags, mount};
use uplink_lab::daemon::{log_tail, run, said};
use uplink_lab::traffic::{Ongoing, udp_flows};
use uplink_lab::{Daemon, Family, Isp, Lab, Shape};

use crate::crowd::{Crowd, Kind};
use crate::support::{daemon, lab, pause};

pub const SOCKET: &str = "/run/uplink/uplink.sock";
const SECOND: Duration = Duration::from_secs(1);
const STRANGER: u32 = 65534;

/// Users that are not root's group may not even connect, and hear why where they can.
pub fn strangers() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = daemon(&lab, "")?;
    let owners = std::os::unix::fs::MetadataExt::gid(&Path::new(SOCKET).metadata()?);
    let denied = as_stranger(vec![], "Status");
    ensure!(
        denied
            .as_ref()
            .is_err_and(|e| e.kind() == ErrorKind::PermissionDenied),
        "the socket's mode lets anybody in: {denied:?}"
    );
    let member = as_stranger(vec![owners], "Status")?;
    ensure!(
        member.contains("\"uplinks\""),
        "a member of the group hears {member}"
    );
    std::fs::set_permissions(SOCKET, std::fs::Permissions::from_mode(0o666))?;
    for method in [
        "Status", "Events", "Flows", "Drain", "Enable", "Reload", "Nonsense",
    ] {
        let answer = as_stranger(vec![], method)?;
        ensure!(
            answer.contains("org.uplink.PermissionDenied"),
            "{method}: {answer}"
        );
    }
    println!("    {}", as_stranger(vec![], "Status")?);
    ensure!(
        daemon.status()?["uplinks"][0]["state"] == "up",
        "{:?}",
        daemon.uplinks()?
    );
    daemon.stop()
}

/// Asks as somebody else, who is in these groups.
fn as_stranger(groups: Vec<u32>, method: &'static str) -> std::io::Result<String> {
    let asking = std::thread::spawn(move || {
        become_stranger(&groups)?;
        let mut stream = UnixStream::connect(SOCKET)?;
        stream.set_read_timeout(Some(5 * SECOND))?;
        let call = format!("{{\"method\":\"org.uplink.{method}\",\"parameters\":{{\"name\":\"isp1\"}}}}\0");
        let call = if method == "Status" {
            call.replace("\"name\":\"isp1\"", "")
        } else {
            call
        };
        stream.write_all(call.as_bytes())?;
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    });
    asking.join().map_err(|_| std::io::Error::other("a panic"))?
}

/// This thread alone: the system calls know nothing of the others.
fn become_stranger(groups: &[u32]) -> std::io::Result<()> {
    let id = libc::c_long::from(STRANGER);
    // SAFETY: the pointer is to `groups.len()` numbers; the other calls take numbers alone.
    let results = unsafe {
        [
            libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()),
            libc::syscall(libc::SYS_setresgid, id, id, id),
            libc::syscall(libc::SYS_setresuid, id, id, id),
        ]
    };
    match results {
        [0, 0, 0] => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// A thousand clients of root's that are silent, slow or without end.
pub fn crowd() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = daemon(&lab, "")?;
    let crowd = Crowd::gather(&[Kind::Silent, Kind::Slow, Kind::Huge], || Ok(()))?;
    let result = steers_and_answers(&lab, &daemon);
    println!("    {}", crowd.leave(1000)?);
    result?;
    daemon.stop()
}

/// A thousand clients of a user who may ask: they do so without end, and half of them never take an answer.
pub fn members() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = daemon(&lab, "")?;
    let owners = std::os::unix::fs::MetadataExt::gid(&Path::new(SOCKET).metadata()?);
    let crowd = Crowd::gather(&[Kind::Deaf, Kind::Curious], move || become_stranger(&[owners]))?;
    let result = steers_and_answers(&lab, &daemon);
    println!("    {}", crowd.leave(1000)?);
    result?;
    daemon.stop()
}

fn steers_and_answers(lab: &Lab, daemon: &Daemon<'_>) -> Result<()> {
    let mut worst = Duration::ZERO;
    for _ in 0..20 {
        let begun = Instant::now();
        let output = run(lab, &["status"])?;
        ensure!(output.status.success(), "status: {}", said(&output));
        worst = worst.max(begun.elapsed());
        pause(0.05);
    }
    println!("    the slowest of 20 `status`: {worst:?}");
    ensure!(worst < SECOND, "status takes {worst:?}");
    let tally = udp_flows(lab, 300, Family::V4)?;
    ensure!(tally.clean() == 300, "new flows meanwhile: {tally:?}");
    fails_over(lab, daemon)
}

fn fails_over(lab: &Lab, daemon: &Daemon<'_>) -> Result<()> {
    let pulse = Ongoing::new_flows(lab, Family::V4, Duration::from_millis(10))?;
    pause(0.5);
    let fault = Instant::now();
    lab.blackhole(Isp::One)?;
    daemon.await_state(Isp::One, "down", 10 * SECOND)?;
    pause(1.0);
    let back = pulse
        .stop()?
        .recovered_after(fault)
        .context("new flows stay dead")?;
    println!("    failover in {back:?}");
    ensure!(back < 3 * SECOND, "failover takes {back:?}");
    Ok(())
}

/// Nothing can be written any more: what needs it is refused, the rest goes on.
pub fn full_disk() -> Result<()> {
    let (lab, _echo) = lab(Shape::OneNic)?;
    std::fs::create_dir_all("/run/uplink")?;
    let tiny = Some("mode=0755,size=64k");
    mount(
        Some("tmpfs"),
        "/run/uplink",
        Some("tmpfs"),
        MsFlags::empty(),
        tiny,
    )?;
    let daemon = daemon(&lab, "")?;
    fill(Path::new("/run/uplink/ballast"))?;
    for (arguments, says) in [
        (
            &["drain", "isp2"][..],
            "isp2 is not drained, since a restart would forget it",
        ),
        (&["reload"][..], "state.json"),
    ] {
        let output = run(&lab, arguments)?;
        let said = said(&output);
        println!("    {arguments:?}: {said}");
        ensure!(!output.status.success(), "{arguments:?} on a full disk: {said}");
        ensure!(
            said.contains(says) && said.contains("No space left"),
            "{arguments:?}: {said}"
        );
    }
    ensure!(
        daemon.uplinks()?[1] == ("up".into(), 0.25),
        "{:?}",
        daemon.uplinks()?
    );
    let tally = udp_flows(&lab, 300, Family::V4)?;
    ensure!(tally.clean() == 300, "new flows: {tally:?}");
    fails_over(&lab, &daemon)?;
    std::fs::remove_file("/run/uplink/ballast")?;
    for arguments in [&["drain", "isp1"][..], &["reload"][..]] {
        let output = run(&lab, arguments)?;
        ensure!(
            output.status.success(),
            "with room again: {}\n{}",
            said(&output),
            log_tail()
        );
    }
    daemon.stop()
}

fn fill(path: &Path) -> Result<()> {
    let mut file = std::fs::File::create(path)?;
    while let Ok(n) = file.write(&[0; 4096])
        && n > 0
    {}
    Ok(())
}
