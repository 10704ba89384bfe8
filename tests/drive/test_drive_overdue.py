"""Looking after thousands of requests a part at a time: nobody is left out, and nobody waits long."""

from __future__ import annotations

from typing import Any

import pytest

from loadgen.drive.job import Shape
from loadgen.drive.outcome import Exchange
from loadgen.drive.overdue import Rounds, overdue


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


SHAPE = Shape(connect_timeout_s=1.0, stall_timeout_s=3.0, timeout_s=10.0)


@pytest.mark.parametrize(
    ("sent", "read", "now", "status"),
    [  # seconds: of the send (0: not yet), of the last byte, and of the look; it was due at 100, the run ends at 200
        (0, 0, 101, None),
        (0, 0, 101.1, "connect_error"),
        (101, 101, 104, None),
        (101, 101, 104.1, "stalled"),
        (101, 108, 111, None),
        (101, 110, 111.1, "timeout"),
        (101, 105, 111.1, "timeout"),
        (199, 199, 200, None),
        (199, 199, 200.1, "cancelled"),
        (189, 199, 200.1, "timeout"),  # it was too late before the run was over
    ],
)
def test_a_request_is_given_up_for_what_it_waits_for(sent: float, read: float, now: float, status: str | None) -> None:
    (exchange,) = exchanges(1)
    exchange.t_due, exchange.t_send, exchange.last_read = 100 * 10**9, int(sent * 1e9), int(read * 1e9)
    found = overdue(exchange, int(now * 1e9), SHAPE, 200 * 10**9)
    assert (found[0] if found else None) == status
