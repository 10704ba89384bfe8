"""Runs of shards become one run: ``loadgen merge RUN...`` (see ``loadgen/fleet/shard.py``).

In: run folders, each with the request lines of one share of every repeat. Out: a run with all of them, whose summaries
are made of all request lines as if one fleet had driven it. Shares that are missing are a worker that was lost: what
the others measured stays, and the run is degraded. The folders of the shards stay as they are.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from loadgen.assemble import RunReport, assemble
from loadgen.errors import UsageError
from loadgen.fleet import Outcome, Shard, check_digests
from loadgen.judging import judged, worker_doubts
from loadgen.long.follow import made_of_parts
from loadgen.long.intervals import length_of
from loadgen.long.trend import doubts as drift_doubts
from loadgen.long.trend import drifts
from loadgen.offered import shape_of
from loadgen.ownership import this_owner
from loadgen.plan import Plan, Step
from loadgen.repeat import Result, write_result
from loadgen.reports.stored import write_reports
from loadgen.scenario import Cell, expand
from loadgen.scenario.loading import from_public
from loadgen.store import Run, create_run, request_files, write_bytes, write_json
from loadgen.summary import Window
from loadgen.telemetry.measured import Telemetry, machine_doubts


class _Share(msgspec.Struct, frozen=True, kw_only=True):
    """The run of one shard."""

    run: Any
    described: dict[str, Any]
    shard: Shard
    plan: Plan

    def attempt(self, step: Step) -> Path | None:
        """The folder of this share of a repeat, if it is whole."""
        found: Path | None = self.run.repeat(step.cell, step.target, step.rep).whole()
        return found


def merge(runs: Sequence[Run], root: Path) -> RunReport:
    """The run that these shards are the parts of, in the store ``root``. Of a single one the others are looked for.

    Raises UsageError for runs that are no shards, or not of one schedule.
    """
    shares = sorted((_share(run) for run in runs), key=lambda share: share.shard.index)
    if len(shares) == 1:
        shares = sorted(_siblings(shares[0], root), key=lambda share: share.shard.index)
    _check(shares)
    run = create_run(root, shares[0].described["scenario"]["name"])
    try:
        return _merged(run, shares)
    except BaseException:
        shutil.rmtree(run.folder, ignore_errors=True)  # nothing of it was measured here
        raise


def _share(run: Run) -> _Share:
    described = run.read("run.json")
    if not described.get("shard"):
        raise UsageError(f"{run.id} is no shard: it was not run with --shard. Name the runs of other cells beside it.")
    shard = msgspec.convert(described["shard"], Shard)
    return _Share(run=run, described=described, shard=shard, plan=msgspec.convert(run.read("plan.json"), Plan))


def _siblings(one: _Share, root: Path) -> Iterator[_Share]:
    """All shards in the store that began when this one did, with as many others."""
    wanted = one.described["scenario"]["name"], one.shard.of, one.shard.start_at
    for path in sorted(root.glob("runs/*/*/run.json")):
        described = Run(path.parent).read("run.json")
        shard = described.get("shard") or {}
        if ((described.get("scenario") or {}).get("name"), shard.get("of"), shard.get("start_at")) == wanted:
            yield _share(Run(path.parent))


def _check(shares: Sequence[_Share]) -> None:
    first = shares[0]
    for other in shares[1:]:
        one, two = first.run.id, other.run.id
        if (first.shard.of, first.shard.start_at) != (other.shard.of, other.shard.start_at):
            raise UsageError(f"{one} and {two} are no shards of one run: they differ in their number or their start.")
        if first.plan.steps != other.plan.steps or first.plan.cells != other.plan.cells:
            raise UsageError(f"{one} and {two} have other plans: run all shards with one scenario, profile and --set.")
        if first.described["versions"].get("loadgen") != other.described["versions"].get("loadgen"):
            raise UsageError(f"{one} and {two} were measured by two versions of loadgen, which do not send alike.")
    indexes = [share.shard.index for share in shares]
    twice = next((index for index in indexes if indexes.count(index) > 1), None)
    if twice is not None:
        names = " and ".join(share.run.id for share in shares if share.shard.index == twice)
        raise UsageError(f"shard {twice} is there twice: {names}; name the runs that belong together.")


def _merged(run: Run, shares: Sequence[_Share]) -> RunReport:
    first = shares[0]
    scenario = from_public(first.described["scenario"])
    cells = {cell.id: cell for cell in expand(scenario)}
    write_json(run.folder / "plan.json", first.plan)
    write_bytes(run.folder / "scenario.yaml", (first.run.folder / "scenario.yaml").read_bytes())
    if (first.run.folder / "probes").exists():  # every shard asked the same questions; one's answers do
        shutil.copytree(first.run.folder / "probes", run.folder / "probes")
    lost = [_repeat(run, step, cells[step.cell], shares) for step in first.plan.steps]
    run.write("run.json", _description(run, shares, any(lost)))
    report = assemble(run)
    write_reports(report)
    return report


def _repeat(run: Run, step: Step, cell: Cell, shares: Sequence[_Share]) -> bool:
    """Writes one repeat of all shares that there are. True if one is missing, or was lost."""
    found = [(share, attempt) for share in shares if (attempt := share.attempt(step)) is not None]
    if not found:
        return True
    number, folder = run.repeat(step.cell, step.target, step.rep).new_attempt()
    _gather([attempt for _, attempt in found], folder)
    results = [msgspec.json.decode((attempt / "summary.json").read_bytes(), type=Result) for _, attempt in found]
    outcome = _outcome(results, [share.shard for share, _ in found], shares[0].shard)
    shape = shape_of(cell.scenario.load, cell.scenario.workload, Path(shares[0].described["scenario_path"]).parent)
    if not outcome.lost:
        check_digests(shape, step.seed, [audit.digest for audit in outcome.audits])
    window: Window = results[0].summary.window
    intervals = made_of_parts(folder, length_of(cell.scenario.load), hearer=found[0][0].shard.index)
    doubts = [*worker_doubts(outcome, shares[0].shard.of, shares[0].shard.of)]
    doubts += [doubt for result in results for doubt in machine_doubts(result.telemetry) if doubt not in doubts]
    doubts += drift_doubts(drifts(intervals, window))
    of_all = judged(cell, (shape, step.seed), folder, window, (outcome, doubts))
    merged = msgspec.structs.replace(
        results[0],
        attempt=number,
        start_ns=0,
        summary=of_all.summary,
        parts=of_all.parts,
        workers=outcome.audits,
        lost=of_all.lost,
        clocks=outcome.clocks,
        telemetry=_together([result.telemetry for result in results]),
        implied=None,  # by what one share sent alone, prompts have less in common
    )
    write_result(folder, merged, outcome)
    return bool(outcome.lost)


def _gather(attempts: Sequence[Path], folder: Path) -> None:
    """The request lines and the seconds of all shares in one folder."""
    for attempt in attempts:
        for path in request_files(attempt):
            shutil.copy2(path, folder / path.name)
    ticks = [path.read_bytes() for attempt in attempts if (path := attempt / "ticks.jsonl").exists()]
    write_bytes(folder / "ticks.jsonl", b"".join(ticks))


def _together(of: Sequence[Telemetry]) -> Telemetry:
    """What one shard saw of the server, and what all of them took of their own machines."""
    cores = [one.client_cores for one in of if one.client_cores is not None]
    memory = [one.client_rss_peak_bytes for one in of if one.client_rss_peak_bytes is not None]
    return msgspec.structs.replace(
        of[0],
        client_cores=sum(cores) if len(cores) == len(of) else None,
        client_rss_peak_bytes=sum(memory) if len(memory) == len(of) else None,
        client_ttft_s=None,
    )


def _outcome(results: Sequence[Result], found: Sequence[Shard], any_shard: Shard) -> Outcome:
    there = {shard.index for shard in found}
    missing = [f"shard {index} of {any_shard.of} is missing" for index in range(any_shard.of) if index not in there]
    return Outcome(
        start_ns=0,
        started_at=any_shard.start_at,
        audits=tuple(audit for result in results for audit in result.workers),
        lost=(*missing, *(text for result in results for text in result.lost)),
        clocks=tuple(clock for result in results for clock in result.clocks),
    )


def _description(run: Run, shares: Sequence[_Share], lost: bool) -> dict[str, Any]:
    told = [share.described for share in shares]
    failures = [f"shard {share.shard.index}: {text}" for share in shares for text in share.described["failures"]]
    parts = [
        {"index": share.shard.index, "run": share.run.id, "host": one["machine"].get("host"), "status": one["status"]}
        for share, one in zip(shares, told, strict=True)
    ]
    return {
        **told[0],
        **this_owner(),
        "run": run.id,
        "status": "degraded" if lost or failures else "complete",
        "started": min(one["started"] for one in told),
        "ended": max((one["ended"] or "" for one in told), default=None) or None,
        "failures": failures,
        "shard": None,
        "fleet": {"kind": "shards", "workers": shares[0].shard.of, "shards": parts},
    }
