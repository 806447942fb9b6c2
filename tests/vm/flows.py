"""Traffic. The server in the Internet answers with the address that it sees, so each flow knows its uplink."""

import contextlib
import json
import selectors
import socket
import subprocess
import sys
import time
from collections import Counter

from shell import PATIENCE
from street import BY_SOURCE, SERVER

PORT = 7000
STREAM_HZ = 25
# Of asm-generic/socket.h; Python has no name for it.
SO_RCVBUFFORCE = 33
# Some ten thousand datagrams: where the machine is emulated, a server may get no processor for seconds while programs
# are verified, and the 277 that a socket has room for by default would be all that it finds.
ROOM = 8 << 20


def serve(address):
    """Echoes UDP datagrams and TCP lines, each behind the address it came from."""
    ready = selectors.DefaultSelector()
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, ROOM)
    datagrams.bind((address, PORT))
    listener = socket.create_server((address, PORT), backlog=256)
    ready.register(datagrams, selectors.EVENT_READ)
    ready.register(listener, selectors.EVENT_READ)
    print("serving", flush=True)
    while True:
        for key, _ in ready.select():
            if key.fileobj is datagrams:
                data, sender = datagrams.recvfrom(2048)
                datagrams.sendto(sender[0].encode() + b" " + data, sender)
            elif key.fileobj is listener:
                connection, sender = listener.accept()
                ready.register(connection, selectors.EVENT_READ, sender[0].encode())
            else:
                _echo(ready, key)


def _echo(ready, key):
    with contextlib.suppress(OSError):
        data = key.fileobj.recv(2048)
        if data:
            key.fileobj.sendall(key.data + b" " + data)
            return
    ready.unregister(key.fileobj)
    key.fileobj.close()


def spread(count, address):
    """How many of so many new flows, TCP and UDP in turn, came by each source; "none" got no answer."""
    return Counter(_one(number, address) for number in range(count))


def _one(number, address):
    kind = socket.SOCK_STREAM if number % 2 else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind) as flow:
        flow.settimeout(PATIENCE)
        try:
            flow.connect((address, PORT))
            flow.send(b"x")
            return flow.recv(2048).split()[0].decode()
        except OSError:
            return "none"


def stream(count):
    """So many UDP and TCP flows at once, until stdin ends. Prints what each sent, heard, and by whom."""
    flows = [_open(number) for number in range(count)]
    began = time.monotonic()
    print("streaming", flush=True)
    asked = selectors.DefaultSelector()
    asked.register(sys.stdin, selectors.EVENT_READ)
    while not asked.select(1 / STREAM_HZ):
        for flow in flows:
            _tick(flow, time.monotonic() - began)
    time.sleep(PATIENCE)
    for flow in flows:
        _listen(flow)
    kept = ("kind", "sent", "heard", "sources", "error")
    print(json.dumps([{key: flow[key] for key in kept} | {"missing": _missing(flow)} for flow in flows]))


def _missing(flow):
    """What got no answer, and how many seconds after the beginning it was sent."""
    return [f"{n} at {at:.2f}" for n, at in enumerate(flow["times"]) if n not in flow["numbers"]][:8]


def _open(number):
    kind = ("udp", "tcp")[number % 2]
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    made.settimeout(5 * PATIENCE)
    made.connect((SERVER, PORT))
    made.setblocking(False)
    if kind == "tcp":
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    counts = {"sent": 0, "heard": 0, "times": [], "numbers": set()}
    return {"kind": kind, "socket": made, "sources": [], "error": ""} | counts


def _tick(flow, at):
    try:
        flow["socket"].send(b"%09d\n" % flow["sent"])
        flow["sent"] += 1
        flow["times"].append(at)
    except OSError as error:
        flow["error"] = str(error)
    _listen(flow)


def _listen(flow):
    """Lines may come together, and TCP may join those that waited behind one address."""
    with contextlib.suppress(BlockingIOError):
        while data := flow["socket"].recv(65536).decode():
            flow["heard"] += data.count("\n")
            for word in data.split():
                if "." not in word:
                    flow["numbers"].add(int(word))
                elif word not in flow["sources"]:
                    flow["sources"].append(word)


def in_namespace(name, *arguments):
    """This program, in another namespace."""
    command = ["ip", "netns", "exec", name, sys.executable, "-u", __file__, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@contextlib.contextmanager
def server(name, address):
    """A server that listens by the time it is entered."""
    process = in_namespace(name, "serve", address)
    process.stdout.readline()
    try:
        yield
    finally:
        process.kill()


def shares(count, namespace="client"):
    """By which uplink so many new flows of a client leave."""
    said, _ = in_namespace(namespace, "spread", count, SERVER).communicate(timeout=120 * PATIENCE)
    return Counter({BY_SOURCE.get(source, source): n for source, n in json.loads(said).items()})


class Streams:
    """Live flows of the client, while something happens to the router."""

    def __init__(self, count=16):
        self.count = count

    def __enter__(self):
        self.process = in_namespace("client", "stream", self.count)
        self.process.stdout.readline()
        time.sleep(0.5)
        return self

    def __exit__(self, *failure):
        self.flows = json.loads(self.process.communicate("end\n", timeout=30 * PATIENCE)[0])

    def lost(self):
        return sum(flow["sent"] - flow["heard"] for flow in self.flows)

    def moved(self):
        """Flows that were seen by more than one uplink, or broke."""
        return [flow for flow in self.flows if len(flow["sources"]) != 1 or flow["error"]]


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["serve", address]:
            serve(address)
        case ["spread", count, address]:
            print(json.dumps(spread(int(count), address)))
        case ["stream", count]:
            stream(int(count))
