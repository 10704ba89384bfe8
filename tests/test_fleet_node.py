"""What makes a worker elsewhere as good as one here: clocks, batches that come twice, sums that are the whole."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fakes import FakeServer
from hypothesis import given, settings
from hypothesis import strategies as st
from test_fleet import ENDLESS, FAST, make_jobs

from loadgen.errors import LoadgenError
from loadgen.fleet import Outcome
from loadgen.fleet.clocks import WorkerClock, day_error_us, measured
from loadgen.fleet.node import Batch, Counted, Node, Ready
from loadgen.fleet.received import Latencies, Received
from loadgen.histogram import intervals
from loadgen.record import from_line, read_records

# Clocks ---------------------------------------------------------------------------------------------------------------


@given(
    offset=st.integers(-(10**12), 10**12),
    trips=st.lists(st.tuples(st.integers(1, 10**8), st.integers(1, 10**8)), min_size=1, max_size=60),
)
def test_the_offset_of_a_clock_is_right_within_half_the_shortest_trip_however_the_ways_differ(
    offset: int, trips: list[tuple[int, int]]
) -> None:
    ways = iter(trips)
    now = [0]

    def ask() -> int:
        there, back = next(ways)
        reading = now[0] + there + offset
        now[0] += there + back
        return reading

    found = measured(ask, lambda: now[0], len(trips))
    assert found.error_ns == -(-min(sum(trip) for trip in trips) // 2)
    assert abs(found.ns - offset) <= found.error_ns


def clock(worker: int, error_us: float | None, late_us: float = 0.0) -> WorkerClock:
    return WorkerClock(worker=worker, host="h", offset_ns=0, error_us=error_us, late_us=late_us)


@pytest.mark.parametrize(
    ("clocks", "skew_s"),
    [
        ((), None),
        ((clock(0, 300.0),), 0.0),
        ((clock(0, 300.0), clock(1, 100.0), clock(2, 200.0)), 0.0005),
        ((clock(0, 300.0), clock(1, 100.0, late_us=4000.0)), 0.0044),
        ((clock(0, 300.0), clock(1, None)), None),
    ],
)
def test_two_workers_start_apart_by_no_more_than_what_is_not_known_of_both(
    clocks: tuple[WorkerClock, ...], skew_s: float | None
) -> None:
    outcome = Outcome(start_ns=0, started_at=0.0, audits=(), clocks=clocks)
    assert outcome.skew_s == (None if skew_s is None else pytest.approx(skew_s))


def test_the_kernel_says_how_wrong_the_time_of_day_may_be_or_that_nobody_knows() -> None:
    error = day_error_us()
    assert error is None or error >= 0


# The node -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    monkeypatch.setenv("LOADGEN_HOME", str(tmp_path / "disk"))
    node = Node()
    yield node
    node.close()


def prepared(node: Node, job: Any) -> Ready:
    return msgspec.json.decode(node.prepare(msgspec.json.encode(job)), type=Ready)


def batches(node: Node, first: int = 1) -> Iterator[Batch]:
    for number in itertools.count(first):
        batch = msgspec.msgpack.decode(node.batch(number), type=Batch)
        yield batch
        if batch.last:
            return


def one_job(url: str, folder: Path, shape: dict[str, Any]) -> Any:
    (job,) = make_jobs(url, folder, 1, shape)
    return msgspec.structs.replace(job, out="requests-there-w0.jsonl")


def test_batches_hold_every_line_once_and_the_same_number_gives_the_same_batch(node: Node, tmp_path: Path) -> None:
    with FakeServer(ttft_ms=5, gap_ms=2, tokens=4, log_body=False) as server:
        ready = prepared(node, one_job(server.url, tmp_path, {"concurrency": 4, "window_s": 1.5}))
        assert ready.failed is None
        node.start(node.clock())
        received = Received(tmp_path / "requests-there-w0.jsonl")
        latencies = Latencies()
        found = []
        for batch in batches(node):
            again = msgspec.msgpack.decode(node.batch(batch.number), type=Batch)
            assert again == batch
            assert received.take(batch)
            assert not received.take(again)  # one that comes twice is taken once
            for counted in batch.counted:
                latencies.add(counted)
            found.append(batch)
        received.close()
    (there,) = (tmp_path / "disk").rglob("requests-there-w0.jsonl")
    assert received.path.read_bytes() == there.read_bytes()
    records = list(read_records([received.path]))
    assert found[-1].done is not None
    assert len(records) == found[-1].done.sent == sum(tick.sent for batch in found for tick in batch.ticks)
    assert len(found) >= 2  # one a second, not one at the end
    assert [as_text(one) for one in latencies.intervals()] == [as_text(one) for one in intervals(records)]
    node.forget()
    assert list((tmp_path / "disk").rglob("*.jsonl")) == []


def as_text(interval: Any) -> tuple[str, float, dict[int, int]]:
    return interval.tag, interval.start_s, interval.histogram.counts()


def test_what_a_worker_wrote_before_it_was_killed_is_handed_over_with_how_it_ended(node: Node, tmp_path: Path) -> None:
    with FakeServer(ttft_ms=5, gap_ms=2, tokens=4, log_body=False) as server:
        prepared(node, one_job(server.url, tmp_path, {"concurrency": 2, "window_s": 60.0}))
        node.start(node.clock())
        stream = batches(node)
        first = next(stream)
        node._process._popen.kill()
        rest = list(stream)
    lines = b"".join(batch.lines for batch in (first, *rest))
    (there,) = (tmp_path / "disk").rglob("*.jsonl")
    assert lines.count(b"\n") == there.read_bytes().count(b"\n") > 0
    assert "was killed by signal 9" in (rest[-1].lost or "")
    assert [from_line(line).status for line in lines.splitlines()].count("ok") > 0


def test_a_worker_that_cannot_be_made_ready_says_its_sentence_and_where(node: Node, tmp_path: Path) -> None:
    ready = prepared(node, one_job("nowhere", tmp_path, {"concurrency": 1, "requests": 1}))
    assert ready.failed is not None
    kind, text = ready.failed
    assert kind == "UsageError"
    assert "is no http or https URL" in text
    assert "(worker 0, on " in text
    with FakeServer(**FAST) as server:  # and it is ready for the next one
        job = one_job(server.url, tmp_path, {"concurrency": 1, "requests": 3})
        assert prepared(node, job).failed is None
        node.start(node.clock())
        assert sum(batch.lines.count(b"\n") for batch in batches(node)) == 3


def test_a_word_reaches_a_worker_while_a_batch_is_awaited(node: Node, tmp_path: Path) -> None:
    with FakeServer(**ENDLESS) as server:
        prepared(node, one_job(server.url, tmp_path, {"concurrency": 1, "window_s": 60.0}))
        node.start(node.clock())
        stream = batches(node)
        next(stream)
        node.say("stop", "now")
        last = list(stream)[-1]
    assert last.done is not None
    assert last.done.sent == 1


# What comes in --------------------------------------------------------------------------------------------------------


def cut(lines: bytes, sizes: list[int]) -> list[Batch]:
    """Lines in batches of so many lines each."""
    left, found, at = lines.splitlines(keepends=True), [], 0
    for number, size in enumerate([*sizes, len(left)], 1):
        part, left = b"".join(left[:size]), left[size:]
        found.append(Batch(worker=0, number=number, at=at, lines=part, last=not left))
        at += len(part)
    return found


@settings(max_examples=50, deadline=None)
@given(sizes=st.lists(st.integers(0, 5), max_size=8), seed=st.integers(0, 1000))
def test_batches_that_come_twice_or_late_leave_each_line_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], seed: int
) -> None:
    lines = b"".join(b"{%d}\n" % number for number in range(20))
    path = tmp_path_factory.mktemp("received") / "requests-h-w0.jsonl"
    received, chance, sent = Received(path), random.Random(seed), []
    for batch in cut(lines, sizes):
        sent.append(batch)
        received.take(batch)
        for again in chance.choices(sent, k=chance.randrange(3)):
            assert not received.take(again)
    received.close()
    assert path.read_bytes() == lines


def test_a_batch_that_does_not_follow_on_is_refused(tmp_path: Path) -> None:
    received = Received(tmp_path / "requests-h-w0.jsonl")
    received.take(Batch(worker=0, number=1, at=0, lines=b"{}\n"))
    for wrong in (Batch(worker=0, number=3, at=3, lines=b""), Batch(worker=0, number=2, at=9, lines=b"")):
        with pytest.raises(LoadgenError, match=r"batch \d of worker 0 begins at byte"):
            received.take(wrong)
    received.close()


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 10**7), max_size=20), min_size=1, max_size=6))
def test_histograms_of_workers_add_up_to_that_of_all_values(parts: list[list[int]]) -> None:
    from loadgen.histogram import Histogram

    latencies = Latencies()
    for part in parts:
        latencies.add(Counted("ttft", 3.0, 1.0, Histogram(part).encode()))
    (merged,) = latencies.intervals()
    assert merged.histogram == Histogram([value for part in parts for value in part])
