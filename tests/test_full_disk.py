"""A disk that becomes full in the middle of a run: a sentence, nothing left behind, and all that was written whole."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from cli_runner import Done, command, environment, loadgen, write_scenario
from fakes import FakeServer
from made_nights import VECTOR, made_scenario, nights

from loadgen.launch import leftovers
from loadgen.nights.index import NAME
from loadgen.record import read_records
from loadgen.repeat import Result
from loadgen.store import request_files

RECIPE = """
command: ['{{python}}', -S, '{program}', --port, '{{port}}', --truth, /dev/null, --script, '{{"ttft_ms": 1}}']
ready: {{path: /health, probe: false}}
stop: {{grace_s: 1}}
"""

SCENARIO = """
targets: {a: {TARGET, model: m}}
workload: {prompts: natural, output: {exact: 4}}
load: {concurrency: 2, warmup_s: 0, requests: 60}
repeats: 12
"""

SMALL_DISK = """
mount -t tmpfs -o size=300k small store || exit 99
"$@" run s.yaml --quiet > first.txt 2>&1; echo $? > first.code
cp -a store full
mount -o remount,size=30m store
"$@" run s.yaml --quiet --resume last > second.txt 2>&1; echo $? > second.code
cp -a store whole
"""


def whole(store: Path) -> list[Result]:
    """The repeats that are whole; their request lines are all there."""
    found = []
    for path in sorted(store.glob("runs/*/*/cells/*/*/rep-*/attempt-*/summary.json")):
        result = msgspec.json.decode(path.read_bytes(), type=Result)
        assert len(list(read_records(request_files(path.parent)))) == result.summary.requests == 60
        found.append(result)
    return found


def test_a_run_ends_with_a_sentence_and_is_resumed_when_there_is_room(tmp_path: Path) -> None:
    program = Path(__file__).with_name("fake_server.py")
    (tmp_path / "mine.yaml").write_text(RECIPE.format(program=program))
    write_scenario(tmp_path, SCENARIO.replace("TARGET", "engine: ./mine.yaml"))
    (tmp_path / "store").mkdir()
    argv = ["unshare", "-Urm", "bash", "-c", SMALL_DISK, "bash", *command()]
    try:
        done = subprocess.run(argv, cwd=tmp_path, env=environment(tmp_path / "store"), capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no program unshare")
    if done.returncode == 99 or "unshare" in done.stderr:
        pytest.skip(f"no file system may be mounted here: {done.stderr.strip()}")
    said = (tmp_path / "first.txt").read_text()
    assert (tmp_path / "first.code").read_text() == "1\n", said
    last = said.strip().splitlines()[-1]
    assert "No space left on device. What was written before is whole. Free some space" in last
    assert "Traceback" not in said
    assert leftovers(tmp_path / "full") == []
    before = whole(tmp_path / "full")
    assert 0 < len(before) < 12
    assert (tmp_path / "second.code").read_text() in ("0\n", "5\n"), (tmp_path / "second.txt").read_text()
    after = whole(tmp_path / "whole")
    assert sorted(result.rep for result in after) == list(range(1, 13))
    assert [result for result in after if result in before] == before
    (run,) = tmp_path.glob("whole/runs/*/*/run.json")
    assert json.loads(run.read_text())["status"] == "complete"


def limited(folder: Path, size: int, *words: str) -> Done:
    """``loadgen`` that may write no file larger than so many bytes: what a quota does, without any right."""
    limit = f"import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}));"
    code = f"{limit} sys.argv = ['loadgen', *sys.argv[1:]]; from loadgen.cli import main; main()"
    store = folder / "store"
    # coverage's own file would be too large as well, and what is left of it breaks the sum of all
    env = {name: value for name, value in environment(store).items() if not name.startswith("COVERAGE_")}
    argv = [sys.executable, "-c", code, *words]
    done = subprocess.run(argv, cwd=folder, env=env, capture_output=True, text=True)
    return Done(done.returncode, done.stdout, done.stderr, store)


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="needs RLIMIT_FSIZE")
def test_request_lines_that_cannot_be_written_end_the_run_with_a_sentence(tmp_path: Path) -> None:
    with FakeServer(ttft_ms=1, gap_ms=0) as server:
        text = SCENARIO.replace("TARGET", f"endpoint: '{server.url}'").replace("requests: 60", "requests: 2000")
        path = write_scenario(tmp_path, text)
        done = limited(tmp_path, 200_000, "run", str(path), "--quiet")
        assert done.code == 1, done.err
        assert "requests-" in done.err
        assert "File too large; a worker could not go on. What was written before is whole. Free some space" in done.err
        assert "Traceback" not in done.err
        assert done.description()["status"] == "failed"
        (attempt,) = done.attempts()
        assert not (attempt / "summary.json").exists()
        assert len(done.records(attempt)) > 100
        text = text.replace("repeats: 12", "repeats: 1")
        assert loadgen(tmp_path, "run", str(write_scenario(tmp_path, text)), "--quiet").code in (0, 5)


FULL_STORE = """
mount -t tmpfs -o size=4m small store || exit 99
cp -a nights/. store/
cat /dev/zero > store/fill 2> nowhere
"$@" history
"""


@pytest.mark.skipif(shutil.which("unshare") is None, reason="there is no program unshare")
def test_a_store_on_a_full_disk_still_tells_of_its_nights(tmp_path: Path) -> None:
    nights(tmp_path / "nights", made_scenario(tmp_path), VECTOR)
    (tmp_path / "nights" / NAME).unlink(missing_ok=True)
    (tmp_path / "store").mkdir()
    argv = ["unshare", "-Urm", "bash", "-c", FULL_STORE, "bash", *command()]
    done = subprocess.run(
        argv, cwd=tmp_path, env=environment(tmp_path / "store"), capture_output=True, text=True, timeout=100
    )
    if done.returncode == 99 or "unshare" in done.stderr:
        pytest.skip(f"no file system may be mounted here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    assert "it is made in memory, this once." in done.stderr
    assert "output_tok_s" in done.stdout
