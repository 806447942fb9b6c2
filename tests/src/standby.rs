//! A second router on the lab's wires, and the programs that make a pair of both: Debian's keepalived moves the
//! virtual addresses, its conntrackd copies the connections.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::daemon::program;
use crate::isolate::{BPFFS, LAB_DIR};
use crate::ns::Namespace;
use crate::topology::{Lab, wire};

/// What the pair shares, as keepalived gives it to one of them: the clients' gateway and a source at each ISP.
pub const VIRTUAL: [&str; 3] = ["172.16.0.1/24", "192.168.1.100/24", "10.0.0.100/24"];

/// One of two routers. Its programs end with it.
#[derive(Debug)]
pub struct Router {
    ns: Namespace,
    name: &'static str,
    /// 0 or 1.
    number: u8,
    children: Vec<Child>,
}

impl Router {
    /// Both, with addresses of their own, on the lab's one segment and a wire for conntrackd. No program runs yet.
    ///
    /// # Errors
    /// When a command fails.
    pub fn pair(lab: &Lab) -> Result<[Self; 2]> {
        let second = Namespace::new("router2")?;
        for (key, value) in [
            ("ipv4/conf/all/rp_filter", "0"),
            ("ipv4/conf/default/rp_filter", "0"),
            ("ipv4/ip_forward", "1"),
            ("ipv6/conf/default/disable_ipv6", "1"),
        ] {
            second.sysctl(key, value)?;
        }
        wire(&lab.segment, "router2", &second, "eth0")?;
        lab.segment.ip("link set router2 master br0\n")?;
        wire(&lab.router, "sync0", &second, "sync0")?;
        let router = |ns, name, number| Self {
            ns,
            name,
            number,
            children: Vec::new(),
        };
        let pair = [router(lab.router.try_clone()?, "a", 0), router(second, "b", 1)];
        lab.router.ip("addr flush dev eth0\n")?;
        pair.iter().try_for_each(Self::own_addresses)?;
        Ok(pair)
    }

    fn own_addresses(&self) -> Result<()> {
        let (host, sync) = (101 + self.number, 1 + self.number);
        self.ns.ip(&format!(
            "addr add 172.16.0.{host}/24 dev eth0\naddr add 192.168.1.{host}/24 dev eth0\n\
             addr add 10.0.0.{host}/24 dev eth0\naddr add 192.168.255.{sync}/30 dev sync0\n\
             route replace default via 192.168.1.1\n"
        ))
    }

    /// Its namespace.
    #[must_use]
    pub const fn ns(&self) -> &Namespace {
        &self.ns
    }

