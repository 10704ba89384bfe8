"""Long repeats: intervals while they fill, what a kill leaves of them, and memory that does not grow with the run."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
from cli_runner import command, environment, loadgen, write_scenario
from fakes import FakeServer
from numpy.typing import NDArray
from test_summarise import failure, reply

from loadgen import collect, correlation
from loadgen.columns import Column
from loadgen.drive.tally import Tick
from loadgen.histogram import MOST_STEPS, step_s
from loadgen.long.follow import Follower, made_of_parts
from loadgen.long.intervals import FILE, Ended, Interval, Intervals, length_of, read_intervals
from loadgen.record import Record, read_records, to_line
from loadgen.repeat import Second
from loadgen.scenario.model import Load
from loadgen.statistics import nearest_rank
from loadgen.store import append_line, request_files
from loadgen.summarise import summarise
from loadgen.summary import Context, Window
from loadgen.telemetry import looks
from loadgen.telemetry.reading import GpuReading, Reading, Usage


def ended(record: Record) -> Ended:
    return msgspec.json.decode(to_line(record), type=Ended)


def many(count: int, seed: int = 1) -> list[Record]:
    """Replies over 10 s and a little, of 1 to 40 chunks each, some failures among them, in the order of their end."""
    rng, found = random.Random(seed), []
    for _ in range(count):
        send = rng.random() * 10
        chunks = tuple(sorted(rng.randrange(1000, 3_000_000) for _ in range(rng.randrange(1, 40))))
        found.append(reply(send, chunks) if rng.random() < 0.95 else failure(t_send=send, t_end=send + 0.1))
    return sorted(found, key=lambda record: record.t_end or 0.0)


# Intervals ------------------------------------------------------------------------------------------------------------


def test_the_intervals_add_up_to_the_whole_and_tokens_count_where_they_arrived() -> None:
    records, intervals = many(500), Intervals(0.7)
    for record in records:
        intervals.add(ended(record))
    made = list(intervals.made(14.0))
    assert sum(one.ended.get("ok", 0) for one in made) == sum(record.status == "ok" for record in records)
    assert sum(one.failed for one in made) == sum(record.status != "ok" for record in records)
    arrived = [(r.t_send or 0) + us * 1e-6 for r in records if r.status == "ok" for us in r.chunk_us]
    for one in made:
        inside = sum(one.start_s <= at < one.end_s for at in arrived)
        assert one.output_tok_s == pytest.approx(inside / one.length_s, abs=2 / one.length_s)
    assert sum((one.output_tok_s or 0) * one.length_s for one in made) == pytest.approx(len(arrived))


def test_percentiles_of_an_interval_are_those_of_the_requests_that_ended_in_it() -> None:
    records, intervals = many(800), Intervals(5.0)
    for record in records:
        intervals.add(ended(record))
    first = next(intervals.made(15.0))
    ttft = sorted(r.ttft_s for r in records if r.ttft_s is not None and (r.t_end or 0) < 5)
    assert first.ttft_p50_s == nearest_rank(ttft, 0.5)
    assert first.ttft_p99_s is None, "381 requests are needed for it"
    assert first.ended["ok"] == len(ttft)


def test_an_interval_that_is_closed_keeps_its_numbers_and_lets_the_values_go() -> None:
    intervals = Intervals(1.0)
    for i in range(10_000):
        intervals.add(ended(reply(i / 1000, (5000, 6000))))
        intervals.close(i / 1000 - 1)
    assert sum(len(one.ttft) for one in intervals._bins.values()) < 3000
    assert [one.ttft_p99_s for one in intervals.made(10.0)] == [0.005] * 10


def test_a_reply_whose_tokens_nobody_counted_leaves_no_token_rate() -> None:
    intervals = Intervals(1.0)
    intervals.add(ended(reply(0.1, (5000, 6000), out_tok=None)))
    (one,) = intervals.made(1.0)
    assert one.output_tok_s is None
    assert one.request_rps == 1


@pytest.mark.parametrize(
    ("words", "length"),
    [
        ({"window_s": 599.0}, None),
        ({"window_s": 600.0}, 10.0),
        ({"window_s": 1800.0}, 30.0),
        ({"window_s": 28_800.0}, 60.0),
        ({"window_s": 30.0, "interval_s": 2.0}, 2.0),
        ({"requests": 10**6}, None),
    ],
)
def test_long_windows_are_kept_in_intervals_and_short_ones_where_the_scenario_asks(
    words: dict[str, float], length: float | None
) -> None:
    assert length_of(Load.model_validate({"concurrency": 1, **words})) == length


# Following ------------------------------------------------------------------------------------------------------------


def test_an_interval_is_written_when_its_tokens_have_come_and_the_file_is_made_anew_at_the_end(tmp_path: Path) -> None:
    follower, path = Follower(tmp_path, 1.0), tmp_path / "requests-h-w0.jsonl"
    long = reply(0.2, (100_000, 2_600_000))  # it ends 1.8 s after the interval in which it began
    lines = [to_line(reply(0.1 * i, (5000, 6000))) for i in range(40)]
    for second in range(1, 9):
        with path.open("ab") as file:
            file.write(b"".join(lines[(second - 1) * 10 : second * 10]))
            file.write(to_line(long) if second == 4 else b"")
        follower.second(Tick(worker=0, t=float(second), in_flight=3, cpu=0.5), {"server_bytes": 1e9})
        written = read_intervals(tmp_path)
        if second == 3:
            assert [one.start_s for one in written] == [0.0], "replies take 6 ms, so it waits a second and no more"
    assert written[0].output_tok_s == 20
    every = follower.finish()
    assert every[0].output_tok_s == 21, "the first token of the long one"
    assert read_intervals(tmp_path) == every
    assert [one.in_flight for one in every] == [3.0] * 8
    assert every[3].server == {"server_bytes": 1e9}


def test_a_line_that_is_still_being_written_counts_when_it_is_whole(tmp_path: Path) -> None:
    follower, path = Follower(tmp_path, 1.0), tmp_path / "requests-h-w0.jsonl"
    line = to_line(reply(0.1, (5000, 6000)))
    path.write_bytes(line + line[:40])
    follower.second(Tick(worker=0, t=1.0), {})
    path.write_bytes(line + line)
    follower.second(Tick(worker=0, t=2.0), {})
    assert follower.finish()[0].ended == {"ok": 2}


def test_a_worker_that_is_gone_is_not_waited_for(tmp_path: Path) -> None:
    follower = Follower(tmp_path, 2.0)
    for second in range(1, 20):
        for worker in (0, 1) if second < 5 else (1,):
            follower.second(Tick(worker=worker, t=float(second)), {})
    assert len(read_intervals(tmp_path)) == 9


def test_without_a_length_nothing_is_written(tmp_path: Path) -> None:
    follower = Follower(tmp_path, None)
    follower.second(Tick(worker=0, t=1.0), {})
    assert follower.finish() == []
    assert list(tmp_path.iterdir()) == []


def test_the_parts_of_shards_make_the_intervals_of_one_run(tmp_path: Path) -> None:
    records = many(900)
    for folder, workers in ((tmp_path / "one", 1), (tmp_path / "three", 3)):
        folder.mkdir()
        for worker in range(workers):
            share = [to_line(one) for i, one in enumerate(records) if i % workers == worker]
            (folder / f"requests-h{worker}-w{worker}.jsonl").write_bytes(b"".join(share))
    follower = Follower(tmp_path / "one", 0.7)
    for second in range(1, 15):
        words = {"server_bytes": 1e9 + second}
        for worker, places in ((0, ("one", "three")), (1, ("three",)), (2, ("three",))):
            tick = Second(worker=worker, t=float(second), in_flight=9 if len(places) == 1 else 0, server=words)
            append_line(tmp_path / "three" / "ticks.jsonl", tick)
        follower.second(Tick(worker=0, t=float(second), in_flight=18), words)
    expected = follower.finish()
    assert made_of_parts(tmp_path / "three", 0.7, hearer=0) == expected
    assert read_intervals(tmp_path / "three") == expected
    assert sum(sum(one.ended.values()) for one in expected) == 900
    assert made_of_parts(tmp_path / "three", 0.7, hearer=3)[0].server == {}, "nobody of that number heard it"


def test_of_a_long_merged_repeat_the_values_of_old_intervals_are_let_go(tmp_path: Path) -> None:
    lines = [to_line(reply(i / 100, (5000, 6000))) for i in range(60_000)]
    for worker in (0, 1):
        (tmp_path / f"requests-h-w{worker}.jsonl").write_bytes(b"".join(lines[worker::2]))
    (tmp_path / "ticks.jsonl").write_bytes(msgspec.json.encode(Tick(worker=0, t=600.0)) + b"\n")
    held: list[int] = []
    close = Intervals.close
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            Intervals,
            "close",
            lambda self, until: (close(self, until), held.append(sum(len(one.ttft) for one in self._bins.values())))[0],
        )
        made = made_of_parts(tmp_path, 10.0, hearer=0)
    assert [one.ended["ok"] for one in made] == [1000] * 60
    assert made[5].ttft_p99_s == 0.005
    assert max(held) < 4000


# Whole runs -----------------------------------------------------------------------------------------------------------

SCENARIO = """
targets: {{a: {{endpoint: '{url}', model: m}}}}
workload: {{prompts: natural, output: {{exact: 4}}}}
load: {{concurrency: 4, warmup_s: 1, window_s: {window}, interval_s: 1}}
repeats: 1
"""


def test_a_run_shows_its_course_and_every_request_is_in_it(tmp_path: Path) -> None:
    with FakeServer(ttft_ms=20, gap_ms=5) as server:
        scenario = write_scenario(tmp_path, SCENARIO.format(url=server.url, window=3))
        done = loadgen(tmp_path, "run", str(scenario), "--quiet")
    (attempt,) = done.attempts()
    intervals = read_intervals(attempt)
    assert sum(sum(one.ended.values()) for one in intervals) == len(done.records(attempt))
    assert "Over time: all, a, repeat 1" in done.out
    assert "too few, a test needs 40" in done.out
    report = json.loads((done.run / "report.json").read_text())
    assert [one["start_s"] for one in report["over_time"][0]["intervals"]] == [one.start_s for one in intervals]
    assert "Over time: all, a, repeat 1" in (done.run / "report.html").read_text()


def test_of_a_run_that_was_killed_the_report_shows_the_intervals_that_were_over(tmp_path: Path) -> None:
    store = tmp_path / "store"
    with FakeServer(ttft_ms=20, gap_ms=5) as server:
        scenario = write_scenario(tmp_path, SCENARIO.format(url=server.url, window=60))
        run = subprocess.Popen(command("run", str(scenario), "--quiet"), env=environment(store))
        until = time.monotonic() + 120
        while time.monotonic() < until and sum(_lines(path) for path in store.rglob(FILE)) < 3:
            time.sleep(0.1)
        going = loadgen(tmp_path, "report", "last")
        run.send_signal(signal.SIGKILL)
        run.wait()
    assert "repeat 1, so far" in going.out
    killed = loadgen(tmp_path, "report", "last")
    assert "The repeat goes on, or was cut off" in killed.out
    assert "it was killed, or the machine went down" in " ".join(killed.out.split())
    (attempt,) = killed.attempts()
    assert len(list(read_records(request_files(attempt)))) > 0


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n")


# Memory ---------------------------------------------------------------------------------------------------------------


def test_figures_that_waited_on_the_disk_give_the_same_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records, window = many(3000), Window(1, 9)
    context = Context(limits={"ttft_s": 1.0}, concurrency=8)
    kept = summarise(records, window, context)
    monkeypatch.setattr(collect, "_SPILL", 256)
    assert summarise(records, window, context, tmp_path) == kept
    assert list(tmp_path.iterdir()) == [], "its files have no names"


def test_a_column_gives_back_what_it_was_given_wherever_it_lay(tmp_path: Path) -> None:
    for folder in (None, tmp_path):
        column = Column("d", folder)
        assert len(column.load()) == 0
        for value in range(1000):
            column.append(value)
            if value % 300 == 0:
                column.spill()
        column.extend(np.array([7.0, 8.0]))
        assert column.load().tolist() == [*map(float, range(1000)), 7.0, 8.0]
        assert len(column) == 1002
        column.close()


def test_looks_of_a_day_are_as_many_as_those_of_two_hours_and_hold_every_peak() -> None:
    kept: list[Reading] = []
    for second in range(86_400):
        memory = 9e9 if second == 40_001 else 1e9
        gpu = GpuReading(uuid="g", memory_bytes=memory, joules=float(second))
        kept.append(Reading(at_ns=second * 10**9, gpus=(gpu,), server=Usage(float(second), memory), host_bytes=memory))
        kept = looks.kept(kept, looks.merged)
    assert len(kept) <= looks.MOST
    assert [one.at_ns // 10**9 for one in kept[: looks.EDGE]] == list(range(looks.EDGE))
    assert [one.at_ns // 10**9 for one in kept[-looks.EDGE :]] == list(range(86_400 - looks.EDGE, 86_400))
    assert max(one.gpus[0].memory_bytes or 0 for one in kept) == 9e9
    assert max(one.server.rss_bytes for one in kept if one.server) == 9e9
    assert all(one.gpus[0].joules == one.at_ns / 1e9 for one in kept), "a counter is that of its moment"


def whole_transform(series: NDArray[np.float64]) -> float:
    """The correlation time by one Fourier transform of everything: memory grows with the series."""
    n, centred = len(series), series - series.mean()
    rho = np.fft.irfft(np.abs(np.fft.rfft(centred, 4 * n)) ** 2)[:n]
    taus = np.maximum(1.0, 1 + 2 * np.cumsum(rho[1:] / rho[0]))
    return float(taus[np.flatnonzero(np.arange(1, n) >= 5 * taus)[0]])


@pytest.mark.parametrize(("phi", "off"), [(0.5, 1e-9), (0.99, 0.05), (0.998, 0.1)])
def test_a_correlation_that_outlasts_its_lags_is_found_from_means_of_neighbours(
    phi: float, off: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(correlation, "_LAGS", (64, 256))
    monkeypatch.setattr(correlation, "_BLOCK", 1000)
    series, noise = np.zeros(60_000), np.random.default_rng(1).standard_normal(60_000)
    for i in range(1, len(series)):
        series[i] = phi * series[i - 1] + noise[i]
    assert correlation.correlation_time(series) == pytest.approx(whole_transform(series), rel=off)


def test_a_log_of_histograms_has_no_more_steps_for_a_day_than_for_ten_minutes() -> None:
    assert [step_s(length) for length in (30.0, 600.0, 601.0, 86_400.0)] == [1.0, 1.0, 2.0, 144.0]
    assert all(length / step_s(length) <= MOST_STEPS for length in (30.0, 600.0, 601.0, 86_400.0))


def test_an_interval_of_an_older_or_newer_loadgen_is_read(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b'{"v":1,"start_s":0,"length_s":60,"new":3}\n{"v":1,"start_s":60,"len')
    assert read_intervals(tmp_path) == [Interval(start_s=0, length_s=60)]
