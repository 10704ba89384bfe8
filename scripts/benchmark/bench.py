"""Runs the benchmark of the client: every client against the same null server, in turns, several rounds.

usage: bench.py [--rounds N] [--quick] [--only TABLE ...] [--beside CLIENT ...] [--match TEXT] [--json FILE]
                [--vllm-rs PATH --tokenizer FOLDER]
With LOADGEN_PURE=1 in the environment our driver runs in Python alone.

cpu        what a token and a request cost each client
accuracy   the time to first token that each client reports, against the server's
sends      how late requests of our open loop leave
memory     of our driver's process, at two numbers of requests
whole      ``loadgen run`` beside vLLM's Rust client, from start to exit (`whole.py`); only where that client is given

Each figure is a median over the rounds; ratios are taken round by round, so that a machine whose speed drifts cancels
out, and the least and the greatest stand beside them. CPU of a client is user and system of its process from first
request to last reply. Errors of TTFT, lag and lateness come from `join.py`, a program that knows nothing of loadgen: it
joins each client's stamps with the server's truth log by request id.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from server import PACED, SPREAD, Case, null_server
from whole import WHOLE, whole_commands

from loadgen.drive import fast

HERE = Path(__file__).parent
OTHERS = ("C reader", "aiohttp", "httpx", "openai")
"""Clients that ours can be held against."""
TABLES = ("cpu", "accuracy", "sends", "memory", "whole")

CASES: list[Case] = [
    # name, flags of the server, streams, requests, tokens
    ("1 stream, 10 ms gaps", PACED, 1, 2, 256),
    ("64 streams, 10 ms gaps", SPREAD, 64, 128, 256),
    ("256 streams, 10 ms gaps", SPREAD, 256, 512, 256),
    ("256 streams, 10 ms gaps, in step", PACED, 256, 512, 128),
    ("1,024 streams, 50 ms gaps", ["--ttft-us", "50000", "--gap-us", "50000", "--spread"], 1024, 1024, 64),
    ("64 streams, flooded, 128 tokens each", [], 64, 1000, 128),
    ("64 streams, flooded", [], 64, 300, 1024),
    ("64 streams, flooded, 8 events a write", ["--per-write", "8"], 64, 300, 1024),
]
SLOW = ("httpx", "openai")
"""They need minutes for a long flood: they are left out of those. Of accuracy they get one round."""
LONG = 200_000
"""Tokens of a long flood."""
ACCURACY: list[Case] = [
    ("256 streams, 10 ms gaps", SPREAD, 256, 512, 128),
    ("1,000 streams, 10 ms gaps", SPREAD, 1000, 2000, 50),
    ("1,000 streams, all in one ms", ["--ttft-us", "50000", "--gap-us", "50000", "--grid-us", "50000"], 1000, 2000, 20),
    (
        "role chunk at once, token after 100 ms",
        ["--ttft-us", "100000", "--gap-us", "10000", "--role-early"],
        16,
        64,
        20,
    ),
]
SENDS: Case = ("1,000 requests/s, open loop", ["--ttft-us", "5000", "--gap-us", "1000"], 1000, 10_000, 4)
MEMORY = (50_000, 1_000_000)
"""Requests of the runs between which memory may not grow."""


def command(client: str, folder: Path, port: int, case: Case, rate: int = 0) -> list[str]:
    _, _, streams, requests, tokens = case
    numbers = [str(n) for n in (port, streams, requests, tokens)]
    stamps = str(folder / "stamps.txt")
    if client == "C reader":
        return [str(folder / "epoll_reader"), *numbers, stamps]
    if client == "loadgen":
        return [sys.executable, str(HERE / "ours.py"), *numbers, stamps, str(rate)]
    return [sys.executable, str(HERE / "clients.py"), client, *numbers, stamps]


def run(client: str, folder: Path, case: Case, rate: int = 0) -> dict[str, Any]:
    """One client against one fresh server: its CPU, and its times held against the server's (`join.py`)."""
    _, flags, _, requests, tokens = case
    with null_server(folder, flags) as (port, truth):
        argv = command(client, folder, port, case, rate)
        found: dict[str, Any] = json.loads(said_by(argv))
    found["us_per_token"] = found["cpu_s"] * 1e6 / (requests * tokens)
    found["us_per_request"] = found["cpu_s"] * 1e6 / requests
    found["tokens_per_s"] = requests * tokens / found["wall_s"]
    argv = [sys.executable, str(HERE / "join.py"), str(truth), str(folder / "stamps.txt")]
    found |= json.loads(said_by(argv))
    return found


