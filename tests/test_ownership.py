"""Runs and the processes that write them: who holds one, and what is said of one that nobody holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cli_runner import loadgen, write_scenario

from loadgen.errors import BusyError, StoreError
from loadgen.launch import boot_id
from loadgen.ownership import SILENT_S, close_abandoned, close_if_abandoned, half_written, held, this_owner
from loadgen.store import Run, create_run, write_json

HOLD = """
import sys
from pathlib import Path
from loadgen.ownership import held
from loadgen.store import Run
with held(Run(Path(sys.argv[1]))):
    print("held", flush=True)
    sys.stdin.read()
"""


def running(root: Path, **fields: Any) -> Run:
    """A run that says it is running, by default by a process that has ended."""
    run = create_run(root, "demo")
    dead = subprocess.Popen([sys.executable, "-S", "-c", ""])
    dead.wait()
    owner = {**this_owner(), "pid": dead.pid, "pid_ticks": 1, "pid_started": 1.0}
    run.write("run.json", {"status": "running", **owner, "ended": None, "failures": [], **fields})
    return run


@contextmanager
def holder(run: Run) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a run."""
    argv = [sys.executable, "-c", HOLD, str(run.folder)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def status(run: Run) -> str:
    return str(run.read("run.json")["status"])


def test_a_run_whose_process_is_gone_is_aborted_with_its_data_kept(tmp_path: Path) -> None:
    run = running(tmp_path)
    _, whole = run.repeat("all", "a", 1).new_attempt()
    write_json(whole / "summary.json", {"one": 1})
    _, cut = run.repeat("all", "a", 2).new_attempt()
    (cut / "requests-h-w0.jsonl").write_text('{"seq": 1}\n{"se')
    said: list[str] = []
    assert [found.id for found in close_abandoned(tmp_path, said.append)] == [run.id]
    described = run.read("run.json")
    assert described["status"] == "aborted"
    assert described["failures"] == [said[0].removeprefix(f"{run.id}: ")]
    assert "it was killed, or the machine went down. Whole repeats so far 1; --resume goes on" in said[0]
    assert described["ended"] <= time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    assert (whole / "summary.json").read_text() == '{\n "one": 1\n}\n'
    assert (cut / "requests-h-w0.jsonl").read_text() == '{"seq": 1}\n{"se'
    assert close_abandoned(tmp_path, said.append) == []
    assert len(said) == 1


def test_a_run_whose_process_lives_is_left_alone(tmp_path: Path) -> None:
    run = running(tmp_path, **this_owner())
    assert close_if_abandoned(run) is None
    assert status(run) == "running"


def test_a_later_process_with_the_same_pid_is_another(tmp_path: Path) -> None:
    own = this_owner()
    run = running(tmp_path, **{**own, "pid_ticks": own["pid_ticks"] - 1, "pid_started": own["pid_started"] - 0.01})
    assert close_if_abandoned(run) is not None
    assert status(run) == "aborted"


def test_a_restart_of_the_machine_ends_every_run(tmp_path: Path) -> None:
    run = running(tmp_path, **{**this_owner(), "boot_id": "an earlier one"})
    assert close_if_abandoned(run) is not None


def test_a_run_on_another_machine_has_a_day_to_say_something(tmp_path: Path) -> None:
    run = running(tmp_path, boot_id="theirs", machine={"host": "another"})
    assert close_if_abandoned(run) is None
    long_ago = time.time() - SILENT_S - 60
    for path in (run.folder / "run.json", run.folder):
        os.utime(path, (long_ago, long_ago))
    assert close_if_abandoned(run) is not None


def test_what_is_no_run_or_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    launched = create_run(tmp_path, "launch")  # `loadgen launch` keeps a server and no run.json
    imported = running(tmp_path, pid=None, status="complete")
    broken = running(tmp_path)
    (broken.folder / "run.json").write_text('{"status": "runn')
    gone = running(tmp_path)
    assert [run.id for run in close_abandoned(tmp_path, lambda _: None)] == [gone.id]
    assert not list(launched.folder.iterdir())
    assert status(imported) == "complete"
    with pytest.raises(StoreError, match=r"cannot read .*run\.json"):
        close_if_abandoned(broken)


def test_a_run_is_written_by_one_process_at_a_time_until_that_is_killed(tmp_path: Path) -> None:
    run = running(tmp_path)  # as from another namespace: the pid says nothing here, the lock does
    with holder(run) as process:
        with pytest.raises(BusyError, match=rf"{run.id} is being written by process \d+; wait for its end"), held(run):
            pass
        assert close_if_abandoned(run) is None
        process.kill()
        process.wait()
        with held(run):
            assert status(run) == "running"
        assert close_if_abandoned(run) is not None


def test_a_process_without_the_lock_holds_its_run_by_its_pid(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE) as other:
        ticks = int(Path(f"/proc/{other.pid}/stat").read_text().rpartition(")")[2].split()[19])
        run = running(tmp_path, pid=other.pid, pid_ticks=ticks)
        with pytest.raises(BusyError, match=f"by process {other.pid}"), held(run):
            pass
        other.kill()


def test_a_file_that_was_half_written_goes_and_nothing_else(tmp_path: Path) -> None:
    run = running(tmp_path)
    _, attempt = run.repeat("all", "a", 1).new_attempt()
    names = {".summary.json.4711": attempt, ".run.json.12": run.folder, ".hidden": run.folder, "run.json.12": attempt}
    for name, folder in names.items():
        (folder / name).write_text("{")
    assert {path.name for path in half_written(run)} == {".summary.json.4711", ".run.json.12"}
    assert close_if_abandoned(run) is not None
    assert half_written(run) == []
    assert (run.folder / ".hidden").exists()
    assert json.loads((run.folder / "run.json").read_text())["boot_id"] == boot_id()


def scenario(folder: Path) -> Path:
    text = (
        "targets: {a: {endpoint: 'http://127.0.0.1:9', model: m}}\nworkload: {prompts: natural, output: {exact: 4}}\n"
    )
    return write_scenario(folder, text + "load: {concurrency: 1, warmup_s: 0, window_s: 1}\nrepeats: 1\n")


def test_a_run_that_somebody_writes_is_not_resumed(tmp_path: Path) -> None:
    path = scenario(tmp_path)
    assert loadgen(tmp_path, "run", str(path)).code == 6  # nobody listens there
    (folder,) = tmp_path.glob("store/runs/*/*")
    before = (folder / "run.json").read_bytes()
    with held(Run(folder)):
        done = loadgen(tmp_path, "run", str(path), "--resume", "last")
    assert done.code == 75
    assert f"{folder.name} is being written by process" in done.err
    assert (folder / "run.json").read_bytes() == before


def test_whoever_looks_at_a_killed_run_closes_it(tmp_path: Path) -> None:
    path = scenario(tmp_path)
    loadgen(tmp_path, "run", str(path))
    (folder,) = tmp_path.glob("store/runs/*/*")
    killed = {**Run(folder).read("run.json"), "status": "running", "ended": None, "failures": []}
    for words in (["report", "last", "--format", "json"], ["history"], ["reindex"], ["gc"], ["run", str(path)]):
        Run(folder).write("run.json", killed)
        done = loadgen(tmp_path, *words)
        assert status(Run(folder)) == "aborted", words
        assert "ended without a word" in done.out + done.err


def test_a_resume_that_was_killed_while_it_took_the_run_over_leaves_nothing_half_written(tmp_path: Path) -> None:
    """The run says aborted, so nobody has to close it; what the killed one was about to rename is still there."""
    path = scenario(tmp_path)
    loadgen(tmp_path, "run", str(path))
    (folder,) = tmp_path.glob("store/runs/*/*")
    (folder / ".run.json.315").write_text("{")
    loadgen(tmp_path, "run", str(path), "--resume", "last")
    assert half_written(Run(folder)) == []
