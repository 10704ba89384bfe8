"""Runs the benchmark of the client: every client against the same null server, in turns, several rounds.

usage: bench.py [--rounds N] [--quick] [--vllm-rs PATH] [--json FILE]

Tables, each figure a median over the rounds; ratios are taken round by round, so that a machine whose speed drifts
cancels out. CPU is user and system of the client's process from first request to last reply. Errors of TTFT are the
client's first-token stamp less the server's own stamp of that write (both CLOCK_MONOTONIC of this machine), joined by
request id from the server's truth log; the server's own lateness is printed beside them.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CLIENTS = ("C reader", "loadgen", "aiohttp", "httpx", "openai")

Case = tuple[str, list[str], int, int, int]
PACED = ["--ttft-us", "50000", "--gap-us", "10000"]
CASES: list[Case] = [
    # name, flags of the server, streams, requests, tokens
    ("1 stream, 10 ms gaps", PACED, 1, 2, 128),
    ("64 streams, 10 ms gaps", [*PACED, "--spread"], 64, 128, 128),
    ("256 streams, 10 ms gaps", [*PACED, "--spread"], 256, 512, 128),
    ("256 streams, 10 ms gaps, in step", PACED, 256, 512, 128),
    ("1,024 streams, 50 ms gaps", ["--ttft-us", "50000", "--gap-us", "50000", "--spread"], 1024, 1024, 64),
    ("64 streams, flooded", [], 64, 500, 128),
    ("64 streams, flooded, 8 events a write", ["--per-write", "8"], 64, 1000, 128),
]
ACCURACY: list[Case] = [
    ("256 streams, 10 ms gaps", [*PACED, "--spread"], 256, 512, 128),
    ("1,000 streams, 10 ms gaps", [*PACED, "--spread"], 1000, 2000, 50),
    ("1,000 streams, all in one ms", ["--ttft-us", "50000", "--gap-us", "50000", "--grid-us", "50000"], 1000, 2000, 20),
    (
        "role chunk at once, token after 100 ms",
        ["--ttft-us", "100000", "--gap-us", "10000", "--role-early"],
        16,
        64,
        20,
    ),
]


WHOLE: list[Case] = [
    ("64 streams, flooded", [], 64, 2000, 128),
    ("256 streams, 10 ms gaps", [*PACED, "--spread"], 256, 1024, 128),
    ("1,000 streams, 10 ms gaps", [*PACED, "--spread"], 1000, 3000, 100),
]


@contextmanager
def null_server(folder: Path, flags: Sequence[str]) -> Iterator[tuple[int, Path]]:
    """A null server: its port, and the path of its truth log, which is whole once this context is left."""
    truth = folder / "truth.txt"
    process = subprocess.Popen(
        [str(folder / "null_server"), *flags, "--truth", str(truth)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline()), truth
    finally:
        process.terminate()
        process.wait()


def command(client: str, folder: Path, port: int, streams: int, requests: int, tokens: int) -> list[str]:
    numbers = [str(n) for n in (port, streams, requests, tokens)]
    stamps = str(folder / "stamps.txt")
    if client == "C reader":
        return [str(folder / "epoll_reader"), *numbers, stamps]
    if client == "loadgen":
        return [sys.executable, str(HERE / "ours.py"), *numbers, stamps]
    return [sys.executable, str(HERE / "clients.py"), client, *numbers, stamps]


def run(client: str, folder: Path, case: Case) -> dict[str, Any]:
    """One client against one fresh server. ``errors`` are client's first-token stamps less the server's, in ms."""
    _, flags, streams, requests, tokens = case
    with null_server(folder, flags) as (port, truth):
        argv = command(client, folder, port, streams, requests, tokens)
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    found["us_per_token"] = found["cpu_s"] * 1e6 / (requests * tokens)
    found["us_per_request"] = found["cpu_s"] * 1e6 / requests
    found |= joined(folder / "stamps.txt", truth)
    return found


def joined(stamps: Path, truth: Path) -> dict[str, Any]:
    """The client's stamps held against the truth, by request id. Times in ms."""
    true = {}
    for line in truth.read_text().splitlines():
        name, asked, first, _, _, late = line.rsplit(" ", 5)
        true[name] = (int(asked), int(first), int(late))
    errors, reported, actual, lates = [], [], [], []
    for name, sent, first in read_stamps(stamps):
        asked, written, late = true[name]
        errors.append((first - written) / 1e6)
        reported.append((first - sent) / 1e6)
        actual.append((written - asked) / 1e6)
        lates.append(late / 1e6)
    return {"errors": errors, "reported": reported, "actual": actual, "server_late": lates}


def read_stamps(path: Path) -> Iterator[tuple[str, int, int]]:
    for line in path.read_text().splitlines():
        name, sent, first = line.split()
        yield name, int(sent), int(first)


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else float("nan")


def cpu_table(folder: Path, rounds: int, cases: Sequence[Case]) -> list[dict[str, Any]]:
    rows = []
    for case in cases:
        taken: dict[str, list[dict[str, Any]]] = {client: [] for client in CLIENTS}
        for _ in range(rounds):
            for client in CLIENTS:
                taken[client].append(run(client, folder, case))
        base = taken["loadgen"]
        for client in CLIENTS:
            ratios = [ours["cpu_s"] / other["cpu_s"] for ours, other in zip(base, taken[client], strict=True)]
            rows.append(
                {
                    "case": case[0],
                    "client": client,
                    "us_per_token": statistics.median(one["us_per_token"] for one in taken[client]),
                    "us_per_request": statistics.median(one["us_per_request"] for one in taken[client]),
                    "tokens_per_s": statistics.median(case[3] * case[4] / one["wall_s"] for one in taken[client]),
                    "loadgen_over_it": statistics.median(ratios),
                }
            )
            print(row(rows[-1]), flush=True)
    return rows


