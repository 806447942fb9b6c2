"""What must hold on a Debian machine with systemd, in this order: each finds what the one before left."""

import glob
import os
import re
import signal
import time
from pathlib import Path

import flows
import footprint
import street
from shell import attempt, expect, run, states, status, unit, wait

CONFIG = Path("/etc/uplink/uplink.toml")
OLD, NEW = (glob.glob(f"/mnt/uplink_*-{revision}_*.deb")[0] for revision in (1, 2))
BEFORE = {}
# cap_net_admin, cap_net_raw, cap_perfmon, cap_bpf
CAPABILITIES = 1 << 12 | 1 << 13 | 1 << 38 | 1 << 39


def write_config(weight=3, more="", interfaces=None):
    at = interfaces or dict.fromkeys(street.ISPS, "eth0")
    uplinks = "".join(
        f'[[uplink]]\nname = "{name}"\ninterface = "{at[name]}"\ngateway = "{net}.1"\nweight = {weight if name == "isp1" else 1}\n'
        for name, (net, _) in street.ISPS.items()
    )
    CONFIG.write_text(uplinks + f'[probe]\ntargets = {street.TARGETS}\ninterval = "100ms"\n'.replace("'", '"') + more)


def all_up(seconds=20):
    wait("both uplinks are up", lambda: states() == {"isp1": "up", "isp2": "up"}, seconds)
    wait("a recovered uplink has its whole share", lambda: abs(share("isp1") - 0.75) < 0.02, seconds)


def share(name):
    return next(uplink["share"] for uplink in status()["uplinks"] if uplink["name"] == name)


def undisturbed(streams):
    moved = streams.moved()
    expect(not moved, f"{len(moved)} of {streams.count} flows moved or broke: {moved[:3]}")


def bpffs_is_empty_after_boot():
    expect("type bpf" in run("mount | grep /sys/fs/bpf"), "systemd has mounted no bpffs")
    expect(not os.listdir("/sys/fs/bpf"), f"it holds {os.listdir('/sys/fs/bpf')}")
    BEFORE.update(footprint.take())


def install_starts_nothing():
    run(f"dpkg -i {OLD}")
    expect(unit("ActiveState") == "inactive", f"the service is {unit('ActiveState')}")
    expect(attempt("systemctl is-enabled uplink")[1] == "disabled", "the service is enabled")
    run("getent group uplink")
    expect("uplink" in run("ip route show table all proto uplink; cat /etc/iproute2/rt_protos.d/uplink.conf"), "no name")


def start_without_a_configuration_fails_once_and_says_why():
    code, _ = attempt("systemctl start uplink")
    expect(code != 0, "it started")
    time.sleep(2)
    expect(unit("NRestarts") == "0", f"restarted {unit('NRestarts')} times")
    said = run("journalctl -u uplink -o cat")
    expect("uplink.toml" in said and "[[uplink]]" in said, f"the journal says: {said}")
    run("systemctl reset-failed uplink")


def the_kernel_takes_the_programs():
    write_config()
    run("uplink check --plan")
    run("systemctl enable --now uplink", 30)
    attach = status()["attach"]
    tcx = tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 6)
    expect(attach == ("tcx" if tcx else "clsact"), f"attached by {attach} on {os.uname().release}")
    all_up()


def systemd_finds_little_exposed():
    said = run("systemd-analyze security --no-pager uplink | tail -1")
    exposure = float(re.search(r"[0-9]+\.[0-9]", said)[0])
    expect(exposure <= 2.0, said)
    run("systemd-analyze verify /usr/lib/systemd/system/uplink.service")


def it_has_no_capability_too_many():
    expect(unit("MainPID") != "0", "nothing runs")
    fields = Path(f"/proc/{unit('MainPID')}/status").read_text()
    for name in ["CapEff", "CapPrm", "CapBnd"]:
        held = int(re.search(rf"{name}:\s+(\w+)", fields)[1], 16)
        expect(held == CAPABILITIES, f"{name} is {held:x}, not {CAPABILITIES:x}")
    expect("NoNewPrivs:\t1" in fields and "Seccomp:\t2" in fields, fields)


def the_sandbox_holds():
    pid = unit("MainPID")
    expect(pid != "0", "nothing runs")
    for path in ["/proc/sys/kernel/printk", "/sys/kernel/mm/ksm/run", "/etc/uplink/uplink.toml"]:
        code, _ = attempt(f"nsenter -t {pid} -m sh -c ': >>{path}'")
        expect(code != 0, f"{path} can be written")
    expect("warn" not in run("journalctl -u uplink -o cat | tr A-Z a-z"), run("journalctl -u uplink -o cat"))


def new_flows_spread_by_weight():
    for namespace in ["client", "router"]:
        found = flows.shares(400, namespace)
        expect(found["none"] == 0, f"{namespace}: {dict(found)}")
        expect(260 <= found["isp1"] <= 340, f"{namespace}: 300 of 400 were to leave by isp1: {dict(found)}")


