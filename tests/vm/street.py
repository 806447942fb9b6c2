"""The street outside: two ISPs, a LAN client and the Internet, in namespaces behind the second NIC.

eth0 is the router's only card. qemu joins it to eth1, which leads into a bridge. What the router sends
really goes out by virtio-net, and what it hears came in by it.
"""

import contextlib

from shell import run

ISPS = {"isp1": ("192.168.1", "192.168.1.100"), "isp2": ("10.0.0", "10.0.0.100")}
BY_SOURCE = {source: name for name, (_, source) in ISPS.items()}
CLIENT = "192.168.50.2"
ROUTER = "192.168.50.1"
SERVER = "203.0.113.1"
TARGETS = ["203.0.113.2", "203.0.113.3"]
# What is probed where the configuration names nothing; this Internet has them, too.
DEFAULT_TARGETS = ["1.1.1.1", "9.9.9.9"]


def build():
    for name in ["wire", "client", "internet", *ISPS]:
        run(f"ip netns add {name}")
        run(f"ip -n {name} link set lo up")
    run("ip link set eth1 netns wire")
    run("ip -n wire link add street type bridge")
    run("ip -n wire link set street up")
    run("ip -n wire link set eth1 master street up")
    _plug_in("client")
    run(f"ip -n client addr add {CLIENT}/24 dev eth0")
    run(f"ip -n client route add default via {ROUTER}")
    for address in [SERVER, *TARGETS, *DEFAULT_TARGETS]:
        run(f"ip -n internet addr add {address}/32 dev lo")
    for number, (name, (net, _)) in enumerate(ISPS.items(), 1):
        _isp(name, net, f"172.16.{number}")
    _router()


def _plug_in(name):
    run(f"ip -n wire link add {name} type veth peer name eth0 netns {name}")
    run(f"ip -n wire link set {name} master street up")
    run(f"ip -n {name} link set eth0 up")


def _isp(name, net, backbone):
    """A gateway on the wire that lets nobody use an address of another ISP (BCP 38)."""
    _plug_in(name)
    run(f"ip -n {name} addr add {net}.1/24 dev eth0")
    run(f"ip -n {name} link add beyond type veth peer name {name} netns internet")
    run(f"ip -n {name} addr add {backbone}.1/30 dev beyond")
    run(f"ip -n internet addr add {backbone}.2/30 dev {name}")
    run(f"ip -n {name} link set beyond up")
    run(f"ip -n internet link set {name} up")
    run(f"ip -n {name} route add default via {backbone}.2")
    run(f"ip -n internet route add {net}.0/24 via {backbone}.1")
    run(f"ip netns exec {name} sysctl -qw net.ipv4.conf.eth0.rp_filter=1 net.ipv4.ip_forward=1")


def _router():
    run("ip link set eth0 up")
    for address in [ROUTER, *(source for _, source in ISPS.values())]:
        run(f"ip addr add {address}/24 dev eth0")
    run("ip route add default via 192.168.1.1")


VLANS = {"isp1": 10, "isp2": 20, "client": 30}


@contextlib.contextmanager
def vlans():
    """Everybody at the router's wire in a VLAN of their own. Yields the router's interfaces."""
    interfaces = {name: f"eth0.{number}" for name, number in VLANS.items()}
    homes = {"isp1": "192.168.1.1", "isp2": "10.0.0.1", "client": CLIENT}
    here = {**{name: source for name, (_, source) in ISPS.items()}, "client": ROUTER}
    for name, number in VLANS.items():
        for at, address in [(f"-n {name}", homes[name]), ("", here[name])]:
            run(f"ip {at} link add link eth0 name eth0.{number} type vlan id {number}")
            run(f"ip {at} link set eth0.{number} up")
            _move(at, address, "eth0", f"eth0.{number}")
    _routes()
    try:
        yield interfaces
    finally:
        for name, number in VLANS.items():
            for at, address in [(f"-n {name}", homes[name]), ("", here[name])]:
                _move(at, address, f"eth0.{number}", "eth0")
                run(f"ip {at} link del eth0.{number}")
        _routes()


def _move(at, address, before, after):
    run(f"ip {at} addr del {address}/24 dev {before}")
    run(f"ip {at} addr add {address}/24 dev {after}")


def _routes():
    run("ip route replace default via 192.168.1.1")
    run(f"ip -n client route replace default via {ROUTER}")


@contextlib.contextmanager
def blackhole(name):
    """An ISP whose router answers, and beyond which nothing does."""
    run(f"ip netns exec {name} sysctl -qw net.ipv4.ip_forward=0")
    try:
        yield
    finally:
        run(f"ip netns exec {name} sysctl -qw net.ipv4.ip_forward=1")
