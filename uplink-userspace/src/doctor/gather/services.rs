//! Which network managers run here, and how they are configured.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::{list, text};

/// Where systemd looks, what counts more last.
const ROOTS: [&str; 4] = ["/usr/lib", "/usr/local/lib", "/run", "/etc"];

/// Names of the processes in our network namespace. Where somebody may not look at another's
/// namespace, this host's services count, and those of containers do not.
pub(super) fn running() -> BTreeSet<String> {
    let namespace = |process: &Path| fs::read_link(process.join("ns/net")).ok();
    let ours = namespace(Path::new("/proc/self"));
    let here = |process: &PathBuf| match namespace(process) {
        None => is_service(&text(process.join("cgroup"))),
        theirs => theirs == ours,
    };
    let processes = list(Path::new("/proc")).into_iter();
    let names = processes
        .filter(|p| p.join("comm").exists() && here(p))
        .map(|p| text(p.join("comm")).trim().to_owned());
    names.collect()
}

/// Whether a process in these control groups is a service of this host's systemd.
fn is_service(cgroups: &str) -> bool {
    let mut paths = cgroups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    paths.any(|path| path.starts_with("/system.slice/"))
}

/// networkd's configuration.
pub(super) fn networkd() -> String {
    configuration(&ROOTS.map(|root| Path::new(root).join("systemd")))
}

/// The last main file, then drop-ins in the order of their names, whatever directory they are in.
fn configuration(dirs: &[PathBuf]) -> String {
    let mut files = dirs.iter().map(|dir| dir.join("networkd.conf"));
    let main = files.rfind(|f| f.exists());
    let mut drop_ins: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    for dir in dirs {
        for path in list(&dir.join("networkd.conf.d")) {
            let is_one = path.extension().is_some_and(|e| e == "conf");
            if let (true, Some(name)) = (is_one, path.file_name()) {
                // Of one name the later directory's counts.
                drop_ins.insert(name.to_owned(), path.clone());
            }
        }
    }
    let all = main.into_iter().chain(drop_ins.into_values());
    all.map(|path| text(path) + "\n").collect()
}

/// Indices of the interfaces that NetworkManager says it manages.
pub(super) fn managed() -> BTreeSet<u32> {
    let devices = list(Path::new("/run/NetworkManager/devices")).into_iter();
    let managed = devices.filter(|path| {
        let text = text(path);
        let mut lines = text.lines().map(str::trim);
        lines.any(|l| matches!(l, "managed=true" | "managed=full"))
    });
    managed
        .filter_map(|path| path.file_name()?.to_str()?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_containers_service_is_not_this_hosts() {
        let service = "system.slice/systemd-networkd.service\n";
        for (cgroup, is) in [
            (format!("0::/{service}"), true),
            (format!("12:pids:/\n1:name=systemd:/{service}"), true),
            (format!("0::/lxc.payload.web/{service}"), false),
            (
                format!("0::/machine.slice/systemd-nspawn@web.service/payload/{service}"),
                false,
            ),
            (String::new(), false),
        ] {
            assert_eq!(is_service(&cgroup), is, "{cgroup}");
        }
    }

    #[test]
    fn drop_ins_are_read_by_name_and_the_administrators_count() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        let dirs = ["lib", "etc"].map(|d| root.join(d));
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("lib/networkd.conf", "vendor");
        write("lib/networkd.conf.d/90-last.conf", "last");
        write("lib/networkd.conf.d/50-both.conf", "vendor's");
        write("etc/networkd.conf", "main");
        write("etc/networkd.conf.d/10-first.conf", "first");
        write("etc/networkd.conf.d/50-both.conf", "administrator's");
        write("etc/networkd.conf.d/README", "not read");
        assert_eq!(configuration(&dirs), "main\nfirst\nadministrator's\nlast\n");
    }
}
