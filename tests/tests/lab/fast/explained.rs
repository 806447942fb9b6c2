//! `uplink explain` knows what the fast path knows.

use std::net::{SocketAddr, UdpSocket};

use anyhow::{Context, Result, ensure};
use uplink_lab::daemon::{run, said};
use uplink_lab::topology::elsewhere;
use uplink_lab::{Family, Lab, Shape};

use super::{daemon, wired};
use crate::explain::ask;
use crate::pair::{udp_client, udp_server};
use crate::support::pause;

const PORT: u16 = 7650;

/// A flow nobody answers, one that was answered, and one that is to be learned anew.
pub fn explained() -> Result<()> {
    let (lab, _echo, _ends) = wired(Shape::OneNic)?;
    let daemon = daemon(&lab, "")?;
    for family in Family::ALL {
        let server = udp_server(&lab, SocketAddr::new(elsewhere(family, 1), PORT))?;
        let client = udp_client(&lab, family, 0, server.local_addr()?)?;
        for _ in 0..2 {
            client.send(b"there")?;
            server.recv_from(&mut [0; 5])?;
        }
        expect(&lab, [&client, &server], "pinned", Some("no answer was seen yet"))?;
        for _ in 0..4 {
            client.send(b"there")?;
            let (_, from) = server.recv_from(&mut [0; 5])?;
            server.send_to(b"and back", from)?;
            client.recv(&mut [0; 8])?;
        }
        expect(&lab, [&client, &server], "fast", Some("sent on by the driver"))?;
        let reloaded = run(&lab, &["reload"])?;
        ensure!(reloaded.status.success(), "reload: {}", said(&reloaded));
        // What it changed in the kernel is told to the daemon afterwards, and makes void what is learned until then.
        pause(0.3);
        expect(&lab, [&client, &server], "pinned", None)?;
    }
    daemon.stop()
}

/// What is said of the flow between them: the reason, and words of the note about the fast path, if there is to be one.
fn expect(lab: &Lab, ends: [&UdpSocket; 2], reason: &str, words: Option<&str>) -> Result<()> {
    let [from, to] = [
        ends[0].local_addr()?.to_string(),
        ends[1].local_addr()?.to_string(),
    ];
    let answer = ask(lab, &[], [&from, &to])?;
    let notes = answer["notes"].as_array().context("no notes")?;
    let mut notes = notes.iter().filter_map(|note| note.as_str());
    let note = notes.find(|note| note.starts_with("fast path: "));
    println!("    {from} to {to}: {}, {note:?}", answer["reason"]);
    let right = match words {
        Some(words) => note.is_some_and(|note| note.contains(words)),
        None => note.is_none(),
    };
    ensure!(
        answer["reason"] == reason && right,
        "{from} to {to}: {reason}, {words:?} expected: {answer:#}"
    );
    Ok(())
}
