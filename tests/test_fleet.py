"""Worker processes: their protocol, one start, shares that add up, and what is left when one of them is lost."""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from fakes import FakeServer

from loadgen.arrival import Arrival
from loadgen.backends import RequestOptions
from loadgen.drive.job import Job, Labels, Shape
from loadgen.drive.schedule import digest
from loadgen.drive.tally import Tick
from loadgen.errors import LoadgenError, StoreError, TargetError, UsageError
from loadgen.fleet import Outcome, Stop
from loadgen.fleet.local import Fleet
from loadgen.record import Record, read_records

FAST = {"ttft_ms": 5, "gap_ms": 2, "tokens": 4, "log_body": False}
ENDLESS = {"ttft_ms": 20, "gap_ms": 20, "tokens": 4000, "log_body": False}


@pytest.fixture
def fleet() -> Iterator[Callable[[int], Fleet]]:
    """Starts fleets, which end with the test, and none of their processes outlives it."""
    fleets = []

    def start(workers: int) -> Fleet:
        fleets.append(Fleet(workers))
        return fleets[-1]

    yield start
    for each in fleets:
        each.__exit__()
    assert workers_of_ours() == []


def workers_of_ours() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if "loadgen.drive.worker" in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def make_jobs(url: str, folder: Path, workers: int, shape: dict[str, Any], **fields: Any) -> list[Job]:
    short = {"timeout_s": 20.0, "drain_s": 10.0, "connect_timeout_s": 5.0}
    job = Job(
        labels=Labels(run="r", cell="c", target="t", rep=1, attempt=1),
        worker=0,
        workers=workers,
        endpoint=url,
        backend="openai_chat",
        options=RequestOptions(model="fake"),
        headers={},
        workload="natural",
        settings={"tags": ["chat"]},
        context={"seed": 1, "ask_tok": 4},
        shape=Shape(**{**short, **shape}),
        seed=11,
        out="",
    )
    job = msgspec.structs.replace(job, **fields)
    return [
        msgspec.structs.replace(job, worker=index, out=str(folder / f"requests-w{index}.jsonl"))
        for index in range(workers)
    ]


def records_of(jobs: list[Job]) -> list[Record]:
    return list(read_records([Path(job.out) for job in jobs if Path(job.out).is_file()]))


def run(fleet: Fleet, jobs: list[Job], look: Callable[[], Stop | None] = lambda: None, **hooks: Any) -> Outcome:
    return fleet.run(jobs, hooks.pop("on_tick", lambda tick: None), look, **hooks)


def once(true: Callable[[], bool], stop: Stop) -> Callable[[], Stop | None]:
    """Says stop once something is true, and from then on."""
    said: list[Stop] = []

    def look() -> Stop | None:
        if not said and true():
            said.append(stop)
        return said[0] if said else None

    return look


def all_stream(server: FakeServer, requests: int) -> Callable[[], bool]:
    """True once so many requests are there and each of them has got some tokens."""
    before: list[int] = []

    def look() -> bool:
        stats = server.stats()
        if not before and stats["requests"] >= requests:
            before.append(stats["writes"])
        # Where the server is late it writes up to 16 tokens of one stream before it looks after the others.
        return bool(before) and stats["writes"] >= before[0] + 20 * requests

    return look


def test_the_shares_of_three_workers_are_fifty_a_second_for_a_second_exactly(
    fleet: Callable[[int], Fleet], tmp_path: Path
) -> None:
    arrival = Arrival(kind="constant", rate_rps=50.0)
    ticks: list[Tick] = []
    with FakeServer(**FAST) as server:
        jobs = make_jobs(server.url, tmp_path, 3, {"arrival": arrival, "window_s": 1.0})
        outcome = run(fleet(3), jobs, on_tick=ticks.append)
    records = records_of(jobs)
    assert {record.status for record in records} == {"ok"}
    assert sorted(record.session for record in records) == list(range(50))
    assert all(record.session % 3 == record.worker for record in records)
    by_session = sorted(records, key=lambda record: record.session)
    assert [record.t_sched for record in by_session] == pytest.approx([n / 50 for n in range(50)], abs=1e-9)
    assert (outcome.lost, sorted(audit.worker for audit in outcome.audits)) == ((), [0, 1, 2])
    assert sum(audit.sent for audit in outcome.audits) == sum(tick.sent for tick in ticks) == 50
    assert sum(audit.digest for audit in outcome.audits) % 2**64 == digest(jobs[0].shape, 11, 0, 1)
    assert all(audit.kernel_clock and 0 < audit.rss_mib < 200 for audit in outcome.audits)
    assert abs(outcome.started_at - time.time()) < 60


