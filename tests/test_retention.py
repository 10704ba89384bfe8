"""What is kept of runs: request lines compressed, deleted when they are old, and never those that are needed."""

from __future__ import annotations

import gzip
import os
import stat
import time
from pathlib import Path
from typing import Any

import pytest
from cli_runner import Done, loadgen, write_scenario
from fakes import FakeServer

from loadgen.ownership import held, this_owner
from loadgen.record import Record, read_records, to_line
from loadgen.retention import SETTLED_S, Kept, collect, compress, request_lines
from loadgen.store import Run, create_run, request_files, requests_path, write_json

NOW = 1_800_000_000.0
DAY = 86400.0


def records(count: int) -> list[Record]:
    return [
        Record(seq=i, session=i, phase="measure", t_sched=i / 10, status="ok", chunk_us=list(range(i)))
        for i in range(count)
    ]


def run_of(root: Path, days: float, status: str = "complete", **fields: Any) -> Run:
    """A run with request lines in two places that ended so many days before NOW."""
    run = create_run(root, "demo")
    ended = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(NOW - days * DAY))
    run.write("run.json", {"status": status, "started": "2026-01-01T00:00:00Z", "ended": ended, **fields})
    _, attempt = run.repeat("all", "a", 1).new_attempt()
    probes = run.folder / "probes" / "a" / "endpoint" / "k"
    probes.mkdir(parents=True)
    for folder in (attempt, probes):
        requests_path(folder, 0).write_bytes(b"".join(map(to_line, records(50))))
    for name in ("summary.json", "latency.hlog", "ticks.jsonl"):
        (attempt / name).write_text("{}\n")
    return run


def kept(root: Path, needed: tuple[str, ...] = (), **more: Any) -> dict[str, Kept]:
    return {one.run: one for one in collect(root, needed, 90 * DAY, NOW, **more)}


def names(run: Run) -> set[str]:
    return {path.name for path in run.folder.rglob("*") if path.is_file()}


def test_request_lines_of_a_run_that_is_over_are_compressed_and_read_as_before(tmp_path: Path) -> None:
    run = run_of(tmp_path, days=1)
    (attempt,) = run.repeat("all", "a", 1).attempts()
    before = list(read_records(request_files(attempt)))
    found = kept(tmp_path)[run.id]
    assert (found.packed, found.deleted) == (2, 0)
    assert found.saved_bytes is not None
    assert 0 < found.saved_bytes < found.packed_bytes
    assert all(path.name.endswith(".jsonl.gz") for path in request_lines(run))
    assert list(read_records(request_files(attempt))) == before == records(50)
    assert {stat.S_IMODE(path.stat().st_mode) for path in request_lines(run)} == {0o600}
    assert kept(tmp_path) == {}


def test_half_a_line_at_the_end_stays_half_a_line(tmp_path: Path) -> None:
    path = tmp_path / "requests-h-w0.jsonl"
    path.write_bytes(to_line(records(1)[0]) + b'{"seq": 1, "se')
    compress(path)
    assert list(read_records(request_files(tmp_path))) == records(1)
    assert gzip.decompress((tmp_path / "requests-h-w0.jsonl.gz").read_bytes()).endswith(b'"se')


def test_request_lines_go_after_ninety_days_and_nothing_else_does(tmp_path: Path) -> None:
    young, old = run_of(tmp_path, days=89), run_of(tmp_path, days=91)
    before = names(old)
    found = kept(tmp_path)
    assert (found[old.id].deleted, found[young.id].packed) == (2, 2)
    assert list(found) == [old.id, young.id]  # what makes room comes first
    assert before - names(old) == {path for path in before if path.startswith("requests-")}
    assert names(old) == {"run.json", "summary.json", "latency.hlog", "ticks.jsonl"}
    assert old.read("run.json")["requests_deleted"].startswith("20")
    assert kept(tmp_path) == {}


def test_compressed_lines_go_as_well(tmp_path: Path) -> None:
    run = run_of(tmp_path, days=1)
    kept(tmp_path)
    described = run.read("run.json")
    run.write("run.json", {**described, "ended": None, "started": "2020-01-01T00:00:00Z"})
    assert kept(tmp_path)[run.id].deleted == 2
    assert request_lines(run) == []


