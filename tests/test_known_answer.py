"""A comparison whose answer is known: two scripted servers, one 1.25 times as fast as the other at concurrency 2, and
equally fast at 6, through the whole of a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from cli_runner import Done, loadgen, write_scenario
from fakes import FakeServer

from loadgen.comparing.comparison import Comparison, Crossings
from loadgen.statistics import Verdict

LADDER = (2, 4, 8)
TOKENS, TTFT_MS = 6, 100.0  # of a TTFT this long, a client on a busy machine is not called late
# The gap between two tokens grows with the requests that run. The curves meet at 6 requests with 22 ms, which is 45.5
# tok/s a user; at 2 a reply takes the baseline 200 ms and the candidate 160 ms.
FLAT = {"gap_ms": 19.0, "gap_per_running_ms": 0.5}
STEEP = {"gap_ms": 7.0, "gap_per_running_ms": 2.5}
EQUAL_AT, EQUAL_TOK_S = 6, 1000 / 22

# What a client needs between a reply and the next request (about 1 ms, 5 on a busy machine) is in both sides' time, and
# makes the measured ratio smaller than that of the servers; a busy machine holds up a server, too. The ratios of two
# neighbours on the ladder are 0.14 apart at least.
TURNAROUND = 0.03


def reply_ms(server: dict[str, float], running: int) -> float:
    return TTFT_MS + (TOKENS - 1) * (server["gap_ms"] + server["gap_per_running_ms"] * running)


def true_ratio(running: int) -> float:
    return reply_ms(FLAT, running) / reply_ms(STEEP, running)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Done]:
    folder: Path = tmp_path_factory.mktemp("known")
    with FakeServer(ttft_ms=TTFT_MS, **FLAT) as flat, FakeServer(ttft_ms=TTFT_MS, **STEEP) as steep:
        text = (
            "targets:\n"
            # the engine says how to read its metrics
            f"  flat: {{engine: hf, endpoint: '{flat.url}', model: m, gpus: 1}}\n"
            f"  steep: {{engine: hf, endpoint: '{steep.url}', model: m, gpus: 1}}\n"
            f"workload: {{prompts: natural, output: {{exact: {TOKENS}}}}}\n"
            "load: {warmup_s: 0, requests: 16}\n"
            f"matrix: {{load.concurrency: {list(LADDER)}}}\nrepeats: 3\n"
            "comparison: {baseline: flat, scope: instance}\n"
        )
        scenario = str(write_scenario(folder, text))
        for _ in range(3):
            found = loadgen(folder, "run", scenario)
            if not (found.code == 5 and found.good):
                yield found
                return
    # A repeat that was sent late is INVALID and answers nothing; that is the machine's business, as `Done.good` says.
    pytest.skip("this machine was too busy to send in time, three times in a row")


@pytest.fixture(scope="module")
def comparison(done: Done) -> Comparison:
    assert done.code == 0, done.err + done.out
    report = msgspec.json.decode((done.run / "report.json").read_bytes())
    return msgspec.convert(report["comparisons"][0], Comparison)


def along(comparison: Comparison, axis: str) -> Crossings:
    (found,) = [one for one in comparison.crossings if (one.axis, one.measure) == (axis, "output_tok_s")]
    return found


def test_the_scripts_are_what_the_numbers_here_say() -> None:
    assert true_ratio(2) == pytest.approx(1.25)
    assert true_ratio(EQUAL_AT) == pytest.approx(1)
    assert 1000 / (FLAT["gap_ms"] + EQUAL_AT * FLAT["gap_per_running_ms"]) == pytest.approx(EQUAL_TOK_S)


def test_the_true_ratio_lies_in_the_interval_of_every_cell(comparison: Comparison) -> None:
    for cell, concurrency in zip(comparison.cells, LADDER, strict=True):
        ratio, truth = cell.primary.ratio, true_ratio(concurrency)
        assert ratio is not None
        assert ratio.low is not None
        assert ratio.high is not None
        assert ratio.low * (1 - TURNAROUND) <= truth <= ratio.high * (1 + TURNAROUND), cell.primary.sentence
        assert ratio.value == pytest.approx(truth, rel=0.05)
    first = comparison.cells[0].primary
    assert first.verdict is Verdict.FASTER
    assert first.ratio.low > 1.1  # an interval that says something
    assert first.ratio.high < 1.4


def test_the_crossover_lies_within_one_grid_step_of_the_truth(comparison: Comparison) -> None:
    found = along(comparison, "concurrency")
    (one,) = found.crossings
    assert (one.low, one.high, one.direction) == (4, 8, "falls behind")
    assert one.at == pytest.approx(EQUAL_AT, rel=0.15)
    assert (found.first, found.last) == (2, 8)


def test_so_does_the_one_by_the_batch_that_the_servers_said_they_ran(comparison: Comparison) -> None:
    found = along(comparison, "batch_seen")
    (one,) = found.crossings
    assert one.direction == "falls behind"
    assert 3.5 < one.low < EQUAL_AT < one.high < 8.1
    assert one.at == pytest.approx(EQUAL_AT, rel=0.15)


def test_and_the_one_at_equal_interactivity(comparison: Comparison) -> None:
    found = along(comparison, "interactivity")
    (one,) = found.crossings
    assert (one.direction, found.per) == ("overtakes", "GPU")
    assert one.low < EQUAL_TOK_S < one.high < 52  # the range of the baseline ends at 50
    assert one.at == pytest.approx(EQUAL_TOK_S, rel=0.05)


def test_the_terminal_says_it_in_a_sentence_an_axis(done: Done, comparison: Comparison) -> None:
    said = " ".join(done.out.split())
    assert all(along(comparison, axis).sentence in said for axis in ("concurrency", "batch_seen", "interactivity"))
