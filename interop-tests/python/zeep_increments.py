"""Parallel users of a counter: each is one thread with its own stock zeep client and calls
`increment` again and again. Prints one JSON object: every value that came back, every fault and
every failed call, and how long it took.

    zeep_increments.py http://127.0.0.1:8080/?wsdl --users 8 --calls 1000

Exit code 0 only if the values are exactly first..first+calls-1, each once. `--progress` writes
the number of answers so far to stderr, one per line, so that a test can act half-way.
"""

import argparse
import json
import sys
import threading
import time

import requests
from lxml import etree
from peers import connect
from zeep.exceptions import Error, Fault


class Tally:
    """What the users got, counted under one lock."""

    def __init__(self, calls, progress):
        self.lock = threading.Lock()
        self.left = calls
        self.progress = progress
        self.values, self.faults, self.errors, self.ms = [], [], [], []

    def take(self):
        """Whether one more call is due."""
        with self.lock:
            self.left -= 1
            return self.left >= 0

    def note(self, kind, what, ms):
        with self.lock:
            kind.append(what)
            self.ms.append(ms)
            if self.progress:
                print(len(self.ms), file=sys.stderr, flush=True)


def user(args, soap, tally):
    try:
        service = connect(args.wsdl, soap, args.timeout)
    except (Error, requests.RequestException, etree.XMLSyntaxError) as error:
        tally.note(tally.errors, f"no WSDL: {type(error).__name__}: {error}", 0)
        return
    while tally.take():
        start = time.monotonic()
        kind, what = call(service, args.operation, tally)
        tally.note(kind, what, (time.monotonic() - start) * 1000)


def call(service, operation, tally):
    try:
        return tally.values, int(service[operation]())
    except Fault as fault:
        return tally.faults, f"{fault.code}: {fault.message}"
    except (Error, requests.RequestException, etree.XMLSyntaxError) as error:
        return tally.errors, f"{type(error).__name__}: {error}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("wsdl")
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--calls", type=int, default=1000, help="of all users together")
    parser.add_argument("--soap", choices=["1.1", "1.2", "both"], default="both")
    parser.add_argument("--operation", default="increment")
    parser.add_argument("--first", type=int, default=1, help="the value due first")
    parser.add_argument("--timeout", type=float, default=60, help="seconds for one call")
    parser.add_argument("--progress", action="store_true")
    args = parser.parse_args()

    tally = Tally(args.calls, args.progress)
    versions = ["1.1", "1.2"] if args.soap == "both" else [args.soap]
    threads = [
        threading.Thread(target=user, args=(args, versions[i % len(versions)], tally))
        for i in range(args.users)
    ]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    right = sorted(tally.values) == list(range(args.first, args.first + args.calls))
    times = sorted(tally.ms) or [0]
    report = {
        "right": right,
        "values": tally.values,
        "faults": tally.faults,
        "errors": tally.errors,
        "seconds": round(time.monotonic() - start, 3),
        "p50_ms": round(times[len(times) // 2], 3),
        "max_ms": round(times[-1], 3),
    }
    print(json.dumps(report))
    sys.exit(0 if right else 1)


if __name__ == "__main__":
    main()
