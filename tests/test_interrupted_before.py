"""A run that is interrupted before a repeat begins takes nothing from what was measured before."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from cli_runner import write_scenario
from fakes import FakeServer

from loadgen.fair.fingerprint import Prober
from loadgen.progress import Progress
from loadgen.run import Request, execute
from loadgen.scenario import load
from loadgen.store import SET_ASIDE, Run, read_json, write_json

TEXT = """
targets: {a: {endpoint: 'URL', model: m}, b: {endpoint: 'URL', model: m}}
workload: {prompts: natural, output: {exact: 4}}
load: {concurrency: 1, warmup_s: 0, window_s: 0.2, workers: 1}
comparison: {scope: instance}
repeats: 2
"""


def test_ctrl_c_while_a_server_is_asked_for_its_fingerprint_sets_no_attempt_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FakeServer(ttft_ms=1, gap_ms=1) as server:
        loaded = load(write_scenario(tmp_path, TEXT.replace("URL", server.url)))
        run = Run(Path(execute(Request(loaded, tmp_path / "store"), Progress(lambda _: None, True)).path))
        before = sorted(run.folder.glob("cells/*/*/rep-*/attempt-*"))
        for attempt in before[:1]:
            result = read_json(attempt / "summary.json")
            write_json(attempt / "summary.json", {**result, "summary": {**result["summary"], "state": "invalid"}})

        monkeypatch.setattr(Prober, "before", lambda *_: os.kill(os.getpid(), signal.SIGINT))
        again = Request(loaded, tmp_path / "store", resume=run, retry=True)
        assert execute(again, Progress(lambda _: None, True)).exit_code == 130
    assert sorted(run.folder.glob("cells/*/*/rep-*/attempt-*")) == before
    assert not list(run.folder.rglob(SET_ASIDE))
