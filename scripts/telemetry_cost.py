"""What telemetry costs the workers: the same load with the sampler in the parent and without it, turn by turn.

usage: .venv/bin/python scripts/telemetry_cost.py [ROUNDS] [STREAMS] [SECONDS]

One worker holds STREAMS streams of a token every 20 ms against the null server. A round has three repeats: without
telemetry, with it (the parent's sampler reads a Prometheus page of 600 lines, the processes and the machine, as in a
run), and without it again, which shows the machine's own noise; their order turns from round to round. Prints medians
over the rounds, and the median and range of the ratios to the first: the worker's CPU a token, how long received bytes
waited for it at worst (lag, by request), how far its stamps of first tokens are from the server's own; lateness.
"""

from __future__ import annotations

import http.server
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import httpx

from loadgen.backends import RequestOptions
from loadgen.drive.job import Job, Labels, Shape
from loadgen.fleet.local import Fleet
from loadgen.launch.processes import identify
from loadgen.record import read_records
from loadgen.telemetry.sampler import Machine, Sampler

ARMS = ("without", "with", "again")
TOKENS = 100
WARMUP_S = 1.0
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


@contextmanager
def null_server() -> Iterator[tuple[str, int]]:
    """A fresh null server: its URL and pid."""
    command = [sys.executable, "-m", "loadgen.null_server", "--ttft-ms", "50", "--gap-ms", "20"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}", process.pid
    finally:
        process.kill()
        process.communicate()


def serve_page(ready: Any) -> None:
    """Serves the page in a process of its own, as an engine does."""
    with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
        os.write(ready, f"{server.server_port}\n".encode())
        server.serve_forever()


def repeat(fleet: Fleet, streams: int, seconds: float, page: str | None) -> dict[str, float]:
    """One repeat, with telemetry where a page is given."""
    shape = Shape(concurrency=streams, ramp_s=WARMUP_S, warmup_s=WARMUP_S, window_s=seconds, drain_s=5)
    with null_server() as (url, pid), tempfile.TemporaryDirectory() as name:
        job = Job(
            labels=Labels(run="r", cell="c", target="t", rep=1, attempt=1, endpoint=url),
            worker=0, workers=1, endpoint=url, backend="openai_chat", options=RequestOptions(model="null"), headers={},
            workload="natural", settings={"tags": ["chat"]}, context={"seed": 1, "ask_tok": TOKENS, "exact": True},
            shape=shape, seed=1, out=str(Path(name) / "requests.jsonl"),
        )  # fmt: skip
        server = identify(pid)
        assert server is not None
        machine = Machine(gpus=(), processes=(server,))
        with Sampler([page], NAMES, machine=machine) if page else nullcontext():
            outcome = fleet.run([job], lambda _: None, lambda: None)
        truth = httpx.get(f"{url}/truth", timeout=30, trust_env=False).text
        first = {line.rsplit(" ", 5)[0]: int(line.rsplit(" ", 5)[2]) for line in truth.splitlines()}
        records = [one for one in read_records([Path(job.out)]) if one.phase == "measure" and one.status == "ok"]
    errors = [one.t_first - (first[one.request_id()] - outcome.start_ns) / 1e9 for one in records if one.t_first]
    late = [one.t_send - one.t_sched for one in records if one.t_send is not None]
    lag = [(one.lag_us_max or 0) for one in records]
    return {
        "CPU us a token": outcome.audits[0].cpu_s / (outcome.audits[0].sent * TOKENS) * 1e6,
        "lag p50 us": quantile(lag, 0.5),
        "lag p99 us": quantile(lag, 0.99),
        "TTFT error p50 us": quantile(errors, 0.5) * 1e6,
        "TTFT error p99 us": quantile(errors, 0.99) * 1e6,
        "late p99 us": quantile(late, 0.99) * 1e6,
    }


def quantile(values: Sequence[float], share: float) -> float:
    """Nearest rank, or near enough."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


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
            repeat(fleet, streams, 4, None)
            for number in range(rounds):
                for arm in (*ARMS[number % 3 :], *ARMS[: number % 3]):
                    found[arm].append(repeat(fleet, streams, seconds, page if arm == "with" else None))
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
