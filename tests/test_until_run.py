"""Runs that add repeats until the interval is narrow, through the command line. At 99 % every interval is narrow after
the fewest repeats, and a busy machine (an invalid repeat) changes nothing of how many there are."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

from cli_runner import Done, command, environment, hear_signals, loadgen, write_scenario
from fakes import FakeServer

ENDPOINTS = """
targets: {a: {endpoint: '{A}', model: m}, b: {endpoint: '{B}', model: m}}
workload: {prompts: natural, output: {exact: 12}}
load: {concurrency: 2, warmup_s: 0, window_s: 0.05}
comparison: {baseline: a, scope: instance, until: 99%}
"""

SERVERS = """
targets:
  a: {engine: ./mine.yaml, model: m, options: {script: '{"ttft_ms": 5, "gap_ms": 1}'}}
  b: {engine: ./mine.yaml, model: m, options: {script: '{"ttft_ms": 5, "gap_ms": 1}'}}
workload: {prompts: natural, output: {exact: 12}}
load: {concurrency: 2, warmup_s: 0, window_s: 0.05}
matrix: {targets.*.options.size: [1, 2]}
comparison: {baseline: a, scope: instance, until: 99%}
"""

RECIPE = """
command: ['{python}', 'ENGINE', --port, '{port}', --truth, truth.jsonl]
options: {script: [--script, '{value}'], size: {env: {SIZE: '{value}'}}}
ready: {path: /health, probe: false}
backend: openai_chat
"""

ENGINE = """
import os, pathlib, sys
here = pathlib.Path(__file__).parent
if sum(os.path.exists(f"/proc/{path.name[3:]}") for path in here.glob("up-*")) >= 2:
    sys.exit("two servers are up, and there is no room for a third")
(here / f"up-{os.getpid()}").touch()
os.execv(sys.executable, [sys.executable, "-S", "PROGRAM", *sys.argv[1:]])
"""


def whole(done: Done) -> dict[str, list[int]]:
    """By target: the repeats that are whole."""
    found: dict[str, list[int]] = {}
    for result in done.results():
        found.setdefault(result.target, []).append(result.rep)
    return found


def test_servers_that_nobody_needs_any_more_are_stopped_before_the_next_cell(tmp_path: Path) -> None:
    engine, program = tmp_path / "engine.py", Path(__file__).with_name("fake_server.py")
    engine.write_text(ENGINE.replace("PROGRAM", str(program)))
    (tmp_path / "mine.yaml").write_text(RECIPE.replace("ENGINE", str(engine)))
    done = loadgen(tmp_path, "run", str(write_scenario(tmp_path, SERVERS)))
    assert done.good, done.err + done.out
    assert whole(done) == {"a": [1, 2, 3, 4, 5, 6] * 2, "b": [1, 2, 3, 4, 5, 6] * 2}
    assert len(json.loads((done.run / "plan.json").read_text())["steps"]) == 2 * 2 * 30
    assert sorted(path.parent.name for path in done.run.glob("servers/*/server.json")) == ["a-1", "a-2", "b-1", "b-2"]
    assert "missing" not in done.report_text()


def test_an_interrupted_run_is_resumed_to_where_the_interval_is_narrow_and_no_further(tmp_path: Path) -> None:
    with FakeServer(ttft_ms=5, gap_ms=1) as a, FakeServer(ttft_ms=5, gap_ms=1) as b:
        path = write_scenario(tmp_path, ENDPOINTS.replace("{A}", a.url).replace("{B}", b.url))
        process = subprocess.Popen(
            command("run", str(path)), cwd=tmp_path, env=environment(tmp_path / "store"),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hear_signals,
        )  # fmt: skip
        deadline = time.monotonic() + 120
        while len(list(tmp_path.glob("store/runs/*/*/cells/*/*/rep-*/attempt-1/summary.json"))) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
        assert process.returncode == 130
        done = loadgen(tmp_path, "run", str(path), "--resume", "last")
        assert done.good, done.err + done.out
        reps = whole(done)
        assert [sorted(set(reps[target])) for target in "ab"] == [[1, 2, 3, 4, 5, 6]] * 2
        before = done.attempts()
        again = loadgen(tmp_path, "run", str(path), "--resume", "last")
        other = loadgen(tmp_path, "run", str(path), "--resume", "last", "--set", "comparison.until=1%")
    assert again.good, again.err + again.out
    assert again.attempts() == before
    assert again.out == done.out
    assert done.description()["status"] == "complete"
    assert other.code == 2
    assert "has another plan than this scenario" in other.err
    assert other.description()["status"] == "complete"
