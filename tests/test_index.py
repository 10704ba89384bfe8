"""What nights decided, as it is written down; and the index, which follows from the files."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from made_nights import AT, VECTOR, made_scenario, night, nights, throughput
from made_runs import made_run

from loadgen.errors import StoreError, UsageError
from loadgen.nights.events import Accepted, Recovered, append, read_events
from loadgen.nights.history import read_history
from loadgen.nights.index import NAME, contents, look, reindex
from loadgen.scenario import Scenario


@pytest.fixture(scope="module")
def fourteen(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Scenario]:
    """A store with the fourteen nights of the test vector."""
    folder = tmp_path_factory.mktemp("fourteen")
    (folder / "store").mkdir(mode=0o700)
    scenario = made_scenario(folder)
    nights(folder / "store", scenario, VECTOR)
    return folder / "store", scenario


@pytest.fixture
def store(fourteen: tuple[Path, Scenario], tmp_path: Path) -> tuple[Path, Scenario]:
    """A copy of it, to be written to."""
    shutil.copytree(fourteen[0], tmp_path / "store")
    return tmp_path / "store", fourteen[1]


def test_an_event_after_half_a_line_is_read_and_so_is_every_other(tmp_path: Path) -> None:
    append(tmp_path, [Recovered(at=AT, series="a", run="1")])
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(b'{"event":"recovered","at":"202')
    assert [event.run for event in read_events(tmp_path) if isinstance(event, Recovered)] == ["1"]
    append(tmp_path, [Recovered(at=AT, series="a", run="2")])
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(b'{"event":"of a later loadgen","at":"now"}\n')
    assert [event.run for event in read_events(tmp_path) if isinstance(event, Recovered)] == ["1", "2"]
    assert (tmp_path / "events.jsonl").stat().st_mode & 0o777 == 0o600


def test_the_index_that_grew_equals_its_rebuild(store: tuple[Path, Scenario]) -> None:
    root, scenario = store
    run = night(root, scenario, 94, 94)[0]
    made_run(root, scenario, {"a": [100]})  # a run by hand is no night
    read_history(root)
    with (root / "events.jsonl").open("ab") as file:
        file.write(b'{"half')
    read_history(root)
    append(root, [Accepted(at=AT, series=("x",), run=run.id)])
    shutil.rmtree(run.folder)  # and somebody deleted a run
    read_history(root)
    grown = contents(root)
    assert reindex(root) == (16, 14)
    assert contents(root) == grown
    assert len(grown["points"]) == 28


def test_a_run_that_is_written_again_is_read_again(store: tuple[Path, Scenario]) -> None:
    root, scenario = store
    run = made_run(root, scenario, {"a": [100]}, {"status": "running"})
    read_history(root)
    time.sleep(0.05)  # more than the grain of a file's time
    run.write("run.json", {**run.read("run.json"), "status": "aborted"})
    read_history(root)
    assert dict(look(root, lambda index: index.execute("SELECT run, status FROM runs").fetchall(), print))[run.id] == (
        "aborted"
    )


def _garbage(path: Path) -> None:
    path.write_bytes(b"not a database at all" * 500)


def _torn(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:5000] + bytes(3000) + data[8000:])


def _later(path: Path) -> None:
    with sqlite3.connect(path) as index:
        index.execute("PRAGMA user_version = 99")
    index.close()


def _without_a_table(path: Path) -> None:
    with sqlite3.connect(path) as index:
        index.execute("DROP TABLE points")
    index.close()


@pytest.mark.parametrize("harm", [_garbage, _torn, _later, _without_a_table])
def test_an_index_that_cannot_be_used_is_made_anew_and_a_sentence_says_so(
    store: tuple[Path, Scenario], harm: Any
) -> None:
    root = store[0]
    read_history(root)
    whole = contents(root)
    for end in ("-wal", "-shm"):
        (root / f"{NAME}{end}").unlink(missing_ok=True)
    harm(root / NAME)
    said: list[str] = []
    assert len(read_history(root, said.append).nights) == 14
    assert [text for text in said if "is made anew from the runs" in text] == said
    assert len(said) == 1
    assert contents(root) == whole


def test_an_empty_file_becomes_an_index_without_a_word(store: tuple[Path, Scenario]) -> None:
    (store[0] / NAME).unlink(missing_ok=True)
    (store[0] / NAME).touch(mode=0o600)
    said: list[str] = []
    assert len(read_history(store[0], said.append).nights) == 14
    assert said == []
    modes = {path.stat().st_mode & 0o777 for path in store[0].glob("*loadgen.db*")}
    assert modes == {0o600}


def test_processes_that_make_the_index_at_once_all_succeed(store: tuple[Path, Scenario]) -> None:
    (store[0] / NAME).unlink(missing_ok=True)
    code = (
        "import sys, pathlib; from loadgen.nights.history import read_history; "
        "print(len(read_history(pathlib.Path(sys.argv[1]), print).nights))"
    )
    words = [sys.executable, "-c", code, str(store[0])]
    started = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [process.communicate(timeout=60)[0] for process in started] == ["14\n"] * 3
    grown = contents(store[0])
    reindex(store[0])
    assert contents(store[0]) == grown


def test_a_store_that_is_not_there_or_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no store at"):
        read_history(tmp_path / "nowhere")
    (tmp_path / NAME).mkdir()
    with pytest.raises(StoreError, match="cannot use the index"):
        read_history(tmp_path)


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("plan.json", "[]"),
        ("run.json", "{}"),
        ("run.json", '{"scenario": 1}'),
        ("cells/all/a/rep-001/attempt-1/summary.json", "{"),
    ],
)
def test_a_night_that_cannot_be_read_is_left_out_and_the_others_stay(
    store: tuple[Path, Scenario], file: str, text: str
) -> None:
    run = nights(*store, [100])[0]
    (run.folder / file).write_text(text)
    reindex(store[0])
    history = read_history(store[0])
    assert len(history.entries[throughput(history)]) == 14
    assert len(history.nights) == 15


def test_the_index_needs_no_memory_that_processes_share_which_network_disks_do_not_have(tmp_path: Path) -> None:
    seen: list[str] = []
    look(tmp_path, lambda _: seen.extend(sorted(path.name for path in tmp_path.glob("loadgen.db*"))), print)
    assert "loadgen.db" in seen
    assert "loadgen.db-shm" not in seen
