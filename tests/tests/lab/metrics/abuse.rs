//! Clients that mean ill, or break: the daemon steers on and answers others.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use uplink_lab::traffic::udp_flows;
use uplink_lab::{Family, Lab, Shape};

use super::http::{ADDRESS, SECTION, ask, connect, get, json};
use crate::support::{daemon, lab, pause};

const SILENT: usize = 1_000;
const SECOND: Duration = Duration::from_secs(1);

pub fn abuse() -> Result<()> {
    more_descriptors()?;
    let (lab, _echo) = lab(Shape::OneNic)?;
    let daemon = daemon(&lab, SECTION)?;
    refusals(&lab)?;
    silent_crowd(&lab)?;
    huge_requests(&lab)?;
    crowd_that_asks(&lab)?;
    slow_header(&lab)?;
    daemon.await_up()?;
    ensure!(get(&lab, "/metrics")?.status == 200, "a scrape at the end");
    daemon.stop()
}

/// The test has a thousand connections open, too.
fn more_descriptors() -> Result<()> {
    let pid = std::process::id().to_string();
    let mut prlimit = Command::new("prlimit");
    let status = prlimit.args(["--pid", &pid, "--nofile=4096"]).status();
    ensure!(status.context("prlimit")?.success(), "prlimit failed");
    Ok(())
}

fn refusals(lab: &Lab) -> Result<()> {
    for (method, path, status) in [
        ("GET", "/nothing", 404),
        ("POST", "/metrics", 405),
        ("DELETE", "/", 405),
        ("GET", "/events.json?after=x", 400),
        ("GET", "/", 200),
    ] {
        let response = ask(lab, ADDRESS, method, path)?;
        ensure!(
            response.status == status,
            "{method} {path} is not {status}: {response:?}"
        );
    }
    let head = ask(lab, ADDRESS, "HEAD", "/metrics")?;
    ensure!(
        head.status == 200 && head.body.is_empty(),
        "HEAD has a body: {head:?}"
    );
    let page = get(lab, "/")?;
    ensure!(
        page.header
            .contains("content-security-policy: default-src 'none';"),
        "{page:?}"
    );
    let status = json(lab, "/status.json")?;
    ensure!(status["uplinks"][0]["name"] == "isp1", "{status}");
    let events = json(lab, "/events.json")?;
    ensure!(
        events["events"][0]["kind"] == "state" || events["events"][0]["kind"] == "start",
        "{events}"
    );
    let history = json(lab, "/history.json")?;
    ensure!(history["uplinks"][1]["name"] == "isp2", "{history}");
    Ok(())
}

/// They take every place there is, and lose it to whoever asks.
fn silent_crowd(lab: &Lab) -> Result<()> {
    let crowd = (0..SILENT).map(|_| connect(lab, ADDRESS));
    let crowd: Vec<TcpStream> = crowd.collect::<Result<_>>()?;
    let begun = Instant::now();
    let scrape = get(lab, "/metrics")?;
    let took = begun.elapsed();
    ensure!(
        scrape.status == 200 && took < SECOND,
        "a scrape took {took:?}: {}",
        scrape.status
    );
    let tally = udp_flows(lab, 300, Family::V4)?;
    ensure!(tally.clean() == 300, "not steered meanwhile: {tally:?}");
    println!("    a scrape among {SILENT} silent clients: {took:?}");
    pause(6.0);
    for mut silent in crowd {
        silent.set_read_timeout(Some(SECOND))?;
        // The end, or a reset, or what HTTP has for that.
        match silent.read(&mut [0; 512]) {
            Ok(_) => {}
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => {}
            Err(e) => return Err(e).context("a silent client is still connected after 6 s"),
        }
    }
    Ok(())
}

/// A request line, and a header, without an end.
fn huge_requests(lab: &Lab) -> Result<()> {
    for begin in ["GET /", "GET / HTTP/1.1\r\nX: "] {
        let mut stream = connect(lab, ADDRESS)?;
        stream.write_all(begin.as_bytes())?;
        let junk = [b'a'; 64 * 1024];
        let mut sent = 0;
        while stream.write_all(&junk).is_ok() {
            sent += junk.len();
            ensure!(sent < 64 << 20, "{sent} bytes of a request were taken");
        }
        println!("    refused after at most {} KiB", (sent >> 10) + 64);
    }
    let fields: String = (0..500).map(|n| format!("X{n}: y\r\n")).collect();
    let mut stream = connect(lab, ADDRESS)?;
    write!(stream, "GET / HTTP/1.1\r\n{fields}\r\n")?;
    let status = super::http::read(stream).map_or(431, |r| r.status);
    ensure!(status == 431, "500 fields: {status}");
    Ok(())
}

/// Two hundred at one time: each has its answer.
fn crowd_that_asks(lab: &Lab) -> Result<()> {
    let begun = Instant::now();
    let mut crowd = Vec::new();
    for _ in 0..200 {
        let mut stream = connect(lab, ADDRESS)?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: r\r\n\r\n")?;
        crowd.push(stream);
    }
    for stream in crowd {
        let response = super::http::read(stream)?;
        ensure!(
            response.status == 200 && response.body.ends_with("# EOF\n"),
            "{response:?}"
        );
    }
    println!("    200 scrapes at one time: {:?}", begun.elapsed());
    Ok(())
}

/// A byte every fifth of a second holds no place for longer than others.
fn slow_header(lab: &Lab) -> Result<()> {
    let mut stream = connect(lab, ADDRESS)?;
    let begun = Instant::now();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nX: ")?;
    while stream.write_all(b"a").is_ok() {
        ensure!(
            begun.elapsed() < 8 * SECOND,
            "a slow header is still read after 8 s"
        );
        pause(0.2);
    }
    println!("    a slow header was given up after {:?}", begun.elapsed());
    Ok(())
}
