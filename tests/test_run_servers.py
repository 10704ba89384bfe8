"""Runs whose servers misbehave: they die, never get ready, leave something behind, or are left behind themselves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_runner import Done, command, environment, hear_signals, loadgen, write_scenario

from loadgen.launch import kill_leftover, leftovers

ENGINE = """
import os, signal, socket, subprocess, sys, time
mode, port, program = sys.argv[1:]
if mode == "broken":
    sys.exit("no kernel for this card")
if mode == "slow":
    print("still loading", flush=True)
    time.sleep(600)
if mode == "leaving" and os.fork() == 0:
    os.setsid()
    if os.fork() == 0:  # it has left in every way there is: parent, session and, after this, environment
        held = (
            "import os, socket, sys, time\\n"
            "open('escaped', 'w').write(str(os.getpid()))\\n"
            "until = time.monotonic() + 60\\n"
            "while socket.socket().connect_ex(('127.0.0.1', int(sys.argv[1]))):\\n"
            "    time.sleep(0.01)\\n"
            "server = socket.socket()\\n"
            "server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)\\n"
            "while time.monotonic() < until:\\n"
            "    try:\\n"
            "        server.bind(('127.0.0.1', int(sys.argv[1]))); server.listen()\\n"
            "        open('held', 'w').close(); time.sleep(60)\\n"
            "    except OSError:\\n"
            "        time.sleep(0.01)\\n"
        )
        os.execve(sys.executable, [sys.executable, "-S", "-c", held, port], {})
    os._exit(0)
