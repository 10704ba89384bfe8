"""A search through the command line against a real HTTP server with a known capacity, and one that is killed."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

from cli_runner import Done, command, environment, loadgen, write_scenario
from simulated_server import SimulatedServer

from loadgen.store import read_json

SCENARIO = """\
targets: {{sim: {{endpoint: '{url}', model: m}}}}
workload: {{prompts: natural, output: {{exact: 4}}}}
"""

MAX_RATE = """\
load: {arrival: constant, warmup_s: 0.3, window_s: 1.5, drain_s: 0.2}
search: {find: max_rate, start: 160, most: 230, probes: 12}
objectives: [p95 ttft < 0.15 s, error_rate < 2 %]
"""

MAX_CONCURRENCY = """\
load: {warmup_s: 0.1, window_s: 0.5, ramp_s: 0.1}
search: {find: max_concurrency, start: 2, probes: 5}
objectives: [p50 ttft < 0.09 s]
"""


def test_the_capacity_of_a_server_that_shows_it_by_latency_alone_is_found(tmp_path: Path) -> None:
    with SimulatedServer(slots=40, step_ms=50) as server:  # 40 / (0.05 s x 4 tokens) = 200 requests a second
        path = write_scenario(tmp_path, SCENARIO.format(url=server.url) + MAX_RATE)
        done = loadgen(tmp_path, "run", str(path))
    assert done.good, done.err + done.out
    (found,) = json.loads((done.run / "report.json").read_text())["searches"]
    assert len(found["probes"]) <= 12
    if done.code == 5:  # this machine was too busy to send in time, and the report says so
        assert "the client itself was the limit" in done.out
        return
    assert 190 <= found["answer"]["met"] <= 200 * 1.02
    assert 200 <= found["answer"]["missed"] <= 210
    assert found["sentence"] in done.out


def test_a_search_that_is_killed_goes_on_with_the_probe_it_was_killed_in(tmp_path: Path) -> None:
    with SimulatedServer(slots=8, step_ms=40) as server:
        path = write_scenario(tmp_path, SCENARIO.format(url=server.url) + MAX_CONCURRENCY)
        store = tmp_path / "store"
        killed = subprocess.Popen(
            command("run", str(path), "--quiet"), cwd=tmp_path, env=environment(store), start_new_session=True
        )
        probes = _wait_for_probes(store, 3)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        whole = {file: file.read_bytes() for file in store.glob("runs/*/*/cells/*/*/rep-*/attempt-*/summary.json")}
        plan = (probes.parent / "plan.json").read_bytes()
        done = loadgen(tmp_path, "run", str(path), "--resume", "last")
    assert done.good, done.err + done.out
    assert len(whole) >= 2
    assert all(file.read_bytes() == data for file, data in whole.items())
    assert (done.run / "plan.json").read_bytes() == plan
    numbers = [probe["number"] for probe in read_json(done.run / "probes.json")["probes"]]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(_attempts(done)) == len(numbers) + 1


def _wait_for_probes(store: Path, number: int) -> Path:
    """The list of probes, once it has so many."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for path in store.glob("runs/*/*/probes.json"):
            if len(read_json(path)["probes"]) >= number:
                time.sleep(0.2)  # into the middle of the probe
                return path
        time.sleep(0.02)
    raise AssertionError("no probes came")


def _attempts(done: Done) -> list[Path]:
    return list(done.run.glob("cells/*/*/rep-*/attempt-*"))
