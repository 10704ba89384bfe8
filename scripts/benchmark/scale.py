"""Measures what a client machine holds. The null server shares the machine, so every ceiling is a lower bound.

usage: scale.py [--only cost largest soak] [--rounds N] [--seconds N] [--streams N ...] [--rates N ...] [--json FILE]

cost     CPU of our driver's process at loads that differ in tokens, requests and streams, in turns; by least squares
         what a token, a request and a second of an open stream cost.
largest  `loadgen run` with so many slow streams (a token every five seconds), and what it says of itself.
soak     `loadgen run` at a fixed rate, with the memory of each of its processes every two seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import bench
import numpy as np
import psutil
from server import Case, null_server

STREAMS_AN_ADDRESS = 12_000
"""A source has 28,232 ports for one address, and the kernel hands out half of them quickly: for the other half every
connect searches all of the first."""

PARTS = ("cost", "largest", "soak")

COSTS: list[Case] = [
    # name, flags of the server, streams, requests, tokens; paced, at loads that a worker is meant to run at
    ("512 streams, 20 ms gaps", ["--ttft-us", "50000", "--gap-us", "20000", "--spread"], 512, 1024, 256),
    ("1,024 streams, 40 ms gaps", ["--ttft-us", "50000", "--gap-us", "40000", "--spread"], 1024, 2048, 128),
    ("4,096 streams, 400 ms gaps", ["--ttft-us", "400000", "--gap-us", "400000", "--spread"], 4096, 8192, 16),
    ("256 streams, 4 tokens each", ["--ttft-us", "100000", "--gap-us", "20000", "--spread"], 256, 12288, 4),
    ("512 streams, 8 tokens a write", ["--ttft-us", "50000", "--gap-us", "5000", "--per-write", "8"], 512, 1024, 512),
]
FITTED = 4
"""The first cases, in which every token comes by itself; the last shows what merging saves."""


def cost(folder: Path, rounds: int) -> Iterator[dict[str, Any]]:
    """CPU by case, then the three prices that explain it best."""
    taken: dict[str, list[dict[str, Any]]] = {case[0]: [] for case in COSTS}
    for _ in range(rounds):
        for case in COSTS:
            taken[case[0]].append(bench.run("loadgen", folder, case))
    for case in COSTS:
        name, _, streams, requests, tokens = case
        runs = taken[name]
        found = {
            "case": name,
            "us_per_token": bench.median(runs, "us_per_token"),
            "cores": statistics.median(run["cpu_s"] / run["wall_s"] for run in runs),
            "tokens_per_s": bench.median(runs, "tokens_per_s"),
            "cpu_s": bench.median(runs, "cpu_s"),
            "tokens": requests * tokens,
            "requests": requests,
            "stream_s": streams * bench.median(runs, "wall_s"),
        }
        print(
            f"{name:32} {found['us_per_token']:7.2f} us/token all in, {found['cores'] * 100:4.0f} % of a core, "
            f"{found['tokens_per_s']:8.0f} tokens/s",
            flush=True,
        )
        yield found
    yield prices(list(taken.values()))


def prices(taken: Sequence[Sequence[dict[str, Any]]]) -> dict[str, Any]:
    """us a token, a request and a stream's second: non-negative least squares on each round, relative to its CPU."""
    from scipy.optimize import nnls

    found = []
    for runs in zip(*taken[:FITTED], strict=True):
        rows = [
            [requests * tokens, requests, streams * run["wall_s"]]
            for (_, _, streams, requests, tokens), run in zip(COSTS, runs, strict=False)
        ]
        cpu = np.array([run["cpu_s"] * 1e6 for run in runs])
        found.append(nnls(np.array(rows) / cpu[:, None], np.ones(len(cpu)))[0])
    token, request, stream = (float(value) for value in np.median(found, axis=0))
    print(f"a token {token:.2f} us, a request {request:.0f} us, an open stream {stream:.1f} us a second", flush=True)
    return {"us_per_token": token, "us_per_request": request, "us_per_stream_s": stream}


@contextmanager
def servers(folder: Path, flags: Sequence[str], count: int) -> Iterator[int]:
    """``count`` null servers that share one port on every loopback address: the kernel deals connections out."""
    with ExitStack() as stack:
        port = 0
        for _ in range(count):
            argv = [str(folder / "null_server"), "--with-parent", *flags, "--share", "--port", str(port)]
            process = stack.enter_context(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True))
            stack.callback(process.terminate)
            assert process.stdout is not None
            port = int(process.stdout.readline())
        yield port


