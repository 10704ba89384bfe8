"""One repeat of one target in one cell: jobs for the workers, then the summary of what they recorded.

In: a `Site` (where the requests go and how they are asked) and a step of the plan. Out: an attempt's folder with the
request lines, ticks, histograms and, last of all, ``summary.json``.
"""

from __future__ import annotations

import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from loadgen import histogram
from loadgen.drive.job import Job, Shape
from loadgen.drive.tally import Audit, Tick
from loadgen.fleet import Fleet, Look, OnTick, Outcome, Stop
from loadgen.fleet.clocks import WorkerClock
from loadgen.jobs import Site, make_jobs
from loadgen.judging import Judged, judged, worker_doubts
from loadgen.long.follow import Follower
from loadgen.long.intervals import length_of
from loadgen.long.trend import doubts as drift_doubts
from loadgen.long.trend import drifts
from loadgen.offered import shape_of
from loadgen.parts import Part
from loadgen.plan import Step, workers_of
from loadgen.prefixes import Implied, implied, sharing
from loadgen.prefixes import doubts as prefix_doubts
from loadgen.record import read_records
from loadgen.scenario import Cell
from loadgen.store import append_line, request_files, sync, write_bytes, write_json
from loadgen.summary import Doubt, Summary, Window
from loadgen.telemetry.measured import Telemetry, machine_doubts
from loadgen.telemetry.prometheus import Seen
from loadgen.telemetry.sampler import Sampler
from loadgen.warmup import WarmUp
from loadgen.written import stop_if_full, strike_out_of, window_of

SCHEMA = 1

Hooks = tuple[OnTick, Look]


class Second(Tick, kw_only=True):
    """A second of one worker, with what was last seen of the server and its machine by then: ``running``, ``waiting``,
    ``kv_use`` (0 to 1), and the words of `telemetry.sampler.words_of`; what nobody says is not there."""

    server: dict[str, float] = msgspec.field(default_factory=dict)


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What ``summary.json`` holds: a repeat's summary with where it came from and what client and server say.

    ``start_ns`` is the start of the repeat on this host's CLOCK_MONOTONIC, 0 where it was not kept: with it the records
    can be held against logs of other programs here. ``energy_j`` is what the target's GPUs took in the window, or None.
    ``clocks`` are those of workers on other machines, with what is not known of them. ``parts`` are the repeat's parts
    of each kind that it has (see `parts.KINDS`), by name. ``implied`` is what its prompts share, None where nothing.
    """

    schema: int = SCHEMA
    cell: str
    target: str
    rep: int
    attempt: int
    block: int
    seed: int
    server: str | None
    started: str
    start_ns: int = 0
    summary: Summary
    parts: dict[str, dict[str, Part]] = {}
    workers: tuple[Audit, ...]
    lost: tuple[str, ...] = ()
    clocks: tuple[WorkerClock, ...] = ()
    seen: Seen = Seen()
    interrupted: bool = False
    energy_j: float | None = None
    telemetry: Telemetry = Telemetry()
    implied: Implied | None = None

    @property
    def cached_share(self) -> float | None:
        """The share of prompt tokens that came from a prefix cache: by the replies, else by the engine's page."""
        by_replies = self.summary.cached_share
        return self.seen.cached_share if by_replies is None else by_replies


def run_repeat(
    fleet: Fleet,
    site: Site,
    step: Step,
    cell: Cell,
    place: tuple[str, Path, int],
    hooks: Hooks,
) -> Result:
    """Drives one repeat and summarises it. ``place`` is (run id, attempt's folder, attempt); ``hooks`` are
    those of `Fleet.run`: what to do with a tick, and whether to stop.

    Raises TargetError when the endpoint cannot be reached at all.
    """
    folder = place[1]
    shape = shape_of(cell.scenario.load, cell.scenario.workload, site.folder)
    wanted = workers_of(cell.scenario.load)
    jobs = make_jobs(cell, site, step, place, shape, fleet.at_hand(wanted))
    sampler = Sampler(site.metrics, site.names, site.proxy, site.machine)
    beside = _Beside(sampler, WarmUp(shape, len(jobs)), Follower(folder, length_of(cell.scenario.load)))
    outcome, stops = _driven(fleet, jobs, beside, folder, hooks)
    stop_if_full(outcome.lost)
    strike_out_of(request_files(folder), site.hidden)
    warmed = beside.warmup.measured_from(outcome.start_ns)
    window = window_of(shape, warmed, folder, stops[0].since(outcome) if stops else None)
    seen, telemetry = _watched(sampler, outcome, window, folder)
    doubts = [*site.doubts, *beside.warmup.doubts(), *worker_doubts(outcome, len(jobs), wanted)]
    doubts += [*machine_doubts(telemetry), *drift_doubts(drifts(beside.follower.finish(), window))]
    found = judged(cell, (shape, step.seed), folder, window, (outcome, doubts))
    result = _result(step, place[2], outcome, found, (seen, telemetry))
    result = msgspec.structs.replace(result, interrupted=_cut_short(shape, stops, outcome, window))
    result = _with_prefixes(result, jobs[0], cell.scenario.targets[step.target].options.get("kv_block"), folder)
    write_result(folder, result, outcome)
    return result


