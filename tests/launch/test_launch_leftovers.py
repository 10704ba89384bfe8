"""Servers whose run was killed with -9: they are found, named, and ended when asked; all others are left alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from loadgen.launch import boot_id, kill_leftover, leftovers, this_process
from loadgen.launch.processes import ProcessId, Tree, end, identify

RECIPE = """
command: ["{python}", -c, "ENGINE", "{port}"]
ready: {probe: false, timeout_s: 30}
stop: {grace_s: 1}
"""

ENGINE = (
    "import http.server, signal, subprocess, sys;"
    "sleep = 'import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)';"
    "subprocess.Popen([sys.executable, '-c', sleep], start_new_session=True);"
    "H = type('H', (http.server.BaseHTTPRequestHandler,), {"
    "'do_GET': lambda s: (s.send_response(200), s.send_header('content-length', '0'), s.end_headers())});"
    "http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), H).serve_forever()"
)

PARENT = """
import sys, time
from pathlib import Path
from loadgen.launch import LaunchSpec, load_recipe, render, start_ready
here = Path(sys.argv[1])
recipe = load_recipe("./mine.yaml", here)
spec = LaunchSpec(name="dense", engine="./mine.yaml", model="m", python=sys.executable)
folder = here / "store/runs/2026-11-21/run-1/servers/dense-1"
server = start_ready(lambda port: render(recipe, spec, port=port, run_id="run-1", launchers=here), folder)
print("ready", flush=True)
time.sleep(600)
"""


@pytest.fixture
def killed_run(tmp_path: Path) -> Iterator[Path]:
    """A store in which a run started a server and was then killed with -9."""
    (tmp_path / "mine.yaml").write_text(RECIPE.replace("ENGINE", ENGINE.replace("\\", "\\\\").replace('"', '\\"')))
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "ready\n"
    parent.stdout.close()
    cookie = record_of(tmp_path / "store")["cookie"]
    yield tmp_path / "store"
    parent.kill()
    parent.wait()
    end(Tree(None, cookie), 0.0)  # a test that fails must not leave its server on the machine


def record_path(store: Path) -> Path:
    (path,) = store.glob("runs/*/*/servers/*/server.json")
    return path


def record_of(store: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(record_path(store).read_text())
    return value


def change(store: Path, **more: Any) -> None:
    record_path(store).write_text(json.dumps(record_of(store) | more))


def eventually(what: Callable[[], bool]) -> bool:
    until = time.monotonic() + 60
    while not what() and time.monotonic() < until:
        time.sleep(0.02)
    return what()


def kill_the_run(store: Path) -> None:
    owner = ProcessId.from_json(record_of(store)["owner"])
    os.kill(owner.pid, signal.SIGKILL)
    assert eventually(lambda: not owner.alive())


def test_a_server_of_a_living_run_is_no_leftover(killed_run: Path) -> None:
    assert leftovers(killed_run) == []


def test_a_server_that_outlived_its_run_is_named_and_ended(killed_run: Path) -> None:
    kill_the_run(killed_run)
    (found,) = leftovers(killed_run)
    record = record_of(killed_run)
    assert (found.run, found.target, found.engine, found.port) == ("run-1", "dense", "mine", record["port"])
    pids = {process.pid for process in found.processes}
    assert record["pid"] in pids
    assert len(pids) == 2  # its child, which is in another session, as well
    assert f"run run-1 was killed and left mine (target dense) on port {found.port}: processes " in found.sentence()
    proof = kill_leftover(found)
    assert proof.ok
    assert proof.port_free
    assert set(proof.killed) == pids - {record["pid"]}
    assert not any(process.alive() for process in found.processes)
    assert leftovers(killed_run) == []
    assert record_of(killed_run)["state"] == "stopped"


def test_a_server_is_found_by_its_cookie_if_the_run_was_killed_before_its_pid_was_written(killed_run: Path) -> None:
    change(killed_run, pid=None, start_ticks=None, create_time=None, processes=[], state="starting")
    kill_the_run(killed_run)
    (found,) = leftovers(killed_run)
    assert len(found.processes) == 2
    assert kill_leftover(found).ok


def test_a_process_that_only_has_the_pid_of_a_recorded_one_is_never_touched(killed_run: Path) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    try:
        kill_the_run(killed_run)
        real = leftovers(killed_run)
        record = record_of(killed_run)
        alien = {"pid": bystander.pid, "start_ticks": 1, "create_time": 1.0}
        change(killed_run, **alien, pgid=bystander.pid, processes=[alien], cookie="another")
        assert leftovers(killed_run) == []
        change(killed_run, **record)
        change(killed_run, processes=[*record["processes"], alien])
        assert kill_leftover(leftovers(killed_run)[0]).ok
        assert bystander.poll() is None
        assert not any(process.alive() for process in real[0].processes)
    finally:
        bystander.kill()
        bystander.wait()


@pytest.mark.parametrize("more", [{"boot_id": "another"}, {"state": "stopped"}, {"schema": "loadgen-server/v9"}])
def test_records_of_another_boot_of_ended_servers_and_of_other_versions_are_passed_over(
    killed_run: Path, more: dict[str, Any]
) -> None:
    kill_the_run(killed_run)
    before = record_of(killed_run)
    change(killed_run, **more)
    assert leftovers(killed_run) == []
    change(killed_run, **before)
    assert len(leftovers(killed_run)) == 1


def test_a_damaged_record_and_an_empty_store_are_no_leftovers(tmp_path: Path) -> None:
    assert leftovers(tmp_path) == []
    folder = tmp_path / "runs/2026-11-21/run-1/servers/a"
    folder.mkdir(parents=True)
    (folder / "server.json").write_text('{"schema": "loadgen-server/v1", "sta')
    assert leftovers(tmp_path) == []


def test_our_own_identity_is_ours_and_no_other_processes() -> None:
    ours = this_process()
    assert ours.pid == os.getpid()
    assert ours.alive()
    assert identify(os.getpid()) == ours
    assert not ProcessId(ours.pid, None if ours.ticks is None else ours.ticks - 1, ours.created - 1).alive()
    assert ProcessId.from_json(json.loads(json.dumps(ours.to_json()))) == ours
    assert boot_id() == boot_id()