def row(found: dict[str, Any]) -> str:
    return (
        f"{found['case']:40} {found['client']:9} {found['us_per_token']:8.2f} us/token "
        f"{found['us_per_request']:9.0f} us/request {found['tokens_per_s']:10.0f} tokens/s   "
        f"loadgen / it = {found['loadgen_over_it']:.3f}"
    )


def accuracy_table(folder: Path, rounds: int, cases: Sequence[Case]) -> list[dict[str, Any]]:
    rows = []
    for case in cases:
        for client in CLIENTS:
            runs = [run(client, folder, case) for _ in range(rounds)]

            def median(of: Callable[[dict[str, Any]], float], runs: list[dict[str, Any]] = runs) -> float:
                return statistics.median(of(one) for one in runs)

            rows.append(
                {
                    "case": case[0],
                    "client": client,
                    "true_mean_ms": median(lambda one: statistics.fmean(one["actual"])),
                    "true_p99_ms": median(lambda one: quantile(one["actual"], 0.99)),
                    "reported_mean_ms": median(lambda one: statistics.fmean(one["reported"])),
                    "reported_p99_ms": median(lambda one: quantile(one["reported"], 0.99)),
                    "lag_p50_ms": median(lambda one: quantile(one["errors"], 0.5)),
                    "lag_p99_ms": median(lambda one: quantile(one["errors"], 0.99)),
                    "server_late_p99_ms": median(lambda one: quantile(one["server_late"], 0.99)),
                }
            )
            found = rows[-1]
            print(
                f"{found['case']:40} {client:9} "
                f"TTFT true {found['true_mean_ms']:7.2f} (p99 {found['true_p99_ms']:7.2f})  "
                f"reported {found['reported_mean_ms']:7.2f} (p99 {found['reported_p99_ms']:7.2f})  "
                f"stamp after write {found['lag_p50_ms']:7.3f} (p99 {found['lag_p99_ms']:7.3f}) ms",
                flush=True,
            )
    return rows


def whole_commands(folder: Path, rounds: int, rust: Path) -> list[dict[str, Any]]:
    """CPU of whole commands, from start to exit, all processes: ``loadgen run`` beside vLLM's Rust client."""
    rows = []
    for name, flags, streams, requests, tokens in WHOLE:
        taken: dict[str, list[float]] = {"loadgen run": [], "vllm-rs bench serve": []}
        for _ in range(rounds):
            for client, used in taken.items():
                with null_server(folder, flags) as (port, _):
                    argv = (
                        whole_ours(folder, port, streams, requests, tokens)
                        if client == "loadgen run"
                        else whole_rust(rust, port, streams, requests, tokens)
                    )
                    used.append(cpu_of(argv, folder))
        ratios = [ours / theirs for ours, theirs in zip(*taken.values(), strict=True)]
        rows.append({"case": name, **{client: statistics.median(used) for client, used in taken.items()}})
        rows[-1]["ratio"] = statistics.median(ratios)
        figures = ", ".join(f"{client} {statistics.median(used):.2f} CPU s" for client, used in taken.items())
        print(f"{name:40} {figures}, ratio {rows[-1]['ratio']:.2f}", flush=True)
    return rows


def cpu_of(argv: Sequence[str], folder: Path) -> float:
    """User and system seconds of a command and all that it started and waited for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(argv, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def whole_ours(folder: Path, port: int, streams: int, requests: int, tokens: int) -> list[str]:
    path = folder / "whole.yaml"
    path.write_text(
        f"schema: loadgen/v1\ntargets: {{a: {{endpoint: 'http://127.0.0.1:{port}', model: 'null'}}}}\n"
        f"workload: {{prompts: natural, output: {{exact: {tokens}}}}}\nrepeats: 1\n"
        f"load: {{concurrency: {streams}, warmup_s: 0, requests: {requests}}}\n"
    )
    return [sys.executable, "-m", "loadgen", "run", str(path), "--quiet"]


def whole_rust(rust: Path, port: int, streams: int, requests: int, tokens: int) -> list[str]:
    words = f"bench serve --backend openai-chat --host 127.0.0.1 --port {port} --model null --dataset-name random"
    words += f" --skip-tokenizer-init --prompt-token-ids --random-input-len 16 --random-output-len {tokens}"
    words += f" --num-prompts {requests} --max-concurrency {streams} --disable-tqdm"
    return [str(rust), *words.split()]


def build(folder: Path) -> None:
    for name in ("null_server", "epoll_reader"):
        subprocess.run(["cc", "-O2", "-o", str(folder / name), str(HERE / f"{name}.c")], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Benchmark of the client.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="two cases, one round")
    parser.add_argument("--vllm-rs", type=Path, help="vLLM's Rust client (vllm/vllm-rs of its wheel), to run beside")
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args()
    rounds = 1 if args.quick else args.rounds
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 65536)), hard))
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build(folder)
        cpu = cpu_table(folder, rounds, CASES[2:4] if args.quick else CASES)
        accuracy = accuracy_table(folder, rounds, ACCURACY[:1] if args.quick else ACCURACY)
        whole = whole_commands(folder, rounds, args.vllm_rs.absolute()) if args.vllm_rs else []
    if args.json:
        args.json.write_text(json.dumps({"cpu": cpu, "accuracy": accuracy, "whole": whole}, indent=1) + "\n")


main()
