"""What request lines come to beside their summary: what the workers, their clocks and the schedule have against it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from scenario_text import scenario
from test_audit import LONG
from test_audit import run as flawless

from loadgen.drive.tally import Audit
from loadgen.fleet import Outcome
from loadgen.fleet.clocks import WorkerClock
from loadgen.judging import judged, worker_doubts
from loadgen.offered import shape_of
from loadgen.record import Record, to_line
from loadgen.scenario import expand
from loadgen.summary import Doubt, Summary

AUDIT = Audit(
    worker=0, digest=0, sent=400, dropped=0, cpu_s=1.0, cpu_share=0.2, rss_mib=50.0, clock_steps=0, kernel_clock=True,
    loop_us_max=10, connections=1,
)  # fmt: skip
GOOD = Outcome(start_ns=0, started_at=0.0, audits=(AUDIT,))
OPEN = "{rate_rps: 10, arrival: constant, warmup_s: 12, window_s: 40}"


def clock(error_us: float | None, late_us: float = 0.0) -> WorkerClock:
    return WorkerClock(worker=0, host="far", offset_ns=0, error_us=error_us, drift_us=0.0, late_us=late_us)


def summary(folder: Path, records: list[Record], outcome: Outcome = GOOD, load: str = OPEN) -> Summary:
    text = (
        "schema: loadgen/v1\ntargets: {a: {endpoint: 'http://h:1', model: m}}\n"
        f"workload: {{prompts: natural, output: {{exact: 3}}}}\nload: {load}\n"
    )
    (cell,) = expand(scenario(folder, text))
    (folder / "requests-h-w0.jsonl").write_bytes(b"".join(map(to_line, records)))
    shape = shape_of(cell.scenario.load)
    return judged(cell, (shape, 1), folder, LONG, (outcome, worker_doubts(outcome, 1, 1))).summary


def against(found: Summary) -> list[str]:
    return [doubt.code for doubt in found.invalid]


def test_what_has_nothing_against_it_is_good(tmp_path: Path) -> None:
    found = summary(tmp_path, flawless(400))
    assert (found.state, found.doubts) == ("ok", ())
    assert found.audit.offered_rps == found.audit.achieved_rps == pytest.approx(10)


def test_a_worker_without_cpu_to_spare_is_held_against_its_repeat(tmp_path: Path) -> None:
    busy = msgspec.structs.replace(AUDIT, worker=1, cpu_share=0.9)
    unknown = msgspec.structs.replace(AUDIT, worker=2, cpu_share=None)
    found = summary(tmp_path, flawless(400), msgspec.structs.replace(GOOD, audits=(AUDIT, busy, unknown)))
    assert (against(found), found.audit.worker_cpu) == (["cpu"], (0.2, 0.9))


def test_requests_that_the_schedule_had_in_the_window_and_nobody_sent_are_missed(tmp_path: Path) -> None:
    found = summary(tmp_path, flawless(400)[:390])
    assert against(found) == ["sends"]
    assert found.audit.offered_rps == pytest.approx(10)
    closed = summary(tmp_path, flawless(400)[:390], load="{concurrency: 1, warmup_s: 12, window_s: 40}")
    assert closed.audit.offered_rps is None


def test_replies_of_another_length_than_the_scenario_asks_for_are_a_doubt(tmp_path: Path) -> None:
    found = summary(tmp_path, flawless(400, out_tok=4, ask_tok=3))
    assert (found.wrong_length, "lengths" in [doubt.code for doubt in found.doubts]) == (400, True)


def test_a_burst_is_judged_by_what_its_requests_wait(tmp_path: Path) -> None:
    late = flawless(400, late=0.006, ttft_s=2.0)
    assert against(summary(tmp_path, late)) == ["late"]
    assert against(summary(tmp_path, late, load="{burst: 400}")) == []


def test_workers_whose_clocks_are_far_apart_are_held_against_their_repeat(tmp_path: Path) -> None:
    apart = msgspec.structs.replace(GOOD, clocks=(clock(9_000.0), clock(1_000.0, late_us=800.0)))
    found = summary(tmp_path, flawless(400), apart)
    assert (against(found), found.audit.skew_s) == (["skew"], pytest.approx(0.0108))


def test_what_weakens_a_repeat_for_the_sake_of_its_workers_is_said() -> None:
    def codes(outcome: Outcome, workers: int = 1, wanted: int = 1) -> list[str]:
        return [doubt.code for doubt in worker_doubts(outcome, workers, wanted)]

    assert codes(GOOD) == []
    assert codes(GOOD, workers=1, wanted=2) == ["fewer_workers"]
    assert codes(msgspec.structs.replace(GOOD, lost=("worker 1 was killed",))) == ["worker_lost"]
    assert codes(msgspec.structs.replace(GOOD, clocks=(clock(5.0), clock(None)))) == ["clock_unknown"]
    stepped = msgspec.structs.replace(AUDIT, clock_steps=1)
    assert codes(msgspec.structs.replace(GOOD, audits=(AUDIT, stepped))) == ["clock_step"]
    mine = Doubt("mine", "A doubt of the places.")
    assert worker_doubts(msgspec.structs.replace(GOOD, doubts=(mine,)), 1, 1) == [mine]