def said_by(argv: Sequence[str]) -> str:
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def takes_part(client: str, case: Case) -> bool:
    return client not in SLOW or case[3] * case[4] < LONG


def cpu_table(folder: Path, rounds: int, cases: Sequence[Case], beside: Sequence[str]) -> Iterator[dict[str, Any]]:
    for case in cases:
        clients = [client for client in ("loadgen", *beside) if takes_part(client, case)]
        taken: dict[str, list[dict[str, Any]]] = {client: [] for client in clients}
        for _ in range(rounds):
            for client in clients:
                taken[client].append(run(client, folder, case))
        for client in clients:
            pairs = zip(taken["loadgen"], taken[client], strict=True)
            ratios = [ours["us_per_token"] / theirs["us_per_token"] for ours, theirs in pairs]
            found = {
                "case": case[0],
                "client": client,
                **{key: median(taken[client], key) for key in ("us_per_token", "us_per_request", "tokens_per_s")},
                "loadgen_over_it": statistics.median(ratios),
                "ratios": ratios,
            }
            print(
                f"{found['case']:40} {client:9} {found['us_per_token']:8.2f} us/token "
                f"{found['us_per_request']:9.0f} us/request {found['tokens_per_s']:10.0f} tokens/s   "
                f"loadgen / it = {found['loadgen_over_it']:.3f} ({min(ratios):.3f} to {max(ratios):.3f})",
                flush=True,
            )
            yield found


def median(runs: Sequence[dict[str, Any]], *path: str) -> float:
    """Of a figure over rounds."""
    values = []
    for one in runs:
        for step in path:
            one = one[step]
        values.append(float(one))  # type: ignore[arg-type]
    return statistics.median(values)


def accuracy_table(folder: Path, rounds: int, cases: Sequence[Case], beside: Sequence[str]) -> Iterator[dict[str, Any]]:
    for case in cases:
        for client in ("loadgen", *beside):
            runs = [run(client, folder, case) for _ in range(1 if client in SLOW else rounds)]
            figures = [(of, stat) for of in ("true", "reported", "error", "lag") for stat in ("mean", "p50", "p99")]
            found: dict[str, Any] = {f"{of}_{stat}_ms": median(runs, of, stat) for of, stat in figures}
            found |= {"case": case[0], "client": client, "server_late_p99_ms": median(runs, "server_late", "p99")}
            print(
                f"{case[0]:40} {client:9} "
                f"TTFT true {found['true_mean_ms']:7.2f} (p99 {found['true_p99_ms']:7.2f})  "
                f"reported {found['reported_mean_ms']:7.2f} (p99 {found['reported_p99_ms']:7.2f})  "
                f"error p99 {found['error_p99_ms']:7.3f}  "
                f"stamp after write {found['lag_p50_ms']:7.3f} (p99 {found['lag_p99_ms']:7.3f}) ms",
                flush=True,
            )
            yield found


def sends_table(folder: Path, rounds: int) -> Iterator[dict[str, Any]]:
    """How late our own requests leave in an open loop; the other clients here have none."""
    runs = [run("loadgen", folder, SENDS, rate=1000) for _ in range(rounds)]
    found: dict[str, Any] = {"case": SENDS[0]}
    said = []
    for stat in ("p50", "p99", "max"):
        values = [one["late"][stat] for one in runs]
        found |= {f"late_{stat}_ms": statistics.median(values), f"late_{stat}_ms_by_round": values}
        said.append(f"{stat} {found[f'late_{stat}_ms']:.3f} ({min(values):.3f} to {max(values):.3f})")
    print(f"{SENDS[0]:40} loadgen   sent after its time: {', '.join(said)} ms", flush=True)
    yield found


def memory_table(folder: Path) -> Iterator[dict[str, Any]]:
    """Peak memory of a worker's process at two numbers of requests. One round: it does not vary."""
    peaks = []
    for requests in MEMORY:
        peaks.append(run("loadgen", folder, ("memory", [], 64, requests, 2))["rss_mib"])
        print(f"{requests:9} requests: peak {peaks[-1]:.1f} MiB", flush=True)
        yield {"requests": requests, "peak_mib": peaks[-1]}
    slope = (peaks[1] - peaks[0]) * 2**20 / (MEMORY[1] - MEMORY[0])
    print(f"that is {slope:.2f} bytes a request", flush=True)


