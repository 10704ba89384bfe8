"""What telemetry costs the workers: the same load with the sampler in the parent and without it, turn by turn.

usage: .venv/bin/python scripts/telemetry_cost.py [ROUNDS] [STREAMS] [SECONDS]

One worker holds STREAMS streams of a token every 20 ms against the null server. A round has three repeats: without
telemetry, with it (the parent's sampler reads a Prometheus page of 600 lines, the processes and the machine, as in a
run), and without it again, which shows the machine's own noise; their order turns from round to round. Prints medians
over the rounds, and the median and range of the ratios to the first, of what `worker_cost.repeat` measures.
"""

from __future__ import annotations

import http.server
import os
import statistics
import sys
from collections.abc import Callable
from typing import Any

from worker_cost import repeat

from loadgen.fleet.local import Fleet
from loadgen.launch.processes import identify
from loadgen.telemetry.sampler import Machine, Sampler

ARMS = ("without", "with", "again")
PAGE = "".join(f'engine:metric_{i % 60}_bucket{{engine="0",le="{i}",model_name="m"}} {i * 7}.0\n' for i in range(597))
PAGE += "engine:running 7\nengine:waiting 0\nengine:ttft_sum 1\nengine:ttft_count 2\n"
NAMES = {"running": "engine:running", "waiting": "engine:waiting", "ttft_s": "engine:ttft"}


class Page(http.server.BaseHTTPRequestHandler):
    """The engine's page."""

    def do_GET(self) -> None:
        """Always the same."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(PAGE.encode())

    def log_message(self, *_: object) -> None:
        """Nothing."""


def serve_page(ready: Any) -> None:
    """Serves the page in a process of its own, as an engine does."""
    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        os.write(ready, f"{server.server_port}\n".encode())
        server.serve_forever()


def with_telemetry(page: str) -> Callable[[int], Sampler]:
    """What a run's parent does beside a repeat."""

    def beside(pid: int) -> Sampler:
        server = identify(pid)
        assert server is not None
        return Sampler([page], NAMES, machine=Machine(gpus=(), processes=(server,)))

    return beside


def main() -> None:
    """Rounds, one after the other."""
    rounds, streams, seconds = (int(word) for word in [*sys.argv[1:], *("6", "64", "8")[len(sys.argv) - 1 :]])
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        serve_page(write)
    page = f"http://127.0.0.1:{int(os.read(read, 16))}/metrics"
    found: dict[str, list[dict[str, float]]] = {arm: [] for arm in ARMS}
    try:
        with Fleet(1) as fleet:
            repeat(fleet, streams, 4)
            for number in range(rounds):
                for arm in (*ARMS[number % 3 :], *ARMS[: number % 3]):
                    beside = (with_telemetry(page),) if arm == "with" else ()
                    found[arm].append(repeat(fleet, streams, seconds, *beside))
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    print(f"{rounds} rounds, {streams} streams, {seconds} s")
    print(f"{'':20}{'without':>10}{'with':>10}{'ratio':>8}  range          without again")
    for name in found["with"][0]:
        first, *others = ([one[name] for one in found[arm]] for arm in ARMS)
        told = [sorted(b / a for a, b in zip(first, other, strict=True) if a) for other in others]
        ranges = [f"{statistics.median(one):8.2f}  {one[0]:.2f} to {one[-1]:.2f}" for one in told]
        print(f"{name:20}{statistics.median(first):10.1f}{statistics.median(others[0]):10.1f}{'  '.join(ranges)}")


main()
