"""What workers have written: without secrets, and otherwise as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from loadgen.drive.job import Shape
from loadgen.errors import StoreError
from loadgen.record import Record, from_line, to_line
from loadgen.summary import Window
from loadgen.written import stop_if_full, strike_out_of, window_of

KEY = 'canary-"4711"-\\of-the-mine'


def record(err: str | None, **more: object) -> Record:
    return Record(seq=1, session=1, phase="measure", t_sched=0.5, status="http_error", err=err, **more)  # type: ignore[arg-type]


def struck(folder: Path, secrets: list[str], *records: Record) -> list[Record]:
    path = folder / "requests-h-w0.jsonl"
    path.write_bytes(b"".join(map(to_line, records)))
    strike_out_of([path], secrets)
    return [from_line(line) for line in path.read_bytes().splitlines(keepends=True)]


def test_a_secret_goes_from_wherever_a_server_may_have_said_it(tmp_path: Path) -> None:
    said = record(f"401: {KEY}!", text=f"{KEY} {KEY}", finish=KEY, server_times={KEY: [KEY, 1]})
    (found,) = struck(tmp_path, [KEY], said)
    clean = record(
        "401: [secret]!", text="[secret] [secret]", finish="[secret]", server_times={"[secret]": ["[secret]", 1]}
    )
    assert found == clean


def test_a_secret_that_is_one_of_our_words_changes_nothing_of_ours(tmp_path: Path) -> None:
    (found,) = struck(tmp_path, ["measure", "loadgen", "http_error"], record("to measure"))
    assert found == record("to [secret]")


def test_a_file_without_a_secret_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "requests-h-w0.jsonl"
    path.write_bytes(to_line(record("nothing")) + b'{"seq": 1, "err": "half a li')
    before = path.stat().st_ino
    strike_out_of([path], [KEY])
    strike_out_of([path], [])
    assert path.stat().st_ino == before


def test_half_a_line_is_rid_of_it_as_well(tmp_path: Path) -> None:
    path = tmp_path / "requests-h-w0.jsonl"
    path.write_bytes(b'{"seq": 1, "err": "401: canary-key-47')
    strike_out_of([path], ["canary-key-4711"])
    assert path.read_bytes() == b'{"seq": 1, "err": "401: [secret]'


def test_a_worker_without_a_disk_ends_the_run_and_one_that_died_does_not() -> None:
    stop_if_full(["worker 0 (pid 1) was killed by signal 9"])
    with pytest.raises(StoreError, match=r"No space left on device; .* Free some space"):
        stop_if_full(["worker 0 failed: /x: No space left on device; a worker could not go on"])


# The measured window --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stopped_at", "w1"), [(None, 5.5), (9.0, 5.5), (3.0, 3.0), (1.0, 2.501)], ids=["whole", "late", "cut", "warming"]
)
def test_a_window_has_the_scenarios_length_or_ends_where_it_was_stopped(
    tmp_path: Path, stopped_at: float | None, w1: float
) -> None:
    assert window_of(Shape(window_s=3.0), 2.5, tmp_path, stopped_at) == Window(2.5, pytest.approx(w1))


def test_a_window_by_count_goes_from_the_first_measured_send_to_the_last_end(tmp_path: Path) -> None:
    times = [("warmup", 0.1, 9.0), ("measure", 2.0, 3.0), ("measure", 1.5, 4.0), ("measure", 3.5, None)]
    found = [
        Record(seq=0, session=0, phase=phase, t_sched=0.0, status="ok", t_send=a, t_end=b) for phase, a, b in times
    ]
    unsent = Record(seq=0, session=0, phase="measure", t_sched=0.0, status="dropped", t_end=9.0)
    (tmp_path / "requests-h-w0.jsonl").write_bytes(b"".join(map(to_line, found[:2])))
    (tmp_path / "requests-h-w1.jsonl").write_bytes(b"".join(map(to_line, [*found[2:], unsent])))
    assert window_of(Shape(requests=3), 1.0, tmp_path, None) == Window(1.5, 4.0)
    assert window_of(Shape(requests=3, window_s=60.0), 1.0, tmp_path, None) == Window(1.5, 4.0)


def test_a_window_in_which_nothing_was_sent_is_short_and_not_empty(tmp_path: Path) -> None:
    found = window_of(Shape(requests=3), 1.0, tmp_path, None)
    assert (found.w0, found.length_s) == (1.0, pytest.approx(1e-3))
