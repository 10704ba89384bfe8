"""CPU of whole commands, from start to exit, all processes: ``loadgen run`` beside vLLM's Rust client.

In: that client's binary and a folder with a tokenizer, without which it does nothing. Out: CPU seconds of each, medians
over the rounds, the median of the rounds' ratios, and the most that one process of ours held (MiB, resident). Start-up,
records and report are in it, so it says what a user pays and not what a token costs (`bench.py --only cpu`).
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from server import SPREAD, Case, null_server

WHOLE: list[Case] = [
    ("64 streams, flooded", [], 64, 2000, 128),
    ("256 streams, 10 ms gaps", SPREAD, 256, 1024, 128),
    ("1,000 streams, 10 ms gaps", SPREAD, 1000, 3000, 100),
]


def whole_commands(
    folder: Path, rounds: int, rust: tuple[Path, Path], cases: Sequence[Case]
) -> Iterator[dict[str, Any]]:
    """``rust``: the binary and its tokenizer. The first row is of ours with nothing to do."""
    yield started(folder, rounds)
    for name, flags, streams, requests, tokens in cases:
        taken: dict[str, list[float]] = {"loadgen run": [], "vllm-rs bench serve": []}
        held = 0.0
        for _ in range(rounds):
            for client, used in taken.items():
                with null_server(folder, flags) as (port, _):
                    argv = (
                        whole_ours(folder, port, streams, requests, tokens)
                        if client == "loadgen run"
                        else whole_rust(rust, port, streams, requests, tokens)
                    )
                    cpu_s, mib = cost_of(argv, folder)
                    used.append(cpu_s)
                    held = max(held, mib) if client == "loadgen run" else held
        ratios = [ours / theirs for ours, theirs in zip(*taken.values(), strict=True)]
        found: dict[str, Any] = {"case": name, **{client: statistics.median(used) for client, used in taken.items()}}
        found |= {"ratio": statistics.median(ratios), "ratios": ratios, "peak_mib": held}
        figures = ", ".join(f"{client} {statistics.median(used):.2f} CPU s" for client, used in taken.items())
        print(
            f"{name:40} {figures}, ratio {found['ratio']:.2f} ({min(ratios):.2f} to {max(ratios):.2f}), "
            f"ours {held:.0f} MiB",
            flush=True,
        )
        yield found


def started(folder: Path, rounds: int) -> dict[str, Any]:
    """What ``loadgen run`` costs with one request of one token. Python compiles modules at their first use, once for
    ever: the first run does not count."""
    with null_server(folder, []) as (port, _):
        used = [cost_of(whole_ours(folder, port, 1, 1, 1), folder)[0] for _ in range(1 + rounds)][1:]
    found = {"case": "1 request of 1 token", "loadgen run": statistics.median(used)}
    print(f"{found['case']:40} loadgen run {found['loadgen run']:.2f} CPU s", flush=True)
    return found


def cost_of(argv: Sequence[str], folder: Path) -> tuple[float, float]:
    """User and system seconds of a command and all that it started and waited for, and the resident memory of the
    largest of these processes (MiB; never less than that of this program, from which they come)."""
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryFile() as said:
        command = subprocess.Popen(argv, cwd=folder, stdout=said, stderr=said, env=environ)
        _, status, used = os.wait4(command.pid, 0)
        command.returncode = os.waitstatus_to_exitcode(status)
        if command.returncode not in (0, 5):  # 5: loadgen does not vouch for a flood's times; its CPU is what it is
            said.seek(0)
            text = said.read().decode(errors="replace")[-2000:]
            sys.exit(f"{' '.join(argv)} ended with {command.returncode}: {text}")
    return used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def whole_ours(folder: Path, port: int, streams: int, requests: int, tokens: int) -> list[str]:
    path = folder / "whole.yaml"
    path.write_text(
        f"schema: loadgen/v1\ntargets: {{a: {{endpoint: 'http://127.0.0.1:{port}', model: 'null'}}}}\n"
        f"workload: {{prompts: natural, output: {{exact: {tokens}}}}}\nrepeats: 1\n"
        f"load: {{concurrency: {streams}, warmup_s: 0, requests: {requests}}}\n"
    )
    return [sys.executable, "-m", "loadgen", "run", str(path), "--quiet", "--store", str(folder / "store")]


def whole_rust(rust: tuple[Path, Path], port: int, streams: int, requests: int, tokens: int) -> list[str]:
    binary, tokenizer = rust
    words = f"bench serve --backend openai-chat --host 127.0.0.1 --port {port} --model null --dataset-name random"
    words += f" --prompt-token-ids --random-input-len 16 --random-output-len {tokens}"
    words += f" --num-prompts {requests} --max-concurrency {streams} --disable-tqdm"
    return [str(binary.absolute()), *words.split(), "--tokenizer", str(tokenizer.absolute())]
