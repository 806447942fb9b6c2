"""What a machine looks like to those who care what a package leaves behind."""

from shell import expect, run

# Each line of shell is one part of the picture. Names of units that ran, logs and dpkg's own lists change by themselves.
PARTS = {
    "rules": "ip rule; ip -6 rule",
    # Link-local addresses come when the kernel has tested them, whenever that is.
    "routes": "ip route show table all; ip -6 route show table all | grep -v fe80",
    "links": "ip -o link | cut -d: -f2 | sort",
    "nftables": "nft list ruleset",
    # systemd attaches programs of its own (sd_...) and makes them anew when it reloads.
    "programs": "bpftool net show; bpftool cgroup tree | grep -v ' sd_'; tc qdisc show; ls -A /sys/fs/bpf",
    "sysctls": "sysctl -a 2>/dev/null | grep ^net.ipv[46] | grep -v -e stable_secret -e nf_conntrack | sort",
    "files": "find /etc /usr /lib /var/lib /run/uplink /run/uplink-bpf -xdev -not -path '/var/lib/dpkg/*' "
    "-not -path '/var/lib/systemd/*' -not -name '*.pyc' -not -name __pycache__ 2>/dev/null | sort -u || true",
}


def take():
    return {name: run(command).splitlines() for name, command in PARTS.items()}


def compare(before, after, without=()):
    for name in PARTS:
        if name not in without:
            gone = [line for line in before[name] if line not in after[name]]
            come = [line for line in after[name] if line not in before[name]]
            expect(not gone and not come, f"{name}: gone {gone[:10]}, come {come[:10]}")
