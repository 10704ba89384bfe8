"""A run whose time is up: the repeat that goes on may end, nothing more is begun, and what was measured is kept."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cli_runner import write_scenario
from fakes import FakeServer
from msgspec.structs import replace
from nights_made import NORMAL, SCENARIO, Place

from loadgen.assemble import RunReport, assemble
from loadgen.drive.tally import Tick
from loadgen.interrupt import Interrupt
from loadgen.nightly.past_runs import paces
from loadgen.nightly.story import Asked, nightly
from loadgen.nights.history import read_history
from loadgen.nights.night import remarks
from loadgen.nights.verdicts import State
from loadgen.plan import make_plan
from loadgen.progress import Progress
from loadgen.reports import rows
from loadgen.run import Request, execute
from loadgen.scenario import expand, load
from loadgen.store import Run, read_json

TWO = """
targets: {a: {endpoint: 'URL', model: m}}
workload: {prompts: natural, output: {exact: 8}}
load: {warmup_s: 0, window_s: 0.3, workers: 1}
matrix: {load.concurrency: [1, 2]}
repeats: 3
"""


class LateFrom(Progress):
    """A watcher that takes the clock forward once so many repeats are over; the run asks the time each time anew."""

    def __init__(self, repeats: int, interrupt: Callable[[], None]) -> None:
        super().__init__(lambda _: None, live=True)
        self._left, self._interrupt = repeats, interrupt

    def ended(self, result: object) -> None:
        self._left -= 1
        if self._left == 0:
            self._interrupt()


def cut_after(repeats: int, request: Request, monkeypatch: pytest.MonkeyPatch) -> RunReport:
    """A run whose time is up when so many of its repeats are over."""
    up: list[bool] = []
    monkeypatch.setattr(Interrupt, "out_of_time", property(lambda _: bool(up)))
    return execute(request, LateFrom(repeats, lambda: up.append(True)))


@pytest.fixture
def request_(tmp_path: Path, fake_server: Callable[..., FakeServer]) -> Request:
    text = TWO.replace("URL", fake_server(ttft_ms=5, gap_ms=5).url)
    return Request(load(write_scenario(tmp_path, text)), tmp_path / "store")


def test_a_run_whose_time_is_up_keeps_what_it_has_and_says_what_is_missing_until_it_is_gone_on_with(
    request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = cut_after(4, request_, monkeypatch)
    assert (report.run["status"], report.run["out_of_time"], report.exit_code) == ("degraded", True, 5)
    first, second = (cell.targets[0].results for cell in report.cells)
    assert [one is not None for one in (*first, *second)] == [True] * 4 + [False] * 2
    (said, *_) = rows.warning_lines(report)
    assert said == "The time was up before this was measured. (2 repeats, first concurrency=2, a, repeat 2)"
    before = sorted(Path(report.path).rglob("summary.json"))

    monkeypatch.undo()
    resumed = Request(request_.loaded, request_.store, resume=Run(Path(report.path)))
    whole = execute(resumed, Progress(lambda _: None, True))
    assert (whole.run["status"], whole.run["out_of_time"]) == ("complete", False)
    assert [one.code for one in whole.warnings if one.code == "out_of_time"] == []
    after = sorted(Path(report.path).rglob("summary.json"))
    assert (after[:4], len(after)) == (before, 6)


def test_a_run_whose_time_was_up_before_it_measured_anything_has_failed(request_: Request) -> None:
    late = execute(Request(request_.loaded, request_.store, ends_at=time.monotonic()), Progress(lambda _: None, True))
    assert (late.run["status"], late.exit_code) == ("failed", 6)


def test_a_repeat_that_takes_longer_than_was_planned_is_drained_when_the_time_is_up(
    tmp_path: Path, fake_server: Callable[..., FakeServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = TWO.replace("URL", fake_server(ttft_ms=5, gap_ms=100).url)
    text = text.replace("warmup_s: 0, window_s: 0.3", "warmup_s: 0, requests: 1000").replace("[1, 2]", "[1]")
    loaded = load(write_scenario(tmp_path, text.replace("repeats: 3", "repeats: 1")))
    (cell,) = make_plan(loaded.scenario, expand(loaded.scenario), tmp_path).cells
    monkeypatch.setattr(Interrupt, "over", property(lambda _: False))  # as if it had begun in time
    ends_at = time.monotonic() + 5 - cell.seconds
    report = execute(Request(loaded, tmp_path / "store", ends_at=ends_at), Progress(lambda _: None, True))
    (result,) = report.cells[0].targets[0].results
    assert result is not None
    assert result.interrupted
    assert 0 < result.summary.requests < 100  # ten minutes were asked for
    assert report.exit_code == 5
    assert rows.warning_lines(report)[0].startswith(
        "The time was up before this was measured. (concurrency=1, a, repeat 1)"
    )


class InItsDrain(Progress):
    """A watcher that interrupts the run when the window of its repeat is over, and replies are still coming."""

    def __init__(self) -> None:
        super().__init__(lambda _: None, live=True)
        self._left = 1

    def ticked(self, tick: Tick) -> None:
        if self._left:
            os.kill(os.getpid(), signal.SIGINT)
        self._left = 0


@pytest.mark.parametrize("signalled", [False, True])
def test_a_repeat_whose_window_is_over_is_whole_though_its_replies_still_come(
    tmp_path: Path, fake_server: Callable[..., FakeServer], monkeypatch: pytest.MonkeyPatch, signalled: bool
) -> None:
    """The first tick comes after 1 s, the replies after 2.8 s; the plan says 0.8 s."""
    text = TWO.replace("URL", fake_server(ttft_ms=5, gap_ms=400).url).replace("[1, 2]", "[1]")
    loaded = load(write_scenario(tmp_path, text.replace("repeats: 3", "repeats: 1")))
    if signalled:
        report = execute(Request(loaded, tmp_path / "store"), InItsDrain())
    else:
        monkeypatch.setattr(Interrupt, "over", property(lambda _: False))  # as if it had begun in time
        ends_at = time.monotonic()
        report = execute(Request(loaded, tmp_path / "store", ends_at=ends_at), Progress(lambda _: None, True))
    (result,) = report.cells[0].targets[0].results
    assert result is not None
    assert not result.interrupted
    assert result.summary.window.length_s == pytest.approx(0.3)
    assert (result.summary.requests, result.summary.ok) == (1, 1)
    assert [one.code for one in report.warnings if one.code == "out_of_time"] == []
    assert (report.exit_code == 130) is signalled


def test_the_first_signal_drains_whatever_the_time_is() -> None:
    one = Interrupt(ends_at=time.monotonic() - 5)
    assert (one.over, one.out_of_time, one.exit_code) == (True, True, None)
    assert one.wanted(grace_s=60) is None
    assert one.wanted(grace_s=1) == "drain"
    assert Interrupt(ends_at=time.monotonic() - 60).wanted(grace_s=1) == "now"
    other = Interrupt()
    assert not other.over
    other(15, None)
    assert (other.over, other.wanted(60), other.exit_code) == (True, "drain", 143)


# Nights ---------------------------------------------------------------------------------------------------------------


def test_what_failed_in_a_night_that_overran_its_budget_is_invalid_and_was_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path)
    place.pace(NORMAL, "-1")  # the second server dies
    text = SCENARIO.replace("model: m}}", "model: m}, b: {engine: ./paced.yaml, model: m}}")
    text = text.replace("window_s: 0.6", "requests: 1")  # its rate counts on a machine that is held up, too
    up: list[bool] = []
    monkeypatch.setattr(Interrupt, "out_of_time", property(lambda _: bool(up)))
    asked = Asked(load(place.scenario(text=text)), place.store, budget_s=1000)
    night, report = nightly(asked, LateFrom(2, lambda: up.append(True)))
    assert report.run["out_of_time"]
    assert night.left_out == ()
    assert night.exit_code == 6
    assert not [line for line in remarks(night) if "budget" in line]
    rates = [one for one in night.verdicts if one.series.measure == "output_tok_s"]
    assert {one.series.target: one.state for one in rates} == {"a": State.LEARNING, "b": State.INVALID}


def test_a_night_that_overruns_its_budget_ends_in_order_and_what_it_measured_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan fits into the budget; what cannot be foreseen takes the rest of it."""
    (tmp_path / "locks").mkdir()
    monkeypatch.setenv("LOADGEN_LOCKS", str(tmp_path / "locks"))
    place = Place(tmp_path)
    text = SCENARIO.replace("load: {concurrency: 4, ", "load: {") + "matrix: {load.concurrency: [1, 2, 4]}\n"
    text = text.replace("repeats: 1", "repeats: 2")
    up: list[bool] = []
    monkeypatch.setattr(Interrupt, "out_of_time", property(lambda _: bool(up)))
    asked = Asked(load(place.scenario(text=text)), place.store, budget_s=1000)
    night, report = nightly(asked, LateFrom(3, lambda: up.append(True)))
    assert night.exit_code == 5
    assert not night.interrupted
    assert {one.series.cell for one in night.verdicts} == {"concurrency=1", "concurrency=2"}
    assert night.left_out == ("concurrency=4",)
    assert (
        "The budget was used up before its end: 3 repeats are missing, the first concurrency=2, a, repeat 2."
        in remarks(night)
    )
    assert read_json(Path(night.path) / "run.json")["night"]["left_out"] == ["concurrency=4"]
    history = read_history(place.store)
    assert {history.series[key].cell for key in history.entries} == {"concurrency=1", "concurrency=2"}
    assert assemble(Run(Path(report.path))).exit_code == 5  # and so says `loadgen report`

    monkeypatch.undo()
    (place.store / "events.jsonl").unlink()  # as if it had been killed before its verdict
    later, _ = nightly(replace(asked, budget_s=None, resume=True), Progress(lambda _: None, True))
    assert later.run == night.run
    assert later.left_out == ()
    assert {one.series.cell for one in later.verdicts} == {"concurrency=1", "concurrency=2", "concurrency=4"}
    assert list(read_json(Path(night.path) / "run.json")["night"]["left_out"]) == []
    assert paces(place.store, [night.run]) == []  # the hours between are none of the night's