def test_one_fleet_runs_one_job_after_the_other_and_jobs_may_use_fewer_workers(
    fleet: Callable[[int], Fleet], tmp_path: Path
) -> None:
    ours = fleet(2)
    with FakeServer(**FAST) as server:
        first = make_jobs(server.url, tmp_path, 2, {"concurrency": 3, "requests": 9})
        run(ours, first)
        (tmp_path / "second").mkdir()
        second = make_jobs(server.url, tmp_path / "second", 1, {"concurrency": 1, "requests": 3})
        run(ours, second)
    assert len(records_of(first)) == 9
    assert [record.worker for record in records_of(second)] == [0, 0, 0]


def test_a_jobs_cpu_is_its_own_and_not_that_of_the_jobs_before(fleet: Callable[[int], Fleet], tmp_path: Path) -> None:
    running = fleet(1)
    with FakeServer(**FAST) as server:
        used = []
        for number in range(3):
            folder = tmp_path / str(number)
            folder.mkdir()
            jobs = make_jobs(server.url, folder, 1, {"concurrency": 2, "requests": 40})
            used.append(run(running, jobs).audits[0].cpu_s)
        (worker,) = workers_of_ours()
        times = worker.cpu_times()
    assert 0 < sum(used) <= times.user + times.system + 0.02  # the kernel counts in ticks of 10 ms


def test_more_workers_than_slots_end_with_the_work(fleet: Callable[[int], Fleet], tmp_path: Path) -> None:
    with FakeServer(**FAST) as server:
        jobs = make_jobs(server.url, tmp_path, 2, {"concurrency": 1, "requests": 4})
        outcome = run(fleet(2), jobs)
    assert sorted((audit.worker, audit.sent) for audit in outcome.audits) == [(0, 4), (1, 0)]


@pytest.mark.parametrize(("stop", "status"), [("now", {"cancelled"}), ("drain", {"cancelled"})])
def test_a_stop_ends_the_repeat_and_keeps_what_was_measured(
    fleet: Callable[[int], Fleet], tmp_path: Path, stop: Stop, status: set[str]
) -> None:
    with FakeServer(**ENDLESS) as server:
        jobs = make_jobs(server.url, tmp_path, 2, {"concurrency": 4, "window_s": 60.0, "drain_s": 0.3})
        outcome = run(fleet(2), jobs, once(all_stream(server, 4), stop))
    records = records_of(jobs)
    assert (outcome.lost, len(records)) == ((), 4)
    assert {record.status for record in records} == status
    assert all(len(record.chunk_us) > 2 for record in records)


def test_a_stop_that_drains_lets_replies_end(fleet: Callable[[int], Fleet], tmp_path: Path) -> None:
    with FakeServer(ttft_ms=5, gap_ms=5, tokens=300) as server:
        jobs = make_jobs(server.url, tmp_path, 1, {"concurrency": 2, "window_s": 60.0})
        run(fleet(1), jobs, once(lambda: server.stats()["requests"] >= 2, "drain"))
    assert [record.status for record in records_of(jobs)] == ["ok", "ok"]


def test_a_worker_that_is_killed_costs_its_share_and_is_named(fleet: Callable[[int], Fleet], tmp_path: Path) -> None:
    ours = fleet(2)
    killed: list[int] = []

    def kill_one(tick: Tick) -> None:
        if not killed:
            victim = workers_of_ours()[0]
            killed.append(victim.pid)
            os.kill(victim.pid, signal.SIGKILL)

    with FakeServer(ttft_ms=5, gap_ms=5, tokens=20) as server:
        jobs = make_jobs(server.url, tmp_path, 2, {"concurrency": 4, "window_s": 1.6})
        outcome = run(ours, jobs, on_tick=kill_one)
        (lost,) = outcome.lost
        assert f"(pid {killed[0]}) was killed by signal 9" in lost
        (audit,) = outcome.audits
        whole = [record for record in records_of(jobs) if record.worker == audit.worker]
        others = [record for record in records_of(jobs) if record.worker != audit.worker]
        assert audit.sent == len(whole)
        assert {record.status for record in whole} == {"ok"}
        assert others  # what it had written is there, line by line
        (tmp_path / "next").mkdir()
        again = make_jobs(server.url, tmp_path / "next", 2, {"concurrency": 2, "requests": 4})
        assert run(ours, again).lost == ()  # a new process has taken its place
    assert len(records_of(again)) == 4