class _Told(NamedTuple):
    """The fleet was told to stop, ``at`` this time (monotonic ns)."""

    wanted: Stop
    at: int

    def since(self, outcome: Outcome) -> float:
        """Seconds from the start of the repeat."""
        return (self.at - outcome.start_ns) / 1e9


def _cut_short(shape: Shape, stops: Sequence[_Told], outcome: Outcome, window: Window) -> bool:
    """False if a stop took nothing from the repeat: its window was over, whose length the scenario says, and what was
    in flight had its time all the same. A load that ends by its count may lack requests wherever its window ends."""
    if shape.window_s is None or shape.requests is not None:
        return bool(stops)
    return any(one.wanted == "now" or one.since(outcome) <= window.w1 for one in stops)


class _Beside(NamedTuple):
    """What looks on while a repeat is driven."""

    sampler: Sampler
    warmup: WarmUp
    follower: Follower


def _driven(
    fleet: Fleet, jobs: Sequence[Job], beside: _Beside, folder: Path, hooks: Hooks
) -> tuple[Outcome, list[_Told]]:
    """What the fleet left, and when it was told to stop, first to last."""
    on_tick, look = hooks
    stops: list[_Told] = []

    def tick(one: Tick) -> None:
        second = Second(**msgspec.structs.asdict(one), server=beside.sampler.now)
        append_line(folder / "ticks.jsonl", second)
        beside.warmup.add(second)
        beside.follower.second(second, second.server)
        on_tick(second)

    def looked() -> Stop | None:
        wanted = look()
        if wanted is not None:
            stops.append(_Told(wanted, time.monotonic_ns()))
        return wanted

    with beside.sampler:
        return fleet.run(jobs, tick, looked, beside.warmup.over), stops


def _result(step: Step, attempt: int, outcome: Outcome, found: Judged, watched: tuple[Seen, Telemetry]) -> Result:
    seen, telemetry = watched
    return Result(
        cell=step.cell,
        target=step.target,
        rep=step.rep,
        attempt=attempt,
        block=step.block,
        seed=step.seed,
        server=step.server,
        start_ns=outcome.start_ns,
        started=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(outcome.started_at)),
        summary=found.summary,
        parts=found.parts,
        workers=outcome.audits,
        lost=found.lost,
        clocks=outcome.clocks,
        seen=seen,
        energy_j=telemetry.energy_j,
        telemetry=telemetry,
    )


def _watched(sampler: Sampler, outcome: Outcome, window: Window, folder: Path) -> tuple[Seen, Telemetry]:
    """What the sampler saw between the edges of the window; what this machine took is not the client's elsewhere."""
    edges = (outcome.start_ns + int(window.w0 * 1e9), outcome.start_ns + int(window.w1 * 1e9))
    seen, telemetry = sampler.seen(*edges), sampler.telemetry(*edges)
    if seen.ttft_s is not None:
        own = sampler.client_ttft_s(read_records(request_files(folder)), outcome.start_ns, *edges)
        telemetry = msgspec.structs.replace(telemetry, client_ttft_s=own)
    if outcome.far:
        telemetry = msgspec.structs.replace(telemetry, client_cores=None, client_rss_peak_bytes=None)
    return seen, telemetry


def _with_prefixes(result: Result, job: Job, cache_block: Any, folder: Path) -> Result:
    """The result with what its workload implies of a prefix cache, doubted where the server says something else."""
    source = sharing(job)
    if source is None:
        return result
    found = implied(source, read_records(request_files(folder)), cache_block if isinstance(cache_block, int) else None)
    doubts = (*result.summary.doubts, *prefix_doubts(source, found, result.cached_share))
    return msgspec.structs.replace(
        result, implied=found, summary=msgspec.structs.replace(result.summary, doubts=doubts)
    )


def write_result(folder: Path, result: Result, outcome: Outcome) -> None:
    """The histograms, then the result: an interrupted repeat is kept and reported, but it is not whole. The request
    lines are on the disk before it, so that no power cut leaves a result without what it was made of."""
    sync([*request_files(folder), *folder.glob("ticks.jsonl")])
    counted = outcome.intervals
    if counted is None:
        length_s = histogram.step_s(result.summary.window.w1)
        counted = histogram.intervals(read_records(request_files(folder)), length_s)
    with io.StringIO() as log:
        histogram.write_log(log, counted, outcome.started_at)
        write_bytes(folder / "latency.hlog", log.getvalue().encode())
    write_json(folder / ("interrupted.json" if result.interrupted else "summary.json"), result)


def fail(attempt: Path, code: str, text: str) -> None:
    """Turns a finished attempt into a failed one, for a reason that was found after its end."""
    path = attempt / "summary.json"
    result = msgspec.json.decode(path.read_bytes(), type=Result)
    reasons = (Doubt(code, text), *result.summary.invalid)
    summary = msgspec.structs.replace(result.summary, state="failed", invalid=reasons)
    write_json(path, msgspec.structs.replace(result, summary=summary))
