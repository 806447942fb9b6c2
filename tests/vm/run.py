"""Runs all scenarios in the virtual machine. `ok` and `FAILED` begin the lines that are counted outside."""

import time
import traceback

import flows
import scenarios
import street
from shell import Failure, attempt


def main():
    street.build()
    attempt("ip netns attach router $$")
    with flows.server("internet", street.SERVER):
        for scenario in scenarios.ALL:
            one(scenario)


def one(scenario):
    name = scenario.__name__.replace("_", " ")
    began = time.monotonic()
    try:
        scenario()
        print(f"ok {name} ({time.monotonic() - began:.1f} s)")
    except Failure as failure:
        print(f"FAILED {name}: {failure}")
        context()
    except Exception:
        print(f"FAILED {name}: {traceback.format_exc()}")
        context()


def context():
    """What one would look at first."""
    for command in ["uplink status", "journalctl -u uplink -o short-monotonic --no-pager -n 15"]:
        print(f"    $ {command}\n    " + attempt(command)[1].replace("\n", "\n    "))


main()
