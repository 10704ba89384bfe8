"""What one repeat takes of its worker: for the scripts that ask what telemetry or Ray cost it.

In: a fleet, and a load of streams with a token every 20 ms against a fresh null server. Out: the worker's CPU a token
in the window, and with all that it does before and after; how long received bytes waited for it at worst (lag, by
request); how far its stamps of first tokens are from the server's own; lateness; and of a worker whose node's clock was
measured, by how much the start was off.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import httpx

from loadgen.backends import RequestOptions
from loadgen.drive.job import Job, Labels, Shape
from loadgen.fleet import Fleet
from loadgen.record import read_records
from loadgen.store import request_files, requests_path

TOKENS = 100
WARMUP_S = 1.0


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


def repeat(
    fleet: Fleet,
    streams: int,
    seconds: float,
    beside: Callable[[int], AbstractContextManager[Any]] = lambda _: nullcontext(),
) -> dict[str, float]:
    """One repeat. ``beside`` has the server's pid, and gives what goes on meanwhile."""
    shape = Shape(concurrency=streams, ramp_s=WARMUP_S, warmup_s=WARMUP_S, window_s=seconds, drain_s=5)
    with null_server() as (url, pid), tempfile.TemporaryDirectory() as folder:
        job = Job(
            labels=Labels(run="r", cell="c", target="t", rep=1, attempt=1, endpoint=url),
            worker=0, workers=1, endpoint=url, backend="openai_chat", options=RequestOptions(model="null"), headers={},
            workload="natural", settings={"tags": ["chat"]}, context={"seed": 1, "ask_tok": TOKENS, "exact": True},
            shape=shape, seed=1, out=str(requests_path(Path(folder), 0)),
        )  # fmt: skip
        with beside(pid):
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
        **({"start off us": (start - outcome.start_ns) / 1e3} if outcome.clocks else {}),
    }


def quantile(values: Sequence[float], share: float) -> float:
    """Nearest rank, or near enough."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]