    /// `a` or `b`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Starts `uplink run`, on the lab's configuration file.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_uplink(&mut self) -> Result<()> {
        let command = self.uplink(&["run"])?;
        self.launch(command, "uplink")
    }

    /// Starts conntrackd.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_conntrackd(&mut self) -> Result<()> {
        std::fs::write(self.file("conntrackd.conf"), self.conntrackd_conf())?;
        let mut command = self.ns.command("conntrackd");
        command.args(["-C", &self.file("conntrackd.conf")]);
        self.launch(command, "conntrackd")
    }

    /// Starts keepalived.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_keepalived(&mut self) -> Result<()> {
        let script = self.file("notify");
        std::fs::write(&script, self.notify())?;
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755))?;
        std::fs::write(self.file("keepalived.conf"), self.keepalived_conf())?;
        let mut command = self.ns.command("keepalived");
        command.args(["--dont-fork", "--log-console", "--vrrp"]);
        command.args(["--use-file", &self.file("keepalived.conf")]);
        command.args(["--pid", &self.file("keepalived.pid")]);
        command.args(["--vrrp_pid", &self.file("vrrp.pid")]);
        self.launch(command, "keepalived")
    }

    fn launch(&mut self, mut command: Command, program: &str) -> Result<()> {
        let log = File::create(self.file(&format!("{program}.log")))?;
        command.process_group(0).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("start {program}"))?;
        self.children.push(child);
        Ok(())
    }

    /// Runs a subcommand of ours to its end.
    ///
    /// # Errors
    /// When it fails.
    pub fn ask(&self, arguments: &[&str]) -> Result<String> {
        let output = self.uplink(arguments)?.output()?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {arguments:?}: {text}", self.name);
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// `status --json`.
    ///
    /// # Errors
    /// When it fails.
    pub fn status(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.ask(&["status", "--json"])?)?)
    }

    /// Whether it has the virtual addresses.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn is_master(&self) -> Result<bool> {
        let addresses = self.ns.run("ip -o -4 addr show dev eth0")?;
        Ok(VIRTUAL.iter().all(|address| addresses.contains(address)))
    }

    /// What one of its programs logged.
    #[must_use]
    pub fn log(&self, program: &str) -> String {
        std::fs::read_to_string(self.file(&format!("{program}.log"))).unwrap_or_default()
    }

    /// Cuts every cable, or plugs them in again; the default route goes with them and comes back.
    ///
    /// # Errors
    /// When a command fails.
    pub fn plug(&self, up: bool) -> Result<()> {
        let to = if up { "up" } else { "down" };
        self.ns
            .ip(&format!("link set eth0 {to}\nlink set sync0 {to}\n"))?;
        match up {
            true => self.ns.ip("route replace default via 192.168.1.1\n"),
            false => Ok(()),
        }
    }

    fn file(&self, name: &str) -> String {
        format!("{LAB_DIR}/{}.{name}", self.name)
    }

    fn uplink(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.ns.command(&program()?);
        command
            .args(["--config", &format!("{LAB_DIR}/uplink.toml")])
            .args(["--runtime-dir", &format!("/run/uplink-{}", self.name)])
            .args(["--bpffs", &format!("{BPFFS}/{}", self.name)])
            .args(arguments);
        Ok(command)
    }

    /// docs/guide.md has the same, without the paths.
    fn keepalived_conf(&self) -> String {
        let (notify, priority) = (self.file("notify"), 150 - 50 * u32::from(self.number));
        let addresses = VIRTUAL.map(|a| format!("    {a} dev eth0\n")).concat();
        format!(
            "global_defs {{\n  script_user root\n  enable_script_security\n  vrrp_version 3\n}}\n\
             vrrp_instance uplink {{\n  state BACKUP\n  nopreempt\n  interface eth0\n  virtual_router_id 51\n  \
             priority {priority}\n  advert_int 0.2\n  garp_master_delay 1\n  virtual_ipaddress {{\n{addresses}  }}\n  \
             notify_master \"{notify} master\"\n  notify_backup \"{notify} backup\"\n  \
             notify_fault \"{notify} backup\"\n}}\n"
        )
    }

    fn conntrackd_conf(&self) -> String {
        let (own, other) = (1 + self.number, 2 - self.number);
        let (lock, socket) = (self.file("conntrackd.lock"), self.file("conntrackd.ctl"));
        format!(
            "Sync {{\n  Mode FTFW {{\n    DisableExternalCache off\n    CommitTimeout 180\n    PurgeTimeout 5\n  }}\n  \
             UDP {{\n    IPv4_address 192.168.255.{own}\n    IPv4_Destination_Address 192.168.255.{other}\n    \
             Port 3780\n    Interface sync0\n    Checksum on\n  }}\n}}\n\
             General {{\n  HashSize 32768\n  HashLimit 131072\n  Syslog off\n  LogFile off\n  LockFile {lock}\n  \
             UNIX {{\n    Path {socket}\n  }}\n  Filter From Kernelspace {{\n    Protocol Accept {{\n      TCP\n      \
             UDP\n    }}\n    Address Ignore {{\n      IPv4_address 127.0.0.1\n      IPv4_address 192.168.255.1\n      \
             IPv4_address 192.168.255.2\n    }}\n  }}\n}}\n"
        )
    }

    /// As Debian's `primary-backup.sh`: commit, forget what was committed, and tell the other everything.
    fn notify(&self) -> String {
        let conntrackd = format!("/usr/sbin/conntrackd -C {}", self.file("conntrackd.conf"));
        format!(
            "#!/bin/sh\ncase $1 in\nmaster) for step in -c -f -R -B; do {conntrackd} $step; done ;;\n\
             backup) for step in -t -n; do {conntrackd} $step; done ;;\nesac\n"
        )
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