def build(folder: Path) -> None:
    for name in ("null_server", "epoll_reader"):
        subprocess.run(["cc", "-O2", "-o", str(folder / name), str(HERE / f"{name}.c")], check=True)


def run_parts(parts: Mapping[str, Iterator[dict[str, Any]]], only: Sequence[str], into: Path | None) -> None:
    """Runs these parts, one after the other, and writes down each figure when it is there: nothing measured is lost if
    the rest fails."""
    figures: dict[str, list[dict[str, Any]]] = {}
    for part in only:
        figures[part] = []
        for found in parts[part]:
            figures[part].append(found)
            if into:
                into.write_text(json.dumps(figures, indent=1) + "\n")


def asked() -> argparse.Namespace:
    """The command line; ``only`` holds the tables to make, ``cases`` those of each table that has several."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Benchmark of the client.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round, two cases of cpu, one of accuracy, no memory")
    parser.add_argument("--only", nargs="+", choices=TABLES, help="these tables alone")
    parser.add_argument(
        "--beside",
        nargs="*",
        choices=OTHERS,
        default=OTHERS,
        help="hold our driver against these clients alone, in the tables cpu and accuracy; none: our driver alone",
    )
    parser.add_argument("--match", default="", help="cases of cpu, accuracy and whole with this text in their names")
    parser.add_argument("--vllm-rs", type=Path, help="vLLM's Rust client (vllm/vllm-rs of its wheel), to run beside")
    parser.add_argument("--tokenizer", type=Path, help="folder of a tokenizer, without which that client does nothing")
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args()
    args.only = args.only or [table for table in TABLES if table != "whole" or args.vllm_rs]
    args.beside = [client for client in OTHERS if client in args.beside]
    args.rounds = 1 if args.quick else args.rounds
    args.cases = cases_of(args.quick, args.match)
    if sentence := refusal(args):
        parser.error(sentence)
    return args


def refusal(args: argparse.Namespace) -> str | None:
    """What would only be seen after minutes, or look like an empty table."""
    if args.rounds < 1:
        return f"--rounds {args.rounds}: at least one"
    if (args.vllm_rs is None) != (args.tokenizer is None):
        return "--vllm-rs and --tokenizer go together"
    if args.vllm_rs is None and "whole" in args.only:
        return "--only whole needs --vllm-rs and --tokenizer"
    if args.vllm_rs and not shutil.which(args.vllm_rs.absolute()):
        return f"--vllm-rs {args.vllm_rs}: no program there"
    if args.vllm_rs and not args.tokenizer.is_dir():
        return f"--tokenizer {args.tokenizer}: no folder there"
    if args.match and not any(args.cases.get(table) for table in args.only):
        return f"--match {args.match!r}: no case of {', '.join(args.only)} has this in its name"
    return None if shutil.which("cc") else "a C compiler is needed (cc; Debian: apt-get install gcc libc6-dev)"


def cases_of(quick: bool, match: str) -> dict[str, list[Case]]:
    cases = {"cpu": CASES[2:4] if quick else CASES, "accuracy": ACCURACY[:1] if quick else ACCURACY, "whole": WHOLE}
    return {table: [case for case in those if match in case[0]] for table, those in cases.items()}


def main() -> None:
    args = asked()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # nothing is left behind
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 65536)), hard))
    print(shlex.join(["scripts/bench", *sys.argv[1:]]))
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, Python "
        f"{platform.python_version()}, loadgen {'in Python alone' if fast.native is None else 'with its C'}",
        flush=True,
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build(folder)
        tables: dict[str, Iterator[dict[str, Any]]] = {
            "cpu": cpu_table(folder, args.rounds, args.cases["cpu"], args.beside),
            "accuracy": accuracy_table(folder, args.rounds, args.cases["accuracy"], args.beside),
            "sends": sends_table(folder, args.rounds),
            "memory": iter(()) if args.quick else memory_table(folder),
            "whole": whole_commands(folder, args.rounds, (args.vllm_rs, args.tokenizer), args.cases["whole"]),
        }
        run_parts(tables, args.only, args.json)


if __name__ == "__main__":
    main()
