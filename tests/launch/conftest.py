"""What the tests of launching share: servers made of the fake engine, and none of them left behind."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_engine import ENGINE, RECIPE, Make
from ports import quiet_port

from loadgen.launch import (
    Command,
    LaunchSpec,
    Server,
    load_recipe,
    render,
    start,
)
from loadgen.launch.processes import Tree, end


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Commands of the fake engine: ``make("dies")(port)``."""
    (tmp_path / "engine.py").write_text(ENGINE)
    (tmp_path / "mine.yaml").write_text(RECIPE.replace("ENGINE,", f"'{tmp_path}/engine.py',"))

    def made(mode: str = "good", *, python: str | None = sys.executable, **more: Any) -> Callable[[int], Command]:
        options = {"mode": mode, **more.pop("options", {})}
        spec = LaunchSpec(name="t", engine="./mine.yaml", model="m/x", python=python, options=options, **more)
        recipe = load_recipe("./mine.yaml", tmp_path)
        return lambda port: render(recipe, spec, port=port, run_id="run-1", launchers=tmp_path)

    return made


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A server's folder. A test that fails before its stop leaves no server on the machine."""
    yield tmp_path / "servers" / "t-1"
    for path in tmp_path.rglob("server.json"):
        end(Tree(None, json.loads(path.read_text())["cookie"]), 0.0)
    for path in tmp_path.glob("containers/*"):
        os.kill(int(path.read_text()), signal.SIGKILL)


@pytest.fixture
def launched(make: Make, folder: Path) -> Iterator[Callable[..., Server]]:
    """Starts the fake engine without waiting for it; it ends with the test."""
    running: list[Server] = []

    def launch(mode: str = "good", **more: Any) -> Server:
        server = start(make(mode, **more)(quiet_port()), folder)
        running.append(server)
        return server

    yield launch
    for server in running:
        server.stop()
