"""The store: names, permissions, whole files, attempts."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from cli_runner import write_scenario
from fakes import FakeServer

from loadgen.errors import StoreError, UsageError
from loadgen.progress import Progress
from loadgen.run import Request, execute
from loadgen.scenario import load
from loadgen.store import append_line, create_run, find_run, read_json, request_files, store_root, write_json


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_folders_are_for_the_owner_and_so_are_files(tmp_path: Path) -> None:
    run = create_run(tmp_path / "store", "demo")
    run.write("run.json", {"a": 1})
    _, attempt = run.repeat("c=1", "dense", 1).new_attempt()
    append_line(attempt / "ticks.jsonl", {"t": 1})
    assert mode(run.folder) == mode(attempt) == mode(tmp_path / "store") == 0o700
    assert mode(run.folder / "run.json") == mode(attempt / "ticks.jsonl") == 0o600


def test_a_run_is_named_by_time_scenario_and_a_random_part(tmp_path: Path) -> None:
    run = create_run(tmp_path, "demo")
    stamp, name, rest = run.id.split("-")
    assert (len(stamp), name, len(rest)) == (16, "demo", 6)
    assert run.folder.parent.parent == tmp_path / "runs"


def test_the_newest_whole_attempt_counts(tmp_path: Path) -> None:
    repeat = create_run(tmp_path, "demo").repeat("all", "a", 1)
    assert repeat.whole() is None
    for _ in range(11):
        number, folder = repeat.new_attempt()
    write_json(repeat.folder / "attempt-10" / "summary.json", {})
    assert number == 11
    assert folder.name == "attempt-11"
    assert repeat.whole() == repeat.folder / "attempt-10"


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"old": 1})
    with pytest.raises(TypeError):
        write_json(path, {"new": object()})
    assert read_json(path) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.skipif(os.geteuid() != 0 and not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_a_sentence() -> None:
    with pytest.raises(StoreError, match=r"cannot write /dev/full: No space left on device\. What was written"):
        append_line(Path("/dev/full"), {"x": 1})


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"cannot make the folder .*--store"):
        create_run(tmp_path / "file", "demo")


def test_runs_are_found_by_either_end_of_their_name_by_path_and_as_the_last(tmp_path: Path) -> None:
    runs = [create_run(tmp_path, name) for name in ("one", "two")]
    for run in runs:
        run.write("run.json", {})
    assert find_run(tmp_path, runs[0].id[-6:]).id == runs[0].id
    assert find_run(tmp_path, str(runs[1].folder)).id == runs[1].id
    assert find_run(tmp_path, "last").id == max(run.id for run in runs)
    with pytest.raises(UsageError, match="no run 'nothing'"):
        find_run(tmp_path, "nothing")
    with pytest.raises(UsageError, match="fits 2 runs"):
        find_run(tmp_path, runs[0].id[:8])


def test_the_store_is_what_was_given_or_the_environment_or_a_folder_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOADGEN_HOME", "/elsewhere")
    assert store_root(Path("x")) == Path("x")
    assert store_root(None) == Path("/elsewhere")
    monkeypatch.delenv("LOADGEN_HOME")
    assert store_root(None) == Path("loadgen-results")


def test_compressed_request_files_are_found_too(tmp_path: Path) -> None:
    for name in ("requests-h-w0.jsonl.gz", "requests-h-w1.jsonl", "ticks.jsonl"):
        (tmp_path / name).touch()
    assert [path.name for path in request_files(tmp_path)] == ["requests-h-w0.jsonl.gz", "requests-h-w1.jsonl"]


def test_a_run_that_was_killed_is_described_with_the_servers_that_it_did_not_come_to_write_down(tmp_path: Path) -> None:
    run = create_run(tmp_path, "demo")
    run.write("run.json", {"status": "running", "servers": {"a-1": {"engine": "written down"}}})
    for name in ("a-1", "b-1"):
        write_json(run.server_folder(name) / "server.json", {"engine": "its own file"})
    run.server_folder("c-1")  # was never started
    assert run.described()["servers"] == {"a-1": {"engine": "written down"}, "b-1": {"engine": "its own file"}}


def test_a_compressing_that_was_cut_short_counts_nothing_twice(tmp_path: Path) -> None:
    for name in ("requests-h-w0.jsonl", "requests-h-w0.jsonl.gz", "requests-h-w1.jsonl.gz"):
        (tmp_path / name).touch()
    assert [path.name for path in request_files(tmp_path)] == ["requests-h-w0.jsonl", "requests-h-w1.jsonl.gz"]


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What reached the disk, and what got its name, in order."""
    found: list[str] = []
    sync, rename = os.fsync, os.replace

    def synced(fd: int) -> None:
        found.append(f"sync {Path(os.readlink(f'/proc/self/fd/{fd}')).name}")
        sync(fd)

    def renamed(before: str, after: str) -> None:
        found.append(f"rename {Path(after).name}")
        rename(before, after)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    return found


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, done: list[str]) -> None:
    write_json(tmp_path / "summary.json", {"a": 1})
    assert done == [f"sync .summary.json.{os.getpid()}", "rename summary.json", f"sync {tmp_path.name}"]


def test_request_lines_are_on_the_disk_before_the_summary_that_is_made_of_them(tmp_path: Path, done: list[str]) -> None:
    with FakeServer(ttft_ms=1, gap_ms=0) as server:
        text = (
            f"targets: {{a: {{endpoint: '{server.url}', model: m}}}}\n"
            "workload: {prompts: natural, output: {exact: 4}}\nload: {concurrency: 1, warmup_s: 0, requests: 5}\n"
        )
        loaded = load(write_scenario(tmp_path, text + "repeats: 1\n"))
        execute(Request(loaded, tmp_path / "store"), Progress(lambda _: None, None))
    (lines,) = tmp_path.glob("store/runs/*/*/cells/*/*/rep-*/attempt-1/requests-*.jsonl")
    named = done.index("rename summary.json")
    assert done.index(f"sync {lines.name}") < named
    assert done[named + 1] == "sync attempt-1"


@pytest.mark.parametrize("text", [b"", b"\0" * 99, b"null", b"[1]", b'"x"', b'{"a": "\xff"}', b'{"a": ', b"[" * 99999])
def test_what_is_no_json_object_is_a_sentence_with_its_path(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "run.json").write_bytes(text)
    with pytest.raises(StoreError, match=r"run\.json is no JSON"):
        read_json(tmp_path / "run.json")
