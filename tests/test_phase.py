"""What the phase of a window does to the rate of a closed loop, against the formula; and who is told of it."""

from __future__ import annotations

import math
import random

import msgspec
import pytest
from test_summarise import reply

from loadgen.comparing.compare import compare
from loadgen.comparing.comparison import CellPairs, ComparedCell, Settings
from loadgen.comparing.phase import error_of
from loadgen.summarise import summarise
from loadgen.summary import Context, Summary, Window


def server(
    ttft_s: float, gap_s: float, begin: float, length: float = 30.0, slots: int = 1, tokens: int = 30
) -> Summary:
    """A closed loop at a server that answers alike every time, measured from ``begin`` on; its slots are spread."""
    chunks = tuple(round((ttft_s + gap_s * token) * 1e6) for token in range(tokens))
    life = chunks[-1] / 1e6
    sends = [
        life * (turn + slot / slots) for slot in range(slots) for turn in range(math.ceil((begin + length) / life) + 1)
    ]
    window = Window(begin, begin + length)
    records = [reply(send, chunks, phase="measure" if send >= begin else "warmup") for send in sends]
    return summarise(records, window, Context(concurrency=slots))


def compared(a: list[Summary], b: list[Summary]) -> ComparedCell:
    pairs = CellPairs(
        cell="c", axes={"concurrency": 1}, baseline="a", candidate="b", baseline_repeats=a, candidate_repeats=b
    )
    return compare([pairs], Settings()).cells[0]


def told(cell: ComparedCell) -> list[str]:
    return [doubt.text for doubt in cell.doubts if doubt.code == "phase"]


@pytest.mark.parametrize(("ttft_s", "gap_s"), [(1.1, 0.05), (0.3, 0.1)])
@pytest.mark.parametrize("metric", ["output_tok_s", "request_rps"])
def test_the_error_is_that_of_windows_that_begin_anywhere(ttft_s: float, gap_s: float, metric: str) -> None:
    draw = random.Random(5)
    found = [server(ttft_s, gap_s, draw.uniform(10, 20), draw.uniform(26, 34)) for _ in range(400)]
    true = {"output_tok_s": 30, "request_rps": 1}[metric] / (ttft_s + gap_s * 29)
    values = [getattr(one, metric) for one in found]
    spread = math.sqrt(sum((value / true - 1) ** 2 for value in values) / len(values))
    error = error_of(metric, found)
    assert error is not None
    assert spread == pytest.approx(error, rel=0.15)


def test_a_ratio_that_every_repeat_gets_wrong_alike_is_told_how_wrong_it_may_be() -> None:
    a, b = [server(1.1, 0.05, 10)] * 4, [server(1.5, 0.04, 10)] * 4
    cell = compared(a, b)
    assert cell.primary.ratio is not None
    assert cell.primary.ratio.half_width == pytest.approx(0, abs=1e-9)  # sure of itself, and 0.960 is true
    assert cell.primary.ratio.value == pytest.approx(0.994, abs=0.002)
    assert told(cell) == [
        "Differences of less than 4.9 % at concurrency 1 may be those of where the window begins: requests take up to "
        "2.66 s, and every repeat begins at the same phase of them, which no interval holds. Make load.window_s longer."
    ]


def test_repeats_that_begin_anywhere_are_told_nothing_for_their_interval_holds_it() -> None:
    draw = random.Random(3)
    a = [server(1.1, 0.05, draw.uniform(10, 13)) for _ in range(4)]
    b = [server(1.5, 0.04, draw.uniform(10, 13)) for _ in range(4)]
    assert told(compared(a, b)) == []


def test_many_slots_and_long_windows_make_the_error_less() -> None:
    one, many = (
        error_of("output_tok_s", [server(1.1, 0.05, 10)]),
        error_of("output_tok_s", [server(1.1, 0.05, 10, slots=16)]),
    )
    longer = error_of("output_tok_s", [server(1.1, 0.05, 10, 120)])
    assert one is not None
    assert many == pytest.approx(one / 4, rel=0.05)
    assert longer == pytest.approx(one / 4, rel=0.05)


def test_open_loops_and_latencies_have_no_such_error() -> None:
    closed = server(1.1, 0.05, 10)
    opened = msgspec.structs.replace(closed, audit=msgspec.structs.replace(closed.audit, offered_rps=1.0))
    assert error_of("output_tok_s", [opened]) is None
    assert error_of("ttft_s", [closed]) is None


def test_an_error_that_is_small_beside_the_margin_is_not_worth_a_word() -> None:
    a, b = [server(1.1, 0.05, 10, 150)] * 4, [server(1.5, 0.04, 10, 150)] * 4
    assert told(compared(a, b)) == []
    errors = [error_of("output_tok_s", side) for side in (a, b)]
    assert math.hypot(*(one for one in errors if one is not None)) == pytest.approx(0.005, abs=0.0003)