def test_a_worker_that_cannot_go_on_is_lost_and_hangs_nobody(fleet: Callable[[int], Fleet], tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("needs /dev/full")
    ours = fleet(2)
    with FakeServer(**FAST) as server:
        jobs = make_jobs(server.url, tmp_path, 2, {"concurrency": 2, "requests": 80})
        jobs[1] = msgspec.structs.replace(jobs[1], out="/dev/full")
        outcome = run(ours, jobs)
        assert [audit.worker for audit in outcome.audits] == [0]
        assert outcome.lost == ("worker 1 failed: /dev/full: No space left on device; a worker could not go on",)
        again = make_jobs(server.url, tmp_path, 2, {"concurrency": 2, "requests": 4})
        assert run(ours, again).lost == ()


BAD_JOBS: dict[str, tuple[dict[str, Any], type[LoadgenError], str]] = {
    "no url": ({"endpoint": "nowhere"}, UsageError, "is no http or https URL"),
    "backend": ({"backend": "opnai_chat"}, UsageError, "did you mean 'openai_chat'"),
    "workload": ({"settings": {"tags": ["chta"]}}, UsageError, "did you mean 'chat'"),
    "header": ({"headers": {"x": "a\nb"}}, UsageError, "header 'x'"),
}


def test_a_job_that_cannot_be_run_is_the_workers_own_sentence_and_leaves_no_stale_worker(
    fleet: Callable[[int], Fleet], tmp_path: Path
) -> None:
    ours = fleet(2)
    with FakeServer(**FAST) as server:
        good = make_jobs(server.url, tmp_path, 2, {"concurrency": 2, "requests": 4})
        for fields, kind, words in BAD_JOBS.values():
            jobs = [msgspec.structs.replace(job, **fields) for job in good]
            with pytest.raises(kind, match=r".") as error:
                run(ours, jobs)
            assert words in str(error.value)
        with socket.socket() as taken:  # and nobody listens there
            taken.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{taken.getsockname()[1]}"
            with pytest.raises(TargetError, match=f"{url} cannot be reached: Connection refused"):
                run(ours, [msgspec.structs.replace(job, endpoint=url) for job in good])
        nowhere = msgspec.structs.replace(good[1], out=str(tmp_path / "missing" / "x.jsonl"))
        with pytest.raises(StoreError, match=r"missing/x\.jsonl: No such file"):
            run(ours, [good[0], nowhere])  # worker 0 was ready, and must not run this job later
        (tmp_path / "next").mkdir()
        again = make_jobs(server.url, tmp_path / "next", 2, {"concurrency": 2, "requests": 4})
        assert run(ours, again).lost == ()
    assert len(records_of(again)) == 4
    assert records_of(good) == []


def test_workers_whose_schedules_do_not_add_up_are_not_started(fleet: Callable[[int], Fleet], tmp_path: Path) -> None:
    with FakeServer(**FAST) as server:
        shape = {"arrival": Arrival(kind="poisson", rate_rps=10.0), "window_s": 1.0}
        jobs = make_jobs(server.url, tmp_path, 2, shape)
        jobs[1] = msgspec.structs.replace(jobs[1], seed=12)
        with pytest.raises(LoadgenError, match="do not add up to the whole"):
            run(fleet(2), jobs)
        assert server.truth() == []


def test_a_warm_up_of_no_fixed_length_ends_for_all_workers_when_the_caller_knows(
    fleet: Callable[[int], Fleet], tmp_path: Path
) -> None:
    known: list[int] = []

    def measure_at() -> int | None:
        if not known and server.stats()["requests"] >= 4:  # some of the warm-up
            known.append(time.monotonic_ns())
        return known[0] if known else None

    with FakeServer(ttft_ms=5, gap_ms=2, tokens=5) as server:
        jobs = make_jobs(server.url, tmp_path, 2, {"concurrency": 2, "warmup_s": None, "window_s": 1.0})
        outcome = run(fleet(2), jobs, measure_at=measure_at)
    edge = (known[0] - outcome.start_ns) / 1e9
    records = records_of(jobs)
    measured = [record.t_send for record in records if record.phase == "measure" and record.t_send is not None]
    warm = [record.t_send for record in records if record.phase == "warmup" and record.t_send is not None]
    assert min(measured) >= edge
    assert max(record.t_sched for record in records) < edge + 1.0
    assert min(warm) < edge
    assert {record.worker for record in records if record.phase == "measure"} == {0, 1}


def test_an_error_of_the_caller_leaves_no_worker_in_the_middle_of_a_job(
    fleet: Callable[[int], Fleet], tmp_path: Path
) -> None:
    ours = fleet(1)

    def fail(tick: Tick) -> None:
        raise StoreError("the disk is full")

    with FakeServer(**ENDLESS) as server:
        jobs = make_jobs(server.url, tmp_path, 1, {"concurrency": 1, "window_s": 60.0})
        with pytest.raises(StoreError, match="the disk is full"):
            run(ours, jobs, on_tick=fail)
    assert [record.status for record in records_of(jobs)] == ["cancelled"]
    with FakeServer(**FAST) as server:
        (tmp_path / "next").mkdir()
        again = make_jobs(server.url, tmp_path / "next", 1, {"concurrency": 1, "requests": 2})
        assert run(ours, again).lost == ()


def test_ctrl_c_reaches_the_parent_alone(fleet: Callable[[int], Fleet]) -> None:
    fleet(1)
    deadline = time.monotonic() + 60
    while not (found := workers_of_ours()) and time.monotonic() < deadline:
        select.select([], [], [], 0.01)
    assert os.getpgid(found[0].pid) != os.getpgid(0)
    assert os.getsid(found[0].pid) == found[0].pid
