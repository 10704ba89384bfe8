"""Looking after thousands of requests a part at a time: nobody is left out, and nobody waits long."""

from __future__ import annotations

from typing import Any

import pytest

from loadgen.drive.outcome import Exchange
from loadgen.drive.overdue import Rounds


def exchanges(count: int) -> set[Exchange]:
    nothing: Any = None
    return {Exchange(nothing, nothing, "measure") for _ in range(count)}


@pytest.mark.parametrize("count", [0, 1, 512, 513, 4000, 10_000])
def test_a_round_sees_everyone_once_in_at_most_ten_looks(count: int) -> None:
    active = exchanges(count)
    rounds, seen, looks = Rounds(active), list[Exchange](), 0
    while len(seen) < count:
        part = rounds.part(every=False)
        seen += part
        looks += 1
        assert len(part) <= max(512, count // 10 + 1)
    assert set(seen) == active
    assert len(seen) == count
    assert looks <= 10


def test_what_has_ended_is_passed_over_and_what_has_begun_comes_in_the_next_round() -> None:
    active = exchanges(600)
    rounds = Rounds(active)
    first = set(rounds.part(every=False))
    left = active - first
    gone = next(iter(left))
    gone.ended = True
    active.remove(gone)
    active |= (new := exchanges(1))
    assert set(rounds.part(every=False)) == left - {gone}
    seen = {*rounds.part(every=False), *rounds.part(every=False)}
    assert new <= seen


def test_at_the_end_of_a_run_everyone_is_looked_at_at_once() -> None:
    active = exchanges(3000)
    rounds = Rounds(active)
    rounds.part(every=False)
    assert set(rounds.part(every=True)) == active
