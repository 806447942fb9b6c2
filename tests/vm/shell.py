"""Running programs, waiting, and saying what is wrong."""

import json
import subprocess
import time
from pathlib import Path

# An emulated processor does everything an order of magnitude slower.
PATIENCE = 5 if "TCG" in Path("/proc/cpuinfo").read_text() else 1


class Failure(Exception):
    """What was expected and is not so."""


def attempt(command, seconds=60):
    """Runs a line of shell: its exit status, and what it said."""
    done = subprocess.run(
        ["sh", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds * PATIENCE
    )
    return done.returncode, done.stdout.strip()


def run(command, seconds=60):
    """Runs a line of shell that must succeed: what it said."""
    status, said = attempt(command, seconds)
    expect(status == 0, f"`{command}` ended with {status}: {said}")
    return said


def expect(condition, otherwise):
    if not condition:
        raise Failure(otherwise)


def wait(what, condition, seconds=10):
    """Waits until the condition holds, and returns what it says."""
    end = time.monotonic() + seconds * PATIENCE
    while True:
        value = condition()
        if value:
            return value
        expect(time.monotonic() < end, f"not within {seconds * PATIENCE} s: {what}")
        time.sleep(0.1)


def status():
    """`uplink status --json`; empty while no daemon answers."""
    code, said = attempt("uplink status --json")
    return json.loads(said) if code == 0 else {}


def states():
    return {uplink["name"]: uplink["state"] for uplink in status().get("uplinks", [])}


def unit(field):
    """A property of the service."""
    return run(f"systemctl show --value -p {field} uplink.service")
