//! Resolvers as people run them (dnsmasq, unbound), with a zone of ours, and a client that asks them.

mod client;
mod tricks;
mod zone;

pub use client::{Answer, Way, ask, lookup, resolve};
pub use tricks::{Trick, Trickster};
pub use zone::Zone;

use std::fs::File;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::isolate::LAB_DIR;
use crate::ns::Namespace;
use crate::traffic::any;

/// The port of DNS.
pub const PORT: u16 = 53;

/// Whose resolver.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Program {
    /// The one in most home routers.
    Dnsmasq,
    /// One that resolves by itself.
    Unbound,
}

impl Program {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Dnsmasq, Self::Unbound];
}

/// A resolver, running until dropped.
#[derive(Debug)]
pub struct Resolver {
    process: Child,
}

impl Resolver {
    /// Starts one in `ns` at these addresses, which knows `zone` and nothing else.
    ///
    /// # Errors
    /// When it does not start, or does not answer within some seconds.
    pub fn start(program: Program, ns: &Namespace, at: &[IpAddr], zone: &Zone) -> Result<Self> {
        let command = match program {
            Program::Dnsmasq => dnsmasq(ns, at, &[&zone.dnsmasq(&file("hosts"))?])?,
            Program::Unbound => unbound(ns, at, &file("zone"), zone)?,
        };
        Self::run(command, ns, at)
    }

    /// Starts a dnsmasq in `ns` at `at`, which asks `server` whatever it is asked and keeps nothing, as every
    /// name is asked for once here.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn forwarder(ns: &Namespace, at: IpAddr, server: IpAddr) -> Result<Self> {
        let server = format!("server={server}\ncache-size=0\ndns-forward-max=1000\n");
        Self::run(dnsmasq(ns, &[at], &[&server])?, ns, &[at])
    }

    fn run(mut command: Command, ns: &Namespace, at: &[IpAddr]) -> Result<Self> {
        let log = File::create(file("log"))?;
        command.stdout(log.try_clone()?).stderr(log);
        let process = command.spawn().with_context(|| {
            format!(
                "{command:?}: `cargo xtask test` installs dnsmasq-base and unbound where they are missing"
            )
        })?;
        let mut resolver = Self { process };
        at.iter().try_for_each(|at| resolver.await_answer(ns, *at))?;
        Ok(resolver)
    }

    fn await_answer(&mut self, ns: &Namespace, at: IpAddr) -> Result<()> {
        let begun = Instant::now();
        while !ns.enter(|| answers(SocketAddr::new(at, PORT)))? {
            let ended = self.process.try_wait()?;
            ensure!(ended.is_none(), "the resolver at {at} ended at once: {ended:?}");
            ensure!(
                begun.elapsed() < Duration::from_secs(5),
                "the resolver at {at} does not answer"
            );
        }
        Ok(())
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Whether anybody answers within a moment.
fn answers(server: SocketAddr) -> bool {
    let ask = || -> Result<()> {
        let socket = UdpSocket::bind((any(server.ip()), 0))?;
        socket.connect(server)?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        socket.send(&client::query(1, "ready.invalid", 1, None)?)?;
        Ok(socket.recv(&mut [0; 512]).map(drop)?)
    };
    let answers = ask().is_ok();
    if !answers {
        std::thread::sleep(Duration::from_millis(10));
    }
    answers
}

/// A file that nobody else has.
fn file(what: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{LAB_DIR}/{what}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

fn dnsmasq(ns: &Namespace, at: &[IpAddr], settings: &[&str]) -> Result<Command> {
    let listen = at.iter().map(|at| format!("listen-address={at}\n"));
    let path = file("dnsmasq");
    std::fs::write(&path, listen.collect::<String>() + &settings.concat())?;
    let mut command = ns.command("dnsmasq");
    command
        .arg(format!("--conf-file={path}"))
        .args([
            "--keep-in-foreground",
            "--pid-file=",
            "--user=root",
            "--log-facility=-",
        ])
        .args(["--bind-interfaces", "--no-resolv", "--no-hosts"]);
    Ok(command)
}

fn unbound(ns: &Namespace, at: &[IpAddr], zone_file: &str, zone: &Zone) -> Result<Command> {
    std::fs::write(zone_file, zone.master())?;
    let listen = at.iter().map(|at| format!("  interface: {at}\n"));
    // By `for-upstream` the zone is what its iterator finds on the Internet, cached and put together as usual.
    // Newer ones than Debian 12's send no larger answers by UDP by default.
    let text = format!(
        "server:\n{}  access-control: 0.0.0.0/0 allow\n  access-control: ::/0 allow\n  username: \"\"\n  \
         chroot: \"\"\n  directory: \"{LAB_DIR}\"\n  pidfile: \"\"\n  use-syslog: no\n  do-daemonize: no\n  \
         max-udp-size: 1232\n  module-config: \"iterator\"\nremote-control:\n  control-enable: no\nauth-zone:\n  name: \"{}.\"\n  \
         zonefile: \"{zone_file}\"\n  for-downstream: no\n  for-upstream: yes\n  fallback-enabled: no\n",
        listen.collect::<String>(),
        zone.name,
    );
    let path = file("unbound");
    std::fs::write(&path, text)?;
    let mut command = ns.command("unbound");
    command.args(["-d", "-p", "-c", &path]);
    Ok(command)
}