def replies_leave_as_requests_came():
    # A UDP server on the wildcard address would have its answers' source chosen anew.
    for _, source in street.ISPS.values():
        with flows.server("router", source):
            said, _ = flows.in_namespace("internet", "spread", 20, source).communicate(timeout=300)
            expect("none" not in said, f"towards {source}: {said}")


def the_group_may_ask_and_others_may_not():
    run("useradd --system --groups uplink operator-in && useradd --system operator-out")
    run("setpriv --reuid operator-in --regid operator-in --init-groups uplink status")
    code, said = attempt("setpriv --reuid operator-out --regid operator-out --init-groups uplink status")
    expect(code == 1 and "member of the group" in said, f"an outsider got {code}: {said}")
    run("userdel operator-in && userdel operator-out")


def a_dead_provider_loses_new_flows():
    with flows.Streams() as streams, street.blackhole("isp1"):
        wait("isp1 is down", lambda: states().get("isp1") == "down")
        found = flows.shares(40)
        expect(found == {"isp2": 40}, f"new flows left by {dict(found)}")
    steady = [flow for flow in streams.flows if flow["sources"][0] == street.ISPS["isp2"][1]]
    expect(all(len(flow["sources"]) == 1 for flow in steady), f"flows of the living uplink moved: {steady}")
    all_up(40)


def reload_moves_no_flow():
    with flows.Streams() as streams:
        write_config(weight=1)
        run("systemctl reload uplink")
        wait("the new weights are in force", lambda: abs(share("isp1") - 0.5) < 0.02)
        CONFIG.write_text("[[uplink]]\n")
        code, said = attempt("uplink reload")
        expect(code == 2 and "name" in said, f"a wrong file: {code}, {said}")
        write_config()
        run("uplink reload")
        all_up()
    undisturbed(streams)
    expect(streams.lost() == 0, f"{streams.lost()} packets lost: {streams.flows}")


def killed(how, seconds):
    """The service is back as another process, and no flow has noticed."""
    pid, restarts = unit("MainPID"), int(unit("NRestarts"))
    with flows.Streams() as streams:
        os.kill(int(pid), how)
        wait("systemd has restarted it", lambda: int(unit("NRestarts")) > restarts, seconds)
        wait("it is ready", lambda: unit("ActiveState") == "active" and unit("MainPID") not in ("0", pid))
        all_up()
    undisturbed(streams)
    expect(streams.lost() == 0, f"{streams.lost()} packets lost: {streams.flows}")


def program(path, text):
    Path(path).write_text("#!/bin/sh\n" + text)
    os.chmod(path, 0o755)
    return path


def hooks_and_exec_probes_run_in_the_sandbox():
    hook = program(
        "/usr/local/sbin/told",
        'logger -t told "$UPLINK_NAME $UPLINK_STATE"\n'
        "id -u >/var/lib/uplink/told && touch /tmp/told && ! touch /etc/told 2>/dev/null && logger -t told sandboxed\n",
    )
    probe = program("/usr/local/sbin/alive", "test ! -e /var/lib/uplink/$UPLINK_NAME.broken\n")
    kept = CONFIG.read_text()
    write_config(more=f'type = "exec"\ncommand = ["{probe}"]\ntimeout = "5s"\n[hooks]\non_change = "{hook}"\n')
    CONFIG.write_text(CONFIG.read_text().replace(f"targets = {street.TARGETS}".replace("'", '"'), ""))
    run("uplink reload")
    all_up(60)
    Path("/var/lib/uplink/isp2.broken").touch()
    wait("the probe's verdict counts", lambda: states().get("isp2") == "down", 60)
    wait("the hook is heard", lambda: "isp2 down" in run("journalctl -t told -o cat"))
    wait("it has what the unit allows", lambda: "sandboxed" in run("journalctl -t told -o cat"))
    expect(Path("/var/lib/uplink/told").read_text() == "0\n", "the hook is not root")
    expect(not Path("/tmp/told").exists(), "/tmp is not the service's own")
    os.remove("/var/lib/uplink/isp2.broken")
    all_up(60)
    CONFIG.write_text(kept)
    run("uplink reload")
    for made in [hook, probe]:
        os.remove(made)
    all_up(60)


def kill_9_disturbs_no_flow():
    killed(signal.SIGKILL, 10)


def the_watchdog_ends_a_daemon_that_hangs():
    killed(signal.SIGSTOP, 30)
    expect("watchdog" in run("journalctl -u uplink -o cat").lower(), "the journal knows of no watchdog")


def restart_disturbs_no_flow():
    pid = unit("MainPID")
    with flows.Streams() as streams:
        run("systemctl restart uplink", 30)
        expect(unit("MainPID") != pid, "it is the same process")
        all_up()
    undisturbed(streams)
    expect(streams.lost() == 0, f"{streams.lost()} packets lost: {streams.flows}")


def restarted():
    run("systemctl restart uplink", 30)
    all_up(40)


def flows_are_fast():
    restarted()
    wait("the fast path is on", lambda: status()["attach"] == "xdp")
    before = status()["packets"]["fast"]
    with flows.Streams() as streams:
        time.sleep(8)
    undisturbed(streams)
    expect(streams.lost() == 0, f"{streams.lost()} packets lost: {streams.flows}")
    heard = sum(flow["heard"] for flow in streams.flows)
    fast = status()["packets"]["fast"] - before
    print(f"    {heard} lines there and back, {fast} packets by the fast path")
    expect(fast > heard, f"{fast} packets by the fast path, {heard} lines there and back")


