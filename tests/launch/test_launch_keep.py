"""Servers that are left up on purpose: they outlive the run with a log that goes on, and are ended when asked."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from fake_engine import ENGINE, RECIPE, Make, eventually, kept

from loadgen.launch import Leftover, kill_leftover, leftovers, start_ready
from loadgen.launch.processes import ProcessId

PARENT = """
import sys
from pathlib import Path
from loadgen.launch import LaunchSpec, load_recipe, render, start_ready
here = Path(sys.argv[1])
recipe = load_recipe("./mine.yaml", here)
spec = LaunchSpec(name="t", engine="./mine.yaml", model="m", python=sys.executable, api_key_env="OUR_KEY")
folder = here / "store/runs/2026-11-21/run-1/servers/t-1"
make = lambda port: render(recipe, spec, port=port, run_id="run-1", launchers=here)
start_ready(make, folder, keep=True).keep()
"""


@pytest.fixture
def left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Leftover]:
    """A server of a run that is over and had been told to keep it."""
    monkeypatch.setenv("OUR_KEY", "sk-1234567890")
    (tmp_path / "engine.py").write_text(ENGINE)
    (tmp_path / "mine.yaml").write_text(RECIPE.replace("ENGINE,", f"'{tmp_path}/engine.py',"))
    subprocess.run([sys.executable, "-W", "ignore", "-c", PARENT, str(tmp_path)], check=True, timeout=60)
    (found,) = leftovers(tmp_path / "store")
    yield found
    kill_leftover(found)


def ask(left: Leftover) -> None:
    body = b'{"messages": []}'
    request = urllib.request.Request(f"{left.record['base_url']}/v1/chat/completions", body)
    request.add_header("authorization", "Bearer sk-1234567890")
    with urllib.request.urlopen(request, timeout=60) as reply:
        assert reply.status == 200


def test_a_kept_server_answers_on_and_its_log_goes_on_without_secrets(left: Leftover) -> None:
    log = left.folder / "server.log"
    before = log.read_text().count("Bearer [secret]")
    ask(left)
    assert eventually(lambda: log.read_text().count("Bearer [secret]") == before + 1)
    assert "sk-1234567890" not in log.read_text()
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_kept_server_is_named_as_kept_with_the_way_to_end_it_and_is_ended(left: Leftover) -> None:
    assert left.kept
    (process,) = left.processes
    assert f"run run-1 was told to keep mine (target t) on port {left.port}: processes {process.pid}" in left.sentence()
    assert f"(by hand: kill {process.pid})" in left.sentence()
    proof = kill_leftover(left)
    assert proof.ok, proof.problems()
    assert kept(left.folder)["state"] == "stopped"
    assert leftovers(left.folder.parents[4]) == []
    log = str(left.folder / "server.log")
    assert eventually(lambda: not any(log in (one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"])))


def test_a_server_that_could_be_kept_is_stopped_like_any_other(make: Make, folder: Path) -> None:
    server = start_ready(make("child"), folder, keep=True)
    assert eventually(lambda: len(server.describe()["processes"]) == 2)  # children are noticed here, too
    proof = server.stop()
    assert proof.ok, proof.problems()
    assert "listening" in server.log_path.read_text()
    assert not any(ProcessId.from_json(entry).alive() for entry in server.describe()["processes"])
