"""What is sent when: the shares of the workers are the schedule of one, and a closed loop holds exactly its slots."""

from __future__ import annotations

from typing import Any

import pytest
from drive_driver import make_job
from hypothesis import given, settings
from hypothesis import strategies as st

from loadgen.arrival import Arrival
from loadgen.drive.job import Job, Shape
from loadgen.drive.schedule import ClosedLoop, OpenLoop, Send, digest, make_schedule, share

ARRIVALS = st.one_of(
    st.builds(Arrival, kind=st.sampled_from(["constant", "poisson"]), rate_rps=st.floats(0.5, 500)),
    st.builds(Arrival, kind=st.just("gamma"), rate_rps=st.floats(0.5, 500), cv=st.sampled_from([0.0, 0.5, 1.0, 3.0])),
    st.builds(Arrival, kind=st.just("burst"), count=st.integers(0, 50)),
    st.builds(Arrival, kind=st.just("piecewise"), rates=st.just(((0.0, 5.0), (2.0, 50.0), (3.0, 0.0), (4.0, 9.0)))),
    st.builds(Arrival, kind=st.just("timestamps"), timestamps=st.lists(st.floats(0, 9), max_size=40).map(tuple)),
)


def job(shape: dict[str, Any], worker: int = 0, workers: int = 1, seed: int = 1) -> Job:
    return make_job("http://x", Shape(**shape), worker=worker, workers=workers, seed=seed)


def first(count: int, schedule: Any) -> list[Send]:
    sends = []
    while len(sends) < count and schedule.peek() is not None:
        due = schedule.peek()
        sends.append(schedule.take())
        assert sends[-1].due == due
    return sends


@settings(max_examples=60, derandomize=True, deadline=None)
@given(ARRIVALS, st.integers(0, 2**40), st.integers(1, 7))
def test_the_shares_of_all_workers_are_the_schedule_of_one(arrival: Arrival, seed: int, workers: int) -> None:
    whole = first(60, OpenLoop(job({"arrival": arrival}, seed=seed), 1_000))
    shares = [
        first(60, make_schedule(job({"arrival": arrival}, worker, workers, seed), 1_000)) for worker in range(workers)
    ]
    together = sorted((send for part in shares for send in part), key=lambda send: send.session)
    assert together[: len(whole)] == whole
    assert [send.session for send in whole] == list(range(len(whole)))
    assert [send.due for send in whole] == sorted(send.due for send in whole)
    assert all(send.session % workers == worker for worker, part in enumerate(shares) for send in part)


@settings(max_examples=40, derandomize=True, deadline=None)
@given(ARRIVALS, st.integers(0, 2**40), st.integers(1, 7), st.floats(0.1, 3))
def test_the_digests_of_the_shares_add_up_to_that_of_the_whole(
    arrival: Arrival, seed: int, workers: int, window: float
) -> None:
    shape = Shape(arrival=arrival, window_s=window)
    whole = digest(shape, seed, 0, 1)
    assert sum(digest(shape, seed, worker, workers) for worker in range(workers)) % (1 << 64) == whole


@pytest.mark.parametrize("workers", [1, 2, 5, 9])
def test_the_digests_of_a_closed_loop_add_up(workers: int) -> None:
    shape = Shape(concurrency=7)
    parts = [digest(shape, 3, worker, workers) for worker in range(workers)]
    assert sum(parts) % (1 << 64) == digest(shape, 3, 0, 1)


def test_another_schedule_has_another_digest() -> None:
    arrival = Arrival(kind="poisson", rate_rps=20.0)
    whole = digest(Shape(arrival=arrival, window_s=2.0), 1, 0, 1)
    assert digest(Shape(arrival=arrival, window_s=2.0), 2, 0, 1) != whole
    assert digest(Shape(arrival=arrival, window_s=2.5), 1, 0, 1) != whole
    assert digest(Shape(arrival=Arrival(kind="poisson", rate_rps=21.0), window_s=2.0), 1, 0, 1) != whole
    assert digest(Shape(arrival=arrival, window_s=2.0), 1, 0, 2) != whole


def test_a_digest_of_a_schedule_without_end_takes_a_part_of_it() -> None:
    endless = Shape(arrival=Arrival(kind="burst", count=10**9), requests=5)
    assert digest(endless, 1, 0, 1) == digest(Shape(arrival=Arrival(kind="burst", count=100_000)), 1, 0, 1)


def test_fifty_a_second_is_one_every_twenty_milliseconds_to_the_nanosecond() -> None:
    sends = first(51, OpenLoop(job({"arrival": Arrival(kind="constant", rate_rps=50.0)}), 7))
    assert [send.due for send in sends] == [7 + number * 20_000_000 for number in range(51)]


def test_the_share_is_taken_from_the_one_stream() -> None:
    arrival = Arrival(kind="timestamps", timestamps=(3.0, 1.0, 2.0, 0.5))
    assert list(share(arrival, 1, 0, 2)) == [(0, 0.5), (2, 2.0)]
    assert list(share(arrival, 1, 1, 2)) == [(1, 1.0), (3, 3.0)]


@pytest.mark.parametrize(("workers", "slots"), [(1, [7]), (2, [4, 3]), (5, [2, 2, 1, 1, 1]), (9, [1] * 7 + [0] * 2)])
def test_slots_are_dealt_over_the_workers(workers: int, slots: list[int]) -> None:
    found = [len(first(99, ClosedLoop(job({"concurrency": 7}, worker, workers), 0))) for worker in range(workers)]
    assert found == slots


def test_a_ramp_starts_the_slots_evenly_over_all_workers() -> None:
    sends = [
        send
        for worker in range(3)
        for send in first(99, ClosedLoop(job({"concurrency": 5, "ramp_s": 2.0}, worker, 3), 100))
    ]
    assert sorted(send.due for send in sends) == [100 + number * 400_000_000 for number in range(5)]
    assert {send.slot: send.due for send in sends} == {n: 100 + n * 400_000_000 for n in range(5)}


def test_a_slot_sends_again_when_its_reply_has_ended_and_not_before() -> None:
    loop = ClosedLoop(job({"concurrency": 2}), 0)
    a, b = first(9, loop)
    assert (a.session, b.session, loop.peek()) == (0, 1, None)
    loop.ended(b.slot, 500)
    loop.ended(a.slot, 300)
    assert first(9, loop) == [Send(300, 2, a.slot), Send(500, 3, b.slot)]