def known_flows_take_the_fast_path():
    write_config(more='[kernel]\nattach = "xdp"\n')
    flows_are_fast()
    with street.vlans() as interfaces:
        lan = interfaces["client"]
        write_config(more=f'[lan]\ninterfaces = ["{lan}"]\n[kernel]\nattach = "xdp"\n', interfaces=interfaces)
        flows_are_fast()
    write_config()
    restarted()
    expect("xdp" not in run("ip link show eth0"), "the program is still at the wire")


def an_upgrade_disturbs_no_flow():
    pid, config = unit("MainPID"), CONFIG.read_text()
    with flows.Streams() as streams:
        run(f"dpkg -i {NEW}")
        expect(run("dpkg-query -W -f '${Version}' uplink").endswith("-2"), "the version is the old one")
        expect(unit("MainPID") != pid and unit("ActiveState") == "active", "the old daemon runs on")
        all_up()
    undisturbed(streams)
    expect(streams.lost() == 0, f"{streams.lost()} packets lost: {streams.flows}")
    expect(CONFIG.read_text() == config, "the configuration was changed")
    expect(attempt("systemctl is-enabled uplink")[1] == "enabled", "the service is no longer enabled")


def the_journal_tells_what_happened():
    said = run("journalctl -u uplink -o cat")
    for word in ["isp1", "isp2", "down"]:
        expect(word in said, f"no {word!r} in the journal: {said[-2000:]}")


def stop_puts_everything_back():
    run("systemctl stop uplink", 30)
    footprint.compare(BEFORE, footprint.take(), without=("files",))
    run("systemctl start uplink", 30)
    all_up()


def removal_leaves_the_configuration_only():
    run("dpkg -r uplink")
    footprint.compare(BEFORE, footprint.take(), without=("files",))
    expect(CONFIG.exists() and not glob.glob("/run/uplink*"), "files of the wrong kind are left")


def purge_leaves_nothing():
    run("dpkg -P uplink")
    footprint.compare(BEFORE, footprint.take())


def removal_cleans_up_behind_a_killed_daemon():
    run(f"dpkg -i {NEW}")
    write_config()
    run("systemctl start uplink", 30)
    all_up()
    run("systemctl kill -s KILL uplink; systemctl stop uplink")
    run("dpkg -P uplink")
    footprint.compare(BEFORE, footprint.take())


def blocks(text, kind):
    """The parts of a Markdown text that are set in this language."""
    return re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)


def a_new_user_needs_the_readme_alone():
    began = time.monotonic()
    readme = Path("/mnt/README.md").read_text()
    steps = next(block for block in blocks(readme, "sh") if "apt install ./" in block)
    for step in steps.splitlines():
        step = step.split("#")[0].replace("sudo ", "").strip()
        match step.split():
            case ["cargo", *_]:
                continue
            case ["apt", *_]:
                step = f"apt-get install -qy {NEW}"
            case ["sudoedit", path]:
                Path(path).write_text(blocks(readme, "toml")[0])
                continue
            case ["adduser", *_]:
                run("useradd --system newcomer")
                step = "adduser newcomer uplink" if attempt("command -v adduser")[0] == 0 else "usermod -aG uplink newcomer"
        run(step, 60)
    wait("both uplinks are up", lambda: states() == {"isp1": "up", "isp2": "up"}, 60)
    wait("they share", lambda: abs(share("isp1") - 0.5) < 0.02, 60)
    took = time.monotonic() - began
    found = flows.shares(400)
    expect(found["none"] == 0 and 160 <= found["isp1"] <= 240, f"half of 400 were to leave by each: {dict(found)}")
    run("setpriv --reuid newcomer --regid newcomer --init-groups uplink status")
    print(f"    installed and balancing after {took:.0f} s")
    expect(took < 300, f"installed and balancing after {took:.0f} s")


ALL = [
    bpffs_is_empty_after_boot,
    install_starts_nothing,
    start_without_a_configuration_fails_once_and_says_why,
    the_kernel_takes_the_programs,
    systemd_finds_little_exposed,
    it_has_no_capability_too_many,
    the_sandbox_holds,
    new_flows_spread_by_weight,
    replies_leave_as_requests_came,
    the_group_may_ask_and_others_may_not,
    a_dead_provider_loses_new_flows,
    reload_moves_no_flow,
    hooks_and_exec_probes_run_in_the_sandbox,
    kill_9_disturbs_no_flow,
    the_watchdog_ends_a_daemon_that_hangs,
    restart_disturbs_no_flow,
    known_flows_take_the_fast_path,
    an_upgrade_disturbs_no_flow,
    the_journal_tells_what_happened,
    stop_puts_everything_back,
    removal_leaves_the_configuration_only,
    purge_leaves_nothing,
    removal_cleans_up_behind_a_killed_daemon,
    a_new_user_needs_the_readme_alone,
]
