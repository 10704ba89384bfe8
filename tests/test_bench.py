"""The benchmark of the client (`scripts/bench`) as a command: which clients take part, what it says of them, what it
refuses. Its smallest cases run; nothing here depends on how fast this machine is."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

BENCH = Path(__file__).parents[1] / "scripts" / "benchmark" / "bench.py"
ROLE = "role chunk"
"""A case of `accuracy` in which the first token comes 100 ms after the role chunk."""
FLOOD = "flooded, 128 tokens"

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="the null server is built by cc")

STAND_IN = """#!{python}
import pathlib, sys
pathlib.Path({said!r}).write_text("\\n".join(sys.argv[1:]))
"""
"""In the place of vLLM's Rust client, whose wheel is none of ours: it writes down what it is asked."""


def benched(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(BENCH), *words], capture_output=True, text=True, check=False)


def figures(folder: Path, *words: str) -> tuple[dict[str, list[dict[str, Any]]], str]:
    """What one round of the benchmark wrote and what it printed."""
    path = folder / "figures.json"
    done = benched("--rounds", "1", "--json", str(path), *words)
    assert done.returncode == 0, done.stderr
    return json.loads(path.read_text()), done.stdout


@needs_compiler
def test_the_clients_that_are_named_are_held_beside_ours_and_no_others(tmp_path: Path) -> None:
    found, printed = figures(tmp_path, "--only", "cpu", "--match", FLOOD, "--beside", "C reader", "C reader")
    ours, reader = found["cpu"]
    assert (ours["client"], reader["client"]) == ("loadgen", "C reader")
    assert ours["loadgen_over_it"] == 1
    assert reader["loadgen_over_it"] == pytest.approx(ours["us_per_token"] / reader["us_per_token"])
    assert printed.splitlines()[0].endswith(f"--only cpu --match '{FLOOD}' --beside 'C reader' 'C reader'")


@needs_compiler
def test_the_time_to_first_token_is_that_of_the_token_and_not_of_the_role_chunk(tmp_path: Path) -> None:
    found, _ = figures(tmp_path, "--only", "accuracy", "--match", ROLE, "--beside", "C reader")
    assert [row["client"] for row in found["accuracy"]] == ["loadgen", "C reader"]
    for row in found["accuracy"]:
        assert row["true_mean_ms"] >= 99
        assert row["reported_mean_ms"] >= 99


@needs_compiler
def test_our_driver_can_run_alone(tmp_path: Path) -> None:
    found, _ = figures(tmp_path, "--only", "cpu", "--match", FLOOD, "--beside")
    assert [row["client"] for row in found["cpu"]] == ["loadgen"]


@needs_compiler
def test_whole_commands_are_asked_for_the_same_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said, program = tmp_path / "said.txt", tmp_path / "vllm-rs"
    program.write_text(STAND_IN.format(python=sys.executable, said=str(said)))
    program.chmod(0o700)
    monkeypatch.setenv("LOADGEN_HOME", str(tmp_path / "store"))
    words = ("--only", "whole", "--match", "flooded", "--vllm-rs", str(program), "--tokenizer", str(tmp_path))
    found, _ = figures(tmp_path, *words)
    start, row = found["whole"]
    assert 0 < start["loadgen run"] < row["loadgen run"]
    assert [row["ratio"]] == row["ratios"]
    assert row["ratio"] == pytest.approx(row["loadgen run"] / row["vllm-rs bench serve"])
    asked = said.read_text()
    for pair in ("--num-prompts\n2000", "--max-concurrency\n64", "--random-output-len\n128"):
        assert pair in asked
    assert not (tmp_path / "store").exists()  # its runs are nobody's results


@pytest.fixture
def paced(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A benchmark that takes some seconds yet, with its temporary folder in this one."""
    argv = [sys.executable, str(BENCH), "--rounds", "1", "--only", "cpu", "--match", "1 stream", "--beside"]
    environ = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(argv, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        yield process
        process.kill()


def server_of(bench: subprocess.Popen[bytes]) -> psutil.Process:
    """The null server that a benchmark has just started."""
    parent, deadline = psutil.Process(bench.pid), time.monotonic() + 60
    while time.monotonic() < deadline:
        for child in parent.children():
            if child.name() == "null_server":
                return child
        time.sleep(0.05)
    raise AssertionError("no null server in 60 s")


@needs_compiler
def test_a_benchmark_that_is_ended_leaves_nothing_behind(paced: subprocess.Popen[bytes], tmp_path: Path) -> None:
    server = server_of(paced)
    paced.terminate()
    assert paced.wait(30) == 128 + signal.SIGTERM
    assert not server.is_running()
    assert list(tmp_path.iterdir()) == []


@needs_compiler
def test_the_null_server_of_a_benchmark_that_is_killed_ends_with_it(paced: subprocess.Popen[bytes]) -> None:
    server = server_of(paced)
    paced.kill()
    _, alive = psutil.wait_procs([server], timeout=30)
    assert [one for one in alive if one.status() != psutil.STATUS_ZOMBIE] == []  # where nobody reaps orphans


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("--rounds 0", "--rounds 0: at least one"),
        ("--beside curl", "invalid choice: 'curl' (choose from 'C reader', 'aiohttp', 'httpx', 'openai')"),
        ("--only whole", "--only whole needs --vllm-rs and --tokenizer"),
        ("--vllm-rs /nothing", "--vllm-rs and --tokenizer go together"),
        ("--vllm-rs /nothing --tokenizer /", "--vllm-rs /nothing: no program there"),
        ("--only cpu sends --match nonsense", "--match 'nonsense': no case of cpu, sends has this in its name"),
    ],
)
def test_what_would_give_an_empty_table_is_refused_before_anything_runs(words: str, sentence: str) -> None:
    done = benched(*words.split())
    assert done.returncode == 2
    assert sentence in done.stderr
    assert done.stdout == ""