def test_a_run_that_is_needed_keeps_its_lines_for_ever(tmp_path: Path) -> None:
    run, other = run_of(tmp_path, days=1000), run_of(tmp_path, days=1000)
    found = kept(tmp_path, (run.id,))
    assert found[run.id].spared
    assert (found[run.id].packed, found[run.id].deleted) == (2, 0)
    assert len(request_lines(run)) == 2
    assert request_lines(other) == []


def test_a_dry_run_says_the_same_and_touches_nothing(tmp_path: Path) -> None:
    old, young = run_of(tmp_path, days=91), run_of(tmp_path, days=1)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    said = kept(tmp_path, dry_run=True)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    done = kept(tmp_path)
    assert (said[old.id].deleted, said[old.id].deleted_bytes) == (done[old.id].deleted, done[old.id].deleted_bytes)
    assert (said[young.id].packed, said[young.id].packed_bytes) == (done[young.id].packed, done[young.id].packed_bytes)
    assert said[young.id].saved_bytes is None


def test_a_run_that_is_being_written_or_that_was_just_killed_is_left_alone(tmp_path: Path) -> None:
    live = run_of(tmp_path, 91, "running", **this_owner())
    just = run_of(tmp_path, days=91, status="aborted")
    over = run_of(tmp_path, days=91, status="aborted")
    before = time.time() - SETTLED_S - 1
    for path in (over.folder, *over.folder.rglob("*")):
        os.utime(path, (before, before))
    with held(live):
        found = kept(tmp_path)
    assert set(found) == {over.id}
    assert len(request_lines(just)) == len(request_lines(live)) == 2


def test_what_is_no_run_is_passed_over_and_one_that_cannot_be_read_is_not_old(tmp_path: Path) -> None:
    launched = create_run(tmp_path, "launch")
    lines = launched.folder / "cells" / "all" / "a" / "rep-001" / "attempt-1"
    lines.mkdir(parents=True)
    (lines / "requests-h-w0.jsonl").write_text("{}\n")
    broken = run_of(tmp_path, days=91)
    (broken.folder / "run.json").write_text('{"status": ')
    found = kept(tmp_path)
    assert set(found) == {broken.id}
    assert "run.json" in str(found[broken.id].failed)
    assert len(request_lines(launched)) == 1
    assert len(request_lines(broken)) == 2


def test_files_of_a_compressing_that_was_killed_go_with_the_next_one(tmp_path: Path) -> None:
    run = run_of(tmp_path, days=1)
    (attempt,) = run.repeat("all", "a", 1).attempts()
    half = attempt / f".{requests_path(attempt, 0).name}.gz.4711"
    half.write_bytes(b"\x1f\x8b")
    kept(tmp_path)
    assert not half.exists()
    (packed,) = request_files(attempt)  # killed after the rename, before the plain file went
    (packed.with_suffix("")).write_bytes(b"".join(map(to_line, records(50))))
    assert list(read_records(request_files(attempt))) == records(50)
    assert kept(tmp_path)[run.id].packed == 1
    assert list(read_records(request_files(attempt))) == records(50)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("ran")
    text = (
        "targets: {{a: {{endpoint: '{url}', model: m}}}}\nworkload: {{prompts: natural, output: {{exact: 4}}}}\n"
        "load: {{concurrency: 2, warmup_s: 0, window_s: 0.3}}\nrepeats: 1\n"
    )
    with FakeServer(ttft_ms=2, gap_ms=0) as server:
        return loadgen(folder, "run", str(write_scenario(folder, text.format(url=server.url))), "--quiet")


def test_gc_says_what_it_did_and_the_report_is_the_same_afterwards(ran: Done) -> None:
    folder = ran.store.parent
    report = loadgen(folder, "report", "last").out
    dry = loadgen(folder, "gc", "--dry-run")
    assert f"{ran.run.name}  compress 1 file, " in dry.out
    done = loadgen(folder, "gc")
    assert (done.code, done.err) == (0, "")
    assert f"{ran.run.name}  compressed 1 file, " in done.out
    assert done.out.splitlines()[-1].endswith("freed.")
    assert [path.suffix for path in request_files(ran.attempts()[0])] == [".gz"]
    assert loadgen(folder, "report", "last").out == report
    assert loadgen(folder, "gc").out == "There is nothing to do.\n"
    described = ran.description()
    write_json(ran.run / "run.json", {**described, "ended": "2020-01-01T00:00:00Z"})
    assert f"{ran.run.name}  deleted 1 file, " in loadgen(folder, "gc", "--keep-requests", "2w").out
    assert loadgen(folder, "report", "last").out.splitlines()[2:] == report.splitlines()[2:]
