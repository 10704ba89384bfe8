"""What Ray costs the workers: the same load from a worker started here and from one started by Ray, at the same time.

usage: .venv/bin/python scripts/fleet_cost.py [ROUNDS] [STREAMS] [SECONDS]

Two workers drive the same load side by side, each with STREAMS streams of a token every 20 ms from a null server of its
own, so that whatever else the machine does touches both alike. In one half of the rounds one of them is a local fleet's
and the other a Ray fleet's (a cluster of one node, with a token, that is started for it); in the other half both are
local, which shows what two equal workers differ by here. Prints medians over the rounds, and the median and range of
the ratios: the worker's CPU a token in the window, and with all that it does before and after; how long received bytes
waited for it at worst (lag, by request); how far its stamps of first tokens are from the server's own; lateness; and by
how much the start was off for what was not known of the clocks.
"""

from __future__ import annotations

import os
import secrets
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx

from loadgen.backends import RequestOptions
from loadgen.drive.job import Job, Labels, Shape
from loadgen.fleet import Fleet, local, ray
from loadgen.record import read_records
from loadgen.store import request_files, requests_path

TOKENS = 100
WARMUP_S = 1.0


@contextmanager
def null_server() -> Iterator[str]:
    """A fresh null server: its URL."""
    command = [sys.executable, "-m", "loadgen.null_server", "--ttft-ms", "50", "--gap-ms", "20"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.communicate()


@contextmanager
def one_node() -> Iterator[str]:
    """A Ray cluster of one node: its address."""
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32), RAY_USAGE_STATS_ENABLED="0")
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0, "include_dashboard": False})
    try:
        yield str(cluster.address)
    finally:
        cluster.shutdown()


def repeat(fleet: Fleet, streams: int, seconds: float) -> dict[str, float]:
    """One repeat against a fresh server."""
    shape = Shape(concurrency=streams, ramp_s=WARMUP_S, warmup_s=WARMUP_S, window_s=seconds, drain_s=5)
    with null_server() as url, tempfile.TemporaryDirectory() as folder:
        job = Job(
            labels=Labels(run="r", cell="c", target="t", rep=1, attempt=1, endpoint=url),
            worker=0, workers=1, endpoint=url, backend="openai_chat", options=RequestOptions(model="null"), headers={},
            workload="natural", settings={"tags": ["chat"]}, context={"seed": 1, "ask_tok": TOKENS, "exact": True},
            shape=shape, seed=1, out=str(requests_path(Path(folder), 0)),
        )  # fmt: skip
        outcome = fleet.run([job], lambda _: None, lambda: None)
        truth = httpx.get(f"{url}/truth", timeout=30, trust_env=False).text
        every = list(read_records(request_files(Path(folder))))
    first = {line.rsplit(" ", 5)[0]: int(line.rsplit(" ", 5)[2]) for line in truth.splitlines()}
    records = [one for one in every if one.phase == "measure" and one.status == "ok"]
    # On one machine the offset that was found is the error of finding it: the worker started by so much later.
    start = outcome.start_ns + sum(clock.offset_ns for clock in outcome.clocks)
    errors = [one.t_first - (first[one.request_id()] - start) / 1e9 for one in records if one.t_first]
    late = [one.t_send - one.t_sched for one in records if one.t_send is not None]
    lag = [one.lag_us_max or 0 for one in records]
    ends = (one.t_send * 1e6 + us for one in every if one.t_send is not None for us in one.chunk_us)
    tokens = sum(WARMUP_S * 1e6 <= end < (WARMUP_S + seconds) * 1e6 for end in ends)
    return {
        "CPU us a token": (outcome.audits[0].cpu_share or 0.0) * seconds / tokens * 1e6,
        "with preparation": outcome.audits[0].cpu_s / sum(one.out_tok or 0 for one in every) * 1e6,
        "lag p50 us": quantile(lag, 0.5),
        "lag p99 us": quantile(lag, 0.99),
        "TTFT error p50 us": quantile(errors, 0.5) * 1e6,
        "TTFT error p99 us": quantile(errors, 0.99) * 1e6,
        "late p99 us": quantile(late, 0.99) * 1e6,
        "start off us": (start - outcome.start_ns) / 1e3,
    }


def quantile(values: Sequence[float], share: float) -> float:
    """Nearest rank, or near enough."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def together(fleets: Sequence[Fleet], streams: int, seconds: float) -> list[dict[str, float]]:
    """A repeat of each fleet, all at once."""
    with ThreadPoolExecutor(len(fleets)) as threads:
        return list(threads.map(lambda fleet: repeat(fleet, streams, seconds), fleets))


def main() -> None:
    """Rounds, one after the other."""
    rounds, streams, seconds = (int(word) for word in [*sys.argv[1:], *("8", "64", "6")[len(sys.argv) - 1 :]])
    found: dict[str, list[list[dict[str, float]]]] = {"ray": [], "equal": []}
    with one_node() as address, local.Fleet(1) as here, local.Fleet(1) as equal, ray.Fleet(1, address) as there:
        others: dict[str, Fleet] = {"ray": there, "equal": equal}
        together([here, equal, there], streams, 3)
        for number in range(rounds):
            for arm in ("ray", "equal") if number % 2 else ("equal", "ray"):
                found[arm].append(together([here, others[arm]], streams, seconds))
    print(f"{rounds} rounds, {streams} streams, {seconds} s")
    print(f"{'':20}{'local':>10}{'ray':>10}{'ratio':>8}  range             two local ones")
    for name in found["ray"][0][0]:
        pairs = {arm: [(one[name], other[name]) for one, other in pairs] for arm, pairs in found.items()}
        ratios = {arm: sorted(b / a for a, b in values if a) or [0.0] for arm, values in pairs.items()}
        told = [f"{statistics.median(one):8.2f}  {one[0]:.2f} to {one[-1]:.2f}" for one in ratios.values()]
        first, second = (statistics.median(values) for values in zip(*pairs["ray"], strict=True))
        print(f"{name:20}{first:10.1f}{second:10.1f}{'    '.join(told)}")


main()