script = '{"ttft_ms": 5, "gap_ms": 1}'
engine = subprocess.Popen([sys.executable, "-S", program, "--port", port, "--truth", "truth", "--script", script])
signal.signal(signal.SIGTERM, lambda *_: engine.terminate())
while engine.poll() is None:
    time.sleep(0.02)
    if mode == "dying" and os.path.exists("truth") and open("truth").read().count("\\n") >= 8:
        engine.kill()
        print("out of pages", flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
while mode == "leaving" and not os.path.exists("held"):  # or whoever looks at the port now finds it free
    time.sleep(0.01)
"""

RECIPE = """
command: ['{python}', ENGINE, '{mode}', '{port}', PROGRAM]
ready: {path: /health, probe: false, timeout_s: TIMEOUT}
stop: {grace_s: 20}
"""

TWO = """
targets:
  a: {engine: ./MODE.yaml, model: m}
  b: {engine: ./good.yaml, model: m}
workload: {prompts: natural, output: {exact: 12}}
load: {concurrency: 2, warmup_s: 0, window_s: SECONDS}
repeats: REPEATS
comparison: {baseline: a, scope: restart}
"""

ONE = """
targets: {a: {engine: ./good.yaml, model: m}}
workload: {prompts: natural, output: {exact: 12}}
load: {concurrency: 2, warmup_s: 0, window_s: SECONDS}
repeats: 1
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A folder with an engine for every way of misbehaving; none of them outlives the test."""
    (tmp_path / "engine.py").write_text(ENGINE)
    program = Path(__file__).with_name("fake_server.py")
    for mode in ("good", "broken", "slow", "leaving", "dying"):
        text = RECIPE.replace("ENGINE", f"'{tmp_path}/engine.py'").replace("PROGRAM", f"'{program}'")
        text = text.replace("{mode}", mode).replace("TIMEOUT", "1" if mode == "slow" else "60")
        (tmp_path / f"{mode}.yaml").write_text(text)
    yield tmp_path
    for left in leftovers(tmp_path / "store"):
        kill_leftover(left)
    for file in tmp_path.rglob("escaped"):
        os.kill(int(file.read_text()), signal.SIGKILL)


def run(place: Path, text: str, *, mode: str = "good", seconds: float = 0.5, repeats: int = 1) -> Done:
    return loadgen(place, "run", str(written(place, text, mode=mode, seconds=seconds, repeats=repeats)))


def written(place: Path, text: str, *, mode: str = "good", seconds: float = 0.5, repeats: int = 1) -> Path:
    values = {"MODE": mode, "SECONDS": str(seconds), "REPEATS": str(repeats)}
    for word, value in values.items():
        text = text.replace(word, value)
    return write_scenario(place, text)


def servers(done: Path) -> dict[str, dict[str, Any]]:
    """Every server.json of a run, by the name of its folder."""
    return {path.parent.name: json.loads(path.read_text()) for path in sorted(done.glob("servers/*/server.json"))}


def eventually(what: Callable[[], bool], seconds: float = 120.0) -> bool:
    until = time.monotonic() + seconds
    while not what() and time.monotonic() < until:
        time.sleep(0.05)
    return what()


def killed_in_the_middle(place: Path) -> subprocess.Popen[str]:
    """A run that was killed with -9 while its server was being measured."""
    process = subprocess.Popen(
        command("run", str(written(place, ONE, seconds=60))), cwd=place, env=environment(place / "store"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert eventually(lambda: any(path.stat().st_size for path in place.rglob("requests-*.jsonl")))
    process.kill()
    process.communicate()
    return process


def test_a_server_that_dies_is_started_once_more_and_then_its_configuration_is_given_up(place: Path) -> None:
    done = run(place, TWO, mode="dying", seconds=1.0, repeats=3)
    assert done.code == 6, done.err
    states = {name: record["state"] for name, record in servers(done.run).items()}
    assert sorted(states) == ["a-1", "a-2", "b-1", "b-2", "b-3"]  # a-3 was not tried
    assert set(states.values()) == {"stopped"}
    assert set(done.description()["servers"]) == set(states)
    assert "a is started once more: its server died." in done.err
    assert done.err.count("died in the middle of the run, ended by SIGKILL") >= 2
    assert "out of pages" in done.err  # its log's last line
    third = next(failure for failure in done.description()["failures"] if "a, repeat 3" in failure)
    assert "target a: its server died twice and is given up" in third
    whole = [result.target for result in done.results() if result.summary.state != "failed"]  # of a, noticed at its end
    assert whole == ["b", "b", "b"]
    assert done.description()["status"] == "degraded"


def test_the_death_of_a_server_ends_its_repeat_at_once(place: Path) -> None:
    begun = time.monotonic()
    done = run(place, ONE.replace("good", "dying"), seconds=120)
    assert time.monotonic() - begun < 100  # some seconds, and never the window
    assert done.code == 6
    (attempt,) = done.attempts()
    assert not (attempt / "summary.json").exists()
    assert "died in the middle of the run" in done.err


def test_a_restart_in_a_standing_run_keeps_the_record_of_the_first_server(place: Path) -> None:
    done = run(place, TWO.replace("restart", "instance"), mode="dying", seconds=1.0, repeats=3)
    assert done.code == 6, done.err
    assert sorted(servers(done.run)) == ["a-1", "a-1-2", "b-1"]
    assert sorted(done.description()["servers"]) == ["a-1", "a-1-2", "b-1"]


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("broken", "died while loading, exit code 1"),
        ("slow", "was not ready after 1 s; it still waits for GET /health"),
    ],
)
def test_a_server_that_never_gets_ready_is_tried_once_and_costs_nobody_else(place: Path, mode: str, said: str) -> None:
    done = run(place, TWO, mode=mode, repeats=2)
    assert done.code == 6, done.err
    assert said in done.err
    assert {"broken": "no kernel for this card", "slow": "still loading"}[mode] in done.err
    assert "server.log" in done.err
    assert sorted(servers(done.run)) == ["a-1", "b-1", "b-2"]
    failures = done.description()["failures"]
    assert len(failures) == 2
    assert done.description()["servers"]["a-1"]["startup_s"] is None
    assert "target a: it is not started again" in failures[1]
    assert [result.target for result in done.results()] == ["b", "b"]


def test_a_program_that_is_not_there_is_a_sentence(place: Path) -> None:
    (place / "absent.yaml").write_text("command: [no-such-engine]\ninstall: get it from its makers.\n")
    done = run(place, ONE.replace("good", "absent"))
    assert done.code == 6
    assert "absent (target a): there is no program 'no-such-engine' here: get it from its makers." in done.err
    assert "Traceback" not in done.err


def test_a_model_is_made_by_the_targets_own_python_beside_the_scenario(tmp_path: Path) -> None:
    beside = tmp_path / "elsewhere"
    beside.mkdir()
    (beside / "python").write_text("#!/bin/sh\necho here I am\nexit 3\n")
    (beside / "python").chmod(0o755)
    (beside / "config.json").write_text("{}")
    text = "targets: {a: {engine: hf, python: ./python, model: {config: config.json}}}\nrepeats: 1\n"
    text += "workload: {prompts: natural, output: {exact: 2}}\nload: {concurrency: 1, requests: 1, warmup_s: 0}\n"
    done = loadgen(tmp_path, "run", str(write_scenario(beside, text)))
    assert done.code == 6
    assert "exit code 3" in done.err
    assert "here I am" in done.err


def test_what_a_server_leaves_fails_its_cell_and_weakens_what_is_measured_beside_it(place: Path) -> None:
    done = run(place, TWO, mode="leaving")
    assert done.code == 6, done.err
    (escaped,) = done.run.glob("servers/a-1/escaped")
    os.kill(int(escaped.read_text()), 0)  # it cannot be known as the server's, so it was not touched
    first, second = sorted(done.results(), key=lambda result: result.target)
    assert (first.target, first.summary.state) == ("a", "failed")
    assert first.summary.invalid[0].code == "left_behind"
    assert "is still in use by a process that is none of the server's" in first.summary.invalid[0].text
    assert (second.target, second.summary.state) != ("b", "failed")
    assert "left_behind" in {doubt.code for doubt in second.summary.doubts}
    assert servers(done.run)["a-1"]["state"] == "left"
    assert any("is still in use" in failure for failure in done.description()["failures"])
    assert "is still in use" in done.err
    assert done.description()["status"] == "degraded"


def test_a_run_that_was_killed_is_named_by_the_next_one_which_leaves_its_server_alone(place: Path) -> None:
    killed_in_the_middle(place)
    (left,) = leftovers(place / "store")
    done = run(place, ONE)
    assert f"was killed and left good (target a) on port {left.port}: processes" in done.err
    assert all(process.alive() for process in left.processes)
    assert kill_leftover(left).ok
    assert not any(process.alive() for process in left.processes)
    assert leftovers(place / "store") == []


def test_a_resumed_run_does_not_lose_sight_of_the_server_that_the_killed_one_left(place: Path) -> None:
    killed_in_the_middle(place)
    path = written(place, ONE, seconds=60)
    (before,) = leftovers(place / "store")
    process = subprocess.Popen(
        command("run", str(path), "--resume", "last"), cwd=place, env=environment(place / "store"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=hear_signals,
    )  # fmt: skip
    assert eventually(lambda: len(list(place.rglob("server.json"))) == 2)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    assert process.returncode == 130
    (after,) = leftovers(place / "store")
    assert after.folder == before.folder
    assert kill_leftover(after).ok


@pytest.mark.parametrize(("scope", "kept"), [("restart", ["a-2"]), ("instance", ["a-1", "b-1"])])
def test_keep_leaves_up_those_that_no_later_start_needs_the_place_of(place: Path, scope: str, kept: list[str]) -> None:
    text = TWO.replace("restart", scope)
    done = loadgen(place, "run", str(written(place, text, repeats=2)), "--keep")
    assert done.good, done.err + done.out
    found = {left.folder.name: left for left in leftovers(place / "store")}
    assert sorted(found) == kept
    for name, record in servers(done.run).items():
        assert record["state"] == ("kept" if name in kept else "stopped")
    for left in found.values():
        assert left.kept
        assert f"{left.target} stays up at http://127.0.0.1:{left.port}" in done.err
        with urllib.request.urlopen(f"http://127.0.0.1:{left.port}/health", timeout=60) as reply:
            assert reply.status == 200
        assert kill_leftover(left).ok
    assert "loadgen doctor --stop" in done.err
