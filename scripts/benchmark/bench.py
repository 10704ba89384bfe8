"""Runs the benchmark of the client: every client against the same null server, in turns, several rounds.

usage: bench.py [--rounds N] [--quick] [--only TABLE ...] [--match TEXT] [--json FILE]
                [--vllm-rs PATH --tokenizer FOLDER]
With LOADGEN_PURE=1 in the environment our driver runs in Python alone.

Tables, each figure a median over the rounds; ratios are taken round by round, so that a machine whose speed drifts
cancels out. CPU is user and system of the client's process from first request to last reply. Errors of TTFT, lag and
lateness come from `join.py`, a program that knows nothing of loadgen: it joins each client's stamps with the server's
truth log by request id.
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
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from loadgen.drive import fast

HERE = Path(__file__).parent
CLIENTS = ("C reader", "loadgen", "aiohttp", "httpx", "openai")
TABLES = ("cpu", "accuracy", "sends", "memory", "whole")

Case = tuple[str, list[str], int, int, int]
PACED = ["--ttft-us", "50000", "--gap-us", "10000"]
SPREAD = [*PACED, "--spread"]
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
        time.sleep(0.2)  # a client can be through before the server has written down its last replies
    finally:
        process.terminate()
        process.wait()


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
    return found | json.loads(said_by(argv))


def said_by(argv: Sequence[str]) -> str:
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def takes_part(client: str, case: Case) -> bool:
    return client not in SLOW or case[3] * case[4] < LONG


def cpu_table(folder: Path, rounds: int, cases: Sequence[Case]) -> Iterator[dict[str, Any]]:
    for case in cases:
        clients = [client for client in CLIENTS if takes_part(client, case)]
        taken: dict[str, list[dict[str, Any]]] = {client: [] for client in clients}
        for _ in range(rounds):
            for client in clients:
                taken[client].append(run(client, folder, case))
        for client in clients:
            pairs = zip(taken["loadgen"], taken[client], strict=True)
            found = {
                "case": case[0],
                "client": client,
                **{key: median(taken[client], key) for key in ("us_per_token", "us_per_request", "tokens_per_s")},
                "loadgen_over_it": statistics.median(a["us_per_token"] / b["us_per_token"] for a, b in pairs),
            }
            print(
                f"{found['case']:40} {client:9} {found['us_per_token']:8.2f} us/token "
                f"{found['us_per_request']:9.0f} us/request {found['tokens_per_s']:10.0f} tokens/s   "
                f"loadgen / it = {found['loadgen_over_it']:.3f}",
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


def accuracy_table(folder: Path, rounds: int, cases: Sequence[Case]) -> Iterator[dict[str, Any]]:
    for case in cases:
        for client in CLIENTS:
            runs = [run(client, folder, case) for _ in range(1 if client in SLOW else rounds)]
            figures = [(of, stat) for of in ("true", "reported", "error", "lag") for stat in ("mean", "p50", "p99")]
            found = {f"{of}_{stat}_ms": median(runs, of, stat) for of, stat in figures}
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
    found = {"case": SENDS[0], **{f"late_{stat}_ms": median(runs, "late", stat) for stat in ("p50", "p99", "max")}}
    print(
        f"{SENDS[0]:40} loadgen   sent after its time: p50 {found['late_p50_ms']:.3f}, p99 {found['late_p99_ms']:.3f}, "
        f"max {found['late_max_ms']:.3f} ms",
        flush=True,
    )
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


def whole_commands(folder: Path, rounds: int, rust: tuple[Path, Path]) -> Iterator[dict[str, Any]]:
    """CPU of whole commands, from start to exit, all processes: ``loadgen run`` beside vLLM's Rust client."""
    for name, flags, streams, requests, tokens in WHOLE:
        taken: dict[str, list[float]] = {"loadgen run": [], "vllm-rs bench serve": []}
        with null_server(folder, flags) as (port, _):  # Python compiles modules at their first use, once for ever
            cpu_of(whole_ours(folder, port, 1, 1, 1), folder)
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
        found: dict[str, Any] = {"case": name, **{client: statistics.median(used) for client, used in taken.items()}}
        found["ratio"] = statistics.median(ratios)
        figures = ", ".join(f"{client} {statistics.median(used):.2f} CPU s" for client, used in taken.items())
        print(f"{name:40} {figures}, ratio {found['ratio']:.2f}", flush=True)
        yield found


def cpu_of(argv: Sequence[str], folder: Path) -> float:
    """User and system seconds of a command and all that it started and waited for."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(argv, cwd=folder, check=False, capture_output=True, text=True, env=environ)
    if done.returncode not in (0, 5):  # 5: loadgen does not vouch for a flood's times; its CPU is what it is
        sys.exit(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr[-2000:]}")
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


def whole_rust(rust: tuple[Path, Path], port: int, streams: int, requests: int, tokens: int) -> list[str]:
    binary, tokenizer = rust
    words = f"bench serve --backend openai-chat --host 127.0.0.1 --port {port} --model null --dataset-name random"
    words += f" --prompt-token-ids --random-input-len 16 --random-output-len {tokens}"
    words += f" --num-prompts {requests} --max-concurrency {streams} --disable-tqdm"
    return [str(binary), *words.split(), "--tokenizer", str(tokenizer)]


def chosen(cases: Sequence[Case], text: str) -> list[Case]:
    return [case for case in cases if text in case[0]]


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


def main() -> None:
    parser = argparse.ArgumentParser(description="Benchmark of the client.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="two cases, one round")
    parser.add_argument("--only", nargs="+", choices=TABLES, default=TABLES, help="these tables alone")
    parser.add_argument("--match", default="", help="these cases alone: those with this text in their names")
    parser.add_argument("--vllm-rs", type=Path, help="vLLM's Rust client (vllm/vllm-rs of its wheel), to run beside")
    parser.add_argument("--tokenizer", type=Path, help="folder of a tokenizer, without which that client does nothing")
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args()
    if args.vllm_rs and not args.tokenizer:
        parser.error("--vllm-rs needs --tokenizer")
    rust = (args.vllm_rs.absolute(), args.tokenizer.absolute()) if args.vllm_rs else None
    rounds = 1 if args.quick else args.rounds
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 65536)), hard))
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, Python "
        f"{platform.python_version()}, loadgen {'in Python alone' if fast.native is None else 'with its C'}"
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build(folder)
        tables: dict[str, Iterator[dict[str, Any]]] = {
            "cpu": cpu_table(folder, rounds, chosen(CASES[2:4] if args.quick else CASES, args.match)),
            "accuracy": accuracy_table(folder, rounds, chosen(ACCURACY[:1] if args.quick else ACCURACY, args.match)),
            "sends": sends_table(folder, rounds),
            "memory": iter(()) if args.quick else memory_table(folder),
            "whole": whole_commands(folder, rounds, rust) if rust else iter(()),
        }
        run_parts(tables, args.only, args.json)


if __name__ == "__main__":
    main()
