"""Runs the command line as a user does, in a process of its own, and reads what it left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from loadgen.record import Record, read_records
from loadgen.repeat import Result
from loadgen.store import request_files


class Done:
    """A finished command and the newest run of its store."""

    def __init__(self, code: int, out: str, err: str, store: Path) -> None:
        self.code, self.out, self.err, self.store = code, out, err, store

    @property
    def good(self) -> bool:
        """True for exit code 0, and for a run that is invalid because this machine was too busy, and for nothing else.
        That is the machine's business; what a test of anything else asks is still right."""
        return self.code == 0 or (self.code == 5 and self.hurried)

    @property
    def hurried(self) -> bool:
        """True for a run that lacks nothing, with repeats that are invalid for what a busy machine does: it sends late,
        or too little, or holds everything up, so that requests run in step. Their records have to show it."""
        said = []
        for path in sorted(self.run.glob("cells/*/*/rep-*/attempt-*/summary.json")):
            result = msgspec.json.decode(path.read_bytes(), type=Result)
            records = self.records(path.parent) if result.summary.invalid else []
            said += [_shown(doubt.code, result, records) for doubt in result.summary.invalid]
        return self.description()["status"] == "complete" and bool(said) and all(said)

    def report_text(self) -> str:
        """The Markdown report, '' before there is one."""
        path = self.run / "report.md"
        return path.read_text() if path.exists() else ""

    @property
    def run(self) -> Path:
        return max(self.store.glob("runs/*/*"), key=lambda path: path.name)

    def description(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.run / "run.json").read_text())
        return found

    def attempts(self) -> list[Path]:
        return sorted(self.run.glob("cells/*/*/rep-*/attempt-*"))

    def records(self, attempt: Path) -> list[Record]:
        return list(read_records(request_files(attempt)))

    def results(self) -> list[Result]:
        files = sorted(self.run.glob("cells/*/*/rep-*/attempt-*/summary.json"))
        return [msgspec.json.decode(path.read_bytes(), type=Result) for path in files]


def _shown(code: str, result: Result, records: list[Record]) -> bool:
    """True if the records of a repeat show what a busy machine does, and what is said of them by this code."""
    w0, w1 = result.summary.window.w0, result.summary.window.w1
    sent = [(one, one.t_send) for one in records if one.t_send is not None]
    measured = [(one, at) for one, at in sent if one.phase == "measure"]
    match code:
        case "late":  # twice by a millisecond, which is the least that any limit allows
            return len(measured) > 1 and sorted(at - one.t_sched for one, at in measured)[-2] > 1e-3
        case "sends":
            return any(at > w1 >= one.t_sched for one, at in measured) or "dropped" in result.summary.status
        case "skew":
            return (result.summary.audit.skew_s or 0) > 5e-3
        case "one_phase":
            ok = [(one, at) for one, at in sent if one.status == "ok" and one.chunk_us]
            inside = [sum(w0 <= at + us / 1e6 <= w1 for us in one.chunk_us) / len(one.chunk_us) for one, at in ok]
            arrived = sum((one.out_tok or 0) * part for (one, _), part in zip(ok, inside, strict=True))
            ended = sum(one.out_tok or 0 for one, _ in ok if w0 <= (one.t_end or 0) <= w1)
            return abs(arrived - ended) > 0.09 * max(arrived, ended)
    return False


def hear_signals() -> None:
    """For ``preexec_fn``. Tests that were started in the background of a shell, or by nohup, inherit that signals are
    ignored, and what they start would not hear what they send."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)


def punctual(folder: Path, *words: str) -> Done:
    """`loadgen`, again while this machine is too busy to send in time: for what only a run that is valid can show."""
    for _ in range(4):
        done = loadgen(folder, *words)
        if not (done.code == 5 and done.good):
            return done
    pytest.skip("this machine was too busy to send in time, four times in a row")


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "loadgen", *words]


def environment(store: Path) -> dict[str, str]:
    return {**os.environ, "LOADGEN_HOME": str(store), "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"}


def loadgen(folder: Path, *words: str) -> Done:
    """Runs ``loadgen WORDS`` in ``folder`` with its store there."""
    store = folder / "store"
    done = subprocess.run(
        command(*words), cwd=folder, env=environment(store), capture_output=True, text=True, timeout=600
    )
    return Done(done.returncode, done.stdout, done.stderr, store)


def write_scenario(folder: Path, text: str, name: str = "s.yaml") -> Path:
    path = folder / name
    path.write_text("schema: loadgen/v1\n" + text)
    return path
