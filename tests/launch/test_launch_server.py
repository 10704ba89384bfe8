"""Servers that serve, refuse to die, leave children and containers, and are gone after the stop."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest
from fake_engine import ENGINE, STAND_IN, Make, eventually, kept

from loadgen.errors import LaunchError
from loadgen.launch import (
    LaunchSpec,
    load_recipe,
    render,
    start_ready,
)
from loadgen.launch.processes import ProcessId, row_of


def test_a_server_becomes_ready_serves_and_is_gone_after_the_stop(make: Make, folder: Path) -> None:
    server = start_ready(make("warming", options={"delay": 0.2, "say": ["it has 2,048 pages"]}), folder)
    assert server.alive()
    assert server.exit_code is None
    state = kept(folder)
    assert state["state"] == "ready"
    assert state["startup_s"] >= 0.2
    assert state["facts"] == {"version": "1.10", "kv_tokens": 128, "pages": 2048, "silent": None}
    pid = server.describe()["pid"]
    proof = server.stop()
    assert proof.ok
    assert proof.exit_code == -signal.SIGTERM
    assert proof.killed == ()
    assert proof.port_free
    assert not server.alive()
    assert server.stop() is proof
    assert kept(folder)["state"] == "stopped"
    assert kept(folder)["proof"]["ok"] is True
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_server_that_ignores_sigterm_is_killed_after_the_grace(make: Make, folder: Path) -> None:
    server = start_ready(make("deaf"), folder)
    begun = time.monotonic()
    proof = server.stop()
    assert proof.ok
    assert proof.exit_code == -signal.SIGKILL
    assert proof.killed == (server.describe()["pid"],)
    assert time.monotonic() - begun >= 1.0


@pytest.mark.parametrize("mode", ["child", "orphan"])
def test_children_that_left_or_ignore_sigterm_do_not_outlive_the_server(make: Make, folder: Path, mode: str) -> None:
    server = start_ready(make(mode), folder)
    leader = server.describe()["pid"]
    proof = server.stop()
    assert proof.ok
    (child,) = proof.killed
    assert child != leader
    assert not any(ProcessId.from_json(entry).alive() for entry in server.describe()["processes"])
    assert proof.exit_code == -signal.SIGTERM


def test_nothing_is_left_of_a_server_whose_leader_was_killed(make: Make, folder: Path) -> None:
    server = start_ready(make("child"), folder)
    assert eventually(lambda: len(server.describe()["processes"]) == 2)
    os.kill(server.describe()["pid"], signal.SIGKILL)
    assert eventually(lambda: not server.alive())
    assert "died in the middle, ended by SIGKILL" in str(server.death("in the middle"))
    proof = server.stop()
    assert proof.ok
    assert len(proof.killed) == 1


def test_a_failed_start_leaves_nothing(make: Make, folder: Path) -> None:
    with pytest.raises(LaunchError, match="HTTP 500"):
        start_ready(make("failing"), folder)
    state = kept(folder)
    assert state["state"] == "stopped"
    assert not ProcessId.from_json(state).alive()


def test_two_servers_run_at_once_and_only_the_stopped_one_ends(make: Make, folder: Path) -> None:
    with start_ready(make(), folder) as first, start_ready(make(), folder.with_name("t-2")) as second:
        assert first.stop().ok
        assert second.alive()


def test_a_container_is_stopped_and_removed_by_its_label(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a stand-in for docker's command line: `run` starts the engine outside of our tree and waits."""
    (tmp_path / "engine.py").write_text(ENGINE)
    (tmp_path / "docker").write_text(STAND_IN.replace("PYTHON", sys.executable).replace("FOLDER", str(tmp_path)))
    (tmp_path / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (tmp_path / "mine.yaml").write_text(
        """
docker:
  image: stand-in
  run: [docker, run, --rm, "{labels}", "{env}", "{image}"]
  command: [--port, "{port}", --name, "{served_name}", --mode, deaf]
ready: {models: /v1/models, timeout_s: 30}
stop: {grace_s: 0.5}
"""
    )
    recipe = load_recipe("./mine.yaml", tmp_path)
    spec = LaunchSpec(name="t", engine="./mine.yaml", model="m/x")
    server = start_ready(lambda port: render(recipe, spec, port=port, run_id="r", launchers=tmp_path), folder)
    (inside,) = (tmp_path / "containers").iterdir()
    contained = int(inside.read_text())
    os.kill(contained, 0)
    assert kept(folder)["container"]["label"] in inside.name
    proof = server.stop()
    assert proof.ok
    assert proof.containers_left == ()
    assert not list((tmp_path / "containers").iterdir())
    row = row_of(contained)
    assert row is None or row.dead