def largest(folder: Path, streams: Sequence[int], seconds: float) -> Iterator[dict[str, Any]]:
    """So many streams at once, each with a token every five seconds: connections, not tokens, are what is tried."""
    flags = ["--ttft-us", "2000000", "--gap-us", "5000000", "--spread"]
    for count in streams:
        workers = max(2, -(-count // 16_000))
        with servers(folder, flags, -(-count // 16_000)) as port:
            load = {
                "concurrency": count,
                "workers": workers,
                "ramp_s": max(40.0, count / 1000),  # the life of a request: else all of them run in step
                "warmup_s": max(40.0, count / 1000) + 5,
                "window_s": seconds,
                "drain_s": 60,
                "interval_s": 10,
            }
            urls = [f"http://127.0.0.{1 + number}:{port}" for number in range(-(-count // STREAMS_AN_ADDRESS))]
            summary, result = loadgen_run(folder, urls, load, tokens=8)
        found = {
            "streams": count,
            "workers": workers,
            "in_flight": summary["in_flight"],
            "ok": summary["ok"],
            "failed": summary["failed"],
            "tokens_per_s": summary["output_tok_s"],
            "worker_cpu": summary["audit"]["worker_cpu"],
            "late_p99_ms": (summary["audit"]["late_p99_s"] or 0) * 1e3,
            "ttft_p50_ms": (summary["ttft_s"]["p50"] or 0) * 1e3,
            "worker_mib": [audit["rss_mib"] for audit in result["workers"]],
            "state": summary["state"],
            "invalid": [doubt["code"] for doubt in summary["invalid"]],
            "errors": summary["errors"],
        }
        print(json.dumps(found), flush=True)
        yield found


def loadgen_run(
    folder: Path, urls: Sequence[str], load: dict[str, Any], tokens: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The summary and the result of one repeat of a whole `loadgen run`."""
    argv = command(folder, urls, load, tokens)
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    if done.returncode not in (0, 5):
        sys.exit(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr[-2000:]}")
    path = max(folder.glob("store/runs/*/*/cells/*/*/*/*/summary.json"), key=lambda path: path.stat().st_mtime)
    result = json.loads(path.read_text())
    return result["summary"], result


def command(folder: Path, urls: Sequence[str], load: dict[str, Any], tokens: int) -> list[str]:
    scenario = {
        "schema": "loadgen/v1",
        "targets": {"a": {"endpoints": list(urls), "model": "null"}},
        "workload": {"prompts": "natural", "output": {"exact": tokens}},
        "repeats": 1,
        "load": load,
    }
    path = folder / "scale.yaml"
    path.write_text(json.dumps(scenario))
    return [sys.executable, "-m", "loadgen", "run", str(path), "--quiet", "--store", str(folder / "store")]


def soak(folder: Path, rates: Sequence[float], seconds: float) -> Iterator[dict[str, Any]]:
    """Memory of parent and worker over a run, at each rate: what a record leaves behind while it goes on, and at its
    end, when everything is summed up."""
    for rate in rates:
        load = {"rate_rps": rate, "workers": 1, "warmup_s": 10, "window_s": seconds, "interval_s": 10, "drain_s": 10}
        with null_server(folder, ["--ttft-us", "20000", "--gap-us", "5000"]) as (port, _):
            seen = watched(command(folder, [f"http://127.0.0.1:{port}"], load, tokens=8))
        ended = 10 + seconds
        found: dict[str, Any] = {"rate_rps": rate, "seconds": seconds}
        for name, looks in seen.items():
            during = [(t, rss) for t, rss in looks if 0.2 * ended < t < ended]
            slope = float(np.polyfit(*zip(*during, strict=True), 1)[0]) if len(during) > 2 else float("nan")
            found[name] = {
                "mib_at_a_fifth": during[0][1] / 2**20,
                "mib_at_the_end": during[-1][1] / 2**20,
                "bytes_a_record": slope / rate,
                "peak_mib": max(rss for _, rss in looks) / 2**20,
            }
            print(f"{rate:6.0f} requests/s for {seconds:.0f} s: {name:9} {json.dumps(found[name])}", flush=True)
        yield found


def watched(argv: Sequence[str]) -> dict[str, list[tuple[float, float]]]:
    """(seconds from the first sight, resident bytes) of a command and of what it starts, every two seconds."""
    seen: dict[str, list[tuple[float, float]]] = {}
    began = time.monotonic()
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL) as parent, ExitStack() as stack:
        stack.callback(parent.terminate)  # where we are ended first
        while parent.poll() is None:
            processes = {"parent": psutil.Process(parent.pid)}
            try:
                children = processes["parent"].children()
                processes |= {f"worker {number}": child for number, child in enumerate(children)}
                for name, process in processes.items():
                    look = (time.monotonic() - began, float(process.memory_info().rss))
                    seen.setdefault(name, []).append(look)
            except psutil.Error:  # it has just ended
                pass
            time.sleep(2)
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(description="What a client machine holds.")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60.0, help="windows of `largest` and `soak`")
    parser.add_argument("--streams", nargs="+", type=int, default=[1000, 10_000, 20_000, 40_000])
    parser.add_argument("--rates", nargs="+", type=float, default=[200, 1000])
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # nothing is left behind
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 65536)), hard))
    machine = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(f"{machine}, Linux {platform.release()}, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bench.build(folder)
        parts: dict[str, Iterator[dict[str, Any]]] = {
            "cost": cost(folder, args.rounds),
            "largest": largest(folder, args.streams, args.seconds),
            "soak": soak(folder, args.rates, args.seconds),
        }
        bench.run_parts(parts, args.only, args.json)


if __name__ == "__main__":
    main()
